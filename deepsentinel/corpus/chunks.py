"""One sample, read fast: its bytes from the file of its shard, checked, and decompressed where they are wanted.

What a training loop waits for is this path, so nothing lies on it but the read, the checksum and the codec. The files
are not held open: opening one costs a hundredth of decompressing a sample, and a process that is forked, or that goes
on while a shard is replaced by a retry, has nothing stale. Only the indexes of shards are remembered, and not many.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from deepsentinel.errors import NothingFoundError, ReadError, SourceError

from .layout import ArraySpec, Layout, shard_key
from .remote import Folder, Place, place_of
from .shards import MISSING, decode, index_bytes, parse_index

# An index of 64 samples takes a kilobyte.
MOST_INDEXES = 4096
# Far away it is waiting that takes the time.
FAR_THREADS = 16


class Chunks:
    """The samples of a store, array by array.

    >>> import tempfile
    >>> from deepsentinel.corpus.layout import create_store, shard_path
    >>> from deepsentinel.corpus.shards import encode, write_shard
    >>> spec = ArraySpec("scl", "uint8", ("sample", "y", "x"), (8, 8), 0)
    >>> folder = Path(tempfile.mkdtemp()) / "corpus.zarr"
    >>> create_store(folder, Layout(3, 2, (spec,)))
    >>> write_shard(shard_path(folder, spec, 0), [None, encode(np.full((8, 8), 4, "uint8"), spec)])
    >>> chunks = Chunks(folder)
    >>> [int(chunks.read("scl", sample).max()) for sample in range(3)]
    [0, 4, 0]
    """

    def __init__(self, path: Any, storage_options: Any = None) -> None:
        self.place: Place = place_of(path, storage_options)
        head = self.place.get("zarr.json")
        if head is None:
            raise NothingFoundError(
                f"There is no corpus at {self.place.path}: it holds no zarr.json. ds.build_corpus makes one."
            )
        self.layout = Layout.from_zarr(head, self.place.path)
        self._specs = {spec.name: spec for spec in self.layout.arrays}
        self._forget()

    def _forget(self) -> None:
        self._indexes: OrderedDict[str, tuple[Any, np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()
        self._local = threading.local()
        self._expected: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self.place, "layout": self.layout, "_specs": self._specs}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def spec(self, name: str) -> ArraySpec:
        """What is known of one array."""
        return self._specs.get(name) or self.layout.spec(name)

    def read(self, name: str, sample: int, out: np.ndarray | None = None) -> np.ndarray:
        """One sample of one array as it is stored, put into `out` where that is given.

        It is fill where a sample failed or is not built yet, and a ReadError where it was built and is gone.
        """
        spec = self.spec(name)
        shard, slot = divmod(int(sample), self.layout.samples_per_shard)
        key = shard_key(spec, shard)
        # The codec writes into memory that lies in one piece.
        target = out if out is not None and out.flags.c_contiguous else np.empty(spec.shape, spec.dtype)
        try:
            data = self._near(key, slot) if isinstance(self.place, Folder) else self._far(key, [slot])[0]
            if data is None:
                self._check_absent(sample)
                target[...] = spec.fill
            else:
                decode(data, spec, target)
        except OSError as error:
            if isinstance(error, SourceError) and not isinstance(error, ReadError):
                raise  # it is not the file: nobody answered
            raise self._damaged(key, name, [sample], error) from error
        if out is not None and target is not out:
            out[...] = target
        return target if out is None else out

    def read_many(self, name: str, samples: Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Several samples, stacked; those of one shard far away are asked for together."""
        spec = self.spec(name)
        stack = np.empty((len(samples), *spec.shape), spec.dtype) if out is None else out
        if isinstance(self.place, Folder):
            for number, sample in enumerate(samples):
                self.read(name, sample, stack[number])
            return stack
        groups: dict[int, list[int]] = {}
        for number, sample in enumerate(samples):
            groups.setdefault(int(sample) // self.layout.samples_per_shard, []).append(number)

        def fetch(shard: int) -> None:
            key = shard_key(spec, shard)
            numbers = groups[shard]
            mine = [int(samples[number]) for number in numbers]
            try:
                found = self._far(key, [sample % self.layout.samples_per_shard for sample in mine])
            except ReadError as error:
                raise self._damaged(key, name, mine, error) from error
            for number, sample, data in zip(numbers, mine, found, strict=True):
                try:
                    if data is None:
                        self._check_absent(sample)
                    stack[number] = spec.fill if data is None else decode(data, spec)
                except ReadError as error:
                    raise self._damaged(key, name, [sample], error) from error

        if len(groups) == 1:
            fetch(*groups)
        else:
            with ThreadPoolExecutor(min(FAR_THREADS, len(groups) or 1)) as pool:
                list(pool.map(fetch, groups))
        return stack

    def present(self, name: str, shard: int) -> np.ndarray:
        """Which slots of a shard hold a sample; all are empty where there is no file."""
        index = self._index(shard_key(self.spec(name), shard))
        return np.zeros(self.layout.samples_per_shard, "bool") if index is None else index[:, 1] != MISSING

    def _check_absent(self, sample: int) -> None:
        """A ReadError where bytes are missing of a sample that the table says is there.

        Only who finds nothing comes here. What the table said at first serves for samples that failed or are still to
        be built, of which there may be many; before anything is called lost it is asked again.
        """
        from .table import arrow_table

        def expected() -> np.ndarray:
            return np.asarray(arrow_table(self)["status"].to_numpy(zero_copy_only=False) == "ok")

        if self._expected is None:
            self._expected = expected()
        if self._expected[sample]:
            self._expected = expected()
            if self._expected[sample]:
                raise ReadError("the file is missing, or does not hold it")

    def _near(self, key: str, slot: int) -> np.ndarray | None:
        """The bytes of one chunk from a file here, in memory that the next read of this thread takes again."""
        try:
            with Path(self.place.path, key).open("rb", buffering=0) as file:
                return self._piece(file, key, slot)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _piece(self, file: io.FileIO, key: str, slot: int) -> np.ndarray | None:
        told = os.fstat(file.fileno())
        signature = (told.st_ino, told.st_size, told.st_mtime_ns)
        index = self._remembered(key, signature)
        if index is None:
            wanted = index_bytes(self.layout.samples_per_shard)
            file.seek(max(0, told.st_size - wanted))
            index = parse_index(file.read(wanted), self.layout.samples_per_shard, told.st_size)
            self._remember(key, signature, index)
        at, length = index[slot].tolist()
        if length == MISSING:
            return None
        scratch = self._scratch(length)
        file.seek(at)
        if file.readinto(scratch.data) != length:
            raise ReadError("it ended before the chunk did")
        return scratch

    def _far(self, key: str, slots: Iterable[int]) -> list[Any]:
        index = self._index(key)
        wanted = list(slots)
        if index is None:
            return [None] * len(wanted)
        there = [slot for slot in wanted if index[slot, 1] != MISSING]
        found = dict(zip(there, self.place.ranges(key, *index[there].T.tolist()), strict=True)) if there else {}
        return [found.get(slot) for slot in wanted]

    def _index(self, key: str) -> np.ndarray | None:
        """The index of a shard; one far away is asked for once."""
        far = not isinstance(self.place, Folder)
        index = self._remembered(key, None) if far else None
        if index is None:
            slots = self.layout.samples_per_shard
            found = self.place.tail(key, index_bytes(slots))
            if found is None:
                return None
            index = parse_index(found[0], slots, found[1])
            if far:
                self._remember(key, None, index)
        return index

    def _remembered(self, key: str, signature: Any) -> np.ndarray | None:
        found = self._indexes.get(key)
        return found[1] if found is not None and found[0] == signature else None

    def _remember(self, key: str, signature: Any, index: np.ndarray) -> None:
        with self._lock:
            self._indexes[key] = signature, index
            while len(self._indexes) > MOST_INDEXES:
                self._indexes.popitem(last=False)

    def _scratch(self, length: int) -> np.ndarray:
        held: np.ndarray | None = getattr(self._local, "held", None)
        if held is None or len(held) < length:
            held = self._local.held = np.empty(length + length // 4, "u1")
        return held[:length]

    def _damaged(self, key: str, name: str, samples: Sequence[int], error: Exception) -> ReadError:
        who = f"Sample {samples[0]}" if len(samples) == 1 else f"Samples {samples[0]} to {samples[-1]}"
        near = isinstance(self.place, Folder)
        repair = "build_corpus(..., retry_failed=True) makes it good" if near else "publish it there again"
        return ReadError(
            f"{who} of array {name!r} cannot be read from {self.place.path}/{key}: {str(error).rstrip('.')}. Other"
            f" samples still can; check_corpus({self.place.path!r}) lists all that is damaged, and {repair}."
        )
