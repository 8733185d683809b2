"""Samples on a map: of the world where they are all over it, otherwise of the ground around them, with a globe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import slides
from .earth import EARTH_M, SEA, draw_land, forth, globe, sphere
from .slides import FAINT, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pyproj import CRS

# Beyond so many degrees around their middle, samples are shown on a map of the world.
LOCAL_DEG = 40.0
# On a map that shows less than this the outline of the land, right to ten kilometres, would be wrong.
OUTLINE_M = 400_000.0
# More than these are not seen, and slow the drawing down.
DRAWN = 100_000
GLOBE_IN, GLOBE_LEAST_IN = 1.7, 1.1


@dataclass(frozen=True, eq=False)
class View:
    """A projection, and what of it the map shows."""

    crs: CRS
    """The projection."""
    world: bool
    """Whether all of the Earth is shown."""
    sides: tuple[float, float, float, float]
    """West, south, east and north in metres of the projection."""
    centre: tuple[float, float]
    """Longitude and latitude of the middle."""
    reach_deg: float
    """How far samples lie from there."""

    @property
    def width_m(self) -> float:
        """From west to east."""
        return self.sides[2] - self.sides[0]

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width_m / (self.sides[3] - self.sides[1])


def view_of(lon: np.ndarray, lat: np.ndarray, size_m: float = 0.0) -> View:
    """The map that shows samples of this size best.

    >>> view_of(np.array([3.0, 3.1]), np.array([50.0, 50.0])).world, view_of(np.array([0.0, 170.0]), np.zeros(2)).world
    (False, True)
    """
    from pyproj import CRS

    lam, phi = np.radians(lon), np.radians(lat)
    xyz = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1)
    middle = (xyz.min(axis=0) + xyz.max(axis=0)) / 2
    length = float(np.linalg.norm(middle))
    reach = 180.0 if length < 1e-9 else float(np.degrees(np.arccos(np.clip(xyz @ middle / length, -1, 1)).max()))
    if reach > LOCAL_DEG:
        crs = CRS("+proj=eqearth +lon_0=0 +R=6371000 +type=crs")
        x, y = forth(crs, np.array([180.0, 0.0]), np.array([0.0, 90.0]))
        wide, tall = 1.01 * float(x[0]), 1.01 * float(y[1])
        return View(crs, True, (-wide, -tall, wide, tall), (0.0, 0.0), 180.0)
    centre = float(np.degrees(np.arctan2(middle[1], middle[0]))), float(np.degrees(np.arcsin(middle[2] / length)))
    crs = CRS(f"+proj=laea +lat_0={centre[1]:.6f} +lon_0={centre[0]:.6f} +units=m +type=crs")
    x, y = forth(crs, lon, lat)
    spread = max(float(np.ptp(x)), float(np.ptp(y)))
    pad = 0.05 * spread + size_m or 5000.0
    half = [max(float(np.ptp(each)) / 2 + pad, 0.3 * spread) for each in (x, y)]
    mid = [float(each.min() + each.max()) / 2 for each in (x, y)]
    return View(crs, False, (mid[0] - half[0], mid[1] - half[1], mid[0] + half[0], mid[1] + half[1]), centre, reach)


def sample_map(
    fig: Figure, lon: np.ndarray, lat: np.ndarray, left_in: float, top_in: float, width_in: float, height_in: float, *,
    size_m: float = 0.0, colours: np.ndarray | None = None,
) -> Axes:  # fmt: skip
    """Samples of `size_m` on a map as large as its room on the page lets it, with a globe where there is room left.

    >>> fig = slides.page(6, "")
    >>> axes = sample_map(fig, np.array([3.0, 3.1]), np.array([50.0, 50.0]), 1, 1, 8, 4)
    >>> [text.get_text() for text in axes.texts]
    ['2 km', 'N']
    """
    view = view_of(lon, lat, size_m)
    wide = min(width_in, height_in * view.aspect)
    tall = wide / view.aspect
    spare = width_in - wide
    at_in = left_in + (spare / 2 if view.world or spare < GLOBE_LEAST_IN + 0.2 else 0)
    axes = slides.axes_in(fig, at_in, top_in + (height_in - tall) / 2, wide, tall)
    axes.set_xlim(view.sides[0], view.sides[2])
    axes.set_ylim(view.sides[1], view.sides[3])
    if view.world:
        axes.set_axis_off()
        sphere(axes, view.crs)
        draw_land(axes, view.crs, None)
    else:
        _local(axes, view)
        if spare >= GLOBE_LEAST_IN + 0.2:
            side = min(GLOBE_IN, spare - 0.2)
            place = at_in + wide + 0.2, top_in + (height_in + tall) / 2 - side
            globe(slides.axes_in(fig, *place, side, side), view.centre, view.reach_deg)
    _squares(axes, view, lon, lat, size_m / view.width_m * wide, colours)
    return axes


def _local(axes: Axes, view: View) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor("#f6f7f8")
    for spine in axes.spines.values():
        spine.set_color(FAINT)
        spine.set_linewidth(0.6)
    if view.width_m > OUTLINE_M:
        axes.set_facecolor(SEA)
        corner_m = float(np.hypot(view.width_m, view.sides[3] - view.sides[1])) / 2
        draw_land(axes, view.crs, (view.centre, view.reach_deg + float(np.degrees(corner_m / EARTH_M)) + 2))
    slides.scale_bar(axes, view.width_m, on_picture=False)
    slides.north_arrow(axes)


def _squares(
    axes: Axes, view: View, lon: np.ndarray, lat: np.ndarray, size_in: float, colours: np.ndarray | None
) -> None:
    """Each sample as large as it is, or as a dot where it would not be seen."""
    from matplotlib.colors import to_rgb

    x, y = forth(view.crs, lon, lat)
    shown = np.tile(to_rgb(VERMILION), (len(x), 1)) if colours is None else colours
    if len(x) > DRAWN:
        drawn = np.sort(np.random.default_rng(0).permutation(len(x))[:DRAWN])
        x, y, shown = x[drawn], y[drawn], shown[drawn]
    dot = float(np.clip(30_000 / len(x), 0.8, 20))
    real = (72 * size_in) ** 2
    if real > dot:
        axes.scatter(
            x,
            y,
            s=real,
            marker="s",
            c=[(*colour, 0.35) for colour in shown],
            edgecolors=[tuple(one) for one in shown],
            lw=0.9,
            zorder=3,
        )
    else:
        edge = 0.3 if dot > 6 else 0
        axes.scatter(x, y, s=dot, c=shown, zorder=3, edgecolors="white", lw=edge, rasterized=len(x) > 5000)
