"""STAC catalogs that tests write: over the real patches, and over small made-up scenes with known pixels."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.transform import from_origin

L2A = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
L1C = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
PLACES = {
    "637U_59R_1_3": ("2017-10-30T05:32:30Z", "2017-10-30T10:41:51Z"),
    "282D_485L_3_3": ("2021-07-21T08:40:10Z", "2021-07-23T13:22:41Z"),
}


def footprint(path: Path) -> tuple[dict[str, Any], list[float], int]:
    with rasterio.open(path) as file:
        bounds, epsg = file.bounds, file.crs.to_epsg()
    to = Transformer.from_crs(epsg, 4326, always_xy=True)
    xs = [bounds.left, bounds.right, bounds.right, bounds.left, bounds.left]
    ys = [bounds.bottom, bounds.bottom, bounds.top, bounds.top, bounds.bottom]
    lon, lat = to.transform(xs, ys)
    ring = [[float(a), float(b)] for a, b in zip(lon, lat, strict=True)]
    return {"type": "Polygon", "coordinates": [ring]}, [min(lon), min(lat), max(lon), max(lat)], epsg


def item(name: str, first: Path, when: str, assets: dict[str, Any], **properties: Any) -> dict[str, Any]:
    geometry, bbox, epsg = footprint(first)
    collection = properties.pop("collection", None)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": collection,
        "geometry": geometry,
        "bbox": bbox,
        "properties": {"datetime": when, "proj:code": f"EPSG:{epsg}", **properties},
        "assets": assets,
        "links": [],
    }


def write_catalog(folder: Path, items: list[dict[str, Any]]) -> Path:
    """A static catalog: catalog.json -> <collection>/collection.json -> <collection>/<item>.json, all relative."""
    names = list(dict.fromkeys(one["collection"] for one in items))
    root = {"type": "Catalog", "stac_version": "1.0.0", "id": "test", "description": "written by a test"}
    root["links"] = [{"rel": "child", "href": f"./{name}/collection.json"} for name in names]
    (folder / "catalog.json").write_text(json.dumps(root))
    for name in names:
        mine = [one for one in items if one["collection"] == name]
        (folder / name).mkdir(exist_ok=True)
        boxes = np.array([one["bbox"] for one in mine])
        times = sorted(one["properties"]["datetime"] for one in mine)
        collection = {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": name,
            "description": name,
            "license": "other",
            "extent": {
                "spatial": {"bbox": [[*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()]]},
                "temporal": {"interval": [[times[0], times[-1]]]},
            },
            "links": [{"rel": "item", "href": f"./{one['id']}.json"} for one in mine],
        }
        (folder / name / "collection.json").write_text(json.dumps(collection))
        for one in mine:
            (folder / name / f"{one['id']}.json").write_text(json.dumps(one))
    return folder / "catalog.json"


def terramind_items(real: Path) -> list[dict[str, Any]]:
    """Both places: S1 in dB, L2A with its offset gone, L1C as it is, each one file of many bands."""
    made = []
    for place, (s1_time, s2_time) in PLACES.items():
        folder = real / "terramind"
        s1, l2a, l1c = (folder / kind / f"{place}.tif" for kind in ("S1RTC", "S2L2A", "S2L1C"))
        reprocessed = place == "282D_485L_3_3"
        db = {"unit": "dB", "data_type": "float64"}
        assets = {
            "data": {
                "href": str(s1),
                "type": "image/tiff",
                "bands": [{"name": "VV"}, {"name": "VH"}],
                "raster:bands": [db, db],
            }
        }
        made.append(item(f"S1_{place}", s1, s1_time, assets, collection="sentinel-1-rtc", platform="sentinel-1a"))
        stated = [{"nodata": 0, "scale": 0.0001, "offset": 0} for _ in L2A]
        assets = {
            "data": {
                "href": str(l2a),
                "type": "image/tiff",
                "eo:bands": [{"name": b} for b in L2A],
                "raster:bands": stated,
            }
        }
        made.append(
            item(
                f"S2_{place}_L2A",
                l2a,
                s2_time,
                assets,
                collection="sentinel-2-l2a",
                platform="sentinel-2a",
                **{"eo:cloud_cover": 1.5},
            )
        )
        assets = {"data": {"href": str(l1c), "type": "image/tiff", "eo:bands": [{"name": b} for b in L1C]}}
        baseline = {"s2:processing_baseline": "05.00" if reprocessed else "02.06"}
        made.append(
            item(
                f"S2_{place}_L1C", l1c, s2_time, assets, collection="sentinel-2-l1c", platform="sentinel-2a", **baseline
            )
        )
    return made


def bigearthnet_items(real: Path) -> list[dict[str, Any]]:
    """Three pairs, one file a band, 10/20/60 m bands at their own size; radar in dB."""
    made = []
    for folder in sorted((real / "bigearthnet/S2").iterdir()):
        when = datetime.strptime(folder.name.split("_")[2], "%Y%m%dT%H%M%S").strftime("%Y-%m-%dT%H:%M:%SZ")
        assets = {band: {"href": str(folder / f"{folder.name}_{band}.tif"), "type": "image/tiff"} for band in L2A}
        first = folder / f"{folder.name}_B02.tif"
        made.append(
            item(folder.name, first, when, assets, collection="bigearthnet-s2", **{"s2:processing_baseline": "02.05"})
        )
    for folder in sorted((real / "bigearthnet/S1").iterdir()):
        when = datetime.strptime(folder.name.split("_")[4], "%Y%m%dT%H%M%S").strftime("%Y-%m-%dT%H:%M:%SZ")
        assets = {
            band.lower(): {
                "href": str(folder / f"{folder.name}_{band}.tif"),
                "type": "image/tiff",
                "raster:bands": [{"unit": "dB"}],
            }
            for band in ("VV", "VH")
        }
        first = folder / f"{folder.name}_VV.tif"
        made.append(
            item(
                folder.name, first, when, assets, collection="bigearthnet-s1", **{"deepsentinel:backscatter": "sigma0"}
            )
        )
    return made


def grid_of(path: Path) -> GeoBox:
    with rasterio.open(path) as file:
        return GeoBox(file.shape, file.transform, f"EPSG:{file.crs.to_epsg()}")


def write_band(
    path: Path,
    data: np.ndarray,
    *,
    left: float,
    top: float,
    resolution_m: float,
    epsg: int = 32631,
    nodata: float | None = None,
) -> Path:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=data.shape[1],
        height=data.shape[0],
        count=1,
        dtype=data.dtype,
        crs=f"EPSG:{epsg}",
        transform=from_origin(left, top, resolution_m, resolution_m),
        nodata=nodata,
        tiled=True,
        blockxsize=64,
        blockysize=64,
        compress="deflate",
    ) as file:
        file.write(data, 1)
    return path


# -- a made-up coast: small files whose every pixel is known ----------------------------------------------------------

LEFT, TOP, SIZE_PX, EPSG = 499_980.0, 5_450_040.0, 96, 32631
NATIVE_M = {"B01": 60, "B09": 60, **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12", "SCL"), 20)}
S2_DATES = {"2020-06-01": ("02.14", 5.0), "2020-06-11": ("05.00", 40.0), "2020-06-21": ("05.09", 90.0)}
S1_DATES = ("2020-06-02", "2020-06-12")


def made_dn(band: str, seed: int) -> np.ndarray:
    """Reflectance x 10000 of a made-up band at its own size; a corner is without data, a pixel is as dark as can be."""
    size = SIZE_PX * 10 // NATIVE_M.get(band, 10)
    rng = np.random.default_rng(seed * 100 + L1C.index(band))
    dn = rng.integers(2, 6000, (size, size)).astype("uint16")
    dn[-1, -1] = 1
    dn[: size // 8, : size // 8] = 0
    return dn


def made_power(name: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed * 100 + len(name) + ord(name[1]))
    power = (0.08 * rng.gamma(4.4, 1 / 4.4, (SIZE_PX, SIZE_PX)) + 1e-4).astype("float32")
    power[:, -8:] = -32768
    return power


def made_items(folder: Path) -> list[dict[str, Any]]:
    """Three S2 dates (the later two with the +1000 stored) and two S1 dates, one tile, files beside the items."""
    made = []
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (day, (baseline, cloud)) in enumerate(S2_DATES.items()):
        name = f"S2A_31UDQ_{day.replace('-', '')}_0_L2A"
        assets = {}
        for band in (*L2A, "SCL"):
            if band == "SCL":
                data = np.full((SIZE_PX // 2, SIZE_PX // 2), 4 + seed, "uint8")
            else:
                data = made_dn(band, seed)
                data = np.where(data > 0, data + (1000 if baseline >= "04.00" else 0), 0).astype("uint16")
            path = folder / f"{name}_{band}.tif"
            write_band(path, data, left=LEFT, top=TOP, resolution_m=NATIVE_M.get(band, 10), epsg=EPSG, nodata=0)
            assets[band] = {"href": str(path), "type": "image/tiff; application=geotiff"}
        about = {"s2:processing_baseline": baseline, "eo:cloud_cover": cloud, "platform": "sentinel-2a"}
        about |= {"s2:datatake_id": f"GS2A_{day}", "s2:mgrs_tile": "31UDQ", "sat:relative_orbit": 94}
        first = folder / f"{name}_B02.tif"
        made.append(item(name, first, f"{day}T10:57:00Z", assets, collection="sentinel-2-l2a", **about))
    for seed, day in enumerate(S1_DATES):
        name = f"S1A_IW_GRDH_1SDV_{day.replace('-', '')}T055000_rtc"
        assets = {}
        for band in ("VV", "VH"):
            path = folder / f"{name}_{band}.tif"
            write_band(path, made_power(band, seed), left=LEFT, top=TOP, resolution_m=10, epsg=EPSG, nodata=-32768)
            stated = [{"nodata": -32768, "data_type": "float32"}]
            assets[band.lower()] = {"href": str(path), "type": "image/tiff", "raster:bands": stated}
        about = {"platform": "SENTINEL-1A", "sat:orbit_state": "descending", "sat:relative_orbit": 110}
        about |= {"sar:instrument_mode": "IW", "sar:polarizations": ["VV", "VH"], "sar:product_type": "GRD"}
        first = folder / f"{name}_VV.tif"
        made.append(item(name, first, f"{day}T05:50:00Z", assets, collection="sentinel-1-rtc", **about))
    return made


def made_grid(shape: tuple[int, int] = (SIZE_PX, SIZE_PX)) -> GeoBox:
    return GeoBox(shape, from_origin(LEFT, TOP, 10, 10), f"EPSG:{EPSG}")


MADE_AOI = (3.001, 49.193, 3.011, 49.199)
