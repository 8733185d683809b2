"""The charts on the page of a corpus: months, clouds, gaps, classes, channels, and samples as small pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepsentinel.bands import REFLECTANCE_SCALE, S1_BANDS, SCL_CLOUDY, sensor_of
from deepsentinel.corpus.classes import CLASS_MAP, label_names
from deepsentinel.corpus.describe import CLOUD_EDGES, MONTHS, gap_names
from deepsentinel.legend import Legend

from . import slides
from .panels import panel
from .slides import BLUE, FAINT, INK, MARGIN_IN, ORANGE, PAGE_WIDTH_IN, SKY
from .stretch import VIEWS, coarsen

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LISTED = 9
PICTURE_PX = 400


@dataclass(frozen=True)
class Column:
    """One sample as pictures, one above the other."""

    images: tuple[tuple[str, np.ndarray], ...]
    """What each shows, and its pixels: uint8, shape (rows, cols, 4)."""
    words: tuple[str, ...]
    """What stands below them."""
    classes: tuple[tuple[int, str, tuple[int, int, int]], ...] = ()
    """The classes that can be seen: code, name, colour."""


def heading(fig: Figure, left_in: float, top_in: float, text: str, note: str = "") -> None:
    """The title of a chart, and fainter what one should know of it.

    >>> fig = slides.page(4, "")
    >>> heading(fig, 1, 1, "Clouds")
    >>> fig.texts[-1].get_text()
    'Clouds'
    """
    width, height = fig.get_size_inches()
    shown = fig.text(left_in / width, 1 - top_in / height, text, size=9.5, weight="bold", color=INK, va="center")
    if note:
        right = shown.get_window_extent().x1 / fig.dpi + 0.1
        fig.text(right / width, 1 - top_in / height, note, size=8.5, color=FAINT, va="center")


def month_bars(
    fig: Figure, months: dict[str, list[int]], samples: int, left_in: float, top_in: float, wide_in: float,
    tall_in: float,
) -> None:  # fmt: skip
    """Samples, or the dates of series, by the month of the year, for each sensor beside the other."""
    several = any(sum(counts) > samples for counts in months.values())
    heading(fig, left_in, top_in + 0.08, "Dates of the series by month" if several else "Samples by month")
    axes = _chart(fig, left_in, top_in + 0.28, wide_in, tall_in)
    colours = {"Sentinel-2": SKY, "Sentinel-1": BLUE}
    shown = {sensor: counts for sensor, counts in months.items() if sum(counts)}
    width = 0.84 / max(len(shown), 1)
    for number, (sensor, counts) in enumerate(shown.items()):
        at = np.arange(12) + (number - (len(shown) - 1) / 2) * width
        axes.bar(at, counts, width * 0.94, color=colours.get(sensor, ORANGE), label=sensor)
    axes.set_xlim(-0.6, 11.6)
    axes.set_xticks(range(12), labels=MONTHS)
    if len(shown) > 1:
        axes.legend(
            loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=2, fontsize=8, frameon=False, labelcolor=FAINT,
            handlelength=1.0, borderaxespad=0, columnspacing=1.2,
        )  # fmt: skip


def histogram(
    fig: Figure, title: str, counts: Sequence[int], left_in: float, top_in: float, wide_in: float, tall_in: float, *,
    of: str,
) -> None:  # fmt: skip
    """Samples by their clouds, or by the time between the sensors."""
    heading(fig, left_in, top_in + 0.08, title)
    axes = _chart(fig, left_in, top_in + 0.28, wide_in, tall_in)
    at = np.arange(len(counts))
    if of == "clouds":
        axes.bar(at + 0.5, counts, 0.94, color=SKY)
        axes.set_xlim(0, len(counts))
        axes.set_xticks(np.arange(len(counts) + 1)[::2], labels=[str(edge) for edge in CLOUD_EDGES[::2]])
        return
    last = max(int(max(np.flatnonzero(counts), default=0)) + 1, 3)
    axes.bar(at[:last] + 0.5, list(counts)[:last], 0.94, color=SKY)
    # Names stand where one bar ends and the next begins; the last one of all has no end.
    edges = ["0", *(name.removeprefix("under ").split(" to ")[-1] for name in gap_names()[:-1])][: last + 1]
    axes.set_xlim(0, last)
    axes.set_xticks(np.arange(len(edges)), labels=edges)
    axes.tick_params(axis="x", labelsize=7.5 if last > 5 else 8.5)


def bars_of_classes(
    fig: Figure, label: str, table: pd.DataFrame, left_in: float, top_in: float, wide_in: float
) -> None:
    """The classes of one label as bars, the largest first."""
    known = "of the samples" if label == "strata" else "of the labelled pixels"
    heading(fig, left_in, top_in + 0.08, f"Classes of {label}", f"share {known} · samples that hold it")
    shown = table.iloc[:LISTED] if len(table) > LISTED + 1 else table
    rest = table.iloc[len(shown) :]
    rows: list[tuple[str, str, float, str]] = [
        (str(row["color"]), str(row["name"]), float(row["share"]), f"{row['samples']:,}")
        for row in shown.to_dict("records")
    ]
    if len(rest):
        rows.append(("#d5d9dd", f"{len(rest)} smaller classes", float(rest["share"].sum()), ""))
    axes = slides.plain(slides.axes_in(fig, left_in + 2.3, top_in + 0.3, wide_in - 3.6, 0.2 * len(rows) + 0.05))
    at = np.arange(len(rows))[::-1]
    axes.barh(at, [row[2] for row in rows], 0.72, color=[row[0] for row in rows], edgecolor=FAINT, lw=0.4)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    names = [row[1] if len(row[1]) <= 33 else row[1][:32].rstrip(" ,") + "…" for row in rows]
    axes.set_yticks(at, labels=names)
    axes.tick_params(axis="y", length=0, labelsize=8.5, labelcolor=INK)
    for y, (_, _, share, samples) in zip(at, rows, strict=True):
        text = ("under 0.1 %" if share < 0.001 else f"{100 * share:.1f} %") + (f" · {samples}" if samples else "")
        axes.annotate(
            text,
            (share, y),
            (4, 0),
            textcoords="offset points",
            va="center",
            size=8.5,
            color=FAINT,
            annotation_clip=False,
        )


def channel_boxes(
    fig: Figure, channels: pd.DataFrame, left_in: float, top_in: float, wide_in: float, tall_in: float
) -> None:
    """Where the values of each band lie: half of them in the box, nine of ten on the line, the median marked."""
    if not len(channels):
        return
    heading(
        fig, left_in, top_in + 0.08, "Values of each band", "box: 25 to 75 %, line: 5 to 95 %, white: median, dot: mean"
    )
    groups = {"S2": "reflectance", "S1": "dB", "": "degrees"}
    kinds = [("" if band == "angle" else str(sensor_of(band))) for band in channels["band"]]
    held = [kind for kind in groups if kind in kinds]
    slots = [max(kinds.count(kind), 3) for kind in held]
    # Each kind has an axis of its own, of a width by the number of its bands.
    room_in = wide_in - 0.55 * (len(held) - 1)
    x_in = left_in
    for kind, count in zip(held, slots, strict=True):
        part_in = room_in * count / sum(slots)
        rows = channels[[each == kind for each in kinds]]
        scale = 1 / REFLECTANCE_SCALE if kind == "S2" else 1.0
        axes = _chart(fig, x_in, top_in + 0.45, part_in, tall_in - 0.35, counts=False)
        at = np.arange(len(rows))
        marks = {name: rows[name].to_numpy("float64") * scale for name in ("p5", "p25", "p50", "p75", "p95", "mean")}
        axes.vlines(at, marks["p5"], marks["p95"], color=BLUE, lw=1.3)
        axes.bar(at, marks["p75"] - marks["p25"], 0.62, bottom=marks["p25"], color=BLUE)
        axes.hlines(marks["p50"], at - 0.31, at + 0.31, color="white", lw=1.6)
        axes.plot(at, marks["mean"], "o", ms=3.5, color=ORANGE, mec="white", mew=0.5)
        axes.set_xlim(-0.6, count - 0.4)
        axes.set_xticks(at, labels=rows["band"].tolist())
        axes.tick_params(axis="x", length=0, labelsize=8 if len(rows) > 8 else 8.5)
        if kind == "S2":
            axes.set_ylim(bottom=0)
        axes.set_title(groups[kind], loc="left", size=8.5, color=FAINT, pad=3)
        x_in += part_in + 0.55


def _chart(fig: Figure, left_in: float, top_in: float, wide_in: float, tall_in: float, *, counts: bool = True) -> Axes:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes = slides.plain(slides.axes_in(fig, left_in + 0.35, top_in, wide_in - 0.35, tall_in))
    axes.tick_params(labelsize=8.5)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=counts))
    if counts:
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return axes


def pictures_of(corpus: xr.Dataset, count: int, wanted: Sequence[str]) -> list[Column]:
    """Some samples as pictures, spread evenly over the corpus, the clear ones first.

    Of `wanted` ("natural", "VV", "classes") each sample shows what it has; a corpus without natural colours shows its
    first band.
    """
    from deepsentinel.corpus.patches import patch_of

    if not corpus.data_vars:
        return []
    good = np.flatnonzero(corpus["status"].to_numpy().astype(str) == "ok")
    parts = [part for part in np.array_split(good, count) if len(part)]
    clear = corpus["clear"].to_numpy() if "clear" in corpus.coords else np.ones(corpus.sizes["sample"])
    chosen = [int(part[np.argmax(np.nan_to_num(clear[part], nan=-1))]) for part in parts]
    return [_column(corpus, _one_date(patch_of(corpus, at)), at, wanted) for at in chosen]


def _one_date(patch: xr.Dataset) -> xr.Dataset:
    """Of a series the clearest date, and the radar's nearest to it; a patch as it is."""
    if "s2_time" in patch.dims:
        cloudy = np.isin(patch["SCL"].to_numpy(), (0, *SCL_CLOUDY)) if "SCL" in patch else np.zeros((1, 1, 1))
        patch = patch.isel(s2_time=int(np.argmin(cloudy.mean(axis=(1, 2)))))
    if "s1_time" in patch.dims:
        times = patch["s1_time"].to_numpy()
        near = patch["s2_time"].to_numpy() if "s2_time" in patch.coords else times[0]
        patch = patch.isel(s1_time=int(np.argmin(np.abs(times - near))))
    return patch


def _column(corpus: xr.Dataset, patch: xr.Dataset, at: int, wanted: Sequence[str]) -> Column:
    held = [str(name) for name in patch.data_vars]
    first = next((name for name in held if sensor_of(name) == "S2"), "")
    images = []
    seen: tuple[tuple[int, str, tuple[int, int, int]], ...] = ()
    for view in wanted:
        if view == "natural":
            name = "natural" if set(VIEWS["natural"].bands) <= set(held) else first
        elif view == "VV":
            name = next((band for band in S1_BANDS if band in held), "")
        else:
            found, seen = _classes(patch)
            images += found
            continue
        if name:
            bands = VIEWS[name].bands if name in VIEWS else (name,)
            small = coarsen(patch[[*bands, *(["SCL"] if "SCL" in held else [])]], PICTURE_PX)
            drawn = panel(small, name)
            images.append((drawn.heading, np.dstack([drawn.image, np.where(drawn.known, 255, 0).astype("uint8")])))
    number, lon, lat = (corpus[name].to_numpy()[at].item() for name in ("sample", "lon", "lat"))
    times = [patch[name].to_numpy() for name in ("s2_time", "s1_time") if name in patch.coords]
    day = str(times[0].astype("datetime64[D]")) if times and times[0].ndim == 0 else ""
    where = f"{abs(lat):.2f}° {'NS'[lat < 0]}, {abs(lon):.2f}° {'EW'[lon < 0]}"
    return Column(tuple(images), (f"sample {number}  {day}", where), seen)


def _classes(
    patch: xr.Dataset,
) -> tuple[list[tuple[str, np.ndarray]], tuple[tuple[int, str, tuple[int, int, int]], ...]]:
    """The first label's classes in their colours, and which they are."""
    names = label_names(patch)
    if not names:
        return [], ()
    values = patch[names[0] + CLASS_MAP]
    codes = values.to_numpy()
    held = [int(code) for code in np.unique(codes) if code]
    legend = Legend.from_attrs(values.attrs) or Legend.of_codes(held)
    image = np.zeros((*codes.shape, 4), "uint8")
    colours = legend.color_table()
    for code, colour in colours.items():
        image[codes == code] = colour
    seen = tuple((code, legend.names[code], colours[code][:3]) for code in held if code in legend)
    return [(f"classes of {names[0]}", image)], seen


def class_keys(fig: Figure, columns: Sequence[Column], top_in: float) -> None:
    """The classes that can be seen in some pictures, in a row, as many as fit."""
    width, height = fig.get_size_inches()
    left_in = MARGIN_IN
    for _, name, colour in sorted({each for column in columns for each in column.classes}):
        shown = name if len(name) <= 34 else name[:33].rstrip(" ,") + "…"
        wide_in = 0.26 + 0.068 * len(shown)
        if left_in + wide_in > PAGE_WIDTH_IN - MARGIN_IN:
            break
        face = tuple(part / 255 for part in colour)
        axes = slides.axes_in(fig, left_in, top_in - 0.07, 0.15, 0.15, xticks=[], yticks=[], facecolor=face)
        for spine in axes.spines.values():
            spine.set_color(FAINT)
            spine.set_linewidth(0.4)
        fig.text((left_in + 0.2) / width, 1 - top_in / height, shown, size=8, color=INK, va="center")
        left_in += wide_in + 0.15


def strip(fig: Figure, columns: Sequence[Column], top_in: float) -> None:
    """The first picture of each sample in a row, with its number and date below.

    >>> grey = np.full((2, 2, 4), 128, "uint8")
    >>> fig = slides.page(4, "")
    >>> strip(fig, [Column((("natural", grey),), ("sample 3  2018-07-04", ""))], 1)
    >>> fig.texts[-1].get_text()
    'sample 3  2018-07-04'
    """
    side_in = (PAGE_WIDTH_IN - 2 * MARGIN_IN - 0.12 * 8) / 9
    height = fig.get_figheight()
    for number, column in enumerate(columns):
        if not column.images:
            continue
        left_in = MARGIN_IN + number * (side_in + 0.12)
        axes = slides.bare(slides.axes_in(fig, left_in, top_in, side_in, side_in))
        axes.imshow(column.images[0][1], aspect="auto", interpolation="nearest")
        y = 1 - (top_in + side_in + 0.12) / height
        fig.text(left_in / PAGE_WIDTH_IN, y, column.words[0], size=7.5, color=FAINT, va="center")
