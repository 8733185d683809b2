"""Sentinel-2 from Sentinel-1: painted where that is asked for, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from factories import make_patch
from prediction_kit import clouded
from torch import Tensor

from deepsentinel.contract import check_patch
from deepsentinel.encoders import load_encoder
from deepsentinel.errors import InputError
from deepsentinel.learn.batches import Batch
from deepsentinel.learn.objectives import Masked, RadarToOptical
from deepsentinel.prediction.painting import optical

S1, S2 = ("VH", "VV"), ("B02", "B03", "B04", "B08")


@pytest.fixture(scope="module")
def painter() -> RadarToOptical:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return RadarToOptical(load_encoder("fusion-nano", "random"), S1, S2)


@pytest.fixture
def known(painter: RadarToOptical, monkeypatch: pytest.MonkeyPatch) -> RadarToOptical:
    """What each pixel is to be can be told from the radar."""

    def paint(batch: Batch) -> Tensor:
        assert batch.s1 is not None
        assert batch.s1_bands == S1
        assert batch.s2 is None
        vh, vv = batch.s1.unbind(dim=1)
        return torch.stack([-50 * vv, -30 * vh, -10 * vv, 4_000 + 100 * vh], dim=1)

    monkeypatch.setattr(painter, "optical", paint)
    return painter


@pytest.fixture(scope="module")
def patch() -> xr.Dataset:
    return clouded(make_patch((50, 70), nodata=True))


def painted_by_hand(patch: xr.Dataset) -> dict[str, np.ndarray]:
    vh, vv = patch["VH"].to_numpy(), patch["VV"].to_numpy()
    told = {"B02": -50 * vv, "B03": -30 * vh, "B04": -10 * vv, "B08": 4_000 + 100 * vh}
    return {name: np.where(np.isnan(vv), 0, np.clip(np.round(values), 1, None)) for name, values in told.items()}


@pytest.mark.parametrize("how", [{}, {"overlap": 0.0}, {"window_px": 16, "batch_size": 3}])
def test_every_pixel_is_painted_from_its_radar(known: RadarToOptical, patch: xr.Dataset, how: dict[str, Any]) -> None:
    found = check_patch(optical(known, patch, **how))
    for name, values in painted_by_hand(patch).items():
        assert found[name].dtype == "uint16"
        np.testing.assert_allclose(found[name], values, atol=1)
    np.testing.assert_array_equal(found["synthetic"], ~np.isnan(patch["VV"]))
    assert "synthetic" in found.attrs
    assert "s2_time" not in found.coords
    assert "s2_id" not in found.attrs


def test_what_is_clear_stays(known: RadarToOptical, patch: xr.Dataset) -> None:
    found = check_patch(optical(known, patch, fill=True))
    clear = (patch["B02"].to_numpy() > 0) & ~np.isin(patch["SCL"].to_numpy(), (3, 8, 9, 10))
    assert 0.3 < clear.mean() < 0.9
    for name, values in painted_by_hand(patch).items():
        np.testing.assert_array_equal(found[name].to_numpy()[clear], patch[name].to_numpy()[clear])
        np.testing.assert_allclose(found[name].to_numpy()[~clear], values[~clear], atol=1)
    np.testing.assert_array_equal(found["synthetic"], ~clear & ~np.isnan(patch["VV"].to_numpy()))
    assert found["s2_time"] == patch["s2_time"]


def test_it_paints_with_its_weights(painter: RadarToOptical) -> None:
    ground = make_patch((64, 64))
    found = optical(painter, ground)
    for name in S2:
        assert 1 <= int(found[name].min()) <= int(found[name].max()) < 15_000
    assert len(np.unique(found["B08"])) > 100
    # Radar alone decides.
    assert found.equals(optical(painter, ground[["VV", "VH"]].assign_attrs(level="L2A")).assign_attrs(found.attrs))


def test_what_cannot_paint_is_refused(painter: RadarToOptical, patch: xr.Dataset) -> None:
    with pytest.raises(InputError, match="does not paint"):
        optical(Masked(painter.encoder, S1, S2), patch)
    with pytest.raises(InputError, match="lacks SCL"):
        optical(painter, patch.drop_vars("SCL"), fill=True)
    with pytest.raises(InputError, match="S1"):
        optical(painter, patch.drop_vars(["VV", "VH"]))
