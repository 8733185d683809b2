"""One batch of windows through an encoder: on its device, as large as fits, NaN where nothing was to be seen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from deepsentinel.encoders.base import Encoder, Tokens
from deepsentinel.errors import InputError

from .positions import position_means

MASKS = ("s1_mask", "s2_mask")
# What a batch holds where nobody says: cells bound what a transformer needs, pixels what convolutions need.
AUTO_CELLS, AUTO_PIXELS = 2**11, 2**19
GPU_TIMES = 16
# Compiling takes most of a minute, which only long work gives back.
COMPILE_FROM = 5_000

_FINGERPRINTS: WeakKeyDictionary[nn.Module, tuple[tuple[tuple[int, int], ...], str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Windows:
    """Windows of one kind, stacked."""

    tensors: Mapping[str, Tensor]
    """What `Encoder.forward` takes, by name: s1, s2, s1_mask, s2_mask, month, latlon, as far as there is any."""
    missing: tuple[str, ...]
    """Bands whose channels hold nothing."""
    resolution_m: float
    """The side of a pixel."""

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def usable(self) -> np.ndarray:
        """(B, H, W): where a sensor saw anything on any date."""
        masks = [self.tensors[name].numpy() for name in MASKS if name in self.tensors]
        seen = [mask.any(axis=1) if mask.ndim == 4 else mask for mask in masks]
        return np.asarray(seen[0] if len(seen) == 1 else seen[0] | seen[1])

    def complete(self) -> np.ndarray:
        """(B,): where every sensor saw something."""
        masks = [self.tensors[name].flatten(1).any(dim=1) for name in MASKS if name in self.tensors]
        return np.asarray(torch.stack(masks).all(dim=0))

    def kind(self) -> tuple[object, ...]:
        """What windows have in common that can be stacked."""
        shapes = tuple((name, values.shape[1:]) for name, values in self.tensors.items())
        return shapes, self.missing, self.resolution_m

    def of(self, chosen: np.ndarray) -> Windows:
        """Some of the windows, by number."""
        some = {name: values[torch.from_numpy(chosen)] for name, values in self.tensors.items()}
        return Windows(some, self.missing, self.resolution_m)

    @classmethod
    def join(cls, parts: Sequence[Windows]) -> Windows:
        """Windows of one kind, one after another."""
        first = parts[0]
        joined = {name: torch.cat([part.tensors[name] for part in parts]) for name in first.tensors}
        return first if len(parts) == 1 else cls(joined, first.missing, first.resolution_m)


class Runner:
    """An encoder at work; on leaving it is back where it was, and in the mode it was in."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        window_px: int,
        patch_px: int,
        device: str | torch.device,
        batch_size: int | str,
        keep_positions: bool = True,
    ) -> None:
        self.encoder, self.patch_px = encoder, patch_px
        self.device = pick_device(device)
        self.batch = _batch(batch_size, window_px, patch_px, self.device)
        state = next(iter(encoder.state_dict().values()), None)
        self._home = torch.device("cpu") if state is None else state.device
        self._training = encoder.training
        self._forward: Callable[..., Tokens] = encoder
        # Encoders of single pixels know nothing of places.
        self.keep_positions = keep_positions or encoder.spec.size_px == 1
        self._positions: dict[object, np.ndarray] = {}

    def __enter__(self) -> Self:
        self.encoder.eval().to(self.device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.encoder.train(self._training).to(self._home)

    def expect(self, windows: int) -> None:
        """Say how much is to come: long work on a GPU is worth compiling for."""
        if self.device.type == "cuda" and windows >= COMPILE_FROM:
            self._forward = torch.compile(self.encoder)

    def __call__(self, windows: Windows, *, dense: bool) -> np.ndarray:
        """(B, D) vectors of the windows, or (B, h, w, D) of their cells, float32; NaN where nothing was to be seen."""
        usable = windows.usable()
        if not self.encoder.spec.can_mask:
            # It would be shown a grey picture in place of the sensor that saw nothing.
            usable = usable & windows.complete()[:, None, None]
        sides = [length // self.patch_px for length in usable.shape[1:]] if dense else []
        vectors = np.full((len(windows), *sides, self.encoder.spec.width), np.nan, "float32")
        chosen = np.flatnonzero(usable.any(axis=(1, 2)))
        # Parts of the same size rather than full ones and a small rest.
        waiting = np.array_split(chosen, -(-len(chosen) // self.batch)) if len(chosen) else []
        while waiting:
            part = waiting.pop(0)
            try:
                vectors[part] = self._run(windows if len(part) == len(windows) else windows.of(part), dense)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                self.batch = -(-len(part) // 2)
                waiting = [*np.array_split(part, 2), *waiting]
        if dense and not self.keep_positions:
            vectors -= self._position_means(windows)
        if dense and not usable.all():
            patch = self.patch_px
            known = usable.reshape(len(windows), sides[0], patch, sides[1], patch).any(axis=(2, 4))
            vectors[~known] = np.nan
        return vectors

    def _position_means(self, windows: Windows) -> np.ndarray:
        """(h, w, D): what the cells of these windows have in common by where they are, measured once a kind."""
        month = windows.tensors.get("month")
        key = (windows.kind(), None if month is None else month[0].numpy().tobytes())
        if key not in self._positions:

            def run(inputs: dict[str, Tensor]) -> np.ndarray:
                plain = Windows(inputs, windows.missing, windows.resolution_m)
                parts = np.array_split(np.arange(len(plain)), -(-len(plain) // self.batch))
                return np.concatenate([self._run(plain.of(part), True) for part in parts])

            self._positions[key] = position_means(self.encoder.spec, windows.tensors, self.patch_px, run)
        return self._positions[key]

    def _run(self, windows: Windows, dense: bool) -> np.ndarray:
        inputs = {
            name: values.to(self.device, non_blocking=True)
            for name, values in windows.tensors.items()
            # Without its mask a sensor that is all there takes the encoder's short way.
            if name not in MASKS or not values.numpy().all()
        }
        half: AbstractContextManager[object] = (
            torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()
        )
        with torch.inference_mode(), half:
            tokens = self._forward(
                **inputs, missing=windows.missing, patch_px=self.patch_px, resolution_m=windows.resolution_m
            )
        vectors = tokens.dense if dense else tokens.pooled
        assert vectors is not None
        done: np.ndarray = vectors.float().cpu().numpy()
        return done


def pick_device(device: str | torch.device) -> torch.device:
    """The device meant; "auto" is a CUDA GPU where there is one.

    >>> pick_device("cpu").type
    'cpu'
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device={device!r} is none; auto, cpu, cuda and cuda:1 are.") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f'device="{chosen}", but no GPU can be used here; device="auto" takes what there is.')
    return chosen


def _batch(batch_size: int | str, window_px: int, patch_px: int, device: torch.device) -> int:
    if batch_size == "auto":
        cells = (window_px // patch_px) ** 2
        fits = min(AUTO_CELLS // cells, AUTO_PIXELS // window_px**2)
        return max(1, fits) * (GPU_TIMES if device.type == "cuda" else 1)
    if not isinstance(batch_size, int | np.integer) or isinstance(batch_size, bool) or batch_size < 1:
        raise InputError(f'batch_size={batch_size!r}: a whole number of windows from 1, or "auto".')
    return int(batch_size)


def fingerprint(encoder: nn.Module) -> str:
    """Which weights these are: the start of a SHA-256 over all their numbers. Vectors of others do not compare.

    >>> fingerprint(nn.Linear(1, 1)) == fingerprint(nn.Linear(1, 1))
    False
    """
    state = encoder.state_dict()
    # Hashing a large encoder takes a second; changed in place a tensor counts its versions up.
    now = tuple((value.data_ptr(), value._version) for value in state.values())
    known = _FINGERPRINTS.get(encoder)
    if known is None or known[0] != now:
        digest = hashlib.sha256()
        for name, value in state.items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        known = _FINGERPRINTS[encoder] = (now, f"sha256:{digest.hexdigest()[:16]}")
    return known[1]
