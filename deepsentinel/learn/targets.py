"""What the pixels of a cell look like, for models that learn to tell them: scaled bands, speckle averaged away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from deepsentinel.errors import InputError

from .batches import Batch

# Round numbers near those of land seen from above: dB, and reflectance x 10000.
MEAN_STD = {
    "VV": (-12.0, 5.0), "VH": (-19.0, 5.5), "HH": (-12.0, 5.0), "HV": (-19.0, 5.5),
    "B01": (500.0, 600.0), "B02": (600.0, 600.0), "B03": (850.0, 650.0), "B04": (900.0, 800.0),
    "B05": (1300.0, 800.0), "B06": (2200.0, 950.0), "B07": (2500.0, 1100.0), "B08": (2600.0, 1150.0),
    "B8A": (2750.0, 1150.0), "B09": (2700.0, 1200.0), "B10": (30.0, 60.0), "B11": (2200.0, 1050.0),
    "B12": (1450.0, 950.0),
}  # fmt: skip
LIMIT = 5.0
# Numbers along a side of a cell that are told of each sensor. A single look of radar is mostly noise, which nobody can
# foretell, so that its targets are means of more pixels.
S2_SIDE, S1_SIDE = 4, 2


@dataclass
class Target:
    """What is to be told of one sensor in each cell."""

    values: Tensor
    """(B, h, w, numbers) scaled."""
    known: Tensor
    """(B, h, w, numbers) bool."""


def scaled(pixels: Tensor, bands: Sequence[str]) -> Tensor:
    """(B, C, H, W) in the units of a Patch -> about -2 to 2, whatever the encoder makes of them itself.

    >>> scaled(torch.full((1, 1, 1, 1), -7.0), ["VV"]).item()
    1.0
    """
    unknown = [band for band in bands if band not in MEAN_STD]
    if unknown:
        raise InputError(
            f"No scaling is known for {', '.join(unknown)}; objectives rebuild bands of Sentinel-1 and -2."
        )
    mean, std = torch.tensor([MEAN_STD[band] for band in bands], device=pixels.device).view(-1, 2, 1, 1).unbind(1)
    return ((pixels - mean) / std).clamp(-LIMIT, LIMIT)


def unscaled(values: Tensor, bands: Sequence[str]) -> Tensor:
    """Back to the units of a Patch.

    >>> unscaled(scaled(torch.full((1, 1, 1, 1), 700.0), ["B03"]), ["B03"]).round().item()
    700.0
    """
    mean, std = torch.tensor([MEAN_STD[band] for band in bands], device=values.device).view(-1, 2, 1, 1).unbind(1)
    return values * std + mean


def targets(batch: Batch, height: int, width: int) -> dict[str, Target]:
    """Of each sensor in the batch, the means of a few squares of each of `height` x `width` cells."""
    found: dict[str, Target] = {}
    if batch.s1 is not None and batch.s1_mask is not None:
        # Power is averaged, not dB, which would be biased by the speckle.
        power = torch.pow(10.0, batch.s1 / 10)
        mean, known = _means(power, batch.s1_mask, height * S1_SIDE, width * S1_SIDE)
        decibels = 10 * torch.log10(mean.clamp(min=1e-6))
        found["s1"] = _cells(scaled(decibels, batch.s1_bands), known, S1_SIDE)
    if batch.s2 is not None and batch.s2_mask is not None:
        mean, known = _means(batch.s2, batch.s2_mask, height * S2_SIDE, width * S2_SIDE)
        found["s2"] = _cells(scaled(mean, batch.s2_bands), known, S2_SIDE)
    return found


def numbers(s1_bands: Sequence[str], s2_bands: Sequence[str]) -> dict[str, int]:
    """How many numbers are told of a cell.

    >>> numbers(["VV", "VH"], ["B02"])
    {'s1': 8, 's2': 16}
    """
    counts = {"s1": len(s1_bands) * S1_SIDE**2, "s2": len(s2_bands) * S2_SIDE**2}
    return {name: count for name, count in counts.items() if count}


def _means(pixels: Tensor, usable: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Means of the usable pixels in each square, and which squares have at least half of theirs."""
    height, width = pixels.shape[-2:]
    if rows > height or columns > width:  # cells of one or two pixels: each pixel stands for several numbers
        pixels, usable = (
            F.interpolate(value.float(), (max(rows, height), max(columns, width)), mode="nearest")
            for value in (pixels, usable.unsqueeze(1))
        )
        usable = usable.squeeze(1) > 0
    weight = usable.unsqueeze(1).to(pixels.dtype)
    share = F.adaptive_avg_pool2d(weight, (rows, columns))
    total = F.adaptive_avg_pool2d(torch.where(usable.unsqueeze(1), pixels, 0.0), (rows, columns))
    return total / share.clamp(min=1e-6), share >= 0.5


def _cells(values: Tensor, known: Tensor, side: int) -> Target:
    """(B, C, h * side, w * side) -> (B, h, w, C * side²)."""
    known = known.expand_as(values)

    def fold(tensor: Tensor) -> Tensor:
        return tensor.unflatten(-1, (-1, side)).unflatten(-3, (-1, side)).permute(0, 2, 4, 1, 3, 5).flatten(3)

    return Target(fold(values), fold(known))
