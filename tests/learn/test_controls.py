"""Controls: the same lesson for what knew nothing, and for the model itself with another seed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import xarray as xr
from evaluation_kit import Says, always, made, question

from deepsentinel.encoders import load_encoder
from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.learn.controls import BASELINES, Lesson, control, lesson_of, runs_of, same_lesson
from deepsentinel.learn.evaluation import evaluate
from deepsentinel.learn.finetuning import finetune
from deepsentinel.learn.heads import PixelHead, UnetHead
from deepsentinel.learn.model import Model
from deepsentinel.learn.report import CONTROLS, MODEL, load_report

QUICK: dict[str, Any] = {
    "labels": "m", "steps": 2, "batch_size": 4, "crop_px": 16, "size": 8, "device": "cpu", "lr": 0.01,
}  # fmt: skip


def halves() -> tuple[xr.Dataset, xr.Dataset]:
    held, _ = made()
    return held.isel(sample=slice(0, 13)), held.isel(sample=slice(13, None))


@cache
def learnt(
    encoder: str = "fusion-nano", seed: int = 0, frozen: bool = False, given: bool = False, **options: Any
) -> Model:
    start: Any = load_encoder(encoder, "random", seed=5) if given else encoder
    how = {**options} if given else {"weights": "random", **options}
    return finetune(halves()[0], start, seed=seed, frozen=frozen, **QUICK, **how)


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def lesson(model: Model, **options: Any) -> Lesson:
    return lesson_of(model, halves()[0], **options)


def test_a_report_has_four_controls_and_two_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[tuple[Any, bool, int]] = []
    teach = Lesson.taught
    monkeypatch.setattr(
        Lesson,
        "taught",
        lambda self, seed, **how: taught.append((self.start, self.frozen, seed)) or teach(self, seed, **how),
    )
    model = learnt(given=True)
    train, test = halves()
    report = evaluate(
        model, test, train=train, encoder=load_encoder("fusion-nano", "random", seed=5), seeds=(0, 1), device="cpu",
        progress=False,
    )  # fmt: skip
    assert report.missing == ()
    assert "PROVISIONAL" not in repr(report)
    gained = report.gain()
    assert gained is not None
    assert gained[1] in report.notes[0]
    sign = 1 if gained[0] >= 0 else -1
    assert f": {sign * abs(gained[0]):.3f}, interval" in report.notes[0]
    runs = report.rows[["what", "seed"]].drop_duplicates()
    assert sorted(zip(runs["what"], runs["seed"], strict=True)) == sorted(
        (what, seed) for what in (MODEL, *CONTROLS) for seed in (0, 1)
    )
    assert len(taught) == 9
    # Each was measured on the same pixels.
    whole = report.rows[report.rows["class"] == ""]
    assert whole.groupby(["cloud"])["n"].nunique().eq(1).all()
    assert report.confusion is not None
    both = whole["n"][whole["cloud"] == "all"].iloc[0]
    assert report.confusion.to_numpy().sum() == 2 * both


def test_a_model_from_scratch_is_its_own_control(monkeypatch: pytest.MonkeyPatch) -> None:
    taught = []
    teach = Lesson.taught
    monkeypatch.setattr(Lesson, "taught", lambda self, seed, **how: taught.append(seed) or teach(self, seed, **how))
    train, test = halves()
    model = learnt(seed=3, layer_rate=1.0)
    report = evaluate(model, test, train=train, seeds=(0, 1), device="cpu", progress=False)
    assert report.missing == ()
    assert set(report.rows["seed"]) == {3, 0}, "the model's own seed is one of the two"
    assert len(taught) == 7
    rows = report.rows.set_index(["seed", "sensors", "cloud", "metric", "class"]).sort_index()
    own, other = (rows[rows["what"] == what]["value"] for what in (MODEL, "from scratch"))
    assert own.equals(other)
    assert any("its own control 'from scratch'" in note for note in report.notes)


@pytest.mark.parametrize(("given", "frozen"), [(False, False), (True, False), (False, True)])
def test_a_lesson_taught_again_gives_the_very_same_model(given: bool, frozen: bool) -> None:
    model = learnt(given=given, frozen=frozen)
    start = load_encoder("fusion-nano", "random", seed=5) if given else None
    again = lesson(model, encoder=start).taught(0)
    assert same(weights_of(model), weights_of(again))
    assert again.history["loss"].tolist() == model.history["loss"].tolist()
    assert not same(weights_of(model), weights_of(lesson(model, encoder=start).taught(1)))


def test_controls_differ_in_their_encoder_alone() -> None:
    model = learnt()
    told = lesson(model)
    spec = model.encoder.spec
    each = {name: control(told, name, spec) for name in CONTROLS}
    for found in each.values():
        rate = 1.0 if found == each["from scratch"] else told.layer_rate
        assert found.layer_rate == rate
        asked = {"start": told.start, "weights": told.weights, "frozen": told.frozen, "layer_rate": told.layer_rate}
        assert replace(found, **asked) == told
    frozen, scratch = each["frozen random"].taught(1), each["from scratch"].taught(1)
    drawn = weights_of(load_encoder("fusion-nano", "random", seed=1))
    assert same(weights_of(frozen.encoder), drawn)
    assert not same(weights_of(scratch.encoder), drawn)
    assert weights_of(scratch).keys() == weights_of(frozen).keys() == weights_of(model).keys()
    statistics = each["image statistics"].taught(0)
    assert statistics.encoder.spec.name == "image-statistics"
    assert isinstance(statistics.head, PixelHead)
    before = weights_of(Model(load_encoder("image-statistics"), told.question, size=8))
    assert {name for name, value in weights_of(statistics).items() if not torch.equal(value, before[name])}
    with pytest.raises(InputError, match="no control 'luck'"):
        control(told, "luck", spec)


def test_an_encoder_of_levels_keeps_its_head_where_it_can() -> None:
    model = learnt("resnet18")
    told = lesson(model)
    assert isinstance(model.head, UnetHead)
    assert isinstance(control(told, "from scratch", model.encoder.spec).taught(0).head, UnetHead)
    assert isinstance(control(told, "random convolutions", model.encoder.spec).taught(0).head, PixelHead)


def test_steps_of_the_controls_may_be_fewer() -> None:
    told = lesson(learnt())
    runs = runs_of(learnt(), told, (0, 1), steps=1)
    assert [run.lesson.plan.steps for run in runs if run.lesson and run.what == MODEL] == [2]
    assert {run.lesson.plan.steps for run in runs if run.lesson and run.what != MODEL} == {1}
    assert [(run.what, run.seed) for run in runs_of(learnt(), None, (0, 1))] == [(MODEL, 0)]
    for wrong in ((), (0, 0), (-1,), (True, 2)):
        with pytest.raises(InputError, match="different whole numbers"):
            runs_of(learnt(), told, wrong)


def test_what_a_model_does_not_remember_has_to_be_given(tmp_path: Any) -> None:
    from deepsentinel.learn.model import load_model

    train, test = halves()
    loaded = load_model(learnt().save(tmp_path / "model.safetensors"))
    assert loaded.learnt is None
    with pytest.raises(InputError, match=r"pass train=\.\.\., .* controls=False"):
        evaluate(loaded, test, device="cpu")
    assert same(weights_of(lesson(loaded).taught(0)), weights_of(learnt()))
    nameless = load_model(learnt(given=True).save(tmp_path / "other.safetensors"))
    # Of what began with weights that nobody trained yet, and was pretrained then, the name says "random" to this day.
    assert nameless.story["encoder"] == "fusion-nano-random"
    with pytest.raises(InputError, match=r"pass encoder=\.\.\."):
        evaluate(nameless, test, train=train, device="cpu")
    start = load_encoder("fusion-nano", "random", seed=5)
    assert same(weights_of(lesson(nameless, encoder=start).taught(0)), weights_of(learnt(given=True)))
    with pytest.raises(InputError, match="does not tell how it was trained"):
        evaluate(Says(question(), always(1.0, 0.0, 0.0, 0.0)), test, train=train, device="cpu")
    # What was kept as it was is in the model still.
    kept = load_model(learnt(given=True, frozen=True).save(tmp_path / "kept.safetensors"))
    assert kept.learnt is None
    assert lesson_of(kept, train).start is kept.encoder
    assert same(weights_of(lesson_of(kept, train).taught(0)), weights_of(learnt(given=True, frozen=True)))


def test_which_control_a_model_is_itself() -> None:
    slow = lesson(learnt())
    told, spec = replace(slow, layer_rate=1.0), learnt().encoder.spec
    assert same_lesson(told, spec) == "from scratch"
    assert slow.layer_rate < 1
    assert same_lesson(slow, spec) == "", "its layers learn at other rates than those of the control"
    assert same_lesson(replace(slow, frozen=True), spec) == "frozen random"
    assert same_lesson(replace(told, frozen=True), spec) == "frozen random"
    assert same_lesson(replace(told, start=learnt().encoder), spec) == ""
    assert same_lesson(replace(told, weights="file.safetensors"), spec) == ""
    assert same_lesson(replace(told, start="image-statistics", weights=None), spec) == "image statistics"


def test_a_test_under_clouds_teaches_no_other_lesson(monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[bool] = []

    def kept(self: Lesson, seed: int, **_: Any) -> Model:
        taught.append(self.clouds)
        return learnt()

    monkeypatch.setattr(Lesson, "taught", kept)
    hidden = learnt()
    assert hidden.story["clouds"] is True
    evaluate(hidden, halves()[1], clouds=False, device="cpu", progress=False, worst=0)
    assert len(taught) == 9
    assert all(taught)


def test_controls_that_learnt_less_leave_a_report_provisional(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(Lesson, "taught", lambda self, seed, **_: learnt())
    how: dict[str, Any] = {"device": "cpu", "progress": False, "worst": 0}
    for steps, lacking in ((1, ("controls as long as the model",)), (3, ())):
        report = evaluate(learnt(), halves()[1], steps=steps, **how)
        assert report.missing == lacking
        assert ("PROVISIONAL" in repr(report)) == bool(lacking)
        assert load_report(report.save(tmp_path / str(steps), figures=False)).missing == lacking


def test_a_report_tells_which_controls_have_another_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Lesson, "taught", lambda self, seed, **_: learnt() if self.start in BASELINES.values() else learnt("resnet18")
    )
    how: dict[str, Any] = {"device": "cpu", "progress": False, "worst": 0}
    notes = evaluate(learnt("resnet18"), halves()[1], **how).notes
    told = "image statistics and random convolutions answer by a PixelHead, the model by a UnetHead"
    assert sum(note.startswith(told) for note in notes) == 1
    assert not any("answer by" in note for note in evaluate(learnt(), halves()[1], controls=False, **how).notes)


def test_what_was_learnt_from_is_told_without_controls_too() -> None:
    train, test = halves()
    how: dict[str, Any] = {"device": "cpu", "progress": False, "worst": 0, "controls": False}
    assert not any("learnt from" in note for note in evaluate(learnt(), test, **how).notes)
    both = made()[0].isel(sample=slice(10, 20))
    for told in ({}, {"train": train}):
        with pytest.warns(DeepSentinelWarning, match="3 of the test's samples"):
            report = evaluate(learnt(), both, **how, **told)
        assert any(note.startswith("3 of the test's samples") for note in report.notes)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"evaluate\(\) is for one process, and torchrun started 2"):
        evaluate(learnt(), halves()[1], device="cpu")
