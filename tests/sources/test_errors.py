"""Bad input, one test a message: each says what happened, where, and what to do."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import shapely
from fake_services import FakeService
from stac_builders import MADE_AOI, S2_DATES, made_grid

import deepsentinel as ds
from deepsentinel.errors import (
    AreaError,
    DeepSentinelError,
    DeepSentinelWarning,
    InputError,
    NothingFoundError,
    ReadError,
    SourceError,
)
from deepsentinel.sources.stac import StacSource

Items = list[dict[str, Any]]


@pytest.fixture
def source(coast_catalog: Path) -> StacSource:
    return ds.open_source(coast_catalog)


@pytest.fixture
def s2_row(source: StacSource) -> pd.Series:
    return source.search(MADE_AOI, sensors="S2").iloc[0]


def said(error: type[Exception], call: Any, *words: str) -> str:
    """The call raises this error, whose message holds all these words."""
    with pytest.raises(error) as problem:
        call()
    assert isinstance(problem.value, DeepSentinelError | TypeError)
    text = str(problem.value)
    for word in words:
        assert word in text, f"{word!r} is not in: {text}"
    assert text.rstrip().endswith((".", ")", "?")), f"not a sentence: {text}"
    return text


# -- searching --------------------------------------------------------------------------------------------------------


def test_no_scenes_says_what_was_searched_and_what_to_widen(source: StacSource) -> None:
    said(
        NothingFoundError,
        lambda: source.search(MADE_AOI, "2021-01-01", "2021-02-01", max_cloud=20),
        "Nothing found in test: S1 and S2, lon 3.0010..3.0110, lat 49.1930..49.1990",
        "from 2021-01-01 to 2021-02-01, cloud cover at most 20 %",
        "2 S1 and 3 S2 scenes, 2020-06-01 to 2020-06-21",
        "5 touch the area, none in this period: widen the dates",
    )


def test_too_cloudy_says_how_clear_the_clearest_is(source: StacSource) -> None:
    said(
        NothingFoundError,
        lambda: source.search(MADE_AOI, "2020-06-10", "2020-06-30", sensors="S2", max_cloud=10),
        "2 match the area and dates",
        "the clearest has 40 % of cloud",
        "raise max_cloud",
    )


def test_area_outside_the_catalog(source: StacSource) -> None:
    said(
        NothingFoundError,
        lambda: source.search((20, 10, 21, 11)),
        "outside the catalog",
        "lon 2.9997..3.0129",
        "lon, lat",
    )


def test_area_in_a_gap_of_the_catalog(coast_items: Items) -> None:
    far = copy.deepcopy(coast_items[0])
    far["id"] += "_far"
    far["geometry"] = shapely.box(5, 51, 5.1, 51.1).__geo_interface__
    source = ds.open_source({"type": "FeatureCollection", "features": [*coast_items, far]})
    said(NothingFoundError, lambda: source.search((4, 50, 4.1, 50.1)), "None of them touches the area")


def test_sensor_that_the_catalog_has_not(coast_items: Items) -> None:
    optical = [one for one in coast_items if one["id"].startswith("S2")]
    source = ds.open_source({"type": "FeatureCollection", "features": optical})
    said(NothingFoundError, lambda: source.search(MADE_AOI, sensors="S1"), "It holds none of S1")


def test_one_id_in_two_collections_is_said(coast_items: Items) -> None:
    twin = {**copy.deepcopy(coast_items[0]), "collection": "sentinel-2-l1c"}
    both = {"type": "FeatureCollection", "features": [*coast_items, twin]}
    with pytest.warns(DeepSentinelWarning, match="in two collections under one id"):
        found = ds.open_source(both).search(MADE_AOI)
    assert found.id.is_unique
    chosen = ds.open_source(both, collections={"S2": "sentinel-2-l1c"}).search(MADE_AOI, sensors="S2")
    assert chosen.collection.tolist() == ["sentinel-2-l1c"]


def test_grd_is_no_matter_to_who_asks_for_optical(coast_items: Items) -> None:
    grd = copy.deepcopy(next(one for one in coast_items if one["id"].startswith("S1")))
    grd |= {"id": "S1A_IW_GRDH_1SDV_20200603T055000", "collection": "sentinel-1-grd"}
    source = ds.open_source({"type": "FeatureCollection", "features": [*coast_items, grd]})
    assert len(source.search(MADE_AOI, sensors="S2")) == len(S2_DATES)
    with pytest.warns(DeepSentinelWarning, match="1 scene.* were left out: it is a GRD product"):
        assert grd["id"] not in set(source.search(MADE_AOI).id)
    said(ReadError, lambda: source.read({"sensor": "S1", "id": grd["id"]}, made_grid()), "GRD product, uncalibrated")


def test_nothing_at_a_service(service: FakeService) -> None:
    source = ds.open_source(service.url)
    said(
        NothingFoundError,
        lambda: source.search(MADE_AOI, "2015-01-01", "2015-02-01", max_cloud=5),
        "sentinel-1-rtc, sentinel-2-l2a",
        "They begin on 2014-10-10",
        "Widen the dates or the area, or raise max_cloud",
    )


def test_dates_reversed(source: StacSource) -> None:
    said(
        InputError,
        lambda: source.search(MADE_AOI, "2020-07-01", "2020-06-01"),
        "reversed: start 2020-07-01 lies after end 2020-06-01",
    )


@pytest.mark.parametrize("date", ["yesterday-ish", "2020-13-01", "01.06.2020 oder so", object(), pd.NaT])
def test_no_date(source: StacSource, date: Any) -> None:
    said(InputError, lambda: source.search(MADE_AOI, date), "is not a date", "2018-05-01")


@pytest.mark.parametrize("sensors", ["S3", ("S1", "Landsat"), ("s2",)])
def test_unknown_sensor(source: StacSource, sensors: Any) -> None:
    said(InputError, lambda: source.search(MADE_AOI, sensors=sensors), "Unknown sensor", "'S1' (radar) and 'S2'")


def test_no_sensor(source: StacSource) -> None:
    said(InputError, lambda: source.search(MADE_AOI, sensors=()), "sensors= is empty")


@pytest.mark.parametrize("limit", [-1, 101, "20", True, float("nan")])
def test_cloud_limit(source: StacSource, limit: Any) -> None:
    said(InputError, lambda: source.search(MADE_AOI, max_cloud=limit), "percentage from 0 to 100")


@pytest.mark.parametrize("point", [shapely.Point(3.005, 49.195), {"type": "Point", "coordinates": [3.005, 49.195]}])
def test_a_point_is_no_area(source: StacSource, point: Any) -> None:
    with pytest.raises(AreaError, match=r"(?i)point"):
        source.search(point)


def test_unknown_keywords_raise(source: StacSource, s2_row: pd.Series) -> None:
    with pytest.raises(TypeError, match="cloud"):
        source.search(MADE_AOI, cloud=20)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="resolutoin"):
        source.read(s2_row, made_grid(), resolutoin=10)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="on_eror"):
        source.read_many(s2_row, made_grid(), on_eror="skip")  # type: ignore[call-arg]


# -- opening ----------------------------------------------------------------------------------------------------------


def test_unknown_source_suggests_the_nearest() -> None:
    said(
        InputError, lambda: ds.open_source("planetary-compter"), "Did you mean 'planetary-computer'?", "'earth-search'"
    )
    said(InputError, lambda: ds.open_source("landsat"), "Unknown source 'landsat'", "'demo'")
    said(InputError, lambda: ds.open_source("earthengine"), "Did you mean 'earth-engine'?")


@pytest.mark.parametrize("name", ["planetary-computer", "earth-search"])
def test_unknown_option(name: str) -> None:
    said(
        TypeError, lambda: ds.open_source(name, colections="a"), "no option 'colections'", "Did you mean 'collections'?"
    )


def test_unknown_option_of_a_catalog(coast_catalog: Path) -> None:
    said(TypeError, lambda: ds.open_source(coast_catalog, asets={}), "no option 'asets'", "Did you mean 'assets'?")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"assets": {"B99": "blue"}}, "'B99' is not a band name"),
        ({"assets": {"B02": "blue:0"}}, "'name:2' for its second band"),
        ({"collections": "mystery"}, "collections={'S2': 'mystery'}"),
        ({"s1_units": "volts"}, "'dB', 'power'"),
        ({"s1_backscatter": "beta0"}, "'gamma0_rtc' or 'sigma0'"),
        ({"s2_offset": 1000}, "0 or -1000"),
        ({"s2_level": "L3"}, "'L1C' or 'L2A'"),
    ],
)
def test_options_that_make_no_sense(coast_catalog: Path, option: dict[str, Any], words: str) -> None:
    said(InputError, lambda: ds.open_source(coast_catalog, **option), words)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    said(
        SourceError,
        lambda: ds.open_source(tmp_path / "catalog.json"),
        "There is no file",
        "catalog.json",
        "Check the path",
    )


def test_a_folder_without_a_catalog(tmp_path: Path) -> None:
    said(InputError, lambda: ds.open_source(tmp_path), "without a catalog.json")
    said(InputError, lambda: ds.open_source(tmp_path), "no downloaded product (.SAFE, zipped or not)")


def test_bad_json(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text('{"type": "Catalog", "links": [')
    said(SourceError, lambda: ds.open_source(tmp_path), "catalog.json is not readable JSON")


def test_json_that_is_not_stac(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text('{"hello": "world"}')
    said(SourceError, lambda: ds.open_source(tmp_path), "is JSON but not STAC")


def test_a_web_page_instead_of_a_catalog(tmp_path: Path, service: FakeService) -> None:
    (tmp_path / "catalog.json").write_text("<!DOCTYPE html><html></html>")
    said(SourceError, lambda: ds.open_source(tmp_path), "is a web page, not a STAC catalog")
    said(SourceError, lambda: ds.open_source(f"{service.url}/page.html"), "is a web page", "JSON")


def test_one_collection_of_an_api(service: FakeService) -> None:
    """Its items come in pages: read as files, the first page would pass for all there is."""
    address = f"{service.url}/collections/sentinel-2-l2a"
    said(
        InputError,
        lambda: ds.open_source(address),
        "is one collection of a STAC API",
        "collections={'S2': 'sentinel-2-l2a'}",
    )


def test_nothing_at_the_address(service: FakeService) -> None:
    said(SourceError, lambda: ds.open_source(f"{service.url}/nowhere.json"), "404", "nowhere.json")


def test_no_service_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    said(SourceError, lambda: ds.open_source("http://127.0.0.1:9/stac"), "http://127.0.0.1:9/stac", "Check the network")


def test_a_link_into_nothing(coast_items: Items, tmp_path: Path) -> None:
    root = {"type": "Catalog", "id": "x", "stac_version": "1.0.0", "links": [{"rel": "item", "href": "gone.json"}]}
    (tmp_path / "catalog.json").write_text(json.dumps(root))
    source = ds.open_source(tmp_path)
    said(SourceError, lambda: source.search(MADE_AOI), "gone.json", "A catalog links to it")


# -- reading ----------------------------------------------------------------------------------------------------------


def test_unknown_band(source: StacSource, s2_row: pd.Series) -> None:
    said(InputError, lambda: source.read(s2_row, made_grid(), bands=["b8a"]), "Unknown band 'b8a'", "'B8A'")
    said(InputError, lambda: source.read(s2_row, made_grid(), bands=[]), "bands= is empty")


def test_missing_asset_names_the_scene_and_what_it_has(coast_items: Items) -> None:
    one = copy.deepcopy(coast_items[0])
    del one["assets"]["B08"]
    source = ds.open_source({"type": "FeatureCollection", "features": [one]})
    row = source.search(MADE_AOI).iloc[0]
    said(
        ReadError,
        lambda: source.read(row, made_grid(), bands=["B04", "B08"]),
        f"Scene {one['id']} has no B08",
        "it has B01, B02",
        "assets={...}",
    )
    assert "B08" not in source.read(row, made_grid())


def test_scene_without_any_band(coast_items: Items) -> None:
    one = copy.deepcopy(coast_items[0])
    one["assets"] = {"thumbnail": one["assets"]["B04"], "mystery": one["assets"]["B04"]}
    source = ds.open_source({"type": "FeatureCollection", "features": [one]})
    row = source.search(MADE_AOI).iloc[0]
    said(ReadError, lambda: source.read(row, made_grid()), "has no asset that is a band", "thumbnail, mystery")


def test_radar_without_vv_names_its_polarisations(coast_items: Items) -> None:
    one = copy.deepcopy(next(i for i in coast_items if i["id"].startswith("S1")))
    one["assets"] = {"hh": one["assets"]["vv"]}
    source = ds.open_source({"type": "FeatureCollection", "features": [one]})
    row = source.search(MADE_AOI).iloc[0]
    said(ReadError, lambda: source.read(row, made_grid(), bands=["VV"]), "has no VV: its polarisations are HH")


def test_truncated_file_names_scene_band_and_file(coast_items: Items, tmp_path: Path) -> None:
    one = copy.deepcopy(coast_items[0])
    whole = Path(one["assets"]["B04"]["href"]).read_bytes()
    for share in (0.5, 0.9):
        short = tmp_path / f"short-{share}.tif"
        short.write_bytes(whole[: int(len(whole) * share)])
        one["assets"]["B04"]["href"] = str(short)
        source = ds.open_source({"type": "FeatureCollection", "features": [one]})
        row = source.search(MADE_AOI).iloc[0]
        said(ReadError, lambda s=source, r=row: s.read(r, made_grid()), one["id"], "B04", short.name)


def test_grids(source: StacSource, s2_row: pd.Series) -> None:
    said(InputError, lambda: source.read(s2_row, MADE_AOI), "is a tuple, not a GeoBox", "ds.geobox(aoi, resolution=10)")
    said(InputError, lambda: source.read(s2_row, made_grid().rotate(10)), "rotated or not north up")
    far = made_grid().translate_pix(100_000, 0)
    said(ReadError, lambda: source.read(s2_row, far), "They do not touch", str(s2_row.id))
    table = source.search(MADE_AOI, sensors="S2")
    said(InputError, lambda: source.read_many(table, [made_grid()] * 2), f"{len(S2_DATES)} rows and 2 grids")


def test_what_is_no_row(source: StacSource, s2_row: pd.Series) -> None:
    said(InputError, lambda: source.read({"name": "x"}, made_grid()), "not a row of pairs or scenes", "pairs.iloc[0]")
    said(InputError, lambda: source.read(pd.DataFrame({"x": [1]}), made_grid()), "columns x", "ds.pair")
    said(InputError, lambda: source.read(pd.DataFrame({"id": [], "sensor": []}), made_grid()), "table is empty")
    said(InputError, lambda: source.read(s2_row, made_grid(), bands=["B04", "VV"]), "VV", "scene of the other sensor")


def test_resampling(source: StacSource, s2_row: pd.Series) -> None:
    said(
        InputError,
        lambda: source.read(s2_row, made_grid(), resampling="fancy"),
        "Unknown resampling 'fancy'",
        "bilinear",
    )
    said(InputError, lambda: source.read(s2_row, made_grid(), resampling={"SCL": "bilinear"}), "SCL holds codes")
    said(InputError, lambda: source.read(s2_row, made_grid(), resampling={"B4": "cubic"}), "'B4' is no band")
    said(InputError, lambda: source.read_many(s2_row, made_grid(), on_error="ignore"), "'record', 'skip' or 'raise'")


def test_levels_do_not_mix(coast_items: Items) -> None:
    top = copy.deepcopy(coast_items[0])
    top |= {"id": "S2A_31UDQ_20200606_0_L1C", "collection": "sentinel-2-l1c"}
    source = ds.open_source({"type": "FeatureCollection", "features": [*coast_items, top]})
    table = source.search(MADE_AOI, sensors="S2")
    said(
        InputError,
        lambda: source.read(table, made_grid(), bands=["B04"]),
        "mixes level L1C and L2A",
        "table.level == 'L2A'",
    )


def test_units_that_nobody_states(coast_items: Items) -> None:
    one = copy.deepcopy(next(i for i in coast_items if i["id"].startswith("S1")))
    one |= {"id": "S1A_sigma0_20200602", "collection": "sentinel-1-sigma0"}
    source = ds.open_source({"type": "FeatureCollection", "features": [one]})
    row = source.search(MADE_AOI).iloc[0]
    assert row.backscatter == "sigma0"
    said(ReadError, lambda: source.read(row, made_grid()), "dB or linear power", "s1_units='dB'")
    told = ds.open_source({"type": "FeatureCollection", "features": [one]}, s1_units="power")
    ds.check_patch(told.read(row, made_grid()))


def test_an_offset_that_nobody_states(coast_items: Items) -> None:
    one = copy.deepcopy(coast_items[1])
    del one["properties"]["s2:processing_baseline"]
    source = ds.open_source({"type": "FeatureCollection", "features": [one]})
    row = source.search(MADE_AOI).iloc[0]
    said(
        ReadError,
        lambda: source.read(row, made_grid()),
        "nobody knows whether 1000 must be subtracted",
        "s2_offset=-1000",
    )


def test_an_empty_catalog_says_so() -> None:
    source = ds.open_source({"type": "FeatureCollection", "features": []})
    with pytest.raises(NothingFoundError, match="holds no Sentinel scene"):
        source.search((2, 48, 3, 49))


@pytest.mark.parametrize("name", ["labels.gpkg", "cube.nc"])
def test_a_file_of_another_kind_is_told_what_a_source_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"SQLite format 3\0\x10\0\x01\x01\0" if name.endswith("gpkg") else b"\x89HDF\r\n\x1a\n\0\0\0")
    with pytest.raises(SourceError, match=rf"{name} is no catalog.*ds\.read_labels"):
        ds.open_source(str(path))
