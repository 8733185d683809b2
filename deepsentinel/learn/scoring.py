"""What is counted of a model's answers, task by task, and the scores with their intervals that follow from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from .intervals import Interval, blocked_interval, drawn_interval, summed
from .metrics import BY_CLASS, OVERALL, REGRESSION, Confusion, MultiLabel, Regression, label_f1, label_micro_f1
from .model import Question
from .probabilities import Calibration, LogLoss, expected_calibration_error, log_loss
from .tallies import Groups, Tally, as_array, mean_of_known, ratio
from .tasks import IGNORE

Score = Callable[[np.ndarray], np.ndarray]
Drawn = tuple[Score, int]
"""What tells a score from how often each block counts, (draws, blocks), and how many blocks there are."""
# Samples times draws that are sorted at a time.
AT_ONCE = 2_000_000


class Scorer(ABC):
    """Answers against the truth, kept apart by block of ground and by cloud."""

    confusion: Confusion | None = None
    """How often each class was taken for which, where an answer is one class."""
    calibration: Calibration | None = None
    """How sure the answers were, and how often right."""
    remarks: tuple[str, ...] = ()
    """What should be known to read the scores."""

    @abstractmethod
    def update(self, said: Any, truth: Any, groups: Groups) -> None:
        """Add what was said and what is true."""

    @abstractmethod
    def count(self, **where: Any) -> int:
        """How much was scored."""

    @abstractmethod
    def overall(self, **where: Any) -> dict[str, Interval]:
        """Scores of everything together, or of what is in a group: `overall(cloud="0-10 %")`."""

    def by_class(self) -> dict[str, Interval]:
        """Scores with a value for each class."""
        return {}

    @property
    @abstractmethod
    def drawn(self) -> Drawn:
        """What tells the score that a report is told by, of blocks of ground that are drawn."""

    @property
    def often(self) -> list[int] | None:
        """How much of what was scored is truly of each class; None where it is not one of several."""
        return None

    @property
    def absent(self) -> list[int]:
        """The numbers of the classes that do not occur in the truth."""
        return [number for number, count in enumerate(self.often or ()) if not count]


def scorer_of(question: Question) -> Scorer:
    """What counts for a question."""
    from .scoring_objects import Objects

    kinds: Mapping[str, Callable[[Question], Scorer]] = {
        "segmentation": Pixels,
        "classification": Labels,
        "fractions": Numbers,
        "regression": Numbers,
        "detection": Objects,
        "instances": Objects,
    }
    return kinds[question.task](question)


class Pixels(Scorer):
    """One class for each pixel."""

    def __init__(self, question: Question) -> None:
        assert question.classes is not None
        count = len(question.classes)
        self.confusion = Confusion(count, ignore=IGNORE)
        weights = question.classes.weights(question.balance).tolist()
        self.loss = LogLoss(count, weights=weights, ignore=IGNORE)
        self.calibration = Calibration(ignore=IGNORE)
        self._table: Confusion = self.confusion

    def update(self, said: Tensor, truth: Tensor, groups: Groups) -> None:
        """Add probabilities (B, K, H, W) and classes (B, H, W)."""
        chances, right = as_array(said), as_array(truth)
        for tally in (self._table, self.loss, self.calibration):
            assert tally is not None
            tally.update(chances, right, groups)

    def count(self, **where: Any) -> int:
        """Pixels."""
        return int(self._table.total(**where).sum())

    def overall(self, **where: Any) -> dict[str, Interval]:
        """IoU, F1, accuracy; the loss and the calibration over all clouds."""
        found = {name: _blocked(self._table, score, where) for name, score in OVERALL.items()}
        if not where:
            found["log_loss"] = _blocked(self.loss, log_loss, where)
            assert self.calibration is not None
            found["calibration_error"] = _blocked(self.calibration, expected_calibration_error, where)
        return found

    def by_class(self) -> dict[str, Interval]:
        """IoU, F1, recall and precision."""
        return {name: _blocked(self._table, score, {}) for name, score in BY_CLASS.items()}

    @property
    def drawn(self) -> Drawn:
        """Of the mean IoU."""
        return of_tally(self._table, OVERALL["mean_iou"])

    @property
    def often(self) -> list[int]:
        """Pixels of each class."""
        return [int(count) for count in self._table.total().sum(axis=1)]


class Labels(Scorer):
    """Which classes are in a sample."""

    def __init__(self, question: Question) -> None:
        assert question.classes is not None
        self.table = MultiLabel(len(question.classes))
        self.loss = LogLoss(2, ignore=-1)
        self.calibration = Calibration(of="each")
        self._known: tuple[Interval, Interval] | None = None

    def update(self, said: Tensor, truth: Tensor, groups: Groups) -> None:
        """Add probabilities (B, K) and a truth of 1, 0 and NaN."""
        self._known = None
        chances, right = as_array(said), as_array(truth).astype("float64")
        self.table.update(chances, right, groups)
        classes = np.where(np.isfinite(right), right > 0.5, -1).astype("int64")
        self.loss.update(np.stack([1 - chances, chances], axis=1), classes, groups)
        assert self.calibration is not None
        self.calibration.update(chances, np.nan_to_num(right, nan=-1), groups)

    def count(self, **where: Any) -> int:
        """Samples that any class is known of."""
        return int(self.table.total(**where).sum(axis=-1).max(initial=0))

    def overall(self, **where: Any) -> dict[str, Interval]:
        """F1, accuracy, the mean of the average precisions."""
        found = {
            "macro_f1": _blocked(self.table, _macro_f1, where),
            "micro_f1": _blocked(self.table, label_micro_f1, where),
            "accuracy": _blocked(self.table, _share_right, where),
            "mean_average_precision": self._precision(where)[0],
        }
        if not where:
            # No class counts more than another here, so that it is no weighted log loss.
            found["log_loss_by_label"] = _blocked(self.loss, log_loss, where)
            assert self.calibration is not None
            found["calibration_error"] = _blocked(self.calibration, expected_calibration_error, where)
        return found

    def by_class(self) -> dict[str, Interval]:
        """F1 and average precision."""
        return {
            "f1": _blocked(self.table, label_f1, {}),
            "average_precision": self._precision({})[1],
        }

    @property
    def drawn(self) -> Drawn:
        """Of the macro F1."""
        return of_tally(self.table, _macro_f1)

    @property
    def often(self) -> list[int]:
        """Samples that have each class."""
        sums = self.table.total()
        return [int(count) for count in sums[:, 0] + sums[:, 2]]

    def _precision(self, where: Mapping[str, Any]) -> tuple[Interval, Interval]:
        """The mean of the average precisions, and each of them, which one set of draws tells."""
        if not where and self._known is not None:
            return self._known
        chosen = np.ones(len(self.table.samples_by("block")), bool)
        for name, value in where.items():
            chosen &= self.table.samples_by(name) == value
        blocks, number = np.unique(self.table.samples_by("block")[chosen], return_inverse=True)
        step = max(1, AT_ONCE // max(1, len(chosen)))

        def drawn(weight: np.ndarray) -> np.ndarray:
            parts = []
            for start in range(0, len(weight), step):
                each = np.zeros((len(weight[start : start + step]), len(chosen)))
                each[:, chosen] = weight[start : start + step][:, number]
                found = self.table.average_precision(each)
                parts.append(np.concatenate([mean_of_known(found)[..., None], found], axis=-1))
            return np.concatenate(parts)

        told = drawn_interval(drawn, len(blocks))
        both = part_of(told, 0), part_of(told, slice(1, None))
        if not where:
            self._known = both
        return both


class Numbers(Scorer):
    """Shares of classes, or a number for each pixel."""

    def __init__(self, question: Question) -> None:
        self.shares = question.classes is not None
        self.table = Regression(question.outputs)

    def update(self, said: Tensor, truth: Tensor, groups: Groups) -> None:
        """Add shares (B, K) and true ones, or numbers (B, 1, H, W) and (B, H, W)."""
        self.table.update(as_array(said if self.shares else said[:, 0]), as_array(truth), groups)

    def count(self, **where: Any) -> int:
        """Samples, or pixels."""
        return int(self.table.total(**where)[:, 0].max())

    def overall(self, **where: Any) -> dict[str, Interval]:
        """Errors; of shares those of all classes together."""
        names = ("rmse", "mae", "r2") if self.shares else tuple(REGRESSION)
        return {name: _blocked(self.table, _together(name), where) for name in names}

    def by_class(self) -> dict[str, Interval]:
        """Errors of the share of each class."""
        return {name: _blocked(self.table, score, {}) for name, score in REGRESSION.items()} if self.shares else {}

    @property
    def drawn(self) -> Drawn:
        """Of the RMSE."""
        return of_tally(self.table, _together("rmse"))


def ahead(these: Sequence[Scorer], those: Sequence[Scorer]) -> Interval:
    """By how much more some runs score than others on the same blocks of ground, each by the mean over its runs.

    Ground that is hard is hard for both, so that this is much surer than the two intervals side by side.
    """
    parts = [[each.drawn for each in runs] for runs in (these, those)]

    def apart(weight: np.ndarray) -> np.ndarray:
        one, other = (np.mean([score(weight) for score, _ in runs], axis=0) for runs in parts)
        return np.asarray(one - other)

    return drawn_interval(apart, parts[0][0][1])


def part_of(told: Interval, place: Any) -> Interval:
    """Some of the scores of an interval of several."""
    return replace(told, value=told.value[place], low=told.low[place], high=told.high[place])


def of_tally(tally: Tally, score: Score) -> Drawn:
    """A score of sums, from how often each block counts."""
    return of_tables(tally.by("block")[1], score)


def of_tables(tables: np.ndarray, score: Score) -> Drawn:
    """The same of tables that are there already, one a block.

    >>> score, blocks = of_tables(np.array([[1, 2], [3, 4]]), lambda sums: sums[..., 0] / sums[..., 1])
    >>> score(np.array([[1, 0], [1, 1]])).round(3).tolist(), blocks
    ([0.5, 0.667], 2)
    """
    return lambda weight: score(summed(weight, tables)), len(tables)


def _macro_f1(table: np.ndarray) -> np.ndarray:
    return mean_of_known(label_f1(table))


def _together(name: str) -> Score:
    # What is explained is told class by class, for each varies by itself; errors are added up.
    if name == "r2":
        return lambda table: mean_of_known(REGRESSION["r2"](table))
    return lambda table: REGRESSION[name](table.sum(axis=-2))


def _share_right(table: np.ndarray) -> np.ndarray:
    sums = np.asarray(table, "float64").sum(axis=-2)
    return ratio(sums[..., 0] + sums[..., 3], sums.sum(axis=-1))


def _blocked(tally: Tally, score: Score, where: Mapping[str, Any]) -> Interval:
    return blocked_interval(tally.by("block", **where)[1], score)
