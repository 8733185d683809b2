"""Rows of tables -> patches and series of Earth Engine's pixels, many requests at once, in order."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from deepsentinel.bands import S2_BANDS, sensor_of
from deepsentinel.errors import InputError, NothingFoundError, ReadError, warn
from deepsentinel.progress import progress
from deepsentinel.sources import items as facts
from deepsentinel.sources.arguments import (
    Resampling,
    Row,
    check_bands,
    check_grid,
    check_resampling,
    check_touch,
    ids_of,
    is_table,
    row_of,
    rows_and_grids,
    rows_of,
)
from deepsentinel.sources.assemble import make_patch, make_series
from deepsentinel.sources.assets import AssetRef, Item
from deepsentinel.sources.base import Failure, OnError
from deepsentinel.sources.choices import choose_bands
from deepsentinel.sources.patience import unwanted
from deepsentinel.sources.plans import Methods, Scene
from deepsentinel.sources.reading import FEW_SCENES, ROWS_AT_ONCE

from .pixels import CLOUDS, Job, SceneLayers, check_methods, methods_of, s1_layers, s2_layers
from .scenes import collection_of
from .session import MOST_THREADS, Refusal, Session

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from odc.geo.geobox import GeoBox

Plans = list[SceneLayers]
# So many patches for each thread are under way before the first is handed out.
AHEAD = 3


class EarthEngineReader(ABC):
    """The reading half of the source; the other half knows the scenes."""

    name: str
    s2_level: str
    clouds: str
    _session: Session

    @abstractmethod
    def items_of(self, sensor: str, ids: Sequence[str]) -> dict[str, Item]:
        """Scenes by id, as far as Earth Engine has them."""

    @abstractmethod
    def assets_of(self, item: Item) -> dict[str, AssetRef]:
        """The bands of a scene."""

    # -- the verbs -----------------------------------------------------------------------------------------------------

    def read(
        self,
        what: pd.Series | Row | pd.DataFrame,
        grid: GeoBox,
        *,
        bands: Sequence[str] | None = None,
        resampling: Resampling = None,
    ) -> xr.Dataset:
        """Pixels on a grid: a row of pairs or of scenes gives a Patch, a table of them a Series.

        `bands` is all that is usual when left out. `resampling` is done by Earth Engine: "nearest" (the default),
        "bilinear" or "cubic", for all or for each band; radar is then interpolated as power. In a series a scene that
        cannot be read is left out with a warning; if none can be read, its error is raised.
        """
        grid, asked, methods = check_grid(grid), check_bands(bands), check_resampling(resampling)
        check_methods(methods)
        if is_table(what):
            return self._read_series(what, grid, asked, methods)
        row = row_of(what)
        self._fetch([row])
        with self._pool(None) as (pool, stop):
            plans = self._plan_row(row, grid, asked, methods)
            jobs = [Job(plan.layers, grid).start(pool, self._session, stop) for plan in plans]
            return self._patch(plans, jobs, grid)

    def read_many(
        self,
        table: pd.DataFrame | pd.Series | Row,
        grids: GeoBox | Sequence[GeoBox],
        *,
        bands: Sequence[str] | None = None,
        resampling: Resampling = None,
        on_error: OnError = "record",
        threads: int | None = None,
        memory_mb: float = 512.0,
    ) -> Iterator[xr.Dataset | Failure]:
        """Loaded patches, in the order of the rows (or of the grids, for one row), read ahead within `memory_mb`.

        A row whose scene is missing or cannot be computed never stops the others. With `on_error="record"` a `Failure`
        stands in its place: it is false (`if not patch: ...`), carries the error, and raises it when used as a patch.
        "skip" leaves it out with a warning, "raise" raises when its turn comes.
        """
        from deepsentinel.sources.engine import check_limits

        asked, methods = check_bands(bands), check_resampling(resampling)
        check_methods(methods)
        check_limits(threads, memory_mb)
        rows, boxes = rows_and_grids(table, grids, on_error)
        return self._many(rows, boxes, asked, methods, on_error, threads, memory_mb)

    def read_embedding(self, year: int, grid: GeoBox) -> xr.DataArray:
        """The annual embedding of AlphaEarth Foundations on a grid: 64 numbers a pixel, like `ds.embed(dense=True)`.

        It goes wherever an embedding does: `ds.pca_rgb`, `ds.similarity_index`, `ds.classify`. Years begin with 2017;
        pixels are 10 m, and NaN where there is none. By Google and Google DeepMind, CC-BY 4.0.

        >>> # z = source.read_embedding(2023, ds.geobox(aoi, resolution=10)); ds.show(ds.pca_rgb(z))
        """
        from .embedding import check_year, embedding_layers, make_embedding

        layers, box = embedding_layers(check_year(year), check_grid(grid)), check_grid(grid)
        with self._pool(None) as (pool, stop):
            try:
                arrays = Job(layers, box).start(pool, self._session, stop).done(unwanted())
            except Refusal as refusal:
                if refusal.kind != "absent":
                    raise
                raise NothingFoundError(
                    f"Earth Engine has no embedding of {year} here. Years begin with 2017, and the last one comes some "
                    "months after its end; the sea far from land has none."
                ) from refusal
        return make_embedding(arrays, year, box, source=self.name)

    # -- behind them ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _pool(self, threads: int | None) -> Iterator[tuple[ThreadPoolExecutor, threading.Event]]:
        """Threads that ask; who leaves early waits for none of them."""
        stop = threading.Event()
        count = min(threads or self._session.threads, MOST_THREADS)
        pool = ThreadPoolExecutor(count, thread_name_prefix="deepsentinel-earth-engine")
        try:
            yield pool, stop
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _many(
        self,
        rows: list[Row],
        boxes: list[GeoBox],
        asked: tuple[str, ...] | None,
        methods: Methods,
        on_error: OnError,
        threads: int | None,
        memory_mb: float,
    ) -> Iterator[xr.Dataset | Failure]:
        gone = unwanted()
        ahead: deque[tuple[int, Plans | Exception, list[Job]]] = deque()
        coming = enumerate(zip(rows, boxes, strict=True))
        held, problem = 0, None
        with self._pool(threads) as (pool, stop):
            while True:
                # As many patches are asked for as fit in memory, and keep all threads at work; one at least.
                while not ahead or (held < memory_mb * 2**20 and len(ahead) < AHEAD * self._session.threads):
                    position, pair = next(coming, (-1, None))
                    if pair is None:
                        break
                    if position % ROWS_AT_ONCE == 0:
                        problem = self._problem_fetching(rows[position : position + ROWS_AT_ONCE])
                    plans, jobs = self._begun(*pair, asked, methods, problem, pool, stop)
                    held += sum(job.nbytes for job in jobs)
                    ahead.append((position, plans, jobs))
                if not ahead:
                    return
                position, plans, jobs = ahead.popleft()
                held -= sum(job.nbytes for job in jobs)
                try:
                    if isinstance(plans, Exception):
                        raise plans
                    patch: xr.Dataset | Failure = self._patch(plans, jobs, boxes[position], gone)
                except Exception as error:
                    if on_error == "raise" or gone():
                        raise
                    if on_error == "skip":
                        warn(f"Row {position} was left out: {error}")
                        continue
                    patch = Failure(position, *ids_of(rows[position]), error)
                yield patch

    def _begun(
        self,
        row: Row,
        grid: GeoBox,
        asked: tuple[str, ...] | None,
        methods: Methods,
        problem: Exception | None,
        pool: ThreadPoolExecutor,
        stop: threading.Event,
    ) -> tuple[Plans | Exception, list[Job]]:
        """A row whose pixels are on their way, or what is wrong with it."""
        if problem is not None:
            return problem, []
        try:
            plans = self._plan_row(row, grid, asked, methods)
        except Exception as error:
            return error, []
        return plans, [Job(plan.layers, grid).start(pool, self._session, stop) for plan in plans]

    def _fetch(self, rows: Sequence[Row]) -> None:
        """Have the items of all rows at hand, with few requests."""
        for at, sensor in enumerate(("S1", "S2")):
            names = [name for row in rows if (name := ids_of(row)[at]) is not None]
            if names:
                self.items_of(sensor, names)

    def _problem_fetching(self, rows: Sequence[Row]) -> Exception | None:
        try:
            self._fetch(rows)
        except Exception as error:
            return error  # nobody answers: each of these rows fails, and says so
        return None

    def _plan_row(self, row: Row, grid: GeoBox, asked: tuple[str, ...] | None, methods: Methods) -> Plans:
        plans = []
        for sensor, name in zip(("S1", "S2"), ids_of(row), strict=True):
            if name is not None and _concerns(sensor, asked):
                plans.append(self._plan(sensor, name, grid, asked, methods))
        held = {name for plan in plans for name in plan.layers.dtypes}
        if asked is not None and not set(asked) <= held:
            missing = ", ".join(name for name in asked if name not in held)
            raise InputError(f"{missing} cannot come from a row that has only a scene of the other sensor.")
        return plans

    def _plan(
        self, sensor: str, name: str, grid: GeoBox, asked: tuple[str, ...] | None, methods: Methods
    ) -> SceneLayers:
        item = self.items_of(sensor, [name]).get(name)
        if item is None:
            raise NothingFoundError(
                f"{self.name} holds no {sensor} scene {name}. Was this table made from another source, or the scene "
                "removed?"
            )
        check_touch(item, grid)
        how = methods_of(choose_bands(item, sensor, self.assets_of(item), asked), methods)
        if sensor == "S1":
            layers, quantity = s1_layers(name, how, grid)
            attrs = {"backscatter": "sigma0", "orbit": facts.orbit(item), "s1_stored": quantity}
            return SceneLayers(sensor, item, layers, _known(attrs), quantity)
        collection, beside = collection_of(sensor, self.s2_level), CLOUDS[self.clouds]
        layers = s2_layers(name, collection, how, beside)
        optical = any(band in S2_BANDS for band in how)
        told = {
            "level": self.s2_level,
            "baseline": facts.baseline(item),
            "offset_removed": 0 if optical else None,
            "offset_reason": f"{collection} has it removed" if optical else None,
            "clouds": None if beside is None else self.clouds,
        }
        return SceneLayers(sensor, item, layers, _known(told))

    def _patch(
        self, plans: Plans, jobs: Sequence[Job], grid: GeoBox, gone: Callable[[], bool] | None = None
    ) -> xr.Dataset:
        scenes = [_finished(plan, job, gone or unwanted()) for plan, job in zip(plans, jobs, strict=True)]
        return make_patch(scenes, grid, source=self.name, attrs={})

    def _read_series(
        self, table: pd.DataFrame, grid: GeoBox, asked: tuple[str, ...] | None, methods: Methods
    ) -> xr.Dataset:
        rows = rows_of(table)
        if not rows:
            raise InputError("The table is empty: there is nothing to read. Search again with wider dates or area.")
        # A scene that is in several pairs is read once.
        pairs = dict.fromkeys(pair for row in rows for pair in zip(("S1", "S2"), ids_of(row), strict=True))
        singles = [(sensor, name) for sensor, name in pairs if name is not None and _concerns(sensor, asked)]
        self._fetch([{"sensor": sensor, "id": name} for sensor, name in singles])
        gone = unwanted()
        finished: list[Scene] = []
        problems: list[Exception] = []
        with self._pool(None) as (pool, stop):
            begun: deque[tuple[SceneLayers, Job]] = deque()
            for sensor, name in singles:
                try:
                    plan = self._plan(sensor, name, grid, asked, methods)
                except (ReadError, NothingFoundError) as error:
                    problems.append(error)
                    continue
                begun.append((plan, Job(plan.layers, grid).start(pool, self._session, stop)))
            steps: Iterator[int] = iter(range(len(begun)))
            if len(begun) > FEW_SCENES:
                steps = progress(steps, total=len(begun), what="reading", unit="scene")
            for _ in steps:
                # Let go of at once: a long series is never held both as sent and as converted.
                plan, job = begun.popleft()
                try:
                    finished.append(_finished(plan, job, gone))
                except ReadError as error:
                    if gone():
                        raise
                    problems.append(error)
        if not finished:
            raise problems[0] if problems else InputError("None of the scenes has any of the bands asked for.")
        for problem in problems:
            warn(f"A scene was left out of the series: {problem}")
        return make_series(finished, grid, source=self.name, attrs={})


def _finished(plan: SceneLayers, job: Job, gone: Callable[[], bool]) -> Scene:
    try:
        return plan.finish(job.done(gone))
    except Refusal as refusal:
        raise ReadError(str(refusal)) from refusal


def _concerns(sensor: str, asked: tuple[str, ...] | None) -> bool:
    return asked is None or any(sensor_of(name) == sensor for name in asked)


def _known(attrs: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attrs.items() if value is not None}
