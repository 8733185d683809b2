"""One sample of a corpus back as a Patch or a Series of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from deepsentinel.bands import BACKSCATTERS, LEVELS
from deepsentinel.errors import InputError, NothingFoundError
from deepsentinel.grids import grid_coords, variable
from deepsentinel.sources.assemble import band_attrs

from .chunks import Chunks
from .samples import PLACEMENT
from .table import arrow_table

PIXELS = ("s2", "s2_10m", "s2_20m", "s2_60m", "s1", "scl", "angle")
NAMES = {"scl": "SCL", "angle": "angle"}
# What tells a sample from those of other corpora.
NAMED_BY = ("id", "source", "s1_id", "s2_id", "lon", "lat")
# What a Patch says of itself, where the table knows it.
ATTRS = ("source", "level", "backscatter", "baseline", "offset_removed", "orbit", "relative_orbit", "tile", "id")


def is_label(name: str) -> bool:
    """Whether an array of a corpus is a mask and no measurement.

    >>> is_label("corine_class_map"), is_label("s2_20m")
    (True, False)
    """
    return name not in PIXELS


def refuse_mixed(corpus: xr.Dataset, chunks: Chunks) -> None:
    """An InputError where samples are not those of this number in the store: several corpora were joined to one."""
    table = arrow_table(chunks)
    numbers = np.atleast_1d(corpus["sample"].values)
    other = (numbers < 0) | (numbers >= table.num_rows)
    for name in NAMED_BY:
        if name in corpus.coords and corpus[name].ndim < 2 and name in table.column_names and not other.any():
            mine = np.atleast_1d(corpus[name].values)
            theirs = table[name].take(numbers).to_pandas(deduplicate_objects=True).to_numpy("object")
            other |= _differ(mine, theirs)
    if other.any():
        raise InputError(
            f"{int(other.sum())} of these {len(numbers)} samples, such as number {numbers[other][0]}, are not those of"
            f" {chunks.place.path}: several corpora were joined, or ids changed. Keep each corpus by itself, and join"
            " what is made of them: torch.utils.data.ConcatDataset([PatchDataset(a), PatchDataset(b)]), in a DataLoader"
            " with collate_fn=deepsentinel.tensors.collate."
        )


def _differ(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Where two columns are not the same; what both lack is."""
    found = np.asarray(mine != theirs, bool)
    for at in np.flatnonzero(found).tolist():
        found[at] = _plain(mine[at]) is not None or _plain(theirs[at]) is not None
    return found


def patch_of(corpus: xr.Dataset, i: int, labels: bool = True) -> xr.Dataset:
    """Sample number `i` of a corpus, or of a part of one, as a Patch: bands by name, on its grid, with its times.

    With `labels` its masks come too; those on a finer grid have dimensions of their own (y_corine, x_corine). Bands
    stored at their native 20 or 60 m are repeated to the pixels of 10 m. A sample of a series comes back as a Series:
    the steps that only pad it are dropped.

    >>> import tempfile, geopandas as gpd, deepsentinel as ds
    >>> src = ds.open_source("demo", size_px=256)
    >>> points = gpd.GeoDataFrame(geometry=[src.area.geometry.centroid], crs="EPSG:4326")
    >>> plan = ds.plan_corpus(points, src, start="2018-06-01", end="2018-06-30", size_px=64)
    >>> path = tempfile.mkdtemp() + "/corpus.zarr"
    >>> report = ds.build_corpus(plan, path, progress=False)
    >>> patch = ds.check_patch(patch_of(ds.open_corpus(path), 0))
    >>> patch["B04"].shape
    (64, 64)
    """
    if "sample" not in corpus.dims:
        raise InputError("This has no dimension 'sample'; patch_of takes a corpus of ds.open_corpus or a part of one.")
    count = corpus.sizes["sample"]
    asked: Any = i
    if isinstance(asked, str):
        raise InputError(f"{asked!r} is no position; for an id give int(np.flatnonzero(corpus.id == {asked!r})[0]).")
    if not -count <= i < count:
        raise InputError(f"There is no sample {i}; this corpus has {count}, counted from 0.")
    one = corpus.isel(sample=i)
    row = {str(name): values.values for name, values in one.coords.items()}
    if _text(row, "status") == "failed":
        why = _text(row, "reason") or "no reason was given"
        raise NothingFoundError(f"Sample {int(row['sample'])} failed when the corpus was built: {why}.")
    if _text(row, "status") == "planned":
        raise NothingFoundError(f"Sample {int(row['sample'])} is planned but not built yet; run ds.build_corpus again.")
    grid = _grid(row)
    coords: dict[str, Any] = dict(grid_coords(grid))
    variables: dict[str, Any] = {}
    attrs: dict[str, Any] = {}
    for sensor in ("s2", "s1"):
        _sensor(one, sensor, row, grid, variables, coords, attrs)
    if labels:
        for name in filter(lambda name: is_label(str(name)), one.data_vars):
            _label(one[name], grid, variables, coords)
    for key in (*ATTRS, *PLACEMENT):
        value = _plain(row.get(key))
        if value is not None:
            attrs["sample_id" if key == "id" else key] = bool(value) if key == "noise_removed" else value
    for key, allowed in (("level", LEVELS), ("backscatter", BACKSCATTERS)):
        if attrs.get(key) not in allowed and corpus.attrs.get(key) in allowed:
            attrs[key] = corpus.attrs[key]
    if all(name in coords and coords[name].ndim == 0 for name in ("s1_time", "s2_time")):
        gap = coords["s1_time"].values - coords["s2_time"].values
        attrs["gap_hours"] = float(gap / np.timedelta64(1, "s")) / 3600
    return xr.Dataset(variables, coords, attrs)


def grid_of_sample(row: Mapping[str, Any]) -> GeoBox:
    """The grid of a row of the table of samples.

    >>> row = {"height": 2, "width": 4, "crs": "EPSG:32631", "transform": [10, 0, 500000, 0, -10, 20]}
    >>> grid_of_sample(row).shape
    Shape2d(x=4, y=2)
    """
    numbers = [float(number) for number in np.asarray(row["transform"]).ravel()[:6]]
    return GeoBox((int(row["height"]), int(row["width"])), Affine(*numbers), str(row["crs"]))


def _grid(row: Mapping[str, Any]) -> GeoBox:
    lacking = [name for name in ("crs", "transform", "height", "width") if name not in row]
    if lacking:
        raise InputError(f"The table of this corpus has no column {lacking[0]!r}, so nobody knows where samples lie.")
    return grid_of_sample(row)


def _sensor(
    one: xr.Dataset,
    sensor: str,
    row: Mapping[str, Any],
    grid: GeoBox,
    variables: dict[str, Any],
    coords: dict[str, Any],
    attrs: dict[str, Any],
) -> None:
    """The bands of one sensor, and its times and product ids."""
    time, beside = f"{sensor}_time", "scl" if sensor == "s2" else "angle"
    names = [name for name in PIXELS if name in one.data_vars and (name.startswith(sensor) or name == beside)]
    when = row.get(time)
    if not names or (when is not None and np.isnat(when).all()):
        return  # this sample has the other sensor only
    series = any(f"{sensor}_step" in one[name].dims for name in names)
    kept = np.flatnonzero(~np.isnat(np.atleast_1d(when))) if series and when is not None else None
    for name in names:
        values = one[name]
        steps = kept is not None and f"{sensor}_step" in values.dims
        pixels = values.isel({f"{sensor}_step": kept}).values if steps else values.values
        dims = (time, "y", "x") if steps else ("y", "x")
        if name in NAMES:
            variables[NAMES[name]] = variable(dims, _repeated(pixels, grid), band_attrs(NAMES[name]))
            continue
        axis = next(dim for dim in values.dims if "band" in str(dim))
        for number, band in enumerate(np.atleast_1d(one[axis].values)):
            layer = _repeated(np.take(pixels, number, axis=-3), grid)
            variables[str(band)] = variable(dims, layer, band_attrs(str(band)))
    if when is not None:
        coords[time] = variable((time,) if kept is not None else (), np.asarray(when if kept is None else when[kept]))
    ids = row.get(f"{sensor}_id")
    if kept is not None and ids is not None and np.ndim(ids):
        coords[f"{sensor}_id"] = variable((time,), np.asarray(ids)[kept])
    elif (told := _plain(ids)) is not None:
        attrs[f"{sensor}_id"] = told


def _repeated(pixels: np.ndarray, grid: GeoBox) -> np.ndarray:
    """Pixels of 20 or 60 m as often as pixels of 10 m lie in them; windows are cut where they end within one."""
    rows, columns = grid.shape
    for axis, size in ((-2, rows), (-1, columns)):
        has = pixels.shape[axis]
        if has < size:
            # 256 pixels of 10 m are 42.7 of 60 m, of which 43 are stored.
            times = next(factor for factor in (2, 6, -(-size // has)) if has == -(-size // factor))
            pixels = np.take(np.repeat(pixels, times, axis=axis), range(size), axis=axis)
    return np.ascontiguousarray(pixels)


def _label(values: xr.DataArray, grid: GeoBox, variables: dict[str, Any], coords: dict[str, Any]) -> None:
    down, across = (str(dim) for dim in values.dims[-2:])
    if (down, across) != ("y", "x") and down not in coords:
        rows, columns = values.shape[-2:]
        a, _, c, _, e, f, *_ = grid.affine
        finer = Affine(a * grid.width / columns, 0, c, 0, e * grid.height / rows, f)
        placed = grid_coords(GeoBox((rows, columns), finer, grid.crs))
        for dim, axis in ((down, "y"), (across, "x")):
            coords[dim] = variable((dim,), placed[axis].values, placed[axis].attrs)
    attrs = {**values.attrs, "grid_mapping": "spatial_ref"}
    variables[str(values.name)] = variable(tuple(map(str, values.dims)), values.values, attrs)


def _text(row: Mapping[str, Any], name: str) -> str | None:
    value = _plain(row.get(name))
    return None if value is None else str(value)


def _plain(value: Any) -> Any:
    """One value of the table as Python has it; None for what is missing."""
    if value is None or np.ndim(value):
        return None
    value = value.item() if hasattr(value, "item") else value
    return None if value is None or value != value else value
