"""Labels as people write them down -> geometries that masks can stand on; what was mended or set aside is told.

Nothing is dropped in silence. A polygon that crosses itself is repaired, a collection gives up its polygons, and a row
that nobody can use (no geometry, a coordinate that is not a number, no class) is set aside with the reason.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from .errors import InputError

__all__ = ["Cleaned", "SetAside", "clean", "kinds"]

Kind = Literal["polygon", "line", "point"]

# By shapely's type number, which begins at -1 for a missing geometry.
_KINDS = np.array(["none", "point", "line", "line", "polygon", "point", "line", "polygon", "collection"])
_COLLECTION = 7
# The columns that label files keep their classes in, to say which one was probably meant.
_LIKELY = (
    "ground_truth", "class", "class_id", "label", "code_18", "code_24", "code_12", "crop_id", "code_cultu", "snar_code",
    "gewascode", "gwscod_h", "crop:code", "hcat:code", "ec_hcat_c", "lulc_id", "code", "landuse", "crop", "category",
)  # fmt: skip
# The text of a geometry is kept so that it can be looked at; not of a million rows that lack a class.
MAX_TEXTS = 1000


@dataclass(frozen=True)
class Cleaned:
    """A label table that can be burnt as it is, and the story of how it came to be so."""

    table: gpd.GeoDataFrame
    """The usable rows, two-dimensional and valid, in the order and with the index they came in."""
    positions: np.ndarray
    """Position in the given table of each row of `table`."""
    repairs: list[dict[str, Any]] = field(default_factory=list)
    """`row` (position in the given table), `id`, `what` was done."""
    set_aside: list[dict[str, Any]] = field(default_factory=list)
    """`row`, `id`, `reason` and the `wkt` of rows that are not in `table` (of the first thousand, None beyond)."""
    warnings: list[str] = field(default_factory=list)
    """The same in a sentence each, for whoever tells the user."""


class SetAside(list[dict[str, Any]]):
    """Rows that are in no mask, as `attrs["set_aside"]` of a table lists them, and the rows themselves.

    To everybody else it is a list of what JSON can hold. pandas copies the attributes with every step, and rows by the
    hundred thousand are not for that: a copy of this is the same object, so nothing in it may be changed.
    """

    def __init__(self, told: Iterable[dict[str, Any]] = (), rows: Iterable[gpd.GeoDataFrame] = ()) -> None:
        super().__init__(told)
        self.rows = tuple(rows)

    def __deepcopy__(self, memo: dict[int, Any]) -> SetAside:
        return self

    @classmethod
    def joined(cls, *parts: list[dict[str, Any]] | None) -> SetAside:
        """What is in all of these lists, of which some may be plain ones."""
        given = [part for part in parts if part]
        rows = [piece for part in given if isinstance(part, SetAside) for piece in part.rows]
        return cls([entry for part in given for entry in part], rows)


def kinds(geometries: Any) -> np.ndarray:
    """What each geometry is: "polygon", "line", "point" (also for their multi-forms), "collection" or "none".

    >>> kinds([shapely.Point(0, 0), shapely.box(0, 0, 1, 1), None]).tolist()
    ['point', 'polygon', 'none']
    """
    return _KINDS[shapely.get_type_id(np.asarray(geometries, dtype=object)) + 1]


def clean(
    table: gpd.GeoDataFrame,
    *,
    value: str | None = "ground_truth",
    keep_kinds: Sequence[Kind] = ("polygon", "line", "point"),
) -> Cleaned:
    """The rows of a label table that can be burnt, made valid; the others set aside.

    Invalid polygons are rebuilt from their rings (what two rings of one polygon both enclose is kept once), heights are
    left out, of a collection the polygons stay, or where it has none its lines, or its points. Set aside are rows
    without a geometry, with a coordinate that is NaN or infinite, whose polygon encloses no ground, of a kind that is
    not in `keep_kinds`, and without a `value` (None: no column is looked at). The given table is left as it is.

        >>> bow_tie = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
        >>> labels = gpd.GeoDataFrame({"ground_truth": [1, 2]}, geometry=[bow_tie, None], crs="EPSG:32631")
        >>> cleaned = clean(labels)
        >>> cleaned.table.area.tolist(), cleaned.repairs[0]["what"]
        ([2.0], 'made valid: self-intersection at (1, 1)')
        >>> cleaned.set_aside[0]["reason"]
        'no geometry'
    """
    _check_table(table, value)
    if unknown := set(keep_kinds) - set(get_args(Kind)):
        raise InputError(f"keep_kinds={keep_kinds!r}: {sorted(unknown)} is none of {', '.join(get_args(Kind))}.")
    given = np.asarray(table.geometry.array, dtype=object)
    shapes = shapely.force_2d(given)
    reasons = np.full(len(shapes), "", dtype=object)
    done = np.full(len(shapes), "", dtype=object)
    if value is not None:
        missing, why = _missing(table[value], value)
        reasons[missing] = why[missing]
    reasons[shapely.is_missing(shapes) | shapely.is_empty(shapes)] = "no geometry"
    valid = shapely.is_valid(shapes)
    for row in np.flatnonzero(~valid & (reasons == "")):
        if not np.isfinite(shapely.get_coordinates(shapes[row])).all():
            reasons[row] = "a coordinate that is not a number"
    for row in np.flatnonzero((shapely.get_type_id(shapes) == _COLLECTION) & (reasons == "")):
        shapes[row], done[row] = _uncollected(shapes[row])
        valid[row] = shapely.is_valid(shapes[row])
        if shapely.is_empty(shapes[row]):
            reasons[row] = "a collection of parts without area or length"
    for row in np.flatnonzero(~valid & (reasons == "")):
        done[row] = "; ".join(filter(None, (done[row], _fault(shapes[row]))))
        kind = kinds([shapes[row]])[0]
        shapes[row] = _rebuilt(shapes[row])
        if shapely.is_empty(shapes[row]):
            reasons[row] = f"a {kind} without {'area' if kind == 'polygon' else 'length'}"
    is_kind = kinds(shapes)
    wanted = np.isin(is_kind, list(keep_kinds)) | (reasons != "")
    reasons[~wanted] = [f"a {kind}, and only {' and '.join(keep_kinds)} labels are wanted" for kind in is_kind[~wanted]]
    keep = reasons == ""
    # Assigned rather than built anew: the columns, the index and the attributes stay as they are.
    cleaned = table.loc[keep].copy() if not keep.all() else table.copy()
    if cleaned.geometry.size:
        cleaned[table.geometry.name] = gpd.GeoSeries(shapes[keep], index=cleaned.index, crs=table.crs)
    ids = table["id"].to_numpy() if "id" in table.columns else None
    repairs = [
        {"row": int(row), "id": _plain(ids, row), "what": done[row]} for row in np.flatnonzero((done != "") & keep)
    ]
    aside = np.flatnonzero(~keep)
    set_aside = [
        {
            "row": int(row),
            "id": _plain(ids, row),
            "reason": reasons[row],
            "wkt": None if given[row] is None or number >= MAX_TEXTS else shapely.to_wkt(given[row]),
        }
        for number, row in enumerate(aside)
    ]
    return Cleaned(cleaned, np.flatnonzero(keep), repairs, set_aside, _sentences(repairs, set_aside, len(table)))


def _check_table(table: Any, value: str | None) -> None:
    if not isinstance(table, gpd.GeoDataFrame):
        raise InputError(
            f"Labels are a GeoDataFrame, and this is a {type(table).__name__}; deepsentinel.read_labels(path) reads one"
            " from a file."
        )
    try:
        crs = table.crs
    except AttributeError as error:  # a GeoDataFrame whose geometry column was lost on the way
        raise InputError(f"The labels have no geometry column, only {_listed(table.columns)}.") from error
    if crs is None:
        raise InputError(
            "The labels have no CRS, so nobody knows where they lie. Say which one they are written in:"
            " labels.set_crs('EPSG:...')."
        )
    if value is not None and value not in table.columns:
        raise InputError(
            f"The labels have no column {value!r}; they have {_listed(table.columns)}.{_likely(table, value)}"
        )


def _listed(columns: Any) -> str:
    names = [str(name) for name in columns]
    return ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")


def _likely(table: gpd.GeoDataFrame, value: str) -> str:
    """The column that was probably meant, by its spelling or because classes are usually kept there."""
    names = {str(name).lower(): name for name in table.columns if name != table.geometry.name}
    close = difflib.get_close_matches(value.lower(), names, n=1, cutoff=0.75)
    found = close or [name for name in _LIKELY if name in names]
    return f" Did you mean value={names[found[0]]!r}?" if found else " Name the one that holds the classes as value=."


def _missing(column: pd.Series, name: str) -> tuple[np.ndarray, np.ndarray]:
    why = np.full(len(column), f"no {name}", dtype=object)
    missing = column.isna().to_numpy()
    if pd.api.types.is_float_dtype(column.dtype):
        infinite = np.isinf(column.to_numpy(dtype="float64", na_value=np.nan))
        why[infinite] = f"{name} is infinite"
        missing = missing | infinite
    return missing, why


def _rebuilt(shape: Any) -> Any:
    # The rings say what was meant; the line work alone would turn a ring drawn twice into nothing.
    valid = shapely.make_valid(shape, method="structure", keep_collapsed=False)
    # GEOS may leave parts that share an edge.
    return valid if shapely.is_valid(valid) else shapely.union_all(shapely.get_parts(valid))


def _uncollected(collection: Any) -> tuple[Any, str]:
    """The polygons of a collection as one geometry, or its lines, or its points; and what was left out."""
    parts = [collection]
    while any(shapely.get_type_id(part) == _COLLECTION for part in parts):
        parts = [piece for part in parts for piece in shapely.get_parts(part)]
    sound = shapely.make_valid(np.array(parts, dtype=object), method="structure", keep_collapsed=False)
    of_kind = np.where(shapely.is_empty(sound), "none", kinds(sound))
    kind = next((kind for kind in get_args(Kind) if (of_kind == kind).any()), None)
    if kind is None:
        return shapely.Polygon(), ""
    chosen = sound[of_kind == kind]
    # Parts of a collection may overlap, those of a multipolygon may not.
    shape = shapely.union_all(chosen) if kind == "polygon" else _together(chosen)
    left = len(parts) - len(chosen)
    others = f", {left} other part{'s' if left > 1 else ''} left out" if left else ""
    return shape, f"a collection: its {len(chosen)} {kind}{'s' if len(chosen) > 1 else ''} taken{others}"


def _together(parts: np.ndarray) -> Any:
    singles = np.concatenate([shapely.get_parts(part) for part in parts])
    if len(singles) == 1:
        return singles[0]
    return (shapely.multilinestrings if kinds(singles)[0] == "line" else shapely.multipoints)(singles)


def _fault(shape: Any) -> str:
    """GEOS' reason, such as `Self-intersection[1 1]`, as words."""
    reason = shapely.is_valid_reason(shape)
    what, _, place = str(reason).rstrip("]").partition("[")
    where = f" at ({', '.join(place.split()[:2])})" if place else ""
    return f"made valid: {what[0].lower()}{what[1:]}{where}"


def _plain(ids: np.ndarray | None, row: Any) -> int | str | None:
    """An id that JSON can hold."""
    if ids is None or pd.isna(ids[row]):
        return None
    return int(ids[row]) if isinstance(ids[row], (int, np.integer)) else str(ids[row])


def _sentences(repairs: list[dict[str, Any]], set_aside: list[dict[str, Any]], rows: int) -> list[str]:
    def first(entry: dict[str, Any]) -> str:
        return f"row {entry['row']}" + (f" (id {entry['id']})" if entry["id"] is not None else "")

    said = []
    if repairs:
        said.append(
            f"{len(repairs)} of {rows} geometries were repaired, the first in {first(repairs[0])}: {repairs[0]['what']}"
        )
    reasons: dict[str, list[dict[str, Any]]] = {}
    for entry in set_aside:
        reasons.setdefault(entry["reason"], []).append(entry)
    said += [f"{len(of)} of {rows} rows set aside, {why}; the first is {first(of[0])}" for why, of in reasons.items()]
    return said
