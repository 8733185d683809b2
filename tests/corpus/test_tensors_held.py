"""What a Dataset holds is what is learnt from: computed, loaded, added and dropped arrays, and parts of the store's."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from store_kit import COORDS, SIZE, make_store

torch = pytest.importorskip("torch")

from deepsentinel.corpus.held import held_array, packed  # noqa: E402
from deepsentinel.corpus.store import open_corpus  # noqa: E402
from deepsentinel.errors import InputError  # noqa: E402
from deepsentinel.tensors import PatchDataset, loader, resident  # noqa: E402

LABELS = ["crops_class_map", "scl", "angle"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("held") / "c.zarr"
    return folder, make_store(folder)


@pytest.fixture
def corpus(stored: tuple[Path, dict[str, np.ndarray]]) -> xr.Dataset:
    return open_corpus(stored[0])


@pytest.fixture
def raw(stored: tuple[Path, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return stored[1]


def test_what_was_computed_is_read_and_what_was_not_comes_from_the_files(corpus, raw) -> None:
    corpus["s2"] = corpus.s2 // 2
    corpus["s1"] = corpus.s1 + 1.5  # in dB
    corpus["crops_class_map"] = corpus.crops_class_map.where(corpus.crops_class_map != 2)  # floats with NaN
    data = PatchDataset(corpus, labels=LABELS)
    assert [held_array(corpus, name).stored for name in ("s2", "s1", "crops_class_map", "scl")] == [False] * 3 + [True]
    for item, at in ((data[3], 3), (data[[8, 3]], [8, 3])):
        np.testing.assert_array_equal(item["s2"].numpy(), raw["s2"][at] // 2)
        shifted = np.where(raw["s1"][at] == -32768, -32768, raw["s1"][at].astype(int) + 150)
        np.testing.assert_array_equal(item["s1"].numpy(), shifted)
        np.testing.assert_array_equal(item["crops_class_map"].numpy(), raw["crops_class_map"][at] % 2)
        np.testing.assert_array_equal(item["scl"].numpy(), raw["scl"][at])
        assert [item[name].dtype for name in ("s2", "s1", "crops_class_map")] == [
            torch.uint16, torch.int16, torch.uint8,
        ]  # fmt: skip
    item = data[3]
    item["s2"].fill_(7)
    np.testing.assert_array_equal(data[3]["s2"].numpy(), raw["s2"][3] // 2)


def test_loading_chunking_and_copying_change_nothing(corpus, raw) -> None:
    pytest.importorskip("dask")
    expected = PatchDataset(corpus, labels=LABELS)[[7, 0, 7]]
    for other in (corpus.copy(deep=True), corpus.load(), corpus.chunk({"sample": 3}), corpus.transpose(..., "sample")):
        found = PatchDataset(other, labels=LABELS)[[7, 0, 7]]
        for name in ("s2", "s1", *LABELS):
            assert torch.equal(found[name].to(torch.int64), expected[name].to(torch.int64)), name
            assert found[name].dtype == expected[name].dtype


@pytest.mark.parametrize("loaded", [False, True])
def test_parts_are_the_parts_that_were_chosen(corpus, raw, loaded: bool) -> None:
    part = corpus.isel(sample=[8, 2, 5], y=slice(4, 12), x=slice(0, 8)).sel(s2_band=["B8A", "B02"])
    part = part.load() if loaded else part
    assert held_array(part, "s2").stored is not loaded
    data = PatchDataset(part, labels=["scl"])
    assert data.bands == {"s2": ["B8A", "B02"], "s1": ["VV", "VH"]}
    np.testing.assert_array_equal(data[1]["s2"].numpy(), raw["s2"][2][[2, 0], 4:12, :8])
    np.testing.assert_array_equal(data[[2, 0]]["s1"].numpy(), raw["s1"][[5, 8]][:, :, 4:12, :8])
    np.testing.assert_array_equal(data[[2, 0]]["scl"].numpy(), raw["scl"][[5, 8]][:, 4:12, :8])
    only = PatchDataset(part, bands=["B02"])
    np.testing.assert_array_equal(only[0]["s2"].numpy(), raw["s2"][8][[0], 4:12, :8])
    assert resident(data, "cpu")[[1]]["s2"].shape == (1, 2, 8, 8)


def test_what_was_dropped_is_not_there_and_what_was_added_is(corpus, raw) -> None:
    bare = corpus.drop_vars("s1")
    assert PatchDataset(bare).bands == {"s2": COORDS["s2_band"]}
    with pytest.raises(InputError, match="no band 'VV'"):
        PatchDataset(bare, bands=["VV"])
    with pytest.raises(InputError, match="no array 'scl'"):
        PatchDataset(corpus.drop_vars("scl"), labels=["scl"])
    mine = (raw["scl"] > 5).astype("int64") * 300
    corpus["mine_class_map"] = ("sample", "y", "x"), mine
    corpus["half"] = ("sample", "y", "x"), mine / 600
    corpus["odd"] = ("y", "x"), mine[0]
    item = PatchDataset(corpus.isel(sample=slice(4, 9)), labels=["mine_class_map", "half"])[2]
    np.testing.assert_array_equal(item["mine_class_map"].numpy(), mine[6])
    np.testing.assert_allclose(item["half"].numpy(), mine[6] / 600)
    with pytest.raises(InputError, match="not 'sample'"):
        PatchDataset(corpus, labels=["odd"])
    bare["s1"] = ("sample", "s1_band", "y", "x"), np.full((10, 2, SIZE, SIZE), -12.345, "float32")
    assert PatchDataset(bare)[0]["s1"].unique().tolist() == [-1234]


def test_two_samples_of_one_number_keep_their_own_pixels(corpus, raw) -> None:
    dark = corpus.isel(sample=[4])
    dark["s2"] = dark.s2 * 0
    both = xr.concat([corpus.isel(sample=[4]), dark], "sample", data_vars="all")
    found = PatchDataset(both)[[0, 1]]["s2"].numpy()
    np.testing.assert_array_equal(found[0], raw["s2"][4])
    assert not found[1].any()


def test_numbers_that_would_be_lost_are_refused(corpus) -> None:
    for name, values, why in (
        ("s2", corpus.s2 / 10_000, "holds numbers such as 0"),
        ("s2", corpus.s2.astype("float32") - 9_000, "does not go into uint16 of reflectance x 10000"),
        ("s1", 10 ** (corpus.s1 / 10) * 1e6, "does not go into int16 of dB"),
        ("crops_class_map", corpus.crops_class_map * 0.4, "codes of type uint8"),
    ):
        data = PatchDataset(corpus.assign({name: values}), labels=["crops_class_map"])
        with pytest.raises(InputError, match=why):
            data[0]
    with pytest.raises(InputError, match="masks hold whole numbers"):
        PatchDataset(corpus.assign(words=corpus.scl.astype(str)), labels=["words"])


def test_packing_gives_back_every_number_that_is_stored(corpus) -> None:
    spec = held_array(corpus, "s1").spec
    every = np.arange(-32768, 32768).astype("int16")
    decoded = np.where(every == -32768, np.nan, every * np.float32(0.01)).astype("float32")
    np.testing.assert_array_equal(packed(decoded, spec), every)


def test_what_is_in_memory_goes_to_workers(corpus, raw) -> None:
    corpus["s2"] = corpus.s2 // 2
    data = pickle.loads(pickle.dumps(PatchDataset(corpus)))
    for batch in (data[[6]], *loader(data, 10, order="sorted", workers=1)):
        numbers = batch["sample"].numpy()
        np.testing.assert_array_equal(batch["s2"].numpy(), raw["s2"][numbers] // 2)
