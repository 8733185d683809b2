"""What a probe found: scores beside those of guessing, class by class and fold by fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class ProbeReport:
    """How well the classes can be told apart by vectors alone, tested on ground that was not learnt from."""

    probe: str
    """Which probe it was: "kNN-5" or "linear"."""
    table: pd.DataFrame
    """One row an embedding and share of the labels: `embedding, share, accuracy, accuracy_sd, balanced_accuracy,
    macro_f1, n_train, n_test`. The rows "majority" and "chance" are controls that see no vector. Scores are of all
    tested samples together; `accuracy_sd` is the spread over folds."""
    classes: pd.DataFrame
    """One row an embedding, share and class: `embedding, share, class, name, recall, precision, f1, support`."""
    folds: pd.DataFrame
    """One row an embedding, share and fold: `embedding, share, fold, accuracy, balanced_accuracy, n_train, n_test`, and
    for the linear probe `regularisation`, the one that was best on the validation fold."""
    predictions: pd.DataFrame
    """One row a tested sample, in the order of the input: `row` (its position there), `x`, `y`, `fold`, `block`,
    `truth`, and a column of predictions for each embedding, learnt from all labels."""
    block_m: float
    """The side of the blocks that the folds are made of, in metres."""
    buffer_m: float
    """How far training stayed away from the test, in metres."""
    notes: tuple[str, ...] = ()
    """What should be known before the scores are believed."""

    def confusion(self, embedding: str | None = None) -> pd.DataFrame:
        """How many samples of each class (rows) were taken for which (columns); of the first embedding unless named."""
        name = self.table["embedding"].iloc[0] if embedding is None else embedding
        known = sorted(self.predictions["truth"].unique())
        truth, found = (pd.Categorical(self.predictions[column], known) for column in ("truth", name))
        return pd.crosstab(truth, found, rownames=["truth"], colnames=[str(name)], dropna=False)

    def __repr__(self) -> str:
        tested = f"{len(self.predictions):,} samples of {self.predictions['truth'].nunique()} classes"
        apart = f"{self.predictions['fold'].nunique()} folds of blocks of {self.block_m:,.0f} m"
        apart += f", {self.buffer_m:,.0f} m apart" if self.buffer_m else ""
        shown = self.table.assign(share=[f"{100 * share:g} %" for share in self.table["share"]])
        text = shown.to_string(index=False, float_format=lambda number: f"{number:.3f}")
        return "\n".join([f"{self.probe} probe: {tested}, {apart}", text, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        from html import escape

        head, _, rest = repr(self).partition("\n")
        notes = "".join(f"<br>{escape(line)}" for line in rest.splitlines() if line.startswith("note: "))
        table = self.table.to_html(index=False, float_format=lambda number: f"{number:.3f}")
        return f"<b>{escape(head)}</b>{table}{notes}"


def scores(truth: np.ndarray, found: np.ndarray, count: int) -> dict[str, Any]:
    """Accuracy, the mean recall and the mean F1 over the classes that occur, and recall, precision and F1 of each.

    >>> round(scores(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)["balanced_accuracy"], 3)
    0.75
    """
    table = np.zeros((count, count))
    np.add.at(table, (truth, found), 1)
    hits, support, claimed = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(support > 0, hits / support, np.nan)
        precision = np.where(claimed > 0, hits / claimed, np.nan)
        f1 = np.where(support > 0, 2 * hits / (support + claimed), np.nan)
    return {
        "accuracy": float(hits.sum() / max(len(truth), 1)),
        "balanced_accuracy": float(np.nanmean(recall)),
        "macro_f1": float(np.nanmean(f1)),
        "recall": recall,
        "precision": precision,
        "f1": f1,
        "support": support.astype("int64"),
    }


@dataclass
class Ledger:
    """Collects what is found, one embedding and share after another, and makes the tables of it."""

    names: Sequence[Any]
    """What each class is called."""
    codes: Sequence[Any]
    """What each class is in the labels."""

    def __post_init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.classes: list[dict[str, Any]] = []
        self.folds: list[dict[str, Any]] = []

    def add(
        self, embedding: str, share: float, truth: np.ndarray, found: np.ndarray, folds: list[dict[str, Any]]
    ) -> None:
        """Note the predictions for all tested samples, and what is known of each fold."""
        tested = found >= 0
        total = scores(truth[tested], found[tested], len(self.codes))
        spread = float(np.std([fold["accuracy"] for fold in folds]))
        head = {"embedding": embedding, "share": share}
        means = {"n_train": round(float(np.mean([fold["n_train"] for fold in folds]))), "n_test": int(tested.sum())}
        scored = {name: total[name] for name in ("accuracy", "balanced_accuracy", "macro_f1")}
        self.rows.append({**head, "accuracy": scored.pop("accuracy"), "accuracy_sd": spread, **scored, **means})
        for number, (code, name) in enumerate(zip(self.codes, self.names, strict=True)):
            each = {key: total[key][number] for key in ("recall", "precision", "f1", "support")}
            self.classes.append({**head, "class": code, "name": name, **each})
        self.folds += [{**head, **fold} for fold in folds]
