from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from build_kit import BreakingSource, digest, points_in, quiet_build, quiet_plan

import deepsentinel as ds
from deepsentinel.bands import S2_BANDS, SCL_CLOUDY
from deepsentinel.contract import check_patch
from deepsentinel.corpus.patches import patch_of
from deepsentinel.corpus.plan import Plan
from deepsentinel.corpus.reader import grids_of
from deepsentinel.corpus.samples import SERIES, read_samples
from deepsentinel.corpus.store import open_corpus
from deepsentinel.corpus.tiling import parcel_windows
from deepsentinel.errors import DeepSentinelWarning, InputError

BANDS = ["B02", "B05", "B09", "SCL", "VV"]


@pytest.fixture(scope="module")
def src() -> Any:
    return BreakingSource(size_px=256)


@pytest.fixture(scope="module")
def plan(src: Any) -> Plan:
    # One place in two thirds of the scenes: the world's edge cuts some of them off.
    return quiet_plan(points_in(src, 5), src, series=True, bands=BANDS, size_px=24, samples_per_shard=2, max_cloud=70)


@pytest.fixture(scope="module")
def built(src: Any, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series") / "c.zarr"
    assert quiet_build(plan, folder, {"corine": src.labels["corine"]}).failed == 0
    return folder


def by_reading(src: Any, row: Any, bands: list[str] = BANDS) -> xr.Dataset:
    """The same series as anybody would read it: each scene of the row, of one pass the best filled from the next."""
    scenes = [
        {"sensor": sensor, "id": name}
        for sensor in ("S1", "S2")
        for joined in row[f"{sensor.lower()}_ids"]
        for name in joined.split("+")
    ]
    grid = grids_of(pd.DataFrame([row]))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepSentinelWarning)
        return src.read(pd.DataFrame(scenes), grid, bands=bands)


def test_a_series_is_what_reading_its_scenes_gives(src: Any, plan: Plan, built: Path) -> None:
    corpus = open_corpus(built)
    for number in range(len(plan.samples)):
        row = plan.samples.iloc[number]
        there = by_reading(src, row)
        here = check_patch(patch_of(corpus, number))
        np.testing.assert_array_equal(here["s2_time"], there["s2_time"])
        np.testing.assert_array_equal(here["s1_time"], there["s1_time"])
        for name in BANDS:
            if name == "VV":
                np.testing.assert_allclose(here[name].values, there[name].values, atol=0.0051)
            else:
                np.testing.assert_array_equal(here[name].values, there[name].values)


def test_each_sensor_has_its_own_dates_and_the_rest_is_padding(plan: Plan, built: Path) -> None:
    corpus = open_corpus(built)
    for sensor, fill in (("s1", np.nan), ("s2", 0)):
        lengths = [len(ids) for ids in plan.samples[f"{sensor}_ids"]]
        assert corpus.sizes[f"{sensor}_step"] == max(lengths)
        times = corpus[f"{sensor}_time"].to_numpy()
        assert (~np.isnat(times)).sum(axis=1).tolist() == lengths
        for number, length in enumerate(lengths):
            assert (np.diff(times[number][:length]) > np.timedelta64(0)).all()
            padding = corpus[sensor].isel({"sample": number, f"{sensor}_step": slice(length, None)}).to_numpy()
            assert np.isnan(padding).all() if fill != fill else (padding == fill).all()
    years = pd.DatetimeIndex(corpus["s2_time"].to_numpy().ravel()).dropna()
    assert set(years.year) == {2018}
    assert years.day_of_year.min() >= 152


def test_there_is_one_date_a_pass(src: Any, plan: Plan) -> None:
    for row in plan.samples.itertuples():
        for ids, times in ((row.s1_ids, row.s1_times), (row.s2_ids, row.s2_times)):
            stamps = pd.DatetimeIndex(times)
            assert (stamps[1:] - stamps[:-1] > pd.Timedelta(minutes=10)).all()
            assert len(ids) == len(times)
    one = quiet_plan(points_in(src, 5), src, series=True, bands=["B02"], size_px=24, max_cloud=70)
    assert one.settings["held"] == ["B02"]


def test_native_pixels_are_not_resampled(src: Any, tmp_path: Path) -> None:
    plan = quiet_plan(points_in(src, 4), src, native=True, size_px=32)
    quiet_build(plan, tmp_path / "c.zarr")
    corpus = open_corpus(tmp_path / "c.zarr")
    assert {name: corpus[name].shape[2:] for name in ("s2_10m", "s2_20m", "s2_60m")} == {
        "s2_10m": (32, 32),
        "s2_20m": (16, 16),
        "s2_60m": (6, 6),
    }
    for number, grid in enumerate(grids_of(plan.samples)):
        assert (grid.affine.c % 60, grid.affine.f % 60) == (0, 0)
        there = src.read(plan.samples.iloc[number], grid)
        for name in ("s2_10m", "s2_20m", "s2_60m"):
            for band in corpus[f"{name}_band"].to_numpy():
                factor = S2_BANDS[str(band)].resolution_m // 10
                stored = corpus[name].sel({f"{name}_band": band}).isel(sample=number).to_numpy()
                # On the fine grid each pixel of the file is there several times over.
                fine = np.repeat(np.repeat(stored, factor, 0), factor, 1)[:32, :32]
                np.testing.assert_array_equal(fine, there[str(band)].values)
        np.testing.assert_array_equal(patch_of(corpus, number)["B11"].values, there["B11"].values)


def test_a_native_series_is_the_same_pixels(src: Any, tmp_path: Path) -> None:
    plan = quiet_plan(points_in(src, 2), src, native=True, series=True, bands=BANDS, size_px=12, max_cloud=40)
    quiet_build(plan, tmp_path / "c.zarr")
    corpus = open_corpus(tmp_path / "c.zarr")
    for number in range(len(plan.samples)):
        there = by_reading(src, plan.samples.iloc[number])
        here = patch_of(corpus, number)
        for name in ("B02", "B05", "B09"):
            np.testing.assert_array_equal(here[name].values, there[name].values)


def test_a_date_that_cannot_be_read_is_a_gap_that_is_told(src: Any, plan: Plan, built: Path, tmp_path: Path) -> None:
    bad = plan.samples["s2_ids"].iloc[0][0].split("+")[0]
    src.broken = (bad,)
    folder = tmp_path / "c.zarr"
    try:
        report = quiet_build(plan, folder, {"corine": src.labels["corine"]})
    finally:
        src.broken = ()
    assert report.failed == 0
    table = read_samples(folder / "samples.parquet")
    assert table["reason"].iloc[0].startswith("1 of ")
    assert bad in table["reason"].iloc[0]
    quiet_build(plan, folder, {"corine": src.labels["corine"]}, retry_failed=True)
    assert digest(folder) == digest(built)


def test_a_retry_does_not_lose_a_series_with_gaps(src: Any, plan: Plan, tmp_path: Path) -> None:
    ids = [name for joined in plan.samples["s2_ids"].iloc[0] for name in joined.split("+")]
    try:
        src.broken = (ids[0],)
        quiet_build(plan, tmp_path / "c.zarr")
        before = digest(tmp_path / "c.zarr")
        src.broken = tuple(ids)
        assert quiet_build(plan, tmp_path / "c.zarr", retry_failed=True).failed == 0
    finally:
        src.broken = ()
    assert digest(tmp_path / "c.zarr") == before


def test_shares_are_of_the_dates_a_series_has(plan: Plan, tmp_path: Path) -> None:
    rows = plan.samples.copy()
    for name in SERIES:  # the first is shorter than the others
        rows[name] = [held[:2] if number == 0 else held for number, held in enumerate(rows[name])]
    quiet_build(replace(plan, samples=rows), tmp_path / "c.zarr")
    corpus = open_corpus(tmp_path / "c.zarr")
    assert corpus.sizes["s2_step"] > 2
    for number, row in enumerate(rows.itertuples()):
        optical, radar = slice(len(row.s2_ids)), slice(len(row.s1_ids))
        shares = {
            "valid_s2": corpus["s2"].to_numpy()[number, optical].min(axis=1) > 0,
            "clear": ~np.isin(corpus["scl"].to_numpy()[number, optical], [0, *SCL_CLOUDY]),
            "valid_s1": np.isfinite(corpus["s1"].to_numpy()[number, radar]),
        }
        for name, held in shares.items():
            assert corpus[name].to_numpy()[number] == pytest.approx(held.mean(), abs=1e-5)


def test_native_windows_must_lie_on_the_pixels_of_all_bands(src: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepSentinelWarning)
        labels = ds.read_labels(src.labels["parcels_2018"]).iloc[5:15]
    with pytest.raises(InputError, match=r"of 10 windows lie off those of 60 m.*snap_m=60"):
        quiet_plan(parcel_windows(labels, 16), src, native=True)
    places = parcel_windows(labels, 16, snap_m=60)
    plain = parcel_windows(labels, 16)
    assert (abs(places[["x0", "y0"]] - plain[["x0", "y0"]]).to_numpy() <= 35).all()
    plan = quiet_plan(places, src, native=True, bands=["B04", "B11", "B09"])
    quiet_build(plan, tmp_path / "c.zarr")
    corpus = open_corpus(tmp_path / "c.zarr")
    for number, grid in enumerate(grids_of(plan.samples)):
        there = src.read(plan.samples.iloc[number], grid, bands=["B04", "B11", "B09"])
        for name in ("B11", "B09"):
            np.testing.assert_array_equal(patch_of(corpus, number)[name].values, there[name].values)


def test_series_are_shared_out_in_groups_that_fit_memory(
    src: Any, plan: Plan, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepsentinel.corpus.reader.SERIES_BYTES", 1)
    quiet_build(plan, tmp_path / "c.zarr", {"corine": src.labels["corine"]})
    assert digest(tmp_path / "c.zarr") == digest(built)


def test_the_story_tells_of_a_series(built: Path) -> None:
    attrs = json.loads((built / "zarr.json").read_text())["attributes"]
    assert attrs["series"] is True
    assert attrs["title"].startswith("5 series of demo")
    assert ds.__version__ == attrs["version"]


def test_where_no_granule_holds_the_window_two_fill_it(src: Any, tmp_path: Path) -> None:
    wide = quiet_plan(points_in(src, 2), src, series=True, bands=["B02", "VV"], size_px=200, max_cloud=20)
    joined = [name for row in wide.samples["s2_ids"] for name in row if "+" in name]
    assert joined
    quiet_build(wide, tmp_path / "c.zarr")
    corpus = open_corpus(tmp_path / "c.zarr")
    for number in range(len(wide.samples)):
        there, here = by_reading(src, wide.samples.iloc[number], ["B02", "VV"]), patch_of(corpus, number)
        np.testing.assert_array_equal(here["B02"].values, there["B02"].values)
        np.testing.assert_allclose(here["VV"].values, there["VV"].values, atol=0.0051)
