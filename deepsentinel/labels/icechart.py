"""Sea-ice charts in SIGRID-3: each polygon's egg code -> one class, with how much of the ice it speaks for.

A polygon holds up to three kinds of ice beside each other: `CT` is the total concentration, `CA SA FA` concentration,
stage of development and form of the thickest kind, `CB SB FB` and `CC SC FC` of the second and third, `CD` the stage of
what is left of the total, and `CF` (later `FP`, `FS`) the predominant and the secondary form. A map needs one class,
so the kinds of one stage (or form) are added up and the largest sum wins, the thicker ice where two are equal. Three
columns tell what that rests on: `concentration_percent` of all ice, `dominant`, the kind of ice that the class is of
(A, B, C, or D for the rest), and `dominant_share`, its part of all ice. A class that speaks for little of a mixture is
left out by `labels[~(labels.dominant_share < 0.65)]`, as AI4Arctic does; open water has no share and stays.

Land, ice shelves and stretches without data are no classes of sea ice: they are set aside, and so is ice of which
nothing is written. Ice whose code says that it is not known (99), or that no list has, is of the class "Unknown".
A chart shows one day, that in its name (`<org>_<region>_<yyyymmdd>_pl_a`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import geopandas as gpd
import numpy as np
import pandas as pd

from deepsentinel.errors import InputError, warn
from deepsentinel.legend import Legend, LegendClass, ice_concentration, ice_form, ice_stage, source_codes

from .apart import without
from .codes import code_texts, counted, each_once
from .common import Format, LabelFile, Layer, Options, check_level, finish, lookup
from .ids import geometry_ids
from .opening import concat

__all__ = ["SIGRID3", "chart_day", "chart_legend", "concentration_percent", "ice_classes"]

What = Literal["stage", "concentration", "form"]

NOT_SET = "-9"
UNKNOWN = "99"
OPEN_WATER = 80
"""The class of water in the legends of stage, where the code list has it, and of form, where we add it."""
ICE_FREE = ("00", "55", "98")
HARDLY_ICE = ("01", "02")
"""Total concentrations of traces of ice: water, where no stage stands beside them."""
FAST_ICE = "08"
NO_SEA = {"L": "land", "N": "no data", "S": "an ice shelf"}
"""What a polygon that is no sea is, by its POLY_TYPE."""
KINDS = "ABC"

_EXACT_PERCENT = {"00": 0.0, "55": 0.0, "98": 0.0, "01": 5.0, "02": 5.0, "91": 95.0, "92": 100.0}
# Less is what adding up tenths leaves.
_SOME_PERCENT = 1e-6
_DAY = re.compile(r"(?<!\d)((?:19|20)\d{2})[-_]?(0[1-9]|1[0-2])[-_]?(0[1-9]|[12]\d|3[01])(?:[T_]?\d{6})?(?!\d)")


def chart_day(*names: str) -> pd.Timestamp | None:
    """The one day that a name tells, asked one after the other; None where none does.

    >>> chart_day("cis_SGRDREA_20210705_pl_a")
    Timestamp('2021-07-05 00:00:00')
    """
    for name in names:
        found = {pd.to_datetime("-".join(parts), errors="coerce") for parts in _DAY.findall(name)}
        if len(found) == 1 and not pd.isna(day := found.pop()):
            return day
    return None


def concentration_percent(codes: Iterable[Any]) -> np.ndarray:
    """SIGRID-3's concentration codes as percent, the mean of an interval; NaN where none, or none we know, is written.

    Two digits XY are from X to Y tenths, where 1 as the upper end is all ten; those that would rise to less than they
    start from have meanings of their own.

    >>> concentration_percent(["92", "91", "80", "46", "81", "1", "55", "-9", 99]).tolist()
    [100.0, 95.0, 80.0, 50.0, 90.0, 5.0, 0.0, nan, nan]
    """
    return each_once(_codes(codes), _percent, "float64")


def chart_legend(what: What) -> Legend:
    """The legend of a chart's `stage`, `concentration` or `form`.

    Forms are those of ice, so open water joins them as a class of its own.

    >>> chart_legend("form")[80].name, chart_legend("stage")[91].name
    ('Open water', 'Medium first-year ice (70-120 cm)')
    """
    if what not in get_args(What):
        raise InputError(f"value={what!r}: an ice chart tells {', '.join(get_args(What))}.")
    if what == "stage":
        return ice_stage()
    if what == "concentration":
        return ice_concentration()
    fine, blue = ice_form(), ice_stage().colors[OPEN_WATER]
    assert fine.coarser is not None
    group = max(fine.coarser.codes) + 1
    coarse = Legend(fine.coarser.name, (*fine.coarser.classes, LegendClass(group, "Open water", blue)))
    return Legend(fine.name, (*fine.classes, LegendClass(OPEN_WATER, "Open water", blue, group)), coarse)


def ice_classes(table: pd.DataFrame, what: What = "stage") -> pd.DataFrame:
    """One row a polygon: its class, what that rests on, and the reason where it has none.

    Columns: `ground_truth` (int64, 0 where there is a reason), `reason` (empty where there is a class), `odd` (a code
    that the list does not have), `concentration_percent`, `dominant` and `dominant_share`.

    >>> egg = pd.DataFrame({"POLY_TYPE": ["I"], "CT": ["90"], "CA": ["20"], "SA": ["91"], "CB": ["70"], "SB": ["87"]})
    >>> found = ice_classes(egg).iloc[0]
    >>> int(found.ground_truth), found.dominant, round(float(found.dominant_share), 2)
    (87, 'B', 0.78)
    """
    legend = chart_legend(what)
    kind = np.array([text[:1].upper() for text in _texts(table, "POLY_TYPE")], dtype=object)
    total, no_sea = _chart_codes(table, "CT"), np.isin(kind, [*NO_SEA])
    stage, form = _chart_codes(table, "SA"), _form_of_all(table)
    free = np.isin(total, ICE_FREE) | (np.isin(total, HARDLY_ICE) & (stage == NOT_SET))
    water = (kind == "W") | (free & ~no_sea)
    percent = concentration_percent(total)
    parts = np.stack([concentration_percent(_chart_codes(table, f"C{letter}")) for letter in KINDS])
    percent = np.where(np.isnan(percent) & np.isfinite(parts).any(axis=0), np.nansum(parts, axis=0), percent)
    percent = np.where(water & np.isnan(percent), 0.0, np.minimum(percent, 100.0))
    if what == "concentration":
        codes, dominant, share = total, np.full(len(table), "", dtype=object), np.full(len(table), np.nan)
        # Water that has no number is free of ice; ice that has none but is fast is known all the same.
        codes = np.where(water & (total == NOT_SET), "00", codes)
        known = source_codes("ice_concentration", "sigrid") | {"fast": legend.numbers["Fast ice"]}
        is_fast = np.where(form == NOT_SET, _chart_codes(table, "FA"), form) == FAST_ICE
        codes = np.where(is_fast & ~water, "fast", codes)
    else:
        codes, dominant, share = _dominant(table, "S" if what == "stage" else "F", parts, percent)
        if what == "form":
            # Charts that tell no form of each kind tell one of all of it; how much of the ice has it they do not say.
            codes = np.where(codes == NOT_SET, form, codes)
        codes = np.where(water, str(OPEN_WATER), codes)
        known = {str(code).zfill(2): code for code in legend.codes}
        if what == "form":
            known |= source_codes("ice_form", "sigrid")
        dominant, share = np.where(water, "", dominant), np.where(water, np.nan, share)
    reason = np.where(codes == NOT_SET, _silent(what), "").astype(object)
    for letter, name in NO_SEA.items():
        reason[kind == letter] = name
    said = reason == ""
    classes = each_once(codes, lambda code: known.get(code, known[UNKNOWN]), "int64")
    odd = np.where(said & ~np.isin(codes, [*known]), codes, "")
    return pd.DataFrame(
        {
            "ground_truth": np.where(said, classes, 0),
            "reason": reason,
            "odd": odd,
            "concentration_percent": np.where(no_sea, np.nan, percent),
            "dominant": np.where(said, dominant, ""),
            "dominant_share": np.where(said, share, np.nan),
        },
        index=table.index,
    )


def _silent(what: str) -> str:
    return f"no {what} is written for this ice"


def _dominant(
    table: pd.DataFrame, letter: str, parts: np.ndarray, percent: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The stage (`S`) or form (`F`) that most of the ice has, the kind of ice that has it, and its part of all."""
    codes = np.stack([_chart_codes(table, f"{letter}{kind}") for kind in KINDS])
    held = np.nan_to_num(parts)
    # A kind that is described but has no concentration is all of the ice, or what the others leave of it.
    bare = np.isnan(parts) & (codes != NOT_SET)
    first = bare & (np.cumsum(bare, axis=0) == 1)
    whole = np.where(np.isnan(percent), 100.0, percent)
    held = np.where(first, np.clip(whole - held.sum(axis=0), 0, None), held)
    rest = np.clip(whole - held.sum(axis=0), 0, None)
    remaining = _chart_codes(table, "CD", "SD") if letter == "S" else np.full(len(table), NOT_SET)
    codes = np.vstack([codes, remaining])
    held = np.vstack([held, rest])
    there = (held > _SOME_PERCENT) & (codes != NOT_SET)
    together = np.stack([np.where(there & (codes == code), held, 0.0).sum(axis=0) for code in codes])
    # The first of equals is the thickest, as the kinds are written in that order.
    best = np.argmax(np.where(there, together, -1.0), axis=0)
    row, some = np.arange(len(table)), there.any(axis=0)
    # Tenths written for the parts may add up to more than the total.
    share = together[best, row] / np.maximum(np.maximum(whole, held.sum(axis=0)), _SOME_PERCENT)
    # Several kinds without a concentration each: the thickest stands for all, and nobody knows for how much of it.
    share = np.where(bare.sum(axis=0) > 1, np.nan, share)
    kinds = np.array([*KINDS, "D"], dtype=object)[best]
    return np.where(some, codes[best, row], NOT_SET), np.where(some, kinds, ""), np.where(some, share, np.nan)


def _form_of_all(table: pd.DataFrame) -> np.ndarray:
    """The predominant form of the ice, from `FP` or the first half of `CF`, whose halves are two characters each."""
    text = pd.Series(_texts(table, "CF"), dtype="string").str.replace(r"\.0+$", "", regex=True)
    # A number has lost the zero it began with.
    text = text.where(text.str.len().isin([0, 2, 4]), text.str.zfill(1).radd("0"))
    first = text.str.extract(r"^(-9|\d{2})(?:-9|\d{2})?$", expand=False).fillna(NOT_SET).to_numpy(dtype=object)
    later = _chart_codes(table, "FP")
    return np.where(later == NOT_SET, first, later)


def _texts(table: pd.DataFrame, name: str) -> np.ndarray:
    column = lookup(table.columns, name)
    if column is None:
        return np.full(len(table), "", dtype=object)
    return table[column].astype("string").str.strip().fillna("").to_numpy(dtype=object)


def _chart_codes(table: pd.DataFrame, *names: str) -> np.ndarray:
    column = lookup(table.columns, *names)
    return np.full(len(table), NOT_SET, dtype=object) if column is None else _codes(table[column])


def _codes(values: Iterable[Any]) -> np.ndarray:
    """Two characters each, -9 where nothing is written."""
    return each_once(code_texts(values), lambda text: text.zfill(2) if text else NOT_SET)


def _percent(code: str) -> float:
    if code in _EXACT_PERCENT:
        return _EXACT_PERCENT[code]
    if not re.fullmatch(r"[1-9]\d", code):
        return np.nan
    low, high = int(code[0]), int(code[1])
    if high == 0:
        return 10.0 * low
    high = 10 if high == 1 else high
    return 5.0 * (low + high) if low < high else np.nan


def _recognises(layer: Layer, file: LabelFile) -> bool:
    return layer.has("CT", "SA") or layer.has("POLY_TYPE", "SA") or layer.has("POLY_TYPE", "CT")


def _read(file: LabelFile, layers: Sequence[Layer], options: Options) -> gpd.GeoDataFrame:
    what = options.value or "stage"
    legend = chart_legend(what)  # type: ignore[arg-type]  # which checks it
    tables = [file.read(layer) for layer in layers]
    table = concat(tables)
    found = ice_classes(table, what)  # type: ignore[arg-type]
    if (found["odd"] != "").any():
        codes = found["odd"].to_numpy(dtype=object)
        sentence = f"{counted(codes[codes != ''], f'{what} code')} SIGRID-3's list; taken as unknown"
        warn(f"{file.path.name}: {sentence}.")
        table.attrs = {**table.attrs, "notes": [*table.attrs.get("notes", []), sentence]}
    classes = found["ground_truth"].to_numpy()
    if options.level is not None:
        level = check_level(options.level, range(1, legend.level + 1), f"the {what} of ice")
        classes, legend = legend.up(classes, level), legend.at(level)
    days = [chart_day(layer.name, layer.source.rsplit("/", 1)[-1], file.path.name) or pd.NaT for layer in layers]
    starts = pd.DatetimeIndex(np.repeat(pd.DatetimeIndex(days), [len(part) for part in tables]))
    notes = [] if all(day is not pd.NaT for day in days) else ["no day is told, so the validity is open"]
    column = lookup(table.columns, "id_new", "id", "polygon_id", "poly_id")
    own = None if column is None or table[column].isna().any() or table[column].duplicated().any() else table[column]
    ids = geometry_ids(table) if own is None else own.to_numpy()
    keep = (found["reason"] == "").to_numpy()
    for name in ("concentration_percent", "dominant", "dominant_share"):
        table[name] = found[name].to_numpy()
    return finish(
        without(table, found["reason"].to_numpy(dtype=object), ids),
        kind="sigrid3",
        file=file,
        ground_truth=classes[keep],
        id=ids[keep],
        valid_from=starts[keep],
        valid_to=(starts + pd.Timedelta(days=1))[keep],
        legend=legend,
        notes=notes,
    )


SIGRID3 = Format(
    "sigrid3",
    "columns CT and SA, or one of them and POLY_TYPE",
    _recognises,
    _read,
    frozenset({"value", "level"}),
)
"""`value` is what of the ice: stage (by itself), concentration or form."""
