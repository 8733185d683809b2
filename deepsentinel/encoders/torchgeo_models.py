"""Backbones of timm and torchgeo behind the common interface; both libraries are imported when one is first built.

Each wrapper calls the parts of a model itself instead of its `forward`: that gives the vectors of the cells too, other
sizes than the trained one (position embeddings are interpolated), and one sensor alone where the library's own
`forward` wants both.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from deepsentinel.errors import InputError

from .base import Encoder, Scaler, Tokens, check_mode, check_size, load_strictly
from .spec import EncoderSpec

# CROMA's attention looks at distances between cells; the tables for a few sizes are kept.
BIASES_KEPT = 8
KM2_OF_M2 = 1e-6


class Wrapped(Encoder):
    """What all of them share: scaling, masks by the window's mean, and bands that may be left out."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(spec)
        self.s1_scaler = Scaler(spec.s1_scaling) if spec.s1_scaling else None
        self.s2_scaler = Scaler(spec.s2_scaling) if spec.s2_scaling else None

    def scaled(
        self, s1: Tensor | None, s2: Tensor | None, masks: Sequence[Tensor | None], missing: Collection[str]
    ) -> tuple[Tensor | None, Tensor | None, list[str]]:
        """Both sensors as the authors scaled them, without the missing bands, and the names of the channels left."""
        spec, names, done = self.spec, list[str](), list[Tensor | None]()
        sensors = ((s1, spec.s1_bands, self.s1_scaler), (s2, spec.s2_bands, self.s2_scaler))
        for (pixels, bands, scaler), mask in zip(sensors, masks, strict=True):
            if pixels is None or scaler is None:
                done.append(None)
                continue
            here = [position for position, band in enumerate(bands) if band not in missing]
            if len(here) < len(bands) and (not spec.any_bands or not here):
                gone = " ".join(band for band in bands if band in missing)
                raise InputError(f"{spec.name} needs all of {' '.join(bands)}; {gone} is missing.")
            if len(here) < len(bands):
                done.append(scaler(pixels[:, here], mask, here))
            else:
                done.append(scaler(pixels, mask))
            names += [bands[position] for position in here]
        return done[0], done[1], names


class Backbone(Wrapped):
    """A timm ResNet or vision transformer for one sensor."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(spec)
        import timm

        name = str(spec.options["model"])
        self.convolutional = name.startswith("resnet")
        sizes: dict[str, Any] = {} if self.convolutional else {"img_size": spec.size_px, "dynamic_img_size": True}
        channels = len(spec.s1_bands or spec.s2_bands)
        self.model: Any = timm.create_model(name, in_chans=channels, num_classes=0, **sizes)

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
        """See `Encoder.forward`. A transformer's pooled vector is its class token, as its authors used it."""
        check_mode(self.spec, s1, s2)
        first, second, _ = self.scaled(s1, s2, (s1_mask, s2_mask), missing)
        pixels = cast(Tensor, first if second is None else second)
        _, rows, columns = check_size(self.spec, pixels, patch_px)
        features = self.model.forward_features(pixels)
        pooled = self.model.forward_head(features, pre_logits=True)
        if self.convolutional:
            return Tokens(pooled, features.permute(0, 2, 3, 1))
        return Tokens(pooled, features[:, -rows * columns :].unflatten(1, (rows, columns)))

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Take the authors' checkpoint; a head for classes is left out, and a transformer may lack its last norm."""
        heads = ("fc.weight", "fc.bias", "head.weight", "head.bias")
        kept = {name: value for name, value in state.items() if name not in heads}
        load_strictly(self.model, kept, optional=("norm.weight", "norm.bias"))


class Croma(Wrapped):
    """CROMA: one encoder a sensor, and one that joins them."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(spec)
        from torchgeo.models import CROMA

        # Its own table of distances is built for one square size, slowly; 8 px is the quickest, and it is not used.
        options: Any = spec.options
        self.model: Any = CROMA(
            encoder_dim=options["width"], encoder_depth=options["depth"], patch_size=8, image_size=8
        )
        self._biases: dict[tuple[int, int, torch.device], Tensor] = {}

    def bias(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """What attention between two cells loses with their distance, by head: (1, heads, cells, cells)."""
        key = (rows, columns, device)
        if key not in self._biases:
            heads = self.model.num_heads
            slopes = torch.tensor([2.0 ** (-8.0 * (head + 1) / heads) for head in range(heads)])
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            places = torch.stack([y.flatten(), x.flatten()], dim=1).double()
            distance = torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist").float()
            if len(self._biases) >= BIASES_KEPT:
                self._biases.clear()
            self._biases[key] = (-slopes[:, None, None] * distance)[None].to(device)
        return self._biases[key]

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
        """See `Encoder.forward`. With both sensors the joint encoder's mean; with one, that sensor's pooled vector."""
        mode = check_mode(self.spec, s1, s2)
        radar, optical, _ = self.scaled(s1, s2, (s1_mask, s2_mask), missing)
        pixels = cast(Tensor, radar if optical is None else optical)
        _, rows, columns = check_size(self.spec, pixels, patch_px)
        bias = self.bias(rows, columns, pixels.device)
        model = self.model
        if mode == "s1":
            cells = model.s1_encoder(imgs=radar, attn_bias=bias)
            pooled = model.s1_GAP_FFN(cells.mean(dim=1))
        elif mode == "s2":
            cells = model.s2_encoder(imgs=optical, attn_bias=bias)
            pooled = model.s2_GAP_FFN(cells.mean(dim=1))
        else:
            cells = model.joint_encoder(
                x=model.s1_encoder(imgs=radar, attn_bias=bias),
                context=model.s2_encoder(imgs=optical, attn_bias=bias),
                relative_position_bias=bias,
            )
            pooled = cells.mean(dim=1)
        return Tokens(pooled, cells.unflatten(1, (rows, columns)))

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Take the authors' checkpoint: one group of names a part, of which the table of distances is none."""
        load_strictly(self.model, state, optional=("attn_bias",))


class Wavelengths(Wrapped):
    """DOFA and Copernicus-FM: the first layer is made from the wavelengths of whatever channels there are."""

    def __init__(self, spec: EncoderSpec, model: nn.Module) -> None:
        super().__init__(spec)
        self.model = model
        self.channels = cast(Mapping[str, Any], spec.options["channels"])

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Take the authors' checkpoint; the norm after pooling was never trained."""
        load_strictly(self.model, state, optional=("fc_norm.weight", "fc_norm.bias"))

    def run(self, cells: Tensor, grid: tuple[int, int], extra: Tensor | float = 0.0) -> Tokens:
        """The transformer over embedded cells; `extra` (B, 1, D) is added to every position."""
        model: Any = self.model
        positions = positions_for(model.pos_embed, grid) + extra
        first = (model.cls_token + positions[:, :1]).expand(cells.shape[0], -1, -1)
        tokens = torch.cat([first, cells + positions[:, 1:]], dim=1)
        for block in model.blocks:
            tokens = block(tokens)
        cells = tokens[:, 1:]
        return Tokens(model.fc_norm(cells.mean(dim=1)), model.fc_norm(cells).unflatten(1, grid))


class Dofa(Wavelengths):
    """DOFA."""

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
        first, second, names = self.scaled(s1, s2, (s1_mask, s2_mask), missing)
        pixels = cast(Tensor, first if second is None else second)
        _, rows, columns = check_size(self.spec, pixels, patch_px)
        waves = torch.tensor([self.channels[name] for name in names], device=pixels.device)
        model: Any = self.model
        cells, _ = model.patch_embed(pixels, waves)
        return self.run(cells, (rows, columns))


class CopernicusFm(Wavelengths):
    """Copernicus-FM: also told where it is and how large a cell is."""

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
        """See `Encoder.forward`. It knows days, not months, so that its token for an unknown date is used."""
        check_mode(self.spec, s1, s2)
        first, second, names = self.scaled(s1, s2, (s1_mask, s2_mask), missing)
        pixels = cast(Tensor, first if second is None else second)
        patch, rows, columns = check_size(self.spec, pixels, patch_px)
        model: Any = self.model
        waves, widths = torch.tensor([self.channels[name] for name in names], device=pixels.device).T
        cells = model.patch_embed_spectral(pixels, wavelengths=waves, bandwidths=widths, kernel_size=patch)
        area_km2 = torch.full((1,), (patch * resolution_m) ** 2 * KM2_OF_M2, device=pixels.device)
        extra = model.scale_fc(model.get_area_pos_embed(area_km2, self.spec.width)) + model.time_fc(model.time_token)
        place = model.coord_token
        if latlon is not None:
            known = latlon.isfinite().all(dim=1)
            lat, lon = torch.where(known[:, None], latlon, 0.0).to(pixels.device).unbind(dim=1)
            place = torch.where(known[:, None, None], model.get_coord_pos_embed(lon, lat, self.spec.width), place)
        return self.run(cells, (rows, columns), extra + model.coord_fc(place))


class Panopticon(Wrapped):
    """Panopticon: every channel is embedded by itself, then joined by attention over the channels."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(spec)
        from torchgeo.models import Panopticon as Model

        self.model = Model().model
        self.channels = cast(Mapping[str, int], spec.options["channels"])

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
        first, second, names = self.scaled(s1, s2, (s1_mask, s2_mask), missing)
        pixels = torch.cat([part for part in (first, second) if part is not None], dim=1)
        _, rows, columns = check_size(self.spec, pixels, patch_px)
        model: Any = self.model
        # A new tensor each time: the model writes into it.
        channels = torch.tensor([[self.channels[name] for name in names]], device=pixels.device).float()
        cells = model.patch_embed({"imgs": pixels, "chn_ids": channels.repeat(len(pixels), 1)})
        tokens = torch.cat([model.cls_token.expand(len(pixels), -1, -1), cells], dim=1)
        tokens = tokens + positions_for(model.pos_embed, (rows, columns))
        for block in model.blocks:
            tokens = block(tokens)
        tokens = model.norm(tokens)
        return Tokens(tokens[:, 0], tokens[:, 1:].unflatten(1, (rows, columns)))

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Take the authors' checkpoint, whose positions are those of 518 px and whose mask token is for training."""
        kept = {name: value for name, value in state.items() if name != "mask_token"}
        side = cast(int, self.spec.size_px) // self.spec.patch_px
        if "pos_embed" in kept and kept["pos_embed"].ndim == 3:
            kept["pos_embed"] = positions_for(kept["pos_embed"], (side, side))
        load_strictly(self.model, kept)


def positions_for(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings (1, 1 + n * n, D) of a square for another grid, the class token's kept.

    >>> positions_for(torch.zeros(1, 1 + 4, 3), (2, 5)).shape
    torch.Size([1, 11, 3])
    """
    side = math.isqrt(table.shape[1] - 1)
    if grid == (side, side) or table.shape[1] != 1 + side * side:
        return table
    square = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(square.float(), size=grid, mode="bicubic", antialias=True).to(table.dtype)
    return torch.cat([table[:, :1], resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def build_timm(spec: EncoderSpec) -> Encoder:
    """A ResNet or vision transformer, untrained."""
    return Backbone(spec)


def build_croma(spec: EncoderSpec) -> Encoder:
    """CROMA, untrained."""
    return Croma(spec)


def build_dofa(spec: EncoderSpec) -> Encoder:
    """DOFA, untrained."""
    import torchgeo.models

    return Dofa(spec, getattr(torchgeo.models, str(spec.options["model"]))(num_classes=0))


def build_copernicus_fm(spec: EncoderSpec) -> Encoder:
    """Copernicus-FM, untrained."""
    from torchgeo.models import copernicusfm_base

    return CopernicusFm(spec, copernicusfm_base())


def build_panopticon(spec: EncoderSpec) -> Encoder:
    """Panopticon, untrained."""
    return Panopticon(spec)
