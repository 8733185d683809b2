"""Models learn from what the Dataset holds, not from what its store held when it was opened."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from evaluation_kit import made

from deepsentinel.errors import InputError
from deepsentinel.learn.batches import Feed, bands_of
from deepsentinel.learn.finetuning import finetune
from deepsentinel.learn.ground import Ground
from deepsentinel.learn.labels import classes_of, number_range

QUICK: dict[str, Any] = {
    "steps": 1, "batch_size": 4, "crop_px": 16, "size": 8, "device": "cpu", "weights": "random",
}  # fmt: skip


@pytest.fixture
def corpus() -> xr.Dataset:
    return made()[0].isel(sample=slice(0, 8)).copy()


def test_classes_are_those_that_are_held(corpus: xr.Dataset) -> None:
    before = classes_of(corpus, "m")
    first, second = before.codes[:2]
    merged = corpus.copy()
    merged[before.array] = (
        merged[before.array].where(merged[before.array] != second, first).assign_attrs(corpus[before.array].attrs)
    )
    after = classes_of(merged, "m")
    assert after.codes == tuple(code for code in before.codes if code != second)
    shares = dict(zip(before.codes, before.shares, strict=True))
    assert after.shares[0] == pytest.approx(shares[first] + shares[second])
    assert after.names[0] == before.names[0]
    merged["mine_class_map"] = (merged[before.array] == first).astype("uint8") + 1
    merged["mine_class_map"].attrs = {"flag_values": [1, 2], "flag_meanings": "other here"}
    assert classes_of(merged, "mine").names == ("other", "here")
    model = finetune(merged, "fusion-nano", "segmentation", "mine", **QUICK)
    assert model.classes.names == ("other", "here")
    merged["tall"] = ("sample", "y", "x"), np.arange(8.0)[:, None, None] * np.ones(merged.s2.shape[-2:])
    assert number_range([merged], "tall")[1] == 3.5


def test_pixels_are_those_that_are_held(corpus: xr.Dataset) -> None:
    bands = ["B02", "B8A"]
    told = {"batch_size": 4, "crop_px": 16, "bands": bands, "labels": ["m_class_map"], "clouds": False}
    plain = Feed([corpus], **told)(0)
    half = corpus.copy()
    half["s2"] = half.s2 // 2
    found = Feed([half], **told)(0)
    assert torch.equal(found.sample, plain.sample)
    assert torch.equal(found.s2.round(), torch.floor(plain.s2.round() / 2))
    assert not torch.equal(found.s2, plain.s2)
    assert torch.equal(found.labels["m_class_map"], plain.labels["m_class_map"])


def test_a_sensor_that_was_dropped_is_not_learnt_from(corpus: xr.Dataset) -> None:
    from deepsentinel.encoders import find

    assert "VV" in bands_of(find("fusion-nano"), corpus)
    bare = corpus.drop_vars("s1")
    assert not {"VV", "VH"} & set(bands_of(find("fusion-nano"), bare))
    assert not {"VV", "VH"} & set(finetune(bare, labels="m", sensors="s2", **QUICK).story["bands"])
    with pytest.raises(InputError, match='pass sensors="s2"'):
        finetune(bare, labels="m", **QUICK)
    from deepsentinel.errors import DeepSentinelWarning
    from deepsentinel.learn.pretraining import pretrain

    with pytest.warns(DeepSentinelWarning, match="Sentinel-2 only, so that contrastive"):
        pretrain(bare, "contrastive", steps=1, batch_size=4, crop_px=16, device="cpu")


def test_clouds_of_a_test_are_those_that_are_held(corpus: xr.Dataset) -> None:
    if "scl" not in corpus:
        corpus["scl"] = ("sample", "y", "x"), np.full((8, *corpus.s2.shape[-2:]), 4, "uint8")
    cloudy = corpus.copy()
    cloudy["scl"] = xr.where(np.arange(8)[:, None, None] < 4, 9, xr.full_like(corpus.scl.load(), 4))
    assert len(set(Ground([cloudy]).cloud.tolist())) == 2
