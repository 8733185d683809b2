"""Made-up corpora: the coordinates that `open_corpus` gives, with or without pixels, as many as a test wants."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr


def utm(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """The UTM zone of each place."""
    zone = (np.floor((np.asarray(lon) + 180) / 6).astype(int) % 60) + 1
    return np.where(np.asarray(lat) >= 0, 32600, 32700) + zone


def corpus_at(lon: Any, lat: Any, *, size_px: int = 256, dates: int = 1, twins: int = 1, **more: Any) -> xr.Dataset:
    """A corpus of samples at these places, every one on `dates` dates and from `twins` sources; no pixels."""
    lon, lat = np.asarray(lon, "float64"), np.asarray(lat, "float64")
    each = dates * twins
    place = np.repeat(np.arange(len(lon)), each)
    date = np.tile(np.repeat(np.arange(dates), twins), len(lon))
    source = np.tile(np.arange(twins), len(lon) * dates)
    codes = utm(lon, lat)[place]
    time = np.datetime64("2018-01-05", "ns") + date * np.timedelta64(12, "D")
    columns = {
        "sample": np.arange(len(place)),
        "id": np.char.add(np.char.add(place.astype(str), "-"), date.astype(str)).astype(object),
        "source": np.char.add("source", source.astype(str)).astype(object),
        "place": place,
        "status": np.full(len(place), "ok", object),
        "lon": lon[place],
        "lat": lat[place],
        "crs": np.char.add("EPSG:", codes.astype(str)).astype(object),
        "height": np.full(len(place), size_px),
        "width": np.full(len(place), size_px),
        "s1_time": time + np.timedelta64(6, "h"),
        "s2_time": time,
        **more,
    }
    coords = {name: ("sample", np.asarray(values)) for name, values in columns.items()}
    return xr.Dataset(coords=coords, attrs={"resolution": 10.0, "source": "demo", "seed": 0})


def scattered(count: int, *, seed: int = 0, **more: Any) -> xr.Dataset:
    """Samples all over the Earth, as many to each square kilometre everywhere."""
    rng = np.random.default_rng(seed)
    lat = np.rad2deg(np.arcsin(rng.uniform(np.sin(np.deg2rad(-80)), np.sin(np.deg2rad(83)), count)))
    return corpus_at(rng.uniform(-180, 180, count), lat, **more)


def lattice(rows: int, columns: int, *, step_m: float = 2560, **more: Any) -> xr.Dataset:
    """Samples wall to wall, as `cover` lays them out."""
    from pyproj import Transformer

    x = 400_000 + step_m * np.arange(columns)
    y = 5_600_000 + step_m * np.arange(rows)
    east, north = np.meshgrid(x, y)
    lon, lat = Transformer.from_crs(32632, 4326, always_xy=True).transform(east.ravel(), north.ravel())
    made = corpus_at(lon, lat, **more)
    return made.assign_coords(crs=("sample", np.full(made.sizes["sample"], "EPSG:32632", object)))


CLASSES = {1: "Water", 2: "Forest", 3: "Field", 4: "Town"}


def stored(folder: Any, count: int = 10, *, size_px: int = 32, per_shard: int = 4, failed: tuple[int, ...] = ()) -> Any:
    """A real store of made-up pixels on disk, written by the package's own writers: two sensors, SCL and one mask."""
    from pathlib import Path

    import shapely
    from pyproj import Transformer

    from deepsentinel.corpus.layout import ArraySpec, Layout, create_store, shard_path
    from deepsentinel.corpus.samples import samples_table, write_samples
    from deepsentinel.corpus.shards import encode, write_shard
    from deepsentinel.legend import Legend
    from deepsentinel.legend_class import LegendClass

    folder = Path(folder)
    colours = ("#0064c8", "#006400", "#f096ff", "#fa0000")
    legend = Legend("mine", tuple(LegendClass(c, n, h) for (c, n), h in zip(CLASSES.items(), colours, strict=True)))
    plane = (size_px, size_px)
    s2_bands = ["B02", "B03", "B04", "B08"]
    specs = (
        ArraySpec("s2", "uint16", ("sample", "s2_band", "y", "x"), (4, *plane), 0, {"units": "reflectance x 10000"}),
        ArraySpec(
            "s1", "int16", ("sample", "s1_band", "y", "x"), (2, *plane), -32768,
            {"units": "dB", "scale_factor": 0.01, "_FillValue": -32768},
        ),
        ArraySpec("scl", "uint8", ("sample", "y", "x"), plane, 0),
        ArraySpec("mine_class_map", "uint8", ("sample", "y", "x"), plane, 0, legend.to_attrs()),
    )  # fmt: skip
    attrs = {
        "title": "Made up", "source": "demo", "seed": 0, "size_px": size_px, "resolution": 10, "version": "0.1.0",
        "level": "L2A", "backscatter": "sigma0", "credits": ["Imaginary demo world"],
    }  # fmt: skip
    layout = Layout(count, per_shard, specs, {"s2_band": s2_bands, "s1_band": ["VV", "VH"]}, attrs)
    create_store(folder, layout)
    pixels = [made_up(number, size_px) for number in range(count)]
    for shard in range(layout.shards):
        for spec in specs:
            chunks = [None if n in failed else encode(pixels[n][spec.name], spec) for n in layout.members(shard)]
            write_shard(shard_path(folder, spec, shard), chunks, slots=per_shard)
    step = size_px * 10
    x0 = 500_000 + step * 3 * (np.arange(count) % 5)
    y0 = 5_600_000 + step * 3 * (np.arange(count) // 5)
    back = Transformer.from_crs(32632, 4326, always_xy=True)
    boxes = [shapely.box(x, y - step, x + step, y) for x, y in zip(x0, y0, strict=True)]
    lonlat = [shapely.transform(box, back.transform, interleaved=False) for box in boxes]
    lon, lat = back.transform(x0 + step / 2, y0 - step / 2)
    time = np.datetime64("2018-01-10T10:30", "ns") + np.arange(count) * np.timedelta64(20, "D")
    bad = np.isin(np.arange(count), failed)
    columns = {
        "sample": np.arange(count), "id": [f"p{n}" for n in range(count)], "source": ["demo"] * count,
        "place": np.arange(count), "status": np.where(bad, "failed", "ok"),
        "reason": ["the file S2_X is not there" if one else None for one in bad],
        "s1_id": [f"S1_{n}" for n in range(count)], "s2_id": [f"S2_{n}" for n in range(count)],
        "s1_time": time + np.timedelta64(6, "h"), "s2_time": time, "gap_hours": np.full(count, 6.0),
        "cloud_cover": np.linspace(0, 60, count), "clear": np.linspace(1, 0.5, count),
        "valid_s1": np.ones(count), "valid_s2": np.ones(count), "tile": ["32UNB"] * count,
        "crs": ["EPSG:32632"] * count,
        "transform": [[10.0, 0.0, x, 0.0, -10.0, y] for x, y in zip(x0, y0, strict=True)],
        "height": np.full(count, size_px), "width": np.full(count, size_px), "lon": lon, "lat": lat,
        "level": ["L2A"] * count, "backscatter": ["sigma0"] * count, "version": ["0.1.0"] * count,
    }  # fmt: skip
    write_samples(folder / "samples.parquet", samples_table(columns, lonlat))
    return folder


def made_up(number: int, size_px: int) -> dict[str, np.ndarray]:
    """The pixels of one sample, the same at every call."""
    rng = np.random.default_rng(number)
    cover = rng.integers(1, 5, (4, 4)).repeat(size_px // 4, axis=0).repeat(size_px // 4, axis=1).astype("uint8")
    if number == 0:
        cover[:2] = 0
    base = np.array([[400, 500, 300, 200], [300, 500, 350, 2800], [700, 900, 1100, 2400], [1100, 1200, 1300, 1900]])
    light = base[np.maximum(cover, 1) - 1].transpose(2, 0, 1)
    s2 = (light * rng.normal(1, 0.05, light.shape)).clip(1, 10_000).astype("uint16")
    level = np.array([-1900, -900, -1100, -600])[np.maximum(cover, 1) - 1]
    s1 = (np.stack([level, level - 600]) + rng.normal(0, 150, (2, size_px, size_px))).astype("int16")
    return {"s2": s2, "s1": s1, "scl": np.full(cover.shape, 4, "uint8"), "mine_class_map": cover}
