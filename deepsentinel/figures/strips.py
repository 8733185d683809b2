"""The figure of a series: a strip of pictures for each sensor above the dates they were taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.bands import SCL_CLOUDY, sensor_of
from deepsentinel.errors import InputError

from . import slides
from .panels import Panel, default_panels, panel
from .slides import BLUE, FAINT, FOOT_IN, GREY, HEAD_IN, INK, MARGIN_IN, PAGE_WIDTH_IN
from .stretch import VIEWS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

ROOM_IN = PAGE_WIDTH_IN - 2 * MARGIN_IN
THUMB_MAX_PX = 300
THUMB_GAP_IN = 0.1
# A strip of one or two dates would otherwise fill the page with one picture.
THUMB_MAX_IN = 2.6
AXIS_IN = 0.78
CLEAR_PERCENT = 20.0
"""A date with no more cloud than this shows the ground."""


def series_figure(series: xr.Dataset, *, panels: Sequence[str] | None, title: str | None, max_dates: int) -> Figure:
    """A strip of pictures for each sensor above the dates they were taken.

    >>> import deepsentinel as ds
    >>> src = ds.open_source("demo", size_px=256)
    >>> scenes = src.search(src.area, "2018-05-01", "2018-08-31", sensors=["S1"])
    >>> series = src.read(scenes.head(2), ds.geobox(src.area))
    >>> ds.show(series, title="Two scenes").texts[0].get_text()
    'Two scenes'
    """
    names = [panels] if isinstance(panels, str) else list(panels) if panels is not None else default_panels(series)
    if panels is None:  # the first picture of each sensor tells most
        sensors = [_sensor(name) for name in names]
        names = [names[sensors.index(sensor)] for sensor in ("S2", "S1") if sensor in sensors]
    strips = [_strip(series, name, max_dates) for name in names]
    if not strips:
        raise InputError("panels is empty; name at least one, such as 'natural' or 'VV', or leave it out.")
    most = max(len(strip.pictures) for strip in strips)
    aspect = series.sizes["x"] / series.sizes["y"]
    width_in = min(ROOM_IN / most - THUMB_GAP_IN, THUMB_MAX_IN, THUMB_MAX_IN * aspect)
    height_in = width_in / aspect
    heights = [0.32 + height_in + 0.24 + 0.14 * bool(strip.clouds) + AXIS_IN for strip in strips]
    fig = slides.page(
        HEAD_IN + sum(heights) + FOOT_IN,
        title or _series_headline(series),
        footer=slides.place(series),
        credit=slides.credit_of(series.attrs, slides.years_of(series)),
    )
    span = (min(strip.times.min() for strip in strips), max(strip.times.max() for strip in strips))
    top_in = HEAD_IN
    for row, strip in enumerate(strips):
        shown = f"{len(strip.pictures)} of " if len(strip.pictures) < strip.times.size else ""
        heading = f"{strip.sensor} {strip.pictures[0].heading}, {shown}{slides.counted(strip.times.size, 'date')}"
        _label(fig, MARGIN_IN, top_in + 0.1, heading, size=11.5, weight="bold")
        centres = _spread([_position(time, span) for time in strip.times[strip.indices]], width_in + THUMB_GAP_IN)
        below_in = top_in + 0.32 + height_in + 0.11
        for place_, (index, picture) in enumerate(zip(strip.indices, strip.pictures, strict=True)):
            x_in = centres[place_]
            axes = slides.bare(slides.axes_in(fig, x_in - width_in / 2, top_in + 0.32, width_in, height_in))
            alpha = np.where(picture.known, 255, 0).astype("uint8")
            axes.imshow(np.dstack([picture.image, alpha]), aspect="auto")
            _label(fig, x_in, below_in, str(strip.times[index].astype("datetime64[D]")), size=8.5, ha="center")
            if index in strip.clouds:
                text = f"{strip.clouds[index]:.0f} % cloud"
                _label(fig, x_in, below_in + 0.15, text, size=8, ha="center", color=FAINT)
            if row == place_ == 0 and min(width_in, height_in) > 1:  # smaller than that it would hide the picture
                slides.north_arrow(axes)
                slides.scale_bar(axes, slides.metres_per_px(series)[1] * series.sizes["x"])
        _time_axis(fig, strip, centres, span, top_in + heights[row] - AXIS_IN)
        top_in += heights[row]
    if not all(picture.known.all() for strip in strips for picture in strip.pictures):
        slides.hatched_key(fig, PAGE_WIDTH_IN - MARGIN_IN, 0.64)
    return fig


@dataclass(frozen=True)
class _Strip:
    sensor: str
    times: np.ndarray  # all dates, shown or not
    indices: list[int]  # those that are shown
    pictures: list[Panel]
    clouds: dict[int, float]  # percent, by index of the date; empty where unknown


def _strip(series: xr.Dataset, name: str, max_dates: int) -> _Strip:
    """The pictures of one panel: dates evenly chosen, all with one stretch."""
    from .stretch import coarsen, limits_of

    sensor = _sensor(name)
    axis = {"S1": "s1_time", "S2": "s2_time"}[sensor]
    along = series[[held for held in series.data_vars if axis in series[held].dims]]
    if axis not in along.dims:
        raise InputError(f"This series has no {axis}, along which {name!r} would run; show one date of it as a patch.")
    times = series[axis].to_numpy()
    indices = np.unique(np.linspace(0, times.size - 1, min(max_dates, times.size)).round().astype(int)).tolist()
    dates = [coarsen(along.isel({axis: index}), THUMB_MAX_PX) for index in indices]
    clouds = {index: cloud_percent(series, index) for index in indices} if sensor == "S2" else {}
    limits = None
    if name not in ("SCL", "angle"):
        # The median over the clear ones, so that clouds do not set the stretch of all.
        limits_each = [
            limits_of(date, name) for date, clear in zip(dates, _clear(indices, clouds), strict=True) if clear
        ]
        limits = [(float(low), float(high)) for low, high in np.median(limits_each, axis=0)]
    return _Strip(
        sensor={"S1": "Sentinel-1", "S2": "Sentinel-2"}[sensor],
        times=times,
        indices=indices,
        pictures=[panel(date, name, limits) for date in dates],
        clouds={index: percent for index, percent in clouds.items() if percent is not None},
    )


def _clear(indices: Sequence[int], clouds: Mapping[int, float | None]) -> list[bool]:
    """Which dates tell what the ground looks like: those of few clouds, or else the clearest; all where nobody knows.

    >>> _clear([0, 4, 9], {0: 90.0, 4: 3.0, 9: None}), _clear([0, 4], {0: 90.0, 4: 60.0}), _clear([0, 4], {})
    ([False, True, False], [False, True], [True, True])
    """
    known = [percent for percent in (clouds.get(index) for index in indices) if percent is not None]
    most = max(CLEAR_PERCENT, min(known)) if known else None
    shares = [clouds.get(index) for index in indices]
    return [most is None or (percent is not None and percent <= most) for percent in shares]


def _sensor(name: str) -> str:
    sensor = VIEWS[name].sensor if name in VIEWS else sensor_of(name)
    if sensor is None:
        raise InputError(f"There is no panel {name!r}; there are {', '.join(map(repr, VIEWS))} and the bands by name.")
    return sensor


def cloud_percent(series: xr.Dataset, index: int) -> float | None:
    """The share of one S2 date's valid pixels that lie under cloud or its shadow, by SCL; None without SCL or data.

    >>> import numpy as np, xarray as xr
    >>> scl = xr.Dataset({"SCL": (("s2_time", "y", "x"), np.array([[[9, 4, 4, 4, 0]]], "uint8"))})
    >>> cloud_percent(scl, 0)
    25.0
    """
    if "SCL" not in series.data_vars:
        return None
    codes = series["SCL"].isel(s2_time=index).to_numpy()
    valid = codes != 0
    return float(np.isin(codes, SCL_CLOUDY).sum() / valid.sum() * 100) if valid.any() else None


def _position(time: np.datetime64, span: tuple[np.datetime64, np.datetime64]) -> float:
    """Where a date lies on the page, in inches; the whole span fits with some air on both sides."""
    share = float((time - span[0]) / max(span[1] - span[0], np.timedelta64(1, "D")))
    return MARGIN_IN + ROOM_IN * (0.04 + 0.92 * share)


def _spread(wanted: list[float], step_in: float) -> list[float]:
    """Centres as near as possible to where they are wanted, at least a step apart, all on the page."""
    first, last = MARGIN_IN + step_in / 2, PAGE_WIDTH_IN - MARGIN_IN - step_in / 2
    centres: list[float] = []
    for x_in in wanted:
        centres.append(max(x_in, first, centres[-1] + step_in if centres else first))
    for place in reversed(range(len(centres))):
        centres[place] = min(centres[place], last - (len(centres) - 1 - place) * step_in)
    return centres


def _time_axis(
    fig: Figure, strip: _Strip, centres: list[float], span: tuple[np.datetime64, np.datetime64], top_in: float
) -> None:
    """Every date as a mark, and a line from each picture to the date it was taken."""
    from matplotlib.dates import date2num

    axes = slides.axes_in(fig, MARGIN_IN, top_in, ROOM_IN, AXIS_IN - 0.36)
    # In nanoseconds: a share of one day would be cut down to whole days, which are none.
    whole = max(span[1] - span[0], np.timedelta64(1, "D")).astype("timedelta64[ns]") / 0.92
    axes.set_xlim(date2num(span[0] - whole * 0.04), date2num(span[0] + whole * 0.96))
    axes.set_ylim(0, 1)
    axes.vlines(strip.times, 0, 0.25, color=GREY, lw=1.2)
    low, high = axes.get_xlim()
    for x_in, index in zip(centres, strip.indices, strict=True):
        start = low + (x_in - MARGIN_IN) / ROOM_IN * (high - low)
        mark = axes.convert_xunits(strip.times[index])
        axes.plot([start, mark, mark], [1, 0.25, 0], color=BLUE, lw=0.9, clip_on=False)
    slides.date_axis(axes)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _series_headline(series: xr.Dataset) -> str:
    parts = []
    for axis, name in (("s2_time", "Sentinel-2"), ("s1_time", "Sentinel-1")):
        if axis in series.dims:
            parts.append(f"{series.sizes[axis]} {name}")
    times = np.sort(
        np.concatenate([np.atleast_1d(series[axis].values) for axis in ("s1_time", "s2_time") if axis in series])
    )
    # "1 Sentinel-2 and 1 Sentinel-1 date": the noun goes with the number next to it.
    noun = "date" if parts[-1].startswith("1 ") else "dates"
    return f"{' and '.join(parts)} {noun}, {slides.day_span(times[0], times[-1])}"


def _label(fig: Figure, x_in: float, y_in: float, text: str, **options: Any) -> None:
    width, height = fig.get_size_inches()
    fig.text(x_in / width, 1 - y_in / height, text, va="center", **{"color": INK, **options})
