"""How long work tells how far it is: one bar, shown only when the work turns out to take a while."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

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
