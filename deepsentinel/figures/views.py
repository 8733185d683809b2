"""What of the Earth a map of points or samples shows: all of it, or the ground around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .earth import EARTH_M, SEA, draw_land, forth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pyproj import CRS

# Beyond so many degrees around their middle, places are shown on a map of the world.
LOCAL_DEG = 40.0
# On a map that shows less than this the outline of the land, right to ten kilometres, would be wrong.
OUTLINE_M = 400_000.0
# Nearer to a pole no meridian is more in the middle than another.
POLAR_DEG = 80.0


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
    """How far places lie from there."""

    @property
    def width_m(self) -> float:
        """From west to east."""
        return self.sides[2] - self.sides[0]

    @property
    def height_m(self) -> float:
        """From south to north."""
        return self.sides[3] - self.sides[1]

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width_m / self.height_m

    @property
    def outlined(self) -> bool:
        """Whether it shows enough for the outline of the land."""
        return self.world or self.width_m > OUTLINE_M


def view_of(lon: np.ndarray, lat: np.ndarray, size_m: float = 0.0) -> View:
    """The map that shows places of this size best.

    >>> view_of(np.array([3.0, 3.1]), np.array([50.0, 50.0])).world, view_of(np.array([0.0, 170.0]), np.zeros(2)).world
    (False, True)
    """
    from pyproj import CRS

    lam, phi = np.radians(lon), np.radians(lat)
    xyz = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1)
    # The middle of what they span, so that a crowd in one corner does not draw the map there.
    middle = (xyz.min(axis=0) + xyz.max(axis=0)) / 2
    length = float(np.linalg.norm(middle))
    reach = 180.0 if length < 1e-9 else float(np.degrees(np.arccos(np.clip(xyz @ middle / length, -1, 1)).max()))
    if reach > LOCAL_DEG:
        crs = CRS("+proj=eqearth +lon_0=0 +R=6371000 +type=crs")
        x, y = forth(crs, np.array([180.0, 0.0]), np.array([0.0, 90.0]))
        wide, tall = 1.01 * float(x[0]), 1.01 * float(y[1])
        return View(crs, True, (-wide, -tall, wide, tall), (0.0, 0.0), 180.0)
    up = float(np.degrees(np.arcsin(np.clip(middle[2] / length, -1, 1))))
    centre = 0.0 if abs(up) > POLAR_DEG else float(np.degrees(np.arctan2(middle[1], middle[0]))), up
    crs = CRS(f"+proj=laea +lat_0={centre[1]:.6f} +lon_0={centre[0]:.6f} +units=m +type=crs")
    x, y = forth(crs, lon, lat)
    spread = max(float(np.ptp(x)), float(np.ptp(y)))
    # A single point has no size of its own; and no map is so narrow that nothing is seen around the places.
    pad = 0.05 * spread + size_m or 5000.0
    half = [max(float(np.ptp(each)) / 2 + pad, 0.3 * spread) for each in (x, y)]
    mid = [float(each.min() + each.max()) / 2 for each in (x, y)]
    return View(crs, False, (mid[0] - half[0], mid[1] - half[1], mid[0] + half[0], mid[1] + half[1]), centre, reach)


def draw_ground(axes: Axes, view: View) -> None:
    """The land under a map, where so much is shown that its outline is right."""
    if view.world:
        draw_land(axes, view.crs, None)
    elif view.outlined:
        axes.set_facecolor(SEA)
        corner_m = float(np.hypot(view.width_m, view.height_m)) / 2
        draw_land(axes, view.crs, (view.centre, view.reach_deg + float(np.degrees(corner_m / EARTH_M)) + 2))
