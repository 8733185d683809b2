"""A look at a model while it learns: its score on ground that it does not learn from, and one sample of that ground.

    watch = Watch(held_back)
    ds.finetune(train, "fusion-nano", labels="corine", on_step=lambda step: print(watch.look(step.model).score))

Looking changes nothing: a run that is watched ends with the weights of one that is not. The score is of a few samples
and has no controls beside it, so it says whether a run is worth its time, and nothing else; `ds.evaluate` tells more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from deepsentinel.errors import InputError

from .batches import corpora_of
from .ground import Ground
from .mistakes import Example, SampleScores, drawn, pictured
from .report import HEADLINES
from .tallies import cloud_steps

if TYPE_CHECKING:
    import xarray as xr

    from .model import Model

# So many samples tell the way a score goes.
USUAL = 16


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen of a model in between."""

    metric: str
    """Which score it is, see `deepsentinel.learn.report.HEADLINES`."""
    score: float
    """How good it is on what was held back; NaN where nothing there has a label."""
    samples: int
    """Of so many samples."""
    example: Example
    """One of them: its pixels, what is there, and what the model says."""


class Watch:
    """Looks at a model, always at the same samples.

    >>> import tempfile, deepsentinel as ds
    >>> from deepsentinel.corpus.recipes import labelled
    >>> recipe = labelled(ds.open_source("demo", size_px=256), n=3, size_px=32, start="2018-05-01", end="2018-08-31")
    >>> corpus = ds.open_corpus(recipe.build(tempfile.mkdtemp() + "/corpus.zarr", progress=False).path)
    >>> how = {"weights": "random", "steps": 1, "batch_size": 2}
    >>> look = Watch(corpus).look(ds.finetune(corpus, "fusion-nano", "segmentation", "osm", **how))
    >>> look.metric, look.samples
    ('mean_iou', 3)
    """

    def __init__(self, corpus: xr.Dataset | Sequence[xr.Dataset], *, most: int = USUAL, at: int | None = None) -> None:
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InputError(f"most={most!r}: how many samples are looked at, from 1, is meant.")
        whole = Ground(corpora_of(corpus))
        rows = np.unique(np.linspace(0, whole.count - 1, min(most, whole.count)).round().astype(int))
        self.ground = whole.of(rows.tolist())
        self._at = at

    def look(self, model: Model) -> Look:
        """The score, and the sample that is shown: the one that was chosen, or else the clear one with most labels."""
        learning, sensors = model.training, model.sensors_for(None)
        each = SampleScores(model, self.ground.count)
        with torch.random.fork_rng(devices=[]):
            try:
                found = self.ground.measure(model, sensors, each).overall()
                at = self._shown(each)
                example = self._example(model, sensors, at, float(each.score[at]))
            finally:
                model.train(learning)
        metric = next((name for name in HEADLINES[model.task] if name in found), next(iter(found)))
        return Look(metric, float(found[metric].value), self.ground.count, example)

    def _shown(self, each: SampleScores) -> int:
        if self._at is None:
            # A cloud has little to show.
            clear = self.ground.cloud == cloud_steps([0.0])[0]
            self._at = int(np.argmax(np.where(clear, each.n, each.n / (2.0 * each.n.max() + 1))))
        return self._at

    def _example(self, model: Model, sensors: str, at: int, score: float) -> Example:
        ground = self.ground.of([at])
        said, truth, side = next(iter(ground.answered(model, sensors).values()))
        right, answer = drawn(model.task, said, truth, side)
        pixels, told = pictured(ground.corpora[int(ground.corpus[0])], int(ground.place[0]))
        where = float(ground.lon[0]), float(ground.lat[0])
        return Example(int(ground.sample[0]), score, *where, float("nan"), pixels, right, answer, told)


@contextmanager
def one_core_free() -> Iterator[int]:
    """Within this, torch leaves one of the processor's cores to others, such as the kernel that answers clicks.

    >>> with one_core_free() as used:
    ...     used == max(1, len(os.sched_getaffinity(0)) - 1) if hasattr(os, "sched_getaffinity") else True
    True
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    before, used = torch.get_num_threads(), max(1, there - 1)
    torch.set_num_threads(min(before, used))
    try:
        yield used
    finally:
        torch.set_num_threads(before)


def memory_gb(device: str | torch.device = "cpu") -> float | None:
    """How much memory this process holds, of a GPU's or of the machine's; None where the system does not tell.

    >>> found = memory_gb()
    >>> found is None or found > 0.01
    True
    """
    if torch.device(device).type == "cuda":
        return float(torch.cuda.memory_allocated(device)) / 1e9
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (OSError, ValueError, IndexError):
        return None
