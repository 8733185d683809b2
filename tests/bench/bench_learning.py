"""What the training loop costs beside the model: samples a second of `fit`, and of bare forward and backward passes.

    python tests/bench/bench_learning.py [masked ...] [--rounds 5] [--steps 12] [--device auto]

Both see the same corpus and the same weights, one after the other and again, so that a busy machine is busy for both.
The loop cuts, turns and scales each batch, clips gradients, changes weights and looks at losses; the bare
passes have one batch ready and change nothing. On a GPU `--device cuda` keeps the corpus there.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import deepsentinel as ds
from deepsentinel.corpus.recipes import unlabelled
from deepsentinel.embedding.model import pick_device
from deepsentinel.encoders import load_encoder
from deepsentinel.learn import objectives
from deepsentinel.learn.batches import Feed, bands_of
from deepsentinel.learn.fit import Plan, fit

SAMPLES, SIZE_PX, BATCH = 96, 96, 64


def waited(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def compare(name: str, corpus: Any, device: torch.device, rounds: int, steps: int) -> None:
    start = load_encoder("fusion-nano", "random")
    feed = Feed(
        corpus,
        batch_size=BATCH,
        crop_px=64,
        bands=bands_of(start.spec, corpus),
        device=device,
        on_device=True,
        triplets={"near_m": 1_500.0, "far_m": 1_500.0} if name == "triplet" else None,
    )
    model = objectives.build(name, start, feed).to(device)
    ready = feed(0)

    def bare() -> float:
        model.train()
        began = waited(device)
        for _ in range(steps):
            sum(model.loss(ready).values()).backward()
            model.zero_grad(set_to_none=True)
        return steps * BATCH / (waited(device) - began)

    def loop() -> float:
        began = waited(device)
        fit(model, feed, Plan(steps=steps, precision="32", log_every=10))
        return steps * BATCH / (waited(device) - began)

    bare(), loop()
    pairs = [(loop(), bare()) for _ in range(rounds)]
    ratios = sorted(one / other for one, other in pairs)
    print(
        f"{name:17} loop {statistics.median(p[0] for p in pairs):7.1f} samples/s, bare "
        f"{statistics.median(p[1] for p in pairs):7.1f}; loop / bare {statistics.median(ratios):.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}), asked .90",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objectives", nargs="*", default=["masked", "contrastive"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.zarr"
        recipe = unlabelled(ds.open_source("demo"), n=SAMPLES, size_px=SIZE_PX, start="2018-06-01", end="2018-06-30")
        recipe.build(path, progress=False)
        for name in given.objectives:
            compare(name, ds.open_corpus(path), pick_device(given.device), given.rounds, given.steps)


if __name__ == "__main__":
    main()
