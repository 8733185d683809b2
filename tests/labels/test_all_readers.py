"""What every reader of labels owes its caller, checked on a small file of each: one row a square, 100 m apart."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.labels import formats, read_labels
from deepsentinel.legend import Legend

FIRST = ["geometry", "ground_truth", "id", "valid_from", "valid_to"]
WEST, SOUTH, COUNT = 500_000.0, 5_200_000.0, 12
UTM = "EPSG:32632"

# Of each kind the columns by which it is known and three classes it knows, which repeat from row to row.
SAMPLES: dict[str, dict[str, list[Any]]] = {
    "corine": {"ID": ["EU-1", "EU-2", "EU-3"], "Code_18": ["111", "312", "523"], "Area_Ha": [30.0, 40.0, 50.0]},
    "sigrid3": {
        "POLY_TYPE": ["I", "I", "W"], "CT": ["91", "80", "-9"], "CA": ["60", "-9", "-9"], "SA": ["91", "85", "-9"],
        "FA": ["05", "04", "-9"], "CB": ["30", "-9", "-9"], "SB": ["87", "-9", "-9"], "FB": ["04", "-9", "-9"],
        "CC": ["-9", "-9", "-9"], "SC": ["-9", "-9", "-9"], "FC": ["-9", "-9", "-9"], "CN": ["-9"] * 3,
        "CD": ["-9"] * 3, "CF": ["0504", "04-9", "-9-9"],
    },
    "rpg": {"ID_PARCEL": ["11", "12", "13"], "SURF_PARC": [1.0, 2.0, 3.0], "CODE_CULTU": ["BTH", "MIS", "PPH"],
            "CODE_GROUP": ["1", "2", "18"]},
    "invekos": {"GEO_ID": [5.0, 6.0, 7.0], "SNAR_CODE": [138, 110, 308], "SNAR_BEZEICHNUNG": ["a", "b", "c"]},
    "brp": {"category": ["Bouwland", "Grasland", "Bouwland"], "gewas": ["x", "y", "z"], "gewascode": [233, 265, 256],
            "jaar": [2023, 2023, 2023]},
    "flanders": {"REF_ID": [1, 2, 3], "GRAF_OPP": [0.5, 1.0, 2.0], "GWSCOD_H": ["311", "202", "60"]},
    "fusion": {"crop_id": [1, 4, 8], "crop_name": ["Wheat", "Corn", "Meadow"]},
    "fiboa": {"id": ["a", "b", "c"], "crop:name": ["wheat", "maize", "grass"], "hcat:code": [3301010101, 3301010600,
              3302000000]},
    "eurocrops": {"EC_trans_n": ["wheat", "maize", "grass"], "EC_hcat_n": ["a", "b", "c"],
                  "EC_hcat_c": ["3301010101", "3301010600", "3302000000"]},
    "osm": {"osm_id": ["1", "2", "3"], "name": ["A", None, "C"], "landuse": ["forest", "farmland", "vineyard"],
            "other_tags": ['"leaf_type"=>"broadleaved"', None, None]},
    "overture": {"id": ["x", "y", "z"], "version": [1, 1, 1], "sources": ["osm", "osm", "osm"],
                 "subtype": ["crop", "forest", "urban"]},
    "canonical": {"id": [4, 5, 6], "ground_truth": [3, 1, 2], "remark": ["p", "q", "r"]},
    "guessed": {"id": [4, 5, 6], "class": ["wood", "town", "lake"], "remark": ["p", "q", "r"]},
}  # fmt: skip
UNIQUE = ("ID", "ID_PARCEL", "GEO_ID", "REF_ID", "id", "osm_id")
KINDS = sorted(SAMPLES)


def sample(kind: str) -> gpd.GeoDataFrame:
    """Twelve squares of 50 m in a row; numbers of parcels that differ, classes that repeat."""
    columns = {}
    for name, values in SAMPLES[kind].items():
        column = [values[row % 3] for row in range(COUNT)]
        if name in UNIQUE:
            column = [type(values[0])(f"{row + 1}") for row in range(COUNT)]
        columns[name] = column
    x = WEST + 100.0 * np.arange(COUNT)
    return gpd.GeoDataFrame(columns, geometry=shapely.box(x, SOUTH, x + 50, SOUTH + 50), crs=UTM)


def written(table: gpd.GeoDataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_file(path, layer="labels", engine="pyogrio")
    return path


def read(path: Path, **options: Any) -> gpd.GeoDataFrame:
    with catch_warnings():
        simplefilter("ignore", DeepSentinelWarning)  # what the sample leaves out, such as a year
        return read_labels(path, **options)


def essence(labels: gpd.GeoDataFrame) -> pd.DataFrame:
    """Class, place and validity of each row, in the order of places: what a mask is made of."""
    places = labels.to_crs(UTM).geometry.centroid
    columns = {"x": places.x.round(), "y": places.y.round(), **{name: labels[name] for name in FIRST[1:]}}
    return pd.DataFrame(columns).sort_values("x", ignore_index=True)


def test_every_kind_has_a_sample_and_a_unique_name() -> None:
    names = [entry.name for entry in formats()]
    assert sorted(names) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_is_canonical(kind: str, tmp_path: Path) -> None:
    path = written(sample(kind), tmp_path / "labels.gpkg")
    labels = read(path)
    assert labels.attrs["kind"] == kind
    assert list(labels.columns[:5]) == FIRST
    assert labels.crs == UTM
    assert len(labels) == COUNT
    assert labels["ground_truth"].dtype in (np.dtype("int64"), np.dtype("float64"))
    assert labels["id"].is_unique
    assert labels["id"].dtype == np.dtype("int64") or all(isinstance(entry, str) for entry in labels["id"])
    for moment in ("valid_from", "valid_to"):
        assert labels[moment].dtype == np.dtype("datetime64[ns]")
    assert not (labels["valid_from"] >= labels["valid_to"]).any()
    assert labels.index.equals(pd.RangeIndex(COUNT))
    assert labels.is_valid.all()
    assert set(labels.attrs) == {"kind", "source", "legend", "repairs", "set_aside", "notes"}
    assert labels.attrs["source"] == str(path)
    assert json.loads(json.dumps(labels.attrs)) == labels.attrs
    # Each square kept its place and the class of its row: the classes repeat every three rows, and differ within them.
    truth = essence(labels)["ground_truth"].to_numpy().reshape(-1, 3)
    assert (truth == truth[0]).all()
    assert len(set(truth[0])) == 3
    if labels.attrs["legend"] is not None:
        names = Legend.from_json(labels.attrs["legend"]).names
        assert set(labels["ground_truth"]) <= set(names)
        assert labels.columns[5] == "class_name"
        assert labels["class_name"].tolist() == [names[code] for code in labels["ground_truth"]]
    else:
        assert "class_name" not in labels.columns


@pytest.mark.parametrize("kind", KINDS)
def test_the_sources_own_columns_are_kept(kind: str, tmp_path: Path) -> None:
    table = sample(kind)
    labels = read(written(table, tmp_path / "labels.gpkg"))
    kept = {str(name).lower() for name in labels.columns}
    # Ours takes the name where the source has one of the same; its values stay as `.._source` where they differ.
    ours = {name.lower() for name in table.columns} - {"geometry", "id", "ground_truth"}
    dropped = {"sources", "version"} if kind == "overture" else set()
    assert ours - dropped <= kept


@pytest.mark.parametrize("kind", KINDS)
def test_a_bbox_gives_the_rows_that_touch_it_and_no_others(kind: str, tmp_path: Path) -> None:
    path = written(sample(kind), tmp_path / "labels.gpkg")
    # From the middle of the third square to the gap behind the sixth; degrees, as a user would have it.
    area = gpd.GeoSeries([shapely.box(WEST + 225, SOUTH - 500, WEST + 575, SOUTH + 500)], crs=UTM)
    some = read(path, bbox=area)
    everything = essence(read(path))
    wanted = everything[everything["x"].between(WEST + 200, WEST + 575)].reset_index(drop=True)
    assert len(some) == len(wanted) == 4
    pd.testing.assert_frame_equal(essence(some)[["x", "ground_truth"]], wanted[["x", "ground_truth"]])
    with pytest.warns(DeepSentinelWarning) as caught:
        nothing = read_labels(path, bbox=(20.0, 10.0, 20.1, 10.1))
    assert any("no row touches the area" in str(warning.message) for warning in caught)
    assert len(nothing) == 0
    assert list(nothing.columns[:5]) == FIRST


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["labels.parquet", "labels.geojson", "labels.fgb"])
def test_any_container_gives_the_same_labels(kind: str, name: str, tmp_path: Path) -> None:
    table = sample(kind)
    expected = essence(read(written(table, tmp_path / "labels.gpkg")))
    other = read(written(table, tmp_path / name))
    assert other.attrs["kind"] == kind
    assert other.crs == UTM
    pd.testing.assert_frame_equal(essence(other), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["labels.parquet", "labels.gpkg"])
def test_zips_open(kind: str, name: str, tmp_path: Path) -> None:
    path = written(sample(kind), tmp_path / name)
    with zipfile.ZipFile(tmp_path / "labels.zip", "w") as archive:
        archive.write(path, f"folder (1)/{name}")
        archive.writestr("readme.txt", "nothing to see")
    pd.testing.assert_frame_equal(essence(read(tmp_path / "labels.zip")), essence(read(path)))


@pytest.mark.parametrize("kind", KINDS)
def test_upper_and_lower_case_do_not_matter(kind: str, tmp_path: Path) -> None:
    table = sample(kind)
    expected = essence(read(written(table, tmp_path / "labels.gpkg")))
    for turn in (str.upper, str.lower):
        turned = table.rename(columns={name: turn(name) for name in table.columns if name != "geometry"})
        labels = read(written(turned, tmp_path / f"{turn.__name__}.geojson"))
        pd.testing.assert_frame_equal(essence(labels), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_no_crs_is_never_guessed(kind: str, tmp_path: Path) -> None:
    path = written(sample(kind).set_crs(None, allow_override=True), tmp_path / "labels.gpkg")
    with pytest.raises(InputError, match=r"does not tell its CRS.*crs='EPSG:\.\.\.'"):
        read_labels(path)
    assert read(path, crs=UTM).crs == UTM


@pytest.mark.parametrize("kind", KINDS)
def test_broken_rows_are_told_and_set_aside(kind: str, tmp_path: Path) -> None:
    table = sample(kind)
    shapes = table.geometry.to_numpy().copy()
    x, y = WEST, SOUTH
    shapes[0] = shapely.Polygon([(x, y), (x + 50, y + 50), (x + 50, y), (x, y + 50)])
    shapes[4] = None
    path = written(table.set_geometry(gpd.GeoSeries(shapes, crs=UTM)), tmp_path / "labels.parquet")
    with pytest.warns(DeepSentinelWarning) as caught:
        labels = read_labels(path)
    said = " ".join(str(warning.message) for warning in caught)
    assert "repaired" in said
    assert "no geometry" in said
    assert len(labels) == COUNT - 1
    assert labels.is_valid.all()
    assert [(entry["row"], entry["reason"]) for entry in labels.attrs["set_aside"]] == [(4, "no geometry")]
    assert [entry["row"] for entry in labels.attrs["repairs"]] == [0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_can_be_written_and_read_again(kind: str, tmp_path: Path) -> None:
    labels = read(written(sample(kind), tmp_path / "labels.gpkg"))
    again = read(written(labels, tmp_path / "again.gpkg"), kind="canonical")
    pd.testing.assert_frame_equal(
        essence(again).drop(columns="id"), essence(labels).drop(columns="id"), check_dtype=False
    )


@pytest.mark.parametrize("kind", KINDS)
def test_options_of_other_kinds_are_errors(kind: str, tmp_path: Path) -> None:
    path = written(sample(kind), tmp_path / "labels.gpkg")
    (entry,) = [entry for entry in formats() if entry.name == kind]
    given: dict[str, Any] = {"level": 1, "value": "name", "year": 2018, "tags": "tags.csv", "flatten": True}
    wrong = {name: value for name, value in given.items() if name not in entry.takes}
    assert wrong
    for name, value in wrong.items():
        with pytest.raises(InputError, match=f"read as '{kind}', which does not know {name}"):
            read_labels(path, kind, **{name: value})
