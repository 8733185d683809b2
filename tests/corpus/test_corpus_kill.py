from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_kit import digest, half_built, masks_of, points_in, quiet_build, quiet_plan

import deepsentinel as ds
from deepsentinel.corpus.plan import Plan

HERE = Path(__file__).parent
# Says when it begins, so that the time until then (imports) is not what is killed.
BUILD = """
import sys
sys.path.insert(0, sys.argv[1])
from build_kit import masks_of, quiet_build
from deepsentinel.corpus.plan import load_plan
plan = load_plan(sys.argv[2])
print("begun", flush=True)
report = quiet_build(plan, sys.argv[3], masks_of(plan.sources[0]), threads=2)
print(report.built, flush=True)
"""
MEMORY = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from build_kit import masks_of, quiet_build
from deepsentinel.corpus.plan import load_plan
plan = load_plan(sys.argv[2])
report = quiet_build(plan, sys.argv[3], masks_of(plan.sources[0]), threads=2)
assert report.failed == 0, report
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def start(code: str, plan: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, str(HERE), str(plan), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def src() -> Any:
    return ds.open_source("demo", size_px=256)


@pytest.fixture(scope="module")
def plan(src: Any) -> Plan:
    return quiet_plan(points_in(src, 40), src, choose="random", samples_per_shard=2, end="2018-06-12")


@pytest.fixture(scope="module")
def built(src: Any, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "c.zarr"
    quiet_build(plan, folder, masks_of(src))
    plan.save(folder.parent / "plan")
    return folder


def finished(folder: Path) -> int:
    return len(list((folder / "parts").glob("*.parquet")))


def kill_and_go_on(built: Path, folder: Path, kills: int, seed: int) -> list[int]:
    """Kill builds of one store at random moments, and let the last one end; the samples that were there each time."""
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(kills):
        process = start(BUILD, built.parent / "plan", folder)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        # After none to three more shards, and a moment that falls anywhere within the next ones.
        wanted = finished(folder) + int(rng.integers(0, 4))
        while process.poll() is None and finished(folder) < wanted:
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0.0, 0.3)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (folder / "zarr.json").exists():
            # What is there opens, and every sample that says it is there can be read.
            corpus = half_built(folder)
            ready = np.flatnonzero(corpus["status"].values == "ok")
            assert all(corpus["s2"].isel(sample=number).values.any() for number in ready)
            seen.append(len(ready))
    process = start(BUILD, built.parent / "plan", folder)
    assert process.wait(timeout=200) == 0
    return seen


def test_killed_and_started_again_it_ends_the_same(built: Path, tmp_path: Path) -> None:
    kill_and_go_on(built, tmp_path / "c.zarr", kills=2, seed=0)
    assert digest(tmp_path / "c.zarr") == digest(built)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_killed_twenty_times_it_ends_the_same(built: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    for number in range(4):
        folder = tmp_path / f"{number}.zarr"
        seen += kill_and_go_on(built, folder, kills=5, seed=number + 1)
        assert digest(folder) == digest(built)
    print(f"\n20 kills; samples that were there then: {seen}")


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    src = ds.open_source("demo")
    peaks = {}
    for count in (500, 2000):
        plan = quiet_plan(points_in(src, count), src, size_px=128, samples_per_shard=32)
        plan.save(tmp_path / f"plan-{count}")
        with start(MEMORY, tmp_path / f"plan-{count}", tmp_path / f"{count}.zarr") as process:
            out, _ = process.communicate()
        found = re.fullmatch(r"(\d+)", out.strip().splitlines()[-1])
        assert found, out
        peaks[count] = int(found[1]) / 1024
    print(f"\npeak memory: {peaks[500]:.0f} MB at 500 samples, {peaks[2000]:.0f} MB at 2,000")
    assert peaks[2000] < 1.1 * peaks[500] + 20
