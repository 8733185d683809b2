"""A Sentinel-1 GRD product over sea -> cloud-optimised GeoTIFFs of sigma0 on a map, once, in the cache.

Block by block of the map: where its pixels lie in the image, the window of the image that takes, calibrated and freed
of noise, and interpolated in linear power between the four pixels around. So memory stays small however large the scene
is. The files hold linear power, negative where a pixel lies below the mean noise; every read from them averages and
interpolates power, never decibels, and `SeaPlan` cuts what is still negative then.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
import zipfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from deepsentinel.errors import DeepSentinelError, ReadError, SourceError
from deepsentinel.files import TEMPORARY_PREFIX, atomic_folder, cache_dir, trim_cache
from deepsentinel.sources.engine.warp import compose
from deepsentinel.sources.patience import check_wanted, telling, wait

from .calibration import Calibration
from .places import Floats, Places
from .radar import Radar, calibration_of

T = TypeVar("T")
R = TypeVar("R")

RENDER_VERSION = 2
"""Raised whenever a pixel of any scene changes, so that old files are not mistaken for new ones."""
CACHE_BYTES = 20_000_000_000
IN_USE_S = 600.0
"""A scene that was asked for so recently may still be being read."""
BLOCK_PX, NODE_PX = 512, 32
THREADS = 4
ABANDONED_S, POLL_S = 30.0, 0.2

_locks: dict[str, threading.Lock] = {}
_guard = threading.Lock()


def rendered(radar: Radar, places: Places) -> Path:
    """The folder with the files of a scene: `vv.tif`, `angle.tif`, ...; made if it is not there.

    It is made once, however many threads and processes ask: the others wait. Whoever asks inside `reading_until` is
    let go, of the work as of the wait, with a ReadError; nothing half done stays.
    """
    from .files import stamp_of

    path = radar.product.path
    told = [RENDER_VERSION, path.as_posix(), stamp_of(path), sorted(radar.files), places.crs, places.height_m]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]
    folder = cache_dir("safe") / f"{radar.product.name}-{key}"
    with _guard:
        lock = _locks.setdefault(str(folder), threading.Lock())
    with _held(lock):
        if not folder.is_dir():
            with _alone(folder):
                if not folder.is_dir():
                    with _writing(folder), atomic_folder(folder, sync=False) as temporary:
                        render(radar, places, temporary)
                    trim_cache(folder.parent, CACHE_BYTES, in_use_since=time.time() - IN_USE_S)
        else:
            with suppress(OSError):
                os.utime(folder)  # used: others go first
    return folder


@contextmanager
def _held(lock: threading.Lock) -> Iterator[None]:
    """The lock; whoever waits for it may leave."""
    while not lock.acquire(timeout=POLL_S):
        check_wanted()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """A cache that cannot be written is the user's to move: say how."""
    from rasterio.errors import RasterioError

    try:
        yield
    except DeepSentinelError:
        raise
    except (OSError, RasterioError) as error:
        raise SourceError(
            f"The scene cannot be put on a map in {folder.parent}: {error}. It takes some GB: make room there, or set "
            "the environment variable DEEPSENTINEL_CACHE to a folder that has it."
        ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Among processes, also on other machines that share the cache: a file stands for whoever is at work.

    While the work goes on the file is touched. One that has not been touched for a while belonged to a process that
    was killed. Should two take it over at once both do the work, which is slower and no harm.
    """
    mark = folder.with_name(f"{TEMPORARY_PREFIX}{folder.name}.lock")
    while True:
        try:
            mark.touch(exist_ok=False)
            break
        except FileExistsError:
            with suppress(FileNotFoundError):
                if time.time() - mark.stat().st_mtime > ABANDONED_S:
                    mark.unlink()
            wait(POLL_S)
    done = threading.Event()

    def stay() -> None:
        while not done.wait(ABANDONED_S / 10):
            with suppress(OSError):
                os.utime(mark)

    threading.Thread(target=stay, daemon=True).start()
    try:
        yield
    finally:
        done.set()
        mark.unlink(missing_ok=True)


def map_grid(places: Places, spacing_m: float) -> tuple[Affine, tuple[int, int]]:
    """The pixels of the map: as large as the product's, their edges at multiples of their size."""
    _, _, x, y = places.nodes
    left, top = (math.floor(x.min() / spacing_m) * spacing_m, math.ceil(y.max() / spacing_m) * spacing_m)
    cols, rows = (math.ceil((x.max() - left) / spacing_m), math.ceil((top - y.min()) / spacing_m))
    return Affine(spacing_m, 0, left, 0, -spacing_m, top), (rows, cols)


def render(radar: Radar, places: Places, folder: Path) -> None:
    """All files of a scene into a folder."""
    check_wanted()
    affine, shape = map_grid(places, radar.spacing_m)

    def steps() -> Generator[None, None, None]:
        nodes = _nodes(places, affine, shape)
        inner = places.angle(*(side.ravel() for side in nodes))
        angle = inner.reshape(nodes[0].shape)[1:-1, 1:-1].astype("float32")
        coarse = compose(affine, Affine.scale(NODE_PX))
        _write(folder / "angle.tif", angle, coarse, places.crs, "incidence angle, degrees")
        for band in sorted(radar.files):
            check_wanted()
            calibration = calibration_of(radar, band)
            with _image(radar, band, folder) as image:
                plain = folder / f"{band}-plain.tif"
                yield from _warp(image, plain, calibration, nodes, affine, shape, radar, places.crs, band)
            check_wanted()
            _copy(plain, folder / f"{band.lower()}.tif")
            plain.unlink()
            yield from [None] * copying

    blocks = len(_corners(shape))
    copying = blocks // 2  # It takes so long, with its overviews.
    total = len(radar.files) * (blocks + copying)
    with closing(steps()) as each:
        for _ in telling(each, total=total, what=f"placing {radar.product.name[:32]}, once", unit="block"):
            pass


def _corners(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Where the blocks of the map begin."""
    return [(row, col) for row in range(0, shape[0], BLOCK_PX) for col in range(0, shape[1], BLOCK_PX)]


def _nodes(places: Places, affine: Affine, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Image positions (line, pixel) of every 32nd map pixel, one more all around: between them they hardly bend."""
    down = (np.arange(-1, -(-shape[0] // NODE_PX) + 1) + 0.5) * NODE_PX
    across = (np.arange(-1, -(-shape[1] // NODE_PX) + 1) + 0.5) * NODE_PX
    row, col = np.meshgrid(down, across, indexing="ij")
    line, pixel = places.backward(affine.c + affine.a * col.ravel(), affine.f + affine.e * row.ravel())
    return line.reshape(row.shape), pixel.reshape(row.shape)


def positions(nodes: tuple[Floats, Floats], rows: slice, cols: slice) -> tuple[Floats, Floats]:
    """Image positions of the middles of map pixels, from those of the nodes around."""
    at_row = (np.arange(rows.start, rows.stop) + 0.5) / NODE_PX + 0.5
    at_col = (np.arange(cols.start, cols.stop) + 0.5) / NODE_PX + 0.5
    top, left = np.floor(at_row).astype(int), np.floor(at_col).astype(int)
    down, right = (at_row - top)[:, None], (at_col - left)[None, :]
    found = []
    for side in nodes:
        upper = (1 - right) * side[np.ix_(top, left)] + right * side[np.ix_(top, left + 1)]
        lower = (1 - right) * side[np.ix_(top + 1, left)] + right * side[np.ix_(top + 1, left + 1)]
        found.append((1 - down) * upper + down * lower)
    return found[0], found[1]


def between(power: Floats, line: Floats, pixel: Floats) -> NDArray[np.float32]:
    """Linear power between the four pixels around; NaN where those that are there weigh less than half.

    >>> between(np.array([[1.0, 3.0], [np.nan, 3.0]]), np.array([0.0, 0.5]), np.array([0.5, 0.5]))
    array([2.       , 2.3333333], dtype=float32)
    """
    height, width = power.shape
    inside = (line >= -0.5) & (pixel >= -0.5) & (line <= height - 0.5) & (pixel <= width - 0.5)
    top = np.clip(np.floor(line), 0, max(0, height - 2)).astype(int)
    left = np.clip(np.floor(pixel), 0, max(0, width - 2)).astype(int)
    below, beside = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, right = np.clip(line - top, 0, 1), np.clip(pixel - left, 0, 1)
    total, weights = np.zeros(line.shape), np.zeros(line.shape)
    for row, col, weight in (
        (top, left, (1 - down) * (1 - right)),
        (top, beside, (1 - down) * right),
        (below, left, down * (1 - right)),
        (below, beside, down * right),
    ):
        value = power[row, col]
        known = ~np.isnan(value)
        total += np.where(known, value * weight, 0)
        weights += np.where(known, weight, 0)
    good = inside & (weights >= 0.5)
    return np.where(good, total / np.where(good, weights, 1), np.nan).astype("float32")


def _warp(
    image: str,
    path: Path,
    calibration: Calibration,
    nodes: tuple[Floats, Floats],
    affine: Affine,
    shape: tuple[int, int],
    radar: Radar,
    crs: str,
    band: str,
) -> Iterator[None]:
    """One band on the map, block by block."""
    import rasterio
    from rasterio.windows import Window

    profile = {"driver": "GTiff", "tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "bigtiff": "IF_SAFER"}
    images = _Images(image, f"{radar.product.name}: the image of {band}")

    def one(corner: tuple[int, int]) -> tuple[tuple[int, int], NDArray[np.float32] | None]:
        rows = slice(corner[0], min(corner[0] + BLOCK_PX, shape[0]))
        cols = slice(corner[1], min(corner[1] + BLOCK_PX, shape[1]))
        line, pixel = positions(nodes, rows, cols)
        lines, pixels = _reach(line, radar.shape[0]), _reach(pixel, radar.shape[1])
        if lines.start >= lines.stop or pixels.start >= pixels.stop:
            return corner, None
        power = calibration.sigma0(images.read(lines, pixels), lines, pixels)
        # Negative where speckle falls below the mean noise: cut here, every average of dark sea would be too bright.
        return corner, between(power, line - lines.start, pixel - pixels.start)

    try:
        with (
            rasterio.open(
                path, "w", width=shape[1], height=shape[0], count=1, dtype="float32", crs=crs, transform=affine,
                nodata=math.nan, sparse_ok=True, **profile,
            ) as file,
            ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool,
        ):  # fmt: skip
            try:
                for (row, col), block in _ahead(pool, one, _corners(shape)):
                    check_wanted()
                    if block is not None:
                        file.write(block, 1, window=Window(col, row, block.shape[1], block.shape[0]))
                    yield
            except BaseException:
                pool.shutdown(cancel_futures=True)  # what was to come next is not waited for
                raise
            file.set_band_description(1, f"{band}: sigma0, linear power")
    finally:
        images.close()


class _Images:
    """One image, opened by each thread that reads it: GDAL datasets must not be shared."""

    def __init__(self, path: str, name: str) -> None:
        self._path, self._name = path, name
        self._mine = threading.local()
        self._all: list[Any] = []

    def read(self, lines: slice, pixels: slice) -> NDArray[np.generic]:
        import rasterio
        from rasterio.windows import Window

        try:
            if not hasattr(self._mine, "file"):
                self._mine.file = rasterio.open(self._path, driver="GTiff", sharing=False)
                self._all.append(self._mine.file)
            window = Window.from_slices((lines.start, lines.stop), (pixels.start, pixels.stop))
            return np.asarray(self._mine.file.read(1, window=window))
        except rasterio.errors.RasterioError as error:
            raise ReadError(f"{self._name} cannot be read ({error}). Download the product again.") from error

    def close(self) -> None:
        for file in self._all:
            file.close()


def _ahead(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The results in order, with a few under way: a slow disk must not let finished ones pile up in memory."""
    under_way: deque[Future[R]] = deque()
    for item in items:
        under_way.append(pool.submit(work, item))
        if len(under_way) > 2 * THREADS:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _reach(position: Floats, size: int) -> slice:
    """The image rows (or columns) that positions need."""
    low, high = max(position.min(), -1.0), min(position.max(), float(size))
    return slice(max(0, math.floor(low)), min(size, math.floor(high) + 2))


@contextmanager
def _image(radar: Radar, band: str, folder: Path) -> Iterator[str]:
    """A path of the image that is quick to read in any order: out of an archive it is first copied, and then gone."""
    import rasterio

    name, product = radar.files[band].image, radar.product
    path = product.gdal(name)
    if product.is_zip:
        path = str(folder / f"{band}-image.tif")
        try:
            with (
                zipfile.ZipFile(product.path) as archive,
                archive.open(product.member(name)) as packed,
                Path(path).open("wb") as copy,
            ):
                while piece := packed.read(1 << 22):
                    copy.write(piece)
                    check_wanted()
        except DeepSentinelError:
            raise
        except Exception as error:  # zlib.error and others derive from nothing better
            if isinstance(error, OSError) and not isinstance(error, zipfile.BadZipFile) and error.errno == 28:
                raise
            raise ReadError(
                f"{product.name}: the image of {band} cannot be unpacked ({error}). Download the product again."
            ) from error
    try:
        with rasterio.open(path, driver="GTiff") as file:
            if (file.height, file.width) != radar.shape:
                raise ReadError(
                    f"{product.name}: the image of {band} is {file.height} x {file.width}, and its annotation tells of "
                    f"{radar.shape[0]} x {radar.shape[1]} pixels. Download the product again."
                )
    except rasterio.errors.RasterioError as error:
        raise ReadError(
            f"{product.name}: the image of {band} cannot be opened ({error}). Download the product again."
        ) from error
    yield path
    if product.is_zip:
        Path(path).unlink()


COG = {
    "driver": "COG",
    "compress": "DEFLATE",
    "level": 1,
    "predictor": 3,
    "blocksize": BLOCK_PX,
    "overviews": "AUTO",
    # Of linear power, so that a coarse look is the mean of what lies below.
    "overview_resampling": "average",
    "num_threads": 1,
    "bigtiff": "IF_SAFER",
}


def _copy(plain: Path, path: Path) -> None:
    import rasterio.shutil

    rasterio.shutil.copy(plain, path, **COG)


def _write(path: Path, array: NDArray[np.float32], affine: Affine, crs: str, name: str) -> None:
    import rasterio

    with rasterio.open(
        path, "w", width=array.shape[1], height=array.shape[0], count=1, dtype="float32", crs=crs, transform=affine,
        nodata=math.nan, **COG,
    ) as file:  # fmt: skip
        file.write(array, 1)
        file.set_band_description(1, name)
