"""The explorer as an app: Voila under a URL prefix, without the code, without any request to another machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FLAGS, LOCAL

import deepsentinel as ds

pytest.importorskip("voila")
pytestmark = pytest.mark.browser

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Voila with the explorer, on a small demo world so that it is there soon."""
    root, home = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("home")
    source = (NOTEBOOKS / "explorer.ipynb").read_text()
    assert 'ds.Map(\\"demo\\")' in source
    # Built before, so that no bar of that is shown.
    src = ds.open_source("demo", size_px=256)
    src.search(src.area)
    (root / "explorer.ipynb").write_text(
        source.replace('ds.Map(\\"demo\\")', 'ds.Map(ds.open_source(\\"demo\\", size_px=256))')
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = dict(
        os.environ,
        JUPYTER_PATH=str(NOTEBOOKS),
        JUPYTER_RUNTIME_DIR=str(home / "rt"),
        JUPYTER_CONFIG_DIR=str(home / "cfg"),
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    command = [sys.executable, "-m", "voila", "explorer.ipynb", "--no-browser", f"--port={port}"]
    command += ["--Voila.ip=127.0.0.1", "--base_url=/user/x/", "--template=deepsentinel"]
    with (
        (home / "log").open("w") as log,
        subprocess.Popen(command, cwd=root, env=env, stdout=log, stderr=log) as process,
    ):
        base = f"http://127.0.0.1:{port}/user/x/"
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{base}voila/static/", timeout=1).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.2)
        else:
            process.terminate()
            pytest.fail((home / "log").read_text())
        yield base
        process.terminate()


def test_the_app_shows_the_map_and_asks_nobody_outside(app: str, chromium: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    outside: list[str] = []

    def gate(route: Any) -> None:
        if route.request.url.startswith(LOCAL):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_context(viewport={"width": 1300, "height": 950}).new_page()
        page.set_default_timeout(90_000)
        page.route("**/*", gate)
        broken: list[str] = []
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(app)
        page.locator(".leaflet-container").wait_for()
        page.locator(".leaflet-draw-draw-rectangle").wait_for()
        assert page.locator("text=import deepsentinel").count() == 0
        assert page.locator("text=Error displaying widget").count() == 0
        # The place that this source suggests is taken by a click, searched, and its pairs are listed.
        page.get_by_role("button", name="A good place").click()
        page.locator(".ds-mark").first.wait_for(state="attached")
        page.locator("path.ds-area").wait_for(state="attached")
        # Every tab opens.
        for title in ("Pair", "Masks", "Embedding", "Labels", "Train"):
            page.get_by_role("tab", name=title, exact=True).click()
            page.wait_for_timeout(200)
            page.screenshot(path=str(tmp_path / f"{title}.png"))
        page.get_by_role("button", name="Start", exact=True).wait_for()
        page.get_by_role("button", name="Start", exact=True).click()
        page.locator("[role=alert] >> text=Open a corpus, or build one").wait_for()
        page.screenshot(path=str(tmp_path / "app.png"))
        browser.close()
    assert broken == []
    assert outside == []
