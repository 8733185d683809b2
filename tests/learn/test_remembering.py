"""Features of a frozen encoder, remembered: what it says of each sample as it lies, cut and turned with the pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from learn_kit import SIDE, corpus, feed

import deepsentinel as ds
from deepsentinel.encoders import load_encoder
from deepsentinel.encoders.base import Encoder, Tokens
from deepsentinel.errors import InputError
from deepsentinel.learn import views
from deepsentinel.learn.batches import Feed, encode
from deepsentinel.learn.fit import Plan, fit
from deepsentinel.learn.labels import Classes, classes_of
from deepsentinel.learn.model import Model, Question

CELL = 8


class Means(Encoder):
    """An encoder whose cells are the means of their pixels, so that how it is turned makes no difference to a cell."""

    def __init__(self) -> None:
        super().__init__(load_encoder("fusion-nano", "random").spec)
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.calls = 0

    def forward(self, s1: Any = None, s2: Any = None, **_: Any) -> Tokens:  # type: ignore[override]
        self.calls += len(s2)
        cells = torch.nn.functional.avg_pool2d(s2, CELL).permute(0, 2, 3, 1)
        cells = torch.nn.functional.pad(cells, (0, self.spec.width - cells.shape[-1]))
        return Tokens(cells.mean(dim=(1, 2)), cells)


@pytest.fixture(scope="module")
def classes() -> Classes:
    return classes_of(corpus(), "corine")


def told(classes: Classes, encoder: Encoder, task: str = "segmentation", **options: Any) -> Model:
    how = {"decoder": "linear"} if task == "segmentation" else {}
    torch.manual_seed(0)
    return Model(encoder, Question(task, classes, **how), frozen=True, size=8, **options).eval()


def labelled(classes: Classes, **options: Any) -> Feed:
    return feed(labels=classes.arrays, **options)


@pytest.mark.parametrize("side", [16, 24, SIDE])
def test_what_is_remembered_of_a_crop_is_what_it_looks_like(classes: Classes, side: int) -> None:
    """With cells that are means, cutting and turning what is remembered is looking at what was cut and turned."""
    encoder, data = Means(), labelled(classes, crop_px=side, seed=3)
    model = told(classes, encoder, cache_features=True)
    model.before_steps(data, 100)
    looked = encoder.calls
    ways = set()
    for step in range(4):
        batch = data(step)
        remembered = encode(encoder, batch, "both")
        assert encoder.calls == looked
        batch.tokens = None
        seen = encode(encoder, batch, "both")
        assert seen.dense is not None
        assert remembered.dense is not None
        torch.testing.assert_close(remembered.dense, seen.dense, rtol=1e-5, atol=1e-2)
        if side == SIDE:
            torch.testing.assert_close(remembered.pooled, seen.pooled, rtol=1e-5, atol=1e-2)
        else:
            assert remembered.pooled.isnan().all()
        looked = encoder.calls
        ways |= {float(row) for row in seen.dense[:, 0, 0, 0]}
    assert len(ways) > 8  # crops and ways to lay them differ


@torch.no_grad()
def test_a_frozen_encoder_looks_once_at_each_sample(classes: Classes) -> None:
    """As it lies, squares as wide as a crop: what the encoder itself says, whatever is asked for later."""
    encoder = load_encoder("fusion-nano", "random").eval()
    data = labelled(classes, crop_px=16, turn=False)
    told(classes, encoder, cache_features=True).before_steps(data, 1)
    assert data.remembered is not None
    every = data.remembered.tokens["both"].dense
    assert every is not None
    whole = data.whole(np.arange(len(data)))
    for row, column in ((0, 0), (16, 32), (32, 16)):
        seen = encode(encoder, whole.cropped(16, row, column), "both").dense
        cells = every[:, row // CELL : row // CELL + 2, column // CELL : column // CELL + 2]
        torch.testing.assert_close(cells, seen, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_it_is_remembered_where_the_head_reads_vectors_alone(classes: Classes) -> None:
    encoder = load_encoder("fusion-nano", "random")
    for model, side, wanted in (
        (told(classes, encoder), 32, True),
        (told(classes, encoder, "classification"), SIDE, True),
        (told(classes, encoder, "classification"), 32, False),
        (told(classes, encoder, cache_features=False), 32, False),
        (Model(encoder, Question("segmentation", classes), frozen=True, size=8), 32, False),
        (Model(encoder, Question("segmentation", classes), frozen=True, size=8, cache_features=True), 32, True),
        (Model(encoder, Question("segmentation", classes, decoder="linear"), size=8), 32, False),
    ):
        data = labelled(classes, crop_px=side)
        model.before_steps(data, 1_000)
        assert (data.remembered is not None) is wanted
    data = labelled(classes, crop_px=32)
    told(classes, encoder).before_steps(data, 1)  # four crops to look at: fewer than there are
    assert data.remembered is None


def test_all_that_a_model_of_any_sensor_may_see_is_remembered(classes: Classes) -> None:
    encoder = load_encoder("fusion-nano", "random")
    model = Model(encoder, Question("segmentation", classes, "any", decoder="linear"), frozen=True)
    data = labelled(classes)
    model.before_steps(data, 1_000)
    batch = data(0)
    assert batch.tokens is not None
    assert set(batch.tokens[1]) == {"both", "s1", "s2"}
    one, other = (encode(encoder, batch, sensors).dense for sensors in ("s1", "s2"))
    assert not torch.equal(one, other)


def test_what_is_changed_or_asked_of_another_is_looked_at(classes: Classes) -> None:
    encoder, other, data = Means(), Means(), labelled(classes)
    told(classes, encoder, cache_features=True).before_steps(data, 1)
    batch = data(0)
    encode(other, batch)
    assert other.calls == len(batch)
    for changed in (
        batch.seeing(s2_mask=torch.zeros_like(batch.s2_mask)),
        batch.cropped(16),
        views.jittered(batch),
        views.another(batch),
    ):
        assert changed.tokens is None


def test_a_head_learns_the_same_as_if_it_had_seen_all(classes: Classes) -> None:
    """Of whole samples that are not turned, remembering changes nothing but the time it takes."""
    found = []
    for cached in (True, False):
        encoder = Means()
        model = told(classes, encoder, cache_features=cached)
        history = fit(model, labelled(classes, crop_px=SIDE, turn=False), Plan(steps=6, lr=0.01, log_every=1))
        found.append((history.table()["loss"].to_numpy(), encoder.calls))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-4)
    assert found[0][0][-1] < found[0][0][0]
    assert found[0][1] < found[1][1]  # 12 samples and a look, 24 crops


def test_what_cannot_be_remembered_is_refused_with_its_reason(classes: Classes) -> None:
    encoder = load_encoder("fusion-nano", "random")
    with pytest.raises(InputError, match=rf"True cannot be: the one vector.*crop_px={SIDE}"):
        told(classes, encoder, "classification", cache_features=True).before_steps(labelled(classes), 9)
    with pytest.raises(InputError, match="it is for frozen=True"):
        Model(encoder, Question("segmentation", classes), cache_features=True).before_steps(labelled(classes), 9)
    with pytest.raises(InputError, match="do not fit samples of 48 px and crops of 20"):
        told(classes, Means(), cache_features=True).before_steps(labelled(classes, crop_px=20, turn=False), 9)
    with pytest.raises(InputError, match="a UnetHead looks into resnet18 itself"):
        told_by = Model(
            load_encoder("resnet18", "random"),
            Question("segmentation", classes),
            frozen=True,
            size=8,
            cache_features=True,
        )
        told_by.before_steps(labelled(classes), 9)
    with pytest.raises(InputError, match="cache_features='yes'"):
        ds.finetune(corpus(), "fusion-nano", "segmentation", "corine", cache_features="yes", weights="random")
