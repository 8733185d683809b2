"""Patches and masks as files that any GIS opens with everything right: names, units, CRS, no data, colours, provenance.

One cloud-optimised GeoTIFF (COG) a sensor and date: `S2_<time>.tif` with reflectance as stored integers and their
scale, `S1_<time>.tif` in dB, `SCL_<time>.tif` with its colour table. QGIS takes the names of the classes from the
small `.aux.xml` beside the latter; without it the codes stay numbers. Masks are one file a layer, see `export_masks`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np

from . import __version__, export_masks
from .bands import REFLECTANCE_SCALE, S1_BANDS, S2_BANDS, S2_NODATA, SCL_CLASSES, sensor_of
from .contract import TIME_OF, check_patch
from .errors import InputError
from .figures.embeddings import HEADINGS as MAPS
from .figures.fractions import class_names, is_fractions, positions
from .figures.masks import HEADINGS, check_masks, is_masks, opened
from .figures.stretch import SCL_COLOURS
from .files import atomic_path, write_text

if TYPE_CHECKING:
    import xarray as xr

# What goes from a patch's attributes into the file's tags, sensor by sensor.
PROVENANCE = {
    "S2": ("source", "seed", "s2_id", "level", "baseline", "offset_removed"),
    "S1": ("source", "seed", "s1_id", "backscatter", "orbit"),
}
NATURAL = {"B04": "red", "B03": "green", "B02": "blue"}


def to_geotiff(
    patch: xr.Dataset | xr.DataArray, folder: str | os.PathLike[str], *, bands: Sequence[str] | None = None
) -> list[Path]:
    """Write a patch, every date of a series, or masks as cloud-optimised GeoTIFFs; the paths of the rasters written.

    `bands` picks variables by name; None takes every Sentinel band, SCL, the incidence angle and every layer of masks.
    A single layer of masks (`masks.class_map`) and what `class_fractions` gives can be written too: the latter is one
    file with a band for each class, called by its name, of which `bands` picks some by name or code.
    Each file appears whole or not at all, and one of the same name from an earlier call is replaced; dates of a series
    in the same second are told apart by a number. Beside `class_map.tif` and `conflict.tif` lie the names of the
    classes (`.tif.aux.xml`, for all of GDAL) and a style for QGIS (`.qml`), which it takes up by itself.

    >>> import tempfile
    >>> import numpy as np, xarray as xr
    >>> from pyproj import CRS
    >>> patch = xr.Dataset(
    ...     {"VV": (("y", "x"), np.full((8, 8), -9, "float32"))},
    ...     coords={"y": 75.0 - 10 * np.arange(8), "x": 5.0 + 10 * np.arange(8), "spatial_ref": 0},
    ...     attrs={"backscatter": "sigma0"},
    ... )
    >>> patch["spatial_ref"].attrs["crs_wkt"] = CRS.from_epsg(32631).to_wkt()
    >>> [path.name for path in to_geotiff(patch, tempfile.mkdtemp())]
    ['S1.tif']
    """
    target = Path(folder)
    if target.suffix.lower() in (".tif", ".tiff"):
        raise InputError(f"{str(target)!r} is a file's name; give a folder, as a patch becomes a file for each sensor.")
    if is_fractions(patch):
        return [_write_fractions(target / "class_fraction.tif", patch, bands)]  # type: ignore[arg-type]  # an array
    patch = _dataset(patch)
    if any(sensor_of(str(name)) for name in patch.data_vars) or not is_masks(patch):
        check_patch(patch)
    else:
        check_masks(patch)
    names = _chosen(patch, bands)
    written = []
    for date in _dates(patch):
        held = [name for name in names if name in date.data_vars and sensor_of(name)]
        for kind, group in _groups(held).items():
            sensor = "S1" if kind == "S1" else "S2"
            stem = f"{kind}{_stamp(date, sensor)}"
            path, number = target / f"{stem}.tif", 2
            while path in written:
                path, number = target / f"{stem}_{number}.tif", number + 1
            _write(path, date, kind, group, _tags(date, sensor))
            written.append(path)
    for name in names:
        if name in HEADINGS:
            path = target / f"{name}.tif"
            _write_mask(path, patch, name)
            written.append(path)
    return written


def _dataset(given: Any) -> xr.Dataset:
    whole = opened(given)
    if not hasattr(whole, "data_vars"):
        named = f" called {given.name!r}" if getattr(given, "name", None) else ""
        todo = "Some bands of a patch are written by to_geotiff(patch, folder, bands=['VV'])."
        dims = getattr(given, "dims", ())
        if "feature" in dims or "encoder" in getattr(given, "attrs", ()) or getattr(given, "name", None) in MAPS:
            todo = "Embeddings and maps made of them: deepsentinel.export_embedding.embedding_to_geotiff(z, 'z.tif')."
            if "sample" in dims:
                todo = "Vectors: deepsentinel.export_embedding.embedding_to_geoparquet(z, 'z.parquet')."
        raise InputError(
            f"A {type(given).__name__}{named} cannot be written: to_geotiff takes a patch, a series, masks, a"
            f" layer of masks, and what class_fractions gives. {todo}"
        )
    return whole


def _chosen(patch: xr.Dataset, bands: Sequence[str] | None) -> list[str]:
    known = [str(name) for name in patch.data_vars if sensor_of(str(name)) or name in HEADINGS]
    if bands is None:
        return known
    wanted = [bands] if isinstance(bands, str) else list(bands)
    missing = [name for name in wanted if name not in known]
    if missing or not wanted:
        what = f"has no {', '.join(map(repr, missing))}" if missing else "was asked for no bands"
        raise InputError(f"This Dataset {what}; bands can be any of {', '.join(known)}.")
    return list(dict.fromkeys(wanted))


def _groups(names: Sequence[str]) -> dict[str, list[str]]:
    """File by file: all S2 bands, all of S1, and SCL by itself because its type is another."""
    kinds = {name: "SCL" if name == "SCL" else str(sensor_of(name)) for name in names}
    return {kind: [name for name in names if kinds[name] == kind] for kind in dict.fromkeys(kinds.values())}


def _dates(patch: xr.Dataset) -> Iterator[xr.Dataset]:
    """A patch as it is; a series as one patch for each date of each sensor."""
    axes = [axis for axis in ("s2_time", "s1_time") if axis in patch.dims]
    if not axes:
        yield patch
    for axis in axes:
        # By sensor and not by dimension: one incidence angle may serve all dates.
        one = patch[[name for name in patch.data_vars if TIME_OF.get(sensor_of(str(name)) or "") == axis]]
        for index in range(patch.sizes[axis]):
            yield one.isel({axis: index})
    if len(axes) == 1:  # the other sensor may have been read for one date only
        rest = patch[[name for name in patch.data_vars if TIME_OF.get(sensor_of(str(name)) or "") != axes[0]]]
        if rest.data_vars:
            yield rest


def _stamp(date: xr.Dataset, sensor: str) -> str:
    name = TIME_OF[sensor]
    if name not in date.coords:
        return ""
    second = str(date[name].to_numpy().astype("datetime64[s]"))
    return "_" + second.replace("-", "").replace(":", "")


def _tags(date: xr.Dataset, sensor: str) -> dict[str, str]:
    # A series keeps what differs between its dates as coordinates.
    noted = {key: date.attrs.get(key, date[key].item() if key in date.coords else None) for key in PROVENANCE[sensor]}
    tags = {key.upper(): str(value) for key, value in noted.items() if value is not None}
    tags["TIFFTAG_SOFTWARE"] = f"deepsentinel {__version__}"
    name = TIME_OF[sensor]
    if name in date.coords:
        second = str(date[name].to_numpy().astype("datetime64[s]"))
        tags[f"{sensor}_TIME"] = f"{second}Z"
        tags["TIFFTAG_DATETIME"] = second.replace("-", ":").replace("T", " ")
    return tags


def _write(path: Path, date: xr.Dataset, kind: str, names: Sequence[str], tags: dict[str, str]) -> None:
    profile = {
        "dtype": {"S2": "uint16", "S1": "float32", "SCL": "uint8"}[kind],
        "nodata": {"S2": S2_NODATA, "S1": np.nan, "SCL": 0}[kind],
    }

    def describe(stack: Any) -> None:
        _describe(stack, kind, names)
        stack.update_tags(**tags)

    # A class has no mean, and neither have decibels; the overviews of the rest are for looking only.
    _write_cog(path, date, [date[name].to_numpy() for name in names], profile, describe, mean=kind == "S2")
    if kind == "SCL":
        write_text(path.with_name(path.name + ".aux.xml"), _class_names())


def _write_mask(path: Path, masks: xr.Dataset, name: str) -> None:
    layer = export_masks.layer(masks, name)

    def describe(stack: Any) -> None:
        stack.set_band_description(1, layer.title)
        stack.units = [layer.unit]
        if layer.colours:
            stack.write_colormap(1, layer.colours)
        stack.update_tags(TIFFTAG_SOFTWARE=f"deepsentinel {__version__}", **layer.tags)
        stack.update_tags(1, **layer.band_tags)

    profile = {"dtype": layer.values.dtype.name, "nodata": layer.nodata}
    _write_cog(path, masks, [layer.values], profile, describe, mean=layer.mean)
    for suffix, text in layer.beside.items():
        write_text(path.with_suffix(suffix), text)


def _write_fractions(path: Path, shares: xr.DataArray, wanted: Sequence[Any] | None) -> Path:
    chosen = range(shares.sizes["class"]) if wanted is None else positions(shares, wanted)
    names, codes = class_names(shares), [int(code) for code in shares["class"].values]
    ground = shares.isel({"class": 0}, drop=True).to_dataset(name="class_fraction")
    missing = [name for name in ("x", "y", "spatial_ref") if name not in ground.coords]
    if missing:
        raise InputError(f"These fractions have no {' and '.join(missing)}, so nobody knows where they lie.")

    def describe(stack: Any) -> None:
        for index, at in enumerate(chosen, start=1):
            stack.set_band_description(index, names[at])
            stack.update_tags(index, CLASS=str(codes[at]))
        stack.units = ["share"] * len(chosen)
        stack.update_tags(TIFFTAG_SOFTWARE=f"deepsentinel {__version__}", **export_masks.fraction_tags(shares))

    arrays = [np.asarray(shares[at].values, dtype="float32") for at in chosen]
    _write_cog(path, ground, arrays, {"dtype": "float32", "nodata": None}, describe, mean=True)
    return path


def _write_cog(
    path: Path,
    ground: xr.Dataset,
    arrays: Sequence[np.ndarray],
    profile: Mapping[str, Any],
    describe: Callable[[Any], None],
    *,
    mean: bool,
) -> None:
    import rasterio
    from rasterio.io import MemoryFile
    from rasterio.shutil import copy

    place = {
        "height": ground.sizes["y"],
        "width": ground.sizes["x"],
        "crs": _wkt(ground),
        "transform": _transform(ground),
    }
    options = {"driver": "COG", "compress": "DEFLATE", "predictor": "YES", "blocksize": 512}
    options["overview_resampling"] = "average" if mean else "nearest"
    # GDAL may not write its own .aux.xml: it would carry the name of the temporary file.
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), MemoryFile() as memory:
        with memory.open(driver="GTiff", count=len(arrays), **place, **profile) as stack:
            for index, values in enumerate(arrays, start=1):
                stack.write(values, index)
            describe(stack)
        with memory.open() as stack, atomic_path(path) as temporary:
            copy(stack, str(temporary), **options)


def _describe(stack: Any, kind: str, names: Sequence[str]) -> None:
    from rasterio.enums import ColorInterp

    for index, name in enumerate(names, start=1):
        stack.set_band_description(index, _title(name))
        band = S2_BANDS.get(name)
        if band is not None and band.centre_nm is not None:
            wavelength = {"CENTRAL_WAVELENGTH_UM": f"{band.centre_nm / 1000:g}"}
            if band.width_nm is not None:
                wavelength["FWHM_UM"] = f"{band.width_nm / 1000:g}"
            stack.update_tags(index, ns="IMAGERY", **wavelength)
    if kind == "S2":
        stack.scales = [1 / REFLECTANCE_SCALE] * len(names)
        stack.units = ["reflectance"] * len(names)
        if set(NATURAL) <= set(names):  # so that a GIS shows natural colours at once
            stack.colorinterp = [getattr(ColorInterp, NATURAL.get(name, "undefined")) for name in names]
    elif kind == "S1":
        stack.units = ["dB" if name in S1_BANDS else "degree" for name in names]
    else:
        stack.write_colormap(1, {code: (*colour, 255) for code, colour in SCL_COLOURS.items()})


def _title(name: str) -> str:
    """What a GIS lists the band as."""
    if name in S2_BANDS:
        return f"{name} {S2_BANDS[name].description}"
    if name in S1_BANDS:
        return f"{name} (dB)"
    return {"SCL": "SCL scene classification", "angle": "incidence angle (degrees)"}[name]


def _class_names() -> str:
    """GDAL keeps the names of classes beside the file: TIFF has no place for them."""
    rows = [f"      <Category>{escape(SCL_CLASSES[code])}</Category>" for code in sorted(SCL_CLASSES)]
    lines = ["<PAMDataset>", '  <PAMRasterBand band="1">', "    <CategoryNames>", *rows]
    return "\n".join([*lines, "    </CategoryNames>", "  </PAMRasterBand>", "</PAMDataset>", ""])


def _wkt(date: xr.Dataset) -> str:
    attrs = date["spatial_ref"].attrs
    return str(attrs.get("crs_wkt") or attrs["spatial_ref"])


def _transform(date: xr.Dataset) -> Any:
    """From the pixel centres, which every operation on a Dataset keeps true; `GeoTransform` goes stale in a slice."""
    from affine import Affine

    x, y = (date[axis].to_numpy().astype("float64") for axis in ("x", "y"))
    stored = [float(part) for part in str(date["spatial_ref"].attrs.get("GeoTransform", "")).split()]
    # A side of one pixel has no step of its own.
    lone = (stored[1], stored[5]) if len(stored) == 6 else (None, None)
    step_x = (x[-1] - x[0]) / (x.size - 1) if x.size > 1 else lone[0]
    step_y = (y[-1] - y[0]) / (y.size - 1) if y.size > 1 else lone[1]
    if step_x is None or step_y is None:
        raise InputError("A patch one pixel wide or high does not tell its pixel size; set spatial_ref's GeoTransform.")
    return Affine(step_x, 0, x[0] - step_x / 2, 0, step_y, y[0] - step_y / 2)
