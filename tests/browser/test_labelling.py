"""Embeddings and labels with a real mouse: click for similar, two labels and a map appears, and how long it takes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

# Vectors that need no encoder: means, spreads and mixtures of the bands in cells of 40 m.
START = """
import deepsentinel as ds, numpy as np, time, xarray as xr
from odc.geo.geobox import GeoBox
from deepsentinel.grids import grid_coords, grid_of
src = ds.open_source("demo", size_px=256)
m = ds.Map(src, aoi=src.area)
m
"""
VECTORS = """
assert m.wait(60)
m.state.do("patch", "src.read(pairs.iloc[{row}], grid)", row=0)
def vectors(patch, px=4, width=96):
    names = [str(name) for name in patch.data_vars if name not in ("SCL", "angle")]
    grid = grid_of(patch)
    rows, columns = grid.shape.y // px, grid.shape.x // px
    layers = [np.nan_to_num(patch[name].values[: rows * px, : columns * px].astype("float32")) for name in names]
    blocks = np.stack(layers, -1).reshape(rows, px, columns, px, -1).transpose(0, 2, 4, 1, 3)
    blocks = blocks.reshape(rows, columns, len(names), -1)
    plain = np.concatenate([blocks.mean(-1), blocks.std(-1)], axis=-1)
    plain = (plain - plain.mean((0, 1))) / plain.std((0, 1))
    mixed = plain @ np.random.default_rng(0).normal(size=(plain.shape[-1], width)).astype("float32")
    place = grid_coords(GeoBox((rows, columns), grid.affine @ grid.affine.scale(px), str(grid.crs)))
    return xr.DataArray(mixed, place, ("y", "x", "feature"), attrs={"encoder": "mixtures", "sensors": "both"})
m.state.put("z", vectors(m.patch), "vectors(patch)")
m.open("{tab}");
"""
# The whole demo tile: 128 x 128 cells of 80 m and 384 features, over a pair made of copies of the one that was read.
LARGE = """
times = -(-1024 // min(m.patch.sizes["x"], m.patch.sizes["y"]))
place = grid_coords(GeoBox((1024, 1024), grid_of(m.patch).affine, str(grid_of(m.patch).crs)))
tiled = {name: np.tile(layer.values, (times, times))[:1024, :1024] for name, layer in m.patch.data_vars.items()}
when = {name: m.patch[name] for name in ("s1_time", "s2_time")}
large = xr.Dataset({name: (("y", "x"), values) for name, values in tiled.items()}, place | when, m.patch.attrs)
m.state.put("patch", large, "large")
m.state.put("z", vectors(large, 8, 384), "vectors(large, 8, 384)")
assert m.wait(60)
m.canvas.fit(m.state["view_z"].bounds)
"""
# A picture of the map tells when it is painted, in milliseconds since 1970.
WATCH = """() => {
  window.painted = {};
  new MutationObserver((changes) => changes.forEach(async ({ type, target, addedNodes }) => {
    for (const image of type === 'attributes' ? [target] : addedNodes) {
      if (image.tagName !== 'IMG') continue;
      await image.decode().catch(() => null);
      requestAnimationFrame(() => {
        const pane = image.parentElement?.className.match(/deepsentinel-(\\w+)-pane/)?.[1];
        window.painted[pane] = performance.now();
      });
    }
  })).observe(document.querySelector('.leaflet-map-pane'),
    { subtree: true, childList: true, attributes: true, attributeFilter: ['src'] });
  document.addEventListener('mouseup', () => { window.clicked = performance.now(); window.painted = {} }, true);
}"""
AFTER = "(pane) => window.painted[pane] - window.clicked"
UNNAMED = re.compile(r"^\s*- (button|slider|checkbox|combobox|textbox|img|tab|link|group|radio)(:| \[|$)", re.MULTILINE)
ERRORS = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
  .flatMap((cell) => cell.toJSON().outputs.filter((o) => o.output_type === 'error'))
  .map((o) => `${o.ename}: ${o.evalue}`)"""


class Desk:
    """A notebook whose cells have run, and what its page throws."""

    def __init__(self, notebook: Callable[..., Any]) -> None:
        self.notebook = notebook
        self.broken: list[str] = []

    def open(self, *cells: str, **size: int) -> Any:
        """The page."""
        self.book = self.notebook(*cells, **{"width": 1400, "height": 1100, **size})
        page = self.book.page
        page.on("pageerror", lambda error: self.broken.append(str(error)))
        for index in range(len(cells)):
            self.book.run(index)
            self.book.idle()
        assert page.evaluate(ERRORS) == []
        page.locator(".leaflet-map-pane").wait_for(state="attached")
        page.evaluate(WATCH)
        return page


@pytest.fixture
def desk(notebook: Callable[..., Any]) -> Iterator[Desk]:
    made = Desk(notebook)
    yield made
    assert made.broken == []


def at(page: Any, across: float, down: float) -> tuple[float, float]:
    """A place on the map, in pixels of the page."""
    box = page.locator(".leaflet-container").bounding_box()
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


def picture(page: Any, name: str) -> None:
    """A picture to look at, for who asks for it."""
    if folder := os.environ.get("DEEPSENTINEL_SHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def painted(page: Any, pane: str, click: Callable[[], None]) -> float:
    """Milliseconds from a click until a picture is seen."""
    click()
    page.wait_for_function(f"() => window.painted['{pane}']", timeout=20_000)
    return float(page.evaluate(AFTER, pane))


def test_click_to_similar(desk: Desk) -> None:
    page = desk.open(START, VECTORS.replace("{tab}", "Embedding"))
    page.wait_for_function("() => document.querySelector('.leaflet-deepsentinel-embedding-pane img')", timeout=20_000)
    waits = [painted(page, "likeness", lambda: page.mouse.click(*at(page, 0.45, 0.5)))]
    pieces = page.locator(".ds-strip button")
    pieces.nth(5).wait_for(timeout=10_000)
    picture(page, "similar")
    page.get_by_label("A click is", exact=True).select_option("Not like this")
    waits += [painted(page, "likeness", lambda: page.mouse.click(*at(page, 0.55, 0.62)))]
    print("similar after", ", ".join(f"{each:.0f}" for each in waits), "ms")
    assert min(waits) < 1500  # under 300 ms where nobody shares the machine
    page.wait_for_function("() => document.querySelectorAll('.leaflet-overlay-pane path').length >= 12", timeout=10_000)
    pieces.nth(2).click()
    desk.book.until("m.canvas.shapes.get('match') is not None", 10)
    picture(page, "similar-two")
    page.get_by_label("View", exact=True).select_option("Groups")
    page.locator(".ds-legend-row").nth(5).wait_for(timeout=20_000)
    picture(page, "groups")
    rendering = (
        "() => getComputedStyle(document.querySelector('.leaflet-deepsentinel-embedding-pane img')).imageRendering"
    )
    assert page.evaluate(rendering) == "pixelated"
    assert UNNAMED.findall(page.locator(".ds-panel:visible").first.aria_snapshot()) == []


def test_a_whole_tile_answers_at_once(desk: Desk) -> None:
    page = desk.open(START, VECTORS.replace("{tab}", "Embedding"), LARGE)
    assert desk.book.ask("m.z.shape") == [128, 128, 384]
    page.wait_for_function("() => document.querySelector('.leaflet-deepsentinel-embedding-pane img')", timeout=20_000)
    places = [(0.42, 0.45), (0.57, 0.6), (0.45, 0.62), (0.6, 0.4)]
    similar = [painted(page, "likeness", lambda place=place: page.mouse.click(*at(page, *place))) for place in places]
    picture(page, "tile-similar")
    page.get_by_role("tab", name="Labels").click()
    mapped = []
    for number, place in enumerate(places):
        if number < 2:
            page.get_by_label("Name of a new class").fill(f"class {number}")
            page.get_by_role("button", name="Add class").click()
            page.get_by_label(f"Label with class {number}").wait_for(timeout=10_000)
            page.wait_for_timeout(500)
        if number:
            mapped.append(painted(page, "prediction", lambda place=place: page.mouse.click(*at(page, *place))))
        else:
            page.mouse.click(*at(page, *place))
            page.locator(".ds-class-count", has_text="1 label").wait_for(timeout=10_000)
    picture(page, "tile-labels")
    print("similar after", ", ".join(f"{each:.0f}" for each in similar), "ms")
    print("a map after", ", ".join(f"{each:.0f}" for each in mapped), "ms")
    # Under 300 ms and under 1 s where nobody shares the machine.
    assert min(similar) < 1500
    assert min(mapped) < 3000


def test_two_labels_and_a_map_appears(desk: Desk, tmp_path: Path) -> None:
    page = desk.open(START, VECTORS.replace("{tab}", "Labels"))
    for name in ("water", "crop / field"):
        page.get_by_label("Name of a new class").fill(name)
        page.get_by_role("button", name="Add class").click()
        page.get_by_label(f"Label with {name}").wait_for(timeout=10_000)
    page.get_by_label("Label with water").click()
    page.mouse.click(*at(page, 0.45, 0.42))
    page.locator(".ds-class-count", has_text="1 label").wait_for(timeout=10_000)
    page.get_by_label("Label with crop / field").click()
    desk.book.until("m.open('Labels').book.active == 'crop / field'", 10)
    waits = [painted(page, "prediction", lambda: page.mouse.click(*at(page, 0.55, 0.6)))]
    picture(page, "two-labels")
    for step in range(3):
        page.get_by_label("Label with water" if step % 2 else "Label with crop / field").click()
        page.wait_for_timeout(400)
        waits.append(
            painted(page, "prediction", lambda step=step: page.mouse.click(*at(page, 0.42 + 0.05 * step, 0.68)))
        )
    print("a map after", ", ".join(f"{each:.0f}" for each in waits), "ms")
    assert min(waits) < 3000  # under 1 s where nobody shares the machine
    assert desk.book.ask("len(m.state['examples'])") == 5

    # A rectangle is a label, and the area stays what it is.
    area = desk.book.ask("list(m.aoi.bounds)")
    page.locator(".leaflet-draw-draw-rectangle").click()
    page.mouse.move(*at(page, 0.52, 0.3))
    page.mouse.down()
    page.mouse.move(*at(page, 0.56, 0.34), steps=4)
    page.mouse.up()
    desk.book.until("len(m.state['examples']) == 6", 10)
    assert desk.book.ask("m.state['examples'].geometry.iloc[-1].geom_type") == "Polygon"
    assert desk.book.ask("list(m.aoi.bounds)") == area

    page.get_by_label("Map", exact=True).select_option("Uncertainty")
    page.wait_for_function("() => document.querySelector('.leaflet-deepsentinel-doubt-pane img')", timeout=10_000)
    page.get_by_role("button", name="Where next?").click()
    page.get_by_text("What is here?").wait_for(timeout=15_000)
    picture(page, "where-next")
    page.get_by_role("button", name="Score").click()
    page.get_by_text("named rightly").wait_for(timeout=15_000)
    page.get_by_label("Map", exact=True).select_option("Both, to swipe")
    page.locator(".ds-swipe-handle").wait_for(timeout=10_000)
    picture(page, "score")
    page.get_by_role("button", name="Undo").click()
    desk.book.until("len(m.state['examples']) == 5", 10)
    assert UNNAMED.findall(page.locator(".ds-panel:visible").first.aria_snapshot()) == []
