"""The square that is shown first has something to show, in both tiles."""

from __future__ import annotations

import numpy as np
import pytest
from landscapes import land

from deepsentinel.aoi import geobox, square
from deepsentinel.world.classmaps import class_map
from deepsentinel.world.grid import tile_geoboxes
from deepsentinel.world.sights import sights


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_first_square_holds_more_than_most_others(seed: int) -> None:
    here = land(seed)
    lon, lat, size_m = sights(here)
    grid = geobox(square(lon, lat, size_m))
    assert tuple(grid.shape) == (size_m / 10, size_m / 10)
    kinds = len(np.unique(class_map(here, grid, 2018)))
    rng = np.random.default_rng(0)
    tile = tile_geoboxes(here.size_px)["31UCQ"]
    width = grid.shape[0]
    others = []
    for row, col in rng.integers(0, here.size_px - width, (30, 2)).tolist():
        others.append(len(np.unique(class_map(here, tile[row : row + width, col : col + width], 2018))))
    assert kinds > np.median(others)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_tiles_see_the_first_square_whole(seed: int) -> None:
    here = land(seed)
    outline = square(*sights(here)).geometry
    for tile in tile_geoboxes(here.size_px).values():
        assert tile.extent.to_crs("EPSG:4326", resolution=100).geom.contains(outline)
