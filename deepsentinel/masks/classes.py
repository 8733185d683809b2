"""The column of classes of a label table -> codes: which are classes and which values, and what they are called.

All of it looks at the whole table, never at the part of it that is near a grid, so that all grids agree.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import pandas as pd

from deepsentinel.errors import InputError
from deepsentinel.geometries import clean
from deepsentinel.legend import Legend, LegendLike, as_legend, of_names, published

__all__ = ["MAX_CLASSES", "MAX_NUMBER", "ClassColumn", "checked", "stored_legend"]

# Of more codes than this no legend is made: nobody could read it, and it would travel with every mask.
MAX_CLASSES = 5000
MAX_NUMBER = np.iinfo("int32").max
# What `read_labels` calls the column that says in words what `ground_truth` says as a code.
NAMES, CODES = "class_name", "ground_truth"


def checked(labels: gpd.GeoDataFrame, value: str) -> gpd.GeoDataFrame:
    """The labels, sure to have a CRS and the column; its texts without blanks around them, empty ones missing.

    >>> from shapely import box
    >>> crops = gpd.GeoDataFrame({"crop": ["rye ", " "]}, geometry=[box(0, 0, 1, 1)] * 2, crs="EPSG:32631")
    >>> checked(crops, "crop")["crop"].tolist()
    ['rye', None]
    """
    if not isinstance(value, Hashable):
        raise InputError(
            f"value={value!r} is not the name of a column; give one name, such as value={_first(value)!r}."
        )
    if not isinstance(labels, gpd.GeoDataFrame) or not _sound(labels, value):
        clean(labels.iloc[:0] if isinstance(labels, gpd.GeoDataFrame) else labels, value=value)
    column = labels[value]
    if isinstance(column.dtype, pd.CategoricalDtype):
        present = column.cat.categories.to_series()
    elif column.dtype == object or isinstance(column.dtype, pd.StringDtype):
        present = column
    else:
        return labels
    if present.dtype == object:
        present = present[present.map(lambda entry: isinstance(entry, str)).astype(bool)]
    elif not isinstance(present.dtype, pd.StringDtype):
        return labels
    tidy = {text: text.strip() or None for text in pd.unique(present.dropna())}
    if all(text == kept for text, kept in tidy.items()):
        return labels
    entries: Any
    if column.dtype == object:
        entries = [tidy.get(entry, entry) if isinstance(entry, str) else entry for entry in column]
    else:
        number, texts = pd.factorize(column)
        entries = np.array([*(tidy[text] for text in texts), None], dtype=object)[number]
    # A shallow copy: the geometries are the same ones, and the given table keeps its own column.
    result = labels.copy(deep=False)
    result[value] = pd.Series(entries, index=labels.index, dtype=object)
    return result


def _sound(labels: gpd.GeoDataFrame, value: str) -> bool:
    """Whether `clean` would take it: that says what is wrong, and takes 2 ms."""
    try:
        return labels.crs is not None and value in labels.columns
    except AttributeError:
        return False


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else "crop"


@dataclass(frozen=True)
class ClassColumn:
    """The column of classes as numbers, for all rows; rows without one hold anything and are set aside later."""

    codes: np.ndarray
    """int64 codes as they stand in the mask (already shifted), or float64 values."""
    kind: Literal["class", "value"]
    """Whether they are codes or measured values."""
    legend: Legend | None
    """What the codes mean, shifted as they are; None for values, and for thousands of codes that nobody named."""
    present: tuple[int, ...]
    """The codes that occur, sorted; none for values."""
    shifted_by: int = 0
    """What was added to all codes to keep them apart from the background."""
    warnings: tuple[str, ...] = ()
    """What the user has to be told."""
    remarks: tuple[str, ...] = ()
    """What is written down with the masks, and is nothing to worry about."""

    @classmethod
    def of(cls, labels: gpd.GeoDataFrame, value: str, legend: LegendLike | None, background: int | None) -> ClassColumn:
        """The column `value` of labels that are `checked`; with `background=None` no code is shifted."""
        column, given = _as_plain(labels[value], value), as_legend(legend, name=value)
        if len(column) == 0 and (given is not None or stored_legend(labels, value, ()) is not None):
            # A legend says that these are classes; the type of a column without entries says nothing.
            column = column.astype("int64")
        if pd.api.types.is_float_dtype(column.dtype):
            values = column.to_numpy("float64", na_value=np.nan)
            return cls(values, "value", None, (), 0, _whole(values, value))
        missing, said, remarks = column.isna().to_numpy(), (), ()  # type: tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]
        if pd.api.types.is_integer_dtype(column.dtype):
            codes = column.fillna(0).to_numpy("int64") if missing.any() else column.to_numpy("int64")
            found = np.unique(codes[~missing])
            _check_codes(found, value)
            used, said = _legend_for(found, codes, missing, labels, value, given)
        else:
            # Each text is looked at once, however many rows have it.
            number, texts = pd.factorize(column)
            used = given or stored_legend(labels, value, texts)
            if used is None:
                used = Legend.of_texts(texts, name=value)
                remarks = (_numbered(value),)
            codes = np.append(_coded(texts, used, value), 0)[number]
            found = np.unique(codes[~missing])
        present = set(found.tolist())
        shift, taken = 0, present | set(used.codes if used is not None else ())
        while background is not None and background - shift in taken:
            shift += 1
        if background is not None and shift:
            said += (
                f"Class {background} of the labels is also the background, so all classes are shifted by {shift}: a"
                f" pixel of {background + shift} is class {background}. The mask's legend is shifted too; choose"
                " another background= to keep the codes.",
            )
        shifted = used.shifted(shift) if used is not None and shift else used
        return cls(
            codes + shift, "class", shifted, tuple(sorted(code + shift for code in present)), shift, said, remarks
        )


def stored_legend(labels: gpd.GeoDataFrame, value: str, classes: Any) -> Legend | None:
    """The legend that travels with the table, if it knows all these codes, or names all these texts.

    It is that of `ground_truth`: the codes of any other column mean something else, even where they are the same.
    """
    text = labels.attrs.get("legend") if value == CODES else None
    stored = _from_json(text) if text else None
    if stored is None:
        return None
    return stored if set(classes) <= (set(stored.codes) | set(stored.numbers)) else None


@lru_cache(maxsize=16)
def _from_json(text: str) -> Legend:
    return Legend.from_json(text)


def _as_plain(column: pd.Series, value: str) -> pd.Series:
    """The column as floats, integers or texts, whatever it is wrapped in."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        kind = column.cat.categories.dtype
        column = column.astype("Int64" if pd.api.types.is_integer_dtype(kind) and column.hasnans else kind)
    if column.dtype == object:
        column = column.infer_objects()
    if pd.api.types.is_bool_dtype(column.dtype):
        return column.astype("Int64" if column.hasnans else "int64")
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_complex_dtype(column.dtype):
        return column
    present = column.dropna()
    seen = sorted({type(entry).__name__ for entry in present}) if column.dtype == object else [str(column.dtype)]
    if isinstance(column.dtype, pd.StringDtype) or seen in ([], ["str"]):
        return column
    if set(seen) <= {"int", "int64", "int32", "bool"}:
        return column.astype("Int64")
    raise InputError(
        f"Column {value!r} holds {' and '.join(seen)} ({column.dtype}); classes are whole numbers or texts, and values"
        f" to regress are floats. As texts, missing ones kept: labels[{value!r}].map(str, na_action='ignore')."
    )


def _whole(values: np.ndarray, value: str) -> tuple[str, ...]:
    """A column of integers becomes one of floats as soon as one of them is missing."""
    finite = values[np.isfinite(values)]
    # One row alone, such as that of a window, tells nothing: a yield may well be 6.0.
    if len(values) < 2 or not finite.size or (finite != np.trunc(finite)).any():
        return ()
    return (
        f"Column {value!r} holds floats, and all of them are whole numbers: taken as values to regress. If they are"
        f" codes: labels[{value!r}] = labels[{value!r}].astype('Int64'), which may hold missing ones.",
    )


def _numbered(value: str) -> str:
    return (
        f"The texts of {value!r} are numbered in their sorted order, for this table alone. legend=[..], with the texts"
        " of all tables in one order, gives each the same number in all of them."
    )


def _legend_for(
    found: np.ndarray,
    codes: np.ndarray,
    missing: np.ndarray,
    labels: gpd.GeoDataFrame,
    value: str,
    given: Legend | None,
) -> tuple[Legend | None, tuple[str, ...]]:
    """The given legend, or the one that travels with the table if it knows these codes, or the codes as they are.

    None where there are so many codes that they are numbers of something rather than classes.
    """
    if given is None:
        if (stored := stored_legend(labels, value, found.tolist())) is not None:
            return stored, ()
        if len(found) > MAX_CLASSES:
            return None, ()
        if value == CODES and NAMES in labels.columns and not labels.attrs.get("legend"):
            return _named(codes[~missing], labels[NAMES][~missing], found)
        return Legend.of_codes(found), ()
    if lost := sorted(set(found.tolist()) - set(given.codes)):
        raise InputError(
            f"Column {value!r} holds {', '.join(map(str, lost[:5]))}{' ..' if len(lost) > 5 else ''}, which the legend"
            f" {given.name!r} does not know; it has {', '.join(map(str, given.codes[:12]))}. Leave out legend= to"
            " take the codes as they are."
        )
    return given, ()


def _named(codes: np.ndarray, names: pd.Series, found: np.ndarray) -> tuple[Legend, tuple[str, ...]]:
    """The legend that the names beside the codes make: tables that were put together have lost the one they had."""
    number, texts = pd.factorize(names)
    pairs = np.unique(codes[number >= 0] * len(texts) + number[number >= 0])
    of_code: dict[int, list[str]] = {}
    for code, at in zip(*(part.tolist() for part in np.divmod(pairs, max(len(texts), 1))), strict=True):
        of_code.setdefault(code, []).append(str(texts[at]).strip())
    of_code = {code: sorted(set(own) - {""}) or [str(code)] for code, own in of_code.items()}
    said = tuple(
        f"Class {code} has {len(own)} names, such as {own[0]!r} and {own[1]!r}, and is one class in the mask. Tables"
        " whose codes mean different things were put together; give one of them other codes."
        for code, own in of_code.items()
        if len(own) > 1
    )
    one = {int(code): " / ".join(of_code.get(int(code), [str(code)])[:3]) for code in found}
    # The published legend as a whole: then masks of tables that differ in their classes are of one kind.
    return published(one) or of_names(one), said[:3]


def _coded(texts: pd.Index | np.ndarray, legend: Legend, value: str) -> np.ndarray:
    by_name = {str(code): code for code in legend.codes} | {name.strip(): code for code, name in legend.names.items()}
    if lost := sorted(text for text in texts if text not in by_name):
        raise InputError(
            f"Column {value!r} holds {', '.join(map(repr, lost[:5]))}{' ..' if len(lost) > 5 else ''}, which the legend"
            f" {legend.name!r} does not name. Leave out legend= to have the texts numbered."
        )
    return np.array([by_name[text] for text in texts], dtype="int64")


def _check_codes(codes: np.ndarray, value: str) -> None:
    lowest, highest = (int(codes.min()), int(codes.max())) if codes.size else (0, 0)
    if lowest < 0 or highest >= MAX_NUMBER:
        wrong, why = (lowest, "is negative") if lowest < 0 else (highest, "does not fit 32 bits")
        raise InputError(
            f"Class {wrong} in column {value!r} {why}. Turn the codes into texts, which are then numbered from 1:"
            f" labels[{value!r}] = labels[{value!r}].astype('string')."
        )
