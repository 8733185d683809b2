"""Transformer blocks, and how tokens that differ in number from sample to sample go through them without waste."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# On a processor the activations of a few samples stay in the cache, where those of a whole batch would go through
# memory at every step, which costs about a tenth of the time at 128 wide. Too few, and the threads wait for each other
# at every step instead. Numbers (tokens x width) a thread.
CACHED_NUMBERS = 2**19
# On a GPU only its memory is a bound.
GPU_NUMBERS = 2**28
# Samples share a run as long as the shorter ones are not padded by more than this.
MOST_PADDING_SHARE = 0.2


# Cosine and sine of each token's angles, (N, half a head) or (B, 1, N, half a head).
Turn = tuple[Tensor, Tensor]


class Block(nn.Module):
    """Attention, then two layers for each token, both on top of what came in."""

    def __init__(self, width: int, heads: int, *, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor, bias: Tensor | None = None, turn: Turn | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D); `bias` (B, 1, 1, N) is -inf where a key is no token."""
        batch, count, width = tokens.shape
        parts = self.qkv(self.norm1(tokens)).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        if turn is not None:
            query, key = turned(query, *turn), turned(key, *turn)
        if bias is not None:
            bias = bias.to(query.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        tokens = tokens + self.proj(mixed.transpose(1, 2).reshape(batch, count, width))
        return tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))


def turned(values: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """(B, heads, N, size of a head), each half of it one side of the planes that are turned.

    >>> quarter = torch.tensor([torch.pi / 2])
    >>> turned(torch.tensor([1.0, 0.0]), quarter.cos(), quarter.sin()).abs().round().tolist()
    [0.0, 1.0]
    """
    one, other = values.chunk(2, dim=-1)
    cosine, sine = cosine.to(values.dtype), sine.to(values.dtype)
    return torch.cat([one * cosine - other * sine, one * sine + other * cosine], dim=-1)


class Blocks(nn.ModuleList):
    """A stack of blocks that computes the tokens that are there, and of the others as few as it can."""

    def __init__(self, depth: int, width: int, heads: int, *, hidden: int) -> None:
        super().__init__(Block(width, heads, hidden=hidden) for _ in range(depth))
        self.apply(initialise)

    def run(self, tokens: Tensor, seen: Tensor | None = None, turns: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D). Where `seen` (B, N) is False there is no token: it is not attended to and gives 0.

        turns: (N, half a head) angles by which queries and keys of each token are turned: its place.
        """
        turn = None if turns is None else (turns.cos(), turns.sin())
        if seen is None:
            runs = -(-len(tokens) // _samples_a_run(tokens, tokens.shape[1]))
            parts = [self._through(part, None, turn) for part in tokens.tensor_split(max(1, runs))]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        counts = seen.sum(dim=1)
        order = counts.argsort(stable=True)
        out = torch.zeros_like(tokens)
        for start, stop, fewest, most in _runs(counts[order].tolist(), tokens):
            rows = order[start:stop]
            # The tokens that are there come first, in their order.
            places = (~seen[rows]).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
            rows = rows[:, None]
            bias = None
            if fewest < most:
                bias = torch.zeros(places.shape, device=tokens.device).masked_fill_(~seen[rows, places], -torch.inf)
                bias = bias[:, None, None, :]
            here = None if turn is None else (turn[0][places][:, None], turn[1][places][:, None])
            done = self._through(tokens[rows, places], bias, here)
            if bias is not None:
                done = torch.where(seen[rows, places].unsqueeze(-1), done, 0.0)
            out[rows, places] = done.to(out.dtype)
        return out

    def _through(self, tokens: Tensor, bias: Tensor | None, turn: Turn | None) -> Tensor:
        for block in self:
            tokens = block(tokens, bias, turn)
        return tokens


def _samples_a_run(tokens: Tensor, count: int) -> int:
    numbers = GPU_NUMBERS if tokens.is_cuda else CACHED_NUMBERS * torch.get_num_threads()
    return max(1, numbers // max(1, count * tokens.shape[-1]))


def _runs(counts: list[int], tokens: Tensor) -> Iterator[tuple[int, int, int, int]]:
    """Cut ascending counts into runs of about the same length: start, stop, fewest, most; those of 0 are left out."""
    start = next((place for place, count in enumerate(counts) if count), len(counts))
    while start < len(counts):
        fewest = counts[start]
        longest = int(fewest / (1 - MOST_PADDING_SHARE))
        room = min(start + _samples_a_run(tokens, fewest), len(counts))
        stop = bisect_right(counts, longest, start, room)
        yield start, stop, fewest, counts[stop - 1]
        start = stop


def initialise(layer: nn.Module) -> None:
    """Draw a linear layer's weights as the authors of both models do.

    >>> layer = nn.Linear(2, 2)
    >>> initialise(layer)
    >>> layer.bias.tolist()
    [0.0, 0.0]
    """
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
