"""What is drawn: orders, triplets and views, by the seed and the epoch and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyproj
import pytest
import xarray as xr
from store_kit import make_store

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from deepsentinel.corpus.store import open_corpus  # noqa: E402
from deepsentinel.errors import InputError, NothingFoundError  # noqa: E402
from deepsentinel.tensors import CorpusSampler, PatchDataset, TripletDataset, ViewDataset, loader  # noqa: E402

# Two clusters of places, 400 km apart, and one place by itself.
LON = [3.0, 3.02, 3.04, 8.0, 8.02, 8.03, 3.01, 8.01, 5.5, 3.03, 8.04, 3.05]
TWINS = ["a", "a", "b", "c", "c", "d", "e", "f", "g", "h", "b", "i"]
PLACES = [0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 0, 6]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    folder = tmp_path_factory.mktemp("draws") / "c.zarr"
    make_store(folder, samples=12, lon=LON, id=TWINS, place=PLACES)
    return open_corpus(folder)


@given(st.integers(1, 200), st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_an_order_has_every_item_once_and_hangs_on_seed_and_epoch_alone(count: int, seed: int, epoch: int) -> None:
    order = list(CorpusSampler(range(count), seed, epoch))
    assert sorted(order) == list(range(count))
    later = CorpusSampler(range(count), seed)
    later.set_epoch(epoch)
    assert list(later) == order
    parts = [list(CorpusSampler(range(count), seed, epoch, rank=rank, replicas=3)) for rank in range(3)]
    assert len({len(part) for part in parts}) == 1
    assert len(set().union(*parts)) == 3 * (count // 3)


def test_seeds_and_epochs_differ() -> None:
    orders = {tuple(CorpusSampler(range(50), seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    # Each item is first about as often as any other.
    first = [next(iter(CorpusSampler(range(5), seed=0, epoch=epoch))) for epoch in range(500)]
    assert np.bincount(first, minlength=5).min() > 60


class Shards:
    """As much of a dataset as a sampler looks at."""

    def __init__(self, samples: int, slots: int) -> None:
        self.samples = np.arange(samples)
        self.chunks = type("Chunks", (), {"layout": type("Layout", (), {"samples_per_shard": slots})})

    def __len__(self) -> int:
        return len(self.samples)


@given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_by_shards_only_a_few_are_open_at_a_time(samples: int, slots: int, mixed: int) -> None:
    order = np.array(list(CorpusSampler(Shards(samples, slots), 1, order="shards", mixed=mixed)))
    assert sorted(order.tolist()) == list(range(samples))
    shards = order // slots
    for shard in np.unique(shards):
        where = np.flatnonzero(shards == shard)
        assert len(np.unique(shards[where[0] : where[-1] + 1])) <= mixed


def test_orders_that_do_not_exist_are_refused(corpus: xr.Dataset) -> None:
    with pytest.raises(InputError, match="order='sideways'"):
        CorpusSampler(range(3), order="sideways")
    with pytest.raises(InputError, match="have no shards"):
        CorpusSampler(range(3), order="shards")
    with pytest.raises(InputError, match="rank=2 of replicas=2"):
        CorpusSampler(range(3), rank=2, replicas=2)
    assert list(CorpusSampler(range(3), order="sorted")) == [0, 1, 2]
    with pytest.raises(TypeError, match="called workers="):
        loader(PatchDataset(corpus), 5, num_workers=2)
    drawn = loader(PatchDataset(corpus), 5, order="shards", seed=1)
    assert sorted(number for batch in drawn for number in batch["sample"].tolist()) == list(range(12))


def distance_m(one: dict, two: dict) -> float:
    geod = pyproj.Geod(a=6_371_008.8, f=0)
    return float(geod.inv(one["lon"], one["lat"], two["lon"], two["lat"])[2])


def test_neighbours_are_near_and_the_distant_are_far(corpus: xr.Dataset) -> None:
    data = TripletDataset(corpus, near_m=4_000, far_m=100_000, seed=1)
    assert 8 not in data.samples  # the one by itself
    seen: set[int] = set()
    for epoch in range(8):
        data.set_epoch(epoch)
        for item in data:
            assert item["anchor"]["sample"] != item["neighbour"]["sample"]
            assert distance_m(item["anchor"], item["neighbour"]) <= 4_000 * 1.001
            assert distance_m(item["anchor"], item["distant"]) > 100_000 * 0.999
            seen.add(item["distant"]["sample"])
    assert seen == set(range(12))


def test_neighbours_are_no_twins(corpus: xr.Dataset, tmp_path: Path) -> None:
    data = TripletDataset(corpus, near_m=4_000, far_m=100_000, seed=1)
    for epoch in range(8):
        data.set_epoch(epoch)
        assert all(item["anchor"]["id"] != item["neighbour"]["id"] for item in data)
    # Three of each: the two nearest of any are its twins, and of the last place they are all there is.
    lon = np.repeat([3.0, 3.01, 8.0], 3)
    make_store(tmp_path / "c.zarr", samples=9, lon=lon, id=np.repeat(["a", "b", "c"], 3))
    triples = TripletDataset(open_corpus(tmp_path / "c.zarr"), near_m=2_000, far_m=100_000)
    assert triples.samples.tolist() == list(range(6))
    assert {(item["anchor"]["id"], item["neighbour"]["id"]) for item in triples} == {("a", "b"), ("b", "a")}


def test_the_order_moves_on_what_is_drawn(corpus: xr.Dataset) -> None:
    data = TripletDataset(corpus, near_m=4_000, far_m=100_000)
    batches = loader(data, 4, seed=0)
    first = [data.drawn(at) for at in range(len(data))]
    batches.sampler.sampler.set_epoch(1)
    second = [data.drawn(at) for at in range(len(data))]
    assert second != first
    data.set_epoch(1)
    assert [data.drawn(at) for at in range(len(data))] == second


def test_triplets_hang_on_seed_and_epoch_and_not_on_who_draws_them(corpus: xr.Dataset) -> None:
    def drawn(epoch: int, seed: int = 1, **options: object) -> list[list[int]]:
        data = TripletDataset(corpus, near_m=4_000, far_m=100_000, seed=seed)
        data.set_epoch(epoch)
        batches = loader(data, 4, seed=0, **options)  # type: ignore[arg-type]
        return [batch[role]["sample"].tolist() for batch in batches for role in ("anchor", "neighbour", "distant")]

    first = drawn(0)
    assert drawn(0, workers=2) == first
    assert drawn(1) != first
    assert drawn(0, seed=2) != first


def test_workers_that_live_on_hear_of_a_new_epoch(corpus: xr.Dataset) -> None:
    data = TripletDataset(corpus, near_m=4_000, far_m=100_000)
    batches = loader(data, 11, order="sorted", workers=1, persistent_workers=True)

    def distant() -> list[int]:
        return [number for batch in batches for number in batch["distant"]["sample"].tolist()]

    data.set_epoch(0)
    first = distant()
    data.set_epoch(1)
    assert distant() != first
    data.set_epoch(0)
    assert distant() == first


def test_triplets_that_cannot_be_are_said(corpus: xr.Dataset) -> None:
    with pytest.raises(InputError, match="lies beyond"):
        TripletDataset(corpus, near_m=10, far_m=5)
    with pytest.raises(NothingFoundError, match=r"0 of 12 have a neighbour"):
        TripletDataset(corpus, near_m=10, far_m=5_000)
    with pytest.raises(NothingFoundError, match="0 something that far away"):
        TripletDataset(corpus, near_m=4_000, far_m=5_000_000)
    with pytest.raises(NothingFoundError, match="Three samples at least"):
        TripletDataset(corpus.isel(sample=[0, 1]), near_m=1, far_m=5)


def test_far_is_found_even_where_it_is_rare(corpus: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepsentinel.tensors.pairs.DRAWS", 0)
    data = TripletDataset(corpus, near_m=4_000, far_m=100_000)
    assert all(distance_m(item["anchor"], item["distant"]) > 99_900 for item in data)


def test_two_sensors_are_two_views(corpus: xr.Dataset) -> None:
    data = ViewDataset(corpus, "sensors")
    whole = PatchDataset(corpus)
    assert len(data) == 12
    item = data[3]
    assert "s1" not in item["one"]
    assert "s2" not in item["two"]
    np.testing.assert_array_equal(item["one"]["s2"].numpy(), whole[3]["s2"].numpy())
    np.testing.assert_array_equal(item["two"]["s1"].numpy(), whole[3]["s1"].numpy())
    assert item["one"]["sample"] == item["two"]["sample"] == 3
    assert data[[0, 1]]["two"]["s1"].shape[0] == 2
    with pytest.raises(InputError, match="here s1 is missing"):
        ViewDataset(corpus, "sensors", bands=["B02"])


def test_twins_have_one_id_and_dates_one_place(corpus: xr.Dataset) -> None:
    twins = ViewDataset(corpus, "twins")
    assert sorted((item["one"]["id"], item["two"]["id"]) for item in twins) == [("a", "a"), ("b", "b"), ("c", "c")]
    assert all(item["one"]["sample"] != item["two"]["sample"] for item in twins)
    dates = ViewDataset(corpus, "dates", seed=4)
    pairs = set()
    for epoch in range(6):
        dates.set_epoch(epoch)
        for item in dates:
            one, two = item["one"]["sample"], item["two"]["sample"]
            assert PLACES[one] == PLACES[two]
            assert TWINS[one] != TWINS[two], "two sources of one date are no two dates"
            pairs.add((one, two))
    assert {(0, 2), (2, 0), (9, 11), (11, 9)} == pairs
    with pytest.raises(InputError, match="views='colours'"):
        ViewDataset(corpus, "colours")
    with pytest.raises(NothingFoundError, match=r"No two samples .* 'id'"):
        ViewDataset(corpus.isel(sample=[0, 3]), "twins")


def test_views_come_through_workers(corpus: xr.Dataset, tmp_path: Path) -> None:
    data = ViewDataset(corpus, "twins", seed=2)
    alone, many = (list(loader(data, 2, workers=workers)) for workers in (0, 2))
    assert [batch["two"]["sample"].tolist() for batch in alone] == [batch["two"]["sample"].tolist() for batch in many]
