"""Places -> the scenes that each sample is cut from: in one source, and its twins in the others."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import shapely

from deepsentinel.aoi import utm_crs
from deepsentinel.errors import DeepSentinelWarning
from deepsentinel.footprints import drop_reprocessed

from .places import Places
from .searching import search_scenes
from .series import Dates, common_crs, dates_of
from .tiling import footprints

if TYPE_CHECKING:
    import geopandas as gpd

    from deepsentinel.sources import Source

# Two catalogs may state the time of one scene as its start, its middle or that of its datatake.
SAME_SCENE_NS = 10 * 60 * 10**9
HOUR_NS = 3600 * 10**9
HAIR_DEG = 1e-6
SENSOR_NAMES = {"S1": "Sentinel-1", "S2": "Sentinel-2"}


@dataclass(frozen=True)
class Wanted:
    """What `plan_corpus` was asked for, as far as matching must know."""

    start: Any
    end: Any
    sensors: tuple[str, ...]
    max_days: float
    max_cloud: float | None
    per_place: int
    choose: str
    seed: int
    series: bool
    step: float
    dates: pd.Series | None = None


@dataclass(frozen=True, eq=False)
class Matched:
    """Samples as they are found, before they are put in order."""

    rows: pd.DataFrame
    """A row a sample: its `position` among the places, its scenes, and `crs, x0, y0` of its grid."""
    unmatched: pd.DataFrame
    """A row for each place and source without a sample."""
    searches: int
    """How many searches were made."""
    sources: tuple[Source, ...]
    """The sources."""
    kinds: pd.DataFrame
    """`source, what, kind`: the level and the backscatter of the scenes that are used."""

    UNMATCHED: ClassVar[list[str]] = ["place", "source", "reason", "lon", "lat"]


def match_sources(places: Places, sources: Sequence[Source], wanted: Wanted) -> Matched:
    """Samples in the first source, and their twins in the others."""
    searches = 0
    found: list[pd.DataFrame] = []
    missing: list[pd.DataFrame] = []
    kinds: list[tuple[str, str, str]] = []
    for source in sources:
        scenes, asked = search_scenes(
            source,
            places.lon,
            places.lat,
            size_m=places.size_m,
            start=wanted.start,
            end=wanted.end,
            sensors=wanted.sensors,
            max_cloud=wanted.max_cloud,
        )
        searches += asked * len(wanted.sensors)
        if not found or wanted.series:
            rows, reasons = _first(places, scenes, wanted)
        else:
            rows, reasons = _twins(found[0], scenes, source.name, places.size_m)
        found.append(rows.assign(source=source.name))
        kinds += [(source.name, what, kind) for what, kind in _kinds(scenes, rows)]
        missing.append(
            pd.DataFrame(
                {
                    "place": places.number[reasons["position"].to_numpy(int)],
                    "source": source.name,
                    "reason": reasons["reason"].to_numpy(object),
                    "lon": places.lon[reasons["position"].to_numpy(int)],
                    "lat": places.lat[reasons["position"].to_numpy(int)],
                },
                columns=Matched.UNMATCHED,
            )
        )
    rows = pd.concat([one for one in found if len(one)] or found[:1], ignore_index=True)
    told = pd.DataFrame(kinds, columns=["source", "what", "kind"])
    return Matched(rows, pd.concat(missing, ignore_index=True), searches, tuple(sources), told)


def _kinds(scenes: gpd.GeoDataFrame, rows: pd.DataFrame) -> list[tuple[str, str]]:
    """What the scenes of some samples measure: `("level", "L2A")`, `("backscatter", "sigma0")`."""
    used: set[str] = set()
    for name in {"s1_id", "s2_id", "s1_ids", "s2_ids"} & set(rows):
        for each in pd.unique(rows[name].explode().dropna()):
            used.update(str(each).split("+"))
    held = scenes[scenes["id"].isin(used)]
    return [(what, kind) for what in ("level", "backscatter") for kind in sorted(set(held[what].dropna()))]


def _first(places: Places, scenes: gpd.GeoDataFrame, wanted: Wanted) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Samples of a source by itself, and the places that have none: `position, reason`."""
    if wanted.series or len(wanted.sensors) == 1:
        return _by_dates(places, scenes, wanted)
    return _by_pairs(places, scenes, wanted)


def _by_pairs(places: Places, scenes: gpd.GeoDataFrame, wanted: Wanted) -> tuple[pd.DataFrame, pd.DataFrame]:
    parts: list[pd.DataFrame] = []
    if {"S1", "S2"} <= set(scenes["sensor"]):
        if places.windows is None:
            parts.append(_pairs_of_points(places, scenes, wanted))
        else:
            # A window has its projection already, and only granules in it need no resampling.
            names = places.windows["crs"].to_numpy(object)
            for name in dict.fromkeys(names):
                known = scenes[(scenes["sensor"] == "S1") | (scenes["crs"] == name) | scenes["crs"].isna()]
                if "S2" in set(known["sensor"]):
                    parts.append(_pairs_at(places, np.flatnonzero(names == name), known, wanted))
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"position": np.array([], int)})
    positions = found["position"].to_numpy()
    reasons = _why_unpaired(places, scenes, wanted, np.setdiff1d(np.arange(len(places)), positions))
    if not len(found):
        return found, reasons
    grids = places.grids(positions, _known_crs(places, positions, found["crs"].to_numpy(object)), wanted.step)
    rows = found.drop(columns=["point", "crs"]).assign(
        place=places.number[positions],
        crs=grids["crs"].to_numpy(object),
        x0=grids["x0"].to_numpy(),
        y0=grids["y0"].to_numpy(),
    )
    stamps = pd.to_datetime(rows["s2_time"], utc=True).dt.strftime("%Y%m%dT%H%M%S")
    rows["id"] = [f"{place:07d}-{stamp}" for place, stamp in zip(rows["place"], stamps, strict=True)]
    return rows, reasons


def _pairs_of_points(places: Places, scenes: gpd.GeoDataFrame, wanted: Wanted) -> pd.DataFrame:
    """The pairs of points, both of whose scenes hold the window as it is cut: in the projection of the optical one.

    Matching lays it in the zone of the point. In the next one it is askew, and its corners lie elsewhere.
    """
    zones = np.array([utm_crs(float(lon), float(lat)) for lon, lat in zip(places.lon, places.lat, strict=True)])
    outlines = dict(zip(scenes["id"], scenes.geometry, strict=True))
    parts: list[pd.DataFrame] = []
    asked = np.arange(len(places))
    held: dict[int, list[str]] = {}
    while len(asked):
        found = _pairs_at(places, asked, scenes, wanted, [held[at] for at in asked.tolist()] if held else None)
        positions, crs = found["position"].to_numpy(), found["crs"].to_numpy(object)
        askew = np.flatnonzero((crs != zones[positions]) & ~pd.isna(crs))
        cut = footprints(places.grids(positions[askew], crs[askew], wanted.step))
        pair = [np.array([outlines[one] for one in found[name].iloc[askew]], object) for name in ("s1_id", "s2_id")]
        out = askew[~(shapely.covers(pair[0], cut) & shapely.covers(pair[1], cut))]
        out = [at for at in out if crs[at] not in held.get(int(positions[at]), [])]
        # These are asked for again, with scenes that hold the window in both projections.
        for at in out:
            held.setdefault(int(positions[at]), [zones[positions[at]]]).append(crs[at])
        asked = np.unique(positions[out])
        parts.append(found[~np.isin(positions, asked)])
    return pd.concat(parts, ignore_index=True).sort_values("position", kind="stable", ignore_index=True)


def _pairs_at(
    places: Places,
    positions: np.ndarray,
    scenes: gpd.GeoDataFrame,
    wanted: Wanted,
    held: list[list[str]] | None = None,
) -> pd.DataFrame:
    """The pairs of some places; `held` tells for points in which projections their windows must lie in the scenes."""
    import geopandas as gpd

    from .matching import match_points

    size_m = 0.0
    if places.windows is not None:
        shapes = footprints(places.grids(positions, None, wanted.step))
    elif held is None:
        shapes = shapely.points(places.lon[positions], places.lat[positions])
        # The corner moves to the lattice by half a step at most.
        size_m = places.size_m + wanted.step
    else:
        shapes = np.empty(len(positions), dtype=object)
        for number, (at, names) in enumerate(zip(positions, held, strict=True)):
            cut = footprints(places.grids(np.full(len(names), at), names, wanted.step))
            shapes[number] = shapely.multipolygons(shapely.get_parts(cut))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepSentinelWarning)  # places without a pair are told of with their reasons
        table = match_points(
            gpd.GeoDataFrame(geometry=shapes, crs="EPSG:4326"),
            scenes,
            max_days=wanted.max_days,
            size_m=size_m,
            max_cloud=wanted.max_cloud,
            per_place=wanted.per_place,
            choose=wanted.choose,  # type: ignore[arg-type]
            seed=wanted.seed,
            dates=None if wanted.dates is None else wanted.dates.iloc[positions],
        )
    return table.assign(position=positions[table["point"].to_numpy(int)])


def _known_crs(places: Places, positions: np.ndarray, crs: np.ndarray) -> np.ndarray:
    """The projection of each scene; where the catalog does not tell it that of the place."""
    known = crs.copy()
    for at in np.flatnonzero(pd.isna(crs)):
        known[at] = utm_crs(float(places.lon[positions[at]]), float(places.lat[positions[at]]))
    return known


def _why_unpaired(places: Places, scenes: gpd.GeoDataFrame, wanted: Wanted, positions: np.ndarray) -> pd.DataFrame:
    points = shapely.points(places.lon[positions], places.lat[positions])
    has = {}
    for sensor in ("S1", "S2"):
        tree = shapely.STRtree(np.asarray(scenes[scenes["sensor"] == sensor].geometry.array, dtype=object))
        has[sensor] = np.zeros(len(positions), dtype=bool)
        has[sensor][tree.query(points, predicate="intersects")[0]] = True
    cloud = "" if wanted.max_cloud is None else f" of at most {wanted.max_cloud:g} % cloud"
    reasons = np.full(
        len(positions), f"no scenes of both sensors within {wanted.max_days:g} days hold the whole window", dtype=object
    )
    if places.windows is not None:
        reasons[:] = f"{reasons[0] if len(reasons) else ''}, the Sentinel-2 scene in the window's own projection"
    reasons[~has["S1"]] = "no Sentinel-1 scene covers it"
    reasons[~has["S2"]] = f"no Sentinel-2 scene{cloud} covers it"
    return pd.DataFrame({"position": positions, "reason": reasons})


def _by_dates(places: Places, scenes: gpd.GeoDataFrame, wanted: Wanted) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Series, and samples of one sensor."""
    zones = [utm_crs(float(lon), float(lat)) for lon, lat in zip(places.lon, places.lat, strict=True)]
    if places.windows is None:
        crs = common_crs(places.outlines(zones, wanted.step), scenes, zones)
    else:
        crs = places.windows["crs"].tolist()
    grids = places.grids(np.arange(len(places)), crs, wanted.step)
    shapes = places.outlines(crs, wanted.step)
    found = {
        sensor: dates_of(shapes, crs, scenes, sensor, whole=not wanted.series)
        if (scenes["sensor"] == sensor).any()
        else [Dates([], [], [], []) for _ in range(len(places))]
        for sensor in wanted.sensors
    }
    rows: list[dict[str, Any]] = []
    reasons: list[dict[str, Any]] = []
    for position in range(len(places)):
        lacking = next((sensor for sensor in wanted.sensors if not found[sensor][position].ids), None)
        if lacking is not None:
            reasons.append({"position": position, "reason": f"no {SENSOR_NAMES[lacking]} scene covers it"})
            continue
        base = {
            "position": position,
            "place": int(places.number[position]),
            **{name: grids[name].iloc[position] for name in ("crs", "x0", "y0")},
        }
        if wanted.series:
            rows.append({**base, **_series_row(found, position, scenes), "id": f"{base['place']:07d}"})
            continue
        (sensor,) = wanted.sensors
        dates = found[sensor][position]
        for at in _chosen(dates, wanted, int(base["place"])):
            rows.append({**base, **_single_row(sensor, dates, at, scenes)})
            rows[-1]["id"] = f"{base['place']:07d}-{pd.Timestamp(dates.times[at]):%Y%m%dT%H%M%S}"
    return pd.DataFrame(rows), pd.DataFrame(reasons, columns=["position", "reason"])


def _series_row(found: dict[str, list[Dates]], position: int, scenes: gpd.GeoDataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {"overlap": np.nan}
    for sensor, all_dates in found.items():
        dates = all_dates[position]
        row |= {f"{sensor.lower()}_ids": dates.ids, f"{sensor.lower()}_times": dates.times}
        if sensor == "S2":
            row["cloud_cover"] = (
                float(np.nanmean(dates.cloud_cover)) if np.isfinite(dates.cloud_cover).any() else np.nan
            )
            row["tile"] = scenes["tile"].iloc[dates.rows[0]]
    return row


def _single_row(sensor: str, dates: Dates, at: int, scenes: gpd.GeoDataFrame) -> dict[str, Any]:
    scene = scenes.iloc[dates.rows[at]]
    short = sensor.lower()
    row = {f"{short}_id": dates.ids[at], f"{short}_time": dates.times[at], "overlap": 1.0}
    if sensor == "S2":
        return row | {"cloud_cover": dates.cloud_cover[at], "tile": scene["tile"]}
    return row | {"orbit": scene["orbit"], "relative_orbit": scene["relative_orbit"]}


def _chosen(dates: Dates, wanted: Wanted, place: int) -> list[int]:
    """Which dates of a place: the clearest, or drawn for this place alone, so that others do not change it."""
    count = min(wanted.per_place, len(dates.ids))
    if wanted.choose == "random":
        rng = np.random.default_rng([wanted.seed, place])
        return sorted(rng.permutation(len(dates.ids))[:count].tolist())
    clouds = np.nan_to_num(np.asarray(dates.cloud_cover, float), nan=50.0)
    return sorted(np.argsort(clouds, kind="stable")[:count].tolist())


def _twins(
    first: pd.DataFrame, scenes: gpd.GeoDataFrame, source: str, size_m: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same samples from another source: the scenes of the same passes, under that source's own ids."""
    keep = np.ones(len(first), dtype=bool)
    twins = first.copy()
    reasons = np.full(len(first), None, dtype=object)
    # A hair less, as windows may end where their granule does.
    cut = shapely.buffer(footprints(first.assign(size_px=1, resolution=size_m)), -HAIR_DEG, join_style="mitre")
    for sensor, short in (("S2", "s2"), ("S1", "s1")):
        if f"{short}_id" not in first.columns or first[f"{short}_id"].isna().all():
            continue
        mine = scenes[scenes["sensor"] == sensor]
        if sensor == "S2":  # as in the first source; but one that is the very same product is the better twin
            newest = mine.index.isin(drop_reprocessed(mine).index)
            mine = mine[newest | mine["id"].isin(first["s2_id"]).to_numpy()]
        mine = mine.reset_index(drop=True)
        times = mine["time"].dt.tz_convert(None).to_numpy("datetime64[ns]").astype("int64")
        wanted_at = pd.to_datetime(first[f"{short}_time"], utc=True).dt.tz_convert(None)
        own = wanted_at.to_numpy("datetime64[ns]").astype("int64")
        shapes = np.asarray(mine.geometry.array, dtype=object)
        zones = mine["crs"].to_list()
        ids, stamps = first[f"{short}_id"].to_list(), pd.to_datetime(first[f"{short}_time"], utc=True).to_list()
        for row in range(len(first)):
            low, high = np.searchsorted(times, (own[row] - SAME_SCENE_NS, own[row] + SAME_SCENE_NS))
            near = np.arange(low, high)
            near = near[shapely.covers(shapes[near], cut[row])]
            if sensor == "S2":  # a granule in another projection would be resampled, and so be no twin
                near = near[[zones[at] is None or zones[at] == first["crs"].iloc[row] for at in near]]
            if not len(near):
                keep[row] = False
                reasons[row] = f"{source} has no scene of the same {SENSOR_NAMES[sensor]} pass"
                continue
            best = min(near, key=lambda at: _unlike(mine.iloc[at], first.iloc[row], sensor, times[at] - own[row]))
            ids[row], stamps[row] = mine["id"].iloc[best], mine["time"].iloc[best]
        twins[f"{short}_id"], twins[f"{short}_time"] = ids, pd.to_datetime(pd.Series(stamps), utc=True)
    if {"s1_time", "s2_time"} <= set(twins.columns):
        gaps = pd.to_datetime(twins["s1_time"], utc=True) - pd.to_datetime(twins["s2_time"], utc=True)
        twins["gap_hours"] = gaps / pd.Timedelta(hours=1)
    lost = pd.DataFrame({"position": first["position"][~keep], "reason": reasons[~keep]})
    return twins[keep].reset_index(drop=True), lost.reset_index(drop=True)


def _unlike(scene: Any, row: Any, sensor: str, away_ns: int) -> tuple[Any, ...]:
    name = row["s2_id"] if sensor == "S2" else row["s1_id"]
    tile = sensor == "S2" and scene["tile"] != row["tile"]
    return scene["id"] != name, bool(tile), scene["crs"] != row["crs"], abs(int(away_ns)), str(scene["id"])
