"""Warnings of many samples, heard once: collected while shards are made, and told when the build is over."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deepsentinel.errors import DeepSentinelWarning

_lock = threading.Lock()
_quiet: dict[str, Any] = {"users": 0}


@contextmanager
def quietly() -> Iterator[list[str]]:
    """What our own parts would warn of, collected: a thousand samples would say the same thing a thousand times.

    Python's filters are the process's and not the thread's, so the first shard sets them aside and the last one puts
    them back.
    """
    with _lock:
        if not _quiet["users"]:
            _quiet["catch"] = warnings.catch_warnings(record=True)
            _quiet["heard"] = _quiet["catch"].__enter__()
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", DeepSentinelWarning)
        _quiet["users"] += 1
        heard = _quiet["heard"]
    notes: list[str] = []
    start = len(heard)
    try:
        yield notes
    finally:
        with _lock:
            notes += [str(one.message) for one in heard[start:]]
            _quiet["users"] -= 1
            if not _quiet["users"]:
                _quiet.pop("catch").__exit__(None, None, None)
                _quiet.pop("heard")
