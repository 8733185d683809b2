"""A raster of classes brought onto another grid, block by block, from windows of its file.

Where a label's pixels are as large as the grid's or larger, the label at the centre of a pixel is its class. Where they
are smaller, the class that holds most of the pixel is, by area. On parallel grids (the same CRS, or one that differs
in the order of its axes only) that is exact: the lines of both grids cut the ground into rectangles, each of which lies
in one pixel of either. Otherwise each pixel is looked at in points so dense that every pixel of the label is met by
about sixteen; between its corners, which are transformed exactly, their places are interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyproj
from affine import Affine
from odc.geo.geobox import GeoBox

# Lines of the two grids nearer to each other than this share of a label's pixel are one line.
SNAP_PX = 1e-6
# Pixels of the same nominal size differ this much across projections.
SAME_SIZE = 0.01
# Points along a side of a label's pixel, where the grids are not parallel.
POINTS_A_SIDE = 4
# The golden ratio fills a line most evenly, however many points there will be.
GOLDEN = 0.618033988749895
# Of n such points no straight border has a wrong share on one side by more than this part of 1 / sqrt(n); measured for
# borders in all directions, of 16 to 1,600 points.
POINTS_ERROR = 0.8
# Shares of a pixel nearer to each other than this are a tie.
TIE_SHARE = 1e-9
# How many pixels of the label, or points, are held at a time.
BLOCK_ITEMS = 4_000_000
BLOCK_PX = 512
# For areas by class: as many pixels of a block times classes.
BLOCK_SHARES = 8_000_000


@dataclass(frozen=True)
class Way:
    """From places on the grid, in its pixels, to places on the label, in the label's pixels."""

    grid: GeoBox
    """Where the label is wanted."""
    there: pyproj.Transformer
    """From the grid's CRS to the label's."""
    label: Affine
    """From the label's pixels to its CRS."""
    parallel: bool
    """Columns depend on columns only, and rows on rows."""

    @classmethod
    def between(cls, grid: GeoBox, crs: pyproj.CRS, label: Affine) -> Way:
        """The way from a grid to a raster with this CRS and transform."""
        assert grid.crs is not None
        there = pyproj.Transformer.from_crs(pyproj.CRS(grid.crs.to_wkt()), crs, always_xy=True)
        return cls(grid, there, label, _same_ground(grid, there, label) and not (label.b or label.d))

    def columns(self, at: np.ndarray) -> np.ndarray:
        """Of parallel grids: the label's columns of the grid's."""
        return _snapped((self.grid.affine.a * at + self.grid.affine.c - self.label.c) / self.label.a)

    def rows(self, at: np.ndarray) -> np.ndarray:
        """Of parallel grids: the label's rows of the grid's."""
        return _snapped((self.grid.affine.e * at + self.grid.affine.f - self.label.f) / self.label.e)

    def places(self, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The label's columns and rows at each crossing of the grid's; not finite where there is none."""
        if self.parallel:
            x, y = np.meshgrid(self.columns(columns), self.rows(rows))
            return x, y
        x, y = _applied(self.grid.affine, *np.meshgrid(columns, rows))
        return tuple(map(_snapped, _applied(~self.label, *self.there.transform(x, y))))  # type: ignore[return-value]

    def fineness(self) -> float:
        """How many of the label's pixels lie along the side of a pixel in the middle of the grid."""
        middle = np.array([self.grid.shape.x / 2, self.grid.shape.x / 2 + 1])
        x, y = self.places(middle, np.array([self.grid.shape.y / 2, self.grid.shape.y / 2 + 1]))
        sides = (np.hypot(x[0, 1] - x[0, 0], y[0, 1] - y[0, 0]), np.hypot(x[1, 0] - x[0, 0], y[1, 0] - y[0, 0]))
        longest = float(max(sides))
        return longest if math.isfinite(longest) else 1.0


def _same_ground(grid: GeoBox, there: pyproj.Transformer, label: Affine) -> bool:
    """Whether the transformer leaves every place of the grid where it is."""
    rows, columns = grid.shape
    x, y = _applied(grid.affine, *np.meshgrid(np.linspace(0, columns, 5), np.linspace(0, rows, 5)))
    moved = np.array(there.transform(x, y)) - (x, y)
    return bool(np.nanmax(np.abs(np.where(np.isfinite(moved), moved, np.inf))) < SNAP_PX * abs(label.a))


def _snapped(places: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        whole = np.round(places)
        return np.where(np.abs(places - whole) < SNAP_PX, whole, places)


def _applied(affine: Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(invalid="ignore"):  # a place that is nowhere is infinite
        return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


@dataclass(frozen=True)
class Window:
    """A piece of the label's file, in its pixels: rows and columns from the first up to, not including, the last."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def around(cls, columns: np.ndarray, rows: np.ndarray, shape: tuple[int, int]) -> Window | None:
        """The smallest that holds the places, cut to the file; None where nothing of it is left."""
        known = np.isfinite(columns) & np.isfinite(rows)
        if not known.any():
            return None
        # A centre on the file's last line belongs to no pixel any more, one just before it may be rounded onto it.
        left, right = (max(math.floor(columns[known].min()), 0), min(math.ceil(columns[known].max()) + 1, shape[1]))
        top, bottom = (max(math.floor(rows[known].min()), 0), min(math.ceil(rows[known].max()) + 1, shape[0]))
        return cls(top, bottom, left, right) if left < right and top < bottom else None


Read = Callable[[Window], np.ndarray]
"""Gives the classes in a window, the background where there are none."""


@dataclass(frozen=True)
class Block:
    """A rectangle of the grid."""

    rows: slice
    columns: slice


def blocks(grid: GeoBox, fineness: float, n_classes: int) -> list[Block]:
    """The grid in rectangles that each need a bounded piece of the label."""
    side = min(BLOCK_PX, math.isqrt(BLOCK_ITEMS) / max(fineness, 1.0), math.sqrt(BLOCK_SHARES / max(n_classes, 1)))
    step = max(int(side), 1)
    height, width = grid.shape
    return [
        Block(slice(row, min(row + step, height)), slice(column, min(column + step, width)))
        for row in range(0, height, step)
        for column in range(0, width, step)
    ]


def nearest(way: Way, block: Block, shape: tuple[int, int], read: Read, background: int) -> np.ndarray:
    """The class at the centre of each pixel of a block."""
    columns = np.arange(block.columns.start, block.columns.stop) + 0.5
    rows = np.arange(block.rows.start, block.rows.stop) + 0.5
    x, y = way.places(columns, rows)
    window = Window.around(x, y, shape)
    if window is None:
        return np.full(x.shape, background, dtype="int32")
    return _looked_up(read(window), window, x, y, background)


def _looked_up(classes: np.ndarray, window: Window, x: np.ndarray, y: np.ndarray, background: int) -> np.ndarray:
    inside = (x >= window.left) & (x < window.right) & (y >= window.top) & (y < window.bottom)
    column = np.floor(np.where(inside, x, window.left)).astype("int64") - window.left
    row = np.floor(np.where(inside, y, window.top)).astype("int64") - window.top
    return np.where(inside, classes[row, column], background)


def majority(
    way: Way, block: Block, shape: tuple[int, int], read: Read, background: int, fineness: float
) -> tuple[np.ndarray, np.ndarray]:
    """The class that holds most of each pixel of a block, and its share.

    What has no class counts as background; that loses ties, and among classes the smallest code wins them.
    """
    columns = np.arange(block.columns.start, block.columns.stop + 1, dtype="float64")
    rows = np.arange(block.rows.start, block.rows.stop + 1, dtype="float64")
    x, y = way.places(columns, rows)
    size = (len(rows) - 1, len(columns) - 1)
    window = Window.around(x, y, shape)
    if window is None:
        return np.full(size, background, dtype="int32"), np.zeros(size, dtype="float32")
    classes = read(window)
    present = np.unique(classes)
    codes = np.append(present[present != background], background)
    # What lies outside of the file is background too, and background is the last of the codes.
    index = np.searchsorted(codes[:-1], classes)
    index[classes == background] = len(codes) - 1
    index = np.pad(index, 1, constant_values=len(codes) - 1)
    claimed = np.zeros(size[0] * size[1] * len(codes))
    pieces = _rectangles(way, columns, rows) if way.parallel else _points(x, y, fineness)
    for pixel, column, row, share in pieces:
        at_row = np.clip(row - window.top + 1, 0, index.shape[0] - 1)
        at_column = np.clip(column - window.left + 1, 0, index.shape[1] - 1)
        share_of = (pixel * len(codes) + index[at_row, at_column]).ravel()
        if way.parallel:  # many pieces of one pixel may hold one class
            claimed += np.bincount(share_of, weights=share.ravel(), minlength=claimed.size)
        else:
            claimed[share_of] += share.ravel()
    shares = claimed.reshape(-1, len(codes))
    most = shares.max(axis=1, keepdims=True)
    winner = np.argmax(shares >= most - TIE_SHARE, axis=1)
    share = np.where(codes[winner] == background, 0.0, shares[np.arange(len(winner)), winner])
    return codes[winner].astype("int32").reshape(size), np.minimum(share, 1).astype("float32").reshape(size)


def share_error(way: Way, fineness: float) -> float:
    """How wrong the share of a class may be in a pixel that one straight border crosses; 0 where shares are exact."""
    return 0.0 if way.parallel else POINTS_ERROR / math.sqrt(_count(fineness))


def _count(fineness: float) -> int:
    """How many points a pixel is looked at in."""
    return math.ceil(POINTS_A_SIDE * max(fineness, 1.0)) ** 2


Pieces = Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
"""Pieces of ground: the pixel of the block each lies in, the label's column and row, and the share of the pixel."""


def _rectangles(way: Way, columns: np.ndarray, rows: np.ndarray) -> Pieces:
    x_pixel, x_label, x_share = _segments(way.columns(columns))
    y_pixel, y_label, y_share = _segments(way.rows(rows))
    width = len(columns) - 1
    pixel = y_pixel[:, None] * width + x_pixel
    column, row = np.broadcast_arrays(x_label, y_label[:, None])
    yield pixel, column, row, y_share[:, None] * x_share


def _segments(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pieces into which lines at whole numbers cut the pixels between edges: pixel, whole number, share."""
    backwards = edges[-1] < edges[0]
    rising = edges[::-1] if backwards else edges
    lines = np.arange(math.ceil(rising[0]), math.floor(rising[-1]) + 1, dtype="float64")
    cuts = np.unique(np.concatenate([rising, lines]))
    middle = (cuts[1:] + cuts[:-1]) / 2
    pixel = np.searchsorted(rising, middle) - 1
    share = np.diff(cuts) / np.diff(rising)[pixel]
    if backwards:
        pixel = len(edges) - 2 - pixel
    return pixel, np.floor(middle).astype("int64"), share


def _points(x: np.ndarray, y: np.ndarray, fineness: float) -> Pieces:
    """Points in each pixel, evenly spread between its four corners.

    Not in rows and columns: an edge along the pixel's side would pass or miss a whole row of them at once. In this
    lattice no two points share a row or column, and the share on either side of an edge is right within a few points.
    """
    n = _count(fineness)
    pixel = np.arange((x.shape[0] - 1) * (x.shape[1] - 1)).reshape(x.shape[0] - 1, x.shape[1] - 1)
    share = np.full(pixel.shape, 1 / n)
    for step in range(n):
        down, right = (step + 0.5) / n, (0.5 + step * GOLDEN) % 1.0
        weights = ((1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right)
        column, row = (
            sum(w * c for w, c in zip(weights, (at[:-1, :-1], at[:-1, 1:], at[1:, :-1], at[1:, 1:]), strict=True))
            for at in (x, y)
        )
        known = np.isfinite(column) & np.isfinite(row)
        # A place that is nowhere on the label is outside of its file, which the padding of -1 stands for.
        yield (
            pixel,
            np.floor(np.where(known, column, -1)).astype("int64"),
            np.floor(np.where(known, row, -1)).astype("int64"),
            share,
        )
