"""Crop codes as farmers' declarations write them -> classes of the common crop legend, and what was not understood.

A code that our table lacks is never left out: it takes the class of the group that the declaration itself puts it in,
where that says enough, or else "Unknown or other", and a sentence tells which codes those were and on how many rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from deepsentinel.legend import crops, source_codes

from .codes import code_texts, counted, each_once

__all__ = ["Classified", "hcat_class", "hcat_classes", "national_classes", "year_in"]

UNKNOWN_HCAT = "3399000000"
ANY_CROP_HCAT = "3300000000"
_HCAT_DIGITS = 10

# Dates inside a name are of its export, but for the first of January, by which whole years are written.
_DATE = re.compile(r"(?<!\d)(?:\d{4}[-_.]\d{2}[-_.]\d{2}|\d{2}[-_.]\d{2}[-_.]\d{4}|(?:19|20)\d{6})(?!\d)")
_NEW_YEAR = re.compile(r"(?<!\d)((?:19|20)\d{2})[-_.]01[-_.]01(?!\d)")
_YEAR = re.compile(r"(?<!\d)((?:19[89]|20[0-4])\d)(?!\d)")


@dataclass(frozen=True)
class Classified:
    """The class of each row, at the finest level of the crop legend."""

    classes: np.ndarray
    """int64; 0 where `missing`."""
    missing: np.ndarray
    """Whether no code is written at all."""
    notes: list[str]
    """A sentence for each way in which codes were not understood."""


def national_classes(
    codes: Iterable[Any], nation: str, *, groups: Iterable[Any] | None = None, of_group: Mapping[str, int] | None = None
) -> Classified:
    """Classes of a country's codes: `nation` is a column of the crop table, `at`, `fr`, `nl`, `vlg` or `de`.

    `groups` is the declaration's own coarser code or name of each row, and `of_group` its class; both are for codes
    that the table does not have.

    >>> found = national_classes(["BTH", "Z9Z", "Z9Z"], "fr", groups=["1", "1", "99"], of_group={"1": 1199})
    >>> found.classes.tolist()
    [1101, 1199, 7199]
    """
    texts = code_texts(codes)
    known, names, unknown = source_codes("crops", nation), crops().names, _unknown_class()
    classes = each_once(texts, lambda code: known.get(code, 0), "int64")
    missing = texts == ""
    lost = (classes == 0) & ~missing
    notes = []
    if lost.any() and groups is not None and of_group:
        rescued = np.where(lost, each_once(code_texts(groups), lambda group: of_group.get(group, 0), "int64"), 0)
        for number in np.unique(rescued[rescued > 0]):
            rows = rescued == number
            lost_codes, name = counted(texts[rows], "crop code"), names[int(number)]
            notes.append(f"{lost_codes} our table; by the group they are declared in taken as {name!r}")
        classes = np.where(rescued > 0, rescued, classes)
        lost &= rescued == 0
    if lost.any():
        classes = np.where(lost, unknown, classes)
        notes.append(f"{counted(texts[lost], 'crop code')} our table; taken as {names[unknown]!r} ({unknown})")
    return Classified(classes, missing, notes)


def hcat_classes(codes: Iterable[Any]) -> Classified:
    """Classes of HCAT's ten-digit codes; a code finer than our legend takes the class of what it belongs to.

    >>> hcat_classes([3301010101, "3301061219", 3301220400.0, 3400000000]).classes.tolist()
    [1101, 1601, 1501, 7199]
    """
    texts, unknown = code_texts(codes), _unknown_class()
    classes = each_once(texts, lambda code: hcat_class(code) or 0, "int64")
    missing = texts == ""
    lost = (classes == 0) & ~missing
    notes = []
    if lost.any():
        classes = np.where(lost, unknown, classes)
        notes.append(f"{counted(texts[lost], 'crop code')} our table; taken as {crops().names[unknown]!r} ({unknown})")
    return Classified(classes, missing, notes)


def hcat_class(code: str) -> int | None:
    """The class of an HCAT code, or of the closest one above it that the legend has; None where that is none.

    The code is five pairs of digits from the coarse to the fine, so what is above it has zeros at the end.

    >>> crops().names[hcat_class("3301010199")]
    'Wheat, season unspecified'
    """
    known = source_codes("crops", "hcat")
    if not re.fullmatch(r"\d{10}", code):
        return None
    if code in (ANY_CROP_HCAT, UNKNOWN_HCAT):
        return _unknown_class()
    for digits in range(_HCAT_DIGITS, 2, -2):
        above = code[:digits].ljust(_HCAT_DIGITS, "0")
        if above in known and above != ANY_CROP_HCAT:
            return known[above]
    return None


@cache
def _unknown_class() -> int:
    return source_codes("crops", "hcat")[UNKNOWN_HCAT]


def year_in(*names: str) -> int | None:
    """The one year that a file's or a layer's name tells, dates of its export aside; None where it tells none, or two.

    The names are asked one after the other.

    >>> year_in("Landbouwgebruikspercelen_2023_-_Definitief_(extractie_28-03-2024)")
    2023
    >>> year_in("RPG_2-0_LAMB93_R53_2022-01-01", "parcels")
    2022
    """
    for name in names:
        for pattern, text in ((_YEAR, _DATE.sub(" ", name)), (_NEW_YEAR, name)):
            years = {int(year) for year in pattern.findall(text)}
            if len(years) == 1:
                return years.pop()
    return None
