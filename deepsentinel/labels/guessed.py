"""Files of no known publisher with a column that says by its name that it tells classes; which was taken is said."""

from __future__ import annotations

from collections.abc import Sequence

import geopandas as gpd
import pandas as pd

from deepsentinel.errors import InputError, warn

from .canonical import CANONICAL, read_column
from .common import CLASS_NAME, Format, LabelFile, Layer, Options, lookup

__all__ = ["GUESSED"]

_CLASSES = (CLASS_NAME, "class", "landcover", "land_cover")
# Which as often names each object.
_LABEL = "label"
# Codes come before names: with them classes keep their numbers.
_ORDER = (
    *((name, kind) for kind in ("codes", "names") for name in _CLASSES),
    *((_LABEL, kind) for kind in ("codes", "names")),
    *((name, "has no rows") for name in (*_CLASSES, _LABEL)),
)
# Of a label, at most this share of the rows may differ.
_DIFFERENT = 0.75
# Codes have at most nine digits, which a mask holds; longer ones may have names beside them.
_TOO_LARGE = 10**9


def _recognises(layer: Layer, file: LabelFile) -> bool:
    return lookup(layer.columns, *_CLASSES, _LABEL) is not None


def _read(file: LabelFile, layers: Sequence[Layer], options: Options) -> gpd.GeoDataFrame:
    """The first column of `_ORDER` that any layer has, and the layers that have it; all rows of the file decide."""
    if options.value is not None:
        return CANONICAL.read(file, layers, options)
    found: dict[tuple[str, str], dict[Layer, str]] = {}
    for layer in layers:
        spelled = {name: lookup(layer.columns, name) for name in (*_CLASSES, _LABEL)}
        columns = {name: file.column(layer, own) for name, own in spelled.items() if own is not None}
        for name, column in columns.items():
            kind = _kind(name, column)
            if kind == "codes" and CLASS_NAME in columns and _differ(column, columns[CLASS_NAME]):
                kind = f"has several {CLASS_NAME} for one number"
            found.setdefault((name, kind), {})[layer] = str(spelled[name])
    best = next((entry for entry in _ORDER if entry in found), None)
    if best is None:
        why = "; ".join(f"{name!r} {kind}" for name, kind in found)
        has = " ".join(f"Layer {layer.name!r} has {', '.join(layer.columns) or 'no columns'}." for layer in file.layers)
        raise InputError(
            f"{file.path.name} is of no known kind, and none of its columns surely tells classes: {why}. {has} Name the"
            " column of the classes (value='...'), and they are taken as they are."
        )
    chosen = found[best]
    name = next(iter(chosen.values()))
    others = [repr(layer.name) for layer in file.layers if layer not in chosen]
    left = f"; not read: layer {', '.join(others)}" if others else ""
    said = f"the column {name!r} was taken as the classes (value='...' names another){left}"
    table = read_column(file, chosen, name, options, kind="guessed", classes=True, notes=[said])
    warn(f"{file.path.name}: {said}.")
    return table


def _kind(name: str, column: pd.Series) -> str:
    """`codes` (whole numbers, yes and no), `names` (texts), or why it is not taken."""
    if not len(column):
        return "has no rows"
    there = column.dropna().astype(object).infer_objects()
    if pd.api.types.infer_dtype(there) == "string":
        texts = there.str.strip()
        there = texts[texts != ""]
        numbers = pd.to_numeric(there, errors="coerce")
        # NaN is not below either. Leading zeros belong to codes that are texts.
        if (numbers < _TOO_LARGE).all() and not there.str.match(r"0\d").any():
            there = numbers
    if not len(there):
        return "has no values"
    numeric = pd.api.types.is_numeric_dtype(there.dtype)
    if not numeric and pd.api.types.infer_dtype(there) != "string":
        return "holds neither numbers nor texts"
    if name == _LABEL and len(there) > 1 and there.nunique() > _DIFFERENT * len(there):
        return "has a value of its own in nearly every row"
    if not numeric:
        return "names"
    return (
        "codes" if ((there >= 0) & (there < _TOO_LARGE) & (there % 1 == 0)).all() else "holds numbers that are no codes"
    )


def _differ(codes: pd.Series, names: pd.Series) -> bool:
    """Whether a code has several names: then it is not they that it stands for."""
    pairs = pd.DataFrame({"code": codes.to_numpy(object), "name": names.to_numpy(object)}).dropna()
    pairs["name"] = pairs["name"].map(lambda name: str(name).strip())
    return bool(pairs[pairs["name"] != ""].drop_duplicates()["code"].duplicated().any())


GUESSED = Format(
    name="guessed",
    looks_for="a column class_name, class or landcover, or label where rows share its values",
    recognises=_recognises,
    read=_read,
    takes=frozenset({"value", "year"}),
)
