"""The masks of a corpus: labels made ready once, and cut for each sample.

Labels are read, cleaned and numbered before the first sample, so that a class has one number in the whole corpus. Where
samples lie close together their masks are cut from cells of a lattice that are burnt once, and kept for a while;
where they lie apart each window is burnt by itself. Which of the two it is follows from the plan alone, so that a build
that is resumed, retried or shared out gives the same masks.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from deepsentinel.errors import DeepSentinelWarning, InputError, warn
from deepsentinel.geometries import clean
from deepsentinel.grids import refined, transformer
from deepsentinel.labels import read_labels
from deepsentinel.labels.opening import RASTERS
from deepsentinel.labels.rasters import read_label_raster
from deepsentinel.legend import Legend
from deepsentinel.masks import parcel_numbers, rasterize
from deepsentinel.masks.classes import ClassColumn, checked

from .layout import ArraySpec
from .patches import PIXELS
from .places import numbers_of
from .reach import raster_box, samples_reached, touches
from .reader import grids_of
from .tiling import grid_at

if TYPE_CHECKING:
    import xarray as xr

LAYERS = ("class_map", "conflict")
ALL_LAYERS = ("class_map", "conflict", "parcel_id", "coverage", "overlap")
READ_OPTIONS = ("kind", "layer", "level", "value", "year", "tags", "flatten", "crs")
BURN_OPTIONS = ("rule", "conflict", "min_coverage")
OTHER_OPTIONS = ("labels", "layers", "resolution", "legend", "width_m", "alone", "dtype", "band")
CELL_PX = 1024
"""The side of a cell, in pixels of the mask."""
DENSE = 0.5
"""Cells of which windows want at least this share are burnt whole."""
# Wider than a continent, a box around the samples spares nothing.
WIDEST_DEG = 60.0


@dataclass(frozen=True)
class Mask:
    """One set of labels and how it is burnt; small enough to be sent to a worker."""

    name: str
    """What its arrays are called."""
    kind: str
    """table, raster or call."""
    layers: tuple[str, ...]
    """Which arrays there are."""
    resolution: float | None = None
    """Its own pixel size; None: that of the samples."""
    factor: int = 1
    """How many of its pixels lie side by side in one of theirs."""
    path: str | None = None
    """The table that was made ready, or the raster."""
    legend: str | None = None
    """The classes, as JSON."""
    burn: Mapping[str, Any] = field(default_factory=dict)
    """Options of `rasterize` or `read_label_raster`."""
    reach_m: float = 0.0
    """How far lines reach beyond their middle."""
    alone: bool = False
    """Whether each sample holds the label of its own place and no other."""
    make: Callable[[Any], Any] | None = None
    """The user's own function of the patch."""
    dtype: str = "uint8"
    """What that function gives."""
    outline: tuple[shapely.Geometry, str] | None = None
    """Where a raster lies, and in which CRS."""

    def arrays(self, grid: GeoBox, table: gpd.GeoDataFrame | None) -> xr.Dataset | None:
        """The mask on a grid; None where no label reaches it."""
        if self.kind == "raster":
            if self.outline is not None and not touches(*self.outline, grid):
                return None
            fine = refined(grid, self.resolution)
            return read_label_raster(str(self.path), fine, legend=self._legend(), **self.burn)
        assert table is not None
        near = table if self.alone else _near(table, grid, self.reach_m)
        if not len(near) and not self.alone:
            return None
        options = {"layers": self.layers, "legend": self._legend(), "resolution": self.resolution, **self.burn}
        return rasterize(near, grid, width_m="width_m" if "width_m" in near.columns else None, **options)

    def _legend(self) -> Any:
        return None if self.legend is None else Legend.from_json(self.legend)


@dataclass(frozen=True)
class Ready:
    """A mask that is ready, with what the driver must still do with it."""

    mask: Mask
    """What workers get."""
    specs: tuple[ArraySpec, ...]
    """Its arrays in the store."""
    table: gpd.GeoDataFrame | None = None
    """Labels to be written where workers find them."""
    reached: int | None = None
    """How many samples a label touches; None where nobody can tell."""


def ready_masks(
    labels: Mapping[str, Any] | None, samples: gpd.GeoDataFrame, settings: Mapping[str, Any]
) -> list[Ready]:
    """All masks of a corpus, made ready."""
    if labels is None:
        return []
    if not isinstance(labels, Mapping):
        raise InputError(
            f"labels= is a {type(labels).__name__}; give each a name: labels={{'corine': 'clc2018.gpkg'}}."
        )
    found = []
    for name, given in labels.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(
                f"labels={{{name!r}: ...}}: a name is of letters, digits and _, as arrays are called by it."
            )
        if name.lower().partition("_")[0] in PIXELS:
            raise InputError(f"labels={{{name!r}: ...}}: pixels are called so; give the labels another name.")
        options = dict(given) if isinstance(given, Mapping) else {"labels": given}
        if isinstance(options.get("layers"), str):
            options["layers"] = (options["layers"],)
        _check_options(name, options)
        found.append(_ready(name, options, samples, settings))
    return found


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    known = (*OTHER_OPTIONS, *BURN_OPTIONS, *READ_OPTIONS)
    for key in options:
        if key not in known:
            raise TypeError(f"labels={{{name!r}: ...}} has no option {key!r}. There are {', '.join(known)}.")
    if "labels" not in options:
        raise InputError(f"labels={{{name!r}: ...}} lacks 'labels': a path, a GeoDataFrame or a function.")
    wrong = [layer for layer in options.get("layers", LAYERS) if layer not in ALL_LAYERS]
    if wrong:
        raise InputError(f"labels={{{name!r}: ...}}: there is no layer {wrong[0]!r} in a corpus, but {ALL_LAYERS}.")


def _ready(name: str, options: dict[str, Any], samples: gpd.GeoDataFrame, settings: Mapping[str, Any]) -> Ready:
    given = options["labels"]
    grid = grids_of(samples.iloc[:1])[0]
    resolution = options.get("resolution")
    fine = refined(grid, resolution)
    mask = Mask(name, "table", tuple(options.get("layers", LAYERS)), resolution, fine.shape[0] // grid.shape[0])
    if callable(given) and not isinstance(given, gpd.GeoDataFrame):
        return _ready_call(mask, options, settings)
    if not isinstance(given, gpd.GeoDataFrame) and Path(str(given)).suffix.lower() in RASTERS:
        return _ready_raster(mask, options, samples)
    return _ready_table(mask, options, samples, grid)


def _ready_call(mask: Mask, options: Mapping[str, Any], settings: Mapping[str, Any]) -> Ready:
    if settings["series"]:
        raise InputError(f"labels={{{mask.name!r}: a function}} is made from patches, and these samples are series.")
    mask = replace(
        mask, kind="call", layers=("class_map",), make=options["labels"], dtype=options.get("dtype", "uint8")
    )
    legend = options.get("legend")
    attrs = Legend.from_json(legend).to_attrs() if isinstance(legend, str) else legend.to_attrs() if legend else {}
    return Ready(mask, (_spec(mask, "class_map", mask.dtype, attrs, int(settings["size_px"])),))


def _ready_raster(mask: Mask, options: Mapping[str, Any], samples: gpd.GeoDataFrame) -> Ready:
    burn = {key: options[key] for key in ("rule", "crs", "band") if key in options}
    mask = replace(mask, kind="raster", path=os.fspath(options["labels"]), burn=burn)

    def read(row: int) -> xr.Dataset:
        fine = refined(grids_of(samples.iloc[[row]])[0], mask.resolution)
        return read_label_raster(str(mask.path), fine, legend=options.get("legend"), **burn)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", DeepSentinelWarning)
        first = read(0)  # it says what is wrong with a file
    mask = replace(mask, outline=raster_box(str(mask.path), options.get("crs")))
    assert mask.outline is not None
    reached = samples_reached([mask.outline[0]], mask.outline[1], samples)
    if reached[0] or not reached.any():
        for one in said if reached[0] else ():
            warn(str(one.message))
    else:
        first = read(int(np.flatnonzero(reached)[0]))
    legend = options.get("legend")
    attrs = first["class_map"].attrs
    if legend is None and not attrs.get("shifted_by") and (legend_there := Legend.from_attrs(attrs)) is not None:
        # What the numbers of a file mean is settled once, and not by what happens to lie in each window.
        legend = legend_there
    if isinstance(legend, Legend):
        mask = replace(mask, legend=legend.to_json())
    elif legend is not None:
        mask = replace(mask, burn={**burn, "legend": legend})
    mask = replace(mask, layers=tuple(layer for layer in mask.layers if layer in first.data_vars))
    return Ready(mask, _specs(mask, first, int(samples["height"].iloc[0])), reached=int(reached.sum()))


def _ready_table(mask: Mask, options: Mapping[str, Any], samples: gpd.GeoDataFrame, grid: GeoBox) -> Ready:
    given, value = options["labels"], "ground_truth"
    if isinstance(given, gpd.GeoDataFrame):
        table, value = given, str(options.get("value") or value)
    else:
        reading = {key: options[key] for key in READ_OPTIONS if key in options}
        west, south, east, north = samples.total_bounds
        # In a box the labels would have other numbers than in the whole file, and places are called by these.
        whole = options.get("alone") or max(east - west, north - south) > WIDEST_DEG
        box = None if whole else (west, south, east, north)
        table = read_labels(given, bbox=_wider(box), **reading)
    table = checked(table, value)
    column = ClassColumn.of(table, value, options.get("legend"), 0)
    if column.kind != "class":
        raise InputError(f"labels={{{mask.name!r}: ...}}: {value!r} holds measured values; a corpus keeps classes.")
    numbers = parcel_numbers(table, value=value, legend=options.get("legend"))["number"].to_numpy()
    place = numbers_of(table)
    width = options.get("width_m", "width_m" if "width_m" in table.columns else None)
    widths = None if width is None else table[width].to_numpy(float) if isinstance(width, str) else float(width)
    part = clean(table, value=value)
    at = part.positions
    made = {"ground_truth": column.codes[at], "id": numbers[at].astype("int64"), "place": place[at]}
    if widths is not None:
        made["width_m"] = widths[at] if isinstance(widths, np.ndarray) else np.full(len(at), widths)
    slim = gpd.GeoDataFrame(made, geometry=np.asarray(part.table.geometry.array, dtype=object), crs=table.crs)
    reach = 0.0 if widths is None else float(np.nanmax(np.r_[0.0, widths])) / 2
    burn = {key: options[key] for key in BURN_OPTIONS if key in options}
    legend = column.legend or Legend.of_codes(column.present)
    alone = bool(options.get("alone"))
    mask = replace(mask, legend=legend.to_json(), burn=burn, reach_m=reach, alone=alone)
    slim = _of_places(slim, samples, mask.name) if alone else _near_any(slim, samples, mask)
    with warnings.catch_warnings():
        # Type and attributes of the arrays follow from the legend; that nothing is burnt is the point.
        warnings.simplefilter("ignore", DeepSentinelWarning)
        first = replace(mask, alone=True).arrays(grid, slim.iloc[:0])
    reached = int(samples_reached(slim.geometry.array, slim.crs, samples, reach).sum())
    return Ready(mask, _specs(mask, first, grid.shape[0]), slim.reset_index(drop=True), reached)


def _of_places(table: gpd.GeoDataFrame, samples: gpd.GeoDataFrame, name: str) -> gpd.GeoDataFrame:
    """The labels that samples were planned around."""
    places = samples["place"].unique()
    found = table[table["place"].isin(places)]
    lacking = len(places) - found["place"].nunique()
    if lacking:
        warn(
            f"labels={{{name!r}: ...}}: {lacking} of {len(places)} places have no label of their own, and their masks"
            " are empty. Give the labels that parcel_windows was given, with the same index."
        )
    return found


def _wider(box: Any) -> Any:
    if box is None:
        return None
    # As far as a cell of the lattice reaches beyond a window.
    up = 2 * CELL_PX * 10 / 111_000
    aside = up / max(np.cos(np.radians(min(max(abs(box[1]), abs(box[3])), 85))), 0.05)
    return max(box[0] - aside, -180), max(box[1] - up, -90), min(box[2] + aside, 180), min(box[3] + up, 90)


def _specs(mask: Mask, first: xr.Dataset | None, size_px: int) -> tuple[ArraySpec, ...]:
    found = []
    assert first is not None
    for layer in mask.layers:
        attrs = {key: value for key, value in first[layer].attrs.items() if key != "grid_mapping"}
        found.append(_spec(mask, layer, str(first[layer].dtype), attrs, size_px))
    return tuple(found)


def _spec(mask: Mask, layer: str, dtype: str, attrs: Mapping[str, Any], size_px: int) -> ArraySpec:
    side = size_px * mask.factor
    dims = ("sample", "y", "x") if mask.factor == 1 else ("sample", f"y_{mask.name}", f"x_{mask.name}")
    return ArraySpec(f"{mask.name}_{layer}", dtype, dims, (side, side), 0, dict(attrs))


def _box_in(grid: GeoBox, crs: Any, reach_m: float) -> Any:
    """The bounds of a grid in another CRS, and a little more."""
    box = grid.boundingbox
    edge = np.linspace(0, 1, 9)
    margin = reach_m + abs(grid.affine.a)
    left, right, bottom, top = box.left - margin, box.right + margin, box.bottom - margin, box.top + margin
    x = np.r_[left + edge * (right - left), left + edge * (right - left), np.full(9, left), np.full(9, right)]
    y = np.r_[np.full(9, bottom), np.full(9, top), bottom + edge * (top - bottom), bottom + edge * (top - bottom)]
    x, y = transformer(str(grid.crs), crs).transform(x, y)
    return shapely.box(np.min(x), np.min(y), np.max(x), np.max(y))


def _near(table: gpd.GeoDataFrame, grid: GeoBox, reach_m: float) -> gpd.GeoDataFrame:
    found = np.sort(table.sindex.query(_box_in(grid, table.crs, reach_m)))
    return table.iloc[found]


def _near_any(table: gpd.GeoDataFrame, samples: gpd.GeoDataFrame, mask: Mask) -> gpd.GeoDataFrame:
    """The labels that a window, or a cell it is cut from, may reach."""
    grids = {(str(grid.crs), grid.affine): grid for grid in grids_of(samples)}
    beyond = mask.reach_m + CELL_PX * max(abs(grid.affine.a) for grid in grids.values()) / mask.factor
    boxes = np.array([_box_in(grid, table.crs, beyond) for grid in grids.values()], dtype=object)
    _, found = table.sindex.query(boxes)[:2]
    return table.iloc[np.unique(found)]


def cells_under(rows: pd.DataFrame, cell_px: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each window and cell of the lattice under it: the window, the cell (a number), and the pixels they share."""
    transform = np.array(rows["transform"].tolist())
    step, size = transform[:, 0], rows["width"].to_numpy(float)
    zones, zone = np.unique(rows["crs"].astype(str), return_inverse=True)
    at = np.stack([np.floor(transform[:, 2] / step + 1e-6), np.floor(-transform[:, 5] / step + 1e-6)]).astype("int64")
    first, last = at // cell_px, (at + size.astype("int64") - 1) // cell_px
    windows, keys, shared = [], [], []
    most = int((last - first).max()) + 1 if len(rows) else 0
    for across in range(most):
        for down in range(most):
            cell = first + np.array([[across], [down]])
            held = (cell <= last).all(axis=0)
            low = np.maximum(at, cell * cell_px)
            high = np.minimum(at + size.astype("int64"), (cell + 1) * cell_px)
            windows.append(np.flatnonzero(held))
            keys.append(np.stack([zone, *cell], axis=1)[held])
            shared.append(np.prod(high - low, axis=0)[held])
    del zones
    _, numbers = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    return np.concatenate(windows), numbers.ravel(), np.concatenate(shared)


def dense(rows: pd.DataFrame, factor: int = 1) -> np.ndarray:
    """Which samples lie so close together that their masks are cut from cells."""
    cell_px = max(CELL_PX // factor, 1)
    window, cell, shared = cells_under(rows, cell_px)
    share = np.bincount(cell, weights=shared) / cell_px**2
    lowest = np.full(len(rows), np.inf)
    np.minimum.at(lowest, window, share[cell])
    return lowest >= DENSE


def cell_grid(crs: str, step: float, phase: tuple[float, float], column: int, row: int, cell_px: int) -> GeoBox:
    """The grid of one cell, counted to the east and to the south of the origin of the CRS."""
    x, y = phase[0] + column * cell_px * step, phase[1] - row * cell_px * step
    return GeoBox((cell_px, cell_px), Affine(step, 0, x, 0, -step, y), crs)


def made(mask: Mask, patch: Any, spec: ArraySpec) -> dict[str, np.ndarray]:
    """What the user's own function says, checked."""
    assert mask.make is not None
    try:
        given = mask.make(patch)
        values = np.asarray(given["class_map"] if hasattr(given, "data_vars") else given)
    except Exception as error:  # whatever the user's own code raises
        raise InputError(f"The function of labels {mask.name!r} failed: {type(error).__name__}: {error}") from error
    if values.shape != spec.shape:
        raise InputError(f"The function of labels {mask.name!r} gave {values.shape}, not {spec.shape} pixels.")
    return {spec.name: values.astype(spec.dtype)}


def sample_grid(row: Any) -> GeoBox:
    """The grid of one row."""
    return grid_at(str(row["crs"]), row["transform"], row["height"], row["width"])
