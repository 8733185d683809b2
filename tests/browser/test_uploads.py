"""A file of the reader's own, chosen in a real page: an outline, one larger than a message may be, two at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deepsentinel.widgets import controls

pytestmark = pytest.mark.browser
TOO_LARGE_FOR_A_MESSAGE = 12_000_000
SCRIPT = Path(controls.__file__).parent / "js" / "upload.js"
# Views of one control in an empty page; `sent` is what they tell Python, each piece as its first letter and its length.
VIEWS = """
async (script) => {
  const { default: widget } = await import("data:text/javascript," + encodeURIComponent(script));
  window.sent = [];
  const traits = { description: "Upload", accept: ".gpkg", tooltip: "", most: 5e6 };
  const model = {
    get: (name) => traits[name],
    on: () => {},
    off: () => {},
    send: (told, _, pieces = []) => sent.push({
      ...told,
      pieces: pieces.map((each) => [String.fromCharCode(new Uint8Array(each)[0]), each.byteLength]),
    }),
  };
  window.inputs = [0, 1].map(() => {
    const el = document.createElement("div");
    document.body.append(el);
    widget.render({ model, el });
    return el.querySelector("input");
  });
  window.choose = (view, letter, size, broken = false) => {
    const file = new File([letter.repeat(size)], letter + ".gpkg"), given = new DataTransfer();
    given.items.add(file);
    inputs[view].files = given.files;
    if (broken) inputs[view].files[0].slice = () => ({ arrayBuffer: () => Promise.reject(new Error("gone")) });
    inputs[view].dispatchEvent(new Event("change"));
    return inputs[view].disabled;
  };
  window.over = async () => {
    while (inputs.some((each) => each.disabled)) await new Promise((go) => setTimeout(go, 10));
  };
}
"""


@pytest.fixture
def views(tabs: Any) -> Any:
    page = tabs.opened("about:blank")
    page.evaluate(VIEWS, SCRIPT.read_text())
    yield page
    page.context.close()


def told(page: Any) -> list[dict[str, Any]]:
    """What the views have sent until they can be used again."""
    return list(page.evaluate("async () => { await over(); return sent.splice(0); }"))


def came(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The files that Python makes of it."""
    control, files = controls.Upload(most=5_000_000), []
    control.observe(lambda change: change["new"] and files.append(change["new"]), "file")
    for each in messages:
        pieces = [memoryview(letter.encode() * size) for letter, size in each.pop("pieces")]
        control._handle_custom_msg(each, pieces)
    control.close()
    return files


def test_a_view_sends_one_file_at_a_time(views: Any) -> None:
    views.evaluate("inputs[0].focus()")
    # A second file while the first is under way is not taken.
    assert views.evaluate("[choose(0, 'a', 2500000), choose(0, 'b', 10)]") == [True, True]
    messages = told(views)
    assert [each["kind"] for each in messages] == ["begin", "piece", "piece", "piece", "end"]
    assert len({each["id"] for each in messages}) == 1
    assert came(messages) == [{"name": "a.gpkg", "size": 2_500_000, "data": b"a" * 2_500_000}]
    # The keyboard stays where it was.
    assert views.evaluate("document.activeElement === inputs[0] && inputs[0].value === ''")
    # The same file again is another upload.
    views.evaluate("choose(0, 'a', 2500000)")
    assert told(views)[0]["id"] != messages[0]["id"]
    # One that is too large, or that goes while it is read, leaves the view usable, and is told.
    views.evaluate("choose(0, 'c', 5000001)")
    assert [each["data"] for each in came(told(views))] == [None]
    views.evaluate("choose(0, 'd', 10, true)")
    assert came(told(views)) == [{"name": "d.gpkg", "size": 10, "data": b""}]


def test_two_views_that_send_at_once_give_both_files_as_they_are(views: Any) -> None:
    views.evaluate("[choose(0, 'a', 2500000), choose(1, 'b', 2500000)]")
    messages = told(views)
    assert sorted({each["name"] for each in messages}) == ["a.gpkg", "b.gpkg"]
    order = [each["name"] for each in messages]
    assert order != sorted(order)  # they do come mixed
    files = came(messages)
    assert sorted(each["name"] for each in files) == ["a.gpkg", "b.gpkg"]
    assert all(each["data"] == each["name"][0].encode() * 2_500_000 for each in files)


@pytest.mark.long
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
