"""A corpus as tensors: datasets of patches, of triplets, of two views and of series, for any training loop.

A dataset gives dicts of tensors, read from the files of the corpus when they are asked for. It can be pickled, holds no
file open, and so works with any number of workers, forked or spawned. What is drawn, and in which order, depends on the
seed and the epoch alone.

    from deepsentinel.tensors import PatchDataset, loader, physical

    for batch in loader(PatchDataset(corpus), batch_size=64, seed=0, workers=4):
        batch = physical({name: values.to("cuda") for name, values in batch.items()}, fill=0)
"""

from .on_device import Resident, resident
from .pairs import TripletDataset, ViewDataset
from .patches import PatchDataset, collate, physical
from .sampler import CorpusSampler, loader
from .series import SeriesDataset, collate_series

__all__ = [
    "CorpusSampler",
    "PatchDataset",
    "Resident",
    "SeriesDataset",
    "TripletDataset",
    "ViewDataset",
    "collate",
    "collate_series",
    "loader",
    "physical",
    "resident",
]
