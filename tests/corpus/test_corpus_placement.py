"""What radar that was placed here says of its places is kept by a corpus, and only where anything says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from build_kit import points_in, quiet_plan

import deepsentinel as ds
from deepsentinel.corpus.build import build_corpus
from deepsentinel.corpus.samples import PLACEMENT, fingerprint, read_samples
from deepsentinel.sources.demo import DemoSource

SAID = {"placement_error_m": 12.5, "placement_shift_per_m": 2.75, "sea_height_m": -30.0, "noise_removed": False}


class PlacedSource(DemoSource):
    """The demo world, as if its radar were of products of one's own."""

    def patch_attrs(self) -> dict[str, Any]:
        return super().patch_attrs() | SAID


@pytest.fixture(scope="module")
def plain() -> DemoSource:
    return ds.open_source("demo", size_px=256)


@pytest.fixture(scope="module")
def placed() -> PlacedSource:
    source = PlacedSource(size_px=256)
    source.name = "placed"
    return source


def test_a_sample_says_what_its_patch_said(placed: PlacedSource, tmp_path: Path) -> None:
    plan = quiet_plan(points_in(placed, 6), placed)
    build_corpus(plan, tmp_path / "c")
    corpus = ds.open_corpus(tmp_path / "c")
    assert (corpus["placement_error_m"] == 12.5).all()
    for number in range(corpus.sizes["sample"]):
        patch = ds.patch_of(corpus, number)
        assert {name: patch.attrs[name] for name in SAID} == SAID
        assert patch.attrs["noise_removed"] is False


class TiltedSource(PlacedSource):
    """One whose scenes differ in what they say."""

    def read_many(self, *args: Any, **options: Any) -> Any:
        for number, patch in enumerate(super().read_many(*args, **options)):
            patch.attrs |= {"placement_error_m": 100.0 - number, "noise_removed": number > 0}
            yield patch


@pytest.mark.parametrize("kind", [PlacedSource, TiltedSource])
def test_so_does_a_series(kind: type[PlacedSource], tmp_path: Path) -> None:
    """Of scenes that differ, what holds for all of them: nothing is off by more, nor cleaner than said."""
    source = kind(size_px=256)
    options = {"series": True, "bands": ["B02", "VV"], "size_px": 24, "max_cloud": 70}
    plan = quiet_plan(points_in(source, 1), source, **options)
    build_corpus(plan, tmp_path / "c")
    corpus = ds.open_corpus(tmp_path / "c")
    told = {name: corpus[name].to_numpy()[0] for name in PLACEMENT}
    if kind is TiltedSource:
        assert not told["noise_removed"]
        assert told["placement_error_m"] == 100
        told |= {name: SAID[name] for name in ("placement_error_m", "noise_removed")}
    assert told == SAID


def test_of_two_sources_each_sample_says_what_its_own_did(
    plain: DemoSource, placed: PlacedSource, tmp_path: Path
) -> None:
    """In shards of which some know it and some do not."""
    plan = quiet_plan(points_in(plain, 10), [plain, placed], samples_per_shard=3)
    build_corpus(plan, tmp_path / "c")
    corpus = ds.open_corpus(tmp_path / "c")
    told = {ds.patch_of(corpus, at).attrs.get("sea_height_m") for at in np.flatnonzero(corpus["source"] == "placed")}
    mute = [ds.patch_of(corpus, at).attrs for at in np.flatnonzero(corpus["source"] == "demo")]
    assert told == {-30.0}
    assert mute
    assert not any(set(PLACEMENT) & set(attrs) for attrs in mute)
    table = read_samples(tmp_path / "c" / "samples.parquet")
    assert (table["noise_removed"].notna() == (table["source"] == "placed")).all()


def test_a_table_in_which_nobody_says_it_is_without(plain: DemoSource, tmp_path: Path) -> None:
    build_corpus(quiet_plan(points_in(plain, 3), plain), tmp_path / "c")
    corpus = ds.open_corpus(tmp_path / "c")
    assert not set(PLACEMENT) & set(corpus.coords)
    assert not set(PLACEMENT) & set(pq.read_schema(tmp_path / "c" / "samples.parquet").names)
    assert read_samples(tmp_path / "c" / "samples.parquet")[list(PLACEMENT)].isna().all(axis=None)


def test_plans_are_called_what_they_were_before_there_were_such_columns(plain: DemoSource) -> None:
    table = quiet_plan(points_in(plain, 3), plain).samples
    assert fingerprint(table.drop(columns=list(PLACEMENT)), {}) == fingerprint(table, {})
    assert fingerprint(table.assign(sea_height_m=1.0), {}) == fingerprint(table, {})
