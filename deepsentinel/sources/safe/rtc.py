"""Terrain-corrected Sentinel-1 as GeoTIFFs in a folder or archive -> STAC items, from their names and headers.

A GeoTIFF does not say what its numbers are; the names that its maker gave do. HyP3's tell quantity and unit, OPERA's
and Planetary Computer's products are always gamma0 in linear power. For others the user is asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import shapely

from deepsentinel.errors import SourceError
from deepsentinel.sources.assets import Item

CHANNEL = re.compile(r"(^|[_.\-])(VV|VH|HH|HV)(?=[_.\-]|$)", re.I)
ANGLE = re.compile(r"(^|[_.\-])(angle|inc_map_ell|incidence_angle)(?=[_.\-]|$)", re.I)
# Against the slope of the ground and not the ellipsoid's upright: another quantity, that no band here has.
LOCAL_ANGLE = re.compile(r"(^|[_.\-])(inc_map(?!_ell)|loc(al)?_(inc|angle)\w*|lia)(?=[_.\-]|$)", re.I)
STAMP = r"(\d{8}T\d{6})Z?"
HYP3 = re.compile(rf"S1([A-D])_(\w\w)_{STAMP}_[SD][VH]\w_RTC(\d+)_G_([gs])([pad])\w{{4}}_\w{{4}}", re.I)
OPERA = re.compile(rf"OPERA_L2_RTC-S1_T(\d+)-\d+-\w+_{STAMP}_{STAMP}_S1([A-D])_\d+_v[\d.]+", re.I)
GRD = re.compile(rf"S1([A-D])_(\w\w)_GRD\w_1S\w\w_{STAMP}_{STAMP}_(\d{{6}})_(\w{{6}})", re.I)
UNITS = {"p": "linear power", "a": "amplitude", "d": "dB"}
# The number of the track follows from that of the orbit; when each satellite joined the cycle differs.
FIRST_ORBIT = {"A": 73, "B": 27}
# Further towards the poles it turns, and morning and evening run into one another.
TURNING_LAT = 75.0


@dataclass(frozen=True)
class Raster:
    """One GeoTIFF."""

    stem: str
    """Its name without ending."""
    folder: str
    """The name of the folder or archive it lies in."""
    opened_as: str
    """As GDAL opens it."""


@dataclass(frozen=True)
class _Scene:
    id: str
    time: str
    platform: str
    mode: str | None = None
    backscatter: str | None = None
    unit: str | None = None
    relative_orbit: int | None = None
    datatake: str | None = None


def rtc_items(rasters: Iterable[Raster]) -> tuple[list[Item], list[str]]:
    """The items of all rasters that belong together by name, and what was left out and why."""
    groups: dict[str, tuple[_Scene, dict[str, Raster]]] = {}
    for raster in rasters:
        band = _band(raster)
        scene = _scene(raster)
        if band is not None and scene is not None:
            groups.setdefault(scene.id, (scene, {}))[1].setdefault(band, raster)
    items, remarks = [], []
    for scene, files in groups.values():
        if not any(name != "angle" for name in files):
            continue
        try:
            items.append(_item(scene, files))
        except SourceError as error:
            remarks.append(str(error))
    return items, remarks


def _band(raster: Raster) -> str | None:
    if LOCAL_ANGLE.search(raster.stem):
        return None
    if ANGLE.search(raster.stem):
        return "angle"
    found = list(CHANNEL.finditer(raster.stem))
    return found[-1][2].upper() if found else None


def _scene(raster: Raster) -> _Scene | None:
    """What the name of a file, or that of its folder, tells."""
    for name in (raster.stem, raster.folder):
        hyp3 = HYP3.search(name)
        if hyp3:
            kind = "gamma0_rtc" if hyp3[5].lower() == "g" else "sigma0"
            return _Scene(hyp3[0], hyp3[3], hyp3[1], hyp3[2], kind, UNITS[hyp3[6].lower()])
        opera = OPERA.search(name)
        if opera:
            track = int(opera[1])
            return _Scene(opera[0], opera[2], opera[4], "IW", "gamma0_rtc", "linear power", track)
        grd = GRD.search(name)
        if grd:
            # The file may be anything made of that product; "rtc" in a name is what Planetary Computer adds to it.
            rtc = re.search(r"(?<![a-z])rtc(?![a-z])", f"{raster.folder}/{raster.stem}", re.I)
            whole = re.search(re.escape(grd[0]) + r"\w*", name)
            first = FIRST_ORBIT.get(grd[1].upper())
            return _Scene(
                CHANNEL.sub("", whole[0] if whole else grd[0]),
                _middle(grd[3], grd[4]),
                grd[1],
                grd[2],
                "gamma0_rtc" if rtc else None,
                "linear power" if rtc else None,
                None if first is None else (int(grd[5]) - first) % 175 + 1,
                grd[6].upper(),
            )
    stamp = re.search(rf"S1([A-D])_.*?{STAMP}", raster.stem)
    return _Scene(CHANNEL.sub("", ANGLE.sub("", raster.stem)), stamp[2], stamp[1]) if stamp else None


def _middle(first: str, last: str) -> str:
    """Halfway between two times: when the middle of the scene was sensed."""
    start, stop = (datetime.strptime(stamp, "%Y%m%dT%H%M%S") for stamp in (first, last))
    return (start + timedelta(seconds=math.floor((stop - start).total_seconds() / 2))).strftime("%Y%m%dT%H%M%S")


def _item(scene: _Scene, files: dict[str, Raster]) -> Item:
    import rasterio

    code, shape, box = "", None, None
    assets: dict[str, Any] = {}
    for band, raster in sorted(files.items()):
        try:
            with rasterio.open(raster.opened_as, driver="GTiff") as file:
                crs, transform, size = file.crs, file.transform, (file.height, file.width)
                bounds, dtype, nodata, scales = file.bounds, file.dtypes[0], file.nodata, file.scales
        except rasterio.errors.RasterioError as error:
            name = PurePosixPath(raster.opened_as).name
            raise SourceError(f"{scene.id}: {name} cannot be opened ({error}). Fetch or make it again.") from error
        if crs is None:
            raise SourceError(
                f"{scene.id}: {PurePosixPath(raster.opened_as).name} has no map projection, so it is not terrain "
                "corrected. Take an RTC product, or warp it first."
            )
        stated: dict[str, Any] = {"data_type": dtype, "nodata": nodata}
        if band == "angle":
            # HyP3 delivers angles in radians.
            stated |= {"unit": "degree", "scale": math.degrees(1) if "inc_map" in raster.stem.lower() else scales[0]}
        elif scene.unit is not None:
            stated["unit"] = scene.unit
        assets[band if band == "angle" else band.lower()] = {
            "href": raster.opened_as,
            "type": "image/tiff; application=geotiff",
            "roles": ["data"],
            "proj:shape": list(size),
            "proj:transform": list(transform)[:6],
            "raster:bands": [{name: value for name, value in stated.items() if value is not None}],
        }
        if shape is None or band != "angle":
            code, shape, box = _code(crs), size, bounds
    when = datetime.strptime(scene.time, "%Y%m%dT%H%M%S")
    footprint = _degrees(box, code)
    properties = {
        "datetime": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "platform": f"sentinel-1{scene.platform.lower()}",
        "constellation": "Sentinel-1",
        "proj:code": code,
        "sar:instrument_mode": scene.mode,
        "sar:polarizations": [name for name in files if name != "angle"],
        "sat:orbit_state": _orbit(when, footprint),
        "sat:relative_orbit": scene.relative_orbit,
        "s1:datatake_id": scene.datatake,
        "deepsentinel:backscatter": scene.backscatter,
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": scene.id,
        "collection": "sentinel-1-rtc" if scene.backscatter == "gamma0_rtc" else "sentinel-1-geotiff",
        "geometry": shapely.geometry.mapping(footprint),
        "properties": {name: value for name, value in properties.items() if value is not None},
        "assets": assets,
        "links": [],
    }


def _orbit(when: datetime, footprint: shapely.Geometry) -> str | None:
    """Which way the satellite flew: it crosses the equator northwards at six in the evening, by the sun, every time."""
    place = footprint.centroid
    if abs(place.y) > TURNING_LAT:
        return None
    hour = (when.hour + when.minute / 60 + place.x / 15) % 24
    return "ascending" if hour >= 12 else "descending"


def _code(crs: Any) -> str:
    epsg = crs.to_epsg()
    return f"EPSG:{epsg}" if epsg else str(crs.to_wkt())


def _degrees(bounds: Any, code: str) -> shapely.Geometry:
    """The file's own rectangle: where in it there are pixels, only the pixels tell."""
    from pyproj import Transformer

    step = max(bounds.right - bounds.left, bounds.top - bounds.bottom) / 16
    ring = shapely.get_coordinates(shapely.segmentize(shapely.box(*bounds), step))
    lon, lat = Transformer.from_crs(code, "EPSG:4326", always_xy=True).transform(*ring.T)
    return shapely.Polygon(np.column_stack([lon, lat]))
