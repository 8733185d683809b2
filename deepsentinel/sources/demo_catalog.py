"""The catalog of the demo world: STAC documents, vectors and class maps, written at once; scenes are rendered later."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepsentinel.bands import S2_BANDS
from deepsentinel.files import write_bytes
from deepsentinel.world.optical import RESOLUTION_M
from deepsentinel.world.scenes import Scene, scenes
from deepsentinel.world.sights import sights

from .demo_files import COG_TYPE, write_cog

if TYPE_CHECKING:
    from deepsentinel.world.landscape import Landscape

S2_COLLECTION, S1_COLLECTION = "sentinel-2-l2a", "sentinel-1-rtc"
BUILD_STEPS = 3
LANDSCAPE_FILE = "landscape.npz"
SCENES_FOLDER = "scenes"
YEARS = (2018, 2019)
AREA_KEY = "deepsentinel:area"
_LICENSE = "CC0-1.0"
_EXTENSIONS = "https://stac-extensions.github.io/"
_SUN_EXTENSIONS = [
    f"{_EXTENSIONS}{name}/schema.json"
    for name in ("eo/v1.0.0", "sat/v1.0.0", "projection/v1.0.0", "raster/v1.1.0", "view/v1.0.0")
]
_RADAR_EXTENSIONS = [
    f"{_EXTENSIONS}{name}/schema.json"
    for name in ("sar/v1.0.0", "sat/v1.0.0", "projection/v1.0.0", "raster/v1.1.0", "view/v1.0.0")
]


def catalog_paths(folder: Path) -> dict[str, Path]:
    """The labels that lie beside the catalog, by name.

    >>> sorted(catalog_paths(Path("x")))[:2]
    ['class_map_2018_30UYV', 'class_map_2018_31UCQ']
    """
    from deepsentinel.world.grid import TILES

    paths = {"corine": folder / "vectors" / "corine.gpkg", "osm": folder / "vectors" / "osm.gpkg"}
    paths |= {f"parcels_{year}": folder / "vectors" / f"parcels_{year}.gpkg" for year in YEARS}
    for year in YEARS:
        for tile in TILES:
            paths[f"class_map_{year}_{tile}"] = folder / "maps" / f"class_map_{year}_{tile}.tif"
            paths[f"land_cover_{year}_{tile}"] = folder / "maps" / f"land_cover_{year}_{tile}.tif"
    return paths


def write_catalog(folder: Path, seed: int, size_px: int) -> Iterator[None]:
    """Everything but the scenes, into an empty folder, in `BUILD_STEPS` steps; `catalog.json` comes last."""
    from deepsentinel.world.landscape import build_landscape

    land = build_landscape(seed, size_px)
    yield
    # Arrays beside vectors: NumPy and GDAL let go of the interpreter for most of what they do.
    with ThreadPoolExecutor(1) as beside:
        rasters = beside.submit(_write_rasters, folder, land)
        _write_vectors(folder, land)
        everything = scenes(land.seed, land.size_px)
        yield
        rasters.result()
    yield
    links = []
    for sensor, name, title in (
        ("S2", S2_COLLECTION, "Imaginary Sentinel-2 L2A"),
        ("S1", S1_COLLECTION, "Imaginary Sentinel-1, terrain corrected (gamma0)"),
    ):
        members = [scene for scene in everything if scene.sensor == sensor]
        items = [item(scene) for scene in members]
        _write_json(folder / f"{name}-items.json", {"type": "FeatureCollection", "features": items})
        _write_json(folder / f"{name}.json", _collection(name, title, members, items))
        links.append({"rel": "child", "href": f"./{name}.json", "type": "application/json", "title": title})
    _write_json(
        folder / "catalog.json",
        {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "demo",
            "title": f"The demo world, seed {land.seed}",
            "description": (
                "An imaginary coast at 0 E, 49.25 N. Nothing in it was measured by a satellite: every pixel follows "
                f"from the seed ({land.seed}) and the item's id."
            ),
            AREA_KEY: sights(land),
            "links": [
                {"rel": "root", "href": "./catalog.json", "type": "application/json"},
                {"rel": "self", "href": "./catalog.json", "type": "application/json"},
                *links,
            ],
        },
    )


def _write_json(path: Path, document: dict[str, Any]) -> None:
    write_bytes(path, json.dumps(document, separators=(",", ":")).encode())


def _write_vectors(folder: Path, land: Landscape) -> None:
    from deepsentinel.world import vectors

    paths = catalog_paths(folder)
    paths["corine"].parent.mkdir()
    vectors.corine(land).to_file(paths["corine"], layer="corine", driver="GPKG")
    for layer, table in vectors.osm(land).items():
        table.to_file(paths["osm"], layer=layer, driver="GPKG")
    for year in YEARS:
        vectors.parcels(land, year).to_file(paths[f"parcels_{year}"], layer="parcels", driver="GPKG")


def _write_rasters(folder: Path, land: Landscape) -> None:
    from deepsentinel.world.classmaps import class_maps
    from deepsentinel.world.grid import tile_geoboxes
    from deepsentinel.world.ground import save_ground

    land.save(folder / LANDSCAPE_FILE)
    paths = catalog_paths(folder)
    (folder / "maps").mkdir()
    for tile, box in tile_geoboxes(land.size_px).items():
        save_ground(land, tile, box, folder)
        for year in YEARS:
            fine, broad = class_maps(land, box, year)
            write_cog(paths[f"class_map_{year}_{tile}"], fine, box, nodata=0, name="class")
            write_cog(paths[f"land_cover_{year}_{tile}"], broad, box, nodata=0, name="land cover")


def _collection(name: str, title: str, members: list[Scene], items: list[dict[str, Any]]) -> dict[str, Any]:
    boxes = [item["bbox"] for item in items]
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "title": title,
        "description": f"{title}. Rendered, not measured.",
        "license": _LICENSE,
        "extent": {
            "spatial": {
                "bbox": [[*(min(b[k] for b in boxes) for k in (0, 1)), *(max(b[k] for b in boxes) for k in (2, 3))]]
            },
            "temporal": {"interval": [[_stamp(members[0]), _stamp(members[-1])]]},
        },
        "links": [
            {"rel": "root", "href": "./catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "./catalog.json", "type": "application/json"},
            {"rel": "items", "href": f"./{name}-items.json", "type": "application/geo+json"},
        ],
    }


def _stamp(scene: Scene) -> str:
    return scene.time.strftime("%Y-%m-%dT%H:%M:%SZ")


def item(scene: Scene) -> dict[str, Any]:
    """The STAC item of a scene, as Planetary Computer would state it, with raster:bands for scale and offset.

    >>> from deepsentinel.world.scenes import scenes
    >>> item(scenes(0, 256)[0])["stac_version"]
    '1.0.0'
    """
    ring = [list(point) for point in (*scene.footprint, scene.footprint[0])]
    # Footprints are listed clockwise; GeoJSON wants the other way round.
    ring.reverse()
    lons, lats = [p[0] for p in ring], [p[1] for p in ring]
    optical = scene.sensor == "S2"
    collection = S2_COLLECTION if optical else S1_COLLECTION
    properties: dict[str, Any] = {
        "datetime": _stamp(scene),
        "platform": scene.platform,
        "constellation": "Sentinel 2" if optical else "Sentinel-1",
        "sat:orbit_state": scene.orbit,
        "sat:relative_orbit": scene.relative_orbit,
        "sat:absolute_orbit": scene.absolute_orbit,
        "proj:epsg": scene.geobox.crs.epsg if scene.geobox.crs else None,
        "proj:bbox": _bounds(scene),
    }
    properties |= _s2_properties(scene) if optical else _s1_properties(scene)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": _SUN_EXTENSIONS if optical else _RADAR_EXTENSIONS,
        "id": scene.id,
        "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [min(lons), min(lats), max(lons), max(lats)],
        "properties": properties,
        "links": [
            {"rel": "collection", "href": f"./{collection}.json", "type": "application/json"},
            {"rel": "root", "href": "./catalog.json", "type": "application/json"},
        ],
        "assets": _s2_assets(scene) if optical else _s1_assets(scene),
    }


def _bounds(scene: Scene) -> list[float]:
    affine, (rows, cols) = scene.geobox.affine, scene.geobox.shape
    return [affine.c, affine.f + rows * affine.e, affine.c + cols * affine.a, affine.f]


def _s2_properties(scene: Scene) -> dict[str, Any]:
    assert scene.baseline is not None
    assert scene.generated is not None
    number = scene.baseline.replace(".", "")
    generated = scene.generated.strftime("%Y%m%dT%H%M%S")
    start = scene.time.strftime("%Y%m%dT%H%M%S")
    product = f"S2{scene.platform[-1]}_MSIL2A_{start}_N{number}_R{scene.relative_orbit:03d}_T{scene.tile}_{generated}"
    return {
        "instruments": ["msi"],
        "eo:cloud_cover": scene.cloud_cover,
        "view:sun_azimuth": round(scene.sun_azimuth_deg, 4),
        "view:sun_elevation": round(scene.sun_elevation_deg, 4),
        "s2:mgrs_tile": scene.tile,
        "s2:processing_baseline": scene.baseline,
        "s2:datatake_id": scene.datatake,
        "s2:product_type": "S2MSI2A",
        "s2:product_uri": f"{product}.SAFE",
        "s2:generation_time": scene.generated.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "s2:nodata_pixel_percentage": round(100 * scene.nodata_share, 6),
        "s2:mean_solar_azimuth": round(scene.sun_azimuth_deg, 4),
        "s2:mean_solar_zenith": round(90 - scene.sun_elevation_deg, 4),
    }


def _s1_properties(scene: Scene) -> dict[str, Any]:
    from deepsentinel.world.radar import LOOKS

    return {
        "instruments": ["c-sar"],
        "sar:instrument_mode": "IW",
        "sar:frequency_band": "C",
        "sar:center_frequency": 5.405,
        "sar:polarizations": ["VV", "VH"],
        "sar:product_type": "RTC",
        "sar:resolution_range": 20,
        "sar:resolution_azimuth": 22,
        "sar:pixel_spacing_range": 10,
        "sar:pixel_spacing_azimuth": 10,
        "sar:looks_range": 5,
        "sar:looks_azimuth": 1,
        "sar:looks_equivalent_number": LOOKS,
        "sar:observation_direction": "right",
        "s1:datatake_id": scene.datatake,
        "s1:processing_level": "1",
        "s1:nodata_pixel_percentage": round(100 * scene.nodata_share, 6),
    }


def _grid_fields(scene: Scene, metres: int) -> dict[str, Any]:
    affine, (rows, cols) = scene.geobox.affine, scene.geobox.shape
    return {
        "gsd": metres,
        "proj:shape": [-(-rows * 10 // metres), -(-cols * 10 // metres)],
        "proj:transform": [float(metres), 0.0, affine.c, 0.0, -float(metres), affine.f],
    }


def _asset(scene: Scene, key: str, title: str, metres: int, raster: dict[str, Any]) -> dict[str, Any]:
    return {
        "href": f"./{SCENES_FOLDER}/{scene.id}/{key}.tif",
        "type": COG_TYPE,
        "title": title,
        "roles": ["data"],
        **_grid_fields(scene, metres),
        "raster:bands": [{**raster, "spatial_resolution": metres}],
    }


def _s2_assets(scene: Scene) -> dict[str, Any]:
    assets = {}
    for key, metres in sorted(RESOLUTION_M.items()):
        if key == "SCL":
            raster: dict[str, Any] = {"data_type": "uint8", "nodata": 0}
            assets[key] = _asset(scene, key, "Scene classification map (SCL)", metres, raster)
            continue
        band = S2_BANDS[key]
        raster = {"data_type": "uint16", "nodata": 0, "scale": 0.0001, "offset": -scene.offset_dn / 10000}
        assets[key] = _asset(scene, key, f"{key} - {metres} m", metres, raster)
        named = {"name": key, "description": band.description}
        if band.common_name:
            # Version 1.0 of the extension, which real catalogs still use, has one name for all three red edges.
            named["common_name"] = "rededge" if band.common_name.startswith("rededge") else band.common_name
        if band.centre_nm:
            named |= {"center_wavelength": band.centre_nm / 1000}  # type: ignore[dict-item]
        assets[key]["eo:bands"] = [named]
    return assets


def _s1_assets(scene: Scene) -> dict[str, Any]:
    from deepsentinel.world.radar import ANGLE_SPACING_M, NODATA

    assets = {}
    for key in ("vv", "vh"):
        raster = {"data_type": "float32", "nodata": NODATA}
        assets[key] = _asset(scene, key, f"{key.upper()}: gamma0, linear power, terrain corrected", 10, raster)
    raster = {"data_type": "float32", "nodata": NODATA, "unit": "degree"}
    assets["angle"] = _asset(scene, "angle", "Ellipsoidal incidence angle", ANGLE_SPACING_M, raster)
    assets["angle"]["roles"] = ["metadata"]
    return assets
