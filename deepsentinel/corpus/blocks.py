"""Blocks of ground, dealt out to splits so that each gets its share of the samples and of every class.

Whole blocks are dealt and not samples, because neighbours are alike: a test among its training proves little.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .ground import MEAN_RADIUS_M

# Rounds of moving single blocks from one split to another after the dealing.
MOVES = 500


def turned(centre: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places on a globe that the seed has turned: angles from its pole, and around it."""
    rng = np.random.default_rng(seed)
    x, y, z = np.linalg.qr(rng.normal(size=(3, 3)))[0].T @ centre.T
    return np.arccos(np.clip(z / np.sqrt(x * x + y * y + z * z), -1, 1)), np.arctan2(y, x)


def cells(angles: tuple[np.ndarray, np.ndarray], size_m: float) -> np.ndarray:
    """The number of the cell of about `size_m` in which each place lies, from 0; the cells are of equal area nearly.

    Rows of equal height, each with as many cells as fit round the Earth there: no cell ends at the date line only
    because maps do, and none is a needle at a pole.

    >>> from deepsentinel.corpus.ground import on_ellipsoid
    >>> cells(turned(on_ellipsoid([0.0, 0.01, 90.0], [50.0, 50.0, 50.0]), seed=0), 100_000).tolist()
    [0, 0, 1]
    """
    polar, around = angles
    step = size_m / MEAN_RADIUS_M
    row = np.floor(polar / step)
    columns = np.maximum(np.round(2 * np.pi * np.sin((row + 0.5) * step) / step), 1)
    column = np.floor((around / (2 * np.pi) + 0.5) * columns)
    _, first, number = np.unique(row * 1e9 + column, return_index=True, return_inverse=True)
    # Numbered in the order of the samples, so that a cell's number does not depend on the turn.
    return np.asarray(np.argsort(np.argsort(first))[number.reshape(-1)])


def numbered(names: np.ndarray) -> np.ndarray:
    """Numbers from 0 without a gap in place of any others.

    >>> numbered(np.array([7, 3, 7])).tolist()
    [1, 0, 1]
    """
    return np.unique(names, return_inverse=True)[1].reshape(-1)


def deal(block: np.ndarray, weights: np.ndarray, fractions: Sequence[float] | np.ndarray, seed: int) -> np.ndarray:
    """The split of each block, from what its samples weigh: shape (samples, 1 + classes), the first column all ones.

    >>> deal(np.array([0, 0, 1, 2]), np.ones((4, 1)), (0.5, 0.5), seed=0).tolist() in ([0, 1, 1], [1, 0, 0])
    True
    """
    held = np.zeros((int(block.max()) + 1, weights.shape[1]))
    np.add.at(held, block, weights)
    totals = np.maximum(held.sum(axis=0), 1e-12)
    shares = held / totals
    # Samples count as much as all classes together, and a rare class less than a common one, but not by as much.
    rarity = np.sqrt(totals[1:])
    scale = np.concatenate([[1.0], rarity / max(rarity.sum(), 1e-12)])
    wanted = np.asarray(fractions, "float64")
    split = _greedy(shares, scale, wanted, seed)
    return _moved(split, shares, scale, wanted)


def _greedy(shares: np.ndarray, scale: np.ndarray, wanted: np.ndarray, seed: int) -> np.ndarray:
    """The largest blocks first, each to the split that most lacks what is in it."""
    chance = np.random.default_rng(seed).permutation(len(shares))
    has, split = np.zeros((len(wanted), shares.shape[1])), np.zeros(len(shares), "int64")
    for index in np.lexsort((chance, -shares[:, 0])):
        cost = ((2 * has * shares[index] + shares[index] ** 2) * scale).sum(axis=1) / wanted
        split[index] = int(np.argmin(cost))
        has[split[index]] += shares[index]
    # Nobody goes away empty-handed, as long as there are blocks enough.
    for lacking in np.setdiff1d(np.arange(len(wanted)), split):
        spare = np.flatnonzero(np.bincount(split, minlength=len(wanted))[split] > 1)
        if len(spare):
            split[spare[np.argmin(shares[spare, 0])]] = lacking
    return split


def _moved(split: np.ndarray, shares: np.ndarray, scale: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Single blocks moved as long as that brings the splits nearer to what is wanted; none is left empty."""
    split = split.copy()
    has = np.zeros((len(wanted), shares.shape[1]))
    np.add.at(has, split, shares)
    for _ in range(MOVES):
        counts = np.bincount(split, minlength=len(wanted))
        away, stay = has - wanted[:, None], shares
        # What the sum over the splits of scale * (has - wanted)^2 / wanted changes by if a block leaves, or comes.
        leaves = ((stay**2 - 2 * stay * away[split]) * scale).sum(axis=1) / wanted[split]
        comes = ((stay**2 * scale).sum(axis=1)[:, None] + 2 * (stay * scale) @ away.T) / wanted
        change = leaves[:, None] + comes
        change[np.arange(len(split)), split] = 0
        change[counts[split] == 1] = 0
        block, target = np.unravel_index(int(np.argmin(change)), change.shape)
        if change[block, target] >= -1e-12:
            break
        has[split[block]] -= shares[block]
        has[target] += shares[block]
        split[block] = target
    return split


def fewest(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fewest members of two groups without which no pair is left: those of the left one, and of the right one.

    By König's theorem there are as many of them as pairs in the largest matching, and the matching tells which.

    >>> fewest(np.array([[5, 0], [5, 1], [5, 2], [6, 2]]))[0].tolist(), fewest(np.array([[5, 0], [5, 1]]))[0].tolist()
    ([5, 6], [5])
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_bipartite_matching

    left, one = np.unique(pairs[:, 0], return_inverse=True)
    right, two = np.unique(pairs[:, 1], return_inverse=True)
    one, two = one.reshape(-1), two.reshape(-1)
    n, m = len(left), len(right)
    partner = maximum_bipartite_matching(csr_array((np.ones(len(one), bool), (one, two)), (n, m)), perm_type="column")
    # From everybody on the left who has no partner, along pairs to the right and back along partners.
    matched = np.flatnonzero(partner >= 0)
    lonely = np.flatnonzero(partner < 0)
    rows = np.concatenate([one, n + partner[matched], np.full(len(lonely), n + m)])
    columns = np.concatenate([n + two, matched, lonely])
    walk = csr_array((np.ones(len(rows), bool), (rows, columns)), (n + m + 1, n + m + 1))
    reached = np.zeros(n + m + 1, bool)
    reached[breadth_first_order(walk, n + m, directed=True, return_predecessors=False)] = True
    return left[~reached[:n]], right[reached[n : n + m]]
