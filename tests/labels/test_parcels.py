"""Farmers' declarations, held against what pyogrio reads and against codes looked up by hand."""

from __future__ import annotations

import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely

from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.labels import read_labels
from deepsentinel.labels.apart import without
from deepsentinel.labels.codes import code_texts
from deepsentinel.labels.crops import hcat_class, hcat_classes, national_classes, year_in
from deepsentinel.labels.ids import geometry_ids
from deepsentinel.legend import Legend, crops, source_codes

# What each code that occurs in the real extracts means, from the publishers' own names.
AT = {
    "117": "Millet and sorghum", "138": "Winter wheat", "142": "Winter rye", "166": "Spring durum wheat",
    "173": "Grain maize", "213": "Peas", "307": "Sunflower", "308": "Soybeans", "635": "Lucerne",
    "679": "Other fodder crops", "751": "Oil pumpkin", "771": "Fallow land", "901": "Vines",
}  # fmt: skip
VLG = {
    "201": "Silage maize", "202": "Grain maize", "311": "Winter wheat", "381": "Millet and sorghum",
    "60": "Permanent grassland", "63": "Grass and herb or legume mixtures", "71": "Fodder beet and fodder roots",
    "8514": "Onions and leek", "895": "Forest, tree rows and tree groups", "901": "Potatoes", "91": "Sugar beet",
    "9823": "Pasture with trees",
}  # fmt: skip
DE = {
    1: "Wheat, season unspecified", 2: "Rye, season unspecified", 3: "Barley, season unspecified", 5: "Grain maize",
    6: "Oilseeds, unspecified", 7: "Root crops, unspecified", 8: "Permanent grassland", 9: "Other fodder crops",
}  # fmt: skip
FR = {
    "AVP": "Spring oats", "BDH": "Winter durum wheat", "BOP": "Rough pasture, moor and alpine pasture",
    "BOR": "Field margins and buffer strips", "BTA": "Field margins and buffer strips", "BTH": "Winter wheat",
    "BTN": "Sugar beet", "BVF": "Fodder beet and fodder roots", "CTG": "Nuts and chestnuts", "CZH": "Winter rapeseed",
    "DTY": "Temporary grassland", "FLA": "Other vegetables", "J5M": "Fallow land", "J6P": "Fallow land",
    "J6S": "Fallow land", "LDP": "Lupins", "LU5": "Lucerne", "LUZ": "Lucerne", "MCR": "Mixed cereals",
    "MIE": "Silage maize", "MIS": "Grain maize", "NOX": "Nuts and chestnuts", "ORH": "Winter barley",
    "ORP": "Spring barley", "PEP": "Nurseries and young trees", "PPH": "Permanent grassland", "PPR": "Peas",
    "PRL": "Permanent grassland", "PTC": "Potatoes", "PTR": "Temporary grassland", "RGA": "Temporary grassland",
    "SNE": "Fallow land", "SOJ": "Soybeans", "TRN": "Sunflower", "VRC": "Vines", "VRG": "Orchards, unspecified",
    "VRN": "Vines",
}  # fmt: skip
NL = {
    259: "Silage maize", 265: "Permanent grassland", 266: "Temporary grassland", 1067: "Nurseries and young trees",
    1071: "Nurseries and young trees", 1072: "Nurseries and young trees", 1098: "Apples and pears",
    1926: "Field margins and buffer strips", 1932: "Onions and leek", 2014: "Potatoes",
    2725: "Carrots and root vegetables", 2781: "Green beans", 6794: "Fallow land",
}  # fmt: skip
REAL = {
    "at_invekos_2024.gpkg.zip": ("invekos", 31287, "SNAR_CODE", AT, 2024, "GEO_ID"),
    "be_vlg_2023.gpkg": ("flanders", 31370, "GWSCOD_H", VLG, 2023, "REF_ID"),
    "de_fusion_2018.geojson": ("fusion", 25833, "crop_id", DE, 2018, "fid"),
    "fr_rpg_2022.gpkg": ("rpg", 2154, "code_cultu", FR, 2022, "id_parcel"),
    "fr_rpg_eolearn.gpkg": ("rpg", 2154, "code_cultu", FR, None, "id_parcel"),
    "nl_brp_2023.gpkg": ("brp", 28992, "gewascode", NL, 2023, None),
}
NO_FIELDS = {"be_vlg_2023.gpkg": {"11": 4, "12": 3, "14": 2}, "nl_brp_2023.gpkg": {343: 43, 2618: 2, 2621: 2}}

# The crops of several lists beside each other, as the facts on these data sets have them: HCAT, AT, FR, NL, VLG.
SAME_CROP = """
    3301010101 138 BTH 233 311
    3301010401 110 ORH 235 321
    3301010402 111 ORP 236 322
    3301010301 142 SGH -   331
    3301010600 -   MIS 316 202
    3301090400 109 MIE 259 201
    3301060401 301 CZH 1922 4111
    3301290700 651 BTN 256 91
    3301030000 513 PTC 2014 901
    3301160000 308 SOJ 665 43
    3302000000 -   PPH 265 60
    3303060000 901 VRC 1099 9716
"""


def names_of(labels: gpd.GeoDataFrame) -> pd.Series:
    return labels["ground_truth"].map(Legend.from_json(labels.attrs["legend"]).names)


def strips(n: int, crs: str = "EPSG:2154", **columns: object) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(columns, geometry=[shapely.box(9 * i, 0, 9 * i + 7, 5 + i) for i in range(n)], crs=crs)


def written(folder: Path, table: gpd.GeoDataFrame, name: str = "parcels.gpkg") -> Path:
    path = folder / name
    table.to_parquet(path) if path.suffix == ".parquet" else pyogrio.write_dataframe(table, path)
    return path


@pytest.mark.parametrize("name", REAL)
def test_real_extracts_give_every_parcel_its_class_its_crs_and_its_own_columns(real: Path, name: str) -> None:
    kind, epsg, column, meaning, year, id_column = REAL[name]
    path = real / "parcels" / name
    source = pyogrio.read_dataframe(path)
    no_fields = NO_FIELDS.get(name, {})
    with warnings.catch_warnings(record=True, action="always", category=DeepSentinelWarning) as said:
        labels = read_labels(path)
    # What is left out is said in one sentence, however many rows and reasons there are; nothing else is.
    aside = f"{sum(no_fields.values())} of {len(source)} rows set aside"
    assert [str(entry.message).partition(": ")[2].partition(":")[0] for entry in said] == [aside] * bool(no_fields)
    assert labels.attrs["kind"] == kind
    assert labels.crs.to_epsg() == epsg
    fields = source[~source[column].isin(list(no_fields))]
    assert names_of(labels).tolist() == fields[column].map(meaning).tolist()
    assert shapely.equals(labels.geometry.to_numpy(), fields.geometry.to_numpy()).all()
    assert labels[column].tolist() == fields[column].tolist()
    assert set(source.columns) - {"id"} <= set(labels.columns)
    assert labels["id"].is_unique
    if id_column is not None:
        assert labels["id"].tolist() == [int(number) for number in fields[id_column]]
    assert labels["valid_from"].dt.year.unique().tolist() == [year] if year else labels["valid_from"].isna().all()
    if year:
        assert (labels["valid_to"] == pd.Timestamp(year + 1, 1, 1)).all()
    aside = pd.DataFrame(labels.attrs["set_aside"], columns=["row", "id", "reason", "wkt"])
    assert aside["row"].tolist() == np.flatnonzero(source[column].isin(list(no_fields))).tolist()
    assert source[column].iloc[aside["row"]].value_counts().to_dict() == no_fields
    put_by = shapely.from_wkt(aside["wkt"].to_numpy())
    assert shapely.equals_exact(put_by, source.geometry.iloc[aside["row"]].to_numpy(), 1e-6).all()


def test_the_demo_parcels_read_as_a_french_declaration() -> None:
    import deepsentinel as ds

    path = ds.open_source("demo", size_px=512).labels["parcels_2018"]
    source = pyogrio.read_dataframe(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepSentinelWarning)  # a few outlines cross themselves
        labels = read_labels(path)
    assert (labels.attrs["kind"], labels.crs.to_epsg(), len(labels)) == ("rpg", 4326, len(source))
    assert names_of(labels).tolist() == source["CODE_CULTU"].map(FR).tolist()
    assert labels["valid_from"].eq(pd.Timestamp(2018, 1, 1)).all()


@pytest.mark.parametrize("row", SAME_CROP.strip().splitlines())
def test_a_crop_is_one_class_in_whatever_list(row: str) -> None:
    hcat, *codes = row.split()
    expected = hcat_classes([int(hcat)]).classes[0]
    for nation, code in zip(("at", "fr", "nl", "vlg"), codes, strict=True):
        if code != "-":
            assert national_classes([code], nation).classes.tolist() == [expected], nation


def test_every_code_of_the_table_is_in_it_once_and_understood() -> None:
    for nation in ("at", "fr", "nl", "vlg", "de"):
        known = source_codes("crops", nation)
        found = national_classes(list(known), nation)
        assert found.classes.tolist() == list(known.values())
        assert not found.notes
        rows = pd.read_csv(Path(crops.__code__.co_filename).parent / "tables" / "crops.csv", dtype=str)[nation]
        listed = [code for cell in rows.dropna() for code in cell.split("|")]
        assert len(listed) == len(set(listed))


def test_a_finer_hcat_code_is_of_the_class_of_its_closest_ancestor() -> None:
    known = source_codes("crops", "hcat")
    for code, own in known.items():
        assert hcat_class(code) == own
        stem = code.rstrip("0")
        stem += "0" * (len(stem) % 2)
        if 2 < len(stem) < 10:
            finer = (stem + "77").ljust(10, "0")
            assert finer not in known
            assert hcat_class(finer) == own
    assert hcat_class("9901010101") is None
    assert hcat_class("330101") is None


def test_codes_are_the_same_however_they_are_stored() -> None:
    texts = ["7", "138", "", "9716"]
    as_float = [7.0, 138.0, np.nan, 9716.0]
    assert code_texts(texts).tolist() == texts
    assert code_texts(as_float).tolist() == texts
    assert code_texts(pd.Series(as_float, dtype="Int64")).tolist() == texts
    assert code_texts([" 07 ", "138.0", None, "9716"]).tolist() == texts
    assert code_texts(np.array([3301010101], dtype="uint32")).tolist() == ["3301010101"]


def test_unknown_codes_are_kept_counted_and_told(tmp_path: Path) -> None:
    table = strips(
        6, CODE_CULTU=["BTH", "QQ1", "QQ1", "QQ2", "QQ3", None], CODE_GROUP=["1", "21", "21", "99", None, "1"]
    )
    with pytest.warns(DeepSentinelWarning) as told:
        labels = read_labels(written(tmp_path, table))
    said = " ".join(str(entry.message) for entry in told)
    assert "'QQ1' in 2 rows" in said
    assert "'QQ2' in 1 row" in said
    assert "'Vines'" in said
    assert names_of(labels).tolist() == ["Winter wheat", "Vines", "Vines", "Unknown or other", "Unknown or other"]
    assert any("QQ3" in note for note in labels.attrs["notes"])
    assert [(entry["row"], entry["reason"]) for entry in labels.attrs["set_aside"]] == [(5, "no crop code is written")]
    assert len(labels) + len(labels.attrs["set_aside"]) == len(table)


def test_dutch_and_flemish_groups_stand_in_for_codes_that_are_new(tmp_path: Path) -> None:
    dutch = strips(
        2, "EPSG:28992", gewascode=[99991, 99992], gewas=["x", "y"], jaar=2030, category=["Grasland", "Bouwland"]
    )
    flemish = strips(1, "EPSG:31370", GWSCOD_H=["99991"], GWSGRPH_LB=["Aardappelen"], REF_ID=[5])
    with pytest.warns(DeepSentinelWarning, match="not in our table"):
        assert names_of(read_labels(written(tmp_path, dutch))).tolist() == ["Permanent grassland", "Other arable crops"]
    with pytest.warns(DeepSentinelWarning, match="not in our table"):
        assert names_of(read_labels(written(tmp_path, flemish, "b.gpkg"))).tolist() == ["Potatoes"]


def test_upper_and_lower_case_columns_are_the_same(tmp_path: Path) -> None:
    table = strips(3, ID_PARCEL=["5", "6", "7"], CODE_CULTU=["BTH", "VRC", "MIS"], CODE_GROUP=["1", "21", "2"])
    upper = read_labels(written(tmp_path, table, "rpg_2020.gpkg"))
    lower = read_labels(written(tmp_path, table.rename(columns=str.lower), "rpg_2020b.gpkg"))
    first = ["geometry", "ground_truth", "id", "valid_from", "valid_to"]
    pd.testing.assert_frame_equal(pd.DataFrame(upper[first]), pd.DataFrame(lower[first]))


@pytest.mark.filterwarnings("ignore:.*set aside. a landscape element")
def test_ids_made_from_outlines_do_not_depend_on_rows_corners_or_the_extract(real: Path, tmp_path: Path) -> None:
    path = real / "parcels" / "nl_brp_2023.gpkg"
    labels = read_labels(path)
    source = pyogrio.read_dataframe(path)
    turned = source.sample(frac=1, random_state=1)
    turned.geometry = [
        shapely.Polygon(np.roll(np.array(p.exterior.coords)[:-1], 3, axis=0), p.interiors) for p in turned.geometry
    ]
    again = read_labels(written(tmp_path, turned))
    key = {shapely.normalize(shape).wkb: number for shape, number in zip(labels.geometry, labels["id"], strict=True)}
    assert again["id"].tolist() == [key[shapely.normalize(shape).wkb] for shape in again.geometry]
    assert again["id"].tolist() != labels["id"].tolist()
    west, south, east, north = labels.iloc[:5].to_crs("EPSG:4326").total_bounds
    part = read_labels(path, bbox=(west, south, east, north))
    assert 5 <= len(part) < len(labels)
    assert set(part["id"]) <= set(labels["id"])


def test_rows_with_one_outline_have_different_ids_that_follow_their_attributes() -> None:
    shape = shapely.box(0, 0, 1, 1)
    table = gpd.GeoDataFrame({"crop": ["b", "a", "a"]}, geometry=[shape] * 3, crs="EPSG:28992")
    ids = geometry_ids(table)
    assert len(set(ids)) == 3
    assert ids[0] == max(ids)
    assert geometry_ids(table[::-1])[-1] == ids[0]
    with_holes = gpd.GeoDataFrame(geometry=[shape, None, shapely.Point()], crs="EPSG:28992")
    assert len(set(geometry_ids(with_holes))) == 3
    assert 0 < geometry_ids(with_holes)[0] < 2**53


@pytest.mark.parametrize(
    ("name", "year"),
    [
        ("RPG_2-2__GPKG_LAMB93_R53-2023", 2023),
        ("FR_2018_EC21.shp", 2018),
        ("INSPIRE_SCHLAEGE_2024-2_POLYGON", 2024),
        ("Landbouwgebruikspercelen_2023_-_Definitief_(extractie_28-03-2024)", 2023),
        ("RPG_2-0_SHP_LAMB93_R11_2019-01-01", 2019),
        ("export_20240328_brp", None),
        ("from_2018_to_2019", None),
        ("parcels31370", None),
    ],
)
def test_the_year_in_a_name_is_found_and_export_dates_are_not(name: str, year: int | None) -> None:
    assert year_in(name) == year


def test_the_year_is_the_rows_then_the_users_then_the_names(tmp_path: Path) -> None:
    rpg = strips(1, CODE_CULTU=["BTH"])
    assert read_labels(written(tmp_path, rpg, "rpg_2020.gpkg"), year=2021)["valid_from"].dt.year.tolist() == [2021]
    nameless = read_labels(written(tmp_path, rpg, "rpg.gpkg"))
    assert nameless["valid_to"].isna().all()
    assert any("no year" in note for note in nameless.attrs["notes"])
    brp = strips(3, "EPSG:28992", gewascode=[233, 235, 236], jaar=[2019, 2020, 2020], category="Bouwland")
    path = written(tmp_path, brp, "brp_2023.gpkg")
    assert read_labels(path)["valid_from"].dt.year.tolist() == [2019, 2020, 2020]
    chosen = read_labels(path, year=2020)
    assert names_of(chosen).tolist() == ["Winter barley", "Spring barley"]
    assert any("1 of 3 rows" in note for note in chosen.attrs["notes"])
    assert set(chosen["id"]) <= set(read_labels(path)["id"])
    with pytest.raises(InputError, match="2019, 2020"):
        read_labels(path, year=2022)
    brp["jaar"] = [2019.0, np.nan, 2020.0]
    silent = read_labels(written(tmp_path, brp, "brp_2024.gpkg"))
    assert silent["valid_from"].isna().tolist() == [False, True, False]
    assert any(note.startswith("1 of 3 rows tell no year") for note in silent.attrs["notes"])


def test_the_date_of_an_austrian_outline_is_not_its_validity(real: Path) -> None:
    labels = read_labels(real / "parcels" / "at_invekos_2024.gpkg.zip")
    drawn = pd.to_datetime(labels["GEOM_DATE_CREATED"], utc=True).dt.year
    assert (drawn != 2024).any()
    assert (labels["valid_from"].dt.year == 2024).all()


@pytest.mark.parametrize(("level", "name"), [(1, "Arable land"), (2, "Cereals"), (3, "Winter wheat")])
def test_levels(tmp_path: Path, level: int, name: str) -> None:
    labels = read_labels(written(tmp_path, strips(1, CODE_CULTU=["BTH"])), level=level)
    assert names_of(labels).tolist() == [name]


def fiboa(newer: bool, **columns: object) -> gpd.GeoDataFrame:
    table = strips(4, "EPSG:31370", id=["a", "b", "c", "d"], **columns)
    date = "determination:datetime" if newer else "determination_datetime"
    table[date] = pd.to_datetime(["2021-05-01T00:00:00Z"] * 3 + ["2022-05-01T00:00:00Z"])
    table["metrics:area" if newer else "area"] = table.area if newer else table.area / 10_000
    return table


@pytest.mark.parametrize("newer", [False, True])
def test_fiboa_by_hcat_codes_beyond_32_bits(tmp_path: Path, newer: bool) -> None:
    codes = np.array([3301010101, 3301061219, 3303060000, 4000000000], dtype="uint32")
    table = fiboa(newer, **{"crop:code": ["x"] * 4, "hcat:code": codes})
    with pytest.warns(DeepSentinelWarning, match="'4000000000' in 1 row"):
        labels = read_labels(written(tmp_path, table, "f.parquet"))
    assert labels.attrs["kind"] == "fiboa"
    assert labels.crs.to_epsg() == 31370
    assert labels["hcat:code"].tolist() == codes.tolist()
    assert names_of(labels).tolist()[:3] == ["Winter wheat", "Herbs, spices and medicinal plants", "Vines"]
    assert names_of(labels).tolist()[3] == "Unknown or other"
    assert labels["id"].tolist() == list("abcd")
    assert labels["valid_from"].dt.year.tolist() == [2021, 2021, 2021, 2022]
    assert ("m2" if newer else "ha") in " ".join(labels.attrs["notes"])


def test_fiboa_falls_back_to_the_countrys_codes_then_to_names_then_to_fields(tmp_path: Path) -> None:
    lists = {"crop:code_list": "https://fiboa.org/code/be/vlg.csv", "crop:code": ["311", "321", "901", "9716"]}
    own = read_labels(written(tmp_path, fiboa(True, **lists), "own.parquet"))
    expected = ["Winter wheat", "Winter barley", "Potatoes", "Vines"]
    assert names_of(own).tolist() == expected
    gaps = pd.array([3301160000, None, None, 3303060000], dtype="UInt32")
    mixed = read_labels(written(tmp_path, fiboa(True, **lists, **{"hcat:code": gaps}), "mixed.parquet"))
    assert names_of(mixed).tolist() == ["Soybeans", *expected[1:]]
    unlisted = fiboa(True, **{"crop:code": ["1", "2", "1", "3"], "crop:name": ["rye", "hop", "rye", None]})
    with pytest.warns(DeepSentinelWarning, match="1 of 4 rows set aside: no crop code"):
        named = read_labels(written(tmp_path, unlisted, "named.parquet"))
    assert names_of(named).tolist() == ["rye", "hop", "rye"]
    assert named.attrs["set_aside"][0]["id"] == "d"
    assert names_of(read_labels(written(tmp_path, fiboa(False), "fields.parquet"))).tolist() == ["Field"] * 4


def test_eurocrops_is_told_from_the_country_it_came_from(tmp_path: Path) -> None:
    table = strips(
        3, ID_PARCEL=["3", "4", "5"], CODE_CULTU=["BTH", "BTH", "BTH"], EC_trans_n="wheat",
        EC_hcat_n="x", EC_hcat_c=["3301010101", "3301160000", None],
    )  # fmt: skip
    with pytest.warns(DeepSentinelWarning, match="1 of 3 rows set aside: no crop code"):
        labels = read_labels(written(tmp_path, table, "FR_2018_EC21.gpkg"))
    assert labels.attrs["kind"] == "eurocrops"
    assert names_of(labels).tolist() == ["Winter wheat", "Soybeans"]
    assert (labels["id"].tolist(), labels["valid_from"].dt.year.tolist()) == ([3, 4], [2018, 2018])
    assert labels.attrs["set_aside"][0]["id"] == 5
    assert read_labels(tmp_path / "FR_2018_EC21.gpkg", kind="rpg").attrs["kind"] == "rpg"


def test_broken_outlines_are_told_by_their_row_in_the_file(tmp_path: Path) -> None:
    bow_tie = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    table = strips(3, "EPSG:31370", GWSCOD_H=["11", "60", "60"], REF_ID=[7, 8, 9])
    table.geometry = [table.geometry.iloc[0], bow_tie, table.geometry.iloc[2]]
    with (
        pytest.warns(DeepSentinelWarning, match="1 of 2 geometries were repaired"),
        pytest.warns(DeepSentinelWarning, match="1 of 3 rows set aside: a building. It is listed"),
    ):
        labels = read_labels(written(tmp_path, table))
    assert [(entry["row"], entry["id"]) for entry in labels.attrs["repairs"]] == [(1, 8)]
    assert [(entry["row"], entry["id"]) for entry in labels.attrs["set_aside"]] == [(0, 7)]
    assert labels.area.round(9).tolist()[0] == 2.0


def test_all_reasons_are_said_in_one_sentence_with_their_counts(tmp_path: Path) -> None:
    table = strips(6, "EPSG:31370", GWSCOD_H=["11", "60", None, "60", "12", "60"], REF_ID=range(6))
    table.geometry = [*table.geometry[:3], None, *table.geometry[4:]]
    with pytest.warns(DeepSentinelWarning) as said:
        labels = read_labels(written(tmp_path, table))
    (words,) = [str(entry.message).partition(": ")[2] for entry in said]
    assert words.startswith("4 of 6 rows set aside: a building (2 rows); no crop code is written (1 row); no geometry")
    assert len(labels) == 2
    assert len(labels.attrs["set_aside"]) == 4


def test_a_column_that_asked_for_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = written(tmp_path, strips(3, CODE_CULTU=["BTH", "MIS", "BTH"], ID_PARCEL=["1", "2", "3"]))
    with pytest.raises(InputError, match=r"rasterize\(labels, grid, value='CODE_CULTU'\)") as said:
        read_labels(path, value="code_cultu")
    assert "kind='canonical', value='CODE_CULTU'" in str(said.value)
    own = read_labels(path, kind="canonical", value="CODE_CULTU")
    assert own["class_name"].tolist() == ["BTH", "MIS", "BTH"]
    with pytest.raises(InputError) as said:
        read_labels(path, value="no_column")
    assert "stays in the table" not in str(said.value)


def test_a_country_of_ditches_does_not_fill_the_attributes() -> None:
    table = strips(2500, "EPSG:28992")
    kept = without(table, np.array([""] + ["a ditch"] * 2499, dtype=object))
    assert len(kept) == 1
    assert len(kept.attrs["set_aside"]) == 1000
    assert kept.attrs["notes"] == ["2499 of 2500 rows set aside, the first 1000 of them listed: a ditch"]


def test_a_box_without_parcels_gives_an_empty_table_that_says_so(real: Path, tmp_path: Path) -> None:
    paths = [real / "parcels" / name for name in REAL]
    paths.append(written(tmp_path, fiboa(True, **{"hcat:code": [3301010101] * 4}), "f.parquet"))
    for path in paths:
        with pytest.warns(DeepSentinelWarning, match="no row touches"):
            labels = read_labels(path, bbox=(20.0, 60.0, 20.1, 60.1))
        assert len(labels) == 0
        assert list(labels.columns[:5]) == ["geometry", "ground_truth", "id", "valid_from", "valid_to"]
        assert labels["ground_truth"].dtype == "int64"
