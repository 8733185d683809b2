"""What is looked for: the arguments of a search, checked; and what to say when nothing is found: what is there instead,
and what to widen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely

from deepsentinel.errors import AreaError, InputError, NothingFoundError, SourceError

from . import items as facts
from .catalog import Document

if TYPE_CHECKING:
    import geopandas as gpd
    from shapely.geometry.base import BaseGeometry

SENSORS = ("S1", "S2")


@dataclass(frozen=True)
class Query:
    """What is looked for, checked and in one piece."""

    geometry: BaseGeometry
    first: pd.Timestamp | None
    last: pd.Timestamp | None
    sensors: tuple[str, ...]
    max_cloud: float | None

    def said(self, name: str) -> str:
        """In one sentence without its full stop."""
        return said_search(name, self.geometry.bounds, self.first, self.last, self.sensors, self.max_cloud)


def area_of(aoi: Any) -> BaseGeometry:
    """The `aoi=` argument as one geometry in lon and lat, with an extent."""
    from deepsentinel.aoi import area

    geometry: BaseGeometry = area(aoi).geometry
    if geometry.area == 0:
        raise AreaError(
            "The area has no extent (a point or a line). Give a rectangle or polygon, or buffer the point first."
        )
    return geometry


def check_sensors(sensors: Sequence[str] | str) -> tuple[str, ...]:
    """The `sensors=` argument, checked.

    >>> check_sensors("S1")
    ('S1',)
    """
    wanted = (sensors,) if isinstance(sensors, str) else tuple(sensors)
    for sensor in wanted:
        if sensor not in SENSORS:
            raise InputError(
                f"Unknown sensor {sensor!r}: there are 'S1' (radar) and 'S2' (optical), as in sensors=('S1', 'S2')."
            )
    if not wanted:
        raise InputError("sensors= is empty: name 'S1', 'S2' or both.")
    return tuple(dict.fromkeys(wanted))


def check_max_cloud(max_cloud: float | None) -> float | None:
    """The `max_cloud=` argument, checked: a percentage.

    >>> check_max_cloud(60)
    60.0
    """
    if max_cloud is None:
        return None
    if (
        isinstance(max_cloud, bool)
        or not isinstance(max_cloud, int | float | np.number)
        or not 0 <= float(max_cloud) <= 100
    ):
        raise InputError(f"max_cloud={max_cloud!r}: give a percentage from 0 to 100, or None for any.")
    return float(max_cloud)


def _moment(value: Any, *, end: bool, name: str) -> pd.Timestamp | None:
    if value is None:
        return None
    try:
        if isinstance(value, int | float | np.number):
            raise TypeError  # pandas takes it for nanoseconds since 1970
        if isinstance(value, np.datetime64) and np.datetime_data(value)[0] in "YMWD":
            value = str(value)
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = value.isoformat()
        if isinstance(value, str) and not re.match(r"\s*\d{4}", value):
            raise ValueError  # "10:00" would be today, and nobody knows which month 01/08/2018 is in
        if isinstance(value, str) and len(value.strip()) <= 10:
            # "2018-08-31", "2018-08" and "2018" are whole periods: as an end they count to their last instant.
            value = pd.Period(value.strip())
        if isinstance(value, pd.Period):
            value = value.end_time if end else value.start_time
        stamp = pd.Timestamp(value)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{name}={value!r} is not a date: write '2018-05-01' or '2018-05-01T10:00:00Z', or give a datetime."
        ) from error
    if pd.isna(stamp):
        raise InputError(f"{name}={value!r} is not a date: write '2018-05-01', or leave it out for no limit.")
    return stamp.tz_localize("UTC") if stamp.tz is None else stamp.tz_convert("UTC")


def check_dates(start: str | date | None, end: str | date | None) -> tuple[pd.Timestamp | None, pd.Timestamp | None]:
    """`start` and `end` as UTC instants; an end given as a day, month or year includes all of it.

    >>> check_dates("2018-05-01", "2018-05-01")[1].hour
    23
    """
    first, last = _moment(start, end=False, name="start"), _moment(end, end=True, name="end")
    if first is not None and last is not None and last < first:
        raise InputError(f"The dates are reversed: start {start} lies after end {end}. Swap them.")
    return first, last


def by_sensor(
    collections: Mapping[str, str | Sequence[str]] | Sequence[str] | str | None,
) -> dict[str, tuple[str, ...]]:
    """The `collections=` option as sensor -> names: a mapping, or names that tell their sensor themselves."""
    if collections is None:
        return {}
    if isinstance(collections, Mapping):
        pairs = [(check_sensors(sensor)[0], names) for sensor, names in collections.items()]
        return {sensor: (names,) if isinstance(names, str) else tuple(names) for sensor, names in pairs}
    chosen: dict[str, tuple[str, ...]] = {}
    for name in (collections,) if isinstance(collections, str) else collections:
        sensor = facts.sensor_of({"id": name})
        if sensor is None:
            raise InputError(
                f"collections={name!r}: its name does not tell the sensor; write collections={{'S2': {name!r}}}."
            )
        chosen[sensor] = (*chosen.get(sensor, ()), name)
    return chosen


def said_dates(first: pd.Timestamp | None, last: pd.Timestamp | None) -> str:
    """The period in words.

    >>> said_dates(*check_dates("2018-05-01", None))
    'from 2018-05-01 on'
    """
    if first is None and last is None:
        return "at any date"
    if last is None:
        return f"from {first:%Y-%m-%d} on"
    return f"until {last:%Y-%m-%d}" if first is None else f"from {first:%Y-%m-%d} to {last:%Y-%m-%d}"


def said_box(bounds: Sequence[float]) -> str:
    """A bounding box in words.

    >>> said_box((0.1, 49.2, 0.25, 49.3))
    'lon 0.10..0.25, lat 49.20..49.30'
    """
    west, south, east, north = bounds
    digits = 2 if max(east - west, north - south) >= 0.02 else 4
    return f"lon {west:.{digits}f}..{east:.{digits}f}, lat {south:.{digits}f}..{north:.{digits}f}"


def said_search(
    name: str,
    bounds: Sequence[float],
    first: pd.Timestamp | None,
    last: pd.Timestamp | None,
    sensors: Sequence[str],
    max_cloud: float | None,
) -> str:
    """What was searched, in one sentence without its full stop.

    >>> said_search("demo", (0, 49, 1, 50), None, None, ["S2"], 60)
    'demo: S2, lon 0.00..1.00, lat 49.00..50.00, at any date, cloud cover at most 60 %'
    """
    cloud = "" if max_cloud is None or "S2" not in sensors else f", cloud cover at most {max_cloud:g} %"
    return f"{name}: {' and '.join(sensors)}, {said_box(bounds)}, {said_dates(first, last)}{cloud}"


def nothing_in_files(name: str, query: Query, everything: gpd.GeoDataFrame) -> NothingFoundError:
    """The error for an empty search of a catalog of files: which of the conditions ruled everything out."""
    said = query.said(name)
    if everything.empty:
        return NothingFoundError(f"Nothing found in {said}. The catalog holds no Sentinel scene that can be used.")
    bounds = everything.total_bounds
    held = (
        f"The catalog holds {(everything.sensor == 'S1').sum()} S1 and {(everything.sensor == 'S2').sum()} S2 scenes, "
        f"{everything.time.min():%Y-%m-%d} to {everything.time.max():%Y-%m-%d}, {said_box(bounds)}"
    )
    mine = everything[everything.sensor.isin(query.sensors)]
    here = mine[mine.geometry.intersects(query.geometry)]
    if mine.empty:
        advice = f"It holds none of {' and '.join(query.sensors)}: ask for another sensor"
    elif here.empty and not shapely.box(*bounds).intersects(query.geometry):
        return NothingFoundError(
            f"Nothing found in {said}: the area lies outside the catalog. {held}. "
            "Move the area there (and check that it is lon, lat and not lat, lon)."
        )
    elif here.empty:
        advice = "None of them touches the area: move or widen the area"
    else:
        advice = _too_narrow(query, here)
    return NothingFoundError(f"Nothing found in {said}. {held}. {advice}.")


def _too_narrow(query: Query, here: gpd.GeoDataFrame) -> str:
    dated = here
    if query.first is not None:
        dated = dated[dated.time >= query.first]
    if query.last is not None:
        dated = dated[dated.time <= query.last]
    if dated.empty:
        return f"{len(here)} touch the area, none in this period: widen the dates"
    clearest = dated.cloud_cover.min()
    known = (
        "none states its cloud cover: leave max_cloud out"
        if pd.isna(clearest)
        else f"the clearest has {clearest:.0f} % of cloud: raise max_cloud"
    )
    return f"{len(dated)} match the area and dates, but {known}"


def nothing_at_service(
    name: str, query: Query, collections: Sequence[str], begins: pd.Timestamp | None
) -> NothingFoundError:
    """The error for an empty search of an API."""
    said = query.said(name)
    if not collections:
        return NothingFoundError(
            f"Nothing found in {said}: it has no collection of {' or '.join(query.sensors)} that can be used. "
            "Name one with collections={'S2': '...'}."
        )
    since = f" They begin on {begins:%Y-%m-%d}." if begins is not None else ""
    cloudy = ", or raise max_cloud" if query.max_cloud is not None and "S2" in query.sensors else ""
    return NothingFoundError(
        f"Nothing found in {said} (collections {', '.join(collections)}).{since} Widen the dates or the area{cloudy}."
    )


def extent_of(collection: Document) -> tuple[list[list[float]], list[tuple[pd.Timestamp | None, pd.Timestamp | None]]]:
    """The boxes and periods of a collection; empty where it states none that make sense."""
    extent = collection.get("extent") or {}
    boxes = []
    for box in (extent.get("spatial") or {}).get("bbox") or ():
        half = len(box) // 2
        # A box over the antimeridian has west > east: better to open such a collection than to guess.
        boxes.append([box[0], box[1], box[half], box[half + 1]] if box[0] <= box[half] else [-180, -90, 180, 90])
    periods = []
    for begin, finish in (extent.get("temporal") or {}).get("interval") or ():
        try:
            stamps = [pd.Timestamp(value) if value else None for value in (begin, finish)]
        except ValueError as error:
            raise SourceError(
                f"Collection {collection.get('id')} states a period that is no date: {begin}, {finish}."
            ) from error
        first, last = (s.tz_localize("UTC") if s is not None and s.tz is None else s for s in stamps)
        periods.append((first, last))
    return boxes, periods
