"""Batches: a function of the step, cut and turned together with their labels, in the units of a Patch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from learn_kit import BANDS, SAMPLES, SIDE, corpus, feed

from deepsentinel.bands import SCL_CLOUDY
from deepsentinel.encoders import load_encoder
from deepsentinel.errors import InputError
from deepsentinel.learn.batches import Feed, encode
from deepsentinel.learn.crops import Cut


def test_a_step_is_the_same_however_one_came_to_it() -> None:
    one, two = feed(seed=5), feed(seed=5)
    for step in (0, 1, 2):
        one(step)
    there, again = one(7), two(7)
    assert torch.equal(there.s2, again.s2)
    assert torch.equal(there.s1, again.s1)
    assert torch.equal(torch.rand(3, generator=there.generator), torch.rand(3, generator=again.generator))
    assert not torch.equal(there.s2, one(8).s2)
    assert not torch.equal(there.s2, feed(seed=6)(7).s2)


def test_every_sample_comes_once_an_epoch() -> None:
    data = feed()
    seen = np.concatenate([data.positions(step) for step in range(2 * SAMPLES // 4)])
    assert sorted(seen[:SAMPLES]) == sorted(seen[SAMPLES:]) == list(range(SAMPLES))
    assert seen[:SAMPLES].tolist() != seen[SAMPLES:].tolist()


def test_an_epoch_is_put_in_order_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million samples take longer to shuffle than a step takes."""
    made: list[int] = []
    before = np.random.default_rng

    def counted(seed: list[int]) -> np.random.Generator:
        made.append(seed[2])
        return before(seed)

    # Runs that were begun before go on with the same samples.
    epochs = [before([0, 0, epoch]).permutation(SAMPLES) for epoch in range(5)]
    wanted = np.concatenate(epochs)[:50].reshape(10, 5).tolist()
    data = feed(batch_size=5)
    monkeypatch.setattr(np.random, "default_rng", counted)
    assert [data.positions(step).tolist() for step in range(10)] == wanted
    assert made == [0, 1, 2, 3, 4]
    # Whoever goes back, or takes several epochs at once, gets the same.
    assert data.positions(1).tolist() == wanted[1]
    many = feed(batch_size=3 * SAMPLES).positions(0).reshape(3, SAMPLES)
    assert [sorted(row) for row in many.tolist()] == [list(range(SAMPLES))] * 3
    assert len(data._orders) <= 2


def test_whole_samples_are_those_of_the_corpus() -> None:
    held = corpus()
    batch = feed(crop_px=SIDE, turn=False, clouds=False)(0)
    for row, number in enumerate(batch.sample.tolist()):
        there = held.sel(sample=number)
        for band, pixels in zip(batch.s2_bands, batch.s2[row], strict=True):
            assert np.allclose(pixels, there.s2.sel(s2_band=band).values, atol=0.01)
        s1 = there.s1.values
        assert np.allclose(batch.s1[row].numpy()[:, np.isfinite(s1).all(0)], s1[:, np.isfinite(s1).all(0)], atol=0.006)
        assert np.array_equal(batch.s1_mask[row], np.isfinite(s1).all(0))
        assert int(batch.month[row]) == int(str(there.s2_time.values)[5:7]) - 1
    assert batch.s1.isfinite().all()
    assert batch.s2.isfinite().all()


def test_clouds_are_not_usable_where_scl_says_so() -> None:
    held = corpus()
    batch, open_ = feed(crop_px=SIDE, turn=False)(1), feed(crop_px=SIDE, turn=False, clouds=False)(1)
    for row, number in enumerate(batch.sample.tolist()):
        cloudy = np.isin(held.scl.sel(sample=number).values, SCL_CLOUDY)
        assert np.array_equal(batch.s2_mask[row].numpy(), open_.s2_mask[row].numpy() & ~cloudy)


def test_masks_are_cut_and_turned_as_the_pixels_are() -> None:
    """A mask made of the pixels themselves stays one with them."""
    rng = np.random.default_rng(0)
    image = torch.arange(3 * 40 * 40).view(3, 1, 40, 40)
    finer = image.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    for _ in range(5):
        cut = Cut.draw(rng, 3, 40, 16, turn=True)
        pixels, masks = cut(image), cut(finer, 2)
        assert pixels.shape == (3, 1, 16, 16)
        assert torch.equal(masks[..., ::2, ::2], pixels)
        assert torch.equal(masks[..., 1::2, 1::2], pixels)
        # Neighbours stay neighbours: in one direction they are one apart, in the other a row.
        for sample in pixels[:, 0]:
            steps = {abs(int(sample[0, 1] - sample[0, 0])), abs(int(sample[1, 0] - sample[0, 0]))}
            assert steps == {1, 40}


def test_all_eight_ways_to_lay_a_square_come() -> None:
    rng = np.random.default_rng(0)
    image = torch.arange(4).view(1, 2, 2).expand(64, 2, 2)
    assert len({tuple(way.flatten().tolist()) for way in Cut.draw(rng, 64, 2, 2, turn=True)(image)}) == 8
    assert len({tuple(way.flatten().tolist()) for way in Cut.draw(rng, 64, 2, 2, turn=False)(image)}) == 1


def test_several_corpora_are_one() -> None:
    held = corpus()
    parts = Feed([held.isel(sample=range(5)), held.isel(sample=range(5, SAMPLES))], batch_size=SAMPLES, bands=BANDS)
    assert sorted(parts(0).sample.tolist()) == held["sample"].values.tolist()
    assert parts(0).s2.shape == (SAMPLES, 10, SIDE, SIDE)
    by_number = dict(zip(parts(0).sample.tolist(), parts(0).s2.flatten(1).sort().values, strict=True))
    whole = Feed(held, batch_size=SAMPLES, bands=BANDS)(0)
    for number, pixels in zip(whole.sample.tolist(), whole.s2, strict=True):
        assert torch.equal(by_number[number], pixels.flatten().sort().values)


def test_processes_share_a_step() -> None:
    whole = feed(batch_size=6).positions(3)
    parts = [feed(batch_size=6, rank=rank, replicas=2)(3).sample.tolist() for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == 3
    numbers = corpus()["sample"].values[whole]
    assert sorted(parts[0] + parts[1]) == sorted(numbers.tolist())


def test_from_the_disk_and_from_memory_are_the_same() -> None:
    near, far = feed(on_device=True), feed(on_device=False, workers=1)
    for one, two in zip(near.run(2, 5), far.run(2, 5), strict=True):
        assert torch.equal(one.s2, two.s2)
        assert torch.equal(one.s1_mask, two.s1_mask)


@torch.no_grad()
def test_bands_reach_an_encoder_in_its_own_order() -> None:
    encoder = load_encoder("image-statistics")
    forth, back = feed(turn=False)(0), feed(turn=False, bands=BANDS[::-1])(0)
    assert forth.s2_bands == back.s2_bands[::-1]
    assert torch.allclose(encode(encoder, forth).pooled, encode(encoder, back).pooled, equal_nan=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_px": 100}, "samples are 48 px wide"),
        ({"batch_size": 3, "replicas": 2}, "does not divide among 2"),
        ({"labels": ["nothing_class_map"]}, "nothing_class_map"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        feed(**options)


def test_no_corpus_at_all_is_refused() -> None:
    with pytest.raises(InputError, match=r"ds\.open_corpus"):
        Feed([], batch_size=2)
    with pytest.raises(InputError, match="this is str"):
        Feed("corpus.zarr", batch_size=2)  # type: ignore[arg-type]
