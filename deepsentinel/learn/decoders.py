"""What objectives put behind an encoder to learn from, and throw away afterwards."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepsentinel.encoders.base import Tokens
from deepsentinel.encoders.blocks import Blocks, initialise
from deepsentinel.encoders.patching import turns_a_px, turns_of

HEADS = 4
# Cells are as far apart for the decoder whatever the patch: it learns their order, not their size.
CELL_PX = 8


def cells_of(tokens: Tokens) -> Tensor:
    """(B, h, w, D): the cells of an encoder, or its one vector as the only cell.

    >>> cells_of(Tokens(pooled=torch.zeros(2, 8), dense=None)).shape
    torch.Size([2, 1, 1, 8])
    """
    return tokens.pooled[:, None, None] if tokens.dense is None else tokens.dense


class CellDecoder(nn.Module):
    """From cells, some of them not seen (NaN), to something of each cell: a small transformer over all of them."""

    turns_a_cell: Tensor

    def __init__(self, width: int, out: int, *, depth: int = 2, size: int = 128) -> None:
        super().__init__()
        self.enter = nn.Linear(width, size)
        self.unseen = nn.Parameter(0.02 * torch.randn(size))
        self.blocks = Blocks(depth, size, HEADS, hidden=4 * size)
        self.norm = nn.LayerNorm(size)
        self.leave = nn.Linear(size, out)
        self.register_buffer("turns_a_cell", CELL_PX * turns_a_px(size // HEADS // 4), persistent=False)
        for layer in (self.enter, self.leave):
            initialise(layer)

    def forward(self, cells: Tensor) -> Tensor:
        """(B, h, w, D) -> (B, h, w, out)."""
        batch, height, width, _ = cells.shape
        seen = cells[..., :1].isfinite()
        entered = torch.where(seen, self.enter(torch.where(seen, cells, 0.0)), self.unseen.to(cells.dtype))
        turns = turns_of(height, width, self.turns_a_cell)
        done = self.norm(self.blocks.run(entered.flatten(1, 2), None, turns))
        return cast(Tensor, self.leave(done)).view(batch, height, width, -1)


class Projector(nn.Sequential):
    """Two layers before vectors are compared, so that the comparison does not take from the vectors what it ignores."""

    def __init__(self, width: int, out: int = 128) -> None:
        super().__init__(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, out))


class PixelDecoder(nn.Module):
    """From cells to pixels: doubled in size, step by step, with the pixels of the other sensor at hand at the end."""

    def __init__(self, width: int, beside: int, out: int, *, size: int = 64) -> None:
        super().__init__()
        self.enter = nn.Conv2d(width, size, 1)
        self.steps = nn.ModuleList(
            nn.Sequential(nn.Conv2d(size, size, 3, padding=1), nn.GroupNorm(8, size), nn.GELU()) for _ in range(3)
        )
        self.beside = nn.Sequential(nn.Conv2d(beside, size, 5, padding=2), nn.GroupNorm(8, size), nn.GELU())
        self.leave = nn.Sequential(nn.Conv2d(2 * size, size, 3, padding=1), nn.GELU(), nn.Conv2d(size, out, 1))

    def forward(self, cells: Tensor, pixels: Tensor) -> Tensor:
        """(B, h, w, D) and (B, C, H, W) -> (B, out, H, W)."""
        height, width = pixels.shape[-2:]
        values = self.enter(cells.nan_to_num(0.0).permute(0, 3, 1, 2))
        for number, step in enumerate(self.steps, start=1):
            share = 2 ** (len(self.steps) - number)
            size = (max(1, height // share), max(1, width // share))
            values = step(nn.functional.interpolate(values, size, mode="bilinear"))
        return cast(Tensor, self.leave(torch.cat([values, self.beside(pixels)], dim=1)))


class Critic(nn.Sequential):
    """Whether each neighbourhood of an image is a real one: a few convolutions (Isola et al., 2017)."""

    def __init__(self, channels: int, *, size: int = 64) -> None:
        super().__init__(
            nn.Conv2d(channels, size, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(size, 2 * size, 4, 2, 1), nn.GroupNorm(8, 2 * size), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * size, 1, 3, 1, 1),
        )  # fmt: skip


def adversaries(critic: nn.Module, real: Tensor, fake: Tensor, weight: float) -> dict[str, Tensor]:
    """What a critic learns (real from fake), and what the maker of the fake learns from it, in one descent.

    The critic's part sees the fake detached; the maker's part goes through a critic that is held still.
    """
    learns = F.softplus(-critic(real.detach())).mean() + F.softplus(critic(fake.detach())).mean()
    still = {name: value.detach() for name, value in critic.named_parameters()}
    judged = torch.func.functional_call(critic, still, (fake,))
    return {"critic": 0.5 * learns, "fooling": weight * F.softplus(-judged).mean()}


# What two networks learn against each other: their sum does not fall as both get better.
GAME = ("critic", "fooling")
# By how much less numbers that go together count than numbers that do not differ, as published.
TOGETHER = 0.04


def apart(vectors: Tensor) -> Tensor:
    """How far vectors (N, D) are from using all their numbers (VICReg, Bardes et al. 2022), 0 at best.

    >>> import torch
    >>> one = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    >>> many = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    >>> bool(apart(many) < 0.1 < apart(one.expand(-1, 8)))
    True
    """
    centred = vectors - vectors.mean(dim=0)
    spread = (centred.var(dim=0) + 1e-4).sqrt()
    shared = centred.T @ centred / max(len(vectors) - 1, 1)
    together = (shared.square().sum() - shared.diagonal().square().sum()) / vectors.shape[1]
    return F.relu(1 - spread).mean() + TOGETHER * together
