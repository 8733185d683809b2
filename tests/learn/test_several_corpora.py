"""Several corpora learnt from as one: what some of them lack is filled or refused, never lost in silence."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from evaluation_kit import CONFLICT, MAP, NAMES, made, question
from store_kit import ATTRS, COORDS, S1, S2, SCL, table, write_shards

import deepsentinel as ds
from deepsentinel.corpus.layout import Layout, create_store
from deepsentinel.encoders import load_encoder
from deepsentinel.errors import InputError
from deepsentinel.learn.batches import Feed
from deepsentinel.learn.checks import checked_labels
from deepsentinel.learn.labels import classes_of
from deepsentinel.learn.model import Model, Question

LARGE = 24


def halves() -> tuple[xr.Dataset, xr.Dataset]:
    held, _ = made()
    return held.isel(sample=slice(0, 13)), held.isel(sample=slice(13, None))


def feed(corpora: Any, **options: Any) -> Feed:
    return Feed(corpora, **{"batch_size": 26, "turn": False, **options})


@cache
def larger() -> xr.Dataset:
    """Eight samples of 24 px."""
    count, rng = 8, np.random.default_rng(0)
    specs = [replace(spec, shape=(*spec.shape[:-2], LARGE, LARGE)) for spec in (S2, S1, SCL, MAP, CONFLICT)]
    data = {
        "s2": rng.integers(1, 3000, (count, *specs[0].shape)).astype("uint16"),
        "s1": rng.integers(-2000, -500, (count, *specs[1].shape)).astype("int16"),
        "scl": np.full((count, LARGE, LARGE), 4, "uint8"),
        "m_class_map": rng.choice([10, 20], (count, LARGE, LARGE)).astype("uint8"),
        "m_conflict": np.zeros((count, LARGE, LARGE), "uint8"),
    }
    folder = Path(tempfile.mkdtemp()) / "large.zarr"
    layout = Layout(count, 4, tuple(specs), COORDS, {**ATTRS, "plan": "large"})
    create_store(folder, layout)
    write_shards(folder, layout, data)
    table(count).to_parquet(folder / "samples.parquet")
    return ds.open_corpus(folder)


def by_number(batch: Any) -> dict[int, torch.Tensor]:
    return dict(zip(batch.sample.tolist(), batch.s2_mask, strict=True))


@pytest.mark.parametrize("on_device", [True, False])
@pytest.mark.parametrize("lacking", [0, 1])
def test_clouds_are_hidden_where_scl_is_known_and_only_there(lacking: int, on_device: bool) -> None:
    parts = list(halves())
    clear, clouded = (by_number(feed(parts, clouds=clouds)(0)) for clouds in (False, True))
    assert any(not torch.equal(mask, clouded[number]) for number, mask in clear.items())
    without = set(parts[lacking]["sample"].values.tolist())
    parts[lacking] = parts[lacking].drop_vars("scl")
    found = feed(parts, on_device=on_device)
    for number, mask in by_number(found(0)).items():
        assert torch.equal(mask, (clear if number in without else clouded)[number])
    # A batch of one of them alone too.
    assert by_number(found.whole(np.arange(13) + 13 * lacking)).keys() == without


def test_what_only_some_corpora_know_is_named() -> None:
    one, other = halves()
    with pytest.raises(InputError, match="know doy of their samples and others do not; leave s1_time and s2_time out"):
        feed([one, other.drop_vars(["s1_time", "s2_time"])])
    with pytest.raises(InputError, match="know lat"):
        feed([one.drop_vars(["lon", "lat"]), other])
    assert feed([each.drop_vars(["s1_time", "s2_time"]) for each in (one, other)])(0).month is None


def test_samples_of_two_sizes_and_samples_that_are_cut_are_refused() -> None:
    held, _ = made()
    for corpora in ([held, larger()], [larger(), held]):
        with pytest.raises(InputError, match="are 16 and 24 px wide"):
            feed(corpora, crop_px=16)
    for cut in ({"y": slice(0, 8)}, {"x": slice(4, None)}, {"y": slice(0, 8), "x": slice(0, 8)}):
        with pytest.raises(InputError, match=r"is cut to (8|12) of the 16 px that s2 has along [yx]"):
            feed(held.isel(cut))
    assert feed(held.isel(sample=slice(0, 4)), batch_size=2)(0).pixels.shape[-1] == 16


def test_contested_ground_is_known_in_all_corpora_or_in_none() -> None:
    one, other = halves()
    for corpora in ([one.drop_vars("m_conflict"), other], [one, other.drop_vars("m_conflict")]):
        with pytest.raises(InputError, match="have m_conflict and others do not"):
            classes_of(corpora, "m")
    assert classes_of([one, other], "m").conflict == "m_conflict"
    assert classes_of([each.drop_vars("m_conflict") for each in (one, other)], "m").conflict is None
    with pytest.raises(InputError, match="no labels 'm'"):
        classes_of([one, other.drop_vars(["m_class_map", "m_conflict"])], "m")
    with pytest.raises(InputError, match="m_class_map in one of these corpora and m in another"):
        classes_of([one, other.drop_vars("m_conflict").rename(m_class_map="m")], "m")


def named(corpus: xr.Dataset, names: str) -> xr.Dataset:
    found = corpus.copy()
    codes = [10, 20, 30, 40][: len(names.split())]
    found["m_class_map"] = corpus["m_class_map"].assign_attrs(flag_values=codes, flag_meanings=names)
    return found


def test_one_number_means_one_class_in_all_corpora() -> None:
    one, other = halves()
    strange = named(other, "lake town wood field")
    model = Model(load_encoder("fusion-nano", "random"), question(), size=8)
    for corpora in ([one, strange], [strange, one]):
        with pytest.raises(InputError, match=r"m_class_map of one of these corpora calls 10"):
            classes_of(corpora, "m")
        with pytest.raises(InputError, match="of the test calls 10 'lake', and the model learnt it as 'field'"):
            checked_labels(model, corpora)
    # Legends of parts of the same classes are one.
    for corpora in ([named(one, "field wood town"), other], [other, named(one, "field wood town")]):
        assert classes_of(corpora, "m").names == tuple(NAMES.split())
        assert checked_labels(model, corpora) == []


def test_regression_learns_numbers_of_the_size_it_answers_in() -> None:
    held, _ = made()
    quick: dict[str, Any] = {"steps": 1, "batch_size": 2, "crop_px": 16, "size": 8, "device": "cpu"}
    for labels in ("m", "m_class_map"):
        with pytest.raises(InputError, match="m_class_map holds the numbers of classes"):
            ds.finetune(held, "fusion-nano", "regression", labels, weights="random", **quick)
    asked = Question("regression", None, array="m_distance", scale=(16.0, 9.0))
    model = Model(load_encoder("fusion-nano", "random"), asked, size=8)
    batch = feed(held, batch_size=2, labels=asked.arrays)(0)
    assert model.loss(batch)["regression"].isfinite()
    finer = Model(load_encoder("fusion-nano", "random"), replace(asked, upscale=4), size=8)
    with pytest.raises(InputError, match="upscale=1"):
        finer.loss(batch)
