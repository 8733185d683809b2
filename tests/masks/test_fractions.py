"""Shares of pixels and patches by class: against shapely, and against themselves at another size."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from parcels_kit import CRS, LEFT, TOP, grid, lattice, pixel_boxes
from shapes_kit import blobs, moved

from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.grids import grid_of
from deepsentinel.legend import Legend, LegendClass, corine
from deepsentinel.masks import claims, rasterize
from deepsentinel.masks.fractions import class_fractions, label_vector

SIZE_M = 160.0


def overlapping(seed: int, classes: int = 3) -> gpd.GeoDataFrame:
    shapes = moved(blobs(seed, 18, SIZE_M), LEFT, TOP - SIZE_M)
    return gpd.GeoDataFrame({"ground_truth": np.arange(len(shapes)) % classes + 1}, geometry=shapes, crs=CRS)


def coarser(share: np.ndarray, times: int) -> np.ndarray:
    """Mean of `times` x `times` pixels."""
    layers, rows, columns = share.shape
    return share.reshape(layers, rows // times, times, columns // times, times).mean(axis=(2, 4), dtype="float64")


@pytest.mark.parametrize("seed", range(4))
def test_each_class_covers_what_its_union_covers(seed: int) -> None:
    labels = overlapping(seed)
    share = class_fractions(labels, grid(16))
    assert share["class"].values.tolist() == [1, 2, 3]
    for code in (1, 2, 3):
        union = shapely.union_all(labels.geometry[labels.ground_truth == code])
        wanted = shapely.area(shapely.intersection(union, pixel_boxes(grid(16)))) / 100
        np.testing.assert_allclose(share.sel({"class": code}).values, wanted, atol=1e-6)
    assert share.values.min() >= 0
    assert share.values.max() <= 1
    assert share.sum("class").max() > 1, "different classes on the same ground are both told"


def test_parcels_side_by_side_never_sum_to_more_than_the_pixel() -> None:
    total = class_fractions(lattice(12, size_m=SIZE_M, step_m=4.3), grid(16)).values.sum(axis=0, dtype="float64")
    assert total.max() <= 1 + 1e-6
    # They leave no gap either.
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("crs", [CRS, "EPSG:4326", "EPSG:3035"])
def test_fine_pixels_add_up_to_coarse_ones(crs: str) -> None:
    # A field of kilometres, whose edges are curves on the grid when they are straight elsewhere.
    far = shapely.Polygon([(LEFT - 8920, TOP - 3080), (LEFT + 9080, TOP + 2920), (LEFT + 9e3, TOP - 9e3)])
    labels = overlapping(7).to_crs(crs)
    labels.loc[len(labels)] = {"ground_truth": 2, "geometry": gpd.GeoSeries([far], crs=CRS).to_crs(crs)[0]}
    coarse = class_fractions(labels, grid(16))
    fine = class_fractions(labels, grid(16), resolution=2.5)
    assert fine.shape == (3, 64, 64)
    assert 0 < coarse.sel({"class": 2}).mean() < 1
    np.testing.assert_allclose(coarser(fine.values, 4), coarse.values, atol=1e-6)


def test_row_order_does_not_matter() -> None:
    labels = overlapping(3)
    xr.testing.assert_identical(
        class_fractions(labels, grid(16)), class_fractions(labels.sample(frac=1, random_state=1), grid(16))
    )


def test_blocks_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = overlapping(5)
    whole = class_fractions(labels, grid(16), resolution=2.5)
    monkeypatch.setattr(claims, "BLOCK_PX", 23)
    np.testing.assert_allclose(class_fractions(labels, grid(16), resolution=2.5), whole, atol=1e-7)


def test_where_a_class_covers_most_is_where_the_class_map_has_it() -> None:
    labels = lattice(9, size_m=SIZE_M)
    share = class_fractions(labels, grid(16))
    over_half = share.max("class") > 0.5
    largest = share["class"].values[share.argmax("class")]
    # A class may win with several small parcels where the class map takes the one largest; not with more than half
    # in one piece.
    alone = rasterize(labels, grid(16)).coverage.values > 0.5
    assert alone.sum() > 100
    assert over_half.values[alone].all()
    np.testing.assert_array_equal(largest[alone], rasterize(labels, grid(16)).class_map.values[alone])


def test_it_lies_on_the_grid_of_the_patch_and_carries_its_legend() -> None:
    legend = Legend("crops", (LegendClass(1, "rye", "#112233"), LegendClass(2, "oats", "#445566")))
    labels = overlapping(1, classes=2)
    masks = rasterize(labels, grid(16), legend=legend)
    share = class_fractions(labels, masks, legend=legend)
    merged = xr.merge([masks, share], join="exact", compat="no_conflicts")
    assert merged.class_fraction.dims == ("class", "y", "x")
    assert share.class_name.values.tolist() == ["rye", "oats"]
    assert Legend.from_attrs(share["class"].attrs) == legend
    assert grid_of(share) == grid(16)


def test_classes_come_in_the_order_asked_for_and_absent_ones_are_nought() -> None:
    labels = overlapping(2)
    every = class_fractions(labels, grid(16))
    legend = {1: "rye", 2: "oats", 3: "flax", 99: "hemp"}
    for classes in ([3, 99, 1], ["flax", "hemp", "rye"], ["flax", 99, " rye "], np.array([3, 99, 1])):
        some = class_fractions(labels, grid(16), classes=classes, legend=legend)
        assert some["class"].values.tolist() == [3, 99, 1]
        assert some.class_name.values.tolist() == ["flax", "hemp", "rye"]
        assert not some[1].any()
        np.testing.assert_array_equal(some.values[[2, 0]], every.values[[0, 2]])
    assert class_fractions(labels, grid(16), classes="flax", legend=legend)["class"].values.tolist() == [3]


@pytest.mark.parametrize("unknown", [99, "hemp", 0])
def test_a_class_that_nobody_knows_is_refused_with_those_there_are(unknown: Any) -> None:
    for verb in (class_fractions, label_vector):
        with pytest.raises(InputError, match=rf"{unknown!r} is in neither .*1 1, 2 2, 3 3.*legend="):
            verb(overlapping(2), grid(16), classes=[1, unknown])


def test_a_name_of_two_classes_is_no_class() -> None:
    legend = {1: "grass", 2: "rye"}
    labels = overlapping(2, classes=2)
    assert label_vector(labels, grid(16), classes=["grass"], legend=legend).index.tolist() == [1]
    twins = Legend("twins", (LegendClass(1, "grass", "#00ff00"), LegendClass(2, "grass", "#00aa00")))
    with pytest.raises(InputError, match=r"'grass' is the name of \[1, 2\]; give its code"):
        class_fractions(labels, grid(16), classes=["grass"], legend=twins)


def test_the_classes_of_the_whole_table_are_told_and_no_others() -> None:
    labels = lattice(4, size_m=SIZE_M)
    corner = class_fractions(labels, grid(4), legend={code: f"crop {code}" for code in range(1, 94)})
    assert len(np.unique(rasterize(labels, grid(4)).class_map)) < 9
    assert corner["class"].values.tolist() == list(range(1, 10)), "also those that are far from the grid"
    vector = label_vector(labels, grid(4), legend={code: f"crop {code}" for code in range(1, 94)})
    assert len(vector) == 93
    np.testing.assert_allclose(vector.share[corner["class"].values], corner.mean(("y", "x")), atol=1e-6)
    empty = labels.iloc[:0]
    with pytest.warns(DeepSentinelWarning, match="empty"):
        assert class_fractions(empty, grid(4), legend={1: "rye", 2: "oats"}).shape == (2, 4, 4)
    zeros = labels.assign(ground_truth=labels.ground_truth - 1)
    with warnings.catch_warnings():
        # There is no background here that class 0 could be mistaken for.
        warnings.simplefilter("error", DeepSentinelWarning)
        shares, vector = class_fractions(zeros, grid(4)), label_vector(zeros, grid(4))
    assert shares["class"].values.tolist() == vector.index.tolist() == list(range(9))
    np.testing.assert_array_equal(shares, class_fractions(labels, grid(4)))


def test_class_0_is_the_one_that_is_asked_for() -> None:
    west, east = shapely.box(LEFT, TOP - 40, LEFT + 10, TOP), shapely.box(LEFT + 10, TOP - 40, LEFT + 40, TOP)
    labels = gpd.GeoDataFrame({"ground_truth": [0, 1]}, geometry=[west, east], crs=CRS)
    assert label_vector(labels, grid(4), classes=[0, 1])["share"].tolist() == [0.25, 0.75]
    assert class_fractions(labels, grid(4), classes=[1, 0]).mean(("y", "x")).values.tolist() == [0.75, 0.25]


def test_a_coarser_level_counts_common_ground_of_its_classes_once() -> None:
    square = shapely.box(LEFT, TOP - 40, LEFT + 40, TOP)
    labels = gpd.GeoDataFrame({"ground_truth": [311, 312, 211]}, geometry=[square, square, square], crs=CRS)
    share = class_fractions(labels, grid(4), level=1, legend=corine())
    assert share["class"].values.tolist() == [2, 3]
    np.testing.assert_array_equal(share.values[:, 0, 0], [1, 1])
    every = class_fractions(labels, grid(4), level=1, legend="corine", classes=corine(1).codes)
    assert every["class"].values.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(every.values[:, 0, 0], [0, 1, 1, 0, 0])


def test_texts_are_classes() -> None:
    labels = overlapping(2).assign(crop=lambda table: table.ground_truth.map({1: "rye", 2: "oats", 3: "flax"}))
    share = class_fractions(labels, grid(16), value="crop")
    assert share.class_name.values.tolist() == ["flax", "oats", "rye"]
    np.testing.assert_array_equal(share.values, class_fractions(labels, grid(16)).values[::-1])


def test_lines_cover_their_width() -> None:
    line = shapely.LineString([(LEFT - 100, TOP - 20), (LEFT + 100, TOP - 20)])
    road = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[line], crs=CRS)
    share = class_fractions(road, grid(4), width_m=6)
    np.testing.assert_allclose(share.values[0, :, 0], [0, 0.3, 0.3, 0], atol=1e-6)


def test_what_cannot_be_done_is_said() -> None:
    labels = overlapping(0)
    with pytest.raises(InputError, match=r"values to regress.*astype\('Int64'\)"):
        class_fractions(labels.assign(ground_truth=0.5), grid(16))
    with pytest.raises(InputError, match=r"5041 different numbers, which are hardly classes"):
        class_fractions(lattice(71, size_m=SIZE_M), grid(16), value="id")
    with pytest.raises(InputError, match=r"holds 3, which the legend 'two'"):
        class_fractions(labels, grid(16), legend=Legend.of_codes([1, 2], name="two"))
    with pytest.raises(InputError, match="twice"):
        class_fractions(labels, grid(16), classes=[1, 1])
    for wrong in ([], [1.5], [True], [None]):
        with pytest.raises(InputError, match="neither codes nor names"):
            class_fractions(labels, grid(16), classes=wrong)
    with pytest.raises(InputError, match=r"2 classes on 40000 x 40000 pixels take 12\.8 GB.*Name those you need"):
        class_fractions(labels, grid(40_000), classes=[1, 2])
    with pytest.raises(InputError, match=r"does not divide"):
        class_fractions(labels, grid(16), resolution=3)


def test_a_grid_elsewhere_is_all_nought_with_a_warning() -> None:
    with pytest.warns(DeepSentinelWarning, match="km away"):
        share = class_fractions(overlapping(0), grid(16, left=LEFT + 50_000))
    assert share.shape == (3, 16, 16)
    assert not share.any()


@pytest.mark.parametrize("seed", range(3))
def test_the_vector_holds_the_share_of_the_patch(seed: int) -> None:
    labels = overlapping(seed)
    vector = label_vector(labels, grid(16))
    patch = shapely.box(LEFT, TOP - SIZE_M, LEFT + SIZE_M, TOP)
    for code in (1, 2, 3):
        union = shapely.union_all(labels.geometry[labels.ground_truth == code])
        assert vector.share[code] == pytest.approx(union.intersection(patch).area / patch.area, abs=1e-8)
    np.testing.assert_allclose(vector.share, class_fractions(labels, grid(16)).mean(("y", "x")), atol=1e-6)


def test_a_class_is_present_from_the_smallest_share_on() -> None:
    # 160 m x 160 m: the strip is a hundredth of it to the last digit.
    strips = [shapely.box(LEFT, TOP - 1.6, LEFT + SIZE_M, TOP), shapely.box(LEFT, TOP - 60, LEFT + 0.1, TOP - 50)]
    labels = gpd.GeoDataFrame({"ground_truth": [4, 8]}, geometry=strips, crs=CRS)
    legend = Legend.of_codes([2, 4, 8])
    present = [label_vector(labels, grid(16), min_share=s, legend=legend).present.tolist() for s in (0, 0.0099, 0.0101)]
    assert present == [[False, True, True], [False, True, False], [False, False, False]]


def test_vectors_of_all_patches_have_one_length() -> None:
    labels = lattice(4, size_m=SIZE_M)
    first, second = (label_vector(labels, grid(4, left=LEFT + shift)) for shift in (0, 80))
    assert first.index.equals(second.index)
    assert len(first) == 9
    assert 0 < first.present.sum() < 9
    assert not first.present.equals(second.present)


@pytest.mark.parametrize("wrong", [-0.1, 1.5, True, "1 %"])
def test_a_share_is_a_number_up_to_one(wrong: object) -> None:
    with pytest.raises(InputError, match="min_share"):
        label_vector(overlapping(0), grid(16), min_share=wrong)


def test_real_corine_fills_its_raster(real: Path) -> None:
    """Its polygons leave no gap, so inside the piece the shares sum to 1, and most of a pixel is the raster's class."""
    labels = gpd.read_file(real / "corine" / "lanjaron.gpkg", layer="clc")
    labels["ground_truth"] = labels.CODE_18.astype(int)
    place = shapely.union_all(labels.geometry)
    x, y = place.representative_point().coords[0]
    left, top = round(x / 100) * 100 - 1000.0, round(y / 100) * 100 + 1000.0
    geobox = type(grid(1))((80, 80), grid(1, 25, left=left, top=top).affine, str(labels.crs))
    share = class_fractions(labels, geobox, legend=corine())
    assert share["class"].values.tolist() == sorted(set(labels.ground_truth))
    inside = shapely.contains(place, pixel_boxes(geobox))
    assert inside.mean() > 0.5
    np.testing.assert_allclose(share.sum("class").values[inside], 1, atol=1e-5)
