"""Files of the labeller: a reading that comes too late, and files of an earlier day that stay as they were."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
import xarray as xr
from shapely import box
from widget_kit import Bench, click_at, upload

import deepsentinel as ds
from deepsentinel.errors import ReadError
from deepsentinel.widgets.labelling import LabelPanel

LON, LAT = 4.03, 49.28
HERE, SMALLER = ((LON - size, LAT - size, LON + size, LAT + size) for size in (0.5, 0.4))


class Hand(Bench):
    """A panel of labels without vectors, so that nothing but labels is made."""

    def __init__(self) -> None:
        super().__init__(LabelPanel)
        self.files = self.panel.files
        self.state.put("aoi", HERE)

    def label(self, name: str, *, east: float = 0.0) -> None:
        if name not in self.panel.book.colors:
            self.panel.book.add(name)
        self.panel.book.take(name)
        click_at(self.canvas, LON + east, LAT)
        self.settle()

    def load(self, path: str) -> None:
        self.files.file.value = path
        self.files.load.click()

    def save(self, path: str | None = None) -> None:
        self.files.file.value = path or self.files.file.value
        self.files.save.click()
        self.settle()


@pytest.fixture
def hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hand]:
    monkeypatch.chdir(tmp_path)
    for name, second in (("a", "lake"), ("b", "rock")):
        ds.save_labels(ds.make_labels([((LON, LAT), "wood"), ((LON + 0.01, LAT), second)]), f"{name}.gpkg")
    made = Hand()
    made.settle()
    yield made
    made.close()


def rows(path: str) -> int:
    return len(ds.read_labels(path))


@pytest.mark.parametrize("end", ["kept in time", "read", "broken", "empty", "read, and no area"])
def test_labels_are_made_and_saved_after_a_reading_that_came_too_late(
    hand: Hand, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    hand.load("a.gpkg")
    hand.settle()
    assert hand.panel.book.imported == {"wood": 1, "lake": 1}
    read, begun, over = ds.read_labels, threading.Event(), threading.Event()

    def slowly(*args: Any, **options: Any) -> Any:
        begun.set()
        assert over.wait(30)
        if end == "broken":
            raise ReadError("b.gpkg cannot be read.")
        return read(*args, **options)[: 0 if end == "empty" else None]

    monkeypatch.setattr(ds, "read_labels", slowly)
    hand.load("b.gpkg")
    assert begun.wait(30)
    if end == "read, and no area":
        hand.state.drop("aoi")
    elif end != "kept in time":
        hand.state.put("aoi", SMALLER)
    over.set()
    assert hand.jobs.wait(30)
    words = {
        "kept in time": "2 labels added from b.gpkg",
        "broken": "b.gpkg cannot be read",
        "empty": "b.gpkg has no labels on this ground",
    }
    assert words.get(end, "The area is another one by now; no labels were added from b.gpkg") in hand.panel.line.text
    kept = {"wood": 1, "rock": 1} if end == "kept in time" else {}
    assert hand.panel.book.imported == kept
    assert ("imported" in hand.state) == bool(kept)
    assert ("examples" in hand.state) == bool(kept)
    monkeypatch.setattr(ds, "read_labels", read)
    hand.panel.say()
    hand.label("hand")
    assert len(hand.state["examples"]) == 1 + sum(kept.values())
    assert ("add_to=imported" in hand.state.line("examples")) == bool(kept)
    hand.save("mine.gpkg")
    assert rows("mine.gpkg") == 1 + sum(kept.values())
    hand.panel.undo.click()
    hand.settle()
    assert ("examples" in hand.state) == bool(kept)


def test_labels_of_a_file_that_take_the_place_of_anothers_say_so(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, words in (("a.gpkg", "."), ("a.gpkg", "."), ("b.gpkg", ", in place of those of a.gpkg.")):
        hand.load(path)
        hand.settle()
        assert hand.panel.line.text == f"2 labels added from {path}{words}"
    # Of two that come at once from two views of the control, too.
    read, begun, over = ds.read_labels, threading.Event(), threading.Event()

    def slowly(path: Any, **options: Any) -> Any:
        if "c.gpkg" in str(path):
            begun.set()
            assert over.wait(30)
        return read(path, **options)

    monkeypatch.setattr(ds, "read_labels", slowly)
    data = Path("a.gpkg").read_bytes()
    upload(hand.files.upload, "c.gpkg", data, piece=100_000)
    assert begun.wait(30)
    upload(hand.files.upload, "d.gpkg", data, piece=100_000)
    hand.settle()
    over.set()
    assert hand.panel.line.text == "2 labels added from uploads/d.gpkg, in place of those of uploads/c.gpkg."
    assert hand.panel.book.imported == {"wood": 1, "lake": 1}


def test_an_area_drawn_just_when_labels_have_come_takes_them_away(hand: Hand) -> None:
    def draw(table: Any) -> None:
        if table is not None:
            hand.state.put("aoi", SMALLER)

    hand.state.watch("imported", draw)
    hand.load("a.gpkg")
    hand.settle()
    assert "no labels were added from a.gpkg" in hand.panel.line.text
    assert hand.panel.book.imported == {}
    hand.label("hand")
    assert len(hand.state["examples"]) == 1


def test_labels_of_an_earlier_day_are_not_written_over(hand: Hand) -> None:
    for name in ("one", "two", "three"):
        hand.label(name)
    hand.save()
    hand.label("four")
    # What it wrote itself is written again.
    hand.save()
    assert hand.files.file.value == "labels.gpkg"
    assert rows("labels.gpkg") == 4
    before = Path("labels.gpkg").read_bytes()
    later = Hand()
    try:
        later.label("one")
        later.save()
        assert "labels-2.gpkg. labels.gpkg was there already, and stays as it is." in later.panel.line.text
        assert later.files.file.value == "labels-2.gpkg"
        assert 'download="labels-2.gpkg"' in later.files.link.value
        assert later.state.line("labels_file") == "ds.save_labels(examples, 'labels-2.gpkg')"
        assert (Path("labels.gpkg").read_bytes(), rows("labels-2.gpkg")) == (before, 1)
        later.label("one", east=0.001)
        for name in (None, "./labels.gpkg"):
            later.save(name)
            assert rows("labels-2.gpkg") == 2
        assert Path("labels.gpkg").read_bytes() == before
        assert not Path("labels-3.gpkg").exists()
    finally:
        later.close()


def map_of(name: str) -> xr.Dataset:
    field = gpd.GeoDataFrame({"ground_truth": [name]}, geometry=[box(3, 48, 3.01, 48.01)], crs=4326)
    return ds.rasterize(field, like=ds.geobox((3, 48, 3.02, 48.02)), layers=["class_map"])


def test_a_map_of_an_earlier_day_is_not_written_over(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(hand: Hand, name: str, folder: str | None = None) -> str:
        hand.state.put("label_map", map_of(name), "theirs")
        hand.files.folder.value = folder or hand.files.folder.value
        hand.files.keep.click()
        assert hand.jobs.wait(30)
        return str(hand.panel.line.text)

    def held(folder: str) -> str:
        return str(ds.read_labels(Path(folder) / "class_map.gpkg")["class_name"].item())

    # Other things in a folder are in nobody's way, and what it wrote itself is written again.
    Path("map").mkdir()
    Path("map/notes.txt").write_text("mine")
    for name in ("rye", "oats"):
        assert "stays" not in keep(hand, name)
        assert (hand.files.folder.value, held("map")) == ("map", name)
    before = {path: path.read_bytes() for path in Path("map").iterdir()}
    later = Hand()
    try:
        assert "map was there already, and stays as it is." in keep(later, "hay")
        assert later.files.folder.value == "map-2"
        assert later.state.line("map_files") == "ds.save_map(label_map, 'map-2')"
        assert later.files.link.value.count("download=") == 2
        for name, folder in (("peas", None), ("beans", "./map")):
            keep(later, name, folder)
            assert (held("map-2"), later.files.folder.value) == (name, "map-2")
        monkeypatch.chdir("map")
        assert "stay as they are; give another name" in keep(later, "maize", ".")
        monkeypatch.chdir("..")
        assert {path: path.read_bytes() for path in Path("map").iterdir()} == before
        assert sorted(path.name for path in Path().glob("map*")) == ["map", "map-2"]
    finally:
        later.close()


def test_what_was_read_is_not_written_over_before_or_after_it_is_given_back(hand: Hand) -> None:
    before = Path("a.gpkg").read_bytes()
    hand.load("a.gpkg")
    hand.settle()
    hand.label("wood", east=0.02)
    hand.save()
    assert rows("a-2.gpkg") == 3
    # Now it reads what it wrote itself, which the cell has to find as it is now.
    hand.load("a-2.gpkg")
    hand.settle()
    hand.save()
    assert (rows("a-2.gpkg"), rows("a-2-2.gpkg")) == (3, 4)
    names: dict[str, Any] = {"aoi": HERE}
    exec(hand.state.code("labels_file"), names)
    assert rows("a-2-2.gpkg") == 4
    hand.state.drop("imported")
    hand.save("a.gpkg")
    assert Path("a.gpkg").read_bytes() == before
