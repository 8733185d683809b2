"""Scenes as footprints: what pairing and selection both need to know about a table of scenes.

Four things live here, all of them vectorised over tables of tens of thousands of rows: checking and normalising a
table, areas that do not shrink towards the poles, which rows are one pass of one satellite, and which of them show the
same thing twice.
"""

from __future__ import annotations

import re
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from . import lonlat
from .aoi import area
from .errors import InputError, NothingFoundError

COLUMNS = (
    "id",
    "sensor",
    "platform",
    "time",
    "cloud_cover",
    "nodata_share",
    "orbit",
    "relative_orbit",
    "level",
    "backscatter",
    "baseline",
    "tile",
    "datatake",
    "geometry",
)
SENSORS = {"S1": "Sentinel-1", "S2": "Sentinel-2"}

# Frames of one pass follow each other within seconds; the same relative orbit comes back after ten or twelve days.
# Anything between tells them apart.
PASS_BREAK_MINUTES = 60

# Overlay leaves noise of about 1e-12 in a share; shares closer than this are the same share.
SHARE_TOLERANCE = 1e-6


def check_scenes(scenes: Any) -> gpd.GeoDataFrame:
    """A clean copy of a scenes table: columns there, EPSG:4326, UTC, valid polygons, sorted by time then id.

    A scene that is listed twice counts once, so the results of two searches can simply be concatenated.
    """
    if not isinstance(scenes, gpd.GeoDataFrame):
        raise InputError(
            f"scenes is a {type(scenes).__name__}, not a GeoDataFrame; give what source.search(...) returned"
        )
    missing = [name for name in COLUMNS if name not in scenes.columns]
    if missing:
        raise InputError(
            f"The scenes table has no column {', '.join(missing)}; give what source.search(...) returned, or add it "
            "(None or NaN where a value is not known)"
        )
    unknown = sorted(set(map(str, scenes["sensor"])) - set(SENSORS))
    if unknown:
        raise InputError(f"The scenes table holds sensor {', '.join(unknown)}; this works on 'S1' and 'S2'")
    clean = scenes.copy()
    clean["time"] = _utc(clean["time"])
    if clean["time"].isna().any():
        names = ", ".join(map(str, clean.loc[clean["time"].isna(), "id"].head(3)))
        raise InputError(f"{clean['time'].isna().sum()} scenes have no time ({names}); drop them or look their time up")
    clean = _lon_lat(clean)
    for name, dtype in (("cloud_cover", "float64"), ("nodata_share", "float64"), ("relative_orbit", "Int64")):
        clean[name] = pd.to_numeric(clean[name]).astype(dtype)
    clean = clean.sort_values(["time", "id"], kind="stable").drop_duplicates(["sensor", "id"])
    return clean.reset_index(drop=True)


def check_number(name: str, value: Any, *, highest: float = np.inf, example: str) -> float:
    """A number from 0 to `highest`, or an error that says how to write one."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= float(value) <= highest:
        span = "of 0 or more" if np.isinf(highest) else f"from 0 to {highest:g}"
        raise InputError(f"{name}={value!r} is not a number {span}; write for example {example}")
    return float(value)


def _utc(times: pd.Series) -> pd.Series:
    if not isinstance(times.dtype, pd.DatetimeTZDtype):
        raise InputError(
            f"scenes['time'] is {times.dtype}, without a time zone, and a gap of hours may not be guessed; if it is "
            "UTC: scenes['time'] = pd.to_datetime(scenes['time'], utc=True)"
        )
    return times.dt.tz_convert("UTC").dt.as_unit("ns")


def _lon_lat(scenes: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    if scenes.crs is None:
        raise InputError("The scenes table has no CRS; footprints are lon/lat: scenes = scenes.set_crs('EPSG:4326')")
    if scenes.crs.to_epsg() != 4326:
        scenes = scenes.to_crs("EPSG:4326")
    footprints = scenes.geometry.to_numpy().copy()
    # At 180 degrees some catalogs cut a footprint, as GeoJSON wants; some count on beyond, and some jump from 180 to
    # -180, which drawn flat is a belt around the Earth: it would miss its own ground and claim everybody else's.
    west, _, east, _ = shapely.bounds(footprints).T
    for row in np.flatnonzero((west < -180) | (east > 180) | (east - west > 180)):
        footprints[row] = lonlat.onto_globe(footprints[row], lonlat.Changes())
    broken = ~shapely.is_valid(footprints) & ~shapely.is_missing(footprints)
    if broken.any():
        footprints[broken] = polygonal(shapely.make_valid(footprints[broken]))
    return scenes.set_geometry(gpd.GeoSeries(footprints, index=scenes.index, crs="EPSG:4326"))


def place_of(aoi: Any) -> shapely.Geometry:
    """The polygon of an area of interest, which is anything that `deepsentinel.aoi.area` takes."""
    return area(aoi).geometry


def polygonal(geometries: np.ndarray) -> np.ndarray:
    """Geometries without the points and lines that overlay leaves where two polygons only touch."""
    geometries = np.asarray(geometries, dtype=object)
    mixed = np.flatnonzero(~np.isin(shapely.get_type_id(geometries), (3, 6, -1)))
    if mixed.size == 0:
        return geometries
    geometries = geometries.copy()
    for row in mixed:
        parts = shapely.get_parts(shapely.get_parts(geometries[row]))
        parts = parts[shapely.get_type_id(parts) == 3]
        geometries[row] = shapely.MultiPolygon(list(parts)) if len(parts) != 1 else parts[0]
    return geometries


def spherical_area(geometries: np.ndarray) -> np.ndarray:
    """Area on a sphere of radius 1 of lon/lat polygons whose edges are straight in lon/lat, as GeoJSON's are.

    Degrees are not areas: at 60 N a square degree is half of one at the equator, so a share measured in degrees leans
    towards the pole. By Green's theorem the area under an edge is the integral of sin(lat) over lon, which has a closed
    form. It is additive: the pieces of a cut polygon sum to the polygon, whatever the cut.

        >>> float(spherical_area(np.array([shapely.box(-180, -90, 180, 90)]))[0] / np.pi)
        4.0
    """
    geometries = np.asarray(geometries, dtype=object)
    parts, owner = shapely.get_parts(geometries, return_index=True)
    is_polygon = shapely.get_type_id(parts) == 3
    parts, owner = parts[is_polygon], owner[is_polygon]
    if len(parts) == 0:
        return np.zeros(len(geometries))
    rings, part_of_ring = shapely.get_rings(parts, return_index=True)
    lon_lat, ring_of_point = shapely.get_coordinates(rings, return_index=True)
    lon, lat = np.radians(lon_lat).T
    step_lon, step_lat, middle = np.diff(lon), np.diff(lat), (lat[1:] + lat[:-1]) / 2
    # The mean of sin(lat) along an edge is sin(middle) * sin(h) / h, h half the step; np.sinc(x) = sin(pi x) / (pi x).
    under = step_lon * np.sin(middle) * np.sinc(step_lat / (2 * np.pi))
    inside = ring_of_point[1:] == ring_of_point[:-1]
    ring_area = np.abs(np.bincount(ring_of_point[1:][inside], weights=under[inside], minlength=len(rings)))
    is_hole = np.r_[False, part_of_ring[1:] == part_of_ring[:-1]]
    ring_area = np.where(is_hole, -ring_area, ring_area)
    return np.bincount(owner[part_of_ring], weights=ring_area, minlength=len(geometries))


def clip(footprints: np.ndarray, place: shapely.Geometry) -> tuple[np.ndarray, np.ndarray]:
    """What of each footprint lies in `place`, and the share of `place` that this is.

    The whole of `place` where a footprint covers it: most do, and need no overlay at all.
    """
    shapely.prepare(place)
    inside = np.full(len(footprints), shapely.Polygon(), dtype=object)
    share = np.zeros(len(footprints))
    touching = np.flatnonzero(shapely.intersects(place, footprints))
    full = shapely.covers(footprints[touching], place)
    inside[touching[full]], share[touching[full]] = place, 1.0
    part = touching[~full]
    inside[part] = polygonal(shapely.intersection(footprints[part], place))
    share[part] = np.minimum(spherical_area(inside[part]) / spherical_area(np.array([place]))[0], 1.0)
    return inside, share


def passes(scenes: pd.DataFrame) -> pd.Series:
    """A key for each scene that is the same for all scenes of one pass of one satellite.

    It is the datatake where the catalog tells it. Sentinel-2's datatake ids end in the processing baseline
    (`GS2A_20230602T100601_041489_N05.09`), which makes one acquisition look like two once reprocessed: it is cut off.
    Without a datatake it is the platform, the relative orbit and the time; without those a scene is a pass of its own.
    """
    platform = scenes["platform"].fillna("").astype(str).str.lower()
    datatake = scenes["datatake"].astype(object)
    told = datatake.notna()
    keys = pd.Series("id " + scenes["id"].astype(str), index=scenes.index, dtype=object)
    keys[told] = platform[told] + " " + datatake[told].astype(str).str.replace(r"_N\d\d\.\d\d$", "", regex=True)
    guessed = scenes[~told & scenes["relative_orbit"].notna() & (platform != "")]
    if len(guessed):
        track = platform[guessed.index] + " r" + guessed["relative_orbit"].astype(int).astype(str)
        order = guessed.assign(track=track).sort_values(["track", "time"])
        new = (order["track"] != order["track"].shift()) | (
            order["time"].diff() > pd.Timedelta(minutes=PASS_BREAK_MINUTES)
        )
        keys[order.index] = order["track"] + " pass " + new.cumsum().astype(str)
    return scenes["sensor"].astype(str) + " " + keys.astype(str)


def _version(scene: Any) -> tuple[tuple[int, ...], str, str]:
    # Ids of products end in the time they were generated; where they do not, the id itself orders the versions.
    numbers = () if pd.isna(scene.baseline) else tuple(map(int, re.findall(r"\d+", str(scene.baseline))))
    stamps = re.findall(r"\d{8}T\d{6}", str(scene.id))
    return numbers, stamps[-1] if len(stamps) > 1 else "", str(scene.id)


def drop_reprocessed(scenes: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Without the products that repeat another one of the same datatake, tile and level.

    Kept is the highest processing baseline, then the newest generation. A product that mostly shows ground which the
    kept one does not (a datastrip split in two) is no repetition and stays.
    """
    keys = pd.DataFrame({"pass": passes(scenes), "tile": scenes["tile"], "level": scenes["level"]})
    twice = keys.duplicated(keep=False) & scenes["tile"].notna() & (scenes["sensor"] == "S2")
    rows = np.flatnonzero(twice.to_numpy())
    if not len(rows):
        return scenes
    group = keys.iloc[rows].groupby(list(keys), dropna=False, sort=False).ngroup().to_numpy()
    versions = [_version(scene) for scene in scenes.iloc[rows][["baseline", "id"]].itertuples()]
    newest_first = {version: rank for rank, version in enumerate(sorted(set(versions), reverse=True))}
    shapes = scenes.geometry.to_numpy()[rows]
    dropped: list[int] = []
    kept: list[shapely.Geometry] = []
    last = -1
    for at in np.lexsort((np.array([newest_first[version] for version in versions]), group)):
        if group[at] != last:
            last, kept = group[at], []
        if _is_repeated(shapes[at], kept):
            dropped.append(rows[at])
        else:
            kept.append(shapes[at])
    whole = np.ones(len(scenes), dtype=bool)
    whole[dropped] = False
    return scenes[whole]


def _is_repeated(footprint: shapely.Geometry, kept: list[shapely.Geometry]) -> bool:
    if not kept or any(footprint == other for other in kept):  # equal outlines need no overlay, and are the rule
        return bool(kept)
    seen = shapely.union_all([shapely.intersection(footprint, other) for other in kept])
    own, repeated = spherical_area(np.array([footprint, seen]))
    return bool(repeated >= own / 2)


def one_per_pass(scenes: gpd.GeoDataFrame, place: shapely.Geometry) -> gpd.GeoDataFrame:
    """Of the scenes of one pass the one that covers `place` best (column `overlap`).

    Neighbouring granules overlap by ten kilometres and more and hold the same pixels there, so both would count one
    acquisition twice. Where both cover the place equally, the granule in the UTM zone of the place wins, because its
    pixels need no resampling; then the first tile, then the newest version.
    """
    # The parts of a place that is cut at 180 degrees lie at both ends of the map, and between them is nothing of it.
    main_part = max(shapely.get_parts(place), key=lambda part: part.area)
    zone = int((main_part.centroid.x + 180) // 6) % 60 + 1
    versions = [_version(scene) for scene in scenes.itertuples()]
    newest_first = {version: rank for rank, version in enumerate(sorted(set(versions), reverse=True))}
    ranked = scenes.assign(
        _pass=passes(scenes),
        _covered=-np.round(scenes["overlap"] / SHARE_TOLERANCE),
        _away=utm_zones(scenes) != zone,
        _tile=scenes["tile"].astype("string").fillna(""),
        _version=[newest_first[version] for version in versions],
    ).sort_values(["_covered", "_away", "_tile", "_version"], kind="stable")
    kept = ranked.drop_duplicates(["_pass", "level", "backscatter"])
    return scenes.loc[kept.index].sort_values(["time", "id"])


def utm_zones(scenes: pd.DataFrame) -> np.ndarray:
    """The UTM zone each scene's pixels lie in, from its `crs` or its MGRS tile; 0 where neither tells."""
    tile = scenes["tile"].astype("string").str.extract(r"^(\d{1,2})", expand=False)
    if "crs" in scenes:
        tile = scenes["crs"].astype("string").str.extract(r"^EPSG:32[67](\d\d)$", expand=False).fillna(tile)
    return np.asarray(pd.to_numeric(tile).fillna(0).to_numpy(dtype=np.int64))


def nothing(scenes: pd.DataFrame, what: str, advice: str) -> NothingFoundError:
    """The error for a table that lacks something, with what was searched, as the source put it."""
    searched = scenes.attrs.get("searched")
    return NothingFoundError(f"{what}{f' (searched: {searched})' if searched else ''}; {advice}")
