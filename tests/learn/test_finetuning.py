"""Fine-tuning: labels as they are burnt, what is not to be learnt left out, models that come back from a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learn_kit import corpus, feed

import deepsentinel as ds
from deepsentinel.encoders.fusion import Fusion
from deepsentinel.encoders.specs_conv import SPECS as CONVOLUTIONAL
from deepsentinel.errors import DeepSentinelWarning, InputError, NothingFoundError, SourceError
from deepsentinel.learn import labels as labels_module
from deepsentinel.learn.controls import lesson_of
from deepsentinel.learn.finetuning import layered
from deepsentinel.learn.fit import Plan
from deepsentinel.learn.labels import Classes, classes_of
from deepsentinel.learn.losses import segmentation_loss
from deepsentinel.learn.model import Model, Question, shares_of
from deepsentinel.learn.tasks import IGNORE

QUICK = {"steps": 2, "batch_size": 4, "crop_px": 32, "log_every": 1}


def test_classes_are_those_that_occur_with_their_shares() -> None:
    held = corpus()
    found = classes_of(held, "corine")
    values, conflict = held.corine_class_map.values, held.corine_conflict.values
    kept = values[(conflict < 2) & (values != 0)]
    assert list(found.codes) == sorted(np.unique(kept))
    assert found.shares == pytest.approx([(kept == code).mean() for code in found.codes])
    assert not set(found.codes) & set(found.others)
    assert classes_of(held, "osm").names != found.names
    with_ground = classes_of(held, "osm", background="class")
    assert with_ground.codes[0] == 0
    assert with_ground.names[0] == "background"


def test_targets_number_the_classes_and_leave_out_what_teaches_nothing() -> None:
    classes = Classes("m", (11, 31), ("a", "b"), ("#000000", "#ffffff"), (0.5, 0.5), conflict="c", others=(21,))
    labels = {"m": torch.tensor([[[0, 11, 31], [21, 31, 99]]]), "c": torch.tensor([[[0, 0, 2], [0, 1, 0]]])}
    assert classes.targets(labels).tolist() == [[[IGNORE, 0, IGNORE], [IGNORE, 1, IGNORE]]]
    ground = Classes("m", (0, 31), ("background", "b"), ("#000000", "#ffffff"), (0.5, 0.5))
    assert ground.targets(labels).tolist() == [[[0, IGNORE, 1], [IGNORE, 1, IGNORE]]]


@pytest.mark.parametrize("name", ["log", "focal", "dice", "log+dice"])
def test_losses_ignore_what_is_ignored_and_fall_towards_the_truth(name: str) -> None:
    rng = torch.Generator().manual_seed(0)
    truth = torch.randint(3, (2, 8, 8), generator=rng)
    truth[:, :4] = IGNORE
    logits = torch.randn(2, 3, 8, 8, generator=rng)
    loss = segmentation_loss(name, torch.tensor([1.0, 2.0, 0.5]))
    other = logits.clone()
    other[:, :, :4] = 50 * torch.randn(2, 3, 4, 8, generator=rng)
    assert float(loss(logits, truth)) == pytest.approx(float(loss(other, truth)), rel=1e-5)
    right = 20.0 * torch.nn.functional.one_hot(truth.clamp(max=2), 3).movedim(-1, 1).float()
    assert loss(right, truth) < 0.05 < loss(logits, truth)
    assert loss(logits, torch.full_like(truth, IGNORE)) == 0
    with pytest.raises(InputError, match="log, focal, dice"):
        segmentation_loss("hinge")


def test_the_log_loss_is_the_weighted_mean_of_sklearn() -> None:
    from sklearn.metrics import log_loss

    rng = torch.Generator().manual_seed(1)
    truth, logits = torch.randint(3, (1, 6, 6), generator=rng), torch.randn(1, 3, 6, 6, generator=rng)
    weights = torch.tensor([1.0, 3.0, 0.2])
    flat, said = truth.flatten().numpy(), logits.softmax(1).flatten(2)[0].T.numpy()
    wanted = log_loss(flat, said, sample_weight=weights.numpy()[flat], labels=[0, 1, 2])
    assert float(segmentation_loss("log", weights)(logits, truth)) == pytest.approx(wanted, rel=1e-5)


def test_focal_cares_less_about_what_is_right_already() -> None:
    truth = torch.tensor([[[0]]])
    sure, unsure = (torch.tensor([[[[value]], [[0.0]]]]) for value in (3.0, 0.0))
    log, focal = segmentation_loss("log"), segmentation_loss("focal")
    assert focal(sure, truth) / focal(unsure, truth) < 0.1 * float(log(sure, truth) / log(unsure, truth))


def test_shares_of_classes_are_of_what_is_labelled() -> None:
    truth = torch.randint(4, (5, 9, 9), generator=torch.Generator().manual_seed(2))
    truth[0, :5], truth[4] = IGNORE, IGNORE
    found = shares_of(truth, 4)
    for row in range(4):
        kept = truth[row][truth[row] != IGNORE]
        assert found[row].tolist() == pytest.approx([float((kept == number).float().mean()) for number in range(4)])
    assert found[4].isnan().all()


@pytest.mark.parametrize(
    ("encoder", "task", "labels", "options"),
    [
        ("fusion-nano", "segmentation", "corine", {"sensors": "any", "loss": "log+dice"}),
        ("fusion-nano", "classification", "osm", {"frozen": True}),
        ("fusion-nano", "fractions", "corine", {"sensors": "s1"}),
        ("galileo-nano", "segmentation", "osm", {"decoder": "linear", "background": "class"}),
        ("resnet18", "segmentation", "corine", {"size": 8}),
        ("convnext-atto", "classification", "corine", {}),
    ],
)
def test_tasks_on_corine_and_openstreetmap(
    tmp_path: Path, encoder: str, task: str, labels: str, options: dict[str, object]
) -> None:
    model = ds.finetune(corpus(), encoder, task, labels, weights="random", out=tmp_path, **{**QUICK, **options})
    assert len(model.history) == 2
    batch = feed(labels=model.question.arrays)(5)
    said = model.probabilities(batch)
    assert said.isfinite().all()
    shape = (4, len(model.classes), 32, 32) if task == "segmentation" else (4, len(model.classes))
    assert said.shape == shape
    if task != "classification":
        assert torch.allclose(said.sum(1), torch.ones(()), atol=1e-5)
    again = ds.load_model(tmp_path / "model.safetensors")
    assert torch.equal(again.probabilities(batch), said)
    assert again.classes == model.classes
    assert repr(again) == repr(model).replace("-random", "")
    assert again.history.equals(model.history) or np.allclose(again.history, model.history)


def test_a_frozen_encoder_stays_and_layers_learn_at_their_own_rates() -> None:
    start = ds.load_encoder("fusion-nano", "random", seed=1)
    frozen = ds.finetune(corpus(), start, "segmentation", "corine", frozen=True, **QUICK)
    for name, value in frozen.encoder.state_dict().items():
        assert torch.equal(value, start.state_dict()[name])
    free = ds.finetune(corpus(), start, "segmentation", "corine", **QUICK)
    assert not torch.equal(free.encoder.blocks[0].fc1.weight, start.blocks[0].fc1.weight)
    rates = {id(value): group["lr"] for group in layered(free, Plan(steps=1, lr=1.0), 0.5) for value in group["params"]}
    chain = [
        rates[id(value)]
        for value in (
            free.encoder.kernels["S1"].weight,
            free.encoder.blocks[0].fc1.weight,
            free.encoder.blocks[3].fc1.weight,
            free.encoder.norm.weight,
            free.head.leave.weight,
        )
    ]
    assert chain == [0.5**5, 0.5**4, 0.5, 0.5, 1.0]
    assert len(rates) == len(list(free.parameters()))


@pytest.mark.parametrize("name", [spec.name for spec in CONVOLUTIONAL])
def test_layers_of_convolutions_learn_the_faster_the_deeper_they_are(name: str) -> None:
    """With what stands between two layers, and behind the last."""
    model = torch.nn.Module()
    model.encoder = ds.load_encoder(name, "random")
    groups = layered(model, Plan(steps=1, lr=1.0), 0.5)  # type: ignore[arg-type]
    rate_of = {id(value): group["lr"] for group in groups for value in group["params"]}
    rates = [rate_of[id(value)] for value in model.encoder.parameters()]
    assert rates == sorted(rates)
    assert rates[-1] == 0.5
    assert len(set(rates)) >= 4


def test_a_folder_goes_on_only_with_the_run_that_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = corpus()
    quick = {"steps": 1, "batch_size": 2, "crop_px": 16, "device": "cpu"}
    one, two = (ds.load_encoder("fusion-nano", "random", seed=seed) for seed in (1, 2))
    out, part = tmp_path / "fine", held.isel(sample=range(6))
    monkeypatch.setattr(labels_module, "counted", lambda *_: {211: 100, 231: 10})
    first = ds.finetune(part, one, out=out, size=8, **quick)
    again = ds.finetune(part, ds.load_encoder("fusion-nano", "random", seed=1), out=out, size=8, **quick)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    with pytest.raises(
        InputError, match=r'holds another run\. What differs \(was -> now\): start "sha256:\w+" -> "sha'
    ):
        ds.finetune(part, two, out=out, size=8, **quick)
    with pytest.raises(
        InputError, match=r'holds another run\. What differs \(was -> now\): plans \[\["\w+", 6, \d+, \d+\]\] -> '
    ):
        ds.finetune(held.isel(sample=range(6, 12)), one, out=out, size=8, **quick)
    turned = part["corine_class_map"].copy(data=part["corine_class_map"].values[:, ::-1])  # the same plan and samples
    with pytest.raises(InputError, match=r"holds another run\. What differs \(was -> now\): plans "):
        ds.finetune(part.assign(corine_class_map=turned), one, out=out, size=8, **quick)
    monkeypatch.setattr(labels_module, "counted", lambda *_: {211: 100, 231: 10, 311: 10})
    with pytest.raises(InputError, match=r"holds another run\. What differs \(was -> now\): classes "):
        ds.finetune(part, one, out=out, size=8, **quick)
    out = tmp_path / "pre"
    ds.pretrain(part, encoder=one, out=out, **quick)
    with pytest.raises(InputError, match=r"holds another run\. What differs \(was -> now\): start "):
        ds.pretrain(part, encoder=two, out=out, **quick)
    with pytest.raises(InputError, match=r"holds another run\. What differs \(was -> now\): plans "):
        ds.pretrain(held.isel(sample=range(6, 12)), encoder=one, out=out, **quick)
    with pytest.raises(
        InputError, match=r"holds another run\. What differs \(was -> now\): clouds true -> false\. Name"
    ):
        ds.pretrain(part, encoder=one, out=out, clouds=False, **quick)


def test_numbers_of_numpy_and_paths_are_numbers_and_paths(tmp_path: Path) -> None:
    quick = {
        "steps": np.int64(1), "batch_size": np.int32(2), "crop_px": np.int64(16), "lr": np.float32(1e-3),
        "seed": np.int64(3), "clip": np.float32(0.5), "clouds": np.True_, "device": "cpu",
    }  # fmt: skip
    ds.pretrain(corpus(), out=tmp_path / "pre", **quick)
    weights = tmp_path / "pre" / "encoder.safetensors"
    model = ds.finetune(corpus(), "fusion-nano", weights=weights, layer_rate=np.float32(0.5), out=tmp_path, **quick)
    assert json.loads(json.dumps(model.story))["weights"] == str(weights)
    assert (model.story["seed"], model.story["batch_size"], model.story["clip"]) == (3, 2, 0.5)
    assert ds.load_model(tmp_path / "model.safetensors").story == json.loads(json.dumps(model.story))


def test_a_model_on_an_encoder_of_ones_own_comes_back_with_that_encoder(tmp_path: Path) -> None:
    def own(depth: int = 2) -> Fusion:
        spec = ds.load_encoder("fusion-nano", "random").spec
        return Fusion(replace(spec, name="mine"), depth=depth, heads=4)

    path = tmp_path / "model.safetensors"
    model = ds.finetune(corpus(), own(), size=8, **QUICK)
    with pytest.warns(DeepSentinelWarning, match=r"mine is an encoder of your own: load_model\(.*encoder="):
        model.save(path)
    with pytest.raises(InputError, match=r"somebody's own, mine: pass encoder="):
        ds.load_model(path)
    with pytest.raises(InputError, match="holds no model on such an encoder as mine"):
        ds.load_model(path, encoder=own(3))
    given = own()
    before = given.blocks[0].fc1.weight.clone()
    again = ds.load_model(path, encoder=given)
    batch = feed(labels=model.question.arrays)(5)
    assert torch.equal(again.probabilities(batch), model.probabilities(batch))
    assert repr(again) == repr(model)
    # A copy took the weights: what was passed is as it was.
    assert torch.equal(given.blocks[0].fc1.weight, before)


def test_numbers_are_learnt_in_their_own_units() -> None:
    model = Model(
        ds.load_encoder("fusion-nano", "random"), Question("regression", None, array="h", scale=(100.0, 10.0))
    )
    batch = feed()(0)
    batch.labels = {"h": torch.full((4, 32, 32), 110.0)}
    batch.labels["h"][0] = torch.nan
    with torch.no_grad():
        model.head.leave.weight.zero_()
        model.head.leave.bias.fill_(1.0)
    assert float(model.loss(batch)["regression"]) == pytest.approx(0, abs=1e-6)
    assert model.probabilities(batch).mean() == pytest.approx(110.0)


def test_finer_labels_want_a_finer_answer() -> None:
    classes = classes_of(corpus(), "corine")
    model = Model(ds.load_encoder("fusion-nano", "random"), Question("segmentation", classes, upscale=4))
    batch = feed(labels=classes.arrays)(0)
    assert model(batch).shape == (4, len(classes), 128, 128)
    with pytest.raises(InputError, match="upscale=1"):
        model.loss(batch)
    batch.labels = {
        name: values.repeat_interleave(4, 1).repeat_interleave(4, 2) for name, values in batch.labels.items()
    }
    assert model.loss(batch)["segmentation"].isfinite()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": "crops"}, InputError, "no labels 'crops'; it has corine_class_map"),
        ({"labels": ["corine"]}, InputError, "labels= is a list"),
        ({"task": "guessing"}, InputError, "segmentation, classification"),
        ({"sensors": "s3"}, InputError, "both, s1, s2, any"),
        ({"encoder": "softcon-vit-small-s2", "weights": "random"}, InputError, "takes s2, not both"),
        ({"background": "none"}, InputError, '"ignore" or "class"'),
        ({"upscale": 3}, InputError, "1, 2, 4 or 8"),
        ({"upscale": 4, "task": "classification"}, InputError, "answers by pixel"),
        ({"loss": "hinge"}, InputError, "log, focal, dice"),
        ({"epochs": 3}, TypeError, "no option 'epochs'"),
        ({"layer_rate": 0.0}, InputError, "layer_rate=0.0"),
    ],
)
def test_what_cannot_be_learnt_is_refused(options: dict[str, object], error: type[Exception], message: str) -> None:
    given = {
        "encoder": "fusion-nano",
        "weights": "random",
        "task": "segmentation",
        "labels": "corine",
        **QUICK,
        **options,
    }
    with pytest.raises(error, match=message):
        ds.finetune(corpus(), **given)  # type: ignore[arg-type]


def test_one_class_is_nothing_to_tell_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "counted", lambda *_: {0: 50, 211: 100})
    with pytest.raises(NothingFoundError, match=r"holds 1 class to learn \(Non-irrigated.*makes what is not"):
        classes_of(corpus(), "corine")
    assert classes_of(corpus(), "corine", background="class").codes == (0, 211)
    monkeypatch.setattr(labels_module, "counted", lambda *_: {0: 50})
    with pytest.raises(NothingFoundError, match="holds 0 classes to learn"):
        classes_of(corpus(), "corine")


def test_classes_in_too_few_samples_teach_nothing_and_are_named() -> None:
    held = corpus()
    values = np.where(held.corine_conflict.values < 2, held.corine_class_map.values, 0)
    inside = {int(code): int((values == code).any(axis=(1, 2)).sum()) for code in np.unique(values) if code}
    every = classes_of(held, "corine")
    assert set(inside) == set(every.codes)
    for least in sorted(set(inside.values()))[1:3]:
        rare = [code for code in inside if inside[code] < least]
        with pytest.warns(DeepSentinelWarning, match=f"teach nothing, for fewer than {least} samples") as said:
            found = classes_of(held, "corine", least=least)
        assert list(found.codes) == [code for code in every.codes if code not in rare]
        assert set(rare) <= set(found.others)
        for code in rare:
            assert f"{every.names[every.codes.index(code)]} ({inside[code]})" in str(said[0].message)
        labels = {"corine_class_map": torch.tensor([[[*rare, *found.codes]]])}
        labels["corine_conflict"] = torch.zeros_like(labels["corine_class_map"])
        assert found.targets(labels)[0, 0].tolist() == [IGNORE] * len(rare) + list(range(len(found)))
        assert sum(found.shares) == pytest.approx(1)
    assert classes_of(held, "corine", least=1) == every
    with pytest.raises(NothingFoundError, match=r"none is in least=99 samples.*\(\d+\).*leaves two"):
        classes_of(held, "corine", least=99)
    for wrong in (-1, 2.0, True):
        with pytest.raises(InputError, match="in how many samples"):
            classes_of(held, "corine", least=wrong)  # type: ignore[arg-type]


def test_a_model_remembers_which_classes_and_clouds_were_left_out() -> None:
    with pytest.warns(DeepSentinelWarning, match="fewer than 3 samples"):
        model = ds.finetune(corpus(), "fusion-nano", weights="random", least=3, clouds=False, **QUICK)
    with pytest.warns(DeepSentinelWarning, match="fewer than 3 samples"):
        assert model.classes == classes_of(corpus(), "corine", least=3)
    assert (model.story["least"], model.story["clouds"]) == (3, False)
    assert [lesson_of(model, corpus(), clouds=clouds).clouds for clouds in (None, True)] == [False, True]
    for task in ("regression", "detection"):
        with pytest.raises(InputError, match="least=3 is for classes"):
            ds.finetune(corpus(), "fusion-nano", task, "corine", weights="random", least=3, **QUICK)


def test_values_that_no_legend_knows_are_named() -> None:
    held = corpus().copy()
    legend = {"flag_values": [211, 231], "flag_meanings": "arable pasture"}
    held["corine_class_map"] = held.corine_class_map.assign_attrs(legend)
    held.corine_class_map.attrs.pop("legend", None)
    with pytest.raises(InputError, match="which its legend does not know: it has 211, 231"):
        classes_of(held, "corine")


def test_what_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        ds.load_model(tmp_path / "nothing.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(SourceError, match="holds no model"):
        ds.load_model(tmp_path / "text.safetensors")
