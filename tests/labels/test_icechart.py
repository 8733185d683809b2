"""Ice charts: against a plain reading of one egg at a time, and through files as ice services write them."""

from __future__ import annotations

import math
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.labels import read_labels
from deepsentinel.labels.icechart import chart_day, chart_legend, concentration_percent, ice_classes
from deepsentinel.legend import Legend, source_codes

# As the Canadian service writes them: a cone of its own, which no EPSG code names.
LAMBERT = "+proj=lcc +lat_1=49 +lat_2=77 +lat_0=40 +lon_0=-100 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs +type=crs"
EGG = ("POLY_TYPE", "CT", "CA", "SA", "FA", "CB", "SB", "FB", "CC", "SC", "FC", "CN", "CD", "CF")


def chart(*rows: dict[str, object]) -> gpd.GeoDataFrame:
    """Eggs with -9 where nothing is given; a type where none is given is ice."""
    table = pd.DataFrame([{**dict.fromkeys(EGG, "-9"), "POLY_TYPE": "I", **row} for row in rows])
    boxes = [shapely.box(1e5 * i, 0, 1e5 * (i + 1), 1e5) for i in range(len(rows))]
    return gpd.GeoDataFrame(table, geometry=boxes, crs=LAMBERT)


def one(what: str = "stage", **egg: object) -> pd.Series:
    return ice_classes(chart(egg), what).iloc[0]


def slowly(egg: dict[str, str]) -> tuple[int | None, str, float]:
    """Stage, kind and share of an egg with concentrations in whole tenths, one rule after the other."""
    tenths = {"A": egg["CA"], "B": egg["CB"], "C": egg["CC"]}
    stages = {"A": egg["SA"], "B": egg["SB"], "C": egg["SC"], "D": egg["CD"]}
    held = {kind: int(code) / 10 for kind, code in tenths.items() if code != "-9"}
    total = int(egg["CT"]) / 10
    for kind in "ABC":
        if kind not in held and stages[kind] != "-9":
            held[kind] = max(total - sum(held.values()), 0)
            break
    held["D"] = max(total - sum(held.values()), 0)
    named = {kind: part for kind, part in held.items() if part > 0 and stages[kind] != "-9"}
    if not named:
        return None, "", math.nan
    sums = {stage: sum(part for kind, part in named.items() if stages[kind] == stage) for stage in set(stages.values())}
    most = max(sums[stages[kind]] for kind in named)
    kind = min(kind for kind in named if math.isclose(sums[stages[kind]], most))
    return int(stages[kind]), kind, min(most / max(total, sum(held.values())), 1.0)


TENTHS = st.sampled_from([f"{i}0" for i in range(1, 10)])
STAGES = st.sampled_from(["-9", "81", "85", "87", "91", "95"])


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {"CT": TENTHS, "SA": STAGES, "SB": STAGES, "SC": STAGES, "CD": STAGES}
        | {name: st.one_of(st.just("-9"), TENTHS) for name in ("CA", "CB", "CC")}
    )
)
def test_the_dominant_stage_is_that_of_a_plain_reading(egg: dict[str, str]) -> None:
    stage, kind, share = slowly(egg)
    found = one(**egg)
    bare = sum(egg[f"C{kind}"] == "-9" and egg[f"S{kind}"] != "-9" for kind in "ABC")
    if stage is None:
        assert found["reason"] == "no stage is written for this ice"
        assert (found["ground_truth"], found["dominant"]) == (0, "")
    else:
        assert (found["ground_truth"], found["dominant"], found["reason"]) == (stage, kind, "")
        if bare > 1:
            assert math.isnan(found["dominant_share"])
        else:
            assert found["dominant_share"] == pytest.approx(share)


def test_one_type_of_ice_has_no_partial_concentration() -> None:
    found = one(CT="92", SA="93", FA="08")
    assert (found["ground_truth"], found["dominant"], found["dominant_share"]) == (93, "A", 1.0)
    assert found["concentration_percent"] == 100.0


def test_equal_parts_go_to_the_thicker_and_equal_stages_are_added_up() -> None:
    assert one(CT="80", CA="40", SA="95", CB="40", SB="81")["ground_truth"] == 95
    mixed = one(CT="90", CA="40", SA="95", CB="30", SB="87", CC="20", SC="87")
    assert (mixed["ground_truth"], mixed["dominant"]) == (87, "B")
    assert mixed["dominant_share"] == pytest.approx(5 / 9)


def test_what_is_left_of_the_total_has_its_own_stage() -> None:
    rest = one(CT="90", CA="10", SA="95", CB="10", SB="91", CC="10", SC="87", CD="81")
    assert (rest["ground_truth"], rest["dominant"]) == (81, "D")
    assert rest["dominant_share"] == pytest.approx(6 / 9)


@pytest.mark.parametrize(
    ("code", "percent"),
    [("00", 0), ("98", 0), ("01", 5), ("02", 5), ("10", 10), ("90", 90), ("91", 95), ("92", 100), ("13", 20),
     ("78", 75), ("46", 50), ("81", 90), ("71", 85), ("-9", None), ("", None), ("99", None), ("64", None)],
)  # fmt: skip
def test_concentrations_in_percent(code: str, percent: float | None) -> None:
    found = concentration_percent([code])[0]
    assert math.isnan(found) if percent is None else found == percent


def test_classes_of_concentration_rise_with_the_percent() -> None:
    known = {
        code: own for code, own in source_codes("ice_concentration", "sigrid").items() if code not in ("1", "2", "99")
    }
    table = pd.DataFrame({"percent": concentration_percent(list(known)), "own": list(known.values())})
    assert table["percent"].notna().all()
    ranges = table.groupby("own")["percent"].agg(["min", "max"]).sort_index()
    assert (ranges["max"].to_numpy()[:-1] <= ranges["min"].to_numpy()[1:]).all()
    assert all(one("concentration", CT=code)["ground_truth"] == own for code, own in known.items())


def test_water_is_a_class_and_what_is_no_sea_is_none() -> None:
    table = chart({"POLY_TYPE": "W"}, {"CT": "01"}, {"CT": "55", "SA": "99"}, {"CT": "01", "SA": "81", "CA": "01"})
    for what, expected in (("stage", [80, 80, 80, 81]), ("form", [80, 80, 80, 0]), ("concentration", [1, 2, 1, 2])):
        assert ice_classes(table, what)["ground_truth"].tolist() == expected, what
    ground = chart(
        {"POLY_TYPE": "L"}, {"POLY_TYPE": "N "}, {"POLY_TYPE": "s"}, {"POLY_TYPE": "L", "CT": "92", "SA": "95"}
    )
    for what in ("stage", "concentration", "form"):
        found = ice_classes(ground, what)
        assert found["reason"].tolist() == ["land", "no data", "an ice shelf", "land"]
        assert not found["ground_truth"].any()
        assert found["dominant_share"].isna().all()


def test_unknown_is_a_class_and_nothing_written_is_none() -> None:
    assert one(CT="90", SA="99")["ground_truth"] == 99
    assert one("concentration", CT="99", SA="95")["ground_truth"] == 8
    for what in ("stage", "form"):
        assert one(what, CT="90")["reason"] == f"no {what} is written for this ice"
    assert one("concentration", SA="95")["reason"] == "no concentration is written for this ice"
    odd = one(CT="90", SA="45")
    assert (odd["ground_truth"], odd["odd"]) == (99, "45")


@pytest.mark.parametrize(
    ("egg", "form"),
    [
        ({"CF": "0499"}, 4), ({"CF": "08-9"}, 8), ({"CF": "19-9"}, 19), ({"CF": "-9-9"}, 0), ({"CF": "8"}, 8),
        ({"CF": 499}, 4), ({"CF": 1021.0}, 10), ({"FP": "06", "CF": "-9-9"}, 6), ({"FA": "05", "CF": "0499"}, 5),
        ({"CA": "30", "FA": "06", "CB": "50", "FB": "03"}, 3), ({"FA": "22"}, 22), ({"FA": "00"}, 22),
    ],
)  # fmt: skip
def test_forms(egg: dict[str, object], form: int) -> None:
    assert one("form", CT="80", SA="87", **egg)["ground_truth"] == form


def test_fast_ice_is_a_class_of_concentration_however_it_is_told() -> None:
    for egg in ({"FA": "08"}, {"CF": "08-9"}, {"FP": "08"}, {"CF": "08-9", "FA": "05"}):
        assert one("concentration", CT="92", SA="93", **egg)["ground_truth"] == 7
    assert one("concentration", CT="92", SA="93", FA="07")["ground_truth"] == 6
    assert one("concentration", CT="92", CF="0408", FA="08")["ground_truth"] == 6


def test_codes_are_read_however_they_are_stored() -> None:
    as_text = chart(
        {"CT": "91 ", "CA": " 30", "SA": "95", "CB": "60", "SB": "87", "FB": "06"}, {"CT": "01"}, {"CT": "92"}
    )
    numbers = as_text.copy()
    columns = [name for name in EGG if name not in ("POLY_TYPE", "CF")]
    for name in columns:
        numbers[name] = pd.to_numeric(as_text[name])
    gaps = as_text.copy()
    gaps[columns] = gaps[columns].replace("-9", None)
    blanks = as_text.replace("-9", " ")
    floats = numbers.copy()
    floats[columns] = floats[columns].astype(float).replace(-9.0, np.nan)
    for what in ("stage", "concentration", "form"):
        expected = ice_classes(as_text, what)
        for other in (numbers, gaps, blanks, floats, as_text.rename(columns=str.lower)):
            pd.testing.assert_frame_equal(ice_classes(other, what), expected)


@pytest.mark.filterwarnings("ignore:.*set aside. land")
@pytest.mark.parametrize("name", ["cis_SGRDREA_20210705_pl_a.shp", "cis_SGRDREA_20210705_pl_a.gpkg"])
def test_a_chart_in_a_cone_of_its_own(tmp_path: Path, name: str) -> None:
    table = chart(
        {"CT": "92", "SA": "93", "FA": "08", "CF": "08-9"}, {"POLY_TYPE": "L"}, {"POLY_TYPE": "W", "CT": "00"},
        {"CT": "90", "CA": "30", "SA": "95", "CB": "60", "SB": "87"},
    )  # fmt: skip
    table["ID_NEW"] = [11, 12, 13, 14]
    path = tmp_path / name
    pyogrio.write_dataframe(table, path)
    with pytest.warns(DeepSentinelWarning, match="1 of 4 rows set aside: land") as said:
        labels = read_labels(path)
    assert len(said) == 1
    assert labels.attrs["kind"] == "sigrid3"
    assert labels.crs.to_epsg() is None
    assert labels.crs.coordinate_operation.method_name.startswith("Lambert Conic Conformal")
    assert labels["ground_truth"].tolist() == [93, 80, 87]
    assert labels["id"].tolist() == [11, 13, 14]
    assert labels["dominant_share"].round(3).tolist()[0::2] == [1.0, 0.667]
    assert labels[~(labels.dominant_share < 0.7)]["id"].tolist() == [11, 13]
    assert shapely.equals(labels.geometry.to_numpy(), table.geometry.to_numpy()[[0, 2, 3]]).all()
    assert (labels["valid_from"] == pd.Timestamp(2021, 7, 5)).all()
    assert (labels["valid_to"] == pd.Timestamp(2021, 7, 6)).all()
    assert [(entry["row"], entry["id"], entry["reason"]) for entry in labels.attrs["set_aside"]] == [(1, 12, "land")]
    legend = Legend.from_json(labels.attrs["legend"])
    assert legend[93].name == "Thick first-year ice (over 120 cm)"
    assert read_labels(path, value="concentration")["ground_truth"].tolist() == [7, 1, 6]
    groups = read_labels(path, level=1)
    assert (
        groups["ground_truth"].map(Legend.from_json(groups.attrs["legend"]).names).tolist()[0] == "Thick first-year ice"
    )


def test_a_chart_with_odd_codes_says_which(tmp_path: Path) -> None:
    table = gpd.GeoDataFrame(
        {"id": [5, 6, 7, 8], "poly_type": ["I", "I", "I", "W"], "SA": ["13", "13", "95", ""], "SD": ["-9"] * 4},
        geometry=[shapely.box(i, 0, i + 1, 1) for i in range(4)],
        crs="EPSG:32633",
    )
    path = tmp_path / "seaice_s1_20180116t074430.shp"
    pyogrio.write_dataframe(table, path)
    with pytest.warns(DeepSentinelWarning, match="'13' in 2 rows"):
        labels = read_labels(path)
    assert labels["ground_truth"].tolist() == [99, 99, 95, 80]
    assert labels["id"].tolist() == [5, 6, 7, 8]
    assert (labels["valid_from"] == pd.Timestamp(2018, 1, 16)).all()
    assert any("'13'" in note for note in labels.attrs["notes"])


def test_forms_through_a_file_have_a_legend_that_knows_water(tmp_path: Path) -> None:
    path = tmp_path / "chart.gpkg"
    pyogrio.write_dataframe(chart({"CT": "90", "SA": "87", "CF": "0499"}, {"POLY_TYPE": "W"}), path)
    labels = read_labels(path, value="form")
    names = Legend.from_json(labels.attrs["legend"]).names
    assert labels["ground_truth"].map(names).tolist() == ["Medium floe (under 500 m)", "Open water"]
    assert labels["valid_from"].isna().all()
    assert any("no day" in note for note in labels.attrs["notes"])
    assert labels["id"].is_unique


def test_legends_hold_every_class_that_can_come(tmp_path: Path) -> None:
    codes = [f"{i:02d}" for i in range(100)]
    for what, column in (("stage", "SA"), ("concentration", "CT"), ("form", "FA")):
        eggs = [{"CT": "90", "SA": "87"} | {column: code} for code in codes]
        classes = ice_classes(chart(*eggs), what)["ground_truth"]
        assert set(classes) - {0} <= set(chart_legend(what).codes)
    with pytest.raises(InputError, match="stage, concentration, form"):
        read_labels(_written(tmp_path), value="thickness")


def _written(folder: Path) -> Path:
    path = folder / "any.gpkg"
    pyogrio.write_dataframe(chart({"CT": "90", "SA": "87"}), path)
    return path


def test_the_day_of_a_chart() -> None:
    assert chart_day("dmi_201806121200_CapeFarewell_RIC") is None
    assert chart_day("layer", "nic_arctic_20190214_pl_a") == pd.Timestamp(2019, 2, 14)
    assert chart_day("from_20190214_to_20190221") is None
    assert chart_day("x_20190231_y") is None


def test_ice_of_which_nothing_is_written_is_set_aside_aloud(tmp_path: Path) -> None:
    path = tmp_path / "chart_20200101.gpkg"
    pyogrio.write_dataframe(chart({"CT": "90"}, {"CT": "90", "SA": "87"}, {"POLY_TYPE": "L"}), path)
    with pytest.warns(DeepSentinelWarning, match=r"2 of 3 rows set aside: land \(1 row\); no stage is wri") as said:
        labels = read_labels(path)
    assert len(said) == 1
    assert labels["ground_truth"].tolist() == [87]
    told = {entry["row"]: entry["reason"] for entry in labels.attrs["set_aside"]}
    assert told == {0: "no stage is written for this ice", 2: "land"}
