from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from build_kit import BreakingSource, digest, points_in, quiet_build, quiet_plan

from deepsentinel.corpus import commits
from deepsentinel.corpus.build import Progress
from deepsentinel.corpus.checking import check_corpus
from deepsentinel.corpus.masking import Mask, Ready
from deepsentinel.corpus.plan import Plan
from deepsentinel.corpus.samples import read_samples, write_samples
from deepsentinel.corpus.store import open_corpus
from deepsentinel.corpus.stories import story_of
from deepsentinel.corpus.worker import part_path
from deepsentinel.errors import InputError, SourceError

HOLD = """
import sys, time
from pathlib import Path
from deepsentinel.corpus.commits import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def src() -> Any:
    return BreakingSource(size_px=256)


@pytest.fixture(autouse=True)
def _whole_again(src: Any) -> Any:
    yield
    src.broken = ()


@pytest.fixture(scope="module")
def plan(src: Any) -> Plan:
    places = points_in(src, 14)
    found = quiet_plan(places, src, choose="random", bands=["B04", "VV"], samples_per_shard=2)
    assert found.shards >= 5
    return found


@pytest.fixture(scope="module")
def built(src: Any, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "c.zarr"
    assert quiet_build(plan, folder).failed == 0
    return folder


@pytest.fixture
def gaps(src: Any, plan: Plan, tmp_path: Path) -> Path:
    """A corpus some of whose samples failed, in three shards or more."""
    src.broken = tuple(plan.samples["s2_id"].iloc[[0, 2, 4]])
    folder = tmp_path / "gaps.zarr"
    report = quiet_build(plan, folder)
    lost = np.flatnonzero(read_samples(folder / "samples.parquet")["status"] == "failed")
    assert len(np.unique(lost // 2)) >= 3
    assert 0 < report.failed < len(plan.samples)
    return folder


def stop(progress: Progress) -> None:
    raise KeyboardInterrupt


def test_killed_while_the_parts_are_removed_it_is_finished_by_the_next_call(
    plan: Plan, built: Path, tmp_path: Path
) -> None:
    plain = shutil.rmtree

    def half(path: Any, ignore_errors: bool = False) -> None:
        files = sorted(Path(path).glob("0*.parquet"))
        for file in files[:2]:
            file.unlink()
        if files:
            raise KeyboardInterrupt
        plain(path, ignore_errors=ignore_errors)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(commits.shutil, "rmtree", half)
        with pytest.raises(KeyboardInterrupt):
            quiet_build(plan, tmp_path / "c.zarr")
    assert (open_corpus(tmp_path / "c.zarr")["status"] == "ok").all()
    assert quiet_build(plan, tmp_path / "c.zarr").built == 0
    assert digest(tmp_path / "c.zarr") == digest(built)


def test_some_parts_beside_the_table_count_over_it(plan: Plan, built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c.zarr"
    shutil.copytree(built, folder)
    part = read_samples(folder / "samples.parquet").iloc[2:4].reset_index(drop=True)
    part["reason"] = ["newer", "too"]
    write_samples(part_path(folder, 1), part)
    assert quiet_build(plan, folder).ok == len(plan.samples)
    assert read_samples(folder / "samples.parquet")["reason"].iloc[2] == "newer"
    assert not (folder / "parts").exists()


def test_a_disk_that_fills_while_a_retry_begins_loses_nothing(src: Any, plan: Plan, built: Path, gaps: Path) -> None:
    calls: list[Any] = []

    def full(path: Any, table: Any) -> None:
        calls.append(path)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_samples(path, table)

    before = digest(gaps)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(commits, "write_samples", full)
        with pytest.raises(SourceError, match="goes on where it stopped"):
            quiet_build(plan, gaps, retry_failed=True)
    quiet_build(plan, gaps)
    assert digest(gaps) == before
    src.broken = ()
    assert quiet_build(plan, gaps, retry_failed=True).failed == 0
    assert digest(gaps) == digest(built)


def test_what_an_earlier_retry_saved_is_kept(src: Any, plan: Plan, gaps: Path) -> None:
    broken, src.broken = src.broken, ()
    before = open_corpus(gaps)["status"].values == "ok"
    with pytest.raises(KeyboardInterrupt):
        quiet_build(plan, gaps, retry_failed=True, threads=1, on_progress=stop)
    after = open_corpus(gaps)["status"].values == "ok"
    assert before.sum() < after.sum() < len(after)
    src.broken = broken
    quiet_build(plan, gaps, retry_failed=True)
    corpus = open_corpus(gaps)
    assert (corpus["status"].values[after] == "ok").all()
    assert all(corpus["s2"].values[number].any() for number in np.flatnonzero(after))


def test_a_retry_makes_what_is_damaged_again(plan: Plan, built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c.zarr"
    shutil.copytree(built, folder)
    shard = folder / "s2" / "c" / "1" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[40] ^= 255
    shard.write_bytes(data)
    assert check_corpus(folder, progress=False).lost == (2,)
    report = quiet_build(plan, folder, retry_failed=True)
    assert (report.built, report.failed) == (1, 0)
    assert digest(folder) == digest(built)
    # A shard whose index is torn, and one that is gone.
    shard.write_bytes(shard.read_bytes()[:-9])
    (folder / "s1" / "c" / "0" / "0" / "0" / "0").unlink()
    assert quiet_build(plan, folder, retry_failed=True).built == 4
    assert digest(folder) == digest(built)


def test_a_shard_that_is_gone_beside_a_failed_sample(src: Any, plan: Plan, built: Path, gaps: Path) -> None:
    failed = read_samples(gaps / "samples.parquet")["status"] == "failed"
    share = failed.groupby(np.arange(len(failed)) // 2).mean()
    (gaps / "s1" / "c" / str(share[share == 0.5].index[0]) / "0" / "0" / "0").unlink()
    src.broken = ()
    assert quiet_build(plan, gaps, retry_failed=True).failed == 0
    assert digest(gaps) == digest(built)


def test_two_builders_do_not_meet(plan: Plan, built: Path, tmp_path: Path) -> None:
    folder, told = tmp_path / "c.zarr", []

    def other(progress: Progress) -> None:
        with pytest.raises(InputError, match="is being built by this process"):
            quiet_build(plan, folder)
        told.append(progress)

    quiet_build(plan, folder, on_progress=other)
    assert told
    assert digest(folder) == digest(built)


def test_another_process_is_kept_out_until_it_is_gone(plan: Plan, built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c.zarr"
    shutil.copytree(built, folder)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"is being built by process {process.pid} on "):
            quiet_build(plan, folder)
        process.send_signal(signal.SIGKILL)
    quiet_build(plan, folder)
    assert digest(folder) == digest(built)


def test_a_later_version_goes_on(plan: Plan, built: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        quiet_build(plan, tmp_path / "c.zarr", on_progress=stop)
    with pytest.MonkeyPatch.context() as patched:
        for module in ("build", "stories"):
            patched.setattr(f"deepsentinel.corpus.{module}.__version__", "99.0")
        quiet_build(plan, tmp_path / "c.zarr")
    assert digest(tmp_path / "c.zarr") == digest(built)


def halves(src: Any, classes: tuple[int, int] = (1, 2), at: float = 0.5) -> gpd.GeoDataFrame:
    west, south, east, north = src.area.bounds
    middle = west + at * (east - west)
    shapes = [shapely.box(west, south, middle, north), shapely.box(middle, south, east, north)]
    return gpd.GeoDataFrame({"ground_truth": classes}, geometry=shapes, crs=4326)


def darker(limit: int) -> Any:
    return lambda patch: patch["B04"].values < limit


def test_other_labels_of_the_same_name_are_refused(src: Any, plan: Plan, tmp_path: Path) -> None:
    def labels(table: Any, limit: int = 900) -> dict[str, Any]:
        return {"sides": table, "dark": darker(limit)}

    with pytest.raises(KeyboardInterrupt):
        quiet_build(plan, tmp_path / "c.zarr", labels(halves(src)), on_progress=stop)
    for other in (halves(src, (2, 1)), halves(src, at=0.6), {"labels": halves(src), "alone": True}):
        with pytest.raises(InputError, match="other labels 'sides'"):
            quiet_build(plan, tmp_path / "c.zarr", labels(other))
    with pytest.raises(InputError, match="other labels 'dark'"):
        quiet_build(plan, tmp_path / "c.zarr", labels(halves(src), 901))
    report = quiet_build(plan, tmp_path / "c.zarr", labels(halves(src)))
    assert report.ok == len(plan.samples)
    quiet_build(plan, tmp_path / "d.zarr", labels(halves(src)))
    assert digest(tmp_path / "c.zarr") == digest(tmp_path / "d.zarr")


def test_a_raster_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    told = []
    for number, data in enumerate((b"one", b"one", b"two")):
        file = tmp_path / str(number) / "cover.tif"
        file.parent.mkdir()
        file.write_bytes(data)
        told.append(story_of(Ready(Mask("cover", "raster", ("class_map",), path=str(file)), ())))
    assert told[0] == told[1] != told[2]


def test_a_function_is_known_by_its_code_in_every_process() -> None:
    code = """
from deepsentinel.corpus.masking import Mask, Ready
from deepsentinel.corpus.stories import story_of
LIMIT = 3
def make(patch):
    inner = lambda value: value in {"a", "b", "c"}
    return (patch > LIMIT, inner, 1.5)
print(story_of(Ready(Mask("x", "call", ("class_map",), make=make), ()))["fingerprint"])
"""

    def told(text: str) -> str:
        found = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
        return found.stdout

    assert told(code) == told(code)
    assert told(code.replace("LIMIT = 3", "LIMIT = 4")) != told(code)
