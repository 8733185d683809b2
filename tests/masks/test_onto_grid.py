"""Labels in one CRS, a grid in another: straight edges, continents, the antimeridian, and degrees."""

from __future__ import annotations

import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from parcels_kit import CRS, LEFT, TOP, grid, pixel_shares

from deepsentinel.errors import DeepSentinelWarning
from deepsentinel.grids import grid_of
from deepsentinel.masks import rasterize


def test_a_grid_in_degrees_and_one_whose_rows_run_north_work_too() -> None:
    labels = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[shapely.box(LEFT, TOP - 400, LEFT + 300, TOP)], crs=CRS)
    ups = GeoBox((60, 60), Affine(10, 0, LEFT - 50, 0, 10, TOP - 500), CRS)
    flipped = rasterize(labels, ups)["coverage"].values[::-1]
    assert np.array_equal(flipped, rasterize(labels, grid(60, left=LEFT - 50, top=TOP + 100))["coverage"])
    degrees = labels.to_crs(4326)
    west, south, east, north = degrees.total_bounds
    geobox = GeoBox.from_bbox((west - 1e-3, south - 1e-3, east + 1e-3, north + 1e-3), "EPSG:4326", resolution=1e-4)
    masks = rasterize(labels, geobox, layers=["coverage", "distance"])
    assert masks["coverage"].dims == ("y", "x")
    assert float(masks["coverage"].sum()) * 1e-8 == pytest.approx(shapely.area(degrees.geometry[0]), rel=1e-6)
    assert 120 < float(masks["distance"].max()) < 160


def test_parcels_in_degrees_that_abut_are_no_conflict_either() -> None:
    lon, lat = np.meshgrid(np.linspace(3.0, 3.1, 8), np.linspace(48.0, 48.1, 8))
    shapes = shapely.box(lon[:-1, :-1], lat[:-1, :-1], lon[1:, 1:], lat[1:, 1:]).ravel()
    labels = gpd.GeoDataFrame({"ground_truth": range(1, 50)}, geometry=shapes, crs="EPSG:4326")
    geobox = GeoBox.from_bbox((501_000, 5_317_000, 506_000, 5_326_000), CRS, resolution=10)
    masks = rasterize(labels, geobox, layers=["conflict", "coverage", "overlap"])
    assert int(masks["conflict"].max()) == 1
    assert float(masks["overlap"].max()) < 1e-3


def test_a_grid_is_read_back_from_its_masks_to_the_last_digit() -> None:
    geobox = GeoBox((400, 310), Affine(0.1 / 3, 0, 500_000 / 7, 0, -0.1 / 7, 50_000_000 / 9), CRS)
    labels = gpd.GeoDataFrame(
        {"ground_truth": [1]}, geometry=[shapely.box(71_428, 5_555_550, 71_432, 5_555_560)], crs=CRS
    )
    masks = rasterize(labels, geobox)
    again = grid_of(masks)
    assert (again.affine, tuple(again.shape), again.crs) == (geobox.affine, tuple(geobox.shape), geobox.crs)
    assert rasterize(labels, masks).identical(masks)
    one_pixel = grid_of(masks.isel(y=slice(0, 1), x=slice(3, 4)))
    assert one_pixel.affine.c == pytest.approx(500_000 / 7 + 0.1)


def test_straight_edges_in_degrees_stay_where_they_are() -> None:
    # Forty kilometres along a parallel bulge by 30 m against the chord between their ends.
    belt = shapely.box(2.7, 48.0, 3.3, 48.001)
    labels = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[belt], crs=4326)
    geobox = GeoBox.from_bbox((499_000, 5_315_000, 501_000, 5_318_000), CRS, resolution=10)
    dense = gpd.GeoSeries([shapely.segmentize(belt, 1e-4)], crs=4326).to_crs(CRS)
    exact = rasterize(gpd.GeoDataFrame({"ground_truth": [1]}, geometry=dense), geobox)["coverage"]
    ours = rasterize(labels, geobox)["coverage"]
    chord = rasterize(labels.to_crs(CRS), geobox)["coverage"]
    assert abs(ours - exact).max() < 2e-5
    assert abs(chord - exact).max() > 0.5


def test_labels_on_both_sides_of_the_antimeridian_come_onto_one_grid() -> None:
    sides = [
        shapely.box(179.98, 10, 180, 10.02),
        shapely.box(-180, 10, -179.98, 10.02),
        shapely.box(0, 10, 0.02, 10.02),
    ]
    labels = gpd.GeoDataFrame({"ground_truth": [1, 2, 3]}, geometry=sides, crs=4326)
    x, y = gpd.GeoSeries([shapely.Point(180, 10.01)], crs=4326).to_crs(32601).get_coordinates().to_numpy()[0]
    masks = rasterize(labels, GeoBox((50, 50), Affine(20, 0, x - 500, 0, -20, y + 500), "EPSG:32601"))
    assert np.unique(masks["class_map"][:, :24]).tolist() == [1]
    assert np.unique(masks["class_map"][:, 26:]).tolist() == [2]


def test_continents_come_onto_a_small_grid(real: Path) -> None:
    land = gpd.read_file(real / "naturalearth" / "ne_50m_land.json").assign(ground_truth=1)
    brittany = GeoBox.from_bbox((370_000, 5_360_000, 420_000, 5_400_000), "EPSG:32630", resolution=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepSentinelWarning)
        ours = rasterize(land, brittany)["coverage"].values
    near = shapely.box(-6, 46, -3, 50)
    shore = gpd.GeoSeries([shapely.segmentize(land.make_valid().union_all() & near, 0.001)], crs=4326).to_crs(32630)
    theirs = pixel_shares(gpd.GeoDataFrame({"g": [1]}, geometry=shore), brittany)[0]
    assert 0.2 < theirs.mean() < 0.99
    assert abs(ours - theirs).max() < 1e-3
