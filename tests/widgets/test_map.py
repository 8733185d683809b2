"""The map and its first tab, driven from Python: what is drawn is what is computed, and nothing is left behind."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import ipyleaflet
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from factories import make_patch
from ipywidgets.widgets.widget import _instances
from widget_kit import as_file, upload

import deepsentinel as ds
from deepsentinel.aoi import area, patch_bytes, square
from deepsentinel.sources.demo import DemoSource
from deepsentinel.widgets import map as module
from deepsentinel.widgets.drawing import home, plain
from deepsentinel.widgets.labelling import NOTHING
from deepsentinel.widgets.map import WORLD, Map
from deepsentinel.widgets.timeline import mark
from deepsentinel.widgets.uploads import spoken

BOX = (-0.02, 49.235, -0.005, 49.245)


@pytest.fixture(scope="session")
def world() -> DemoSource:
    return ds.open_source("demo", size_px=256)


@pytest.fixture
def m(world: DemoSource, monkeypatch: pytest.MonkeyPatch) -> Iterator[Map]:
    # What lies under the map takes longer than all the rest, and has tests of its own.
    monkeypatch.setattr(module, "overview_of", lambda src: ("data:,", ((49.2, -0.1), (49.3, 0.1))))
    made = Map(world)
    assert made.wait(60)
    yield made
    made.close()


def ring(west: float, south: float, east: float, north: float) -> list[list[float]]:
    return [[west, south], [west, north], [east, north], [east, south], [west, south]]


def polygon(points: list[list[float]]) -> dict[str, Any]:
    return {"type": "Feature", "properties": {"style": {}}, "geometry": {"type": "Polygon", "coordinates": [points]}}


def tell(m: Map, action: str, feature: dict[str, Any]) -> None:
    """What the page sends when a person draws."""
    m.canvas.drawing.control._handle_custom_msg({"event": f"draw:{action}", "geo_json": feature}, [])


def draw(m: Map, points: list[list[float]], action: str = "created") -> None:
    """The same, and then the list of all that is drawn, as the page sends it."""
    feature = polygon(points)
    tell(m, action, feature)
    m.canvas.drawing.control.data = [*m.canvas.drawing.control.data, feature] if action == "created" else [feature]
    assert m.wait(60)


def line(m: Map) -> tuple[str, str]:
    return m._area.line.kind, m._area.line.text


# -- drawing -----------------------------------------------------------------------------------------------------------


def test_what_is_drawn_is_the_area_and_its_scenes_and_pairs_are_those_of_the_functions(
    m: Map, world: DemoSource
) -> None:
    assert m.aoi is None
    draw(m, ring(*BOX))
    assert m.aoi is not None
    assert m.aoi.bounds == BOX
    scenes = world.search(BOX, "2018-05-01", "2018-08-31")
    pd.testing.assert_frame_equal(m.scenes, scenes)
    pd.testing.assert_frame_equal(m.pairs, ds.pair(scenes, aoi=BOX, max_days=3))
    assert m.state["grid"] == ds.geobox(BOX)
    assert line(m) == ("news", "")


def test_the_cell_makes_the_same_without_a_map(m: Map) -> None:
    draw(m, ring(*BOX))
    m._area.choice.index = 2
    m._area.read.click()
    assert m.wait(60)
    found: dict[str, Any] = {}
    exec(m.code(), found)
    assert found["aoi"] == BOX
    pd.testing.assert_frame_equal(found["pairs"], m.pairs)
    assert m.patch is not None
    assert m.patch.attrs["s2_id"] == m.pairs.iloc[2]["s2_id"]
    assert found["patch"].equals(m.patch)
    assert "pairs.iloc[2]" in m.code("patch")
    # Only what a thing needs.
    assert m.code("grid").splitlines()[2:] == [f"aoi = {BOX}", "grid = ds.geobox(aoi)"]


def test_the_size_that_is_told_is_that_of_the_grid(m: Map) -> None:
    draw(m, ring(*BOX))
    grid, found = ds.geobox(BOX), area(BOX)
    told = m._area.size.value
    assert f"{grid.shape.x} × {grid.shape.y} pixels" in told
    assert f"{found.width_km:.2f} × {found.height_km:.2f} km" in told
    assert spoken(patch_bytes(grid)) in told
    assert m._area.warning.value == ""


def test_another_shape_takes_the_place_of_the_first_and_of_all_that_was_made_of_it(m: Map) -> None:
    draw(m, ring(*BOX))
    m._area.read.click()
    assert m.wait(60)
    assert m.patch is not None
    draw(m, [[-0.01, 49.235], [0.0, 49.245], [0.005, 49.235], [-0.01, 49.235]])
    assert m.patch is None
    assert len(m.canvas.drawing.control.data) == 1
    wanted = shapely.Polygon([(-0.01, 49.235), (0.0, 49.245), (0.005, 49.235)])
    assert shapely.from_geojson(json.dumps(m.canvas.drawing.control.data[0]["geometry"])).equals(wanted)
    assert m.state["aoi"]["type"] == "Polygon"
    assert m.aoi.geometry.equals(wanted)


def test_a_changed_shape_is_the_new_area_and_a_deleted_one_is_none(m: Map) -> None:
    draw(m, ring(*BOX))
    tell(m, "edited", polygon(ring(-0.02, 49.235, -0.01, 49.245)))
    assert m.aoi.bounds == (-0.02, 49.235, -0.01, 49.245)
    assert m.wait(60)
    assert m.pairs is not None
    tell(m, "deleted", polygon(ring(-0.02, 49.235, -0.01, 49.245)))
    m.canvas.drawing.control.data = []
    assert m.wait(60)
    assert (m.aoi, m.scenes, m.pairs, m.state["grid"]) == (None, None, None, None)
    assert m._area.timeline.scenes == []
    assert not m.canvas.shapes


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        ([[BOX[0], 49.24], [BOX[2], 49.24], [BOX[2], 49.24], [BOX[0], 49.24], [BOX[0], 49.24]], "ground"),
        (ring(-2, 47, 2, 51), "too large for one grid"),
        (ring(-20, 35, 40, 65), "too large for one grid"),
        (ring(-20, -89.99, 160, 89.99), "cannot be drawn"),
    ],
)
@pytest.mark.parametrize("how", ["created", "edited", "uploaded"])
def test_a_slip_of_the_mouse_takes_nothing_away(m: Map, slip: list[Any], said: str, how: str) -> None:
    draw(m, ring(*BOX))
    m._area.read.click()
    assert m.wait(60)
    before, patch = m.aoi, m.patch
    assert patch is not None
    if how == "uploaded":
        upload(m._area.upload, "field.geojson", json.dumps({"type": "Polygon", "coordinates": [slip]}).encode())
    else:
        draw(m, slip, how)
    assert line(m)[0] == "error"
    assert said in line(m)[1]
    assert "=" not in line(m)[1]
    assert m.aoi.geometry.equals(before.geometry)
    assert m.patch is patch
    assert {"scenes", "pairs", "grid"} <= set(m.state._made)
    assert [one["geometry"]["type"] for one in m.canvas.drawing.control.data] == ["Polygon"]
    assert shapely.geometry.shape(m.canvas.drawing.control.data[0]["geometry"]).equals(before.geometry)
    # And the next one is an area again.
    draw(m, ring(BOX[0], BOX[1], BOX[2], BOX[3] + 0.001))
    assert not m.aoi.geometry.equals(before.geometry)


def test_what_a_panel_takes_for_itself_is_not_the_area(m: Map) -> None:
    draw(m, ring(*BOX))
    taken: list[dict[str, Any]] = []
    end = m.canvas.drawing.take(taken.append)
    draw(m, ring(-0.01, 49.235, -0.005, 49.24))
    assert [each["geometry"]["coordinates"][0][0] for each in taken] == [[-0.01, 49.235]]
    assert m.aoi.bounds == BOX
    assert len(m.canvas.drawing.control.data) == 1
    end()
    draw(m, ring(-0.01, 49.235, -0.005, 49.24))
    assert m.aoi.bounds == (-0.01, 49.235, -0.005, 49.24)


@pytest.mark.parametrize("turns", [-2, -1, 0, 1])
def test_a_shape_on_a_copy_of_the_world_is_where_it_seems_to_be(turns: int) -> None:
    there = {"type": "Polygon", "coordinates": [ring(170 + 360 * turns, -2, 185 + 360 * turns, 1)]}
    assert plain(home(there)) == (170, -2, 185, 1)


def test_only_a_box_is_written_as_a_box() -> None:
    assert plain({"type": "Polygon", "coordinates": [ring(*BOX)]}) == BOX
    assert isinstance(plain({"type": "Polygon", "coordinates": [ring(*BOX)[:3] + ring(*BOX)[:1]]}), dict)
    bow = ring(*BOX)
    bow[1], bow[2] = bow[2], bow[1]
    turned = plain({"type": "Polygon", "coordinates": [[[0, 1], [1, 2], [2, 1], [1, 0], [0, 1]]]})
    assert isinstance(turned, dict)
    hole = {"type": "Polygon", "coordinates": [ring(0, 0, 9, 9), ring(1, 1, 2, 2)]}
    assert plain(hole)["coordinates"][1] == ring(1, 1, 2, 2)


# -- areas from elsewhere ----------------------------------------------------------------------------------------------


def test_an_area_from_python_is_drawn_and_shown(m: Map) -> None:
    place = square(-0.0075, 49.2421, 640)
    m.aoi = place
    assert m.aoi.geometry.equals(place.geometry)
    assert m.wait(60)
    assert m.state["grid"].shape == (64, 64)
    (feature,) = m.canvas.drawing.control.data
    assert shapely.from_geojson(json.dumps(feature["geometry"])).equals(place.geometry)
    lat, lon = m.canvas.map.center
    assert (lat, lon) == pytest.approx((49.2421, -0.0075), abs=2e-4)
    m.aoi = None
    assert m.canvas.drawing.control.data == []
    assert m.aoi is None


def test_the_area_that_is_suggested_is_one_word_in_the_cell(m: Map, world: DemoSource) -> None:
    m.aoi = world.area
    assert m.wait(60)
    assert "aoi = src.area" in m.code()
    assert m.aoi.geometry.equals(world.area.geometry)


def test_a_tiny_area_is_warned_of(m: Map) -> None:
    draw(m, ring(BOX[0], BOX[1], BOX[0] + 0.0003, BOX[1] + 0.0003))
    assert "small" in m._area.warning.value
    draw(m, ring(*BOX))
    assert m._area.warning.value == ""


def test_an_area_that_is_none_is_refused_to_who_gave_it(m: Map) -> None:
    with pytest.raises(ds.errors.AreaError):
        m.aoi = (3, 48, 2, "north")
    assert m.aoi is None


def test_the_place_that_a_source_suggests(m: Map, world: DemoSource) -> None:
    m._area.suggest.click()
    assert m.aoi.geometry.equals(world.area.geometry)
    assert "aoi = src.area" in m.code()


def test_a_file_with_an_outline(m: Map) -> None:
    shape = gpd.GeoSeries([shapely.Point(-0.01, 49.24).buffer(0.003)], crs=4326)
    upload(m._area.upload, "field.geojson", shape.to_json().encode())
    assert m.aoi.geometry.equals(shape.iloc[0])
    assert m._area.upload.file == {}
    assert line(m)[0] != "error"


@pytest.mark.parametrize("name", ["field.gpkg", "field.zip", "field.geojson"])
def test_an_outline_comes_in_any_usual_format(m: Map, tmp_path: Path, name: str) -> None:
    field = gpd.GeoDataFrame(geometry=[shapely.box(-0.015, 49.237, -0.01, 49.24)], crs=4326)
    upload(m._area.upload, name, as_file(field, name, tmp_path))
    assert line(m)[0] != "error", line(m)
    assert m.aoi.geometry.symmetric_difference(field.geometry.iloc[0]).area < 1e-12
    assert m.code("grid").endswith("grid = ds.geobox(aoi)")


def test_a_file_that_was_cut_or_is_none_is_told_by_its_name_alone(m: Map, tmp_path: Path) -> None:
    upload(m._area.upload, "cut.gpkg", bytes(5000), lost=True)
    assert line(m) == ("error", "Of cut.gpkg 4,000 of 5,000 bytes came: the connection was cut. Try again.")
    upload(m._area.upload, "wrong.gpkg", b"no package at all")
    kind, words = line(m)
    assert kind == "error"
    assert "wrong.gpkg" in words
    assert "/tmp" not in words
    upload(m._area.upload, "empty.zip", b"")
    assert "empty.zip is empty" in line(m)[1]
    assert m.aoi is None


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "GeoJSON"), ('{"type": "FeatureCollection", "features": []}', "empty|nothing"), (None, "3.0 GB")],
)
def test_a_file_that_is_no_outline_says_so(m: Map, text: str | None, said: str) -> None:
    if text is None:
        m._area.upload._handle_custom_msg({"kind": "begin", "name": "wrong.geojson", "size": 3_000_000_000}, [])
    else:
        upload(m._area.upload, "wrong.geojson", text.encode())
    kind, words = line(m)
    assert kind == "error"
    assert any(word in words for word in said.split("|")), words
    assert m.aoi is None


@pytest.mark.parametrize("box", [(-2, 47, 2, 51), (-20, 35, 40, 65), (-170, -80, 170, 84)])
def test_an_area_too_large_for_a_grid_says_so_in_red_and_a_smaller_one_takes_that_back(
    m: Map, box: tuple[float, float, float, float]
) -> None:
    draw(m, ring(*box))
    kind, words = line(m)
    assert kind == "error"
    # What the mouse can do about it, and not what Python could.
    assert "=" not in words
    said = re.fullmatch(r"The area is too large .* Draw a smaller one: a square of (\d+) km fits\.", words)
    assert said is not None, words
    half = float(said[1]) / 2 / 111.2
    for lat in (0, 35, 50, 65, 75):
        wide = half / math.cos(math.radians(lat))
        for lon in (0, 3, 5.9):  # the edges of a zone, and its middle
            square = area((lon - wide, lat - half, lon + wide, lat + half))
            assert square.width_km == pytest.approx(float(said[1]), rel=0.01)
            ds.geobox(square)
    assert m.state["grid"] is None
    assert m.scenes is None
    draw(m, ring(*BOX))
    assert line(m) == ("news", "")
    assert m.scenes is not None


def test_a_large_area_is_warned_of(m: Map) -> None:
    draw(m, ring(-0.3, 49.0, 0.3, 49.4))
    grid = ds.geobox((-0.3, 49.0, 0.3, 49.4))
    assert spoken(patch_bytes(grid)) in m._area.warning.value
    draw(m, ring(*BOX))
    assert m._area.warning.value == ""


# -- scenes and pairs --------------------------------------------------------------------------------------------------


def test_dates_clouds_and_gaps_are_those_of_the_functions(m: Map, world: DemoSource) -> None:
    import datetime

    draw(m, ring(*BOX))
    m._area.start.value = datetime.date(2018, 6, 1)
    m._area.cloud.value = 40
    assert m.wait(60)
    m._area.gap.value = 1.5
    scenes = world.search(BOX, "2018-06-01", "2018-08-31", max_cloud=40)
    pd.testing.assert_frame_equal(m.scenes, scenes)
    pd.testing.assert_frame_equal(m.pairs, ds.pair(scenes, aoi=BOX, max_days=1.5))
    assert "max_cloud=40" in m.code()
    assert "max_days=1.5" in m.code()
    assert len(m._area.choice.options) == len(m.pairs)


def test_dates_from_python_show_in_the_panel(m: Map) -> None:
    m.state.put("start", "2018-07-01")
    assert m._area.start.value.isoformat() == "2018-07-01"


def test_days_without_scenes_are_told(m: Map) -> None:
    draw(m, ring(*BOX))
    m.state.put("start", "2031-01-01")
    m.state.put("end", "2031-02-01")
    m._area.search()
    assert m.wait(60)
    kind, words = line(m)
    assert kind == "error"
    assert "2031" in words
    assert m._area.choice.options == ()
    assert m._area.read.disabled


def test_the_strip_shows_each_scene_and_choosing_one_chooses_its_best_pair(m: Map) -> None:
    draw(m, ring(*BOX))
    strip = m._area.timeline
    assert {each["id"] for each in strip.scenes} == set(m.scenes["id"])
    assert set(strip.paired) == {*m.pairs["s1_id"], *m.pairs["s2_id"]}
    assert strip.chosen == list(m.pairs.iloc[0][["s1_id", "s2_id"]])
    wanted = m.pairs["s2_id"].drop_duplicates().iloc[3]
    strip.picked = wanted
    row = m._area.choice.index
    assert row == (m.pairs["s2_id"] == wanted).to_numpy().argmax()
    assert strip.chosen == list(m.pairs.iloc[row][["s1_id", "s2_id"]])


def test_a_scene_without_a_partner_changes_nothing(m: Map) -> None:
    draw(m, ring(*BOX))
    m._area.gap.value = 0.5
    alone = sorted(set(m.scenes["id"]) - set(m._area.timeline.paired))
    m._area.timeline.picked = alone[0]
    assert m._area.choice.index == 0
    assert line(m)[0] == "news"


def test_an_unknown_cloud_share_is_said_to_be_unknown() -> None:
    made = mark({"id": 1, "sensor": "S2", "time": pd.Timestamp("2018-07-04", tz="UTC"), "cloud_cover": float("nan")})
    assert (made["cloud"], "not known" in made["text"]) == (None, True)


def test_footprints_lie_on_the_map_as_long_as_they_are_wanted(m: Map) -> None:
    draw(m, ring(*BOX))
    assert set(m.canvas.shapes) == {"footprints S1", "footprints S2"}
    drawn = m.canvas.shapes["footprints S2"].data["features"]
    # Each of the scenes' outlines is there, and those of one orbit, a few metres apart, once.
    theirs = m.scenes.loc[m.scenes["sensor"] == "S2", "geometry"]
    shapes = [shapely.geometry.shape(each["geometry"]) for each in drawn]
    assert all(min(shapely.hausdorff_distance(each, shape) for shape in shapes) < 0.02 for each in theirs)
    assert 1 < len(shapes) < theirs.to_wkb().nunique() / 3
    m._area.footprints.value = False
    assert m.canvas.shapes == {}


def test_online_maps_are_off_until_somebody_turns_them_on(m: Map) -> None:
    def online() -> list[str]:
        return [each.url for each in m.canvas.map.layers if isinstance(each, ipyleaflet.TileLayer)]

    assert online() == []
    m._area.base.value = "OpenStreetMap"
    assert len(online()) == 1
    m._area.base.value = m._area.base.options[0]
    assert online() == []
    assert all(layer.url.startswith("data:") for layer in m.canvas.map.layers)


# -- the map as a whole ------------------------------------------------------------------------------------------------


def test_a_source_that_does_not_open_says_why() -> None:
    made = Map("no-such-source")
    assert made.wait(30)
    kind, words = line(made)
    assert kind == "error"
    assert "no-such-source" in words
    assert made.src is None
    made.close()


def test_a_source_is_opened_beside_the_kernel_and_said_in_the_cell(
    world: DemoSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, threads = threading.Event(), []

    def slowly(name: str) -> DemoSource:
        threads.append(threading.current_thread())
        assert go.wait(30)
        return world

    monkeypatch.setattr(ds, "open_source", slowly)
    made = Map()
    assert made.src is None
    made.aoi = BOX  # nobody has to wait to draw
    go.set()
    assert made.wait(60)
    assert threads[0] is not threading.main_thread()
    assert made.src is world
    assert len(made.pairs) > 10
    assert made.code("src").endswith("src = ds.open_source('demo')")
    # Its country lies under everything, clear where it ends.
    assert made.canvas.pictures["base"].url.startswith("data:image/webp")
    assert made.canvas.pictures["base"].pane == "deepsentinel-base"
    made.close()


def test_each_tab_says_from_the_first_what_it_is_for_and_that_the_source_is_being_opened(
    world: DemoSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def slowly(name: str) -> DemoSource:
        assert go.wait(30)
        if name == "lost":
            raise ds.errors.InputError("There is no such thing.")
        return world

    monkeypatch.setattr(ds, "open_source", slowly)
    monkeypatch.setattr(module, "overview_of", lambda src: ("data:,", ((49.2, -0.1), (49.3, 0.1))))

    def seen(made: Map, title: str) -> str:
        hint = made._places[title].children[0]
        return hint.value if hint.layout.display is None else ""

    made, lost = Map(), Map("lost")
    try:
        # Nobody has opened one yet, so that this is there while a panel is being built.
        for title in list(module.PANELS)[1:]:
            assert seen(made, title).startswith("Opening the demo world")
            assert seen(made, title).endswith(module.PURPOSES[title])
        for title in ("Pair", "Train"):
            made.open(title)
            lost.open(title)
            assert seen(made, title) == "Opening the demo world; it is built when it is first used …"
        go.set()
        assert made.wait(60)
        assert [seen(made, title) for title in ("Pair", "Train")] == ["", ""]
        assert seen(made, "Masks") == module.PURPOSES["Masks"]
        assert lost.wait(60)
        assert seen(lost, "Pair") == module.NOT_OPEN
        assert line(lost) == ("error", "There is no such thing.")
    finally:
        go.set()
        made.close()
        lost.close()


def test_two_maps_share_nothing(m: Map, world: DemoSource) -> None:
    other = Map(world, aoi=(-0.01, 49.24, 0.0, 49.25))
    assert other.wait(60)
    draw(m, ring(*BOX))
    assert m.aoi.bounds == BOX
    assert other.aoi.bounds == (-0.01, 49.24, 0.0, 49.25)
    assert other.canvas.map is not m.canvas.map
    m.close()
    assert other.pairs is not None
    draw(other, ring(*BOX))
    assert other.aoi.bounds == BOX
    other.close()


def test_a_closed_map_leaves_no_widget_and_no_thread(world: DemoSource) -> None:
    before, threads = set(_instances), set(threading.enumerate())
    made = Map(world)
    draw(made, ring(*BOX))
    made._area.read.click()
    assert made.wait(60)
    made.open("Train")
    made._cell.opened = True
    assert len(set(_instances) - before) > 50
    made.close()
    made.close()
    assert set(_instances) == before
    # Nobody waits for one that only imports torch, and nobody hears of it.
    for each in set(threading.enumerate()) - threads:
        if each.name.startswith("deepsentinel"):
            each.join(60)
            assert not each.is_alive()
    assert repr(made) == "Map(closed)"


def test_a_map_closed_in_the_middle_of_its_work_is_closed(world: DemoSource) -> None:
    before = set(_instances)
    made = Map(world)
    tell(made, "created", polygon(ring(*BOX)))
    made.close()
    for thread in threading.enumerate():
        if thread.name.startswith("deepsentinel"):
            thread.join(30)
    assert set(_instances) == before


def test_a_hosts_map_is_as_it_was_once_ours_is_closed(world: DemoSource) -> None:
    tools, scale = ipyleaflet.DrawControl(), ipyleaflet.ScaleControl()
    host = ipyleaflet.Map(layers=(), controls=(tools, scale), panes={"own": {"zIndex": 7}})
    before, controls = set(_instances), tuple(host.controls)
    made = Map(world, host=host)
    assert made.canvas.map is host
    # Leaflet tells every drawing tool of everything: there is room for one.
    assert sum(isinstance(each, ipyleaflet.DrawControl) for each in host.controls) == 1
    draw(made, ring(*BOX))
    assert made.pairs is not None
    made.close()
    assert host.controls == controls
    assert host.layers == ()
    assert host.panes == {"own": {"zIndex": 7}}
    assert host.comm is not None
    assert set(_instances) == before


def test_a_host_that_is_no_map_is_refused() -> None:
    with pytest.raises(TypeError, match="host is a str"):
        Map(host="map")


def test_a_cell_that_runs_again_closes_its_map(world: DemoSource, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepsentinel.widgets import cells

    run = ["1"]
    monkeypatch.setattr(cells, "here", lambda: ("cell", run[0]))
    monkeypatch.setattr(cells, "_MADE", {})
    first, beside = Map(world), Map(world)
    assert not first.closed
    run[0] = "2"
    again = Map(world)
    assert (first.closed, beside.closed, again.closed) == (True, True, False)
    again.close()


def test_a_tab_is_built_when_it_is_opened_and_one_that_fails_says_so(m: Map, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.PANELS, "Train", "deepsentinel.widgets.no_such_panel:Panel")
    assert set(m._panels) == {"Area"}
    m._tabs.selected_index = list(module.PANELS).index("Train")
    assert (m._panels["Train"].line.kind, "no_such_panel" in m._panels["Train"].line.text) == ("error", True)
    with pytest.raises(ValueError, match="no tab 'Trian'"):
        m.open("Trian")


def test_a_tab_that_a_click_and_a_job_open_at_once_is_built_once(m: Map, monkeypatch: pytest.MonkeyPatch) -> None:
    load = module.import_module

    def slowly(name: str) -> Any:
        time.sleep(0.2)
        return load(name)

    monkeypatch.setattr(module, "import_module", slowly)
    threads = [threading.Thread(target=m.open, args=("Masks",)) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert m._places["Masks"].children[1:] == (m._panels["Masks"].widget,)


def test_labels_and_train_have_each_a_map_of_their_own_and_neither_takes_the_others_away(m: Map) -> None:
    patch = make_patch((16, 16))
    classes = np.ones(patch["VV"].shape, "uint8")
    of_model, of_labels = (xr.Dataset({"class_map": (patch["VV"].dims, classes)}, patch["VV"].coords) for _ in range(2))
    pictures = m.canvas.pictures
    assert m.prediction is None
    m.state.put("prediction", of_model, "of_a_model")
    m.open("Train").opacity.value = 40
    assert pictures["prediction"].opacity == 0.4
    labels = m.open("Labels")
    assert "prediction" not in pictures
    assert labels._result.layout.display == "none"
    m.state.put("label_map", of_labels, "of_labels")
    assert pictures["prediction"].opacity == 0.7
    assert m.prediction is of_labels
    # What comes while another tab is in front, or goes, is for when one comes back.
    m.state.put("prediction", of_model, "of_another")
    assert m.prediction is of_model
    assert pictures["prediction"].opacity == 0.7
    m.open("Train")
    assert pictures["prediction"].opacity == 0.4
    m.state.drop("label_map")
    assert pictures["prediction"].opacity == 0.4
    m.state.put("label_map", of_labels, "of_labels")
    assert pictures["prediction"].opacity == 0.4
    m.open("Area")
    m.state.put("prediction", of_model, "of_a_third")
    m.state.put("label_map", of_labels, "of_others")
    assert "prediction" not in pictures
    labels.view.value = NOTHING
    m.open("Labels")
    assert "prediction" not in pictures
    # A prediction without classes is no map.
    m.open("Train")
    m.state.put("prediction", xr.Dataset(), "of_detections")
    assert "prediction" not in pictures
    assert (m._panels["Train"].line.kind, len(m.prediction)) == ("news", 0)
    m.state.drop("prediction")
    assert m.prediction is of_labels
    assert m.wait(60)


def test_who_reads_a_pair_is_shown_it(m: Map) -> None:
    draw(m, ring(*BOX))
    m._area.read.click()
    assert m.wait(60)
    assert m._tabs.titles[m._tabs.selected_index] == "Pair"


def test_the_cell_is_written_when_it_is_unfolded_and_keeps_up(m: Map) -> None:
    assert m._cell.text == ""
    m._cell.opened = True
    assert m._cell.text == m.code()
    draw(m, ring(*BOX))
    assert f"aoi = {BOX}" in m._cell.text


def test_it_shows_itself_in_a_cell(m: Map) -> None:
    data = m._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == m.widget.model_id


def test_a_first_map_waits_for_no_library_of_pixels_or_tables() -> None:
    code = (
        "import sys\nfrom deepsentinel.widgets.map import Map\nfrom deepsentinel.widgets import jobs\n"
        "jobs.Jobs.start = lambda *args, **options: None\nm = Map()\nm._repr_mimebundle_()\n"
        "heavy = ('xarray', 'geopandas', 'rasterio', 'matplotlib', 'pandas', 'torch', 'geemap', 'odc')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_all_that_a_map_shows_offline_comes_with_the_package() -> None:
    folder = Path(module.__file__).parent
    for path in [*folder.rglob("*.js"), *folder.rglob("*.css")]:
        text = path.read_text()
        assert "import(" not in text, path
        assert "http" not in text.replace("http://www.w3.org/2000/svg", ""), path
    assert WORLD.stat().st_size < 100_000
