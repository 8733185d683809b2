"""Landscapes built once for all tests of the ground."""

from __future__ import annotations

from functools import cache

from deepsentinel.world.landscape import Landscape, build_landscape


@cache
def land(seed: int, size_px: int = 512) -> Landscape:
    """A landscape, the same object for every test: treat it as read-only."""
    return build_landscape(seed, size_px)
