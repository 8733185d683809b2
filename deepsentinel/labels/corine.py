"""CORINE Land Cover: polygons of 25 ha and more, with a code of three digits for each status year."""

from __future__ import annotations

import re
from collections.abc import Sequence

import geopandas as gpd
import pandas as pd

from deepsentinel.errors import InputError
from deepsentinel.legend import corine

from .common import Format, LabelFile, Layer, Options, check_level, finish, lookup, year_span
from .opening import concat

__all__ = ["CORINE"]

_CODE = re.compile(r"(?:code|clc)_?(\d\d)(?:_?code)?", re.I)
_OTHER_CODE = ("clc_code", "clccode", "code_clc")
_YEAR_IN_NAME = re.compile(r"(?:clc|corine|u)[a-z_-]*((?:19|20)\d\d)", re.I)


def status_columns(columns: Sequence[str]) -> dict[int, str]:
    """The columns of codes by status year, upper or lower case, with or without an underscore.

    >>> status_columns(["ID", "Code_18", "code_06", "CLC12", "Area_Ha"])
    {2018: 'Code_18', 2006: 'code_06', 2012: 'CLC12'}
    """
    found = {}
    for column in columns:
        if match := _CODE.fullmatch(column):
            number = int(match[1])
            year = (1900 if number >= 85 else 2000) + number
            if 1985 <= year <= 2050:
                found[year] = column
    return found


def _recognises(layer: Layer, file: LabelFile) -> bool:
    return bool(status_columns(layer.columns)) or lookup(layer.columns, *_OTHER_CODE) is not None


def _read(file: LabelFile, layers: Sequence[Layer], options: Options) -> gpd.GeoDataFrame:
    """The status of one year; of a file with several (a layer of changes) the latest, unless `year` names another."""
    level = check_level(3 if options.level is None else options.level, (1, 2, 3), "CORINE")
    by_layer = [(layer, status_columns(layer.columns)) for layer in layers]
    years = sorted({year for _, columns in by_layer for year in columns})
    year = options.year if options.year is not None else (years[-1] if years else _year_of(file, layers))
    if years and year not in years:
        raise InputError(f"{file.path.name} has no status of {year}, but of {', '.join(map(str, years))}.")
    tables = []
    for layer, columns in by_layer:
        column = columns.get(year or 0) or lookup(layer.columns, *_OTHER_CODE)
        if column is not None:
            tables.append(file.read(layer).rename(columns={column: "_code"}).assign(_column=column))
    table = concat(tables)
    codes = pd.to_numeric(table.pop("_code").astype("string").str.strip(), errors="coerce")
    column = str(table.pop("_column").iloc[0]) if len(table) else "code"
    legend = corine(3)
    known = codes.isin(legend.codes)
    notes = []
    if not known.all():
        # 999 and the like: the publisher's own word for "not classified". They keep their rows, set aside.
        odd = ", ".join(sorted({"missing" if pd.isna(code) else f"{code:.0f}" for code in codes[~known]}))
        notes.append(f"{int((~known).sum())} rows whose code is not one of the 44: {odd}")
    truth = codes.where(known).astype("Int64")
    table[column] = codes.astype("Int64")
    there = truth.notna()
    if level < 3:
        truth = truth // 10 ** (3 - level)
    begin, end = year_span(year)
    identity = lookup(table.columns, "id", "objectid", "fid")
    labels = finish(
        table,
        kind="corine",
        file=file,
        ground_truth=truth.where(there),
        id=None if identity is None else table[identity],
        valid_from=begin,
        valid_to=end,
        legend=legend.at(level),
        notes=[*notes, *([f"status year {year}, column {column}"] if year else [])],
    )
    return labels


def _year_of(file: LabelFile, layers: Sequence[Layer]) -> int | None:
    """Of a file whose column tells no year: as its name or its layer's does."""
    for text in (file.path.stem, *(layer.name for layer in layers)):
        if match := _YEAR_IN_NAME.search(text):
            return int(match[1])
    return None


CORINE = Format(
    name="corine",
    looks_for="a column such as CODE_18, Code_12 or CLC18 (or clc_code)",
    recognises=_recognises,
    read=_read,
    takes=frozenset({"level", "year"}),
)
