"""Embeddings of any shape as one table of vectors: which of them mean something, and where on Earth each lies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyproj
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from deepsentinel.errors import InputError, warn
from deepsentinel.grids import crs_of, grid_coords, grid_of, metres_per_unit

# What one step of a pass over all vectors holds: small beside any memory, large beside the cost of a call.
BLOCK_BYTES = 32 * 2**20
# Vectors of different encoders cannot be told apart by their width; these attributes tell them apart.
IDENTITY = ("encoder", "weights")
# How an encoder was asked; vectors of one place differ by these too.
ASKED = ("sensors", "bands", "patch_px", "resolution_m", "mask_clouds", "keep_positions")

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
        unit = "m" if crs_of(self.geobox).is_projected else "degrees"
        return f"{rows} x {columns} cells of {abs(self.geobox.affine.a):g} {unit}, {_name(crs_of(self.geobox))}"


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
    z = reopened(z)
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


def reopened(z: Any) -> Any:
    """What `embed(..., out=)` wrote, as xarray and rioxarray open it, as the map it was; anything else as it is.

    >>> reopened(xr.Dataset({"embedding": (("y", "x", "feature"), np.zeros((1, 1, 3)))})).dims
    ('y', 'x', 'feature')
    """
    if isinstance(z, xr.Dataset) and list(z.data_vars) == ["embedding"]:
        return z["embedding"]
    tagged = isinstance(z, xr.DataArray) and "ENCODER" in z.attrs and z.dtype.kind == "f"
    if tagged and set(z.dims) == {"band", "y", "x"}:
        names = [dim for dim in z.dims if dim != "band"]
        z = z.rename(band="feature").transpose(*names, "feature").assign_coords(feature=np.arange(z.sizes["band"]))
        # In a GeoTIFF tags are in capitals.
        z.attrs = {key.lower(): value for key, value in z.attrs.items() if key.isupper()}
        return z.rename("embedding")
    return z


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


def check_same_encoder(one: dict[str, Any], other: dict[str, Any], what: str, *, alike: bool = False) -> None:
    """Refuse to compare vectors of two encoders, which may well have the same width; warn of different sensors.

    With `alike` vectors of one encoder that was asked in two ways are refused too.

    >>> check_same_encoder({"encoder": "presto"}, {}, "these")
    """
    for key in IDENTITY:
        if key in one and key in other and str(one[key]) != str(other[key]):
            raise InputError(
                f"{what} come from different encoders ({key} {one[key]!s} and {other[key]!s}), whose vectors have"
                " nothing in common. Embed both with the same one."
            )
    differ = asked_otherwise(one, other)
    for key, pair in differ.items():
        if alike and "mixed" not in pair:
            raise InputError(
                f"{what} were embedded with {key} {pair[0]} and {pair[1]}, which would count as change. Embed both in"
                " the same way."
            )
    saw = differ.get("sensors")
    if saw is not None and not alike:
        warn(
            f"{what} saw different sensors ({saw[0]} and {saw[1]}): part of what tells their vectors apart is that, and"
            " not the ground. Embed both with the same sensors=."
        )


def asked_otherwise(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """In what two embeddings of one encoder were asked for differently, as far as both tell.

    >>> asked_otherwise({"sensors": "s1", "patch_px": 8}, {"sensors": "both", "patch_px": 8})
    {'sensors': ('s1', 'both')}
    """
    told = {key: (str(one[key]), str(other[key])) for key in ASKED if key in one and key in other}
    # Of what saw nothing there is nothing to compare.
    return {key: pair for key, pair in told.items() if pair[0] != pair[1] and "none" not in pair}


def check_same_places(one: Vectors, other: Vectors, names: tuple[str, str] = ("before", "after")) -> None:
    """Refuse two embeddings whose vectors do not lie at the same places, as far as they tell.

    >>> check_same_places(vectors_of(np.zeros((5, 3))), vectors_of(np.zeros((5, 2))))
    """
    sizes = [table.array.sizes for table in (one, other)]
    shapes = [", ".join(f"{size} {dim}" for dim, size in each.items() if dim != "feature") for each in sizes]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"{names[0]} is of {shapes[0]} and {names[1]} of {shapes[1]}; they are not of the same places."
        )
    for axis in ("y", "x") if "y" in one.array.dims else ("id", "sample", "lon", "lat"):
        if axis in one.array.coords and axis in other.array.coords:
            a, b = one.array[axis].to_numpy(), other.array[axis].to_numpy()
            numbers = a.dtype.kind in "fiu" and b.dtype.kind in "fiu"
            if not (np.allclose(a, b, rtol=0, atol=1e-6, equal_nan=True) if numbers else np.array_equal(a, b)):
                raise InputError(
                    f"{names[0]} and {names[1]} differ in {axis}: they are not of the same places. Embed both on one"
                    " grid (read both patches on the same ds.geobox), or put the samples in one order."
                )
    crs = [str(table.places.geobox.crs) for table in (one, other) if isinstance(table.places, Grid)]
    if len(set(crs)) > 1:
        raise InputError(f"{names[0]} is in {crs[0]} and {names[1]} in {crs[1]}; embed both on one grid.")


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
        if _true_to_scale(crs, x, y, factor):
            return np.column_stack([x, y]) * factor
    lon, lat = (x, y) if crs == _LONLAT else _transform(crs, _LONLAT, x, y)
    there = pyproj.Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    return np.column_stack(there.transform(lon, lat, np.zeros_like(lon)))


def _true_to_scale(crs: pyproj.CRS, x: np.ndarray, y: np.ndarray, factor: float) -> bool:
    """Whether metres of a map are metres on the ground, in the middle of the places; on a web map they are not."""
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return True
    middle = (x[known].min() + x[known].max()) / 2, (y[known].min() + y[known].max()) / 2
    square = GeoBox((1, 1), Affine(1, 0, middle[0], 0, -1, middle[1]), crs.to_wkt())
    return metres_per_unit(square) == (factor, factor)


def _transform(source: pyproj.CRS, target: pyproj.CRS, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    moved = pyproj.Transformer.from_crs(source, target, always_xy=True).transform(np.asarray(x), np.asarray(y))
    return np.asarray(moved[0], "float64"), np.asarray(moved[1], "float64")


def _name(crs: pyproj.CRS) -> str:
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.name)
