"""One opened file, whatever it is and wherever it lies, as the engine in blocks.py sees it.

`open_raster` chooses: a cloud-optimised GeoTIFF behind http(s) is fetched by its blocks (`HttpRaster`, on remote.py);
everything else - local files, `s3://` and other GDAL paths, JPEG 2000, odd TIFFs - is GDAL's (`GdalRaster`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import Interleaving
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from deepsentinel.errors import ReadError
from deepsentinel.sources.addresses import DISCREET, ON_AZURE, redacted, shown

from .remote import NotLaidOut, RemoteTiff
from .warp import Lattice, compose

if TYPE_CHECKING:
    from deepsentinel.sources.cache import SceneCache

# Compressed bytes that are fetched and held at once for one file: enough to keep a connection busy.
BATCH_BYTES = 8 * 1024 * 1024
# Listing the folder of every file is a request each on object stores; sidecars are not part of any product we read.
REMOTE_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    # A server that says nothing, or hardly anything, is left.
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
}
# What far files may be. GDAL goes by what is in a file, whatever it is called, and some formats are recipes that name
# other files to read, on this machine too.
REMOTE_DRIVERS = ("GTiff", "JP2OpenJPEG")

# GDAL speaks through them, of whole addresses.
for _name in ("rasterio", *(f"rasterio.{one}" for one in ("_base", "_env", "_err", "_io", "_vsiopener", "env"))):
    logging.getLogger(_name).addFilter(DISCREET)

# What rasterio.Env refuses to be given, and itself puts among the settings of a thread where boto3 is installed.
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

Rect = tuple[int, int, int, int]  # first row, row after the last, first column, column after the last
Block = tuple[int, int]  # row and column of a block, counted in blocks


@contextmanager
def gdal_env(options: Mapping[str, Any]) -> Iterator[None]:
    """GDAL's settings of another thread in this one, its keys included.

    >>> with gdal_env({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "GDAL_NUM_THREADS": "1"}):
    ...     sorted(set(rasterio.env.getenv()) - {"GDAL_DATA", "PROJ_DATA"})
    ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'GDAL_NUM_THREADS']
    """
    with rasterio.Env(**{name: value for name, value in options.items() if name not in KEYS}):
        keys = {name: options[name] for name in KEYS if name in options}
        if keys:
            rasterio.env.setenv(**keys)
        yield


class GdalRaster:
    """A file that GDAL opens and reads by itself."""

    def __init__(self, href: str) -> None:
        self.href = href
        self._datasets: dict[int, Any] = {}
        self._describe(self._dataset(0))

    def _dataset(self, level: int) -> Any:
        if level not in self._datasets:
            extra = {"overview_level": level - 1} if level else {}
            self._datasets[level] = open_dataset(self.href, sharing=False, **extra)
        return self._datasets[level]

    def _describe(self, dataset: Any) -> None:
        if dataset.crs is None or (dataset.gcps[0] and dataset.transform.is_identity):
            has = f"{len(dataset.gcps[0])} ground control points" if dataset.gcps[0] else "no georeferencing at all"
            raise ReadError(
                f"{shown(self.href)} has no grid to read from: it carries {has}, so its pixels would land in the wrong "
                "place. Use a terrain-corrected product (for Sentinel-1: RTC, not GRD), or warp the file first."
            )
        self.crs_wkt: str = dataset.crs.to_wkt()
        self.dtypes = [np.dtype(name) for name in dataset.dtypes]
        self.nodata: tuple[float | None, ...] = dataset.nodatavals
        self.transform: Affine = dataset.transform
        self.factors: list[int] = dataset.overviews(1)
        self.interleaved = len(self.dtypes) > 1
        with suppress(KeyError, ValueError, AttributeError):
            self.interleaved = len(self.dtypes) > 1 and dataset.interleaving != Interleaving.band

    def lattice(self, level: int) -> Lattice:
        """Where the pixels of a level (0: the file itself, 1: its first overview, ...) lie."""
        dataset = self._dataset(level)
        return Lattice(self.crs_wkt, dataset.transform, dataset.shape)

    def block_shape(self, level: int) -> tuple[int, int]:
        """Rows and columns of a compressed block."""
        rows, cols = self._dataset(level).block_shapes[0]
        return int(rows), int(cols)

    def batches(self, level: int, plane: int, blocks: Sequence[Block]) -> list[list[Block]]:
        """The blocks in portions that are worth handing to a thread."""
        rows, cols = self.block_shape(level)
        # About one megapixel each: a block of a usual product, many strips of an unusual one.
        size = max(1, (1 << 20) // (rows * cols))
        ordered = sorted(blocks)
        return [ordered[first : first + size] for first in range(0, len(ordered), size)]

    # Whether a block that cannot be decoded may have come out right at another time.
    can_fetch_anew = False

    @contextmanager
    def holding(
        self, level: int, plane: int, blocks: Sequence[Block], *, anew: bool = False
    ) -> Iterator[tuple[Any, set[Block]]]:
        """A dataset from which these blocks can be read, and those of them that are known to be missing.

        With `anew` they are fetched whatever is kept of them.
        """
        yield self._dataset(level), set()

    def twin(self) -> GdalRaster:
        """The same for another thread: GDAL datasets must not be shared."""
        return GdalRaster(self.href)

    def close(self) -> None:
        """Close whatever is open."""
        for dataset in self._datasets.values():
            dataset.close()
        self._datasets.clear()


class HttpRaster(GdalRaster):
    """A cloud-optimised GeoTIFF behind http(s), fetched block by block."""

    can_fetch_anew = True

    def __init__(self, href: str, tiff: RemoteTiff) -> None:
        self.href, self._tiff = href, tiff
        self._datasets = {}
        with _in_memory(tiff.file_with(0)[0]) as dataset:
            self._describe(dataset)
        full = tiff.shape(0)
        self.factors = [round(full[1] / tiff.shape(level)[1]) for level in range(1, len(tiff.levels))]

    def lattice(self, level: int) -> Lattice:
        """Where the pixels of a level lie."""
        full, shape = self._tiff.shape(0), self._tiff.shape(level)
        return Lattice(
            self.crs_wkt, compose(self.transform, Affine.scale(full[1] / shape[1], full[0] / shape[0])), shape
        )

    def block_shape(self, level: int) -> tuple[int, int]:
        """Rows and columns of a compressed block."""
        return self._tiff.block_shape(level)

    def _numbers(self, level: int, plane: int, blocks: Sequence[Block]) -> dict[int, Block]:
        """The blocks by their number in the file."""
        (height, width), (rows, cols) = self._tiff.shape(level), self.block_shape(level)
        across, down = -(-width // cols), -(-height // rows)
        return {(plane * down + row) * across + col: (row, col) for row, col in blocks}

    def batches(self, level: int, plane: int, blocks: Sequence[Block]) -> list[list[Block]]:
        """The blocks in portions to fetch at once, in the order they lie in the file."""
        numbers = self._numbers(level, plane, blocks)
        cut = self._tiff.batches(level, numbers, BATCH_BYTES)
        return [[numbers[number] for number in batch] for batch in cut]

    @contextmanager
    def holding(
        self, level: int, plane: int, blocks: Sequence[Block], *, anew: bool = False
    ) -> Iterator[tuple[Any, set[Block]]]:
        """A dataset from which these blocks can be read, and those of them that are known to be missing."""
        numbers = self._numbers(level, plane, blocks)
        data, lost = self._tiff.file_with(level, numbers, anew=anew)
        with _in_memory(data, **({"overview_level": 0} if level else {})) as dataset:
            yield dataset, {numbers[number] for number in lost}

    def twin(self) -> HttpRaster:
        """Itself: nothing is shared between threads but a header that no longer changes."""
        return self


@contextmanager
def _in_memory(data: bytes, **options: Any) -> Iterator[Any]:
    with MemoryFile(data) as file, file.open(driver="GTiff", sharing=False, **options) as dataset:
        yield dataset


def gdal_path(href: str) -> str:
    """The name by which GDAL opens an href.

    >>> gdal_path("s3://eodata/a.tif"), gdal_path("file:///data/a%20b.tif")
    ('/vsis3/eodata/a.tif', '/data/a b.tif')
    """
    if href.startswith("s3://"):
        return "/vsis3/" + href[5:]
    if href.startswith("gs://"):
        return "/vsigs/" + href[5:]
    if href.startswith("az://"):
        return "/vsiaz/" + href[5:]
    if href.startswith(("http://", "https://")):
        return "/vsicurl/" + href
    if href.startswith("file://"):
        path = unquote(urlsplit(href).path)
        return path[1:] if re.match(r"/[A-Za-z]:", path) else path
    return href


def is_remote(href: str) -> bool:
    """Whether opening the href goes over a network."""
    return gdal_path(href).startswith(("/vsicurl/", "/vsis3/", "/vsigs/", "/vsiaz/", "/vsioss/", "/vsiswift/"))


def over_https(href: str) -> str:
    """The address on the web of what lies on Azure; anything else as it is.

    >>> over_https("abfs://items@account.dfs.core.windows.net/a.tif")
    'https://account.blob.core.windows.net/items/a.tif'
    """
    path, question, query = href.partition("?")
    match = ON_AZURE.fullmatch(path)
    return f"https://{match[2]}.blob.core.windows.net/{match[1]}/{match[3]}{question}{query}" if match else href


def open_dataset(href: str, **options: Any) -> Any:
    """A dataset of GDAL's; a far one only of the formats that satellite products come in."""
    path = gdal_path(href)
    if not is_remote(href):
        return rasterio.open(path, **options)
    likely = sorted(REMOTE_DRIVERS, key=lambda name: ".jp2" in path.lower() and name == "GTiff")
    try:
        return rasterio.open(path, driver=likely[0], **options)
    except RasterioError:
        # What is not what its name says: asked once more, from what GDAL has fetched of it already.
        with suppress(RasterioError):
            return rasterio.open(path, driver=likely[1], **options)
        raise


@contextmanager
def looked_into(href: str, settings: Mapping[str, str]) -> Iterator[Any]:
    """A dataset for a look at a file, outside of the engine but opened as it opens files."""
    href = over_https(href)
    options = {**(REMOTE_OPTIONS if is_remote(href) else {}), **settings}
    with rasterio.Env(**options), open_dataset(href) as dataset:
        yield dataset


def open_raster(href: str, *, overviews: bool, cache: SceneCache | None = None) -> GdalRaster:
    """Open an href for reading; `overviews` says whether they may be wanted (a longer header is then fetched)."""
    href = over_https(href)
    problem: RasterioError
    try:
        if href.startswith(("http://", "https://")):
            with suppress(NotLaidOut):
                return HttpRaster(href, RemoteTiff(href, overviews=overviews, cache=cache))
        return GdalRaster(href)
    except RasterioError as exc:
        problem = exc
    told = ReadError(
        f"{shown(href)} cannot be opened: {reason(problem, href)}. Check that the file is there and whole."
    )
    raise told from harmless(problem)


def harmless(exc: BaseException) -> BaseException | None:
    """An exception that may be printed along with ours; None for one that tells of an address with a signature.

    >>> harmless(OSError("https://a.org/b.tif?sig=secret is not there")) is None
    True
    """
    one: BaseException | None = exc
    while one is not None:
        if redacted(f"{one} {one.args}") != f"{one} {one.args}":
            return None
        one = one.__cause__ or one.__context__
    return exc


def reason(exc: BaseException, href: str) -> str:
    """An exception's text without the query of the href, which may hold a signature."""
    text = str(exc.__cause__ or exc).strip().rstrip(".")
    query = href.partition("?")[2]
    return redacted(text.replace(f"?{query}", "") if query else text)
