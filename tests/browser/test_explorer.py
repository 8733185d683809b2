"""The explorer as an app: Voila under a URL prefix, without the code, without any request to another machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mouse
import pytest
from browser_kit import Tabs, explorer

import deepsentinel as ds

pytest.importorskip("voila")
pytestmark = pytest.mark.browser
SOURCE = 'ds.open_source("demo", size_px=256)'


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Voila with the explorer, on a small demo world so that it is there soon."""
    # Built before, so that no bar of that is shown.
    src = ds.open_source("demo", size_px=256)
    src.search(src.area)
    with explorer(tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("home"), SOURCE) as base:
        yield base


def opened(app: str, tabs: Tabs) -> Any:
    """The app, once its map is there."""
    page = tabs.opened(app, width=1400, height=1000, patience_s=90)
    page.locator(".leaflet-draw-draw-rectangle").wait_for()
    page.get_by_role("button", name="A good place").wait_for()
    return page


def test_the_app_shows_the_map_and_asks_nobody_outside(app: str, tabs: Tabs) -> None:
    page = opened(app, tabs)
    assert page.locator("text=import deepsentinel").count() == 0
    assert page.locator("text=Error displaying widget").count() == 0
    # The place that this source suggests is taken by a click, searched, and its pairs are listed.
    page.get_by_role("button", name="A good place").click()
    page.locator(".ds-mark").first.wait_for(state="attached")
    page.locator("path.ds-area").wait_for(state="attached")
    # The last tab, as no other has been opened, has a panel that answers.
    mouse.tab(page, "Train")
    assert page.get_by_role("button", name="Start", exact=True).is_disabled()
    page.get_by_role("button", name="Open", exact=True).click()
    page.locator("[role=alert] >> text=Give the path of a corpus").wait_for()
    page.context.close()


@pytest.mark.long
def test_all_that_a_person_does_is_done_in_the_app(app: str, tabs: Tabs) -> None:
    """Draw, swipe, spectrum, masks, similar, two labels and a map, a run that is watched and stopped."""
    page = opened(app, tabs)
    mouse.draw(page, (0.2, 0.12), (0.8, 0.88))
    page.get_by_text("pixels of 10 m").wait_for()
    mouse.read_pair(page)
    before = page.locator(".ds-swipe").bounding_box()["x"]
    cut = "() => document.querySelector('.leaflet-deepsentinel-s2-pane').style.clip"
    clip = page.evaluate(cut)
    mouse.swipe(page, 90)
    assert page.locator(".ds-swipe").bounding_box()["x"] == pytest.approx(before + 90, abs=3)
    assert page.evaluate(cut) != clip
    page.get_by_label("Dates", exact=True).select_option("8")
    mouse.spectrum(page, 0.45, 0.5)
    page.wait_for_function("() => document.querySelectorAll('.ds-year .ds-mark').length >= 16")

    mouse.tab(page, "Masks")
    mouse.burn(page, "corine")
    page.mouse.move(*mouse.at(page, 0.5, 0.5))
    page.locator(".ds-here >> text=covers").wait_for()

    mouse.tab(page, "Embedding")
    mouse.embed(page)
    mouse.click(page, 0.5, 0.5)
    page.locator(".ds-strip button").nth(5).wait_for()
    page.locator(mouse.pane("likeness")).wait_for(state="attached")

    mouse.tab(page, "Labels")
    for number, place in enumerate(((0.4, 0.4), (0.6, 0.62))):
        mouse.add_class(page, f"class {number}")
        mouse.label(page, f"class {number}", place)
    page.locator(mouse.pane("prediction")).wait_for(state="attached")

    mouse.tab(page, "Train")
    mouse.build_corpus(page)
    mouse.start_run(page)
    curve = "() => document.querySelector('.ds-curves path.ds-loss').getAttribute('d')"
    drawn = page.evaluate(curve)
    page.wait_for_function(f"(before) => ({curve})() !== before", arg=drawn)
    # The kernel answers while it trains: the cell that does the same is written when it is unfolded.
    page.locator(".ds-cell summary").click()
    page.locator(".ds-cell pre >> text=ds.build_corpus(").wait_for()
    assert page.get_by_role("button", name="Stop", exact=True).is_enabled()
    mouse.stop_run(page)
    page.context.close()
