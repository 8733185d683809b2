"""Rows of tables -> pixels: planned scene by scene, read by the engine many files at once, and assembled."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from deepsentinel.bands import sensor_of
from deepsentinel.errors import InputError, ReadError, warn
from deepsentinel.progress import progress

from .arguments import (
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
from .assemble import make_patch, make_series
from .base import Failure, OnError
from .plans import Array, Methods, Plan, Planner, Scene

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from odc.geo.geobox import GeoBox

    from .engine import Want


# The items of so many rows are fetched together: few requests, and the first patch need not wait for the last item.
ROWS_AT_ONCE = 500
# New rights that were refused as the old ones were are not asked for again for so long.
HOPELESS_S = 60.0
# So many are read while one waits for the bar to appear.
FEW_SCENES = 8


class PixelReader(Planner):
    """The reading half of a STAC source; the other half knows the items."""

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

        `bands` is all that is usual when left out: the optical bands and SCL, VV and VH (or HH and HV), and the
        incidence angle, as far as the catalog has them; bands that are asked for by name must be there. `resampling`
        only matters where pixels do not fit the grid: optical ones then come by nearest neighbour, radar bilinearly
        in linear power, unless a method (or one for each band, as a dict) is given. In a series a scene that cannot
        be read is left out with a warning; if none can be read, its error is raised.
        """
        grid, asked, methods = check_grid(grid), check_bands(bands), check_resampling(resampling)
        if is_table(what):
            return self._read_series(what, grid, asked, methods)
        row = row_of(what)
        self._fetch([row])
        plans = self._plan_row(row, grid, asked, methods)
        with self._gdal():
            arrays = self._read_wants(plans, grid)
        return self._patch(plans, arrays, grid)

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
        """Loaded patches, in the order of the rows (or of the grids, for one row), read ahead and grouped by file.

        A row whose scene or asset is missing or broken never stops the others. With `on_error="record"` a `Failure`
        stands in its place: it is false (`if not patch: ...`), carries the error, and raises it when used as a patch.
        "skip" leaves it out with a warning, "raise" raises when its turn comes.
        """
        from .engine import check_limits

        asked, methods = check_bands(bands), check_resampling(resampling)
        check_limits(threads, memory_mb)
        rows, boxes = rows_and_grids(table, grids, on_error)
        return self._many(rows, boxes, asked, methods, on_error, threads, memory_mb)

    # -- behind them ---------------------------------------------------------------------------------------------------

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
        from .engine import iter_wants

        planned: deque[list[Plan] | Exception] = deque()

        def groups() -> Iterator[list[Want]]:
            # Runs ahead in a thread of the engine's own; what it plans is picked up below, in the same order.
            problem: Exception | None = None
            for position, (row, grid) in enumerate(zip(rows, boxes, strict=True)):
                try:
                    if position % ROWS_AT_ONCE == 0:
                        problem = self._problem_fetching(rows[position : position + ROWS_AT_ONCE])
                    if problem is not None:
                        raise problem
                    plans = self._plan_row(row, grid, asked, methods)
                    wants = [want for plan in plans for want in plan.wants(grid, self.resolve)]
                except Exception as error:
                    planned.append(error)
                    yield []
                else:
                    planned.append(plans)
                    yield wants

        with self._gdal():  # the engine hands GDAL's settings on to its threads
            stream = iter_wants(groups(), threads=threads, memory_mb=memory_mb)
        for position, (row, grid, arrays) in enumerate(zip(rows, boxes, stream, strict=True)):
            plans = planned.popleft()
            try:
                if isinstance(plans, Exception):
                    raise plans
                patch: xr.Dataset | Failure = self._patch(plans, self._again(plans, grid, arrays), grid)
            except Exception as error:
                if on_error == "raise":
                    raise
                if on_error == "skip":
                    warn(f"Row {position} was left out: {error}")
                    continue
                patch = Failure(position, *ids_of(row), error)
            yield patch

    def _fetch(self, rows: Sequence[Row]) -> None:
        """Have the items of all rows at hand, with one request for each sensor."""
        ids: dict[str, list[str]] = {"S1": [], "S2": []}
        for row in rows:
            for sensor, name in zip(("S1", "S2"), ids_of(row), strict=True):
                if name is not None:
                    ids[sensor].append(name)
        for sensor, names in ids.items():
            if names:
                self.items_of(sensor, names)

    def _problem_fetching(self, rows: Sequence[Row]) -> Exception | None:
        try:
            self._fetch(rows)
        except Exception as error:
            return error  # the catalog does not answer: each of these rows fails, and says so
        return None

    def _plan_row(self, row: Row, grid: GeoBox, asked: tuple[str, ...] | None, methods: Methods) -> list[Plan]:
        plans = []
        for sensor, name in zip(("S1", "S2"), ids_of(row), strict=True):
            if name is None or not _concerns(sensor, asked):
                continue
            plan = self._plan(sensor, name, asked, methods)
            check_touch(plan.item, grid)
            plans.append(plan)
        held = {name for plan in plans for name in plan.refs}
        if asked is not None and not set(asked) <= held:
            missing = ", ".join(name for name in asked if name not in held)
            raise InputError(f"{missing} cannot come from a row that has only a scene of the other sensor.")
        return plans

    def _read_wants(self, plans: Sequence[Plan], grid: GeoBox) -> list[Array | Exception]:
        from .engine import read_wants

        wants = [want for plan in plans for want in plan.wants(grid, self.resolve)]
        return self._again(plans, grid, read_wants(wants))

    def _again(
        self, plans: Sequence[Plan], grid: GeoBox, arrays: Sequence[Array | Exception]
    ) -> list[Array | Exception]:
        """Files that were forbidden (their signature had expired) are opened once more, newly signed; and so are those
        that were replaced while they were read."""
        failed = [(n, got) for n, got in enumerate(arrays) if isinstance(got, Exception)]
        if not failed:
            return list(arrays)
        from .engine import read_wants
        from .engine.remote import FileChanged

        again = [n for n, problem in failed if isinstance(problem, FileChanged)]
        wants = [want for plan in plans for want in plan.wants(grid, self.resolve)]
        forbidden = [n for n, problem in failed if _is_forbidden(problem)]
        # Many files may be refused for the one token they shared, and it is renewed for the first of them.
        stale = any(hash(wants[n].href) == getattr(arrays[n], "opened_as", None) for n in forbidden)
        if stale and time.monotonic() > self._hopeless_until and self.renew():
            wants, stale = [want for plan in plans for want in plan.wants(grid, self.resolve)], False
        again += [] if stale else forbidden
        if not again:
            return list(arrays)
        with self._gdal():
            fresh = dict(zip(again, read_wants([wants[n] for n in again]), strict=True))
        if any(isinstance(got, Exception) and _is_forbidden(got) for got in fresh.values()):
            self._hopeless_until = time.monotonic() + HOPELESS_S  # it is not the token
        return [fresh.get(n, got) for n, got in enumerate(arrays)]

    def _patch(self, plans: Sequence[Plan], arrays: Sequence[Array | Exception], grid: GeoBox) -> xr.Dataset:
        return make_patch(list(self._finish(plans, arrays)), grid, source=self.name, attrs=self.patch_attrs())

    def _finish(self, plans: Sequence[Plan], arrays: Sequence[Array | Exception]) -> Iterator[Scene]:
        start = 0
        for plan in plans:
            yield plan.finish(arrays[start : start + len(plan.refs)])
            start += len(plan.refs)

    def _read_series(
        self, table: pd.DataFrame, grid: GeoBox, asked: tuple[str, ...] | None, methods: Methods
    ) -> xr.Dataset:
        from .engine import iter_wants

        rows = rows_of(table)
        if not rows:
            raise InputError("The table is empty: there is nothing to read. Search again with wider dates or area.")
        # A scene that is in several pairs is read once.
        pairs = dict.fromkeys(pair for row in rows for pair in zip(("S1", "S2"), ids_of(row), strict=True))
        singles = [(sensor, name) for sensor, name in pairs if name is not None and _concerns(sensor, asked)]
        self._fetch([{"sensor": sensor, "id": name} for sensor, name in singles])
        planned: deque[Plan | Exception] = deque()

        def groups() -> Iterator[list[Want]]:
            for sensor, name in singles:
                try:
                    plan = self._plan(sensor, name, asked, methods)
                    check_touch(plan.item, grid)
                    wants = plan.wants(grid, self.resolve)
                except Exception as error:
                    planned.append(error)
                    yield []
                else:
                    planned.append(plan)
                    yield wants

        with self._gdal():
            stream: Iterator[list[Array | Exception]] = iter_wants(groups())
        if len(singles) > FEW_SCENES:
            stream = progress(stream, total=len(singles), what="reading", unit="scene")
        finished: list[Scene] = []
        problems: list[Exception] = []
        for arrays in stream:
            plan = planned.popleft()
            if isinstance(plan, Exception):
                problems.append(plan)
                continue
            try:
                # Converted at once, so that a long series is never held both as stored and as converted.
                finished.append(plan.finish(self._again([plan], grid, arrays)))
            except ReadError as error:
                problems.append(error)
        if not finished:
            raise problems[0] if problems else InputError("None of the scenes has any of the bands asked for.")
        for problem in problems:
            warn(f"A scene was left out of the series: {problem}")
        return make_series(finished, grid, source=self.name, attrs=self.patch_attrs())


def _concerns(sensor: str, asked: tuple[str, ...] | None) -> bool:
    return asked is None or any(sensor_of(name) == sensor for name in asked)


def _is_forbidden(problem: Exception) -> bool:
    return re.search(r"(HTTP|code:?|status) ?403\b|AuthenticationFailed|Forbidden", str(problem)) is not None
