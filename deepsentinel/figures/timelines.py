"""Figures of tables and areas: when the sensors looked, what pairs with what, and where. `figures.show` calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError

from . import slides
from .slides import (
    BLUE,
    FAINT,
    GREY,
    HEAD_IN,
    INK,
    MARGIN_IN,
    ORANGE,
    PAGE_WIDTH_IN,
    VERMILION,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


CLEAR_PERCENT = 20.0
ORBIT_MARKS = {"ascending": ("^", VERMILION), "descending": ("v", ORANGE)}


def scenes_figure(scenes: pd.DataFrame, *, title: str | None) -> Figure:
    """When each sensor looked, and how cloudy it was.

    >>> import deepsentinel as ds
    >>> src = ds.open_source("demo", size_px=256)
    >>> fig = ds.show(src.search(src.area, "2018-05-01", "2018-08-31"))
    >>> fig.axes[0].get_ylabel()
    'cloud cover, %'
    """
    _some(scenes)
    s1, s2 = (scenes[scenes["sensor"] == sensor] for sensor in ("S1", "S2"))
    both = f"{len(s2)} Sentinel-2 and {len(s1)} Sentinel-1 scenes, {_span(scenes['time'])}"
    attrs = scenes.attrs
    searched = str(attrs.get("searched", ""))
    fig = slides.page(4.9, title or both, _shorten(searched), credit=_table_credit(scenes, scenes["time"]))
    width_in = PAGE_WIDTH_IN - 2 * MARGIN_IN - 1.0
    top = slides.plain(slides.axes_in(fig, MARGIN_IN + 1.0, HEAD_IN + 0.3, width_in, 1.9))
    low = slides.plain(slides.axes_in(fig, MARGIN_IN + 1.0, HEAD_IN + 2.45, width_in, 0.65, sharex=top))
    cloud = s2["cloud_cover"].to_numpy(dtype="float64")
    clear, unknown = cloud <= CLEAR_PERCENT, np.isnan(cloud)
    times = _naive(s2["time"])
    for mask, colour, mark, text in (
        (clear, BLUE, "o", f"Sentinel-2, at most {CLEAR_PERCENT:.0f} % cloud"),
        (~clear & ~unknown, GREY, "o", "Sentinel-2, cloudier"),
        (unknown, FAINT, "x", "Sentinel-2, cloud not known"),
    ):
        if mask.any():
            shown, text = np.nan_to_num(cloud[mask]), f"{text}: {int(mask.sum())}"
            top.vlines(times[mask], 0, shown, color=colour, lw=1, alpha=0.7)
            top.plot(times[mask], shown, mark, color=colour, ms=5, label=text, clip_on=False)
    top.set_ylim(0, 100)
    top.set_yticks([0, 25, 50, 75, 100])
    top.set_ylabel("cloud cover, %", size=9, color=FAINT)
    top.tick_params(labelbottom=False)
    orbit = s1["orbit"].fillna("") if "orbit" in s1 else s1["id"].map(lambda _: "")
    others = sorted(set(orbit) - set(ORBIT_MARKS))
    rows = [*ORBIT_MARKS, *others]
    for height, way in zip(range(len(rows), 0, -1), rows, strict=True):
        here = (orbit == way).to_numpy()
        mark, colour = ORBIT_MARKS.get(way, ("o", INK))
        if here.any():
            text = f"Sentinel-1 {way}: {int(here.sum())}".replace(" :", ":")
            low.plot(_naive(s1["time"])[here], np.full(here.sum(), height), mark, color=colour, ms=6, label=text)
    low.set_ylim(0.4, len(rows) + 0.6)
    low.set_yticks([])
    low.spines["left"].set_visible(False)
    low.set_ylabel("Sentinel-1", size=9, color=FAINT, rotation=0, ha="right", va="center")
    slides.date_axis(low)
    handles = [*top.get_legend_handles_labels()[0], *low.get_legend_handles_labels()[0]]
    _legend(fig, handles, HEAD_IN + 0.06)
    return fig


def pairs_figure(pairs: pd.DataFrame, *, title: str | None) -> Figure:
    """Which S1 goes with which S2, and how far apart they are.

    >>> import deepsentinel as ds
    >>> src = ds.open_source("demo", size_px=256)
    >>> pairs = ds.pair(src.search(src.area, "2018-05-01", "2018-08-31"), aoi=src.area)
    >>> ds.show(pairs).axes[1].get_ylabel()
    'pairs'
    """
    _some(pairs)
    gaps = pairs["gap_hours"].to_numpy(dtype="float64")
    count = pairs["s2_id"].nunique()
    text = (
        title
        or f"{len(pairs)} pairs for {count} Sentinel-2 scenes, half of them within {slides.apart(np.median(abs(gaps)))}"
    )
    fig = slides.page(
        4.9,
        text,
        f"{_span(pairs['s2_time'])} · the darker the line, the smaller the gap",
        credit=_table_credit(pairs, pairs["s2_time"]),
    )
    left_in, split_in = MARGIN_IN + 1.0, 8.4
    axes = slides.plain(slides.axes_in(fig, left_in, HEAD_IN + 0.35, split_in - left_in, 2.75))
    s1, s2 = _naive(pairs["s1_time"]), _naive(pairs["s2_time"])
    from matplotlib.collections import LineCollection
    from matplotlib.dates import date2num
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    segments = np.stack([np.c_[date2num(s2), np.ones(len(s2))], np.c_[date2num(s1), np.zeros(len(s1))]], axis=1)
    near = 1 - np.clip(abs(gaps) / max(abs(gaps).max(), 1e-9), 0, 1)
    colours = [(0.0, 0.447, 0.698, 0.15 + 0.75 * share) for share in near]
    axes.add_collection(LineCollection(list(segments), colors=colours, linewidths=1.1))
    cloud = pairs["cloud_cover"].to_numpy(dtype="float64") if "cloud_cover" in pairs else np.full(len(pairs), np.nan)
    clear, unknown = cloud <= CLEAR_PERCENT, np.isnan(cloud)
    size = float(np.clip(600 / len(pairs), 2.5, 6))  # hundreds of marks would run into one band
    for mask, colour, words in (
        (~clear & ~unknown, GREY, "Sentinel-2, cloudier"),
        (unknown, INK, "Sentinel-2, cloud not known"),
        (clear, BLUE, f"at most {CLEAR_PERCENT:.0f} % cloud"),
    ):
        if mask.any():
            axes.plot(s2[mask], np.ones(mask.sum()), "o", color=colour, ms=size, label=words)
    orbit = pairs["orbit"].fillna("").to_numpy() if "orbit" in pairs else np.full(len(pairs), "")
    for way in sorted(set(orbit)):
        mark, colour = ORBIT_MARKS.get(way, ("o", INK))
        here = orbit == way
        # Descending passes a little lower, or they would hide the ascending ones.
        height = -0.07 if way == "descending" else 0.0
        axes.plot(s1[here], np.full(here.sum(), height), mark, color=colour, ms=size, label=f"Sentinel-1 {way}".strip())
    axes.set_ylim(-0.2, 1.2)
    axes.set_yticks([0, 1], labels=["Sentinel-1", "Sentinel-2"])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    slides.date_axis(axes)
    _legend(fig, axes.get_legend_handles_labels()[0], HEAD_IN + 0.12)
    right_in = split_in + 0.9
    bars = slides.plain(slides.axes_in(fig, right_in, HEAD_IN + 0.35, PAGE_WIDTH_IN - MARGIN_IN - right_in, 2.75))
    reach = max(12.0, 12.0 * np.ceil(abs(gaps).max() / 12))
    bins = np.arange(-reach, reach + 1, 12.0).tolist()
    bars.hist(gaps, bins=bins, color=slides.SKY, edgecolor="white", lw=0.5)
    bars.axvline(0, color=INK, lw=0.8)
    bars.set_xlabel("gap in hours: left S1 came first, right S2 came first", size=9, color=FAINT)
    bars.set_ylabel("pairs", size=9, color=FAINT)
    bars.xaxis.set_major_locator(MultipleLocator(max(24.0, 24.0 * round(reach / 144))))
    bars.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return fig


def rate_figure(rate: Any, *, title: str | None) -> Figure:
    """How many Sentinel-2 dates have a Sentinel-1 partner, month by month and gap by gap.

    >>> import deepsentinel as ds
    >>> src = ds.open_source("demo", size_px=256)
    >>> rate = ds.match_rate(src.search(src.area, "2018-05-01", "2018-08-31"), aoi=src.area)
    >>> ds.show(rate).axes[0].get_ylabel()
    'dates'
    """
    from matplotlib.ticker import MaxNLocator

    text = f"{rate.matched} of {rate.dates} Sentinel-2 dates have a Sentinel-1 partner within {rate.max_days:g} days"
    fig = slides.page(4.9, title or text, credit="deepsentinel")
    months = slides.plain(slides.axes_in(fig, MARGIN_IN + 0.6, HEAD_IN + 0.35, 7.0, 2.75))
    places = np.arange(len(rate.by_month))
    months.bar(places, rate.by_month["dates"], color="#d5d9dd", width=0.8, label="Sentinel-2 dates")
    months.bar(places, rate.by_month["matched"], color=BLUE, width=0.8, label="with a partner")
    every = -(-len(places) // 8)
    months.set_xticks(places[::every], labels=list(rate.by_month.index[::every]))
    months.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    months.set_ylabel("dates", size=9, color=FAINT)
    _legend(fig, months.get_legend_handles_labels()[0], HEAD_IN + 0.12)
    gaps = slides.plain(slides.axes_in(fig, 9.0, HEAD_IN + 0.35, PAGE_WIDTH_IN - MARGIN_IN - 9.0, 2.75))
    days, shares = rate.by_days.index.to_numpy(), rate.by_days["share"].to_numpy() * 100
    gaps.plot(days, shares, "o-", color=BLUE, clip_on=False)
    for day, share in zip(days, shares, strict=True):
        gaps.annotate(f"{share:.0f} %", (day, share), (0, 7), textcoords="offset points", ha="center", size=8.5)
    gaps.set_ylim(0, 112)
    gaps.set_yticks([0, 25, 50, 75, 100])
    gaps.set_xlim(0, None)
    gaps.set_xlabel("longest gap allowed, days", size=9, color=FAINT)
    gaps.set_ylabel("dates with a partner, %", size=9, color=FAINT)
    return fig


def grid_figure(grid: Any, *, title: str | None) -> Figure:
    """The outline of a GeoBox in its own CRS.

    >>> import deepsentinel as ds
    >>> ds.show(ds.geobox((2.0, 48.0, 2.1, 48.1))).texts[0].get_text()
    'A grid of 760 × 1121 px of 10 m'
    """
    from pyproj import CRS
    from shapely.geometry import box, shape

    rows, cols = grid.shape
    crs = CRS.from_user_input(str(grid.crs)) if grid.crs else None
    factor = crs.axis_info[0].unit_conversion_factor if crs and not crs.is_geographic else None
    outline = shape(grid.extent.json) if hasattr(grid.extent, "json") else box(*grid.boundingbox)
    name = f"EPSG:{crs.to_epsg()}" if crs and crs.to_epsg() else str(grid.crs)
    if factor is None:
        return _outline(outline, title or f"A grid of {cols} × {rows} px", name, geographic=True)
    step_m = abs(grid.resolution.x) * factor
    wide_m, tall_m = cols * step_m, rows * abs(grid.resolution.y) * factor
    size = f"{slides.kilometres(wide_m)} × {slides.kilometres(tall_m)} km"
    subtitle = f"{size} · {name}"
    text = title or f"A grid of {cols} × {rows} px of {step_m:g} m"
    return _outline(outline, text, subtitle, geographic=False, sides=(wide_m, tall_m))


def area_figure(area: Any, *, title: str | None) -> Figure:
    """The outline of an area in longitude and latitude, with its size on the ground.

    >>> import deepsentinel as ds
    >>> ds.show((2.0, 48.0, 2.1, 48.1)).texts[0].get_text()
    'An area of 82.9 km²'
    """
    from deepsentinel.aoi import area as area_of
    from deepsentinel.lonlat import unsplit

    found = area_of(area)
    wide_m, tall_m = found.width_km * 1000, found.height_km * 1000
    text = title or f"An area of {slides.kilometres(found.area_km2 * 1000)} km²"
    size = f"{slides.kilometres(wide_m)} km from west to east, {slides.kilometres(tall_m)} km from south to north"
    subtitle = _shorten("   ".join([size, *found.notes]))
    return _outline(unsplit(found.geometry), text, subtitle, geographic=True, sides=(wide_m, tall_m))


def _outline(
    geometry: Any, headline: str, subtitle: str, *, geographic: bool, sides: tuple[float, float] | None = None
) -> Figure:
    west, south, east, north = geometry.bounds
    stretch = 1 / max(np.cos(np.deg2rad((south + north) / 2)), 0.05) if geographic else 1.0
    pad = 0.06 * max(east - west, (north - south) * stretch)
    wide, tall = east - west + 2 * pad, (north - south) * stretch + 2 * pad
    # A long narrow outline leaves room for the numbers on the axes and the marks.
    wide, tall = max(wide, 0.5 * tall), max(tall, 0.1 * wide)
    inches = min(8.0 / wide, 2.8 / tall)
    mark_in = 0.45  # above and below the outline, where north arrow and scale bar hide nothing
    height_in = tall * inches + 2 * mark_in
    fig = slides.page(HEAD_IN + height_in + 1.0, headline, subtitle, credit="deepsentinel")
    left_in = MARGIN_IN + 0.95
    axes = slides.plain(slides.axes_in(fig, left_in, HEAD_IN + 0.2, wide * inches, height_in))
    for part in getattr(geometry, "geoms", [geometry]):
        rings = [part.exterior, *part.interiors]
        axes.fill(*np.asarray(part.exterior.coords).T[:2], facecolor=slides.SKY, alpha=0.35, lw=0)
        for ring in part.interiors:
            axes.fill(*np.asarray(ring.coords).T[:2], facecolor=slides.PAPER, lw=0)
        for ring in rings:
            axes.plot(*np.asarray(ring.coords).T[:2], color=BLUE, lw=1.8)
    middle_x, middle_y, half_y = (west + east) / 2, (south + north) / 2, height_in / inches / stretch / 2
    axes.set_xlim(middle_x - wide / 2, middle_x + wide / 2)
    axes.set_ylim(middle_y - half_y, middle_y + half_y)
    axes.grid(color="#dfe3e6", lw=0.6)
    axes.set_axisbelow(True)
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.locator_params(nbins=5)
    axes.locator_params(axis="x", nbins=max(2, round(wide * inches)) if wide * inches < 5 else 5)
    if geographic and east > 180:  # an outline over the antimeridian is drawn in one piece
        axes.xaxis.set_major_formatter(lambda lon, _: f"{(lon + 180) % 360 - 180:g}")
    axes.set_xlabel("longitude, °" if geographic else "easting, m", size=9, color=FAINT)
    axes.set_ylabel("latitude, °" if geographic else "northing, m", size=9, color=FAINT)
    if sides:
        slides.north_arrow(axes)
        slides.scale_bar(axes, sides[0] * wide / (east - west), on_picture=False)
    return fig


def _legend(fig: Figure, handles: list[Any], top_in: float) -> None:
    width, height = fig.get_size_inches()
    anchor = ((MARGIN_IN + 0.95) / width, 1 - top_in / height)
    fig.legend(handles=handles, loc="center left", bbox_to_anchor=anchor, ncols=4, frameon=False, fontsize=9)


def _naive(times: pd.Series) -> np.ndarray:
    """UTC without the time zone, which numpy and matplotlib cannot carry."""
    import pandas as pd

    return pd.DatetimeIndex(pd.to_datetime(times, utc=True)).tz_localize(None).to_numpy()


def _span(times: pd.Series) -> str:
    naive = _naive(times)
    return slides.day_span(naive.min(), naive.max())


def _shorten(text: str, most: int = 150) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _some(table: pd.DataFrame) -> None:
    if len(table) == 0:
        raise InputError(
            "The table has no rows: there is nothing to show. Widen the dates, the area or max_cloud and search again."
        )


def _table_credit(table: pd.DataFrame, times: pd.Series) -> str:
    years = sorted({str(time)[:4] for time in _naive(times)})
    return slides.credit_of(table.attrs, years)
