"""The labeller, driven from Python: classes and labels, the map after each of them, doubts, score, files, the end."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from factories import make_patch
from ipywidgets.widgets.widget import _instances
from widget_kit import Bench, as_file, cells_of, draw_on, upload

import deepsentinel as ds
from deepsentinel.errors import InputError
from deepsentinel.widgets.book import Book
from deepsentinel.widgets.canvas import Canvas
from deepsentinel.widgets.labelling import BOTH, CLASSES, DOUBT, MORE, NO_VECTORS, NOTHING, START, LabelPanel

WEST, MIDDLE, EAST = 4, 12, 20


def vectors_of(patch: xr.Dataset) -> xr.DataArray:
    """Three kinds of ground side by side."""

    def values(shape: tuple[int, int]) -> np.ndarray:
        rng = np.random.default_rng(0)
        return 0.3 * rng.normal(size=(*shape, 8)) + rng.normal(size=(3, 8))[np.arange(shape[1]) * 3 // shape[1]]

    return cells_of(patch, values, "thirds")


class Labeller(Bench):
    """A panel of labels, and a hand on the list of classes."""

    def __init__(self) -> None:
        super().__init__(LabelPanel)

    def draw(self, rows: tuple[float, float], cols: tuple[float, float]) -> None:
        ring = [self.place(rows[i], cols[j]) for i, j in ((0, 0), (0, 1), (1, 1), (1, 0), (0, 0))]
        draw_on(self.canvas, ring)

    def wish(self, kind: str, name: str, **more: str) -> None:
        self.panel.classes._handle_custom_msg({"kind": kind, "name": name, **more}, [])

    def label(self, name: str, row: int, col: int) -> None:
        if name not in self.panel.book.colors:
            self.wish("add", name)
        self.wish("take", name)
        self.click(row, col)


@pytest.fixture(scope="module")
def patch() -> xr.Dataset:
    return make_patch((96, 96))


@pytest.fixture
def bench(patch: xr.Dataset) -> Iterator[Labeller]:
    made = Labeller()
    made.state.put("patch", patch, "mine")
    made.state.put("z", vectors_of(patch), "theirs")
    made.settle()
    yield made
    made.close()


@pytest.fixture
def labelled(bench: Labeller) -> Labeller:
    for name, col in (("wood", WEST), ("crop / rye", MIDDLE), ("crop / oats", EAST)):
        for row in (3, 12, 20):
            bench.label(name, row, col)
    bench.settle()
    return bench


def test_two_classes_make_a_map(bench: Labeller) -> None:
    assert bench.panel.facts.value == START
    bench.label("wood", 3, WEST)
    assert bench.panel.facts.value == MORE
    assert "label_map" not in bench.state
    bench.label("crop / rye", 3, EAST)
    bench.settle()
    assert bench.panel.facts.value == ""
    classes = bench.state["label_map"]["class_map"].values
    assert (classes[:, :8] == 1).mean() > 0.97
    assert (classes[:, 16:] == 2).mean() > 0.97
    assert bench.canvas.pictures["prediction"].url == bench.state["view_label_map"].url
    assert bench.panel._result.layout.display is None
    rows = {row["name"]: row for row in bench.panel.legend.rows}
    assert set(rows) == {"wood", "crop / rye"}
    assert rows["wood"]["color"] == bench.panel.book.colors["wood"]
    assert [each["text"] for each in bench.panel.classes.classes] == ["1 label", "1 label"]


def test_every_label_moves_the_map_at_once(labelled: Labeller) -> None:
    waits = []
    for row in (5, 15, 8):
        before = labelled.state["label_map"]
        began = time.perf_counter()
        labelled.label("wood", row, WEST + 1)
        labelled.settle()
        waits.append(time.perf_counter() - began)
        assert labelled.state["label_map"] is not before
        assert labelled.state["label_map"].attrs["examples"] == len(labelled.panel.book.labels)
    print(f"from a label to its map: {1000 * min(waits):.0f} ms")
    assert min(waits) < 2.0  # 0.1 s where nobody shares the machine


def test_the_map_does_not_flicker(labelled: Labeller) -> None:
    layer, gone = labelled.canvas.pictures["prediction"], []
    labelled.canvas.map.observe(lambda change: gone.append(layer not in change["new"]), "layers")
    labelled.label("wood", 8, WEST)
    labelled.settle()
    assert labelled.canvas.pictures["prediction"] is layer
    assert not any(gone)


def test_a_drawn_shape_is_a_label_and_not_the_area(bench: Labeller) -> None:
    areas: list[Any] = []
    bench.canvas.drawing.drawn.append(areas.append)
    bench.wish("add", "wood")
    bench.draw((2, 8), (1, 6))
    assert bench.state["examples"].geometry.geom_type.tolist() == ["Polygon"]
    assert areas == []
    bench.panel.front = False
    bench.draw((2, 8), (1, 6))
    assert len(areas) == 1
    bench.panel.front = True
    bench.panel.labelling.value = False
    bench.draw((2, 8), (1, 6))
    bench.click(3, 3)
    assert len(areas) == 2
    assert len(bench.state["examples"]) == 1


def test_a_label_needs_a_class(bench: Labeller) -> None:
    bench.click(3, 3)
    assert "Add a class first" in bench.panel.line.text
    assert "examples" not in bench.state


def test_classes_are_renamed_coloured_and_removed(labelled: Labeller) -> None:
    labelled.wish("rename", "wood", to="forest/oak")
    labelled.wish("color", "forest / oak", color="#AA00bb")
    labelled.settle()
    assert labelled.state["examples"]["class_name"].iloc[0] == "forest / oak"
    assert {row["name"]: row["color"] for row in labelled.panel.legend.rows}["forest / oak"] == "#aa00bb"
    pins = labelled.canvas.shapes["labels"].data["features"]
    assert pins[0]["properties"]["style"]["fillColor"] == "#aa00bb"
    labelled.wish("remove", "forest / oak")
    labelled.settle()
    assert len(labelled.state["examples"]) == 6
    for wish in (("rename", "crop / rye", "crop/oats"), ("color", "crop / rye", "red"), ("add", "a / ", "")):
        labelled.wish(*wish[:2], to=wish[2], color=wish[2])
        assert labelled.panel.line.kind == "error"
    labelled.wish("take", "nobody")
    assert "no class 'nobody'" in labelled.panel.line.text


def test_everything_can_be_taken_back(labelled: Labeller) -> None:
    book, before = labelled.panel.book, labelled.state["examples"]
    labelled.wish("remove", "wood")
    labelled.panel.undo.click()
    labelled.settle()
    assert labelled.state["examples"].equals(before)
    while not labelled.panel.undo.disabled:
        labelled.panel.undo.click()
    assert (book.labels, book.colors) == ((), {})
    assert "examples" not in labelled.state
    assert "prediction" not in labelled.canvas.pictures
    assert "labels" not in labelled.canvas.shapes
    assert labelled.panel._result.layout.display == "none"


def test_one_label_is_removed_or_shown(labelled: Labeller) -> None:
    labelled.panel.table.index = 1
    labelled.panel.go.click()
    lon, lat = labelled.panel.book.labels[1][0]
    centre = labelled.canvas.map.center
    assert centre[1] == pytest.approx(lon, abs=1e-4)
    assert abs(centre[0] - lat) < 0.002
    labelled.panel.remove.click()
    labelled.settle()
    assert len(labelled.state["examples"]) == 8
    assert (lon, lat) not in [place for place, _ in labelled.panel.book.labels]


def test_layers_of_the_map(labelled: Labeller) -> None:
    for view, layers in (
        (DOUBT, {"doubt"}),
        (BOTH, {"doubt", "prediction"}),
        (NOTHING, set()),
        (CLASSES, {"prediction"}),
    ):
        labelled.panel.view.value = view
        assert {key for key in labelled.canvas.pictures if key in ("doubt", "prediction")} == layers
        assert labelled.canvas.swiped("prediction", "doubt") == (view == BOTH)
    labelled.panel.view.value = DOUBT
    expected = ds.overlay(labelled.state["label_map"], "uncertainty")
    assert labelled.canvas.pictures["doubt"].url == expected.url
    labelled.panel.opacity.value = 25
    assert labelled.canvas.pictures["doubt"].opacity == pytest.approx(0.25)


def test_other_tabs_see_nothing_of_it(labelled: Labeller) -> None:
    labelled.panel.front = False
    assert (labelled.canvas.pictures, labelled.canvas.shapes) == ({}, {})
    labelled.panel.changed()
    labelled.settle()
    assert (labelled.canvas.pictures, labelled.canvas.shapes) == ({}, {})
    labelled.panel.front = True
    assert set(labelled.canvas.pictures) == {"prediction"}
    assert set(labelled.canvas.shapes) == {"labels"}


def of_a_model(patch: xr.Dataset) -> xr.Dataset:
    """What a trained model might say of the pair: of the same shape as a map of labels."""
    return xr.Dataset({"class_map": (patch["VV"].dims, np.ones(patch["VV"].shape, "uint8"))}, patch["VV"].coords)


def test_the_map_of_labels_and_that_of_a_model_are_two(labelled: Labeller, patch: xr.Dataset, tmp_path: Path) -> None:
    files, seen = labelled.panel.files, labelled.canvas.pictures["prediction"].url

    def saved(folder: str) -> np.ndarray:
        files.folder.value = str(tmp_path / folder)
        files.keep.click()
        labelled.settle()
        with rasterio.open(tmp_path / folder / "class_map.tif") as file:
            return file.read(1)

    before, rows = saved("before"), labelled.panel.legend.rows
    labelled.state.put("prediction", of_a_model(patch), "ds.predict(model, patch)")
    held = labelled.state["prediction"]
    # What is seen, told and saved here is what the labels have taught.
    assert np.array_equal(saved("after"), before)
    assert (labelled.canvas.pictures["prediction"].url, labelled.panel.legend.rows) == (seen, rows)
    # And what a model says of the pair needs no labels: others, or none, leave it alone.
    labelled.label("wood", 8, WEST)
    labelled.settle()
    assert labelled.state["prediction"] is held
    labelled.state.drop("z")
    labelled.panel.undo.click()
    assert labelled.state["prediction"] is held
    assert "prediction" not in labelled.canvas.pictures


def test_what_another_tab_has_laid_in_the_same_place_stays(labelled: Labeller) -> None:
    labelled.panel.front = False
    labelled.canvas.lay_url("prediction", "data:,theirs", ((48.0, 2.0), (48.1, 2.1)))
    theirs = labelled.canvas.pictures["prediction"]
    labelled.panel.paint()
    labelled.panel.opacity.value = 30
    labelled.panel.view.value = DOUBT
    labelled.state.put("label_map", labelled.state["label_map"], "theirs")
    labelled.state.drop("label_map")
    labelled.panel.complain("something else")
    assert labelled.canvas.pictures == {"prediction": theirs}
    assert (theirs.url, theirs.opacity) == ("data:,theirs", 1.0)


@pytest.mark.parametrize("change", ["Detail", "vectors", "no vectors"])
def test_a_score_and_a_place_go_with_what_they_were_made_of(labelled: Labeller, patch: xr.Dataset, change: str) -> None:
    panel = labelled.panel
    for button in (panel.next, panel.check):
        button.click()
        labelled.settle()
        assert panel.said.value
        assert "suggestions" in labelled.canvas.shapes
        if change == "Detail":
            panel.level.value = 0 if panel.level.value else 1
        else:
            z = labelled.state["z"]
            labelled.state.drop("z")
        if change == "vectors":
            labelled.state.put("z", z.copy(), "others")
        assert panel.said.value == ""
        assert "suggestions" not in labelled.canvas.shapes
        assert "suggestions" not in labelled.state
        if change == "no vectors":
            labelled.state.put("z", z, "theirs")
        labelled.settle()
        panel.next.click()
        labelled.settle()
        assert panel.said.value.startswith("Place 1 of ")


def test_groups_of_classes(labelled: Labeller) -> None:
    assert [text for text, _ in labelled.panel.level.options] == ["all", "level 1"]
    labelled.panel.level.value = 1
    labelled.settle()
    assert {row["name"] for row in labelled.panel.legend.rows} == {"wood", "crop"}
    assert labelled.state.code("label_map").endswith("ds.classify(z, examples, level=1)")


def test_where_next_goes_there_and_on(labelled: Labeller) -> None:
    labelled.wish("remove", "crop / oats")
    labelled.settle()
    seen = []
    for _ in range(6):
        labelled.panel.next.click()
        labelled.settle()
        ring = labelled.canvas.shapes["suggestions"].data["features"][0]["geometry"]["coordinates"]
        centre = labelled.canvas.map.center
        assert abs(centre[1] - ring[0]) < 1e-3
        assert abs(centre[0] - ring[1]) < 3e-3
        seen.append((tuple(ring), labelled.panel.said.value))
    found = labelled.state["suggestions"]
    # After the last of them the first is told again.
    assert len({ring for ring, _ in seen}) == len(found)
    assert seen[0][1].startswith(f"Place 1 of {len(found)}: doubt ")
    # The last third is like nothing that has a label.
    assert found["col"].iloc[0] >= 14
    labelled.label("wood", 2, 2)
    labelled.settle()
    assert "suggestions" not in labelled.canvas.shapes
    assert labelled.panel.said.value == ""


def test_the_score_is_said_with_what_it_is_worth(labelled: Labeller) -> None:
    labelled.panel.check.click()
    labelled.settle()
    said = labelled.panel.said.value
    assert said.startswith("100 % of 9 labels named rightly")
    assert "the most frequent class alone" in said
    assert "11 %" in said
    assert labelled.state.code("score").endswith("score = ds.check_examples(z, examples)")


@pytest.mark.parametrize("ending", ["gpkg", "geojson"])
def test_labels_go_to_a_file_and_come_back(labelled: Labeller, patch: xr.Dataset, tmp_path: Path, ending: str) -> None:
    labelled.draw((2, 6), (1, 4))
    labelled.settle()
    labelled.panel.files.file.value = str(tmp_path / f"mine.{ending}")
    labelled.panel.files.save.click()
    labelled.settle()
    assert "Labels written to" in labelled.panel.line.text
    assert f'download="mine.{ending}"' in labelled.panel.files.link.value
    other = Labeller()
    other.state.put("patch", patch, "mine")
    other.state.put("z", labelled.state["z"], "theirs")
    other.panel.files.file.value = str(tmp_path / f"mine.{ending}")
    other.panel.files.load.click()
    other.settle()
    assert other.panel.book.colors == labelled.panel.book.colors
    assert other.panel.book.counts() == labelled.panel.book.counts()
    one, two = (each.state["label_map"]["class_map"].values for each in (labelled, other))
    assert (one == two).mean() > 0.99
    other.label("wood", 8, WEST)
    other.settle()
    assert len(other.state["examples"]) == 11
    assert "add_to=imported" in other.state.code("examples")
    made: dict[str, Any] = {"mine": patch, "theirs": labelled.state["z"]}
    exec(other.state.code("label_map"), made)
    assert made["label_map"].identical(other.state["label_map"])
    # The way back goes to before the file was read.
    other.panel.undo.click()
    other.panel.undo.click()
    other.settle()
    assert "examples" not in other.state
    other.close()


@pytest.mark.parametrize("name", ["mine.gpkg", "mine.zip", "mine.geojson"])
def test_labels_come_from_the_readers_own_machine(
    labelled: Labeller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made").mkdir()
    table = labelled.state["examples"][["ground_truth", "geometry"]].to_crs(32631)
    table["geometry"] = table.buffer(60)
    data = as_file(table, name, tmp_path / "made")
    upload(labelled.panel.files.upload, name, data)
    labelled.settle()
    assert (tmp_path / "uploads" / name).read_bytes() == data
    assert len(labelled.state["examples"]) == 18
    assert f"added from uploads/{name}" in labelled.panel.line.text
    made: dict[str, Any] = {"mine": labelled.state["patch"], "theirs": labelled.state["z"]}
    assert f"imported = ds.read_labels('uploads/{name}')" in labelled.state.code("examples")
    exec(labelled.state.code("label_map"), made)
    assert made["label_map"].identical(labelled.state["label_map"])
    # The file that is written next is not the one that was read: the cell would read it first.
    files, ending = labelled.panel.files, name.split(".")[1]
    assert files.file.value == "labels.gpkg"
    files.file.value = f"./uploads/{name}"
    files.save.click()
    assert labelled.jobs.wait(30)
    if ending == "zip":
        assert "Labels are written as" in labelled.panel.line.text
    else:
        assert f"{name} was there already, and stays as it is" in labelled.panel.line.text
        assert files.file.value == f"uploads/mine-2.{ending}"
    assert (tmp_path / "uploads" / name).read_bytes() == data


def test_an_upload_that_cannot_be_read_is_told_and_changes_nothing(
    labelled: Labeller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = labelled.state["examples"]
    for name, data, words in (
        ("mine.gpkg", b"not a package", "mine.gpkg"),
        ("../../mine.geojson", b"{", "mine.geojson"),
        ("empty.zip", b"", "empty.zip is empty"),
    ):
        upload(labelled.panel.files.upload, name, data)
        assert labelled.jobs.wait(30)
        assert labelled.panel.line.kind == "error"
        assert words in labelled.panel.line.text
    # Whatever a page calls a file, it stays in its folder.
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["mine.geojson", "mine.gpkg"]
    assert labelled.state["examples"] is before
    upload(labelled.panel.files.upload, "cut.gpkg", bytes(3000), lost=True)
    assert "the connection was cut" in labelled.panel.line.text


def test_labels_of_a_file_go_with_the_area_they_were_read_for(labelled: Labeller, tmp_path: Path) -> None:
    file = ds.save_labels(labelled.state["examples"], tmp_path / "mine.gpkg")
    west, south = labelled.place(24, -1)
    labelled.state.put("aoi", (west, south, west + 0.02, south + 0.02))
    labelled.panel.files.file.value = str(file)
    labelled.panel.files.load.click()
    labelled.settle()
    assert len(labelled.state["examples"]) == 18
    assert "bbox=aoi" in labelled.state.code("imported")
    labelled.state.put("aoi", (west, south, west + 0.01, south + 0.01))
    labelled.settle()
    assert len(labelled.state["examples"]) == 9


# What the reader warns of is beside the point here.
@pytest.mark.filterwarnings("ignore:.*no row touches")
def test_a_file_with_nothing_on_this_ground_changes_nothing(labelled: Labeller, tmp_path: Path) -> None:
    table = labelled.state["examples"]
    here, away = tmp_path / "here.gpkg", tmp_path / "away.gpkg"
    ds.save_labels(table, here)
    ds.save_labels(table.set_geometry(table.to_crs(4326).translate(5.0)), away)
    west, south = labelled.place(24, -1)
    labelled.state.put("aoi", (west, south, west + 0.02, south + 0.02))
    files, names = labelled.panel.files, ("imported", "examples", "label_map")
    files.file.value = str(here)
    files.load.click()
    labelled.settle()
    before, counts = [labelled.state[name] for name in names], labelled.panel.book.counts()
    assert sum(counts.values()) == 18
    files.file.value = str(away)
    files.load.click()
    assert labelled.jobs.wait(30)
    assert labelled.panel.line.kind == "error"
    assert "away.gpkg has no labels on this ground" in labelled.panel.line.text
    assert all(labelled.state[name] is each is not None for name, each in zip(names, before, strict=True))
    assert labelled.panel.book.counts() == counts
    assert "prediction" in labelled.canvas.pictures


def test_the_map_is_saved_for_others(labelled: Labeller, tmp_path: Path) -> None:
    labelled.panel.files.folder.value = str(tmp_path / "map")
    labelled.panel.files.keep.click()
    labelled.settle()
    names = {path.name for path in labelled.state["map_files"]}
    assert names == {"class_map.tif", "uncertainty.tif", "class_map.gpkg"}
    assert labelled.panel.files.link.value.count("download=") == 3
    with rasterio.open(tmp_path / "map" / "class_map.tif") as file:
        assert (file.read(1) == labelled.state["label_map"]["class_map"].values).all()


def test_what_goes_wrong_is_said(labelled: Labeller, tmp_path: Path) -> None:
    for path, words in (("", "Give the name"), (str(tmp_path / "none.gpkg"), "none.gpkg")):
        labelled.panel.files.file.value = path
        labelled.panel.files.load.click()
        assert labelled.jobs.wait(20)
        assert labelled.panel.line.kind == "error"
        assert words in labelled.panel.line.text
    labelled.panel.files.folder.value = " "
    labelled.panel.files.keep.click()
    assert "Give a folder" in labelled.panel.line.text


def test_without_vectors_it_says_so_and_labels_wait(patch: xr.Dataset) -> None:
    bench = Labeller()
    assert bench.panel.facts.value == NO_VECTORS
    assert bench.panel.embed.disabled
    bench.panel.next.click()
    assert "Label one place first" in bench.panel.line.text
    bench.panel.book.add("wood")
    bench.panel.label((3.0, 48.0))
    z = vectors_of(patch)
    bench.state.put("patch", patch, "mine")
    assert not bench.panel.embed.disabled
    bench.panel.undo.click()
    bench.state.put("z", z, "theirs")
    bench.label("wood", 3, WEST)
    bench.label("field", 3, EAST)
    assert bench.jobs.wait(20)
    assert "label_map" in bench.state
    bench.state.drop("z")
    assert "prediction" not in bench.canvas.pictures
    bench.state.put("z", z, "theirs")
    assert bench.jobs.wait(20)
    assert "prediction" in bench.canvas.pictures
    bench.close()


def test_labels_elsewhere_take_the_map_away(labelled: Labeller) -> None:
    """A map of labels that are no longer there does not stay."""
    for _ in range(2):
        labelled.panel.book.remove("crop / rye" if "crop / rye" in labelled.panel.book.colors else "crop / oats")
    labelled.panel.changed()
    assert labelled.jobs.wait(20)
    assert "prediction" not in labelled.canvas.pictures


def test_the_cell_makes_the_same(labelled: Labeller, patch: xr.Dataset) -> None:
    labelled.draw((2, 6), (1, 4))
    labelled.settle()
    labelled.panel.next.click()
    labelled.settle()
    labelled.panel.check.click()
    labelled.settle()
    made: dict[str, Any] = {"mine": patch, "theirs": labelled.state["z"]}
    exec(labelled.state.code(), made)
    assert made["label_map"].identical(labelled.state["label_map"])
    assert made["examples"].equals(labelled.state["examples"])
    assert made["suggestions"].equals(labelled.state["suggestions"])
    assert made["score"].table.equals(labelled.state["score"].table)
    assert np.array_equal(made["view_label_map"].image, labelled.state["view_label_map"].image)


def test_a_book_keeps_what_was_not_asked_to_change() -> None:
    book = Book()
    with pytest.raises(InputError, match="nothing to undo"):
        book.undo()
    for name in ("a", "b/c", "d"):
        book.add(name)
    assert list(book.colors) == ["a", "b / c", "d"]
    assert len(set(book.colors.values())) == 3
    book.take("a")
    book.label((1.0, 2.0))
    book.remove("d")
    assert (book.active, book.counts()) == ("a", {"a": 1})
    book.undo()
    assert list(book.colors) == ["a", "b / c", "d"]
    with pytest.raises(InputError, match="already"):
        book.rename("a", "b/c")
    assert book.labels == (((1.0, 2.0), "a"),)


def test_closing_leaves_nothing(patch: xr.Dataset) -> None:
    before, threads = len(_instances), threading.active_count()
    bench = Labeller()
    bench.state.put("patch", patch, "mine")
    bench.state.put("z", vectors_of(patch), "theirs")
    bench.label("wood", 3, WEST)
    bench.label("field", 3, EAST)
    bench.settle()
    bench.panel.next.click()
    bench.settle()
    bench.close()
    assert len(_instances) == before
    assert threading.active_count() == threads
    assert bench.canvas.drawing._takers == []
    bench.state.drop("z")


def test_two_threads_draw_on_one_map() -> None:
    """A job lays its picture while somebody pins labels: Leaflet's list of layers keeps all of them."""
    import geopandas as gpd

    canvas, point = Canvas(), gpd.GeoDataFrame(geometry=gpd.points_from_xy([2.0], [48.0]), crs=4326)
    broken: list[BaseException] = []

    def draw(key: str) -> None:
        try:
            for number in range(60):
                bounds = ((48.0, 2.0), (48.1 + number * 1e-3, 2.1))
                canvas.lay_url(key, "data:,", bounds)
                canvas.outline(key, point)
        except Exception as error:
            broken.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=draw, args=(key,)) for key in ("prediction", "likeness", "masks")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(before)
    assert broken == []
    assert len(canvas.map.layers) == 6
    canvas.close()
