"""A vector for every cell: overlapping windows, a few rows at a time, blended into a map."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from deepsentinel.encoders.spec import EncoderSpec
from deepsentinel.errors import InputError
from deepsentinel.progress import progress, stoppable

from .inputs import Scene
from .model import Runner, Windows
from .sinks import Sink
from .windows import Tiling, blend, covering

# A panel is what a map is made of from top to bottom; its width bounds what is held, whatever the width of the map.
PANEL_PX, PANEL_BYTES = 2048, 64 * 2**20
# How far the resolution asked for may be off a multiple of the pixel: grids in degrees have pixels of odd sizes.
SIZE_TOLERANCE = 0.01


@dataclass(frozen=True)
class Layout:
    """How a map is made: cells of the encoder, cells of the map, windows."""

    patch_px: int
    """Side of a cell of the encoder."""
    cell_px: int
    """Side of a cell of the map: as long, or a part of it, and then windows are shifted by that part."""
    window_px: int
    """Side of a window."""
    overlap: float
    """The share of a window that the next one has too."""

    @property
    def shifts(self) -> int:
        """How many times windows are shifted along each axis."""
        return self.patch_px // self.cell_px

    def geobox(self, scene: Scene) -> GeoBox:
        """The grid of the map: its first cell starts where the patch does, its last may reach over the end."""
        rows, columns = (-(-size // self.cell_px) for size in scene.shape)
        a = scene.geobox.affine
        coarser = Affine(a.a * self.cell_px, 0, a.c, 0, a.e * self.cell_px, a.f)
        return GeoBox((rows, columns), coarser, scene.geobox.crs)


def layout(
    spec: EncoderSpec, pixel_m: float, resolution_m: float | None, window_px: int | None, overlap: float
) -> Layout:
    """Which patches and windows give cells of the resolution asked for.

    >>> from deepsentinel.encoders.registry import find
    >>> layout(find("galileo-nano"), 10.0, 20.0, None, 0.5)
    Layout(patch_px=2, cell_px=2, window_px=16, overlap=0.5)
    >>> layout(find("croma-base"), 10.0, 20.0, None, 0.5)
    Layout(patch_px=8, cell_px=2, window_px=120, overlap=0.5)
    """
    if not (isinstance(overlap, int | float | np.number) and 0 <= overlap <= 0.9):
        raise InputError(f"overlap={overlap!r}: the share of a window, from 0 to 0.9.")
    if window_px is not None and (isinstance(window_px, bool) or not isinstance(window_px, int | np.integer)):
        raise InputError(f"window_px={window_px!r}: a whole number of pixels is meant.")
    window_px = None if window_px is None else int(window_px)
    cell_px = spec.patch_px if resolution_m is None else _cell_px(spec, pixel_m, resolution_m)
    fitting = [patch for patch in spec.patch_sizes if patch % cell_px == 0]
    patch_px = cell_px if cell_px in fitting else spec.patch_px if spec.patch_px in fitting else min(fitting)
    if spec.size_px == 1:
        # Pixels know nothing of their neighbours; a window of them is a batch.
        if window_px is not None and window_px < 1:
            raise InputError(f"window_px={window_px}: one pixel or more is meant.")
        return Layout(patch_px, cell_px, window_px or 64, 0.0)
    if window_px is None:
        # As many cells as the authors had; a window of smaller cells is smaller, not dearer.
        trained = spec.size_px or 8 * spec.patch_px
        window_px = trained // spec.patch_px * patch_px if spec.any_size else trained
    if window_px < patch_px or window_px % patch_px:
        raise InputError(f"window_px={window_px}: a multiple of the patch of {patch_px} px is meant.")
    if not spec.any_size and window_px != spec.size_px:
        raise InputError(f"window_px={window_px}: {spec.name} takes windows of {spec.size_px} px.")
    return Layout(patch_px, cell_px, window_px, overlap)


def _cell_px(spec: EncoderSpec, pixel_m: float, resolution_m: float) -> int:
    number = isinstance(resolution_m, int | float | np.number) and not isinstance(resolution_m, bool)
    if not (number and math.isfinite(resolution_m) and resolution_m > 0):
        raise InputError(f"resolution_m={resolution_m!r}: the side of a cell in metres is meant, such as 20.")
    cell_px = round(resolution_m / pixel_m)
    possible = sorted({part for patch in spec.patch_sizes for part in range(1, patch + 1) if patch % part == 0})
    if cell_px not in possible or abs(cell_px * pixel_m - resolution_m) > SIZE_TOLERANCE * resolution_m:
        sizes = ", ".join(f"{pixel_m * part:g}" for part in possible)
        raise InputError(f"resolution_m={resolution_m:g}: on this grid {spec.name} gives cells of {sizes} m.")
    return cell_px


def map_dense(
    scene: Scene,
    runner: Runner,
    plan: Layout,
    sink: Sink,
    stop: Any = None,
    on_progress: Callable[[int, int], object] | None = None,
) -> None:
    """Write every cell of the map to the sink, panel by panel, rows from north to south.

    Between rows of windows `stop` is asked, and `on_progress` told; `StoppedError` if nobody wants the map any more.
    """
    rows, columns = (int(size) for size in plan.geobox(scene).shape)
    width = _panel_cells(plan, runner.encoder.spec.width, sink.chunk)
    # Shifted maps are made a square at a time, as all shifts of a place have to be there to put it together.
    height = width if plan.shifts > 1 else rows
    squares = [
        (slice(top, min(top + height, rows)), slice(left, min(left + width, columns)))
        for left in range(0, columns, width)
        for top in range(0, rows, height)
    ]
    passes = [
        _Pass(scene, runner, plan, (down, across)) for down in range(plan.shifts) for across in range(plan.shifts)
    ]
    steps = [
        (len(begins[0]), len(begins[1])) for square in squares for one in passes for begins in [one.begins(square)]
    ]
    runner.expect(sum(down * across for down, across in steps))
    count = sum(down for down, _ in steps)
    shown = progress(range(count), total=count, what="embedding", unit="row")
    bar = stoppable(shown, total=count, what="The embedding", unit="row", stop=stop, on_progress=on_progress)
    # The bar is one item ahead, so that a look is taken before the first windows too, and none after the last.
    next(bar, None)
    for square in squares:
        down, across = square
        if plan.shifts == 1:
            for row, block in passes[0].rows(square, bar):
                sink.write(row, across.start, block)
            continue
        whole = np.full(
            (down.stop - down.start, across.stop - across.start, runner.encoder.spec.width), np.nan, "float32"
        )
        passes[0].hold(square)
        for one in passes:
            one.fill(whole, square, bar)
        sink.write(down.start, across.start, whole)
    for _ in bar:
        pass


def _panel_cells(plan: Layout, features: int, chunk: int) -> int:
    """How wide a panel is, in cells of the map and whole blocks of the file."""
    held_rows = plan.window_px // plan.patch_px + chunk
    fits = min(PANEL_PX // plan.cell_px, PANEL_BYTES // (4 * features * held_rows))
    return max(chunk, fits // chunk * chunk)


class _Pass:
    """All windows of one shift."""

    def __init__(self, scene: Scene, runner: Runner, plan: Layout, shift: tuple[int, int]) -> None:
        self.scene, self.runner, self.plan, self.shift = scene, runner, plan, shift
        spec, patch = runner.encoder.spec, plan.patch_px
        cells = [int(size) for size in plan.geobox(scene).shape]
        # A cell of the encoder lies around the cell of the map that it speaks for.
        self.offset = [part * plan.cell_px + (plan.cell_px - patch) // 2 for part in shift]
        self.shape = [max(0, -(-(size - part) // plan.shifts)) for size, part in zip(cells, shift, strict=True)]
        corner = scene.corner()
        origin = [(at + offset) // patch for at, offset in zip(corner, self.offset, strict=True)]
        side = plan.window_px // patch
        sides = [min(side, size) if spec.any_size else side for size in self.shape]
        if spec.square_only:
            sides = [max(sides)] * 2
        stride = max(1, round(side * (1 - plan.overlap)))
        self.tilings = [
            Tiling(length, min(stride, length), size, at)
            for length, size, at in zip(sides, self.shape, origin, strict=True)
        ]
        self.weights = np.multiply.outer(*(tiling.weights() for tiling in self.tilings))
        ends = [-(-size // patch) * patch for size in scene.shape]
        self.limit = (ends[0], ends[1]) if plan.shifts == 1 else scene.shape

    def part(self, square: tuple[slice, slice]) -> list[slice]:
        """Which of this shift's cells lie in a square of the map."""
        return [
            slice(*(max(0, -(-(end - part) // self.plan.shifts)) for end in (cells.start, cells.stop)))
            for cells, part in zip(square, self.shift, strict=True)
        ]

    def begins(self, square: tuple[slice, slice]) -> list[list[int]]:
        """The rows and columns where the windows start that are needed for a square of the map."""
        return [
            covering(tiling.starts(), tiling.window, cells.start, cells.stop) if cells.stop > cells.start else []
            for tiling, cells in zip(self.tilings, self.part(square), strict=True)
        ]

    def rows(self, square: tuple[slice, slice], bar: Iterator[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Finished rows of this shift's cells in a square of the map."""
        down, across = self.part(square)
        return blend(self._windows(square, bar), self.weights, down, across)

    def fill(self, whole: np.ndarray, square: tuple[slice, slice], bar: Iterator[int]) -> None:
        """Put this shift's cells where they belong between those of the others."""
        steps = self.plan.shifts
        first = [
            cells.start * steps + part - on_map.start
            for cells, part, on_map in zip(self.part(square), self.shift, square, strict=True)
        ]
        top = self.part(square)[0].start
        for row, block in self.rows(square, bar):
            at = first[0] + (row - top) * steps
            whole[at : at + len(block) * steps : steps, first[1] :: steps] = block

    def hold(self, square: tuple[slice, slice]) -> None:
        """Read all pixels that any shift needs for a square, once."""
        reach = self.plan.window_px + self.plan.patch_px
        rows, columns = (
            range(max(0, cells.start * self.plan.cell_px - reach), min(size, cells.stop * self.plan.cell_px + reach))
            for cells, size in zip(square, self.scene.shape, strict=True)
        )
        self.scene.hold(rows, columns)

    def _windows(self, square: tuple[slice, slice], bar: Iterator[int]) -> Iterator[tuple[int, list[int], np.ndarray]]:
        downs, acrosses = self.begins(square)
        patch = self.plan.patch_px
        height, width = (tiling.window * patch for tiling in self.tilings)
        if not acrosses:
            return
        columns = range(acrosses[0] * patch + self.offset[1], acrosses[-1] * patch + self.offset[1] + width)
        # Narrow maps have rows of few windows; several of them make a batch.
        together = max(1, self.runner.batch // len(acrosses))
        for at in range(0, len(downs), together):
            parts = []
            for down in downs[at : at + together]:
                rows = range(down * patch + self.offset[0], down * patch + self.offset[0] + height)
                strip = self.scene.strip(rows, columns, self.limit)
                corners = [(rows.start, across * patch + self.offset[1]) for across in acrosses]
                parts.append(self.scene.cut(strip, (rows.start, columns.start), corners, (height, width)))
            vectors = self.runner(Windows.join(parts), dense=True)
            for place, down in enumerate(downs[at : at + together]):
                yield down, acrosses, vectors[place * len(acrosses) : (place + 1) * len(acrosses)]
                next(bar, None)
