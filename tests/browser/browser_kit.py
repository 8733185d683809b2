"""Servers of one's own, tabs that count every request which leaves this machine, and a notebook in one of them.

Nothing here knows pytest, so that pictures and benchmarks use it too.
"""

from __future__ import annotations

import json
import os
import shutil
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
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LOCAL = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")
STATUS = "()=>window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status"
# What JupyterLab and ipyleaflet say of widgets and layers of a map that is closed while the page still draws it.
NOISE = ("Widget is not attached", "Cannot convert undefined or null to object")
PREFIX = "/user/x/"
TOKEN = "tok"

RUN_CELL = """(index) => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  notebook.activeCellIndex = index;
  window.jupyterapp.commands.execute('notebook:run-cell');
  return Date.now();
}"""
# The new cells come before the old ones go: a notebook is never empty.
WRITE_CELLS = """(sources) => {
  const shared = window.jupyterapp.shell.currentWidget.content.model.sharedModel;
  const before = shared.cells.length;
  const cells = sources.map((source) => ({ cell_type: 'code', source, metadata: {}, outputs: [] }));
  shared.transact(() => {
    shared.insertCells(before, cells);
    shared.deleteCellRange(0, before);
  });
}"""
ASK = """async (code) => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const future = kernel.requestExecute({ code, store_history: false });
  let out = '';
  future.onIOPub = (message) => {
    if (message.header.msg_type === 'stream') out += message.content.text;
    if (message.header.msg_type === 'error') out += message.content.traceback.join('\\n');
  };
  const reply = await future.done;
  return [reply.content.status, out];
}"""
ERRORS = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
  .flatMap((cell) => cell.toJSON().outputs?.filter((o) => o.output_type === 'error') ?? [])
  .map((o) => `${o.ename}: ${o.evalue}`)"""
THEME = """(name) => {
  window.jupyterapp.commands.execute('apputils:change-theme', { theme: name });
  return 1;
}"""


def find_chromium() -> str | None:
    """The path of a browser, if there is one."""
    for name in BROWSERS:
        # Some systems ship a stub of that name that only says where the browser could be had.
        if (path := shutil.which(name)) and not subprocess.run([path, "--version"], capture_output=True).returncode:
            return path
    return None


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
        try:
            _await(base + ready, home / "log")
            yield base
        finally:
            process.terminate()


def _await(url: str, log: Path) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except urllib.error.HTTPError:
            return  # it answers, if only that this is no page
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(log.read_text())


@contextmanager
def lab(root: Path, home: Path) -> Iterator[str]:
    """The address of a JupyterLab that nobody else uses, on a folder, with its settings in another."""
    settings = home / "lab/user-settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    options = ["--allow-root", "--ip=127.0.0.1", "--ServerApp.port_retries=0", f"--ServerApp.base_url={PREFIX}"]
    options += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={root}"]
    options += ["--LabApp.expose_app_in_browser=True"]
    own = {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "lab/user-settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "ws"),
    }
    with serving("jupyterlab", options, f"api/status?token={TOKEN}", root, home, **own) as base:
        yield base


@contextmanager
def explorer(root: Path, home: Path, source: str) -> Iterator[str]:
    """The address of the explorer as an app by Voila, on this source in place of the whole demo world."""
    text = (NOTEBOOKS / "explorer.ipynb").read_text()
    wanted = json.dumps('ds.Map("demo")')[1:-1]
    assert wanted in text
    (root / "explorer.ipynb").write_text(text.replace(wanted, json.dumps(f"ds.Map({source})")[1:-1]))
    options = ["explorer.ipynb", "--Voila.ip=127.0.0.1", f"--base_url={PREFIX}", "--template=deepsentinel"]
    with serving("voila", options, "voila/static/", root, home, JUPYTER_PATH=str(NOTEBOOKS)) as base:
        yield base


class Tabs:
    """A browser whose tabs reach this machine alone; what they asked others for is in `outside`."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.outside: list[str] = []
        self.broken: list[str] = []
        """What pages threw and nobody caught."""

    def opened(self, url: str, *, width: int = 1300, height: int = 1000, patience_s: float = 30) -> Any:
        """A tab with this page."""
        page = self.browser.new_context(viewport={"width": width, "height": height}).new_page()
        page.set_default_timeout(patience_s * 1000)
        page.route("**/*", self._gate)
        page.on("pageerror", self._threw)
        page.goto(url)
        return page

    def forget(self) -> None:
        """Count afresh."""
        self.outside.clear()
        self.broken.clear()

    def _threw(self, error: Any) -> None:
        if not any(each in str(error) for each in NOISE):
            self.broken.append(str(error.stack or error))

    def _gate(self, route: Any) -> None:
        if route.request.url.startswith(LOCAL):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()


@contextmanager
def browsing(chromium: str) -> Iterator[Tabs]:
    """A browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield Tabs(browser)
        browser.close()


class Notebook:
    """A notebook in a tab of JupyterLab, with its kernel up."""

    def __init__(self, tabs: Tabs, base: str, root: Path, name: str, *cells: str, **size: int) -> None:
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        empty = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
        listed = [{**empty, "id": f"cell{number}", "source": cell} for number, cell in enumerate(cells or [""])]
        content = {"cells": listed, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
        (root / name).write_text(json.dumps(content))
        self.page = tabs.opened(f"{base}lab/tree/{name}?token={TOKEN}&reset", **{"height": 900, **size})
        self.page.wait_for_function(f"({STATUS})()==='idle'", timeout=90_000)
        self.page.evaluate("()=>{window.jupyterapp.commands.execute('application:toggle-left-area');return 1}")

    def write(self, *cells: str) -> None:
        """These cells in place of those there."""
        self.page.evaluate(WRITE_CELLS, list(cells))

    def run(self, index: int) -> float:
        """Run a cell, without waiting for it; when that was, in seconds."""
        return float(self.page.evaluate(RUN_CELL, index)) / 1000

    def run_all(self, *cells: str, timeout_s: float = 120) -> None:
        """Write these cells and run them one after the other; none may raise."""
        self.write(*cells)
        for index in range(len(cells)):
            self.run(index)
            self.idle(timeout_s)
        errors = self.page.evaluate(ERRORS)
        assert errors == [], errors

    def idle(self, timeout_s: float = 120) -> None:
        """Until the kernel has nothing to do."""
        self.page.wait_for_timeout(200)
        self.page.wait_for_function(f"({STATUS})()==='idle'", timeout=timeout_s * 1000)

    def tell(self, code: str) -> str:
        """Run code in the kernel without a cell; what it printed."""
        status, out = self.page.evaluate(ASK, code)
        assert status == "ok", out
        return str(out)

    def ask(self, expression: str) -> Any:
        """What an expression of plain values is worth in the kernel."""
        return json.loads(self.tell(f"import json; print(json.dumps({expression}))").strip().splitlines()[-1])

    def until(self, expression: str, timeout_s: float = 60) -> None:
        """Wait until an expression is true in the kernel."""
        limit = time.monotonic() + timeout_s
        while not self.ask(f"bool({expression})"):
            assert time.monotonic() < limit, f"{expression} did not come true"
            self.page.wait_for_timeout(100)

    def theme(self, name: str) -> None:
        """`JupyterLab Light` or `JupyterLab Dark`."""
        self.page.evaluate(THEME, name)
        light = json.dumps(str("Dark" not in name).lower())
        self.page.wait_for_function(f"() => document.body.dataset.jpThemeLight === {light}")
        self.page.wait_for_timeout(300)

    def end(self) -> None:
        """Have the kernel end, and close the tab. Not waited for: after a restart Jupyter may never answer."""
        self.page.evaluate("()=>{window.jupyterapp.shell.currentWidget.sessionContext.shutdown();return 1}")
        self.page.wait_for_timeout(300)
        self.page.context.close()
