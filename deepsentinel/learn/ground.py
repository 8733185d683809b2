"""What a model is tested on: samples of ground that it did not learn from, each seen once, whole and as it lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deepsentinel.bands import SCL_CLOUDY
from deepsentinel.corpus.held import held_array
from deepsentinel.encoders.conv import ConvEncoder
from deepsentinel.errors import InputError, NothingFoundError

from .batches import Batch, Feed, bands_of
from .detection import detect_boxes, true_boxes, within
from .intervals import BLOCK_M, ground_blocks
from .model import Model
from .scoring import Scorer, scorer_of
from .tallies import cloud_steps
from .tasks import OBJECT_TASKS

if TYPE_CHECKING:
    import xarray as xr

    from .mistakes import SampleScores

# Read together while clouds are counted.
PIECE = 256
# The coarsest level of a U-Net; its decoder doubles the sides step by step and meets the finer levels on the way.
UNET_PX = 32


class Ground:
    """What is tested on: corpora, and of each sample its block of ground and how clouded it is."""

    def __init__(
        self,
        corpora: Sequence[xr.Dataset],
        *,
        block_m: float = BLOCK_M,
        batch_size: int = 16,
        clouds: bool = True,
        device: str | torch.device = "cpu",
    ) -> None:
        from deepsentinel.tensors import PatchDataset

        self.corpora, self.block_m, self.clouds = list(corpora), block_m, clouds
        self.device = torch.device(device)
        parts = [PatchDataset(corpus) for corpus in self.corpora]
        self.count = sum(len(part) for part in parts)
        if not self.count:
            raise NothingFoundError("The test corpus has no sample that could be read; none has the status 'ok'.")
        self.batch_size = min(batch_size, self.count)
        lacking = [at for at, part in enumerate(parts) if not {"lon", "lat"} <= set(part.facts)]
        if lacking:
            raise InputError("The samples of the test have no lon and lat, which tell what lies near what.")
        lon, lat = (np.concatenate([part.facts[name] for part in parts]).astype("float64") for name in ("lon", "lat"))
        self.lon, self.lat = lon, lat
        self.block = ground_blocks(lon, lat, block_m)
        self.corpus = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        self.place = np.concatenate([part.positions for part in parts])
        self.sample = np.concatenate([part.samples for part in parts])
        percent = np.concatenate([_clouded(corpus, part) for corpus, part in zip(self.corpora, parts, strict=True)])
        self.cloud = cloud_steps(percent)
        self._feed: tuple[Any, Feed] | None = None

    @property
    def clouds_told(self) -> list[str]:
        """The steps of cloud cover there are, where they tell anything."""
        found = sorted(set(self.cloud.tolist()))
        return found if len(found) > 1 else []

    def of(self, rows: Sequence[int]) -> Ground:
        """Some of the samples, by their position among all."""
        chosen = np.asarray(rows, "int64")
        parts = [self.place[chosen[self.corpus[chosen] == number]] for number in range(len(self.corpora))]
        corpora = [each.isel(sample=part) for each, part in zip(self.corpora, parts, strict=True) if len(part)]
        how: dict[str, Any] = {"batch_size": self.batch_size, "clouds": self.clouds, "device": self.device}
        return Ground(corpora, block_m=self.block_m, **how)

    def batches(self, model: Model) -> Iterator[tuple[np.ndarray, Batch]]:
        """Each sample once, whole and as it lies, with its position."""
        bands = bands_of(model.encoder.spec, self.corpora[0])
        key = (tuple(bands), model.question.arrays)
        if self._feed is None or self._feed[0] != key:
            # Read once for all that look at the same bands.
            self._feed = None
            feed = Feed(
                self.corpora,
                batch_size=self.batch_size,
                bands=bands,
                labels=model.question.arrays,
                turn=False,
                clouds=self.clouds,
                device=self.device,
            )
            self._feed = key, feed
        return each_once(self._feed[1])

    @torch.no_grad()
    def answered(self, model: Model, sensors: str) -> dict[int, tuple[Any, Any, int]]:
        """What a model says of each sample, what is right, and how many pixels wide it is, by position; for few."""
        before = _device_of(model)
        model.to(self.device).eval()
        found: dict[int, tuple[Any, Any, int]] = {}
        for positions, batch in self.batches(model):
            said, truth = answers(model, batch, sensors), truth_of(model, batch)
            width = batch.pixels.shape[-1]
            found |= {int(at): (said[row], truth[row], width) for row, at in enumerate(positions)}
        model.to(before)
        return found

    @torch.no_grad()
    def measure(self, model: Model, sensors: str, each: SampleScores | None = None) -> Scorer:
        """What a model says of all samples, against the truth; `each` is told every sample by itself."""
        scorer = scorer_of(model.question)
        before = _device_of(model)
        model.to(self.device).eval()
        for positions, batch in self.batches(model):
            groups: dict[str, Any] = {"block": self.block[positions], "cloud": self.cloud[positions]}
            said, truth = answers(model, batch, sensors), truth_of(model, batch)
            scorer.update(said, truth, groups)
            if each is not None:
                each.add(positions, said, truth)
        model.to(before)
        if not scorer.count():
            raise NothingFoundError(
                f"Nothing of the {self.count} samples of the test is labelled with what the model tells: "
                f"{', '.join(model.question.arrays)}."
            )
        return scorer


def each_once(feed: Feed) -> Iterator[tuple[np.ndarray, Batch]]:
    """Every sample of a feed once, with its position in it; the last batch is what is left."""
    size, count = feed.batch_size, len(feed)
    for step, batch in enumerate(feed.run(0, -(-count // size))):
        left = min(size, count - step * size)
        yield feed.positions(step)[:left], first(batch, left)


def first(batch: Batch, count: int) -> Batch:
    """The first samples of a batch."""
    if count >= len(batch):
        return batch

    def cut(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[:count]

    return replace(
        batch._pixelwise(cut),
        month=cut(batch.month),
        latlon=cut(batch.latlon),
        sample=batch.sample[:count],
        labels={name: values[:count] for name, values in batch.labels.items()},
        others={name: first(other, count) for name, other in batch.others.items()},
    )


def padded(batch: Batch, multiple: int) -> Batch:
    """The same with sides that are multiples of a number: what is added below and to the right was not seen.

    Labels stay as they are; `answers` cuts what was said of the rest off again.
    """
    height, width = batch.pixels.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return batch

    def wider(values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        return F.pad(values.float(), (0, right, 0, below)).to(values.dtype)

    masks = {}
    for key in ("s1", "s2"):
        pixels, mask = getattr(batch, key), getattr(batch, f"{key}_mask")
        if pixels is not None and mask is None:
            mask = torch.ones_like(pixels[:, 0], dtype=torch.bool)
        masks[f"{key}_mask"] = mask
    return replace(batch, **masks)._pixelwise(wider)


def multiple_of(model: Model) -> int:
    """Of what the sides of a window have to be multiples, for a model."""
    encoder = model.encoder
    return UNET_PX if isinstance(encoder, ConvEncoder) else encoder.spec.patch_px


def truth_of(model: Model, batch: Batch) -> Any:
    """What is right, as `answers` tells it: the objects of each sample, or numbers."""
    return true_boxes(model, batch) if model.task in OBJECT_TASKS else model.truth(batch)


@torch.no_grad()
def answers(model: Model, batch: Batch, sensors: str | None = None) -> Any:
    """What `model.probabilities` gives, or `detect_boxes`, of samples whose sides need not fit the encoder."""
    wide = padded(batch, multiple_of(model))
    if model.task in OBJECT_TASKS:
        return [within(each, batch.pixels.shape[-2:]) for each in detect_boxes(model, wide, sensors)]
    said = model.probabilities(wide, sensors)
    if said.ndim < 4 or wide is batch:
        return said
    finer = said.shape[-1] // wide.pixels.shape[-1]
    height, width = (side * finer for side in batch.pixels.shape[-2:])
    return said[..., :height, :width]


def _clouded(corpus: xr.Dataset, part: Any) -> np.ndarray:
    """Percent of each sample that SCL calls cloud or shadow, or that is not clear; NaN where nothing tells it."""
    if "scl" in corpus.data_vars:
        found, arrays = [], held_array(corpus, "scl", part.chunks)
        for start in range(0, len(part), PIECE):
            scl = arrays.read_many(part.positions[start : start + PIECE])
            flat = scl.reshape(len(scl), -1)
            known = (flat != 0).sum(axis=1)
            cloudy = np.isin(flat, tuple(SCL_CLOUDY)).sum(axis=1)
            found.append(np.where(known > 0, 100 * cloudy / np.maximum(known, 1), np.nan))
        return np.concatenate(found) if found else np.empty(0)
    if "clear" in corpus.coords:
        clear = np.asarray(corpus["clear"].values, "float64")[part.positions]
        return np.clip(100 * (1 - clear), 0, 100)
    return np.full(len(part), np.nan)


def _device_of(model: torch.nn.Module) -> torch.device:
    return next((value.device for value in model.parameters()), torch.device("cpu"))
