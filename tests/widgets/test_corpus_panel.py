"""Building a corpus while a person does other things: what is built is opened and told, and so is what is not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import xarray as xr
from widget_kit import Bench

import deepsentinel as ds
from deepsentinel.widgets.corpora import CorpusPanel
from deepsentinel.widgets.training import TrainingPanel

AREA = (-0.0286, 49.2381, -0.0046, 49.2541)
OTHER = (-0.02, 49.24, 0.0, 49.255)
pytestmark = pytest.mark.filterwarnings("ignore::deepsentinel.errors.DeepSentinelWarning")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.chdir(tmp_path)
    made = Bench(CorpusPanel)
    made.state.put("src", ds.open_source("demo", size_px=256), "ds.open_source('demo', size_px=256)")
    made.state.put("start", "2018-06-01")
    made.state.put("end", "2018-07-31")
    made.state.put("aoi", AREA)
    panel = made.panel
    panel.path.value, panel.size.value, panel.dates.value, panel.names.value = "c.zarr", 64, 1, ("osm",)
    yield made
    made.close()


class Gate:
    """A function of `ds` that waits in the middle until somebody lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, does: Callable[..., Any] | None = None) -> None:
        self.begun, self.over, self.calls = threading.Event(), threading.Event(), 0
        real = does or getattr(ds, name)

        def slowly(*args: Any, **options: Any) -> Any:
            self.calls += 1
            self.begun.set()
            assert self.over.wait(30)
            return real(*args, **options)

        monkeypatch.setattr(ds, name, slowly)

    def until(self) -> None:
        assert self.begun.wait(30)

    def go_on(self, bench: Bench) -> None:
        self.over.set()
        assert bench.jobs.wait(60)


def usable(panel: Any) -> list[bool]:
    return [not each.disabled for each in (panel.make_plan, panel.make, panel.halt)]


def test_what_was_built_is_opened_though_another_area_was_drawn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    panel, state = bench.panel, bench.state
    panel.make_plan.click()
    bench.settle()
    gate = Gate(monkeypatch, "build_corpus")
    panel.make.click()
    gate.until()
    state.put("aoi", OTHER)
    assert "plan" not in state
    gate.go_on(bench)
    assert panel.line.kind != "error"
    assert panel.planned.value.endswith(" 0 failed, of the area and dates as they were when it began")
    assert panel.facts.value.startswith(f"{state['corpus'].sizes['sample']} samples of 64")
    assert usable(panel) == [True, True, False]
    # The cell opens what is there; of the area that is shown now, nothing was built.
    assert "built" not in state
    (line,) = state.code("corpus").splitlines()[2:]
    assert line == "corpus = ds.open_corpus('c.zarr')  # built before, where no line above builds it"
    assert "build_corpus" not in state.code()
    names: dict[str, Any] = {}
    exec(state.code("corpus"), names)
    assert names["corpus"].identical(state["corpus"])


def test_nothing_is_planned_or_built_beside_a_build(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    panel, state = bench.panel, bench.state
    gate = Gate(monkeypatch, "build_corpus")
    panel.make.click()
    gate.until()
    assert usable(panel) == [False, False, True]
    plan = state["plan"]
    # Clicks that were on their way.
    for button in (panel.make_plan, panel.make):
        button.click()
        assert "A corpus is being built" in panel.line.text
    gate.go_on(bench)
    assert gate.calls == 1
    assert state["plan"] is plan
    assert "corpus" in state
    assert "0 failed" in panel.planned.value
    assert "built = ds.build_corpus(plan, 'c.zarr'" in state.code("built")
    assert panel.line.kind != "error"
    assert usable(panel) == [True, True, False]


def test_a_build_that_is_stopped_after_another_area_was_drawn_says_what_can_be_done(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = bench.panel

    def build(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(ok=2, failed=0, left=3, path="c.zarr", seconds=1.0)

    gate = Gate(monkeypatch, "build_corpus", build)
    for area, words in ((None, "Stopped; press Build to go on, or Open"), (OTHER, "Stopped; press Open to take what")):
        panel.make.click()
        gate.until()
        if area is not None:
            bench.state.put("aoi", area)
        gate.go_on(bench)
        assert panel.line.text.startswith(words)
        assert panel.planned.value == "2 of 5 samples are there"
        assert "built" not in bench.state
        assert usable(panel) == [True, True, False]
        gate.begun.clear()
        gate.over.clear()


@pytest.mark.parametrize("stage", ["plan_corpus", "build_corpus"])
def test_after_an_error_one_can_build_again(bench: Bench, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ds.errors.ReadError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(ds, stage, fail)
        bench.panel.make.click()
        assert bench.jobs.wait(60)
    assert bench.panel.line.text == "The disk is full."
    assert usable(bench.panel) == [True, True, False]
    monkeypatch.setattr("deepsentinel.widgets.corpora.MOST_SAMPLES", 0)
    bench.panel.make.click()
    assert bench.jobs.wait(60)
    assert "are much for a notebook" in bench.panel.line.text
    assert usable(bench.panel) == [True, True, False]


@pytest.mark.parametrize("change", ["dates", "size", "area"])
@pytest.mark.parametrize("button", ["make", "make_plan"])
def test_a_plan_that_nobody_wants_any_more_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, button: str, change: str
) -> None:
    panel = bench.panel
    gate = Gate(monkeypatch, "plan_corpus", lambda *_, **__: SimpleNamespace(samples=[]))
    getattr(panel, button).click()
    gate.until()
    if change == "area":
        bench.state.put("aoi", OTHER)
    else:
        getattr(panel, change).value = {"dates": 2, "size": 96}[change]
    gate.go_on(bench)
    assert panel.line.kind == "news"
    assert "there is no plan: press Plan or Build again" in panel.line.text
    assert "plan" not in bench.state
    assert usable(panel) == [True, True, False]


@pytest.mark.parametrize("end", ["kept", "lost", "failed"])
def test_what_is_still_planned_for_a_build_can_be_stopped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    def plan(*_: Any, **__: Any) -> Any:
        if end == "failed":
            raise ds.errors.ReadError("The catalog is down.")
        return SimpleNamespace(samples=[])

    panel = bench.panel
    gate, built = Gate(monkeypatch, "plan_corpus", plan), Gate(monkeypatch, "build_corpus", lambda *_, **__: None)
    built.over.set()
    assert usable(panel) == [True, True, False]
    panel.make.click()
    gate.until()
    # Nothing is being built that would have to be waited for.
    assert usable(panel) == [True, True, True]
    if end == "lost":
        bench.state.put("aoi", OTHER)
    threads = [each for each in threading.enumerate() if each.name == "deepsentinel plan"]
    panel.halt.click()
    assert (panel.line.kind, panel.line.text) == ("news", "Stopped; nothing was built.")
    assert usable(panel) == [True, True, False]
    gate.go_on(bench)
    for each in threads:
        each.join(30)
    assert bench.jobs.wait(30)
    assert built.calls == 0
    assert (panel.line.kind, panel.line.text) == ("news", "Stopped; nothing was built.")
    assert usable(panel) == [True, True, False]


def test_a_stop_that_comes_with_the_plan_is_in_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    built = Gate(monkeypatch, "build_corpus", lambda *_, **__: None)
    built.over.set()
    bench.state.watch("plan", lambda plan: None if plan is None else bench.panel.stop_building())
    bench.panel.make.click()
    threads = [each for each in threading.enumerate() if each.name == "deepsentinel plan"]
    for each in threads:
        each.join(60)
    assert bench.jobs.wait(30)
    assert "plan" in bench.state
    assert built.calls == 0
    assert bench.panel.line.text == "Stopped; nothing was built."
    assert usable(bench.panel) == [True, True, False]


@pytest.mark.parametrize(("button", "builds"), [("make_plan", 0), ("make", 1)])
def test_while_a_build_is_planned_another_area_can_be_planned_or_built(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, button: str, builds: int
) -> None:
    panel, real, first = bench.panel, ds.plan_corpus, Gate(monkeypatch, "plan_corpus")
    built = Gate(monkeypatch, "build_corpus")
    built.over.set()
    panel.make.click()
    first.until()
    slow = [each for each in threading.enumerate() if each.name == "deepsentinel plan"]
    bench.state.put("aoi", OTHER)
    monkeypatch.setattr(ds, "plan_corpus", real)
    getattr(panel, button).click()
    bench.settle()
    assert "plan" in bench.state
    assert built.calls == builds
    assert ("corpus" in bench.state) == bool(builds)
    # The first one comes at last, and nobody hears of it.
    first.over.set()
    for each in slow:
        each.join(60)
    bench.settle()
    assert built.calls == builds
    assert (panel.line.kind, panel.line.text) == ("news", "")
    assert usable(panel) == [True, True, False]


class Training:
    """A run that takes as long as somebody wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.learnt: list[Any] = []
        self.begun = threading.Event()
        monkeypatch.setattr(ds, "finetune", self.run)
        monkeypatch.setattr(ds, "split", lambda corpus, **_: (corpus, corpus))

    def run(self, corpus: Any, *_: Any, stop: Callable[[], bool], **__: Any) -> Any:
        self.learnt.append(corpus)
        self.begun.set()
        limit = threading.Event()
        while not stop():
            limit.wait(0.01)
        self.begun.clear()
        history = SimpleNamespace(index=[1])
        return SimpleNamespace(history=type("History", (), {"__len__": lambda _: 1, "index": history.index})())


def corpus_of(name: str) -> xr.Dataset:
    return xr.Dataset({"osm_class": ("sample", [0, 1])}, attrs={"name": name})


def test_go_on_goes_with_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("deepsentinel.widgets.corpora.label_names", lambda _: ["osm"])
    training, bench = Training(monkeypatch), Bench(TrainingPanel)
    panel, state = bench.panel, bench.state
    try:
        first, second = corpus_of("first"), corpus_of("second")
        state.put("corpus", first, "first")
        panel.steps.value = 4
        for again in (panel.start, panel.again):
            again.click()
            assert training.begun.wait(60)
            panel.stop.click()
            bench.settle()
            assert "Stopped at step 1 of 4" in panel.line.text
            assert not panel.again.disabled
        # Another corpus, or the same opened once more: the parts of the former are gone.
        state.put("corpus", second, "second")
        assert panel.again.disabled
        panel.again.click()
        assert "press Start" in panel.line.text
        panel.start.click()
        assert training.begun.wait(60)
        panel.stop.click()
        bench.settle()
        assert not panel.again.disabled
        state.drop("corpus")
        assert panel.again.disabled
        assert [each.attrs["name"] for each in training.learnt] == ["first", "first", "second"]
        # One that is under way, or waits, goes on with what it has; afterwards there is nothing to go on with.
        state.put("corpus", first, "first")
        panel.start.click()
        assert training.begun.wait(60)
        panel.pause.click()
        state.put("corpus", second, "second")
        assert not panel.again.disabled
        panel.again.click()
        assert panel.again.disabled
        assert bench.jobs.running("model")
        panel.stop.click()
        bench.settle()
        assert "The corpus is another one by now" in panel.line.text
        assert (panel.start.disabled, panel.again.disabled) == (False, True)
    finally:
        bench.close()
