"""Models whose answers can be told from the pixels, by hand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

import deepsentinel as ds
from deepsentinel.encoders import load_encoder
from deepsentinel.encoders.base import Encoder
from deepsentinel.learn.batches import Batch
from deepsentinel.learn.labels import Classes
from deepsentinel.learn.model import Model, Question

CLASSES = Classes(
    "cover_class_map", (10, 60, 200), ("dark", "middling", "bright"), ("#003300", "#999900", "#ffee99"), (0.3, 0.4, 0.3)
)
LOW, HIGH = 1_500, 2_800


class Head(nn.Module):
    """Says of a batch what a function makes of it, whatever the encoder would."""

    def __init__(self, says: Callable[[Batch], Tensor]) -> None:
        super().__init__()
        self.says = says
        self.sides: list[tuple[int, ...]] = []

    def forward(self, encoder: Encoder, batch: Batch, sensors: str) -> Tensor:
        self.sides.append(tuple(batch.pixels.shape))
        return self.says(batch)


def model(
    says: Callable[[Batch], Tensor] | None = None,
    task: str = "segmentation",
    *,
    sensors: str = "s2",
    classes: Classes | None = CLASSES,
    crop_px: int = 32,
    seed: int = 0,
    **options: Any,
) -> Model:
    """A model as drawn from a seed, or one whose answers are those of a function."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        question = Question(task, classes, sensors, **options)
        made = Model(load_encoder("fusion-nano", "random", seed=seed), question, size=16)
    if says is not None:
        made.head = Head(says)
    made.story = {"crop_px": crop_px, "labels": "cover"}
    return made.eval()


def band(batch: Batch, name: str) -> Tensor:
    """One band of a batch (B, H, W)."""
    key = "s1" if name in batch.s1_bands else "s2"
    return getattr(batch, key)[:, getattr(batch, f"{key}_bands").index(name)]  # type: ignore[no-any-return]


def one_hot(numbers: Tensor, count: int = 3) -> Tensor:
    """Numbers of classes -> logits that leave no doubt."""
    return 200.0 * torch.nn.functional.one_hot(numbers, count).movedim(-1, 1).float() - 100.0


def thresholds(batch: Batch) -> Tensor:
    """Three classes by near infrared."""
    values = band(batch, "B08")
    return one_hot((values >= LOW).long() + (values >= HIGH).long())


def by_hand(patch: xr.Dataset, *, clouds: bool = True) -> np.ndarray:
    """What `thresholds` is to say of each pixel."""
    values = patch["B08"].to_numpy()
    codes = np.array(CLASSES.codes)[(values >= LOW).astype(int) + (values >= HIGH)]
    seen = values > 0
    if clouds:
        seen &= ~np.isin(patch["SCL"].to_numpy(), (3, 8, 9, 10))
    return np.where(seen, codes, 0)


def clouded(patch: xr.Dataset) -> xr.Dataset:
    """With a cloud over a part of it."""
    scl = patch["SCL"].copy()
    scl[10:30, 5:40] = 9
    return patch.assign(SCL=scl)


@cache
def source() -> Any:
    return ds.open_source("demo", size_px=256)


@cache
def corpus() -> xr.Dataset:
    from deepsentinel.corpus.recipes import labelled

    recipe = labelled(source(), n=3, size_px=40, start="2018-05-01", end="2018-08-31", samples_per_shard=2)
    folder = Path(tempfile.mkdtemp()) / "corpus.zarr"
    recipe.build(folder, progress=False)
    return ds.open_corpus(folder)
