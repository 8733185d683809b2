"""Which polygon covers which share of which pixel, against shapely's intersections and GDAL's pixel centres."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from parcels_kit import grid, lattice, pixel_boxes

from deepsentinel.errors import InputError
from deepsentinel.masks.coverage import Claims, claims

# North up, as images are; south up; and columns that run westwards.
AFFINES = (Affine(10, 0, 0, 0, -10, 200), Affine(10, 0, 0, 0, 10, 0), Affine(-5, 0, 100, 0, -20, 400))


def boxes_of(affine: Affine, shape: tuple[int, int]) -> np.ndarray:
    column, row = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]))
    x, y = affine.c + affine.a * column, affine.f + affine.e * row
    return np.asarray(shapely.box(x, y, x + affine.a, y + affine.e))


def shares_by_shapely(shapes: np.ndarray, affine: Affine, shape: tuple[int, int]) -> np.ndarray:
    """(polygon, y, x), every polygon laid over every pixel."""
    boxes = boxes_of(affine, shape)
    return np.asarray(shapely.area(shapely.intersection(shapes[:, None, None], boxes))) / abs(affine.a * affine.e)


def dense(found: Claims, count: int, shape: tuple[int, int]) -> np.ndarray:
    full = np.zeros((count, shape[0] * shape[1]))
    full[found.polygon, found.cell] = found.share
    assert np.count_nonzero(full) == len(found.share), "one claim for each polygon and pixel"
    return full.reshape(count, *shape)


def stars(rng: np.random.Generator, count: int, size: float) -> np.ndarray:
    """Spiky polygons, some with a hole or in several parts, some far larger or smaller than the grid."""
    shapes = []
    for number in range(count):
        corners = int(rng.integers(3, 24))
        turn = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radius = rng.uniform(0.1, 1, corners) * size * rng.choice([0.01, 0.2, 0.6, 3.0])
        centre = rng.uniform(-0.3, 1.3, 2) * size
        star = shapely.Polygon(np.c_[np.cos(turn), np.sin(turn)] * radius[:, None] + centre)
        star = shapely.make_valid(star, method="structure", keep_collapsed=False)
        if number % 3 == 0:
            star = shapely.difference(star, shapely.Point(centre).buffer(radius.min() * 0.7))
        if number % 4 == 0:
            star = shapely.union(star, shapely.box(*(centre + size / 2), *(centre + size * 0.8)))
        if number % 5 == 0:
            star = shapely.reverse(star)
        if not star.is_empty:
            shapes.append(star)
    return np.array(shapes)


@pytest.mark.parametrize("affine", AFFINES, ids=("north up", "south up", "westwards"))
def test_every_pixel_of_any_shape_is_what_shapely_says(affine: Affine) -> None:
    shapes = stars(np.random.default_rng(1), 120, 200)
    shape = (20, 20)
    assert (
        abs(dense(claims(shapes, affine, shape), len(shapes), shape) - shares_by_shapely(shapes, affine, shape)).max()
        < 1e-9
    )


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 15), st.integers(-3, 15)), min_size=3, max_size=9), st.sampled_from([1, 2, 3])
)
@example([(8, 8), (-1, 2), (14, 12), (0, 0), (10, 9)], 3)
def test_corners_and_edges_on_the_lines_between_pixels(corners: list[tuple[int, int]], part: int) -> None:
    valid = shapely.make_valid(shapely.Polygon(np.array(corners) / part), method="structure", keep_collapsed=False)
    # Parts thinner than a number is exact are nothing; shapely cuts a whole corner off a pixel with them.
    parts = shapely.get_parts(valid)
    polygon = shapely.multipolygons(parts[shapely.area(parts) > 1e-9])
    if polygon.is_empty:
        return
    shapes, affine, shape = np.array([polygon]), Affine(1, 0, 0, 0, -1, 9), (9, 11)
    assert abs(dense(claims(shapes, affine, shape), 1, shape) - shares_by_shapely(shapes, affine, shape)).max() < 1e-9


def check_boundary_pixels(shapes: np.ndarray, geobox: object, rng: np.random.Generator, count: int = 500) -> None:
    found = claims(shapes, geobox.affine, tuple(geobox.shape))  # type: ignore[attr-defined]
    chosen = rng.choice(np.flatnonzero(found.share < 1), count, replace=False)
    boxes = pixel_boxes(geobox).ravel()[found.cell[chosen]]  # type: ignore[arg-type]
    area = shapely.area(shapely.intersection(shapes[found.polygon[chosen]], boxes))
    assert abs(area / shapely.area(boxes[0]) - found.share[chosen]).max() < 1e-9
    # And nothing is missed: what the claims of a polygon sum to is its area within the grid.
    inside = shapely.area(shapely.intersection(shapes, whole_grid(geobox)))
    total = np.bincount(found.polygon, found.share, minlength=len(shapes)) * shapely.area(boxes[0])
    assert np.allclose(total, inside, rtol=1e-9, atol=1e-6)


def whole_grid(geobox: object) -> shapely.Geometry:
    a, (rows, columns) = geobox.affine, geobox.shape  # type: ignore[attr-defined]
    return shapely.box(a.c, a.f + a.e * rows, a.c + a.a * columns, a.f)


def test_500_boundary_pixels_of_parcels_on_a_tile() -> None:
    parcels = lattice(20, size_m=4000, step_m=20)
    check_boundary_pixels(np.asarray(parcels.geometry), grid(400), np.random.default_rng(0))


def test_500_boundary_pixels_of_corine(real: Path) -> None:
    from odc.geo.geobox import GeoBox

    with rasterio.open(real / "corine" / "lanjaron_25m.tif") as raster:
        geobox = GeoBox(raster.shape, raster.transform, raster.crs)
    polygons = gpd.read_file(real / "corine" / "lanjaron.gpkg", layer="clc")
    check_boundary_pixels(np.asarray(polygons.geometry.make_valid()), geobox, np.random.default_rng(0))


def test_parcels_that_fill_a_square_sum_to_one_in_each_pixel() -> None:
    parcels = lattice(16, size_m=4000, step_m=35)
    found = claims(np.asarray(parcels.geometry), grid(400).affine, (400, 400))
    assert abs(np.bincount(found.cell, found.share, minlength=160_000) - 1).max() < 1e-9


def test_the_middle_of_a_pixel_is_inside_where_gdal_says_so() -> None:
    shapes = stars(np.random.default_rng(2), 60, 200)
    affine, shape = AFFINES[0], (20, 20)
    found = claims(shapes, affine, shape, centre=True)
    assert found.centre is not None
    ours = np.zeros((len(shapes), 400), dtype=bool)
    ours[found.polygon, found.cell] = found.centre
    theirs = [rasterio.features.rasterize([polygon], shape, transform=affine).ravel() for polygon in shapes]
    assert np.array_equal(ours, np.array(theirs, dtype=bool))
    assert not np.array_equal(ours, dense(found, len(shapes), shape).reshape(len(shapes), -1) > 0)


def test_a_middle_on_an_edge_belongs_to_exactly_one_of_two_neighbours() -> None:
    xs, ys = np.arange(0, 41, 5.0), np.arange(0, 41, 5.0)
    shapes = np.array([shapely.box(x, y, x + 5, y + 5) for x in xs[:-1] for y in ys[:-1]])
    found = claims(shapes, Affine(10, 0, 0, 0, -10, 40), (4, 4), centre=True)
    assert found.centre is not None
    assert np.bincount(found.cell[found.centre], minlength=16).tolist() == [1] * 16


def test_no_polygon_depends_on_the_others_nor_on_the_block_it_is_counted_in() -> None:
    shapes = stars(np.random.default_rng(3), 40, 200)
    affine, shape = AFFINES[0], (20, 20)
    together = dense(claims(shapes, affine, shape), len(shapes), shape)
    for number in range(0, len(shapes), 7):
        alone = dense(claims(shapes[number : number + 1], affine, shape), 1, shape)
        assert np.array_equal(alone[0], together[number])
    parcels = np.asarray(lattice(20, size_m=2000, jitter=0.4).geometry)
    affine_there = grid(200).affine
    whole = claims(parcels, affine_there, (200, 200))
    for number in range(3, 400, 44):
        alone_there = claims(parcels[number : number + 1], affine_there, (200, 200))
        assert np.array_equal(alone_there.share, whole.share[whole.polygon == number])
    # Close to the corner of the grid, where numbers have the most digits to lose.
    corners = np.random.default_rng(4).uniform(0, 1, (300, 3, 2)) ** 4
    slivers, corner = shapely.polygons(corners), Affine(1, 0, 0, 0, 1, 0)
    whole = claims(slivers, corner, (1, 1))
    alone_shares = [claims(slivers[number : number + 1], corner, (1, 1)).share for number in range(300)]
    assert np.array_equal(np.concatenate(alone_shares), whole.share)
    blocks = np.zeros_like(together)
    for row in (0, 8, 16):
        for column in (0, 8, 16):
            size = (min(8, 20 - row), min(8, 20 - column))
            part = dense(claims(shapes, affine, size, origin=(row, column)), len(shapes), size)
            blocks[:, row : row + size[0], column : column + size[1]] = part
    assert abs(blocks - together).max() < 1e-9


def test_a_chunk_of_any_size_gives_the_same_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = np.asarray(lattice(8, size_m=1000).geometry)
    whole = claims(shapes, grid(100).affine, (100, 100), centre=True)
    monkeypatch.setattr("deepsentinel.masks.coverage.CHUNK_PIXELS", 300)
    parts = claims(shapes, grid(100).affine, (100, 100), centre=True)
    for name in ("polygon", "cell", "share", "centre"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name
    assert whole.polygon.dtype == np.int32
    assert whole.cell.dtype == np.int64


def test_a_pixel_that_lacks_a_rounding_error_is_covered_wholly() -> None:
    for lack, whole in ((5e-10, True), (5e-9, False)):
        found = claims(np.array([shapely.box(0, 0, 10, 10 - 10 * lack)]), Affine(10, 0, 0, 0, -10, 10), (1, 1))
        assert (found.share[0] == 1) is np.bool_(whole)
        assert abs(found.share[0] - (1 - lack)) < 1e-9


def test_a_touch_is_no_claim_and_nothing_gives_nothing() -> None:
    affine = Affine(10, 0, 0, 0, -10, 20)
    beside = np.array([shapely.box(-10, 0, 0, 20), shapely.box(20, 0, 30, 20), shapely.box(0, 20, 20, 30)])
    for shapes in (beside, beside[:0], np.array([shapely.Polygon()])):
        found = claims(shapes, affine, (2, 2), centre=True)
        assert [len(found.polygon), len(found.cell), len(found.share)] == [0, 0, 0]
        assert found.centre is not None


def test_what_is_no_polygon_and_a_rotated_grid_are_refused() -> None:
    with pytest.raises(InputError, match="linestring"):
        claims(np.array([shapely.LineString([(0, 0), (9, 9)])]), AFFINES[0], (2, 2))
    with pytest.raises(InputError, match="rotated"):
        claims(np.array([shapely.box(0, 0, 5, 5)]), Affine(10, 1, 0, 1, -10, 0), (2, 2))
