"""How sure a score is, given that neighbours are alike: intervals from blocks of ground drawn again and again.

A million pixels of forty fields are not a million observations. What counts as one observation here is a block of
ground, so large that what happens in one says little of the next; whole blocks are drawn with replacement, their sums
are added up, and the score is reckoned anew. The spread of those scores is what another test area would have shown.

Blocks have to be wide beside what is alike in them: in simulated worlds of 64 blocks whose patches are a fifth
of a block wide, an interval of 95 % holds the truth 95 times of 100; half as wide as a block, 93; as wide as one, 88.
Where pixels are drawn one by one it is 49, 27 and 12 times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deepsentinel.errors import InputError

# The side of a block of ground where nobody gives another: wider than most fields and woods.
BLOCK_M = 2000.0
DRAWS = 1000
LEVEL = 0.95
# With fewer blocks than this an interval is itself a guess, and says so.
FEW_BLOCKS = 10
# Draws are added up so many numbers at a time.
AT_ONCE = 20_000_000

Score = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Interval:
    """A score and where it may lie, class by class if it is one of classes."""

    value: np.ndarray
    """The score of all blocks together."""
    low: np.ndarray
    """The lower end of the interval; NaN where there is none."""
    high: np.ndarray
    """The upper end."""
    blocks: int
    """How many blocks of ground the score was measured on."""
    level: float = LEVEL
    """How often such an interval should hold the score of all ground."""
    note: str = ""
    """What should be known before the interval is believed."""

    def __repr__(self) -> str:
        told = f"{100 * self.level:g} % interval from {self.blocks:,} block{'' if self.blocks == 1 else 's'} of ground"
        each = zip(*(np.ravel(part) for part in (self.value, self.low, self.high)), strict=True)
        shown = ", ".join(f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in each)
        return f"{shown} ({told})" + (f"; {self.note}" if self.note else "")


def ground_blocks(lon: np.ndarray, lat: np.ndarray, side_m: float = BLOCK_M) -> np.ndarray:
    """The number of the block of ground that each place lies in, from 0, for all places of a test at once.

    Blocks narrower than a patch are of one patch each; patches of several dates at one place are of one block.

    >>> ground_blocks(np.array([3.0, 3.0, 3.1]), np.array([50.0, 50.0, 50.0])).tolist()
    [0, 0, 1]
    """
    from deepsentinel.corpus.blocks import cells, turned
    from deepsentinel.corpus.ground import on_ellipsoid

    if not side_m > 0:
        raise InputError(f"A block of ground has a side in metres; this is {side_m}.")
    return cells(turned(on_ellipsoid(lon, lat), seed=0), side_m)


def block_draws(blocks: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """How often each block is drawn, in each of many draws with replacement: (draws, blocks).

    The same number and seed give the same draws, so that two models are compared on the same ground.

    >>> block_draws(5, 3).sum(axis=1).tolist()
    [5, 5, 5]
    """
    return np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), size=draws)


def blocked_interval(
    tables: np.ndarray, score: Score, *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0
) -> Interval:
    """The interval of a score of summed tables, one table a block: (blocks, ...).

    `score` takes tables with one more axis in front, and gives a score for each.

    >>> hits = np.array([[9, 10], [5, 10], [8, 10], [7, 10], [9, 10]])
    >>> blocked_interval(hits, lambda sums: sums[..., 0] / sums[..., 1])
    0.760 [0.560, 0.900] (95 % interval from 5 blocks of ground); few blocks: the interval is itself a guess
    """
    tables = np.asarray(tables)
    return drawn_interval(
        lambda weight: score(summed(weight, tables)), len(tables), draws=draws, level=level, seed=seed
    )


def drawn_interval(score: Score, blocks: int, *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0) -> Interval:
    """The interval of a score that is told how often each block counts: weights (draws, blocks), a score a draw.

    For scores that no sum tells, such as average precision.

    >>> each = np.array([3.0, 5.0, 4.0, 4.0])
    >>> drawn_interval(lambda weight: weight @ each / weight.sum(-1), 4).value.item()
    4.0
    """
    if not 0 < level < 1 or draws < 1:
        raise InputError(f"An interval needs a level between 0 and 1 and draws; these are {level} and {draws}.")
    if blocks < 1:
        raise InputError("There is no block of ground to measure on: the test set is empty, or all of it is ignored.")
    value = np.asarray(score(np.ones((1, blocks))))[0]
    if blocks == 1:
        nowhere = np.full(np.shape(value), np.nan)
        return Interval(value, nowhere, nowhere, 1, level, "one block of ground tells nothing of others: no interval")
    scores = np.asarray(score(block_draws(blocks, draws, seed)), "float64")
    low, high = _between(scores, blocks, level)
    note = "few blocks: the interval is itself a guess" if blocks < FEW_BLOCKS else ""
    return Interval(value, low, high, blocks, level, note)


def summed(weight: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """The sum of the tables for each draw, each as often as it was drawn.

    >>> summed(np.array([[2, 0], [1, 1]]), np.array([[1, 10], [2, 20]])).tolist()
    [[2.0, 20.0], [3.0, 30.0]]
    """
    flat = tables.reshape(len(tables), -1).astype("float64")
    if np.isnan(flat).any():
        raise InputError("Tables of sums hold NaN.")
    step = max(1, AT_ONCE // max(flat.shape[1], 1))
    parts = [weight[i : i + step].astype("float64") @ flat for i in range(0, len(weight), step)]
    return np.concatenate(parts).reshape(len(weight), *tables.shape[1:])


def _between(scores: np.ndarray, blocks: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the middle part of the scores, classes that were in no draw staying NaN.

    A draw of few blocks varies less than it should (by the root of n / (n - 1), and as if its spread were known for
    certain): so more than the nominal middle part is taken, as Student's distribution says.
    """
    from scipy.special import ndtr, stdtrit

    reach = np.sqrt(blocks / (blocks - 1)) * stdtrit(blocks - 1, (1 + level) / 2)
    tail = float(ndtr(-reach))
    known = np.isfinite(scores)
    some = known.any(0)
    filled = np.where(some & ~known, np.nan, np.where(known, scores, 0.0))
    low, high = np.nanquantile(filled, [tail, 1 - tail], axis=0)
    return np.where(some, low, np.nan), np.where(some, high, np.nan)
