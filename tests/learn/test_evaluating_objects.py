"""Reports about objects: what is right scores one, what is wrong what counting by hand says, and controls are there."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from object_kit import BARN, FAR, FIELD, NAMES, SAMPLES, Knows, all_of_it, clouded, objects, things

import deepsentinel as ds
from deepsentinel.errors import InputError, NothingFoundError
from deepsentinel.learn.evaluation import Ground, evaluate
from deepsentinel.learn.finetuning import finetune
from deepsentinel.learn.intervals import drawn_interval
from deepsentinel.learn.matching_objects import Detections
from deepsentinel.learn.model import Model
from deepsentinel.learn.report import CONTROLS, MODEL, Report, load_report
from deepsentinel.learn.scoring import ahead
from deepsentinel.learn.scoring_objects import Objects

TASKS = ("detection", "instances")
EVERY = sum(len(here) for here in things())
HEADLINE = {"detection": "map_50", "instances": "mean_pq"}


def judged(model: Model, test: xr.Dataset | None = None, **options: Any) -> Report:
    how = {"controls": False, "device": "cpu", "batch_size": 7, "progress": False, **options}
    return evaluate(model, objects() if test is None else test, **how)


def values(report: Report, sensors: str = "both", cloud: str = "all") -> dict[str, float]:
    rows = report.rows[(report.rows["sensors"] == sensors) & (report.rows["cloud"] == cloud)]
    return rows[rows["class"] == ""].set_index("metric")["value"].to_dict()


def by_class(report: Report, metric: str) -> dict[str, float]:
    rows = report.rows[(report.rows["metric"] == metric) & (report.rows["class"] != "")]
    return rows.set_index("class")["value"].to_dict()


@pytest.mark.parametrize("task", TASKS)
def test_who_finds_all_scores_one(task: str) -> None:
    report = judged(Knows(task, all_of_it, sensors="any"))
    assert report.headline == HEADLINE[task]
    assert report.measured == ["both", "s1", "s2"]
    for sensors in report.measured:
        assert set(values(report, sensors).values()) == {1.0}
    assert by_class(report, "average_precision_50") == dict.fromkeys(NAMES, 1.0)
    every = report.rows[report.rows["cloud"] == "all"]
    assert set(every["n"][every["class"] == ""]) == {EVERY}
    each = every[every["class"] != ""].groupby("class")["n"].unique()
    assert sum(int(count) for (count,) in each) == EVERY
    assert "mAP@0.5" in repr(report)
    assert ("mean PQ" in repr(report)) == (task == "instances")
    shapes = {"detection": "boxes", "instances": "masks"}[task]
    assert f"{shapes} overlap by a half" in repr(report)


def barns_and_a_ghost(at: int, sensors: str | None) -> list[Any]:
    """All barns, and surer than any in every sample something where nothing is; no field."""
    return [*(each for each in all_of_it(at, sensors) if each[0] == BARN), (FIELD, FAR, 0.95)]


@pytest.mark.parametrize("task", TASKS)
def test_finds_and_misses_are_those_counted_by_hand(task: str) -> None:
    report = judged(Knows(task, barns_and_a_ghost))
    barns = sum(kind == BARN for here in things() for kind, _ in here)
    found = values(report)
    assert found["precision"] == pytest.approx(barns / (barns + SAMPLES))
    assert found["recall"] == pytest.approx(barns / EVERY)
    assert found["f1"] == pytest.approx(barns / (barns + (SAMPLES + EVERY - barns) / 2))
    assert found["map_50"] == found["map"] == pytest.approx(0.5)
    assert by_class(report, "average_precision_50") == {"barn": 1.0, "field": 0.0}
    assert by_class(report, "recall") == {"barn": 1.0, "field": 0.0}
    if task == "instances":
        assert by_class(report, "pq") == {"barn": 1.0, "field": 0.0}
        assert found["mean_pq"] == pytest.approx(0.5)


@pytest.mark.parametrize("task", TASKS)
def test_what_is_hardly_believed_is_no_find_but_counts_by_its_score(task: str) -> None:
    report = judged(Knows(task, lambda at, sensors: [(kind, box, 0.4) for kind, box, _ in all_of_it(at, sensors)]))
    found = values(report)
    assert found["map"] == 1
    assert found["recall"] == 0
    if task == "instances":
        assert found["mean_pq"] == 0


def only_where_it_is_clear(at: int, sensors: str | None) -> list[Any]:
    return [] if clouded()[at] and sensors != "s1" else all_of_it(at, sensors)


def test_clouds_and_sensors_are_told_apart() -> None:
    report = judged(Knows("instances", only_where_it_is_clear, sensors="any"))
    under = sum(len(things()[at]) for at in range(SAMPLES) if clouded()[at])
    for sensors, share in (("both", 0.0), ("s2", 0.0), ("s1", 1.0)):
        for cloud, score, count in (("0-10 %", 1.0, EVERY - under), ("60-100 %", share, under)):
            found = values(report, sensors, cloud)
            assert {found["map_50"], found["recall"], found["mean_pq"]} == {score}
            here = report.rows[(report.rows["sensors"] == sensors) & (report.rows["cloud"] == cloud)]
            assert set(here["n"]) == {count}
    assert values(report)["recall"] == pytest.approx((EVERY - under) / EVERY)


def roughly(at: int, sensors: str | None) -> list[Any]:
    """Some are found well, some a little beside, some not, and some are not there."""
    rng = np.random.default_rng(at)
    found = []
    for kind, box in things()[at]:
        if rng.random() < 0.7:
            moved = np.array(box) + rng.choice((0, 0, 1), 4)
            found.append((kind, tuple(moved.tolist()), float(rng.random())))
    return found + [(int(rng.integers(2)), FAR, float(rng.random()))] * int(rng.integers(2))


def test_intervals_are_of_blocks_of_ground_drawn_again() -> None:
    model = Knows("detection", roughly)
    report = judged(model)
    ground = Ground([objects()])
    plain = Detections(2)
    for at, here in enumerate(things()):
        found = roughly(at, None)
        told = [np.array([each[part] for each in found]) for part in range(3)]
        there = {"boxes": np.array([box for _, box in here]).reshape(-1, 4), "labels": [kind for kind, _ in here]}
        plain.update({"boxes": told[1], "labels": told[0].astype(int), "scores": told[2]}, there, int(ground.block[at]))
    wanted = drawn_interval(plain.score_of_draws, len(plain.blocks))
    rows = report.rows[(report.rows["cloud"] == "all") & (report.rows["class"] == "")].set_index("metric")
    for place, name in enumerate(("map_50", "map")):
        row = rows.loc[name]
        assert row["value"] == pytest.approx(wanted.value[place])
        assert (row["low"], row["high"]) == pytest.approx((wanted.low[place], wanted.high[place]))
        assert 0 < row["low"] < row["value"] < row["high"] < 1
    for name in ("f1", "precision", "recall"):
        assert rows.loc[name, "low"] < rows.loc[name, "value"] < rows.loc[name, "high"]
    # Blocks as large as the test leave nothing to draw from.
    alone = judged(model, block_m=1e6).rows
    assert alone["low"].isna().all()


def test_masks_are_judged_by_masks_and_what_overlaps_is_drawn_once() -> None:
    def twice(at: int, sensors: str | None) -> list[Any]:
        # Each again, a pixel beside and less surely; and of each a strip of one pixel, which is nothing new either.
        found = all_of_it(at, sensors)
        less = [(kind, (box[0] - 1, box[1], box[2] - 1, box[3]), 0.8) for kind, box, _ in found]
        strips = [(kind, (*box[:3], box[1] + 1), 0.7) for kind, box, _ in found]
        return [*strips, *less, *found]

    found = values(judged(Knows("instances", twice)))
    assert found["mean_pq"] == found["mean_rq"] == 1
    assert found["precision"] == pytest.approx(1 / 3)

    def narrow(at: int, sensors: str | None) -> list[Any]:
        return [(kind, (box[0] + 1, *box[1:]), 0.9) for kind, box, _ in all_of_it(at, sensors)]

    report = judged(Knows("instances", narrow))
    for number, name in enumerate(NAMES):
        fits = [(box[2] - box[0] - 1) / (box[2] - box[0]) for here in things() for kind, box in here if kind == number]
        assert min(fits) > 0.5
        assert by_class(report, "sq")[name] == pytest.approx(np.mean(fits))
        assert by_class(report, "rq")[name] == 1


def test_ground_that_nobody_knows_costs_nothing() -> None:
    scorer = Objects(Knows("instances", all_of_it).question)
    masks = torch.zeros(3, 16, 16)
    masks[0, 1:5, 1:5], masks[1, 6:10, 6:10], masks[2, 12:, 12:] = 1, 1, 1
    boxes = torch.tensor([[1.0, 1, 5, 5], [6, 6, 10, 10], [12, 12, 16, 16]])
    labels = torch.tensor([0, 0, 1])
    found = {"boxes": boxes, "masks": masks, "labels": labels, "scores": torch.full((3,), 0.9)}
    # The second is of no known class, so that it may be any.
    rows = torch.tensor([0, 1, 1])
    there = {
        "boxes": boxes[rows],
        "masks": masks[rows],
        "labels": torch.tensor([0, 0, 1]),
        "ignore": torch.tensor([False, True, True]),
    }
    scorer.update([found], [there], {"block": np.array([4]), "cloud": np.array(["unknown"])})
    assert scorer.count() == 1
    told = {name: float(each.value) for name, each in scorer.overall().items()}
    assert (told["precision"], told["recall"]) == (0.5, 1)
    np.testing.assert_allclose(scorer.by_class()["pq"].value, [1, 0])
    assert scorer.absent == [FIELD]
    with pytest.raises(InputError, match="by cloud"):
        scorer.overall(block=4)


def test_what_is_found_beyond_the_pixels_is_left_out() -> None:
    """Of a backbone samples are widened to 32 px; what it sees there is not of the ground."""

    def beyond(at: int, sensors: str | None) -> list[Any]:
        here = [(kind, box, 0.9) for kind, box in things()[at]]
        return [*here, (FIELD, (20, 20, 30, 30), 0.99), (FIELD, (15.7, 3, 25, 8), 0.99)]

    model = Knows("instances", beyond, "convnext-atto")
    assert set(values(judged(model)).values()) == {1.0}
    assert model.sides == {(32, 32)}


def test_one_model_is_no_better_than_itself_and_worse_than_the_truth() -> None:
    ground = Ground([objects()])
    for task in TASKS:
        right, rough = (ground.measure(Knows(task, finds), "both") for finds in (all_of_it, roughly))
        same = ahead([rough], [rough])
        assert (float(same.value), float(same.low), float(same.high)) == (0, 0, 0)
        better = ahead([right], [rough])
        assert 0 < float(better.low) < float(better.value)


def test_a_test_without_objects_or_their_numbers_is_refused() -> None:
    model = Knows("detection", all_of_it)
    with pytest.raises(NothingFoundError, match="Nothing of the 4 samples"):
        judged(model, objects().isel(sample=slice(4, None, 5)))
    with pytest.raises(InputError, match="no o_parcel_id"):
        judged(model, objects().drop_vars("o_parcel_id"))
    some = [at for at in range(0, SAMPLES, 2) if at % 5 != 4]
    assert any("field" in note for note in judged(model, objects().isel(sample=some)).notes)
    # What is found of a class that is nowhere is wrong, and in no mean over classes.
    report = judged(Knows("instances", barns_and_a_ghost), objects().isel(sample=some))
    assert by_class(report, "pq") == {"barn": 1.0, "field": 0.0}
    assert values(report)["mean_pq"] == values(report)["map_50"] == 1
    assert values(report)["precision"] == 0.5


QUICK: dict[str, Any] = {
    "labels": "o", "steps": 2, "batch_size": 4, "crop_px": 16, "size": 8, "device": "cpu", "least_px": 2,
}  # fmt: skip


@cache
def learnt(task: str, encoder: str = "fusion-nano", sensors: str = "both") -> Model:
    return finetune(objects().isel(sample=slice(0, 8)), encoder, task, weights="random", sensors=sensors, **QUICK)


def test_a_report_of_objects_has_its_controls_and_a_second_seed(tmp_path: Path) -> None:
    test = objects().isel(sample=slice(8, 14))
    report = evaluate(learnt("detection"), test, steps=1, device="cpu", progress=False)
    assert report.missing == ("controls as long as the model",)
    runs = report.rows[["what", "seed"]].drop_duplicates()
    assert sorted(zip(runs["what"], runs["seed"], strict=True)) == sorted(
        (what, seed) for what in (MODEL, *CONTROLS) for seed in (0, 1)
    )
    assert report.rows[report.rows["class"] == ""].groupby("cloud")["n"].nunique().eq(1).all()
    assert report.gained is not None
    kept = load_report(report.save(tmp_path / "report"))
    assert kept.task == "detection"
    assert kept.table().equals(report.table())
    assert ds.show(report).texts


def test_outlines_on_a_backbone_are_judged_too() -> None:
    test = objects().isel(sample=slice(8, 14))
    found = values(judged(learnt("instances", "resnet18", "any"), test, sensors=["s1"]), "s1")
    assert {"mean_pq", "mean_sq", "map_50", "recall"} <= set(found)
    assert all(0 <= score <= 1 for name, score in found.items() if np.isfinite(score))


def test_a_frozen_lesson_of_objects_is_taught_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepsentinel.learn.controls import control, lesson_of

    model = finetune(objects().isel(sample=slice(0, 8)), task="detection", frozen=True, weights="random", **QUICK)
    lesson = lesson_of(model)
    before: Callable[[Model], dict[str, torch.Tensor]] = lambda made: {  # noqa: E731
        name: value.clone() for name, value in made.state_dict().items()
    }
    again = before(lesson.taught(0))
    assert again.keys() == before(model).keys()
    assert all(torch.equal(value, again[name]) for name, value in before(model).items() if name.startswith("encoder."))
    assert {name.partition(".")[0] for name in again} == {"encoder", "head"}
    other = control(lesson, "random convolutions", model.encoder.spec).taught(0)
    assert type(other.head) is type(model.head)
    assert other.encoder.spec.name == "random-convolutions"
