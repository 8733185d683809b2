"""What each kind of ground sends back to the radar on a given day: by class, season, rain and wind."""

from __future__ import annotations

import numpy as np

from .classes import Cover, Crop
from .phenology import CALENDAR, leaf_out, logistic
from .spectra import VARIANTS, Units, tidal_height_m
from .weather import Weather

__all__ = ["FLOOR_DB", "MEDIAN_SPECKLE_DB", "REFERENCE_ANGLE_DEG", "unit_backscatter"]

REFERENCE_ANGLE_DEG = 38.0
FLOOR_DB = (-32.0, -26.5)
"""Instrument noise in VV and VH, gamma0."""
GAMMA0_DB = 1.0
"""gamma0 over sigma0 at 38 degrees: the measured tables below are sigma0."""
MEDIAN_SPECKLE_DB = 0.33
"""The tables are medians; the median of speckle of 4.4 looks lies this far below its mean."""

# Monthly medians, J..D, dB x -10: VV then VH. Wheat, barley, maize and beet from Belgian fields, the rest from points.
_CROPS: dict[Crop, tuple[str, str]] = {
    Crop.WINTER_WHEAT: ("70 60 75 125 164 135 112 100 88 96 66 63", "166 154 155 175 219 198 181 199 168 197 166 157"),
    Crop.WINTER_BARLEY: ("74 71 100 151 149 81 87 100 117 99 64 65", "153 143 160 205 217 144 192 221 229 210 155 143"),
    Crop.SPRING_BARLEY: (
        "103 109 102 101 105 121 106 101 100 95 93 95",
        "187 202 195 206 193 185 169 166 176 184 171 174",
    ),
    Crop.RAPESEED: ("99 110 107 102 91 92 83 101 100 91 75 83", "179 190 190 177 156 137 129 165 174 182 155 159"),
    Crop.MAIZE: ("77 70 72 89 108 94 89 80 85 74 59 76", "138 134 150 178 209 168 158 154 158 156 154 136"),
    Crop.SUGAR_BEET: ("84 82 88 93 124 73 62 57 58 56 64 78", "139 138 165 178 230 154 139 134 134 135 149 131"),
    Crop.POTATO: ("79 80 81 83 108 81 74 75 79 79 77 76", "153 157 173 174 189 158 143 141 154 153 148 152"),
    Crop.GRASS: ("102 101 101 108 114 108 107 108 110 106 101 101", "175 173 174 182 179 171 171 172 176 175 169 173"),
    Crop.VINEYARD: ("81 80 83 92 93 80 88 90 91 88 89 78", "145 149 156 161 160 142 151 155 154 154 151 144"),
}
MONTHLY_DB = {crop: np.array([[-float(v) / 10 for v in row.split()] for row in rows]) for crop, rows in _CROPS.items()}
"""sigma0 in dB by crop: (VV and VH, 12 months)."""

# VV, VH (sigma0 dB), differences between units (sd, dB), slope with incidence (dB a degree), share of rain's effect.
_COVERS: dict[Cover, tuple[float, float, float, float, float]] = {
    Cover.BEACH: (-15.9, -21.2, 1.4, -0.25, 0.5),
    Cover.TIDAL_FLAT: (-14.5, -23.0, 0.2, -0.3, 0.0),
    Cover.SALT_MARSH: (-10.5, -17.0, 1.5, -0.14, 0.2),
    Cover.MARSH: (-8.8, -15.1, 1.7, -0.12, 0.15),
    Cover.BROADLEAF: (-8.1, -14.0, 0.9, -0.10, 0.12),
    Cover.CONIFER: (-8.5, -13.8, 0.8, -0.10, 0.10),
    Cover.HEATH: (-11.6, -17.8, 1.1, -0.12, 0.25),
    Cover.GRASSLAND: (-10.9, -17.3, 1.2, -0.14, 0.5),
    Cover.CROP: (-10.0, -17.0, 0.9, -0.16, 0.8),
    Cover.BUILDING: (-3.0, -11.2, 3.0, -0.05, 0.0),
    Cover.ASPHALT: (-13.0, -21.5, 1.9, -0.15, 0.2),
    Cover.GARDEN: (-9.3, -15.4, 1.7, -0.10, 0.25),
    Cover.INDUSTRY: (-2.0, -11.0, 3.0, -0.05, 0.0),
    Cover.RAILWAY: (-9.0, -17.0, 1.9, -0.12, 0.2),
    Cover.QUARRY: (-10.0, -18.5, 1.9, -0.15, 0.4),
    Cover.SOLAR: (-7.5, -15.5, 1.1, -0.05, 0.1),
    Cover.ROCK: (-9.0, -17.0, 1.5, -0.15, 0.2),
    Cover.HEDGE: (-8.8, -14.8, 1.0, -0.10, 0.12),
}
_GAMMA_ALREADY = (Cover.BEACH, Cover.TIDAL_FLAT, Cover.INDUSTRY)
# VV of the sea by wind, CMOD5.N over all directions at 38 degrees, sigma0.
_SEA_WIND = (0.0, 1.5, 3.0, 5.0, 7.0, 10.0, 15.0, 22.0)
_SEA_VV = (-28.0, -25.0, -22.0, -19.1, -17.0, -14.3, -11.2, -9.5)
_FETCH = {Cover.SEA: 1.0, Cover.LAKE: 0.45, Cover.RIVER: 0.5}
"""How much of the wind's roughening water of each kind gets: small water lies in the lee of its banks."""


def crop_db(
    crop: np.ndarray, crop_after: np.ndarray, doy: float, shift_days: np.ndarray, ranks: np.ndarray
) -> np.ndarray:
    """(VV and VH, parcels) sigma0 of crops, between monthly medians; after harvest the next winter crop's row counts.

    >>> one = np.array([1])
    >>> crop_db(one, one, 15.5, np.zeros(1), np.zeros((1, 5))).round(1).tolist()
    [[-7.0], [-16.6]]
    """
    month = (doy - shift_days - 15.5) / 30.4375
    whose = crop.copy()
    for code in Crop:
        if code in (Crop.GRASS, Crop.VINEYARD):
            continue
        at = crop == code
        cut = CALENDAR[code].harvested[0] + (CALENDAR[code].harvested[1] - CALENDAR[code].harvested[0]) * ranks[:, 1]
        for after in Crop:
            if after not in (Crop.GRASS, Crop.VINEYARD) and CALENDAR[after].winter:
                whose[at & (crop_after == after) & (doy > cut + 30)] = after
    out = np.zeros((2, len(crop)))
    low = np.floor(month).astype(int)
    t = month - low
    for code, monthly in MONTHLY_DB.items():
        at = whose == code
        out[:, at] = monthly[:, low[at] % 12] * (1 - t[at]) + monthly[:, (low[at] + 1) % 12] * t[at]
    return out


def sea_db(wind_ms: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """sigma0 of open water at 38 degrees, VV and VH.

    >>> [round(float(v), 1) for v in sea_db(5.0)]
    [-19.1, -28.8]
    """
    vv = np.asarray(np.interp(wind_ms, _SEA_WIND, _SEA_VV))
    return vv, np.asarray(np.interp(wind_ms, (0.0, 3.0, 7.0, 15.0, 22.0), (-33.0, -30.5, -27.1, -22.5, -20.5)))


def unit_backscatter(units: Units, year: int, doy: float, weather: Weather) -> tuple[np.ndarray, np.ndarray]:
    """gamma0 in dB at 38 degrees (VV and VH, units), and its slope with the incidence angle (units,), dB a degree.

    >>> import datetime as dt
    >>> from .spectra import make_units
    >>> from .weather import weather_at
    >>> one = np.ones(1)
    >>> units = make_units(0, one, one, one, one, one)
    >>> unit_backscatter(units, 2018, 150, weather_at(0, dt.datetime(2018, 5, 30)))[0].shape[0]
    2
    """
    total = len(units.cover)
    db, slope, rain, spread = np.full((2, total), -10.0), np.zeros(total), np.zeros(total), np.zeros(total)
    leaf = leaf_out(doy, units.shift_days)
    for cover, (mean_vv, mean_vh, sd, per_degree, wetting) in _COVERS.items():
        at = units.cover == cover
        db[0, at], db[1, at] = mean_vv, mean_vh
        slope[at], spread[at], rain[at] = per_degree, sd, wetting
        if cover not in _GAMMA_ALREADY:
            db[:, at] += GAMMA0_DB
    fields = np.arange(1, units.parcels + 1)
    db[:, fields] = GAMMA0_DB + crop_db(
        units.crop[year][fields], units.crop[year + 1][fields], doy, units.shift_days[fields], units.ranks[fields]
    )
    # A closed canopy hides the soil: rain shows on bare fields, less in summer.
    rain[fields] *= 0.45 + 0.55 * (1 - logistic((doy - 110) / 15) + logistic((doy - 215) / 15))
    for cover, winter in ((Cover.BROADLEAF, (-0.8, -1.3)), (Cover.CONIFER, (-0.8, -1.0)), (Cover.HEDGE, (-0.8, -1.2))):
        at = units.cover == cover
        season = (
            leaf[at]
            if cover is not Cover.CONIFER
            else np.full(at.sum(), 0.5 - 0.5 * np.cos(2 * np.pi * (doy - 20) / 365.25))
        )
        for k in range(2):
            db[k, at] += winter[k] * (1 - season)
    for cover in (Cover.MARSH, Cover.SALT_MARSH):
        at = units.cover == cover
        db[1, at] -= 1.5 * (1 - leaf_out(doy, units.shift_days[at] - 12))
    for cover, fetch in _FETCH.items():
        at = units.cover == cover
        vv, vh = sea_db(weather.wind_ms * fetch)
        db[0, at], db[1, at] = vv + GAMMA0_DB, vh + GAMMA0_DB
        slope[at] = -0.62
    flat = units.first_variant(Cover.TIDAL_FLAT) + np.arange(VARIANTS)
    under = logistic((weather.tide_m - tidal_height_m(units.variant[flat])) / 0.12)
    vv, vh = sea_db(weather.wind_ms * 0.4)
    db[0, flat] += (vv + GAMMA0_DB - db[0, flat]) * under
    db[1, flat] += (vh + GAMMA0_DB - db[1, flat]) * under
    wet = np.clip(weather.soil_moisture + 0.08 * units.normals[:, 4], 0, 1) - 0.5
    db[0] += 4.2 * wet * rain
    db[1] += 3.4 * wet * rain
    db[0] += spread * units.normals[:, 6]
    db[1] += spread * 1.15 * (0.75 * units.normals[:, 6] + 0.66 * units.normals[:, 7])
    if weather.snow > 0.02:
        land = ~np.isin(units.cover, (Cover.SEA, Cover.LAKE, Cover.RIVER, Cover.TIDAL_FLAT))
        db[:, land] -= 3.0 * weather.snow * (0.4 + 0.6 * (units.cover[land] == Cover.CROP))
    return db, slope
