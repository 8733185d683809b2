"""Distances to the boundary of the own polygon: against shapely, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from parcels_kit import LEFT, TOP, grid, lattice
from shapes_kit import blobs, moved

from deepsentinel.masks import parcel_numbers, rasterize
from deepsentinel.masks.distance import distance_m


def by_shapely(
    shapes: np.ndarray, winner: np.ndarray, affine: Affine, scale: tuple[float, float] = (1, 1)
) -> np.ndarray:
    row, column = np.indices(winner.shape) + 0.5
    centres = shapely.points((affine.c + affine.a * column) * scale[0], (affine.f + affine.e * row) * scale[1])
    outlines = shapely.transform(shapely.boundary(shapes), lambda xy: xy * scale)
    return np.where(winner < 0, np.nan, shapely.distance(outlines[winner], centres))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(64, 64), (37, 131), (1, 1), (3, 300)])
def test_every_pixel_is_as_far_as_shapely_says(seed: int, shape: tuple[int, int]) -> None:
    shapes = blobs(seed, 20, 10.0 * max(shape))
    affine = Affine(10, 0, 0, 0, -10, 10.0 * shape[0])
    burnt = rasterio.features.rasterize(
        zip(shapes, range(len(shapes)), strict=True), shape, transform=affine, fill=-1, dtype="int32", all_touched=True
    )
    found = distance_m(shapes, burnt, affine)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_shapely(shapes, burnt, affine), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("affine", [Affine(10, 0, LEFT, 0, -10, TOP), Affine(-5, 0, LEFT, 0, 20, TOP)])
def test_pixels_may_belong_to_any_polygon_wherever_it_lies(affine: Affine) -> None:
    rng = np.random.default_rng(5)
    shapes = moved(blobs(5, 20, 500.0), LEFT, TOP)
    winner = rng.integers(-1, len(shapes), (50, 40))
    np.testing.assert_allclose(
        distance_m(shapes, winner, affine), by_shapely(shapes, winner, affine), rtol=1e-6, atol=1e-5
    )


def test_degrees_are_measured_in_metres_along_each_axis() -> None:
    shapes = moved(blobs(2, 8, 0.01), 2, 60)
    affine = Affine(0.0002, 0, 2, 0, -0.0001, 60.01)
    winner = np.random.default_rng(0).integers(0, len(shapes), (100, 50))
    found = distance_m(shapes, winner, affine, metres_per_unit=(55_000.0, 111_000.0))
    # Shapely loses digits on coordinates of millions of metres, so that a micrometre is all it can tell.
    wanted = by_shapely(shapes, winner, affine, (55_000.0, 111_000.0))
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-5)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-2, 12), st.integers(-2, 12)), min_size=4, max_size=30),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_corners_on_pixels_and_points_given_twice(points: list[tuple[int, int]], rows: int, columns: int) -> None:
    ring = np.repeat(np.array(points, dtype=float), 2, axis=0)
    shapes = np.array([shapely.Polygon(ring)])
    winner = np.zeros((rows, columns), dtype=np.int32)
    affine = Affine(0.5, 0, 0, 0, -0.5, 10)
    wanted = by_shapely(np.array([shapely.Polygon(points)]), winner, affine)
    np.testing.assert_allclose(distance_m(shapes, winner, affine), wanted, rtol=1e-6, atol=1e-6)


def test_a_hole_is_boundary_too() -> None:
    ring = shapely.Point(50, 50).buffer(40).difference(shapely.Point(50, 50).buffer(20))
    inside = distance_m(np.array([ring]), np.zeros((10, 10), int), Affine(10, 0, 0, 0, -10, 100))
    assert inside[5, 5] == pytest.approx(20 - np.hypot(5, 5), abs=0.1)


def test_background_has_no_distance() -> None:
    found = distance_m(np.array([shapely.box(0, 0, 10, 10)]), np.full((2, 3), -1), Affine(10, 0, 0, 0, -10, 20))
    assert found.shape == (2, 3)
    assert np.isnan(found).all()


def test_a_long_outline_does_not_change_the_answer() -> None:
    turn = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    coast = shapely.Polygon(np.c_[np.cos(turn), np.sin(turn)] * (900 + 80 * np.sin(40 * turn))[:, None] + 1000)
    affine, winner = Affine(10, 0, 0, 0, -10, 2000), np.zeros((200, 200), dtype=np.int32)
    found = distance_m(np.array([coast]), winner, affine)
    at = np.random.default_rng(0).integers(0, 200, (300, 2))
    points = shapely.points(at[:, 1] * 10 + 5, 1995 - at[:, 0] * 10)
    np.testing.assert_allclose(found[tuple(at.T)], shapely.distance(coast.boundary, points), rtol=1e-6, atol=1e-4)


def test_the_layer_is_the_distance_to_the_parcel_that_stands_in_the_pixel() -> None:
    parcels = lattice(6, size_m=300)
    masks = rasterize(parcels, grid(40), layers=("parcel_id", "distance"))
    winner = masks.parcel_id.values.astype(int) - 1
    assert (winner < 0).any()
    wanted = by_shapely(np.asarray(parcels.geometry.array), winner, grid(40).affine)
    np.testing.assert_allclose(masks.distance.values, wanted, rtol=1e-6, atol=1e-5)


def distances(labels: gpd.GeoDataFrame, geobox: GeoBox) -> np.ndarray:
    return np.asarray(rasterize(labels, geobox, layers=["distance"])["distance"].values)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32632", "EPSG:3035"])
@pytest.mark.parametrize("hole", [False, True])
def test_a_boundary_far_outside_of_the_grid_is_where_it_is_in_any_crs(crs: str, hole: bool) -> None:
    # Much larger than the grid: in another CRS most of it is cut off, and the knife leaves no boundary.
    land = shapely.box(450_000, 5_350_000, 551_000, 5_451_000)
    lake = shapely.box(497_000, 5_400_400, 498_000, 5_400_900)
    shape = shapely.segmentize(land - lake if hole else land, 500)
    labels = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[shape], crs="EPSG:32631")
    near = GeoBox((100, 100), Affine(10, 0, 500_000, 0, -10, 5_401_000), "EPSG:32631")
    wanted = by_shapely(np.array([shape]), np.zeros((100, 100), int), near.affine)
    assert wanted.max() > (2_900 if hole else 50_000)
    np.testing.assert_allclose(distances(labels.to_crs(crs), near), wanted, rtol=1e-5)


def test_straight_edges_in_degrees_are_curves_also_far_from_the_grid() -> None:
    belt = shapely.box(1, 47, 5, 49)
    labels = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[belt], crs=4326)
    near = GeoBox((20, 20), Affine(100, 0, 499_000, 0, -100, 5_420_000), "EPSG:32631")
    dense = np.asarray(gpd.GeoSeries([shapely.segmentize(belt, 1e-3)], crs=4326).to_crs(32631).array)
    wanted = by_shapely(dense, np.zeros((20, 20), int), near.affine)
    chord = by_shapely(np.asarray(labels.to_crs(32631).geometry.array), np.zeros((20, 20), int), near.affine)
    assert abs(chord - wanted).max() > 500
    np.testing.assert_allclose(distances(labels, near), wanted, rtol=1e-5)


def test_a_wider_grid_gives_the_same_distances() -> None:
    rng = np.random.default_rng(3)
    corners = rng.uniform(-30_000, 30_000, (12, 2)) + np.array([500_000, 5_400_000])
    hull = shapely.convex_hull(shapely.multipoints(corners))
    shapes = np.array([hull, shapely.box(499_000, 5_390_000, 500_500, 5_400_300)])
    labels = gpd.GeoDataFrame({"ground_truth": [1, 2]}, geometry=shapes, crs="EPSG:32631")
    labels = labels.set_geometry(labels.segmentize(300)).to_crs(4326)
    small = GeoBox((30, 30), Affine(10, 0, 500_000, 0, -10, 5_400_500), "EPSG:32631")
    wide = GeoBox((330, 330), Affine(10, 0, 498_500, 0, -10, 5_402_000), "EPSG:32631")
    inner = distances(labels, wide)[150:180, 150:180]
    assert np.isfinite(inner).all()
    np.testing.assert_allclose(distances(labels, small), inner, rtol=1e-5, atol=1e-3)


def test_real_corine_in_degrees_is_as_far_as_in_metres(real: Path) -> None:
    given = gpd.read_file(real / "corine" / "lanjaron.gpkg", layer="clc")
    given = given.assign(ground_truth=given["CODE_18"].astype(int))
    degrees = given.set_geometry(given.force_2d().segmentize(20)).to_crs(4326)
    metres = degrees.to_crs(32630)
    x, y = metres.union_all().representative_point().coords[0]
    near = GeoBox((40, 40), Affine(10, 0, x - 200, 0, -10, y + 200), "EPSG:32630")
    wanted = rasterize(metres, near, layers=["parcel_id", "distance"])
    ours = rasterize(degrees, near, layers=["parcel_id", "distance"])
    winner = wanted["parcel_id"].values.astype(int) - 1
    order = np.argsort(parcel_numbers(metres)["number"].to_numpy())
    by_hand = by_shapely(np.asarray(metres.geometry.array)[order], winner, near.affine)
    assert np.array_equal(np.isfinite(ours["distance"]), np.isfinite(wanted["distance"]))
    np.testing.assert_allclose(ours["distance"], by_hand, rtol=1e-4, atol=0.01)


def test_a_boundary_whose_far_parts_have_no_place_on_the_grid_is_measured_where_it_has_one() -> None:
    # Half the Earth: most of it is out of reach of any UTM zone.
    half = shapely.Polygon([(-120, -80), (120, -80), (120, 48.5), (-120, 48.5)])
    labels = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[half], crs=4326)
    near = GeoBox((20, 20), Affine(100, 0, 499_000, 0, -100, 5_320_000), "EPSG:32631")
    coast = gpd.GeoSeries([shapely.segmentize(shapely.LineString([(0, 48.5), (6, 48.5)]), 1e-3)], crs=4326)
    wanted = by_lines(coast.to_crs(32631)[0], near.affine, (20, 20))
    np.testing.assert_allclose(distances(labels, near), wanted, rtol=1e-5)


def by_lines(line: shapely.Geometry, affine: Affine, shape: tuple[int, int]) -> np.ndarray:
    row, column = np.indices(shape) + 0.5
    return np.asarray(shapely.distance(line, shapely.points(affine.c + affine.a * column, affine.f + affine.e * row)))


def test_metres_are_metres_on_a_web_map_too() -> None:
    # At 60 degrees north a unit of EPSG:3857 is half a metre.
    square = shapely.box(500_000, 6_650_000, 500_400, 6_650_400)
    utm = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[shapely.segmentize(square, 10)], crs="EPSG:32631")
    web = utm.to_crs(3857)
    west, south, east, north = web.total_bounds
    masks = rasterize(
        web, GeoBox.from_bbox((west, south, east, north), "EPSG:3857", resolution=10), layers=["distance"]
    )
    assert float(masks["distance"].max()) == pytest.approx(200, rel=0.03)
