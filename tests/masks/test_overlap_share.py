"""Ground claimed more than once: against the faces of the plane, and from planted overlaps."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from parcels_kit import CRS, LEFT, TOP, grid, lattice, pixel_boxes
from shapes_kit import blobs, cover_counts, moved, share_of_pixels

from deepsentinel.masks import rasterize
from deepsentinel.masks.overlap import covered_share, overlap_share, polygons_in, repeated

SIZE_M = 160.0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("resolution", [10.0, 32.0])
def test_ground_under_several_polygons_is_that_of_the_faces_held_by_several(seed: int, resolution: float) -> None:
    shapes = moved(blobs(seed, 14, SIZE_M), LEFT, TOP - SIZE_M)
    geobox = grid(int(SIZE_M / resolution), resolution)
    faces, counts = cover_counts(shapes)
    assert (counts > 2).any(), "some ground lies under three"
    pixels = pixel_boxes(geobox)
    wanted = share_of_pixels(faces[counts > 1], pixels)
    assert 0 < wanted.mean() < 1
    np.testing.assert_allclose(overlap_share(shapes, geobox.affine, pixels.shape), wanted, atol=1e-7)
    covered = share_of_pixels(faces[counts > 0], pixels)
    np.testing.assert_allclose(covered_share(shapes, geobox.affine, pixels.shape), covered, atol=1e-8)


def test_south_up_is_north_up_turned_over() -> None:
    shapes = moved(blobs(1, 14, SIZE_M), LEFT, TOP - SIZE_M)
    up = overlap_share(shapes, Affine(10, 0, LEFT, 0, -10, TOP), (16, 16))
    down = overlap_share(shapes, Affine(10, 0, LEFT, 0, 10, TOP - SIZE_M), (16, 16))
    assert up.any()
    np.testing.assert_allclose(down[::-1], up, atol=1e-7)


@pytest.mark.parametrize("resolution", [10.0, 2.5, 0.5])
def test_parcels_that_abut_share_nothing(resolution: float) -> None:
    parcels = lattice(7, size_m=100, step_m=6.7).geometry.array
    # Corners of one parcel on the edges of its neighbour, as far as coordinates of millions can lie on an edge.
    parcels = np.asarray([shapely.segmentize(shape, 3.1 + number % 3) for number, shape in enumerate(parcels)])
    assert shapely.area(repeated(parcels)).sum() > 0, "rounding leaves slivers, and these must not count"
    share = overlap_share(parcels, grid(1, resolution).affine, (int(100 / resolution), int(100 / resolution)))
    np.testing.assert_array_equal(share, 0)


@pytest.mark.parametrize("depth_m", [0.02, 0.5, 14.0])
def test_a_planted_overlap_is_found_where_it_is_and_nowhere_else(depth_m: float) -> None:
    parcels = np.asarray(lattice(5, size_m=200, jitter=0.1).geometry.array)
    # Parcel 12, in the middle, reaches over the border of 13.
    parcels[12] = shapely.union(parcels[12], shapely.buffer(parcels[12], depth_m).intersection(parcels[13]))
    planted = shapely.intersection(parcels[12], parcels[13])
    geobox = grid(20)
    share = overlap_share(parcels, geobox.affine, (20, 20))
    wanted = shapely.area(shapely.intersection(planted, pixel_boxes(geobox))) / 100
    assert planted.area == pytest.approx(40 * depth_m, rel=0.5)
    np.testing.assert_allclose(share, wanted, atol=1e-7)
    np.testing.assert_array_equal(share[wanted == 0], 0)


def test_ground_counts_once_however_many_claim_it() -> None:
    stack = [shapely.box(LEFT, TOP - 20, LEFT + 15, TOP)] * 5 + [shapely.box(LEFT + 10, TOP - 20, LEFT + 20, TOP)] * 2
    np.testing.assert_allclose(overlap_share(np.array(stack), grid(2).affine, (2, 2)), [[1, 1], [1, 1]])
    np.testing.assert_allclose(overlap_share(np.array(stack[4:6]), grid(2).affine, (2, 2)), [[0, 0.5], [0, 0.5]])


def test_a_window_sees_what_the_whole_grid_sees_there() -> None:
    shapes = moved(blobs(3, 14, SIZE_M), LEFT, TOP - SIZE_M)
    whole = overlap_share(shapes, grid(16).affine, (16, 16))
    window = overlap_share(shapes, grid(1, left=LEFT + 40, top=TOP - 50).affine, (6, 7))
    assert whole[5:11, 4:11].any()
    np.testing.assert_allclose(window, whole[5:11, 4:11], atol=1e-7)


def test_one_that_lies_inside_another_is_all_overlap() -> None:
    inner = shapely.Point(LEFT + 40, TOP - 40).buffer(22)
    share = overlap_share(np.array([shapely.box(LEFT, TOP - 80, LEFT + 80, TOP), inner]), grid(8).affine, (8, 8))
    assert share.sum() * 100 == pytest.approx(inner.area, rel=1e-6)


def test_nothing_overlaps_nothing() -> None:
    np.testing.assert_array_equal(overlap_share(np.empty(0, dtype=object), grid(3).affine, (3, 3)), 0)
    alone = np.array([shapely.box(LEFT, TOP - 30, LEFT + 30, TOP)])
    np.testing.assert_array_equal(overlap_share(alone, grid(3).affine, (3, 3)), 0)


def test_the_layer_does_not_depend_on_the_order_of_the_rows() -> None:
    labels = gpd.GeoDataFrame(geometry=moved(blobs(4, 20, SIZE_M), LEFT, TOP - SIZE_M), crs=CRS)
    labels["ground_truth"] = np.arange(len(labels)) % 3 + 1
    shuffled = labels.sample(frac=1, random_state=0)
    first, second = (rasterize(table, grid(16), layers=("overlap",)).overlap.values for table in (labels, shuffled))
    assert first.any()
    np.testing.assert_array_equal(first, second)


def test_only_polygons_are_taken_out_of_what_borders_share() -> None:
    ring = shapely.LineString([(0, 0), (1, 1)])
    square, far = shapely.box(0, 0, 1, 1), shapely.box(5, 5, 6, 6)
    mixed = np.array([ring, shapely.GeometryCollection([ring, square, far]), shapely.MultiPolygon([square, far]), None])
    parts, of = polygons_in(mixed)
    assert of.tolist() == [1, 1, 2, 2]
    assert shapely.area(parts).tolist() == [1, 1, 1, 1]
