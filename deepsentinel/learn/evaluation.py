"""`ds.evaluate`: a model and a test corpus in, a report out, with what the same lesson taught to what knew nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from deepsentinel.encoders.base import Encoder
from deepsentinel.progress import progress as shown

from .batches import corpora_of
from .checks import asked_sensors, checked_labels, few, shared_samples
from .controls import Run, clouds_of, lesson_of, runs_of, same_lesson
from .fit import Step
from .ground import Ground, answers, each_once, padded
from .intervals import BLOCK_M
from .mistakes import SampleScores, places_of, worst_of
from .model import Model
from .pretraining import Pretrained
from .probabilities import reliability
from .processes import alone
from .report import AS_LONG, CONTROLS, LOWER_IS_BETTER, MODEL, Report, score_rows
from .report_words import number, words
from .scoring import Scorer, ahead

if TYPE_CHECKING:
    import xarray as xr


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
    clouds: bool | None = None,
    worst: int = 6,
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
        model's own steps are too many; the report is provisional then.
    sensors
        What the model is shown: both, s1, s2 or several of them; None: what it was trained for, "any" being all three.
    block_m
        The side of the blocks of ground that intervals are drawn from.
    batch_size, device, clouds, on_step, progress
        Samples at once; where; whether what SCL calls cloud is hidden from whoever is tested (None: as the model
        learnt; lessons stay as they were); as in `ds.finetune`; whether a bar is shown.
    worst
        Of how many samples, the worst of all, the report keeps picture, truth and answer.

    The report has a table of all samples too, `report.places`, where on the ground the model is wrong. Classes that the
    model never saw are for `ds.few_shot`, whose table `report.with_few_shot` takes in.

    ```python
    report = ds.evaluate(head, test, train=train)
    report.save("reports/corine"); ds.show(report); ds.show(report, panels="worst")
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

    if controls:
        alone("evaluate")
    chosen = pick_device(device)
    hidden = clouds_of(model, clouds)
    ground = Ground(corpora_of(test), block_m=block_m, batch_size=batch_size, clouds=hidden, device=chosen)
    asked = asked_sensors(model, ground.corpora, sensors)
    notes = checked_labels(model, ground.corpora)
    # Clouds are hidden in lessons as they were in the model's, whatever it is tested on.
    lesson = lesson_of(model, train, encoder, device=chosen) if controls else None
    runs = runs_of(model, lesson, seeds, steps)
    notes += shared_samples(_learnt_from(model, train), ground.corpora)
    lacking: tuple[str, ...] = ()
    if lesson is not None and steps is not None and steps != lesson.plan.steps:
        notes.append(f"The controls learnt for {steps:,} steps, the model for {lesson.plan.steps:,}.")
        lacking = (AS_LONG,) if steps < lesson.plan.steps else ()
    twin = "" if lesson is None or steps not in (None, lesson.plan.steps) else same_lesson(lesson, model.encoder.spec)
    if twin:
        notes.append(f"The model saw nothing before its labels: it is its own control {twin!r}.")

    measured: dict[tuple[str, int], dict[str, Scorer]] = {}
    heads: dict[str, list[str]] = {}
    each = SampleScores(model, ground.count)
    todo = shown(runs, total=len(runs), what="evaluating", unit="run") if progress and len(runs) > 1 else runs
    for run in todo:
        if run.what == twin:
            measured[run.what, run.seed] = measured[MODEL, run.seed]
            continue
        judged = model if run.lesson is None else run.lesson.taught(run.seed, on_step=on_step)
        if type(judged.head) is not type(model.head) and run.what not in heads.get(_head(judged), ()):
            heads.setdefault(_head(judged), []).append(run.what)
        # Places are of the model itself, with all that it can be shown.
        told = {asked[0]: each} if run.lesson is None else {}
        measured[run.what, run.seed] = {name: ground.measure(judged, name, told.get(name)) for name in asked}
    for head, names in heads.items():
        notes.append(
            f"{' and '.join(names)} answer{'s' if len(names) == 1 else ''} by a {head}, the model by a {_head(model)}, "
            "as the encoder of each allows: not all of the difference is due to what they know."
        )
    places = places_of(ground, each, asked[0])
    report = _report(model, ground, runs, measured, notes)
    return replace(report, lacking=lacking, places=places, worst=worst_of(model, ground, places, worst))


def _learnt_from(model: Model, train: xr.Dataset | Sequence[xr.Dataset] | None) -> Sequence[xr.Dataset]:
    """What is known of the corpora that a model learnt from."""
    kept = (getattr(model, "learnt", None) or (None,))[0]
    return corpora_of(train) if train is not None else kept or ()


def _head(model: Model) -> str:
    return type(model.head).__name__


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
                    told["n"] = scorer.often or told["n"]
                    for metric, interval in scorer.by_class().items():
                        rows += score_rows(interval, metric, classes=classes, **told)
    of_model = [each for (what, _), each in measured.items() if what == MODEL]
    main = [next(iter(each.values())) for each in of_model]
    if main[0].absent:
        never = [classes[number] for number in main[0].absent]
        notes.append(f"{len(never)} of the classes do not occur in the test and are in no mean: {few(never)}.")
    notes += main[0].remarks
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
    return _ahead(report, measured)


def _ahead(report: Report, measured: dict[tuple[str, int], dict[str, Scorer]]) -> Report:
    """How sure it is that the model is better than its best control, or worse: both saw the same ground."""
    gained = report.gain()
    if gained is None:
        return report
    these, those = (
        [next(iter(each.values())) for (what, _), each in measured.items() if what == name]
        for name in (MODEL, gained[1])
    )
    found = ahead(these, those)
    numbers = [number(float(value)) for value in (found.value, found.low, found.high)]
    interval = "no interval" if "none" in numbers else f"interval {numbers[1]} to {numbers[2]}"
    note = (
        f"{words(report.headline)} of the model less that of {gained[1]}, block by block of the same ground: "
        f"{numbers[0]}, {interval}."
    )
    # Of errors, less is a gain.
    ends = (-found.high, -found.low) if report.headline in LOWER_IS_BETTER else (found.low, found.high)
    return replace(report, notes=(note, *report.notes), gained=(float(ends[0]), float(ends[1])))


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


__all__ = ["CONTROLS", "Ground", "answers", "each_once", "evaluate", "padded"]
