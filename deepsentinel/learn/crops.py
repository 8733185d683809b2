"""Crops of samples, laid in one of eight ways, and what of a pixel and a date models are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deepsentinel.bands import SCL_CLOUDY


@dataclass(frozen=True)
class Cut:
    """Where a crop of each sample lies and how it is turned; whatever covers the same ground is cut alike.

    >>> cut = Cut(torch.tensor([1]), torch.tensor([0]), torch.tensor([True]), 2)
    >>> cut(torch.arange(9).view(1, 3, 3)).tolist()
    [[[3, 6], [4, 7]]]
    """

    rows: Tensor
    """(B,) the first row of each crop."""
    columns: Tensor
    """(B,) the first column."""
    swapped: Tensor
    """(B,) whether rows become columns."""
    side: int
    """Pixels a side."""
    flipped: tuple[Tensor, Tensor] | None = None
    """(B,) whether rows, and columns, run backwards."""

    @classmethod
    def none(cls, count: int, size: int) -> Cut:
        """Everything, as it lies."""
        zeros, never = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.bool)
        return cls(zeros, zeros, never, size, (never, never))

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, size: int, side: int, *, turn: bool, pace: int = 1) -> Cut:
        """Crops anywhere, or where `pace` pixels divide rows and columns, in one of the eight ways to lay a square."""
        rows, columns = pace * rng.integers(0, (size - side) // pace + 1, (2, count))
        ways = rng.integers(0, 2, (3, count)).astype(bool) if turn else np.zeros((3, count), bool)
        return cls(
            torch.from_numpy(rows),
            torch.from_numpy(columns),
            torch.from_numpy(ways[0]),
            side,
            (torch.from_numpy(ways[1]), torch.from_numpy(ways[2])),
        )

    def part(self, rank: int, replicas: int) -> Cut:
        """Those of every so many samples that one process has."""
        return self._each(lambda values: values[rank::replicas])

    def to(self, device: torch.device | str) -> Cut:
        """On the device of what is to be cut, so that nothing waits there for where to cut."""
        if torch.device(device) == self.rows.device:
            return self
        # One journey instead of five.
        flags = (self.swapped, *(() if self.flipped is None else self.flipped))
        rows, columns, swapped, *flipped = torch.stack([self.rows, self.columns, *(flag.long() for flag in flags)]).to(
            device
        )
        both = (flipped[0].bool(), flipped[1].bool()) if flipped else None
        return Cut(rows, columns, swapped.bool(), self.side, both)

    def coarser(self, factor: int) -> Cut:
        """The same ground in cells of so many pixels, where these divide it."""
        return Cut(self.rows // factor, self.columns // factor, self.swapped, self.side // factor, self.flipped)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Cut:
        flipped = None if self.flipped is None else (change(self.flipped[0]), change(self.flipped[1]))
        return Cut(change(self.rows), change(self.columns), change(self.swapped), self.side, flipped)

    def __call__(self, values: Tensor, factor: int = 1) -> Tensor:
        """(B, ..., H, W) -> (B, ..., side, side); `factor` times that for what is so much finer."""
        side = self.side * factor
        unsigned = values.dtype == torch.uint16
        values = values.view(torch.int16) if unsigned else values
        device = values.device
        along = torch.arange(side, device=device)
        rows, columns = self.rows[:, None] * factor + along, self.columns[:, None] * factor + along
        if self.flipped is not None:
            rows = torch.where(self.flipped[0][:, None], rows.flip(1), rows)
            columns = torch.where(self.flipped[1][:, None], columns.flip(1), columns)
        which = torch.arange(len(values), device=device)[:, None, None]
        moved = values.movedim((-2, -1), (1, 2))
        found = moved[which, rows[:, :, None], columns[:, None, :]].movedim((1, 2), (-2, -1))
        swapped = self.swapped.view(-1, *(1,) * (found.ndim - 1))
        found = torch.where(swapped, found.transpose(-1, -2), found).contiguous()
        return found.view(torch.uint16) if unsigned else found


def month_of(doy: Tensor) -> Tensor:
    """Months from 0 of days of the year from 1; a day that is not known (0) is one of January.

    >>> month_of(torch.tensor([1, 31, 32, 182, 366])).tolist()
    [0, 0, 1, 6, 11]
    """
    ends = torch.tensor([31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334], device=doy.device)
    return torch.bucketize(doy, ends)


def cloudy(scl: Tensor) -> Tensor:
    """Where a scene classification says cloud or shadow.

    >>> cloudy(torch.tensor([4, 9])).tolist()
    [False, True]
    """
    found = torch.zeros(scl.shape, dtype=torch.bool, device=scl.device)
    for value in SCL_CLOUDY:
        found |= scl == value
    return found
