"""The one shape of every encoder: tensors of named bands in, tokens out, units checked on the way in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from deepsentinel.errors import InputError, SourceError, warn

from .spec import EncoderSpec, Scaling

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# Backscatter over real land is below 0 dB nearly everywhere; linear power is positive everywhere.
POSITIVE_SHARE = 0.9
LINEAR_BELOW = 5.0
# Noise is never exactly 0 dB; where more than this is, 0 stands for no data.
ZERO_SHARE = 0.01
# dB below this is no backscatter but dB times some factor: the noise floor of Sentinel-1 is near -30.
FAINTEST_DB = -100.0
# A Patch clips valid reflectance at 1, so that nothing lies between 0 and 1; a little below 0 may come of resampling.
NEGATIVE_SHARE = 0.01
BRIGHTEST_UNIT = 2.0
# Of several bands one is brighter than this nearly everywhere; as a percentage hardly anything is.
BRIGHTEST_PERCENT, SEVERAL = 100.0, 3
NAMES_SHOWN = 3


@dataclass
class Tokens:
    """What an encoder gives for a batch."""

    pooled: Tensor
    """(B, D): one vector a window."""
    dense: Tensor | None
    """(B, h, w, D): one vector a cell, north up as the input; None where the encoder has no cells."""


class Encoder(nn.Module, ABC):
    """An encoder under the common interface. Subclasses write `forward`; scaling happens inside, once."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec

    @abstractmethod
    def forward(
        self,
        s1: Tensor | None = None,
        s2: Tensor | None = None,
        *,
        s1_mask: Tensor | None = None,
        s2_mask: Tensor | None = None,
        month: Tensor | None = None,
        latlon: Tensor | None = None,
        missing: Collection[str] = (),
        patch_px: int | None = None,
        resolution_m: float = 10.0,
    ) -> Tokens:
        """Encode a batch; at least one sensor is there, and both only where `spec.modes` says "both".

        s1: (B, 2, H, W) float32 dB; s2: (B, C, H, W) float32 reflectance x 10000; channels as in `spec.s1_bands` and
        `spec.s2_bands`. Encoders with `spec.series` also take (B, T, C, H, W), where T is the same for both sensors.
        s1_mask, s2_mask: (B, H, W) or (B, T, H, W) bool, True = usable; values under False are never looked at (they
        may be NaN). month: (B,) or (B, T) int64, 0 = January. latlon: (B, 2) degrees. missing: names of bands whose
        channels hold nothing. patch_px: one of `spec.patch_sizes`. What an encoder has no use for, it ignores.
        """

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Take the authors' checkpoint; every name and shape must fit."""
        load_strictly(self, state)


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, optional: Collection[str] = ()) -> None:
    """Load a checkpoint of which every name and shape fits; `optional` names may be missing. Otherwise nothing is kept.

    >>> load_strictly(nn.Linear(2, 1), {"weight": torch.zeros(1, 2)})
    Traceback (most recent call last):
    deepsentinel.errors.SourceError: The checkpoint does not fit: missing bias.
    """
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in state and name not in optional]
    unknown = [name for name in state if name not in wanted]
    shapes = [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    both = [name for name in wanted if name in state]
    kinds = [
        f"{name} is {str(state[name].dtype).removeprefix('torch.')}"
        for name in both
        if state[name].is_floating_point() != wanted[name].is_floating_point()
    ]
    broken = [name for name in both if state[name].is_floating_point() and not bool(state[name].isfinite().all())]
    troubles = []
    for what, names in (
        ("missing", missing),
        ("not known", unknown),
        ("of another shape:", shapes),
        ("of another type:", kinds),
        ("NaN or infinite:", broken),
    ):
        if names:
            more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
            troubles.append(f"{what} {', '.join(names[:NAMES_SHOWN])}{more}")
    if troubles:
        raise SourceError(f"The checkpoint does not fit: {'; '.join(troubles)}.")
    module.load_state_dict(dict(state), strict=False)


class Scaler(nn.Module):
    """The authors' scaling as a layer; its numbers move with the model but are not weights."""

    offset: Tensor
    scale: Tensor
    low: Tensor | None
    high: Tensor | None
    middle: Tensor

    def __init__(self, scaling: Scaling) -> None:
        super().__init__()
        self.amplitude = scaling.amplitude
        # What stands for a window of which nothing is known: the middle of 0..1, or the mean of a z-score.
        middle = (0.0,) * len(scaling.offset)
        if scaling.low is not None and scaling.high is not None:
            middle = tuple((low + high) / 2 for low, high in zip(scaling.low, scaling.high, strict=True))
        buffers = {"offset": scaling.offset, "scale": scaling.scale, "low": scaling.low, "high": scaling.high}
        for name, values in {**buffers, "middle": middle}.items():
            column = None if values is None else torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, column, persistent=False)

    def forward(self, pixels: Tensor, usable: Tensor | None = None, bands: Sequence[int] | None = None) -> Tensor:
        """(..., C, H, W) in our units -> scaled; pixels that are not usable (..., H, W) become the window's mean.

        The mean is of the window's own usable pixels, so that a mask draws no edges that are not there. `bands`: the
        positions of the channels that `pixels` holds, where that is not all of them.
        """
        chosen = slice(None) if bands is None else list(bands)
        values = pixels if self.amplitude is None else self.amplitude * torch.pow(10.0, pixels / 20)
        values = (values - self.offset[chosen]) / self.scale[chosen]
        if self.low is not None:
            values = torch.maximum(values, self.low[chosen])
        if self.high is not None:
            values = torch.minimum(values, self.high[chosen])
        if usable is None:
            return values
        keep = usable.unsqueeze(-3)
        values = torch.where(keep, values, 0.0)
        count = keep.sum(dim=(-2, -1), keepdim=True)
        mean = values.sum(dim=(-2, -1), keepdim=True) / count.clamp(min=1)
        return torch.where(keep, values, torch.where(count > 0, mean, self.middle[chosen]))


def check_mode(spec: EncoderSpec, s1: Tensor | None, s2: Tensor | None) -> str:
    """Which of the spec's modes a call asks for; channel counts that do not fit are refused.

    >>> from deepsentinel.encoders.registry import find
    >>> check_mode(find("galileo-nano"), torch.zeros(1, 2, 8, 8), None)
    's1'
    """
    mode = "both" if s1 is not None and s2 is not None else "s1" if s1 is not None else "s2"
    if (s1 is None and s2 is None) or mode not in spec.modes:
        raise InputError(
            f"{spec.name} takes {' or '.join(spec.modes)}; it was given {mode if s1 is not s2 else 'nothing'}."
        )
    for pixels, bands in ((s1, spec.s1_bands), (s2, spec.s2_bands)):
        if pixels is None:
            continue
        if pixels.ndim not in ((4, 5) if spec.series else (4,)) or pixels.shape[-3] != len(bands):
            wanted = "(B, C, H, W) or (B, T, C, H, W)" if spec.series else "(B, C, H, W)"
            raise InputError(
                f"{spec.name} takes {wanted} with the {len(bands)} channels {' '.join(bands)}; it was given "
                f"{tuple(pixels.shape)}."
            )
    return mode


def stack_bands(
    spec: EncoderSpec, bands: Mapping[str, Tensor], *, sensors: Collection[str] = ("S1", "S2")
) -> tuple[Tensor | None, Tensor | None, tuple[str, ...]]:
    """Bands by name, (B, H, W) or (B, T, H, W) each, in the encoder's order; and the names of those it goes without.

    Bands it has no use for are left out. A sensor of which no band is there is None; one that lacks some is refused,
    unless the encoder can do without them: their channels are then zero and their names returned, for `missing=`.

    >>> from deepsentinel.encoders.registry import find
    >>> s1, s2, missing = stack_bands(find("galileo-nano"), {"VH": torch.zeros(1, 8, 8), "VV": torch.ones(1, 8, 8)})
    >>> s1[0, :, 0, 0].tolist(), s2, missing
    ([1.0, 0.0], None, ())
    """
    stacked: list[Tensor | None] = []
    missing: list[str] = []
    for sensor, names in (("S1", spec.s1_bands), ("S2", spec.s2_bands)):
        here = [name for name in names if name in bands]
        if sensor not in sensors or not here:
            stacked.append(None)
            continue
        gone = [name for name in names if name not in bands]
        if gone and not spec.any_bands:
            raise InputError(f"{spec.name} needs {' '.join(names)} of {sensor}; {' '.join(gone)} is missing.")
        empty = torch.zeros_like(bands[here[0]]) if gone else None
        stacked.append(torch.stack([cast(Tensor, bands.get(name, empty)) for name in names], dim=-3))
        missing += gone
    return stacked[0], stacked[1], tuple(missing)


def check_size(spec: EncoderSpec, pixels: Tensor, patch_px: int | None = None) -> tuple[int, int, int]:
    """The patch asked for, and the rows and columns of cells that it gives; sizes that do not divide are refused.

    >>> from deepsentinel.encoders.registry import find
    >>> check_size(find("galileo-nano"), torch.zeros(1, 2, 16, 24), 4)
    (4, 4, 6)
    """
    patch = spec.patch_px if patch_px is None else patch_px
    height, width = pixels.shape[-2:]
    if patch not in spec.patch_sizes:
        sizes = ", ".join(map(str, spec.patch_sizes))
        raise InputError(f"{spec.name} has patches of {sizes} px, not of {patch_px}.")
    if not spec.any_size and (height, width) != (spec.size_px, spec.size_px):
        raise InputError(f"{spec.name} takes windows of {spec.size_px} px, not of {height} x {width}.")
    if spec.square_only and height != width:
        raise InputError(f"{spec.name} takes square windows; {height} x {width} is none.")
    if height % patch or width % patch or not height or not width:
        raise InputError(f"{spec.name} takes sizes that {patch} px divide; {height} x {width} is not.")
    return patch, height // patch, width // patch


def check_inputs(spec: EncoderSpec, s1: ArrayLike | None, s2: ArrayLike | None) -> None:
    """Refuse values that cannot be in the units of a Patch; channels first or (C, H, W) behind any other axes.

    >>> from deepsentinel.encoders.registry import find
    >>> check_inputs(find("galileo-nano"), np.full((2, 8, 8), -12.0), None)
    >>> check_inputs(find("galileo-nano"), np.full((2, 8, 8), 0.06), None)
    Traceback (most recent call last):
    deepsentinel.errors.InputError: VV looks like linear power (median 0.06), galileo-nano takes dB: 10 * log10(x).
    """
    if s1 is not None:
        for name, values in _bands(spec.name, spec.s1_bands, s1):
            _check_db(spec.name, name, values[np.isfinite(values) & (values != 0)])
        check_zeros(spec, s1)
    if s2 is not None:
        held = [(name, v[np.isfinite(v) & (v != 0)]) for name, v in _bands(spec.name, spec.s2_bands, s2)]
        for name, values in held:
            _check_reflectance(spec.name, name, values)
        _check_percent(spec.name, {name: values for name, values in held if values.size})


def check_zeros(spec: EncoderSpec, s1: ArrayLike, missing: Collection[str] = ()) -> None:
    """Refuse backscatter whose 0 stands for no data, which would be taken for very bright ground.

    >>> from deepsentinel.encoders.registry import find
    >>> check_zeros(find("galileo-nano"), np.full((2, 8, 8), -12.0))
    """
    for name, values in _bands(spec.name, spec.s1_bands, s1):
        known = np.isfinite(values)
        share = float((values == 0).sum() / max(1, known.sum()))
        if share > ZERO_SHARE and name not in missing:
            raise InputError(
                f"{name} is exactly 0 in {100 * share:.0f} % of the pixels; no data is NaN in a patch: "
                f"patch['{name}'] = patch['{name}'].where(patch['{name}'] != 0)."
            )


def _bands(encoder: str, names: tuple[str, ...], pixels: ArrayLike) -> list[tuple[str, np.ndarray]]:
    array = pixels.detach().cpu().numpy() if isinstance(pixels, Tensor) else np.asarray(pixels)
    if array.ndim < 3 or array.shape[-3] != len(names):
        raise InputError(f"{encoder} takes the {len(names)} channels {' '.join(names)}, not {array.shape}.")
    return [(name, array[..., position, :, :].ravel()) for position, name in enumerate(names)]


def _check_db(encoder: str, band: str, values: np.ndarray) -> None:
    if not values.size:
        return
    median = float(np.median(values))
    if median < FAINTEST_DB:
        raise InputError(f"{band} has a median of {median:.4g}: that is dB times some factor, {encoder} takes dB.")
    if np.mean(values > 0) <= POSITIVE_SHARE:
        return
    if median < LINEAR_BELOW:
        raise InputError(f"{band} looks like linear power (median {median:.3g}), {encoder} takes dB: 10 * log10(x).")
    raise InputError(
        f"{band} looks like digital numbers (median {median:.4g}), {encoder} takes calibrated backscatter in dB."
    )


def _check_reflectance(encoder: str, band: str, values: np.ndarray) -> None:
    if not values.size:
        return
    if np.mean(values < 0) > NEGATIVE_SHARE:
        raise InputError(f"{band} has negative values, as if already scaled; {encoder} takes reflectance x 10000.")
    # Deep water is clipped at exactly 1 in a Patch, so only fractions tell 0..1 from a very dark band.
    fractions = bool(np.any(values != np.round(values)))
    if fractions and (np.median(values) < 1 or values.max() <= BRIGHTEST_UNIT):
        raise InputError(
            f"{band} looks like reflectance of 0..1 (median {np.median(values):.3g}), {encoder} takes reflectance x "
            "10000: multiply by 10000."
        )


def _check_percent(encoder: str, bands: Mapping[str, np.ndarray]) -> None:
    if len(bands) < SEVERAL or not any(np.any(values != np.round(values)) for values in bands.values()):
        return
    brightest = max(float(np.percentile(values, 98)) for values in bands.values())
    if brightest < BRIGHTEST_PERCENT:
        raise InputError(
            f"No band is brighter than {brightest:.3g}, which looks like reflectance in percent; {encoder} takes "
            "reflectance x 10000: multiply by 100."
        )


def warn_missing(spec: EncoderSpec, missing: Collection[str]) -> None:
    """Warn where an encoder goes without some of its bands, which its vectors do not tell.

    >>> from deepsentinel.encoders.registry import find
    >>> warn_missing(find("galileo-nano"), ())
    """
    if missing:
        warn(
            f"{spec.name} also takes {', '.join(missing)}, which the patch lacks and which count as not seen. Compare "
            "its vectors with those of patches that lack the same, or read all bands."
        )


def warn_mismatch(spec: EncoderSpec, attrs: Mapping[str, Any], *, sensors: Collection[str] = ("S1", "S2")) -> None:
    """Warn where a patch's `level` or `backscatter` is not what the encoder was trained on; silent where unknown.

    >>> from deepsentinel.encoders.registry import find
    >>> warn_mismatch(find("galileo-nano"), {"level": "L1C"})
    """
    for key, sensor, wanted, effect in (
        ("level", "S2", spec.level, "atmosphere included or removed changes every band, the blue ones most"),
        ("backscatter", "S1", spec.backscatter, "slopes look different"),
    ):
        found = attrs.get(key)
        if sensor in spec.sensors and sensor in sensors and found and wanted != "any" and found != wanted:
            warn(
                f"{spec.name} was trained on {key} {wanted}, this is {found}: {effect}. Its vectors are comparable "
                f"among patches of the same {key}, less so with those of others."
            )
