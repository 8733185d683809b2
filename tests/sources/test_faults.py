"""What goes wrong on the wire: injected by a server on this machine, and either sat out or said in words."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fault_server import FOR_BLOCKS, FOR_RANGES, PASSING, SLOW, FaultService, Request, at_random, faulty, never
from stac_builders import MADE_AOI, made_dn, made_grid

import deepsentinel as ds
from deepsentinel.errors import ReadError, SourceError
from deepsentinel.sources import patience, services, web, wire
from deepsentinel.sources.engine import Want, read_wants, remote
from deepsentinel.sources.patience import reading_until
from deepsentinel.sources.presets import PLANETARY_COMPUTER
from deepsentinel.sources.services import SignedSource, TokenSigner, open_preset

Items = list[dict[str, Any]]
ROW = {"sensor": "S2", "id": "S2A_31UDQ_20200601_0_L2A"}
B04 = f"/files/{ROW['id']}_B04.tif"
PAGED = dataclasses.replace(PLANETARY_COMPUTER, page_items=1, signing_url=None)


@pytest.fixture
def service(coast_items: Items, coast_files: Path) -> Iterator[FaultService]:
    with faulty(FaultService(copy.deepcopy(coast_items), coast_files)) as running:
        yield running


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting costs next to nothing; it is counted elsewhere."""
    monkeypatch.setattr(remote, "BACKOFF_S", 0.01)
    sleep = time.sleep
    monkeypatch.setattr(patience, "time", SimpleNamespace(sleep=lambda wait_s: sleep(min(wait_s, 0.001))))


def once(fault: str, path: str = B04, *, block: bool | None = None) -> Any:
    """The first request for a path (its header, or a block of it) meets a fault."""

    def plan(request: Request) -> str | None:
        if request.path != path or request.nth > 1 or block not in (None, request.first > 0):
            return None
        return fault

    return plan


def always(fault: str, path: str = B04) -> Any:
    return lambda request: fault if request.path == path else None


def read(source: Any, bands: tuple[str, ...] = ("B04",)) -> Any:
    return source.read(ROW, made_grid(), bands=list(bands))


# -- pixels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["header", "block"])
@pytest.mark.parametrize("fault", FOR_BLOCKS)
def test_a_fault_that_passes_is_sat_out(service: FaultService, fault: str, part: str) -> None:
    """One more request than without it, and the pixels are right."""
    if fault == "corrupt" and part == "header":
        pytest.skip("a header has no checksum")
    source = ds.open_source(service.url)
    service.plan = once(fault, block=part == "block")
    patch = read(source)
    np.testing.assert_array_equal(patch["B04"], made_dn("B04", 0))
    asked = [request.range for request, _ in service.log if request.path == B04]
    assert len(asked) == 3
    assert len(set(asked)) == 2
    assert service.faults() == 1


@pytest.mark.parametrize("fault", [*FOR_RANGES, "corrupt", "403", "404"])
def test_a_fault_that_stays_names_scene_asset_and_file(service: FaultService, fault: str) -> None:
    source = ds.open_source(service.url)
    # A header has no checksum, so it is the blocks that are found to be spoilt.
    service.plan = lambda request: fault if request.path == B04 and (fault != "corrupt" or request.first > 0) else None
    with pytest.raises(ReadError) as problem:
        read(source, ("B03", "B04"))
    text = str(problem.value)
    for word in (ROW["id"], "B04 (asset 'B04')", f"{service.url}{B04}"):
        assert word in text
    assert re.search(r"(?i)check th|try again|resolve again|leave this scene out|search again", text)
    expected = {
        "429": "HTTP 429", "500": "HTTP 500", "503": "HTTP 503", "403": "HTTP 403", "404": "HTTP 404",
        "page": "a web page", "drop": "the connection was cut", "reset": "the connection was cut",
        "long": "cut short", "short": "another length", "shifted": "another range", "untold": "another range",
        "corrupt": "at block",
    }  # fmt: skip
    assert expected[fault] in text
    tries = sum(request.path == B04 for request, _ in service.log)
    assert tries <= (remote.TRIES if fault != "corrupt" else 3)
    service.plan = never
    np.testing.assert_array_equal(read(source)["B04"], made_dn("B04", 0))  # and later all is well


@pytest.mark.parametrize("fault", SLOW)
def test_an_answer_that_stalls_or_trickles_is_left(
    service: FaultService, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a deadline for the whole, not only between two bytes."""
    monkeypatch.setattr(wire, "QUIET_S", 0.5)
    monkeypatch.setattr(wire, "SLOW_BYTES_PER_S", 100_000)
    source = ds.open_source(service.url)
    for block in (False, True):
        service.plan = once(fault, block=block)
        service.forget()
        began = time.monotonic()
        np.testing.assert_array_equal(read(source)["B04"], made_dn("B04", 0))
        assert service.faults() == 1
        assert time.monotonic() - began < 10
    service.plan = always(fault)
    with pytest.raises(ReadError, match=r"nothing came for 0\.5 s|the answer crawled"):
        read(source)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("fault", ["busy", "stall"])
def test_who_leaves_is_not_held_up(
    service: FaultService, many: bool, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a server that asks for half a minute of patience, or takes the call and says nothing."""
    monkeypatch.setattr(patience, "time", time)
    source = ds.open_source(service.url)
    if fault == "busy":
        service.others[B04] = (503, {"Retry-After": "30"}, b"busy")
    else:
        service.plan = always(fault)
    before = set(threading.enumerate())
    began = time.monotonic()
    with reading_until(lambda: time.monotonic() - began > 0.5), pytest.raises(ReadError, match="was stopped"):
        list(source.read_many(ROW, [made_grid()] * 3, bands=["B04"], on_error="raise")) if many else read(source)
    assert time.monotonic() - began < 10

    def waiting() -> list[threading.Thread]:
        return [each for each in set(threading.enumerate()) - before if each.name.startswith("deepsentinel-")]

    if fault == "busy":
        # Who would wait for half a minute has left as well.
        while waiting() and time.monotonic() - began < 15:
            time.sleep(0.1)
        assert not waiting()


def test_a_server_that_is_not_there_refuses(service: FaultService) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/x.tif"
    with pytest.raises(SourceError, match=r"127\.0\.0\.1 refuses connections"):
        web.get_bytes(address)


def test_asking_for_a_file_ends_when_nobody_wants_it(service: FaultService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "time", time)
    service.others[B04] = (503, {"Retry-After": "30"}, b"busy")
    began = time.monotonic()
    with reading_until(lambda: time.monotonic() - began > 0.5), pytest.raises(ReadError, match="was stopped"):
        web.get_bytes(f"{service.url}{B04}")


def test_a_name_that_cannot_be_resolved(service: FaultService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    items = copy.deepcopy(service.items)
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = f"http://pixels.invalid{asset['href']}?sig=planted"
    source = ds.open_source({"type": "FeatureCollection", "features": items})
    with pytest.raises(ReadError, match=r"the name pixels\.invalid cannot be resolved") as problem:
        read(source)
    assert "planted" not in str(problem.value)
    assert "2 tries" in str(problem.value)
    with pytest.raises(SourceError, match=r"does not answer \(the name catalogs\.invalid cannot be resolved\)"):
        ds.open_source("http://catalogs.invalid/stac")


def test_a_host_that_was_there_gets_the_whole_patience(service: FaultService) -> None:
    """Its name is not found for a moment: a corpus of a million samples must not lose those of that moment."""
    tries = Counter[str]()

    def attempt(place: str) -> Any:
        def once() -> str:
            tries[place] += 1
            if tries[place] < 4:
                raise wire.Trouble("gone", unreachable=place)
            return "back"

        return web.insist(once, lambda trouble: SourceError(str(trouble)), backoff_s=0)

    read(ds.open_source(service.url))
    assert attempt(wire.place_of(service.url)) == "back"
    with pytest.raises(SourceError, match="gone"):
        attempt("never.invalid:80")
    assert tries["never.invalid:80"] == web.UNREACHABLE_TRIES


def test_other_scenes_are_read_when_one_is_broken(service: FaultService) -> None:
    source = ds.open_source(service.url)
    scenes = source.search(MADE_AOI, sensors="S2")
    service.plan = always("500")
    patches = list(source.read_many(scenes, made_grid(), bands=["B04"]))
    assert [bool(patch) for patch in patches] == [False, True, True]
    assert patches[0].s2_id == ROW["id"]


def test_a_file_that_is_replaced_meanwhile_is_read_from_the_start(service: FaultService, tmp_path: Path) -> None:
    """Header of the one, blocks of the other: they would be decoded into rubbish, or worse, into something."""
    source = ds.open_source(service.url)
    old = (service.files / Path(B04).name).read_bytes()
    other = (service.files / Path(B04.replace("20200601", "20200611")).name).read_bytes()
    assert len(old) != len(other)

    def locate(path: str) -> Path:
        file = tmp_path / "now.tif"
        mine = path == B04.removeprefix("/files/")
        if mine:
            file.write_bytes(old if service.asked[f"/files/{path}", "bytes=0-32767"] == 0 else other)
        return file if mine else service.files / path

    service.locate = locate  # type: ignore[method-assign]
    patch = read(source)
    wanted = np.where(made_dn("B04", 1) > 0, made_dn("B04", 1).astype(int) + 1000, 0)
    np.testing.assert_array_equal(patch["B04"], wanted)  # as stored: its item says nothing of an offset


# -- searches ----------------------------------------------------------------------------------------------------------


def third_page(fault: str) -> Any:
    """The third page of Sentinel-2's fails, the first time."""
    seen: list[int] = []

    def plan(request: Request) -> str | None:
        if request.method != "POST" or json.loads(request.body).get("token") != 2 or seen:
            return None
        seen.append(1)
        return fault

    return plan


@pytest.mark.parametrize("fault", [*PASSING, *SLOW])
def test_a_page_that_fails_loses_and_repeats_nothing(
    service: FaultService, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "QUIET_S", 0.5)
    monkeypatch.setattr(wire, "SLOW_BYTES_PER_S", 1_000_000)
    wanted = open_preset(PAGED, service.url).search(MADE_AOI)
    service.plan = third_page(fault)
    source = open_preset(PAGED, service.url)
    scenes = source.search(MADE_AOI)
    assert list(scenes.id) == list(wanted.id)
    assert scenes.id.is_unique
    assert service.faults() == 1


@pytest.mark.parametrize("fault", PASSING)
def test_a_service_that_stays_down_is_named(service: FaultService, fault: str) -> None:
    source = open_preset(PAGED, service.url)
    source.search(MADE_AOI)
    service.plan = lambda request: fault if request.method == "POST" else None
    with pytest.raises(SourceError, match=r"Planetary Computer \(http://127\.0\.0\.1:\d+\) does not answer") as problem:
        source.search(MADE_AOI)
    assert "Check the address and the network" in str(problem.value)


def test_pages_may_be_empty_in_between_and_may_overlap(service: FaultService) -> None:
    """Some services filter after they have cut pages; and scenes that come in meanwhile push others onto the next."""
    search = service.search

    def odd(asked: dict[str, Any]) -> dict[str, Any]:
        page = search(asked)
        if int(asked.get("token", 0)) == 1 and not asked.get("again"):
            link = {"rel": "next", "href": f"{service.url}/search", "method": "POST", "body": {**asked, "again": True}}
            return {**page, "features": [], "links": [link]}
        if int(asked.get("token", 0)) == 2:
            page["features"] = [*search({**asked, "token": 1})["features"], *page["features"]]
        return page

    wanted = open_preset(PAGED, service.url).search(MADE_AOI)
    service.search = odd  # type: ignore[method-assign]
    scenes = open_preset(PAGED, service.url).search(MADE_AOI)
    assert list(scenes.id) == list(wanted.id)


def test_pages_that_go_round_in_circles_end(service: FaultService) -> None:
    search = service.search

    def circle(asked: dict[str, Any]) -> dict[str, Any]:
        link = {"rel": "next", "href": f"{service.url}/search", "method": "POST", "body": {"token": 0, "limit": 1}}
        return {**search(asked), "links": [link]}

    service.search = circle  # type: ignore[method-assign]
    with pytest.raises(SourceError, match="lead back to one that was there before"):
        open_preset(PAGED, service.url).search(MADE_AOI)


@pytest.mark.parametrize("fault", PASSING)
def test_documents_of_a_static_catalog(service: FaultService, coast_catalog: Path, fault: str, tmp_path: Path) -> None:
    """Every one of them fails once."""
    import shutil

    folder = tmp_path / "catalog"
    shutil.copytree(coast_catalog.parent, folder)
    service.files = folder
    service.plan = lambda request: fault if request.nth == 1 else None
    scenes = ds.open_source(f"{service.url}/files/catalog.json").search(MADE_AOI)
    assert list(scenes.id) == list(ds.open_source(coast_catalog).search(MADE_AOI).id)
    assert service.faults() == len(service.log) / 2


# -- tokens ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def signed(service: FaultService) -> SignedSource:
    service.files_need_token = True
    signer = TokenSigner(f"{service.url}/token", host=re.compile(r"(127\.0\.0\.1):\d+$"), clock=lambda: service.now)
    return SignedSource(service.url, preset=PLANETARY_COMPUTER, signer=signer)


def tokens(service: FaultService) -> int:
    return service.counts["/token/127.0.0.1/files"]


@pytest.mark.parametrize("fault", PASSING)
def test_a_token_is_asked_for_again(
    service: FaultService, signed: SignedSource, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.plan = lambda request: fault if request.path.startswith("/token") and request.nth == 1 else None
    np.testing.assert_array_equal(read(signed)["B04"], made_dn("B04", 0))
    assert tokens(service) == 2
    service.plan = lambda request: fault if request.path.startswith("/token") else None
    signed.renew()
    with pytest.raises(SourceError, match="token") as problem:
        read(signed)
    assert "sig=" not in str(problem.value)
    # What took all tries is known for a while, and found out anew after it.
    asked = tokens(service)
    with pytest.raises(SourceError, match=r"token.* asked again after"):
        read(signed)
    assert tokens(service) == asked
    service.plan = lambda request: None
    monkeypatch.setattr(services, "LEFT_ALONE_S", 0.0)
    np.testing.assert_array_equal(read(signed)["B04"], made_dn("B04", 0))


def test_half_a_token_is_not_told(service: FaultService, signed: SignedSource) -> None:
    answer = b'{"token": "sig=planted", "msft:expiry": "planted'
    service.others["/token/127.0.0.1/files"] = (200, {}, answer)
    with pytest.raises(SourceError, match="is no token") as problem:
        read(signed)
    assert "planted" not in str(problem.value)


def test_an_expired_token_half_way_is_renewed_once(service: FaultService, signed: SignedSource) -> None:
    """Twelve rows are being read when the service changes its mind: one new token, and every pixel."""
    rows = pd.DataFrame([ROW] * 12)
    signed.search(MADE_AOI)
    bands = ["B02", "B03", "B04", "B08"]
    wanted = [patch.copy(deep=True) for patch in signed.read_many(rows, made_grid(), bands=bands)]
    assert tokens(service) == 1
    service.forget()
    met = threading.Event()

    def plan(request: Request) -> str | None:
        # Of each of four files comes the header, then a block: after the fourth request there is one that waits for it.
        if len(service.log) == 4 and not met.is_set():
            met.set()
            service.token = "two"
        return None

    service.plan = plan
    patches = list(signed.read_many(rows, made_grid(), bands=bands))
    assert met.is_set()
    assert all(one.identical(other) for one, other in zip(patches, wanted, strict=True))
    assert tokens(service) == 2


def test_rights_that_are_refused_anew_are_not_asked_for_without_end(
    service: FaultService, signed: SignedSource
) -> None:
    service.plan = lambda request: "403" if request.path == B04 else None
    failures = list(signed.read_many(pd.DataFrame([ROW] * 20), made_grid(), bands=["B04"]))
    assert not any(failures)
    assert "expired" in str(failures[0].error)
    assert tokens(service) == 2


# -- a thousand reads --------------------------------------------------------------------------------------------------


class Crowd(FaultService):
    """A thousand scenes: each file of the coast under many addresses."""

    def __init__(self, items: Items, files: Path, count: int) -> None:
        super().__init__([], files)
        optical = [item for item in items if item["id"].startswith("S2A")]
        for number in range(count):
            item = copy.deepcopy(optical[number % len(optical)])
            item["id"] = f"S2A_31UDQ_{number:08d}_0_L2A"
            item["properties"]["datetime"] = f"2020-06-{1 + number % 28:02d}T10:57:00Z"
            for asset in item["assets"].values():
                asset["href"] = asset["href"].replace(f"{files}/", f"{files}/{number}/")
            self.items.append(item)

    def locate(self, path: str) -> Path:
        assert self.files is not None
        return self.files / path.split("/")[1]


def test_a_thousand_reads_under_faults_lose_and_repeat_nothing(coast_items: Items, coast_files: Path) -> None:
    """5 % of all requests fail, at random: pages of the search, headers, blocks. Everything comes, once, and right."""
    count = 1000
    crowd = Crowd(coast_items, coast_files, count)

    def everything() -> tuple[list[str], list[Any]]:
        source = open_preset(dataclasses.replace(PLANETARY_COMPUTER, page_items=50, signing_url=None), crowd.url)
        scenes = source.search(MADE_AOI, sensors="S2")
        patches = source.read_many(scenes, made_grid((16, 16)), bands=["B04"])
        return list(scenes.id), [(patch.attrs["s2_id"], patch["B04"].to_numpy()) for patch in patches if patch]

    with faulty(crowd):
        ids, wanted = everything()
        calm = Counter(request.path for request, _ in crowd.log)
        assert len(ids) == len(set(ids)) == len(wanted) == count
        crowd.forget()
        crowd.plan = at_random(seed=8, share=0.05)
        again, got = everything()
    assert again == ids
    assert [name for name, _ in got] == ids
    for (_, one), (_, other) in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(one, other)
    storm, faults = Counter(request.path for request, _ in crowd.log), crowd.faults()
    assert sum(calm.values()) == 2 * count + count // 50 + 1  # header and block; pages; the root
    assert 0.03 * len(crowd.log) < faults < 0.07 * len(crowd.log)
    assert sum(storm.values()) == sum(calm.values()) + faults, "each fault costs one request, and nothing else does"
    print(f"\n{count} reads: {sum(calm.values())} requests without faults, {sum(storm.values())} with {faults} faults")


# -- many at once ------------------------------------------------------------------------------------------------------


def test_many_requests_are_under_way_at_once(coast_items: Items, coast_files: Path) -> None:
    """No clock: the server answers nobody until sixteen are waiting for it."""
    crowd = Crowd(coast_items, coast_files, 32)
    with faulty(crowd):
        source = ds.open_source(crowd.url)
        scenes = source.search(MADE_AOI, sensors="S2")
        gate = threading.Barrier(16)

        def hold() -> None:
            gate.wait(timeout=60)

        crowd.hold = hold
        patches = list(source.read_many(scenes, made_grid((16, 16)), bands=["B04"]))
    assert len(patches) == 32
    assert all(patches)


def test_faults_meet_the_engine_alone_too(service: FaultService) -> None:
    service.plan = at_random(seed=1, share=0.3)
    names = sorted(path.name for path in service.files.glob("*_B0[2348].tif"))
    wants = [Want(f"{service.url}/files/{name}", made_grid()) for name in names]
    for got, name in zip(read_wants(wants), names, strict=True):
        assert not isinstance(got, Exception), got
        (local,) = read_wants([Want(str(service.files / name), made_grid())])
        np.testing.assert_array_equal(got, local)
    assert service.faults() > 3
