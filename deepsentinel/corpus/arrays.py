"""Which arrays a corpus has, and how a patch as it is read becomes one sample of each.

Reflectance is stored as it is; backscatter in hundredths of a decibel, far finer than speckle, because integers of two
bytes take half the room of floats and compress better; angles in hundredths of a degree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.bands import S1_BANDS, S2_BANDS, S2_L1C_BANDS, SCL_CLOUDY
from deepsentinel.errors import ReadError

from .layout import ArraySpec

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

    from deepsentinel.sources import Source

S1_FILL = -32768
S1_SCALE, ANGLE_SCALE = 0.01, 0.01
NATIVE_M = (10, 20, 60)
S1_ATTRS = {"long_name": "backscatter", "units": "dB", "scale_factor": S1_SCALE, "_FillValue": S1_FILL}
ANGLE_ATTRS = {"long_name": "incidence angle", "units": "degrees", "scale_factor": ANGLE_SCALE, "_FillValue": S1_FILL}
S2_ATTRS = {"long_name": "reflectance", "units": "reflectance x 10000", "nodata": 0}
SCL_ATTRS = {"long_name": "scene classification", "nodata": 0}


@dataclass(frozen=True)
class Stream:
    """Bands that are read together on one pixel size."""

    resolution_m: int | None
    """10, 20 or 60 for native pixels; None: the one resolution of the corpus."""
    bands: tuple[str, ...]
    """What is read."""
    s2: tuple[str, ...]
    """The optical bands among them, in the order in which they are stored."""

    @property
    def name(self) -> str:
        """The array of its optical bands."""
        return "s2" if self.resolution_m is None else f"s2_{self.resolution_m}m"

    def axes(self) -> tuple[str, str]:
        """The dims of its pixels."""
        return ("y", "x") if self.resolution_m in (None, 10) else (f"y_{self.resolution_m}m", f"x_{self.resolution_m}m")

    def factor(self) -> int:
        """How many pixels of 10 m lie side by side in one of its own."""
        return 1 if self.resolution_m is None else self.resolution_m // 10


def bands_held(
    samples: gpd.GeoDataFrame, sources: Sequence[Source], asked: Sequence[str] | None, sensors: Sequence[str]
) -> list[str]:
    """The bands that every sample has: those asked for, or the usual ones that the first scenes of a source hold."""
    if asked is not None:
        return list(asked)
    usual = [*S2_L1C_BANDS, "SCL"] if "S2" in sensors else []
    usual += ["VV", "VH", "angle"] if "S1" in sensors else []
    held = set(usual)
    for source in sources:
        mine = samples[samples["source"] == source.name]
        assets_of, items_of = getattr(source, "assets_of", None), getattr(source, "items_of", None)
        if not len(mine) or assets_of is None or items_of is None:
            held -= {"B10", "angle"}
            continue
        for sensor in sensors:
            name = first_scene(mine.iloc[0], sensor)
            item = None if name is None else items_of(sensor, [name]).get(name)
            if item is None:
                continue
            there = set(assets_of(item))
            own = {*S2_BANDS, "SCL"} if sensor == "S2" else {*S1_BANDS, "angle"}
            held -= own - there
    if not held & set(S1_BANDS) and "S1" in sensors:
        held |= {"HH", "HV"}
    order = [*S2_L1C_BANDS, "SCL", *S1_BANDS, "angle"]
    return [name for name in order if name in held]


def first_scene(row: Any, sensor: str) -> str | None:
    """The id of a scene of a sample."""
    short = sensor.lower()
    many = row.get(f"{short}_ids")
    one = many[0] if isinstance(many, list) and many else row.get(f"{short}_id")
    return one.split("+")[0] if isinstance(one, str) else None


def streams_of(settings: Mapping[str, Any]) -> list[Stream]:
    """What is read for each sample, pixel size by pixel size."""
    held = list(settings["held"])
    optical = [name for name in held if name in S2_BANDS]
    if not settings["native"]:
        return [Stream(None, tuple(held), tuple(optical))]
    found = []
    for size in NATIVE_M:
        s2 = tuple(name for name in optical if S2_BANDS[name].resolution_m == size)
        others = [name for name in held if name in S1_BANDS or name == "angle"] if size == 10 else []
        others += ["SCL"] if size == 20 and "SCL" in held else []
        if s2 or others:
            found.append(Stream(size, (*s2, *others), s2))
    return found


def specs_of(settings: Mapping[str, Any], steps: Mapping[str, int]) -> tuple[list[ArraySpec], dict[str, list[str]]]:
    """The arrays of the pixels, and the names of their bands; `steps` has the longest series of each sensor."""
    size = int(settings["size_px"])
    specs: list[ArraySpec] = []
    coords: dict[str, list[str]] = {}

    def add(name: str, dtype: str, sensor: str, stream: Stream, bands: str | None, fill: int, attrs: Any) -> None:
        side = -(-size // stream.factor())
        dims, shape = list(stream.axes()), [side, side]
        if bands is not None:
            dims, shape = [bands, *dims], [len(coords[bands]), *shape]
        if sensor in steps:
            dims, shape = [f"{sensor}_step", *dims], [steps[sensor], *shape]
        specs.append(ArraySpec(name, dtype, ("sample", *dims), tuple(shape), fill, attrs))

    for stream in streams_of(settings):
        if stream.s2:
            coords[f"{stream.name}_band"] = list(stream.s2)
            add(stream.name, "uint16", "s2", stream, f"{stream.name}_band", 0, S2_ATTRS)
        radar = [name for name in stream.bands if name in S1_BANDS]
        if radar:
            coords["s1_band"] = radar
            add("s1", "int16", "s1", stream, "s1_band", S1_FILL, S1_ATTRS)
        if "SCL" in stream.bands:
            add("scl", "uint8", "s2", stream, None, 0, SCL_ATTRS)
        if "angle" in stream.bands:
            add("angle", "int16", "s1", stream, None, S1_FILL, ANGLE_ATTRS)
    return specs, coords


def pixels_of(patch: xr.Dataset, stream: Stream) -> dict[str, np.ndarray]:
    """One sample of each array of a stream, from a patch; a band that is not there is a `ReadError`."""
    found = {}
    missing = [name for name in stream.bands if name not in patch.data_vars]
    if missing:
        raise ReadError(
            f"The scenes of this sample have no {', '.join(missing)}. Plan with bands= that all of them have."
        )
    if stream.s2:
        found[stream.name] = np.stack([patch[name].values for name in stream.s2])
    radar = [name for name in stream.bands if name in S1_BANDS]
    if radar:
        found["s1"] = np.stack([hundredths(patch[name].values) for name in radar])
    if "SCL" in stream.bands:
        found["scl"] = patch["SCL"].values
    if "angle" in stream.bands:
        found["angle"] = hundredths(patch["angle"].values)
    return found


def hundredths(values: np.ndarray) -> np.ndarray:
    """Decibels or degrees as int16 hundredths, NaN as the fill value.

    >>> hundredths(np.array([-12.345, np.nan], "float32")).tolist()
    [-1234, -32768]
    """
    scaled = values * np.float32(100)
    np.rint(scaled, out=scaled)
    np.clip(scaled, -32767, 32767, out=scaled)
    lost = np.isnan(scaled)
    if lost.any():
        scaled[lost] = S1_FILL
    return scaled.astype("int16")


def shares(found: Mapping[str, np.ndarray]) -> dict[str, float]:
    """How much of a sample is there: `valid_s1`, `valid_s2` and `clear`; NaN of what it has not."""
    told = {"valid_s1": math.nan, "valid_s2": math.nan, "clear": math.nan}
    optical = next((found[name] for name in ("s2", "s2_10m", "s2_20m", "s2_60m") if name in found), None)
    if optical is not None:
        told["valid_s2"] = _share(optical.min(axis=-3) > 0)
    elif "scl" in found:
        told["valid_s2"] = _share(found["scl"] > 0)
    if "s1" in found:
        told["valid_s1"] = _share(found["s1"].min(axis=-3) > S1_FILL)
    if "scl" in found:
        told["clear"] = _share(_CLEAR[found["scl"]])
    return told


def _share(mask: np.ndarray) -> float:
    return round(float(np.count_nonzero(mask)) / mask.size, 6) if mask.size else 0.0


# Pixels that are there and neither cloud nor shadow, by their code.
_CLEAR = np.ones(256, dtype=bool)
_CLEAR[[0, *SCL_CLOUDY]] = False
