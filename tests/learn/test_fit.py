"""The loop: broken off and gone on, a run ends where an unbroken one does, and what goes wrong loses nothing."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from learn_kit import corpus, feed, objective

from deepsentinel.encoders import load_encoder
from deepsentinel.errors import InputError, SourceError, TrainingError
from deepsentinel.learn.fit import CHECKPOINT, HISTORY, Plan, fit, parameter_groups
from deepsentinel.learn.labels import classes_of
from deepsentinel.learn.model import Model, Question
from deepsentinel.learn.objectives import OBJECTIVES

PLAN = Plan(steps=6, lr=1e-3, log_every=1, checkpoint_every=2, average=0.9)


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in model.parameters()])


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums over several threads are added up in whichever order these come, so to the bit only one thread repeats."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def unbroken(_one_thread: None) -> tuple[torch.Tensor, list[float]]:
    model = objective()
    history = fit(model, feed(), PLAN)
    return weights(model), history.table()["loss"].tolist()


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    tmp_path: Path, unbroken: tuple[torch.Tensor, list[float]]
) -> None:
    said: list[int] = []
    first = objective()
    history = fit(
        first, feed(), PLAN, out=tmp_path, on_step=lambda step: said.append(step.step), stop=lambda: len(said) > 2
    )
    assert history.stopped
    assert said == [1, 2, 3]
    assert not torch.equal(weights(first), unbroken[0])
    # Another process would begin with another model; all of it comes from the folder.
    second = objective(seed=9)
    history = fit(second, feed(), PLAN, out=tmp_path)
    assert not history.stopped
    assert torch.equal(weights(second), unbroken[0])
    assert history.table()["loss"].tolist() == unbroken[1]
    # Done is done: nothing is trained again, and what was learnt is there.
    third = objective(seed=4)
    again = fit(third, feed(), PLAN, out=tmp_path, on_step=lambda step: said.append(step.step))
    assert said == [1, 2, 3]
    assert torch.equal(weights(third), unbroken[0])
    assert again.table().equals(history.table())


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from learn_kit import feed, objective
from deepsentinel.learn.fit import Plan, fit
fit(objective(), feed(), Plan(steps=6, lr=1e-3, log_every=1, checkpoint_every=2, average=0.9), out={out!r},
    on_step=lambda step: (print(step.step, flush=True), time.sleep(0.2)))
"""


def test_a_run_that_was_killed_ends_as_one_that_was_not(
    tmp_path: Path, unbroken: tuple[torch.Tensor, list[float]]
) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent), out=str(tmp_path))
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "3":
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["done"] == 2
    model = objective(seed=9)
    fit(model, feed(), PLAN, out=tmp_path)
    torch.testing.assert_close(weights(model), unbroken[0], rtol=0, atol=0)


def test_an_event_stops_it_too(tmp_path: Path) -> None:
    event = threading.Event()
    history = fit(objective(), feed(), PLAN, on_step=lambda step: event.set(), stop=event)
    assert history.stopped
    assert len(history.rows) == 1
    with pytest.raises(InputError, match=r"threading\.Event"):
        fit(objective(), feed(), PLAN, stop="now")


class Breaks(torch.nn.Module):
    """A model whose loss is no number from the fourth step on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 2))
        self.seen = 0

    def loss(self, batch: object) -> dict[str, torch.Tensor]:
        self.seen += 1
        return {"good": self.weight.sum() ** 2, "bad": self.weight.sum() * (float("nan") if self.seen > 3 else 0.0)}


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_good_weights(tmp_path: Path) -> None:
    plan = Plan(steps=6, lr=1e-3, log_every=1, checkpoint_every=2)
    with pytest.raises(TrainingError, match=r"at step 4 of 6: loss, bad.*goes on from there.*lower lr"):
        fit(Breaks(), feed(), plan, out=tmp_path)
    held = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert held["done"] == 2
    assert held["model"]["weight"].isfinite().all()
    # Rarely looked at is looked at before it is written, all the same.
    plan = Plan(steps=6, lr=1e-3, log_every=100, checkpoint_every=2)
    with pytest.raises(TrainingError, match="at step 4 of 6"):
        fit(Breaks(), feed(), plan, out=tmp_path / "rarely")
    assert torch.load(tmp_path / "rarely" / CHECKPOINT, weights_only=True)["done"] == 2


class SteepNoWhere(torch.nn.Module):
    """A model whose loss is always a number, and its slope none from the fourth step on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 2))
        self.seen = 0

    def loss(self, batch: object) -> dict[str, torch.Tensor]:
        self.seen += 1
        return {"good": (self.weight.sum() * (0.0 if self.seen > 3 else 1.0)).abs().sqrt()}


def test_weights_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    """The loss of the step before they broke was fine, and they are to be written before the next one is known."""
    with pytest.raises(TrainingError, match=r"Weights are no longer numbers .* at step 4 of 6\. .*is whole"):
        fit(SteepNoWhere(), feed(), Plan(steps=6, log_every=1, checkpoint_every=2), out=tmp_path)
    held = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert held["done"] == 2
    assert held["model"]["weight"].isfinite().all()


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    """The system itself ends the file half-way, in the middle of what torch writes."""
    fit(objective(), feed(), PLAN, out=tmp_path, stop=lambda: True)
    before = (tmp_path / CHECKPOINT).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"step 2 could not be written.*is whole.*Make room"):
            fit(objective(), feed(), PLAN, out=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, HISTORY]
    assert fit(objective(), feed(), PLAN, out=tmp_path).rows[-1]["step"] == 6


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    fit(objective(), feed(), PLAN, out=tmp_path, story="one", stop=lambda: True)
    with pytest.raises(InputError, match=r"holds another run\. What it was: one\. What is asked for: two"):
        fit(objective(), feed(), PLAN, out=tmp_path, story="two")
    assert len(fit(objective(), feed(), PLAN, out=tmp_path, story="two", resume=False).rows) == 6
    (tmp_path / CHECKPOINT).write_bytes(b"no checkpoint")
    with pytest.raises(SourceError, match=r"no checkpoint, or a broken one.*move it away"):
        fit(objective(), feed(), PLAN, out=tmp_path, story="two")


def test_a_folder_that_cannot_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    began = time.perf_counter()
    with pytest.raises(TrainingError, match="step 0 could not be written"):
        fit(objective(), feed(), Plan(steps=10_000), out=tmp_path / "file" / "run")
    assert time.perf_counter() - began < 30


class Line(torch.nn.Module):
    """A straight line through the mean of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.at = torch.nn.Parameter(torch.zeros(1, 1))

    def loss(self, batch: object) -> dict[str, torch.Tensor]:
        return {"off": (self.at - batch.s1.mean()).square().mean()}  # type: ignore[attr-defined]


class Following(Line):
    """A line that knows how many steps it has gone."""

    gone = 0

    def after_step(self, step: int, steps: int) -> None:
        self.gone = step


def test_a_row_is_the_mean_of_all_steps_since_the_last_one(tmp_path: Path) -> None:
    """Whenever a checkpoint was written between, and whether or not a run was stopped there."""
    each = fit(Line(), feed(), Plan(steps=10, lr=0.1, log_every=1)).table()["loss"].to_numpy()
    wanted = pytest.approx([each[0], each[1:4].mean(), each[4:8].mean(), each[8:].mean()])
    whole = fit(Line(), feed(), Plan(steps=10, lr=0.1, log_every=4, checkpoint_every=10)).table()
    assert whole.index.tolist() == [1, 4, 8, 10]
    assert whole["loss"].tolist() == wanted
    plan = Plan(steps=10, lr=0.1, log_every=4, checkpoint_every=7)
    assert fit(Line(), feed(), plan, out=tmp_path / "unbroken").table()["loss"].tolist() == whole["loss"].tolist()
    model = Following()
    stopped = fit(model, feed(), plan, out=tmp_path / "run", stop=lambda: model.gone == 6)
    # Whoever stops is told how it stood,
    assert stopped.table().index.tolist() == [1, 4, 6]
    assert stopped.table()["loss"][6] == pytest.approx(each[4:6].mean())
    # and what goes on is as if nobody had stopped.
    table = fit(Following(), feed(), plan, out=tmp_path / "run").table()
    assert table[["loss", "off", "lr"]].equals(whole[["loss", "off", "lr"]])


class Normed(torch.nn.Module):
    """A norm that remembers what it saw, and one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(2)

    def loss(self, batch: object) -> dict[str, torch.Tensor]:
        return {"off": (self.norm(batch.s1) - 1).square().mean()}  # type: ignore[attr-defined]


def test_what_norms_saw_is_averaged_with_the_weights() -> None:
    plan = {"steps": 6, "lr": 0.1, "warmup": 0.0}
    plain, mean = Normed(), Normed()
    path: list[torch.Tensor] = []
    fit(plain, feed(), Plan(**plan, log_every=1), on_step=lambda _: path.append(plain.norm.running_mean.clone()))
    fit(mean, feed(), Plan(**plan, average=0.9))
    wanted = torch.zeros(2)
    for done, here in enumerate(path, start=1):
        wanted += max(0.1, 10 / (done + 10)) * (here - wanted)
    torch.testing.assert_close(mean.norm.running_mean, wanted)
    assert (wanted - path[-1]).abs().min() > 0.01
    assert int(mean.norm.num_batches_tracked) == 6


def test_a_model_of_another_shape_is_another_run(tmp_path: Path) -> None:
    plan = Plan(steps=2, lr=0.1)
    fit(Line(), feed(), plan, out=tmp_path)
    with pytest.raises(InputError, match=r"holds another run\. Its weights are not those of this model\. Name another"):
        fit(Normed(), feed(), plan, out=tmp_path)
    with pytest.raises(InputError, match=r"holds another run\. Its weights were averaged"):
        fit(Line(), feed(), Plan(steps=2, lr=0.1, average=0.5), out=tmp_path)


def test_what_an_earlier_run_left_does_not_lie_beside_a_new_one(tmp_path: Path) -> None:
    """Or a run that ends before its time would look as if it were done."""
    plan = Plan(steps=2, lr=0.1, log_every=1)
    left, other = tmp_path / "model.safetensors", tmp_path / "other.safetensors"
    fit(Line(), feed(), plan, out=tmp_path, result=left.name)
    left.write_text("the first")
    other.write_text("of somebody else")
    fit(Line(), feed(), plan, out=tmp_path, result=left.name)
    assert left.exists()
    with pytest.raises(RuntimeError, match="killed"):
        fit(Line(), feed(), plan, out=tmp_path, result=left.name, resume=False, on_step=lambda _: killed())
    assert not left.exists()
    assert other.exists()


def test_batches_that_are_gathered_make_the_step_of_one_that_is_larger() -> None:
    """The gradient of a mean of equal parts is the mean of theirs, if both see the same samples."""
    one, two = Line(), Line()
    plan = {"steps": 3, "lr": 0.1, "weight_decay": 0.0, "warmup": 0.0, "clip": 1e9}
    fit(one, feed(turn=False, crop_px=48, batch_size=4), Plan(**plan))
    fit(two, feed(turn=False, crop_px=48, batch_size=2), Plan(**plan, accumulate=2))
    assert one.at.item() == pytest.approx(two.at.item(), abs=1e-4)
    assert abs(one.at.item()) > 0.05


def test_weights_are_averaged_over_the_steps() -> None:
    plain, mean = Line(), Line()
    path: list[float] = []
    fit(plain, feed(), Plan(steps=8, lr=0.1, warmup=0.0, log_every=1), on_step=lambda _: path.append(plain.at.item()))
    fit(mean, feed(), Plan(steps=8, lr=0.1, warmup=0.0, average=0.4))
    wanted = 0.0
    for done, here in enumerate(path, start=1):
        new = max(0.6, 10 / (done + 10))  # how much of the average the last step is
        wanted += new * (here - wanted)
    assert mean.at.item() == pytest.approx(wanted, rel=1e-5)
    assert abs(wanted - path[-1]) > 1e-4


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "triplet"])
def test_half_the_digits_learn_nearly_the_same(name: str) -> None:
    losses = {}
    for precision in ("32", "bf16"):
        plan = Plan(steps=2, lr=1e-4, log_every=1, precision=precision)
        losses[precision] = fit(objective(name), feed(), plan).table()["loss"].tolist()
    assert losses["bf16"] == pytest.approx(losses["32"], rel=0.03)
    assert losses["bf16"] != losses["32"]


@pytest.mark.parametrize(
    ("task", "decoder"), [("segmentation", "pixels"), ("segmentation", "linear"), ("fractions", "")]
)
def test_heads_learn_with_half_the_digits(task: str, decoder: str) -> None:
    classes = classes_of(corpus(), "corine")
    losses = {}
    for precision in ("32", "bf16"):
        torch.manual_seed(0)
        question = Question(task, classes, decoder=decoder)
        model = Model(load_encoder("fusion-nano", "random"), question, size=8)
        plan = Plan(steps=2, lr=1e-4, log_every=1, precision=precision)
        losses[precision] = fit(model, feed(labels=classes.arrays), plan).table()["loss"].tolist()
    assert losses["bf16"] == pytest.approx(losses["32"], rel=0.03)
    assert losses["bf16"] != losses["32"]


def test_what_is_compiled_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the part that wants a compiler of C++, and minutes."""
    compiled: list[object] = []

    def ahead(method: Any) -> Any:
        compiled.append(method)
        return compiling(method, backend="eager")

    compiling = torch.compile
    monkeypatch.setattr(torch, "compile", ahead)
    plan = {"steps": 3, "lr": 0.1, "log_every": 1}
    found = [fit(Line(), feed(), Plan(**plan, compile=wanted)).table()["loss"].tolist() for wanted in (False, True)]
    assert len(compiled) == 1
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_losses_go_to_tensorboard_where_that_is_asked_for(tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logs, out = tmp_path / "logs", tmp_path / "run"
    plan = Plan(steps=6, lr=0.1, log_every=1, checkpoint_every=2, logs=logs)
    with pytest.raises(RuntimeError, match="killed"):
        fit(Line(), feed(), plan, out=out, on_step=lambda step: killed() if step.step == 3 else None)
    history = fit(Line(), feed(), plan, out=out).table()
    events = reading.EventAccumulator(str(logs))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "off", "lr", "samples_per_s"}
    said = events.Scalars("loss")
    # The third step was told of twice, and is shown once.
    assert [each.step for each in said] == [1, 2, 3, 4, 5, 6]
    assert [each.value for each in said] == pytest.approx(history["loss"].tolist())


def killed() -> None:
    raise RuntimeError("killed")


def test_without_tensorboard_it_says_what_is_missing_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    model = Line()
    with pytest.raises(InputError, match=r"needs TensorBoard: pip install tensorboard"):
        fit(model, feed(), Plan(steps=2, logs=tmp_path))
    assert model.at.item() == 0
    assert len(fit(model, feed(), Plan(steps=2)).rows) == 2


def test_biases_and_norms_are_not_pulled_to_nothing() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    groups = parameter_groups(model, Plan(steps=1))
    decayed = {id(value) for group in groups if group["weight_decay"] for value in group["params"]}
    assert decayed == {id(model[0].weight)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"steps": 5, "lr": -1.0}, "lr=-1.0"),
        ({"steps": 5, "precision": "half"}, "auto, 32, bf16"),
        ({"steps": 5, "log_every": 2.5}, "log_every=2.5"),
    ],
)
def test_plans_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Plan(**options)  # type: ignore[arg-type]
