"""How much of each pixel, or of a whole patch, each class covers: exactly, ground under several labels counted once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
from affine import Affine

from deepsentinel.errors import InputError
from deepsentinel.grids import grid_coords, refined
from deepsentinel.legend import Legend, LegendLike
from deepsentinel.progress import progress

from .claims import blocks_of
from .overlap import covered_share
from .prepare import Prepared, check_memory, prepare

if TYPE_CHECKING:
    import xarray as xr


def class_fractions(
    labels: gpd.GeoDataFrame,
    like: Any,
    *,
    value: str = "ground_truth",
    resolution: float | None = None,
    classes: Sequence[int | str] | None = None,
    level: int | None = None,
    width_m: float | str | None = None,
    legend: LegendLike | None = None,
) -> xr.DataArray:
    """The share of each pixel that each class covers, for learning below the size of a pixel.

    Parameters
    ----------
    labels
        A label table, from `read_labels` or any GeoDataFrame with a CRS and a column of classes.
    like
        The grid: a patch, a DataArray or a GeoBox.
    value
        The column of the classes: whole numbers, or texts, which are numbered as `rasterize` numbers them. There is no
        background here, so class 0 stays 0, also where `rasterize` shifts the codes of its mask.
    resolution
        The size of pixels that divide those of `like`; None for those of `like`. Pixels of 2.5 m add up to those of
        10 m.
    classes
        Which codes or names, in the order they should have; all have to be in the legend. None: those that occur
        anywhere in the table, also far from the grid, so that all patches of one table get the same. Where there are
        several tables, name them, or give all of a legend: `classes=legend.codes`.
    level
        A coarser level of the legend, 1 being the coarsest: for CORINE 1, 2 or 3.
    width_m
        How wide lines and points are: metres, or the name of a column.
    legend
        Names and colours, as `rasterize` takes them; by default those that came with the labels.

    Returns
    -------
    DataArray
        float32, (class, y, x), from 0 to 1. Where labels of one class overlap, their ground counts once, so no class
        exceeds 1; labels of different classes may overlap, and their sum then exceeds 1. What is missing to 1 is no
        class. `class_name` names the classes, and `DataArray["class"].attrs` holds the legend.

        >>> import shapely
        >>> labels = gpd.GeoDataFrame({"ground_truth": ["oats", "rye"]}, crs="EPSG:32631",
        ...     geometry=[shapely.box(0, 0, 25, 40), shapely.box(25, 0, 40, 40)])
        >>> from odc.geo.geobox import GeoBox
        >>> share = class_fractions(labels, GeoBox.from_bbox((0, 0, 40, 40), "EPSG:32631", resolution=10))
        >>> share[:, 0].values.tolist(), share.class_name.values.tolist()
        ([[1.0, 1.0, 0.5, 0.0], [0.0, 0.0, 0.5, 1.0]], ['oats', 'rye'])
    """
    import xarray as xr

    # On the grid of `like` whatever the resolution, as curved edges are followed more or less closely on others.
    ready = prepare(labels, like, value=value, keep_codes=True, width_m=width_m, legend=legend)
    wanted = _Wanted.of(ready, classes, level, value, only_present=True)
    geobox = refined(ready.geobox, resolution)
    rows, columns = geobox.shape
    count = len(wanted.codes)
    check_memory(f"{count} classes", geobox, count * 4, "Name those you need with classes=[..], take a coarser level=")
    found = np.zeros((len(wanted.codes), rows, columns), dtype=np.float32)
    a = geobox.affine
    blocks = list(blocks_of(ready.geometries, a, (rows, columns)))
    for block in progress(blocks, total=len(blocks), what="class fractions", unit="block"):
        corner = Affine(a.a, 0, a.c + a.a * block.column, 0, a.e, a.f + a.e * block.row)
        window = (
            slice(block.row, block.row + block.shape[0]),
            slice(block.column, block.column + block.shape[1]),
        )
        channels = wanted.channel[block.members]
        for channel in np.unique(channels[channels >= 0]):
            mine = ready.geometries[block.members[channels == channel]]
            found[channel, *window] = covered_share(mine, corner, block.shape)
    attrs = {"long_name": "share of the pixel", "units": "1", "grid_mapping": "spatial_ref"}
    if ready.remarks:
        attrs["notes"] = json.dumps(ready.remarks)
    if "source" in labels.attrs:
        attrs["labels"] = str(labels.attrs["source"])
    coords = {
        "class": ("class", np.array(wanted.codes, dtype="int32"), wanted.legend.to_attrs()),
        "class_name": ("class", wanted.names()),
        **grid_coords(geobox, like if resolution is None else None),
    }
    return xr.DataArray(found, coords, ("class", "y", "x"), "class_fraction", attrs)


def label_vector(
    labels: gpd.GeoDataFrame,
    like: Any,
    *,
    min_share: float = 0.01,
    value: str = "ground_truth",
    classes: Sequence[int | str] | None = None,
    level: int | None = None,
    width_m: float | str | None = None,
    legend: LegendLike | None = None,
) -> pd.DataFrame:
    """Which classes are in a patch, and how much of it each covers: the label of multi-label classification.

    `min_share` is the smallest share of the patch that counts as present, 0 to 1; at 0 any ground at all does. All
    other arguments are those of `class_fractions`, but for `classes=None`, which is all of the legend here.

    Returns a table with one row a class of the legend, also those that are not in the patch, so that all patches give
    vectors of one length: index `class` (the code), columns `name`, `share` (of the area of the patch; ground under
    several labels of a class counts once) and `present`. `table.present.to_numpy()` is the multi-hot vector.

        >>> import shapely
        >>> labels = gpd.GeoDataFrame({"ground_truth": ["oats", "rye"]}, crs="EPSG:32631",
        ...     geometry=[shapely.box(0, 0, 39, 40), shapely.box(39, 0, 40, 10)])
        >>> from odc.geo.geobox import GeoBox
        >>> label_vector(labels, GeoBox.from_bbox((0, 0, 40, 40), "EPSG:32631", resolution=10))
               name    share  present
        class
        1      oats  0.97500     True
        2       rye  0.00625    False
    """
    number = isinstance(min_share, (int, float, np.number)) and not isinstance(min_share, bool)
    if not (number and 0 <= min_share <= 1):
        raise InputError(f"min_share={min_share!r} is not a share of the patch; give 0 to 1, such as min_share=0.01.")
    ready = prepare(labels, like, value=value, keep_codes=True, width_m=width_m, legend=legend)
    wanted = _Wanted.of(ready, classes, level, value, only_present=False)
    rows, columns = ready.geobox.shape
    # The whole patch as one pixel.
    a = ready.geobox.affine
    affine = Affine(a.a * columns, 0, a.c, 0, a.e * rows, a.f)
    shares = np.zeros(len(wanted.codes))
    for channel in np.unique(wanted.channel[wanted.channel >= 0]):
        shares[channel] = covered_share(ready.geometries[wanted.channel == channel], affine, (1, 1))[0, 0]
    table = pd.DataFrame(
        {"name": wanted.names(), "share": shares, "present": (shares > 0) & (shares >= min_share)},
        index=pd.Index(wanted.codes, name="class"),
    )
    table.attrs = {"min_share": float(min_share), "legend": wanted.legend.to_json()}
    return table


def legend_of(ready: Prepared, value: str) -> Legend:
    """What the codes of prepared labels mean; an error for labels that hold values."""
    if ready.kind == "value":
        raise InputError(
            f"Column {value!r} holds floats, which are values to regress and have no classes. If they are codes,"
            f" convert them: labels[{value!r}] = labels[{value!r}].astype('Int64')."
        )
    if ready.legend is None:
        raise InputError(
            f"Column {value!r} holds {len(ready.present)} different numbers, which are hardly classes. Name the column"
            " of the classes as value=, or say what they mean with legend=."
        )
    return ready.legend


@dataclass(frozen=True)
class _Wanted:
    """The classes to tell of, and which of them each polygon belongs to."""

    codes: tuple[int, ...]
    channel: np.ndarray
    """Position in `codes` for each polygon; -1 for one that is not wanted."""
    legend: Legend
    """Of the wanted classes."""

    def names(self) -> list[str]:
        return [self.legend[code].name for code in self.codes]

    @classmethod
    def of(
        cls, ready: Prepared, classes: Sequence[int | str] | None, level: int | None, value: str, *, only_present: bool
    ) -> _Wanted:
        legend, of_polygon, present = legend_of(ready, value), ready.classes, np.array(ready.present, dtype=np.int64)
        if level is not None:
            of_polygon, present = legend.up(of_polygon, level), legend.up(present, level)
            legend = legend.at(level)
        codes = legend.codes
        if classes is not None:
            codes = _checked(classes, legend)
        elif only_present and len(present):
            # In the order of the legend, which may be another one than that of the numbers.
            codes = tuple(code for code in legend.codes if code in set(present.tolist()))
        position = {code: channel for channel, code in enumerate(codes)}
        there, which = np.unique(of_polygon, return_inverse=True)
        channel = np.array([position.get(int(code), -1) for code in there], dtype=np.int64)[which]
        chosen = tuple(legend[code] for code in codes)
        return cls(tuple(codes), channel, Legend(legend.name, chosen, legend.coarser))


def _checked(classes: Sequence[int | str], legend: Legend) -> tuple[int, ...]:
    given = [classes] if isinstance(classes, (str, int, np.integer)) else list(classes)
    if not given or any(isinstance(entry, bool) or not isinstance(entry, (int, str, np.integer)) for entry in given):
        raise InputError(f"classes={classes!r} are neither codes nor names; give some, such as classes=[1, 2, 5].")
    names: dict[str, list[int]] = {}
    for code, name in legend.names.items():
        names.setdefault(name, []).append(code)
    codes: list[int] = []
    for entry in given:
        found = names.get(entry.strip(), []) if isinstance(entry, str) else [int(entry)] if entry in legend else []
        if len(found) != 1:
            known = ", ".join(f"{code} {name}" for code, name in list(legend.names.items())[:12])
            more = f" and {len(legend) - 12} more" if len(legend) > 12 else ""
            why = f"is the name of {found}; give its code" if found else "is in neither the legend nor the labels"
            raise InputError(
                f"classes=: {entry!r} {why}. There are {known}{more}. Where other tables have further classes, give the"
                " legend of all of them as legend=."
            )
        codes += found
    if len(set(codes)) < len(codes):
        raise InputError(f"classes={classes!r} names a class twice; give each once.")
    return tuple(codes)
