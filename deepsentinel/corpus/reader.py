"""Rows of the samples table -> their pixels, as the arrays that are stored; a bad file spoils its own samples alone."""

from __future__ import annotations

import inspect
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from deepsentinel.bands import sensor_of
from deepsentinel.errors import DeepSentinelError, ReadError
from deepsentinel.sources.base import Failure

from .arrays import Stream, pixels_of, shares, streams_of
from .layout import ArraySpec
from .samples import PLACEMENT
from .series import JOIN
from .tiling import grid_at

if TYPE_CHECKING:
    import geopandas as gpd
    from odc.geo.geobox import GeoBox

    from deepsentinel.sources import Source

TOLD = ("level", "backscatter", "baseline", "offset_removed")
WORST = {"placement_error_m": max, "placement_shift_per_m": max, "noise_removed": min}
# Series are long: so many bytes of them are held unpacked at once.
SERIES_BYTES = 256 * 2**20
# The reader's first portion is this share of what it may hold, and a shard should be one portion, so that each of its
# scenes is opened once.
FIRST_PORTION = 32
MOST_PORTION_MB = 256.0


@dataclass
class Read:
    """One sample as it was read."""

    position: int
    """Where among the rows."""
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    """What is stored; empty if it failed."""
    told: dict[str, Any] = field(default_factory=dict)
    """What the table says of it."""
    error: Exception | None = None
    """Why it failed."""
    patch: Any = None
    """The patch itself, for masks that are made from pixels; none of series."""


def read_rows(
    rows: gpd.GeoDataFrame,
    sources: Mapping[str, Source],
    settings: Mapping[str, Any],
    specs: Sequence[ArraySpec],
    threads: int | None,
) -> Generator[Read, None, None]:
    """The samples of some rows, in their order."""
    names = rows["source"].to_numpy(object)
    edges = np.flatnonzero(np.r_[True, names[1:] != names[:-1], True])
    for start, stop in pairwise(edges.tolist()):
        part, source = rows.iloc[start:stop], sources[str(names[start])]
        reads = (_series if settings["series"] else _pairs)(part, source, settings, specs, threads)
        for read in reads:
            read.position += start
            yield read


def grids_of(rows: pd.DataFrame, factor: int = 1) -> list[GeoBox]:
    """The grid of each row, with pixels `factor` times as large; rows of one grid share one object."""
    made: dict[tuple[Any, ...], GeoBox] = {}
    found = []
    for crs, transform, height, width in zip(
        rows["crs"], rows["transform"], rows["height"], rows["width"], strict=True
    ):
        key = (crs, *transform)
        if key not in made:
            a, b, c, d, e, f = transform
            affine = (a * factor, b, c, d, e * factor, f)
            made[key] = grid_at(crs, affine, -(-height // factor), -(-width // factor))
        found.append(made[key])
    return found


def _pairs(
    rows: pd.DataFrame, source: Source, settings: Mapping[str, Any], specs: Sequence[ArraySpec], threads: int | None
) -> Iterator[Read]:
    table = rows[["s1_id", "s2_id"]]
    streams = streams_of(settings)
    readers = [
        source.read_many(
            table,
            grids_of(rows, stream.factor()),
            bands=stream.bands,
            threads=threads,
            **_memory(source, len(rows) * sum(spec.nbytes for spec in specs)),
        )
        for stream in streams
    ]
    for position, patches in enumerate(zip(*readers, strict=True)):
        read = Read(position)
        try:
            for stream, patch in zip(streams, patches, strict=True):
                if isinstance(patch, Failure):
                    raise patch.error
                read.arrays |= pixels_of(patch, stream)
                read.told |= {name: patch.attrs[name] for name in (*TOLD, *PLACEMENT) if name in patch.attrs}
            read.told |= shares(read.arrays)
            _check_there(read.told, rows.iloc[position])
            read.patch = patches[0]
        except DeepSentinelError as error:
            read = Read(position, error=error)
        yield read


def _memory(source: Source, nbytes: int) -> dict[str, Any]:
    """How much a source may read ahead, where it can be told: the whole shard in one portion."""
    if "memory_mb" not in inspect.signature(source.read_many).parameters:
        return {}
    # The engine reckons four bytes a pixel where we store two, and a first portion of an eighth of a quarter.
    portion = min(2 * nbytes / 2**20 + 8, MOST_PORTION_MB)
    return {"memory_mb": FIRST_PORTION * portion}


def _check_there(told: Mapping[str, Any], row: Any) -> None:
    """A sensor of which no pixel is there is a failure: half a sample teaches nothing."""
    for sensor, name in (("S1", "s1_id"), ("S2", "s2_id")):
        if told[f"valid_{sensor.lower()}"] == 0:
            raise ReadError(f"Scene {row[name]} holds no pixel of this window: it is all no data there.")


def _series(
    rows: pd.DataFrame, source: Source, settings: Mapping[str, Any], specs: Sequence[ArraySpec], threads: int | None
) -> Iterator[Read]:
    own = [spec for spec in specs if spec.name.split("_")[0] in ("s1", "s2", "scl", "angle")]
    each = max(1, int(SERIES_BYTES // max(sum(spec.nbytes for spec in own), 1)))
    for start in range(0, len(rows), each):
        part = rows.iloc[start : start + each]
        for read in _some_series(part, source, settings, own, threads):
            read.position += start
            yield read


def _some_series(
    rows: pd.DataFrame, source: Source, settings: Mapping[str, Any], specs: Sequence[ArraySpec], threads: int | None
) -> list[Read]:
    """Scene by scene, so that each is opened once, into the series of all these samples."""
    reads = [Read(position, {spec.name: spec.empty() for spec in specs}) for position in range(len(rows))]
    problems: list[list[Exception]] = [[] for _ in reads]
    steps = 0
    for stream in streams_of(settings):
        grids = grids_of(rows, stream.factor())
        for sensor in ("S1", "S2"):
            bands = tuple(name for name in stream.bands if sensor_of(name) == sensor)
            if not bands:
                continue
            entries = sorted(_entries(rows, sensor))
            steps += len({(position, step) for _, position, step, _ in entries})
            table = pd.DataFrame({"sensor": sensor, "id": [entry[0] for entry in entries]})
            nbytes = len(entries) * sum(spec.nbytes for spec in specs) // max(len(entries), 1)
            patches = source.read_many(
                table,
                [grids[entry[1]] for entry in entries],
                bands=bands,
                threads=threads,
                **_memory(source, nbytes),
            )
            own = Stream(stream.resolution_m, bands, tuple(name for name in stream.s2 if name in bands))
            waiting: dict[tuple[int, int], dict[int, Any]] = {}
            for (_, position, step, rank), patch in zip(entries, patches, strict=True):
                parts = waiting.setdefault((position, step), {})
                try:
                    if isinstance(patch, Failure):
                        raise patch.error
                    parts[rank] = pixels_of(patch, own)
                    _told_by_step(reads[position].told, patch.attrs)
                except DeepSentinelError as error:
                    problems[position].append(error)
                    parts[rank] = {}
                if len(parts) == len(_parts(rows, sensor, position, step)):
                    _put(reads[position].arrays, waiting.pop((position, step)), specs, step)
    for read, found in zip(reads, problems, strict=True):
        _told_of_series(read, found, rows.iloc[read.position])
    return reads


def _told_by_step(told: dict[str, Any], attrs: Mapping[str, Any]) -> None:
    """What a scene of a series says; of what its scenes differ in, what holds for all of them."""
    for name in (*TOLD, *PLACEMENT):
        if name in attrs:
            told[name] = WORST[name](told.get(name, attrs[name]), attrs[name]) if name in WORST else attrs[name]


def _entries(rows: pd.DataFrame, sensor: str) -> Iterator[tuple[str, int, int, int]]:
    """Scene, sample, step, and which part of the step it is."""
    for position, ids in enumerate(rows[f"{sensor.lower()}_ids"]):
        for step, joined in enumerate(ids or []):
            for rank, name in enumerate(joined.split(JOIN)):
                yield name, position, step, rank


def _parts(rows: pd.DataFrame, sensor: str, position: int, step: int) -> list[str]:
    return str(rows[f"{sensor.lower()}_ids"].iloc[position][step]).split(JOIN)


def _put(
    arrays: dict[str, np.ndarray], parts: Mapping[int, Mapping[str, np.ndarray]], specs: Sequence[ArraySpec], step: int
) -> None:
    """One date into the series: the best granule, its gaps filled from the next."""
    for spec in specs:
        for rank in sorted(parts):
            values = parts[rank].get(spec.name)
            if values is None:
                continue
            target = arrays[spec.name][step]
            gaps = target == spec.fill
            target[gaps] = values[gaps]


def _told_of_series(read: Read, problems: list[Exception], row: Any) -> None:
    count = sum(len(row[name] or []) for name in ("s1_ids", "s2_ids") if name in row.index)
    # Of its own dates: what pads a short series to the longest is not ground without data.
    steps = {sensor: len(row[f"{sensor}_ids"] or []) for sensor in ("s1", "s2") if f"{sensor}_ids" in row.index}
    read.told |= shares({name: values[: steps.get(_sensor(name), 0)] for name, values in read.arrays.items()})
    empty = [name for name in ("valid_s1", "valid_s2") if read.told[name] == 0]
    if empty:
        error = problems[0] if problems else ReadError("None of its scenes holds a pixel of this window.")
        read.arrays, read.told, read.error = {}, {}, error
        return
    if problems:
        read.told["reason"] = f"{len(problems)} of {count} scenes are missing, the first: {plain(problems[0])}"


def _sensor(name: str) -> str:
    """The sensor of an array, s1 or s2."""
    return "s1" if name.split("_")[0] in ("s1", "angle") else "s2"


def plain(error: BaseException) -> str:
    """What went wrong, in one line and without the folders of this machine.

    >>> plain(ReadError("B04 of S2A_x failed. /data/cache/S2A_x/B04.tif cannot be opened"))
    'B04 of S2A_x failed. B04.tif cannot be opened'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"(?<![\w/:.])/(?:[^\s/:'\",;]+/)+", "", text)
