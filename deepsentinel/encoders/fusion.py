"""Fusion: our own small encoder, in which what a sensor did not see is simply no token.

Each square of the ground gives one token of Sentinel-1 and two of Sentinel-2 (its bands of 10 m, and those of 20 m), as
far as they were seen. Where a token lies enters attention as a rotation of queries and keys (rotary embedding, Su et
al. 2021, along both axes) and never the tokens themselves: a vector says what is on the ground, not where in the
window, so that dense maps have no seams and no stripes to take off.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepsentinel.errors import InputError

from .base import Encoder, Scaler, Tokens, check_size
from .blocks import Blocks
from .inputs import check_months, month_table, sensors_given
from .patching import KERNEL_PX, fill_patches, resized_kernel, turns_a_px, turns_of
from .spec import EncoderSpec

GROUPS = {
    "S1": ("VV", "VH"),
    "S2_10m": ("B02", "B03", "B04", "B08"),
    "S2_20m": ("B05", "B06", "B07", "B8A", "B11", "B12"),
}
BASE_RESOLUTION_M = 10.0


class Fusion(Encoder):
    """One transformer over the tokens of both sensors.

    Height and width are multiples of the patch, otherwise free. A token is seen where at least `usable_share` of its
    pixels are usable; its other pixels then become the mean of those. A vector has a part for each band group, one
    after the other: in `dense` the token of the cell, in `pooled` the mean of the group's tokens that were seen. The
    part of a group that was not seen is 0; where nothing at all was seen, a cell or a whole sample, the vector is NaN.
    Without a month, nothing is said about it.
    """

    usable_share: float = 0.5
    """How much of a patch must be usable for it to be seen."""
    months: Tensor
    turns_a_px: Tensor

    def __init__(self, spec: EncoderSpec, *, depth: int, heads: int) -> None:
        super().__init__(spec)
        width = spec.width // len(GROUPS)
        if spec.s1_scaling is None or spec.s2_scaling is None:
            raise InputError(f"{spec.name} needs the scaling of both sensors.")
        if spec.width % len(GROUPS) or width % (4 * heads):
            raise InputError(
                f"{spec.name}: {spec.width} numbers do not divide into groups, {heads} heads and two axes."
            )
        self.scalers = nn.ModuleDict({"S1": Scaler(spec.s1_scaling), "S2": Scaler(spec.s2_scaling)})
        self.kernels = nn.ModuleDict(
            {name: nn.Conv2d(len(bands), width, KERNEL_PX, KERNEL_PX) for name, bands in GROUPS.items()}
        )
        self.group = nn.Parameter(0.02 * torch.randn(len(GROUPS), width))
        self.season = nn.Linear(2, width, bias=False)
        self.blocks = Blocks(depth, width, heads, hidden=4 * width)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("months", month_table(2), persistent=False)
        self.register_buffer("turns_a_px", turns_a_px(width // heads // 4), persistent=False)

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
        """Encode a batch, see `Encoder.forward`."""
        given = sensors_given(self.spec, s1, s2, s1_mask, s2_mask, missing)
        patch, height, width = check_size(self.spec, given[0].pixels, patch_px)
        batch = given[0].sides[0]
        parts: dict[int, Tensor] = {}
        seen: dict[int, Tensor] = {}
        for sensor in given:
            values = self.scalers[sensor.name](sensor.pixels)
            visible = torch.ones(batch, height, width, dtype=torch.bool, device=values.device)
            if sensor.mask is not None:
                values, some = fill_patches(values, sensor.mask, patch, self.usable_share)
                visible = some[:, 0]
            for row, (name, bands) in enumerate(GROUPS.items()):
                if not set(bands) <= set(sensor.bands) or set(bands) <= set(missing):
                    continue
                group = values[:, 0, [sensor.bands.index(band) for band in bands]]
                gone = [place for place, band in enumerate(bands) if band in missing]
                if gone:  # 0 is the mean, which adds nothing
                    group = group.index_fill(1, torch.tensor(gone, device=group.device), 0.0)
                parts[row] = self._embed(name, group, patch) + self.group[row]
                seen[row] = visible
        if not parts:
            raise InputError(f"All bands of {self.spec.name} are missing; nothing is left to encode.")
        tokens, keep = torch.stack(list(parts.values()), dim=1), torch.stack(list(seen.values()), dim=1)
        if month is not None:
            months = check_months(month, batch, 1, tokens.device, default=0)
            tokens = tokens + self.season(self.months[months[:, 0]]).view(batch, 1, 1, 1, -1)
        turns = turns_of(height, width, self.turns_a_px * (patch * resolution_m / BASE_RESOLUTION_M))
        # Where all is there, no token need be sorted out.
        some_hidden = any(sensor.mask is not None for sensor in given) and not bool(keep.all())
        done = self.blocks.run(
            tokens.flatten(1, 3), keep.flatten(1) if some_hidden else None, turns.repeat(len(parts), 1)
        )
        return side_by_side(dict(zip(parts, self.norm(done).view(tokens.shape).unbind(1), strict=True)), seen)

    def _embed(self, name: str, values: Tensor, patch: int) -> Tensor:
        """(B, C, H, W) -> (B, h, w, D)."""
        kernel = self.kernels[name]
        assert isinstance(kernel, nn.Conv2d)
        weight = resized_kernel(kernel.weight, patch)
        return F.conv2d(values.to(weight.dtype), weight, kernel.bias, stride=patch).permute(0, 2, 3, 1)


def side_by_side(tokens: Mapping[int, Tensor], seen: Mapping[int, Tensor]) -> Tokens:
    """(B, h, w, D) of some groups, and where they were seen (B, h, w): the vectors of cells and of samples."""
    first = next(iter(tokens.values()))
    cells: list[Tensor] = []
    whole: list[Tensor] = []
    for row in range(len(GROUPS)):
        if row not in tokens:
            cells.append(torch.zeros_like(first))
            whole.append(torch.zeros_like(first[:, 0, 0]))
            continue
        here = seen[row].unsqueeze(-1)
        cells.append(torch.where(here, tokens[row], 0.0))
        whole.append(cells[-1].sum(dim=(1, 2)) / here.sum(dim=(1, 2)).clamp(min=1))
    any_seen = torch.stack(list(seen.values())).any(dim=0).unsqueeze(-1)
    return Tokens(
        pooled=torch.where(any_seen.any(dim=2).any(dim=1), torch.cat(whole, dim=-1), torch.nan),
        dense=torch.where(any_seen, torch.cat(cells, dim=-1), torch.nan),
    )


def build(spec: EncoderSpec) -> Fusion:
    """An untrained encoder of the size that the spec's options name.

    >>> from deepsentinel.encoders.registry import find
    >>> build(find("fusion-nano"))(torch.full((1, 2, 16, 24), -12.0)).dense.shape
    torch.Size([1, 2, 3, 384])
    """
    depth, heads = spec.options["depth"], spec.options["heads"]
    if not isinstance(depth, int) or not isinstance(heads, int):
        raise InputError(f"{spec.name}: options {dict(spec.options)} name no depth and heads.")
    return Fusion(spec, depth=depth, heads=heads)
