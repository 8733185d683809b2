"""Folds of samples that lie apart on the ground: neighbours are alike, and a test among its training proves little."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deepsentinel.errors import InputError

# Without a size of their own, blocks are so small that each fold has about so many of them.
BLOCKS_PER_FOLD = 10
FEWEST_PER_FOLD = 2
# A block is at least so many buffers wide where there is room for it.
BUFFERS_PER_BLOCK = 4


@dataclass(frozen=True, eq=False)
class Folds:
    """Which fold each sample is in. A fold is made of whole blocks of ground."""

    fold: np.ndarray
    """The fold of each sample, from 0."""
    block: np.ndarray
    """The block of each sample, from 0."""
    metres: np.ndarray
    """Where each sample lies, in metres."""
    block_m: float
    """The side of a block."""
    buffer_m: float
    """So far at least is every sample that is learnt from from each that is tested."""

    @property
    def count(self) -> int:
        """How many folds there are."""
        return int(self.fold.max()) + 1

    def split(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(training, test) for one fold: training keeps its distance from the test."""
        test = self.fold == number
        return np.flatnonzero(~test & self.away_from(test)), np.flatnonzero(test)

    def away_from(self, these: np.ndarray) -> np.ndarray:
        """Which samples are `buffer_m` or more from all of these."""
        if not self.buffer_m or not these.any():
            return np.ones(len(self.fold), bool)
        from scipy.spatial import cKDTree

        distance, _ = cKDTree(self.metres[these]).query(self.metres, distance_upper_bound=self.buffer_m)
        return np.asarray(distance >= self.buffer_m)


def make_folds(
    metres: np.ndarray, classes: np.ndarray, *, count: int, block_m: float | None, buffer_m: float, seed: int
) -> Folds:
    """Lay blocks on the ground and deal them out, so that every fold has its share of each class if it can.

    >>> places = np.array([[0.0, 0.0], [10.0, 0.0], [200.0, 0.0], [210.0, 0.0]])
    >>> make_folds(places, np.zeros(4, int), count=2, block_m=100, buffer_m=0, seed=0).fold.tolist() in (
    ...     [0, 0, 1, 1], [1, 1, 0, 0])
    True
    """
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 2:
        raise InputError(f"folds={count!r} is not a number of folds; give one from 2 on.")
    if not buffer_m >= 0:
        raise InputError(f"buffer_m={buffer_m!r} is not a distance in metres.")
    if block_m is not None and not block_m > 0:
        raise InputError(f"block_m={block_m!r} is not a size in metres.")
    if not np.isfinite(metres).all():
        raise InputError("Some samples have no place (NaN), so they cannot be kept apart from the others.")
    size = _own_size(metres, int(count), buffer_m) if block_m is None else float(block_m)
    # Counted from the origin of the map, as the places themselves: which block a sample is in is its own affair.
    cells, block = np.unique(np.floor(metres / size).astype("int64"), axis=0, return_inverse=True)
    block = block.reshape(-1)
    if len(cells) < count:
        raise InputError(
            f"The samples lie in {len(cells)} blocks of {size:,.0f} m, too few for {count} folds; give a smaller"
            " block_m= or fewer folds=."
        )
    per_block = np.zeros((len(cells), int(classes.max()) + 1))
    np.add.at(per_block, (block, classes), 1)
    fold_of = _deal(per_block, int(count), seed)
    return Folds(fold_of[block], block, metres, size, float(buffer_m))


def _deal(per_block: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The fold of each block: the largest blocks first, each to the fold that most lacks its classes."""
    totals = np.maximum(per_block.sum(axis=0), 1)
    shares = per_block / totals
    chance = np.random.default_rng(seed).permutation(len(per_block))
    held, fold_of = np.zeros((count, per_block.shape[1])), np.zeros(len(per_block), "int64")
    for at, block in enumerate(np.lexsort((chance, -shares.sum(axis=1)))):
        # How much less even it makes the folds; the first ones go to empty folds, so that none stays empty.
        cost = ((held + shares[block]) ** 2 - held**2).sum(axis=1)
        cost[:count] += np.where((at < count) & (held.sum(axis=1) > 0), np.inf, 0)
        fold = int(np.argmin(cost))
        held[fold] += shares[block]
        fold_of[block] = fold
    return fold_of


def _own_size(metres: np.ndarray, count: int, buffer_m: float) -> float:
    """The largest round size that gives each fold its number of blocks, or fewer of them where places are few or there
    is a buffer: a buffer around many small blocks would leave nothing to learn from.
    """
    if not np.ptp(metres, axis=0).max():
        raise InputError("All samples lie at one place; spatial folds need several.")
    # From large to small, and no smaller than it takes.
    fits: list[float] = []
    last_resort = 0.0  # blocks that give each fold one
    for size in sorted((step * 10.0**power for power in range(-1, 8) for step in (1, 2, 5)), reverse=True):
        blocks = len(np.unique(np.floor(metres / size), axis=0))
        if blocks >= count and not last_resort:
            last_resort = size
        if blocks >= FEWEST_PER_FOLD * count:
            fits.append(size)
        if blocks >= BLOCKS_PER_FOLD * count:
            break
    else:  # of few places each is alone before there are so many: blocks as large as may be
        return fits[0] if fits else last_resort or size
    wide = [size for size in fits if size >= BUFFERS_PER_BLOCK * buffer_m]
    return wide[-1] if wide else fits[0]
