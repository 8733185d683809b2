"""The outline of an area that is no rectangle: maps are of what lies within, though the pixels around it are seen."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from deepsentinel import lonlat
from deepsentinel.aoi import Area, area
from deepsentinel.area_input import outline_of
from deepsentinel.grids import bounds_of, crs_of

# So close to each other the points of an edge in degrees follow its curve on any grid within centimetres.
STEP_DEG = 0.005
# An outline that is nowhere further from a rectangle's, on the average, is one.
BENT_PX = 0.1


class Border:
    """Which cells of a grid, and which objects, an area holds."""

    def __init__(self, shape: BaseGeometry) -> None:
        self.shape = shape
        shapely.prepare(shape)

    def cells(self, geobox: GeoBox, row: int, column: int, sides: tuple[int, int], *, touched: bool) -> np.ndarray:
        """Of a piece of a grid, the cells whose middle lies within; or all that the area touches."""
        from rasterio.features import geometry_mask

        a = geobox.affine
        here = Affine(a.a, 0, a.c + a.a * column, 0, a.e, a.f + a.e * row)
        found: np.ndarray = geometry_mask([self.shape], sides, here, all_touched=touched, invert=True)
        return found

    def holds(self, shapes: Any) -> np.ndarray:
        """The shapes whose middle lies within."""
        middle = shapely.centroid(np.asarray(shapes, dtype=object))
        return np.asarray(shapely.intersects(self.shape, middle), bool)


def border_of(aoi: Any, grid: GeoBox) -> Border | None:
    """The border of an area on a grid; None of a rectangle, of which the whole grid is wanted.

    A rectangle is a box in degrees, or in the projection that it was written in; or what covers the grid anyway.

    >>> import deepsentinel as ds
    >>> box = (2.0, 48.0, 2.01, 48.01)
    >>> corner = shapely.Polygon([(2.0, 48.0), (2.01, 48.0), (2.0, 48.01)])
    >>> border_of(box, ds.geobox(box)) is None, border_of(corner, ds.geobox(box)) is None
    (True, False)
    """
    given = None if isinstance(aoi, Area) else outline_of(aoi)
    if given is not None and (given.exact or given.grid is not None):
        return None
    place = area(aoi)
    shape = lonlat.unsplit(place.geometry)
    if any(_is_box(each) for each in (shape, shape if given is None else given.geometry)):
        return None
    west, south, east, north = shape.bounds
    step = max(STEP_DEG, (east - west + north - south) / 4000)
    shape = gpd.GeoSeries([shapely.segmentize(shape, step)], crs="EPSG:4326").to_crs(crs_of(grid)).iloc[0]
    pixel, box = abs(grid.affine.a), shapely.box(*shape.bounds)
    if shapely.covers(shape, shapely.box(*bounds_of(grid)).buffer(-pixel / 2)):
        return None
    # An area keeps what it was in degrees, where a rectangle of this grid has slightly bent sides.
    return None if box.area - shape.area <= BENT_PX * pixel * box.length else Border(shape)


def _is_box(shape: BaseGeometry) -> bool:
    parts = lonlat.polygons(shape)
    return len(parts) == 1 and bool(shapely.equals(parts[0], shapely.box(*parts[0].bounds)))
