"""Embeddings as files that others open: every feature a band of a GeoTIFF, or every vector a row of GeoParquet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from . import __version__
from .errors import InputError
from .files import atomic_path
from .grids import crs_of, grid_of
from .similarity.vectors import Grid, vectors_of

if TYPE_CHECKING:
    from pyarrow import Table

# Features lie pixel by pixel, as they are used: a block of a tile is small enough for 1024 of them.
BLOCK_PX = 128
# One row group: what a reader holds at a time.
GROUP_ROWS = 65_536
CHANNELS = ("red", "green", "blue")


def embedding_to_geotiff(z: xr.DataArray, path: str | os.PathLike[str]) -> Path:
    """Write a dense embedding, or what was made of one, as a cloud-optimised GeoTIFF; returns its path.

    An embedding (y, x, feature) becomes one band a feature, float32 with NaN as nodata and the encoder in the tags; it
    is written a few rows at a time. `pca_rgb` becomes a picture in 8 bits (1 to 255, 0 is nodata), a map of scores or
    of change one band. The file appears whole or not at all. Groups from `cluster` are masks: write them with
    `to_geotiff(cluster(z).to_dataset(), folder)`, which keeps names and colours.

    >>> import tempfile
    >>> from deepsentinel import geobox
    >>> from deepsentinel.grids import grid_coords
    >>> grid = geobox((2.0, 48.0, 2.001, 48.001))
    >>> z = xr.DataArray(np.zeros((*grid.shape, 4), "float32"), grid_coords(grid), ("y", "x", "feature"))
    >>> embedding_to_geotiff(z, Path(tempfile.mkdtemp()) / "z.tif").name
    'z.tif'
    """
    import rasterio
    from rasterio.shutil import copy

    target = Path(path)
    if target.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"{str(target)!r} is not the name of a GeoTIFF; let it end with .tif.")
    if not isinstance(z, xr.DataArray) or not {"y", "x"} <= set(z.dims) or z.ndim > 3:
        dims = ", ".join(map(str, getattr(z, "dims", ())))
        raise InputError(f"A GeoTIFF holds a map, (y, x) or (y, x, feature); this has the dimensions ({dims}).")
    if z.dtype.kind not in "fiu":
        raise InputError(f"This map holds {z.dtype}, not numbers.")
    last = next((dim for dim in z.dims if dim not in ("y", "x")), None)
    array = z.expand_dims("feature", axis=-1) if last is None else z.transpose("y", "x", last)
    picture = last == "channel" and array.sizes["channel"] == len(CHANNELS)
    grid = grid_of(array)
    profile = {
        "height": int(grid.shape.y),
        "width": int(grid.shape.x),
        "count": int(array.shape[-1]),
        "crs": crs_of(grid).to_wkt(),
        "transform": grid.affine,
        "dtype": "uint8" if picture else "float32",
        "nodata": 0 if picture else np.nan,
    }
    tiles = {
        "tiled": True,
        "blockxsize": BLOCK_PX,
        "blockysize": BLOCK_PX,
        "interleave": "pixel",
        "bigtiff": "IF_SAFER",
    }
    options = {"compress": "DEFLATE", "predictor": "YES", "blocksize": BLOCK_PX, "bigtiff": "IF_SAFER"}
    # GDAL may not write its own .aux.xml: it would carry the name of the temporary file.
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), atomic_path(target) as temporary:
        plain = temporary.with_name(temporary.name + ".plain.tif")
        try:
            with rasterio.open(plain, "w", driver="GTiff", **tiles, **profile) as file:
                for row in range(0, int(grid.shape.y), BLOCK_PX):
                    part = array.isel(y=slice(row, row + BLOCK_PX)).to_numpy()
                    values = _bytes(part) if picture else part.astype("float32")
                    window = rasterio.windows.Window(0, row, int(grid.shape.x), len(values))
                    file.write(np.moveaxis(values, -1, 0), window=window)
                _describe(file, z, array, picture)
            copy(str(plain), str(temporary), driver="COG", overview_resampling="average", **options)
        finally:
            plain.unlink(missing_ok=True)
    return target


def _bytes(colours: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        scaled = np.round(1 + 254 * np.clip(colours, 0, 1))
    return np.where(np.isfinite(colours), scaled, 0).astype("uint8")


def _describe(file: Any, z: xr.DataArray, array: xr.DataArray, picture: bool) -> None:
    from rasterio.enums import ColorInterp

    last = str(array.dims[-1])
    if z.ndim == 3:
        names = array[last].to_numpy() if last in array.coords else np.arange(array.shape[-1])
    else:
        names = np.array([z.attrs.get("long_name", z.name or "value")])
    for band, name in enumerate(names, start=1):
        file.set_band_description(band, str(name) if z.ndim == 2 or picture else f"feature {name}")
    if picture:
        file.colorinterp = [getattr(ColorInterp, channel) for channel in CHANNELS]
    tags = {str(key).upper(): str(value) for key, value in z.attrs.items() if isinstance(value, str | int | float)}
    file.update_tags(TIFFTAG_SOFTWARE=f"deepsentinel {__version__}", **tags)


def embedding_to_geoparquet(z: xr.DataArray, path: str | os.PathLike[str]) -> Path:
    """Write an embedding as GeoParquet, a vector a row: `id`, the point `geometry` in EPSG:4326, and `embedding`.

    `embedding` is a list of float32 of fixed size, as DuckDB, GeoPandas and vector databases read it. A cell of a dense
    embedding stands at its centre, and brings its `row` and `col`. Vectors without data are left out, and a sample
    without a place has no geometry. What was noted of the encoder is in the file's metadata, as "deepsentinel". The
    file appears whole or not at all, and is written a few thousand rows at a time.

    >>> import tempfile
    >>> place = {"lon": ("sample", [2.0, 2.1]), "lat": ("sample", [48.0, 48.1])}
    >>> z = xr.DataArray(np.eye(2, 4, dtype="float32"), place, ("sample", "feature"))
    >>> path = embedding_to_geoparquet(z, Path(tempfile.mkdtemp()) / "z.parquet")
    >>> import geopandas
    >>> geopandas.read_parquet(path)["embedding"][1].tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    from pyarrow import parquet

    target, writer = Path(path), None
    if target.suffix.lower() not in (".parquet", ".geoparquet"):
        raise InputError(f"{str(target)!r} is not the name of a GeoParquet file; let it end with .parquet.")
    if not vectors_of(z, "z").usable().any():
        raise InputError("The embedding holds no vector with data: all of them are NaN.")
    with atomic_path(target) as temporary:
        try:
            for table in _tables(z):
                if writer is None:
                    writer = parquet.ParquetWriter(temporary, table.schema, compression="zstd")
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
    return target


def _tables(z: xr.DataArray) -> Iterator[Table]:
    import pyarrow as pa
    import shapely

    found = vectors_of(z, "z")
    west_to_north = _bounds(found)
    column = {"encoding": "WKB", "geometry_types": ["Point"], **({"bbox": west_to_north} if west_to_north else {})}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    told = {"geo": json.dumps(geo), "deepsentinel": json.dumps({"version": __version__, **found.attrs})}
    for block, values in found.blocks():
        usable = np.flatnonzero(np.isfinite(values).all(axis=1))
        for rows in np.array_split(usable, max(1, -(-len(usable) // GROUP_ROWS))):
            if not len(rows):
                continue
            places = found.places.table(rows + block.start)
            lon, lat = places["lon"].to_numpy("float64"), places["lat"].to_numpy("float64")
            placed = np.isfinite(lon) & np.isfinite(lat)
            points = np.full(len(rows), None, dtype=object)
            points[placed] = shapely.to_wkb(shapely.points(lon[placed], lat[placed]))
            columns = {"id": pa.array(places["key"].to_numpy())}
            if isinstance(found.places, Grid):
                columns |= {name: pa.array(places[name].to_numpy()) for name in ("row", "col")}
            columns["geometry"] = pa.array(points, pa.binary())
            flat = pa.array(values[rows].reshape(-1), pa.float32())
            columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, found.width)
            yield pa.table(columns).replace_schema_metadata(told)


def _bounds(found: Any) -> list[float] | None:
    """West, south, east, north of all places."""
    edges = np.arange(found.count)
    if isinstance(found.places, Grid):  # the outermost cells, whose outline may bend in degrees
        rows, columns = (int(n) for n in found.places.geobox.shape)
        numbers = edges.reshape(rows, columns)
        edges = np.unique(np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]]))
    places: pd.DataFrame = found.places.table(edges)[["lon", "lat"]].dropna()
    if not len(places):
        return None
    return [*(float(v) for v in places.min()), *(float(v) for v in places.max())]
