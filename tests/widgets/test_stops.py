"""Long work ends where somebody presses Stop: the kernel is free meanwhile, what is there stays, and it goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from factories import make_patch
from widget_kit import Bench, click_at

import deepsentinel as ds
from deepsentinel.widgets.embeddings import EmbeddingPanel
from deepsentinel.widgets.labelling import LabelPanel
from deepsentinel.widgets.panel import Panel
from deepsentinel.widgets.training import TrainingPanel

AREA = (-0.0286, 49.2381, -0.0046, 49.2541)
pytestmark = pytest.mark.filterwarnings("ignore::deepsentinel.errors.DeepSentinelWarning")


@pytest.fixture(scope="module")
def patch() -> xr.Dataset:
    return make_patch((224, 224))


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(request.param)
    yield made
    made.close()


def meanwhile(monkeypatch: pytest.MonkeyPatch, do: Callable[[str], object]) -> list[str]:
    """Have something done, on the kernel's side, whenever a panel says how far it is; what it said."""
    said: list[str] = []
    before = Panel.progress

    def progress(self: Panel, text: str, now: str) -> None:
        before(self, text, now)
        said.append(self.line.text)
        do(now)

    monkeypatch.setattr(Panel, "progress", progress)
    return said


@pytest.mark.parametrize("bench", [EmbeddingPanel], indirect=True)
def test_an_embedding_is_stopped_and_made_again(
    bench: Bench, patch: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = bench.panel
    assert panel.halt.disabled
    bench.state.put("patch", patch, "mine")
    panel.encoder.value = "image-statistics"
    pressable: list[bool] = []

    def stop(_: str) -> None:
        pressable.append(not panel.halt.disabled)
        # While this thread computes, clicks are answered.
        click_at(bench.canvas, 2.0, 48.0)
        panel.halt.click()

    said = meanwhile(monkeypatch, stop)
    panel.make.click()
    bench.settle()
    assert pressable == [True]
    assert said == [f"Embedding with image-statistics: 1 of {panel.line.text.split(' of ')[1].split()[0]} rows"]
    assert (panel.line.kind, panel.line.text[:34]) == ("news", "The embedding was stopped after 1 ")
    assert "z" not in bench.state
    assert panel.halt.disabled
    monkeypatch.undo()
    panel.make.click()
    bench.settle()
    assert bench.state["z"].identical(ds.embed(patch, "image-statistics", sensors="both", dense=True))
    # What is watched on the way is no part of the cell.
    assert "stop" not in bench.state.code("z")
    assert "on_progress" not in bench.state.code("z")


@pytest.mark.parametrize("bench", [LabelPanel], indirect=True)
def test_the_tab_of_labels_stops_it_too(bench: Bench, patch: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.state.put("patch", patch.isel(x=slice(0, 128), y=slice(0, 128)), "mine")
    bench.settle()
    meanwhile(monkeypatch, lambda _: bench.panel.halt.click())
    bench.panel.embed.click()
    bench.settle()
    assert "was stopped" in bench.panel.line.text
    assert "z" not in bench.state
    assert bench.panel.halt.disabled


@pytest.mark.parametrize("bench", [EmbeddingPanel], indirect=True)
def test_one_that_takes_the_place_of_another_ends_it_and_can_be_stopped(
    bench: Bench, patch: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.state.put("patch", patch, "mine")
    panel, again = bench.panel, threading.Event()
    panel.encoder.value = "image-statistics"
    seen: list[str] = []

    def restart(now: str) -> None:
        seen.append(now)
        if not again.is_set():
            again.set()
            panel.sensors.value = "Sentinel-1"
            panel.make.click()

    meanwhile(monkeypatch, restart)
    panel.make.click()
    bench.settle()
    for thread in threading.enumerate():
        if thread.name.startswith("deepsentinel"):
            thread.join(30)
    assert bench.state["z"].attrs["sensors"] == "s1"
    assert panel.line.kind != "error"
    assert panel.halt.disabled
    # The first of them was given up after one row.
    assert [sum(f": {row} of " in each for each in seen) for row in (1, 2, 3)] == [2, 1, 1]


@pytest.mark.parametrize("bench", [TrainingPanel], indirect=True)
def test_a_build_is_stopped_and_goes_on_to_the_same_corpus(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, panel = bench.state, bench.panel
    src = ds.open_source("demo", size_px=256)
    state.put("src", src, "ds.open_source('demo', size_px=256)")
    state.put("start", "2018-06-01")
    state.put("end", "2018-07-31")
    state.put("aoi", AREA)
    panel.path.value, panel.size.value, panel.dates.value = str(tmp_path / "c.zarr"), 64, 3
    panel.names.value = ("osm",)
    panel.make_plan.click()
    bench.settle()
    plan = state["plan"]
    assert panel.halt.disabled
    read, held = type(src).resolve, threading.Event()

    def slowly(self: Any, href: str, item: Any, asset_key: str) -> str:
        held.set()
        time.sleep(0.05)
        return str(read(self, href, item, asset_key))

    monkeypatch.setattr(type(src), "resolve", slowly)
    panel.make.click()
    assert held.wait(60)
    assert not panel.halt.disabled
    began = time.monotonic()
    panel.halt.click()
    bench.settle()
    assert time.monotonic() - began < 20
    monkeypatch.undo()
    assert panel.line.text.startswith("Stopped; press Build to go on")
    assert f"of {len(plan.samples)} samples are there" in panel.planned.value
    assert "corpus" not in state
    assert "built" not in state
    assert panel.halt.disabled
    panel.make.click()
    bench.settle()
    assert "0 failed" in panel.planned.value
    whole = ds.build_corpus(plan, tmp_path / "whole.zarr", {"osm": src.labels["osm"]}, progress=False)
    assert state["built"].ok == whole.ok
    assert state["corpus"].drop_attrs().identical(ds.open_corpus(whole.path).drop_attrs())


def test_nothing_is_left_when_it_is_closed_in_the_middle_of_an_embedding(
    patch: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ipywidgets.widgets.widget import _instances

    before, threads = len(_instances), set(threading.enumerate())
    bench = Bench(EmbeddingPanel)
    bench.state.put("patch", patch, "mine")
    bench.panel.encoder.value = "image-statistics"
    begun = threading.Event()
    meanwhile(monkeypatch, lambda _: begun.set())
    bench.panel.make.click()
    assert begun.wait(60)
    bench.close()
    for each in set(threading.enumerate()) - threads:
        if each.name.startswith("deepsentinel"):
            each.join(30)
            assert not each.is_alive()
    assert len(_instances) == before
