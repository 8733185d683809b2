"""What can lie on the ground of the demo world, and what the map models are scored on."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

__all__ = [
    "COVER_COLOURS",
    "CROP_COLOURS",
    "FINE_CROP_OFFSET",
    "LAND_COVER",
    "Cover",
    "Crop",
    "cover_to_land_cover",
    "fine_class_names",
]


class Cover(IntEnum):
    """Fine land cover of one 5 m cell."""

    SEA = 1
    LAKE = 2
    RIVER = 3
    BEACH = 4
    TIDAL_FLAT = 5
    SALT_MARSH = 6
    MARSH = 7
    BROADLEAF = 8
    CONIFER = 9
    HEATH = 10
    GRASSLAND = 11
    CROP = 12
    BUILDING = 13
    ASPHALT = 14
    GARDEN = 15
    INDUSTRY = 16
    RAILWAY = 17
    QUARRY = 18
    SOLAR = 19
    ROCK = 20
    HEDGE = 21


class Crop(IntEnum):
    """What a parcel carries in one year."""

    WINTER_WHEAT = 1
    WINTER_BARLEY = 2
    SPRING_BARLEY = 3
    MAIZE = 4
    RAPESEED = 5
    SUGAR_BEET = 6
    POTATO = 7
    GRASS = 8
    VINEYARD = 9


LAND_COVER: dict[int, str] = {
    10: "trees",
    20: "shrub",
    30: "grass",
    40: "crops",
    50: "built",
    60: "bare",
    80: "water",
    90: "wetland",
}
"""Broad classes with the codes of ESA WorldCover: the legend that map models are scored on."""

FINE_CROP_OFFSET = 100
"""In fine class maps a crop appears as this plus its `Crop` code, so that one uint8 map holds both."""

_TO_LAND_COVER: dict[Cover, int] = {
    Cover.SEA: 80,
    Cover.LAKE: 80,
    Cover.RIVER: 80,
    Cover.BEACH: 60,
    Cover.TIDAL_FLAT: 60,
    Cover.SALT_MARSH: 90,
    Cover.MARSH: 90,
    Cover.BROADLEAF: 10,
    Cover.CONIFER: 10,
    Cover.HEATH: 20,
    Cover.GRASSLAND: 30,
    Cover.CROP: 40,
    Cover.BUILDING: 50,
    Cover.ASPHALT: 50,
    # WorldCover calls the green between the houses grass, not built; so does the legend here.
    Cover.GARDEN: 30,
    Cover.INDUSTRY: 50,
    Cover.RAILWAY: 50,
    Cover.QUARRY: 60,
    Cover.SOLAR: 50,
    Cover.ROCK: 60,
    Cover.HEDGE: 10,
}

COVER_COLOURS: dict[int, tuple[int, int, int]] = {
    Cover.SEA: (40, 84, 138),
    Cover.LAKE: (52, 110, 170),
    Cover.RIVER: (70, 130, 190),
    Cover.BEACH: (238, 221, 170),
    Cover.TIDAL_FLAT: (176, 160, 140),
    Cover.SALT_MARSH: (120, 150, 130),
    Cover.MARSH: (84, 150, 120),
    Cover.BROADLEAF: (62, 126, 56),
    Cover.CONIFER: (22, 78, 52),
    Cover.HEATH: (150, 120, 130),
    Cover.GRASSLAND: (160, 200, 110),
    Cover.CROP: (225, 205, 120),
    Cover.BUILDING: (190, 70, 60),
    Cover.ASPHALT: (110, 110, 110),
    Cover.GARDEN: (140, 170, 100),
    Cover.INDUSTRY: (190, 120, 200),
    Cover.RAILWAY: (80, 60, 60),
    Cover.QUARRY: (215, 210, 200),
    Cover.SOLAR: (40, 40, 90),
    Cover.ROCK: (150, 145, 140),
    Cover.HEDGE: (40, 105, 45),
}

CROP_COLOURS: dict[int, tuple[int, int, int]] = {
    Crop.WINTER_WHEAT: (230, 200, 90),
    Crop.WINTER_BARLEY: (240, 220, 150),
    Crop.SPRING_BARLEY: (250, 235, 190),
    Crop.MAIZE: (240, 150, 50),
    Crop.RAPESEED: (245, 240, 40),
    Crop.SUGAR_BEET: (200, 60, 130),
    Crop.POTATO: (150, 90, 160),
    Crop.GRASS: (150, 210, 120),
    Crop.VINEYARD: (130, 40, 70),
}


def cover_to_land_cover(cover: np.ndarray) -> np.ndarray:
    """Broad class of each cell, from `Cover` codes or from a fine class map (crops as 100 + crop).

    >>> cover_to_land_cover(np.array([Cover.SEA, Cover.CROP, 101], dtype=np.uint8)).tolist()
    [80, 40, 40]
    """
    return _LAND_COVER_TABLE[np.asarray(cover, dtype=np.uint8)]


def fine_class_names() -> dict[int, str]:
    """Code to readable name of the fine class map.

    >>> fine_class_names()[101]
    'winter wheat'
    """
    names = {int(c): c.name.lower().replace("_", " ") for c in Cover if c is not Cover.CROP}
    names |= {FINE_CROP_OFFSET + int(c): c.name.lower().replace("_", " ") for c in Crop}
    return names


def _land_cover_table() -> np.ndarray:
    table = np.zeros(256, dtype=np.uint8)
    for code, broad in _TO_LAND_COVER.items():
        table[code] = broad
    for crop in Crop:
        table[FINE_CROP_OFFSET + crop] = 40
    # Mown grass is a crop to the farmer but grass to anyone who looks from above, WorldCover included.
    table[FINE_CROP_OFFSET + Crop.GRASS] = 30
    return table


_LAND_COVER_TABLE = _land_cover_table()
