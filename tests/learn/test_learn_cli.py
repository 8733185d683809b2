"""Learning from a shell: each command reads what the one before it wrote, and says what it did."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import rasterio
from learn_kit import corpus

import deepsentinel as ds
from deepsentinel import cli
from deepsentinel.corpus.split_files import save_splits

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
