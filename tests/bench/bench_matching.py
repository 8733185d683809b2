"""How fast points find their pairs of scenes in a made-up year, beside a search tree and a loop over the points.

    python tests/bench/bench_matching.py [points, 1000000] [Sentinel-1 scenes, 150000] [Sentinel-2 scenes, 300000]

The loop asks a search tree over all footprints (which is there when its time starts) for those that hold a point, and
compares their times with searchsorted. It only gets a few thousand points, as all of them would take long; ours, with
all that it does to prepare the scenes, gets all. Both run in turn, and must find the same pairs.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from time import perf_counter

import geopandas as gpd
import numpy as np
import shapely

sys.path.insert(0, str(Path(__file__).parents[1] / "corpus"))
from year_kit import made_up_year, plain_matches

from deepsentinel.corpus.matching import match_points
from deepsentinel.footprints import check_scenes
from deepsentinel.land import sample_land

ROUNDS = 3
LOOP_POINTS = 5000
CHECKED = 150
MAX_DAYS = 3


def in_a_loop(points: np.ndarray, clean: gpd.GeoDataFrame, tree: shapely.STRtree) -> set[tuple[int, str, str]]:
    ids, time_ns = clean["id"].to_numpy(dtype=object), clean["time"].to_numpy("datetime64[ns]").astype("int64")
    is_s1 = (clean["sensor"] == "S1").to_numpy()
    reach_ns = round(MAX_DAYS * 86_400e9)
    found = set()
    for number, point in enumerate(points):
        here = np.sort(tree.query(point, predicate="intersects"))
        first, second = here[is_s1[here]], here[~is_s1[here]]
        low = np.searchsorted(time_ns[first], time_ns[second] - reach_ns, side="left")
        high = np.searchsorted(time_ns[first], time_ns[second] + reach_ns, side="right")
        for row, start, end in zip(second, low, high, strict=True):
            found |= {(number, ids[other], ids[row]) for other in first[start:end]}
    return found


def main(count: int, n_s1: int, n_s2: int) -> None:
    scenes, points = made_up_year(n_s1, n_s2), sample_land(count)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count:,} points, {n_s1:,} Sentinel-1 and {n_s2:,} Sentinel-2 scenes")
    few = points.iloc[:CHECKED]
    everything = match_points(few, scenes, max_days=MAX_DAYS, choose="all")
    matches = set(zip(everything["point"], everything["s1_id"], everything["s2_id"], strict=True))
    assert matches == plain_matches(few, scenes, MAX_DAYS)
    print(f"equal to brute force on {CHECKED} points with {len(matches):,} matches")

    clean = check_scenes(scenes)
    tree, part = shapely.STRtree(clean.geometry.to_numpy()), points.geometry.to_numpy()[:LOOP_POINTS]
    times, ratios = [], []
    for _ in range(ROUNDS):
        start = perf_counter()
        loop = in_a_loop(part, clean, tree)
        middle = perf_counter()
        found = match_points(points, scenes, max_days=MAX_DAYS)
        end = perf_counter()
        times.append(end - middle)
        ratios.append((middle - start) / len(part) / ((end - middle) / count))
    own = match_points(points.iloc[:LOOP_POINTS], scenes, max_days=MAX_DAYS, choose="all")
    assert set(zip(own["point"], own["s1_id"], own["s2_id"], strict=True)) == loop
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"match_points: {sorted(times)[ROUNDS // 2]:.1f} s (median of {ROUNDS}), {len(found):,} points have a pair;"
        f" peak memory {peak_mb:,.0f} MB, {before_mb:,.0f} MB of it for points and scenes"
    )
    print(
        f"{sorted(ratios)[ROUNDS // 2]:.0f} times as many points a second as the loop, which finds the same pairs of"
        f" {len(part):,} points"
    )
    for options in ({"choose": "random"}, {"size_m": 2560}, {"per_place": 3}):
        start = perf_counter()
        result = match_points(points, scenes, max_days=MAX_DAYS, **options)
        print(f"{options!s:30} {perf_counter() - start:6.1f} s {len(result):9,} rows")
    for number in (10_000, 1000):
        start = perf_counter()
        result = match_points(points.iloc[:number], scenes, max_days=MAX_DAYS)
        print(f"{number:6,} points {perf_counter() - start:22.1f} s {len(result):9,} rows")


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    main(*given, *(1_000_000, 150_000, 300_000)[len(given) :])
