"""Two minutes of every objective: its loss falls, its vectors tell ground apart on another world, none collapses."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from odc.geo.geobox import GeoBox
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

import deepsentinel as ds
from deepsentinel.corpus.recipes import unlabelled
from deepsentinel.learn.decoders import GAME
from deepsentinel.learn.objectives import OBJECTIVES
from deepsentinel.similarity.folds import make_folds

pytestmark = [
    pytest.mark.long,
    # Some places have no pair in so short a time.
    pytest.mark.filterwarnings("ignore::deepsentinel.errors.DeepSentinelWarning"),
]
SECONDS, SEED, OTHER = 110, 61, 62
TILE, FEWEST = "30UYV", 40
OBJECTIVE_NAMES = list(OBJECTIVES)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.Dataset, xr.Dataset, Any]:
    """What is learnt from, and a patch of another world with the file of its land cover."""
    path = tmp_path_factory.mktemp("long") / "corpus.zarr"
    src = ds.open_source("demo", seed=SEED)
    unlabelled(src, n=400, size_px=64, start="2018-06-01", end="2018-07-15").build(path, progress=False)
    other = ds.open_source("demo", seed=OTHER, size_px=512)
    cover = other.labels[f"land_cover_2018_{TILE}"]
    with rasterio.open(cover) as file:
        grid = GeoBox(file.shape, file.transform, file.crs)
    bounds = tuple(grid.geographic_extent.boundingbox)
    pairs = ds.pair(other.search(bounds, "2018-06-01", "2018-08-31", max_cloud=5), aoi=bounds, max_days=3)
    own = pairs[pairs["s2_id"].str.contains(TILE)]
    return ds.open_corpus(path), other.read(own.iloc[0], grid).load(), cover


def effective_rank(vectors: np.ndarray) -> float:
    """How many directions the vectors really use: the exponential of the entropy of their spectrum."""
    values = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False) ** 2
    share = values / values.sum()
    return float(np.exp(-(share * np.log(share + 1e-12)).sum()))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
def test_two_minutes_of_it(name: str, ground: tuple[xr.Dataset, xr.Dataset, Any]) -> None:
    corpus, patch, cover = ground
    began = time.process_time()
    # On a machine that others use too, two minutes of the clock are not two minutes of work.
    budget = SECONDS * torch.get_num_threads()
    near = {"near_m": 1_000.0, "far_m": 4_000.0} if name == "triplet" else {}
    model = ds.pretrain(
        corpus, name, steps=400, batch_size=32, log_every=5, stop=lambda: time.process_time() - began > budget, **near
    )
    # What two networks learn against each other is a game, of which nothing falls.
    falling = model.history.columns.difference(["loss", "lr", "samples_per_s", *GAME])
    losses = model.history[falling].sum(axis=1).to_numpy()
    fifth = max(1, len(losses) // 5)
    first, last = losses[:fifth].mean(), losses[-fifth:].mean()
    sensors = "s1" if name == "radar-to-optical" else "both"
    cells = ds.embed(patch, model, sensors=sensors, dense=True, overlap=0, resolution_m=80)
    codes = ds.read_label_raster(cover, cells, legend="worldcover")["class_map"].to_numpy().ravel()
    vectors = cells.to_numpy().reshape(-1, cells.sizes["feature"])
    _, every, counts = np.unique(codes, return_inverse=True, return_counts=True)
    keep = np.isfinite(vectors).all(axis=1) & (codes > 0) & (counts[every] >= FEWEST)
    truth = np.unique(every[keep], return_inverse=True)[1]
    y, x = np.meshgrid(cells["y"], cells["x"], indexing="ij")
    metres = np.column_stack([x.ravel(), y.ravel()])[keep]
    fold = make_folds(metres, truth, count=4, block_m=640, buffer_m=0, seed=0).fold
    used = vectors[keep][:, vectors[keep].std(axis=0) > 1e-6]
    unit = used / np.linalg.norm(used, axis=1, keepdims=True)
    said = cross_val_predict(KNeighborsClassifier(5), unit, truth, cv=PredefinedSplit(fold))
    right, guessing = balanced_accuracy_score(truth, said), 1 / len(np.unique(truth))
    rank = effective_rank(used)
    print(
        f"{name:17} {model.history.index[-1]:4} steps  loss {first:.3f} -> {last:.3f}  kNN {right:.3f} "
        f"(guessing {guessing:.3f})  rank {rank:.1f}  spread {used.std(axis=0).mean():.3f}"
    )
    assert last < first
    assert right > guessing + 0.1
    # A map of radar alone has fewer directions: random weights use four of them here, image statistics one.
    assert rank > (2 if sensors == "s1" else 4)
    assert used.std(axis=0).mean() > 0.01
