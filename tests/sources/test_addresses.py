"""Addresses that somebody else wrote are looked at before they are opened: a catalog must not make us read what it
likes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_server import FaultService, faulty
from hypothesis import given
from hypothesis import strategies as st
from stac_builders import MADE_AOI, made_dn, made_grid

import deepsentinel as ds
from deepsentinel.errors import ReadError, SourceError
from deepsentinel.sources.addresses import check_href, check_web, redacted, shown
from deepsentinel.sources.engine import Want, read_wants
from deepsentinel.sources.engine.rasters import gdal_path, over_https
from deepsentinel.sources.web import get_bytes
from deepsentinel.sources.wire import ask

Items = list[dict[str, Any]]
ROW = {"sensor": "S2", "id": "S2A_31UDQ_20200601_0_L2A"}
ON_THE_WEB = (
    "https://a.org/b.tif",
    "http://a.org/b.tif?sig=1",
    "s3://eodata/Sentinel-2/a.jp2",
    "gs://bucket/a.tif",
    "az://container/a.tif",
    "abfs://container@account.dfs.core.windows.net/a.tif",
    "abfss://container@account.blob.core.windows.net/a.tif",
)
ON_THIS_MACHINE = (
    "/data/a.tif",
    "scenes/a.tif",
    "./a.tif",
    "file:///data/a.tif",
    "file://localhost/data/a.tif",
    r"C:\data\a.tif",
    "C:/data/a.tif",
    "/vsizip//data/a.zip/b.tif",
    "/vsizip/{/data/a.zip}/b.jp2",
    "/vsitar/data/a.tar/b.tif",
)
NOWHERE = (
    "ftp://a.org/b.tif",
    "file://fileserver/share/a.tif",
    "http:///b.tif",
    "javascript:alert(1)",
    "/vsicurl/https://a.org/b.tif",
    "/vsistdin/",
    "/vsimem/a.tif",
    "/vsis3/private/a.tif",
    "/vsizip//vsicurl/https://a.org/b.zip/c.tif",
    "/vsisubfile/0_100,/etc/passwd",
    "/vsicrypt/key=x,file=/data/a",
    "<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>",
    "NETCDF:/etc/passwd:a",
    "PG:host=localhost dbname=a",
    "GTIFF_DIR:1:/data/a.tif",
    "WMS:http://a.org",
    "abfs://container@evil.org/a.tif",
    "s4://bucket/a.tif",
)


def test_what_may_be_opened() -> None:
    for href in ON_THE_WEB:
        assert check_href(href, files=False, who="x") == check_href(href, files=True, who="x") == href
    for href in ON_THIS_MACHINE:
        assert check_href(href, files=True, who="x") == href
        with pytest.raises(SourceError, match="is not opened"):
            check_href(href, files=False, who="x")
    for href in NOWHERE:
        for files in (False, True):
            with pytest.raises(SourceError, match="is not opened"):
                check_href(href, files=files, who="Asset 'B04'")


@given(st.text(max_size=40))
def test_nothing_else_passes_for_the_web(text: str) -> None:
    """Whatever is written: without one of the schemes it is no address on the web, and GDAL never gets to see it."""
    try:
        check_href(text, files=False, who="x")
    except SourceError:
        return
    assert text.lower().startswith(("http://", "https://", "s3://", "gs://", "az://", "abfs://", "abfss://"))


@given(st.sampled_from([*NOWHERE, *ON_THIS_MACHINE]), st.sampled_from(["", " ", "\n", "\t", "%", "\x00"]))
def test_dressed_up_they_do_not_pass_either(href: str, before: str) -> None:
    with pytest.raises(SourceError):
        check_href(before + href, files=False, who="x")


def test_azure_and_stores_as_gdal_and_we_open_them() -> None:
    assert over_https(ON_THE_WEB[5]) == "https://account.blob.core.windows.net/container/a.tif"
    assert over_https(f"{ON_THE_WEB[5]}?sig=x") == "https://account.blob.core.windows.net/container/a.tif?sig=x"
    assert gdal_path("az://container/a.tif") == "/vsiaz/container/a.tif"
    assert gdal_path("gs://bucket/a.tif") == "/vsigs/bucket/a.tif"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a.org/b", "data:,x", "/etc/passwd", "gopher://a.org"])
def test_only_the_web_is_fetched(url: str) -> None:
    for call in (check_web, ask, get_bytes):
        with pytest.raises(SourceError, match="only http and https"):
            call(url)


# -- catalogs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def service(coast_items: Items, coast_files: Path) -> Iterator[FaultService]:
    with faulty(FaultService(copy.deepcopy(coast_items), coast_files)) as running:
        yield running


def secret_file(folder: Path, where: Path) -> Path:
    """What a catalog from the web must never get at: it is a good raster, so that only a refusal can keep it out."""
    import shutil

    return Path(shutil.copy(next(folder.glob(f"{ROW['id']}_B04.tif")), where / "private.tif"))


def catalogs(service: FaultService, href: str, tmp_path: Path) -> dict[str, Any]:
    """The same item behind every way there is to open a catalog; its B04 lies somewhere else."""
    item = next(one for one in copy.deepcopy(service.items) if one["id"] == ROW["id"])
    for asset in item["assets"].values():
        asset["href"] = asset["href"].replace(f"{service.files}/", f"{service.url}/files/")
    item["assets"]["B04"]["href"] = href
    service.items = [item]
    collection = {"type": "FeatureCollection", "features": [item]}
    root = {"type": "Catalog", "id": "x", "stac_version": "1.0.0", "description": "x"}
    there = f"{service.url}/item.json"
    service.others["/item.json"] = (200, {}, json.dumps(item).encode())
    service.others["/items.json"] = (200, {}, json.dumps(collection).encode())
    web_root = {**root, "links": [{"rel": "item", "href": "item.json"}]}
    service.others["/catalog.json"] = (200, {}, json.dumps(web_root).encode())
    (tmp_path / "catalog.json").write_text(json.dumps({**root, "links": [{"rel": "item", "href": there}]}))
    (tmp_path / "items.json").write_text(json.dumps(collection))
    return {
        "api": service.url,
        "items on the web": f"{service.url}/items.json",
        "catalog on the web": f"{service.url}/catalog.json",
        "catalog here, item on the web": tmp_path / "catalog.json",
        "items here": tmp_path / "items.json",
        "in memory": collection,
    }


MINE = ("items here", "in memory")


def test_a_catalog_on_the_web_opens_no_file_of_mine(service: FaultService, tmp_path: Path) -> None:
    assert service.files is not None
    private = secret_file(service.files, tmp_path)
    for href in (str(private), f"file://{private}"):
        for name, where in catalogs(service, href, tmp_path).items():
            source = ds.open_source(where)
            if name in MINE:
                patch = source.read(ROW, made_grid(), bands=["B04"])
                np.testing.assert_array_equal(patch["B04"], made_dn("B04", 0))
                continue
            # An absolute path seen from a web page is a path on its host: it is asked there, and there is none.
            with pytest.raises(SourceError, match=r"is not opened: a catalog on the web|HTTP 404"):
                source.read(ROW, made_grid(), bands=["B04"])
    with pytest.raises(SourceError, match=f"Scene {ROW['id']}: B04 .* points to file://"):
        ds.open_source(f"{service.url}/items.json").read(ROW, made_grid(), bands=["B04"])
    (failure,) = ds.open_source(f"{service.url}/items.json").read_many(ROW, made_grid(), bands=["B04"])
    assert "is not opened" in str(failure.error)


@pytest.mark.parametrize("href", NOWHERE)
def test_no_catalog_makes_gdal_open_something_else(service: FaultService, href: str, tmp_path: Path) -> None:
    for name, where in catalogs(service, href, tmp_path).items():
        if name in MINE or not href.startswith(("/vsi", "<")):  # these become paths on the host of their page
            with pytest.raises((SourceError, ReadError)):
                ds.open_source(where).read(ROW, made_grid(), bands=["B04"])


@pytest.mark.parametrize("rel", ["child", "item", "items", "next"])
def test_links_of_a_catalog_on_the_web(service: FaultService, rel: str, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text(json.dumps({"type": "FeatureCollection", "features": service.items}))
    kind = (
        {"type": "FeatureCollection", "features": []} if rel == "next" else {"type": "Catalog", "stac_version": "1.0.0"}
    )
    root = {**kind, "id": "x", "links": [{"rel": rel, "href": f"file://{tmp_path}/secret.json"}]}
    service.others["/catalog.json"] = (200, {}, json.dumps(root).encode())
    with pytest.raises(SourceError, match=r"A link in .* points to file://.* is not opened"):
        ds.open_source(f"{service.url}/catalog.json").search(MADE_AOI)


@pytest.mark.parametrize("href", ["file:///etc/passwd", "/etc/passwd", "ftp://a.org/x"])
def test_the_next_page_of_a_service(service: FaultService, href: str) -> None:
    search = service.search
    service.search = lambda asked: {**search(asked), "links": [{"rel": "next", "href": href}]}  # type: ignore[method-assign]
    with pytest.raises(SourceError, match="is not opened: only http and https"):
        ds.open_source(service.url).search(MADE_AOI)


# -- redirections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://a.org/b.tif", "gopher://a.org/"])
def test_redirections_stay_on_the_web(service: FaultService, target: str) -> None:
    service.others["/away.tif"] = (302, {"Location": target}, b"")
    (got,) = read_wants([Want(f"{service.url}/away.tif", made_grid())])
    assert isinstance(got, ReadError)
    assert "which is not followed" in str(got)
    with pytest.raises(SourceError, match="which is not followed"):
        get_bytes(f"{service.url}/away.tif")


def test_from_https_to_http_is_a_step_down() -> None:
    from deepsentinel.sources.wire import check_redirect

    check_redirect("http://a.org/x", "https://a.org/x")
    with pytest.raises(SourceError, match="never from https to http"):
        check_redirect("https://a.org/x", "http://a.org/x")


def test_a_search_that_is_redirected_stays_a_search(service: FaultService) -> None:
    """Many clients turn a POST into a GET then, and so a search into a request for everything."""
    wanted = ds.open_source(service.url).search(MADE_AOI, "2020-06-01", "2020-06-05")
    root = service.root()
    for link in root["links"]:
        if link["rel"] == "search":
            link["href"] = f"{service.url}/old"
    service.root = lambda: root  # type: ignore[method-assign]
    service.moved = {"/old": f"{service.url}/search"}
    scenes = ds.open_source(service.url).search(MADE_AOI, "2020-06-01", "2020-06-05")
    assert list(scenes.id) == list(wanted.id)


def test_circles_end(service: FaultService) -> None:
    service.others["/a"] = (302, {"Location": "/b"}, b"")
    service.others["/b"] = (302, {"Location": "/a"}, b"")
    with pytest.raises(SourceError, match="redirects more than 10 times"):
        get_bytes(f"{service.url}/a")


# -- what is in a file -------------------------------------------------------------------------------------------------


def test_a_recipe_on_the_web_reads_no_file_of_mine(service: FaultService, tmp_path: Path) -> None:
    """GDAL goes by content: a file that is called .tif may be a recipe that names another to read, on this machine."""
    assert service.files is not None
    private = secret_file(service.files, tmp_path)
    vrt = f"""<VRTDataset rasterXSize="96" rasterYSize="96"><SRS>EPSG:32631</SRS>
      <GeoTransform>499980, 10, 0, 5450040, 0, -10</GeoTransform><VRTRasterBand dataType="UInt16" band="1">
      <SimpleSource><SourceFilename relativeToVRT="0">{private}</SourceFilename><SourceBand>1</SourceBand>
      </SimpleSource></VRTRasterBand></VRTDataset>"""
    for name in ("innocent.tif", "innocent.vrt", "innocent.jp2"):
        for text in (vrt, "  \n" * 40 + vrt):
            (service.files / name).write_text(text)
            (got,) = read_wants([Want(f"{service.url}/files/{name}", made_grid())])
            assert isinstance(got, ReadError), name
    here = tmp_path / "mine.vrt"
    here.write_text(vrt)
    (got,) = read_wants([Want(str(here), made_grid())])
    assert int(np.asarray(got).max()) > 0, "the same on this machine is the user's own affair"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://me:p@ss@a.org/x.tif", "https://a.org/x.tif"),
        ("https://me:pa/ss@a.org/x.tif", "https://a.org/x.tif"),
        ("https://me:p@ss/w@a.org/x.tif", "https://a.org/x.tif"),
        ("https://me:pa#ss@a.org/x.tif", "https://a.org/x.tif"),
        ("https://me:pa?ss@a.org/x.tif", "https://a.org/x.tif"),
        ("https://token@a.org/me@home/x.tif", "https://a.org/me@home/x.tif"),
        ("https://a.org/tiles@2x/x.tif", "https://a.org/tiles@2x/x.tif"),
        ("http://localhost:8000/2020@v1/x.tif", "http://localhost:8000/2020@v1/x.tif"),
        ("http://[::1]:8000/2020@v1/x.tif", "http://[::1]:8000/2020@v1/x.tif"),
        ("https://a.org:80/2020@v1/x.tif", "https://a.org:80/2020@v1/x.tif"),
        ("https://a.org/https://b.org/2020@v1", "https://a.org/https://b.org/2020@v1"),
        ("s3://bucket/2020@v1/x.tif", "s3://bucket/2020@v1/x.tif"),
        ("file:///C:/me@home.org/x.tif", "file:///C:/me@home.org/x.tif"),
        ("https://me:12345/6@a.org/x", "https://a.org/x"),
        ("https://me:p<w@a.org/x", "https://a.org/x"),
        ("https://a.org/https://me:word@b.org/x", "https://a.org/https://b.org/x"),
        ("u=https://a.org/x,https://me:word@b.org/y", "u=https://a.org/x,https://b.org/y"),
        ("/vsicurl/https://a.org/x;https://me:word@b.org", "/vsicurl/https://a.org/x;https://b.org"),
        ("https://to/ken@a.org/x", "https://a.org/x"),
        ("s3://key:12/word@bucket/x", "s3://bucket/x"),
    ],
)
def test_no_part_of_a_password_is_said(address: str, told: str) -> None:
    from deepsentinel.sources.opened import line_of

    assert shown(address) == told
    assert bool(line_of(address, {})) == (address == told), "a line that opens a source says all of its address"
    assert redacted(f"GET {address} failed") == f"GET {told} failed"


WORD = "planted"
JUNK = st.one_of(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=4),
    st.sampled_from(["", "12", "12/", "://", "@", "@a.org/", "/", "?", "?a=", "#", "<", "'"]),
)
SEPARATOR = st.sampled_from(
    ["", "/", "//", ",", ";", "|", "=", "?u=", "?u=1&v=", "&", "#", "(", "<", "'", '"', "+", ":"]
)
BEFORE = st.sampled_from(["", *ON_THE_WEB, "http://localhost:80/x", "https://a.org:80/2@v1/x"])


@given(
    st.lists(st.tuples(BEFORE, SEPARATOR), max_size=3),
    st.sampled_from(["http://", "https://", "s3://", "HTTPS://"]),
    st.sampled_from(["me", "me.you", "me@home.org", "", "12"]),
    st.lists(JUNK, min_size=2, max_size=4),
    st.sampled_from(["a.org", "a.org:80", "localhost", "[::1]:80", "10.0.0.1"]),
    st.tuples(SEPARATOR, BEFORE),
)
def test_wherever_a_password_is_planted_it_is_not_said(
    before: list[tuple[str, str]], scheme: str, user: str, junk: list[str], host: str, after: tuple[str, str]
) -> None:
    """Behind other addresses and before them, and whatever it holds itself."""
    outer = "".join(address + separator for address, separator in before)
    address = f"{outer}{scheme}{user}:{WORD.join(junk)}@{host}/x{''.join(after)}"
    assert WORD not in shown(address)
    assert WORD not in redacted(f"GET {address} failed")
