"""Labels that lie over each other -> labels that lie side by side, so that no ground has two classes.

OpenStreetMap draws a house on top of a residential area on top of a forest. Of two that overlap the one on top keeps
its shape, and what is below loses that ground. Every label is cut by the originals above it: what those lose in turn is
covered by something still higher, so one pass is enough and none has to wait for another.
"""

from __future__ import annotations

import itertools

import geopandas as gpd
import numpy as np
import pyproj
import shapely

from deepsentinel.aoi import utm_crs

__all__ = ["as_areas", "flattened", "metric_crs"]

# Two UTM zones: farther from its middle a zone stretches, and buffers of metres would no longer be metres.
_WIDEST_DEG = 12.0
# What rounding leaves of a label that is wholly covered.
_NOTHING_M2 = 1e-4


def metric_crs(table: gpd.GeoDataFrame) -> pyproj.CRS:
    """The projection in metres that suits a table: the UTM zone of its middle, or for a continent an equal-area map."""
    west, south, east, north = table.total_bounds if len(table) else (0.0, 0.0, 0.0, 0.0)
    if not table.crs.is_geographic:
        to_degrees = pyproj.Transformer.from_crs(table.crs, "EPSG:4326", always_xy=True)
        west, south, east, north = to_degrees.transform_bounds(west, south, east, north)
    lon, lat = (west + east) / 2, (south + north) / 2
    if east - west <= _WIDEST_DEG:
        return pyproj.CRS(utm_crs(lon, lat))
    return pyproj.CRS(f"+proj=laea +lat_0={lat:.4f} +lon_0={lon:.4f} +datum=WGS84 +units=m")


def as_areas(geometries: np.ndarray, width_m: np.ndarray) -> np.ndarray:
    """Lines and points as areas of their width (in a CRS of metres); polygons as they are."""
    areas = geometries.copy()
    thin = shapely.get_dimensions(geometries) < 2
    # Round ends close the gaps where streets meet; two arcs a quarter are within 8 % of a width of a few metres.
    areas[thin] = shapely.buffer(geometries[thin], width_m[thin] / 2, quad_segs=4)
    return areas


def flattened(geometries: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Each polygon without what lies over it; `rank` (all different) is higher on top. Empty where nothing is left."""
    tree = shapely.STRtree(geometries)
    below, above = tree.query(geometries, predicate="intersects")
    over = rank[above] > rank[below]
    below, above = below[over], above[over]
    # The boundary alone in common: nothing to cut, and most pairs of neighbours are such. A wood with ten thousand
    # corners is asked for each house in it, which only a prepared geometry answers quickly.
    shapely.prepare(geometries)
    shared = ~shapely.touches(geometries[below], geometries[above])
    below, above = below[shared], above[shared]
    order = np.argsort(below, kind="stable")
    below, above = below[order], above[order]
    flat = geometries.copy()
    edges = np.append(np.flatnonzero(np.diff(below, prepend=-1)), len(below))
    for first, last in itertools.pairwise(edges):
        cover = geometries[above[first]] if last - first == 1 else shapely.union_all(geometries[above[first:last]])
        flat[below[first]] = shapely.difference(geometries[below[first]], cover)
    flat[shapely.area(flat) < _NOTHING_M2] = shapely.Polygon()
    return flat
