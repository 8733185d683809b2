"""JupyterLab under a URL prefix, Chromium, and a notebook opened in it; every request to another machine is counted."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_kit import PREFIX, STATUS, TOKEN, serving, tabs

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RUN_CELL = """(index) => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  notebook.activeCellIndex = index;
  window.jupyterapp.commands.execute('notebook:run-cell');
  return Date.now();
}"""
ASK = """async (code) => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const future = kernel.requestExecute({ code, store_history: false });
  let out = '';
  future.onIOPub = (message) => {
    if (message.header.msg_type === 'stream') out += message.content.text;
    if (message.header.msg_type === 'error') out += message.content.traceback.join('\\n');
  };
  await future.done;
  return out;
}"""


class Notebook:
    """A notebook in a browser."""

    def __init__(self, page: Any, outside: list[str]) -> None:
        self.page, self.outside = page, outside

    def run(self, index: int) -> float:
        """Run a cell, without waiting for it; when that was, in seconds."""
        return float(self.page.evaluate(RUN_CELL, index)) / 1000

    def idle(self, timeout_s: float = 120) -> None:
        """Until the kernel has nothing to do."""
        self.page.wait_for_timeout(300)
        self.page.wait_for_function(f"({STATUS})()==='idle'", timeout=timeout_s * 1000)

    def ask(self, expression: str) -> Any:
        """What an expression of plain values is worth in the kernel."""
        told = self.page.evaluate(ASK, f"import json; print(json.dumps({expression}))")
        return json.loads(told.strip().splitlines()[-1])

    def until(self, expression: str, timeout_s: float = 60) -> None:
        """Wait until an expression is true in the kernel."""
        limit = time.monotonic() + timeout_s
        while not self.ask(f"bool({expression})"):
            assert time.monotonic() < limit, f"{expression} did not come true"
            self.page.wait_for_timeout(200)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a browser."""
    for name in BROWSERS:
        # Some systems ship a stub of that name that only says where the browser could be had.
        if (path := shutil.which(name)) and not subprocess.run([path, "--version"], capture_output=True).returncode:
            return path
    pytest.skip(f"no browser here ({', '.join(BROWSERS)}): install Chromium to run the browser tests")


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address and folder of a JupyterLab that nobody else uses."""
    root, home = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("home")
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
        yield base, root


@pytest.fixture
def notebook(jupyter: tuple[str, Path], chromium: str, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Call it with the sources of cells: a `Notebook` with its kernel up and nothing run.

    At the end the kernel goes, and the test fails if anything asked for a thing outside this machine.
    """
    base, root = jupyter
    with tabs(chromium) as browser:
        made: list[Notebook] = []

        def opened(*cells: str, width: int = 1300, height: int = 900) -> Notebook:
            kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
            empty = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
            listed = [{**empty, "id": f"cell{number}", "source": cell} for number, cell in enumerate(cells)]
            name = f"{request.node.name}-{len(made)}.ipynb"
            content = {"cells": listed, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
            (root / name).write_text(json.dumps(content))
            page = browser.opened(f"{base}lab/tree/{name}?token={TOKEN}&reset", width=width, height=height)
            page.wait_for_function(f"({STATUS})()==='idle'", timeout=90_000)
            page.evaluate("()=>{window.jupyterapp.commands.execute('application:toggle-left-area');return 1}")
            made.append(Notebook(page, browser.outside))
            return made[-1]

        yield opened
        for each in made:
            # Not waited for: after a restart Jupyter may never answer.
            each.page.evaluate("()=>{window.jupyterapp.shell.currentWidget.sessionContext.shutdown();return 1}")
            each.page.wait_for_timeout(500)
