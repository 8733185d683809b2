"""Ctrl-C, or `stop=`, while a corpus is built: whoever makes a shard looks between its samples whether to go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deepsentinel.errors import DeepSentinelError

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


@contextmanager
def stopping_when(wanted: Callable[[], bool], folder: Path, token: str) -> Iterator[None]:
    """Look a few times a second whether a build is to stop, and if so stop it: a `Stopped` then ends it quietly.

    >>> import tempfile
    >>> with stopping_when(lambda: True, Path(tempfile.mkdtemp()), "this"):
    ...     while not Watch(Path("nowhere"), "this").stopped():
    ...         pass
    ...     raise Stopped("on the way")
    """
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            if wanted():
                stop(folder, token)
                return
            over.wait(LOOK_S)

    watching = threading.Thread(target=look, name="deepsentinel stopping", daemon=True)
    watching.start()
    try:
        yield
    except Stopped:
        if token not in _stopped:
            raise
    finally:
        over.set()
        watching.join()


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

    @contextmanager
    def told(self) -> Iterator[None]:
        """What fails because the build was stopped, such as the reading of a file, is `Stopped` and no failure."""
        try:
            yield
        except (DeepSentinelError, OSError) as error:
            if self.stopped():
                raise Stopped("the build was stopped") from error
            raise

    def check(self) -> None:
        """Raise `Stopped` once it is."""
        if self.stopped():
            raise Stopped("the build was stopped")


def _file(folder: Path, token: str) -> Path:
    return folder / f"stop-{token}"
