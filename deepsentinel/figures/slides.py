"""What all figures share: the page, its headline and credit, and the words and marks of a map.

Pages are laid out in inches on the width of a slide, by arithmetic and not by a layout engine, so that the same input
always gives the same page and nothing overlaps. pyplot is never touched: its list of open figures is global state, and
a figure that is in it appears twice in a notebook.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE_WIDTH_IN = 13.33
PAGE_HEIGHT_IN = 7.5
MARGIN_IN = 0.4
HEAD_IN = 0.95
FOOT_IN = 0.4
SCREEN_DPI = 110
INK = "#1b1f24"
FAINT = "#5c6570"
PAPER = "#ffffff"
HATCH_GROUND = "#e4e6e8"
HATCH_LINE = "#9aa1a8"
# Okabe and Ito's palette, told apart by every common kind of colour vision.
BLUE, ORANGE, GREEN, SKY, VERMILION, GREY = "#0072b2", "#e69f00", "#009e73", "#56b4e9", "#d55e00", "#9aa1a8"
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
LARGE_PICTURE_BYTES = 250_000
CREDITS: Mapping[str, str] = {
    "planetary-computer": "Microsoft Planetary Computer",
    "earth-search": "Earth Search on AWS",
    "cdse": "Copernicus Data Space Ecosystem",
    "samples": "TerraMesh, IBM and ESA",
    "earth-engine": "Google Earth Engine",
    "earth-engine-l1c": "Google Earth Engine",
}


def _encoded(fig: Figure) -> bytes:
    """PNG for lines and text; JPEG where speckle makes a PNG huge, so that notebooks stay small enough to share."""
    picture = io.BytesIO()
    fig.savefig(picture, format="png")
    if picture.tell() > LARGE_PICTURE_BYTES:
        picture = io.BytesIO()
        # Colours at full resolution: halved, as JPEGs usually have them, red text gets a fringe.
        fig.savefig(picture, format="jpeg", pil_kwargs={"quality": 80, "subsampling": 0})
    return picture.getvalue()


@lru_cache(maxsize=1)
def _figure_class() -> type[Figure]:
    from matplotlib.figure import Figure as MatplotlibFigure

    class Slide(MatplotlibFigure):
        """A Figure that a notebook shows by itself, also where nobody has imported pyplot."""

        def _ipython_display_(self) -> None:
            from IPython.display import Image, display

            display(Image(_encoded(self)))

    return Slide


def page(height_in: float, headline: str, subtitle: str = "", *, footer: str = "", credit: str = "") -> Figure:
    """An empty white page with its texts in place.

    >>> page(4, "Two radars and a camera").get_size_inches().tolist()
    [13.33, 4.0]
    """
    fig = _figure_class()(figsize=(PAGE_WIDTH_IN, height_in), dpi=SCREEN_DPI, facecolor=PAPER)
    left, right = MARGIN_IN / PAGE_WIDTH_IN, 1 - MARGIN_IN / PAGE_WIDTH_IN
    fig.text(
        left, 1 - (0.30 if subtitle else 0.48) / height_in, headline, size=17, weight="bold", color=INK, va="center"
    )
    fig.text(left, 1 - 0.64 / height_in, subtitle, size=10, color=FAINT, va="center")
    fig.text(left, 0.2 / height_in, footer, size=8.5, color=FAINT, va="center")
    fig.text(right, 0.2 / height_in, credit, size=8.5, color=FAINT, va="center", ha="right")
    return fig


def axes_in(fig: Figure, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
    """Axes placed in inches from the top left corner of the page.

    >>> float(axes_in(page(4, ""), 1, 1, 2, 2).get_position().height)
    0.5
    """
    page_width, page_height = fig.get_size_inches()
    box = (left / page_width, 1 - (top + height) / page_height, width / page_width, height / page_height)
    return fig.add_axes(box, **options)


def bare(axes: Axes) -> Axes:
    """Without ticks, and hatched wherever nothing is drawn on it: that is how "no data" looks.

    >>> bare(axes_in(page(4, ""), 1, 1, 2, 2)).get_xticks().size
    0
    """
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor(HATCH_GROUND)
    axes.patch.set_hatch("////")
    axes.patch.set_edgecolor(HATCH_LINE)
    axes.patch.set_linewidth(0)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
        spine.set_linewidth(0.6)
    return axes


def plain(axes: Axes) -> Axes:
    """A chart's axes: only the two lines that carry numbers.

    >>> plain(axes_in(page(4, ""), 1, 1, 2, 2)).spines["top"].get_visible()
    False
    """
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.set_facecolor(PAPER)
    axes.tick_params(labelsize=9, colors=FAINT)
    return axes


def hatched_key(fig: Figure, right_in: float, top_in: float, text: str = "no data") -> Axes:
    """The legend of the hatching, its right end at `right_in`, its middle at `top_in`.

    >>> fig = page(4, "")
    >>> square = hatched_key(fig, 12, 0.6)
    >>> fig.texts[-1].get_text()
    'no data'
    """
    width, height = fig.get_size_inches()
    square = bare(axes_in(fig, right_in - 0.26 - 0.07 * len(text), top_in - 0.07, 0.2, 0.14))
    fig.text(right_in / width, 1 - top_in / height, text, size=9, color=FAINT, va="center", ha="right")
    return square


def scale_bar(axes: Axes, width_m: float, *, on_picture: bool = True) -> None:
    """A bar of round length in the lower left corner of a map that is `width_m` wide; dark on a plain ground.

    >>> axes = axes_in(page(4, ""), 1, 1, 2, 2)
    >>> scale_bar(axes, 2560)
    >>> axes.texts[-1].get_text()
    '500 m'
    """
    from matplotlib.patches import Rectangle

    w, h = _per_inch(axes)
    ground: dict[str, Any] = {"transform": axes.transAxes, "zorder": 5, "clip_on": False}
    ink = "white" if on_picture else INK
    length_m = round_length(width_m * min(0.35, 2 * w))
    length = length_m / width_m
    # The box holds its text even where the bar is short.
    box = max(length + 0.2 * w, 0.55 * w)
    if on_picture:
        axes.add_patch(Rectangle((0.08 * w, 0.08 * h), box, 0.3 * h, facecolor="#000000", alpha=0.55, lw=0, **ground))
    middle, foot = 0.08 * w + box / 2, 0.13 * h
    left = middle - length / 2
    axes.add_patch(Rectangle((left, foot), length / 2, 0.045 * h, facecolor=ink, lw=0, **ground))
    axes.add_patch(Rectangle((left, foot), length, 0.045 * h, facecolor="none", edgecolor=ink, lw=0.8, **ground))
    text = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    axes.text(middle, 0.275 * h, text, size=8, color=ink, ha="center", va="center", **ground)


def north_arrow(axes: Axes) -> None:
    """An arrow to grid north in the upper right corner of a north-up map.

    >>> axes = axes_in(page(4, ""), 1, 1, 2, 2)
    >>> north_arrow(axes)
    >>> axes.texts[-1].get_text()
    'N'
    """
    from matplotlib.patches import Ellipse, Polygon

    w, h = _per_inch(axes)
    x, y = 1 - 0.22 * w, 1 - 0.25 * h
    ground: dict[str, Any] = {"transform": axes.transAxes, "zorder": 5}
    axes.add_patch(Ellipse((x, y), 0.34 * w, 0.40 * h, facecolor="#000000", alpha=0.55, lw=0, **ground))
    tip = [(x, y + 0.15 * h), (x - 0.07 * w, y - 0.01 * h), (x + 0.07 * w, y - 0.01 * h)]
    axes.add_patch(Polygon(tip, facecolor="white", lw=0, **ground))
    axes.text(x, y - 0.085 * h, "N", size=7.5, weight="bold", color="white", ha="center", va="center", **ground)


def _per_inch(axes: Axes) -> tuple[float, float]:
    """One inch as a share of the axes' width and height, so that marks keep their size on maps of any shape."""
    box = axes.get_position()
    page_width, page_height = axes.get_figure(root=True).get_size_inches()  # type: ignore[union-attr]
    return 1 / (box.width * page_width), 1 / (box.height * page_height)


def round_length(longest: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50 ... that is not longer than `longest`.

    >>> round_length(896)
    500.0
    """
    power = 10.0 ** math.floor(math.log10(longest))
    return max(step * power for step in (1, 2, 5) if step * power <= longest * (1 + 1e-9))


def kilometres(metres: float) -> str:
    """A length in km with the digits that mean something.

    >>> kilometres(2560), kilometres(41_234), kilometres(1_118_000)
    ('2.56', '41.2', '1,118')
    """
    return f"{metres / 1000:.3g}" if metres < 999_500 else f"{metres / 1000:,.0f}"


def counted(number: int, noun: str) -> str:
    """A number and its noun, in the plural where it takes one.

    >>> counted(1, "date"), counted(12000, "date"), counted(2, "class")
    ('1 date', '12,000 dates', '2 classes')
    """
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


def apart(hours: float) -> str:
    """A time gap in words: minutes, hours or days, whichever reads best.

    >>> apart(0.5), apart(-6.98), apart(52.7), apart(240)
    ('30 minutes', '7.0 hours', '52.7 hours', '10.0 days')
    """
    hours = abs(hours)
    if hours < 1:
        return f"{hours * 60:.0f} minutes"
    return f"{hours:.1f} hours" if hours < 120 else f"{hours / 24:.1f} days"


def day_words(time: np.datetime64) -> str:
    """A date as one says it, in no locale but English.

    >>> day_words(np.datetime64("2018-07-04T10:57"))
    '4 July 2018'
    """
    year, month, day = str(time.astype("datetime64[D]")).split("-")
    return f"{int(day)} {MONTHS[int(month) - 1]} {year}"


def fitting(parts: list[str], width_in: float, size_pt: float) -> str:
    """As many of the parts as fit on a line of this width, joined by dots; the first always.

    >>> fitting(["2018-07-04", "ascending", "gamma0 RTC"], 1.7, 9)
    '2018-07-04 · ascending'
    """
    while len(parts) > 1 and len(" · ".join(parts)) * size_pt / 72 * 0.555 > width_in:
        parts = parts[:-1]
    return " · ".join(parts)


def day_span(first: np.datetime64, last: np.datetime64) -> str:
    """Two dates as one says them, or one where they are the same.

    >>> day_span(np.datetime64("2018-07-04T10"), np.datetime64("2018-07-04T17"))
    '4 July 2018'
    """
    begin, end = day_words(first), day_words(last)
    return begin if begin == end else f"{begin} to {end}"


def date_axis(axes: Axes) -> None:
    """Dates along the bottom, as few words as they take.

    >>> date_axis(axes_in(page(4, ""), 1, 1, 2, 2))
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=4, maxticks=12)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
    plain(axes)


def minute(time: np.datetime64) -> str:
    """A time to the minute.

    >>> minute(np.datetime64("2018-07-04T10:57:31"))
    '2018-07-04 10:57 UTC'
    """
    return str(time.astype("datetime64[m]")).replace("T", " ") + " UTC"


def credit_of(attrs: Mapping[Any, Any], years: list[str]) -> str:
    """Whose data this is. The imaginary world always says that it is imaginary.

    >>> credit_of({"source": "demo", "seed": 3}, ["2018"])
    'Imaginary demo world (seed 3), not a real place · deepsentinel'
    >>> credit_of({"source": "earth-search"}, ["2018"])
    'Contains modified Copernicus Sentinel data 2018 · Earth Search on AWS · deepsentinel'
    """
    source = attrs.get("source")
    if not source:
        return "Source not recorded · deepsentinel"
    if str(source) == "demo":
        seed = f" (seed {attrs['seed']})" if "seed" in attrs else ""
        return f"Imaginary demo world{seed}, not a real place · deepsentinel"
    when = "-".join(dict.fromkeys((years[0], years[-1]))) if years else ""
    copernicus = f"Contains modified Copernicus Sentinel data {when}".rstrip()
    return f"{copernicus} · {CREDITS.get(str(source), source)} · deepsentinel"


def years_of(patch: xr.Dataset) -> list[str]:
    """The years in which a patch or series was measured, in order.

    >>> import xarray as xr
    >>> years_of(xr.Dataset(coords={"s2_time": np.datetime64("2018-07-04", "ns")}))
    ['2018']
    """
    times = [np.atleast_1d(patch[name].values) for name in ("s1_time", "s2_time") if name in patch.coords]
    return sorted({str(year) for part in times for year in part.astype("datetime64[Y]")})


def time_of(patch: xr.Dataset, sensor: str) -> np.datetime64 | None:
    """When a sensor took its part of a patch; None where that is not recorded.

    >>> import xarray as xr
    >>> time_of(xr.Dataset(coords={"s2_time": np.datetime64("2018-07-04", "s")}), "S2")
    np.datetime64('2018-07-04T00:00:00.000000000')
    """
    name = f"{sensor.lower()}_time"
    return np.datetime64(str(patch[name].to_numpy()), "ns") if name in patch.coords else None


def metres_per_px(patch: xr.Dataset) -> tuple[float, float]:
    """Height and width of a pixel in metres, also on a grid in degrees.

    >>> import xarray as xr
    >>> from pyproj import CRS
    >>> grid = xr.Dataset(coords={"y": [15.0, 5.0], "x": [5.0, 15.0], "spatial_ref": 0})
    >>> grid["spatial_ref"].attrs["crs_wkt"] = CRS.from_epsg(32631).to_wkt()
    >>> metres_per_px(grid)
    (10.0, 10.0)
    """
    crs = _crs(patch)
    sides = []
    for axis in ("y", "x"):
        values = patch[axis].values
        sides.append(abs(float(values[-1] - values[0])) / (values.size - 1) if values.size > 1 else 10.0)
    factor = crs.axis_info[0].unit_conversion_factor
    if not crs.is_geographic:
        return sides[0] * factor, sides[1] * factor
    radius_m = 6_371_000.0
    shrink = np.cos(np.deg2rad(float(patch["y"].values.mean())))
    return sides[0] * factor * radius_m, sides[1] * factor * radius_m * float(shrink)


def _crs(patch: xr.Dataset) -> Any:
    from pyproj import CRS

    attrs = patch["spatial_ref"].attrs
    return CRS.from_wkt(attrs.get("crs_wkt") or attrs["spatial_ref"])


def place(patch: xr.Dataset) -> str:
    """Where a patch lies, how large it is and in which CRS, in one line.

    >>> import xarray as xr
    >>> from pyproj import CRS
    >>> grid = xr.Dataset(coords={"y": [15.0, 5.0], "x": [500_005.0, 500_015.0], "spatial_ref": 0})
    >>> grid["spatial_ref"].attrs["crs_wkt"] = CRS.from_epsg(32631).to_wkt()
    >>> place(grid)
    '0.000° N, 3.000° E · 2 × 2 px of 10 m, 0.02 × 0.02 km · EPSG:32631, grid north is up'
    """
    from pyproj import Transformer

    crs = _crs(patch)
    x, y = (float(patch[axis].values.mean()) for axis in ("x", "y"))
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    rows, cols = patch.sizes["y"], patch.sizes["x"]
    tall_m, wide_m = metres_per_px(patch)
    code = crs.to_epsg()
    name = f"EPSG:{code}" if code else crs.name
    size = f"{cols} × {rows} px of {wide_m:.3g} m, {kilometres(cols * wide_m)} × {kilometres(rows * tall_m)} km"
    where = f"{abs(lat):.3f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.3f}° {'E' if lon >= 0 else 'W'}"
    return f"{where} · {size} · {name}, grid north is up"
