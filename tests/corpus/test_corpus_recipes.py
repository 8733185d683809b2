from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from build_kit import quiet_build

import deepsentinel as ds
from deepsentinel.corpus import labelled, unlabelled
from deepsentinel.corpus.store import open_corpus
from deepsentinel.errors import InputError

SUMMER = {"start": "2018-05-01", "end": "2018-08-31", "size_px": 48}


@pytest.fixture(scope="module")
def src() -> Any:
    return ds.open_source("demo", size_px=256)


def test_the_unlabelled_set_is_spread_over_the_cycles(src: Any) -> None:
    plan = unlabelled(src, 60, **SUMMER).plan
    assert len(plan.samples) == 60
    assert (plan.samples["gap_hours"].abs() <= 72).all()
    days = (plan.samples["s2_time"] - pd.Timestamp("2018-05-01", tz="UTC")).dt.days
    assert np.ptp(days) > 80
    assert plan.samples["tile"].nunique() == 2
    again = unlabelled(src, 60, **SUMMER).plan
    assert again.fingerprint == plan.fingerprint


def test_the_labelled_set_is_built_with_both_masks(src: Any, tmp_path: Path) -> None:
    recipe = labelled(src, 4, **SUMMER)
    report = quiet_build(recipe.plan, tmp_path / "c.zarr", recipe.labels)
    assert (report.ok, report.failed) == (4, 0)
    corpus = open_corpus(tmp_path / "c.zarr")
    assert int(corpus["corine_class_map"].max()) >= 111
    assert int(corpus["osm_class_map"].max()) > 0


def test_labels_that_are_missing_are_asked_for(src: Any) -> None:
    mine = ds.open_source(src.folder / "catalog.json", name="mine")
    with pytest.raises(InputError, match=r"CORINE Land Cover 2018 .* corine="):
        labelled(mine, 3)
    with pytest.raises(TypeError, match="sizepx"):
        unlabelled(src, 3, sizepx=32, **SUMMER)
