"""Several processes that train one model: what they learn together, and what one alone learns of the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from learn_kit import SAMPLES, corpus, feed

from deepsentinel.learn.processes import own_device, rank_and_replicas

# What each process runs; alone it is the one process with all of the batch.
SCRIPT = """
import json, sys
import torch
torch.set_num_threads(1)
import deepsentinel as ds
from deepsentinel.learn.batches import Feed
from deepsentinel.learn.fit import Plan, fit
from deepsentinel.learn.processes import rank_and_replicas

path, out = sys.argv[1:]
rank, replicas = rank_and_replicas()
corpus = ds.open_corpus(path)


class Radar(torch.nn.Module):
    # Tells radar from light; its loss is a mean over all pixels of all samples, each of which counts alike.
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.GELU(), torch.nn.Conv2d(8, 2, 1))
        self.unused = torch.nn.Parameter(torch.ones(3))

    def loss(self, batch):
        return {"off": (self.layers(batch.s2 / 3000) - batch.s1[..., 1:-1, 1:-1] / 10).square().mean()}


def data():
    bands = ["B02", "B04", "B08", "VV", "VH"]
    return Feed(corpus, batch_size=4, crop_px=24, bands=bands, clouds=False, seed=1, rank=rank, replicas=replicas)


def flat(model):
    return torch.cat([value.detach().flatten() for value in model.parameters()])


told = []
model = Radar()
history = fit(model, data(), Plan(steps=5, lr=1e-2, log_every=2), on_step=lambda step: told.append(step.step))
halted = Radar()
# The last process asks, all of them stop.
stopped = fit(halted, data(), Plan(steps=8, log_every=2), stop=lambda: rank == replicas - 1)
found = ds.pretrain(corpus, steps=2, batch_size=4, crop_px=32, log_every=1, out=f"{out}/run", device="cpu")
again = ds.load_encoder("fusion-nano", f"{out}/run/encoder.safetensors")
torch.save(
    {
        "losses": history.table()["loss"].tolist(),
        "weights": flat(model),
        "told": told,
        "stopped": [stopped.stopped, stopped.rows[-1]["step"]],
        "encoder": flat(found.encoder),
        "written": flat(again),
        "pretrained": found.history["loss"].tolist(),
    },
    f"{out}/of_{rank}.pt",
)
"""


def ran(folder: Path, *before: str) -> list[dict[str, Any]]:
    folder.mkdir()
    script = folder / "script.py"
    script.write_text(SCRIPT)
    env = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    command = [sys.executable, *before, str(script), corpus().attrs["path"], str(folder)]
    done = subprocess.run(
        command, env={**env, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(path, weights_only=True) for path in sorted(folder.glob("of_*.pt"))]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_two_processes_learn_what_one_learns_of_the_whole_batch(tmp_path: Path) -> None:
    one, two = ran(tmp_path / "two", "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    (alone,) = ran(tmp_path / "one")
    # Samples, crops and how they are turned are the same, and so is a mean of two means.
    assert one["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert two["losses"] == one["losses"]
    torch.testing.assert_close(one["weights"], alone["weights"], rtol=1e-4, atol=1e-5)
    assert torch.equal(one["weights"], two["weights"])
    assert alone["losses"][-1] < alone["losses"][0]
    # Only the first one talks; what the second one asks for stops both, when they look.
    assert (one["told"], two["told"], alone["told"]) == ([1, 2, 4, 5], [], [1, 2, 4, 5])
    assert one["stopped"] == two["stopped"] == [True, 1]
    # Where each draws for itself, as what to hide, losses are others, but the weights stay one set of weights.
    for each in (one, two):
        assert torch.equal(each["encoder"], one["encoder"])
        assert torch.equal(each["written"], one["encoder"])
        assert each["pretrained"] == one["pretrained"]
    assert torch.tensor(one["pretrained"]).isfinite().all()
    assert not torch.equal(one["encoder"], alone["encoder"])


def test_processes_cut_as_one_would() -> None:
    whole = feed(batch_size=6, seed=2)(3)
    parts = [feed(batch_size=6, seed=2, rank=rank, replicas=2)(3) for rank in (0, 1)]
    for rank, part in enumerate(parts):
        assert torch.equal(part.s2, whole.s2[rank::2])
        assert torch.equal(part.s1_mask, whole.s1_mask[rank::2])
    drawn = {float(torch.rand((), generator=part.generator)) for part in parts}
    assert len(drawn) == 2
    assert SAMPLES >= 6


def test_each_process_has_its_own_gpu() -> None:
    second = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}
    assert rank_and_replicas(second) == (5, 8)
    assert own_device(torch.device("cuda"), second) == torch.device("cuda:1")
    assert own_device(torch.device("cpu"), second) == torch.device("cpu")
    assert own_device(torch.device("cuda:3"), {}) == torch.device("cuda:3")
