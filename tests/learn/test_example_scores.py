"""The score of a few examples: each is asked of what others taught, and nothing of its own field."""

from __future__ import annotations

import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1] / "similarity"))
from vectors_kit import dense, landscape, lonlat_of

import deepsentinel as ds
from deepsentinel.errors import InputError
from deepsentinel.similarity.reports import ProbeReport


def scored(report: ProbeReport, name: str = "examples") -> float:
    return float(report.table.set_index("embedding").loc[name, "accuracy"])


def pins(z: xr.DataArray, kind: np.ndarray, number: int, seed: int = 0) -> gpd.GeoDataFrame:
    cells = np.random.default_rng(seed).integers(0, len(kind), (number, 2))
    return ds.make_labels([(lonlat_of(z, row, col), f"kind {kind[row, col]}") for row, col in cells])


def test_it_tells_how_good_the_map_is() -> None:
    """On ground where classes mix more and more, the score is about the share of cells that the map has right."""
    scores, shares = [], []
    for noise in (0.0, 2.0, 8.0):
        values, kind = landscape(48, 48, seed=1)
        z = dense(values + noise * np.random.default_rng(0).normal(size=values.shape))
        examples = pins(z, kind, 80)
        made = ds.classify(z, examples)
        names = dict(zip(examples["ground_truth"], examples["class_name"], strict=True))
        said = np.array([int(names.get(code, "0")[-1]) for code in range(5)])[made["class_map"].values]
        shares.append(float((said == kind).mean()))
        scores.append(scored(ds.check_examples(z, examples)))
    assert scores == sorted(scores, reverse=True)
    np.testing.assert_allclose(scores, shares, atol=0.12)


def test_vectors_that_tell_nothing_score_as_chance() -> None:
    _, kind = landscape(40, 40)
    z = dense(np.random.default_rng(0).normal(size=(40, 40, 12)))
    report = ds.check_examples(z, pins(z, kind, 100))
    assert abs(scored(report) - 0.25) < 0.12
    assert abs(scored(report, "chance") - 0.25) < 0.12


def test_a_field_is_one_answer_and_teaches_nobody_of_itself() -> None:
    """Every field has vectors of its own that tell it from all others: only fields elsewhere could name its class."""
    rng = np.random.default_rng(3)
    values, shapes, truth = np.zeros((40, 40, 24)), [], []
    for number, (row, col) in enumerate((row, col) for row in range(0, 40, 10) for col in range(0, 40, 10)):
        values[row : row + 10, col : col + 10] = rng.normal(size=24) * 3
        truth.append(number % 2 + 1)
        x, y = 500_000 + 80 * col, 5_400_000 - 80 * row
        shapes.append(shapely.box(x + 10, y - 790, x + 790, y - 10))
    z = dense(values + 0.1 * rng.normal(size=values.shape))
    fields = gpd.GeoDataFrame({"ground_truth": truth}, geometry=shapes, crs=32631)
    report = ds.check_examples(z, fields)
    assert len(report.predictions) == 16
    assert scored(report) < 0.85
    cells = ds.rasterize(fields, like=z)
    # What the map itself says of them is no score at all.
    assert (ds.classify(z, fields)["class_map"].values == cells["class_map"].values).mean() > 0.95


def test_folds_are_apart_and_every_example_is_asked_once() -> None:
    values, kind = landscape(48, 48)
    z = dense(values)
    examples = pins(z, kind, 60)
    report = ds.check_examples(z, examples, block_m=800)
    assert report.predictions["row"].tolist() == list(range(60))
    assert report.block_m == 800
    assert report.predictions["fold"].nunique() == 5
    # One block is in one fold.
    assert (report.predictions.groupby("block")["fold"].nunique() == 1).all()
    far = ds.check_examples(z, examples, block_m=800, buffer_m=400)
    assert far.folds["n_train"].sum() < 0.97 * report.folds["n_train"].sum()
    assert report.predictions["truth"].tolist() == examples["ground_truth"].tolist()


def test_few_examples_have_few_folds_and_it_is_said() -> None:
    values, kind = landscape(48, 48)
    z = dense(values)
    report = ds.check_examples(z, pins(z, kind, 4, seed=1))
    assert any("folds instead of 5" in note for note in report.notes)
    assert any("25 %" in note for note in report.notes)
    assert "examples" in repr(report)
    with pytest.raises(InputError, match="at least two classes"):
        ds.check_examples(z, ds.make_labels([(lonlat_of(z, 3, 3), "a"), (lonlat_of(z, 30, 3), "a")]))
    one_place = ds.make_labels([(lonlat_of(z, 3, 3), "a"), (lonlat_of(z, 3, 3), "b")])
    with pytest.raises(InputError):
        ds.check_examples(z, one_place)


def test_levels_are_those_of_the_map() -> None:
    values, kind = landscape(48, 48)
    z = dense(values)
    cells = np.random.default_rng(0).integers(0, 48, (60, 2))
    names = {1: "crop / rye", 2: "crop / oats", 3: "wood / oak", 4: "wood / fir"}
    labels = ds.make_labels([(lonlat_of(z, row, col), names[int(kind[row, col])]) for row, col in cells])
    coarse = ds.check_examples(z, labels, level=1)
    assert set(coarse.classes["name"]) == {"crop", "wood"}
