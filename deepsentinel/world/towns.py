"""Streets, lots and houses, and the works by the railway."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely

from .noise import fractal, rng_for
from .routes import Routes, Site
from .splitting import Plot, split
from .terrain import Terrain

__all__ = ["Built", "build_towns"]

Shapes = list[Any]
Field = Callable[[float, float], float]


@dataclass
class Built:
    """What was built, as shapes on the world plane; later kinds lie on top of earlier ones."""

    ground: Shapes = field(default_factory=list)
    """Everything within the streets' reach: paved unless something below covers it."""
    gardens: Shapes = field(default_factory=list)
    """Building blocks without their streets."""
    parks: Shapes = field(default_factory=list)
    """Parks, cemeteries, playing fields."""
    paved: Shapes = field(default_factory=list)
    """Squares, yards, car parks."""
    houses: Shapes = field(default_factory=list)
    """Ordinary buildings."""
    halls: Shapes = field(default_factory=list)
    """Large roofs: factories, warehouses, shops, schools."""
    streets: list[tuple[Any, str]] = field(default_factory=list)
    """Centre lines and their OSM kind."""
    works: Shapes = field(default_factory=list)
    """Outlines of industrial blocks."""
    retail: Shapes = field(default_factory=list)
    """Outlines of shopping blocks."""
    farmyards: Shapes = field(default_factory=list)
    """Outlines of farms."""


def _polygons(plots: list[Plot]) -> np.ndarray:
    return np.array([shapely.Polygon(plot.points) for plot in plots], dtype=object)


def _perimeter(points: list[tuple[float, float]]) -> float:
    return sum(math.dist(a, b) for a, b in zip(points, points[1:] + points[:1], strict=True))


def _square(site: Site, reach: float, turn: float) -> list[tuple[float, float]]:
    corners = [(math.cos(a + turn), math.sin(a + turn)) for a in (0, math.pi / 2, math.pi, 1.5 * math.pi)]
    return [(site.x + reach * 1.42 * c, site.y + reach * 1.42 * s) for c, s in corners]


def _longest_edge_deg(points: list[tuple[float, float]]) -> float:
    best, angle = -1.0, 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        if length > best:
            best, angle = length, math.degrees(math.atan2(y1 - y0, x1 - x0))
    return angle


def build_towns(seed: int, land: Terrain, routes: Routes, urban: np.ndarray) -> Built:
    """Streets and buildings of every settlement, and of the industrial site."""
    built = Built()
    rng = rng_for(seed, "towns")
    turn = 40.0 * fractal(rng, land.grid.shape, 900 / 20, 2)
    grid, rows_n, cols_n = land.grid, *land.grid.shape
    urban_rows, turn_rows = urban.tolist(), turn.tolist()

    def look(table: list[list[float]], x: float, y: float) -> float:
        row = min(max(int((grid.origin_y - y) / 20), 0), rows_n - 1)
        return table[row][min(max(int((x - grid.origin_x) / 20), 0), cols_n - 1)]

    for number, site in enumerate([routes.town, *routes.villages]):
        _settle(
            rng_for(seed, "towns", number),
            built,
            site,
            lambda x, y: look(urban_rows, x, y),
            lambda x, y: look(turn_rows, x, y),
        )
    _industry(rng_for(seed, "industry"), built, routes, land)
    _farms(rng_for(seed, "farms"), built, land, routes, urban)
    return built


def _settle(rng: np.random.Generator, built: Built, site: Site, urban: Field, turn: Field) -> None:
    """One settlement: blocks by cutting along and around the centre, lots in the blocks, a house on each lot."""
    town = site.kind == "town"

    def angle(x: float, y: float) -> float:
        # Streets lead to the centre or run around it, less strictly further out.
        far = math.hypot(x - site.x, y - site.y) / site.radius_m
        radial = math.degrees(math.atan2(y - site.y, x - site.x))
        return radial + turn(x, y) * (0.25 + 0.8 * min(far, 1.0))

    def block_m2(x: float, y: float) -> float:
        dense = max(0.0, min(1.0, urban(x, y) * 1.3)) if town else 0.0
        return (13500 - 7800 * dense) * math.exp(0.45 * rng.standard_normal())

    def keep(x: float, y: float, radius: float) -> bool:
        if radius > 130:
            return any(
                urban(x + radius * 0.8 * i / 3, y + radius * 0.8 * j / 3) > 0
                for i in range(-3, 4)
                for j in range(-3, 4)
            )
        return urban(x, y) > 0.0

    reach = 2.0 * site.radius_m
    blocks, cuts = split(
        _square(site, reach, float(rng.uniform(0, 1.5))),
        rng,
        target_m2=block_m2,
        angle_deg=angle,
        elongation=1.7,
        keep=keep,
    )
    # Slivers are left to the gardens' neighbours: nobody builds on the tip of a triangle.
    blocks = [b for b in blocks if b.area_m2 > 0.028 * _perimeter(b.points) ** 2]
    if not blocks:
        return
    outer = _polygons(blocks)
    built.ground.extend(shapely.buffer(outer, 3.5, join_style="mitre", quad_segs=1))
    inner = shapely.buffer(outer, -4.6, join_style="mitre", quad_segs=1)
    for cut in cuts:
        kind = "tertiary" if cut.area_m2 > 400_000 else "residential"
        n = max(2, int(math.hypot(cut.end[0] - cut.start[0], cut.end[1] - cut.start[1]) / 40))
        t = np.linspace(0, 1, n + 1)
        xs, ys = cut.start[0] + t * (cut.end[0] - cut.start[0]), cut.start[1] + t * (cut.end[1] - cut.start[1])
        inside = [urban(x, y) > -0.06 for x, y in zip(xs, ys, strict=True)]
        run = 0
        while run < n:
            if inside[run] and inside[run + 1]:
                end = run + 1
                while end < n and inside[end + 1]:
                    end += 1
                built.streets.append((shapely.LineString([(xs[run], ys[run]), (xs[end], ys[end])]), kind))
                run = end
            run += 1

    luck = rng.random(len(blocks))
    for plot, shape, chance in zip(blocks, inner, luck.tolist(), strict=True):
        if shape.is_empty or shape.geom_type != "Polygon" or shape.area < 300:
            continue
        dense = max(0.0, min(1.0, urban(*plot.centre) * 1.25)) if town else 0.12
        if chance < (0.055 if town else 0.03):
            built.parks.append(shape)
            continue
        if town and chance > 0.955 - 0.03 * dense and dense < 0.75:
            built.retail.append(shape)
            built.paved.append(shape)
            built.halls.append(_scaled(shape, rng.uniform(0.45, 0.7), rng))
            continue
        if dense > 0.72 and chance > 0.55:
            built.paved.append(shape)  # old centre: courtyards are paved
        else:
            built.gardens.append(shape)
        if town and 0.1 < dense < 0.6 and 0.055 < chance < 0.12:
            # Blocks of flats: long slabs on lawn.
            _lots(rng, built, shape, 2600, (0.62, 0.42), 0.9)
        else:
            lot = 760 - 330 * dense if town else 1050
            size = 0.50 + 0.32 * dense
            _lots(rng, built, shape, lot, (size + 0.06, size - 0.03), 0.93)


def _lots(
    rng: np.random.Generator, built: Built, shape: Any, lot_m2: float, size: tuple[float, float], share: float
) -> None:
    ring = list(shape.exterior.coords)[:-1]
    angle = _longest_edge_deg(ring)
    lots, _ = split(
        ring, rng, target_m2=lambda x, y: lot_m2, angle_deg=lambda x, y: angle, elongation=1.15, jitter_deg=1.5
    )
    turn = math.radians(angle)
    ux, uy = math.cos(turn), math.sin(turn)
    luck = rng.random((len(lots), 3)).tolist()
    for lot, (a, b, c) in zip(lots, luck, strict=True):
        if a > share or lot.area_m2 < 120:
            continue
        cx, cy = lot.centre
        long_side = max((x - cx) * ux + (y - cy) * uy for x, y in lot.points) * size[0] * (0.8 + 0.4 * b)
        short_side = max((y - cy) * ux - (x - cx) * uy for x, y in lot.points) * size[1] * (0.8 + 0.4 * c)
        built.houses.append(_oriented(cx, cy, max(long_side, 4.5), max(short_side, 4.0), ux, uy))


def _oriented(cx: float, cy: float, a: float, b: float, ux: float, uy: float) -> Any:
    """Rectangle of half sides a (along u) and b."""
    return shapely.Polygon(
        [(cx + i * a * ux - j * b * uy, cy + i * a * uy + j * b * ux) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    )


def _scaled(shape: Any, size: float, rng: np.random.Generator) -> Any:
    """A hall on a block: a rectangle along its longest side."""
    ring = list(shape.exterior.coords)[:-1]
    turn = math.radians(_longest_edge_deg(ring))
    ux, uy = math.cos(turn), math.sin(turn)
    c = shape.centroid
    along = [(x - c.x) * ux + (y - c.y) * uy for x, y in ring]
    across = [(y - c.y) * ux - (x - c.x) * uy for x, y in ring]
    a, b = 0.5 * (max(along) - min(along)) * size, 0.5 * (max(across) - min(across)) * size
    shift = rng.uniform(-0.25, 0.25) * (1 - size)
    return _oriented(c.x + shift * a * ux, c.y + shift * a * uy, a, b, ux, uy)


def _industry(rng: np.random.Generator, built: Built, routes: Routes, land: Terrain) -> None:
    """Large roofs, car parks and lawns beside the railway."""
    site, line = routes.industry, routes.railway[0].line
    k = int(np.argmin(np.hypot(line[:, 0] - site.x, line[:, 1] - site.y)))
    ahead = line[min(k + 4, len(line) - 1)] - line[max(k - 4, 0)]
    turn = math.atan2(ahead[1], ahead[0])
    ux, uy = math.cos(turn), math.sin(turn)
    side = 1.0 if (routes.town.x - site.x) * -uy + (routes.town.y - site.y) * ux > 0 else -1.0
    half_long, half_wide = site.radius_m * rng.uniform(1.0, 1.2), site.radius_m * rng.uniform(0.55, 0.68)
    cx, cy = site.x - side * uy * (half_wide + 22), site.y + side * ux * (half_wide + 22)
    outline = _oriented(cx, cy, half_long, half_wide, ux, uy)
    small = max(land.scale, 0.4)
    blocks, cuts = split(
        list(outline.exterior.coords)[:-1],
        rng,
        target_m2=lambda x, y: 21000 * small * math.exp(0.6 * rng.standard_normal()),
        angle_deg=lambda x, y: math.degrees(turn),
        elongation=1.6,
        jitter_deg=2.0,
    )
    outer = _polygons(blocks)
    built.ground.extend(outer)
    for cut in cuts:
        built.streets.append(
            (shapely.LineString([cut.start, cut.end]), "service" if cut.area_m2 < 80000 else "unclassified")
        )
    for shape in shapely.buffer(outer, -6.5, join_style="mitre"):
        if shape.is_empty or shape.area < 900:
            continue
        built.works.append(shape)
        chance = rng.random()
        (built.gardens if chance < 0.3 else built.paved).append(shape)
        if chance > 0.1:
            built.halls.append(_scaled(shape, rng.uniform(0.62, 0.86), rng))


def _farms(rng: np.random.Generator, built: Built, land: Terrain, routes: Routes, urban: np.ndarray) -> None:
    """Single farms in the fields: a yard, two or three barns, a house in a garden."""
    grid = land.grid
    dry = (land.coast_m > 250) & (land.floor < 0.3) & (land.slope < 0.12) & (urban < -0.8) & (land.lakes < -60)
    spots = np.argwhere(dry)
    if not len(spots):
        return
    wanted = max(3, int(dry.sum() * 4e-4 / 1.35))
    x, y = grid.centres()
    placed: list[tuple[float, float]] = [(routes.industry.x, routes.industry.y)]
    for row, col in spots[rng.permutation(len(spots))[: wanted * 3]].tolist():
        if len(placed) > wanted:
            break
        cx, cy = float(x[col]), float(y[row])
        reach = (routes.industry.radius_m * 2 + 100, *[550.0] * (len(placed) - 1))
        if any(math.hypot(cx - px, cy - py) < r for (px, py), r in zip(placed, reach, strict=True)):
            continue
        placed.append((cx, cy))
        turn = rng.uniform(0, math.pi)
        ux, uy = math.cos(turn), math.sin(turn)
        yard = _oriented(cx, cy, rng.uniform(32, 52), rng.uniform(26, 40), ux, uy)
        built.farmyards.append(yard)
        built.gardens.append(shapely.buffer(yard, 14))
        built.paved.append(_oriented(cx, cy, 22, 15, ux, uy))
        for i, j in ((-1, 0.75), (1, 0.8), (0.1, -0.85))[: rng.integers(2, 4)]:
            bx, by = cx + i * 24 * ux - j * 24 * uy, cy + i * 24 * uy + j * 24 * ux
            built.houses.append(_oriented(bx, by, rng.uniform(11, 22), rng.uniform(6, 10), ux, uy))
