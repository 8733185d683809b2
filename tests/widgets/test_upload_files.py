"""Files that a page sends and that are kept: none takes the place of another."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from widget_kit import Bench, upload

import deepsentinel as ds
from deepsentinel.errors import InputError
from deepsentinel.widgets.area import AreaPanel
from deepsentinel.widgets.controls import Upload
from deepsentinel.widgets.uploads import kept


def keep(name: str, data: bytes) -> str:
    return kept({"name": name, "size": len(data), "data": data}).as_posix()


def test_an_upload_never_takes_the_place_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert keep("field.gpkg", b"one") == "uploads/field.gpkg"
    assert keep("field.gpkg", b"two") == "uploads/field-2.gpkg"
    assert keep("field.gpkg", b"three") == "uploads/field-3.gpkg"
    # The same once more is the same file.
    for name, data in (("field.gpkg", b"one"), ("field-2.gpkg", b"two"), ("field-3.gpkg", b"three")):
        assert keep("field.gpkg", data) == f"uploads/{name}"
        assert (tmp_path / "uploads" / name).read_bytes() == data
    assert len(list((tmp_path / "uploads").iterdir())) == 3


class Page:
    """What one view of the control sends of one file."""

    def __init__(self, control: Upload, number: int, name: str, data: bytes) -> None:
        self.control, self.data = control, data
        self.told = {"id": f"{number}", "name": name, "size": len(data)}

    def send(self, kind: str, at: int | None = None) -> None:
        pieces = [] if at is None else [memoryview(self.data[at : at + 1])]
        self.control._handle_custom_msg({"kind": kind, **self.told}, pieces)


def test_pieces_of_two_files_do_not_mix() -> None:
    control, came = Upload(most=10), []
    control.observe(lambda change: change["new"] and came.append(change["new"]), "file")
    # One name for both: it is not the name that tells them apart.
    one, two = Page(control, 1, "a.gpkg", b"aaa"), Page(control, 2, "a.gpkg", b"bbb")
    one.send("begin")
    one.send("piece", 0)
    two.send("begin")
    for at in range(3):
        two.send("piece", at)
        if at:
            one.send("piece", at)
    one.send("end")
    two.send("end")
    assert came == [{"name": "a.gpkg", "size": 3, "data": data} for data in (b"aaa", b"bbb")]
    # What comes late belongs to nothing.
    one.send("piece", 0)
    one.send("end")
    two.send("end")
    assert len(came) == 2
    # One that is too large is told, and is no end of another.
    one.send("begin")
    one.send("piece", 0)
    Page(control, 3, "large.gpkg", bytes(11)).send("begin")
    one.send("piece", 1)
    one.send("piece", 2)
    one.send("end")
    assert [each["data"] for each in came[2:]] == [None, b"aaa"]
    control.close()


def test_of_a_file_whose_page_went_away_it_is_told_once_there_is_no_room_for_it() -> None:
    control, came = Upload(most=10), []
    control.observe(
        lambda change: change["new"] and came.append((change["new"]["name"], change["new"]["data"])), "file"
    )
    pages = [Page(control, number, f"{number}.gpkg", b"12345") for number in range(3)]
    for each in pages:
        each.send("begin")
        each.send("piece", 0)
    assert came == [("0.gpkg", b"1")]
    with pytest.raises(InputError, match=r"Of 0\.gpkg 1 of 5 bytes came"):
        kept(control.file)
    for each in pages:
        for at in range(1, 5):
            each.send("piece", at)
        each.send("end")
    assert came[1:] == [("1.gpkg", b"12345"), ("2.gpkg", b"12345")]
    control.close()


def test_a_search_that_ends_does_not_hide_what_was_wrong_with_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    src, bench = ds.open_source("demo", size_px=256), Bench(AreaPanel)
    search, begun, over = type(src).search, threading.Event(), threading.Event()

    def slowly(*args: Any, **options: Any) -> Any:
        begun.set()
        assert over.wait(30)
        return search(*args, **options)

    monkeypatch.setattr(type(src), "search", slowly)
    try:
        bench.state.put("src", src, "ds.open_source('demo', size_px=256)")
        bench.state.put("aoi", (-0.0286, 49.2381, -0.0046, 49.2541))
        assert begun.wait(30)
        upload(bench.panel.upload, "field.geojson", b"no outline at all")
        said = bench.panel.line.text
        assert "GeoJSON" in said
        over.set()
        assert bench.jobs.wait(60)
        assert "pairs" in bench.state
        assert (bench.panel.line.kind, bench.panel.line.text) == ("error", said)
        # Another gap is another question.
        bench.panel.gap.value = 1.5
        assert bench.panel.line.text == ""
    finally:
        over.set()
        bench.close()
