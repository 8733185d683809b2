"""Ctrl-C while a corpus is built: whoever makes a shard looks between its samples whether anybody still wants it."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

# Builds are called by a token of their own, which no other ever has, so that nothing is taken back.
_stopped: set[str] = set()
LOOK_S = 0.2


class Stopped(Exception):
    """A shard was given up on the way, and nothing of it is written."""


def stop(folder: Path, token: str) -> None:
    """Ask all who work on a build to end: threads here by memory, processes and clusters by a file they can see."""
    _stopped.add(token)
    with suppress(OSError):
        _file(folder, token).touch()


class Watch:
    """Whether a build was stopped; asked between blocks of pixels, it looks for the file a few times a second.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> stop(folder, "mine")
    >>> Watch(folder, "another").stopped(), Watch(folder, "mine").stopped()
    (False, True)
    """

    def __init__(self, folder: Path, token: str) -> None:
        self.folder, self.token = folder, token
        self._found, self._next = False, 0.0

    def stopped(self) -> bool:
        """Whether nobody wants the build any more."""
        if not self._found and time.monotonic() >= self._next:
            self._found = _file(self.folder, self.token).exists()
            self._next = time.monotonic() + LOOK_S
        return self._found or self.token in _stopped

    def check(self) -> None:
        """Raise `Stopped` once it is."""
        if self.stopped():
            raise Stopped("the build was stopped")


def _file(folder: Path, token: str) -> Path:
    return folder / f"stop-{token}"
