"""Every source keeps the same promises: the same columns and types, and pixels that keep the Patch contract; and where
two of them hold the same scenes, they give the same pixels (see source_kinds.py for how a new kind joins)."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fake_services import FakeService
from source_kinds import END, SIZE_PX, START, Kind, World, kinds
from stac_builders import MADE_AOI, made_dn, made_grid, made_power
from stac_builders import SIZE_PX as MADE_PX

import deepsentinel as ds
from deepsentinel.sources import Source
from deepsentinel.sources.demo import DemoSource
from deepsentinel.sources.tables import COLUMNS, DTYPES

COAST = ("catalog", "items file", "in memory", "api")
KINDS = kinds()


@dataclass
class Opened:
    """A source, and what to ask of it."""

    kind: str
    source: Any
    area: Any
    grid: Any
    start: str
    end: str
    sensors: tuple[str, ...] = ("S1", "S2")

    def scenes(self, **options: Any) -> Any:
        return self.source.search(self.area, self.start, self.end, **options)

    def rows(self) -> Any:
        """Pairs, or scenes where there is one sensor only."""
        scenes = self.scenes()
        return ds.pair(scenes, aoi=self.area, max_days=3) if len(self.sensors) == 2 else scenes

    def bands(self, *names: str) -> list[str]:
        return [name for name in names if ("S1" if name in ("VV", "VH", "angle") else "S2") in self.sensors]


@pytest.fixture(scope="module")
def world() -> World:
    return World(DemoSource(size_px=SIZE_PX))


@pytest.fixture(scope="module")
def of_world(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Sources of the demo world's scenes by kind, each opened once, when it is first asked for."""
    with ExitStack() as stack:

        class OpenedOnce(dict[str, Any]):
            def __missing__(self, name: str) -> Any:
                kind = next(kind for kind in KINDS if kind.name == name)
                self[name] = kind.open(world, tmp_path_factory.mktemp("kind"), stack)
                return self[name]

        yield OpenedOnce()


@pytest.fixture(params=[*COAST, *(kind.name for kind in KINDS)])
def opened(
    request: pytest.FixtureRequest,
    coast_catalog: Path,
    coast_items: list[dict[str, Any]],
    service: FakeService,
    world: World,
    of_world: dict[str, Any],
    tmp_path: Path,
) -> Opened:
    name = request.param
    if name not in COAST:
        kind = next(kind for kind in KINDS if kind.name == name)
        grid = ds.geobox(world.area, resolution=10 if kind.native_only else 100)
        return Opened(name, of_world[name], world.area, grid, START, END, kind.sensors)
    collection = {"type": "FeatureCollection", "features": coast_items}
    if name == "catalog":
        source = ds.open_source(coast_catalog)
    elif name == "items file":
        (tmp_path / "items.json").write_text(json.dumps(collection))
        source = ds.open_source(tmp_path / "items.json")
    elif name == "in memory":
        source = ds.open_source(collection)
    else:
        source = ds.open_source(service.url)
    return Opened(name, source, MADE_AOI, made_grid(), "2020-06-01", "2020-06-30")


# -- the protocol ------------------------------------------------------------------------------------------------------


def test_search_gives_the_scenes_table(opened: Opened) -> None:
    source = opened.source
    assert isinstance(source, Source)
    scenes = opened.scenes()
    assert tuple(scenes.columns) == COLUMNS
    assert str(scenes.crs) == "EPSG:4326"
    for name, dtype in DTYPES.items():
        assert str(scenes[name].dtype) == ("object" if dtype == "str" else dtype), name
    assert list(scenes.index) == list(range(len(scenes)))
    keys = list(zip(scenes.time, scenes.id, strict=True))
    assert keys == sorted(keys)
    assert set(scenes.sensor) == set(opened.sensors)
    assert scenes.time.min() >= pd.Timestamp(opened.start, tz="UTC")
    assert scenes.time.max() < pd.Timestamp(opened.end, tz="UTC") + pd.Timedelta(days=1)
    s1, s2 = scenes[scenes.sensor == "S1"], scenes[scenes.sensor == "S2"]
    assert s1.cloud_cover.isna().all()
    assert s1.polarisations.eq("VV+VH").all()
    assert s1.backscatter.isin(["gamma0_rtc", "sigma0"]).all()
    assert s2.level.eq("L2A").all()
    assert s2.backscatter.isna().all()
    assert scenes.attrs["source"] == source.name
    assert source.name in scenes.attrs["searched"]


def test_sensors_and_cloud_narrow_a_search(opened: Opened) -> None:
    everything = opened.scenes()
    for sensor in opened.sensors:
        one = opened.scenes(sensors=(sensor,))
        assert list(one.id) == list(everything[everything.sensor == sensor].id)
    limit = float(everything.cloud_cover.median())
    clear = opened.scenes(sensors="S2", max_cloud=limit)
    assert list(clear.id) == list(everything[everything.cloud_cover <= limit].id)
    assert 0 < len(clear) < (everything.sensor == "S2").sum()


def test_a_row_becomes_a_patch(opened: Opened) -> None:
    rows, grid = opened.rows(), opened.grid
    patch = ds.check_patch(opened.source.read(rows.iloc[0], grid))
    assert dict(patch.sizes) == {"y": grid.shape[0], "x": grid.shape[1]}
    assert patch.attrs["source"] == opened.source.name
    if len(opened.sensors) == 2:
        assert patch.attrs["s1_id"] == rows.s1_id.iloc[0]
        assert patch.attrs["s2_id"] == rows.s2_id.iloc[0]
        assert patch.attrs["gap_hours"] == pytest.approx(rows.gap_hours.iloc[0])
    assert all(type(patch[name].variable._data) is np.ndarray for name in patch.data_vars)
    assert set(opened.bands("B02", "B12", "SCL", "VV", "VH")) <= set(patch.data_vars)
    assert ("seed" in patch.attrs) == (opened.kind == "demo")


def test_a_table_becomes_a_series_and_many_agree_with_one(opened: Opened) -> None:
    rows, source, grid = opened.rows(), opened.source, opened.grid
    bands = opened.bands("B04", "B8A", "VV")
    series = ds.check_patch(source.read(rows, grid, bands=bands))
    assert series["B04"].dims == ("s2_time", "y", "x")
    if "VV" in bands:
        assert series["VV"].dims == ("s1_time", "y", "x")
        assert series.sizes["s1_time"] <= rows.s1_id.nunique()
    many = list(source.read_many(rows, grid, bands=bands))
    assert len(many) == len(rows)
    for (_, row), patch in zip(rows.iterrows(), many, strict=True):
        assert patch.identical(source.read(row, grid, bands=bands))


def test_rioxarray_finds_the_place(opened: Opened) -> None:
    pytest.importorskip("rioxarray")
    grid = opened.grid
    patch = opened.source.read(opened.scenes(sensors="S2").iloc[0], grid, bands=["B04"])
    assert patch.rio.crs.to_epsg() == grid.crs.epsg
    assert np.allclose(patch.rio.transform(), grid.affine)
    assert patch["B04"].rio.crs.to_epsg() == grid.crs.epsg
    # and whoever reads the attributes as GDAL writes them
    written = [float(value) for value in patch["spatial_ref"].attrs["GeoTransform"].split()]
    assert tuple(written) == grid.affine.to_gdal()


def test_a_source_travels_to_other_processes(opened: Opened) -> None:
    """Pickled, it finds by their ids the scenes that another found."""
    row = opened.scenes(sensors="S2").iloc[0]
    twin = pickle.loads(pickle.dumps(opened.source))
    there, here = (source.read(row, opened.grid, bands=["B04"]) for source in (twin, opened.source))
    assert there.identical(here)


# -- the same scenes ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=[kind for kind in KINDS if kind.name != "demo"], ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


def known_by(kind: Kind, scenes: pd.DataFrame) -> pd.Series:
    """What a scene goes by in every source that holds it: its id, or what it is."""
    if kind.keeps_ids:
        return scenes["id"]
    keys = zip(scenes["sensor"], scenes["time"].dt.floor("s").astype(str), scenes["crs"], strict=True)
    return pd.Series([" ".join(key) for key in keys], index=scenes.index)


def side_by_side(kind: Kind, world: World, source: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The demo's scenes and this source's, row by row the same scene."""
    theirs = source.search(world.area, START, END)
    ours = world.scenes[world.scenes.sensor.isin(kind.sensors)]
    ours, theirs = (scenes.set_index(known_by(kind, scenes)).sort_index() for scenes in (ours, theirs))
    assert ours.index.is_unique
    assert list(ours.index) == list(theirs.index)
    return ours, theirs


def assert_same_scenes(kind: Kind, ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    ids = {"id", "collection"} if not kind.keeps_ids else {"collection"}
    for name in set(COLUMNS) - ids - kind.other_columns - {"geometry", "backscatter"}:
        pd.testing.assert_series_equal(ours[name], theirs[name], check_names=False, obj=name)
    if "geometry" not in kind.other_columns:
        assert ours.geometry.geom_equals_exact(theirs.geometry, 1e-6).all()
    assert set(theirs.backscatter[theirs.sensor == "S1"]) <= {kind.backscatter}


def test_the_same_scenes_are_found(kind: Kind, world: World, of_world: dict[str, Any]) -> None:
    assert_same_scenes(kind, *side_by_side(kind, world, of_world[kind.name]))


def test_the_same_pairs_are_made(kind: Kind, world: World, of_world: dict[str, Any]) -> None:
    if len(kind.sensors) < 2:
        pytest.skip(f"{kind} has {kind.sensors[0]} only")
    ours, theirs = side_by_side(kind, world, of_world[kind.name])
    names = dict(zip(theirs.id, ours.id, strict=True))
    made = ds.pair(theirs.reset_index(drop=True), aoi=world.area, max_days=3)
    wanted = ds.pair(ours.reset_index(drop=True), aoi=world.area, max_days=3)
    assert len(wanted) >= 6
    assert {(names[row.s1_id], names[row.s2_id], row.gap_hours) for row in made.itertuples()} == {
        (row.s1_id, row.s2_id, row.gap_hours) for row in wanted.itertuples()
    }


def assert_same_pixels(kind: Kind, ours: xr.Dataset, theirs: xr.Dataset) -> int:
    """Every pixel, type, date and place; how many bands were compared."""
    compared = [name for name in ours.data_vars if name in (*kind.same_numbers, *kind.close_numbers)]
    assert set(compared) <= set(theirs.data_vars)
    for name in compared:
        one, other = ours[name].variable, theirs[name].variable
        assert one.dims == other.dims, name
        assert one.dtype == other.dtype, name
        assert one.attrs == other.attrs, name
        if name in kind.same_numbers:
            np.testing.assert_array_equal(one.values, other.values, err_msg=name)
        else:
            np.testing.assert_array_equal(np.isnan(one.values), np.isnan(other.values), err_msg=name)
            np.testing.assert_allclose(one.values, other.values, rtol=0, atol=kind.close_numbers[name], err_msg=name)
    for name in ("y", "x", "spatial_ref", "s1_time", "s2_time"):
        assert (name in ours.coords) == (name in theirs.coords), name
        if name in ours.coords:
            assert ours[name].variable.identical(theirs[name].variable), name
    for name in ("level", "gap_hours", "orbit"):
        assert ours.attrs.get(name) == theirs.attrs.get(name), name
    if "backscatter" in ours.attrs:
        assert theirs.attrs["backscatter"] == kind.backscatter
    return len(compared)


@pytest.fixture(scope="module")
def of_demo(world: World) -> dict[str, dict[str, xr.Dataset]]:
    """Every scene on a grid of each zone, as the demo world has it."""
    return {
        crs: dict(zip(world.scenes.id, world.demo.read_many(world.scenes, world.grid(crs)), strict=True))
        for crs in ZONES
    }


ZONES = ("EPSG:32630", "EPSG:32631")
BOTH_ZONES = pytest.mark.parametrize("crs", ZONES)


@BOTH_ZONES
def test_the_same_scene_has_the_same_pixels(
    kind: Kind, world: World, of_world: dict[str, Any], of_demo: dict[str, dict[str, xr.Dataset]], crs: str
) -> None:
    """Every scene, every band, on a grid of each of the two zones: copied, and (from the other zone) resampled."""
    ours, theirs = side_by_side(kind, world, of_world[kind.name])
    if kind.native_only:
        ours, theirs = ours[ours["crs"] == crs], theirs[theirs["crs"] == crs]
    there = of_world[kind.name].read_many(theirs.reset_index(drop=True), world.grid(crs))
    compared = 0
    for name, patch in zip(ours.id, there, strict=True):
        compared += assert_same_pixels(kind, of_demo[crs][name], patch)
    assert compared >= 2 * len(ours)


def test_the_same_pair_has_the_same_pixels(kind: Kind, world: World, of_world: dict[str, Any]) -> None:
    """Pairs, as `read` gives them; and coarser than the products, for those whose pixels we resample ourselves."""
    ours, theirs = side_by_side(kind, world, of_world[kind.name])
    ours, theirs = ours[ours["crs"] == "EPSG:32630"], theirs[theirs["crs"] == "EPSG:32630"]
    row, twin = [], []
    for sensor in kind.sensors:
        chosen = ours[ours.sensor == sensor].iloc[-1]
        row.append((f"{sensor.lower()}_id", chosen.id))
        twin.append((f"{sensor.lower()}_id", theirs.loc[chosen.name, "id"]))
    row, twin = dict(row), dict(twin)
    if len(kind.sensors) == 1:
        row, twin = ({"sensor": kind.sensors[0], "id": next(iter(one.values()))} for one in (row, twin))
    grids = [world.grid("EPSG:32630")]
    if not kind.native_only:
        grids.append(ds.geobox(world.area, resolution=40, crs="EPSG:32630"))
    for grid in grids:
        one, other = (source.read(what, grid) for source, what in ((world.demo, row), (of_world[kind.name], twin)))
        assert assert_same_pixels(kind, one, other) >= 2


# -- known pixels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_known_pixels_come_back(coast_catalog: Path, seed: int) -> None:
    """Whatever was stored (with or without the 1000), reflectance is what it was made of; radar is its power in dB."""
    source = ds.open_source(coast_catalog)
    scenes = source.search(MADE_AOI)
    row = scenes[scenes.sensor == "S2"].iloc[seed]
    patch = source.read(row, made_grid())
    for band in ("B02", "B05", "B09"):
        dn = made_dn(band, seed)
        factor = MADE_PX // dn.shape[0]
        np.testing.assert_array_equal(patch[band].values, dn.repeat(factor, 0).repeat(factor, 1))
    assert patch.attrs["offset_removed"] == (0 if seed == 0 else 1000)
    np.testing.assert_array_equal(np.unique(patch["SCL"]), [4 + seed])
    if seed < 2:
        radar = source.read(scenes[scenes.sensor == "S1"].iloc[seed], made_grid())
        for name in ("VV", "VH"):
            power = made_power(name, seed)
            wanted = np.where(power > 0, 10 * np.log10(np.maximum(power, 1e-9)), np.nan)
            np.testing.assert_allclose(radar[name].values, wanted, rtol=1e-6)
