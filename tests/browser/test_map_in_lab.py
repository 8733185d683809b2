"""The map in a real browser: how soon it is there, the mouse, the keys, narrow windows, and the end of a kernel."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from map_cells import VECTORS
from mouse import add_class, at, burn, click, draw, label, pane, tab, unfold

pytestmark = pytest.mark.browser

MAP = """began = time.process_time()
m = ds.Map(src)
spent = time.process_time() - began
drawn, clicked = [], []
_ = m.state.watch("aoi", lambda aoi: drawn.append((time.time(), aoi)))
_ = m.canvas.on_click(lambda *at: clicked.append(at))
m"""
PAINTED = """() => {
  const picture = document.querySelector('.leaflet-container img.leaflet-image-layer');
  return picture && picture.complete && picture.naturalWidth > 0;
}"""
# The goals are 3 s and 150 ms. Where others share the machine, only the processor time of the first is ours.
FIRST_MAP_S, DRAWN_S = 3.0, 1.0


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str, float], None]:
    def told(name: str, value: float) -> None:
        record_property(name, value)
        print(f"{name}: {value:.3f}")

    return told


def test_a_map_is_there_soon_and_what_the_mouse_draws_is_in_python_at_once(
    desk: Any, figures: Callable[[str, float], None]
) -> None:
    page, book = desk.open("len(src.search(src.area))"), desk.book
    book.write(MAP)
    began = book.run(0)
    page.wait_for_function(PAINTED, polling=20)
    page.locator(".leaflet-draw-draw-rectangle").first.wait_for()
    first_map_s = float(page.evaluate("()=>Date.now()")) / 1000 - began
    figures("first map, s", first_map_s)
    figures("of it the kernel's processor, s", book.ask("spent"))
    book.until("m.wait(60)")

    let_go = draw(page, (0.35, 0.35), (0.6, 0.6))
    book.until("drawn")
    when, box = book.ask("drawn[0]")
    figures("drawn to Python, s", when - let_go)
    west, south, east, north = box
    assert west < east
    assert south < north
    # Where the mouse was, as the map says it.
    centre, zoom = book.ask("[m.canvas.map.center, m.canvas.map.zoom]")
    degrees_per_px = 360 / (256 * 2**zoom)
    width_px = page.locator(".leaflet-container").first.bounding_box()["width"]
    assert west == pytest.approx(centre[1] + (0.35 - 0.5) * width_px * degrees_per_px, abs=2 * degrees_per_px)
    assert east - west == pytest.approx(0.25 * width_px * degrees_per_px, abs=2 * degrees_per_px)

    # Its scenes are on the strip; the keys choose among them, and the list follows.
    book.until("m.wait(60) and m.pairs is not None")
    page.locator(".ds-mark").first.wait_for(state="attached")
    assert page.locator(".ds-mark").count() == book.ask("len(m.scenes)")
    page.locator(".ds-timeline svg").focus()
    page.keyboard.press("Home")
    book.until("m._area.timeline.picked")
    of = "m.scenes.set_index('id').time[m._area.timeline.picked]"
    first = book.ask("m._area.timeline.picked")
    # Of the row of the pair that was chosen, which is Sentinel-2's.
    assert book.ask(f"bool({of} == m.scenes.loc[m.scenes.sensor == 'S2', 'time'].min())")
    page.keyboard.press("ArrowRight")
    book.until(f"m._area.timeline.picked != {json.dumps(first)}")
    page.keyboard.press("End")
    book.until(f"{of} == m.scenes.loc[m.scenes.sensor == 'S2', 'time'].max()")

    # A second shape takes the place of the first. The corners of a polygon are no clicks on the map.
    page.locator(".leaflet-draw-draw-polygon").first.click()
    for corner in ((0.4, 0.4), (0.6, 0.42), (0.5, 0.6), (0.4, 0.4)):
        page.mouse.click(*at(page, *corner))
        page.wait_for_timeout(250)
    book.until("len(drawn) == 2 and m.state['aoi']['type'] == 'Polygon'")
    book.until("len(m.canvas.drawing.control.data) == 1")
    page.wait_for_function("()=>document.querySelectorAll('path.ds-area').length === 1")
    assert book.ask("clicked") == []
    page.mouse.click(*at(page, 0.8, 0.8))
    book.until("len(clicked) == 1")

    # Deleted with the mouse, it is gone in Python.
    page.locator(".leaflet-draw-edit-remove").first.click()
    page.mouse.click(*at(page, 0.5, 0.45))
    page.locator(".leaflet-draw-actions >> text=Save").first.click()
    book.until("m.aoi is None")
    assert book.ask("spent") < FIRST_MAP_S
    assert first_map_s < 20 * FIRST_MAP_S
    assert when - let_go < DRAWN_S


def test_two_maps_on_one_page_share_nothing(desk: Any) -> None:
    page = desk.open("one = ds.Map(src)\none", "two = ds.Map(src)\ntwo", height=1500)
    page.locator(".leaflet-draw-draw-rectangle").nth(1).wait_for()
    desk.book.until("one.wait(60) and two.wait(60)")
    draw(page, (0.35, 0.35), (0.6, 0.6))
    desk.book.until("one.aoi is not None and one.wait(60) and one.pairs is not None")
    assert desk.ask("[two.aoi is None, two.scenes is None, two.code() == one.code()]") == [True, True, False]
    page.locator("path.ds-area").first.wait_for(state="attached")
    maps = page.locator(".ds-map")
    assert maps.nth(0).locator("path.ds-area").count() == 1
    assert maps.nth(1).locator("path.ds-area").count() == 0
    # A tab opened in one stays closed in the other.
    maps.nth(0).get_by_role("tab", name="Masks").click()
    desk.book.until("one.open('Masks').front")
    assert maps.nth(1).get_by_role("tab", name="Area").get_attribute("aria-selected") == "true"


def test_a_cell_run_again_leaves_one_map_and_a_kernel_that_is_gone_is_told(desk: Any) -> None:
    page, book = desk.open("from ipywidgets.widgets.widget import _instances\nm = ds.Map(src)\nm"), desk.book
    sizes = []
    for turn in range(3):
        if turn:
            book.run(0)
            book.idle()
        book.until("m.wait(60)")
        sizes.append(book.ask("len(_instances)"))
    # Each run closes the map of the run before.
    assert sizes[0] == sizes[1] == sizes[2]
    page.wait_for_function("()=>document.querySelectorAll('.leaflet-container').length === 1")
    assert page.locator(".ds-ended").first.is_hidden()
    page.evaluate("()=>{window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart();return 1}")
    page.locator(".ds-ended >> text=The kernel of this map has ended").wait_for()
    assert page.locator(".ds-ended").first.get_attribute("role") == "alert"


BAR_PX = 15
# What is wider than the room it has, outside of Leaflet's own: cut off, or to be scrolled to.
WIDER = """() => [document.body, ...document.querySelectorAll('.ds-map, .ds-map *')].filter((each) =>
  each.checkVisibility({ visibilityProperty: true }) && !each.closest('.leaflet-container, .ds-upload')
  && getComputedStyle(each).display !== 'inline' && each.clientWidth && each.scrollWidth > each.clientWidth + 1
).map((each) => `${each.tagName} ${each.className} ${each.scrollWidth} in ${each.clientWidth}: ${each.textContent}`)"""


@pytest.mark.long
def test_nothing_is_cut_off_in_a_narrow_window(desk: Any) -> None:
    page = desk.open(VECTORS.replace("{tab}", "Pair"), height=1500)
    page.get_by_label("and its year", exact=True).uncheck()
    click(page, 0.42, 0.45)
    page.locator(".ds-spectrum circle").first.wait_for()
    # Playwright hides scrollbars, which take room elsewhere: of the page, and of a list.
    bars = page.add_style_tag(content=f".ds-map .ds-list select {{ border-right: {BAR_PX}px solid !important }}")
    found = []
    for title in ("Area", "Pair", "Masks", "Embedding", "Labels", "Train"):
        tab(page, title)
        desk.book.until(f"m.open({title!r}) is not None and m.wait(60)")
        if title == "Masks":
            burn(page)
        elif title == "Embedding":
            click(page, 0.42, 0.45)
            page.locator(".ds-strip button").first.wait_for()
        elif title == "Labels":
            for number, place in enumerate(((0.45, 0.42), (0.55, 0.6))):
                add_class(page, f"grassland / pasture {number}")
                label(page, f"grassland / pasture {number}", place)
            page.locator(pane("prediction")).wait_for(state="attached")
        elif title == "Train":
            for fold in ("Build one of this area", "More choices"):
                unfold(page, fold)
        for width in (900, 1100, 1400):
            page.set_viewport_size({"width": width - BAR_PX, "height": 1500})
            page.wait_for_timeout(150)
            found += [f"{title} at {width}: {each[:150]}" for each in page.evaluate(WIDER)]
    bars.evaluate("(each) => each.remove()")
    assert found == []
