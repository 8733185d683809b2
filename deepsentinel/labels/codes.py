"""Codes in label files: the same text however they were stored, and how to tell a person which were not understood."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["code_texts", "counted", "each_once"]

_LISTED = 12
_NO_FRACTION = re.compile(r"\.0+$")
_LEADING_ZEROS = re.compile(r"^0+(?=\d)")


def each_once(values: Iterable[Any], of: Callable[[Any], Any], dtype: Any = object) -> np.ndarray:
    """`of` each value, asked once for all rows that have it: a country's parcels share a few hundred codes.

    >>> each_once(["a", "b", "a"], ord, "int64").tolist()
    [97, 98, 97]
    """
    where, kinds = pd.factorize(pd.Series(values), use_na_sentinel=False)
    return np.array([of(kind) for kind in kinds], dtype=dtype)[where]


def code_texts(values: Iterable[Any]) -> np.ndarray:
    """Codes as text whatever they were read as: 138, 138.0, " 0138" and "138" are one; missing ones are "".

    >>> code_texts([138, 138.0, " 0138", "BTH", None, float("nan")]).tolist()
    ['138', '138', '138', 'BTH', '', '']
    """
    return each_once(values, _text)


def _text(value: Any) -> str:
    text = "" if pd.isna(value) else str(value).strip()
    return _LEADING_ZEROS.sub("", _NO_FRACTION.sub("", text))


def counted(codes: np.ndarray, what: str) -> str:
    """Which codes, and how many rows have each, the most frequent first: the beginning of a sentence "not of ..".

    >>> counted(np.array(["x", "y", "y"], dtype=object), "crop code")
    "2 crop codes ('y' in 2 rows, 'x' in 1 row) are not in"
    """
    counts = pd.Series(codes).value_counts()
    # Equal counts in the order of the codes, so that the order of the rows does not show.
    counts = counts.sort_index(kind="stable").sort_values(ascending=False, kind="stable")
    listed = ", ".join(f"{code!r} in {count} row{'s' if count > 1 else ''}" for code, count in counts[:_LISTED].items())
    more = f" and {len(counts) - _LISTED} more" if len(counts) > _LISTED else ""
    subject, verb = (f"1 {what}", "is") if len(counts) == 1 else (f"{len(counts)} {what}s", "are")
    return f"{subject} ({listed}{more}) {verb} not in"
