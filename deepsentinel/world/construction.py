"""What people built, laid over the land in the order they would hide each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

from .classes import Cover
from .grid import MasterGrid
from .lattice import burn, is_any, plain
from .noise import resize, rng_for, smooth
from .parcels import Cells
from .routes import Routes
from .terrain import Terrain
from .towns import Built

__all__ = ["construct", "lanes_between", "power_lines"]


def lanes_between(
    seed: int, land: Terrain, cells: Cells, cover: np.ndarray, master: MasterGrid
) -> list[tuple[Any, str, float]]:
    """Lanes and tracks along the borders that the countryside was first divided by."""
    rng = rng_for(seed, "lanes")
    grid = land.grid
    out: list[tuple[Any, str, float]] = []
    wet = (
        is_any(cover[2::4, 2::4], [Cover.LAKE, Cover.MARSH, Cover.QUARRY, Cover.SOLAR])
        | (land.coast_m < 70)
        | (land.river_m < 55)
        | (land.slope > 0.22)
    )
    for cut in cells.cuts:
        if cut.area_m2 < 3.0e5:
            continue
        lane = cut.area_m2 > 1.4e6
        luck = rng.random()
        if luck > (0.75 if lane else 0.45):
            continue
        length = float(np.hypot(cut.end[0] - cut.start[0], cut.end[1] - cut.start[1]))
        t = np.linspace(0, 1, max(3, int(length / 20)))
        x = cut.start[0] + t * (cut.end[0] - cut.start[0])
        y = cut.start[1] + t * (cut.end[1] - cut.start[1])
        # Fields were bent by looking their label up elsewhere; a line has to be moved the other way.
        for _ in range(2):
            r, c = grid.index(x, y)
            x_bent = cut.start[0] + t * (cut.end[0] - cut.start[0]) - cells.shift[0][r, c]
            y_bent = cut.start[1] + t * (cut.end[1] - cut.start[1]) + cells.shift[1][r, c]
            x, y = x_bent, y_bent
        r, c = grid.index(x, y)
        inside = (
            (x > grid.origin_x)
            & (y < grid.origin_y)
            & (x < grid.origin_x + grid.shape[1] * 20)
            & (y > grid.origin_y - grid.shape[0] * 20)
        )
        good = ~wet[r, c] & inside
        edges = np.flatnonzero(np.diff(np.concatenate([[0], good.view(np.int8), [0]])))
        for a, b in edges.reshape(-1, 2):
            if b - a > 8:
                line = shapely.simplify(shapely.LineString(np.stack([x[a:b], y[a:b]], axis=1)), 2.0)
                out.append((line, "unclassified" if lane else "track", 5.0 if lane else 3.2))
    return out


def construct(
    seed: int, master: MasterGrid, land: Terrain, routes: Routes, built: Built, lanes: list, cover: np.ndarray
) -> None:
    """Streets, gardens and houses, then roads and rails on top, bridges included."""
    rng = rng_for(seed, "gardens")
    wet = is_any(cover, [Cover.SEA, Cover.RIVER, Cover.LAKE, Cover.TIDAL_FLAT, Cover.BEACH, Cover.SALT_MARSH])
    green = smooth(rng, (master.shape[0] // 2, master.shape[1] // 2), 1.6)
    trees = resize(green, master.shape) > np.float32(1.35)
    layers = np.zeros(master.shape, dtype=np.uint8)
    from rasterio.features import rasterize

    # Country lanes go under the settlements, main roads over them.
    lane_shapes = [shapely.buffer(line, 0.5 * width) for line, kind, width in lanes if kind == "unclassified"]
    lane_mask = burn(lane_shapes, master)
    cover[lane_mask & ~wet] = Cover.ASPHALT
    codes = (
        (built.ground, Cover.ASPHALT), (built.gardens, Cover.GARDEN), (built.parks, 99), (built.paved, Cover.ASPHALT),
        (built.houses, Cover.BUILDING), (built.halls, Cover.INDUSTRY),
    )  # fmt: skip
    for shapes_, code in codes:
        if len(shapes_):
            rasterize(((g, int(code)) for g in plain(shapes_)), out=layers, transform=master.transform)
    town = (layers > 0) & ~wet
    park = town & (layers == 99)
    layers[park] = Cover.GARDEN
    cover[town] = layers[town]
    cover[town & trees & (cover == Cover.GARDEN)] = Cover.BROADLEAF
    wooded = resize(smooth(rng, (master.shape[0] // 4, master.shape[1] // 4), 3), master.shape) > np.float32(0.4)
    cover[park & wooded] = Cover.BROADLEAF

    roads = [shapely.buffer(shapely.LineString(r.line), r.width_m / 2, cap_style="flat") for r in routes.roads]
    sea = (cover == Cover.SEA) | (cover == Cover.TIDAL_FLAT)
    road_mask = burn(roads, master)
    wide = [r for r in routes.roads if r.kind == "trunk"]
    verge = burn([shapely.buffer(shapely.LineString(r.line), r.width_m / 2 + 8) for r in wide], master)
    dry = ~is_any(cover, [Cover.RIVER, Cover.LAKE, Cover.SEA])
    cover[verge & dry & (cover != Cover.BUILDING)] = Cover.GRASSLAND
    cover[road_mask & ~sea] = Cover.ASPHALT
    rails = burn([shapely.buffer(shapely.LineString(r.line), r.width_m / 2) for r in routes.railway], master)
    cut = burn([shapely.buffer(shapely.LineString(r.line), r.width_m / 2 + 5) for r in routes.railway], master)
    cover[cut & is_any(cover, [Cover.BROADLEAF, Cover.CONIFER, Cover.BUILDING, Cover.INDUSTRY])] = Cover.GRASSLAND
    cover[rails & ~sea] = Cover.RAILWAY


def power_lines(routes: Routes, sites: dict[str, Any]) -> list[Any]:
    """From the works straight across country to the solar farm, with a bend, and on to the next map."""
    start = np.array([routes.industry.x, routes.industry.y])
    if not sites["solar"]:
        return []
    end = np.array(sites["solar"][0].centroid.coords[0])
    side = np.array([-(end - start)[1], (end - start)[0]]) * 0.12
    return [shapely.LineString([start, (start + end) / 2 + side, end])]
