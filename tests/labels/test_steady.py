"""What a row says must not depend on what else is read with it: numbers, ids, types, dates, and what is set aside."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from deepsentinel.errors import DeepSentinelWarning, InputError, ReadError
from deepsentinel.labels import read_labels, set_aside
from deepsentinel.legend import Legend

UTM = "EPSG:32632"
WEST, SOUTH = 500_000.0, 5_200_000.0
CONTAINERS = ["a.gpkg", "a.geojson", "a.shp", "a.fgb", "a.parquet", "a.csv"]


def squares(count: int, **columns: Any) -> gpd.GeoDataFrame:
    x = WEST + 100 * np.arange(count)
    return gpd.GeoDataFrame(columns, geometry=shapely.box(x, SOUTH, x + 50, SOUTH + 50), crs=UTM)


def written(table: gpd.GeoDataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".csv":
        shapes = [None if shape is None else shape.wkt for shape in table.geometry]
        table.drop(columns="geometry").assign(crs=UTM, geometry=shapes).to_csv(path, index=False)
    else:
        table.to_file(path)
    return path


def read(path: Path, **options: Any) -> gpd.GeoDataFrame:
    """From west to east, as a FlatGeobuf has its rows in an order of its own."""
    labels = read_labels(path, **options)
    return labels.iloc[np.argsort(labels.bounds["minx"].to_numpy())].reset_index(drop=True)


def around(first: int, last: int) -> gpd.GeoSeries:
    return gpd.GeoSeries([shapely.box(WEST + 100 * first + 1, SOUTH, WEST + 100 * last + 49, SOUTH + 50)], crs=UTM)


# ---- dates ----


@pytest.mark.parametrize("stored", ["text", "date", "moment"])
@pytest.mark.parametrize("name", ["a.gpkg", "a.parquet", "a.csv"])
def test_a_date_without_end_is_open_and_told(name: str, stored: str, tmp_path: Path) -> None:
    ends: Any = ["9999-12-31", "2019-01-01", None]
    if stored == "date":
        ends = [None if end is None else np.datetime64(end, "D").astype(object) for end in ends]
    if stored == "moment":
        ends = pd.to_datetime(pd.Series(np.array(ends, dtype="datetime64[s]")))
    table = squares(3, ground_truth=[1, 2, 3], valid_from=["0001-01-01", "2018-01-01", "2018-01-01"], valid_to=ends)
    labels = read_labels(written(table, tmp_path / name))
    assert labels["valid_to"].isna().tolist() == [True, False, True]
    assert labels["valid_to"][1] == pd.Timestamp(2019, 1, 1)
    assert labels["valid_from"].isna().tolist() == [True, False, False]
    assert labels["valid_to"].dtype == np.dtype("datetime64[ns]")
    assert labels.attrs["notes"] == [
        f"1 rows whose {side} is outside of the years 1678 to 2261: taken as open"
        for side in ("valid_from", "valid_to")
    ]


def test_what_is_no_date_is_still_an_error_beside_a_far_one(tmp_path: Path) -> None:
    for odd in ("soon", "2018-13-41"):
        table = squares(2, ground_truth=[1, 2], valid_to=["9999-12-31", odd])
        with pytest.raises(ReadError, match="dates of these labels cannot be read"):
            read_labels(written(table, tmp_path / "a.gpkg"))


# ---- types ----


@pytest.mark.parametrize("name", CONTAINERS)
def test_integer_classes_stay_classes_where_one_is_missing(name: str, tmp_path: Path) -> None:
    table = squares(
        4, ground_truth=pd.array([3, None, 2**31 - 5, 7], dtype="Int64"), plot=pd.array([1, 2, None, 4], "Int64")
    )
    with pytest.warns(DeepSentinelWarning, match="no ground_truth"):
        labels = read(written(table, tmp_path / name))
    assert labels["ground_truth"].dtype == np.dtype("int64")
    assert labels["ground_truth"].tolist() == [3, 2**31 - 5, 7]
    # Also a column of the source's own, burnt by rasterize(value="plot").
    assert pd.api.types.is_integer_dtype(labels["plot"].dtype)
    assert labels["plot"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize("name", CONTAINERS)
def test_measured_values_stay_floats(name: str, tmp_path: Path) -> None:
    table = squares(3, ground_truth=[3.0, np.nan, 4.0], id=[1, 2, 3])
    table.loc[2, "ground_truth"] = 4.5
    with pytest.warns(DeepSentinelWarning, match="no ground_truth"):
        labels = read(written(table, tmp_path / name))
    assert labels["ground_truth"].dtype == np.dtype("float64")
    assert labels["ground_truth"].tolist() == [3.0, 4.5]


def test_large_integers_of_a_parquet_are_exact_beside_a_gap(tmp_path: Path) -> None:
    large = 2**62 + 1
    table = squares(2, ground_truth=[1, 2], number=pd.array([large, None], dtype="Int64"))
    assert read_labels(written(table, tmp_path / "a.parquet"))["number"][0] == large


@pytest.mark.parametrize("name", ["a.gpkg", "a.parquet"])
def test_yes_and_no_are_classes_where_one_is_missing(name: str, tmp_path: Path) -> None:
    table = squares(3, ground_truth=pd.array([True, None, False], dtype="boolean"))
    with pytest.warns(DeepSentinelWarning, match="no ground_truth"):
        labels = read_labels(written(table, tmp_path / name))
    assert labels["ground_truth"].dtype == np.dtype("int64")
    assert labels["ground_truth"].tolist() == [1, 0]


# ---- the area ----


@pytest.mark.parametrize("name", CONTAINERS)
def test_texts_have_the_same_numbers_in_every_part_of_a_file(name: str, tmp_path: Path) -> None:
    texts = ["wheat", "rye ", "oats", "rye", "barley", "wheat", None, " "]
    path = written(squares(8, ground_truth=texts), tmp_path / name)
    with pytest.warns(DeepSentinelWarning, match="no ground_truth"):
        whole = read(path)
    assert whole["class_name"].tolist() == ["wheat", "rye", "oats", "rye", "barley", "wheat"]
    for first, last in ((0, 0), (1, 3), (3, 5)):
        part = read(path, bbox=around(first, last))
        assert part["ground_truth"].tolist() == whole["ground_truth"].tolist()[first : last + 1]
        assert part["id"].tolist() == whole["id"].tolist()[first : last + 1]
        assert Legend.from_json(part.attrs["legend"]) == Legend.from_json(whole.attrs["legend"])
    assert whole["id"].is_unique


@pytest.mark.parametrize("name", ["a.gpkg", "a.parquet"])
def test_crops_without_codes_have_the_same_numbers_in_every_part_of_a_file(name: str, tmp_path: Path) -> None:
    columns = {"crop:name": ["wheat", "rye", "oats", "barley"], "determination:method": ["drawn"] * 4}
    path = written(squares(4, **columns), tmp_path / name)
    whole = read_labels(path)
    part = read_labels(path, bbox=around(0, 1))
    assert part["ground_truth"].tolist() == whole["ground_truth"].tolist()[:2] == [4, 3]
    assert part["id"].tolist() == whole["id"].tolist()[:2]


def test_what_a_csv_writes_is_told_by_all_of_its_rows(tmp_path: Path) -> None:
    path = written(squares(4, ground_truth=["1.50", "2", "x", "1.50"], size=["1", "2", "2.5", ""]), tmp_path / "a.csv")
    whole, part = read_labels(path), read_labels(path, bbox=around(0, 1))
    assert part["class_name"].tolist() == ["1.50", "2"]
    assert part["ground_truth"].tolist() == whole["ground_truth"].tolist()[:2]
    assert part["size"].dtype == whole["size"].dtype == np.dtype("float64")


def test_the_crs_of_a_csv_with_several_is_the_same_in_every_part_of_it(tmp_path: Path) -> None:
    table = squares(5, ground_truth=[1, 2, 3, 4, 5])
    there = table.to_crs("EPSG:3035").geometry
    rows = [(UTM, shape.wkt) for shape in table.geometry[:3]] + [("EPSG:3035", shape.wkt) for shape in there[3:]]
    frame = pd.DataFrame(rows, columns=["crs", "geometry"]).assign(ground_truth=table["ground_truth"])
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.warns(DeepSentinelWarning, match="2 CRS"):
        whole = read_labels(tmp_path / "a.csv")
    with pytest.warns(DeepSentinelWarning, match="reprojected to EPSG:32632"):
        part = read_labels(tmp_path / "a.csv", bbox=around(3, 4))
    assert part.crs == whole.crs == UTM
    assert part["id"].tolist() == whole["id"].tolist()[3:]


def test_ids_made_from_outlines_do_not_follow_the_order_of_rows(tmp_path: Path) -> None:
    table = squares(6, Code_18=["111", "211", "312", "111", "211", "312"])
    whole = read_labels(written(table, tmp_path / "a.gpkg"))
    turned = read_labels(written(table[::-1], tmp_path / "b.gpkg"))
    assert turned["id"].tolist() == whole["id"].tolist()[::-1]


def test_ids_of_one_outline_twice_where_an_attribute_is_missing(tmp_path: Path) -> None:
    table = squares(2, ground_truth=[1, 2], note=["a", None], size=[np.nan, 2.5])
    table = table.set_geometry([table.geometry[0]] * 2, crs=UTM)
    whole = read_labels(written(table, tmp_path / "a.gpkg"))
    turned = read_labels(written(table[::-1], tmp_path / "b.gpkg"))
    assert whole["id"].is_unique
    assert turned["id"].tolist() == whole["id"].tolist()[::-1]


# ---- set aside ----


def test_all_rows_that_were_set_aside_are_there_whole(tmp_path: Path) -> None:
    count = 2500
    kinds = np.where(np.arange(count) % 5 == 0, "Bouwland", "Sloot")
    table = squares(
        count, gewascode=np.full(count, 233), category=kinds, jaar=np.full(count, 2023), note=np.arange(count)
    )
    shapes = table.geometry.to_numpy().copy()
    shapes[5] = None
    table = table.set_geometry(gpd.GeoSeries(shapes, crs=UTM))
    with pytest.warns(DeepSentinelWarning, match="2001 of 2500 rows set aside"):
        labels = read_labels(written(table, tmp_path / "a.parquet"))
    rows = set_aside(labels)
    assert len(rows) == 2001
    assert rows.columns[:3].tolist() == ["row", "id", "reason"]
    assert rows["reason"].value_counts().to_dict() == {"a ditch, not a field": 2000, "no geometry": 1}
    # Nothing is in both, nothing in neither, and each row is the source's.
    assert sorted([*rows["note"], *labels["note"]]) == list(range(count))
    assert rows["row"].tolist() == rows["note"].tolist()
    there = rows[rows["note"] != 5]
    assert there.geometry.geom_equals(gpd.GeoSeries(shapes[there["note"]], index=there.index, crs=UTM)).all()
    assert rows["category"].tolist() == kinds[rows["note"]].tolist()
    assert rows.crs == UTM
    # The attributes stay a summary that JSON can hold.
    assert len(labels.attrs["set_aside"]) == 1001
    assert json.loads(json.dumps(labels.attrs)) == labels.attrs


def test_what_was_set_aside_goes_with_the_table(tmp_path: Path) -> None:
    table = squares(3, ground_truth=pd.array([1, None, 2], dtype="Int64"), remark=["a", "b", "c"])
    with pytest.warns(DeepSentinelWarning):
        labels = read_labels(written(table, tmp_path / "a.gpkg"))
    for other in (
        labels.copy(),
        labels[labels["ground_truth"] == 1],
        copy.deepcopy(labels),
        pickle.loads(pickle.dumps(labels)),
    ):
        assert set_aside(other)["remark"].tolist() == ["b"]
    far = set_aside(labels.to_crs("EPSG:4326"))
    assert far.crs == "EPSG:4326"
    assert far.geometry.geom_equals_exact(table.geometry[[1]].to_crs("EPSG:4326").reset_index(drop=True), 1e-9).all()
    # From a table that was put together from attributes in JSON, the rows are gone, and that is said.
    plain = labels.copy()
    plain.attrs = json.loads(json.dumps(labels.attrs))
    with pytest.raises(InputError, match="Read its source again"):
        set_aside(plain)
    assert len(set_aside(read_labels(written(table[:1], tmp_path / "b.gpkg")))) == 0


def test_rows_of_a_csv_that_have_no_place_are_kept_as_they_were_written(tmp_path: Path) -> None:
    long = "POLYGON ((" + ", ".join(f"{n} {n}" for n in range(900)) + ", oops))"
    frame = pd.DataFrame({
        "id": ["a", "b", "c"], "ground_truth": [1, 2, 3], "crs": [UTM, UTM, "EPSG:99999"],
        "geometry": [shapely.box(5e5, 5.2e6, 5.1e5, 5.21e6).wkt, long, "POINT (1 2)"],
    })  # fmt: skip
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.warns(DeepSentinelWarning):
        labels = read_labels(tmp_path / "a.csv")
    rows = set_aside(labels)
    assert rows["id"].tolist() == ["b", "c"]
    assert rows["wkt"].tolist() == [long, "POINT (1 2)"]
    assert rows.geometry.isna().all()
    assert rows["reason"].tolist() == ["WKT that cannot be read", "crs 'EPSG:99999' is not known"]


def test_a_map_of_openstreetmap_keeps_its_broken_rows_too(tmp_path: Path) -> None:
    table = squares(2, osm_id=["1", "2"], landuse=["forest", "farmland"], name=["A", "B"])
    shapes = table.geometry.to_numpy().copy()
    shapes[1] = shapely.Polygon([(0, 0), (1, 1), (2, 2)])
    table = table.set_geometry(gpd.GeoSeries(shapes, crs=UTM))
    with pytest.warns(DeepSentinelWarning):
        labels = read_labels(written(table, tmp_path / "a.parquet"))
    rows = set_aside(labels)
    assert rows[["id", "name", "landuse"]].to_numpy().tolist() == [["way/2", "B", "farmland"]]
    assert not [name for name in rows.columns if name.startswith("_")]
