"""A made-up year of scenes over all land, as a catalog lists it: tiles and frames that come back on their orbits."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from deepsentinel.footprints import check_scenes
from deepsentinel.land import cover, sample_land

YEAR_S = 365 * 86_400
S1_FRAMES, S2_TILES = 5000, 18_000


def made_up_year(n_s1: int, n_s2: int, *, seed: int = 0, days: float = 365) -> gpd.GeoDataFrame:
    """`n_s1` and `n_s2` scenes. Sentinel-2: tiles of 110 km every 100 km, half of them cut by the edge of the swath,
    every five days on each of two orbits, some with a footprint of their own. Sentinel-1: slanted frames of 250 x 170
    km that come back after twelve days, never quite in the same place.
    """
    rng = np.random.default_rng(seed)
    s1 = _frames(rng, n_s1, days)
    s2 = _tiles(rng, n_s2, days)
    both = {name: np.concatenate([s1[name], s2[name]]) for name in s1}
    n = len(both["id"])
    times = pd.Timestamp("2018-01-01", tz="UTC") + pd.to_timedelta(both.pop("seconds"), unit="s")
    geometry = both.pop("geometry")
    blank = {name: np.full(n, None, dtype=object) for name in ("datatake", "collection", "polarisations")}
    return gpd.GeoDataFrame(
        {**both, **blank, "time": times, "baseline": np.where(both["sensor"] == "S2", "05.09", None)},
        geometry=geometry,
        crs="EPSG:4326",
    )


def _frames(rng: np.random.Generator, n: int, days: float) -> dict[str, np.ndarray]:
    visits = max(int(days / 12), 1)
    count = max(min(S1_FRAMES, n // 2), -(-n // visits))
    sites = sample_land(count, seed=int(rng.integers(1 << 30)))
    # No two passes in one: each frame and visit once.
    site, visit = np.divmod(rng.permutation(count * visits)[:n], visits)
    lon, lat = np.asarray(sites.geometry.x)[site], np.clip(np.asarray(sites.geometry.y)[site], -78, 78)
    up = site % 2 == 0
    phase = rng.uniform(0, 12, count)
    jitter = rng.normal(0, 0.003, (2, n))
    corners = np.array([[-0.5, -0.42], [0.42, -0.58], [0.5, 0.42], [-0.42, 0.58], [-0.5, -0.42]])
    size = np.stack([250 / 111 / np.cos(np.radians(lat)), np.full(n, 170 / 111)], axis=1)
    flip = np.where(up, 1, -1)[:, None]
    ring = corners * size[:, None]
    ring[..., 0] *= flip
    ring += np.stack([lon + jitter[0], lat + jitter[1]], axis=1)[:, None]
    return {
        "id": np.array([f"S1A_IW_GRDH_1SDV_{k:07d}" for k in range(n)], dtype=object),
        "sensor": np.full(n, "S1", dtype=object),
        "platform": np.full(n, "sentinel-1a", dtype=object),
        "seconds": ((phase[site] + 12 * visit) * 86_400).round(3),
        "cloud_cover": np.full(n, np.nan),
        "nodata_share": np.full(n, np.nan),
        "orbit": np.where(up, "ascending", "descending").astype(object),
        "relative_orbit": (site % 175 + 1).astype("float64"),
        "level": np.full(n, None, dtype=object),
        "backscatter": np.full(n, "gamma0_rtc", dtype=object),
        "tile": np.full(n, None, dtype=object),
        "crs": np.full(n, None, dtype=object),
        "geometry": shapely.polygons(ring),
    }


def _tiles(rng: np.random.Generator, n: int, days: float) -> dict[str, np.ndarray]:
    world = cover(None, size_px=10_980, stride=10_000, resolution=10)
    world = world[world.geom_type == "Polygon"]
    visits = max(int(days / 5), 1)
    count = min(max(min(n // 2, S2_TILES), -(-n // visits)), len(world))
    world = world.iloc[np.sort(rng.permutation(len(world))[:count])]
    passes = rng.permutation(count * visits * 2)[:n]
    n = len(passes)
    tile, orbit, visit = passes // (2 * visits), passes // visits % 2, passes % visits
    shapes = np.asarray(world.geometry.array, dtype=object)[tile]
    # The second orbit sees the western part of a tile only; where the swath ends wanders a little in a third of them.
    edge = 0.35 + 0.3 * rng.random(count)[tile] + np.where(rng.random(n) < 0.33, rng.normal(0, 0.003, n), 0)
    cut = np.flatnonzero(orbit == 1)
    west, south, east, north = shapely.bounds(shapes[cut]).T
    at = west + (east - west) * edge[cut]
    slant = 0.1 * (east - west)
    half = np.stack(
        [
            np.stack([west - 1, south - 1], axis=1), np.stack([at - slant, south - 1], axis=1),
            np.stack([at + slant, north + 1], axis=1), np.stack([west - 1, north + 1], axis=1),
        ],
        axis=1,
    )  # fmt: skip
    shapes[cut] = shapely.intersection(shapes[cut], shapely.polygons(half))
    phase = rng.uniform(0, 5, (2, count))
    return {
        "id": np.array([f"S2A_MSIL2A_{k:07d}" for k in range(n)], dtype=object),
        "sensor": np.full(n, "S2", dtype=object),
        "platform": np.full(n, "sentinel-2a", dtype=object),
        "seconds": ((phase[orbit, tile] + 5 * visit) * 86_400).round(3),
        "cloud_cover": rng.uniform(0, 100, n).round(2),
        "nodata_share": np.zeros(n),
        "orbit": np.full(n, "descending", dtype=object),
        "relative_orbit": (tile % 143 + 1 + orbit).astype("float64"),
        "level": np.full(n, "L2A", dtype=object),
        "backscatter": np.full(n, None, dtype=object),
        "tile": np.array([f"{k % 60 + 1:02d}T{k:05d}" for k in tile], dtype=object),
        "crs": np.asarray(world["crs"])[tile],
        "geometry": shapes,
    }


def plain_matches(points: gpd.GeoDataFrame, scenes: gpd.GeoDataFrame, max_days: float) -> set[tuple[int, str, str]]:
    """Every match, point after point and scene after scene, as one would write it down."""
    clean = check_scenes(scenes)
    shapes, ids = clean.geometry.to_numpy(), clean["id"].tolist()
    sensors, times = clean["sensor"].tolist(), clean["time"].tolist()
    found = set()
    for number, point in enumerate(points.geometry):
        here = shapely.intersects(shapes, point).nonzero()[0]
        for a in here:
            for b in here:
                near = abs((times[a] - times[b]).total_seconds()) <= max_days * 86_400
                if near and (sensors[a], sensors[b]) == ("S1", "S2"):
                    found.add((number, ids[a], ids[b]))
    return found
