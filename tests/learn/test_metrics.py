"""Scores against scikit-learn and against the arithmetic they stand for; sums by group add up to the whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics as peer
from hypothesis import given, settings
from hypothesis import strategies as st

from deepsentinel.errors import InputError
from deepsentinel.learn import metrics, probabilities
from deepsentinel.learn.metrics import BY_CLASS, OVERALL, REGRESSION, Confusion, MultiLabel, Regression
from deepsentinel.learn.probabilities import Calibration, LogLoss, expected_calibration_error, log_loss, reliability
from deepsentinel.learn.tallies import CLOUD_EDGES, as_array, cloud_steps

CLASSES, IGNORE = 5, 255


def maps(seed: int, shape=(6, 8, 9), *, classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """What was found and what is true: alike, but not the same, with some of it to be ignored."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, shape).astype("uint8")
    found = np.where(rng.random(shape) < 0.6, truth, rng.integers(0, classes, shape))
    truth[rng.random(shape) < 0.1] = IGNORE
    return found, truth


def probability(seed: int, shape: tuple[int, ...], classes: int = CLASSES) -> np.ndarray:
    scores = np.random.default_rng(seed).normal(size=(shape[0], classes, *shape[1:])) * 2
    odds = np.exp(scores)
    return odds / odds.sum(1, keepdims=True)


# -- confusion ---------------------------------------------------------------------------------------------------------


def test_scores_of_classes_are_those_of_scikit_learn():
    found, truth = maps(0)
    table = Confusion(CLASSES, ignore=IGNORE)
    for part in range(len(truth)):
        table.update(found[part], truth[part])
    known = truth != IGNORE
    t, f = truth[known], found[known]
    total = table.total()
    assert total.dtype == np.int64
    np.testing.assert_array_equal(total, peer.confusion_matrix(t, f, labels=range(CLASSES)))
    np.testing.assert_allclose(BY_CLASS["iou"](total), peer.jaccard_score(t, f, average=None))
    np.testing.assert_allclose(BY_CLASS["f1"](total), peer.f1_score(t, f, average=None))
    np.testing.assert_allclose(BY_CLASS["recall"](total), peer.recall_score(t, f, average=None))
    np.testing.assert_allclose(BY_CLASS["precision"](total), peer.precision_score(t, f, average=None))
    assert OVERALL["mean_iou"](total) == pytest.approx(peer.jaccard_score(t, f, average="macro"))
    assert OVERALL["macro_f1"](total) == pytest.approx(peer.f1_score(t, f, average="macro"))
    assert OVERALL["accuracy"](total) == pytest.approx(peer.accuracy_score(t, f))
    assert OVERALL["balanced_accuracy"](total) == pytest.approx(peer.balanced_accuracy_score(t, f))


def test_a_class_that_is_nowhere_has_no_score_and_is_in_no_mean():
    found, truth = maps(1, classes=3)
    small, large = Confusion(3, ignore=IGNORE), Confusion(CLASSES, ignore=IGNORE)
    for table in (small, large):
        table.update(found, truth)
    for score in OVERALL.values():
        assert score(large.total()) == pytest.approx(score(small.total()))
    assert np.isnan(BY_CLASS["iou"](large.total())).sum() == 2
    # Found where it is not: it costs the others, and still has no score of its own.
    large.update(np.full(50, 4), np.zeros(50, int))
    assert np.isnan(BY_CLASS["iou"](large.total())[3:]).all()
    assert OVERALL["mean_iou"](large.total()) < OVERALL["mean_iou"](small.total())


def test_nothing_at_all_scores_nan_without_a_warning():
    empty = Confusion(3).total()
    assert all(np.isnan(score(empty)) for score in OVERALL.values())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_renaming_classes_renames_their_scores(seed):
    found, truth = maps(seed, (3, 5, 5))
    order = np.random.default_rng(seed).permutation(CLASSES)
    renamed = np.append(order, np.full(256 - CLASSES, IGNORE))
    one, two = Confusion(CLASSES, ignore=IGNORE), Confusion(CLASSES, ignore=IGNORE)
    one.update(found, truth)
    two.update(renamed[found], renamed[truth])
    np.testing.assert_array_equal(one.total(), two.total()[np.ix_(order, order)])
    np.testing.assert_allclose(BY_CLASS["iou"](one.total()), BY_CLASS["iou"](two.total())[order])


def test_one_pass_tells_every_group_and_every_combination():
    found, truth = maps(2)
    block = np.array([7, 7, 3, 3, 11, 11])
    cloud = np.random.default_rng(0).choice(["0-10 %", "60-100 %"], truth.shape)
    table = Confusion(CLASSES, ignore=IGNORE)
    for i in range(0, 6, 3):  # batches that share a block
        s = slice(i, i + 3)
        table.update(found[s], truth[s], {"block": block[s], "cloud": cloud[s]})

    def alone(where: np.ndarray) -> np.ndarray:
        single = Confusion(CLASSES, ignore=IGNORE)
        single.update(found[where], truth[where])
        return single.total()

    names, tables = table.by("block")
    assert names == [3, 7, 11]
    np.testing.assert_array_equal(tables.sum(0), table.total())
    for name, each in zip(names, tables, strict=True):
        np.testing.assert_array_equal(each, alone(block == name))
    names, clear = table.by("block", cloud="0-10 %")
    for name, each in zip(names, clear, strict=True):
        np.testing.assert_array_equal(each, alone((block == name)[:, None, None] & (cloud == "0-10 %")))
    np.testing.assert_array_equal(table.total(cloud="60-100 %"), alone(cloud == "60-100 %"))


def test_scores_of_many_tables_are_those_of_each():
    tables = np.random.default_rng(0).integers(0, 9, (4, 3, 3))
    tables[2, 1] = 0
    for score in (*OVERALL.values(), *BY_CLASS.values()):
        np.testing.assert_allclose(score(tables), [score(each) for each in tables])


def test_logits_and_tensors_are_taken_as_models_give_them():
    import torch

    _, truth = maps(4)
    odds = probability(4, truth.shape)
    one, two = Confusion(CLASSES, ignore=IGNORE), Confusion(CLASSES, ignore=IGNORE)
    one.update(odds.argmax(1), truth)
    two.update(torch.tensor(odds, requires_grad=True), torch.tensor(truth))
    np.testing.assert_array_equal(one.total(), two.total())
    assert as_array(torch.ones(2, dtype=torch.bfloat16)).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("found", "truth", "groups", "said"),
    [
        ([0, 1], [0, 9], None, r"holds \[9\].*ignore="),
        ([0, 5], [0, 1], None, "from 0 to 5"),
        ([0, 1], [0, 1, 1], None, "shape"),
        ([0, 1], [0.5, 1], None, "whole numbers"),
        ([0, 1], [0, 1], {"block": [1, 2, 3]}, "'block'"),
        ([0, 1], [0, 1], {"cloud": [1.0, np.nan]}, "NaN"),
    ],
)
def test_what_cannot_be_counted_is_refused(found, truth, groups, said):
    with pytest.raises(InputError, match=said):
        Confusion(3).update(found, truth, groups)


def test_groups_stay_what_they_were():
    table = Confusion(2)
    table.update([0], [0], {"block": 1})
    with pytest.raises(InputError, match="stay the same"):
        table.update([0], [0])
    with pytest.raises(InputError, match="'cloud'; there is block"):
        table.by("cloud")


def test_every_cloud_cover_is_in_one_step():
    percent = np.linspace(0, 100, 1001)
    names = cloud_steps(percent)
    for low, high in pairwise(CLOUD_EDGES):
        inside = percent[names == f"{low}-{high} %"]
        assert inside.min() == low
        assert inside.max() <= high
    with pytest.raises(InputError, match="percent"):
        cloud_steps([101])


# -- several labels ----------------------------------------------------------------------------------------------------


def labels(seed: int, n: int = 400, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, classes)) < [0.5, 0.3, 0.1, 0.05]).astype(int)
    odds = np.clip(0.35 * truth + rng.random((n, classes)) * 0.6, 0, 1)
    return np.round(odds, 2), truth  # rounded, so that there are ties


def test_multilabel_scores_are_those_of_scikit_learn():
    odds, truth = labels(0)
    tally = MultiLabel(4)
    for s in (slice(0, 150), slice(150, 400)):
        tally.update(odds[s], truth[s])
    found = odds >= 0.5
    np.testing.assert_allclose(metrics.label_f1(tally.total()), peer.f1_score(truth, found, average=None))
    assert metrics.label_micro_f1(tally.total()) == pytest.approx(peer.f1_score(truth, found, average="micro"))
    np.testing.assert_allclose(
        tally.average_precision(), [peer.average_precision_score(truth[:, k], odds[:, k]) for k in range(4)]
    )


def test_samples_drawn_twice_count_twice_in_average_precision():
    odds, truth = labels(1)
    tally = MultiLabel(4)
    tally.update(odds, truth, {"block": np.arange(400) // 40})
    often = np.random.default_rng(0).integers(0, 4, (3, 10))
    weight = often[:, tally.samples_by("block")]
    got = tally.average_precision(weight)
    for row, each in zip(got, weight, strict=True):
        many = np.repeat(np.arange(400), each)
        want = [peer.average_precision_score(truth[many, k], odds[many, k]) for k in range(4)]
        np.testing.assert_allclose(row, want)


def test_labels_that_are_not_known_change_nothing():
    odds, truth = labels(2)
    with_more, plain = MultiLabel(4), MultiLabel(4)
    plain.update(odds, truth)
    with_more.update(np.vstack([odds, odds[:50]]), np.vstack([truth, np.full((50, 4), -1)]))
    np.testing.assert_array_equal(with_more.total(), plain.total())
    np.testing.assert_allclose(with_more.average_precision(), plain.average_precision())


def test_a_label_that_is_nowhere_is_nan():
    tally = MultiLabel(2)
    tally.update([[0.9, 0.9], [0.1, 0.2]], [[1, 0], [0, 0]])
    assert metrics.label_f1(tally.total())[0] == 1
    assert np.isnan(metrics.label_f1(tally.total())[1])
    assert np.isnan(tally.average_precision()[1])


# -- probabilities -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, [1.0, 5.0, 0.2, 1.0, 2.0]])
def test_log_loss_is_that_of_scikit_learn(weights):
    _, truth = maps(5)
    odds = probability(5, truth.shape)
    loss = LogLoss(CLASSES, weights=weights, ignore=IGNORE)
    for i in range(len(truth)):
        loss.update(odds[i : i + 1], truth[i : i + 1], {"block": i})
    known = truth != IGNORE
    rows, t = np.moveaxis(odds, 1, -1)[known], truth[known]
    sample = None if weights is None else np.asarray(weights)[t]
    want = peer.log_loss(t, rows, sample_weight=sample, labels=range(CLASSES))
    assert log_loss(loss.total()) == pytest.approx(want)
    assert log_loss(loss.by("block")[1]).shape == (6,)


def test_a_sure_mistake_costs_much_and_not_everything():
    loss = LogLoss(2)
    loss.update(np.array([[1.0, 0.0]]), [1])
    assert 10 < log_loss(loss.total()) < 100


@pytest.mark.parametrize("odds", [[[1.5, -0.5]], [[np.nan, 1.0]]])
def test_outputs_that_are_no_probabilities_are_refused(odds):
    for tally in (LogLoss(2), Calibration()):
        with pytest.raises(InputError, match="softmax"):
            tally.update(odds, [0])


def calibrated(n: int, seed: int, *, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two classes of which the first comes true as often as its probability says, less the shift."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(0.55, 0.95, n)
    truth = (rng.random(n) >= first - shift).astype(int)
    return np.stack([first, 1 - first], 1), truth


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.25])
def test_calibration_error_is_how_far_probabilities_are_off(shift):
    odds, truth = calibrated(60_000, 1, shift=shift)
    tally = Calibration()
    for s in np.array_split(np.arange(len(truth)), 7):
        tally.update(odds[s], truth[s])
    assert expected_calibration_error(tally.total()) == pytest.approx(shift, abs=0.012)
    curve = reliability(tally.total())
    np.testing.assert_allclose(curve[:, 2], 1 / len(curve))
    np.testing.assert_allclose(curve[:, 0] - curve[:, 1], shift, atol=0.04)


def test_the_histogram_is_as_good_as_all_confidences():
    odds, truth = calibrated(6_000, 2, shift=0.1)
    tally = Calibration()
    tally.update(odds, truth)
    confidence, right = odds.max(1), odds.argmax(1) == truth
    parts = np.array_split(np.argsort(confidence), 15)
    want = np.mean([abs(confidence[p].mean() - right[p].mean()) for p in parts])
    assert expected_calibration_error(tally.total()) == pytest.approx(want, abs=0.004)
    assert tally.total().shape == (probabilities.CONFIDENCE_BINS, 3)
    two = np.stack([tally.total(), np.zeros_like(tally.total())])
    assert expected_calibration_error(two)[0] == expected_calibration_error(tally.total())
    assert np.isnan(expected_calibration_error(two)[1])


def test_each_label_is_judged_by_itself_where_asked():
    rng = np.random.default_rng(3)
    odds = rng.random((20_000, 2))
    truth = (rng.random((20_000, 2)) < odds).astype(float)
    truth[:100] = -1
    tally = Calibration(of="each")
    tally.update(odds, truth)
    assert tally.total()[:, 0].sum() == 2 * 19_900
    assert expected_calibration_error(tally.total()) < 0.02


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_errors_of_numbers_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    # Far from zero, where squares cancel.
    truth = 1e6 + rng.normal(size=(8, 3, 5))
    found = truth + 0.3 * rng.normal(size=truth.shape) + 0.1
    truth[0, 1] = np.nan
    tally = Regression(3)
    for i in range(0, 8, 2):
        tally.update(found[i : i + 2], truth[i : i + 2], {"block": np.arange(2)})
    assert tally.by("block")[1].shape == (2, 3, 6)
    for k in range(3):
        t, f = truth[:, k].ravel(), found[:, k].ravel()
        t, f = t[np.isfinite(t)], f[np.isfinite(t)]
        got = {name: score(tally.total())[k] for name, score in REGRESSION.items()}
        assert got["rmse"] == pytest.approx(peer.root_mean_squared_error(t, f))
        assert got["mae"] == pytest.approx(peer.mean_absolute_error(t, f))
        assert got["r2"] == pytest.approx(peer.r2_score(t, f), abs=1e-6)
        assert got["bias"] == pytest.approx((f - t).mean())


def test_a_truth_that_never_changes_has_no_r2():
    tally = Regression()
    tally.update([1.0, 2.0], [3.3, 3.3])
    assert np.isnan(REGRESSION["r2"](tally.total())[0])
    assert REGRESSION["bias"](tally.total())[0] == pytest.approx(-1.8)
