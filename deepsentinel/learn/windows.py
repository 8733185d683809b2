"""Windows of a patch as training has its crops: what maps are drawn of, and what objects are looked for in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deepsentinel.encoders.spec import EncoderSpec

from .batches import Batch

if TYPE_CHECKING:
    from deepsentinel.embedding.model import Windows


def batch_of(windows: Windows, spec: EncoderSpec) -> Batch:
    """Windows of a scene as training has them: no channels that hold nothing, and every number finite.

    >>> from deepsentinel.embedding.model import Windows
    >>> from deepsentinel.encoders import find
    >>> radar = {"s1": torch.full((2, 2, 8, 8), torch.nan), "s1_mask": torch.zeros(2, 8, 8, dtype=torch.bool)}
    >>> batch = batch_of(Windows(radar, ("VH",), 10.0), find("fusion-nano"))
    >>> batch.s1_bands, batch.s1.shape, bool(batch.s1.isfinite().all()), batch.s2
    (('VV',), torch.Size([2, 1, 8, 8]), True, None)
    """
    given: dict[str, Any] = {}
    for key, names in (("s1", spec.s1_bands), ("s2", spec.s2_bands)):
        pixels = windows.tensors.get(key)
        places = [] if pixels is None else [at for at, name in enumerate(names) if name not in windows.missing]
        given[f"{key}_bands"] = tuple(names[at] for at in places)
        given[key] = pixels[:, places].nan_to_num(0.0) if pixels is not None and places else None
        given[f"{key}_mask"] = windows.tensors[f"{key}_mask"] if places else None
    month: Tensor | None = windows.tensors.get("month")
    return Batch(
        **given,
        month=None if month is None else month[:, 0],
        latlon=windows.tensors.get("latlon"),
        labels={},
        sample=torch.arange(len(windows)),
        generator=torch.Generator(),
    )
