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

import numpy as np

from deepsentinel.encoders.base import Encoder
from deepsentinel.errors import InputError, warn
from deepsentinel.files import write_bytes

from . import objectives
from .batches import Feed, bands_of, corpora_of
from .checkpoints import told_of
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
    progress: bool = True,
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
    progress
        Whether a bar counts the steps, where `on_step` does not tell of them.
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

    steps, batch_size, crop_px, lr, seed = (plain(each) for each in (steps, batch_size, crop_px, lr, seed))
    near_m, far_m, clouds = plain(near_m), plain(far_m), plain(clouds)
    options = {name: plain(value) for name, value in options.items()}
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
    held = [sensor for sensor in ("s1", "s2") if sensor in feed.bands]
    if "both" in start.spec.modes and len(held) == 1:
        warn(
            f"This corpus has Sentinel-{held[0][1]} only, so that {objective} learns from that alone: nothing brings "
            f"the sensors together, and of the other {start.spec.name} stays as it was."
        )
    story: dict[str, Any] = {
        "encoder": start.spec.name,
        "start": which_weights(encoder, start),
        "objective": objective,
        "options": own,
        "corpora": [str(each.attrs.get("title", "")) for each in corpora],
        "plans": told_of(corpora),
        "samples": len(feed),
        "bands": list(feed.bands.get("s2", [])) + list(feed.bands.get("s1", [])),
        "crop_px": feed.crop_px,
        "batch_size": batch_size,
        "clouds": clouds,
        "triplets": triplets,
        **{name.name: getattr(plan, name.name) for name in fields(Plan) if name.name not in NOT_TOLD},
    }
    history = fit(
        model,
        feed,
        plan,
        out=out,
        resume=resume,
        story=json.dumps(story, sort_keys=True),
        result=ENCODER_FILE,
        on_step=on_step,
        stop=stop,
        shown="pretraining" if progress and on_step is None else "",
    )
    found = Pretrained(model.encoder.eval(), model, history.table(), story, history.stopped)
    if out is not None and not feed.rank:
        folder = Path(out).expanduser()
        found.save(folder / ENCODER_FILE)
    together()
    return found


# What may change between the start of a run and its going on.
NOT_TOLD = ("log_every", "checkpoint_every", "compile", "logs")


def plain(value: Any) -> Any:
    """A number of numpy as Python has it, a path as text: what a story is told in.

    >>> import numpy as np
    >>> plain(np.int64(3)), plain(Path("runs") / "encoder.safetensors")
    (3, 'runs/encoder.safetensors')
    """
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def which_weights(encoder: str | Encoder | Pretrained, start: Encoder, weights: str | None = "random") -> str:
    """Which weights a run begins with, by their fingerprint; "" where its seed and a name tell it already."""
    from deepsentinel.embedding.model import fingerprint

    spec = start.spec
    drawn = weights == "random" or spec.name.endswith("-random") or (weights is None and not (spec.url or spec.shipped))
    return "" if isinstance(encoder, str) and drawn else fingerprint(start)


def split_options(options: dict[str, Any], kind: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the loop, and those of an objective; any other is refused.

    >>> split_options({"seen": 0.5, "clip": 2.0}, objectives.Masked)
    ({'clip': 2.0}, {'seen': 0.5})
    """
    of_loop = {each.name for each in fields(Plan)}
    given = inspect.signature(kind).parameters.values()
    usual = {each.name: each.default for each in given if each.kind is inspect.Parameter.KEYWORD_ONLY}
    of_kind = set(usual)
    unknown = [name for name in options if name not in of_loop | of_kind]
    if unknown:
        raise TypeError(
            f"There is no option {unknown[0]!r}; the loop has {', '.join(sorted(of_loop))}, {kind.__name__} has "
            f"{', '.join(sorted(of_kind)) or 'none'}."
        )
    for name in [name for name in options if name in of_kind]:
        _check_option(name, options[name], usual[name])
    return (
        {name: value for name, value in options.items() if name in of_loop},
        {name: value for name, value in options.items() if name in of_kind},
    )


# Options of objectives that are shares of something.
SHARES = ("seen", "dateless", "momentum")


def _check_option(name: str, value: Any, usual: Any) -> None:
    """Refuse what is no number, or no list of sizes, where one is meant."""
    if not isinstance(usual, float):
        sizes = isinstance(value, list | tuple) and all(isinstance(each, int) and each > 0 for each in value)
        if name == "patches" and value is not None and not sizes:
            raise InputError(f"patches={value!r}: sides of patches in pixels are meant, such as [4, 8].")
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < float("inf") or (name in SHARES and value > 1):
        told = "a share from 0 to 1" if name in SHARES else "a number from 0"
        raise InputError(f"{name}={value!r}: {told} is meant, such as {name}={usual:g}.")


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
