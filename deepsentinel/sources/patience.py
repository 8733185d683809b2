"""Waiting that ends when nobody wants any more what is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from deepsentinel.errors import ReadError

# How soon one who waits notices.
POLL_S = 0.2
STOPPED = "Reading was stopped before this was read."

_unwanted: ContextVar[Callable[[], bool] | None] = ContextVar("unwanted", default=None)


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
