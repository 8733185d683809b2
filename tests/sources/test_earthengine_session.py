"""Signing in to Earth Engine, and what its wire does to one: with the real client, its real credentials and ours."""

from __future__ import annotations

import json
import logging
import pickle
import re
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ee
import numpy as np
import pandas as pd
import pytest
import requests
import urllib3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from ee_server import PROJECT, EarthEngine, initialise, served
from google.auth.credentials import AnonymousCredentials
from google.oauth2.credentials import Credentials
from odc.geo.geobox import GeoBox
from source_kinds import END, SIZE_PX, START, World

import deepsentinel as ds
from deepsentinel.errors import InputError, ReadError, SourceError
from deepsentinel.sources import wire as all_wire
from deepsentinel.sources.demo import DemoSource
from deepsentinel.sources.earthengine import wire
from deepsentinel.sources.patience import reading_until

TOKEN = "ya29.planted-token"
PIXELS = "image:computePixels"
WAIT = wire.wait


@pytest.fixture(scope="module")
def world() -> World:
    return World(DemoSource(size_px=SIZE_PX))


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[EarthEngine]:
    with served(EarthEngine(world)) as service:
        yield service


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited, without waiting."""
    waited: list[float] = []
    monkeypatch.setattr(wire, "wait", waited.append)
    return waited


@pytest.fixture
def service(running: EarthEngine, waits: list[float]) -> Iterator[EarthEngine]:
    running.moods, running.asked, running.headers = [], [], []
    running.token, running.token_answer, running.retry_after = None, (200, {}), "0"
    running.counts.clear()
    ee.Reset()
    yield running
    ee.Reset()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder where nobody has signed in to anything."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "EARTHENGINE_TOKEN", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    return tmp_path


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()


@pytest.fixture
def key_file(tmp_path: Path, private_key: str, service: EarthEngine) -> Path:
    said = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "planted-key-id",
        "private_key": private_key,
        "client_email": "robot@a-project.iam.gserviceaccount.com",
        "client_id": "1234567890",
        "token_uri": f"{service.url}/token",
    }
    path = tmp_path / "key.json"
    path.write_text(json.dumps(said))
    service.token = TOKEN
    return path


@pytest.fixture
def signed(service: EarthEngine) -> Any:
    """Signed in by the source itself, over its own transport."""
    return ds.open_source("earth-engine", project=PROJECT, url=service.url, credentials=AnonymousCredentials())


@pytest.fixture
def grid(world: World) -> GeoBox:
    return world.grid("EPSG:32631")


def optical(src: Any, world: World) -> Any:
    scenes = src.search(world.area, START, END, sensors="S2")
    return scenes[scenes["crs"] == "EPSG:32631"].iloc[0]


# -- who asks ----------------------------------------------------------------------------------------------------------


def test_a_service_account_signs_in_by_itself(service: EarthEngine, world: World, grid: GeoBox, key_file: Path) -> None:
    src = ds.open_source("earth-engine", credentials=key_file, url=service.url)
    assert not service.counts
    patch = src.read(optical(src, world), grid, bands=["B04"])
    assert (patch["B04"] > 0).any()
    assert service.counts["/token"] == 1
    assert {headers["authorization"] for headers in service.headers} == {f"Bearer {TOKEN}"}


def test_a_token_that_expired_half_way_is_renewed(
    service: EarthEngine, world: World, grid: GeoBox, key_file: Path
) -> None:
    src = ds.open_source("earth-engine", credentials=str(key_file), url=service.url)
    scene = optical(src, world)
    before = src.read(scene, grid, bands=["B04"])
    service.token = "ya29.another"
    assert src.read(scene, grid, bands=["B04"]).identical(before)
    assert service.counts["/token"] == 2


def test_what_is_initialised_already_is_used_as_it_is(
    service: EarthEngine, world: World, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    initialise(service.url)
    monkeypatch.setattr(ee, "Initialize", lambda *_, **__: pytest.fail("initialised again"))
    for options in ({}, {"project": "another"}):
        assert len(ds.open_source("earth-engine", **options).search(world.area, START, END)) == 14


def test_nobody_signed_in_is_told_how_and_never_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ee.Reset()
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("prompted"))
    monkeypatch.setattr(ee, "Authenticate", lambda *_, **__: pytest.fail("prompted"))
    src = ds.open_source("earth-engine", project=PROJECT)
    with pytest.raises(SourceError, match=r"ee\.Authenticate\(\).*credentials='key\.json'"):
        src.search((0, 49, 0.1, 49.1), "2018-06-01", "2018-06-02")
    assert not ee.data.is_initialized()


def test_a_missing_client_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    src = ds.open_source("earth-engine", project=PROJECT)
    monkeypatch.setitem(sys.modules, "ee", None)
    with pytest.raises(SourceError, match=r"pip install 'deepsentinel\[gee\]'"):
        src.search((0, 49, 0.1, 49.1), "2018-06-01", "2018-06-02")


def test_what_authenticate_left_behind_is_used(
    service: EarthEngine, world: World, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ee.oauth, "TOKEN_URI", f"{service.url}/token")
    service.token = TOKEN
    folder = home / ".config" / "earthengine"
    folder.mkdir(parents=True)
    said = {"refresh_token": "1//planted-refresh", "client_id": "1-a.apps.googleusercontent.com", "client_secret": "x"}
    (folder / "credentials").write_text(json.dumps({**said, "project": PROJECT}))
    src = ds.open_source("earth-engine", url=service.url)
    assert len(src.search(world.area, START, END)) == 14
    # The account may have been closed meanwhile.
    ee.Reset()
    service.token_answer = (400, {"error": "invalid_grant", "error_description": "Token has been revoked."})
    with pytest.raises(SourceError, match=r"ee\.Authenticate\(\)") as problem:
        ds.open_source("earth-engine", url=service.url).search(world.area, START, END)
    assert "planted" not in "".join(traceback.format_exception(problem.value))


def test_a_missing_project_is_told(service: EarthEngine, home: Path) -> None:
    src = ds.open_source("earth-engine", url=service.url, credentials=AnonymousCredentials())
    with pytest.raises(SourceError, match=r"project='my-project'"):
        src.search((0, 49, 0.1, 49.1), "2018-06-01", "2018-06-02")
    # And nothing half signed in stays behind.
    assert not ee.data.is_initialized()


def test_who_is_turned_away_while_signing_in_is_not_signed_in(service: EarthEngine, world: World) -> None:
    """The description of the service is for everybody, its functions are not."""
    service.token = TOKEN
    src = ds.open_source("earth-engine", project=PROJECT, url=service.url, credentials=AnonymousCredentials())
    for _ in range(2):
        with pytest.raises(SourceError, match=r"Signing in to Earth Engine failed.*ee\.Authenticate\(\)"):
            src.search(world.area, START, END)
        assert not ee.data.is_initialized()
    service.token = None
    assert len(src.search(world.area, START, END)) == 14


def test_a_project_that_is_not_registered_is_told(signed: Any, world: World, service: EarthEngine) -> None:
    message = "Project 'projects/a-project' is not registered to use Earth Engine. Permission denied."
    service.moods = [(403, message)]
    with pytest.raises(SourceError, match=r"not registered.*code\.earthengine\.google\.com/register"):
        signed.search(world.area, START, END)


def test_two_accounts_do_not_fit_into_one_process(service: EarthEngine, world: World, signed: Any) -> None:
    signed.search(world.area, START, END)
    same = ds.open_source("earth-engine", project=PROJECT, threads=2)
    assert len(same.search(world.area, START, END)) == 14
    with pytest.raises(SourceError, match="one project and one account"):
        ds.open_source("earth-engine", project="another").search(world.area, START, END)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"cannot be read as a file \(No such file"),
        ("not json", "is no JSON"),
        ('{"type": "authorized_user"}', "of type 'authorized_user'"),
    ],
)
def test_key_files_are_checked_when_a_source_is_opened(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "key.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=words):
        ds.open_source("earth-engine", credentials=path)


def test_a_pasted_key_stands_in_no_message(private_key: str) -> None:
    for pasted in (private_key, json.dumps({"private_key": private_key})):
        with pytest.raises(InputError, match="is no path") as problem:
            ds.open_source("earth-engine", credentials=pasted)
        assert "MII" not in "".join(traceback.format_exception(problem.value))


def test_a_pasted_token_stands_in_no_message() -> None:
    with pytest.raises(InputError, match="cannot be read as a file") as problem:
        ds.open_source("earth-engine", credentials="ya29.a0SECRET")
    assert "SECRET" not in "".join(traceback.format_exception(problem.value)).replace('credentials="ya29.a0SECRET"', "")


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_secrets_are_nowhere(
    service: EarthEngine,
    world: World,
    grid: GeoBox,
    key_file: Path,
    private_key: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="deepsentinel")
    src = ds.open_source("earth-engine", credentials=key_file, url=service.url)
    scene = optical(src, world)
    patch = src.read(scene, grid, bands=["B04"])
    service.moods = [(400, "Something is wrong with https://x.org/v1/image?key=planted-api-key&alt=json")]
    with pytest.raises(ReadError) as problem:
        src.read(scene, grid, bands=["B04"])
    spread = [repr(src), src.info(), str(vars(src)), src.opened, str(patch.attrs), caplog.text]
    spread += ["".join(traceback.format_exception(problem.value)), str(pickle.dumps(src))]
    body = private_key.splitlines()[5]
    for secret in (TOKEN, body, "planted"):
        assert not any(secret in text for text in spread), secret


def test_credentials_that_are_an_object_are_not_pickled() -> None:
    given = Credentials("planted-token", refresh_token="planted-refresh")
    src = ds.open_source("earth-engine", project=PROJECT, credentials=given)
    for one in (src, pickle.loads(pickle.dumps(src))):
        assert b"planted" not in pickle.dumps(one)
    assert "planted" not in repr(src) + src.opened


WORKER = """
import pickle, sys
src, row, grid = pickle.loads(sys.stdin.buffer.read())
patch = src.read(row, grid, bands=["B04"])
sys.stdout.buffer.write(pickle.dumps(patch.to_dict()))
"""


def in_a_worker(src: Any, row: Any, grid: GeoBox) -> subprocess.CompletedProcess[bytes]:
    load = pickle.dumps((src, row.to_dict(), grid))
    return subprocess.run([sys.executable, "-c", WORKER], input=load, capture_output=True, timeout=120, check=False)


def test_a_worker_signs_in_from_the_same_place(
    service: EarthEngine, world: World, grid: GeoBox, key_file: Path
) -> None:
    src = ds.open_source("earth-engine", credentials=key_file, url=service.url)
    scene = optical(src, world)
    done = in_a_worker(src, scene, grid)
    assert done.returncode == 0, done.stderr.decode()
    there = pickle.loads(done.stdout)["data_vars"]["B04"]["data"]
    np.testing.assert_array_equal(there, src.read(scene, grid, bands=["B04"])["B04"])
    assert service.counts["/token"] == 2


def test_credentials_that_are_an_object_stay_at_home(signed: Any, world: World, grid: GeoBox) -> None:
    done = in_a_worker(signed, optical(signed, world), grid)
    assert done.returncode != 0
    assert b"Give the path of a key file instead" in done.stderr


# -- the wire ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mood",
    [429, 500, 502, 503, 504, "reset", b"\x93NUMPY\x01\x00 cut off", b"<html><body>Sign in</body></html>", b""],
    ids=str,
)
def test_what_passes_is_waited_out(
    signed: Any, world: World, grid: GeoBox, service: EarthEngine, waits: list[float], mood: Any
) -> None:
    scene = optical(signed, world)
    wanted = signed.read(scene, grid)
    service.asked, waits[:] = [], []
    service.moods = [mood, mood]
    assert signed.read(scene, grid).identical(wanted)
    assert len(service.asked) == 3
    assert len(waits) == (0 if isinstance(mood, bytes) else 2)


def test_a_named_wait_is_kept_and_others_grow_and_differ(
    signed: Any, world: World, service: EarthEngine, waits: list[float]
) -> None:
    service.retry_after, service.moods = "7", [429]
    signed.search(world.area, START, END, sensors="S2")
    assert waits == [7.0]
    waits.clear()
    service.moods = [503] * 5
    signed.search(world.area, START, END, sensors="S2")
    for at, waited in enumerate(waits):
        assert 0.5 * 2**at <= waited <= 2**at
    assert len({waited / 2**at for at, waited in enumerate(waits)}) == 5


def test_patience_ends(signed: Any, world: World, grid: GeoBox, service: EarthEngine, waits: list[float]) -> None:
    scene = optical(signed, world)
    service.asked, waits[:] = [], []
    service.moods = [503] * 50
    with pytest.raises(ReadError, match=rf"{scene.id}.*unavailable.*fewer threads"):
        signed.read(scene, grid)
    assert len(service.asked) == wire.TRIES
    assert sum(waits) <= wire.MAX_WAIT_S * len(waits)


def test_a_damaged_key_is_told_by_its_file(service: EarthEngine, world: World, key_file: Path) -> None:
    said = json.loads(key_file.read_text())
    said["private_key"] = said["private_key"].replace("A", "B", 5)[:-200]
    key_file.write_text(json.dumps(said))
    src = ds.open_source("earth-engine", project=PROJECT, url=service.url, credentials=key_file)
    with pytest.raises(InputError, match=r"key\.json.*Make a new") as problem:
        src.search(world.area, START, END)
    assert said["private_key"][30:60] not in "".join(traceback.format_exception(problem.value))
    assert problem.value.__cause__ is None


def test_who_leaves_is_not_held_up_by_a_busy_service(
    signed: Any, world: World, grid: GeoBox, service: EarthEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python waits for its threads before it ends: one that is told to come back in a minute has to notice."""
    scene = optical(signed, world)
    monkeypatch.setattr(wire, "wait", WAIT)
    service.asked, service.retry_after, service.moods = [], "60", [503] * 50
    with reading_until(lambda: len(service.asked) > 0), pytest.raises(ReadError, match="stopped"):
        signed.read(scene, grid)
    threads = [one for one in threading.enumerate() if one.name.startswith("deepsentinel-earth-engine")]
    for one in threads:
        one.join(10)
    assert not any(one.is_alive() for one in threads)
    assert len(service.asked) == 1, "nothing is asked again for nobody"
    # The scene is looked up by whoever reads, without a thread of its own.
    service.asked, service.moods = [], [503] * 50
    with reading_until(lambda: len(service.asked) > 0), pytest.raises(ReadError, match="stopped"):
        signed.read({"sensor": "S2", "id": "never_seen"}, grid)
    assert len(service.asked) == 1


def test_an_answer_in_drops_is_too_late(world: World, grid: GeoBox, service: EarthEngine, waits: list[float]) -> None:
    """Each byte comes in time, the whole does not."""
    slow = ds.open_source(
        "earth-engine", project=PROJECT, url=service.url, credentials=AnonymousCredentials(), timeout_s=2
    )
    scene = optical(slow, world)
    wanted = slow.read(scene, grid)
    service.asked, service.drops, service.moods = [], 0, ["drops"]
    assert slow.read(scene, grid).identical(wanted)
    assert len(service.asked) == 2
    assert 0 < service.drops < 100


def test_a_host_that_is_not_there(world: World, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    ee.Reset()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    src = ds.open_source("earth-engine", project=PROJECT, url=url, credentials=AnonymousCredentials())
    with pytest.raises(SourceError, match=r"Earth Engine does not answer.*Check the network"):
        src.search(world.area, START, END)
    assert not ee.data.is_initialized()
    waits.clear()
    nowhere = ds.open_source("earth-engine", project=PROJECT, credentials=AnonymousCredentials())
    with pytest.raises(SourceError, match="does not answer"):  # no such name: the tests resolve none
        nowhere.search(world.area, START, END)
    assert len(waits) == 1


def test_a_service_that_went_away_is_found_out_once_for_a_table(
    signed: Any, world: World, grid: GeoBox, service: EarthEngine, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = signed.search(world.area, START, END, sensors="S2")
    scenes = scenes[scenes["crs"] == "EPSG:32631"]
    transport = ee.data._get_state().http_transport
    asked: list[str] = []

    def nobody(self: Any, uri: str, *_: Any) -> Any:
        asked.append(uri)
        refused = urllib3.exceptions.NewConnectionError(None, "refused")  # type: ignore[arg-type]
        raise requests.ConnectionError(urllib3.exceptions.MaxRetryError(None, uri, refused))  # type: ignore[arg-type]

    table = pd.concat([scenes] * 20)
    with monkeypatch.context() as away:
        away.setattr(type(transport), "_once", nobody)
        # It answered a moment ago: who is refused twice is not enough yet.
        assert not any(signed.read_many(table[:2], grid, bands=["B04"], threads=1))
        assert not all_wire.DEAD
        all_wire.ANSWERED[all_wire.place_of(service.url)] -= wire.LATELY_S + 1
        asked.clear()
        failures = list(signed.read_many(table, grid, bands=["B04"], threads=1))
    assert len(asked) == wire.UNREACHABLE_TRIES
    for failure in failures:
        assert failure.s2_id in str(failure.error)
        assert "Earth Engine does not answer" in str(failure.error)
    monkeypatch.setattr(all_wire, "LEFT_ALONE_S", 0.0)
    assert all(signed.read_many(table[:2], grid, bands=["B04"]))


def test_redirects_are_not_followed(signed: Any, world: World, service: EarthEngine) -> None:
    service.moods = [(307, "moved")]
    with pytest.raises(SourceError, match="moved"):
        signed.search(world.area, START, END)
    assert len(service.asked) == 1


def test_with_somebody_elses_client_faults_are_told_as_well(
    service: EarthEngine, world: World, grid: GeoBox, home: Path
) -> None:
    initialise(service.url)
    src = ds.open_source("earth-engine", project=PROJECT)
    scene = optical(src, world)
    wanted = src.read(scene, grid)
    service.moods = [503]  # this client was told to try once
    with pytest.raises(ReadError, match="unavailable"):
        src.read(scene, grid)
    service.moods = [b"<html>"]
    assert src.read(scene, grid).identical(wanted)
    service.moods = ["reset"] * 3
    with pytest.raises(ReadError, match="does not answer"):
        src.read(scene, grid)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_thousand_reads_under_faults_lose_and_repeat_nothing(
    signed: Any, world: World, service: EarthEngine, seed: int
) -> None:
    """One in twenty answers is a fault of some kind."""
    scenes = signed.search(world.area, START, END)
    scenes = scenes[scenes["crs"] == "EPSG:32631"]
    whole = world.grid("EPSG:32631")
    rng = np.random.default_rng(seed)
    count = 500
    rows = scenes.iloc[rng.integers(0, len(scenes), count)].reset_index(drop=True)
    corners = rng.integers(0, 60, (count, 2))
    grids = [whole[top : top + 8, left : left + 8] for top, left in corners.tolist()]
    full = {row.id: signed.read(row, whole) for _, row in scenes.iterrows()}
    faults = [429, 500, 503, "reset", b"<html>", b""]
    service.moods = [faults[int(rng.integers(len(faults)))] if rng.random() < 0.05 else None for _ in range(2 * count)]
    expected = sum(mood is not None for mood in service.moods[:count])
    service.asked = []
    for row, grid, (top, left), patch in zip(
        rows.itertuples(), grids, corners.tolist(), signed.read_many(rows, grids), strict=True
    ):
        part = full[row.id].isel(y=slice(top, top + 8), x=slice(left, left + 8))
        assert patch.attrs == part.attrs
        for name in part.data_vars:
            np.testing.assert_array_equal(patch[name].values, part[name].values)
        assert patch.sizes == {"y": grid.shape[0], "x": grid.shape[1]}
    assert expected > 10
    assert count + expected <= len(service.asked) <= count + 2 * expected


@pytest.mark.parametrize("text", ["Project 'a-project' not found or deleted.", "Requested entity was not found."])
def test_a_lost_project_is_not_a_lost_scene(signed: Any, world: World, service: EarthEngine, text: str) -> None:
    signed.search(world.area, START, END)
    service.moods = [(404, text)]
    with pytest.raises(SourceError, match="not found"):
        signed.items_of("S1", ["S1A_IW_unknown"])


def test_messages_are_short_and_have_no_addresses_with_keys() -> None:
    text = "<HttpError 400 when requesting https://x.org/v1/p?key=abc&alt=json returned 'bad'> Bearer ya29.x"
    plain = wire.plain(text)
    assert "abc" not in plain
    assert "ya29" not in plain
    assert re.search("https://x.org/v1/p ", plain)
