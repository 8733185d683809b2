"""Is a corpus whole? Every file of it is read, and whatever is damaged or missing is named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import ReadError
from deepsentinel.progress import progress as shown

from .chunks import Chunks
from .layout import ArraySpec, shard_key
from .shards import CHECKSUM_BYTES, MISSING, checksum, index_bytes, parse_index
from .table import arrow_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with a corpus."""

    file: str
    """Which file, in full."""
    array: str
    """The array it belongs to."""
    shard: int | None
    """The shard; None for a file that is no shard."""
    samples: tuple[int, ...]
    """The samples that cannot be read for it."""
    problem: str
    """What is wrong, in words."""


@dataclass(frozen=True)
class CorpusCheck:
    """What `check_corpus` found."""

    path: str
    """The folder or address."""
    samples: int
    """How many samples were to be there: those with the status "ok"."""
    files: int
    """How many shards were read."""
    damage: tuple[Damage, ...]
    """What is wrong."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damage

    @property
    def lost(self) -> tuple[int, ...]:
        """The samples of which something cannot be read; all others can."""
        return tuple(sorted({sample for each in self.damage for sample in each.samples}))

    def frame(self) -> pd.DataFrame:
        """The damage as a table, one row for each thing."""
        import pandas as pd

        return pd.DataFrame([vars(each) for each in self.damage], columns=list(Damage.__dataclass_fields__))

    def __str__(self) -> str:
        head = f"{self.path}: {self.samples} samples in {self.files} files"
        if self.ok:
            return f"{head}, all whole."
        rows = [f"  {each.file}: {each.problem} ({_named(each.samples)})" for each in self.damage]
        return "\n".join([f"{head}, {len(self.lost)} samples cannot be read:", *rows])


def check_corpus(path: Any, *, storage_options: Mapping[str, Any] | None = None, progress: bool = True) -> CorpusCheck:
    """Read every shard of a corpus and its checksums; what is damaged or lost is named, with the samples it holds.

    ```python
    report = check_corpus("corpus.zarr")
    print(report)
    whole = corpus.drop_sel(sample=list(report.lost))
    ```
    """
    store = Chunks(path, storage_options)
    layout, place = store.layout, store.place
    found = list(_metadata(store))
    try:
        status = np.asarray(arrow_table(store)["status"].to_pylist())
    except ReadError as error:
        found.append(Damage(f"{place.path}/samples.parquet", "samples", None, (), str(error)))
        status = np.full(layout.samples, "unknown")
    work = [(spec, shard) for shard in range(layout.shards) for spec in layout.arrays]
    files = 0
    for spec, shard in shown(work, total=len(work), what="checking", unit="shard") if progress else work:
        members = np.arange(layout.samples)[layout.members(shard)[0] : layout.members(shard)[-1] + 1]
        wanted = members[status[members] == "ok"]
        there, damage = damage_in(store, spec, shard, wanted)
        files += there
        found.extend(damage)
    return CorpusCheck(place.path, int((status == "ok").sum()), files, tuple(found))


def _metadata(store: Chunks) -> Iterator[Damage]:
    for name, wanted in store.layout.files().items():
        if name == "zarr.json":
            continue
        data = store.place.get(name)
        if data != wanted:
            problem = "it is missing" if data is None else "it is not what the store's zarr.json says"
            yield Damage(f"{store.place.path}/{name}", name.split("/")[0], None, (), problem)


def damage_in(store: Chunks, spec: ArraySpec, shard: int, wanted: np.ndarray) -> tuple[bool, list[Damage]]:
    """Whether there is a file, and what is wrong with it."""
    key, slots = shard_key(spec, shard), store.layout.samples_per_shard
    members = store.layout.members(shard)

    def damage(samples: Iterable[int], problem: str) -> list[Damage]:
        return [Damage(f"{store.place.path}/{key}", spec.name, shard, tuple(map(int, samples)), problem)]

    try:
        data = store.place.get(key)
        if data is None:
            return False, damage(wanted, "the file is missing") if len(wanted) else []
        index = parse_index(data[-index_bytes(slots) :], slots, len(data))
    except ReadError as error:
        return True, damage(wanted if len(wanted) else members, str(error))
    bad, gone = [], []
    for number in members:
        at, length = index[number - members.start].tolist()
        if length == MISSING:
            gone += [number] if number in wanted else []
        elif checksum(data[at : at + length - CHECKSUM_BYTES]) != data[at + length - CHECKSUM_BYTES : at + length]:
            bad.append(number)
    found = damage(bad, "the checksum does not match") if bad else []
    return True, found + (damage(gone, "the file does not hold them") if gone else [])


def _named(samples: Sequence[int]) -> str:
    if not samples:
        return "no sample"
    first = ", ".join(map(str, samples[:6])) + (f" and {len(samples) - 6} more" if len(samples) > 6 else "")
    return f"sample {first}" if len(samples) == 1 else f"samples {first}"
