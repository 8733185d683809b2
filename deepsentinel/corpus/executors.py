"""Who does the shards: threads of our own, any executor of `concurrent.futures`, or a cluster of dask.

Shards are handed out a few more than there are workers at a time, so that a million samples do not wait in memory, and
whoever is done gets the next.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from typing import Any

from deepsentinel.errors import InputError

from .worker import Done, Task, build_shard

AHEAD = 2
"""So many tasks for each worker are handed out."""
RETRIES = 3
"""A shard whose worker died is given to another so often."""

Make = Callable[[int, int | None], Task]
Stop = Callable[[], None]
Each = Generator[Done, None, None]


def run(task: Make, shards: Sequence[int], executor: Any, threads: int | None, stop: Stop) -> Each:
    """Each shard done, in any order; after an error, or Ctrl-C, `stop` is called and those under way are given up."""
    if executor is None:
        yield from _own(task, shards, threads, stop)
    elif isinstance(executor, Executor):
        workers = int(getattr(executor, "_max_workers", None) or os.cpu_count() or 1)
        yield from _pool(task, shards, executor, workers, threads or 1, stop)
    elif hasattr(executor, "submit") and hasattr(executor, "scheduler_info"):
        yield from _dask(task, shards, executor, threads or 1, stop)
    else:
        raise InputError(
            f"executor= is a {type(executor).__name__}; give a concurrent.futures executor, a dask.distributed.Client,"
            " or None for threads."
        )


def _own(task: Make, shards: Sequence[int], threads: int | None, stop: Stop) -> Iterator[Done]:
    """Shards side by side, each read by one thread: packing and masks then overlap with reading, too."""
    count = threads or min(8, os.cpu_count() or 1)
    workers = min(count, len(shards))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="deepsentinel-build")
    try:
        yield from _pool(task, shards, pool, workers, max(1, count // workers), stop, ahead=1)
    finally:
        # All are done, unless a second Ctrl-C came while they were waited for: then they end by themselves.
        pool.shutdown(wait=False, cancel_futures=True)


def _pool(
    task: Make, shards: Sequence[int], pool: Executor, workers: int, reading: int, stop: Stop, ahead: int = AHEAD
) -> Iterator[Done]:
    left = iter(shards)
    running: set[Future[Done]] = set()

    def top_up() -> None:
        while len(running) < workers * ahead:
            shard = next(left, None)
            if shard is None:
                return
            running.add(pool.submit(build_shard, task(shard, reading)))

    try:
        top_up()
        while running:
            ready, rest = wait(running, return_when=FIRST_COMPLETED)
            running.clear()
            running.update(rest)
            for future in ready:
                done = future.result()
                top_up()
                yield done
    finally:
        if running:
            stop()
        for future in running:
            future.cancel()
        wait(running)


def _dask(task: Make, shards: Sequence[int], client: Any, reading: int, stop: Stop) -> Iterator[Done]:
    from distributed import as_completed

    left = iter(shards)
    workers = max(1, sum(client.nthreads().values()))

    def more(count: int) -> list[Any]:
        found = []
        for _ in range(count):
            shard = next(left, None)
            if shard is None:
                break
            found.append(client.submit(build_shard, task(shard, reading), pure=False, retries=RETRIES))
        return found

    running = as_completed(more(workers * AHEAD))
    try:
        for future in running:
            done = future.result()
            for one in more(1):
                running.add(one)
            yield done
    finally:
        if running.futures:
            stop()
        client.cancel(list(running.futures))
