"""How much of each pixel is claimed more than once, from the polygons themselves.

The shares of a pixel that polygons cover cannot tell: two of 0.5 may lie side by side or on top of each other. So the
polygons are laid over each other, each on those before it:

    repeated(A)  =  for each polygon, the part that one before it covers already

The ground that all cover is then the sum of their shares less the sum of these parts. The parts together are the ground
that is claimed more than once; where three polygons meet, the parts overlap in their turn, and the same rule counts
that ground once. Each step only joins a polygon with its neighbours, never a whole region.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import shapely
from affine import Affine

from .coverage import claims

# Shares nearer to 0 or 1 than this come from rounding: two parcels share a border, and a corner of one lies on an edge
# of the other. Of a pixel of 10 m it is a square millimetre.
_ROUNDING = 1e-8
# Neighbours are laid over each other this many pairs at a time, which bounds the memory.
_PAIRS = 100_000


def overlap_share(geometries: np.ndarray, affine: Affine, shape: tuple[int, int]) -> np.ndarray:
    """The share of each pixel that two or more polygons claim, however many they are.

    Parameters
    ----------
    geometries
        Valid polygons and multipolygons in the CRS of the grid.
    affine
        From (column, row) to coordinates, without rotation.
    shape
        Rows and columns of the grid.

    Returns
    -------
    ndarray
        float32, (y, x), from 0 to 1; polygons that only share a border give exactly 0.

        >>> field = shapely.box(0, 0, 30, 10)
        >>> twice = np.array([field, shapely.box(25, 0, 40, 10), field])
        >>> overlap_share(twice, Affine(10, 0, 0, 0, -10, 10), (1, 4))
        array([[1., 1., 1., 0.]], dtype=float32)
    """
    return covered_share(repeated(geometries, _bounds(affine, shape)), affine, shape).astype(np.float32)


def covered_share(geometries: np.ndarray, affine: Affine, shape: tuple[int, int]) -> np.ndarray:
    """The share of each pixel that any of the polygons covers, ground under several of them counted once; float64.

    >>> halves = np.array([shapely.box(0, 0, 5, 10), shapely.box(4, 0, 6, 10)])
    >>> covered_share(halves, Affine(10, 0, 0, 0, -10, 10), (1, 1))
    array([[0.6]])
    """
    share = _sum(geometries, affine, shape)
    if (share > 0).any():
        share -= _sum(repeated(geometries, _bounds(affine, shape)), affine, shape)
    # A corner that lies on a neighbour's edge is off by the last digit of its coordinates, over the width of a pixel.
    digit = np.spacing(np.abs(_bounds(affine, shape)).max()) / min(abs(affine.a), abs(affine.e))
    rounding = max(_ROUNDING, 4 * digit)
    share[share < rounding] = 0
    share[share > 1 - rounding] = 1
    return share


def repeated(geometries: np.ndarray, bounds: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """For each polygon the part that one before it covers already, where there is such a part: polygons only.

    `bounds` (left, bottom, right, top) leaves out neighbours that only meet outside of them.

    >>> repeated(np.array([shapely.box(0, 0, 2, 1), shapely.box(1, 0, 3, 1), shapely.box(3, 0, 4, 1)]))[0].bounds
    (1.0, 0.0, 2.0, 1.0)
    """
    # Of one shape given many times over, every pair would be laid on top of each other.
    again = pd.Series(shapely.to_wkb(geometries), dtype=object).duplicated().to_numpy()
    single = geometries[~again]
    later, earlier = _neighbours(single, bounds)
    common = np.empty(0, dtype=object)
    owner = np.empty(0, dtype=np.int64)
    for begin in range(0, len(later), _PAIRS):
        some = slice(begin, begin + _PAIRS)
        parts, of = polygons_in(_common(single[later[some]], single[earlier[some]]))
        common, owner = np.append(common, parts), np.append(owner, later[some][of])
    shapely.destroy_prepared(single)
    return np.concatenate([geometries[again], _joined(common, owner)])


def _neighbours(
    geometries: np.ndarray, bounds: tuple[float, float, float, float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of polygons that share ground, the later one first; sorted."""
    later, earlier = shapely.STRtree(geometries).query(geometries)
    keep = later > earlier
    if bounds is not None:
        box = shapely.bounds(geometries)
        left, bottom = (np.maximum(box[later, side], box[earlier, side]) for side in (0, 1))
        right, top = (np.minimum(box[later, side], box[earlier, side]) for side in (2, 3))
        keep &= (left < bounds[2]) & (right > bounds[0]) & (bottom < bounds[3]) & (top > bounds[1])
    later, earlier = later[keep], earlier[keep]
    order = np.lexsort((earlier, later))
    later, earlier = later[order], earlier[order]
    # Most neighbours only share a border, and to find that out is cheaper than to lay them over each other, above all
    # if the one with more points is the one that is prepared for many questions.
    shapely.prepare(geometries)
    points = shapely.get_num_coordinates(geometries)
    swap = points[later] < points[earlier]
    large, small = np.where(swap, earlier, later), np.where(swap, later, earlier)
    meet = shapely.relate_pattern(geometries[large], geometries[small], "T********")
    return later[meet], earlier[meet]


def _common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What two polygons share; one that lies inside the other is itself what they share."""
    in_a, in_b = shapely.contains_properly(a, b), shapely.contains_properly(b, a)
    found = np.where(in_a, b, a)
    cross = ~(in_a | in_b)
    found[cross] = shapely.intersection(a[cross], b[cross])
    return found


def polygons_in(geometries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The single polygons inside, without the lines and points where borders touch, and which geometry each is from.

    >>> mixed = shapely.GeometryCollection([shapely.Point(0, 0), shapely.MultiPolygon([shapely.box(0, 0, 1, 1)])])
    >>> polygons_in(np.array([None, mixed]))[1]
    array([1])
    """
    parts, of = shapely.get_parts(geometries, return_index=True)
    inner, of_part = shapely.get_parts(parts, return_index=True)
    is_polygon = (shapely.get_type_id(inner) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(inner)
    return inner[is_polygon], of[of_part[is_polygon]]


def _joined(parts: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """The parts of each owner as one geometry; `owner` is sorted."""
    first = np.flatnonzero(np.append(True, owner[1:] != owner[:-1])) if len(owner) else owner
    count = np.diff(np.append(first, len(owner)))
    alone = first[count == 1]
    groups = [
        shapely.union_all(parts[begin : begin + n]) for begin, n in zip(first[count > 1], count[count > 1], strict=True)
    ]
    joined = np.empty(len(groups), dtype=object)
    joined[:] = groups
    return np.concatenate([parts[alone], polygons_in(joined)[0]])


def _sum(geometries: np.ndarray, affine: Affine, shape: tuple[int, int]) -> np.ndarray:
    if len(geometries) == 0:
        return np.zeros(shape)
    found = claims(geometries, affine, shape)
    return np.bincount(found.cell, weights=found.share, minlength=shape[0] * shape[1]).reshape(shape)


def _bounds(affine: Affine, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    x, y = sorted((affine.c, affine.c + affine.a * shape[1])), sorted((affine.f, affine.f + affine.e * shape[0]))
    return x[0], y[0], x[1], y[1]
