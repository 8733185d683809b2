"""The presets against items as the services really hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, InputError, NothingFoundError, SourceError
from deepsentinel.sources import items as facts
from deepsentinel.sources.assets import band_assets
from deepsentinel.sources.harmonise import s2_offset
from deepsentinel.sources.presets import CDSE, EARTH_SEARCH, PLANETARY_COMPUTER, PRESETS
from deepsentinel.sources.tables import scene_row

L2A = {"B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12", "SCL"}
EARTH_SEARCH_KEYS = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1", "B06": "rededge2",
    "B07": "rededge3", "B08": "nir", "B8A": "nir08", "B09": "nir09", "B11": "swir16", "B12": "swir22", "SCL": "scl",
}  # fmt: skip
NATIVE_M = dict.fromkeys(("B02", "B03", "B04", "B08"), 10) | {"B01": 60, "B09": 60}
PC_ID = "S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531"


def items_of(real: Path, name: str) -> list[dict[str, Any]]:
    document = json.loads((real / "stac_items" / name).read_text())
    return document.get("features") or [document]


def test_planetary_computer_s2(real: Path) -> None:
    (item,) = items_of(real, "pc_sentinel-2-l2a_T06VVN_20190629.json")
    held = band_assets(item)
    assert set(held) == L2A
    assert all(ref.key == name for name, ref in held.items())
    row = scene_row(item)
    assert row is not None
    got = {
        key: row[key] for key in ("id", "sensor", "platform", "level", "baseline", "tile", "relative_orbit", "orbit")
    }
    assert got == {
        "id": PC_ID, "sensor": "S2", "platform": "sentinel-2b", "level": "L2A", "baseline": "02.12", "tile": "06VVN",
        "relative_orbit": 43, "orbit": "descending",
    }  # fmt: skip
    assert row["cloud_cover"] == pytest.approx(0.314306)
    assert row["nodata_share"] == 0
    assert row["datatake"] == "GS2B_20190629T212529_012081_N02.12"
    # baseline 02.12: nothing to subtract; the same scene reprocessed would have it
    assert s2_offset(item, held["B04"], PLANETARY_COMPUTER.offset_rule).add == 0
    item["properties"]["s2:processing_baseline"] = "05.00"
    assert s2_offset(item, held["B04"], PLANETARY_COMPUTER.offset_rule).add == -1000


def test_earth_search_v1(real: Path) -> None:
    for item in items_of(real, "earthsearch_v1_sentinel-2.items.json"):
        held = band_assets(item)
        assert {name: ref.key for name, ref in held.items()} == EARTH_SEARCH_KEYS
        assert all(ref.href.endswith(".tif") for ref in held.values()), "the COG before the JP2"
        row = scene_row(item)
        assert row is not None
        assert row["tile"] == item["id"].split("_")[1]
        assert row["platform"] == f"sentinel-2{item['id'][2].lower()}"
        # These were fetched without the flag and the baseline: the -0.1 that their bands state must not be believed.
        assert held["B04"].offset == -0.1
        assert s2_offset(item, held["B04"], EARTH_SEARCH.offset_rule).add is None


def test_earth_search_with_its_flag(real: Path) -> None:
    (item,) = items_of(real, "openeo_s2_l2a_item.json")
    held = band_assets(item)
    assert {name: ref.key for name, ref in held.items()} == EARTH_SEARCH_KEYS
    assert held["B04"].offset == -0.1
    for rule in (EARTH_SEARCH.offset_rule, "stated"):
        assert s2_offset(item, held["B04"], rule).add == 0, "the flag says it is gone; subtracting again would hurt"
    row = scene_row(item)
    assert row is not None
    assert (row["baseline"], row["tile"], row["relative_orbit"], row["level"]) == ("05.09", "32TPS", 22, "L2A")


def test_earth_search_v0(real: Path) -> None:
    (item,) = items_of(real, "earthsearch_v0_S2A_28QCH_20200714.json")
    held = band_assets(item)
    assert set(held) == L2A
    assert s2_offset(item, held["B04"], "stated").add == 0
    row = scene_row(item)
    assert row is not None
    assert (row["baseline"], row["tile"], row["relative_orbit"]) == ("02.14", "28QCH", 123)
    assert row["nodata_share"] == pytest.approx(0.9315)
    assert row["geometry"].geom_type == "Polygon"
    assert len(row["geometry"].exterior.coords) == 4, "the footprint is the triangle that holds data, not the tile"


@pytest.mark.parametrize(
    ("name", "baseline", "tile"),
    [("cdse_nodata.items.json", "05.12", "55WFR"), ("cdse_proj_code.items.json", "05.00", "36NYH")],
)
def test_cdse(real: Path, name: str, baseline: str, tile: str) -> None:
    (item,) = items_of(real, name)
    held = band_assets(item)
    assert set(held) == L2A
    for band, ref in held.items():
        assert ref.key == f"{band}_{NATIVE_M.get(band, 20)}m", "the native size, not a resampled copy"
        assert ref.href.startswith("s3://eodata/")
        assert ref.nodata == 0
    # the second was sensed in 2020 and reprocessed: the date would say no offset, the baseline knows
    assert s2_offset(item, held["B04"], CDSE.offset_rule).add == -1000
    row = scene_row(item)
    assert row is not None
    assert (row["baseline"], row["tile"], row["level"]) == (baseline, tile, "L2A")
    assert row["datatake"].endswith(f"N{baseline}")


def test_a_grd_item_is_refused_with_the_reason(real: Path) -> None:
    (item,) = items_of(real, "pc_sentinel-1-grd_item.json")
    assert facts.sensor_of(item) == "S1"
    assert facts.backscatter(item) is None
    assert "not terrain corrected" in str(facts.grd_reason(item))
    source = ds.open_source({"type": "FeatureCollection", "features": [item]})
    with (
        pytest.warns(DeepSentinelWarning, match="left out: it is a GRD product"),
        pytest.raises(NothingFoundError, match="no Sentinel scene that can be used"),
    ):
        source.search((-70, -62, -61, -58))
    # Some catalogs invent a projection for GRD: that does not make it terrain corrected.
    item["properties"]["proj:epsg"] = 4326
    assert facts.grd_reason(item) is not None
    item["id"] += "_rtc"
    assert facts.backscatter(item) == "gamma0_rtc"


def test_rtc_collection_agrees_with_the_preset(real: Path) -> None:
    collection = json.loads((real / "stac_items/pc_sentinel-1-rtc.collection.json").read_text())
    assert collection["id"] in PLANETARY_COMPUTER.collections["S1"]
    stated = {asset["raster:bands"][0]["nodata"] for asset in collection["item_assets"].values()}
    assert stated == {PLANETARY_COMPUTER.s1_nodata}
    links = {link["rel"]: link["href"] for link in collection["links"]}
    s2 = json.loads((real / "stac_items/pc_sentinel-2-l2a.collection.json").read_text())
    assert s2["id"] in PLANETARY_COMPUTER.collections["S2"]
    root = next(link["href"] for link in s2["links"] if link["rel"] == "root")
    assert root.rstrip("/") == PLANETARY_COMPUTER.url
    assert links


@pytest.mark.parametrize("name", PRESETS)
def test_a_service_by_its_address_is_the_same_service(name: str) -> None:
    by_address = ds.open_source(PRESETS[name].url + "/")
    assert type(by_address) is type(ds.open_source(name))
    assert by_address.name == name


@pytest.mark.parametrize("name", ["earth-search", "cdse"])
def test_services_with_grd_only_say_so(name: str) -> None:
    source = ds.open_source(name)
    with pytest.raises(InputError, match=r"not terrain corrected.*planetary-computer"):
        source.search((0, 49, 1, 50), "2020-01-01", "2020-02-01", sensors="S1")


def test_cdse_without_keys_says_where_to_get_them(monkeypatch: pytest.MonkeyPatch, real: Path) -> None:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(key, raising=False)
    source = ds.open_source("cdse")
    (item,) = items_of(real, "cdse_nodata.items.json")
    ref = source.assets_of(item)["B04"]
    with pytest.raises(SourceError, match=r"AWS_ACCESS_KEY_ID.*s3keysmanager"):
        source.resolve(ref.href, item, ref.key)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    assert source.resolve(ref.href, item, ref.key) == ref.href


@pytest.mark.parametrize("name", PRESETS)
def test_a_source_says_what_it_is(name: str) -> None:
    source = ds.open_source(name)
    assert source.name == name
    assert PRESETS[name].title in repr(source)
    assert PRESETS[name].url in source.info()
