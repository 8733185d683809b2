"""A corpus written by hand whose truth is known to the pixel, and models that always say the same or the truth."""

from __future__ import annotations

import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

import deepsentinel as ds
from deepsentinel.corpus.layout import ArraySpec, Layout, create_store
from deepsentinel.encoders import load_encoder
from deepsentinel.learn.batches import Batch
from deepsentinel.learn.labels import Classes, classes_of
from deepsentinel.learn.model import Model, Question
from deepsentinel.learn.tasks import IGNORE

sys.path.insert(0, str(Path(__file__).parents[1] / "corpus"))
from store_kit import ATTRS, COORDS, S1, S2, SCL, SIZE, table, write_shards

SAMPLES = 26
CODES = (10, 20, 30, 40)
NAMES = "field wood town lake"
MAP = ArraySpec(
    "m_class_map", "uint8", ("sample", "y", "x"), (SIZE, SIZE), 0,
    {"flag_values": list(CODES), "flag_meanings": NAMES},
)  # fmt: skip
CONFLICT = ArraySpec("m_conflict", "uint8", ("sample", "y", "x"), (SIZE, SIZE), 0)
DISTANCE = ArraySpec("m_distance", "float32", ("sample", "y", "x"), (SIZE, SIZE), float("nan"))


@cache
def made() -> tuple[xr.Dataset, dict[str, np.ndarray]]:
    """Samples 3 km apart, and what is in them; the lake is in one sample only, and what is contested is all wrong."""
    rng = np.random.default_rng(7)
    shape = (SAMPLES, SIZE, SIZE)
    classes = np.repeat(np.repeat(rng.choice((0, 10, 20, 30), (SAMPLES, 4, 4), p=(0.1, 0.5, 0.3, 0.1)), 4, 1), 4, 2)
    classes[3, :4, :4] = 40
    conflict = (rng.random(shape) < 0.1).astype("uint8") * 2
    conflict[rng.random(shape) < 0.1] = 1
    level = np.array([1500, 800, 2500, 3500, 400])[classes // 10]
    data = {
        "s2": (level[:, None] + rng.integers(-200, 200, (SAMPLES, *S2.shape))).astype("uint16"),
        "s1": (-1000 - level[:, None] // 5 + rng.integers(-100, 100, (SAMPLES, *S1.shape))).astype("int16"),
        "scl": np.where(rng.random(shape) < np.linspace(0, 0.9, SAMPLES)[:, None, None], 9, 4).astype("uint8"),
        "m_class_map": classes.astype("uint8"),
        "m_conflict": conflict,
        "m_distance": np.where(classes == 0, np.nan, level / 100 + rng.normal(0, 1, shape)).astype("float32"),
    }
    folder = Path(tempfile.mkdtemp()) / "hand.zarr"
    layout = Layout(SAMPLES, 4, (S2, S1, SCL, MAP, CONFLICT, DISTANCE), COORDS, {**ATTRS, "plan": "by hand"})
    create_store(folder, layout)
    write_shards(folder, layout, data)
    table(SAMPLES).to_parquet(folder / "samples.parquet")
    return ds.open_corpus(folder), data


def known(data: dict[str, np.ndarray]) -> np.ndarray:
    """Numbers of the classes, as nobody but this file reckons them; IGNORE where nothing is to be told."""
    number = np.full(data["m_class_map"].shape, IGNORE)
    for at, code in enumerate(CODES):
        number[(data["m_class_map"] == code) & (data["m_conflict"] < 2)] = at
    return number


def question(task: str = "segmentation", sensors: str = "both", **options: Any) -> Question:
    if task == "regression":
        return Question(task, None, sensors, array="m_distance", scale=(16.0, 9.0), **options)
    return Question(task, classes_of(made()[0], "m"), sensors, **options)


class Says(Model):
    """A model that does not look: it says what `answer(batch)` gives, of pixels that are added something else."""

    def __init__(self, asked: Question, answer: Any) -> None:
        super().__init__(load_encoder("fusion-nano", "random"), asked, size=8)
        self.answer = answer
        self.seen: list[str | None] = []

    def _check_size(self, targets: Tensor, batch: Batch) -> None:
        """The truth is asked for of padded pixels too, whose labels stay as they are."""

    def forward(self, batch: Batch, sensors: str | None = None) -> Tensor:
        self.seen.append(sensors)
        said = self.answer(self, batch)
        if said.ndim < 4:
            return said
        height, width = batch.pixels.shape[-2:]
        return F.pad(said, (0, width - said.shape[-1], 0, height - said.shape[-2]), value=77.0)


def the_truth(model: Model, batch: Batch) -> Tensor:
    """What is right, very surely; of what is not to be told the last class."""
    truth = model.truth(batch)
    if model.task == "segmentation":
        last = len(model.classes) - 1
        return 30.0 * F.one_hot(truth.clamp(max=last), last + 1).movedim(-1, 1).float()
    if model.task == "classification":
        return torch.where(truth > 0.5, 30.0, -30.0)
    if model.task == "fractions":
        return truth.nan_to_num(0.5).clamp(min=1e-9).log()
    mean, spread = model.question.scale
    return ((truth - mean) / spread).nan_to_num(0.0).unsqueeze(1)


def always(*logits: float) -> Any:
    """The same everywhere."""

    def say(model: Model, batch: Batch) -> Tensor:
        values = torch.tensor(logits).view(1, -1)
        if model.task in ("segmentation", "regression"):
            values = values[..., None, None].expand(-1, -1, *batch.labels[model.question.arrays[0]].shape[-2:])
        return values.expand(len(batch), *values.shape[1:])

    return say


def only(classes: Classes, *codes: int) -> Classes:
    """Some of the classes."""
    from dataclasses import replace

    at = [classes.codes.index(code) for code in codes]
    parts = {name: tuple(getattr(classes, name)[i] for i in at) for name in ("codes", "names", "colors", "shares")}
    return replace(classes, **parts)
