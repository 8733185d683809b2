"""What building a corpus takes: requests, what is read and stored, hours, dollars; and where each figure is from.

What is read is reckoned in compressed blocks: a window needs a corner of one, and the whole block travels. Blocks that
several windows of one scene touch are counted once, because they are read once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.bands import S1_BANDS, S2_BANDS, sensor_of
from deepsentinel.errors import DeepSentinelError

from .arrays import first_scene, specs_of
from .series import JOIN

if TYPE_CHECKING:
    import geopandas as gpd

    from deepsentinel.sources import Source

    from .plan import Plan

# What the public catalogs have, where no header could be looked at.
USUAL_BLOCK_PX = {"S2": 1024, "S1": 512}
USUAL_BYTES_PER_PX = {"S2": 1.4, "S1": 3.3, "SCL": 0.1, "angle": 0.1}
# Of what is stored, before compression: measured on real patches of land.
USUAL_STORED = {"s2": 0.72, "s1": 0.80, "scl": 0.15, "angle": 0.10}


@dataclass(frozen=True)
class Cost:
    """What building a corpus takes."""

    samples: int
    """Samples, twins in several sources counted each."""
    shards: int
    """Files of each array."""
    scenes: int
    """Scenes that are opened, of both sensors."""
    searches: int
    """Searches that planning took."""
    requests: int
    """Reads from files at most: a header for each file and each block by itself; neighbours come together."""
    read_gb: float
    """Compressed blocks that are read, in 10^9 bytes."""
    store_gb: float
    """What the corpus takes, without masks."""
    hours: float | None
    """At the measured or given rate; None: not known."""
    dollars: float | None
    """For the hours, and a month of storage; None: no prices given, or no hours."""
    basis: Mapping[str, str] = field(default_factory=dict)
    """Where the figures are from."""


@dataclass(frozen=True)
class _File:
    """What one band's file is like."""

    side_m: float
    origin: tuple[float, float]
    block_bytes: float


def cost_of(
    samples: gpd.GeoDataFrame,
    sources: Sequence[Source],
    settings: Mapping[str, Any],
    *,
    searches: int,
    measure: int,
    samples_per_hour: float | None,
    dollars_per_hour: float | None,
    dollars_per_gb_month: float | None,
) -> Cost:
    """The cost of a plan; a few headers are looked at, and with `measure` a few samples read."""
    specs, _ = specs_of(settings, longest(samples))
    scenes, requests, read_bytes = 0, 0, 0.0
    basis: dict[str, str] = {}
    for source in sources:
        mine = samples[samples["source"] == source.name]
        for sensor in settings["sensors"]:
            window, names = _uses(mine, sensor)
            if not len(window):
                continue
            count, asked, size = _blocks(mine, window, names, source, sensor, settings, basis)
            scenes, requests, read_bytes = scenes + count, requests + asked, read_bytes + size
    kept = {spec.name: USUAL_STORED.get(spec.name.split("_")[0], 0.1) for spec in specs}
    each = sum(spec.nbytes * kept[spec.name] * filled(spec.dims, samples, spec.shape) for spec in specs)
    basis["store"] = "usual compression"
    seconds = None if samples_per_hour is None else 3600 / samples_per_hour
    if seconds is not None:
        basis["hours"] = "the rate that was given"
    if measure:
        measured, each = _measured(samples, sources, settings, measure)
        seconds = seconds or measured
        basis["hours"] = basis.get("hours", f"{min(measure, len(samples))} samples that were read")
        basis["store"] = f"{min(measure, len(samples))} samples that were read"
    hours = None if seconds is None else seconds * len(samples) / 3600
    store_gb = each * len(samples) / 1e9
    dollars = None
    if hours is not None and (dollars_per_hour is not None or dollars_per_gb_month is not None):
        dollars = hours * (dollars_per_hour or 0.0) + store_gb * (dollars_per_gb_month or 0.0)
    return Cost(
        samples=len(samples),
        shards=-(-len(samples) // int(settings["samples_per_shard"])),
        scenes=scenes,
        searches=searches,
        requests=requests,
        read_gb=read_bytes / 1e9,
        store_gb=store_gb,
        hours=hours,
        dollars=dollars,
        basis=basis,
    )


def longest(samples: gpd.GeoDataFrame) -> dict[str, int]:
    """How many dates the longest series of each sensor has; nothing for pairs."""
    found = {}
    for sensor in ("s1", "s2"):
        if f"{sensor}_ids" in samples.columns:
            lengths = [len(ids) for ids in samples[f"{sensor}_ids"] if ids]
            if lengths:
                found[sensor] = max(lengths)
    return found


def filled(dims: Sequence[str], samples: gpd.GeoDataFrame, shape: Sequence[int]) -> float:
    """The share of a padded series that holds dates: the rest compresses to nothing."""
    sensor = dims[1].removesuffix("_step") if len(dims) > 1 and dims[1].endswith("_step") else None
    if sensor is None:
        return 1.0
    return float(np.mean([len(ids or []) for ids in samples[f"{sensor}_ids"]])) / shape[0]


def _uses(samples: gpd.GeoDataFrame, sensor: str) -> tuple[np.ndarray, np.ndarray]:
    """Which window needs which scene."""
    short = sensor.lower()
    if f"{short}_ids" in samples.columns:
        lists = [[name for joined in ids or [] for name in joined.split(JOIN)] for ids in samples[f"{short}_ids"]]
        window = np.repeat(np.arange(len(lists)), [len(names) for names in lists])
        return window, np.array([name for names in lists for name in names], dtype=object)
    names = samples[f"{short}_id"].to_numpy(object)
    window = np.flatnonzero([isinstance(name, str) for name in names])
    return window, names[window]


def _blocks(
    samples: gpd.GeoDataFrame,
    window: np.ndarray,
    names: np.ndarray,
    source: Source,
    sensor: str,
    settings: Mapping[str, Any],
    basis: dict[str, str],
) -> tuple[int, int, float]:
    """How many scenes are opened, how many requests that takes at most, and the bytes of the blocks."""
    unique, scene = np.unique(names.astype(str), return_inverse=True)
    transform = np.array(samples["transform"].tolist())[window]
    left, top = transform[:, 2], transform[:, 5]
    size_m = float(settings["size_px"]) * float(settings["resolution"])
    bands = [name for name in settings["held"] if sensor_of(name) == sensor]
    files, told = _files(source, sensor, first_scene(samples.iloc[int(window[0])], sensor), bands)
    basis[f"read {source.name} {sensor}"] = told
    requests, size = 0, 0.0
    for file in set(files):
        count = len(_touched(scene, left, top, size_m, file))
        alike = files.count(file)
        requests += alike * (len(unique) + count)
        size += alike * count * file.block_bytes
    return len(unique), requests, size


def _touched(scene: np.ndarray, left: np.ndarray, top: np.ndarray, size_m: float, file: _File) -> np.ndarray:
    """The distinct blocks under the windows: scene, column, row."""
    x, y = (left - file.origin[0]) / file.side_m, (file.origin[1] - top) / file.side_m
    first = np.floor(np.stack([x, y])).astype("int64")
    last = np.ceil(np.stack([x, y]) + size_m / file.side_m - 1e-9).astype("int64") - 1
    most = int((last - first).max()) + 1
    found = []
    for across in range(most):
        for down in range(most):
            inside = (first[0] + across <= last[0]) & (first[1] + down <= last[1])
            found.append(np.stack([scene[inside], first[0][inside] + across, first[1][inside] + down], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _files(source: Source, sensor: str, name: str | None, bands: Sequence[str]) -> tuple[list[_File], str]:
    """The files of these bands, as those of one scene are; or as they usually are."""
    try:
        found = [_header(source, sensor, str(name), band) for band in bands]
    except (DeepSentinelError, OSError, AttributeError, KeyError, ValueError):
        found = []
        for band in bands:
            resolution_m = S2_BANDS[band].resolution_m if band in S2_BANDS else 10 if band in S1_BANDS else 20
            side = USUAL_BLOCK_PX[sensor]
            bytes_per_px = USUAL_BYTES_PER_PX.get(band, USUAL_BYTES_PER_PX[sensor])
            found.append(_File(float(side * resolution_m), (0.0, 0.0), side * side * bytes_per_px))
        return found, "usual blocks, as no header could be read"
    return found, f"the headers of {len(found)} files of one scene"


def _header(source: Any, sensor: str, name: str, band: str) -> _File:
    from deepsentinel.sources.engine.rasters import looked_into

    item = source.items_of(sensor, [name])[name]
    ref = source.assets_of(item)[band]
    href = source.resolve(ref.href, item, ref.key)
    with looked_into(href, source.gdal_options()) as file:
        rows, columns = file.block_shapes[ref.band - 1]
        down, across = -(-file.height // rows), -(-file.width // columns)
        sizes = [
            int(size)
            for at in {0, (down * across) // 2}
            if (size := file.get_tag_item(f"BLOCK_SIZE_{at % across}_{at // across}", "TIFF", bidx=ref.band))
        ]
        usual = rows * columns * USUAL_BYTES_PER_PX.get(band, USUAL_BYTES_PER_PX[sensor])
        whole = min(columns, file.width) * file.transform.a
        return _File(
            float(whole if across == 1 else columns * file.transform.a),
            (float(file.transform.c), float(file.transform.f)),
            float(np.mean(sizes)) if sizes else float(usual),
        )


def _measured(
    samples: gpd.GeoDataFrame, sources: Sequence[Source], settings: Mapping[str, Any], measure: int
) -> tuple[float, float]:
    """Seconds and stored bytes of a sample, from some that stand together in the middle."""
    from .reader import read_rows
    from .shards import encode

    count = min(measure, len(samples))
    first = (len(samples) - count) // 2
    specs, _ = specs_of(settings, longest(samples))
    named = {source.name: source for source in sources}
    began, stored, good = time.perf_counter(), 0, 0
    for read in read_rows(samples.iloc[first : first + count], named, settings, specs, None):
        if read.error is None:
            good += 1
            stored += sum(len(encode(read.arrays[spec.name], spec)) for spec in specs)
    return (time.perf_counter() - began) / count, stored / max(good, 1)


def duration(hours: float) -> str:
    """In a unit that fits.

    >>> duration(0.001), duration(0.05), duration(12.34)
    ('3.6 seconds', '3.0 minutes', '12.3 hours')
    """
    if hours >= 1.5:
        return f"{hours:,.1f} hours"
    return f"{60 * hours:,.1f} minutes" if hours >= 1.5 / 60 else f"{3600 * hours:,.1f} seconds"


def size(gigabytes: float) -> str:
    """In a unit that fits.

    >>> size(0.0123), size(4567.8)
    ('12.3 MB', '4,567.8 GB')
    """
    return f"{gigabytes:,.1f} GB" if gigabytes >= 1 else f"{1000 * gigabytes:,.3g} MB"


def cost_table(plan: Plan) -> list[tuple[str, str]]:
    """The plan in a few lines, for people."""
    cost, settings = plan.cost, plan.settings
    period = f"{settings['start'] or 'the beginning'} to {settings['end'] or 'now'}"
    kind = "series" if settings["series"] else "pairs" if len(settings["sensors"]) == 2 else "scenes"
    pixels = "native pixels" if settings["native"] else f"pixels of {settings['resolution']:g} m"
    lines = [
        ("samples", f"{cost.samples:,} {kind} of {settings['size_px']} x {settings['size_px']} {pixels}"),
        ("bands", ", ".join(settings["held"])),
        ("sources", f"{', '.join(settings['sources'])}, {period}"),
        ("without", f"{len(plan.unmatched):,} places (plan.unmatched)"),
        ("scenes", f"{cost.scenes:,}, found in {cost.searches:,} searches"),
        ("to read", f"{size(cost.read_gb)} in at most {cost.requests:,} requests"),
        ("to store", f"{size(cost.store_gb)} in {cost.shards:,} shard{'s' * (cost.shards != 1)}, masks not counted"),
        ("time", "not known: give measure=8 or samples_per_hour=" if cost.hours is None else duration(cost.hours)),
    ]
    if cost.dollars is not None:
        lines.append(("dollars", f"{cost.dollars:,.2f}, with a month of storage"))
    lines.append(("reckoned from", "; ".join(f"{name}: {told}" for name, told in cost.basis.items())))
    return lines
