"""CORINE: whose codes, of which year, at which level."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyogrio
import pytest
import shapely

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.labels import read_labels
from deepsentinel.legend import Legend, corine


def written(folder: Path, name: str = "clc.gpkg", **columns: list[object]) -> Path:
    count = len(next(iter(columns.values())))
    boxes = [shapely.box(4e6 + 100 * n, 3e6, 4e6 + 100 * n + 90, 3e6 + 90) for n in range(count)]
    gpd.GeoDataFrame(columns, geometry=boxes, crs="EPSG:3035").to_file(folder / name)
    return folder / name


def test_a_real_extract(real: Path) -> None:
    path = real / "corine" / "lanjaron.gpkg"
    labels = read_labels(path)
    raw = pyogrio.read_dataframe(path, layer="clc")
    assert labels.attrs["kind"] == "corine"
    assert labels.crs.to_epsg() == 25830
    assert labels["ground_truth"].tolist() == raw["CODE_18"].astype(int).tolist()
    assert labels["AREA_HA"].tolist() == raw["AREA_HA"].tolist()
    assert set(labels["valid_from"]) == {pd.Timestamp("2018-01-01")}
    assert set(labels["valid_to"]) == {pd.Timestamp("2019-01-01")}
    assert labels["id"].is_unique  # the file has none: they are made from the outlines
    legend = Legend.from_json(labels.attrs["legend"])
    assert legend == corine()
    assert legend[312].name == "Coniferous forest"


@pytest.mark.parametrize("level", [1, 2, 3])
def test_levels(real: Path, level: int) -> None:
    labels = read_labels(real / "corine" / "lanjaron.gpkg", level=level)
    fine = read_labels(real / "corine" / "lanjaron.gpkg")
    assert labels["ground_truth"].tolist() == [int(str(code)[:level]) for code in fine["ground_truth"]]
    assert Legend.from_json(labels.attrs["legend"]) == corine(level)
    # The source's own code stays as it was.
    assert labels["CODE_18"].tolist() == fine["ground_truth"].tolist()
    with pytest.raises(InputError, match="level=4: CORINE has the levels 1, 2, 3"):
        read_labels(real / "corine" / "lanjaron.gpkg", level=4)


def test_the_demo_file_is_like_the_eeas() -> None:
    labels = read_labels(ds.open_source("demo", size_px=512).labels["corine"])
    raw = pyogrio.read_dataframe(labels.attrs["source"])
    assert labels["ground_truth"].astype(str).tolist() == raw["Code_18"].tolist()
    assert labels["id"].tolist() == raw["ID"].tolist()


@pytest.mark.parametrize(
    ("column", "year"),
    [("CODE_18", 2018), ("Code_24", 2024), ("code_00", 2000), ("code_90", 1990), ("CLC18", 2018), ("clc24", 2024)],
)
def test_every_spelling_and_year_of_the_column(column: str, year: int, tmp_path: Path) -> None:
    labels = read_labels(written(tmp_path, **{column: ["111", "523"]}))
    assert labels["ground_truth"].tolist() == [111, 523]
    assert labels["valid_from"].dt.year.tolist() == [year, year]


def test_a_layer_of_changes_has_two_years(tmp_path: Path) -> None:
    path = written(tmp_path, Code_12=["211", "311"], Code_18=["112", "324"], Change=["211-112", "311-324"])
    assert read_labels(path)["ground_truth"].tolist() == [112, 324]
    before = read_labels(path, year=2012)
    assert before["ground_truth"].tolist() == [211, 311]
    assert before["valid_to"].tolist() == [pd.Timestamp("2013-01-01")] * 2
    with pytest.raises(InputError, match="no status of 2006, but of 2012, 2018"):
        read_labels(path, year=2006)


@pytest.mark.parametrize(("name", "year"), [("U2018_CLC2018_V2020_20u1.gpkg", 2018), ("clc2006.gpkg", 2006)])
def test_a_column_without_a_year_takes_the_names(name: str, year: int, tmp_path: Path) -> None:
    labels = read_labels(written(tmp_path, name, clc_code=["111"]))
    assert labels["valid_from"].dt.year.tolist() == [year]
    assert read_labels(written(tmp_path, "b.gpkg", clc_code=["111"]))["valid_from"].isna().all()


def test_codes_that_are_no_class_are_set_aside(tmp_path: Path) -> None:
    path = written(tmp_path, Code_18=["111", "999", None, " 312 ", "n/a"])
    with pytest.warns(DeepSentinelWarning, match="3 of 5 rows set aside: no ground_truth"):
        labels = read_labels(path, level=2)
    assert labels["ground_truth"].tolist() == [11, 31]
    assert [entry["row"] for entry in labels.attrs["set_aside"]] == [1, 2, 4]
    assert "3 rows whose code is not one of the 44: 999, missing" in labels.attrs["notes"]
