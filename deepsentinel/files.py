"""The one way to write a file: into a temporary neighbour, onto the disk, then renamed into place.

A reader therefore sees the old file or the whole new one, never a torn one, whatever is killed and when. Every writer
of the package goes through `atomic_path` (one file) or `atomic_folder` (a set of files that only make sense together).
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import SourceError

TEMPORARY_PREFIX = ".partial-"
# A temporary older than this belongs to a process that was killed: no single write takes a day.
ABANDONED_S = 24 * 3600.0
# There is no way to ask for the mask without setting it: done once, on import, before any thread of ours runs.
UMASK = os.umask(0o022)
os.umask(UMASK)


def cache_dir(*parts: str) -> Path:
    """The cache folder (or one inside it), created when missing.

    `DEEPSENTINEL_CACHE` overrides the user cache directory of the platform.

    >>> cache_dir("demo").name
    'demo'
    """
    root = os.environ.get("DEEPSENTINEL_CACHE")
    if root:
        base = Path(root).expanduser()
    else:
        import platformdirs

        base = Path(platformdirs.user_cache_dir("deepsentinel", appauthor=False))
    folder = base.joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(
            f"The cache folder {folder} cannot be made: {error}. Set the environment variable DEEPSENTINEL_CACHE to a "
            "folder that can be written."
        ) from error
    return folder


def _sync(path: Path) -> None:
    """Push a file's (or, where the platform can, a folder's) content to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):  # folders cannot be opened on Windows
        return
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it becomes `path`, on an exception it is gone.

    `sync=False` skips the flush to disk, for caches that can be made again.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays, because GDAL and others choose the format by it.
    handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix="".join(target.suffixes[-2:]), dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if sync:
            _sync(temporary)
        temporary.chmod(0o666 & ~UMASK)  # mkstemp makes files that only their owner can read
        temporary.replace(target)
        if sync:
            _sync(target.parent)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, sync: bool = True, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on a clean exit it becomes `path`, on an exception it is gone.

    If `path` exists already when the work is done (another process was quicker), that one is kept and ours is dropped.
    With `replace` ours takes its place, and where that fails the older one is still there.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "scene"
    >>> with atomic_folder(target) as temporary:
    ...     _ = (temporary / "B02.tif").write_bytes(b"pixels")
    >>> [file.name for file in target.iterdir()]
    ['B02.tif']
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=target.parent))
    aside = temporary.with_name(f"{temporary.name}-old")
    try:
        yield temporary
        if sync:
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
        temporary.chmod(0o777 & ~UMASK)
        if replace and target.is_dir():
            target.rename(aside)
        try:
            temporary.rename(target)
        except OSError:
            if replace or not target.is_dir():
                raise
        if sync:
            _sync(target.parent)
    finally:
        if aside.is_dir() and not target.exists():
            aside.rename(target)
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file, or nothing.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.bin"
    >>> write_bytes(target, b"12")
    >>> target.read_bytes()
    b'12'
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole text file in UTF-8, or nothing.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> write_text(target, "naïve")
    >>> target.read_text(encoding="utf-8")
    'naïve'
    """
    write_bytes(path, text.encode("utf-8"))


def folder_bytes(folder: str | os.PathLike[str]) -> int:
    """The size of everything below a folder; files that vanish meanwhile count as nothing.

    >>> import tempfile
    >>> folder_bytes(tempfile.mkdtemp())
    0
    """
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += Path(root, name).stat().st_size
    return total


def trim_cache(
    folders: str | os.PathLike[str] | Iterable[Path], max_bytes: int, *, in_use_since: float = math.inf
) -> list[str]:
    """Delete the least recently used entries of one folder, or of several, until at most `max_bytes` are left.

    An entry is a file or a sub-folder; its modification time is when it was last used (`touch` it on use). What was
    used after `in_use_since` (a time as `time.time()` gives it) is never deleted. Temporaries of writers that died a
    day ago go first. Returns the names that went.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("old", "new"):
    ...     _ = (folder / name).write_bytes(bytes(10))
    >>> os.utime(folder / "old", (0, 0))
    >>> trim_cache(folder, 15)
    ['old']
    """
    entries = []
    for folder in [folders] if isinstance(folders, str | os.PathLike) else folders:
        for entry in os.scandir(folder):
            with suppress(OSError):
                used = entry.stat().st_mtime
                if entry.name.startswith(TEMPORARY_PREFIX):
                    if time.time() - used > ABANDONED_S:
                        _remove(Path(entry.path))
                    continue
                size = folder_bytes(entry.path) if entry.is_dir() else entry.stat().st_size
                entries.append((used, entry.path, size))
    total = sum(size for _, _, size in entries)
    gone = []
    for _, path, size in sorted(entries):
        if total <= max_bytes:
            break
        with suppress(OSError):
            # Looked at again, as it may have been taken into use meanwhile.
            if Path(path).stat().st_mtime > in_use_since:
                continue
        _remove(Path(path))
        gone.append(Path(path).name)
        total -= size
    return gone


def _remove(path: Path) -> None:
    """Delete a file or a folder in one visible step: renamed aside first, so that nobody finds half of it."""
    aside = path.with_name(f"{TEMPORARY_PREFIX}gone-{os.getpid()}-{path.name}")
    with suppress(OSError):
        path.replace(aside)
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink()
