from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from build_kit import digest, masks_of, points_in, quiet_build, quiet_plan

import deepsentinel as ds
from deepsentinel.corpus import worker
from deepsentinel.corpus.plan import Plan
from deepsentinel.errors import InputError
from deepsentinel.sources.demo import DemoSource
from deepsentinel.sources.presets import PRESETS
from deepsentinel.sources.services import open_preset


@pytest.fixture(scope="module")
def src() -> Any:
    return ds.open_source("demo", size_px=256)


@pytest.fixture(scope="module")
def plan(src: Any) -> Plan:
    return quiet_plan(points_in(src, 16), src, choose="random", samples_per_shard=2)


@pytest.fixture(scope="module")
def built(src: Any, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "c.zarr"
    quiet_build(plan, folder, masks_of(src))
    return folder


def test_sources_travel_to_other_processes(src: Any) -> None:
    there = pickle.loads(pickle.dumps(src))
    assert isinstance(there, DemoSource)
    assert (there.seed, there.size_px) == (src.seed, src.size_px)
    for name, preset in PRESETS.items():
        assert pickle.loads(pickle.dumps(open_preset(preset))).name == name
    mine = ds.open_source(src.folder / "catalog.json", name="mine")
    ids = src.search(src.area, "2018-06-01", "2018-06-10")["id"]
    assert len(pickle.loads(pickle.dumps(mine)).items_of("S2", ids.tolist())) > 0


def test_threads_of_another_pool_build_the_same(src: Any, plan: Plan, built: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        quiet_build(plan, tmp_path / "c.zarr", masks_of(src), executor=pool)
    assert digest(tmp_path / "c.zarr") == digest(built)


def test_processes_build_the_same(src: Any, plan: Plan, built: Path, tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        report = quiet_build(plan, tmp_path / "c.zarr", masks_of(src), executor=pool)
    assert report.failed == 0
    assert digest(tmp_path / "c.zarr") == digest(built)


def held() -> tuple[int, int]:
    return len(worker._sources), len(worker._tables)


def test_a_pool_that_builds_again_and_again_forgets(src: Any, plan: Plan, tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = []
        for number in range(4):
            part = quiet_plan(points_in(src, 2, seed=number), src, bands=["B04"])
            quiet_build(part, tmp_path / f"{number}.zarr", {"corine": src.labels["corine"]}, executor=pool)
            found.append(pool.submit(held).result())
    assert found == [(1, 1), (2, 2), (2, 2), (2, 2)]


def test_what_is_no_executor_is_refused(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="executor= is a str"):
        quiet_build(plan, tmp_path / "c.zarr", executor="dask")


def test_a_function_that_cannot_travel_is_refused(plan: Plan, tmp_path: Path) -> None:
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
        pytest.raises(InputError, match="labels 'dark' cannot be sent"),
    ):
        quiet_build(plan, tmp_path / "c.zarr", {"dark": lambda patch: patch["B08"] < 900}, executor=pool)


@pytest.fixture(scope="module")
def client() -> Any:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_a_cluster_builds_the_same(src: Any, plan: Plan, built: Path, client: Any, tmp_path: Path) -> None:
    quiet_build(plan, tmp_path / "c.zarr", masks_of(src), executor=client)
    assert digest(tmp_path / "c.zarr") == digest(built)


def test_a_worker_may_die_midway(src: Any, plan: Plan, built: Path, client: Any, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(progress: Any) -> None:
        if not killed:
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    report = quiet_build(plan, tmp_path / "c.zarr", masks_of(src), executor=client, on_progress=kill)
    assert killed
    assert (report.ok, report.failed) == (len(plan.samples), 0)
    assert digest(tmp_path / "c.zarr") == digest(built)
