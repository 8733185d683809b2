"""The sixth tab: a corpus, a question, a run that can be watched, stopped and gone on with, and the map it gives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelError, InputError

from .canvas import Canvas
from .charts import Legend
from .controls import Slider
from .corpora import BOX, NO_CORPUS, NUMBER, CorpusPanel, offer
from .curves import Curves
from .jobs import Jobs
from .state import State

if TYPE_CHECKING:
    from deepsentinel.learn.plans import Step

TASKS = ("segmentation", "classification", "fractions", "detection", "instances", "regression")
SENSORS = {"S1 and S2": "both", "Sentinel-1": "s1", "Sentinel-2": "s2", "now one, now both": "any"}
WEIGHTS = {"pretrained": "", "random": "random"}
WANTED = 600
# A look takes a while; looking takes no more than a fifth of the time.
LOOK_EVERY_S, LOOK_SHARE = 4.0, 0.2
HELD_BACK = 0.2
NO_MODEL = "There is no model yet: train one, or load one of the runs."
NO_PAIR = "Read a pair first (tab Area); the model makes a map of it."
# While a run waits, it asks this often whether it is to go on.
ASK_EVERY_S = 0.05


class TrainingPanel(CorpusPanel):
    """Build or open a corpus, train on it, watch, go on, predict."""

    title: ClassVar[str] = "Train"

    def __init__(self, state: State, canvas: Canvas, jobs: Jobs) -> None:
        super().__init__(state, canvas, jobs)
        self._front, self._painting = True, threading.RLock()
        self._waiting, self._under_run, self._enabling = threading.Event(), False, threading.Lock()
        self._last: tuple[str, dict[str, Any]] | None = None
        self._seen_at, self._look_s, self._waited = 0.0, 0.0, False
        self._suggested = WANTED
        table = ds.list_encoders()
        names = table.loc[table["parameters"] > 0, "name"].tolist()
        self.encoder = self.control(ipywidgets.Dropdown, "Encoder", options=names)
        self.weights = self.control(ipywidgets.Dropdown, "Weights", options=WEIGHTS)
        self.frozen = self.control(ipywidgets.Checkbox, "Train the head only", indent=False, value=False)
        self.task = self.control(ipywidgets.Dropdown, "Task", options=TASKS)
        self.sensors = self.control(ipywidgets.Dropdown, "Sensors", options=SENSORS)
        self.device = self.control(
            ipywidgets.Dropdown, "Device", lambda _: self.suggest(), options=["auto", "cpu", "cuda"]
        )
        self.steps = self.control(ipywidgets.BoundedIntText, "Steps", value=WANTED, min=1, max=10_000_000, **NUMBER)
        self.batch = self.control(ipywidgets.BoundedIntText, "Batch", value=8, min=1, max=4096, **NUMBER)
        self.out = self.control(ipywidgets.Text, "Folder", value=next_run(), **BOX)
        for each in (self.encoder, self.task, self.labels, self.sensors, self.weights, self.device):
            each.layout.width = "200px"
        self.frozen.layout.width = "auto"
        self.why = self.note()

        rarely = (self.row(self.weights, self.frozen), self.row(self.device, self.batch), self.row(self.out))
        self.more = ipywidgets.Accordion([ipywidgets.VBox(rarely)], titles=["More choices"], selected_index=None)

        self.start = self.button("Start", self.begin, main=True, disabled=True)
        self.pause = self.button("Pause", self.hold, tip="Wait after this step", disabled=True)
        self.stop = self.button("Stop", self.end, tip="End after this step; what was learnt stays", disabled=True)
        self.again = self.button("Go on", self.go_on, tip="Go on from the last checkpoint", disabled=True)
        self.told = self.note()
        self.curves = Curves()
        self.curves.begin(1)
        self.legend = Legend(fixed=True)
        self.sample = self.note()

        self.runs = self.control(ipywidgets.Dropdown, "Runs", options=[])
        self.runs.layout.width = "300px"
        self.fetch = self.button("Load", self.load_run, tip="Take the model of this run")
        self.map_it = self.button(
            "Predict the pair", self.predict, tip="A map of the pair that was read, by the model", disabled=True
        )
        self.needs = self.note()
        self.opacity = Slider(description="Opacity", value=70, max=100, step=5, unit="%")
        self.listen(self.opacity, lambda value: self._front and self.canvas.fade("prediction", value / 100))
        self.body.children = (
            *self.corpus_rows,
            self.row(self.encoder, self.labels),
            self.row(self.task, self.sensors),
            self.row(self.steps, self.why),
            self.more,
            self.row(self.start, self.pause, self.stop, self.again),
            self.told,
            self.curves,
            self.legend,
            self.sample,
            self.row(self.runs, self.fetch),
            self.row(self.map_it, self.opacity),
            self.needs,
        )
        self.watch("prediction", self._paint)
        self.watch("corpus", lambda _: self._begin_anew())
        self.listen(self.labels, lambda _: self._able())
        for name in ("corpus", "model", "patch"):
            self.watch(name, lambda _: self._able())
        self._able()
        self.list_runs()
        self.suggest()

    # -- a run ---------------------------------------------------------------------------------------------------------

    def suggest(self) -> None:
        """How many steps make sense on this device: a smaller number where there is no GPU, and that is said."""
        from deepsentinel.learn.plans import suggested_steps

        device = self.device.value

        def done(found: tuple[int, str]) -> None:
            if self.device.value != device:
                return
            # A number that somebody has typed stays.
            if self.steps.value == self._suggested:
                self._suggested = self.steps.value = found[0]
                self.why.value = found[1]

        # torch takes seconds to import, for which nobody shall wait.
        work = self.guard(lambda _: suggested_steps(WANTED, device))
        self.jobs.start(
            "suggestion", lambda stop: work(stop) or (WANTED, ""), done=self.guard(done), failed=self.complain
        )

    def begin(self) -> None:
        """Start a run with what is chosen."""
        if "corpus" not in self.state:
            raise InputError(NO_CORPUS)
        if not self.labels.value:
            raise InputError("This corpus has no labels to learn; build one with labels.")
        if self.jobs.running("model"):
            raise InputError("A run is under way; stop it first.")
        ground, said = self._held_back()
        values: dict[str, Any] = {
            "encoder": self.encoder.value,
            "task": self.task.value,
            "labels": self.labels.value,
            "sensors": self.sensors.value,
            "steps": int(self.steps.value),
            "batch_size": int(self.batch.value),
            "device": self.device.value,
            "out": self.out.value.strip() or next_run(),
            # Text costs nothing beside a step of a processor.
            "log_every": 1 if self.steps.value <= 1000 else 10,
        }
        if self.weights.value:
            values["weights"] = self.weights.value
        if self.frozen.value:
            values["frozen"] = True
        named = ", ".join(f"{name}={{{name}}}" for name in list(values)[3:])
        line = f"ds.finetune({ground}, {{encoder}}, {{task}}, {{labels}}, {named})"
        self._last = line, values
        self.curves.begin(values["steps"])
        self.legend.rows = []
        self.sample.value = said
        self._go()

    def go_on(self) -> None:
        """Let a run that waits go on; or one that was stopped, from its checkpoint."""
        if self._waiting.is_set():
            self._waiting.clear()
            self._buttons(running=True)
        elif self._last is None:
            raise InputError("There is no run of this corpus to go on with; press Start.")
        elif not self.jobs.running("model"):
            self._go()

    def _begin_anew(self) -> None:
        """The corpus is another one: what ran before has nothing to go on with."""
        self._last = None
        # One that waits goes on with what it has.
        self.again.disabled = not self._waiting.is_set()

    def hold(self) -> None:
        """Have the run wait after this step; it keeps its place in memory."""
        if self.jobs.running("model"):
            self._waiting.set()
            self._buttons(running=True)
            self.told.value = f"Waiting. {self.told.value}"

    def end(self) -> None:
        """End the run after this step."""
        self._waiting.clear()
        self.jobs.stop("model")
        self.stop.disabled = self.pause.disabled = True

    def _held_back(self) -> tuple[str, str]:
        """What is learnt from, and what is said of what is not."""
        try:
            line = "ds.split(corpus, fractions={fractions}, buffer_m=0)"
            parts = self.state["parts"]
            # Made anew they would take the model of the last run with them, before this one has taken a step.
            if parts is None:
                parts = self.state.do("parts", line, fractions=(1 - HELD_BACK, HELD_BACK))
        except DeepSentinelError as error:
            self.state.drop("parts")
            return "corpus", f"Nothing could be held back, so there is no score: {error}"
        if not all(part.sizes["sample"] for part in parts):
            self.state.drop("parts")
            return "corpus", "Too few samples to hold some back, so there is no score."
        counts = [part.sizes["sample"] for part in parts]
        return "parts[0]", f"{counts[0]} samples to learn from; the score is of {counts[1]} others, on other ground."

    def _go(self) -> None:
        assert self._last is not None
        line, values = self._last
        self._waiting.clear()
        self._seen_at, self._look_s = time.monotonic(), 0.0
        parts, steps = self.state["parts"], values["steps"]
        watch: list[Any] = []

        def on_step(step: Step) -> None:
            last = step.step == steps
            if self.curves.add_loss(step.step, step.losses["loss"], now=last):
                self._tell(step, values["batch_size"])
            due = max(LOOK_EVERY_S, self._look_s / LOOK_SHARE)
            if "parts[0]" in line and (last or not watch or time.monotonic() - self._seen_at >= due):
                self._look(step, watch, parts[1])

        def work(asked: Callable[[], bool]) -> Any:
            from deepsentinel.learn.watching import one_core_free

            def stop() -> bool:
                while self._waiting.is_set() and not asked():
                    self._waited = True
                    time.sleep(ASK_EVERY_S)
                return asked()

            hidden: Mapping[str, Any] = {"on_step": self.guard(on_step), "stop": stop}
            with self.busy("Training"), one_core_free():
                return self.state.compute(line, hidden, **values)

        def done(found: Any) -> None:
            model, made = found
            step = int(model.history.index[-1]) if len(model.history) else 0
            self._ended(values["out"])
            if step < steps:
                self.say(f"Stopped at step {step} of {steps}; what was learnt is in {values['out']}.")
            else:
                self.say(f"{steps} steps done; the model is in {values['out']}.")
            if not self.state.keep("model", made):
                self.say(f"The corpus is another one by now; the model of the old one is in {values['out']}.")

        def failed(error: BaseException) -> None:
            self._ended(values["out"])
            self.complain(error)

        if self.line.kind == "error":
            self.say()
        self._buttons(running=True)
        self.told.value = "Getting ready"
        self.jobs.start("model", work, done=self.guard(done), failed=self.guard(failed))

    def _ended(self, out: str) -> None:
        self._waiting.clear()
        self._buttons(running=False)
        if self.out.value == out and Path(out).expanduser().exists():
            self.out.value = next_run()
        self.list_runs()

    def _buttons(self, *, running: bool) -> None:
        waiting = self._waiting.is_set()
        self._under_run, self.stop.disabled, self.fetch.disabled = running, not running, running
        self._able()
        self.pause.disabled = not running or waiting
        self.again.disabled = not (waiting or (not running and self._last is not None))

    def _able(self) -> None:
        """Only what can be done can be pressed, and what a map still lacks is said."""
        # A model and a pair may come at once, each on the thread of its own job.
        with self._enabling:
            self.start.disabled = self._under_run or "corpus" not in self.state or not self.labels.value
            lacks = NO_MODEL if "model" not in self.state else NO_PAIR if "patch" not in self.state else ""
            self.map_it.disabled, self.needs.value = bool(lacks), lacks
            self.needs.layout.display = None if lacks else "none"

    def _tell(self, step: Step, batch_size: int) -> None:
        from deepsentinel.learn.watching import memory_gb

        parts = [f"Step {step.step} of {step.steps}"]
        # Time spent waiting is no speed.
        if not self._waited and step.samples_per_s > 0:
            parts.append(f"{step.samples_per_s:.1f} samples/s")
            left_s = (step.steps - step.step) * batch_size / step.samples_per_s
            if step.step < step.steps:
                parts.append(f"about {time_words(left_s)} left")
        self._waited = False
        with suppress(RuntimeError):
            device = next(step.model.parameters()).device if step.model is not None else "cpu"
            if (held := memory_gb(device)) is not None:
                parts.append(f"{held:.1f} GB")
        self.told.value = " · ".join(parts)

    def _look(self, step: Step, watch: list[Any], held_back: Any) -> None:
        """Score the model on what was held back, and show one sample of it."""
        from deepsentinel.figures.glimpses import classes_in, glimpse
        from deepsentinel.learn.report_words import words
        from deepsentinel.learn.watching import Watch

        began = time.monotonic()
        if not watch:
            watch.append(Watch(held_back))
        look = watch[0].look(step.model)
        name = f"{words(look.metric)} of {look.samples} held back"
        self.curves.add_score(step.step, look.score, name, glimpse(look.example, step.model))
        rows = enumerate(classes_in(look.example, step.model))
        self.legend.rows = [{"code": at, "name": text, "color": color, "share": ""} for at, (text, color) in rows]
        self._seen_at = time.monotonic()
        self._look_s = self._seen_at - began

    # -- models --------------------------------------------------------------------------------------------------------

    def list_runs(self) -> None:
        """The runs beside the one that the folder names."""
        from deepsentinel.learn.checkpoints import list_runs

        folder = Path(self.out.value.strip() or "runs/1").expanduser().parent
        table = list_runs(folder)
        options = []
        for row in table.itertuples():
            state = f"step {row.step}, loss {row.loss:.3f}" + ("" if row.finished else ", no model yet")
            options.append((f"{row.run}: {state}", str(folder / str(row.run))))
        offer(self.runs, options)

    def load_run(self) -> None:
        """Take the model of a run."""
        if self.runs.value is None:
            raise InputError("There is no run in this folder yet.")
        if self.jobs.running("model"):
            raise InputError("A run is under way; stop it first.")
        path = str(Path(self.runs.value) / "model.safetensors")
        self.run("model", "ds.load_model({path})", text="Loading the model", path=path, then=self._loaded)

    def _loaded(self, model: Any) -> None:
        self.say(f"Loaded: {model!r}")

    def predict(self) -> None:
        """A map of the pair that was read."""
        if "model" not in self.state:
            raise InputError(NO_MODEL)
        if "patch" not in self.state:
            raise InputError(NO_PAIR)
        line = "ds.predict(model, patch, device={device})"
        self.run("prediction", line, {"progress": False}, text="Predicting", device=self.device.value)

    @property
    def front(self) -> bool:
        """Whether its tab is the one in front: only then the model's map hides the pictures below."""
        return self._front

    @front.setter
    def front(self, on: bool) -> None:
        changed, self._front = on != self._front, on
        if changed and not self.closed:
            self.guard(self._paint if on else self._lift)(self.state["prediction"])

    def _paint(self, prediction: Any) -> None:
        with self._painting:
            if not self._front:
                return  # its place on the map is that of the labels' map, too
            if prediction is None or "class_map" not in prediction:
                self._lift()
                return
            drawn = self.state.do("view_prediction", "ds.overlay(prediction, {layer})", layer="class_map")
            self.canvas.lay("prediction", drawn, opacity=self.opacity.value / 100)

    def _lift(self, _: Any = None) -> None:
        with self._painting:
            self.canvas.lift("prediction")

    def close(self) -> None:
        """Have a run end, and let go of everything."""
        self._waiting.clear()
        if self.jobs.running("model"):
            self.jobs.stop("model")
        if not self.closed:
            self._lift()
        super().close()


def next_run(folder: str = "runs") -> str:
    """A folder that no run has used.

    >>> next_run("/nowhere/runs")
    '/nowhere/runs/1'
    """
    number = 1
    while (Path(folder).expanduser() / str(number)).exists():
        number += 1
    return f"{folder}/{number}"


def time_words(seconds: float) -> str:
    """A time as one says it.

    >>> time_words(42), time_words(400), time_words(9000)
    ('42 s', '7 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
