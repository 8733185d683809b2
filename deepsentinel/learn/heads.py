"""What stands on an encoder to answer a question: a class for each pixel, shares of classes, numbers.

A cell of an encoder is several pixels wide, and a field does not end where a cell does. So a head for pixels looks at
the pixels too: a small U-Net whose deepest level is the encoder.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepsentinel.encoders.base import Encoder
from deepsentinel.encoders.conv import ConvEncoder

from .batches import Batch, encode, inputs
from .decoders import cells_of
from .targets import scaled

GROUPS = 8


def pixel_stack(batch: Batch, encoder: Encoder, sensors: str = "both") -> Tensor:
    """(B, C + 2, H, W): all bands of the encoder, scaled, 0 where not seen, and which sensor was seen where."""
    spec = encoder.spec
    given = inputs(spec, batch, sensors)
    parts: list[Tensor] = []
    seen: list[Tensor] = []
    like = batch.pixels
    for key, names in (("s1", spec.s1_bands), ("s2", spec.s2_bands)):
        if not names:
            continue
        if key not in given:
            parts.append(like.new_zeros(len(like), len(names), *like.shape[-2:]))
            seen.append(like.new_zeros(len(like), 1, *like.shape[-2:]))
            continue
        mask = given[f"{key}_mask"].unsqueeze(1)
        values = torch.where(mask, scaled(given[key], names), 0.0)
        if gone := [place for place, name in enumerate(names) if name in given["missing"]]:
            values = values.index_fill(1, torch.tensor(gone, device=values.device), 0.0)
        parts.append(values)
        seen.append(mask.to(values.dtype))
    return torch.cat([*parts, *seen], dim=1)


class PixelHead(nn.Module):
    """Numbers for each pixel, or `upscale` times finer, from the cells of an encoder and the pixels themselves."""

    def __init__(self, encoder: Encoder, out: int, *, size: int = 32, upscale: int = 1) -> None:
        super().__init__()
        spec = encoder.spec
        channels = sum(len(names) + 1 for names in (spec.s1_bands, spec.s2_bands) if names)
        self.upscale = upscale
        self.fine = nn.Sequential(_conv(channels, size), _conv(size, size))
        self.middle = nn.Sequential(_conv(size, 2 * size, stride=2), _conv(2 * size, 2 * size))
        self.deep = nn.Sequential(_conv(2 * size, 4 * size, stride=2), _conv(4 * size, 4 * size))
        self.cells = nn.Conv2d(spec.width, 4 * size, 1)
        self.join_deep = _conv(8 * size, 4 * size)
        self.join_middle = _conv(4 * size + 2 * size, 2 * size)
        self.join_fine = _conv(2 * size + size, size)
        self.leave = nn.Conv2d(size, out * upscale**2, 1)

    def forward(self, encoder: Encoder, batch: Batch, sensors: str) -> Tensor:
        """(B, out, H * upscale, W * upscale)."""
        fine = self.fine(pixel_stack(batch, encoder, sensors))
        middle = self.middle(fine)
        deep = self.deep(middle)
        cells = cells_of(encode(encoder, batch, sensors)).nan_to_num(0.0).permute(0, 3, 1, 2)
        cells = _to(self.cells(cells), deep)
        values = self.join_deep(torch.cat([deep, cells], dim=1))
        values = self.join_middle(torch.cat([middle, _to(values, middle)], dim=1))
        values = self.leave(self.join_fine(torch.cat([fine, _to(values, fine)], dim=1)))
        return F.pixel_shuffle(values, self.upscale) if self.upscale > 1 else values


class UnetHead(nn.Module):
    """The decoder of a U-Net on the levels of a convolutional encoder, as segmentation-models-pytorch has it."""

    def __init__(self, encoder: ConvEncoder, out: int, *, size: int = 32, upscale: int = 1) -> None:
        super().__init__()
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        self.upscale = upscale
        widths = tuple(size * times for times in (8, 4, 2, 1, 1))
        self.decoder: Any = UnetDecoder(encoder_channels=encoder.channels, decoder_channels=widths)
        self.leave = nn.Conv2d(widths[-1], out * upscale**2, 3, padding=1)

    def forward(self, encoder: ConvEncoder, batch: Batch, sensors: str) -> Tensor:
        """(B, out, H * upscale, W * upscale)."""
        levels = encoder.features(**inputs(encoder.spec, batch, sensors))
        values = self.leave(self.decoder(levels))
        return F.pixel_shuffle(values, self.upscale) if self.upscale > 1 else values


class LinearHead(nn.Module):
    """Numbers for a whole sample, from its one vector."""

    def __init__(self, encoder: Encoder, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(encoder.spec.width)
        self.leave = nn.Linear(encoder.spec.width, out)

    def forward(self, encoder: Encoder, batch: Batch, sensors: str) -> Tensor:
        """(B, out)."""
        return cast(Tensor, self.leave(self.norm(encode(encoder, batch, sensors).pooled.nan_to_num(0.0))))


class CellHead(nn.Module):
    """A linear answer for each cell, brought to pixels: what the vectors alone tell, and nothing else."""

    def __init__(self, encoder: Encoder, out: int, *, upscale: int = 1) -> None:
        super().__init__()
        self.upscale = upscale
        self.norm = nn.LayerNorm(encoder.spec.width)
        self.leave = nn.Linear(encoder.spec.width, out)

    def forward(self, encoder: Encoder, batch: Batch, sensors: str) -> Tensor:
        """(B, out, H * upscale, W * upscale)."""
        cells = cells_of(encode(encoder, batch, sensors)).nan_to_num(0.0)
        values = self.leave(self.norm(cells)).permute(0, 3, 1, 2)
        height, width = (side * self.upscale for side in batch.pixels.shape[-2:])
        return F.interpolate(values, (height, width), mode="bilinear", align_corners=False)


def pixel_head(encoder: Encoder, out: int, *, decoder: str = "auto", size: int = 32, upscale: int = 1) -> nn.Module:
    """The head for pixels that fits an encoder: "unet" where it has levels, "pixels" elsewhere; or "linear"."""
    if decoder == "linear":
        return CellHead(encoder, out, upscale=upscale)
    if isinstance(encoder, ConvEncoder) and decoder in ("auto", "unet"):
        return UnetHead(encoder, out, size=size, upscale=upscale)
    return PixelHead(encoder, out, size=size, upscale=upscale)


def _conv(channels: int, out: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False), nn.GroupNorm(GROUPS, out), nn.GELU()
    )


def _to(values: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(values, like.shape[-2:], mode="bilinear", align_corners=False)
