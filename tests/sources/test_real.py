"""Real pairs that none of us made, behind a STAC catalog: exact pixels, right dB, right offset, right place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from stac_builders import L1C, L2A, PLACES, bigearthnet_items, grid_of, terramind_items, write_catalog

import deepsentinel as ds
from deepsentinel.sources.stac import StacSource

WORLD = (-179, -85, 179, 85)


@pytest.fixture(scope="module")
def source(real: Path, tmp_path_factory: pytest.TempPathFactory) -> StacSource:
    folder = tmp_path_factory.mktemp("real")
    write_catalog(folder, terramind_items(real) + bigearthnet_items(real))
    return ds.open_source(folder)


@pytest.fixture(scope="module")
def scenes(source: StacSource) -> pd.DataFrame:
    return source.search(WORLD)


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


@pytest.mark.parametrize("place", PLACES)
def test_terramind_pair_comes_through_exactly(source: StacSource, scenes: pd.DataFrame, real: Path, place: str) -> None:
    s1_path, s2_path = real / f"terramind/S1RTC/{place}.tif", real / f"terramind/S2L2A/{place}.tif"
    aoi = scenes[scenes.id == f"S1_{place}"].geometry.iloc[0]
    found = source.search(aoi, PLACES[place][0][:10], PLACES[place][1][:10])
    pairs = ds.pair(found[(found.sensor == "S1") | (found.level == "L2A")], aoi=aoi, max_days=3)
    assert len(pairs) == 1
    patch = ds.check_patch(source.read(pairs.iloc[0], grid_of(s2_path)))
    for name, stored in zip(L2A, pixels(s2_path), strict=True):
        np.testing.assert_array_equal(patch[name].values, stored)
    for name, stored in zip(("VV", "VH"), pixels(s1_path), strict=True):
        np.testing.assert_array_equal(patch[name].values, stored.astype("float32"))
    # water that keeps its value of 1: these pixels are dark, not missing
    assert int((patch["B12"] == 1).sum()) == int((pixels(s2_path)[11] == 1).sum())
    assert patch.attrs["level"] == "L2A"
    assert patch.attrs["backscatter"] == "gamma0_rtc"
    assert patch.attrs["offset_removed"] == 0
    hours = (pd.Timestamp(PLACES[place][0]) - pd.Timestamp(PLACES[place][1])).total_seconds() / 3600
    assert patch.attrs["gap_hours"] == pytest.approx(hours)
    assert pairs.gap_hours.iloc[0] == pytest.approx(hours)


@pytest.mark.parametrize(("place", "offset"), [("637U_59R_1_3", 0), ("282D_485L_3_3", 1000)])
def test_only_the_reprocessed_l1c_loses_an_offset(
    source: StacSource, scenes: pd.DataFrame, real: Path, place: str, offset: int
) -> None:
    path = real / f"terramind/S2L1C/{place}.tif"
    row = scenes[scenes.id == f"S2_{place}_L1C"].iloc[0]
    patch = ds.check_patch(source.read(row, grid_of(path)))
    assert patch.attrs["offset_removed"] == offset
    assert patch.attrs["level"] == "L1C"
    stored = dict(zip(L1C, pixels(path).astype(int), strict=True))
    for name in L1C:
        np.testing.assert_array_equal(patch[name].values, np.maximum(stored[name] - offset, 1))
    # Band 10 sees no ground, so it tells whether the offset is in there: near zero once it is gone.
    assert 1 <= float(patch["B10"].median()) < 60


def test_l1c_and_l2a_agree_once_the_offset_is_gone(source: StacSource, scenes: pd.DataFrame, real: Path) -> None:
    """The atmosphere takes little in the infrared: a forgotten offset of 1000 would show at once."""
    for place in PLACES:
        grid = grid_of(real / f"terramind/S2L2A/{place}.tif")
        rows = [scenes[scenes.id == f"S2_{place}_{level}"].iloc[0] for level in ("L1C", "L2A")]
        top, surface = (source.read(row, grid) for row in rows)
        for band in ("B8A", "B12"):
            difference = np.abs(top[band].astype(float) - surface[band].astype(float))
            assert float(difference.median()) < 400, (place, band)


@pytest.mark.parametrize("tail", ["29UPU_4_55", "29UPU_36_85", "29SND_56_35"])
def test_bigearthnet_pair_comes_through_exactly(
    source: StacSource, scenes: pd.DataFrame, real: Path, tail: str
) -> None:
    ben = scenes[scenes.collection.str.startswith("bigearthnet")]
    s1 = ben[(ben.sensor == "S1") & ben.id.str.endswith(tail)].iloc[0]
    pairs = ds.pair(ben, aoi=s1.geometry.buffer(-0.002), max_days=3)
    row = pairs[pairs.s1_id == s1.id].iloc[0]
    folder = real / "bigearthnet/S2" / row.s2_id
    grid = grid_of(folder / f"{row.s2_id}_B02.tif")
    patch = ds.check_patch(source.read(row, grid))
    for name in L2A:
        stored = pixels(folder / f"{row.s2_id}_{name}.tif")[0]
        factor = 120 // stored.shape[0]
        np.testing.assert_array_equal(patch[name].values, stored.repeat(factor, 0).repeat(factor, 1))
    for name in ("VV", "VH"):
        stored = pixels(real / f"bigearthnet/S1/{row.s1_id}/{row.s1_id}_{name}.tif")[0]
        np.testing.assert_array_equal(patch[name].values, stored.astype("float32"))
    assert patch.attrs["backscatter"] == "sigma0"


def test_read_many_and_read_agree(source: StacSource, scenes: pd.DataFrame, real: Path) -> None:
    rows = scenes[scenes.collection.isin(["sentinel-1-rtc", "sentinel-2-l2a"])]
    grids = [grid_of(real / f"terramind/S2L2A/{place}.tif") for row in rows.id for place in PLACES if place in row]
    for (_, row), grid, patch in zip(rows.iterrows(), grids, source.read_many(rows, grids), strict=True):
        one = source.read(row, grid)
        assert one.identical(patch)


def test_a_grid_shifted_by_whole_pixels_is_a_copy(source: StacSource, scenes: pd.DataFrame, real: Path) -> None:
    grid = grid_of(real / "terramind/S2L2A/637U_59R_1_3.tif")
    row = scenes[scenes.id == "S1_637U_59R_1_3"].iloc[0]
    whole, part = source.read(row, grid), source.read(row, grid[40:100, 30:90])
    np.testing.assert_array_equal(whole["VV"][40:100, 30:90], part["VV"])


def test_radar_on_another_lattice_is_averaged_in_power(source: StacSource, scenes: pd.DataFrame, real: Path) -> None:
    """Half a pixel off, a bilinear value is the mean of four neighbours: in power, not in dB."""
    grid = grid_of(real / "terramind/S2L2A/637U_59R_1_3.tif")
    row = scenes[scenes.id == "S1_637U_59R_1_3"].iloc[0]
    shifted = grid[50:80, 50:80].translate_pix(0.5, 0.5)
    got = source.read(row, shifted)["VV"]
    power = 10 ** (pixels(real / "terramind/S1RTC/637U_59R_1_3.tif")[0][50:81, 50:81] / 10)
    mean = (power[:-1, :-1] + power[1:, :-1] + power[:-1, 1:] + power[1:, 1:]) / 4
    np.testing.assert_allclose(got, 10 * np.log10(mean), atol=1e-3)
