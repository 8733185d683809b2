"""Pairs: against two plain loops, and one property a test."""

from __future__ import annotations

from contextlib import nullcontext

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from scene_tables import random_scenes, scene, shuffled, table
from shapely.affinity import translate

from deepsentinel.errors import DeepSentinelWarning, InputError, NothingFoundError
from deepsentinel.footprints import spherical_area
from deepsentinel.pairing import PAIR_COLUMNS, match_rate, pair

SQUARE = shapely.box(0, 49, 1, 50)


def equal_area(geometry: shapely.Geometry) -> float:
    """Area by way of a map: finely split edges, drawn with the sine of the latitude as height."""
    fine = shapely.segmentize(geometry, 0.02)
    return float(
        shapely.transform(fine, lambda c: np.stack([np.radians(c[:, 0]), np.sin(np.radians(c[:, 1]))], 1)).area
    )


def brute_force(scenes: gpd.GeoDataFrame, aoi: shapely.Geometry | None, max_days: float, min_overlap: float) -> dict:
    found = {}
    s1, s2 = (scenes[scenes.sensor == name] for name in ("S1", "S2"))
    for b in s2.itertuples():
        ground = b.geometry if aoi is None else b.geometry.intersection(aoi)
        whole = equal_area(b.geometry if aoi is None else aoi)
        gaps = (s1.time - b.time).dt.total_seconds() / 3600
        near = (gaps.abs() <= max_days * 24) & shapely.intersects(s1.geometry.to_numpy(), ground)
        for a, gap_hours in zip(s1[near].itertuples(), gaps[near], strict=True):
            overlap = equal_area(a.geometry.intersection(ground)) / whole
            if overlap > max(min_overlap, 1e-12):
                found[a.id, b.id] = (gap_hours, overlap)
    return found


def as_dict(pairs: gpd.GeoDataFrame) -> dict:
    return {(row.s1_id, row.s2_id): (row.gap_hours, row.overlap) for row in pairs.itertuples()}


def assert_same(pairs: gpd.GeoDataFrame, wanted: dict, min_overlap: float = 0.0) -> None:
    got = as_dict(pairs)
    # Only a pair that lies on the threshold may be judged differently by two ways of measuring area.
    for key in got.keys() ^ wanted.keys():
        assert abs((got.get(key) or wanted[key])[1] - min_overlap) < 1e-5, key
    both = sorted(got.keys() & wanted.keys())
    np.testing.assert_allclose([got[key] for key in both], [wanted[key] for key in both], atol=2e-5, rtol=1e-9)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    max_days=st.floats(0.1, 20),
    min_overlap=st.sampled_from([0.0, 0.3, 0.9]),
    aoi=st.sampled_from([None, shapely.box(9.5, 59.5, 11, 61), shapely.Polygon([(9, 60), (11, 59), (10.4, 61.5)])]),
)
def test_equals_two_plain_loops_around_one_place(
    seed: int, max_days: float, min_overlap: float, aoi: shapely.Geometry | None
) -> None:
    scenes = random_scenes(25, 25, seed=seed, days=40, around=(10, 60, 3))
    wanted = brute_force(scenes, aoi, max_days, min_overlap)
    with nullcontext() if wanted else pytest.warns(DeepSentinelWarning, match="No pairs"):
        assert_same(pair(scenes, aoi=aoi, max_days=max_days, min_overlap=min_overlap), wanted, min_overlap)


@pytest.mark.parametrize("max_days", [3, 400])
def test_equals_two_plain_loops_around_the_world(max_days: float) -> None:
    # More than one run of Sentinel-2 scenes, so that what lies across the seam between two runs is seen too.
    scenes = random_scenes(120, 300, seed=1, days=20, around=(10, 60, 8))
    wanted = brute_force(scenes, None, max_days, 0.0)
    assert len(wanted) > 300
    assert_same(pair(scenes, max_days=max_days), wanted)


def test_a_random_subset_of_many_scenes_equals_brute_force() -> None:
    scenes = random_scenes(3000, 3000, seed=5, days=60)
    subset = set(np.random.default_rng(0).choice(scenes.loc[scenes.sensor == "S2", "id"], 150, replace=False))
    pairs = pair(scenes, max_days=30)
    wanted = brute_force(scenes[(scenes.sensor == "S1") | scenes["id"].isin(subset)], None, 30, 0.0)
    assert len(wanted) > 20
    assert_same(pairs[pairs["s2_id"].isin(subset)], wanted)


def test_geometry_is_what_both_cover_within_the_area() -> None:
    scenes = random_scenes(15, 15, seed=3, days=10, around=(10, 60, 1))
    aoi = shapely.Polygon([(9, 60), (11, 59), (10.4, 61.5)])
    ground = scenes.set_index("id").geometry
    pairs = pair(scenes, aoi=aoi)
    for row in pairs.itertuples():
        wanted = ground[row.s1_id].intersection(ground[row.s2_id]).intersection(aoi)
        assert row.geometry.symmetric_difference(wanted).area < 1e-9
        assert row.geometry.geom_type in ("Polygon", "MultiPolygon")
    assert pairs.crs.to_epsg() == 4326


def test_the_window_includes_its_end_and_the_sign_tells_who_came_later() -> None:
    scenes = table(
        scene("S2", "2018-05-04T10:00:00"),
        scene("S1-exactly-before", "2018-05-01T10:00:00"),
        scene("S1-exactly-after", "2018-05-07T10:00:00"),
        scene("S1-too-early", "2018-05-01T09:59:59.999"),
        scene("S1-too-late", "2018-05-07T10:00:00.001"),
    )
    assert dict(pair(scenes, max_days=3)[["s1_id", "gap_hours"]].to_numpy()) == {
        "S1-exactly-before": -72.0,
        "S1-exactly-after": 72.0,
    }


def test_a_longer_gap_only_adds_pairs() -> None:
    scenes = random_scenes(80, 80, seed=8, days=60, around=(0, 40, 2))
    sets = [set(as_dict(pair(scenes, max_days=days))) for days in (1, 2.5, 6)]
    assert sets[0] < sets[1] < sets[2]


def test_overlap_is_a_share_of_ground_not_of_degrees() -> None:
    aoi = shapely.box(10, 60, 11, 70)
    scenes = table(
        scene("S2", "2018-05-01", geometry=shapely.box(9, 59, 12, 71)),
        scene("S1", "2018-05-01", geometry=shapely.box(9, 59, 12, 65)),
    )
    sines = np.sin(np.radians([60, 65, 70]))
    assert pair(scenes, aoi=aoi)["overlap"][0] == pytest.approx((sines[1] - sines[0]) / (sines[2] - sines[0]), abs=1e-9)


def test_polygons_count_not_their_boxes() -> None:
    lower_left, upper_right = [(0, 0), (1, 0), (0, 1)], [(1, 1), (1, 0.1), (0.1, 1)]
    scenes = table(
        scene("S2", "2018-05-01", geometry=shapely.Polygon(lower_left)),
        scene("S1-beside", "2018-05-01", geometry=shapely.Polygon(upper_right)),
        scene("S1-touches", "2018-05-01", geometry=shapely.box(-1, -1, 0, 1)),
        scene("S1-meets", "2018-05-01", geometry=shapely.box(0, 0, 0.2, 0.2)),
    )
    assert list(pair(scenes)["s1_id"]) == ["S1-meets"]


@pytest.mark.parametrize("with_aoi", [False, True])
@pytest.mark.parametrize("written", ["cut at 180", "counting on", "jumping to -180"])
def test_footprints_across_180_degrees_pair_like_any_others(with_aoi: bool, written: str) -> None:
    def across(geometry: shapely.Geometry) -> shapely.Geometry:
        moved = translate(geometry, 180)
        if written == "counting on":
            return moved
        if written == "jumping to -180":
            return shapely.transform(moved, lambda c: np.stack([(c[:, 0] + 180) % 360 - 180, c[:, 1]], 1))
        west, east = shapely.box(-180, -90, 180, 90), shapely.box(180, -90, 540, 90)
        return shapely.union_all([moved.intersection(west), translate(moved.intersection(east), -360)])

    at_zero = random_scenes(12, 12, seed=2, days=10, around=(0.3, 65, 2))
    at_180 = at_zero.set_geometry([across(geometry) for geometry in at_zero.geometry], crs="EPSG:4326")
    # At the same latitude on the other side of the Earth: inside the box of a footprint that is cut at 180 degrees.
    elsewhere = table(scene("S1-elsewhere", "2018-01-05", geometry=shapely.box(5, 60, 30, 70)))
    at_180 = pd.concat([at_180, elsewhere])
    aoi = shapely.box(-0.5, 64.5, 0.6, 65.5) if with_aoi else None
    moved_aoi = shapely.MultiPolygon([shapely.box(179.5, 64.5, 180, 65.5), shapely.box(-180, 64.5, -179.4, 65.5)])
    here, there = pair(at_zero, aoi=aoi), pair(at_180, aoi=moved_aoi if with_aoi else None)
    assert len(there) == len(here) > 10
    here, there = as_dict(here), as_dict(there)
    assert here.keys() == there.keys()
    np.testing.assert_allclose([here[key] for key in here], [there[key] for key in here], atol=1e-9)


@pytest.mark.parametrize("best", ["all", "s2", "place"])
def test_order_of_rows_does_not_matter(best: str) -> None:
    scenes = random_scenes(60, 60, seed=4, days=30, around=(10, 60, 1))
    scenes["tile"] = np.where(scenes["sensor"] == "S2", "32V" + scenes["id"].str[-1], None)
    scenes["datatake"] = scenes["sensor"] + (scenes.index // 3).astype(str)
    for aoi in (None, shapely.box(9.8, 59.8, 10.2, 60.2)):
        wanted = pair(scenes, aoi=aoi, best=best)
        assert len(wanted)
        for seed in range(3):
            assert_frame_equal(pair(shuffled(scenes, seed), aoi=aoi, best=best), wanted)


def test_the_input_is_left_alone_and_scenes_listed_twice_count_once() -> None:
    scenes = random_scenes(30, 30, seed=6, days=10, around=(10, 60, 1))
    before = scenes.copy(deep=True)
    once = pair(scenes)
    assert_frame_equal(scenes, before)
    assert_frame_equal(pair(pd.concat([scenes, scenes])), once)


# ---- repetitions ----


def granule(version: str, baseline: str | None, **known: object) -> dict:
    id = f"S2A_MSIL2A_20180501T105031_R051_T31UCQ_{version}"
    datatake = f"GS2A_20180501T105031_014920_N{baseline or '02.06'}"
    known = {"platform": "sentinel-2a", "tile": "31UCQ", "datatake": datatake, "baseline": baseline, **known}
    return scene(id, "2018-05-01T10:50:31", **known)


def test_of_two_processings_the_higher_baseline_stays_then_the_newer() -> None:
    radar = scene("S1", "2018-05-01T06:00")
    old, new = granule("20201006T080531", "05.09"), granule("20180501T150000", "05.10")
    newer = granule("20240101T000000", "05.10")
    without = granule("20250101T000000", None)
    for aoi in (None, SQUARE):
        assert list(pair(table(old, new, radar), aoi=aoi)["s2_id"]) == [new["id"]]
        assert list(pair(table(newer, without, new, old, radar), aoi=aoi)["s2_id"]) == [newer["id"]]


def test_what_is_no_repetition_stays() -> None:
    radar = scene("S1", "2018-05-01T06:00")
    other_tile = granule("20200101T000000", "05.00", tile="30UYV")
    other_level = granule("20200101T000001", "05.00", level="L1C")
    other_satellite = granule("20200101T000002", "05.00", platform="sentinel-2b")
    one = granule("20200101T000003", "05.00")
    assert len(pair(table(radar, one, other_tile, other_level, other_satellite))) == 4


def test_a_datastrip_split_in_two_is_no_repetition() -> None:
    radar = scene("S1", "2018-05-01T06:00")
    north = granule("20200101T000000", "05.00", geometry=shapely.box(0, 49.4, 1, 50))
    south = granule("20200101T000001", "05.00", geometry=shapely.box(0, 49, 1, 49.5))
    assert set(pair(table(radar, north, south))["s2_id"]) == {north["id"], south["id"]}
    # Within an area one of the two has to do: the one that shows more of it.
    assert list(pair(table(radar, north, south), aoi=shapely.box(0.2, 49.1, 0.8, 49.5))["s2_id"]) == [south["id"]]


def test_of_one_datatake_the_granule_that_covers_the_area_best_stays() -> None:
    radar = scene("S1", "2018-05-01T06:00", geometry=shapely.box(-3, 48, 3, 51))
    west = granule("20200101T000000", "05.00", tile="30UYV", geometry=shapely.box(-1, 49, 0.2, 50))
    east = granule("20200101T000001", "05.00", tile="31UCQ", geometry=shapely.box(-0.1, 49, 1, 50))
    scenes = table(radar, west, east)
    assert list(pair(scenes, aoi=shapely.box(-0.5, 49.2, 0.1, 49.4))["s2_id"]) == [west["id"]]
    assert list(pair(scenes, aoi=shapely.box(0.15, 49.2, 0.5, 49.4))["s2_id"]) == [east["id"]]
    assert len(pair(scenes)) == 2
    # Both cover these two wholly; the area lies in UTM zone 30, then 31.
    assert list(pair(scenes, aoi=shapely.box(-0.08, 49.2, -0.01, 49.4))["s2_id"]) == [west["id"]]
    assert list(pair(scenes, aoi=shapely.box(0.01, 49.2, 0.18, 49.4))["s2_id"]) == [east["id"]]


@pytest.mark.parametrize("datatake", ["12345", None])
def test_of_one_radar_pass_the_frame_that_shares_most_of_the_area_stays(datatake: str | None) -> None:
    track = {"platform": "sentinel-1a", "relative_orbit": 30, "datatake": datatake}
    optical = scene("S2", "2018-05-01T10:00", geometry=SQUARE)
    first = scene("S1-first", "2018-05-01T06:00:00", geometry=shapely.box(-1, 49.4, 2, 51), **track)
    second = scene("S1-second", "2018-05-01T06:00:25", geometry=shapely.box(-1, 48, 2, 49.5), **track)
    later = scene("S1-later", "2018-05-03T06:00:00", geometry=shapely.box(-1, 48, 2, 51), **{**track, "datatake": "67"})
    scenes = table(optical, first, second, later)
    assert set(pair(scenes, aoi=SQUARE)["s1_id"]) == {"S1-first", "S1-later"}
    assert set(pair(scenes)["s1_id"]) == {"S1-first", "S1-second", "S1-later"}
    # The second frame came 25 s closer in time, and shares less.
    assert list(pair(scenes, best="s2")["s1_id"]) == ["S1-first"]


# ---- choices ----


def test_best_s2_is_the_nearest_pass_of_each_scene() -> None:
    scenes = random_scenes(80, 40, seed=11, days=40, around=(10, 60, 1.5))
    every, nearest = pair(scenes), pair(scenes, best="s2")
    assert nearest["s2_id"].is_unique
    gaps = every.assign(gap=every["gap_hours"].abs()).groupby("s2_id")["gap"].min()
    assert gaps.to_dict() == dict(zip(nearest["s2_id"], nearest["gap_hours"].abs(), strict=True))


def test_pairs_come_best_first_and_the_best_of_a_place_is_the_first() -> None:
    scenes = random_scenes(80, 40, seed=12, days=40, around=(10, 60, 1))
    scenes.loc[scenes.index[-3:], "cloud_cover"] = np.nan
    scenes["tile"] = np.where(scenes["sensor"] == "S2", "32V" + scenes["id"].str[-1], None)
    aoi = shapely.box(9.9, 59.9, 10.3, 60.3)
    pairs = pair(scenes, aoi=aoi)
    clear = 1 - pairs["cloud_cover"].fillna(50) / 100
    worth = pairs["overlap"] * clear / 2 ** (pairs["gap_hours"].abs() / 72)
    assert (np.diff(worth) <= 1e-8).all()
    assert_frame_equal(pair(scenes, aoi=aoi, best="place"), pairs.head(1))
    every, by_tile = pair(scenes), pair(scenes, best="place")
    assert sorted(by_tile["tile"]) == sorted(every["tile"].unique())
    assert_frame_equal(by_tile, every.drop_duplicates("tile").reset_index(drop=True))


# ---- nothing there, or not usable ----


def test_no_pairs_is_an_empty_table_whose_hint_works() -> None:
    scenes = table(scene("S2", "2018-05-01T00:00"), scene("S1", "2018-05-06T06:00"))
    with pytest.warns(DeepSentinelWarning, match=r"within 3 days; the nearest two are 5\.25 days apart.*max_days=5\.3"):
        empty = pair(scenes, max_days=3)
    assert list(empty.columns) == list(PAIR_COLUMNS)
    assert len(empty) == 0
    assert empty.crs.to_epsg() == 4326
    assert "max_days=5.3" in empty.attrs["hint"]
    full = pair(scenes, max_days=5.3)
    assert len(full) == 1
    assert {name: str(dtype) for name, dtype in empty.dtypes.items() if name.endswith(("time", "hours", "lap"))} == {
        name: str(dtype) for name, dtype in full.dtypes.items() if name.endswith(("time", "hours", "lap"))
    }


def test_no_pairs_says_which_sensor_misses_the_area_or_the_other() -> None:
    scenes = table(scene("S2", "2018-05-01"), scene("S1", "2018-05-01", geometry=shapely.box(2, 49, 3, 50)))
    with pytest.warns(DeepSentinelWarning, match="none of the Sentinel-1 scenes touches the area"):
        pair(scenes, aoi=SQUARE)
    with pytest.warns(DeepSentinelWarning, match="no Sentinel-1 scene shares any ground"):
        pair(scenes)


@pytest.mark.parametrize(("there", "absent"), [("S1", "Sentinel-2"), ("S2", "Sentinel-1")])
def test_a_sensor_that_is_absent_is_named_with_what_was_searched(there: str, absent: str) -> None:
    for verb in (pair, match_rate):
        with pytest.raises(
            NothingFoundError, match=rf"no {absent} scene.*searched: S1 and S2 over a test area.*longer"
        ):
            verb(table(scene(there, "2018-05-01")))


def test_tables_that_cannot_be_used_say_why() -> None:
    good = table(scene("S2", "2018-05-01"), scene("S1", "2018-05-01"))
    with pytest.raises(InputError, match="no column cloud_cover, datatake"):
        pair(good.drop(columns=["datatake", "cloud_cover"]))
    with pytest.raises(InputError, match=r"without a time zone.*utc=True"):
        pair(good.assign(time=good["time"].dt.tz_localize(None)))
    with pytest.raises(InputError, match="1 scenes have no time"):
        pair(good.assign(time=[pd.NaT, good["time"][1]]))
    with pytest.raises(InputError, match="no CRS"):
        pair(good.set_crs(None, allow_override=True))
    with pytest.raises(InputError, match="sensor S3"):
        pair(good.assign(sensor=["S3", "S1"]))
    with pytest.raises(InputError, match="DataFrame, not a GeoDataFrame"):
        pair(pd.DataFrame(good))


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_days": -1},
        {"max_days": np.nan},
        {"max_days": "3"},
        {"min_overlap": 1.5},
        {"best": "s1"},
        {"best": "place"},
    ],
)
def test_arguments_that_cannot_be_used_are_named(wrong: dict) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        pair(table(scene("S2", "2018-05-01"), scene("S1", "2018-05-01")), **wrong)


def test_an_unknown_keyword_is_refused() -> None:
    with pytest.raises(TypeError, match="max_day"):
        pair(table(scene("S2", "2018-05-01"), scene("S1", "2018-05-01")), max_day=3)


def test_other_time_zones_and_other_crs_give_the_same_pairs() -> None:
    scenes = random_scenes(30, 30, seed=9, days=10, around=(10, 60, 1))
    other = scenes.assign(time=scenes["time"].dt.tz_convert("Asia/Tokyo")).to_crs("EPSG:32632")
    here, there = as_dict(pair(scenes)), as_dict(pair(other))
    assert here.keys() == there.keys()
    np.testing.assert_allclose([here[key] for key in here], [there[key] for key in here], atol=1e-6)


def test_a_footprint_that_crosses_itself_is_repaired() -> None:
    bow_tie = shapely.Polygon([(0, 49), (1, 50), (1, 49), (0, 50)])
    scenes = table(scene("S2", "2018-05-01", geometry=bow_tie), scene("S1", "2018-05-01"))
    assert pair(scenes, aoi=SQUARE)["overlap"][0] == pytest.approx(0.5, abs=0.01)


# ---- the match rate ----


@pytest.mark.parametrize("aoi", [None, shapely.box(9.8, 59.8, 10.3, 60.3)])
def test_the_match_rate_counts_what_pair_finds(aoi: shapely.Geometry | None) -> None:
    scenes = random_scenes(25, 60, seed=13, days=120, around=(10, 60, 1))
    rate = match_rate(scenes, aoi=aoi, max_days=3)
    assert rate.matched == len(pair(scenes, aoi=aoi, max_days=3, best="s2"))
    touching = scenes[(scenes["sensor"] == "S2") & (True if aoi is None else scenes.intersects(aoi))]
    assert rate.dates == len(touching)
    assert 0 < rate.matched < rate.dates
    assert rate.share == rate.matched / rate.dates
    assert list(rate.by_days.index) == [0.5, 1, 2, 3]
    for days, matched in rate.by_days["matched"].items():
        assert matched == match_rate(scenes, aoi=aoi, max_days=days).matched
    assert rate.by_month[["dates", "matched"]].sum().to_list() == [rate.dates, rate.matched]
    months = touching["time"].dt.strftime("%Y-%m").value_counts()
    assert rate.by_month["dates"].to_dict() == months.to_dict()


def test_the_match_rate_counts_an_acquisition_once() -> None:
    radar = scene("S1", "2018-05-01T06:00", geometry=shapely.box(-3, 48, 3, 51))
    rows = [granule(f"2020010{n}T000000", "05.00", tile=tile) for n, tile in enumerate(("30UYV", "31UCQ"), 1)]
    lonely = scene("S2-lonely", "2018-07-01")
    rate = match_rate(table(radar, *rows, lonely), aoi=SQUARE)
    assert (rate.dates, rate.matched) == (2, 1)
    assert "1 of 2 Sentinel-2 dates (50%) have a Sentinel-1 partner within 3 days" in repr(rate)
    assert "2018-05  # 1/1" in repr(rate)
    assert "2018-07  . 0/1" in repr(rate)


def test_the_match_rate_of_nothing_is_nought() -> None:
    scenes = table(scene("S2", "2018-05-01", geometry=shapely.box(2, 49, 3, 50)), scene("S1", "2018-05-01"))
    rate = match_rate(scenes, aoi=SQUARE)
    assert (rate.dates, rate.matched, rate.share) == (0, 0, 0.0)
    assert "0 of 0" in repr(rate)


# ---- the measure of area ----


def test_area_on_the_sphere_agrees_with_an_equal_area_map_and_is_additive() -> None:
    scenes = random_scenes(20, 20, seed=14, days=1)
    shapes = [*scenes.geometry, shapely.box(0, 0, 3, 80).difference(shapely.box(1, 20, 2, 60))]
    np.testing.assert_allclose(spherical_area(np.array(shapes)), [equal_area(shape) for shape in shapes], rtol=1e-5)
    whole = shapely.Polygon([(0, 40), (10, 41), (9, 60), (-2, 55)])
    halves = shapely.get_parts(shapely.ops.split(whole, shapely.LineString([(-5, 44), (20, 58)])))
    assert spherical_area(halves).sum() == pytest.approx(spherical_area(np.array([whole]))[0], rel=1e-12)
    everything = np.array([shapely.box(-180, -90, 180, 90), shapely.Polygon(), shapely.LineString([(0, 0), (1, 1)])])
    np.testing.assert_allclose(spherical_area(everything), [4 * np.pi, 0, 0])


@pytest.mark.long
@pytest.mark.parametrize("around", [None, (10.0, 60.0, 0.3)])
def test_twenty_thousand_of_each_take_seconds(around: tuple[float, float, float] | None) -> None:
    from time import perf_counter

    scenes = random_scenes(20_000, 20_000, seed=0, days=730 if around is None else 3650, around=around)
    start = perf_counter()
    pairs = pair(scenes, max_days=3, aoi=None if around is None else shapely.box(9.9, 59.9, 10.1, 60.1))
    seconds = perf_counter() - start
    assert len(pairs) > 500
    assert seconds < 20, f"{seconds:.1f} s; 10 s are promised on a machine with nothing else to do"


@pytest.mark.parametrize("crs", ["EPSG:32630", "EPSG:32631"])
def test_of_two_frames_of_a_pass_the_one_on_the_granules_own_grid_is_taken(crs: str) -> None:
    # Any other would have to be resampled, which smooths the speckle.
    frames = [
        scene(f"S1_{zone}", "2020-01-01T06:00:00", platform="sentinel-1a", relative_orbit=8, crs=f"EPSG:326{zone}")
        for zone in (30, 31)
    ]
    optical = scene("S2_one", "2020-01-01T11:00:00", platform="sentinel-2a", crs=crs)
    pairs = pair(table(*frames, optical), aoi=(0.2, 49.2, 0.4, 49.4))
    assert list(pairs["s1_id"]) == [f"S1_{crs[-2:]}"]
