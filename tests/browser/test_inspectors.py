"""Pairs and masks looked at with a real mouse: swipe, click, hover, filter; and how long a person waits for it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.browser

START = """
import deepsentinel as ds
src = ds.open_source("demo", size_px=256)
m = ds.Map(src, aoi=src.area)
m
"""
READ = """
assert m.wait(60)
m.state.do("patch", "src.read(pairs.iloc[{row}], grid)", row=0)
m.open("{tab}");
"""
PICTURES = """() => Object.fromEntries(['s2', 's1', 'clouds', 'masks', 'masks_fine'].map((key) => {
  const pane = document.querySelector(`.leaflet-deepsentinel-${key}-pane`);
  const images = [...(pane?.querySelectorAll('img') ?? [])];
  const opacity = images.map((each) => Number(each.style.opacity || 1));
  return [key, { count: images.length, clip: pane?.style.clip ?? '', opacity }];
}))"""
# A 1024 px pair, made of copies of the one that was read.
LARGE = """
import time
import numpy as np, xarray as xr
from odc.geo.geobox import GeoBox
from deepsentinel.grids import grid_coords, grid_of
small = m.patch
times = -(-1024 // min(small.sizes["x"], small.sizes["y"]))
place = grid_coords(GeoBox((1024, 1024), grid_of(small).affine, str(grid_of(small).crs)))
tiled = {name: np.tile(layer.values, (times, times))[:1024, :1024] for name, layer in small.data_vars.items()}
when = {name: small[name] for name in ("s1_time", "s2_time")}
large = [
    xr.Dataset({name: (("y", "x"), values[::step].copy()) for name, values in tiled.items()}, place | when, small.attrs)
    for step in (1, -1)
]
"""
WATCH = """() => {
  window.painted = {};
  new MutationObserver((changes) => changes.forEach(async ({ type, target, addedNodes }) => {
    for (const image of type === 'attributes' ? [target] : addedNodes) {
      if (image.tagName !== 'IMG') continue;
      await image.decode().catch(() => null);
      requestAnimationFrame(() => {
        const pane = image.parentElement?.className.match(/deepsentinel-(\\w+)-pane/)?.[1];
        if (image.naturalWidth > 900) window.painted[pane] = Date.now();
      });
    }
  })).observe(document.querySelector('.leaflet-map-pane'),
    { subtree: true, childList: true, attributes: true, attributeFilter: ['src'] });
}"""
SEEN = "int((m.state['view_masks'].image[..., 3] > 0).sum())"
UNNAMED = re.compile(r"^\s*- (button|slider|checkbox|combobox|textbox|img|tab|link)(:| \[|$)", re.MULTILINE)


ERRORS = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
  .flatMap((cell) => cell.toJSON().outputs.filter((o) => o.output_type === 'error').map((o) => o.evalue))"""


class Desk:
    """A notebook whose cells have run, and what its page throws."""

    def __init__(self, notebook: Callable[..., Any]) -> None:
        self.notebook = notebook
        self.broken: list[str] = []

    def open(self, *cells: str) -> Any:
        """The page."""
        self.book = self.notebook(*cells, width=1400, height=1000)
        page = self.book.page
        page.on("pageerror", lambda error: self.broken.append(str(error)))
        for index in range(len(cells)):
            self.book.run(index)
            self.book.idle()
        assert page.evaluate(ERRORS) == []
        return page

    def ask(self, expression: str) -> Any:
        """What an expression is worth in the kernel."""
        return self.book.ask(expression)


@pytest.fixture
def desk(notebook: Callable[..., Any]) -> Iterator[Desk]:
    made = Desk(notebook)
    yield made
    assert made.broken == []


def middle(page: Any, across: float = 0.5, down: float = 0.5) -> tuple[float, float]:
    """A place on the map, in pixels of the page."""
    box = page.locator(".leaflet-container").bounding_box()
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


def test_swipe_and_click_a_pair(desk: Desk) -> None:
    page = desk.open(START, READ.replace("{tab}", "Pair"))
    handle = page.locator(".ds-swipe-handle")
    handle.wait_for()
    before = page.evaluate(PICTURES)
    # One image each: Leaflet's own swipe has two.
    assert (before["s2"]["count"], before["s1"]["count"]) == (1, 1)
    place, centre = handle.bounding_box(), page.locator(".leaflet-map-pane").evaluate("(e) => e.style.transform")
    page.mouse.move(place["x"] + 17, place["y"] + 17)
    page.mouse.down()
    page.mouse.move(place["x"] + 57, place["y"] + 17, steps=4)
    page.mouse.move(place["x"] + 117, place["y"] + 17, steps=4)
    page.mouse.up()
    assert handle.bounding_box()["x"] == pytest.approx(place["x"] + 100, abs=3)
    page.keyboard.press("ArrowLeft")
    share = desk.ask("m.canvas._swipe.widget.share")
    width = page.locator(".leaflet-container").bounding_box()["width"]
    assert share == pytest.approx(0.5 + 100 / width - 0.02, abs=0.01)
    after = page.evaluate(PICTURES)
    assert after["s2"]["clip"] != before["s2"]["clip"]
    # The map did not move along, and nobody took it for a click.
    assert page.locator(".leaflet-map-pane").evaluate("(e) => e.style.transform") == centre
    assert desk.ask("m.state['pixel']") is None

    page.get_by_label("Dates", exact=True).select_option("8")
    began = time.monotonic()
    page.mouse.click(*middle(page, 0.4, 0.5))
    page.locator(".ds-spectrum circle").first.wait_for(timeout=10_000)
    print(f"spectrum {1000 * (time.monotonic() - began):.0f} ms after the click")
    # The kernel answers while the year is being read.
    began = time.monotonic()
    assert desk.ask("6 * 7") == 42
    assert time.monotonic() - began < 5
    page.wait_for_function("() => document.querySelectorAll('.ds-mark').length >= 16", timeout=60_000)
    assert desk.ask("m.wait(60) and m.state['point'].sizes['s1_time']") == 8
    page.locator(".ds-year").focus()
    page.keyboard.press("ArrowRight")
    page.locator(".ds-spectrum.ds-other circle").first.wait_for(timeout=5_000)

    page.get_by_label("Show", exact=True).select_option("Sentinel-1")
    handle.wait_for(state="hidden")
    alone = page.evaluate(PICTURES)
    assert (alone["s1"], alone["s2"]["opacity"]) == ({"count": 1, "clip": "", "opacity": [1]}, [0])
    page.get_by_label("Clouds", exact=True).check()
    page.wait_for_function("() => document.querySelector('.leaflet-deepsentinel-clouds-pane img')")
    assert UNNAMED.findall(page.locator(".ds-panel:visible").first.aria_snapshot()) == []


def test_masks_under_the_pointer(desk: Desk) -> None:
    page = desk.open(START, READ.replace("{tab}", "Masks"))
    page.get_by_role("button", name="Make masks").click()
    boxes = page.locator(".ds-legend input")
    boxes.first.wait_for(timeout=30_000)
    page.evaluate("""() => {
      window.waits = [];
      let moved = 0;
      const map = document.querySelector('.leaflet-container');
      map.addEventListener('mousemove', () => (moved = performance.now()), true);
      new MutationObserver(() => window.waits.push(performance.now() - moved))
        .observe(document.querySelector('.ds-here'), { subtree: true, childList: true, characterData: true });
    }""")
    for step in range(24):
        page.mouse.move(*middle(page, 0.2 + 0.025 * step, 0.3 + 0.4 * (step % 2)))
        page.wait_for_timeout(80)
    waits = sorted(page.evaluate("() => window.waits"))
    print(f"hover: {waits[len(waits) // 2]:.0f} ms, at most {waits[-1]:.0f} ms, {len(waits)} changes")
    assert len(waits) >= 4
    assert waits[len(waits) // 2] < 250  # 20 ms where nobody shares the machine
    assert "covers" in page.locator(".ds-here").inner_text()

    before = desk.ask(SEEN)
    boxes.first.uncheck()
    page.wait_for_timeout(1000)
    assert desk.ask(SEEN) < before
    page.get_by_label("Pixels", exact=True).select_option("Swipe: 10 m left, 2.5 m right")
    page.wait_for_function("() => document.querySelector('.leaflet-deepsentinel-masks_fine-pane img')", timeout=20_000)
    page.get_by_label("Outlines", exact=True).check()
    page.wait_for_function("() => document.querySelectorAll('.leaflet-overlay-pane path').length > 5", timeout=10_000)
    assert UNNAMED.findall(page.locator(".ds-panel:visible").first.aria_snapshot()) == []
    # A click reaches the pixel below an outline.
    page.get_by_role("tab", name="Pair").click()
    page.get_by_label("and its year", exact=True).uncheck()
    page.mouse.click(*middle(page, 0.4, 0.5))
    page.locator(".ds-spectrum circle").first.wait_for(timeout=10_000)


def test_a_large_pair_is_painted_soon(desk: Desk) -> None:
    page = desk.open(START, READ.replace("{tab}", "Pair"), LARGE)
    page.evaluate(WATCH)
    waits = []
    for turn in range(4):
        page.evaluate("() => { window.painted = {} }")
        began = desk.ask(f"[time.time(), m.state.put('patch', large[{turn % 2}], 'large')][0]")
        page.wait_for_function("() => window.painted.s1 && window.painted.s2", timeout=20_000)
        waits.append(max(page.evaluate("() => Object.values(window.painted)")) - 1000 * began)
    print("painted after", ", ".join(f"{each:.0f}" for each in waits), "ms")
    # Under 500 ms where nobody shares the machine; the first one has the map find its place.
    assert min(waits) < 2000
