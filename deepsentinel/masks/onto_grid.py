"""Shapes brought from their CRS onto a grid, as exactly as the grid can tell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import shapely
from odc.geo.geobox import GeoBox

from deepsentinel.grids import bounds_of, crs_of, metres_per_unit, same_crs, transformer

from .outlines import Transform, brought_lines

# A straight edge of a label is a curve on the grid; it is followed within this share of a pixel.
CURVE_TOLERANCE_PX = 1e-5
# Whatever lies further from the grid than this share of its size is cut off before it is projected: a continent has
# corners that a projection made for the grid has no place for.
WIDE_SHARE = 0.25
# A circle or a bend has so many corners in a quarter turn: its area is right within 0.2 %.
QUARTER_CORNERS = 16
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
    turn: float | None = None
    """Once around the Earth in the CRS of the shapes; None where coordinates do not come round."""
    around: tuple[float, float, float, float] | None = None
    """left, bottom, right, top of what may reach the grid, in the CRS of the shapes; beyond 180 where need be."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """left, bottom, right, top of the grid."""
        return bounds_of(self.geobox)

    def bring(self, shapes: np.ndarray, widths_m: np.ndarray) -> np.ndarray:
        """The shapes in the CRS of the grid, lines and points as wide as they are."""
        shapes = self._placed(shapes)
        if self.there is not None and len(shapes):
            shapes = self._projected(shapes)
        thin = np.isfinite(widths_m)
        if thin.any():
            shapes = shapes.copy()
            shapes[thin] = self._buffered(shapes[thin], widths_m[thin])
        return shapes

    def outlines(self, shapes: np.ndarray, brought: np.ndarray, widths_m: np.ndarray) -> np.ndarray:
        """What distances are measured to: `brought` itself, and for shapes that `bring` cuts their whole boundary.

        The knife runs just outside the grid, and would be the nearest boundary of all that reach beyond it.
        """
        if self.there is None or self.wide is None or len(shapes) == 0:
            return brought
        shapes = self._placed(shapes)
        cut = self._outside(shapes) & ~np.isfinite(widths_m)
        if not cut.any():
            return brought
        brought = brought.copy()
        pixel = min(abs(self.geobox.affine.a), abs(self.geobox.affine.e))
        whole = brought_lines(shapely.boundary(shapes[cut]), self._forward, self.bounds, pixel, CURVE_TOLERANCE_PX)
        brought[cut] = np.where(shapely.is_empty(whole), brought[cut], whole)
        return brought

    def _placed(self, shapes: np.ndarray) -> np.ndarray:
        """The shapes on that side of the antimeridian from which they reach the grid; on both sides, if they do."""
        if self.turn is None or self.around is None or len(shapes) == 0:
            return shapes
        hits = _within(shapely.bounds(shapes), self.around, self.turn)
        moved = hits[1:].any(axis=0)
        if not moved.any():
            return shapes
        shapes = shapes.copy()
        for at in np.flatnonzero(moved):
            copies = [
                shapely.transform(shapes[at], lambda xy, by=by: xy + np.array([by, 0.0]))
                for by, hit in zip(_turns(self.turn), hits[:, at], strict=True)
                if hit
            ]
            # Joined, so that the seam of a continent that is drawn up to 180 from both sides is no boundary.
            shapes[at] = copies[0] if len(copies) == 1 else shapely.union_all(copies)
        return shapes

    def _forward(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates on the grid; degrees on the side of the antimeridian where the grid is."""
        assert self.there is not None
        return _wrapped(*self.there.transform(x, y), self.geobox)

    def _outside(self, shapes: np.ndarray) -> np.ndarray:
        shapely.prepare(self.wide)
        return np.asarray(~shapely.contains_properly(self.wide, shapes))

    def _projected(self, shapes: np.ndarray) -> np.ndarray:
        if self.wide is not None:
            outside = self._outside(shapes)
            if outside.any():
                shapes = shapes.copy()
                shapes[outside] = _polygons_first(shapely.intersection(shapes[outside], self.wide))
        if math.isfinite(self.longest):
            shapes = shapely.segmentize(shapes, self.longest)
        moved = shapely.transform(shapes, self._forward, interleaved=False)
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
        unit_m = metres_per_unit(self.geobox)
        left, bottom, right, top = self.bounds
        lon, lat = transformer(crs, "EPSG:4326").transform((left + right) / 2, (bottom + top) / 2)
        if (crs.is_projected and unit_m == (_unit_m(crs),) * 2) or not (math.isfinite(lon) and math.isfinite(lat)):
            return _buffer(shapes, widths_m / 2 / unit_m[0], flat)
        metric = pyproj.CRS(f"+proj=aeqd +lon_0={lon} +lat_0={lat} +ellps=WGS84")
        to, back = transformer(crs, metric), transformer(metric, crs)
        flat_shapes = shapely.transform(shapes, lambda x, y: to.transform(x, y), interleaved=False)
        wide = _buffer(flat_shapes, widths_m / 2, flat)
        home = shapely.transform(wide, lambda x, y: _wrapped(*back.transform(x, y), self.geobox), interleaved=False)
        return np.asarray(home, dtype=object)

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
            f" {self._swapped(shapes, crs) or 'Check their CRS and the area.'}"
        )

    def _swapped(self, shapes: Any, crs: pyproj.CRS) -> str:
        """Latitude written before longitude is the most frequent reason of all."""
        edges = shapely.bounds(np.asarray(shapes, dtype=object))
        edges = edges[np.isfinite(edges).all(axis=1)]
        turned = shapely.box(edges[:, 1], edges[:, 0], edges[:, 3], edges[:, 2])
        near, way = onto_grid(turned, crs, self.geobox)
        # Without `wide` in another CRS nothing could be told from the bounds, and all are `near`.
        if way.there is not None and way.wide is None:
            return ""
        if not way.reached(way.bring(turned[near], np.full(len(near), np.nan))).any():
            return ""
        return (
            "They would lie on it with x and y exchanged: labels.set_geometry(labels.geometry.map(lambda shape:"
            " shapely.transform(shape, lambda xy: xy[:, ::-1])))."
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
    # The bounds leave out a corner that is not a number; the length does not.
    unknown = ~(np.isfinite(edges).all(axis=1) & np.isfinite(shapely.length(np.asarray(shapes, dtype=object))))
    turn = _turn(crs)
    # Twice as far as it has to be, as a unit is not as long everywhere on the grid.
    reach = 2 * reach_m / min(metres_per_unit(geobox))
    if same_crs(crs, grid_crs):
        around = (left - reach, bottom - reach, right + reach, top + reach)
        near = _within(edges, around, turn).any(axis=0)
        return np.flatnonzero(near | unknown), OntoGrid(geobox, None, None, math.inf, turn, around)
    pixel = max(abs(geobox.affine.a), abs(geobox.affine.e))
    margin = max(right - left, top - bottom) * WIDE_SHARE + 2 * pixel + reach
    outer = (left - margin, bottom - margin, right + margin, top + margin)
    there, back = transformer(crs, grid_crs), transformer(grid_crs, crs)
    west, south, east, north = back.transform_bounds(*outer, densify_pts=41)
    if not np.isfinite([west, south, east, north]).all():
        # The grid has no place in the CRS of the labels, so nothing can be cut off beforehand.
        return np.arange(len(edges)), OntoGrid(geobox, there, None, math.inf)
    if turn is not None and west > east:
        east += turn
    around = (west, south, east, north)
    longest = _longest_edge(lambda x, y: _wrapped(*there.transform(x, y), geobox), around, CURVE_TOLERANCE_PX * pixel)
    near = _within(edges, around, turn).any(axis=0)
    return np.flatnonzero(near | unknown), OntoGrid(geobox, there, shapely.box(*around), longest, turn, around)


def _unit_m(crs: pyproj.CRS) -> float:
    return float(crs.axis_info[0].unit_conversion_factor)


def _turn(crs: pyproj.CRS) -> float | None:
    """Once around the Earth in units of the CRS: 360 of degrees."""
    return 2 * math.pi / _unit_m(crs) if crs.is_geographic else None


def _turns(turn: float) -> tuple[float, float, float]:
    return 0.0, turn, -turn


def _wrapped(x: np.ndarray, y: np.ndarray, geobox: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates that came from elsewhere, less than half a turn from the grid where they come round."""
    turn = _turn(crs_of(geobox))
    if turn is None:
        return x, y
    left, _, right, _ = bounds_of(geobox)
    return x + turn * np.round(((left + right) / 2 - x) / turn), y


def _within(edges: np.ndarray, box: tuple[float, float, float, float], turn: float | None) -> np.ndarray:
    """Which bounds meet the box: as they are, and a turn to the east and to the west of there; (1 or 3, n)."""
    left, bottom, right, top = box
    with np.errstate(invalid="ignore"):
        level = (edges[:, 1] <= top) & (edges[:, 3] >= bottom)
        hits = [level & (edges[:, 0] <= right) & (edges[:, 2] >= left)]
        # To touch from the other side is not to meet: it is what everything does that ends at 180.
        hits += [
            level & (edges[:, 0] + by < right) & (edges[:, 2] + by > left) for by in (_turns(turn)[1:] if turn else ())
        ]
    return np.array(hits)


def _longest_edge(forward: Transform, box: tuple[float, float, float, float], tolerance: float) -> float:
    """How long a straight edge within the box may be, so that the chord it becomes stays close to the curve it is.

    The gap between chord and curve grows with the square of the length, so it is measured at one length in four
    directions all over the box, and scaled.
    """
    west, south, east, north = box
    length = math.hypot(east - west, north - south) / 16
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(west, east, 9), np.linspace(south, north, 9)))
    turn = np.arange(4)[:, None] * math.pi / 4
    dx, dy = length / 2 * np.cos(turn), length / 2 * np.sin(turn)
    along = np.array([-1, 0, 1])[:, None, None]
    start, middle, end = np.moveaxis(np.array(forward(x + along * dx, y + along * dy)), 1, 0)
    gap = np.hypot(*((start + end) / 2 - middle))
    largest = float(np.max(gap[np.isfinite(gap)], initial=0.0))
    return math.inf if largest <= tolerance / 256 else length * math.sqrt(tolerance / largest)


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
    lon, lat = transformer(crs, "EPSG:4326").transform(xy[:, 0], xy[:, 1])
    lost = ~(np.isfinite(lon) & np.isfinite(lat) & (np.abs(lat) <= 90))
    return np.where(lost, np.nan, lon), np.where(lost, np.nan, lat)
