"""Samples of one parcel each: how large a window must be to hold most parcels, and the masks in such a window."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from deepsentinel.aoi import utm_crs
from deepsentinel.errors import InputError, warn
from deepsentinel.geometries import clean
from deepsentinel.grids import bounds_of, crs_of, grid_of, refined, same_crs, transformer
from deepsentinel.legend import LegendLike

from .claims import Layer, Rule
from .classes import checked, stored_legend

if TYPE_CHECKING:
    import xarray as xr

# A parcel may reach out of its window by this share of a pixel: coordinates are rounded.
_SLACK_PX = 1e-6


@dataclass(frozen=True)
class ParcelSizes:
    """How large parcels are in pixels, from `parcel_sizes`."""

    table: pd.DataFrame
    """One row a parcel, with the index of the labels: `width_px, height_px` (of the box around it, in its UTM zone),
    `side_px` (the smallest window from `parcel_window` that holds it) and `area_m2`."""
    resolution_m: float
    """The size of a pixel."""
    set_aside: list[dict[str, Any]] = field(default_factory=list)
    """`row, id, reason, wkt` of labels that are no usable polygons."""

    def window(self, share: float = 0.9) -> int:
        """The smallest window, in pixels a side, that holds at least this share of the parcels whole."""
        number = isinstance(share, (int, float, np.number)) and not isinstance(share, bool)
        if not (number and 0 < share <= 1):
            raise InputError(f"share={share!r} is not a share of the parcels; give one up to 1, such as 0.9.")
        sides = np.sort(self.table["side_px"].to_numpy())
        # 0.07 x 100 is 7.000000000000001 here, and yet seven of a hundred are enough.
        return int(sides[max(math.ceil(share * len(sides) - 1e-9), 1) - 1])

    def share_held(self, size_px: int) -> float:
        """The share of the parcels that a window of `size_px` holds whole."""
        return float((self.table["side_px"] <= size_px).mean())

    def __repr__(self) -> str:
        sides = ", ".join(f"{share:.0%} in {self.window(share)}" for share in (0.5, 0.9, 0.99, 1.0))
        return f"ParcelSizes({len(self.table):,} parcels, pixels of {self.resolution_m:g} m: {sides} px)"


def parcel_sizes(labels: gpd.GeoDataFrame, resolution: float = 10) -> ParcelSizes:
    """How many pixels across parcels are, to choose the size of a window that holds most of them.

    `resolution` is the size of a pixel in metres. Each parcel is measured in the UTM zone of its middle, as
    `parcel_window` lays it. Labels that are no polygons are set aside and returned.

        >>> labels = gpd.GeoDataFrame(crs="EPSG:32631", geometry=[
        ...     shapely.box(500_000, 0, 500_090 + 10 * n, 40) for n in range(10)])
        >>> sizes = parcel_sizes(labels)
        >>> sizes.window(0.9), sizes.share_held(12)
        (17, 0.4)
    """
    _check_positive("resolution", resolution, "metres, such as resolution=10")
    cleaned = clean(labels, value=None, keep_kinds=("polygon",))
    if cleaned.table.empty:
        raise InputError(
            f"None of the {len(labels)} labels is a usable polygon, so there is no size to tell"
            + (f": row {cleaned.set_aside[0]['row']}: {cleaned.set_aside[0]['reason']}." if cleaned.set_aside else ".")
        )
    shapes, _ = _in_utm(np.asarray(cleaned.table.geometry.array, dtype=object), labels.crs)
    edges = shapely.bounds(shapes) / resolution
    table = pd.DataFrame(
        {
            "width_px": edges[:, 2] - edges[:, 0],
            "height_px": edges[:, 3] - edges[:, 1],
            "side_px": _sides_px(edges),
            "area_m2": shapely.area(shapes),
        },
        index=cleaned.table.index,
    )
    return ParcelSizes(table, float(resolution), cleaned.set_aside)


def parcel_window(
    parcel: gpd.GeoDataFrame,
    size_px: int,
    *,
    like: Any = None,
    resolution: float | None = None,
    value: str = "ground_truth",
    background: int = 0,
    rule: Rule = "coverage",
    layers: Iterable[Layer] = ("class_map", "parcel_id", "coverage", "conflict"),
    width_m: float | str | None = None,
    min_coverage: float = 0.0,
    legend: LegendLike | None = None,
) -> xr.Dataset:
    """The masks of one parcel in a square window around it; everything else in it is background.

    Parameters
    ----------
    parcel
        A table of one row: `labels.iloc[[7]]`, or `labels[labels.id == 4711]`.
    size_px
        Pixels a side; `parcel_sizes(labels).window(0.9)` tells how many hold 90 % of the parcels. A parcel that is
        larger is cut off, with a warning.
    like
        A patch, a DataArray or a GeoBox whose pixels the window continues; it may reach beyond. None: the pixels of
        Sentinel-2 in the UTM zone of the parcel.
    resolution
        The size of the pixels. None: 10 m, or that of `like`.
    value, background, rule, layers, width_m, min_coverage, legend
        As in `rasterize`. A parcel alone keeps every pixel that it touches; with `min_coverage=0.5` those of which it
        covers half, which are about as many as its area.
        `parcel_id` is the id where that is a positive whole number; of any other the parcel is the first of its table
        of one row, which its attribute `numbered` says: "sorted".

    Returns
    -------
    Dataset
        What `rasterize` gives, on a grid whose middle is that of the box around the parcel, within half a pixel. To
        read the pixels that go with it: `src.read(pair, ds.geobox(window))`.

        >>> parcel = gpd.GeoDataFrame({"ground_truth": [3]}, geometry=[shapely.box(2, 48, 2.001, 48.001)], crs=4326)
        >>> window = parcel_window(parcel, 16)
        >>> window.sizes["y"], window.sizes["x"], window.class_map.values[:, 8].tolist()
        (16, 16, [0, 0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0, 0])
    """
    from . import rasterize

    if isinstance(size_px, bool) or not isinstance(size_px, (int, np.integer)) or size_px < 1:
        raise InputError(f"size_px={size_px!r} is not a number of pixels; give 1 or more, such as size_px=64.")
    if not isinstance(parcel, gpd.GeoDataFrame) or len(parcel) != 1:
        given = f"a table of {len(parcel)} rows" if isinstance(parcel, gpd.GeoDataFrame) else type(parcel).__name__
        raise InputError(
            f"parcel= is {given}; one parcel as a table of one row is needed, as a row alone has no CRS: write"
            " labels.iloc[[7]], with two pairs of brackets."
        )
    parcel = checked(parcel, value)
    cleaned = clean(parcel[[value, parcel.geometry.name]], value=value)
    if cleaned.table.empty:
        reason = cleaned.set_aside[0]["reason"]
        classless = f"; labels[labels[{value!r}].notna()] are those with one" if reason == f"no {value}" else ""
        raise InputError(f"There is no window around this parcel, as it cannot be burnt: {reason}{classless}.")
    if legend is None:
        _check_class(parcel, background, value)
    shapes = np.asarray(cleaned.table.geometry.array, dtype=object)
    geobox = _window(shapes, parcel.crs, int(size_px), like, resolution)
    return rasterize(
        parcel,
        geobox,
        value=value,
        background=background,
        rule=rule,
        layers=layers,
        width_m=width_m,
        min_coverage=min_coverage,
        legend=legend,
    )


def _check_class(parcel: gpd.GeoDataFrame, background: int, value: str) -> None:
    """What a class is called may depend on the others of its table, which are not here."""
    code = parcel[value].iloc[0]
    has_legend = stored_legend(parcel, value, [code]) is not None
    if isinstance(code, str) and not has_legend:
        raise InputError(
            f"Column {value!r} holds texts, which are numbered over a whole table, and this is one row of it. Give"
            f" legend=Legend.of_texts(labels[{value!r}]), so that all windows agree."
        )
    if not has_legend and not isinstance(code, float) and code == background:
        raise InputError(
            f"The parcel is of class {code}, which is also the background. Choose another background=, such as 255, for"
            " all windows."
        )


def _window(shapes: np.ndarray, crs: pyproj.CRS, size_px: int, like: Any, resolution: float | None) -> GeoBox:
    """The square of whole pixels whose middle is nearest to that of the parcel."""
    target: Any
    if like is None:
        step = 10.0 if resolution is None else resolution
        _check_positive("resolution", step, "metres, such as resolution=10")
        there, names = _in_utm(shapes, crs)
        lattice, target = Affine(step, 0, 0, 0, -step, 0), names[0]
    else:
        grid = refined(grid_of(like), resolution)
        lattice, target = grid.affine, grid.crs
        there = shapely.transform(shapes, transformer(crs, crs_of(grid)).transform, interleaved=False)
    left, bottom, right, top = shapely.bounds(there[0])
    if not np.isfinite([left, bottom, right, top]).all():
        raise InputError("The parcel has no place in the CRS of like=; leave it out for a window in the UTM zone.")
    x = np.sort((np.array([left, right]) - lattice.c) / lattice.a)
    y = np.sort((np.array([top, bottom]) - lattice.f) / lattice.e)
    column, row = (float(np.floor(side.mean() - size_px / 2 + 0.5)) for side in (x, y))
    corner = (lattice.c + lattice.a * column, lattice.f + lattice.e * row)
    geobox = GeoBox((size_px, size_px), Affine(lattice.a, 0, corner[0], 0, lattice.e, corner[1]), target)
    window = shapely.box(*bounds_of(geobox))
    needed = int(_sides_px(np.array([[x[0], y[0], x[1], y[1]]]))[0])
    if needed > size_px and shapely.area(there[0]) > 0:
        outside = 1 - shapely.area(shapely.intersection(there[0], window)) / shapely.area(there[0])
        warn(
            f"The parcel reaches out of a window of {size_px} px with {outside:.2%} of its area; size_px={needed} would"
            " hold it."
        )
    return geobox


def _sides_px(edges: np.ndarray) -> np.ndarray:
    """The smallest windows that hold boxes (left, bottom, right, top in pixels) as `_window` lays them.

    The middle of a window of an even number of pixels is a corner of pixels, of an odd number the middle of one. The
    box needs room for its extent and, on both sides, for how far its middle is from there.
    """
    sides = []
    for odd in (0, 1):
        room = []
        for low, high in ((0, 2), (1, 3)):
            middle = (edges[:, low] + edges[:, high]) / 2 + odd / 2
            room.append(edges[:, high] - edges[:, low] + 2 * np.abs(middle - np.round(middle)))
        sides.append(np.maximum(np.ceil((np.maximum(*room) - odd - _SLACK_PX) / 2), 1 - odd) * 2 + odd)
    return np.minimum(*sides).astype(np.int64)


def _in_utm(shapes: np.ndarray, crs: pyproj.CRS) -> tuple[np.ndarray, list[str]]:
    """Each shape in the UTM zone of the middle of its bounds, and the name of that zone."""
    edges = shapely.bounds(shapes)
    lon, lat = transformer(crs, "EPSG:4326").transform((edges[:, 0] + edges[:, 2]) / 2, (edges[:, 1] + edges[:, 3]) / 2)
    # A million calls are saved by asking once for all places that share a zone.
    near = np.stack([np.floor((lon + 180) / 6), lat >= 0, lat > 84, lat < -80])
    _, first, zone = np.unique(near, axis=1, return_index=True, return_inverse=True)
    names = [utm_crs(float(lon[at]), float(lat[at])) for at in first]
    moved = shapes.copy()
    for number, name in enumerate(names):
        if same_crs(crs, name):
            continue
        to = transformer(crs, name)
        mine = zone.ravel() == number
        moved[mine] = shapely.transform(shapes[mine], to.transform, interleaved=False)
    return moved, [names[number] for number in zone.ravel()]


def _check_positive(name: str, given: Any, example: str) -> None:
    number = isinstance(given, (int, float, np.number)) and not isinstance(given, bool)
    if not (number and math.isfinite(given) and given > 0):
        raise InputError(f"{name}={given!r} is not a size; give {example}.")
