"""One percent of the labels: the encoder that comes with the package, fine-tuned, and the same from scratch.

    python tests/bench/probe_few_labels.py --seeds 3001 3002 3003 [--share 0.01] [--draws 3]

Each seed is a demo world of its own: windows of 320 m of both tiles on the clearest summer date, land cover of 10 m,
dealt out as in probe_segmentation.py. From the windows to learn from a hundredth is drawn, and both models learn these
alone, with the same steps, batches and seed; each has the rate that served it best on a world that is not reported
(--lr, --lr-scratch). Mean IoU on all clear pixels of the windows to be tested on, both sensors.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from probe_segmentation import tested, world

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning

WINDOW_PX = 32
ARMS = {"fine-tuned": None, "from scratch": "random"}


def drawn(train: list[xr.Dataset], share: float, seed: int) -> list[xr.Dataset]:
    """So many of the windows, of all tiles together."""
    where = [(at, number) for at, corpus in enumerate(train) for number in range(corpus.sizes["sample"])]
    chosen = np.random.default_rng(seed).choice(len(where), max(2, round(share * len(where))), replace=False)
    numbers = [sorted(where[each][1] for each in chosen if where[each][0] == at) for at in range(len(train))]
    return [corpus.isel(sample=each) for corpus, each in zip(train, numbers, strict=True) if each]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--lr", type=float, default=1e-3, help="of what is fine-tuned")
    parser.add_argument("--lr-scratch", type=float, default=2e-3)
    parser.add_argument("--folder", type=Path, help="where corpora are kept; a temporary one if left out")
    parser.add_argument("--keep", type=Path, help="a JSON file for the numbers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DeepSentinelWarning)
    folder = given.folder or Path(tempfile.mkdtemp())
    rows = []
    for seed in given.seeds:
        train, test = world(seed, folder, WINDOW_PX)
        for draw in range(given.draws):
            few = drawn(train, given.share, draw)
            count = sum(corpus.sizes["sample"] for corpus in few)
            for arm, weights in ARMS.items():
                model = ds.finetune(
                    few,
                    "fusion-nano",
                    "segmentation",
                    "learn",
                    weights=weights,
                    steps=given.steps,
                    batch_size=min(8, count),
                    crop_px=WINDOW_PX,
                    lr=given.lr if weights is None else given.lr_scratch,
                    loss="log+dice",
                    average=0.98,
                    seed=draw,
                )
                score, _ = tested(model, test, "both")
                rows.append({"seed": seed, "draw": draw, "arm": arm, "windows": count, "score": score})
                print(f"seed {seed}  draw {draw}  {count} windows  {arm:13} mean IoU {score:.3f}", flush=True)
    for seed in given.seeds:
        means = {a: np.mean([r["score"] for r in rows if (r["seed"], r["arm"]) == (seed, a)]) for a in ARMS}
        print(f"seed {seed}  " + "  ".join(f"{arm} {mean:.3f}" for arm, mean in means.items()))
    if given.keep:
        given.keep.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
