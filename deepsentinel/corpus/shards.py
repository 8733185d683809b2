"""Shards: the files of a corpus, each holding the chunks of some neighbouring samples of one array.

A shard is the chunks one after another and at the end where each of them lies: 16 bytes a slot, two little-endian
integers (offset and length; both all ones for a sample that is missing), and a checksum. This is Zarr's codec
`sharding_indexed`; plain zarr reads what is written here. A shard is written whole or not at all, by one worker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from deepsentinel.errors import InputError, ReadError
from deepsentinel.files import atomic_path

from .layout import CLEVEL, ArraySpec

MISSING = 2**64 - 1
CHECKSUM_BYTES = 4
BLOSC_HEADER = 16
# More slots than anybody gives a shard; where the index of a file is looked for, it is not looked for beyond this.
MOST_SLOTS = 65536


def encode(values: np.ndarray, spec: ArraySpec) -> bytes:
    """One sample as a chunk: its bytes shuffled and compressed, and their checksum.

    >>> spec = ArraySpec("scl", "uint8", ("sample", "y", "x"), (8, 8), 0)
    >>> int(decode(encode(np.eye(8, dtype="uint8"), spec), spec).sum())
    8
    """
    if values.shape != spec.shape or values.dtype != np.dtype(spec.dtype):
        raise InputError(
            f"A sample of {spec.name!r} is {spec.dtype} of shape {spec.shape}; this one is {values.dtype} of"
            f" {values.shape}."
        )
    blosc = _blosc()
    plain = np.ascontiguousarray(values, np.dtype(spec.dtype).newbyteorder("<"))
    packed = bytes(_alone(blosc.compress, plain, b"lz4", CLEVEL, blosc.BITSHUFFLE, blosc.AUTOBLOCKS))
    return packed + checksum(packed)


def decode(data: bytes | np.ndarray, spec: ArraySpec, out: np.ndarray | None = None) -> np.ndarray:
    """The sample in a chunk, put into `out` where that is given; a chunk that was damaged is a `ReadError`."""
    target = np.empty(spec.shape, spec.dtype) if out is None else out
    view = np.frombuffer(data, "u1")
    body = view[:-CHECKSUM_BYTES]
    if len(view) <= CHECKSUM_BYTES or checksum(body) != view[-CHECKSUM_BYTES:].tobytes():
        raise ReadError("the checksum of the chunk does not match")
    # Blosc's header says how much it holds; numcodecs lets less than is wanted pass, and leaves the rest as it was.
    holds = int.from_bytes(body[4:8].tobytes(), "little")
    if len(body) < BLOSC_HEADER or holds != target.nbytes:
        raise ReadError(f"the chunk holds {holds} bytes, and a sample has {target.nbytes}")
    try:
        _alone(_blosc().decompress, body, target)
    except (ValueError, RuntimeError) as error:
        raise ReadError(f"the chunk cannot be decompressed ({error})") from error
    return target


def checksum(data: Any) -> bytes:
    """The CRC-32C of some bytes, as it stands behind them.

    >>> checksum(b"123456789")[::-1].hex()
    'e3069283'
    """
    # Of everything that is a buffer google_crc32c takes bytes and arrays only.
    return int(_crc32c()(np.frombuffer(data, "u1"))).to_bytes(CHECKSUM_BYTES, "little")


def write_shard(
    path: str | PathLike[str], chunks: Sequence[bytes | None], sync: bool = True, *, slots: int | None = None
) -> None:
    """Write a whole shard, or nothing: a chunk for each slot, None where there is no sample.

    Every shard of a store has the same number of slots; `slots` fills up the last one, which has fewer samples.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "0"
    >>> write_shard(file, [b"one", None, b"three"], slots=4)
    >>> read_raw(file)
    [b'one', None, b'three', None]
    """
    held = [*chunks, *[None] * ((slots or 0) - len(chunks))]
    index = np.full((len(held), 2), MISSING, "<u8")
    at = 0
    for slot, chunk in enumerate(held):
        if chunk is not None:
            index[slot] = at, len(chunk)
            at += len(chunk)
    told = index.tobytes()
    with atomic_path(path, sync=sync) as temporary, temporary.open("wb") as file:
        file.writelines(chunk for chunk in held if chunk is not None)
        file.write(told)
        file.write(checksum(told))


def read_raw(path: str | PathLike[str], slots: int | None = None) -> list[bytes | None]:
    """The chunks of a shard as they are, None where a sample is missing: for a shard that is written again.

    Without `slots` their number is found by the checksum of the index.
    """
    data = Path(path).read_bytes()
    try:
        index = _find_index(data) if slots is None else parse_index(data[-index_bytes(slots) :], slots, len(data))
    except ReadError as error:
        raise ReadError(f"The shard {path} cannot be read: {error}.") from error
    return [None if length == MISSING else data[at : at + length] for at, length in index.tolist()]


def index_bytes(slots: int) -> int:
    """How long the index at the end of a shard is.

    >>> index_bytes(64)
    1028
    """
    return 16 * slots + CHECKSUM_BYTES


def parse_index(data: bytes | memoryview, slots: int, size: int) -> np.ndarray:
    """Offset and length of each chunk from the end of a shard file of `size` bytes; checked."""
    if len(data) != index_bytes(slots):
        raise ReadError(f"it is too short ({size} bytes) to hold the index of {slots} samples")
    if checksum(data[:-CHECKSUM_BYTES]) != bytes(data[-CHECKSUM_BYTES:]):
        raise ReadError("the checksum of its index does not match, so it is cut off or damaged")
    index = np.frombuffer(data[:-CHECKSUM_BYTES], "<u8").reshape(slots, 2)
    there = index[index[:, 1] != MISSING]
    if len(there) and int((there[:, 0] + there[:, 1]).max()) > size - index_bytes(slots):
        raise ReadError("its index points beyond its end")
    return index


def _find_index(data: bytes) -> np.ndarray:
    for slots in range(1, min(len(data) // 16, MOST_SLOTS) + 1):
        length = index_bytes(slots)
        tail = memoryview(data)[-length:]
        if length <= len(data) and checksum(tail[:-CHECKSUM_BYTES]) == data[-CHECKSUM_BYTES:]:
            return parse_index(tail, slots, len(data))
    raise ReadError("the checksum of its index does not match, so it is cut off or damaged")


def _alone(work: Callable[..., Any], *args: Any) -> Any:
    """Call Blosc so that it uses the thread it is called in and no others.

    With several it writes its blocks in the order in which they are done, which differs from run to run; and to read a
    sample on a busy machine takes twice as long, as they wait for each other. In the main thread numcodecs would use
    several, in any other it uses one.
    """
    if threading.current_thread() is not threading.main_thread():
        return work(*args)
    blosc = _blosc()
    before, blosc.use_threads = blosc.use_threads, False
    try:
        return work(*args)
    finally:
        blosc.use_threads = before


@lru_cache(maxsize=1)
def _blosc() -> Any:
    from numcodecs import blosc  # type: ignore[import-untyped]

    return blosc


@lru_cache(maxsize=1)
def _crc32c() -> Any:
    from google_crc32c import value

    return value
