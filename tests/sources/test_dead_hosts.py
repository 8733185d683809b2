"""A host that is not there: found out once, told by every row of a table, and asked again after a while."""

from __future__ import annotations

import copy
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
from fault_server import FaultService, faulty
from stac_builders import MADE_AOI, made_dn, made_grid

import deepsentinel as ds
from deepsentinel.errors import ReadError, SourceError
from deepsentinel.sources import patience, web, wire
from deepsentinel.sources.engine import remote

Items = list[dict[str, Any]]
SCENE = "S2A_31UDQ_20200601_0_L2A"
ROWS = 40


@pytest.fixture
def service(coast_items: Items, coast_files: Path) -> Iterator[FaultService]:
    with faulty(FaultService(copy.deepcopy(coast_items), coast_files)) as running:
        yield running


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited for between tries, without waiting so long."""
    waited: list[float] = []
    monkeypatch.setattr(remote, "BACKOFF_S", 0.01)
    monkeypatch.setattr(patience, "time", SimpleNamespace(sleep=waited.append))
    return waited


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each port of this machine was called."""
    seen = Counter[int]()
    connect = socket.socket.connect

    def counted(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_INET:
            seen[address[1]] += 1
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", counted)
    return seen


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes time pass."""
    ahead = [0.0]
    monkeypatch.setattr(wire, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + ahead[0]))

    def pass_by(seconds: float) -> None:
        ahead[0] += seconds

    return pass_by


def nobody() -> int:
    """A port at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def many(items: Items, files: Path, at: str, count: int = ROWS) -> dict[str, Any]:
    """As many scenes as are asked for, all of one file, which lies at an address."""
    found = []
    for number in range(count):
        one = copy.deepcopy(next(item for item in items if item["id"] == SCENE))
        one["id"] = f"{SCENE}_{number}"
        for asset in one["assets"].values():
            asset["href"] = str(asset["href"]).replace(str(files), at) + f"?{number}"
        found.append(one)
    return {"type": "FeatureCollection", "features": found}


def table(count: int = ROWS) -> pd.DataFrame:
    return pd.DataFrame({"sensor": "S2", "id": [f"{SCENE}_{number}" for number in range(count)]})


@pytest.mark.parametrize("threads", [1, None])
def test_a_long_table_finds_a_dead_server_once(
    coast_items: Items, coast_files: Path, calls: Counter[int], waits: list[float], threads: int | None
) -> None:
    port = nobody()
    source = ds.open_source(many(coast_items, coast_files, f"http://127.0.0.1:{port}"))
    got = list(source.read_many(table(), made_grid(), bands=["B04"], threads=threads))
    # Those that are read side by side find it out together.
    together = threads or 16
    assert calls[port] <= together * web.UNREACHABLE_TRIES
    assert len(waits) <= together * (web.UNREACHABLE_TRIES - 1)
    assert len(got) == ROWS
    for number, failure in enumerate(got):
        assert isinstance(failure.error, ReadError)
        assert f"Scene {SCENE}_{number}: B04 (asset 'B04') failed" in str(failure.error)
        assert f"{SCENE}_B04.tif" in str(failure.error)
        assert "2 tries in 0 s ended with 127.0.0.1 refuses connections" in str(failure.error)
    assert "refuses connections, and is asked again after 20 s. Check the network" in str(got[-1].error)


def test_a_name_that_nobody_knows_is_looked_up_once(
    coast_items: Items, coast_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    asked: list[str] = []

    def resolve(host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    source = ds.open_source(many(coast_items, coast_files, "http://pixels.invalid"))
    got = list(source.read_many(table(), made_grid(), bands=["B04"], threads=1))
    assert asked == ["pixels.invalid"] * web.UNREACHABLE_TRIES
    assert all("the name pixels.invalid cannot be resolved" in str(failure.error) for failure in got)


def test_a_server_that_goes_down_and_comes_back(
    coast_items: Items, coast_files: Path, calls: Counter[int], later: Any
) -> None:
    """What had answered is given all tries, once; and is found again after a while, on the same port."""
    service = FaultService([], coast_files)
    with faulty(service):
        port = int(service.url.rpartition(":")[2])
        source = ds.open_source(many(coast_items, coast_files, f"{service.url}/files"))
        assert all(source.read_many(table(3), made_grid(), bands=["B04"], threads=1))
    wire.kept_session().close()
    calls.clear()
    for times in range(2):
        got = list(source.read_many(table(), made_grid(), bands=["B04"], threads=1))
        assert not any(got)
        assert all(f"{remote.TRIES} tries" in str(failure.error) for failure in got)
        assert calls[port] == remote.TRIES, times
    later(wire.LEFT_ALONE_S - 2)
    assert not any(source.read_many(table(), made_grid(), bands=["B04"], threads=1))
    assert calls[port] == remote.TRIES
    later(3)
    assert not any(source.read_many(table(), made_grid(), bands=["B04"], threads=1))
    assert calls[port] == 2 * remote.TRIES
    later(wire.LEFT_ALONE_S + 1)
    with faulty(service, port=port):
        got = list(source.read_many(table(3), made_grid(), bands=["B04"]))
    for patch in got:
        np.testing.assert_array_equal(patch["B04"], made_dn("B04", 0))


def test_another_port_of_the_host_is_another_server(
    service: FaultService, coast_items: Items, coast_files: Path
) -> None:
    dead = ds.open_source(many(coast_items, coast_files, f"http://127.0.0.1:{nobody()}"))
    assert not any(dead.read_many(table(3), made_grid(), bands=["B04"]))
    patch = ds.open_source(service.url).read({"sensor": "S2", "id": SCENE}, made_grid(), bands=["B04"])
    np.testing.assert_array_equal(patch["B04"], made_dn("B04", 0))


def test_a_server_that_sends_on_to_a_dead_one_is_not_dead_itself(
    service: FaultService, coast_items: Items, coast_files: Path, calls: Counter[int]
) -> None:
    port = nobody()
    name = f"{SCENE}_B04.tif"
    service.others[f"/files/{name}"] = (302, {"Location": f"http://127.0.0.1:{port}/{name}"}, b"")
    source = ds.open_source(many(coast_items, coast_files, f"{service.url}/files"))
    got = list(source.read_many(table(), made_grid(), bands=["B04"], threads=1))
    assert all("refuses connections" in str(failure.error) for failure in got)
    assert calls[port] == web.UNREACHABLE_TRIES
    assert all(source.read_many(table(3), made_grid(), bands=["B03"]))


@pytest.mark.parametrize("fault", ["503", "reset", "drop", "page", "long"])
def test_a_server_that_answers_badly_is_asked_by_every_row(
    service: FaultService, coast_items: Items, coast_files: Path, fault: str
) -> None:
    source = ds.open_source(many(coast_items, coast_files, f"{service.url}/files", 3))
    service.plan = lambda request: fault
    failures = list(source.read_many(table(3), made_grid(), bands=["B04"], threads=1))
    assert not any(failures)
    tries = [int(re.search(r"(\d) tries", str(failure.error))[1]) for failure in failures]  # type: ignore[index]
    assert len(service.log) == sum(tries)
    assert not wire.DEAD
    service.plan = lambda request: None
    assert all(source.read_many(table(3), made_grid(), bands=["B04"]))


GONE, CUT = "http://a.invalid:80", ""


@pytest.mark.parametrize(
    ("places", "dead"),
    [
        ([GONE, GONE], {GONE}),
        ([CUT, GONE], set()),
        ([GONE, CUT, CUT, CUT, CUT], set()),
        ([CUT] * 5, set()),
        (["http://b.invalid:80", GONE], set()),
    ],
)
def test_a_hiccup_makes_no_host_dead(places: list[str], dead: set[str]) -> None:
    coming = iter(places)

    def once() -> str:
        raise wire.Trouble("no", unreachable=next(coming))

    with pytest.raises(SourceError):
        web.insist(once, lambda trouble: SourceError(str(trouble)), at=GONE, backoff_s=0)
    assert next(coming, None) is None
    assert set(wire.DEAD) == dead


def test_a_host_that_answers_somebody_else_is_not_dead() -> None:
    def once() -> str:
        other = threading.Thread(target=wire.answered, args=(f"{GONE}/b.tif",))
        other.start()
        other.join()
        raise wire.Trouble("no", unreachable=GONE)

    with pytest.raises(SourceError):
        web.insist(once, lambda trouble: SourceError(str(trouble)), backoff_s=0)
    assert not wire.DEAD


def test_who_was_at_it_before_goes_on_and_finds_the_host_again() -> None:
    tries = []

    def once() -> str:
        tries.append(1)
        if len(tries) == 1:
            wire.leave_alone(wire.Trouble("no", unreachable=GONE), since=0.0)
            raise wire.Trouble("no", unreachable=GONE)
        wire.answered(f"{GONE}/b.tif")
        return "here"

    tell = lambda trouble: SourceError(str(trouble))  # noqa: E731
    assert web.insist(once, tell, at=GONE, backoff_s=0) == "here"
    assert not wire.DEAD
    assert web.insist(once, tell, at=GONE, backoff_s=0) == "here"


def test_a_search_at_a_dead_service_fails_at_once_the_second_time(calls: Counter[int], later: Any) -> None:
    port = nobody()
    for tries in (1, 1, 2):
        if tries == 2:
            later(wire.LEFT_ALONE_S + 1)
        with pytest.raises(SourceError, match=r"does not answer \(127\.0\.0\.1 refuses connections"):
            ds.open_source(f"http://127.0.0.1:{port}/stac").search(MADE_AOI)
        assert calls[port] == tries * web.UNREACHABLE_TRIES
