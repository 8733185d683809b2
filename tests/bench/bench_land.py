"""How fast points on land are drawn, beside the plain way: points in a box, kept where the land holds them.

    python tests/bench/bench_land.py [points, 1000000]

The plain way draws longitudes and the sines of latitudes over the whole Earth and asks shapely's prepared outline of
the land about each, until there are enough; both run in turn.
"""

from __future__ import annotations

import sys
from time import perf_counter

import geopandas as gpd
import numpy as np
import shapely

from deepsentinel.land import cover, sample_land
from deepsentinel.land.regions import land

ROUNDS = 5


def plainly(n: int, seed: int) -> gpd.GeoDataFrame:
    outline = land().geometry()
    shapely.prepare(outline)
    rng = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    count = 0
    while count < n:
        lon, lat = rng.uniform(-180, 180, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
        inside = shapely.contains_xy(outline, lon, lat)
        found.append(np.stack([lon[inside], lat[inside]], axis=1))
        count += len(found[-1])
    xy = np.concatenate(found)[:n]
    return gpd.GeoDataFrame(geometry=shapely.points(xy), crs="EPSG:4326")


def main(count: int) -> None:
    sample_land(10)
    ours, ratios = [], []
    for number in range(ROUNDS):
        start = perf_counter()
        sample_land(count, seed=number)
        middle = perf_counter()
        plainly(count, number)
        end = perf_counter()
        ours.append(middle - start)
        ratios.append((end - middle) / (middle - start))
    print(f"plain way / sample_land, {count:,} points: {sorted(ratios)[ROUNDS // 2]:.1f} times faster")
    print(f"sample_land, {count:,} points on all land: {sorted(ours)[ROUNDS // 2]:.2f} s (median of {ROUNDS})")
    for what, run in {
        "a tenth of them, at least 10 km apart": lambda: sample_land(count // 10, min_distance_m=10_000),
        "a tenth of them, in a box": lambda: sample_land(count // 10, (-10, 36, 30, 62)),
        "windows of 2.56 km over ten degrees": lambda: cover((5, 40, 15, 50)),
    }.items():
        start = perf_counter()
        result = run()
        print(f"{what:42} {perf_counter() - start:6.2f} s {len(result):8d} rows")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
