"""Classes that a model never saw, on the page of its report: how well a few examples of each are enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.learn.report import CONTROLS, MODEL
from deepsentinel.learn.report_words import few_shot_title

from . import slides
from .slides import BLUE, FAINT, GREEN, GREY, INK, MARGIN_IN, ORANGE, PAGE_WIDTH_IN

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SHOTS_IN, CURVE_IN, GAP_IN, NAMES_IN = 3.0, 1.9, 0.55, 1.7
CHANCE = "chance"
COLOURS = {MODEL: BLUE, CONTROLS[0]: ORANGE, CONTROLS[2]: GREEN}
LEAST_IN = 0.19


def few_shots(fig: Figure, table: pd.DataFrame, top_in: float) -> None:
    """A curve for each encoder by the number of examples, a chart for each way to answer.

    >>> import pandas as pd
    >>> head = {"what": "model", "probe": "logistic", "low": 0.4, "high": 0.8, "classes": 3, "n": 90, "seeds": 20}
    >>> fig = slides.page(4, "")
    >>> few_shots(fig, pd.DataFrame([{**head, "shots": shots, "mean": 0.5} for shots in (1, 5)]), 0.9)
    >>> [text.get_text() for text in fig.texts if text.get_text() in ("logistic", "model")]
    ['logistic', 'model']
    """
    title = few_shot_title(table)
    _label(fig, MARGIN_IN, top_in + 0.3, title[0].upper() + title[1:], size=10.5, weight="bold")
    probes = [name for name in dict.fromkeys(table["probe"]) if name]
    wide_in = (PAGE_WIDTH_IN - 2 * MARGIN_IN) / max(2, len(probes)) - GAP_IN - NAMES_IN
    shots = np.sort(table["shots"].unique())
    for number, probe in enumerate(probes):
        left_in = MARGIN_IN + 0.45 + number * (wide_in + GAP_IN + NAMES_IN)
        _label(fig, left_in, top_in + 0.58, probe, size=9.5, color=FAINT)
        axes = slides.plain(slides.axes_in(fig, left_in, top_in + 0.72, wide_in, CURVE_IN - 0.25))
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
        _names(fig, ends, left_in + wide_in + 0.1, top_in + 0.72, CURVE_IN - 0.25)


def _names(fig: Figure, ends: list[tuple[float, str, str]], left_in: float, top_in: float, tall_in: float) -> None:
    """What each curve is, at its end; pushed apart where they end close together."""
    wanted = sorted((top_in + tall_in * (1 - value), name, colour) for value, name, colour in ends)
    at = [y_in for y_in, _, _ in wanted]
    for number in range(1, len(at)):
        at[number] = max(at[number], at[number - 1] + LEAST_IN)
    for number in reversed(range(len(at))):
        at[number] = min(at[number], top_in + tall_in if number == len(at) - 1 else at[number + 1] - LEAST_IN)
    for y_in, (_, name, colour) in zip(at, wanted, strict=True):
        _label(fig, left_in, y_in, name, size=9, color=colour if colour != GREY else FAINT, weight="bold")


def _label(fig: Figure, x_in: float, y_in: float, text: str, **options: Any) -> None:
    width, height = fig.get_size_inches()
    fig.text(x_in / width, 1 - y_in / height, text, **{"color": INK, "va": "center", "size": 9, **options})
