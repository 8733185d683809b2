"""The classes of a map with their colours and shares, one by one: what a legend lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .masks import labelled, legend_of

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class ClassShare:
    """One class of a map: what it is, how it is drawn, and how much of the map it covers."""

    code: int
    """Its number in the map."""
    name: str
    """What it is called in its legend."""
    color: str
    """As the legend has it, such as "#ffff4c"."""
    share: float
    """Of all pixels of the map, labelled or not."""


def class_shares(masks: xr.Dataset) -> list[ClassShare]:
    """Every class that occurs in a class map, the largest first.

    >>> import xarray as xr
    >>> shares = class_shares(xr.Dataset({"class_map": (("y", "x"), np.array([[1, 1], [2, 0]], "uint8"))}))
    >>> [(each.code, each.name, each.share) for each in shares]
    [(1, '1', 0.5), (2, '2', 0.25)]
    """
    legend = legend_of(masks)
    codes, counts = np.unique(masks["class_map"].to_numpy()[labelled(masks)], return_counts=True)
    size, names, colors = masks["class_map"].size, legend.names, legend.colors
    found = [
        ClassShare(int(code), names[int(code)], colors[int(code)], float(count / size))
        for code, count in zip(codes, counts, strict=True)
    ]
    return sorted(found, key=lambda each: (-each.share, each.code))
