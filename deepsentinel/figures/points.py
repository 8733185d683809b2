"""One pixel through the year: its spectra, how green it was, and its backscatter by orbit. Also what widgets draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.bands import REFLECTANCE_SCALE, S1_BANDS, S2_BANDS

from . import slides
from .slides import BLUE, FAINT, GREEN, GREY, HEAD_IN, INK, MARGIN_IN, ORANGE, PAGE_WIDTH_IN, SKY, VERMILION

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOT_GROUND = ("B09", "B10")
"""Bands in which the air is seen and not the ground: no part of its spectrum."""
WAYS = ((BLUE, "o"), (VERMILION, "^"), (GREEN, "s"), (ORANGE, "D"), (SKY, "v"), (INK, "P"))
"""Colour and mark of each orbit; more of them begin again."""
SPECTRA = 4


def is_point(obj: Any) -> bool:
    """Whether this is what `read_point` gives: bands over dates, and no rows and columns.

    >>> import xarray as xr
    >>> is_point(xr.Dataset({"VV": (("s1_time",), np.zeros(2, "float32"))}))
    True
    """
    return hasattr(obj, "data_vars") and bool({"s1_time", "s2_time"} & set(obj.dims)) and not {"x", "y"} & set(obj.dims)


def spectrum_of(values: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(band, wavelength in nm, reflectance) of what `value_at` found in a patch, from blue to short-wave infrared.

    >>> spectrum_of({"B04": 500, "B02": 250, "B09": 10, "VV": -9.0, "B11": 0})
    [('B02', 490.0, 0.025), ('B04', 665.0, 0.05)]
    """
    held = [band for name, band in S2_BANDS.items() if name not in NOT_GROUND and values.get(name)]
    # They are listed by wavelength.
    return [(band.name, float(band.centre_nm or 0), values[band.name] / REFLECTANCE_SCALE) for band in held]


def greenness(values: Mapping[str, Any]) -> float | None:
    """NDVI, (B08 - B04) / (B08 + B04), of one date; None where a band was not measured.

    >>> greenness({"B08": 3000, "B04": 1000}), greenness({"B08": 3000, "B04": 0})
    (0.5, None)
    """
    near, red = values.get("B08"), values.get("B04")
    return (float(near) - float(red)) / (float(near) + float(red)) if near and red else None


def year_of(point: xr.Dataset) -> dict[str, list[dict[str, Any]]]:
    """What is drawn of a point, as plain numbers: for each date of S2 its spectrum and NDVI, for each of S1 its bands.

    >>> import xarray as xr
    >>> at = {"s1_time": np.array(["2018-07-04T06:00"], "datetime64[ns]"), "orbit": ("s1_time", ["ascending 30"])}
    >>> year_of(xr.Dataset({"VV": (("s1_time",), np.array([-9], "float32"))}, at))["s1"]
    [{'time': '2018-07-04T06:00', 'orbit': 'ascending 30', 'VV': -9.0}]
    """
    drawn: dict[str, list[dict[str, Any]]] = {"s2": [], "s1": []}
    for index in range(point.sizes.get("s2_time", 0)):
        values = {name: point[name].to_numpy()[index].item() for name in S2_BANDS if name in point}
        clear = bool(point["clear"].to_numpy()[index]) if "clear" in point else None
        drawn["s2"].append(
            {
                "time": _minute(point, "s2_time", index),
                "clear": clear,
                "ndvi": greenness(values),
                "spectrum": spectrum_of(values),
            }
        )
    for index in range(point.sizes.get("s1_time", 0)):
        held = {name: float(point[name].to_numpy()[index]) for name in S1_BANDS if name in point}
        known = {name: value for name, value in held.items() if np.isfinite(value)}
        way = str(point["orbit"].to_numpy()[index]) if "orbit" in point.coords else ""
        drawn["s1"].append({"time": _minute(point, "s1_time", index), "orbit": way, **known})
    return drawn


def _minute(point: xr.Dataset, axis: str, index: int) -> str:
    return str(point[axis].to_numpy()[index].astype("datetime64[m]"))


def point_figure(point: xr.Dataset, *, title: str | None) -> Figure:
    """Spectra on the left, the year on the right: how green, and how bright to the radar.

    >>> import deepsentinel as ds
    >>> src = ds.open_source("demo", size_px=256)
    >>> at = src.area.geometry.centroid.coords[0]
    >>> fig = ds.show(ds.read_point(src, at, "2018-06-01", "2018-07-31", max_dates=2))
    >>> [axes.get_ylabel() for axes in fig.axes]
    ['reflectance', 'NDVI', 'backscatter, dB']
    """
    drawn = year_of(point)
    counts = [f"{len(drawn[key])} {name}" for key, name in (("s2", "Sentinel-2"), ("s1", "Sentinel-1")) if drawn[key]]
    times = np.sort([np.datetime64(each["time"]) for each in (*drawn["s2"], *drawn["s1"])])
    span = slides.day_span(times[0], times[-1]) if times.size else "no dates"
    radar = point.attrs.get("radar_px", 1)
    parts = ([f"backscatter is the mean over {radar} × {radar} pixels"] if drawn["s1"] and radar > 1 else []) + (
        ["hollow marks: cloud or shadow, by SCL"] if any(each["clear"] is False for each in drawn["s2"]) else []
    )
    fig = slides.page(
        5.6,
        title or f"One pixel, {' and '.join(counts)} dates, {span}",
        " · ".join(parts),
        footer=_place(point),
        credit=slides.credit_of(point.attrs, slides.years_of(point)),
    )
    has_both = bool(drawn["s2"] and drawn["s1"])
    left_in, split_in = MARGIN_IN + 0.75, 5.6
    year_in = split_in + 0.9 if drawn["s2"] else left_in
    width_in = PAGE_WIDTH_IN - MARGIN_IN - year_in - 1.35  # the legend stands beside
    tall_in = 3.75
    if drawn["s2"]:
        axes = slides.plain(slides.axes_in(fig, left_in, HEAD_IN + 0.25, split_in - left_in, tall_in))
        _draw_spectra(axes, drawn["s2"])
        green = slides.plain(
            slides.axes_in(fig, year_in, HEAD_IN + 0.25, width_in, tall_in * (0.36 if has_both else 1))
        )
        _draw_green(green, drawn["s2"])
        if has_both:
            green.tick_params(labelbottom=False)
        else:
            slides.date_axis(green)
    if drawn["s1"]:
        top_in = HEAD_IN + 0.25 + (tall_in * 0.36 + 0.2 if has_both else 0)
        shared = {"sharex": green} if has_both else {}
        low = slides.plain(slides.axes_in(fig, year_in, top_in, width_in, HEAD_IN + 0.25 + tall_in - top_in, **shared))
        _draw_backscatter(low, drawn["s1"])
        slides.date_axis(low)
    return fig


def _draw_spectra(axes: Axes, dates: Sequence[Mapping[str, Any]]) -> None:
    """A few clear dates over the year, dark to light as it goes on, so that they tell each other apart in grey too."""
    from matplotlib import colormaps

    clear = [each for each in dates if each["clear"] is not False and each["spectrum"]]
    for each in clear:
        axes.plot(*_curve(each), color=GREY, lw=0.6, alpha=0.5, zorder=1)
    places = dict.fromkeys(np.linspace(0, len(clear) - 1, min(SPECTRA, len(clear))).round().astype(int))
    for place, tone in zip(places, np.linspace(0, 0.82, max(len(places), 2)), strict=False):
        label = slides.day_words(np.datetime64(clear[place]["time"]))
        axes.plot(*_curve(clear[place]), "o-", ms=3.5, lw=1.6, color=colormaps["cividis"](tone), label=label)
    if not clear:
        axes.text(0.5, 0.5, "no clear date", transform=axes.transAxes, ha="center", color=FAINT)
    axes.set_xlim(400, 2300)
    axes.set_ylim(0, None)
    axes.set_xlabel("wavelength, nm", size=9, color=FAINT)
    axes.set_ylabel("reflectance", size=9, color=FAINT)
    if clear:
        axes.legend(frameon=False, fontsize=8.5, loc="upper right", labelcolor=INK)


def _curve(each: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    return [nm for _, nm, _ in each["spectrum"]], [share for _, _, share in each["spectrum"]]


def _draw_green(axes: Axes, dates: Sequence[Mapping[str, Any]]) -> None:
    known = [each for each in dates if each["ndvi"] is not None]
    for is_clear, face, text in ((True, GREEN, "clear"), (False, "none", "cloud or shadow")):
        mine = [each for each in known if (each["clear"] is not False) == is_clear]
        times, values = _times(mine), [each["ndvi"] for each in mine]
        if is_clear:
            axes.plot(times, values, "-", color=GREEN, lw=1, alpha=0.6)
        if mine:
            axes.plot(times, values, "o", ms=5, mfc=face, mec=GREEN if is_clear else GREY, label=text)
    axes.set_ylim(min([-0.05, *(each["ndvi"] - 0.05 for each in known)]), 1)
    axes.set_ylabel("NDVI", size=9, color=FAINT)
    _beside(axes)


def _draw_backscatter(axes: Axes, dates: Sequence[Mapping[str, Any]]) -> None:
    """Each polarisation in its line style, each orbit in its colour and mark: orbits are not to be compared."""
    ways = sorted({each["orbit"] for each in dates})
    for number, way in enumerate(ways):
        colour, mark = WAYS[number % len(WAYS)]
        for name in S1_BANDS:
            mine = [each for each in dates if each["orbit"] == way and name in each]
            if mine:
                co = name in ("VV", "HH")
                style: dict[str, Any] = {"color": colour, "mfc": colour if co else "white", "ls": "-" if co else ":"}
                values = [each[name] for each in mine]
                axes.plot(_times(mine), values, marker=mark, ms=4, lw=1, label=f"{name} {way}".strip(), **style)
    axes.set_ylabel("backscatter, dB", size=9, color=FAINT)
    _beside(axes)


def _beside(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.005, 1.05), labelcolor=INK)


def _times(dates: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return np.array([each["time"] for each in dates], "datetime64[m]")


def _place(point: xr.Dataset) -> str:
    if not {"lon", "lat"} <= set(point.coords):
        return ""
    lon, lat = (float(point[name]) for name in ("lon", "lat"))
    return f"{abs(lat):.5f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.5f}° {'E' if lon >= 0 else 'W'}"
