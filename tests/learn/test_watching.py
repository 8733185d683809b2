"""Looking at a model while it learns: the score is the evaluation's, and a watched run is the run itself."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from learn_kit import corpus
from PIL import Image

import deepsentinel as ds
from deepsentinel.errors import InputError
from deepsentinel.figures.glimpses import TRUTH, glimpse
from deepsentinel.learn import plans
from deepsentinel.learn.checkpoints import list_runs
from deepsentinel.learn.ground import Ground
from deepsentinel.learn.mistakes import Example
from deepsentinel.learn.plans import suggested_steps
from deepsentinel.learn.tallies import cloud_steps
from deepsentinel.learn.tasks import IGNORE
from deepsentinel.learn.watching import Watch, one_core_free

QUICK: dict[str, Any] = {"batch_size": 4, "crop_px": 32, "log_every": 1, "weights": "random", "device": "cpu"}


def trained(task: str = "segmentation", **options: Any) -> Any:
    return ds.finetune(corpus(), "fusion-nano", task, "osm", **{**QUICK, "steps": 2, **options})


def test_a_watched_run_ends_with_the_weights_of_one_that_is_not() -> None:
    watch, seen = Watch(corpus(), most=3), []

    def look(step: Any) -> None:
        assert step.model.training
        seen.append(watch.look(step.model))
        assert step.model.training

    alone = trained(steps=3)
    watched = trained(steps=3, on_step=look)
    assert len(seen) == 3
    for name, value in alone.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    # The weights change from one look to the next, and so does what is said.
    assert len({look.score for look in seen}) > 1 or any(
        (seen[0].example.said != look.example.said).any() for look in seen
    )


def test_the_score_is_the_one_of_an_evaluation_of_these_samples() -> None:
    model = trained()
    look = Watch(corpus()).look(model)
    whole = Ground([corpus()]).measure(model, "both").overall()["mean_iou"]
    assert look.metric == "mean_iou"
    assert look.score == pytest.approx(float(whole.value))
    assert look.samples == corpus().sizes["sample"]
    assert not model.training
    few = Watch(corpus(), most=2)
    assert few.look(model).samples == 2
    assert few.look(model).example.sample == few.look(model).example.sample


def test_the_example_is_of_the_corpus_and_drawn_in_the_models_colours() -> None:
    model = trained()
    example = Watch(corpus(), most=4).look(model).example
    at = int(np.flatnonzero(corpus()["sample"].values == example.sample)[0])
    codes = np.array([*model.classes.codes, 0])
    known = example.truth != IGNORE
    numbers = np.where(known, example.truth, len(codes) - 1)
    assert (codes[numbers][known] == corpus()["osm_class_map"].values[at][known]).all()
    assert known.any()
    drawn = dict(glimpse(example, model))
    assert list(drawn) == ["picture", "truth", "model"]
    truth = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn["truth"].split(",")[1]))).convert("RGBA"))
    step = truth.shape[0] // known.shape[0]
    small = truth[step // 2 :: step, step // 2 :: step]
    assert ((small[..., 3] > 0) == known).all()
    for number in np.unique(example.truth[known]):
        colour = [int(model.classes.colors[number][start : start + 2], 16) for start in (1, 3, 5)]
        assert (small[example.truth == number][:, :3] == colour).all()


def test_the_sample_that_is_shown_is_a_clear_one_with_labels() -> None:
    watch = Watch(corpus())
    scores = SimpleNamespace(n=np.arange(watch.ground.count) + 1)
    watch.ground.cloud = np.where(np.arange(watch.ground.count) < 3, *cloud_steps([0.0, 90.0]))
    assert watch._shown(scores) == 2
    assert Watch(corpus(), at=5)._shown(scores) == 5
    # Where all are cloudy it is the one with most labels.
    watch = Watch(corpus())
    watch.ground.cloud = np.full(watch.ground.count, cloud_steps([90.0])[0])
    assert watch._shown(scores) == watch.ground.count - 1


def test_shares_are_seen_as_a_picture_and_objects_as_boxes() -> None:
    model = trained("fractions")
    look = Watch(corpus(), most=3).look(model)
    assert look.metric == "rmse"
    assert [words for words, _ in glimpse(look.example, model)] == ["picture"]
    boxes = np.array([[0.25, 0.25, 0.75, 0.75, 0, 1]], "float32")
    found = Example(7, 0.5, 3.0, 50.0, 40.0, {"VV": np.full((16, 16), -9, "float32")}, boxes, boxes[:0])
    drawn = dict(glimpse(found, SimpleNamespace(task="detection")))
    pixels = {}
    for words in ("truth", "model"):
        image = Image.open(io.BytesIO(base64.b64decode(drawn[words].split(",")[1]))).convert("RGB")
        pixels[words] = np.asarray(image)[5::10, 5::10]
    assert (pixels["truth"][4, 4:13] == TRUTH).all()
    assert (pixels["truth"][8, 8] != TRUTH).any()
    assert len(np.unique(pixels["model"].reshape(-1, 3), axis=0)) == 1


def test_no_sample_is_refused() -> None:
    with pytest.raises(InputError, match="from 1"):
        Watch(corpus(), most=0)


def test_steps_are_fewer_without_a_gpu_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert suggested_steps(30, "cpu") == (30, "")
    steps, why = suggested_steps(5000, "cpu")
    assert steps == plans.STEPS_WITHOUT_GPU
    assert "5,000" in why
    assert str(steps) in why
    import deepsentinel.embedding.model as models

    monkeypatch.setattr(models, "pick_device", lambda _: torch.device("cuda"))
    assert suggested_steps(5000) == (5000, "")
    with pytest.raises(InputError, match="from 1"):
        suggested_steps(0)


def test_a_core_is_left_to_others_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3)), raising=False)
    try:
        torch.set_num_threads(3)
        with pytest.raises(ZeroDivisionError), one_core_free() as used:
            assert used == torch.get_num_threads() == 2
            1 / 0  # noqa: B018
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_runs_are_listed_with_where_they_stand(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "nothing").empty
    trained(out=tmp_path / "done")
    trained(out=tmp_path / "early", steps=50, stop=lambda: True)
    (tmp_path / "early" / "model.safetensors").unlink()
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "checkpoint.pt").write_text("?")
    (tmp_path / "empty").mkdir()
    found = list_runs(tmp_path).set_index("run")
    assert set(found.index) == {"done", "early", "strange"}
    assert found.loc["done", "step"] == 2
    assert found.loc["early", "step"] == 1
    assert found["finished"].to_dict() == {"done": True, "early": False, "strange": False}
    assert np.isfinite(found.loc["done", "loss"])
    assert np.isnan(found.loc["strange", "loss"])
