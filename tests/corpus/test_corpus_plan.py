from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from build_kit import SEASON, points_in, quiet_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

import deepsentinel as ds
from deepsentinel.bands import sensor_of
from deepsentinel.corpus.ordering import morton
from deepsentinel.corpus.plan import Plan, load_plan, plan_corpus
from deepsentinel.corpus.reader import grids_of
from deepsentinel.corpus.samples import COLUMNS, SERIES, read_samples, samples_table, write_samples
from deepsentinel.corpus.searching import boxes
from deepsentinel.corpus.tiling import parcel_windows, windows
from deepsentinel.errors import DeepSentinelWarning, InputError, NothingFoundError


@pytest.fixture(scope="module")
def src() -> Any:
    return ds.open_source("demo", size_px=256)


@pytest.fixture(scope="module")
def plan(src: Any) -> Plan:
    return quiet_plan(points_in(src, 30), src, max_cloud=80, choose="random")


def test_each_sample_lies_on_the_pixels_of_its_scene_and_within_both(src: Any, plan: Plan) -> None:
    for sensor in ("S1", "S2"):
        items = src.items_of(sensor, plan.samples[f"{sensor.lower()}_id"].tolist())
        for row, grid in zip(plan.samples.itertuples(), grids_of(plan.samples), strict=True):
            item = items[getattr(row, f"{sensor.lower()}_id")]
            assert shapely.geometry.shape(item["geometry"]).buffer(1e-6).covers(row.geometry)
            if sensor == "S2":
                left, _, _, top = (item["properties"]["proj:bbox"][at] for at in (0, 1, 2, 3))
                assert row.crs == f"EPSG:{item['properties']['proj:epsg']}"
                steps = (~Affine(10, 0, left, 0, -10, top)) @ (grid.affine.c, grid.affine.f)
                assert steps == (round(steps[0]), round(steps[1]))
    assert (plan.samples["gap_hours"].abs() <= 72).all()
    assert (plan.samples["cloud_cover"] <= 80).all()
    assert plan.samples["status"].eq("planned").all()


def test_the_middle_of_a_window_is_its_point(src: Any, plan: Plan) -> None:
    points = points_in(src, 30)
    for row in plan.samples.itertuples():
        point = points.geometry.iloc[row.place]
        away_m = np.hypot((point.x - row.lon) * 111_000 * np.cos(np.radians(row.lat)), (point.y - row.lat) * 111_000)
        assert away_m < 8  # half a pixel in each direction


def test_the_order_of_the_places_does_not_matter(src: Any, plan: Plan) -> None:
    shuffled = points_in(src, 30).sample(frac=1, random_state=3)
    again = quiet_plan(shuffled, src, max_cloud=80, choose="random")
    pd.testing.assert_frame_equal(again.samples, plan.samples)
    assert again.fingerprint == plan.fingerprint
    other = quiet_plan(points_in(src, 30), src, max_cloud=80, choose="random", seed=1)
    assert other.fingerprint != plan.fingerprint


def test_a_shard_opens_fewer_scenes_than_in_any_order(src: Any) -> None:
    plan = quiet_plan(points_in(src, 80), src, choose="random", samples_per_shard=8)

    def openings(table: pd.DataFrame) -> int:
        shard = np.arange(len(table)) // 8
        return int(table.groupby(shard)["s2_id"].nunique().sum())

    shuffled = [openings(plan.samples.sample(frac=1, random_state=seed)) for seed in range(5)]
    assert openings(plan.samples) < 0.5 * min(shuffled)


def test_neighbours_follow_each_other_along_the_curve() -> None:
    x, y = (axis.ravel() * 100.0 for axis in np.meshgrid(np.arange(16), np.arange(16)))
    order = np.argsort(morton(x, y))
    steps = np.hypot(np.diff(x[order]), np.diff(y[order]))
    assert len(np.unique(morton(x, y))) == 256
    assert steps.mean() < 250  # 1,200 m in a random order


def test_who_has_no_sample_is_told_with_the_reason(src: Any) -> None:
    far = gpd.GeoDataFrame(geometry=gpd.points_from_xy([10.0], [10.0]), crs="EPSG:4326")
    places = pd.concat([points_in(src, 2), far], ignore_index=True)
    with pytest.warns(DeepSentinelWarning, match=r"1 of 3 places .* no Sentinel-2 scene"):
        plan = plan_corpus(places, src, **SEASON, size_px=32)
    assert plan.unmatched[["place", "source", "reason"]].to_numpy().tolist() == [
        [2, "demo", "no Sentinel-2 scene covers it"]
    ]
    with pytest.raises(NothingFoundError, match=r"None of the 1 places .* no Sentinel-2 scene"):
        plan_corpus(far, src, **SEASON)


def test_what_to_widen_is_said_only_where_it_helps(src: Any) -> None:
    def at(lon: float, lat: float) -> gpd.GeoDataFrame:
        return gpd.GeoDataFrame(geometry=gpd.points_from_xy([lon], [lat]), crs="EPSG:4326")

    middle = at(*src.area.geometry.centroid.coords[0])
    dark = {"start": "2018-06-01", "end": "2018-06-02", "size_px": 32}
    with pytest.raises(NothingFoundError, match=r"Widen start= and end= or max_days=\.$"):
        plan_corpus(middle, src, **dark, max_days=0)
    with pytest.raises(NothingFoundError, match=r"outside 'demo'.*sample_land\(1, src\.extent\)") as told:
        plan_corpus(at(2.35, 48.85), src, **SEASON)
    assert "Widen" not in str(told.value)
    nothing = ds.open_source(src.folder / "catalog.json", name="mine")
    with pytest.raises(NothingFoundError, match=r"in the sea.*sample_land draws places on land") as told:
        plan_corpus(at(-30.0, 40.0), nothing, **SEASON)
    assert "Widen" not in str(told.value)
    # Paris is on land, and a pier off the coast may be: the outline is right to ten kilometres.
    for lon, lat in ((2.35, 48.85), (4.2, 52.12)):
        with pytest.raises(NothingFoundError, match=r"Widen start= and end=, max_cloud= or max_days=\.$"):
            plan_corpus(at(lon, lat), nothing, **SEASON, max_cloud=50)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size_px": 0}, "size_px=0"),
        ({"resolution": -1}, "resolution=-1"),
        ({"per_place": 0}, "per_place=0"),
        ({"choose": "nicest"}, "choose='nicest'"),
        ({"seed": -1}, "seed=-1"),
        ({"bands": ["B4"]}, "Did you mean 'B04'"),
        ({"max_cloud": 200}, "max_cloud"),
        ({"series": True, "per_place": 2}, "leave out per_place"),
        ({"native": True, "resolution": 20}, "leave out resolution"),
        ({"dates": ["2018-06-01"]}, "1 dates for 3 places"),
        ({"measure": -1}, "measure"),
    ],
)
def test_what_cannot_be_used_is_refused(src: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_corpus(points_in(src, 3), src, **{**SEASON, **change})


def test_places_that_are_none_are_refused(src: Any) -> None:
    points = points_in(src, 3)
    with pytest.raises(InputError, match="GeoDataFrame of points"):
        plan_corpus([(0, 49)], src, **SEASON)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no CRS"):
        plan_corpus(points.set_crs(None, allow_override=True), src, **SEASON)
    with pytest.raises(InputError, match="is a Polygon"):
        plan_corpus(points.set_geometry(points.to_crs(32631).buffer(1).to_crs(4326)), src, **SEASON)
    with pytest.raises(InputError, match="empty"):
        plan_corpus(points.iloc[:0], src, **SEASON)
    with pytest.raises(InputError, match="not a source"):
        plan_corpus(points, "demo", **SEASON)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"2 sources are called 'demo'.* Leave out all but one"):
        plan_corpus(points, [src, src], **SEASON)
    with pytest.raises(InputError, match="empty list"):
        plan_corpus(points, [], **SEASON)
    catalogs = [ds.open_source(src.folder / "catalog.json", name="mine") for _ in range(2)]
    with pytest.raises(InputError, match=r"2 sources are called 'mine'.* name='mine'"):
        plan_corpus(points, catalogs, **SEASON)


def test_saved_and_loaded_it_is_the_same(plan: Plan, tmp_path: Path) -> None:
    folder = plan.save(tmp_path / "plan")
    again = load_plan(folder)
    pd.testing.assert_frame_equal(again.samples, plan.samples)
    assert (again.fingerprint, again.cost) == (plan.fingerprint, plan.cost)
    assert again.sources[0].name == "demo"
    assert again.sources[0].size_px == 256  # type: ignore[attr-defined]
    assert plan.save(tmp_path / "plan") == folder
    text = (folder / "plan.json").read_text() + (folder / "unmatched.json").read_text()
    assert str(Path.home()) not in text
    assert "/tmp" not in text


def test_another_plan_is_not_written_over(src: Any, plan: Plan, tmp_path: Path) -> None:
    plan.save(tmp_path / "plan")
    with pytest.raises(InputError, match="another plan"):
        quiet_plan(points_in(src, 3), src).save(tmp_path / "plan")


def test_a_plan_that_was_changed_by_hand_is_noticed(plan: Plan, tmp_path: Path) -> None:
    folder = plan.save(tmp_path / "plan")
    table = read_samples(folder / "samples.parquet")
    table.loc[0, "s2_id"] = "another"
    write_samples(folder / "samples.parquet", table)
    with pytest.raises(InputError, match="was changed"):
        load_plan(folder)


def test_the_table_keeps_every_kind_of_column(tmp_path: Path) -> None:
    now = pd.Timestamp("2018-06-01T10:00:00.123456789", tz="UTC")
    table = samples_table(
        {
            "sample": [0, 1],
            "id": ["a", None],
            "s1_time": [now, None],
            "s2_ids": [["x", "y"], None],
            "s2_times": [[now, now], None],
            "relative_orbit": [3, None],
            "transform": [[1, 2, 3, 4, 5, 6], None],
        },
        [shapely.box(0, 0, 1, 1)] * 2,
    )
    write_samples(tmp_path / "a.parquet", table)
    again = read_samples([tmp_path / "a.parquet"])
    pd.testing.assert_frame_equal(again, table)
    assert set(COLUMNS) | {"geometry"} == set(again.columns)
    assert gpd.read_parquet(tmp_path / "a.parquet").geometry.iloc[0].equals(shapely.box(0, 0, 1, 1))
    assert not set(SERIES) & set(samples_table({}, []).columns)


def test_twins_of_one_place_and_date_share_an_id(src: Any) -> None:
    other = ds.open_source(src.folder / "catalog.json", name="mine")
    plan = quiet_plan(points_in(src, 12), [src, other], choose="random")
    both = plan.samples.groupby("id")
    assert len(plan.samples) == 24 - 2 * plan.unmatched["source"].eq("demo").sum()
    assert both["source"].apply(list).map(sorted).eq([["demo", "mine"]] * len(both)).all()
    for name in ("s1_time", "s2_time", "crs", "place"):
        assert both[name].nunique().eq(1).all()
    assert both["transform"].apply(lambda rows: len({tuple(row) for row in rows})).eq(1).all()


def test_a_source_without_the_twin_says_so(src: Any) -> None:
    first = quiet_plan(points_in(src, 6), src, choose="random")
    lost = first.samples["s2_id"].iloc[0]
    folder = src.folder / "catalog.json"
    other = ds.open_source(folder, name="mine")
    found = other.search

    def without(*args: Any, **kwargs: Any) -> Any:
        scenes = found(*args, **kwargs)
        return scenes[scenes["id"] != lost]

    other.search = without
    plan = quiet_plan(points_in(src, 6), [src, other], choose="random")
    count = int((first.samples["s2_id"] == lost).sum())
    told = plan.unmatched[plan.unmatched["source"] == "mine"]
    assert len(told) == count
    assert told["reason"].str.contains("mine has no scene of the same Sentinel-2 pass").all()


def test_windows_begin_at_multiples_where_they_are_asked_to() -> None:
    tile = GeoBox((100, 90), Affine(10, 0, 500_020, 0, -10, 5_000_010), "EPSG:32631")
    table = windows(tile, 24, snap_m=60)
    assert (table[["x0", "y0"]].to_numpy() % 60 == 0).all()
    assert len(table) == 4 * 3
    with pytest.raises(InputError, match="stride= that is a multiple of 60 m"):
        windows(tile, 25, snap_m=60)


def test_windows_fill_a_tile_and_stop_at_its_edge() -> None:
    tile = GeoBox((100, 90), Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32631")
    table = windows(tile, 40, 20)
    assert len(table) == 4 * 3
    assert table["x0"].max() + 400 <= 500_900
    label = gpd.GeoDataFrame(geometry=[shapely.box(500_010, 4_999_900, 500_020, 4_999_990)], crs="EPSG:32631")
    assert len(windows(tile, 40, only_labelled=label)) == 1
    with pytest.raises(InputError, match="no room"):
        windows(tile, 101)
    with pytest.raises(NothingFoundError, match="None of the 4 windows"):
        windows(tile, 40, only_labelled=label.translate(1e5).to_frame("geometry").set_crs("EPSG:32631"))


def test_windows_stay_where_they_are(src: Any) -> None:
    grid = ds.geobox(src.area, resolution=10)
    table = windows(grid, 32)
    plan = quiet_plan(table, src)
    for row in plan.samples.itertuples():
        window = table.iloc[row.place]
        assert (row.crs, row.transform[2], row.transform[5]) == (window.crs, window.x0, window.y0)
        assert row.s2_id.split("_T")[1].startswith(row.tile)
        assert row.tile.startswith(row.crs[-2:])  # its own zone, so that nothing is resampled


def test_a_parcel_lies_in_its_window_as_parcel_window_lays_it(src: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepSentinelWarning)
        labels = ds.read_labels(src.labels["parcels_2018"])
        table = parcel_windows(labels, 17)
        for number in range(0, len(labels), 9):
            lone = ds.parcel_window(labels.iloc[[number]], 17)
            assert (float(lone.x[0]) - 5, float(lone.y[0]) + 5) == tuple(table.iloc[number][["x0", "y0"]])


def test_bands_of_one_sensor_need_no_other(src: Any) -> None:
    plan = quiet_plan(points_in(src, 5), src, bands=["B04", "B08"], per_place=3)
    assert plan.samples["s1_id"].isna().all()
    assert plan.samples["id"].is_unique
    assert plan.samples.groupby("place").size().max() == 3
    assert plan.settings["held"] == ["B04", "B08"]


@pytest.mark.parametrize(("sensor", "bands"), [("S2", ["B02", "SCL"]), ("S1", ["VV", "VH"])])
def test_a_sensor_alone_is_all_its_usual_bands(src: Any, sensor: str, bands: list[str]) -> None:
    points = points_in(src, 3)
    plan = quiet_plan(points, src, sensors=sensor)
    assert plan.settings["sensors"] == [sensor]
    assert set(bands) <= set(plan.settings["held"])
    assert {sensor_of(name) for name in plan.settings["held"]} == {sensor}
    assert plan.samples[f"{'s1' if sensor == 'S2' else 's2'}_id"].isna().all()
    both = quiet_plan(points, src, sensors=("S2", "S1"))
    assert both.fingerprint == quiet_plan(points, src).fingerprint
    with pytest.raises(InputError, match="sensors= names S1 and S2, and bands= has bands of S2"):
        quiet_plan(points, src, sensors=("S1", "S2"), bands=["B02"])


def test_dates_choose_the_pair_nearest_to_them(src: Any) -> None:
    points = points_in(src, 8)
    plan = quiet_plan(points.assign(date=pd.Timestamp("2018-06-20")), src)
    away = (plan.samples["s2_time"] - pd.Timestamp("2018-06-20T12:00Z")).abs()
    assert (away <= pd.Timedelta(days=6)).all()


def test_what_is_read_is_the_blocks_that_are_touched(src: Any) -> None:
    plan = quiet_plan(points_in(src, 20), src, bands=["B04"])
    found = 0
    for name, part in plan.samples.groupby("s2_id"):
        item = src.items_of("S2", [name])[name]
        with rasterio.open(src.resolve(item["assets"]["B04"]["href"], item, "B04")) as file:
            rows, columns = file.block_shapes[0]
            touched = set()
            for grid in grids_of(part):
                left, top = (~file.transform) @ (grid.affine.c, grid.affine.f)
                touched |= {
                    (y // rows, x // columns) for y in (int(top), int(top) + 31) for x in (int(left), int(left) + 31)
                }
            found += len(touched)
    # Blocks, and a header for each file.
    assert plan.cost.requests == found + plan.samples["s2_id"].nunique()
    assert plan.cost.scenes == plan.samples["s2_id"].nunique()
    assert "headers" in plan.cost.basis["read demo S2"]


def test_costs_grow_with_the_samples_and_prices(src: Any) -> None:
    options: dict[str, Any] = {"samples_per_hour": 100, "dollars_per_hour": 2, "dollars_per_gb_month": 1}
    few, many = (quiet_plan(points_in(src, count), src, **options) for count in (5, 20))
    for name in ("store_gb", "hours", "dollars"):
        assert getattr(many.cost, name) / getattr(few.cost, name) == pytest.approx(len(many.samples) / len(few.samples))
    assert many.cost.hours == pytest.approx(len(many.samples) / 100)
    assert quiet_plan(points_in(src, 5), src).cost.hours is None
    measured = quiet_plan(points_in(src, 5), src, measure=2)
    assert (measured.cost.hours or 0) > 0
    assert "2 samples that were read" in repr(measured)
    assert "<table>" in measured._repr_html_()


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.floats(-180, 180), st.floats(-80, 80)), min_size=1, max_size=60),
    st.floats(0.5, 20),
)
def test_boxes_hold_each_place_once_and_are_small(places: list[tuple[float, float]], most_deg: float) -> None:
    lon, lat = np.array(places).T
    groups = boxes(lon, lat, most_deg)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(places)))
    assert all(max(np.ptp(lon[group]), np.ptp(lat[group])) <= most_deg for group in groups)


def test_a_cluster_is_one_search_and_two_continents_are_two(src: Any) -> None:
    near = np.linspace(0, 1.5, 50)
    assert len(boxes(near, near)) == 1
    assert len(boxes(np.r_[near, near + 90], np.r_[near, near])) == 2
    assert quiet_plan(points_in(src, 20), src).cost.searches == 2  # one box, two sensors


def test_windows_of_cover_are_native_where_they_snap(src: Any) -> None:
    region = src.area.geometry.centroid.buffer(0.02)
    plan = quiet_plan(ds.cover(region, 32, snap_m=60), src, native=True)
    assert (np.array(plan.samples["transform"].tolist())[:, [2, 5]] % 60 == 0).all()
    with pytest.raises(InputError, match=r"ds\.cover, corpus\.windows and .* with snap_m=60"):
        quiet_plan(ds.cover(region, 32), src, native=True)


@pytest.mark.parametrize(("what", "other"), [("backscatter", "sigma0"), ("level", "L1C")])
def test_one_corpus_holds_one_quantity_unless_asked(
    src: Any, what: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = ds.open_source("demo", size_px=256)
    twin.name = "twin"
    plain = twin.search

    def search(*args: Any, **options: Any) -> gpd.GeoDataFrame:
        scenes = plain(*args, **options)
        return scenes.assign(**{what: scenes[what].where(scenes[what].isna(), other)})

    season = {**SEASON, "size_px": 32}
    points = points_in(src, 3)
    alike = plan_corpus(points, [src, twin], **season)
    assert set(alike.samples["source"]) == {"demo", "twin"}
    monkeypatch.setattr(twin, "search", search)
    ours = {"backscatter": "gamma0_rtc", "level": "L2A"}[what]
    told = "; ".join(sorted([f"{other} from 'twin'", f"{ours} from 'demo'"]))
    with pytest.raises(InputError, match=rf"more than one {what}: {told}\..*mixed=True"):
        plan_corpus(points, [src, twin], **season)
    # It is meant; or bands of the other sensor alone are asked for, which are the same in both.
    assert len(plan_corpus(points, [src, twin], **season, mixed=True).samples) == len(alike.samples)
    plan_corpus(points, [src, twin], **season, sensors="S2" if what == "backscatter" else "S1")
