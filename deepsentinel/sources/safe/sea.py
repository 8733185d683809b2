"""What is sea: where Sentinel-1 GRD may be read, why it may not elsewhere, and the map it is put on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import shapely

from deepsentinel.errors import InputError, ReadError
from deepsentinel.sources.assets import Item
from deepsentinel.sources.plans import Array, Plan

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from shapely.geometry.base import BaseGeometry

    from deepsentinel.sources.engine import Want

MOST_LAND = 0.25
"""A share of land beyond this makes a place land: outlines of coasts are right to ten kilometres only."""
NARROWEST_M = 500.0
"""Water that is nowhere wider holds no window of 64 pixels that is sea."""
EDGE_DEG = 0.1
"""Edges of areas are straight in degrees, and between points so far apart nearly so in metres."""
FLOOR = 1e-5
"""Linear sigma0 of what does not rise above the noise: -50 dB, below anything measured. Not 0, which would make it
missing, and the darkest sea with it."""


@dataclass
class SeaPlan(Plan):
    """The plan of a GRD scene: it refuses land, where its pixels have no place."""

    over_land: bool = False

    def wants(self, grid: GeoBox, resolve: Callable[[str, Item, str], str]) -> list[Want]:
        """As any plan's, for a grid at sea."""
        share = 0.0 if self.over_land else grid_land_share(grid)
        if share > MOST_LAND:
            raise ReadError(f"Scene {self.item['id']}: {refusal(share)}")
        return super().wants(grid, resolve)

    def _convert(self, name: str, stored: Array) -> Array:
        # After averaging, not before: what is left of the noise averages out only with its negative half.
        if self.quantities.get(name) == "power":
            stored = np.maximum(stored, np.float32(FLOOR))
        return super()._convert(name, stored)


def land_share(geometry: BaseGeometry) -> float:
    """How much of a shape in degrees is land, 0 to 1, by an outline that is right to ten kilometres.

    >>> land_share(shapely.box(2, 47, 3, 48)), land_share(shapely.box(-30, 45, -29, 46))
    (1.0, 0.0)
    """
    from deepsentinel.footprints import spherical_area

    whole, covered = spherical_area(np.array([geometry, shapely.intersection(_dry(), geometry)], dtype=object))
    return round(float(covered / whole), 3) if whole else 0.0


def has_sea(geometry: BaseGeometry) -> bool:
    """Whether a window somewhere in a shape in degrees can be at sea, however much of the rest is land.

    >>> has_sea(shapely.box(2, 47, 3, 48)), has_sea(shapely.box(1, 50, 3, 52))
    (False, True)
    """
    from pyproj import Transformer

    if land_share(geometry) <= MOST_LAND:
        return True
    water = shapely.difference(geometry, _dry())
    if water.is_empty:
        return False
    # In metres, around a place that it shows: whatever is nearer to a pole or on both sides of 180 degrees.
    middle = geometry.representative_point()
    flat = f"+proj=laea +lat_0={middle.y} +lon_0={middle.x}"
    to_metres = Transformer.from_crs("EPSG:4326", flat, always_xy=True).transform
    water = shapely.transform(
        shapely.segmentize(water, EDGE_DEG), lambda lon, lat: to_metres(lon, lat), interleaved=False
    )
    return not shapely.buffer(shapely.make_valid(water), -NARROWEST_M / 2).is_empty


def grid_land_share(grid: GeoBox) -> float:
    """The same for a grid: how many of its points are land, wherever it is, the poles included.

    >>> from odc.geo.geobox import GeoBox
    >>> grid_land_share(GeoBox.from_bbox((-1000, -1000, 1000, 1000), "EPSG:3995", resolution=100))
    0.0
    """
    from pyproj import Transformer

    row, col = np.meshgrid(*(np.linspace(0.5, size - 0.5, min(size, 32)) for size in grid.shape), indexing="ij")
    x, y = grid.affine.c + grid.affine.a * col.ravel(), grid.affine.f + grid.affine.e * row.ravel()
    lon, lat = Transformer.from_crs(str(grid.crs), "EPSG:4326", always_xy=True).transform(x, y)
    return round(float(shapely.contains_xy(_dry(), lon, lat).mean()), 3)


@lru_cache(maxsize=1)
def _dry() -> BaseGeometry:
    from deepsentinel.land.regions import land

    geometry = land(exclude_antarctica=False).geometry()
    shapely.prepare(geometry)
    return geometry


def refusal(share: float) -> str:
    """Why GRD is not read over land, and what to take instead."""
    return (
        f"it is a GRD product, and {100 * share:.0f} % of the area is land. Its pixels lie in the satellite's own "
        "geometry and are placed at sea level: on land they would be off by about as much as the ground is high, up to "
        "kilometres. Over land take terrain-corrected radar (RTC): open_source('planetary-computer'), or GeoTIFFs made "
        "by ASF HyP3 or SNAP in this folder. Over sea choose a smaller area; if the land does not matter, open the "
        "source with s1_over_land=True."
    )


def check_map(crs: str | None) -> str | None:
    """The `s1_crs=` option, checked: a map in metres.

    >>> check_map("EPSG:3995")
    'EPSG:3995'
    """
    if crs is None:
        return None
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        found = CRS.from_user_input(crs)
    except CRSError as error:
        raise InputError(f"s1_crs={crs!r} is no map ({error}). Give one in metres, such as 'EPSG:3995'.") from error
    if not found.is_projected or any(axis.unit_conversion_factor != 1 for axis in found.axis_info):
        raise InputError(f"s1_crs={crs!r} is not in metres. Give a map that is, such as 'EPSG:3995' or a UTM zone.")
    return found.to_string()
