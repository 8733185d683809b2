"""A corpus of objects written by hand, whose boxes are known, and models that find what they are told to."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

import deepsentinel as ds
from deepsentinel.corpus.layout import ArraySpec, Layout, create_store
from deepsentinel.encoders import load_encoder
from deepsentinel.learn.batches import Batch
from deepsentinel.learn.detection import object_arrays
from deepsentinel.learn.model import Model, Question

sys.path.insert(0, str(Path(__file__).parents[1] / "corpus"))
from store_kit import ATTRS, COORDS, S1, S2, SCL, SIZE, table, write_shards

SAMPLES = 20
CODES, NAMES = (10, 20), ("barn", "field")
BARN, FIELD = 0, 1
DIMS, SIDES = ("sample", "y", "x"), (SIZE, SIZE)
MAP = ArraySpec("o_class_map", "uint8", DIMS, SIDES, 0, {"flag_values": list(CODES), "flag_meanings": "barn field"})
CONFLICT = ArraySpec("o_conflict", "uint8", DIMS, SIDES, 0)
NUMBERS = ArraySpec("o_parcel_id", "int32", DIMS, SIDES, 0)
# Of each sample: class, and left, top, right, bottom. Barns are in the left half, fields in the right one.
Thing = tuple[int, tuple[int, int, int, int]]
FAR = (12, 12, 16, 16)
"""Where no object ever is."""


@cache
def things() -> tuple[tuple[Thing, ...], ...]:
    """What is in each sample; in every fifth nothing."""
    rng = np.random.default_rng(3)
    found = []
    for at in range(SAMPLES):
        here: list[Thing] = []
        for kind, left in ((BARN, 1), (FIELD, 7)):
            if at % 5 != 4 and (kind == BARN or at % 2):
                width, height = (int(side) for side in rng.integers(3, 6, 2))
                top = int(rng.integers(1, 11 - height))
                here.append((kind, (left, top, left + width, top + height)))
        found.append(tuple(here))
    return tuple(found)


def clouded() -> np.ndarray:
    """Which samples are mostly under cloud."""
    return np.arange(SAMPLES) >= 12


@cache
def objects() -> xr.Dataset:
    """The corpus: samples 3 km apart, objects brighter than the ground."""
    rng = np.random.default_rng(7)
    classes, numbers = (np.zeros((SAMPLES, *SIDES), "int32") for _ in range(2))
    for at, here in enumerate(things()):
        for number, (kind, (left, top, right, bottom)) in enumerate(here, start=1):
            classes[at, top:bottom, left:right] = CODES[kind]
            numbers[at, top:bottom, left:right] = number
    level = 800 + 100 * classes
    data = {
        "s2": (level[:, None] + rng.integers(-200, 200, (SAMPLES, *S2.shape))).astype("uint16"),
        "s1": (-1000 - level[:, None] // 5 + rng.integers(-100, 100, (SAMPLES, *S1.shape))).astype("int16"),
        "scl": np.where(clouded()[:, None, None], 9, 4).astype("uint8") * np.ones(SIDES, "uint8"),
        "o_class_map": classes.astype("uint8"),
        "o_conflict": np.zeros((SAMPLES, *SIDES), "uint8"),
        "o_parcel_id": numbers,
    }
    folder = Path(tempfile.mkdtemp()) / "objects.zarr"
    layout = Layout(SAMPLES, 4, (S2, S1, SCL, MAP, CONFLICT, NUMBERS), COORDS, {**ATTRS, "plan": "objects"})
    create_store(folder, layout)
    write_shards(folder, layout, data)
    table(SAMPLES).to_parquet(folder / "samples.parquet")
    return ds.open_corpus(folder)


Finds = Callable[[int, str | None], list[tuple[int, tuple[float, float, float, float], float]]]
"""Of a sample, with the sensors it is shown: class, box and score of each."""


class Knows(Model):
    """A model that does not look: it finds what it is told to find in each sample, by its number."""

    def __init__(self, task: str, finds: Finds, encoder: str = "fusion-nano", sensors: str = "both") -> None:
        classes, numbers = object_arrays([objects()], "o")
        asked = Question(task, classes, sensors, array=numbers, least_px=2)
        super().__init__(load_encoder(encoder, "random"), asked, size=8)
        self.finds = finds
        self.sides: set[tuple[int, ...]] = set()

    def forward(self, batch: Batch, sensors: str | None = None) -> Any:
        self.sides.add(tuple(batch.pixels.shape[-2:]))
        return [self._told(self.finds(int(at), sensors), batch.pixels.shape[-2:]) for at in batch.sample]

    def _told(self, found: list[Any], sides: Any) -> dict[str, Tensor]:
        boxes = torch.tensor([box for _, box, _ in found], dtype=torch.float32).reshape(-1, 4)
        told = {
            "boxes": boxes,
            "labels": torch.tensor([kind + 1 for kind, _, _ in found], dtype=torch.int64),
            "scores": torch.tensor([score for _, _, score in found], dtype=torch.float32),
        }
        if self.task == "instances":
            masks = torch.zeros(len(found), *sides)
            for mask, (left, top, right, bottom) in zip(masks, boxes.round().long().tolist(), strict=True):
                mask[top:bottom, left:right] = 0.9
            told["masks"] = masks
        return told


def all_of_it(at: int, sensors: str | None) -> list[Any]:
    """What is there, and surely."""
    return [(kind, box, 0.9) for kind, box in things()[at]]
