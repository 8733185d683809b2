"""From what a model says of each cell to the layers of a map: classes, how sure they are, numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from deepsentinel.embedding.model import fingerprint
from deepsentinel.errors import InputError
from deepsentinel.learn.model import Model
from deepsentinel.legend import Legend, LegendClass

Uncertainty = Literal["entropy", "margin"]
UNCERTAINTIES: Mapping[str, str] = {
    "entropy": "entropy of the classes' probabilities, 0 sure to 1 all alike",
    "margin": "1 - (probability of the first class - that of the second)",
}
MAPS = ("class_map", "value", "class_fraction")
"""What a prediction has one of; the other layers tell more about it."""
# What tells a sample, and places its map: with these ds.patch_of gives one of them on its grid.
KEPT = (
    "sample", "id", "lon", "lat", "s1_time", "s2_time", "s1_id", "s2_id", "crs", "transform", "height", "width",
    "source", "seed", "tile", "split",
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One layer of a prediction."""

    name: str
    """The variable it becomes."""
    dtype: str
    """Its type."""
    attrs: Mapping[str, Any]
    """What is said about it."""
    classes: bool = False
    """Whether it has a number for each class."""

    @property
    def nodata(self) -> float:
        """What stands where nothing was seen."""
        return np.nan if self.dtype == "float32" else 0


@dataclass(frozen=True)
class Results:
    """Which layers the answers of a model become, and how."""

    model: Model
    """Who answers."""
    uncertainty: Uncertainty = "entropy"
    """How its doubt is told."""
    probabilities: bool = False
    """Whether all probabilities are kept."""
    layers: tuple[Layer, ...] = field(init=False)
    """What there will be."""

    def __post_init__(self) -> None:
        if self.uncertainty not in UNCERTAINTIES:
            raise InputError(f"uncertainty={self.uncertainty!r}: one of {', '.join(UNCERTAINTIES)} is meant.")
        if self.probabilities and self.model.task == "regression":
            raise InputError("probabilities=True is for classes; this model tells numbers.")
        object.__setattr__(self, "layers", tuple(self._layers()))

    @property
    def codes(self) -> np.ndarray:
        """The value of each class in the map."""
        return np.array(self.model.classes.codes, "int64")

    @property
    def numbers(self) -> int:
        """How many numbers an answer has."""
        return self.model.question.outputs

    @property
    def whole(self) -> bool:
        """Whether answers are about whole windows."""
        return self.model.task in ("classification", "fractions")

    def legend(self) -> Legend:
        """The classes as a legend."""
        return legend_of(self.model)

    def coords(self) -> dict[str, Any]:
        """The classes as coordinates, where a layer has a number for each."""
        if not any(layer.classes for layer in self.layers):
            return {}
        attrs = self.legend().to_attrs() if 0 not in self.model.classes.codes else {}
        return {
            "class": ("class", self.codes.astype("int32"), attrs),
            "class_name": ("class", np.array(self.model.classes.names, dtype=str)),
        }

    def _layers(self) -> list[Layer]:
        placed = {"grid_mapping": "spatial_ref"}
        task = self.model.task
        if task == "regression":
            column = self.model.question.array.removesuffix("_value")
            return [Layer("value", "float32", {"long_name": column, "column": column, **placed})]
        shares = {"long_name": "share of the window", "units": "1", **placed}
        if task == "fractions":
            return [Layer("class_fraction", "float32", shares, classes=True)]
        largest = int(self.codes.max())
        dtype = "uint8" if largest < 2**8 else "uint16" if largest < 2**16 else "uint32"
        told = "most likely class" if task == "segmentation" else "likeliest class of the window"
        found = [
            Layer("class_map", dtype, {"long_name": told, "background": 0, **self.legend().to_attrs(), **placed}),
            Layer("uncertainty", "float32", {"long_name": UNCERTAINTIES[self.uncertainty], "units": "1", **placed}),
        ]
        if self.probabilities or task == "classification":
            found.append(Layer("probability", "float32", {"long_name": "probability", "units": "1", **placed}, True))
        return found

    def of(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """(..., K) what is said of each cell -> its layers; those with a number for each class have it last."""
        if self.model.task == "regression":
            return {"value": values[..., 0]}
        if self.model.task == "fractions":
            return {"class_fraction": values}
        known = np.isfinite(values).all(axis=-1)
        filled = np.where(known[..., None], values, 0.0)
        first = filled.argmax(axis=-1)
        dtype = next(layer.dtype for layer in self.layers if layer.name == "class_map")
        doubt = _of_each(filled) if self.model.task == "classification" else _doubt(filled, self.uncertainty)
        found = {
            "class_map": np.where(known, self.codes[first], 0).astype(dtype),
            "uncertainty": np.where(known, doubt, np.nan).astype("float32"),
        }
        return found | {"probability": values} if any(layer.classes for layer in self.layers) else found

    def told(self) -> dict[str, Any]:
        """What a map says of the model that drew it."""
        return model_told(self.model) | ({"uncertainty": self.uncertainty} if len(self.layers) > 1 else {})


def legend_of(model: Model) -> Legend:
    """The classes of a model as a legend; what no label claims is 0 in every mask, and has no entry."""
    classes = model.classes
    rows = zip(classes.codes, classes.names, classes.colors, strict=True)
    kept = tuple(LegendClass(int(code), name, color) for code, name, color in rows if code != 0)
    return Legend(classes.array.removesuffix("_class_map"), kept)


def model_told(model: Model) -> dict[str, Any]:
    """What is said of a model wherever it drew something."""
    question = model.question
    # Whatever it started from, it has learnt since.
    name = model.encoder.spec.name.removesuffix("-random")
    array = question.arrays[0].removesuffix("_class_map").removesuffix("_value")
    return {
        "title": f"{question.task} by {name}",
        "task": question.task,
        "labels": str(model.story.get("labels", "")) or array,
        "encoder": name,
        "weights": fingerprint(model),
    }


def _doubt(values: np.ndarray, how: Uncertainty) -> np.ndarray:
    """How undecided probabilities that sum to 1 are, from 0 to 1.

    >>> _doubt(np.array([[1.0, 0.0], [0.5, 0.5]]), "entropy").tolist()
    [0.0, 1.0]
    """
    count = values.shape[-1]
    if count < 2:
        return np.zeros(values.shape[:-1], "float32")
    if how == "margin":
        best = np.partition(values, count - 2, axis=-1)
        return np.asarray(np.clip(1 - (best[..., -1] - best[..., -2]), 0, 1))
    return np.asarray(np.clip(_information(values).sum(axis=-1) / np.log(count), 0, 1))


def _of_each(values: np.ndarray) -> np.ndarray:
    """How undecided it is of each class by itself whether it is there, on the average."""
    return np.asarray((_information(values) + _information(1 - values)).mean(axis=-1) / np.log(2))


def _information(values: np.ndarray) -> np.ndarray:
    safe = np.where(values > 0, values, 1.0)
    return np.asarray(-safe * np.log(safe))
