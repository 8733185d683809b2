"""What people hand in that is no label table, or not quite one: said, and survived where it can be."""

from __future__ import annotations

import json
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from parcels_kit import CRS, LEFT, grid, lattice

from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.legend import Legend, as_legend, corine
from deepsentinel.masks import parcel_numbers, rasterize
from deepsentinel.masks.fractions import class_fractions, label_vector
from deepsentinel.masks.objects import boxes
from deepsentinel.masks.report import label_report
from deepsentinel.masks.windows import parcel_sizes, parcel_window

GRID = GeoBox((6, 6), Affine(10, 0, 0, 0, -10, 60), CRS)
WEST, EAST = shapely.box(0, 0, 30, 60), shapely.box(30, 0, 60, 60)


def table(shapes: list[Any], classes: list[Any], **columns: Any) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame({"ground_truth": classes, **columns}, geometry=shapes, crs=CRS)


def test_labels_without_a_crs_are_refused() -> None:
    with pytest.raises(InputError, match=r"no CRS.*set_crs"):
        rasterize(gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[WEST]), GRID)


def test_labels_without_the_column_are_refused_with_the_columns_they_have() -> None:
    labels = gpd.GeoDataFrame({"CODE_18": ["312"], "AREA": [1.0]}, geometry=[WEST], crs=CRS)
    with pytest.raises(InputError, match=r"no column 'ground_truth'; they have CODE_18, AREA.*value='CODE_18'"):
        rasterize(labels, GRID)
    with pytest.raises(InputError, match="GeoDataFrame"):
        rasterize([WEST], GRID)  # type: ignore[arg-type]


def test_an_empty_table_is_all_background_and_says_so() -> None:
    for classes in ([1], ["wheat"]):
        with pytest.warns(DeepSentinelWarning, match="empty"):
            masks = rasterize(table([WEST], classes).iloc[:0], GRID)
        assert masks["class_map"].shape == (6, 6)
        assert not any(masks[name].any() for name in masks)


def test_collections_give_their_polygons_and_it_is_told() -> None:
    mixed = shapely.GeometryCollection([WEST, shapely.Point(50, 50)])
    with pytest.warns(DeepSentinelWarning, match="1 of 2 geometries were repaired.*collection"):
        masks = rasterize(table([EAST, mixed], [1, 2], id=[8, 9]), GRID)
    assert np.array_equal(masks["class_map"], rasterize(table([EAST, WEST], [1, 2]), GRID)["class_map"])
    [repair] = json.loads(masks.attrs["repairs"])
    assert (repair["row"], repair["id"]) == (1, 9)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning:shapely")
def test_coordinates_that_are_not_numbers_are_set_aside_and_told() -> None:
    broken = shapely.from_wkt("POLYGON ((0 0, nan 10, 10 10, 0 0))")
    lost = shapely.LineString([(np.nan, np.nan), (np.nan, 5)])
    with pytest.warns(DeepSentinelWarning, match="set aside"):
        masks = rasterize(table([broken, lost, EAST, None], [1, 2, 3, 4]), GRID)
    assert np.unique(masks["class_map"]).tolist() == [0, 3]
    assert [entry["row"] for entry in json.loads(masks.attrs["set_aside"])] == [0, 1, 3]
    said = [
        pytest.warns(DeepSentinelWarning, match=what) for what in ("No label is left", "no geometry", "not a number")
    ]
    with said[0], said[1], said[2]:
        assert not rasterize(table([broken, None], [1, 2]), GRID)["class_map"].any()


def test_a_polygon_that_crosses_itself_is_mended() -> None:
    bow = shapely.Polygon([(0, 0), (60, 60), (60, 0), (0, 60)])
    with pytest.warns(DeepSentinelWarning, match="self-intersection"):
        masks = rasterize(table([bow], [1]), GRID)
    assert float(masks["coverage"].sum()) == pytest.approx(18)


def test_a_class_like_the_background_is_shifted_and_never_merged() -> None:
    labels = table([WEST, shapely.box(30, 0, 50, 60)], [0, 1])
    with pytest.warns(DeepSentinelWarning, match="shifted by 1: a pixel of 1 is class 0"):
        masks = rasterize(labels, GRID)
    assert masks["class_map"][0].values.tolist() == [1, 1, 1, 2, 2, 0]
    assert masks["class_map"].attrs["shifted_by"] == 1
    legend = Legend.from_attrs(masks["class_map"].attrs)
    assert legend is not None
    assert legend.names == {1: "0", 2: "1"}
    # A part of the table without that class is numbered alike only if the table as a whole is looked at.
    with pytest.warns(DeepSentinelWarning, match="shifted"):
        east = rasterize(labels, GeoBox((6, 3), Affine(10, 0, 30, 0, -10, 60), CRS))
    assert east["class_map"][0].values.tolist() == [2, 2, 0]
    kept = rasterize(labels, GRID, background=255)
    assert kept["class_map"][0].values.tolist() == [0, 0, 0, 1, 1, 255]
    assert "shifted_by" not in kept["class_map"].attrs


def test_a_shift_that_would_clash_again_goes_further() -> None:
    with pytest.warns(DeepSentinelWarning, match="shifted by 2: a pixel of 7 is class 5"):
        masks = rasterize(table([WEST, shapely.box(30, 0, 50, 60)], [4, 5]), GRID, background=5)
    assert masks["class_map"][0].values.tolist() == [6, 6, 6, 7, 7, 5]


@pytest.mark.parametrize("crs", [CRS, "EPSG:4326", "EPSG:3035", "EPSG:32632"])
def test_labels_far_from_the_grid_are_background_with_the_distance(crs: str) -> None:
    labels = lattice(3, size_m=900).to_crs(crs)
    # 30 km from the eastern edge of the labels to the western edge of the grid, less 0.04 % of UTM's scale.
    away = grid(50, left=LEFT + 30_900)
    with pytest.warns(DeepSentinelWarning, match=r"None of the 9 labels lies on the grid.*nearest is 30\.0\d km"):
        masks = rasterize(labels, away)
    assert not masks["class_map"].any()
    with pytest.warns(DeepSentinelWarning, match=r"nearest is 16,\d{3} km away"):
        rasterize(labels, GeoBox((6, 6), Affine(10, 0, 500_000, 0, -10, 6_000_000), "EPSG:32753"))


def test_classes_that_are_neither_numbers_nor_texts_are_refused() -> None:
    with pytest.raises(InputError, match="int and str"):
        rasterize(table([WEST, EAST], [1, "two"]), GRID)
    with pytest.raises(InputError, match="32 bits"):
        rasterize(table([WEST], [2**40]), GRID)
    with pytest.raises(InputError, match="Class -1 in column 'ground_truth' is negative"):
        rasterize(table([WEST, EAST], [-1, 3]), GRID)
    for background in (0.5, None, 2**40, True):
        with pytest.raises(InputError, match="background"):
            rasterize(table([WEST], [1]), GRID, background=background)  # type: ignore[arg-type]


def test_rows_without_a_class_are_set_aside() -> None:
    labels = table([WEST, EAST], [3, None])
    labels["ground_truth"] = labels["ground_truth"].astype("Int64")
    with pytest.warns(DeepSentinelWarning, match="no ground_truth"):
        masks = rasterize(labels, GRID)
    assert np.unique(masks["class_map"]).tolist() == [0, 3]
    with pytest.warns(DeepSentinelWarning, match="no ground_truth"):
        masks = rasterize(table([WEST, EAST], ["reed", None]), GRID)
    assert np.unique(masks["class_map"]).tolist() == [0, 1]


def all_verbs(labels: gpd.GeoDataFrame) -> list[Any]:
    """What each verb says the classes are, of labels whose first row is in the west."""
    return [
        rasterize(labels, GRID)["class_map"].values[0, ::5].tolist(),
        class_fractions(labels, GRID)["class"].values.tolist(),
        label_vector(labels, GRID)["share"].tolist(),
        boxes(labels, GRID).classes.tolist(),
        bool(parcel_numbers(labels)["number"].tolist()[0] == rasterize(labels, GRID)["parcel_id"].values.max()),
        label_report(labels, GRID).counts["rows"]["set aside"],
        len(parcel_sizes(labels).table),
        int(parcel_window(labels.iloc[[0]], 16, legend={3: "rye"}).class_map.max()),
    ]


@pytest.mark.filterwarnings("ignore:1 of 2 rows set aside")
@pytest.mark.parametrize("kind", ["Int64", "UInt8", "object", "category"])
def test_integers_of_which_some_are_missing_are_classes_in_every_verb(kind: str) -> None:
    labels = table([WEST, EAST], gpd.pd.array([3, None], dtype="Int64"))
    if kind != "Int64":
        labels["ground_truth"] = labels["ground_truth"].astype(kind)
    assert all_verbs(labels) == [[3, 0], [3], [0.5], [3], True, 1, 2, 3]


def test_booleans_of_which_some_are_missing_are_classes() -> None:
    labels = table([WEST, EAST], gpd.pd.array([True, None], dtype="boolean"))
    with pytest.warns(DeepSentinelWarning, match="no ground_truth"):
        assert rasterize(labels, GRID)["class_map"].values[0, ::5].tolist() == [1, 0]


def test_whole_numbers_that_became_floats_are_told_with_advice_that_works() -> None:
    labels = table([WEST, EAST], [3, None])
    assert labels["ground_truth"].dtype == "float64"
    with (
        pytest.warns(DeepSentinelWarning, match="set aside"),
        pytest.warns(DeepSentinelWarning, match=r"values to regress.*labels\['ground_truth'\]\.astype") as said,
    ):
        assert "value" in rasterize(labels, GRID)
    advice = next(str(entry.message) for entry in said if "codes: " in str(entry.message))
    exec(advice.rpartition("codes: ")[2].partition(", which")[0], {"labels": labels})
    with pytest.warns(DeepSentinelWarning, match="set aside"):
        assert rasterize(labels, GRID)["class_map"].values[0, ::5].tolist() == [3, 0]


@pytest.mark.filterwarnings("error")
def test_values_that_are_no_whole_numbers_are_just_burnt() -> None:
    assert float(rasterize(table([WEST, EAST], [3.0, 2.5]), GRID)["value"].max()) == 3
    # One row alone tells nothing about its column.
    assert float(rasterize(table([WEST], [3.0]), GRID)["value"].max()) == 3


@pytest.mark.parametrize("kind", ["str", "object", "string", "category"])
def test_blanks_around_a_text_make_no_class_and_a_text_of_blanks_is_none(kind: str) -> None:
    shapes = [shapely.box(10 * n, 0, 10 * n + 10, 60) for n in range(6)]
    labels = table(shapes, ["wheat", "Wheat ", "", " wheat", "  ", None])
    labels["ground_truth"] = labels["ground_truth"].astype(kind)
    before = labels.copy()
    with pytest.warns(DeepSentinelWarning, match="3 of 6 rows set aside, no ground_truth"):
        masks = rasterize(labels, GRID)
    assert masks["class_map"][0].values.tolist() == [2, 1, 0, 2, 0, 0]
    legend = Legend.from_attrs(masks["class_map"].attrs)
    assert legend is not None
    assert legend.names == {1: "Wheat", 2: "wheat"}, "case is not ours to judge"
    assert [entry["row"] for entry in json.loads(masks.attrs["set_aside"])] == [2, 4, 5]
    gpd.pd.testing.assert_frame_equal(labels, before)
    with pytest.warns(DeepSentinelWarning, match="set aside"):
        assert label_vector(labels, GRID)["share"].tolist() == pytest.approx([1 / 6, 2 / 6])


def test_a_column_is_named_by_one_name() -> None:
    for verb in (rasterize, class_fractions, label_vector, boxes):
        with pytest.raises(InputError, match=r"value=\['crop', 'use'\] is not the name of a column.*value='crop'"):
            verb(table([WEST], [1]), GRID, value=["crop", "use"])  # type: ignore[operator]


def test_mixed_classes_are_texts_by_the_advice_that_is_given() -> None:
    labels = table([WEST, EAST, EAST], [1, "two", None])
    with pytest.raises(InputError, match=r"int and str.*labels\['ground_truth'\]\.map") as said:
        rasterize(labels, GRID)
    labels["ground_truth"] = eval(str(said.value).rpartition("kept: ")[2].removesuffix("."), {"labels": labels})
    with pytest.warns(DeepSentinelWarning, match="1 of 3 rows set aside"):
        assert rasterize(labels, GRID)["class_map"].values[0, ::5].tolist() == [1, 2]
    with pytest.raises(InputError, match=r"2 types|list"):
        rasterize(table([WEST], [["rye", "oats"]]), GRID)
    with pytest.raises(InputError, match="datetime64"):
        rasterize(table([WEST], [gpd.pd.Timestamp("2024-01-01")]), GRID)


def test_what_is_no_legend_is_refused_with_what_is_one() -> None:
    for wrong in (5, {}, [], {1: 2}, {"rye": "oats"}, [1, 2], ["rye", ""], {1.5: "rye"}, {True: "rye"}):
        with pytest.raises(InputError, match=r"legend= is no legend.*\['wheat', 'barley'\]"):
            rasterize(table([WEST], [1]), GRID, legend=wrong)  # type: ignore[arg-type]
    for twice in (["rye", "rye "], {1: "rye", 2: "rye"}, {"rye": 1, "oats": 1}):
        with pytest.raises(InputError, match="twice"):
            rasterize(table([WEST], [1]), GRID, legend=twice)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no legend called 'corinne'"):
        rasterize(table([WEST], [1]), GRID, legend="corinne")
    with pytest.raises(InputError, match="code -1 is not"):
        rasterize(table([WEST], [1]), GRID, legend={-1: "rye"})


def test_a_legend_that_does_not_know_the_classes_is_refused() -> None:
    assert int(rasterize(table([WEST], [312]), GRID, legend="corine")["class_map"].max()) == 312
    assert int(rasterize(table([WEST], [312]), GRID, legend=corine())["class_map"].max()) == 312
    assert int(rasterize(table([WEST], ["312"]), GRID, legend=corine())["class_map"].max()) == 312
    for wrong in (999, "meadow"):
        with pytest.raises(InputError, match=f"{wrong}.*legend 'corine'"):
            rasterize(table([WEST], [wrong]), GRID, legend=corine())


def test_a_resolution_that_does_not_divide_the_grid_is_refused_with_those_that_do() -> None:
    with pytest.raises(InputError, match=r"resolution=3 .*10, 5, 2\.5, 2, 1 would"):
        rasterize(table([WEST], [1]), GRID, resolution=3)
    for bad in (20, 0, -5, "fine", np.nan):
        with pytest.raises(InputError, match="resolution"):
            rasterize(table([WEST], [1]), GRID, resolution=bad)  # type: ignore[arg-type]


def test_what_is_no_grid_is_refused() -> None:
    labels = table([WEST], [1])
    with pytest.raises(InputError, match="str; masks need a grid"):
        rasterize(labels, "a patch")
    with pytest.raises(InputError, match="no CRS"):
        rasterize(labels, GeoBox((6, 6), Affine(10, 0, 0, 0, -10, 60), None))
    with pytest.raises(InputError, match="rotated"):
        rasterize(labels, GeoBox((6, 6), Affine(10, 1, 0, 1, -10, 60), CRS))
    masks = rasterize(labels, GRID)
    with pytest.raises(InputError, match="spatial_ref are needed"):
        rasterize(labels, masks.drop_vars("spatial_ref"))
    masks["spatial_ref"].attrs.clear()
    with pytest.raises(InputError, match="crs_wkt"):
        rasterize(labels, masks)
    with pytest.raises(TypeError, match="resoluton"):
        rasterize(labels, GRID, resoluton=5)  # type: ignore[call-arg]


def test_a_coordinate_that_is_no_number_is_told_wherever_the_others_are() -> None:
    far = shapely.Polygon([(5e4, 5e4), (6e4, 5e4), (np.nan, 6e4), (5e4, 6e4)])
    with pytest.warns(DeepSentinelWarning, match="not a number"):
        masks = rasterize(table([WEST, far], [1, 2]), GRID)
    assert [entry["row"] for entry in json.loads(masks.attrs["set_aside"])] == [1]


def test_an_empty_table_with_a_legend_gives_classes_whatever_its_type() -> None:
    empty = table([WEST], [1.5]).iloc[:0]
    with pytest.warns(DeepSentinelWarning, match="empty"):
        assert "class_map" in rasterize(empty, GRID, legend={1: "rye"})
    with pytest.warns(DeepSentinelWarning, match="empty"):
        assert "value" in rasterize(empty, GRID)


def test_the_legend_that_came_with_the_labels_is_that_of_one_column_only() -> None:
    labels = table([WEST], [1], owner=[2], tenant=["oats"])
    labels.attrs["legend"] = as_legend({1: "rye", 2: "oats"}, name="crops").to_json()
    names = {}
    for value in ("ground_truth", "owner", "tenant"):
        legend = Legend.from_attrs(rasterize(labels, GRID, value=value)["class_map"].attrs)
        assert legend is not None
        names[value] = legend.names
    assert names == {"ground_truth": {1: "rye", 2: "oats"}, "owner": {2: "2"}, "tenant": {1: "oats"}}
