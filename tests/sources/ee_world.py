"""The demo world as Earth Engine would hold it: collections of images with its properties, bands and masks.

Pixels are looked up one by one in the demo world's files (by where a pixel's middle lies), with nothing of the
package's own reader in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyproj
import rasterio
import shapely
from source_kinds import World

S2_BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
EMBEDDED_YEARS = (2017, 2018)


@dataclass(frozen=True)
class Pixels:
    """Where pixels are asked for: the middle of each."""

    x: np.ndarray
    y: np.ndarray
    crs: str

    @classmethod
    def of(cls, grid: dict[str, Any]) -> Pixels:
        size, affine = grid["dimensions"], grid["affineTransform"]
        if affine.get("shearX") or affine.get("shearY"):
            raise ValueError("sheared")
        x = affine["translateX"] + affine["scaleX"] * (np.arange(size["width"]) + 0.5)
        y = affine["translateY"] + affine["scaleY"] * (np.arange(size["height"]) + 0.5)
        crs = grid.get("crsCode") or grid["crsWkt"]
        return cls(*np.meshgrid(x, y), crs)

    def among(self, crs: str) -> tuple[np.ndarray, np.ndarray]:
        if pyproj.CRS(crs) == pyproj.CRS(self.crs):
            return self.x, self.y
        x, y = _transformer(self.crs, crs).transform(self.x.ravel(), self.y.ravel())
        return x.reshape(self.x.shape), y.reshape(self.x.shape)


@lru_cache
def _transformer(start: str, end: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(start, end, always_xy=True)


@dataclass(frozen=True)
class Sampled:
    """Values, whether each is there, and whether it lies within the footprint."""

    values: np.ndarray
    there: np.ndarray
    inside: np.ndarray

    def plus(self, number: int) -> Sampled:
        return replace(self, values=self.values + number)


@dataclass(frozen=True)
class Band:
    """One band: how it is sampled, by "nearest" unless it was told otherwise."""

    dtype: str
    sample: Callable[[Pixels, str], Sampled]
    mode: str = "nearest"

    def at(self, pixels: Pixels, mode: str | None = None) -> Sampled:
        return self.sample(pixels, mode or self.mode)


@dataclass(frozen=True)
class Image:
    """Bands and properties."""

    bands: dict[str, Band]
    properties: dict[str, Any] = field(default_factory=dict)
    geometry: Any = None
    crs: str = "EPSG:4326"

    def with_bands(self, bands: dict[str, Band]) -> Image:
        return replace(self, bands=bands)


@lru_cache(maxsize=256)
def _file(path: Path) -> tuple[np.ndarray, Any, str]:
    with rasterio.open(path) as file:
        return file.read(1), file.transform, str(file.crs)


def raster(path: Callable[[], Path], dtype: str, made: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Band:
    """A band of a file, whose stored numbers `made` turns into values and whether they are there."""

    def sample(pixels: Pixels, mode: str) -> Sampled:
        stored, affine, crs = _file(path())
        values, there = made(stored)
        x, y = pixels.among(crs)
        column, row = (x - affine.c) / affine.a, (y - affine.f) / affine.e
        rows, columns = stored.shape
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        if mode == "nearest":
            at = np.clip(np.floor(row), 0, rows - 1).astype(int), np.clip(np.floor(column), 0, columns - 1).astype(int)
            return Sampled(values[at].astype(dtype), there[at] & inside, inside)
        total, share = np.zeros(x.shape), np.zeros(x.shape)
        for down in (0, 1):
            for across in (0, 1):
                top, left = np.floor(row - 0.5) + down, np.floor(column - 0.5) + across
                weight = (1 - abs(row - 0.5 - top)) * (1 - abs(column - 0.5 - left))
                at = np.clip(top, 0, rows - 1).astype(int), np.clip(left, 0, columns - 1).astype(int)
                weight = weight * there[at]
                total, share = total + weight * np.where(there[at], values[at], 0), share + weight
        there = inside & (share > 0.5)
        return Sampled((total / np.where(share > 0, share, 1)).astype(dtype), there, inside)

    return Band(dtype, sample)


def ee_id(item: dict[str, Any]) -> str:
    """What Earth Engine calls a scene."""
    if item["collection"] == "sentinel-1-rtc":
        return item["id"].removesuffix("_rtc")
    start, made = (pd.Timestamp(item["properties"][key]) for key in ("datetime", "s2:generation_time"))
    return f"{start:%Y%m%dT%H%M%S}_{made:%Y%m%dT%H%M%S}_T{item['properties']['s2:mgrs_tile']}"


def _ms(text: str) -> float:
    return pd.Timestamp(text).timestamp() * 1000


def _optical(world: World, item: dict[str, Any], level: str) -> Image:
    said, assets = item["properties"], item["assets"]
    bands = {}
    for name in (*S2_BANDS, *(["SCL"] if level == "L2A" else ["B10"])):
        ours = "B09" if name == "B10" else name if len(name) > 2 or name == "SCL" else f"B0{name[1]}"
        href = assets[ours]["href"]
        offset = round(-10_000 * assets[ours]["raster:bands"][0].get("offset", 0))
        bands[name] = raster(
            lambda href=href: world.file(href),
            "uint8" if name == "SCL" else "uint16",
            # The offset is gone, and what is darker than it is 0 and still there.
            lambda dn, offset=offset: (np.maximum(dn.astype("int32") - offset, 0), dn > 0),
        )
    told = {
        "system:index": ee_id(item),
        "system:time_start": _ms(said["datetime"]),
        "SPACECRAFT_NAME": said["platform"],
        "CLOUDY_PIXEL_PERCENTAGE": said["eo:cloud_cover"],
        "NODATA_PIXEL_PERCENTAGE": said["s2:nodata_pixel_percentage"],
        "MGRS_TILE": said["s2:mgrs_tile"],
        "PROCESSING_BASELINE": said["s2:processing_baseline"],
        "DATATAKE_IDENTIFIER": said["s2:datatake_id"],
        "PRODUCT_ID": said["s2:product_uri"].removesuffix(".SAFE"),
        "GENERATION_TIME": _ms(said["s2:generation_time"]),
        "SENSING_ORBIT_NUMBER": said["sat:relative_orbit"],
        "SENSING_ORBIT_DIRECTION": said["sat:orbit_state"].upper(),
        "MEAN_SOLAR_ZENITH_ANGLE": said["s2:mean_solar_zenith"],
    }
    return Image(bands, told, shapely.geometry.shape(item["geometry"]), f"EPSG:{said['proj:epsg']}")


def _radar(world: World, item: dict[str, Any], *, power: bool) -> Image:
    said, assets = item["properties"], item["assets"]

    def measured(dn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        there = dn > 0
        values = np.where(there, dn, np.float32(1))
        return (values if power else 10 * np.log10(values)), there

    hrefs = {name: assets[name.lower()]["href"] for name in said["sar:polarizations"]}
    bands = {name: raster(lambda href=href: world.file(href), "float32", measured) for name, href in hrefs.items()}
    bands["angle"] = raster(lambda: world.file(assets["angle"]["href"]), "float32", lambda dn: (dn, dn > 0))
    told = {
        "system:index": ee_id(item),
        "system:time_start": _ms(said["datetime"]),
        "platform_number": said["platform"][-1],
        "instrumentMode": said["sar:instrument_mode"],
        "transmitterReceiverPolarisation": list(said["sar:polarizations"]),
        "orbitProperties_pass": said["sat:orbit_state"].upper(),
        "relativeOrbitNumber_start": float(said["sat:relative_orbit"]),
        "resolution": "H",
    }
    return Image(bands, told, shapely.geometry.shape(item["geometry"]), f"EPSG:{said['proj:epsg']}")


def _cloud_layer(world: World, item: dict[str, Any], band: str) -> Image:
    """Made of the scene classification: 0.9 or 5 % where it is clear, 0.1 or 95 % where it is not."""
    clear, hidden, dtype = (0.9, 0.1, "float32") if band == "cs_cdf" else (5, 95, "uint8")

    def made(scl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.where(np.isin(scl, (3, 8, 9, 10)), hidden, clear), scl > 0

    said = {"system:index": ee_id(item), "system:time_start": _ms(item["properties"]["datetime"])}
    outline = shapely.geometry.shape(item["geometry"])
    return Image({band: raster(lambda: world.file(item["assets"]["SCL"]["href"]), dtype, made)}, said, outline)


def embedded(x: np.ndarray, y: np.ndarray, year: int) -> np.ndarray:
    """64 numbers for each place, of length 1."""
    waves = np.arange(1, 65) * 0.37
    raw = np.cos(x[..., None] / 700 * waves + year) + np.sin(y[..., None] / 900 * waves)
    return raw / np.linalg.norm(raw, axis=-1, keepdims=True)


def _annual(item: dict[str, Any], year: int) -> Image:
    left, bottom, right, top = item["properties"]["proj:bbox"]
    crs = f"EPSG:{item['properties']['proj:epsg']}"

    def sample(number: int) -> Callable[[Pixels, str], Sampled]:
        def at(pixels: Pixels, mode: str) -> Sampled:
            x, y = pixels.among(crs)
            inside = (x >= left) & (x < right) & (y > bottom) & (y <= top)
            middle = [np.floor(axis / 10) * 10 + 5 for axis in (x, y)]
            return Sampled(embedded(*middle, year)[..., number], inside, inside)

        return at

    to = _transformer(crs, "EPSG:4326")
    corners = to.transform([left, right, right, left], [bottom, bottom, top, top])
    bands = {f"A{number:02d}": Band("float64", sample(number)) for number in range(64)}
    told = {"system:index": f"{year}_{crs}", "system:time_start": _ms(f"{year}-01-01T00:00:00Z")}
    return Image(bands, told, shapely.Polygon(np.transpose(corners)), crs)


def collections(world: World) -> dict[str, list[Image]]:
    """All that the service holds: the demo world's scenes, and some that a search must leave out."""
    optical = [item for item in world.all_items if item["collection"] == "sentinel-2-l2a"]
    radar = [item for item in world.all_items if item["collection"] == "sentinel-1-rtc"]
    found = {
        "COPERNICUS/S2_SR_HARMONIZED": [_optical(world, item, "L2A") for item in optical],
        "COPERNICUS/S2_HARMONIZED": [_optical(world, item, "L1C") for item in optical],
        "COPERNICUS/S1_GRD": [_radar(world, item, power=False) for item in radar],
        "COPERNICUS/S1_GRD_FLOAT": [_radar(world, item, power=True) for item in radar],
        # The newest scenes have no such layers yet.
        "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED": [_cloud_layer(world, item, "cs_cdf") for item in optical[:-1]],
        "COPERNICUS/S2_CLOUD_PROBABILITY": [_cloud_layer(world, item, "probability") for item in optical],
    }
    # Wide and polarised otherwise, in the same place and at the same time as scenes that are meant.
    for collection in ("COPERNICUS/S1_GRD", "COPERNICUS/S1_GRD_FLOAT"):
        for image in found[collection][::40]:
            name = image.properties["system:index"]
            for more in (
                {"system:index": name.replace("_IW_", "_EW_"), "instrumentMode": "EW"},
                {"system:index": name.replace("_1SDV_", "_1SSV_"), "transmitterReceiverPolarisation": ["VV"]},
                {"system:index": name.replace("_1SDV_", "_1SDH_"), "transmitterReceiverPolarisation": ["HH", "HV"]},
            ):
                found[collection].append(replace(image, properties={**image.properties, **more}))
    zones = {item["properties"]["proj:epsg"]: item for item in reversed(optical)}
    found["GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"] = [
        _annual(item, year) for year in EMBEDDED_YEARS for _, item in sorted(zones.items())
    ]
    return found
