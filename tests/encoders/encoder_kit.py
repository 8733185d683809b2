"""Made-up but plausible pixels for any encoder, and calls without gradients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deepsentinel.encoders.base import Encoder, Tokens
from deepsentinel.encoders.spec import EncoderSpec


def pixels(spec: EncoderSpec, mode: str, batch: int, size: tuple[int, int], seed: int = 0) -> dict[str, Tensor]:
    """Inputs for `encoder(**inputs)`: smooth fields with noise, in dB and reflectance x 10000."""
    rng = np.random.default_rng(seed)
    height, width = size
    hills = np.cumsum(np.cumsum(rng.normal(size=(batch, 1, height, width)), axis=2), axis=3)
    hills = hills / (np.abs(hills).max(axis=(2, 3), keepdims=True) + 1e-9)
    given = {}
    if mode in ("s1", "both"):
        levels = np.array([-11.0, -17.0]).reshape(1, 2, 1, 1)
        given["s1"] = levels + 4 * hills + rng.normal(0, 1.5, (batch, 2, height, width))
    if mode in ("s2", "both"):
        levels = rng.uniform(600, 3000, (1, len(spec.s2_bands), 1, 1))
        noise = rng.normal(0, 60, (batch, len(spec.s2_bands), height, width))
        given["s2"] = np.clip(levels * (1 + 0.5 * hills) + noise, 1, None).round()
    return {name: torch.from_numpy(values.astype(np.float32)) for name, values in given.items()}


def run(encoder: Encoder, **inputs: object) -> Tokens:
    with torch.no_grad():
        return encoder(**inputs)


def apart(first: Tokens, second: Tokens) -> float:
    """The largest difference, in units of how large the vectors are; NaN is only like NaN."""
    pairs = [(first.pooled, second.pooled)]
    if first.dense is not None:
        assert second.dense is not None
        pairs.append((first.dense, second.dense))
    if not all(torch.equal(one.isnan(), other.isnan()) for one, other in pairs):
        return float("inf")
    scale = max(float(first.pooled.nan_to_num().abs().max()), 1e-6)
    return max(float((one - other).nan_to_num().abs().max()) for one, other in pairs) / scale


def rows(inputs: dict[str, Tensor], chosen: slice) -> dict[str, Tensor]:
    return {name: values[chosen] for name, values in inputs.items()}
