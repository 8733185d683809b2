"""The *samples* table: fixed columns and types, and the GeoParquet file that keeps them.

The file is written from one schema, so that a column in which nothing is known yet has its type all the same, parts of
a corpus can be put together, and two builds of one plan are identical to the byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError, ReadError
from deepsentinel.files import atomic_path

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import pyarrow as pa

# name -> kind. "texts" and "times" are lists, for series.
COLUMNS: Mapping[str, str] = {
    "sample": "int",
    "id": "text",
    "source": "text",
    "place": "int",
    "status": "text",
    "reason": "text",
    "s1_id": "text",
    "s2_id": "text",
    "s1_time": "time",
    "s2_time": "time",
    "s1_ids": "texts",
    "s2_ids": "texts",
    "s1_times": "times",
    "s2_times": "times",
    "gap_hours": "float",
    "overlap": "float",
    "cloud_cover": "float",
    "orbit": "text",
    "relative_orbit": "maybe_int",
    "tile": "text",
    "crs": "text",
    "transform": "floats",
    "height": "int",
    "width": "int",
    "lon": "float",
    "lat": "float",
    "class": "text",
    "level": "text",
    "backscatter": "text",
    "baseline": "text",
    "offset_removed": "float",
    "placement_error_m": "float",
    "placement_shift_per_m": "float",
    "sea_height_m": "float",
    "noise_removed": "maybe_int",
    "valid_s1": "float",
    "valid_s2": "float",
    "clear": "float",
    "seed": "int",
    "version": "text",
}
SERIES = ("s1_ids", "s2_ids", "s1_times", "s2_times")
"""Columns of series alone; a table of pairs has none of them."""
PLACEMENT = ("placement_error_m", "placement_shift_per_m", "sea_height_m", "noise_removed")
"""What radar says that was placed here. Files in which no sample says it lack these columns."""


def samples_table(columns: Mapping[str, Any], geometry: Any) -> gpd.GeoDataFrame:
    """The table with all its columns and types from those that are known; the others are empty.

    >>> import shapely
    >>> table = samples_table({"sample": [0], "id": ["a"]}, [shapely.box(0, 0, 1, 1)])
    >>> table.dtypes["relative_orbit"], table.crs.to_epsg()
    (Int64Dtype(), 4326)
    """
    import geopandas as gpd
    import pandas as pd

    unknown = sorted(set(columns) - set(COLUMNS))
    if unknown:
        raise InputError(f"{unknown[0]!r} is no column of a table of samples; there are {', '.join(COLUMNS)}.")
    count = len(geometry)
    made = {name: _column(columns.get(name), kind, count) for name, kind in _held(columns).items()}
    frame = pd.DataFrame(made, index=pd.RangeIndex(count))
    return gpd.GeoDataFrame(frame, geometry=np.asarray(geometry, dtype=object), crs="EPSG:4326")


def _held(columns: Any) -> dict[str, str]:
    """The columns of a table that has these: those of series where it has any of them."""
    series = any(name in columns for name in SERIES)
    return {name: kind for name, kind in COLUMNS.items() if series or name not in SERIES}


def _written(columns: Any) -> dict[str, str]:
    """The columns of a file that has these."""
    return {name: kind for name, kind in _held(columns).items() if name not in PLACEMENT or name in columns}


def _column(values: Any, kind: str, count: int) -> pd.Series:
    import pandas as pd

    if values is None:
        values = {"int": [0] * count, "float": [np.nan] * count}.get(kind, [None] * count)
    if kind == "time":
        return pd.to_datetime(pd.Series(list(values), dtype="object"), utc=True).dt.as_unit("ns")
    if kind == "maybe_int":
        return pd.Series(pd.array([pd.NA if pd.isna(value) else int(value) for value in values], dtype="Int64"))
    if kind in ("int", "float"):
        return pd.Series(np.asarray(values, "int64" if kind == "int" else "float64"))
    found = np.empty(count, dtype=object)
    for at, value in enumerate(values):
        if value is None or isinstance(value, float):  # NaN is how pandas has a missing text
            continue
        if kind == "text":
            found[at] = str(value)
        else:
            found[at] = [float(one) for one in value] if kind == "floats" else list(value)
    return pd.Series(found, dtype="object")


def schema(columns: Any = ()) -> pa.Schema:
    """The types of the file of a table that has these columns, the geometry last."""
    import pyarrow as pa

    stamp = pa.timestamp("ns", tz="UTC")
    kinds = {
        "int": pa.int64(),
        "maybe_int": pa.int64(),
        "float": pa.float64(),
        "text": pa.string(),
        "time": stamp,
        "texts": pa.list_(pa.string()),
        "times": pa.list_(stamp),
        "floats": pa.list_(pa.float64()),
    }
    return pa.schema([(name, kinds[kind]) for name, kind in _written(columns).items()] + [("geometry", pa.binary())])


def to_arrow(table: gpd.GeoDataFrame) -> pa.Table:
    """The table as it is written, its geometry as WKB."""
    import pyarrow as pa
    import shapely

    known = [name for name in table.columns if name not in PLACEMENT or table[name].notna().any()]
    types, arrays = schema(known), []
    for name, kind in _written(known).items():
        wanted = types.field(name).type
        if kind == "times":
            numbers = [None if row is None else [_nanoseconds(one) for one in row] for row in table[name]]
            arrays.append(pa.array(numbers, pa.list_(pa.int64())).cast(wanted))
        elif kind in ("text", "texts", "floats"):
            arrays.append(pa.array(table[name].tolist(), wanted))
        else:
            arrays.append(pa.array(table[name], wanted, from_pandas=kind != "float"))
    arrays.append(pa.array(shapely.to_wkb(np.asarray(table.geometry.array, dtype=object)).tolist(), pa.binary()))
    return pa.table(arrays, schema=types)


def _nanoseconds(value: Any) -> int:
    import pandas as pd

    return int(pd.Timestamp(value).as_unit("ns").value)


def write_samples(path: str | Path, table: gpd.GeoDataFrame) -> None:
    """Write a samples table as GeoParquet, whole or not at all."""
    import pyarrow.parquet as pq

    told: dict[str, Any] = {"encoding": "WKB", "geometry_types": sorted(set(table.geometry.geom_type))}
    if len(table):
        told["bbox"] = [float(edge) for edge in table.total_bounds]
    # Without a CRS GeoParquet means degrees, longitude first.
    geo = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": told}}
    found = to_arrow(table).replace_schema_metadata({"geo": json.dumps(geo)})
    with atomic_path(path) as temporary:
        pq.write_table(found, temporary, compression="zstd")


def read_samples(path: str | Path | Sequence[str | Path]) -> gpd.GeoDataFrame:
    """Read a samples table, or several one below the other."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = []
    for one in [path] if isinstance(path, str | Path) else path:
        try:
            # Not as a data set, which would take folders in the path for columns.
            part = pq.ParquetFile(one).read()
        except (OSError, pa.ArrowException) as error:
            raise ReadError(f"{one} cannot be read as a table of samples: {error}.") from error
        types = schema(part.column_names)
        missing = [name for name in types.names if name not in part.column_names]
        if missing:
            raise InputError(f"{one} is no table of samples: it lacks {', '.join(missing)}.")
        found.append(part.select(types.names).replace_schema_metadata(None).cast(types))
    return from_arrow(pa.concat_tables(found, promote_options="default"))


def from_arrow(found: pa.Table) -> gpd.GeoDataFrame:
    """The table from what was written."""
    import shapely

    columns: dict[str, Any] = {}
    for name, kind in _written(found.column_names).items():
        column = found.column(name)
        if kind in ("int", "float"):
            columns[name] = column.to_numpy()
        elif kind == "times":
            columns[name] = _lists_of_times(column)
        elif kind == "time":
            columns[name] = column.to_pandas()
        else:
            columns[name] = column.to_pylist()
    return samples_table(columns, shapely.from_wkb(found.column("geometry").to_numpy(zero_copy_only=False)))


def _lists_of_times(column: pa.ChunkedArray) -> list[Any]:
    import pandas as pd
    import pyarrow as pa

    numbers = column.cast(pa.list_(pa.int64())).to_pylist()
    return [None if row is None else list(pd.to_datetime(row, unit="ns", utc=True)) for row in numbers]


def fingerprint(table: gpd.GeoDataFrame, settings: Mapping[str, Any]) -> str:
    """A short name for a plan: equal where the samples and the settings are, whatever libraries made them.

    >>> table = samples_table({}, [])
    >>> fingerprint(table, {"seed": 0}) == fingerprint(table, {"seed": 1})
    False
    """
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True, default=str).encode())
    for name, kind in _held(table.columns).items():
        if name in PLACEMENT:  # known of what was read alone
            continue
        digest.update(name.encode())
        column = table[name]
        if kind in ("int", "float"):
            digest.update(np.ascontiguousarray(column.to_numpy()).tobytes())
        elif kind == "time":
            digest.update(column.dt.tz_convert(None).to_numpy("datetime64[ns]").tobytes())
        elif kind == "maybe_int":
            digest.update(column.fillna(-1).to_numpy("int64").tobytes())
        elif kind == "times":
            for row in column:
                digest.update(f"{None if row is None else [_nanoseconds(one) for one in row]}\0".encode())
        else:
            for row in column:
                digest.update(f"{row}\0".encode())
    return digest.hexdigest()[:16]
