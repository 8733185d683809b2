"""The figure of a probe: what an embedding tells apart, beside what it takes no embedding to tell apart."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from . import slides
from .slides import BLUE, FAINT, FOOT_IN, GREY, HEAD_IN, INK, MARGIN_IN, PAGE_WIDTH_IN, SKY

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from deepsentinel.similarity import ProbeReport

GUESSES = ("majority", "chance")
GUESSES_IN_WORDS = {"majority": "the most frequent class", "chance": "guessing by frequency"}
# Encoders that learnt nothing; what is called so is drawn as a control.
UNTRAINED = ("image-statistics", "random-convolutions")
NAME_IN, BARS_IN, GAP_IN = 2.35, 3.3, 1.0
CLASS_IN = 2.15
ROW_IN, SPACE_IN = 0.42, 0.45
CELL_MAX_IN = 1.1
LONGEST_NAME = 34
# More classes than this are too many for one page; the most frequent ones are shown.
LISTED = 14


def probe_figure(report: ProbeReport, *, title: str | None) -> Figure:
    """Balanced accuracy of every embedding with its controls, and how well each class is found.

    >>> import xarray as xr
    >>> from deepsentinel.similarity import knn
    >>> kind = np.repeat(["field", "wood"], 20)
    >>> place = {"lon": ("sample", np.linspace(2, 3, 40)), "lat": ("sample", np.tile(np.linspace(48, 49, 20), 2))}
    >>> z = xr.DataArray(np.where(kind == "wood", 1.0, -1.0)[:, None] + np.zeros((40, 4)), place, ("sample", "feature"))
    >>> probe_figure(knn(z, kind, folds=2), title=None).texts[0].get_text()
    'embedding tells 2 classes apart: 100 % found, 52 % by guessing'
    """
    table = report.table.sort_values("share", kind="stable").drop_duplicates("embedding", keep="last")
    # Drawing by share does not change which embeddings there are, nor their order.
    names = list(dict.fromkeys(report.table["embedding"]))
    scores = table.set_index("embedding").loc[names]
    embeddings = [name for name in names if name not in GUESSES]
    shares = sorted(report.table["share"].unique())
    classes = _recalls(report, embeddings)
    rows_in = max(len(names) * ROW_IN, 0.32 * (1 + len(classes)))
    shares_in = 2.5 if len(shares) > 1 else 0.0
    notes = report.notes
    fig = slides.page(
        HEAD_IN + SPACE_IN + rows_in + 0.55 + shares_in + 0.2 * len(notes) + FOOT_IN,
        title or _headline(scores, embeddings, report.predictions["truth"].nunique()),
        _subtitle(report),
        footer="balanced accuracy: the mean share found of each class; rare classes count as much as frequent ones",
        credit="deepsentinel",
    )
    _bars(fig, report, scores, HEAD_IN + SPACE_IN)
    _matrix(fig, classes, HEAD_IN + SPACE_IN, rows_in)
    if shares_in:
        _learning(fig, report, embeddings, HEAD_IN + SPACE_IN + rows_in + 0.8)
    height_in = fig.get_size_inches()[1]
    for index, note in enumerate(notes):
        _label(fig, MARGIN_IN, height_in - FOOT_IN - 0.2 * (len(notes) - index) + 0.05, note, size=8.5, color=FAINT)
    return fig


def _headline(scores: pd.DataFrame, embeddings: list[str], count: int) -> str:
    reached = scores["balanced_accuracy"].to_dict()
    best = max(embeddings, key=lambda name: reached[name])
    guessed = max(reached[name] for name in GUESSES)
    return f"{best} tells {count} classes apart: {100 * reached[best]:.0f} % found, {100 * guessed:.0f} % by guessing"


def _subtitle(report: ProbeReport) -> str:
    folds = report.predictions["fold"].nunique()
    parts = [f"{report.probe} probe", f"{len(report.predictions):,} samples"]
    parts.append(f"tested on other ground than it learnt from: {folds} folds of blocks of {report.block_m:,.0f} m")
    if report.buffer_m:
        parts[-1] += f", {report.buffer_m:,.0f} m apart"
    return "   ·   ".join(parts)


def _recalls(report: ProbeReport, embeddings: list[str]) -> pd.DataFrame:
    """One row a class, the most frequent first; one column an embedding."""
    each = report.classes
    each = each[each["share"] == each["share"].max()]
    recall = each.pivot_table(index="class", columns="embedding", values="recall")[embeddings]
    first = each[each["embedding"] == embeddings[0]].set_index("class")
    order = first["support"].sort_values(ascending=False, kind="stable")
    order = order[order > 0].index[:LISTED]
    return recall.loc[order].set_axis([f"{first.loc[code, 'name']}" for code in order], axis=0)


def _colour(name: str) -> str:
    if name in GUESSES:
        return GREY
    return SKY if name.startswith(UNTRAINED) or "-random" in name else BLUE


def _bars(fig: Figure, report: ProbeReport, scores: pd.DataFrame, top_in: float) -> None:
    left_in = MARGIN_IN + NAME_IN
    axes = slides.plain(slides.axes_in(fig, left_in, top_in, BARS_IN, ROW_IN * len(scores)))
    at = np.arange(len(scores))
    axes.barh(at, 100 * scores["balanced_accuracy"], 0.62, color=[_colour(name) for name in scores.index], zorder=2)
    for row, name in enumerate(scores.index):
        folds = report.folds[report.folds["embedding"] == name]
        folds = folds[folds["share"] == folds["share"].max()]
        values = 100 * folds["balanced_accuracy"].to_numpy()
        axes.plot(values, np.full(values.size, row), "o", ms=4, mfc="white", mec=INK, mew=0.7, zorder=3)
        y_in = top_in + ROW_IN * (row + 0.5)
        said = GUESSES_IN_WORDS.get(str(name), str(name))
        shown = said if len(said) <= LONGEST_NAME else said[: LONGEST_NAME - 1] + "…"
        colour = FAINT if name in GUESSES else INK
        _label(fig, left_in - 0.12, y_in, shown, size=9.5, ha="right", color=colour)
        number = f"{100 * scores.loc[name, 'balanced_accuracy']:.1f}"
        _label(fig, left_in + BARS_IN + 0.5, y_in, number, size=10, ha="right", weight="bold", color=colour)
    axes.set_ylim(len(scores) - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xlim(0, 100)
    axes.grid(axis="x", color="#e6e8ea", lw=0.8, zorder=0)
    axes.set_xlabel("balanced accuracy, %; dots: single folds", size=9, color=FAINT)


def _matrix(fig: Figure, recalls: pd.DataFrame, top_in: float, height_in: float) -> None:
    """Shares found, as a table whose cells are the darker the more."""
    left_in = MARGIN_IN + NAME_IN + BARS_IN + GAP_IN + CLASS_IN
    count, columns = recalls.shape
    cell_in = min((PAGE_WIDTH_IN - MARGIN_IN - left_in) / columns, CELL_MAX_IN)
    row_in = min(height_in / count, ROW_IN)
    axes = slides.axes_in(fig, left_in, top_in, cell_in * columns, row_in * count)
    axes.imshow(100 * recalls.to_numpy("float64"), cmap="Blues", vmin=0, vmax=130, aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    letters = max(5, int(cell_in / 0.066))
    for column, name in enumerate(recalls.columns):
        lines = wrap(str(name), letters)[:3]
        _label(
            fig, left_in + cell_in * (column + 0.5), top_in - 0.08, "\n".join(lines), size=8, ha="center", va="bottom",
            color=FAINT,
        )  # fmt: skip
    for row, name in enumerate(recalls.index):
        y_in = top_in + row_in * (row + 0.5)
        shown = name if len(name) <= 30 else name[:29] + "…"
        _label(fig, left_in - 0.1, y_in, shown, size=9, ha="right")
        for column, share in enumerate(recalls.iloc[row]):
            ink = "white" if share > 0.75 else INK
            axes.text(column, row, f"{100 * share:.0f}", size=9, ha="center", va="center", color=ink)
    _label(
        fig,
        left_in,
        top_in + row_in * count + 0.2,
        "% of each class found, the largest class first",
        size=9,
        color=FAINT,
    )


def _learning(fig: Figure, report: ProbeReport, embeddings: list[str], top_in: float) -> None:
    """Scores by how many of the labels were learnt from."""
    axes = slides.plain(slides.axes_in(fig, MARGIN_IN + NAME_IN, top_in, BARS_IN, 1.7))
    for name in embeddings:
        own = report.table[report.table["embedding"] == name].sort_values("share")
        axes.plot(100 * own["share"], 100 * own["balanced_accuracy"], "o-", color=_colour(name), lw=1.6, ms=4)
        last = own.iloc[0]
        axes.annotate(
            name, (100 * last["share"], 100 * last["balanced_accuracy"]), (-8, 0), textcoords="offset points",
            size=8, ha="right", va="center", color=FAINT, annotation_clip=False,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.set_xlabel("share of the labels learnt from", size=9, color=FAINT)
    axes.set_ylabel("balanced accuracy, %", size=9, color=FAINT)
    axes.yaxis.set_label_position("right")
    axes.yaxis.tick_right()
    axes.spines["left"].set_visible(False)
    axes.spines["right"].set(visible=True, color=FAINT)


def _label(fig: Figure, x_in: float, y_in: float, text: str, **options: Any) -> None:
    width, height = fig.get_size_inches()
    fig.text(x_in / width, 1 - y_in / height, text, **{"color": INK, "va": "center", **options})
