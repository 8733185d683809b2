"""Encoders that were never trained, behind the interface of those that were."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection

import torch
from torch import Tensor, nn

from .base import Encoder, Scaler, Tokens, check_mode, check_size
from .spec import EncoderSpec
from .specs_baselines import CHANNELS, FILTERS, PERCENTILES

KERNEL_PX = 3


class Baseline(Encoder):
    """Both sensors as one stack of scaled channels, NaN where nothing is known."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(spec)
        assert spec.s1_scaling is not None
        assert spec.s2_scaling is not None
        self.scalers = nn.ModuleList([Scaler(spec.s1_scaling), Scaler(spec.s2_scaling)])

    @abstractmethod
    def encode(self, stack: Tensor, patch_px: int) -> Tokens:
        """(B, channels, H, W) with NaN -> tokens."""

    def forward(
        self,
        s1: Tensor | None = None,
        s2: Tensor | None = None,
        *,
        s1_mask: Tensor | None = None,
        s2_mask: Tensor | None = None,
        month: Tensor | None = None,
        latlon: Tensor | None = None,
        missing: Collection[str] = (),
        patch_px: int | None = None,
        resolution_m: float = 10.0,
    ) -> Tokens:
        """See `Encoder.forward`."""
        check_mode(self.spec, s1, s2)
        like = s1 if s1 is not None else s2
        assert like is not None
        patch, _, _ = check_size(self.spec, like, patch_px)
        parts = []
        sensors = ((s1, s1_mask, self.spec.s1_bands), (s2, s2_mask, self.spec.s2_bands))
        for (pixels, mask, bands), scaler in zip(sensors, self.scalers, strict=True):
            if pixels is None:
                parts.append(like.new_full((like.shape[0], len(bands), *like.shape[-2:]), torch.nan))
                continue
            values = scaler(pixels)
            if mask is not None:
                values = torch.where(mask.unsqueeze(1), values, torch.nan)
            gone = torch.tensor([band in missing for band in bands], device=values.device).view(-1, 1, 1)
            parts.append(torch.where(gone, torch.nan, values))
        return self.encode(torch.cat(parts, dim=1), patch)


class ImageStatistics(Baseline):
    """Per band: mean, standard deviation and three percentiles, of the window and of each cell."""

    def encode(self, stack: Tensor, patch_px: int) -> Tokens:
        """Statistics of the usable pixels; 0 (the mean of the z-score) where there are none."""
        cells = stack.unflatten(3, (-1, patch_px)).unflatten(2, (-1, patch_px)).permute(0, 2, 4, 1, 3, 5)
        return Tokens(_statistics(stack.flatten(2)), _statistics(cells.flatten(4)))


def _statistics(values: Tensor) -> Tensor:
    """(..., channels, pixels) -> (..., channels * statistics)."""
    mean = values.nanmean(dim=-1, keepdim=True)
    spread = (values - mean).square().nanmean(dim=-1, keepdim=True).sqrt()
    levels = torch.tensor(PERCENTILES, dtype=values.dtype, device=values.device)
    percentiles = torch.nanquantile(values, levels, dim=-1).movedim(0, -1)
    return torch.cat([mean, spread, percentiles], dim=-1).nan_to_num(0.0).flatten(-2)


class RandomConvolutions(Baseline):
    """Random filters, how strongly they answer and how strongly they do not, averaged over the window or each cell."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(spec)
        # Scaled as filters of any size are, so that their answers have a variance near one. Buffers, not parameters:
        # nothing here is to be trained.
        filters = torch.randn(FILTERS, CHANNELS, KERNEL_PX, KERNEL_PX)
        self.register_buffer("filters", filters / (CHANNELS * KERNEL_PX**2) ** 0.5)
        self.register_buffer("bias", torch.randn(FILTERS))

    def encode(self, stack: Tensor, patch_px: int) -> Tokens:
        """Averages over the usable pixels; the mean of the z-score where there are none."""
        known = stack.isfinite().any(dim=1, keepdim=True).to(stack.dtype)
        padded = nn.functional.pad(stack.nan_to_num(0.0), (KERNEL_PX // 2,) * 4, mode="replicate")
        answers = nn.functional.conv2d(padded, self.get_buffer("filters"), self.get_buffer("bias"))
        both = torch.cat([answers.relu(), (-answers).relu()], dim=1)
        pooled = _average(both, known, None).flatten(1)
        return Tokens(pooled, _average(both, known, patch_px).permute(0, 2, 3, 1))


def _average(values: Tensor, known: Tensor, side_px: int | None) -> Tensor:
    """The mean of what is known, over cells of a side or over everything; of everything where nothing is known."""
    known = torch.where(known.sum(dim=(-2, -1), keepdim=True) > 0, known, 1.0)
    if side_px is None:
        return (values * known).sum(dim=(-2, -1)) / known.sum(dim=(-2, -1))
    pool = nn.functional.avg_pool2d
    weight = pool(known, side_px)
    mean = pool(values * known, side_px) / weight.clamp(min=1e-6)
    return torch.where(weight > 0, mean, pool(values, side_px))


def build_statistics(spec: EncoderSpec) -> Encoder:
    """Image statistics."""
    return ImageStatistics(spec)


def build_convolutions(spec: EncoderSpec) -> Encoder:
    """Random convolutions."""
    return RandomConvolutions(spec)
