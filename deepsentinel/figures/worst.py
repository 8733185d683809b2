"""The worst samples of a test side by side: what was seen, what is there, what the model said, and its mistakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError
from deepsentinel.learn.mistakes import JUDGED, Example
from deepsentinel.learn.report_words import number
from deepsentinel.learn.tasks import IGNORE

from . import slides
from .mistakes import degrees, told_score
from .panels import panel
from .sheets import unlabelled
from .slides import BLUE, FAINT, FOOT_IN, GREEN, HEAD_IN, INK, MARGIN_IN, ORANGE, PAGE_WIDTH_IN, SKY, VERMILION
from .stretch import VIEWS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from deepsentinel.learn.report import Report

# Colours of classes are those of this page: what publishers gave them is not always told apart by every eye.
CLASSES = (BLUE, ORANGE, GREEN, SKY, "#f0e442", "#cc79a7", "#332288", "#882255")
# Of classes that have no colour of their own; grey would be taken for the pink of another.
OTHER = INK
RIGHT = "#dfe3e6"
LABEL_IN, GAP_IN, LARGEST_IN = 1.05, 0.14, 2.6
COLUMN_HEAD_IN, LEGEND_IN, LEGEND_ROW_IN = 0.66, 0.32, 0.22
BARS, BAR_IN = 6, 0.34
ROWS = {
    "segmentation": ("picture", "truth", "model", "mistakes"),
    "regression": ("picture", "truth", "model", "error"),
    "detection": ("picture", "truth", "model"),
    "instances": ("picture", "truth", "model"),
    "classification": ("picture", "classes"),
    "fractions": ("picture", "shares"),
}
LONGEST_NAME = 44


@dataclass(frozen=True)
class Page:
    """What the pictures of a page have in common."""

    task: str
    classes: tuple[str, ...]
    listed: tuple[int, ...]
    """The classes with a colour of their own."""
    limits: tuple[float, float, float]
    """Of numbers: the lowest, the highest, and the largest error."""

    def colours(self) -> np.ndarray:
        """(256, 3) bytes: the colour of each class."""
        from matplotlib.colors import to_rgb

        found = np.tile(to_rgb(OTHER), (256, 1))
        for code, colour in zip(self.listed, CLASSES, strict=False):
            found[code] = to_rgb(colour)
        return np.asarray((255 * found).round().astype("uint8"))


def worst_of_learning(report: Report, *, title: str | None = None) -> Figure:
    """A column for each of the worst samples.

    >>> import pandas as pd
    >>> from deepsentinel.learn.report import Report
    >>> row = {"what": "model", "sensors": "both", "cloud": "all", "metric": "mean_iou", "class": "", "n": 900,
    ...        "low": 0.4, "high": 0.6, "seed": 0, "value": 0.5}
    >>> pixels = {"VV": np.full((4, 4), -9, "float32")}
    >>> one = Example(7, 0.5, 3.0, 50.0, 40.0, pixels, np.zeros((4, 4), "uint8"), np.eye(4, dtype="uint8"))
    >>> report = Report("segmentation", ("reed", "mud"), pd.DataFrame([row]), worst=(one,))
    >>> worst_of_learning(report).texts[0].get_text()
    'Where the model is most wrong: sample 7, 50 % right'
    """
    some = report.worst[:6]
    if not some:
        raise InputError(
            "This report has no pictures of its worst samples: ds.evaluate(..., worst=6) keeps them where anything is "
            "wrong."
        )
    page = _page(report, some)
    names = ROWS[report.task]
    room_in = PAGE_WIDTH_IN - 2 * MARGIN_IN - LABEL_IN
    wide_in = min((room_in - GAP_IN * (len(some) - 1)) / len(some), LARGEST_IN)
    shape = next(iter(some[0].pixels.values())).shape
    tall_in = float(np.clip(wide_in * shape[0] / shape[1], 0.5, 2 * wide_in))
    bars_in = BAR_IN * min(BARS, len(page.classes)) + 0.15
    heights = [bars_in if name in ("classes", "shares") else tall_in for name in names]
    entries, marks = _entries(page, some), _marks(page, some)
    columns = _columns([*entries, *marks])
    lines = -(-len(entries) // columns)
    legend_in = LEGEND_IN + LEGEND_ROW_IN * (lines + bool(marks)) + (0.45 if report.task == "regression" else 0.0)
    top_in = HEAD_IN + COLUMN_HEAD_IN
    body_in = sum(heights) + GAP_IN * (len(names) - 1)
    kind = JUDGED[report.task][0]
    fig = slides.page(
        top_in + body_in + legend_in + FOOT_IN + 0.1,
        title or _headline(some, kind),
        f"the worst samples of the test, each of other ground, by the {JUDGED[report.task][1]}",
        footer=f"each {slides.kilometres(some[0].size_m)} km wide, north is up",
        credit=_credit(some),
    )
    for column, example in enumerate(some):
        left_in = MARGIN_IN + LABEL_IN + column * (wide_in + GAP_IN)
        _column_head(fig, example, column + 1, left_in, kind)
        y_in = top_in
        for name, height_in in zip(names, heights, strict=True):
            axes = slides.axes_in(fig, left_in, y_in, wide_in, height_in)
            DRAW[name](axes, example, page)
            if column == 0:
                _label(fig, MARGIN_IN, y_in + min(height_in, 2) / 2, name, size=10.5, weight="bold")
                if name == "picture":
                    slides.scale_bar(axes, example.size_m)
            y_in += height_in + GAP_IN
    _legend(fig, entries, columns, top_in + body_in + 0.18)
    _legend(fig, marks, columns, top_in + body_in + 0.18 + LEGEND_ROW_IN * lines)
    if report.task == "regression":
        low, high, most = page.limits
        _bar(fig, MARGIN_IN + LABEL_IN, top_in + body_in + 0.18, (low, high), "viridis", "truth and model")
        _bar(
            fig, MARGIN_IN + LABEL_IN + 5.5, top_in + body_in + 0.18, (-most, most), "PuOr_r", "error: model less truth"
        )
    return fig


def _page(report: Report, some: Sequence[Example]) -> Page:
    counts = np.zeros(256, "int64")
    limits = (0.0, 1.0, 1.0)
    if report.task == "segmentation":
        for each in some:
            counts += np.bincount(each.truth.ravel(), minlength=256)
            # What was said of ground that nobody knows is not shown.
            counts += np.bincount(each.said[each.truth != IGNORE], minlength=256)
        counts[IGNORE] = 0
    if report.task == "regression":
        both = np.concatenate([part[np.isfinite(part)] for each in some for part in (each.truth, each.said)])
        off = np.concatenate([(each.said - each.truth)[np.isfinite(each.truth)] for each in some])
        low, high = np.percentile(both, [1, 99]) if len(both) else (0.0, 1.0)
        limits = float(low), float(high if high > low else low + 1), float(np.percentile(np.abs(off), 98)) or 1.0
    listed = [int(code) for code in np.argsort(-counts, kind="stable") if counts[code]][: len(CLASSES)]
    return Page(report.task, report.classes, tuple(listed), limits)


def _headline(some: Sequence[Example], kind: str) -> str:
    told = f"sample {some[0].sample}, {told_score(some[0].score, kind)}"
    return f"Where the model is most wrong: {told}"


def _credit(some: Sequence[Example]) -> str:
    times = sorted({each.told["time"][:4] for each in some if "time" in each.told})
    return slides.credit_of(some[0].told, times) if some[0].told.get("source") else "deepsentinel"


def _column_head(fig: Figure, example: Example, at: int, left_in: float, kind: str) -> None:
    _label(fig, left_in, HEAD_IN + 0.08, f"{at}   {told_score(example.score, kind)}", size=10.5, weight="bold")
    when = slides.day_words(np.datetime64(example.told["time"])) if "time" in example.told else ""
    _label(
        fig, left_in, HEAD_IN + 0.29, f"sample {example.sample}" + (f", {when}" if when else ""), size=8, color=FAINT
    )
    _label(fig, left_in, HEAD_IN + 0.46, degrees(example.lon, example.lat), size=8, color=FAINT)


# -- pictures ----------------------------------------------------------------------------------------------------------


def picture(example: Example) -> tuple[np.ndarray, np.ndarray]:
    """The pixels in colours, and where there are any.

    >>> one = Example(7, 0.5, 3.0, 50.0, 40.0, {"VV": np.full((4, 4), -9, "float32")}, np.zeros(1), np.zeros(1))
    >>> picture(one)[0].shape
    (4, 4, 3)
    """
    import xarray as xr

    bands = {name: (("y", "x"), values) for name, values in example.pixels.items()}
    patch = xr.Dataset(bands, attrs={"level": example.told.get("level", "L2A")})
    views = [view.name for view in VIEWS.values() if set(view.bands) <= set(bands)]
    if {"HH", "HV"} <= set(bands):
        views.append("s1")
    drawn = panel(patch, views[0] if views else next(name for name in bands if name != "SCL"))
    return drawn.image, drawn.known


def _draw(axes: Axes, image: np.ndarray, known: np.ndarray) -> None:
    unlabelled(slides.bare(axes))
    alpha = np.where(known, 255, 0).astype("uint8")
    axes.imshow(np.dstack([image, alpha]), aspect="auto", interpolation="nearest")


def _picture(axes: Axes, example: Example, _: Page) -> None:
    _draw(axes, *picture(example))


def _truth(axes: Axes, example: Example, page: Page) -> None:
    if page.task == "segmentation":
        _draw(axes, page.colours()[example.truth], example.truth != IGNORE)
    elif page.task == "regression":
        _draw(axes, ramp(example.truth, page.limits[:2], "viridis"), np.isfinite(example.truth))
    else:
        _boxes(axes, example, example.truth, VERMILION)


def _said(axes: Axes, example: Example, page: Page) -> None:
    if page.task == "segmentation":
        _draw(axes, page.colours()[example.said], np.ones(example.said.shape, bool))
    elif page.task == "regression":
        _draw(axes, ramp(example.said, page.limits[:2], "viridis"), np.isfinite(example.said))
    else:
        _boxes(axes, example, example.said, ORANGE)


def _wrong(axes: Axes, example: Example, _: Page) -> None:
    from matplotlib.colors import to_rgb

    two = (255 * np.array([to_rgb(RIGHT), to_rgb(VERMILION)])).round().astype("uint8")
    known = example.truth != IGNORE
    _draw(axes, two[(example.truth != example.said).astype(int)], known)


def _off(axes: Axes, example: Example, page: Page) -> None:
    most = page.limits[2]
    off = example.said - example.truth
    _draw(axes, ramp(off, (-most, most), "PuOr_r"), np.isfinite(off))


def ramp(values: np.ndarray, limits: tuple[float, float], scale: str) -> np.ndarray:
    """Numbers in the colours of a scale of matplotlib.

    >>> ramp(np.array([0.0, 9.0]), (0, 9), "gray").tolist()
    [[0, 0, 0], [255, 255, 255]]
    """
    from matplotlib import colormaps

    share = (np.nan_to_num(values) - limits[0]) / (limits[1] - limits[0])
    return np.asarray((255 * colormaps[scale](np.clip(share, 0, 1))[..., :3]).round().astype("uint8"))


def _boxes(axes: Axes, example: Example, boxes: np.ndarray, lost: str) -> None:
    """Boxes on the picture in grey: those that are in the other too, and those that are not."""
    from matplotlib.patches import Rectangle

    image, known = picture(example)
    grey = np.repeat((150 + image.mean(axis=2, keepdims=True) * 0.4).astype("uint8"), 3, axis=2)
    _draw(axes, grey, known)
    side = image.shape[1]
    for left, top, right, bottom, _, hit in boxes:
        x, y = left * side - 0.5, top * side - 0.5
        size = (right - left) * side, (bottom - top) * side
        axes.add_patch(Rectangle((x, y), *size, facecolor="none", edgecolor=BLUE if hit else lost, lw=1.4))
    axes.set_xlim(-0.5, image.shape[1] - 0.5)
    axes.set_ylim(image.shape[0] - 0.5, -0.5)


def _shares(axes: Axes, example: Example, page: Page) -> None:
    """What the model said of each class (bars), and what is there (dots): the classes that it is most wrong about."""
    off = np.where(np.isfinite(example.truth), np.abs(example.said - np.nan_to_num(example.truth)), -1)
    shown = np.argsort(-off, kind="stable")[: min(BARS, len(page.classes))]
    axes.set_axis_off()
    axes.set_xlim(0, 1.02)
    axes.set_ylim(BAR_IN * len(shown) + 0.15, 0)
    wide_in = axes.get_position().width * PAGE_WIDTH_IN
    letters = int(wide_in / 0.062)
    for row, code in enumerate(shown):
        name, y = page.classes[code], BAR_IN * row + 0.1
        axes.text(0, y, name if len(name) <= letters else name[: letters - 1] + "…", size=7.5, color=INK, va="center")
        axes.barh(y + 0.15, 1, 0.1, color=RIGHT)
        axes.barh(y + 0.15, example.said[code], 0.1, color=BLUE)
        if np.isfinite(example.truth[code]):
            axes.plot(example.truth[code], y + 0.15, "o", ms=5, mfc=VERMILION, mec="white", mew=0.7, clip_on=False)


DRAW: dict[str, Callable[[Any, Example, Page], None]] = {
    "picture": _picture, "truth": _truth, "model": _said, "mistakes": _wrong, "error": _off,
    "classes": _shares, "shares": _shares,
}  # fmt: skip


# -- legend ------------------------------------------------------------------------------------------------------------


def _entries(page: Page, some: Sequence[Example]) -> list[tuple[str | None, str]]:
    """Colour and name of all that is on the page."""
    if page.task in ("detection", "instances"):
        return [(BLUE, "found, and there"), (VERMILION, "there, and not found"), (ORANGE, "found, and not there")]
    if page.task in ("classification", "fractions"):
        return [(BLUE, "bars: what the model says"), (VERMILION, "dots: what is there")]
    if page.task == "regression":
        return []
    found: list[tuple[str | None, str]] = [
        (colour, page.classes[code]) for code, colour in zip(page.listed, CLASSES, strict=False)
    ]
    every = {int(code) for each in some for part in (each.truth, each.said) for code in np.unique(part)} - {IGNORE}
    if rest := every - set(page.listed):
        found.append((OTHER, slides.counted(len(rest), "other class")))
    return found


def _marks(page: Page, some: Sequence[Example]) -> list[tuple[str | None, str]]:
    """What the colours of mistakes mean; no colour for the hatching."""
    if page.task != "segmentation":
        return []
    found: list[tuple[str | None, str]] = [(RIGHT, "right"), (VERMILION, "wrong")]
    return [*found, (None, "no truth")] if any((each.truth == IGNORE).any() for each in some) else found


def _columns(entries: Sequence[tuple[str | None, str]]) -> int:
    longest = min(max((len(name) for _, name in entries), default=1), LONGEST_NAME)
    return int(np.clip((PAGE_WIDTH_IN - 2 * MARGIN_IN) / (0.5 + 0.068 * longest), 1, 6))


def _legend(fig: Figure, entries: Sequence[tuple[str | None, str]], columns: int, top_in: float) -> None:
    step_in = (PAGE_WIDTH_IN - 2 * MARGIN_IN) / columns
    for at, (colour, name) in enumerate(entries):
        row, column = divmod(at, columns)
        x_in, y_in = MARGIN_IN + column * step_in, top_in + row * LEGEND_ROW_IN
        square = unlabelled(slides.bare(slides.axes_in(fig, x_in, y_in, 0.16, 0.16)))
        if colour is not None:
            square.set_facecolor(colour)
            square.patch.set_hatch("")
        shown = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1].rstrip() + "…"
        _label(fig, x_in + 0.25, y_in + 0.08, shown, size=8.5)


def _bar(fig: Figure, left_in: float, top_in: float, limits: tuple[float, float], scale: str, told: str) -> None:
    axes = slides.axes_in(fig, left_in, top_in, 3.0, 0.14)
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=scale, aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    for x_in, text, side in ((left_in, number(limits[0]), "left"), (left_in + 3, number(limits[1]), "right")):
        _label(fig, x_in, top_in + 0.27, text, ha=side, size=8.5, color=FAINT)
    _label(fig, left_in + 3.15, top_in + 0.07, told, size=9)


def _label(fig: Figure, x_in: float, y_in: float, text: str, **options: Any) -> None:
    width, height = fig.get_size_inches()
    fig.text(x_in / width, 1 - y_in / height, text, **{"color": INK, "va": "center", "size": 9, **options})
