"""Scores of classes, labels and numbers, each reckoned from sums that one pass over a test set leaves.

A class that does not occur in the truth has no score: it is NaN, and left out of means, and how many were left out can
be asked for. Tables may have leading axes (blocks of ground, draws of a bootstrap); scores then have them too. Where
something is scored class by class, the classes lie along axis 1, as models give them: (samples, classes, ...).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from deepsentinel.errors import InputError

from .tallies import Groups, Tally, as_array, check_probability, group_cells, mean_of_known, ratio, same_shape, scored

# -- confusion matrices ------------------------------------------------------------------------------------------------


class Confusion(Tally):
    """How often each class (rows) was taken for which (columns).

    >>> table = Confusion(2, ignore=255)
    >>> table.update([[0, 1, 1]], [[0, 0, 255]], {"block": [4]})
    >>> table.total().tolist(), float(accuracy(table.total()))
    ([[1, 1], [0, 0]], 0.5)
    """

    def __init__(self, classes: int, *, ignore: int | None = None) -> None:
        super().__init__((classes, classes))
        self.ignore = ignore

    def update(self, found: Any, truth: Any, groups: Groups | None = None) -> None:
        """Count classes found, or the likeliest of scores with the classes along axis 1, against the truth."""
        found, truth = as_array(found), as_array(truth)
        if found.ndim == truth.ndim + 1:
            found = found.argmax(1)
        same_shape(found, truth)
        keys, cell = group_cells(groups, truth.shape)
        known, count = scored(truth, self.shape[0], self.ignore), self.shape[0]
        found, truth = found[known].astype("int64"), truth[known].astype("int64")
        if found.size and (found.min() < 0 or found.max() >= count):
            raise InputError(f"Classes found go from {found.min()} to {found.max()}, and there are {count}, from 0.")
        code = (cell[known] * count + truth) * count + found
        sums = np.bincount(code, minlength=len(keys) * count * count).reshape(-1, count, count)
        self.add(groups or (), keys, sums)


def _margins(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.asarray(table, "float64")
    support = table.sum(-1)
    hits = np.where(support > 0, np.diagonal(table, axis1=-2, axis2=-1), np.nan)
    return hits, support, table.sum(-2)


def iou(table: np.ndarray) -> np.ndarray:
    """Intersection over union of each class.

    >>> iou(np.array([[1, 1], [0, 2]])).round(3).tolist()
    [0.5, 0.667]
    """
    hits, support, claimed = _margins(table)
    return ratio(hits, support + claimed - hits)


def f1(table: np.ndarray) -> np.ndarray:
    """F1 of each class.

    >>> f1(np.array([[1, 1], [0, 2]])).round(3).tolist()
    [0.667, 0.8]
    """
    hits, support, claimed = _margins(table)
    return ratio(2 * hits, support + claimed)


def recall(table: np.ndarray) -> np.ndarray:
    """The share of each class that was found.

    >>> recall(np.array([[1, 1], [0, 2]])).tolist()
    [0.5, 1.0]
    """
    hits, support, _ = _margins(table)
    return ratio(hits, support)


def precision(table: np.ndarray) -> np.ndarray:
    """The share of what was taken for a class that is of it.

    >>> precision(np.array([[1, 1], [0, 2]])).round(3).tolist()
    [1.0, 0.667]
    """
    hits, _, claimed = _margins(table)
    return ratio(hits, claimed)


def accuracy(table: np.ndarray) -> np.ndarray:
    """The share that was found, large classes counting most.

    >>> float(accuracy(np.array([[1, 1], [0, 2]])))
    0.75
    """
    return ratio(np.trace(table, axis1=-2, axis2=-1), table.sum((-2, -1)))


BY_CLASS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "iou": iou, "f1": f1, "recall": recall, "precision": precision,
}  # fmt: skip
OVERALL: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean_iou": lambda table: mean_of_known(iou(table)),
    "macro_f1": lambda table: mean_of_known(f1(table)),
    "accuracy": accuracy,
    "balanced_accuracy": lambda table: mean_of_known(recall(table)),
}


# -- several labels a sample -------------------------------------------------------------------------------------------


class MultiLabel(Tally):
    """Labels of which a sample can have several: hits, false finds, misses and rightly nothing, class by class.

    Probabilities are kept too, for the average precision depends on their order: a row a sample, so this is for labels
    of whole patches.

    >>> labels = MultiLabel(2)
    >>> labels.update([[0.9, 0.2], [0.4, 0.6]], [[1, 0], [1, 1]])
    >>> labels.total().tolist(), labels.average_precision().tolist()
    ([[1, 0, 1, 0], [1, 0, 0, 1]], [1.0, 1.0])
    """

    def __init__(self, classes: int, *, threshold: float = 0.5) -> None:
        super().__init__((classes, 4))
        self.threshold = threshold
        self.kept: list[tuple[np.ndarray, np.ndarray, list[tuple]]] = []

    def update(self, probability: Any, truth: Any, groups: Groups | None = None) -> None:
        """Count probabilities (samples, classes) against a truth of 1 and 0; a negative or NaN truth is not known."""
        probability, truth = as_array(probability), as_array(truth).astype("float64")
        same_shape(probability, truth)
        if truth.ndim != 2 or truth.shape[1] != self.shape[0]:
            raise InputError(f"Labels are (samples, {self.shape[0]}), and these are {truth.shape}.")
        check_probability(probability)
        keys, cell = group_cells(groups, truth.shape[:1])
        known, yes, found = truth >= 0, truth > 0.5, probability >= self.threshold
        kinds = np.stack([found & yes, found & ~yes, ~found & yes, ~found & ~yes], -1) & known[..., None]
        sums = np.zeros((len(keys), *self.shape), "int64")
        np.add.at(sums, cell, kinds)
        self.add(groups or (), keys, sums)
        self.kept.append((probability, np.where(known, yes, -1).astype("int8"), [keys[i] for i in cell]))

    def samples_by(self, name: str) -> np.ndarray:
        """The group of each sample, in the order they came: what the draws of a bootstrap are dealt out by."""
        place = self._place(name)
        return np.array([key[place] for _, _, keys in self.kept for key in keys])

    def average_precision(self, weight: np.ndarray | None = None) -> np.ndarray:
        """The average precision of each class; `weight` says how often each sample counts, in the last axis."""
        if not self.kept:
            return np.full(self.shape[0], np.nan)
        probability, truth = (np.concatenate([part[i] for part in self.kept]) for i in (0, 1))
        every = np.ones(len(truth)) if weight is None else np.asarray(weight, "float64")
        each = [
            average_precision(probability[:, k], truth[:, k] > 0, every * (truth[:, k] >= 0))
            for k in range(self.shape[0])
        ]
        return np.stack(each, -1)


def label_f1(table: np.ndarray) -> np.ndarray:
    """F1 of each class, from hits, false finds, misses and the rest along the last axis.

    >>> label_f1(np.array([[1, 0, 1, 0], [0, 3, 0, 1]])).round(3).tolist()
    [0.667, nan]
    """
    hits, false, missed = (np.asarray(table, "float64")[..., i] for i in range(3))
    return ratio(np.where(hits + missed > 0, 2 * hits, np.nan), 2 * hits + false + missed)


def label_micro_f1(table: np.ndarray) -> np.ndarray:
    """F1 of all labels together.

    >>> float(label_micro_f1(np.array([[1, 0, 1, 0], [0, 2, 0, 1]])))
    0.4
    """
    return label_f1(np.asarray(table).sum(-2))


def average_precision(score: np.ndarray, truth: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """The area below the steps of precision over recall; equal scores are one step. NaN where nothing is true.

    >>> float(average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True])).round(4))
    0.8333
    """
    every = np.ones(len(truth)) if weight is None else np.asarray(weight, "float64")
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True) if len(order) else np.zeros(0, bool)
    hits = (every * truth)[..., order].cumsum(-1)
    seen = every[..., order].cumsum(-1)
    there = hits[..., -1] if len(order) else np.zeros(every.shape[:-1])
    hits, seen = hits[..., last], seen[..., last]
    gained = np.diff(hits, axis=-1, prepend=0)
    return ratio((gained * np.nan_to_num(ratio(hits, seen))).sum(-1), there)


# -- numbers -----------------------------------------------------------------------------------------------------------


class Regression(Tally):
    """Errors of numbers, by output; (samples, outputs, ...) where there are several. What is NaN is not counted.

    >>> errors = Regression()
    >>> errors.update([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
    >>> {name: round(float(score(errors.total())[0]), 3) for name, score in REGRESSION.items()}
    {'rmse': 0.577, 'mae': 0.333, 'r2': 0.5, 'bias': 0.333}
    """

    def __init__(self, outputs: int = 1) -> None:
        super().__init__((outputs, 6), "float64")
        self.shift: np.ndarray | None = None

    def update(self, found: Any, truth: Any, groups: Groups | None = None) -> None:
        """Add numbers found, and those that are true."""
        found, truth = as_array(found).astype("float64"), as_array(truth).astype("float64")
        same_shape(found, truth)
        outputs = self.shape[0]
        if outputs == 1:
            keys, cell = group_cells(groups, truth.shape)
            found, truth, cell = (each.reshape(-1, 1) for each in (found, truth, cell))
        else:
            if truth.ndim < 2 or truth.shape[1] != outputs:
                raise InputError(f"There are {outputs} outputs along axis 1, and the truth is {truth.shape}.")
            found, truth = (np.moveaxis(each, 1, -1) for each in (found, truth))
            keys, cell = group_cells(groups, truth.shape[:-1])
            found, truth, cell = found.reshape(-1, outputs), truth.reshape(-1, outputs), cell.reshape(-1, 1)
        known = np.isfinite(truth) & np.isfinite(found)
        if self.shift is None and known.any():
            # Squares of large numbers that differ little cancel: they are counted from near their mean.
            self.shift = np.nan_to_num(mean_of_known(np.where(known, truth, np.nan).T))
        shift = np.zeros(outputs) if self.shift is None else self.shift
        code = (cell * outputs + np.arange(outputs))[known]
        t, e = (truth - shift)[known], (found - truth)[known]
        parts = (np.ones(len(t)), t, t * t, e, e * e, np.abs(e))
        sums = np.stack([np.bincount(code, part, len(keys) * outputs) for part in parts], -1)
        self.add(groups or (), keys, sums.reshape(-1, *self.shape))


def _r2(table: np.ndarray) -> np.ndarray:
    count, sums, squares = table[..., 0], table[..., 1], table[..., 2]
    around = squares - np.nan_to_num(ratio(sums**2, count))
    # A truth that never changes has nothing to be explained.
    return 1 - ratio(table[..., 4], np.where(around > 1e-12 * np.maximum(squares, 1e-300), around, 0))


REGRESSION: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rmse": lambda table: np.sqrt(ratio(table[..., 4], table[..., 0])),
    "mae": lambda table: ratio(table[..., 5], table[..., 0]),
    "r2": _r2,
    "bias": lambda table: ratio(table[..., 3], table[..., 0]),
}
