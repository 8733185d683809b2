"""The order of an epoch: a function of the seed and the epoch alone, however many workers read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import BatchSampler, DataLoader, Sampler

from deepsentinel.corpus.remote import Folder
from deepsentinel.errors import InputError

ORDERS = ("random", "shards", "sorted")
# So many shards are mixed with each other; the more, the nearer to a random order and the further apart the reads.
MIXED_SHARDS = 16


class CorpusSampler(Sampler[int]):
    """The items of a dataset in an order drawn from `seed` and `epoch`; `set_epoch` draws the next.

    order="random" is any order with equal chance. "shards" reads the samples of a few shards together, which is
    faster from a disk or a bucket: the shards come in random order, and the samples of `mixed` of them at a time are
    mixed. With `replicas` every process reads its own part, all of one length.

    >>> data = range(6)
    >>> list(CorpusSampler(data, seed=1)) == list(CorpusSampler(data, seed=1))
    True
    >>> sorted(CorpusSampler(data, seed=1, epoch=3))
    [0, 1, 2, 3, 4, 5]
    """

    def __init__(
        self,
        dataset: Any,
        seed: int = 0,
        epoch: int = 0,
        *,
        order: str = "random",
        mixed: int = MIXED_SHARDS,
        rank: int = 0,
        replicas: int = 1,
    ) -> None:
        if order not in ORDERS:
            raise InputError(f"order={order!r} is not known; {', '.join(ORDERS)} are.")
        if not 0 <= rank < replicas or mixed < 1:
            raise InputError(f"rank={rank} of replicas={replicas}, mixed={mixed}: rank counts from 0, mixed from 1.")
        self.dataset, self.count = dataset, len(dataset)
        self.seed, self.epoch, self.order, self.mixed = seed, epoch, order, mixed
        self.rank, self.replicas = rank, replicas
        if order == "shards":
            if not hasattr(dataset, "samples") or not hasattr(dataset, "chunks"):
                raise InputError("order='shards' is for datasets of a corpus; others have no shards.")
            self._shards = np.asarray(dataset.samples) // dataset.chunks.layout.samples_per_shard

    def set_epoch(self, epoch: int) -> None:
        """From here on the order is that of another epoch, and what a dataset of triplets or views draws too."""
        self.epoch = epoch
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return self.count if self.replicas == 1 else self.count // self.replicas

    def __iter__(self) -> Iterator[int]:
        order = self._drawn()
        return iter(order[self.rank :: self.replicas][: len(self)].tolist())

    def _drawn(self) -> np.ndarray:
        if self.order == "sorted":
            return np.arange(self.count)
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.order == "random":
            return rng.permutation(self.count)
        shards, inverse = np.unique(self._shards, return_inverse=True)
        turn = rng.permutation(len(shards))[inverse] // self.mixed
        # By the turn of its shard, and at random among those of one turn.
        return np.lexsort((rng.random(self.count), turn))


def loader(
    dataset: Any,
    batch_size: int,
    *,
    seed: int = 0,
    epoch: int = 0,
    order: str = "random",
    workers: int = 0,
    drop_last: bool = False,
    sampler: CorpusSampler | None = None,
    **options: Any,
) -> DataLoader[Any]:
    """A DataLoader whose workers read whole batches; other `options` are the DataLoader's own.

    ```python
    batches = loader(data, 64, seed=0, workers=4)
    for epoch in range(10):
        batches.sampler.sampler.set_epoch(epoch)
        for batch in batches: ...
    ```
    """
    if "num_workers" in options:
        raise TypeError("loader() has no option 'num_workers'; it is called workers=.")
    drawn = sampler or CorpusSampler(dataset, seed, epoch, order=order)
    batches = BatchSampler(drawn, batch_size, drop_last)
    chunks = getattr(dataset, "chunks", None)
    if workers and chunks is not None and not isinstance(chunks.place, Folder):
        # What reads from far away does not survive a fork.
        options = {"multiprocessing_context": "spawn", **options}
    # The batches are the items of this loader, and the dataset answers a list of numbers with a batch.
    return DataLoader(dataset, batch_size=None, sampler=batches, num_workers=workers, **options)
