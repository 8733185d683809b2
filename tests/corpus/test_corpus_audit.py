"""The audit measures what brute force measures, finds every planted leak, and does not lean on `split`."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import shapely
import xarray as xr
from corpus_examples import corpus_at, lattice, scattered, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer

import deepsentinel.corpus.audit as module
from deepsentinel.corpus.audit import audit_splits
from deepsentinel.corpus.splits import split
from deepsentinel.corpus.store import open_corpus
from deepsentinel.errors import InputError


def boxes(corpus: xr.Dataset) -> np.ndarray:
    there = Transformer.from_crs(4326, 32632, always_xy=True)
    x, y = there.transform(corpus.lon.to_numpy(), corpus.lat.to_numpy())
    half = corpus.height.to_numpy() * 5
    return np.asarray(shapely.box(x - half, y - half, x + half, y + half))


def random_parts(seed: int, counts: tuple[int, ...], degrees: float) -> list[xr.Dataset]:
    """Parts of a scatter in one UTM zone, without any care."""
    rng = np.random.default_rng(seed)
    total = sum(counts)
    corpus = corpus_at(rng.uniform(9 - degrees, 9 + degrees, total), rng.uniform(50 - degrees, 50 + degrees, total))
    corpus = corpus.assign_coords(crs=("sample", np.full(total, "EPSG:32632", object)))
    edges = np.cumsum((0, *counts))
    return [corpus.isel(sample=slice(*pair)) for pair in pairwise(edges)]


@given(st.integers(0, 10_000), st.floats(0.02, 1.5), st.floats(0, 60_000))
@settings(max_examples=40, deadline=None)
def test_distances_and_counts_are_those_of_brute_force(seed: int, degrees: float, buffer_m: float) -> None:
    parts = random_parts(seed, (30, 20, 10), degrees)
    report = audit_splits(parts, buffer_m, leaks="report")
    for row, (left, right) in zip(report.table.to_dict("records"), combinations(parts, 2), strict=True):
        there = shapely.distance(boxes(left)[:, None], boxes(right)[None])
        # A metre in the zone is up to 0.04 % longer or shorter on the ground.
        assert row["closest_m"] == pytest.approx(there.min(), rel=1e-3, abs=0.5)
        surely, perhaps = ((there.min(axis=1) < buffer_m * share).sum() for share in (0.999, 1.001))
        if buffer_m > 1:
            assert surely <= row["too_near"] <= perhaps


def test_it_agrees_with_the_ellipsoid_far_away() -> None:
    two = corpus_at([10.0, -120.0], [50.0, -35.0])
    found = audit_splits([two.isel(sample=[0]), two.isel(sample=[1])], 0).closest_m
    assert found == pytest.approx(Geod(ellps="WGS84").inv(10, 50, -120, -35)[2], rel=0.005)


@pytest.mark.parametrize("degrees", [0.1, 1, 5, 20])
def test_the_distance_that_is_told_is_the_buffer_that_is_kept(degrees: float) -> None:
    two = corpus_at([10.0, 10.0 + degrees], [50.0, 50.0])
    parts = [two.isel(sample=[0]), two.isel(sample=[1])]
    closest = audit_splits(parts, 0).closest_m
    assert audit_splits(parts, closest - 0.5).ok
    assert not audit_splits(parts, closest + 0.5, leaks="report").ok


@pytest.mark.parametrize("buffer_m", [0, 2560, 5000])
def test_what_split_makes_passes(buffer_m: float) -> None:
    report = audit_splits(split(lattice(25, 25, dates=2, twins=2), buffer_m=buffer_m))
    assert report.ok
    assert report.closest_m >= buffer_m
    assert report.buffer_m == buffer_m
    assert "apart" in str(report)
    assert str(report.table["first_id"][0]) in report._repr_html_()


def planted(parts: list[xr.Dataset], what: str) -> list[xr.Dataset]:
    """Splits with one sample of training slipped into the test, in some disguise."""
    train, val, test = parts
    one = train.isel(sample=[train.sizes["sample"] // 2])
    if what == "another date under another id":
        one = one.assign_coords(place=("sample", [-1]), id=("sample", np.array(["other"], object)))
        one = one.assign_coords(s2_time=one.s2_time + np.timedelta64(365, "D"))
    elif what == "moved by 100 m":
        one = one.assign_coords(lat=one.lat + 0.0009, place=("sample", [-1]), id=("sample", np.array(["o"], object)))
    elif what == "in another zone":
        one = one.assign_coords(place=("sample", [-1]), id=("sample", np.array(["o"], object)))
        one = one.assign_coords(crs=("sample", np.array(["EPSG:32633"], object)))
    return [train, val, xr.concat([test, one], "sample")]


@pytest.mark.parametrize(
    "what", ["the same sample", "another date under another id", "moved by 100 m", "in another zone"]
)
@pytest.mark.parametrize("buffer_m", [0, 5000])
def test_a_planted_leak_is_found(what: str, buffer_m: float) -> None:
    parts = list(split(scattered(400), buffer_m=5000))
    with pytest.raises(InputError, match=r"train and test: 0 m at the closest.*by='space'"):
        audit_splits(planted(parts, what), buffer_m)
    report = audit_splits(planted(parts, what), buffer_m, leaks="report")
    assert not report.ok
    row = report.table[(report.table["first"] == "train") & (report.table["second"] == "test")].iloc[0]
    assert row["too_near"] == 1
    assert row["first_sample"] == row["second_sample"] == parts[0]["sample"].to_numpy()[parts[0].sizes["sample"] // 2]
    assert str(report).startswith("NOT apart")


def test_a_place_in_two_splits_is_a_leak_wherever_its_samples_lie() -> None:
    corpus = corpus_at([0.0, 40.0], [0.0, 0.0]).assign_coords(place=("sample", [7, 7]))
    with pytest.raises(InputError, match="1 place\\(s\\) in both"):
        audit_splits([corpus.isel(sample=[0]), corpus.isel(sample=[1])], 1000)


def test_neighbours_that_touch_share_no_ground_and_those_a_row_deep_do() -> None:
    corpus = lattice(1, 2)
    parts = [corpus.isel(sample=[0]), corpus.isel(sample=[1])]
    assert audit_splits(parts, 0).ok
    with pytest.raises(InputError, match="1 of the samples too near"):
        audit_splits([corpus.isel(sample=[0]), lattice(1, 2, step_m=2540).isel(sample=[1])], 0)


def test_splits_by_time_say_why_they_share_places() -> None:
    with pytest.raises(InputError, match="by time, and so share their places on purpose"):
        audit_splits(split(lattice(5, 5, dates=10), by="time"), 1000)


def test_the_new_classes_are_apart_too() -> None:
    corpus = scattered(1500, seed=4)
    rng = np.random.default_rng(0)
    corpus = corpus.assign_coords({"class": ("sample", rng.integers(0, 9, 1500).astype(str).astype(object))})
    report = audit_splits(split(corpus, new_classes=0.3, buffer_m=40_000))
    assert len(report.table) == 6
    assert report.closest_m >= 40_000


def test_it_judges_corpora_from_disk_by_their_grids(tmp_path: Path) -> None:
    corpus = open_corpus(stored(tmp_path / "one.zarr"))
    report = audit_splits([corpus.isel(sample=[0]), corpus.isel(sample=[1, 2])], 100)
    # Samples of 32 px lie two of their widths apart.
    assert report.closest_m == pytest.approx(640, rel=1e-3)


def test_a_mistake_in_split_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepsentinel.corpus import splits

    monkeypatch.setattr(splits, "conflicts", lambda *_: iter(()))
    with pytest.raises(InputError, match="not 5,000 m apart"):
        audit_splits(split(lattice(20, 20)))


def test_the_audit_does_not_use_what_split_uses() -> None:
    text = Path(module.__file__).read_text()
    assert not [name for name in ("ground", "blocks", "space", "splits") if f"from .{name} import" in text]


def test_nonsense_is_refused() -> None:
    part = scattered(4)
    with pytest.raises(InputError, match="two or more"):
        audit_splits([part])
    with pytest.raises(InputError, match=r"give buffer_m="):
        audit_splits([part, part])
    with pytest.raises(InputError, match="leaks="):
        audit_splits([part, part], 0, leaks="hide")
    with pytest.raises(InputError, match="is empty"):
        audit_splits([part, part.isel(sample=[])], 0)
    with pytest.raises(InputError, match="no coordinate 'lat'"):
        audit_splits([part.drop_vars("lat"), part], 0)


@pytest.mark.long
def test_a_million_samples_are_audited_in_seconds() -> None:
    import time

    parts = split(scattered(1_000_000))
    began = time.perf_counter()
    report = audit_splits(parts)
    print(f"\n1,000,000 samples audited in {time.perf_counter() - began:.1f} s\n{report}")
    assert report.ok
    assert time.perf_counter() - began < 90
