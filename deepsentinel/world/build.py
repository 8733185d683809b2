"""Putting the landscape together: one layer of decisions after another, wide to narrow, natural to built."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

from .classes import Cover
from .construction import construct, lanes_between, power_lines
from .countryside import countryside, hedges, riverside, works
from .grid import MasterGrid, master_grid
from .noise import fractal, hash01, resize, rng_for, smooth
from .parcels import Cells, crop_table, cut_fields, number_parcels
from .routes import Routes, lay_routes, urban_field
from .shore import shore
from .terrain import Terrain, build_terrain
from .towns import Built, build_towns
from .water import river_polygon
from .zones import zone

__all__ = ["assemble"]


def assemble(seed: int, size_px: int) -> dict[str, Any]:
    """Everything a `Landscape` holds besides its seed and size."""
    master = master_grid(size_px)
    land = build_terrain(seed, master, size_px)
    routes = lay_routes(seed, land, size_px)
    urban = urban_field(seed, land, routes)
    built = build_towns(seed, land, routes, urban)
    cells = cut_fields(seed, master, land)
    plan = zone(seed, land, routes, cells, urban, size_px)

    cover, vineyard = countryside(seed, master, land, cells, plan)
    pits, height20 = works(seed, master, land, routes, cells, plan, cover)
    lanes = lanes_between(seed, land, cells, cover, master)
    hedges(seed, cells, cover, plan)
    riverside(seed, master, land, cover)
    shore(seed, master, land, cover)
    construct(seed, master, land, routes, built, lanes, cover)

    field = (cover == Cover.CROP) | ((cover == Cover.GRASSLAND) & plan.farmed[cells.label])
    parcel, outlines, pieces = number_parcels(cover, cells.label, field, master)
    # Crop cells that ended up in no parcel (a sliver's rim) are rough grass.
    cover[(cover == Cover.CROP) & (parcel == 0)] = Cover.GRASSLAND
    table = crop_table(seed, outlines, pieces, plan.pasture[pieces], vineyard[pieces], plan.bocage_of[pieces], cells)

    height = resize(height20, master.shape, cubic=True)
    height += 0.22 * resize(
        smooth(rng_for(seed, "bumps"), (master.shape[0] // 4, master.shape[1] // 4), 2), master.shape
    )
    np.copyto(height, resize(land.height, master.shape), where=cover == Cover.LAKE)
    np.copyto(height, resize(land.river_surface, master.shape), where=cover == Cover.RIVER)
    sea = cover == Cover.SEA
    np.minimum(height, -0.3, out=height, where=sea)
    dry = ~sea & (cover != Cover.TIDAL_FLAT)
    np.maximum(height, 0.1, out=height, where=dry)
    height = np.round(height / np.float32(0.05)).astype(np.int16).astype(np.float32) * np.float32(0.05)
    features = _features(land, routes, built, lanes, pits)
    return {
        "origin_x": master.origin_x,
        "origin_y": master.origin_y,
        "resolution_m": master.resolution_m,
        "shape": master.shape,
        "cover": cover,
        "parcel": parcel,
        "height": height,
        "tree": _bytes(_stands(seed, master, cells, cover)),
        "moisture": _bytes(_moisture(seed, master, land)),
        "parcels": table,
        "features": features,
    }


def _bytes(values: np.ndarray) -> np.ndarray:
    """Rounded to what a byte holds, so that what is saved and loaded is what was built."""
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8).astype(np.float32) / np.float32(255)


def _stands(seed: int, master: MasterGrid, cells: Cells, cover: np.ndarray) -> np.ndarray:
    """Age and density of woods: alike within a compartment, drifting within it."""
    rng = rng_for(seed, "stands")
    drift = resize(fractal(rng, (master.shape[0] // 4, master.shape[1] // 4), 22, 4, 0.7), master.shape)
    stands = (0.45 * hash01(np.arange(cells.count + 1), seed + 41) + 0.12).astype(np.float32)[cells.label]
    stands += np.float32(0.2)
    stands += np.float32(0.14) * drift
    return stands


def _moisture(seed: int, master: MasterGrid, land: Terrain) -> np.ndarray:
    rng = rng_for(seed, "moisture")
    patchy = fractal(rng, land.grid.shape, 90 / 20, 3, 0.8)
    return resize(land.wetness + np.float32(0.035) * patchy, master.shape)


def _features(land: Terrain, routes: Routes, built: Built, lanes: list, sites: dict[str, Any]) -> dict[str, list]:
    """What a map draws, with tags in the manner of OpenStreetMap."""
    line = shapely.LineString
    features: dict[str, list] = {
        "roads": [(line(r.line), {"highway": r.kind}) for r in routes.roads],
        "streets": [(g, {"highway": kind}) for g, kind in built.streets],
        "lanes": [(g, {"highway": kind}) for g, kind, _ in lanes],
        "railway": [(line(r.line), {"railway": "rail"}) for r in routes.railway],
        "river": [(line(land.river), {"waterway": "river"})],
        "river_area": [(river_polygon(land.river, land.river_width_m), {"natural": "water", "water": "river"})],
        "streams": [(line(s), {"waterway": "stream"}) for s in land.streams if len(s) > 2],
        "buildings": [(g, {"building": "yes"}) for g in built.houses],
        "halls": [(g, {"building": "industrial"}) for g in built.halls],
        "parks": [(g, {"leisure": "park"}) for g in built.parks],
        "retail": [(g, {"landuse": "retail"}) for g in built.retail],
        "works": [(g, {"landuse": "industrial"}) for g in built.works],
        "farmyards": [(g, {"landuse": "farmyard"}) for g in built.farmyards],
        "quarry": [(g, {"landuse": "quarry"}) for g in sites["quarry"]],
        "solar": [(g, {"power": "plant", "plant:source": "solar"}) for g in sites["solar"]],
        "power": [(g, {"power": "line"}) for g in power_lines(routes, sites)],
        "station": [(shapely.Point(routes.station), {"railway": "station"})],
        "places": [
            (shapely.Point(p.x, p.y), {"place": p.kind, "radius_m": f"{p.radius_m:.0f}"})
            for p in [routes.town, *routes.villages]
        ],
    }
    return features
