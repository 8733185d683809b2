"""Stored numbers of a Sentinel-1 GRD product -> sigma0, with its thermal noise taken out: all from its own XML.

    sigma0 = (DN**2 - noise) / A**2

A is given every forty pixels of every thousandth second or so of the flight, and is interpolated between, both ways.
The noise is the product of two factors: one across the swath, given likewise, and (products since March 2018) one along
the flight, given for each burst of each sub-swath, which takes out the scallops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from deepsentinel.errors import ReadError

from .files import number, numbers

Floats = NDArray[np.float64]
EVERYWHERE = 10**9


@dataclass(frozen=True, eq=False)
class Lut:
    """A quantity given along some lines, for every pixel of them; between the lines it changes in proportion."""

    lines: Floats
    values: Floats
    """Lines by all pixels of the image."""

    @classmethod
    def of(cls, vectors: Sequence[Element], values: str, pixels: int, where: str) -> Lut:
        """From the vectors of an annotation, each with its own pixel positions."""
        try:
            lines = np.array([float(str(vector.findtext("line"))) for vector in vectors])
            columns = np.arange(pixels, dtype=float)
            rows = [np.interp(columns, _list(vector, "pixel"), _list(vector, values)) for vector in vectors]
        except ValueError as error:
            raise ReadError(f"{where} is not whole ({error}). Download the product again.") from error
        if not rows:
            raise ReadError(f"{where} has no {values}. Download the product again.")
        order = np.argsort(lines, kind="stable")
        return cls(lines[order], np.stack(rows)[order])

    def window(self, rows: slice, cols: slice) -> Floats:
        """The quantity in a window of the image."""
        at = np.arange(rows.start, rows.stop, dtype=float)
        after = np.clip(np.searchsorted(self.lines, at, side="right"), 1, max(1, len(self.lines) - 1))
        if len(self.lines) == 1:
            return np.repeat(self.values[:, cols], len(at), axis=0)
        first, last = self.lines[after - 1], self.lines[after]
        share = np.clip((at - first) / (last - first), 0, 1)[:, None]
        return np.asarray((1 - share) * self.values[after - 1, cols] + share * self.values[after, cols])


def noise_is_gone(annotation: Element) -> bool:
    """Whether a product came with its thermal noise taken out already."""
    return (annotation.findtext(".//thermalNoiseCorrectionPerformed") or "").strip().lower() == "true"


def _list(vector: Element, name: str) -> Floats:
    values = np.array(numbers(vector.findtext(name)))
    if not len(values):
        raise ValueError(f"no {name} in a vector")
    return values


@dataclass(frozen=True, eq=False)
class Stretch:
    """The noise along the flight, in one rectangle of the image."""

    first_line: int
    last_line: int
    first_pixel: int
    last_pixel: int
    lines: Floats
    factors: Floats


@dataclass(frozen=True, eq=False)
class Calibration:
    """Everything between the numbers of one channel and its sigma0."""

    gain: Lut
    """A."""
    noise: Lut | None
    """Across the swath, in the units of DN**2; None where the product had its noise taken out already."""
    stretches: tuple[Stretch, ...] = ()

    @classmethod
    def of(
        cls, annotation: Element, calibration: Element, noise: Element | None, pixels: int, where: str
    ) -> Calibration:
        """From the three files of one channel."""
        gain = Lut.of(list(calibration.iter("calibrationVector")), "sigmaNought", pixels, f"{where}: its calibration")
        if float(gain.values.min()) <= 0:
            raise ReadError(f"{where}: its calibration has factors that are not positive. Download the product again.")
        if noise is None or noise_is_gone(annotation):
            return cls(gain, None)
        # Until 2018 there was one list, and it had no word for the direction.
        vectors, values = list(noise.iter("noiseRangeVector")), "noiseRangeLut"
        if not vectors:
            vectors, values = list(noise.iter("noiseVector")), "noiseLut"
        table = Lut.of(vectors, values, pixels, f"{where}: its noise")
        return cls(gain, table, tuple(_stretch(vector) for vector in noise.iter("noiseAzimuthVector")))

    def noise_window(self, rows: slice, cols: slice) -> Floats:
        """The noise in a window of the image, in the units of DN**2."""
        assert self.noise is not None
        out = self.noise.window(rows, cols)
        for part in self.stretches:
            top, bottom = max(rows.start, part.first_line), min(rows.stop, part.last_line + 1)
            left, right = max(cols.start, part.first_pixel), min(cols.stop, part.last_pixel + 1)
            if top < bottom and left < right:
                factors = np.interp(np.arange(top, bottom), part.lines, part.factors)
                out[top - rows.start : bottom - rows.start, left - cols.start : right - cols.start] *= factors[:, None]
        return out

    def sigma0(self, dn: NDArray[np.generic], rows: slice, cols: slice) -> Floats:
        """Linear sigma0 of a window of stored numbers, with its noise gone; NaN where there is nothing.

        Where a pixel happens to lie below the mean noise it is negative: only averages are free of noise, and cutting
        here would lift them.
        """
        power = dn.astype(float) ** 2
        missing = dn == 0
        if self.noise is not None:
            power -= self.noise_window(rows, cols)
        power /= self.gain.window(rows, cols) ** 2
        power[missing] = np.nan
        return power


def _stretch(vector: Element) -> Stretch:
    # The oldest of these have no bounds: they hold for the whole image.
    def bound(name: str, default: int) -> int:
        known = number(vector, name)
        return default if known is None else int(known)

    return Stretch(
        bound("firstAzimuthLine", 0),
        bound("lastAzimuthLine", EVERYWHERE),
        bound("firstRangeSample", 0),
        bound("lastRangeSample", EVERYWHERE),
        _list(vector, "line"),
        _list(vector, "noiseAzimuthLut"),
    )
