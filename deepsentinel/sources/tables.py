"""Items -> the *scenes* table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import shapely

from deepsentinel.errors import AreaError, SourceError
from deepsentinel.lonlat import Changes, onto_globe

from . import items as facts
from .assets import Item, band_assets

if TYPE_CHECKING:
    import geopandas as gpd
    from shapely.geometry.base import BaseGeometry

# Text columns hold str or None: what is not known is None and never the text "None" or a NaN among strings.
DTYPES: Mapping[str, str] = {
    "id": "str",
    "sensor": "str",
    "collection": "str",
    "platform": "str",
    "time": "datetime64[ns, UTC]",
    "cloud_cover": "float64",
    "nodata_share": "float64",
    "orbit": "object",
    "relative_orbit": "Int64",
    "polarisations": "object",
    "level": "object",
    "backscatter": "object",
    "baseline": "object",
    "tile": "object",
    "crs": "object",
    "datatake": "object",
}
COLUMNS = (*DTYPES, "geometry")


def item_geometry(item: Item) -> BaseGeometry | None:
    """The footprint of an item, repaired where its ring crosses itself; its bbox where it has none.

    Footprints over the antimeridian, which catalogs write in several ways, are cut there, as areas are.

    >>> item_geometry({"id": "a", "geometry": None, "bbox": [179, -17, -179, -16]}).area
    2.0
    """
    said = item.get("geometry")
    try:
        geometry = shapely.geometry.shape(said) if said else None
    except (KeyError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
        raise SourceError(
            f"Scene {item['id']} states a footprint that is no GeoJSON ({type(error).__name__}: {error})."
        ) from error
    if geometry is None or geometry.is_empty:
        box = item.get("bbox")
        if not box or len(box) not in (4, 6):
            return None
        half = len(box) // 2
        # West of its west edge the east edge lies on the other side of the antimeridian.
        geometry = shapely.box(box[0], box[1], box[half] + 360 * (box[half] < box[0]), box[half + 1])
        return geometry if geometry.bounds[2] <= 180 else onto_globe(geometry, Changes(), trust=True)
    west, _, east, _ = geometry.bounds
    if (geometry.geom_type == "Polygon" and east - west > 180) or west < -180 or east > 180:
        try:
            return onto_globe(geometry, Changes())
        except AreaError as error:
            raise SourceError(f"Scene {item['id']} states a footprint that lies nowhere: {error}") from error
    return geometry if geometry.is_valid else shapely.make_valid(geometry)


def scene_row(item: Item, assets: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """One row of the scenes table; None for an item that is no Sentinel scene or says neither when nor where.

    What an item states wrongly (a time that is none) raises `ValueError`, `TypeError` or `SourceError`.

    >>> when = {"datetime": "2023-06-02T10:18:03Z"}
    >>> scene_row({"id": "S2A_32TPS_20230602_0_L2A", "bbox": [0, 1, 2, 3], "properties": when})["level"]
    'L2A'
    """
    sensor = facts.sensor_of(item)
    when = facts.moment(item)
    geometry = item_geometry(item)
    if sensor is None or when is None or geometry is None:
        return None
    pd.Timestamp(when)  # raises where it is no time
    optical = sensor == "S2"
    cloud = (item.get("properties") or {}).get("eo:cloud_cover") if optical else None
    return {
        "id": item["id"],
        "sensor": sensor,
        "collection": str(item.get("collection") or ""),
        "platform": facts.platform(item) or "",
        "time": when,
        "cloud_cover": math.nan if cloud is None else float(cloud),
        "nodata_share": facts.nodata_share(item),
        "orbit": facts.orbit(item),
        "relative_orbit": facts.relative_orbit(item),
        "polarisations": None if optical else facts.polarisations(band_assets(item, assets)),
        "level": facts.level(item) if optical else None,
        "backscatter": None if optical else facts.backscatter(item),
        "baseline": facts.baseline(item) if optical else None,
        "tile": facts.tile(item) if optical else None,
        "crs": facts.crs(item),
        "datatake": facts.datatake(item),
        "geometry": geometry,
    }


def scenes_table(rows: Iterable[Mapping[str, Any]], *, source: str = "", searched: str = "") -> gpd.GeoDataFrame:
    """Rows -> the scenes table: fixed columns and types, sorted by time and id; no rows give an empty table.

    >>> list(scenes_table([]).columns) == list(COLUMNS)
    True
    """
    import geopandas as gpd

    rows = list(rows)
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    frame = pd.DataFrame({name: _column(columns[name], dtype) for name, dtype in DTYPES.items()})
    geometry = gpd.GeoSeries(columns["geometry"], crs="EPSG:4326")
    table = gpd.GeoDataFrame(frame, geometry=geometry, crs="EPSG:4326")
    table = table.sort_values(["time", "id"], ignore_index=True, kind="stable")
    table.attrs = {"source": source, "searched": searched}
    return table


def _column(values: list[Any], dtype: str) -> pd.Series:
    if dtype.startswith("datetime64"):
        return pd.to_datetime(pd.Series(values, dtype="object"), utc=True, format="ISO8601").dt.as_unit("ns")
    if dtype == "str":
        # object and not pandas' string type, so that the table is the same under pandas 2 and 3
        return pd.Series(values, dtype="object")
    return pd.Series(values, dtype=dtype)
