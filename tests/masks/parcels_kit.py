"""Parcels for the tests and the benchmark of masks: a jittered lattice that fills a square without gap or overlap."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

CRS = "EPSG:32631"
# Where a tile of Sentinel-2 lies: coordinates as large as they are in real life.
LEFT, TOP = 399_960.0, 5_400_000.0


def lattice(
    side: int, *, size_m: float, jitter: float = 0.2, step_m: float | None = None, seed: int = 0, classes: int = 9
) -> gpd.GeoDataFrame:
    """`side` x `side` parcels in a square of `size_m`; edges cut every `step_m`, as a drawn field has them."""
    rng = np.random.default_rng(seed)
    cell_m = size_m / side
    x, y = np.meshgrid(np.linspace(0, size_m, side + 1), np.linspace(0, -size_m, side + 1))
    inner = (side - 1, side - 1)
    x[1:-1, 1:-1] += rng.uniform(-jitter, jitter, inner) * cell_m
    y[1:-1, 1:-1] += rng.uniform(-jitter, jitter, inner) * cell_m
    corners = np.stack([x + LEFT, y + TOP], axis=-1)
    rings = np.stack([corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]], axis=2)
    shapes = shapely.polygons(rings.reshape(-1, 4, 2))
    if step_m is not None:
        shapes = shapely.segmentize(shapes, step_m)
    columns = {"ground_truth": np.arange(len(shapes)) % classes + 1, "id": np.arange(len(shapes)) + 1}
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=CRS)


def grid(pixels: int, resolution: float = 10.0, *, left: float = LEFT, top: float = TOP) -> GeoBox:
    """The square grid whose corner is the lattice's."""
    return GeoBox((pixels, pixels), Affine(resolution, 0, left, 0, -resolution, top), CRS)


def pixel_boxes(geobox: GeoBox) -> np.ndarray:
    """Every pixel as a polygon, (y, x)."""
    a = geobox.affine
    column, row = np.meshgrid(np.arange(geobox.shape.x), np.arange(geobox.shape.y))
    x, y = a.c + a.a * column, a.f + a.e * row
    return np.asarray(shapely.box(x, y, x + a.a, y + a.e))


def pixel_shares(labels: gpd.GeoDataFrame, geobox: GeoBox) -> np.ndarray:
    """(polygon, y, x), from shapely."""
    boxes = pixel_boxes(geobox)
    shapes = np.asarray(labels.geometry)[:, None, None]
    return np.asarray(shapely.area(shapely.intersection(shapes, boxes)) / shapely.area(boxes))
