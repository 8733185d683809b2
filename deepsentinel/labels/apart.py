"""Rows that are no labels by the rules of their format: taken out of the table, and kept on record with the reason."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from deepsentinel.geometries import MAX_TEXTS

from .common import _ids

__all__ = ["geometry_ids", "without"]

# A double, and with it JSON and every GIS, holds integers up to here exactly.
_ID_BITS = 53


def without(table: gpd.GeoDataFrame, reasons: np.ndarray, ids: Any = None) -> gpd.GeoDataFrame:
    """The rows that have no reason against them; the others are in `attrs["set_aside"]`, as `finish` takes it on.

    Of each reason at most a thousand rows are listed, as a country has a quarter of a million ditches and pandas copies
    the attributes with every step; a note in `attrs["notes"]` tells how many there were.

    >>> boxes = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)], crs="EPSG:28992")
    >>> kept = without(boxes, np.array(["", "a ditch"], dtype=object), ids=[7, 8])
    >>> len(kept), kept.attrs["set_aside"][0]["id"], kept.attrs["notes"]
    (1, 8, ['1 of 2 rows set aside: a ditch'])
    """
    shapes = np.asarray(table.geometry.array, dtype=object)
    numbers = None if ids is None else _ids(ids, table.index).to_numpy(dtype=object)
    told, notes = [], []
    for reason in sorted({str(text) for text in reasons} - {""}):
        rows = np.flatnonzero(reasons == reason)
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
    before = table.attrs
    kept.attrs = {
        **before,
        "set_aside": [*before.get("set_aside", []), *told],
        "notes": [*before.get("notes", []), *notes],
    }
    return kept


def geometry_ids(table: gpd.GeoDataFrame) -> np.ndarray:
    """A number for each row made from its outline: the same in every extract of a file, in whatever order.

    Rows with one outline are told apart by their attributes, and where these are equal too by counting.

    >>> boxes = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)], crs="EPSG:28992")
    >>> bool((geometry_ids(boxes) == geometry_ids(boxes[::-1])[::-1]).all())
    True
    """
    # Normalised, so that it does not matter at which corner a ring begins.
    outlines = shapely.to_wkb(shapely.normalize(np.asarray(table.geometry.array, dtype=object)), output_dimension=2)
    texts = np.array([b"" if outline is None else outline for outline in outlines], dtype=object)
    numbers = (pd.util.hash_array(texts, categorize=False) >> np.uint64(64 - _ID_BITS)).astype("int64")
    again = pd.Series(numbers).duplicated(keep=False).to_numpy()
    if again.any():
        attributes = pd.DataFrame(table.drop(columns=table.geometry.name))[again].astype(str)
        rows = pd.Series(["\x1f".join(row) for row in attributes.to_numpy()], dtype=object)
        order = pd.DataFrame({"number": numbers[again], "row": rows}).sort_values(["number", "row"])
        counted = order.groupby("number").cumcount().sort_index().to_numpy()
        numbers[again] += counted
    return numbers


def _plain(value: Any) -> int | str | None:
    """An id that JSON can hold."""
    return int(value) if isinstance(value, (int, np.integer)) else str(value) or None
