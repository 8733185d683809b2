"""How far each pixel's centre is from the boundary of the polygon it belongs to: exactly, and for all polygons at once.

A pixel need not look at all edges of its polygon. Take pixels that lie within r of a point c. Whatever edge is nearest
to one of them is at most 2 r farther from c than the edge nearest to c. So the search starts with tiles as large as the
grid and splits them again and again; each tile passes on to its parts only the edges that can still be the nearest of
some pixel. At 4 x 4 pixels a handful of edges is left, and these are measured from every pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine

# Pixels a side of the smallest tile. Each larger tile has 4 x 4 parts, so that its number takes 4 bits for each size.
_TILE_PX = 4
_BITS = 4
# Pairs of a tile and an edge that are measured at a time, so few that they stay in the processor's cache.
_PAIRS = 1 << 16
_PAIRS_OF_16 = 1 << 12
# Distances are rounded: an edge that is as near as the limit must not be lost to the last digit.
_SLACK = 1 + 1e-9


def distance_m(
    geometries: np.ndarray,
    winner: np.ndarray,
    affine: Affine,
    *,
    metres_per_unit: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """Metres from the centre of each pixel to the nearest point of the boundary of the polygon it belongs to.

    Parameters
    ----------
    geometries
        Polygons and multipolygons in the CRS of the grid, holes count as boundary; or boundaries themselves, as lines.
    winner
        Which of them each pixel (y, x) belongs to, as a position in `geometries`; -1 for none.
    affine
        From (column, row) to coordinates, without rotation.
    metres_per_unit
        Metres in one unit of the CRS along x and along y. On a grid in degrees the two differ.

    Returns
    -------
    ndarray
        float32, (y, x); never negative, NaN where a pixel belongs to no polygon. The polygon that covers most of a
        pixel need not hold its centre: the distance is then that from outside.

        >>> square = np.array([shapely.box(0, 0, 30, 30)])
        >>> distance_m(square, np.zeros((3, 3), int), Affine(10, 0, 0, 0, -10, 30))[1]
        array([ 5., 15.,  5.], dtype=float32)
    """
    flat = winner.ravel()
    pixels = np.flatnonzero(flat >= 0)
    found = np.full(flat.size, np.nan, dtype=np.float32)
    if pixels.size:
        used, owner = np.unique(flat[pixels], return_inverse=True)
        step = (affine.a * metres_per_unit[0], affine.e * metres_per_unit[1])
        edges = _edges(geometries[used], affine, step)
        _Search(edges, *_tiles(pixels, owner, winner.shape, step), step, found).run()
    return found.reshape(winner.shape)


@dataclass(frozen=True)
class _Edges:
    """The straight pieces of all boundaries, polygon after polygon, in metres from the corner of the grid."""

    begin: np.ndarray
    """Where the edges of each polygon begin, and the end of the last."""
    x: np.ndarray
    y: np.ndarray
    dx: np.ndarray
    dy: np.ndarray
    per_length2: np.ndarray
    """1 / length squared; 0 for an edge without length, of which only the first point counts."""

    def distance2(self, edge: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Squared distances from points to edges; `edge` has the shape of the points, or one that broadcasts."""
        dx, dy = self.dx[edge], self.dy[edge]
        # Each array is made once and then changed in place: this is where nearly all the time goes.
        x = x - self.x[edge]
        y = y - self.y[edge]
        along = x * dx
        along += y * dy
        along *= self.per_length2[edge]
        np.clip(along, 0, 1, out=along)
        x -= along * dx
        y -= np.multiply(along, dy, out=along)
        x *= x
        y *= y
        x += y
        return x


def _edges(geometries: np.ndarray, affine: Affine, step: tuple[float, float]) -> _Edges:
    parts, part_of = shapely.get_parts(geometries, return_index=True)
    rings, ring_of = shapely.get_rings(parts, return_index=True)
    if len(drawn := np.flatnonzero(shapely.get_dimensions(parts) == 1)):
        rings, ring_of = np.append(rings, parts[drawn]), np.append(ring_of, drawn)
        order = np.argsort(ring_of, kind="stable")
        rings, ring_of = rings[order], ring_of[order]
    xy, point_of = shapely.get_coordinates(rings, return_index=True)
    # Counted from the corner of the grid, as squares of coordinates of millions of metres would lose digits.
    x = (xy[:, 0] - affine.c) * (step[0] / affine.a)
    y = (xy[:, 1] - affine.f) * (step[1] / affine.e)
    first = np.flatnonzero(point_of[1:] == point_of[:-1])
    owner = part_of[ring_of[point_of[first]]]
    dx, dy = x[first + 1] - x[first], y[first + 1] - y[first]
    length2 = dx * dx + dy * dy
    per_length2 = np.divide(1.0, length2, out=np.zeros_like(length2), where=length2 > 0)
    return _Edges(np.searchsorted(owner, np.arange(len(geometries) + 1)), x[first], y[first], dx, dy, per_length2)


@dataclass(frozen=True)
class _Tiles:
    """All tiles of one size, each for one polygon. Those within one larger tile follow each other."""

    begin: np.ndarray
    """Where the parts of each begin, among the next smaller tiles or at last the pixels; and the end of the last."""
    x: np.ndarray
    y: np.ndarray
    """The middle of the box around its pixels' centres, in metres from the corner of the grid."""
    radius: np.ndarray
    """From there to the corners of that box, in metres."""


@dataclass(frozen=True)
class _Pixels:
    """All pixels that belong to a polygon, in the order in which the smallest tiles hold them."""

    position: np.ndarray
    row: np.ndarray
    column: np.ndarray


def _tiles(
    position: np.ndarray, owner: np.ndarray, shape: tuple[int, ...], step: tuple[float, float]
) -> tuple[np.ndarray, list[_Tiles], _Pixels]:
    """The polygon of each of the largest tiles, the tiles from the smallest to the largest, and the pixels."""
    depth = 0
    while _TILE_PX * 4**depth < max(shape):
        depth += 1
    row, column = np.divmod(position, shape[1])
    tile = _numbers(shape[0], depth)[row] << 2 | _numbers(shape[1], depth)[column]
    # One size more than there is, so that the owner is what remains after the last.
    key = owner << (_BITS * (depth + 1)) | tile
    order = np.argsort(key, kind="stable")
    pixels = _Pixels(position[order], row[order], column[order])
    left, right, top, bottom = pixels.column, pixels.column, pixels.row, pixels.row
    levels: list[_Tiles] = []
    number = key[order]
    while len(levels) <= depth:
        first = np.flatnonzero(np.append(True, number[1:] != number[:-1]))
        left, top = np.minimum.reduceat(left, first), np.minimum.reduceat(top, first)
        right, bottom = np.maximum.reduceat(right, first), np.maximum.reduceat(bottom, first)
        middle = ((left + right + 1) * (step[0] / 2), (top + bottom + 1) * (step[1] / 2))
        radius = np.hypot((right - left) * (step[0] / 2), (bottom - top) * (step[1] / 2))
        levels.append(_Tiles(np.append(first, len(number)), *middle, radius))
        number = number[first] >> _BITS
    return number, levels, pixels


def _numbers(length: int, depth: int) -> np.ndarray:
    """For each row or column the number of its tile: two bits of every four, so that those of the other fit between."""
    tile = np.arange(length) // _TILE_PX
    number = np.zeros(length, dtype=np.int64)
    for level in range(depth):
        number |= (tile >> (2 * level) & 3) << (_BITS * level)
    return number


@dataclass(frozen=True)
class _Search:
    """Goes from the largest tiles down to the pixels, from each size to the next with fewer edges."""

    edges: _Edges
    owner: np.ndarray
    levels: list[_Tiles]
    pixels: _Pixels
    step: tuple[float, float]
    found: np.ndarray

    def run(self) -> None:
        """Fill `found`, beginning with all edges of the polygon that each of the largest tiles belongs to."""
        first = self.edges.begin[self.owner]
        count = self.edges.begin[self.owner + 1] - first
        for some in _chunks(count, _PAIRS):
            tiles = np.arange(some.start, some.stop)
            self._narrow(len(self.levels) - 1, tiles, count[some], _ranges(first[some], count[some]))

    def _narrow(self, level: int, tiles: np.ndarray, count: np.ndarray, edge: np.ndarray) -> None:
        """Go on with those edges of each tile that may be the nearest of one of its pixels."""
        at = self.levels[level]
        begin = np.cumsum(count) - count
        distance = np.sqrt(self.edges.distance2(edge, np.repeat(at.x[tiles], count), np.repeat(at.y[tiles], count)))
        limit = (np.minimum.reduceat(distance, begin) + 2 * at.radius[tiles]) * _SLACK
        near = distance <= np.repeat(limit, count)
        edge, count = edge[near], np.add.reduceat(near, begin, dtype=np.int64)
        begin = np.cumsum(count) - count
        if level == 0:
            for some in _chunks(count, _PAIRS_OF_16):
                self._measure(
                    tiles[some], count[some], edge[begin[some.start] : begin[some.stop - 1] + count[some][-1]]
                )
            return
        parts = at.begin[tiles + 1] - at.begin[tiles]
        part = _ranges(at.begin[tiles], parts)
        begin, count = np.repeat(begin, parts), np.repeat(count, parts)
        for some in _chunks(count, _PAIRS):
            self._narrow(level - 1, part[some], count[some], edge[_ranges(begin[some], count[some])])

    def _measure(self, tiles: np.ndarray, count: np.ndarray, edge: np.ndarray) -> None:
        """From all 16 pixels of each tile to its edges: some are not its own, but a block of 16 is quickly done."""
        at = self.levels[0]
        first = at.begin[tiles]
        members = at.begin[tiles + 1] - first
        mine = _ranges(first, members)
        row, column = self.pixels.row[mine], self.pixels.column[mine]
        top, left = (line[np.cumsum(members) - members] & -_TILE_PX for line in (row, column))
        inside = np.arange(_TILE_PX) + 0.5
        y = np.repeat((top[:, None] + np.repeat(inside, _TILE_PX)) * self.step[1], count, axis=0)
        x = np.repeat((left[:, None] + np.tile(inside, _TILE_PX)) * self.step[0], count, axis=0)
        nearest = np.minimum.reduceat(self.edges.distance2(edge[:, None], x, y), np.cumsum(count) - count, axis=0)
        slot = (row % _TILE_PX) * _TILE_PX + column % _TILE_PX
        self.found[self.pixels.position[mine]] = np.sqrt(nearest[np.repeat(np.arange(len(tiles)), members), slot])


def _chunks(count: np.ndarray, limit: int) -> Iterator[slice]:
    """Runs of items whose counts sum to about `limit`: at most that and one item more."""
    run = np.cumsum(count) // limit
    ends = np.append(np.flatnonzero(run[1:] != run[:-1]) + 1, len(run))
    begin = 0
    for end in ends.tolist():
        yield slice(begin, end)
        begin = end


def _ranges(begin: np.ndarray, count: np.ndarray) -> np.ndarray:
    """All numbers from each `begin` on, `count` of them."""
    ends = np.cumsum(count)
    return np.arange(ends[-1]) + np.repeat(begin - ends + count, count)
