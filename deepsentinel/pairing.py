"""Which Sentinel-1 scene goes with which Sentinel-2 scene, and how often one does, before any pixel is read.

Time and space both thin out the combinations, and neither alone is enough: scenes from all over the world share a day,
and scenes of one place share a footprint. So the Sentinel-2 scenes go through in short runs of time; for each run a
search tree over the Sentinel-1 footprints within reach in time finds those nearby, and only these are overlaid. A run
also bounds the memory, and as all partners of a Sentinel-2 scene turn up in its run, the choice between them is made
there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from .errors import InputError, warn
from .footprints import (
    SENSORS,
    SHARE_TOLERANCE,
    check_number,
    check_scenes,
    clip,
    drop_reprocessed,
    nothing,
    one_per_pass,
    passes,
    place_of,
    polygonal,
    spherical_area,
    utm_zones,
)
from .selection import Weights as Weights
from .selection import select as select

Best = Literal["all", "s2", "place"]

PAIR_COLUMNS = (
    "s1_id",
    "s2_id",
    "s1_time",
    "s2_time",
    "gap_hours",
    "overlap",
    "cloud_cover",
    "orbit",
    "relative_orbit",
    "tile",
    "geometry",
)

# In the order of pairs, a gap of three days weighs as much as half of the sky being cloudy.
GAP_HALF_LIFE_HOURS = 72.0
# A scene whose catalog tells no cloud cover ranks between the clear and the cloudy ones.
UNKNOWN_CLOUD_PERCENT = 50.0

# A hundred years: beyond the archive of any Sentinel, and within what nanoseconds in 64 bits can count.
MAX_DAYS = 36_500

_HOUR_NS = 3_600_000_000_000
_RUN_SCENES = 256
_DRAWN_DATES = 400
_TABLE_DAYS = 15


def pair(
    scenes: gpd.GeoDataFrame,
    *,
    aoi: Any = None,
    max_days: float = 3,
    best: Best = "all",
    min_overlap: float = 0.0,
) -> gpd.GeoDataFrame:
    """All combinations of a Sentinel-1 and a Sentinel-2 scene at most `max_days` apart that share ground.

    Parameters
    ----------
    scenes
        A scenes table of both sensors, from `source.search`. The order of its rows does not matter.
    aoi
        The area of interest, anything `deepsentinel.aoi.area` takes. The scenes must share ground within it, and of one
        pass of a satellite only the scene is taken that covers it best: of Sentinel-2's granules the one with the
        largest share of the area, of Sentinel-1's frames the one that shares most of the area with the granule.
    max_days
        The longest gap, included; fractions of days are fine.
    best
        "all" combinations; or "s2": for each Sentinel-2 scene the Sentinel-1 pass nearest in time, in its frame of
        largest overlap; or "place": the one pair that comes first in the order below for the area, or without an `aoi`
        for each MGRS tile.
    min_overlap
        The smallest share that counts, 0 to 1. Scenes that share no ground never pair.

    Returns
    -------
    GeoDataFrame
        `s1_id, s2_id, s1_time, s2_time, gap_hours` (Sentinel-1 minus Sentinel-2), `overlap` (the share of the area, or
        without one of the Sentinel-2 footprint, that both cover), `cloud_cover, orbit, relative_orbit, tile, geometry`
        (what both cover). The best pair comes first: sorted by overlap x clear sky x closeness, where closeness halves
        with every three days of gap, then by time. It may be empty; then `attrs["hint"]` says why, and so does a
        `DeepSentinelWarning`.

    Of Sentinel-2 products that repeat a datatake and tile after a reprocessing only the newest baseline is used.

        >>> import deepsentinel as ds
        >>> src = ds.open_source("demo", size_px=256)
        >>> scenes = src.search(src.area, "2018-05-01", "2018-08-31")
        >>> pairs = ds.pair(scenes, aoi=src.area, max_days=1.5, best="s2")
        >>> bool((pairs.gap_hours.abs() <= 36).all() and pairs.s2_id.is_unique)
        True
    """
    if best not in get_args(Best):
        raise InputError(f"best={best!r} is not a choice; take one of {', '.join(map(repr, get_args(Best)))}")
    sides = _sides(scenes, aoi, max_days, min_overlap)
    if best == "place" and aoi is None and sides.s2["tile"].isna().any():
        raise InputError("best='place' needs an aoi=, or scenes that all have an MGRS tile, to know what a place is")
    pairs = _ranked(_pairs(sides, max_days, min_overlap, nearest_only=best == "s2"))
    if best == "place":
        pairs = pairs.head(1) if aoi is not None else pairs.drop_duplicates("tile")
    pairs = pairs.reset_index(drop=True)
    pairs.attrs = {name: scenes.attrs[name] for name in ("source", "searched") if name in scenes.attrs}
    if pairs.empty:
        pairs.attrs["hint"] = hint = _why_empty(sides, max_days, min_overlap)
        warn(hint)
    return pairs


@dataclass(frozen=True)
class _Sides:
    """The scenes of both sensors, ready to pair: columns `ground` (what of each scene counts) and `pass_key`."""

    s1: gpd.GeoDataFrame
    s2: gpd.GeoDataFrame
    place: shapely.Geometry | None


def _sides(scenes: gpd.GeoDataFrame, aoi: Any, max_days: float, min_overlap: float) -> _Sides:
    check_number("max_days", max_days, highest=MAX_DAYS, example="max_days=3")
    check_number("min_overlap", min_overlap, highest=1, example="min_overlap=0.5")
    clean = check_scenes(scenes)
    for sensor, name in SENSORS.items():
        if not (clean["sensor"] == sensor).any():
            raise nothing(
                scenes,
                f"There is no {name} scene among the {len(clean)} to pair",
                f"search with sensors=('S1', 'S2'), a longer period{' or more cloud' if sensor == 'S2' else ''}",
            )
    place = None if aoi is None else place_of(aoi)
    footprints = clean.geometry.to_numpy()
    if place is None:
        clean = clean.assign(ground=footprints)
    else:
        ground, share = clip(footprints, place)
        clean = clean.assign(ground=ground, overlap=share)[share > 0]
    clean = clean.assign(pass_key=passes(clean))
    s1, s2 = clean[clean["sensor"] == "S1"], drop_reprocessed(clean[clean["sensor"] == "S2"])
    if place is not None:
        s2 = one_per_pass(s2, place)
    return _Sides(s1.reset_index(drop=True), s2.reset_index(drop=True), place)


def _pairs(sides: _Sides, max_days: float, min_overlap: float, *, nearest_only: bool) -> gpd.GeoDataFrame:
    s1, s2 = sides.s1, sides.s2
    ground1, ground2 = s1["ground"].to_numpy(), s2["ground"].to_numpy()
    time1, time2 = (side["time"].to_numpy("datetime64[ns]").astype("int64") for side in (s1, s2))
    area1, area2 = spherical_area(ground1), spherical_area(ground2)
    whole = area2 if sides.place is None else np.full(len(s2), spherical_area(np.array([sides.place]))[0])
    pass1 = s1.groupby(["pass_key", "backscatter"], dropna=False, sort=False).ngroup().to_numpy()
    # A frame on the granule's own grid is read as it is; one in the next zone would have to be resampled.
    zone1, zone2 = utm_zones(s1), utm_zones(s2)
    floor = max(min_overlap - SHARE_TOLERANCE, 0.0)

    found: list[pd.DataFrame] = []
    for row1, row2 in _nearby(ground1, time1, ground2, time2, round(max_days * 24 * _HOUR_NS)):
        fits = np.minimum(area1[row1], area2[row2]) >= floor * whole[row2]
        row1, row2 = row1[fits], row2[fits]
        shared, size = _overlay(ground1, ground2, area1, area2, row1, row2)
        overlap = np.minimum(size / whole[row2], 1.0)
        run = pd.DataFrame({"row1": row1, "row2": row2, "overlap": overlap, "geometry": shared})
        run = run[(overlap > 0) & (overlap >= floor)]
        if sides.place is not None or nearest_only:
            run = run.assign(
                pass1=pass1[run["row1"]],
                less=-np.round(run["overlap"] / SHARE_TOLERANCE),
                away=zone1[run["row1"]] != zone2[run["row2"]],
                gap=np.abs(time1[run["row1"]] - time2[run["row2"]]),
            ).sort_values(["less", "away", "row1"])
            run = run.drop_duplicates(["row2", "pass1"])
        if nearest_only:
            run = run.sort_values(["gap", "less", "away", "row1"]).drop_duplicates("row2")
        found.append(run[["row1", "row2", "overlap", "geometry"]])
    return _table(s1, s2, pd.concat(found) if found else pd.DataFrame(columns=["row1", "row2", "overlap", "geometry"]))


def _nearby(
    ground1: np.ndarray, time1: np.ndarray, ground2: np.ndarray, time2: np.ndarray, reach_ns: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers of pairs within `reach_ns` whose bounding boxes touch, run by run of Sentinel-2 scenes.

    A footprint that is cut at 180 degrees has a box around the whole Earth; its parts have not, so the tree holds
    parts.
    """
    parts1, owner1 = shapely.get_parts(ground1, return_index=True)
    parts2, owner2 = shapely.get_parts(ground2, return_index=True)
    in_parts = len(parts1) + len(parts2) != len(ground1) + len(ground2)
    for first in range(0, len(time2), _RUN_SCENES):
        end = min(first + _RUN_SCENES, len(time2))
        low = np.searchsorted(time1, time2[first] - reach_ns, side="left")
        high = np.searchsorted(time1, time2[end - 1] + reach_ns, side="right")
        low1, high1 = np.searchsorted(owner1, (low, high))
        low2, high2 = np.searchsorted(owner2, (first, end))
        hit2, hit1 = shapely.STRtree(parts1[low1:high1]).query(parts2[low2:high2])
        row1, row2 = owner1[low1:high1][hit1], owner2[low2:high2][hit2]
        near = np.abs(time1[row1] - time2[row2]) <= reach_ns
        row1, row2 = row1[near], row2[near]
        if in_parts:
            row2, row1 = np.unique(np.stack([row2, row1], axis=1), axis=0).T
        yield row1, row2


def _overlay(
    ground1: np.ndarray, ground2: np.ndarray, area1: np.ndarray, area2: np.ndarray, row1: np.ndarray, row2: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What each pair shares, and its area. Overlay is slow and a test for containment fast, so that comes first."""
    a, b = ground1[row1], ground2[row2]
    shared, size = b.copy(), area2[row2]
    rest = np.flatnonzero(~((a == b) | shapely.covers(a, b)))
    inner = rest[shapely.covers(b[rest], a[rest])]
    shared[inner], size[inner] = a[inner], area1[row1[inner]]
    rest = np.setdiff1d(rest, inner, assume_unique=True)
    shared[rest] = polygonal(shapely.intersection(a[rest], b[rest]))
    size[rest] = spherical_area(shared[rest])
    return shared, size


def _table(s1: gpd.GeoDataFrame, s2: gpd.GeoDataFrame, found: pd.DataFrame) -> gpd.GeoDataFrame:
    left = s1.iloc[found["row1"].to_numpy(dtype=int)].reset_index(drop=True)
    right = s2.iloc[found["row2"].to_numpy(dtype=int)].reset_index(drop=True)
    return gpd.GeoDataFrame(
        {
            "s1_id": left["id"],
            "s2_id": right["id"],
            "s1_time": left["time"],
            "s2_time": right["time"],
            "gap_hours": (left["time"] - right["time"]) / pd.Timedelta(hours=1),
            "overlap": found["overlap"].to_numpy(dtype=float),
            "cloud_cover": right["cloud_cover"],
            "orbit": left["orbit"],
            "relative_orbit": left["relative_orbit"].astype("Int64"),
            "tile": right["tile"],
        },
        geometry=gpd.GeoSeries(found["geometry"].to_numpy(), crs="EPSG:4326"),
    )[list(PAIR_COLUMNS)]


def _ranked(pairs: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """The best pair first: overlap x clear sky x closeness in time."""
    clear = 1 - pairs["cloud_cover"].fillna(UNKNOWN_CLOUD_PERCENT).clip(0, 100) / 100
    closeness = 0.5 ** (pairs["gap_hours"].abs() / GAP_HALF_LIFE_HOURS)
    return (
        pairs.assign(worth=(pairs["overlap"] * clear * closeness).round(9))
        .sort_values(["worth", "s2_time", "s1_time", "s2_id", "s1_id"], ascending=[False, True, True, True, True])
        .drop(columns="worth")
    )


def _why_empty(sides: _Sides, max_days: float, min_overlap: float) -> str:
    for sensor, side in (("S1", sides.s1), ("S2", sides.s2)):
        if side.empty:
            return (
                f"No pairs: none of the {SENSORS[sensor]} scenes touches the area; search with the aoi you pair with."
            )
    for days in (2 * max_days, 8 * max_days, 64 * max_days, MAX_DAYS):
        wider = _pairs(sides, min(days, MAX_DAYS), min_overlap, nearest_only=True)
        if len(wider):
            nearest_days = wider["gap_hours"].abs().min() / 24
            return (
                f"No pairs: of {len(sides.s1)} Sentinel-1 and {len(sides.s2)} Sentinel-2 scenes no two share ground "
                f"within {max_days:g} days; the nearest two are {nearest_days:.2f} days apart, so try "
                f"max_days={np.ceil(nearest_days * 10) / 10:g}."
            )
    return (
        f"No pairs: no Sentinel-1 scene shares {f'{min_overlap:.0%} of the' if min_overlap else 'any'} ground with a "
        "Sentinel-2 scene at any time; search a larger area or a longer period, or lower min_overlap."
    )


@dataclass(frozen=True, eq=False)
class MatchRate:
    """How many Sentinel-2 dates have a Sentinel-1 partner."""

    dates: int
    """Sentinel-2 dates: passes over the area, or without an area scenes."""

    matched: int
    """Dates with a partner within `max_days`."""

    max_days: float
    """The longest gap that counts, in days."""

    by_days: pd.DataFrame
    """Index `max_days` (0.5, 1, 2, ...), columns `matched` and `share`: what a shorter gap would leave."""

    by_month: pd.DataFrame
    """Index `month` ("2018-05"), columns `dates`, `matched` and `share`."""

    nearest: pd.DataFrame
    """One row a date: `s2_id, s2_time, cloud_cover, s1_id, gap_hours` of the nearest partner, if there is one."""

    @property
    def share(self) -> float:
        """The share of dates with a partner, 0 to 1."""
        return self.matched / self.dates if self.dates else 0.0

    def __repr__(self) -> str:
        period = ""
        if self.dates:
            first, last = self.nearest["s2_time"].iloc[[0, -1]].dt.strftime("%Y-%m-%d")
            period = f", {first} to {last}"
        lines = [
            f"{self.matched} of {self.dates} Sentinel-2 dates ({self.share:.0%}) have a Sentinel-1 partner within "
            f"{self.max_days:g} days{period}",
            "  within " + "".join(f"{f'{days:g} d':>8}" for days in self.by_days.index),
            "  share  " + "".join(f"{share:>8.0%}" for share in self.by_days["share"]),
        ]
        if self.dates <= _DRAWN_DATES:
            counts = zip(self.by_month.index, self.by_month["dates"], self.by_month["matched"], strict=True)
            lines += [f"  {month}  {'#' * hits}{'.' * (dates - hits)} {hits}/{dates}" for month, dates, hits in counts]
        return "\n".join(lines)


def match_rate(
    scenes: gpd.GeoDataFrame, *, aoi: Any = None, max_days: float = 3, min_overlap: float = 0.0
) -> MatchRate:
    """How many Sentinel-2 dates have a Sentinel-1 partner, overall, by month and by gap, before anything is read.

    With an `aoi` a date is a pass over it, without one a scene; `pair(..., best="s2")` has a row for each matched date.

        >>> import deepsentinel as ds
        >>> src = ds.open_source("demo", size_px=256)
        >>> scenes = src.search(src.area, "2018-05-01", "2018-08-31")
        >>> ds.match_rate(scenes, aoi=src.area, max_days=3).share
        1.0
    """
    sides = _sides(scenes, aoi, max_days, min_overlap)
    pairs = _pairs(sides, max_days, min_overlap, nearest_only=True)
    nearest = sides.s2[["id", "time", "cloud_cover"]].rename(columns={"id": "s2_id", "time": "s2_time"})
    nearest = pd.DataFrame(nearest).merge(pd.DataFrame(pairs[["s2_id", "s1_id", "gap_hours"]]), on="s2_id", how="left")
    gap_days = nearest["gap_hours"].abs() / 24
    whole_days = range(1, min(int(np.ceil(max_days)), _TABLE_DAYS))
    steps = sorted({float(days) for days in (0.5, *whole_days, max_days) if days <= max_days})
    by_days = pd.DataFrame(
        {"matched": [int((gap_days <= days + 1e-9).sum()) for days in steps]}, index=pd.Index(steps, name="max_days")
    )
    by_days["share"] = by_days["matched"] / max(len(nearest), 1)
    month = nearest["s2_time"].dt.strftime("%Y-%m").rename("month")
    by_month = nearest.groupby(month).agg(dates=("s2_id", "size"), matched=("s1_id", "count"))
    by_month["share"] = by_month["matched"] / by_month["dates"]
    return MatchRate(len(nearest), int(nearest["s1_id"].notna().sum()), float(max_days), by_days, by_month, nearest)
