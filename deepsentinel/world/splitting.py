"""Cutting convex ground into plots, the way land is divided: again and again, across the longer side.

Fields, building blocks and building lots all come from here. Plain floats, not arrays: a plot has five corners, and ten
thousand of them are cut while numpy would still be allocating.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["Cut", "Plot", "area_and_centre", "split"]

Points = list[tuple[float, float]]


@dataclass
class Plot:
    """One piece of cut ground."""

    points: Points
    """Corners, counter-clockwise."""
    area_m2: float
    """Area."""
    centre: tuple[float, float]
    """Centroid."""


@dataclass
class Cut:
    """One line along which ground was cut."""

    start: tuple[float, float]
    """One end."""
    end: tuple[float, float]
    """The other."""
    area_m2: float
    """Size of what was cut: the larger, the more important the line (a road rather than a furrow)."""


def area_and_centre(points: Points) -> tuple[float, float, float]:
    """Signed area and centroid of a ring given without its closing point."""
    area = cx = cy = 0.0
    x0, y0 = points[-1]
    ox, oy = x0, y0  # far from the origin the products would lose their digits
    for x1, y1 in points:
        cross = (x0 - ox) * (y1 - oy) - (x1 - ox) * (y0 - oy)
        area += cross
        cx += (x0 + x1 - 2 * ox) * cross
        cy += (y0 + y1 - 2 * oy) * cross
        x0, y0 = x1, y1
    if abs(area) < 1e-9:
        return 0.0, points[0][0], points[0][1]
    return area / 2, ox + cx / (3 * area), oy + cy / (3 * area)


def _halve(points: Points, px: float, py: float, nx: float, ny: float) -> tuple[Points, Points, Points]:
    """Both sides of the line through (px, py) with normal (nx, ny), and the two points where it crosses the ring."""
    left: Points = []
    right: Points = []
    crossing: Points = []
    x0, y0 = points[-1]
    d0 = (x0 - px) * nx + (y0 - py) * ny
    for x1, y1 in points:
        d1 = (x1 - px) * nx + (y1 - py) * ny
        if (d0 < 0) != (d1 < 0):
            t = d0 / (d0 - d1)
            cut = (x0 + t * (x1 - x0), y0 + t * (y1 - y0))
            crossing.append(cut)
            left.append(cut)
            right.append(cut)
        (left if d1 < 0 else right).append((x1, y1))
        x0, y0, d0 = x1, y1, d1
    return left, right, crossing


def split(
    points: Points,
    rng: np.random.Generator,
    *,
    target_m2: Callable[[float, float], float],
    angle_deg: Callable[[float, float], float],
    elongation: float = 2.0,
    jitter_deg: float = 4.0,
    estate_m2: float = 0.0,
    keep: Callable[[float, float, float], bool] | None = None,
) -> tuple[list[Plot], list[Cut]]:
    """Cut a convex ring into plots of about `target_m2(x, y)`, along and across the local `angle_deg(x, y)`.

    A plot is cut across its longer side (measured along the local direction) once that is more than `elongation` times
    the other; below, the direction is a matter of luck. Within `estate_m2` the direction is that of the first cut, so
    that the fields of one estate are parallel. `keep(x, y, radius)` ends work on ground nobody needs.
    """
    luck = iter(rng.random(4096).tolist())

    def draw() -> float:
        nonlocal luck
        value = next(luck, None)
        if value is None:
            luck = iter(rng.random(4096).tolist())
            value = next(luck)
        return value

    plots: list[Plot] = []
    cuts: list[Cut] = []
    stack: list[tuple[Points, float, float | None]] = [(list(points), 0.0, None)]
    while stack:
        ring, goal, lean = stack.pop()
        area, cx, cy = area_and_centre(ring)
        area = abs(area)
        if keep is not None and not keep(cx, cy, max(math.hypot(x - cx, y - cy) for x, y in ring)):
            continue
        if goal == 0.0 or area > 6 * goal:
            goal = target_m2(cx, cy)  # drawn while still large, so that neighbours cut from one piece are alike
        if area <= goal * 1.35:
            plots.append(Plot(ring, area, (cx, cy)))
            continue
        if lean is None or area > estate_m2:
            lean = angle_deg(cx, cy)
        turn = math.radians(lean + jitter_deg * (2 * draw() - 1))
        ux, uy = math.cos(turn), math.sin(turn)
        along = [(x - cx) * ux + (y - cy) * uy for x, y in ring]
        across = [(y - cy) * ux - (x - cx) * uy for x, y in ring]
        long_side, short_side = max(along) - min(along), max(across) - min(across)
        cut_the_long = long_side > elongation * short_side or (
            short_side < 1.25 * long_side * elongation and draw() < 0.5 and long_side > 0.9 * short_side
        )
        share = 0.5 + (draw() - 0.5) * 0.36
        if cut_the_long:
            at = min(along) + share * long_side
            px, py, nx, ny = cx + at * ux, cy + at * uy, ux, uy
        else:
            at = min(across) + share * short_side
            px, py, nx, ny = cx - at * uy, cy + at * ux, -uy, ux
        left, right, crossing = _halve(ring, px, py, nx, ny)
        if len(left) < 3 or len(right) < 3 or len(crossing) != 2:
            plots.append(Plot(ring, area, (cx, cy)))
            continue
        cuts.append(Cut(crossing[0], crossing[1], area))
        goal_jitter = goal * math.exp(0.5 * (draw() - 0.5))
        stack.append((left, goal_jitter, lean))
        stack.append((right, goal_jitter, lean))
    return plots, cuts
