"""Boundaries brought onto a grid from another CRS, also from far outside of it: what distances are measured to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import shapely

__all__ = ["Transform", "brought_lines"]

Transform = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

# An edge that is far from the grid is followed within this share of how far it is.
FAR_TOLERANCE = 1e-6
# No edge is halved more often than this; what is still not straight has an end without a place on the grid.
MAX_HALVES = 24


def brought_lines(
    lines: np.ndarray,
    forward: Transform,
    bounds: tuple[float, float, float, float],
    pixel: float,
    tolerance_px: float,
) -> np.ndarray:
    """Each boundary on the grid as a multiline of straight edges that follow the curves they are.

    Within the size of the grid from it they follow them by `tolerance_px` pixels, as the shapes themselves do; further
    away by a millionth of how far that is. Edges with an end that has no place on the grid are left out.

    >>> line = np.array([shapely.LineString([(0, 0), (9, 0)])])
    >>> brought_lines(line, lambda x, y: (2 * x, 2 * y), (0, 0, 1, 1), 0.1, 1e-5)[0].wkt
    'MULTILINESTRING ((0 0, 18 0))'
    """
    parts, part_of = shapely.get_parts(lines, return_index=True)
    xy, point_of = shapely.get_coordinates(parts, return_index=True)
    first = np.flatnonzero(point_of[1:] == point_of[:-1])
    start, end, owner = xy[first], xy[first + 1], part_of[point_of[first]]
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for _ in range(MAX_HALVES):
        # At two points, as a curve that bends both ways meets its chord in the middle.
        a, c, d, b = (_moved(start + (end - start) * share, forward) for share in (0, 1 / 3, 2 / 3, 1))
        ended = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        lost = ~np.isfinite(np.stack([a, b, c, d])).any(axis=(0, 2))
        with np.errstate(invalid="ignore"):
            gap = np.maximum(_length(c - (2 * a + b) / 3), _length(d - (a + 2 * b) / 3))
            away = np.maximum(_gap_to(np.minimum(a, b), np.maximum(a, b), bounds), 0)
            straight = ended & (gap <= np.maximum(tolerance_px * pixel, FAR_TOLERANCE * away))
        kept.append((owner[straight], a[straight], b[straight]))
        more = ~straight & ~lost
        if not more.any():
            break
        middle = (start[more] + end[more]) / 2
        start, end = np.concatenate([start[more], middle]), np.concatenate([middle, end[more]])
        owner = np.tile(owner[more], 2)
    owner, a, b = (np.concatenate(column) for column in zip(*kept, strict=True))
    order = np.argsort(owner, kind="stable")
    edges = shapely.linestrings(np.stack([a[order], b[order]], axis=1))
    found = np.full(len(lines), shapely.MultiLineString(), dtype=object)
    if len(edges):
        shapely.multilinestrings(edges, indices=owner[order], out=found)
    return found


def _moved(xy: np.ndarray, forward: Transform) -> np.ndarray:
    return np.stack(forward(xy[:, 0], xy[:, 1]), axis=1)


def _length(xy: np.ndarray) -> np.ndarray:
    return np.asarray(np.hypot(xy[:, 0], xy[:, 1]))


def _gap_to(low: np.ndarray, high: np.ndarray, bounds: tuple[float, float, float, float]) -> np.ndarray:
    """From the box around an edge to the grid, less the size of the grid: above 0 for what is far away."""
    left, bottom, right, top = bounds
    x = np.maximum(np.maximum(left - high[:, 0], low[:, 0] - right), 0)
    y = np.maximum(np.maximum(bottom - high[:, 1], low[:, 1] - top), 0)
    return np.asarray(np.hypot(x, y) - max(right - left, top - bottom))
