"""A product that is whole gets its name, and what bore it before is not lost: somebody may have put more into it."""

from __future__ import annotations

import os
import zipfile
from contextlib import suppress
from pathlib import Path

BEFORE = ".before"
PIECE = 1 << 20


def put_in_place(new: Path, target: Path) -> None:
    """Give what is new its name. What bears the name already is put aside, for it may be more than half a product.

    Of that, only what the new one has too is deleted; whatever else is in it is somebody's, and stays aside.
    """
    asides = (target.with_name(f"{target.name}{BEFORE}{number}") for number in ("", *range(2, 1000)))
    aside = next(path for path in asides if not os.path.lexists(path)) if os.path.lexists(target) else None
    if aside is not None:
        target.rename(aside)
    try:
        new.rename(target)
    except OSError:
        if aside is not None:
            aside.rename(target)
        raise
    flush(target.parent)
    if aside is None or aside.is_symlink():
        return
    with suppress(OSError):  # what cannot be deleted stays aside as well
        if aside.is_file():
            if target.is_file() and _is_of(aside, target):
                aside.unlink()
            return
        for folder, _, files in os.walk(aside, topdown=False):  # nothing beyond a link is touched
            for file in files:
                if (target / Path(folder, file).relative_to(aside)).is_file():
                    Path(folder, file).unlink()
            with suppress(OSError):  # something is left in it
                Path(folder).rmdir()


def _is_of(old: Path, new: Path) -> bool:
    """Whether an archive, perhaps cut short, has nothing that the new one lacks."""
    if zipfile.is_zipfile(old):
        with zipfile.ZipFile(old) as before, zipfile.ZipFile(new) as now:
            return set(before.namelist()) <= set(now.namelist())
    with old.open("rb") as before_bytes, new.open("rb") as now_bytes:
        head = before_bytes.read(PIECE)
        return now_bytes.read(len(head)) == head


def flush(path: Path) -> None:
    """Have it on the disk."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
