"""Our errors. Each message has three parts: what happened, where, and what to do about it.

All of them derive from `DeepSentinelError`, so that one `except` catches what this package says on purpose, and also
from the builtin that fits, so that code which never heard of us still catches them as a `ValueError` or an `OSError`.
"""

from __future__ import annotations

import sys
import warnings


class DeepSentinelError(Exception):
    """The root of every error that deepsentinel raises on purpose."""


class InputError(DeepSentinelError, ValueError):
    """An argument cannot be used: wrong type, unknown name, dates reversed."""


class AreaError(InputError):
    """What was given as an area is not one, or is too large to hold."""


class PatchError(InputError):
    """A Dataset breaks a rule of the Patch contract."""


class NothingFoundError(DeepSentinelError, LookupError):
    """A search was valid and found nothing; the message says what was searched and what to widen."""


class SourceError(DeepSentinelError, OSError):
    """A catalog or service cannot be reached or read."""

    # OSError turns two arguments into (errno, strerror) and prints them oddly; ours always carry one sentence.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ReadError(SourceError):
    """Pixels of one file cannot be read; the message names the file."""


class TrainingError(DeepSentinelError, RuntimeError):
    """A model cannot go on learning; the message says at which step, and what was kept."""


class StoppedError(DeepSentinelError, RuntimeError):
    """Work was ended on the way because somebody asked for it; the message says how far it was."""


class DeepSentinelWarning(UserWarning):
    """Something was repaired or assumed on the user's behalf, and this says what."""


def warn(message: str) -> None:
    """Warn of something, at the line outside this package that led here: the one that its reader can change.

    >>> import warnings
    >>> with warnings.catch_warnings(record=True, action="always") as caught:
    ...     warn("3 outlines were mended.")
    >>> print(caught[0].message)
    3 outlines were mended.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == __package__:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, DeepSentinelWarning, stacklevel=level)
