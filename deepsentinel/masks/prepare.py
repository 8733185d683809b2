"""A label table and a grid -> polygons in the grid's CRS, each with its class, its number and its place in a tie.

Every verb of this room begins here, so that all of them mend, number and choose in the same way. The polygons come out
sorted by what they are (class, id, area, place), so that nothing after this can depend on the order of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from odc.geo.geobox import GeoBox

from deepsentinel.errors import InputError, warn
from deepsentinel.geometries import clean, kinds
from deepsentinel.grids import grid_of, refined
from deepsentinel.legend import Legend, LegendLike

from .classes import MAX_NUMBER, ClassColumn, checked
from .onto_grid import onto_grid

__all__ = ["Prepared", "check_memory", "parcel_numbers", "prepare"]

# A larger result is more likely a slip than a wish.
MAX_GB = 8.0


@dataclass(frozen=True)
class Prepared:
    """Polygons ready to burn: all arrays are aligned, and sorted by class, id, area, place and shape."""

    geometries: np.ndarray
    """Valid polygons and multipolygons in the CRS of the grid, only those whose bounds reach the grid."""
    classes: np.ndarray
    """int64 codes as they stand in the mask (already shifted), or float64 values."""
    ids: np.ndarray
    """What the column `id` holds; the row's position where there is none."""
    numbers: np.ndarray
    """int32, the number of each in the layer `parcel_id`; see `parcel_numbers`."""
    numbered: Literal["id", "sorted"]
    """Whether those are the ids themselves, or places in the sorted order of the table."""
    rows: np.ndarray
    """Position in the given table."""
    cleaned: np.ndarray
    """The shapes in the CRS of the labels, mended and whole: nothing is cut off, and lines and points are thin."""
    outlines: np.ndarray | None
    """What distances are measured to, where they are asked for: the geometries, or whole boundaries of cut ones."""
    geobox: GeoBox
    """The grid, already of the wanted resolution."""
    kind: Literal["class", "value"]
    """Whether `classes` are codes or measured values."""
    legend: Legend | None
    """What the codes mean; None for values, and for thousands of codes that nobody named."""
    shifted_by: int
    """What was added to all codes to keep them apart from the background."""
    background: int
    """The code of pixels without a polygon."""
    repairs: list[dict[str, Any]] = field(default_factory=list)
    """`row`, `id`, `what`, from `deepsentinel.geometries.clean`."""
    set_aside: list[dict[str, Any]] = field(default_factory=list)
    """`row`, `id`, `reason`, `wkt`, from there too."""
    remarks: tuple[str, ...] = ()
    """What is written down with the result, without a warning."""
    present: tuple[int, ...] = ()
    """All codes that occur in the whole table, also far from the grid."""


def prepare(
    labels: gpd.GeoDataFrame,
    like: Any,
    *,
    value: str = "ground_truth",
    resolution: float | None = None,
    background: int = 0,
    width_m: float | str | None = None,
    legend: LegendLike | None = None,
    keep_codes: bool = False,
    outlines: bool = False,
) -> Prepared:
    """Labels cleaned, brought into the CRS of the grid, cut down to what reaches it, sorted and numbered.

    What is said about the whole table (which texts get which number, whether a class clashes with the background,
    which parcel gets which number) does not depend on the grid, so that all patches of a project agree. What is mended
    and set aside is told for the rows near the grid. `keep_codes` leaves the codes as they are, where nothing has to be
    kept apart from them; `outlines` asks for those.

        >>> labels = gpd.GeoDataFrame({"ground_truth": ["oats", "rye"]}, crs="EPSG:32631",
        ...     geometry=[shapely.box(0, 0, 25, 40), shapely.box(25, 0, 40, 40)])
        >>> ready = prepare(labels, GeoBox.from_bbox((0, 0, 40, 40), "EPSG:32631", resolution=10))
        >>> ready.classes.tolist(), ready.legend.names
        ([1, 2], {1: 'oats', 2: 'rye'})
    """
    geobox = refined(grid_of(like), resolution)
    _check_background(background)
    labels = checked(labels, value)
    crs = labels.crs
    column = ClassColumn.of(labels, value, legend, None if keep_codes else background)
    notes = list(column.warnings)

    near, box = onto_grid(labels.geometry.array, crs, geobox, reach_m=_reach_m(labels, width_m))
    part = clean(labels.iloc[near], value=value)
    notes += part.warnings
    rows = near[part.positions]
    cleaned = np.asarray(part.table.geometry.array, dtype=object)
    widths_m = _widths_m(part.table, width_m, kinds(cleaned))
    shapes = box.bring(cleaned, widths_m)
    kept = box.reached(shapes)
    shapes, cleaned, rows, widths_m = shapes[kept], cleaned[kept], rows[kept], widths_m[kept]

    codes = column.codes[rows]
    order = _sorted(labels, rows, [codes, _id_keys(labels)[rows] if "id" in labels.columns else None])
    shapes, cleaned, rows, codes = shapes[order], cleaned[order], rows[order], codes[order]
    lines = box.outlines(cleaned, shapes, widths_m[order]) if outlines else None
    if len(labels) == 0:
        notes.append("The table of labels is empty, so every pixel is background.")
    elif len(part.set_aside) == len(labels):
        notes.append("No label is left, so every pixel is background.")
    elif len(rows) == 0:
        usable = np.ones(len(labels), dtype=bool)
        usable[near[[entry["row"] for entry in part.set_aside]]] = False
        notes.append(box.how_far(np.asarray(labels.geometry.array, dtype=object)[usable], crs))
    for note in notes:
        warn(note)
    numbers, numbered = _numbers(labels, column.codes)
    return Prepared(
        geometries=shapes,
        classes=codes,
        ids=labels["id"].to_numpy()[rows] if "id" in labels.columns else rows,
        numbers=numbers[rows],
        numbered=numbered,
        rows=rows,
        cleaned=cleaned,
        outlines=lines,
        geobox=geobox,
        kind=column.kind,
        legend=column.legend,
        shifted_by=column.shifted_by,
        background=background,
        repairs=_renumbered(part.repairs, near),
        set_aside=_renumbered(part.set_aside, near),
        remarks=column.remarks,
        present=column.present,
    )


def parcel_numbers(
    labels: gpd.GeoDataFrame, *, value: str = "ground_truth", legend: LegendLike | None = None
) -> pd.DataFrame:
    """Which number a label has in the layer `parcel_id`: a table `number, id` with the index of the labels.

    Ids that are positive whole numbers without repetition stand in the mask as they are. All others are numbered from 1
    in their sorted order, and labels without ids, or with repeated ones, in the order of class, id, area and place;
    `value` and `legend` are those of the mask. Which of the two it was, `numbered` tells, "id" or "sorted": here in
    the `attrs` of the table, and in those of the layer.

        >>> labels = gpd.GeoDataFrame({"ground_truth": [7, 7], "id": ["FR-9", "FR-2"]}, crs="EPSG:32631",
        ...     geometry=[shapely.box(0, 0, 1, 1), shapely.box(1, 0, 2, 1)])
        >>> parcel_numbers(labels)["number"].tolist()
        [2, 1]
    """
    labels = checked(labels, value)
    codes = ClassColumn.of(labels, value, legend, background=None).codes
    ids = labels["id"].to_numpy() if "id" in labels.columns else np.full(len(labels), None, dtype=object)
    numbers, numbered = _numbers(labels, codes)
    table = pd.DataFrame({"number": numbers, "id": ids}, index=labels.index)
    table.attrs["numbered"] = numbered
    return table


def check_memory(layers: str, geobox: GeoBox, bytes_per_pixel: int, advice: str) -> None:
    """Refuses a result that no memory is likely to hold, before anything is computed."""
    rows, columns = geobox.shape
    needed_gb = rows * columns * bytes_per_pixel / 1e9
    if needed_gb > MAX_GB:
        raise InputError(
            f"{layers} on {rows} x {columns} pixels take {needed_gb:,.1f} GB, and at most {MAX_GB:g} GB are made at a"
            f" time. {advice}, or cut the grid into smaller ones."
        )


def _check_background(background: Any) -> None:
    limits = np.iinfo("int32")
    if isinstance(background, bool) or not isinstance(background, (int, np.integer)):
        raise InputError(f"background={background!r} is not a class; give a whole number, such as 0.")
    if not limits.min < background < limits.max:
        raise InputError(f"background={background} does not fit 32 bits; give a smaller one, such as 0.")


def _widths_m(table: gpd.GeoDataFrame, width_m: float | str | None, is_kind: np.ndarray) -> np.ndarray:
    """The width of each row in metres: NaN for polygons, which have their own."""
    thin = is_kind != "polygon"
    widths = np.full(len(table), np.nan)
    if not thin.any():
        return widths
    if width_m is None:
        what = " and ".join(f"{(is_kind == kind).sum()} {kind}s" for kind in ("line", "point") if kind in is_kind)
        raise InputError(
            f"The labels hold {what}, which cover no ground. Give them a width: width_m=10, or width_m='column'"
            " for one per row; or leave them out with labels[labels.area > 0]."
        )
    if isinstance(width_m, str):
        if width_m not in table.columns:
            raise InputError(f"width_m={width_m!r} is no column of the labels; they have {', '.join(table.columns)}.")
        given = pd.to_numeric(table[width_m], errors="coerce").to_numpy("float64", na_value=np.nan)
    else:
        given = np.full(len(table), float(width_m))
    widths[thin] = given[thin]
    bad = thin & ~(np.isfinite(given) & (given > 0))
    if bad.any():
        raise InputError(
            f"width_m={width_m!r} gives {given[bad][0]} for {int(bad.sum())} of {int(thin.sum())} lines and points;"
            " a width is a number of metres above 0."
        )
    return widths


def _reach_m(labels: gpd.GeoDataFrame, width_m: float | str | None) -> float:
    """How far outside the grid a line or a point may lie and still reach in."""
    if isinstance(width_m, str) and width_m in labels.columns:
        widths = pd.to_numeric(labels[width_m], errors="coerce")
        return float(widths.max()) / 2 if widths.notna().any() else 0.0
    return float(width_m) / 2 if isinstance(width_m, (int, float)) and np.isfinite(width_m) else 0.0


def _id_keys(labels: gpd.GeoDataFrame) -> np.ndarray:
    """Ids as numbers that sort as the ids do."""
    ids = labels["id"]
    if pd.api.types.is_numeric_dtype(ids.dtype) and not pd.api.types.is_extension_array_dtype(ids.dtype):
        return ids.to_numpy()
    _, keys = np.unique(ids.astype(str).to_numpy(dtype=object).astype(str), return_inverse=True)
    return np.asarray(keys)


def _sorted(labels: gpd.GeoDataFrame, rows: np.ndarray, keys: list[np.ndarray | None]) -> np.ndarray:
    """The order of `rows` by their keys, then area, place and shape as drawn, looked at only where keys are equal."""
    held = [key for key in keys if key is not None]
    order = np.lexsort(held[::-1]) if held else np.arange(len(rows))
    if len(rows) < 2 or not _repeats(held, order).any():
        return order
    shapes = np.asarray(labels.geometry.array, dtype=object)[rows]
    bounds = shapely.bounds(shapes)
    held += [shapely.area(shapes), bounds[:, 0], bounds[:, 1], bounds[:, 2], bounds[:, 3]]
    order = np.lexsort(held[::-1])
    same = _repeats(held, order)
    if not same.any():
        return order
    # The shapes themselves are long to compare, so only those that are still equal are.
    alike = np.zeros(len(rows), dtype=bool)
    alike[order[1:][same]] = alike[order[:-1][same]] = True
    ranks = np.zeros(len(rows), dtype="int64")
    _, ranks[alike] = np.unique(shapely.to_wkb(shapes[alike], hex=True).astype(str), return_inverse=True)
    return np.lexsort([ranks, *held[::-1]])


def _repeats(keys: list[np.ndarray], order: np.ndarray) -> np.ndarray:
    """Whether each in the order equals the one before it in all keys."""
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for key in keys:
        in_order = key[order]
        same &= (in_order[1:] == in_order[:-1]) | ((in_order[1:] != in_order[1:]) & (in_order[:-1] != in_order[:-1]))
    return same


def _numbers(labels: gpd.GeoDataFrame, codes: np.ndarray) -> tuple[np.ndarray, Literal["id", "sorted"]]:
    keys: list[np.ndarray | None] = [codes]
    if "id" in labels.columns:
        ids = labels["id"]
        if pd.api.types.is_integer_dtype(ids.dtype) and not ids.hasnans and ids.is_unique:
            plain = ids.to_numpy("int64")
            if len(plain) == 0 or (plain.min() > 0 and plain.max() < MAX_NUMBER):
                return plain.astype("int32"), "id"
        # Class comes after the id: a number should not change when somebody corrects a class.
        keys = [_id_keys(labels), codes]
        if ids.is_unique and not ids.hasnans:
            keys = [_id_keys(labels)]
    numbers = np.empty(len(labels), dtype="int32")
    numbers[_sorted(labels, np.arange(len(labels)), keys)] = np.arange(1, len(labels) + 1)
    return numbers, "sorted"


def _renumbered(entries: list[dict[str, Any]], near: np.ndarray) -> list[dict[str, Any]]:
    return [entry | {"row": int(near[entry["row"]])} for entry in entries]
