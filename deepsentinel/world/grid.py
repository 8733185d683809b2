"""Where the demo world lies: its own plane, the two tiles cut from it, the way from a tile's pixels to the plane."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

__all__ = ["TILES", "WORLD_CRS", "MasterGrid", "master_grid", "sample", "tile_geoboxes", "transformer"]

WORLD_CRS = "+proj=tmerc +lat_0=49.25 +lon_0=0 +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"
"""The plane the landscape is built on: true to scale where zones 30 and 31 meet, so neither tile is favoured."""

TILES: dict[str, str] = {"30UYV": "EPSG:32630", "31UCQ": "EPSG:32631"}
"""Tile name and CRS, west to east."""

_LON, _LAT = 0.0, 49.25
_SHIFT = 0.3  # tile centres lie this share of their width west and east of the middle: 40 % overlap
_MARGIN_M = 300.0
_BLOCK_M = 60.0  # tiles and master raster start on multiples of this, so 10, 20 and 60 m lattices nest


class HasGrid(Protocol):
    """Anything placed on the world plane like a `Landscape`."""

    @property
    def origin_x(self) -> float: ...
    @property
    def origin_y(self) -> float: ...
    @property
    def resolution_m(self) -> float: ...
    @property
    def shape(self) -> tuple[int, int]: ...


@dataclass(frozen=True)
class MasterGrid:
    """Raster lattice on the world plane, north up."""

    origin_x: float
    """West edge, metres."""
    origin_y: float
    """North edge, metres."""
    resolution_m: float
    """Cell size, metres."""
    shape: tuple[int, int]
    """Rows, columns."""

    @property
    def transform(self) -> Affine:
        """Column, row to x, y."""
        return Affine(self.resolution_m, 0.0, self.origin_x, 0.0, -self.resolution_m, self.origin_y)

    def coarser(self, factor: int) -> MasterGrid:
        """The same ground in cells `factor` times as wide; the factor must divide the shape."""
        return MasterGrid(
            self.origin_x,
            self.origin_y,
            self.resolution_m * factor,
            (self.shape[0] // factor, self.shape[1] // factor),
        )

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """x of each column and y of each row, at cell centres."""
        x = self.origin_x + (np.arange(self.shape[1]) + 0.5) * self.resolution_m
        y = self.origin_y - (np.arange(self.shape[0]) + 0.5) * self.resolution_m
        return x, y

    def index(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of points; points outside take the nearest edge cell."""
        row = np.floor((self.origin_y - np.asarray(y)) / self.resolution_m).astype(np.int32)
        col = np.floor((np.asarray(x) - self.origin_x) / self.resolution_m).astype(np.int32)
        return np.clip(row, 0, self.shape[0] - 1), np.clip(col, 0, self.shape[1] - 1)


@lru_cache(maxsize=16)
def transformer(source: str, target: str) -> Transformer:
    """A transformer that is kept: setting one up takes longer than rendering a band.

    Its use is safe from several threads: pyproj keeps one context a thread.
    """
    return Transformer.from_crs(source, target, always_xy=True)


def tile_geoboxes(size_px: int = 1024) -> dict[str, GeoBox]:
    """The two 10 m tile grids, in two UTM zones, that together cover the world.

    >>> {name: box.shape.xy for name, box in tile_geoboxes(512).items()}
    {'30UYV': (512, 512), '31UCQ': (512, 512)}
    """
    return dict(_tile_geoboxes(size_px))


@lru_cache(maxsize=8)
def _tile_geoboxes(size_px: int) -> dict[str, GeoBox]:
    side_m = size_px * 10.0
    boxes = {}
    for (name, crs), side in zip(TILES.items(), (-1, 1), strict=True):
        # The shift is measured on the world plane: grid north of both zones leans away from it by 2.3 degrees.
        x, y = transformer(WORLD_CRS, crs).transform(side * _SHIFT * side_m, 0.0)
        left = round((x - side_m / 2) / _BLOCK_M) * _BLOCK_M
        top = round((y + side_m / 2) / _BLOCK_M) * _BLOCK_M
        boxes[name] = GeoBox((size_px, size_px), Affine(10.0, 0.0, left, 0.0, -10.0, top), crs)
    return boxes


@lru_cache(maxsize=8)
def master_grid(size_px: int = 1024, resolution_m: float = 5.0) -> MasterGrid:
    """The master lattice: everything both tiles see, and 300 m more."""
    xs, ys = [], []
    for box in tile_geoboxes(size_px).values():
        edge = np.linspace(0, size_px, 9)
        cols, rows = (a.ravel() for a in np.meshgrid(edge, edge))
        x, y = _apply(box.affine, cols, rows)
        wx, wy = transformer(str(box.crs), WORLD_CRS).transform(x, y)
        xs.append(wx)
        ys.append(wy)
    left = np.floor((np.min(xs) - _MARGIN_M) / _BLOCK_M) * _BLOCK_M
    right = np.ceil((np.max(xs) + _MARGIN_M) / _BLOCK_M) * _BLOCK_M
    bottom = np.floor((np.min(ys) - _MARGIN_M) / _BLOCK_M) * _BLOCK_M
    top = np.ceil((np.max(ys) + _MARGIN_M) / _BLOCK_M) * _BLOCK_M
    shape = (round((top - bottom) / resolution_m), round((right - left) / resolution_m))
    return MasterGrid(float(left), float(top), resolution_m, shape)


def sample(landscape: HasGrid, geobox: GeoBox, oversample: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Row and column in the master raster under each pixel of a grid in any CRS: `landscape.cover[rows, cols]`.

    With `oversample=2` each pixel is split into 2 x 2 and the answer is twice as tall and wide. Points off the map take
    the nearest edge cell. The projection is computed every 32 pixels and interpolated: off by less than a centimetre
    on 10 m grids.
    """
    rows_n, cols_n = geobox.shape[0] * oversample, geobox.shape[1] * oversample
    step = 32.0 * oversample
    row_knots = np.linspace(0, rows_n, max(2, int(np.ceil(rows_n / step)) + 1))
    col_knots = np.linspace(0, cols_n, max(2, int(np.ceil(cols_n / step)) + 1))
    cc, rr = np.meshgrid(col_knots, row_knots)
    x, y = _apply(geobox.affine, cc / oversample, rr / oversample)
    wx, wy = transformer(str(geobox.crs), WORLD_CRS).transform(x, y)
    col = (np.asarray(wx) - landscape.origin_x) / landscape.resolution_m
    row = (landscape.origin_y - np.asarray(wy)) / landscape.resolution_m
    # As matrix products: two weights a column, the rest zero, so the result does not depend on how the sum is split.
    tall_weights = _weights(row_knots, np.arange(rows_n) + 0.5)
    wide_weights = _weights(col_knots, np.arange(cols_n) + 0.5).T
    out = []
    for knots, limit in ((row, landscape.shape[0]), (col, landscape.shape[1])):
        full = (tall_weights @ knots) @ wide_weights
        np.clip(full, 0, limit - 1, out=full)
        out.append(full.astype(np.int32))
    return out[0], out[1]


def _apply(affine: Affine, cols: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return affine.a * cols + affine.b * rows + affine.c, affine.d * cols + affine.e * rows + affine.f


def _weights(knots: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Linear interpolation from knots to points, as a matrix."""
    k = np.clip(np.searchsorted(knots, at) - 1, 0, len(knots) - 2)
    t = (at - knots[k]) / (knots[k + 1] - knots[k])
    out = np.zeros((len(at), len(knots)))
    out[np.arange(len(at)), k] = 1 - t
    out[np.arange(len(at)), k + 1] = t
    return out
