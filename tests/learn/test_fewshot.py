"""A few examples: who knows the classes needs one, who knows nothing is at chance, and nobody sees what is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_kit import Says, always, known, made, only, question

from deepsentinel.encoders import load_encoder
from deepsentinel.encoders.base import Encoder, Tokens
from deepsentinel.errors import InputError, NothingFoundError
from deepsentinel.learn import fewshot
from deepsentinel.learn.evaluation import Ground
from deepsentinel.learn.fewshot import few_shot
from deepsentinel.learn.labels import classes_of

HELD = ["field", "wood", "town"]
HOW: dict[str, Any] = {"labels": "m", "device": "cpu", "block_m": 5000, "seeds": range(6), "shots": (1, 5)}


class Made(Encoder):
    """Cells of 4 px, told by a function of their mean reflectance."""

    def __init__(self, tell: Any) -> None:
        spec = load_encoder("image-statistics").spec
        super().__init__(replace(spec, name="made", patch_px=4, patch_sizes=(4,)))
        self.tell = tell

    def forward(self, s1: Any = None, s2: Any = None, **others: Any) -> Tokens:
        """The level of the brightest of the bands, through the function."""
        level = torch.nn.functional.avg_pool2d(s2.amax(dim=1), 4)
        dense = self.tell(level)
        return Tokens(dense.flatten(1, 2).mean(dim=1), dense)


def by_level(level: torch.Tensor) -> torch.Tensor:
    """Fields are dark, woods brighter, towns brightest: a number each."""
    return torch.nn.functional.one_hot(((level - 900) / 1000).round().long().clamp(0, 4), 5).float()


def by_luck(level: torch.Tensor) -> torch.Tensor:
    """Nothing but noise."""
    return torch.randn(*level.shape, 16, generator=torch.Generator().manual_seed(int(level.sum()) % 1000))


def test_who_knows_the_classes_needs_one_example_and_noise_is_chance() -> None:
    held, _ = made()
    table = few_shot(Made(by_level), held, HELD, **HOW).set_index(["what", "probe", "shots"])["mean"]
    assert table["model", "nearest mean", 1] == 1
    assert table["model", "logistic", 5] == 1
    assert table["chance", "", 1] == pytest.approx(1 / 3)
    # What the classes differ in is their level, which is some of what statistics tell.
    assert table["image statistics", "nearest mean", 5] > 0.5
    noise = few_shot(Made(by_luck), held, HELD, **HOW).set_index(["what", "probe", "shots"])["mean"]
    for probe in ("nearest mean", "logistic"):
        assert noise["model", probe, 5] == pytest.approx(1 / 3, abs=0.12)
    assert noise["image statistics", "nearest mean", 5] == table["image statistics", "nearest mean", 5]


def test_examples_and_questions_lie_on_different_ground() -> None:
    held, data = made()
    ground = Ground([held], block_m=5000)
    classes = only(classes_of(held, "m"), 10, 20, 30)
    units = fewshot._units({"model": Made(by_level)}, ground, classes, of="cells", sensors="both")
    # Cells are of the class that covers more than half of them, of what is known; by another way here.
    squares = known(data).reshape(len(data["scl"]), 4, 4, 4, 4).swapaxes(2, 3).reshape(-1, 16)
    expected = [next((at for at in range(3) if (cell == at).sum() > 8), -1) for cell in squares]
    counts = np.bincount(units.truth)
    # A cell is left out where nothing at all is seen of it, and Sentinel-1 sees all but the first rows.
    assert counts.tolist() == [expected.count(at) for at in range(3)]
    for seed in range(4):
        drawn = units.drawn(5, seed)
        assert drawn is not None
        assert not set(units.block[drawn.near]) & set(units.block[drawn.asked])
        assert set(drawn.shown) <= set(drawn.near)
        assert np.bincount(units.truth[drawn.shown]).tolist() == [5, 5, 5]
        for number in range(3):
            mine = units.sample[drawn.shown[units.truth[drawn.shown] == number]]
            there = np.unique(units.sample[drawn.near[units.truth[drawn.near] == number]])
            assert len(np.unique(mine)) == min(5, len(there)), "one cell a sample, as long as there are samples"
    assert units.drawn(10_000, 0) is None


def test_what_the_model_has_learnt_is_not_held_out() -> None:
    held, _ = made()
    asked = question()
    assert asked.classes is not None
    model = Says(replace(asked, classes=only(asked.classes, 30, 40)), always(1.0, 0.0))
    table = few_shot(model, held, **{**HOW, "labels": None, "shots": 1})
    assert table["classes"].max() == 2, "field and wood are left"
    with pytest.raises(InputError, match="has learnt 'town'"):
        few_shot(model, held, ["town", "wood"], **{**HOW, "labels": None})
    assert set(table["what"]) == {"model", "image statistics", "frozen random", "chance"}


def test_samples_can_be_asked_about_as_a_whole() -> None:
    held, _ = made()
    table = few_shot(load_encoder("image-statistics"), held, ["field", "wood"], **{**HOW, "of": "samples", "shots": 1})
    truth = known(made()[1]).reshape(len(held.sample), -1)
    most = sum(max((one == at).sum() for at in (0, 1)) > truth.shape[1] / 2 for one in truth)
    assert 0 < table["n"].max() <= most
    assert set(table["what"]) == {"model", "chance"}


def test_what_cannot_be_asked_is_refused() -> None:
    held, _ = made()
    for wrong, match in (
        ({"of": "pixels"}, "cells or samples"),
        ({"shots": (0,)}, "whole numbers from 1"),
        ({"labels": None}, "Which labels"),
    ):
        with pytest.raises(InputError, match=match):
            few_shot(Made(by_level), held, HELD, **{**HOW, **wrong})
    with pytest.raises(InputError, match="no class 'moor'"):
        few_shot(Made(by_level), held, ["moor", "field"], **HOW)
    with pytest.raises(InputError, match="Two classes"):
        few_shot(Made(by_level), held, ["field"], **HOW)
    with pytest.raises(InputError, match="a str"):
        few_shot("fusion-nano", held, HELD, **HOW)
    with pytest.raises(NothingFoundError, match=r"1 block\(s\)"):
        few_shot(Made(by_level), held, HELD, **{**HOW, "block_m": 1e6})
