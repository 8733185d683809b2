"""Presto: the months of one pixel, band group by band group, through one small transformer.

Written afresh after the published model (Tseng et al., "Lightweight, Pre-trained Transformers for Remote Sensing
Timeseries", 2023) for its Sentinel-1 and Sentinel-2 groups and NDVI; the authors' checkpoints load. What a pixel lacks
is no token at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from deepsentinel.errors import InputError

from .base import Encoder, Scaler, Tokens, check_size, load_strictly
from .blocks import Blocks, initialise
from .inputs import MAX_DATES, check_months, month_table, sensors_given
from .spec import EncoderSpec

# Each group, its bands and its row among the authors' groups; rows 6, 7 and 9 are weather, elevation and land cover.
GROUPS = {
    "S1": (("VV", "VH"), 0),
    "S2_RGB": (("B02", "B03", "B04"), 1),
    "S2_Red_Edge": (("B05", "B06", "B07"), 2),
    "S2_NIR_10m": (("B08",), 3),
    "S2_NIR_20m": (("B8A",), 4),
    "S2_SWIR": (("B11", "B12"), 5),
    "NDVI": (("B08", "B04"), 8),
}
DEPTH, HEADS = 2, 8
# What the authors' checkpoint holds for inputs that are not ours, and its decoder.
OTHER_INPUTS = ("decoder.", "dw_embed.", "eo_patch_embed.ERA5.", "eo_patch_embed.SRTM.")
CHANNEL = "channel_embed.weight"
# What the authors' own code puts where no month is known: January.
DEFAULT_MONTH = 0
# Tokens x width that are held at a time: a window of pixels has hundreds of times as many as it has pixels.
HELD_NUMBERS, HELD_NUMBERS_GPU = 2**24, 2**28


class Presto(Encoder):
    """The encoder of Presto for Sentinel-1 and Sentinel-2.

    Each pixel of a window goes through on its own: `dense` has a vector a pixel, `pooled` is their mean. Series have at
    most 24 dates, a month apart in the authors' training. The place is one token more, `latlon` (B, 2) for the whole
    window or (B, 2, H, W) for each pixel; without it that token is left out, which the authors' training never did. A
    pixel of which nothing is seen is NaN, and so is the mean of a window of such pixels.
    """

    unused_weights: tuple[str, ...] = ()
    """What the loaded checkpoint holds beyond these groups (weather, land cover, the decoder ...), by name."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(spec)
        width = spec.width
        if spec.s1_scaling is None or spec.s2_scaling is None:
            raise InputError(f"{spec.name} needs the scaling of both sensors.")
        self.scalers = nn.ModuleDict({"S1": Scaler(spec.s1_scaling), "S2": Scaler(spec.s2_scaling)})
        self.groups = nn.ModuleDict(
            {name: nn.Linear(1 if name == "NDVI" else len(bands), width) for name, (bands, _) in GROUPS.items()}
        )
        self.place = nn.Linear(3, width)
        for layer in (*self.groups.values(), self.place):
            initialise(layer)
        self.month = nn.Parameter(month_table(width // 4), requires_grad=False)
        self.channel = nn.Parameter(torch.randn(len(GROUPS), width // 4))
        self.date = nn.Parameter(_waves(MAX_DATES, width // 2).unsqueeze(0), requires_grad=False)
        self.blocks = Blocks(DEPTH, width, HEADS, hidden=4 * width)
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

        Without a month the authors' default holds, January. One month a sample means one date; a series has one a date.
        """
        given = sensors_given(self.spec, s1, s2, s1_mask, s2_mask, missing)
        check_size(self.spec, given[0].pixels, patch_px)
        values: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        for sensor in given:
            pixels = sensor.pixels
            if sensor.mask is not None:
                masks[sensor.name] = sensor.mask.permute(0, 2, 3, 1).flatten(0, 2)
                pixels = torch.where(sensor.mask.unsqueeze(2), pixels, 0.0)
            values[sensor.name] = self.scalers[sensor.name](pixels).permute(0, 3, 4, 1, 2).flatten(0, 2)
        batch, dates, height, width = given[0].sides
        names = self._names(values, missing)
        device = given[0].pixels.device
        months = check_months(month, batch, dates, device, default=DEFAULT_MONTH).repeat_interleave(height * width, 0)
        place = None if latlon is None else _cartesian(latlon, batch, height, width).to(device)

        step = (HELD_NUMBERS_GPU if device.type == "cuda" else HELD_NUMBERS) // (len(names) * dates * self.spec.width)
        parts = [
            self._pixels(
                names,
                {sensor: part[start : start + step] for sensor, part in values.items()},
                {sensor: part[start : start + step] for sensor, part in masks.items()},
                months[start : start + step],
                None if place is None else place[start : start + step],
            )
            for start in range(0, batch * height * width, step)
        ]
        dense = torch.cat(parts).view(batch, height, width, -1)
        if not masks:
            return Tokens(pooled=dense.mean(dim=(1, 2)), dense=dense)
        known = ~dense.isnan().any(dim=-1, keepdim=True)
        # Nothing known is 0 / 0: NaN, as promised.
        return Tokens(pooled=torch.where(known, dense, 0.0).sum(dim=(1, 2)) / known.sum(dim=(1, 2)), dense=dense)

    def _names(self, values: Mapping[str, Tensor], missing: Collection[str]) -> list[str]:
        names = [
            name
            for name, (bands, _) in GROUPS.items()
            if ("S1" if name == "S1" else "S2") in values and not set(bands) & set(missing)
        ]
        if not names:
            raise InputError(f"Of every band group of {self.spec.name} a band is missing; nothing is left to encode.")
        return names

    def _pixels(
        self,
        names: list[str],
        values: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        months: Tensor,
        place: Tensor | None,
    ) -> Tensor:
        """(N, T, C) a sensor, (N, T) masks and months, (N, 3) places -> (N, D)."""
        count, dates = months.shape
        when = self.month[months], self.date[:, :dates].expand(count, -1, -1)
        tokens, seen = [], []
        for name in names:
            sensor = "S1" if name == "S1" else "S2"
            row = list(GROUPS).index(name)
            channel = self.channel[row].expand(count, dates, -1)
            # A quarter of the width for the month, a quarter for the group, half for the place in the series.
            code = torch.cat([when[0], channel, when[1]], dim=-1)
            tokens.append(self.groups[name](self._bands(name, values[sensor])) + code)
            seen.append(masks[sensor] if sensor in masks else months.new_ones(months.shape, dtype=torch.bool))
        if place is not None:
            tokens.append(self.place(place.to(self.place.weight.dtype)).unsqueeze(1))
        sequence = torch.cat(tokens, dim=1)
        if not masks:
            return self.norm(self.blocks.run(sequence).mean(dim=1))
        keep = torch.cat(seen, dim=1)
        if place is not None:
            # A place alone is no observation.
            keep = torch.cat([keep, keep.any(dim=1, keepdim=True)], dim=1)
        counts = keep.sum(dim=1, keepdim=True)
        # Nothing seen is 0 / 0: NaN, as promised.
        return self.norm(self.blocks.run(sequence, keep).sum(dim=1) / counts)

    def _bands(self, name: str, pixels: Tensor) -> Tensor:
        """(N, T, C) scaled -> the values of one group."""
        bands = self.spec.s1_bands if name == "S1" else self.spec.s2_bands
        chosen = pixels[..., [bands.index(band) for band in GROUPS[name][0]]]
        if name == "NDVI":
            total = chosen.sum(dim=-1, keepdim=True)
            chosen = torch.where(total > 0, (chosen[..., :1] - chosen[..., 1:]) / total, 0.0)
        return chosen.to(self.place.weight.dtype)

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Take the authors' `default_model.pt`, or what `state_dict` of one of ours gave.

        What it holds for other inputs and for the decoder is left out and named in `unused_weights`.
        """
        known = {name.removeprefix("encoder."): values for name, values in state.items()}
        unused = tuple(name for name in known if name.startswith(OTHER_INPUTS))
        if CHANNEL in known:
            known[CHANNEL] = known[CHANNEL][[row for _, row in GROUPS.values()]]
            unused += (f"{CHANNEL} (its rows for other inputs)",)
        load_strictly(self, {_our_name(name): known[name] for name in known if name not in unused})
        self.unused_weights = unused


def _our_name(name: str) -> str:
    """What the authors call by `name`; our own names stay as they are."""
    name = {CHANNEL: "channel", "pos_embed": "date", "month_embed.weight": "month"}.get(name, name)
    for theirs, ours in (("eo_patch_embed.", "groups."), ("latlon_embed.", "place.")):
        if name.startswith(theirs):
            name = name.replace(theirs, ours)
    return name.replace(".attn.", ".").replace(".mlp.", ".")


def _cartesian(latlon: Tensor, batch: int, height: int, width: int) -> Tensor:
    """Degrees (B, 2) or (B, 2, H, W) -> (B * H * W, 3) on the unit sphere."""
    if tuple(latlon.shape) == (batch, 2):
        latlon = latlon[:, :, None, None].expand(-1, -1, height, width)
    if tuple(latlon.shape) != (batch, 2, height, width):
        raise InputError(
            f"latlon is {tuple(latlon.shape)}; ({batch}, 2) or ({batch}, 2, {height}, {width}) goes with the pixels."
        )
    lat, lon = torch.deg2rad(latlon).unbind(dim=1)
    return torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], dim=-1).flatten(0, 2)


def _waves(count: int, width: int) -> Tensor:
    """(count, width): sines and cosines in turn, of periods from 2 pi to 1000 times that."""
    pair = torch.arange(width) // 2
    angle = torch.arange(count)[:, None] / 1000.0 ** (2 * pair / width)
    return torch.where(torch.arange(width) % 2 == 0, angle.sin(), angle.cos())


def build(spec: EncoderSpec) -> Presto:
    """An untrained Presto.

    >>> from deepsentinel.encoders.registry import find
    >>> build(find("presto"))(torch.full((5, 12, 2, 1, 1), -12.0), month=torch.arange(12).expand(5, 12)).pooled.shape
    torch.Size([5, 128])
    """
    return Presto(spec)
