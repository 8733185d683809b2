"""Where samples lie: windows over a tile, one window a parcel, and a window around each point on the pixels of a scene.

A table of windows has the columns `crs, x0, y0, size_px, resolution` (the upper left corner and the pixels) and the
footprint in degrees as its geometry; `ds.cover` makes such tables for regions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from deepsentinel.aoi import utm_crs
from deepsentinel.errors import InputError, NothingFoundError
from deepsentinel.grids import crs_of, grid_of, same_crs, transformer

WINDOW_COLUMNS = ("crs", "x0", "y0", "size_px", "resolution")
# The edges of a window are curves in degrees.
EDGE_POINTS = 4
NATIVE_STEP_M = 60.0
"""The corner of a native window lies on pixels of all three sizes."""


def windows(
    tile: Any,
    size_px: int,
    stride: int | None = None,
    *,
    only_labelled: Any = None,
    snap_m: float | None = None,
) -> gpd.GeoDataFrame:
    """The windows of a lattice that lie wholly within a tile, row by row from its upper left corner.

    Parameters
    ----------
    tile
        A GeoBox, a patch or a DataArray; or several, such as the tiles of a region.
    size_px
        Pixels a side.
    stride
        Pixels from one window to the next; None: side by side.
    only_labelled
        Labels (a GeoDataFrame with a CRS): windows that none of them reaches are left out.
    snap_m
        Windows begin at multiples of so many metres; 60 for `native=True`. The stride must be a multiple of it, too.

    >>> tile = GeoBox((100, 90), Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32631")
    >>> table = windows(tile, 40)
    >>> len(table), table.x0.unique().tolist()
    (4, [500000.0, 500400.0])
    """
    check_size(size_px)
    step = size_px if stride is None else stride
    if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 1:
        raise InputError(f"stride={stride!r} is not a number of pixels; give 1 or more, or None for side by side.")
    tiles = list(tile) if isinstance(tile, list | tuple) else [tile]
    parts = []
    for one in tiles:
        grid = grid_of(one)
        rows, columns = (int(length) for length in grid.shape)
        if min(rows, columns) < size_px:
            raise InputError(f"A tile of {rows} x {columns} pixels has no room for a window of {size_px}.")
        a = grid.affine
        first = (0, 0) if snap_m is None else _first_snapped(a, step, snap_m)
        down, across = (np.arange(at, n - size_px + 1, step) for at, n in zip(first, (rows, columns), strict=True))
        top, left = (found.ravel() for found in np.meshgrid(down, across, indexing="ij"))
        parts.append(
            window_table(_name(grid), a.c + a.a * left, a.f + a.e * top, size_px=int(size_px), resolution=abs(a.a))
        )
    table = gpd.GeoDataFrame(pd.concat(parts, ignore_index=True), crs="EPSG:4326")
    return table if only_labelled is None else _labelled(table, only_labelled)


def _first_snapped(a: Affine, step: int, snap_m: float) -> tuple[int, int]:
    """The first row and column of a grid that lie at a multiple of `snap_m`."""
    check_resolution(snap_m)
    found = ((a.f % snap_m) / -a.e, (-a.c % snap_m) / a.a)
    if any(at != int(at) for at in (*found, snap_m / a.a)) or (step * a.a) % snap_m:
        raise InputError(
            f"snap_m={snap_m:g}: a grid of pixels of {a.a:g} m that begins at ({a.c:g}, {a.f:g}) has no windows at"
            f" multiples of it {step} pixels apart. Give a stride= that is a multiple of {snap_m:g} m."
        )
    return int(found[0]), int(found[1])


def parcel_windows(
    labels: gpd.GeoDataFrame, size_px: int, *, resolution: float = 10, snap_m: float | None = None
) -> gpd.GeoDataFrame:
    """One window a parcel, its middle that of the box around the parcel, as `ds.parcel_window` lays it.

    With `snap_m` the window begins at the nearest multiple of so many metres; 60 for `native=True`.

    The index is that of the labels, so that `place` in the samples tells the row of the parcel. Give the same labels to
    `build_corpus` as `{"parcels": {"labels": labels, "alone": True}}`, and each mask holds its own parcel alone.

    >>> parcels = gpd.GeoDataFrame({"ground_truth": [3]}, geometry=[shapely.box(2, 48, 2.001, 48.001)], crs=4326)
    >>> parcel_windows(parcels, 16)[["crs", "size_px"]].values.tolist()
    [['EPSG:32631', 16]]
    """
    check_size(size_px)
    step = resolution if snap_m is None else snap_m
    for one in (resolution, step):
        check_resolution(one)
    half = size_px * (resolution / step) / 2
    if not isinstance(labels, gpd.GeoDataFrame) or labels.crs is None:
        raise InputError("Parcels are a GeoDataFrame with a CRS, such as ds.read_labels gives.")
    shapes = np.asarray(labels.geometry.array, dtype=object)
    edges = shapely.bounds(shapes)
    lost = np.flatnonzero(~np.isfinite(edges).all(axis=1))
    if len(lost):
        raise InputError(f"Row {labels.index[lost[0]]} of the parcels has no place: leave out labels without geometry.")
    crs = labels.crs
    lon, lat = transformer(crs, "EPSG:4326").transform((edges[:, 0] + edges[:, 2]) / 2, (edges[:, 1] + edges[:, 3]) / 2)
    names = np.array([utm_crs(float(x), float(y)) for x, y in zip(lon, lat, strict=True)], dtype=object)
    x0, y0 = np.empty(len(labels)), np.empty(len(labels))
    for name in dict.fromkeys(names):
        mine = np.flatnonzero(names == name)
        there = shapes[mine]
        if not same_crs(crs, str(name)):
            there = shapely.transform(there, transformer(crs, str(name)).transform, interleaved=False)
        left, bottom, right, top = shapely.bounds(there).T
        x0[mine] = step * np.floor((left + right) / 2 / step - half + 0.5)
        # Rows run downwards, so that what is rounded is the row, as in `parcel_window`.
        y0[mine] = -step * np.floor(-(bottom + top) / 2 / step - half + 0.5)
    table = window_table(names, x0, y0, size_px=int(size_px), resolution=float(resolution))
    return table.set_index(labels.index)


def around_points(
    lon: np.ndarray, lat: np.ndarray, crs: Sequence[str], *, size_px: int, resolution: float, step: float
) -> gpd.GeoDataFrame:
    """The window around each point in its own CRS, its corner on a multiple of `step`: the lattice of the scenes."""
    names = np.asarray(crs, dtype=object)
    x0, y0 = np.empty(len(names)), np.empty(len(names))
    half = size_px * resolution / 2
    for name in dict.fromkeys(names):
        mine = np.flatnonzero(names == name)
        x, y = transformer("EPSG:4326", str(name)).transform(lon[mine], lat[mine])
        x0[mine] = step * np.floor((np.asarray(x) - half) / step + 0.5)
        y0[mine] = step * np.floor((np.asarray(y) + half) / step + 0.5)
    return window_table(names, x0, y0, size_px=size_px, resolution=resolution)


def window_table(crs: Any, x0: np.ndarray, y0: np.ndarray, *, size_px: Any, resolution: Any) -> gpd.GeoDataFrame:
    """The table of windows with these corners."""
    frame = pd.DataFrame({"x0": np.asarray(x0, float), "y0": np.asarray(y0, float)})
    frame.insert(0, "crs", np.full(len(frame), crs, dtype=object) if isinstance(crs, str) else crs)
    frame["size_px"], frame["resolution"] = size_px, resolution
    return gpd.GeoDataFrame(frame, geometry=footprints(frame), crs="EPSG:4326")


def footprints(table: pd.DataFrame) -> np.ndarray:
    """The windows as polygons in degrees; one that crosses the antimeridian is cut there."""
    side = (table["size_px"] * table["resolution"]).to_numpy(float)
    along = np.concatenate([np.linspace(0, 1, EDGE_POINTS, endpoint=False)])
    zero, one = np.zeros(EDGE_POINTS), np.ones(EDGE_POINTS)
    ring_x = np.concatenate([along, one, 1 - along, zero])
    ring_y = np.concatenate([zero, along, one, 1 - along])
    shapes = np.empty(len(table), dtype=object)
    names = table["crs"].to_numpy(object)
    for name in dict.fromkeys(names):
        mine = np.flatnonzero(names == name)
        x = table["x0"].to_numpy(float)[mine, None] + ring_x * side[mine, None]
        y = table["y0"].to_numpy(float)[mine, None] - ring_y * side[mine, None]
        lon, lat = transformer(str(name), "EPSG:4326").transform(x, y)
        shapes[mine] = shapely.polygons(np.stack([lon, lat], axis=-1))
        for at in mine[np.ptp(lon, axis=1) > 180]:
            shapes[at] = _cut(shapes[at])
    return shapes


def _cut(shape: shapely.Geometry) -> shapely.Geometry:
    turn = np.array([360.0, 0.0])
    east = shapely.transform(shape, lambda xy: np.where(xy[:, :1] < 0, xy + turn, xy))
    halves = [shapely.intersection(east, shapely.box(0, -90, 180, 90))]
    beyond = shapely.intersection(east, shapely.box(180, -90, 540, 90))
    halves.append(shapely.transform(beyond, lambda xy: xy - turn))
    return shapely.MultiPolygon([part for part in halves if not part.is_empty])


def grid_at(crs: str, transform: Sequence[float], height: int, width: int) -> GeoBox:
    """The grid of a sample, from its row in the table."""
    return GeoBox((int(height), int(width)), Affine(*(float(number) for number in transform[:6])), crs)


def is_windows(table: Any) -> bool:
    """Whether this is a table of windows rather than of points."""
    return {"crs", "x0", "y0"} <= set(table.columns)


def check_size(size_px: Any) -> None:
    """Refuse what is no number of pixels."""
    if isinstance(size_px, bool) or not isinstance(size_px, int | np.integer) or not 1 <= size_px <= 16384:
        raise InputError(f"size_px={size_px!r} is not a number of pixels; give 1 to 16384, such as size_px=256.")


def check_resolution(resolution: Any) -> None:
    """Refuse what is no size of a pixel."""
    number = isinstance(resolution, int | float | np.number) and not isinstance(resolution, bool)
    if not (number and math.isfinite(resolution) and resolution > 0):
        raise InputError(f"resolution={resolution!r} is not the size of a pixel in metres; give for example 10.")


def _labelled(table: gpd.GeoDataFrame, labels: Any) -> gpd.GeoDataFrame:
    if not isinstance(labels, gpd.GeoDataFrame) or labels.crs is None:
        raise InputError("only_labelled= takes labels with a CRS, such as ds.read_labels gives.")
    reached = np.zeros(len(table), dtype=bool)
    names = table["crs"].to_numpy(object)
    for name in dict.fromkeys(names):
        mine = np.flatnonzero(names == name)
        there = labels.geometry if same_crs(labels.crs, str(name)) else labels.geometry.to_crs(str(name))
        part = table.iloc[mine]
        side = (part["size_px"] * part["resolution"]).to_numpy(float)
        x0, y0 = part["x0"].to_numpy(float), part["y0"].to_numpy(float)
        boxes = shapely.box(x0, y0 - side, x0 + side, y0)
        hit, _ = shapely.STRtree(np.asarray(there.array, dtype=object)).query(boxes, predicate="intersects")
        reached[mine[np.unique(hit)]] = True
    if not reached.any():
        raise NothingFoundError(
            f"None of the {len(table)} windows is reached by one of the {len(labels)} labels: check the CRS of the"
            " labels, or leave out only_labelled=."
        )
    return table[reached].reset_index(drop=True)


def _name(grid: GeoBox) -> str:
    crs: pyproj.CRS = crs_of(grid)
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt())
