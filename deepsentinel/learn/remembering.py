"""What an encoder that is not trained says of a corpus, asked once: the head alone is left to do at every step.

Samples are shown as they lie, in squares as wide as a crop. A crop then begins where a cell does, and where the pixels
of a sample are turned its cells are turned with them, so that each sample is seen once and not once for each way to lay
it; maps are drawn from ground as it lies too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from deepsentinel.encoders.base import Encoder, Tokens
from deepsentinel.errors import InputError

from .batches import Batch, Feed, encode
from .crops import Cut
from .heads import CellHead, LinearHead, PixelHead

if TYPE_CHECKING:
    from .model import Model

# Encoded together.
PIECE = 16
# What is remembered without being asked for. A bound that does not depend on the machine, so that a run that goes on
# elsewhere goes on alike.
LARGEST_BYTES = 2e9


@dataclass
class Remembered:
    """The tokens of all samples of a feed, by the sensors that the encoder was shown."""

    encoder: Encoder
    """Which said so."""
    tokens: Mapping[str, Tokens]
    """(N, D), NaN where crops are less than a sample, and (N, h, w, D), as far as somebody reads these."""
    cell_px: int
    """The side of a cell; crops begin where one does."""

    def of(self, positions: np.ndarray, cut: Cut) -> tuple[Encoder, dict[str, Tokens]]:
        """Of some samples, cut and turned as their pixels are."""
        found: dict[str, Tokens] = {}
        for sensors, every in self.tokens.items():
            at = torch.from_numpy(positions).to(every.pooled.device)
            dense = every.dense
            if dense is not None:
                dense = cut.coarser(self.cell_px)(dense.index_select(0, at).movedim(-1, 1)).movedim(1, -1)
            found[sensors] = Tokens(every.pooled.index_select(0, at), dense)
        return self.encoder, found


def remember(model: Model, feed: Feed, steps: int) -> bool:
    """Let a feed bring the tokens of a frozen encoder along, if that was asked for, or is worth it.

    Unasked (`cache_features="auto"`) it is worth it for heads that read nothing but vectors, where the encoder is
    nearly all of the work, if more crops are to be looked at than there are; others look at the pixels too, which takes
    longer than the encoder.
    """
    feed.remembered = None
    if model.cache_features is False:
        return False
    asked = model.cache_features is True
    size, crop = feed.size_px, feed.crop_px
    why = _cannot(model, feed)
    looks, crops = steps * feed.batch_size, len(feed) * (size / crop) ** 2
    if not why and not asked and (isinstance(model.head, PixelHead) or looks < crops):
        return False
    if not why:
        modes = ("both", "s1", "s2") if model.question.sensors == "any" else (model.question.sensors,)
        found = _looked(model.encoder, feed, modes, cells=not isinstance(model.head, LinearHead), bounded=not asked)
        if isinstance(found, Remembered):
            feed.remembered = found
            return True
        why = found
    if asked:
        raise InputError(f"cache_features=True cannot be: {why}. Leave it out.")
    return False


def _cannot(model: Model, feed: Feed) -> str:
    if not model.frozen:
        return "it is for frozen=True, and this encoder learns"
    if not isinstance(model.head, LinearHead | CellHead | PixelHead):
        return f"a {type(model.head).__name__} looks into {model.encoder.spec.name} itself"
    if feed.crop_px < feed.size_px and isinstance(model.head, LinearHead):
        return f"the one vector of a sample is not that of a crop; crop_px={feed.size_px} shows whole samples"
    return "batches of triplets are not remembered" if feed.triplets else ""


@torch.no_grad()
def _looked(encoder: Encoder, feed: Feed, modes: Sequence[str], *, cells: bool, bounded: bool) -> Remembered | str:
    """The tokens of all samples, or why there can be none."""
    size, crop, count = feed.size_px, feed.crop_px, len(feed)
    first = {sensors: encode(encoder, feed.whole(np.arange(1)).cropped(crop), sensors) for sensors in modes}
    across = 1
    if cells:
        shapes = {None if each.dense is None else tuple(each.dense.shape[1:3]) for each in first.values()}
        shape = shapes.pop()
        if shape is None and crop < size:
            return f"{encoder.spec.name} has no cells, and its vector is not that of a crop"
        if shape is not None:
            across = shape[0]
            if shapes or shape[1] != across or crop % across or size % (crop // across):
                return f"the cells of {encoder.spec.name} do not fit samples of {size} px and crops of {crop}"
    pace = crop // across
    numbers = sum(
        each.pooled.numel() + (each.dense.numel() * (size / crop) ** 2 if cells and each.dense is not None else 0)
        for each in first.values()
    )
    if bounded and 4 * numbers * count > LARGEST_BYTES:
        return f"{4 * numbers * count / 1e9:.1f} GB would be remembered"
    tokens: dict[str, Tokens] = {}
    for sensors in modes:
        said = []
        for start in range(0, count, PIECE):
            batch = feed.whole(np.arange(start, min(start + PIECE, count)))
            said.append(_tiled(encoder, batch, sensors, crop, pace, cells=cells))
        dense = [each.dense for each in said if each.dense is not None]
        tokens[sensors] = Tokens(torch.cat([each.pooled for each in said]), torch.cat(dense) if dense else None)
    return Remembered(encoder, tokens, pace)


def _tiled(encoder: Encoder, batch: Batch, sensors: str, side: int, pace: int, *, cells: bool) -> Tokens:
    """The tokens of whole samples, of which the encoder sees squares as wide as a crop, as it would in training."""
    size = batch.pixels.shape[-1]
    if side == size:
        whole = encode(encoder, batch, sensors)
        return Tokens(whole.pooled, whole.dense if cells else None)
    starts = [*range(0, size - side, side), size - side]
    dense: Tensor | None = None
    for row in starts:
        for column in starts:
            seen = encode(encoder, batch.cropped(side, row, column), sensors).dense
            assert seen is not None
            if dense is None:
                dense = seen.new_empty(len(batch), size // pace, size // pace, seen.shape[-1])
            top, left, across = row // pace, column // pace, side // pace
            dense[:, top : top + across, left : left + across] = seen
    assert dense is not None
    return Tokens(dense.new_full((len(batch), dense.shape[-1]), torch.nan), dense)
