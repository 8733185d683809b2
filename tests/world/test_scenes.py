"""The list of acquisitions: right orbits, a believable sky, and one weather for both sensors."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter

import numpy as np
import pytest
from shapely.geometry import Polygon

from deepsentinel.world.grid import TILES
from deepsentinel.world.ground import transformer
from deepsentinel.world.scenes import scene_by_id, scenes, sun_position
from deepsentinel.world.weather import FIRST_DAY, LAST_DAY, weather_at

ALL = scenes(0, 512)
S2 = [s for s in ALL if s.sensor == "S2"]
S1 = [s for s in ALL if s.sensor == "S1"]


def test_ids_are_unique_and_lead_back_to_the_same_scene() -> None:
    assert len({s.id for s in ALL}) == len(ALL)
    for scene in ALL[::97]:
        assert scene_by_id(0, 512, scene.id) == scene
    with pytest.raises(KeyError, match="no item 'S2A_nothing'"):
        scene_by_id(0, 512, "S2A_nothing")


def test_sentinel_2_comes_every_five_days_as_two_granules_of_one_datatake() -> None:
    dates = sorted({s.time.date() for s in S2})
    assert {(b - a).days for a, b in itertools.pairwise(dates)} == {5}
    assert dates[0] < FIRST_DAY + dt.timedelta(days=5)
    assert dates[-1] > LAST_DAY - dt.timedelta(days=5)
    for _, members in Counter((s.datatake, s.time, s.platform) for s in S2).items():
        assert members == 2
    platforms = [s.platform for s in S2 if s.tile == "30UYV"]
    assert all(a != b for a, b in itertools.pairwise(platforms))


@pytest.mark.parametrize(("orbit", "hour"), [("ascending", 17), ("descending", 6)])
def test_sentinel_1_comes_every_six_days_in_each_direction(orbit: str, hour: int) -> None:
    passes = [s for s in S1 if s.orbit == orbit and s.tile == "31UCQ"]
    dates = [s.time.date() for s in passes]
    assert {(b - a).days for a, b in itertools.pairwise(dates)} == {6}
    assert {s.time.hour for s in passes} == {hour}
    for scene in passes:
        # The relation that holds for the real satellites.
        offset = 73 if scene.platform == "SENTINEL-1A" else 27
        assert (scene.absolute_orbit - offset) % 175 + 1 == scene.relative_orbit


def test_half_was_reprocessed_and_the_date_does_not_tell() -> None:
    new = np.array([s.baseline == "05.00" for s in S2])
    assert 0.35 < new.mean() < 0.65
    assert {s.offset_dn for s in S2 if s.baseline == "05.00"} == {1000}
    assert {s.offset_dn for s in S2 if s.baseline != "05.00"} == {0}
    middle = np.median([s.time.timestamp() for s in S2])
    early = np.array([s.time.timestamp() < middle for s in S2])
    assert 0.3 < new[early].mean() < 0.7
    assert 0.3 < new[~early].mean() < 0.7


def test_the_sky_is_that_of_north_west_europe() -> None:
    cover = np.concatenate([[s.cloud_cover for s in scenes(seed, 256) if s.sensor == "S2"] for seed in range(6)])
    assert 48 < cover.mean() < 62
    assert 0.26 < (cover < 20).mean() < 0.40
    assert 0.28 < (cover > 80).mean() < 0.45


def test_rain_wets_the_soil_and_both_sensors_see_one_weather() -> None:
    days = [dt.datetime(2018, 1, 1, 12) + dt.timedelta(days=k) for k in range(700)]
    series = [weather_at(3, day) for day in days]
    rain, soil = np.array([w.rain_mm for w in series]), np.array([w.soil_moisture for w in series])
    rise = np.diff(soil)
    assert rise[rain[1:] > 12].mean() > 0.1
    assert rise[rain[1:] == 0].max() <= 0
    cloud = np.array([w.cloud for w in series])
    assert cloud[rain > 5].mean() > 0.8 > cloud[rain == 0].mean()
    summer = np.array([day.month in (6, 7, 8) for day in days])
    winter = np.array([day.month in (12, 1, 2) for day in days])
    assert soil[summer].mean() < soil[winter].mean() - 0.1
    by_date = {s.time.date(): s.weather.soil_moisture for s in S1}
    shared = [(s.weather.soil_moisture, by_date[s.time.date()]) for s in S2 if s.time.date() in by_date]
    assert shared
    assert all(a == b for a, b in shared)


def test_the_sun_stands_where_almanacs_put_it() -> None:
    # Greenwich meridian, 49.25 N: noon heights are 90 - latitude + declination.
    for when, azimuth, elevation in (
        (dt.datetime(2018, 6, 21, 12, 2), 180, 64.19),
        (dt.datetime(2018, 12, 21, 11, 58), 180, 17.31),
        (dt.datetime(2018, 3, 20, 12, 7), 180, 40.75),
    ):
        a, e = sun_position(when)
        assert abs(a - azimuth) < 1
        assert abs(e - elevation) < 0.6
    morning, _ = sun_position(dt.datetime(2018, 6, 21, 10, 56))
    assert 130 < morning < 165


def test_the_swath_edge_wanders_over_the_eastern_tile_and_the_footprint_says_so() -> None:
    for tile in TILES:
        shares = np.array([s.nodata_share for s in S2 if s.tile == tile])
        assert (
            (shares.max() == 0)
            if tile == "30UYV"
            else (shares.min() > 0.02 and shares.max() < 0.6 and shares.std() > 0.02)
        )
    for scene in S2[:20]:
        crs = str(scene.geobox.crs)
        lon, lat = zip(*scene.footprint, strict=True)
        ring = Polygon(list(zip(*transformer("EPSG:4326", crs).transform(lon, lat), strict=True)))
        tile_area = (scene.size_px * 10) ** 2
        assert abs(ring.area / tile_area - (1 - scene.nodata_share)) < 0.01
