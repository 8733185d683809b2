"""What an encoder declares about itself: nothing here needs torch, so that the table of encoders can always be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from deepsentinel.errors import InputError

MODES = ("s1", "s2", "both")
NO_OPTIONS: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True)
class Scaling:
    """How the authors scaled one sensor's bands: (x - offset) / scale, then clipped, one number a band.

    >>> Scaling(offset=(-25.0,), scale=(25.0,), text="(x + 25) / 25").scale
    (25.0,)
    """

    offset: tuple[float, ...]
    """What is subtracted from each band."""
    scale: tuple[float, ...]
    """What each band is divided by then."""
    text: str
    """The same in words, for the table."""
    low: tuple[float, ...] | None = None
    """Where the result is clipped from below, one number a band; None: nowhere."""
    high: tuple[float, ...] | None = None
    """Where it is clipped from above."""
    amplitude: float | None = None
    """Only for S1: dB become amplitude first, this number x 10^(dB / 20), as in files that were never calibrated."""

    @classmethod
    def divide(cls, by: float, bands: int, *, clip: bool = False) -> Scaling:
        """The same divisor for every band; `clip` to 0..1.

        >>> Scaling.divide(10_000, 2).scale
        (10000, 10000)
        """
        return cls._clipped((0.0,) * bands, (by,) * bands, f"x / {by:g}", clip)

    @classmethod
    def _clipped(cls, offset: tuple[float, ...], scale: tuple[float, ...], text: str, clip: bool) -> Scaling:
        if not clip:
            return cls(offset=offset, scale=scale, text=text)
        ends = ((0.0,) * len(offset), (1.0,) * len(offset))
        return cls(offset=offset, scale=scale, text=f"{text}, clipped to 0..1", low=ends[0], high=ends[1])

    @classmethod
    def z_score(cls, mean: tuple[float, ...], std: tuple[float, ...], *, limit: float | None = None) -> Scaling:
        """(x - mean) / std, clipped to -limit..limit where there is a limit.

        >>> Scaling.z_score((1.0,), (2.0,)).text
        '(x - mean) / std'
        """
        if limit is None:
            return cls(offset=mean, scale=std, text="(x - mean) / std")
        ends = (-limit,) * len(mean), (limit,) * len(mean)
        text = f"(x - mean) / std, clipped to ±{limit:g}"
        return cls(offset=mean, scale=std, text=text, low=ends[0], high=ends[1])

    @classmethod
    def two_sigma(cls, mean: tuple[float, ...], std: tuple[float, ...], *, clip: bool = False) -> Scaling:
        """(x - (mean - 2 std)) / (4 std): two standard deviations either side become 0..1.

        >>> Scaling.two_sigma((10.0,), (2.0,)).offset
        (6.0,)
        """
        offset = tuple(m - 2 * s for m, s in zip(mean, std, strict=True))
        return cls._clipped(offset, tuple(4 * s for s in std), "(x - (mean - 2 std)) / (4 std)", clip)


@dataclass(frozen=True)
class EncoderSpec:
    """What one encoder takes, gives and costs. Bands are named and ordered; units are those of a Patch throughout.

    The caller hands S1 in dB and S2 in reflectance x 10000; every scaling the authors used happens inside the encoder.
    """

    name: str
    """What `load_encoder` knows it by."""
    family: str
    """Who belongs together: galileo, ssl4eo, croma, baseline."""
    modes: tuple[str, ...]
    """Which inputs it takes, of "s1", "s2" and "both"."""
    s1_bands: tuple[str, ...]
    """Sentinel-1 channels, in the order it takes them."""
    s2_bands: tuple[str, ...]
    """Sentinel-2 channels, in the order it takes them."""
    level: Literal["L1C", "L2A", "any"]
    """The reflectance it was trained on: top of atmosphere or surface."""
    backscatter: Literal["sigma0", "gamma0_rtc", "any"]
    """The backscatter it was trained on."""
    s1_scaling: Scaling | None
    """What it does to Sentinel-1 dB."""
    s2_scaling: Scaling | None
    """What it does to Sentinel-2 reflectance x 10000."""
    size_px: int | None
    """The input size it was trained at; None: none in particular."""
    any_size: bool
    """Whether other sizes (any multiple of the patch) are taken too."""
    patch_px: int
    """Side of one cell of its dense output, as trained."""
    patch_sizes: tuple[int, ...]
    """All the sides of a cell that `patch_px=` may ask for."""
    width: int
    """Length of the vector it returns."""
    parameters: int
    """How many parameters it has, both sensors together."""
    license: str
    """Of the weights; "" where there are none."""
    source: str
    """Where the authors say what it is."""
    builder: str
    """ "module:function" inside this package; the function takes the spec and gives the untrained encoder."""
    url: str = ""
    """Where the weights are fetched from; "" where there are none to fetch."""
    shipped: bool = False
    """Whether the weights come with this package, so that nothing is fetched."""
    file: str = ""
    """What the weights are called, in the cache or in this package."""
    sha256: str = ""
    """Their checksum, or its first digits where that is all the publisher gives; "" where unpublished."""
    dense: bool = True
    """Whether it gives a vector for each cell too."""
    can_mask: bool = False
    """Whether single pixels, bands and dates can be left out; elsewhere a masked pixel is given the authors' mean."""
    any_bands: bool = False
    """Whether bands may be missing altogether."""
    series: bool = False
    """Whether it takes several dates at once."""
    square_only: bool = False
    """Whether windows must be square."""
    needs: tuple[str, ...] = ()
    """What to install beside torch."""
    options: Mapping[str, object] = field(default_factory=lambda: NO_OPTIONS, hash=False)
    """What its builder wants to know besides."""

    @property
    def sensors(self) -> tuple[str, ...]:
        """ "S1", "S2", as far as it takes them.

        >>> from deepsentinel.encoders.registry import find
        >>> find("galileo-nano").sensors
        ('S1', 'S2')
        """
        return (("S1",) if self.s1_bands else ()) + (("S2",) if self.s2_bands else ())

    def __post_init__(self) -> None:
        for bands, scaling in ((self.s1_bands, self.s1_scaling), (self.s2_bands, self.s2_scaling)):
            if scaling is not None and not len(bands) == len(scaling.offset) == len(scaling.scale):
                raise InputError(f"{self.name}: {len(bands)} bands, but scaled by {len(scaling.offset)} numbers.")
        if not set(self.modes) <= set(MODES) or not self.modes:
            raise InputError(f"{self.name}: modes={self.modes}: some of {MODES} are meant.")
        if self.patch_px not in self.patch_sizes:
            raise InputError(f"{self.name}: patch_px={self.patch_px} is not among patch_sizes={self.patch_sizes}.")
