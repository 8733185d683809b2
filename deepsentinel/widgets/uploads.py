"""Files from the reader's machine: for as long as they are looked at, or kept beside the notebook."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepsentinel.errors import DeepSentinelError, InputError
from deepsentinel.files import write_bytes

FOLDER = "uploads"
OUTLINES = ".geojson,.json,.gpkg,.zip,.kml,.fgb"
FORMATS = f"{OUTLINES},.parquet,.csv"
WORDS = "GeoJSON, GeoPackage, a zipped shapefile"


@contextmanager
def held(file: Mapping[str, Any]) -> Iterator[Path]:
    """What `Upload` received, as a file, for as long as this lasts; errors call it by its name alone.

    >>> with held({"name": "a.json", "size": 2, "data": b"{}"}) as path:
    ...     path.name, path.read_text()
    ('a.json', '{}')
    """
    data = _data(file)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _name(file)
        path.write_bytes(data)
        try:
            yield path
        except DeepSentinelError as error:
            words = str(error).replace(f"{folder}/", "")
            raise type(error)(words) from error


def kept(file: Mapping[str, Any]) -> Path:
    """What `Upload` received, written into the folder `uploads` beside the notebook, so that a line can read it.

    An earlier file of the same name stays, for a line may still read it: the new one is `name-2.gpkg` then.
    """
    data = _data(file)

    def another(path: Path) -> bool:
        return path.exists() and not (path.is_file() and path.read_bytes() == data)

    path = free_path(Path(FOLDER) / _name(file), another)
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        write_bytes(path, data)
    return path


def free_path(path: Path, taken: Callable[[Path], bool]) -> Path:
    """The path, or the first beside it that is not taken.

    >>> free_path(Path("a/field.gpkg"), lambda path: path.name == "field.gpkg").as_posix()
    'a/field-2.gpkg'
    """
    first, number = path, 1
    while taken(path):
        if first.name in ("", ".."):
            raise InputError(f"In {str(first)!r} are such files already, which stay as they are; give another name.")
        number += 1
        path = first.with_name(f"{first.stem}-{number}{first.suffix}")
    return path


def whole(path: str | Path) -> Path:
    """The path as there is only one of each file.

    >>> whole("a/../b.gpkg") == whole("./b.gpkg")
    True
    """
    return Path(path).expanduser().resolve()


def spoken(size: int) -> str:
    """Bytes in words.

    >>> spoken(2_097_152), spoken(1_200_000_000)
    ('2.1 MB', '1.2 GB')
    """
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _data(file: Mapping[str, Any]) -> bytes:
    if file["data"] is None:
        raise InputError(
            f"{file['name']} has {spoken(file['size'])}, which is much to send through a page; cut out what is needed,"
            " or put the file beside the notebook and give its name."
        )
    if not file["data"]:
        raise InputError(f"{file['name']} is empty: nothing came. Choose it again.")
    if len(file["data"]) != file["size"]:
        came, sent = len(file["data"]), file["size"]
        raise InputError(f"Of {file['name']} {came:,} of {sent:,} bytes came: the connection was cut. Try again.")
    return bytes(file["data"])


def _name(file: Mapping[str, Any]) -> str:
    """A name that stays in its folder, whatever a page says."""
    plain = re.sub(r"[^\w.() -]", "_", re.split(r"[/\\]", str(file["name"]))[-1]).strip(". ")
    if not plain:
        raise InputError(f"{file['name']!r} is no name of a file.")
    return plain
