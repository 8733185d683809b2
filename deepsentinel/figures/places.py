"""Points and windows on a map: of the world where they are all over it, otherwise of the ground around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely

from deepsentinel.errors import InputError
from deepsentinel.geometries import kinds
from deepsentinel.legend import Legend

from . import slides
from .earth import forth, globe, projected, sphere
from .listing import Entry, listed, map_page
from .slides import FAINT, FOOT_IN, HEAD_IN, INK, MARGIN_IN, PAGE_WIDTH_IN
from .views import View, draw_ground, view_of

if TYPE_CHECKING:
    import geopandas as gpd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WINDOW_COLUMNS = frozenset({"crs", "x0", "y0", "size_px", "resolution"})
# More than these are not seen, and slow the drawing down.
DRAWN = 100_000
WINDOWS_DRAWN = 3000
VISIBLE_SHARE = 0.004
LEGEND_COLUMNS, LEGEND_ROW_IN = 4, 0.27


def is_places(obj: Any) -> bool:
    """Whether this is a table of points, or of windows.

    >>> import geopandas as gpd
    >>> is_places(gpd.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs="EPSG:4326"))
    True
    """
    if not hasattr(obj, "columns") or not hasattr(obj, "total_bounds"):
        return False
    columns = {str(name) for name in obj.columns}
    if columns & {"ground_truth", "sensor", "s1_id"}:
        return False
    return columns >= WINDOW_COLUMNS or (len(obj) > 0 and set(kinds(obj.geometry.array)) <= {"point", "none"})


def places_figure(places: gpd.GeoDataFrame, *, title: str | None) -> Figure:
    """The places on a map, by class where they have one.

    >>> from deepsentinel.land import sample_land
    >>> fig = places_figure(sample_land(50), title=None)
    >>> fig.texts[0].get_text()
    '50 points: all land but Antarctica'
    """
    lon, lat = _middles(places)
    windows = set(places.columns) >= WINDOW_COLUMNS
    view = view_of(lon, lat, _size_m(places) if windows else 0.0)
    legend, codes = _classes(places)
    entries = _entries(legend, codes)
    noun = "window" if windows else "point"
    page: dict[str, Any] = {
        "headline": title or _headline(places, noun, len(np.unique(codes)) if legend is not None else 0),
        "subtitle": _told(places, lon, lat, windows),
        "footer": _where(lon, lat) + (f" · {DRAWN:,} of them drawn" if len(lon) > DRAWN else ""),
        "credit": "deepsentinel",
    }
    if view.outlined or not entries:  # then there is a globe
        page["credit"] = "Land: Natural Earth, 1:110 million · deepsentinel"
    if view.world:
        fig, axes = _world_page(view, entries, **page)
    else:
        heading = f"Classes and their share of the {noun}s" if entries else ""
        fig, axes = map_page(view.aspect, view.width_m, heading=heading, entries=entries, **page)
    axes.set_xlim(view.sides[::2])
    axes.set_ylim(view.sides[1::2])
    draw_ground(axes, view)
    if not view.world and not entries:
        _locator(fig, view)
    colours = _colours(legend, codes, len(lon))
    large = windows and _size_m(places) > VISIBLE_SHARE * view.width_m and len(places) <= WINDOWS_DRAWN
    if large:
        _outlines(axes, places, view, colours)
    else:
        _dots(axes, *forth(view.crs, lon, lat), colours)
    return fig


def _middles(places: gpd.GeoDataFrame) -> tuple[np.ndarray, np.ndarray]:
    if not len(places):
        raise InputError("The table is empty, so there is nothing to show.")
    if set(places.columns) >= WINDOW_COLUMNS and {"lon", "lat"} <= set(places.columns):
        return places["lon"].to_numpy("float64"), places["lat"].to_numpy("float64")
    if places.crs is None:
        raise InputError("The points have no CRS, so nobody knows where they lie: points.set_crs('EPSG:4326').")
    shapes = np.asarray(places.geometry.to_crs("EPSG:4326").array, dtype=object)
    middle = shapely.centroid(shapes)
    lon, lat = shapely.get_x(middle), shapely.get_y(middle)
    known = np.isfinite(lon) & np.isfinite(lat)
    if not known.all():
        raise InputError(f"{(~known).sum()} of the {len(places)} points have no place; drop them first.")
    return lon, lat


def _world_page(view: View, entries: list[Entry], **page: Any) -> tuple[Figure, Axes]:
    """A page wide map of the whole Earth, its classes in columns below it."""
    rows = -(-len(entries) // LEGEND_COLUMNS)
    width_in = min(PAGE_WIDTH_IN - 2 * MARGIN_IN, (6.0 - LEGEND_ROW_IN * rows) * view.aspect)
    height_in = width_in / view.aspect
    below_in = 0.15 + LEGEND_ROW_IN * rows if rows else 0.0
    headline, subtitle = page.pop("headline"), page.pop("subtitle")
    fig = slides.page(HEAD_IN + height_in + below_in + 0.15 + FOOT_IN, headline, subtitle, **page)
    axes = slides.axes_in(fig, (PAGE_WIDTH_IN - width_in) / 2, HEAD_IN, width_in, height_in)
    axes.set_axis_off()
    sphere(axes, view.crs)
    column_in = (PAGE_WIDTH_IN - 2 * MARGIN_IN) / LEGEND_COLUMNS
    for number, entry in enumerate(entries):
        row, column = divmod(number, LEGEND_COLUMNS)
        left_in, top_in = MARGIN_IN + column * column_in, HEAD_IN + height_in + 0.15 + row * LEGEND_ROW_IN
        swatch = slides.bare(slides.axes_in(fig, left_in, top_in, 0.17, 0.17))
        swatch.imshow(np.array([entry.colours], "uint8"), aspect="auto", interpolation="nearest")
        number_in = 0.085 * len(entry.number)
        most = int((column_in - 0.5 - number_in) / 0.078)
        name = entry.name if len(entry.name) <= most else entry.name[: most - 1].rstrip(" ,") + "…"
        height = 1 - (top_in + 0.085) / fig.get_figheight()
        fig.text((left_in + 0.28) / PAGE_WIDTH_IN, height, name, va="center", size=9.5, color=INK)
        right = (left_in + column_in - 0.15) / PAGE_WIDTH_IN
        fig.text(right, height, entry.number, va="center", ha="right", size=9.5, color=FAINT)
    return fig, axes


def _locator(fig: Figure, view: View) -> None:
    """Where on Earth the map is: a globe in the free half of the page."""
    tall_in = fig.get_figheight() - HEAD_IN - FOOT_IN - 0.2
    size_in = min(4.4, tall_in)
    left_in = PAGE_WIDTH_IN - MARGIN_IN - size_in - 0.5
    axes = slides.axes_in(fig, left_in, HEAD_IN + (tall_in - size_in) / 2, size_in, size_in)
    globe(axes, view.centre, view.reach_deg)


def _dots(axes: Axes, x: np.ndarray, y: np.ndarray, colours: np.ndarray) -> None:
    if len(x) > DRAWN:
        drawn = np.sort(np.random.default_rng(0).permutation(len(x))[:DRAWN])
        x, y, colours = x[drawn], y[drawn], colours[drawn]
    size = float(np.clip(30_000 / len(x), 0.6, 26))
    edge: dict[str, Any] = {"edgecolors": slides.INK, "linewidths": 0.25} if size > 4 else {"linewidths": 0}
    axes.scatter(x, y, s=size, c=colours, zorder=3, rasterized=len(x) > 5000, **edge)


def _outlines(axes: Axes, places: gpd.GeoDataFrame, view: View, colours: np.ndarray) -> None:
    from matplotlib.collections import PolyCollection

    parts, row = shapely.get_parts(np.asarray(places.geometry.array, dtype=object), return_index=True)
    rings = [shapely.get_coordinates(part) for part in projected(parts, view.crs, 0.1)]
    faces = np.column_stack([colours[row], np.full(len(row), 0.25)])
    axes.add_collection(
        PolyCollection(rings, facecolors=faces, edgecolors=colours[row], linewidths=0.7, zorder=3), autolim=False
    )


def _classes(places: gpd.GeoDataFrame) -> tuple[Legend | None, np.ndarray]:
    """The legend and the code of each place; no legend where they have no class."""
    none = np.zeros(len(places), dtype="int64")
    if "class" not in places.columns or not places["class"].notna().any():
        return None, none
    values = places["class"]
    if not pd.api.types.is_numeric_dtype(values.dtype):
        legend = Legend.of_texts(values.dropna(), name="class")
        return legend, values.astype(str).map(legend.numbers).fillna(0).to_numpy("int64")
    codes = values.fillna(0).to_numpy("int64")
    found = np.unique(codes[values.notna().to_numpy()])
    text = places.attrs.get("legend")
    legend = Legend.from_json(text) if text else Legend.of_codes(found)
    if not set(found.tolist()) <= set(legend.codes):
        legend = Legend.of_codes(found)
    return legend, codes


def _entries(legend: Legend | None, codes: np.ndarray) -> list[Entry]:
    if legend is None:
        return []
    found, counts = np.unique(codes[np.isin(codes, legend.codes)], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rgb = legend.color_table()
    percent = lambda share: "under 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"  # noqa: E731
    rows = []
    for k in order:
        code, share = int(found[k]), float(counts[k] / len(codes))
        rows.append(Entry((rgb[code][:3],), legend.names[code], share, percent(share)))
    return listed(rows, of_rest=lambda rest: percent(sum(entry.share for entry in rest)))


def _colours(legend: Legend | None, codes: np.ndarray, count: int) -> np.ndarray:
    from matplotlib.colors import to_rgb

    if legend is None:
        return np.tile(to_rgb(slides.VERMILION), (count, 1))
    table = {code: np.array(rgb[:3]) / 255 for code, rgb in legend.color_table().items()}
    found, where = np.unique(codes, return_inverse=True)
    grey = np.array(to_rgb(slides.GREY))
    return np.asarray(np.array([table.get(int(code), grey) for code in found])[where])


def _headline(places: gpd.GeoDataFrame, noun: str, classes: int) -> str:
    count = slides.counted(len(places), noun)
    if classes:
        return f"{count} in {slides.counted(classes, 'class')}"
    region = places.attrs.get("region")
    return f"{count}: {region}" if region else count


def _size_m(places: gpd.GeoDataFrame) -> float:
    return float((places["size_px"] * places["resolution"]).max())


def _told(places: gpd.GeoDataFrame, lon: np.ndarray, lat: np.ndarray, windows: bool) -> str:
    parts = []
    if "class" in places.columns and places.attrs.get("region"):
        parts.append(str(places.attrs["region"]))
    if windows:
        size_px, resolution = int(places["size_px"].iloc[0]), float(places["resolution"].iloc[0])
        parts.append(
            f"{size_px} × {size_px} px of {resolution:g} m, {slides.kilometres(size_px * resolution)} km a side"
        )
        names = places["crs"].unique()
        parts.append(str(names[0]) if len(names) == 1 else f"{len(names)} projections")
    if places.attrs.get("min_distance_m"):
        parts.append(f"at least {slides.kilometres(places.attrs['min_distance_m'])} km apart")
    if "seed" in places.attrs:
        parts.append(f"seed {places.attrs['seed']}")
    return " · ".join(parts)


def _where(lon: np.ndarray, lat: np.ndarray) -> str:
    turned = np.where(lon < 0, lon + 360, lon)
    # Across 180 degrees the shorter way around is the one that is meant.
    west, east = (turned.min(), turned.max()) if np.ptp(turned) < np.ptp(lon) else (lon.min(), lon.max())
    side = lambda value, letters: f"{abs(value):.4g}° {letters[int(value < 0)]}"  # noqa: E731
    east, west = (value - 360 if value > 180 else value for value in (east, west))
    return f"{side(west, 'EW')} to {side(east, 'EW')}, {side(lat.min(), 'NS')} to {side(lat.max(), 'NS')}"
