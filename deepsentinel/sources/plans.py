"""What to read of one scene, and what to make of what was read.

A `Plan` depends on the scene and the bands, not on the grid, so that many patches of one scene share it: which assets,
which resampling, which offset, which unit. A `Planner` makes the plans of a source, each once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepsentinel.bands import DTYPES, S1_BANDS, S2_BANDS
from deepsentinel.errors import NothingFoundError, ReadError

from . import items as facts
from .arguments import CODES
from .assets import AssetRef, Item, is_missing
from .choices import AUTO, choose_bands, method_of
from .harmonise import (
    Offset,
    OffsetRule,
    Quantity,
    check_power,
    offset_from_pixels,
    remove_offset,
    rescale,
    s2_offset,
    to_db,
)

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from .cache import SceneCache
    from .engine import Want

Array = NDArray[Any]
COARSE_M = 20.0
Methods = dict[str, str] | str | None
PROBE_PX = 512


@dataclass
class Scene:
    """One scene on the grid, in the units of the contract."""

    sensor: str
    id: str
    time: np.datetime64
    variables: dict[str, Array]
    attrs: dict[str, Any]
    item: Item


@dataclass
class Plan:
    """Which band of one item is read from where and how, and what its numbers mean."""

    sensor: str
    item: Item
    refs: dict[str, AssetRef]
    methods: dict[str, str]
    attrs: dict[str, Any]
    offsets: dict[str, Offset] = field(default_factory=dict)
    """Sentinel-2: what to add, by band."""
    quantities: dict[str, Quantity] = field(default_factory=dict)
    """Sentinel-1: what the stored values are, by band."""
    nodata: dict[str, float | None] = field(default_factory=dict)
    """The stored value without meaning, by band; None: what the file itself says."""

    def wants(self, grid: GeoBox, resolve: Callable[[str, Item, str], str]) -> list[Want]:
        """What the engine is asked for, band after band."""
        from .engine import Want

        coarse = grid.crs is not None and grid.crs.projected and abs(grid.affine.a) >= COARSE_M
        radar = "average" if coarse else "bilinear"
        opened = {ref.key: resolve(ref.href, self.item, ref.key) for ref in self.refs.values()}
        return [
            Want(
                href=opened[ref.key],
                grid=grid,
                band=ref.band,
                resampling=radar if self.methods[name] == AUTO else self.methods[name],
                nodata=self.nodata[name],
                domain=self._domain(name),
                # So a nodata value that only the file states is not taken for a measurement.
                fill=math.nan if DTYPES[name] == "float32" else 0,
            )
            for name, ref in self.refs.items()
        ]

    def _domain(self, name: str) -> Any:
        if self.refs[name].is_scaled:
            return None  # the engine takes stored numbers for decibels
        return {"power": "linear", "db": "db"}.get(self.quantities.get(name, ""))

    def finish(self, arrays: Sequence[Array | Exception]) -> Scene:
        """The stored numbers of all bands -> the scene in the units of the contract, or a `ReadError` that names it."""
        bad = [(name, got) for name, got in zip(self.refs, arrays, strict=True) if isinstance(got, Exception)]
        if bad:
            name, problem = bad[0]
            more = f" ({len(bad)} of {len(self.refs)} bands failed)" if len(bad) > 1 else ""
            raise ReadError(
                f"Scene {self.item['id']}: {name} (asset {self.refs[name].key!r}) failed{more}. {problem}"
            ) from problem
        variables = {}
        for name, stored in zip(self.refs, arrays, strict=True):
            assert not isinstance(stored, Exception)
            variables[name] = self._convert(name, stored)
        return Scene(self.sensor, self.item["id"], time_of(self.item), variables, dict(self.attrs), self.item)

    def _convert(self, name: str, stored: Array) -> Array:
        ref, nodata = self.refs[name], self.nodata[name]
        if name in S1_BANDS:
            quantity = self.quantities[name]
            if np.issubdtype(stored.dtype, np.integer) and ref.scale is None and quantity != "amplitude":
                raise ReadError(
                    f"Scene {self.item['id']}: {name} is stored as {stored.dtype} and the catalog states no scale. "
                    "State raster:bands scale and unit in the item."
                )
            if quantity == "power" and not ref.unit:
                check_power(stored, ref.href, nodata=nodata)
            return to_db(stored, quantity, scale=ref.scale, offset=ref.offset, nodata=nodata)
        if name == "angle":
            return angle_degrees(stored, ref, nodata)
        if name in CODES:
            return (stored if is_missing(nodata) else np.where(stored == nodata, 0, stored)).astype(DTYPES[name])
        if np.issubdtype(stored.dtype, np.floating) and ref.scale is None:
            raise ReadError(
                f"Scene {self.item['id']}: {name} is stored as {stored.dtype} and the catalog states no scale, so "
                "nobody knows whether it is reflectance or reflectance x 10000. State raster:bands scale (1 or "
                "0.0001) in the item."
            )
        add = self.offsets[name].add
        assert add is not None
        return remove_offset(rescale(stored, ref, nodata=nodata), add, nodata=nodata)


def angle_degrees(stored: Array, ref: AssetRef, nodata: float | None) -> Array:
    """Stored incidence angles -> float32 degrees with NaN for no data."""
    values = stored.astype("float64")
    if not is_missing(nodata):
        values[stored == nodata] = np.nan
    values = values * (1.0 if ref.scale is None else ref.scale) + (ref.offset or 0.0)
    values[(values <= 0) | (values > 90)] = np.nan
    return values.astype("float32")


def time_of(item: Item) -> np.datetime64:
    """When an item was sensed: UTC, without a time zone.

    >>> time_of({"id": "a", "properties": {"datetime": "2018-07-04T12:57:00+02:00"}})
    np.datetime64('2018-07-04T10:57:00.000000000')
    """
    import pandas as pd

    stamp = pd.Timestamp(str(facts.moment(item)))
    stamp = stamp.tz_localize("UTC") if stamp.tz is None else stamp.tz_convert("UTC")
    return stamp.tz_localize(None).as_unit("ns").to_datetime64()


class Planner(ABC):
    """Makes the plans of a source, each once. What it must know of the catalog, its other half tells."""

    name: str
    _cache: SceneCache | None = None
    _s2_offset: int | None
    _s2_level: str | None

    def _start(self) -> None:
        self._plans: dict[tuple[Any, ...], Plan] = {}
        self._probed: dict[str, Offset] = {}
        self._hopeless_until = 0.0

    # -- what the other half provides ----------------------------------------------------------------------------------

    @abstractmethod
    def resolve(self, href: str, item: Item, asset_key: str) -> str:
        """What to open for an asset, asked right before it is opened: a signed link, a rendered file."""

    @abstractmethod
    def patch_attrs(self) -> dict[str, Any]:
        """Attributes that every patch of this source carries."""

    @abstractmethod
    def renew(self) -> bool:
        """After a refusal: whether there are new rights to try with."""

    @abstractmethod
    def items_of(self, sensor: str, ids: Sequence[str]) -> dict[str, Item]:
        """Items by id, as far as the catalog has them."""

    @abstractmethod
    def assets_of(self, item: Item) -> dict[str, AssetRef]:
        """Which file holds which band."""

    @abstractmethod
    def s1_quantity(self, ref: AssetRef) -> Quantity | None:
        """What radar numbers stand for, where this source knows better than the item."""

    @abstractmethod
    def s1_nodata(self, ref: AssetRef) -> float | None:
        """What marks a missing radar pixel, where neither item nor file says."""

    @abstractmethod
    def backscatter_of(self, item: Item) -> str | None:
        """sigma0 or gamma0_rtc."""

    @property
    @abstractmethod
    def offset_rule(self) -> OffsetRule:
        """How the catalog tells which offset its optical pixels carry."""

    def gdal_options(self) -> dict[str, str]:
        """GDAL settings that hold while files of this source are opened."""
        return {}

    def _gdal(self) -> AbstractContextManager[Any]:
        options = self.gdal_options()
        return nullcontext() if not options and self._cache is None else _reading_with(options, self._cache)

    # -- plans ---------------------------------------------------------------------------------------------------------

    def _item(self, sensor: str, name: str) -> Item:
        found = self.items_of(sensor, [name]).get(name)
        if found is None:
            raise NothingFoundError(
                f"{self.name} holds no {sensor} scene {name}. Was this table made from another source, or the scene "
                "removed?"
            )
        return found

    def _plan(self, sensor: str, name: str, asked: tuple[str, ...] | None, methods: Methods) -> Plan:
        key = (sensor, name, asked, tuple(sorted(methods.items())) if isinstance(methods, dict) else methods)
        item = self._item(sensor, name)
        known = self._plans.get(key)
        if known is not None and known.item is item:  # not one that a later search has replaced
            return known
        held = self.assets_of(item)
        chosen = choose_bands(item, sensor, held, asked)
        refs = {band: held[band] for band in chosen}
        plan = self._plan_s1(item, refs, methods) if sensor == "S1" else self._plan_s2(item, refs, methods)
        self._plans[key] = plan
        return plan

    def _plan_s1(self, item: Item, refs: dict[str, AssetRef], methods: Methods) -> Plan:
        backscatter = self.backscatter_of(item)
        if backscatter is None:
            raise ReadError(f"Scene {item['id']} cannot be put on a map: {facts.grd_reason(item)}.")
        quantities: dict[str, Quantity] = {}
        for band, ref in refs.items():
            if band not in S1_BANDS:
                continue
            quantity = self.s1_quantity(ref)
            if quantity is None and backscatter == "gamma0_rtc":
                quantity = "power"  # as every public RTC product is; `check_power` refuses what cannot be
            if quantity is None:
                raise ReadError(
                    f"Scene {item['id']}: nothing says whether {band} is dB or linear power. Open the source with "
                    "s1_units='dB' or 'power', or state the unit in raster:bands."
                )
            quantities[band] = quantity
        attrs = {
            "backscatter": backscatter,
            "orbit": facts.orbit(item),
            "s1_stored": next(iter(quantities.values()), None),
        }
        return Plan(
            sensor="S1",
            item=item,
            refs=refs,
            methods={
                band: method_of(band, methods, None if ref.is_scaled else quantities.get(band))
                for band, ref in refs.items()
            },
            attrs=_known(attrs),
            quantities=quantities,
            nodata={band: self.s1_nodata(ref) for band, ref in refs.items()},
        )

    def _plan_s2(self, item: Item, refs: dict[str, AssetRef], methods: Methods) -> Plan:
        level = facts.level(item) or self._s2_level
        if level is None:
            raise ReadError(
                f"Scene {item['id']} says nowhere whether it is L1C (top of atmosphere) or L2A (surface). Open the "
                "source with s2_level='L2A' or 'L1C'."
            )
        offsets = {band: self._offset(item, ref) for band, ref in refs.items() if band in S2_BANDS}
        first = next(iter(offsets.values()), None)
        attrs = {
            "level": level,
            "baseline": facts.baseline(item),
            "offset_removed": None if first is None else -(first.add or 0),
            "offset_reason": None if first is None else first.reason,
        }
        return Plan(
            sensor="S2",
            item=item,
            refs=refs,
            methods={band: method_of(band, methods) for band in refs},
            attrs=_known(attrs),
            offsets=offsets,
            nodata={band: ref.nodata for band, ref in refs.items()},
        )

    def _offset(self, item: Item, ref: AssetRef) -> Offset:
        if self._s2_offset is not None:
            return Offset(self._s2_offset, "given as s2_offset")
        offset = s2_offset(item, ref, self.offset_rule)
        if offset.add is None:
            if item["id"] not in self._probed:
                self._probed[item["id"]] = self._probe(item, offset)
            offset = self._probed[item["id"]]
        if offset.add is None:
            raise ReadError(
                f"Scene {item['id']}: {offset.reason}, so nobody knows whether 1000 must be subtracted. Open the "
                "source with s2_offset=0 (already removed, or processed before baseline 04.00) or s2_offset=-1000."
            )
        return offset

    def _probe(self, item: Item, offset: Offset) -> Offset:
        """Settle an open offset by a coarse look at the whole scene in its darkest band."""
        import rasterio

        from .engine.rasters import harmless, looked_into, reason

        held = self.assets_of(item)
        band = next((name for name in ("B12", "B11", "B04", "B03", "B02") if name in held), None)
        if band is None:
            return Offset(offset.fallback, offset.reason)
        href = self.resolve(held[band].href, item, held[band].key)
        problem: Exception
        try:
            with looked_into(href, self.gdal_options()) as file:
                shape = (min(file.height, PROBE_PX), min(file.width, PROBE_PX))
                return offset_from_pixels(offset, file.read(held[band].band, out_shape=shape))
        except rasterio.errors.RasterioError as error:
            problem = error
        raise ReadError(
            f"Scene {item['id']}: whether its offset was removed shows in {band} (asset {held[band].key!r}), which "
            f"cannot be read: {reason(problem, href)}. Leave the scene out, or open the source with s2_offset=."
        ) from harmless(problem)


@contextmanager
def _reading_with(options: Mapping[str, str], cache: SceneCache | None) -> Iterator[None]:
    import rasterio

    from .engine import keeping

    with ExitStack() as stack:
        stack.enter_context(keeping(cache))
        if options:
            stack.enter_context(rasterio.Env(**options))
        yield


def _known(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attrs.items() if value is not None}
