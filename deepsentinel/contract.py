"""The rules of the Patch contract, one small function each, in the order in which they are checked.

Order matters: a rule may rely on those before it, and the first broken one is the one worth reading.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import xarray as xr

from .bands import BACKSCATTERS, DB_RANGE, DTYPES, LEVELS, S1_BANDS, S2_BANDS, SCL_CLASSES, sensor_of
from .errors import PatchError

TIME_OF = {"S1": "s1_time", "S2": "s2_time"}


def check_patch(patch: xr.Dataset) -> xr.Dataset:
    """Return the patch unchanged if it keeps the contract, else raise `PatchError` naming the first broken rule.

    >>> check_patch(xr.Dataset({"B02": (("y", "x"), np.ones((2, 2), "uint16"))}))
    Traceback (most recent call last):
    ...
    deepsentinel.errors.PatchError: Not a Patch: it has no coordinate 'y'; give the pixel centres in metres.
    """
    if not isinstance(patch, xr.Dataset):
        _fail(f"it is a {type(patch).__name__}, not an xarray.Dataset; one variable a band makes one")
    for rule in (_bands, _grid, _crs, _dims, _dtypes, _units, _values, _times):
        rule(patch)
    return patch


def _fail(problem: str) -> NoReturn:
    raise PatchError(f"Not a Patch: {problem}.")


def _has(patch: xr.Dataset, sensor: str) -> bool:
    bands = S1_BANDS if sensor == "S1" else S2_BANDS
    return any(name in bands for name in patch.data_vars)


def _bands(patch: xr.Dataset) -> None:
    if not (_has(patch, "S1") or _has(patch, "S2")):
        held = ", ".join(map(str, patch.data_vars)) or "nothing"
        _fail(f"none of its variables is a Sentinel band (it holds {held}); name them B02, B8A, VV, VH and so on")


def _grid(patch: xr.Dataset) -> None:
    for axis, rising in (("y", False), ("x", True)):
        if axis not in patch.coords:
            _fail(f"it has no coordinate '{axis}'; give the pixel centres in metres")
        values = np.asarray(patch[axis].values, dtype="float64")
        if patch[axis].dims != (axis,) or values.size == 0:
            _fail(f"coordinate '{axis}' has dims {patch[axis].dims} and {values.size} values; one per pixel is needed")
        if not np.isfinite(values).all():
            _fail(f"coordinate '{axis}' holds values that are not finite")
        steps = np.diff(values)
        if steps.size == 0:
            continue
        if (steps > 0).any() != rising or (steps < 0).any() == rising:
            way = "grow eastwards" if rising else "fall from north to south"
            _fail(f"coordinate '{axis}' does not {way}; sort it with patch.sortby('{axis}', ascending={rising})")
        if np.ptp(steps) > 1e-3 * abs(steps[0]):
            _fail(f"coordinate '{axis}' is not evenly spaced (steps from {steps.min():g} to {steps.max():g})")


def _crs(patch: xr.Dataset) -> None:
    if "spatial_ref" not in patch.coords:
        _fail(
            "it has no 'spatial_ref' coordinate, so nobody knows where it lies; write one with patch.rio.write_crs(...)"
        )
    attrs = patch["spatial_ref"].attrs
    if not (attrs.get("crs_wkt") or attrs.get("spatial_ref")):
        _fail("'spatial_ref' has no attribute 'crs_wkt'; write the CRS with patch.rio.write_crs(...)")


def _dims(patch: xr.Dataset) -> None:
    for name, variable in patch.data_vars.items():
        sensor = sensor_of(str(name))
        if sensor is None:
            continue
        time = TIME_OF[sensor]
        wanted = (time, "y", "x") if time in patch.dims else ("y", "x")
        # The incidence angle may be one field for all dates of an orbit.
        allowed = {wanted, ("y", "x")} if name == "angle" else {wanted}
        if variable.dims not in allowed:
            _fail(f"{name} has dims {variable.dims}, expected {wanted}; use patch.transpose(..., 'y', 'x')")


def _dtypes(patch: xr.Dataset) -> None:
    for name, variable in patch.data_vars.items():
        wanted = DTYPES.get(str(name))
        if wanted and variable.dtype != np.dtype(wanted):
            hint = {
                "uint16": "reflectance x 10000 with 0 for no data",
                "float32": "dB (or degrees) with NaN for no data",
                "uint8": "class codes with 0 for no data",
            }[wanted]
            _fail(f"{name} is {variable.dtype}, expected {wanted}: {hint}")


def _units(patch: xr.Dataset) -> None:
    for sensor, key, allowed in (("S2", "level", LEVELS), ("S1", "backscatter", BACKSCATTERS)):
        if not _has(patch, sensor):
            continue
        if patch.attrs.get(key) not in allowed:
            choices = " or ".join(repr(value) for value in allowed)
            _fail(f"attribute '{key}' is {patch.attrs.get(key)!r}, expected {choices}: units may not be guessed")
    if patch.attrs.get("level") == "L2A" and "B10" in patch.data_vars:
        _fail(
            "B10 is in a level L2A patch; the atmospheric correction drops it, so the level or the band name is wrong"
        )


def _values(patch: xr.Dataset) -> None:
    low, high = DB_RANGE
    for name in S1_BANDS:
        if name not in patch.data_vars:
            continue
        values = patch[name].values
        known = values[~np.isnan(values)]
        if known.size == 0:
            continue
        lowest, highest = float(known.min()), float(known.max())
        if lowest < low or highest > high:
            _fail(f"{name} runs from {lowest:g} to {highest:g}, outside {low:g} to {high:g} dB; of power take 10*log10")
        if lowest >= 0 and known.size >= 16:
            _fail(
                f"{name} holds no negative value in {known.size} pixels: that is power, not dB; convert with 10*log10"
            )
    if "SCL" in patch.data_vars:
        top = int(patch["SCL"].max()) if patch["SCL"].size else 0
        if top > max(SCL_CLASSES):
            _fail(f"SCL holds the value {top}; its codes end at {max(SCL_CLASSES)}")


def _times(patch: xr.Dataset) -> None:
    for sensor, name in TIME_OF.items():
        if name not in patch.coords:
            if name in patch.dims:
                _fail(f"dimension '{name}' has no coordinate, so nobody knows the dates; assign_coords({name}=...)")
            continue
        time = patch[name]
        if not np.issubdtype(time.dtype, np.datetime64):
            _fail(f"coordinate '{name}' is {time.dtype}, expected datetime64 in UTC without a time zone")
        if np.isnat(time.values).any():
            _fail(f"coordinate '{name}' holds no time (NaT); drop what has no date, or the coordinate")
        if time.dims not in ((), (name,)):
            _fail(f"coordinate '{name}' has dims {time.dims}; it is one time, or one for each date of a series")
        if time.dims and _has(patch, sensor) and (np.diff(time.values) < np.timedelta64(0, "ns")).any():
            _fail(f"coordinate '{name}' is not in order; sort the series with patch.sortby('{name}')")
    gap_hours = patch.attrs.get("gap_hours")
    if gap_hours is None or not all(name in patch.coords and patch[name].ndim == 0 for name in TIME_OF.values()):
        return
    real = (patch["s1_time"].values - patch["s2_time"].values) / np.timedelta64(1, "h")
    if abs(real - float(gap_hours)) > 0.01:
        _fail(f"attribute 'gap_hours' is {float(gap_hours):g} but s1_time minus s2_time is {real:g} hours")
