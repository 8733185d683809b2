"""Intervals hold the truth as often as they say, where counting pixels one by one is far too sure of itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from deepsentinel.errors import InputError
from deepsentinel.learn.intervals import (
    block_draws,
    blocked_interval,
    drawn_interval,
    ground_blocks,
    summed,
)
from deepsentinel.learn.metrics import BY_CLASS, OVERALL, MultiLabel

SIDE, BLOCK = 160, 20


def share(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def by_block(right: np.ndarray) -> np.ndarray:
    """Hits and pixels in squares of ground."""
    count = SIDE // BLOCK
    hits = right.reshape(count, BLOCK, count, BLOCK).sum((1, 3)).ravel()
    return np.stack([hits, np.full(len(hits), BLOCK * BLOCK)], -1)


def test_intervals_hold_the_truth_as_often_as_they_say_and_pixels_do_not():
    rng = np.random.default_rng(0)
    held, naive, trials = 0, 0, 200
    for trial in range(trials):
        # Right and wrong come in patches of about nine pixels, less than half a block; half of all ground is right.
        right = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2, mode="wrap") > 0
        found = blocked_interval(by_block(right), share, draws=400, seed=trial)
        held += bool(found.low <= 0.5 <= found.high)
        # What drawing pixels one by one would say.
        hits = rng.binomial(right.size, right.mean(), 400) / right.size
        low, high = np.quantile(hits, [0.025, 0.975])
        naive += low <= 0.5 <= high
    assert 0.90 <= held / trials <= 0.99
    assert naive / trials < 0.4


@pytest.mark.parametrize("blocks", [5, 12])
def test_few_blocks_are_not_surer_than_they_can_be(blocks):
    rng = np.random.default_rng(1)
    held, trials = 0, 300
    for trial in range(trials):
        hits = rng.binomial(200, rng.beta(6, 2, blocks))
        found = blocked_interval(np.stack([hits, np.full(blocks, 200)], -1), share, draws=400, seed=trial)
        held += bool(found.low <= 0.75 <= found.high)
    assert held / trials >= 0.88
    assert ("few blocks" in found.note) == (blocks < 10)


def test_one_block_has_no_interval_and_says_so():
    found = blocked_interval(np.array([[3, 4]]), share)
    assert found.value == 0.75
    assert np.isnan([found.low, found.high]).all()
    assert "one block" in repr(found)


def test_the_draws_are_sums_of_whole_blocks():
    tables = np.random.default_rng(2).integers(0, 50, (7, 3, 3))
    weight = block_draws(7, 20, seed=5)
    got = summed(weight, tables)
    for row, table in zip(weight, got, strict=True):
        np.testing.assert_array_equal(table, np.repeat(tables, row, axis=0).sum(0))
    np.testing.assert_array_equal(weight, block_draws(7, 20, seed=5))
    assert not np.array_equal(weight, block_draws(7, 20, seed=6))


def test_scores_of_classes_have_an_interval_each_and_missing_classes_none():
    rng = np.random.default_rng(3)
    tables = rng.integers(0, 50, (30, 4, 4)) + 100 * np.eye(4, dtype=int)
    tables[:, 2] = 0
    found = blocked_interval(tables, BY_CLASS["iou"])
    assert np.isnan(found.value[2])
    assert np.isnan(found.low[2])
    others = [0, 1, 3]
    assert (found.low[others] < found.value[others]).all()
    assert (found.value[others] < found.high[others]).all()
    mean = blocked_interval(tables, OVERALL["mean_iou"])
    # The mean of classes is surer than each of them.
    assert mean.high - mean.low < (found.high - found.low)[others].max()
    assert np.shape(mean.value) == ()


def test_intervals_do_not_depend_on_the_size_of_pixels_but_on_the_number_of_blocks():
    rng = np.random.default_rng(4)
    rate = rng.beta(6, 2, 400)
    width = {}
    for blocks, pixels in ((100, 1000), (100, 100_000), (400, 1000)):
        hits = np.stack([rate[:blocks] * pixels, np.full(blocks, pixels)], -1)
        found = blocked_interval(hits, share)
        width[blocks, pixels] = float(found.high - found.low)
    assert width[100, 1000] == pytest.approx(width[100, 100_000])
    assert width[400, 1000] == pytest.approx(width[100, 1000] / 2, rel=0.25)


def test_blocks_of_ground_hold_what_is_near_and_nothing_far():
    rng = np.random.default_rng(7)
    east, north = rng.uniform(0, 40_000, (2, 4_000))
    lat = 52 + north / 111_320
    lon = 13 + east / (111_320 * np.cos(np.deg2rad(52)))
    block = ground_blocks(lon, lat, 2000)
    widest = max(np.ptp(part[block == b]) for b in np.unique(block) for part in (east, north))
    assert widest < 2000 * 1.5  # squares may stand on a corner
    assert 40**2 / 2**2 * 0.8 < len(np.unique(block)) < 40**2 / 2**2 * 1.5
    assert len(np.unique(ground_blocks(lon, lat, 8000))) < len(np.unique(block)) / 8


def test_average_precision_is_drawn_by_block_too():
    rng = np.random.default_rng(6)
    truth = (rng.random((300, 2)) < 0.4).astype(int)
    tally = MultiLabel(2)
    tally.update(np.clip(0.3 * truth + 0.7 * rng.random((300, 2)), 0, 1), truth, {"block": np.arange(300) // 10})
    block = tally.samples_by("block")
    found = drawn_interval(lambda weight: tally.average_precision(weight[:, block]), 30)
    np.testing.assert_allclose(found.value, tally.average_precision())
    assert (found.low < found.value).all()
    assert (found.value < found.high).all()


@pytest.mark.parametrize(
    ("tables", "options", "said"),
    [(np.zeros((0, 2)), {}, "no block"), (np.ones((3, 2)), {"level": 95}, "between 0 and 1"),
     (np.full((3, 2), np.nan), {}, "NaN")],
)  # fmt: skip
def test_what_has_no_interval_is_refused(tables, options, said):
    with pytest.raises(InputError, match=said):
        blocked_interval(tables, share, **options)
