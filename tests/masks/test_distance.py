"""Distances to the boundary of the own polygon: against shapely, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from parcels_kit import LEFT, TOP, grid, lattice
from shapes_kit import blobs, moved

from deepsentinel.masks import rasterize
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
