"""Scores of objects: which of those found are which of those that are there, how often, and how well they fit."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from deepsentinel.errors import InputError

from .tallies import Groups, Tally, as_array, group_cells, ratio, same_shape

# Boxes and outlines count as the same object from these overlaps on; scores are averaged over all of them.
OVERLAPS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())
# Precision is read off at so many recalls, as COCO does, so that scores can be compared with others'.
RECALLS = np.linspace(0, 1, 101)
HALF = 0.5


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

    def average_precision(self, weight: Mapping[Hashable, float] | None = None) -> np.ndarray:
        """(thresholds, classes); NaN for a class that is nowhere. `weight` says how often each block counts."""
        result = np.full((len(self.thresholds), self.classes), np.nan)
        for k, kept in enumerate(self.kept):
            often = np.array([1.0 if weight is None else weight[part[4]] for part in kept])
            there = float(sum(w * part[3] for w, part in zip(often, kept, strict=True)))
            if not there:
                continue
            scores, hits, counted = (np.concatenate([part[i] for part in kept]) for i in range(3))
            every = np.repeat(often, [len(part[0]) for part in kept])
            order = np.argsort(-scores, kind="stable")
            hits, counted, every = hits[order], counted[order], every[order, None]
            true, seen = (every * hits).cumsum(0), (every * counted).cumsum(0)
            # What is found later but surer on the whole counts from the start: precision never rises again.
            precision = np.maximum.accumulate(np.nan_to_num(ratio(true, seen))[::-1])[::-1]
            for t in range(len(self.thresholds)):
                at = np.searchsorted(true[:, t] / there, RECALLS, side="left")
                result[t, k] = np.append(precision[:, t], 0.0)[at].mean()
        return result

    def scores(self, weight: Mapping[Hashable, float] | None = None) -> dict[str, float]:
        """Mean average precision at an overlap of a half, and over all overlaps."""
        precision = self.average_precision(weight)
        known = np.isfinite(precision[0])
        if not known.any():
            return {"map_50": float("nan"), "map": float("nan")}
        half = precision[np.isclose(self.thresholds, HALF)][:, known]
        return {"map_50": float(half.mean()) if half.size else float("nan"), "map": float(precision[:, known].mean())}

    def score_of_draws(self, weights: np.ndarray) -> np.ndarray:
        """(draws, 2): both scores for each draw of blocks, in the order of `sorted(blocks)`; for an interval."""
        names = sorted(self.blocks, key=lambda name: (str(type(name)), name))
        draws = (dict(zip(names, row, strict=True)) for row in np.asarray(weights, "float64"))
        return np.array([list(self.scores(draw).values()) for draw in draws])


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
