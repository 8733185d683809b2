"""Scenes on a grid -> one Patch or one Series, with the coordinates and attributes of the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.bands import DTYPES, S1_BANDS, S2_BANDS
from deepsentinel.errors import InputError
from deepsentinel.grids import grid_coords, variable

from . import items as facts
from .plans import Array, Scene

if TYPE_CHECKING:
    import xarray as xr
    from odc.geo.geobox import GeoBox

TIME = {"S1": "s1_time", "S2": "s2_time"}
# Two scenes of one satellite within this time are parts of one pass: neighbouring granules or slices.
SAME_PASS = np.timedelta64(10, "m")
# What some services have beside the bands of a scene.
BESIDE: Mapping[str, Mapping[str, Any]] = {
    "cloud_score": {"long_name": "Cloud Score+ (1 is clear, 0 is hidden)", "units": "1"},
    "cloud_probability": {"long_name": "cloud probability (s2cloudless)", "units": "%"},
}


def band_attrs(name: str) -> dict[str, Any]:
    """What a variable says of itself: its words and unit for plots, its CRS and missing value for rioxarray and GDAL.

    Not `_FillValue`: on reading a NetCDF back xarray would turn the integers into floats for it.

    >>> band_attrs("B04")["units"], band_attrs("SCL")["nodata"]
    ('reflectance x 10000', 0)
    """
    attrs: dict[str, Any] = {"grid_mapping": "spatial_ref"}
    band = S2_BANDS.get(name) or S1_BANDS.get(name)
    if band is not None:
        attrs |= {"long_name": f"{name} {band.description}", "units": band.units}
    elif name == "angle":
        attrs |= {"long_name": "incidence angle", "units": "degrees"}
    elif name == "SCL":
        attrs |= {"long_name": "scene classification"}
    return {**attrs, **BESIDE.get(name, {})} if _is_float(name) else attrs | {"nodata": 0}


def _is_float(name: str) -> bool:
    """Whether a variable is float32, with NaN where there is nothing; so is all that has no rule of its own."""
    return DTYPES.get(name, "float32") == "float32"


def make_patch(scenes: Sequence[Scene], grid: GeoBox, *, source: str, attrs: Mapping[str, Any]) -> xr.Dataset:
    """One scene, or one of each sensor -> a Patch."""
    import xarray as xr

    coords = grid_coords(grid)
    variables: dict[str, Any] = {}
    said: dict[str, Any] = {"source": source}
    times = {}
    # Optical first: it is what people look at first.
    for scene in sorted(scenes, key=lambda scene: scene.sensor, reverse=True):
        variables |= {name: variable(("y", "x"), values, band_attrs(name)) for name, values in scene.variables.items()}
        said |= {**scene.attrs, f"{scene.sensor.lower()}_id": scene.id}
        times[scene.sensor] = scene.time
        coords[TIME[scene.sensor]] = variable((), np.asarray(scene.time))
    if len(times) == 2:
        said["gap_hours"] = float((times["S1"] - times["S2"]) / np.timedelta64(1, "s")) / 3600
    return xr.Dataset(variables, coords, {**said, **attrs})


def passes(scenes: Sequence[Scene], grid: GeoBox) -> list[list[Scene]]:
    """Scenes of one sensor -> one list for each pass, in order of time; within a pass the best first."""
    ordered = sorted(scenes, key=lambda scene: (scene.time, scene.id))
    groups: list[list[Scene]] = []
    for scene in ordered:
        first = groups[-1][0] if groups else None
        if (
            first is not None
            and scene.time - first.time <= SAME_PASS
            and facts.platform(first.item) == facts.platform(scene.item)
        ):
            groups[-1].append(scene)
        else:
            groups.append([scene])
    epsg = str(grid.crs.epsg) if grid.crs is not None else ""

    def preference(scene: Scene) -> tuple[bool, str, str]:
        mine = facts.crs(scene.item) or ""
        # A granule in the grid's own zone is copied, any other resampled; a newer processing is better than an older.
        newest = "".join(chr(0x10FFFF - ord(letter)) for letter in facts.baseline(scene.item) or "")
        return not (epsg and mine.endswith(epsg)), newest, scene.id

    return [sorted(group, key=preference) for group in groups]


def _missing(name: str, values: Array) -> Array:
    return np.isnan(values) if _is_float(name) else values == 0


def _fill(name: str) -> float:
    return np.nan if _is_float(name) else 0


def _mosaic(group: Sequence[Scene], name: str, shape: tuple[int, int]) -> Array:
    """One band of a pass: the first scene's pixels, its gaps filled from the next."""
    out = np.full(shape, _fill(name), DTYPES.get(name, "float32"))
    for scene in group:
        values = scene.variables.get(name)
        if values is None:
            continue
        gaps = _missing(name, out)
        if not gaps.any():
            break
        out[gaps] = values[gaps]
    return out


def make_series(scenes: Sequence[Scene], grid: GeoBox, *, source: str, attrs: Mapping[str, Any]) -> xr.Dataset:
    """Any number of scenes -> a Series: each sensor with its own dates, granules of one pass put together."""
    import xarray as xr

    coords = grid_coords(grid)
    variables: dict[str, Any] = {}
    said: dict[str, Any] = {"source": source}
    for sensor in ("S2", "S1"):
        mine = [scene for scene in scenes if scene.sensor == sensor]
        if not mine:
            continue
        _same(mine, "level" if sensor == "S2" else "backscatter", said)
        groups = passes(mine, grid)
        time = TIME[sensor]
        names = dict.fromkeys(name for scene in mine for name in scene.variables)
        for name in names:
            stack = np.stack([_mosaic(group, name, (grid.height, grid.width)) for group in groups])
            variables[name] = variable((time, "y", "x"), stack, band_attrs(name))
            for scene in mine:  # a long series is large: not twice in memory
                scene.variables.pop(name, None)
        coords[time] = variable(time, np.array([group[0].time for group in groups], "datetime64[ns]"))
        short = sensor.lower()
        ids = ["+".join(scene.id for scene in group) for group in groups]
        coords[f"{short}_id"] = variable(time, np.array(ids, "object"))
        per_date = {"S2": ("baseline", "offset_removed"), "S1": ("orbit",)}[sensor]
        for key in per_date:
            values = [group[0].attrs.get(key) for group in groups]
            if all(value is not None for value in values):
                coords[key] = variable(time, np.array(values, "object" if isinstance(values[0], str) else None))
    return xr.Dataset(variables, coords, {**said, **attrs})


def _same(scenes: Sequence[Scene], key: str, said: dict[str, Any]) -> None:
    values = sorted({str(scene.attrs.get(key)) for scene in scenes})
    if len(values) > 1:
        raise InputError(
            f"The table mixes {key} {' and '.join(values)}: values of one cannot be compared with the other's. "
            f"Keep one: table[table.{key} == {values[-1]!r}]."
        )
    said[key] = values[0]
