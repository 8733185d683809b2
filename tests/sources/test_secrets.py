"""Keys, tokens and passwords are planted wherever users and services keep them, and looked for wherever they must not
be: in logs, errors and what these were raised from, reprs, attributes, saved corpora, and caches."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import logging
import pickle
import re
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fault_server import FOR_BLOCKS, FOR_RANGES, FaultService, faulty
from source_kinds import END, SIZE_PX, START, World, WorldService
from stac_builders import MADE_AOI, made_grid

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelError
from deepsentinel.sources import patience, wire
from deepsentinel.sources.addresses import redacted, shown
from deepsentinel.sources.demo import DemoSource
from deepsentinel.sources.engine import remote
from deepsentinel.sources.presets import CDSE, PLANETARY_COMPUTER
from deepsentinel.sources.services import SignedSource, TokenSigner, open_preset

SECRET = "PlantedSecret"
ROW = {"sensor": "S2", "id": "S2A_31UDQ_20200601_0_L2A"}
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": f"AKIA{SECRET}1",
    "AWS_SECRET_ACCESS_KEY": f"{SECRET}2",
    "AWS_SESSION_TOKEN": f"{SECRET}3",
    "PC_SDK_SUBSCRIPTION_KEY": f"{SECRET}4",
    "AZURE_STORAGE_ACCESS_KEY": f"{SECRET}5",
    "GOOGLE_APPLICATION_CREDENTIALS": f"/home/{SECRET}6.json",
}


def assert_silent(*said: Any) -> None:
    """Nothing of it holds a planted secret."""
    for one in said:
        text = one if isinstance(one, str) else one.decode("latin-1") if isinstance(one, bytes) else repr(one)
        assert SECRET not in text, re.findall(f".{{0,160}}{SECRET}.{{0,20}}", text)[:3]


def told(problem: BaseException) -> str:
    """All that is printed of an exception, and all that it was raised from."""
    texts = ["".join(traceback.format_exception(problem))]
    seen: set[int] = set()
    waiting: list[BaseException | None] = [problem]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            texts += [repr(one), str(one), repr(vars(one))]
            waiting += [one.__cause__, one.__context__]
    return "\n".join(texts)


def error_of(call: Callable[[], Any]) -> DeepSentinelError:
    with pytest.raises(DeepSentinelError) as problem:
        call()
    return problem.value


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Everything that anybody logs, of whatever importance; looked through when the test is over."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "BACKOFF_S", 0.01)
    monkeypatch.setattr(patience, "time", SimpleNamespace(sleep=lambda _: None))
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert_silent(stream.getvalue())


@pytest.fixture
def service(coast_items: list[dict[str, Any]], coast_files: Path) -> Iterator[FaultService]:
    with faulty(FaultService(copy.deepcopy(coast_items), coast_files)) as running:
        running.token, running.now = f"{SECRET}7%2Bb%2F%3D", time.time()
        yield running


@pytest.fixture
def signed(service: FaultService) -> SignedSource:
    signer = TokenSigner(f"{service.url}/token", host=re.compile(r"(127\.0\.0\.1):\d+$"))
    return SignedSource(service.url, preset=PLANETARY_COMPUTER, signer=signer)


def with_hrefs(service: FaultService, change: Callable[[str], str]) -> dict[str, Any]:
    items = copy.deepcopy(service.items)
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = change(asset["href"].replace(f"{service.files}/", f"{service.url}/files/"))
    return {"type": "FeatureCollection", "features": items}


# -- reading -----------------------------------------------------------------------------------------------------------


def test_what_a_signed_source_shows_of_itself(service: FaultService, signed: SignedSource, log: io.StringIO) -> None:
    scenes = signed.search(MADE_AOI)
    patch = signed.read(ROW, made_grid(), bands=["B04"])
    assert any(SECRET in request.query for request, _ in service.log), "the token was used"
    assert any(request.headers.get("ocp-apim-subscription-key") for request, _ in service.log), "and so was the key"
    said = [
        repr(signed),
        signed.info(),
        signed.name,
        repr(vars(signed)),
        repr(signed._signer),
        repr(vars(signed._signer)),
    ]
    assert_silent(*said, repr(scenes), scenes.attrs, patch.attrs, repr(patch), patch._repr_html_(), pickle.dumps(patch))
    assert_silent(*(repr(patch[name].attrs) for name in patch.variables), patch["B04"].encoding)
    assert "GET /files/" in log.getvalue(), "urllib3 was heard"


def test_the_key_of_the_environment_stays_there(signed: SignedSource, service: FaultService) -> None:
    """Workers have an environment of their own. (The token of a container travels: so many that each asked for one
    would be turned away. It opens public pixels, for an hour.)"""
    service.token = "harmless"
    signed.read(ROW, made_grid(), bands=["B04"])
    assert_silent(pickle.dumps(signed))


FAULTS = sorted({*FOR_RANGES, *FOR_BLOCKS, "403", "404", "409"})


@pytest.mark.parametrize("fault", FAULTS)
def test_errors_of_files(service: FaultService, signed: SignedSource, fault: str) -> None:
    """The library's own exceptions carry the whole address: they are not what ours are raised from."""
    signed.search(MADE_AOI)
    service.plan = lambda request: fault if request.path.endswith("B04.tif") else None
    with suppress(DeepSentinelError):
        assert_silent(told(error_of(lambda: signed.read(ROW, made_grid(), bands=["B04"]))))
    (failure,) = signed.read_many(ROW, made_grid(), bands=["B04"])
    assert not failure
    assert_silent(repr(failure), told(failure.error), pickle.dumps(failure))


@pytest.mark.parametrize("fault", ["stall", "trickle"])
def test_errors_of_files_that_crawl(
    service: FaultService, signed: SignedSource, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "QUIET_S", 0.3)
    monkeypatch.setattr(wire, "SLOW_BYTES_PER_S", 1_000_000)
    monkeypatch.setattr(remote, "TRIES", 2)
    signed.search(MADE_AOI)
    service.plan = lambda request: fault if request.path.endswith("B04.tif") else None
    assert_silent(told(error_of(lambda: signed.read(ROW, made_grid(), bands=["B04"]))))


@pytest.mark.parametrize(
    "change",
    [
        lambda href: f"{href}?sv=2021-08-06&sig={SECRET}a/b+c=&se=2026",
        lambda href: f"{href}?X-Amz-Credential=AKIA{SECRET}%2Feu&X-Amz-Signature={SECRET}",
        lambda href: href.replace("http://", f"http://me:{SECRET}@"),
        lambda href: href.replace("127.0.0.1", "127.0.0.1:9/") + f"?token={SECRET}",
        lambda href: href.replace(".tif", ".jp2") + f"?sig={SECRET}",
        lambda href: f"http://nowhere.invalid/B04.tif?sig={SECRET}",
        lambda href: f"http://nowhere.invalid/B04.jp2?sig={SECRET}",
    ],
    ids=["azure", "amazon", "password", "refused", "not there", "no name", "no name, by GDAL"],
)
@pytest.mark.parametrize("fault", [None, "403", "page", "500"])
def test_hrefs_that_were_signed_by_the_catalog(
    service: FaultService, fault: str | None, change: Callable[[str], str]
) -> None:
    source = ds.open_source(with_hrefs(service, change), name="mine")
    service.plan = lambda request: fault
    (got,) = source.read_many(ROW, made_grid(), bands=["B04"])
    said = [got.attrs, repr(got)] if got else [told(got.error), pickle.dumps(got)]
    assert_silent(*said, repr(source), source.info(), source.opened)
    assert bool(got) == (fault is None and any(word in change("http://x/a.tif") for word in ("sv=", "Amz", "me:")))


def test_a_file_that_gdal_reads_by_itself(service: FaultService, tmp_path: Path) -> None:
    """Not laid out for the cloud: GDAL is handed the whole address, and what it says of it goes through us."""
    import rasterio

    path = service.files / f"{ROW['id']}_B04.tif"
    with rasterio.open(path) as file:
        profile, data = file.profile, file.read()
    for name in ("tiled", "blockxsize", "blockysize"):
        profile.pop(name)
    with rasterio.open(tmp_path / "strips.tif", "w", **profile) as file:
        file.write(data)
    whole = (tmp_path / "strips.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    service.files = tmp_path
    for name, good in (("strips.tif", True), ("cut.tif", False)):
        href = f"{service.url}/files/{name}?sig={SECRET}"
        source = ds.open_source(with_hrefs(service, lambda _, href=href: href), name="mine")
        (got,) = source.read_many(ROW, made_grid(), bands=["B04"])
        assert bool(got) == good
        assert_silent(repr(got) if got else told(got.error))


# -- catalogs and services ---------------------------------------------------------------------------------------------

ADDRESSES = {
    "password": lambda url: url.replace("http://", f"http://me:{SECRET}@"),
    "query": lambda url: f"{url}?key={SECRET}",
}


@pytest.mark.parametrize("where", sorted(ADDRESSES))
@pytest.mark.parametrize("fault", [None, "403", "500", "page", "reset"])
def test_addresses_of_services_and_catalogs(
    service: FaultService, coast_catalog: Path, where: str, fault: str | None
) -> None:
    given = ADDRESSES[where](service.url)
    service.files = coast_catalog.parent
    catalog = ADDRESSES[where](f"{service.url}/files/catalog.json")
    for address in (given, catalog):
        service.plan = lambda request: None
        source = ds.open_source(address)
        assert_silent(repr(source), source.info(), source.name, source.opened)
        service.plan = lambda request, fault=fault: fault
        if fault is None:
            scenes = source.search(MADE_AOI)
            assert_silent(repr(scenes), scenes.attrs)
        else:
            assert_silent(told(error_of(lambda one=source: one.search(MADE_AOI))))
            assert_silent(told(error_of(lambda at=address: ds.open_source(at))))


@pytest.mark.parametrize("fault", ["403", "500", "page", "reset", "long"])
def test_errors_of_the_token_service(service: FaultService, signed: SignedSource, fault: str) -> None:
    service.others["/token/127.0.0.1/files"] = (200, {}, f'{{"token": "sig={SECRET}", "msft:exp'.encode())
    assert_silent(told(error_of(lambda: signed.read(ROW, made_grid(), bands=["B04"]))))
    service.plan = lambda request: fault if request.path.startswith("/token") else None
    assert_silent(told(error_of(lambda: signed.read(ROW, made_grid(), bands=["B04"]))))


def test_a_server_that_repeats_what_it_was_told(service: FaultService, signed: SignedSource) -> None:
    """Azure and Amazon explain a refusal by what was signed with which key."""
    body = f"<Error><Message>for url http://a.org/?sig={SECRET} AWSAccessKeyId: AKIA{SECRET}</Message></Error>".encode()
    signed.search(MADE_AOI)
    for path in (f"/files/{ROW['id']}_B04.tif", "/token/127.0.0.1/files"):
        service.others[path] = (503, {"Retry-After": "0"}, body)
        assert_silent(told(error_of(lambda: signed.read(ROW, made_grid(), bands=["B04"]))))


def test_a_key_is_not_taken_to_another_host(service: FaultService, coast_items: list[dict[str, Any]]) -> None:
    """The token service redirects: the key was meant for it, not for whoever it names."""
    with faulty(FaultService(coast_items)) as elsewhere:
        elsewhere.others["/token/a/b"] = (200, {}, b'{"token": "sig=x", "msft:expiry": "2099-01-01T00:00:00Z"}')
        other = elsewhere.url.replace("127.0.0.1", "localhost")
        service.others["/token/a/b"] = (302, {"Location": f"{other}/token/a/b"}, b"")
        service.others["/token/c/d"] = (302, {"Location": f"{service.url}/token/a/b"}, b"")
        signer = TokenSigner(f"{service.url}/token", host=re.compile(r"(\w+)$"))
        assert signer.sign("http://a/b/x.tif").endswith("?sig=x")
        (asked,) = [request for request, _ in elsewhere.log]
        assert "ocp-apim-subscription-key" not in asked.headers
        assert service.log[0][0].headers["ocp-apim-subscription-key"] == ENVIRONMENT["PC_SDK_SUBSCRIPTION_KEY"]
        signer.sign("http://c/d/x.tif")
        assert service.log[-1][0].path == "/token/a/b"
        assert "ocp-apim-subscription-key" in service.log[-1][0].headers, "at home it is shown again"


def test_a_password_is_not_taken_to_another_host(service: FaultService, coast_items: list[dict[str, Any]]) -> None:
    with faulty(FaultService(coast_items, service.files)) as elsewhere:
        other = elsewhere.url.replace("127.0.0.1", "localhost")
        name = f"/files/{ROW['id']}_B04.tif"
        service.others[name] = (302, {"Location": f"{other}{name}"}, b"")
        change = ADDRESSES["password"]
        source = ds.open_source(with_hrefs(service, change), name="mine")
        assert int(source.read(ROW, made_grid(), bands=["B04"])["B04"].max()) > 0
        assert "authorization" in service.log[0][0].headers
        assert all("authorization" not in request.headers for request, _ in elsewhere.log)


# -- S3 ----------------------------------------------------------------------------------------------------------------


def test_keys_of_a_store(service: FaultService, log: io.StringIO) -> None:
    """What GDAL says when a store refuses; and what rasterio writes into its log of the settings it was given."""
    items = copy.deepcopy(service.items)
    for item in items:
        for key, asset in item["assets"].items():
            asset |= {"href": f"s3://eodata/{key}.jp2", "type": "image/jp2"}
    service.items = items
    settings = {**CDSE.gdal, "AWS_S3_ENDPOINT": service.url.removeprefix("http://"), "AWS_HTTPS": "NO"}
    source = open_preset(dataclasses.replace(CDSE, gdal=settings), service.url)
    assert_silent(repr(source), source.info(), repr(vars(source)), pickle.dumps(source))
    for fault in ("403", "404", None):
        service.plan = lambda request, fault=fault: fault if request.path.startswith("/eodata") else None
        assert_silent(told(error_of(lambda: source.read(ROW, made_grid(), bands=["B04"]))))
    assert any(request.path.startswith("/eodata") for request, _ in service.log)


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_saved_corpora_and_plans(tmp_path: Path) -> None:
    """A corpus of signed pixels, one of its scenes refused, so that its table says why."""
    world = World(DemoSource(size_px=SIZE_PX))
    for item in world.items:  # here: GDAL, which asks the server, must not have to wait for GDAL in the server
        for asset in item["assets"].values():
            world.file(asset["href"])
    with ExitStack() as stack:
        service = WorldService(world).serve(stack)
        service.token, service.now = f"{SECRET}8", time.time()
        signer = TokenSigner(f"{service.url}/token", host=re.compile(r"(127\.0\.0\.1):\d+$"))
        address = service.url.replace("http://", f"http://me:{SECRET}9@")
        source = SignedSource(address, preset=PLANETARY_COMPUTER, signer=signer)
        refused = str(world.scenes[world.scenes.sensor == "S1"].id.iloc[0])
        locate = service.locate
        service.locate = lambda path: tmp_path / "gone" if refused in path else locate(path)  # type: ignore[method-assign]
        places = _points(world.area)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options = {"size_px": 32, "per_place": 3, "samples_per_shard": 4}
            plan = ds.plan_corpus(places, source, start=START, end=END, **options)
            plan.save(tmp_path / "plan")
            report = ds.build_corpus(plan, tmp_path / "corpus.zarr", progress=False)
            corpus = ds.open_corpus(tmp_path / "corpus.zarr")
        assert_silent(
            repr(plan), repr(report), repr(corpus), corpus._repr_html_(), json.dumps(dict(corpus.attrs), default=str)
        )
        assert {"ok", "failed"} <= set(corpus.status.to_numpy().tolist()), "one failed, and says why"
        for name, values in corpus.coords.items():
            if values.dtype.kind in "OUST":
                assert_silent(*(f"{name}: {value}" for value in values.to_numpy().ravel()))
        assert (
            len([path for path in tmp_path.rglob("*") if path.is_file() and not assert_silent(path.read_bytes())]) > 5
        )
        tables = [pd.read_parquet(path) for path in tmp_path.rglob("*.parquet")]
        assert tables
        for table in tables:
            assert_silent(*(repr(value) for name in table for value in table[name]))


def _points(area: Any) -> Any:
    import geopandas as gpd

    west, south, east, north = area.bounds
    x, y = np.linspace(west, east, 5)[1:-1], np.linspace(south, north, 5)[1:-1]
    return gpd.GeoDataFrame(geometry=gpd.points_from_xy(x, y), crs="EPSG:4326")


def test_the_cache_on_disk(service: FaultService, signed: SignedSource, tmp_path: Path) -> None:
    cached = SignedSource(service.url, preset=PLANETARY_COMPUTER, signer=signed._signer, cache=tmp_path / "cache")
    cached.read(ROW, made_grid(), bands=["B04"])
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(files) > 1
    assert_silent(*(path.read_bytes() for path in files), *map(str, files), repr(cached))


# -- the words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"https://me:{SECRET}@a.org/b",
        f"Max retries exceeded with url: /a/b.tif?st=1&sig={SECRET}%3D (Caused by X)",
        f"HTTP response code 403 on https://a.org/c?token={SECRET}&x=1: denied",
        f'{{"access_token": "{SECRET}", "x": 1}}',
        f"Authorization: Bearer {SECRET}",
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"<AWSAccessKeyId>{SECRET}</AWSAccessKeyId>",
        f"password: {SECRET}",
        f"Ocp-Apim-Subscription-Key: {SECRET}",
    ],
)
def test_redacted(text: str) -> None:
    assert_silent(redacted(text), shown(text) if text.startswith("https") else "")


def test_what_is_no_secret_stays() -> None:
    text = "Scene S2A_31UDQ: B04 (asset 'B04') failed. https://a.org/b/B04.tif cannot be read (HTTP 404): is it there?"
    assert redacted(text) == text
