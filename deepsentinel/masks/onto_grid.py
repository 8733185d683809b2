"""Shapes brought from their CRS onto a grid, as exactly as the grid can tell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import shapely
from odc.geo.geobox import GeoBox

from deepsentinel.grids import bounds_of, crs_of

# A straight edge of a label is a curve on the grid; it is followed within this share of a pixel.
CURVE_TOLERANCE_PX = 1e-5
# Whatever lies further from the grid than this share of its size is cut off before it is projected: a continent has
# corners that a projection made for the grid has no place for.
WIDE_SHARE = 0.25
# A circle or a bend has so many corners in a quarter turn: its area is right within 0.2 %.
QUARTER_CORNERS = 16
# A degree of longitude up to latitude 63; only used to look a little too far.
DEGREE_M = 50_000
# How many of the shapes nearest to a grid are measured exactly.
NEAREST = 50


@dataclass(frozen=True)
class OntoGrid:
    """The way of shapes from one CRS onto one grid."""

    geobox: GeoBox
    """The grid."""
    there: pyproj.Transformer | None
    """To the CRS of the grid; None where it is the same."""
    wide: shapely.Geometry | None
    """In the CRS of the shapes: what lies outside of it is cut off. None where nothing needs to be."""
    longest: float
    """In the CRS of the shapes: longer edges are cut into pieces."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """left, bottom, right, top of the grid."""
        return bounds_of(self.geobox)

    def bring(self, shapes: np.ndarray, widths_m: np.ndarray) -> np.ndarray:
        """The shapes in the CRS of the grid, lines and points as wide as they are."""
        if self.there is not None and len(shapes):
            shapes = self._projected(shapes)
        thin = np.isfinite(widths_m)
        if thin.any():
            shapes = shapes.copy()
            shapes[thin] = self._buffered(shapes[thin], widths_m[thin])
        return shapes

    def _projected(self, shapes: np.ndarray) -> np.ndarray:
        assert self.there is not None
        transform = self.there.transform
        if self.wide is not None:
            shapely.prepare(self.wide)
            outside = ~shapely.contains_properly(self.wide, shapes)
            if outside.any():
                shapes = shapes.copy()
                shapes[outside] = _polygons_first(shapely.intersection(shapes[outside], self.wide))
        if math.isfinite(self.longest):
            shapes = shapely.segmentize(shapes, self.longest)
        moved = shapely.transform(shapes, lambda x, y: transform(x, y), interleaved=False)
        broken = ~shapely.is_valid(moved)
        if broken.any():
            # Rounding may close a gap of a nanometre; a corner that has no place on the grid is infinite.
            finite = np.isfinite(shapely.bounds(moved[broken])).all(axis=1)
            mended = np.full(int(broken.sum()), shapely.Polygon(), dtype=object)
            mended[finite] = shapely.make_valid(moved[broken][finite], method="structure", keep_collapsed=False)
            moved[broken] = mended
        return np.asarray(moved, dtype=object)

    def _buffered(self, shapes: np.ndarray, widths_m: np.ndarray) -> np.ndarray:
        crs = crs_of(self.geobox)
        # A line ends where it ends, so that its area is its length times its width; points are round.
        flat = np.where(shapely.get_dimensions(shapes) == 1, "flat", "round")
        if crs.is_projected:
            half = widths_m / 2 / crs.axis_info[0].unit_conversion_factor
            return _buffer(shapes, half, flat)
        left, bottom, right, top = self.bounds
        metric = pyproj.CRS(f"+proj=aeqd +lon_0={(left + right) / 2} +lat_0={(bottom + top) / 2} +ellps=WGS84")
        to, back = (pyproj.Transformer.from_crs(*pair, always_xy=True) for pair in ((crs, metric), (metric, crs)))
        flat_shapes = shapely.transform(shapes, lambda x, y: to.transform(x, y), interleaved=False)
        wide = _buffer(flat_shapes, widths_m / 2, flat)
        return np.asarray(shapely.transform(wide, lambda x, y: back.transform(x, y), interleaved=False), dtype=object)

    def reached(self, shapes: np.ndarray) -> np.ndarray:
        """Which shapes have bounds that share ground with the grid."""
        left, bottom, right, top = self.bounds
        edges = shapely.bounds(shapes)
        with np.errstate(invalid="ignore"):
            return (edges[:, 0] < right) & (edges[:, 2] > left) & (edges[:, 1] < top) & (edges[:, 3] > bottom)

    def how_far(self, shapes: Any, crs: pyproj.CRS) -> str:
        """A sentence for labels that are nowhere on the grid."""
        distance_km = distance_to_grid_km(shapes, crs, self.geobox)
        where = "none of them has a place on Earth"
        if distance_km is not None:
            where = f"the nearest is {distance_km:,.{0 if distance_km >= 100 else 2}f} km away"
        return (
            f"None of the {len(shapes)} labels lies on the grid, so every pixel is background: {where}."
            " Check their CRS and the area."
        )


def _buffer(shapes: np.ndarray, half: np.ndarray, caps: np.ndarray) -> np.ndarray:
    wide = np.empty(len(shapes), dtype=object)
    for cap in np.unique(caps):
        at = caps == cap
        wide[at] = shapely.buffer(shapes[at], half[at], cap_style=str(cap), quad_segs=QUARTER_CORNERS)
    return wide


def _polygons_first(shapes: np.ndarray) -> np.ndarray:
    """Cut shapes without the stray lines and points where they only touched the knife."""
    for at in np.flatnonzero(shapely.get_type_id(shapes) == 7):
        parts = shapely.get_parts(shapes[at])
        sizes = shapely.get_dimensions(parts)
        shapes[at] = shapely.union_all(parts[sizes == sizes.max()]) if len(parts) else shapely.Polygon()
    return shapes


def onto_grid(shapes: Any, crs: pyproj.CRS, geobox: GeoBox, *, reach_m: float = 0.0) -> tuple[np.ndarray, OntoGrid]:
    """Positions of the shapes that may reach the grid, and the way to bring them there.

    Shapes whose bounds are not known (missing, or not numbers) are among them: somebody has to say so.
    """
    grid_crs = crs_of(geobox)
    left, bottom, right, top = bounds_of(geobox)
    edges = shapely.bounds(np.asarray(shapes, dtype=object))
    unknown = ~np.isfinite(edges).all(axis=1)
    grid_unit_m = grid_crs.axis_info[0].unit_conversion_factor if grid_crs.is_projected else DEGREE_M
    reach = reach_m / grid_unit_m
    # The order of the axes is no difference here: coordinates are x, y in every GeoDataFrame and every GeoBox.
    if crs.equals(grid_crs, ignore_axis_order=True):
        near = _within(edges, [(left - reach, bottom - reach, right + reach, top + reach)])
        return np.flatnonzero(near | unknown), OntoGrid(geobox, None, None, math.inf)
    pixel = max(abs(geobox.affine.a), abs(geobox.affine.e))
    margin = max(right - left, top - bottom) * WIDE_SHARE + 2 * pixel + reach
    outer = (left - margin, bottom - margin, right + margin, top + margin)
    there, back = (pyproj.Transformer.from_crs(*way, always_xy=True) for way in ((crs, grid_crs), (grid_crs, crs)))
    west, south, east, north = back.transform_bounds(*outer, densify_pts=41)
    if not np.isfinite([west, south, east, north]).all():
        # The grid has no place in the CRS of the labels, so nothing can be cut off beforehand.
        return np.arange(len(edges)), OntoGrid(geobox, there, None, math.inf)
    boxes = [(west, south, east, north)]
    if west > east:
        boxes = [(west, south, 180.0, north), (-180.0, south, east, north)]
    longest = min(_longest_edge(there, box, CURVE_TOLERANCE_PX * pixel) for box in boxes)
    wide = shapely.union_all([shapely.box(*box) for box in boxes])
    return np.flatnonzero(_within(edges, boxes) | unknown), OntoGrid(geobox, there, wide, longest)


def _within(edges: np.ndarray, boxes: list[tuple[float, float, float, float]]) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        hits = [
            (edges[:, 0] <= right) & (edges[:, 2] >= left) & (edges[:, 1] <= top) & (edges[:, 3] >= bottom)
            for left, bottom, right, top in boxes
        ]
    return np.logical_or.reduce(hits)


def _longest_edge(there: pyproj.Transformer, box: tuple[float, float, float, float], tolerance: float) -> float:
    """How long a straight edge within the box may be, so that the chord it becomes stays close to the curve it is.

    The gap between chord and curve grows with the square of the length, so it is measured at one length in four
    directions all over the box, and scaled.
    """
    west, south, east, north = box
    length = math.hypot(east - west, north - south) / 16
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(west, east, 9), np.linspace(south, north, 9)))
    gaps = [0.0]
    for turn in range(4):
        dx, dy = length / 2 * math.cos(turn * math.pi / 4), length / 2 * math.sin(turn * math.pi / 4)
        start, middle, end = (np.array(there.transform(x + f * dx, y + f * dy)) for f in (-1, 0, 1))
        gap = np.hypot(*((start + end) / 2 - middle))
        gaps.append(float(np.max(gap[np.isfinite(gap)], initial=0.0)))
    return math.inf if max(gaps) <= tolerance / 256 else length * math.sqrt(tolerance / max(gaps))


def distance_to_grid_km(shapes: Any, crs: pyproj.CRS, geobox: GeoBox) -> float | None:
    """From the edge of the grid to the nearest corner of a shape; None where no shape has a place on Earth."""
    geod = pyproj.Geod(ellps="WGS84")
    left, bottom, right, top = bounds_of(geobox)
    outline = shapely.segmentize(shapely.box(left, bottom, right, top), (right - left + top - bottom) / 50)
    grid_lon, grid_lat = _lonlat(shapely.get_coordinates(outline), crs_of(geobox))
    shapes = np.asarray(shapes, dtype=object)
    edges = shapely.bounds(shapes)
    known = np.isfinite(edges).all(axis=1)
    if not known.any() or not np.isfinite(grid_lon).all():
        return None
    shapes, edges = shapes[known], edges[known]
    lon, lat = _lonlat((edges[:, :2] + edges[:, 2:]) / 2, crs)
    rough = geod.inv(lon, lat, np.full(len(lon), grid_lon.mean()), np.full(len(lon), grid_lat.mean()))[2]
    # The corners of those that are nearest by their centres, and of the largest, which may come near with an arm.
    size = np.hypot(edges[:, 2] - edges[:, 0], edges[:, 3] - edges[:, 1])
    close = np.union1d(np.argsort(rough)[:NEAREST], np.argsort(-size)[:NEAREST])
    corners = shapely.get_coordinates(shapes[close])
    lon, lat = _lonlat(corners[:: max(len(corners) // 20_000, 1)], crs)
    usable = np.isfinite(lon) & np.isfinite(lat)
    if not usable.any():
        return None
    lon, lat = lon[usable], lat[usable]
    rough = geod.inv(lon, lat, np.full(len(lon), grid_lon.mean()), np.full(len(lon), grid_lat.mean()))[2]
    nearest = np.argsort(rough)[:NEAREST]
    pairs = [
        (a.ravel(), b.ravel())
        for a, b in ((np.meshgrid(lon[nearest], grid_lon)), (np.meshgrid(lat[nearest], grid_lat)))
    ]
    (lon_a, lon_b), (lat_a, lat_b) = pairs
    return float(geod.inv(lon_a, lat_a, lon_b, lat_b)[2].min()) / 1000


def _lonlat(xy: np.ndarray, crs: pyproj.CRS) -> tuple[np.ndarray, np.ndarray]:
    lon, lat = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(xy[:, 0], xy[:, 1])
    lost = ~(np.isfinite(lon) & np.isfinite(lat) & (np.abs(lat) <= 90))
    return np.where(lost, np.nan, lon), np.where(lost, np.nan, lat)
