"""`ds.evaluate`: a model and a test corpus in, a report out, with what the same lesson taught to what knew nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from deepsentinel.bands import SCL_CLOUDY
from deepsentinel.encoders.base import Encoder
from deepsentinel.encoders.conv import ConvEncoder
from deepsentinel.errors import InputError, NothingFoundError
from deepsentinel.progress import progress as shown

from .batches import Batch, Feed, bands_of, corpora_of
from .checks import asked_sensors, checked_labels, few, shared_samples
from .controls import Run, lesson_of, runs_of, same_lesson
from .fit import Step
from .intervals import BLOCK_M, ground_blocks
from .model import Model
from .pretraining import Pretrained
from .probabilities import reliability
from .report import CONTROLS, MODEL, Report, number, score_rows, words
from .scoring import Scorer, ahead, scorer_of
from .tallies import cloud_steps

if TYPE_CHECKING:
    import xarray as xr

# Read together while clouds are counted.
PIECE = 256
# The coarsest level of a U-Net; its decoder doubles the sides step by step and meets the finer levels on the way.
UNET_PX = 32


def evaluate(
    model: Model,
    test: xr.Dataset | Sequence[xr.Dataset],
    *,
    train: xr.Dataset | Sequence[xr.Dataset] | None = None,
    encoder: str | os.PathLike[str] | Encoder | Pretrained | None = None,
    controls: bool = True,
    seeds: Sequence[int] = (0, 1),
    steps: int | None = None,
    sensors: str | Sequence[str] | None = None,
    batch_size: int = 16,
    device: str | torch.device = "auto",
    block_m: float = BLOCK_M,
    clouds: bool = True,
    on_step: Callable[[Step], object] | None = None,
    progress: bool = True,
) -> Report:
    """How good a model is on samples that it did not learn from, beside its controls and with another seed.

    Parameters
    ----------
    model
        From `ds.finetune`, or `load_model`.
    test
        A corpus with the same labels, or a list of them, on other ground than the model learnt from.
    train, encoder
        What the model learnt from, and began with: needed for controls where the model does not remember it.
    controls
        Whether image statistics, random convolutions, the encoder frozen with random weights and the same from scratch
        have the same lesson, and the model a second seed. Without them the report is provisional, and says so.
    seeds, steps
        The seeds of all these runs (the model itself is one of them); and how long the controls learn, where the
        model's own steps are too many.
    sensors
        What the model is shown: both, s1, s2 or several of them; None: what it was trained for, "any" being all three.
    block_m
        The side of the blocks of ground that intervals are drawn from.
    batch_size, device, clouds, on_step, progress
        Samples at once; where; whether what SCL calls cloud is hidden; as in `ds.finetune`; whether a bar is shown.

    ```python
    report = ds.evaluate(head, test, train=train)
    report.save("reports/corine"); ds.show(report)
    ```

    >>> import tempfile, deepsentinel as ds
    >>> from deepsentinel.corpus.recipes import labelled
    >>> recipe = labelled(ds.open_source("demo", size_px=256), n=6, size_px=32, start="2018-06-01", end="2018-06-20")
    >>> corpus = ds.open_corpus(recipe.build(tempfile.mkdtemp() + "/corpus.zarr", progress=False).path)
    >>> few, others = corpus.isel(sample=slice(0, 2)), corpus.isel(sample=slice(2, None))
    >>> model = ds.finetune(few, "fusion-nano", labels="osm", weights="random", steps=1, batch_size=2)
    >>> report = evaluate(model, others, controls=False)
    >>> report.headline, len(report.missing)
    ('mean_iou', 5)
    """
    from deepsentinel.embedding.model import pick_device

    chosen = pick_device(device)
    ground = Ground(corpora_of(test), block_m=block_m, batch_size=batch_size, clouds=clouds, device=chosen)
    asked = asked_sensors(model, ground.corpora, sensors)
    notes = checked_labels(model, ground.corpora)
    lesson = lesson_of(model, train, encoder, clouds=clouds, device=chosen) if controls else None
    runs = runs_of(model, lesson, seeds, steps)
    if lesson is not None:
        notes += shared_samples(lesson.corpora, ground.corpora)
        if steps is not None and steps != lesson.plan.steps:
            notes.append(f"The controls learnt for {steps:,} steps, the model for {lesson.plan.steps:,}.")
    twin = "" if lesson is None or steps not in (None, lesson.plan.steps) else same_lesson(lesson, model.encoder.spec)
    if twin:
        notes.append(f"The model saw nothing before its labels: it is its own control {twin!r}.")

    measured: dict[tuple[str, int], dict[str, Scorer]] = {}
    todo = shown(runs, total=len(runs), what="evaluating", unit="run") if progress and len(runs) > 1 else runs
    for run in todo:
        if run.what == twin:
            measured[run.what, run.seed] = measured[MODEL, run.seed]
            continue
        judged = model if run.lesson is None else run.lesson.taught(run.seed, on_step=on_step)
        measured[run.what, run.seed] = {name: ground.measure(judged, name) for name in asked}
    return _report(model, ground, runs, measured, notes)


class Ground:
    """What is tested on: corpora, and of each sample its block of ground and how clouded it is."""

    def __init__(
        self,
        corpora: Sequence[xr.Dataset],
        *,
        block_m: float = BLOCK_M,
        batch_size: int = 16,
        clouds: bool = True,
        device: str | torch.device = "cpu",
    ) -> None:
        from deepsentinel.tensors import PatchDataset

        self.corpora, self.block_m, self.clouds = list(corpora), block_m, clouds
        self.device = torch.device(device)
        parts = [PatchDataset(corpus) for corpus in self.corpora]
        self.count = sum(len(part) for part in parts)
        if not self.count:
            raise NothingFoundError("The test corpus has no sample that could be read; none has the status 'ok'.")
        self.batch_size = min(batch_size, self.count)
        lacking = [at for at, part in enumerate(parts) if not {"lon", "lat"} <= set(part.facts)]
        if lacking:
            raise InputError("The samples of the test have no lon and lat, which tell what lies near what.")
        lon, lat = (np.concatenate([part.facts[name] for part in parts]).astype("float64") for name in ("lon", "lat"))
        self.block = ground_blocks(lon, lat, block_m)
        percent = np.concatenate([_clouded(corpus, part) for corpus, part in zip(self.corpora, parts, strict=True)])
        self.cloud = cloud_steps(percent)
        self._feed: tuple[Any, Feed] | None = None

    @property
    def clouds_told(self) -> list[str]:
        """The steps of cloud cover there are, where they tell anything."""
        found = sorted(set(self.cloud.tolist()))
        return found if len(found) > 1 else []

    def batches(self, model: Model) -> Iterator[tuple[np.ndarray, Batch]]:
        """Each sample once, whole and as it lies, with its position."""
        bands = bands_of(model.encoder.spec, self.corpora[0])
        key = (tuple(bands), model.question.arrays)
        if self._feed is None or self._feed[0] != key:
            # Read once for all that look at the same bands.
            self._feed = None
            feed = Feed(
                self.corpora,
                batch_size=self.batch_size,
                bands=bands,
                labels=model.question.arrays,
                turn=False,
                clouds=self.clouds,
                device=self.device,
            )
            self._feed = key, feed
        return each_once(self._feed[1])

    @torch.no_grad()
    def measure(self, model: Model, sensors: str) -> Scorer:
        """What a model says of all samples, against the truth."""
        scorer = scorer_of(model.question)
        before = _device_of(model)
        model.to(self.device).eval()
        for positions, batch in self.batches(model):
            groups: dict[str, Any] = {"block": self.block[positions], "cloud": self.cloud[positions]}
            scorer.update(answers(model, batch, sensors), model.truth(batch), groups)
        model.to(before)
        if not scorer.count():
            raise NothingFoundError(
                f"Nothing of the {self.count} samples of the test is labelled with what the model tells: "
                f"{', '.join(model.question.arrays)}."
            )
        return scorer


def each_once(feed: Feed) -> Iterator[tuple[np.ndarray, Batch]]:
    """Every sample of a feed once, with its position in it; the last batch is what is left."""
    size, count = feed.batch_size, len(feed)
    for step, batch in enumerate(feed.run(0, -(-count // size))):
        left = min(size, count - step * size)
        yield feed.positions(step)[:left], first(batch, left)


def first(batch: Batch, count: int) -> Batch:
    """The first samples of a batch."""
    if count >= len(batch):
        return batch

    def cut(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[:count]

    return replace(
        batch._pixelwise(cut),
        month=cut(batch.month),
        latlon=cut(batch.latlon),
        sample=batch.sample[:count],
        labels={name: values[:count] for name, values in batch.labels.items()},
        others={name: first(other, count) for name, other in batch.others.items()},
    )


def padded(batch: Batch, multiple: int) -> Batch:
    """The same with sides that are multiples of a number: what is added below and to the right was not seen.

    Labels stay as they are; `answers` cuts what was said of the rest off again.
    """
    height, width = batch.pixels.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return batch

    def wider(values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        return F.pad(values.float(), (0, right, 0, below)).to(values.dtype)

    masks = {}
    for key in ("s1", "s2"):
        pixels, mask = getattr(batch, key), getattr(batch, f"{key}_mask")
        if pixels is not None and mask is None:
            mask = torch.ones_like(pixels[:, 0], dtype=torch.bool)
        masks[f"{key}_mask"] = mask
    return replace(batch, **masks)._pixelwise(wider)


def multiple_of(model: Model) -> int:
    """Of what the sides of a window have to be multiples, for a model."""
    encoder = model.encoder
    return UNET_PX if isinstance(encoder, ConvEncoder) else encoder.spec.patch_px


@torch.no_grad()
def answers(model: Model, batch: Batch, sensors: str | None = None) -> Tensor:
    """What `model.probabilities` gives, of samples whose sides need not fit the encoder."""
    wide = padded(batch, multiple_of(model))
    said = model.probabilities(wide, sensors)
    if said.ndim < 4 or wide is batch:
        return said
    finer = said.shape[-1] // wide.pixels.shape[-1]
    height, width = (side * finer for side in batch.pixels.shape[-2:])
    return said[..., :height, :width]


def _clouded(corpus: xr.Dataset, part: Any) -> np.ndarray:
    """Percent of each sample that SCL calls cloud or shadow, or that is not clear; NaN where nothing tells it."""
    if "scl" in corpus.data_vars:
        found = []
        for start in range(0, len(part), PIECE):
            scl = part.chunks.read_many("scl", part.samples[start : start + PIECE].tolist())
            flat = scl.reshape(len(scl), -1)
            known = (flat != 0).sum(axis=1)
            cloudy = np.isin(flat, tuple(SCL_CLOUDY)).sum(axis=1)
            found.append(np.where(known > 0, 100 * cloudy / np.maximum(known, 1), np.nan))
        return np.concatenate(found) if found else np.empty(0)
    if "clear" in corpus.coords:
        clear = np.asarray(corpus["clear"].values, "float64")[part.positions]
        return np.clip(100 * (1 - clear), 0, 100)
    return np.full(len(part), np.nan)


def _report(
    model: Model,
    ground: Ground,
    runs: Sequence[Run],
    measured: dict[tuple[str, int], dict[str, Scorer]],
    notes: list[str],
) -> Report:
    classes = _names(model)
    rows: list[dict[str, Any]] = []
    remarks: dict[str, None] = {}
    for run in runs:
        for sensors, scorer in measured[run.what, run.seed].items():
            head: dict[str, Any] = {"what": run.what, "sensors": sensors, "seed": run.seed}
            for cloud in ("", *ground.clouds_told):
                where = {"cloud": cloud} if cloud else {}
                told = {**head, "n": scorer.count(**where), "cloud": cloud or "all"}
                for metric, interval in scorer.overall(**where).items():
                    rows += score_rows(interval, metric, **told)
                    remarks |= {interval.note: None} if interval.note and not cloud else {}
                if not cloud:
                    for metric, interval in scorer.by_class().items():
                        rows += score_rows(interval, metric, classes=classes, **told)
    of_model = [each for (what, _), each in measured.items() if what == MODEL]
    main = [next(iter(each.values())) for each in of_model]
    if main[0].absent:
        never = [classes[number] for number in main[0].absent]
        notes.append(f"{len(never)} of the classes do not occur in the test and are in no mean: {few(never)}.")
    tables = [scorer.confusion for scorer in main if scorer.confusion is not None]
    bars = [scorer.calibration for scorer in main if scorer.calibration is not None]
    curve = reliability(np.sum([each.total() for each in bars], axis=0)) if bars else None
    story = model.story
    about = {
        "encoder": f"{model.encoder.spec.name.removesuffix('-random')}, {_began(story)}",
        "learnt": f"{story['samples']:,} samples, {story['steps']:,} steps" if "samples" in story else "not told",
        "tested on": f"{ground.count:,} samples in {len(np.unique(ground.block)):,} blocks of "
        f"{ground.block_m / 1000:g} km",
    }
    report = Report(
        model.task,
        classes,
        pd.DataFrame(rows),
        pd.DataFrame(
            np.sum([each.total() for each in tables], axis=0), index=pd.Index(classes, name="truth"), columns=classes
        )
        if tables
        else None,
        None if curve is None else pd.DataFrame(curve, columns=["confidence", "accuracy", "share"]),
        (*notes, *(f"{remark[0].upper()}{remark[1:]}." for remark in remarks)),
        about,
    )
    return replace(report, notes=(*_ahead(report, measured), *report.notes))


def _ahead(report: Report, measured: dict[tuple[str, int], dict[str, Scorer]]) -> list[str]:
    """How sure it is that the model is better than its best control, or worse: both saw the same ground."""
    gained = report.gain()
    if gained is None:
        return []
    these, those = (
        [next(iter(each.values())) for (what, _), each in measured.items() if what == name]
        for name in (MODEL, gained[1])
    )
    found = ahead(these, those)
    numbers = [number(float(value)) for value in (found.value, found.low, found.high)]
    interval = "no interval" if "none" in numbers else f"interval {numbers[1]} to {numbers[2]}"
    return [
        f"{words(report.headline)} of the model less that of {gained[1]}, block by block of the same ground: "
        f"{numbers[0]}, {interval}."
    ]


def _began(story: dict[str, Any]) -> str:
    if not story:
        return "its training not told"
    kept = "kept as it was" if story.get("frozen") else "fine-tuned"
    return f"{'random weights, ' if story.get('weights') == 'random' else ''}{kept}"


def _names(model: Model) -> tuple[str, ...]:
    """What the classes are called, with their numbers where two are called the same."""
    if model.question.classes is None:
        return ()
    names = model.classes.names
    return tuple(
        f"{name} ({code})" if names.count(name) > 1 else name
        for name, code in zip(names, model.classes.codes, strict=True)
    )


def _device_of(model: torch.nn.Module) -> torch.device:
    return next((value.device for value in model.parameters()), torch.device("cpu"))


__all__ = ["CONTROLS", "Ground", "answers", "each_once", "evaluate", "padded"]
