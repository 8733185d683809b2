"""Our own table, or any column that the user names: a class, a number or a text per row, and when it was true."""

from __future__ import annotations

from collections.abc import Sequence

import geopandas as gpd
import pandas as pd

from deepsentinel.errors import InputError
from deepsentinel.legend import Legend

from .codes import each_once
from .common import Format, LabelFile, Layer, Options, finish, lookup, year_span
from .opening import concat

__all__ = ["CANONICAL"]


# A shapefile cuts names after ten characters. Codes come before names: with them classes keep their numbers.
_GROUND_TRUTH = ("ground_truth", "ground_tru", "class_name", "class", "label", "landcover", "land_cover")


def _recognises(layer: Layer, file: LabelFile) -> bool:
    return lookup(layer.columns, *_GROUND_TRUTH) is not None


def _read(file: LabelFile, layers: Sequence[Layer], options: Options) -> gpd.GeoDataFrame:
    """Text classes are numbered from 1 in their alphabetical order; the legend tells which is which.

    All texts of the file are numbered, also those of rows elsewhere, so that every part of it has the same numbers.
    """
    names = (options.value,) if options.value is not None else _GROUND_TRUTH
    wanted = names[0]
    chosen = [layer for layer in layers if lookup(layer.columns, *names) is not None]
    if not chosen:
        found = "; ".join(f"{layer.name!r} has {', '.join(layer.columns) or 'no columns'}" for layer in layers)
        raise InputError(f"{file.path.name} has no column {wanted!r}: layer {found}. Name the one with value='...'.")
    spellings = [str(lookup(layer.columns, *names)) for layer in chosen]
    parts = [
        file.read(layer).rename(columns={spelled: wanted}) for layer, spelled in zip(chosen, spellings, strict=True)
    ]
    table = concat(parts)
    truth = table[wanted]
    if truth.dtype == object and pd.api.types.infer_dtype(truth, skipna=True) == "boolean":
        truth = truth.astype("boolean")  # as yes and no come, where some are missing
    legend = None
    # What a column of another name means is a guess, and said.
    taken = sorted({name for name in spellings if options.value is None and name.lower() not in _GROUND_TRUTH[:2]})
    notes = [f"the column {name!r} was taken as the classes (value='...' names another)" for name in taken]
    if not pd.api.types.is_numeric_dtype(truth.dtype):
        known = [
            part[wanted] if file.area is None and layer.driver != "csv" else file.column(layer, spelled)
            for layer, part, spelled in zip(chosen, parts, spellings, strict=True)
        ]
        legend = Legend.of_texts((text for texts in known for text in texts.unique()), name=wanted)
        codes = {name: code for code, name in legend.names.items()}
        texts = truth.astype(object).where(truth.notna(), "")
        truth = pd.Series(each_once(texts, lambda text: codes.get(str(text).strip(), 0)), dtype="int64")
        truth = truth.astype("Int64").where(truth > 0)
        notes.append(f"text classes of {wanted!r} numbered 1 to {len(codes)}")
    year = lookup(table.columns, "year", "jaar")
    begin, end = lookup(table.columns, "valid_from"), lookup(table.columns, "valid_to")
    spans = None
    if begin is None and end is None and (options.year is not None or year is not None):
        years = pd.Series([options.year] * len(table)) if options.year is not None else _years(table[year])
        spans = [year_span(None if pd.isna(number) else int(number)) for number in years]
    identity = lookup(table.columns, "id", "fid", "ids")
    return finish(
        table,
        kind="canonical",
        file=file,
        ground_truth=truth,
        id=None if identity is None else table[identity],
        valid_from=table[begin] if begin else [span[0] for span in spans] if spans else None,
        valid_to=table[end] if end else [span[1] for span in spans] if spans else None,
        legend=legend,
        notes=notes,
    )


def _years(column: pd.Series) -> pd.Series:
    years = pd.to_numeric(column, errors="coerce")
    years = years.astype("float64")
    # What is no year (a season's number, a code) says nothing of when.
    return years.where(years.between(1900, 2200))


CANONICAL = Format(
    name="canonical",
    looks_for="a column ground_truth, class_name, class or label (a CSV also geometry as WKT, and crs)",
    recognises=_recognises,
    read=_read,
    takes=frozenset({"value", "year"}),
)
