"""Whether the encoder that comes with the package is worth more than its controls, on worlds it never saw.

    python tests/bench/probe_shipped.py --seeds 2001 2002 2003 [--weights FILE] [--keep FILE]

Each seed is a demo world of its own, one clear pair of a tile. Cells of 80 m are told apart by land cover from their
vectors alone, by their five nearest neighbours and by a linear probe, on other ground than what these learnt from.
Controls: image statistics, random convolutions, and the same architecture with random weights. Galileo-nano is there to
compare with. "s1" is also what is left of "both" when Sentinel-2 is wholly clouded. About two minutes a world.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from figure_cloud import FEWEST, FOLDS, clear_pair, probe
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

import deepsentinel as ds
from deepsentinel.embedding import embed
from deepsentinel.errors import DeepSentinelWarning
from deepsentinel.similarity.folds import make_folds

NEIGHBOURS = 5
CONTROLS = ("image-statistics", "random-convolutions", "fusion-nano-random")


def nearest(vectors: np.ndarray, truth: np.ndarray, fold: np.ndarray) -> float:
    """Balanced accuracy of the five nearest neighbours of each fold among the others, by the angle between vectors."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    found = np.zeros_like(truth)
    for number in range(FOLDS):
        train, tested = fold != number, fold == number
        found[tested] = KNeighborsClassifier(NEIGHBOURS).fit(unit[train], truth[train]).predict(unit[tested])
    return float(balanced_accuracy_score(truth, found))


def world(seed: int, encoders: dict[str, Any]) -> list[dict[str, Any]]:
    """Scores of every encoder in one world."""
    patch, cover = clear_pair(seed)
    rows: list[dict[str, Any]] = []
    keep = truth = fold = None
    for name, encoder in encoders.items():
        for sensors in ("both", "s1", "s2"):
            seen: Literal["both", "s1", "s2"] = sensors  # type: ignore[assignment]
            cells = embed(patch, encoder, sensors=seen, dense=True, overlap=0, resolution_m=80)
            if truth is None:
                labels = ds.read_label_raster(cover, cells, legend="worldcover")["class_map"].to_numpy().ravel()
                _, every, counts = np.unique(labels, return_inverse=True, return_counts=True)
                keep = (labels != 0) & (counts[every] >= FEWEST)
                truth = every[keep]
                y, x = np.meshgrid(cells["y"], cells["x"], indexing="ij")
                metres = np.column_stack([x.ravel(), y.ravel()])[keep]
                fold = make_folds(metres, truth, count=FOLDS, block_m=640, buffer_m=0, seed=seed).fold
            values = cells.to_numpy().reshape(-1, cells.sizes["feature"])[keep]
            values = np.where(np.isfinite(values).all(axis=1)[:, None], values, 0)
            spread = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-6)
            statistics = name in ("image-statistics", "random-convolutions")
            for what, score in (
                # Statistics have units of their own, which neighbours must not be told by.
                ("kNN", nearest(spread if statistics else values, truth, fold)),
                ("linear", probe(values, values, truth, fold)),
            ):
                rows.append({"seed": seed, "encoder": name, "sensors": sensors, "probe": what, "score": score})
                print(f"seed {seed}  {name:20} {sensors:4}  {what:6} {score:.3f}", flush=True)
    rows.append({"seed": seed, "encoder": "chance", "sensors": "", "probe": "", "score": 1 / len(np.unique(truth))})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--weights", type=Path, help="of fusion-nano, in place of those that come with the package")
    parser.add_argument("--keep", type=Path, help="a JSON file for the numbers")
    parser.add_argument("--without-galileo", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore", DeepSentinelWarning)
    encoders: dict[str, Any] = {"fusion-nano": ds.load_encoder("fusion-nano", given.weights)}
    encoders |= {name: ds.load_encoder(name) for name in CONTROLS}
    if not given.without_galileo:
        encoders["galileo-nano"] = ds.load_encoder("galileo-nano")
    rows = [row for seed in given.seeds for row in world(seed, encoders)]
    if given.keep:
        given.keep.write_text(json.dumps(rows))
    print(f"\n{'mean':20} " + " ".join(f"{s}-{p}".rjust(12) for s in ("both", "s1", "s2") for p in ("kNN", "linear")))
    for name in encoders:
        means = [
            np.mean([r["score"] for r in rows if (r["encoder"], r["sensors"], r["probe"]) == (name, sensors, what)])
            for sensors in ("both", "s1", "s2")
            for what in ("kNN", "linear")
        ]
        print(f"{name:20} " + " ".join(f"{mean:12.3f}" for mean in means))
    print(f"guessing             {np.mean([r['score'] for r in rows if r['encoder'] == 'chance']):12.3f}")


if __name__ == "__main__":
    main()
