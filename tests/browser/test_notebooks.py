"""The notebooks in a real browser against a real JupyterLab under a URL prefix, with the rest of the world blocked."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
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
TOKEN = "tok"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def chromium() -> str:
    for name in BROWSERS:
        # Some systems ship a stub of that name that only says where the browser could be had.
        if (path := shutil.which(name)) and not subprocess.run([path, "--version"], capture_output=True).returncode:
            return path
    pytest.skip(f"no browser here ({', '.join(BROWSERS)}): install Chromium to run the browser tests")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root, home = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("home")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(path, root)
    settings = home / "lab/user-settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = dict(
        os.environ,
        JUPYTER_RUNTIME_DIR=str(home / "rt"),
        JUPYTER_CONFIG_DIR=str(home / "cfg"),
        JUPYTERLAB_SETTINGS_DIR=str(home / "lab/user-settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(home / "ws"),
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    command = [sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", "--ServerApp.base_url=/user/x/", f"--IdentityProvider.token={TOKEN}"]
    command += [f"--ServerApp.root_dir={root}", "--LabApp.expose_app_in_browser=True"]
    with (home / "log").open("w") as log, subprocess.Popen(command, env=env, stdout=log, stderr=log) as process:
        base = f"http://127.0.0.1:{port}/user/x/"
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{base}api/status?token={TOKEN}", timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        else:
            process.terminate()
            pytest.fail((home / "log").read_text())
        yield base
        process.terminate()


# These take a minute and more each where others share the machine; `make test` runs their cells without a browser.
SLOW = ("02_labels.ipynb", "03_corpus.ipynb", "05_train.ipynb")
NOTEBOOKS = [
    pytest.param(path.name, marks=[pytest.mark.long] if path.name in SLOW else [])
    # The explorer is a map and nothing else; test_explorer.py opens it.
    for path in sorted((ROOT / "notebooks").glob("0*.ipynb"))
]


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_it_runs_in_a_browser_and_asks_nobody_outside(notebook: str, lab: str, chromium: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    outside: list[str] = []

    def gate(route):  # type: ignore[no-untyped-def]
        if route.request.url.startswith(LOCAL):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_context(viewport={"width": 1300, "height": 1000}).new_page()
        page.route("**/*", gate)
        page.goto(f"{lab}lab/tree/{notebook}?token={TOKEN}&reset")
        status = "()=>window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status"
        page.wait_for_function(f"({status})()==='idle'", timeout=90_000)
        # What the repository saved must not pass for what this run drew.
        page.evaluate("()=>{window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs');return 1}")
        # `return 1`: otherwise evaluate waits for every cell.
        page.evaluate("()=>{window.jupyterapp.commands.execute('notebook:run-all-cells');return 1}")
        cells = """()=>{
          const all = [...window.jupyterapp.shell.currentWidget.content.model.cells].map(cell => cell.toJSON());
          const code = all.filter(cell => cell.cell_type === 'code');
          return {
            code: code.length,
            done: code.filter(cell => cell.execution_count > 0).length,
            errors: code.flatMap(cell => cell.outputs.filter(o => o.output_type === 'error').map(o => o.evalue)),
            pictures: code.flatMap(cell => cell.outputs)
              .filter(o => o.data && (o.data['image/png'] || o.data['image/jpeg'])).length,
          }}"""
        deadline = time.monotonic() + 240
        while True:
            state = page.evaluate(cells)
            if state["errors"] or state["done"] == state["code"] or time.monotonic() > deadline:
                break
            page.wait_for_timeout(500)
        page.wait_for_timeout(1000)
        page.screenshot(path=str(tmp_path / f"{notebook}.png"))
        browser.close()
    assert state["errors"] == []
    assert state["done"] == state["code"] > 5
    assert state["pictures"] >= 3
    assert outside == []
