"""Services: APIs that page and tire, tokens that expire, files on S3 that want keys."""

from __future__ import annotations

import copy
import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_services import FakeService
from stac_builders import MADE_AOI, S1_DATES, S2_DATES, made_dn, made_grid

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, SourceError
from deepsentinel.sources.presets import CDSE, EARTH_SEARCH, PLANETARY_COMPUTER
from deepsentinel.sources.services import SignedSource, TokenSigner, open_preset

N_SCENES = len(S1_DATES) + len(S2_DATES)
Items = list[dict[str, Any]]


# -- APIs -------------------------------------------------------------------------------------------------------------


def test_pages_are_followed_and_moods_are_sat_out(service: FakeService) -> None:
    source = open_preset(dataclasses.replace(PLANETARY_COMPUTER, page_items=1, signing_url=None), service.url)
    service.moods = [429, 502]
    scenes = source.search(MADE_AOI, "2020-06-01", "2020-06-30")
    assert len(scenes) == N_SCENES
    assert not service.moods
    pages = [one.get("token", 0) for one in service.searches if one["collections"] == ["sentinel-2-l2a"]]
    assert pages == [0, 1, 2]


def test_the_service_filters_by_cloud_and_so_do_we(service: FakeService) -> None:
    source = open_preset(dataclasses.replace(PLANETARY_COMPUTER, signing_url=None), service.url)
    assert len(source.search(MADE_AOI, "2020-06-01", "2020-06-30", max_cloud=60)) == N_SCENES - 1
    by_sensor = {one["collections"][0]: one.get("query") for one in service.searches}
    assert by_sensor == {"sentinel-2-l2a": {"eo:cloud_cover": {"lte": 60.0}}, "sentinel-1-rtc": None}
    assert len(ds.open_source(service.url).search(MADE_AOI, "2020-06-01", "2020-06-30", max_cloud=60)) == N_SCENES - 1


def test_cdse_filters_by_cloud_in_cql2(service: FakeService) -> None:
    source = open_preset(CDSE, service.url)
    assert len(source.search(MADE_AOI, "2020-06-01", "2020-06-30", sensors="S2", max_cloud=60)) == 2
    (asked,) = service.searches
    assert asked["filter"] == {"op": "<=", "args": [{"property": "eo:cloud_cover"}, 60.0]}
    assert asked["filter-lang"] == "cql2-json"


def test_an_api_that_never_recovers_is_an_error(service: FakeService) -> None:
    from deepsentinel.sources.api import Api

    source = ds.open_source(service.url)
    source._api = Api(service.url, name="the fake", tries=2, backoff_s=0)
    service.moods = [503] * 20
    with pytest.raises(SourceError, match=r"the fake .*does not answer as a STAC API"):
        source.search(MADE_AOI, "2020-06-01", "2020-06-30")


def test_unknown_api_finds_its_collections_and_skips_grd(service: FakeService) -> None:
    grd = copy.deepcopy(next(one for one in service.items if one["id"].startswith("S1")))
    grd |= {"collection": "sentinel-1-grd", "id": "S1A_IW_GRDH_1SDV_20200603T055000"}
    other = {**copy.deepcopy(service.items[0]), "collection": "sentinel-2-l1c", "id": "S2A_31UDQ_20200601_0_L1C"}
    service.items = [*service.items, grd, other]
    scenes = ds.open_source(service.url).search(MADE_AOI)
    assert set(scenes.collection) == {"sentinel-1-rtc", "sentinel-2-l2a"}
    top = ds.open_source(service.url, collections={"S2": "sentinel-2-l1c"}).search(MADE_AOI, sensors="S2")
    assert set(top.collection) == {"sentinel-2-l1c"}


def test_items_are_fetched_by_id_once(service: FakeService) -> None:
    row = {"sensor": "S2", "id": "S2A_31UDQ_20200601_0_L2A"}
    source = ds.open_source(service.url)
    list(source.read_many(row, [made_grid()] * 3, bands=["B04"]))
    assert [one.get("ids") for one in service.searches] == [[row["id"]]]
    lost = pd.DataFrame([{"sensor": "S2", "id": "lost"}] * 50)
    assert not any(source.read_many(lost, made_grid()))
    assert len(service.searches) == 2, "fifty rows of a lost scene are one question"


def test_earth_search_leaves_radar_out_aloud(service: FakeService) -> None:
    source = open_preset(EARTH_SEARCH, service.url)
    with pytest.warns(DeepSentinelWarning, match="Sentinel-1 was left out"):
        scenes = source.search(MADE_AOI, "2020-06-01", "2020-06-30")
    assert set(scenes.sensor) == {"S2"}


# -- signing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def signed(service: FakeService) -> SignedSource:
    """Planetary Computer's ways, with the files behind the fake: they open with the current token only."""
    service.files_need_token = True
    service.items = copy.deepcopy(service.items)
    for one in service.items:
        for asset in one["assets"].values():
            asset["href"] = f"{service.url}/files/{Path(asset['href']).name}"
    import re

    signer = TokenSigner(f"{service.url}/token", host=re.compile(r"(127\.0\.0\.1):\d+$"), clock=lambda: service.now)
    return SignedSource(service.url, preset=PLANETARY_COMPUTER, signer=signer)


def tokens_fetched(service: FakeService) -> int:
    return service.counts["/token/127.0.0.1/files"]


def test_signed_late_and_once(signed: SignedSource, service: FakeService) -> None:
    pairs = ds.pair(signed.search(MADE_AOI, "2020-06-01", "2020-06-30"), aoi=MADE_AOI, max_days=3)
    assert tokens_fetched(service) == 0, "searching signs nothing"
    patches = list(signed.read_many(pairs, made_grid(), bands=["B04", "VV"]))
    assert all(patches)
    assert tokens_fetched(service) == 1
    assert "sig=" not in json.dumps({key: str(value) for key, value in patches[0].attrs.items()})


def test_tokens_are_renewed_a_minute_before_they_end(signed: SignedSource, service: FakeService) -> None:
    row = signed.search(MADE_AOI, "2020-06-01", "2020-06-30", sensors="S2").iloc[0]
    for passed_s, fetched in ((0, 1), (3530, 1), (15, 2), (30, 2)):
        service.now += passed_s
        signed.read(row, made_grid(), bands=["B04"])
        assert tokens_fetched(service) == fetched


def test_a_refused_token_is_replaced_once(signed: SignedSource, service: FakeService) -> None:
    row = signed.search(MADE_AOI, "2020-06-01", "2020-06-30", sensors="S2").iloc[0]
    signed.read(row, made_grid(), bands=["B04"])
    service.token = "two"  # the service has changed its mind before the time was up
    patch = signed.read(row, made_grid(), bands=["B04", "B8A"])
    assert int(patch["B04"].max()) > 0
    assert tokens_fetched(service) == 2
    service.files_need_token = True
    service.valid_s, service.token = 3600, "three"
    assert all(signed.read_many(row, [made_grid()] * 2, bands=["B03"]))


def test_many_threads_ask_for_one_token(service: FakeService) -> None:
    import re

    signer = TokenSigner(f"{service.url}/token", host=re.compile(r"(127\.0\.0\.1):\d+$"), clock=lambda: service.now)
    threads = [threading.Thread(target=signer.sign, args=(f"{service.url}/files/a.tif",)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tokens_fetched(service) == 1
    assert signer.sign("https://elsewhere.org/a.tif") == "https://elsewhere.org/a.tif"
    assert signer.sign(f"{service.url}/files/a.tif?sig=mine").endswith("?sig=mine")


# -- S3 ---------------------------------------------------------------------------------------------------------------


def test_jp2_on_s3_with_keys(
    service: FakeService, coast_items: Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CDSE's ways: JP2 files on an S3 store of its own, whose settings must reach the threads that read."""
    import rasterio

    one = copy.deepcopy(next(i for i in coast_items if i["id"] == "S2A_31UDQ_20200611_0_L2A"))
    with rasterio.open(one["assets"]["B04"]["href"]) as file:
        profile, data = file.profile, file.read()
    lossless = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    kept = {key: profile[key] for key in ("width", "height", "count", "dtype", "crs", "transform")}
    with rasterio.open(tmp_path / "B04_10m.jp2", "w", **kept, **lossless) as file:
        file.write(data)
    one["assets"] = {"B04_10m": {"href": "s3://eodata/B04_10m.jp2", "type": "image/jp2"}}
    service.items, service.files = [one], tmp_path
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    settings = {**CDSE.gdal, "AWS_S3_ENDPOINT": service.url.removeprefix("http://"), "AWS_HTTPS": "NO"}
    source = open_preset(dataclasses.replace(CDSE, gdal=settings), service.url)
    row = source.search(MADE_AOI, "2020-06-01", "2020-06-30", sensors="S2").iloc[0]
    patch = source.read(row, made_grid())
    np.testing.assert_array_equal(patch["B04"], made_dn("B04", 1))
    assert patch.attrs["offset_removed"] == 1000
    (many,) = source.read_many(row, made_grid())
    assert many.identical(patch)
    assert not rasterio.env.hasenv(), "GDAL's settings of this thread are the user's own"
