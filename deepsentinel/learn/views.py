"""Ways to show a batch: turned, jittered, or with squares of it hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from deepsentinel.encoders.spec import EncoderSpec

from .batches import Batch

# Light and moisture differ from day to day; so much is no reason to take a place for another.
S2_GAIN, S1_OFFSET_DB = 0.1, 0.8
# Of three ways to show a sample whose both sensors are there: half of them both, a quarter each one.
SINGLE_SHARE = 0.25


def jittered(batch: Batch) -> Batch:
    """Each band a little brighter or darker, the same all over a sample."""
    found = replace(batch, tokens=None)
    if batch.s2 is not None:
        gain = 1 + S2_GAIN * _normal(batch, batch.s2.shape[1])
        found = replace(found, s2=batch.s2 * gain)
    if batch.s1 is not None:
        found = replace(found, s1=batch.s1 + S1_OFFSET_DB * _normal(batch, batch.s1.shape[1]))
    return found


def another(batch: Batch) -> Batch:
    """The whole batch flipped and turned one of eight ways."""
    quarter, flip = torch.randint(4, (2,), generator=batch.generator).tolist()

    def turned(values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        values = values.flip(-1) if flip % 2 else values
        return torch.rot90(values, quarter, (-2, -1))

    return replace(
        batch,
        s1=turned(batch.s1), s2=turned(batch.s2), s1_mask=turned(batch.s1_mask), s2_mask=turned(batch.s2_mask),
        tokens=None,
    )  # fmt: skip


def kept_cells(batch: Batch, spec: EncoderSpec, share: float, *, patch_px: int | None = None) -> Batch:
    """Only some cells are shown, of each sensor others; an encoder that cannot mask is shown all."""
    if not spec.can_mask or share >= 1:
        return batch
    shown = [_kept(batch, patch_px or spec.patch_px, share) for _ in range(2)]
    return batch.seeing(s1_mask=_pixels(shown[0], batch), s2_mask=_pixels(shown[1], batch))


def hidden_cells(batch: Batch, patch_px: int, share: float, modes: Sequence[str]) -> tuple[Batch, dict[str, Tensor]]:
    """A share of the cells of each sensor is shown, and of some samples of one sensor alone; which ones are hidden.

    Of a sample that shows one sensor, twice as many of its cells are shown.
    """
    count = len(batch)
    which = torch.rand(count, generator=batch.generator).to(batch.pixels.device)
    single = "both" in modes and {"s1", "s2"} <= set(modes)
    only_s1 = which < SINGLE_SHARE if single else torch.zeros_like(which, dtype=torch.bool)
    only_s2 = which > 1 - SINGLE_SHARE if single else torch.zeros_like(only_s1)
    hidden: dict[str, Tensor] = {}
    for name, alone, gone in (("s1", only_s1, only_s2), ("s2", only_s2, only_s1)):
        few, many = (_kept(batch, patch_px, part) for part in (share, min(1.0, 2 * share)))
        sides = (-1, 1, 1)
        hidden[name] = ~torch.where(gone.view(sides), False, torch.where(alone.view(sides), many, few))
    return batch.seeing(s1_mask=~_pixels(hidden["s1"], batch), s2_mask=~_pixels(hidden["s2"], batch)), hidden


def _kept(batch: Batch, patch_px: int, share: float) -> Tensor:
    """(B, h, w) True for a share of the cells, as many in each sample."""
    height, width = (side // patch_px for side in batch.pixels.shape[-2:])
    draw = torch.rand(len(batch), height * width, generator=batch.generator)
    count = max(1, round(share * height * width))
    rank = draw.argsort(dim=1).argsort(dim=1)
    return (rank < count).view(-1, height, width).to(batch.pixels.device)


def _pixels(cells: Tensor, batch: Batch) -> Tensor:
    """Cells as pixels."""
    patch = batch.pixels.shape[-1] // cells.shape[-1]
    return cells.repeat_interleave(patch, dim=-2).repeat_interleave(patch, dim=-1)


def _normal(batch: Batch, bands: int) -> Tensor:
    return torch.randn(len(batch), bands, 1, 1, generator=batch.generator).to(batch.pixels.device)
