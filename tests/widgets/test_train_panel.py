"""The training panel, driven from Python: building, running, waiting, stopping and going on, and the end of it all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ipywidgets.widgets.widget import _instances

import deepsentinel as ds
from deepsentinel.learn.watching import one_core_free
from deepsentinel.widgets.canvas import Canvas
from deepsentinel.widgets.curves import Curves, thinned
from deepsentinel.widgets.jobs import Jobs
from deepsentinel.widgets.state import State
from deepsentinel.widgets.training import NO_MODEL, NO_PAIR, TrainingPanel

STEPS = 4
# A tile of the small demo world: some windows fit into it, the others are told of.
AREA = (-0.0286, 49.2381, 0.0079, 49.262)
# Said in the cell of a corpus that was built here, for the lines above it may be gone.
BEFORE = "  # built before, where no line above builds it"
pytestmark = pytest.mark.filterwarnings("ignore::deepsentinel.errors.DeepSentinelWarning")


class Bench:
    """A panel with its state and its map, in a folder of its own."""

    def __init__(self) -> None:
        self.state, self.jobs, self.canvas = State(), Jobs(), Canvas()
        src = ds.open_source("demo", size_px=256)
        self.state.put("src", src, "ds.open_source('demo', size_px=256)")
        self.state.put("start", "2018-05-01")
        self.state.put("end", "2018-08-31")
        self.panel = TrainingPanel(self.state, self.canvas, self.jobs)

    def settle(self, *, fine: bool = True) -> None:
        assert self.jobs.wait(180)
        assert (self.panel.line.kind != "error") == fine, self.panel.line.text

    def until(self, wanted: Callable[[], object], seconds: float = 60) -> None:
        limit = time.monotonic() + seconds
        while not wanted():
            assert time.monotonic() < limit, self.panel.line.text
            time.sleep(0.01)

    def open(self, path: Path) -> None:
        self.panel.path.value = str(path)
        self.panel.load.click()
        self.settle()

    def choose(self, out: str | Path, steps: int = STEPS) -> None:
        panel = self.panel
        panel.weights.value, panel.labels.value, panel.device.value = "random", "osm", "cpu"
        self.settle()
        panel.steps.value, panel.batch.value, panel.out.value = steps, 2, str(out)

    def train(self, out: str | Path, steps: int = STEPS) -> None:
        self.choose(out, steps)
        self.panel.start.click()

    def close(self) -> None:
        self.panel.close()
        self.jobs.close()
        self.canvas.close()
        self.state.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus that the panel itself has built."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.zarr"
    bench = Bench()
    try:
        bench.state.put("aoi", AREA)
        panel = bench.panel
        panel.path.value, panel.size.value, panel.dates.value, panel.names.value = str(path), 64, 1, ("osm",)
        panel.make_plan.click()
        bench.settle()
        assert "samples: " in panel.planned.value.lower()
        assert not path.exists()
        panel.make.click()
        bench.settle()
        assert "0 failed" in panel.planned.value
        lines = bench.state.code("built", "corpus").splitlines()[2:]
        assert lines[-5:-3] == [lines[-5], "places = ds.cover(aoi, 64)"]
        assert lines[-2] == f"built = ds.build_corpus(plan, {str(path)!r}, {{'osm': src.labels['osm']}})"
        assert lines[-1] == f"corpus = ds.open_corpus({str(path)!r}){BEFORE}"
        names: dict[str, Any] = {}
        exec(bench.state.code("built", "corpus"), names)
        assert names["corpus"].identical(bench.state["corpus"])
    finally:
        bench.close()
    return path


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.chdir(tmp_path)
    made = Bench()
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model of a run that nobody disturbed."""
    made = Bench()
    try:
        made.open(store)
        made.train(tmp_path_factory.mktemp("whole") / "run")
        made.settle()
        return made.state["model"]
    finally:
        made.close()


def same(one: Any, other: Any) -> bool:
    there = other.state_dict()
    return all(torch.equal(value, there[name]) for name, value in one.state_dict().items())


def test_a_run_is_drawn_scored_and_kept_and_its_cell_trains_the_same(
    bench: Bench, store: Path, whole: Any, tmp_path: Path
) -> None:
    bench.open(store)
    assert "osm" in bench.panel.facts.value
    bench.train("runs/1")
    bench.settle()
    panel, model = bench.panel, bench.state["model"]
    assert [int(step) for step, _ in panel.curves.losses] == [1, 2, 3, 4]
    assert [loss for _, loss in panel.curves.losses] == pytest.approx(model.history["loss"].tolist())
    assert panel.curves.scores[-1][0] == STEPS
    assert panel.curves.score_name.startswith("mean IoU of")
    assert [each["words"] for each in panel.curves.pictures] == ["picture", "truth", "model"]
    assert all(each["url"].startswith("data:image/webp;base64,") for each in panel.curves.pictures)
    classes = dict(zip(model.classes.names, model.classes.colors, strict=True))
    assert panel.legend.rows
    assert all(classes[row["name"]] == row["color"] for row in panel.legend.rows)
    assert panel.told.value.startswith("Step 4 of 4")
    assert "the model is in runs/1" in panel.line.text
    # Nothing learns from the ground that the score is of, and watching changed nothing.
    learnt, held_back = bench.state["parts"]
    assert f"{learnt.sizes['sample']} samples to learn from" in panel.sample.value
    assert not set(learnt["place"].values) & set(held_back["place"].values)
    assert same(model, whole)
    code = bench.state.code("model")
    assert "on_step" not in code
    assert "ds.finetune(parts[0], 'fusion-nano', 'segmentation', 'osm', sensors='both', steps=4" in code
    names: dict[str, Any] = {}
    # Sums over several threads differ in the last digit from those of one.
    with one_core_free():
        exec(code.replace("runs/1", f"{tmp_path}/by-hand"), names)
    assert same(names["model"], model)
    # The next run has a folder of its own, and this one is in the list.
    assert panel.out.value == "runs/2"
    assert [text for text, _ in panel.runs.options] == [f"1: step 4, loss {model.history['loss'].iloc[-1]:.3f}"]


def test_a_run_waits_and_goes_on_as_if_nothing_had_been(bench: Bench, store: Path, whole: Any) -> None:
    bench.open(store)
    bench.train("runs/1")
    panel = bench.panel
    assert panel.start.disabled
    assert not panel.pause.disabled
    panel.pause.click()
    assert panel.pause.disabled
    assert not panel.again.disabled
    bench.until(lambda: panel._waited)
    here = [*panel.curves._all]
    time.sleep(0.5)
    assert panel.curves._all == here
    assert len(here) < STEPS
    assert bench.jobs.running("model")
    panel.again.click()
    bench.settle()
    assert same(bench.state["model"], whole)


def test_a_run_that_is_stopped_goes_on_from_its_checkpoint(bench: Bench, store: Path, whole: Any) -> None:
    bench.open(store)
    bench.train("runs/1")
    panel = bench.panel
    panel.pause.click()
    bench.until(lambda: panel._waited)
    # Whoever ends all jobs, as a map does in the end, ends one that waits, too.
    bench.jobs.stop()
    bench.settle()
    early = len(bench.state["model"].history)
    assert 1 <= early < STEPS
    assert f"Stopped at step {early} of 4" in panel.line.text
    assert (panel.start.disabled, panel.stop.disabled, panel.again.disabled) == (False, True, False)
    panel.again.click()
    bench.settle()
    assert same(bench.state["model"], whole)
    assert [int(step) for step, _ in panel.curves.losses] == [1, 2, 3, 4]


def test_clicks_are_answered_while_it_trains(bench: Bench, store: Path) -> None:
    bench.open(store)
    bench.choose("runs/1", 500)
    began = time.monotonic()
    bench.panel.start.click()
    assert time.monotonic() - began < 3
    bench.until(lambda: len(bench.panel.curves._all) >= 2)
    assert bench.jobs.running("model")
    # A second start is refused; what is shown stays that of the first.
    bench.panel.start.disabled = False
    bench.panel.start.click()
    assert "A run is under way" in bench.panel.line.text
    bench.panel.stop.click()
    assert bench.jobs.wait(60)
    assert "Stopped" in bench.panel.line.text


def test_what_is_missing_is_told(bench: Bench, store: Path, tmp_path: Path) -> None:
    panel = bench.panel
    bench.settle()
    for click, words in (
        (panel.start, "Open a corpus, or build one"),
        (panel.load, "Give the path of a corpus"),
        (panel.make_plan, "Draw an area first"),
        (panel.fetch, "no run in this folder"),
        (panel.map_it, "no model yet"),
    ):
        click.click()
        assert words in panel.line.text
        assert panel.line.kind == "error"
    bench.open(store)
    bench.train("runs/1", 1)
    bench.settle()
    # A folder with another run is not written over.
    bench.train("runs/1", 2)
    bench.settle(fine=False)
    assert "holds another run" in panel.line.text
    assert not panel.start.disabled
    panel.path.value = str(tmp_path / "nothing.zarr")
    panel.load.click()
    bench.settle(fine=False)


def test_only_what_can_be_done_can_be_pressed(bench: Bench, store: Path) -> None:
    panel, state = bench.panel, bench.state
    assert (panel.start.disabled, panel.map_it.disabled) == (True, True)
    assert panel.labels.layout.display == "none"
    assert panel.needs.value == NO_MODEL
    bench.open(store)
    assert (panel.start.disabled, panel.map_it.disabled) == (False, True)
    assert panel.labels.layout.display is None
    state.put("model", "learnt", "ds.load_model('runs/1/model.safetensors')")
    assert (panel.map_it.disabled, panel.needs.value) == (True, NO_PAIR)
    state.put("patch", "read", "mine")
    assert not panel.map_it.disabled
    assert panel.needs.layout.display == "none"
    state.drop("model")
    assert (panel.map_it.disabled, panel.needs.value) == (True, NO_MODEL)
    # A corpus without labels has nothing to learn, and one that is gone neither.
    bare = state["corpus"][["s1", "s2"]]
    bare.attrs.clear()
    state.put("corpus", bare, "bare")
    assert panel.start.disabled
    assert panel.labels.layout.display == "none"
    state.drop("corpus")
    assert panel.start.disabled


def test_every_choice_has_something_chosen(bench: Bench) -> None:
    panel = bench.panel
    for each in (panel.encoder, panel.weights, panel.task, panel.sensors, panel.device, panel.size):
        assert each.index is not None, each.description
        assert each.description


def test_steps_are_those_that_make_sense_here(bench: Bench) -> None:
    bench.panel.device.value = "cpu"
    bench.settle()
    assert bench.panel.steps.value == 120
    assert "120 steps instead of 600" in bench.panel.why.value
    # What somebody has typed stays.
    bench.panel.steps.value = 77
    bench.panel.device.value = "auto"
    bench.settle()
    assert bench.panel.steps.value == 77


def test_a_model_is_loaded_and_maps_the_pair(bench: Bench, store: Path) -> None:
    bench.open(store)
    bench.train("runs/1", 1)
    bench.settle()
    trained = bench.state["model"]
    bench.state.drop("model")
    panel = bench.panel
    panel.fetch.click()
    bench.settle()
    assert same(bench.state["model"], trained)
    panel.map_it.click()
    assert "Read a pair first" in panel.line.text
    src = bench.state["src"]
    pairs = ds.pair(src.search(src.area, "2018-06-01", "2018-06-30"), aoi=src.area, max_days=3)
    patch = src.read(pairs.iloc[0], ds.geobox(src.area))
    bench.state.put("patch", patch, "patch")
    panel.map_it.click()
    bench.settle()
    assert set(bench.canvas.pictures) == {"prediction"}
    assert bench.state["prediction"]["class_map"].shape == patch["VV"].shape
    bench.state.put("patch", patch, "another")
    assert set(bench.canvas.pictures) == set()


def test_another_area_or_date_keeps_what_was_built_and_learnt(store: Path) -> None:
    made = Bench()
    try:
        made.state.put("aoi", AREA)
        panel = made.panel
        panel.path.value, panel.dates.value, panel.names.value = str(store), 1, ("osm",)
        panel.make.click()
        made.settle()
        corpus = made.state["corpus"]
        made.state.put("model", "learnt", "ds.load_model(corpus.attrs['path'])")
        made.state._made["model"].of["corpus"] = made.state._made["corpus"]
        made.state.put("end", "2018-07-31")
        assert "built" not in made.state
        made.state.put("aoi", (-0.02, 49.24, -0.01, 49.25))
        assert made.state["corpus"] is corpus
        assert made.state["model"] == "learnt"
        assert made.state.code("corpus").splitlines()[2:] == [f"corpus = ds.open_corpus({str(store)!r}){BEFORE}"]
    finally:
        made.close()


def test_a_plan_of_other_windows_or_dates_is_not_built(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.state.put("aoi", AREA)
    panel, built = bench.panel, []
    panel.dates.value, panel.names.value = 1, ("osm",)

    def build(plan: Any) -> None:
        panel._hold(False)
        built.append(plan)

    monkeypatch.setattr(panel, "_build", build)
    for change, words in ((("dates", 2), "per_place=2"), (("size", 96), "size_px=96")):
        panel.make_plan.click()
        bench.settle()
        assert panel.planned.value
        name, value = change
        getattr(panel, name).value = value
        assert panel.planned.value == ""
        assert "plan" not in bench.state
        panel.make.click()
        bench.settle()
        assert words in bench.state.line("plan")
        assert built.pop() is bench.state["plan"]
    # One that is still being made is of no use either.
    panel.make_plan.click()
    panel.dates.value = 1
    bench.settle()
    assert "plan" not in bench.state


def test_a_build_under_way_is_not_lost_to_other_wishes_for_the_next(bench: Bench) -> None:
    bench.state.put("aoi", AREA)
    panel, over = bench.panel, threading.Event()
    panel.dates.value = 1
    panel.make_plan.click()
    bench.settle()
    bench.jobs.start("built", lambda stop: over.wait(30), done=lambda _: None, failed=lambda _: None)
    panel.dates.value = 2
    assert "plan" in bench.state
    over.set()
    bench.settle()
    panel.names.value, built = ("osm",), []
    panel._build = built.append  # type: ignore[method-assign]
    panel.make.click()
    bench.settle()
    assert built == [bench.state["plan"]]
    assert "per_place=2" in bench.state.line("plan")


def test_a_run_is_not_ended_by_loading_another_model(bench: Bench, store: Path, whole: Any) -> None:
    bench.open(store)
    bench.train("runs/1", 1)
    bench.settle()
    panel = bench.panel
    assert not panel.fetch.disabled
    bench.train("runs/2")
    assert panel.fetch.disabled
    panel.guard(panel.load_run)()  # a script, or a click that was on its way
    assert "A run is under way; stop it first." in panel.line.text
    assert not panel.stop.disabled
    bench.until(lambda: not bench.jobs.running("model"))
    assert same(bench.state["model"], whole)
    assert (panel.start.disabled, panel.stop.disabled, panel.fetch.disabled) == (False, True, False)


def test_the_last_model_and_its_map_stay_until_there_is_another(bench: Bench, store: Path) -> None:
    bench.open(store)
    bench.train("runs/1", 1)
    bench.settle()
    model = bench.state["model"]
    bench.state.do("prediction", "dict(of=model)")
    # A run that cannot begin, for its folder holds another, costs nothing.
    bench.train("runs/1", 2)
    bench.settle(fine=False)
    assert bench.state["model"] is model
    bench.panel.say()
    bench.train("runs/2", 2)
    assert bench.state["model"] is model
    assert bench.state["prediction"] == {"of": model}
    bench.settle()
    assert bench.state["model"] is not model
    assert "prediction" not in bench.state


def test_nothing_is_left_when_it_is_closed_in_the_middle_of_a_run(store: Path, tmp_path: Path) -> None:
    widgets, threads = len(_instances), set(threading.enumerate())
    cores = torch.get_num_threads()
    bench = Bench()
    bench.open(store)
    bench.train(tmp_path / "run", 500)
    bench.until(lambda: bench.panel.curves._all)
    bench.panel.pause.click()
    bench.close()
    assert len(_instances) == widgets
    ours = [each for each in set(threading.enumerate()) - threads if each.name.startswith("deepsentinel")]
    for each in ours:
        each.join(30)
        assert not each.is_alive()
    assert torch.get_num_threads() == cores


def test_a_page_is_told_ten_times_a_second_at_most_and_of_no_more_than_it_shows() -> None:
    curves = Curves()
    curves.begin(5000)
    told = []
    curves.observe(lambda change: told.append(time.monotonic()), "losses")
    began = time.monotonic()
    for step in range(1, 5001):
        curves.add_loss(step, 1 / step, now=step == 5000)
    assert len(told) <= 2 + (time.monotonic() - began) * 10
    assert len(curves.losses) <= 400
    assert curves.losses[-1] == [5000.0, 1 / 5000]
    # A step that is done again takes the place of what was drawn of it.
    curves.add_loss(4000, 7.0, now=True)
    assert curves.losses[-1] == [4000.0, 7.0]
    assert max(step for step, _ in curves.losses) == 4000
    assert thinned([[float(n), 1.0] for n in range(1000)], 10)[-1] == [999.0, 1.0]
    curves.close()
