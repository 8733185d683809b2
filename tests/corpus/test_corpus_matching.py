"""Matches of points and scenes: against a plain loop over both, and one property a test."""

from __future__ import annotations

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
from year_kit import made_up_year, plain_matches

from deepsentinel.corpus.matching import COLUMNS, match_points, scenes_at
from deepsentinel.errors import DeepSentinelWarning, InputError, NothingFoundError
from deepsentinel.land import cover, sample_land, spread_dates
from deepsentinel.pairing import pair


def at(*places: tuple[float, float]) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(geometry=gpd.points_from_xy(*zip(*places, strict=True)), crs="EPSG:4326")


def scattered(n: int, seed: int, around: tuple[float, float, float]) -> gpd.GeoDataFrame:
    rng = np.random.default_rng(seed)
    lon = (around[0] + rng.uniform(-around[2], around[2], n) + 180) % 360 - 180
    return at(*zip(lon, np.clip(around[1] + rng.uniform(-around[2], around[2], n), -90, 90), strict=True))


def shaken(scenes: gpd.GeoDataFrame, kind: str, seed: int) -> gpd.GeoDataFrame:
    """Footprints as some catalogs have them: bent inwards, with holes, of many corners, or in several parts."""
    rng = np.random.default_rng(seed)
    shapes = scenes.geometry.to_numpy().copy()
    for row in range(0, len(shapes), 3):
        west, south, east, north = shapes[row].bounds
        bite = shapely.box(west + (east - west) * rng.uniform(0.2, 0.6), south, east, south + (north - south) * 0.4)
        shapes[row] = {
            "bent": lambda s=shapes[row], b=bite: s.difference(b),
            "round": lambda s=shapes[row]: s.buffer(0.3, quad_segs=6),
            "holed": lambda s=shapes[row]: s.difference(s.centroid.buffer(0.2, quad_segs=2)),
            "split": lambda s=shapes[row]: s.union(translate(s, 0, 3)),
        }[kind]()
    return scenes.set_geometry(gpd.GeoSeries(shapes, index=scenes.index, crs=scenes.crs))


def found(matches: pd.DataFrame) -> set[tuple[int, str, str]]:
    return set(zip(matches["point"], matches["s1_id"], matches["s2_id"], strict=True))


def covering(*rows: dict[str, object]) -> gpd.GeoDataFrame:
    """A table of scenes that all hold the point (0.5, 49.5)."""
    return table(*rows)


HERE = at((0.5, 49.5))


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from([(10.0, 60.0, 2.0), (180.0, -17.0, 2.0), (-179.5, 70.0, 3.0), (0.0, 0.0, 2.0)]),
    st.sampled_from([None, "bent", "round", "holed", "split"]),
    st.sampled_from([0.25, 3.0]),
)
def test_matches_are_those_of_a_plain_loop(seed, around, kind, max_days):
    scenes = random_scenes(40, 40, seed=seed, days=12, around=around)
    scenes = shaken(scenes, kind, seed) if kind else scenes
    points = scattered(60, seed, around)
    plain = plain_matches(points, scenes, max_days)
    if not plain:
        return
    assert found(match_points(points, scenes, max_days=max_days, choose="all")) == plain
    for choose in ("best", "random"):
        one = match_points(points, scenes, max_days=max_days, choose=choose)
        assert found(one) <= plain
        assert one["point"].tolist() == sorted({number for number, _, _ in plain})


def test_a_year_of_scenes_all_over_the_world_matches_like_a_plain_loop():
    scenes = made_up_year(4000, 8000, seed=1, days=60)
    points = sample_land(600, scenes[scenes["sensor"] == "S2"], seed=1)
    matches = match_points(points, scenes, choose="all")
    assert found(matches) == plain_matches(points, scenes, 3)
    assert len(matches) > 100


def test_the_best_is_what_pair_puts_first_at_that_place():
    scenes = random_scenes(60, 60, seed=4, days=10, around=(10.0, 60.0, 1.0))
    points = scattered(12, 4, (10.0, 60.0, 0.5))
    best = match_points(points, scenes, max_days=2).set_index("point")
    pairs = pair(scenes, max_days=2)
    for number, point in enumerate(points.geometry):
        # Both hold all of the point, so that clouds and time decide.
        held = pairs[shapely.contains_xy(pairs.geometry.to_numpy(), point.x, point.y)]
        worth = (1 - held["cloud_cover"] / 100) * 0.5 ** (held["gap_hours"].abs() / 72)
        assert (number in best.index) == (len(held) > 0)
        if len(held):
            mine = best.loc[number]
            assert (1 - mine["cloud_cover"] / 100) * 0.5 ** (abs(mine["gap_hours"]) / 72) == pytest.approx(worth.max())


def test_the_order_of_scenes_and_points_does_not_matter():
    scenes = random_scenes(80, 80, seed=5, days=10, around=(179.9, 60.0, 1.5))
    points = scattered(80, 5, (179.9, 60.0, 1.5))
    order = np.random.default_rng(0).permutation(len(points))
    for options in ({}, {"choose": "random", "seed": 3}, {"choose": "all"}, {"per_place": 3}):
        here = match_points(points, scenes, **options)
        there = match_points(points.iloc[order], shuffled(scenes, 1), **options)
        there["point"] = order[there["point"]]
        there = there.sort_values("point", kind="stable", ignore_index=True)
        assert len(here) > 10
        assert_frame_equal(here, there)


def test_random_takes_all_matches_alike_and_another_seed_takes_others():
    scenes = covering(
        scene("S1_a", "2018-05-01"), scene("S1_b", "2018-05-02"), scene("S2_a", "2018-05-01"),
        scene("S2_b", "2018-05-02", cloud_cover=90.0),
    )  # fmt: skip
    points = scattered(4000, 0, (0.5, 49.5, 0.4))
    drawn = match_points(points, scenes, choose="random", seed=1)
    counts = drawn.groupby(["s1_id", "s2_id"]).size()
    assert len(counts) == 4
    assert (abs(counts - 1000) < 5 * np.sqrt(1000 * 0.75)).all()
    other = match_points(points, scenes, choose="random", seed=2)
    assert 0.6 < (drawn["s1_id"] + drawn["s2_id"] != other["s1_id"] + other["s2_id"]).mean() < 0.9


def test_clear_sky_and_closeness_decide_and_then_the_earlier():
    two = [scene("S1_a", "2018-05-01T06:00"), scene("S2_a", "2018-05-01T10:00", cloud_cover=60.0)]
    later = [scene("S1_b", "2018-05-21T06:00"), scene("S2_b", "2018-05-21T10:00", cloud_cover=10.0)]
    assert match_points(HERE, covering(*two, *later))["s2_id"].tolist() == ["S2_b"]
    even = [scene("S1_b", "2018-05-21T06:00"), scene("S2_b", "2018-05-21T10:00", cloud_cover=60.0)]
    assert match_points(HERE, covering(*even, *two))["s2_id"].tolist() == ["S2_a"]


def test_the_longest_gap_and_the_most_cloud_are_included_and_unknown_cloud_is_half():
    scenes = covering(
        scene("S1_a", "2018-05-01T00:00"), scene("S2_a", "2018-05-04T00:00", cloud_cover=40.0),
        scene("S2_b", "2018-05-04T00:00:01", cloud_cover=0.0), scene("S2_c", "2018-05-02", cloud_cover=np.nan),
    )  # fmt: skip
    names = lambda **options: set(match_points(HERE, scenes, choose="all", **options)["s2_id"])  # noqa: E731
    assert names(max_days=3) == {"S2_a", "S2_c"}
    assert names(max_days=3, max_cloud=40) == {"S2_a"}
    assert names(max_days=3, max_cloud=50) == {"S2_a", "S2_c"}
    matches = match_points(HERE, scenes, choose="all")
    assert matches["gap_hours"].tolist() == [-24.0, -72.0] or matches["gap_hours"].tolist() == [-72.0, -24.0]


def test_several_of_a_place_are_of_several_passes():
    rows = [scene(f"S1_{k}", f"2018-05-0{k}") for k in (1, 2, 3)]
    rows += [
        scene(f"S2_{k}{n}", f"2018-05-0{k}T10", datatake=f"T{k}", platform="s2a", tile=f"31UD{n}")
        for k in (1, 2, 3)
        for n in "QR"
    ]
    matches = match_points(HERE, covering(*rows), per_place=5)
    assert [name[:4] for name in matches["s2_id"]] == ["S2_1", "S2_2", "S2_3"]
    assert len(match_points(HERE, covering(*rows), per_place=2)) == 2
    assert len(match_points(HERE, covering(*rows), choose="all")) == 18


def test_a_date_takes_the_pair_nearest_to_it():
    rows = [scene(f"S1_{k}", f"2018-0{k}-10T06") for k in range(1, 10)]
    rows += [scene(f"S2_{k}", f"2018-0{k}-10T10", cloud_cover=10.0 * k) for k in range(1, 10)]
    points = at(*[(0.5, 49.5)] * 3)
    matches = match_points(points, covering(*rows), dates=["2018-03-01", "2018-06-24T00:30", "2018-09-30"])
    assert matches["s2_id"].tolist() == ["S2_3", "S2_6", "S2_9"]
    # A day is its noon, and the pair of its afternoon nearer than that of the evening before.
    two = [scene("S1_a", "2018-03-09T22"), scene("S2_a", "2018-03-09T22")]
    two += [scene("S1_b", "2018-03-10T16"), scene("S2_b", "2018-03-10T16", cloud_cover=80.0)]
    assert match_points(HERE, covering(*two), dates=["2018-03-10"])["s2_id"].tolist() == ["S2_b"]
    dates = spread_dates(3, "2018-01-01", "2018-12-31")
    assert len(match_points(points, covering(*rows), dates=dates)) == 3
    with pytest.raises(InputError, match="2 dates for 3 points"):
        match_points(points, covering(*rows), dates=["2018-03-01", "2018-03-01"])
    with pytest.raises(InputError, match="cannot be read as dates"):
        match_points(points, covering(*rows), dates=["soon", "later", "never"])


def test_of_reprocessed_products_only_the_newest_is_matched():
    same = {"datatake": "GS2A_20180501T100601_014921_N02.07", "platform": "sentinel-2a", "tile": "31UDQ"}
    rows = [
        scene("S1_a", "2018-05-01"),
        scene("S2_old", "2018-05-01T10", baseline="02.07", **same),
        scene("S2_new", "2018-05-01T10", baseline="05.00", **same),
    ]
    assert match_points(HERE, covering(*rows), choose="all")["s2_id"].tolist() == ["S2_new"]


@pytest.mark.parametrize(("lon", "lat"), [(3.2, 50.0), (179.99, -17.0), (-179.999, 65.0), (20.0, 83.99), (40.0, 86.0)])
def test_the_whole_window_must_be_held(lon, lat):
    """A footprint that is cut half a window from the point, and a metre more or less."""
    from pyproj import Geod

    geod, size_m = Geod(ellps="WGS84"), 5120
    results = []
    for reach_m in (0.70 * size_m, 0.75 * size_m, 0.2 * size_m):
        ring = [geod.fwd(lon, lat, bearing, reach_m)[:2] for bearing in range(0, 360, 5)]
        disc = shapely.Polygon(ring)
        scenes = table(scene("S1_a", "2018-05-01", geometry=disc), scene("S2_a", "2018-05-01", geometry=disc))
        # Half a diagonal is 0.707 of a side.
        with_warning = reach_m < 0.707 * size_m
        if with_warning:
            with pytest.warns(DeepSentinelWarning, match="No match"):
                results.append(len(match_points(at((lon, lat)), scenes, size_m=size_m)))
        else:
            results.append(len(match_points(at((lon, lat)), scenes, size_m=size_m)))
        assert len(match_points(at((lon, lat)), scenes)) == 1
    assert results == [0, 1, 0]


def test_windows_match_as_the_points_in_their_middle_with_that_size():
    area = (179.9, 60.0, -179.9, 60.1)
    windows = cover(area, size_px=256)
    scenes = random_scenes(30, 30, seed=2, days=6, around=(180.0, 60.0, 1.0))
    middles = gpd.GeoDataFrame(geometry=gpd.points_from_xy(windows["lon"], windows["lat"]), crs="EPSG:4326")
    by_window = match_points(windows, scenes, choose="all")
    by_point = match_points(middles, scenes, choose="all", size_m=2560)
    mixed = windows.geom_type.eq("MultiPolygon").to_numpy()
    assert mixed.any()
    assert not mixed.all()
    # A window lies in the zone of the lattice, which beyond 180 is the neighbour's: a few on the edge may differ.
    one, other = found(by_window), found(by_point)
    assert len(one ^ other) <= 0.02 * len(one | other)
    assert len(one) > 100


def test_near_the_pole_a_scene_around_it_holds_the_points():
    ring = [(lon, 85.0) for lon in (-170, -90, -10, 70, 150)]
    polar = shapely.Polygon(ring)
    scenes = table(scene("S1_a", "2018-05-01", geometry=polar), scene("S2_a", "2018-05-01", geometry=polar))
    matches = match_points(at((0, 90), (50, 88), (-179.9, 87), (180, 87), (20, 80)), scenes, size_m=2560)
    assert matches["point"].tolist() == [0, 1, 2, 3]


def test_the_table_has_what_a_plan_needs():
    scenes = made_up_year(300, 600, seed=3, days=30)
    matches = match_points(sample_land(2000, seed=3), scenes, max_days=5)
    assert tuple(matches.columns) == COLUMNS
    assert len(matches) + matches.attrs["unmatched"] == 2000
    assert matches["crs"].str.match(r"EPSG:32[67]\d\d").all()
    assert (matches["gap_hours"].abs() <= 120).all()
    assert str(matches["s1_time"].dtype) == str(matches["s2_time"].dtype) == "datetime64[ns, UTC]"
    own = scenes.set_index("id")
    for name in ("cloud_cover", "tile", "crs"):
        assert matches[name].tolist() == own.loc[matches["s2_id"], name].tolist()
    assert matches["orbit"].tolist() == own.loc[matches["s1_id"], "orbit"].tolist()


def test_all_scenes_of_a_place_are_those_whose_footprint_holds_it():
    scenes = random_scenes(30, 30, seed=8, days=6, around=(180.0, 0.0, 1.0))
    points = scattered(20, 8, (180.0, 0.0, 1.0))
    listed = scenes_at(points, scenes)
    from deepsentinel.footprints import check_scenes

    clean = check_scenes(scenes)
    plain = {(k, row.id) for k, p in enumerate(points.geometry) for row in clean[clean.intersects(p)].itertuples()}
    assert set(zip(listed["point"], listed["id"], strict=True)) == plain
    assert listed.sort_values(["point", "sensor", "time", "id"], kind="stable").index.tolist() == list(
        range(len(listed))
    )


def test_no_points_give_an_empty_table_and_no_matches_say_why():
    scenes = covering(scene("S1_a", "2018-05-01"), scene("S2_a", "2018-05-01"))
    empty = match_points(HERE.iloc[:0], scenes)
    assert tuple(empty.columns) == COLUMNS
    assert empty.empty
    with pytest.warns(DeepSentinelWarning, match="none of the 1 places lies in"):
        away = match_points(at((100.0, 10.0)), scenes)
    assert away.empty
    assert away.attrs["unmatched"] == 1
    assert "search where the places are" in away.attrs["hint"]


def test_what_cannot_be_matched_is_said():
    scenes = covering(scene("S1_a", "2018-05-01"), scene("S2_a", "2018-05-01"))
    with pytest.raises(NothingFoundError, match="no Sentinel-1 scene"):
        match_points(HERE, covering(scene("S2_a", "2018-05-01")))
    with pytest.raises(InputError, match="points is a list"):
        match_points([(0.5, 49.5)], scenes)
    with pytest.raises(InputError, match="no CRS"):
        match_points(HERE.set_crs(None, allow_override=True), scenes)
    with pytest.raises(InputError, match="Windows have a size of their own"):
        match_points(cover((0.4, 49.4, 0.6, 49.6)), scenes, size_m=100)
    with pytest.raises(InputError, match="other shapes"):
        match_points(gpd.GeoDataFrame(geometry=[shapely.LineString([(0, 0), (1, 1)])], crs="EPSG:4326"), scenes)
    with pytest.raises(InputError, match="no place on Earth"):
        match_points(at((500_000.0, 5_000_000.0)), scenes)
    with pytest.raises(InputError, match="row 1"):
        match_points(gpd.GeoDataFrame(geometry=[shapely.Point(0, 0), None], crs="EPSG:4326"), scenes)
    for wrong in (
        {"choose": "nearest"},
        {"max_days": -1},
        {"per_place": 0},
        {"seed": -1},
        {"size_m": -5},
        {"max_cloud": 101},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            match_points(HERE, scenes, **wrong)
    with pytest.raises(InputError, match="dates= says"):
        match_points(HERE, scenes, choose="random", dates=["2018-05-01"])
    with pytest.raises(TypeError):
        match_points(HERE, scenes, max_gap=3)


def test_projected_points_are_taken_where_they_lie():
    scenes = random_scenes(40, 40, seed=5, days=5, around=(10.0, 60.0, 1.0))
    points = scattered(40, 5, (10.0, 60.0, 0.5))
    assert found(match_points(points, scenes)) == found(match_points(points.to_crs("EPSG:32632"), scenes))
