"""Servers of one test's own, and tabs that count every request which leaves this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Without these Chromium looks up its maker's hosts at every start.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LOCAL = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")
STATUS = "()=>window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status"
PREFIX = "/user/x/"
TOKEN = "tok"


@contextmanager
def serving(module: str, options: Sequence[str], ready: str, folder: Path, home: Path, **more: str) -> Iterator[str]:
    """The address of a server under a prefix, once it answers for `ready`, with nobody's settings but its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = dict(
        os.environ,
        JUPYTER_RUNTIME_DIR=str(home / "rt"),
        JUPYTER_CONFIG_DIR=str(home / "cfg"),
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        **more,
    )
    command = [sys.executable, "-m", module, "--no-browser", f"--port={port}", *options]
    with (
        (home / "log").open("w") as log,
        subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log) as process,
    ):
        base = f"http://127.0.0.1:{port}{PREFIX}"
        for _ in range(300):
            try:
                urllib.request.urlopen(base + ready, timeout=1).close()
                break
            except urllib.error.HTTPError:
                # It answers, if only that this is no page.
                break
            except OSError:
                time.sleep(0.2)
        else:
            process.terminate()
            pytest.fail((home / "log").read_text())
        yield base
        process.terminate()


class Tabs:
    """A browser whose tabs reach this machine alone; what they asked others for is in `outside`."""

    def __init__(self, browser: Any) -> None:
        self.browser, self.outside = browser, []

    def opened(self, url: str, *, width: int = 1300, height: int = 1000, patience_s: float = 30) -> Any:
        """A tab with this page."""
        page = self.browser.new_context(viewport={"width": width, "height": height}).new_page()
        page.set_default_timeout(patience_s * 1000)
        page.route("**/*", self._gate)
        page.goto(url)
        return page

    def _gate(self, route: Any) -> None:
        if route.request.url.startswith(LOCAL):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()


@contextmanager
def tabs(chromium: str) -> Iterator[Tabs]:
    """A browser for one test, which fails if anything asked for a thing outside this machine."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        made = Tabs(browser)
        yield made
        browser.close()
    assert made.outside == []
