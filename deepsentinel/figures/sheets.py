"""A page of pictures side by side: how large each can be, its heading above it and its legend below.

The legend of a class map is a table over the whole width at the foot of the page: class names are long, and maps of
the same classes share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import slides
from .panels import Panel
from .slides import FAINT, FOOT_IN, HEAD_IN, INK, MARGIN_IN, PAGE_HEIGHT_IN, PAGE_WIDTH_IN, axes_in, bare, fitting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP_IN = 0.28
# A narrow patch still needs room for its heading and legend.
SLOT_MIN_IN = 2.75
TITLE_IN = 0.56
LEGEND_IN = 0.46
LEGEND_ROW_IN = 0.19
BAND_HEAD_IN = 0.3
# The width of a character of 8 points, on the average.
LETTER_IN = 0.062
# Longer names of classes are cut where they would make the table too long.
LONGEST_NAME = 46
ROOM_IN = PAGE_WIDTH_IN - 2 * MARGIN_IN
QUIET_GROUND, QUIET_LINE = "#f3f4f5", "#dcdfe2"
SENSORS = {"S1": "Sentinel-1 ", "S2": "Sentinel-2 "}
# Pictures of what was measured: where they are hatched nothing was seen.
MAPS = ("pca_rgb", "similarity", "change")

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassTable:
    """The classes of a map, for the foot of the page."""

    heading: str
    """What the table lists, and what its numbers are."""
    rows: tuple[tuple[tuple[Colour, ...], str, str], ...]
    """Colours (several where an entry stands for several classes, none for the hatching), number, name."""
    credit: str = ""
    """Whose classes these are."""

    @property
    def columns(self) -> int:
        """As many as the longest name leaves room for."""
        longest = max((len(name) for _, _, name in self.rows), default=0)
        return int(np.clip(ROOM_IN / (self.number_in + 0.45 + LETTER_IN * min(longest, LONGEST_NAME)), 1, 5))

    @property
    def number_in(self) -> float:
        """The width of the numbers."""
        return LETTER_IN * max((len(number) for _, number, _ in self.rows), default=0)

    @property
    def lines(self) -> int:
        """How many lines the table takes."""
        return -(-len(self.rows) // self.columns)

    @property
    def height_in(self) -> float:
        """Its height with its heading."""
        return BAND_HEAD_IN + LEGEND_ROW_IN * self.lines + 0.08


def sheet(
    pictures: Sequence[Panel],
    aspect: float,
    width_m: float,
    *,
    headline: str,
    subtitle: str = "",
    footer: str = "",
    credit: str = "",
    classes: ClassTable | None = None,
) -> Figure:
    """Pictures of one piece of ground, `aspect` times as wide as high and `width_m` wide, as large as a page lets them.

    >>> grey = Panel("a", "", "A grey field", np.full((2, 2, 3), 128, "uint8"), np.ones((2, 2), bool), notes=("why",))
    >>> [text.get_text() for text in sheet([grey], 1, 20, headline="One picture").texts[-2:]]
    ['A grey field', 'why']
    """
    band_in = classes.height_in if classes else 0.0
    legend_in = LEGEND_IN + LEGEND_ROW_IN * (max(picture.legend_rows for picture in pictures) - 1)
    if not any(picture.bar or picture.channels or picture.keys for picture in pictures):
        legend_in = 0.15
    columns, width_in = _arrange(len(pictures), aspect, TITLE_IN + legend_in, band_in)
    height_in = width_in / aspect
    rows = -(-len(pictures) // columns)
    step_in = TITLE_IN + height_in + legend_in
    fig = slides.page(HEAD_IN + rows * step_in + band_in + FOOT_IN, headline, subtitle, footer=footer, credit=credit)
    slot_in = max(width_in, SLOT_MIN_IN)
    left_in = (PAGE_WIDTH_IN - columns * slot_in - (columns - 1) * GAP_IN) / 2
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        x_in, y_in = left_in + column * (slot_in + GAP_IN), HEAD_IN + row * step_in
        axes = _draw(fig, picture, x_in, y_in, width_in, height_in)
        if index == 0:
            slides.scale_bar(axes, width_m)
            slides.north_arrow(axes)
    if classes:
        _class_table(fig, classes, HEAD_IN + rows * step_in)
    hatched = [picture.sensor for picture in pictures if not picture.known.all()]
    if any(hatched):
        slides.hatched_key(fig, PAGE_WIDTH_IN - MARGIN_IN, 0.64)
    elif hatched and not classes:  # a table of classes has a line for it
        labels = any(picture.name not in MAPS for picture in pictures if not (picture.sensor or picture.known.all()))
        unlabelled(slides.hatched_key(fig, PAGE_WIDTH_IN - MARGIN_IN, 0.64, "no label" if labels else "no data"))
    return fig


def unlabelled(axes: Axes) -> Axes:
    """Hatched more quietly, where a map has nothing to say about most of its ground: that is how "no label" looks.

    >>> unlabelled(bare(axes_in(slides.page(4, ""), 1, 1, 2, 2))).patch.get_hatch()
    '////'
    """
    axes.set_facecolor(QUIET_GROUND)
    axes.patch.set_edgecolor(QUIET_LINE)
    return axes


def _arrange(count: int, aspect: float, extra_in: float, band_in: float) -> tuple[int, float]:
    """Columns and panel width that give the largest panels on a page."""
    best = (1, 0.0)
    for columns in range(1, count + 1):
        rows = -(-count // columns)
        by_width = (ROOM_IN - (columns - 1) * GAP_IN) / columns
        if by_width < SLOT_MIN_IN:
            break
        # Several rows and a table of classes make the page taller, rather than the pictures tiny.
        room_in = PAGE_HEIGHT_IN - HEAD_IN - FOOT_IN - (band_in if rows == 1 else 0)
        by_height = (room_in / rows - extra_in) * aspect
        width_in = min(by_width, by_height)
        if width_in > best[1] + 1e-6:
            best = (columns, width_in)
    # A very wide or long patch still gets panels that one can see, on a taller page.
    return best if best[1] > 1.2 else (best[0], 1.2)


def _draw(fig: Figure, picture: Panel, x_in: float, y_in: float, width_in: float, height_in: float) -> Axes:
    page_width, page_height = fig.get_size_inches()
    slot_in = max(width_in, SLOT_MIN_IN)
    x, y = x_in / page_width, 1 - y_in / page_height
    heading = f"{SENSORS.get(picture.sensor, '')}{picture.heading}"
    fig.text(x, y - 0.14 / page_height, heading, size=11.5, weight="bold", color=INK, va="center")
    notes = fitting(list(picture.notes), slot_in, 8)
    fig.text(x, y - 0.37 / page_height, notes, size=8, color=FAINT, va="center")
    axes = bare(axes_in(fig, x_in, y_in + TITLE_IN, width_in, height_in))
    if not picture.sensor:
        unlabelled(axes)
    alpha = np.where(picture.known, 255, 0).astype("uint8")
    axes.imshow(np.dstack([picture.image, alpha]), aspect="auto")
    top_in = y_in + TITLE_IN + height_in + 0.09
    if picture.bar:
        _bar(fig, picture, x_in, top_in, slot_in)
    elif picture.keys:
        # The second column begins where the longest entry of the first ends.
        second_in = max(slot_in / 2, 0.3 + LETTER_IN * max(len(text) for _, text in picture.keys[::2]))
        for index, (colour, text) in enumerate(picture.keys):
            column_in = x_in + (index % 2) * second_in
            _key(fig, colour, text, column_in, top_in + (index // 2) * LEGEND_ROW_IN)
    elif picture.channels:
        # Red, green and blue in tones that stay apart for colour-blind readers, and the letters besides.
        tones = ((213, 44, 44), (38, 140, 70), (40, 90, 210))
        room = [len(text) + 4 for text in picture.channels]
        offset_in = 0.0
        for tone, letter, text, share in zip(tones, "RGB", picture.channels, room, strict=True):
            _key(fig, tone, text, x_in + offset_in, top_in, letter=letter)
            offset_in += min(0.085 * share, slot_in * share / sum(room))
    return axes


def _class_table(fig: Figure, table: ClassTable, top_in: float) -> None:
    page_width, page_height = fig.get_size_inches()
    y = 1 - (top_in + 0.1) / page_height
    fig.text(MARGIN_IN / page_width, y, table.heading, size=8.5, weight="bold", color=INK, va="center")
    step_in = ROOM_IN / table.columns
    fig.text(1 - MARGIN_IN / page_width, y, table.credit, size=8.5, color=FAINT, va="center", ha="right")
    letters = int((step_in - table.number_in - 0.5) / LETTER_IN)
    for index, (colours, number, name) in enumerate(table.rows):
        # Down the columns, as one reads a table.
        column, line = divmod(index, table.lines)
        x_in, line_in = MARGIN_IN + column * step_in, top_in + BAND_HEAD_IN + line * LEGEND_ROW_IN
        _swatch(fig, colours, x_in, line_in)
        middle = 1 - (line_in + 0.08) / page_height
        right = (x_in + 0.26 + table.number_in) / page_width
        fig.text(right, middle, number, size=8, color=FAINT, va="center", ha="right")
        shown = name if len(name) <= letters else name[: letters - 1].rstrip(" ,") + "…"
        fig.text(right + 0.09 / page_width, middle, shown, size=8, color=INK, va="center")


def _swatch(fig: Figure, colours: Sequence[Colour], x_in: float, top_in: float) -> None:
    square = unlabelled(bare(axes_in(fig, x_in, top_in, 0.15, 0.15)))
    if colours:
        square.imshow(np.array([colours], "uint8"), aspect="auto", interpolation="nearest")
    for spine in square.spines.values():
        spine.set_linewidth(0.4)


def _key(fig: Figure, colour: Colour, text: str, x_in: float, top_in: float, *, letter: str = "") -> None:
    page_width, page_height = fig.get_size_inches()
    square = axes_in(fig, x_in, top_in, 0.15, 0.15, xticks=[], yticks=[], facecolor=[part / 255 for part in colour])
    for spine in square.spines.values():
        spine.set_color(FAINT)
        spine.set_linewidth(0.4)
    square.text(0.5, 0.45, letter, size=7, weight="bold", color="white", ha="center", va="center")
    fig.text((x_in + 0.2) / page_width, 1 - (top_in + 0.08) / page_height, text, size=8, color=INK, va="center")


def _bar(fig: Figure, picture: Panel, x_in: float, top_in: float, width_in: float) -> None:
    from matplotlib.ticker import MaxNLocator

    assert picture.bar is not None
    low, high, units = picture.bar
    axes = axes_in(fig, x_in, top_in, width_in * 0.72, 0.11)
    ramp = np.linspace(0, 1, 256)[None, :]
    axes.imshow(ramp, cmap=picture.scale, vmin=0, vmax=1, aspect="auto", extent=(low, high, 0, 1))
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 4, 5, 10]))
    axes.set_xlim(low, high)
    axes.tick_params(labelsize=8, length=2, pad=1, colors=FAINT)
    page_width, page_height = fig.get_size_inches()
    x, y = (x_in + width_in * 0.75) / page_width, 1 - (top_in + 0.06) / page_height
    fig.text(x, y, units, size=8, color=INK, va="center")
