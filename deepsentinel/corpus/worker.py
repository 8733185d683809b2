"""One shard of a corpus, from scenes to files: what a thread, a process or a machine of a cluster does by itself.

A shard is read, masked and packed sample by sample, so that what is held of it is what goes into its files. They are
written first, the part of the table last: a shard whose part is there is whole, any other is made again.
"""

from __future__ import annotations

import pickle
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd

from deepsentinel.errors import DeepSentinelError, ReadError, SourceError
from deepsentinel.sources.engine import reading_until

from .layout import ArraySpec, Layout, shard_path
from .masking import CELL_PX, Mask, cell_grid, made, sample_grid
from .quiet import quietly
from .reader import Read, plain, read_rows
from .samples import read_samples, write_samples
from .shards import CHECKSUM_BYTES, checksum, encode, read_raw, write_shard
from .stopping import Watch

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from deepsentinel.sources import Source

PARTS = "parts"
WORK = ".work"
CELL_BYTES = 192 * 2**20
"""Cells of masks that are kept."""
PROBES = 3
# GDAL would answer from what it remembers of a file that was opened for the plan.
ASK_AGAIN = {"CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsiaz/:/vsigs/"}


@dataclass(frozen=True)
class Job:
    """What every shard of a build shares. It travels to workers with each task, so it is small or kept by them."""

    token: str
    """Names the build: what workers remember is of one build alone."""
    store: str
    """The folder of the corpus."""
    layout: Layout
    """Its arrays."""
    settings: Mapping[str, Any]
    """Of the plan."""
    sources: bytes
    """The sources, pickled: a worker opens them once."""
    masks: tuple[Mask, ...]
    """How labels are burnt."""
    threads: int | None
    """Threads that read, in one shard."""


@dataclass(frozen=True)
class Task:
    """One shard."""

    job: Job
    shard: int
    rows: gpd.GeoDataFrame
    """Its samples."""
    dense: Mapping[str, np.ndarray]
    """By mask: which samples are cut from cells."""
    probes: tuple[tuple[str, str, str], ...] = ()
    """Source, sensor and scene of others than its own: whether the source is still there."""
    retry: bool = False
    """Whether the shard is there, and only what failed is made again."""


@dataclass(frozen=True)
class Done:
    """What became of a shard."""

    shard: int
    ok: int
    failed: int
    made: int
    """How many of them were made now."""
    lost: int
    """How many of those failed."""
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What would have been warned of."""


# What this process remembers of the build it works on.
_lock = threading.Lock()
_sources: dict[str, dict[str, Source]] = {}
_own: set[str] = set()
_tables: dict[tuple[str, str], gpd.GeoDataFrame] = {}
_cells: OrderedDict[tuple[Any, ...], Future[dict[str, np.ndarray] | None]] = OrderedDict()
_sizes: dict[tuple[Any, ...], int] = {}


def remember(token: str, sources: Mapping[str, Source]) -> None:
    """The driver's own sources serve the threads of its own process, with all that they have found already."""
    with _lock:
        _sources[token] = dict(sources)
        _own.add(token)


def forget(token: str) -> None:
    """Let go of what belongs to a build."""
    with _lock:
        _own.discard(token)
        _forget(token)


def _forget(token: str) -> None:
    _sources.pop(token, None)
    for known in (_tables, _cells, _sizes):
        for key in [key for key in known if key[0] == token]:
            known.pop(key)


def build_shard(task: Task) -> Done:
    """Make one shard and commit it; `Stopped` if nobody wants it any more."""
    job = task.job
    watch = Watch(Path(job.store) / WORK, job.token)
    watch.check()
    sources = _sources_of(job)
    with watch.told(), quietly() as notes, reading_until(watch.stopped), ExitStack() as left:
        held = _held(task) if task.retry else {}
        # A series with gaps is good, but is tried again.
        kept = {at for at, (row, _) in held.items() if pd.isna(row["reason"])}
        rows = task.rows
        todo = [position for position in range(len(rows)) if position not in kept]
        chunks: dict[str, list[bytes | None]] = {spec.name: [None] * len(rows) for spec in job.layout.arrays}
        table = rows.copy()
        reasons: list[str] = []
        pixels = [spec for spec in job.layout.arrays if spec.name not in _mask_names(job)]
        part = rows.iloc[todo]
        old = {at: _restored(held[at], chunks, at) for at in kept}
        facts: dict[int, dict[str, Any]] = {}
        lost: list[Exception] = []
        # Closed when this is left, and not when the error that says why is forgotten: it reads ahead.
        reads = left.enter_context(closing(read_rows(part, sources, job.settings, pixels, job.threads)))
        for read in reads:
            watch.check()
            at = todo[read.position]
            try:
                if read.error is not None:
                    raise read.error
                _mask(task, at, read)
                for spec in job.layout.arrays:
                    chunks[spec.name][at] = encode(read.arrays[spec.name], spec)
                facts[at] = {"status": "ok", "reason": read.told.pop("reason", None), **read.told}
            except (DeepSentinelError, OSError) as error:
                if at in held:  # what is there is more than nothing
                    old[at] = _restored(held[at], chunks, at)
                    continue
                for spec in job.layout.arrays:
                    chunks[spec.name][at] = None
                facts[at] = {"status": "failed", "reason": plain(error)}
                reasons.append(plain(error))
                lost.append(error)
        watch.check()
        if lost and len(lost) == len(rows):
            _check_alive(task, sources, lost[0])
        _fill(table, old)
        _fill(table, facts)
        watch.check()
        _write(task, chunks, table)
        said = tuple(dict.fromkeys(notes))
    failed = int((table["status"] == "failed").sum())
    return Done(task.shard, len(table) - failed, failed, len(todo), len(lost), tuple(dict.fromkeys(reasons)), said)


def part_path(store: str | Path, shard: int) -> Path:
    """Where the part of the table that commits a shard lies."""
    return Path(store) / PARTS / f"{shard:06d}.parquet"


def table_path(store: str | Path, mask: str) -> Path:
    """Where workers find the labels of a mask."""
    return Path(store) / WORK / f"{mask}.parquet"


def _fill(table: gpd.GeoDataFrame, facts: Mapping[int, Mapping[str, Any]]) -> None:
    for name in dict.fromkeys(key for told in facts.values() for key in told):
        kind = table[name].dtype
        column = table[name].to_numpy(dtype=object).copy()
        for at, told in facts.items():
            column[at] = told.get(name, None if pd.api.types.is_object_dtype(kind) else np.nan)
        # Said aloud, as pandas would take texts among None for texts and NaN.
        table[name] = pd.Series(column, table.index, dtype=kind)


def _write(task: Task, chunks: Mapping[str, list[bytes | None]], table: gpd.GeoDataFrame) -> None:
    job = task.job
    try:
        for spec in job.layout.arrays:
            target = shard_path(job.store, spec, task.shard)
            if any(chunk is not None for chunk in chunks[spec.name]):
                write_shard(target, chunks[spec.name], slots=job.layout.samples_per_shard)
            else:  # what a build that was killed may have left
                target.unlink(missing_ok=True)
        write_samples(part_path(job.store, task.shard), table)
    except OSError as error:
        raise unwritable(job.store, error) from error


def unwritable(store: str | Path, error: OSError) -> SourceError:
    """What to say of a disk that is full or a folder that may not be written."""
    why = error.strerror or str(error)
    return SourceError(
        f"The corpus cannot be written to {store}: {why}. Make room there, or make it writable, and call build_corpus"
        " again: it goes on where it stopped, and all shards that are finished can be read."
    )


# -- a shard that is there already -------------------------------------------------------------------------------------


def _held(task: Task) -> dict[int, tuple[Any, dict[str, bytes]]]:
    """Positions of the samples that are there and whole: the row of each, and its bytes by array."""
    part = read_samples(part_path(task.job.store, task.shard))
    found: dict[int, tuple[Any, dict[str, bytes]]] = {
        int(at): (part.iloc[int(at)], {}) for at in np.flatnonzero(part["status"] == "ok")
    }
    for spec in task.job.layout.arrays:
        try:
            raw = read_raw(shard_path(task.job.store, spec, task.shard), task.job.layout.samples_per_shard)
        except (FileNotFoundError, ReadError):
            return {}
        for at in list(found):
            data = raw[at]
            if data is None or checksum(data[:-CHECKSUM_BYTES]) != data[-CHECKSUM_BYTES:]:
                del found[at]
            else:
                found[at][1][spec.name] = data
    return found


def _restored(
    held: tuple[Any, Mapping[str, bytes]], chunks: Mapping[str, list[bytes | None]], at: int
) -> dict[str, Any]:
    """A sample as it was: its bytes put back, and what the table said of it."""
    row, data = held
    for name, each in data.items():
        chunks[name][at] = each
    return {name: row[name] for name in row.index if name != "geometry"}


# -- sources -----------------------------------------------------------------------------------------------------------


def _sources_of(job: Job) -> dict[str, Source]:
    with _lock:
        if job.token not in _sources:
            # Nobody tells the worker of a pool that a build is over; the one before this may still be going on.
            for old in [token for token in _sources if token not in _own][:-1]:
                _forget(old)
            _sources[job.token] = {source.name: source for source in pickle.loads(job.sources)}
        return _sources[job.token]


def _check_alive(task: Task, sources: Mapping[str, Source], error: Exception) -> None:
    """Nothing of a shard could be read: was it the files, or is the source gone? Other scenes tell."""
    for name, sensor, scene in task.probes:
        row = task.rows.iloc[0]
        if name == row["source"] and _opens(sources[name], sensor, scene):
            return
    raise SourceError(
        f"{task.rows['source'].iloc[0]} can no longer be read: {error} Neither can scenes of other samples, so the"
        " source seems to be gone. Call build_corpus again when it is back: finished shards are kept."
    )


def _opens(source: Any, sensor: str, scene: str) -> bool:
    """Whether a scene is still there: its source says so, or any file of it can be opened."""
    import rasterio

    from deepsentinel.sources.engine.rasters import looked_into
    from deepsentinel.sources.wire import Trouble

    failures = (DeepSentinelError, OSError, KeyError, AttributeError, rasterio.errors.RasterioError, Trouble)
    with suppress(*failures):
        if (reaches := getattr(source, "reaches", None)) is not None:
            return bool(reaches(sensor, scene))
        item = source.items_of(sensor, [scene])[scene]
        for ref in list(source.assets_of(item).values())[:PROBES]:
            with suppress(*failures):
                href = source.resolve(ref.href, item, ref.key)
                for _ in range(2):  # of stores it forgets when it closes
                    with looked_into(href, {**source.gdal_options(), **ASK_AGAIN}):
                        pass
                return True
    return False


# -- masks -------------------------------------------------------------------------------------------------------------


def _mask_names(job: Job) -> set[str]:
    return {f"{mask.name}_{layer}" for mask in job.masks for layer in mask.layers}


def _mask(task: Task, position: int, read: Read) -> None:
    """Add the masks to a sample."""
    row = task.rows.iloc[position]
    for mask in task.job.masks:
        specs = {layer: task.job.layout.spec(f"{mask.name}_{layer}") for layer in mask.layers}
        if mask.kind == "call":
            read.arrays |= made(mask, read.patch, specs["class_map"])
            continue
        if task.dense[mask.name][position]:
            found: Mapping[str, np.ndarray] | None = _from_cells(task, mask, specs, row)
        else:
            found = _burnt(task.job, mask, sample_grid(row), int(row["place"]))
        for layer, spec in specs.items():
            read.arrays[spec.name] = spec.empty() if found is None else found[layer].astype(spec.dtype, copy=False)


def _burnt(job: Job, mask: Mask, grid: GeoBox, place: int | None) -> dict[str, np.ndarray] | None:
    table = None
    if mask.kind == "table":
        table = _table_of(job, mask)
        if mask.alone:
            table = table[table["place"] == place]
            if not len(table):
                return None
    masks = mask.arrays(grid, table)
    return None if masks is None else {layer: masks[layer].to_numpy() for layer in mask.layers}


def _table_of(job: Job, mask: Mask) -> gpd.GeoDataFrame:
    key = (job.token, mask.name)
    with _lock:
        if key not in _tables:
            _tables[key] = gpd.read_parquet(table_path(job.store, mask.name))
            _ = _tables[key].sindex
        return _tables[key]


def _from_cells(task: Task, mask: Mask, specs: Mapping[str, ArraySpec], row: Any) -> dict[str, np.ndarray]:
    """A window, put together from the cells of the lattice under it."""
    a, _, x0, _, _, y0 = row["transform"]
    factor = mask.factor
    cell_px = CELL_PX // factor
    left, top = int(np.floor(x0 / a + 1e-6)), int(np.floor(-y0 / a + 1e-6))
    phase = (x0 - left * a, y0 + top * a)
    size = int(row["width"])
    out = {layer: np.empty(spec.shape, spec.dtype) for layer, spec in specs.items()}
    for down in range(top // cell_px, (top + size - 1) // cell_px + 1):
        for across in range(left // cell_px, (left + size - 1) // cell_px + 1):
            cell = _cell(task.job, mask, str(row["crs"]), float(a), phase, across, down)
            rows = slice(max(down * cell_px, top), min((down + 1) * cell_px, top + size))
            columns = slice(max(across * cell_px, left), min((across + 1) * cell_px, left + size))
            there = _scaled(rows, top, factor), _scaled(columns, left, factor)
            here = _scaled(rows, down * cell_px, factor), _scaled(columns, across * cell_px, factor)
            for layer, values in out.items():
                values[there] = 0 if cell is None else cell[layer][here]
    return out


def _scaled(part: slice, start: int, factor: int) -> slice:
    return slice((part.start - start) * factor, (part.stop - start) * factor)


def _cell(
    job: Job, mask: Mask, crs: str, step: float, phase: tuple[float, float], across: int, down: int
) -> dict[str, np.ndarray] | None:
    """One cell, burnt by whoever needs it first, and kept while there is room."""
    key = (job.token, mask.name, crs, step, phase, across, down)
    with _lock:
        waiting = _cells.get(key)
        if waiting is not None:
            _cells.move_to_end(key)
        else:
            mine: Future[dict[str, np.ndarray] | None] = Future()
            _cells[key] = mine
    if waiting is not None:
        return waiting.result()
    try:
        grid = cell_grid(crs, step, phase, across, down, CELL_PX // mask.factor)
        found = _burnt(job, mask, grid, None)
    except BaseException as error:
        mine.set_exception(error)
        with _lock:
            _cells.pop(key, None)
        raise
    mine.set_result(found)
    with _lock:
        _sizes[key] = sum(values.nbytes for values in found.values()) if found else 0
        while sum(_sizes.values()) > CELL_BYTES and len(_sizes) > 1:
            oldest = next(iter(one for one in _cells if one in _sizes))
            _cells.pop(oldest)
            _sizes.pop(oldest)
    return found
