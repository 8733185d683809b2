"""Fields, woods and hedges on the ground, and what was dug or put up among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

from .classes import Cover
from .grid import MasterGrid
from .lattice import burn, is_any, ramp
from .noise import fractal, hash01, resize, rng_for, smooth
from .parcels import Cells
from .routes import Routes
from .terrain import Terrain
from .zones import Plan

__all__ = ["countryside", "hedges", "riverside", "works"]


def countryside(
    seed: int, master: MasterGrid, land: Terrain, cells: Cells, plan: Plan
) -> tuple[np.ndarray, np.ndarray]:
    """Fields, woods, heath and marsh. Edges follow field borders mostly, and the ground where they please."""
    rng = rng_for(seed, "countryside")
    shape, label = master.shape, cells.label
    base = np.where(plan.pasture, Cover.GRASSLAND, Cover.CROP).astype(np.uint8)
    cover = base[label]
    fray = resize(fractal(rng, land.grid.shape, 160 / 20, 3, 0.7), shape)

    def above(field20: np.ndarray, by_cell: np.ndarray, share: float, rag: float) -> np.ndarray:
        score = resize(field20 * np.float32(1 - share), shape)
        score += (by_cell * np.float32(share)).astype(np.float32)[label]
        score += np.float32(rag) * fray
        return score > 0

    keep_out = plan.vineyard
    heath = above(plan.heath_field, plan.heath, 0.25, 0.10)
    wood = above(plan.wood_field, np.where(keep_out, -4, plan.wood), 0.62, 0.06)
    # Conifers come in compartments; where neither kind is at home, the stand is mixed.
    split = resize(plan.conifer_field * np.float32(0.45), shape)
    split += (0.55 * plan.conifer).astype(np.float32)[label]
    mixed = resize(smooth(rng, (shape[0] // 2, shape[1] // 2), 5), shape)
    conifer = split + np.float32(0.33) * mixed > np.float32(0.52)
    cover[heath & ~keep_out[label]] = Cover.HEATH
    cover[wood] = Cover.BROADLEAF
    cover[wood & conifer] = Cover.CONIFER
    # A compartment in twenty was felled lately and is scrub.
    felled = hash01(np.arange(cells.count + 1), seed + 51) < 0.055
    cover[felled[label] & (cover == Cover.CONIFER)] = Cover.HEATH
    marsh = above(plan.marsh_field, plan.marsh, 0.35, 0.10) & ~wood
    cover[marsh] = Cover.MARSH
    # Lone trees and copses in pastures.
    lone = resize(smooth(rng, (shape[0] // 2, shape[1] // 2), 2.2), shape) > np.float32(2.35)
    cover[lone & (cover == Cover.GRASSLAND)] = Cover.BROADLEAF
    cover[resize(land.lakes, shape, cubic=True) > 0] = Cover.LAKE
    return cover, plan.vineyard


def works(
    seed: int, master: MasterGrid, land: Terrain, routes: Routes, cells: Cells, plan: Plan, cover: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    """On each side of the map a quarry dug into a hillside and solar panels on some fields; the height with pits."""
    from rasterio.features import shapes

    rng = rng_for(seed, "works")
    m, s = plan.mean, max(land.scale, 0.35)
    x, y = plan.centre
    half_x = 0.5 * master.shape[1] * master.resolution_m - 900 * s
    half_y = 0.5 * master.shape[0] * master.resolution_m - 1000 * s
    inner = plan.usable & (np.abs(x) < half_x) & (np.abs(y) < half_y) & (m["floor"] < 0.4) & (plan.area_m2 > 0)
    inner &= (m["urban"] < -0.6) & ~plan.vineyard
    inner &= np.hypot(x - routes.industry.x, y - routes.industry.y) > 1000 * s
    height = land.height
    quarries, solars = np.zeros(master.shape, dtype=bool), np.zeros(master.shape, dtype=bool)
    sizes = rng.permutation([1.0, 0.55])
    for number, side in enumerate((x < -0.02 * half_x, x > 0.02 * half_x)):
        here = inner & side if (inner & side).any() else inner
        luck = hash01(np.arange(len(x)), seed * 4 + number)
        dry = here & (m["river"] > 750 * s)
        steep = np.where(dry if dry.any() else here, 6 * np.minimum(m["slope"], 0.16) + m["high"] + 0.5 * luck, -9)
        pick = int(np.argmax(steep))
        reach = 300 * s * sizes[number] ** 0.5 * rng.uniform(0.95, 1.15)
        pit20, height = _dig(rng, land, (float(x[pick]), float(y[pick])), reach, height, s)
        pit = resize(pit20, master.shape)
        quarry = pit > 0
        cover[quarry] = Cover.QUARRY
        if sizes[number] == 1.0 and s > 0.6:
            cover[pit > 0.7 * reach] = Cover.LAKE  # where the pumps do not reach
        quarries |= quarry
        far = np.hypot(x - x[pick], y - y[pick]) > reach + 350 * s
        farm = here & far & (m["wood"] < -0.25) & (m["heath"] < -0.3) & (m["marsh"] < -0.4) & (plan.area_m2 < 17e4)
        farm = farm if farm.any() else here & far
        sunny = np.where(farm, m["south"] + 5 * np.minimum(m["slope"], 0.1) + luck, -9)
        first = int(np.argmax(sunny))
        order = np.argsort(np.hypot(x - x[first], y - y[first]) + np.where(farm, 0, 1e7), kind="stable")
        wanted = 25e4 * s**1.3 * sizes[1 - number] * rng.uniform(0.85, 1.25)
        chosen = order[: max(1, int(np.searchsorted(np.cumsum(plan.area_m2[order]), wanted)))]
        table = np.zeros(cells.count + 1, dtype=bool)
        table[chosen] = True
        solars |= table[cells.label] & is_any(cover, [Cover.CROP, Cover.GRASSLAND])
        plan.farmed[chosen] = False
    cover[solars] = Cover.SOLAR
    sites: dict[str, Any] = {}
    for name, mask in (("quarry", quarries), ("solar", solars)):
        found = shapes(mask.astype(np.uint8), mask=mask, transform=master.transform)
        outlines = [shapely.Polygon(g["coordinates"][0], g["coordinates"][1:]) for g, _ in found]
        sites[name] = [shapely.simplify(g, 6.0) for g in outlines if g.area > 4000]
    return sites, height


def _dig(
    rng: np.random.Generator, land: Terrain, at: tuple[float, float], reach: float, height: np.ndarray, s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Level set of a pit, positive inside, and the height with benches of 9 m down to its floor."""
    x, y = land.grid.centres()
    bumps = fractal(rng, land.grid.shape, 300 * s / 20, 4, 0.65)
    pit = reach * (1 + 0.30 * bumps) - np.hypot((x[None, :] - at[0]) / 1.15, (y[:, None] - at[1]) * 1.1)
    inside, bench = np.maximum(pit, 0), 42 * s
    depth = 9.0 * np.minimum(np.floor(inside / bench) + ramp(inside % bench, 0, 14), 3) * min(1.0, s + 0.2)
    return pit, height - np.where(pit > 0, np.clip(depth, 0, np.maximum(height - 2, 0)), 0).astype(np.float32)


def hedges(seed: int, cells: Cells, cover: np.ndarray, plan: Plan) -> None:
    """Along borders between pieces, a whole border or none: most of them in the bocage, few on the plain."""
    label = cells.label
    for axis in (0, 1):
        a = label[:-1] if axis == 0 else label[:, :-1]
        b = label[1:] if axis == 0 else label[:, 1:]
        at = np.flatnonzero(a != b)
        one, two = a.ravel()[at], b.ravel()[at]
        pair = np.minimum(one, two).astype(np.int64) * 100003 + np.maximum(one, two)
        odds = 0.03 + 0.72 * np.minimum(plan.bocage_of[one], plan.bocage_of[two])
        here = at[hash01(pair, seed + 31) < odds]
        thick = hash01(pair, seed + 32)[hash01(pair, seed + 31) < odds] < 0.55
        width = a.shape[1]
        rows, cols = here // width, here % width
        for step in (0, 1):
            which = slice(None) if step == 0 else thick
            r = rows[which] + (step if axis == 0 else 0)
            c = cols[which] + (step if axis == 1 else 0)
            now = cover[r, c]
            ok = (now == Cover.CROP) | (now == Cover.GRASSLAND)
            cover[r[ok], c[ok]] = Cover.HEDGE


def riverside(seed: int, master: MasterGrid, land: Terrain, cover: np.ndarray) -> None:
    """Trees along streams and the river; the streams themselves are narrower than a pixel."""
    shape = master.shape
    rng = rng_for(seed, "streams")
    lines = shapely.MultiLineString([line for line in land.streams if len(line) > 2])
    belt = burn([shapely.buffer(lines, 9.0)], master) if len(land.streams) else np.zeros(shape, dtype=bool)
    gaps = resize(smooth(rng, land.grid.shape, 12), shape)
    bank = shapely.buffer(shapely.LineString(land.river), float(np.median(land.river_width_m)) / 2 + 11)
    belt_river = burn([bank], master) & (resize(land.coast_m, shape) > np.float32(1300 * land.scale))
    open_ground = is_any(cover, [Cover.CROP, Cover.GRASSLAND, Cover.MARSH])
    cover[belt & (gaps > -0.35) & open_ground] = Cover.BROADLEAF
    cover[belt_river & (gaps > 0.15) & open_ground] = Cover.BROADLEAF
