"""Blocks of ground for splits by space: of the size that serves best."""

from __future__ import annotations

import numpy as np

from .blocks import cells, deal, numbered, turned
from .buffers import TooNearError
from .ground import Ground

# The ground is cut into so many cells at the most.
MOST_CELLS = 4000
# A split of fewer blocks than this shows too little of the world.
GOOD_BLOCKS = 5
# So many samples tell how much a buffer takes, fewer where each has many neighbours.
LOOKED_AT, MOST_AROUND = 20_000, 2_000_000


def by_space(
    ground: Ground, unit: np.ndarray, weights: np.ndarray, wanted: np.ndarray, buffer_m: float, seed: int
) -> np.ndarray:
    """Blocks of the size that serves best: fractions met, classes even, little dropped, several blocks each."""
    centre, held = _groups(ground, unit, buffer_m, len(unit) * float(wanted.min()) / 4)
    around = _around(ground, buffer_m, seed)
    angles = turned(centre, seed)
    best: np.ndarray | None = None
    best_score, too_few = np.inf, 0
    for size_m in _sizes(centre):
        cell = cells(angles, size_m)
        count = int(cell.max()) + 1
        if count < len(wanted):
            too_few = count
            continue
        block = cell[held]
        dealt = deal(block, weights, wanted, seed)
        number = dealt[block]
        # What a strip around the smaller splits takes, they shall have had more of.
        lost = _lost(number, around, len(wanted))
        fair = wanted / np.maximum(1 - lost, 0.2)
        if lost.max() > 0.01:
            dealt = deal(block, weights, fair / fair.sum(), seed)
            number = dealt[block]
            lost = _lost(number, around, len(wanted))
        score = _score(number, dealt, weights, wanted, lost)
        if score < best_score - 1e-3:
            best, best_score = number, score
        if count > MOST_CELLS or (lost.sum() == 0 and best_score < 0.002):
            break
    if best is None:
        raise TooNearError(
            f"The samples lie in {max(too_few, 1)} place(s) too near to each other to tell apart, too few for"
            f" {len(wanted)} splits."
        )
    return best


def _groups(ground: Ground, unit: np.ndarray, buffer_m: float, most: float) -> tuple[np.ndarray, np.ndarray]:
    """Where each sample counts as lying, so that groups no nearer to others than the buffer stay whole.

    Sparse samples come in small groups (often of one) with empty ground around: cut between those, nothing has to be
    dropped. Returned are a place for each group or unit, and which of them each sample belongs to.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    units = int(unit.max()) + 1
    first = np.full(units, len(unit))
    np.minimum.at(first, unit, np.arange(len(unit)))
    centre = ground.centre[first]
    reach = buffer_m + 2 * float(ground.radius_m.max())
    tree = cKDTree(centre)
    some = np.random.default_rng(0).permutation(units)[:1000]
    around = tree.query_ball_point(centre[some], reach, return_length=True, workers=-1) - 1
    if around.mean() > 3:
        return centre, unit
    pairs = tree.query_pairs(reach, output_type="ndarray")
    graph = csr_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (units, units))
    group = connected_components(graph, directed=False)[1]
    # Those that hold too much for one split are cut after all.
    large = np.bincount(group[unit])[group] > most
    group = np.where(large, group.max() + 1 + np.arange(units), group)
    group = numbered(group)
    middle = np.zeros((int(group.max()) + 1, 3))
    np.add.at(middle, group, centre)
    return middle / np.bincount(group)[:, None], group[unit]


def _sizes(centre: np.ndarray) -> list[float]:
    """Sizes of cells from the largest that may do downwards."""
    extent = float(np.ptp(centre, axis=0).max())
    if extent < 1:
        return []
    return [size for k in range(24) if (size := extent / 2 ** (k / 2)) > 1]


def _around(ground: Ground, buffer_m: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some samples, and all that are too near to each: found once, whatever splits are tried."""
    from scipy.spatial import cKDTree

    tree = cKDTree(ground.centre)
    reach = buffer_m + float(np.median(ground.radius_m))
    mixed = np.random.default_rng(seed).permutation(len(ground))
    usual = tree.query_ball_point(ground.centre[mixed[:200]], reach, return_length=True).mean()
    looked = mixed[: int(np.clip(MOST_AROUND / usual, 200, LOOKED_AT))]
    lists = tree.query_ball_point(ground.centre[looked], reach, workers=-1)
    counts = np.array([len(each) for each in lists])
    return looked, np.concatenate([np.asarray(each, "int64") for each in lists]), np.cumsum(counts) - counts


def _lost(number: np.ndarray, around: tuple[np.ndarray, np.ndarray, np.ndarray], splits: int) -> np.ndarray:
    """About how much of each split the buffer will take: half of what is too near to another."""
    looked, others, starts = around
    own = number[looked]
    counts = np.diff(np.append(starts, len(others)))
    # Every sample is near itself, so nobody's list is empty.
    near = np.logical_or.reduceat(number[others] != np.repeat(own, counts), starts)
    held = np.maximum(np.bincount(own, minlength=splits), 1)
    return np.asarray(np.bincount(own, weights=near / 2, minlength=splits) / held)


def _score(number: np.ndarray, dealt: np.ndarray, weights: np.ndarray, wanted: np.ndarray, lost: np.ndarray) -> float:
    held = np.zeros((len(wanted), weights.shape[1]))
    np.add.at(held, number, weights)
    held *= (1 - lost)[:, None]
    parts = held / np.maximum(held.sum(axis=0), 1e-12)
    uneven = np.abs(parts - wanted[:, None]).sum(axis=0) / 2
    common = np.sqrt(weights.sum(axis=0))[1:]
    classes = float((uneven[1:] * common).sum() / common.sum()) if common.sum() else 0.0
    dropped = float((lost * np.bincount(number, minlength=len(wanted))).sum() / len(number))
    few = np.bincount(dealt, minlength=len(wanted)).min() / GOOD_BLOCKS
    return float(uneven[0]) + dropped + 0.3 * classes + 0.1 * max(1 - few, 0)
