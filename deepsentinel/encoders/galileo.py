"""Galileo: tokens of small squares of each band group, seen or not, through one transformer.

Written afresh after the published model (Tseng et al., "Galileo: Learning Global & Local Features of Many Remote
Sensing Modalities", 2025) for its Sentinel-1 and Sentinel-2 groups; the authors' checkpoints load. What a sample lacks,
be it a sensor, a band, a date or a clouded square, is no token at all: it costs nothing and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepsentinel.errors import InputError

from .base import Encoder, Scaler, Tokens, check_size, load_strictly
from .blocks import Blocks
from .inputs import MAX_DATES, check_months, month_table, sensors_given
from .patching import KERNEL_PX, fill_patches, mean_seen, resized_kernel
from .spec import EncoderSpec

GROUPS = {
    "S1": ("VV", "VH"),
    "S2_RGB": ("B02", "B03", "B04"),
    "S2_Red_Edge": ("B05", "B06", "B07"),
    "S2_NIR_10m": ("B08",),
    "S2_NIR_20m": ("B8A",),
    "S2_SWIR": ("B11", "B12"),
}
# What the authors' checkpoints hold for inputs that are not ours.
OTHER_INPUTS = (
    *("sp_channel_embed", "t_channel_embed", "st_channel_embed"),
    *("space_time_embed.NDVI.", "space_embed.", "time_embed.", "static_embed."),
)
CHANNEL = "s_t_channel_embed"
# What the authors' own code puts where no month is known: June.
DEFAULT_MONTH = 5
# The resolution at which neighbouring patches of one pixel are one apart.
BASE_RESOLUTION_M = 10.0


class Galileo(Encoder):
    """The encoder of Galileo for Sentinel-1 and Sentinel-2.

    Height and width are multiples of the patch, otherwise free. A token is a patch of one band group on one date. It is
    seen where at least `usable_share` of its pixels are usable in all bands of the group; its other pixels then become
    the mean of those. `pooled` is the mean of all tokens seen, `dense` the mean in each cell, over groups and dates.
    Where nothing was seen, a cell or a whole sample, the vector is NaN. Sensors share the dates; where one of them has
    nothing on a date, its mask says so.
    """

    usable_share: float = 0.5
    """How much of a patch must be usable for it to be seen."""
    unused_weights: tuple[str, ...] = ()
    """What the loaded checkpoint holds beyond these groups (weather, elevation, land cover ...), by name."""

    def __init__(self, spec: EncoderSpec, *, depth: int, heads: int) -> None:
        super().__init__(spec)
        width = spec.width
        if spec.s1_scaling is None or spec.s2_scaling is None:
            raise InputError(f"{spec.name} needs the scaling of both sensors.")
        self.scalers = nn.ModuleDict({"S1": Scaler(spec.s1_scaling), "S2": Scaler(spec.s2_scaling)})
        self.kernels = nn.ModuleDict(
            {name: nn.Conv2d(len(bands), width, KERNEL_PX, KERNEL_PX) for name, bands in GROUPS.items()}
        )
        # A quarter of the width each says which group, which date, which month and where.
        self.channel = nn.Parameter(torch.zeros(len(GROUPS), width // 4))
        self.date = nn.Parameter(_waves(torch.arange(MAX_DATES), width // 4), requires_grad=False)
        self.month = nn.Parameter(month_table(width // 4), requires_grad=False)
        self.blocks = Blocks(depth, width, heads, hidden=4 * width)
        self.norm = nn.LayerNorm(width)

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
        """Encode a batch, see `Encoder.forward`.

        Without a month the authors' default holds, June. One month a sample means one date; a series has one a date.
        """
        given = sensors_given(self.spec, s1, s2, s1_mask, s2_mask, missing)
        patch, _, _ = check_size(self.spec, given[0].pixels, patch_px)
        parts: list[Tensor] = []
        seen: list[Tensor | None] = []
        rows: list[int] = []
        for sensor in given:
            values = self.scalers[sensor.name](sensor.pixels)
            visible = None
            if sensor.mask is not None:
                values, visible = fill_patches(values, sensor.mask, patch, self.usable_share)
            for row, (name, bands) in enumerate(GROUPS.items()):
                if set(bands) <= set(sensor.bands) and not set(bands) & set(missing):
                    channels = [sensor.bands.index(band) for band in bands]
                    parts.append(self._embed(name, values[:, :, channels], patch))
                    seen.append(visible)
                    rows.append(row)
        if not parts:
            raise InputError(f"Of every band group of {self.spec.name} a band is missing; nothing is left to encode.")
        return self._encode(torch.stack(parts, dim=2), seen, rows, month, patch * resolution_m / BASE_RESOLUTION_M)

    def _embed(self, name: str, values: Tensor, patch: int) -> Tensor:
        """(B, T, C, H, W) -> (B, T, h, w, D)."""
        kernel = self.kernels[name]
        assert isinstance(kernel, nn.Conv2d)
        weight = resized_kernel(kernel.weight, patch)
        tokens = F.conv2d(values.flatten(0, 1).to(weight.dtype), weight, kernel.bias, stride=patch)
        return tokens.permute(0, 2, 3, 1).unflatten(0, values.shape[:2])

    def _encode(
        self, tokens: Tensor, seen: list[Tensor | None], rows: list[int], month: Tensor | None, spacing: float
    ) -> Tokens:
        """(B, T, G, h, w, D): say what each token is, run the blocks over those seen, average."""
        batch, dates, groups, height, width, size = tokens.shape
        months = self.month[check_months(month, batch, dates, tokens.device, default=DEFAULT_MONTH)]
        sides = (batch, dates, groups, height, width, size // 4)
        place = _places(height, width, size // 4, spacing, tokens.device)
        code = (
            self.channel[rows].view(1, 1, groups, 1, 1, -1).expand(sides),
            self.date[:dates].view(1, dates, 1, 1, 1, -1).expand(sides),
            months.view(batch, dates, 1, 1, 1, -1).expand(sides),
            place.view(1, 1, 1, height, width, -1).expand(sides),
        )
        tokens = (tokens + torch.cat(code, dim=-1).to(self.channel.dtype)).flatten(1, 4)
        flat = (batch, dates * groups, height, width)
        if all(visible is None or bool(visible.all()) for visible in seen):
            return mean_seen(self.norm(self.blocks.run(tokens)).view(*flat, size))
        every = torch.ones(batch, dates, height, width, dtype=torch.bool, device=tokens.device)
        keep = torch.stack([every if visible is None else visible for visible in seen], dim=2).flatten(1, 4)
        return mean_seen(self.norm(self.blocks.run(tokens, keep)).view(*flat, size), keep.view(flat))

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Take the authors' `encoder.pt`, or what `state_dict` of one of ours gave.

        What it holds for other inputs is left out and named in `unused_weights`.
        """
        # The authors' own loader drops this part of a name, which some of their files have.
        known = {name.replace(".backbone", ""): values for name, values in state.items()}
        for at in [name.removesuffix("q.weight") for name in known if name.endswith(".attn.q.weight")]:
            for kind in ("weight", "bias"):
                names = [f"{at}{part}.{kind}" for part in "qkv"]
                if all(name in known for name in names):
                    known[f"{at}qkv.{kind}"] = torch.cat([known.pop(name) for name in names])
        unused = tuple(name for name in known if name.startswith(OTHER_INPUTS))
        if CHANNEL in known:
            known[CHANNEL] = known[CHANNEL][: len(GROUPS)]
            unused += (f"{CHANNEL} (its row for NDVI)",)
        load_strictly(self, {_our_name(name): known[name] for name in known if name not in unused})
        self.unused_weights = unused


def _our_name(name: str) -> str:
    """What the authors call by `name`; our own names stay as they are."""
    name = {CHANNEL: "channel", "pos_embed": "date", "month_embed.weight": "month"}.get(name, name)
    if name.startswith("space_time_embed."):
        name = name.replace("space_time_embed.", "kernels.").replace(".proj.", ".")
    return name.replace(".attn.", ".").replace(".mlp.", ".")


def _waves(position: Tensor, width: int) -> Tensor:
    """(N,) -> (N, width): sines, then cosines. The exponent is the authors', who divide by the width and by 2."""
    steps = torch.arange(width // 2, device=position.device) / width / 2.0
    angle = position[:, None] * 10_000.0**-steps
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _places(height: int, width: int, size: int, spacing: float, device: torch.device) -> Tensor:
    """(h, w, size): where a cell lies, in base pixels; the column first, then the row."""
    column = _waves(torch.arange(width, device=device) * spacing, size // 2)
    row = _waves(torch.arange(height, device=device) * spacing, size // 2)
    sides = (height, width, size // 2)
    return torch.cat([column[None].expand(sides), row[:, None].expand(sides)], dim=-1)


def build(spec: EncoderSpec) -> Galileo:
    """An untrained Galileo of the size that the spec's options name.

    >>> from deepsentinel.encoders.registry import find
    >>> build(find("galileo-nano"))(torch.full((1, 2, 16, 24), -12.0)).dense.shape
    torch.Size([1, 2, 3, 128])
    """
    depth, heads = spec.options["depth"], spec.options["heads"]
    if not isinstance(depth, int) or not isinstance(heads, int):
        raise InputError(f"{spec.name}: options {dict(spec.options)} name no depth and heads.")
    return Galileo(spec, depth=depth, heads=heads)
