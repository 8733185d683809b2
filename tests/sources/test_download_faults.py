"""What goes wrong while products come: cuts, faults, expired tokens, archives, Ctrl-C, kill -9; and what is said."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import pytest

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, SourceError

pytest.importorskip("eodag", reason="downloading needs the extra 'download'")

import itertools

from download_server import PASSWORD, DownloadServer, product_zip, serving
from test_download import NAMES, held, scenes_of

from deepsentinel.sources.download import transfer, work

SIZE = 1_200_000


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    products = [held(name, data=product_zip(name, SIZE)) for name in NAMES]
    monkeypatch.setattr(transfer, "BACKOFF_S", 0.01)
    with serving(DownloadServer(products)) as server:
        monkeypatch.setenv("EODAG_CFG_DIR", str(tmp_path / "eodag"))
        monkeypatch.setenv("EODAG_CFG_FILE", str(server.configuration(tmp_path)))
        yield server


def quietly(*args: Any, **options: Any) -> Any:
    """Download, where it is known that not everything comes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepSentinelWarning)
        return ds.download(*args, **options)


def grown(folder: Path) -> int:
    """Bytes on disk of what is under way."""
    return sum(path.stat().st_size for path in (folder / ".downloads").glob("*.part"))


def whole(shop: DownloadServer, folder: Path, names: list[str] = NAMES) -> bool:
    data = {one.name: one.data for one in shop.products}
    return all((folder / f"{name}.zip").read_bytes() == data[name] for name in names)


# -- what passes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_goes_on_where_it_was(shop, tmp_path, ranges):
    shop.ranges = ranges
    shop.mood = lambda name, nth: f"cut {300_000 + nth}" if nth <= 2 else None
    got = ds.download(scenes_of(NAMES[:1]), tmp_path)
    assert got.status[0] == "downloaded"
    assert whole(shop, tmp_path, NAMES[:1])
    log = shop.downloads()
    size = len(shop.products[0].data)
    if ranges:
        assert [one.first for one in log] == [0, 300_001, 600_003]
        assert shop.bytes_sent() == size  # nothing came twice
    else:
        assert [one.status for one in log] == [200, 200, 200]
        assert shop.bytes_sent() == 300_001 + 300_002 + size


@pytest.mark.parametrize(
    "mood", ["503", "500", "429 0", "html", "longer", "elsewhere", "unsized", "cut 0", "cut 70000", "401", "403"]
)
def test_what_goes_wrong_once_goes_right_in_the_end(shop, tmp_path, mood):
    # The first connection is cut, the second continues and meets the fault.
    shop.mood = lambda name, nth: "cut 200000" if nth == 1 else mood if nth == 2 else None
    got = ds.download(scenes_of(NAMES), tmp_path)
    assert list(got.status) == ["downloaded"] * 3
    assert whole(shop, tmp_path)
    assert not list((tmp_path / ".downloads").glob("*.part"))


def test_a_server_that_falls_silent_is_asked_again(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "QUIET_S", 0.4)
    shop.mood = lambda name, nth: "stall 100000 30" if nth == 1 else None
    began = time.monotonic()
    assert list(ds.download(scenes_of(NAMES), tmp_path).status) == ["downloaded"] * 3
    assert time.monotonic() - began < 25
    assert whole(shop, tmp_path)
    assert [one.first for one in shop.downloads(NAMES[0])] == [0, 100_000]


def test_as_long_as_the_server_asks_is_waited(shop, tmp_path):
    shop.mood = lambda name, nth: "429 1" if nth == 1 else None
    ds.download(scenes_of(NAMES[:1]), tmp_path)
    first, second = shop.downloads()
    assert second.at - first.at >= 1.0
    assert whole(shop, tmp_path, NAMES[:1])


def test_a_file_that_was_replaced_meanwhile_is_brought_anew(shop, tmp_path):
    shop.mood = lambda name, nth: "cut 400000" if nth == 1 else "503"
    quietly(scenes_of(NAMES[:1]), tmp_path)
    part = tmp_path / ".downloads" / f"{NAMES[0]}.part"
    assert part.stat().st_size == 400_000
    shop.mood = lambda name, nth: None
    shop.log.clear()
    shop.products[0].data = product_zip(NAMES[0], SIZE, inside={f"{NAMES[0]}.SAFE/more.txt": b"new"})
    got = ds.download(scenes_of(NAMES[:1]), tmp_path)
    assert got.status[0] == "downloaded"
    assert whole(shop, tmp_path, NAMES[:1])
    assert [one.status for one in shop.downloads()] == [200]  # the rest was asked for if it was still the same


def test_without_any_sign_that_it_is_the_same_file_nothing_is_glued(shop, tmp_path):
    shop.etags, shop.products[0].md5 = False, None
    shop.mood = lambda name, nth: "cut 400000" if nth == 1 else None
    assert ds.download(scenes_of(NAMES[:1]), tmp_path).status[0] == "downloaded"
    assert [one.first for one in shop.downloads()] == [0, 0]
    # With a checksum, which would tell, it is.
    shop.products[1].md5 = ""
    shop.log.clear()
    assert ds.download(scenes_of(NAMES[1:2]), tmp_path).status[0] == "downloaded"
    assert [one.first for one in shop.downloads()] == [0, 400_000]


def test_an_expired_token_is_renewed_on_the_way(shop, tmp_path):
    def mood(name: str, nth: int) -> str | None:
        if nth == 1:
            shop.refused_tokens.update(shop.tokens)
            return "cut 500000"
        return None

    shop.mood = mood
    assert ds.download(scenes_of(NAMES[:1]), tmp_path).status[0] == "downloaded"
    assert [one.status for one in shop.downloads()] == [200, 401, 206]
    assert len(shop.tokens) == 2
    assert shop.bytes_sent() == len(shop.products[0].data)


def test_one_token_serves_all(shop, tmp_path):
    ds.download(scenes_of(NAMES), tmp_path)
    assert len(shop.tokens) == 1


def test_a_key_in_a_header_stays_behind_at_another_host(shop, tmp_path, monkeypatch):
    monkeypatch.setenv("EODAG_CFG_FILE", str(shop.configuration(tmp_path, header=True)))
    got = quietly(scenes_of(NAMES[:1]), tmp_path)
    assert shop.asked_with
    assert all("Authorization" not in headers for headers in shop.asked_with)
    assert got.status[0] == "failed"
    assert "credentials" in got.note[0]


def test_what_is_damaged_once_comes_again(shop, tmp_path):
    shop.mood = lambda name, nth: "flip" if nth == 1 else None
    got = ds.download(scenes_of(NAMES[:1]), tmp_path)
    assert got.status[0] == "downloaded"
    assert whole(shop, tmp_path, NAMES[:1])
    note = json.loads((tmp_path / ".downloads" / f"{NAMES[0]}.json").read_text())
    assert note["checked"] == "md5"
    assert note["whole"]


@pytest.mark.parametrize("md5", ["", None])
def test_what_stays_damaged_is_not_kept(shop, tmp_path, md5):
    shop.products[0].md5 = md5
    good = shop.products[0].data
    wrong = bytearray(good)
    wrong[600_000] ^= 1  # in the middle of a member: only sums tell
    served = shop.products[0]
    shop.mood = lambda name, nth: setattr(served, "data", bytes(wrong)) or None if name == NAMES[0] else None  # type: ignore[func-returns-value]
    got = quietly(scenes_of(NAMES), tmp_path)
    assert list(got.status) == ["failed", "downloaded", "downloaded"]
    assert "twice" in got.note[0]
    assert ("md5" in got.note[0] and "checksum=False" in got.note[0]) or md5 is None
    assert not (tmp_path / f"{NAMES[0]}.zip").exists()
    assert len(shop.downloads(NAMES[0])) == 2
    served.data = good
    shop.mood = lambda name, nth: None
    assert ds.download(scenes_of(NAMES), tmp_path).status[0] == "downloaded"


def test_a_wrong_checksum_of_the_provider_can_be_left_out(shop, tmp_path):
    shop.products[0].md5 = "d41d8cd98f00b204e9800998ecf8427e"
    assert quietly(scenes_of(NAMES[:1]), tmp_path).status[0] == "failed"
    assert ds.download(scenes_of(NAMES[:1]), tmp_path, checksum=False).status[0] == "downloaded"
    assert whole(shop, tmp_path, NAMES[:1])


# -- what does not pass ------------------------------------------------------------------------------------------------


def test_one_that_fails_stops_nobody_and_says_why(shop, tmp_path):
    shop.mood = lambda name, nth: "404" if name == NAMES[0] else "503" if name == NAMES[1] else None
    with pytest.warns(DeepSentinelWarning, match="2 of 3 scenes did not come"):
        got = ds.download(scenes_of(NAMES), tmp_path)
    assert list(got.status) == ["failed", "failed", "downloaded"]
    assert "lists it and does not have it" in got.note[0]
    assert "broke off 5 times (HTTP 503), after 0 bytes" in got.note[1]
    assert "download again" in got.note[1]
    assert whole(shop, tmp_path, NAMES[2:])


def test_who_asks_for_an_hour_of_patience_is_left_for_later(shop, tmp_path):
    shop.mood = lambda name, nth: "429 3600"
    began = time.monotonic()
    got = quietly(scenes_of(NAMES[:1]), tmp_path)
    assert "asks to wait 3600 s" in got.note[0]
    assert time.monotonic() - began < 20
    assert len(shop.downloads()) == 1


def test_a_search_that_fails_for_some_leaves_the_others(shop, tmp_path):
    other = NAMES[0].replace("T32TPS", "T31TPS")
    shop.products.append(held(other))
    shop.search_moods = [404]
    got = quietly(scenes_of([other, *NAMES]), tmp_path)
    assert sorted(got.status) == ["downloaded", "downloaded", "downloaded", "failed"]
    assert "could not search" in got.note[0]


def test_no_more_connections_than_the_provider_likes(shop, tmp_path):
    names = [f"S2A_MSIL2A_202306{day:02d}T100601_N0509_R022_T32TPS_202306{day:02d}T162001" for day in range(1, 11)]
    shop.products = [held(name) for name in names]
    shop.slow_s = 0.15
    ds.download(scenes_of(names), tmp_path / "four")
    assert 2 <= shop.most_at_once <= 4
    shop.most_at_once = 0
    ds.download(scenes_of(names[:4]), tmp_path / "one", threads=1)
    assert shop.most_at_once == 1


# -- the archive -------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(shop, tmp_path, monkeypatch):
    monkeypatch.setenv("EODAG_CFG_FILE", str(shop.configuration(tmp_path, orders=True)))
    monkeypatch.setattr(work, "POLL_FIRST_S", 0.3)
    for one in shop.products[:2]:
        one.online = False
    return shop


def asked_after(shop: DownloadServer, what: str = "/orders/") -> list[float]:
    return [one.at for one in shop.log if one.path.startswith(what)]


def test_what_lies_in_the_archive_is_ordered_once_and_asked_after_ever_more_seldom(archive, tmp_path):
    archive.order_takes = 4
    archive.products[1].online = True
    got = ds.download(scenes_of(NAMES), tmp_path, wait_minutes=1)
    assert list(got.status) == ["downloaded"] * 3
    assert whole(archive, tmp_path)
    assert len(asked_after(archive, "/order?") or asked_after(archive, "/order")) >= 1
    assert sum(one.path == "/order" for one in archive.log) == 1
    times = asked_after(archive)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(gaps) == 3
    assert gaps[0] >= 0.3
    assert gaps[1] >= 0.45
    assert gaps[2] >= 0.67


def test_an_order_is_remembered_from_call_to_call(archive, tmp_path, monkeypatch):
    archive.order_takes = 3
    monkeypatch.setattr(work, "POLL_FIRST_S", 600.0)
    first = quietly(scenes_of(NAMES), tmp_path, wait_minutes=0)
    assert list(first.status) == ["ordered", "ordered", "downloaded"]
    assert "call again" in first.note[0]
    assert "2 from the archive first" in first.attrs["estimate"]
    # At once again: nobody is asked more often for that, nor waits for what will not be asked after in time.
    many = len(asked_after(archive))
    assert many == 2
    assert list(quietly(scenes_of(NAMES), tmp_path, wait_minutes=1).status) == ["ordered", "ordered", "present"]
    assert len(asked_after(archive)) == many
    for call in (2, 3):
        for name in NAMES[:2]:  # time passes
            path = tmp_path / ".downloads" / f"{name}.json"
            note = json.loads(path.read_text())
            path.write_text(json.dumps({**note, "asked_s": note["asked_s"] - 2 * note["every_s"]}))
        last = quietly(scenes_of(NAMES), tmp_path, wait_minutes=0)
        assert len(asked_after(archive)) == 2 * call
    assert list(last.status) == ["downloaded", "downloaded", "present"]
    assert whole(archive, tmp_path)
    assert sum(one.path == "/order" for one in archive.log) == 2  # one for each, though called again and again
    note = json.loads((tmp_path / ".downloads" / f"{NAMES[0]}.json").read_text())
    assert "order" not in note
    assert "asked_s" not in note


def test_an_order_that_was_lost_is_given_again(archive, tmp_path):
    archive.order_takes = 3
    quietly(scenes_of(NAMES[:1]), tmp_path, wait_minutes=0)
    archive.orders.clear()  # the provider knows nothing of it any more
    got = quietly(scenes_of(NAMES[:1]), tmp_path, wait_minutes=0.2)
    assert got.status[0] == "failed"
    assert "lost" in got.note[0]
    got = quietly(scenes_of(NAMES[:1]), tmp_path, wait_minutes=0.5)
    assert got.status[0] == "downloaded"
    assert sum(one.path == "/order" for one in archive.log) == 2


def test_a_provider_that_takes_no_orders_is_told_of(shop, tmp_path):
    shop.products[0].online = False
    got = quietly(scenes_of(NAMES[:1]), tmp_path)
    assert got.status[0] == "failed"
    assert "not online but in the archive, and cop_dataspace takes no orders" in got.note[0]


def test_one_that_orders_when_asked_for_the_file_is_asked_again(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(work, "POLL_FIRST_S", 0.2)
    shop.mood = lambda name, nth: "202" if nth <= 2 else None
    got = ds.download(scenes_of(NAMES[:1]), tmp_path, wait_minutes=1)
    assert got.status[0] == "downloaded"
    assert whole(shop, tmp_path, NAMES[:1])
    assert len(shop.downloads()) == 3


# -- stops -------------------------------------------------------------------------------------------------------------


def test_a_stop_ends_it_soon_and_keeps_what_came(shop, tmp_path):
    shop.mood = lambda name, nth: "stall 500000 30"
    began = time.monotonic()
    # All three connections are open, and silent.
    got = quietly(scenes_of(NAMES), tmp_path, stop=lambda: grown(tmp_path) == 1_500_000)
    assert list(got.status) == ["stopped"] * 3
    assert time.monotonic() - began < 25
    assert not list(tmp_path.glob("*.zip"))
    shop.mood = lambda name, nth: None
    shop.log.clear()
    assert list(ds.download(scenes_of(NAMES), tmp_path).status) == ["downloaded"] * 3
    assert whole(shop, tmp_path)
    assert shop.bytes_sent() == sum(len(one.data) for one in shop.products) - 1_500_000


CHILD = """
import sys
sys.path[:0] = {paths!r}
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests in the background ignores it
import deepsentinel as ds
from test_download import scenes_of
got = ds.download(scenes_of({names!r}), {folder!r}, progress=False)
print(*got.status)
"""


def child(folder: Path) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    code = CHILD.format(paths=[str(here), str(here.parent)], names=NAMES, folder=str(folder))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_ends_it_soon_and_leaves_no_half_product(shop, tmp_path):
    shop.mood = lambda name, nth: "stall 500000 30"
    running = child(tmp_path / "out")
    try:
        while grown(tmp_path / "out") < 1_500_000:
            assert running.poll() is None
            time.sleep(0.02)
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        told = running.communicate(timeout=60)[1]
    finally:
        running.kill()
    assert "KeyboardInterrupt" in told
    assert running.returncode not in (0, None)
    assert time.monotonic() - began < 25
    assert not list((tmp_path / "out").glob("*.zip"))
    shop.mood = lambda name, nth: None
    shop.log.clear()
    assert list(ds.download(scenes_of(NAMES), tmp_path / "out").status) == ["downloaded"] * 3
    assert whole(shop, tmp_path / "out")
    assert shop.bytes_sent() == sum(len(one.data) for one in shop.products) - 1_500_000


def test_killed_outright_it_goes_on_where_it_was(shop, tmp_path):
    shop.mood = lambda name, nth: "stall 500000 30"
    running = child(tmp_path / "out")
    try:
        while grown(tmp_path / "out") < 1_500_000:
            assert running.poll() is None
            time.sleep(0.02)
    finally:
        running.kill()
        running.communicate()
    assert not list((tmp_path / "out").glob("*.zip"))
    shop.log.clear()
    shop.mood = lambda name, nth: None
    assert list(ds.download(scenes_of(NAMES), tmp_path / "out").status) == ["downloaded"] * 3
    assert whole(shop, tmp_path / "out")
    assert shop.bytes_sent() == sum(len(one.data) for one in shop.products) - 1_500_000


@pytest.mark.long
def test_two_processes_bring_each_product_once(shop, tmp_path):
    shop.slow_s = 6.0  # long enough for both to be at it
    running = child(tmp_path / "out")
    try:
        while not shop.downloads():
            assert running.poll() is None
            time.sleep(0.02)
        mine = ds.download(scenes_of(NAMES), tmp_path / "out", progress=False)
        theirs = running.communicate(timeout=60)[0].split()
    finally:
        running.kill()
    assert set(mine.status) | set(theirs) <= {"downloaded", "present"}
    assert whole(shop, tmp_path / "out")
    assert len(shop.downloads()) == 3
    assert shop.bytes_sent() == sum(len(one.data) for one in shop.products)


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_no_key_is_ever_said_or_written(shop, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    shop.mood = lambda name, nth: {NAMES[0]: None, NAMES[1]: "503"}.get(name, "403")
    with pytest.warns(DeepSentinelWarning) as caught:
        got = ds.download(scenes_of(NAMES), tmp_path / "out")
    assert sorted(got.status) == ["downloaded", "failed", "failed"]
    shop.wrong_password = True
    other = tmp_path / "other"
    try:
        ds.download(scenes_of(NAMES), other)
        raise AssertionError("it went in with a wrong password")
    except SourceError as error:
        told = "".join(traceback.format_exception(error))
        while error.__context__ is not None:
            error = error.__context__  # type: ignore[assignment]
            told += repr(error)
    secrets = [PASSWORD, *shop.tokens, "refresh"]
    assert len(shop.tokens) >= 1
    said = caplog.text + told + got.to_csv() + str(got.attrs) + "".join(str(one.message) for one in caught)
    files = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    for secret in secrets[:-1]:
        assert secret not in said
        assert secret.encode() not in files
    assert "eodag" in caplog.text  # its own log was listened to
