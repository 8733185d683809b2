"""Relief and water: a coast, a drainage network, and the heights that such a network would have carved.

The order matters and is the reverse of what one may expect: first where water runs (a tree of least-cost paths from
outlets inland), then how much gathers, then heights by climbing that tree with the slope that a river of that size
keeps (steep where little water runs, flat where much does). Valleys branch, ridges meet, and nothing has a pit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .grid import MasterGrid
from .lattice import burn, distance_to, lattice_graph, least_cost, ramp, walk
from .noise import fractal, resize, rng_for, smooth
from .water import lakes_into, meander, river_polygon, trace_streams

__all__ = ["Terrain", "build_terrain"]


@dataclass(eq=False)
class Terrain:
    """Relief and water on a 20 m lattice."""

    grid: MasterGrid
    """The 20 m lattice."""
    scale: float
    """Tile width over 10.24 km, at most 1: towns and lakes shrink with a small world."""
    height: np.ndarray
    """Metres above the sea."""
    coast_m: np.ndarray
    """Distance to the shoreline, positive on land."""
    soft: np.ndarray
    """0 cliff coast .. 1 low sandy coast."""
    river: np.ndarray
    """(n, 2) centre line of the river from the hills to the sea."""
    river_width_m: np.ndarray
    """(n,) width along it."""
    river_level_m: np.ndarray
    """(n,) water level along it."""
    river_m: np.ndarray
    """Distance to the centre line."""
    river_surface: np.ndarray
    """Level of the river at its point nearest to each cell."""
    floor: np.ndarray
    """0..1, how much a cell belongs to the flat valley floor of the river."""
    streams: list[np.ndarray]
    """Centre lines of smaller streams, downhill."""
    stream_m: np.ndarray
    """Distance to the nearest stream or river."""
    lakes: np.ndarray
    """Level set of lakes and ponds, positive inside."""
    mouth: tuple[float, float]
    """Where the river meets the sea."""
    slope: np.ndarray
    """Rise over run."""
    southness: np.ndarray
    """-1 faces north .. 1 faces south, weighted by nothing."""
    wetness: np.ndarray
    """0 dry .. 1 wet ground."""


def _coast(seed: int, grid: MasterGrid, scale: float, mouth_x: float) -> tuple[np.ndarray, np.ndarray]:
    """Signed shore function (rough metres, positive on land) and softness of the coast, on `grid`."""
    from scipy import ndimage

    rng = rng_for(seed, "coast")
    x, y = grid.centres()
    cell = grid.resolution_m
    top, tall = grid.origin_y, grid.shape[0] * cell
    line = top - tall * rng.uniform(0.17, 0.215) + np.tan(np.radians(rng.uniform(-2.5, 2.5))) * x
    shore = line[None, :] - y[:, None]
    for width, strength in ((2600, 330), (900, 130), (300, 45), (110, 16)):
        shore = shore + strength * scale * smooth(rng, grid.shape, width * scale / cell)
    # A bay at the mouth, a rocky headland on one side of it, at a distance that keeps both in the world.
    side = -1.0 if mouth_x > 0 else 1.0
    head_x = mouth_x + side * rng.uniform(4300, 5600) * scale
    dx_mouth, dx_head = (x - mouth_x) / scale, (x - head_x) / scale
    shore = shore - (520 * scale * np.exp(-((dx_mouth / 800) ** 2)))[None, :]
    shore = shore + (520 * scale * np.exp(-((dx_head / 850) ** 2)))[None, :]
    hard = np.exp(-((dx_head / 1500) ** 2))[None, :] + 0.35 * smooth(rng, grid.shape, 2500 * scale / cell)
    soft = 1 - ramp(hard, 0.35, 0.75)
    sea = shore < 0
    labels, _ = ndimage.label(sea)
    sea = labels == labels[0, grid.shape[1] // 2]
    land_labels, n = ndimage.label(~sea)
    if n > 1:  # islets smaller than 2 ha are drowned: they would be noise
        sizes = np.bincount(land_labels.ravel())
        sea |= (sizes < 20000 / cell**2)[land_labels]
    inside = distance_to(sea, cell) - distance_to(~sea, cell)
    return inside, soft.astype(np.float32)


def _drainage(
    seed: int, grid: MasterGrid, land: np.ndarray, trunk: np.ndarray, trunk_z: np.ndarray, coast_m: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heights, cells upstream, and receiver of each cell on the 60 m lattice."""
    from scipy.sparse import csgraph

    rng = rng_for(seed, "drainage")
    cell = grid.resolution_m
    rows, cols = grid.shape
    rough = np.exp(0.9 * fractal(rng, grid.shape, 1500 / cell, 5, 0.85))
    resist = np.exp(0.45 * fractal(rng, grid.shape, 3500 / cell, 3))
    base = np.full(grid.shape, np.nan, dtype=np.float64)
    # Other outlets: short streams to the coast every two kilometres or so, and neighbours' rivers beyond the edges.
    shore = np.argwhere(land & (coast_m < 1.5 * cell) & (coast_m > 0))
    for k in rng.permutation(len(shore))[: max(2, int(cols * cell / 2200))]:
        base[tuple(shore[k])] = 0.5
    for _ in range(max(3, int((rows + cols) * cell / 5500))):
        side = rng.integers(3)
        along = rng.uniform(0.1, 0.75)
        row, col = ((rows - 1, int(along * cols)), (int((1 - along) * rows), 0), (int((1 - along) * rows), cols - 1))[
            side
        ]
        if land[row, col]:
            base[row, col] = 6 + coast_m[row, col] * rng.uniform(0.002, 0.006)
    base.ravel()[trunk] = trunk_z
    outlets = np.flatnonzero(np.isfinite(base.ravel()) & land.ravel())
    height = np.zeros(rows * cols)
    spread = np.full(rows * cols, 1.0)
    for _ in range(3):
        cost = (rough * np.where(land, 1, 1e4)).ravel() * spread
        far, back, _ = csgraph.dijkstra(
            lattice_graph(cost.reshape(rows, cols)),
            directed=False,
            indices=outlets,
            min_only=True,
            return_predecessors=True,
        )
        order = np.argsort(far, kind="stable")
        order = order[land.ravel()[order]]
        down = back.tolist()
        water = [1.0] * (rows * cols)
        for i in order[::-1].tolist():
            if down[i] >= 0:
                water[down[i]] += water[i]
        step = np.hypot(
            (np.arange(rows * cols) // cols) - (back // cols), (np.arange(rows * cols) % cols) - (back % cols)
        )
        rise = (0.155 * step * cell * resist.ravel() * np.asarray(water) ** -0.47).tolist()
        climb = base.ravel().tolist()
        for i in order.tolist():
            if down[i] >= 0:
                climb[i] = climb[down[i]] + rise[i]
        height = np.nan_to_num(np.array(climb))
        # The next round lets low ground capture what is high: divides move to where both sides are equally high.
        spread = 1.0 + 3.5 * height / max(height.max(), 1.0)
    return height.reshape(rows, cols), np.asarray(water).reshape(rows, cols), back


def build_terrain(seed: int, master: MasterGrid, size_px: int) -> Terrain:
    """Relief and water of one seed."""
    from scipy import ndimage

    scale = min(1.0, size_px / 1024)
    fine, coarse = master.coarser(4), master.coarser(12)
    tile_m = size_px * 10.0
    rng = rng_for(seed, "river")
    mouth_x = rng.choice([-1.0, 1.0]) * rng.uniform(0.05, 0.24) * tile_m
    coast_m, soft = _coast(seed, fine, scale, mouth_x)
    coast60 = resize(coast_m, coarse.shape)
    land60 = coast60 > 0

    # The river's valley: cheapest way through rough ground from the mouth to a point on the south edge.
    xs, ys = coarse.centres()
    col = int(np.argmin(np.abs(xs - mouth_x)))
    row = int(np.argmax(land60[:, col]))
    cost = np.exp(0.9 * fractal(rng, coarse.shape, 2400 * scale / 60, 3, 0.6)) * np.where(land60, 1, 50)
    cost = cost + 2.0 * np.exp(-np.maximum(coast60, 0) / (500 * scale))
    cost[-max(4, coarse.shape[0] // 12) :] += 3.0  # come in from the hills, not along the edge of the map
    far, back = least_cost(cost, (row, col))
    entries = far[-coarse.shape[1] :] * (1 + 0.5 * (np.abs(xs + 0.5 * mouth_x) / (0.3 * tile_m)) ** 2)
    source = (coarse.shape[0] - 1) * coarse.shape[1] + int(np.argmin(entries))
    cells = walk(back, source)
    sea_cell = max(0, row - int(700 * scale / 60))
    valley = np.stack([xs[cells % coarse.shape[1]], ys[cells // coarse.shape[1]]], axis=1)
    valley = np.vstack([[valley[0, 0], valley[0, 1] - 60], valley, [xs[col], ys[sea_cell]]])
    river = meander(seed, valley, scale)
    gap = np.hypot(*np.diff(river, axis=0).T)
    left = np.concatenate([np.cumsum(gap[::-1])[::-1], [0]])
    rows_, cols_ = fine.index(river[:, 0], river[:, 1])
    on_land = coast_m[rows_, cols_] > 0
    mouth_i = int(np.flatnonzero(on_land)[-1])
    to_mouth = left - left[mouth_i]
    source_level = rng.uniform(26, 38) * max(scale, 0.5)
    t = np.clip(to_mouth / to_mouth[0], 0, 1)
    level = np.where(to_mouth > 0, 0.2 + source_level * (0.35 * t + 0.65 * t**2.2), 0.0)
    width = (26 + 16 * (1 - t)) * max(scale, 0.45) + 330 * scale * np.exp(-np.maximum(to_mouth, 0) / (520 * scale))
    width = width * (1 + 0.12 * smooth(rng, (1, len(river)), 40)[0])
    width = np.where(to_mouth < 0, width[mouth_i], width)

    trunk = np.unique(cells[land60.ravel()[cells]])
    nearest_i = np.argmin(
        (river[None, ::12, 0] - xs[trunk % coarse.shape[1]][:, None]) ** 2
        + (river[None, ::12, 1] - ys[trunk // coarse.shape[1]][:, None]) ** 2,
        axis=1,
    )
    z60, water, back = _drainage(seed, coarse, land60, trunk, level[::12][nearest_i], coast60)

    # Long and high: uplift grows away from the sea, with one hilly side, so hills and a low coastal plain both exist.
    hill = np.exp(0.5 * fractal(rng, coarse.shape, 4200 * max(scale, 0.5) / 60, 2))
    away = 0.4 + 0.6 * ramp(coast60, 300 * scale, 5200 * scale)
    z = ndimage.gaussian_filter(z60 * np.where(land60, hill * away, 0), 0.8)
    z = resize(z, fine.shape, cubic=True)
    z *= np.float32(rng.uniform(135, 185) * max(scale, 0.4)) / np.percentile(z, 99.5)
    z += 2.2 * fractal(rng, fine.shape, 260 / 20, 3) * ramp(z, 2, 30)
    z = z.max() * (np.maximum(z, 0) / z.max()) ** 0.8
    # Low coasts rise gently from the beach; cliffs stand up at once.
    z = 1.2 + z * (ramp(coast_m, 0, 1100 * scale) * soft + (1 - soft)) + (1 - soft) * 11 * ramp(coast_m, -5, 130)

    on_line = np.zeros(fine.shape, dtype=bool)
    on_line[rows_, cols_] = True
    far, (near_r, near_c) = ndimage.distance_transform_edt(~on_line, return_indices=True)
    river_m = (far * 20).astype(np.float32)
    level_map, width_map = np.zeros(fine.shape, np.float32), np.zeros(fine.shape, np.float32)
    level_map[rows_, cols_], width_map[rows_, cols_] = level, width
    level_near = ndimage.gaussian_filter(level_map[near_r, near_c], 4)
    half = (
        scale
        * (190 + 90 * fractal(rng, fine.shape, 1300 * scale / 20, 2))
        * (1.0 + 1.2 * np.exp(-np.maximum(coast_m, 0) / (1600 * scale)))
    )
    half = np.maximum(half, 60 * scale) + 0.5 * width_map[near_r, near_c]
    floor = 1 - ramp((river_m - half) / (300 * scale), 0, 1)
    bank = level_near + 0.5 + 0.9 * ramp(river_m, 40, 500) + 0.25 * fractal(rng, fine.shape, 120 / 20, 2)
    # Far from the river its level says nothing about the ground.
    near = np.exp(-river_m / (1800 * scale))
    bank = near * bank + (1 - near) * np.minimum(z, bank)
    z = np.where(coast_m > 0, bank + (1 - floor) * np.maximum(z - bank, 0), z)
    z = np.maximum(z, 0.6)

    lakes, z = lakes_into(seed, fine, z, coast_m, river_m, floor, level_near, scale, tile_m)
    deep = (
        -0.25
        - np.maximum(-coast_m, 0) * np.float32(0.0042) * (0.5 + 1.4 * (1 - soft))
        - 0.3 * np.abs(fractal(rng, fine.shape, 700 / 20, 3))
    )
    height = np.where(coast_m > 0, z, deep)
    river_shape = burn([river_polygon(river, width)], fine)
    height = np.where(river_shape & (coast_m > 0), level_near, height)

    streams = trace_streams(coarse, water, back, land60, 260)
    line_mask = np.zeros(fine.shape, dtype=bool)
    for line in streams:
        line_mask[fine.index(line[:, 0], line[:, 1])] = True
    stream_m = np.minimum(distance_to(line_mask, 20.0), river_m)
    gy, gx = np.gradient(ndimage.gaussian_filter(height, 1.5), 20.0)
    slope = np.hypot(gx, gy).astype(np.float32)
    southness = (-gy / np.maximum(slope, 1e-3)).astype(np.float32)
    hollow = ndimage.gaussian_filter(height, 12) - height
    wetness = (
        0.30
        + 0.55 * floor * np.exp(-river_m / (700 * scale))
        + 0.35 * np.exp(-stream_m / 130)
        + 0.012 * hollow
        - 0.9 * slope
    )
    wetness = np.clip(wetness + 0.09 * fractal(rng, fine.shape, 400 / 20, 4), 0, 1).astype(np.float32)
    return Terrain(
        grid=fine, scale=scale, height=height.astype(np.float32), coast_m=coast_m, soft=soft,
        river=river, river_width_m=width, river_level_m=level, river_m=river_m,
        river_surface=level_near.astype(np.float32), floor=floor.astype(np.float32),
        streams=streams, stream_m=stream_m, lakes=lakes,
        mouth=(float(river[mouth_i, 0]), float(river[mouth_i, 1])),
        slope=slope, southness=southness, wetness=wetness,
    )  # fmt: skip
