"""How fast scenes pair, beside two plain loops over the same scenes.

    python tests/bench/bench_pairing.py [scenes of each sensor, 20000]

The loops only get the first thousand of each sensor, as all of them would take an hour; both run on that part in turn,
and must find the same pairs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter

import geopandas as gpd
import shapely

sys.path.insert(0, str(Path(__file__).parents[1]))
from scene_tables import random_scenes

from deepsentinel.pairing import match_rate, pair, select

ROUNDS = 3
LOOP_SCENES = 1000


def plain_loops(scenes: gpd.GeoDataFrame, max_days: float) -> set[tuple[str, str]]:
    s1, s2 = (list(scenes[scenes.sensor == name][["id", "time", "geometry"]].itertuples()) for name in ("S1", "S2"))
    found = set()
    for b in s2:
        for a in s1:
            if abs((a.time - b.time).total_seconds()) <= max_days * 86_400 and a.geometry.intersects(b.geometry):
                found.add((a.id, b.id))
    return found


def subset(scenes: gpd.GeoDataFrame, count: int) -> gpd.GeoDataFrame:
    return scenes.groupby("sensor").head(count)


def main(count: int) -> None:
    world = random_scenes(count, count, seed=0, days=730)
    place = random_scenes(count, count, seed=0, days=3650, around=(10.0, 60.0, 0.3))
    aoi = shapely.box(9.9, 59.9, 10.1, 60.1)
    wide = shapely.box(9.0, 59.5, 11.0, 60.5)

    ratios = []
    part = subset(world, min(count, LOOP_SCENES))
    for _ in range(ROUNDS):
        start = perf_counter()
        loops = plain_loops(part, 3)
        middle = perf_counter()
        ours = pair(part, max_days=3)
        end = perf_counter()
        assert set(zip(ours["s1_id"], ours["s2_id"], strict=True)) == loops
        ratios.append((middle - start) / (end - middle))
    print(f"two plain loops / pair, {len(part) // 2} of each: {sorted(ratios)[ROUNDS // 2]:.0f} times faster")

    for what, run in {
        "pair, all over the world, two years": lambda: pair(world, max_days=3),
        "pair, all over the world, any gap": lambda: pair(world, max_days=4000),
        "pair, one place, ten years, small area": lambda: pair(place, max_days=3, aoi=aoi),
        "pair, one place, ten years, wide area": lambda: pair(place, max_days=3, aoi=wide),
        "pair, one place, ten years, no area": lambda: pair(place, max_days=3),
        "pair, one place, ten years, nearest": lambda: pair(place, max_days=3, aoi=wide, best="s2"),
        "match_rate, one place, ten years": lambda: match_rate(place, max_days=3, aoi=aoi).nearest,
        "select 24, one place, ten years": lambda: select(place, aoi=aoi, n=24),
    }.items():
        start = perf_counter()
        result = run()
        print(f"{what:42} {count:6d} x {count:<6d} {perf_counter() - start:6.2f} s {len(result):8d} rows")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
