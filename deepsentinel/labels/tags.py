"""OpenStreetMap's tags -> classes: a table that anybody may replace, and how a feature finds its row in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepsentinel.errors import InputError, ReadError
from deepsentinel.legend import TABLES, Legend, LegendClass, corine, distinct_colors

__all__ = ["Matches", "match", "parse_tags", "tag_legend", "tag_table", "widths_m"]

COLUMNS = ("shape", "key", "value", "also", "code", "width_m", "priority")
REFINING = (
    "layer", "tunnel", "location", "parking", "abandoned", "disused", "proposed", "demolished", "razed", "width",
    "est_width", "lanes",
)  # fmt: skip
"""Keys that no class needs, but that tell what to skip and how wide a line is."""
_SHAPES = ("polygon", "line", "point")
_GONE = ("abandoned", "disused", "proposed", "demolished", "razed")
_NO = ("", "no", "false", "0", "F")
_LANE_M = 3.25
# Wider than the Amazon is a misprint.
_WIDEST_M = 5000.0
_FOOT_M = 0.3048
_HSTORE = re.compile(r'"((?:[^"\\]|\\.)*)"\s*=>\s*"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


def tag_table(table: Any = None) -> pd.DataFrame:
    """Which tags make which class: ours, or yours from a DataFrame or the path of a CSV, checked.

    One row is one tag: `shape` (polygon, line or point; polygon where left out), `key`, `value` (`*`: any but no),
    `also` (a second tag that must be there, as `leaf_type=broadleaved`), `code` (the class; in our table CORINE's,
    level 3), `width_m` (of lines and points without a width of their own), `priority` (what lies over what: higher over
    lower, in ours land 0, watercourses 1, water 2, buildings 3, roads 4), and in yours also `name` (of the class). The
    first row that fits a feature counts, so the particular come before the general.

    >>> ours = tag_table()
    >>> ours[(ours.key == "landuse") & (ours.value == "vineyard")].code.tolist()
    [221]
    """
    if table is None:
        table = pd.read_csv(TABLES / "tags.csv", dtype=str)
    elif isinstance(table, (str, Path)):
        path = Path(table).expanduser()
        if not path.is_file():
            raise InputError(f"tags={str(table)!r}: there is no such file.")
        try:
            table = pd.read_csv(path, dtype=str)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise ReadError(f"{path} cannot be read as a CSV of tags: {error}.") from error
    if not isinstance(table, pd.DataFrame) or not {"key", "value", "code"} <= set(table.columns):
        found = ", ".join(map(str, table.columns)) if isinstance(table, pd.DataFrame) else type(table).__name__
        raise InputError(f"tags= is a table with at least the columns key, value and code, not {found}.")
    codes = pd.to_numeric(table["code"], errors="coerce")
    if codes.isna().any() or (codes % 1 != 0).any() or (codes < 1).any():
        bad = table["code"][codes.isna() | (codes % 1 != 0) | (codes < 1)].iloc[0]
        raise InputError(f"tags=: code {bad!r} is not a positive integer; 0 is the background.")
    texts = {name: _text(table, name) for name in ("shape", "key", "value", "also")}
    lines = texts["shape"].isin(("line", "point"))
    numbers = {name: pd.to_numeric(_text(table, name), errors="coerce") for name in ("width_m", "priority")}
    checked = pd.DataFrame(
        {
            **texts,
            "shape": texts["shape"].replace("", "polygon"),
            "code": codes.astype("int64"),
            "width_m": numbers["width_m"],
            "priority": numbers["priority"].fillna(lines.map({True: 4.0, False: 0.0})),
        }
    )[list(COLUMNS)]
    if "name" in table.columns:
        checked["name"] = table["name"].astype(str)
    if unknown := set(checked["shape"]) - set(_SHAPES):
        raise InputError(f"tags=: shape {sorted(unknown)[0]!r} is none of {', '.join(_SHAPES)}.")
    thin = checked[(checked["shape"] != "polygon") & ~(checked["width_m"] > 0)]
    if len(thin):
        row = thin.iloc[0]
        raise InputError(f"tags=: {row['shape']} {row['key']}={row['value']} needs a width_m over 0 to become an area.")
    return checked.reset_index(drop=True)


def _text(table: pd.DataFrame, name: str) -> pd.Series:
    if name not in table.columns:
        return pd.Series("", index=table.index, dtype=object)
    return table[name].astype(object).where(table[name].notna(), "").astype(str).str.strip().astype(object)


def tag_legend(table: pd.DataFrame) -> tuple[Legend, int]:
    """The legend of a table of tags and its finest level: CORINE's where its codes are CORINE's, else its own names."""
    codes = sorted(set(table["code"]))
    if "name" not in table.columns:
        for level in (3, 2, 1):
            if set(codes) <= set(corine(level).codes):
                return corine(level), level
        return Legend.of_codes(codes), 1
    names = table.drop_duplicates("code").set_index("code")["name"]
    colors = distinct_colors(len(codes))
    return Legend(
        "tags", tuple(LegendClass(c, str(names[c]), color) for c, color in zip(codes, colors, strict=True))
    ), 1


def needed_keys(table: pd.DataFrame) -> list[str]:
    """All keys that decide about a feature: those of the table, of its second tags, and `REFINING`."""
    also = [text.partition("=")[0] for text in table["also"] if text]
    return list(dict.fromkeys([*table["key"], *also, *REFINING]))


def parse_tags(value: Any) -> dict[str, str]:
    """The tags of a feature, from whatever a tool wrote them as: hstore text, JSON, a mapping, or a list of pairs.

    >>> parse_tags('"lanes"=>"2","name"=>"Rue \\\\"B\\\\""')["name"]
    'Rue "B"'
    """
    if value is None or isinstance(value, float):
        return {}
    if isinstance(value, Mapping):
        return {str(key): str(text) for key, text in value.items() if text is not None}
    if isinstance(value, (list, tuple, np.ndarray)):
        return {str(pair[0]): str(pair[1]) for pair in value if pair is not None and len(pair) == 2}
    text = str(value)
    if text.lstrip().startswith("{"):
        try:
            return parse_tags(json.loads(text))
        except json.JSONDecodeError:
            return {}
    if "\\" not in text:
        return dict(_HSTORE.findall(text))
    return {_ESCAPED.sub(r"\1", key): _ESCAPED.sub(r"\1", found) for key, found in _HSTORE.findall(text)}


@dataclass(frozen=True)
class Matches:
    """Which row of a table of tags each feature took."""

    row: np.ndarray
    """Position in the table; -1: no row fits, or no satellite sees it (a tunnel, a road that is only proposed)."""
    skipped: int
    """How many had a class but are underground, abandoned or only proposed."""


def match(tags: pd.DataFrame, shapes: np.ndarray, table: pd.DataFrame) -> Matches:
    """The first row of `table` that fits each feature. `tags`: a column of text for each key; `shapes`: what it is."""
    best = np.full(len(tags), len(table), dtype=np.int64)
    for (shape, key), rows in table.groupby(["shape", "key"], sort=False):
        if key not in tags.columns:
            continue
        # What has no shape, or several, may well be an area; the cleaning that follows says what is wrong with it.
        of_shape = np.isin(shapes, (shape, "none", "collection")) if shape == "polygon" else shapes == shape
        # Several values are written with semicolons, the main one first.
        first = tags[key].map(lambda text: text.partition(";")[0].strip() if isinstance(text, str) else "")
        plain = rows[(rows["also"] == "") & (rows["value"] != "*")].drop_duplicates("value")
        by_value = dict(zip(plain["value"], plain.index, strict=True))
        found = first.map(by_value).fillna(len(table)).to_numpy(dtype=np.int64)
        best = np.where(of_shape, np.minimum(best, found), best)
        special = rows[(rows["also"] != "") | (rows["value"] == "*")]
        for number, value, also in zip(special.index, special["value"], special["also"], strict=True):
            fits = of_shape & (~first.isin(_NO) if value == "*" else first == value).to_numpy()
            if also:
                other, _, wanted = also.partition("=")
                fits &= (tags[other] == wanted).to_numpy() if other in tags.columns else False
            best[fits] = np.minimum(best[fits], int(number))
    matched = best < len(table)
    hidden = matched & _hidden(tags)
    return Matches(np.where(matched & ~hidden, best, -1), int(hidden.sum()))


def _hidden(tags: pd.DataFrame) -> np.ndarray:
    """Below the ground, not there any more, or not yet: nothing that a satellite sees."""

    def column(key: str) -> pd.Series:
        return tags[key] if key in tags.columns else pd.Series([None] * len(tags), index=tags.index, dtype=object)

    def said(key: str) -> pd.Series:
        return column(key).notna() & ~column(key).isin(_NO)

    # A passage through a building is roofed over but at ground level; the building lies over it anyway.
    hidden = pd.to_numeric(column("layer"), errors="coerce") < 0
    hidden |= said("tunnel") & (column("tunnel") != "building_passage")
    hidden |= column("location").isin(("underground", "underwater")) | (column("parking") == "underground")
    for key in _GONE:
        hidden |= said(key)
    return hidden.to_numpy(dtype=bool)


def widths_m(tags: pd.DataFrame, default_m: np.ndarray) -> np.ndarray:
    """Metres of each line: its `width`, else for roads `lanes` of 3.25 m, else the default of its class.

    >>> tags = pd.DataFrame({"width": ["3.5 m", None, "12'"], "lanes": [None, "2", None]})
    >>> widths_m(tags, np.full(3, 9.0)).round(2).tolist()
    [3.5, 6.5, 3.66]
    """
    widths = default_m.astype("float64").copy()
    if "lanes" in tags.columns:
        lanes = pd.to_numeric(tags["lanes"], errors="coerce").to_numpy(dtype="float64")
        wide = (lanes >= 1) & (lanes <= 16)
        widths[wide] = lanes[wide] * _LANE_M
    for key in ("est_width", "width"):
        if key in tags.columns:
            told = tags[key].map(_metres).to_numpy(dtype="float64")
            good = (told > 0.1) & (told < _WIDEST_M)
            widths[good] = told[good]
    return widths


_LENGTH = re.compile(r"\s*(\d+(?:[.,]\d+)?)\s*(m|metres?|meters?|ft|feet|'|km)?\s*(?:(\d+(?:\.\d+)?)\s*\")?\s*$", re.I)


def _metres(text: Any) -> float:
    """`3.5`, `3,5 m`, `12'` and `12'6"`; NaN for what cannot be read."""
    found = _LENGTH.match(text) if isinstance(text, str) else None
    if found is None:
        return np.nan
    number, unit = float(found[1].replace(",", ".")), (found[2] or "m").lower()
    if unit in ("ft", "feet", "'"):
        return (number + float(found[3] or 0) / 12) * _FOOT_M
    return np.nan if found[3] else number * (1000 if unit == "km" else 1)
