"""Which distance between splits the ground has room for, where it has none for the one that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deepsentinel.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

BUFFERS_M = (5000, 4000, 3000, 2000, 1500, 1000, 750, 500, 300, 200, 100, 50, 20, 10, 0)
# Of more samples than this nothing is tried out: it would take more than a moment.
MOST_TRIED = 5_000


class TooNearError(InputError):
    """No split is possible, for the samples lie too near to each other for so wide a buffer."""


def what_works(
    tried: Callable[[float], tuple[xr.Dataset, ...]], buffer_m: float, samples: int, *, more: str = "more ground"
) -> str:
    """The widest of some smaller buffers that leaves something for each split, in words.

    >>> import xarray as xr
    >>> def tried(buffer_m):
    ...     if buffer_m > 1000:
    ...         raise TooNearError("Nothing is left.")
    ...     return (xr.Dataset(coords={"sample": [1, 2]}, attrs={"split": {"name": "train"}}),)
    >>> what_works(tried, 4000, 2)
    'buffer_m=1000 works here (2 for train); or give fewer fractions= or more ground.'
    """
    if samples > MOST_TRIED:
        return f"Give a smaller buffer_m=, fewer fractions= or {more}."
    for smaller in (each for each in BUFFERS_M if each < buffer_m):
        try:
            parts = tried(float(smaller))
        except TooNearError:
            continue
        counts = ", ".join(f"{part.sizes['sample']:,} for {part.attrs['split']['name']}" for part in parts)
        return f"buffer_m={smaller} works here ({counts}); or give fewer fractions= or {more}."
    return f"No smaller buffer_m= helps; give fewer fractions= or {more}."
