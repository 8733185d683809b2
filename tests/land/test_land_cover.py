"""Lattices of windows: nothing of the region is left out, windows are squares at equal steps, and coincide again."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
from odc.geo.geobox import GeoBox

import deepsentinel as ds
from deepsentinel.aoi import area
from deepsentinel.errors import InputError
from deepsentinel.land import cover, sample_land
from deepsentinel.land.lattice import COLUMNS

REGIONS = {
    "a town": (2.25, 48.81, 2.42, 48.91),
    "two zones": (3, 44, 10, 45),
    "the equator": (20.9, -0.3, 21.3, 0.3),
    "the antimeridian": (179.8, -17.1, -179.8, -16.8),
    "the far north": (20.0, 83.7, 24.0, 84.3),
    "a pole": (-180, 89.5, 180, 90),
    "the other pole": (-180, -90, 180, -89.5),
    "the far south": (60.0, -80.2, 61.0, -79.8),
}


@pytest.mark.parametrize("name", REGIONS)
def test_nothing_of_a_region_is_left_out_and_no_window_lies_outside(name):
    region = REGIONS[name]
    windows = cover(region, size_px=512)
    points = sample_land(3000, region, seed=1)
    tree = shapely.STRtree(windows.geometry.to_numpy())
    inside, _ = tree.query(points.geometry.to_numpy(), predicate="intersects")
    missed = np.setdiff1d(np.arange(3000), inside)
    # The edges of windows bend between their corners by less than a metre here, but most in degrees at the poles.
    if abs(region[1]) < 89:
        assert len(missed) == 0
    else:
        assert len(missed) <= 3
    assert windows.is_valid.all()
    ground = area(region).geometry
    if region[0] < region[2] and abs(region[1]) < 89:
        assert windows.intersects(ground.buffer(1e-5)).all()


@pytest.mark.parametrize("name", ["a town", "the antimeridian", "the far north", "a pole"])
def test_windows_are_squares_on_the_lattice_of_their_projection(name):
    windows = cover(REGIONS[name], size_px=300, stride=200, resolution=20)
    assert tuple(windows.columns) == COLUMNS
    assert (windows["size_px"] == 300).all()
    assert (windows["x0"] % 4000 == 0).all()
    assert ((windows["y0"] - 6000) % 4000 == 0).all()
    assert not windows.duplicated(["crs", "x0", "y0"]).any()
    for crs, here in windows.groupby("crs"):
        x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(here["lon"], here["lat"])
        assert x == pytest.approx(here["x0"] + 3000, abs=1e-3)
        assert y == pytest.approx(here["y0"] - 3000, abs=1e-3)
        one = here[here.geom_type == "Polygon"].iloc[0]
        ring = shapely.get_coordinates(one.geometry)
        x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*ring.T)
        assert sorted({round(value) for value in x}) == [one.x0, one.x0 + 6000]
        assert sorted({round(value) for value in y}) == [one.y0 - 6000, one.y0]


def test_each_window_is_the_grid_that_a_patch_is_read_on():
    window = cover((2.0, 48.0, 2.1, 48.1)).iloc[3]
    corner = (window.x0, window.y0 - 2560, window.x0 + 2560, window.y0)
    grid = GeoBox.from_bbox(corner, window.crs, resolution=10)
    assert grid.shape == (256, 256)
    assert ds.geobox(grid).shape == (256, 256)


def test_a_region_on_the_lattice_gets_its_own_windows_and_no_neighbours():
    crs, x0, y0 = "EPSG:32631", 200 * 2560, 2000 * 2560
    shape = gpd.GeoSeries([shapely.box(x0, y0, x0 + 4 * 2560, y0 + 3 * 2560)], crs=crs)
    windows = cover(shape)
    assert len(windows) == 12
    assert windows["x0"].min() == x0
    assert windows["y0"].max() == y0 + 3 * 2560
    # From north to south, and west to east.
    assert windows["y0"].is_monotonic_decreasing
    assert len(cover(shape, stride=128)) == (2 * 4 + 1) * (2 * 3 + 1)
    grid = GeoBox.from_bbox((x0, y0, x0 + 2560, y0 + 2560), "EPSG:32632", resolution=10)
    assert cover(grid)["crs"].tolist() == ["EPSG:32632"]


def test_lattices_of_neighbouring_regions_coincide():
    west, east = cover((2.0, 48.0, 2.3, 48.2)), cover((2.2, 48.0, 2.5, 48.2))
    key = ["crs", "x0", "y0"]
    both = west.merge(east, on=key)
    assert len(both) > 20
    overlap = cover((2.2, 48.0, 2.3, 48.2))
    assert set(overlap[key].apply(tuple, axis=1)) == set(both[key].apply(tuple, axis=1))


def test_windows_where_labels_are():
    fields = gpd.GeoDataFrame(
        {"ground_truth": [1, 2]},
        geometry=[shapely.box(2, 48, 2.001, 48.001), shapely.box(3, 49, 3.001, 49.001)],
        crs="EPSG:4326",
    )
    windows = cover(fields)
    assert 2 <= len(windows) <= 8
    assert all(windows.intersects(field).any() for field in fields.geometry)


def test_too_many_windows_and_wrong_sizes_are_said():
    with pytest.raises(InputError, match=r"about 2\d,\d{3},\d{3} windows.*sample_land"):
        cover(None)
    for wrong in ({"size_px": 0}, {"size_px": 2.5}, {"stride": 0}, {"resolution": 0}, {"resolution": "10"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            cover((2, 48, 2.1, 48.1), **wrong)
    with pytest.raises(TypeError):
        cover((2, 48, 2.1, 48.1), step=3)


@pytest.mark.parametrize(("size_px", "stride"), [(256, None), (256, 128), (100, 250), (90, None)])
def test_windows_snap_to_multiples_and_still_leave_nothing_out(size_px, stride):
    region = (2.0, 48.0, 2.2, 48.1)
    windows = cover(region, size_px, stride, snap_m=60)
    assert (windows[["x0", "y0"]] % 60 == 0).all(axis=None)
    steps = np.diff(np.unique(windows["x0"])), np.diff(np.unique(windows["y0"]))
    wanted = 10 * (stride or size_px)
    for step in map(set, steps):
        assert step == {wanted // 60 * 60}
    if stride is None:
        assert shapely.box(*region).difference(windows.union_all().buffer(1e-9)).is_empty
    # Where the step is such a multiple anyway, it is the lattice of everybody.
    if size_px == 90:
        assert windows.equals(cover(region, size_px))


@pytest.mark.parametrize("snap_m", [0, -60, "60", 5000])
def test_a_snap_that_makes_no_lattice_is_refused(snap_m):
    with pytest.raises(InputError, match="snap_m"):
        cover((2.0, 48.0, 2.1, 48.1), snap_m=snap_m)
