"""The first page of a report: a model beside its controls, class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from deepsentinel.errors import InputError
from deepsentinel.learn.report import ALL, LOWER_IS_BETTER, MODEL, SENSORS
from deepsentinel.learn.report_words import number, shows, words

from . import slides
from .few_shots import SHOTS_IN, few_shots
from .histories import PARTS, figure_of_history
from .learning_classes import (
    AXIS_IN,
    CLASS_IN,
    CURVE_IN,
    HEADING_IN,
    LISTED,
    by_class,
    by_cloud,
    clouds_in,
    draw_classes,
    draw_clouds,
    draw_matrix,
    draw_reliability,
    heading,
    label,
    limits,
    listed,
    matrix_of,
    whiskers,
)
from .mistakes import places_of_learning
from .slides import BLUE, FAINT, FOOT_IN, HEAD_IN, INK, MARGIN_IN, PAGE_WIDTH_IN, SKY, VERMILION
from .worst import worst_of_learning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from deepsentinel.learn.report import Report

NAME_IN, BARS_IN, ALONE_IN = 1.65, 2.3, 9.5
ROW_IN, MOST_ROW_IN, MOST_CLASS_IN = 0.3, 0.44, 0.36
# Where the right half of the page begins.
RIGHT_IN = 5.3
LONGEST_NOTE = 190

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
    each = by_class(report)
    shown = listed(report, each)
    matrix = matrix_of(report, shown)
    clouds = by_cloud(report)
    notes = [*report.notes]
    if report.missing:
        notes.insert(0, f"Provisional, for it lacks {'; '.join(report.missing)}")
    shots_in = 0.0 if report.few_shot is None else SHOTS_IN
    plan = _laid_out(report, groups, len(shown) if each is not None else 0, len(matrix), clouds)
    fig = slides.page(
        HEAD_IN + plan.body_in + shots_in + 0.2 * len(notes) + FOOT_IN + 0.1,
        title or _headline(report),
        slides.fitting([_kind(report), *(str(value) for value in report.about.values())], 12.3, 10),
        footer="bars: the mean over seeds; lines: its interval from blocks of ground; dots: single seeds",
        credit="deepsentinel",
    )
    alone = not (plan.upper_in or len(matrix) or plan.clouds)
    _bars(fig, report, groups, ALONE_IN if alone else BARS_IN, plan.row_in)
    right_in, room_in = RIGHT_IN, PAGE_WIDTH_IN - MARGIN_IN - RIGHT_IN
    if shown and each is not None:
        wide_in = room_in - (CURVE_IN + 0.75 if report.reliability is not None else 0)
        draw_classes(fig, report, each.loc[shown], right_in, HEAD_IN, wide_in, plan.class_in)
    if report.reliability is not None:
        draw_reliability(fig, report.reliability, HEAD_IN)
    lower_in = HEAD_IN + plan.lower_at_in
    if len(matrix) and plan.below:
        half_in = 7.2 if plan.clouds else PAGE_WIDTH_IN - 2 * MARGIN_IN
        draw_matrix(fig, matrix, MARGIN_IN, lower_in, half_in)
        right_in, room_in = MARGIN_IN + half_in + 0.5, PAGE_WIDTH_IN - 2 * MARGIN_IN - half_in - 0.5
    elif len(matrix):
        draw_matrix(fig, matrix, right_in, lower_in, room_in)
    if plan.clouds:
        draw_clouds(fig, report, clouds, right_in, lower_in, room_in)
    if report.few_shot is not None:
        few_shots(fig, report.few_shot, HEAD_IN + plan.body_in)
    for index, note in enumerate(notes):
        y_in = HEAD_IN + plan.body_in + shots_in + 0.2 * index + 0.12
        label(
            fig,
            MARGIN_IN,
            y_in,
            note if len(note) <= LONGEST_NOTE else note[: LONGEST_NOTE - 1] + "…",
            size=8.5,
            color=VERMILION if report.missing and not index else FAINT,
        )
    return fig


@dataclass(frozen=True)
class _Plan:
    """How the page is laid out, in inches."""

    row_in: float
    class_in: float
    upper_in: float
    lower_at_in: float
    body_in: float
    below: bool
    """Whether the matrix is below the bars, not beside them."""
    clouds: bool
    """Whether there is room for the chart of clouds."""


def _laid_out(
    report: Report, groups: Mapping[str, pd.DataFrame], classes: int, rows: int, clouds: pd.DataFrame
) -> _Plan:
    """No large white holes: rows are stretched, and where the bars are few, what is below begins at the left."""
    bars = sum(map(len, groups.values()))
    fixed_in = HEADING_IN * len(groups) + AXIS_IN
    bars_in = fixed_in + ROW_IN * bars
    upper_in = HEADING_IN + CLASS_IN * classes + AXIS_IN if classes else 0.0
    if report.reliability is not None:
        upper_in = max(upper_in, HEADING_IN + CURVE_IN + AXIS_IN)
    matrix_in = HEADING_IN + 0.3 + CLASS_IN * rows + 0.4 if rows else 0.0
    below = bool(rows) and bars_in < upper_in + 0.35 * matrix_in
    if below:
        with_clouds = bool(len(clouds))
        top_in = max(bars_in, upper_in)
        body_in = top_in + max(matrix_in, clouds_in(clouds))
    else:
        with_clouds = bool(len(clouds)) and not rows and bool(upper_in)
        lower_in = clouds_in(clouds) if with_clouds else matrix_in
        top_in = upper_in
        body_in = max(bars_in, upper_in + lower_in)
        # What is left over goes to the rows of the classes.
        if classes:
            spare_in = (body_in - upper_in - lower_in) / classes
            curve_in = HEADING_IN + CURVE_IN + AXIS_IN if report.reliability is not None else 0.0
            tall_in = min(CLASS_IN + spare_in, MOST_CLASS_IN)
            top_in = max(HEADING_IN + tall_in * classes + AXIS_IN, curve_in)
            top_in = top_in if top_in + lower_in <= body_in + 0.01 else upper_in
    row_in = min(((top_in if below else body_in) - fixed_in) / bars, MOST_ROW_IN)
    most_in = (top_in - HEADING_IN - AXIS_IN) / classes if classes else CLASS_IN
    return _Plan(
        max(row_in, ROW_IN), max(CLASS_IN, min(most_in, MOST_CLASS_IN)), upper_in, top_in, body_in, below, with_clouds
    )


def _headline(report: Report) -> str:
    sensors = report.measured[0]
    reached = report.scores(report.headline, sensors=sensors)["mean"].to_dict()[MODEL]
    told = f"{words(report.headline)} {number(float(reached))}"
    told += "" if sensors == "both" else f" with {SENSORS[sensors]}"
    if gained := report.gain():
        far = f"{number(abs(gained[0]))} {'better' if gained[0] >= 0 else 'worse'} than"
        ends = report.gained
        unsure = ends is not None and bool(np.isfinite(ends).all()) and not shows(ends)
        told += f", {'no sure difference from' if unsure else far} the best control ({gained[1]})"
    return f"Provisional: {told}" if report.missing else told[0].upper() + told[1:] if told[1:2].islower() else told


def _kind(report: Report) -> str:
    return report.task + (f" of {slides.counted(len(report.classes), 'class')}" if report.classes else "")


# -- a report ----------------------------------------------------------------------------------------------------------


def _bars(fig: Figure, report: Report, groups: Mapping[str, pd.DataFrame], wide_in: float, row_in: float) -> None:
    """One set of bars for each way of seeing; all on one scale."""
    left_in, top_in = MARGIN_IN + NAME_IN, HEAD_IN
    every = pd.concat(groups.values())
    rows = report.rows
    rows = rows[(rows["metric"] == report.headline) & (rows["class"] == "") & (rows["cloud"] == ALL)]
    for sensors, group in groups.items():
        heading(fig, MARGIN_IN, top_in + HEADING_IN / 2, SENSORS[sensors])
        top_in += HEADING_IN
        axes = slides.plain(slides.axes_in(fig, left_in, top_in, wide_in, row_in * len(group)))
        at = np.arange(len(group))
        axes.barh(at, group["mean"], 0.66, color=[BLUE if name == MODEL else SKY for name in group.index], zorder=2)
        whiskers(axes, at, group, dots=True)
        for row, name in enumerate(group.index):
            single = rows[(rows["what"] == name) & (rows["sensors"] == sensors)]["value"]
            axes.plot(single, np.full(len(single), row + 0.21), "o", ms=3.6, mfc="white", mec=INK, mew=0.7, zorder=4)
            y_in = top_in + row_in * (row + 0.5)
            weight = "bold" if name == MODEL else "normal"
            label(fig, left_in - 0.1, y_in, str(name), ha="right", size=9.5, weight=weight)
            told = number(float(group["mean"].iloc[row]))
            label(fig, left_in + wide_in + 0.55, y_in, told, ha="right", size=10, weight=weight)
        axes.set_ylim(len(group) - 0.5, -0.5)
        axes.set_yticks([])
        limits(axes, report.headline, every)
        top_in += row_in * len(group)
        if sensors == list(groups)[-1]:
            lower = ", the lower the better" if report.headline in LOWER_IS_BETTER else ""
            axes.set_xlabel(f"{words(report.headline)}{lower}", size=9, color=FAINT)
        else:
            axes.tick_params(labelbottom=False, length=0)


__all__ = ["LISTED", "PARTS", "figure_of_history", "report_of_learning"]
