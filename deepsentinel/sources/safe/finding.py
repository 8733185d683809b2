"""What lies in a folder of downloads: the products, however deep, and what may be taken for one and is none.

Ordinary files are passed by their names alone: there may be thousands of them beside the products.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from deepsentinel.errors import SourceError
from deepsentinel.files import cache_dir

from .files import SIGNS, stamp_of

RASTERS = (".tif", ".tiff")
# What archives and loose rasters of Sentinel data are called; others that lie about are none of our business.
SENTINEL = re.compile(r"(^|[^A-Za-z0-9])(S[12][A-D]_|OPERA_L2_RTC-S1)", re.I)
# What browsers and programs that copy append to a name until all of it is there.
UNFINISHED = (".part", ".partial", ".filepart", ".incomplete", ".crdownload", ".download")
NAMED = 3
"""So many are told by name, the others by their number."""

Kind = Literal["product", "archive", "unfinished"]


def find_paths(location: Path) -> Iterator[Path]:
    """Every product folder, archive and raster at or below a location."""
    return (path for path, kind in look_through(location) if kind == "product")


def look_through(location: Path) -> Iterator[tuple[Path, Kind]]:
    """The same, and what else lies there that may be taken for a product.

    Of links to folders only those to a product are followed: others may lead in circles, or to the whole disk.
    """
    if location.is_file():
        # Somebody who points at the metadata means the product.
        yield location.parent if SIGNS.search(location.name) else location, "product"
        return
    if is_product_folder(location):
        yield location, "product"
        return
    ours = _cache()
    for folder, below, files in os.walk(location):
        here = Path(folder)
        if any(SIGNS.search(name) for name in files):
            below.clear()
            yield here, "product"
            continue
        # A corpus that lies beside the products has thousands of folders, and none of them is one.
        names = sorted(name for name in below if not name.startswith(".") and not name.endswith(".zarr"))
        below.clear()
        for name in names:
            if name.lower().endswith(".safe") or ((here / name).is_symlink() and is_product_folder(here / name)):
                yield here / name, "product"
            elif name.lower().endswith(UNFINISHED) and SENTINEL.search(name):
                yield here / name, "unfinished"
            # Radar that was put on a map is kept there, under the names of its products.
            elif name != ours.name or (here / name).resolve() != ours:
                below.append(name)
        for name in sorted(files):
            kind = None if name.startswith(".") else _kind(here, name)
            if kind is not None:
                yield here / name, kind


def _kind(folder: Path, name: str) -> Kind | None:
    """What a file is, by its name where that is enough."""
    lower = name.lower()
    if lower.endswith(".zip"):
        return "product" if SENTINEL.search(name) or _holds_product(folder / name) else "archive"
    # A raster may have the name of its band only, in a folder that has the scene's.
    if lower.endswith(RASTERS) and SENTINEL.search(f"{folder.name}/{name}"):
        return "product"
    return "unfinished" if lower.endswith(UNFINISHED) else None


def _cache() -> Path:
    with suppress(SourceError):  # without one products can be found all the same
        return cache_dir().resolve()
    return Path()


def _holds_product(archive: Path) -> bool:
    """Whether an archive that is called anything is a product."""
    return _looked_into(archive, stamp_of(archive))


@lru_cache(maxsize=4096)
def _looked_into(archive: Path, stamp: Any) -> bool:
    try:
        with zipfile.ZipFile(archive) as file:
            return any(SIGNS.search(name) for name in file.namelist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def is_product_folder(path: Path) -> bool:
    """Whether a folder is a product: by its ending, or by the metadata in it."""
    try:
        if not path.is_dir():
            return False
        return path.suffix.lower() == ".safe" or any(
            SIGNS.search(entry.name) and entry.is_file() for entry in path.iterdir()
        )
    except OSError:  # every disk has a folder that is not for us to look into; what cannot be listed is none
        return False


def may_hold_products(location: Path) -> bool:
    """Whether a path that a user named is worth opening as downloaded products.

    >>> may_hold_products(Path("no/such/folder"))
    False
    """
    if location.is_file():
        known = (".zip", *RASTERS)
        return location.suffix.lower() in known or SIGNS.search(location.name) is not None
    return location.is_dir() and next(find_paths(location), None) is not None


def passed_over(found: Iterable[tuple[Path, Kind]]) -> Iterator[str]:
    """What to say of what is no product, kind by kind.

    >>> [said[:43] for said in passed_over([(Path("a.zip"), "archive"), (Path("S2A_1.zip"), "product")])]
    ['1 archive(s) such as a.zip were left out: t']
    """
    others = [(path.name, kind) for path, kind in found]
    for wanted, why in (
        ("archive", "archive(s) such as {} were left out: they hold no Sentinel product, or are damaged."),
        ("unfinished", "download(s) such as {} were left out: by their names they are not finished."),
    ):
        names = [name for name, kind in others if kind == wanted]
        if names:
            yield f"{len(names)} {why.format(', '.join(names[:NAMED]))} The other products are used."
