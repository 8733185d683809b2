"""Fusion: what is not seen is no token, and a vector does not know where in the window it lies."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from deepsentinel.encoders import load_encoder
from deepsentinel.encoders.base import Encoder
from deepsentinel.encoders.blocks import turned
from deepsentinel.encoders.fusion import GROUPS, Fusion


@pytest.fixture(scope="module")
def encoder() -> Fusion:
    made = load_encoder("fusion-nano", "random", seed=3)
    assert isinstance(made, Fusion)
    return made


def pixels(count: int = 2, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    s1 = -14 + 4 * torch.randn(count, 2, side, side, generator=rng)
    return s1, 1500 + 500 * torch.randn(count, 10, side, side, generator=rng)


@torch.no_grad()
def test_a_sensor_under_cloud_is_a_sensor_that_is_not_there(encoder: Fusion) -> None:
    s1, s2 = pixels()
    hidden = torch.zeros(2, 32, 32, dtype=torch.bool)
    clouded = encoder(s1, s2, s2_mask=hidden)
    alone = encoder(s1)
    assert torch.allclose(clouded.pooled, alone.pooled, atol=1e-5)
    assert torch.allclose(clouded.dense, alone.dense, atol=1e-5)
    assert (encoder(s1, s2).pooled - alone.pooled).abs().max() > 0.1


def told_by_position(encoder: Encoder) -> float:
    """The share of the variance of cells, over many windows of noise, that their place in the window explains."""
    cells = encoder(*pixels(48)).dense
    return float(cells.mean(dim=0).var(dim=(0, 1)).mean() / cells.var(dim=(0, 1, 2)).mean())


@torch.no_grad()
def test_vectors_do_not_know_where_in_the_window_they_lie(encoder: Fusion) -> None:
    # By chance alone it is 1 in 48; Galileo's architecture, which adds the place to each token, is the control.
    assert told_by_position(encoder) < 0.05
    assert told_by_position(load_encoder("galileo-nano", "random")) > 0.2


@torch.no_grad()
def test_a_place_is_seen_the_same_wherever_its_window_lies(encoder: Fusion) -> None:
    s1, s2 = pixels(1, 16)
    found = []
    for corner in (0, 24):
        frame1, frame2 = torch.zeros(1, 2, 40, 40), torch.zeros(1, 10, 40, 40)
        seen = torch.zeros(1, 40, 40, dtype=torch.bool)
        inside = slice(corner, corner + 16)
        frame1[..., inside, inside], frame2[..., inside, inside], seen[..., inside, inside] = s1, s2, True
        found.append(encoder(frame1, frame2, s1_mask=seen, s2_mask=seen).pooled)
    assert torch.allclose(*found, atol=1e-4)


@torch.no_grad()
def test_how_cells_lie_to_each_other_counts(encoder: Fusion) -> None:
    """Without any sense of place, cells in another order would give the same vectors in that order."""
    s1, s2 = pixels(1)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0))
    rows = (order[:, None] * 8 + torch.arange(8)).flatten()
    plain = encoder(s1, s2).dense
    mixed = encoder(s1[..., rows, :], s2[..., rows, :]).dense
    assert (mixed - plain[:, order]).abs().max() > 1e-3


@torch.no_grad()
def test_a_band_that_is_missing_says_nothing_and_its_group_goes_on(encoder: Fusion) -> None:
    s1, s2 = pixels()
    other = s2.clone()
    other[:, 0] = 9_000
    one, two = encoder(s1, s2, missing=("B02",)), encoder(s1, other, missing=("B02",))
    assert torch.equal(one.pooled, two.pooled)
    # As if the band were as it is on average.
    mean = s2.clone()
    mean[:, 0] = encoder.spec.s2_scaling.offset[0]
    assert torch.allclose(one.pooled, encoder(s1, mean).pooled, atol=1e-5)
    # With all of its bands a group goes.
    gone = encoder(s1, s2, missing=GROUPS["S2_20m"])
    other = s2.clone()
    other[:, 3:6] = 9_000
    assert torch.equal(gone.pooled, encoder(s1, other, missing=GROUPS["S2_20m"]).pooled)


@torch.no_grad()
def test_the_month_counts_and_need_not_be_known(encoder: Fusion) -> None:
    s1, s2 = pixels()
    unknown, june, december = (
        encoder(s1, s2, month=month).pooled for month in (None, torch.tensor([5, 5]), torch.tensor([11, 11]))
    )
    assert (june - december).abs().max() > 1e-3
    assert (june - unknown).abs().max() > 1e-3


def test_turning_keeps_lengths_and_only_differences_count() -> None:
    rng = torch.Generator().manual_seed(0)
    one, two = (torch.randn(8, generator=rng) for _ in range(2))

    def product(at: float, other: float) -> float:
        angles = [torch.tensor([1.0, 0.3, 0.1, 0.02]) * place for place in (at, other)]
        return float(turned(one, angles[0].cos(), angles[0].sin()) @ turned(two, angles[1].cos(), angles[1].sin()))

    assert product(3, 5) == pytest.approx(product(103, 105), abs=1e-4)
    assert product(3, 5) != pytest.approx(product(3, 9), abs=1e-2)


def test_what_comes_with_the_package_is_what_was_trained() -> None:
    """Small, whole, and with the story of its training."""
    from safetensors import safe_open

    from deepsentinel.encoders import SHIPPED, find

    path = SHIPPED / find("fusion-nano").file
    assert path.stat().st_size < 4_000_000
    assert hashlib.sha256(path.read_bytes()).hexdigest() == find("fusion-nano").sha256
    with safe_open(path, framework="pt") as file:
        story = {name: json.loads(value) for name, value in file.metadata().items()}
    assert story["objective"] == "masked"
    assert len(story["plans"]) == 22
    trained, random = load_encoder("fusion-nano"), load_encoder("fusion-nano", "random")
    assert not torch.equal(trained.norm.weight, random.norm.weight)
    assert trained.spec.level == "L2A"
