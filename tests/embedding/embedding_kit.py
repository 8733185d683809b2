"""A small encoder whose vectors can be computed by hand, and what tests of maps have in common."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from deepsentinel.encoders.base import Encoder, Tokens, check_mode, check_size
from deepsentinel.encoders.galileo import Galileo, build
from deepsentinel.encoders.registry import find
from deepsentinel.encoders.spec import EncoderSpec

TOY = replace(
    find("random-convolutions"), name="toy", size_px=64, patch_sizes=(8,), width=4, level="any", backscatter="any"
)


class Toy(Encoder):
    """A cell's mean of VV, its mean of B02, and where in its window it lies; 0 where a sensor is not there.

    `offset` is how much the place counts: 0 gives a map that windows cannot be seen in, however they are put together.
    """

    def __init__(self, spec: EncoderSpec = TOY, offset: float = 0.0) -> None:
        super().__init__(spec)
        self.offset = offset
        self.seen: list[tuple[int, ...]] = []

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
        check_mode(self.spec, s1, s2)
        like = s1 if s1 is not None else s2
        assert like is not None
        self.seen.append(tuple(like.shape))
        patch, rows, columns = check_size(self.spec, like, patch_px)
        cells = torch.zeros(len(like), rows, columns, 4)
        for place, pixels, mask in ((0, s1, s1_mask), (1, s2, s2_mask)):
            if pixels is None:
                continue
            values = pixels[:, 0] if mask is None else torch.where(mask, pixels[:, 0], torch.nan)
            squares = values.unflatten(2, (columns, patch)).unflatten(1, (rows, patch))
            cells[..., place] = squares.permute(0, 1, 3, 2, 4).flatten(3).nanmean(dim=-1).nan_to_num(0.0)
        cells[..., 2] = self.offset * torch.arange(rows)[:, None]
        cells[..., 3] = self.offset * torch.arange(columns)
        return Tokens(cells.mean(dim=(1, 2)), cells)


def galileo() -> Galileo:
    """Galileo-nano as drawn, but with every number at work."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = build(find("galileo-nano"))
        made.channel.data.normal_()
    return made.eval().requires_grad_(False)


def means(values: np.ndarray, cell: int) -> np.ndarray:
    """The mean of each square of a side, mirrored at the lower and right end, by a plain loop."""
    rows, columns = (-(-size // cell) for size in values.shape)
    padded = np.pad(
        values.astype("float64"),
        ((0, rows * cell - values.shape[0]), (0, columns * cell - values.shape[1])),
        mode="symmetric",
    )
    return np.array(
        [
            [padded[r * cell : (r + 1) * cell, c * cell : (c + 1) * cell].mean() for c in range(columns)]
            for r in range(rows)
        ]
    )


def expected(patch: xr.Dataset) -> xr.Dataset:
    """The patch with the attributes that encoders are trained on, so that nothing is warned of."""
    return patch.assign_attrs(level="L1C", backscatter="sigma0")


def apart(one: xr.DataArray, other: xr.DataArray) -> float:
    """The largest difference; NaN is only like NaN."""
    first, second = one.to_numpy(), other.to_numpy()
    assert first.shape == second.shape
    assert (np.isnan(first) == np.isnan(second)).all()
    return float(np.nanmax(np.abs(first - second), initial=0.0))
