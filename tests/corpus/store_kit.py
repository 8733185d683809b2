"""A small corpus written by hand, for tests of what reads one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from deepsentinel.corpus.layout import ArraySpec, Layout, create_store, shard_path
from deepsentinel.corpus.shards import encode, write_shard

SIZE = 16
S2 = ArraySpec("s2", "uint16", ("sample", "s2_band", "y", "x"), (3, SIZE, SIZE), 0, {"units": "reflectance x 10000"})
S1 = ArraySpec(
    "s1",
    "int16",
    ("sample", "s1_band", "y", "x"),
    (2, SIZE, SIZE),
    -32768,
    {"scale_factor": 0.01, "_FillValue": -32768, "units": "dB"},
)
SCL = ArraySpec("scl", "uint8", ("sample", "y", "x"), (SIZE, SIZE), 0)
ANGLE = ArraySpec(
    "angle", "int16", ("sample", "y", "x"), (SIZE, SIZE), -32768, {"scale_factor": 0.01, "_FillValue": -32768}
)
MASK = ArraySpec(
    "crops_class_map",
    "uint8",
    ("sample", "y_crops", "x_crops"),
    (4 * SIZE, 4 * SIZE),
    0,
    {"flag_values": [1, 2], "flag_meanings": "wheat maize"},
)
COVER = ArraySpec("cover_class_map", "uint8", ("sample", "y", "x"), (SIZE, SIZE), 0)
ARRAYS = (S2, S1, SCL, ANGLE, MASK, COVER)
COORDS = {"s2_band": ["B02", "B03", "B8A"], "s1_band": ["VV", "VH"]}
ATTRS = {"title": "By hand", "level": "L2A", "backscatter": "gamma0_rtc", "version": "0.1.0", "seed": 3}


def layout(samples: int = 10, slots: int = 4) -> Layout:
    return Layout(samples, slots, ARRAYS, COORDS, ATTRS)


def pixels(samples: int = 10, seed: int = 0) -> dict[str, np.ndarray]:
    """Raw numbers as a corpus stores them, smooth enough to compress, with places of no data."""
    rng = np.random.default_rng(seed)
    found = {
        "s2": rng.integers(1, 9000, (samples, *S2.shape)).astype("uint16"),
        "s1": rng.integers(-3500, -100, (samples, *S1.shape)).astype("int16"),
        "scl": rng.integers(0, 12, (samples, *SCL.shape)).astype("uint8"),
        "angle": rng.integers(2900, 4600, (samples, *ANGLE.shape)).astype("int16"),
        "crops_class_map": rng.integers(0, 3, (samples, *MASK.shape)).astype("uint8"),
        "cover_class_map": rng.integers(0, 5, (samples, *COVER.shape)).astype("uint8"),
    }
    found["s2"][:, :, :2] = 0
    found["s1"][:, :, :3] = -32768
    return found


def table(samples: int = 10, **columns: Any) -> gpd.GeoDataFrame:
    """The rows of the samples, a place every 3 km eastwards."""
    number = np.arange(samples)
    lon, lat = 3 + 0.04 * number, np.full(samples, 45.0)
    frame = {
        "sample": number,
        "id": [f"p{at}" for at in number],
        "source": "demo",
        "place": number,
        "status": "ok",
        "reason": None,
        "s1_id": [f"S1_{at}" for at in number],
        "s2_id": [f"S2_{at}" for at in number],
        "s1_time": pd.to_datetime("2018-05-01T05:30:00Z") + pd.to_timedelta(number, "D"),
        "s2_time": pd.to_datetime("2018-05-01T10:30:00.125Z") + pd.to_timedelta(number, "D"),
        "gap_hours": -5.0,
        "orbit": "descending",
        "crs": "EPSG:32631",
        "transform": [[10.0, 0.0, 500000.0 + 3000 * at, 0.0, -10.0, 5000000.0] for at in number],
        "height": SIZE,
        "width": SIZE,
        "lon": lon,
        "lat": lat,
        "class": None,
        "level": "L2A",
        "backscatter": "gamma0_rtc",
        "offset_removed": 1000,
        "clear": 0.9,
        "geometry": shapely.box(lon - 0.01, lat - 0.01, lon + 0.01, lat + 0.01),
        **columns,
    }
    return gpd.GeoDataFrame(frame, geometry="geometry", crs="EPSG:4326")


def write_shards(folder: Path, found: Layout, data: dict[str, np.ndarray], shards: Any = None, bad: Any = ()) -> None:
    for shard in found.shards and (range(found.shards) if shards is None else shards):
        for spec in found.arrays:
            chunks = [
                None if number in bad else encode(data[spec.name][number], spec) for number in found.members(shard)
            ]
            write_shard(shard_path(folder, spec, shard), chunks, slots=found.samples_per_shard)


def make_store(folder: Path, samples: int = 10, slots: int = 4, **columns: Any) -> dict[str, np.ndarray]:
    """A finished corpus; returns the raw numbers in it."""
    found, data = layout(samples, slots), pixels(samples)
    create_store(folder, found)
    write_shards(folder, found, data)
    table(samples, **columns).to_parquet(folder / "samples.parquet")
    return data


def series_store(folder: Path, lengths: list[tuple[int, int]]) -> dict[str, np.ndarray]:
    """Samples of some dates of Sentinel-2 and of Sentinel-1, padded in the store."""
    most = [max(each[sensor] for each in lengths) for sensor in (0, 1)]
    arrays = (
        ArraySpec("s2", "uint16", ("sample", "s2_step", "s2_band", "y", "x"), (most[0], 3, SIZE, SIZE), 0),
        ArraySpec(
            "s1",
            "int16",
            ("sample", "s1_step", "s1_band", "y", "x"),
            (most[1], 2, SIZE, SIZE),
            -32768,
            {"scale_factor": 0.01, "_FillValue": -32768},
        ),
    )
    found = Layout(len(lengths), 4, arrays, COORDS, {"level": "L2A", "backscatter": "sigma0"})
    rng = np.random.default_rng(0)
    data = {
        "s2": rng.integers(1, 9000, (len(lengths), *arrays[0].shape)).astype("uint16"),
        "s1": rng.integers(-3000, -100, (len(lengths), *arrays[1].shape)).astype("int16"),
    }
    for number, (optical, radar) in enumerate(lengths):
        data["s2"][number, optical:], data["s1"][number, radar:] = 0, -32768
    create_store(folder, found)
    for shard in range(found.shards):
        for spec in arrays:
            chunks = [encode(data[spec.name][number], spec) for number in found.members(shard)]
            write_shard(shard_path(folder, spec, shard), chunks, slots=4)
    rows = table(len(lengths)).drop(columns=["s1_id", "s2_id", "s1_time", "s2_time", "gap_hours"])
    start = pd.Timestamp("2018-04-01T10:00:00Z")
    for at, sensor in enumerate(("s2", "s1")):
        counts = [each[at] for each in lengths]
        rows[f"{sensor}_ids"] = [[f"{sensor}-{step}" for step in range(count)] for count in counts]
        rows[f"{sensor}_times"] = [[start + pd.Timedelta(days=5 * step) for step in range(count)] for count in counts]
        rows[f"{sensor}_id"] = None
        rows[f"{sensor}_time"] = pd.NaT
    rows.to_parquet(folder / "samples.parquet")
    return data
