"""What a query looks for: vectors, ids and clicks made into vectors, and the score of others against them.

The score of a vector is how near it is to the positives, less how near it is to the negatives. Near means the cosine of
the angle between two vectors (-1 to 1), or for the metric "euclidean" their distance with a minus sign, so that more is
always better. Of several positives, or negatives, `combine="mean"` takes the mean nearness (the result is like all of
them); "nearest" takes the largest (it is like any one of them, which suits examples that do not look alike).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

METRICS = ("cosine", "euclidean")
COMBINE = ("mean", "nearest")
_FLOAT32 = float(np.finfo("float32").eps)


@dataclass(frozen=True)
class Wanted:
    """Positives and negatives, and how they make a score."""

    positives: np.ndarray
    """Vectors to be near to (p, features), float64; of length one for the cosine."""
    negatives: np.ndarray
    """Vectors to be far from (q, features), float64; of length one for the cosine."""
    metric: str
    """One of `METRICS`."""
    combine: str
    """One of `COMBINE`."""

    @cached_property
    def _linear(self) -> bool:
        # A mean of cosines is one cosine-like product with the mean vector: one pass whatever the number of examples.
        return self.metric == "cosine" and (self.combine == "mean" or len(self.positives) + len(self.negatives) == 1)

    @property
    def columns(self) -> int:
        """How many numbers are made for each vector on the way to its score."""
        return len(self._examples32)

    @cached_property
    def _direction(self) -> np.ndarray:
        return _mean(self.positives) - _mean(self.negatives)

    @cached_property
    def _examples32(self) -> np.ndarray:
        examples = self._direction[None] if self._linear else np.concatenate([self.positives, self.negatives])
        return np.ascontiguousarray(examples, dtype="float32")

    def scores(self, block: np.ndarray, squares: np.ndarray | None) -> np.ndarray:
        """Scores of the float32 rows of a block, right within `error`. `squares` are their squared lengths."""
        if self._linear:
            return np.asarray(block @ self._examples32[0])
        # An example a row: sums and maxima over rows are quick.
        near = self._examples32 @ block.T
        if self.metric == "euclidean":
            assert squares is not None
            near *= -2
            near += squares
            near += (self._examples32**2).sum(axis=1)[:, None]
            np.maximum(near, 0, out=near)
            np.negative(np.sqrt(near, out=near), out=near)
        return self._combined(near)

    def exact(self, rows: np.ndarray) -> np.ndarray:
        """Scores in float64. Equal rows score the same wherever they stand, which a matrix product does not promise."""
        rows = np.asarray(rows, "float64")
        if self._linear:
            return np.asarray((rows * self._direction).sum(axis=1))
        examples = np.concatenate([self.positives, self.negatives])
        near = np.empty((len(examples), len(rows)))
        for number, example in enumerate(examples):
            if self.metric == "cosine":
                near[number] = (rows * example).sum(axis=1)
            else:
                near[number] = -np.sqrt(((rows - example) ** 2).sum(axis=1))
        return self._combined(near)

    def error(self, longest: float) -> float:
        """How far a score in float32 may be off, for vectors up to the length `longest`."""
        width = self.positives.shape[1]
        rounding = 8 * _FLOAT32 * np.sqrt(width)
        if self.metric == "cosine":
            return float(rounding * longest * (1 if self._linear else 2) * max(np.linalg.norm(self._direction), 1))
        # Distances come from a difference of squares, and a root makes a small error near zero a large one.
        reach = max(float(np.linalg.norm(x)) for x in [*self.positives, *self.negatives])
        return float(2 * np.sqrt(rounding * (longest**2 + reach**2)))

    def _combined(self, near: np.ndarray) -> np.ndarray:
        count = len(self.positives)
        fold = np.mean if self.combine == "mean" else np.max
        score = np.asarray(fold(near[:count], axis=0)) if count else np.zeros(near.shape[1], near.dtype)
        return score - np.asarray(fold(near[count:], axis=0)) if len(self.negatives) else score


def _mean(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors.mean(axis=0)) if len(vectors) else np.zeros(vectors.shape[1])


def unit(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors scaled to length one, and which of them have a direction: zeros and missing numbers do not.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]]))[0].tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    # In float64, as the square of a float32 may be too large for one; row by row, so that equal rows stay equal.
    lengths = np.sqrt(np.square(vectors, dtype="float64").sum(axis=1))
    usable = np.isfinite(lengths) & (lengths > 0)
    scaled = np.zeros_like(vectors)
    np.divide(vectors, lengths[:, None].astype(vectors.dtype), out=scaled, where=usable[:, None])
    return scaled, usable
