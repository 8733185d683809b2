"""Which Sentinel-1 and Sentinel-2 scenes hold a place, and which pair of them a place gets; for millions of places.

Points that lie near each other share their scenes. So the points are sorted into blocks of a degree or two; for each
block a search tree names the footprints that touch it, a matrix product tells for all its points at once on which side
of all their edges they lie, and the pairs of the block are put in their order once: the best match of a point is the
first pair of this order whose two footprints hold it. Most Sentinel-2 scenes of a tile have one and the same footprint,
which is only tested once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import geopandas as gpd
import numpy as np
import pandas as pd

from deepsentinel.errors import InputError, warn
from deepsentinel.footprints import SENSORS, check_number, check_scenes, drop_reprocessed, nothing, passes
from deepsentinel.land.cells import check_count, check_seed
from deepsentinel.pairing import GAP_HALF_LIFE_HOURS, MAX_DAYS, UNKNOWN_CLOUD_PERCENT

from .footing import Footprints, Places, places_of

Choose = Literal["best", "random", "all"]

COLUMNS = (
    "point",
    "s1_id",
    "s2_id",
    "s1_time",
    "s2_time",
    "gap_hours",
    "overlap",
    "cloud_cover",
    "orbit",
    "relative_orbit",
    "tile",
    "crs",
)

_HOUR_NS = 3_600_000_000_000
_NOON_NS = 12 * _HOUR_NS
# Cells of points and pairs that are looked at at once: it bounds the memory where places are crowded.
_AT_ONCE = 4_000_000


def match_points(
    points: gpd.GeoDataFrame,
    scenes: gpd.GeoDataFrame,
    *,
    max_days: float = 3,
    size_m: float = 0,
    max_cloud: float | None = None,
    per_place: int = 1,
    choose: Choose = "best",
    seed: int = 0,
    dates: Any = None,
) -> pd.DataFrame:
    """The pairs of scenes for each place: both hold all of it, at most `max_days` apart.

    Parameters
    ----------
    points
        Points, from `sample_land`, or windows, from `cover`. A window is held where all its corners are.
    scenes
        A scenes table of both sensors, from `source.search`. The order of its rows does not matter, and of Sentinel-2
        products that repeat one another after a reprocessing only the newest baseline is used.
    max_days
        The longest gap, included; fractions of days are fine.
    size_m
        The side of the window around each point that must be held as well, in the UTM zone of the point (beyond 84 N
        and 80 S in the grid of the pole). 0: the point alone.
    max_cloud
        The most cloud in percent. Scenes that do not tell count as half cloudy, as they do in the order of pairs.
    per_place
        How many pairs a place gets at most, each with another pass of Sentinel-2.
    choose
        "best": by clear sky x closeness in time, as `pair` has it; then the earlier. "random": one of the pairs of
        the place, all alike, by `seed`, the place and the ids of the scenes: the order of points and scenes does not
        matter. "all": every pair, best first; `per_place` does not count then.
    dates
        One date a point, such as `spread_dates` gives: the pair nearest to it in time is taken. A day without a time
        of day stands for its noon (UTC).

    Returns
    -------
    DataFrame
        Sorted by `point` (the position in `points`), the preferred pair first: `s1_id, s2_id, s1_time, s2_time`,
        `gap_hours` (Sentinel-1 minus Sentinel-2), `overlap` (1: both hold all of it), `cloud_cover, orbit,
        relative_orbit, tile` and `crs` (of the Sentinel-2 scene, None where the catalog does not tell). Places without
        a pair have no row; `attrs["unmatched"]` counts them.

    Footprints are taken as they are in the catalog, their edges straight in longitude and latitude.

        >>> import deepsentinel as ds
        >>> from deepsentinel.land import sample_land
        >>> src = ds.open_source("demo", size_px=256)
        >>> scenes = src.search(src.area, "2018-05-01", "2018-08-31")
        >>> found = match_points(sample_land(5, src.area), scenes, max_days=3)
        >>> found["point"].tolist(), bool((found["gap_hours"].abs() <= 72).all())
        ([0, 1, 2, 3, 4], True)
    """
    if choose not in get_args(Choose):
        raise InputError(f"choose={choose!r} is not a choice; take one of {', '.join(map(repr, get_args(Choose)))}")
    check_number("max_days", max_days, highest=MAX_DAYS, example="max_days=3")
    if max_cloud is not None:
        check_number("max_cloud", max_cloud, highest=100, example="max_cloud=40")
    if check_count(per_place) < 1:
        raise InputError(f"per_place={per_place!r}: every place gets at least one pair; give 1 or more.")
    if dates is not None and choose != "best":
        raise InputError(f"dates= says which pair a place gets, and so does choose={choose!r}; give one of them.")
    places = places_of(points, size_m)
    targets = None if dates is None else _targets(dates, len(places.lon))
    s1, s2 = _sides(scenes, max_cloud)
    wants = _Wants(round(max_days * 24 * _HOUR_NS), choose, int(per_place), check_seed(seed), targets)
    found = _matches(places, _Side.of(s1), _Side.of(s2), wants)
    table = _table(s1, s2, *found)
    matched = table["point"].nunique()
    table.attrs = {name: scenes.attrs[name] for name in ("source", "searched") if name in scenes.attrs}
    table.attrs["unmatched"] = len(places.lon) - matched
    if table.empty and len(places.lon):
        table.attrs["hint"] = hint = (
            f"No match: none of the {len(places.lon):,} places lies in a Sentinel-1 and a Sentinel-2 scene at most"
            f" {max_days:g} days apart, of {len(s1):,} and {len(s2):,}; search where the places are, for longer, or"
            f" with a larger max_days{' or max_cloud' if max_cloud is not None else ''}."
        )
        warn(hint)
    return table


def scenes_at(points: gpd.GeoDataFrame, scenes: gpd.GeoDataFrame, *, size_m: float = 0) -> pd.DataFrame:
    """All scenes that hold each place: columns `point` (its position), `id`, `sensor`, `time`, sorted by these.

    For series, where every date counts. Arguments as in `match_points`.

        >>> import deepsentinel as ds
        >>> from deepsentinel.land import sample_land
        >>> src = ds.open_source("demo", size_px=256)
        >>> scenes = src.search(src.area, "2018-05-01", "2018-05-31")
        >>> sorted(scenes_at(sample_land(2, src.area), scenes)["sensor"].unique())
        ['S1', 'S2']
    """
    places = places_of(points, size_m)
    clean = _placed(check_scenes(scenes))
    kept = pd.concat([clean[clean["sensor"] == "S1"], drop_reprocessed(clean[clean["sensor"] == "S2"])])
    kept = kept.sort_values(["sensor", "time", "id"], kind="stable").reset_index(drop=True)
    footprints = Footprints.of(kept.geometry.to_numpy())
    rows, at = [np.empty(0, dtype="int64")], [np.empty(0, dtype="int64")]
    for block in places.blocks():
        shapes, held = footprints.holding(block)
        group, scene = footprints.scenes_of(shapes)
        point, which = np.nonzero(held[:, group])
        rows.append(scene[which])
        at.append(block.rows[point])
    row, point = np.concatenate(rows), np.concatenate(at)
    order = np.lexsort((row, point))
    table = pd.DataFrame(kept.iloc[row[order]][["id", "sensor", "time"]]).reset_index(drop=True)
    table.insert(0, "point", point[order])
    return table


@dataclass(frozen=True, eq=False)
class _Side:
    """What of the scenes of one sensor decides about matches, in their order: by time, then by id."""

    footprints: Footprints
    time_ns: np.ndarray
    clear: np.ndarray
    scenes: gpd.GeoDataFrame

    @cached_property
    def pass_number(self) -> np.ndarray:
        """The same for all scenes of one pass."""
        return pd.factorize(passes(self.scenes))[0]

    @cached_property
    def id_hash(self) -> np.ndarray:
        """A number for each scene that depends on nothing but its id."""
        return pd.util.hash_array(self.scenes["id"].to_numpy(dtype=object))

    @classmethod
    def of(cls, scenes: gpd.GeoDataFrame) -> _Side:
        return cls(
            Footprints.of(scenes.geometry.to_numpy()),
            scenes["time"].to_numpy("datetime64[ns]").astype("int64"),
            1 - scenes["cloud_cover"].fillna(UNKNOWN_CLOUD_PERCENT).clip(0, 100).to_numpy() / 100,
            scenes,
        )


@dataclass(frozen=True, eq=False)
class _Wants:
    reach_ns: int
    choose: str
    per_place: int
    seed: int
    targets_ns: np.ndarray | None


def _sides(scenes: gpd.GeoDataFrame, max_cloud: float | None) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    clean = check_scenes(scenes)
    for sensor, name in SENSORS.items():
        if not (clean["sensor"] == sensor).any():
            raise nothing(
                scenes,
                f"There is no {name} scene among the {len(clean)} to match",
                f"search with sensors=('S1', 'S2'), a longer period{' or more cloud' if sensor == 'S2' else ''}",
            )
    clean = _placed(clean)
    s1, s2 = clean[clean["sensor"] == "S1"], drop_reprocessed(clean[clean["sensor"] == "S2"])
    if max_cloud is not None:
        s2 = s2[s2["cloud_cover"].fillna(UNKNOWN_CLOUD_PERCENT) <= max_cloud]
    return s1.reset_index(drop=True), s2.reset_index(drop=True)


def _placed(scenes: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Without scenes that nobody knows the ground of: they hold no place."""
    known = ~(scenes.geometry.isna() | scenes.geometry.is_empty)
    return scenes if known.all() else scenes[known]


def _targets(dates: Any, count: int) -> np.ndarray:
    try:
        wanted = pd.DatetimeIndex(pd.to_datetime(dates, utc=True, format="ISO8601")).as_unit("ns")
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"dates= cannot be read as dates ({reason}); give one a point, as spread_dates does."
        ) from error
    known = np.flatnonzero(np.asarray(wanted.notna()))
    if len(wanted) != count or len(known) != count:
        raise InputError(f"dates= has {len(known)} dates for {count} points; give exactly one for each.")
    days = wanted == wanted.normalize()
    return np.asarray(wanted.asi8 + np.where(days, _NOON_NS, 0))


def _matches(places: Places, s1: _Side, s2: _Side, wants: _Wants) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position of the point and of both scenes of every match, sorted by point."""
    found = [(np.empty(0, dtype="int32"),) * 3]
    for block in places.blocks():
        shapes1, held1 = s1.footprints.holding(block)
        shapes2, held2 = s2.footprints.holding(block)
        if not (len(shapes1) and len(shapes2)):
            continue
        pairs = _pairs_of(s1, s2, *s1.footprints.scenes_of(shapes1), *s2.footprints.scenes_of(shapes2), wants.reach_ns)
        if not len(pairs.row1):
            continue
        deep = max(_AT_ONCE // len(pairs.row1), 1)
        for start in range(0, len(block.rows), deep):
            part = slice(start, start + deep)
            fits = held1[part][:, pairs.shape1] & held2[part][:, pairs.shape2]
            for point, pair in _chosen(fits, block.rows[part], places, pairs, s1, s2, wants):
                rows = block.rows[part][point]
                found.append(tuple(side.astype("int32") for side in (rows, pairs.row1[pair], pairs.row2[pair])))
    point, row1, row2 = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(point, kind="stable")
    return point[order], row1[order], row2[order]


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The pairs of scenes of one block, the best first."""

    row1: np.ndarray
    row2: np.ndarray
    shape1: np.ndarray
    """Columns of the matrix that tells which footprint holds which point."""
    shape2: np.ndarray


def _pairs_of(
    s1: _Side, s2: _Side, group1: np.ndarray, row1: np.ndarray, group2: np.ndarray, row2: np.ndarray, reach_ns: int
) -> _Pairs:
    order = np.argsort(row1)
    group1, row1 = group1[order], row1[order]
    time1, time2 = s1.time_ns[row1], s2.time_ns[row2]
    low = np.searchsorted(time1, time2 - reach_ns, side="left")
    high = np.searchsorted(time1, time2 + reach_ns, side="right")
    number = high - low
    second = np.repeat(np.arange(len(row2)), number)
    first = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number) + np.repeat(low, number)
    gap_hours = np.abs(time1[first] - time2[second]) / _HOUR_NS
    worth = np.round(s2.clear[row2[second]] * 0.5 ** (gap_hours / GAP_HALF_LIFE_HOURS), 9)
    # Scenes are numbered by time, then by id: the order of `pair`.
    best = np.lexsort((row1[first], row2[second], time1[first], time2[second], -worth))
    first, second = first[best], second[best]
    return _Pairs(row1[first], row2[second], group1[first], group2[second])


def _chosen(
    fits: np.ndarray, rows: np.ndarray, places: Places, pairs: _Pairs, s1: _Side, s2: _Side, wants: _Wants
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Point and pair of each match, by numbers within the block; of one place the preferred first."""
    if wants.choose == "all":
        point, pair = np.nonzero(fits)
        yield point, pair
        return
    cost = None
    if wants.targets_ns is not None:
        middle = (s1.time_ns[pairs.row1] // 2 + s2.time_ns[pairs.row2] // 2) / _HOUR_NS
        cost = np.abs(middle - wants.targets_ns[rows][:, None] / _HOUR_NS)
    elif wants.choose == "random":
        pair = _mixed(s1.id_hash[pairs.row1] ^ _mixed(s2.id_hash[pairs.row2] + np.uint64(wants.seed)))
        cost = _mixed(pair ^ places.hashes(rows)[:, None])
    for _ in range(wants.per_place):
        if cost is None:
            # The pairs are in their order, so the first that fits is the best.
            pair = fits.argmax(axis=1)
        else:
            pair = np.where(fits, cost, np.inf if cost.dtype.kind == "f" else np.iinfo("uint64").max).argmin(axis=1)
        point = np.flatnonzero(fits[np.arange(len(pair)), pair])
        if not len(point):
            return
        yield point, pair[point]
        if wants.per_place > 1:
            pass2 = s2.pass_number[pairs.row2]
            fits = fits & (pass2 != pass2[pair][:, None])


def _mixed(values: np.ndarray) -> np.ndarray:
    """Numbers that look as if drawn by chance, the same for the same input (the finish of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))


def _table(
    s1: gpd.GeoDataFrame, s2: gpd.GeoDataFrame, point: np.ndarray, row1: np.ndarray, row2: np.ndarray
) -> pd.DataFrame:
    left = {name: s1[name].array.take(row1) for name in ("id", "time", "orbit", "relative_orbit")}
    right = {name: s2[name].array.take(row2) for name in ("id", "time", "cloud_cover", "tile")}
    crs = s2["crs"].array.take(row2) if "crs" in s2 else np.full(len(point), None, dtype=object)
    return pd.DataFrame(
        {
            "point": point.astype("int64"),
            "s1_id": left["id"],
            "s2_id": right["id"],
            "s1_time": left["time"],
            "s2_time": right["time"],
            "gap_hours": np.asarray((left["time"] - right["time"]) / pd.Timedelta(hours=1), dtype="float64"),
            "overlap": 1.0,
            "cloud_cover": right["cloud_cover"],
            "orbit": left["orbit"],
            "relative_orbit": left["relative_orbit"],
            "tile": right["tile"],
            "crs": crs,
        }
    )[list(COLUMNS)]
