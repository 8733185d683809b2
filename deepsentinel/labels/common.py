"""What every format of labels shares: how it is recognised, what it may be asked for, and the table it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from deepsentinel.errors import InputError, ReadError, warn
from deepsentinel.geometries import clean
from deepsentinel.legend import Legend

from .opening import LabelFile, Layer

__all__ = ["FIRST_COLUMNS", "Format", "LabelFile", "Layer", "Options", "check_level", "finish", "lookup", "year_span"]

FIRST_COLUMNS = ("geometry", "ground_truth", "id", "valid_from", "valid_to")
"""What every label table has; the source's own columns follow."""


@dataclass(frozen=True)
class Options:
    """What a reader may be asked for beyond the place. None: as the format does it by itself."""

    level: int | None = None
    """How fine the classes are, of those a legend knows at several levels."""
    value: str | None = None
    """The column, or the quantity, that becomes `ground_truth`."""
    year: int | None = None
    """The year, of a file that holds several or tells none."""
    tags: Any = None
    """A table of tags and classes in place of ours: a DataFrame or the path of a CSV."""
    flatten: bool | None = None
    """Cut what lies under another label out of it, so that none overlap."""

    def given(self) -> list[str]:
        """Names of the options that were asked for."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]


@dataclass(frozen=True)
class Format:
    """One way in which labels are published."""

    name: str
    """What `kind=` calls it."""
    looks_for: str
    """The columns it is known by, in words, for the error that says why nothing fitted."""
    recognises: Callable[[Layer, LabelFile], bool]
    """Whether this layer of this file is one of it. `layer.has("code_18")` looks for a column whatever its case."""
    read: Callable[[LabelFile, Sequence[Layer], Options], gpd.GeoDataFrame]
    """The label table of the layers that were recognised (or asked for by name), in the order of the file. It gets its
    rows by `file.read(layer, columns=..., where=...)`, already narrowed to the area, and returns what `finish` gives.
    """
    takes: frozenset[str] = frozenset()
    """Names of the `Options` it understands; others are an error."""


def lookup(columns: Iterable[str], *names: str) -> str | None:
    """The first of `names` that is among the columns, as it is spelled there; upper and lower case are the same.

    >>> lookup(["CODE_18", "AREA_HA"], "code_24", "code_18")
    'CODE_18'
    """
    spelled: dict[str, str] = {}
    for column in columns:
        spelled.setdefault(str(column).lower(), column)
    return next((spelled[name.lower()] for name in names if name.lower() in spelled), None)


def year_span(year: int | None) -> tuple[pd.Timestamp, pd.Timestamp]:
    """The first moment of a year, and the first of the next; NaT twice where no year is known.

    >>> [str(moment.date()) for moment in year_span(2018)]
    ['2018-01-01', '2019-01-01']
    """
    if year is None:
        return pd.NaT, pd.NaT  # type: ignore[return-value]  # the stubs know NaT as a class of its own
    return pd.Timestamp(year, 1, 1), pd.Timestamp(year + 1, 1, 1)


def finish(
    table: gpd.GeoDataFrame,
    *,
    kind: str,
    file: LabelFile,
    ground_truth: Any,
    id: Any = None,  # as the column is called
    valid_from: Any = None,
    valid_to: Any = None,
    legend: Legend | None = None,
    notes: Sequence[str] = (),
    repair: bool = True,
) -> gpd.GeoDataFrame:
    """The canonical label table of what a reader read: fixed columns first, cleaned, with its story in `attrs`.

    `ground_truth`, `id`, `valid_from` and `valid_to` are values (one, or one a row) or None; a row whose ground truth
    is None, NA or NaN is set aside. `repair=False` where the reader has cleaned the geometries itself and told so in
    `table.attrs["repairs"]` and `["set_aside"]`. Warns, in one sentence each, of what was repaired and set aside.
    """
    count = len(table)
    columns = {str(name): table[name] for name in table.columns if name != table.geometry.name}
    # A source's own column of one of our names is kept beside ours; most formats do not tell ID from id.
    own = {f"{name}_source" if name.lower() in FIRST_COLUMNS else name: column for name, column in columns.items()}
    first = {
        "ground_truth": _numbers(ground_truth, table.index),
        "id": _ids(id, table.index),
        "valid_from": _times(valid_from, table.index),
        "valid_to": _times(valid_to, table.index),
    }
    # An own column that says the same as ours (an id that is called id) would only be there twice.
    own = {name: column for name, column in own.items() if not _repeats(name, column, first)}
    labels = gpd.GeoDataFrame(
        {**first, **own}, geometry=table.geometry.array, crs=table.crs, index=table.index
    ).reset_index(drop=True)
    labels = labels[["geometry", *first, *own]]
    repairs, set_aside = list(table.attrs.get("repairs", [])), list(table.attrs.get("set_aside", []))
    if repair:
        cleaned = clean(labels)
        rows = table.index  # the position in the file, where the reader knows it
        for entry in (*cleaned.repairs, *cleaned.set_aside):
            entry["row"] = int(rows[entry["row"]])
        labels = cleaned.table.reset_index(drop=True)
        repairs, set_aside = repairs + cleaned.repairs, set_aside + cleaned.set_aside
        for sentence in cleaned.warnings:
            warn(f"{file.path.name}: {sentence}.")
    labels["ground_truth"] = _whole(labels["ground_truth"])
    labels.attrs = {
        "kind": kind,
        "source": str(file.path),
        "legend": legend.to_json() if legend is not None else None,
        "repairs": repairs,
        "set_aside": set_aside,
        "notes": [*table.attrs.get("notes", []), *notes],
    }
    if count == 0:
        warn(f"{file.path.name}: {file.nothing()}")
    return labels


def _per_row(values: Any, index: pd.Index) -> pd.Series:
    if isinstance(values, pd.Series):
        return pd.Series(values.array, index=index)
    if np.ndim(values) == 1:
        return pd.Series(values, index=index)
    return pd.Series([values] * len(index), index=index)


def _numbers(values: Any, index: pd.Index) -> pd.Series:
    column = _per_row(values, index)
    if pd.api.types.is_bool_dtype(column.dtype):
        return column.astype("Int64")
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column
    return pd.to_numeric(column, errors="coerce")


def _whole(column: pd.Series) -> pd.Series:
    """int64 where every number is whole and the source wrote integers (missing ones made floats of them), else float64.

    Regression labels stay float even where all happen to be whole: they came as floats without a gap.
    """
    if pd.api.types.is_integer_dtype(column.dtype):
        return column.astype("int64")
    return column.astype("float64")


def _ids(values: Any, index: pd.Index) -> pd.Series:
    """int64 where all ids are whole numbers (also such that are written as floats or text), text elsewhere."""
    if values is None:
        return pd.Series(np.arange(1, len(index) + 1, dtype="int64"), index=index)
    column = _per_row(values, index)
    missing = column.isna()
    if not missing.any() and not pd.api.types.is_bool_dtype(column.dtype):
        if pd.api.types.is_integer_dtype(column.dtype):
            return column.astype("int64")
        if pd.api.types.is_float_dtype(column.dtype):
            # Beyond this a float no longer tells neighbouring integers apart.
            if bool(((column % 1 == 0) & (column.abs() < 2**53)).all()):
                return column.astype("int64")
        else:
            text = column.astype(str)
            # Text with leading zeros, or too long for 64 bits, would not come back the same.
            if len(text) and bool(text.str.fullmatch(r"0|-?[1-9]\d{0,17}").all()):
                return text.astype("int64")
    text = column.astype(object).where(~missing, "").astype(str).astype(object)
    return text


def _times(values: Any, index: pd.Index) -> pd.Series:
    column = _per_row(pd.NaT if values is None else values, index)
    try:
        times = pd.to_datetime(column, errors="raise", utc=True)
    except (ValueError, TypeError, OverflowError) as error:
        raise ReadError(f"The dates of these labels cannot be read: {error}.") from error
    return times.dt.tz_localize(None).astype("datetime64[ns]")


def _repeats(name: str, column: pd.Series, first: dict[str, pd.Series]) -> bool:
    ours = name.removesuffix("_source").lower()
    if not name.endswith("_source") or ours not in first:
        return False
    mine = first[ours]
    return bool((mine.astype(str).to_numpy() == column.astype(str).to_numpy()).all())


def check_level(level: int, levels: Sequence[int], kind: str) -> int:
    """The level, or an error that names those there are."""
    if isinstance(level, bool) or level not in levels:
        raise InputError(f"level={level!r}: {kind} has the levels {', '.join(map(str, levels))}.")
    return level
