"""Embeddings of any shape as one table of vectors: which of them mean something, and where on Earth each lies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyproj
import xarray as xr
from odc.geo.geobox import GeoBox

from deepsentinel.errors import InputError
from deepsentinel.grids import crs_of, grid_coords, grid_of

# What one step of a pass over all vectors holds: small beside any memory, large beside the cost of a call.
BLOCK_BYTES = 32 * 2**20
# Vectors of different encoders cannot be told apart by their width; these attributes tell them apart.
IDENTITY = ("encoder", "weights")

_LONLAT = pyproj.CRS("EPSG:4326")
_GEOD = pyproj.Geod(ellps="WGS84")


@dataclass(frozen=True)
class Grid:
    """The cells of a dense embedding, row after row."""

    geobox: GeoBox
    """The grid with its CRS."""

    @property
    def count(self) -> int:
        """How many cells there are."""
        return int(self.geobox.shape.y) * int(self.geobox.shape.x)

    def table(self, rows: np.ndarray) -> pd.DataFrame:
        """Key, row, column and centre of some cells, in the grid's CRS and in degrees."""
        row, col = np.divmod(np.asarray(rows, "int64"), int(self.geobox.shape.x))
        x, y = self.xy(rows)
        lon, lat = _transform(crs_of(self.geobox), _LONLAT, x, y)
        named = {"key": np.asarray(rows, "int64"), "row": row, "col": col}
        return pd.DataFrame({**named, "x": x, "y": y, "lon": lon, "lat": lat})

    def keys(self, rows: np.ndarray) -> np.ndarray:
        """The numbers of some cells."""
        return np.asarray(rows, "int64")

    def xy(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The centres of some cells in the grid's CRS."""
        row, col = np.divmod(np.asarray(rows, "int64"), int(self.geobox.shape.x))
        a = self.geobox.affine
        return a.c + a.a * (col + 0.5), a.f + a.e * (row + 0.5)

    def nearest(self, lon: float, lat: float) -> tuple[int, float] | None:
        """The cell that holds a point, and how far its centre is in metres; None where the point is off the grid."""
        x, y = _transform(_LONLAT, crs_of(self.geobox), np.array([lon]), np.array([lat]))
        if not (np.isfinite(x[0]) and np.isfinite(y[0])):
            return None
        a = self.geobox.affine
        col, row = math.floor((x[0] - a.c) / a.a), math.floor((y[0] - a.f) / a.e)
        if not (0 <= row < self.geobox.shape.y and 0 <= col < self.geobox.shape.x):
            return None
        cell = row * int(self.geobox.shape.x) + col
        centre = self.table(np.array([cell])).iloc[0]
        return cell, float(_GEOD.inv(lon, lat, centre["lon"], centre["lat"])[2])

    def coords(self) -> dict[str, Any]:
        """`y`, `x` and `spatial_ref` for an array on the grid."""
        return grid_coords(self.geobox)

    def __str__(self) -> str:
        rows, columns = self.geobox.shape
        return f"{rows} x {columns} cells of {abs(self.geobox.affine.a):g}, {_name(crs_of(self.geobox))}"


@dataclass(frozen=True)
class Samples:
    """Vectors one by one: patches, parcels, points."""

    ids: np.ndarray
    """What each is called; its position where nobody named it."""
    x: np.ndarray
    """Longitude, or easting in `wkt`; NaN where it is unknown."""
    y: np.ndarray
    """Latitude, or northing in `wkt`."""
    wkt: str | None
    """The CRS of `x` and `y`; None where nobody told it."""

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self.ids)

    def table(self, rows: np.ndarray) -> pd.DataFrame:
        """Key and place of some samples; row and column belong to grids and are missing here."""
        x, y = self.xy(rows)
        lon, lat = np.full_like(x, np.nan), np.full_like(y, np.nan)
        if self.wkt is not None:
            lon, lat = _transform(pyproj.CRS(self.wkt), _LONLAT, x, y)
        none = pd.array([pd.NA] * len(x), dtype="Int64")
        return pd.DataFrame({"key": self.ids[rows], "row": none, "col": none, "x": x, "y": y, "lon": lon, "lat": lat})

    def keys(self, rows: np.ndarray) -> np.ndarray:
        """The ids of some samples."""
        return self.ids[rows]

    def xy(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The places of some samples as they were given."""
        return self.x[rows], self.y[rows]

    def nearest(self, lon: float, lat: float) -> tuple[int, float] | None:
        """The sample nearest to a point, and how far it is in metres; None where no sample has a place."""
        places = self.table(np.arange(self.count))
        known = np.flatnonzero(np.isfinite(places["lon"].to_numpy()) & np.isfinite(places["lat"].to_numpy()))
        if not len(known):
            return None
        there = places.iloc[known]
        here = np.full(len(known), lon), np.full(len(known), lat)
        distances = _GEOD.inv(*here, there["lon"].to_numpy(), there["lat"].to_numpy())[2]
        best = int(np.argmin(distances))
        return int(known[best]), float(distances[best])

    def __str__(self) -> str:
        place = "without a place" if not np.isfinite(self.x).any() else _name(pyproj.CRS(self.wkt)) if self.wkt else ""
        return f"{self.count} samples" + (f", {place}" if place else ", of unknown CRS")


Places = Grid | Samples


@dataclass(frozen=True)
class Vectors:
    """An embedding, dense or not, read as a table of vectors, one block after another."""

    array: xr.DataArray
    """The embedding itself, its last dimension `feature`."""
    places: Places
    """Where each of its vectors lies."""

    @property
    def count(self) -> int:
        """How many vectors there are, those without data included."""
        return self.places.count

    @property
    def width(self) -> int:
        """How many features a vector has."""
        return int(self.array.sizes["feature"])

    @property
    def attrs(self) -> dict[str, str]:
        """What was noted of the encoder."""
        return {str(key): str(value) for key, value in self.array.attrs.items() if isinstance(value, str | int | float)}

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """All vectors in order as (rows, float32 array), a few megabytes at a time, whatever they are stored in."""
        first = str(self.array.dims[0])
        each = self.count // self.array.sizes[first]
        step = max(1, BLOCK_BYTES // (4 * self.width * each))
        for start in range(0, self.array.sizes[first], step):
            part = self.array.isel({first: slice(start, start + step)}).to_numpy()
            flat = np.asarray(part.reshape(-1, self.width), dtype="float32")
            yield slice(start * each, start * each + len(flat)), flat

    def matrix(self, rows: np.ndarray) -> np.ndarray:
        """Some of the vectors, in the order asked for, as float32."""
        found = np.empty((len(rows), self.width), "float32")
        order = np.argsort(rows, kind="stable")
        for block, values in self.blocks():
            low, high = np.searchsorted(rows[order], (block.start, block.stop))
            found[order[low:high]] = values[rows[order[low:high]] - block.start]
        return found

    def usable(self) -> np.ndarray:
        """Which vectors mean something: a vector with one number missing, or infinite, is no data."""
        return np.concatenate([np.isfinite(values).all(axis=1) for _, values in self.blocks()])

    def like(self, values: np.ndarray, name: str, attrs: dict[str, Any], dtype: Any = None) -> xr.DataArray:
        """One value for each vector, in the shape and with the coordinates of the embedding."""
        dims = self.array.dims[:-1]
        shaped = np.asarray(values, dtype).reshape([self.array.sizes[dim] for dim in dims])
        kept = {key: coord.variable for key, coord in self.array.coords.items() if "feature" not in coord.dims}
        return xr.DataArray(shaped, coords=kept, dims=dims, name=name, attrs=attrs)


def vectors_of(z: Any, what: str = "vectors") -> Vectors:
    """Read an embedding: dense (y, x, feature), samples (sample, feature), one vector (feature,), or a plain array.

    >>> vectors_of(np.zeros((5, 3), "float32")).count
    5
    """
    if isinstance(z, np.ndarray) and z.ndim == 2:
        z = xr.DataArray(z, dims=("sample", "feature"))
    if not isinstance(z, xr.DataArray):
        shape = f" of shape {z.shape}" if isinstance(z, np.ndarray) else ""
        raise InputError(
            f"{what} is a {type(z).__name__}{shape}; an embedding is needed: a DataArray as ds.embed gives it, or an"
            " array of shape (samples, features)."
        )
    dims = {str(dim) for dim in z.dims}
    if dims == {"feature"}:
        return _samples(z.expand_dims("sample").reset_coords(drop=True).assign_coords(z.coords), what)
    if dims == {"sample", "feature"}:
        return _samples(z.transpose("sample", "feature"), what)
    if dims == {"y", "x", "feature"}:
        array = z.transpose("y", "x", "feature")
        _check_size(array, what)
        return Vectors(array, Grid(grid_of(array)))
    raise InputError(
        f"{what} has the dimensions ({', '.join(map(str, z.dims))}); embeddings have ('y', 'x', 'feature'),"
        " ('sample', 'feature') or ('feature',)."
    )


def _samples(array: xr.DataArray, what: str) -> Vectors:
    _check_size(array, what)
    count = int(array.sizes["sample"])
    name = next((name for name in ("id", "sample") if name in array.coords), None)
    ids = np.arange(count) if name is None else np.atleast_1d(array[name].to_numpy())
    # Numbers or text: both can be stored as what they are, and compared with what is asked for.
    ids = ids.astype("int64") if ids.dtype.kind in "iu" else ids.astype(str)
    pair = next((pair for pair in (("lon", "lat"), ("x", "y")) if set(pair) <= set(array.coords)), None)
    if pair is None:
        nowhere = np.full(count, np.nan)
        return Vectors(array, Samples(np.broadcast_to(ids, count), nowhere, nowhere, None))
    x, y = (np.broadcast_to(array[axis].to_numpy().astype("float64"), count) for axis in pair)
    wkt = _LONLAT.to_wkt() if pair[0] == "lon" else _wkt(array)
    return Vectors(array, Samples(np.broadcast_to(ids, count), x, y, wkt))


def _wkt(array: xr.DataArray) -> str | None:
    attrs = array.coords["spatial_ref"].attrs if "spatial_ref" in array.coords else {}
    told = attrs.get("crs_wkt") or attrs.get("spatial_ref") or array.attrs.get("crs")
    return None if told is None else str(pyproj.CRS.from_user_input(told).to_wkt())


def _check_size(array: xr.DataArray, what: str) -> None:
    if not array.size:
        raise InputError(f"{what} is empty: it has {', '.join(f'{size} {dim}' for dim, size in array.sizes.items())}.")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{what} holds {array.dtype}, not numbers.")


def check_same_encoder(one: dict[str, Any], other: dict[str, Any], what: str) -> None:
    """Refuse to compare vectors of two encoders, which may well have the same width.

    >>> check_same_encoder({"encoder": "presto"}, {}, "these")
    """
    for key in IDENTITY:
        if key in one and key in other and str(one[key]) != str(other[key]):
            raise InputError(
                f"{what} come from different encoders ({key} {one[key]!s} and {other[key]!s}), whose vectors have"
                " nothing in common. Embed both with the same one."
            )


def metres(places: Places) -> np.ndarray:
    """Every place as coordinates in metres, (n, 2) on a map or (n, 3) from the centre of the Earth; straight distances
    between them are distances on the ground, short ones exactly.

    >>> metres(Samples(np.arange(2), np.array([0.0, 0.0]), np.array([0.0, 1.0]), _LONLAT.to_wkt())).shape
    (2, 3)
    """
    rows = np.arange(places.count)
    crs = crs_of(places.geobox) if isinstance(places, Grid) else None if places.wkt is None else pyproj.CRS(places.wkt)
    x, y = places.xy(rows)
    if crs is None:
        raise InputError(
            "The samples have no place of a known CRS: give coordinates lon and lat, or x, y and spatial_ref."
        )
    if crs.is_projected:
        factor = float(crs.axis_info[0].unit_conversion_factor)
        return np.column_stack([x, y]) * factor
    lon, lat = (x, y) if crs == _LONLAT else _transform(crs, _LONLAT, x, y)
    there = pyproj.Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    return np.column_stack(there.transform(lon, lat, np.zeros_like(lon)))


def _transform(source: pyproj.CRS, target: pyproj.CRS, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    moved = pyproj.Transformer.from_crs(source, target, always_xy=True).transform(np.asarray(x), np.asarray(y))
    return np.asarray(moved[0], "float64"), np.asarray(moved[1], "float64")


def _name(crs: pyproj.CRS) -> str:
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.name)
