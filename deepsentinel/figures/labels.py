"""A table of labels on a map: every polygon in the colour of its class, and how much of the area each class has.

It is drawn as it was read, without a grid and without mending: what is wrong with it is for `label_report`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely

from deepsentinel.errors import InputError
from deepsentinel.geometries import kinds
from deepsentinel.legend import Legend

from . import credits, slides
from .listing import Entry, listed, map_page

if TYPE_CHECKING:
    import geopandas as gpd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pyproj import CRS

# More outlines than this would be a white net over the map.
OUTLINED = 3000
# From here on polygons are thinned to what a screen can show before they are drawn.
MANY_POINTS = 300_000
SCREEN_PX = 1600
BAND = 2000
VALUES = "viridis"
# Polygons of less than this part of the map's width are lost on it, and get a dot, where they cover next to nothing.
LOST_SHARE = 0.006
SCATTERED_SHARE = 0.02


def is_labels(obj: Any) -> bool:
    """Whether this is a table of labels: shapes with a `ground_truth`.

    >>> import geopandas as gpd
    >>> is_labels(gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32631"))
    True
    """
    return "ground_truth" in getattr(obj, "columns", ()) and hasattr(obj, "total_bounds")


def labels_figure(labels: gpd.GeoDataFrame, *, title: str | None) -> Figure:
    """The labels on a map, with their legend.

    >>> import geopandas as gpd
    >>> fields = [shapely.box(5e5, 5e6, 5e5 + 300, 5e6 + 100), shapely.box(5e5, 5e6 + 100, 5e5 + 100, 5e6 + 200)]
    >>> labels = gpd.GeoDataFrame({"ground_truth": ["oats", "rye"]}, geometry=fields, crs="EPSG:32631")
    >>> fig = labels_figure(labels, title=None)
    >>> fig.texts[0].get_text(), [text.get_text() for text in fig.texts if "%" in text.get_text()]
    ('2 labels in 2 classes', ['75.0 %', '25.0 %'])
    """
    if labels.crs is None:
        raise InputError(
            "The labels have no CRS, so nobody knows where they lie. Say which one they are written in:"
            " labels.set_crs('EPSG:...')."
        )
    crs = flat(labels)
    shapes = np.asarray(labels.geometry.to_crs(crs).array, dtype=object)
    truth = labels["ground_truth"]
    usable = np.isfinite(shapely.bounds(shapes)).all(axis=1) & truth.notna().to_numpy()
    if not usable.any():
        raise InputError(f"None of the {len(labels)} labels has both a shape and a class, so there is nothing to show.")
    shapes, table = shapes[usable], labels[usable]
    left, bottom, right, top = view_of_shapes(shapes)
    unit_m = crs.axis_info[0].unit_conversion_factor or 1.0
    lost = f", {int((~usable).sum()):,} more have no shape or no class" if not usable.all() else ""
    page: dict[str, Any] = {
        "footer": place_of(labels, crs, (right - left) * unit_m, (top - bottom) * unit_m),
        "credit": _credit(labels),
    }
    count = slides.counted(len(table), "label")
    if pd.api.types.is_float_dtype(truth.dtype):
        values = table["ground_truth"].to_numpy("float64")
        page |= {"headline": title or f"{count} with values from {values.min():.4g} to {values.max():.4g}"}
        fig, axes = map_page(
            (right - left) / (top - bottom), (right - left) * unit_m, subtitle=_told(labels, lost), **page
        )
        colours = _value_colours(fig, axes, values)
    else:
        legend, codes = _legend(labels, table["ground_truth"])
        entries, by = _entries(legend, codes, shapes)
        classes = slides.counted(len(np.unique(codes)), "class")
        page |= {"headline": title or f"{count} in {classes}", "entries": entries, "heading": by}
        whose = " · ".join(filter(None, (credits.title_of(legend), _told(labels, lost))))
        fig, axes = map_page((right - left) / (top - bottom), (right - left) * unit_m, subtitle=whose, **page)
        rgb = legend.color_table()
        found, where = np.unique(codes, return_inverse=True)
        colours = np.array([rgb[int(code)][:3] for code in found])[where] / 255
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    if (dots := _scattered(shapes, (right - left) * (top - bottom), LOST_SHARE * (right - left))).any():
        middle = shapely.centroid(shapes[dots])
        axes.scatter(shapely.get_x(middle), shapely.get_y(middle), s=26, c=colours[dots], edgecolors=slides.INK, lw=0.4)
    _draw(axes, shapes, colours, (right - left) / SCREEN_PX)
    return fig


def flat(labels: gpd.GeoDataFrame) -> CRS:
    """The CRS to draw in: the labels' own where it is a map in true sizes, or else an equal-area one around them."""
    from pyproj import CRS

    crs = CRS(labels.crs)
    # Mercator's metres grow towards the poles; its transverse kin is true where it is used.
    method = crs.coordinate_operation.method_name.lower() if crs.coordinate_operation is not None else ""
    if crs.is_projected and ("mercator" not in method or "transverse" in method):
        return crs
    west, south, east, north = labels.to_crs("EPSG:4326").total_bounds if not crs.is_geographic else labels.total_bounds
    if not np.isfinite([west, south, east, north]).all():
        return crs
    return CRS(f"+proj=laea +lat_0={(south + north) / 2:.6f} +lon_0={(west + east) / 2:.6f} +units=m +type=crs")


def view_of_shapes(shapes: np.ndarray) -> tuple[float, float, float, float]:
    """The box around shapes, a little larger."""
    edges = shapely.bounds(shapes)
    left, bottom = edges[:, :2].min(axis=0)
    right, top = edges[:, 2:].max(axis=0)
    # A single point has no size of its own.
    pad = 0.02 * max(right - left, top - bottom) or 50.0
    return float(left - pad), float(bottom - pad), float(right + pad), float(top + pad)


def _legend(labels: gpd.GeoDataFrame, truth: pd.Series) -> tuple[Legend, np.ndarray]:
    """The classes and the code of each row: by the legend of the table, by its names, or by themselves."""
    if not pd.api.types.is_numeric_dtype(truth.dtype):
        legend = Legend.of_texts(truth, name="ground_truth")
        return legend, truth.astype(str).map(legend.numbers).to_numpy("int64")
    codes = truth.to_numpy("int64")
    text = labels.attrs.get("legend")
    legend = Legend.from_json(text) if text else Legend.of_codes([])
    if set(codes.tolist()) <= set(legend.codes):
        return legend, codes
    legend = Legend.of_codes(codes)
    if "class_name" in labels.columns:  # which outlives the attributes
        from dataclasses import replace

        names = labels.loc[truth.index, "class_name"].groupby(codes).first().dropna().to_dict()
        legend = replace(legend, classes=tuple(replace(e, name=str(names.get(e.code, e.name))) for e in legend))
    return legend, codes


def _entries(legend: Legend, codes: np.ndarray, shapes: np.ndarray) -> tuple[list[Entry], str]:
    """A line for each class, and what their numbers are: shares of the area, or of the labels where none has any."""
    weights = shapely.area(shapes)
    by = "Classes and their share of the labelled area"
    if not weights.sum() > 0:
        weights, by = np.ones(len(shapes)), "Classes and their share of the labels"
    sums = pd.Series(weights).groupby(codes).sum() / weights.sum()
    sums = sums.sort_values(ascending=False, kind="stable")
    rgb = legend.color_table()
    rows = [Entry((rgb[code][:3],), legend.names[code], share, _percent(share)) for code, share in sums.items()]
    return listed(rows, of_rest=lambda rest: _percent(sum(entry.share for entry in rest))), by


def _percent(share: float) -> str:
    return "under 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def _told(labels: gpd.GeoDataFrame, lost: str) -> str:
    """When the labels were true, and how many are not drawn."""
    parts = []
    if "valid_from" in labels.columns:
        years = sorted(pd.to_datetime(labels["valid_from"]).dt.year.dropna().astype(int).unique())
        if years:
            parts.append("valid from " + "-".join(map(str, dict.fromkeys((years[0], years[-1])))))
    return (" · ".join(parts) + lost).removeprefix(", ")


def place_of(labels: gpd.GeoDataFrame, crs: CRS, wide_m: float, tall_m: float) -> str:
    """Where labels lie, how large the map is and in what it is drawn, for the foot of a page."""
    from pyproj import Transformer

    left, bottom, right, top = labels.geometry.to_crs(crs).total_bounds
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform((left + right) / 2, (bottom + top) / 2)
    where = f"{abs(lat):.3f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.3f}° {'E' if lon >= 0 else 'W'}"
    own = labels.crs.to_epsg()
    name = f"EPSG:{own}" if own else labels.crs.name
    drawn = "" if crs == labels.crs else ", drawn in an equal-area projection"
    return f"{where} · {slides.kilometres(wide_m)} × {slides.kilometres(tall_m)} km · {name}{drawn}"


def _credit(labels: gpd.GeoDataFrame) -> str:
    if credits.imaginary(labels):
        return slides.credit_of({"source": "demo"}, [])
    text = labels.attrs.get("legend")
    whose = credits.credit_of_legends([Legend.from_json(text)] if text else [])
    return " · ".join(filter(None, (whose, credits.files_credit([credits.file_of(labels)]))))


def _value_colours(fig: Figure, axes: Axes, values: np.ndarray) -> np.ndarray:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = Normalize(values.min(), max(values.max(), values.min() + 1e-9))
    box = axes.get_position()
    bar = fig.add_axes((box.x1 + 0.02, box.y0, 0.012, box.height))
    fig.colorbar(ScalarMappable(scale, VALUES), cax=bar)
    bar.tick_params(labelsize=9, colors=slides.FAINT)
    bar.set_ylabel("ground_truth", size=9, color=slides.FAINT)
    return np.asarray(colormaps[VALUES](scale(values))[:, :3])


def _scattered(shapes: np.ndarray, ground: float, lost: float) -> np.ndarray:
    """Which polygons would not be seen at all: small ones that lie far apart."""
    areas, edges = shapely.area(shapes), shapely.bounds(shapes)
    if len(shapes) > OUTLINED or areas.sum() > SCATTERED_SHARE * ground:
        return np.zeros(len(shapes), dtype=bool)
    return np.asarray((areas > 0) & (np.maximum(edges[:, 2] - edges[:, 0], edges[:, 3] - edges[:, 1]) < lost))


def _draw(axes: Axes, shapes: np.ndarray, colours: np.ndarray, fine: float) -> None:
    """Large shapes first, so that none hides a smaller one."""
    from matplotlib.collections import LineCollection, PathCollection

    parts, row = shapely.get_parts(shapes, return_index=True)
    while (shapely.get_type_id(parts) >= 4).any():  # collections within collections
        parts, inner = shapely.get_parts(parts, return_index=True)
        row = row[inner]
    kind = kinds(parts)
    is_area, is_line, is_point = (kind == name for name in ("polygon", "line", "point"))
    if is_area.any():
        areas = parts[is_area]
        order = np.argsort(-shapely.area(areas), kind="stable")
        areas, faces = areas[order], colours[row[is_area][order]]
        few = areas.size <= OUTLINED
        groups = np.arange(areas.size)
        if not few:  # those of nearly one size and one colour are one path: a country has a million polygons
            _, tint = np.unique(faces, axis=0, return_inverse=True)
            band = groups // BAND
            order = np.lexsort((tint.ravel(), band))
            areas, faces, tint, band = areas[order], faces[order], tint.ravel()[order], band[order]
            groups = np.cumsum(np.r_[0, (np.diff(tint) != 0) | (np.diff(band) != 0)])
            faces = faces[np.unique(groups, return_index=True)[1]]
        edges: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.4} if few else {
            "edgecolors": "face", "linewidths": 0.15
        }  # fmt: skip
        axes.add_collection(
            PathCollection(_paths(areas, fine, groups), facecolors=faces, rasterized=not few, **edges), autolim=False
        )
    if is_line.any():
        lines = [shapely.get_coordinates(part) for part in shapely.simplify(parts[is_line], fine)]
        axes.add_collection(LineCollection(lines, colors=colours[row[is_line]], linewidths=1.2), autolim=False)
    if is_point.any():
        x, y = shapely.get_coordinates(parts[is_point]).T
        size = float(np.clip(4000 / x.size, 2, 36))
        axes.scatter(x, y, s=size, c=colours[row[is_point]], edgecolors="white", linewidths=0.3, zorder=3)


def _paths(areas: np.ndarray, fine: float, groups: np.ndarray) -> list[Any]:
    """A path for each group of polygons, their holes left open; groups are numbered from 0 and follow each other."""
    from matplotlib.path import Path

    if shapely.get_num_coordinates(areas).sum() > MANY_POINTS:
        # Much faster than with their topology kept; those that it would break stay as they are.
        thin = shapely.simplify(areas, fine / 2, preserve_topology=False)
        areas = np.where((shapely.get_type_id(thin) == 3) & ~shapely.is_empty(thin), thin, areas)
    # Rings that run the same way would fill the holes.
    holed = shapely.get_num_interior_rings(areas) > 0 if groups[-1] + 1 == groups.size else np.ones(len(areas), bool)
    areas = areas.copy()
    areas[holed] = shapely.normalize(areas[holed])
    rings, owner = shapely.get_rings(areas, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    codes = np.full(len(points), Path.LINETO, dtype=Path.code_type)
    starts = np.flatnonzero(np.diff(ring, prepend=-1))
    codes[starts] = Path.MOVETO
    codes[np.append(starts[1:], len(points)) - 1] = Path.CLOSEPOLY
    cuts = np.flatnonzero(np.diff(groups[owner[ring]])) + 1
    return [Path(p, c) for p, c in zip(np.split(points, cuts), np.split(codes, cuts), strict=True)]
