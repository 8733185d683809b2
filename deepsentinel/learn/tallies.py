"""Sums kept apart by groups: one pass over a test set tells a score overall, by cloud, and block by block of ground.

Almost every score is a function of sums: IoU of a confusion matrix, RMSE of squared errors, calibration of a histogram.
A tally holds those sums once for each combination of groups that occurs, so its size does not grow with the pixels, and
any score can later be had of any part of them, or of blocks drawn at random (see `intervals`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from deepsentinel.errors import InputError

Groups = Mapping[str, Any]
# Shares of cloud are told in steps; below the first, an optical image is as good as clear.
CLOUD_EDGES = (0, 10, 30, 60, 100)


def as_array(values: Any) -> np.ndarray:
    """Numbers as numpy has them, also from a tensor on another device or in bfloat16.

    >>> as_array([1, 2]).tolist()
    [1, 2]
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) in ("torch.bfloat16", "torch.float16") else values
    return np.asarray(values)


def cloud_steps(percent: Any) -> np.ndarray:
    """The step of cloud cover that each percentage is in, as a name; "unknown" for NaN.

    >>> cloud_steps([0, 10, 100, np.nan]).tolist()
    ['0-10 %', '10-30 %', '60-100 %', 'unknown']
    """
    values = as_array(percent).astype("float64")
    if ((values < 0) | (values > 100)).any():
        raise InputError(f"Cloud cover is in percent; this goes from {np.nanmin(values):g} to {np.nanmax(values):g}.")
    names = [f"{low}-{high} %" for low, high in pairwise(CLOUD_EDGES)] + ["unknown"]
    step = np.clip(np.searchsorted(CLOUD_EDGES, values, side="right") - 1, 0, len(names) - 2)
    return np.array(names)[np.where(np.isnan(values), len(names) - 1, step)]


def group_cells(groups: Groups | None, shape: tuple[int, ...]) -> tuple[list[tuple], np.ndarray]:
    """The combinations of groups that occur, and which of them each element of an array of this shape is in.

    A group is told by one value for everything, one a sample (along the first axis), or one an element.

    >>> keys, cell = group_cells({"block": [7, 3], "cloud": "none"}, (2, 1, 2))
    >>> keys, cell.tolist()
    ([(3, 'none'), (7, 'none')], [[[1, 1]], [[0, 0]]])
    """
    levels: list[list[Hashable]] = []
    code = np.zeros((1,) * len(shape), "int64")
    for name, given in (groups or {}).items():
        values = as_array(given)
        if values.shape == shape[:1] and len(shape) > 1:
            values = values.reshape(-1, *[1] * (len(shape) - 1))
        elif values.shape not in ((), shape):
            raise InputError(
                f"The groups {name!r} have the shape {values.shape}, and what is scored has {shape}: give one value for"
                " all, one a sample, or one an element."
            )
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise InputError(f"The groups {name!r} hold NaN; give what is not known a name or a number of its own.")
        level, number = np.unique(values, return_inverse=True)
        levels.append(level.tolist())
        code = code * len(level) + number.reshape(values.shape)
    found, cell = np.unique(code, return_inverse=True)
    cell = np.broadcast_to(cell.reshape(code.shape), shape)
    if not levels:
        return [()], cell
    at = np.unravel_index(found, [len(level) for level in levels])
    return [tuple(level[i] for level, i in zip(levels, row, strict=True)) for row in zip(*at, strict=True)], cell


class Tally:
    """Sums of one shape, one for each combination of groups.

    >>> tally = Tally((2,))
    >>> tally.add(["block", "cloud"], [(1, "none"), (2, "none")], np.array([[1, 0], [3, 1]]))
    >>> tally.total(block=2).tolist(), tally.by("cloud")[1].tolist()
    ([3, 1], [[4, 1]])
    """

    def __init__(self, shape: tuple[int, ...], dtype: str = "int64") -> None:
        self.shape, self.dtype = shape, dtype
        self.groups: tuple[str, ...] | None = None
        self.cells: dict[tuple, np.ndarray] = {}

    def add(self, names: Any, keys: list[tuple], sums: np.ndarray) -> None:
        """Add sums, one for each key; the groups have to be the same in every call."""
        given = tuple(names)
        if self.groups is not None and given != self.groups:
            raise InputError(f"Groups have to stay the same: first {list(self.groups)}, now {list(given)}.")
        self.groups = given
        for key, part in zip(keys, sums, strict=True):
            if key in self.cells:
                self.cells[key] += part
            else:
                self.cells[key] = np.array(part, self.dtype)

    def _chosen(self, where: Mapping[str, Any]) -> dict[tuple, np.ndarray]:
        at = {self._place(name): value for name, value in where.items()}
        return {key: cell for key, cell in self.cells.items() if all(key[i] == value for i, value in at.items())}

    def _place(self, name: str) -> int:
        if name not in (self.groups or ()):
            raise InputError(f"Nothing was grouped by {name!r}; there is {', '.join(self.groups or ()) or 'no group'}.")
        return (self.groups or ()).index(name)

    def total(self, **where: Any) -> np.ndarray:
        """The sums over everything, or over what is in these groups: `total(cloud="none")`."""
        return sum(self._chosen(where).values(), np.zeros(self.shape, self.dtype))

    def by(self, name: str, **where: Any) -> tuple[list[Hashable], np.ndarray]:
        """The values of a group in order, and the sums for each."""
        place = self._place(name)
        sums: dict[Hashable, np.ndarray] = {}
        for key, cell in self._chosen(where).items():
            sums[key[place]] = sums.get(key[place], 0) + cell
        order = sorted(sums, key=lambda value: (str(type(value)), value))
        return order, np.array([sums[key] for key in order], self.dtype).reshape(-1, *self.shape)


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """The mean along the last axis of what is not NaN; NaN where nothing is.

    >>> mean_of_known(np.array([[1.0, np.nan, 2.0], [np.nan] * 3])).tolist()
    [1.5, nan]
    """
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0).sum(-1), known.sum(-1))


def ratio(part: Any, whole: Any) -> np.ndarray:
    """One through the other; NaN where that is nothing through nothing.

    >>> ratio(np.array([1, 0]), np.array([2, 0])).tolist()
    [0.5, nan]
    """
    part, whole = np.asarray(part, "float64"), np.asarray(whole, "float64")
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole != 0, part / whole, np.nan)


def same_shape(found: np.ndarray, truth: np.ndarray) -> None:
    """Raise where what was found and what is true cannot be laid on each other.

    >>> same_shape(np.zeros(3), np.ones(3))
    """
    if found.shape != truth.shape:
        raise InputError(f"What was found has the shape {found.shape}, and the truth {truth.shape}.")


def scored(truth: np.ndarray, count: int, ignore: int | None) -> np.ndarray:
    """Where a truth of classes from 0 is to be scored; raises where it holds what is no class.

    >>> scored(np.array([0, 1, 255]), 2, ignore=255).tolist()
    [True, True, False]
    """
    if truth.dtype.kind not in "iub":
        raise InputError(f"Classes are whole numbers, and the truth is {truth.dtype}.")
    known = np.ones(truth.shape, bool) if ignore is None else truth != ignore
    if ((truth < 0) | (truth >= count))[known].any():
        strange = np.unique(truth[known & ((truth < 0) | (truth >= count))])[:5].tolist()
        raise InputError(
            f"The truth holds {strange}, and there are {count} classes, from 0"
            f" ({'nothing' if ignore is None else ignore} is ignored). Give ignore= for what is not to be scored."
        )
    return known


def check_probability(probability: np.ndarray) -> None:
    """Raise where these are no probabilities.

    >>> check_probability(np.array([0.0, 1.0]))
    """
    # Written so that NaN fails too.
    if probability.size and not (probability.min() >= -1e-6 and probability.max() <= 1 + 1e-6):
        raise InputError(
            f"Probabilities go from {probability.min():.3g} to {probability.max():.3g}. Outputs of a model have to go"
            " through a softmax or a sigmoid first, and must be finite."
        )
