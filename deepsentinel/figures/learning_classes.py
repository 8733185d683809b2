"""The right half of a report's page: class by class, under clouds, what was taken for what, and how sure it was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from deepsentinel.errors import InputError
from deepsentinel.learn.report import ALL, BY_CLASS, LOWER_IS_BETTER, MODEL, SENSORS
from deepsentinel.learn.report_words import number, words

from . import slides
from .histories import GRID
from .slides import BLUE, FAINT, GREY, INK, MARGIN_IN, ORANGE, PAGE_WIDTH_IN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from deepsentinel.learn.report import Report

# More classes than this are too many for one page; the most frequent ones are shown.
LISTED = 10
CLASS_IN, HEADING_IN, AXIS_IN, CURVE_IN = 0.24, 0.34, 0.6, 2.2
# Names have as much room as they need, as long as bars and cells keep theirs; numbers stand behind bars.
LEAST_BARS_IN, MOST_BARS_IN, LEAST_CELL_IN, MOST_CELL_IN, NUMBER_IN = 1.5, 4.0, 0.42, 0.8, 0.6
BRIEFLY = {"both": "both", "s1": "S1", "s2": "S2"}


def label(fig: Figure, x_in: float, y_in: float, text: str, **options: Any) -> None:
    """A line of text, placed in inches from the upper left corner."""
    width, height = fig.get_size_inches()
    fig.text(x_in / width, 1 - y_in / height, text, **{"color": INK, "va": "center", "size": 9, **options})


def heading(fig: Figure, x_in: float, y_in: float, text: str) -> None:
    """What stands over a chart."""
    label(fig, x_in, y_in, text, size=10.5, weight="bold")


def width_in(text: str, size: float = 9) -> float:
    """How wide a line of text will be.

    >>> width_in("i" * 20) < width_in("w" * 20) / 2
    True
    """
    from matplotlib.textpath import TextPath

    # On a screen letters stand a little wider than they are drawn.
    return 1.06 * float(TextPath((0, 0), text, size=size).get_extents().width) / 72 if text.strip() else 0.0


def cut(text: str, room_in: float, size: float = 9) -> str:
    """A name, or as much of it as there is room for.

    >>> cut("field", 2), cut("non-irrigated arable land", 1)
    ('field', 'non-irrigated…')
    """
    if width_in(text, size) <= room_in:
        return text
    low, high = 1, len(text)
    while low < high:  # the longest beginning that fits, by halves: to measure a line takes a while
        middle = (low + high + 1) // 2
        fits = width_in(text[:middle].rstrip(" ,-") + "…", size) <= room_in
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low].rstrip(" ,-") + "…"


def room_for(names: Iterable[str], most_in: float, size: float = 9) -> float:
    """How much room a column of names takes, at most so much."""
    return min(max((width_in(str(name), size) for name in names), default=0.0) + 0.05, most_in)


def whiskers(axes: Axes, rows: np.ndarray, table: pd.DataFrame, *, dots: bool = False) -> None:
    """Intervals across bars, a little higher where dots need their room."""
    axes.hlines(rows - (0.08 if dots else 0), table["low"], table["high"], color=INK, lw=1.3, zorder=3)


def limits(axes: Axes, metric: str, values: pd.DataFrame) -> None:
    """From nothing to all where that is the scale, so that bars can be compared between pages."""
    ends = values[["mean", "low", "high"]].to_numpy("float64")
    ends = ends[np.isfinite(ends)]
    if metric in LOWER_IS_BETTER or not len(ends) or ends.min() < 0 or ends.max() > 1:
        reach = (min(0.0, float(ends.min())), max(0.0, float(ends.max()))) if len(ends) else (0.0, 1.0)
        axes.set_xlim(1.08 * reach[0], 1.08 * reach[1] or 1.0)
    else:
        axes.set_xlim(0, 1)
    axes.grid(axis="x", color=GRID, lw=0.8, zorder=0)
    axes.set_axisbelow(True)


# -- what is drawn -----------------------------------------------------------------------------------------------------


def by_class(report: Report) -> pd.DataFrame | None:
    """Scores by class of the model, and beside each the best of the controls."""
    metric = BY_CLASS.get(report.headline, report.headline)
    try:
        found = report.scores(metric, sensors=report.measured[0], by_class=True)
    except InputError:
        return None
    if MODEL not in found.index.get_level_values("what"):
        return None
    model = found.xs(MODEL, level="what")
    controls = found[found.index.get_level_values("what") != MODEL]["mean"].dropna().groupby("class")
    best = controls.min() if metric in LOWER_IS_BETTER else controls.max()
    return model.assign(best=best.reindex(model.index), metric=metric)


def listed(report: Report, each: pd.DataFrame | None) -> list[str]:
    """The classes that are shown: those that occur, the most frequent ones where there are too many."""
    if report.confusion is not None:
        often = report.confusion.sum(axis=1).sort_values(ascending=False, kind="stable")
        names = [str(name) for name in often.index[often.to_numpy() > 0]]
        return names if each is None else [name for name in names if name in each.index][:LISTED]
    return [] if each is None else [str(name) for name in each.index[each["mean"].notna()]][:LISTED]


def by_cloud(report: Report) -> pd.DataFrame:
    """The model under each step of cloud, with each way of seeing."""
    table = report.table()
    chosen = (table["what"] == MODEL) & (table["metric"] == report.headline) & (table["class"] == "")
    here = table[chosen & (table["cloud"] != ALL)]
    return here.sort_values("sensors", key=lambda names: names.map(list(SENSORS).index), kind="stable")


def matrix_of(report: Report, shown: list[str]) -> pd.DataFrame:
    """Shares of the true classes, the classes that are not shown together in the last column."""
    if report.confusion is None or not shown:
        return pd.DataFrame()
    table = report.confusion.astype("float64")
    table = table.set_axis([str(name) for name in table.index], axis=0)
    table = table.set_axis([str(name) for name in table.columns], axis=1).loc[shown]
    rest = table.drop(columns=shown)
    found = table[shown]
    if rest.to_numpy().any():
        found = found.assign(others=rest.sum(axis=1))
    return found.div(table.sum(axis=1), axis=0)


# -- charts ------------------------------------------------------------------------------------------------------------


def draw_classes(
    fig: Figure, report: Report, each: pd.DataFrame, left_in: float, top_in: float, room_in: float, row_in: float
) -> None:
    """A bar for each class, with a mark where the best control is."""
    metric = str(each["metric"].iloc[0])
    heading(fig, left_in, top_in + HEADING_IN / 2, f"{words(metric)} by class")
    names_in = room_for(each.index, room_in - LEAST_BARS_IN - NUMBER_IN - 0.1)
    bars_in = min(room_in - names_in - 0.1 - NUMBER_IN, MOST_BARS_IN)
    top_in += HEADING_IN
    axes = slides.plain(slides.axes_in(fig, left_in + names_in + 0.1, top_in, bars_in, row_in * len(each)))
    at = np.arange(len(each))
    axes.barh(at, each["mean"], 0.66, color=BLUE, zorder=2)
    axes.vlines(each["best"], at - 0.33, at + 0.33, color=ORANGE, lw=2.2, zorder=3)
    whiskers(axes, at, each)
    for row, (name, value) in enumerate(zip(each.index, each["mean"], strict=True)):
        y_in = top_in + row_in * (row + 0.5)
        label(fig, left_in + names_in, y_in, cut(str(name), names_in), ha="right")
        label(fig, left_in + names_in + 0.1 + bars_in + 0.48, y_in, number(float(value)), ha="right")
    axes.set_ylim(len(each) - 0.5, -0.5)
    axes.set_yticks([])
    limits(axes, metric, each)
    key = ["orange: the best control"] if each["best"].notna().any() else []
    key += [f"{len(each)} of {len(report.classes)} classes"] if len(each) < len(report.classes) else []
    axes.set_xlabel("; ".join(key), size=9, color=FAINT)


def clouds_in(table: pd.DataFrame) -> float:
    """How high the chart of clouds is."""
    return HEADING_IN + CLASS_IN * len(table) + 0.12 * (table["sensors"].nunique() - 1) + AXIS_IN if len(table) else 0.0


def draw_clouds(
    fig: Figure, report: Report, table: pd.DataFrame, left_in: float, top_in: float, room_in: float
) -> None:
    """A bar for each step of cloud, one set for each way of seeing."""
    heading(fig, left_in, top_in + HEADING_IN / 2, "the model by cloud")
    top_in += HEADING_IN
    told = [f"{BRIEFLY[sensors]}, {cloud}" for sensors, cloud in zip(table["sensors"], table["cloud"], strict=True)]
    names_in = room_for(told, 2.0)
    bars_in = min(room_in - names_in - 0.1 - NUMBER_IN, MOST_BARS_IN)
    places = table["sensors"].map({name: at for at, name in enumerate(dict.fromkeys(table["sensors"]))}).to_numpy()
    at = np.arange(len(table)) + places * 0.12 / CLASS_IN
    high = float(at[-1]) + 1
    axes = slides.plain(slides.axes_in(fig, left_in + names_in + 0.1, top_in, bars_in, CLASS_IN * high))
    axes.barh(at, table["mean"], 0.66, color=GREY, zorder=2)
    whiskers(axes, at, table)
    for y, name, value in zip(at, told, table["mean"], strict=True):
        y_in = top_in + CLASS_IN * (float(y) + 0.5)
        label(fig, left_in + names_in, y_in, name, ha="right")
        label(fig, left_in + names_in + 0.1 + bars_in + 0.48, y_in, number(float(value)), ha="right")
    axes.set_ylim(high - 0.5, -0.5)
    axes.set_yticks([])
    limits(axes, report.headline, table)
    of_each = report.classes and report.headline in BY_CLASS
    axes.set_xlabel(
        "each step is other ground, and its mean over the classes there" if of_each else "", size=9, color=FAINT
    )


def draw_reliability(fig: Figure, curve: pd.DataFrame, top_in: float) -> None:
    """How often the model is right, by how sure it is; below the diagonal it is surer than it should be."""
    left_in = PAGE_WIDTH_IN - MARGIN_IN - CURVE_IN
    heading(fig, left_in - 0.5, top_in + HEADING_IN / 2, "right as often as it says?")
    axes = slides.plain(slides.axes_in(fig, left_in, top_in + HEADING_IN, CURVE_IN, CURVE_IN))
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--", zorder=1)
    axes.fill_between([0, 1], [0, 1], color=GRID, alpha=0.5, lw=0, zorder=0)
    axes.plot(curve["confidence"], curve["accuracy"], "o-", color=BLUE, lw=1.6, ms=4, zorder=2)
    axes.text(0.97, 0.05, "too sure of itself", size=8.5, color=FAINT, ha="right", va="bottom")
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axes.set_xlabel("how sure it was", size=9, color=FAINT)
    axes.set_ylabel("share right", size=9, color=FAINT, labelpad=2)


def draw_matrix(fig: Figure, matrix: pd.DataFrame, left_in: float, top_in: float, room_in: float) -> None:
    """Shares of each true class, a row each; numbers above the columns stand for the same classes in order."""
    rows, columns = matrix.shape
    names_in = room_for(matrix.index, room_in - 0.4 - LEAST_CELL_IN * columns)
    heading(fig, left_in, top_in + HEADING_IN / 2, "what each class was taken for, % of its pixels or samples")
    cells_in = left_in + names_in + 0.4
    cell_in = min((left_in + room_in - cells_in) / columns, MOST_CELL_IN)
    top_in += HEADING_IN + 0.3
    axes = slides.axes_in(fig, cells_in, top_in, cell_in * columns, CLASS_IN * rows)
    axes.imshow(100 * matrix.to_numpy("float64"), cmap="Blues", vmin=0, vmax=130, aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    for column in range(columns):
        told = "other" if column >= rows else str(column + 1)
        label(fig, cells_in + cell_in * (column + 0.5), top_in - 0.12, told, ha="center", size=8.5, color=FAINT)
    for row, name in enumerate(matrix.index):
        y_in = top_in + CLASS_IN * (row + 0.5)
        label(fig, left_in + names_in, y_in, cut(str(name), names_in), ha="right")
        label(fig, cells_in - 0.1, y_in, str(row + 1), ha="right", size=8.5, color=FAINT)
        for column, share in enumerate(matrix.iloc[row]):
            # What is next to nothing is left empty, so that the mistakes are seen.
            if share >= 0.005:
                ink = "white" if share > 0.8 else INK
                axes.text(column, row, f"{100 * share:.0f}", size=8.5, ha="center", va="center", color=ink)
