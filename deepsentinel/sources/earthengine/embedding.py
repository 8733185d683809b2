"""Annual embeddings from Earth Engine, shaped and described as those that `ds.embed` makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError, NothingFoundError
from deepsentinel.grids import crs_of, grid_coords, metres_per_unit, transformer

from .pixels import FLOAT_FILL, Array, Layers, filled

if TYPE_CHECKING:
    import xarray as xr
    from odc.geo.geobox import GeoBox

COLLECTION = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"
FIRST_YEAR = 2017
FEATURES = 64
BANDS = tuple(f"A{number:02d}" for number in range(FEATURES))
ENCODER = "alphaearth-annual"
CREDIT = "AlphaEarth Foundations Satellite Embedding, Google and Google DeepMind, CC-BY 4.0"


def check_year(year: Any) -> int:
    """The `year=` argument, checked.

    >>> check_year(2023)
    2023
    """
    if isinstance(year, bool) or not isinstance(year, int | np.integer):
        raise InputError(f"year={year!r}: one year is meant, such as 2023.")
    if year < FIRST_YEAR:
        raise NothingFoundError(f"year={year}: embeddings begin with {FIRST_YEAR}.")
    return int(year)


def embedding_layers(year: int, grid: GeoBox) -> Layers:
    """What to ask for: the images of a year that touch a grid, as one."""
    ring = _outline(grid)

    def image(ee: Any) -> Any:
        area = ee.Geometry({"type": "Polygon", "coordinates": [ring]}, None, False)
        images = ee.ImageCollection(COLLECTION).filterDate(f"{year}-01-01", f"{year + 1}-01-01").filterBounds(area)
        return images.mosaic().select(list(BANDS)).unmask(FLOAT_FILL, False).toFloat()

    return Layers(f"Reading the embedding of {year}", image, dict.fromkeys(BANDS, "float32"))


def _outline(grid: GeoBox) -> list[list[float]]:
    """The edge of a grid in lon and lat, with points between its corners: it is bent there."""
    rows, columns = (int(size) for size in grid.shape)
    steps = np.linspace(0, 1, 9)[:-1]
    across = np.concatenate([steps, np.ones(8), 1 - steps, np.zeros(8), [0]]) * columns
    down = np.concatenate([np.zeros(8), steps, np.ones(8), 1 - steps, [0]]) * rows
    a = grid.affine
    lon, lat = transformer(crs_of(grid), "EPSG:4326").transform(a.c + a.a * across, a.f + a.e * down)
    return [[float(x), float(y)] for x, y in zip(lon, lat, strict=True)]


def make_embedding(arrays: Mapping[str, Array], year: int, grid: GeoBox, *, source: str) -> xr.DataArray:
    """What came back, as a dense embedding: (y, x, feature) with its own georeferencing."""
    import xarray as xr

    rows, columns = (int(size) for size in grid.shape)
    values = np.empty((rows, columns, FEATURES), "float32")
    for number, band in enumerate(BANDS):
        values[..., number] = filled(arrays[band])
    # A pixel lacks all numbers or none: where a mosaic's edge runs through it, all.
    values[np.isnan(values).any(-1)] = np.nan
    attrs = {
        "source": source,
        "encoder": ENCODER,
        "weights": COLLECTION,
        "year": year,
        "sensors": "both",
        "bands": "",
        "mask_clouds": 0,
        "patch_px": 1,
        "window_px": 1,
        "resolution_m": abs(grid.affine.a) * metres_per_unit(grid)[0],
        "overlap": 0.0,
        "keep_positions": 0,
        "credit": CREDIT,
    }
    coords = {**grid_coords(grid), "feature": np.arange(FEATURES)}
    return xr.DataArray(values, coords, ("y", "x", "feature"), name="embedding", attrs=attrs)
