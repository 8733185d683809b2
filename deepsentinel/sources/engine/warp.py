"""Where the pixels of a grid lie in a file, and how they get from one to the other.

Most reads need no resampling at all: grids are snapped to the lattice the products are delivered on. So the first
question is always whether a grid's pixels are the file's pixels (or lie inside them: 20 m and 60 m bands on a 10 m
grid), and then rows and columns are looked up by number and values are copied, exactly. Everything else goes through
GDAL's warper, from the smallest window of the file that can matter, filled from decoded blocks.

Nothing here opens a file: `plan` says which rows and columns of a lattice a grid needs, `Target.put` takes decoded
rectangles in any order, and `Target.result` is the array on the grid.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import reproject, transform

from deepsentinel.errors import InputError

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

# rasterio wraps arrays in a file without a transform and silences its own warning of that for a moment, but not safely
# where several threads warp at once.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.warp")

# Offsets below this share of a pixel are rounding in somebody's geotransform, not a shift.
ALIGNED_PX = 1e-3
# How many source pixels each kernel reaches to each side, at equal resolution.
REACH_PX = {"nearest": 1, "bilinear": 1, "cubic": 2, "average": 1}


@dataclass(frozen=True)
class Lattice:
    """Where the pixels of a file (or of one of its overviews) lie."""

    crs_wkt: str
    """As text, because text compares and hashes fast."""
    transform: Affine
    """From pixel (column, row) to map coordinates, corner based."""
    shape: tuple[int, int]
    """Rows and columns."""


# affine 3 wants `@` where affine 2 has only `*`; written out, both will do.
def apply(affine: Affine, x: Any, y: Any) -> tuple[Any, Any]:
    """Where an affine takes points (numbers or arrays).

    >>> apply(Affine.translation(1, 2), 10, 20)
    (11.0, 22.0)
    """
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def compose(last: Affine, first: Affine) -> Affine:
    """The affine that does `first`, then `last`.

    >>> compose(Affine.scale(2), Affine.translation(1, 2)).c
    2.0
    """
    (c, f), (a, d), (b, e) = (apply(last, *p) for p in ((first.c, first.f), (first.a, first.d), (first.b, first.e)))
    return Affine(a - last.c, b - last.c, c, d - last.f, e - last.f, f)


@dataclass(frozen=True)
class Axis:
    """For consecutive pixels of an output, from `start` on, the row (or column) of the file each is taken from."""

    start: int
    index: np.ndarray
    """Monotone, all inside the file."""
    unit: bool
    """Steps by exactly one: a slice will do."""

    def overlap(self, first: int, stop: int) -> tuple[int, int]:
        """The range of positions in `index` that is served by file rows `first` to `stop`."""
        index = self.index
        if not len(index):
            return 0, 0
        if self.unit:
            return max(0, first - int(index[0])), min(len(index), stop - int(index[0]))
        if index[0] <= index[-1]:
            return int(np.searchsorted(index, first)), int(np.searchsorted(index, stop))
        down = index[::-1]
        return len(index) - int(np.searchsorted(down, stop)), len(index) - int(np.searchsorted(down, first))

    def blocks(self, size: int) -> list[int]:
        """The numbers of the blocks, `size` rows each, that hold any row of `index`."""
        if not len(self.index):
            return []
        low, high = sorted((int(self.index[0]), int(self.index[-1])))
        if self.unit or size >= high - low:  # no block between the ends can be skipped, or there is none between
            return list(range(low // size, high // size + 1))
        return [int(number) for number in np.unique(self.index // size)]


def axis_of(origin: float, step: float, count: int, length: int) -> Axis:
    """The axis of `count` output pixels whose first starts at `origin` file pixels and which are `step` wide each."""
    # The nudge puts centres that fall between two pixels on the same side whatever the rounding.
    index = np.floor(origin + step * (np.arange(count) + 0.5) + 1e-6).astype(np.int64)
    inside = np.flatnonzero((index >= 0) & (index < length))
    if not len(inside):
        return Axis(0, index[:0], True)
    index = index[inside[0] : inside[-1] + 1]
    return Axis(int(inside[0]), index, bool(index[-1] - index[0] == len(index) - 1))


@lru_cache(maxsize=256)
def crs_of(wkt: str) -> CRS:
    """A CRS from its text, parsed once."""
    return CRS.from_user_input(wkt)


@lru_cache(maxsize=256)
def same_crs(one: str, other: str) -> bool:
    """Whether two CRS texts mean the same place on Earth for the same numbers."""
    if one == other:
        return True
    first, second = crs_of(one), crs_of(other)
    return bool(first == second) or (first.to_epsg() is not None and first.to_epsg() == second.to_epsg())


def grid_crs(grid: GeoBox) -> str:
    """The text of a grid's CRS."""
    if grid.crs is None:
        raise InputError(f"The grid {grid.shape} has no CRS, so it lies nowhere. Make it with deepsentinel.geobox().")
    return str(grid.crs)


@dataclass(frozen=True)
class Placement:
    """What a grid needs of a lattice."""

    rows: Axis
    cols: Axis
    window: tuple[int, int, int, int] | None
    """None where rows and columns are copied; else the rows and columns (row, stop, column, stop) to warp from."""
    pixel: tuple[float, float] = (1.0, 1.0)
    """How wide and how high a pixel of the grid is, in file pixels."""


def scale_px(grid: GeoBox, lattice: Lattice) -> float:
    """How many file pixels fit across one pixel of the grid, about; 0 where the grid has no place in the file's CRS."""
    return math.sqrt(math.prod(_pixel(grid, lattice)))


def place(grid: GeoBox, lattice: Lattice, resampling: str) -> Placement:
    """Which rows and columns of the lattice serve the grid, and whether by copy or by warp."""
    height, width = (int(n) for n in lattice.shape)
    if same_crs(grid_crs(grid), lattice.crs_wkt):
        step = compose(~lattice.transform, grid.affine)
        straight = abs(step.b) * grid.shape[0] < ALIGNED_PX and abs(step.d) * grid.shape[1] < ALIGNED_PX
        if straight and (resampling == "nearest" or _shares_pixels(step, *grid.shape)):
            rows = axis_of(step.f, step.e, int(grid.shape[0]), height)
            return Placement(rows, axis_of(step.c, step.a, int(grid.shape[1]), width), None)
    low_x, low_y, high_x, high_y = _reach(grid, lattice)
    if not math.isfinite(low_x):
        empty = Axis(0, np.empty(0, np.int64), True)
        return Placement(empty, empty, (0, 0, 0, 0))
    pixel = _pixel(grid, lattice)
    # The kernel widens when it shrinks an image; the grid's outline is sampled, so a little is added for its curve.
    margin = 2 + REACH_PX[resampling] * math.ceil(max(1.0, *pixel)) + 0.01 * max(high_x - low_x, high_y - low_y)
    top, bottom = (int(min(max(edge, 0), height)) for edge in (low_y - margin, math.ceil(high_y + margin)))
    left, right = (int(min(max(edge, 0), width)) for edge in (low_x - margin, math.ceil(high_x + margin)))
    rows = Axis(0, np.arange(top, bottom), True)
    return Placement(rows, Axis(0, np.arange(left, right), True), (top, bottom, left, right), pixel)


def _shares_pixels(step: Affine, rows: int, cols: int) -> bool:
    """Whether pixels coincide one to one (possibly mirrored), over the whole grid."""
    off = max(abs(step.c - round(step.c)), abs(step.f - round(step.f)))
    stretch = max(abs(abs(step.a) - 1) * cols, abs(abs(step.e) - 1) * rows)
    return max(off, stretch) < ALIGNED_PX * 10


def _in_file(grid: GeoBox, lattice: Lattice, cols: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points of the grid (in its pixels) lie in the file (in its); infinite where they have no place there."""
    x, y = apply(grid.affine, cols, rows)
    if not same_crs(grid_crs(grid), lattice.crs_wkt):
        x, y = (np.asarray(v) for v in transform(crs_of(grid_crs(grid)), crs_of(lattice.crs_wkt), x, y))
    col, row = apply(~lattice.transform, x, y)
    return col, row


def _reach(grid: GeoBox, lattice: Lattice) -> tuple[float, float, float, float]:
    """The box (in file pixels: left, top, right, bottom) that holds the grid; infinite where it has no place there."""
    # The inside is sampled as well as the outline: a pole lies inside.
    down, across = np.meshgrid(np.linspace(0, grid.shape[0], 22), np.linspace(0, grid.shape[1], 22), indexing="ij")
    col, row = _in_file(grid, lattice, across.ravel(), down.ravel())
    known = np.isfinite(col) & np.isfinite(row)
    if not known.any():
        return (math.inf,) * 4
    col, row = col[known], row[known]
    return float(col.min()), float(row.min()), float(col.max()), float(row.max())


def _pixel(grid: GeoBox, lattice: Lattice) -> tuple[float, float]:
    """Width and height, in file pixels, of the grid's middle pixel; 0 where it has no place there."""
    middle_row, middle_col = grid.shape[0] / 2, grid.shape[1] / 2
    col, row = _in_file(grid, lattice, middle_col + np.array([0.0, 1.0, 0.0]), middle_row + np.array([0.0, 0.0, 1.0]))
    # A grid that is turned against the file covers |cos| + |sin| of a step, which is not what a kernel must widen by.
    width, height = math.hypot(col[1] - col[0], col[2] - col[0]), math.hypot(row[1] - row[0], row[2] - row[0])
    return (width, height) if math.isfinite(width + height) else (0.0, 0.0)


def fill_value(nodata: float | None, dtype: np.dtype) -> float:
    """The value of pixels that are not there."""
    if nodata is None:
        return math.nan if dtype.kind == "f" else 0
    if not holds(dtype, nodata):
        raise InputError(f"nodata={nodata} cannot be stored in {dtype} pixels; give one between its limits, or None.")
    return nodata


def holds(dtype: np.dtype, value: float) -> bool:
    """Whether a type of pixel can hold a value.

    >>> holds(np.dtype("uint16"), -1.0), holds(np.dtype("float32"), math.nan)
    (False, True)
    """
    if dtype.kind not in "iu":
        return True
    limits = np.iinfo(dtype)
    return math.isfinite(value) and value == int(value) and limits.min <= value <= limits.max


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


class Target:
    """One array on its way: takes decoded rectangles in any order and ends as the pixels on the grid."""

    def __init__(
        self,
        grid: GeoBox,
        lattice: Lattice,
        placement: Placement,
        *,
        dtype: np.dtype,
        nodata: float | None,
        resampling: str,
        domain: str | None,
        fill: float | None = None,
    ) -> None:
        if fill is not None and not holds(dtype, fill):
            fill = None
        if nodata is None:
            nodata = fill
        self.grid, self.lattice, self.placement = grid, lattice, placement
        self.nodata, self.resampling, self.domain = nodata, resampling, domain
        self.fill = fill_value(nodata, dtype)
        # How missing pixels leave, where that differs from how they came.
        self.final = None if fill is None or _same(fill, self.fill) else fill
        # What must be put before the result is whole; its owner counts it down.
        self.missing = 0
        rows, cols = placement.rows, placement.cols
        self.rows, self.cols = rows, cols
        if placement.window is None:
            shape: tuple[int, ...] = (int(grid.shape[0]), int(grid.shape[1]))
            whole = len(rows.index) == shape[0] and len(cols.index) == shape[1]
        else:
            shape, whole = (len(rows.index), len(cols.index)), True
        # Every pixel of a buffer that lies wholly inside the file is going to be written.
        self.buffer = np.empty(shape, dtype) if whole else np.full(shape, self.fill, dtype)

    def put(self, pixels: np.ndarray, row: int, col: int) -> None:
        """Take what is ours of a rectangle of the file whose top left pixel is (row, col)."""
        first, stop = self.rows.overlap(row, row + pixels.shape[0])
        left, right = self.cols.overlap(col, col + pixels.shape[1])
        if first >= stop or left >= right:
            return
        down, across = self.rows.index[first:stop] - row, self.cols.index[left:right] - col
        part = pixels[int(down[0]) : int(down[-1]) + 1] if self.rows.unit else pixels.take(down, axis=0)
        part = part[:, int(across[0]) : int(across[-1]) + 1] if self.cols.unit else part.take(across, axis=1)
        top, side = self.rows.start, self.cols.start
        self.buffer[top + first : top + stop, side + left : side + right] = part

    def result(self) -> np.ndarray:
        """The pixels on the grid, once every rectangle was put."""
        pixels = self._pixels()
        if self.final is not None:
            pixels[np.isnan(pixels) if math.isnan(self.fill) else pixels == self.fill] = self.final
        return pixels

    def _pixels(self) -> np.ndarray:
        window = self.placement.window
        if window is None:
            return self.buffer
        if not self.buffer.size:
            return np.full(self.grid.shape, self.fill, self.buffer.dtype)
        origin = compose(self.lattice.transform, Affine.translation(window[2], window[0]))
        return _warp(self, origin)


def _warp(target: Target, origin: Affine) -> np.ndarray:
    """GDAL's warper on the buffer, with missing pixels kept out of every average and radar averaged as power."""
    source, fill = target.buffer, target.fill
    dtype = source.dtype
    mixes = target.resampling != "nearest"
    decibels = mixes and target.domain == "db"
    floats = dtype.kind == "f" or decibels
    floor = 0.0
    if floats:
        # NaN is missing wherever the file also says so otherwise: one NaN would spread over a whole kernel.
        source = source.astype(np.float64 if dtype == np.float64 else np.float32)
        if target.nodata is not None and not math.isnan(fill):
            source[target.buffer == dtype.type(fill)] = np.nan
        if decibels:
            source = np.power(10.0, source / 10.0, dtype=source.dtype)
        if mixes and target.domain is not None:
            valid = source[np.isfinite(source)]
            floor = float(valid.min()) if valid.size else 0.0
    missing = math.nan if floats else (fill if target.nodata is not None else None)
    out = np.full(target.grid.shape, fill if missing is None else missing, source.dtype)
    reproject(
        source,
        out,
        src_transform=origin,
        src_crs=crs_of(target.lattice.crs_wkt),
        src_nodata=missing,
        dst_transform=target.grid.affine,
        dst_crs=crs_of(grid_crs(target.grid)),
        dst_nodata=missing,
        resampling=Resampling[target.resampling],
        # Left to itself GDAL takes the ratio of the two windows' sizes for the change of scale, and blurs even where
        # there is none; with another window it blurs otherwise, so patches that overlap would disagree.
        XSCALE=_kernel_scale(target.placement.pixel[0]),
        YSCALE=_kernel_scale(target.placement.pixel[1]),
    )
    if not floats:
        return out
    if mixes and target.domain is not None:
        # A cubic kernel swings below zero beside bright targets, and there is no negative power.
        np.maximum(out, floor, out=out, where=~np.isnan(out))
    if decibels:
        out = 10.0 * np.log10(out)
    if dtype.kind in "iu":
        out = np.rint(out)
    if not math.isnan(fill):
        out[np.isnan(out)] = fill
    return np.asarray(out, dtype)


def _kernel_scale(pixel: float) -> float:
    """GDAL's name for how much smaller the image gets: 1 keeps a kernel sharp, below that it widens."""
    return 1.0 if pixel < 1.05 else 1.0 / pixel
