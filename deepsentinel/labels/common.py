"""What every format of labels shares: how it is recognised, what it may be asked for, and the table it gives back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from deepsentinel.errors import InputError, ReadError, warn
from deepsentinel.geometries import Cleaned, SetAside, clean
from deepsentinel.legend import Legend

from .apart import whole_rows
from .ids import as_ids, geometry_ids, per_row
from .opening import LabelFile, Layer

__all__ = [
    "CLASS_NAME",
    "FIRST_COLUMNS",
    "Format",
    "LabelFile",
    "Layer",
    "Options",
    "aside_sentence",
    "check_level",
    "finish",
    "lookup",
    "warn_of_repairs",
    "year_span",
]

FIRST_COLUMNS = ("geometry", "ground_truth", "id", "valid_from", "valid_to")
"""What every label table has; `CLASS_NAME` and the source's own columns follow."""
CLASS_NAME = "class_name"
"""What the legend calls the class of a row; only where there is a legend. Unlike the attributes, which pandas loses
with many a step, a column stays."""


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
    `table.attrs["repairs"]` and `["set_aside"]`. Warns once of what was repaired, and once of all that was set aside.
    """
    count = len(table)
    columns = {str(name): table[name] for name in table.columns if name != table.geometry.name}
    ours = FIRST_COLUMNS if legend is None else (*FIRST_COLUMNS, CLASS_NAME)
    # A source's own column of one of our names is kept beside ours; most formats do not tell ID from id.
    own = {f"{name}_source" if name.lower() in ours else name: column for name, column in columns.items()}
    first = {
        "ground_truth": _numbers(ground_truth, table.index),
        "id": as_ids(geometry_ids(table) if id is None else id, table.index),
        "valid_from": _times(valid_from, table.index),
        "valid_to": _times(valid_to, table.index),
    }
    given = {"valid_from": valid_from, "valid_to": valid_to}
    notes = [*notes, *(note for name, asked in given.items() for note in _far(name, asked, first[name]))]
    # An own column that says the same as ours (an id that is called id) would only be there twice.
    own = {name: column for name, column in own.items() if not _repeats(name, column, first)}
    labels = gpd.GeoDataFrame(
        {**first, **own}, geometry=table.geometry.array, crs=table.crs, index=table.index
    ).reset_index(drop=True)
    labels = labels[["geometry", *first, *own]]
    repairs, set_aside = list(table.attrs.get("repairs", [])), SetAside.joined(table.attrs.get("set_aside"))
    aside = Counter(table.attrs.get("set_aside_counts") or Counter(entry["reason"] for entry in set_aside))
    count += aside.total()
    if repair:
        cleaned = clean(labels)
        at = np.array([entry["row"] for entry in cleaned.set_aside], dtype="int64")
        whole = whole_rows(table, at, [entry["reason"] for entry in cleaned.set_aside], labels["id"])
        rows = table.index  # the position in the file, where the reader knows it
        for entry in (*cleaned.repairs, *cleaned.set_aside):
            entry["row"] = int(rows[entry["row"]])
        labels = cleaned.table.reset_index(drop=True)
        repairs = repairs + cleaned.repairs
        set_aside = SetAside.joined(set_aside, SetAside(cleaned.set_aside, [whole] if len(whole) else []))
        aside.update(entry["reason"] for entry in cleaned.set_aside)
        warn_of_repairs(cleaned, file)
    if aside:
        warn(f"{file.path.name}: {aside_sentence(aside, count)}")
    labels["ground_truth"] = _whole(labels["ground_truth"])
    if legend is not None:
        names = labels["ground_truth"].map(legend.names).astype(object)
        labels.insert(len(FIRST_COLUMNS), CLASS_NAME, names)
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


def warn_of_repairs(cleaned: Cleaned, file: LabelFile) -> None:
    """Say how many shapes were mended, if any were."""
    if cleaned.repairs:
        warn(f"{file.path.name}: {cleaned.warnings[0]}.")  # the first sentence is of them


def aside_sentence(counts: Mapping[str, int], rows: int) -> str:
    """How many of the rows are not in the table, why, and where they are listed.

    >>> aside_sentence({"a ditch": 2, "no geometry": 1}, 10)
    "3 of 10 rows set aside: a ditch (2 rows); no geometry (1 row). They are listed in attrs['set_aside']."
    """
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    reasons = [why if len(ordered) == 1 else f"{why} ({n} row{'s' if n > 1 else ''})" for why, n in ordered]
    total = sum(counts.values())
    listed = "They are" if total > 1 else "It is"
    return f"{total} of {rows} rows set aside: {'; '.join(reasons)}. {listed} listed in attrs['set_aside']."


def _numbers(values: Any, index: pd.Index) -> pd.Series:
    column = per_row(values, index)
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


def _times(values: Any, index: pd.Index) -> pd.Series:
    """Naive UTC to the nanosecond, as all label tables have it; a date that does not fit is NaT, which is open."""
    column = per_row(pd.NaT if values is None else values, index)
    try:
        return _to_ns(column)
    except pd.errors.OutOfBoundsDatetime:
        # 9999-12-31 says in many a database that there is no end.
        return pd.Series([_moment(value) for value in column], index=index, dtype="datetime64[ns]")
    except (ValueError, TypeError, OverflowError) as error:
        raise _unreadable(error) from error


def _to_ns(column: pd.Series) -> pd.Series:
    try:
        # Not left to pandas to find out, which it does by the first of the texts: 0001-01-01 is none it expects.
        times = pd.to_datetime(column, format="ISO8601", utc=True)
    except pd.errors.OutOfBoundsDatetime:
        raise
    except ValueError:
        times = pd.to_datetime(column, utc=True)
    return times.dt.tz_localize(None).astype("datetime64[ns]")


def _moment(value: Any) -> pd.Timestamp:
    try:
        moment = pd.Timestamp(value)
        if moment.tzinfo is not None:
            moment = moment.tz_convert("UTC").tz_localize(None)
    except (ValueError, TypeError, OverflowError) as error:
        raise _unreadable(error) from error
    try:
        return moment.as_unit("ns")
    except pd.errors.OutOfBoundsDatetime:
        return pd.NaT  # type: ignore[return-value]  # the stubs know NaT as a class of its own


def _unreadable(error: Exception) -> ReadError:
    return ReadError(f"The dates of these labels cannot be read: {error}.")


def _far(name: str, given: Any, times: pd.Series) -> list[str]:
    """A note of the dates that were written and are open now."""
    lost = 0 if given is None else int((per_row(given, times.index).notna() & times.isna()).sum())
    return [f"{lost} rows whose {name} is outside of the years 1678 to 2261: taken as open"] if lost else []


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
