"""What is handed to `plan_corpus` as places: points, or windows that lie where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from deepsentinel.errors import InputError
from deepsentinel.grids import transformer

from .tiling import NATIVE_STEP_M, around_points, footprints, is_windows


@dataclass(frozen=True, eq=False)
class Places:
    """Places, checked, in the order in which they were given."""

    number: np.ndarray
    """What each is called: the index of the table if that counts, else its position."""
    lon: np.ndarray
    """The middle of each, in degrees."""
    lat: np.ndarray
    """The same northwards."""
    windows: pd.DataFrame | None
    """`crs, x0, y0` where the windows are given; None for points."""
    size_px: int
    """Pixels a side of all windows."""
    resolution: float
    """Metres a pixel."""
    stratum: np.ndarray | None = None
    """The class that each was drawn from."""

    def __len__(self) -> int:
        return len(self.number)

    @property
    def size_m(self) -> float:
        """Metres a side of a window."""
        return self.size_px * self.resolution

    def outlines(self, crs: list[str], step: float) -> np.ndarray:
        """The windows in degrees, those of points in these projections."""
        return footprints(self.grids(np.arange(len(self)), crs, step))

    def grids(self, positions: np.ndarray, crs: Any, step: float) -> pd.DataFrame:
        """`crs, x0, y0, size_px, resolution` of the windows of some places, in these projections if they are points."""
        if self.windows is not None:
            found = self.windows.iloc[positions].reset_index(drop=True)
            return found.assign(size_px=self.size_px, resolution=self.resolution)
        return around_points(
            self.lon[positions],
            self.lat[positions],
            crs,
            size_px=self.size_px,
            resolution=self.resolution,
            step=step,
        )


def places_of(table: Any, *, size_px: int, resolution: float, native: bool) -> Places:
    """The places in a table of points or of windows."""
    if not isinstance(table, gpd.GeoDataFrame):
        raise InputError(
            f"The places are a {type(table).__name__}; give a GeoDataFrame of points (ds.sample_land) or of windows"
            " (ds.cover, corpus.windows)."
        )
    if not len(table):
        raise InputError("The table of places is empty: there is nothing to plan.")
    number = numbers_of(table)
    stratum = None
    if "class" in table.columns:
        stratum = np.array([None if pd.isna(value) else str(value) for value in table["class"]], dtype=object)
    if is_windows(table):
        return _of_windows(table, number, stratum, native)
    if table.crs is None:
        raise InputError("The points have no CRS, and nothing guesses one: points.set_crs('EPSG:4326') if degrees.")
    shapes = table.geometry if table.crs.to_epsg() == 4326 else table.geometry.to_crs("EPSG:4326")
    points = np.asarray(shapes.array, dtype=object)
    bad = np.flatnonzero((shapely.get_type_id(points) != 0) | shapely.is_empty(points))
    if len(bad):
        kind = "nothing" if points[bad[0]] is None else points[bad[0]].geom_type
        raise InputError(
            f"Row {table.index[bad[0]]} of the places is a {kind}; points are needed, or windows with the columns crs,"
            " x0 and y0: corpus.windows makes them over a tile, corpus.parcel_windows around parcels."
        )
    lon, lat = shapely.get_x(points), shapely.get_y(points)
    off = np.flatnonzero(~((np.abs(lon) <= 180) & (np.abs(lat) <= 90)))
    if len(off):
        raise InputError(
            f"Row {table.index[off[0]]} of the places, ({lon[off[0]]}, {lat[off[0]]}), is nowhere on Earth."
        )
    return Places(number, lon, lat, None, int(size_px), float(resolution), stratum)


def numbers_of(table: pd.DataFrame) -> np.ndarray:
    """What the rows of a table of places, or of the labels they lie around, are called.

    >>> numbers_of(pd.DataFrame(index=[7, 3])).tolist(), numbers_of(pd.DataFrame(index=[0, 1, 0])).tolist()
    ([7, 3], [0, 1, 2])
    """
    counts = pd.api.types.is_integer_dtype(table.index.dtype) and table.index.is_unique
    return np.asarray(table.index.to_numpy("int64") if counts else np.arange(len(table), dtype="int64"))


def _of_windows(table: gpd.GeoDataFrame, number: np.ndarray, stratum: Any, native: bool) -> Places:
    sizes = {}
    for name in ("size_px", "resolution"):
        values = np.unique(table[name].to_numpy(float)) if name in table.columns else np.array([])
        if len(values) != 1:
            raise InputError(
                f"The windows have {'no' if not len(values) else 'several'} {name}; all samples of a corpus are of one."
            )
        sizes[name] = float(values[0])
    if native and sizes["resolution"] != 10:
        raise InputError("native=True keeps the pixels of the products: make the windows with resolution=10.")
    off = (table[["x0", "y0"]].to_numpy(float) % NATIVE_STEP_M != 0).any(axis=1)
    if native and off.any():
        raise InputError(
            f"native=True keeps the products' pixels, and {off.sum()} of {len(off)} windows lie off those of 60 m;"
            f" their x0 and y0 must be multiples of {NATIVE_STEP_M:g}. ds.cover, corpus.windows and"
            f" corpus.parcel_windows lay them so with snap_m={NATIVE_STEP_M:g}."
        )
    frame = pd.DataFrame(
        {
            "crs": [str(name) for name in table["crs"]],
            "x0": table["x0"].to_numpy(float),
            "y0": table["y0"].to_numpy(float),
        }
    )
    half = sizes["size_px"] * sizes["resolution"] / 2
    lon, lat = np.empty(len(frame)), np.empty(len(frame))
    for crs, part in frame.groupby("crs", sort=False):
        at = part.index.to_numpy()
        lon[at], lat[at] = transformer(str(crs), "EPSG:4326").transform(
            part["x0"].to_numpy() + half, part["y0"].to_numpy() - half
        )
    return Places(number, lon, lat, frame, int(sizes["size_px"]), sizes["resolution"], stratum)
