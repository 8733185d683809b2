"""Where the samples of a corpus lie, and exactly how far apart the ground is that two of them show.

Everything is reckoned in metres in three dimensions, on the ellipsoid: there the date line and the poles are places
like any other, and a tree finds neighbours among a million samples in seconds. What counts is the ground of a sample
and not its centre: two windows may share a field while their centres are kilometres apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from deepsentinel.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

# WGS 84.
AXIS_M, FLATTENING = 6_378_137.0, 1 / 298.257223563
ECCENTRICITY2 = FLATTENING * (2 - FLATTENING)
MEAN_RADIUS_M = 6_371_008.8
# So many samples at a time look for their neighbours, which bounds the memory that the pairs take.
AT_A_TIME = 20_000
PAIRS_AT_A_TIME = 200_000
# Ground that two samples share counts from this depth on: less is rounding, or the seam of two zones.
DEPTH_M = 1.0


@dataclass(frozen=True, eq=False)
class Ground:
    """The ground of each sample, as corners in metres from the centre of the Earth."""

    centre: np.ndarray
    """Centre of each footprint, shape (samples, 3)."""
    corners: np.ndarray
    """Its corners in order, shape (samples, 4, 3)."""
    radius_m: np.ndarray
    """How far the farthest corner is from the centre."""

    def __len__(self) -> int:
        return len(self.centre)

    def take(self, which: np.ndarray) -> Ground:
        """The ground of some samples."""
        return Ground(self.centre[which], self.corners[which], self.radius_m[which])


def on_ellipsoid(lon: Any, lat: Any) -> np.ndarray:
    """Degrees as metres from the centre of the Earth, shape (.., 3).

    >>> [round(float(part)) for part in on_ellipsoid(90.0, 0.0)]
    [0, 6378137, 0]
    """
    lon, lat = np.deg2rad(np.asarray(lon, "float64")), np.deg2rad(np.asarray(lat, "float64"))
    across = AXIS_M / np.sqrt(1 - ECCENTRICITY2 * np.sin(lat) ** 2)
    away = across * np.cos(lat)
    return np.stack([away * np.cos(lon), away * np.sin(lon), across * (1 - ECCENTRICITY2) * np.sin(lat)], axis=-1)


def ground_of(corpus: xr.Dataset) -> Ground:
    """The ground of every sample, from its centre, its CRS and its size in pixels.

    >>> import xarray as xr
    >>> one = {"lon": 3.0, "lat": 0.0, "crs": "EPSG:32631", "height": 256, "width": 256}
    >>> coords = {name: ("sample", [value]) for name, value in one.items()}
    >>> round(float(ground_of(xr.Dataset(coords=coords, attrs={"resolution": 10})).radius_m[0]))
    1811
    """
    missing = [name for name in ("lon", "lat", "crs", "height", "width") if name not in corpus.coords]
    if missing:
        raise InputError(
            f"This Dataset does not say where its samples lie: it has no coordinate {missing[0]!r}. Give what"
            " open_corpus returns, or a selection of it by isel(sample=...)."
        )
    around = outlines_of(corpus)
    lon, lat = (corpus[name].to_numpy().astype("float64") for name in ("lon", "lat"))
    corners = on_ellipsoid(around[..., 0], around[..., 1])
    centre = on_ellipsoid(lon, lat)
    return Ground(centre, corners, np.sqrt(((corners - centre[:, None]) ** 2).sum(axis=-1)).max(axis=1))


def outlines_of(corpus: xr.Dataset) -> np.ndarray:
    """The corners of the ground of every sample in degrees, shape (samples, 4, 2).

    >>> import xarray as xr
    >>> one = {"lon": 3.0, "lat": 0.0, "crs": "EPSG:32631", "height": 200, "width": 200}
    >>> coords = {name: ("sample", [value]) for name, value in one.items()}
    >>> outlines_of(xr.Dataset(coords=coords, attrs={"resolution": 10})).round(3)[0, 0].tolist()
    [2.991, 0.009]
    """
    lon, lat = (corpus[name].to_numpy().astype("float64") for name in ("lon", "lat"))
    if not (np.isfinite(lon) & np.isfinite(lat)).all():
        raise InputError("Some samples have no place (lon or lat is NaN); leave them out with isel(sample=...).")
    return _corners(corpus, lon, lat)


def _corners(corpus: xr.Dataset, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Corners in degrees, shape (samples, 4, 2): all samples of one CRS at a time."""
    import pandas as pd
    from pyproj import Transformer

    tall, wide = (corpus[name].to_numpy().astype("float64") for name in ("height", "width"))
    grid = corpus["transform"].to_numpy() if "transform" in corpus.coords else None
    pixel = float(corpus.attrs.get("resolution", 10))
    crs = corpus["crs"].to_numpy()
    found = np.empty((len(lon), 4, 2))
    codes, names = pd.factorize(crs)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    for name, start, stop in zip(names, starts[:-1], starts[1:], strict=True):
        here = order[start:stop]
        there = Transformer.from_crs("EPSG:4326", str(name), always_xy=True)
        column, row = wide[here, None] * np.array([0, 1, 1, 0]), tall[here, None] * np.array([0, 0, 1, 1])
        if grid is not None and np.isfinite(grid[here]).all():
            a, b, c, d, e, f = (part[:, None] for part in grid[here].T)
        else:  # a grid whose north is up, round the centre
            x, y = there.transform(lon[here], lat[here])
            a, b, d, e = pixel, 0.0, 0.0, -pixel
            c, f = (x - pixel * wide[here] / 2)[:, None], (y + pixel * tall[here] / 2)[:, None]
        east, north = a * column + b * row + c, d * column + e * row + f
        back = there.transform(east.ravel(), north.ravel(), direction="INVERSE")
        found[here] = np.stack(back, axis=-1).reshape(-1, 4, 2)
    if not np.isfinite(found).all():
        worst = int(np.flatnonzero(~np.isfinite(found).all(axis=(1, 2)))[0])
        raise InputError(
            f"The sample at {lon[worst]:.4f}, {lat[worst]:.4f} lies outside the CRS {crs[worst]!r} that it names, so"
            " its ground is unknown; leave it out with isel(sample=...)."
        )
    return found


def arc(chord_m: Any) -> Any:
    """A straight distance through the Earth as one along its surface.

    >>> float(arc(1000.0).round(3))
    1000.0
    """
    return 2 * MEAN_RADIUS_M * np.arcsin(np.minimum(np.asarray(chord_m) / (2 * MEAN_RADIUS_M), 1))


def chord(arc_m: float) -> float:
    """A distance along the surface as one through the Earth.

    >>> round(chord(20_015_087), -3)
    12742000.0
    """
    return float(2 * MEAN_RADIUS_M * np.sin(min(arc_m / (2 * MEAN_RADIUS_M), np.pi / 2)))


def flat(corners: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of footprints as polygons on a plane that touches the Earth between the two, in metres."""
    # Their middle; of two at opposite ends of the world any will do.
    middle = corners.mean(axis=1) + other.mean(axis=1)
    up = middle / np.maximum(np.linalg.norm(middle, axis=1, keepdims=True), 1e-9)
    pole = np.where(np.abs(up[:, 2:]) < 0.9, np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0]))
    east = np.cross(pole, up)
    east /= np.maximum(np.linalg.norm(east, axis=1, keepdims=True), 1e-9)
    north = np.cross(up, east)
    drawn = []
    for each in (corners, other):
        away = each - middle[:, None] / 2
        plane = np.stack([np.einsum("nkc,nc->nk", away, axis) for axis in (east, north)], axis=-1)
        # Seen from above, what lies far off is foreshortened.
        share = np.minimum(np.linalg.norm(plane, axis=-1, keepdims=True) / MEAN_RADIUS_M, 1)
        drawn.append(shapely.polygons(plane * np.where(share > 1e-9, np.arcsin(share) / np.maximum(share, 1e-9), 1)))
    return drawn[0], drawn[1]


def gaps_m(ground: Ground, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Metres between the footprints of pairs of samples; 0 where they touch."""
    found = np.empty(len(left))
    for start in range(0, len(left), PAIRS_AT_A_TIME):
        part = slice(start, start + PAIRS_AT_A_TIME)
        found[part] = shapely.distance(*flat(ground.corners[left[part]], ground.corners[right[part]]))
    return found


def shared(ground: Ground, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Which pairs of samples show some of the same ground; touching is not enough."""
    found = np.zeros(len(left), bool)
    for start in range(0, len(left), PAIRS_AT_A_TIME):
        part = slice(start, start + PAIRS_AT_A_TIME)
        one, two = flat(ground.corners[left[part]], ground.corners[right[part]])
        found[part] = shapely.intersects(shapely.buffer(one, -DEPTH_M / 2), shapely.buffer(two, -DEPTH_M / 2))
    return found


def near_pairs(ground: Ground, left: np.ndarray, right: np.ndarray, within_m: float) -> Iterator[np.ndarray]:
    """Pairs of samples, one of each group, that may be nearer than `within_m`: arrays of shape (pairs, 2)."""
    from scipy.spatial import cKDTree

    if not len(left) or not len(right):
        return
    reach = chord(within_m + float(ground.radius_m[left].max()) + float(ground.radius_m[right].max()))
    tree = cKDTree(ground.centre[right])
    nearest, _ = tree.query(ground.centre[left], distance_upper_bound=reach, workers=-1)
    close = left[np.isfinite(nearest)]
    for start in range(0, len(close), AT_A_TIME):
        some = close[start : start + AT_A_TIME]
        found = cKDTree(ground.centre[some]).sparse_distance_matrix(tree, reach, output_type="ndarray")
        one, two = some[found["i"]], right[found["j"]]
        may = found["v"] <= chord(within_m) + ground.radius_m[one] + ground.radius_m[two]
        yield np.stack([one[may], two[may]], axis=1)


def conflicts(ground: Ground, left: np.ndarray, right: np.ndarray, buffer_m: float) -> Iterator[np.ndarray]:
    """Pairs of samples, one of each group, nearer than `buffer_m`, or (also without one) of partly the same ground."""
    for pairs in near_pairs(ground, left, right, buffer_m):
        if not buffer_m:
            yield pairs[shared(ground, pairs[:, 0], pairs[:, 1])]
            continue
        # Footprints are never farther apart than their centres.
        apart = np.linalg.norm(ground.centre[pairs[:, 0]] - ground.centre[pairs[:, 1]], axis=1)
        near = apart < 0.999 * buffer_m
        unsure = np.flatnonzero(~near)
        near[unsure] = gaps_m(ground, pairs[unsure, 0], pairs[unsure, 1]) < buffer_m
        yield pairs[near]
