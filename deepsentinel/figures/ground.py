"""What lies under a map before anything is chosen: the land of the Earth, and a source's own country from above."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

from deepsentinel.aoi import area, geobox
from deepsentinel.errors import InputError, NothingFoundError
from deepsentinel.land.regions import land

from .earth import COAST, LAND, LINES, SEA
from .overlays import WEB_MERCATOR, Overlay, overlay
from .panels import Panel

if TYPE_CHECKING:
    from deepsentinel.sources.base import Source

# Half the width of the world in Web Mercator, which is a square.
EDGE_M = 20_037_508.342789244
EDGE_LAT = 85.0511287798066
# Twice as many pixels are drawn as are kept, so that coasts are smooth.
FINER = 2
# A country larger than this is not looked at as one picture.
MAX_COUNTRY_KM = 120.0
WHEN = ("2018-05-01", "2018-09-30")


def world(size_px: int = 1024) -> Overlay:
    """All land in pale colours, with a net of degrees, as a picture for a web map.

    >>> drawn = world(64)
    >>> drawn.image.shape, drawn.bounds[1][1]
    ((64, 64, 4), 180.0)
    """
    from affine import Affine
    from rasterio.features import rasterize

    side = size_px * FINER
    to_pixels = Affine(2 * EDGE_M / side, 0, -EDGE_M, 0, -2 * EDGE_M / side, EDGE_M)
    parts = shapely.transform(land(exclude_antarctica=False).parts, _mercator)
    inside = rasterize([(part, 1) for part in parts], (side, side), transform=to_pixels, dtype="uint8").astype(bool)
    image = np.where(inside[..., None], _rgb(LAND), _rgb(SEA)).astype("float32")
    net = np.zeros_like(inside)
    for degrees in range(-150, 180, 30):
        net[:, round((degrees + 180) / 360 * side)] = True
    for degrees in range(-60, 90, 30):
        net[round((EDGE_M - _mercator(np.array([[0.0, degrees]]))[0, 1]) / (2 * EDGE_M) * side)] = True
    image[net & ~inside] = _rgb(LINES)
    coast = inside & ~(np.roll(inside, 1, 0) & np.roll(inside, -1, 0) & np.roll(inside, 1, 1) & np.roll(inside, -1, 1))
    image[coast] = _rgb(COAST)
    small = image.reshape(size_px, FINER, size_px, FINER, 3).mean((1, 3)).round().astype("uint8")
    clear = np.full((size_px, size_px, 1), 255, "uint8")
    known = np.ones((size_px, size_px), bool)
    return Overlay(
        np.concatenate([small, clear], -1),
        ((-EDGE_LAT, -180.0), (EDGE_LAT, 180.0)),
        Panel("world", "", "Natural Earth", small, known),
        exact=True,
    )


def overview(src: Source, *, resolution: float = 20) -> Overlay:
    """A source's whole country in natural colours on its clearest day, as a picture for a web map.

    This is for sources that hold one small country, such as the demo world; of a catalog of the whole Earth there is
    no such picture, and `InputError` says so.

    >>> import deepsentinel as ds
    >>> drawn = overview(ds.open_source("demo", size_px=256), resolution=40)
    >>> drawn.panel.heading, drawn.exact
    ('natural colour', False)
    """
    start = getattr(src, "area", None)
    if start is None:
        raise InputError(f"{src.name} holds no one country that could be looked at as a whole.")
    scenes = src.search(start, *WHEN, sensors=("S2",))
    ground = area(tuple(scenes.total_bounds))
    if max(ground.width_km, ground.height_km) > MAX_COUNTRY_KM:
        raise InputError(f"{src.name} covers {ground.width_km:,.0f} km there: too much for one picture.")
    tiles = scenes["tile"].nunique()
    whole = scenes.groupby("datatake").filter(lambda each: each["tile"].nunique() == tiles)
    if whole.empty:
        raise NothingFoundError(f"On no day of {WHEN[0]} to {WHEN[1]} does {src.name} show all of its ground.")
    # In percent: what clouds hide is as little seen as what the swath left out.
    hidden = whole["cloud_cover"].fillna(100) + 100 * whole["nodata_share"].fillna(0)
    clearest = hidden.groupby(whole["datatake"]).mean().idxmin()
    grid = geobox(ground, resolution)
    picture = None
    for _, scene in whole[whole["datatake"] == clearest].iterrows():
        one = src.read(scene, grid, bands=("B04", "B03", "B02"))
        # Zero is where a tile knows nothing, and its neighbour may.
        picture = one if picture is None else picture.where(picture != 0, one)
    assert picture is not None
    return overlay(picture, "natural")


def _mercator(lonlat: np.ndarray) -> np.ndarray:
    from pyproj import Transformer

    lon, lat = lonlat[:, 0], np.clip(lonlat[:, 1], -EDGE_LAT, EDGE_LAT)
    return np.column_stack(Transformer.from_crs("EPSG:4326", WEB_MERCATOR, always_xy=True).transform(lon, lat))


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)], "float32")
