"""Where to look first: the square of the demo world with most to see in it."""

from __future__ import annotations

import numpy as np
import shapely
from shapely import Polygon

from .classes import FINE_CROP_OFFSET, Cover
from .classmaps import class_map
from .grid import tile_geoboxes
from .ground import apply, transformer
from .landscape import Landscape

__all__ = ["SIGHTS_PX", "sights"]

SIGHTS_PX = 256
"""Width of the square in 10 m pixels."""

_CELL_PX = 8
# What a visitor should find in the first picture, and how much of it is enough: more adds nothing.
_WANTED: tuple[tuple[tuple[int, ...], float], ...] = (
    ((Cover.SEA,), 0.12),
    ((Cover.RIVER, Cover.LAKE), 0.02),
    ((Cover.BEACH, Cover.TIDAL_FLAT), 0.02),
    ((Cover.MARSH, Cover.SALT_MARSH), 0.02),
    ((Cover.BROADLEAF, Cover.CONIFER), 0.06),
    ((Cover.BUILDING, Cover.ASPHALT, Cover.GARDEN), 0.12),
    ((Cover.INDUSTRY,), 0.01),
    ((Cover.GRASSLAND,), 0.10),
    (tuple(range(FINE_CROP_OFFSET + 1, FINE_CROP_OFFSET + 10)), 0.25),
)


def sights(landscape: Landscape) -> tuple[float, float, float]:
    """Longitude, latitude and width in metres of the square that holds most of what makes the demo world worth a look.

    The square lies in both tiles.

    >>> from deepsentinel.world.landscape import build_landscape
    >>> lon, lat, size_m = sights(build_landscape(0, size_px=256))
    >>> size_m
    640.0
    """
    west_tile, east_tile = tile_geoboxes(landscape.size_px).values()
    fine = class_map(landscape, east_tile, 2018)
    # A quarter of a tile: the tiles share two fifths of their width, less what the turn between them takes.
    width = min(SIGHTS_PX, landscape.size_px // 4)
    cells, side = landscape.size_px // _CELL_PX, width // _CELL_PX
    score = np.zeros((cells - side + 1,) * 2)
    for codes, enough in _WANTED:
        share = _window_means(_cell_means(np.isin(fine, codes), cells), side)
        score += np.sqrt(np.minimum(share / enough, 1.0))
    to_west = transformer(str(east_tile.crs), str(west_tile.crs))
    to_lonlat = transformer(str(east_tile.crs), "EPSG:4326")
    # The square may be laid on either tile's grid, which lean away from each other: a tenth more holds it either way.
    reach = width * 10 * 0.55
    best = np.unravel_index(np.argsort(-score, axis=None, kind="stable"), score.shape)
    for row, col in zip(*(axis.tolist() for axis in best), strict=True):
        x, y = apply(east_tile.affine, col * _CELL_PX + width / 2, row * _CELL_PX + width / 2)
        middles = ((east_tile, (x, y)), (west_tile, to_west.transform(x, y)))
        if all(tile.extent.geom.contains(_box(*middle, reach)) for tile, middle in middles):
            break
    lon, lat = to_lonlat.transform(x, y)
    return round(lon, 6), round(lat, 6), width * 10.0


def _box(x: float, y: float, reach: float) -> Polygon:
    return shapely.box(x - reach, y - reach, x + reach, y + reach)


def _cell_means(mask: np.ndarray, cells: int) -> np.ndarray:
    used = cells * _CELL_PX
    return np.asarray(mask[:used, :used].reshape(cells, _CELL_PX, cells, _CELL_PX).mean((1, 3)))


def _window_means(values: np.ndarray, side: int) -> np.ndarray:
    """Mean over every `side` x `side` window."""
    total = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    window = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    return np.asarray(window / side**2)
