"""What is damaged is named, to the file and the sample, and everything else still reads."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_kit import ARRAYS, MASK, S1, S2, layout, make_store, pixels, table, write_shards

from deepsentinel.corpus.checking import check_corpus
from deepsentinel.corpus.chunks import Chunks
from deepsentinel.corpus.layout import create_store, shard_path
from deepsentinel.corpus.shards import read_raw, write_shard
from deepsentinel.corpus.store import open_corpus, patch_of
from deepsentinel.errors import NothingFoundError, ReadError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_store(tmp_path / "c.zarr")
    return tmp_path / "c.zarr"


def flip(path: Path, at: int, change: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= change
    path.write_bytes(bytes(data))


def readable(folder: Path, name: str) -> list[int]:
    """The samples of an array that give the pixels they were written with."""
    chunks, data, found = Chunks(folder), pixels(), []
    for sample in range(10):
        said = ""
        try:
            np.testing.assert_array_equal(chunks.read(name, sample), data[name][sample])
            found.append(sample)
        except ReadError as error:
            said = str(error)
        if said:
            assert f"Sample {sample} of array '{name}' cannot be read from {folder}/{name}/c/{sample // 4}/" in said
            assert "check_corpus" in said
    return found


def test_a_whole_store_is_whole(folder: Path) -> None:
    report = check_corpus(folder)
    assert report.ok
    assert (report.samples, report.files, report.lost) == (10, 3 * len(ARRAYS), ())
    assert str(report) == f"{folder}: 10 samples in 18 files, all whole."
    assert report.frame().empty


def test_one_flipped_bit_costs_one_sample_of_one_array(folder: Path) -> None:
    file = shard_path(folder, S2, 1)
    first = len(read_raw(file)[0] or b"")
    flip(file, first + 100)
    assert readable(folder, "s2") == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert readable(folder, "s1") == list(range(10))
    report = check_corpus(folder)
    assert not report.ok
    assert report.lost == (5,)
    (damage,) = report.damage
    assert (damage.array, damage.shard, damage.samples, damage.file) == ("s2", 1, (5,), str(file))
    assert f"{file}: the checksum does not match (sample 5)" in str(report)
    assert report.frame().loc[0, "array"] == "s2"


def test_through_the_dataset_too(folder: Path) -> None:
    flip(shard_path(folder, S1, 2), 50)
    corpus = open_corpus(folder)
    with pytest.raises(ReadError, match=r"Sample 8 of array 's1' cannot be read from .*/s1/c/2/0/0/0: the checksum"):
        patch_of(corpus, 8)
    with pytest.raises(ReadError, match="Sample 8"):
        corpus.s1.load()
    whole = corpus.drop_sel(sample=list(check_corpus(folder).lost))
    assert np.isfinite(whole.s1.mean())
    patch_of(corpus, 9)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_shard_that_is_cut_off_loses_its_samples_and_no_others(folder: Path, keep: float) -> None:
    file = shard_path(folder, S1, 0)
    os.truncate(file, int(file.stat().st_size * keep))
    assert readable(folder, "s1") == [4, 5, 6, 7, 8, 9]
    report = check_corpus(folder)
    assert report.lost == (0, 1, 2, 3)
    assert {(damage.array, damage.shard) for damage in report.damage} == {("s1", 0)}


@given(st.sampled_from(ARRAYS), st.integers(0, 2), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_the_damage_is_the_report_and_the_reads_agree(
    folder: Path, spec: object, shard: int, where: float, change: int
) -> None:
    file = shard_path(folder, spec, shard)  # type: ignore[arg-type]
    at = int(file.stat().st_size * where)
    flip(file, at, change)
    try:
        lost = set(range(10)) - set(readable(folder, spec.name))  # type: ignore[attr-defined]
        assert lost
        assert lost <= set(layout().members(shard))
        assert set(check_corpus(folder, progress=False).lost) == lost
    finally:
        flip(file, at, change)
    assert check_corpus(folder, progress=False).ok


def test_what_is_gone_is_named(folder: Path) -> None:
    shard_path(folder, MASK, 0).unlink()
    chunks = read_raw(shard_path(folder, S2, 2))
    write_shard(shard_path(folder, S2, 2), [chunks[0], None, *chunks[2:]])
    (folder / "scl" / "zarr.json").unlink()
    (folder / "s2_band" / "c" / "0").write_bytes(b"?")
    said = {(damage.array, damage.shard): damage for damage in check_corpus(folder).damage}
    assert said["crops_class_map", 0].problem == "the file is missing"
    assert said["crops_class_map", 0].samples == (0, 1, 2, 3)
    assert said["s2", 2].samples == (9,)
    assert "does not hold them" in said["s2", 2].problem
    assert said["scl", None].problem == "it is missing"
    assert "is not what" in said["s2_band", None].problem
    assert len(said) == 4


def test_samples_that_failed_or_are_not_built_are_no_damage(tmp_path: Path) -> None:
    folder = tmp_path / "c.zarr"
    create_store(folder, layout())
    assert check_corpus(folder).ok
    write_shards(folder, layout(), pixels(), shards=[0, 1], bad=[5])
    (folder / "parts").mkdir()
    part = table().iloc[:8].copy()
    part.loc[5, ["status", "reason"]] = "failed", "gone"
    part.to_parquet(folder / "parts" / "000000.parquet")
    report = check_corpus(folder)
    assert report.ok
    assert report.samples == 7


def test_a_shard_that_is_gone_is_no_empty_sample(folder: Path) -> None:
    shard_path(folder, S2, 1).unlink()
    chunks, samples = Chunks(folder), [3, 5, 8]
    said = rf"Sample 5 of array 's2' cannot be read from {folder}/s2/c/1/0/0/0: the file is missing.*retry_failed=True"
    with pytest.raises(ReadError, match=said):
        chunks.read("s2", 5)
    with pytest.raises(ReadError, match=said):
        chunks.read_many("s2", samples)
    with pytest.raises(ReadError, match=said):
        patch_of(open_corpus(folder), 5)
    np.testing.assert_array_equal(chunks.read_many("s1", samples), pixels()["s1"][samples])
    assert readable(folder, "s2") == [0, 1, 2, 3, 8, 9]


def test_far_away_a_shard_that_is_gone_is_no_empty_sample(folder: Path) -> None:
    pytest.importorskip("obstore")
    from deepsentinel.corpus.remote import open_remote

    shard_path(folder, S2, 1).unlink()
    store = open_remote("memory://test-corpus-gone")
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(str(path.relative_to(folder)), path.read_bytes())
    chunks = Chunks("memory://test-corpus-gone")
    with pytest.raises(ReadError, match=r"Sample 5 of array 's2' .*/s2/c/1/0/0/0: the file is missing.*publish"):
        chunks.read_many("s2", [3, 5, 8])
    np.testing.assert_array_equal(chunks.read_many("s2", [3, 8]), pixels()["s2"][[3, 8]])


def test_what_failed_or_is_not_built_is_empty_until_it_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "c.zarr"
    create_store(folder, layout())
    chunks = Chunks(folder)
    assert not chunks.read_many("s2", range(10)).any()
    (folder / "parts").mkdir()
    part = table().iloc[4:8].copy()
    part.loc[5, ["status", "reason"]] = "failed", "gone"
    write_shards(folder, layout(), pixels(), shards=[1], bad=[5])
    part.to_parquet(folder / "parts" / "000001.parquet")
    found = chunks.read_many("s2", range(10))
    assert np.flatnonzero(found.any(axis=(1, 2, 3))).tolist() == [4, 6, 7]
    shard_path(folder, S2, 1).unlink()
    with pytest.raises(ReadError, match="Sample 6"):
        Chunks(folder).read("s2", 6)
    assert not Chunks(folder).read("s2", 5).any()


def test_a_torn_table_is_damage_and_the_pixels_are_checked_all_the_same(folder: Path) -> None:
    (folder / "samples.parquet").write_bytes(b"PAR1")
    flip(shard_path(folder, S2, 0), 10)
    report = check_corpus(folder)
    assert {damage.array for damage in report.damage} == {"samples", "s2"}
    assert report.lost == (0,)


def test_far_away_the_same_is_found(folder: Path) -> None:
    pytest.importorskip("obstore")
    from deepsentinel.corpus.remote import open_remote

    flip(shard_path(folder, S2, 1), 10)
    os.truncate(shard_path(folder, S1, 0), 500)
    store = open_remote("memory://test-corpus-corrupt")
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(str(path.relative_to(folder)), path.read_bytes())
    assert check_corpus("memory://test-corpus-corrupt").lost == check_corpus(folder).lost == (0, 1, 2, 3, 4)
    corpus = open_corpus("memory://test-corpus-corrupt")
    with pytest.raises(
        ReadError, match=r"Sample 4 of array 's2' cannot be read from memory://test-corpus-corrupt/s2/c/1"
    ):
        corpus.s2[4].load()
    np.testing.assert_array_equal(corpus.s2[5].values, pixels()["s2"][5])


def test_a_folder_that_is_no_corpus_is_not_checked(tmp_path: Path) -> None:
    with pytest.raises(NothingFoundError, match="no corpus"):
        check_corpus(tmp_path)
