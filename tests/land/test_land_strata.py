"""Points by class: where the classes are, as many of each as asked for, from polygons and from maps."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.transform import from_origin
from scipy.stats import chisquare, kstest

from deepsentinel.errors import DeepSentinelWarning, InputError, NothingFoundError, ReadError
from deepsentinel.grids import grid_coords
from deepsentinel.land import sample_land
from deepsentinel.land.classmaps import pixel_areas
from deepsentinel.land.strata import largest_remainder
from deepsentinel.legend import corine

GEOD = pyproj.Geod(ellps="WGS84")


def labels(**extra: object) -> gpd.GeoDataFrame:
    """Two boxes of one class, one twice as large of another, none of which touch."""
    shapes = [shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1), shapely.box(4, 0, 6, 2)]
    made = gpd.GeoDataFrame({"ground_truth": [211, 211, 311], **extra}, geometry=shapes, crs="EPSG:4326")
    made.attrs["legend"] = corine().to_json()
    return made


def class_map(values: np.ndarray, bounds: tuple[float, ...], crs: str) -> xr.DataArray:
    rows, columns = values.shape
    grid = GeoBox.from_bbox(bounds, crs, shape=(rows, columns))
    return xr.DataArray(values, dims=("y", "x"), coords=grid_coords(grid), name="class_map")


def xy(points: gpd.GeoDataFrame) -> np.ndarray:
    return shapely.get_coordinates(points.geometry.to_numpy())


def test_points_lie_in_polygons_of_their_class_and_shares_are_those_of_the_area():
    made = labels()
    points = sample_land(600, strata=made, seed=1)
    assert points["class"].value_counts().to_dict() == {311: 400, 211: 200}
    for code, here in points.groupby("class"):
        ground = made[made["ground_truth"] == code].union_all()
        assert shapely.covers(ground, here.geometry.to_numpy()).all()
    assert set(zip(points["class"], points["class_name"], strict=True)) == {
        (211, corine().names[211]), (311, corine().names[311])
    }  # fmt: skip
    two = xy(points[points["class"] == 211])[:, 0] < 1.5
    assert 0.35 < two.mean() < 0.65
    # The order says nothing of the class.
    assert len(set(points["class"].iloc[:20])) == 2


@pytest.mark.parametrize(("shares", "expected"), [
    ("balanced", {211: 150, 311: 151}), ({211: 3, 311: 1}, {211: 226, 311: 75}), ({311: 0.2}, {311: 301}),
    ({corine().names[211]: 1.0}, {211: 301}),
])  # fmt: skip
def test_shares_of_classes(shares, expected):
    points = sample_land(301, strata=labels(), shares=shares)
    counts = points["class"].value_counts().to_dict()
    assert sum(counts.values()) == 301
    assert all(abs(counts[code] - number) <= 1 for code, number in expected.items())
    assert set(counts) == set(expected)


def test_rounding_never_loses_a_point():
    rng = np.random.default_rng(0)
    for _ in range(200):
        weights, n = rng.random(rng.integers(1, 12)) ** 4, int(rng.integers(0, 300))
        counts = largest_remainder(weights, n)
        assert counts.sum() == n
        assert (np.abs(counts - weights / weights.sum() * n) < 1).all()


def test_classes_by_name_and_in_texts():
    made = labels().drop(columns="ground_truth").assign(class_name=["oats", "oats", "rye"])
    points = sample_land(90, strata=made)
    assert points["class"].value_counts().to_dict() == {"rye": 60, "oats": 30}
    assert "class_name" not in points
    texts = labels().assign(ground_truth=["oats", "oats", None])
    assert set(sample_land(9, strata=texts)["class"]) == {"oats"}


def test_a_region_cuts_the_classes_and_their_shares():
    points = sample_land(400, (0.5, 0, 5, 1), strata=labels(), seed=2)
    assert points.total_bounds[0] >= 0.5
    assert points.total_bounds[2] <= 5
    # A half and a whole of the first class, a half of the lower half of the other.
    assert points["class"].value_counts()[211] == 240
    with pytest.raises(NothingFoundError, match="No label of strata= lies in the region"):
        sample_land(5, (50, 50, 51, 51), strata=labels())


def test_points_of_classes_keep_their_distance_from_each_other():
    points = sample_land(120, strata=labels(), min_distance_m=10_000, shares="balanced", seed=1)
    coordinates = xy(points)
    i, j = np.triu_indices(len(points), 1)
    assert GEOD.inv(*coordinates[i].T, *coordinates[j].T)[2].min() >= 10_000
    with pytest.raises(InputError, match=r"Only \d+ of 5,000 points fit into class"):
        sample_land(10_000, strata=labels(), min_distance_m=10_000, shares="balanced")


def test_the_same_seed_gives_the_same_points():
    made = class_map(np.array([[1, 2], [3, 0]], "uint8"), (0, 0, 2, 2), "EPSG:4326")
    for strata in (labels(), made):
        one, again, other = (sample_land(50, strata=strata, seed=seed) for seed in (3, 3, 4))
        assert one.equals(again)
        assert not (xy(one) == xy(other)).any()


def test_classes_with_too_little_ground_are_told_of():
    made = labels()
    made.loc[3] = [411, shapely.box(10, 0, 10.0001, 0.0001)]
    with pytest.warns(DeepSentinelWarning, match=r"Inland marshes has too little of the ground for one of 50 points"):
        points = sample_land(50, strata=made)
    assert set(points["class"]) == {211, 311}
    with pytest.warns(DeepSentinelWarning, match=r"More points than pixels of 10 m.*Inland marshes \(1 for 100\)"):
        points = sample_land(300, strata=made, shares="balanced")
    assert (points["class"] == 411).sum() == 100


@pytest.mark.parametrize(("bounds", "crs"), [
    ((0, 0, 4, 4), "EPSG:4326"), ((-10, 40, 30, 80), "EPSG:4326"), ((0, 4e6, 4e6, 9e6), "EPSG:3857"),
    ((5e5, 5e6, 5.4e5, 5.04e6), "EPSG:32631"), ((2.5e6, 1.4e6, 6.5e6, 5.4e6), "EPSG:3035"),
])  # fmt: skip
def test_points_in_a_class_map_lie_in_pixels_of_their_class_evenly_by_true_area(bounds, crs):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 4, (40, 40)).astype("uint8")
    made = class_map(values, bounds, crs)
    points = sample_land(8000, strata=made, seed=1)
    forth = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = forth.transform(*xy(points).T)
    column = ((x - bounds[0]) / (bounds[2] - bounds[0]) * 40).astype(int)
    row = ((bounds[3] - y) / (bounds[3] - bounds[1]) * 40).astype(int)
    assert (values[row, column] == points["class"]).all()
    # By true areas: those of the outlines of the pixels on the ellipsoid.
    size = (bounds[2] - bounds[0]) / 40, (bounds[3] - bounds[1]) / 40
    back = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    rows = np.zeros(40)
    for at in range(40):
        ring = shapely.segmentize(
            shapely.box(bounds[0], bounds[3] - (at + 1) * size[1], bounds[0] + size[0], bounds[3] - at * size[1]),
            max(size) / 20,
        )
        rows[at] = abs(GEOD.polygon_area_perimeter(*back.transform(*np.array(ring.exterior.coords).T))[0])
    if crs in ("EPSG:4326", "EPSG:3857"):  # where ground depends on the row alone
        ground = rows[:, None] * (values > 0)
        counts = np.bincount(row, minlength=40)
        expected = ground.sum(axis=1) / ground.sum() * 8000
        assert chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-3
    shares = np.array([(points["class"] == code).sum() for code in (1, 2, 3)]) / 8000
    areas = pixel_areas(
        Affine(size[0], 0, bounds[0], 0, -size[1], bounds[3]),
        pyproj.CRS(crs),
        (0, 40, 0, 40),
    )
    sums = np.array([areas[values == code].sum() for code in (1, 2, 3)])
    assert shares == pytest.approx(sums / sums.sum(), abs=2e-4)


@pytest.mark.parametrize(("crs", "x", "y", "step"), [
    ("EPSG:4326", 10, 60, 0.01), ("EPSG:3857", 1e6, 8e6, 500), ("EPSG:32633", 2e5, 7e6, 100),
    ("EPSG:3035", 3e6, 2e6, 1000),
    ("EPSG:3413", 1e6, -1e6, 1000), ("EPSG:2263", 1e6, 2e5, 100),
])  # fmt: skip
def test_the_ground_of_pixels_is_that_of_their_outlines_on_the_ellipsoid(crs, x, y, step):
    affine = Affine(step, 0, x, 0, -step, y)
    areas = pixel_areas(affine, pyproj.CRS(crs), (0, 300, 0, 300))
    back = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    for row, column in ((0, 0), (150, 20), (299, 299)):
        left, top = x + column * step, y - row * step
        ring = shapely.segmentize(shapely.box(left, top - step, left + step, top), step / 20)
        own = abs(GEOD.polygon_area_perimeter(*back.transform(*np.array(ring.exterior.coords).T))[0])
        assert areas[row, column] == pytest.approx(own, rel=2e-4)


def test_masks_with_a_legend_and_a_region():
    made = class_map(
        np.repeat([[211, 311, 0, 411]], 4, axis=0).astype("uint16"), (500_000, 0, 504_000, 4000), "EPSG:32631"
    )
    made.attrs = corine().to_attrs()
    masks = made.to_dataset()
    points = sample_land(90, strata=masks, shares="balanced")
    assert points["class"].value_counts().to_dict() == {211: 30, 311: 30, 411: 30}
    assert points["class_name"].iloc[0] in corine().names.values()
    west = gpd.GeoDataFrame(geometry=[shapely.box(500_000, 0, 501_500, 4000)], crs="EPSG:32631")
    within = sample_land(900, west, strata=masks)
    x = within.to_crs("EPSG:32631").geometry.x
    assert x.max() <= 501_500 + 1e-3
    assert set(within["class"]) == {211, 311}
    assert kstest((x[within["class"] == 211] - 500_000) / 1000, "uniform").pvalue > 1e-3
    with pytest.raises(NothingFoundError, match="has no class in the region"):
        sample_land(5, (50, 50, 51, 51), strata=masks)


def written(path: Path, values: np.ndarray, **options: object) -> Path:
    profile = {
        "driver": "GTiff",
        "width": values.shape[1],
        "height": values.shape[0],
        "count": 1,
        "dtype": values.dtype,
    }
    with rasterio.open(
        path, "w", **{**profile, "crs": "EPSG:3035", "transform": from_origin(4e6, 3e6, 100, 100), **options}
    ) as file:
        file.write(values, 1)
    return path


def test_a_raster_of_many_blocks_is_sampled_like_one_in_memory(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    values = (rng.integers(0, 3, (300, 500)) + 10 * (np.arange(500) > 250)).astype("uint8")
    path = written(tmp_path / "clc.tif", values, nodata=255)
    monkeypatch.setattr("deepsentinel.land.classmaps.BLOCK_PX", 64)
    points = sample_land(6000, strata=path, seed=1)
    x, y = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3035", always_xy=True).transform(*xy(points).T)
    column, row = ((x - 4e6) // 100).astype(int), ((3e6 - y) // 100).astype(int)
    assert (values[row, column] == points["class"]).all()
    # A file that says what is no data may have a class 0; the shares are those of the pixels, as the map is equal-area.
    codes, counts = np.unique(values, return_counts=True)
    assert codes.tolist() == [0, 1, 2, 10, 11, 12]
    got = points["class"].value_counts().sort_index()
    assert (np.abs(got.to_numpy() - counts / counts.sum() * 6000) < 1.5).all()
    assert chisquare(np.histogram(x, 20, (4e6, 4.05e6))[0]).pvalue > 1e-3
    assert chisquare(np.histogram(y, 15, (2.97e6, 3e6))[0]).pvalue > 1e-3
    far = sample_land(40, strata=path, min_distance_m=2000, shares="balanced")
    i, j = np.triu_indices(40, 1)
    assert GEOD.inv(*xy(far)[i].T, *xy(far)[j].T)[2].min() >= 2000


def test_values_that_are_no_class_are_left_alone(tmp_path):
    values = np.array([[0, 7], [7, 9]], "int16")
    assert set(sample_land(20, strata=written(tmp_path / "a.tif", values))["class"]) == {7, 9}
    assert set(sample_land(20, strata=written(tmp_path / "b.tif", values, nodata=9))["class"]) == {0, 7}
    floats = class_map(np.array([[1, np.nan], [2, 2]], "float32"), (0, 0, 2, 2), "EPSG:4326")
    assert sample_land(30, strata=floats)["class"].value_counts().to_dict() == {2: 20, 1: 10}


def test_what_is_no_map_is_said(tmp_path):
    with pytest.raises(InputError, match="strata is a dict"):
        sample_land(5, strata={})
    with pytest.raises(InputError, match="no column ground_truth or class_name"):
        sample_land(5, strata=labels().drop(columns="ground_truth"))
    with pytest.raises(InputError, match="measurements, not classes"):
        sample_land(5, strata=labels().assign(ground_truth=[0.5, 1.0, 2.0]))
    with pytest.raises(NothingFoundError, match="has a class"):
        sample_land(5, strata=labels().assign(ground_truth=None))
    with pytest.raises(InputError, match="measurements, not classes"):
        sample_land(5, strata=class_map(np.array([[0.5, 1], [2, 2]]), (0, 0, 2, 2), "EPSG:4326"))
    with pytest.raises(NothingFoundError, match="has no class"):
        sample_land(5, strata=class_map(np.zeros((2, 2), "uint8"), (0, 0, 2, 2), "EPSG:4326"))
    with pytest.raises(ReadError, match=r"nowhere\.tif cannot be opened"):
        sample_land(5, strata=tmp_path / "nowhere.tif")
    with pytest.raises(InputError, match="has no CRS"):
        sample_land(5, strata=written(tmp_path / "c.tif", np.ones((2, 2), "uint8"), crs=None))
    with pytest.raises(InputError, match="has no class_map"):
        sample_land(5, strata=xr.Dataset({"VV": ("y", [1.0])}))
    for shares, says in (
        ("even", "shares='even'"), ({999: 1}, "has a class 999"), ({211: -1}, "is -1"), ({211: 0}, "gives no class"),
        ({}, "gives no class"), ({"Coniferous": 1}, "has a class 'Coniferous'"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            sample_land(5, strata=labels(), shares=shares)
