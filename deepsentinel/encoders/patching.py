"""What encoders of masked squares share: squares partly seen, kernels of any size, means of what was seen."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Tokens

KERNEL_PX = 8
# Periods of the rotation that tells places, in pixels of 10 m: from a patch to a few windows.
SHORTEST_PX, LONGEST_PX = 8.0, 512.0


def fill_patches(values: Tensor, usable: Tensor, patch: int, usable_share: float) -> tuple[Tensor, Tensor]:
    """Unusable pixels become the mean of their patch's usable ones; and which patches have enough of these.

    (B, T, C, H, W) and (B, T, H, W) -> (B, T, C, H, W) and (B, T, h, w).
    """
    squares = usable.unflatten(-1, (-1, patch)).unflatten(-3, (-1, patch))
    counts = squares.sum(dim=(-3, -1))
    # A patch without a usable pixel is never seen, however little is asked for.
    visible = (counts >= usable_share * patch**2) & (counts > 0)
    keep = usable.unsqueeze(2)
    clean = torch.where(keep, values, 0.0)
    means = (
        clean.unflatten(-1, (-1, patch)).unflatten(-3, (-1, patch)).sum(dim=(-3, -1)) / counts.clamp(min=1)[:, :, None]
    )
    filled = torch.where(keep, clean, means.repeat_interleave(patch, dim=-2).repeat_interleave(patch, dim=-1))
    return filled, visible


@cache
def _to_small(patch: int) -> Tensor:
    """(patch², 64): takes a kernel to the smaller one that answers to a shrunken patch as it does to the patch."""
    pixels = torch.eye(KERNEL_PX**2, dtype=torch.float64).view(-1, 1, KERNEL_PX, KERNEL_PX)
    shrink = F.interpolate(pixels, (patch, patch), mode="bicubic", antialias=True)
    return torch.linalg.pinv(shrink.flatten(1))


def resized_kernel(weight: Tensor, patch: int) -> Tensor:
    """(D, C, 8, 8) -> (D, C, patch, patch), by the pseudo-inverse of shrinking (FlexiViT, Beyer et al. 2023)."""
    if patch == KERNEL_PX:
        return weight
    small = weight.flatten(2) @ _to_small(patch).to(weight).T
    return small.unflatten(2, (patch, patch))


def mean_seen(tokens: Tensor, keep: Tensor | None = None) -> Tokens:
    """(B, N, h, w, D), where `keep` (B, N, h, w) is True: the mean of each cell and of each sample, NaN where none is.

    >>> mean_seen(torch.tensor([[[[[1.0]]], [[[5.0]]]]]), torch.tensor([[[[True]], [[False]]]])).pooled
    tensor([[1.]])
    """
    if keep is None:
        dense = tokens.mean(dim=1)
        return Tokens(pooled=dense.mean(dim=(1, 2)), dense=dense)
    cells = torch.where(keep.unsqueeze(-1), tokens, 0.0).sum(dim=1)
    counts = keep.sum(dim=1).unsqueeze(-1)
    # Nothing seen is 0 / 0: NaN, as promised.
    return Tokens(pooled=cells.sum(dim=(1, 2)) / counts.sum(dim=(1, 2)), dense=cells / counts)


def turns_a_px(count: int) -> Tensor:
    """Radians a pixel of 10 m, `count` of them, from the shortest period to the longest.

    >>> (2 * torch.pi / turns_a_px(2)).tolist()
    [8.0, 512.0]
    """
    periods = SHORTEST_PX * (LONGEST_PX / SHORTEST_PX) ** (torch.arange(count) / max(1, count - 1))
    return 2 * torch.pi / periods


def turns_of(height: int, width: int, a_cell: Tensor) -> Tensor:
    """(h * w, half a head): by how much each cell's queries and keys are turned; half for rows, half for columns.

    >>> turns_of(1, 3, torch.tensor([0.5])).tolist()
    [[0.0, 0.0], [0.0, 0.5], [0.0, 1.0]]
    """
    rows = torch.arange(height, device=a_cell.device)[:, None] * a_cell
    columns = torch.arange(width, device=a_cell.device)[:, None] * a_cell
    sides = (height, width, len(a_cell))
    return torch.cat([rows[:, None].expand(sides), columns[None].expand(sides)], dim=-1).flatten(0, 1)
