"""Ships: bright points at sea that are elsewhere on every date, in one place for all who look at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .classes import Cover
from .weather import stream

if TYPE_CHECKING:
    from .landscape import Landscape

__all__ = ["Ships", "ships_at"]

_MEAN_NUMBER_1024 = 9.0


@dataclass(frozen=True, eq=False)
class Ships:
    """Where ships are at one moment."""

    x: np.ndarray
    """World x, metres."""
    y: np.ndarray
    """World y, metres."""
    length_m: np.ndarray
    heading_deg: np.ndarray


def ships_at(land: Landscape, moment: str) -> Ships:
    """The ships of a moment (any text that names it), over water deep enough to float them.

    >>> # len(ships_at(landscape, "2018-07-01T10:56").x)
    """
    rng = stream(land.seed, "ships", moment)
    tries = int(rng.poisson(_MEAN_NUMBER_1024 * (land.size_px / 1024) ** 2 * 4))
    row, col = rng.integers(0, land.shape[0], tries), rng.integers(0, land.shape[1], tries)
    length, heading = rng.gamma(4.0, 18.0, tries) + 15, rng.uniform(0, 360, tries)
    afloat = (land.cover[row, col] == Cover.SEA) & (land.height[row, col] < -0.04 * length - 1)
    x = land.origin_x + (col + 0.5) * land.resolution_m
    y = land.origin_y - (row + 0.5) * land.resolution_m
    return Ships(x[afloat], y[afloat], length[afloat], heading[afloat])
