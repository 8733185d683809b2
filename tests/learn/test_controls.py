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
from deepsentinel.errors import InputError
from deepsentinel.learn.controls import Lesson, control, lesson_of, runs_of, same_lesson
from deepsentinel.learn.evaluation import evaluate
from deepsentinel.learn.finetuning import finetune
from deepsentinel.learn.heads import PixelHead, UnetHead
from deepsentinel.learn.model import Model
from deepsentinel.learn.report import CONTROLS, MODEL

QUICK: dict[str, Any] = {
    "labels": "m", "steps": 2, "batch_size": 4, "crop_px": 16, "size": 8, "device": "cpu", "lr": 0.01,
}  # fmt: skip


def halves() -> tuple[xr.Dataset, xr.Dataset]:
    held, _ = made()
    return held.isel(sample=slice(0, 13)), held.isel(sample=slice(13, None))


@cache
def learnt(encoder: str = "fusion-nano", seed: int = 0, frozen: bool = False, given: bool = False) -> Model:
    start: Any = load_encoder(encoder, "random", seed=5) if given else encoder
    how = {} if given else {"weights": "random"}
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
    assert report.rows.groupby(["cloud"])["n"].nunique().eq(1).all()
    assert report.confusion is not None
    both = report.rows["n"][(report.rows["cloud"] == "all")].iloc[0]
    assert report.confusion.to_numpy().sum() == 2 * both


def test_a_model_from_scratch_is_its_own_control(monkeypatch: pytest.MonkeyPatch) -> None:
    taught = []
    teach = Lesson.taught
    monkeypatch.setattr(Lesson, "taught", lambda self, seed, **how: taught.append(seed) or teach(self, seed, **how))
    train, test = halves()
    report = evaluate(learnt(seed=3), test, train=train, seeds=(0, 1), device="cpu", progress=False)
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
        assert replace(found, start=told.start, weights=told.weights, frozen=told.frozen) == told
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
    if getattr(learnt(), "learnt", None) is None:
        with pytest.raises(InputError, match=r"pass train=\.\.\."):
            evaluate(learnt(), test, device="cpu")
    with pytest.raises(InputError, match=r"controls=False"):
        evaluate(loaded, test, device="cpu")
    assert same(weights_of(lesson(loaded).taught(0)), weights_of(learnt()))
    nameless = load_model(learnt(given=True).save(tmp_path / "other.safetensors"))
    nameless.story = {**nameless.story, "encoder": "fusion-nano", "named": False}
    with pytest.raises(InputError, match=r"pass encoder=\.\.\."):
        lesson_of(nameless, train)
    with pytest.raises(InputError, match="does not tell how it was trained"):
        evaluate(Says(question(), always(1.0, 0.0, 0.0, 0.0)), test, train=train, device="cpu")
    # What was kept as it was is in the model still.
    kept = learnt(given=True, frozen=True)
    assert lesson_of(kept, train).start is kept.encoder or getattr(kept, "learnt", None) is not None


def test_which_control_a_model_is_itself() -> None:
    told = lesson(learnt())
    spec = learnt().encoder.spec
    assert same_lesson(told, spec) == "from scratch"
    assert same_lesson(replace(told, frozen=True), spec) == "frozen random"
    assert same_lesson(replace(told, start=learnt().encoder), spec) == ""
    assert same_lesson(replace(told, weights="file.safetensors"), spec) == ""
    assert same_lesson(replace(told, start="image-statistics", weights=None), spec) == "image statistics"
