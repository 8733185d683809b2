"""What lies under a map: land where there is land, and a country as the source itself shows it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import shapely
from PIL import Image
from pyproj import Transformer

import deepsentinel as ds
from deepsentinel.errors import InputError
from deepsentinel.figures.earth import LAND, SEA
from deepsentinel.figures.ground import overview, world
from deepsentinel.land.regions import land
from deepsentinel.widgets.map import WORLD, WORLD_BOUNDS


def rgb(colour: str) -> list[int]:
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]


def pixel_of(lon: np.ndarray, lat: np.ndarray, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True).transform(lon, lat)
    edge = 20_037_508.342789244
    return ((edge - y) / (2 * edge) * size_px).astype(int), ((x + edge) / (2 * edge) * size_px).astype(int)


def test_land_is_drawn_where_land_is() -> None:
    size_px = 512
    image = world(size_px).image
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-179, 179, 3000), rng.uniform(-80, 80, 3000)
    rows, cols = pixel_of(lon, lat, size_px)
    seen = image[rows, cols, :3].astype(int)
    ground = land(exclude_antarctica=False).geometry()
    dry = shapely.contains_xy(ground, lon, lat)
    # Not at coasts, nor on the net of degrees.
    clear = shapely.distance(shapely.boundary(ground), shapely.points(lon, lat)) > 1.5
    clear &= (abs((lon + 15) % 30 - 15) > 1.5) & (abs((lat + 15) % 30 - 15) > 1.5)
    assert clear.sum() > 1000
    assert (abs(seen[clear & dry] - rgb(LAND)).max(1) <= 1).all()
    assert (abs(seen[clear & ~dry] - rgb(SEA)).max(1) <= 1).all()


def test_what_comes_with_the_package_is_what_the_function_draws() -> None:
    shipped = Image.open(io.BytesIO(WORLD.read_bytes())).convert("RGB")
    assert shipped.size == (2048, 2048)
    drawn = world(256)
    assert drawn.bounds == WORLD_BOUNDS
    small = np.asarray(shipped.resize((256, 256), Image.Resampling.BOX)).astype(int)
    # Land is less blue than the sea. Coasts are lines of a pixel at either size, and may differ.
    between = (rgb(LAND)[2] + rgb(SEA)[2]) / 2
    assert ((small[..., 2] < between) == (drawn.image[..., 2] < between)).mean() > 0.975


def test_the_country_of_the_demo_world_is_seen_whole() -> None:
    src = ds.open_source("demo", size_px=256)
    drawn = overview(src, resolution=40)
    scenes = src.search(src.area, "2018-05-01", "2018-09-30", sensors=("S2",))
    (south, west), (north, east) = drawn.bounds
    assert np.allclose((west, south, east, north), scenes.total_bounds, atol=2e-3)
    rows, cols = drawn.image.shape[:2]
    # Both tiles are there, and nothing where neither of them is.
    union = shapely.union_all(scenes.geometry.to_numpy())
    well_inside = union.buffer(-8e-4)
    y, x = np.mgrid[0:rows, 0:cols]
    lon, lat = west + (x + 0.5) / cols * (east - west), north - (y + 0.5) / rows * (north - south)
    inside = shapely.contains_xy(union, lon, lat)
    assert (drawn.image[..., 3] > 0)[shapely.contains_xy(well_inside, lon, lat)].mean() > 0.995
    assert (drawn.image[..., 3] > 0)[~shapely.contains_xy(union.buffer(2e-3), lon, lat)].mean() < 0.02
    # A picture, and neither grey nor of one colour.
    colours = drawn.image[inside][:, :3]
    assert colours.std(0).min() > 5
    assert np.ptp(colours.astype(int), axis=1).mean() > 3


def test_there_is_no_picture_of_a_source_of_the_whole_earth() -> None:
    with pytest.raises(InputError, match="no one country"):
        overview(ds.open_source({"type": "FeatureCollection", "features": []}, name="mine"))
