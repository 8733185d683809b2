"""A map that somebody has already, of geemap, as the host of ours: in a browser, without an account."""

from __future__ import annotations

from typing import Any

import pytest
from mouse import draw, pane, read_pair, swipe

pytest.importorskip("geemap")
# Importing geemap takes seconds.
pytestmark = [pytest.mark.browser, pytest.mark.long]


def test_geemap_is_a_host(desk: Any, tabs: Any) -> None:
    page = desk.open(
        "import geemap\nhost = geemap.Map(ee_initialize=False)\nm = ds.Map(src, aoi=src.area, host=host)\nm",
        height=1100,
    )
    page.locator(".leaflet-draw-draw-rectangle").wait_for()
    desk.book.until("m.wait(60) and m.pairs is not None")
    # One set of drawing tools, and what is drawn is the area.
    assert page.locator(".leaflet-draw-draw-rectangle").count() == 1
    before = desk.ask("list(m.aoi.bounds)")
    draw(page, (0.3, 0.3), (0.7, 0.7))
    desk.book.until(f"list(m.aoi.bounds) != {before} and m.wait(60) and m.pairs is not None")
    read_pair(page)
    swipe(page, 80)
    assert page.locator(pane("s1")).count() == 1
    # geemap's own base map comes from the internet, which this machine has not; nothing of ours does.
    assert tabs.outside, "geemap asks for its base map"
    theirs = ("google", "openstreetmap", "esri", "gstatic")
    assert [url for url in tabs.outside if not any(each in url for each in theirs)] == []
    desk.book.tell("m.close()")
    # Ours is gone, and the map that somebody had is still one, to be shown in another cell.
    assert desk.ask("[host.comm is not None, len(host.layers) > 0]") == [True, True]
    page.wait_for_timeout(1000)
    tabs.outside.clear()
