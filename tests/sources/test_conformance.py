"""Every source keeps the same promises: the same columns and types, and pixels that keep the Patch contract."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_services import FakeService
from stac_builders import MADE_AOI, SIZE_PX, made_dn, made_grid, made_power

import deepsentinel as ds
from deepsentinel.sources import Source
from deepsentinel.sources.tables import COLUMNS, DTYPES

KINDS = ("catalog", "items file", "in memory", "api")
HAS_DEMO = importlib.util.find_spec("deepsentinel.sources.demo") is not None


@pytest.fixture(params=[*KINDS, "demo"])
def opened(
    request: pytest.FixtureRequest,
    coast_catalog: Path,
    coast_items: list[dict[str, Any]],
    service: FakeService,
    tmp_path: Path,
) -> Iterator[tuple[str, Any, Any, Any, str, str]]:
    """(kind, source, area, grid, start, end)."""
    kind = request.param
    if kind == "demo":
        if not HAS_DEMO:
            pytest.skip("the demo source is not there")
        source = ds.open_source("demo", size_px=256)
        yield kind, source, source.area, ds.geobox(source.area, resolution=100), "2018-06-01", "2018-06-12"
        return
    collection = {"type": "FeatureCollection", "features": coast_items}
    if kind == "catalog":
        source = ds.open_source(coast_catalog)
    elif kind == "items file":
        (tmp_path / "items.json").write_text(json.dumps(collection))
        source = ds.open_source(tmp_path / "items.json")
    elif kind == "in memory":
        source = ds.open_source(collection)
    else:
        source = ds.open_source(service.url)
    yield kind, source, MADE_AOI, made_grid(), "2020-06-01", "2020-06-30"


def test_search_gives_the_scenes_table(opened: Any) -> None:
    _, source, area, _, start, end = opened
    assert isinstance(source, Source)
    scenes = source.search(area, start, end)
    assert tuple(scenes.columns) == COLUMNS
    assert str(scenes.crs) == "EPSG:4326"
    for name, dtype in DTYPES.items():
        assert str(scenes[name].dtype) == ("object" if dtype == "str" else dtype), name
    assert list(scenes.index) == list(range(len(scenes)))
    keys = list(zip(scenes.time, scenes.id, strict=True))
    assert keys == sorted(keys)
    assert set(scenes.sensor) == {"S1", "S2"}
    assert scenes.time.min() >= pd.Timestamp(start, tz="UTC")
    assert scenes.time.max() < pd.Timestamp(end, tz="UTC") + pd.Timedelta(days=1)
    s1, s2 = scenes[scenes.sensor == "S1"], scenes[scenes.sensor == "S2"]
    assert s1.cloud_cover.isna().all()
    assert s1.polarisations.eq("VV+VH").all()
    assert s1.backscatter.isin(["gamma0_rtc", "sigma0"]).all()
    assert s2.level.eq("L2A").all()
    assert s2.backscatter.isna().all()
    assert scenes.attrs["source"] == source.name
    assert source.name in scenes.attrs["searched"]


def test_sensors_and_cloud_narrow_a_search(opened: Any) -> None:
    _, source, area, _, start, end = opened
    everything = source.search(area, start, end)
    for sensor in ("S1", "S2"):
        one = source.search(area, start, end, sensors=(sensor,))
        assert list(one.id) == list(everything[everything.sensor == sensor].id)
    limit = float(everything.cloud_cover.median())
    clear = source.search(area, start, end, sensors="S2", max_cloud=limit)
    assert list(clear.id) == list(everything[everything.cloud_cover <= limit].id)


def test_a_pair_becomes_a_patch(opened: Any) -> None:
    kind, source, area, grid, start, end = opened
    pairs = ds.pair(source.search(area, start, end), aoi=area, max_days=3)
    patch = ds.check_patch(source.read(pairs.iloc[0], grid))
    assert dict(patch.sizes) == {"y": grid.shape[0], "x": grid.shape[1]}
    assert patch.attrs["source"] == source.name
    assert patch.attrs["s1_id"] == pairs.s1_id.iloc[0]
    assert patch.attrs["s2_id"] == pairs.s2_id.iloc[0]
    assert patch.attrs["gap_hours"] == pytest.approx(pairs.gap_hours.iloc[0])
    assert all(type(patch[name].variable._data) is np.ndarray for name in patch.data_vars)
    assert {"B02", "B12", "SCL", "VV", "VH"} <= set(patch.data_vars)
    assert ("seed" in patch.attrs) == (kind == "demo")


def test_a_table_becomes_a_series_and_many_agree_with_one(opened: Any) -> None:
    _, source, area, grid, start, end = opened
    pairs = ds.pair(source.search(area, start, end), aoi=area, max_days=3)
    bands = ["B04", "B8A", "VV"]
    series = ds.check_patch(source.read(pairs, grid, bands=bands))
    assert series["B04"].dims == ("s2_time", "y", "x")
    assert series["VV"].dims == ("s1_time", "y", "x")
    assert series.sizes["s1_time"] <= pairs.s1_id.nunique()
    many = list(source.read_many(pairs, grid, bands=bands))
    assert len(many) == len(pairs)
    for (_, row), patch in zip(pairs.iterrows(), many, strict=True):
        assert patch.identical(source.read(row, grid, bands=bands))


def test_rioxarray_finds_the_place(opened: Any) -> None:
    pytest.importorskip("rioxarray")
    _, source, area, grid, start, end = opened
    scenes = source.search(area, start, end, sensors="S2")
    patch = source.read(scenes.iloc[0], grid, bands=["B04"])
    assert patch.rio.crs.to_epsg() == grid.crs.epsg
    assert np.allclose(patch.rio.transform(), grid.affine)
    assert patch["B04"].rio.crs.to_epsg() == grid.crs.epsg
    # and whoever reads the attributes as GDAL writes them
    written = [float(value) for value in patch["spatial_ref"].attrs["GeoTransform"].split()]
    assert tuple(written) == grid.affine.to_gdal()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_known_pixels_come_back(coast_catalog: Path, seed: int) -> None:
    """Whatever was stored (with or without the 1000), reflectance is what it was made of; radar is its power in dB."""
    source = ds.open_source(coast_catalog)
    scenes = source.search(MADE_AOI)
    row = scenes[scenes.sensor == "S2"].iloc[seed]
    patch = source.read(row, made_grid())
    for band in ("B02", "B05", "B09"):
        dn = made_dn(band, seed)
        factor = SIZE_PX // dn.shape[0]
        np.testing.assert_array_equal(patch[band].values, dn.repeat(factor, 0).repeat(factor, 1))
    assert patch.attrs["offset_removed"] == (0 if seed == 0 else 1000)
    np.testing.assert_array_equal(np.unique(patch["SCL"]), [4 + seed])
    if seed < 2:
        radar = source.read(scenes[scenes.sensor == "S1"].iloc[seed], made_grid())
        for name in ("VV", "VH"):
            power = made_power(name, seed)
            wanted = np.where(power > 0, 10 * np.log10(np.maximum(power, 1e-9)), np.nan)
            np.testing.assert_allclose(radar[name].values, wanted, rtol=1e-6)
