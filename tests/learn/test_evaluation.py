"""Evaluation: what is right scores one, what is constant scores what arithmetic says, and nothing is counted twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from evaluation_kit import CODES, NAMES, SAMPLES, Says, always, known, made, only, question, the_truth

from deepsentinel.encoders import load_encoder
from deepsentinel.errors import DeepSentinelWarning, InputError, NothingFoundError
from deepsentinel.learn.batches import Batch, Feed
from deepsentinel.learn.checks import shared_samples
from deepsentinel.learn.evaluation import Ground, answers, each_once, evaluate, padded
from deepsentinel.learn.intervals import drawn_interval
from deepsentinel.learn.metrics import MultiLabel
from deepsentinel.learn.model import Model
from deepsentinel.learn.report import Report, load_report
from deepsentinel.learn.scoring import Labels, ahead
from deepsentinel.learn.tallies import mean_of_known
from deepsentinel.learn.tasks import IGNORE


def judged(model: Model, test: Any = None, **options: Any) -> Report:
    return evaluate(
        model, made()[0] if test is None else test, **{"controls": False, "device": "cpu", "batch_size": 7, **options}
    )


def values(report: Report, sensors: str = "both", cloud: str = "all") -> dict[str, float]:
    rows = report.rows[(report.rows["sensors"] == sensors) & (report.rows["cloud"] == cloud)]
    return rows[rows["class"] == ""].set_index("metric")["value"].to_dict()


def by_class(report: Report, metric: str) -> dict[str, float]:
    rows = report.rows[(report.rows["metric"] == metric) & (report.rows["class"] != "")]
    return rows.set_index("class")["value"].to_dict()


def test_the_truth_scores_one_and_only_what_is_known_counts() -> None:
    model = Says(question(sensors="any"), the_truth)
    report = judged(model)
    assert report.measured == ["both", "s1", "s2"]
    assert set(model.seen) == {"both", "s1", "s2"}
    for sensors in report.measured:
        found = values(report, sensors)
        for metric in ("mean_iou", "macro_f1", "accuracy", "balanced_accuracy"):
            assert found[metric] == 1
        assert found["log_loss"] == pytest.approx(0, abs=1e-5)
        assert found["calibration_error"] == pytest.approx(0, abs=1e-3)
    truth = known(made()[1])
    every = report.rows[report.rows["cloud"] == "all"]
    assert set(every["n"][every["class"] == ""]) == {(truth != IGNORE).sum()}
    for at, name in enumerate(NAMES.split()):  # of a class those pixels that are truly of it
        assert set(every["n"][every["class"] == name]) == {(truth == at).sum()}
        line = next(line for line in repr(report).split("IoU by class")[1].splitlines() if line.split()[:1] == [name])
        assert line.split()[-1] == f"{(truth == at).sum():,}"
    assert report.confusion is not None
    assert np.diag(report.confusion).tolist() == [(truth == at).sum() for at in range(4)]
    assert report.confusion.to_numpy().sum() == (truth != IGNORE).sum()
    assert list(report.confusion.index) == list(report.confusion.columns) == NAMES.split()
    assert "provisional" in repr(report).lower()


def test_one_class_for_everything_scores_its_share() -> None:
    truth = known(made()[1])
    kept = truth[truth != IGNORE]
    share = float((kept == 0).mean())
    report = judged(Says(question(), always(30.0, 0.0, 0.0, 0.0)))
    found = values(report)
    assert found["accuracy"] == pytest.approx(share)
    assert found["mean_iou"] == pytest.approx(share / 4)
    assert found["balanced_accuracy"] == pytest.approx(1 / 4)
    assert found["macro_f1"] == pytest.approx(2 * share / (1 + share) / 4)
    assert by_class(report, "iou") == pytest.approx({"field": share, "wood": 0, "town": 0, "lake": 0})
    assert found["calibration_error"] == pytest.approx(1 - share, abs=2e-3)


def test_who_knows_nothing_loses_the_logarithm_of_the_classes() -> None:
    for balance in (0.0, 1.0):
        report = judged(Says(question(balance=balance), always(0.0, 0.0, 0.0, 0.0)))
        assert values(report)["log_loss"] == pytest.approx(np.log(4), rel=1e-5)
    # Sure of the wood: each class costs its weight.
    odds = torch.tensor([0.1, 0.7, 0.1, 0.1])
    asked = question(balance=0.5)
    truth = known(made()[1])
    assert asked.classes is not None
    weights = asked.classes.weights(0.5).numpy()[truth[truth != IGNORE]]
    loss = -np.log(odds.numpy())[truth[truth != IGNORE]]
    report = judged(Says(asked, always(*odds.log().tolist())))
    assert values(report)["log_loss"] == pytest.approx((weights * loss).sum() / weights.sum(), rel=1e-5)


def test_what_is_contested_may_be_anything() -> None:
    def wrong_there(model: Model, batch: Batch) -> torch.Tensor:
        right = the_truth(model, batch)
        contested = batch.labels["m_conflict"] >= 2
        assert contested.any()
        return torch.where(contested.unsqueeze(1), torch.randn(right.shape), right)

    assert values(judged(Says(question(), wrong_there)))["mean_iou"] == 1
    never = Says(question(), lambda model, batch: -the_truth(model, batch))
    assert values(judged(never))["mean_iou"] == 0


def test_clouds_part_the_pixels_and_each_step_is_scored_by_itself() -> None:
    held, data = made()
    shares = 100 * (data["scl"] == 9).mean(axis=(1, 2))
    edges = {"0-10 %": (0, 10), "10-30 %": (10, 30), "30-60 %": (30, 60), "60-100 %": (60, 101)}
    report = judged(Says(question(), always(30.0, 0.0, 0.0, 0.0)))
    truth = known(data)
    for name, (low, high) in edges.items():
        kept = truth[(shares >= low) & (shares < high)]
        kept = kept[kept != IGNORE]
        rows = report.rows[(report.rows["cloud"] == name) & (report.rows["metric"] == "accuracy")]
        assert rows["n"].tolist() == [len(kept)]
        assert rows["value"].iloc[0] == pytest.approx((kept == 0).mean())
    few = held.isel(sample=slice(0, 3))
    assert set(judged(Says(question(), the_truth), few).rows["cloud"]) == {"all"}
    # Without SCL the column tells it: all are as clear as each other, which tells nothing.
    assert Ground([held.drop_vars("scl")]).clouds_told == []


def test_samples_have_their_classes_their_shares_and_their_numbers() -> None:
    found = values(judged(Says(question("classification", least_share=0.2), the_truth)))
    assert [found[name] for name in ("macro_f1", "micro_f1", "accuracy", "mean_average_precision")] == [1, 1, 1, 1]
    found = values(judged(Says(question("fractions"), the_truth)))
    assert found["rmse"] == pytest.approx(0, abs=1e-6)
    assert found["r2"] == pytest.approx(1)
    report = judged(Says(question("regression"), the_truth))
    assert values(report)["rmse"] == pytest.approx(0, abs=1e-5)
    assert report.classes == ()
    assert report.confusion is None
    assert set(report.rows.loc[report.rows["cloud"] == "all", "n"]) == {np.isfinite(made()[1]["m_distance"]).sum()}


def test_constants_miss_by_what_the_truth_varies() -> None:
    truth = known(made()[1])
    shares = np.stack([[(one == at).sum() / (one != IGNORE).sum() for at in range(4)] for one in truth])
    report = judged(Says(question("fractions"), always(0.0, 0.0, 0.0, 0.0)))
    assert values(report)["rmse"] == pytest.approx(np.sqrt(((shares - 0.25) ** 2).mean()), rel=1e-4)
    assert by_class(report, "bias") == pytest.approx(dict(zip(NAMES.split(), 0.25 - shares.mean(0), strict=True)))
    number = made()[1]["m_distance"]
    number = number[np.isfinite(number)].astype("float64")
    report = judged(Says(question("regression"), always(0.0)))
    assert values(report)["rmse"] == pytest.approx(np.sqrt(((number - 16) ** 2).mean()), rel=1e-5)
    assert values(report)["bias"] == pytest.approx(16 - number.mean(), rel=1e-4)
    # Every class in every sample: precision is the share of the samples that have it, and nothing is missed.
    there = (shares >= 0.2).mean(axis=0)
    report = judged(Says(question("classification", least_share=0.2), always(3.0, 3.0, 3.0, 3.0)))
    expected = {name: 2 * share / (1 + share) for name, share in zip(NAMES.split(), there, strict=True) if share}
    found = {name: value for name, value in by_class(report, "f1").items() if value == value}
    assert found == pytest.approx(expected)
    assert by_class(report, "average_precision")["field"] == pytest.approx(there[0])
    assert values(report)["accuracy"] == pytest.approx(there.mean())


def test_every_sample_comes_once_whatever_the_batch() -> None:
    held, _ = made()
    for size in (1, 4, 7, SAMPLES):
        feed = Feed([held.isel(sample=slice(0, 11)), held.isel(sample=slice(11, None))], batch_size=size, turn=False)
        positions = [
            pair for at, batch in each_once(feed) for pair in zip(at.tolist(), batch.sample.tolist(), strict=True)
        ]
        assert sorted(place for place, _ in positions) == list(range(SAMPLES))
        assert all(place == number for place, number in positions)
    one, many = (judged(Says(question(), always(1.0, 2.0, 0.0, 0.0)), batch_size=size) for size in (1, SAMPLES))
    pd.testing.assert_frame_equal(one.rows, many.rows)


def test_padding_hides_what_it_adds_and_changes_no_answer() -> None:
    rng = torch.Generator().manual_seed(0)
    made_up = {
        "s1": -12 + torch.randn(2, 2, 20, 28, generator=rng),
        "s2": 1500 + 300 * torch.randn(2, 3, 20, 28, generator=rng),
        "s1_mask": torch.rand(2, 20, 28, generator=rng) < 0.9,
        "s2_mask": torch.rand(2, 20, 28, generator=rng) < 0.7,
    }
    batch = Batch(
        **made_up, s1_bands=("VV", "VH"), s2_bands=("B02", "B03", "B8A"), month=None, latlon=None,
        labels={"m_class_map": torch.randint(4, (2, 20, 28), generator=rng) * 10, "m_conflict": torch.zeros(2, 20, 28)},
        sample=torch.arange(2), generator=rng,
    )  # fmt: skip
    wide = padded(batch, 16)
    for name, before in made_up.items():
        after = getattr(wide, name)
        assert after.shape[-2:] == (32, 32)
        assert after.dtype == before.dtype
        assert torch.equal(after[..., :20, :28], before)
        if name.endswith("mask"):
            assert int(after.sum()) == int(before.sum())
    assert padded(wide, 16) is wide
    assert wide.labels["m_class_map"].shape[-2:] == (20, 28)
    model = Says(question(), the_truth)
    said = answers(model, batch)
    truth = model.truth(batch)
    assert said.shape == (2, 4, 20, 28)
    assert torch.equal(said.argmax(1)[truth != IGNORE], truth[truth != IGNORE])
    # What was not seen has no say in a vector of the whole: 20 px are 24 of which four were not seen.
    head = Model(load_encoder("fusion-nano", "random"), question("classification"), size=8).eval()
    torch.testing.assert_close(answers(head, batch), answers(head, padded(batch, 32)), rtol=1e-4, atol=1e-5)
    other = replace(batch, s2_mask=None)
    assert int(padded(other, 16).s2_mask.sum()) == 2 * 20 * 28


@pytest.mark.parametrize("name", ["resnet18", "fusion-nano", "image-statistics"])
def test_windows_of_any_size_are_answered(name: str) -> None:
    batch = next(Feed(made()[0], batch_size=2, crop_px=13, labels=question().arrays).run(0, 1))
    model = Model(load_encoder(name, "random"), question(), size=8).eval()
    found = answers(model, batch)
    assert found.shape == (2, 4, 13, 13)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, 13, 13))


def test_a_test_without_what_is_asked_is_refused_and_what_is_strange_is_told() -> None:
    held, _ = made()
    everything = question()
    assert everything.classes is not None
    with pytest.raises(InputError, match="s2 only"):
        judged(Says(everything, the_truth), held.drop_vars("s1"), sensors="both")
    with pytest.raises(InputError, match="each once"):
        judged(Says(everything, the_truth), sensors=["s1", "s1"])
    assert judged(Says(everything, the_truth), sensors="s2").measured == ["s2"]
    with pytest.raises(InputError, match="has no m_class_map"):
        judged(Says(everything, the_truth), held.drop_vars("m_class_map"))
    renamed = held.copy()
    renamed["m_class_map"].attrs = {"flag_values": list(CODES), "flag_meanings": "wood field town lake"}
    with pytest.raises(InputError, match="not the same labels"):
        judged(Says(everything, the_truth), renamed)
    part = replace(everything, classes=only(everything.classes, 10, 20))
    report = judged(Says(part, the_truth))
    assert any("town, lake" in note or "lake, town" in note for note in report.notes)
    truth = known(made()[1])
    every = report.rows[(report.rows["cloud"] == "all") & (report.rows["class"] == "")]
    assert set(every["n"]) == {(truth < 2).sum()}
    without = held.isel(sample=[at for at in range(SAMPLES) if at != 3])
    report = judged(Says(everything, the_truth), without)
    assert any("do not occur in the test and are in no mean: lake" in note for note in report.notes)
    assert values(report)["mean_iou"] == 1
    lake = replace(everything, classes=only(everything.classes, 40, 30))
    with pytest.raises(NothingFoundError, match="Nothing of the"):
        empty = [at for at in range(SAMPLES) if not (known(made()[1])[at] == 2).any() and at != 3]
        judged(Says(lake, the_truth), held.isel(sample=empty))


def test_samples_that_were_learnt_from_are_told() -> None:
    held, _ = made()
    with pytest.warns(DeepSentinelWarning, match="4 of the test's samples"):
        assert shared_samples([held.isel(sample=slice(0, 10))], [held.isel(sample=slice(6, 20))])
    assert shared_samples([held.isel(sample=slice(0, 6))], [held.isel(sample=slice(6, 20))]) == []
    assert shared_samples([], [held]) == []


@pytest.mark.parametrize("plan", ["another", ""])
def test_ground_that_was_learnt_from_is_told_under_any_name(plan: str) -> None:
    held, _ = made()
    other = held.isel(sample=slice(6, 20)).assign_attrs(plan=plan)
    # Samples are 160 m wide and 3 km apart.
    for east_m, count in ((0, 4), (70, 4), (-70, 4), (90, 0)):
        moved = other.assign_coords(lon=other["lon"] + east_m / (111_320 * np.cos(np.deg2rad(45))))
        if count:
            with pytest.warns(DeepSentinelWarning, match="4 of the test's samples"):
                assert shared_samples([held.isel(sample=slice(0, 10))] * 2, [moved])
        else:
            assert shared_samples([held.isel(sample=slice(0, 10))], [moved]) == []
    # What was never built taught nothing.
    planned = held.assign_coords(status=("sample", ["planned"] * SAMPLES))
    assert shared_samples([planned], [held]) == shared_samples([held], [planned]) == []


def test_average_precision_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = question("classification", least_share=0.2)
    scorer = Ground([made()[0]]).measure(Says(asked, always(1.0, 0.0, 0.0, 0.0)), "both")
    assert isinstance(scorer, Labels)
    asked_of: list[int] = []
    reckon = MultiLabel.average_precision
    monkeypatch.setattr(
        MultiLabel, "average_precision", lambda self, weight: asked_of.append(len(weight)) or reckon(self, weight)
    )
    mean, each = scorer.overall()["mean_average_precision"], scorer.by_class()["average_precision"]
    assert sum(asked_of) == 1001, "all blocks, and each draw"
    assert mean.value == pytest.approx(np.nanmean(each.value))
    # As drawn apart from each other.
    block = scorer.table.samples_by("block")
    number = np.unique(block, return_inverse=True)[1]
    apart = drawn_interval(lambda weight: mean_of_known(reckon(scorer.table, weight[:, number])), len(set(block)))
    assert [float(mean.low), float(mean.high)] == pytest.approx([float(apart.low), float(apart.high)])
    # What comes later counts.
    scorer.update(torch.rand(2, 4), torch.ones(2, 4), {"block": np.array([98, 99]), "cloud": np.array(["0-10 %"] * 2)})
    assert scorer.overall()["mean_average_precision"].blocks == mean.blocks + 2


def test_a_difference_on_the_same_ground_is_surer_than_two_intervals() -> None:
    truth = known(made()[1])
    ground = Ground([made()[0]])

    def better(model: Model, batch: Batch) -> torch.Tensor:
        # A tenth of the rows of each sample is put right.
        said = always(30.0, 0.0, 0.0, 0.0)(model, batch).clone()
        said[:, :, 4:6] = the_truth(model, batch)[:, :, 4:6]
        return said

    plain, mended = (
        ground.measure(Says(question(), answer), "both") for answer in (always(30.0, 0.0, 0.0, 0.0), better)
    )
    found = ahead([mended, mended], [plain])
    single = [scorer.overall()["mean_iou"] for scorer in (mended, plain)]
    assert float(found.value) == pytest.approx(float(single[0].value - single[1].value))
    assert 0 < float(found.low) <= float(found.value) <= float(found.high)
    assert float(found.high - found.low) < float(single[0].high - single[0].low + single[1].high - single[1].low)
    assert found.blocks == len(truth), "samples 3 km apart"
    none = ahead([plain], [plain, plain])
    assert [float(none.value), float(none.low), float(none.high)] == [0, 0, 0]


def test_a_model_is_left_as_it_was_and_its_report_is_drawn_and_kept(tmp_path: Any) -> None:
    from deepsentinel.figures import show

    model = Says(question(), always(2.0, 1.0, 0.0, 0.0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = judged(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert show(report).texts[0].get_text().startswith("Provisional: mean IoU")
    again = load_report(report.save(tmp_path / "report"))
    pd.testing.assert_frame_equal(again.rows, report.rows)
    assert again.notes == report.notes
