"""All dates of a season for each place: which passes of which satellite, and which granules make up each of them.

A window at the edge of a granule is whole in the next one, so of most passes one scene is enough. Where none holds the
whole window the ids of several are joined by "+", the best first; reading fills the gaps of one from the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    import geopandas as gpd

# Granules and frames of one pass of one satellite are sensed within this time.
SAME_PASS_NS = 10 * 60 * 10**9
JOIN = "+"
# Footprints are told to a metre or so.
WHOLE = 1 - 1e-4


@dataclass(frozen=True)
class Dates:
    """The passes of one sensor over one place, in order of time."""

    ids: list[str]
    """The scene of each pass; several are joined by "+"."""
    times: list[Any]
    """When, UTC."""
    cloud_cover: list[float]
    """In percent; NaN where nobody states it."""
    rows: list[int]
    """Where the first scene of each pass stands in the table of scenes."""


def dates_of(
    windows: np.ndarray, crs: Sequence[str | None], scenes: gpd.GeoDataFrame, sensor: str, *, whole: bool = False
) -> list[Dates]:
    """For each window (a polygon in degrees) the passes of one sensor that reach it.

    `crs` is the projection of each window: of two granules that hold it the one in that projection is taken, as its
    pixels need no resampling. With `whole=True` passes that do not hold the whole window are left out.
    """
    from deepsentinel.footprints import drop_reprocessed

    mine = scenes[scenes["sensor"] == sensor]
    if sensor == "S2" and len(mine):
        mine = drop_reprocessed(mine)
    # `row` is where a scene stands in the table that was given.
    rows, shapes = mine.index.to_numpy(), np.asarray(mine.geometry.array, dtype=object)
    hit, found = shapely.STRtree(shapes).query(windows, predicate="intersects")
    times = mine["time"].dt.tz_convert(None).to_numpy("datetime64[ns]").astype("int64")
    platforms, names = mine["platform"].to_numpy(object), mine["id"].to_numpy(object)
    clouds, zones = mine["cloud_cover"].to_numpy(float), mine["crs"].to_numpy(object)
    stamps = mine["time"].to_numpy(object)
    shares = np.ones(len(hit))
    inside = shapely.covers(shapes[found], windows[hit])
    partly = np.flatnonzero(~inside)
    shares[partly] = shapely.area(shapely.intersection(shapes[found[partly]], windows[hit[partly]])) / shapely.area(
        windows[hit[partly]]
    )
    away = np.array([zones[at] != crs[window] for window, at in zip(hit, found, strict=True)], dtype=bool)
    order = np.lexsort([names[found].astype(str) if len(found) else found, times[found], hit])
    hit, found, shares, away = hit[order], found[order], shares[order], away[order]
    starts = np.searchsorted(hit, np.arange(len(windows) + 1))
    result = []
    for window in range(len(windows)):
        passes: list[list[int]] = []
        for at in range(starts[window], starts[window + 1]):
            if shares[at] <= 0:
                continue
            last = found[passes[-1][0]] if passes else None
            same = (
                last is not None
                and times[found[at]] - times[last] <= SAME_PASS_NS
                and platforms[found[at]] == platforms[last]
            )
            if same:
                passes[-1].append(at)
            else:
                passes.append([at])
        dates = Dates([], [], [], [])
        for members in passes:
            # Those that hold it all come first, then the window's own projection, then the larger share.
            best = sorted(
                members, key=lambda at: (shares[at] < WHOLE, bool(away[at]), -shares[at], str(names[found[at]]))
            )
            if whole and shares[best[0]] < WHOLE:
                continue
            used = best[:1] if shares[best[0]] >= WHOLE else best
            first = found[used[0]]
            dates.ids.append(JOIN.join(str(names[found[at]]) for at in used))
            dates.times.append(stamps[first])
            dates.cloud_cover.append(float(clouds[first]))
            dates.rows.append(int(rows[first]))
        result.append(dates)
    return result


def common_crs(windows: np.ndarray, scenes: gpd.GeoDataFrame, fallback: Sequence[str]) -> list[str]:
    """For each window the projection of most of the granules that hold it whole; `fallback` where none does."""
    mine = scenes[(scenes["sensor"] == "S2") & scenes["crs"].notna()]
    if not len(mine):
        mine = scenes[scenes["crs"].notna()]
    if not len(mine):
        return list(fallback)
    shapes, zones = np.asarray(mine.geometry.array, dtype=object), mine["crs"].to_numpy(object)
    hit, found = shapely.STRtree(shapes).query(windows, predicate="covered_by")
    chosen = list(fallback)
    starts = np.searchsorted(hit, np.arange(len(windows) + 1))
    for window in range(len(windows)):
        names, counts = np.unique(zones[found[starts[window] : starts[window + 1]]].astype(str), return_counts=True)
        if len(names):
            own = counts * 2 + (names == fallback[window])  # of equals the zone of the place itself
            chosen[window] = str(names[np.argmax(own)])
    return chosen
