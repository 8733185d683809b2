"""The one training loop: flat, on Lightning Fabric, and exactly where it was after it was killed.

A step is a function of its number: the batch, and all that is drawn on the way, come of the seed and the step. So a run
that goes on from a checkpoint has the losses of one that was never broken. Under `torchrun` the same loop runs on
several GPUs, each with its part of the batch.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import pandas as pd
import torch
from torch import Tensor, nn

from deepsentinel.errors import InputError, SourceError, TrainingError
from deepsentinel.files import atomic_path

from .batches import Batch

CHECKPOINT, HISTORY = "checkpoint.pt", "history.csv"
FORMAT = 1
PRECISIONS = {"auto": None, "32": "32-true", "bf16": "bf16-mixed"}


class Trained(Protocol):
    """What the loop can train: an objective, or a model with its labels."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The parts of the loss, weighted."""

    def after_step(self, step: int, steps: int) -> None:
        """What is to be done once the weights have changed."""


class Batches(Protocol):
    """Where batches come from: a function of the step."""

    device: torch.device

    def run(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches from one step to another."""


@dataclass(frozen=True)
class Plan:
    """How a model is trained."""

    steps: int
    """How often the weights change."""
    lr: float = 1e-3
    """The highest learning rate; it rises to it and falls along a cosine."""
    weight_decay: float = 0.05
    """Of matrices; biases and norms have none."""
    warmup: float = 0.05
    """The share of the steps in which the rate rises."""
    accumulate: int = 1
    """How many batches make a step."""
    clip: float = 1.0
    """The largest norm of the gradient."""
    precision: str = "auto"
    """auto (bfloat16 on a GPU), 32 or bf16."""
    average: float = 0.0
    """Weights are averaged over about 1 / (1 - average) steps; 0: not at all."""
    seed: int = 0
    """Of all that is drawn."""
    log_every: int = 10
    """Losses are looked at every so many steps."""
    checkpoint_every: int = 500
    """And written every so many."""
    compile: bool = False
    """Whether torch.compile prepares the model, which pays on a GPU."""
    tensorboard: bool = False
    """Whether losses go to TensorBoard too."""

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "log_every", "checkpoint_every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name}={value!r}: a whole number from 1 is meant.")
        if not self.lr > 0 or not 0 <= self.warmup < 1 or not 0 <= self.average < 1:
            raise InputError(
                f"lr={self.lr}, warmup={self.warmup}, average={self.average}: lr > 0, the others 0 to < 1."
            )
        if self.precision not in PRECISIONS:
            raise InputError(f"precision={self.precision!r}: one of {', '.join(PRECISIONS)} is meant.")

    def rate(self, step: int) -> float:
        """The learning rate of a step, as a share of the highest.

        >>> [round(Plan(steps=100).rate(step), 2) for step in (0, 4, 50, 99)]
        [0.2, 1.0, 0.53, 0.01]
        """
        rising = max(1, round(self.warmup * self.steps))
        if step < rising:
            return (step + 1) / rising
        done = (step + 1 - rising) / max(1, self.steps - rising)
        return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Step:
    """What `on_step` is told."""

    step: int
    """Steps done."""
    steps: int
    """Steps there will be."""
    losses: Mapping[str, float]
    """Means since the last time, by part; "loss" is their sum."""
    lr: float
    """The learning rate."""
    samples_per_s: float
    """How fast it goes, since the last time."""

    def __str__(self) -> str:
        parts = "  ".join(f"{name} {value:.4f}" for name, value in self.losses.items())
        return f"step {self.step}/{self.steps}  {parts}  {self.samples_per_s:.0f} samples/s"


@dataclass
class History:
    """What happened."""

    rows: list[dict[str, float]] = field(default_factory=list)
    """One a look: step, loss, its parts, lr, samples_per_s."""
    stopped: bool = False
    """Whether it was stopped before its last step."""

    def table(self) -> pd.DataFrame:
        """One row a look, indexed by step."""
        return pd.DataFrame(self.rows).set_index("step") if self.rows else pd.DataFrame({"loss": []})


def fit(
    model: nn.Module,
    batches: Batches,
    plan: Plan,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    story: str = "",
    groups: Iterable[Mapping[str, Any]] | None = None,
    on_step: Callable[[Step], object] | None = None,
    stop: Any = None,
) -> History:
    """Train a model in place.

    out: a folder for the checkpoint and the history; a run found there goes on, unless resume=False. story: what makes
    a run this one; the checkpoint of another is refused. groups: parameter groups with their own `lr`; None: all, at
    the plan's. on_step: called with a `Step` at every look. stop: a function, or an Event, that ends the run early;
    what was learnt until then stays, and is written.
    """
    from lightning.fabric import Fabric

    world = int(os.environ.get("WORLD_SIZE", "1"))
    device = batches.device
    precision = PRECISIONS[plan.precision] or ("bf16-mixed" if device.type == "cuda" else "32-true")
    fabric = Fabric(
        accelerator=device.type,
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if world > 1 else _device_list(device),
        num_nodes=max(1, world // int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))) if world > 1 else 1,
        strategy="ddp_find_unused_parameters_true" if world > 1 else "auto",
        precision=cast(Any, precision),
    )
    fabric.launch()
    run = _Run(model, plan, fabric, groups, None if out is None else Path(out).expanduser(), story)
    # oneDNN keeps what it prepares for every new shape, gigabytes of it where each step has shapes of its own.
    steady = not getattr(model, "shapes_vary", False)
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        _onednn(steady),
    ):
        if resume:
            run.resume()
        run.train(batches, on_step, _asked(stop))
    return run.history


@contextmanager
def _onednn(wanted: bool) -> Iterator[None]:
    before = torch.backends.mkldnn.set_flags()[0]
    torch.backends.mkldnn.set_flags(before and wanted)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before)


class _Run:
    """One run: the model as Fabric has it, its optimiser, and where it stands."""

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        fabric: Any,
        groups: Iterable[Mapping[str, Any]] | None,
        folder: Path | None,
        story: str,
    ) -> None:
        self.model, self.plan, self.fabric, self.folder, self.story = model, plan, fabric, folder, story
        chosen = parameter_groups(model, plan) if groups is None else [dict(group) for group in groups]
        self.highest = [float(group.get("lr", plan.lr)) for group in chosen]
        cuda = fabric.device.type == "cuda"
        optimizer = torch.optim.AdamW(chosen, lr=plan.lr, weight_decay=plan.weight_decay, betas=(0.9, 0.95), fused=cuda)
        self.wrapped, self.optimizer = fabric.setup(model, optimizer)
        self.wrapped.mark_forward_method("loss")
        self.loss: Any = torch.compile(self.wrapped.loss) if plan.compile else self.wrapped.loss
        self.done = 0
        self.history = History()
        self.average = (
            {name: value.detach().clone() for name, value in model.named_parameters()} if plan.average else None
        )
        self._board: Any = None

    def train(self, batches: Batches, on_step: Callable[[Step], object] | None, asked: Callable[[], bool]) -> None:
        plan, parts = self.plan, _Parts()
        self.model.train()
        began, samples = time.perf_counter(), 0
        if self.folder is not None and not self.done:
            self.save()  # a folder that cannot be written to is known before the work, not after it
        feed = batches.run(self.done * plan.accumulate, plan.steps * plan.accumulate)
        while self.done < plan.steps:
            share = plan.rate(self.done)
            for group, highest in zip(self.optimizer.param_groups, self.highest, strict=True):
                group["lr"] = highest * share
            torch.manual_seed(_mixed(plan.seed, self.done, self.fabric.global_rank))
            for part in range(plan.accumulate):
                batch = next(feed)
                samples += len(batch)
                with self.fabric.no_backward_sync(self.wrapped, enabled=part + 1 < plan.accumulate):
                    losses = self.loss(batch)
                    self.fabric.backward(sum(losses.values()) / plan.accumulate)
                parts.add(losses)
            self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=plan.clip, error_if_nonfinite=False)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.done += 1
            self._follow()
            last = self.done == plan.steps
            halt = not last and asked()
            if self.done % plan.log_every == 0 or last or halt or self.done == 1:
                step = self._look(parts, share, samples / max(1e-9, time.perf_counter() - began))
                if on_step is not None:
                    on_step(step)
                began, samples = time.perf_counter(), 0
                halt = halt or (not last and asked())
            if last or halt or self.done % plan.checkpoint_every == 0:
                if parts.count:
                    self._look(parts, share, 0.0, keep=False)
                self.save()
            if halt:
                self.history.stopped = True
                break
        if self.average is not None and self.done:
            with torch.no_grad():
                for name, value in self.model.named_parameters():
                    value.copy_(self.average[name])
        self.model.eval()

    def _follow(self) -> None:
        after = getattr(self.model, "after_step", None)
        if after is not None:
            after(self.done, self.plan.steps)
        if self.average is not None:
            # Early on the average is of what there is, not of how it began.
            keep = min(self.plan.average, self.done / (self.done + 10))
            with torch.no_grad():
                for name, value in self.model.named_parameters():
                    self.average[name].lerp_(value, 1 - keep)

    def _look(self, parts: _Parts, share: float, speed: float, *, keep: bool = True) -> Step:
        """The means of the losses since the last look; a loss that is no number ends the run here."""
        means = parts.take()
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            raise TrainingError(
                f"The loss is no longer a number (NaN or infinite) at step {self.done} of {self.plan.steps}: "
                f"{', '.join(broken)}. {self._kept()}Try a lower lr than {self.plan.lr:g}, and look at the pixels for "
                "values that are out of all proportion (ds.describe(corpus))."
            )
        row = {"step": self.done, **means, "lr": self.plan.lr * share, "samples_per_s": speed}
        if keep:
            self.history.rows.append(row)
            self._log(row)
        return Step(self.done, self.plan.steps, means, self.plan.lr * share, speed)

    def _log(self, row: Mapping[str, float]) -> None:
        if not self.plan.tensorboard or self.fabric.global_rank:
            return
        if self._board is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise InputError("tensorboard=True needs TensorBoard: pip install tensorboard") from error
            self._board = SummaryWriter(str(self.folder or Path("runs")))
        for name, value in row.items():
            self._board.add_scalar(name, value, int(row["step"]))
        self._board.flush()

    def _kept(self) -> str:
        if self.folder is None:
            return "Nothing was written, as out= names no folder. "
        return f"The last checkpoint in {self.folder} is whole: the run goes on from there. "

    def resume(self) -> None:
        """Go on from the folder's checkpoint, if there is one."""
        path = None if self.folder is None else self.folder / CHECKPOINT
        if path is None or not path.is_file():
            return
        try:
            held = torch.load(path, map_location=self.fabric.device, weights_only=True)
        except Exception as error:  # torch raises many kinds, some of them with a page of advice
            reason = str(error).partition(". ")[0].splitlines()[0][:120]
            raise SourceError(
                f"{path} is no checkpoint, or a broken one ({reason}): move it away to begin anew."
            ) from error
        if held.get("format") != FORMAT or held["story"] != self.story:
            raise InputError(
                f"{self.folder} holds another run. What it was: {held.get('story')}. What is asked for: {self.story}. "
                "Name another folder in out=, or pass resume=False to write over it."
            )
        self.model.load_state_dict(held["model"])
        self.optimizer.load_state_dict(held["optimizer"])
        if self.average is not None:
            self.average = held["average"]
        self.done, self.history.rows = held["done"], held["rows"]

    def save(self) -> None:
        """Write the checkpoint and the history, each whole or not at all."""
        if self.folder is None or self.fabric.global_rank:
            return
        held = {
            "format": FORMAT,
            "story": self.story,
            "done": self.done,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "rows": self.history.rows,
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.folder / CHECKPOINT) as temporary:
                torch.save(held, temporary)
            with atomic_path(self.folder / HISTORY) as temporary:
                self.history.table().to_csv(temporary)
        except (OSError, RuntimeError) as error:
            kept = self._kept() if (self.folder / CHECKPOINT).is_file() else ""
            raise TrainingError(
                f"The checkpoint of step {self.done} could not be written into {self.folder}: {error}. {kept}Make "
                "room, or name another folder in out=."
            ) from error


class _Parts:
    """Sums of the parts of the loss, on the device, so that nobody waits for it at every step."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach()
        self.count += 1

    def take(self) -> dict[str, float]:
        means = {name: float(value) / max(1, self.count) for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return {"loss": sum(means.values()), **means}


def parameter_groups(model: nn.Module, plan: Plan) -> list[dict[str, Any]]:
    """What is trained, at the plan's rate: matrices with weight decay, all else without.

    >>> [len(group["params"]) for group in parameter_groups(nn.Linear(2, 2), Plan(steps=1))]
    [1, 1]
    """
    trained = [value for value in model.parameters() if value.requires_grad]
    found = [
        {"params": [value for value in trained if value.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [value for value in trained if value.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in found if group["params"]]


def _asked(stop: Any) -> Callable[[], bool]:
    if stop is None:
        return lambda: False
    if hasattr(stop, "is_set"):
        return lambda: bool(stop.is_set())
    if callable(stop):
        return lambda: bool(stop())
    raise InputError(f"stop={stop!r}: a function that says whether to stop, or a threading.Event, is meant.")


def _device_list(device: torch.device) -> Any:
    return 1 if device.type == "cpu" else [device.index or 0]


def _mixed(seed: int, step: int, rank: int) -> int:
    """One number of three, so that neighbouring steps draw nothing alike."""
    return hash((seed, step, rank)) & 0x7FFF_FFFF_FFFF_FFFF
