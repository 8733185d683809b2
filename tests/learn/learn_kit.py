"""A small corpus with labels, made once a session, and a small encoder to learn with."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import xarray as xr

import deepsentinel as ds
from deepsentinel.corpus.recipes import labelled
from deepsentinel.encoders import load_encoder
from deepsentinel.learn import objectives
from deepsentinel.learn.batches import Feed

BANDS = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12", "VV", "VH"]
SAMPLES, SIDE = 12, 48


@cache
def corpus() -> xr.Dataset:
    """Twelve samples of 48 px with CORINE and OpenStreetMap."""
    src = ds.open_source("demo", size_px=256)
    recipe = labelled(src, n=SAMPLES, size_px=SIDE, start="2018-05-01", end="2018-08-31", samples_per_shard=4)
    folder = Path(tempfile.mkdtemp()) / "corpus.zarr"
    recipe.build(folder, progress=False)
    return ds.open_corpus(folder)


def feed(**options: Any) -> Feed:
    """Batches of four crops of 32 px."""
    return Feed(corpus(), **{"batch_size": 4, "crop_px": 32, "bands": BANDS, **options})


def objective(name: str = "masked", seed: int = 0, **options: Any) -> objectives.Objective:
    """An objective on a new encoder, drawn from a seed."""
    import torch

    near = {"near_m": 1_500.0, "far_m": 1_500.0} if name == "triplet" else None
    torch.manual_seed(seed)
    return objectives.build(name, load_encoder("fusion-nano", "random", seed=seed), feed(triplets=near), **options)
