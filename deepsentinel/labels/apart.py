"""Rows that are no labels by the rules of their format: taken out of the table, and kept on record with the reason."""

from __future__ import annotations

from collections import Counter
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from deepsentinel.errors import InputError
from deepsentinel.geometries import MAX_TEXTS, SetAside

from .ids import as_ids

__all__ = ["OURS", "set_aside", "whole_rows", "without"]

OURS = ("row", "id", "reason")
"""What `set_aside` tells of each row before the source's own columns."""


def set_aside(labels: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """The rows of the source that are not in the table `read_labels` gave: all of them, whole, and why.

    The columns are `row` (its position in the source), `id` and `reason`, the source's own ones and the geometry as it
    was read, in the CRS of the labels. A row whose geometry could not be read or placed has none, and what was written
    in its place as `wkt`. Only the table itself, its copies and parts of it know these rows: read from a file again, it
    has but the list in `attrs["set_aside"]`.

    >>> import tempfile, warnings
    >>> from deepsentinel.labels import read_labels
    >>> file = tempfile.mkdtemp() + "/fields.gpkg"
    >>> shapes = [shapely.box(0, 0, 9, 9), shapely.box(9, 0, 18, 9)]
    >>> columns = {"gewascode": [233, None], "category": ["Bouwland", "Sloot"], "jaar": [2023, 2023]}
    >>> gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:28992").to_file(file)
    >>> with warnings.catch_warnings(action="ignore"):
    ...     labels = read_labels(file)
    >>> rows = set_aside(labels)
    >>> len(labels), rows["reason"].tolist(), rows["category"].tolist(), rows.area.tolist()
    (1, ['a ditch, not a field'], ['Sloot'], [81.0])
    """
    found = labels.attrs.get("set_aside") or SetAside()
    if not isinstance(found, SetAside):
        raise InputError(
            "This table only lists what was set aside (attrs['set_aside']), the rows are not with it: it was not given"
            " by read_labels in this session. Read its source again."
        )
    pieces = [rows if rows.crs == labels.crs else rows.to_crs(labels.crs) for rows in found.rows]
    if not pieces:
        return gpd.GeoDataFrame({name: [] for name in OURS}, geometry=[], crs=labels.crs)
    if len(pieces) == 1:
        return pieces[0].copy()
    return gpd.GeoDataFrame(pd.concat(pieces, ignore_index=True), geometry="geometry", crs=labels.crs)


def whole_rows(table: gpd.GeoDataFrame, at: np.ndarray, reasons: Any, ids: Any = None) -> gpd.GeoDataFrame:
    """The rows at these positions as `set_aside` gives them; columns whose names begin with _ are a reader's own."""
    rows = gpd.GeoDataFrame(table.iloc[at])
    columns: dict[str, Any] = {
        "row": rows.index.to_numpy(),
        "id": [None] * len(rows) if ids is None else np.asarray(ids, dtype=object)[at],
        "reason": np.asarray(reasons, dtype=object),
    }
    for name in rows.columns:
        if name != rows.geometry.name and not str(name).startswith("_"):
            columns[f"{name}_source" if str(name).lower() in OURS else str(name)] = rows[name].array
    return gpd.GeoDataFrame(columns, geometry=np.asarray(rows.geometry.array, dtype=object), crs=table.crs)


def without(table: gpd.GeoDataFrame, reasons: np.ndarray, ids: Any = None) -> gpd.GeoDataFrame:
    """The rows that have no reason against them; the others are in `attrs["set_aside"]`, as `finish` takes it on.

    Of each reason at most a thousand rows are listed, as a country has a quarter of a million ditches and pandas copies
    the attributes with every step; a note in `attrs["notes"]` tells how many there were, `finish` says it aloud, and
    `set_aside` gives them all.

    >>> boxes = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)], crs="EPSG:28992")
    >>> kept = without(boxes, np.array(["", "a ditch"], dtype=object), ids=[7, 8])
    >>> len(kept), kept.attrs["set_aside"][0]["id"], kept.attrs["notes"]
    (1, 8, ['1 of 2 rows set aside: a ditch'])
    """
    shapes = np.asarray(table.geometry.array, dtype=object)
    numbers = None if ids is None else as_ids(ids, table.index).to_numpy(dtype=object)
    told, notes = [], []
    before = table.attrs
    counts = Counter(
        before.get("set_aside_counts") or Counter(entry["reason"] for entry in before.get("set_aside", []))
    )
    for reason in sorted({str(text) for text in reasons} - {""}):
        rows = np.flatnonzero(reasons == reason)
        counts[reason] += len(rows)
        listed = f", the first {MAX_TEXTS} of them listed" if len(rows) > MAX_TEXTS else ""
        notes.append(f"{len(rows)} of {len(table)} rows set aside{listed}: {reason}")
        told += [
            {
                "row": int(table.index[row]),
                "id": None if numbers is None else _plain(numbers[row]),
                "reason": reason,
                "wkt": None if shapes[row] is None else shapely.to_wkt(shapes[row]),
            }
            for row in rows[:MAX_TEXTS]
        ]
    kept = table[reasons == ""]
    gone = np.flatnonzero(reasons != "")
    rows_of = [whole_rows(table, gone, reasons[gone], numbers)] if len(gone) else []
    kept.attrs = {
        **before,
        "set_aside": SetAside.joined(before.get("set_aside"), SetAside(told, rows_of)),
        "notes": [*before.get("notes", []), *notes],
        "set_aside_counts": dict(counts),
    }
    return kept


def _plain(value: Any) -> int | str | None:
    """An id that JSON can hold."""
    return int(value) if isinstance(value, (int, np.integer)) else str(value) or None
