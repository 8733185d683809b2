"""Small pieces of a picture around places: what the best matches of a search look like."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepsentinel.errors import InputError
from deepsentinel.grids import transformer

from .overlays import WEB_MERCATOR, Overlay

SIZE_M = 320.0
LONLAT = "EPSG:4326"
LEAST_PX = 4


@dataclass(frozen=True, eq=False)
class Cutout:
    """A piece of a picture."""

    image: np.ndarray
    """uint8, shape (side, side, 4), north up; clear beyond the picture."""
    lon: float
    """Where its middle is."""
    lat: float
    """Where its middle is."""
    text: str
    """What is said of it."""

    @property
    def url(self) -> str:
        """The picture within its own address, as PNG: so small that nothing else is smaller."""
        from PIL import Image

        held = io.BytesIO()
        Image.fromarray(self.image, "RGBA").save(held, "PNG", compress_level=1)
        return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


def cutouts(drawn: Overlay, places: Any, n: int = 9, *, size_m: float = SIZE_M) -> list[Cutout]:
    """Squares of `size_m` around the first `n` places of a table that lie on a picture, such as the matches of a query.

    places: a table with `lon` and `lat`; with `score` that is the text of each piece.

    >>> import deepsentinel as ds
    >>> import pandas as pd
    >>> src = ds.open_source("demo", size_px=256)
    >>> pairs = ds.pair(src.search(src.area, "2018-06-01", "2018-06-30"), aoi=src.area, max_days=3)
    >>> drawn = ds.overlay(src.read(pairs.iloc[0], ds.geobox(src.area)), "natural")
    >>> (south, west), (north, east) = drawn.bounds
    >>> found = pd.DataFrame({"lon": [(west + east) / 2], "lat": [(south + north) / 2], "score": [0.987]})
    >>> [(piece.text, piece.image.shape[2]) for piece in cutouts(drawn, found)]
    [('0.987', 4)]
    """
    if not isinstance(drawn, Overlay):
        raise InputError(f"drawn is a {type(drawn).__name__}; pieces are cut of what ds.overlay gives.")
    if not {"lon", "lat"} <= set(getattr(places, "columns", ())):
        raise InputError("places has no columns lon and lat, so nobody knows where they are.")
    if not size_m > 0:
        raise InputError(f"size_m={size_m!r} is not a size in metres.")
    to = transformer(LONLAT, WEB_MERCATOR)
    (south, west), (north, east) = drawn.bounds
    left, bottom = to.transform(west, south)
    right, top = to.transform(east, north)
    rows, columns = drawn.image.shape[:2]
    step = (right - left) / columns
    found: list[Cutout] = []
    for place in places.to_dict("records"):
        lon, lat = float(place["lon"]), float(place["lat"])
        x, y = to.transform(lon, lat)
        row, column = (top - y) / ((top - bottom) / rows), (x - left) / step
        if len(found) == n or not (0 <= row < rows and 0 <= column < columns):
            continue
        # Web Mercator makes the ground larger, the further from the equator.
        side = max(LEAST_PX, round(size_m / math.cos(math.radians(lat)) / step))
        text = f"{float(place['score']):.3f}" if "score" in place else ""
        found.append(Cutout(_cut(drawn.image, row - side / 2, column - side / 2, side), lon, lat, text))
    return found


def _cut(image: np.ndarray, row: float, column: float, side: int) -> np.ndarray:
    piece = np.zeros((side, side, 4), "uint8")
    down, across = round(row), round(column)
    rows = slice(max(down, 0), min(down + side, image.shape[0]))
    columns = slice(max(across, 0), min(across + side, image.shape[1]))
    held = image[rows, columns]
    piece[rows.start - down : rows.start - down + held.shape[0], columns.start - across :][:, : held.shape[1]] = held
    return piece
