"""What the pair inspector says and offers: names of pictures, channels of a stretch, a pair and a pixel in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepsentinel.bands import S1_BANDS, S2_BANDS, SCL_CLASSES, sensor_of
from deepsentinel.errors import InputError
from deepsentinel.figures.overlays import CLOUDS, pictures
from deepsentinel.figures.points import greenness
from deepsentinel.figures.slides import minute, time_of
from deepsentinel.figures.stretch import VIEWS, polarisations
from deepsentinel.grids import crs_of, grid_of, transformer

# Where sliders end: no ground is brighter, and no radar sees darker.
REFLECTANCE = {"min": 0.0, "max": 0.8, "step": 0.005, "digits": 3, "unit": ""}
DECIBELS = {"min": -35.0, "max": 10.0, "step": 0.5, "digits": 1, "unit": "dB"}
RATIO = {"min": -5.0, "max": 20.0, "step": 0.5, "digits": 1, "unit": "dB"}


def names_of(patch: Any, sensor: str) -> list[str]:
    """The pictures of one sensor that a patch can be shown as.

    >>> import numpy as np, xarray as xr
    >>> names_of(xr.Dataset({"VV": (("y", "x"), np.zeros((2, 2), "float32"))}), "S1")
    ['VV']
    """
    of = {name: VIEWS[name].sensor if name in VIEWS else sensor_of(name) for name in pictures(patch) if name != CLOUDS}
    return [name for name, which in of.items() if which == sensor]


def offered_of(patch: Any, sensor: str) -> list[tuple[str, str]]:
    """The same as a person reads them: (text, name).

    >>> import numpy as np, xarray as xr
    >>> offered_of(xr.Dataset({"B08": (("y", "x"), np.zeros((2, 2), "uint16"))}), "S2")
    [('B08 near infrared, wide', 'B08')]
    """
    words = {name: band.description for name, band in {**S2_BANDS, **S1_BANDS}.items()}
    words |= {"SCL": "scene classification", "angle": "incidence angle"}
    return [
        (VIEWS[name].title.capitalize() if name in VIEWS else f"{name} {words[name]}".strip(), name)
        for name in names_of(patch, sensor)
    ]


def channels_of(patch: Any, name: str) -> list[dict[str, Any]]:
    """The channels of a picture that can be stretched, each with where its sliders end; none for classes and angles.

    >>> import numpy as np, xarray as xr
    >>> patch = xr.Dataset({"VV": (("y", "x"), np.zeros((2, 2), "float32"))})
    >>> channels_of(patch, "VV")[0]["unit"], channels_of(patch, "SCL")
    ('dB', [])
    """
    if name == "s1":
        bands = [band for band in polarisations(patch) if band]
        return [{"name": band, **DECIBELS} for band in bands] + [{"name": "/".join(bands), **RATIO}]
    if name in VIEWS:
        return [{"name": text, **REFLECTANCE} for text in VIEWS[name].channels]
    if name in S1_BANDS:
        return [{"name": name, **DECIBELS}]
    return [{"name": name, **REFLECTANCE}] if name in S2_BANDS else []


def told(patch: Any) -> str:
    """When both sensors looked, how far apart, and from which orbit.

    >>> import numpy as np, xarray as xr
    >>> at = {"s1_time": np.datetime64("2018-07-04T17:56", "ns")}
    >>> told(xr.Dataset({"VV": ("x", [0.0])}, at, {"orbit": "ascending"}))
    'Sentinel-1: 2018-07-04 17:56 UTC, ascending'
    """
    lines = []
    for sensor in ("S2", "S1"):
        time, parts = time_of(patch, sensor), []
        if time is None or not any(sensor_of(str(name)) == sensor for name in patch.data_vars):
            continue
        parts.append(minute(time))
        if sensor == "S1":
            gap = patch.attrs.get("gap_hours")
            if gap is not None:
                parts.append(f"{abs(gap):.1f} hours {'before' if gap < 0 else 'after'} Sentinel-2")
            parts += [str(patch.attrs["orbit"])] if patch.attrs.get("orbit") else []
        parts += [str(patch.attrs.get("level" if sensor == "S2" else "backscatter") or "")]
        lines.append(f"Sentinel-{sensor[1]}: " + ", ".join(filter(None, parts)))
    return " · ".join(lines)


def day_of(patch: Any) -> str:
    """The date of a patch, of Sentinel-2 where it has one.

    >>> import numpy as np, xarray as xr
    >>> day_of(xr.Dataset(coords={"s1_time": np.datetime64("2018-07-04T17:56", "ns")}))
    '2018-07-04'
    """
    times = [time for time in (time_of(patch, sensor) for sensor in ("S2", "S1")) if time is not None]
    if not times:
        raise InputError("This pair does not say when it was taken, so there is no year to read.")
    return str(times[0].astype("datetime64[D]"))


def place_words(at: tuple[float, float]) -> str:
    """A place as one reads it.

    >>> place_words((-0.0075, 49.25))
    '49.25000° N, 0.00750° W'
    """
    lon, lat = at
    return f"{abs(lat):.5f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.5f}° {'E' if lon >= 0 else 'W'}"


def pixel_words(values: Mapping[str, Any]) -> str:
    """What a pixel's numbers are, as far as a person wants them in words.

    >>> pixel_words({"B08": 3000, "B04": 1000, "VV": -9.04, "VH": None, "SCL": 4})
    'NDVI 0.50 · VV \u22129.0 dB · vegetation'
    """
    green = greenness(values)
    parts = [] if green is None else [f"NDVI {green:.2f}"]
    parts += [f"{name} {values[name]:.1f} dB" for name in S1_BANDS if values.get(name) is not None]
    parts += [SCL_CLASSES[values["SCL"]]] if values.get("SCL") else []
    return " · ".join(parts).replace("-", "\u2212") if parts else "nothing measured here"


def cross_at(patch: Any, at: tuple[float, float]) -> Any:
    """Four short lines around a place, a fortieth of the patch long, that leave the pixel itself to be seen."""
    grid = grid_of(patch)
    lon, lat = at
    step = max(grid.shape) * abs(grid.affine.a) / 40
    x, y = transformer("EPSG:4326", crs_of(grid)).transform(lon, lat)
    back = transformer(crs_of(grid), "EPSG:4326")
    lines = []
    for across, up in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        ends = [back.transform(x + across * step * reach, y + up * step * reach) for reach in (0.4, 1.4)]
        lines.append([[float(each) for each in end] for end in ends])
    return Shape({"type": "MultiLineString", "coordinates": lines})


class Shape:
    """What has a place: a GeoJSON geometry for whoever asks."""

    def __init__(self, geometry: Mapping[str, Any]) -> None:
        self.__geo_interface__ = {"type": "Feature", "properties": {}, "geometry": dict(geometry)}
