"""GeoParquet: what its metadata tells, and its rows within a box, row group after row group."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely

from deepsentinel.errors import InputError, ReadError

from .layers import Layer, open_bytes

__all__ = ["parquet_column", "parquet_layer", "read_parquet"]

_BATCH_ROWS = 65_536
_EDGES = ("xmin", "ymin", "xmax", "ymax")


def parquet_layer(source: str) -> Layer:
    """The one table of a GeoParquet file. By its standard a CRS that is left out is longitude and latitude; one that is
    written as null is unknown.
    """
    schema = _open(source).schema_arrow
    geo = _geo(schema.metadata)
    name = geo.get("primary_column", "geometry")
    if name not in schema.names:
        found = ", ".join(schema.names[:30])
        raise InputError(f"{_name(source)} is a Parquet file without a geometry column; it has {found}.")
    crs = None
    if geo:
        told = geo["columns"][name].get("crs", "OGC:CRS84")
        crs = None if told is None else pyproj.CRS.from_user_input(told)
    columns = tuple(column for column in schema.names if column != name and not column.startswith("__index_level_"))
    return Layer(_name(source).rsplit(".", 1)[0], source, "parquet", columns, crs, "Unknown")


def read_parquet(
    source: str, *, columns: Sequence[str] | None = None, bounds: tuple[float, float, float, float] | None = None
) -> gpd.GeoDataFrame:
    """The rows whose geometry touches the box `bounds` (in the file's CRS), and the columns asked for.

    Where each row's box is in a column `bbox` (GeoParquet 1.1, Overture, fiboa) row groups elsewhere are not read at
    all; otherwise each is read and looked through, so that never more than one is held beside the result.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    file = _open(source)
    geo = _geo(file.schema_arrow.metadata)
    name = geo.get("primary_column", "geometry")
    encoding = geo["columns"][name].get("encoding", "WKB") if geo else "WKB"
    mine = set(parquet_layer(source).columns if columns is None else columns) | {name}
    wanted = [column for column in file.schema_arrow.names if column in mine]
    covering = _covering(file.schema_arrow, geo, name)
    read = wanted if covering is None or covering in wanted else [*wanted, covering]
    if encoding != "WKB":
        raise ReadError(f"{_name(source)} writes its geometries as {encoding!r}; only WKB is read. Convert it by GDAL.")
    parts, shapes = [], []
    for group in range(file.num_row_groups):
        if (
            bounds is not None
            and covering is not None
            and not _may_touch(file.metadata.row_group(group), covering, bounds)
        ):
            continue
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=read):
            rows = pa.Table.from_batches([batch])
            if bounds is not None and covering is not None:
                box = rows[covering]
                x0, y0, x1, y1 = (pc.struct_field(box, edge) for edge in _EDGES)
                inside = pc.and_(
                    pc.and_(pc.less_equal(x0, bounds[2]), pc.greater_equal(x1, bounds[0])),
                    pc.and_(pc.less_equal(y0, bounds[3]), pc.greater_equal(y1, bounds[1])),
                )
                rows = rows.filter(inside)
            geometries = shapely.from_wkb(rows[name].to_numpy(zero_copy_only=False), on_invalid="ignore")
            if bounds is not None and len(geometries):
                boxes = shapely.bounds(geometries).T
                outside = (
                    (boxes[0] > bounds[2]) | (boxes[2] < bounds[0]) | (boxes[1] > bounds[3]) | (boxes[3] < bounds[1])
                )
                geometries, rows = geometries[~outside], rows.filter(pa.array(~outside))
            parts.append(rows.select([column for column in wanted if column != name]))
            shapes.append(geometries)
    empty = file.schema_arrow.empty_table().select([column for column in wanted if column != name])
    # Without pandas' metadata an index is a column like any other, as it is for all who did not write the file.
    frame = _frame(pa.concat_tables(parts or [empty]))
    crs = parquet_layer(source).crs
    geometry = np.concatenate(shapes) if shapes else np.array([], dtype=object)
    return gpd.GeoDataFrame(frame, geometry=geometry, crs=crs)


def parquet_column(source: str, name: str) -> pd.Series:
    """One column of all rows."""
    return _frame(_open(source).read([name]))[name]


def _frame(table: Any) -> pd.DataFrame:
    """As pandas has it, but that integers stay integers where some are missing."""
    import pyarrow as pa

    frame = table.to_pandas(maps_as_pydicts="lossy", ignore_metadata=True)
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_integer(field.type) and column.null_count:
            kind = f"{'U' if pa.types.is_unsigned_integer(field.type) else ''}Int64"
            frame[field.name] = pd.array(column.to_pylist(), dtype=kind)
    return frame


def _open(source: str) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise InputError("GeoParquet needs pyarrow: pip install pyarrow.") from error
    try:
        # By its path where it has one, so that nothing stays open when a row group is not wanted.
        return pq.ParquetFile(open_bytes(source) if source.startswith("/vsizip/") else source)
    except (pa.ArrowInvalid, OSError) as error:
        raise ReadError(f"{_name(source)} cannot be read: {error}. It may be damaged; get it again.") from error


def _name(source: str) -> str:
    return source.rsplit("/", 1)[-1]


def _geo(metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    return dict(json.loads((metadata or {}).get(b"geo", b"{}")))


def _covering(schema: Any, geo: dict[str, Any], name: str) -> str | None:
    """The column that holds each row's box: as the metadata says, or called bbox, as files before 1.1 have it."""
    told = geo.get("columns", {}).get(name, {}).get("covering", {}).get("bbox", {})
    column = told["xmin"][0] if told else "bbox"
    if column not in schema.names:
        return None
    kind = schema.field(column).type
    names = {kind.field(i).name for i in range(kind.num_fields)}
    return column if names.issuperset(_EDGES) else None


def _may_touch(group: Any, covering: str, bounds: tuple[float, float, float, float]) -> bool:
    """Whether the statistics of a row group leave it possible that a row of it touches the box."""
    ranges: dict[str, tuple[float, float]] = {}
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema.startswith(f"{covering}.") and column.statistics and column.statistics.has_min_max:
            ranges[column.path_in_schema.rsplit(".", 1)[-1]] = (column.statistics.min, column.statistics.max)
    if not ranges.keys() >= set(_EDGES):
        return True
    return (
        ranges["xmin"][0] <= bounds[2]
        and ranges["xmax"][1] >= bounds[0]
        and ranges["ymin"][0] <= bounds[3]
        and ranges["ymax"][1] >= bounds[1]
    )
