"""Losses of labelled ground: what is ignored counts nowhere, classes weigh what they are told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from deepsentinel.errors import InputError

from .tasks import IGNORE

FOCUS = 2.0
Loss = Callable[[Tensor, Tensor], Tensor]


def segmentation_loss(name: str, weights: Tensor | None = None) -> Loss:
    """A loss of logits (B, K, H, W) and targets (B, H, W) by name; several joined by "+" are added.

    log: log loss, by class `weights`. focal: the same, where pixels that are right already count less. dice: overlap
    of each class that is there, whatever its size.

    >>> logits, truth = torch.tensor([[[[9.0]], [[0.0]]]]), torch.tensor([[[0]]])
    >>> round(segmentation_loss("log+dice")(logits, truth).item(), 3)
    0.0
    """
    known = {"log": _log, "focal": _focal, "dice": _dice}
    parts = name.split("+")
    if unknown := [part for part in parts if part not in known]:
        raise InputError(f"loss={name!r}: {unknown[0]!r} is not known; {', '.join(known)} are, joined by +.")

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        here = None if weights is None else weights.to(logits.device)
        return cast(Tensor, sum(known[part](logits.float(), truth, here) for part in parts))

    return loss


def _log(logits: Tensor, truth: Tensor, weights: Tensor | None) -> Tensor:
    total = F.cross_entropy(logits, truth, weights, ignore_index=IGNORE, reduction="sum")
    return total / _weight(truth, weights).clamp(min=1e-6)


def _focal(logits: Tensor, truth: Tensor, weights: Tensor | None) -> Tensor:
    plain = F.cross_entropy(logits, truth, ignore_index=IGNORE, reduction="none")
    sure = torch.exp(-plain)
    heavy = torch.ones_like(plain) if weights is None else weights[truth.clamp(max=len(weights) - 1)]
    return ((1 - sure) ** FOCUS * plain * heavy).sum() / _weight(truth, weights).clamp(min=1e-6)


def _dice(logits: Tensor, truth: Tensor, weights: Tensor | None) -> Tensor:
    del weights  # every class that is there counts the same
    keep = (truth != IGNORE).unsqueeze(1)
    said = logits.softmax(dim=1) * keep
    wanted = F.one_hot(truth.clamp(max=logits.shape[1] - 1), logits.shape[1]).movedim(-1, 1) * keep
    axes = (0, 2, 3)
    there = wanted.sum(axes)
    score = (2 * (said * wanted).sum(axes) + 1) / (said.sum(axes) + there + 1)
    return ((1 - score) * (there > 0)).sum() / (there > 0).sum().clamp(min=1)


def _weight(truth: Tensor, weights: Tensor | None) -> Tensor:
    """What all pixels that count weigh together."""
    keep = truth != IGNORE
    if weights is None:
        return keep.sum().float()
    return torch.where(keep, weights[truth.clamp(max=len(weights) - 1)], 0.0).sum()
