"""Comparing objectives: each square once, one that fails stops no other, and the table is what the squares say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from evaluation_kit import made

from deepsentinel.errors import DeepSentinelWarning, InputError, SourceError, TrainingError
from deepsentinel.learn import comparing
from deepsentinel.learn.comparing import compare


def asked(**options: Any) -> dict[str, Any]:
    held, _ = made()
    return {
        "corpus": held,
        "objectives": ("masked",),
        "encoders": ("fusion-nano",),
        "train": held.isel(sample=slice(0, 13)),
        "test": held.isel(sample=slice(13, None)),
        "labels": "m",
        "pretrain_steps": 2,
        "finetune_steps": 2,
        "pretraining": {"batch_size": 4, "crop_px": 16},
        "finetuning": {"batch_size": 4, "crop_px": 16, "size": 8},
        "device": "cpu",
        "progress": False,
        **options,
    }


class Counted:
    """`pretrain` and `finetune`, counted; some fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pretrained: list[tuple[str, int]] = []
        self.finetuned: list[int] = []
        self.rates: list[float] = []
        self.fails: dict[tuple[str, int], Exception] = {}
        pretrain, finetune = comparing.pretrain, comparing.finetune

        def counted_pretrain(corpus: Any, objective: str, encoder: Any, **options: Any) -> Any:
            self.pretrained.append((objective, options["seed"]))
            if (objective, options["seed"]) in self.fails:
                raise self.fails[objective, options["seed"]]
            return pretrain(corpus, objective, encoder, **options)

        def counted_finetune(*args: Any, **options: Any) -> Any:
            self.finetuned.append(options["seed"])
            model = finetune(*args, **options)
            self.rates.append(model.story["layer_rate"])
            return model

        monkeypatch.setattr(comparing, "pretrain", counted_pretrain)
        monkeypatch.setattr(comparing, "finetune", counted_finetune)

    def cleared(self) -> None:
        self.pretrained.clear()
        self.finetuned.clear()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def test_a_table_that_was_broken_off_goes_on_and_nothing_is_trained_twice(tmp_path: Path, counted: Counted) -> None:
    out = tmp_path / "table"
    counted.fails["masked", 1] = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        compare(**asked(out=out))
    assert counted.finetuned == [0, 1, 0]
    counted.fails.clear()
    counted.cleared()
    table = compare(**asked(out=out))
    assert counted.pretrained == [("masked", 1)]
    assert counted.finetuned == [1]
    assert table[["encoder", "objective", "seeds"]].to_numpy().tolist() == [
        ["fusion-nano", "masked", 2],
        ["fusion-nano", "from scratch", 2],
    ]
    assert table.attrs["score"] == "mean_iou"
    counted.cleared()
    again = compare(**asked(out=out))
    assert counted.finetuned == counted.pretrained == []
    pd.testing.assert_frame_equal(again, table)
    written = pd.read_csv(out / "compare.csv", keep_default_na=True)
    assert written["mean"].tolist() == pytest.approx(table["mean"].tolist())
    # More of it: only what is new is trained.
    compare(**asked(out=out, seeds=(0,), objectives=("masked", "contrastive")))
    assert counted.pretrained == [("contrastive", 0)]
    assert counted.finetuned == [0]


@pytest.mark.parametrize(("given", "rate"), [({}, 0.8), ({"layer_rate": 0.5}, 0.5)])
def test_from_scratch_is_held_back_nowhere(counted: Counted, given: dict[str, float], rate: float) -> None:
    """That layers near the pixels learn more slowly is for what was pretrained."""
    compare(**asked(finetuning={**asked()["finetuning"], **given}, seeds=(0,)))
    assert counted.rates == [1.0, rate]


def test_one_that_fails_stops_no_other_and_is_tried_again(tmp_path: Path, counted: Counted) -> None:
    counted.fails["masked", 0] = TrainingError("The loss is no longer a number.\nAnd more.")
    counted.fails["contrastive", 0] = RuntimeError("out of memory")
    options = asked(out=tmp_path / "t", objectives=("masked", "contrastive"), seeds=(0,))
    with pytest.warns(DeepSentinelWarning, match="failed"):
        table = compare(**options).set_index("objective")
    assert table.loc["masked", "why"] == "The loss is no longer a number."
    assert table.loc["contrastive", "why"] == "RuntimeError: out of memory"
    assert table["mean"].notna().tolist() == [False, False, True]
    assert table["seeds"].tolist() == [0, 0, 1]
    counted.fails.clear()
    counted.cleared()
    again = compare(**options).set_index("objective")
    assert counted.finetuned == [0, 0]
    assert again["mean"].notna().all()
    assert (again["why"] == "").all()


def test_another_table_is_not_mixed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = {"score": "mean_iou", "value": 0.5, "low": 0.4, "high": 0.6, "why": ""}
    monkeypatch.setattr(comparing, "_run", lambda *args: done)
    compare(**asked(out=tmp_path / "t", by_objective={"masked": {"seen": 0.3}}))
    with pytest.raises(InputError, match=r"holds another table: finetune_steps was 2"):
        compare(**asked(out=tmp_path / "t", finetune_steps=9))
    held, _ = made()
    with pytest.raises(InputError, match=r"holds another table: corpora was"):
        compare(**asked(out=tmp_path / "t", test=held.isel(sample=slice(14, None))))
    with pytest.raises(InputError, match="was made with the options"):
        compare(**asked(out=tmp_path / "t"))
    torn = tmp_path / "t" / "squares" / "fusion-nano_masked_0.json"
    torn.write_text(torn.read_text()[:20])
    with pytest.raises(SourceError, match="move it away"):
        compare(**asked(out=tmp_path / "t", by_objective={"masked": {"seen": 0.3}}))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        compare(**asked(out=tmp_path / "other"))


def test_what_is_misspelt_is_known_before_any_work(counted: Counted) -> None:
    for wrong, match in (
        ({"objectives": ("maskd",)}, "not known"),
        ({"encoders": ("fusion-nan",)}, "fusion-nano"),
        ({"objectives": "masked"}, "in a list"),
        ({"seeds": (1, 1)}, "different whole numbers"),
        ({"by_objective": {"triplet": {"near_m": 1}}}, "not among the objectives"),
    ):
        with pytest.raises(InputError, match=match):
            compare(**asked(**wrong))
    with pytest.raises(TypeError, match="'steps', which compare"):
        compare(**asked(finetuning={"steps": 3}))
    for options in ({"finetuning": {"weights": "random"}}, {"pretraining": {"encoder": "fusion-nano"}}):
        with pytest.raises(TypeError, match="which compare"):
            compare(**asked(**options))
    assert counted.finetuned == []
    with pytest.raises(TypeError, match="no option 'sizes'"):
        compare(**asked(finetuning={"sizes": 8}))


def test_a_test_that_was_learnt_from_and_several_processes_are_known_before_any_work(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, _ = made()
    # A warning is an error here.
    with pytest.raises(DeepSentinelWarning, match="3 of the test's samples"):
        compare(**asked(test=held.isel(sample=slice(10, None)).assign_attrs(plan="another")))
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match=r"compare\(\) is for one process"):
        compare(**asked())
    assert counted.pretrained == counted.finetuned == []


def test_the_table_is_what_its_squares_say(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {
        ("a", "from scratch", 0): 0.30, ("a", "from scratch", 1): 0.40, ("a", "x", 0): 0.35, ("a", "x", 1): 0.55,
        ("a", "y", 0): 0.60, ("a", "y", 1): None, ("b", "from scratch", 0): 0.9, ("b", "from scratch", 1): 0.9,
        ("b", "x", 0): 0.1, ("b", "x", 1): 0.1, ("b", "y", 0): 0.2, ("b", "y", 1): 0.2,
    }  # fmt: skip

    def squares(score: str) -> list[dict[str, Any]]:
        return [
            {"encoder": encoder, "objective": objective, "seed": seed, "score": score if value else None,
             "value": value, "low": value, "high": value, "why": "" if value else "it broke"}
            for (encoder, objective, seed), value in scores.items()
        ]  # fmt: skip

    table = comparing._table(squares("mean_iou"))
    assert list(zip(table["encoder"], table["objective"], strict=True)) == [
        ("a", "x"), ("a", "y"), ("a", "from scratch"), ("b", "y"), ("b", "x"), ("b", "from scratch"),
    ]  # fmt: skip
    # The mean of one seed is not that of two: "y" of "a" is not ahead for having lost the harder one.
    assert table["mean"].tolist() == pytest.approx([0.45, 0.6, 0.35, 0.2, 0.1, 0.9])
    assert table["seeds"].tolist() == [2, 1, 2, 2, 2, 2]
    # Seed against seed: the one that broke has no part in it.
    assert table["gain"].tolist()[:2] == pytest.approx([0.1, 0.3])
    assert table["gain"].isna().tolist() == [False, False, True, False, False, True]
    assert table["spread"].tolist()[0] == pytest.approx(0.2)
    assert pd.isna(table["spread"][1])
    assert table["why"].tolist()[1] == "it broke"
    errors = comparing._table(squares("rmse"))
    assert errors["objective"].tolist()[:3] == ["x", "y", "from scratch"]
    assert errors["gain"].tolist()[0] == pytest.approx(-0.1)


def test_options_reach_those_they_are_meant_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, dict[str, Any]] = {}

    def noted(square: Any, corpus: Any, train: Any, test: Any, options: Any, *rest: Any) -> dict[str, Any]:
        seen[square["objective"]] = dict(options)
        return {"score": "mean_iou", "value": 0.5, "low": None, "high": None, "why": ""}

    monkeypatch.setattr(comparing, "_run", noted)
    told: list[Any] = []
    compare(
        **asked(
            objectives=("masked", "triplet"),
            by_objective={"triplet": {"near_m": 4000, "batch_size": 2}},
            out=tmp_path / "t",
            seeds=(4,),
            on_square=told.append,
        )
    )
    assert seen["masked"] == {"batch_size": 4, "crop_px": 16}
    assert seen["triplet"] == {"batch_size": 2, "crop_px": 16, "near_m": 4000}
    assert [(each["objective"], each["seed"]) for each in told] == [("from scratch", 4), ("masked", 4), ("triplet", 4)]
    held = json.loads((tmp_path / "t" / "squares" / "fusion-nano_triplet_4.json").read_text())
    assert held["options"]["near_m"] == 4000
