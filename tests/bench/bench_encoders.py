"""How fast our encoders are beside their authors' code and beside nothing but their blocks.

    DEEPSENTINEL_GALILEO_CODE=/path/to/single_file_galileo.py DEEPSENTINEL_PRESTO_CODE=/path/to/single_file_presto.py \
        python tests/bench/bench_encoders.py [rounds, 9]

The authors' files are in github.com/nasaharvest/galileo and github.com/nasaharvest/presto, and want `einops`; without
them only the other ratios are measured. All of one comparison run in turn in each round, on the same input and threads,
and the ratio is the median of the rounds' ratios: what else the machine does hits both alike. Both sides must give the
same vectors.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepsentinel.encoders.galileo import build as build_galileo
from deepsentinel.encoders.presto import build as build_presto
from deepsentinel.encoders.registry import find

WINDOWS, SIDE_PX, PATCH_PX = 32, 64, 8
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def compare(named: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, one after the other in every round; the first round warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in named}
    with torch.inference_mode():
        for turn in range(rounds + 1):
            for name, run in named.items():
                start = perf_counter()
                run()
                if DEVICE == "cuda":
                    torch.cuda.synchronize()
                if turn:
                    seconds[name].append(perf_counter() - start)
    return seconds


def tell(what: str, seconds: dict[str, list[float]], slow: str, fast: str, at_least: float | None = None) -> None:
    ratio = statistics.median(s / f for s, f in zip(seconds[slow], seconds[fast], strict=True))
    wanted = "" if at_least is None else f", at least {at_least} {'reached' if ratio >= at_least else 'NOT REACHED'}"
    print(f"{what:72} {ratio:5.2f}  ({min(seconds[slow]):.3f} s / {min(seconds[fast]):.3f} s{wanted})")


def theirs(variable: str) -> ModuleType | None:
    path = os.environ.get(variable)
    if not path:
        print(f"{variable} is not set: the authors' code is left out")
        return None
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BareBlock(nn.Module):
    """The least a transformer block can be, on PyTorch's own attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


def authors_galileo(
    module: ModuleType, s1: Tensor, s2: Tensor, month: Tensor
) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Their encoder and a call of it; the input is made ready beforehand, which ours has to do within the call."""
    size = {"embedding_size": 128, "depth": 4, "num_heads": 8, "mlp_ratio": 4, "max_patch_size": 8}
    encoder = module.Encoder(**size).to(DEVICE).eval()
    spec = find("galileo-nano")
    scaled = []
    for pixels, scaling in ((s1, spec.s1_scaling), (s2, spec.s2_scaling)):
        assert scaling is not None
        offset, scale = (
            torch.tensor(numbers, device=DEVICE).view(-1, 1, 1) for numbers in (scaling.offset, scaling.scale)
        )
        scaled.append((pixels - offset) / scale)
    count, side = len(s1), s1.shape[-1]
    ndvi = torch.zeros(count, 1, side, side, device=DEVICE)
    space_time = torch.cat([*scaled, ndvi], dim=1).permute(0, 2, 3, 1).unsqueeze(3).contiguous()
    masked = torch.zeros(count, side, side, 1, 7, device=DEVICE)
    masked[..., 6] = 1

    def none(*shape: int, value: float = 0) -> Tensor:
        return torch.full((count, *shape), value, device=DEVICE)

    others = none(side, side, 16), none(1, 6), none(18)
    hidden = none(side, side, 3, value=1), none(1, 3, value=1), none(4, value=1)

    def run() -> Tensor:
        out = encoder(space_time, *others, masked, *hidden, month.unsqueeze(1), patch_size=PATCH_PX)
        return encoder.average_tokens(*out[:-1])

    return encoder, run


def galileo(rounds: int) -> None:
    ours = build_galileo(find("galileo-nano")).to(DEVICE).eval()
    s1 = torch.randn(WINDOWS, 2, SIDE_PX, SIDE_PX, device=DEVICE) * 5 - 15
    s2 = torch.rand(WINDOWS, 10, SIDE_PX, SIDE_PX, device=DEVICE) * 4000
    month = torch.arange(WINDOWS, device=DEVICE) % 12
    bare = nn.Sequential(*(BareBlock(128, 8) for _ in range(4))).to(DEVICE).eval()
    tokens = torch.randn(WINDOWS, 6 * (SIDE_PX // PATCH_PX) ** 2, 128, device=DEVICE)
    half = torch.rand(WINDOWS, SIDE_PX // PATCH_PX, SIDE_PX // PATCH_PX, device=DEVICE).argsort(dim=-1) < 4
    cloudy = half.repeat_interleave(PATCH_PX, 1).repeat_interleave(PATCH_PX, 2)
    uneven = cloudy & (torch.rand(WINDOWS, 1, 1, device=DEVICE) < 0.5)
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(s1, s2, month=month),
        "bare": lambda: bare(tokens),
        "bare in runs": lambda: ours.blocks.run(tokens),
        "half of S2": lambda: ours(s1, s2, s2_mask=cloudy, month=month),
        "some of S2": lambda: ours(s1, s2, s2_mask=~uneven, month=month),
        "S1": lambda: ours(s1, month=month),
    }
    module = theirs("DEEPSENTINEL_GALILEO_CODE")
    if module is not None:
        encoder, runs["authors"] = authors_galileo(module, s1, s2, month)
        ours.load_weights(encoder.state_dict())
        with torch.inference_mode():
            torch.testing.assert_close(ours(s1, s2, month=month).pooled, runs["authors"](), atol=1e-4, rtol=0)
    seconds = compare(runs, rounds)
    what = f"galileo-nano, {WINDOWS} windows of {SIDE_PX} px, patch {PATCH_PX}:"
    if module is not None:
        tell(f"{what} authors' code / ours", seconds, "authors", "ours", 1.2)
    tell(f"{what} four bare blocks / ours", seconds, "bare", "ours", 0.9)
    tell(f"{what} our blocks alone / ours", seconds, "bare in runs", "ours")
    tell(f"{what} all seen / half of S2 masked", seconds, "ours", "half of S2")
    tell(f"{what} all seen / half of S2 masked in half of them", seconds, "ours", "some of S2")
    tell(f"{what} both sensors / S1 only", seconds, "ours", "S1")


def presto(rounds: int, *, pixels: int = 4096) -> None:
    ours = build_presto(find("presto")).to(DEVICE).eval()
    module = theirs("DEEPSENTINEL_PRESTO_CODE")
    if module is None:
        return
    encoder = module.Presto.construct().encoder.to(DEVICE).eval()
    ours.load_weights({f"encoder.{name}": values for name, values in encoder.state_dict().items()})
    for dates in (1, 12):
        count = pixels // dates
        s1 = torch.randn(count, dates, 2, 1, 1, device=DEVICE) * 5 - 15
        s2 = torch.rand(count, dates, 10, 1, 1, device=DEVICE) * 4000
        month = (torch.arange(dates, device=DEVICE) % 12).expand(count, -1)
        latlon = torch.rand(count, 2, device=DEVICE) * 90
        given = torch.zeros(count, dates, 17, device=DEVICE)
        given[..., :2] = (s1[..., 0, 0] + 25) / 25
        given[..., 2:12] = s2[..., 0, 0] / 1e4
        given[..., 16] = (given[..., 8] - given[..., 4]) / (given[..., 8] + given[..., 4])
        masked = torch.zeros_like(given)
        masked[..., 12:16] = 1
        cover = torch.full((count, dates), 9, device=DEVICE)
        inputs = s1, s2, month, latlon, given, masked, cover

        def our_run(inputs: tuple[Tensor, ...] = inputs) -> Tensor:
            s1, s2, month, latlon, *_ = inputs
            return ours(s1, s2, month=month, latlon=latlon).pooled

        def their_run(inputs: tuple[Tensor, ...] = inputs) -> Tensor:
            _, _, month, latlon, given, masked, cover = inputs
            return encoder(given, cover, latlon, masked, month=month)

        with torch.inference_mode():
            torch.testing.assert_close(our_run(), their_run(), atol=1e-4, rtol=0)
        seconds = compare({"authors": their_run, "ours": our_run}, rounds)
        tell(f"presto, {count} pixels of {dates} dates: authors' code / ours", seconds, "authors", "ours")


def main(rounds: int) -> None:
    torch.manual_seed(0)
    print(f"torch {torch.__version__} on {DEVICE}, {torch.get_num_threads()} threads, {rounds} rounds")
    galileo(rounds)
    presto(rounds)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
