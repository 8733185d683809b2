"""Class maps that come as rasters (CORINE, WorldCover, Dynamic World, the Cropland Data Layer) onto a patch's grid."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pyproj
import shapely

from deepsentinel.errors import InputError, ReadError, warn
from deepsentinel.grids import grid_coords, grid_of
from deepsentinel.legend import BACKGROUND, Legend, by_name
from deepsentinel.masks.onto_grid import distance_to_grid_km
from deepsentinel.progress import progress

from .raster_legends import Reading, integers, listed, name_of, reading_of, values_in
from .regrid import SAME_SIZE, Block, Way, Window, blocks, majority, nearest, share_error

if TYPE_CHECKING:
    import xarray as xr
    from odc.geo.geobox import GeoBox

__all__ = ["read_label_raster"]

Rule = Literal["auto", "nearest", "majority"]

# The legend may not be known yet when the grid is cut into blocks.
CLASSES = 64
# Values further apart are searched for, not looked up in a table.
LOOKUP = 1 << 20


def read_label_raster(
    path: str | os.PathLike[str],
    like: Any,
    *,
    legend: Legend | str | None = None,
    band: int = 1,
    rule: Rule = "auto",
    crs: Any = None,
) -> xr.Dataset:
    """A raster of classes on the grid of `like`, read in windows, so that a whole country's file will do.

    Parameters
    ----------
    path
        Whatever GDAL opens: a GeoTIFF, a VRT, `netcdf:file.nc:LC`.
    like
        The grid: a patch, a DataArray or a GeoBox.
    legend
        The classes, or their name (`deepsentinel.legend.named()`). None recognises CORINE (grid codes 1 to 44 as well
        as 111 to 523), WorldCover, Dynamic World and the Cropland Data Layer by the file's name, its colour table or
        its values; where these leave a doubt, an error says between what. Values that are not in the legend become
        background.
    band
        Which band, from 1.
    rule
        "nearest" takes the value at the centre of each pixel. "majority" takes the class that holds most of it, by
        area, where ground without a class counts like a class, but loses ties, and among classes the smallest code wins
        them. That is exact where the grids are parallel. Otherwise it is estimated from at least 16 points in each
        pixel of the grid and about 16 in each of the label: where one straight border crosses a pixel, its shares are
        wrong by `attrs["coverage_error"]` at most (0.16 for a label as fine as the grid, 0.02 for one ten times finer),
        and classes whose shares differ by less than twice that may be taken for each other. "auto" is "majority" where
        the label is finer than the grid, otherwise "nearest".
    crs
        Where the file does not tell it. Nothing is guessed.

    Returns
    -------
    Dataset
        `class_map` with its legend in its attributes, and with "majority" `coverage`, the share of the pixel that the
        class holds. CORINE's grid codes become 111 to 523. A legend with a class 0 (Dynamic World) is shifted by one,
        as 0 is the background, and a `DeepSentinelWarning` says so.

    >>> import tempfile, rasterio
    >>> from odc.geo.geobox import GeoBox
    >>> coarse = GeoBox.from_bbox((0, 0, 200, 100), "EPSG:32631", resolution=100)
    >>> file = tempfile.mkdtemp() + "/clc2018.tif"
    >>> shape = dict(driver="GTiff", width=2, height=1, count=1, dtype="uint8", crs="EPSG:32631")
    >>> with rasterio.open(file, "w", **shape, transform=coarse.affine) as label:
    ...     label.write(np.array([[[12, 40]]], dtype="uint8"))
    >>> mask = read_label_raster(file, coarse.zoom_to(resolution=50))
    >>> mask.class_map.values.tolist()
    [[211, 211, 511, 511], [211, 211, 511, 511]]
    """
    if rule not in get_args(Rule):
        raise InputError(f"rule={rule!r} is not known; give one of {', '.join(get_args(Rule))}.")
    grid = grid_of(like)
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            source = rasterio.open(path)
        except RasterioIOError as error:
            raise _unopened(path, error) from error
    with source:
        raster = _Raster(source, name_of(path), band, _checked(source, path, band, crs))
        try:
            return _mask(raster, grid, legend, rule)
        except RasterioIOError as error:
            raise ReadError(
                f"{raster.name}: the pixels cannot be read ({error}). The file may be cut short; get it again."
            ) from error


def _unopened(path: Any, error: Exception) -> InputError | ReadError:
    text = str(path)
    # A URL or GDAL's own way of naming a part of a file is not a path.
    if ":" not in text and not text.startswith("/vsi") and not Path(text).exists():
        return InputError(f"There is no file {text}.")
    if Path(text).suffix.lower() in {".gpkg", ".shp", ".geojson", ".json", ".parquet", ".pbf", ".csv", ".zip", ".fgb"}:
        return InputError(f"{name_of(path)} is not a raster; read_labels reads polygons, lines and points.")
    return ReadError(f"{name_of(path)} cannot be opened as a raster ({error}). Check that it is one, and whole.")


def _checked(source: Any, path: Any, band: int, crs: Any) -> pyproj.CRS:
    """The CRS of a raster that can be used."""
    name = name_of(path)
    if source.count == 0 and source.subdatasets:
        raise InputError(f"{name} holds several rasters; open one of them: {', '.join(source.subdatasets[:12])}.")
    if isinstance(band, bool) or band not in source.indexes:
        raise InputError(f"{name} has the bands 1 to {source.count}, not band={band!r}.")
    kind = np.dtype(source.dtypes[band - 1])
    if kind.kind not in "iuf":
        raise InputError(f"{name}: band {band} holds {kind}, and classes are integers.")
    if source.transform.is_identity:
        raise InputError(
            f"{name} does not tell where its pixels lie (no geotransform). Give it one, for example with GDAL:"
            " gdal_translate -a_srs EPSG:.. -a_ullr left top right bottom."
        )
    told = None if source.crs is None else pyproj.CRS.from_wkt(source.crs.to_wkt())
    if told is None and crs is None:
        raise InputError(
            f"{name} does not tell its CRS, so nobody knows where it lies. If you know, say so: crs='EPSG:..'."
        )
    given = None if crs is None else pyproj.CRS.from_user_input(crs.to_wkt() if hasattr(crs, "to_wkt") else crs)
    if told is not None and given is not None and not told.equals(given, ignore_axis_order=True):
        raise InputError(
            f"{name} says it is in {told.to_string()}, and crs={given.to_string()!r} was given. crs= is for files that"
            " tell none; leave it out."
        )
    found = told or given
    assert found is not None
    return found


@dataclass(frozen=True)
class _Raster:
    """One band of an open file."""

    source: Any
    name: str
    band: int
    crs: pyproj.CRS

    def read(self, window: Window) -> np.ma.MaskedArray:
        """The integers in a window, masked where the file says there is nothing."""
        from rasterio.windows import Window as FileWindow

        at = FileWindow(window.left, window.top, window.right - window.left, window.bottom - window.top)
        return integers(self.source.read(self.band, window=at, masked=True), self.name)

    def present(self, way: Way, pieces: list[Block]) -> set[int]:
        """The values under the grid."""
        found: set[int] = set()
        for block in pieces:
            # Also between the corners, as a grid around a pole bends inwards.
            columns, rows = (np.linspace(at.start, at.stop, 9) for at in (block.columns, block.rows))
            window = Window.around(*way.places(columns, rows), self.source.shape)
            if window is not None:
                found |= values_in(self.read(window))
        return found


def _mask(raster: _Raster, grid: GeoBox, legend: Legend | str | None, rule: str) -> xr.Dataset:
    import xarray as xr

    way = Way.between(grid, raster.crs, raster.source.transform)
    fineness = way.fineness()
    if rule == "auto":
        rule = "majority" if fineness > 1 + SAME_SIZE else "nearest"
    pieces = blocks(grid, fineness, CLASSES)
    given = by_name(legend) if isinstance(legend, str) else legend
    # What CORINE's numbers mean, and what an unnamed file's do, only the numbers themselves tell.
    values = raster.present(way, pieces) if given is None or given.name == "corine" else set()
    reading = reading_of(raster.source, raster.name, raster.band, given, values)
    kind = next(
        kind for kind in ("uint8", "uint16", "int32") if max(reading.legend.codes, default=0) <= np.iinfo(kind).max
    )
    layers = {"class_map": np.full(grid.shape, BACKGROUND, dtype=kind)}
    if rule == "majority":
        layers["coverage"] = np.zeros(grid.shape, dtype="float32")
    reached = False
    unknown: set[int] = set()

    def read(window: Window) -> np.ndarray:
        nonlocal reached
        reached = True
        return _classes(raster.read(window), reading, unknown)

    for block in progress(pieces, total=len(pieces), what=f"reading {raster.name}", unit="block"):
        at = (block.rows, block.columns)
        if rule == "nearest":
            layers["class_map"][at] = nearest(way, block, raster.source.shape, read, BACKGROUND)
        else:
            classes, shares = majority(way, block, raster.source.shape, read, BACKGROUND, fineness)
            layers["class_map"][at], layers["coverage"][at] = classes, shares
    _tell(raster, grid, reached, unknown, reading)
    about: dict[str, dict[str, Any]] = {
        "class_map": {"long_name": "class", "background": BACKGROUND, **reading.legend.to_attrs()},
        "coverage": {"long_name": "share of the pixel that the class holds", "units": "1"},
    }
    if reading.shifted_by:
        about["class_map"]["shifted_by"] = reading.shifted_by
    data = xr.Dataset(
        {name: (("y", "x"), layer, about[name]) for name, layer in layers.items()}, coords=grid_coords(grid)
    )
    pixel = raster.source.transform
    data.attrs = {
        "kind": "raster",
        "source": str(raster.source.name),
        "band": int(raster.band),
        "legend_from": reading.told_by,
        "rule": rule,
        "label_crs": raster.crs.to_string(),
        "label_pixel": [float(np.hypot(pixel.a, pixel.d)), float(np.hypot(pixel.b, pixel.e))],
    }
    if rule == "majority":
        data.attrs["coverage_error"] = share_error(way, fineness)
    return data


def _classes(values: np.ma.MaskedArray, reading: Reading, unknown: set[int]) -> np.ndarray:
    """Values to classes; those that the legend should know and does not are added to `unknown`."""
    present = values_in(values)
    unknown |= present - reading.classes.keys() - reading.nothing
    known = present & reading.classes.keys()
    if not known:
        return np.full(values.shape, BACKGROUND, dtype="int32")
    lowest, highest = min(known), max(known)
    numbers = values.filled(lowest).astype("int64", copy=False)
    if highest - lowest > LOOKUP:
        sought = np.array(sorted(known))
        at = np.minimum(np.searchsorted(sought, numbers), len(sought) - 1)
        found = np.where(sought[at] == numbers, np.array([reading.classes[v] for v in sought.tolist()])[at], BACKGROUND)
    else:
        table = np.full(highest - lowest + 3, BACKGROUND, dtype="int32")
        for value in known:
            table[value - lowest + 1] = reading.classes[value]
        found = table[np.clip(numbers - lowest + 1, 0, len(table) - 1)]
    return np.where(np.ma.getmaskarray(values), BACKGROUND, found).astype("int32", copy=False)


def _tell(raster: _Raster, grid: GeoBox, reached: bool, unknown: set[int], reading: Reading) -> None:
    """Warnings of what was not as expected."""
    notes = []
    if not reached:
        height, width = raster.source.shape
        corners = [raster.source.transform @ corner for corner in ((0, 0), (width, 0), (width, height), (0, height))]
        outline = shapely.Polygon(corners)
        distance_km = distance_to_grid_km([shapely.segmentize(outline, outline.length / 400)], raster.crs, grid)
        far = "" if distance_km is None else f": the file ends {distance_km:,.4g} km away"
        notes.append(
            f"{raster.name} does not reach the grid{far}. Every pixel is background; check its CRS and the area."
        )
    if reading.shifted_by:
        notes.append(
            f"Legend {reading.legend.name!r} has a class 0, and 0 is the background of a mask: all its codes are"
            f" shifted by {reading.shifted_by}. The mask's legend is shifted too."
        )
    if unknown:
        notes.append(
            f"{raster.name} holds {listed(unknown)}, which the legend {reading.legend.name!r} does not know; that"
            " became background. Is it the right legend?"
        )
    for note in notes:
        warn(note)
