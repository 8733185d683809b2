"""Class maps to sample by: the ground of each class, and points in its pixels, a block of the map at a time.

A map of a continent does not fit into memory, so it is read twice in blocks: once to add up the ground of each class in
each block, and then only those blocks that points fall into.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyproj
import shapely
from affine import Affine

from deepsentinel.errors import InputError, NothingFoundError, ReadError
from deepsentinel.grids import crs_of, grid_of, transformer
from deepsentinel.legend import Legend
from deepsentinel.progress import progress

from .regions import Region

BLOCK_PX = 1024
# Between this many places a side of a block the size of a pixel is taken to change evenly.
LATTICE = 9
MAX_CODE = 1 << 16
BACKGROUND = 0

Block = tuple[int, int, int, int]  # first row, end row, first column, end column


@dataclass(frozen=True, eq=False)
class Raster:
    """A grid of classes that can be read in pieces."""

    read: Callable[[Block], np.ndarray]
    shape: tuple[int, int]
    affine: Affine
    crs: pyproj.CRS
    ignored: tuple[int, ...]
    """Values that are no class."""
    legend: Legend | None
    reopen: Callable[[], Any]
    """A context in which `read` works once more."""

    def blocks(self) -> list[Block]:
        """The pieces it is read in."""
        rows, columns = self.shape
        return [
            (top, min(top + BLOCK_PX, rows), left, min(left + BLOCK_PX, columns))
            for top in range(0, rows, BLOCK_PX)
            for left in range(0, columns, BLOCK_PX)
        ]


@contextmanager
def raster_of(strata: Any) -> Iterator[Raster]:
    """A Dataset with `class_map`, a DataArray of classes, or the path of a raster."""
    if not isinstance(strata, str | os.PathLike):
        yield _of_array(strata)
        return
    import rasterio

    path = os.fspath(strata)
    try:
        file = rasterio.open(path)
    except rasterio.errors.RasterioIOError as error:
        raise ReadError(f"The class map {path} cannot be opened: {error}") from error
    with file:
        if file.crs is None:
            raise InputError(f"The class map {path} has no CRS, so nobody knows where it lies; write one into it.")
        if file.transform.b or file.transform.d:
            raise InputError(f"The class map {path} is rotated; warp it to a grid whose rows run along an axis first.")
        nodata = () if file.nodata is None or file.nodata != int(file.nodata) else (int(file.nodata),)

        def read(block: Block) -> np.ndarray:
            top, bottom, left, right = block
            try:
                return np.asarray(file.read(1, window=((top, bottom), (left, right))))
            except rasterio.errors.RasterioIOError as error:
                raise ReadError(f"The class map {path} cannot be read at row {top}, column {left}: {error}") from error

        # A file that says what is no data may have a class 0, as Dynamic World has.
        yield Raster(
            read,
            (file.height, file.width),
            file.transform,
            pyproj.CRS(file.crs.to_wkt()),
            nodata or (BACKGROUND,),
            None,
            lambda: raster_of(strata),
        )


def _of_array(strata: Any) -> Raster:
    array = strata
    if hasattr(strata, "data_vars"):
        if "class_map" not in strata.data_vars:
            raise InputError(
                f"The Dataset in strata= has no class_map; it has {', '.join(map(str, strata.data_vars)) or 'nothing'}."
                " Give masks from ds.rasterize, or one DataArray of classes."
            )
        array = strata["class_map"]
    if array.ndim != 2:
        raise InputError(
            f"The class map in strata= has the dimensions {', '.join(map(str, array.dims))}; give y and x."
        )
    grid = grid_of(array)

    def read(block: Block) -> np.ndarray:
        top, bottom, left, right = block
        return np.asarray(array[top:bottom, left:right].values)

    legend = Legend.from_attrs(array.attrs)
    rows, columns = grid.shape
    raster = Raster(read, (rows, columns), grid.affine, crs_of(grid), (BACKGROUND,), legend, lambda: raster_of(strata))
    return raster


@dataclass(eq=False)
class MapStrata:
    """Classes as pixels."""

    classes: list[Any]
    names: list[str]
    areas_m2: np.ndarray
    legend: Legend | None
    raster: Raster
    region: Region | None
    by_block: np.ndarray
    """The ground of each class (rows) in each block (columns)."""
    blocks: list[Block]
    _ground: Any = field(default=None, repr=False)

    @classmethod
    def of(cls, raster: Raster, region: Region | None) -> MapStrata:
        """Add up the ground of each class."""
        ground = None if region is None else _projected(region, raster.crs)
        blocks = [block for block in raster.blocks() if ground is None or ground.intersects(_outline(raster, block))]
        found: dict[int, dict[int, float]] = {}
        for number, block in enumerate(progress(blocks, total=len(blocks), what="classes", unit="block")):
            values, areas = _classes(raster, block, ground)
            for code, area in zip(*_sums(values, areas), strict=True):
                found.setdefault(code, {})[number] = area
        classes = sorted(code for code, areas in found.items() if sum(areas.values()) > 0)
        if not classes:
            where = "" if region is None else f" in the region ({region.name})"
            raise NothingFoundError(f"The class map in strata= has no class{where}; widen it, or give another map.")
        by_block = np.zeros((len(classes), len(blocks)))
        for row, code in enumerate(classes):
            by_block[row, list(found[code])] = list(found[code].values())
        areas = by_block.sum(axis=1)
        legend = raster.legend if raster.legend is not None and set(classes) <= set(raster.legend.codes) else None
        names = [legend.names[code] if legend is not None else str(code) for code in classes]
        # What reads a file is closed once the file is; it is opened again to draw.
        closed = replace(raster, read=_closed)
        return cls(classes, names, areas, legend, closed, region, by_block, blocks, ground)

    def draw(self, wanted: np.ndarray, seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points in pixels drawn by their ground; a few less where a pixel juts out of the region."""
        rng = np.random.default_rng([*seed, 2])
        each = np.stack(
            [rng.multinomial(count, areas / areas.sum()) for count, areas in zip(wanted, self.by_block, strict=True)]
        )
        found = []
        with self.raster.reopen() as raster:
            for number in np.flatnonzero(each.any(axis=0)):
                values, areas = _classes(raster, self.blocks[number], self._ground)
                for k in np.flatnonzero(each[:, number]).tolist():
                    count = int(each[k, number])
                    found.append(self._in_block(raster, self.blocks[number], values, areas, k, count, rng))
        x, y, which = (np.concatenate(column) for column in zip(*found, strict=True))
        if self._ground is not None:
            shapely.prepare(self._ground)
            within = shapely.contains_xy(self._ground, x, y)
            x, y, which = x[within], y[within], which[within]
        lon, lat = transformer(raster.crs, "EPSG:4326").transform(x, y)
        return np.asarray(lon), np.asarray(lat), which

    def _in_block(
        self, raster: Raster, block: Block, values: np.ndarray, areas: np.ndarray, k: int, count: int, rng: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pixels = np.flatnonzero((values == self.classes[k]).ravel() & (areas > 0).ravel())
        upto = np.cumsum(areas.ravel()[pixels])
        pixel = pixels[np.minimum(np.searchsorted(upto, rng.random(count) * upto[-1], side="right"), len(pixels) - 1)]
        row, column = np.divmod(pixel, values.shape[1])
        down, along = rng.random((2, count))
        x, y = _xy(raster, block[2] + column + along, block[0] + row + down)
        return x, y, np.full(count, k)


def _closed(_: Block) -> np.ndarray:
    raise ReadError("The class map is closed.")


def _classes(raster: Raster, block: Block, ground: Any) -> tuple[np.ndarray, np.ndarray]:
    """The values of a block, and the ground of each pixel in m2: nothing where there is no class to sample."""
    values = raster.read(block)
    if values.dtype.kind == "f":
        whole = np.isfinite(values) & (values == np.trunc(values))
        if not (whole | np.isnan(values)).all():
            raise InputError("The map in strata= holds measurements, not classes; cut them into classes first.")
        values = np.where(whole, values, raster.ignored[0]).astype("int64")
    areas = pixel_areas(raster.affine, raster.crs, block)
    areas = np.where(np.isin(values, raster.ignored), 0.0, areas)
    if ground is not None:
        from rasterio.features import geometry_mask

        (x, y), affine = _xy(raster, block[2], block[0]), raster.affine
        corner = Affine(affine.a, 0, x, 0, affine.e, y)
        outside = geometry_mask([ground], values.shape, corner, all_touched=False)
        areas[outside] = 0.0
    return values, areas


def _sums(values: np.ndarray, areas: np.ndarray) -> tuple[list[int], list[float]]:
    """The codes that have ground, and how much."""
    flat, weights = values[areas > 0], areas[areas > 0]
    if not len(flat):
        return [], []
    if flat.min() >= 0 and flat.max() < MAX_CODE:
        sums = np.bincount(flat, weights=weights)
        codes = np.flatnonzero(sums)
        return codes.tolist(), sums[codes].tolist()
    codes, where = np.unique(flat, return_inverse=True)
    return codes.tolist(), np.bincount(where.ravel(), weights=weights).tolist()


def pixel_areas(affine: Affine, crs: pyproj.CRS, block: Block) -> np.ndarray:
    """The true ground of each pixel of a block in m2, whatever the projection makes of it.

    >>> degree = pixel_areas(Affine(1, 0, 0, 0, -1, 61), pyproj.CRS("EPSG:4326"), (0, 1, 0, 1))
    >>> round(float(degree[0, 0]) / 1e6)
    6123
    """
    top, bottom, left, right = block
    rows, columns = np.arange(top, bottom) + 0.5, np.arange(left, right) + 0.5
    across, down = (np.unique(np.linspace(axis[0], axis[-1], LATTICE)) for axis in (columns, rows))
    if crs.is_geographic:  # there only the row matters, and each has its own
        across, down = across[:1], rows
    x, y = np.meshgrid(affine.c + affine.a * across, affine.f + affine.e * down)
    # The ground of a small square in the middle of a pixel, on the ellipsoid.
    back, half = transformer(crs, crs.geodetic_crs or "EPSG:4326"), abs(affine.a) / 4
    east, west, north, south = (
        np.stack(back.transform(x + along * half, y + up * half)) for along, up in ((1, 0), (-1, 0), (0, 1), (0, -1))
    )
    (lon_x, lat_x), (lon_y, lat_y) = (east - west) / (2 * half), (north - south) / (2 * half)
    # Across 180 degrees a small step is not a whole turn.
    lon_x, lon_y = ((step * half + 90) % 180 - 90 for step in (lon_x, lon_y))
    lon_x, lon_y = lon_x / half, lon_y / half
    lat = np.radians(np.clip((north[1] + south[1]) / 2, -90, 90))
    geod = pyproj.Geod(ellps="WGS84")
    # The radii along a meridian and along a parallel: their product is the ground of a square radian.
    square = geod.a**2 * (1 - geod.es) / (1 - geod.es * np.sin(lat) ** 2) ** 2 * np.cos(lat)
    ground = np.abs(lon_x * lat_y - lon_y * lat_x) * np.radians(1) ** 2 * square * abs(affine.a * affine.e)
    ground = np.where(np.isfinite(ground), ground, 0.0)
    if crs.is_geographic:
        return np.asarray(np.repeat(ground, len(columns), axis=1))
    return np.asarray(_hats(rows, down) @ ground @ _hats(columns, across).T)


def _hats(at: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Weights that interpolate between knots."""
    return np.stack([np.interp(at, knots, unit) for unit in np.eye(len(knots))], axis=1)


def _projected(region: Region, crs: pyproj.CRS) -> shapely.Geometry:
    """A region in the CRS of a map. Points so close that its edges are followed within a fraction of a pixel."""
    shape = region.geometry()
    if crs.is_geographic:
        return shape
    west, south, east, north = shape.bounds
    dense = shapely.segmentize(shape, max(0.005, (east - west + north - south) / 4000))
    usable = crs.area_of_use
    if usable is not None and usable.west < usable.east:
        # Ground that the projection has no place for would come out at infinity.
        dense = dense.intersection(
            shapely.box(usable.west - 5, max(usable.south - 5, -90), usable.east + 5, usable.north + 5)
        )
    xy = shapely.get_coordinates(dense)
    moved = np.column_stack(transformer("EPSG:4326", crs).transform(xy[:, 0], xy[:, 1]))
    if not np.isfinite(moved).all():
        raise InputError(f"The region ({region.name}) reaches where {crs.name} has no place; give a smaller one.")
    flat = shapely.set_coordinates(dense, moved)
    return flat if flat.is_valid else shapely.make_valid(flat)


def _xy(raster: Raster, column: Any, row: Any) -> tuple[Any, Any]:
    return raster.affine.c + raster.affine.a * column, raster.affine.f + raster.affine.e * row


def _outline(raster: Raster, block: Block) -> shapely.Geometry:
    (left, top), (right, bottom) = _xy(raster, block[2], block[0]), _xy(raster, block[3], block[1])
    return shapely.box(min(left, right), min(top, bottom), max(left, right), max(top, bottom))
