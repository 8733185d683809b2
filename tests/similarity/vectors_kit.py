"""Embeddings with known answers."""

from __future__ import annotations

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from deepsentinel.grids import grid_coords


def grid(rows: int, columns: int, *, step_m: float = 80, epsg: int = 32631) -> GeoBox:
    return GeoBox((rows, columns), Affine(step_m, 0, 500_000, 0, -step_m, 5_400_000), f"EPSG:{epsg}")


def dense(values: np.ndarray, *, step_m: float = 80, **attrs: str) -> xr.DataArray:
    coords = grid_coords(grid(*values.shape[:2], step_m=step_m))
    return xr.DataArray(values.astype("float32"), coords, ("y", "x", "feature"), attrs=attrs)


def samples(values: np.ndarray, lon: np.ndarray, lat: np.ndarray, ids: object = None, **attrs: str) -> xr.DataArray:
    coords = {"lon": ("sample", lon), "lat": ("sample", lat)}
    if ids is not None:
        coords["id"] = ("sample", np.asarray(ids))
    return xr.DataArray(values, coords, ("sample", "feature"), attrs=attrs)


def lonlat_of(z: xr.DataArray, row: int, col: int) -> tuple[float, float]:
    """Where a cell of a dense embedding lies, by another way than ours."""
    import pyproj

    there = pyproj.Transformer.from_crs(32631, 4326, always_xy=True)
    lon, lat = there.transform(float(z["x"][col]), float(z["y"][row]))
    return float(lon), float(lat)


def landscape(
    rows: int, columns: int, width: int = 12, classes: int = 4, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of fields with a class each, and the classes (1 to `classes`): neighbours are alike, as on the ground."""
    rng = np.random.default_rng(seed)
    fields = rng.integers(1, classes + 1, (rows // 4 + 1, columns // 4 + 1))
    kind = np.kron(fields, np.ones((4, 4), int))[:rows, :columns]
    centres = rng.normal(size=(classes + 1, width)) * 2 + 1
    return centres[kind] + rng.normal(size=(rows, columns, width)), kind
