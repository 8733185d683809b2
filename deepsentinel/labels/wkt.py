"""CSV with geometries as WKT, where each row may be in a CRS of its own."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely

from deepsentinel.errors import InputError, ReadError, warn

from .layers import Layer, open_bytes

__all__ = ["csv_layer", "read_csv"]

GEOMETRY_COLUMNS = ("geometry", "wkt", "geom", "the_geom", "wkt_geom", "way")
CRS_COLUMNS = ("crs", "epsg", "srid")
_CHUNK_ROWS = 100_000
_EWKT = r"(?i)\s*SRID=(\d+);"
# Without leading zeros: those belong to codes and ids, which are text.
_NUMBER = r"\s*[-+]?(?:0|[1-9]\d*)(?:\.\d*)?(?:[eE][-+]?\d+)?\s*"
# A polygon with many corners makes a cell longer than the csv module expects.
_LONGEST_CELL = 2**30


def csv_layer(source: str) -> Layer:
    """The columns of a CSV, from its first line; without one that holds WKT it is a layer without geometries."""
    columns = _header(source)[1]
    name = source.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    geometry = _column(columns, GEOMETRY_COLUMNS)
    others = tuple(column for column in columns if column != geometry)
    return Layer(name, source, "csv", others, None, None if geometry is None else "Unknown")


def read_csv(
    source: str,
    crs: pyproj.CRS | None,
    name: str,
    keep: Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame] = lambda table: table,
) -> gpd.GeoDataFrame:
    """All rows as one table, indexed by their position in the file; `keep` narrows each part before it is kept.

    A row's CRS is that of its column `crs` (an EPSG number or `EPSG:...`), of its EWKT, or `crs`. Where rows have
    several the others are brought into the most frequent one, with a warning. Rows that cannot be placed go into
    `attrs["set_aside"]`.
    """
    delimiter, columns = _header(source)
    geometry, told = _column(columns, GEOMETRY_COLUMNS), _column(columns, CRS_COLUMNS)
    assert geometry is not None
    parts: dict[pyproj.CRS, list[gpd.GeoDataFrame]] = {}
    set_aside: list[dict[str, Any]] = []
    systems: dict[str, pyproj.CRS | None] = {}
    for chunk in _chunks(source, delimiter, name):
        shapes, own = _shapes(chunk[geometry])
        texts = own.where(own.notna(), chunk[told] if told else None).astype(object)
        for text in texts.dropna().unique():
            systems.setdefault(text, _known(text))
        faults = _faults(chunk[geometry], shapes, texts, systems, crs is not None)
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
        for text in [*texts[sound].dropna().unique(), None]:
            chosen = sound & (texts.isna() if text is None else texts == text).to_numpy()
            system = crs if text is None else systems[text]
            if chosen.any() and system is not None:
                part = gpd.GeoDataFrame(rows[chosen], geometry=shapes[chosen], crs=system)
                parts.setdefault(system, []).append(keep(part))
    if not parts and set_aside and all(entry["reason"] == "no crs" for entry in set_aside):
        raise InputError(
            f"{name} does not tell its CRS: it needs a column crs with an EPSG number in each row. If you know it, say"
            " so: read_labels(path, crs='EPSG:...')."
        )
    return _joined(parts, set_aside, [column for column in columns if column != geometry], name)


def _joined(
    parts: dict[pyproj.CRS, list[gpd.GeoDataFrame]], set_aside: list[dict[str, Any]], columns: list[str], name: str
) -> gpd.GeoDataFrame:
    counts = {system: sum(map(len, tables)) for system, tables in parts.items()}
    notes = []
    if not parts:
        table = gpd.GeoDataFrame({column: [] for column in columns}, geometry=[], crs="EPSG:4326")
    else:
        # The most frequent one; among equals the one that comes first by its name, whatever the order of the rows.
        target = min(counts, key=lambda system: (-counts[system], system.to_string()))
        tables = [pd.concat(same) for same in parts.values()]
        table = pd.concat([part if part.crs == target else part.to_crs(target) for part in tables]).sort_index()
        table = gpd.GeoDataFrame(table, geometry="geometry", crs=target)
        others = {system: count for system, count in counts.items() if system != target and count}
        if others:
            listed = ", ".join(f"{count} rows from {system.to_string()}" for system, count in others.items())
            notes = [f"{len(others) + 1} CRS in one file: {listed} reprojected to {target.to_string()}"]
    for column in table.columns.drop("geometry"):
        table[column] = _numbers(table[column])
    reasons = pd.Series([entry["reason"] for entry in set_aside], dtype=object).value_counts()
    warned = [f"{count} rows set aside, {reason}" for reason, count in reasons.items()]
    for sentence in [*notes, *warned]:
        warn(f"{name}: {sentence}.")
    table.attrs = {"notes": notes, "set_aside": set_aside}
    return table


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
    faults[missing] = np.where(texts.isna()[missing], "no geometry", "WKT that cannot be read")
    return faults


def _known(text: str) -> pyproj.CRS | None:
    """`32631`, `32631.0` and `EPSG:32631` -> the CRS; None where there is no such."""
    number = text.strip().removesuffix(".0")
    try:
        return pyproj.CRS.from_epsg(int(number)) if number.isdigit() else pyproj.CRS.from_user_input(text.strip())
    except pyproj.exceptions.CRSError:
        return None


def _numbers(column: pd.Series) -> pd.Series:
    """Text that is numbers throughout becomes numbers, whole ones integers; gaps stay gaps."""
    there = column.dropna().astype(str)
    if not len(there) or not there.str.fullmatch(_NUMBER).all():
        return column
    numbers = pd.to_numeric(column.astype(object).where(column.notna(), None))
    whole = there.str.fullmatch(r"\s*[-+]?\d{1,18}\s*").all()
    return numbers.astype("Int64" if column.isna().any() else "int64") if whole else numbers.astype("float64")


def _column(columns: Any, names: tuple[str, ...]) -> str | None:
    spelled = {column.lower(): column for column in columns}
    return next((spelled[name] for name in names if name in spelled), None)
