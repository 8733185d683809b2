"""What every source has in common: one protocol, and what stands in for a patch that could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, runtime_checkable

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr
    from odc.geo.geobox import GeoBox

Sensor = Literal["S1", "S2"]
When = str | date | None
OnError = Literal["record", "skip", "raise"]


@runtime_checkable
class Source(Protocol):
    """Scenes can be searched and pixels read. Every ``open_source(...)`` returns one of these."""

    name: str

    def search(
        self,
        aoi: Any,
        start: When = None,
        end: When = None,
        *,
        sensors: Sequence[str] = ("S1", "S2"),
        max_cloud: float | None = None,
    ) -> gpd.GeoDataFrame:
        """Scenes over an area between two dates, as the *scenes* table."""
        ...

    def read(
        self,
        what: pd.Series | Mapping[str, Any] | pd.DataFrame,
        grid: GeoBox,
        *,
        bands: Sequence[str] | None = None,
        resampling: str | Mapping[str, str] | None = None,
    ) -> xr.Dataset:
        """A row of pairs or scenes -> Patch; a table of them -> Series."""
        ...

    def read_many(
        self,
        table: pd.DataFrame | pd.Series,
        grids: GeoBox | Sequence[GeoBox],
        *,
        bands: Sequence[str] | None = None,
        resampling: str | Mapping[str, str] | None = None,
        on_error: OnError = "record",
        threads: int | None = None,
    ) -> Iterator[xr.Dataset | Failure]:
        """Loaded patches in order, grouped by file underneath."""
        ...


@dataclass(frozen=True, eq=False)
class Failure:
    """Stands where a patch would have stood.

    It is false, so ``if not patch`` finds it; used as a patch it raises its error.

    >>> from deepsentinel.errors import ReadError
    >>> failure = Failure(position=3, s1_id="S1A_x", s2_id="S2A_y", error=ReadError("B04 of S2A_y is truncated"))
    >>> bool(failure)
    False
    """

    position: int
    """Where in the table, counted from 0."""
    s1_id: str | None
    s2_id: str | None
    error: Exception
    """What went wrong: names the scene, the asset and what to do."""

    def __bool__(self) -> bool:
        return False

    def _as_patch(self) -> NoReturn:
        raise self.error

    def __getitem__(self, key: object) -> NoReturn:
        self._as_patch()

    def __getattr__(self, name: str) -> Any:
        # Python and its tools look for underscored names on everything (copy, pickle, repr): those are simply absent.
        if name.startswith("_"):
            raise AttributeError(name)
        self._as_patch()
