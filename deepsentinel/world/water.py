"""Lines and shapes of inland water: meanders, streams, lakes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .grid import MasterGrid
from .lattice import ramp, smooth_line
from .noise import fractal, rng_for, smooth

__all__ = ["lakes_into", "meander", "river_polygon", "trace_streams"]


def trace_streams(
    grid: MasterGrid, water: np.ndarray, back: np.ndarray, land: np.ndarray, least_cells: float
) -> list[np.ndarray]:
    """Lines from where a stream begins to where it joins a longer one."""
    flat, cols = water.ravel(), grid.shape[1]
    x, y = grid.centres()
    is_stream = (flat >= least_cells) & land.ravel() & (back >= 0)
    taken = np.zeros(flat.size, dtype=bool)
    has_donor = np.zeros(flat.size, dtype=bool)
    has_donor[back[is_stream]] = True
    heads = np.flatnonzero(is_stream & ~has_donor)
    lengths = []
    for head in heads.tolist():
        n, i = 0, head
        while back[i] >= 0:
            i, n = int(back[i]), n + 1
        lengths.append(n)
    lines = []
    for head in heads[np.argsort(-np.array(lengths), kind="stable")].tolist() if len(heads) else []:
        path = [head]
        while back[path[-1]] >= 0 and not taken[path[-1]]:
            taken[path[-1]] = True
            path.append(int(back[path[-1]]))
        if len(path) > 5:
            cells = np.array(path)
            lines.append(smooth_line(np.stack([x[cells % cols], y[cells // cols]], axis=1), 25.0, 110.0))
    return lines


def meander(seed: int, line: np.ndarray, scale: float) -> np.ndarray:
    """Swing a valley line from side to side the way a lowland river does, less so near the sea."""
    from scipy import ndimage

    rng = rng_for(seed, "meander")
    line = smooth_line(line, 15.0, 450.0 * scale)
    gap = np.hypot(*np.diff(line, axis=0).T)
    along = np.concatenate([[0], np.cumsum(gap)])
    left = along[-1] - along
    n = len(line)
    wave = smooth(rng, (1, n), 1500 * scale / 15)[0]
    phase = np.cumsum(2 * np.pi * 15 / (scale * 780 * (1 + 0.25 * np.clip(wave, -1.5, 1.5))))
    # A sine-generated curve: it is the heading, not the offset, that swings as a sine; this makes real meanders' loops.
    swing = np.radians(np.clip(66 + 22 * smooth(rng, (1, n), 1100 * scale / 15)[0], 20, 102))
    swing = swing * (0.12 + 0.88 * ramp(left, 700 * scale, 2300 * scale))
    turn = swing * np.sin(phase)
    down, across = np.cumsum(np.cos(turn)), 15.0 * np.cumsum(np.sin(turn))
    # The loops may not drift off the valley's axis: keep only what is shorter than a few of them.
    across -= ndimage.gaussian_filter1d(across, 1500 * scale / 15, mode="nearest")
    across *= np.minimum(1.0, (n - 1) / down[-1] / 1.6)
    at = down / down[-1] * along[-1]
    heading = np.gradient(line, axis=0)
    heading /= np.hypot(*heading.T)[:, None]
    normal = np.stack([-heading[:, 1], heading[:, 0]], axis=1)
    spots, sides = (np.stack([np.interp(at, along, a[:, k]) for k in (0, 1)], axis=1) for a in (line, normal))
    return smooth_line(spots + sides * across[:, None], 10.0, 14.0)


def river_polygon(river: np.ndarray, width: np.ndarray) -> Any:
    """The water surface: short pieces as wide as the river is there, joined."""
    import shapely

    pieces = [
        shapely.LineString(river[k : k + 7]).buffer(float(width[k : k + 7].mean()) / 2, quad_segs=4)
        for k in range(0, len(river) - 1, 6)
    ]
    return shapely.union_all(pieces)


def lakes_into(
    seed: int, grid: MasterGrid, z: np.ndarray, coast_m: np.ndarray, river_m: np.ndarray, floor: np.ndarray,
    level_near: np.ndarray, scale: float, tile_m: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """One lake worth the name and some gravel pits by the river; the ground around them is made to fit."""
    rng = rng_for(seed, "lakes")
    x, y = grid.centres()
    levels = np.full(grid.shape, -1e3, dtype=np.float32)
    bumps = fractal(rng, grid.shape, 480 * scale / 20, 4, 0.7)
    inner = (np.abs(x) < 0.66 * tile_m)[None, :] & (np.abs(y) < 0.40 * tile_m)[:, None]
    radius = scale * rng.uniform(400, 500)
    score = np.where(
        inner & (coast_m > 1300 * scale) & (river_m > 2.4 * radius) & (floor < 0.3), -z - 6 * np.abs(bumps), -np.inf
    )
    score = score + rng.uniform(0, 22) * smooth(rng, grid.shape, 1600 * scale / 20)
    sites = [(np.unravel_index(int(np.argmax(score)), grid.shape), radius, rng.uniform(1.3, 1.9))]
    ponds = np.argwhere(inner & (floor > 0.9) & (river_m > 150 * scale) & (coast_m > 1500 * scale))
    for k in rng.permutation(len(ponds))[: rng.integers(3, 7)]:
        sites.append((tuple(ponds[k]), scale * rng.uniform(70, 175), rng.uniform(1.1, 2.6)))
    for (row, col), size, stretch in sites:
        turn = rng.uniform(0, np.pi)
        dx, dy = x[None, :] - x[col], y[:, None] - y[row]
        u = (dx * np.cos(turn) + dy * np.sin(turn)) / stretch**0.5
        v = (-dx * np.sin(turn) + dy * np.cos(turn)) * stretch**0.5
        inside = size * (1 + 0.42 * bumps) - np.hypot(u, v)
        levels = np.maximum(levels, inside)
        wet = inside > 0
        if not wet.any():
            continue
        surface = float(np.percentile(z[wet], 25))
        z = np.where(
            wet,
            surface,
            np.maximum(z, surface + 0.3 * ramp(-inside, 0, 60)) if size < 200 else _shore(z, inside, surface, size),
        )
    # The river cuts through no lake.
    levels = np.where(river_m < 70 * scale, -1e3, levels)
    return levels.astype(np.float32), z


def _shore(z: np.ndarray, inside: np.ndarray, surface: float, size: float) -> np.ndarray:
    """Ground around a lake: at the water's edge level with it, back to its own height further off."""
    near = 1 - ramp(-inside, 0, 0.9 * size)
    above = np.maximum(z, surface + 0.2)
    return np.where(-inside < 0.9 * size, surface + 0.2 + (above - surface - 0.2) * (1 - near), z)
