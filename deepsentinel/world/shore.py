"""Where land meets the sea: beach, cliffs, flats, salt marsh and the river"s mouth."""

from __future__ import annotations

import numpy as np

from .classes import Cover
from .grid import MasterGrid
from .lattice import burn, is_any
from .noise import fractal, resize, rng_for, smooth
from .terrain import Terrain
from .water import river_polygon

__all__ = ["shore"]


def shore(seed: int, master: MasterGrid, land: Terrain, cover: np.ndarray) -> None:
    """Sea, flats, beach, cliffs, salt marsh, and the river with its mouth."""
    rng = rng_for(seed, "shore")
    s = max(land.scale, 0.4)
    # Only the rows down to a little inland of the shore: the rest of the map has nothing to do here.
    rows20 = min(land.grid.shape[0], int(np.flatnonzero((land.coast_m < 900 * s).any(axis=1))[-1]) + 1)
    whole, cover = cover, cover[: rows20 * 4]
    small, shape = (rows20, land.grid.shape[1]), cover.shape
    north = MasterGrid(master.origin_x, master.origin_y, master.resolution_m, (shape[0], shape[1]))
    x, y = land.grid.centres()
    y, coast_m, soft, floor = y[:rows20], land.coast_m[:rows20], land.soft[:rows20], land.floor[:rows20]
    coast = resize(coast_m, shape, cubic=True)
    coast += 3.0 * resize(smooth(rng, (shape[0] // 2, shape[1] // 2), 3.5), shape)
    mouth = np.hypot(x[None, :] - land.mouth[0], y[:, None] - land.mouth[1]).astype(np.float32)
    calm = np.exp(-((mouth / (1500 * s)) ** 2))
    ragged = fractal(rng, small, 300 / 20, 4, 0.6)
    # Flats are wide where the river drops its mud, absent below cliffs; creeks run through them.
    reach = s * (60 * soft + 640 * calm) * (1 + 0.25 * ragged) - 25
    flat_edge = resize(reach.astype(np.float32), shape)
    beach_m = resize((s**0.5 * (70 * soft + 32 * soft * ragged - 90 * calm)).astype(np.float32), shape)
    rock_m = resize(((1 - soft) * 46 * (1 + 0.5 * ragged) - 12).astype(np.float32), shape)
    marsh20 = floor * np.exp(-np.maximum(coast_m, 0) / (620 * s)) * np.exp(-mouth / (1500 * s))
    salt = resize((marsh20 * 2.2 + 0.16 * ragged * (marsh20 > 0.05) - 0.42).astype(np.float32), shape) > 0
    dunes = (coast < beach_m * 2.6) & (coast > 0)
    cover[dunes & is_any(cover, [Cover.CROP, Cover.BROADLEAF, Cover.MARSH, Cover.HEDGE])] = Cover.GRASSLAND
    cover[salt & (coast > 0)] = Cover.SALT_MARSH
    # Marsh grows out over the inner part of the flats.
    cover[(coast <= 0)] = Cover.SEA
    tidal = (coast <= 0) & (coast > -flat_edge)
    cover[tidal] = Cover.TIDAL_FLAT
    pioneer = resize((calm * 1.6 + 0.5 * ragged - 1.05).astype(np.float32), shape) > 0
    cover[tidal & pioneer & (coast > np.float32(-150 * s))] = Cover.SALT_MARSH
    cover[(coast > 0) & (coast < beach_m)] = Cover.BEACH
    cover[(coast > -12) & (coast <= rock_m)] = Cover.ROCK
    # Creeks: thin winding lines where a noise crosses zero.
    creek = np.abs(resize(fractal(rng, small, 420 / 20, 4, 0.62), shape)) < np.float32(0.05)
    cover[creek & ((cover == Cover.TIDAL_FLAT) | (cover == Cover.SALT_MARSH))] = Cover.SEA
    water = burn([river_polygon(land.river, land.river_width_m)], master)
    whole[water] = Cover.RIVER
    cover[water[: len(cover)] & (coast <= 0)] = Cover.SEA
    # Mud banks line the widening river behind the mouth.
    away = np.hypot(*(land.river - np.array(land.mouth)).T)
    tide_m = 75 * s * np.exp(-((away / (1100 * s)) ** 2))
    tidal_part = tide_m > 9
    mud = burn([river_polygon(land.river[tidal_part], (land.river_width_m + tide_m)[tidal_part])], north)
    cover[mud & (cover != Cover.RIVER) & (coast > 0)] = Cover.TIDAL_FLAT
    # Crags on the steepest inland slopes.
    ragged = fractal(rng, land.grid.shape, 200 / 20, 3)
    steep = _top(land.slope * (land.coast_m > 300 * s) + 0.05 * ragged * (land.slope > 0.12), 0.0016)
    crag = resize(steep, master.shape) > 0.5
    whole[crag & is_any(whole, [Cover.HEATH, Cover.BROADLEAF, Cover.CONIFER, Cover.GRASSLAND])] = Cover.ROCK


def _top(values: np.ndarray, share: float) -> np.ndarray:
    """1 on the highest `share` of the cells."""
    return (values > np.quantile(values, 1 - share)).astype(np.float32)
