"""How the command line talks: steps with the Python that they run, and tables."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

Row = tuple[str, ...]


class Steps:
    """The printed walk: a heading and the Python line before each step, its result and time after it."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.started = time.monotonic()

    @contextmanager
    def step(self, title: str, *code: str) -> Iterator[None]:
        """Announce a step, run it, and say how long it took."""
        self.done += 1
        say(f"\n[{self.done}/{self.total}] {title}")
        for line in code:
            say(f"    >>> {line}")
        began = time.monotonic()
        yield
        took_s = time.monotonic() - began
        if took_s >= 0.5:
            say(f"    ({took_s:.1f} s)")

    @property
    def seconds(self) -> float:
        """Since the first step began."""
        return time.monotonic() - self.started


def say(line: str = "") -> None:
    """Print at once, so that a slow step is seen to be under way, also through a pipe."""
    print(line, flush=True)


def table(rows: Sequence[Row], indent: str = "    ") -> str:
    """Rows of text with their columns aligned; short rows are fine.

    >>> print(table([("a", "1"), ("bcd", "22")], indent=""))
    a    1
    bcd  22
    """
    columns = max(len(row) for row in rows)
    filled = [(*row, *[""] * (columns - len(row))) for row in rows]
    widths = [max(len(row[column]) for row in filled) for column in range(columns)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in filled)
    return "\n".join((indent + line).rstrip() for line in lines)
