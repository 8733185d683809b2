"""What an encoder says of a place in its window, whatever lies there.

The cells of a transformer carry where they are: with Galileo-nano two thirds of the variance of the cells of a patch is
their place in the window, and a map made of them is striped. What is common to all windows is measured once, on
windows of random ground, and taken off. Each place sees each piece of that ground once, so that nothing at all is taken
off where an encoder does not know places. It depends on the encoder alone, so that maps stay comparable, and it is
zero on average over a window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from deepsentinel.bands import S1_BANDS
from deepsentinel.encoders.spec import EncoderSpec

MOST_WINDOWS = 64
# How far pieces of ground differ as a whole, how much of that each band does by itself, and between neighbouring
# pixels, in standard deviations of a band over land.
BETWEEN, OWN, WITHIN = 0.3, 0.3, 0.5
# Mean and standard deviation over the Earth's land, dB and reflectance x 10000: rough is enough.
TYPICAL: Mapping[str, tuple[float, float]] = {
    "VV": (-11.7, 4.9), "VH": (-18.9, 5.7), "HH": (-11.7, 4.9), "HV": (-18.9, 5.7),
    "B01": (1400, 850), "B02": (1395, 918), "B03": (1338, 913), "B04": (1343, 1093), "B05": (1544, 1047),
    "B06": (2186, 1048), "B07": (2525, 1144), "B08": (2410, 1099), "B8A": (2750, 1204), "B09": (2750, 1200),
    "B10": (20, 15), "B11": (2235, 1146), "B12": (1475, 980),
}  # fmt: skip


def reference(spec: EncoderSpec, like: Mapping[str, Tensor], patch_px: int) -> dict[str, Tensor]:
    """Inputs of windows of no place in particular, shaped as those of a batch; the same every time.

    >>> from deepsentinel.encoders.registry import find
    >>> batch = reference(find("galileo-nano"), {"s1": torch.zeros(3, 2, 16, 16), "month": torch.zeros(3)}, 8)
    >>> {name: tuple(values.shape) for name, values in batch.items()}
    {'s1': (4, 2, 16, 16), 'month': (4,)}
    """
    rng = torch.Generator().manual_seed(0)
    made: dict[str, Tensor] = {}
    windows = 0
    for name, bands in (("s1", spec.s1_bands), ("s2", spec.s2_bands)):
        if name not in like:
            continue
        *dates, count, height, width = like[name].shape[1:]
        rows, columns = height // patch_px, width // patch_px
        cells = rows * columns
        windows = min(cells, MOST_WINDOWS)
        mean, std = (torch.tensor([TYPICAL[band][k] for band in bands])[:, None, None] for k in (0, 1))
        common, own = (torch.randn(cells, channels, 1, 1, generator=rng) for channels in (1, count))
        texture = torch.randn(cells, count, patch_px, patch_px, generator=rng)
        pieces = mean + std * (BETWEEN * ((1 - OWN) * common + OWN * own) + WITHIN * texture)
        if bands[0] not in S1_BANDS:
            pieces = pieces.clamp(min=1)
        # The pieces go round: window after window each lies further on.
        order = torch.arange(cells) + (torch.arange(windows) * cells // windows)[:, None]
        laid = pieces[order % cells].reshape(windows, rows, columns, count, patch_px, patch_px)
        ground = laid.permute(0, 3, 1, 4, 2, 5).reshape(windows, count, height, width)
        made[name] = ground[:, None].expand(-1, dates[0], -1, -1, -1).contiguous() if dates else ground
    if "month" in like:
        # Of a patch all windows have the same.
        made["month"] = like["month"][:1].expand(windows, *like["month"].shape[1:]).contiguous()
    return made


def position_means(
    spec: EncoderSpec, like: Mapping[str, Tensor], patch_px: int, run: Callable[[dict[str, Tensor]], np.ndarray]
) -> np.ndarray:
    """(h, w, D): how the cells of a window differ on average by where they are; zero on average."""
    cells = run(reference(spec, like, patch_px)).mean(axis=0)
    means: np.ndarray = cells - cells.mean(axis=(0, 1))
    return means
