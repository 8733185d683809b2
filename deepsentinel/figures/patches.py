"""`show`: a figure worth a slide, of anything this package hands out.

A figure says by itself what it shows: which sensor, when, where, how large, which bands, whose data. Patches are drawn
here, series in `strips.py`, tables and areas in `timelines.py`; the page and its marks are in `slides.py`, the colours
in `stretch.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.bands import S1_BANDS, SCL_CLASSES, sensor_of
from deepsentinel.contract import check_patch
from deepsentinel.errors import InputError

from .panels import Panel, default_panels, panel
from .slides import (
    FAINT,
    FOOT_IN,
    HEAD_IN,
    INK,
    MARGIN_IN,
    PAGE_HEIGHT_IN,
    PAGE_WIDTH_IN,
    apart,
    axes_in,
    bare,
    credit_of,
    day_words,
    fitting,
    hatched_key,
    metres_per_px,
    minute,
    north_arrow,
    page,
    place,
    scale_bar,
    time_of,
    years_of,
)
from .stretch import SCL_COLOURS, VIEWS, coarsen

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWS = (
    "a patch (four panels)",
    "a series (a strip of dates for each sensor)",
    "a scenes table (what there is, and how cloudy)",
    "a pairs table (what goes with what, and the gaps)",
    "a match rate (how many dates have a partner)",
    "an area, a box or geometry in degrees, or a GeoBox (its outline and size)",
)
# More pixels than this on a side are not visible in a panel, and slow the drawing down.
PANEL_MAX_PX = 1000
STYLE_GROUPS = frozenset({"axes", "figure", "font", "hatch", "lines", "patch", "text", "xtick", "ytick", "image"})
GAP_IN = 0.28
# A narrow patch still needs room for its heading and legend.
SLOT_MIN_IN = 2.75
TITLE_IN = 0.56
LEGEND_IN = 0.46
LEGEND_ROW_IN = 0.19


def show(obj: Any, *, panels: Sequence[str] | None = None, title: str | None = None, max_dates: int = 10) -> Figure:
    """A figure of a patch, a series, a table of scenes or pairs, or an area. Save it with `figure.savefig("a.png")`.

    `panels` (patch, series) picks what is drawn: "natural", "false", "swir", "s1", or the name of any band ("VV",
    "B08", "SCL", "angle") in grey or in its classes. `title` replaces the headline. `max_dates` bounds the pictures in
    a strip of a series.

    >>> import numpy as np, xarray as xr
    >>> from pyproj import CRS
    >>> patch = xr.Dataset(
    ...     {"VV": (("y", "x"), np.full((8, 8), -9, "float32"))},
    ...     coords={"y": 75.0 - 10 * np.arange(8), "x": 5.0 + 10 * np.arange(8), "spatial_ref": 0},
    ...     attrs={"backscatter": "sigma0"},
    ... )
    >>> patch["spatial_ref"].attrs["crs_wkt"] = CRS.from_epsg(32631).to_wkt()
    >>> type(show(patch)).__mro__[1].__name__
    'Figure'
    """
    if isinstance(obj, (tuple, list, dict)):  # a box or GeoJSON, as `search` takes them
        from deepsentinel.aoi import area

        obj = area(obj)
    draw, takes_panels, takes_dates = _drawer(obj)
    options: dict[str, Any] = {"title": title}
    if takes_panels:
        options["panels"] = panels
    elif panels is not None:
        raise InputError(
            f"panels= picks pictures of a patch or a series; a {type(obj).__name__} has none. Leave it out."
        )
    if takes_dates:
        if not isinstance(max_dates, int) or max_dates < 1:
            raise InputError(f"max_dates is {max_dates!r}; a strip shows at least one date, so give 1 or more.")
        options["max_dates"] = max_dates
    import matplotlib

    # A notebook's own style (dark, serif) would fight the page's fixed colours and sizes.
    style = {key: value for key, value in matplotlib.rcParamsDefault.items() if key.split(".")[0] in STYLE_GROUPS}
    with matplotlib.rc_context(style):
        return draw(obj, **options)


def _drawer(obj: Any) -> tuple[Callable[..., Figure], bool, bool]:
    """Who draws it, and whether panels and dates mean anything to it. Types are told by what they carry: no imports."""
    from . import strips, timelines

    columns = {str(name) for name in getattr(obj, "columns", ())}
    if hasattr(obj, "data_vars"):
        check_patch(obj)
        series = {"s1_time", "s2_time"} & set(obj.dims)
        return (strips.series_figure, True, True) if series else (_patch_figure, True, False)
    if {"s1_time", "s2_time", "gap_hours"} <= columns:
        return timelines.pairs_figure, False, False
    if {"sensor", "time", "cloud_cover"} <= columns:
        return timelines.scenes_figure, False, False
    if hasattr(obj, "by_days") and hasattr(obj, "by_month"):
        return timelines.rate_figure, False, False
    if hasattr(obj, "affine") and hasattr(obj, "extent"):
        return timelines.grid_figure, False, False
    if (hasattr(obj, "geom_type") and not columns) or hasattr(getattr(obj, "geometry", None), "geom_type"):
        return timelines.area_figure, False, False
    raise InputError(f"show does not know how to draw a {type(obj).__name__}. It draws: {'; '.join(SHOWS)}.")


def _patch_figure(patch: xr.Dataset, *, panels: Sequence[str] | None, title: str | None) -> Figure:
    names = [panels] if isinstance(panels, str) else default_panels(patch) if panels is None else list(panels)
    if not names:
        raise InputError("panels is empty; name at least one, such as 'natural' or 'VV', or leave it out.")
    small = coarsen(patch[_needed(patch, names)], PANEL_MAX_PX)
    pictures = [panel(small, name) for name in names]
    rows_px, cols_px = (patch.sizes[axis] for axis in ("y", "x"))
    legend_in = LEGEND_IN + LEGEND_ROW_IN * (max(picture.legend_rows for picture in pictures) - 1)
    columns, width_in = _arrange(len(pictures), cols_px / rows_px, TITLE_IN + legend_in)
    height_in = width_in * rows_px / cols_px
    rows = -(-len(pictures) // columns)
    step_in = TITLE_IN + height_in + legend_in
    fig = page(
        HEAD_IN + rows * step_in + FOOT_IN,
        title or headline(patch),
        _ids(patch),
        footer=place(patch),
        credit=credit_of(patch.attrs, years_of(patch)),
    )
    slot_in = max(width_in, SLOT_MIN_IN)
    left_in = (PAGE_WIDTH_IN - columns * slot_in - (columns - 1) * GAP_IN) / 2
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        x_in, y_in = left_in + column * (slot_in + GAP_IN), HEAD_IN + row * step_in
        axes = _draw(fig, picture, patch, x_in, y_in, width_in, height_in)
        if index == 0:
            width_m = metres_per_px(patch)[1] * cols_px
            scale_bar(axes, width_m)
            north_arrow(axes)
    if not all(picture.known.all() for picture in pictures):
        hatched_key(fig, PAGE_WIDTH_IN - MARGIN_IN, 0.64)
    return fig


def _needed(patch: xr.Dataset, names: Sequence[str]) -> list[str]:
    """The variables these panels are made of, and SCL, which tells the stretch where clouds are."""
    held = [str(name) for name in patch.data_vars if sensor_of(str(name))]
    for name in names:
        if name not in VIEWS and name not in held:
            choices = ", ".join(map(repr, [*VIEWS, *held]))
            raise InputError(f"There is no panel {name!r} of this patch; there are {choices}.")
    wanted = {"SCL", *(band for name in names for band in (VIEWS[name].bands if name in VIEWS else (name,)))}
    if "s1" in names:
        wanted |= {band for band in S1_BANDS if band in patch.data_vars}
    return [str(name) for name in patch.data_vars if name in wanted]


def _arrange(count: int, aspect: float, extra_in: float) -> tuple[int, float]:
    """Columns and panel width that give the largest panels on a page."""
    best = (1, 0.0)
    for columns in range(1, count + 1):
        rows = -(-count // columns)
        by_width = (PAGE_WIDTH_IN - 2 * MARGIN_IN - (columns - 1) * GAP_IN) / columns
        if by_width < SLOT_MIN_IN:
            break
        by_height = ((PAGE_HEIGHT_IN - HEAD_IN - FOOT_IN) / rows - extra_in) * aspect
        width_in = min(by_width, by_height)
        if width_in > best[1] + 1e-6:
            best = (columns, width_in)
    # A very wide or long patch still gets panels that one can see, on a taller page.
    return best if best[1] > 1.2 else (best[0], 1.2)


def _draw(
    fig: Figure, picture: Panel, patch: xr.Dataset, x_in: float, y_in: float, width_in: float, height_in: float
) -> Axes:
    page_width, page_height = fig.get_size_inches()
    slot_in = max(width_in, SLOT_MIN_IN)
    sensor = {"S1": "Sentinel-1", "S2": "Sentinel-2"}[picture.sensor]
    x, y = x_in / page_width, 1 - y_in / page_height
    fig.text(x, y - 0.14 / page_height, f"{sensor} {picture.heading}", size=11.5, weight="bold", color=INK, va="center")
    fig.text(
        x,
        y - 0.37 / page_height,
        fitting(_when(patch, picture.sensor), slot_in, 8),
        size=8,
        color=FAINT,
        va="center",
    )
    axes = bare(axes_in(fig, x_in, y_in + TITLE_IN, width_in, height_in))
    alpha = np.where(picture.known, 255, 0).astype("uint8")
    axes.imshow(np.dstack([picture.image, alpha]), aspect="auto")
    top_in = y_in + TITLE_IN + height_in + 0.09
    if picture.bar:
        _bar(fig, picture.bar, x_in, top_in, slot_in)
    elif picture.classes:
        entries = [(SCL_COLOURS[code], SCL_CLASSES[code].removesuffix(" probability")) for code in picture.classes]
        # The second column begins where the longest entry of the first ends.
        second_in = max(slot_in / 2, 0.3 + 0.062 * max(len(text) for _, text in entries[::2]))
        for index, (colour, text) in enumerate(entries):
            column_in = x_in + (index % 2) * second_in
            _key(fig, colour, text, column_in, top_in + (index // 2) * LEGEND_ROW_IN)
    else:
        # Red, green and blue in tones that stay apart for colour-blind readers, and the letters besides.
        tones = ((213, 44, 44), (38, 140, 70), (40, 90, 210))
        room = [len(text) + 4 for text in picture.channels]
        offset_in = 0.0
        for tone, letter, text, share in zip(tones, "RGB", picture.channels, room, strict=True):
            _key(fig, tone, text, x_in + offset_in, top_in, letter=letter)
            offset_in += min(0.085 * share, slot_in * share / sum(room))
    return axes


def _key(fig: Figure, colour: tuple[int, int, int], text: str, x_in: float, top_in: float, *, letter: str = "") -> None:
    page_width, page_height = fig.get_size_inches()
    square = axes_in(fig, x_in, top_in, 0.15, 0.15, xticks=[], yticks=[], facecolor=[part / 255 for part in colour])
    for spine in square.spines.values():
        spine.set_color(FAINT)
        spine.set_linewidth(0.4)
    square.text(0.5, 0.45, letter, size=7, weight="bold", color="white", ha="center", va="center")
    fig.text((x_in + 0.2) / page_width, 1 - (top_in + 0.08) / page_height, text, size=8, color=INK, va="center")


def _bar(fig: Figure, bar: tuple[float, float, str], x_in: float, top_in: float, width_in: float) -> None:
    from matplotlib.ticker import MaxNLocator

    low, high, units = bar
    axes = axes_in(fig, x_in, top_in, width_in * 0.72, 0.11)
    axes.imshow(np.linspace(0, 1, 256)[None, :], cmap="gray", aspect="auto", extent=(low, high, 0, 1))
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 4, 5, 10]))
    axes.set_xlim(low, high)
    axes.tick_params(labelsize=8, length=2, pad=1, colors=FAINT)
    page_width, page_height = fig.get_size_inches()
    x, y = (x_in + width_in * 0.75) / page_width, 1 - (top_in + 0.06) / page_height
    fig.text(x, y, units, size=8, color=INK, va="center")


def headline(patch: xr.Dataset) -> str:
    """What a patch is in one line: the dates, and above all the time between the sensors.

    >>> import xarray as xr
    >>> headline(xr.Dataset(coords={"s2_time": np.datetime64("2018-07-04T10:57", "ns")}))
    'Sentinel-2 on 4 July 2018'
    """
    s1, s2 = (time_of(patch, sensor) for sensor in ("S1", "S2"))
    has = {sensor_of(str(name)) for name in patch.data_vars}
    if s1 is not None and s2 is not None:
        gap_hours = float((s1 - s2) / np.timedelta64(1, "h"))
        order = "later" if gap_hours >= 0 else "earlier"
        return f"Sentinel-2 on {day_words(s2)}, Sentinel-1 {apart(gap_hours)} {order}"
    if s2 is not None:
        return f"Sentinel-2 on {day_words(s2)}"
    if s1 is not None:
        return f"Sentinel-1 on {day_words(s1)}"
    return " and ".join(name for key, name in (("S1", "Sentinel-1"), ("S2", "Sentinel-2")) if key in has)


def _when(patch: xr.Dataset, sensor: str) -> list[str]:
    time = time_of(patch, sensor)
    parts = ["date not recorded" if time is None else minute(time)]
    attrs = patch.attrs
    if sensor == "S1":
        backscatter = {"gamma0_rtc": "gamma0 RTC"}.get(str(attrs.get("backscatter")), attrs.get("backscatter"))
        parts += [str(part) for part in (attrs.get("orbit"), backscatter) if part]
    else:
        baseline = f"baseline {attrs['baseline']}" if attrs.get("baseline") else None
        parts += [str(part) for part in (attrs.get("level"), baseline) if part]
    return parts


def _ids(patch: xr.Dataset) -> str:
    return "   ·   ".join(str(patch.attrs[key]) for key in ("s2_id", "s1_id") if patch.attrs.get(key))
