"""The sea, which OpenStreetMap only has the edge of: lines with land on their left and water on their right."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

__all__ = ["sea"]

# Beside a coastline, to ask what lies there: less than any strip of land or water that is drawn.
_ASIDE_M = 0.05
# Of the length of coast around a piece, how much must agree on which side it is.
_AGREEING_SHARE = 0.9


def sea(coast: np.ndarray, frame: Any) -> tuple[np.ndarray, int]:
    """The parts of `frame` (a polygon in metres) that are sea, and how many parts nobody can tell.

    The frame is cut along the coast. A piece is sea where the coast around it has it on its right; where a coastline
    ends inside the frame, as in an extract that was cut off, a piece has some of both, and is left out.
    """
    lines = shapely.get_parts(shapely.intersection(coast, frame))
    lines = lines[shapely.length(lines) > 0]
    if not len(lines):
        return np.array([], dtype=object), 0
    # The coast as it is drawn, not its part inside: cut by rounding, that might end a hair short of the frame.
    network = shapely.union_all([*shapely.get_parts(coast), *shapely.get_parts(shapely.boundary(frame))])
    pieces = shapely.get_parts(shapely.polygonize(shapely.get_parts(network)))
    pieces = pieces[shapely.contains_properly(frame, shapely.point_on_surface(pieces))]
    points, owner = shapely.get_coordinates(lines, return_index=True)
    step = np.diff(points, axis=0)[np.diff(owner) == 0]
    middle = ((points[1:] + points[:-1]) / 2)[np.diff(owner) == 0]
    length = np.hypot(*step.T)
    right = np.column_stack([step[:, 1], -step[:, 0]]) / length[:, None] * _ASIDE_M
    tree = shapely.STRtree(pieces)
    votes = np.zeros((len(pieces), 2))
    for side, sign in ((0, 1), (1, -1)):
        asked, found = tree.query(shapely.points(middle + sign * right), predicate="within")
        np.add.at(votes[:, side], found, length[asked])
    total = votes.sum(axis=1)
    share = np.divide(votes[:, 0], total, out=np.full(len(pieces), 0.5), where=total > 0)
    unclear = (share > 1 - _AGREEING_SHARE) & (share < _AGREEING_SHARE)
    return pieces[share >= _AGREEING_SHARE], int(unclear.sum())
