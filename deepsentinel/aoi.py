"""Anything that outlines a place -> an `Area` in longitude and latitude -> a grid of pixels on one global lattice.

    area = aoi.area((2.25, 48.81, 2.42, 48.91))     # west, south, east, north
    grid = aoi.geobox(area, resolution=10)          # 10 m pixels in the UTM zone of its centre

Grids are snapped outwards to multiples of the resolution, counted from the origin of the projection. Areas that overlap
in one zone therefore share their pixels, and at 10 m and 20 m these are the pixels of the Sentinel-2 products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from . import lonlat
from .area_input import Outline, outline_of
from .errors import AreaError, InputError, warn

# What one pixel of a full patch takes: 12 Sentinel-2 bands as uint16, VV and VH as float32.
BYTES_PER_PIXEL = 12 * 2 + 2 * 4
# A box may cut the area by this share of a pixel, so that an area on the lattice does not grow by rounding noise.
SNAP_TOLERANCE = 0.01
# A transverse Mercator this far from its middle stretches by 1 %, and soon not at all sensibly.
MAX_UTM_OFFSET_M = 1_000_000
# Polar stereographic down to latitude 45, where it stretches by 17 %.
MAX_POLAR_OFFSET_M = 5_400_000
NICE_RESOLUTIONS = [step * 10**power for power in range(-1, 6) for step in (1, 2, 3, 5, 6)]

# Always used with always_xy=True: longitude first.
_LONLAT = pyproj.CRS("EPSG:4326")
_GEOD = pyproj.Geod(ellps="WGS84")


class TooLargeError(AreaError):
    """An area that is too large for one grid; a square of `fits_km` is not (0: not known, in degrees)."""

    def __init__(self, message: str, fits_km: float = 0.0) -> None:
        super().__init__(message)
        self.fits_km = fits_km


@dataclass(frozen=True)
class Area:
    """A place on Earth: one valid polygon or multipolygon, and what had to be mended to get it."""

    geometry: Polygon | MultiPolygon
    """Longitude and latitude (EPSG:4326) within [-180, 180] x [-90, 90]; split at 180 where it crosses."""
    notes: tuple[str, ...] = ()
    """What was repaired, split, moved or left out; empty when the input was used as it came."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(west, south, east, north); west > east where the area crosses the antimeridian, as in RFC 7946."""
        west, south, east, north = lonlat.unsplit(self.geometry).bounds
        return west, south, (east - 360 if east > 180 else east), north

    @property
    def width_km(self) -> float:
        """From the west edge to the east edge, along the parallel halfway between south and north."""
        west, south, east, north = lonlat.unsplit(self.geometry).bounds
        latitude = math.radians((south + north) / 2)
        radius_m = _GEOD.a * math.cos(latitude) / math.sqrt(1 - _GEOD.es * math.sin(latitude) ** 2)
        return math.radians(east - west) * radius_m / 1000

    @property
    def height_km(self) -> float:
        """From the south edge to the north edge, along a meridian."""
        _, south, _, north = self.geometry.bounds
        return float(_GEOD.inv(0, south, 0, north)[2]) / 1000

    @property
    def area_km2(self) -> float:
        """Ground inside the outline, on the ellipsoid."""
        # The cylindrical equal-area map keeps meridians and parallels straight, and has room for pole and world alike.
        dense = shapely.segmentize(self.geometry, _step_deg(self.geometry.bounds))
        return float(_project(dense, _LONLAT, pyproj.CRS("EPSG:6933")).area) / 1e6

    @property
    def __geo_interface__(self) -> dict[str, Any]:
        return dict(shapely.geometry.mapping(self.geometry))

    def _lines(self) -> list[str]:
        west, south, east, north = self.bounds
        return [
            f"{_degrees(west, 'EW')} to {_degrees(east, 'EW')}, {_degrees(south, 'NS')} to {_degrees(north, 'NS')}",
            f"{self.width_km:,.1f} x {self.height_km:,.1f} km, {self.area_km2:,.1f} km2",
            f"the best grid for it: {_best_crs(self.geometry)}",
            *(f"note: {note}" for note in self.notes),
        ]

    def __repr__(self) -> str:
        return "Area(" + "\n     ".join(self._lines()) + ")"

    def _repr_html_(self) -> str:
        shape = lonlat.unsplit(self.geometry)
        west, south, east, north = shape.bounds
        # One degree of longitude is shorter than one of latitude, except on the equator.
        squeeze = max(math.cos(math.radians((south + north) / 2)), 0.05)
        scale = 116 / max((east - west) * squeeze, north - south)
        rings = [ring for part in lonlat.polygons(shape) for ring in (part.exterior, *part.interiors)]
        path = "".join(
            "M"
            + "L".join(f"{2 + (x - west) * squeeze * scale:.1f} {2 + (north - y) * scale:.1f}" for x, y in ring.coords)
            + "Z"
            for ring in rings
        )
        size = f'width="{(east - west) * squeeze * scale + 4:.0f}" height="{(north - south) * scale + 4:.0f}"'
        drawing = f'<svg {size}><path d="{path}" fill="#4c8bb544" stroke="#4c8bb5" fill-rule="evenodd"/></svg>'
        text = "<br>".join(["<b>Area</b>", *self._lines()])
        return f'<div style="display:flex;gap:12px;align-items:center">{drawing}<div>{text}</div></div>'


def area(obj: Any) -> Area:
    """Anything that outlines a place -> `Area`.

    `obj` is a box (west, south, east, north) in degrees, a shapely geometry in degrees, GeoJSON (a dict or text), WKT,
    a GeoDataFrame or GeoSeries with its CRS, the path of a vector file, an odc GeoBox or Geometry, a patch, a shape
    drawn on an ipyleaflet map (the message, or the DrawControl), or an Area. Several shapes become one area.

        >>> area((2.0, 48.0, 2.5, 48.25)).bounds
        (2.0, 48.0, 2.5, 48.25)

    Raises `AreaError` for what is no area; warns where an outline was repaired by a guess at what was meant.
    """
    if isinstance(obj, Area):
        return obj
    return _area_of(outline_of(obj))


def _area_of(found: Outline) -> Area:
    changes = lonlat.Changes()
    shape = _only_polygons(found.geometry, changes)
    projected = found.crs is not None and found.crs != _LONLAT
    if found.crs is not None and projected:
        # Mended before it is moved: putting points on the edges of an outline that crosses itself loses a part of it.
        sound = [piece for part in shape.geoms for piece in lonlat.polygons(lonlat.mended(part, changes)) or [part]]
        shape = _to_degrees(shapely.GeometryCollection(sound), found.crs)
    lonlat.check_degrees(shape)
    shape = lonlat.onto_globe(shape, changes, guess=not projected, trust=found.exact)
    for guess in dict.fromkeys(changes.guesses):
        warn(guess)
    return Area(shape, changes.notes())


def square(lon: float, lat: float, size_m: float = 2560, *, resolution: float = 10) -> Area:
    """The square of `size_m` on the ground around a point, laid on pixel edges: 2560 m are exactly 256 pixels of 10 m.

        >>> geobox(square(2.35, 48.85, 2560)).shape
        Shape2d(x=256, y=256)

    The centre moves by up to half a pixel to the lattice of `geobox(..., resolution)`; by one at the edge of a zone.
    """
    crs = utm_crs(lon, lat)
    if not (math.isfinite(size_m) and size_m > 0):
        raise InputError(f"size_m={size_m!r} is not a length; give metres, such as size_m=2560.")
    _check_resolution(resolution)
    x, y = pyproj.Transformer.from_crs(_LONLAT, crs, always_xy=True).transform(lon, lat)
    wanted = (x - size_m / 2, y - size_m / 2)
    near = [[(round(v / resolution) + step) * resolution for step in (0, -1, 1)] for v in wanted]
    # The nearest corner first; at the edge of a zone only some keep the centre of the square inside that zone.
    choices = sorted(((left, bottom) for left in near[0] for bottom in near[1]), key=lambda c: math.dist(c, wanted))
    tried = []
    for left, bottom in choices:
        outline = Outline(shapely.box(left, bottom, left + size_m, bottom + size_m), pyproj.CRS(crs))
        tried.append(_area_of(outline))
        if _best_crs(tried[-1].geometry) == crs:
            return tried[-1]
    return tried[0]


def utm_crs(lon: float, lat: float) -> str:
    """The projection of a point: its UTM zone, or the polar stereographic grid beyond 84 N and 80 S.

        >>> utm_crs(2.35, 48.85)
        'EPSG:32631'

    The poles use UPS (EPSG:32661 and EPSG:32761), the grid that goes with UTM: its scale is right within 0.6 % there,
    and it has no preferred country. Sea ice is often mapped in EPSG:3413 or EPSG:3031: give these to `geobox` as `crs`.
    The wider zones that MGRS has around Norway and Svalbard are not used: they only matter to military grid names.
    """
    if not (math.isfinite(lon) and math.isfinite(lat) and abs(lat) <= 90 and abs(lon) <= lonlat.MAX_LON):
        raise AreaError(f"(lon, lat) = ({lon:g}, {lat:g}) is no place on Earth; longitude comes first, then latitude.")
    if lat > 84:
        return "EPSG:32661"
    if lat < -80:
        return "EPSG:32761"
    zone = min(int((lon + 180) % 360 // 6), 59) + 1
    return f"EPSG:{326 if lat >= 0 else 327}{zone:02d}"


def geobox(aoi: Any, resolution: float = 10, crs: Any = None, *, max_gb: float = 4.0) -> GeoBox:
    """The grid of pixels that covers an area, snapped outwards to the lattice shared by all grids of that projection.

    `aoi` is anything that `area` takes. `crs=None` picks the UTM zone of the area's centre, or a polar grid (see
    `utm_crs`); a GeoBox keeps its own projected CRS, and is returned as it is when it already fits. `resolution` is in
    units of the CRS: metres, unless you give one in degrees.

        >>> geobox((2.0, 48.0, 2.1, 48.1)).crs.epsg
        32631

    Raises `AreaError` when one full patch on the grid would take more than `max_gb` (10^9 bytes) of memory.
    """
    _check_resolution(resolution)
    if not (isinstance(max_gb, (int, float, np.number)) and not isinstance(max_gb, bool) and max_gb > 0):
        raise InputError(f"max_gb={max_gb!r} is not an amount of memory; give gigabytes, such as max_gb=4.")
    found = None if isinstance(aoi, Area) else outline_of(aoi)
    if (
        found is not None
        and found.grid is not None
        and found.crs is not None
        and (crs is not None or found.crs.is_projected)
    ):
        # A grid is projected from where it is, not by way of degrees, and stays what it is where nothing changes.
        target = found.crs if crs is None else _check_crs(crs, resolution)
        same = target == found.crs
        dense = (
            found.geometry
            if same
            else _project(shapely.segmentize(found.geometry, found.geometry.length / 2000), found.crs, target)
        )
        box = _snap(dense.bounds, resolution, target, max_gb)
        return found.grid if same and box.shape == found.grid.shape and box.affine == found.grid.affine else box
    place = aoi if found is None else _area_of(found)
    target = pyproj.CRS(_best_crs(place.geometry)) if crs is None else _check_crs(crs, resolution)
    shape = lonlat.unsplit(place.geometry)
    if target.is_geographic and shape.bounds[2] > 180:
        raise AreaError(
            f"The area crosses the antimeridian, where {_name(target)} ends. Leave out crs= to get a UTM zone."
        )
    dense = _project(shapely.segmentize(shape, _step_deg(shape.bounds)), _LONLAT, target)
    left, bottom, right, top = dense.bounds
    # UTM stretches away from its middle in one direction, the polar grids away from the pole in both.
    offset_m = (
        max(500_000 - left, right - 500_000)
        if target.utm_zone
        else max(2e6 - left, right - 2e6, 2e6 - bottom, top - 2e6)
    )
    if crs is None and offset_m > (MAX_UTM_OFFSET_M if target.utm_zone else MAX_POLAR_OFFSET_M):
        raise TooLargeError(
            f"The area is {place.width_km:,.0f} x {place.height_km:,.0f} km, too much for one grid in {_name(target)}."
            " Cut it into smaller areas, or give a projection made for its size, such as crs='EPSG:3035' for Europe."
            " If it should be smaller: a box is (west, south, east, north).",
            min(math.sqrt(max_gb * 1e9 / BYTES_PER_PIXEL) * resolution, MAX_UTM_OFFSET_M) / 1000,
        )
    # Around a seam of the map the two halves land at opposite ends, and the box would span all that lies between.
    seam = target.is_projected and (right - left + top - bottom) * _metres(target) > 8000 * (
        place.width_km + place.height_km
    )
    if seam and shape.bounds[2] > 180:
        raise AreaError(
            f"The area crosses the antimeridian, where {_name(target)} ends. Leave out crs= to get a UTM zone."
        )
    return _snap(dense.bounds, resolution, target, max_gb)


def patch_bytes(grid: GeoBox) -> int:
    """What one full patch on a grid takes in memory: 12 Sentinel-2 bands as uint16, VV and VH as float32.

    >>> patch_bytes(geobox(square(2.35, 48.85, 2560)))
    2097152
    """
    return int(grid.shape.x * grid.shape.y * BYTES_PER_PIXEL)


def _only_polygons(geometry: BaseGeometry, changes: lonlat.Changes) -> BaseGeometry:
    found = list(lonlat.parts(geometry))
    if not found:
        raise AreaError(
            "The area is empty: it has no coordinates."
            " If it came from a filter or a drawing, nothing was matched or drawn."
        )
    others = sorted({part.geom_type for part in found if not isinstance(part, Polygon)})
    kept = [part for part in found if isinstance(part, Polygon)]
    if not kept:
        xy = shapely.get_coordinates(geometry).mean(axis=0)
        raise AreaError(
            f"A {' and a '.join(others)} has no extent, and an area is needed. Give it a size:"
            f" deepsentinel.aoi.square({xy[0]:.6g}, {xy[1]:.6g}, size_m=2560) is 256 pixels of 10 m around that"
            " longitude and latitude; a line can be buffered in a CRS in metres."
        )
    if others:
        changes.guesses.append(
            f"Only the polygons were used; {len(found) - len(kept)} other shapes were left out ({', '.join(others)})."
        )
    return shapely.GeometryCollection(kept)


def _to_degrees(shape: BaseGeometry, crs: pyproj.CRS) -> BaseGeometry:
    # A straight edge of a projected outline is a curve in degrees. Points every 500 m follow it within centimetres.
    if crs.is_projected and not shape.is_empty and np.isfinite(shapely.get_coordinates(shape)).all():
        west, south, east, north = shape.bounds
        step = (east - west + north - south) / 1000
        # Near a pole a straight line bends hard in degrees, and only points close to each other follow it.
        polar = abs(_project(shapely.box(*shape.bounds), crs, _LONLAT).centroid.y) > 84
        shape = shapely.segmentize(shape, step if polar else max(step, 500 / _metres(crs)))
    return _project(shape, crs, _LONLAT)


def _project(shape: BaseGeometry, source: pyproj.CRS, target: pyproj.CRS) -> BaseGeometry:
    xy = shapely.get_coordinates(shape)
    moved = np.column_stack(pyproj.Transformer.from_crs(source, target, always_xy=True).transform(xy[:, 0], xy[:, 1]))
    if not np.isfinite(moved).all():
        usable = target.area_of_use or source.area_of_use
        where = f" {_name(target)} is made for: {usable.name}" if usable else ""
        raise AreaError(f"The area cannot be drawn in {_name(target)}: some points have no place there.{where}")
    return shapely.set_coordinates(shapely.force_2d(shape), moved)


def _snap(bounds: tuple[float, ...], resolution: float, crs: pyproj.CRS, max_gb: float) -> GeoBox:
    left, bottom = (math.floor(v / resolution + SNAP_TOLERANCE) for v in bounds[:2])
    right, top = (math.ceil(v / resolution - SNAP_TOLERANCE) for v in bounds[2:])
    columns, rows = max(right - left, 1), max(top - bottom, 1)
    _check_memory(columns, rows, resolution, crs, max_gb)
    corner = Affine(resolution, 0, left * resolution, 0, -resolution, top * resolution)
    return GeoBox((rows, columns), corner, _name(crs))


def _check_memory(columns: int, rows: int, resolution: float, crs: pyproj.CRS, max_gb: float) -> None:
    needed_gb = columns * rows * BYTES_PER_PIXEL / 1e9
    if needed_gb <= max_gb:
        return
    unit = "degrees" if crs.is_geographic else "m"
    side = math.isqrt(int(max_gb * 1e9 / BYTES_PER_PIXEL))
    coarse = next((r for r in NICE_RESOLUTIONS if _fits(columns, rows, resolution / r, max_gb)), None)
    fit = f"resolution={coarse:g}, or " if coarse and not crs.is_geographic else ""
    span = f"{side * resolution:g} degrees" if crs.is_geographic else f"{side * resolution / 1000:.4g} km"
    raise TooLargeError(
        f"The area is too large: {columns:,} x {rows:,} pixels of {resolution:g} {unit} would take {needed_gb:,.1f} GB"
        f" for one patch (12 Sentinel-2 bands as uint16, VV and VH as float32: {BYTES_PER_PIXEL} bytes a pixel), and"
        f" max_gb={max_gb:g}. What would fit: {fit}a square of {span}, or a larger max_gb.",
        0.0 if crs.is_geographic else side * resolution / 1000,
    )


def _fits(columns: int, rows: int, shrink: float, max_gb: float) -> bool:
    # Snapping may add a pixel on each side, so room is left for two.
    return (columns * shrink + 2) * (rows * shrink + 2) * BYTES_PER_PIXEL <= max_gb * 1e9


def _check_resolution(resolution: float) -> None:
    number = isinstance(resolution, (int, float, np.number)) and not isinstance(resolution, bool)
    if not (number and math.isfinite(resolution) and resolution > 0):
        raise InputError(
            f"resolution={resolution!r} is not a pixel size; give one positive number, such as resolution=10."
        )


def _check_crs(crs: Any, resolution: float) -> pyproj.CRS:
    try:
        found = pyproj.CRS.from_user_input(crs.to_wkt() if hasattr(crs, "to_wkt") else crs)
    except pyproj.exceptions.CRSError as error:
        raise InputError(
            f"crs={crs!r} is not a coordinate reference system: {error}. Write it as 'EPSG:32631'."
        ) from error
    if found.is_geographic and resolution >= 0.1:
        raise InputError(
            f"{_name(found)} is in degrees, so resolution={resolution:g} means {resolution:g} degrees, or"
            f" {resolution * 111:,.0f} km. Leave out crs= for pixels in metres, or give degrees: 10 m are about"
            " resolution=0.0001."
        )
    return found


def _best_crs(geometry: BaseGeometry) -> str:
    shape = lonlat.unsplit(geometry)
    _, south, _, north = shape.bounds
    # An area with a pole in it belongs to that pole, wherever its centre of gravity in degrees comes to lie.
    latitude = 90.0 if north > 89.99 else -90.0 if south < -89.99 else shape.centroid.y
    return utm_crs(shape.centroid.x, latitude)


def _step_deg(bounds: tuple[float, ...]) -> float:
    # Every 550 m, an edge in degrees and its curve in the projection agree within centimetres.
    return max(0.005, (bounds[2] - bounds[0] + bounds[3] - bounds[1]) / 4000)


def _metres(crs: pyproj.CRS) -> float:
    """Length in metres of one unit of a projected CRS."""
    return crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0


def _name(crs: pyproj.CRS) -> str:
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else crs.to_wkt()


def _degrees(value: float, letters: str) -> str:
    return f"{abs(value):.4f} {letters[0] if value >= 0 else letters[1]}"
