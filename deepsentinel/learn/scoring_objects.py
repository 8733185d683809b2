"""What is counted of objects that a model finds one by one, picture by picture, and the scores that follow from it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from deepsentinel.errors import InputError

from .intervals import Interval, blocked_interval, drawn_interval
from .matching_objects import HALF, PANOPTIC, Detections, PanopticQuality
from .model import Question
from .scoring import Drawn, Score, Scorer, of_tables, part_of
from .tallies import Groups, as_array, mean_of_known, ratio

# Class maps of panoptic quality: where nobody knows.
VOID = 255
OBJECT = Mapping[str, Any]


class Objects(Scorer):
    """Boxes, or boxes with masks, against those that are there.

    Precision and recall are of what the model is at least half sure of, and a find counts from an overlap of a half on;
    average precision asks for no such line. Of instances everything is told by the overlap of masks, not of boxes, and
    panoptic quality judges the map that is drawn of them: the surest first, each on what is left of the ground.
    """

    def __init__(self, question: Question) -> None:
        assert question.classes is not None
        self.classes = len(question.classes)
        self.by = "masks" if question.task == "instances" else "boxes"
        self.parts: dict[Hashable, Detections] = {}
        # The ground beside all objects is one more class, so that what is found where nothing is counts as wrong.
        self.panoptic = PanopticQuality(self.classes + 1, void=VOID) if self.by == "masks" else None
        self._known: dict[str, Interval] | None = None
        sure = "precision, recall, F1 and PQ" if self.panoptic is not None else "precision, recall and F1"
        self.remarks = (
            f"A find counts where {self.by} overlap by a half or more of both together; {sure} are of what the model is"
            " at least half sure of, mAP is of all that it told.",
        )

    def update(self, said: Sequence[OBJECT], truth: Sequence[OBJECT], groups: Groups) -> None:
        """Add what was found in each picture and what is there, see `Detections`; groups have a value a picture."""
        if len(said) != len(truth):
            raise InputError(f"There are answers to {len(said)} pictures, and {len(truth)} pictures.")
        self._known = None
        for at, (found, there) in enumerate(zip(said, truth, strict=True)):
            group = {name: np.asarray(values)[at] for name, values in groups.items()}
            cloud = group["cloud"].item() if "cloud" in group else ""
            part = self.parts.setdefault(cloud, Detections(self.classes, by=self.by))
            part.update(found, there, group["block"].item())
            if self.panoptic is not None:
                self.panoptic.update(*self._drawn(found), *self._true(there), group)

    def count(self, **where: Any) -> int:
        """Objects that are there to be found."""
        table = self._detections(**where).matched()
        return int(table[..., [0, 2]].sum())

    def overall(self, **where: Any) -> dict[str, Interval]:
        """Mean average precision; precision, recall and F1; of instances panoptic quality."""
        found = {name: each for name, each in self._precision(**where).items() if not name.startswith("average")}
        table = self._detections(**where).matched().sum(axis=1)
        found |= {name: blocked_interval(table, score) for name, score in MATCHED.items()}
        if self.panoptic is not None:
            table = self._panoptic(**where)
            found |= {f"mean_{name}": blocked_interval(table, _mean_of(score)) for name, score in PANOPTIC.items()}
        return found

    def by_class(self) -> dict[str, Interval]:
        """Average precision, precision and recall; of instances panoptic quality."""
        found = {name: each for name, each in self._precision().items() if name.startswith("average")}
        table = self._detections().matched()
        found |= {name: blocked_interval(table, score) for name, score in MATCHED.items()}
        if self.panoptic is not None:
            table = self._panoptic()
            found |= {name: blocked_interval(table, score) for name, score in PANOPTIC.items()}
        return found

    @property
    def drawn(self) -> Drawn:
        """Of the mean PQ, or of mAP at an overlap of a half."""
        if self.panoptic is not None:
            return of_tables(self._panoptic(), _mean_of(PANOPTIC["pq"]))
        every = self._detections()
        return lambda weight: every.score_of_draws(weight)[:, 0], len(every.blocks)

    @property
    def often(self) -> list[int]:
        """Objects of each class."""
        table = self._detections().matched().sum(axis=0)
        return [int(count) for count in table[:, 0] + table[:, 2]]

    def _detections(self, **where: Any) -> Detections:
        """All pictures, or those of a step of cloud."""
        if set(where) - {"cloud"}:
            raise InputError(f"Objects are told apart by cloud, not by {', '.join(where)}.")
        every = Detections(self.classes, by=self.by)
        for cloud, part in self.parts.items():
            if cloud == where.get("cloud", cloud):
                every.merge(part)
        return every

    def _precision(self, **where: Any) -> dict[str, Interval]:
        """All average precisions, which one set of draws tells."""
        if not where and self._known is not None:
            return self._known
        every, count = self._detections(**where), self.classes

        def score(weight: np.ndarray) -> np.ndarray:
            each = every.precision_of_draws(weight)
            return np.concatenate([every.means(each), each[:, 0], each.mean(axis=1)], axis=-1)

        told = drawn_interval(score, len(every.blocks))
        half, over_all = slice(2, 2 + count), slice(2 + count, None)
        places = {"map_50": 0, "map": 1, "average_precision_50": half, "average_precision": over_all}
        found = {name: part_of(told, place) for name, place in places.items()}
        if not where:
            self._known = found
        return found

    def _panoptic(self, **where: Any) -> np.ndarray:
        """(blocks, classes, 4), without the ground beside the objects."""
        assert self.panoptic is not None
        return self.panoptic.by("block", **where)[1][:, : self.classes]

    def _drawn(self, found: OBJECT) -> tuple[np.ndarray, np.ndarray]:
        """The map of what the model is half sure of: classes and numbers."""
        masks, scores, labels = (as_array(found[name]) for name in ("masks", "scores", "labels"))
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] >= HALF]
        return self._map(masks[order] > HALF, labels[order], masks.shape[-2:])

    def _true(self, there: OBJECT) -> tuple[np.ndarray, np.ndarray]:
        masks, labels = as_array(there["masks"]).astype(bool), as_array(there["labels"])
        ignored = as_array(there.get("ignore", np.zeros(len(labels)))).astype(bool)
        classes, numbers = self._map(masks[~ignored], labels[~ignored], masks.shape[-2:], thin=0.0)
        unknown = masks[ignored].any(axis=0) & (classes == self.classes)
        return np.where(unknown, VOID, classes), numbers

    def _map(
        self, masks: np.ndarray, labels: np.ndarray, sides: Sequence[int], *, thin: float = HALF
    ) -> tuple[np.ndarray, np.ndarray]:
        """Masks laid on the ground, the first on top; of which no more is left than a share `thin`, none is drawn."""
        classes, numbers = np.full(sides, self.classes), np.zeros(sides, int)
        for number, (mask, label) in enumerate(zip(masks, labels, strict=True), start=1):
            free = mask & (numbers == 0)
            if free.sum() > thin * mask.sum():
                classes[free], numbers[free] = label, number
        return classes, numbers


def _rate(part: Sequence[int], whole: Mapping[int, float]) -> Score:
    def score(table: np.ndarray) -> np.ndarray:
        below = sum(factor * table[..., at] for at, factor in whole.items())
        return ratio(table[..., list(part)].sum(axis=-1), below)

    return score


# Of hits, wrong finds and misses.
MATCHED: Mapping[str, Score] = {
    "f1": _rate((0,), {0: 1, 1: HALF, 2: HALF}),
    "precision": _rate((0,), {0: 1, 1: 1}),
    "recall": _rate((0,), {0: 1, 2: 1}),
}


def _mean_of(score: Score) -> Score:
    """Over the classes that are there: what is found of others is wrong in their own row, and in the precision."""
    return lambda table: mean_of_known(np.where(table[..., 1] + table[..., 3] > 0, score(table), np.nan))
