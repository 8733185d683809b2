"""Points that keep a distance: of a stream of candidates each is taken that is far enough from all taken before it."""

from __future__ import annotations

import numpy as np
import pyproj

from deepsentinel.errors import InputError

# Half the way around the Earth: farther apart no two points are.
MAX_DISTANCE_M = 20_003_931.0
# The largest radius that the ellipsoid's surface is curved with anywhere. With it a chord is never taken for shorter
# than it is, and so no two points are closer than asked for; at 100 km it makes a difference of centimetres.
_RADIUS_M = 6_399_594.0
# Space is full when of this many candidates in a row, or this many a point that was taken, hardly any fitted in.
FULL_AFTER, FULL_AFTER_EACH, HARDLY = 20_000, 20, 1e-3


def check_distance(min_distance_m: object) -> float:
    """A distance in metres, or an error that says how to write one."""
    number = isinstance(min_distance_m, int | float | np.number) and not isinstance(min_distance_m, bool)
    if not (number and 0 <= float(min_distance_m) <= MAX_DISTANCE_M):  # type: ignore[arg-type]
        raise InputError(
            f"min_distance_m={min_distance_m!r} is not a distance on Earth; give metres, such as min_distance_m=5000."
        )
    return float(min_distance_m)  # type: ignore[arg-type]


class Spaced:
    """Points taken so far, each at least `min_distance_m` from every other.

    >>> taken = Spaced(100_000)
    >>> taken.add(np.array([0.0, 0.5, 1.0]), np.zeros(3)).tolist()
    [True, False, True]
    """

    def __init__(self, min_distance_m: float) -> None:
        self._reach_m = 2 * _RADIUS_M * np.sin(min(min_distance_m / (2 * _RADIUS_M), np.pi / 2))
        self._taken = np.empty((0, 3))

    def add(self, lon: np.ndarray, lat: np.ndarray, most: int | None = None) -> np.ndarray:
        """Which of these points were taken, `most` of them at most, as if they had come one after another."""
        taken = np.zeros(len(lon), dtype=bool)
        start, left = 0, len(lon) if most is None else most
        while start < len(lon) and left:
            # As many at once as were taken before: more would mostly be in the way of each other.
            end = start + max(256, len(self._taken))
            rows = start + self._add_some(lon[start:end], lat[start:end], left)
            taken[rows] = True
            start, left = end, left - len(rows)
        return taken

    def _add_some(self, lon: np.ndarray, lat: np.ndarray, most: int) -> np.ndarray:
        from scipy.spatial import cKDTree

        xyz = _earth_centred(lon, lat)
        rows = np.arange(len(xyz))
        # Just short of it: points at exactly the distance are far enough.
        reach = np.nextafter(self._reach_m, 0)
        if len(self._taken):
            nearest, _ = cKDTree(self._taken).query(xyz, distance_upper_bound=self._reach_m)
            rows = np.flatnonzero(nearest >= self._reach_m)
        if len(rows):
            rows = rows[_greedy(len(rows), cKDTree(xyz[rows]).query_pairs(reach, output_type="ndarray"))][:most]
        self._taken = np.concatenate([self._taken, xyz[rows]])
        return rows


def _greedy(count: int, close: np.ndarray) -> np.ndarray:
    """What taking one after another leaves, all at once: in each round those that nobody before them can refuse."""
    early, late = np.sort(close, axis=1).T
    open_, taken = np.ones(count, dtype=bool), np.zeros(count, dtype=bool)
    while open_.any():
        refused = np.zeros(count, dtype=bool)
        refused[late[open_[early] & open_[late]]] = True
        sure = open_ & ~refused
        taken |= sure
        open_ &= ~sure
        open_[late[sure[early]]] = False
        live = open_[early] & open_[late]
        early, late = early[live], late[live]
    return taken


class Fullness:
    """Tells when space is full: of the last many candidates hardly any fitted in."""

    def __init__(self) -> None:
        self.count = self._tried = self._fitted = 0

    def full_after(self, tried: int, fitted: int) -> bool:
        """Whether it is, after so many more were tried and so many of them fitted."""
        self.count += fitted
        self._tried += tried
        self._fitted += fitted
        if self._tried < max(FULL_AFTER, FULL_AFTER_EACH * self.count):
            return False
        full = self._fitted <= HARDLY * self._tried
        self._tried = self._fitted = 0
        return full


def _earth_centred(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Metres from the middle of the Earth along three axes, where distances need no thought of poles and dates."""
    ellipsoid = pyproj.Geod(ellps="WGS84")
    lam, phi = np.radians(lon), np.radians(lat)
    across = ellipsoid.a / np.sqrt(1 - ellipsoid.es * np.sin(phi) ** 2)
    level = across * np.cos(phi)
    return np.stack([level * np.cos(lam), level * np.sin(lam), across * (1 - ellipsoid.es) * np.sin(phi)], axis=1)
