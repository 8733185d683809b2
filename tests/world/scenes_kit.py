"""Landscapes, scenes and arrays that several test files of the demo world share; everything is made once a session."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from deepsentinel.world.ground import Ground, ground
from deepsentinel.world.landscape import Landscape, build_landscape
from deepsentinel.world.optical import render_s2
from deepsentinel.world.radar import render_s1
from deepsentinel.world.scenes import Scene, scenes

SMALL_PX = 512


@lru_cache(maxsize=3)
def landscape(seed: int = 0, size_px: int = SMALL_PX) -> Landscape:
    return build_landscape(seed, size_px)


@lru_cache(maxsize=64)
def rendered(scene: Scene) -> dict[str, np.ndarray]:
    render = render_s2 if scene.sensor == "S2" else render_s1
    return render(landscape(scene.seed, scene.size_px), scene)


def ground_of(scene: Scene) -> Ground:
    return ground(landscape(scene.seed, scene.size_px), scene.tile, scene.geobox)


def pick(sensor: str, seed: int = 0, size_px: int = SMALL_PX, tile: str = "30UYV") -> list[Scene]:
    return [s for s in scenes(seed, size_px) if s.sensor == sensor and s.tile == tile]


def clearest(seed: int = 0, size_px: int = SMALL_PX, months: tuple[int, ...] = (6, 7, 8), tile: str = "30UYV") -> Scene:
    return min((s for s in pick("S2", seed, size_px, tile) if s.time.month in months), key=lambda s: s.cloud_cover)


def pure(g: Ground) -> np.ndarray:
    """Pixels that lie wholly in one unit and whose neighbours do too: no blur reaches them from elsewhere."""
    alone = np.ones(g.unit.size, bool)
    alone[g.mixed] = False
    alone = alone.reshape(g.unit.shape)
    inner = alone.copy()
    inner[1:-1, 1:-1] = False
    inner[0] = inner[-1] = inner[:, 0] = inner[:, -1] = False
    u = g.unit
    same = alone[1:-1, 1:-1].copy()
    for dr in (-1, 0, 1):
        for dc in (-1, 0, 1):
            rows, cols = slice(1 + dr, u.shape[0] - 1 + dr), slice(1 + dc, u.shape[1] - 1 + dc)
            same &= alone[rows, cols] & (u[rows, cols] == u[1:-1, 1:-1])
    inner[1:-1, 1:-1] = same
    return inner


def to_10m(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A coarser band on the 10 m grid, by repetition."""
    factor = -(-shape[0] // array.shape[0])
    return np.repeat(np.repeat(array, factor, 0), factor, 1)[: shape[0], : shape[1]]
