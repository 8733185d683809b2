"""The pixel engine: wants in, arrays out. It knows files and grids, and nothing of STAC.

`read_wants` takes everything at once; `iter_wants` streams any number of groups in order with bounded memory. How the
work is shared out so that nothing is decoded twice is in crew.py, what a file is in rasters.py, and where a grid's
pixels lie in it in warp.py.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import rasterio

from deepsentinel.errors import InputError, ReadError
from deepsentinel.sources.patience import POLL_S, STOPPED, Work, reading_until, unwanted, watched

from .crew import Crew
from .rasters import is_remote
from .wants import Want

if TYPE_CHECKING:
    from deepsentinel.sources.cache import SceneCache

T = TypeVar("T")

# Waiting for a server costs no processor, so more files are under way than there are cores.
REMOTE_THREADS = 16
# Tiny patches of many scenes would fill no memory, and the first of them would wait for the last.
MOST_FILES = 256
# Threads that nobody needs any more finish their block and end, but one may hang on a server that says nothing.
LEAVE_S = 2.0
FIRST_FILES = 32


def check_limits(threads: int | None, memory_mb: float = 1.0) -> None:
    """Refuse what nothing can be read with.

    >>> check_limits(threads=2, memory_mb=512)
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads={threads}: give 1 or more, or None to let the number of cores decide.")
    if not memory_mb > 0:
        raise InputError(f"memory_mb={memory_mb}: give how many MB may be read ahead, such as 512.")


def _env_options() -> dict[str, Any]:
    """The caller's rasterio.Env (credentials, endpoints): it holds in the caller's thread, and we work in others."""
    return dict(rasterio.env.getenv()) if rasterio.env.hasenv() else {}


_cache: ContextVar[SceneCache | None] = ContextVar("cache", default=None)


@contextmanager
def keeping(cache: SceneCache | None) -> Iterator[None]:
    """What begins to be read inside from the web is looked for in a cache first, and kept there.

    >>> with keeping(None):
    ...     read_wants([])
    []
    """
    token = _cache.set(cache)
    try:
        yield
    finally:
        _cache.reset(token)


class _Stop(threading.Event):
    """Set by who reads, or by who no longer wants it: `reading_until` where this was made."""

    def __init__(self) -> None:
        super().__init__()
        self._unwanted = unwanted()

    def is_set(self) -> bool:
        return super().is_set() or self._unwanted()


def read_wants(wants: Sequence[Want], *, threads: int | None = None) -> list[np.ndarray | Exception]:
    """The pixels of every want, in order; where a want cannot be read, the ReadError that says why stands in its place.

    Arrays have the file's dtype and the grid's shape. Each file is opened once, each compressed block decoded once.
    `threads=None`: one per core for local files, 16 for remote ones. An active rasterio.Env holds for the reading.

    >>> from odc.geo.geobox import GeoBox
    >>> grid = GeoBox.from_bbox((500_000, 5_400_000, 502_560, 5_402_560), "EPSG:32631", resolution=10)
    >>> [type(pixels).__name__ for pixels in read_wants([Want("no/such/file.tif", grid)])]
    ['ReadError']
    """
    check_limits(threads)
    return _read(wants, threads, _env_options(), _Stop(), _cache.get())


def _read(
    wants: Sequence[Want],
    threads: int | None,
    options: dict[str, Any],
    stop: threading.Event,
    cache: SceneCache | None,
) -> list[np.ndarray | Exception]:
    """The results of all wants; with `stop` set by somebody, only of those that were done by then."""
    if threads is None:
        threads = REMOTE_THREADS if any(is_remote(want.href) for want in wants) else min(8, os.cpu_count() or 1)
    crew = Crew(wants, options, stop, cache)
    if threads == 1:
        crew.work()
    else:
        with _threads(threads, "deepsentinel-read", stop) as begin:
            for working in [begin(crew.work) for _ in range(threads)]:
                _awaited(working, stop)
    assert stop.is_set() or all(result is not None for result in crew.results), "a want was forgotten"
    return [_STOPPED if result is None else result for result in crew.results]


@contextmanager
def _threads(count: int, name: str, stop: threading.Event) -> Iterator[Callable[..., Future[Any]]]:
    """What gives work to threads of their own. They are waited for, but once nobody wants it for a moment only."""
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    begun: deque[Future[Any]] = deque(maxlen=count)

    def begin(work: Callable[..., Any], *args: Any) -> Future[Any]:
        begun.append(pool.submit(work, *args))
        return begun[-1]

    try:
        yield begin
    except BaseException:  # an interrupt, too
        stop.set()
        raise
    finally:
        hanging = wait(begun, timeout=LEAVE_S).not_done if stop.is_set() else ()
        pool.shutdown(wait=not hanging, cancel_futures=True)


def _awaited(work: Future[T], stop: threading.Event, told: deque[Work] | None = None) -> T | None:
    """What a thread makes; None once nobody wants it. What it has `told` on its way is shown."""
    while wait([work], timeout=POLL_S).not_done:
        if stop.is_set():
            return None
        while told:
            told.popleft().watch(stop.is_set)
    return work.result()


# Seen by nobody but in `reading_until`: whoever else set `stop` has left.
_STOPPED = ReadError(STOPPED)


def iter_wants(
    groups: Iterable[Sequence[Want]], *, threads: int | None = None, memory_mb: float = 512.0
) -> Iterator[list[np.ndarray | Exception]]:
    """For each group of wants (a patch's, say) its results, in order, reading ahead within `memory_mb`.

    Groups are gathered into chunks whose arrays take a quarter of `memory_mb`, and a chunk is read as one: neighbours
    in the order share opened files and decoded blocks, so sort by scene. While one chunk is handed out the next is
    read. `groups` may be endless; it is consumed a chunk ahead, in a thread of its own, so what it does on the way
    (signing a link, rendering a demo scene) overlaps with the caller's work too. An exception it raises surfaces after
    the groups before it. A rasterio.Env that is active when this is called, or that `groups` enters, holds for all.

    >>> list(iter_wants([]))
    []
    """
    check_limits(threads, memory_mb)
    return _chunks(groups, threads, memory_mb * 2**20 / 4, _env_options(), _cache.get())


Results = list[np.ndarray | Exception]


def _chunks(
    groups: Iterable[Sequence[Want]],
    threads: int | None,
    budget: float,
    options: dict[str, Any],
    cache: SceneCache | None,
) -> Iterator[Results]:
    source = iter(groups)
    stop = _Stop()
    told: deque[Work] = deque()

    def chunk(most_bytes: float, most_files: int) -> tuple[list[Results], bool, BaseException | None]:
        """The next groups' results, whether there may be more, and what broke the supply."""
        with reading_until(stop.is_set), watched(told):
            return gathered_and_read(most_bytes, most_files)

    def gathered_and_read(most_bytes: float, most_files: int) -> tuple[list[Results], bool, BaseException | None]:
        gathered: list[Sequence[Want]] = []
        held, more, broken = 0.0, True, None
        files: set[str] = set()
        while held < most_bytes and len(files) < most_files and not stop.is_set():
            try:
                gathered.append(next(source))
            except StopIteration:
                more = False
                break
            except BaseException as exc:
                more, broken = False, exc
                break
            # Four bytes a pixel: the widest that products come in.
            held += 1 + sum(4.0 * want.grid.shape[0] * want.grid.shape[1] for want in gathered[-1])
            files.update(want.href for want in gathered[-1])
        wants = [want for group in gathered for want in group]
        flat = iter(_read(wants, threads, {**options, **_env_options()}, stop, cache))
        return [[next(flat) for _ in group] for group in gathered], more, broken

    # The first chunks are small, so that the first patch comes soon.
    size, number, more, broken = budget / 8, FIRST_FILES, True, None
    with _threads(1, "deepsentinel-ahead", stop) as begin:
        try:
            waiting: Future[tuple[list[Results], bool, BaseException | None]] = begin(chunk, size, number)
            while more:
                came = _awaited(waiting, stop, told)
                if came is None or stop.is_set():  # whoever takes the results is told, and not kept waiting
                    raise ReadError(STOPPED)
                ready, more, broken = came
                if more:
                    size, number = min(budget, size * 2), min(MOST_FILES, number * 2)
                    waiting = begin(chunk, size, number)
                ready.reverse()
                while ready:  # handed out one by one and let go
                    yield ready.pop()
        finally:
            # Left early, or interrupted: what is being read ahead is wanted by nobody.
            stop.set()
    if broken is not None:
        raise broken
