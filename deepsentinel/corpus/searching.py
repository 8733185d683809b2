"""Scenes for many places with few searches: places are put into boxes, and each box is searched once.

A search of the whole Earth for a thousand points would list every scene there is; one for each point would be a
thousand searches, most of them for what the one before has found. So the points are cut in two where the gap between
them is widest, until every box is small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import NothingFoundError
from deepsentinel.progress import progress

if TYPE_CHECKING:
    import geopandas as gpd

    from deepsentinel.sources import Source

# A box of two degrees holds some twenty tiles: a few pages of scenes for a season.
BOX_DEG = 2.0
# So many searches are made before the bar appears.
FEW = 4


def boxes(lon: np.ndarray, lat: np.ndarray, most_deg: float = BOX_DEG) -> list[np.ndarray]:
    """Groups of positions, none of which spans more than `most_deg` in longitude or latitude; from west to east.

    >>> [group.tolist() for group in boxes(np.array([0.0, 9.0, 0.5]), np.array([0.0, 0.0, 1.0]))]
    [[0, 2], [1]]
    """
    found: list[np.ndarray] = []
    left = [np.arange(len(lon))] if len(lon) else []
    while left:
        group = left.pop()
        spans = [float(np.ptp(axis[group])) for axis in (lon, lat)]
        if max(spans) <= most_deg:
            found.append(np.sort(group))
            continue
        axis = lon if spans[0] >= spans[1] else lat
        order = group[np.argsort(axis[group], kind="stable")]
        gaps = np.diff(axis[order])
        # Of gaps that are alike the one nearest to the middle, so that a dense cover is halved and not shaved.
        middle = np.abs(np.arange(len(gaps)) - (len(gaps) - 1) / 2)
        wide = np.flatnonzero(gaps >= 0.5 * gaps.max())
        cut = int(wide[np.argmin(middle[wide])]) + 1
        left += [order[cut:], order[:cut]]
    return found


def search_scenes(
    source: Source,
    lon: np.ndarray,
    lat: np.ndarray,
    *,
    size_m: float,
    start: Any,
    end: Any,
    sensors: Sequence[str],
    max_cloud: float | None,
) -> tuple[gpd.GeoDataFrame, int]:
    """All scenes around the places, each once, and how many searches that took; none found is an empty table."""
    import geopandas as gpd
    import pandas as pd

    groups = boxes(lon, lat)
    steps = progress(groups, total=len(groups), what="searching", unit="box") if len(groups) > FEW else iter(groups)
    found = []
    for group in steps:
        try:
            found.append(
                source.search(
                    _around(lon[group], lat[group], size_m), start, end, sensors=tuple(sensors), max_cloud=max_cloud
                )
            )
        except NothingFoundError:
            continue  # these places are reported as unmatched
    if not found:
        from deepsentinel.sources.tables import scenes_table

        return scenes_table([], source=source.name), len(groups)
    scenes = gpd.GeoDataFrame(pd.concat(found, ignore_index=True), crs=found[0].crs) if len(found) > 1 else found[0]
    scenes = scenes.drop_duplicates(["sensor", "id"]).sort_values(["time", "id"], kind="stable")
    scenes.attrs = {"source": source.name}
    return scenes.reset_index(drop=True), len(groups)


def _around(lon: np.ndarray, lat: np.ndarray, size_m: float) -> tuple[float, float, float, float]:
    """A box that holds the windows around these points, and a little more."""
    south, north = float(lat.min()), float(lat.max())
    up = 0.75 * size_m / 110_000 + 1e-4
    aside = min(up / max(math.cos(math.radians(min(max(abs(south), abs(north)) + up, 89.0))), 0.01), 5.0)
    return (
        max(float(lon.min()) - aside, -180.0),
        max(south - up, -90.0),
        min(float(lon.max()) + aside, 180.0),
        min(north + up, 90.0),
    )
