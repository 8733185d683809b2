"""`ds.pretrain`: a corpus without labels in, an encoder out."""

from __future__ import annotations

import copy
import inspect
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepsentinel.encoders.base import Encoder
from deepsentinel.errors import InputError
from deepsentinel.files import write_bytes

from . import objectives
from .batches import Feed, bands_of, corpora_of
from .fit import Plan, Step, fit
from .processes import own_device, rank_and_replicas, together

if TYPE_CHECKING:
    import pandas as pd
    import torch
    import xarray as xr

CROP_PX = 64
ENCODER_FILE, STORY_FILE = "encoder.safetensors", "story.json"


@dataclass(repr=False)
class Pretrained:
    """What `pretrain` returns; it goes wherever an encoder goes."""

    encoder: Encoder
    """The encoder, in evaluation mode."""
    objective: objectives.Objective
    """What it was trained with, decoders and all."""
    history: pd.DataFrame
    """Losses by step."""
    story: dict[str, Any]
    """How it was trained."""
    stopped: bool = False
    """Whether it was stopped before its last step."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the encoder's weights, as safetensors: `ds.load_encoder(name, weights=path)` reads them."""
        from safetensors.torch import save

        target = Path(path).expanduser()
        state = {name: value.detach().cpu().contiguous() for name, value in self.encoder.state_dict().items()}
        write_bytes(target, save(state, metadata={key: json.dumps(value) for key, value in self.story.items()}))
        return target

    def __repr__(self) -> str:
        last = (
            ""
            if self.history.empty
            else f", loss {self.history['loss'].iloc[0]:.3f} to {self.history['loss'].iloc[-1]:.3f}"
        )
        return f"{self.encoder.spec.name}, {self.story['objective']}, {len(self.history)} looks{last}"


def pretrain(
    corpus: xr.Dataset | Sequence[xr.Dataset],
    objective: str = "masked",
    encoder: str | Encoder | Pretrained = "fusion-nano",
    *,
    steps: int = 2_000,
    batch_size: int = 64,
    crop_px: int | None = None,
    lr: float = 1e-3,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    device: str | torch.device = "auto",
    on_device: bool | None = None,
    workers: int = 0,
    seed: int = 0,
    near_m: float | None = None,
    far_m: float | None = None,
    clouds: bool = True,
    on_step: Callable[[Step], object] | None = None,
    stop: Any = None,
    **options: Any,
) -> Pretrained:
    """Train an encoder on a corpus, or several, without labels.

    Parameters
    ----------
    corpus
        From `ds.open_corpus`, or a part of one; a list is learnt from as if it were one.
    objective
        masked (hidden squares told from seen ones, across the sensors), contrastive (both sensors of a place, and two
        views of it), triplet (a neighbour is more alike than what is far: needs near_m and far_m), variational,
        adversarial (auto-encoders), radar-to-optical (Sentinel-2 painted from Sentinel-1), latent (what a slow copy of
        the encoder says of what is hidden).
    encoder
        A name, which starts from random weights, or an encoder, of which a copy goes on learning.
    steps, batch_size, lr, seed
        How long, how many samples a step, the highest learning rate, and what is drawn.
    crop_px
        Side of the random crops; None: 64, or the samples' own where they are smaller.
    out, resume
        A folder for checkpoints, losses and the encoder. A run found there goes on where it was.
    device, on_device, workers
        "auto" takes a GPU where there is one. A corpus that fits stays on the device; else `workers` processes read.
    clouds
        Whether what SCL calls cloud or shadow is hidden.
    on_step, stop
        `on_step(step)` is called every few steps; `stop()` true, or a set `threading.Event`, ends the run early.
    options
        Of the loop (`deepsentinel.learn.fit.Plan`: accumulate, warmup, precision, average, logs, ...), and of the
        objective (its class in `deepsentinel.learn.objectives`: seen, contrast, temperature, ...).

    >>> import tempfile, deepsentinel as ds
    >>> from deepsentinel.corpus.recipes import unlabelled
    >>> recipe = unlabelled(ds.open_source("demo", size_px=256), n=4, size_px=32, start="2018-05-01", end="2018-08-31")
    >>> path = tempfile.mkdtemp() + "/corpus.zarr"
    >>> report = recipe.build(path, progress=False)
    >>> model = ds.pretrain(ds.open_corpus(path), "masked", steps=1, batch_size=2)
    >>> ds.embed(ds.patch_of(ds.open_corpus(path), 0), model).sizes["feature"]
    384
    """
    from deepsentinel.embedding.model import pick_device

    corpora = corpora_of(corpus)
    kind = objectives.find(objective)
    loop, own = split_options(options, kind)
    plan = Plan(steps=steps, lr=lr, seed=seed, **loop)
    chosen = own_device(pick_device(device))
    start = started(encoder, seed=seed)
    triplets = triplet_distances(kind, near_m, far_m)
    rank, replicas = rank_and_replicas()
    feed = Feed(
        corpora,
        batch_size=batch_size,
        crop_px=usual_crop(corpora[0], crop_px),
        bands=bands_of(start.spec, corpora[0], all_of=kind.all_bands),
        clouds=clouds,
        seed=seed,
        device=chosen,
        on_device=on_device,
        triplets=triplets,
        workers=workers,
        rank=rank,
        replicas=replicas,
    )
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = objectives.build(objective, start, feed, **own).to(chosen)
    story: dict[str, Any] = {
        "encoder": start.spec.name,
        "objective": objective,
        "options": own,
        "corpora": [str(each.attrs.get("title", "")) for each in corpora],
        "plans": [str(each.attrs.get("plan", "")) for each in corpora],
        "samples": len(feed),
        "bands": list(feed.bands.get("s2", [])) + list(feed.bands.get("s1", [])),
        "crop_px": feed.crop_px,
        "batch_size": batch_size,
        "triplets": triplets,
        **{name.name: getattr(plan, name.name) for name in fields(Plan) if name.name not in NOT_TOLD},
    }
    history = fit(
        model, feed, plan, out=out, resume=resume, story=json.dumps(story, sort_keys=True), on_step=on_step, stop=stop
    )
    found = Pretrained(model.encoder.eval(), model, history.table(), story, history.stopped)
    if out is not None and not feed.rank:
        folder = Path(out).expanduser()
        found.save(folder / ENCODER_FILE)
    together()
    return found


# What may change between the start of a run and its going on.
NOT_TOLD = ("log_every", "checkpoint_every", "compile", "logs")


def split_options(options: dict[str, Any], kind: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the loop, and those of an objective; any other is refused.

    >>> split_options({"seen": 0.5, "clip": 2.0}, objectives.Masked)
    ({'clip': 2.0}, {'seen': 0.5})
    """
    of_loop = {each.name for each in fields(Plan)}
    of_kind = {
        name
        for name, given in inspect.signature(kind).parameters.items()
        if given.kind is inspect.Parameter.KEYWORD_ONLY
    }
    unknown = [name for name in options if name not in of_loop | of_kind]
    if unknown:
        raise TypeError(
            f"There is no option {unknown[0]!r}; the loop has {', '.join(sorted(of_loop))}, {kind.__name__} has "
            f"{', '.join(sorted(of_kind)) or 'none'}."
        )
    return (
        {name: value for name, value in options.items() if name in of_loop},
        {name: value for name, value in options.items() if name in of_kind},
    )


def started(encoder: str | Encoder | Pretrained, *, weights: str | None = "random", seed: int = 0) -> Encoder:
    """An encoder to be trained: a name's, or a copy of the one that was given."""
    if isinstance(encoder, str):
        from deepsentinel.encoders import load_encoder

        found = load_encoder(encoder, weights, seed=seed)
    else:
        inner = getattr(encoder, "encoder", encoder)
        if not isinstance(inner, Encoder):
            raise InputError(f"encoder is a {type(encoder).__name__}; a name, or what load_encoder returned, is meant.")
        found = copy.deepcopy(inner)
    if not any(True for _ in found.parameters()):
        raise InputError(f"{found.spec.name} has nothing that could be trained; ds.list_encoders() has others.")
    return found


def usual_crop(corpus: xr.Dataset, crop_px: int | None) -> int:
    """The side of crops: what was asked for, or 64, or the side of the samples where that is less."""
    side = int(corpus.sizes.get("x", CROP_PX))
    return min(CROP_PX, side) if crop_px is None else crop_px


def triplet_distances(
    kind: type[objectives.Objective], near_m: float | None, far_m: float | None
) -> dict[str, float] | None:
    """How near and how far, where an objective needs it."""
    if "triplets" in kind.needs:
        if near_m is None or far_m is None:
            raise InputError(
                f"objective={kind.name!r} needs to know what is near and what is far: near_m=3000, far_m=20000."
            )
        return {"near_m": near_m, "far_m": far_m}
    if near_m is not None or far_m is not None:
        raise InputError(f"near_m= and far_m= are for objective='triplet', not for {kind.name!r}.")
    return None
