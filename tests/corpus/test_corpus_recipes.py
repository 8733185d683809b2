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
from deepsentinel.errors import DeepSentinelWarning, InputError

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


def test_the_extent_of_a_demo_world_is_all_of_it(src: Any) -> None:
    tiles = src.search(src.area, sensors=("S2",)).drop_duplicates("tile")
    assert len(tiles) == 2
    assert all(src.extent.geometry.buffer(1e-9).covers(shape) for shape in tiles.geometry)
    assert src.extent.geometry.covers(src.area.geometry)
    assert src.extent.area_km2 < tiles.to_crs(6933).area.sum() / 1e6  # they overlap
    with pytest.warns(DeepSentinelWarning, match="hold the whole window"):  # those at its very edge
        plan = ds.plan_corpus(ds.sample_land(30, src.extent), src, start="2018-06-01", end="2018-06-30", size_px=16)
    assert set(plan.samples["tile"]) == set(tiles["tile"])
    assert len(plan.samples) > 20


def readme(section: str) -> str:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    return text.split(f"## {section}\n")[1].split("\n## ")[0].split("```python\n")[1].split("```")[0]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_the_example_of_the_readme_works_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"ds": ds}
    exec(readme("Corpora"), names)
    assert names["src"].name == "demo"
    assert all(names[part].sizes["sample"] >= 5 for part in ("train", "val", "test"))
    assert ds.audit_splits([names[part] for part in ("train", "val", "test")]).closest_m >= 1000
    # The fields are told one from the next, as detection needs it.
    assert names["corpus"]["fields_parcel_id"].max() > 1
    with pytest.raises(InputError, match=r"buffer_m=\d+ works here"):
        ds.split(names["corpus"], buffer_m=9000)
