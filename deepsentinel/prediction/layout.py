"""How a map is made: which windows a model sees, and which cells of the map each of them speaks of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from deepsentinel.embedding.inputs import Scene
from deepsentinel.embedding.windows import Tiling
from deepsentinel.encoders.spec import EncoderSpec
from deepsentinel.errors import InputError

USUAL_PX = 64


@dataclass(frozen=True)
class Layout:
    """Windows and cells."""

    window_px: int
    """Side of a window, in pixels."""
    patch_px: int
    """What windows are a multiple of."""
    overlap: float
    """The share of a window that the next one has too."""
    any_size: bool = True
    """Whether windows may be smaller where the ground is."""
    square: bool = False
    """Whether windows must be as wide as high."""
    finer: int = 1
    """Cells of the map along the side of a pixel."""
    cell_px: int = 1
    """Pixels along the side of a cell of the map, where an answer is about a whole window."""

    def geobox(self, scene: Scene) -> GeoBox:
        """The grid of the map: it starts where the pixels do; its last cell may reach over their end."""
        rows, columns = self.shape(scene)
        a = scene.geobox.affine
        side = self.cell_px / self.finer
        return GeoBox((rows, columns), Affine(a.a * side, 0, a.c, 0, a.e * side, a.f), scene.geobox.crs)

    def shape(self, scene: Scene) -> tuple[int, int]:
        """Rows and columns of the map."""
        rows, columns = (-(-size // self.cell_px) * self.finer for size in scene.shape)
        return rows, columns

    def tilings(self, scene: Scene) -> list[Tiling]:
        """Where windows lie along rows and columns, in cells of the map.

        They start at multiples of their step counted from a corner that all grids share, so that away from its edges a
        map does not depend on where the pixels were cut.
        """
        sides = [self._side(size) for size in scene.shape]
        if self.square:
            sides = [max(sides)] * 2
        found = []
        for cells, corner, side in zip(self.shape(scene), scene.corner(), sides, strict=True):
            step = max(1, round(side * (1 - self.overlap))) if self.cell_px == 1 else self.cell_px
            found.append(Tiling(self._cells(side), self._cells(step), cells, corner * self.finer // self.cell_px))
        return found

    def _side(self, size: int) -> int:
        if not self.any_size:
            return self.window_px
        return min(self.window_px, -(-size // self.patch_px) * self.patch_px)

    def _cells(self, pixels: int) -> int:
        return -(-pixels // self.cell_px) * self.finer


def layout(
    spec: EncoderSpec,
    *,
    trained_px: int | None = None,
    window_px: int | None = None,
    overlap: float = 0.5,
    finer: int = 1,
    whole: bool = False,
) -> Layout:
    """The windows for an encoder: as large as it was trained with, unless another size is asked for.

    whole: answers are about whole windows, so that the cells of the map are as large as the step between windows.

    >>> from deepsentinel.encoders.registry import find
    >>> layout(find("fusion-nano"), trained_px=64, whole=True).cell_px
    32
    """
    number = isinstance(overlap, int | float | np.number) and not isinstance(overlap, bool)
    if not (number and 0 <= overlap <= 0.9):
        raise InputError(f"overlap={overlap!r}: the share of a window, from 0 to 0.9.")
    whole_number = isinstance(window_px, int | np.integer) and not isinstance(window_px, bool)
    if window_px is not None and (not whole_number or window_px < 1):
        raise InputError(f"window_px={window_px!r}: a whole number of pixels is meant.")
    patch = spec.patch_px
    if window_px is not None:
        side = int(window_px)
    elif spec.any_size or spec.size_px is None:
        side = trained_px or spec.size_px or USUAL_PX
    else:
        side = spec.size_px
    if side % patch:
        raise InputError(f"window_px={side}: a multiple of the {patch} px of the encoder's patch is meant.")
    if not spec.any_size and spec.size_px is not None and side != spec.size_px:
        raise InputError(f"window_px={side}: {spec.name} takes windows of {spec.size_px} px.")
    cell_px = 1
    if whole:
        parts = [n for n in range(1, side // patch + 1) if side % n == 0 and side // n % patch == 0]
        cell_px = side // max(n for n in parts if n == 1 or n <= 1 / (1 - overlap) + 1e-9)
    return Layout(side, patch, float(overlap), spec.any_size, spec.square_only, finer, cell_px)
