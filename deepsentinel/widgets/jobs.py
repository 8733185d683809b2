"""Work beside the kernel's own thread, so that cells and clicks are answered while something is read or trained."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

Asked = Callable[[], bool]


class Jobs:
    """Named work, one of each name at a time: what ran before is asked to stop, and nobody hears of what it gives.

    >>> jobs, heard = Jobs(), []
    >>> jobs.start("sum", lambda stop: 1 + 1, done=heard.append, failed=print)
    >>> jobs.wait(5), heard
    (True, [2])
    """

    def __init__(self) -> None:
        self._running: dict[str, tuple[threading.Event, threading.Thread]] = {}
        self._lock = threading.Lock()

    def start(
        self,
        name: str,
        work: Callable[[Asked], Any],
        *,
        done: Callable[[Any], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        """Call `work` with a function that says whether it is to stop; then `done` with its result, or `failed`.

        Both are called on the work's own thread. Where it was asked to stop, `done` is called all the same if it gives
        something: a run that stops early has a model.
        """
        stop = threading.Event()

        def run() -> None:
            try:
                result = work(stop.is_set)
            except BaseException as error:  # a panel has to show whatever it was
                tell, what = failed, error
            else:
                tell, what = done, result
            with self._lock:
                current = self._running.get(name)
                mine = current is not None and current[0] is stop
            try:
                if mine:
                    tell(what)
            finally:
                with self._lock:
                    if self._running.get(name, (None,))[0] is stop:
                        del self._running[name]

        thread = threading.Thread(target=run, name=f"deepsentinel {name}", daemon=True)
        with self._lock:
            before = self._running.get(name)
            if before is not None:
                before[0].set()
            self._running[name] = stop, thread
            # Or somebody would wait for one that has not begun, which is an error.
            thread.start()

    def running(self, name: str) -> bool:
        """Whether this is under way."""
        with self._lock:
            return name in self._running

    def stop(self, name: str | None = None) -> None:
        """Ask one, or all, to stop at the next step."""
        with self._lock:
            held = [each for key, each in self._running.items() if name in (None, key)]
        for event, _ in held:
            event.set()

    def drop(self, name: str) -> None:
        """Ask one to stop, and let nobody hear of what it gives."""
        with self._lock:
            held = self._running.pop(name, None)
        if held is not None:
            held[0].set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until nothing is under way; False if it takes longer."""
        import time

        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with self._lock:
                held = [thread for _, thread in self._running.values()]
            if not held:
                return True
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return False
            held[0].join(left)

    def close(self) -> None:
        """Ask all to stop, and let nobody hear of what they give."""
        self.stop()
        with self._lock:
            self._running.clear()
