"""Levels of ever coarser cells, all equally wide, from any encoder: what detectors look for objects in.

An object of two pixels is less than a cell of any encoder. So a pyramid stands on the pixels themselves, a few
convolutions for each halving of the sides, and meets what the encoder sees on the way up: the levels of a convolutional
backbone each at its own stride, the cells of any other at that of 8.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepsentinel.encoders.base import Encoder
from deepsentinel.encoders.conv import ConvEncoder

from .batches import Batch, encode, inputs
from .decoders import cells_of
from .heads import _conv, pixel_stack

STRIDES = (2, 4, 8, 16)
# A level above the coarsest that is looked at tells what lies around.
TOP_PX = 32
# Where the cells of an encoder without levels come in.
CELL_PX = 8


def covered(batch: Batch) -> tuple[int, int]:
    """Height and width of a batch, up to the next multiple of what the coarsest level needs.

    So each level is exactly as many times smaller as its stride says, whatever the size of the crop.
    """
    height, width = (-(-side // TOP_PX) * TOP_PX for side in batch.pixels.shape[-2:])
    return height, width


class Pyramid(nn.Module):
    """Levels on the pixels and an encoder, each told what the coarser ones see (feature pyramid, Lin et al. 2017)."""

    def __init__(self, encoder: Encoder, width: int) -> None:
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork

        self.out_channels = width
        spec = encoder.spec
        channels = sum(len(names) + 1 for names in (spec.s1_bands, spec.s2_bands) if names)
        given = {CELL_PX: spec.width}
        if isinstance(encoder, ConvEncoder):
            levels = zip(encoder.strides, encoder.channels, strict=True)
            given = {stride: count for stride, count in levels if stride > 1 and count}
        self.strides = (*STRIDES, TOP_PX)
        self.begin = _conv(channels, width)
        self.down = nn.ModuleDict(
            {str(stride): nn.Sequential(_conv(width, width, stride=2), _conv(width, width)) for stride in self.strides}
        )
        self.enter = nn.ModuleDict({str(stride): nn.Conv2d(count, width, 1) for stride, count in given.items()})
        self.meet = nn.ModuleDict({name: _conv(2 * width, width) for name in self.enter})
        self.join = FeaturePyramidNetwork([width] * len(self.strides), width)

    def forward(self, encoder: Encoder, batch: Batch, sensors: str) -> OrderedDict[str, Tensor]:
        """(B, width, H / stride, W / stride) of each stride, from the finest; sides are those of `covered`."""
        sides = covered(batch)
        given = _given(encoder, batch, sensors)
        values = self.begin(_widened(pixel_stack(batch, encoder, sensors), sides, 1))
        levels: OrderedDict[str, Tensor] = OrderedDict()
        for stride, (name, down) in zip(self.strides, self.down.items(), strict=True):
            values = down(values)
            if name in self.enter:
                level = self.enter[name](given[stride])
                if not isinstance(encoder, ConvEncoder):
                    # Cells of other sizes than 8 px too, and the one vector of what has none.
                    near = [-(-side // stride) for side in batch.pixels.shape[-2:]]
                    level = F.interpolate(level, near, mode="bilinear", align_corners=False)
                values = self.meet[name](torch.cat([values, _widened(level, sides, stride)], dim=1))
            levels[name] = values
        joined = self.join(levels)
        return OrderedDict((str(stride), joined[str(stride)]) for stride in STRIDES)


def _given(encoder: Encoder, batch: Batch, sensors: str) -> dict[int, Tensor]:
    """What an encoder sees, by stride."""
    if isinstance(encoder, ConvEncoder):
        levels = encoder.features(**inputs(encoder.spec, batch, sensors))
        return dict(zip(encoder.strides, levels, strict=True))
    return {CELL_PX: cells_of(encode(encoder, batch, sensors)).nan_to_num(0.0).permute(0, 3, 1, 2)}


def _widened(level: Tensor, sides: tuple[int, int], stride: int) -> Tensor:
    """A level with nothing below and to the right of it, up to the sides asked for."""
    below, right = (side // stride - has for side, has in zip(sides, level.shape[-2:], strict=True))
    return F.pad(level, (0, right, 0, below)) if below or right else level
