"""The many ways to write an outline down, each turned into one: a shapely geometry and the CRS it is in.

Nothing is judged here but the form. Types of other packages are recognised by what they offer, without importing these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from .errors import AreaError
from .lonlat import MAX_LON

FORMS = (
    "a box (west, south, east, north) in degrees, a shapely geometry, GeoJSON, WKT, a GeoDataFrame, the path of a"
    " vector file, a GeoBox, a patch, or a shape drawn on a map"
)
_WKT = re.compile(
    r"\s*(?:SRID=(\d+);)?\s*((?:MULTI)?(?:POINT|POLYGON|LINESTRING|SURFACE)|GEOMETRYCOLLECTION|LINEARRING)\b", re.I
)
_NUMBER = r"\s*[-+]?[\d.]+(?:[eE][-+]?\d+)?\s*"
_BOX_TEXT = re.compile(rf"\s*[\[(]?{_NUMBER}(?:,{_NUMBER}){{3}}[\])]?\s*$")


@dataclass(frozen=True)
class Outline:
    """A geometry as it was written, and where it is meant to lie."""

    geometry: BaseGeometry
    crs: pyproj.CRS | None = None
    """None: longitude and latitude."""
    grid: GeoBox | None = None
    """The grid whose outline it is, where it came from one."""
    exact: bool = False
    """An edge longer than half the globe means what it says (a box), and is not a crossing of the antimeridian."""


def outline_of(obj: Any) -> Outline:
    """Recognise `obj`; `AreaError` says what is accepted where it is nothing we know."""
    if obj is None:
        raise AreaError(f"No area was given (None). Give {FORMS}.")
    if isinstance(obj, BaseGeometry):
        return Outline(obj)
    if isinstance(obj, GeoBox):
        return _grid(obj)
    if isinstance(obj, (str, Path)):
        return _text(obj)
    if isinstance(obj, Mapping) and not hasattr(obj, "data_vars"):
        return _geojson(obj)
    if hasattr(obj, "data_vars") or hasattr(obj, "dims"):
        return _patch(obj)
    if hasattr(obj, "total_bounds"):
        return _table(obj)
    if hasattr(obj, "last_draw") or hasattr(obj, "current_mode"):
        return _control(obj)
    if hasattr(obj, "geom") and hasattr(obj, "crs"):  # odc Geometry
        if obj.crs is None:
            raise AreaError("The odc Geometry has no CRS, so nobody knows where it lies; make it with crs='EPSG:...'.")
        return Outline(obj.geom, _crs(obj.crs))
    if isinstance(obj, (Sequence, np.ndarray)):
        return _sequence(obj)
    if hasattr(obj, "__geo_interface__"):
        return _geojson(obj.__geo_interface__)
    raise AreaError(f"A {type(obj).__name__} is no area. Give {FORMS}.")


def _crs(crs: Any) -> pyproj.CRS:
    try:
        return pyproj.CRS.from_user_input(crs.to_wkt() if hasattr(crs, "to_wkt") else crs)
    except pyproj.exceptions.CRSError as error:
        raise AreaError(f"The area's CRS {crs!r} is not known: {error}") from error


def _sequence(obj: Any) -> Outline:
    items = list(obj)
    if len(items) == 4 and all(isinstance(item, Real) for item in items):
        crs = getattr(obj, "crs", None)  # an odc BoundingBox knows where it lies
        found = None if crs is None else _crs(crs)
        if found is not None and not found.is_geographic:
            return Outline(shapely.box(*items), found)
        west, south, east, north = (float(item) for item in items)
        return Outline(_box(west, south, east, north), exact=True)
    if items and all(isinstance(item, Mapping) for item in items):  # Geoman sends the shapes it drew as a list
        return _geojson({"type": "FeatureCollection", "features": items})
    if items and all(isinstance(item, BaseGeometry) for item in items):
        return Outline(shapely.GeometryCollection(items))
    if not items:
        raise AreaError("The area is an empty list: nothing was drawn or selected.")
    hint = ""
    if len(items) == 2 and all(isinstance(item, Real) for item in items):
        hint = f" A point gets a size by deepsentinel.aoi.square(lon={items[0]:.6g}, lat={items[1]:.6g}, size_m=2560)."
    if all(isinstance(item, (Sequence, np.ndarray)) and len(item) == 2 for item in items):
        hint = (
            " Corners of an outline go through shapely.Polygon([(lon, lat), ...]); Leaflet's bounds are"
            " ((south, west), (north, east)) and have to be written as a box."
        )
    raise AreaError(
        f"A {type(obj).__name__} of {len(items)} items is no area; a box is (west, south, east, north).{hint}"
    )


def _box(west: float, south: float, east: float, north: float) -> BaseGeometry:
    said = f"The box (west, south, east, north) = ({west:g}, {south:g}, {east:g}, {north:g})"
    if not np.isfinite([west, south, east, north]).all():
        raise AreaError(f"{said} has an edge that is NaN or infinite.")
    if max(abs(west), abs(east)) > MAX_LON or max(abs(south), abs(north)) > MAX_LON:
        raise AreaError(
            f"{said} is not in degrees, it looks like metres of a map projection. Say which one:"
            " geopandas.GeoSeries([shapely.box(...)], crs='EPSG:...')."
        )
    if max(abs(south), abs(north)) > 90:
        hint = " Latitudes must lie between -90 and 90."
        if max(abs(west), abs(east)) <= 90:
            hint = f" Longitude and latitude look swapped: did you mean ({south:g}, {west:g}, {north:g}, {east:g})?"
        raise AreaError(f"{said} lies beyond a pole.{hint}")
    if south > north:
        raise AreaError(
            f"{said} has its south edge north of its north edge;"
            f" did you mean ({west:g}, {north:g}, {east:g}, {south:g})?"
        )
    if west == east or south == north:
        raise AreaError(
            f"{said} encloses no ground: two edges are the same."
            " deepsentinel.aoi.square(lon, lat, size_m) gives a point a size."
        )
    if west > east:
        if east + 360 - west > 180:
            raise AreaError(
                f"{said} has its west edge east of its east edge. That means across the antimeridian, which would be"
                f" {east + 360 - west:g} degrees wide; did you mean ({east:g}, {south:g}, {west:g}, {north:g})?"
            )
        east += 360
    return shapely.box(west, south, east, north)


def _text(obj: str | Path) -> Outline:
    text = str(obj).strip()
    if not text:
        raise AreaError(f"The area is an empty text. Give {FORMS}.")
    if isinstance(obj, str):
        if text[0] in "{[" and not _BOX_TEXT.match(text):
            try:
                return outline_of(json.loads(text))
            except json.JSONDecodeError as error:
                raise AreaError(f"The text starts like GeoJSON but is not JSON: {error}.") from error
        if _BOX_TEXT.match(text):
            return _sequence([float(number) for number in text.strip("[]()").split(",")])
        if match := _WKT.match(text):
            try:
                geometry = shapely.from_wkt(text.partition(";")[2] if match[1] else text)
            except shapely.errors.ShapelyError as error:
                raise AreaError(f"The text starts like WKT but cannot be read: {error}.") from error
            return Outline(geometry, _crs(f"EPSG:{match[1]}") if match[1] else None)
    path = Path(text).expanduser()
    if not path.exists():
        raise AreaError(f"{text!r} is neither WKT nor GeoJSON, and no such file exists. Give {FORMS}.")
    import geopandas

    try:
        table = geopandas.read_file(path)
    except Exception as error:  # every driver has errors of its own
        raise AreaError(f"The file {path} cannot be read as vectors: {error}") from error
    if not hasattr(table, "total_bounds"):
        raise AreaError(f"The file {path} holds a table without geometries.")
    return _table(table, f"the file {path}")


def _table(table: Any, name: str = "") -> Outline:
    name = name or f"the {type(table).__name__}"
    if table.crs is None:
        raise AreaError(
            f"{name[0].upper()}{name[1:]} has no CRS, so nobody knows where it lies; name it: .set_crs('EPSG:4326')."
        )
    shapes = [shape for shape in table.geometry if shape is not None]
    return Outline(shapely.GeometryCollection(shapes), _crs(table.crs))


def _geojson(message: Mapping[str, Any]) -> Outline:
    crs = message.get("crs")
    if isinstance(crs, Mapping):  # left out of the standard since 2016, still written by GDAL and QGIS
        crs = crs.get("properties", {}).get("name")
    return Outline(shapely.GeometryCollection(_shapes(message)), _crs(crs) if crs else None)


def _shapes(message: Any) -> list[BaseGeometry]:
    if message is None:
        return []
    if not isinstance(message, Mapping):
        if isinstance(message, Sequence) and not isinstance(message, str):
            return [shape for part in message for shape in _shapes(part)]
        raise AreaError(f"GeoJSON is made of objects, and here is {message!r}.")
    if "geo_json" in message:  # the raw message of a draw control
        return _shapes(message["geo_json"])
    kind = message.get("type")
    if kind == "FeatureCollection":
        return _shapes(message.get("features"))
    if kind == "Feature":
        return _shapes(message.get("geometry"))
    if kind == "GeometryCollection":
        return _shapes(message.get("geometries"))
    if kind not in ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"):
        raise AreaError(
            f"The dict is not GeoJSON: its 'type' is {kind!r}; it should be a Feature, FeatureCollection or geometry."
        )
    try:
        return [shapely.geometry.shape(message)]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, shapely.errors.ShapelyError) as error:
        raise AreaError(f"The GeoJSON {kind} has no usable 'coordinates': {error}.") from error


def _control(control: Any) -> Outline:
    """An ipyleaflet DrawControl: its last drawing, or all it holds."""
    last = getattr(control, "last_draw", None)
    shapes = _shapes(last) or _shapes(getattr(control, "data", None))
    if not shapes:
        raise AreaError("Nothing has been drawn yet: draw a rectangle or a polygon on the map, then ask again.")
    return Outline(shapely.GeometryCollection(shapes))


def _grid(grid: GeoBox) -> Outline:
    if grid.crs is None:
        raise AreaError("The GeoBox has no CRS, so nobody knows where it lies; make it with crs='EPSG:...'.")
    rows, columns = grid.shape
    a, b, c, d, e, f, *_ = grid.affine
    corners = [(a * x + b * y + c, d * x + e * y + f) for x, y in ((0, 0), (columns, 0), (columns, rows), (0, rows))]
    return Outline(shapely.Polygon(corners), _crs(grid.crs), grid)


def _patch(patch: Any) -> Outline:
    """The grid of a patch, from its pixel centres and CRS (odc.geo.xr would do it too, at 0.3 s of imports)."""
    coords = getattr(patch, "coords", {})
    if not all(name in coords for name in ("x", "y", "spatial_ref")):
        raise AreaError("The Dataset has no coordinates x, y and spatial_ref, so nobody knows where it lies.")
    attrs = patch["spatial_ref"].attrs
    wkt = attrs.get("crs_wkt") or attrs.get("spatial_ref")
    if not wkt:
        raise AreaError("The Dataset's spatial_ref has no attribute crs_wkt, so nobody knows where it lies.")
    x, y = (np.asarray(patch[name].values, dtype="float64") for name in ("x", "y"))
    if min(x.size, y.size) < 2:
        raise AreaError(
            f"The Dataset has {y.size} x {x.size} pixels; two are needed in each direction to tell their size."
        )
    step_x, step_y = (x[-1] - x[0]) / (x.size - 1), (y[-1] - y[0]) / (y.size - 1)
    edges_x, edges_y = sorted((x[0] - step_x / 2, x[-1] + step_x / 2)), sorted((y[0] - step_y / 2, y[-1] + step_y / 2))
    box = (edges_x[0], edges_y[0], edges_x[1], edges_y[1])
    return _grid(GeoBox.from_bbox(box, crs=wkt, shape=(y.size, x.size)))
