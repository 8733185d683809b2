"""Maps of models whose answers are known, and what has to hold of any model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from factories import make_patch, make_series
from prediction_kit import CLASSES, HIGH, band, by_hand, clouded, model, one_hot, thresholds
from torch import Tensor

from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.grids import grid_of
from deepsentinel.learn.batches import Batch
from deepsentinel.legend import Legend
from deepsentinel.prediction import predict


@pytest.fixture(scope="module")
def patch() -> xr.Dataset:
    return clouded(make_patch((70, 101), nodata=True))


@pytest.mark.parametrize("batch_size", [1, 5, "auto"])
@pytest.mark.parametrize(
    ("window_px", "overlap"), [(8, 0.0), (8, 0.5), (32, 0.0), (32, 0.5), (32, 0.8), (128, 0.0), (128, 0.5)]
)
def test_every_pixel_gets_the_answer_that_is_its_own(
    patch: xr.Dataset, overlap: float, window_px: int, batch_size: Any
) -> None:
    result = predict(model(thresholds), patch, overlap=overlap, window_px=window_px, batch_size=batch_size)
    np.testing.assert_array_equal(result["class_map"], by_hand(patch))
    unseen = by_hand(patch) == 0
    assert 0.05 < unseen.mean() < 0.5
    np.testing.assert_array_equal(np.isnan(result["uncertainty"]), unseen)
    assert np.nanmax(result["uncertainty"]) < 1e-6


@pytest.mark.parametrize("shape", [(5, 7), (8, 64), (33, 200)])
def test_any_shape_will_do(shape: tuple[int, int]) -> None:
    small = make_patch(shape)
    np.testing.assert_array_equal(predict(model(thresholds), small)["class_map"], by_hand(small))


def test_clouds_are_seen_through_only_where_that_is_asked_for(patch: xr.Dataset) -> None:
    seen = predict(model(thresholds), patch, mask_clouds=False)
    np.testing.assert_array_equal(seen["class_map"], by_hand(patch, clouds=False))
    bare = predict(model(thresholds), patch.drop_vars("SCL"))
    np.testing.assert_array_equal(bare["class_map"], seen["class_map"])
    assert (seen.attrs["mask_clouds"], bare.attrs["mask_clouds"]) == (0, 0)


def test_radar_sees_what_clouds_hide(patch: xr.Dataset) -> None:
    def wet(batch: Batch) -> Tensor:
        return one_hot((band(batch, "VV") > -12).long())

    result = predict(model(wet, sensors="s1"), patch)
    radar = patch["VV"].to_numpy()
    np.testing.assert_array_equal(
        result["class_map"], np.where(np.isnan(radar), 0, np.where(radar > -12, CLASSES.codes[1], CLASSES.codes[0]))
    )
    both = predict(model(wet, sensors="both"), patch)
    nothing = np.isnan(radar) & (by_hand(patch) == 0)
    np.testing.assert_array_equal(both["class_map"] == 0, nothing)


def test_a_model_of_any_sensor_takes_what_is_there(patch: xr.Dataset) -> None:
    seen: list[tuple[bool, bool]] = []

    def noted(batch: Batch) -> Tensor:
        seen.append((batch.s1 is not None, batch.s2 is not None))
        return one_hot(torch.zeros(batch.pixels[:, 0].shape, dtype=torch.int64))

    told = [
        predict(model(noted, sensors="any"), data).attrs["sensors"]
        for data in (patch, patch.drop_vars(["VV", "VH"]), patch[["VV", "VH"]])
    ]
    assert told == ["both", "s2", "s1"]
    assert set(seen) == {(True, True), (False, True), (True, False)}


def test_the_map_lies_where_the_patch_does_and_knows_its_classes(patch: xr.Dataset) -> None:
    result = predict(model(thresholds), patch)
    assert grid_of(result) == grid_of(patch)
    assert result["class_map"].dtype == "uint8"
    legend = Legend.from_attrs(result["class_map"].attrs)
    assert legend is not None
    assert legend.names == dict(zip(CLASSES.codes, CLASSES.names, strict=True))
    assert legend.colors == dict(zip(CLASSES.codes, CLASSES.colors, strict=True))
    assert result["s2_time"] == patch["s2_time"]
    assert result.attrs["s2_id"] == patch.attrs["s2_id"]
    # Of radar nothing is said, as it was not looked at.
    assert "s1_time" not in result.coords
    assert "s1_id" not in result.attrs
    assert result.attrs["encoder"] == "fusion-nano"
    assert result.attrs["labels"] == "cover"


@pytest.mark.parametrize("upscale", [2, 4])
def test_finer_answers_make_a_finer_grid(patch: xr.Dataset, upscale: int) -> None:
    def finer(batch: Batch) -> Tensor:
        values = thresholds(batch).repeat_interleave(upscale, 2).repeat_interleave(upscale, 3)
        values[..., ::upscale, ::upscale] = one_hot(torch.tensor([[[1]]]))  # the upper left corner of each pixel
        return values

    result = predict(model(finer, upscale=upscale), patch)
    wanted = by_hand(patch).repeat(upscale, 0).repeat(upscale, 1)
    corner = wanted[::upscale, ::upscale]
    wanted[::upscale, ::upscale] = np.where(corner > 0, CLASSES.codes[1], 0)
    np.testing.assert_array_equal(result["class_map"], wanted)
    here, there = grid_of(patch), grid_of(result)
    assert there.boundingbox == here.boundingbox
    assert there.resolution.x == here.resolution.x / upscale


def ramp(batch: Batch) -> Tensor:
    """The further right in its window, the likelier: the worst that a model could do."""
    side = batch.pixels.shape[-1]
    share = (torch.arange(side) + 0.5) / side
    return torch.stack([share.log(), (1 - share).log(), torch.full((side,), -100.0)])[None, :, None].expand(
        len(batch), -1, batch.pixels.shape[-2], -1
    )


def test_seams_vanish() -> None:
    ground = make_patch((64, 256))
    step = {}
    for overlap in (0.0, 0.5):
        told = predict(model(ramp), ground, overlap=overlap, probabilities=True)["probability"].to_numpy()
        step[overlap] = np.abs(np.diff(told[0], axis=1)).max()
    assert step[0.0] > 0.9
    assert step[0.5] < 0.1


def test_seams_vanish_of_a_real_model() -> None:
    """The step over a border of windows is no larger than elsewhere; without overlap it is."""
    ground, side = make_patch((192, 192)), 32
    drawn = model(sensors="both")
    steps = {}
    for overlap in (0.0, 0.5):
        told = predict(drawn, ground, overlap=overlap, probabilities=True)["probability"].to_numpy()
        across = np.abs(np.diff(told, axis=2)).mean(axis=(0, 1))
        # Where windows begin is counted from a corner that all grids share.
        starts = (np.arange(1, 192) + round(float(ground["x"][0] - 5) / 10)) % side == 0
        steps[overlap] = across[starts].mean() / across[~starts].mean()
    assert steps[0.0] > 1.15
    assert steps[0.5] < 1.05


def test_a_map_does_not_depend_on_where_the_patch_was_cut() -> None:
    ground = make_patch((160, 176))
    drawn = model(sensors="both")
    whole = predict(drawn, ground)["class_map"].to_numpy()
    part = predict(drawn, ground.isel(y=slice(13, None), x=slice(7, None)))["class_map"].to_numpy()
    edge = 32
    there = whole[13 + edge : -edge, 7 + edge : -edge]
    assert len(np.unique(there)) == 3
    np.testing.assert_array_equal(part[edge:-edge, edge:-edge], there)
    # On its own lattice it would be another one.
    moved = predict(drawn, ground.assign_coords(x=ground["x"] + 130, y=ground["y"] + 70))["class_map"].to_numpy()
    assert (moved[edge:-edge, edge:-edge] != whole[edge:-edge, edge:-edge]).any()


@pytest.mark.parametrize(
    ("how", "wanted"),
    [("margin", 1 - (0.7 - 0.2)), ("entropy", -sum(p * np.log(p) for p in (0.7, 0.2, 0.1)) / np.log(3))],
)
def test_uncertainty_is_what_it_says(how: Any, wanted: float) -> None:
    def fixed(batch: Batch) -> Tensor:
        told = torch.tensor([0.2, 0.7, 0.1]).log()[None, :, None, None]
        return told.expand(len(batch), -1, *batch.pixels.shape[-2:])

    result = predict(model(fixed), make_patch((40, 40)), uncertainty=how, probabilities=True)
    assert (result["class_map"] == CLASSES.codes[1]).all()
    np.testing.assert_allclose(result["uncertainty"], wanted, rtol=1e-5)
    np.testing.assert_allclose(result["probability"].isel({"class": 0}), 0.2, rtol=1e-5)
    assert result["probability"]["class"].values.tolist() == list(CLASSES.codes)


def bright_share(batch: Batch) -> Tensor:
    """Of each window how much of what is seen is bright, and the rest."""
    assert batch.s2_mask is not None
    bright = ((band(batch, "B08") >= HIGH) & batch.s2_mask).flatten(1).float().sum(1)
    share = (bright / batch.s2_mask.flatten(1).float().sum(1)).clamp(1e-6, 1 - 1e-6)
    return torch.stack([(1 - share).log(), share.log(), torch.full_like(share, -100)], dim=1)


def test_fractions_are_those_of_windows() -> None:
    ground = make_patch((64, 96)).assign_coords(
        x=np.arange(96) * 10 + 320_005.0, y=64 * 100_000 - np.arange(64) * 10.0 - 5
    )
    result = predict(model(bright_share, "fractions"), ground, overlap=0)
    bright = ground["B08"].to_numpy() >= HIGH
    wanted = bright.reshape(2, 32, 3, 32).mean(axis=(1, 3))
    np.testing.assert_allclose(result["class_fraction"].isel({"class": 1}), wanted, atol=1e-5)
    np.testing.assert_allclose(result["class_fraction"].sum("class"), 1, atol=1e-5)
    assert grid_of(result).boundingbox == grid_of(ground).boundingbox
    half = predict(model(bright_share, "fractions"), ground)
    assert half["class_fraction"].shape == (3, 4, 6)
    # A cell in a corner is in one window only.
    assert float(half["class_fraction"][1, 0, 0]) == pytest.approx(wanted[0, 0], abs=1e-5)


def test_classification_tells_each_class_of_windows() -> None:
    def there(batch: Batch) -> Tensor:
        bright = (band(batch, "B08") >= HIGH).flatten(1).float().mean(1)
        return torch.stack([torch.full_like(bright, -50), 100 * (bright - 0.2), torch.full_like(bright, 0.0)], dim=1)

    ground = make_patch((60, 100))
    result = predict(model(there, "classification"), ground, overlap=0)
    assert result["class_map"].shape == (2, 4)
    probability = result["probability"].to_numpy()
    assert probability[0].max() < 1e-6
    np.testing.assert_allclose(probability[2], 0.5)
    share = (ground["B08"].to_numpy() >= HIGH)[:32, 32:64].mean()
    assert probability[1, 0, 1] == pytest.approx(float(torch.sigmoid(torch.tensor(100 * (share - 0.2)))), abs=0.05)


def test_numbers_are_told_in_their_own_units(patch: xr.Dataset) -> None:
    def biomass(batch: Batch) -> Tensor:
        return (band(batch, "B08").unsqueeze(1) / 100 - 20) / 4

    number = model(biomass, "regression", classes=None, array="biomass_value", scale=(20.0, 4.0))
    result = predict(number, patch)
    wanted = np.where(by_hand(patch) > 0, patch["B08"].to_numpy() / 100, np.nan)
    np.testing.assert_allclose(result["value"], wanted, rtol=1e-4)
    assert list(result.data_vars) == ["value"]


def test_a_model_is_as_it_was(patch: xr.Dataset) -> None:
    drawn = model(sensors="both").train()
    drawn.encoder.eval()
    before = {name: value.clone() for name, value in drawn.state_dict().items()}
    predict(drawn, patch)
    assert drawn.training
    assert drawn.head.training
    assert not drawn.encoder.training
    assert all(torch.equal(value, before[name]) for name, value in drawn.state_dict().items())


def test_background_is_told_from_what_was_not_seen(patch: xr.Dataset) -> None:
    from dataclasses import replace

    classes = replace(CLASSES, codes=(0, 60, 200), names=("background", "middling", "bright"))
    result = predict(model(thresholds, classes=classes), patch)
    dark = by_hand(patch) == CLASSES.codes[0]
    assert (result["class_map"].to_numpy()[dark] == 0).all()
    assert np.isfinite(result["uncertainty"].to_numpy()[dark]).all()
    legend = Legend.from_attrs(result["class_map"].attrs)
    assert legend is not None
    assert legend.codes == (60, 200)


def test_what_cannot_be_is_refused(patch: xr.Dataset) -> None:
    head = model(thresholds)
    with pytest.raises(InputError, match="series"):
        predict(head, make_series(2, 2))
    with pytest.raises(InputError, match="uncertainty"):
        predict(head, patch, uncertainty="odds")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="overlap"):
        predict(head, patch, overlap=1.0)
    with pytest.raises(InputError, match="window_px=12"):
        predict(head, patch, window_px=12)
    with pytest.raises(InputError, match="trained with S2 alone"):
        predict(head, patch, sensors="s1")
    with pytest.raises(InputError, match="no band of S1"):
        predict(model(sensors="both"), patch.drop_vars(["VV", "VH"]))
    learnt = model(sensors="both")
    learnt.story["bands"] = ["B02", "B8A"]
    with pytest.warns(DeepSentinelWarning, match="trained with B8A too"):
        predict(learnt, patch.drop_vars(["B8A", "B05"]))
    with pytest.warns(DeepSentinelWarning, match="both sensors"):
        predict(model(thresholds, sensors="both"), patch, sensors="s2")
    with pytest.raises(InputError, match=r"for a source"):
        predict(head, patch, (2.0, 48.0, 2.1, 48.1))
    with pytest.raises(InputError, match="a list"):
        predict(head, [patch])
    with pytest.raises(InputError, match="learnt no labels"):
        predict(head.encoder, patch)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="overlapp"):
        predict(head, patch, overlapp=0.5)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="expected of its question"):
        predict(model(lambda batch: F.avg_pool2d(thresholds(batch), 2)), patch)
