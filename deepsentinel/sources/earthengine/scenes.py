"""What Earth Engine tells of scenes: its collections searched on the server, its properties as the items that all
catalogs are made into."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from deepsentinel.bands import S2_L1C_BANDS, S2_L2A_BANDS
from deepsentinel.errors import SourceError
from deepsentinel.sources.assets import AssetRef, Item

from .session import Refusal, Session

if TYPE_CHECKING:
    from deepsentinel.sources.query import Query

S1_COLLECTION = "COPERNICUS/S1_GRD"
S1_POWER_COLLECTION = "COPERNICUS/S1_GRD_FLOAT"
S2_COLLECTIONS: Mapping[str, str] = {"L2A": "COPERNICUS/S2_SR_HARMONIZED", "L1C": "COPERNICUS/S2_HARMONIZED"}
BEGINS: Mapping[str, str] = {
    "COPERNICUS/S2_SR_HARMONIZED": "2017-03-28",
    "COPERNICUS/S2_HARMONIZED": "2015-06-27",
    S1_COLLECTION: "2014-10-03",
}
"""When each collection begins."""
# Radar as it is everywhere over land: this mode, both channels.
S1_MODE, S1_CHANNELS = "IW", ("VV", "VH")

PAGE_SCENES = 1000
# So many scenes by name in one request: each is a part of the expression, which has its limits.
NAMED_SCENES = 100
# Before the first Sentinel, and after the last: a filter of dates has two ends.
_FIRST_MS, _LAST_MS = 1_388_534_400_000, 4_102_444_800_000

# Earth Engine's property -> what an item calls it.
_S2_TOLD: Mapping[str, str] = {
    "SPACECRAFT_NAME": "platform",
    "CLOUDY_PIXEL_PERCENTAGE": "eo:cloud_cover",
    "NODATA_PIXEL_PERCENTAGE": "s2:nodata_pixel_percentage",
    "MGRS_TILE": "s2:mgrs_tile",
    "PROCESSING_BASELINE": "s2:processing_baseline",
    "DATATAKE_IDENTIFIER": "s2:datatake_id",
    "PRODUCT_ID": "s2:product_uri",
    "GENERATION_TIME": "s2:generation_time",
    "SENSING_ORBIT_NUMBER": "sat:relative_orbit",
    "SENSING_ORBIT_DIRECTION": "sat:orbit_state",
}
_S1_TOLD: Mapping[str, str] = {
    "platform_number": "platform",
    "instrumentMode": "sar:instrument_mode",
    "transmitterReceiverPolarisation": "sar:polarizations",
    "orbitProperties_pass": "sat:orbit_state",
    "relativeOrbitNumber_start": "sat:relative_orbit",
}


def collection_of(sensor: str, level: str) -> str:
    """Where the scenes of a sensor are.

    >>> collection_of("S2", "L1C")
    'COPERNICUS/S2_HARMONIZED'
    """
    return S1_COLLECTION if sensor == "S1" else S2_COLLECTIONS[level]


def ee_band(name: str) -> str:
    """What Earth Engine calls a band of ours.

    >>> ee_band("B04"), ee_band("B8A"), ee_band("B12"), ee_band("VV")
    ('B4', 'B8A', 'B12', 'VV')
    """
    return name.replace("B0", "B") if name.startswith("B0") else name


def bands_of(item: Item, level: str) -> dict[str, AssetRef]:
    """The bands of a scene as other catalogs' items have them: our names, and where each is in Earth Engine.

    >>> bands_of({"id": "a", "collection": "COPERNICUS/S1_GRD"}, "L2A")["VV"].href
    'COPERNICUS/S1_GRD/a'
    """
    collection = str(item["collection"])
    if collection == S1_COLLECTION:
        names: Sequence[str] = (*S1_CHANNELS, "angle")
    else:
        names = (*S2_L2A_BANDS, "SCL") if level == "L2A" else S2_L1C_BANDS
    return {name: AssetRef(key=ee_band(name), href=f"{collection}/{item['id']}") for name in names}


# -- asked of the server -----------------------------------------------------------------------------------------------


def search(session: Session, sensor: str, level: str, query: Query) -> list[Item]:
    """The scenes of a sensor that a query means: filtered by the service, a thousand to a request."""
    collection = collection_of(sensor, level)

    def table(ee: Any) -> Any:
        return _filtered(ee, collection, sensor, query).map(lambda image: _told(ee, image, sensor))

    told = _pages(session, f"Searching {collection}", table)
    return [_item(one, sensor, level) for one in told]


def by_ids(session: Session, sensor: str, level: str, ids: Sequence[str]) -> dict[str, Item]:
    """Scenes by their names; those that Earth Engine does not have are left out."""
    found: dict[str, Item] = {}
    for start in range(0, len(ids), NAMED_SCENES):
        for one in _named(session, sensor, level, ids[start : start + NAMED_SCENES]):
            found[one["id"]] = one
    return found


def _named(session: Session, sensor: str, level: str, ids: Sequence[str]) -> list[Item]:
    collection = collection_of(sensor, level)

    def table(ee: Any) -> Any:
        return ee.FeatureCollection([_told(ee, ee.Image(f"{collection}/{name}"), sensor) for name in ids])

    try:
        return [_item(one, sensor, level) for one in _pages(session, f"Looking up scenes of {collection}", table)]
    except Refusal as refusal:
        if refusal.kind != "absent":
            raise
    # One that is not there spoils the request; halves find it without a request for each.
    if len(ids) == 1:
        return []
    half = len(ids) // 2
    return [*_named(session, sensor, level, ids[:half]), *_named(session, sensor, level, ids[half:])]


def _filtered(ee: Any, collection: str, sensor: str, query: Query) -> Any:
    import shapely

    first = _FIRST_MS if query.first is None else math.ceil(query.first.timestamp() * 1000)
    # The end of a period of dates is not in it.
    last = _LAST_MS if query.last is None else math.floor(query.last.timestamp() * 1000) + 1
    # Edges are straight in lon and lat, as they are everywhere in this package, and not great circles.
    area = ee.Geometry(shapely.geometry.mapping(query.geometry), None, False)
    images = ee.ImageCollection(collection).filterDate(first, last).filterBounds(area)
    if sensor == "S2":
        if query.max_cloud is not None:
            # Not Filter.lte: the client writes it as "not more than", which a scene without a number is, too.
            images = images.filter(ee.Filter.lessThanOrEquals("CLOUDY_PIXEL_PERCENTAGE", query.max_cloud))
        return images
    images = images.filter(ee.Filter.eq("instrumentMode", S1_MODE))
    for channel in S1_CHANNELS:
        images = images.filter(ee.Filter.listContains("transmitterReceiverPolarisation", channel))
    return images


def _told(ee: Any, image: Any, sensor: str) -> Any:
    """An image as a row: its outline, and what is needed of its properties (those it lacks are left out)."""
    names = list(_S1_TOLD if sensor == "S1" else _S2_TOLD)
    first_band = S1_CHANNELS[0] if sensor == "S1" else "B2"
    said = {
        "scene": image.get("system:index"),
        "time_ms": image.get("system:time_start"),
        "crs": image.select([first_band]).projection().crs(),
    }
    return ee.Feature(ee.Feature(image.geometry()).copyProperties(image, names).set(said))


def _pages(session: Session, doing: str, table: Callable[[Any], Any]) -> Iterator[dict[str, Any]]:
    """All rows of a table, page by page; a page that fails is asked for again, the ones before it are not."""
    token: str | None = None
    while True:
        asked: dict[str, Any] = {"pageSize": PAGE_SCENES, **({"pageToken": token} if token else {})}

        def ask(ee: Any, asked: Mapping[str, Any] = asked) -> Any:
            answer = ee.data.computeFeatures({"expression": table(ee), **asked})
            if not isinstance(answer, dict):
                raise ValueError("the answer is no table")
            return answer

        answer = session.call(doing, ask)
        yield from answer.get("features") or ()
        following = answer.get("nextPageToken")
        if not following:
            return
        if following == token:
            raise SourceError(f"{doing} does not end: Earth Engine gives the same page again. Try again later.")
        token = following


# -- made of the answers -----------------------------------------------------------------------------------------------


def _item(feature: Mapping[str, Any], sensor: str, level: str) -> Item:
    """A row of Earth Engine's table as an item, in the words that catalogs use."""
    said = feature.get("properties") or {}
    name, time_ms = said.get("scene"), said.get("time_ms")
    if not name or not isinstance(time_ms, int | float):
        raise SourceError(
            f"Earth Engine tells of a scene without a name or a date ({name!r}, {time_ms!r}). Try again later."
        )
    told = _S1_TOLD if sensor == "S1" else _S2_TOLD
    properties = {ours: said[theirs] for theirs, ours in told.items() if said.get(theirs) is not None}
    properties["datetime"] = pd.Timestamp(round(time_ms * 1e6), unit="ns", tz="UTC").isoformat()
    if said.get("crs"):
        properties["proj:code"] = str(said["crs"])
    properties |= _radar(str(name), properties) if sensor == "S1" else _optical(properties, level)
    return {
        "id": str(name),
        "type": "Feature",
        "collection": collection_of(sensor, level),
        "geometry": feature.get("geometry"),
        "properties": properties,
        "assets": {},
    }


def _optical(told: Mapping[str, Any], level: str) -> dict[str, Any]:
    more: dict[str, Any] = {"constellation": "sentinel-2", "s2:product_type": f"S2MSI{level[1:]}"}
    made_ms = told.get("s2:generation_time")
    if isinstance(made_ms, int | float):
        more["s2:generation_time"] = pd.Timestamp(round(made_ms * 1e6), unit="ns").isoformat()
    return more


def _radar(name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    parts = name.split("_")
    more: dict[str, Any] = {
        "constellation": "sentinel-1",
        "platform": f"sentinel-1{str(told.get('platform') or parts[0][-1]).lower()}",
        "sar:product_type": "GRD",
        # Calibrated and put on a map by Earth Engine, on an ellipsoid's slopes and not the terrain's.
        "deepsentinel:backscatter": "sigma0",
    }
    if len(parts) > 7:
        more["s1:datatake_id"] = parts[7]
    track = told.get("sat:relative_orbit")
    if isinstance(track, int | float) and math.isfinite(track):
        more["sat:relative_orbit"] = int(track)
    return more
