"""Who does the shards: threads of our own, any executor of `concurrent.futures`, or a cluster of dask.

Shards are handed out a few more than there are workers at a time, so that a million samples do not wait in memory, and
whoever is done gets the next.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from typing import Any

from deepsentinel.errors import InputError

from .worker import Done, Task, build_shard

AHEAD = 2
"""So many tasks for each worker are handed out."""
RETRIES = 3
"""A shard whose worker died is given to another so often."""

Make = Callable[[int, int | None], Task]


def run(task: Make, shards: Sequence[int], executor: Any, threads: int | None) -> Iterator[Done]:
    """Each shard done, in any order; the first error stops the rest."""
    if executor is None:
        yield from _own(task, shards, threads)
    elif isinstance(executor, Executor):
        workers = int(getattr(executor, "_max_workers", None) or os.cpu_count() or 1)
        yield from _pool(task, shards, executor, workers, threads or 1)
    elif hasattr(executor, "submit") and hasattr(executor, "scheduler_info"):
        yield from _dask(task, shards, executor, threads or 1)
    else:
        raise InputError(
            f"executor= is a {type(executor).__name__}; give a concurrent.futures executor, a dask.distributed.Client,"
            " or None for threads."
        )


def _own(task: Make, shards: Sequence[int], threads: int | None) -> Iterator[Done]:
    """Shards side by side, each read by one thread: packing and masks then overlap with reading, too."""
    count = threads or min(8, os.cpu_count() or 1)
    workers = min(count, len(shards))
    with ThreadPoolExecutor(workers, thread_name_prefix="deepsentinel-build") as pool:
        yield from _pool(task, shards, pool, workers, max(1, count // workers), ahead=1)


def _pool(
    task: Make, shards: Sequence[int], pool: Executor, workers: int, reading: int, ahead: int = AHEAD
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
        for future in running:
            future.cancel()
        wait(running)


def _dask(task: Make, shards: Sequence[int], client: Any, reading: int) -> Iterator[Done]:
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
        client.cancel(list(running.futures))
