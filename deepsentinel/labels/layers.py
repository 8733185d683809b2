"""One table of a file of labels, what it is opened by, and whether the file is what its name says."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyproj

from deepsentinel.errors import InputError

__all__ = ["SUFFIXES", "Layer", "check_content", "open_bytes"]

SUFFIXES = {
    ".gpkg": "a GeoPackage",
    ".shp": "a shapefile",
    ".geojson": "GeoJSON",
    ".json": "GeoJSON",
    ".parquet": "GeoParquet",
    ".geoparquet": "GeoParquet",
    ".csv": "a CSV",
    ".pbf": "OpenStreetMap's PBF",
    ".osm": "OpenStreetMap's XML",
    ".fgb": "a FlatGeobuf",
    ".gml": "GML",
    ".kml": "KML",
    ".sqlite": "a SpatiaLite database",
}
"""What can be opened, by the end of its name; a .zip may hold any of them, and a .gdb is a folder."""
_VSIZIP = re.compile(r"/vsizip/\{(.+?)\}/(.+)")


@dataclass(frozen=True)
class Layer:
    """One table of a file."""

    name: str
    """As the file calls it."""
    source: str
    """What is opened to read it; inside a zip not the file itself."""
    driver: str
    """"gdal", "parquet" or "csv"."""
    columns: tuple[str, ...]
    """Its columns as they are spelled, without the geometry."""
    crs: pyproj.CRS | None
    """None: the file tells none, or each row tells its own."""
    geometry_type: str | None
    """As GDAL names it; None where the layer has no geometries."""
    integers: tuple[str, ...] = ()
    """Columns that GDAL says hold whole numbers, or yes and no; with one missing numpy has only floats for them."""

    def has(self, *columns: str) -> bool:
        """Whether it has all of these columns, whatever their case."""
        mine = {column.lower() for column in self.columns}
        return all(column.lower() in mine for column in columns)


def open_bytes(source: str) -> IO[bytes]:
    """A file, or a member of a zip as GDAL names it, for reading without GDAL."""
    if inside := _VSIZIP.fullmatch(source):
        with zipfile.ZipFile(inside[1]) as archive:
            return io.BytesIO(archive.read(inside[2]))
    return Path(source).open("rb")


def check_content(head: bytes, suffix: str, name: str) -> None:
    """Raise `InputError` where the first bytes of a file are not those of what its name says."""
    if not head:
        raise InputError(f"{name} is empty: its download or export did not finish. Get it again.")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    expected = {
        ".gpkg": head.startswith(b"SQLite format 3\0"),
        ".sqlite": head.startswith(b"SQLite format 3\0"),
        ".shp": head.startswith(b"\x00\x00\x27\x0a"),
        ".geojson": text.startswith((b"{", b"[", b"\x1e")),
        ".json": text.startswith((b"{", b"[", b"\x1e")),
        ".parquet": head.startswith(b"PAR1"),
        ".geoparquet": head.startswith(b"PAR1"),
        ".csv": b"\0" not in head and not text.startswith((b"<", b"{", b"PK\x03\x04")),
        ".pbf": b"OSMHeader" in head[:64],
        ".osm": text.startswith(b"<"),
        ".fgb": head.startswith(b"fgb"),
        ".zip": head.startswith((b"PK\x03\x04", b"PK\x05\x06")),
    }
    if expected.get(suffix, True):
        return
    raise InputError(
        f"{name} is not {SUFFIXES.get(suffix, 'a zip archive')}, though its name says so: it {_looks_like(head, text)}."
    )


def _looks_like(head: bytes, text: bytes) -> str:
    lower = text[:200].lower()
    if lower.startswith((b"<!doctype html", b"<html")):
        return "is a web page, probably the answer of a server that wanted a login. Download it again"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer; `git lfs pull` fetches the file itself"
    for start, what in (
        (b"PK\x03\x04", "a zip archive; name it .zip"), (b"SQLite format 3", "a GeoPackage; name it .gpkg"),
        (b"PAR1", "GeoParquet; name it .parquet"), (b"\x1f\x8b", "compressed by gzip; unpack it first"),
        (b"{", "JSON; name it .geojson"), (b"II*\0", "a TIFF"), (b"MM\0*", "a TIFF"),
    ):  # fmt: skip
        if text.startswith(start):
            return f"is {what}"
    return f"begins with {head[:24]!r}"
