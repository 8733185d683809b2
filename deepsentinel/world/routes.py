"""Where people settled and how they travel: sites for town and villages, roads and a railway along cheap ground."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import shapely

from .lattice import distance_to, lattice_graph, least_cost, ramp, smooth_line, walk
from .noise import fractal, rng_for
from .terrain import Terrain

__all__ = ["Road", "Routes", "Site", "lay_routes", "urban_field"]


@dataclass
class Site:
    """A place where people live."""

    kind: str
    """town or village."""
    x: float
    """Metres east on the world plane."""
    y: float
    """Metres north."""
    radius_m: float
    """About how far the houses reach."""


@dataclass
class Road:
    """One stretch of road or railway."""

    kind: str
    """The OSM value: trunk, secondary, tertiary, unclassified, rail."""
    line: np.ndarray
    """(n, 2) metres."""
    width_m: float
    """Width on the ground, verges left out."""


@dataclass
class Routes:
    """Settlements and the network between them."""

    town: Site
    """The one town."""
    villages: list[Site]
    """Villages, best sites first."""
    industry: Site
    """Where factories stand."""
    station: tuple[float, float]
    """Where trains stop."""
    roads: list[Road] = field(default_factory=list)
    """Roads, major first."""
    railway: list[Road] = field(default_factory=list)
    """Tracks."""


_WIDTHS = {"trunk": 22.0, "secondary": 9.0, "tertiary": 7.5, "unclassified": 5.5, "rail": 13.0}


def _town_site(rng: np.random.Generator, land: Terrain, tile_m: float, radius: float) -> Site:
    """A flat spot above the river, near the middle of the world so that both tiles see it."""
    grid = land.grid
    x, y = grid.centres()
    flat = land.slope + 0.02 * land.height / 30
    score = 1.5 * ramp(land.river_m, 0.2 * radius, 0.5 * radius) - 1.6 * ramp(land.river_m, 0.6 * radius, 1.6 * radius)
    score = score - 6 * flat - 0.8 * land.floor - 1.5 * (np.abs(x) / (0.24 * tile_m))[None, :] ** 2
    score = score - 1.2 * ((y + 0.06 * tile_m) / (0.28 * tile_m))[:, None] ** 2 - 3 * (land.coast_m < 1.4 * radius)
    score = score - 3 * (distance_to(land.lakes > 0, 20.0) < 0.8 * radius) + 0.3 * fractal(rng, grid.shape, 60, 2)
    row, col = np.unravel_index(int(np.argmax(score)), grid.shape)
    return Site("town", float(x[col]), float(y[row]), radius)


def _village_sites(rng: np.random.Generator, land: Terrain, town: Site, tile_m: float) -> list[Site]:
    """Dry, fairly flat, not too close to each other; most near a stream, as old villages are."""
    grid = land.grid
    x, y = grid.centres()
    step = np.hypot(x[None, :] - town.x, y[:, None] - town.y)
    fit = 1.2 * np.exp(-((land.stream_m - 280) ** 2) / 350**2) - 9 * land.slope - 1.2 * land.wetness
    fit = fit + 0.5 * fractal(rng, grid.shape, 70, 3)
    bad = (land.coast_m < 350 * land.scale) | (land.floor > 0.35) | (step < town.radius_m * 1.25 + 750 * land.scale)
    bad |= (np.abs(x) > 0.79 * tile_m)[None, :] | (np.abs(y) > 0.485 * tile_m)[:, None]
    bad |= distance_to(land.lakes > 0, 20.0) < 250 * land.scale
    fit = np.where(bad, -np.inf, fit)
    wanted = max(2, round(1.6 * (tile_m / 1000) ** 2 * 0.82 / 15))
    sites: list[Site] = []
    while len(sites) < wanted and np.isfinite(fit.max()):
        row, col = np.unravel_index(int(np.argmax(fit)), grid.shape)
        radius = float(np.clip(rng.lognormal(np.log(205), 0.35), 130, 420)) * max(land.scale, 0.5)
        sites.append(Site("village", float(x[col]), float(y[row]), radius))
        gap = rng.uniform(1500, 2300) * max(land.scale, 0.5)
        fit[np.hypot(x[None, :] - x[col], y[:, None] - y[row]) < gap] = -np.inf
    return sites


def lay_routes(seed: int, land: Terrain, size_px: int) -> Routes:
    """Settlements, roads and railway of one seed."""
    rng = rng_for(seed, "routes")
    tile_m, grid = size_px * 10.0, land.grid
    town = _town_site(rng, land, tile_m, 1220 * max(land.scale, 0.35) ** 0.85)
    villages = _village_sites(rng, land, town, tile_m)

    coarse = grid.coarser(3)
    xs, ys = coarse.centres()
    cols = coarse.shape[1]

    def pool(a: np.ndarray) -> np.ndarray:
        return a.reshape(coarse.shape[0], 3, cols, 3).mean(axis=(1, 3))

    slope, sea = pool(land.slope), pool((land.coast_m < 60).astype(np.float32))
    river = pool((land.river_m < 45).astype(np.float32))
    lake = pool((land.lakes > -40).astype(np.float32))
    wet = pool(land.floor)
    step = np.hypot(xs[None, :] - town.x, ys[:, None] - town.y)
    ground = 1 + (slope / 0.07) ** 2 + 200 * sea + 60 * lake + 14 * river + 0.8 * wet
    ground = ground * np.exp(0.55 * fractal(rng, coarse.shape, 900 / 60, 4, 0.8))

    def cell(x: float, y: float) -> int:
        row, col = coarse.index(np.array(x), np.array(y))
        return int(row) * cols + int(col)

    def points(cells: np.ndarray) -> np.ndarray:
        return np.stack([xs[cells % cols], ys[cells // cols]], axis=1)

    def edge(side: int, low: float, high: float) -> int:
        """Cheapest cell on one edge of the map (0 west, 1 east, 2 south) within a stretch of it."""
        rows = coarse.shape[0]
        if side == 2:
            span = np.arange(int(low * cols), int(high * cols))
            return int((rows - 1) * cols + span[np.argmin(ground[-1, span])])
        span = np.arange(int(low * rows), int(high * rows))
        col = 0 if side == 0 else cols - 1
        return int(span[np.argmin(ground[span, col])] * cols + col)

    routes = Routes(town, villages, town, (town.x, town.y))

    # The dual carriageway and the railway pass by the town, on either side, and care most about gradients.
    bypass = rng.choice([-1.0, 1.0])
    for kind, side, reach, weight, sigma in (("trunk", bypass, 1.55, 2.0, 260.0), ("rail", -bypass, 0.92, 3.0, 330.0)):
        cost = (
            1
            + weight * (slope / 0.07) ** 2
            + 80 * sea
            + 80 * lake
            + 6 * river
            + 0.5 * wet
            + (kind == "trunk") * 8 * (step < 1.25 * town.radius_m)
        )
        turn = rng.uniform(-0.35, 0.35)
        via = (
            town.x - side * np.sin(turn) * reach * town.radius_m,
            town.y - 0.9 * side * np.cos(turn) * reach * town.radius_m,
        )
        via = (via[0], float(np.clip(via[1], ys[-1] + 200, ys[int(0.30 * len(ys))])))
        cost = cost * np.exp(0.3 * fractal(rng, coarse.shape, 2500 / 60, 2))
        if kind == "rail":  # the valley is wide enough for both, but not on top of each other
            other = np.zeros(coarse.shape, dtype=bool)
            other[coarse.index(*routes.roads[0].line.T)] = True
            cost = cost + 5 * (distance_to(other, 60.0) < 260 * land.scale)
        _, back = least_cost(cost, divmod(cell(*via), cols))
        halves = [points(walk(back, edge(s, 0.42, 0.92))) for s in (0, 1)]
        line = smooth_line(np.vstack([halves[0], halves[1][::-1][1:]]), 25.0, sigma * max(land.scale, 0.5))
        road = Road(kind, line, _WIDTHS[kind])
        (routes.railway if kind == "rail" else routes.roads).append(road)
        if kind == "rail":
            near = int(np.argmin(np.hypot(line[:, 0] - town.x, line[:, 1] - town.y)))
            routes.station = (float(line[near, 0]), float(line[near, 1]))
            # Factories stand where the railway leaves the town, on ground that is flat and not the flood plain.
            best, at = -np.inf, near
            for k in range(0, len(line), 4):
                gap = np.hypot(line[k, 0] - town.x, line[k, 1] - town.y) / town.radius_m
                row, col = grid.index(line[k, 0], line[k, 1])
                inside = abs(line[k, 0]) < 0.72 * tile_m and abs(line[k, 1]) < 0.42 * tile_m
                fit = -8 * abs(gap - 1.25) - 25 * land.slope[row, col] - 6 * land.floor[row, col] - 50 * (not inside)
                fit = fit - 30 * (land.coast_m[row, col] < 300) - 20 * (land.lakes[row, col] > -400 * land.scale)
                if fit > best:
                    best, at = float(fit), k
            routes.industry = Site("industry", float(line[at, 0]), float(line[at, 1]), 400.0 * max(land.scale, 0.35))

    used: dict[int, int] = {}

    def lay(cells: np.ndarray, kind: str) -> None:
        """From its far end up to where an earlier road already runs."""
        stop = next((k for k, c in enumerate(cells.tolist()) if c in used), len(cells) - 1)
        if stop < 2:
            return
        piece = points(cells[: stop + 1])
        joined = used.get(int(cells[stop]))
        if joined is not None:
            other = routes.roads[joined].line
            piece[-1] = other[np.argmin(np.hypot(*(other - piece[-1]).T))]
        line = smooth_line(piece, 20.0, 110.0)
        for c in cells[: stop + 1].tolist():
            used.setdefault(c, len(routes.roads))
        routes.roads.append(Road(kind, line, _WIDTHS[kind]))

    _, back = least_cost(ground, divmod(cell(town.x, town.y), cols))
    for side, low, high in ((0, 0.3, 0.6), (1, 0.3, 0.6), (2, 0.3, 0.7)):
        lay(walk(back, edge(side, low, high)), "secondary")
    lay(walk(back, cell(routes.industry.x, routes.industry.y)), "secondary")
    far = np.hypot([v.x - town.x for v in villages], [v.y - town.y for v in villages])
    for k in np.argsort(far, kind="stable").tolist():
        lay(walk(back, cell(villages[k].x, villages[k].y)), "tertiary")
    _lay_links(ground, villages, cell, lay, land.scale)
    return routes


def _lay_links(
    cost: np.ndarray,
    villages: list[Site],
    cell: Callable[[float, float], int],
    lay: Callable[[np.ndarray, str], None],
    scale: float,
) -> None:
    """A lane from each village to its nearest neighbour or two."""
    from scipy.sparse import csgraph

    if len(villages) < 2:
        return
    starts = [cell(v.x, v.y) for v in villages]
    where = np.array([[v.x, v.y] for v in villages])
    gaps = np.hypot(*(where[:, None] - where[None]).transpose(2, 0, 1))
    _, back = csgraph.dijkstra(
        lattice_graph(cost), directed=False, indices=starts, return_predecessors=True, limit=140 * max(scale, 0.5)
    )
    for k, row in enumerate(gaps):
        for other in np.argsort(row, kind="stable")[1:3].tolist():
            if k < other and back[k][starts[other]] >= 0:
                lay(walk(back[k], starts[other]), "unclassified")


def urban_field(seed: int, land: Terrain, routes: Routes) -> np.ndarray:
    """How built-up the ground is, on the 20 m lattice: above 0 inside settlements, 1 in the middle of the town."""
    rng = rng_for(seed, "urban")
    grid = land.grid
    x, y = grid.centres()
    wobble = fractal(rng, grid.shape, 420 * max(land.scale, 0.5) / 20, 3)
    lines = shapely.MultiLineString([road.line for road in routes.roads if road.kind != "trunk"])
    from rasterio.features import rasterize

    near_road = np.exp(
        -distance_to(rasterize([(lines, 1)], grid.shape, transform=grid.transform, dtype="uint8") > 0, 20.0) / 150
    )
    field_ = np.full(grid.shape, -9.0, dtype=np.float32)
    for site in [routes.town, *routes.villages]:
        far = np.hypot(x[None, :] - site.x, y[:, None] - site.y) / site.radius_m
        strength = (0.16, 0.30) if site.kind == "town" else (0.22, 0.55)
        here = 1 - far + strength[0] * wobble + strength[1] * (near_road - 0.35)
        field_ = np.maximum(field_, np.where(far < 2.2, here, -9))
    field_ -= 1.6 * land.floor * ramp(-land.river_m, -420 * land.scale, -60) * 0.5
    field_ -= 4.0 * np.maximum(land.slope - 0.10, 0)
    field_ = np.where((land.lakes > -40) | (land.coast_m < 90), -9, field_)
    return np.clip(field_, -9, 1).astype(np.float32)
