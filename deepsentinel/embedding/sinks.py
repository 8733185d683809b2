"""Where a dense map goes: into memory, into a zarr store or into a GeoTIFF, whole or not at all."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from deepsentinel import __version__
from deepsentinel.errors import InputError
from deepsentinel.files import atomic_folder, atomic_path
from deepsentinel.grids import crs_of, grid_coords

NAME = "embedding"
DIMS = ("y", "x", "feature")
TIFFS = (".tif", ".tiff")
# All that a store of ours holds: one that holds more is somebody else's.
HELD = {NAME, *DIMS, "spatial_ref", "s1_time", "s2_time"}
GDAL_BYTES = 64 * 2**20
# One block of a file: a reader of a place has to decompress that much.
BLOCK_BYTES, LARGEST_BLOCK = 16 * 2**20, 128


def block_cells(features: int) -> int:
    """The side of a block of cells in a file, which TIFF wants to be a multiple of 16.

    >>> block_cells(128), block_cells(2048)
    (128, 32)
    """
    side = LARGEST_BLOCK
    while side > 16 and 4 * features * side**2 > BLOCK_BYTES:
        side //= 2
    return side


class Sink(ABC):
    """Takes a map in pieces: columns side by side, rows of each from north to south."""

    chunk = 1
    """Pieces that are multiples of this are written best."""

    @abstractmethod
    def write(self, row: int, column: int, block: np.ndarray) -> None:
        """Take some cells (rows, columns, D)."""


class Memory(Sink):
    """An array."""

    def __init__(self, shape: tuple[int, int, int], dtype: str) -> None:
        self.values = np.full(shape, np.nan, dtype)

    def write(self, row: int, column: int, block: np.ndarray) -> None:
        """Take some cells."""
        self.values[row : row + block.shape[0], column : column + block.shape[1]] = block


class _Blocks(Sink):
    """Rows are kept until they fill a block of the file."""

    def __init__(self, shape: tuple[int, int, int], dtype: str) -> None:
        self.shape, self.dtype = shape, dtype
        self.chunk = block_cells(shape[2])
        self._kept: list[np.ndarray] = []
        self._at = (0, 0)

    def write(self, row: int, column: int, block: np.ndarray) -> None:
        """Take some cells."""
        while len(block):
            if not self._kept:
                self._at = (row, column)
            room = self.chunk - (row % self.chunk)
            self._kept.append(block[:room].astype(self.dtype))
            row, block = row + len(self._kept[-1]), block[room:]
            if row % self.chunk == 0 or row == self.shape[0]:
                self.store(*self._at, np.concatenate(self._kept))
                self._kept.clear()

    @abstractmethod
    def store(self, row: int, column: int, block: np.ndarray) -> None:
        """Write whole blocks."""


class _Zarr(_Blocks):
    def __init__(self, shape: tuple[int, int, int], dtype: str, array: Any) -> None:
        super().__init__(shape, dtype)
        self.array = array

    def store(self, row: int, column: int, block: np.ndarray) -> None:
        self.array[row : row + block.shape[0], column : column + block.shape[1]] = block


class _Tiff(_Blocks):
    def __init__(self, shape: tuple[int, int, int], file: Any) -> None:
        super().__init__(shape, "float32")
        self.file = file

    def store(self, row: int, column: int, block: np.ndarray) -> None:
        from rasterio.windows import Window

        self.file.write(np.moveaxis(block, -1, 0), window=Window(column, row, block.shape[1], block.shape[0]))


def check_target(out: str | os.PathLike[str], dtype: str = "float32", data: xr.Dataset | None = None) -> Path:
    """A place that a map of `data` can be written to: a new .zarr or .tif, or an older map that it replaces."""
    target = Path(out).expanduser()
    if data is not None and target.exists() and target.resolve() in _sources(data):
        raise InputError(f"{target} is where the pixels are read from; name a new place for the map.")
    if target.suffix.lower() == ".zarr":
        if target.is_file() or (target.is_dir() and any(target.iterdir()) and not _is_map(target)):
            raise InputError(f"{target} holds other things than an embedding, and would lose them; name a new place.")
        try:
            import zarr  # noqa: F401
        except ImportError as error:
            raise InputError(f"Writing {target.name} needs zarr: pip install zarr") from error
    elif target.suffix.lower() not in TIFFS:
        raise InputError(f"out={str(target)!r}: a map goes to a store that ends with .zarr or a file with .tif.")
    elif dtype != "float32":
        raise InputError(f"A GeoTIFF holds float32; {dtype} goes to a .zarr.")
    elif target.is_dir():
        raise InputError(f"{target} is a folder; name a file.")
    elif target.exists() and not _is_map_file(target):
        raise InputError(f"{target} is no embedding, and would be lost; name a new file.")
    return target


def _sources(data: xr.Dataset) -> set[Path]:
    """The files that a Dataset says it is read from."""
    told = [data.encoding.get("source"), *(values.encoding.get("source") for values in data.variables.values())]
    return {Path(source).expanduser().resolve() for source in told if isinstance(source, str | os.PathLike)}


def _is_map(folder: Path) -> bool:
    """Whether a store is a map that `embed` wrote, in either version of zarr, and nothing else."""
    if not {path.name for path in folder.iterdir() if path.is_dir()} <= HELD:
        return False
    try:
        if (folder / NAME / "zarr.json").is_file():
            return "encoder" in json.loads((folder / NAME / "zarr.json").read_text())["attributes"]
        return "encoder" in json.loads((folder / NAME / ".zattrs").read_text())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_map_file(file: Path) -> bool:
    import rasterio

    try:
        with rasterio.open(file) as opened:
            return "ENCODER" in opened.tags()
    except rasterio.RasterioIOError:
        return False


def small_cache() -> Any:
    """GDAL would keep what it read and wrote, up to a twentieth of all memory; what passes by once is not needed."""
    import rasterio

    return rasterio.Env(GDAL_CACHEMAX=GDAL_BYTES)


@contextmanager
def file_sink(
    target: Path, geobox: GeoBox, features: int, dtype: str, told: Callable[[], dict[str, Any]], coords: dict[str, Any]
) -> Iterator[Sink]:
    """A sink that writes to a store or file, which appears when all is written and replaces an older one.

    `told` is asked for the attributes at the end: what was seen is known once all of it was read.
    """
    shape = int(geobox.shape.y), int(geobox.shape.x), features
    making = (
        _tiff(target, geobox, shape, told)
        if target.suffix.lower() in TIFFS
        else _store(target, geobox, shape, dtype, told, coords)
    )
    with making as sink:
        yield sink


@contextmanager
def _store(
    target: Path,
    geobox: GeoBox,
    shape: tuple[int, int, int],
    dtype: str,
    told: Callable[[], dict[str, Any]],
    coords: dict[str, Any],
) -> Iterator[Sink]:
    import zarr

    side = block_cells(shape[2])
    with atomic_folder(target, replace=True) as folder:
        places = {**grid_coords(geobox), "feature": ("feature", np.arange(shape[2])), **coords}
        xr.Dataset(coords=places).to_zarr(folder, zarr_format=2, consolidated=False)
        array = zarr.open_group(folder, mode="a").create_array(
            NAME,
            shape=shape,
            chunks=tuple(min(part, size) for part, size in zip((side, side, shape[2]), shape, strict=True)),
            dtype=dtype,
            fill_value=np.nan,
            # Of floating-point numbers compression saves a tenth and costs more time than the encoder does.
            compressors=None,
        )
        yield _Zarr(shape, dtype, array)
        extra = " ".join(name for name in ("spatial_ref", *coords) if name not in DIMS)
        array.attrs.update({**told(), "_ARRAY_DIMENSIONS": list(DIMS), "coordinates": extra})
        zarr.consolidate_metadata(folder)


@contextmanager
def _tiff(
    target: Path, geobox: GeoBox, shape: tuple[int, int, int], told: Callable[[], dict[str, Any]]
) -> Iterator[Sink]:
    import rasterio
    from rasterio.shutil import copy

    side = block_cells(shape[2])
    profile = {
        "height": shape[0],
        "width": shape[1],
        "count": shape[2],
        "crs": crs_of(geobox).to_wkt(),
        "transform": geobox.affine,
        "dtype": "float32",
        "nodata": np.nan,
    }
    tiles = {"tiled": True, "blockxsize": side, "blockysize": side, "interleave": "pixel", "bigtiff": "IF_SAFER"}
    options = {"compress": "DEFLATE", "predictor": "YES", "blocksize": max(side, 128), "bigtiff": "IF_SAFER"}
    # GDAL may not write its own .aux.xml: it would carry the name of the temporary file.
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), atomic_path(target) as temporary:
        plain = temporary.with_name(temporary.name + ".plain.tif")
        try:
            with rasterio.open(plain, "w", driver="GTiff", **tiles, **profile) as file:
                for band in range(shape[2]):
                    file.set_band_description(band + 1, f"feature {band}")
                yield _Tiff(shape, file)
                tags = {str(key).upper(): str(value) for key, value in told().items()}
                file.update_tags(TIFFTAG_SOFTWARE=f"deepsentinel {__version__}", **tags)
            copy(str(plain), str(temporary), driver="COG", overview_resampling="average", **options)
        finally:
            plain.unlink(missing_ok=True)


def open_map(target: Path, attrs: dict[str, Any], coords: dict[str, Any]) -> xr.DataArray:
    """What was written, read when it is asked for."""
    if target.suffix.lower() in TIFFS:
        import rioxarray

        file = rioxarray.open_rasterio(target, cache=False)
        assert isinstance(file, xr.DataArray)
        found = file.rename(band="feature").transpose(*DIMS)
    else:
        found = xr.open_dataset(target, engine="zarr", chunks=None, cache=False)[NAME]
    placed = found.assign_coords(feature=np.arange(found.sizes["feature"]), **coords)
    placed.attrs = attrs
    return placed.rename(NAME)
