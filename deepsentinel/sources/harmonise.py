"""Stored numbers -> the units of the Patch contract: which offset Sentinel-2 pixels carry, and what Sentinel-1 pixels
mean.

Sentinel-2 products of processing baseline 04.00 and later store reflectance x 10000 + 1000. Some catalogs hand out
those pixels as they are, others have removed the 1000, and the sensing date tells neither (all of 2015 to 2021 was
reprocessed). So the rule looks at what the item says, in an order that depends on whose item it is:

- Earth Search's sentinel-2-l2a: the flag `earthsearch:boa_offset_applied`. Its `raster:bands` state the offset even
  where it has been applied already; believing both subtracts twice. A false flag on a baseline from 04.00 on is not
  believed either (it is known to be wrong on some scenes): the pixels decide.
- Planetary Computer and CDSE: original pixels, so the processing baseline.
- anybody else: the offset stated for the band, then the baseline, then the date of processing (not of sensing).

Every answer carries its reason, which ends in the attributes of the patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepsentinel.bands import DB_RANGE, REFLECTANCE_SCALE, S2_NODATA
from deepsentinel.errors import InputError, ReadError

from . import items as facts
from .assets import AssetRef, Item, is_missing

OffsetRule = Literal["stated", "baseline", "earth-search"]
Quantity = Literal["power", "db", "amplitude"]

OFFSET = -1000
# The baseline that brought the offset, and the day it went into force: nothing processed before that day has it.
OFFSET_SINCE = "04.00"
OFFSET_SINCE_DAY = "20220125"
# Pixels with the offset still in them are hardly ever this dark; pixels without it often are (water, shadow).
DARK_DN = (1, 900)
DARK_SHARE = 0.002


@dataclass(frozen=True)
class Offset:
    """What to add to valid stored values of one Sentinel-2 band, and why."""

    add: int | None
    """0 or -1000; None when the item does not settle it and the pixels must be looked at."""
    reason: str
    """In words, for the attributes of the patch."""
    fallback: int | None = None
    """What to add if the pixels do not settle it either; None: then nobody knows."""


def s2_offset(item: Item, ref: AssetRef, rule: OffsetRule = "stated") -> Offset:
    """The offset of one band of one item.

    >>> item = {"id": "a", "properties": {"s2:processing_baseline": "05.09"}}
    >>> s2_offset(item, AssetRef(key="B04", href="B04.tif"))
    Offset(add=-1000, reason='processing baseline 05.09', fallback=None)
    """
    properties = item.get("properties") or {}
    if rule == "stated" and ("earthsearch:boa_offset_applied" in properties or "sentinel-cogs" in ref.href):
        rule = "earth-search"  # a copy of Earth Search's items in somebody's own catalog
    if rule == "earth-search" and _is_shifted_copy(item, ref):
        return _earth_search(item)
    if rule == "stated":
        stated = _stated(ref)
        if stated is not None:
            return stated
    return (
        _by_baseline(item)
        or _stated(ref)
        or Offset(None, "nothing in the item tells whether the offset is in the pixels")
    )


def _is_shifted_copy(item: Item, ref: AssetRef) -> bool:
    """Earth Search's converted L2A, as opposed to the original JP2 beside it and to its other collections."""
    return not ref.key.endswith("-jp2") and str(item.get("collection") or "") in (
        "sentinel-2-l2a",
        "sentinel-s2-l2a-cogs",
        "",
    )


def _earth_search(item: Item) -> Offset:
    applied = (item.get("properties") or {}).get("earthsearch:boa_offset_applied")
    if applied is True:
        return Offset(0, "earthsearch:boa_offset_applied is true")
    baseline = facts.baseline(item)
    if baseline is not None and baseline < OFFSET_SINCE:
        return Offset(0, f"processing baseline {baseline}")
    said = "missing" if applied is None else "false"
    return Offset(
        None,
        f"earthsearch:boa_offset_applied is {said} and the processing baseline {baseline or 'unknown'}",
        fallback=OFFSET if baseline is not None and applied is False else None,
    )


def _stated(ref: AssetRef) -> Offset | None:
    if ref.offset is None:
        return None
    # With a scale of 1 or none the offset is in stored values already (-1000), else in reflectance (-0.1).
    stored = ref.scale in (None, 1.0) and abs(ref.offset) >= 1
    add = round(ref.offset if stored else ref.offset * REFLECTANCE_SCALE)
    return Offset(add, f"the catalog states offset {ref.offset:g} for {ref.key}")


def _by_baseline(item: Item) -> Offset | None:
    baseline = facts.baseline(item)
    if baseline is not None:
        return Offset(0 if baseline < OFFSET_SINCE else OFFSET, f"processing baseline {baseline}")
    created = facts.created(item)
    if created is not None and created[:8] < OFFSET_SINCE_DAY:
        return Offset(0, f"processed on {created[:8]}, before the offset was introduced")
    return None


def offset_from_pixels(offset: Offset, dn: NDArray[np.generic]) -> Offset:
    """Settle an open offset by a look at a dark band over the whole scene: very dark values mean it is gone already.

    >>> offset_from_pixels(Offset(None, "flag is false", fallback=-1000), np.array([[0, 250], [1200, 300]])).add
    0
    """
    valid = np.asarray(dn, "float64")
    valid = valid[valid > 0]
    dark = float(((valid >= DARK_DN[0]) & (valid <= DARK_DN[1])).mean()) if valid.size else 0.0
    if valid.size and dark >= DARK_SHARE:
        return Offset(
            0, f"{offset.reason}; {100 * dark:.1f} % of the pixels are darker than the offset: already removed"
        )
    return Offset(offset.fallback, f"{offset.reason}; no pixel is darker than the offset")


def remove_offset(dn: NDArray[np.generic], add: int, *, nodata: float | None = None) -> NDArray[np.uint16]:
    """Stored values -> uint16 reflectance x 10000: no data stays 0, everything valid stays at least 1.

    Clipping at 0 instead would turn dark water into "no data".

    >>> remove_offset(np.array([0, 900, 1001, 3000], "uint16"), -1000)
    array([   0,    1,    1, 2000], dtype=uint16)
    """
    missing = dn == S2_NODATA
    if dn.dtype == np.uint16 and add <= 0 and (is_missing(nodata) or nodata == S2_NODATA):
        # By far the most pixels come this way: no wider type is needed when the clipping comes before the subtraction.
        quick = np.maximum(dn.view(np.uint16), np.uint16(1 - add))
        quick -= np.uint16(-add)
        quick[missing] = S2_NODATA
        return quick
    if not is_missing(nodata) and nodata != S2_NODATA:
        missing |= dn == nodata
    if np.issubdtype(dn.dtype, np.floating):
        missing |= np.isnan(dn)
        dn = np.rint(np.where(missing, 0, dn))
    shifted = np.clip(dn.astype("int32") + add, 1, np.iinfo("uint16").max).astype("uint16")
    shifted[missing] = S2_NODATA
    return shifted


def rescale(dn: NDArray[np.generic], ref: AssetRef, *, nodata: float | None = None) -> NDArray[np.generic]:
    """Stored values of a band with another scale than 1/10000 -> the usual one; the others unchanged.

    >>> rescale(np.array([0.0, 0.25]), AssetRef(key="B04", href="", scale=1.0)).tolist()
    [0.0, 2500.0]
    """
    factor = (ref.scale or 1 / REFLECTANCE_SCALE) * REFLECTANCE_SCALE
    # Whole numbers with a scale of 1 are reflectance x 10000 whose catalog means "take them as they are".
    plain = ref.scale == 1 and np.issubdtype(dn.dtype, np.integer)
    if plain or abs(factor - 1) < 1e-6:
        return dn
    scaled = dn.astype("float64") * factor
    missing = np.isnan(scaled) | (dn == 0)
    if not is_missing(nodata):
        missing |= dn == nodata
    return np.where(missing, 0.0, np.maximum(np.rint(scaled), 1.0))


def quantity_of(unit: str | None) -> Quantity | None:
    """What a catalog's word for a unit means; None if it is no word for backscatter.

    >>> quantity_of("dB"), quantity_of("linear power"), quantity_of("m")
    ('db', 'power', None)
    """
    word = (unit or "").strip().lower().replace("_", " ")
    if word in ("db", "decibel", "decibels"):
        return "db"
    if word in ("power", "linear power", "linear", "1", "natural", "intensity", "m2/m2", "m2 m-2"):
        return "power"
    return "amplitude" if word == "amplitude" else None


def check_units(units: str | None) -> Quantity | None:
    """The `s1_units=` option as a quantity."""
    if units is None:
        return None
    quantity = quantity_of(units)
    if quantity is None:
        raise InputError(f"s1_units={units!r}: it is 'dB', 'power' (linear) or 'amplitude'.")
    return quantity


def check_stated(s1_backscatter: str | None, s2_offset: int | None, s2_level: str | None) -> None:
    """The options that state what a catalog does not, checked.

    >>> check_stated("sigma0", -1000, "L2A")
    """
    if s1_backscatter not in (None, "gamma0_rtc", "sigma0"):
        raise InputError(f"s1_backscatter={s1_backscatter!r}: it is 'gamma0_rtc' or 'sigma0'.")
    if s2_offset not in (None, 0, -1000):
        raise InputError(f"s2_offset={s2_offset!r}: what to add to stored Sentinel-2 values is 0 or -1000.")
    if s2_level not in (None, "L1C", "L2A"):
        raise InputError(f"s2_level={s2_level!r}: it is 'L1C' or 'L2A'.")


def to_db(
    stored: NDArray[np.generic],
    quantity: Quantity,
    *,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
) -> NDArray[np.float32]:
    """Stored backscatter -> float32 dB; no data, and power that is not positive, become NaN.

    >>> to_db(np.array([0.1, 0.0, -32768.0], "float32"), "power", nodata=-32768)
    array([-10.,  nan,  nan], dtype=float32)
    """
    missing = np.isnan(stored) if np.issubdtype(stored.dtype, np.floating) else np.zeros(stored.shape, bool)
    if not is_missing(nodata):
        missing |= stored == nodata
    # float32 is more than radar deserves, and twice as fast; what is to be scaled first gets room for it.
    plain = scale is None and offset is None and stored.dtype == np.float32
    values = stored.astype("float32" if plain else "float64")
    values[missing] = np.nan
    if scale is not None or offset is not None:
        values = values * (1.0 if scale is None else scale) + (offset or 0.0)
    if quantity == "db":
        db = values
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            db = (10.0 if quantity == "power" else 20.0) * np.log10(np.where(values > 0, values, np.nan))
    # Far below the thermal noise no number is a measurement: files carry such specks along their edges.
    db[~((db >= DB_RANGE[0]) & (db <= DB_RANGE[1]))] = np.nan
    return db.astype("float32", copy=False)


def check_power(stored: NDArray[np.generic], href: str, *, nodata: float | None = None) -> None:
    """Refuse values that cannot be the linear power they were taken for.

    >>> check_power(np.array([-12.0, -18.5]), "vv.tif")
    Traceback (most recent call last):
    ...
    deepsentinel.errors.ReadError: vv.tif holds mostly negative values, ...
    """
    known = np.asarray(stored, "float64")
    known = known[~np.isnan(known)]
    if not is_missing(nodata):
        known = known[known != nodata]
    if known.size and float((known < 0).mean()) > 0.5:
        raise ReadError(
            f"{href} holds mostly negative values, so it is not linear power as its catalog leaves one to assume. "
            "If these are dB, open the source with s1_units='dB'."
        )
