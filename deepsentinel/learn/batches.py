"""What a step of training sees: crops of a corpus, turned and flipped, as a function of the seed and the step alone.

Because step 1,000 is the same however one came to it, a run that was killed goes on exactly where it was, and several
GPUs share a step without speaking of it. Pixels stay the integers of the store until they are on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from deepsentinel.bands import REFLECTANCE_SCALE
from deepsentinel.encoders.base import Encoder, Tokens
from deepsentinel.encoders.spec import EncoderSpec
from deepsentinel.errors import InputError
from deepsentinel.tensors import physical

from .crops import Cut, cloudy, month_of
from .samples import Raw, Samples, bands_of, corpora_of

if TYPE_CHECKING:
    import xarray as xr

    from .remembering import Remembered

SENSORS = ("both", "s1", "s2")


@dataclass
class Batch:
    """Pixels in the units of a Patch, what is usable of them, and what is known of the samples."""

    s1: Tensor | None
    """(B, C, H, W) dB, finite everywhere."""
    s2: Tensor | None
    """(B, C, H, W) reflectance x 10000, finite everywhere."""
    s1_mask: Tensor | None
    """(B, H, W) bool, True = usable."""
    s2_mask: Tensor | None
    """(B, H, W) bool; clouds and their shadows are not usable where the corpus has SCL."""
    s1_bands: tuple[str, ...]
    """Names of the channels of `s1`."""
    s2_bands: tuple[str, ...]
    """Names of the channels of `s2`."""
    month: Tensor | None
    """(B,) 0 = January."""
    latlon: Tensor | None
    """(B, 2) degrees."""
    labels: dict[str, Tensor]
    """Masks, cut and turned as the pixels are."""
    sample: Tensor
    """(B,) the numbers of the samples in their corpus."""
    generator: torch.Generator
    """What this step may draw from, on the CPU."""
    others: dict[str, Batch] = field(default_factory=dict)
    """ "neighbour" and "distant" of these samples, where triplets are asked for."""
    tokens: tuple[Encoder, Mapping[str, Tokens]] | None = None
    """What an encoder that stays as it is has said of these pixels before, by the sensors that it was shown."""

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def pixels(self) -> Tensor:
        """The pixels of one of the sensors, for their shape and device."""
        return cast(Tensor, self.s2 if self.s2 is not None else self.s1)

    def seeing(self, *, s1_mask: Tensor | None = None, s2_mask: Tensor | None = None) -> Batch:
        """The same with less to see."""
        return replace(
            self,
            s1_mask=self.s1_mask if s1_mask is None or self.s1_mask is None else self.s1_mask & s1_mask,
            s2_mask=self.s2_mask if s2_mask is None or self.s2_mask is None else self.s2_mask & s2_mask,
            tokens=None,
        )

    def cropped(self, side: int, row: int = 0, column: int = 0) -> Batch:
        """Some rows and columns; the first ones will do where crops are drawn anywhere."""

        def cut(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[..., row : row + side, column : column + side]

        return self._pixelwise(cut)

    def to(self, device: torch.device | str) -> Batch:
        """On another device."""

        def moved(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.to(device)

        return replace(
            self._pixelwise(moved),
            month=moved(self.month),
            latlon=moved(self.latlon),
            sample=self.sample.to(device),
            labels={name: value.to(device) for name, value in self.labels.items()},
            others={name: other.to(device) for name, other in self.others.items()},
        )

    def _pixelwise(self, change: Callable[[Tensor | None], Tensor | None]) -> Batch:
        return replace(
            self,
            s1=change(self.s1),
            s2=change(self.s2),
            s1_mask=change(self.s1_mask),
            s2_mask=change(self.s2_mask),
            tokens=None,
        )


def encode(encoder: Encoder, batch: Batch, sensors: str = "both", *, patch_px: int | None = None) -> Tokens:
    """What an encoder makes of a batch, of the sensors that it takes and that are asked for."""
    if patch_px is None and batch.tokens is not None and batch.tokens[0] is encoder and sensors in batch.tokens[1]:
        return batch.tokens[1][sensors]
    how: dict[str, Any] = {"month": batch.month, "latlon": batch.latlon}
    if patch_px is not None:
        how["patch_px"] = patch_px
    return cast(Tokens, encoder(**inputs(encoder.spec, batch, sensors), **how))


def inputs(spec: EncoderSpec, batch: Batch, sensors: str = "both") -> dict[str, Any]:
    """The pixels and masks of a batch in an encoder's order, and the names of the bands it goes without."""
    given: dict[str, Any] = {}
    missing: list[str] = []
    for key, names in (("s1", spec.s1_bands), ("s2", spec.s2_bands)):
        pixels, held = getattr(batch, key), getattr(batch, f"{key}_bands")
        if pixels is None or not names or sensors not in ("both", key) or not set(names) & set(held):
            continue
        given[key], gone = _in_order(pixels, held, names)
        given[f"{key}_mask"] = getattr(batch, f"{key}_mask")
        missing += gone
    if not given:
        raise InputError(f"{spec.name} takes {' '.join(spec.sensors)}; with sensors={sensors!r} this batch has none.")
    if missing and not spec.any_bands:
        raise InputError(f"{spec.name} cannot do without {', '.join(missing)}, which this corpus lacks.")
    return {**given, "missing": tuple(missing)}


def _in_order(pixels: Tensor, held: Sequence[str], names: Sequence[str]) -> tuple[Tensor, list[str]]:
    if tuple(held) == tuple(names):
        return pixels, []
    found = [held.index(name) if name in held else -1 for name in names]
    gone = [name for name, place in zip(names, found, strict=True) if place < 0]
    chosen = pixels.index_select(1, _on(tuple(max(0, place) for place in found), pixels.device))
    if gone:
        chosen[:, [place for place, at in enumerate(found) if at < 0]] = 0
    return chosen, gone


@lru_cache(maxsize=256)
def _on(places: tuple[int, ...], device: torch.device) -> Tensor:
    """Places on a device, brought there once: a step of training would wait for them."""
    with torch.inference_mode(False):  # whoever asks first, others may want slopes
        return torch.tensor(places, device=device)


class Feed:
    """Batches of one corpus, or of several together: `feed(step)` is the batch of that step.

    bands: those that are read, by name; None: all. crop_px: side of a crop, None: the whole sample. turn: flips and
    quarter turns, drawn anew each time. clouds: whether what SCL calls cloud or shadow counts as not usable. labels:
    masks that come along. triplets: {"near_m": .., "far_m": ..} brings a neighbour and something distant of each.

    ```python
    feed = Feed(corpus, batch_size=64, crop_px=64, seed=0)
    feed(0).s2.shape
    ```
    """

    def __init__(
        self,
        corpora: xr.Dataset | Sequence[xr.Dataset],
        *,
        batch_size: int,
        crop_px: int | None = None,
        bands: Sequence[str] | None = None,
        labels: Sequence[str] = (),
        turn: bool = True,
        clouds: bool = True,
        seed: int = 0,
        device: str | torch.device = "cpu",
        on_device: bool | None = None,
        triplets: Mapping[str, float] | None = None,
        rank: int = 0,
        replicas: int = 1,
        workers: int = 0,
    ) -> None:
        self.corpora = corpora_of(corpora)
        if batch_size < replicas or batch_size % replicas:
            raise InputError(f"batch_size={batch_size} does not divide among {replicas} processes.")
        self.batch_size, self.seed, self.turn, self.clouds = batch_size, seed, turn, clouds
        self.device, self.rank, self.replicas, self.workers = torch.device(device), rank, replicas, workers
        self.labels = tuple(labels)
        self.samples = Samples(
            self.corpora,
            bands=bands,
            labels=self.labels,
            clouds=clouds,
            device=self.device,
            on_device=on_device,
            triplets=triplets,
            seed=seed,
        )
        self.bands, self.triplets = self.samples.bands, self.samples.triplets
        self.size_px = self.samples.size_px
        self.crop_px = self.size_px if crop_px is None else crop_px
        if not 0 < self.crop_px <= self.size_px:
            raise InputError(f"crop_px={crop_px}: samples are {self.size_px} px wide.")
        self.remembered: Remembered | None = None
        self._orders: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        """Samples an epoch."""
        return len(self.samples)

    def positions(self, step: int) -> np.ndarray:
        """Which samples a step has, all processes together: epochs follow each other without a gap."""
        count = len(self)
        at = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs = at // count
        order = {epoch: self._order(epoch) for epoch in range(int(epochs[0]), int(epochs[-1]) + 1)}
        return np.array([order[int(epoch)][place] for epoch, place in zip(epochs, at % count, strict=True)])

    def _order(self, epoch: int) -> np.ndarray:
        """The samples as an epoch has them; the last two are kept, as to order a million takes longer than a step."""
        if epoch not in self._orders:
            order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self))
            self._orders = {**dict(list(self._orders.items())[-1:]), epoch: order}
        return self._orders[epoch]

    def __call__(self, step: int) -> Batch:
        """The batch of a step, on the device."""
        return self._finish(self._read(step), step)

    def run(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches from one step to another, read ahead by `workers` where they come from the disk."""
        if self.workers == 0 or self.samples.resident:
            for step in range(start, stop):
                yield self(step)
            return
        ahead: DataLoader[Any] = DataLoader(
            cast(Any, _Steps(self)),
            batch_size=None,
            sampler=range(start, stop),
            num_workers=self.workers,
            prefetch_factor=2,
        )
        for step, raw in zip(range(start, stop), ahead, strict=True):
            yield self._finish(raw, step)

    def whole(self, positions: np.ndarray) -> Batch:
        """Samples by position, whole and as they lie."""
        raw = self.samples[positions]
        return self._batch(raw, Cut.none(len(positions), self.size_px).to(self.device), torch.Generator())

    def _mine(self, step: int) -> np.ndarray:
        return self.positions(step)[self.rank :: self.replicas]

    def _read(self, step: int) -> dict[str, Raw]:
        mine = self._mine(step)
        if not self.triplets:
            return {"": self.samples[mine]}
        rows = self.samples.triplet_rows(mine, step * self.batch_size // len(self))
        return {name: self.samples[positions] for name, positions in rows.items()}

    def _finish(self, raw: Mapping[str, Raw], step: int) -> Batch:
        # All processes draw the same for the whole step, and each takes its part.
        rng = np.random.default_rng([self.seed, 1, step, 0])
        done: dict[str, Batch] = {}
        pace = 1 if self.remembered is None else self.remembered.cell_px
        for name, values in raw.items():
            cut = Cut.draw(rng, self.batch_size, self.size_px, self.crop_px, turn=self.turn, pace=pace)
            cut = cut.part(self.rank, self.replicas).to(self.device)
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)) + self.rank)
            done[name] = self._batch(values, cut, generator)
            if self.remembered is not None:
                done[name].tokens = self.remembered.of(self._mine(step), cut)
        return replace(done.pop(""), others=done)

    def _batch(self, raw: Raw, cut: Cut, generator: torch.Generator) -> Batch:
        tensors = {name: value.to(self.device) for name, value in raw.items() if isinstance(value, Tensor)}
        found = {
            name: cut(value, _factor(value, self.size_px))
            for name, value in tensors.items()
            if name in (*self.bands, *self.labels, "scl")
        }
        labels = {name: found[name] for name in self.labels}
        values = physical({name: value for name, value in found.items() if name in self.bands}, fill=None)
        sensors = {key: _joined(values, self.bands, key) for key in ("s1", "s2")}
        masks: dict[str, Tensor | None] = {"s1": None, "s2": None}
        for key, (pixels, _) in sensors.items():
            if pixels is not None:
                masks[key] = pixels.isfinite().all(dim=1)
        if masks["s2"] is not None and "scl" in found:
            masks["s2"] &= ~cloudy(found["scl"])
        months = tensors.get("doy")
        places = ("lat", "lon")
        s2 = sensors["s2"][0]
        return Batch(
            s1=None if sensors["s1"][0] is None else sensors["s1"][0].nan_to_num(0.0),
            s2=None if s2 is None else s2.nan_to_num(0.0) * REFLECTANCE_SCALE,
            s1_mask=masks["s1"],
            s2_mask=masks["s2"],
            s1_bands=sensors["s1"][1],
            s2_bands=sensors["s2"][1],
            month=None if months is None else month_of(months),
            latlon=torch.stack([tensors[name] for name in places], dim=1) if set(places) <= set(tensors) else None,
            labels=labels,
            sample=tensors["sample"],
            generator=generator,
        )


class _Steps:
    """The steps of a feed as items, for the workers of a DataLoader."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def __getitem__(self, step: int) -> dict[str, dict[str, Any]]:
        return self.feed._read(step)


def _joined(
    values: Mapping[str, Tensor], bands: Mapping[str, Sequence[str]], sensor: str
) -> tuple[Tensor | None, tuple[str, ...]]:
    """The channels of a sensor in one tensor; corpora at each band's own resolution are not for models."""
    names = [name for name in values if name == sensor or name.startswith(f"{sensor}_")]
    if not names:
        return None, ()
    if len({values[name].shape[-1] for name in names}) > 1:
        raise InputError(
            "This corpus has each band at its own resolution (native=True); models learn from bands on one grid."
        )
    pixels = values[names[0]] if len(names) == 1 else torch.cat([values[name] for name in names], dim=1)
    return pixels, tuple(band for name in names for band in bands[name])


def _factor(values: Tensor, size: int) -> int:
    side = values.shape[-1]
    if side % size or values.shape[-2] != side:
        raise InputError(f"A mask of {side} px does not fit pixels of {size}: it is no whole number of times finer.")
    return side // size


__all__ = ["SENSORS", "Batch", "Feed", "bands_of", "corpora_of", "encode", "inputs"]
