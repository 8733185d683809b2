"""Outlines on a globe that is drawn flat: longitudes that jump, rings around a pole, polygons that cross themselves.

The plan is always the same. A ring is first made continuous, so that neighbouring points are never half a world apart
(it may then leave [-180, 180]). In that picture it can be checked and repaired like any flat polygon. Last it is cut
where the maps end, at 180 degrees, and each piece is moved back into [-180, 180]. Every change is written down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from .errors import AreaError

# Pieces with a smaller share of their polygon come from floating point noise at the cut, not from the user.
SLIVER = 1e-9
# Longitudes beyond one and a half turns are not degrees. Leaflet counts on past 180 when a map is panned around.
MAX_LON = 540.0


@dataclass
class Changes:
    """What was done to an outline: `facts` follow from the input, `guesses` are worth a warning."""

    facts: list[str] = field(default_factory=list)
    guesses: list[str] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys(self.facts + self.guesses))


def parts(geometry: BaseGeometry) -> Iterator[BaseGeometry]:
    """The single geometries inside, however deeply nested; empty ones left out."""
    for part in getattr(geometry, "geoms", (geometry,)):
        if part is geometry:
            if not part.is_empty:
                yield part
        else:
            yield from parts(part)


def polygons(geometry: BaseGeometry) -> list[Polygon]:
    """The polygons inside, without points and lines."""
    return [part for part in parts(geometry) if isinstance(part, Polygon)]


def check_degrees(geometry: BaseGeometry) -> None:
    """Raise `AreaError` unless all coordinates can be longitudes and latitudes, in this order."""
    xy = shapely.get_coordinates(geometry)
    if not np.isfinite(xy).all():
        raise AreaError("The area has coordinates that are NaN or infinite; drop or mend these points first.")
    (west, south), (east, north) = xy.min(axis=0), xy.max(axis=0)
    if max(abs(west), abs(east)) > MAX_LON or max(abs(south), abs(north)) > MAX_LON:
        raise AreaError(
            f"The area runs from ({west:g}, {south:g}) to ({east:g}, {north:g}): these are not degrees, they look like"
            " metres of a map projection. Say which one: geopandas.GeoSeries([geometry], crs='EPSG:...')."
        )
    if max(abs(south), abs(north)) > 90:
        message = f"Latitudes must lie between -90 and 90, the area's run from {south:g} to {north:g}."
        if max(abs(west), abs(east)) <= 90:
            message += (
                " Longitude and latitude look swapped: the order is longitude first, so as a box it would be"
                f" (west, south, east, north) = ({south:g}, {west:g}, {north:g}, {east:g})."
            )
        raise AreaError(message)


def onto_globe(
    geometry: BaseGeometry, changes: Changes, *, guess: bool = True, trust: bool = False
) -> Polygon | MultiPolygon:
    """Polygons in degrees -> one valid geometry within [-180, 180], cut at 180 where it crosses.

    `guess=False` says that points lie densely, so that a jump in longitude can only be a crossing; `trust=True` that
    there are no jumps, and long edges mean what they say.
    """
    pieces = [piece for polygon in polygons(geometry) for piece in _one(polygon, changes, guess, trust)]
    merged = shapely.union_all(pieces) if len(pieces) != 1 else pieces[0]
    kept = polygons(merged)
    if not kept:
        raise AreaError(
            "The area encloses no ground: its outline falls together to a line or a point. Give it a width."
        )
    # One normal form, so that the same outline always compares equal, with shells anticlockwise as RFC 7946 wants.
    kept = [shapely.geometry.polygon.orient(part) for part in polygons(shapely.normalize(MultiPolygon(kept)))]
    return kept[0] if len(kept) == 1 else MultiPolygon(kept)


def _one(polygon: Polygon, changes: Changes, guess: bool, trust: bool) -> list[Polygon]:
    flat = shapely.force_2d(polygon)
    flat = flat if trust else _continuous(flat, changes, guess)
    return [piece for part in polygons(mended(flat, changes)) for piece in _cut(part, changes)]


def mended(geometry: BaseGeometry, changes: Changes) -> BaseGeometry:
    """A valid outline of the same ground; what was repaired is noted.

    >>> changes = Changes()
    >>> mended(shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)]), changes).area, len(changes.guesses)
    (2.0, 1)
    """
    if geometry.is_valid or not np.isfinite(shapely.get_coordinates(geometry)).all():
        return geometry  # numbers that are none are told of elsewhere
    changes.guesses.append(f"The outline was not valid ({shapely.is_valid_reason(geometry)}) and was repaired.")
    return shapely.make_valid(geometry)


def _continuous(polygon: Polygon, changes: Changes, guess: bool) -> Polygon:
    shell = _unroll(np.asarray(polygon.exterior.coords), changes, guess)
    middle = (shell[:, 0].min() + shell[:, 0].max()) / 2
    holes = []
    for ring in polygon.interiors:
        hole = _unroll(np.asarray(ring.coords), Changes(), guess)
        hole[:, 0] += 360 * np.round((middle - (hole[:, 0].min() + hole[:, 0].max()) / 2) / 360)
        holes.append(hole)
    return Polygon(shell, holes)


def _unroll(ring: np.ndarray, changes: Changes, guess: bool) -> np.ndarray:
    """A closed ring whose longitudes run on over 180 instead of jumping back."""
    ring = np.array(ring, dtype="float64")
    steps = np.diff(ring[:, 0])
    jumps = np.abs(steps) > 180
    # An edge of a full turn is the rim of a box around the world and stays, unless nothing would be left of the ring.
    full = np.abs(np.abs(steps) - 360) < 1e-9
    if Polygon(ring).area > 1e-9:
        jumps &= ~full
    if not jumps.any():
        return ring
    ring[1:, 0] += np.cumsum(np.where(jumps, -360 * np.sign(steps), 0.0))
    if abs(ring[-1, 0] - ring[0, 0]) > 180:  # it came back one turn further: it goes around a pole
        pole = 90.0 if ring[:, 1].mean() > 0 else -90.0
        changes.facts.append(
            f"The outline goes around the {'north' if pole > 0 else 'south'} pole: the pole lies inside."
        )
        rim = [(ring[-1, 0], pole), (ring[0, 0], pole), (ring[0, 0], ring[0, 1])]
        return np.vstack([ring, rim])
    if guess:
        changes.guesses.append(
            "An edge spans more than 180 degrees of longitude and was taken the short way, across the antimeridian."
            " For the long way round give a box (west, south, east, north), or points in between."
        )
    return ring


def _cut(polygon: Polygon, changes: Changes) -> list[Polygon]:
    west, _, east, _ = polygon.bounds
    if east - west > 360 + 1e-9:
        raise AreaError(
            f"The area spans {east - west:g} degrees of longitude, from {west:g} to {east:g}; the globe has 360."
        )
    pieces: list[Polygon] = []
    turns = range(int(np.floor((west + 180) / 360)), int(np.ceil((east + 180) / 360)))
    if list(turns) == [0]:
        return [polygon]
    for turn in turns:
        window = shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)
        inside = [part for part in polygons(polygon.intersection(window)) if part.area > SLIVER * polygon.area]
        pieces += [translate(part, xoff=-360 * turn) for part in inside]
    if len(pieces) > 1:
        changes.facts.append("The area crosses the antimeridian and was split there, at 180 degrees.")
    else:
        changes.facts.append("Longitudes beyond 180 degrees were brought back into [-180, 180].")
    return pieces


def unsplit(geometry: BaseGeometry) -> BaseGeometry:
    """The opposite of the cut: parts on both sides of 180 degrees moved together (longitudes may then exceed 180)."""
    whole = parts(geometry)
    ranked = sorted(whole, key=lambda part: part.bounds[0])
    if len(ranked) < 2 or geometry.bounds[2] - geometry.bounds[0] <= 180:
        return geometry
    # The area is seen best with the widest empty stretch of longitudes outside the map.
    east = np.maximum.accumulate([part.bounds[2] for part in ranked])
    gaps = [ranked[i + 1].bounds[0] - east[i] for i in range(len(ranked) - 1)]
    widest = int(np.argmax(gaps))
    if gaps[widest] <= ranked[0].bounds[0] + 360 - east[-1]:
        return geometry
    moved = [translate(part, xoff=360) for part in ranked[: widest + 1]]
    return shapely.union_all(moved + ranked[widest + 1 :])
