"""Our own table, or any column that the user names: a class, a number or a text per row, and when it was true."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import geopandas as gpd
import pandas as pd

from deepsentinel.errors import InputError
from deepsentinel.legend import Legend

from .codes import each_once
from .common import CLASS_NAME, Format, LabelFile, Layer, Options, finish, lookup, year_span
from .opening import concat

__all__ = ["CANONICAL", "read_column"]


# A shapefile cuts names after ten characters.
_GROUND_TRUTH = ("ground_truth", "ground_tru")
# Texts that are whole numbers are these numbers, unless they could not come back the same or are too large for a mask.
_CODE = re.compile(r"0|[1-9]\d{0,8}")
# What numbers are that come as Python's own, because some are missing or a layer has none.
_STORED = {"boolean": "boolean", "integer": "Int64", "floating": "float64", "mixed-integer-float": "float64"}


def _recognises(layer: Layer, file: LabelFile) -> bool:
    return lookup(layer.columns, *_GROUND_TRUTH) is not None


def _read(file: LabelFile, layers: Sequence[Layer], options: Options) -> gpd.GeoDataFrame:
    names: Sequence[str] = _GROUND_TRUTH
    if options.value is not None:  # which is looked for in all layers, whatever else they have
        names, layers = (options.value,), file.layers
    chosen = {layer: spelled for layer in layers if (spelled := lookup(layer.columns, *names)) is not None}
    if not chosen:
        found = "; ".join(f"{layer.name!r} has {', '.join(layer.columns) or 'no columns'}" for layer in layers)
        raise InputError(f"{file.path.name} has no column {names[0]!r}: layer {found}. Name the one with value='...'.")
    return read_column(file, chosen, names[0], options)


def read_column(
    file: LabelFile,
    chosen: Mapping[Layer, str],
    wanted: str,
    options: Options,
    *,
    kind: str = "canonical",
    classes: bool = False,
    notes: Sequence[str] = (),
) -> gpd.GeoDataFrame:
    """The label table of one column, `wanted`; `chosen` tells how each layer spells it.

    Text classes are numbered from 1 in their alphabetical order; the legend tells which is which. All texts of the file
    are numbered, also those of rows elsewhere, so that every part of it has the same numbers. With `classes` floats
    that are whole are codes too.
    """
    parts = [file.read(layer).rename(columns={spelled: wanted}) for layer, spelled in chosen.items()]
    table = concat(parts)
    if classes and (named := lookup(table.columns, CLASS_NAME)) not in (None, wanted):
        table = table.rename(columns={named: CLASS_NAME})  # as it is called where it is the legend of codes
    truth, legend, notes = table[wanted], None, list(notes)
    if truth.dtype == object and (stored := _STORED.get(pd.api.types.infer_dtype(truth, skipna=True))):
        truth = truth.astype(stored)
    if classes and pd.api.types.is_float_dtype(truth.dtype) and (truth.dropna() % 1 == 0).all():
        truth = truth.astype("Int64")
    if not pd.api.types.is_numeric_dtype(truth.dtype):
        known = {
            layer: part[wanted] if file.area is None and layer.driver != "csv" else file.column(layer, spelled)
            for (layer, spelled), part in zip(chosen.items(), parts, strict=True)
        }
        texts = {str(text).strip() for column in known.values() for text in column.dropna().unique()} - {""}
        if texts and all(map(_CODE.fullmatch, texts)):
            codes = {text: int(text) for text in texts}
            notes.append(f"the texts of {wanted!r} are whole numbers, and taken as these")
        elif any(
            pd.api.types.is_numeric_dtype(part[wanted].dtype) and column.notna().any()
            for part, column in zip(parts, known.values(), strict=True)
        ):
            raise InputError(
                f"{file.path.name}: of the layers {', '.join(repr(layer.name) for layer in known)} some hold numbers in"
                f" {wanted!r} and others texts, which cannot be the classes of one table. Choose with layer='...'."
            )
        else:
            legend = Legend.of_texts(texts, name=wanted)
            codes = legend.numbers
            notes.append(f"text classes of {wanted!r} numbered 1 to {len(codes)}")
        found = truth.astype(object).where(truth.notna(), "")
        truth = pd.Series(each_once(found, lambda text: codes.get(str(text).strip(), -1)), dtype="int64")
        truth = truth.astype("Int64").where(truth >= 0)
    year = lookup(table.columns, "year", "jaar")
    begin, end = lookup(table.columns, "valid_from"), lookup(table.columns, "valid_to")
    spans = None
    if begin is None and end is None and (options.year is not None or year is not None):
        years = pd.Series([options.year] * len(table)) if options.year is not None else _years(table[year])
        spans = [year_span(None if pd.isna(number) else int(number)) for number in years]
    identity = lookup(table.columns, "id", "fid", "ids")
    return finish(
        table,
        kind=kind,
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
    looks_for="a column ground_truth (a CSV also geometry as WKT and crs, or lon and lat)",
    recognises=_recognises,
    read=_read,
    takes=frozenset({"value", "year"}),
)
