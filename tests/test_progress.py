"""Bars are for people who watch: none in a pipe or a log, one in a terminal, and the items come through unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from types import ModuleType

import pytest

CODE = (
    "import deepsentinel.progress as p; p.DELAY_S = 0.0\n"
    "assert list(p.progress(iter('abc'), total=3, what='counting', unit='letter')) == ['a', 'b', 'c']"
)


def test_a_pipe_stays_clean() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_terminal_sees_a_bar() -> None:
    import pty
    import termios

    seen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    subprocess.run([sys.executable, "-c", CODE], stderr=terminal, check=True)
    os.close(terminal)
    written = b""
    try:
        while chunk := os.read(seen, 4096):
            written += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(seen)
    assert b"counting" in written


def test_work_beside_a_cell_draws_no_bar_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import tqdm.auto

    from deepsentinel.progress import progress

    asked: list[object] = []

    def bar(items: list[int], **how: object) -> list[int]:
        asked.append(how["disable"])
        return items

    monkeypatch.setattr(tqdm.auto, "tqdm", bar)
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))

    def work() -> None:
        assert list(progress([1, 2], total=2, what="reading", unit="scene")) == [1, 2]

    work()
    beside = threading.Thread(target=work)
    beside.start()
    beside.join()
    assert asked == [False, True]
