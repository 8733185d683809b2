"""Boxes and masks of objects: against shapely's bounds and areas, and in the form that detectors take."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from parcels_kit import CRS, LEFT, TOP, grid, lattice, pixel_boxes
from shapes_kit import blobs, moved

from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.legend import Legend, corine
from deepsentinel.masks.objects import boxes

SIZE_M = 160.0
PATCH = shapely.box(LEFT, TOP - SIZE_M, LEFT + SIZE_M, TOP)


def scattered(seed: int) -> gpd.GeoDataFrame:
    shapes = moved(blobs(seed, 18, SIZE_M), LEFT, TOP - SIZE_M)
    columns = {"ground_truth": np.arange(len(shapes)) % 3 + 1, "id": np.arange(len(shapes)) + 100}
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=CRS)


def in_pixels(bounds: np.ndarray) -> np.ndarray:
    left, bottom, right, top = bounds.T
    return np.stack([left - LEFT, TOP - top, right - LEFT, TOP - bottom], axis=1) / 10


@pytest.mark.parametrize("seed", range(4))
def test_boxes_are_the_bounds_of_what_lies_on_the_grid(seed: int) -> None:
    labels = scattered(seed)
    found = boxes(labels, grid(16))
    seen = shapely.intersection(labels.geometry.to_numpy(), PATCH)
    assert sorted(found.rows) == np.flatnonzero(shapely.area(seen) > 1e-6).tolist()
    np.testing.assert_allclose(found.boxes, in_pixels(shapely.bounds(seen[found.rows])), atol=1e-4)
    np.testing.assert_array_equal(found.ids, labels.id.to_numpy()[found.rows])
    np.testing.assert_array_equal(found.classes, labels.ground_truth.to_numpy()[found.rows])
    np.testing.assert_allclose(found.area_px, shapely.area(seen[found.rows]) / 100, rtol=1e-9)
    whole = labels.area.to_numpy()[found.rows]
    np.testing.assert_allclose(found.visible_share, shapely.area(seen[found.rows]) / whole, rtol=1e-9)
    assert (found.visible_share < 1).any()


@pytest.mark.parametrize("seed", range(4))
def test_masks_hold_the_pixels_that_are_covered_by_half(seed: int) -> None:
    labels = scattered(seed)
    found = boxes(labels, grid(16))
    masks = found.masks()
    shapes = labels.geometry.to_numpy()[found.rows]
    share = shapely.area(shapely.intersection(shapes[:, None, None], pixel_boxes(grid(16)))) / 100
    wanted = share >= np.minimum(0.5, share.max(axis=(1, 2), keepdims=True) - 1e-9)
    np.testing.assert_array_equal(masks.astype(bool), wanted)
    small = share.max(axis=(1, 2)) < 0.5
    assert small.any(), "an object smaller than a pixel is still seen"
    assert masks.sum(axis=(1, 2)).min() >= 1
    assert (masks.sum(axis=0) > 1).any(), "masks of labels that overlap do so too"


def test_instances_are_cut_to_their_pixels() -> None:
    found = boxes(scattered(0), grid(16))
    for item, dense in zip(found.instances, found.masks(), strict=True):
        rows, columns = np.nonzero(dense)
        assert (item.top, item.left) == (rows.min(), columns.min())
        assert item.mask.shape == (np.ptp(rows) + 1, np.ptp(columns) + 1)
        assert item.mask.dtype == bool


def test_a_target_is_what_torchvision_checks_for() -> None:
    target = boxes(scattered(2), grid(16), legend=Legend.of_codes([1, 3, 2, 9])).target()
    kinds = {name: (array.dtype.name, array.ndim) for name, array in target.items()}
    assert kinds == {
        "boxes": ("float32", 2),
        "labels": ("int64", 1),
        "masks": ("uint8", 3),
        "area": ("float32", 1),
        "iscrowd": ("int64", 1),
    }
    left, top, right, bottom = target["boxes"].T
    assert (right > left).all()
    assert (bottom > top).all()
    assert min(left.min(), top.min()) >= 0
    assert max(right.max(), bottom.max()) <= 16
    assert len({len(array) for array in target.values()}) == 1


def test_labels_count_from_one_in_the_order_of_the_legend() -> None:
    squares = [shapely.box(LEFT + 20 * n, TOP - 15, LEFT + 20 * n + 15, TOP) for n in range(3)]
    labels = gpd.GeoDataFrame({"ground_truth": [512, 111, 211]}, geometry=squares, crs=CRS)
    found = boxes(labels, grid(16), legend=corine())
    order = list(corine().codes)
    assert found.classes.tolist() == [111, 211, 512]
    assert found.target()["labels"].tolist() == [order.index(code) + 1 for code in (111, 211, 512)]


def test_the_thinnest_box_still_has_a_width() -> None:
    # Millimetres at the far edge, where float32 counts pixels in steps of a micrometre's worth, and beyond it.
    shapes = [
        shapely.box(LEFT + 9_999.9999, TOP - 5_000, LEFT + 10_050, TOP - 4_990),
        shapely.box(LEFT + 5_000, TOP - 10_300, LEFT + 5_010, TOP - 9_999.9999),
        shapely.box(LEFT + 7_000, TOP - 7_010, LEFT + 7_000.0001, TOP - 7_000),
    ]
    labels = gpd.GeoDataFrame({"ground_truth": [1, 2, 3]}, geometry=shapes, crs=CRS)
    found = boxes(labels, grid(1000))
    assert len(found) == 3
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert found.boxes.max() <= 1000


def test_small_and_cut_objects_can_be_left_out() -> None:
    labels = scattered(1)
    every = boxes(labels, grid(16))
    large = boxes(labels, grid(16), min_area_px=4)
    whole = boxes(labels, grid(16), min_visible_share=0.9)
    assert set(large.rows) == set(every.rows[every.area_px >= 4])
    assert set(whole.rows) == set(every.rows[every.visible_share >= 0.9])
    assert 0 < len(large) < len(every)
    assert 0 < len(whole) < len(every)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3035"])
def test_the_whole_of_a_label_is_known_in_any_crs(crs: str) -> None:
    # 90 km across: most of it is cut off before it is brought onto the grid.
    fields = [
        shapely.box(LEFT - 45_000, TOP - 90, LEFT + 45_000, TOP - 10),
        shapely.box(LEFT - 50, TOP, LEFT + 50, TOP - 50),
    ]
    labels = gpd.GeoDataFrame({"ground_truth": [1, 2]}, geometry=fields, crs=CRS)
    labels["geometry"] = labels.segmentize(500)
    found = boxes(labels.to_crs(crs), grid(16))
    np.testing.assert_allclose(found.visible_share, [160 / 90_000, 0.5], rtol=2e-3)
    np.testing.assert_allclose(found.boxes, [[0, 1, 16, 9], [0, 0, 5, 5]], atol=1e-3)


@pytest.mark.parametrize("crs", [CRS, "EPSG:4326"])
def test_the_whole_of_a_mended_collection_is_known_too(crs: str) -> None:
    field = shapely.segmentize(shapely.box(LEFT - 45_000, TOP - 90, LEFT + 45_000, TOP - 10), 500)
    mixed = shapely.GeometryCollection([field, shapely.LineString([(LEFT, TOP), (LEFT + 9, TOP)])])
    labels = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[mixed], crs=CRS)
    with pytest.warns(DeepSentinelWarning, match="repaired"):
        found = boxes(labels.to_crs(crs), grid(16))
    np.testing.assert_allclose(found.visible_share, [160 / 90_000], rtol=2e-3)


def test_the_whole_of_a_label_across_the_antimeridian_is_known() -> None:
    labels = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[shapely.box(179, -18, 181, -17)], crs=4326)
    x, y = gpd.GeoSeries([shapely.Point(180, -17.5)], crs=4326).to_crs(32701).get_coordinates().to_numpy()[0]
    found = boxes(labels, GeoBox((40, 40), Affine(500, 0, x - 10_000, 0, -500, y + 10_000), "EPSG:32701"))
    whole_km2 = 2 * 111.32 * np.cos(np.deg2rad(17.5)) * 110.66
    assert found.visible_share[0] == pytest.approx(400 / whole_km2, rel=0.01)


def test_row_order_does_not_matter() -> None:
    labels = scattered(3)
    first, second = (boxes(table, grid(16)) for table in (labels, labels.sample(frac=1, random_state=2)))
    np.testing.assert_array_equal(first.boxes, second.boxes)
    np.testing.assert_array_equal(first.ids, second.ids)
    np.testing.assert_array_equal(first.masks(), second.masks())


def test_finer_pixels_make_finer_masks_of_the_same_boxes() -> None:
    labels = scattered(0)
    coarse, fine = boxes(labels, grid(16)), boxes(labels, grid(16), resolution=2.5)
    np.testing.assert_allclose(fine.boxes, coarse.boxes * 4, atol=1e-4)
    areas = fine.masks().sum(axis=(1, 2)) * 6.25
    large = coarse.area_px > 10
    np.testing.assert_allclose(areas[large], coarse.area_px[large] * 100, rtol=0.1)


def test_south_up_grids_count_rows_from_their_first() -> None:
    geobox = grid(16)
    turned = geobox.flipy()
    labels = scattered(0)
    up, down = boxes(labels, geobox), boxes(labels, turned)
    np.testing.assert_allclose(down.boxes[:, [1, 3]], 16 - up.boxes[:, [3, 1]], atol=1e-4)
    np.testing.assert_array_equal(down.masks()[:, ::-1], up.masks())


def test_the_table_lays_boxes_on_the_ground() -> None:
    labels = lattice(4, size_m=SIZE_M)
    found = boxes(labels, grid(16))
    table = found.table
    assert table.crs == labels.crs
    np.testing.assert_allclose(table.bounds, labels.iloc[found.rows].bounds, atol=1e-3)
    assert table.id.tolist() == labels.id.iloc[found.rows].tolist()
    assert repr(found).startswith("Objects(16 on 16 x 16 pixels: 2 1,")


def test_an_empty_patch_has_no_objects() -> None:
    with pytest.warns(DeepSentinelWarning, match="km away"):
        found = boxes(scattered(0), grid(16, left=LEFT + 50_000))
    assert len(found) == 0
    target = found.target()
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, 16, 16)
    assert len(found.table) == 0


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(InputError, match="values to regress"):
        boxes(scattered(0).assign(ground_truth=0.5), grid(16))
    with pytest.raises(InputError, match="min_visible_share"):
        boxes(scattered(0), grid(16), min_visible_share=2)
    with pytest.raises(InputError, match="min_area_px"):
        boxes(scattered(0), grid(16), min_area_px=-1)
