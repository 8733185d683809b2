"""Labels as objects to detect: a box and a mask of its own for each, in the form that torchvision's detectors take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
from odc.geo.geobox import GeoBox

from deepsentinel.errors import InputError
from deepsentinel.geometries import kinds
from deepsentinel.grids import bounds_of, crs_of, same_crs, transformer
from deepsentinel.legend import Legend, LegendLike
from deepsentinel.progress import progress

from .coverage import claims
from .fractions import legend_of
from .overlap import polygons_in
from .prepare import Prepared, prepare

# A pixel belongs to the mask of an object that covers at least this share of it.
_HALF = 0.5
# Objects that are looked at together, which bounds the memory.
_CHUNK = 10_000
# A cylindrical map on which areas are true.
_EQUAL_AREA = pyproj.Proj("+proj=cea +lat_ts=30 +ellps=WGS84 +over")


@dataclass(frozen=True)
class Instance:
    """The pixels of one object: a small mask, and where on the grid it lies."""

    top: int
    """The row of the grid that is the first of the mask."""
    left: int
    """The column of the grid that is the first of the mask."""
    mask: np.ndarray
    """bool, (y, x); True in at least one pixel, and in its first and last row and column."""


@dataclass(frozen=True)
class Objects:
    """All objects on one grid, from `boxes`. The arrays are aligned, in the order of class, id and area."""

    boxes: np.ndarray
    """float32, (n, 4): left, top, right, bottom in pixels from the corner of the grid, so that the first pixel runs
    from 0 to 1. right > left and bottom > top, always."""
    classes: np.ndarray
    """int64, the codes as they stand in the class map."""
    ids: np.ndarray
    """The column `id` of the labels, or the position of the row."""
    rows: np.ndarray
    """Position in the table of labels."""
    area_px: np.ndarray
    """float64, what the object covers of the grid, in pixels; exact, not a count."""
    visible_share: np.ndarray
    """float64, the share of the object that lies on the grid; below 1 for what the edge cuts."""
    instances: tuple[Instance, ...]
    """The pixels of each object."""
    legend: Legend
    """What the codes mean."""
    geobox: GeoBox
    """The grid."""
    labels: str | None = None
    """The file that the labels were read from, where that is known."""

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        rows, columns = self.geobox.shape
        counts = pd.Series(self.classes).value_counts()
        names = ", ".join(f"{count} {self._name(code)}" for code, count in counts.head(6).items())
        return f"Objects({len(self)} on {rows} x {columns} pixels{': ' if names else ''}{names})"

    def _name(self, code: Any) -> str:
        return self.legend[int(code)].name if int(code) in self.legend else str(code)

    @property
    def table(self) -> gpd.GeoDataFrame:
        """One row an object: `ground_truth, name, id, area_px, visible_share` and the box on the ground."""
        a = self.geobox.affine
        left, top, right, bottom = self.boxes.astype(np.float64).T
        outlines = shapely.box(a.c + a.a * left, a.f + a.e * bottom, a.c + a.a * right, a.f + a.e * top)
        columns = {
            "ground_truth": self.classes,
            "name": [self._name(code) for code in self.classes],
            "id": self.ids,
            "area_px": self.area_px,
            "visible_share": self.visible_share,
        }
        return gpd.GeoDataFrame(columns, geometry=outlines, crs=crs_of(self.geobox))

    def masks(self) -> np.ndarray:
        """All masks at the size of the grid: uint8, (n, y, x)."""
        dense = np.zeros((len(self), *self.geobox.shape), dtype=np.uint8)
        for layer, item in zip(dense, self.instances, strict=True):
            rows, columns = item.mask.shape
            layer[item.top : item.top + rows, item.left : item.left + columns] = item.mask
        return dense

    def target(self) -> dict[str, np.ndarray]:
        """What torchvision's detection models take for one image, as arrays: boxes, labels, masks, area, iscrowd.

        `labels` count from 1 in the order of the legend, as 0 is their background; a model needs
        `num_classes=len(objects.legend) + 1`. As tensors:
        `{name: torch.from_numpy(array) for name, array in objects.target().items()}`.
        """
        position = {code: number for number, code in enumerate(self.legend.codes, start=1)}
        return {
            "boxes": self.boxes,
            "labels": np.array([position[code] for code in self.classes.tolist()], dtype=np.int64),
            "masks": self.masks(),
            "area": self.area_px.astype(np.float32),
            "iscrowd": np.zeros(len(self), dtype=np.int64),
        }


def boxes(
    labels: gpd.GeoDataFrame,
    like: Any,
    *,
    value: str = "ground_truth",
    resolution: float | None = None,
    min_area_px: float = 0.0,
    min_visible_share: float = 0.0,
    background: int = 0,
    width_m: float | str | None = None,
    legend: LegendLike | None = None,
) -> Objects:
    """Each label as an object: its box, its pixels and its class, for detection and instance segmentation.

    Parameters
    ----------
    labels
        A label table. Each row is one object, also where it has several parts; `labels.explode()` makes them several.
    like
        The grid: a patch, a DataArray or a GeoBox.
    value
        The column of the classes: whole numbers, or texts, which are numbered.
    resolution
        The size of pixels that divide those of `like`; None for those of `like`.
    min_area_px
        Leave out objects that cover less than this on the grid, in pixels. 1 leaves out those smaller than a pixel.
    min_visible_share
        Leave out objects of which less than this share lies on the grid: 0.3 leaves out what the edge cuts off but for
        a rest of 30 %.
    background
        The value that stands for no class in `rasterize`; codes are shifted here as there if one of them is it.
    width_m
        How wide lines and points are: metres, or the name of a column.
    legend
        Names and colours, as `rasterize` takes them; by default those that came with the labels.

    Returns
    -------
    Objects
        Boxes fit the part of each polygon that lies on the grid exactly, below the size of a pixel. A mask has the
        pixels that its object covers by half or more, and where there is none the one it covers most, so that no object
        is without a pixel. Masks of labels that overlap do so too.

        >>> labels = gpd.GeoDataFrame({"ground_truth": ["barn", "house"]}, crs="EPSG:32631",
        ...     geometry=[shapely.box(12, 5, 28, 36), shapely.box(31, 1, 33, 4)])
        >>> found = boxes(labels, GeoBox.from_bbox((0, 0, 40, 40), "EPSG:32631", resolution=10))
        >>> found
        Objects(2 on 4 x 4 pixels: 1 barn, 1 house)
        >>> found.boxes[0], found.masks()[0, 1]
        (array([1.2, 0.4, 2.8, 3.5], dtype=float32), array([0, 1, 1, 0], dtype=uint8))
    """
    for name, given, top in (("min_area_px", min_area_px, np.inf), ("min_visible_share", min_visible_share, 1)):
        number = isinstance(given, (int, float, np.number)) and not isinstance(given, bool)
        if not (number and 0 <= given <= top):
            raise InputError(f"{name}={given!r} is not a number from 0 on{' to 1' if top == 1 else ''}.")
    ready = prepare(
        labels, like, value=value, resolution=resolution, background=background, width_m=width_m, legend=legend
    )
    found = legend_of(ready, value)
    instances = _instances(ready)
    box, area_px, visible_share = _visible(ready, labels.crs)
    kept = np.array([item is not None for item in instances], dtype=bool)
    kept &= (area_px >= min_area_px) & (visible_share >= min_visible_share)
    return Objects(
        boxes=box[kept],
        classes=ready.classes[kept],
        ids=ready.ids[kept],
        rows=ready.rows[kept],
        area_px=area_px[kept],
        visible_share=visible_share[kept],
        instances=tuple(item for item, keep in zip(instances, kept, strict=True) if item is not None and keep),
        legend=found,
        geobox=ready.geobox,
        labels=str(labels.attrs["source"]) if "source" in labels.attrs else None,
    )


def _visible(ready: Prepared, own_crs: pyproj.CRS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each polygon the box around what lies on the grid, the area of that in pixels, and its share of the whole."""
    left, bottom, right, top = bounds_of(ready.geobox)
    shapes = ready.geometries.copy()
    edges = shapely.bounds(shapes).reshape(-1, 4)
    cut = (edges[:, 0] < left) | (edges[:, 1] < bottom) | (edges[:, 2] > right) | (edges[:, 3] > top)
    shapes[cut] = shapely.intersection(shapes[cut], shapely.box(left, bottom, right, top))
    parts, of = polygons_in(shapes)
    box = np.full((len(shapes), 4), np.nan)
    on_grid = np.unique(of)
    if len(on_grid):
        first = np.searchsorted(of, on_grid)
        around = shapely.bounds(parts)
        low, high = np.minimum.reduceat(around[:, :2], first), np.maximum.reduceat(around[:, 2:], first)
        a = ready.geobox.affine
        x = np.sort((np.stack([low[:, 0], high[:, 0]], axis=1) - a.c) / a.a, axis=1)
        y = np.sort((np.stack([low[:, 1], high[:, 1]], axis=1) - a.f) / a.e, axis=1)
        box[on_grid] = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)
    rows, columns = ready.geobox.shape
    area = shapely.area(shapes)
    whole = shapely.area(ready.geometries)
    share = np.divide(area, whole, out=np.zeros(len(shapes)), where=whole > 0)
    crs = crs_of(ready.geobox)
    if cut.any() and not same_crs(crs, own_crs):
        # What was brought from another CRS has lost its far parts on the way, so the whole is the label as it was.
        cut &= kinds(ready.cleaned) == "polygon"
        lon, _ = transformer(crs, "EPSG:4326").transform((left + right) / 2, (bottom + top) / 2)
        share[cut] = np.minimum(_area_m2(shapes[cut], crs, lon) / _area_m2(ready.cleaned[cut], own_crs, lon), 1)
    return _as_float32(box, rows, columns), area / abs(ready.geobox.affine.determinant), share


def _area_m2(shapes: np.ndarray, crs: pyproj.CRS, lon: float) -> np.ndarray:
    """Areas on the Earth of shapes in any CRS; those that come from a projection lie around the meridian `lon`."""
    edges = shapely.bounds(shapes)
    # Edges that are straight here are curves there, and are followed in pieces.
    dense = shapely.segmentize(shapely.force_2d(shapes), np.maximum(np.ptp(edges[:, [0, 2]], axis=1), 1e-9) / 100)
    degrees = float(np.rad2deg(crs.axis_info[0].unit_conversion_factor)) if crs.is_geographic else None
    to = transformer(crs, "EPSG:4326")

    def flat(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Whoever wrote 181 degrees meant the far side of the antimeridian, and that is where it stays.
        if degrees is not None:
            return _EQUAL_AREA(x * degrees, y * degrees)
        x, y = to.transform(x, y)
        return _EQUAL_AREA(x + 360 * np.round((lon - x) / 360), y)

    return np.asarray(shapely.area(shapely.make_valid(shapely.transform(dense, flat, interleaved=False))))


def _as_float32(box: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Within the grid, and with a width and a height also after rounding."""
    near = np.clip(box, 0, [columns, rows, columns, rows]).astype(np.float32)
    for low, high in ((0, 2), (1, 3)):
        flat = near[:, high] <= near[:, low]
        near[flat, high] = np.nextafter(near[flat, low], np.float32(np.inf))
        over = near[:, high] > (columns, rows)[low]
        near[over, high] = (columns, rows)[low]
        near[over, low] = np.nextafter(near[over, high], np.float32(0))
    return near


def _instances(ready: Prepared) -> list[Instance | None]:
    """The pixels of each polygon; None for one that only touches the grid."""
    shape = (int(ready.geobox.shape.y), int(ready.geobox.shape.x))
    instances: list[Instance | None] = [None] * len(ready.geometries)
    chunks = range(0, len(instances), _CHUNK)
    for begin in progress(chunks, total=len(chunks), what="cutting out objects", unit="chunk"):
        found = claims(ready.geometries[begin : begin + _CHUNK], ready.geobox.affine, shape)
        if len(found.polygon) == 0:
            continue
        number, first, count = np.unique(found.polygon, return_index=True, return_counts=True)
        mine = found.share >= np.repeat(np.minimum(_HALF, np.maximum.reduceat(found.share, first)), count)
        ends = np.cumsum(np.add.reduceat(mine, first, dtype=np.int64))
        first = np.append(0, ends[:-1])
        row, column = np.divmod(found.cell[mine], shape[1])
        top, bottom = np.minimum.reduceat(row, first), np.maximum.reduceat(row, first)
        left, right = np.minimum.reduceat(column, first), np.maximum.reduceat(column, first)
        row, column = row - np.repeat(top, ends - first), column - np.repeat(left, ends - first)
        sides = np.stack([bottom - top + 1, right - left + 1], axis=1).tolist()
        for item, side in enumerate(sides):
            mask = np.zeros(side, dtype=bool)
            mask[row[first[item] : ends[item]], column[first[item] : ends[item]]] = True
            instances[begin + int(number[item])] = Instance(int(top[item]), int(left[item]), mask)
    return instances
