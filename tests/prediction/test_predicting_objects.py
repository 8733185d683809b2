"""Objects on the ground: of a patch, of a corpus, of an area and in files; and areas that are no rectangles."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import torch
import torch.nn.functional as F
import xarray as xr
from odc.geo.geobox import GeoBox
from prediction_kit import band, corpus, model, one_hot, thresholds
from spots_kit import SIDES, Spots, ground, same
from torch import Tensor

import deepsentinel as ds
from deepsentinel.aoi import area, square
from deepsentinel.errors import DeepSentinelWarning, InputError, NothingFoundError
from deepsentinel.grids import grid_coords, grid_of
from deepsentinel.learn.batches import Batch
from deepsentinel.legend import Legend
from deepsentinel.prediction import predict
from deepsentinel.prediction.border import border_of


@pytest.mark.parametrize("task", ["detection", "instances"])
@pytest.mark.parametrize("batch_size", [1, "auto"])
def test_objects_of_a_patch_lie_where_they_are_and_are_told_once(task: str, batch_size: Any) -> None:
    patch, truth = ground()
    finder = Spots(task)
    found = predict(finder, patch, batch_size=batch_size, device="cpu", progress=False)
    found["geometry"] = shapely.simplify(found.geometry, 0)
    same(found, truth)
    assert list(found.columns) == ["ground_truth", "name", "score", "geometry"]
    assert found["score"].is_monotonic_decreasing
    assert dict(zip(found["ground_truth"], found["name"], strict=True)) == {60: "middling", 200: "bright"}
    assert {shape[-1] for shape in finder.batches} == {32}
    assert max(shape[0] for shape in finder.batches) == (1 if batch_size == 1 else 5)
    told = found.attrs
    assert (told["task"], told["encoder"], told["sensors"], told["least_score"]) == (task, "fusion-nano", "s2", 0.5)
    assert told["s2_time"] == str(patch["s2_time"].values.astype("datetime64[s]"))
    assert Legend.from_json(told["legend"])[200].color == "#ffee99"
    assert ds.show(found).texts[0].get_text() == "7 objects of 2 classes by fusion-nano, from Sentinel-2"


def test_objects_are_drawn_on_the_picture_where_they_lie(tmp_path: Path) -> None:
    patch, truth = ground()
    found = predict(Spots("instances"), patch, out=tmp_path / "found.gpkg", device="cpu")
    left, bottom, right, top = grid_of(patch).boundingbox.bbox
    # Also in degrees, and from a file, which knows names but no colours.
    for table in (found, found.to_crs("EPSG:4326"), gpd.read_file(tmp_path / "found.gpkg")):
        axes = ds.show([patch, table]).axes[0]
        assert axes.images[0].get_extent() == [left, right, bottom, top]
        lines = axes.collections[-1].get_segments()
        drawn = shapely.union_all([shapely.Polygon(line) for line in lines])
        assert drawn.symmetric_difference(shapely.union_all(truth.geometry)).area < 1
    part = ds.show([found, patch.isel(y=slice(0, 40))], title=None)
    assert part.texts[0].get_text().startswith("4 objects of 2 classes")
    shades = {
        tuple(np.round(255 * shade[:3]).astype(int).tolist()) for shade in part.axes[0].collections[-1].get_colors()
    }
    assert shades == {(0x99, 0x99, 0x00), (0xFF, 0xEE, 0x99)}
    assert ds.show([patch, found.iloc[:0]]).texts[0].get_text() == "0 objects by fusion-nano, from Sentinel-2"
    with pytest.raises(InputError, match="Nothing was found"):
        ds.show(found.iloc[:0])
    with pytest.raises(InputError, match="found elsewhere"):
        ds.show([patch, found.assign(geometry=found.translate(1e5))])


def test_objects_alone_are_outlines_and_their_numbers() -> None:
    patch, truth = ground()
    found = predict(Spots("instances"), patch, device="cpu")
    for table in (found, found.to_crs("EPSG:4326")):
        fig = ds.show(table)
        assert [type(each).__name__ for each in fig.axes[0].collections] == ["LineCollection"]
        words = [text.get_text() for text in fig.texts]
        assert "Classes and their number of objects" in words
        assert not any("share" in text or "%" in text or "label" in text for text in words)
        assert sum(int(text) for text in words if text.isdigit()) == len(truth)
    lines = ds.show(found).axes[0].collections[0].get_segments()
    drawn = shapely.union_all([shapely.Polygon(line) for line in lines])
    assert drawn.symmetric_difference(shapely.union_all(truth.geometry)).area < 1


def test_what_is_asked_of_objects_is_done() -> None:
    patch, truth = ground()
    large = predict(Spots(), patch, least_score=0.52, device="cpu")
    assert 0 < len(large) < len(truth)
    assert large["score"].min() >= 0.52
    whole = predict(Spots(), patch, window_px=96, overlap=0, device="cpu")
    same(whole, truth)
    # Without overlap what lies on a seam is in pieces.
    assert len(predict(Spots(), patch, overlap=0, device="cpu")) > len(truth)
    cloudy = patch.assign(SCL=(("y", "x"), np.where(np.arange(SIDES[0])[:, None] < 40, 9, 4) * np.ones(SIDES, "uint8")))
    clear = truth[truth.centroid.y < float(patch["y"][40])]
    same(predict(Spots(), cloudy, device="cpu"), clear)
    same(predict(Spots(), cloudy, mask_clouds=False, device="cpu"), truth)
    # Unasked as the model has learnt.
    open_eyed = Spots()
    open_eyed.story["clouds"] = False
    same(predict(open_eyed, cloudy, device="cpu"), truth)
    same(predict(open_eyed, cloudy, mask_clouds=True, device="cpu"), clear)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"probabilities": True}, "each has a score"),
        ({"uncertainty": "margin"}, "each has a score"),
        ({"least_score": 7}, "from 0 to 1"),
        ({"overlap": 1.0}, "to 0.9"),
        ({"batch_size": 0}, "from 1"),
        ({"window_px": 20}, "window_px=20"),
        ({"out": "map.tif"}, "ends in .gpkg"),
        ({"sensors": "s1"}, "S2 alone"),
        ({"aoi": (0, 0, 1, 1)}, "aoi= is for a source"),
    ],
)
def test_what_objects_do_not_have_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        predict(Spots(), ground()[0], **options)


def test_a_sureness_is_for_objects() -> None:
    with pytest.raises(InputError, match="least_score= is for objects"):
        predict(model(thresholds), ground()[0], least_score=0.7)


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fields.gpkg", "fields.geojson", "fields.parquet"])
@pytest.mark.parametrize("task", ["detection", "instances"])
def test_a_table_comes_back_from_its_file(task: str, name: str, tmp_path: Path) -> None:
    patch, _ = ground()
    target = tmp_path / name
    found = predict(Spots(task), patch, out=target, device="cpu")
    read = gpd.read_parquet(target) if name.endswith("parquet") else gpd.read_file(target)
    assert list(read.columns) == list(found.columns)
    for column in ("ground_truth", "name", "score"):
        assert read[column].tolist() == found[column].tolist()
    assert read.crs == ("EPSG:4326" if name.endswith("geojson") else found.crs)
    apart = shapely.hausdorff_distance(np.asarray(read.geometry.to_crs(found.crs)), np.asarray(found.geometry))
    assert apart.max() < (0.1 if name.endswith("geojson") else 1e-6)
    if name.endswith("geojson"):
        assert "crs" not in json.loads(target.read_text())
    # Again, and with nothing in it.
    empty = predict(Spots(task), patch, out=target, least_score=1.0, device="cpu")
    assert len(empty) == 0
    assert list(empty.columns) == list(found.columns)
    read = gpd.read_parquet(target) if name.endswith("parquet") else gpd.read_file(target)
    assert len(read) == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["theirs.gpkg", "theirs.geojson", "theirs.parquet"])
def test_what_somebody_else_wrote_stays(name: str, tmp_path: Path) -> None:
    target = tmp_path / name
    table = gpd.GeoDataFrame({"owner": ["me"]}, geometry=[shapely.Point(0, 0)], crs="EPSG:4326")
    table.to_parquet(target) if name.endswith("parquet") else table.to_file(target)
    before = target.read_bytes()
    for content in (before, b"notes", b""):
        target.write_bytes(content)
        finder = Spots()
        with pytest.raises(InputError, match="no table of objects"):
            predict(finder, ground()[0], out=target, device="cpu")
        assert target.read_bytes() == content
        # Before anything is looked at.
        assert not finder.batches


def test_a_write_that_fails_leaves_the_table_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, truth = ground()
    target = tmp_path / "fields.gpkg"
    predict(Spots(), patch, out=target, device="cpu")

    def full(self: Any, path: Any, **options: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(gpd.GeoDataFrame, "to_file", full)
    with pytest.raises(OSError, match="no space"):
        predict(Spots(), patch, out=target, least_score=0.9, device="cpu")
    monkeypatch.undo()
    assert len(gpd.read_file(target)) == len(truth)
    assert [path.name for path in tmp_path.iterdir()] == ["fields.gpkg"]


# -- corpora -----------------------------------------------------------------------------------------------------------


@cache
def alike() -> xr.Dataset:
    """The samples of one projection, in another order than they were made in."""
    codes = corpus()["crs"].to_numpy().astype(str)
    names, counts = np.unique(codes, return_counts=True)
    return corpus().isel(sample=np.flatnonzero(codes == names[counts.argmax()])[::-1])


def test_objects_of_a_corpus_are_those_of_its_samples(tmp_path: Path) -> None:
    finder, some = Spots(), alike()
    assert some.sizes["sample"] > 1
    found = predict(finder, some, out=tmp_path / "all.gpkg", device="cpu")
    assert list(found.columns) == ["sample", "ground_truth", "name", "score", "geometry"]
    for at, number in enumerate(some["sample"].to_numpy()):
        alone = predict(finder, ds.patch_of(some, at), device="cpu")
        assert len(alone)
        same(found[found["sample"] == number], alone)
    assert len(gpd.read_file(tmp_path / "all.gpkg")) == len(found)
    # Again into the same file: a table with samples is one of ours too.
    predict(finder, some, out=tmp_path / "all.gpkg", device="cpu")


def test_samples_of_several_projections_share_degrees() -> None:
    some = alike().isel(sample=[0, 1])
    codes = [str(some["crs"].to_numpy()[0]), "EPSG:32620"]
    some = some.assign_coords(crs=("sample", np.array(codes, dtype=object)))
    found = predict(Spots(), some, device="cpu")
    assert found.crs == "EPSG:4326"
    for at, number in enumerate(some["sample"].to_numpy()):
        alone = predict(Spots(), ds.patch_of(some, at), device="cpu")
        assert alone.crs == codes[at]
        mine = np.asarray(found[found["sample"] == number].to_crs(codes[at]).geometry)
        assert shapely.hausdorff_distance(mine, np.asarray(alone.geometry)).max() < 0.01


def test_samples_without_pixels_are_told() -> None:
    failed = corpus().copy()
    failed["status"] = ("sample", np.array(["ok", "failed", "ok"], dtype=object))
    from deepsentinel.prediction import corpora

    def patch_at(held: xr.Dataset, at: int) -> xr.Dataset:
        if at == 1:
            raise NothingFoundError("no pixels")
        return ds.patch_of(held, at, labels=False)

    with pytest.MonkeyPatch.context() as patching:
        patching.setattr("deepsentinel.prediction.objects.patch_at", patch_at)
        with pytest.warns(DeepSentinelWarning, match="1 of 3 samples hold no pixels"):
            found = predict(Spots(), failed, device="cpu")
        assert set(found["sample"]) == set(corpus()["sample"].to_numpy()[[0, 2]])
        with pytest.raises(NothingFoundError, match="All 1 samples"):
            patching.setattr("deepsentinel.prediction.objects.patch_at", lambda held, at: patch_at(held, 1))
            predict(Spots(), corpus().isel(sample=[0]), device="cpu")
    assert corpora.patch_at(corpus(), 0).sizes["x"] == 40


# -- areas -------------------------------------------------------------------------------------------------------------


class Ground:
    """A source of one scene; Sentinel-2 may end at a row."""

    def __init__(self, end: int = SIDES[0]) -> None:
        self.patch, self.end = ground()[0].copy(), end

    def search(self, *args: Any, **options: Any) -> Any:
        raise AssertionError("nothing is searched for where a row is given")

    def read(self, row: Any, box: GeoBox, *, bands: Any = None) -> xr.Dataset:
        names = [name for name in (bands or self.patch.data_vars) if name not in ("VV", "VH", "HH", "HV", "angle")]
        top = round((float(self.patch["y"][0]) + 5 - box.affine.f) / 10)
        left = round((box.affine.c - float(self.patch["x"][0]) + 5) / 10)
        part = self.patch.isel(y=slice(top, top + box.shape.y), x=slice(left, left + box.shape.x))[names].copy()
        gone = np.arange(top, top + int(box.shape.y)) >= self.end
        for name in names:
            part[name] = part[name].where(xr.DataArray(~gone, dims="y"), 0).astype(part[name].dtype)
        return part.assign_coords(grid_coords(box))


ROW = {"sensor": "S2", "id": "a"}


def outline() -> shapely.Polygon:
    """Most of the ground, without its north-eastern corner; touches all its sides."""
    box = grid_of(ground()[0]).boundingbox
    west, east = (box.left, box.top), (box.right, box.bottom + 150)
    return shapely.Polygon([(box.left, box.bottom), (box.right, box.bottom), east, (box.left + 100, box.top), west])


def test_objects_of_an_area_are_those_whose_middle_it_holds(tmp_path: Path) -> None:
    patch, truth = ground()
    same(predict(Spots(), Ground(), grid_of(patch), row=ROW, device="cpu"), truth)
    aoi = gpd.GeoSeries([outline()], crs=truth.crs)
    inside = truth[truth.centroid.within(outline())]
    cut = truth[truth.intersects(outline().boundary)]
    assert len(inside) == len(truth) - 2
    assert set(cut.index) - set(inside.index)
    assert set(cut.index) & set(inside.index)
    found = predict(Spots(), Ground(), aoi, row=ROW, out=tmp_path / "a.parquet", device="cpu")
    same(found, inside)
    assert len(gpd.read_parquet(tmp_path / "a.parquet")) == len(inside)


def test_nothing_is_found_where_nothing_was_seen() -> None:
    class Everywhere(Spots):
        def forward(self, batch: Batch, sensors: str | None = None) -> Any:
            one = {"boxes": torch.tensor([[8.0, 8, 14, 14]]), "labels": torch.ones(1, dtype=torch.int64)}
            self.batches.append(tuple(batch.pixels.shape))
            return [{**one, "scores": torch.ones(1)} for _ in range(len(batch))]

    patch, _ = ground()
    every, half = (
        predict(Everywhere(), Ground(end), grid_of(patch), row=ROW, overlap=0, device="cpu") for end in (SIDES[0], 32)
    )
    assert len(every) == 9
    assert len(half) == 3
    assert half.geometry.bounds["miny"].min() > float(patch["y"][32])
    nothing = Everywhere()
    assert len(predict(nothing, Ground(0), grid_of(patch), row=ROW, device="cpu")) == 0
    assert not nothing.batches


def blurred(batch: Batch) -> Tensor:
    """Classes by what lies around a pixel."""
    values = F.avg_pool2d(band(batch, "B08").unsqueeze(1), 9, 1, 4, count_include_pad=False)[:, 0]
    return one_hot((values >= 1000).long() + (values >= 1300).long())


@pytest.mark.parametrize("upscale", [1, 2])
@pytest.mark.parametrize("out", [None, "map.tif", "map.zarr"])
def test_maps_end_where_an_area_does_but_what_lies_around_is_seen(
    upscale: int, out: str | None, tmp_path: Path
) -> None:
    def finer(batch: Batch) -> Tensor:
        return blurred(batch).repeat_interleave(upscale, 2).repeat_interleave(upscale, 3)

    patch, truth = ground()
    head = model(finer, upscale=upscale)
    whole = predict(head, Ground(), grid_of(patch), row=ROW, device="cpu")
    target = None if out is None else tmp_path / out
    aoi = gpd.GeoSeries([outline()], crs=truth.crs).to_crs("EPSG:4326")
    part = predict(head, Ground(), aoi, row=ROW, out=target, device="cpu")
    assert part.sizes == whole.sizes
    x, y = np.meshgrid(part["x"], part["y"])
    inside = shapely.contains_xy(outline(), x, y)
    # Degrees are a hand's breadth off, so that the line itself is left out.
    line = np.asarray(shapely.distance(outline().boundary, shapely.points(x, y))) < 0.5
    assert (whole["class_map"].values != 0).all()
    np.testing.assert_array_equal((part["class_map"].values != 0)[~line], inside[~line])
    assert 0.4 < inside.mean() < 0.9
    kept = inside & ~line
    np.testing.assert_array_equal(part["class_map"].values[kept], whole["class_map"].values[kept])
    assert np.isfinite(part["uncertainty"].values[kept]).all()
    assert np.isnan(part["uncertainty"].values[~inside & ~line]).all()


def test_cells_of_whole_windows_are_kept_where_the_area_touches_them() -> None:
    _, truth = ground()
    head = model(lambda batch: torch.ones(len(batch), 3), "classification")
    shape = shapely.box(*truth.total_bounds).centroid.buffer(30)
    part = predict(head, Ground(), gpd.GeoSeries([shape], crs=truth.crs), row=ROW, device="cpu")
    assert (part["class_map"].values != 0).any()


def test_rectangles_are_taken_whole() -> None:
    for west in (500_003.0, 600_003.0, 800_003.0):
        box = gpd.GeoSeries([shapely.box(west, 4_000_002, west + 911, 4_000_707)], crs="EPSG:32631")
        degrees = shapely.box(*box.to_crs("EPSG:4326").total_bounds)
        lon, lat = degrees.centroid.x, degrees.centroid.y
        for aoi in (box, area(degrees.bounds), ds.geobox(box), degrees.bounds, degrees, square(lon, lat, 640)):
            assert border_of(aoi, ds.geobox(aoi)) is None
        turned = box.rotate(30)
        two = shapely.union_all([degrees, shapely.affinity.translate(degrees, 0.02, 0.01)])
        for aoi in (turned, two, degrees.difference(degrees.centroid.buffer(0.001))):
            assert border_of(aoi, ds.geobox(aoi)) is not None
    # Of a rectangle in metres only its numbers in degrees are left, or an area.
    box = box.translate(-250_000)
    for aoi in (box.to_crs("EPSG:4326"), area(box)):
        assert border_of(aoi, ds.geobox(box)) is None


def test_an_area_across_the_end_of_the_map_has_its_border() -> None:
    corner = shapely.Polygon([(179.99, 0.1), (180.02, 0.1), (179.99, 0.13)])
    grid = ds.geobox(corner)
    border = border_of(corner, grid)
    assert border is not None
    inside = border.cells(grid, 0, 0, tuple(grid.shape), touched=False)
    assert inside.mean() == pytest.approx(0.5, abs=0.01)
    assert border.cells(grid, 5, 7, (20, 30), touched=False).tolist() == inside[5:25, 7:37].tolist()
    assert border_of((179.99, 0.1, -179.98, 0.13), ds.geobox((179.99, 0.1, -179.98, 0.13))) is None
