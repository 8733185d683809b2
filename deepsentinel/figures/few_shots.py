"""Classes that a model never saw, on the page of its report: how well a few examples of each are enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError
from deepsentinel.learn.report import CONTROLS, MODEL
from deepsentinel.learn.report_words import few_shot_headline, few_shot_names, number

from . import slides
from .learning_classes import cut
from .slides import BLUE, FAINT, GREEN, GREY, INK, MARGIN_IN, ORANGE, PAGE_WIDTH_IN

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SHOTS_IN, CURVE_IN, GAP_IN, NAMES_IN, PAGE_IN = 3.1, 1.9, 0.55, 1.7, 4.6
CHANCE = "chance"
COLOURS = {MODEL: BLUE, CONTROLS[0]: ORANGE, CONTROLS[2]: GREEN}
LEAST_IN = 0.19


def is_few_shot(obj: Any) -> bool:
    """Whether this is a table of few_shot.

    >>> is_few_shot([1])
    False
    """
    return {"what", "probe", "shots", "mean", "low", "high", "classes"} <= set(getattr(obj, "columns", ()))


def few_shot_figure(table: pd.DataFrame, *, title: str | None = None) -> Figure:
    """A table of few_shot on a page of its own.

    >>> import pandas as pd
    >>> head = {"what": "model", "probe": "logistic", "low": 0.4, "high": 0.8, "classes": 3, "n": 90, "seeds": 20}
    >>> few_shot_figure(pd.DataFrame([{**head, "shots": 5, "mean": 0.5}])).texts[0].get_text()
    '3 classes never seen: balanced accuracy 0.500 from 5 examples of each (logistic)'
    """
    if table.empty:
        raise InputError("This table of few_shot has no row, so there is nothing to show.")
    model = table[table["what"] == MODEL]
    headline = few_shot_headline(table)
    if len(model):
        best = model.sort_values(["shots", "mean"]).iloc[-1]
        headline = f"{int(best['classes'])} classes never seen: balanced accuracy {number(float(best['mean']))} from "
        headline += f"{slides.counted(int(best['shots']), 'example')} of each ({best['probe']})"
    seeds = int(table["seeds"].max()) if "seeds" in table else 0
    fig = slides.page(
        slides.HEAD_IN + PAGE_IN + slides.FOOT_IN,
        title or headline,
        cut(", ".join(few_shot_names(table)), PAGE_WIDTH_IN - 2 * MARGIN_IN, 10),
        footer=f"band: 95 % of {seeds} draws of ground and of examples" if seeds > 1 else "",
        credit="deepsentinel",
    )
    few_shots(fig, table, slides.HEAD_IN - 0.45, tall_in=PAGE_IN - 0.9, headed=False)
    return fig


def few_shots(
    fig: Figure, table: pd.DataFrame, top_in: float, *, tall_in: float = CURVE_IN - 0.25, headed: bool = True
) -> None:
    """A curve for each encoder by the number of examples, a chart for each way to answer.

    >>> import pandas as pd
    >>> head = {"what": "model", "probe": "logistic", "low": 0.4, "high": 0.8, "classes": 3, "n": 90, "seeds": 20}
    >>> fig = slides.page(4, "")
    >>> few_shots(fig, pd.DataFrame([{**head, "shots": shots, "mean": 0.5} for shots in (1, 5)]), 0.9)
    >>> [text.get_text() for text in fig.texts if text.get_text() in ("logistic", "model")]
    ['logistic', 'model']
    """
    room_in = PAGE_WIDTH_IN - 2 * MARGIN_IN
    if headed:
        # The names have a line of their own: of many of them no more is written than there is room for.
        title = few_shot_headline(table)
        _label(fig, MARGIN_IN, top_in + 0.2, title, size=10.5, weight="bold")
        _label(fig, MARGIN_IN, top_in + 0.4, cut(", ".join(few_shot_names(table)), room_in), color=FAINT)
    probes = [name for name in dict.fromkeys(table["probe"]) if name]
    wide_in = room_in / max(2, len(probes)) - GAP_IN - NAMES_IN
    shots = np.sort(table["shots"].unique())
    for at, probe in enumerate(probes):
        left_in = MARGIN_IN + 0.45 + at * (wide_in + GAP_IN + NAMES_IN)
        _label(fig, left_in, top_in + 0.65, probe, size=9.5, color=FAINT)
        axes = slides.plain(slides.axes_in(fig, left_in, top_in + 0.8, wide_in, tall_in))
        ends = []
        for name, some in table[table["probe"].isin((probe, ""))].groupby("what", sort=False):
            line = some.sort_values("shots")
            colour = COLOURS.get(str(name), GREY)
            style = "--" if name == CHANCE else "o-"
            axes.plot(line["shots"], line["mean"], style, color=colour, lw=1.8 if name == MODEL else 1.3, ms=4)
            if name == MODEL:
                axes.fill_between(line["shots"], line["low"], line["high"], color=colour, alpha=0.15, lw=0)
            ends.append((float(line["mean"].iloc[-1]), str(name), colour))
        axes.set_ylim(0, 1)
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(shots, [f"{each:g}" for each in shots])
        axes.set_xlim(shots[0] / 1.15, shots[-1] * 1.05)
        axes.set_xlabel("examples of each class", size=9, color=FAINT, labelpad=2)
        axes.grid(color="#e6e8ea", lw=0.8)
        _names(fig, ends, left_in + wide_in + 0.1, top_in + 0.8, tall_in)


def _names(fig: Figure, ends: list[tuple[float, str, str]], left_in: float, top_in: float, tall_in: float) -> None:
    """What each curve is, at its end; pushed apart where they end close together."""
    wanted = sorted((top_in + tall_in * (1 - value), name, colour) for value, name, colour in ends)
    at = [y_in for y_in, _, _ in wanted]
    for i in range(1, len(at)):
        at[i] = max(at[i], at[i - 1] + LEAST_IN)
    for i in reversed(range(len(at))):
        at[i] = min(at[i], top_in + tall_in if i == len(at) - 1 else at[i + 1] - LEAST_IN)
    for y_in, (_, name, colour) in zip(at, wanted, strict=True):
        _label(fig, left_in, y_in, name, size=9, color=colour if colour != GREY else FAINT, weight="bold")


def _label(fig: Figure, x_in: float, y_in: float, text: str, **options: Any) -> None:
    width, height = fig.get_size_inches()
    fig.text(x_in / width, 1 - y_in / height, text, **{"color": INK, "va": "center", "size": 9, **options})
