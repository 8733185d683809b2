"""Samples in the order in which they are stored: those that share scenes and ground stand together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from deepsentinel import __version__
from deepsentinel.grids import transformer

from .matched import Matched
from .places import Places
from .samples import samples_table
from .tiling import footprints, window_table


def ordered_samples(matched: Matched, places: Places, settings: Mapping[str, Any]) -> gpd.GeoDataFrame:
    """The table, in the order in which it is stored."""
    rows = matched.rows
    size_px, resolution = places.size_px, places.resolution
    grids = window_table(
        rows["crs"].to_numpy(object),
        rows["x0"].to_numpy(float),
        rows["y0"].to_numpy(float),
        size_px=size_px,
        resolution=resolution,
    )
    centres = _middles(grids)
    columns: dict[str, Any] = {name: rows[name] for name in rows.columns if name not in ("x0", "y0", "position")}
    columns |= {
        "status": ["planned"] * len(rows),
        "transform": [(resolution, 0.0, x0, 0.0, -resolution, y0) for x0, y0 in zip(grids.x0, grids.y0, strict=True)],
        "height": [size_px] * len(rows),
        "width": [size_px] * len(rows),
        "lon": centres[0],
        "lat": centres[1],
        "seed": [settings["seed"]] * len(rows),
        "version": [__version__] * len(rows),
    }
    if places.stratum is not None:
        columns["class"] = places.stratum[rows["position"].to_numpy()]
    table = samples_table({**columns, "sample": np.arange(len(rows))}, footprints(grids))
    order = _order(table, grids, settings)
    table = table.iloc[order].reset_index(drop=True)
    table["sample"] = np.arange(len(table), dtype="int64")
    return table


def _middles(grids: gpd.GeoDataFrame) -> tuple[np.ndarray, np.ndarray]:
    lon, lat = np.empty(len(grids)), np.empty(len(grids))
    half = (grids["size_px"] * grids["resolution"] / 2).to_numpy(float)
    names = grids["crs"].to_numpy(object)
    for name in dict.fromkeys(names):
        mine = names == name
        lon[mine], lat[mine] = transformer(str(name), "EPSG:4326").transform(
            (grids["x0"].to_numpy() + half)[mine], (grids["y0"].to_numpy() - half)[mine]
        )
    return lon, lat


def _order(table: gpd.GeoDataFrame, grids: gpd.GeoDataFrame, settings: Mapping[str, Any]) -> np.ndarray:
    """Source, tile, scene, then along a curve that visits neighbours one after the other."""
    sources = {name: number for number, name in enumerate(settings["sources"])}
    scene = table["s2_id"].where(table["s2_id"].notna(), table["s1_id"])
    keys = pd.DataFrame(
        {
            "source": table["source"].map(sources),
            "tile": table["tile"].fillna(table["crs"]).astype(str),
            "scene": scene.fillna("").astype(str),
            "curve": morton(grids["x0"].to_numpy(float), grids["y0"].to_numpy(float)),
            "id": table["id"].astype(str),
        }
    )
    return np.asarray(keys.sort_values(list(keys.columns), kind="stable").index)


def morton(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Positions along a Z-order curve over cells of 100 m: near in it is near on the ground.

    >>> np.argsort(morton(np.array([0.0, 900.0, 100.0]), np.array([0.0, 900.0, 0.0]))).tolist()
    [0, 2, 1]
    """
    code = np.zeros(len(x), dtype="uint64")
    for shift, axis in enumerate((x, y)):
        cell = (np.floor(np.asarray(axis) / 100).astype("int64") + 2**24).astype("uint64")
        for bit in range(26):
            code |= ((cell >> np.uint64(bit)) & np.uint64(1)) << np.uint64(2 * bit + shift)
    return code
