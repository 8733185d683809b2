"""How long work tells how far it is, and is asked to stop: one bar, shown only when the work takes a while."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from deepsentinel.errors import InputError, StoppedError

T = TypeVar("T")

# Work that is done sooner is not worth a bar.
DELAY_S = 1.5


def progress(items: Iterable[T], *, total: int, what: str, unit: str) -> Iterator[T]:
    """The items, one after another, with a bar that counts them; in a notebook a widget, in a terminal on stderr.

    >>> list(progress([1, 2], total=2, what="reading", unit="scene"))
    [1, 2]
    """
    # Imported here: in a notebook it brings ipywidgets, which reading alone should not.
    from tqdm.auto import tqdm

    # None: silent where stderr is a file or a pipe, where nobody sees a bar move; a kernel's stderr looks like one.
    disable = False if "ipykernel" in sys.modules else None
    if threading.current_thread() is not threading.main_thread():
        # Work beside a notebook's cells has no cell to draw in; whoever started it tells how it goes.
        disable = True
    yield from tqdm(items, total=total, desc=what, unit=unit, delay=DELAY_S, leave=False, disable=disable)


def asked(stop: Any) -> Callable[[], bool]:
    """What somebody gave as `stop=`, as a function that says whether to stop.

    >>> event = threading.Event()
    >>> event.set()
    >>> asked(event)(), asked(lambda: False)(), asked(None)()
    (True, False, False)
    """
    if stop is None:
        return lambda: False
    if hasattr(stop, "is_set"):
        return lambda: bool(stop.is_set())
    if callable(stop):
        return lambda: bool(stop())
    raise InputError(f"stop={stop!r}: a function that says whether to stop, or a threading.Event, is meant.")


def stoppable(
    items: Iterable[T], *, total: int, what: str, unit: str, stop: Any, on_progress: Callable[[int, int], object] | None
) -> Iterator[T]:
    """The items, each after a look whether to stop; `on_progress` is told how many of how many are done.

    >>> told = []
    >>> for item in stoppable(
    ...     "ab", total=2, what="Reading", unit="row", stop=None, on_progress=lambda *step: told.append(step)
    ... ):
    ...     pass
    >>> told
    [(1, 2), (2, 2)]
    """
    wanted = asked(stop)
    for done, item in enumerate(items):
        if wanted():
            raise StoppedError(f"{what} was stopped after {done} of {total} {unit}s.")
        yield item
        if on_progress is not None:
            on_progress(done + 1, total)
