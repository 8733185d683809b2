"""A Sentinel-1 GRD product as delivered (SAFE) -> a STAC item, from its manifest; and its channels with their XML."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import shapely

from deepsentinel.errors import ReadError, SourceError
from deepsentinel.sources.assets import Item

from .calibration import Calibration, noise_is_gone
from .files import Product, text
from .places import Geolocation, map_for

GRD_KEY = "deepsentinel:grd"
"""Item property that only these items have: the path of the product."""
CHANNEL = r"(?:[^/]*-)?({})(?:-[^/]*)?"
BAD = "Download it again."


@dataclass(frozen=True)
class Channel:
    """Where the four files of one polarisation are in a product."""

    image: str
    annotation: str
    calibration: str
    noise: str | None


def radar_items(product: Product) -> tuple[list[Item], list[str]]:
    """The item of a product, as a list; there is nothing to remark."""
    manifest = product.xml("manifest.safe")
    kind = text(manifest, "productType")
    name = product.name
    if kind is not None and kind != "GRD":
        raise SourceError(
            f"{product.path.name} is a Sentinel-1 {kind} product, which cannot be read. Take terrain-corrected "
            "products (RTC), or over sea GRD."
        )
    platform = "".join(
        str(text(one, tag) or "") for one in manifest.iter("platform") for tag in ("familyName", "number")
    ).lower()
    start, stop = text(manifest, "startTime"), text(manifest, "stopTime")
    corners = [float(word) for word in re.split(r"[\s,]+", text(manifest, "coordinates") or "") if word]
    if not platform.startswith("sentinel-1") or start is None or stop is None or len(corners) < 6 or len(corners) % 2:
        raise SourceError(f"{product.path.name}: its manifest does not say what, when and where it is. {BAD}")
    bands = sorted(channels(product))
    if not bands:
        raise SourceError(f"{product.path.name} has no image with its annotation and calibration beside it. {BAD}")
    ring = shapely.Polygon(np.array(corners).reshape(-1, 2)[:, ::-1])
    geometry = _around(ring)
    properties: dict[str, Any] = {
        "datetime": _middle(start, stop),
        "start_datetime": f"{start}Z",
        "end_datetime": f"{stop}Z",
        "platform": platform,
        "constellation": "Sentinel-1",
        "instruments": ["c-sar"],
        "sar:instrument_mode": text(manifest, "mode"),
        "sar:product_type": "GRD",
        "sar:polarizations": bands,
        "sat:orbit_state": (text(manifest, "pass") or "").lower() or None,
        "sat:relative_orbit": _whole(text(manifest, "relativeOrbitNumber")),
        "sat:absolute_orbit": _whole(text(manifest, "orbitNumber")),
        "s1:datatake_id": text(manifest, "missionDataTakeID"),
        "deepsentinel:backscatter": "sigma0",
        "proj:code": map_for(*_centre(np.array(ring.exterior.coords)[:-1])),
        GRD_KEY: product.path.as_posix(),
    }
    stated = {"data_type": "float32", "nodata": float("nan")}
    assets = {
        band.lower(): {
            "href": product.gdal(channels(product)[band].image),
            "type": "image/tiff; application=geotiff",
            "roles": ["data"],
            "raster:bands": [{**stated, "unit": "linear power"}],
        }
        for band in bands
    }
    assets["angle"] = {
        "href": product.gdal(channels(product)[bands[0]].annotation),
        "type": "image/tiff; application=geotiff",
        "roles": ["data"],
        "raster:bands": [{**stated, "unit": "degree"}],
    }
    item: Item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "sentinel-1-grd",
        "geometry": shapely.geometry.mapping(geometry),
        "properties": {key: value for key, value in properties.items() if value is not None},
        "assets": assets,
        "links": [],
    }
    return [item], []


def _whole(said: str | None) -> int | None:
    return int(said) if said is not None and said.isdigit() else None


def _middle(start: str, stop: str) -> str:
    first, last = np.datetime64(start, "us"), np.datetime64(stop, "us")
    return f"{first + (last - first) / 2}Z"


def _centre(corners: np.ndarray) -> tuple[float, float]:
    """The middle of corners on the globe, wherever 180 degrees is."""
    lon, lat = np.deg2rad(corners).T
    x, y, z = (side.mean() for side in (np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)))
    return float(np.rad2deg(np.arctan2(y, x))), float(np.rad2deg(np.arctan2(z, np.hypot(x, y))))


def _around(ring: shapely.Polygon) -> shapely.Geometry:
    """The four corners of a swath with points between them, along great circles.

    A swath near the pole is far from a straight line between its corners in degrees.
    """
    from pyproj import Geod

    geod = Geod(ellps="WGS84")
    points = []
    corners = np.array(ring.exterior.coords)
    for (west, south), (east, north) in pairwise(corners):
        points += [(west, south), *geod.npts(west, south, east, north, 24)]
    return shapely.Polygon([*points, points[0]])


def channels(product: Product) -> dict[str, Channel]:
    """Polarisation -> its files, for those that are whole enough to be calibrated."""
    found = {}
    for band in ("VV", "VH", "HH", "HV"):
        named = CHANNEL.format(band.lower())
        image = product.matching(rf"measurement/{named}\.tiff?")
        annotation = product.matching(rf"annotation/{named}\.xml")
        calibration = product.matching(rf"annotation/calibration/calibration-{named}\.xml")
        noise = product.matching(rf"annotation/calibration/noise-{named}\.xml")
        if image and annotation and calibration:
            found[band] = Channel(image[0], annotation[0], calibration[0], noise[0] if noise else None)
    return found


@dataclass(frozen=True, eq=False)
class Radar:
    """One product, its XML read: what rendering it takes."""

    product: Product
    shape: tuple[int, int]
    """Lines and pixels."""
    spacing_m: float
    grid: Geolocation
    files: dict[str, Channel]
    noise_removed: bool


@lru_cache(maxsize=8)
def _read(key: tuple[str, tuple[tuple[int, int], ...]]) -> Radar:
    from pathlib import Path

    from .files import open_product

    product = open_product(Path(key[0]))
    files = channels(product)
    name = product.name
    if not files:
        raise ReadError(f"{name} has no image with its annotation and calibration beside it. {BAD}")
    annotation = product.xml(files[min(files)].annotation)
    image = annotation.find(".//imageInformation")
    lines, pixels = (_whole(text(image, tag)) for tag in ("numberOfLines", "numberOfSamples"))
    if lines is None or pixels is None:
        raise ReadError(f"{name}: its annotation does not say how large the image is. {BAD}")
    grid = Geolocation.of(annotation, name)
    free = all(one.noise is not None or noise_is_gone(product.xml(one.annotation)) for one in files.values())
    return Radar(product, (lines, pixels), grid.spacing_m, grid, files, noise_removed=free)


def read_radar(item: Item) -> Radar:
    """The product of an item."""
    from pathlib import Path

    from .files import stamp_of

    path = Path(item["properties"][GRD_KEY])
    try:
        return _read((path.as_posix(), stamp_of(path)))
    except ReadError:
        raise
    except SourceError as error:
        raise ReadError(str(error)) from error


def calibration_of(radar: Radar, band: str) -> Calibration:
    """What turns the numbers of a channel into sigma0."""
    one, product = radar.files[band], radar.product

    def xml(name: str) -> Element:
        return product.xml(name)

    where = f"{product.name} {band}"
    noise = xml(one.noise) if one.noise else None
    return Calibration.of(xml(one.annotation), xml(one.calibration), noise, radar.shape[1], where)
