"""Backbones that are trained here from nothing: convolutions and attention over ever coarser levels, built by timm.

Both sensors are one image of 16 channels: those of Sentinel-1, those of Sentinel-2, and two that say which pixels of
each were seen. What was not seen is 0 after scaling, which is the mean; only these last two tell it from ground that is
average.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepsentinel.errors import InputError

from .base import Encoder, Scaler, Tokens, check_size
from .inputs import sensors_given
from .spec import EncoderSpec

# Every backbone halves the sides this often, however many of the levels between it gives.
COARSEST_PX = 32


class ConvEncoder(Encoder):
    """A backbone with a level for each stride.

    The first layer has 16 inputs: VV, VH, the 12 bands of level 2A, then the share of each sensor's bands that is there
    in a pixel (0 where it is masked or the sensor is not given). Which of a sensor's bands are missing is not told
    apart. Height and width are multiples of 8, otherwise free: up to the next multiple of 32, pixels that were not seen
    are added below and to the right, and taken off again.

    `dense` has, for each cell of 8 px, the level of that stride and the coarser ones brought to it (bilinear), one
    after the other along the vector, so that it knows the detail and what lies around it; `pooled` is the mean of
    `dense`, in which a cell counts as often as it has pixels that were seen. Where nothing was seen, a cell or a whole
    sample, the vector is NaN. What was not seen still has a say in cells next to it: by its absence, not its values.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(spec)
        import timm

        if spec.s1_scaling is None or spec.s2_scaling is None:
            raise InputError(f"{spec.name} needs the scaling of both sensors.")
        self.scalers = nn.ModuleDict({"S1": Scaler(spec.s1_scaling), "S2": Scaler(spec.s2_scaling)})
        inputs = len(spec.s1_bands) + len(spec.s2_bands) + 2
        backbone: Any = timm.create_model(
            str(spec.options["backbone"]), pretrained=False, features_only=True, in_chans=inputs
        )
        self.backbone = backbone
        given = dict(zip(backbone.feature_info.reduction(), backbone.feature_info.channels(), strict=True))
        self._channels = {1: inputs} | {2**step: given.get(2**step, 0) for step in range(1, COARSEST_PX.bit_length())}
        width = sum(count for stride, count in self._channels.items() if stride >= spec.patch_px)
        if width != spec.width or max(given) != COARSEST_PX:
            raise InputError(f"{spec.name} has levels {given}, which make {width} numbers and not {spec.width}.")

    @property
    def strides(self) -> tuple[int, ...]:
        """How many pixels lie between the cells of each level of `features`: 1, 2, 4, 8, 16, 32."""
        return tuple(self._channels)

    @property
    def channels(self) -> tuple[int, ...]:
        """How many channels each level has; 0 where the backbone has no level of that stride."""
        return tuple(self._channels.values())

    def features(
        self,
        s1: Tensor | None = None,
        s2: Tensor | None = None,
        *,
        s1_mask: Tensor | None = None,
        s2_mask: Tensor | None = None,
        missing: Collection[str] = (),
    ) -> list[Tensor]:
        """The levels, (B, channels, H / stride, W / stride) rounded up, from the scaled input to the coarsest.

        This is what decoders of U-Nets take, such as segmentation-models-pytorch's with `encoder_channels=channels`.
        """
        image, _ = self._image(s1, s2, s1_mask, s2_mask, missing)
        height, width = image.shape[-2:]
        return [
            level[..., : -(-height // stride), : -(-width // stride)]
            for level, stride in zip(self._levels(image), self.strides, strict=True)
        ]

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
        """Encode a batch, see `Encoder.forward`; it has no use for months, places and resolutions."""
        image, seen = self._image(s1, s2, s1_mask, s2_mask, missing)
        patch, rows, columns = check_size(self.spec, image, patch_px)
        used = [level for level, stride in zip(self._levels(image), self.strides, strict=True) if stride >= patch]
        sides = used[0].shape[-2:]
        used[1:] = [F.interpolate(level, sides, mode="bilinear", align_corners=False) for level in used[1:]]
        dense = torch.cat(used, dim=1)[..., :rows, :columns].permute(0, 2, 3, 1)
        return _of_what_was_seen(dense, F.avg_pool2d(seen.float(), patch).squeeze(1).unsqueeze(-1))

    def _image(
        self,
        s1: Tensor | None,
        s2: Tensor | None,
        s1_mask: Tensor | None,
        s2_mask: Tensor | None,
        missing: Collection[str],
    ) -> tuple[Tensor, Tensor]:
        """(B, 16, H, W) for the first layer, and (B, 1, H, W): where anything was seen."""
        given = {sensor.name: sensor for sensor in sensors_given(self.spec, s1, s2, s1_mask, s2_mask, missing)}
        first = next(iter(given.values()))
        batch, _, height, width = first.sides
        check_size(self.spec, first.pixels)
        like = next(self.backbone.parameters())
        bands: list[Tensor] = []
        shares: list[Tensor] = []
        for name, scaler in self.scalers.items():
            sensor = given.get(name)
            if sensor is None:
                count = len(self.spec.s1_bands if name == "S1" else self.spec.s2_bands)
                bands.append(like.new_zeros(batch, count, height, width))
                shares.append(like.new_zeros(batch, 1, height, width))
                continue
            there = torch.tensor([band not in missing for band in sensor.bands], device=sensor.pixels.device)
            keep = there.view(1, -1, 1, 1).expand(batch, -1, height, width)
            if sensor.mask is not None:
                keep = keep & sensor.mask
            values = torch.where(keep, scaler(sensor.pixels[:, 0]), 0.0)
            bands.append(values.to(like.dtype))
            shares.append(keep.to(like.dtype).mean(dim=1, keepdim=True))
        if all(band in missing for sensor in given.values() for band in sensor.bands):
            raise InputError(f"Of {self.spec.name} every band is missing; nothing is left to encode.")
        seen = torch.cat(shares, dim=1)
        return torch.cat([*bands, seen], dim=1), (seen > 0).any(dim=1, keepdim=True)

    def _levels(self, image: Tensor) -> Sequence[Tensor]:
        """One level a stride; those that the backbone has not are there without channels. Sides are padded."""
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % COARSEST_PX, 0, -height % COARSEST_PX))
        # With the channels of a pixel side by side a ResNet-50 takes a quarter less time on a processor.
        # The weights stay as they are: files of safetensors hold no others.
        made = iter(self.backbone(image.contiguous(memory_format=torch.channels_last)))
        levels = [image]
        for stride, count in list(self._channels.items())[1:]:
            sides = [side // stride for side in image.shape[-2:]]
            levels.append(next(made) if count else image.new_zeros(len(image), 0, *sides))
        return levels


def _of_what_was_seen(dense: Tensor, shares: Tensor) -> Tokens:
    """Vectors (B, h, w, D) and the share of each cell that was seen (B, h, w, 1): NaN where none was."""
    total = shares.sum(dim=(1, 2))
    # Divided by 1 where there is nothing to divide: the gradient of 0 / 0 is NaN in every weight, asked for or not.
    mean = (dense * shares).sum(dim=(1, 2)) / torch.where(total > 0, total, 1.0)
    pooled = torch.where(total > 0, mean, torch.nan).to(dense.dtype)
    return Tokens(pooled=pooled, dense=torch.where(shares > 0, dense, torch.nan))


def build(spec: EncoderSpec) -> ConvEncoder:
    """An untrained backbone.

    >>> from deepsentinel.encoders.registry import find
    >>> encoder = build(find("convnext-atto"))
    >>> [tuple(level.shape[1:]) for level in encoder.features(torch.full((1, 2, 32, 64), -12.0))][::2]
    [(16, 32, 64), (40, 8, 16), (160, 2, 4)]
    """
    return ConvEncoder(spec)
