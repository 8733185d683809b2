#!/bin/sh
# Makes sure of a Chromium for the browser tests. Installs one only where that needs no password; never fails, because
# everything but the browser tests runs without it, and those say that they were skipped.
for name in chromium chromium-browser google-chrome google-chrome-stable; do
  command -v "$name" >/dev/null 2>&1 && exit 0
done
run=""
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null && run="sudo -n"
fi
if command -v apt-get >/dev/null 2>&1 && { [ "$(id -u)" = 0 ] || [ -n "$run" ]; }; then
  echo "Installing Chromium for the browser tests ..."
  log=$(mktemp)
  if { $run apt-get update -qq && DEBIAN_FRONTEND=noninteractive $run apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >"$log" 2>&1; then
    rm -f "$log"
    exit 0
  fi
  tail -n 5 "$log"
  rm -f "$log"
fi
echo "No Chromium, and none could be installed from here: the browser tests will be SKIPPED. To run them, install Chromium or Chrome."
exit 0
