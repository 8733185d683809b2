"""Windows through a model, and overlapping answers into finished rows of a map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from deepsentinel.embedding.inputs import Scene
from deepsentinel.embedding.model import Windows, pick_device
from deepsentinel.embedding.windows import Tiling, blend, covering
from deepsentinel.encoders.spec import EncoderSpec
from deepsentinel.errors import InputError
from deepsentinel.learn.batches import Batch
from deepsentinel.learn.windows import batch_of
from deepsentinel.progress import progress as shown

from .layout import Layout

# A panel is what a map is made of from top to bottom; its width bounds what is held, whatever the width of the map.
PANEL_PX, PANEL_BYTES = 2048, 64 * 2**20
# Pixels that a batch holds where nobody says, and what its answers may take.
AUTO_PIXELS, ANSWER_BYTES = 2**17, 64 * 2**20
GPU_TIMES = 16
# Ground of so many batches is large, and makes its map by itself.
MANY = 4

Key = TypeVar("Key")
Answer = Callable[[Batch], Tensor]
"""Gives (B, K, H, W) for a batch, or (B, K) where it speaks of whole windows."""


@dataclass(frozen=True)
class Task:
    """What is asked of which model."""

    module: nn.Module
    """What goes to the device and back."""
    answer: Answer
    """What it says of a batch."""
    numbers: int
    """How many numbers it says of a cell."""
    spec: EncoderSpec
    """The encoder within."""


class Runner:
    """A model at work; on leaving it is back where it was, and in the mode it was in."""

    def __init__(self, task: Task, plan: Layout, *, device: str | torch.device, batch_size: int | str) -> None:
        self.task, self.plan = task, plan
        self.device = pick_device(device)
        self.batch = _batch(batch_size, task.numbers, plan, self.device)
        state = next(iter(task.module.state_dict().values()), None)
        self._home = torch.device("cpu") if state is None else state.device
        self._training = [(part, part.training) for part in task.module.modules()]

    def __enter__(self) -> Self:
        self.task.module.eval().to(self.device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.task.module.to(self._home)
        for part, training in self._training:
            part.training = training

    def __call__(self, windows: Windows, cells: tuple[int, int]) -> np.ndarray:
        """(B, rows, columns, K) float32 of the cells of the windows; NaN where nothing was to be seen."""
        usable = self._seen(windows.usable())
        values = np.full((len(windows), *cells, self.task.numbers), np.nan, "float32")
        chosen = np.flatnonzero(usable.any(axis=(1, 2)))
        waiting = np.array_split(chosen, -(-len(chosen) // self.batch)) if len(chosen) else []
        while waiting:
            part = waiting.pop(0)
            try:
                values[part] = self._run(windows if len(part) == len(windows) else windows.of(part), cells)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                self.batch = -(-len(part) // 2)
                waiting = [*np.array_split(part, 2), *waiting]
        if not usable.all():
            values[~usable] = np.nan
        return values

    def _seen(self, usable: np.ndarray) -> np.ndarray:
        """Pixels to cells of the map: one is seen where any of its pixels is."""
        side, finer = self.plan.cell_px, self.plan.finer
        if side > 1:
            count, height, width = usable.shape
            return np.asarray(usable.reshape(count, height // side, side, width // side, side).any(axis=(2, 4)))
        return usable.repeat(finer, axis=1).repeat(finer, axis=2) if finer > 1 else usable

    def _run(self, windows: Windows, cells: tuple[int, int]) -> np.ndarray:
        half: AbstractContextManager[object] = (
            torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()
        )
        with torch.inference_mode(), half:
            said = self.task.answer(batch_of(windows, self.task.spec).to(self.device)).float()
        if said.ndim == 2:
            said = said[:, :, None, None].expand(-1, -1, *cells)
        if tuple(said.shape[1:]) != (self.task.numbers, *cells):
            raise InputError(
                f"The model gives {tuple(said.shape[1:])} for a window of {self.plan.window_px} px, where "
                f"{(self.task.numbers, *cells)} is expected of its question."
            )
        done: np.ndarray = said.permute(0, 2, 3, 1).cpu().numpy()
        return done


def blocks(
    scene: Scene, runner: Runner, *, chunk: int = 1, progress: bool = True
) -> Iterator[tuple[int, int, np.ndarray]]:
    """The map in pieces: first row, first column, (rows, columns, K); whole chunks, but for its ends.

    Panels go from west to east, and within each of them rows from north to south.
    """
    plan = runner.plan
    rows, columns = plan.shape(scene)
    tilings = plan.tilings(scene)
    weights = np.multiply.outer(*(tiling.weights() for tiling in tilings))
    held_rows = tilings[0].window + chunk
    fits = min(PANEL_PX * plan.finer // plan.cell_px, PANEL_BYTES // (4 * runner.task.numbers * held_rows))
    width = max(chunk, fits // chunk * chunk)
    panels = [slice(left, min(left + width, columns)) for left in range(0, columns, width)]
    downs = tilings[0].starts()
    total = len(downs) * len(panels)
    bar = shown(range(total), total=total, what="predicting", unit="row") if progress else iter(range(total))
    for panel in panels:
        acrosses = covering(tilings[1].starts(), tilings[1].window, panel.start, panel.stop)
        windows = _windows(scene, runner, (tilings[0].window, tilings[1].window), downs, acrosses, bar)
        finished = blend(windows, weights, slice(0, rows), panel)
        for row, block in _gathered(finished, chunk, rows):
            yield row, panel.start, block
    for _ in bar:
        pass


def small_maps(scenes: Iterable[tuple[Key, Scene]], runner: Runner) -> Iterator[tuple[Key, np.ndarray]]:
    """Whole maps (rows, columns, K) of many small pieces of ground, whose windows share batches.

    The runner's task may change between two of them, once those before are done.
    """
    waiting: list[tuple[Key, Scene, Windows]] = []

    def done() -> Iterator[tuple[Key, np.ndarray]]:
        if not waiting:
            return
        tilings = [runner.plan.tilings(scene) for _, scene, _ in waiting]
        cells = tilings[0][0].window, tilings[0][1].window
        values = runner(Windows.join([windows for _, _, windows in waiting]), cells)
        first = 0
        for (key, scene, windows), (down, across) in zip(waiting, tilings, strict=True):
            yield key, _put_together(values[first : first + len(windows)], down, across, runner.plan.shape(scene))
            first += len(windows)
        waiting.clear()

    for key, scene in scenes:
        down, across = runner.plan.tilings(scene)
        if len(down.starts()) * len(across.starts()) > MANY * runner.batch:
            yield from done()
            whole = np.full((*runner.plan.shape(scene), runner.task.numbers), np.nan, "float32")
            for row, column, block in blocks(scene, runner, progress=False):
                whole[row : row + block.shape[0], column : column + block.shape[1]] = block
            yield key, whole
            continue
        windows = Windows.join(
            [_cut(scene, runner.plan, (down.window, across.window), start, across.starts()) for start in down.starts()]
        )
        if waiting and windows.kind() != waiting[0][2].kind():
            yield from done()
        waiting.append((key, scene, windows))
        if sum(len(each) for _, _, each in waiting) >= runner.batch:
            yield from done()
    yield from done()


def _put_together(values: np.ndarray, down: Tiling, across: Tiling, shape: tuple[int, int]) -> np.ndarray:
    """Windows, row after row of them, into one map."""
    starts = across.starts()
    rows = (
        (start, starts, values[at * len(starts) : (at + 1) * len(starts)]) for at, start in enumerate(down.starts())
    )
    weights = np.multiply.outer(down.weights(), across.weights())
    return np.concatenate([block for _, block in blend(rows, weights, slice(0, shape[0]), slice(0, shape[1]))])


def _windows(
    scene: Scene,
    runner: Runner,
    cells: tuple[int, int],
    downs: Sequence[int],
    acrosses: list[int],
    bar: Iterator[int],
) -> Iterator[tuple[int, list[int], np.ndarray]]:
    """Rows of windows and what is said of their cells."""
    together = max(1, runner.batch // len(acrosses))
    for at in range(0, len(downs), together):
        some = downs[at : at + together]
        parts = [_cut(scene, runner.plan, cells, down, acrosses) for down in some]
        values = runner(Windows.join(parts), cells)
        for place, down in enumerate(some):
            yield down, acrosses, values[place * len(acrosses) : (place + 1) * len(acrosses)]
            next(bar, None)


def _cut(scene: Scene, plan: Layout, cells: tuple[int, int], down: int, acrosses: list[int]) -> Windows:
    """A row of windows of the scene; where they start is given in cells."""

    def pixels(cell: int) -> int:
        return cell * plan.cell_px // plan.finer

    height, width = (pixels(side) for side in cells)
    # A patch of which a part is known is completed by its mirror image; what lies further out is not seen.
    limit = tuple(-(-size // plan.patch_px) * plan.patch_px for size in scene.shape)
    rows = range(pixels(down), pixels(down) + height)
    columns = range(pixels(acrosses[0]), pixels(acrosses[-1]) + width)
    strip = scene.strip(rows, columns, (limit[0], limit[1]))
    corners = [(rows.start, pixels(across)) for across in acrosses]
    return scene.cut(strip, (rows.start, columns.start), corners, (height, width))


def _gathered(rows: Iterator[tuple[int, np.ndarray]], chunk: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
    """Rows kept until they fill a chunk."""
    kept: list[np.ndarray] = []
    first = 0
    for row, block in rows:
        while len(block):
            if not kept:
                first = row
            room = chunk - row % chunk
            kept.append(block[:room])
            row, block = row + len(kept[-1]), block[room:]
            if row % chunk == 0 or row == stop:
                yield first, kept[0] if len(kept) == 1 else np.concatenate(kept)
                kept = []


def _batch(batch_size: int | str, numbers: int, plan: Layout, device: torch.device) -> int:
    if batch_size == "auto":
        cells = (plan.window_px * plan.finer // plan.cell_px) ** 2
        fits = min(AUTO_PIXELS // plan.window_px**2, ANSWER_BYTES // (4 * numbers * cells))
        return max(1, fits) * (GPU_TIMES if device.type == "cuda" else 1)
    if not isinstance(batch_size, int | np.integer) or isinstance(batch_size, bool) or batch_size < 1:
        raise InputError(f'batch_size={batch_size!r}: a whole number of windows from 1, or "auto".')
    return int(batch_size)
