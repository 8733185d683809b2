"""Patches as tensors: the numbers of the store, in any process, as integers or as what they stand for."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from build_kit import half_built
from store_kit import SIZE, layout, make_store, pixels, series_store, table, write_shards

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from deepsentinel.corpus.layout import create_store, shard_path  # noqa: E402
from deepsentinel.corpus.store import open_corpus, patch_of  # noqa: E402
from deepsentinel.errors import DeepSentinelWarning, InputError, NothingFoundError, ReadError  # noqa: E402
from deepsentinel.tensors import (  # noqa: E402
    PatchDataset,
    SeriesDataset,
    collate,
    collate_series,
    loader,
    physical,
    resident,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    folder = tmp_path_factory.mktemp("tensors") / "c.zarr"
    make_store(folder)
    return open_corpus(folder)


def same(one: dict, two: dict) -> None:
    assert list(one) == list(two)
    for name, values in one.items():
        if isinstance(values, dict):
            same(values, two[name])
        elif isinstance(values, torch.Tensor):
            assert values.dtype == two[name].dtype, name
            np.testing.assert_array_equal(values.cpu().numpy(), two[name].cpu().numpy())
        else:
            assert values == two[name], name


def test_raw_is_what_is_stored(corpus: xr.Dataset) -> None:
    data = pixels()
    dataset = PatchDataset(corpus, labels=["crops_class_map", "scl"])
    assert len(dataset) == 10
    assert dataset.bands == {"s2": ["B02", "B03", "B8A"], "s1": ["VV", "VH"]}
    item = dataset[7]
    assert (item["s2"].dtype, item["s1"].dtype, item["scl"].dtype) == (torch.uint16, torch.int16, torch.uint8)
    for name in ("s2", "s1", "scl", "crops_class_map"):
        np.testing.assert_array_equal(item[name].numpy(), data[name][7])
    assert item["id"] == "p7"
    assert item["sample"] == 7
    assert (item["doy"], item["year"]) == (128, 2018)
    assert item["lon"] == pytest.approx(3.28)
    assert item["lat"] == 45


def test_physical_is_what_a_patch_has(corpus: xr.Dataset) -> None:
    dataset = PatchDataset(corpus, values="physical", labels=["cover_class_map"])
    for number in (0, 9):
        item, patch = dataset[number], patch_of(corpus, number)
        assert item["s2"].dtype == item["s1"].dtype == torch.float32
        assert item["cover_class_map"].dtype == torch.int64
        for at, band in enumerate(("VV", "VH")):
            np.testing.assert_allclose(item["s1"][at].numpy(), patch[band].to_numpy(), rtol=1e-6)
        wanted = patch.B8A.to_numpy().astype(float) / 10_000
        np.testing.assert_allclose(item["s2"][2].numpy(), np.where(wanted == 0, np.nan, wanted), rtol=1e-6)
    angle = PatchDataset(corpus, values="physical", labels=["angle"])[4]["angle"]
    np.testing.assert_allclose(angle.numpy(), patch_of(corpus, 4).angle.to_numpy(), rtol=1e-6)
    filled = PatchDataset(corpus, values="physical", fill=0)[0]
    assert not filled["s1"].isnan().any()
    assert (filled["s1"][:, :3] == 0).all()


def test_raw_made_physical_later_is_the_same(corpus: xr.Dataset) -> None:
    raw, floats = (PatchDataset(corpus, values=values, labels=["scl"]) for values in ("raw", "physical"))
    same(physical(raw[3]), floats[3])
    same(physical(raw[[3, 1]]), floats[[3, 1]])
    filled = PatchDataset(corpus, values="physical", fill=-1.0, labels=["scl"])
    same(physical(raw[[3, 1]], fill=-1.0), filled[[3, 1]])
    assert raw[0]["s2"].dtype == torch.uint16


def test_only_pixels_are_measured_in_reflectance_and_db() -> None:
    counts = torch.tensor([0, 231], dtype=torch.int16)
    names = ("s2_class_map", "s2_landcover_class_map", "scl", "s2_doy", "s2_length", "s1_year")
    kept = physical(dict.fromkeys(names, counts) | {"s2_mask": counts > 0})
    for name in names:
        assert kept[name].tolist() == [0, 231], name
    assert kept["s2_mask"].tolist() == [False, True]
    for name in ("s2", "s2_10m", "s2_20m", "s2_60m"):
        assert physical({name: counts})[name][1].item() == pytest.approx(0.0231), name


def test_on_another_device_integers_become_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = torch.tensor([[-32768, -1234], [-1, -3000]], dtype=torch.int16)
    here = physical({"s1": raw})["s1"]
    from deepsentinel.tensors import patches

    # What a GPU would do, done by torch here.
    monkeypatch.setattr(patches, "_is_here", lambda values: False)
    there = physical({"s1": raw})["s1"]
    np.testing.assert_array_equal(here.numpy(), there.numpy())
    assert here[0, 0].isnan()


def test_bands_are_chosen_by_name_in_the_order_of_their_names(corpus: xr.Dataset) -> None:
    whole, part = PatchDataset(corpus), PatchDataset(corpus, bands=["B8A", "VV", "B02"])
    assert part.bands == {"s2": ["B8A", "B02"], "s1": ["VV"]}
    np.testing.assert_array_equal(part[4]["s2"].numpy(), whole[4]["s2"].numpy()[[2, 0]])
    np.testing.assert_array_equal(part[[4, 5]]["s1"].numpy(), whole[[4, 5]]["s1"].numpy()[:, [0]])
    assert "s1" not in PatchDataset(corpus, bands=["B03"])[0]
    for bands, message in (
        (["B99"], "'B99', which is no band"),
        (["B11"], "no band 'B11'; it has B02"),
        ([], "names no"),
    ):
        with pytest.raises(InputError, match=message):
            PatchDataset(corpus, bands=bands)
    with pytest.raises(InputError, match="bands='B02' is one text"):
        PatchDataset(corpus, bands="B02")


def test_a_part_of_a_corpus_in_its_order(corpus: xr.Dataset) -> None:
    dataset = PatchDataset(corpus.isel(sample=[8, 2, 5]))
    assert [dataset[at]["sample"] for at in range(3)] == [8, 2, 5]
    assert dataset.samples.tolist() == [8, 2, 5]
    np.testing.assert_array_equal(dataset[-1]["s2"].numpy(), pixels()["s2"][5])
    with pytest.raises(IndexError):
        dataset[3]


def test_samples_of_several_corpora_are_not_read_from_one(corpus: xr.Dataset, tmp_path: Path) -> None:
    make_store(tmp_path / "other.zarr", id=[f"q{at}" for at in range(10)])
    make_store(tmp_path / "twins.zarr", source="elsewhere")
    make_store(tmp_path / "elsewhere.zarr", lon=np.arange(10.0))
    for name in ("other", "twins", "elsewhere"):
        other = open_corpus(tmp_path / f"{name}.zarr")
        with pytest.raises(InputError, match=r"10 of these 20 samples, such as number \d, .*ConcatDataset"):
            PatchDataset(xr.concat([corpus, other], "sample", combine_attrs="override"))
        joined = torch.utils.data.ConcatDataset([PatchDataset(corpus), PatchDataset(other)])
        assert joined[13]["id"] == other.id.values[3]
        batches = DataLoader(joined, batch_size=20, collate_fn=collate)
        assert next(iter(batches))["sample"].tolist() == 2 * list(range(10))
    make_store(tmp_path / "longer.zarr", samples=12)
    with pytest.raises(InputError, match="1 of these 1 samples, such as number 11"):
        longer = open_corpus(tmp_path / "longer.zarr").isel(sample=[11])
        PatchDataset(longer.assign_attrs(path=corpus.attrs["path"]))
    assert len(PatchDataset(xr.concat([corpus.isel(sample=[7]), corpus.isel(sample=[2])], "sample"))) == 2


def test_a_batch_is_its_samples_stacked(corpus: xr.Dataset) -> None:
    for values in ("raw", "physical"):
        dataset = PatchDataset(corpus, values=values, labels=["scl"])
        same(dataset[[9, 0, 4]], collate([dataset[9], dataset[0], dataset[4]]))
        assert dataset[np.array([1, 2])]["s2"].shape == (2, 3, SIZE, SIZE)


def test_what_cannot_be_asked_for(corpus: xr.Dataset) -> None:
    with pytest.raises(InputError, match="values='float' is not known"):
        PatchDataset(corpus, values="float")
    with pytest.raises(InputError, match="fill= is for values='physical'"):
        PatchDataset(corpus, fill=0)
    with pytest.raises(InputError, match="no array 'rice'; it has"):
        PatchDataset(corpus, labels=["rice"])
    with pytest.raises(InputError, match="no corpus"):
        PatchDataset(xr.Dataset())
    with pytest.raises(InputError, match="single dates"):
        SeriesDataset(corpus)
    with pytest.raises(NothingFoundError, match="no sample in this part"):
        PatchDataset(corpus.isel(sample=[]))


def test_samples_that_failed_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "c.zarr"
    create_store(folder, layout())
    with pytest.raises(NothingFoundError, match="10 not built yet"):
        PatchDataset(half_built(folder))
    write_shards(folder, layout(), pixels(), bad=[3])
    rows = table().iloc[:8].copy()
    rows.loc[3, ["status", "reason"]] = "failed", "gone"
    (folder / "parts").mkdir()
    rows.to_parquet(folder / "parts" / "000000.parquet")
    with pytest.warns(DeepSentinelWarning, match="3 of 10 samples are left out: 1 failed, 2 not built yet") as said:
        dataset = PatchDataset(half_built(folder))
    assert len(said) == 1
    list(dataset)  # and not again
    assert dataset.samples.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert dataset.positions.tolist() == [0, 1, 2, 4, 5, 6, 7]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_give_what_one_process_gives(corpus: xr.Dataset, start: str) -> None:
    dataset = PatchDataset(corpus, labels=["scl"])
    dataset[0]  # what this process remembers of the files must not be in the way of the others
    alone = list(loader(dataset, 4, seed=5))
    many = list(loader(dataset, 4, seed=5, workers=2, multiprocessing_context=start))
    assert len(alone) == len(many) == 3
    for one, two in zip(alone, many, strict=True):
        same(one, two)


def test_a_plain_loader_works_too(corpus: xr.Dataset) -> None:
    dataset = PatchDataset(corpus, labels=["scl"])
    plain = list(DataLoader(dataset, batch_size=4, num_workers=1, collate_fn=collate))
    same(plain[1], dataset[[4, 5, 6, 7]])


def test_torchs_own_collate_works_too(corpus: xr.Dataset) -> None:
    dataset = PatchDataset(corpus, values="physical")
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    same({"s1": batch["s1"], "id": batch["id"]}, {name: dataset[[0, 1, 2]][name] for name in ("s1", "id")})


def test_a_damaged_sample_names_itself_in_a_worker(tmp_path: Path) -> None:
    make_store(tmp_path / "c.zarr")
    file = shard_path(tmp_path / "c.zarr", layout().arrays[0], 0)
    file.write_bytes(b"\xff" + file.read_bytes()[1:])
    dataset = PatchDataset(open_corpus(tmp_path / "c.zarr"))
    with pytest.raises(ReadError, match=r"Sample 0 of array 's2' cannot be read from .*s2/c/0"):
        next(iter(loader(dataset, 10, order="sorted", workers=1)))
    dataset[1]


def test_a_dataset_is_small_to_send_and_holds_no_file_open(corpus: xr.Dataset) -> None:
    dataset = PatchDataset(corpus)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.is_dir() else 0
    for number in range(10):
        dataset[number]
    if descriptors.is_dir():
        assert len(list(descriptors.iterdir())) == before
    assert len(pickle.dumps(dataset)) < 20_000


def test_what_stays_on_a_device_gives_the_same_batches(corpus: xr.Dataset) -> None:
    for options in ({}, {"values": "physical", "fill": 0.0}):
        dataset = PatchDataset(
            corpus.isel(sample=[9, 1, 4, 5, 0]), bands=["B8A", "VV", "VH"], labels=["scl"], **options
        )
        held = resident(dataset, "cpu")
        assert len(held) == 5
        same(held[[3, 0]], dataset[[3, 0]])
        for one, two in zip(held.batches(2, seed=3, epoch=1), loader(dataset, 2, seed=3, epoch=1), strict=True):
            same(one, two)
        assert held.nbytes > 5 * 3 * SIZE * SIZE * 2
    assert len(list(held.batches(2, drop_last=True))) == 2
    with pytest.raises(IndexError):
        held[5]


def test_what_does_not_fit_on_a_device_is_said_before_it_is_read(
    corpus: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepsentinel.tensors.on_device.free_bytes", lambda device: 1000.0)
    with pytest.raises(InputError, match=r"10 samples take 0.0 GB and cpu has 0.0 GB free"):
        resident(PatchDataset(corpus), "cpu")
    with pytest.raises(InputError, match="takes a PatchDataset"):
        resident([1, 2], "cpu")  # type: ignore[arg-type]


LENGTHS = [(3, 5), (1, 2), (4, 1), (2, 2), (3, 3)]


def test_series_are_as_long_as_they_are_and_padded_in_a_batch(tmp_path: Path) -> None:
    data = series_store(tmp_path / "c.zarr", LENGTHS)
    dataset = SeriesDataset(open_corpus(tmp_path / "c.zarr"), bands=["B03", "VV"])
    for number, (optical, radar) in enumerate(LENGTHS):
        item = dataset[number]
        assert (len(item["s2"]), len(item["s1"])) == (optical, radar)
        assert (item["s2_length"], item["s1_length"]) == (optical, radar)
        np.testing.assert_array_equal(item["s2"].numpy(), data["s2"][number, :optical, [1]].swapaxes(0, 1))
        assert item["s2_doy"].tolist() == [91 + 5 * step for step in range(optical)]
        assert item["s1_year"].tolist() == [2018] * radar
    batch = dataset[[1, 0, 3]]
    assert batch["s2"].shape == (3, 3, 1, SIZE, SIZE)
    assert batch["s1"].shape == (3, 5, 1, SIZE, SIZE)
    assert batch["s2_length"].tolist() == [1, 3, 2]
    assert batch["s2_mask"].tolist() == [[True, False, False], [True, True, True], [True, True, False]]
    assert batch["s1_doy"].tolist()[2] == [91, 96, 0, 0, 0]
    assert (batch["s2"].int()[~batch["s2_mask"]] == 0).all()
    for row, number in enumerate((1, 0, 3)):
        length = LENGTHS[number][0]
        np.testing.assert_array_equal(batch["s2"][row, :length].numpy(), dataset[number]["s2"].numpy())
    same(collate_series([dataset[1], dataset[0], dataset[3]]), batch)
    floats = SeriesDataset(open_corpus(tmp_path / "c.zarr"), values="physical", fill=0)[[0, 1]]
    assert not floats["s1"].isnan().any()
    workers = list(loader(dataset, 2, order="sorted", workers=1))
    same(workers[0], dataset[[0, 1]])


def test_far_away_it_is_the_same(corpus: xr.Dataset) -> None:
    pytest.importorskip("obstore")
    from deepsentinel.corpus.remote import open_remote

    store, folder = open_remote("memory://test-tensors"), Path(corpus.attrs["path"])
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(str(path.relative_to(folder)), path.read_bytes())
    far = PatchDataset(open_corpus("memory://test-tensors"), labels=["scl"])
    near = PatchDataset(corpus, labels=["scl"])
    same(far[3], near[3])
    same(far[[9, 0, 1, 5]], near[[9, 0, 1, 5]])
