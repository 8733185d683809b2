"""Scores of probabilities: what a wrong one costs, and whether they come true as often as they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepsentinel.errors import InputError

from .tallies import Groups, Tally, as_array, check_probability, group_cells, ratio, same_shape, scored

# A histogram of confidences this fine is as good as all of them, and takes no more room for more pixels.
CONFIDENCE_BINS = 1000
RELIABILITY_BINS = 15


class LogLoss(Tally):
    """The logarithmic loss, each class with its weight.

    >>> loss = LogLoss(2, weights=[1, 3])
    >>> loss.update([[0.5, 0.5], [0.75, 0.25]], [0, 1])
    >>> round(float(log_loss(loss.total())), 4)  # (ln 2 + 3 ln 4) / 4
    1.213
    """

    def __init__(self, classes: int, *, weights: Sequence[float] | None = None, ignore: int | None = None) -> None:
        super().__init__((classes, 2), "float64")
        self.weights = np.ones(classes) if weights is None else np.asarray(weights, "float64")
        if self.weights.shape != (classes,) or not (self.weights >= 0).all():
            raise InputError(f"Class weights are {classes} numbers that are not negative.")
        self.ignore = ignore

    def update(self, probability: Any, truth: Any, groups: Groups | None = None) -> None:
        """Add probabilities with the classes along axis 1, and the classes that are true."""
        probability, truth = as_array(probability), as_array(truth)
        same_shape(probability[:, 0], truth)
        check_probability(probability)
        keys, cell = group_cells(groups, truth.shape)
        known = scored(truth, self.shape[0], self.ignore)
        index = np.where(known, truth, 0).astype("int64")
        true = np.take_along_axis(probability, index[:, None], 1)[:, 0][known].astype("float64")
        weight = self.weights[index[known]]
        # Nothing is impossible, or one pixel would make the loss infinite.
        loss = -weight * np.log(np.clip(true, np.finfo(probability.dtype).eps, 1))
        code, size = cell[known] * self.shape[0] + index[known], len(keys) * self.shape[0]
        sums = np.stack([np.bincount(code, part, size) for part in (loss, weight)], -1)
        self.add(groups or (), keys, sums.reshape(-1, *self.shape))


def log_loss(table: np.ndarray) -> np.ndarray:
    """The weighted mean loss, from losses and weights by class.

    >>> float(log_loss(np.array([[1.0, 2.0], [0.5, 1.0]])))
    0.5
    """
    return ratio(table[..., 0].sum(-1), table[..., 1].sum(-1))


class Calibration(Tally):
    """Whether probabilities are what they say: a histogram of confidences, with how many of each were right.

    `of="best"` judges the confidence in the class that was chosen, against one true class an element; `of="each"` the
    probability of every label by itself, against labels of 1 and 0.

    >>> calibration = Calibration()
    >>> calibration.update([[0.75, 0.25]] * 4, [0, 0, 0, 1])
    >>> float(expected_calibration_error(calibration.total()).round(6))
    0.0
    """

    def __init__(self, *, of: str = "best", ignore: int | None = None, bins: int = CONFIDENCE_BINS) -> None:
        if of not in ("best", "each"):
            raise InputError(f"of={of!r} is neither 'best' nor 'each'.")
        super().__init__((bins, 3), "float64")
        self.of, self.ignore = of, ignore

    def update(self, probability: Any, truth: Any, groups: Groups | None = None) -> None:
        """Add probabilities with the classes along axis 1, and what is true."""
        probability, truth = as_array(probability), as_array(truth)
        check_probability(probability)
        if self.of == "best":
            same_shape(probability[:, 0], truth)
            known = scored(truth, probability.shape[1], self.ignore)
            confidence, right = probability.max(1), probability.argmax(1) == truth
        else:
            same_shape(probability, truth)
            known = np.isfinite(truth) & (truth >= 0)
            confidence, right = probability, truth > 0.5
        keys, cell = group_cells(groups, truth.shape)
        confidence, right = confidence[known].astype("float64"), right[known]
        bins = self.shape[0]
        at = cell[known] * bins + np.clip((confidence * bins).astype("int64"), 0, bins - 1)
        sums = np.stack([np.bincount(at, w, len(keys) * bins) for w in (np.ones(len(at)), confidence, right)], -1)
        self.add(groups or (), keys, sums.reshape(-1, *self.shape))


def reliability(table: np.ndarray, bins: int = RELIABILITY_BINS) -> np.ndarray:
    """(confidence, share right, share of all) in bins that hold equally many, from a histogram of confidences.

    A bar of the histogram that lies across the edge of two bins is dealt out to both.

    >>> reliability(np.array([[0, 0, 0], [2, 0.5, 1], [2, 1.5, 2]]), 2).tolist()
    [[0.25, 0.5, 0.5], [0.75, 1.0, 0.5]]
    """
    used = table[table[:, 0] > 0]
    if not len(used):
        return np.full((bins, 3), np.nan)
    sums = np.vstack([np.zeros(3), used.cumsum(0)])
    edges = np.linspace(0, sums[-1, 0], bins + 1)
    mass, confidence, right = np.diff([np.interp(edges, sums[:, 0], sums[:, i]) for i in range(3)], axis=1)
    return np.stack([confidence / mass, right / mass, mass / sums[-1, 0]], -1)


def expected_calibration_error(table: np.ndarray, bins: int = RELIABILITY_BINS) -> np.ndarray:
    """How far confidence and the share right are apart on average, over bins that hold equally many.

    >>> float(expected_calibration_error(np.array([[4, 3.0, 2]])))
    0.25
    """
    flat = np.asarray(table, "float64").reshape(-1, *table.shape[-2:])
    curves = np.array([reliability(each, bins) for each in flat])
    return (np.abs(curves[..., 0] - curves[..., 1]) * curves[..., 2]).sum(-1).reshape(table.shape[:-2])
