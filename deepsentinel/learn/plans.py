"""How a run of training is planned, and what is told of it on the way and afterwards."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import pandas as pd

from deepsentinel.errors import InputError

PRECISIONS = {"auto": None, "32": "32-true", "bf16": "bf16-mixed"}


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
    logs: str | os.PathLike[str] | None = None
    """A folder for TensorBoard, which shows losses, rate and speed as they come; None: no logs."""

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "log_every", "checkpoint_every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name}={value!r}: a whole number from 1 is meant.")
        for name in ("lr", "weight_decay", "warmup", "clip", "average"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"{name}={value!r}: a number is meant, such as {name}={PLAIN[name]:g}.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise InputError(f"seed={self.seed!r}: a whole number is meant.")
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


# Each number as it is where nobody says anything.
PLAIN = {each.name: each.default for each in fields(Plan) if isinstance(each.default, float)}


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
    model: Any = field(default=None, repr=False, compare=False)
    """What is trained, as it is now: to be looked at, not to be changed."""

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


# What a processor does in a few minutes.
STEPS_WITHOUT_GPU = 120


def suggested_steps(wanted: int, device: Any = "auto") -> tuple[int, str]:
    """How many steps of those that are wanted make sense on a device, and why, in words; nothing where it is all.

    >>> suggested_steps(600, "cpu")
    (120, 'On a processor: 120 steps instead of 600, for a first idea in minutes.')
    >>> suggested_steps(60, "cpu")
    (60, '')
    """
    from deepsentinel.embedding.model import pick_device

    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise InputError(f"wanted={wanted!r}: how many steps, a whole number from 1, is meant.")
    if pick_device(device).type != "cpu" or wanted <= STEPS_WITHOUT_GPU:
        return wanted, ""
    where = "No GPU here" if str(device) == "auto" else "On a processor"
    return STEPS_WITHOUT_GPU, (
        f"{where}: {STEPS_WITHOUT_GPU} steps instead of {wanted:,}, for a first idea in minutes."
    )
