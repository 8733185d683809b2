"""The Earth under a map: the land, the round of the globe, and projections to draw them in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

from deepsentinel import lonlat
from deepsentinel.land.regions import land

from .slides import VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pyproj import CRS

EARTH_M = 6_371_000.0
SEA, LAND, COAST, LINES = "#eaf1f6", "#dfddd6", "#a9a79f", "#cbd5dd"
# Beyond this from its middle a projection of a part of the Earth folds over, or has no place for anything.
FARTHEST_DEG = 89.5
STEP_DEG = 0.5
SEAM_M = 200.0


def forth(crs: CRS, lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes and latitudes in a projection.

    >>> from pyproj import CRS
    >>> forth(CRS("EPSG:32631"), np.array([3.0]), np.array([0.0]))[0].round(3).tolist()
    [500000.0]
    """
    from pyproj import Transformer

    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    return np.asarray(x), np.asarray(y)


def projected(shapes: np.ndarray, crs: CRS, step_deg: float) -> np.ndarray:
    """Shapes in degrees in a projection, their edges bent as it bends them."""
    dense = shapely.segmentize(shapes, step_deg)
    return np.asarray(shapely.transform(dense, lambda xy: np.column_stack(forth(crs, *xy.T))))


def draw_land(axes: Axes, crs: CRS, around: tuple[tuple[float, float], float] | None) -> None:
    """All land on a map, or the land within so many degrees of a place."""
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path

    parts = land(exclude_antarctica=False).parts
    if around is not None:
        parts = shapely.get_parts(shapely.intersection(parts, cap(*around)))
        parts = parts[(shapely.get_type_id(parts) == 3) & (shapely.area(parts) > 0)]
    flat = projected(parts, crs, STEP_DEG)
    if around is not None:
        # What was cut at 180 degrees grows together again: on this map nothing ends there.
        flat = shapely.get_parts(shapely.union_all(shapely.make_valid(flat), grid_size=SEAM_M))
        flat = flat[shapely.get_type_id(flat) == 3]
    paths = []
    for part in flat:
        rings = [np.asarray(ring.coords) for ring in (part.exterior, *part.interiors)]
        codes = [np.r_[Path.MOVETO, np.full(len(ring) - 2, Path.LINETO), Path.CLOSEPOLY] for ring in rings]
        paths.append(Path(np.concatenate(rings), np.concatenate(codes)))
    axes.add_collection(
        PathCollection(paths, facecolors=LAND, edgecolors=COAST, linewidths=0.4, zorder=1), autolim=False
    )


def cap(centre: tuple[float, float], reach_deg: float) -> shapely.Geometry:
    """All places within so many degrees of one, cut at 180.

    >>> cap((0, 0), 10).covers(shapely.Point(0, 9.9)), cap((0, 90), 10).covers(shapely.Point(77, 85))
    (True, True)
    """
    lon, lat = _circle(centre, min(reach_deg, FARTHEST_DEG))
    return lonlat.onto_globe(shapely.Polygon(np.column_stack([lon, lat])), lonlat.Changes(), guess=False)


def _circle(centre: tuple[float, float], reach_deg: float) -> tuple[np.ndarray, np.ndarray]:
    from pyproj import Geod

    bearings = np.arange(0, 360, 1.0)
    alike = np.ones_like(bearings)
    lon, lat, _ = Geod(a=EARTH_M, b=EARTH_M).fwd(
        centre[0] * alike, centre[1] * alike, bearings, np.radians(reach_deg) * EARTH_M * alike
    )
    return np.asarray(lon), np.asarray(lat)


def sphere(axes: Axes, crs: CRS) -> None:
    """The sea and the net of degrees under a map of the whole world."""
    from matplotlib.patches import Polygon

    side = np.linspace(-90, 90, 181)
    rim = np.r_[np.full(181, -180.0), np.full(181, 180.0)], np.r_[side, side[::-1]]
    ring = np.column_stack(forth(crs, *rim))
    axes.add_patch(Polygon(ring, closed=True, facecolor=SEA, edgecolor=LINES, lw=0.8, zorder=0))
    _net(axes, crs)


def globe(axes: Axes, centre: tuple[float, float], reach_deg: float) -> None:
    """The half of the Earth around a place, with a ring around what lies within so many degrees of it."""
    from matplotlib.patches import Circle
    from pyproj import CRS

    # A little from above or below, so that it is seen to be round; a pole is looked at from its own side.
    tilt = float(np.clip(centre[1], -60, 60))
    crs = CRS(f"+proj=ortho +lat_0={tilt:.4f} +lon_0={centre[0]:.4f} +R={EARTH_M:.0f} +type=crs")
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(-1.02 * EARTH_M, 1.02 * EARTH_M)
    axes.set_ylim(-1.02 * EARTH_M, 1.02 * EARTH_M)
    axes.add_patch(Circle((0, 0), EARTH_M, facecolor=SEA, edgecolor=LINES, lw=0.8, zorder=0))
    _net(axes, crs)
    draw_land(axes, crs, ((centre[0], tilt), FARTHEST_DEG))
    # A ring that is too small to be seen as one becomes a dot.
    if reach_deg > 1.5:
        x, y = forth(crs, *_circle(centre, reach_deg))
        axes.plot(np.r_[x, x[0]], np.r_[y, y[0]], color=VERMILION, lw=1.6, zorder=3)
    else:
        axes.scatter(*forth(crs, np.array([centre[0]]), np.array([centre[1]])), s=40, c=VERMILION, lw=0, zorder=3)


def _net(axes: Axes, crs: CRS) -> None:
    side, along = np.linspace(-90, 90, 181), np.linspace(-180, 180, 361)
    lines = [(np.full(181, float(at)), side) for at in range(-180, 180, 30)]
    lines += [(along, np.full(361, float(at))) for at in range(-60, 90, 30)]
    for lon, lat in lines:
        x, y = forth(crs, lon, lat)
        seen = np.isfinite(x) & np.isfinite(y)
        axes.plot(np.where(seen, x, np.nan), np.where(seen, y, np.nan), color=LINES, lw=0.5, zorder=0.5)
