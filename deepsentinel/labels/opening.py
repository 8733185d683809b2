"""A file of labels, opened: what it really is, which layers and columns it has, and its rows, only those wanted.

GDAL reads most formats and narrows them by area, column and condition while it reads. GeoParquet (which the usual GDAL
builds lack) and CSV with WKT are read by modules of their own beside this one.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import shapely

from deepsentinel.aoi import Area
from deepsentinel.errors import InputError, ReadError
from deepsentinel.geometries import SetAside

from .layers import SUFFIXES, Layer, check_content
from .parquet import parquet_column, parquet_layer, read_parquet
from .wkt import csv_column, csv_layer, read_csv

__all__ = ["LabelFile", "Layer", "concat", "open_labels"]

RASTERS = {".tif", ".tiff", ".img", ".jp2", ".nc", ".vrt", ".safe", ".zarr", ".npy"}
_PARQUET = {".parquet", ".geoparquet"}
# Edges of the area are bent by a projection; this many points along each follow the bend.
_POINTS_AN_EDGE = 20


@dataclass(frozen=True)
class LabelFile:
    """A file that has been looked into but not read."""

    path: Path
    """As it was given."""
    layers: tuple[Layer, ...]
    """Those with geometries."""
    area: Area | None = None
    """Where rows are wanted; None: everywhere."""
    crs: pyproj.CRS | None = None
    """What the user says of a file that does not tell."""

    def read(self, layer: Layer, *, columns: Sequence[str] | None = None, where: str | None = None) -> gpd.GeoDataFrame:
        """The rows of a layer that touch the area, with a CRS that somebody told.

        `columns` (as they are spelled in the file; None: all) and `where` (SQL) are applied while reading; `where` is
        only for layers whose `driver` is "gdal".
        """
        crs = self.crs_of(layer)
        if layer.driver == "csv":
            area = self.area
            keep = (lambda part: part) if area is None else (lambda part: _touching(part, area))
            return read_csv(layer.source, crs, self.path.name, keep)
        bounds = None if self.area is None or crs is None else _bounds_in(self.area, crs)
        if layer.driver == "parquet":
            table = read_parquet(layer.source, columns=columns, bounds=bounds)
        else:
            table = _read_gdal(layer, columns, where, bounds, self.path)
        if table.crs is None:
            table = table.set_crs(crs)
        _check_degrees(table, self.path)
        return table if self.area is None else _touching(table, self.area)

    def column(self, layer: Layer, name: str) -> pd.Series:
        """One column (as it is spelled in the file) of all rows, wherever they lie, without reading the geometries.

        What number a text gets must not depend on the area that is asked for.
        """
        if layer.driver == "csv":
            return csv_column(layer.source, name, self.path.name)
        if layer.driver == "parquet":
            return parquet_column(layer.source, name)
        return _read_gdal(layer, [name], None, None, self.path, read_geometry=False)[name]

    def crs_of(self, layer: Layer) -> pyproj.CRS | None:
        """The CRS of a layer; an error where nobody told one, or the user told another than the file. CSV: may be None,
        as each row may tell its own.
        """
        if layer.crs is None and self.crs is None and layer.driver != "csv":
            raise InputError(
                f"{self.path.name}: layer {layer.name!r} does not tell its CRS (a shapefile needs its .prj), so nobody"
                " knows where it lies. If you know, say so: read_labels(path, crs='EPSG:...')."
            )
        if layer.crs is not None and self.crs is not None and layer.crs != self.crs:
            raise InputError(
                f"{self.path.name}: layer {layer.name!r} says it is in {layer.crs.to_string()}, and crs="
                f"{self.crs.to_string()!r} was given. crs= is for files that tell none; leave it out."
            )
        return layer.crs or self.crs

    def nothing(self) -> str:
        """Why no row came, in a sentence."""
        if self.area is None:
            return "the file holds no rows of this kind."
        west, south, east, north = self.area.bounds
        places = [_lonlat_bounds(layer) for layer in self.layers if layer.driver == "gdal"]
        known = [place for place in places if place is not None]
        lies = ""
        if known:
            edges = np.array(known)
            low, high = edges[:, :2].min(axis=0), edges[:, 2:].max(axis=0)
            lies = f" The file lies within ({low[0]:.4g}, {low[1]:.4g}, {high[0]:.4g}, {high[1]:.4g})."
        return f"no row touches the area ({west:.4g}, {south:.4g}, {east:.4g}, {north:.4g}).{lies}"


def open_labels(path: Any, *, area: Area | None = None, layer: str | None = None, crs: Any = None) -> LabelFile:
    """Look into a file: an error says what it is where it is not what its name says, or cannot be read.

    `layer` picks one by name; without it a layer that the file marks as its only one with geometries, or all of them.
    """
    file = Path(path).expanduser()
    suffix = file.suffix.lower()
    if not file.exists():
        raise InputError(f"There is no file {file}.")
    if suffix in RASTERS:
        raise InputError(
            f"{file.name} is a raster: deepsentinel.read_label_raster(path, like) puts its classes on a grid."
        )
    if file.is_dir() and suffix != ".gdb":
        inside = sorted(child.name for child in file.iterdir() if child.suffix.lower() in {*SUFFIXES, ".zip"})
        raise InputError(f"{file} is a folder; give one of the files in it: {', '.join(inside[:10]) or 'none fits'}.")
    if suffix == ".zip":
        layers = _inside_zip(file)
    elif file.is_dir():
        layers = _layers(str(file), suffix, file)
    else:
        with file.open("rb") as stream:
            check_content(stream.read(512), suffix, file.name)
        layers = _layers(str(file), suffix, file)
    shaped = [entry for entry in layers if entry.geometry_type is not None]
    if layer is not None:
        named = [entry for entry in shaped if entry.name == layer]
        if not named:
            raise InputError(
                f"{file.name} has no layer {layer!r} with geometries; it has"
                f" {', '.join(repr(entry.name) for entry in shaped) or 'none'}."
            )
        shaped = named
    if not shaped:
        found = "; ".join(f"{entry.name!r} with {', '.join(entry.columns[:12])}" for entry in layers) or "no tables"
        raise InputError(f"{file.name} holds no geometries, so it cannot become a mask. In it: {found}.")
    return LabelFile(file, tuple(shaped), area, None if crs is None else _crs(crs))


def _inside_zip(file: Path) -> list[Layer]:
    with file.open("rb") as stream:
        check_content(stream.read(512), ".zip", file.name)
    layers = []
    try:
        with zipfile.ZipFile(file) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
            for name in sorted(names):
                suffix = Path(name).suffix.lower()
                if suffix in SUFFIXES and not name.startswith("__MACOSX/"):
                    with archive.open(name) as stream:
                        check_content(stream.read(512), suffix, f"{file.name}/{name}")
                    layers += _layers(f"/vsizip/{{{file.resolve()}}}/{name}", suffix, file)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:  # damaged, encrypted, unknown packing
        raise ReadError(
            f"{file.name} cannot be unpacked: {error}. Download it again, or unpack it yourself."
        ) from error
    if not layers:
        listed = ", ".join(names[:12]) or "nothing"
        raise InputError(f"{file.name} holds no file of labels ({', '.join(SUFFIXES)}); it holds {listed}.")
    return layers


def _layers(source: str, suffix: str, file: Path) -> list[Layer]:
    if suffix in _PARQUET:
        return [parquet_layer(source)]
    if suffix == ".csv":
        return [csv_layer(source)]
    try:
        found = []
        for name, geometry_type in pyogrio.list_layers(source):
            # force_feature_count=False: counting would read a country's pbf from end to end.
            info = pyogrio.read_info(source, layer=name)
            crs = None if info["crs"] is None else _crs(info["crs"])
            columns = tuple(map(str, info["fields"]))
            whole = (str(kind).startswith(("int", "uint", "bool")) for kind in info["dtypes"])
            integers = tuple(compress(columns, whole))
            found.append(Layer(name, source, "gdal", columns, crs, geometry_type, integers))
        return found
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise ReadError(f"{file.name} cannot be read: {error}. It may be damaged; get it again.") from error


def _read_gdal(
    layer: Layer,
    columns: Sequence[str] | None,
    where: str | None,
    bounds: Any,
    file: Path,
    *,
    read_geometry: bool = True,
) -> Any:
    try:
        table = pyogrio.read_dataframe(
            layer.source,
            layer=layer.name,
            columns=None if columns is None else list(columns),
            where=where,
            bbox=bounds,
            read_geometry=read_geometry,
        )
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError) as error:
        raise ReadError(f"{file.name}, layer {layer.name!r}, cannot be read: {error}.") from error
    for name in layer.integers:
        if name in table.columns and pd.api.types.is_float_dtype(table[name].dtype):
            table[name] = table[name].astype("Int64")
    return table


def _bounds_in(area: Area, crs: pyproj.CRS) -> tuple[float, float, float, float]:
    """The smallest upright box that holds the area in another CRS."""
    shape = _outline_in(area, crs)
    left, bottom, right, top = shape.bounds
    return float(left), float(bottom), float(right), float(top)


def _outline_in(area: Area, crs: pyproj.CRS) -> Any:
    west, south, east, north = area.geometry.bounds
    step = max(east - west, north - south) / _POINTS_AN_EDGE
    dense = shapely.segmentize(area.geometry, step)
    to_crs = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    shape = shapely.transform(dense, lambda xy: np.column_stack(to_crs.transform(xy[:, 0], xy[:, 1])))
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        raise InputError(f"The area lies where {crs.to_string()}, the CRS of the labels, has no coordinates.")
    return shape if shapely.is_valid(shape) else shapely.make_valid(shape)


def _touching(table: gpd.GeoDataFrame, area: Area) -> gpd.GeoDataFrame:
    """Rows that share a point with the area itself, not only with the box around it; broken ones by their box."""
    if not len(table):
        return table
    outline = _outline_in(area, table.crs)
    shapely.prepare(outline)
    shapes = np.asarray(table.geometry.array, dtype=object)
    sound = shapely.is_valid(shapes)
    touching = np.zeros(len(table), dtype=bool)
    touching[sound] = shapely.intersects(outline, shapes[sound])
    left, bottom, right, top = outline.bounds
    x0, y0, x1, y1 = shapely.bounds(shapes[~sound]).T
    # Not those that lie outside, rather than those that lie inside: rows without a box stay, to be reported.
    touching[~sound] = ~((x0 > right) | (x1 < left) | (y0 > top) | (y1 < bottom))
    return table[touching]


def _lonlat_bounds(layer: Layer) -> tuple[float, float, float, float] | None:
    info = pyogrio.read_info(layer.source, layer=layer.name, force_total_bounds=layer.source.lower()[-4:] != ".pbf")
    if info.get("total_bounds") is None or layer.crs is None or not np.isfinite(info["total_bounds"]).all():
        return None
    box = gpd.GeoSeries([shapely.box(*info["total_bounds"])], crs=layer.crs).to_crs("EPSG:4326").total_bounds
    return tuple(float(edge) for edge in box)  # type: ignore[return-value]


def _check_degrees(table: gpd.GeoDataFrame, path: Path) -> None:
    """GeoJSON without a CRS is in degrees by its standard, yet many a projected file was written so."""
    if not len(table) or not table.crs.is_geographic:
        return
    x0, y0, x1, y1 = table.total_bounds
    if max(abs(x0), abs(x1)) > 540 or max(abs(y0), abs(y1)) > 90.001:
        raise InputError(
            f"{path.name} says it is in degrees ({table.crs.to_string()}), but its coordinates reach from"
            f" ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}): they are of a map projection. Write the right CRS into the file."
        )


def _crs(crs: Any) -> pyproj.CRS:
    try:
        return pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise InputError(f"crs={crs!r} is not known: {error}. Write it like 'EPSG:2154'.") from error


def with_notes(table: gpd.GeoDataFrame, notes: Sequence[str]) -> gpd.GeoDataFrame:
    """The table with more notes in its attributes."""
    table.attrs = {**table.attrs, "notes": [*table.attrs.get("notes", []), *notes]}
    return table


def concat(tables: Sequence[gpd.GeoDataFrame]) -> gpd.GeoDataFrame:
    """Layers one below the other, in the CRS of the first; columns that a layer lacks are missing in its rows."""
    first = tables[0].crs
    full = [table if table.crs == first else table.to_crs(first) for table in tables]
    if len(full) == 1:
        return full[0]
    notes = [note for table in full for note in table.attrs.get("notes", [])]
    aside = SetAside.joined(*(table.attrs.get("set_aside") for table in full))
    every = {column for table in full for column in table.columns}
    for number, table in enumerate(full):
        table.attrs = {}
        if lost := every - set(table.columns):
            # Rows that lack a column of integers must not make floats of the others.
            for other in full:
                whole = [name for name in lost & set(other.columns) if pd.api.types.is_integer_dtype(other[name].dtype)]
                table = table.assign(**{name: pd.array([pd.NA] * len(table), dtype="Int64") for name in whole})
            full[number] = table
    filled = [table for table in full if len(table)] or full[:1]
    joined = gpd.GeoDataFrame(pd.concat(filled, ignore_index=True), geometry=filled[0].geometry.name, crs=first)
    if aside:
        joined.attrs = {**joined.attrs, "set_aside": aside}
    return with_notes(joined, notes) if notes else joined
