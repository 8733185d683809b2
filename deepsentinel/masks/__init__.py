"""Polygons of any source -> masks on a grid: which class, which parcel, how much of the pixel, and how sure that is.

`rasterize` burns labels, and the other verbs count, cut out and measure them. Who is who: `classes` (the column of
classes to codes and a legend), `prepare` (labels and a grid to clean, sorted polygons; `onto_grid` brings them there),
`coverage` (who covers how much of which pixel), `claims` (who wins, and where claims contradict each other), `overlap`
and `distance` (layers on request), `fractions`, `objects` and `windows` (masks for other kinds of learning), `report`
(what is wrong with the labels).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, get_args

import geopandas as gpd
import numpy as np
import xarray as xr

from deepsentinel.errors import InputError
from deepsentinel.grids import grid_coords, grid_of, metres_per_unit, refined, variable
from deepsentinel.legend import LegendLike

from .claims import CONFLICT_MEANINGS, Conflict, Layer, Rule, burn
from .classes import MAX_NUMBER
from .prepare import Prepared, check_memory, parcel_numbers, prepare

__all__ = ["parcel_numbers", "rasterize"]

DEFAULT_LAYERS: tuple[Layer, ...] = ("class_map", "parcel_id", "coverage", "conflict")


def rasterize(
    labels: gpd.GeoDataFrame,
    like: Any,
    *,
    value: str = "ground_truth",
    resolution: float | None = None,
    background: int = 0,
    rule: Rule = "coverage",
    layers: Iterable[Layer] = DEFAULT_LAYERS,
    conflict: Conflict = "polygon",
    width_m: float | str | None = None,
    min_coverage: float = 0.0,
    legend: LegendLike | None = None,
) -> xr.Dataset:
    """Labels -> masks on the grid of a patch, or on a finer one that divides it.

    Every pixel that a label touches is its own unless another one covers more of it: what nobody claims does not
    compete, so that nothing vanishes. Areas that are counted in pixels therefore come out too large, those of small
    fields by far. For areas there are `class_fractions` and `label_vector`, which are exact; for masks whose count of
    pixels comes near the area there is `min_coverage=0.5`.

    Parameters
    ----------
    labels
        A GeoDataFrame with a CRS and the column `value`, such as `read_labels` gives; its row order does not matter.
        Shapes are mended where they need it, and brought into the CRS of the grid.
    like
        A patch or another Dataset, a DataArray, or a GeoBox: where the pixels are. Masks have the dims y and x whatever
        those of the patch are: `patch.rename(latitude="y", longitude="x")` before they are merged.
    value
        The column to burn. Whole numbers are classes (also pandas' `Int64`, where some may be missing); texts are
        classes too, with the numbers of the legend; floats are values to regress, and give the layer `value` in place
        of `class_map`. Rows without an entry, or with an empty text, are set aside.
    resolution
        The size of a pixel in units of the grid's CRS; it has to divide the grid's own. None: as it is.
    background
        The class of pixels that nobody claims. Where a class of the labels has the same number, all classes are shifted
        by one, with a warning, and `shifted_by` in the attributes tells.
    rule
        "coverage": a pixel goes to the polygon that covers most of it, so that parcels smaller than a pixel never
        vanish. "centre": only polygons that hold the middle of the pixel may win it, as other tools do it. Ties go to
        the lower class, then the lower id, then the smaller polygon, then the one further west.
    layers
        `class_map`; `parcel_id` (see `parcel_numbers`; 0 for none; its attribute `numbered` says whether these are the
        ids themselves, "id", or places in their order, "sorted"); `coverage`, the share of the pixel that its winner
        covers; `conflict`: 0 none, 1 several polygons share the pixel, 2 they contradict each other (their claims sum
        to more than 1.001, or one covers it all and another more than 0.001 of it); on request `distance`, metres from
        the middle of the pixel to the boundary of its winner, also where that is far outside of the grid, and
        `overlap`, the share that is claimed more than once.
    conflict
        "polygon", or "class": claims of one class are one claim then, and never contradict each other.
    width_m
        How wide lines and points are burnt, in metres, or the column that says so.
    min_coverage
        The share of a pixel that its winner has to cover, 0 to 1. Where it covers less, nobody wins: `class_map`,
        `parcel_id`, `coverage` and `distance` are there as where nobody claims anything. `conflict` and `overlap` tell
        of all claims, as they do with `rule="centre"`. Parcels smaller than that share of a pixel may vanish.
    legend
        What the codes mean: a Legend, the name of a published one such as `"corine"`, `{1: "wheat", 2: "barley"}`,
        `{"wheat": 1, "barley": 2}`, or the texts in the order of their numbers, `["wheat", "barley"]`. None: the legend
        that came with the labels, or the column `class_name` beside `ground_truth`, or the codes themselves. Texts are
        then numbered in their sorted order, for this table alone, which `notes` in the attrs says: give the same
        legend for all tables of a project to have one number for a class in all of them.

    Returns
    -------
    Dataset
        One variable for each layer, dims `(y, x)`, so that `xr.merge([patch, masks])` works on the same grid. The
        legend is in the attributes of `class_map`; what was repaired and set aside near the grid, and `notes`, in the
        Dataset's own, as JSON.

        >>> from odc.geo.geobox import GeoBox
        >>> from shapely import box
        >>> labels = gpd.GeoDataFrame(
        ...     {"ground_truth": ["oats", "rye"]}, geometry=[box(0, 0, 24, 40), box(24, 0, 40, 40)], crs="EPSG:32631"
        ... )
        >>> masks = rasterize(labels, GeoBox.from_bbox((0, 0, 40, 40), "EPSG:32631", resolution=10))
        >>> masks["class_map"].values[0], masks["coverage"].values[0], masks["conflict"].values[0]
        (array([1, 1, 2, 2], dtype=uint8), array([1. , 1. , 0.6, 1. ], dtype=float32), array([0, 0, 1, 0], dtype=uint8))
    """
    wanted = _check(layers, rule, conflict, min_coverage)
    bytes_per_pixel = sum(1 if name in ("class_map", "conflict") else 4 for name in wanted)
    check_memory(
        ", ".join(wanted), refined(grid_of(like), resolution), bytes_per_pixel, "Ask for fewer layers=, larger pixels"
    )
    ready = prepare(
        labels,
        like,
        value=value,
        resolution=resolution,
        background=background,
        width_m=width_m,
        legend=legend,
        outlines="distance" in wanted,
    )
    shape = (int(ready.geobox.shape.y), int(ready.geobox.shape.x))
    made = {_named(name, ready): _empty(name, ready, shape) for name in wanted}
    # The polygon of pixels that nobody claims is -1, the last one.
    classes = np.append(ready.classes, np.nan if ready.kind == "value" else ready.background)
    if "class_map" in wanted:
        classes = classes.astype(made[_named("class_map", ready)].dtype)
    numbers = np.append(ready.numbers, 0)
    parts = {"class_map": "winner", "parcel_id": "winner"}
    for (rows, columns), found in burn(
        ready.geometries,
        ready.classes,
        ready.geobox.affine,
        shape,
        rule=rule,
        conflict=conflict,
        min_coverage=float(min_coverage),
        layers={parts.get(name, name) for name in wanted},
        metres_per_unit=metres_per_unit(ready.geobox),
        outlines=ready.outlines,
    ):
        for name in wanted:
            target = made[_named(name, ready)]
            if name == "class_map":
                target[rows, columns] = classes[found["winner"]]
            elif name == "parcel_id":
                target[rows, columns] = numbers[found["winner"]]
            else:
                target[rows, columns] = found[name]
    variables = {name: variable(("y", "x"), array, _attrs(name, ready, value)) for name, array in made.items()}
    said = {"rule": rule, "conflict_between": conflict, "repairs": ready.repairs, "set_aside": ready.set_aside}
    attrs: dict[str, Any] = {
        name: entry if isinstance(entry, str) else json.dumps(entry) for name, entry in said.items()
    }
    if min_coverage:
        attrs["min_coverage"] = float(min_coverage)
    if ready.remarks:
        attrs["notes"] = json.dumps(ready.remarks)
    if "source" in labels.attrs:
        attrs["labels"] = str(labels.attrs["source"])
    same_grid = like if resolution is None else None
    return xr.Dataset(variables, coords=grid_coords(ready.geobox, same_grid), attrs=attrs)


def _check(layers: Iterable[str], rule: str, conflict: str, min_coverage: Any) -> list[str]:
    number = isinstance(min_coverage, (int, float, np.number)) and not isinstance(min_coverage, bool)
    if not (number and 0 <= min_coverage <= 1):
        raise InputError(f"min_coverage={min_coverage!r} is not a share of a pixel; give 0 to 1, such as 0.5.")
    for name, given, kind in (("rule", rule, Rule), ("conflict", conflict, Conflict)):
        if given not in get_args(kind):
            raise InputError(f"{name}={given!r} is not a choice; take {' or '.join(map(repr, get_args(kind)))}.")
    wanted = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    if unknown := [name for name in wanted if name not in get_args(Layer)]:
        raise InputError(f"There is no layer {unknown[0]!r}; there are {', '.join(get_args(Layer))}.")
    if not wanted:
        raise InputError(f"layers= is empty; take some of {', '.join(get_args(Layer))}.")
    return wanted


def _named(layer: str, ready: Prepared) -> str:
    return "value" if layer == "class_map" and ready.kind == "value" else layer


def _empty(layer: str, ready: Prepared, shape: tuple[int, int]) -> np.ndarray:
    """The layer as it is where no polygon is."""
    if layer == "class_map" and ready.kind == "class":
        # By the whole legend, so that all masks of a project have one type.
        codes = [ready.background, *ready.legend.codes] if ready.legend is not None else [MAX_NUMBER]
        kind = next(kind for kind in ("uint8", "uint16", "int32") if _holds(kind, codes))
        return np.full(shape, ready.background, dtype=kind)
    fill = {"class_map": np.nan, "distance": np.nan}.get(layer, 0)
    kind = {"parcel_id": "int32", "conflict": "uint8"}.get(layer, "float32")
    return np.full(shape, fill, dtype=kind)


def _holds(kind: str, codes: list[int]) -> bool:
    limits = np.iinfo(kind)
    return limits.min <= min(codes) and max(codes) <= limits.max


def _attrs(name: str, ready: Prepared, value: str) -> dict[str, Any]:
    attrs: dict[str, Any] = {"grid_mapping": "spatial_ref"}
    if name == "class_map":
        shift = {"shifted_by": ready.shifted_by} if ready.shifted_by else {}
        own = ready.legend.to_attrs() if ready.legend else {}
        return attrs | {"long_name": "class", "background": ready.background, **own, **shift}
    if name == "conflict":
        meanings = {"flag_values": list(range(len(CONFLICT_MEANINGS))), "flag_meanings": " ".join(CONFLICT_MEANINGS)}
        return attrs | {"long_name": "contradicting claims", **meanings}
    words = {
        "value": ("value", "1"),
        "parcel_id": ("number of the parcel, 0 for none", "1"),
        "coverage": ("share of the pixel that its polygon covers", "1"),
        "overlap": ("share of the pixel claimed more than once", "1"),
        "distance": ("distance to the boundary of its polygon", "m"),
    }
    long_name, units = words[name]
    own_words: dict[str, dict[str, Any]] = {"parcel_id": {"numbered": ready.numbered}, "value": {"column": value}}
    return attrs | {"long_name": long_name, "units": units, **own_words.get(name, {})}
