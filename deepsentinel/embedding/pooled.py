"""One vector a patch: of one window where it fits, else the mean of the windows that cover it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from deepsentinel.encoders.spec import EncoderSpec
from deepsentinel.errors import InputError

from .inputs import Scene
from .model import Runner, Windows

# How many windows of a row are cut at a time.
CUT_WINDOWS = 64


class _Sum:
    """What is known so far of one patch."""

    def __init__(self) -> None:
        self.total: np.ndarray | None = None
        self.weight = 0.0

    def add(self, vector: np.ndarray, weight: float) -> None:
        """One more window; one without data has no say."""
        if weight and np.isfinite(vector).all():
            part = vector.astype("float64") * weight
            self.total = part if self.total is None else self.total + part
            self.weight += weight

    def mean(self, width: int) -> np.ndarray:
        """The vector of the patch."""
        return np.full(width, np.nan) if self.total is None else self.total / self.weight


def pool(scenes: Iterable[Scene], runner: Runner, window_px: int) -> np.ndarray:
    """(patches, D) float32, a window weighing as much as it has usable pixels. Patches of one kind share batches."""
    sums: list[_Sum] = []
    waiting: list[tuple[_Sum, Windows]] = []

    def run() -> None:
        if not waiting:
            return
        windows = Windows.join([part for _, part in waiting])
        owners = [owner for owner, part in waiting for _ in range(len(part))]
        weights = windows.usable().sum(axis=(1, 2)).tolist()
        for owner, vector, weight in zip(owners, runner(windows, dense=False), weights, strict=True):
            owner.add(vector, weight)
        waiting.clear()

    for scene in scenes:
        sums.append(_Sum())
        for windows in _windows(scene, window_px, runner.patch_px):
            if waiting and waiting[-1][1].kind() != windows.kind():
                run()
            waiting.append((sums[-1], windows))
            if sum(len(part) for _, part in waiting) >= runner.batch:
                run()
    if not sums:
        raise InputError("There is no patch to embed: the list, or the Dataset, is empty.")
    run()
    return np.stack([one.mean(runner.encoder.spec.width) for one in sums]).astype("float32")


def _windows(scene: Scene, window_px: int, patch_px: int) -> Iterator[Windows]:
    """Windows that cover a patch, a row of them at a time."""
    down, across = spans(scene.shape, scene.spec, window_px, patch_px)
    limit = tuple(-(-size // patch_px) * patch_px for size in scene.shape)
    for top, height in down:
        for width in sorted({side for _, side in across}, reverse=True):
            lefts = [left for left, side in across if side == width]
            for at in range(0, len(lefts), CUT_WINDOWS):
                some = lefts[at : at + CUT_WINDOWS]
                rows, columns = range(top, top + height), range(some[0], some[-1] + width)
                strip = scene.strip(rows, columns, (limit[0], limit[1]))
                yield scene.cut(strip, (top, some[0]), [(top, left) for left in some], (height, width))


def spans(
    shape: tuple[int, int], spec: EncoderSpec, window_px: int, patch_px: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Where windows start and how long they are, down and across: as few as cover the patch, evenly spread.

    >>> from deepsentinel.encoders.registry import find
    >>> spans((64, 100), find("galileo-nano"), 64, 8)
    ([(0, 64)], [(0, 64), (36, 64)])
    """
    if spec.size_px == 1:
        # Each pixel for itself, and each of them once.
        return tuple([(at, min(window_px, size - at)) for at in range(0, size, window_px)] for size in shape)  # type: ignore[return-value]
    sides = [min(window_px, -(-size // patch_px) * patch_px) if spec.any_size else window_px for size in shape]
    if spec.square_only:
        sides = [max(sides)] * 2
    found = []
    for size, side in zip(shape, sides, strict=True):
        count = -(-size // side)
        steps = np.linspace(0, max(size - side, 0), count).round().astype(int)
        found.append([(int(at), side) for at in steps])
    return found[0], found[1]
