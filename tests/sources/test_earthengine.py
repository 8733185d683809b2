"""Earth Engine through its real client, against a server that evaluates what it sends on the demo world's scenes."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ee
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
from ee_server import PROJECT, EarthEngine, initialise, served
from ee_world import Pixels, embedded
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy import ndimage
from source_kinds import END, SIZE_PX, START, World

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, InputError, NothingFoundError, ReadError
from deepsentinel.sources import Failure
from deepsentinel.sources.demo import DemoSource
from deepsentinel.sources.earthengine import pixels
from deepsentinel.sources.earthengine import scenes as collections
from deepsentinel.sources.earthengine.pixels import Window, windows
from deepsentinel.sources.engine import reading_until

TABLE, PIXELS = "table:computeFeatures", "image:computePixels"


@pytest.fixture(scope="module")
def world() -> World:
    return World(DemoSource(size_px=SIZE_PX))


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[EarthEngine]:
    with served(EarthEngine(world)) as service:
        yield service


@pytest.fixture
def service(running: EarthEngine) -> Iterator[EarthEngine]:
    running.moods, running.asked, running.most_px, running.page_rows = [], [], None, None
    running.latency_s, running.most_at_once = 0.0, 0
    initialise(running.url)
    yield running
    ee.Reset()


def opened(**options: Any) -> Any:
    return ds.open_source("earth-engine", project=PROJECT, **options)


@pytest.fixture
def src(service: EarthEngine) -> Any:
    return opened()


@pytest.fixture
def grid(world: World) -> GeoBox:
    return world.grid("EPSG:32631")


def radar(src: Any, world: World) -> pd.Series:
    scenes = src.search(world.area, START, END, sensors="S1")
    return scenes[scenes["crs"] == "EPSG:32631"].iloc[0]


def optical(src: Any, world: World, baseline: str = "05.00") -> pd.Series:
    scenes = src.search(world.area, START, END, sensors="S2")
    return scenes[(scenes["crs"] == "EPSG:32631") & (scenes.baseline == baseline)].iloc[0]


# -- search ------------------------------------------------------------------------------------------------------------


def test_one_request_a_sensor_however_many_scenes(src: Any, world: World, service: EarthEngine) -> None:
    scenes = src.search(world.area)
    assert len(scenes) > 300
    assert [kind for kind, _ in service.asked] == [TABLE, TABLE]


@pytest.mark.parametrize("seed", range(6))
def test_the_service_chooses_what_another_catalog_would(src: Any, world: World, seed: int) -> None:
    """Any box, any dates, any clouds: the demo's own catalog says which scenes are meant."""
    rng = np.random.default_rng(seed)
    west, south, east, north = world.demo.extent.geometry.bounds
    x, y = np.sort(rng.uniform(west, east, 2)), np.sort(rng.uniform(south, north, 2))
    box = (x[0], y[0], x[0] + max(x[1] - x[0], 0.002), y[0] + max(y[1] - y[0], 0.002))
    first = pd.Timestamp("2018-01-01") + pd.Timedelta(days=int(rng.integers(0, 500)))
    dates = (f"{first:%Y-%m-%d}", f"{first + pd.Timedelta(days=40):%Y-%m-%d}")
    cloud = float(rng.uniform(20, 90))
    wanted = world.demo.search(box, *dates, max_cloud=cloud)
    found = src.search(box, *dates, max_cloud=cloud)
    for sensor in ("S1", "S2"):
        here, there = (
            sorted(zip(t.time, t["crs"], strict=True)) for t in (one[one.sensor == sensor] for one in (wanted, found))
        )
        assert [(when.floor("s"), crs) for when, crs in there] == here
    assert set(wanted.sensor) == {"S1", "S2"}


def test_dates_are_included_to_the_instant(src: Any, world: World) -> None:
    when = optical(src, world).time
    assert when in set(src.search(world.area, when, when, sensors="S2").time)
    later = when + pd.Timedelta(milliseconds=1)
    with pytest.raises(NothingFoundError, match="COPERNICUS/S2_SR_HARMONIZED"):
        src.search(world.area, later, later, sensors="S2")


def test_other_modes_and_polarisations_stay_out(src: Any, world: World, service: EarthEngine) -> None:
    others = [one for one in service.collections["COPERNICUS/S1_GRD"] if one.properties["instrumentMode"] == "EW"]
    assert others
    assert all(shapely.intersects(one.geometry, world.area.geometry) for one in others[:1])
    scenes = src.search(world.area, sensors="S1")
    assert scenes.id.str.contains("_IW_").all()
    assert scenes.id.str.contains("_1SDV_").all()
    assert scenes.backscatter.eq("sigma0").all()


def test_a_scene_without_a_cloud_share_is_left_out_where_one_is_asked_for(
    src: Any, world: World, service: EarthEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = optical(src, world)
    image = next(one for one in service.collections[scene.collection] if one.properties["system:index"] == scene.id)
    monkeypatch.delitem(image.properties, "CLOUDY_PIXEL_PERCENTAGE")
    assert scene.id not in set(src.search(world.area, START, END, sensors="S2", max_cloud=100).id)
    kept = src.search(world.area, START, END, sensors="S2").set_index("id")
    assert np.isnan(kept.cloud_cover[scene.id])


def test_pages_lose_and_repeat_nothing_when_one_fails(src: Any, world: World, service: EarthEngine) -> None:
    whole = src.search(world.area, START, END)
    service.page_rows, service.asked = 3, []
    paged = opened().search(world.area, START, END)
    pd.testing.assert_frame_equal(pd.DataFrame(whole), pd.DataFrame(paged))
    assert [kind for kind, _ in service.asked] == [TABLE] * 5  # 8 radar scenes, 6 optical ones
    # An answer that is none, in the middle: asked for again, from where it was.
    service.moods, service.asked = [None, b"<html>", None, b'{"features": ['], []
    pd.testing.assert_frame_equal(pd.DataFrame(whole), pd.DataFrame(opened().search(world.area, START, END)))
    tokens = [body.get("pageToken") for body in service.wanted(TABLE)]
    assert tokens == [None, "3", "3", "6", "6", None, "3"]


def test_finding_nothing_says_what_was_searched(src: Any) -> None:
    with pytest.raises(NothingFoundError, match=r"S2_SR_HARMONIZED.*begin on 2014-10-03.*Widen"):
        src.search((100, 10, 100.1, 10.1), "2018-06-01", "2018-06-12")


def test_scenes_are_found_by_their_names_in_few_requests(
    src: Any, world: World, service: EarthEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = src.search(world.area, START, END, sensors="S1")
    fresh = opened()
    service.asked = []
    known = fresh.items_of("S1", list(scenes.id))
    assert [kind for kind, _ in service.asked] == [TABLE]
    assert known == src.items_of("S1", list(scenes.id))
    # One that is gone costs a few more, once.
    names = [*scenes.id[:3], "S1A_gone", *scenes.id[3:]]
    other = opened()
    assert list(other.items_of("S1", names)) == list(scenes.id)
    service.asked = []
    assert list(other.items_of("S1", names)) == list(scenes.id)
    assert not service.asked


# -- pixels ------------------------------------------------------------------------------------------------------------


def test_all_bands_of_a_scene_come_in_one_request(src: Any, world: World, grid: GeoBox, service: EarthEngine) -> None:
    pairs = ds.pair(src.search(world.area, START, END), aoi=world.area, max_days=3)
    service.asked = []
    patch = ds.check_patch(src.read(pairs.iloc[0], grid))
    assert [kind for kind, _ in service.asked] == [PIXELS, PIXELS]
    assert list(patch.data_vars)[-3:] == ["VV", "VH", "angle"]
    asked = service.asked[0][1]["grid"]
    a = grid.affine
    assert (asked["affineTransform"]["translateX"], asked["affineTransform"]["translateY"]) == (a.c, a.f)
    assert asked["dimensions"] == {"width": grid.shape[1], "height": grid.shape[0]}


def test_dark_pixels_are_not_taken_for_missing_ones(src: Any, world: World, grid: GeoBox, service: EarthEngine) -> None:
    """Earth Engine cuts off what the offset leaves below 0: valid zeros, beside masked pixels."""
    scene = optical(src, world)
    pixels = Pixels.of({"dimensions": {"width": grid.shape[1], "height": grid.shape[0]}, **_grid(grid)})
    image = next(one for one in service.collections[scene.collection] if one.properties["system:index"] == scene.id)
    black = image.bands["B12"]
    dark = type(black)("uint16", lambda at, mode: _darkened(black.at(at)))
    image.bands["B12"] = dark
    try:
        patch = src.read(scene, grid, bands=["B12", "B04"])
    finally:
        image.bands["B12"] = black
    known = black.at(pixels).there
    assert 0 < known.sum() <= known.size
    np.testing.assert_array_equal(patch["B12"].to_numpy() == 0, ~known)
    assert (patch["B12"].to_numpy()[known] == 1).sum() >= known.sum() // 2


def _darkened(one: Any) -> Any:
    chequered = np.indices(one.there.shape).sum(0) % 2
    return replace(one, values=np.where(chequered, one.values, 0))


def _grid(grid: GeoBox) -> dict[str, Any]:
    a = grid.affine
    return {
        "affineTransform": {"scaleX": a.a, "translateX": a.c, "scaleY": a.e, "translateY": a.f},
        "crsCode": str(grid.crs),
    }


def test_beyond_a_scene_there_is_nothing(world: World, service: EarthEngine) -> None:
    """Not even zeros: 0 dB is a strong echo, and a cloud score of 0 a cloud."""
    src = opened(clouds="cloud-score")
    grid = ds.geobox(world.demo.extent, resolution=10, crs="EPSG:32631").pad(30)
    near = world.demo.search(world.area, START, END)
    for scene, names in ((radar(src, world), ["VV", "VH"]), (optical(src, world), ["B04", "SCL", "cloud_score"])):
        patch = src.read(scene, grid)
        demo = near[(near["crs"] == "EPSG:32631") & (near.time == scene.time)].iloc[0]
        wanted = world.demo.read(demo, grid, bands=[name for name in names if name != "cloud_score"])
        for name in names:
            like = wanted["SCL" if name == "cloud_score" else name]
            gone, missing = (np.isnan(one) if one.dtype == "float32" else one == 0 for one in (patch[name], like))
            assert 0.1 < missing.mean() < 1
            np.testing.assert_array_equal(gone, missing)


def test_angles_are_even_between_the_cells_that_hold_them(src: Any, world: World) -> None:
    scene = radar(src, world)
    grid = world.grid("EPSG:32631")
    (item,) = (one for one in world.items if one["id"] == f"{scene.id}_rtc")
    with rasterio.open(world.file(item["assets"]["angle"]["href"])) as file:
        cells, to = file.read(1), ~file.transform
    a, (rows, columns) = grid.affine, grid.shape
    x, y = np.meshgrid(a.c + a.a * (np.arange(columns) + 0.5), a.f + a.e * (np.arange(rows) + 0.5))
    where = [to.e * y + to.f - 0.5, to.a * x + to.c - 0.5]
    wanted = ndimage.map_coordinates(cells, where, order=1, mode="nearest")
    inside = (where[0] >= 0) & (where[1] >= 0)
    angle = src.read(scene, grid)["angle"].to_numpy()
    np.testing.assert_allclose(angle[inside], wanted[inside], atol=1e-4)
    # The area is some 7 by 7 cells.
    assert len(np.unique(angle)) > 1000


def test_level_1c_has_its_own_bands_and_its_own_name(world: World, grid: GeoBox, service: EarthEngine) -> None:
    src = opened(s2_level="L1C")
    scene = src.search(world.area, START, END, sensors="S2").iloc[0]
    assert (scene.level, scene.collection) == ("L1C", "COPERNICUS/S2_HARMONIZED")
    patch = ds.check_patch(src.read(scene, world.grid(scene.crs)))
    assert "B10" in patch
    assert "SCL" not in patch
    assert patch.attrs["level"] == "L1C"
    # The same names stand for other pixels at the other level, so the two are not one source.
    assert src.name != opened().name
    assert patch.attrs["source"] == src.name
    with pytest.raises(ReadError, match="has no SCL"):
        src.read(scene, grid, bands=["SCL"])


@pytest.mark.parametrize(
    ("clouds", "name", "clear", "hidden"),
    [("cloud-score", "cloud_score", 0.9, 0.1), ("s2cloudless", "cloud_probability", 5, 95)],
)
def test_clouds_of_another_making_lie_beside_the_classes(
    world: World, service: EarthEngine, clouds: str, name: str, clear: float, hidden: float
) -> None:
    src = opened(clouds=clouds)
    scenes = src.search(world.area, START, END, sensors="S2")
    scene = scenes.loc[scenes.cloud_cover.idxmax()]
    grid = world.grid(scene.crs)
    service.asked = []
    patch = ds.check_patch(src.read(scene, grid, bands=["B04", "SCL"]))
    assert len(service.wanted(PIXELS)) == 1
    scl = patch["SCL"].to_numpy()
    cloudy = np.isin(scl, (3, 8, 9, 10))
    wanted = np.where(scl == 0, np.nan, np.where(cloudy, hidden, clear)).astype("float32")
    np.testing.assert_array_equal(patch[name].values, wanted)
    assert cloudy.any()
    assert patch[name].dtype == "float32"
    assert patch.attrs["clouds"] == clouds
    series = ds.check_patch(src.read(scenes[scenes["crs"] == scene.crs], grid, bands=["B04"]))
    assert series[name].dims == ("s2_time", "y", "x")
    assert name not in src.read(radar(src, world), world.grid("EPSG:32631"))


def test_a_scene_without_a_cloud_score_has_none(world: World, service: EarthEngine) -> None:
    src = opened(clouds="cloud-score")
    scored = {one.properties["system:index"] for one in service.collections["GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED"]}
    scenes = src.search(world.area, "2019-11-01", sensors="S2")
    (scene,) = (row for _, row in scenes.iterrows() if row.id not in scored)
    patch = src.read(scene, world.grid(scene.crs), bands=["B04"])
    assert np.isnan(patch["cloud_score"]).all()
    assert (patch["B04"] > 0).any()


def test_of_two_processings_the_newer_is_used(
    src: Any, world: World, grid: GeoBox, service: EarthEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = optical(src, world)
    held = service.collections[scene.collection]
    old = next(one for one in held if one.properties["system:index"] == scene.id)
    start, _, tile = scene.id.split("_")
    newer = {
        "system:index": f"{start}_20250101T000000_{tile}",
        "PROCESSING_BASELINE": "05.11",
        "DATATAKE_IDENTIFIER": scene.datatake.replace("_N05.00", "_N05.11"),
    }
    brighter = replace(old.bands["B4"], sample=lambda at, mode: old.bands["B4"].at(at).plus(1))
    new = replace(old, bands={**old.bands, "B4": brighter}, properties={**old.properties, **newer})
    monkeypatch.setitem(service.collections, scene.collection, [*held, new])
    scenes = src.search(world.area, START, END)
    assert {scene.id, newer["system:index"]} <= set(scenes.id)
    pairs = ds.pair(scenes[scenes["crs"] == "EPSG:32631"], aoi=world.area, max_days=3)
    assert newer["system:index"] in set(pairs.s2_id)
    assert scene.id not in set(pairs.s2_id)
    both = scenes[scenes.time == scene.time]
    series = src.read(both[(both["crs"] == "EPSG:32631") & (both.sensor == "S2")], grid, bands=["B04"])
    assert series.sizes["s2_time"] == 1
    np.testing.assert_array_equal(series["B04"][0], src.read(scene, grid, bands=["B04"])["B04"].to_numpy() + 1)


# -- resampling --------------------------------------------------------------------------------------------------------


def test_radar_is_interpolated_as_power(src: Any, world: World, service: EarthEngine) -> None:
    scene = radar(src, world)
    grid = world.grid("EPSG:32631")
    a = grid.affine
    between = GeoBox(grid.shape, type(a)(a.a, 0, a.c + 5, 0, a.e, a.f - 5), grid.crs)
    patch = src.read(scene, between, bands=["VV"], resampling="bilinear")
    assert patch.attrs["s1_stored"] == "power"
    # Between four pixels, the mean of the four.
    power = 10 ** (src.read(scene, grid.pad(1), bands=["VV"])["VV"].to_numpy().astype("float64") / 10)
    rows, columns = grid.shape
    four = [
        power[1 + down : 1 + down + rows, 1 + across : 1 + across + columns] for down in (0, 1) for across in (0, 1)
    ]
    wanted = 10 * np.log10(np.mean(four, axis=0))
    known = np.isfinite(wanted)
    assert known.mean() > 0.5
    np.testing.assert_allclose(patch["VV"].to_numpy()[known], wanted[known], atol=1e-3)


def test_coarser_radar_comes_from_power(src: Any, world: World, service: EarthEngine) -> None:
    """The coarser levels of an image are means: those of decibels would be a decibel or two too low."""
    scene = radar(src, world)
    for resolution, collection in ((10, "COPERNICUS/S1_GRD"), (40, "COPERNICUS/S1_GRD_FLOAT")):
        service.asked = []
        patch = src.read(scene, ds.geobox(world.area, resolution=resolution, crs="EPSG:32631"), bands=["VV"])
        assert f'"{collection}/{scene.id}"' in json.dumps(service.asked)
        assert np.nanmax(patch["VV"]) < 20


def test_what_earth_engine_cannot_resample_is_refused_before_it_is_asked(
    src: Any, world: World, grid: GeoBox, service: EarthEngine
) -> None:
    scene = optical(src, world)
    service.asked = []
    for asked, named in (("average", "the pixels"), ({"B04": "average"}, "B04")):
        with pytest.raises(InputError, match=rf"resampling='average' of {named}.*nearest, bilinear, cubic"):
            src.read(scene, grid, bands=["B04"], resampling=asked)
        with pytest.raises(InputError, match="resampling='average'"):
            src.read_many(scene, [grid], resampling=asked)  # at the call, not for each of a million rows
    assert not service.asked
    smooth = src.read(scene, grid, bands=["B04", "B05", "SCL"], resampling={"B05": "bilinear"})
    plain = src.read(scene, grid, bands=["B04", "B05", "SCL"])
    assert smooth[["B04", "SCL"]].equals(plain[["B04", "SCL"]])
    assert not smooth["B05"].equals(plain["B05"])


# -- requests of the right size ----------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 70_000), st.integers(1, 70_000), st.integers(2, 400))
def test_windows_cover_a_grid_once_and_keep_the_limits(rows: int, columns: int, bytes_per_px: int) -> None:
    cut = windows((rows, columns), bytes_per_px)
    assert sum(one.rows * one.columns for one in cut) == rows * columns
    for one in cut:
        assert one.rows >= 1
        assert one.columns >= 1
        assert one.rows * one.columns * bytes_per_px <= 48 * 2**20
        assert max(one.rows, one.columns) <= 32768
    tops = {(one.top, one.top + one.rows) for one in cut}
    lefts = {(one.left, one.left + one.columns) for one in cut}
    for spans, size in ((tops, rows), (lefts, columns)):
        edges = sorted(spans)
        assert edges[0][0] == 0
        assert edges[-1][1] == size
        assert all(one[1] == other[0] for one, other in itertools.pairwise(edges))
    assert len(cut) == len(tops) * len(lefts)
    # Not many more than there must be.
    assert len(cut) <= 2 * (rows * columns * bytes_per_px / (48 * 2**20)) + rows / 32768 + columns / 32768 + 2


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000))
def test_halves_cover_a_window(rows: int, columns: int) -> None:
    window = Window(7, 9, rows, columns)
    parts = window.halves()
    assert sum(one.rows * one.columns for one in parts) == rows * columns
    assert (parts == [window]) == (max(rows, columns) < 128)
    assert parts[0].top == 7
    assert parts[-1].top + parts[-1].rows == 7 + rows
    assert parts[-1].left + parts[-1].columns == 9 + columns


def test_a_large_grid_is_read_in_parts(
    src: Any, world: World, grid: GeoBox, service: EarthEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = optical(src, world)
    whole = src.read(scene, grid)
    monkeypatch.setattr(pixels, "MOST_BYTES", 40_000)
    service.asked = []
    assert src.read(scene, grid).identical(whole)
    sizes = [body["grid"]["dimensions"] for body in service.wanted(PIXELS)]
    assert len(sizes) >= 4
    assert all(size["width"] * size["height"] * 38 <= 40_000 for size in sizes)


def test_what_is_too_much_for_the_service_is_asked_for_in_smaller_parts(
    src: Any, world: World, service: EarthEngine
) -> None:
    scene = optical(src, world)
    grid = ds.geobox(world.demo.extent, resolution=10, crs="EPSG:32631")
    whole = src.read(scene, grid, bands=["B04", "SCL"])
    count = int(np.prod(grid.shape))
    service.most_px, service.asked = count // 5, []
    assert src.read(scene, grid, bands=["B04", "SCL"]).identical(whole)
    assert len(service.wanted(PIXELS)) > 8
    service.most_px = 10
    with pytest.raises(ReadError, match=rf"{scene.id}.*memory limit exceeded.*smaller grid"):
        src.read(scene, grid, bands=["B04"])


def test_many_at_once_and_never_more_than_allowed(world: World, grid: GeoBox, service: EarthEngine) -> None:
    src = opened(threads=3)
    pairs = ds.pair(src.search(world.area, START, END), aoi=world.area, max_days=3)
    service.latency_s, service.most_at_once = 0.05, 0
    together = [
        threading.Thread(target=lambda: list(src.read_many(pairs, grid, bands=["B04", "VV"]))) for _ in range(2)
    ]
    for one in together:
        one.start()
    for one in together:
        one.join()
    assert service.most_at_once == 3


# -- many --------------------------------------------------------------------------------------------------------------


def test_failures_stand_where_patches_would(src: Any, world: World, grid: GeoBox) -> None:
    good = optical(src, world)
    rows = pd.DataFrame({"sensor": "S2", "id": [good.id, "20180601T105637_gone_T31UCQ", good.id]})
    away = GeoBox.from_bbox((500_000, 1_000_000, 500_640, 1_000_640), "EPSG:32631", resolution=10)
    one, two, three = src.read_many(rows, [grid, grid, away], bands=["B04"])
    assert isinstance(one, xr.Dataset)
    assert isinstance(two, Failure)
    assert two.s2_id == rows.id[1]
    assert isinstance(two.error, NothingFoundError)
    assert isinstance(three, Failure)
    assert "do not touch" in str(three.error)
    with pytest.warns(DeepSentinelWarning, match="Row 1 was left out"):
        assert len(list(src.read_many(rows.iloc[:2], grid, bands=["B04"], on_error="skip"))) == 1
    stream = src.read_many(rows, grid, bands=["B04"], on_error="raise")
    assert next(stream).identical(one)
    with pytest.raises(NothingFoundError, match="gone"):
        next(stream)


@pytest.mark.parametrize("memory_mb", [0.01, 512])
def test_patches_come_in_order_whatever_the_memory(
    src: Any, world: World, grid: GeoBox, service: EarthEngine, memory_mb: float
) -> None:
    scenes = src.search(world.area, START, END)
    wanted = [src.read(row, grid, bands=None) for _, row in scenes.iterrows()]
    service.asked = []
    stream = src.read_many(scenes, grid, memory_mb=memory_mb)
    first = next(stream)
    ahead = len(service.wanted(PIXELS))
    assert first.identical(wanted[0])
    assert ahead <= 3 if memory_mb < 1 else True
    for one, other in zip(stream, wanted[1:], strict=True):
        assert one.identical(other)


def test_who_leaves_early_waits_for_nothing_more(src: Any, world: World, grid: GeoBox, service: EarthEngine) -> None:
    scene = optical(src, world)
    service.latency_s, service.asked = 0.02, []
    stream = src.read_many(scene, [grid] * 400, bands=["B04"])
    next(stream)
    stream.close()
    began = len(service.wanted(PIXELS))
    assert began < 200
    with reading_until(lambda: True), pytest.raises(ReadError, match="stopped"):
        service.latency_s = 2.0
        src.read(scene, grid)
    service.latency_s = 0.0


def test_a_series_leaves_out_what_cannot_be_read(src: Any, world: World, grid: GeoBox, service: EarthEngine) -> None:
    scenes = src.search(world.area, START, END, sensors="S1")
    whole = src.read(scenes, grid)
    table = pd.concat([scenes, pd.DataFrame({"sensor": ["S1"], "id": ["S1A_IW_gone"]})], ignore_index=True)
    with pytest.warns(DeepSentinelWarning, match="S1A_IW_gone"):
        assert src.read(table, grid).identical(whole)
    with pytest.raises(NothingFoundError, match="S1A_IW_gone"):
        src.read(table.iloc[-1:], grid)


# -- embeddings --------------------------------------------------------------------------------------------------------


def test_an_annual_embedding_is_one_like_ours(src: Any, world: World, grid: GeoBox, service: EarthEngine) -> None:
    service.asked = []
    z = src.read_embedding(2018, grid)
    assert len(service.asked) == 1
    a, (rows, columns) = grid.affine, grid.shape
    x, y = np.meshgrid(a.c + a.a * (np.arange(columns) + 0.5), a.f + a.e * (np.arange(rows) + 0.5))
    np.testing.assert_allclose(z.values, embedded(x, y, 2018), atol=1e-6)
    pairs = ds.pair(src.search(world.area, START, END), aoi=world.area, max_days=3)
    ours = ds.embed(src.read(pairs.iloc[0], grid), "galileo-nano-random", dense=True, resolution_m=40)
    assert (z.dims, z.name, z.dtype) == (ours.dims, ours.name, ours.dtype)
    assert set(z.coords) == set(ours.coords) - {"s1_time", "s2_time"}
    told = {"encoder", "weights", "sensors", "bands", "mask_clouds", "patch_px", "window_px", "resolution_m"}
    told |= {"overlap", "keep_positions", "source"}
    assert told <= set(z.attrs) & set(ours.attrs)
    assert {key: type(z.attrs[key]) for key in told} == {key: type(ours.attrs[key]) for key in told}


def test_what_takes_embeddings_takes_these(src: Any, world: World, grid: GeoBox) -> None:
    before, after = (src.read_embedding(year, grid) for year in (2017, 2018))
    assert ds.pca_rgb(after).dims == ("y", "x", "channel")
    near = ds.similarity_index(after).query(after[3, 4], k=3)
    assert (near["row"].iloc[0], near["col"].iloc[0]) == (3, 4)
    assert float(ds.embedding_change(before, after).max()) > 0
    west, south, east, north = world.area.geometry.bounds
    middle = (south + north) / 2
    examples = [((west + 0.2 * (east - west), middle), "west"), ((west + 0.8 * (east - west), middle), "east")]
    classes = ds.classify(after, ds.make_labels(examples))["class_map"]
    assert (int(classes[35, 10]), int(classes[35, -10])) in ((1, 2), (2, 1))


def test_places_and_years_without_an_embedding(src: Any, world: World, grid: GeoBox) -> None:
    with pytest.raises(NothingFoundError, match="begin with 2017"):
        src.read_embedding(2016, grid)
    with pytest.raises(NothingFoundError, match="no embedding of 2024 here"):
        src.read_embedding(2024, grid)
    wide = ds.geobox(world.demo.extent, resolution=40, crs="EPSG:32631").pad(20)
    z = src.read_embedding(2017, wide)
    gone = np.isnan(z.values)
    assert gone.any()
    np.testing.assert_array_equal(gone.any(-1), gone.all(-1))
    assert not gone.all()


# -- what is asked of a source -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"s2_level": "L3"}, "s2_level='L3'"),
        ({"clouds": "none"}, "'cloud-score'"),
        ({"threads": 21}, "1 to 20"),
        ({"threads": 0}, "1 to 20"),
        ({"timeout_s": 0}, "seconds"),
        ({"project": ""}, "Google Cloud project"),
        ({"url": "http://example.org"}, "https"),
        ({"credentials": 5}, "credentials= is a int"),
    ],
)
def test_options_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ds.open_source("earth-engine", **options)


def test_an_unknown_option_is_told() -> None:
    with pytest.raises(TypeError, match="Did you mean 'project'"):
        ds.open_source("earth-engine", projct="a")


def test_rows_that_lack_a_sensor_are_told(src: Any, world: World, grid: GeoBox) -> None:
    with pytest.raises(InputError, match="VV cannot come from a row"):
        src.read(optical(src, world), grid, bands=["B04", "VV"])


def test_scenes_are_asked_for_by_the_hundred(src: Any, world: World, service: EarthEngine) -> None:
    scenes = src.search(world.area, sensors="S1")
    assert len(scenes) > collections.NAMED_SCENES
    service.asked = []
    assert len(opened().items_of("S1", list(scenes.id))) == len(scenes)
    assert len(service.asked) == -(-len(scenes) // collections.NAMED_SCENES)


def test_opening_imports_and_asks_nothing() -> None:
    code = (
        "import sys, deepsentinel as ds; src = ds.open_source('earth-engine', project='p'); repr(src); "
        "print([name for name in ('ee', 'google.auth', 'torch', 'geemap') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
