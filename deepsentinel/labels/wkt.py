"""CSV with geometries as WKT, where each row may be in a CRS of its own, or of points by longitude and latitude."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely

from deepsentinel.errors import InputError, ReadError, warn
from deepsentinel.geometries import SetAside

from .apart import whole_rows
from .layers import Layer, open_bytes

__all__ = ["csv_column", "csv_layer", "read_csv"]

GEOMETRY_COLUMNS = ("geometry", "wkt", "geom", "the_geom", "wkt_geom", "way")
# Points: degrees, whatever CRS a row tells (a sample tells that of its tile); only `crs=` makes them anything else.
POINT_COLUMNS = (("lon", "long", "lng", "longitude"), ("lat", "latitude"))
_NO_WKT = "WKT that cannot be read"
_NO_DEGREES = "lon and lat are not degrees"
CRS_COLUMNS = ("crs", "epsg", "srid")
_CHUNK_ROWS = 100_000
_EWKT = r"(?i)\s*SRID=(\d+);"
# Without leading zeros: those belong to codes and ids, which are text.
_NUMBER = r"\s*[-+]?(?:0|[1-9]\d*)(?:\.\d*)?(?:[eE][-+]?\d+)?\s*"
# A polygon with many corners makes a cell longer than the csv module expects.
_LONGEST_CELL = 2**30


def csv_layer(source: str) -> Layer:
    """The columns of a CSV, from its first line; without WKT or points it is a layer without geometries."""
    columns = _header(source)[1]
    name = source.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    geometry = _column(columns, GEOMETRY_COLUMNS)
    others = tuple(column for column in columns if column != geometry)
    kind = "Unknown" if geometry is not None else None if _point_columns(columns) is None else "Point"
    return Layer(name, source, "csv", others, None, kind)


def _point_columns(columns: list[str]) -> tuple[str, str] | None:
    lon, lat = (_column(columns, names) for names in POINT_COLUMNS)
    return None if lon is None or lat is None else (lon, lat)


def read_csv(
    source: str,
    crs: pyproj.CRS | None,
    name: str,
    keep: Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame] = lambda table: table,
) -> gpd.GeoDataFrame:
    """All rows as one table, indexed by their position in the file; `keep` narrows each part before it is kept.

    A row's CRS is that of its column `crs` (an EPSG number or `EPSG:...`), of its EWKT, or `crs`. Where rows have
    several the others are brought into the most frequent one, with a warning. Points by longitude and latitude are in
    degrees unless `crs` is given. Rows that cannot be placed go into `attrs["set_aside"]`.
    """
    delimiter, columns = _header(source)
    geometry, told = _column(columns, GEOMETRY_COLUMNS), _column(columns, CRS_COLUMNS)
    points, degrees = None, False
    if geometry is None:
        points, told, degrees = _point_columns(columns), None, crs is None
        assert points is not None
        geometry, crs = "geometry", crs or pyproj.CRS("EPSG:4326")
    parts: dict[pyproj.CRS, list[gpd.GeoDataFrame]] = {}
    set_aside: list[dict[str, Any]] = []
    spoilt: list[gpd.GeoDataFrame] = []
    # Of all rows, not of those that are kept: neither the CRS nor what is a number may depend on the area.
    counts: Counter[pyproj.CRS] = Counter()
    types: dict[str, _Type] = {}
    systems: dict[str, pyproj.CRS | None] = {}
    for chunk in _chunks(source, delimiter, name):
        if points is not None:
            chunk[geometry] = "POINT (" + chunk[points[0]] + " " + chunk[points[1]] + ")"
        shapes, own = _shapes(chunk[geometry])
        texts = own.where(own.notna(), chunk[told] if told else None).astype(object)
        for text in texts.dropna().unique():
            systems.setdefault(text, _known(text))
        faults = _faults(chunk[geometry], shapes, texts, systems, crs is not None)
        if points is not None:
            faults[faults == _NO_WKT] = "lon or lat that cannot be read"
        if degrees:
            faults[(faults == "") & ~_on_earth(shapes)] = _NO_DEGREES
        identity = _column(columns, ("id",))
        for position in np.flatnonzero(faults != ""):
            row = chunk.index[position]
            set_aside.append(
                {
                    "row": int(row),
                    "id": str(chunk[identity][row]) if identity else None,
                    "reason": str(faults[position]),
                    "wkt": str(chunk[geometry][row])[:1000],
                }
            )
        sound = faults == ""
        rows = chunk.drop(columns=geometry)
        for column in rows.columns:
            types[column] = types.get(column, _Type()).and_of(rows[column][sound])
        if not sound.all():
            spoilt.append(_spoilt(rows[~sound], chunk[geometry][~sound], faults[~sound], identity))
        for text in [*texts[sound].dropna().unique(), None]:
            chosen = sound & (texts.isna() if text is None else texts == text).to_numpy()
            system = crs if text is None else systems[text]
            if chosen.any() and system is not None:
                counts[system] += int(chosen.sum())
                part = gpd.GeoDataFrame(rows[chosen], geometry=shapes[chosen], crs=system)
                parts.setdefault(system, []).append(keep(part))
    if not parts and set_aside and all(entry["reason"] == "no crs" for entry in set_aside):
        raise InputError(
            f"{name} does not tell its CRS: it needs a column crs with an EPSG number in each row. If you know it, say"
            " so: read_labels(path, crs='EPSG:...')."
        )
    wrong = next((entry["wkt"] for entry in set_aside if entry["reason"] == _NO_DEGREES), None)
    if not parts and wrong is not None:
        raise InputError(
            f"{name}: {_NO_DEGREES}, such as {wrong}. If you know in which CRS they are, say so:"
            " read_labels(path, crs='EPSG:...')."
        )
    # The most frequent one; among equals the one that comes first by its name, whatever the order of the rows.
    target = min(counts, key=lambda system: (-counts[system], system.to_string()), default=None)
    table, notes = _joined(parts, target, [column for column in columns if column != geometry])
    for column in table.columns.drop("geometry"):
        table[column] = types.get(column, _Type()).of(table[column])
    reasons = pd.Series([entry["reason"] for entry in set_aside], dtype=object).value_counts()
    warned = [f"{count} rows set aside, {reason}" for reason, count in reasons.items()]
    for sentence in [*notes, *warned]:
        warn(f"{name}: {sentence}.")
    table.attrs = {"notes": notes, "set_aside": SetAside(set_aside, [rows.set_crs(table.crs) for rows in spoilt])}
    return table


def _spoilt(rows: pd.DataFrame, texts: pd.Series, reasons: np.ndarray, identity: str | None) -> gpd.GeoDataFrame:
    """Rows without a place, and what was written where it should be."""
    table = gpd.GeoDataFrame(rows.assign(wkt=texts), geometry=[None] * len(rows))
    return whole_rows(table, np.arange(len(rows)), reasons, rows[identity] if identity else None)


def _joined(
    parts: dict[pyproj.CRS, list[gpd.GeoDataFrame]], target: pyproj.CRS | None, columns: list[str]
) -> tuple[gpd.GeoDataFrame, list[str]]:
    counts = {system: sum(map(len, tables)) for system, tables in parts.items()}
    notes = []
    if target is None:
        table = gpd.GeoDataFrame({column: [] for column in columns}, geometry=[], crs="EPSG:4326")
    else:
        tables = [pd.concat(same) for same in parts.values()]
        table = pd.concat([part if part.crs == target else part.to_crs(target) for part in tables]).sort_index()
        table = gpd.GeoDataFrame(table, geometry="geometry", crs=target)
        others = {system: count for system, count in counts.items() if system != target and count}
        if others:
            listed = ", ".join(f"{count} rows from {system.to_string()}" for system, count in others.items())
            notes = [f"{len(others) + 1} CRS in one file: {listed} reprojected to {target.to_string()}"]
    return table, notes


def csv_column(source: str, name: str, file: str) -> pd.Series:
    """One column of all rows, as text."""
    return pd.concat([chunk[name] for chunk in _chunks(source, _header(source)[0], file)], ignore_index=True)


def _header(source: str) -> tuple[str, list[str]]:
    with open_bytes(source) as stream:
        line = stream.readline(1_000_000).decode("utf-8-sig", errors="replace").rstrip("\r\n")
    # WKT, which is full of commas, is in the rows and not in the names.
    delimiter = max(",;\t|", key=line.count)
    return delimiter, [column.strip() for column in next(csv.reader([line], delimiter=delimiter), [])]


def _chunks(source: str, delimiter: str, name: str) -> Any:
    csv.field_size_limit(_LONGEST_CELL)
    try:
        with (
            io.TextIOWrapper(open_bytes(source), encoding="utf-8-sig") as stream,
            pd.read_csv(stream, sep=delimiter, dtype=str, chunksize=_CHUNK_ROWS, skipinitialspace=True) as chunks,
        ):
            for chunk in chunks:
                chunk.columns = [str(column).strip() for column in chunk.columns]
                yield chunk
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ReadError(f"{name} cannot be read as a CSV: {error}.") from error


def _shapes(texts: pd.Series) -> tuple[np.ndarray, pd.Series]:
    """Geometries (None where the WKT cannot be read) and the SRID that EWKT begins with."""
    own = texts.str.extract(_EWKT, expand=False)
    plain = texts.str.replace(_EWKT, "", regex=True).astype(object)
    plain = plain.where(plain.notna(), None)
    with np.errstate(invalid="ignore"):  # nan as a coordinate, which the cleaning reports
        return shapely.from_wkt(plain.to_numpy(dtype=object), on_invalid="ignore"), own


def _on_earth(points: np.ndarray) -> np.ndarray:
    """Whether x and y may be a longitude and a latitude."""
    return (np.abs(shapely.get_x(points)) <= 360) & (np.abs(shapely.get_y(points)) <= 90)


def _faults(
    texts: pd.Series, shapes: np.ndarray, systems_of: pd.Series, systems: dict[str, pyproj.CRS | None], has_crs: bool
) -> np.ndarray:
    faults = np.full(len(texts), "", dtype=object)
    unknown = [text for text, system in systems.items() if system is None]
    bad = systems_of.isin(unknown).to_numpy()
    faults[bad] = [f"crs {text!r} is not known" for text in systems_of[bad]]
    if not has_crs:
        faults[systems_of.isna().to_numpy()] = "no crs"
    missing = shapely.is_missing(shapes)
    faults[missing] = np.where(texts.isna()[missing], "no geometry", _NO_WKT)
    return faults


def _known(text: str) -> pyproj.CRS | None:
    """`32631`, `32631.0` and `EPSG:32631` -> the CRS; None where there is no such."""
    number = text.strip().removesuffix(".0")
    try:
        return pyproj.CRS.from_epsg(int(number)) if number.isdigit() else pyproj.CRS.from_user_input(text.strip())
    except pyproj.exceptions.CRSError:
        return None


@dataclass(frozen=True)
class _Type:
    """What the texts of a column are, of all rows so far."""

    seen: bool = False
    numbers: bool = True
    whole: bool = True
    gaps: bool = False

    def and_of(self, texts: pd.Series) -> _Type:
        """With these texts too."""
        there = texts.dropna().astype(str)
        numbers = self.numbers and bool(there.str.fullmatch(_NUMBER).all())
        whole = numbers and self.whole and bool(there.str.fullmatch(r"\s*[-+]?\d{1,18}\s*").all())
        return _Type(self.seen or bool(len(there)), numbers, whole, self.gaps or len(there) < len(texts))

    def of(self, column: pd.Series) -> pd.Series:
        """Texts that are numbers throughout as numbers, whole ones as integers; gaps stay gaps."""
        if not self.seen or not self.numbers:
            return column
        numbers = pd.to_numeric(column.astype(object).where(column.notna(), None))
        return numbers.astype("Int64" if self.gaps else "int64") if self.whole else numbers.astype("float64")


def _column(columns: Any, names: tuple[str, ...]) -> str | None:
    spelled = {column.lower(): column for column in columns}
    return next((spelled[name] for name in names if name in spelled), None)
