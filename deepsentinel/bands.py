"""What the Sentinels measure, and the Patch contract: the rules that every pixel in this package obeys.

A *Patch* is an `xr.Dataset` on one north-up grid, dims `(y, x)`; a *Series* is the same with `s1_time` and `s2_time` as
further dims. Bands go by name and each name fixes type, unit and "no data":

========================  ========  =======================================  ========
names                     dtype     unit                                     no data
========================  ========  =======================================  ========
B01 .. B12, B8A           uint16    reflectance x 10000, offset removed      0
VV, VH, HH, HV            float32   backscatter in dB                        NaN
SCL                       uint8     scene classification, codes 0 to 11      0
angle                     float32   incidence angle (ellipsoid) in degrees   NaN
========================  ========  =======================================  ========

Anything else on the same grid (masks, class maps) may ride along. `contract.check_patch` names the first broken rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from .errors import PatchError

if TYPE_CHECKING:
    from collections.abc import Mapping

REFLECTANCE_SCALE = 10_000
S2_NODATA = 0
LEVELS = ("L1C", "L2A")
BACKSCATTERS = ("sigma0", "gamma0_rtc")


@dataclass(frozen=True)
class Band:
    """One measured band of one sensor.

    >>> S2_BANDS["B08"].resolution_m
    10
    """

    name: str
    """The name used everywhere in this package: B02, VV."""
    sensor: Literal["S1", "S2"]
    """Which Sentinel measures it."""
    resolution_m: int
    """The pixel size of the files it is delivered in."""
    dtype: str
    """The numpy type in a Patch."""
    units: str
    """The unit in a Patch, in words."""
    description: str
    """What it is, in words a newcomer understands."""
    common_name: str | None = None
    """The STAC `eo:bands` common name, where one exists."""
    centre_nm: float | None = None
    """Nominal centre wavelength; None for radar."""
    width_nm: float | None = None
    """Nominal bandwidth; None for radar."""
    platforms: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    """Centre and width in nm as each satellite really has them; the width of S2C is unpublished here (None)."""

    def centre_on(self, platform: str) -> float:
        """Centre wavelength in nm on one satellite, e.g. "S2B" or "sentinel-2b".

        >>> S2_BANDS["B12"].centre_on("sentinel-2b")
        2185.7
        """
        key = "S2" + platform.strip()[-1:].upper()
        if key not in self.platforms:
            known = ", ".join(self.platforms) or "none: it is a radar band"
            raise PatchError(f"{self.name} has no wavelength for platform {platform!r}; known: {known}.")
        return self.platforms[key][0]


def _optical(
    name: str,
    resolution_m: int,
    nominal: tuple[float, float],
    s2a: tuple[float, float],
    s2b: tuple[float, float],
    s2c: float | None,
    common_name: str,
    description: str,
) -> Band:
    platforms: dict[str, tuple[float, float | None]] = {"S2A": s2a, "S2B": s2b}
    if s2c is not None:
        platforms["S2C"] = (s2c, None)
    return Band(
        name=name,
        sensor="S2",
        resolution_m=resolution_m,
        dtype="uint16",
        units="reflectance x 10000",
        description=description,
        common_name=common_name,
        centre_nm=nominal[0],
        width_nm=nominal[1],
        platforms=MappingProxyType(platforms),
    )


# Centres from the product metadata, widths from ESA's spectral response tables. The satellites differ most where it is
# easy to forget: B12 lies 17 nm lower on S2B, B07 3 nm.
S2_BANDS: Mapping[str, Band] = MappingProxyType(
    {
        band.name: band
        for band in (
            _optical("B01", 60, (443, 20), (442.7, 21), (442.3, 21), 444, "coastal", "coastal aerosol"),
            _optical("B02", 10, (490, 65), (492.7, 66), (492.3, 66), 489, "blue", "blue"),
            _optical("B03", 10, (560, 35), (559.8, 36), (559.0, 36), 561, "green", "green"),
            _optical("B04", 10, (665, 30), (664.6, 31), (665.0, 31), 667, "red", "red"),
            _optical("B05", 20, (705, 15), (704.1, 15), (703.8, 16), 707, "rededge071", "red edge 1"),
            _optical("B06", 20, (740, 15), (740.5, 15), (739.1, 15), 741, "rededge075", "red edge 2"),
            _optical("B07", 20, (783, 20), (782.8, 20), (779.7, 20), 785, "rededge078", "red edge 3"),
            _optical("B08", 10, (842, 115), (832.8, 106), (833.0, 106), 835, "nir", "near infrared, wide"),
            _optical("B8A", 20, (865, 20), (864.7, 21), (864.0, 22), 866, "nir08", "near infrared, narrow"),
            _optical("B09", 60, (945, 20), (945.1, 20), (943.2, 21), None, "nir09", "water vapour"),
            _optical("B10", 60, (1375, 30), (1373.5, 31), (1376.9, 30), None, "cirrus", "cirrus, level 1C only"),
            _optical("B11", 20, (1610, 90), (1613.7, 91), (1610.4, 94), 1612, "swir16", "short-wave infrared 1"),
            _optical("B12", 20, (2190, 180), (2202.4, 175), (2185.7, 185), 2191, "swir22", "short-wave infrared 2"),
        )
    }
)
S2_L1C_BANDS: tuple[str, ...] = tuple(S2_BANDS)
S2_L2A_BANDS: tuple[str, ...] = tuple(name for name in S2_BANDS if name != "B10")


def _radar(name: str, description: str) -> Band:
    return Band(name=name, sensor="S1", resolution_m=10, dtype="float32", units="dB", description=description)


S1_BANDS: Mapping[str, Band] = MappingProxyType(
    {
        band.name: band
        for band in (
            _radar("VV", "sent vertical, received vertical"),
            _radar("VH", "sent vertical, received horizontal"),
            _radar("HH", "sent horizontal, received horizontal"),
            _radar("HV", "sent horizontal, received vertical"),
        )
    }
)
RADAR_FREQUENCY_GHZ = 5.405

SCL_CLASSES: Mapping[int, str] = MappingProxyType(
    {
        0: "no data",
        1: "saturated or defective",
        2: "dark area",
        3: "cloud shadow",
        4: "vegetation",
        5: "not vegetated",
        6: "water",
        7: "unclassified",
        8: "cloud, medium probability",
        9: "cloud, high probability",
        10: "thin cirrus",
        11: "snow or ice",
    }
)
# Neither the ground nor trustworthy: what is masked out when somebody asks for clear pixels.
SCL_CLOUDY: tuple[int, ...] = (3, 8, 9, 10)

# dtype of every name that has a meaning; anything else is a passenger and may be of any type.
DTYPES: Mapping[str, str] = MappingProxyType(
    {
        **{name: band.dtype for name, band in S2_BANDS.items()},
        **{name: band.dtype for name, band in S1_BANDS.items()},
        "SCL": "uint8",
        "angle": "float32",
    }
)
# Outside these no calibrated scene lies: thermal noise ends near -50 dB, the brightest targets near +50 dB.
DB_RANGE = (-80.0, 60.0)


def sensor_of(name: str) -> Literal["S1", "S2"] | None:
    """Which sensor a variable of a Patch comes from; None for passengers such as masks.

    >>> sensor_of("VV"), sensor_of("SCL"), sensor_of("class_map")
    ('S1', 'S2', None)
    """
    if name in S2_BANDS or name == "SCL":
        return "S2"
    if name in S1_BANDS or name == "angle":
        return "S1"
    return None
