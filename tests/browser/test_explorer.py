"""The explorer as an app: Voila under a URL prefix, without the code, without any request to another machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_kit import PREFIX, serving, tabs

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
    options = ["explorer.ipynb", "--Voila.ip=127.0.0.1", f"--base_url={PREFIX}", "--template=deepsentinel"]
    with serving("voila", options, "voila/static/", root, home, JUPYTER_PATH=str(NOTEBOOKS)) as base:
        yield base


def test_the_app_shows_the_map_and_asks_nobody_outside(app: str, chromium: str, tmp_path: Path) -> None:
    with tabs(chromium) as browser:
        page = browser.opened("about:blank", height=950, patience_s=90)
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
    assert broken == []
