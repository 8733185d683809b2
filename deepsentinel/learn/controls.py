"""What a score is put beside: the same lesson, taught again to what learnt nothing before, and with another seed.

A model remembers how it was trained (`model.story`), so that its controls have the same head, the same samples, the
same rates and as many steps, and differ in their encoder alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch

from deepsentinel.encoders.base import Encoder
from deepsentinel.errors import InputError

from .batches import Feed, bands_of, corpora_of
from .finetuning import layered
from .fit import Plan, Step, fit
from .model import Model, Question
from .pretraining import NOT_TOLD, Pretrained, started, usual_crop
from .report import CONTROLS, MODEL

if TYPE_CHECKING:
    import xarray as xr

    from deepsentinel.encoders.spec import EncoderSpec

RANDOM, RANDOM_SUFFIX = "random", "-random"
STATISTICS, CONVOLUTIONS, FROZEN, SCRATCH = CONTROLS
BASELINES = {STATISTICS: "image-statistics", CONVOLUTIONS: "random-convolutions"}
# By which factor a layer learns more slowly than the next, where all learn alike.
FULL_RATE = 1.0
# What of a story a lesson cannot do without.
TOLD = ("encoder", "frozen", "layer_rate", "crop_px", "batch_size", "size", "steps")


@dataclass(frozen=True)
class Lesson:
    """How a model is trained: everything but the seed."""

    corpora: tuple[xr.Dataset, ...]
    """What is learnt from."""
    question: Question
    """What is to be told; classes are those of the model that is judged, in its order."""
    start: str | Encoder
    """The encoder it begins with: a name, or one of which a copy is trained."""
    weights: str | None
    """Where a name is given: "random", a file, or None for those that come with it."""
    frozen: bool
    """Whether only the head learns."""
    size: int
    """How wide the head is."""
    layer_rate: float
    """By which factor each layer learns more slowly than the next."""
    batch_size: int
    """Samples a step."""
    crop_px: int
    """The side of crops."""
    plan: Plan
    """Steps and rates; its seed is put in when it is taught."""
    clouds: bool = True
    """Whether what SCL calls cloud is hidden."""
    device: str | torch.device = "cpu"
    """Where."""
    cache_features: bool | str = "auto"
    """Whether a frozen encoder may look once: never True, which not every control could do."""

    @property
    def from_scratch(self) -> bool:
        """Whether its encoder is drawn anew with each seed."""
        from deepsentinel.encoders import find

        if not isinstance(self.start, str):
            return False
        spec = find(self.start.removesuffix(RANDOM_SUFFIX))
        held = bool(spec.url or spec.shipped) and not self.start.endswith(RANDOM_SUFFIX)
        return self.weights == RANDOM or (self.weights is None and not held)

    def taught(self, seed: int, *, on_step: Callable[[Step], object] | None = None) -> Model:
        """A model that had this lesson, with one seed for all that is drawn."""
        encoder = self._encoder(seed)
        feed = Feed(
            self.corpora,
            batch_size=self.batch_size,
            crop_px=usual_crop(self.corpora[0], self.crop_px),
            bands=bands_of(encoder.spec, self.corpora[0]),
            labels=self.question.arrays,
            clouds=self.clouds,
            seed=seed,
            device=self.device,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Model(
                encoder, self.question, frozen=self.frozen, size=self.size, cache_features=self.cache_features
            )
            model = model.to(self.device)
        plan = replace(self.plan, seed=seed)
        model.history = fit(model, feed, plan, groups=layered(model, plan, self.layer_rate), on_step=on_step).table()
        return model.eval()

    def _encoder(self, seed: int) -> Encoder:
        from deepsentinel.encoders import load_encoder

        if not isinstance(self.start, str):
            return started(self.start)
        if self.start in BASELINES.values():
            # Nothing in it is trained: the head is.
            return load_encoder(self.start, seed=seed)
        return started(self.start, weights=self.weights, seed=seed)


def lesson_of(
    model: Model,
    train: xr.Dataset | Sequence[xr.Dataset] | None = None,
    encoder: str | os.PathLike[str] | Encoder | Pretrained | None = None,
    *,
    clouds: bool | None = None,
    device: str | torch.device = "cpu",
) -> Lesson:
    """The lesson that a model had, as far as it remembers it.

    train: what it learnt from, where the model was loaded from a file. encoder: what it began with, where that was
    neither a name nor is still in the model. clouds: whether they are hidden; None: as they were.
    """
    story, kept = model.story, getattr(model, "learnt", None) or (None, None)
    if lost := [name for name in TOLD if name not in story]:
        raise InputError(
            f"This model does not tell how it was trained (no {lost[0]}), so its controls cannot be trained alike. "
            "Models of ds.finetune do; controls=False judges it without them."
        )
    train = kept[0] if train is None else train
    if train is None:
        raise InputError(
            "Controls and a second seed are trained on what the model learnt from, which it does not remember: pass "
            "train=..., the corpus that finetune had, or controls=False for a provisional report."
        )
    start, weights = _start(model, kept[1] if encoder is None else encoder)
    told = {each.name: story[each.name] for each in fields(Plan) if each.name in story and each.name not in NOT_TOLD}
    return Lesson(
        tuple(corpora_of(train)),
        model.question,
        start,
        weights,
        bool(story["frozen"]),
        int(story["size"]),
        float(story["layer_rate"]),
        int(story["batch_size"]),
        int(story["crop_px"]),
        Plan(**told),
        clouds_of(model, clouds),
        device,
        False if story.get("cache_features") is False else "auto",
    )


def clouds_of(model: Any, clouds: bool | None = None) -> bool:
    """Whether what SCL calls cloud is hidden from a model: as asked for, or as it was when it learnt.

    >>> from types import SimpleNamespace
    >>> clouds_of(SimpleNamespace(story={"clouds": False})), clouds_of(SimpleNamespace(story={}))
    (False, True)
    """
    return bool(getattr(model, "story", {}).get("clouds", True)) if clouds is None else clouds


def _start(model: Model, encoder: Any) -> tuple[str | Encoder, str | None]:
    """What a model's encoder was before the lesson, and its weights where that is a name."""
    story = model.story
    weights = story.get("weights")
    if isinstance(encoder, Encoder):
        return encoder, None
    if isinstance(getattr(encoder, "encoder", None), Encoder):
        return encoder.encoder, None
    # A model from a file is built on a random encoder, whatever it began with: the story knows.
    name = str(story["encoder"])
    if encoder is not None:
        # A name of an encoder, or a file with weights of this model's.
        known = isinstance(encoder, str) and encoder.removesuffix(RANDOM_SUFFIX) == name.removesuffix(RANDOM_SUFFIX)
        return (str(encoder), weights) if known else (name.removesuffix(RANDOM_SUFFIX), os.fspath(encoder))
    if weights is not None:
        return name.removesuffix(RANDOM_SUFFIX), weights
    if story["frozen"]:
        return model.encoder, None
    if story.get("named"):
        # Also of a name that has no weights: it is drawn anew with each seed.
        return (name.removesuffix(RANDOM_SUFFIX), RANDOM) if name.endswith(RANDOM_SUFFIX) else (name, None)
    # What was pretrained keeps the name of the random encoder that it was once, so that a name tells nothing here.
    raise InputError(
        "The second seed begins with the encoder that this model began with, which it does not remember: pass "
        "encoder=..., what finetune had, or controls=False for a provisional report."
    )


def control(lesson: Lesson, name: str, spec: EncoderSpec) -> Lesson:
    """The lesson of one of the four controls of a model on this encoder.

    Statistics and random convolutions are answered from by a head alone; the encoder itself is drawn at random and kept
    as it is (frozen random), or learns all of it from the labels (from scratch). From scratch all layers learn at the
    full rate: that those near the pixels learn more slowly is for weights that know something already.
    """
    if name in BASELINES:
        return replace(lesson, start=BASELINES[name], weights=None, frozen=True)
    if name not in (FROZEN, SCRATCH):
        raise InputError(f"There is no control {name!r}; there are {', '.join(CONTROLS)}.")
    found = replace(lesson, start=spec.name.removesuffix(RANDOM_SUFFIX), weights=RANDOM, frozen=name == FROZEN)
    return found if name == FROZEN else replace(found, layer_rate=FULL_RATE)


def same_lesson(lesson: Lesson, spec: EncoderSpec) -> str:
    """The control that a model is itself, if it never saw anything before its labels; else "".

    >>> import deepsentinel.encoders as encoders
    >>> spec = encoders.find("fusion-nano")
    >>> lesson = Lesson((), None, "fusion-nano", "random", False, 32, 1.0, 16, 64, Plan(steps=1))
    >>> same_lesson(lesson, spec), same_lesson(replace(lesson, layer_rate=0.8), spec)
    ('from scratch', '')
    """
    if isinstance(lesson.start, str) and lesson.start in BASELINES.values():
        return next(name for name, start in BASELINES.items() if start == lesson.start)
    if not lesson.from_scratch:
        return ""
    if lesson.frozen:
        return FROZEN
    return SCRATCH if lesson.layer_rate == FULL_RATE else ""


@dataclass(frozen=True)
class Run:
    """One model to be measured: which it is, its seed, and where it comes from."""

    what: str
    """The model, or a control."""
    seed: int
    """Of all that was drawn."""
    lesson: Lesson | None
    """How it is trained; None: it is there already."""


def runs_of(model: Model, lesson: Lesson | None, seeds: Sequence[int], steps: int | None = None) -> list[Run]:
    """The model as it is, its other seeds, and its controls with the same seeds; without a lesson, only the model.

    steps: of the controls, where the model's own are too many.
    """
    own = int(model.story.get("seed", 0))
    if lesson is None:
        return [Run(MODEL, own, None)]
    every = checked_seeds(seeds)
    # The model is one seed already, whichever it had.
    kept = [own, *(seed for seed in every if seed != own)][: len(every)]
    runs = [Run(MODEL, own, None), *(Run(MODEL, seed, lesson) for seed in kept[1:])]
    short = lesson if steps is None else replace(lesson, plan=replace(lesson.plan, steps=steps))
    for name in CONTROLS:
        each = control(short, name, model.encoder.spec)
        runs += [Run(name, seed, each) for seed in kept]
    return runs


def checked_seeds(seeds: Sequence[int]) -> list[int]:
    """Seeds as a list of different whole numbers.

    >>> checked_seeds(range(2))
    [0, 1]
    """
    found = [seeds] if isinstance(seeds, int) else list(seeds)
    if not found or len(set(found)) < len(found) or any(isinstance(seed, bool) or seed < 0 for seed in found):
        raise InputError(f"seeds={seeds!r}: different whole numbers from 0 are meant, such as (0, 1).")
    return [int(seed) for seed in found]
