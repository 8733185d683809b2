"""Scores as a person reads them: their names, their digits, their tables as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

WORDS = {
    "mean_iou": "mean IoU", "iou": "IoU", "macro_f1": "macro F1", "micro_f1": "micro F1", "f1": "F1",
    "balanced_accuracy": "balanced accuracy", "map": "mAP@[.5:.95]", "map_50": "mAP@0.5",
    "average_precision": "average precision", "average_precision_50": "average precision at 0.5", "mean_pq": "mean PQ",
    "mean_sq": "mean SQ", "mean_rq": "mean RQ",
    "pq": "PQ", "sq": "SQ", "rq": "RQ", "rmse": "RMSE", "mae": "MAE", "r2": "R²", "log_loss": "weighted log loss",
    "calibration_error": "calibration error",
}  # fmt: skip


def words(metric: str) -> str:
    """What a score is called in a sentence.

    >>> words("mean_iou"), words("my_own_score")
    ('mean IoU', 'my own score')
    """
    return WORDS.get(metric, metric.replace("_", " "))


def few_shot_title(table: pd.DataFrame) -> str:
    """What a table of few_shot tells, in a line.

    >>> few_shot_title(pd.DataFrame({"classes": [3], "n": [90]}))
    '3 classes never seen, balanced accuracy from a few examples of each'
    """
    return few_shot_headline(table, few_shot_names(table))


def few_shot_headline(table: pd.DataFrame, names: Sequence[str] = ()) -> str:
    """The same with some of the classes, or with none.

    >>> few_shot_headline(pd.DataFrame({"classes": [2]}), ["heath", "marsh"])
    '2 classes never seen (heath, marsh), balanced accuracy from a few examples of each'
    """
    told = f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})" if names else ""
    return f"{int(table['classes'].max())} classes never seen{told}, balanced accuracy from a few examples of each"


def few_shot_names(table: pd.DataFrame) -> list[str]:
    """Which classes a table of few_shot is about, where it says so."""
    return [str(name) for name in table.attrs.get("held_out", ())]


def as_text(table: pd.DataFrame, names: Sequence[str] = ("what",)) -> pd.DataFrame:
    """Numbers as text: the mean, its interval, and how far seeds are apart."""
    shown = table[list(names)].reset_index(drop=True)
    shown["mean"] = [number(value) for value in table["mean"]]
    shown["interval"] = [
        "none" if np.isnan(low) or np.isnan(high) else f"{number(low)} to {number(high)}"
        for low, high in zip(table["low"], table["high"], strict=True)
    ]
    shown["seeds"] = table["seeds"].to_numpy()
    shown["spread"] = [
        "one seed" if seeds < 2 else number(value) for seeds, value in zip(table["seeds"], table["spread"], strict=True)
    ]
    shown["n"] = [f"{count:,}" for count in table["n"]]
    return shown


def few_as_text(table: pd.DataFrame) -> pd.DataFrame:
    """One row an encoder and probe, one column a number of examples."""
    wide = table.pivot_table(index=["what", "probe"], columns="shots", values="mean", sort=False)
    wide = wide[sorted(wide.columns)].map(number)
    return wide.set_axis([f"{shots} each" for shots in wide.columns], axis=1).reset_index()


def number(value: float) -> str:
    """A score with the digits that mean something.

    >>> number(0.51234), number(1234.5), number(float("nan"))
    ('0.512', '1,234', 'none')
    """
    if np.isnan(value):
        return "none"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def standing(gain: float, than: str, ends: Sequence[float] | None = None) -> str:
    """How much better or worse than a control, as far as the interval of the difference lets anyone say so.

    >>> standing(-0.25, "from scratch", (-0.31, -0.2))
    '0.250 WORSE than the best control (from scratch), interval -0.310 to -0.200'
    >>> standing(0.01, "from scratch", (-0.02, 0.03))
    'no difference from the best control (from scratch) that this test can show: 0.010, interval -0.020 to 0.030'
    >>> standing(-0.25, "from scratch")
    '0.250 worse than the best control (from scratch), with no interval'
    """
    best = f"the best control ({than})"
    if ends is None or not np.isfinite(ends).all():
        return f"{number(abs(gain))} {'better' if gain >= 0 else 'worse'} than {best}, with no interval"
    interval = f"interval {number(ends[0])} to {number(ends[1])}"
    if not shows(ends):
        return f"no difference from {best} that this test can show: {number(gain)}, {interval}"
    return f"{number(abs(gain))} {'better' if gain >= 0 else 'WORSE'} than {best}, {interval}"


def shows(ends: Sequence[float] | None) -> bool:
    """Whether an interval of a difference excludes that there is none.

    >>> shows((0.01, 0.2)), shows((-0.1, 0.2)), shows(None)
    (True, False, False)
    """
    return ends is not None and bool(ends[0] > 0 or ends[1] < 0)
