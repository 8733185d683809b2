"""Splits: nothing near anything, everything that belongs together together, as asked for, and little dropped."""

from __future__ import annotations

import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from corpus_examples import corpus_at, lattice, scattered, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from deepsentinel.corpus.blocks import cells, deal, fewest, turned
from deepsentinel.corpus.buffers import BUFFERS_M
from deepsentinel.corpus.classes import class_shares, new_to_training
from deepsentinel.corpus.ground import gaps_m, ground_of, on_ellipsoid
from deepsentinel.corpus.split_files import load_splits, save_splits
from deepsentinel.corpus.splits import split
from deepsentinel.corpus.store import open_corpus
from deepsentinel.errors import InputError

GEOD = Geod(ellps="WGS84")


def outlines(corpus: xr.Dataset) -> np.ndarray:
    """The footprints of samples that lie in one projection, in it."""
    there = Transformer.from_crs(4326, str(corpus.crs.to_numpy()[0]), always_xy=True)
    x, y = there.transform(corpus.lon.to_numpy(), corpus.lat.to_numpy())
    half = corpus.height.to_numpy() * 5
    return np.asarray(shapely.box(x - half, y - half, x + half, y + half))


def brute_force_m(left: xr.Dataset, right: xr.Dataset) -> float:
    """The closest two samples of two splits that lie in one UTM zone: every pair, by shapely in that zone."""
    return float(shapely.distance(outlines(left)[:, None], outlines(right)[None]).min())


@pytest.mark.parametrize(("buffer_m", "step_m"), [(5000, 2560), (2560, 2560), (1000, 1280), (7000, 4000)])
def test_no_two_are_nearer_than_the_buffer_by_brute_force(buffer_m: float, step_m: float) -> None:
    parts = split(lattice(20, 24, step_m=step_m), buffer_m=buffer_m)
    for left, right in combinations(parts, 2):
        assert brute_force_m(left, right) >= buffer_m * 0.999  # a metre of UTM is up to 0.04 % short


@pytest.mark.parametrize("by", ["space", "tile"])
@pytest.mark.parametrize("most", [5, 200, 2000])
def test_none_is_too_near_where_pairs_are_too_many_to_weigh(
    by: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepsentinel.corpus.splits.MOST_PAIRS", most)
    monkeypatch.setattr("deepsentinel.corpus.ground.AT_A_TIME", 20)
    tiles = np.array([f"tile {column // 10}" for column in range(40)], object)
    parts = split(lattice(20, 40, step_m=1280, tile=np.tile(tiles, 20)), by, buffer_m=5000, fractions=(0.5, 0.5))
    assert brute_force_m(*parts) >= 5000 * 0.999


@given(st.integers(0, 10_000), st.floats(0, 40_000), st.integers(20, 80), st.sampled_from([2, 3, 4]))
@settings(max_examples=25, deadline=None)
def test_any_scatter_is_kept_apart(seed: int, buffer_m: float, count: int, many: int) -> None:
    rng = np.random.default_rng(seed)
    corpus = corpus_at(rng.uniform(8, 10, count), rng.uniform(49, 51, count))
    corpus = corpus.assign_coords(crs=("sample", np.full(count, "EPSG:32632", object)))
    try:
        parts = split(corpus, buffer_m=buffer_m, fractions=[1 / many] * many, seed=seed)
    except InputError as error:
        assert "Nothing is left" in str(error) or "too few" in str(error)  # noqa: PT017
        return
    for left, right in combinations(parts, 2):
        assert brute_force_m(left, right) >= buffer_m * 0.999
    dropped = parts[0].attrs["split"]["dropped_samples"]
    numbers = np.concatenate([part["sample"].to_numpy() for part in parts] + [dropped])
    assert sorted(numbers.tolist()) == list(range(count))


@given(st.floats(-180, 180), st.floats(-84, 84), st.floats(0, 360), st.floats(100, 60_000))
@settings(max_examples=40, deadline=None)
def test_distances_agree_with_those_on_the_ellipsoid(lon: float, lat: float, way: float, far: float) -> None:
    to_lon, to_lat, _ = GEOD.fwd(lon, lat, way, far)
    two = corpus_at([lon, to_lon], [lat, np.clip(to_lat, -84, 84)], size_px=1)  # hardly more than points
    there = GEOD.inv(lon, lat, float(two.lon[1]), float(two.lat[1]))[2]
    found = gaps_m(ground_of(two), np.array([0]), np.array([1]))[0]
    assert there * (1 - 2e-4) - 15 <= found <= there * (1 + 2e-4)  # the pixels reach out by up to 7 m each


def test_the_date_line_and_the_poles_are_places_like_any_other() -> None:
    # Two rows of samples on both sides of 180 degrees, and a ring round the north pole.
    lon = np.concatenate([np.full(20, 179.99), np.full(20, -179.99), np.arange(0, 360, 18) - 180.0])
    lat = np.concatenate([np.linspace(-60, 60, 20)] * 2 + [np.full(20, 83.9)])
    parts = split(corpus_at(lon, lat), buffer_m=5000, fractions=(0.5, 0.5))
    side = [set((part.place.to_numpy()[part.place.to_numpy() < 40] % 20).tolist()) for part in parts]
    assert not side[0] & side[1]
    assert parts[0].attrs["split"]["dropped"] == 0


def test_fractions_are_met_and_sparse_samples_are_all_kept() -> None:
    corpus = scattered(5000)
    for fractions in ((0.7, 0.15, 0.15), (0.5, 0.5), (0.4, 0.3, 0.2, 0.1)):
        parts = split(corpus, fractions=fractions)
        told = parts[0].attrs["split"]
        assert told["dropped"] == 0
        shares = [part.sizes["sample"] / 5000 for part in parts]
        assert np.abs(np.array(shares) - fractions).max() < 0.01


def test_dense_samples_lose_few_and_keep_to_the_fractions() -> None:
    corpus = lattice(60, 60)
    parts = split(corpus, buffer_m=5000)
    told = parts[0].attrs["split"]
    counts = np.array(told["samples"])
    assert told["dropped"] < 0.15 * 3600
    assert np.abs(counts / counts.sum() - (0.7, 0.15, 0.15)).max() < 0.03
    # None of those that went has a place anywhere: each is too near to two splits.
    ground = ground_of(corpus)
    number = np.full(3600, -1)
    for at, part in enumerate(parts):
        number[part["sample"].to_numpy()] = at
    gone = told["dropped_samples"]
    for one in gone[::25]:
        others = np.flatnonzero(number >= 0)
        near = others[gaps_m(ground, np.full(len(others), one), others) < 5000]
        assert len(set(number[near].tolist())) >= 2


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=14, unique=True))
@settings(max_examples=80, deadline=None)
def test_the_fewest_are_the_fewest(pairs: list[tuple[int, int]]) -> None:
    left, right = fewest(np.array(pairs))
    gone = {("l", one) for one in left.tolist()} | {("r", two) for two in right.tolist()}
    assert all(("l", one) in gone or ("r", two) in gone for one, two in pairs)
    everybody = sorted({("l", one) for one, _ in pairs} | {("r", two) for _, two in pairs})
    for fewer in range(len(gone)):
        for some in combinations(everybody, fewer):
            assert not all(("l", one) in some or ("r", two) in some for one, two in pairs)


def test_all_dates_and_twins_of_a_place_go_together() -> None:
    corpus = lattice(12, 12, dates=3, twins=2)
    parts = split(corpus, buffer_m=3000)
    for left, right in combinations(parts, 2):
        assert not set(left.place.to_numpy()) & set(right.place.to_numpy())
        assert not set(left.id.to_numpy()) & set(right.id.to_numpy())
    for part in parts:
        assert (np.unique(part.place, return_counts=True)[1] == 6).all()


def test_ids_alone_tie_samples_of_two_places_together() -> None:
    corpus = scattered(60)
    ids = corpus.id.to_numpy().copy()
    ids[1] = ids[0]
    parts = split(corpus.assign_coords(id=("sample", ids)), fractions=(0.5, 0.5))
    assert any({0, 1} <= set(part["sample"].to_numpy().tolist()) for part in parts)


def test_the_same_seed_is_the_same_split_and_another_is_not() -> None:
    corpus = scattered(400)
    one, two, three = (split(corpus, seed=seed) for seed in (3, 3, 4))
    assert all(left.equals(right) for left, right in zip(one, two, strict=True))
    assert not all(left.sample.equals(right.sample) for left, right in zip(one, three, strict=True))


def test_classes_are_spread_evenly_where_space_allows() -> None:
    corpus = scattered(3000, seed=1)
    # Classes by climate: whole latitudes of one class.
    belt = np.digitize(np.abs(corpus.lat.to_numpy()), [20, 40, 60]).astype(str).astype(object)
    corpus = corpus.assign_coords({"class": ("sample", belt)})
    parts = split(corpus)
    for name in np.unique(belt):
        held = np.array([(part["class"].to_numpy() == name).sum() for part in parts])
        assert np.abs(held / held.sum() - (0.7, 0.15, 0.15)).max() < 0.05, name


def test_samples_without_pixels_are_left_out() -> None:
    status = np.array(["ok"] * 90 + ["failed"] * 5 + ["planned"] * 5, object)
    parts = split(scattered(100).assign_coords(status=("sample", status)), fractions=(0.5, 0.5))
    assert sum(part.sizes["sample"] for part in parts) == 90
    assert parts[0].attrs["split"]["not_built"] == 10
    assert all((part.status == "ok").all() for part in parts)


def test_tiles_stay_whole() -> None:
    corpus = scattered(600)
    tile = np.char.add("T", np.repeat(np.arange(30), 20).astype(str)).astype(object)
    parts = split(corpus.assign_coords(tile=("sample", tile)), by="tile", buffer_m=0)
    for left, right in combinations(parts, 2):
        assert not set(left.tile.to_numpy()) & set(right.tile.to_numpy())
    with pytest.raises(InputError, match="have no tile"):
        split(corpus, by="tile")


def test_countries_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    import geopandas as gpd

    from deepsentinel.land import countries

    # A world of ten countries, side by side.
    strips = [shapely.box(-180 + 36 * n, -90, -144 + 36 * n, 90) for n in range(10)]
    codes = [f"C{n}" for n in range(10)]
    world = gpd.GeoDataFrame({"code2": codes, "code3": codes, "name": codes}, geometry=strips, crs=4326)
    monkeypatch.setattr(countries, "natural_earth", lambda **_: world)
    parts = split(scattered(800), by="country", fractions=(0.6, 0.4))
    inside = [set(((part.lon.to_numpy() + 180) // 36).astype(int).tolist()) for part in parts]
    assert not inside[0] & inside[1]
    assert inside[0] | inside[1] == set(range(10))


def test_by_time_the_first_dates_are_for_training() -> None:
    corpus = lattice(6, 6, dates=20)
    train, val, test = split(corpus, by="time")
    assert train.s2_time.max() < val.s2_time.min() < test.s2_time.min()
    assert val.s2_time.max() < test.s2_time.min()
    assert [part.sizes["sample"] for part in (train, val, test)] == [504, 108, 108]


def test_cuts_and_gaps_in_time_are_kept() -> None:
    corpus = lattice(4, 4, dates=20)
    cuts = ["2018-04-01", "2018-07-01"]
    train, val, test = split(corpus, by="time", cuts=cuts, gap_days=20)
    assert train.s1_time.max() < np.datetime64(cuts[0])
    assert val.s2_time.min() >= np.datetime64(cuts[0]) + np.timedelta64(20, "D")
    assert val.s1_time.max() < np.datetime64(cuts[1])
    assert test.s2_time.min() >= np.datetime64(cuts[1]) + np.timedelta64(20, "D")
    assert train.attrs["split"]["dropped"] > 0
    with pytest.raises(InputError, match="across a cut or in the gap"):
        split(corpus, by="time", cuts=["2018-04-01", "2018-04-03"])
    with pytest.raises(InputError, match="rising"):
        split(corpus, by="time", cuts=["2018-07-01", "2018-04-01"])
    with pytest.raises(InputError, match="not a date"):
        split(corpus, by="time", cuts=["soon", "later"])
    with pytest.raises(InputError, match="by='time'"):
        split(corpus, cuts=cuts)


def test_a_series_goes_where_all_of_it_lies() -> None:
    corpus = lattice(2, 5)
    start = np.datetime64("2018-01-01", "ns") + np.arange(10) * np.timedelta64(30, "D")
    steps = start[:, None] + np.array([0, 10, 20]) * np.timedelta64(1, "D")
    steps[::2, 2] = np.datetime64("NaT")  # padded
    corpus = corpus.drop_vars("s1_time").assign_coords(s2_time=(("sample", "s2_step"), steps))
    cut = np.datetime64(start[5] + np.timedelta64(15, "D"))
    train, test = split(corpus, by="time", cuts=[cut], fractions=(0.5, 0.5))
    assert train["sample"].to_numpy().tolist() == [0, 1, 2, 3, 4]
    assert test["sample"].to_numpy().tolist() == [6, 7, 8, 9]
    assert train.attrs["split"]["dropped_samples"].tolist() == [5]  # three steps, the last of them after the cut


def test_a_share_of_the_data_has_classes_that_are_new() -> None:
    corpus = scattered(4000, seed=2)
    rng = np.random.default_rng(0)
    names = np.array([f"class {n}" for n in range(12)], object)
    weight = rng.dirichlet(np.full(12, 2.0))
    corpus = corpus.assign_coords({"class": ("sample", rng.choice(names, 4000, p=weight))})
    *rest, new = split(corpus, new_classes=0.3, seed=5)
    learnt = set().union(*(part["class"].to_numpy() for part in rest))
    assert not learnt & set(new["class"].to_numpy())
    assert set(new["class"].to_numpy()) == set(new.attrs["split"]["new_classes"])
    assert new.attrs["split"]["name"] == "new"
    assert new.sizes["sample"] / 4000 == pytest.approx(0.3, abs=0.03)
    counts = np.array([part.sizes["sample"] for part in rest])
    assert np.abs(counts / counts.sum() - (0.7, 0.15, 0.15)).max() < 0.02


def test_with_several_classes_a_sample_none_of_the_new_ones_is_learnt() -> None:
    rng = np.random.default_rng(0)
    corpus = scattered(1000)
    shares = pd.DataFrame((rng.random((1000, 9)) < rng.uniform(0.02, 0.4, 9)) * 0.5, columns=list("abcdefghi"))
    *rest, new = split(corpus, new_classes=0.3, labels=shares)
    chosen = new.attrs["split"]["new_classes"]
    for part in rest:
        assert (shares[chosen].iloc[part["sample"].to_numpy()] == 0).all(axis=None)
    assert (shares[chosen].iloc[new["sample"].to_numpy()] > 0).any(axis=1).all()


@given(st.integers(0, 1000), st.floats(0.05, 0.9))
@settings(max_examples=30, deadline=None)
def test_the_classes_held_out_are_as_good_as_any(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    present = rng.random((200, 6)) < rng.uniform(0.05, 0.5, 6)
    found = new_to_training(present, share, seed=0)
    away = abs(present[:, found].any(axis=1).mean() - share)
    every = [np.array(list(np.binary_repr(n, 6)), int).astype(bool) for n in range(1, 63)]
    best = min(abs(present[:, some].any(axis=1).mean() - share) for some in every)
    assert away <= best + 0.02


def test_class_shares_are_those_of_the_masks(tmp_path: Any) -> None:
    corpus = open_corpus(stored(tmp_path / "one.zarr"))
    found = class_shares(corpus, "mine")
    masks = corpus.mine_class_map.to_numpy()
    for code in (1, 2, 3, 4):
        assert np.allclose(found[code], (masks == code).mean(axis=(1, 2)))
    assert 0 not in found
    with pytest.raises(InputError, match="no labels 'corine'; it has 'mine'"):
        class_shares(corpus, "corine")
    with pytest.raises(InputError, match="Nothing tells the classes"):
        class_shares(corpus)
    train, test = split(corpus, fractions=(0.5, 0.5), buffer_m=300, labels="mine")
    assert train.sizes["sample"] + test.sizes["sample"] == 10


def test_cells_are_of_equal_area_nearly_and_of_the_size_asked_for() -> None:
    rng = np.random.default_rng(0)
    corpus = scattered(200_000, seed=int(rng.integers(100)))
    cell = cells(turned(on_ellipsoid(corpus.lon, corpus.lat), seed=3), 1_000_000)
    counts = np.bincount(cell)
    whole = np.median(counts)
    assert 510 * 0.9 < len(counts) < 510 * 1.15  # the Earth has 510 million km2, less the ends
    assert (np.abs(counts / whole - 1) < 0.35).mean() > 0.85


def test_dealing_leaves_no_split_empty() -> None:
    weights = np.ones((100, 1))
    dealt = deal(np.repeat(np.arange(4), 25), weights, (0.94, 0.02, 0.02, 0.02), seed=0)
    assert sorted(np.unique(dealt).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "colour"}, "no way to split"),
        ({"fractions": (0.7, 0.7)}, "no shares of a whole"),
        ({"fractions": (1.0,)}, "no shares of a whole"),
        ({"buffer_m": -1}, "not a distance"),
        ({"new_classes": 1.5}, "not a share"),
        ({"new_classes": 0.3}, "Nothing tells the classes"),
        ({"gap_days": -1}, "not a number of days"),
        ({"buffer_m": 20_000_000}, r"Nothing is left|too few"),
        ({"labels": np.ones((3, 2))}, "3 rows"),
    ],
)
def test_what_cannot_be_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split(scattered(50), **options)


def test_too_few_places_are_told() -> None:
    with pytest.raises(InputError, match="what was meant for it lies nearer than 20000 m to another split and went"):
        split(lattice(3, 4, step_m=8000), buffer_m=20_000)
    with pytest.raises(InputError, match="too few"):
        split(corpus_at([3.0], [50.0], dates=9))
    with pytest.raises(InputError, match="make no 3 splits"):
        split(corpus_at([3.0], [50.0]))
    with pytest.raises(InputError, match="no coordinate 'lon'"):
        split(xr.Dataset(coords={"sample": np.arange(9)}))


def test_splits_are_kept_of_one_corpus_only(tmp_path: Any) -> None:
    corpus = scattered(50)
    parts = split(corpus)
    with pytest.raises(InputError, match="takes the path first"):
        save_splits(parts, tmp_path / "splits.parquet")  # type: ignore[arg-type]
    path = save_splits(tmp_path / "splits.parquet", parts)
    with pytest.raises(InputError, match="some samples more than once"):
        load_splits(xr.concat([corpus, corpus], "sample"), path)


@pytest.mark.long
def test_a_million_samples_take_seconds() -> None:
    def memory_gb(line: str) -> float:
        return int(Path("/proc/self/status").read_text().split(f"{line}:")[1].split()[0]) / 1e6

    for name, corpus in (("all over the Earth", scattered(1_000_000)), ("wall to wall", lattice(1000, 1000))):
        # The peak of this split, not of whatever ran in this process before it.
        Path("/proc/self/clear_refs").write_text("5")
        before, began = memory_gb("VmRSS"), time.perf_counter()
        told = split(corpus)[0].attrs["split"]
        seconds = time.perf_counter() - began
        peak = memory_gb("VmHWM") - before
        print(f"\n1,000,000 samples {name}: {seconds:.1f} s, {told['dropped']:,} dropped, {peak:.2f} GB more")
        assert seconds < 60
        assert peak < 2


def test_where_the_buffer_is_too_wide_the_error_names_one_that_works() -> None:
    corpus = lattice(4, 4, step_m=4000)
    with pytest.raises(
        InputError, match=r"buffer_m=\d+ works here \(\d+ for train, \d+ for val, \d+ for test\)"
    ) as why:
        split(corpus, buffer_m=8000)
    works = int(str(why.value).split("buffer_m=")[-1].split()[0])
    parts = split(corpus, buffer_m=works)
    assert all(part.sizes["sample"] for part in parts)
    counts = ", ".join(f"{part.sizes['sample']} for {part.attrs['split']['name']}" for part in parts)
    assert counts in str(why.value)
    # The next wider one does not.
    wider = min((each for each in BUFFERS_M if each > works), default=8000)
    with pytest.raises(InputError, match=f"buffer_m={works} works here"):
        split(corpus, buffer_m=wider)


def test_where_no_buffer_helps_none_is_named() -> None:
    with pytest.raises(InputError, match=r"No smaller buffer_m= helps"):
        split(corpus_at(np.zeros(5), np.zeros(5)), buffer_m=100)
