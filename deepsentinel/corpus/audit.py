"""The proof that splits have no ground in common: the closest two samples of each two splits, over all dates.

It reckons by itself, and not as `split` does, which looks at a plane: here corners and edges are taken in space, and
whether two footprints share ground is asked of the great circles along their edges. So it also judges splits that
others made, and a mistake in the one is not repeated in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

EARTH_M = 6_371_008.8
# So many samples look for their neighbours, and so many pairs are measured, at a time.
ROWS, PAIRS = 2_000, 20_000
# Ground that two samples share counts from this depth on: neighbours that touch share none.
DEPTH_M = 1.0


@dataclass(frozen=True, eq=False)
class AuditReport:
    """How far apart splits are."""

    table: pd.DataFrame
    """A row for each two splits: the closest distance in metres, which two samples, where, how many are too near."""
    buffer_m: float
    """What was asked for."""
    samples: dict[str, int]
    """How many samples each split has."""

    @property
    def ok(self) -> bool:
        """Whether no two samples of different splits are nearer than the buffer, and no place is in two splits."""
        return not (self.table["too_near"].any() or self.table["shared_places"].any())

    @property
    def closest_m(self) -> float:
        """The closest that two samples of different splits come."""
        return float(self.table["closest_m"].min())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {count:,}" for name, count in self.samples.items())
        verdict = "apart" if self.ok else "NOT apart"
        lines = [f"{verdict}: {self.closest_m:,.0f} m at the closest, {self.buffer_m:,.0f} m asked for ({parts})"]
        lines += [f"  {_told(row)}" for row in self.table.to_dict("records")]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"


def audit_splits(splits: Sequence[xr.Dataset], buffer_m: float | None = None, *, leaks: str = "raise") -> AuditReport:
    """Measure how far apart splits are, all dates and twins included, and raise if any two samples are too near.

    `buffer_m` is what no two samples of different splits may be nearer than, measured between their footprints; None
    takes what the splits were made with. 0 only asks that they share no ground. `leaks="report"` returns the report
    also where there are some.

    >>> import xarray as xr
    >>> same = {"lat": 0.0, "crs": "EPSG:32631", "height": 100, "width": 100}
    >>> def at(lon):
    ...     coords = {name: ("sample", [value]) for name, value in {"lon": lon, **same}.items()}
    ...     return xr.Dataset(coords=coords, attrs={"resolution": 10})
    >>> round(audit_splits([at(3.0), at(3.1)], buffer_m=5000).closest_m, -2)
    10100.0
    """
    parts = list(splits)
    if len(parts) < 2 or not all(hasattr(part, "coords") and "sample" in part.dims for part in parts):
        raise InputError("An audit takes two or more parts of a corpus: audit_splits([train, val, test]).")
    if leaks not in ("raise", "report"):
        raise InputError(f"leaks={leaks!r} is neither 'raise' nor 'report'.")
    told = [part.attrs.get("split") for part in parts]
    notes = [dict(note) if isinstance(note, dict) else {} for note in told]
    if buffer_m is None:
        asked = [note.get("buffer_m") for note in notes]
        if any(each is None for each in asked):
            raise InputError("These splits do not say how far apart they should be; give buffer_m=.")
        buffer_m = max(float(each) for each in asked if each is not None)
    names = _names(notes)
    ground = [_Footprints(part) for part in parts]
    rows = []
    for one, two in combinations(range(len(parts)), 2):
        row = {"first": names[one], "second": names[two], **_between(ground[one], ground[two], float(buffer_m))}
        row["shared_places"] = _in_both(parts[one], parts[two])
        rows.append(row)
    import pandas as pd

    report = AuditReport(
        pd.DataFrame(rows),
        float(buffer_m),
        {name: part.sizes["sample"] for name, part in zip(names, parts, strict=True)},
    )
    if not report.ok and leaks == "raise":
        raise InputError(_leak(report, by_time=any(note.get("by") == "time" for note in notes)))
    return report


def _names(notes: list[dict[str, Any]]) -> list[str]:
    names = [str(note.get("name") or f"split {number}") for number, note in enumerate(notes)]
    return names if len(set(names)) == len(names) else [f"{name} ({at})" for at, name in enumerate(names)]


def _leak(report: AuditReport, *, by_time: bool) -> str:
    bad = report.table[(report.table["too_near"] > 0) | (report.table["shared_places"] > 0)].to_dict("records")
    hint = (
        "They were split by time, and so share their places on purpose."
        if by_time
        else "Split again with deepsentinel.split(corpus, by='space', buffer_m=...), and mix nothing afterwards."
    )
    return f"These splits are not {report.buffer_m:,.0f} m apart. {' '.join(_told(row) + '.' for row in bad)} {hint}"


def _told(row: dict[Any, Any]) -> str:
    many = f"{row['too_near']:,} of the samples too near" if row["too_near"] else "none too near"
    shared = f", {row['shared_places']:,} place(s) in both" if row["shared_places"] else ""
    return (
        f"{row['first']} and {row['second']}: {row['closest_m']:,.0f} m at the closest, between samples"
        f" {row['first_sample']} ({row['first_id']}) and {row['second_sample']} ({row['second_id']}) at"
        f" {row['lat']:.4f}, {row['lon']:.4f}; {many}{shared}"
    )


class _Footprints:
    """The footprints of one split's samples in metres from the centre of the Earth."""

    def __init__(self, part: xr.Dataset) -> None:
        need = ("lon", "lat", "crs", "height", "width")
        if missing := [name for name in need if name not in part.coords]:
            raise InputError(f"A split does not say where its samples lie: it has no coordinate {missing[0]!r}.")
        if not part.sizes["sample"]:
            raise InputError("A split is empty, so there is nothing to measure.")
        self.part = part
        self.lon, self.lat = part["lon"].to_numpy(), part["lat"].to_numpy()
        self.corners = np.empty((len(self.lon), 4, 3))
        import pandas as pd

        for name, here in pd.Series(range(len(self.lon))).groupby(part["crs"].to_numpy()):
            self.corners[here] = self._in_space(here.to_numpy(), str(name))
        self.centre = self.corners.mean(axis=1)
        self.reach_m = np.linalg.norm(self.corners - self.centre[:, None], axis=-1).max(axis=1)

    def _in_space(self, here: np.ndarray, crs: str) -> np.ndarray:
        from pyproj import Transformer

        high, wide = (self.part[name].to_numpy()[here].astype("float64") for name in ("height", "width"))
        grid = self.part["transform"].to_numpy()[here] if "transform" in self.part.coords else np.full((1, 6), np.nan)
        if not np.isfinite(grid).all():
            pixel = float(self.part.attrs.get("resolution", 10))
            there = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
            x, y = there.transform(self.lon[here], self.lat[here])
            zero = np.zeros(len(here))
            sides = (zero + pixel, zero, x - pixel * wide / 2, zero, zero - pixel, y + pixel * high / 2)
            grid = np.stack(sides, axis=-1)
        to_space = Transformer.from_crs(crs, "EPSG:4978", always_xy=True)
        ring = []
        for right, down in ((0, 0), (1, 0), (1, 1), (0, 1)):
            x = grid[:, 0] * wide * right + grid[:, 1] * high * down + grid[:, 2]
            y = grid[:, 3] * wide * right + grid[:, 4] * high * down + grid[:, 5]
            ring.append(np.stack(to_space.transform(x, y, np.zeros(len(x))), axis=-1))
        return np.stack(ring, axis=1)

    def name(self, at: int, coordinate: str) -> Any:
        """What the sample is called; its place in the split where it has no such name."""
        if coordinate not in self.part.coords:
            return at
        found = self.part[coordinate].to_numpy()[at]
        return found.item() if hasattr(found, "item") else found


def _between(one: _Footprints, two: _Footprints, buffer_m: float) -> dict[str, Any]:
    """The closest pair of two splits and how many samples are too near, each measured exactly where it matters."""
    from scipy.spatial import cKDTree

    tree = cKDTree(two.centre)
    # Splits far apart are slow to search to the end: a few samples, then more, tell how far one has to look at all.
    rows, bound = np.random.default_rng(0).permutation(len(one.lon)), np.inf
    apart, mate = np.full(len(rows), np.inf), np.zeros(len(rows), "int64")
    slack = 2 * float(one.reach_m.max() + two.reach_m.max())
    for step in (rows[:500], rows[500:20_000], rows[20_000:]):
        apart[step], mate[step] = tree.query(one.centre[step], distance_upper_bound=bound, workers=-1)
        bound = max(min(bound, float(apart.min())), buffer_m) + slack
    likely = np.argsort(apart, kind="stable")[:ROWS]
    likely = likely[np.isfinite(apart[likely])]
    found = _measured(one, two, likely, mate[likely])
    first = int(np.argmin(found))
    best, pair = float(found[first]), (int(likely[first]), int(mate[likely[first]]))
    # Footprints are at most as far apart as their centres, and at least by so much less as both reach out.
    widest = float(two.reach_m.max())
    near = np.flatnonzero(apart - one.reach_m - widest < max(best, buffer_m))
    nearest = np.full(len(apart), np.inf)
    for start in range(0, len(near), ROWS):
        rows = near[start : start + ROWS]
        reach = max(best, buffer_m) + float(one.reach_m[rows].max()) + widest
        close = cKDTree(one.centre[rows]).sparse_distance_matrix(tree, reach, output_type="ndarray")
        left, right = rows[close["i"]], close["j"]
        may = close["v"] - one.reach_m[left] - two.reach_m[right] <= max(best, buffer_m)
        left, right = left[may], right[may]
        for some in range(0, len(left), PAIRS):
            part = slice(some, some + PAIRS)
            found = _measured(one, two, left[part], right[part])
            np.minimum.at(nearest, left[part], found)
            if found.size and found.min() < best:
                first = int(np.argmin(found))
                best, pair = float(found[first]), (int(left[part][first]), int(right[part][first]))
    left_at, right_at = pair
    return {
        "closest_m": float(2 * EARTH_M * np.arcsin(min(max(best, 0.0) / (2 * EARTH_M), 1))),
        "first_sample": one.name(left_at, "sample"),
        "second_sample": two.name(right_at, "sample"),
        "first_id": one.name(left_at, "id"),
        "second_id": two.name(right_at, "id"),
        "lon": float(one.lon[left_at]),
        "lat": float(one.lat[left_at]),
        # The buffer runs along the ground, and what was measured straight through it.
        "too_near": int((nearest < _straight(buffer_m)).sum()) if buffer_m else int((nearest < 0).sum()),
    }


def _straight(along_m: float) -> float:
    return float(2 * EARTH_M * np.sin(min(along_m / (2 * EARTH_M), np.pi / 2)))


def _measured(one: _Footprints, two: _Footprints, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Metres between pairs of footprints, straight through the ground; -1 where they share some of it."""
    a, b = one.corners[left], two.corners[right]
    apart = np.minimum(_corners_to_edges(a, b), _corners_to_edges(b, a))
    for corners, reach in ((a, one.reach_m[left]), (b, two.reach_m[right])):
        middle = corners.mean(axis=1, keepdims=True)
        corners -= (corners - middle) * np.minimum(DEPTH_M / np.sqrt(2) / reach, 0.5)[:, None, None]
    return np.where(_overlap(a, b), -1.0, apart)


def _corners_to_edges(corners: np.ndarray, other: np.ndarray) -> np.ndarray:
    """From the corners of the one to the edges of the other, the shortest way."""
    begin, end = other, np.roll(other, -1, axis=1)
    along = (end - begin)[:, None]
    away = corners[:, :, None] - begin[:, None]
    part = np.clip((away * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12), 0, 1)
    return np.asarray(np.sqrt(((away - part[..., None] * along) ** 2).sum(-1)).min(axis=(1, 2)))


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether two convex outlines on a globe share ground: no edge of either has all of the other beyond it."""
    separated = np.zeros(len(a), bool)
    for outline, other in ((a, b), (b, a)):
        # The plane through an edge and the centre of the Earth; the outline lies on one side of it.
        normal = np.cross(outline, np.roll(outline, -1, axis=1))
        inside = np.sign((normal * outline.mean(axis=1, keepdims=True)).sum(-1))
        sides = np.einsum("nec,nkc->nek", normal, other) * inside[..., None]
        separated |= (sides <= 0).all(axis=2).any(axis=1)
    return ~separated


def _in_both(one: xr.Dataset, two: xr.Dataset) -> int:
    """How many places are in both splits, by their numbers or by the ids that twins share."""
    found = 0
    for name in ("place", "id"):
        if name in one.coords and name in two.coords:
            import pandas as pd

            found = max(found, len(pd.Index(one[name].to_numpy()).unique().intersection(two[name].to_numpy())))
    return found
