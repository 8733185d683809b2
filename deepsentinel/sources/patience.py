"""Waiting that ends when nobody wants any more what is waited for, and that is told meanwhile how far it is."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from deepsentinel.errors import ReadError
from deepsentinel.progress import progress

T = TypeVar("T")

# How soon one who waits notices.
POLL_S = 0.2
STOPPED = "Reading was stopped before this was read."

_unwanted: ContextVar[Callable[[], bool] | None] = ContextVar("unwanted", default=None)


class Work:
    """Long work in a thread, as it is seen by who waits for it in another."""

    def __init__(self, total: int, what: str, unit: str) -> None:
        self.total, self.what, self.unit = total, what, unit
        self.done, self.over = 0, threading.Event()

    def watch(self, left: Callable[[], bool]) -> None:
        """Show how far it is until it is over, or whoever looks has `left`."""

        def steps() -> Iterator[None]:
            seen, over = 0, False
            while not over and not left():
                over = self.over.wait(POLL_S)
                done = self.done
                yield from [None] * (done - seen)
                seen = done

        for _ in progress(steps(), total=self.total, what=self.what, unit=self.unit):
            pass


_works: ContextVar[deque[Work] | None] = ContextVar("works", default=None)


@contextmanager
def watched(works: deque[Work]) -> Iterator[None]:
    """Long work that begins inside is put here, for who waits for this thread to `watch` it."""
    token = _works.set(works)
    try:
        yield
    finally:
        _works.reset(token)


def telling(steps: Iterable[T], *, total: int, what: str, unit: str) -> Iterator[T]:
    """The steps of long work, with a bar: in the thread of who waits for it, where he sees it. Workers draw none.

    >>> list(telling("ab", total=2, what="placing", unit="block"))
    ['a', 'b']
    """
    works = _works.get()
    if multiprocessing.parent_process() is not None:
        yield from steps
    elif works is None:
        yield from progress(steps, total=total, what=what, unit=unit)
    else:
        works.append(work := Work(total, what, unit))
        try:
            for step in steps:
                yield step
                work.done += 1
        finally:
            work.over.set()


@contextmanager
def reading_until(unwanted: Callable[[], bool]) -> Iterator[None]:
    """What begins to be read inside ends within a block or two once `unwanted()` says so; it is asked often.

    Whoever asks for pixels waits for a whole chunk of them, and cannot leave meanwhile. What was not read by then is a
    ReadError; `iter_wants` raises it. Waiting for a busy server ends, too.

    >>> with reading_until(lambda: True):
    ...     wait(60)
    Traceback (most recent call last):
    ...
    deepsentinel.errors.ReadError: Reading was stopped before this was read.
    """
    token = _unwanted.set(unwanted)
    try:
        yield
    finally:
        _unwanted.reset(token)


def unwanted() -> Callable[[], bool]:
    """How to ask whether whoever reads here has left meanwhile; to be handed to the threads that read for him.

    >>> unwanted()()
    False
    """
    return _unwanted.get() or bool


def check_wanted() -> None:
    """Raise where nobody wants this any more; for loops that take long.

    >>> check_wanted()
    """
    if unwanted()():
        raise ReadError(STOPPED)


def wait(seconds: float) -> None:
    """Sleep, as long as it is wanted.

    >>> wait(0)
    """
    while seconds > 0:
        time.sleep(min(seconds, POLL_S))
        check_wanted()
        seconds -= POLL_S
