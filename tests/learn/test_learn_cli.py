"""Learning from a shell: each command reads what the one before it wrote, and says what it did."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rasterio
from learn_kit import corpus

import deepsentinel as ds
from deepsentinel import cli
from deepsentinel.corpus.split_files import save_splits
from deepsentinel.errors import InputError

QUICK = ["--steps", "2", "--batch-size", "4", "--crop-px", "32", "--device", "cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shell")
    path = corpus().attrs["path"]
    pretrain = ["pretrain", path, "--objective", "contrastive", "--out", str(folder / "pre"), *QUICK]
    assert cli.main([*pretrain, "--set", "temperature=0.2", "log_every=1"]) == 0
    weights = str(folder / "pre" / "encoder.safetensors")
    finetune = ["finetune", path, "--labels", "corine", "--weights", weights, "--out", str(folder / "fine"), *QUICK]
    assert cli.main([*finetune, "--set", "size=8"]) == 0
    return folder


def test_what_was_pretrained_is_what_is_fine_tuned(trained: Path) -> None:
    history = (trained / "pre" / "history.csv").read_text().splitlines()
    assert history[0].startswith("step,loss,sensors,views")
    assert len(history) == 3
    model = ds.load_model(trained / "fine" / "model.safetensors")
    assert model.story["weights"] == str(trained / "pre" / "encoder.safetensors")
    assert model.story["size"] == 8


def test_a_model_draws_a_map_of_an_area(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "map.tif"
    words = ["predict", str(trained / "fine" / "model.safetensors"), "--option", "size_px=256", "--out", str(out)]
    assert cli.main(words) == 0
    assert str(out) in capsys.readouterr().out
    files = list(tmp_path.glob("map*.tif"))
    assert files
    with rasterio.open(files[0]) as file:
        grid = ds.geobox(ds.open_source("demo", size_px=256).area)
        assert (file.height, file.width) == grid.shape
        assert file.crs.to_epsg() == grid.crs.to_epsg()


def test_a_model_is_scored_on_the_part_it_did_not_learn(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = corpus()
    parts = [held.isel(sample=range(8)), held.isel(sample=range(8, 12))]
    for part, name in zip(parts, ("train", "test"), strict=True):
        part.attrs["split"] = {"name": name, "by": "hand", "dropped": 0}
    splits = save_splits(tmp_path / "splits.parquet", parts)
    words = ["evaluate", str(trained / "fine" / "model.safetensors"), held.attrs["path"], "--no-controls"]
    assert cli.main([*words, "--split", str(splits), "--out", str(tmp_path / "report")]) == 0
    said = capsys.readouterr().out
    assert "provisional" in said.lower()
    assert "mean_iou" in said or "mean IoU" in said
    assert (tmp_path / "report" / "report.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "report" / "report.json").read_text())


def test_what_is_wrong_is_said_in_a_line(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["finetune", corpus().attrs["path"], "--labels", "crops", "--out", str(trained / "x"), *QUICK]) == 2
    assert "no labels 'crops'" in capsys.readouterr().err
    assert cli.main(["pretrain", corpus().attrs["path"], "--objective", "jigsaw", "--out", str(trained / "x")]) == 2
    assert "objective='jigsaw' is not known" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    words = ["pretrain", corpus().attrs["path"], "--out", str(trained / "x"), "--logs", str(trained / "logs"), *QUICK]
    assert cli.main(words) == 2
    assert "needs TensorBoard: pip install tensorboard" in capsys.readouterr().err


def test_what_is_misspelt_is_said_before_anything_is_learnt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pretrain", corpus().attrs["path"], "--out", str(tmp_path / "x"), *QUICK, "--set"]
    for option, told in (
        ("seen=lots", "seen='lots': a share from 0 to 1 is meant, such as seen=0.25"),
        ("seen=3", "seen=3: a share from 0 to 1"),
        ("patches=wide", "patches='wide'"),
        ("clip=true", "clip=True: a number is meant"),
        ("weight_decay=little", "weight_decay='little': a number is meant"),
    ):
        assert cli.main([*words, option]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    with pytest.raises(InputError, match="lr='1e-3': a number is meant"):
        ds.finetune(corpus(), labels="corine", lr="1e-3")  # type: ignore[arg-type]
    lost = tmp_path / "lost.parquet"
    finetune = ["finetune", corpus().attrs["path"], "--labels", "corine", "--out", str(tmp_path / "x"), *QUICK]
    assert cli.main([*finetune, "--split", str(lost)]) == 2
    assert f"There is no such file: {lost}" in capsys.readouterr().err
    assert cli.main(["predict", str(tmp_path)]) == 2
    assert "holds no model.safetensors" in capsys.readouterr().err


def test_a_folder_in_use_says_what_differs_and_no_more(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = corpus().attrs["path"]
    longer = [*QUICK, "--steps", "3", "--set", "temperature=0.2"]
    assert cli.main(["pretrain", path, "--objective", "contrastive", "--out", str(trained / "pre"), *longer]) == 2
    said = capsys.readouterr().err
    assert "What differs (was -> now): steps 2 -> 3." in said
    assert "encoder=" in said
    assert "crop_px" not in said


def test_a_full_report_is_not_lost_to_a_provisional_one(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepsentinel.learn.report import Report

    words = ["evaluate", str(trained / "fine"), corpus().attrs["path"], "--no-controls", "--out", str(tmp_path / "r")]
    assert cli.main(words) == 0
    assert cli.main(words) == 0  # one provisional report after another
    before = (tmp_path / "r" / "report.json").stat().st_mtime_ns
    capsys.readouterr()
    monkeypatch.setattr(Report, "missing", ())
    assert cli.main(words) == 2
    assert "--replace" in capsys.readouterr().err
    assert (tmp_path / "r" / "report.json").stat().st_mtime_ns == before
    assert cli.main([*words, "--replace"]) == 0
    assert (tmp_path / "r" / "report.json").stat().st_mtime_ns > before


def test_a_map_is_drawn_as_it_is_asked_for(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def predict(model: object, *_: object, **options: object) -> list[object]:
        asked.update(options)
        return []

    monkeypatch.setattr(ds, "predict", predict)
    monkeypatch.setattr("deepsentinel.learn.tasks.OBJECT_TASKS", ("segmentation",))
    words = ["predict", str(trained / "fine"), "--option", "size_px=256", "--out", str(tmp_path / "o.gpkg")]
    assert cli.main([*words, "--sensors", "s2", "--least-score", "0.9", "--device", "cpu"]) == 0
    assert (asked["sensors"], asked["least_score"], asked["device"]) == ("s2", 0.9, "cpu")
    assert "at least 0.9 sure of nothing; --least-score" in capsys.readouterr().out


def test_python_runs_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "deepsentinel", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("deepsentinel ")
    assert done.returncode == 0


@pytest.mark.parametrize("told", [False, True])
def test_steps_are_counted_by_a_bar_unless_somebody_is_told_of_them(
    told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepsentinel.learn import fit

    bars: list[str] = []

    def bar(items: Iterable[Any], *, total: int, what: str, unit: str) -> Iterator[Any]:
        bars.append(f"{what}: {total} {unit}s")
        yield from items

    monkeypatch.setattr(fit, "progress", bar)
    small = {"steps": 3, "batch_size": 2, "crop_px": 16, "device": "cpu"}
    heard = (lambda step: None) if told else None
    ds.finetune(corpus(), labels="corine", weights="random", size=8, on_step=heard, **small)
    ds.finetune(corpus(), labels="corine", weights="random", size=8, progress=False, **small)
    assert bars == ([] if told else ["fine-tuning: 3 steps"])
