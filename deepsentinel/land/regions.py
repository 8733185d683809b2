"""Where to sample: all land, countries, any polygons, or the ground that labels cover, as plain polygons in degrees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely

from deepsentinel import lonlat
from deepsentinel.aoi import area
from deepsentinel.errors import AreaError, InputError, warn
from deepsentinel.geometries import clean

from .countries import country_parts, is_country_text, looks_like_a_name, unknown_country

# Land that ends south of this is Antarctica and its islands; no other land reaches beyond 56 S.
ANTARCTIC_LAT = -60.0
# An edge of a projected outline is a curve in degrees; points this close follow it within centimetres.
EDGE_M = 1000.0


@dataclass(frozen=True, eq=False)
class Region:
    """Ground to sample."""

    parts: np.ndarray
    """Polygons in longitude and latitude, none of them across 180 degrees."""
    name: str
    """What it is called in the attributes of a table."""
    disjoint: bool = True
    """Whether no two parts share ground. Labels may, and ground that two of them claim is still sampled once."""

    def geometry(self) -> shapely.Geometry:
        """The parts as one valid geometry."""
        return shapely.union_all(self.parts) if not self.disjoint else shapely.multipolygons(self.parts)


def region_of(region: Any, *, exclude_antarctica: bool = True) -> Region:
    """The polygons that a region stands for.

    >>> region_of((2, 48, 3, 49)).parts.size
    1
    >>> round(len(region_of(None).parts), -1)
    120
    """
    if region is None:
        return land(exclude_antarctica=exclude_antarctica)
    if isinstance(region, Region):
        return region
    if isinstance(region, str):
        return _text(region)
    if hasattr(region, "total_bounds"):
        return table_region(region)
    if isinstance(region, Sequence) and not isinstance(region, str | bytes) and not _is_numbers(region):
        return _several(region, exclude_antarctica)
    return _shape_region(region)


@lru_cache(maxsize=2)
def land(*, exclude_antarctica: bool = True) -> Region:
    """All land, from the outline of the ocean that odc-geo ships (Natural Earth, 1:110 million; no network).

    Coasts are right to about ten kilometres, islands smaller than about 1000 km2 are missing, and lakes are land; the
    Caspian Sea is not.

    >>> bool(shapely.contains_xy(land().geometry(), 2.35, 48.85))
    True
    """
    from odc.geo.data import ocean_geojson

    seas = [shapely.from_geojson(json.dumps(feature["geometry"])) for feature in ocean_geojson()["features"]]
    dry = shapely.difference(shapely.box(-180, -90, 180, 90), shapely.union_all(seas))
    parts = shapely.get_parts(dry)
    if not exclude_antarctica:
        return Region(parts, "all land")
    return Region(parts[shapely.bounds(parts)[:, 3] > ANTARCTIC_LAT], "all land but Antarctica")


def table_region(table: Any, name: str | None = None) -> Region:
    """The ground that the polygons of a table cover, each kept as it is: a million parcels need no union."""
    parts, _ = table_parts(table)
    if name is None:
        name = f"{len(table):,} shape{'' if len(table) == 1 else 's'}"
    return Region(parts, name, disjoint=len(parts) < 2)


def table_parts(table: Any) -> tuple[np.ndarray, np.ndarray]:
    """The polygons of a GeoDataFrame or GeoSeries in degrees, and the row each comes from; the rest is told of."""
    frame = table if isinstance(table, gpd.GeoDataFrame) else gpd.GeoDataFrame(geometry=gpd.GeoSeries(table))
    cleaned = clean(frame, value=None, keep_kinds=("polygon",))
    if cleaned.table.empty:
        reason = f": row {cleaned.set_aside[0]['row']}: {cleaned.set_aside[0]['reason']}" if cleaned.set_aside else ""
        raise AreaError(f"None of the {len(frame)} shapes is a polygon with ground in it{reason}.")
    for sentence in cleaned.warnings:
        warn(sentence)
    shapes = cleaned.table.geometry
    if frame.crs.is_projected:
        unit_m = frame.crs.axis_info[0].unit_conversion_factor or 1.0
        shapes = gpd.GeoSeries(shapely.segmentize(shapes.to_numpy(), EDGE_M / unit_m), crs=frame.crs)
    outlines = np.asarray(shapes.to_crs("EPSG:4326").array, dtype=object)
    edges = shapely.bounds(outlines)
    west, south, east, north = edges.T
    # Only these need to be looked at one by one, and the checks there say what is wrong with them.
    odd = ~np.isfinite(edges).all(axis=1) | (west < -180) | (east > 180) | (east - west > 180)
    odd |= (south < -90) | (north > 90) | ~shapely.is_valid(outlines)
    for row in np.flatnonzero(odd):
        lonlat.check_degrees(outlines[row])
        outlines[row] = lonlat.onto_globe(outlines[row], lonlat.Changes(), guess=False)
    parts, owner = shapely.get_parts(outlines, return_index=True)
    return parts, cleaned.positions[owner]


def _text(text: str) -> Region:
    if text.strip().lower() in {"land", "all land"}:
        return land(exclude_antarctica=False)
    if is_country_text(text):
        parts, name = country_parts(text)
        # Countries do not overlap, but drawn by hand their borders may by a hair.
        return Region(parts, name, disjoint=False)
    if looks_like_a_name(text) and not Path(text).exists():
        raise unknown_country(text)
    return _shape_region(text)


def _shape_region(shape: Any) -> Region:
    found = area(shape)
    return Region(shapely.get_parts(found.geometry), "the area ({:g}, {:g}, {:g}, {:g})".format(*found.bounds))


def _several(regions: Sequence[Any], exclude_antarctica: bool) -> Region:
    if not regions:
        raise InputError("region is an empty list; give at least one area, or None for all land.")
    found = [region_of(one, exclude_antarctica=exclude_antarctica) for one in regions]
    names = "+".join(dict.fromkeys(one.name for one in found))
    name = names if len(names) <= 60 else f"{len(found)} regions"
    parts = np.concatenate([one.parts for one in found])
    return Region(parts, name, disjoint=len(found) == 1 and found[0].disjoint)


def _is_numbers(region: Sequence[Any]) -> bool:
    """Whether this is a box or a ring of coordinates, and not a list of regions."""
    first = region[0] if len(region) else None
    if isinstance(first, Sequence) and not isinstance(first, str | bytes) and len(first):
        first = first[0]
        return isinstance(first, Real) and len(region) > 2 and len(region[0]) <= 3
    return isinstance(first, Real)
