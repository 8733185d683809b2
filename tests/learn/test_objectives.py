"""Objectives: each can be learnt, hides what it says it hides, and gives an encoder that goes wherever one goes."""

from __future__ import annotations

import copy

import pytest
import torch
from learn_kit import BANDS, corpus, feed, objective

import deepsentinel as ds
from deepsentinel.encoders import load_encoder
from deepsentinel.errors import InputError
from deepsentinel.learn import objectives
from deepsentinel.learn.batches import Feed, encode
from deepsentinel.learn.decoders import adversaries
from deepsentinel.learn.targets import S1_SIDE, S2_SIDE, scaled, targets, unscaled
from deepsentinel.learn.views import hidden_cells

NEAR = {"near_m": 1_500.0, "far_m": 1_500.0}
# What the descent must bring down; of adversaries neither side is to win.
FALLS = {
    "contrastive": "sensors", "triplet": "triplet", "masked": "s2", "variational": "s2", "adversarial": "s2",
    "radar-to-optical": "pixels", "latent": "latent",
}  # fmt: skip


def feed_for(name: str) -> Feed:
    return feed(triplets=NEAR if name == "triplet" else None, batch_size=6)


@pytest.mark.parametrize("name", list(objectives.OBJECTIVES))
def test_what_is_to_be_learnt_can_be_learnt(name: str) -> None:
    model, data = objective(name), feed_for(name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    found: list[float] = []
    for step in range(14):
        losses = model.loss(data(0))
        assert all(value.ndim == 0 and value.isfinite() for value in losses.values())
        found.append(float(losses[FALLS[name]].detach()))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        model.after_step(step + 1, 14)
    assert min(found[-3:]) < 0.9 * found[0]
    touched = [value for value in model.encoder.parameters() if value.grad is not None and value.grad.any()]
    assert len(touched) > 40  # the whole encoder learns, not its end


@pytest.mark.parametrize("name", ["masked", "contrastive", "variational", "latent"])
@pytest.mark.parametrize("encoder", ["resnet18", "galileo-nano"])
def test_objectives_are_not_tied_to_one_encoder(name: str, encoder: str) -> None:
    model = objectives.build(name, load_encoder(encoder, "random"), feed())
    losses = model.loss(feed()(0))
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert any(value.grad is not None and value.grad.any() for value in model.encoder.parameters())


def test_masked_hides_three_quarters_and_a_sensor_now_and_then() -> None:
    batch = feed(batch_size=240)(0)
    shown, hidden = hidden_cells(batch, 8, 0.25, ("both", "s1", "s2"))
    seen = {name: 1 - hidden[name].float().mean(dim=(1, 2)) for name in ("s1", "s2")}
    alone = {name: (seen[name] == 0.5) & (seen[other] == 0) for name, other in (("s1", "s2"), ("s2", "s1"))}
    both = (seen["s1"] == 0.25) & (seen["s2"] == 0.25)
    assert bool((both | alone["s1"] | alone["s2"]).all())
    assert 0.35 < both.float().mean() < 0.65
    assert 0.12 < alone["s1"].float().mean() < 0.4
    # What is hidden is not usable, and what is not hidden is as usable as it was.
    cells = hidden["s2"].repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert torch.equal(shown.s2_mask, batch.s2_mask & ~cells)
    # The sensors hide other cells, or one would give the other away.
    assert not torch.equal(hidden["s1"][both], hidden["s2"][both])


@torch.no_grad()
def test_what_is_hidden_is_not_seen() -> None:
    encoder = load_encoder("fusion-nano", "random")
    # Three batches of one step draw the same.
    shown, _ = hidden_cells(feed()(3), 8, 0.25, ("both", "s1", "s2"))
    assert shown.s2_mask.float().mean() < 0.5
    assert shown.s1_mask.float().mean() < 0.5
    one, other = feed()(3), feed()(3)
    other.s2 = torch.where(shown.s2_mask.unsqueeze(1), other.s2, 7_000.0)
    other.s1 = torch.where(shown.s1_mask.unsqueeze(1), other.s1, 3.0)
    vectors = [encode(encoder, hidden_cells(batch, 8, 0.25, ("both", "s1", "s2"))[0]).pooled for batch in (one, other)]
    assert torch.allclose(*vectors, atol=1e-5)
    assert not torch.allclose(*(encode(encoder, batch).pooled for batch in (feed()(3), other)), atol=1e-2)


def test_targets_are_means_of_what_is_usable() -> None:
    batch = feed(batch_size=3)(0)
    told = targets(batch, 4, 4)
    assert told["s2"].values.shape == (3, 4, 4, 10 * S2_SIDE**2)
    assert told["s1"].values.shape == (3, 4, 4, 2 * S1_SIDE**2)
    flat = copy.copy(batch)
    flat.s2 = torch.full_like(batch.s2, 1_234.0)
    flat.s2[~batch.s2_mask.unsqueeze(1).expand_as(flat.s2)] = 9_999
    found = targets(flat, 4, 4)["s2"]
    wanted = scaled(torch.full((1, 10, 1, 1), 1_234.0), batch.s2_bands).view(10, 1).expand(10, S2_SIDE**2).flatten()
    assert torch.allclose(found.values[found.known.all(-1)], wanted, atol=1e-5)
    # Power is averaged, not dB: half at 0 dB and half in silence is -3 dB.
    flat.s1 = torch.zeros_like(batch.s1)
    flat.s1[..., ::2] = -60
    flat.s1_mask = torch.ones_like(batch.s1_mask)
    middle = unscaled(targets(flat, 4, 4)["s1"].values.view(-1, 2, 1, 1)[:1], batch.s1_bands)
    assert float(middle[0, 0]) == pytest.approx(-3.01, abs=0.02)


def test_the_critic_and_the_painter_learn_from_each_other_and_not_from_themselves() -> None:
    critic = torch.nn.Linear(4, 1)
    fake = torch.nn.Parameter(torch.randn(8, 4))
    parts = adversaries(critic, torch.randn(8, 4), fake, 1.0)
    parts["fooling"].backward(retain_graph=True)
    assert critic.weight.grad is None
    assert fake.grad is not None
    # Going down, the fake looks more real to the critic.
    better = fake.detach() - 0.1 * fake.grad
    assert critic(better).mean() > critic(fake).mean()
    fake.grad = None
    parts["critic"].backward()
    assert critic.weight.grad is not None
    assert fake.grad is None


def test_the_slow_copy_follows_slowly() -> None:
    model = objective("latent")
    before = [value.clone() for value in model.teacher.parameters()]
    with torch.no_grad():
        for value in model.encoder.parameters():
            value += 1.0
    model.after_step(1, 10)
    moved = torch.cat([(now - was).flatten() for now, was in zip(model.teacher.parameters(), before, strict=True)])
    assert 0 < float(moved.min()) <= float(moved.max()) < 0.02
    assert not any(value.requires_grad for value in model.teacher.parameters())


def test_pretrain_gives_an_encoder_for_everything_else(tmp_path: object) -> None:
    told: list[object] = []
    model = ds.pretrain(
        corpus(), "masked", steps=3, batch_size=4, crop_px=32, out=f"{tmp_path}/run", on_step=told.append, log_every=1
    )
    assert len(told) == len(model.history) == 3
    patch = ds.patch_of(corpus(), 0)
    vector = ds.embed(patch, model)
    assert vector.sizes == {"feature": 384}
    again = ds.load_encoder("fusion-nano", f"{tmp_path}/run/encoder.safetensors")
    assert ds.embed(patch, again).equals(vector) or abs(ds.embed(patch, again) - vector).max() < 1e-6
    assert abs(ds.embed(patch, ds.load_encoder("fusion-nano", "random")) - vector).max() > 1e-3
    # One encoder goes on where another ended, and the first stays as it was.
    further = ds.pretrain(corpus(), "contrastive", model, steps=1, batch_size=4, crop_px=32)
    assert ds.embed(patch, model).equals(vector)
    assert not ds.embed(patch, further).equals(vector)


def test_radar_is_painted_in_reflectance() -> None:
    model = ds.pretrain(corpus(), "radar-to-optical", steps=1, batch_size=4, crop_px=32)
    painted = model.objective.optical(feed()(0))
    assert painted.shape == (4, 10, 32, 32)
    assert 1 <= float(painted.min()) <= float(painted.max()) < 20_000


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"objective": "jigsaw"}, InputError, "masked, variational"),
        ({"objective": "triplet"}, InputError, "near_m=3000, far_m=20000"),
        ({"near_m": 10.0, "far_m": 20.0}, InputError, "not for 'masked'"),
        ({"objective": "radar-to-optical", "encoder": "softcon-vit-small-s2"}, InputError, "an encoder of Sentinel-1"),
        ({"seen_share": 0.5}, TypeError, "no option 'seen_share'.*Masked has contrast, dateless"),
        ({"encoder": "image-statistics"}, InputError, "nothing that could be trained"),
        ({"encoder": 7}, InputError, "encoder is a int"),
    ],
)
def test_what_cannot_be_pretrained_is_refused(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ds.pretrain(corpus(), **{"steps": 1, "batch_size": 4, "crop_px": 32, **options})  # type: ignore[arg-type]


def test_bands_that_are_read_are_those_that_are_learnt() -> None:
    assert set(BANDS) == {band for names in feed().bands.values() for band in names}
