"""Pretrained encoders: what there is (`list_encoders`), and one of them ready for use (`load_encoder`)."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from deepsentinel.errors import InputError, SourceError, warn

from .registry import find, registry
from .spec import EncoderSpec, Scaling

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from .base import Encoder

__all__ = ["EncoderSpec", "Scaling", "find", "list_encoders", "load_encoder"]

# Weights that come with the package.
SHIPPED = Path(__file__).parent / "shipped"
RANDOM = "random"
RANDOM_SUFFIX = "-random"


def list_encoders() -> pd.DataFrame:
    """All encoders, one a row: sensors, bands, units, size, width, licence. Torch need not be installed.

    >>> table = list_encoders()
    >>> table.loc[table["name"] == "croma-base", ["sensors", "level", "license"]].iloc[0].tolist()
    ['S1 S2', 'L2A', 'MIT']
    """
    import pandas as pd

    return pd.DataFrame([_row(spec) for spec in registry().values()])


def _row(spec: EncoderSpec) -> dict[str, object]:
    return {
        "name": spec.name,
        "family": spec.family,
        "sensors": " ".join(spec.sensors),
        "modes": " ".join(spec.modes),
        "s1_bands": " ".join(spec.s1_bands),
        "s2_bands": " ".join(spec.s2_bands),
        "level": spec.level if spec.s2_bands else "",
        "backscatter": spec.backscatter if spec.s1_bands else "",
        "s1_units": "dB" if spec.s1_bands else "",
        "s2_units": "reflectance x 10000" if spec.s2_bands else "",
        "s1_scaling": spec.s1_scaling.text if spec.s1_scaling else "",
        "s2_scaling": spec.s2_scaling.text if spec.s2_scaling else "",
        "size_px": spec.size_px or "any",
        "patch_px": spec.patch_px,
        "width": spec.width,
        "parameters": spec.parameters,
        "dense": spec.dense,
        "can_mask": spec.can_mask,
        "any_bands": spec.any_bands,
        "series": spec.series,
        "license": spec.license,
        "needs": " ".join(spec.needs),
        "source": spec.source,
    }


def load_encoder(
    name: str,
    weights: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Encoder:
    """An encoder with its weights, in evaluation mode.

    weights: None fetches the authors' from their public home, once (into the cache); a path reads that file;
    "random" leaves them as they are drawn from `seed`, as a control ("<name>-random" says the same). Where an encoder
    has nothing to train, None and "random" are the same; where nobody trained it yet, None warns.

    >>> load_encoder("random-convolutions").spec.width
    512
    """
    if not isinstance(name, str):
        raise InputError(f"load_encoder takes a name, such as 'galileo-nano'; this is a {type(name).__name__}.")
    if weights is not None and not isinstance(weights, str | os.PathLike):
        raise InputError(
            f"weights= is a {type(weights).__name__}; the path of a checkpoint is meant. Tensors in memory go into"
            ' load_encoder(name, "random").load_weights(state).'
        )
    if name.endswith(RANDOM_SUFFIX) and weights in (None, RANDOM):
        name, weights = name.removesuffix(RANDOM_SUFFIX), RANDOM
    spec = find(name)
    _check_installed(spec)
    import torch

    module, _, function = spec.builder.partition(":")
    # Drawn from a seed of its own, and the user's random state is as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder: Encoder = getattr(import_module(f"{__package__}.{module}"), function)(spec)
    if weights != RANDOM and (weights is not None or spec.url or spec.shipped):
        _load(encoder, spec, weights)
    elif weights is None and spec.parameters:
        warn(
            f"{name} has no pretrained weights: these are random. ds.pretrain trains it; "
            f'load_encoder("{name}", "{RANDOM}") says that this is meant.'
        )
    elif spec.url or spec.shipped:
        # What was never trained is no such encoder, and knows of no level.
        encoder.spec = replace(spec, name=spec.name + RANDOM_SUFFIX, level="any", backscatter="any")
    return encoder.eval().to(device)


def _load(encoder: Encoder, spec: EncoderSpec, weights: str | os.PathLike[str] | None) -> None:
    from .weights import checked, fetch, is_pinned, read_state

    if weights is not None and not Path(weights).expanduser().is_file():
        held = sorted(Path(weights).expanduser().glob("*")) if Path(weights).expanduser().is_dir() else []
        files = [file.name for file in held if file.suffix in (".pt", ".pth", ".safetensors", ".ckpt", ".bin")]
        inside = f" It is a folder with {', '.join(files[:5])} in it: name the file." if files else ""
        raise InputError(
            f"There is no file {weights} with weights for {spec.name}.{inside} weights=None fetches the authors', "
            f'weights="{RANDOM}" does without.'
        )
    if weights is None and spec.shipped:
        path, known = SHIPPED / spec.file, True
    else:
        path = fetch(spec) if weights is None else Path(weights).expanduser()
        # What is fetched was compared on the way.
        known = is_pinned(spec) if weights is None else checked(path, spec, registry().values())
    state = read_state(path, known=known)
    try:
        encoder.load_weights(state)
    except SourceError as error:
        raise SourceError(
            f"{path} does not hold the weights of {spec.name}. {error} Was another encoder meant?"
        ) from error


def _check_installed(spec: EncoderSpec) -> None:
    missing = [name for name in ("torch", *spec.needs) if find_spec(name.replace("-", "_").partition("[")[0]) is None]
    if missing:
        extra = "'deepsentinel[learn]'" if set(missing) <= {"torch", "timm", "torchgeo"} else " ".join(missing)
        raise InputError(f"{spec.name} needs {', '.join(missing)}: pip install {extra}")
