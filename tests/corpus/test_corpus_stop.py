"""Ctrl-C ends a build between two samples, not two shards, and what is there then is gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from build_kit import digest, half_built, points_in, quiet_build, quiet_plan

import deepsentinel as ds
from deepsentinel.corpus.arrays import specs_of
from deepsentinel.corpus.cost import longest
from deepsentinel.corpus.plan import Plan
from deepsentinel.corpus.reader import read_rows
from deepsentinel.errors import ReadError
from deepsentinel.sources.demo import DemoSource
from deepsentinel.sources.engine import reading_until

HERE = Path(__file__).parent
# A dict is not in the fingerprint of a function that uses it, so that the corpus may be gone on with at another pace.
PACE = {"seconds": 0.0}
STARTED = {"path": ""}
A_SAMPLE_S, A_SHARD = 0.5, 12
BUILD = """
import multiprocessing, signal, sys
from concurrent.futures import ProcessPoolExecutor
# Who was started in the background of a shell ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
import test_corpus_stop as here
from deepsentinel.corpus.plan import load_plan
here.PACE["seconds"] = here.A_SAMPLE_S
here.STARTED["path"] = sys.argv[5]
how = {"one": {"threads": 1}, "two": {"threads": 2}}.get(sys.argv[4])
if how is None:
    how = {"executor": ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork"))}
try:
    here.quiet_build(load_plan(sys.argv[2]), sys.argv[3], {"dark": here.slowly}, **how)
except KeyboardInterrupt:
    print("stopped", flush=True)
    raise SystemExit(7)
"""


def slowly(patch: Any) -> Any:
    if STARTED["path"]:
        Path(STARTED["path"]).touch()
    time.sleep(PACE["seconds"])
    return patch["B04"].values < 900


@pytest.fixture(scope="module")
def plan() -> Plan:
    src = ds.open_source("demo", size_px=256)
    return quiet_plan(points_in(src, 3 * A_SHARD), src, bands=["B04", "VV"], samples_per_shard=A_SHARD)


@pytest.fixture(scope="module")
def through(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("through") / "c.zarr"
    assert quiet_build(plan, folder, {"dark": slowly}).failed == 0
    return folder


@pytest.mark.parametrize(("how", "times", "group"), [("one", 1, False), ("two", 2, False), ("pool", 1, True)])
def test_ctrl_c_does_not_wait_for_shards(
    plan: Plan, through: Path, tmp_path: Path, how: str, times: int, group: bool
) -> None:
    folder, started = tmp_path / "c.zarr", tmp_path / "started"
    words = [sys.executable, "-c", BUILD, str(HERE), str(through / "plan"), str(folder), how, str(started)]
    with subprocess.Popen(words, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not started.exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.02)
        began = time.monotonic()
        for _ in range(times):
            (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
            time.sleep(0.1)
        said, _ = process.communicate(timeout=30)
        took_s = time.monotonic() - began
    assert (process.returncode, said) == (7, b"stopped\n")
    assert took_s < A_SHARD * A_SAMPLE_S / 2
    assert not (folder / ".lock").exists()
    assert set(half_built(folder)["status"].values) == {"planned"}
    assert quiet_build(plan, folder, {"dark": slowly}).ok == len(plan.samples)
    assert digest(folder) == digest(through)


class CountingSource(DemoSource):
    """The demo world, that counts the files it is asked for, and sets `enough` at the tenth."""

    asked = 0
    enough = threading.Event()

    def resolve(self, href: str, item: dict[str, Any], asset_key: str) -> str:
        self.asked += 1
        if self.asked == 10:
            self.enough.set()
        return super().resolve(href, item, asset_key)


@pytest.mark.timeout(60)
def test_what_is_read_ahead_stops_too(plan: Plan) -> None:
    src = CountingSource(size_px=256)
    rows = plan.samples.iloc[:A_SHARD]
    specs, _ = specs_of(plan.settings, longest(plan.samples))
    with reading_until(src.enough.is_set), pytest.raises(ReadError, match="stopped"):
        list(read_rows(rows, {"demo": src}, plan.settings, specs, 2))
    # The shard is one portion; without a word from outside all its files are asked for before the first sample comes.
    assert src.asked < 2 * A_SHARD


@pytest.mark.parametrize("how", [{"threads": 1}, {}])
def test_stop_ends_it_between_samples_and_the_next_call_goes_on(
    plan: Plan, through: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    monkeypatch.setitem(PACE, "seconds", A_SAMPLE_S)
    monkeypatch.setitem(STARTED, "path", str(tmp_path / "started"))
    threads = threading.active_count()
    folder, event, stopped_at = tmp_path / "c.zarr", threading.Event(), []

    def stop() -> bool:
        if (tmp_path / "started").exists() and not event.is_set():
            stopped_at.append(time.monotonic())
            event.set()
        return event.is_set()

    report = quiet_build(plan, folder, {"dark": slowly}, stop=stop, **how)
    assert time.monotonic() - stopped_at[0] < A_SHARD * A_SAMPLE_S / 2
    assert (report.ok, report.failed, report.left) == (0, 0, len(plan.samples))
    assert "stopped with 36 to go" in repr(report)
    assert set(half_built(folder)["status"].values) == {"planned"}
    assert threading.active_count() <= threads + 1
    PACE["seconds"] = 0.0
    # One that was stopped once may be stopped again, after a shard.
    enough = threading.Event()
    report = quiet_build(plan, folder, {"dark": slowly}, threads=1, on_progress=lambda _: enough.set(), stop=enough)
    assert report.left in (0, 12, 24)
    assert report.ok == len(plan.samples) - report.left
    report = quiet_build(plan, folder, {"dark": slowly})
    assert (report.ok, report.left) == (len(plan.samples), 0)
    assert digest(folder) == digest(through)


def test_what_is_no_way_to_stop_is_refused(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(ds.errors.InputError, match="stop='now'"):
        quiet_build(plan, tmp_path / "c.zarr", stop="now")
    assert not (tmp_path / "c.zarr").exists()
