"""Ground with squares on it, and a model that finds what is bright."""

from __future__ import annotations

from functools import cache
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
import torch
import xarray as xr
from factories import make_patch
from prediction_kit import CLASSES, HIGH, LOW, band
from scipy import ndimage
from torch import Tensor

from deepsentinel.encoders import load_encoder
from deepsentinel.grids import crs_of, grid_of
from deepsentinel.learn.batches import Batch
from deepsentinel.learn.model import Model, Question

SIDES = (72, 88)
# Row, column, height, width, near infrared: middling or bright.
SQUARES = (
    (3, 4, 6, 9, LOW), (20, 28, 12, 10, HIGH), (44, 60, 8, 14, LOW), (60, 70, 9, 9, HIGH), (58, 10, 4, 5, HIGH),
    (10, 70, 7, 6, HIGH), (30, 55, 9, 12, LOW),
)  # fmt: skip


class Spots(Model):
    """A model that finds what is joined and not dark: of class 1 if middling, of 2 if bright."""

    def __init__(self, task: str = "detection", sensors: str = "s2") -> None:
        question = Question(task, CLASSES, sensors, array="cover_parcel_id")
        super().__init__(load_encoder("fusion-nano", "random"), question, size=8)
        self.story = {"crop_px": 32, "labels": "cover"}
        self.batches: list[tuple[int, ...]] = []

    def forward(self, batch: Batch, sensors: str | None = None) -> Any:
        self.batches.append(tuple(batch.pixels.shape))
        return [self._spots(values.numpy()) for values in band(batch, "B08")]

    def _spots(self, values: np.ndarray) -> dict[str, Tensor]:
        numbers, count = ndimage.label(values >= LOW)
        places = ndimage.find_objects(numbers)
        boxes = [[across.start, down.start, across.stop, down.stop] for down, across in places]
        bright = [float(values[place].max()) for place in places]
        told = {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor([1 + (value >= LOW) + (value >= HIGH) for value in bright], dtype=torch.int64),
            # Large ones are surer.
            "scores": torch.tensor([0.5 + (numbers == n).mean() / 4 for n in range(1, count + 1)], dtype=torch.float32),
        }
        if self.task == "instances":
            told["masks"] = torch.from_numpy(np.stack([numbers == n for n in range(1, count + 1)]).astype("float32")
                                             if count else np.zeros((0, *numbers.shape), "float32"))  # fmt: skip
        return told


@cache
def ground() -> tuple[xr.Dataset, gpd.GeoDataFrame]:
    """Dark ground with squares on it, and where these lie."""
    patch = make_patch(SIDES)
    values = np.full(SIDES, 900, "uint16")
    a = grid_of(patch).affine
    shapes, codes = [], []
    for row, column, height, width, level in SQUARES:
        values[row : row + height, column : column + width] = level
        left, top = a.c + 10 * column, a.f - 10 * row
        shapes.append(shapely.box(left, top - 10 * height, left + 10 * width, top))
        codes.append(CLASSES.codes[1 if level == LOW else 2])
    scl = np.full(SIDES, 4, "uint8")
    patch = patch.assign(B08=(("y", "x"), values), SCL=(("y", "x"), scl))
    return patch, gpd.GeoDataFrame({"ground_truth": codes}, geometry=shapes, crs=crs_of(grid_of(patch)))


def same(found: gpd.GeoDataFrame, truth: gpd.GeoDataFrame) -> None:
    """The same outlines with the same classes, in any order."""
    assert found.crs == truth.crs
    assert keyed(found) == keyed(truth)


def keyed(table: gpd.GeoDataFrame) -> list[tuple[str, int]]:
    return sorted(
        (shape.normalize().wkt, int(code)) for shape, code in zip(table.geometry, table["ground_truth"], strict=True)
    )
