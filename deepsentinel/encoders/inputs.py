"""What Galileo and Presto ask of their input: sensors that go together, masks that fit, months from January = 0."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from deepsentinel.errors import InputError

from .base import check_mode
from .spec import EncoderSpec

MAX_DATES = 24


@dataclass(frozen=True)
class Sensor:
    """One sensor's part of a batch, always a series."""

    name: str
    """S1 or S2."""
    bands: tuple[str, ...]
    """Its channels, by name."""
    pixels: Tensor
    """(B, T, C, H, W)."""
    mask: Tensor | None
    """(B, T, H, W), True = usable; None: all of them."""

    @property
    def sides(self) -> tuple[int, int, int, int]:
        """Samples, dates, rows, columns."""
        samples, dates, _, rows, columns = self.pixels.shape
        return samples, dates, rows, columns


def sensors_given(
    spec: EncoderSpec,
    s1: Tensor | None,
    s2: Tensor | None,
    s1_mask: Tensor | None,
    s2_mask: Tensor | None,
    missing: Collection[str],
) -> list[Sensor]:
    """The sensors at hand, checked; one date is a series of one.

    >>> from deepsentinel.encoders.registry import find
    >>> [sensor.sides for sensor in sensors_given(find("presto"), torch.zeros(3, 2, 4, 5), None, None, None, ())]
    [(3, 1, 4, 5)]
    """
    check_mode(spec, s1, s2)
    unknown = set(missing) - set(spec.s1_bands + spec.s2_bands)
    if unknown:
        raise InputError(f"{spec.name} has no band {', '.join(sorted(unknown))} that might be missing.")
    given = [
        _as_series(name, bands, pixels, mask)
        for name, bands, pixels, mask in (("S1", spec.s1_bands, s1, s1_mask), ("S2", spec.s2_bands, s2, s2_mask))
        if pixels is not None
    ]
    if given[0].sides != given[-1].sides:
        raise InputError(
            f"S1 and S2 differ in (samples, dates, height, width): {given[0].sides} and {given[-1].sides}."
        )
    return given


def _as_series(name: str, bands: tuple[str, ...], pixels: Tensor, mask: Tensor | None) -> Sensor:
    if mask is not None:
        wanted = (*pixels.shape[:-3], *pixels.shape[-2:])
        if tuple(mask.shape) != wanted or mask.dtype != torch.bool:
            raise InputError(f"The mask of {name} is {mask.dtype} {tuple(mask.shape)}; bool {wanted} fits the pixels.")
    if pixels.ndim == 4:
        pixels, mask = pixels.unsqueeze(1), None if mask is None else mask.unsqueeze(1)
    if not 0 < pixels.shape[1] <= MAX_DATES:
        raise InputError(f"{name} has {pixels.shape[1]} dates; 1 to {MAX_DATES} are taken: choose or average some.")
    return Sensor(name, bands, pixels, mask)


def check_months(month: Tensor | None, batch: int, dates: int, device: torch.device, *, default: int) -> Tensor:
    """(B, T) months counted from 0; `default` where none is given."""
    if month is None:
        return torch.full((batch, dates), default, device=device)
    if month.ndim == 1 and dates == 1:
        month = month.unsqueeze(1)
    if tuple(month.shape) != (batch, dates) or month.is_floating_point():
        raise InputError(
            f"month is {month.dtype} {tuple(month.shape)}; {batch} samples of {dates} dates have one whole number each."
        )
    # A compiled model cannot branch on values; on a GPU looking at them means waiting, unless they are not there yet.
    if not torch.compiler.is_compiling() and bool(((month < 0) | (month > 11)).any()):
        raise InputError("month counts from 0 (January) to 11 (December); subtract 1 from calendar months.")
    return month.to(device).long()


def month_table(width: int) -> Tensor:
    """(12, width): the months on a circle, repeated to fill the width.

    >>> month_table(4)[0].tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    angle = torch.arange(12) * (2 * torch.pi / 12)
    return torch.cat([angle.sin()[:, None].expand(-1, width // 2), angle.cos()[:, None].expand(-1, width // 2)], dim=1)
