"""Where windows lie, how much each has to say about a cell, and how overlapping ones become one map."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tiling:
    """Windows along one axis, in cells."""

    window: int
    """Cells along the side of a window."""
    stride: int
    """Cells from one window to the next."""
    cells: int
    """Cells of the whole map."""
    origin: int = 0
    """The map's first cell, counted from a corner that all maps share: windows start at multiples of the stride from
    there, so that the same ground is in the same windows wherever a patch was cut."""

    def starts(self) -> list[int]:
        """Where windows start, so that all lie within the map; only those at its ends leave the common steps.

        >>> Tiling(8, 4, 20).starts(), Tiling(8, 4, 20, origin=3).starts(), Tiling(8, 4, 5).starts()
        ([0, 4, 8, 12], [0, 1, 5, 9, 12], [0])
        """
        if self.cells <= self.window:
            return [0]
        last = self.cells - self.window
        return sorted({0, *range(-self.origin % self.stride, last + 1, self.stride), last})

    def weights(self) -> np.ndarray:
        """How much a window has to say about each of its cells: least at its ends, where it sees least around them.

        Rising as a sine squared over what neighbours share, so that two of them sum to 1.

        >>> [f"{weight:.2f}" for weight in Tiling(8, 4, 20).weights()[:4]]
        ['0.04', '0.31', '0.69', '0.96']
        """
        shared = min(self.window - self.stride, self.window // 2)
        side = np.ones(self.window, "float32")
        rise = np.sin(np.pi / 2 * (np.arange(shared) + 0.5) / max(shared, 1)) ** 2
        side[:shared] = rise
        side[self.window - shared :] = rise[::-1]
        return side


def covering(starts: list[int], window: int, first: int, stop: int) -> list[int]:
    """The windows that have a cell from `first` on and before `stop`.

    >>> covering([0, 4, 8, 12], 8, 4, 8)
    [0, 4]
    """
    return [start for start in starts if start < stop and start + window > first]


def blend(
    rows: Iterable[tuple[int, list[int], np.ndarray]], weights: np.ndarray, down: slice, across: slice
) -> Iterator[tuple[int, np.ndarray]]:
    """Windows, from north to south, into finished rows of the cells asked for: (first row, (rows, columns, D)).

    Each item is where its windows start (row, columns) and their vectors (n, height, width, D). Only as many rows are
    held as a window has. Vectors that are NaN have no say; a cell of which none is known is NaN.
    """
    height, width = weights.shape
    total: np.ndarray | None = None
    share = np.zeros((height, across.stop - across.start), "float32")
    at = 0
    for row, starts, vectors in rows:
        if total is None:
            total, at = np.zeros((*share.shape, vectors.shape[-1]), "float32"), row
        if row > at:
            yield from _finished(total, share, at, row - at, down)
            at = row
        known = np.isfinite(vectors).all(axis=-1)
        whole = bool(known.all())
        for start, values, seen in zip(starts, vectors, known, strict=True):
            low, high = max(start, across.start), min(start + width, across.stop)
            mine, ours = slice(low - start, high - start), slice(low - across.start, high - across.start)
            weight, part = weights[:, mine], values[:, mine]
            if not whole:
                weight = np.where(seen[:, mine], weight, 0)
                part = np.where(seen[:, mine, None], part, 0)
            total[:, ours] += weight[..., None] * part
            share[:, ours] += weight
    if total is not None:
        yield from _finished(total, share, at, height, down)


def _finished(
    total: np.ndarray, share: np.ndarray, at: int, count: int, down: slice
) -> Iterator[tuple[int, np.ndarray]]:
    """The first `count` rows, which no window will reach any more; the others move up."""
    first, stop = max(down.start, at), min(down.stop, at + count)
    if stop > first:
        mine = slice(first - at, stop - at)
        with np.errstate(invalid="ignore"):
            yield first, total[mine] / share[mine, :, None]
    for held in (total, share):
        held[: len(held) - count] = held[count:].copy()
        held[len(held) - count :] = 0
