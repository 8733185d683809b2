"""`ds.finetune`: a corpus with labels in, a model that tells them out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from deepsentinel.bands import S1_BANDS
from deepsentinel.encoders.base import Encoder
from deepsentinel.errors import InputError

from .batches import Feed, bands_of, corpora_of
from .checkpoints import told_of
from .detection import object_arrays
from .fit import Plan, Step, fit
from .labels import Background, classes_of, number_range
from .model import Model, Question
from .pretraining import NOT_TOLD, Pretrained, plain, started, usual_crop, which_weights
from .processes import own_device, rank_and_replicas, together
from .tasks import OBJECT_TASKS

if TYPE_CHECKING:
    import xarray as xr

MODEL_FILE = "model.safetensors"
OF_QUESTION = ("loss", "balance", "upscale", "decoder", "least_share", "least_px")


def finetune(
    corpus: xr.Dataset | Sequence[xr.Dataset],
    encoder: str | Encoder | Pretrained = "fusion-nano",
    task: str = "segmentation",
    labels: str = "corine",
    *,
    sensors: str = "both",
    background: Background = "ignore",
    least: int = 0,
    frozen: bool = False,
    cache_features: bool | str = "auto",
    steps: int = 600,
    batch_size: int = 16,
    crop_px: int | None = None,
    lr: float = 1e-3,
    layer_rate: float = 0.8,
    weights: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    device: str | torch.device = "auto",
    on_device: bool | None = None,
    workers: int = 0,
    seed: int = 0,
    clouds: bool = True,
    on_step: Callable[[Step], object] | None = None,
    stop: Any = None,
    progress: bool = True,
    **options: Any,
) -> Model:
    """Train an encoder, or only a head on it, to tell labels.

    Parameters
    ----------
    corpus
        With the labels burnt in, from `build_corpus(..., labels={"corine": ...})`; a part of one; or a list.
    encoder
        A name from `ds.list_encoders()`, with its pretrained weights (`weights="random"`: from scratch; or a file), or
        what `load_encoder` or `pretrain` returned, of which a copy is trained.
    task
        segmentation (a class for each pixel), classification (which classes are in a sample), fractions (the share of
        each), regression (a number for each pixel), detection (a box for each object), instances (a box and a mask).
    labels
        The name of the labels in the corpus.
    sensors
        both, s1 or s2; "any": now both, now one of them, so that the model can do with what there is.
    background
        What no label claims teaches nothing ("ignore"), or is a class ("class").
    least
        Classes that fewer samples hold teach nothing; a warning names them.
    frozen, layer_rate
        Whether the encoder stays as it is; else by which factor each of its layers learns more slowly than the next.
    cache_features
        Whether a frozen encoder sees each sample once, before the first step, and what it said of it is cut and turned
        with the pixels ever after; crops then begin where one of its cells does. "auto": where the head reads vectors
        alone (decoder="linear", classification, fractions, the latter of whole samples), which is several times
        faster; else it sees every crop as it is cut and turned.
    steps, batch_size, crop_px, lr, seed
        How long, how many samples a step, the side of random crops, the highest learning rate, what is drawn.
    out, resume, device, on_device, workers, clouds, on_step, stop, progress
        As in `ds.pretrain`.
    options
        Of the question: loss ("log", "focal", "dice", "log+dice"), balance (0: all pixels alike, 1: all classes alike),
        upscale (finer labels than pixels), decoder (auto, unet, pixels, linear), least_share (classification),
        least_px (smaller objects are not looked for). Of the loop: those of `deepsentinel.learn.fit.Plan`.

    >>> import tempfile, deepsentinel as ds
    >>> from deepsentinel.corpus.recipes import labelled
    >>> recipe = labelled(ds.open_source("demo", size_px=256), n=4, size_px=32, start="2018-05-01", end="2018-08-31")
    >>> path = tempfile.mkdtemp() + "/corpus.zarr"
    >>> report = recipe.build(path, progress=False)
    >>> corpus = ds.open_corpus(path)
    >>> ds.finetune(corpus, "fusion-nano", "segmentation", "osm", weights="random", steps=1, batch_size=2).task
    'segmentation'
    """
    from deepsentinel.embedding.model import pick_device

    steps, batch_size, crop_px, lr, seed = (plain(each) for each in (steps, batch_size, crop_px, lr, seed))
    source: str | None = plain(weights)
    layer_rate, frozen, clouds = (plain(each) for each in (layer_rate, frozen, clouds))
    options = {name: plain(value) for name, value in options.items()}
    corpora = corpora_of(corpus)
    known = {each.name for each in fields(Plan)} | set(OF_QUESTION) | {"size"}
    if unknown := [name for name in options if name not in known]:
        raise TypeError(f"finetune() has no option {unknown[0]!r}; it has {', '.join(sorted(known))}.")
    asked = {name: options.pop(name) for name in OF_QUESTION if name in options}
    size = int(options.pop("size", 32))
    question = asked_question(corpora, task, labels, sensors, background, asked, least)
    plan = Plan(steps=steps, lr=lr, seed=seed, **options)
    chosen = own_device(pick_device(device))
    start = started(encoder, weights=source, seed=seed) if isinstance(encoder, str) else started(encoder)
    check_sensors(start, sensors)
    check_held(bands_of(start.spec, corpora[0]), sensors)
    rank, replicas = rank_and_replicas()
    feed = Feed(
        corpora,
        batch_size=batch_size,
        crop_px=usual_crop(corpora[0], crop_px),
        bands=bands_of(start.spec, corpora[0]),
        labels=question.arrays,
        clouds=clouds,
        seed=seed,
        device=chosen,
        on_device=on_device,
        workers=workers,
        rank=rank,
        replicas=replicas,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Model(start, question, frozen=frozen, size=size, cache_features=cache_features).to(chosen)
    model.story = {
        "encoder": start.spec.name,
        "weights": source,
        "start": which_weights(encoder, start, source),
        "task": task,
        "labels": labels,
        "sensors": sensors,
        "background": background,
        "least": int(least),
        "clouds": clouds,
        "frozen": frozen,
        "cache_features": cache_features,
        "layer_rate": layer_rate,
        "question": asked,
        "plans": told_of(corpora),
        "samples": len(feed),
        "bands": [band for names in feed.bands.values() for band in names],
        "crop_px": feed.crop_px,
        "batch_size": batch_size,
        "size": size,
        **{name: value for name, value in asdict(plan).items() if name not in NOT_TOLD},
    }
    # The classes are the model's already, and too many to be told twice; what is learnt depends on all of them.
    classes = None if question.classes is None else question.classes.to_plain()
    told = {**model.story, "classes": classes, "scale": question.scale}
    history = fit(
        model,
        feed,
        plan,
        out=out,
        resume=resume,
        story=json.dumps(told, sort_keys=True),
        result=MODEL_FILE,
        groups=layered(model, plan, layer_rate),
        on_step=on_step,
        stop=stop,
        shown="fine-tuning" if progress and on_step is None else "",
    )
    model.history = history.table()
    # What a second seed and the controls begin with; a name is looked up again.
    model.story["named"] = isinstance(encoder, str)
    model.learnt = (tuple(corpora), None if isinstance(encoder, str) else encoder)
    if out is not None and not feed.rank:
        model.save(Path(out).expanduser() / MODEL_FILE)
    together()
    return model.eval()


def asked_question(
    corpora: Sequence[xr.Dataset],
    task: str,
    labels: str,
    sensors: str,
    background: Background,
    asked: dict[str, Any],
    least: int = 0,
) -> Question:
    """The question that goes with a task on a corpus."""
    if least and task in ("regression", *OBJECT_TASKS):
        raise InputError(f"least={least} is for classes of pixels and samples, not for task={task!r}.")
    if task == "regression":
        array, mean, spread = number_range(corpora, labels)
        return Question(task, None, sensors, array=array, scale=(mean, spread), **asked)
    Question(task, None, sensors, **asked)  # refuses what is misspelt before any mask is read
    if task in OBJECT_TASKS:
        classes, numbers = object_arrays(corpora, labels)
        return Question(task, classes, sensors, array=numbers, **asked)
    return Question(task, classes_of(corpora, labels, background=background, least=least), sensors, **asked)


def check_sensors(encoder: Encoder, sensors: str) -> None:
    """Refuse sensors that an encoder does not take."""
    modes = encoder.spec.modes
    wanted = {"any": ("both", "s1", "s2")}.get(sensors, (sensors,))
    if lacking := [mode for mode in wanted if mode not in modes]:
        raise InputError(
            f"{encoder.spec.name} takes {' or '.join(modes)}, not {lacking[0]}; pass sensors={modes[-1]!r}, or an "
            "encoder of both sensors such as fusion-nano."
        )


def check_held(bands: Sequence[str], sensors: str) -> None:
    """Refuse sensors of which a corpus holds no band that the encoder takes.

    >>> check_held(["B04", "B08"], "both")
    Traceback (most recent call last):
    deepsentinel.errors.InputError: sensors='both', and ... has none of Sentinel-1: pass sensors="s2", ...
    """
    held = {"s1" if band in S1_BANDS else "s2" for band in bands}
    lacking = [each for each in ("s1", "s2") if each not in held and sensors in (each, "both", "any")]
    if lacking:
        raise InputError(
            f"sensors={sensors!r}, and what the encoder takes of this corpus ({' '.join(bands)}) has none of "
            f'Sentinel-{lacking[0][1]}: pass sensors="{"".join(held)}", or a corpus of both.'
        )


def layered(model: Model, plan: Plan, layer_rate: float) -> list[dict[str, Any]]:
    """Parameter groups: the head at the full rate, the encoder's layers ever more slowly towards the pixels."""
    if not 0 < layer_rate <= 1:
        raise InputError(f"layer_rate={layer_rate!r}: more than 0, at most 1.")
    deepest = max((_layer(name, 0) for name, _ in model.encoder.named_parameters()), default=0)
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for name, value in model.named_parameters():
        if not value.requires_grad:
            continue
        rate = 1.0
        if name.startswith("encoder."):
            rate = layer_rate ** (deepest + 1 - _layer(name.removeprefix("encoder."), deepest))
        groups.setdefault((rate, value.ndim > 1), []).append(value)
    return [
        {"params": values, "lr": plan.lr * rate, "weight_decay": plan.weight_decay if matrix else 0.0}
        for (rate, matrix), values in groups.items()
    ]


# What stands behind the last layer learns as that does: norms, and where HRNet widens what its branches say.
BEHIND = re.compile(r"^(?:model\.|backbone\.)?(?:(?:fc_)?norm|features_norm5|incre_modules)\.")
# A transition goes with the layer before it, after which it is counted.
LAYERS = re.compile(r"(?:blocks|layers?|stages|denseblock|stage|transition)[._]?(\d+)")


def _layer(name: str, deepest: int) -> int:
    """The number of the layer in a parameter's name, from 1; 0 before the first, and behind all of them the deepest.

    >>> [_layer(name, 9) for name in ("kernels.S1.weight", "blocks.0.fc1.weight", "norm.weight")]
    [0, 1, 9]
    """
    if BEHIND.match(name):
        return deepest
    found = LAYERS.search(name)
    return 0 if found is None else int(found.group(1)) + 1
