"""How a loss and its parts went down while something learnt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from deepsentinel.errors import InputError
from deepsentinel.learn.report_words import number

from . import slides
from .slides import BLUE, FAINT, GREEN, GREY, HEAD_IN, INK, MARGIN_IN, ORANGE, PAGE_WIDTH_IN, SKY, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = "#e6e8ea"
LONGEST_NAME = 26
# What of a history is not a part of the loss.
NOT_LOSS = {"samples_per_s", "step", "epoch", "seconds", "samples", "samples_per_second", "grad_norm"}
RATES = ("learning_rate", "lr")
TOTAL = "loss"
SMOOTH_FROM = 200
PARTS = (ORANGE, GREEN, SKY, VERMILION, "#cc79a7", GREY)


def figure_of_history(history: Any, *, title: str | None = None) -> Figure:
    """How the loss and its parts went down, and the learning rate below them.

    `history` is a table, or a list of dicts, with a row a step: `step`, `loss`, `learning_rate`, and any other column
    is a part of the loss. A logarithmic axis is taken where the loss falls by more than ten times.

    >>> steps = [{"step": step, "loss": 1 / step, "learning_rate": 1e-3} for step in range(1, 30)]
    >>> figure_of_history(steps).texts[0].get_text()
    'The loss went from 1.000 to 0.034 in 29 steps'
    """
    table = _history(history)
    rate = next((name for name in RATES if name in table), None)
    parts = [str(name) for name in table if name not in NOT_LOSS and name not in RATES]
    whole = TOTAL if TOTAL in parts else parts[0]
    others = [name for name in parts if name != whole]
    if len(others) == 1 and np.allclose(table[others[0]], table[whole], equal_nan=True):
        parts = [whole]  # a loss of one part is one line, not two on top of each other
    tall = 4.05 if rate else 5.55
    fig = slides.page(slides.PAGE_HEIGHT_IN, title or _fall(table, whole), credit="deepsentinel")
    left_in, wide = MARGIN_IN + 0.75, PAGE_WIDTH_IN - 2 * MARGIN_IN - 0.75 - 2.1
    axes = slides.plain(slides.axes_in(fig, left_in, HEAD_IN, wide, tall))
    lines = {name: table[["step", name]].dropna() for name in sorted(parts, key=lambda name: name != whole)}
    colours = iter(PARTS * (len(parts) // len(PARTS) + 1))
    ends = []
    for name, line in lines.items():
        if line.empty:
            continue
        colour = INK if name == whole else next(colours)
        smooth = line[name]
        if len(line) >= SMOOTH_FROM:
            axes.plot(line["step"], line[name], color=colour, lw=0.7, alpha=0.25)
            smooth = line[name].rolling(len(line) // 50, min_periods=1, center=True).mean()
        style = "o-" if len(line) < 30 else "-"
        axes.plot(line["step"], smooth, style, color=colour, lw=2.2 if name == whole else 1.6, ms=3.5)
        ends.append(
            (float(smooth.iloc[-1]), f"{name.replace('_', ' ')}  {number(_begin_and_end(line[name])[1])}", colour)
        )
    values = np.concatenate([line[name].to_numpy() for name, line in lines.items()])
    _loss_axis(axes, values)
    axes.set_xlim(min(table["step"].min(), 1), max(table["step"].max(), 2))
    _end_labels(fig, axes, ends, left_in + wide + 0.12, HEAD_IN, tall)
    last = axes
    if rate:
        axes.tick_params(labelbottom=False)
        last = slides.plain(slides.axes_in(fig, left_in, HEAD_IN + tall + 0.3, wide, 1.3))
        last.plot(table["step"], table[rate], color=BLUE, lw=1.6)
        last.set_ylim(0, 1.08 * float(table[rate].max()) or 1)
        last.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        last.yaxis.get_offset_text().set(size=8.5, color=FAINT)
        last.set_ylabel("learning rate", size=9.5, color=FAINT)
        last.set_xlim(axes.get_xlim())
        last.grid(color=GRID, lw=0.8)
    last.set_xlabel("step", size=9.5, color=FAINT)
    last.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return fig


def _history(history: Any) -> pd.DataFrame:
    given = (
        history if isinstance(history, (pd.DataFrame, Mapping)) or not isinstance(history, Iterable) else list(history)
    )
    table = pd.DataFrame(given)
    if "step" not in table:
        table = table.assign(step=np.arange(1, len(table) + 1))
    table = table.select_dtypes("number").astype("float64").replace([np.inf, -np.inf], np.nan)
    if not [name for name in table if name not in NOT_LOSS and name not in RATES] or table.empty:
        raise InputError("A history is a table with a row a step: step, loss, its parts, and learning_rate.")
    return table.sort_values("step", kind="stable")


def _fall(table: pd.DataFrame, whole: str) -> str:
    line = table[whole].dropna()
    ends = " to ".join(number(value) for value in _begin_and_end(line))
    return f"The {whole.replace('_', ' ')} went from {ends} in {table['step'].max():,.0f} steps"


def _begin_and_end(line: pd.Series) -> tuple[float, float]:
    """Where a line begins and ends, over so many steps that a single odd one does not matter."""
    few = max(len(line) // 50, 1)
    return float(line.iloc[:few].mean()), float(line.iloc[-few:].mean())


def _loss_axis(axes: Axes, values: np.ndarray) -> None:
    from matplotlib.ticker import LogLocator

    low, high = np.nanpercentile(values, [1, 99])
    if np.nanmin(values) > 0 and high > 10 * low:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.minorticks_off()
    axes.set_ylabel("loss", size=9.5, color=FAINT)
    axes.grid(color=GRID, lw=0.8)
    axes.set_axisbelow(True)


def _end_labels(
    fig: Figure, axes: Axes, ends: list[tuple[float, str, str]], x_in: float, top_in: float, tall_in: float
) -> None:
    """What each line is, written at its end; pushed apart where lines end close together."""
    low, high = axes.get_ylim()
    shares = np.array([value for value, _, _ in ends])
    if axes.get_yscale() == "log":
        low, high, shares = np.log(low), np.log(high), np.log(shares)
    wanted = top_in + tall_in * (high - shares) / (high - low)
    order, gap = np.argsort(wanted, kind="stable"), 0.22
    at = wanted[order]
    for i in range(1, len(at)):
        at[i] = max(at[i], at[i - 1] + gap)
    # What was pushed beyond the foot goes up again, with all above it.
    for i in range(len(at) - 1, -1, -1):
        at[i] = min(at[i], top_in + tall_in if i == len(at) - 1 else at[i + 1] - gap)
    for y_in, (_, text, colour) in zip(at, (ends[i] for i in order), strict=True):
        _label(fig, x_in, y_in, "━", size=11, color=colour, weight="bold")
        _label(fig, x_in + 0.25, y_in, _short(text), size=9.5)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def _label(fig: Figure, x_in: float, y_in: float, text: str, **options: Any) -> None:
    width, height = fig.get_size_inches()
    fig.text(x_in / width, 1 - y_in / height, text, **{"color": INK, "va": "center", "size": 9, **options})
