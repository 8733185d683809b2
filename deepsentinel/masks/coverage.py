"""Which polygon covers which share of which pixel, exactly, for many polygons at once.

This is how fonts are drawn. Each edge is cut where it crosses the lines between pixels. A piece then lies in one pixel,
and all the ground to its right within its row changes hands: whole heights in the pixels further right, and in its own
pixel what is right of it. So two numbers are summed up for each pixel of a polygon, the heights of its pieces (`cover`)
and the part of these left of the pieces (`part`); the running sum of the heights along a row, less the part, is the
share of each pixel that lies inside. Holes run the other way round and take away what they enclose.

Heights are rounded to a binary fraction of a pixel (`STEP`), so that their sums are exact: they return to nought at the
end of each row, a pixel inside has exactly 1, the shares of two polygons along a common edge add up to what they
should, and no polygon's share depends on which others are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine

from deepsentinel.errors import InputError

__all__ = ["TOUCH", "Claims", "claims"]

# Shares below this are a touch and no claim, and those this close to 1 are the whole pixel: coordinates in metres that
# count millions come in steps of a tenth of this share of a 10 m pixel.
TOUCH = 1e-9
# 2^-34 of a pixel: 6e-11, and sums of heights are exact up to half a million pixels.
STEP = 2.0**-34
# Pixels that are looked at together. Few enough to stay near the processor, many enough to keep NumPy busy.
CHUNK_PIXELS = 400_000


@dataclass(frozen=True)
class Claims:
    """Who covers what: one entry for each polygon and pixel that share ground, sorted by polygon, then pixel."""

    polygon: np.ndarray
    """int32, position in the given geometries."""
    cell: np.ndarray
    """int64, row * width + column within the given shape."""
    share: np.ndarray
    """float64, the share of the pixel that the polygon covers, in (0, 1]."""
    centre: np.ndarray | None
    """bool, whether the middle of the pixel is inside; None unless asked for. A middle that lies on an edge belongs to
    the polygon on its west, or on its south for an edge along the row: to exactly one of two that abut."""


def claims(
    geometries: np.ndarray,
    affine: Affine,
    shape: tuple[int, int],
    *,
    centre: bool = False,
    origin: tuple[int, int] = (0, 0),
) -> Claims:
    """Every pixel that every polygon covers a share of.

    `geometries` are valid polygons and multipolygons in the CRS of the grid; `affine` and `shape` (rows, columns) are
    the grid's, without rotation. With `origin`, `shape` is that of a block whose first row and column these are.

        >>> half = shapely.box(0, 0, 15, 10)
        >>> claims(np.array([half]), Affine(10, 0, 0, 0, -10, 10), (1, 2)).share.tolist()
        [1.0, 0.5]
    """
    geometries = np.asarray(geometries, dtype=object)
    found = [
        _claims_of(geometries[start:stop], start, affine, shape, origin, centre)
        for start, stop in _chunks(geometries, affine, shape, origin)
    ]
    if not found:
        nothing = np.empty(0, dtype=bool) if centre else None
        return Claims(np.empty(0, "int32"), np.empty(0, "int64"), np.empty(0), nothing)
    polygon, cell, share, inside = (list(column) for column in zip(*found, strict=True))
    return Claims(
        np.concatenate(polygon), np.concatenate(cell), np.concatenate(share), np.concatenate(inside) if centre else None
    )


def _chunks(
    geometries: np.ndarray, affine: Affine, shape: tuple[int, int], origin: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    if affine.b or affine.d:
        raise InputError("The grid is rotated; coverage is counted on grids whose rows run along an axis.")
    if not len(geometries):
        return
    rows, columns = shape
    bounds = shapely.bounds(geometries)
    x = (bounds[:, [0, 2]] - affine.c) / affine.a - origin[1]
    y = (bounds[:, [1, 3]] - affine.f) / affine.e - origin[0]
    wide, high = (np.ptp(np.clip(edges, 0, size), axis=1) + 1 for edges, size in ((x, columns), (y, rows)))
    # An empty polygon has no bounds, and no pixels.
    total = np.cumsum(np.nan_to_num(wide * high) + 1)
    start = 0
    while start < len(geometries):
        done = total[start - 1] if start else 0
        stop = max(int(np.searchsorted(total, done + CHUNK_PIXELS, side="right")), start + 1)
        yield start, stop
        start = stop


@dataclass(frozen=True)
class _Edges:
    """Edges from their upper end (smaller y) to their lower one, in pixels from the corner of the block."""

    polygon: np.ndarray
    x0: np.ndarray
    y0: np.ndarray
    x1: np.ndarray
    y1: np.ndarray
    sign: np.ndarray
    """+1 where the polygon lies right of the edge, -1 where it lies left of it."""

    def at(self, where: np.ndarray) -> _Edges:
        return _Edges(*(getattr(self, name)[where] for name in self.__dataclass_fields__))


def _edges(geometries: np.ndarray, affine: Affine, origin: tuple[int, int]) -> _Edges:
    kind, points, offsets = shapely.to_ragged_array(geometries)
    if kind not in (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON):
        raise InputError(f"Coverage is counted of polygons, and these are {kind.name.lower()}s; buffer them first.")
    rings, polygons = offsets[0], offsets[1]
    of_ring = np.repeat(np.arange(len(polygons) - 1), np.diff(polygons))
    if len(offsets) == 3:
        of_ring = np.repeat(np.arange(len(offsets[2]) - 1), np.diff(offsets[2]))[of_ring]
    hole = np.ones(len(rings) - 1, dtype=bool)
    first = polygons[:-1][np.diff(polygons) > 0]
    hole[first] = False
    x = (points[:, 0] - affine.c) / affine.a - origin[1]
    y = np.rint(((points[:, 1] - affine.f) / affine.e - origin[0]) / STEP) * STEP
    ring = np.repeat(np.arange(len(rings) - 1), np.diff(rings))
    edge = np.ones(len(x), dtype=bool)
    edge[rings[1:] - 1] = False
    at = np.flatnonzero(edge)
    ring = ring[at]
    x0, y0, x1, y1 = x[at], y[at], x[at + 1], y[at + 1]
    # Which way round a ring runs; seen from its first corner, so that large coordinates do not eat the digits.
    from_x, from_y = x[rings[:-1]][ring], y[rings[:-1]][ring]
    twice = np.bincount(ring, (x0 - from_x) * (y1 - from_y) - (x1 - from_x) * (y0 - from_y), minlength=len(rings) - 1)
    turn = np.where((twice > 0) == hole, 1.0, -1.0)
    up = y0 > y1
    return _Edges(
        of_ring[ring],
        np.where(up, x1, x0),
        np.where(up, y1, y0),
        np.where(up, x0, x1),
        np.where(up, y0, y1),
        np.where(up, -turn[ring], turn[ring]),
    )


def _spread(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """0 0 0 1 1 2 .. for counts 3 2 1 .., and 0 1 2 0 1 0 .. beside it."""
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)


def _claims_of(
    geometries: np.ndarray, start: int, affine: Affine, shape: tuple[int, int], origin: tuple[int, int], centre: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    rows, columns = shape
    edges = _edges(geometries, affine, origin)
    edges = edges.at((edges.y1 > edges.y0) & (edges.y1 > 0) & (edges.y0 < rows))

    # Cut at the lines between rows: one piece for each row that an edge passes.
    top, bottom = np.maximum(edges.y0, 0.0), np.minimum(edges.y1, float(rows))
    first_row = np.floor(top).astype("int64")
    count = np.ceil(bottom).astype("int64") - first_row
    which, nth = _spread(count)
    row = first_row[which] + nth
    ya, yb = np.maximum(top[which], row), np.minimum(bottom[which], row + 1.0)
    slope = (edges.x1 - edges.x0) / (edges.y1 - edges.y0)
    x0, y0, slope, sign = edges.x0[which], edges.y0[which], slope[which], edges.sign[which]
    xa, xb = x0 + (ya - y0) * slope, x0 + (yb - y0) * slope

    # One run of pixels for each row of each polygon, from the leftmost piece to the rightmost, and one more pixel for
    # whatever lies further right and concerns nobody.
    own = np.full(len(geometries), rows, dtype="int64")
    np.minimum.at(own, edges.polygon, first_row)
    last = np.full(len(geometries), -1, dtype="int64")
    np.maximum.at(last, edges.polygon, first_row + count - 1)
    held = np.maximum(last - own + 1, 0)
    base = np.cumsum(held) - held
    run = (base - own)[edges.polygon][which] + row
    run_polygon, run_row = _spread(held)
    run_row += own[run_polygon]
    left, right = np.minimum(xa, xb), np.maximum(xa, xb)
    # -1 is all that lies left of the block, and `columns` all right of it.
    c0 = np.floor(np.clip(left, -1.0, columns)).astype("int64")
    c1 = np.maximum(np.ceil(np.clip(right, -1.0, columns + 1.0)).astype("int64") - 1, c0)
    run_c0 = np.full(len(run_row), columns, dtype="int64")
    np.minimum.at(run_c0, run, c0)
    np.maximum(run_c0, 0, out=run_c0)
    run_c1 = np.full(len(run_row), -1, dtype="int64")
    np.maximum.at(run_c1, run, c1)
    np.minimum(run_c1, columns - 1, out=run_c1)
    width = np.maximum(run_c1 - run_c0 + 1, 0)
    begin = np.cumsum(width + 1) - (width + 1)
    total = int((width + 1).sum())

    # Cut at the lines between columns, where a piece crosses one.
    several = c1 > c0
    many, nth = _spread((c1 - c0 + 1)[several])
    source = np.flatnonzero(several)[many]
    one = ~several
    height = yb - ya
    column = c0[source] + nth
    lo = np.where(nth == 0, left[source], column)
    hi = np.where(column == c1[source], right[source], column + 1.0)
    # From the left end to the right one; whether that is downwards or upwards makes no difference to a height.
    rate = (height / np.where(several, right - left, 1.0))[source]
    at_lo, at_hi = (np.rint((x - left[source]) * rate / STEP) * STEP for x in (lo, hi))
    at_hi = np.where(column == c1[source], height[source], at_hi)
    piece_run = np.concatenate([run[one], run[source]])
    piece_column = np.concatenate([c0[one], column])
    cover = np.concatenate([(height * sign)[one], (at_hi - at_lo) * sign[source]])
    middle = np.concatenate([((left + right) / 2)[one], (lo + hi) / 2]) - piece_column
    out = (piece_column < 0) | (piece_column >= columns)
    middle[out] = 0.0
    place = begin[piece_run] + np.clip(piece_column - run_c0[piece_run], 0, width[piece_run])
    heights = np.bincount(place, cover, minlength=total)
    share = np.cumsum(heights) - np.bincount(place, cover * middle, minlength=total)

    hit = np.flatnonzero(share > TOUCH)
    share = share[hit]
    share[share > 1 - TOUCH] = 1.0
    hits = np.diff(np.searchsorted(hit, np.append(begin, total)))
    cell = hit + np.repeat(run_row * columns + run_c0 - begin, hits)
    polygon = np.repeat((run_polygon + start).astype("int32"), hits)
    if not centre:
        return polygon, cell, share, None

    # The same along the line through the middles of a row: each crossing turns inside to outside, from there on.
    crossing = (edges.y0[which] <= row + 0.5) & (row + 0.5 < edges.y1[which])
    x = x0[crossing] + (row[crossing] + 0.5 - y0[crossing]) * slope[crossing]
    of = run[crossing]
    from_column = np.floor(np.clip(x, -1.0, columns + 1.0) + 0.5).astype("int64")
    place = begin[of] + np.clip(from_column - run_c0[of], 0, width[of])
    turns = np.cumsum(np.bincount(place, sign[crossing], minlength=total))
    return polygon, cell, share, turns[hit] > 0.5
