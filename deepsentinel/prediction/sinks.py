"""Where a map goes: into memory, into a zarr store, or into GeoTIFFs that a GIS opens with names and colours."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from deepsentinel import __version__
from deepsentinel.embedding.sinks import TIFFS, small_cache
from deepsentinel.errors import InputError
from deepsentinel.export_masks import PALETTE_TYPES, gdal_names, qgis_style
from deepsentinel.files import atomic_folder, atomic_path, write_text
from deepsentinel.grids import crs_of, grid_coords
from deepsentinel.legend import Legend

from .results import KEPT, MAPS, Layer

CHUNK = 512
MARK = "predicted_by"
"""The attribute by which our own files are known: they may be replaced, others are not."""
# All that a store of ours holds: one that holds more is somebody else's.
HELD = {
    *MAPS, "uncertainty", "probability", "y", "x", "class", "class_name", "spatial_ref", *KEPT,
}  # fmt: skip
Told = Callable[[], dict[str, Any]]


class Sink(ABC):
    """Takes a map in pieces."""

    chunk = 1
    """Pieces that are multiples of this are written best."""

    @abstractmethod
    def write(self, row: int, column: int, block: Mapping[str, np.ndarray]) -> None:
        """Take some cells of every layer; a layer with a number for each class has it last."""


class Memory(Sink):
    """Arrays."""

    def __init__(self, layers: Sequence[Layer], shape: tuple[int, int], classes: int) -> None:
        self.layers = layers
        self.arrays = {
            layer.name: np.full((classes, *shape) if layer.classes else shape, layer.nodata, layer.dtype)
            for layer in layers
        }

    def write(self, row: int, column: int, block: Mapping[str, np.ndarray]) -> None:
        """Take some cells."""
        for layer in self.layers:
            values = block[layer.name]
            place = (..., slice(row, row + values.shape[0]), slice(column, column + values.shape[1]))
            self.arrays[layer.name][place] = np.moveaxis(values, -1, 0) if layer.classes else values

    def dataset(self, geobox: GeoBox, coords: Mapping[str, Any], like: xr.Dataset) -> xr.Dataset:
        """The layers on their grid."""
        variables = {layer.name: (dims_of(layer), self.arrays[layer.name], layer.attrs) for layer in self.layers}
        return xr.Dataset(variables, {**grid_coords(geobox, like), **coords})


class _Zarr(Sink):
    chunk = CHUNK

    def __init__(self, arrays: Mapping[str, Any], layers: Sequence[Layer]) -> None:
        self.arrays, self.layers = arrays, layers

    def write(self, row: int, column: int, block: Mapping[str, np.ndarray]) -> None:
        for layer in self.layers:
            values = block[layer.name]
            place = slice(row, row + values.shape[0]), slice(column, column + values.shape[1])
            if layer.classes:
                self.arrays[layer.name][:, *place] = np.moveaxis(values, -1, 0)
            else:
                self.arrays[layer.name][*place] = values


class _Tiffs(Sink):
    chunk = CHUNK

    def __init__(self, files: Mapping[str, Any], layers: Sequence[Layer]) -> None:
        self.files, self.layers = files, layers
        self.present: set[int] = set()

    def write(self, row: int, column: int, block: Mapping[str, np.ndarray]) -> None:
        from rasterio.windows import Window

        for layer in self.layers:
            values = block[layer.name]
            window = Window(column, row, values.shape[1], values.shape[0])
            stack = np.moveaxis(values, -1, 0) if layer.classes else values[None]
            self.files[layer.name].write(np.ascontiguousarray(stack), window=window)
            if layer.name == "class_map":
                self.present |= set(np.unique(values).tolist())


def dims_of(layer: Layer) -> tuple[str, ...]:
    """The dimensions of a layer."""
    return ("class", "y", "x") if layer.classes else ("y", "x")


def check_target(out: str | os.PathLike[str], layers: Sequence[Layer], data: xr.Dataset | None = None) -> Path:
    """A place that a map can be written to: new, or with an older map of ours that it replaces."""
    target = Path(out).expanduser()
    if data is not None and target.exists() and target.resolve() in _sources(data):
        raise InputError(f"{target} is where the pixels are read from; name a new place for the map.")
    if target.suffix.lower() == ".zarr":
        if target.is_file() or (target.is_dir() and any(target.iterdir()) and not _is_store(target)):
            raise InputError(f"{target} holds other things than a prediction, and would lose them; name a new place.")
        try:
            import zarr  # noqa: F401
        except ImportError as error:
            raise InputError(f"Writing {target.name} needs zarr: pip install zarr") from error
        return target
    if target.suffix.lower() not in TIFFS:
        raise InputError(f"out={str(target)!r}: a map goes to a store that ends with .zarr or a file with .tif.")
    for file in files_of(target, layers).values():
        if file.is_dir():
            raise InputError(f"{file} is a folder; name a file.")
        if file.exists() and not _is_file(file):
            raise InputError(f"{file} is no prediction, and would be lost; name a new file.")
    return target


def files_of(target: Path, layers: Sequence[Layer]) -> dict[str, Path]:
    """A GeoTIFF for each layer: the map itself under the name asked for, the others beside it.

    >>> layers = [Layer("class_map", "uint8", {}), Layer("uncertainty", "float32", {})]
    >>> [path.name for path in files_of(Path("a.tif"), layers).values()]
    ['a.tif', 'a_uncertainty.tif']
    """
    return {
        layer.name: target if layer.name in MAPS else target.with_name(f"{target.stem}_{layer.name}{target.suffix}")
        for layer in layers
    }


def _sources(data: xr.Dataset) -> set[Path]:
    """The files that a Dataset says it is read from."""
    told = [data.encoding.get("source"), *(values.encoding.get("source") for values in data.variables.values())]
    return {Path(source).expanduser().resolve() for source in told if isinstance(source, str | os.PathLike)}


def _is_store(folder: Path) -> bool:
    """Whether a store is a map that `predict` wrote, in either version of zarr, and nothing else."""
    if not {path.name for path in folder.iterdir() if path.is_dir()} <= HELD:
        return False
    for name, inside in (("zarr.json", "attributes"), (".zattrs", None)):
        try:
            told = json.loads((folder / name).read_text())
        except (OSError, ValueError):
            continue
        if MARK in (told.get(inside, {}) if inside else told):
            return True
    return False


def _is_file(file: Path) -> bool:
    import rasterio

    try:
        with rasterio.open(file) as opened:
            return MARK.upper() in opened.tags()
    except rasterio.RasterioIOError:
        return False


@contextmanager
def file_sink(
    target: Path, layers: Sequence[Layer], geobox: GeoBox, coords: Mapping[str, Any], told: Told
) -> Iterator[Sink]:
    """A sink that writes to a store or to files, which appear when all is written and replace older ones.

    `told` is asked for the attributes at the end: what was seen is known once all of it was read.
    """
    making = _tiffs if target.suffix.lower() in TIFFS else _store
    with small_cache(), making(target, layers, geobox, coords, told) as sink:
        yield sink


@contextmanager
def _store(
    target: Path, layers: Sequence[Layer], geobox: GeoBox, coords: Mapping[str, Any], told: Told
) -> Iterator[Sink]:
    shape = int(geobox.shape.y), int(geobox.shape.x)
    with store_arrays(target, layers, ("y", "x"), shape, (CHUNK, CHUNK), {**grid_coords(geobox), **coords}, told) as (
        arrays
    ):
        yield _Zarr(arrays, layers)


@contextmanager
def store_arrays(
    target: Path,
    layers: Sequence[Layer],
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    coords: Mapping[str, Any],
    told: Told,
) -> Iterator[dict[str, Any]]:
    """The arrays of a new store, which appears whole when they are written."""
    import zarr

    with atomic_folder(target, replace=True) as folder:
        empty = xr.Dataset(coords=dict(coords))
        empty.to_zarr(folder, zarr_format=2, consolidated=False)
        group = zarr.open_group(folder, mode="a")
        extra = " ".join(str(name) for name in empty.coords if name not in (*dims, "class"))
        arrays = {}
        for layer in layers:
            # Classes come before rows and columns, and behind the samples.
            at = len(dims) - 2 if layer.classes else None
            sizes = shape if at is None else (*shape[:at], int(empty.sizes["class"]), *shape[at:])
            parts = chunks if at is None else (*chunks[:at], 1, *chunks[at:])
            names = dims if at is None else (*dims[:at], "class", *dims[at:])
            arrays[layer.name] = group.create_array(
                layer.name,
                shape=sizes,
                chunks=tuple(max(1, min(part, size)) for part, size in zip(parts, sizes, strict=True)),
                dtype=layer.dtype,
                # A value to fill with would make xarray turn codes into floats, with NaN for 0.
                fill_value=np.nan if layer.dtype == "float32" else None,
            )
            arrays[layer.name].attrs.update({**layer.attrs, "coordinates": extra, "_ARRAY_DIMENSIONS": list(names)})
        yield arrays
        group.attrs.update({**told(), MARK: f"deepsentinel {__version__}"})
        zarr.consolidate_metadata(folder)


@contextmanager
def _tiffs(
    target: Path, layers: Sequence[Layer], geobox: GeoBox, coords: Mapping[str, Any], told: Told
) -> Iterator[Sink]:
    import rasterio
    from rasterio.shutil import copy

    place = {
        "height": int(geobox.shape.y),
        "width": int(geobox.shape.x),
        "crs": crs_of(geobox).to_wkt(),
        "transform": geobox.affine,
    }
    tiles = {"driver": "GTiff", "tiled": True, "blockxsize": CHUNK, "blockysize": CHUNK, "bigtiff": "IF_SAFER"}
    options = {"driver": "COG", "compress": "DEFLATE", "predictor": "YES", "blocksize": CHUNK, "bigtiff": "IF_SAFER"}
    codes = [int(code) for code in coords["class"][1]] if "class" in coords else []
    names = [str(name) for name in coords["class_name"][1]] if "class_name" in coords else []
    # GDAL may not write its own .aux.xml: it would carry the name of the temporary file.
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_PAM_ENABLED="NO"))
        # The map itself appears last, when all that tells more about it is there.
        order = sorted(layers, key=lambda layer: layer.name not in MAPS)
        finals = {layer.name: stack.enter_context(atomic_path(files_of(target, layers)[layer.name])) for layer in order}
        plains = {name: final.with_name(final.name + ".plain.tif") for name, final in finals.items()}
        for plain in plains.values():
            stack.callback(plain.unlink, missing_ok=True)
        with ExitStack() as opened:
            files = {
                layer.name: opened.enter_context(
                    rasterio.open(
                        plains[layer.name],
                        "w",
                        count=len(codes) if layer.classes else 1,
                        dtype=layer.dtype,
                        nodata=layer.nodata,
                        interleave="band",
                        **tiles,
                        **place,
                    )
                )
                for layer in layers
            }
            sink = _Tiffs(files, layers)
            yield sink
            tags = {str(key).upper(): str(value) for key, value in told().items()}
            tags |= {"TIFFTAG_SOFTWARE": f"deepsentinel {__version__}", MARK.upper(): f"deepsentinel {__version__}"}
            for layer in layers:
                _describe(files[layer.name], layer, tags, codes, names)
        for layer in layers:
            # Classes have no mean; the overviews show what most of the pixels are.
            resampling = "mode" if layer.name == "class_map" else "average"
            copy(str(plains[layer.name]), str(finals[layer.name]), overview_resampling=resampling, **options)
        _beside(target, layers, sink.present)


def _describe(file: Any, layer: Layer, tags: Mapping[str, str], codes: Sequence[int], names: Sequence[str]) -> None:
    file.update_tags(LAYER=layer.name, **tags)
    if layer.classes:
        for band, (code, name) in enumerate(zip(codes, names, strict=True), start=1):
            file.set_band_description(band, name)
            file.update_tags(band, CLASS=str(code))
        return
    file.set_band_description(1, str(layer.attrs["long_name"]))
    legend = Legend.from_attrs(layer.attrs)
    if legend is not None:
        file.update_tags(1, legend=legend.to_json())
        if layer.dtype in PALETTE_TYPES:
            file.write_colormap(1, legend.color_table())


def _beside(target: Path, layers: Sequence[Layer], present: set[int]) -> None:
    """Names and colours for a GIS: TIFF has no place for the former."""
    legend = next((found for layer in layers if (found := Legend.from_attrs(layer.attrs)) is not None), None)
    if legend is None:
        return
    table = legend.color_table()
    rows = [(code, legend.names[code], table[code]) for code in sorted(legend.codes)]
    write_text(target.with_name(target.name + ".aux.xml"), gdal_names(rows))
    write_text(target.with_suffix(".qml"), qgis_style([row for row in rows if row[0] in present]))


def open_files(
    target: Path, layers: Sequence[Layer], geobox: GeoBox, coords: Mapping[str, Any], attrs: Mapping[str, Any]
) -> xr.Dataset:
    """What was written, read when it is asked for."""
    if target.suffix.lower() not in TIFFS:
        return opened_store(target, attrs)
    import rioxarray

    variables = {}
    for layer in layers:
        file = rioxarray.open_rasterio(files_of(target, layers)[layer.name], cache=False)
        assert isinstance(file, xr.DataArray)
        values = file.rename(band="class") if layer.classes else file.isel(band=0)
        bare = values.variable
        bare.attrs = dict(layer.attrs)
        variables[layer.name] = bare
    return xr.Dataset(variables, {**grid_coords(geobox), **coords}, dict(attrs))


def opened_store(target: Path, attrs: Mapping[str, Any]) -> xr.Dataset:
    """A store, read when it is asked for."""
    found = xr.open_dataset(target, engine="zarr", chunks=None, cache=False)
    found.attrs = dict(attrs)
    return found
