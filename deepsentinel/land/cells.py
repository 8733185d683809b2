"""Points spread evenly over polygons on the sphere, by the million.

The polygons are cut into cells along meridians and parallels, smaller near their borders. A cell is drawn by its area
and a point within it (longitude evenly, and latitude by its sine: that is even on the ground). In a cell that lies
wholly inside its polygon the point is taken; in one on the border only if it is inside. So nearly no point is tested
against an outline, and nearly none is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely

from deepsentinel.errors import AreaError, InputError
from deepsentinel.footprints import spherical_area

from .regions import Region

# Cells on the border are cut until they are this part of the whole, or as many as this; most points then fall into
# cells that need no test.
FINEST = 1 / 20_000
MAX_CELLS = 60_000
# Parts that fill less of the box around them than this are cut finer than their size alone asks for.
THIN, FINEST_OF_THIN = 0.3, 1 / 50
MAX_CUTS = 40
# Candidates come in batches that grow, the same whatever is asked for: the first k of n points are then those of k.
FIRST_BATCH, LARGEST_BATCH = 1024, 262_144
# A region so thin that of this many candidates none is inside has no ground to speak of.
MAX_MISSES = 4_000_000


@dataclass(frozen=True, eq=False)
class Cells:
    """Boxes in degrees that hold a region, each owned by one of its parts."""

    parts: np.ndarray
    owner: np.ndarray
    """Which part a cell is of."""
    boxes: np.ndarray
    """west, south, east, north of each."""
    inside: np.ndarray
    """Whether a cell lies wholly in its part."""
    tree: shapely.STRtree | None
    """Over the parts, where these may share ground."""

    @classmethod
    def of(cls, region: Region) -> Cells:
        """Cut a region up."""
        parts = region.parts
        ground = spherical_area(parts)
        parts, ground = parts[ground > 0], ground[ground > 0]
        if not len(parts):
            raise AreaError(f"The region ({region.name}) has no ground in it, so no point can be drawn there.")
        shapely.prepare(parts)
        owner, boxes = np.arange(len(parts)), shapely.bounds(parts)
        # Of a part that fills its box badly most points would be thrown away, however small it is.
        finest = np.full(len(parts), ground.sum() * FINEST)
        thin = ground < THIN * _areas(boxes)
        finest[thin] = np.minimum(finest[thin], ground[thin] * FINEST_OF_THIN)
        most, kept = max(MAX_CELLS, 8 * len(parts)), 0
        done: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for cut in range(MAX_CUTS + 1):
            inside = shapely.contains_properly(parts[owner], shapely.box(*boxes.T))
            split = ~inside & (_areas(boxes) > finest[owner])
            if cut == MAX_CUTS or kept + 4 * np.count_nonzero(split) > most:
                split[:] = False
            done.append((owner[~split], boxes[~split], inside[~split]))
            kept += int(np.count_nonzero(~split))
            if not split.any():
                break
            owner, boxes = _quartered(owner[split], boxes[split])
            touched = shapely.intersects(parts[owner], shapely.box(*boxes.T))
            owner, boxes = owner[touched], boxes[touched]
        owner, boxes, inside = (np.concatenate(column) for column in zip(*done, strict=True))
        tree = None if region.disjoint else shapely.STRtree(parts)
        return cls(parts, owner, boxes, inside, tree)

    def candidates(self, seed: tuple[int, ...]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of longitudes and latitudes within the region, without an end, the same for the same seed."""
        weights = _areas(self.boxes)
        bounds = np.cumsum(weights)
        bounds /= bounds[-1]
        # On the globe heights of equal ground are heights of equal steps of the sine of the latitude.
        low, high = np.sin(np.radians(self.boxes[:, [1, 3]])).T
        batch, number, missed = FIRST_BATCH, 0, 0
        while True:
            rng = np.random.default_rng([*seed, number])
            which, across, up = rng.random((3, batch))
            cell = np.minimum(np.searchsorted(bounds, which, side="right"), len(bounds) - 1)
            west, south, east, north = self.boxes[cell].T
            lon = west + across * (east - west)
            lat = np.degrees(np.arcsin(low[cell] + up * (high[cell] - low[cell])))
            # The sine and back is not exact; cells are, and a point of one stays within it.
            lat = np.clip(lat, south, north)
            taken = self._holds(cell, lon, lat)
            missed = 0 if taken.any() else missed + batch
            if missed > MAX_MISSES:
                raise AreaError(
                    f"Of {missed:,} points around the region none was inside: its outline is so thin that it has next"
                    " to no ground. Give a wider one."
                )
            yield lon[taken], lat[taken]
            batch, number = min(2 * batch, LARGEST_BATCH), number + 1

    def _holds(self, cell: np.ndarray, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
        taken = self.inside[cell].copy()
        unsure = np.flatnonzero(~taken)
        owner = self.owner[cell[unsure]]
        # Neighbours in memory are quicker: the outline of a part is then at hand.
        order = np.argsort(owner, kind="stable")
        unsure, owner = unsure[order], owner[order]
        taken[unsure] = shapely.contains_xy(self.parts[owner], lon[unsure], lat[unsure])
        if self.tree is not None:
            # Ground that several parts claim is drawn for each of them, and only taken for the first.
            found = np.flatnonzero(taken)
            points, others = self.tree.query(shapely.points(lon[found], lat[found]), predicate="within")
            first = np.full(len(found), len(self.parts))
            np.minimum.at(first, points, others)
            taken[found] = first == self.owner[cell[found]]
        return taken


def _areas(boxes: np.ndarray) -> np.ndarray:
    """The ground in boxes of degrees, on a sphere of radius 1."""
    west, south, east, north = np.radians(boxes).T
    # The difference of two sines, without losing its digits where they are close.
    return np.asarray((east - west) * 2 * np.cos((north + south) / 2) * np.sin((north - south) / 2))


def _quartered(owner: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    west, south, east, north = boxes.T
    x, y = (west + east) / 2, (south + north) / 2
    quarters = [(west, south, x, y), (x, south, east, y), (west, y, x, north), (x, y, east, north)]
    return np.tile(owner, 4), np.concatenate([np.stack(quarter, axis=1) for quarter in quarters])


def check_count(n: object) -> int:
    """A number of points, or an error that says how to write one."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0:
        raise InputError(f"n={n!r} is not a number of points; give a whole number of 0 or more, such as n=1000.")
    return int(n)


def check_seed(seed: object) -> int:
    """A seed, or an error that says how to write one."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed={seed!r} is not a seed; give a whole number of 0 or more, so that it can be repeated.")
    return int(seed)
