"""A patch as an encoder wants it: bands by name, in its order, with what is usable of each pixel, place and month."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache

import numpy as np
import pyproj
import torch
import xarray as xr
from odc.geo.geobox import GeoBox
from torch import Tensor

from deepsentinel.bands import S1_BANDS, S2_BANDS, SCL_CLOUDY
from deepsentinel.encoders.base import check_inputs, check_zeros, stack_bands
from deepsentinel.encoders.inputs import MAX_DATES
from deepsentinel.encoders.spec import EncoderSpec
from deepsentinel.errors import InputError
from deepsentinel.grids import crs_of, grid_of, metres_per_unit

from .model import Windows
from .reading import Slabs

SENSORS = ("both", "s1", "s2")
TIMES = {"S1": "s1_time", "S2": "s2_time"}
# Units are told from a few thousand pixels as well as from all.
CHECKED_PX = 64
CLOUDY = np.isin(np.arange(256), SCL_CLOUDY)


class Scene:
    """One patch or series, and what of it goes to an encoder."""

    def __init__(
        self, data: xr.Dataset, spec: EncoderSpec, *, sensors: str = "both", mask_clouds: bool = False
    ) -> None:
        self.spec, self.data = spec, data
        self.geobox = _grid(data)
        self.shape = int(self.geobox.shape.y), int(self.geobox.shape.x)
        across, down = (
            abs(step) * metres
            for step, metres in zip(
                (self.geobox.affine.a, self.geobox.affine.e), metres_per_unit(self.geobox), strict=True
            )
        )
        self.resolution_m = round((across * down) ** 0.5, 6)
        self.bands, self.missing = _bands(data, spec, sensors)
        _check_bands(data[list(self._bands_held())])
        self._seen: set[str] = set()
        self.mask_clouds = mask_clouds and "S2" in self.bands
        if self.mask_clouds and "SCL" not in data.data_vars:
            raise InputError(
                "mask_clouds=True needs the scene classification SCL, which this patch lacks: read it with the patch, "
                "or pass mask_clouds=False."
            )
        self.series = any(name in data[list(self._names())].dims for name in TIMES.values())
        if self.series and not spec.series:
            raise InputError(
                f"{spec.name} takes one date, and this is a series: choose one of each sensor, as in "
                f"series.isel({', '.join(f'{name}=0' for name in TIMES.values() if name in data.dims)}), or an encoder "
                "whose list_encoders() entry `series` is True."
            )
        self._slabs = Slabs(data[list(self._names())])
        # Unsigned 16-bit reflectance can be nothing else.
        self._unchecked = [
            name
            for name, bands in self.bands.items()
            if name == "S1" or any(data[band].dtype != "uint16" for band in bands if band in data)
        ]

    def _bands_held(self) -> tuple[str, ...]:
        return tuple(name for bands in self.bands.values() for name in bands if name not in self.missing)

    def _names(self) -> tuple[str, ...]:
        return (*self._bands_held(), "SCL") if self.mask_clouds else self._bands_held()

    @cached_property
    def months(self) -> np.ndarray | None:
        """The months of the series, one after another, as datetime64[M]; of a patch its one; None if unknown."""
        held = [self._dates(sensor) for sensor in self.bands]
        if not self.series:
            # Plants tell the month more than the ground does, so that of S2 comes first.
            known = [dates[0] for dates in reversed(held) if dates is not None]
            return np.array(known[:1]) if known else None
        if any(dates is None for dates in held):
            raise InputError("This series has no s1_time or s2_time for a sensor it holds, so nobody knows the months.")
        every = np.concatenate([dates for dates in held if dates is not None])
        months = np.arange(every.min(), every.max() + 1)
        if len(months) > MAX_DATES:
            raise InputError(
                f"The series runs over {len(months)} months, {months[0]} to {months[-1]}; {self.spec.name} takes "
                f"at most {MAX_DATES}: choose some, as in series.sel(s1_time=slice(..., ...), s2_time=slice(..., ...))."
            )
        return months

    def _dates(self, sensor: str) -> np.ndarray | None:
        name = TIMES[sensor]
        if name not in self.data.coords:
            return None
        dates = np.atleast_1d(self.data[name].to_numpy()).astype("datetime64[M]")
        unknown = np.flatnonzero(np.isnat(dates))
        if self.series and len(unknown):
            raise InputError(
                f"{name} is not known (NaT) for {len(unknown)} of {len(dates)} dates, so nobody knows their months: "
                f"leave them out, as in series.sel({name}=series.{name}.notnull())."
            )
        # No month at all is better than the one that NaT would be counted as.
        return None if len(unknown) else dates

    def strip(self, rows: range, columns: range, limit: tuple[int, int]) -> dict[str, np.ndarray]:
        """s1, s2 (C, H, W) or (T, C, H, W) and their masks, of `rows` and `columns`, which may lie outside the patch.

        Up to `limit` (rows, columns) what is outside mirrors what is inside, so that a cell of which a part is known is
        complete; beyond it, nothing is usable.
        """
        within = np.logical_and.outer(
            [0 <= row < limit[0] for row in rows], [0 <= column < limit[1] for column in columns]
        )
        raw = self._slabs.read(rows, columns)
        found: dict[str, np.ndarray] = {}
        for sensor, bands in self.bands.items():
            values, usable = self._sensor(sensor, bands, raw)
            if self.series:
                values, usable = _monthly(values, usable, self._dates(sensor), self.months, radar=sensor == "S1")
            if not within.all():
                usable = usable & within
            self._check(sensor, values, usable)
            if usable.any():
                self._seen.add(sensor)
            found[sensor.lower()], found[f"{sensor.lower()}_mask"] = values, usable
        return found

    def _sensor(self, sensor: str, bands: tuple[str, ...], raw: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Values (..., C, H, W) float32 and which pixels are usable (..., H, W)."""
        here = [raw[band] for band in bands if band not in self.missing]
        values = np.empty((*here[0].shape[:-2], len(bands), *here[0].shape[-2:]), "float32")
        usable = np.ones(here[0].shape, bool)
        for position, band in enumerate(bands):
            if band in self.missing:
                values[..., position, :, :] = 0
                continue
            array = raw[band]
            values[..., position, :, :] = array
            # No data is 0 in S2 and NaN in S1; reflectance that somebody made float may have NaN too.
            if sensor == "S2":
                usable &= array != 0
            if array.dtype.kind == "f":
                usable &= np.isfinite(array)
        if sensor == "S2" and self.mask_clouds:
            scl = np.nan_to_num(raw["SCL"]) if raw["SCL"].dtype.kind == "f" else raw["SCL"]
            usable &= ~CLOUDY[np.clip(scl, 0, 255).astype("uint8")]
        return values, usable

    def _check(self, sensor: str, values: np.ndarray, usable: np.ndarray) -> None:
        """Refuse other units, at the first strip with data of each sensor."""
        down, across = (max(1, side // CHECKED_PX) for side in usable.shape[-2:])
        some = usable[..., None, ::down, ::across]
        if sensor == "S1":
            # Always, as they may lie in one corner; more than that is told once and for all.
            check_zeros(self.spec, np.where(some, values[..., ::down, ::across], np.nan), self.missing)
        if sensor not in self._unchecked or not some.any():
            return
        seen = np.where(some, values[..., ::down, ::across], np.nan)
        for position, band in enumerate(self.bands[sensor]):
            if band in self.missing:
                seen[..., position, :, :] = np.nan
        check_inputs(self.spec, *((seen, None) if sensor == "S1" else (None, seen)))
        self._unchecked.remove(sensor)

    def cut(
        self,
        strip: Mapping[str, np.ndarray],
        corner: tuple[int, int],
        windows: Sequence[tuple[int, int]],
        side: tuple[int, int],
    ) -> Windows:
        """Windows of `side` pixels from a strip that starts at `corner`; rows and columns are those of the patch."""
        at = [(row - corner[0], column - corner[1]) for row, column in windows]
        tensors = {
            name: torch.from_numpy(
                np.stack([values[..., row : row + side[0], column : column + side[1]] for row, column in at])
            )
            for name, values in strip.items()
        }
        tensors["latlon"] = self._latlon(windows, side)
        if self.months is not None:
            tensors["month"] = torch.from_numpy(self.months.astype("int64") % 12).expand(len(windows), -1)
        return Windows(tensors, self.missing, self.resolution_m)

    def _latlon(self, corners: Sequence[tuple[int, int]], side: tuple[int, int]) -> Tensor:
        """Where windows lie, (B, 2); for an encoder of single pixels where each of them lies, (B, 2, H, W)."""
        places = np.asarray(corners, "float64")
        height, width = side
        if self.spec.size_px != 1:
            lat, lon = self._degrees(places[:, 0] + height / 2, places[:, 1] + width / 2)
            return torch.from_numpy(np.stack([lat, lon], axis=1).astype("float32"))
        # Within a window degrees grow evenly: pixels between the four at its corners are within a millimetre.
        down, across = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None]
        found = np.zeros((len(places), 2, height, width))
        _, first = self._degrees(places[:, 0] + 0.5, places[:, 1] + 0.5)
        for low, share_down in ((0.5, 1 - down), (height - 0.5, down)):
            for left, share_across in ((0.5, 1 - across), (width - 0.5, across)):
                lat, lon = self._degrees(places[:, 0] + low, places[:, 1] + left)
                # Where the map ends, at 180 degrees, they count on.
                lon = first + (lon - first + 180) % 360 - 180
                found += np.stack([lat, lon], axis=1)[:, :, None, None] * (share_down * share_across)
        return torch.from_numpy(found.astype("float32"))

    def _degrees(self, row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a = self.geobox.affine
        lon, lat = _to_degrees(crs_of(self.geobox).to_wkt()).transform(a.c + a.a * column, a.f + a.e * row)
        return np.asarray(lat), np.asarray(lon)

    def seen_mode(self) -> str:
        """Which sensors had anything to see in what was read so far: both, s1, s2 or none."""
        return "both" if len(self._seen) == 2 else next(iter(self._seen)).lower() if self._seen else "none"

    def corner(self) -> tuple[int, int]:
        """Row and column of the first pixel, counted from where the coordinates are 0."""
        a = self.geobox.affine
        # The same for all patches on one grid, even where that lies a little off whole numbers.
        return math.floor(a.f / a.e + 1e-3), math.floor(a.c / a.a + 1e-3)

    def hold(self, rows: range, columns: range) -> None:
        """Read some pixels now, as they will be asked for many times."""
        self._slabs.hold(rows, columns)

    def centre(self) -> tuple[float, float]:
        """Latitude and longitude of the middle of the patch."""
        lat, lon = self._degrees(np.array([self.shape[0] / 2]), np.array([self.shape[1] / 2]))
        return float(lat[0]), float(lon[0])


@lru_cache(maxsize=32)
def _to_degrees(wkt: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(wkt, "EPSG:4326", always_xy=True)


def _grid(data: xr.Dataset) -> GeoBox:
    if not isinstance(data, xr.Dataset):
        raise InputError(f"embed takes patches, Datasets with one variable a band; this is a {type(data).__name__}.")
    lacking = [name for name in ("y", "x", "spatial_ref") if name not in data.coords]
    if lacking:
        raise InputError(f"This patch has no coordinate {', '.join(lacking)}, so nobody knows where it lies.")
    if not all(data.sizes.get(axis, 1) for axis in ("y", "x")):
        raise InputError("This patch is empty: it has no row or no column of pixels.")
    geobox = grid_of(data)
    if geobox.affine.e > 0 or geobox.affine.a < 0:
        raise InputError("Encoders see north up; sort with patch.sortby('y', ascending=False).sortby('x').")
    return geobox


def _bands(data: xr.Dataset, spec: EncoderSpec, sensors: str) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """The bands of each sensor that take part, in the encoder's order, and those of them that are missing."""
    if sensors not in SENSORS:
        raise InputError(f"sensors={sensors!r}: one of {', '.join(SENSORS)} is meant.")
    if sensors == "both" and "both" not in spec.modes and len(spec.modes) == 1:
        sensors = spec.modes[0]
    if sensors not in spec.modes:
        choice = " or ".join(f'sensors="{mode}"' for mode in spec.modes)
        raise InputError(
            f"{spec.name} does not take {'both sensors at once' if sensors == 'both' else sensors}; {choice} it does."
        )
    wanted = ("S1", "S2") if sensors == "both" else (sensors.upper(),)
    takes = {"S1": spec.s1_bands, "S2": spec.s2_bands}
    here = {sensor: tuple(band for band in takes[sensor] if band in data.data_vars) for sensor in wanted}
    absent = [sensor for sensor in wanted if not here[sensor]]
    if len(absent) == len(wanted) or (absent and not (spec.can_mask and spec.any_bands)):
        held = " ".join(str(name) for name in data.data_vars if name in S1_BANDS or name in S2_BANDS) or "no bands"
        left = [sensor.lower() for sensor in wanted if sensor not in absent]
        instead = f' Pass sensors="{left[0]}" to go without.' if left and left[0] in spec.modes else ""
        needs = " and ".join(f"{sensor} ({' '.join(takes[sensor])})" for sensor in absent)
        raise InputError(f"{spec.name} needs {needs}; this patch holds {held}.{instead}")
    found = tuple(sensor for sensor in wanted if sensor not in absent)
    if len(found) == 1 and found[0].lower() not in spec.modes:
        raise InputError(f"{spec.name} takes {' or '.join(spec.modes)}, and this patch has {found[0]} only.")
    nothing = {band: torch.zeros(1, 1, 1) for sensor in found for band in here[sensor]}
    _, _, missing = stack_bands(spec, nothing, sensors=found)
    return {sensor: takes[sensor] for sensor in found}, missing


def _check_bands(held: xr.Dataset) -> None:
    for name, values in held.data_vars.items():
        other = [str(dim) for dim in values.dims if dim not in ("y", "x", *TIMES.values())]
        if other:
            raise InputError(
                f"{name} has a dimension `{other[0]}`; a band has y and x, and in a series s1_time or s2_time, each "
                f"sensor its own: rename it, or take one of them with patch.isel({other[0]}=0)."
            )
        if name in S2_BANDS and values.dtype.itemsize == 1:
            raise InputError(
                f"{name} is {values.dtype}, as quicklooks are, which cannot hold reflectance x 10000. Read it anew."
            )


def _monthly(
    values: np.ndarray, usable: np.ndarray, dates: np.ndarray | None, months: np.ndarray | None, *, radar: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Dates to months, the mean of what is usable in each; backscatter is averaged in linear power."""
    assert dates is not None
    assert months is not None
    if values.ndim == 3:
        values, usable = values[None], usable[None]
    mean = np.zeros((len(months), *values.shape[1:]), "float32")
    seen = np.zeros((len(months), *usable.shape[1:]), bool)
    for at, month in enumerate(months):
        chosen = np.flatnonzero(dates == month)
        if not len(chosen):
            continue
        keep = usable[chosen][:, None]
        count = keep.sum(axis=0)
        some = 10 ** (values[chosen] / 10) if radar else values[chosen]
        mean[at] = np.where(keep, some, 0).sum(axis=0) / np.maximum(count, 1)
        seen[at] = count[0] > 0
        if radar:
            mean[at] = 10 * np.log10(np.where(seen[at], mean[at], 1))
    return mean, seen
