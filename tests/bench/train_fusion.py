"""How `fusion-nano`, which comes with the package, was trained: corpora of 22 demo worlds, then masked pretraining.

    python tests/bench/train_fusion.py --out runs/fusion-nano [--seeds 1000 1021] [--steps 3000]

Each world gives 400 pairs of 128 px at 12 dates over the year. Building takes a quarter of a minute a world, training
about an hour and a half on one core; both go on where they were stopped. The weights end in
`runs/fusion-nano/encoder.safetensors`, from where `--ship` copies them into the package.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch

import deepsentinel as ds
from deepsentinel.corpus.recipes import demo_ground
from deepsentinel.encoders import SHIPPED

SAMPLES, DATES, SIZE_PX = 400, 12, 128


def corpus_of(seed: int, folder: Path) -> Path:
    """The corpus of one world, built unless it is there."""
    target = folder / f"{seed}.zarr"
    src = ds.open_source("demo", seed=seed)
    rng = np.random.default_rng(seed)
    days = np.datetime64("2018-01-10") + np.sort(rng.choice(345, DATES, replace=False))
    points = ds.sample_land(SAMPLES, demo_ground(src, SIZE_PX * 10), seed=seed)
    points = points.assign(date=days[rng.integers(0, DATES, len(points))])
    year = {"start": "2018-01-01", "end": "2018-12-31"}
    plan = ds.plan_corpus(points, src, **year, seed=seed, size_px=SIZE_PX, max_days=3, max_cloud=60)
    print(seed, ds.build_corpus(plan, target, progress=False, retry_failed=True), flush=True)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs=2, default=(1000, 1021), metavar=("FIRST", "LAST"))
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ship", action="store_true", help="copy the weights into the package when done")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    paths = [corpus_of(seed, given.out / "corpora") for seed in range(given.seeds[0], given.seeds[1] + 1)]
    model = ds.pretrain(
        [ds.open_corpus(path) for path in paths],
        "masked",
        "fusion-nano",
        steps=given.steps,
        batch_size=64,
        lr=1.5e-3,
        average=0.998,
        checkpoint_every=200,
        log_every=20,
        out=given.out,
        on_step=lambda step: print(step, flush=True),
    )
    if given.ship:
        shutil.copy(model.save(given.out / "encoder.safetensors"), SHIPPED / "fusion-nano.safetensors")
        model.history["loss"].to_csv(SHIPPED / "fusion-nano.csv", float_format="%.4f")


if __name__ == "__main__":
    main()
