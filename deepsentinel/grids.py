"""Grids: which one something lies on, a finer one that divides it, and the coordinates that place a Dataset on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
from affine import Affine
from odc.geo.geobox import GeoBox

from deepsentinel.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

# Resolutions and pixel sizes come as decimal fractions, which binary ones only come near.
SIZE_TOLERANCE = 1e-6
# Pixels are evenly spaced if none of their middles is further off than this share of a pixel: coordinates in files may
# be float32, and a row that was left out is off by a whole one.
SPACING_TOLERANCE = 0.1
# A projection whose metres are off by less than this is one to measure with, and they are taken as metres.
SURVEY_TOLERANCE = 0.01

_DIMS = (("y", "x"), ("latitude", "longitude"), ("lat", "lon"))


def grid_of(like: Any) -> GeoBox:
    """The grid of a Dataset, a DataArray or a GeoBox.

    >>> grid_of(GeoBox.from_bbox((0, 0, 40, 20), "EPSG:32631", resolution=10)).shape
    Shape2d(x=4, y=2)
    """
    if isinstance(like, GeoBox):
        geobox = like
        if geobox.crs is None:
            raise InputError("The GeoBox in like= has no CRS, so nobody knows where it lies; give it crs='EPSG:...'.")
    else:
        geobox = _grid_of_coords(like)
    a, b, _, d, e, *_ = geobox.affine
    if b or d or not a or not e:
        raise InputError("The grid in like= is rotated; masks are made on grids whose rows run along an axis.")
    if not min(geobox.shape):
        raise InputError(f"The grid in like= has no pixels: it is {geobox.shape.y} x {geobox.shape.x}.")
    return geobox


def _grid_of_coords(like: Any) -> GeoBox:
    # From the coordinates themselves: odc.geo.xr would do it too, at 0.3 s of imports.
    coords = getattr(like, "coords", None)
    if coords is None:
        raise InputError(
            f"like= is a {type(like).__name__}; masks need a grid: a patch, a DataArray, or ds.geobox(area)."
        )
    found = next((dims for dims in _DIMS if all(name in coords for name in dims)), None)
    if found is None or "spatial_ref" not in coords:
        raise InputError(
            f"like= has the coordinates {', '.join(map(str, coords)) or 'none'}; y, x and spatial_ref are needed to"
            " know where it lies."
        )
    attrs = coords["spatial_ref"].attrs
    wkt = attrs.get("crs_wkt") or attrs.get("spatial_ref")
    if not wkt:
        raise InputError("The spatial_ref of like= has no attribute crs_wkt, so nobody knows where it lies.")
    written = [float(number) for number in str(attrs.get("GeoTransform", "")).split()]
    corner, steps, sizes = [], [], []
    for name, at in zip(found, (3, 0), strict=True):
        centres = np.atleast_1d(np.asarray(coords[name].values, dtype="float64"))
        if len(centres) < 2 and len(written) != 6:
            raise InputError(
                f"like= has one pixel along {name}, which tells no pixel size; two are needed, or a GeoTransform."
            )
        _check_spacing(name, centres)
        in_file = written[5 if at == 3 else 1] if len(written) == 6 else 0.0
        step = (centres[-1] - centres[0]) / (len(centres) - 1) if len(centres) > 1 else in_file
        # 1 / 3 of a degree, summed up, is no longer 1 / 3: the number that was written down is the better one.
        if in_file and abs(in_file - step) <= SIZE_TOLERANCE * abs(step):
            step = in_file
        start = centres[0] - step / 2
        if len(written) == 6 and abs(written[at] - start) <= SIZE_TOLERANCE * abs(step):
            start = written[at]
        corner.append(start)
        steps.append(step)
        sizes.append(len(centres))
    return GeoBox((sizes[0], sizes[1]), Affine(steps[1], 0, corner[1], 0, steps[0], corner[0]), wkt)


def _check_spacing(name: str, centres: np.ndarray) -> None:
    if len(centres) < 3:
        return
    even = np.linspace(centres[0], centres[-1], len(centres))
    step = abs(centres[-1] - centres[0]) / (len(centres) - 1)
    if not np.abs(centres - even).max() <= SPACING_TOLERANCE * step:
        raise InputError(
            f"The coordinate {name} of like= is not evenly spaced, so its pixels are no grid: its steps go from"
            f" {np.diff(centres).min():g} to {np.diff(centres).max():g}. Choose pixels with a slice, such as"
            f" isel({name}=slice(0, 100)), or resample it first."
        )


def refined(geobox: GeoBox, resolution: float | None) -> GeoBox:
    """The grid whose pixels of `resolution` divide those of `geobox`; None: the same grid.

    >>> grid = GeoBox.from_bbox((0, 0, 40, 20), "EPSG:32631", resolution=10)
    >>> refined(grid, 2.5).shape
    Shape2d(x=16, y=8)
    """
    if resolution is None:
        return geobox
    a, _, c, _, e, f, *_ = geobox.affine
    number = isinstance(resolution, (int, float, np.number)) and not isinstance(resolution, bool)
    if not (number and math.isfinite(resolution) and resolution > 0):
        raise InputError(f"resolution={resolution!r} is not a pixel size; give one in units of the grid, such as 2.5.")
    parts = [max(round(abs(step) / resolution), 1) for step in (e, a)]
    if any(
        abs(abs(step) / part - resolution) > SIZE_TOLERANCE * resolution
        for step, part in zip((e, a), parts, strict=True)
    ):
        own = abs(a)
        fit = ", ".join(f"{own / part:g}" for part in (1, 2, 4, 5, 10))
        raise InputError(
            f"resolution={resolution:g} does not divide the grid's pixels of {own:g}; {fit} would, as any {own:g} / n."
        )
    rows, columns = geobox.shape
    finer = Affine(a / parts[1], 0, c, 0, e / parts[0], f)
    return GeoBox((rows * parts[0], columns * parts[1]), finer, geobox.crs)


def grid_coords(geobox: GeoBox, like: Any = None) -> dict[str, Any]:
    """The coordinates `y`, `x` and `spatial_ref` of a grid, the CRS as CF and GDAL write it.

    Where `like` lies on that grid its own are taken, equal to the last digit.

    >>> coords = grid_coords(GeoBox.from_bbox((0, 0, 40, 20), "EPSG:32631", resolution=10))
    >>> coords["y"].values.tolist(), coords["x"].attrs["units"]
    ([15.0, 5.0], 'metre')
    """
    if getattr(like, "coords", None) is not None and {"y", "x", "spatial_ref"} <= set(like.coords):
        given = {name: like.coords[name].variable for name in ("y", "x", "spatial_ref")}
        if (given["y"].size, given["x"].size) == tuple(geobox.shape):
            return given
    a, (rows, columns) = geobox.affine, geobox.shape
    transform = " ".join(repr(float(number)) for number in (a.c, a.a, a.b, a.f, a.d, a.e))
    units = {"units": "degrees" if geobox.crs is not None and geobox.crs.geographic else "metre"}
    return {
        "y": variable("y", a.f + a.e * (np.arange(rows) + 0.5), {"axis": "Y", **units}),
        "x": variable("x", a.c + a.a * (np.arange(columns) + 0.5), {"axis": "X", **units}),
        "spatial_ref": variable((), np.asarray(0), {**_crs_attrs(str(geobox.crs)), "GeoTransform": transform}),
    }


@lru_cache(maxsize=64)
def _crs_attrs(crs: str) -> dict[str, Any]:
    cf = _crs(crs).to_cf()
    return {**cf, "spatial_ref": cf["crs_wkt"]}


def variable(dims: str | tuple[str, ...], values: np.ndarray, attrs: Mapping[str, Any] | None = None) -> xr.Variable:
    """An array with its dims; given without `fastpath`, xarray imports all of dask to see that it is not dask's.

    >>> variable("x", np.zeros(3)).dims
    ('x',)
    """
    import xarray as xr

    return xr.Variable(dims, values, dict(attrs or {}), fastpath=True)


def metres_per_unit(geobox: GeoBox) -> tuple[float, float]:
    """Metres in one unit of the grid's CRS along x and along y, in the middle of the grid.

    Projections that are made for measuring, such as UTM, are off by less than a hundredth, and their metres are taken
    as metres. Those of a web map (EPSG:3857) are half as long in Stockholm as they are on the equator.

    >>> metres_per_unit(GeoBox.from_bbox((500000, 0, 500040, 20), "EPSG:32631", resolution=10))
    (1.0, 1.0)
    >>> stockholm = GeoBox.from_bbox((2e6, 8.25e6, 2.01e6, 8.26e6), "EPSG:3857", resolution=10)
    >>> [round(length, 2) for length in metres_per_unit(stockholm)]
    [0.51, 0.51]
    """
    crs = crs_of(geobox)
    unit_m = float(crs.axis_info[0].unit_conversion_factor) if crs.is_projected else None
    left, bottom, right, top = bounds_of(geobox)
    x, y = (left + right) / 2, (bottom + top) / 2
    # So short that a parallel is straight, and long enough for the last digits of coordinates to be nothing.
    half = 5e-4 if unit_m is None else 500 / unit_m
    lon, lat = transformer(crs, "EPSG:4326").transform(
        np.array([x - half, x + half, x, x]), np.array([y, y, y - half, y + half])
    )
    if unit_m is not None and not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return unit_m, unit_m
    lengths_m = pyproj.Geod(ellps="WGS84").inv(lon[::2], lat[::2], lon[1::2], lat[1::2])[2]
    along_x, along_y = (float(length) / (2 * half) for length in lengths_m)
    if unit_m is not None and max(abs(along_x / unit_m - 1), abs(along_y / unit_m - 1)) < SURVEY_TOLERANCE:
        return unit_m, unit_m
    return along_x, along_y


def crs_of(geobox: GeoBox) -> pyproj.CRS:
    """The CRS of a grid, as pyproj knows it."""
    if geobox.crs is None:
        raise InputError("The grid has no CRS, so nobody knows where it lies; give it crs='EPSG:...'.")
    return _crs(geobox.crs.to_wkt())


@lru_cache(maxsize=256)
def _crs(text: str) -> pyproj.CRS:
    return pyproj.CRS.from_user_input(text)


def transformer(start: pyproj.CRS | str, end: pyproj.CRS | str) -> pyproj.Transformer:
    """The way of x, y from one CRS to another; PROJ takes 20 ms to look for one, and windows need it by the thousand.

    >>> x, y = transformer("EPSG:4326", "EPSG:32631").transform(3.0, 0.0)
    >>> round(x), round(y)
    (500000, 0)
    """
    return _transformer(_text(start), _text(end))


def same_crs(one: pyproj.CRS | str, other: pyproj.CRS | str) -> bool:
    """Whether coordinates are the same in both; the order of the axes is no matter, as they are x, y in every table.

    >>> same_crs("EPSG:4326", "OGC:CRS84"), same_crs("EPSG:4326", "EPSG:4258")
    (True, False)
    """
    return _same_crs(_text(one), _text(other))


def _text(crs: pyproj.CRS | str) -> str:
    # What it was made from: to hash a CRS itself writes its WKT each time.
    return crs if isinstance(crs, str) else crs.srs


@lru_cache(maxsize=256)
def _transformer(start: str, end: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(_crs(start), _crs(end), always_xy=True)


@lru_cache(maxsize=256)
def _same_crs(one: str, other: str) -> bool:
    return bool(_crs(one).equals(_crs(other), ignore_axis_order=True))


def bounds_of(geobox: GeoBox) -> tuple[float, float, float, float]:
    """left, bottom, right, top of a grid, whichever way its rows run."""
    a, _, c, _, e, f, *_ = geobox.affine
    rows, columns = geobox.shape
    (left, right), (bottom, top) = sorted((c, c + a * columns)), sorted((f, f + e * rows))
    return left, bottom, right, top
