"""The one training loop: flat, on Lightning Fabric, and exactly where it was after it was killed.

A step is a function of its number: the batch, and all that is drawn on the way, come of the seed and the step. So a run
that goes on from a checkpoint has the losses of one that was never broken. Under `torchrun` the same loop runs in
several processes, each with its part of the batch, on a GPU of its own where there are some.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from deepsentinel.errors import TrainingError
from deepsentinel.progress import asked, progress

from .batches import Batch
from .checkpoints import CHECKPOINT, HISTORY, Folder
from .logs import Logs
from .plans import PRECISIONS, History, Plan, Step


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


def fit(
    model: nn.Module,
    batches: Batches,
    plan: Plan,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    story: str = "",
    result: str = "",
    groups: Iterable[Mapping[str, Any]] | None = None,
    on_step: Callable[[Step], object] | None = None,
    stop: Any = None,
    shown: str = "",
) -> History:
    """Train a model in place.

    out: a folder for the checkpoint and the history; a run found there goes on, unless resume=False. story: what makes
    a run this one; the checkpoint of another is refused. result: the file that the caller writes into the folder at
    the end; one of an earlier run goes when resume=False. groups: parameter groups with their own `lr`; None: all, at
    the plan's. on_step: called with a `Step` at every look. stop: a function, or an Event, that ends the run early;
    what was learnt until then stays, and is written. Of several processes the first one alone calls on_step, any may
    stop all of them, and that they ask each other at looks. shown: what a bar says that counts the steps; "": no bar.
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
    run = _Run(model, plan, fabric, groups, None if out is None else Folder(Path(out).expanduser(), story, result))
    # oneDNN keeps what it prepares for every new shape, gigabytes of it where each step has shapes of its own.
    steady = not getattr(model, "shapes_vary", False)
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        _onednn(steady),
    ):
        if resume:
            run.resume()
        elif run.folder is not None and not fabric.global_rank:
            run.folder.clear()
        run.train(batches, on_step, asked(stop), shown)
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
        folder: Folder | None,
    ) -> None:
        self.model, self.plan, self.fabric, self.folder = model, plan, fabric, folder
        chosen = parameter_groups(model, plan) if groups is None else [dict(group) for group in groups]
        self.highest = [float(group.get("lr", plan.lr)) for group in chosen]
        cuda = fabric.device.type == "cuda"
        optimizer = torch.optim.AdamW(chosen, lr=plan.lr, weight_decay=plan.weight_decay, betas=(0.9, 0.95), fused=cuda)
        self.wrapped, self.optimizer = fabric.setup(model, optimizer)
        self.wrapped.mark_forward_method("loss")
        self.loss: Any = torch.compile(self.wrapped.loss) if plan.compile else self.wrapped.loss
        self.done = 0
        self.history, self.parts = History(), _Parts()
        # Whether the last row of the history is of a stop between two looks, which an unbroken run has not.
        self.between = False
        self.average = {name: value.detach().clone() for name, value in _averaged(model)} if plan.average else None
        self.logs: Logs | None = None

    def train(
        self, batches: Batches, on_step: Callable[[Step], object] | None, asked: Callable[[], bool], shown: str = ""
    ) -> None:
        plan = self.plan
        self.model.train()
        if self.done < plan.steps:
            self._begin(batches)
        began, samples = time.perf_counter(), 0
        feed = batches.run(self.done * plan.accumulate, plan.steps * plan.accumulate)
        if shown and self.done < plan.steps and not self.fabric.global_rank:
            left, unit = (plan.steps - self.done) * plan.accumulate, "step" if plan.accumulate == 1 else "batch"
            feed = progress(feed, total=left, what=shown, unit=unit)
        while self.done < plan.steps:
            share = plan.rate(self.done)
            for group, highest in zip(self.optimizer.param_groups, self.highest, strict=True):
                group["lr"] = highest * share
            torch.manual_seed(_mixed(plan.seed, self.done, self.fabric.global_rank))
            for part in range(plan.accumulate):
                batch = next(feed)
                samples += len(batch)
                with self.fabric.no_backward_sync(self.wrapped, enabled=part + 1 < plan.accumulate):
                    # Alone, Fabric sees to the precision of `forward` only, not of other methods.
                    with self.fabric.autocast():
                        losses = self.loss(batch)
                    self.fabric.backward(sum(losses.values()) / plan.accumulate)
                self.parts.add(losses)
            self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=plan.clip, error_if_nonfinite=False)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.done += 1
            self._follow()
            last = self.done == plan.steps
            halt = not last and self.alone and asked()
            due = self.done % plan.log_every == 0 or last or self.done == 1
            if due or halt:
                seconds = max(1e-9, time.perf_counter() - began)
                step = self._look(share, samples * self.fabric.world_size / seconds, between=not due)
                if on_step is not None and not self.fabric.global_rank:
                    on_step(step)
                began, samples = time.perf_counter(), 0
                halt = not last and (halt or self._any(asked()))
            if last or halt or self.done % plan.checkpoint_every == 0:
                if self.parts.count:
                    self._means()
                self.save()
            if halt:
                self.history.stopped = True
                break
        if isinstance(feed, Generator):
            feed.close()
        if self.average is not None and self.done:
            with torch.no_grad():
                for name, value in _averaged(self.model):
                    value.copy_(self.average[name])
        if self.logs is not None:
            self.logs.close()
        self.model.eval()

    def _begin(self, batches: Batches) -> None:
        """What can go wrong before the work had better not go wrong after it."""
        if self.plan.logs is not None and not self.fabric.global_rank:
            self.logs = Logs(self.plan.logs, self.done)
        if not self.done:
            self.save()
        before = getattr(self.model, "before_steps", None)
        if before is not None:
            before(batches, self.plan.steps)

    @property
    def alone(self) -> bool:
        """Whether no other process trains this model."""
        return int(self.fabric.world_size) == 1

    def _any(self, here: bool) -> bool:
        """Whether any of the processes says so."""
        return here if self.alone else bool(self.fabric.all_reduce(torch.tensor(float(here)), reduce_op="sum") > 0)

    def _follow(self) -> None:
        after = getattr(self.model, "after_step", None)
        if after is not None:
            after(self.done, self.plan.steps)
        if self.average is not None:
            # Early on the average is of what there is, not of how it began.
            keep = min(self.plan.average, self.done / (self.done + 10))
            with torch.no_grad():
                for name, value in _averaged(self.model):
                    self.average[name].lerp_(value, 1 - keep)

    def _means(self) -> dict[str, float]:
        """The means of the losses since the last look; a loss that is no number ends the run here."""
        means = self.parts.means(self.fabric)
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            raise self._broken("The loss is no longer a number (NaN or infinite)", f": {', '.join(broken)}")
        return means

    def _look(self, share: float, speed: float, *, between: bool) -> Step:
        """A row of the history; between two looks it is for whoever stops, and the next look is as if it were not."""
        means = self._means()
        row = {"step": self.done, **means, "lr": self.plan.lr * share, "samples_per_s": speed}
        self.history.rows.append(row)
        self.between = between
        if not between:
            self.parts.clear()
            if self.logs is not None:
                self.logs.add(row)
        return Step(self.done, self.plan.steps, means, self.plan.lr * share, speed, self.model)

    def _broken(self, what: str, where: str = "") -> TrainingError:
        kept = "Nothing was written, as out= names no folder. " if self.folder is None else self.folder.kept()
        return TrainingError(
            f"{what} at step {self.done} of {self.plan.steps}{where}. {kept}Try a lower lr than {self.plan.lr:g}, and "
            "look at the pixels for values that are out of all proportion (ds.describe(corpus))."
        )

    def resume(self) -> None:
        """Go on from the folder's checkpoint, if there is one."""
        held = None if self.folder is None else self.folder.read(self.fabric.device)
        if held is None:
            return
        assert self.folder is not None
        if (self.average is None) != (held["average"] is None):
            raise self.folder.another("Its weights were averaged, or are to be, and not both")
        try:
            self.model.load_state_dict(held["model"])
            self.optimizer.load_state_dict(held["optimizer"])
        except (RuntimeError, ValueError) as error:  # other names, shapes or groups
            raise self.folder.another("Its weights are not those of this model") from error
        self.average, self.parts = held["average"], _Parts(*held["parts"])
        self.done, self.history.rows = held["done"], held["rows"]

    def save(self) -> None:
        """Write the checkpoint and the history, each whole or not at all."""
        if self.folder is None:
            return
        # A loss may be a number where its slope is none; all processes have the same weights.
        if not all(bool(value.isfinite().all()) for value in self.model.parameters()):
            raise self._broken("Weights are no longer numbers (NaN or infinite)")
        sums = self.parts.shared(self.fabric)
        if not self.fabric.global_rank:
            rows = self.history.rows
            held = {
                "done": self.done,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average,
                "parts": [sums, self.parts.count],
                "rows": rows[:-1] if self.between else rows,
            }
            self.folder.write(held, self.history.table())
        # No process reads what another has not written yet.
        self.fabric.barrier()


class _Parts:
    """Sums of the parts of the loss, on the device, so that nobody waits for it at every step."""

    def __init__(self, sums: Mapping[str, Tensor] | None = None, count: int = 0) -> None:
        self.sums: dict[str, Tensor] = dict(sums or {})
        self.count = count

    def add(self, losses: Mapping[str, Tensor]) -> None:
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach()
        self.count += 1

    def shared(self, fabric: Any) -> dict[str, Tensor]:
        """The sums, as the mean of all processes has them."""
        if fabric.world_size == 1 or not self.sums:
            return dict(self.sums)
        found = fabric.all_reduce(torch.stack([value.float() for value in self.sums.values()]), reduce_op="mean")
        return dict(zip(self.sums, found.unbind(), strict=True))

    def means(self, fabric: Any) -> dict[str, float]:
        """The means since they were last emptied, over all processes."""
        found = torch.stack([value.float() for value in self.shared(fabric).values()]) / max(1, self.count)
        means = dict(zip(self.sums, found.tolist(), strict=True))
        return {"loss": sum(means.values()), **means}

    def clear(self) -> None:
        """Begin anew."""
        self.sums, self.count = {}, 0


def _averaged(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What is averaged over steps: the weights, and what norms keep of what they saw, which goes with the weights."""
    yield from model.named_parameters()
    yield from ((name, value) for name, value in model.named_buffers() if value.is_floating_point())


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


def _device_list(device: torch.device) -> Any:
    return 1 if device.type == "cpu" else [device.index or 0]


def _mixed(seed: int, step: int, rank: int) -> int:
    """One number of three, so that neighbouring steps draw nothing alike."""
    return hash((seed, step, rank)) & 0x7FFF_FFFF_FFFF_FFFF


__all__ = ["CHECKPOINT", "HISTORY", "History", "Plan", "Step", "fit", "parameter_groups"]
