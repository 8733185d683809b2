"""Scores of objects: which of those found are which of those that are there, how often, and how well they fit."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Self

import numpy as np

from deepsentinel.errors import InputError

from .tallies import Groups, Tally, as_array, group_cells, mean_of_known, ratio, same_shape

# Boxes and outlines count as the same object from these overlaps on; scores are averaged over all of them.
OVERLAPS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())
# Precision is read off at so many recalls, as COCO does, so that scores can be compared with others'.
RECALLS = np.linspace(0, 1, 101)
HALF = 0.5
# Draws times objects that are reckoned with at a time.
AT_ONCE = 5_000_000


def overlaps(found: np.ndarray, truth: np.ndarray, *, of: str = "union") -> np.ndarray:
    """Intersection over union of each box (n, 4; left, top, right, bottom) or mask (n, y, x) with each other.

    `of="found"` gives the share of what was found instead.

    >>> overlaps(np.array([[0, 0, 2, 2]]), np.array([[1, 0, 3, 2], [5, 5, 6, 6]])).round(3).tolist()
    [[0.333, 0.0]]
    """
    if not len(found) or not len(truth):
        return np.zeros((len(found), len(truth)))
    if found.ndim == 3:
        same_shape(found[0], truth[0])
        a, b = (each.reshape(len(each), -1).astype("float32") for each in (found, truth))
        shared = (a @ b.T).astype("float64")
        areas = [each.sum(1, dtype="float64") for each in (a, b)]
    else:
        corner = np.maximum(found[:, None, :2], truth[None, :, :2])
        sides = np.clip(np.minimum(found[:, None, 2:], truth[None, :, 2:]) - corner, 0, None)
        shared = sides.prod(-1)
        areas = [np.clip(each[:, 2:] - each[:, :2], 0, None).prod(-1) for each in (found, truth)]
    whole = areas[0][:, None] if of == "found" else areas[0][:, None] + areas[1][None] - shared
    return np.nan_to_num(ratio(shared, whole))


class Detections:
    """Objects found, each with a class and a score, against those that are there, picture by picture.

    Both are dicts as torchvision has them: `boxes` (n, 4) or `masks` (n, y, x), `labels` from 0, and what was found
    `scores`. The truth may say `ignore` (n,) of objects that need not be found: what lies in them is not counted.

    >>> objects = Detections(1)
    >>> boxes = [[0, 0, 10, 10], [50, 50, 60, 60]]
    >>> objects.update({"boxes": boxes[:1], "labels": [0], "scores": [0.9]}, {"boxes": boxes, "labels": [0, 0]})
    >>> {name: round(value, 3) for name, value in objects.scores().items()}
    {'map_50': 0.505, 'map': 0.505}
    """

    def __init__(self, classes: int, *, by: str = "boxes", thresholds: tuple[float, ...] = OVERLAPS) -> None:
        if by not in ("boxes", "masks"):
            raise InputError(f"by={by!r} is neither 'boxes' nor 'masks'.")
        self.classes, self.kind, self.thresholds = classes, by, np.asarray(thresholds)
        # Of each class and picture with any: scores, whether found and whether counted at each threshold, how many
        # there are, and the block of ground.
        self.kept: list[list[tuple[np.ndarray, np.ndarray, np.ndarray, int, Hashable]]] = [[] for _ in range(classes)]
        self.blocks: set[Hashable] = set()

    def update(self, found: Mapping[str, Any], truth: Mapping[str, Any], block: Hashable = 0) -> None:
        """Match what was found in one picture with what is there; `block` is the ground it shows."""
        self.blocks.add(block)
        shapes, there = (self._shapes(each) for each in (found, truth))
        labels, known = as_array(found["labels"]), as_array(truth["labels"])
        scores = as_array(found["scores"]).astype("float64")
        ignored = as_array(truth.get("ignore", np.zeros(len(known)))).astype(bool)
        if not len(shapes) == len(labels) == len(scores) or not len(there) == len(known) == len(ignored):
            raise InputError("Every object found needs a shape, a label and a score, and every true one a label.")
        if not np.isfinite(scores).all():
            raise InputError("Scores of objects must be finite.")
        for each in (labels, known):
            if len(each) and (each.min() < 0 or each.max() >= self.classes):
                raise InputError(f"Labels go from {each.min()} to {each.max()}; there are {self.classes}, from 0.")
        for k in np.union1d(labels, known).astype(int):
            mine, its = np.flatnonzero(labels == k), known == k
            mine = mine[np.argsort(-scores[mine], kind="stable")]
            wanted = there[its & ~ignored]
            void = overlaps(shapes[mine], there[its & ignored], of="found").max(1, initial=0)
            hits = self._matched(overlaps(shapes[mine], wanted))
            counted = hits | (void[:, None] < self.thresholds)
            self.kept[k].append((scores[mine], hits, counted, len(wanted), block))

    def _shapes(self, objects: Mapping[str, Any]) -> np.ndarray:
        if self.kind not in objects:
            raise InputError(f"Objects are told by {self.kind!r} here, and these have {', '.join(objects)}.")
        shapes = as_array(objects[self.kind])
        if self.kind == "boxes":
            return shapes.reshape(-1, 4).astype("float64")
        return shapes > 0.5 if shapes.size else np.zeros((0, 1, 1), bool)

    def _matched(self, overlap: np.ndarray) -> np.ndarray:
        """Whether each found object, the surest first, gets a true one that no surer one took: (n, thresholds)."""
        hits = np.zeros((len(overlap), len(self.thresholds)), bool)
        if not overlap.size:
            return hits
        for t, least in enumerate(self.thresholds):
            free = overlap.copy()
            for i in np.flatnonzero(overlap.max(1) >= least):
                best = free[i].argmax()
                if free[i, best] >= least:
                    hits[i, t] = True
                    free[:, best] = -1
        return hits

    def merge(self, other: Self) -> None:
        """Add what was matched elsewhere."""
        for mine, its in zip(self.kept, other.kept, strict=True):
            mine += its
        self.blocks |= other.blocks

    def names(self) -> list[Hashable]:
        """The blocks of ground, in the order in which draws weigh them."""
        return sorted(self.blocks, key=lambda name: (str(type(name)), name))

    def average_precision(self, weight: Mapping[Hashable, float] | None = None) -> np.ndarray:
        """(thresholds, classes); NaN for a class that is nowhere. `weight` says how often each block counts."""
        often = [1.0 if weight is None else weight[name] for name in self.names()]
        return self.precision_of_draws(np.array([often]))[0]

    def precision_of_draws(self, weights: np.ndarray) -> np.ndarray:
        """(draws, thresholds, classes): average precision for each draw of blocks, which are in the order of `names`.

        >>> objects = Detections(1)
        >>> for block, score in enumerate((0.9, 0.8)):
        ...     one = {"boxes": [[0, 0, 9, 9]], "labels": [0]}
        ...     objects.update({**one, "scores": [score]}, one if block else {"boxes": [], "labels": []}, block)
        >>> objects.precision_of_draws(np.array([[1, 1], [0, 1], [1, 0]]))[:, 0, 0].tolist()
        [0.5, 1.0, nan]
        """
        weights = np.asarray(weights, "float64")
        result = np.full((len(weights), len(self.thresholds), self.classes), np.nan)
        at = {name: place for place, name in enumerate(self.names())}
        for k, kept in enumerate(self.kept):
            if not kept:
                continue
            place = np.array([at[part[4]] for part in kept])
            there = weights @ np.bincount(place, [part[3] for part in kept], len(at))
            scores, hits, counted = (np.concatenate([part[i] for part in kept]) for i in range(3))
            order = np.argsort(-scores, kind="stable")
            block = np.repeat(place, [len(part[0]) for part in kept])[order]
            for t in range(len(self.thresholds)):
                result[:, t, k] = _area(weights, there, block, hits[order, t], counted[order, t])
        return result

    def scores(self, weight: Mapping[Hashable, float] | None = None) -> dict[str, float]:
        """Mean average precision at an overlap of a half, and over all overlaps."""
        precision = self.average_precision(weight)
        return dict(zip(("map_50", "map"), self.means(precision[None])[0].tolist(), strict=True))

    def score_of_draws(self, weights: np.ndarray) -> np.ndarray:
        """(draws, 2): both scores for each draw of blocks, in the order of `names`; for an interval."""
        return self.means(self.precision_of_draws(weights))

    def means(self, precision: np.ndarray) -> np.ndarray:
        """(..., thresholds, classes) -> (..., 2): at an overlap of a half, and over all; of the classes that are."""
        half = np.flatnonzero(np.isclose(self.thresholds, HALF))
        each = (
            precision.mean(axis=-2),
            precision[..., half[0], :] if len(half) else np.full_like(precision[..., 0, :], np.nan),
        )
        return np.stack([mean_of_known(each[1]), mean_of_known(each[0])], axis=-1)

    def matched(self, least_score: float = HALF) -> np.ndarray:
        """(blocks, classes, 3): hits, wrong finds and misses at the lowest overlap, of what is at least so sure.

        >>> objects = Detections(1)
        >>> one = {"boxes": [[0, 0, 9, 9]], "labels": [0]}
        >>> objects.update({**one, "scores": [0.4]}, one)
        >>> objects.matched().tolist(), objects.matched(0.3).tolist()
        ([[[0.0, 0.0, 1.0]]], [[[1.0, 0.0, 0.0]]])
        """
        at = {name: place for place, name in enumerate(self.names())}
        table = np.zeros((len(at), self.classes, 3))
        for k, kept in enumerate(self.kept):
            for scores, hits, counted, there, block in kept:
                sure = scores >= least_score
                # The surest first, so that what is less sure took nothing from what is surer.
                right = int(hits[sure, 0].sum())
                table[at[block], k] += right, int(counted[sure, 0].sum()) - right, there - right
        return table


def _area(
    weights: np.ndarray, there: np.ndarray, block: np.ndarray, hits: np.ndarray, counted: np.ndarray
) -> np.ndarray:
    """The area under precision by recall for each draw (draws, blocks); of what was found, the surest first.

    Between two hits precision falls, so that it need be known at hits only: one product of matrices tells all draws.
    """
    from scipy.sparse import csr_array

    right = np.flatnonzero(hits)
    found = np.full(len(weights), np.nan)
    if not len(right):
        return np.where(there > 0, 0.0, found)
    # What was found belongs to the next hit after it; behind the last it changes nothing.
    upto = np.searchsorted(right, np.arange(right[-1] + 1))
    shape = (len(right), weights.shape[1])
    sums = [
        csr_array((which[: len(upto)].astype("float64"), (upto, block[: len(upto)])), shape=shape)
        for which in (hits, counted)
    ]
    step = max(1, AT_ONCE // len(right))
    for start in range(0, len(weights), step):
        part = weights[start : start + step]
        true, seen = ((each @ part.T).T.cumsum(axis=1) for each in sums)
        # What is found later but surer on the whole counts from the start: precision never rises again.
        precision = np.maximum.accumulate(np.nan_to_num(ratio(true, seen))[:, ::-1], axis=1)[:, ::-1]
        for draw in range(len(part)):
            if there[start + draw] > 0:
                at = np.searchsorted(true[draw] / there[start + draw], RECALLS, side="left")
                found[start + draw] = np.append(precision[draw], 0.0)[at].mean()
    return found


class PanopticQuality(Tally):
    """How well maps of instances agree: which segments are found at all, and how well those fit.

    A segment is what has one class and one number. As published (Kirillov and others, 2019), a segment is found if it
    overlaps a true one of its class by more than half, which at most one can; where the truth is `void`, nothing is
    counted, nor is an unmatched segment that lies mostly there.

    >>> quality = PanopticQuality(1)
    >>> quality.update([[0, 0, 0, 0]], [[1, 1, 1, 2]], [[0, 0, 0, 0]], [[1, 1, 1, 1]])
    >>> {name: score(quality.total()).round(3).tolist() for name, score in PANOPTIC.items()}
    {'pq': [0.5], 'sq': [0.75], 'rq': [0.667]}
    """

    def __init__(self, classes: int, *, void: int = 255) -> None:
        super().__init__((classes, 4), "float64")
        self.void = void

    def update(
        self, classes: Any, instances: Any, true_classes: Any, true_instances: Any, groups: Groups | None = None
    ) -> None:
        """Match the segments of one picture: maps of classes and of numbers, found and true. Groups are of pictures."""
        maps = [as_array(each).astype("int64") for each in (classes, instances, true_classes, true_instances)]
        for each in maps[1:]:
            same_shape(each, maps[0])
        keys, _ = group_cells(groups, (1,))
        found, theirs = self._segments(maps[0], maps[1]), self._segments(maps[2], maps[3])
        (own, own_at), (true, true_at) = found, theirs
        count = len(true) + 1
        # Segments are numbered from 1, and 0 is void: one table of shared areas tells all.
        pairs = np.bincount(own_at * count + true_at, minlength=(len(own) + 1) * count).reshape(-1, count)
        shared, unseen = pairs[1:, 1:], pairs[1:, 0]
        union = pairs[1:].sum(1)[:, None] + pairs[:, 1:].sum(0)[None] - shared - unseen[:, None]
        overlap = np.where(own[:, None] == true[None], np.nan_to_num(ratio(shared, union)), 0.0)
        hit = overlap > HALF
        lost = ~hit.any(1) & (unseen <= HALF * pairs[1:].sum(1))
        sums = np.zeros(self.shape)
        np.add.at(sums[:, 0], true, np.where(hit, overlap, 0).sum(0))
        for column, of, which in ((1, true, hit.any(0)), (2, own, lost), (3, true, ~hit.any(0))):
            np.add.at(sums[:, column], of[which], 1)
        self.add(groups or (), keys, sums[None])

    def _segments(self, classes: np.ndarray, instances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The class of each segment, and the segment of each pixel, from 1; 0 where there is none."""
        flat, known = np.stack([classes.ravel(), instances.ravel()], 1), classes.ravel() != self.void
        segments, number = np.unique(flat[known], axis=0, return_inverse=True)
        if len(segments) and (segments[0, 0] < 0 or segments[-1, 0] >= self.shape[0]):
            raise InputError(
                f"Classes go from {segments[0, 0]} to {segments[-1, 0]}; there are {self.shape[0]}, from 0, and"
                f" {self.void} is void."
            )
        at = np.zeros(len(flat), "int64")
        at[known] = number.reshape(-1) + 1
        return segments[:, 0], at


def _counted(table: np.ndarray) -> np.ndarray:
    return table[..., 1] + HALF * (table[..., 2] + table[..., 3])


# From overlaps, hits, false finds and misses by class. A class that is neither there nor found is NaN; one that is
# found where it is not counts as nothing right, as published.
PANOPTIC = {
    "pq": lambda table: ratio(table[..., 0], _counted(table)),
    "sq": lambda table: np.where(_counted(table) > 0, np.nan_to_num(ratio(table[..., 0], table[..., 1])), np.nan),
    "rq": lambda table: ratio(table[..., 1], _counted(table)),
}
