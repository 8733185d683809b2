"""What the engine is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from odc.geo.geobox import GeoBox

from deepsentinel.errors import InputError
from deepsentinel.sources.addresses import shown

from .warp import REACH_PX


@dataclass(frozen=True)
class Want:
    """One band of one file, wanted on one grid.

    >>> from odc.geo.geobox import GeoBox
    >>> grid = GeoBox.from_bbox((500_000, 5_400_000, 502_560, 5_402_560), "EPSG:32631", resolution=10)
    >>> Want("scene/B05.tif", grid).resampling
    'nearest'
    """

    href: str
    """A path, an http(s) link (signed if need be), or anything GDAL opens."""
    grid: GeoBox
    """Where the pixels are wanted."""
    band: int = 1
    """Counted from 1."""
    resampling: str = "nearest"
    """nearest, bilinear, cubic or average; used where the grid's pixels are not the file's. Only `average` may start
    from the file's overviews, and does so when an overview is still at least twice as fine as the grid."""
    nodata: float | None = None
    """What marks a missing pixel; None: what the file says, else NaN for floats and 0 for integers. Pixels outside the
    file get it too."""
    domain: Literal["linear", "db"] | None = None
    """For radar: `linear` keeps interpolated power above zero, `db` (decibels in the file) also averages as power."""
    fill: float | None = None
    """What missing pixels come as, where the file's type can hold it; None: as their nodata value. So a caller need not
    know what the file says is missing; and where it says nothing either, this marks it."""

    def __post_init__(self) -> None:
        if self.resampling not in REACH_PX:
            raise InputError(
                f"resampling={self.resampling!r} for {shown(self.href)}: use one of {', '.join(REACH_PX)}."
            )
        if self.domain not in (None, "linear", "db"):
            raise InputError(f"domain={self.domain!r} for {shown(self.href)}: use 'linear', 'db' or None.")
        if self.band < 1:
            raise InputError(f"band={self.band} for {shown(self.href)}: bands are counted from 1.")
