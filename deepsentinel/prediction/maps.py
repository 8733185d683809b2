"""What a model says as maps: of one piece of ground, in memory or on disk, or of every sample of a corpus."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from deepsentinel.embedding.inputs import Scene
from deepsentinel.learn.model import Model

from .corpora import OfSample, map_corpus
from .layout import layout
from .results import Results, Uncertainty
from .running import Runner, blocks
from .sinks import Memory, check_target, file_sink, open_files
from .stories import task_of, times_of, told_of

if TYPE_CHECKING:
    from .border import Border


class Maps:
    """How maps of a model are made."""

    streams = False
    """Whether ground of any size fits in memory."""

    def __init__(
        self, model: Model, how: dict[str, Any], uncertainty: Uncertainty, probabilities: bool, progress: bool
    ) -> None:
        self.results = Results(model, uncertainty, probabilities)
        self.plan = layout(
            model.encoder.spec,
            trained_px=model.story.get("crop_px"),
            window_px=how["window_px"],
            overlap=how["overlap"],
            finer=model.question.upscale,
            whole=self.results.whole,
        )
        self.how = {name: how[name] for name in ("device", "batch_size")}
        self.progress = progress

    def of_corpus(self, corpus: xr.Dataset, of_sample: OfSample, out: str | os.PathLike[str] | None) -> xr.Dataset:
        """The maps of all samples."""
        return map_corpus(corpus, of_sample, self.results, self.plan, self.how, out, self.progress)

    def of_scene(
        self, scene: Scene, mode: str, out: str | os.PathLike[str] | None, border: Border | None = None
    ) -> xr.Dataset:
        """The map of one piece of ground; of an area with a border only what lies within."""
        results, plan = self.results, self.plan
        target = None if out is None else check_target(out, results.layers, scene.data)
        geobox = plan.geobox(scene)
        coords = {**results.coords(), **times_of(scene)}

        def told() -> dict[str, Any]:
            return told_of(scene, results, plan, mode)

        def layers(row: int, column: int, values: np.ndarray) -> dict[str, np.ndarray]:
            if border is not None:
                # A cell that is large beside the area may have its middle elsewhere.
                inside = border.cells(geobox, row, column, values.shape[:2], touched=plan.cell_px > 1)
                values = np.where(inside[..., None], values, np.nan)
            return results.of(values)

        with Runner(task_of(results, mode), plan, **self.how) as runner:
            if target is not None:
                with file_sink(target, results.layers, geobox, coords, told) as sink:
                    for row, column, values in blocks(scene, runner, chunk=sink.chunk, progress=self.progress):
                        sink.write(row, column, layers(row, column, values))
                return open_files(target, results.layers, geobox, coords, told())
            memory = Memory(results.layers, plan.shape(scene), results.numbers)
            for row, column, values in blocks(scene, runner, progress=self.progress):
                memory.write(row, column, layers(row, column, values))
        return memory.dataset(geobox, coords, scene.data).assign_attrs(told())
