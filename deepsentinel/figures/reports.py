"""Figures of what is known about labels: how large parcels are, and what is wrong with a table and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from . import slides
from .slides import BLUE, FAINT, GREEN, HEAD_IN, INK, MARGIN_IN, ORANGE, PAGE_WIDTH_IN, SKY, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from deepsentinel.masks.report import LabelReport
    from deepsentinel.masks.windows import ParcelSizes

WINDOW_SHARE = 0.9
NOTED_SHARES = (0.5, 0.75, 0.9, 0.99)
PURPLE = "#cc79a7"
# Colour and mark of each problem. Those without a mark may concern most rows, and are areas to look at.
MARKS: dict[str, tuple[str, str]] = {
    "set aside": (INK, ""),
    "invalid": (VERMILION, "X"),
    "duplicated": (PURPLE, "s"),
    "overlapping": (BLUE, "o"),
    "smaller than a pixel": (GREEN, "v"),
    "outside": ("#bcc2c8", ""),
    "out of date": (ORANGE, ""),
}
MAP_IN = 4.3
MAP_WIDTH_IN = 5.6
ROW_IN = 0.47
# The map shows so many widths of the grid beyond it, where labels reach that far.
BEYOND = 1.0
# More outlines than this are a grey area on the map, and slow.
MOST_OUTLINES = 20_000


def sizes_figure(sizes: ParcelSizes, *, title: str | None) -> Figure:
    """How large parcels are, and which window holds nine of ten.

    >>> import geopandas as gpd
    >>> from deepsentinel.masks.windows import parcel_sizes
    >>> fields = [shapely.box(500_000, 0, 500_090 + 10 * n, 40) for n in range(10)]
    >>> sizes_figure(parcel_sizes(gpd.GeoDataFrame(geometry=fields, crs="EPSG:32631")), title=None).texts[0].get_text()
    'A window of 17 px holds 90 % of 10 parcels'
    """
    sides = np.sort(sizes.table["side_px"].to_numpy())
    window = sizes.window(WINDOW_SHARE)
    half, whole = sizes.window(0.5), sizes.window(1.0)
    metre = sizes.resolution_m
    fig = slides.page(
        4.9,
        title or f"A window of {window} px holds {WINDOW_SHARE:.0%} of {sides.size:,} parcels".replace("%", " %"),
        f"pixels of {metre:g} m: {window * metre:,.0f} m a side   ·   half of the parcels fit into {half} px, all of"
        f" them into {whole} px",
        credit="deepsentinel",
    )
    left = slides.plain(slides.axes_in(fig, MARGIN_IN + 0.75, HEAD_IN + 0.35, 5.6, 2.75))
    # A few slivers would take half of the page: the smallest bar holds them and says so by its place.
    low, high = max(sizes.window(0.005), 1) / 1.3, whole * 1.1
    edges = np.geomspace(low, high, 29)
    counts, _ = np.histogram(np.clip(sides, low, high), edges)
    colours = [SKY if edge < window else "#d5d9dd" for edge in edges[:-1]]
    left.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colours, edgecolor="white", lw=0.5)
    left.set_ylim(0, counts.max() * 1.18)
    left.set_ylabel("parcels", size=9, color=FAINT)
    right = slides.plain(slides.axes_in(fig, 7.75, HEAD_IN + 0.35, PAGE_WIDTH_IN - MARGIN_IN - 7.75 - 0.3, 2.75))
    held = np.arange(1, sides.size + 1) / sides.size * 100
    right.step(np.r_[low, sides, high], np.r_[0, held, 100], where="post", color=BLUE, lw=1.8)
    right.set_ylim(0, 106)
    right.set_yticks([0, 25, 50, 75, 90, 100])
    right.set_ylabel("parcels held whole, %", size=9, color=FAINT)
    for axes in (left, right):
        axes.axvline(window, color=VERMILION, lw=1.4)
        _size_axis(axes, low, high)
        axes.set_xlabel("side of the window, pixels", size=9, color=FAINT)
    # Where the mark stands far right, its words go to its left.
    flip = np.log(window / low) > 0.7 * np.log(high / low)
    words = f"{window} px hold 90 %"
    place: dict[str, Any] = {"textcoords": "offset points", "va": "top", "ha": "right" if flip else "left"}
    left.annotate(
        words, (window, left.get_ylim()[1]), (-6 if flip else 6, -1), color=VERMILION, size=9.5, weight="bold", **place
    )
    right.axhline(WINDOW_SHARE * 100, color=VERMILION, lw=0.8, ls=(0, (4, 3)))
    for share in NOTED_SHARES:
        at = sizes.window(share)
        colour = VERMILION if share == WINDOW_SHARE else BLUE
        right.plot([at], [share * 100], "o", color=colour, ms=5, clip_on=False)
    for share in dict.fromkeys((0.5, WINDOW_SHARE)):
        note: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "bottom", "size": 8.5}
        right.annotate(f"{sizes.window(share)} px", (sizes.window(share), share * 100), (-7, 2), color=INK, **note)
    return fig


def _size_axis(axes: Axes, low: float, high: float) -> None:
    """Pixels on a scale of powers of two, which windows usually are."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    ticks = 2.0 ** np.arange(np.ceil(np.log2(low)), np.floor(np.log2(high)) + 1)
    if ticks.size < 2:  # parcels of nearly one size
        ticks = np.unique(np.round(np.geomspace(max(low, 1), high, 4)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])


def report_figure(report: LabelReport, *, title: str | None) -> Figure:
    """Where the labels have problems, and how many.

    >>> import geopandas as gpd
    >>> from deepsentinel import geobox
    >>> from deepsentinel.masks.report import label_report
    >>> grid = geobox((2.0, 48.0, 2.01, 48.01))
    >>> left, bottom, right, top = grid.boundingbox
    >>> field = shapely.box(left, bottom, left + 200, bottom + 200)
    >>> labels = gpd.GeoDataFrame({"ground_truth": [1, 2]}, geometry=[field, field], crs=str(grid.crs))
    >>> report_figure(label_report(labels, grid), title=None).texts[0].get_text()
    '2 of 2 labels have a problem'
    """
    from deepsentinel.grids import bounds_of, metres_per_unit

    headline = f"{report.faulty:,} of {report.rows:,} labels {'has' if report.faulty == 1 else 'have'} a problem"
    if not report.faulty:
        headline = f"No problem in {report.rows:,} labels"
    remarks = []
    if report.small:
        remarks.append(f"{report.small:,} {'is' if report.small == 1 else 'are'} smaller than a pixel")
    if report.outside:
        remarks.append(f"{report.outside:,} {'lies' if report.outside == 1 else 'lie'} outside")
    headline += f"; {', '.join(remarks)}" if remarks else ""
    crs, pixel = report.outlines.crs, abs(report.grid.resolution.x)
    code = crs.to_epsg() if crs is not None else None
    per_unit = metres_per_unit(report.grid)
    rows_px, cols_px = report.grid.shape
    fig = slides.page(
        HEAD_IN + MAP_IN + 0.75,
        title or headline,
        f"held against a grid of {cols_px} × {rows_px} px of {pixel * per_unit[0]:.3g} m, framed on the map"
        f"{f', EPSG:{code}' if code else ''}",
        credit="deepsentinel",
    )
    view = _view(report, bounds_of(report.grid))
    wide, tall = (view[2] - view[0]) * per_unit[0], (view[3] - view[1]) * per_unit[1]
    width_in = min(MAP_IN * wide / tall, MAP_WIDTH_IN)
    map_in = width_in * tall / wide
    axes = slides.axes_in(fig, MARGIN_IN + (MAP_WIDTH_IN - width_in) / 2, HEAD_IN + 0.15, width_in, map_in)
    _map(axes, report, view, bounds_of(report.grid))
    slides.north_arrow(axes)
    slides.scale_bar(axes, wide)
    _counts(fig, report, MARGIN_IN + MAP_WIDTH_IN + 0.7, HEAD_IN + 0.15)
    return fig


def _view(report: LabelReport, grid: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """The grid, and what lies around it within reason."""
    left, bottom, right, top = grid
    reach_x, reach_y = BEYOND * (right - left), BEYOND * (top - bottom)
    edges = shapely.bounds(np.asarray(report.outlines.array, dtype=object))
    near = np.isfinite(edges).all(axis=1)
    near &= (edges[:, 0] < right + reach_x) & (edges[:, 2] > left - reach_x)
    near &= (edges[:, 1] < top + reach_y) & (edges[:, 3] > bottom - reach_y)
    if near.any():
        left, bottom = np.minimum(
            (left, bottom), np.maximum(edges[near, :2].min(axis=0), (left - reach_x, bottom - reach_y))
        )
        right, top = np.maximum((right, top), np.minimum(edges[near, 2:].max(axis=0), (right + reach_x, top + reach_y)))
    pad = 0.03 * max(right - left, top - bottom)
    return float(left - pad), float(bottom - pad), float(right + pad), float(top + pad)


def _map(
    axes: Axes, report: LabelReport, view: tuple[float, float, float, float], grid: tuple[float, float, float, float]
) -> None:
    from matplotlib.patches import Rectangle

    slides.bare(axes)
    axes.patch.set_hatch("")
    axes.set_facecolor("#fafafa")
    axes.set_xlim(view[0], view[2])
    axes.set_ylim(view[1], view[3])
    axes.set_aspect("auto")
    _fill(axes, np.asarray(report.outlines.array, dtype=object), view, "#dfe3e6", "#ffffff", 0.3)
    left, bottom, right, top = grid
    axes.add_patch(Rectangle((left, bottom), right - left, top - bottom, fill=False, edgecolor=INK, lw=1.1, zorder=4))
    counts = report.where["problem"].value_counts()
    for problem in counts.index:  # the rarer ones come later and lie on top
        colour, mark = MARKS[problem]
        shapes = np.asarray(report.where.geometry[report.where["problem"] == problem].array, dtype=object)
        shapes = shapes[~shapely.is_missing(shapes)]
        if not shapes.size:
            continue
        _fill(axes, shapes, view, colour, colour, 0.6)
        if mark:
            middle = shapely.centroid(shapes)
            # Few marks may be large; many would hide the map.
            size = float(np.clip(400 / np.sqrt(shapes.size), 9, 60))
            x, y = shapely.get_x(middle), shapely.get_y(middle)
            axes.scatter(x, y, s=size, c=colour, marker=mark, edgecolors="white", linewidths=0.7, zorder=5)


def _fill(
    axes: Axes, shapes: np.ndarray, view: tuple[float, float, float, float], face: str, edge: str, width: float
) -> None:
    """Polygons, thinned to what can be seen."""
    from matplotlib.collections import PolyCollection

    edges = shapely.bounds(shapes)
    seen = (edges[:, 0] < view[2]) & (edges[:, 2] > view[0]) & (edges[:, 1] < view[3]) & (edges[:, 3] > view[1])
    fine = (view[2] - view[0]) / 2000
    parts = shapely.get_parts(shapely.simplify(shapes[seen], fine))
    parts = parts[shapely.get_type_id(parts) == 3]
    step = -(-parts.size // MOST_OUTLINES) or 1
    rings = [shapely.get_coordinates(shapely.get_exterior_ring(part)) for part in parts[::step]]
    axes.add_collection(PolyCollection(rings, facecolors=face, edgecolors=edge, linewidths=width))


def _counts(fig: Figure, report: LabelReport, left_in: float, top_in: float) -> None:
    width, height = fig.get_size_inches()

    def write(x_in: float, y_in: float, text: str, **options: Any) -> None:
        fig.text(x_in / width, 1 - y_in / height, text, va="center", **{"size": 9, "color": INK, **options})

    number_in, share_in = left_in + 3.0, left_in + 4.1
    write(left_in + 0.3, top_in + 0.1, "problem", color=FAINT)
    write(number_in, top_in + 0.1, "labels", color=FAINT, ha="right")
    write(share_in, top_in + 0.1, "share", color=FAINT, ha="right")
    for index, (problem, found) in enumerate(report.counts.iterrows()):
        colour, mark = MARKS[str(problem)]
        y_in = top_in + 0.42 + index * (ROW_IN + 0.06)
        unknown = found["rows"] is None or found["rows"] != found["rows"] or str(found["rows"]) == "<NA>"
        none = unknown or found["rows"] == 0
        ink = FAINT if none else INK
        key = slides.axes_in(fig, left_in, y_in - 0.09, 0.18, 0.18, xlim=(-1, 1), ylim=(-1, 1))
        key.set_axis_off()
        key.plot([0], [0], mark or "s", color=colour, ms=8 if mark else 11, mec="white", mew=0.7, clip_on=False)
        write(left_in + 0.3, y_in, str(problem), size=11, weight="normal" if none else "bold", color=ink)
        write(number_in, y_in, "not checked" if unknown else f"{found['rows']:,}", size=11, ha="right", color=ink)
        if not none:
            write(share_in, y_in, _share(float(found["share"])), size=11, ha="right", color=ink)
        write(left_in + 0.3, y_in + 0.2, str(found["meaning"]), size=8, color=FAINT)


def _share(share: float) -> str:
    return "under 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"
