"""The first page of a report: a model beside its controls, class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from deepsentinel.errors import InputError
from deepsentinel.learn.report import ALL, BY_CLASS, LOWER_IS_BETTER, MODEL, SENSORS
from deepsentinel.learn.report_words import number, words

from . import slides
from .few_shots import SHOTS_IN, few_shots
from .histories import GRID, PARTS, figure_of_history
from .mistakes import places_of_learning
from .slides import BLUE, FAINT, FOOT_IN, GREY, HEAD_IN, INK, MARGIN_IN, ORANGE, PAGE_WIDTH_IN, SKY, VERMILION
from .worst import worst_of_learning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from deepsentinel.learn.report import Report

# More classes than this are too many for one page; the most frequent ones are shown.
LISTED = 10
# Bars are longer where nothing else is on the page.
NAME_IN, BARS_IN, ALONE_IN = 1.65, 2.3, 9.5
ROW_IN, CLASS_IN, HEADING_IN, AXIS_IN = 0.3, 0.24, 0.34, 0.6
# Where the right half of the page begins, and the columns in it.
RIGHT_IN, CLASSES_IN, EACH_IN, CURVE_IN = 5.6, 1.75, 1.75, 2.2
LONGEST_NAME = 24


PAGES = ("report", "places", "worst")


def report_of_learning(
    report: Report, *, panels: str | Sequence[str] | None = None, title: str | None = None
) -> Figure:
    """The model beside its controls, class by class, what it took for what, and whether it knows when it is wrong.

    panels: "report" is this page, "places" the map of where it is wrong, "worst" the worst samples in pictures.

    >>> row = {"what": "model", "sensors": "both", "cloud": "all", "metric": "mean_iou", "class": "", "n": 900,
    ...        "low": 0.4, "high": 0.6}
    >>> from deepsentinel.learn.report import Report
    >>> report = Report("segmentation", (), pd.DataFrame([{**row, "seed": seed, "value": 0.5} for seed in (0, 1)]))
    >>> report_of_learning(report).texts[0].get_text()
    'Provisional: mean IoU 0.500'
    """
    asked = ["report"] if panels is None else [panels] if isinstance(panels, str) else list(panels)
    if len(asked) != 1 or asked[0] not in PAGES:
        raise InputError(f"panels={panels!r}: one page of a report is meant, {', '.join(PAGES)}.")
    if asked[0] != "report":
        return {"places": places_of_learning, "worst": worst_of_learning}[asked[0]](report, title=title)
    groups = {sensors: report.scores(report.headline, sensors=sensors) for sensors in report.measured}
    if not groups:
        raise InputError(f"This report has no {words(report.headline)} over all clouds, so there is nothing to draw.")
    each = _by_class(report)
    shown = _listed(report, each)
    matrix = _matrix(report, shown)
    bars_in = sum(HEADING_IN + ROW_IN * len(group) for group in groups.values()) + AXIS_IN
    upper_in = 0.0
    if shown and each is not None:
        upper_in = HEADING_IN + CLASS_IN * len(shown) + AXIS_IN
    if report.reliability is not None:
        upper_in = max(upper_in, HEADING_IN + CURVE_IN + AXIS_IN)
    lower_in = HEADING_IN + 0.3 + CLASS_IN * len(matrix) + 0.4 if len(matrix) else 0.0
    notes = [*report.notes]
    if report.missing:
        notes.insert(0, f"Provisional, for it lacks {'; '.join(report.missing)}")
    shots_in = 0.0 if report.few_shot is None else SHOTS_IN
    body_in = max(bars_in, upper_in + lower_in) + shots_in
    fig = slides.page(
        HEAD_IN + body_in + 0.2 * len(notes) + FOOT_IN + 0.1,
        title or _headline(report),
        slides.fitting([_kind(report), *(str(value) for value in report.about.values())], 12.3, 10),
        footer="bars: the mean over seeds; lines: its interval from blocks of ground; dots: single seeds",
        credit="deepsentinel",
    )
    _bars(fig, report, groups, BARS_IN if upper_in + lower_in else ALONE_IN)
    if shown and each is not None:
        _classes(fig, report, each.loc[shown], HEAD_IN)
    if report.reliability is not None:
        _reliability(fig, report.reliability, HEAD_IN)
    if len(matrix):
        _confusion(fig, matrix, HEAD_IN + upper_in)
    if report.few_shot is not None:
        few_shots(fig, report.few_shot, HEAD_IN + body_in - shots_in)
    for index, note in enumerate(notes):
        y_in = HEAD_IN + body_in + 0.2 * index + 0.12
        _label(
            fig,
            MARGIN_IN,
            y_in,
            _short(note, 190),
            size=8.5,
            color=VERMILION if report.missing and not index else FAINT,
        )
    return fig


def _headline(report: Report) -> str:
    sensors = report.measured[0]
    reached = report.scores(report.headline, sensors=sensors)["mean"].to_dict()[MODEL]
    told = f"{words(report.headline)} {number(float(reached))}"
    told += "" if sensors == "both" else f" with {SENSORS[sensors]}"
    if gained := report.gain():
        told += (
            f", {number(abs(gained[0]))} {'better' if gained[0] >= 0 else 'worse'} than the best control ({gained[1]})"
        )
    return f"Provisional: {told}" if report.missing else told[0].upper() + told[1:] if told[1:2].islower() else told


def _kind(report: Report) -> str:
    return report.task + (f" of {slides.counted(len(report.classes), 'class')}" if report.classes else "")


def _short(text: str, longest: int = LONGEST_NAME) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _label(fig: Figure, x_in: float, y_in: float, text: str, **options: Any) -> None:
    width, height = fig.get_size_inches()
    fig.text(x_in / width, 1 - y_in / height, text, **{"color": INK, "va": "center", "size": 9, **options})


def _heading(fig: Figure, x_in: float, y_in: float, text: str) -> None:
    _label(fig, x_in, y_in, text, size=10.5, weight="bold")


def _whiskers(axes: Axes, rows: np.ndarray, table: pd.DataFrame, *, dots: bool = False) -> None:
    """Intervals across bars, a little higher where dots need their room."""
    axes.hlines(rows - (0.08 if dots else 0), table["low"], table["high"], color=INK, lw=1.3, zorder=3)


def _limits(axes: Axes, metric: str, values: pd.DataFrame) -> None:
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


# -- a report ----------------------------------------------------------------------------------------------------------


def _bars(fig: Figure, report: Report, groups: Mapping[str, pd.DataFrame], wide_in: float) -> None:
    """One set of bars for each way of seeing; all on one scale."""
    left_in, top_in = MARGIN_IN + NAME_IN, HEAD_IN
    every = pd.concat(groups.values())
    rows = report.rows
    rows = rows[(rows["metric"] == report.headline) & (rows["class"] == "") & (rows["cloud"] == ALL)]
    for sensors, group in groups.items():
        _heading(fig, MARGIN_IN, top_in + HEADING_IN / 2, SENSORS[sensors])
        top_in += HEADING_IN
        axes = slides.plain(slides.axes_in(fig, left_in, top_in, wide_in, ROW_IN * len(group)))
        at = np.arange(len(group))
        axes.barh(at, group["mean"], 0.66, color=[BLUE if name == MODEL else SKY for name in group.index], zorder=2)
        _whiskers(axes, at, group, dots=True)
        for row, name in enumerate(group.index):
            single = rows[(rows["what"] == name) & (rows["sensors"] == sensors)]["value"]
            axes.plot(single, np.full(len(single), row + 0.21), "o", ms=3.6, mfc="white", mec=INK, mew=0.7, zorder=4)
            y_in = top_in + ROW_IN * (row + 0.5)
            weight = "bold" if name == MODEL else "normal"
            _label(fig, left_in - 0.1, y_in, str(name), ha="right", size=9.5, weight=weight)
            told = number(float(group["mean"].iloc[row]))
            _label(fig, left_in + wide_in + 0.55, y_in, told, ha="right", size=10, weight=weight)
        axes.set_ylim(len(group) - 0.5, -0.5)
        axes.set_yticks([])
        _limits(axes, report.headline, every)
        top_in += ROW_IN * len(group)
        if sensors == list(groups)[-1]:
            lower = ", the lower the better" if report.headline in LOWER_IS_BETTER else ""
            axes.set_xlabel(f"{words(report.headline)}{lower}", size=9, color=FAINT)
        else:
            axes.tick_params(labelbottom=False, length=0)


def _by_class(report: Report) -> pd.DataFrame | None:
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


def _listed(report: Report, each: pd.DataFrame | None) -> list[str]:
    """The classes that are shown: those that occur, the most frequent ones where there are too many."""
    if report.confusion is not None:
        often = report.confusion.sum(axis=1).sort_values(ascending=False, kind="stable")
        names = [str(name) for name in often.index[often.to_numpy() > 0]]
        return names if each is None else [name for name in names if name in each.index][:LISTED]
    return [] if each is None else [str(name) for name in each.index[each["mean"].notna()]][:LISTED]


def _classes(fig: Figure, report: Report, each: pd.DataFrame, top_in: float) -> None:
    metric = str(each["metric"].iloc[0])
    left_in = RIGHT_IN + CLASSES_IN
    _heading(fig, RIGHT_IN, top_in + HEADING_IN / 2, f"{words(metric)} by class")
    top_in += HEADING_IN
    axes = slides.plain(slides.axes_in(fig, left_in, top_in, EACH_IN, CLASS_IN * len(each)))
    at = np.arange(len(each))
    axes.barh(at, each["mean"], 0.66, color=BLUE, zorder=2)
    axes.vlines(each["best"], at - 0.33, at + 0.33, color=ORANGE, lw=2.2, zorder=3)
    _whiskers(axes, at, each)
    for row, (name, value) in enumerate(zip(each.index, each["mean"], strict=True)):
        y_in = top_in + CLASS_IN * (row + 0.5)
        _label(fig, left_in - 0.1, y_in, _short(str(name)), ha="right")
        _label(fig, left_in + EACH_IN + 0.48, y_in, number(float(value)), ha="right")
    axes.set_ylim(len(each) - 0.5, -0.5)
    axes.set_yticks([])
    _limits(axes, metric, each)
    key = ["orange: the best control"] if each["best"].notna().any() else []
    key += [f"{len(each)} of {len(report.classes)} classes"] if len(each) < len(report.classes) else []
    axes.set_xlabel("; ".join(key), size=9, color=FAINT)


def _reliability(fig: Figure, curve: pd.DataFrame, top_in: float) -> None:
    """How often the model is right, by how sure it is; below the diagonal it is surer than it should be."""
    left_in = PAGE_WIDTH_IN - MARGIN_IN - CURVE_IN
    _heading(fig, left_in - 0.5, top_in + HEADING_IN / 2, "right as often as it says?")
    axes = slides.plain(slides.axes_in(fig, left_in, top_in + HEADING_IN, CURVE_IN, CURVE_IN))
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--", zorder=1)
    axes.fill_between([0, 1], [0, 1], color=GRID, alpha=0.5, lw=0, zorder=0)
    axes.plot(curve["confidence"], curve["accuracy"], "o-", color=BLUE, lw=1.6, ms=4, zorder=2)
    axes.text(0.97, 0.05, "too sure of itself", size=8.5, color=FAINT, ha="right", va="bottom")
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axes.set_xlabel("how sure it was", size=9, color=FAINT)
    axes.set_ylabel("share right", size=9, color=FAINT, labelpad=2)


def _matrix(report: Report, shown: list[str]) -> pd.DataFrame:
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


def _confusion(fig: Figure, matrix: pd.DataFrame, top_in: float) -> None:
    """Shares of each true class, a row each; numbers above the columns stand for the same classes in order."""
    rows, columns = matrix.shape
    left_in = RIGHT_IN + CLASSES_IN + 0.25
    cell_in = min((PAGE_WIDTH_IN - MARGIN_IN - left_in) / columns, 0.62)
    _heading(fig, RIGHT_IN, top_in + HEADING_IN / 2, "what each class was taken for, % of its pixels or samples")
    top_in += HEADING_IN + 0.3
    axes = slides.axes_in(fig, left_in, top_in, cell_in * columns, CLASS_IN * rows)
    axes.imshow(100 * matrix.to_numpy("float64"), cmap="Blues", vmin=0, vmax=130, aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    for column in range(columns):
        told = "other" if column >= rows else str(column + 1)
        _label(fig, left_in + cell_in * (column + 0.5), top_in - 0.12, told, ha="center", size=8.5, color=FAINT)
    for row, name in enumerate(matrix.index):
        y_in = top_in + CLASS_IN * (row + 0.5)
        _label(fig, left_in - 0.38, y_in, _short(str(name)), ha="right")
        _label(fig, left_in - 0.1, y_in, str(row + 1), ha="right", size=8.5, color=FAINT)
        for column, share in enumerate(matrix.iloc[row]):
            # What is next to nothing is left empty, so that the mistakes are seen.
            if share >= 0.005:
                ink = "white" if share > 0.8 else INK
                axes.text(column, row, f"{100 * share:.0f}", size=8.5, ha="center", va="center", color=ink)


__all__ = ["PARTS", "figure_of_history", "report_of_learning"]
