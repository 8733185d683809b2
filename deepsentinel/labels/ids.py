"""Ids of labels: as the source has them, in one type; where it has none, numbers made from the outlines."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

__all__ = ["as_ids", "geometry_ids", "per_row"]

# A double, and with it JSON and every GIS, holds integers up to here exactly.
_ID_BITS = 53


def per_row(values: Any, index: pd.Index) -> pd.Series:
    """One value a row: of a column, a list, or the same for all."""
    if isinstance(values, pd.Series):
        return pd.Series(values.array, index=index)
    if np.ndim(values) == 1:
        return pd.Series(values, index=index)
    return pd.Series([values] * len(index), index=index)


def as_ids(values: Any, index: pd.Index) -> pd.Series:
    """int64 where all ids are whole numbers (also such that are written as floats or text), text elsewhere.

    >>> as_ids(["7", "12"], pd.RangeIndex(2)).tolist(), as_ids(["07", None], pd.RangeIndex(2)).tolist()
    ([7, 12], ['07', ''])
    """
    column = per_row(values, index)
    missing = column.isna()
    if not missing.any() and not pd.api.types.is_bool_dtype(column.dtype):
        if pd.api.types.is_integer_dtype(column.dtype):
            return column.astype("int64")
        if pd.api.types.is_float_dtype(column.dtype):
            # Beyond this a float no longer tells neighbouring integers apart.
            if bool(((column % 1 == 0) & (column.abs() < 2**53)).all()):
                return column.astype("int64")
        else:
            text = column.astype(str)
            # Text with leading zeros, or too long for 64 bits, would not come back the same.
            if len(text) and bool(text.str.fullmatch(r"0|-?[1-9]\d{0,17}").all()):
                return text.astype("int64")
    text = column.astype(object).where(~missing, "").astype(str).astype(object)
    return text


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
        rows = pd.Series(["\x1f".join(map(str, row)) for row in attributes.to_numpy()], dtype=object)
        order = pd.DataFrame({"number": numbers[again], "row": rows}).sort_values(["number", "row"])
        counted = order.groupby("number").cumcount().sort_index().to_numpy()
        numbers[again] += counted
    return numbers
