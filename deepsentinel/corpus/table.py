"""The table of a corpus's samples, put together from what is there: of an unfinished store the plan and the parts."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import ReadError
from deepsentinel.grids import variable

from .chunks import Chunks
from .remote import Folder, Place

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import pyarrow as pa
    import xarray as xr

TABLE = "samples.parquet"
PLAN = "plan/samples.parquet"
PARTS = "parts"
# Dimensions of what a sample has several of.
AFFINE = "affine"
STEP = {"s1": "s1_step", "s2": "s2_step"}


def arrow_table(chunks: Chunks) -> pa.Table:
    """One row a sample, in order; of samples that nobody has built yet the plan's, or a row that says no more."""
    return _kept(chunks.place.path, _signature(chunks), _Box(chunks))


class _Box:
    """Something that a cache passes on without asking whether it is the same."""

    def __init__(self, chunks: Chunks) -> None:
        self.chunks = chunks

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Box)

    def __hash__(self) -> int:
        return 0


# A million rows take half a gigabyte, and mostly one corpus is asked again and again.
@lru_cache(maxsize=1)
def _kept(path: str, signature: Any, box: _Box) -> pa.Table:
    return _merged(box.chunks)


def _signature(chunks: Chunks) -> Any:
    """What changes when the table of a folder does; far away it is read once each time a corpus is opened."""
    if not isinstance(chunks.place, Folder):
        return chunks.place
    found = []
    for name in (TABLE, PLAN, *chunks.place.names(PARTS)):
        file = Path(chunks.place.path, name)
        if file.is_file():
            told = file.stat()
            found.append((name, told.st_ino, told.st_mtime_ns, told.st_size))
    return tuple(found)


def _merged(chunks: Chunks) -> pa.Table:
    import pyarrow as pa

    place = chunks.place
    first = _read(place, TABLE)
    if first is None:
        first = _read(place, PLAN)
    parts = [name for name in place.names(PARTS) if name.endswith(".parquet")]
    found = [table for table in (first, *(_read(place, name) for name in parts)) if table is not None]
    count = chunks.layout.samples
    if found:
        # What comes later was written later, so it counts; a column of nothing but nulls has no type of its own yet.
        table = pa.concat_tables(found, promote_options="permissive")
    else:
        table = pa.table({"sample": pa.array([], "int64")})
    rows = np.full(count, -1, "int64")
    numbers = table["sample"].to_numpy()
    inside = (numbers >= 0) & (numbers < count)
    rows[numbers[inside]] = np.flatnonzero(inside)
    unknown = rows < 0
    if not np.array_equal(rows, np.arange(table.num_rows)):
        table = table.take(pa.array(rows, mask=unknown))
    columns = {"sample": pa.array(np.arange(count))}
    if unknown.any() or "status" not in table.column_names:
        planned = pa.array(np.full(count, "planned", "object"), "string", mask=~unknown)
        columns["status"] = pa.compute.coalesce(table["status"], planned) if "status" in table.column_names else planned
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        table = table.append_column(name, values) if at < 0 else table.set_column(at, name, values)
    return table


def _read(place: Place, name: str) -> pa.Table | None:
    import pyarrow as pa
    import pyarrow.compute
    import pyarrow.parquet as pq

    data = place.get(name)
    if data is None:
        return None
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise ReadError(f"The table {place.path}/{name} cannot be read: {error}.") from error
    return table.replace_schema_metadata(None)


def coords_of(chunks: Chunks) -> dict[str, xr.Variable]:
    """The table as coordinates along `sample`, times as datetime64 in UTC, texts as objects, lists padded."""
    table = arrow_table(chunks)
    sizes = {dim: size for spec in chunks.layout.arrays for dim, size in zip(spec.dims[1:], spec.shape, strict=True)}
    found: dict[str, xr.Variable] = {}
    steps = {field.name for field in table.schema if _is_list(field.type)}
    for field in table.schema:
        name, column = field.name, table[field.name]
        if name == "geometry" or f"{name}s" in steps:  # a series has lists of ids and times in place of one
            continue
        if name in steps:
            found |= _listed(name, column, sizes)
        else:
            # Where no sample has a time, a table does not tell that these are times.
            empty = name.endswith("_time") and column.null_count == len(column)
            times = np.full(len(column), np.datetime64("NaT", "ns"))
            found[name] = variable(("sample",), times if empty else _flat(column))
    return found


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _flat(column: Any) -> np.ndarray:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind):
        return np.asarray(column.to_numpy(zero_copy_only=False), "datetime64[ns]")
    if pa.types.is_dictionary(kind):
        return _flat(column.cast(kind.value_type))
    if pa.types.is_boolean(kind) and not column.null_count:
        return np.asarray(column.to_numpy(zero_copy_only=False), "bool")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    # Equal texts are one object: a million rows name the same few sources and grids.
    values = column.to_pandas(deduplicate_objects=True).to_numpy("object")
    found = np.full(len(values), None, "object")
    there = column.is_valid().to_numpy(zero_copy_only=False)
    found[there] = values[there]
    return found


def _listed(name: str, column: Any, sizes: Mapping[str, int]) -> dict[str, xr.Variable]:
    """Lists side by side, the shorter ones padded."""
    joined = column.combine_chunks()
    lengths = joined.value_lengths().fill_null(0).to_numpy()
    values = _flat(joined.flatten())
    row = np.repeat(np.arange(len(lengths)), lengths)
    step = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    dim = AFFINE if name == "transform" else STEP.get(name[:2], f"{name}_step")
    width = max(6 if dim == AFFINE else sizes.get(dim, 0), int(lengths.max(initial=0)))
    missing = np.datetime64("NaT", "ns") if values.dtype.kind == "M" else np.nan if values.dtype.kind == "f" else None
    padded = np.full((len(lengths), width), missing, values.dtype if missing is not None else "object")
    padded[row, step] = values
    # A list of many is called as one of them is: s1_ids along the steps of Sentinel-1 is s1_id.
    return {name if dim == AFFINE else name.removesuffix("s"): variable(("sample", dim), padded)}


def frame_of(chunks: Chunks, numbers: np.ndarray | None = None) -> gpd.GeoDataFrame:
    """The table, or some rows of it, as a GeoDataFrame with the outlines of the samples."""
    import geopandas as gpd

    table = arrow_table(chunks)
    frame = (table if numbers is None else table.take(numbers)).to_pandas()
    outlines = _outlines(frame)
    return gpd.GeoDataFrame(frame.drop(columns="geometry", errors="ignore"), geometry=outlines, crs="EPSG:4326")


def _outlines(frame: pd.DataFrame) -> np.ndarray:
    import shapely

    if "geometry" not in frame:
        return np.full(len(frame), None, "object")
    return np.asarray(shapely.from_wkb(frame["geometry"].to_numpy("object")))
