"""Whole areas of a source, and corpora: the same answers as of patches that were read first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from factories import make_patch
from prediction_kit import band, by_hand, corpus, model, one_hot, source, thresholds

import deepsentinel as ds
from deepsentinel.errors import InputError, NothingFoundError, ReadError
from deepsentinel.grids import grid_coords, grid_of
from deepsentinel.prediction import predict

START, END = "2018-06-01", "2018-06-30"


@pytest.mark.parametrize("out", [None, "map.tif"])
def test_an_area_is_read_as_it_is_needed(out: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src = source()
    pairs = ds.pair(src.search(src.area, START, END), aoi=src.area, best="place")
    grid = ds.geobox(src.area)
    patch = src.read(pairs.iloc[0], grid)
    monkeypatch.setattr("deepsentinel.embedding.reading.SLAB_BYTES", 20_000)
    read: list[tuple[int, int]] = []
    own = type(src).read

    def noted(self: Any, row: Any, box: Any, **options: Any) -> Any:
        read.append((int(box.shape.y), int(box.shape.x)))
        return own(self, row, box, **options)

    monkeypatch.setattr(type(src), "read", noted)
    result = predict(
        model(thresholds, sensors="both"),
        src,
        src.area,
        start=START,
        end=END,
        out=None if out is None else tmp_path / out,
    )
    assert grid_of(result) == grid
    np.testing.assert_array_equal(
        result["class_map"], np.where(by_hand(patch) > 0, by_hand(patch), result["class_map"])
    )
    assert (result.attrs["s1_id"], result.attrs["s2_id"]) == (pairs["s1_id"][0], pairs["s2_id"][0])
    # Bit by bit, and no row twice.
    assert len(read) > 3
    assert sum(rows for rows, _ in read[1:]) == grid.shape.y


def test_a_model_of_one_sensor_needs_no_pair() -> None:
    src = source()
    seen = predict(
        model(lambda batch: one_hot((band(batch, "VV") > -12).long()), sensors="s1"),
        src,
        src.area,
        start=START,
        end=END,
    )
    assert "s2_id" not in seen.attrs
    chosen = ds.select(src.search(src.area, START, END, sensors=("S2",)), aoi=src.area, n=1, sensor="S2")
    own = predict(model(thresholds), src, src.area, row=chosen.iloc[0])
    best = predict(model(thresholds), src, src.area, start=START, end=END)
    xr.testing.assert_equal(own, best)
    assert own.attrs["s2_id"] == chosen["id"][0]


def test_any_sensor_is_better_than_none() -> None:
    src = source()
    scenes = src.search(src.area, START, END, sensors=("S1",))
    day = scenes["time"].iloc[0]
    either = model(lambda batch: one_hot(batch.pixels[:, 0].long() * 0), sensors="any")
    result = predict(
        either, src, src.area, start=str(day - np.timedelta64(1, "m")), end=str(day + np.timedelta64(1, "m"))
    )
    assert result.attrs["sensors"] == "s1"
    with pytest.raises(NothingFoundError, match=r"."):
        predict(model(sensors="both"), src, src.area, start="2018-06-01", end="2018-06-01")


class Half:
    """Sentinel-2 ends in the middle; the source refuses a grid that lies outside of a scene."""

    def __init__(self) -> None:
        self.ground = make_patch((64, 64))

    def search(self, *args: Any, **options: Any) -> Any:
        raise AssertionError("nothing is searched for where a row is given")

    def read(self, row: Any, box: Any, *, bands: Any = None) -> xr.Dataset:
        names = list(bands or self.ground.data_vars)
        top = round((float(self.ground["y"][0]) + 5 - box.affine.f) / 10)
        if top >= 32 and box.shape.x > 8 and any(name.startswith("B") for name in names):
            raise ReadError("Scene S2 lies elsewhere. They do not touch: check row and grid.")
        if row.get("broken") and top >= 16:
            raise ReadError("B02 of S2 is truncated")
        left = round((box.affine.c - float(self.ground["x"][0]) + 5) / 10)
        part = self.ground.isel(y=slice(top, top + box.shape.y), x=slice(left, left + box.shape.x))[names]
        return part.assign_coords(grid_coords(box))


def test_ground_beyond_a_scene_is_not_seen_and_trouble_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepsentinel.embedding.reading.SLAB_BYTES", 64 * 16 * 33)
    half = Half()
    row = {"s1_id": "a", "s2_id": "b"}
    head = model(thresholds, sensors="s2")
    result = predict(head, half, grid_of(half.ground), row=row, window_px=16, overlap=0)
    wanted = by_hand(half.ground)
    # Blocks that begin before its end are whole.
    assert (result["class_map"][:32] == wanted[:32]).all()
    assert (result["class_map"][48:] == 0).all()
    radar = predict(
        model(lambda batch: one_hot((band(batch, "VV") > -12).long()), sensors="both"),
        half,
        grid_of(half.ground),
        row=row,
        window_px=16,
        overlap=0,
    )
    np.testing.assert_array_equal(radar["class_map"] == 60, half.ground["VV"] > -12)
    with pytest.raises(ReadError, match="truncated"):
        predict(head, half, grid_of(half.ground), row={**row, "broken": True}, window_px=16)


def test_a_scene_of_one_sensor_is_not_enough_for_a_model_of_both() -> None:
    src = source()
    row = src.search(src.area, START, END, sensors=("S2",)).iloc[0]
    with pytest.raises(InputError, match="no band of S1"):
        predict(model(sensors="both"), src, src.area, row=row)


def test_a_source_needs_an_area() -> None:
    with pytest.raises(InputError, match="needs an area"):
        predict(model(thresholds), source())


def test_samples_of_a_corpus_are_mapped_one_by_one(tmp_path: Path) -> None:
    drawn = model(sensors="both", crop_px=32)
    result = predict(drawn, corpus())
    assert result["class_map"].dims == ("sample", "y", "x")
    for at in range(3):
        alone = predict(drawn, ds.patch_of(corpus(), at))
        np.testing.assert_array_equal(result["class_map"][at], alone["class_map"])
        np.testing.assert_allclose(result["uncertainty"][at], alone["uncertainty"], atol=1e-5)
        assert grid_of(ds.patch_of(result, at)) == grid_of(alone)
    assert result["id"].values.tolist() == corpus()["id"].values.tolist()
    stored = predict(drawn, corpus(), out=tmp_path / "maps.zarr", probabilities=True)
    np.testing.assert_array_equal(stored["class_map"], result["class_map"])
    assert stored["probability"].shape == (3, 3, 40, 40)
    predict(drawn, corpus().isel(sample=[0]), out=tmp_path / "maps.zarr")
    with pytest.raises(InputError, match=r"maps\.zarr"):
        predict(drawn, corpus(), out=tmp_path / "maps.tif")


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_samples_share_batches(batch_size: int) -> None:
    """Several windows each: whatever is run together, every sample gets its own answers."""
    head = model(thresholds, crop_px=32)
    result = predict(head, corpus(), batch_size=batch_size)
    for at in range(3):
        np.testing.assert_array_equal(result["class_map"][at], by_hand(ds.patch_of(corpus(), at)))
    together = max(shape[0] for shape in head.head.sides)
    assert together <= batch_size
    assert batch_size < 64 or together > 9


def test_finer_maps_of_a_corpus_know_their_grid() -> None:
    def finer(batch: Any) -> Any:
        return thresholds(batch).repeat_interleave(2, 2).repeat_interleave(2, 3)

    drawn = model(finer, upscale=2)
    result = predict(drawn, corpus().isel(sample=[2, 0]))
    alone = predict(drawn, ds.patch_of(corpus(), 2))
    placed = ds.patch_of(result, 0)
    assert grid_of(placed) == grid_of(alone)
    np.testing.assert_array_equal(placed["class_map"], alone["class_map"])


def test_large_corpora_go_to_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepsentinel.prediction.corpora.MEMORY_BYTES", 10_000)
    with pytest.raises(InputError, match=r"out='maps\.zarr'"):
        predict(model(thresholds), corpus())
