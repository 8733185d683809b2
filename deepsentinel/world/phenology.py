"""How green each field is on each day: the calendar of every crop, shifted and scaled from parcel to parcel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .classes import Crop

__all__ = ["CALENDAR", "Calendar", "crop_state", "grass_ndvi", "leaf_out", "logistic"]


@dataclass(frozen=True)
class Calendar:
    """NDVI of a crop over its year, days counted from 1 January of the harvest year (autumn sowing is negative)."""

    base: float
    """NDVI before growth: the winter stand, or bare soil."""
    peak: float
    grow_day: float
    """Middle of the rise."""
    grow_days: float
    ripe_day: float | None
    """Middle of the fall to straw; None where the crop is lifted green."""
    ripe_days: float
    sown: tuple[float, float]
    harvested: tuple[float, float]

    @property
    def winter(self) -> bool:
        """Whether it is sown in the autumn before."""
        return self.sown[0] < 0


CALENDAR: dict[Crop, Calendar] = {
    Crop.WINTER_WHEAT: Calendar(0.40, 0.87, 75, 12, 188, 6, (-90, -55), (200, 220)),
    Crop.WINTER_BARLEY: Calendar(0.62, 0.90, 60, 20, 167, 6, (-102, -82), (178, 195)),
    Crop.SPRING_BARLEY: Calendar(0.20, 0.82, 125, 9, 198, 7, (70, 105), (210, 230)),
    Crop.MAIZE: Calendar(0.22, 0.84, 165, 9, 262, 10, (110, 130), (255, 290)),
    Crop.RAPESEED: Calendar(0.62, 0.82, 70, 15, 182, 8, (-133, -117), (195, 210)),
    Crop.SUGAR_BEET: Calendar(0.20, 0.84, 162, 9, None, 1, (85, 105), (265, 320)),
    Crop.POTATO: Calendar(0.20, 0.84, 155, 8, 225, 10, (95, 125), (230, 285)),
    Crop.VINEYARD: Calendar(0.35, 0.62, 125, 12, 290, 10, (-999, -998), (998, 999)),
}
STUBBLE_NDVI = 0.18
SOIL_NDVI = 0.20
_CUTS = (145.0, 190.0, 235.0, 275.0)


def logistic(x: np.ndarray | float) -> np.ndarray:
    """A rise from 0 to 1 around 0.

    >>> float(logistic(0.0))
    0.5
    """
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -40, 40))))


def leaf_out(doy: float, shift_days: np.ndarray | float = 0.0) -> np.ndarray:
    """Leaves on deciduous trees, 0 to 1.

    >>> round(float(leaf_out(200)), 2), round(float(leaf_out(20)), 2)
    (1.0, 0.0)
    """
    day = doy - np.asarray(shift_days)
    return logistic((day - 118) / 7) - logistic((day - 305) / 9)


def grass_ndvi(doy: float, shift_days: np.ndarray, mown: np.ndarray) -> np.ndarray:
    """NDVI of grass; `mown` is 1 for meadows that are cut, near 0 for pasture that is only grazed.

    >>> float(grass_ndvi(130, np.zeros(1), np.ones(1))[0]) > 0.75
    True
    """
    day = doy - shift_days
    level = 0.60 + 0.21 * (logistic((day - 85) / 12) - 0.75 * logistic((day - 315) / 14))
    for cut in _CUTS:
        since = day - cut
        level = level - np.where(since > 0, 0.25 * mown * np.exp(-np.maximum(since, 0) / 14), 0)
    return level


def _between(span: tuple[float, float], rank: np.ndarray) -> np.ndarray:
    return span[0] + (span[1] - span[0]) * rank


def _growing(crop: Crop, day: np.ndarray, sown: np.ndarray) -> np.ndarray:
    """NDVI of the crop itself from sowing to harvest."""
    c = CALENDAR[crop]
    base = np.full(day.shape, c.base)
    if c.winter and crop is not Crop.VINEYARD:
        base = SOIL_NDVI + (c.base - SOIL_NDVI) * logistic((day - sown - 28) / 8)
    if crop is Crop.RAPESEED:
        base = base + 0.13 * np.exp(-(((day + 45) / 30) ** 2))
    green = base + (c.peak - base) * logistic((day - c.grow_day) / c.grow_days)
    if crop is Crop.RAPESEED:
        green = green - 0.12 * np.exp(-(((day - 120) / 13) ** 2))
    if c.ripe_day is not None:
        floor = c.base if crop is Crop.VINEYARD else STUBBLE_NDVI
        gone = logistic((day - c.ripe_day) / c.ripe_days)
        green = green * (1 - gone) + floor * gone
    return green


@dataclass(frozen=True)
class CropState:
    """What stands on each parcel on one day."""

    ndvi: np.ndarray
    straw: np.ndarray
    """How much of what is not green is straw or stubble rather than soil, 0 to 1."""
    flowering: np.ndarray
    """Rapeseed in flower, 0 to 1."""
    crop: np.ndarray
    """Whose green it is: the crop of this harvest, or from its sowing the next winter crop (`Crop` codes)."""


def crop_state(
    doy: float,
    crop: np.ndarray,
    crop_before: np.ndarray,
    crop_after: np.ndarray,
    shift_days: np.ndarray,
    vigour: np.ndarray,
    ranks: np.ndarray,
) -> CropState:
    """The state of every parcel on a day of the harvest year of `crop`.

    `ranks` holds five uniform numbers a parcel: sowing, harvest, tillage, catch crop or not, end of the catch crop.

    >>> one = np.array([1])
    >>> state = crop_state(130, one, one, one, np.zeros(1), np.ones(1), np.full((1, 5), 0.5))
    >>> float(state.ndvi[0]) > 0.8
    True
    """
    n = len(crop)
    ndvi, straw, flower = np.full(n, SOIL_NDVI), np.zeros(n), np.zeros(n)
    whose = crop.astype(np.uint8).copy()
    catch = ranks[:, 3] < 0.6
    day = doy - shift_days
    for code in Crop:
        at = np.flatnonzero(crop == code)
        if not len(at):
            continue
        d = day[at]
        if code is Crop.GRASS:
            ndvi[at] = grass_ndvi(doy, shift_days[at] * 1.5, 0.5 + 0.5 * ranks[at, 0])
            continue
        c = CALENDAR[code]
        sown, cut = _between(c.sown, ranks[at, 0]), _between(c.harvested, ranks[at, 1])
        value = _growing(code, d, sown)
        dry = np.zeros(len(at))
        if c.ripe_day is not None and code is not Crop.VINEYARD:
            dry = logistic((d - c.ripe_day + 4) / c.ripe_days)
        if code is Crop.RAPESEED:
            flower[at] = np.exp(-(((d - 120) / 11) ** 2))
        if not c.winter:
            # Before sowing: a catch crop on most of them, killed in spring; weeds on the rest.
            end = np.minimum(50 + 50 * ranks[at, 4], sown - 8)
            had = catch[at] & ~np.isin(crop_before[at], (Crop.MAIZE, Crop.SUGAR_BEET))
            winter = np.where(had, 0.66, 0.33) - SOIL_NDVI
            before = SOIL_NDVI + winter * (1 - logistic((d - end) / 6))
            value = np.where(d < sown + 12, np.minimum(before, 0.75), value)
            dry = np.where((d < end) & ~had, 0.5, dry)
        # After harvest: stubble, tillage, then the next crop or a catch crop.
        tilled = cut + 12 + 45 * ranks[at, 2]
        after = np.where(d < tilled, STUBBLE_NDVI + 0.004 * np.clip(d - cut, 0, 40), SOIL_NDVI)
        after_dry = np.where(d < tilled, 1.0, 0.1)
        follows = crop_after[at]
        for nxt in Crop:
            pick = follows == nxt
            if nxt is Crop.GRASS or nxt is Crop.VINEYARD or not pick.any():
                continue
            if CALENDAR[nxt].winter:
                sow_next = np.maximum(_between(CALENDAR[nxt].sown, ranks[at, 0]) + 365, cut + 8)
                up = pick & (d > sow_next)
                after = np.where(up, _growing(nxt, d - 365, sow_next - 365), after)
                whose[at[up & (d > cut)]] = nxt
            else:
                green = 0.66 * logistic((d - cut - 45) / 9) * (catch[at] & (cut < 245))
                after = np.where(pick, np.maximum(after, green), after)
        done = d > cut
        ndvi[at] = np.where(done, after, value)
        straw[at] = np.where(done, after_dry, dry)
    # A poor stand never closes; where nothing grows there is nothing to be vigorous.
    ndvi = SOIL_NDVI + (ndvi - SOIL_NDVI) * np.clip(vigour, 0.5, 1.3) ** np.where(ndvi > 0.6, 0.6, 1.0)
    return CropState(np.clip(ndvi, 0.08, 0.93), straw, flower, whose)
