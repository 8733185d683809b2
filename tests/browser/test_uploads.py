"""A file of the reader's own, chosen in a real page: an outline, and one larger than a message may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.long]
TOO_LARGE_FOR_A_MESSAGE = 12_000_000


def test_a_file_from_the_page_is_the_area_however_large_it_is(desk: Any, tmp_path: Path) -> None:
    page, book = desk.open("len(src.search(src.area))"), desk.book
    book.write("m = ds.Map(src)\nm")
    book.run(0)
    page.locator(".ds-upload input").first.wait_for(state="attached")
    ring = [[-0.02, 49.235], [-0.01, 49.245], [0.0, 49.235], [-0.02, 49.235]]
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    field = tmp_path / "field.geojson"
    for note in ("", "x" * TOO_LARGE_FOR_A_MESSAGE):
        feature["properties"] = {"note": note}
        field.write_text(json.dumps(feature))
        book.ask("m.state.drop('aoi')")
        page.locator(".ds-upload input").first.set_input_files(str(field))
        book.until("m.aoi is not None")
        assert book.ask("m.aoi.bounds") == [-0.02, 49.235, 0.0, 49.245]
    field.write_text("no outline at all")
    page.locator(".ds-upload input").first.set_input_files(str(field))
    book.until("m._area.line.kind == 'error'")
    assert "field.geojson" in book.ask("m._area.line.text") or "GeoJSON" in book.ask("m._area.line.text")
