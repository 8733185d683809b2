"""A corpus that fits on the device stays there: batches by number, without workers and without waiting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from deepsentinel.errors import InputError
from deepsentinel.progress import progress as shown

from .patches import PatchDataset, physical
from .sampler import CorpusSampler
from .series import SeriesDataset

# Read together while a corpus is brought to the device.
PIECE = 64
# Of free memory; a model wants some too.
LARGEST_SHARE = 0.8


class Resident:
    """The samples of a dataset as tensors on a device, as integers; what a batch gives is what the dataset's would."""

    def __init__(self, data: PatchDataset, device: torch.device, tensors: dict[str, torch.Tensor]) -> None:
        self.data, self.device = data, device
        self._tensors = tensors

    @property
    def samples(self) -> np.ndarray:
        """The numbers of the samples, in order."""
        return self.data.samples

    @property
    def chunks(self) -> Any:
        """The files of the corpus."""
        return self.data.chunks

    @property
    def nbytes(self) -> int:
        """What it takes on the device."""
        return sum(values.numel() * values.element_size() for values in self._tensors.values())

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> dict[str, Any]:
        if isinstance(index, int | np.integer):
            return {name: values[0] for name, values in self[[int(index)]].items()}
        numbers = np.asarray(index, "int64").ravel()
        if len(numbers) and not -len(self) <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"There is no sample {numbers.max()}; this dataset has {len(self)}.")
        at = torch.from_numpy(numbers % max(1, len(self))).to(self.device)
        found: dict[str, Any] = {}
        for name, values in self._tensors.items():
            # Devices pick rows of signed integers only.
            unsigned = values.dtype == torch.uint16
            picked = (values.view(torch.int16) if unsigned else values).index_select(0, at)
            found[name] = picked.view(torch.uint16) if unsigned else picked
        if self.data.values == "physical":
            found = physical(found, self.data.fill)
        if self.data.ids is not None:
            found["id"] = list(self.data.ids[numbers])
        return found

    def batches(
        self, batch_size: int, *, seed: int = 0, epoch: int = 0, drop_last: bool = False
    ) -> Iterator[dict[str, Any]]:
        """One epoch, in the order that `loader` would have with this seed and epoch."""
        order = np.fromiter(CorpusSampler(self, seed, epoch), "int64", len(self))
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            if len(numbers) == batch_size or not drop_last:
                yield self[numbers]


def resident(data: PatchDataset, device: str | torch.device = "cuda", *, progress: bool = True) -> Resident:
    """Bring all samples of a dataset to a device, as the integers that are stored.

    ```python
    data = resident(PatchDataset(train, values="physical", fill=0), "cuda")
    for batch in data.batches(256, seed=0, epoch=epoch): ...
    ```
    """
    if isinstance(data, SeriesDataset) or not isinstance(data, PatchDataset):
        raise InputError(f"resident() takes a PatchDataset; a {type(data).__name__} has no fixed size.")
    target = torch.device(device)
    specs = [(spec, len(names)) for spec, names, _ in data._pixels]
    sizes = {spec.name: spec.nbytes // spec.shape[-3] * bands for spec, bands in specs}
    sizes |= {spec.name: spec.nbytes for spec in data._masks}
    need = sum(sizes.values()) * len(data)
    free = free_bytes(target)
    if need > LARGEST_SHARE * free:
        raise InputError(
            f"{len(data)} samples take {need / 1e9:.1f} GB and {target} has {free / 1e9:.1f} GB free; take fewer bands,"
            " a part of the corpus, or loader(dataset, ...)."
        )
    tensors: dict[str, torch.Tensor] = {}
    raw = data.as_raw()
    starts = range(0, len(data), PIECE)
    for start in shown(starts, total=len(starts), what="to the device", unit="piece") if progress else starts:
        piece = raw[range(start, min(start + PIECE, len(data)))]
        for name, values in piece.items():
            if not isinstance(values, torch.Tensor):
                continue
            if name not in tensors:
                tensors[name] = torch.empty((len(data), *values.shape[1:]), dtype=values.dtype, device=target)
            tensors[name][start : start + len(values)] = values
    return Resident(data, target, tensors)


def free_bytes(device: torch.device) -> float:
    """How much memory a device has free; infinite where nobody can tell.

    >>> free_bytes(torch.device("cpu")) > 1e6
    True
    """
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        import os

        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")
