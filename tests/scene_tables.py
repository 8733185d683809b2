"""Scenes tables for the tests of pairing and selection: a row a call, every column there."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

BLANK = {
    "id": "",
    "sensor": "S2",
    "collection": "test",
    "platform": None,
    "time": pd.NaT,
    "cloud_cover": np.nan,
    "nodata_share": np.nan,
    "orbit": None,
    "relative_orbit": None,
    "polarisations": None,
    "level": None,
    "backscatter": None,
    "baseline": None,
    "tile": None,
    "crs": None,
    "datatake": None,
    "geometry": shapely.box(0, 49, 1, 50),
}


def scene(id: str, time: str | pd.Timestamp, **known: Any) -> dict[str, Any]:
    """One row; the sensor is the start of the id."""
    unknown = set(known) - set(BLANK)
    assert not unknown, unknown
    sensor = id[:2]
    fixed = (
        {"level": "L2A", "cloud_cover": 0.0} if sensor == "S2" else {"backscatter": "gamma0_rtc", "orbit": "ascending"}
    )
    return {**BLANK, "id": id, "sensor": sensor, "time": pd.Timestamp(time).tz_localize("UTC"), **fixed, **known}


def table(*rows: dict[str, Any]) -> gpd.GeoDataFrame:
    frame = pd.DataFrame(list(rows), columns=list(BLANK))
    frame["time"] = pd.to_datetime(frame["time"], utc=True).dt.as_unit("ns")
    frame["relative_orbit"] = frame["relative_orbit"].astype("Int64")
    scenes = gpd.GeoDataFrame(frame, geometry="geometry", crs="EPSG:4326")
    scenes.attrs = {"source": "test", "searched": "S1 and S2 over a test area in 2018"}
    return scenes


def slanted(lon: np.ndarray, lat: np.ndarray, width_km: Any, height_km: Any) -> np.ndarray:
    """Footprints as satellites make them: slanted quadrilaterals around the given centres."""
    corners = np.array([[-0.5, -0.5], [0.42, -0.38], [0.5, 0.5], [-0.42, 0.38], [-0.5, -0.5]])
    size = np.stack([width_km / 111 / np.cos(np.radians(lat)), np.broadcast_to(height_km / 111, lon.shape)], axis=-1)
    return shapely.polygons(corners * size[:, None] + np.stack([lon, lat], axis=-1)[:, None])


def random_scenes(
    n_s1: int, n_s2: int, *, seed: int, days: float, around: tuple[float, float, float] | None = None
) -> gpd.GeoDataFrame:
    """Scenes all over the world, or `around` (lon, lat, degrees); every acquisition is a pass of its own."""
    rng, n = np.random.default_rng(seed), n_s1 + n_s2
    radar = np.arange(n) < n_s1
    if around is None:
        lon, lat = rng.uniform(-177, 177, n), np.degrees(np.arcsin(rng.uniform(-0.95, 0.95, n)))
    else:
        lon, lat = (centre + rng.uniform(-around[2], around[2], n) for centre in around[:2])
    return gpd.GeoDataFrame(
        {
            **dict.fromkeys(BLANK, None),
            "id": [f"{'S1' if is_radar else 'S2'}_{i:06d}" for i, is_radar in enumerate(radar)],
            "sensor": np.where(radar, "S1", "S2"),
            "collection": "test",
            "time": pd.Timestamp("2018-01-01", tz="UTC") + pd.to_timedelta(rng.uniform(0, days * 86_400, n), unit="s"),
            "cloud_cover": np.where(radar, np.nan, rng.uniform(0, 100, n)),
            "nodata_share": np.where(radar, np.nan, rng.uniform(0, 0.4, n)),
            "orbit": np.where(rng.random(n) < 0.5, "ascending", "descending"),
            "relative_orbit": pd.array([None] * n, dtype="Int64"),
            "level": np.where(radar, None, "L2A"),
            "backscatter": np.where(radar, "gamma0_rtc", None),
        },
        geometry=slanted(lon, lat, np.where(radar, 250.0, 110.0), np.where(radar, 170.0, 110.0)),
        crs="EPSG:4326",
    )


def shuffled(scenes: gpd.GeoDataFrame, seed: int) -> gpd.GeoDataFrame:
    order = np.random.default_rng(seed).permutation(len(scenes))
    mixed = scenes.iloc[order]
    mixed.index = order[::-1]
    mixed.attrs = dict(scenes.attrs)
    return mixed
