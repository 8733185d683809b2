"""OlmoEarth and TerraMind, through the packages of their authors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from .base import Encoder, Tokens, check_mode, check_size, load_strictly
from .spec import EncoderSpec
from .torchgeo_models import Wrapped

# What OlmoEarth's masks say of a token.
SEEN, MISSING = 0, 3
# Where no month is known: June. Day and year only count as distances between dates, of which there is one here.
DEFAULT_MONTH = 5
DAY, YEAR = 1, 2020


class OlmoEarth(Wrapped):
    """OlmoEarth's encoder; cells without a usable pixel are left out of its attention."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(spec)
        package: Any = import_module("olmoearth_pretrain_minimal")
        whole = package.OlmoEarthPretrain_v1(model_size=spec.options["size"], model_version=spec.options["version"])
        self.model: Any = whole.model.encoder
        # Its other inputs were only ever to be predicted.
        self.model.restrict_input_modalities(["sentinel2_l2a", "sentinel1", "landsat"])

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
        scaled = self.scaled(s1, s2, (s1_mask, s2_mask), missing)[:2]
        sample: dict[str, Tensor] = {}
        for name, pixels, mask in zip(("sentinel1", "sentinel2_l2a"), scaled, (s1_mask, s2_mask), strict=True):
            if pixels is None:
                continue
            patch, _, _ = check_size(self.spec, pixels, patch_px)
            batch, device = pixels.shape[0], pixels.device
            sample[name] = pixels.permute(0, 2, 3, 1).unsqueeze(3)
            sets = self.model.patch_embeddings.tokenization_config.get_num_bandsets(name)
            seen = torch.zeros((batch, *pixels.shape[-2:], 1, sets), dtype=torch.long, device=device)
            if mask is not None:
                seen += MISSING * ~_cells_with_any(mask, patch)[..., None, None]
            sample[f"{name}_mask"] = seen
        masks = [key for key in sample if key.endswith("_mask")]
        # A window of which nothing is known is encoded as one of the mean throughout: attention needs something.
        nothing = torch.stack([(sample[key] == MISSING).flatten(1).all(dim=1) for key in masks]).all(dim=0)
        for key in masks:
            sample[key] = torch.where(nothing.view(-1, 1, 1, 1, 1), SEEN, sample[key])
        months = torch.full((batch,), DEFAULT_MONTH, device=device) if month is None else month.to(device)
        sample["timestamps"] = torch.stack([torch.full_like(months, DAY), months, torch.full_like(months, YEAR)], 1)[
            :, None
        ]
        # Without masks the quick way; with them tokens are sorted by whether they are seen.
        quick = s1_mask is None and s2_mask is None
        types: Any = import_module("olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.datatypes")
        output = self.model(
            types.MaskedOlmoEarthSample(**sample), patch_size=patch, input_res=resolution_m, fast_pass=quick
        )
        return _pool(output["tokens_and_masks"], [key.removesuffix("_mask") for key in masks])

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Take the authors' checkpoint, of which only the encoder is needed."""
        load_strictly(self.model, _below(state, "encoder."))


def _cells_with_any(mask: Tensor, patch: int) -> Tensor:
    """(B, H, W) -> the same, True in all pixels of a cell where any of it is."""
    cells = mask.unflatten(2, (-1, patch)).unflatten(1, (-1, patch)).any(dim=4).any(dim=2)
    return cells.repeat_interleave(patch, 1).repeat_interleave(patch, 2)


def _pool(output: Any, names: list[str]) -> Tokens:
    """Means of the seen tokens, as the authors take them.

    Of the window: of all tokens, of which a sensor may have several in a cell. Of a cell: of the sensors, each the mean
    of its own tokens there. Cells in which nothing is seen get the window's.
    """
    tokens = [getattr(output, name).flatten(3, 4) for name in names]
    seen = [(getattr(output, f"{name}_mask").flatten(3, 4) == SEEN).unsqueeze(-1) for name in names]
    summed = torch.stack([(values * there).sum(dim=3) for values, there in zip(tokens, seen, strict=True)])
    count = torch.stack([there.sum(dim=3) for there in seen])
    pooled = summed.sum(dim=(0, 2, 3)) / count.sum(dim=(0, 2, 3))
    sensors = (count > 0).sum(dim=0)
    dense = (summed / count.clamp(min=1)).sum(dim=0) / sensors.clamp(min=1)
    return Tokens(pooled, torch.where(sensors > 0, dense, pooled[:, None, None]))


class TerraMind(Wrapped):
    """TerraMind's encoder; where both sensors are given, the mean of their tokens is taken cell by cell."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(spec)
        registry: Any = import_module("terratorch.registry")
        self.model: Any = registry.BACKBONE_REGISTRY.build(
            f"terratorch_{spec.options['model']}", modalities=["S1GRD", "S2L2A"], merge_method="mean", pretrained=False
        )

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
        radar, optical, _ = self.scaled(s1, s2, (s1_mask, s2_mask), missing)
        given = {name: part for name, part in (("S1GRD", radar), ("S2L2A", optical)) if part is not None}
        _, rows, columns = check_size(self.spec, next(iter(given.values())), patch_px)
        cells = self.model(given)[-1]
        return Tokens(cells.mean(dim=1), cells.unflatten(1, (rows, columns)))

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Take the authors' checkpoint; parts for other inputs and the decoder are left out."""
        wanted = self.model.state_dict()
        load_strictly(self.model, {name: value for name, value in state.items() if name in wanted})


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def build_olmoearth(spec: EncoderSpec) -> Encoder:
    """OlmoEarth's encoder, untrained."""
    return OlmoEarth(spec)


def build_terramind(spec: EncoderSpec) -> Encoder:
    """TerraMind's encoder, untrained."""
    return TerraMind(spec)
