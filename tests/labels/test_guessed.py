"""Files of no known publisher: which column is taken as the classes, that it is said, and what is not taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from warnings import catch_warnings

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.labels import read_labels

UTM = "EPSG:32632"
WEST, SOUTH = 500_000.0, 5_200_000.0
LIKE = gpd.GeoSeries([shapely.box(WEST, SOUTH, WEST + 600, SOUTH + 100)], crs=UTM)


def written(path: Path, layer: str | None = None, first: int = 0, **columns: Any) -> Path:
    """Squares of 50 m from west to east; `first` puts those of another layer beside them."""
    count = len(next(iter(columns.values())))
    x = WEST + 100 * (first + np.arange(count))
    table = gpd.GeoDataFrame(columns, geometry=shapely.box(x, SOUTH, x + 50, SOUTH + 50), crs=UTM)
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_file(path, **({} if layer is None else {"layer": layer}))
    return path


def read(path: Path, **options: Any) -> tuple[gpd.GeoDataFrame, str]:
    """The labels, and all that was said."""
    with catch_warnings(record=True, action="always", category=DeepSentinelWarning) as caught:
        labels = read_labels(path, **options)
    return labels, " ".join(str(warning.message) for warning in caught)


def guessed(path: Path, column: str, **options: Any) -> gpd.GeoDataFrame:
    """What is read of the column, which is said and stays in the table's notes."""
    labels, said = read(path, **options)
    taken = f"the column {column!r} was taken as the classes (value='...' names another)"
    assert taken in said
    assert labels.attrs["notes"][0].startswith(taken)
    assert labels.attrs["kind"] == "guessed"
    return labels


def mask_names(labels: gpd.GeoDataFrame) -> str:
    masks = ds.rasterize(labels, like=ds.geobox(LIKE, resolution=10))
    return str(masks["class_map"].attrs["flag_meanings"])


@pytest.mark.parametrize("name", ["class_name", "Class", "label", "landcover"])
def test_a_column_that_says_it_holds_classes_is_taken_and_that_is_said(tmp_path: Path, name: str) -> None:
    texts = ["wood", "town", "lake"] * 2
    found = guessed(written(tmp_path / "mine.gpkg", **{name: texts}), name)
    assert found["class_name"].tolist() == texts
    # What the user names, and our own column, come before; then nothing is guessed.
    for own in ("other", "ground_truth"):
        path = written(tmp_path / f"{own}.gpkg", **{name: texts, own: [7] * 6})
        assert set(read_labels(path, value="other" if own == "other" else None)["ground_truth"]) == {7}


def test_a_layer_of_texts_beside_our_own_leaves_its_numbers(tmp_path: Path) -> None:
    for name in ("label", "class", "class_name"):
        path = tmp_path / f"{name}.gpkg"
        written(path, "fields", ground_truth=[10, 20])
        written(path, "annotations", first=2, **{name: ["Farm A", "Gate", "Gate"]})
        labels = read_labels(path)
        assert labels["ground_truth"].tolist() == [10, 20]
        assert labels["id"].is_unique


def test_of_several_layers_those_with_one_column_are_read_and_the_others_named(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    written(path, "empty", **{"class": [None, None]})
    written(path, "texts", first=2, **{"class": ["x", "y"]})
    written(path, "first", first=4, **{"class": [10, 20]})
    written(path, "second", first=6, Class=[30, 10])
    labels, said = read(path)
    assert "; not read: layer 'empty', 'texts'" in said
    assert labels["ground_truth"].tolist() == [10, 20, 30, 10]
    # Also in a part of the file.
    near = gpd.GeoSeries([shapely.box(WEST, SOUTH, WEST + 410, SOUTH + 50)], crs=UTM)
    assert guessed(path, "class", bbox=near)["ground_truth"].tolist() == [10]
    assert guessed(path, "class", layer="texts")["class_name"].tolist() == ["x", "y"]
    with pytest.raises(InputError, match=r"some hold numbers in 'class' and others texts.*layer='\.\.\.'"):
        read_labels(path, value="class")


@pytest.mark.parametrize("beside", ["class", "class_name", "label", "ground_truth"])
@pytest.mark.parametrize("kind", [None, "canonical"])
def test_value_finds_its_column_whatever_the_other_layers_have(tmp_path: Path, beside: str, kind: str | None) -> None:
    path = tmp_path / "a.gpkg"
    written(path, "roads", **{beside: ["a", "b"]})
    written(path, "fields", first=2, crop=["wheat", "maize"])
    labels = read_labels(path, kind, value="crop")
    assert labels["class_name"].tolist() == ["wheat", "maize"]
    with pytest.raises(InputError, match=r"no column 'crops': layer 'roads' has .*'fields' has crop"):
        read_labels(path, kind, value="crops")


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.parquet"])
def test_guessed_numbers_are_codes(tmp_path: Path, name: str) -> None:
    for stored in ([10.0, np.nan, 20.0], pd.array([10, None, 20], dtype="Int64"), ["10", None, "20 "]):
        labels = guessed(written(tmp_path / name, **{"class": stored}), "class")
        assert labels["ground_truth"].dtype == np.dtype("int64")
        assert labels["ground_truth"].tolist() == [10, 20]
        assert mask_names(labels) == "10 20"
    yes = guessed(written(tmp_path / name, **{"class": pd.array([True, None, False], dtype="boolean")}), "class")
    assert yes["ground_truth"].tolist() == [1, 0]
    # What the user names is taken as it is: whole floats may well be measured.
    path = written(tmp_path / name, **{"class": [10.0, np.nan, 20.0]})
    with pytest.warns(DeepSentinelWarning, match="no ground_truth"):
        assert read_labels(path, value="class")["ground_truth"].dtype == np.dtype("float64")


def test_guessed_numbers_of_a_csv_are_codes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("lon,lat,class\n8.5,48.1,10.0\n8.6,48.1,\n8.7,48.1,20.0\n")
    labels = guessed(path, "class")
    assert (labels["ground_truth"].dtype, labels["ground_truth"].tolist()) == (np.dtype("int64"), [10, 20])


@pytest.mark.parametrize("value", [None, "class"])
def test_texts_that_are_whole_numbers_are_these_numbers(tmp_path: Path, value: str | None) -> None:
    def codes(*texts: str) -> list[int]:
        path = written(tmp_path / "a.gpkg", **{"class": list(texts)})
        labels = guessed(path, "class") if value is None else read_labels(path, value=value)
        return labels["ground_truth"].tolist()

    assert codes("10", "0", "20") == [10, 0, 20]
    # Not where they would not come back the same, do not fit a mask, or are not all.
    assert codes("020", "010") == [2, 1]
    assert codes("3302000000", "3301010101") == [2, 1]
    assert codes("20", "x", "10") == [2, 3, 1]
    # Of all rows, not of those that are near.
    path = written(tmp_path / "a.gpkg", **{"class": ["20", "10", "x"]})
    part = gpd.GeoSeries([shapely.box(WEST, SOUTH, WEST + 160, SOUTH + 50)], crs=UTM)
    assert read(path, bbox=part, value=value)[0]["ground_truth"].tolist() == [2, 1]


@pytest.mark.parametrize("names", ["class_name", "Class_Name"])
@pytest.mark.parametrize("codes", ["class", "landcover"])
def test_codes_come_before_the_names_beside_them_which_are_their_legend(tmp_path: Path, codes: str, names: str) -> None:
    (tmp_path / "a.csv").write_text(f"lon,lat,{codes},{names}\n9,47,20,Grass\n9,47.1,10,Tree\n9,47.2,20,Grass\n")
    read_csv = guessed(tmp_path / "a.csv", codes)
    for stored in ([20, 10, 20], ["20", "10", "20"], [20.0, 10.0, 20.0]):
        labels = guessed(written(tmp_path / "a.gpkg", **{codes: stored, names: ["Grass", "Tree", "Grass"]}), codes)
        assert mask_names(labels) == "Tree Grass"
        for table in (labels, read_csv):
            assert table["ground_truth"].tolist() == [20, 10, 20]
            assert table["class_name"].tolist() == ["Grass", "Tree", "Grass"]


def test_numbers_that_the_names_do_not_belong_to_are_left(tmp_path: Path) -> None:
    for numbers in (
        [1, 1, 2],
        [-1, 5, 6],
        [0.5, 1.5, 2.5],
        [33_0201_0000, 5, 6],
        ["3302010000", "5", "6"],
        ["010", "020", "030"],
    ):
        path = written(tmp_path / "a.gpkg", **{"class": numbers, "class_name": ["oak", "pine", "grass"]})
        assert guessed(path, "class_name")["class_name"].tolist() == ["oak", "pine", "grass"]


def test_what_surely_holds_no_classes_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for values, why in (
        ([None] * 3, "'label' has no values"),
        (["", " ", None], "'label' has no values"),
        (["Field 1", "Field 2", "Field 3"], "'label' has a value of its own in nearly every row"),
        ([1, 2, 3], "'label' has a value of its own in nearly every row"),
        ([0.5, 0.5, 1.5], "'label' holds numbers that are no codes"),
        (pd.to_datetime(["2018-01-01"] * 3), "'label' holds neither numbers nor texts"),
        ([["a"], ["a"], ["b"]], "'label' holds neither numbers nor texts"),
    ):
        written(path, label=values, crop_code=[1, 2, 1])
        with pytest.raises(InputError, match=rf"{why}\. Layer 'a' has label, crop_code\..*value='\.\.\.'"):
            read_labels(path)
        assert read_labels(path, value="crop_code")["ground_truth"].tolist() == [1, 2, 1]
        # Another column that tells classes serves.
        written(path, label=values, landcover=[1, 2, 1])
        assert guessed(path, "landcover")["ground_truth"].tolist() == [1, 2, 1]
    # One of a sure name comes before a label, even where each row has its own.
    written(path, label=["x", "y", "x"], landcover=["a", "b", "c"])
    assert guessed(path, "landcover")["class_name"].tolist() == ["a", "b", "c"]


def test_a_file_without_rows_gives_an_empty_table(tmp_path: Path) -> None:
    labels, said = read(written(tmp_path / "a.gpkg", **{"class": np.array([], dtype="int64")}))
    assert "holds no rows" in said
    assert len(labels) == 0
    assert labels.crs == UTM


def test_numbers_stay_beside_a_layer_whose_column_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    written(path, "a", ground_truth=[10, 20])
    written(path, "b", first=2, ground_truth=pd.Series([None, None], dtype=object))
    with pytest.warns(DeepSentinelWarning, match="2 of 4 rows set aside: no ground_truth"):
        labels = read_labels(path)
    assert (labels["ground_truth"].dtype, labels["ground_truth"].tolist()) == (np.dtype("int64"), [10, 20])
