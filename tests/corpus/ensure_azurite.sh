#!/bin/sh
# Makes sure of Azurite, the emulator of Azure's storage, in the environment given (.venv unless told otherwise). Needs
# npm; never fails, because everything but the Azure tests runs without it, and those say that they were skipped.
home="${1:-.venv}/azurite"
[ -x "$home/node_modules/.bin/azurite-blob" ] && exit 0
command -v azurite-blob >/dev/null 2>&1 && exit 0
if command -v npm >/dev/null 2>&1; then
  echo "Installing Azurite for the tests of Azure ..."
  mkdir -p "$home" && npm install --silent --no-fund --no-audit --prefix "$home" azurite >/dev/null 2>&1 && exit 0
fi
echo "No Azurite, and none could be installed from here: the Azure tests will be SKIPPED. To run them, install npm."
exit 0
