"""What of a corpus is there and what is still to do; one builder at a time, and the parts become the table.

Every step here may be the last before a kill. What is written later counts over what was there: where there is a table
and some parts as well, the parts are newer.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepsentinel.errors import InputError, ReadError
from deepsentinel.files import TEMPORARY_PREFIX

from .checking import damage_in
from .chunks import Chunks
from .layout import Layout
from .samples import read_samples, write_samples
from .worker import PARTS, WORK, part_path

if TYPE_CHECKING:
    import geopandas as gpd

TABLE, LOCK = "samples.parquet", ".lock"
# The corpora that this process builds: locks of files keep out other processes alone.
_ours: set[Path] = set()


@contextmanager
def alone(store: Path) -> Iterator[None]:
    """Nobody else builds this corpus meanwhile. A lock goes with its process, so that one that is killed leaves none.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with alone(folder):
    ...     [file.name for file in folder.iterdir()]
    ['.lock']
    >>> list(folder.iterdir())
    []
    """
    key = store.absolute().resolve()
    if key in _ours:
        raise _busy(store, "this process")
    _ours.add(key)
    handle = None
    try:
        handle = _locked(store)
        yield
    finally:
        _ours.discard(key)
        if handle is not None:
            with suppress(OSError):
                (store / LOCK).unlink()
            os.close(handle)


def _locked(store: Path) -> int | None:
    """The open lock; None where there are no locks, or nothing can be written anyway."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    while True:
        try:
            handle = os.open(store / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            # Not flock: processes that are forked would hold it on when this one is killed.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            who = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
            os.close(handle)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise _busy(store, who) from None
            return None  # a file system without locks
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), (store / LOCK).stat()):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
                return handle
        os.close(handle)  # whoever had it has removed it since it was opened


def _busy(store: Path, who: str) -> InputError:
    return InputError(
        f"{store} is being built by {who}. Wait until it is done, or stop it; then call build_corpus again."
    )


def todo_of(store: Path, layout: Layout, retry_failed: bool) -> dict[int, bool]:
    """The shards to make, and whether each is there and only retried."""
    if not retry_failed:
        if (store / TABLE).is_file():
            return {}
        return {shard: False for shard in range(layout.shards) if not part_path(store, shard).is_file()}
    table, rows = _told(store, layout)
    chunks = Chunks(store)
    found: dict[int, bool] = {}
    for shard in range(layout.shards):
        members = layout.members(shard)
        mine = rows[members.start : members.stop]
        if (mine < 0).any():
            found[shard] = False
            continue
        part = table.iloc[mine].reset_index(drop=True)
        good = (part["status"] == "ok").to_numpy()
        whole = good.all() and part["reason"].isna().all()
        if whole and not any(
            damage_in(chunks, spec, shard, np.arange(members.start, members.stop))[1] for spec in layout.arrays
        ):
            continue
        found[shard] = True
        if not part_path(store, shard).is_file():  # one that is there is newer than the table
            write_samples(part_path(store, shard), part)
    return found


def so_far(store: Path, layout: Layout) -> gpd.GeoDataFrame:
    """The rows of all samples that somebody came to, whether they are there or failed."""
    table, rows = _told(store, layout)
    return table.iloc[rows[rows >= 0]].reset_index(drop=True)


def finish(store: Path, layout: Layout) -> gpd.GeoDataFrame:
    """The parts become the table, and what killed writers left behind goes."""
    table, rows = _told(store, layout)
    if (rows < 0).any():
        raise ReadError(
            f"{store} lacks the parts of {np.count_nonzero(rows < 0)} samples: somebody removed them while it was"
            " built. Call build_corpus again: these samples are made again."
        )
    table = table.iloc[rows].reset_index(drop=True)
    if (store / PARTS).is_dir():
        if any((store / PARTS).glob("*.parquet")):
            write_samples(store / TABLE, table)
        # In one step: half of the parts would say less than the table does.
        with suppress(OSError):
            (store / PARTS).rename(store / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    shutil.rmtree(store / WORK, ignore_errors=True)
    for left in store.rglob(f"{TEMPORARY_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
    return table


def _told(store: Path, layout: Layout) -> tuple[gpd.GeoDataFrame, np.ndarray]:
    """All rows that there are, and which of them is that of each sample: the last; -1 where there is none."""
    parts = (part_path(store, shard) for shard in range(layout.shards))
    files = [file for file in (store / TABLE, *parts) if file.is_file()]
    rows = np.full(layout.samples, -1, "int64")
    if not files:
        return read_samples(store / "plan" / TABLE), rows
    table = read_samples(files)
    rows[table["sample"].to_numpy()] = np.arange(len(table))
    return table, rows
