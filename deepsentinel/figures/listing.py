"""A page of one map and what its colours mean: the map as large as the page lets it, its classes as bars beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import slides
from .sheets import LETTER_IN, Colour
from .slides import FAINT, FOOT_IN, HEAD_IN, INK, MARGIN_IN, PAGE_WIDTH_IN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAP_WIDTH_IN = 7.5
MAP_HEIGHT_IN = 5.7
GAP_IN = 0.45
ROW_IN = 0.27
LISTED = 16
"""Classes with a line of their own; the rest share one."""
BAR_IN = 1.0


@dataclass(frozen=True)
class Entry:
    """One line of the list beside the map."""

    colours: tuple[Colour, ...]
    """Several where it stands for several classes."""
    name: str
    """The class."""
    share: float
    """How long its bar is, of 1."""
    number: str
    """What stands behind its bar."""


def listed(entries: Sequence[Entry], *, of_rest: Any) -> list[Entry]:
    """The entries, those beyond the first `LISTED` as one; `of_rest` writes its number from them.

    >>> many = [Entry(((k, k, k),), str(k), 0.05, "5 %") for k in range(20)]
    >>> rows = listed(many, of_rest=lambda rest: f"{5 * len(rest)} %")
    >>> len(rows), rows[-1].name, rows[-1].number
    (17, '4 smaller classes', '20 %')
    """
    shown = list(entries) if len(entries) <= LISTED + 1 else list(entries[:LISTED])
    if rest := list(entries[len(shown) :]):
        colours = tuple(entry.colours[0] for entry in rest[:6])
        shown.append(Entry(colours, f"{len(rest)} smaller classes", sum(entry.share for entry in rest), of_rest(rest)))
    return shown


def map_page(
    aspect: float, width_m: float, *, headline: str, subtitle: str = "", footer: str = "", credit: str = "",
    heading: str = "", entries: Sequence[Entry] = (),
) -> tuple[Figure, Axes]:  # fmt: skip
    """An empty map, `aspect` times as wide as high and `width_m` wide, with its list, scale bar and north arrow.

    >>> fig, axes = map_page(1.5, 3000, headline="Two fields", entries=[Entry(((0, 90, 0),), "Oats", 1, "100 %")])
    >>> [text.get_text() for text in fig.texts[-2:]]
    ['Oats', '100 %']
    """
    # However long and narrow the ground is, its map remains one that can be seen.
    width_in = max(min(MAP_WIDTH_IN, MAP_HEIGHT_IN * aspect), 1.5)
    height_in = max(min(MAP_HEIGHT_IN, width_in / aspect), 1.2)
    needed_in = max(height_in, 0.4 + ROW_IN * len(entries))
    fig = slides.page(HEAD_IN + needed_in + 0.2 + FOOT_IN, headline, subtitle, footer=footer, credit=credit)
    axes = slides.bare(slides.axes_in(fig, MARGIN_IN, HEAD_IN, width_in, height_in))
    axes.patch.set_hatch("")
    axes.set_facecolor("#f6f7f8")
    axes.set_aspect("auto")
    slides.scale_bar(axes, width_m)
    slides.north_arrow(axes)
    if heading or entries:
        _list(fig, heading, entries, MARGIN_IN + width_in + GAP_IN)
    return fig, axes


def _list(fig: Figure, heading: str, entries: Sequence[Entry], left_in: float) -> None:
    width, height = fig.get_size_inches()

    def write(x_in: float, y_in: float, text: str, **options: Any) -> None:
        fig.text(x_in / width, 1 - y_in / height, text, va="center", **{"size": 9.5, "color": INK, **options})

    write(left_in, HEAD_IN + 0.1, heading, size=9, weight="bold")
    numbers_in = 1.15 * LETTER_IN * max((len(entry.number) for entry in entries), default=0) + 0.1
    room_in = PAGE_WIDTH_IN - MARGIN_IN - left_in - 0.3 - numbers_in - BAR_IN - 0.2
    letters = int(room_in / (1.2 * LETTER_IN))
    names = [e.name if len(e.name) <= letters else e.name[: letters - 1].rstrip(" ,") + "…" for e in entries]
    bars_in = left_in + 0.3 + min(room_in, 1.2 * LETTER_IN * max(map(len, names), default=0)) + 0.2
    longest = max((entry.share for entry in entries), default=0) or 1.0
    for index, (entry, name) in enumerate(zip(entries, names, strict=True)):
        top_in = HEAD_IN + 0.32 + index * ROW_IN
        swatch = slides.bare(slides.axes_in(fig, left_in, top_in, 0.17, 0.17))
        swatch.imshow(np.array([entry.colours], "uint8"), aspect="auto", interpolation="nearest")
        for spine in swatch.spines.values():
            spine.set_linewidth(0.4)
        bar_in = max(BAR_IN * entry.share / longest, 0.015)
        bar = slides.axes_in(fig, bars_in, top_in + 0.03, bar_in, 0.11, xticks=[], yticks=[])
        red, green, blue = entry.colours[0]
        bar.set_facecolor((red / 255, green / 255, blue / 255))
        for spine in bar.spines.values():
            spine.set_color(FAINT)
            spine.set_linewidth(0.4)
        write(left_in + 0.28, top_in + 0.085, name)
        write(bars_in + bar_in + 0.08, top_in + 0.085, entry.number, color=FAINT)
