"""Shards as we write them: zarr reads them and writes the same bytes; what is damaged is found."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from store_kit import S1, S2, layout, pixels, write_shards

from deepsentinel.corpus.layout import DTYPES, ArraySpec, create_store, shard_path
from deepsentinel.corpus.shards import checksum, decode, encode, index_bytes, read_raw, write_shard
from deepsentinel.errors import InputError, ReadError


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_encoded_comes_back(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    values = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=4, max_side=9)))
    spec = ArraySpec("a", dtype, ("sample", *"abcd"[: values.ndim]), values.shape, 0)
    chunk = encode(values, spec)
    np.testing.assert_array_equal(decode(chunk, spec), values)
    # An independent reader: numcodecs' own codec, and the checksum behind it.
    plain = np.frombuffer(numcodecs.Blosc().decode(chunk[:-4]), dtype).reshape(values.shape)
    np.testing.assert_array_equal(plain, values)
    out = np.empty_like(values)
    assert decode(chunk, spec, out) is out


@given(st.lists(st.none() | st.binary(min_size=1, max_size=40), min_size=1, max_size=20), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_chunks_come_back_from_a_shard_with_and_without_the_number_of_slots(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes | None], more: int
) -> None:
    file = tmp_path_factory.mktemp("shard") / "0"
    write_shard(file, chunks, sync=False, slots=len(chunks) + more)
    wanted = chunks + [None] * more
    assert read_raw(file, len(wanted)) == wanted
    assert read_raw(file) == wanted
    assert file.stat().st_size == sum(len(chunk) for chunk in chunks if chunk) + index_bytes(len(wanted))


def test_plain_zarr_reads_a_store_and_would_have_written_the_same_bytes(tmp_path: Path) -> None:
    found, data = layout(), pixels()
    create_store(tmp_path / "ours", found)
    write_shards(tmp_path / "ours", found, data)
    create_store(tmp_path / "theirs", found)
    for spec in found.arrays:
        ours = zarr.open_array(tmp_path / "ours" / spec.name, mode="r")
        np.testing.assert_array_equal(ours[:], data[spec.name])
        np.testing.assert_array_equal(ours[3], data[spec.name][3])
        theirs = zarr.open_array(tmp_path / "theirs" / spec.name, mode="r+")
        theirs[:] = data[spec.name]
        for shard in range(found.shards):
            written = shard_path(tmp_path / "theirs", spec, shard).read_bytes()
            assert shard_path(tmp_path / "ours", spec, shard).read_bytes() == written, (spec.name, shard)


def test_a_missing_sample_is_fill_for_zarr_and_can_be_filled_in_from_the_old_chunks(tmp_path: Path) -> None:
    found, data = layout(), pixels()
    create_store(tmp_path, found)
    write_shards(tmp_path, found, data, bad=[1, 9])
    array = zarr.open_array(tmp_path / "s1", mode="r")
    assert (array[1] == -32768).all()
    assert (array[9] == -32768).all()
    np.testing.assert_array_equal(array[8], data["s1"][8])
    file = shard_path(tmp_path, S1, 0)
    chunks = read_raw(file)
    assert [chunk is None for chunk in chunks] == [False, True, False, False]
    write_shard(file, [chunk or encode(data["s1"][1], S1) for chunk in chunks])
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "s1", mode="r")[:9], data["s1"][:9])


def test_bytes_are_the_same_from_any_thread_and_any_number_of_them() -> None:
    values = np.random.default_rng(0).integers(0, 4000, (12, 256, 256)).astype("uint16")
    values[:, :, :128].sort(axis=-1)
    spec = ArraySpec("s2", "uint16", S2.dims, values.shape, 0)
    first = encode(values, spec)
    assert threading.current_thread() is threading.main_thread()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: encode(values, spec), range(16))) == {first}
    before = numcodecs.blosc.set_nthreads(8)
    try:
        # With the eight threads that Blosc now has, one in twenty would differ.
        assert {encode(values, spec) for _ in range(100)} == {first}
    finally:
        numcodecs.blosc.set_nthreads(before)
    assert encode(np.asfortranarray(values), spec) == first


@pytest.mark.parametrize("threads", [None, True, False])
def test_how_others_use_blosc_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch, threads: bool | None) -> None:
    monkeypatch.setattr(numcodecs.blosc, "use_threads", threads)
    chunk = encode(pixels(1)["s1"][0], S1)
    garbage = chunk[:16] + bytes(400)
    with pytest.raises(ReadError, match="decompressed"):
        decode(garbage + checksum(garbage), S1)
    assert numcodecs.blosc.use_threads is threads


def test_a_sample_of_another_shape_or_type_is_refused() -> None:
    with pytest.raises(InputError, match="this one is int16"):
        encode(np.zeros(S2.shape, "int16"), S2)
    with pytest.raises(InputError, match=r"\(3, 16, 15\)"):
        encode(np.zeros((3, 16, 15), "uint16"), S2)


@given(st.integers(0, 10_000), st.integers(1, 255))
@settings(max_examples=80, deadline=None)
def test_any_changed_byte_of_a_chunk_is_found(at: int, change: int) -> None:
    chunk = bytearray(encode(pixels(1)["s1"][0], S1))
    chunk[at % len(chunk)] ^= change
    with pytest.raises(ReadError, match="checksum"):
        decode(bytes(chunk), S1)


@pytest.mark.parametrize("length", [0, 3, 4, 100])
def test_a_chunk_that_is_cut_off_is_found(length: int) -> None:
    with pytest.raises(ReadError, match="checksum"):
        decode(encode(pixels(1)["s1"][0], S1)[:length], S1)


def test_a_chunk_of_another_size_with_a_right_checksum_is_found() -> None:
    data = pixels(1)
    with pytest.raises(ReadError, match="holds 1536 bytes, and a sample has 1024"):
        decode(encode(data["s2"][0], S2), S1)
    with pytest.raises(ReadError, match="holds 1024 bytes, and a sample has 1536"):
        decode(encode(data["s1"][0], S1), S2)
    with pytest.raises(ReadError, match="holds 0 bytes"):
        decode(b"?" + checksum(b"?"), S2)
    garbage = encode(data["s2"][0], S2)[:16] + bytes(400)
    with pytest.raises(ReadError, match="cannot be decompressed"):
        decode(garbage + checksum(garbage), S2)


@pytest.mark.parametrize("cut", [1, 20, 70, 200])
def test_a_shard_that_is_cut_off_cannot_be_taken_for_whole(tmp_path: Path, cut: int) -> None:
    data = pixels(4)
    file = tmp_path / "0"
    write_shard(file, [encode(each, S1) for each in data["s1"]])
    file.write_bytes(file.read_bytes()[:-cut])
    for slots in (None, 4):
        with pytest.raises(ReadError, match=r"shard .*0 cannot be read"):
            read_raw(file, slots)


def test_an_index_that_points_beyond_the_file_is_no_index(tmp_path: Path) -> None:
    told = np.array([[0, 5000]], "<u8").tobytes()
    (tmp_path / "0").write_bytes(bytes(100) + told + checksum(told))
    for slots in (None, 1):
        with pytest.raises(ReadError, match="points beyond its end"):
            read_raw(tmp_path / "0", slots)


def test_the_checksum_is_the_published_one() -> None:
    # RFC 3720, appendix B.4: 32 bytes of zeros, and 32 of ones.
    assert checksum(bytes(32)) == bytes.fromhex("aa36918a")
    assert checksum(b"\xff" * 32) == bytes.fromhex("43aba862")


def test_a_full_disk_leaves_the_old_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "0"
    write_shard(file, [b"old!"])
    before = file.read_bytes()

    def full(data: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deepsentinel.corpus.shards.checksum", full)
    with pytest.raises(OSError, match="No space left"):
        write_shard(file, [b"new!"])
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
