"""Searching where it is easily got wrong: dates that are not text, the antimeridian, pages, catalogs that change."""

from __future__ import annotations

import copy
import dataclasses
import json
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from fake_services import FakeService
from stac_builders import MADE_AOI, made_dn, made_grid, write_band

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, InputError, NothingFoundError, SourceError
from deepsentinel.sources.tables import item_geometry

Items = list[dict[str, Any]]
FIJI_WEST, FIJI_EAST = (179.6, -16.8, 179.9, -16.2), (-179.9, -16.8, -179.6, -16.2)


def collection(items: Items, **more: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": items, **more}


def scene(name: str, when: str, **where: Any) -> dict[str, Any]:
    return {"type": "Feature", "id": name, "properties": {"datetime": when}, "assets": {}, **where}


def ids(source: Any, aoi: Any, start: Any = None, end: Any = None, **more: Any) -> set[str]:
    try:
        return set(source.search(aoi, start, end, **more).id)
    except NothingFoundError:
        return set()


# -- dates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "day",
    [date(2020, 6, 1), np.datetime64("2020-06-01"), pd.Period("2020-06-01"), "2020-06-01", "20200601", "2020/06/01"],
    ids=repr,
)
def test_a_day_is_a_whole_day_however_it_is_written(coast_items: Items, day: Any) -> None:
    source = ds.open_source(collection(coast_items))
    assert ids(source, MADE_AOI, day, day) == {"S2A_31UDQ_20200601_0_L2A"}, "sensed at 10:57"


def test_an_instant_is_an_instant_in_any_time_zone(coast_items: Items) -> None:
    source = ds.open_source(collection(coast_items))
    summer = timezone(timedelta(hours=2))
    sensed = datetime(2020, 6, 1, 12, 57, tzinfo=summer)  # 10:57 UTC
    assert ids(source, MADE_AOI, sensed, sensed) == {"S2A_31UDQ_20200601_0_L2A"}
    assert ids(source, MADE_AOI, datetime(2020, 6, 1), datetime(2020, 6, 1)) == set(), "midnight, as it says"


@pytest.mark.parametrize("value", [2018, 2018.5, "10:00", "01/08/2018", "31.08.2018", "now", ""], ids=repr)
def test_what_is_no_date_is_refused(coast_items: Items, value: Any) -> None:
    """Pandas would take a year for nanoseconds since 1970, a time for today, and 01/08 for January."""
    with pytest.raises(InputError, match="is not a date: write '2018-05-01'"):
        ds.open_source(collection(coast_items)).search(MADE_AOI, value)


# -- places -----------------------------------------------------------------------------------------------------------


def over_fiji() -> Items:
    """The same square across 180 degrees in every way that catalogs write it, and one scene at Greenwich."""
    west, east, south, north = 179.5, -179.5, -17, -16
    flat = shapely.box(-179.5, south, 179.5, north)  # corners as they are: 359 degrees wide on paper
    cut = shapely.union_all([shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)])
    shapes = {
        "S2A_flat": {"geometry": shapely.geometry.mapping(flat)},
        "S2A_cut": {"geometry": shapely.geometry.mapping(cut)},
        "S2A_beyond": {"geometry": shapely.geometry.mapping(shapely.box(west, south, east + 360, north))},
        "S2A_box": {"bbox": [west, south, east, north]},
        "S2A_box3d": {"bbox": [west, south, 0, east, north, 100]},
    }
    there = [scene(name, "2020-06-01T22:00:00Z", **where) for name, where in shapes.items()]
    return [*there, scene("S2A_africa", "2020-06-01T10:00:00Z", bbox=[0, south, 1, north])]


def test_scenes_over_the_antimeridian_are_there_and_nowhere_else() -> None:
    source = ds.open_source(collection(over_fiji()))
    there = {"S2A_flat", "S2A_cut", "S2A_beyond", "S2A_box", "S2A_box3d"}
    for aoi in (FIJI_WEST, FIJI_EAST, (179.6, -16.8, -179.6, -16.2)):
        assert ids(source, aoi) == there
    assert ids(source, (0.2, -16.8, 0.4, -16.2)) == {"S2A_africa"}
    for one in over_fiji()[:-1]:
        geometry = item_geometry(one)
        assert geometry is not None
        assert geometry.area == pytest.approx(1.0)
        assert np.abs(geometry.bounds).max() <= 180


@pytest.mark.parametrize(
    "wrong",
    [
        {"geometry": {"type": "Polygon"}},
        {"geometry": {"type": "Polygon", "coordinates": 7}},
        {"geometry": {"x": 1}},
        {"properties": {"datetime": "yesterday"}},
        {"properties": {"datetime": "2020-06-01T10:57:00Z", "eo:cloud_cover": "n/a"}},
    ],
    ids=repr,
)
def test_an_item_that_states_nonsense_is_left_out_aloud(coast_items: Items, wrong: dict[str, Any]) -> None:
    broken = scene("S2A_broken", "2020-06-01T22:00:00Z", bbox=[3, 49, 4, 50]) | wrong
    source = ds.open_source(collection([broken, *coast_items]))
    with pytest.warns(DeepSentinelWarning, match=r"1 scene.* such as S2A_broken were left out"):
        assert len(source.search(MADE_AOI)) == len(coast_items)


def test_a_collection_that_is_not_there_is_said(coast_items: Items, coast_catalog: Path) -> None:
    for where in (collection(coast_items), coast_catalog):
        source = ds.open_source(where, collections={"S2": "sentinel-2-l3a"})
        with pytest.raises(InputError, match=r"no collection sentinel-2-l3a of S2.* It has .*sentinel-2-l2a"):
            source.search(MADE_AOI)
        assert set(source.search(MADE_AOI, sensors="S1").sensor) == {"S1"}


@pytest.mark.parametrize("features", [[None], [{"type": "Feature", "geometry": None, "properties": {}}]], ids=repr)
def test_geojson_of_something_else(features: list[Any]) -> None:
    with pytest.raises(SourceError, match="holds an item without an id"):
        ds.open_source(collection(features))


def test_what_is_no_place_to_open(coast_items: Items) -> None:
    with pytest.raises(InputError, match=r"from a list: .*'FeatureCollection', 'features': items"):
        ds.open_source(coast_items)  # type: ignore[arg-type]


# -- pages ------------------------------------------------------------------------------------------------------------


def test_pages_of_an_item_collection_are_followed(
    service: FakeService, coast_items: Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def page(number: int) -> dict[str, Any]:
        follow = {"rel": "next", "href": f"./page{number + 1}.json"} if number + 1 < len(coast_items) else {"rel": "x"}
        return collection([coast_items[number]], links=[follow])

    for number in range(len(coast_items)):
        (tmp_path / f"page{number}.json").write_text(json.dumps(page(number)))
    monkeypatch.setattr(service, "files", tmp_path)
    assert len(ds.open_source(f"{service.url}/files/page0.json").search(MADE_AOI)) == len(coast_items)


@pytest.mark.parametrize("how", ["memory", "file"])
def test_one_page_of_several_is_not_taken_for_all(coast_items: Items, tmp_path: Path, how: str) -> None:
    saved = collection(coast_items[:2], links=[{"rel": "next", "href": "https://a.org/search?token=2"}])
    (tmp_path / "page.json").write_text(json.dumps(saved))
    source = ds.open_source(saved if how == "memory" else tmp_path / "page.json")
    with pytest.warns(DeepSentinelWarning, match="one page of several: only its 2 items"):
        source.search(MADE_AOI)


def test_files_are_found_by_address_too(coast_items: Items, tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "items.json").write_text(json.dumps(collection(coast_items)))
    assert len(ds.open_source((folder / "items.json").as_uri()).search(MADE_AOI)) == len(coast_items)


# -- catalogs that change ---------------------------------------------------------------------------------------------


def test_a_scene_that_was_replaced_is_read_anew(service: FakeService) -> None:
    """Between two searches the service has renewed a link and reprocessed the scene; its id stays."""
    service.items = copy.deepcopy(service.items)
    source = ds.open_source(service.url)
    row = source.search(MADE_AOI, sensors="S2").iloc[0]
    before = source.read(row, made_grid(), bands=["B04"])
    mine = next(one for one in service.items if one["id"] == row.id)
    mine["properties"] |= {"s2:processing_baseline": "05.09", "eo:cloud_cover": 7.0}
    other = np.where(made_dn("B04", 0) > 0, made_dn("B04", 0) + 3000, 0).astype("uint16")
    assert service.files is not None
    path = write_band(service.files / "B04_anew.tif", other, left=499_980, top=5_450_040, resolution_m=10, nodata=0)
    mine["assets"]["B04"]["href"] = str(path)
    again = source.search(MADE_AOI, sensors="S2").iloc[0]
    assert (again.baseline, again.cloud_cover) == ("05.09", 7.0)
    after = source.read(again, made_grid(), bands=["B04"])
    assert after.attrs["offset_removed"] == 1000
    difference = after["B04"].astype(int) - before["B04"]
    assert set(np.unique(difference.where(before["B04"] > 0, 2000))) == {2000}


def test_a_service_that_was_down_has_lost_nothing(service: FakeService) -> None:
    source = ds.open_source(service.url)
    row = {"sensor": "S2", "id": "S2A_31UDQ_20200601_0_L2A"}
    service.moods = [400]
    with pytest.raises(SourceError, match="does not answer"):
        source.read(row, made_grid(), bands=["B04"])
    assert int(source.read(row, made_grid(), bands=["B04"])["B04"].max()) > 0


def test_what_is_kept_of_an_item_is_small_and_enough(service: FakeService, coast_items: Items) -> None:
    service.items = copy.deepcopy(coast_items)
    for one in service.items:
        one["links"] = [{"rel": "self", "href": "x" * 100_000}]
        one["assets"]["thumbnail"] = {"href": "t.png", "roles": ["thumbnail"], "alternate": {"s3": "x" * 100_000}}
    source = ds.open_source(service.url)
    scenes = source.search(MADE_AOI)
    held = [source.items_of(row.sensor, [row.id])[row.id] for row in scenes.itertuples()]
    assert all(len(json.dumps(one)) < 20_000 for one in held)
    whole = ds.open_source(collection(coast_items))
    for row in scenes.itertuples():
        told = source.assets_of(source.items_of(row.sensor, [row.id])[row.id])
        known = whole.assets_of(next(one for one in coast_items if one["id"] == row.id))
        there = {name: f"{service.url}/files/{Path(ref.href).name}" for name, ref in known.items()}
        assert told == {name: dataclasses.replace(ref, href=there[name]) for name, ref in known.items()}
