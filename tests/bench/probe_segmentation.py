"""Segmentation of a demo world against the forest that sees the same pixels one at a time.

    python tests/bench/probe_segmentation.py --seed 3001 [--steps 400] [--sensors both s1 s2] [--weights random]

The clearest summer date of Sentinel-2 in 2018 with radar within nine days, both tiles of the world, land cover of 10 m.
Windows of 960 m are the squares of a chessboard, white to learn from and black to be tested on; ground that is black in
the other tile has no label to learn from. The forest is made as in tests/world/hardness.py (100 trees, balanced), has
20,000 pixels to learn from, and is tested, as the network is, on all clear pixels of the black squares that both
sensors saw. Mean IoU over classes. About nine minutes of processor for each network.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import torch
import xarray as xr
from odc.geo.geobox import GeoBox
from sklearn.ensemble import RandomForestClassifier

import deepsentinel as ds
from deepsentinel.corpus.tiling import windows
from deepsentinel.errors import DeepSentinelWarning
from deepsentinel.learn.batches import Feed
from deepsentinel.learn.evaluation import each_once
from deepsentinel.learn.model import Model

TILES = ("30UYV", "31UCQ")
SIZE_PX, CROP_PX, MAX_DAYS = 96, 64, 9
TREES_PX = 20_000
FOREST_BANDS = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]


def squares(grid: GeoBox, size_px: int) -> gpd.GeoDataFrame:
    """Windows of a tile, and which of them are white: to learn from."""
    found = windows(grid, size_px)
    left, top = (found.geometry.bounds[side].to_numpy() for side in ("minx", "maxy"))
    white = (np.round(left / (size_px * 10)) + np.round(top / (size_px * 10))) % 2 == 0
    return found.assign(white=white)


def grids_of(src: Any) -> dict[str, GeoBox]:
    """The grid of each tile."""
    found = {}
    for tile in TILES:
        with rasterio.open(src.labels[f"land_cover_2018_{tile}"]) as file:
            found[tile] = GeoBox(file.shape, file.transform, file.crs)
    return found


def to_learn(src: Any, tile: str, boards: dict[str, gpd.GeoDataFrame], path: Path) -> Path:
    """Land cover without what is tested on in the other tile, which sees some of the same ground."""
    from rasterio.features import geometry_mask

    other = pd.concat([board[~board["white"]].to_crs(4326) for name, board in boards.items() if name != tile])
    with rasterio.open(src.labels[f"land_cover_2018_{tile}"]) as file:
        cover, profile, told = file.read(1), file.profile, (file.tags(), file.tags(1), file.descriptions)
        elsewhere = geometry_mask(other.to_crs(file.crs).geometry, file.shape, file.transform, all_touched=True)
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.where(elsewhere, cover, 0).astype(cover.dtype), 1)
        file.update_tags(**told[0])
        file.update_tags(1, **told[1])
        file.descriptions = told[2]
    return path


def world(seed: int, folder: Path, size_px: int = SIZE_PX) -> tuple[list[xr.Dataset], list[xr.Dataset]]:
    """(to learn from, to be tested on): white and black squares of both tiles, each on its clearest date."""
    src = ds.open_source("demo", seed=seed)
    grids = grids_of(src)
    boards = {tile: squares(grid, size_px) for tile, grid in grids.items()}
    train, test = [], []
    for tile, grid in grids.items():
        path = folder / f"{seed}_{tile}_{size_px}.zarr"
        if not path.exists():
            bounds = tuple(grid.geographic_extent.boundingbox)
            pairs = ds.pair(src.search(bounds, "2018-06-01", "2018-08-31"), aoi=bounds, max_days=MAX_DAYS)
            own = pairs[pairs["s2_id"].str.contains(tile)]
            day = pd.Timestamp(own.sort_values("cloud_cover").iloc[0]["s2_time"]).tz_localize(None).normalize()
            around = pd.Timedelta(MAX_DAYS, "D")
            places = boards[tile].assign(date=day)
            plan = ds.plan_corpus(places, src, start=day - around, end=day + around, size_px=size_px, max_days=MAX_DAYS)
            folder.mkdir(parents=True, exist_ok=True)
            learn = to_learn(src, tile, boards, folder / f"{seed}_{tile}_{size_px}.tif")
            labels = {"cover": src.labels[f"land_cover_2018_{tile}"], "learn": learn}
            ds.build_corpus(plan, path, labels, progress=False)
        corpus = ds.open_corpus(path)
        at = np.round(corpus["transform"].to_numpy()[:, [2, 5]] / (size_px * 10))
        white = at.sum(axis=1) % 2 == 0
        train.append(corpus.isel(sample=np.flatnonzero(white)))
        test.append(corpus.isel(sample=np.flatnonzero(~white)))
    return train, test


def usable(corpus: xr.Dataset, labels: str) -> np.ndarray:
    """Pixels that both sensors saw, without cloud or shadow, and labelled."""
    s2, s1 = corpus["s2"].sel(s2_band=FOREST_BANDS).to_numpy(), corpus["s1"].to_numpy()
    clear = ~np.isin(corpus["scl"].to_numpy(), (0, 3, 8, 9, 10))
    return (s2 > 0).all(axis=1) & np.isfinite(s1).all(axis=1) & clear & (corpus[f"{labels}_class_map"].to_numpy() > 0)


def mean_iou(said: np.ndarray, truth: np.ndarray) -> tuple[float, dict[int, float]]:
    """Over the classes that are there."""
    by_class = {
        int(code): float(((said == code) & (truth == code)).sum() / ((said == code) | (truth == code)).sum())
        for code in np.unique(truth)
    }
    return float(np.mean(list(by_class.values()))), by_class


def forests(train: list[xr.Dataset], test: list[xr.Dataset]) -> dict[str, float]:
    """Mean IoU of the forest, by what it is shown."""

    def pixels(corpora: list[xr.Dataset], labels: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        parts: list[tuple[np.ndarray, ...]] = []
        for corpus in corpora:
            keep = usable(corpus, labels)
            s2 = corpus["s2"].sel(s2_band=FOREST_BANDS).to_numpy().transpose(0, 2, 3, 1)[keep]
            parts.append(
                (s2, corpus["s1"].to_numpy().transpose(0, 2, 3, 1)[keep], corpus["cover_class_map"].to_numpy()[keep])
            )
        s2, s1, truth = (np.concatenate(part) for part in zip(*parts, strict=True))
        return s2, s1, truth

    (a2, a1, learnt), (b2, b1, truth) = pixels(train, "learn"), pixels(test, "cover")
    some = np.random.default_rng(0).choice(len(learnt), min(TREES_PX, len(learnt)), replace=False)
    scores = {}
    for name, x, y in (("both", np.hstack([a2, a1]), np.hstack([b2, b1])), ("s1", a1, b1), ("s2", a2, b2)):
        forest = RandomForestClassifier(100, min_samples_leaf=5, class_weight="balanced_subsample", random_state=0)
        forest.fit(x[some], learnt[some])
        scores[name], by_class = mean_iou(forest.predict(y), truth)
        told(f"forest, {name}", scores[name], by_class)
    return scores


def told(what: str, score: float, by_class: dict[int, float]) -> None:
    print(f"{what:24} mean IoU {score:.3f}   " + " ".join(f"{k}:{v:.2f}" for k, v in by_class.items()), flush=True)


def network(train: list[xr.Dataset], test: list[xr.Dataset], sensors: str, given: argparse.Namespace) -> float:
    """Mean IoU of fusion-nano fine-tuned on the same ground."""
    began = time.process_time()
    model = ds.finetune(
        train,
        "fusion-nano",
        "segmentation",
        "learn",
        sensors=sensors,
        weights="random" if given.weights == "random" else None,
        steps=given.steps,
        batch_size=16,
        crop_px=CROP_PX,
        lr=given.lr,
        layer_rate=given.layer_rate,
        loss="log+dice",
        average=0.99,
        log_every=max(1, given.steps // 5),
        on_step=lambda step: print(step, flush=True),
    )
    seconds = time.process_time() - began
    score, by_class = tested(model, test, sensors)
    told(f"fusion-nano, {sensors}", score, by_class)
    print(f"  learnt for {seconds / 60:.1f} minutes of processor")
    return score


def tested(model: Model, test: list[xr.Dataset], sensors: str) -> tuple[float, dict[int, float]]:
    """Mean IoU on the pixels that the forest is tested on."""
    codes = np.asarray(model.classes.codes)
    said, truth = [], []
    for corpus in test:
        keep = usable(corpus, "cover")
        bands = [str(b) for b in corpus["s2_band"].to_numpy() if b in model.encoder.spec.s2_bands] + ["VV", "VH"]
        side = corpus.sizes["x"]
        batch_size = min(corpus.sizes["sample"], max(1, (SIZE_PX // side) ** 2 * 4))
        feed = Feed(corpus, batch_size=batch_size, crop_px=side, bands=bands, turn=False)
        for positions, batch in each_once(feed):
            found = codes[model.probabilities(batch, sensors).argmax(1).numpy()]
            mine = keep[positions]
            said.append(found[mine])
            truth.append(corpus["cover_class_map"].to_numpy()[positions][mine])
    return mean_iou(np.concatenate(said), np.concatenate(truth))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, default=550)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--layer-rate", type=float, default=1.0)
    parser.add_argument("--weights", choices=("random", "shipped"), default="shipped")
    parser.add_argument("--sensors", nargs="*", default=("both", "s1", "s2"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where corpora are kept; a temporary one if left out")
    parser.add_argument("--keep", type=Path, help="a JSON file for the numbers")
    parser.add_argument("--without-forest", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore", DeepSentinelWarning)
    folder = given.folder or Path(tempfile.mkdtemp())
    train, test = world(given.seed, folder)
    count = [sum(corpus.sizes["sample"] for corpus in each) for each in (train, test)]
    print(f"seed {given.seed}: {count[0]} windows learnt from, {count[1]} tested on", flush=True)
    found: dict[str, Any] = {"seed": given.seed, "steps": given.steps, "weights": given.weights}
    if not given.without_forest:
        found["forest"] = forests(train, test)
    found["fusion-nano"] = {sensors: network(train, test, sensors, given) for sensors in given.sensors}
    if given.keep:
        given.keep.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
