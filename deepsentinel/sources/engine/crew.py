"""Threads that read a list of wants together, so that no file is opened and no block decoded more often than it must.

A compressed block of a satellite product is a megapixel or a quarter of one, and decoding it is nearly all that reading
costs; a patch needs a corner of it. So wants are turned round: grouped by file, then by block, and each file is opened
once, each block that any want touches is decoded once and cut up for all of them. Threads take files; one that finds no
unopened file left helps with the fullest opened one, through a dataset of its own, because GDAL's must not be shared.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.windows import Window

from deepsentinel.errors import InputError, ReadError
from deepsentinel.sources.addresses import shown
from deepsentinel.sources.patience import reading_until

from .rasters import REMOTE_OPTIONS, Block, GdalRaster, gdal_env, harmless, is_remote, open_raster, reason
from .warp import Lattice, Placement, Target, place, scale_px

if TYPE_CHECKING:
    from deepsentinel.sources.cache import SceneCache

    from .wants import Want

# An overview is averaged further only when its pixels are at least this much finer than the grid's.
OVERVIEW_MARGIN = 2.0


@dataclass
class _Portion:
    """Some blocks of one level of a file, read by one thread in one go."""

    level: int
    plane: int
    blocks: list[Block]


@dataclass(eq=False)
class _Layer:
    """The blocks of one level of a file (one band's, where bands lie apart) and who needs them."""

    lattice: Lattice
    block_shape: tuple[int, int]
    users: dict[Block, list[tuple[int, int, Target]]] = field(default_factory=lambda: defaultdict(list))
    """block: (number of the want, band, target)."""


class _Scratch:
    """One thread's memory for decoded blocks, used again and again."""

    def __init__(self) -> None:
        self.memory = np.empty(0, np.uint8)

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of the shape, with anything in it; it takes the place of the one before."""
        size = math.prod(shape) * dtype.itemsize
        if len(self.memory) < size:
            self.memory = np.empty(size, np.uint8)
        return self.memory[:size].view(dtype).reshape(shape)


class _Job:
    """One file and all that is wanted of it."""

    def __init__(self, href: str) -> None:
        self.href = href
        self.wants: list[tuple[int, Want]] = []
        self.layers: dict[tuple[int, int], _Layer] = {}
        self.portions: deque[_Portion] = deque()
        self.raster: GdalRaster | None = None


class Crew:
    """Threads that empty a list of jobs together. `results` fills up as they go."""

    def __init__(
        self,
        wants: Sequence[Want],
        options: dict[str, Any],
        stop: threading.Event,
        cache: SceneCache | None = None,
    ) -> None:
        self.results: list[np.ndarray | Exception | None] = [None] * len(wants)
        jobs: dict[str, _Job] = {}
        for number, want in enumerate(wants):
            jobs.setdefault(want.href, _Job(want.href)).wants.append((number, want))
        self.unopened = deque(jobs.values())
        self.opened: list[_Job] = []
        self.opening = 0
        self.changed = threading.Condition()
        self.stop = stop
        # Bands of a scene share lattices, wants share grids. Grids go by identity: hashing one costs more than a plan.
        self.lattices: dict[Lattice, Lattice] = {}
        self.placements: dict[tuple[int, int, str], Placement] = {}
        self.options = options
        self.cache = cache

    def work(self) -> None:
        """What one thread does: open a file and empty it, help with another's, until nothing is left."""
        while not self.stop.is_set():
            with self.changed:
                job, own = (self.unopened.popleft(), True) if self.unopened else (self._fullest(), False)
                if job is None:
                    if not self.opening:
                        return
                    self.changed.wait()
                    continue
                self.opening += own
            options = {**(REMOTE_OPTIONS if is_remote(job.href) else {}), **self.options}
            entered = False
            try:
                with gdal_env(options), reading_until(self.stop.is_set):
                    entered = True
                    if own:
                        self._open(job)
                    else:
                        self._help(job)
            except Exception as exc:
                if entered:
                    raise
                if own:
                    self._refused(job, exc)
                else:  # whoever opened it goes on alone
                    return

    def _refused(self, job: _Job, exc: Exception) -> None:
        """GDAL does not take the settings: the file counts as opened, or others would wait for it for ever."""
        for number, _ in job.wants:
            self._fail(number, exc, job.href)
        with self.changed:
            self.opening -= 1
            self.changed.notify_all()

    def _fullest(self) -> _Job | None:
        """The opened file with most left to do; a last portion is not worth another opening."""
        job = max(self.opened, key=lambda job: len(job.portions), default=None)
        return job if job is not None and len(job.portions) > 1 else None

    def _open(self, job: _Job) -> None:
        raster = None
        try:
            try:
                averaged = any(want.resampling == "average" for _, want in job.wants)
                raster = open_raster(job.href, overviews=averaged, cache=self.cache)
                self._plan(job, raster)
            except Exception as exc:
                for number, _ in job.wants:
                    self._fail(number, exc, job.href)
                job.portions.clear()
            finally:
                with self.changed:
                    self.opening -= 1
                    job.raster = raster
                    self.opened.append(job)
                    self.changed.notify_all()
            if raster is not None:
                self._empty(job, raster)
        finally:
            if raster is not None:
                raster.close()

    def _help(self, job: _Job) -> None:
        assert job.raster is not None
        try:
            twin = job.raster.twin()
        except Exception:  # it opened before: whoever opened it goes on alone, and reports what there is to report
            with self.changed:
                if job in self.opened:
                    self.opened.remove(job)
            return
        try:
            self._empty(job, twin)
        finally:
            if twin is not job.raster:
                twin.close()

    def _plan(self, job: _Job, raster: GdalRaster) -> None:
        """Find out which blocks each want needs, and cut the work into portions."""
        lattices: dict[int, Lattice] = {}
        for number, want in job.wants:
            try:
                if want.band > len(raster.dtypes):
                    raise ReadError(
                        f"{shown(job.href)} has {len(raster.dtypes)} band(s); band {want.band} was asked for. "
                        "Check the asset's band number in the catalog."
                    )
                level = _level(want, raster)
                if level not in lattices:
                    lattice = raster.lattice(level)
                    lattices[level] = self.lattices.setdefault(lattice, lattice)
                lattice = lattices[level]
                key = (id(want.grid), id(lattice), want.resampling)
                if key not in self.placements:
                    self.placements[key] = place(want.grid, lattice, want.resampling)
                target = Target(
                    want.grid,
                    lattice,
                    self.placements[key],
                    dtype=raster.dtypes[want.band - 1],
                    nodata=want.nodata if want.nodata is not None else raster.nodata[want.band - 1],
                    resampling=want.resampling,
                    domain=want.domain,
                    fill=want.fill,
                )
                plane = 0 if raster.interleaved else want.band - 1
                if (level, plane) not in job.layers:
                    job.layers[level, plane] = _Layer(lattice, raster.block_shape(level))
                layer = job.layers[level, plane]
                rows, cols = target.rows.blocks(layer.block_shape[0]), target.cols.blocks(layer.block_shape[1])
                target.missing = len(rows) * len(cols)
                for row in rows:
                    for col in cols:
                        layer.users[row, col].append((number, want.band, target))
                if not target.missing:
                    self.results[number] = target.result()
            except Exception as exc:
                self._fail(number, exc, job.href)
        for (level, plane), layer in job.layers.items():
            for blocks in raster.batches(level, plane, list(layer.users)):
                job.portions.append(_Portion(level, plane, blocks))

    def _empty(self, job: _Job, raster: GdalRaster) -> None:
        scratch = _Scratch()
        while not self.stop.is_set():
            with self.changed:
                if not job.portions:
                    return
                portion = job.portions.popleft()
            layer = job.layers[portion.level, portion.plane]
            try:
                with raster.holding(portion.level, portion.plane, portion.blocks) as (dataset, lost):
                    tried = [
                        (block, self._decode(job.href, dataset, layer, block, block in lost, scratch))
                        for block in portion.blocks
                    ]
                bad: dict[Block, Exception | None] = {block: exc for block, exc in tried if exc is not None}
                if bad and raster.can_fetch_anew and set(bad) != lost:
                    # Spoilt on its way, or in a cache on its way: worth one more look at the file itself.
                    with raster.holding(portion.level, portion.plane, list(bad), anew=True) as (dataset, lost):
                        bad = {
                            block: self._decode(job.href, dataset, layer, block, block in lost, scratch)
                            for block in bad
                        }
                for block, problem in bad.items():
                    if problem is not None:
                        for number, _, _ in layer.users[block]:
                            self._fail(number, problem, job.href, f" at block {block}")
            except Exception as exc:
                for block in portion.blocks:
                    for number, _, _ in layer.users[block]:
                        self._fail(number, exc, job.href)

    def _decode(
        self, href: str, dataset: Any, layer: _Layer, block: Block, lost: bool, scratch: _Scratch
    ) -> Exception | None:
        """Read one block once, only as far as anybody needs it, and hand it round; or say why that cannot be."""
        users = layer.users[block]
        row, col = block[0] * layer.block_shape[0], block[1] * layer.block_shape[1]
        row_stop = min(row + layer.block_shape[0], layer.lattice.shape[0])
        col_stop = min(col + layer.block_shape[1], layer.lattice.shape[1])
        bands = sorted({band for _, band, _ in users})
        try:
            if lost:
                raise ReadError(
                    f"{shown(href)} cannot be read at block {block}: the file ends before it. It is truncated: fetch "
                    "or publish it again, or leave this scene out."
                )
            # Into memory that was touched before: fresh pages for every block cost a tenth of its decoding.
            shape, dtype = (
                (len(bands), row_stop - row, col_stop - col),
                np.result_type(*{dataset.dtypes[b - 1] for b in bands}),
            )
            pixels = scratch.array(shape, dtype)
            dataset.read(bands, window=Window(col, row, shape[2], shape[1]), out=pixels)
        except Exception as exc:
            return exc
        for number, band, target in users:
            target.put(pixels[bands.index(band)], row, col)
            with self.changed:
                target.missing -= 1
                whole = target.missing == 0 and self.results[number] is None
            if whole:
                try:
                    self.results[number] = target.result()
                except Exception as exc:
                    self._fail(number, exc, href)
        # Nobody comes back to this block, and the targets are to go when their readers let go of them.
        users.clear()
        return None

    def _fail(self, number: int, exc: Exception, href: str, where: str = "") -> None:
        if not isinstance(exc, ReadError | InputError):
            told = ReadError(
                f"{shown(href)} cannot be read{where}: {reason(exc, href)}. The file may be truncated or not a raster: "
                "fetch or publish it again, or leave this scene out."
            )
            told.__cause__ = harmless(exc)
            exc = told
        # Which of its addresses was refused, for who may sign it anew; not the address, which may be a key.
        vars(exc)["opened_as"] = hash(href)
        self.results[number] = exc


def _level(want: Want, raster: GdalRaster) -> int:
    """The overview to start from: the coarsest that still is finer than the grid by OVERVIEW_MARGIN; 0: the file."""
    if want.resampling != "average" or not raster.factors:
        return 0
    scale = scale_px(want.grid, raster.lattice(0))
    fine = [number for number, factor in enumerate(raster.factors, 1) if factor * OVERVIEW_MARGIN <= scale]
    return max(fine, key=lambda number: raster.factors[number - 1], default=0)
