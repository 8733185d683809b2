"""What each kind of ground reflects on a given day, as one table: a row for each unit, a column for each band."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .classes import Cover, Crop
from .phenology import crop_state, grass_ndvi, leaf_out, logistic
from .weather import Weather, stream

__all__ = ["BANDS", "BAND_EFFECTS", "VARIANTS", "Units", "make_units", "unit_spectra"]

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
VARIANTS = 64
"""Ground without a parcel number comes in this many versions a cover: stands, roofs, levels of turbidity."""

_MEASURED = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
# Reflectance x 10000. Most rows are medians over real points of Latvia, Belgium and the patches of TerraMesh and
# BigEarthNet; roofs, asphalt, rock, heath, solar and the winter wetlands are typical values.
_TABLE: dict[str, tuple[int, ...]] = {
    "broadleaf": (351, 562, 374, 954, 2736, 3266, 3320, 3564, 1834, 892),
    "broadleaf winter": (375, 540, 637, 949, 1329, 1444, 1533, 1658, 1557, 979),
    "conifer": (230, 313, 224, 504, 1412, 1690, 1821, 1867, 792, 373),
    "conifer winter": (200, 290, 240, 470, 1150, 1380, 1480, 1530, 620, 300),
    "green": (377, 668, 405, 1119, 3277, 4148, 4336, 4352, 1779, 895),
    "wheat": (386, 534, 365, 818, 2802, 3944, 4137, 4156, 1368, 709),
    "beet": (552, 991, 633, 1578, 4296, 5129, 5574, 5228, 2073, 1188),
    "maize": (373, 602, 425, 895, 2906, 4185, 4283, 4427, 1879, 960),
    "stubble": (1037, 1446, 1876, 2142, 2565, 2868, 2812, 3186, 3326, 2630),
    "soil dry": (1006, 1366, 1782, 2018, 2249, 2434, 2546, 2645, 3341, 2842),
    "soil wet": (501, 646, 873, 969, 1035, 1130, 1226, 1223, 1400, 1123),
    "tile roof": (820, 1030, 1560, 1760, 2000, 2100, 2160, 2260, 2620, 2280),
    "slate roof": (880, 930, 950, 980, 1060, 1110, 1160, 1210, 1420, 1370),
    "industry": (2600, 2750, 2900, 2950, 3000, 3050, 3100, 3100, 3300, 3000),
    "asphalt": (900, 1000, 1080, 1150, 1250, 1320, 1400, 1450, 1700, 1600),
    "sand": (2530, 3050, 3382, 3689, 3686, 3785, 3908, 3944, 4845, 4615),
    "wet sand": (1180, 1420, 1610, 1700, 1700, 1690, 1650, 1600, 1050, 760),
    "mud": (720, 870, 980, 1020, 1040, 1030, 1000, 960, 620, 420),
    "rock": (1100, 1350, 1550, 1650, 1750, 1800, 1900, 1950, 2600, 2350),
    "quarry": (1850, 2250, 2650, 2800, 2880, 2950, 3000, 3080, 3700, 3350),
    "solar": (560, 640, 680, 730, 980, 1080, 1130, 1180, 1250, 1060),
    "ballast": (950, 1100, 1250, 1380, 1500, 1580, 1660, 1740, 2200, 2000),
    "heath": (310, 460, 480, 870, 1560, 1830, 1950, 2080, 1880, 1080),
    "heath winter": (330, 460, 560, 850, 1180, 1340, 1430, 1540, 1760, 1100),
    "marsh": (438, 714, 552, 1121, 2318, 2556, 2554, 2805, 1999, 1095),
    "marsh winter": (480, 640, 780, 1020, 1300, 1420, 1520, 1640, 1500, 950),
    "snow": (8243, 7832, 8052, 8259, 8062, 7815, 7992, 7588, 1272, 1307),
    "water dark": (322, 389, 288, 290, 230, 246, 212, 196, 176, 154),
    "water turbid": (808, 1090, 1154, 1138, 498, 500, 476, 359, 213, 188),
}


def _complete(row: tuple[int, ...]) -> np.ndarray:
    """All twelve bands: aerosol and water vapour bands are near B02 and B8A."""
    by: dict[str, float] = dict(zip(_MEASURED, row, strict=True))
    by["B01"], by["B09"] = 0.88 * by["B02"], 0.97 * by["B8A"]
    return np.array([by[band] for band in BANDS])


SPECTRA: dict[str, np.ndarray] = {name: _complete(row) for name, row in _TABLE.items()}
_RED, _NIR = BANDS.index("B04"), BANDS.index("B08")

# How one step of each hidden quality changes the logarithm of each band.
BAND_EFFECTS: dict[str, np.ndarray] = {
    "canopy": np.array([-0.7, -0.8, -0.5, -1.0, -0.6, 0.22, 0.36, 0.4, 0.4, 0.4, -0.3, -0.7]),
    "bright": np.array([1.0, 1.0, 1.0, 1.0, 0.95, 0.8, 0.8, 0.8, 0.8, 0.8, 0.85, 0.9]),
    "wet": np.array([-0.3, -0.35, -0.35, -0.4, -0.4, -0.3, -0.3, -0.3, -0.3, -0.3, -0.95, -1.15]),
    "tint": np.array([0.9, 0.9, 0.8, 1.0, 0.75, 0.15, 0.0, 0.0, 0.0, 0.0, 0.1, 0.25]),
    "red": np.array([-0.8, -0.7, 0.0, 0.6, 0.5, 0.2, 0.1, 0.0, 0.0, 0.0, 0.1, 0.2]),
}

# How much units of one cover differ: standard deviations of the hidden qualities canopy, bright, wet, red.
_UNIT_SPREAD: dict[Cover, tuple[float, float, float, float]] = {
    Cover.SEA: (0.00, 0.03, 0.00, 0.02),
    Cover.LAKE: (0.00, 0.02, 0.00, 0.02),
    Cover.RIVER: (0.00, 0.03, 0.00, 0.02),
    Cover.BEACH: (0.00, 0.18, 0.24, 0.1),
    Cover.TIDAL_FLAT: (0.00, 0.02, 0.02, 0.02),
    Cover.SALT_MARSH: (0.48, 0.14, 0.30, 0.07),
    Cover.MARSH: (0.48, 0.14, 0.30, 0.07),
    Cover.BROADLEAF: (0.26, 0.16, 0.19, 0.07),
    Cover.CONIFER: (0.26, 0.2, 0.24, 0.07),
    Cover.HEATH: (0.46, 0.16, 0.26, 0.09),
    Cover.GRASSLAND: (0.30, 0.14, 0.19, 0.08),
    Cover.CROP: (0.17, 0.16, 0.17, 0.08),
    Cover.BUILDING: (0.00, 0.22, 0.12, 0.1),
    Cover.ASPHALT: (0.00, 0.25, 0.12, 0.1),
    Cover.GARDEN: (0.42, 0.2, 0.18, 0.15),
    Cover.INDUSTRY: (0.00, 0.35, 0.12, 0.1),
    Cover.RAILWAY: (0.24, 0.2, 0.12, 0.15),
    Cover.QUARRY: (0.12, 0.3, 0.24, 0.2),
    Cover.SOLAR: (0.24, 0.15, 0.12, 0.05),
    Cover.ROCK: (0.24, 0.2, 0.18, 0.15),
    Cover.HEDGE: (0.36, 0.2, 0.18, 0.07),
}
_TINT_SPREAD = dict.fromkeys(
    (Cover.BROADLEAF, Cover.CONIFER, Cover.HEDGE, Cover.HEATH, Cover.MARSH, Cover.SALT_MARSH, Cover.GARDEN), 0.40
) | {Cover.GRASSLAND: 0.38, Cover.CROP: 0.38, Cover.SEA: 0.0, Cover.TIDAL_FLAT: 0.0, Cover.LAKE: 0.0, Cover.RIVER: 0.0}
"""The measured spread between places is larger in B02 to B05 (35 to 60 %) than canopy and soil explain."""
_QUALITIES = {"canopy": 0, "bright": 1, "wet": 2, "red": 3, "tint": 8}
"""Which of a unit's normal numbers moves which quality."""


@dataclass(frozen=True, eq=False)
class Units:
    """Every piece of ground that is told from the others: parcels first (row = parcel number), then cover variants."""

    cover: np.ndarray
    variant: np.ndarray
    crop: dict[int, np.ndarray]
    """`Crop` code by year, 2017 to 2020; 0 where there is no parcel."""
    shift_days: np.ndarray
    vigour: np.ndarray
    row_angle_deg: np.ndarray
    normals: np.ndarray
    """Ten standard normal numbers a unit."""
    ranks: np.ndarray
    """Ten uniform numbers a unit."""
    parcels: int
    """How many of the units, from row 1, are parcels."""

    def first_variant(self, cover: int) -> int:
        """Row of a cover's variant 0."""
        return self.parcels + 1 + int(cover) * VARIANTS


def make_units(
    seed: int,
    crop_2018: np.ndarray,
    crop_2019: np.ndarray,
    shift_days: np.ndarray,
    vigour: np.ndarray,
    row_angle_deg: np.ndarray,
) -> Units:
    """The units of a landscape.

    >>> one = np.ones(1)
    >>> make_units(0, one, one, one, one, one).parcels
    1
    """
    n = len(crop_2018)
    covers = max(Cover) + 1
    total = 1 + n + covers * VARIANTS
    cover = np.full(total, Cover.CROP, np.uint8)
    cover[n + 1 :] = np.repeat(np.arange(covers), VARIANTS)
    variant = np.zeros(total, np.int32)
    variant[n + 1 :] = np.tile(np.arange(VARIANTS), covers)

    def widen(values: np.ndarray, fill: float) -> np.ndarray:
        out = np.full(total, fill, np.float64)
        out[1 : n + 1] = values
        return out

    rng = stream(seed, "units")
    a, b = widen(crop_2018, 0).astype(np.uint8), widen(crop_2019, 0).astype(np.uint8)
    normals, ranks = rng.standard_normal((total, 10)), rng.random((total, 10))
    shift = widen(shift_days, 0)
    shift[n + 1 :] = 5 * normals[n + 1 :, 9]
    # Two crops in turn: what stood before 2018 and after 2019 follows from the rotation.
    return Units(
        cover=cover,
        variant=variant,
        crop={2017: b, 2018: a, 2019: b, 2020: a},
        shift_days=shift,
        vigour=widen(vigour, 1),
        row_angle_deg=widen(row_angle_deg, 0),
        normals=normals,
        ranks=ranks,
        parcels=n,
    )


def _mix_to_ndvi(green: np.ndarray, brown: np.ndarray, ndvi: np.ndarray) -> np.ndarray:
    """Share of the green spectrum in a mixture with the brown one that has the wanted NDVI."""
    diff_g, sum_g = green[:, _NIR] - green[:, _RED], green[:, _NIR] + green[:, _RED]
    diff_b, sum_b = brown[:, _NIR] - brown[:, _RED], brown[:, _NIR] + brown[:, _RED]
    share = (ndvi * sum_b - diff_b) / ((diff_g - diff_b) - ndvi * (sum_g - sum_b))
    return np.clip(share, 0.0, 1.08)


def _lerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    return a + (b - a) * t[:, None]


def _soil(normals: np.ndarray, moisture: np.ndarray) -> np.ndarray:
    wet = np.clip(moisture + 0.16 * normals[:, 4], 0, 1)
    return _lerp(SPECTRA["soil dry"], SPECTRA["soil wet"], wet**0.8)


def _fields(units: Units, rows: np.ndarray, year: int, doy: float, weather: Weather) -> tuple[np.ndarray, np.ndarray]:
    state = crop_state(
        doy,
        units.crop[year][rows],
        units.crop[year - 1][rows],
        units.crop[year + 1][rows],
        units.shift_days[rows],
        units.vigour[rows],
        units.ranks[rows],
    )
    moisture = np.full(len(rows), weather.soil_moisture)
    brown = _lerp(_soil(units.normals[rows], moisture), SPECTRA["stubble"], state.straw * (1 - 0.35 * moisture))
    green = np.tile(SPECTRA["green"], (len(rows), 1))
    for crops, name in (
        ((Crop.WINTER_WHEAT, Crop.WINTER_BARLEY, Crop.SPRING_BARLEY), "wheat"),
        ((Crop.SUGAR_BEET, Crop.POTATO), "beet"),
        ((Crop.MAIZE,), "maize"),
    ):
        green[np.isin(state.crop, crops)] = SPECTRA[name]
    ndvi = np.clip(state.ndvi + 0.035 * units.normals[rows, 5], 0.08, 0.93)
    share = _mix_to_ndvi(green, brown, ndvi)
    out = _lerp(brown, green, share)
    out[:, 1:5] += state.flowering[:, None] * np.array([60.0, 620.0, 520.0, 560.0])
    return out, np.clip(share, 0, 1)


def _grass(units: Units, rows: np.ndarray, doy: float, weather: Weather, mown: float) -> tuple[np.ndarray, np.ndarray]:
    ndvi = grass_ndvi(doy, 3 * units.shift_days[rows], mown * units.ranks[rows, 1])
    # Pasture dries out in summer, more on some slopes than on others.
    thirst = logistic((doy - 175) / 12) * (1 - logistic((doy - 262) / 12)) * (1 - weather.soil_moisture)
    ndvi = ndvi - 0.22 * thirst * units.ranks[rows, 2] + 0.05 * units.normals[rows, 5]
    brown = _lerp(_soil(units.normals[rows], np.full(len(rows), 0.75)), SPECTRA["stubble"], np.full(len(rows), 0.45))
    share = _mix_to_ndvi(np.tile(SPECTRA["green"], (len(rows), 1)), brown, np.clip(ndvi, 0.1, 0.88))
    return _lerp(brown, SPECTRA["green"], share), np.clip(share, 0, 1)


def tidal_height_m(variant: np.ndarray) -> np.ndarray:
    """Height above mean sea level that a variant of the tidal flat stands for.

    >>> tidal_height_m(np.array([0, 63])).tolist()
    [-3.0, 4.0]
    """
    return -3.0 + 7.0 * variant / (VARIANTS - 1)


def _water(turbidity: np.ndarray, weather: Weather) -> np.ndarray:
    stirred = np.clip(turbidity * (0.55 + 0.06 * weather.wind_ms), 0, 1)
    glint = 6.0 * weather.wind_ms
    return _lerp(SPECTRA["water dark"], SPECTRA["water turbid"], stirred) * 0.92 + glint


def _other(units: Units, rows: np.ndarray, cover: Cover, doy: float, weather: Weather) -> tuple[np.ndarray, np.ndarray]:
    """Reflectance and greenness of the variants of one cover other than fields."""
    n, rank = len(rows), units.ranks[rows]
    one, shift = np.ones(n), units.shift_days[rows]
    leaf = leaf_out(doy, shift)
    summer = 0.5 - 0.5 * np.cos(2 * np.pi * (doy - 20) / 365.25)
    level = units.variant[rows] / (VARIANTS - 1)
    plain: dict[Cover, str] = {
        Cover.ASPHALT: "asphalt",
        Cover.ROCK: "rock",
        Cover.QUARRY: "quarry",
        Cover.BEACH: "sand",
    }
    if cover in (Cover.SEA, Cover.LAKE, Cover.RIVER):
        out = _water(level, weather)
        if cover is Cover.SEA:
            # Surf: white where it is shallowest, more with wind.
            out = out + (np.clip(level - 0.9, 0, 0.1) * 10 * 70 * weather.wind_ms)[:, None]
        return out, 0 * one
    if cover is Cover.TIDAL_FLAT:
        height = tidal_height_m(units.variant[rows])
        bare = _lerp(SPECTRA["mud"], SPECTRA["wet sand"], np.clip((height + 0.5) / 3.0, 0, 1))
        return _lerp(bare, _water(0.9 * one, weather), logistic((weather.tide_m - height) / 0.15)), 0 * one
    if cover is Cover.BROADLEAF:
        autumn = np.exp(-(((doy - 300) / 12) ** 2)) * np.array([0, 0, 0.1, 0.45, 0.3, 0, 0, 0, 0, 0, 0, 0])
        return _lerp(SPECTRA["broadleaf winter"], SPECTRA["broadleaf"], leaf) * (1 + autumn), 0.4 + 0.6 * leaf
    if cover is Cover.CONIFER:
        return _lerp(SPECTRA["conifer winter"], SPECTRA["conifer"], summer * one), one
    if cover is Cover.HEATH:
        return _lerp(SPECTRA["heath winter"], SPECTRA["heath"], np.clip(1.3 * summer, 0, 1) * one), one
    if cover in (Cover.MARSH, Cover.SALT_MARSH):
        reed = leaf_out(doy, shift - 12)
        out = _lerp(SPECTRA["marsh winter"], SPECTRA["marsh"], reed)
        if cover is Cover.SALT_MARSH:
            flooded = 0.5 * logistic((weather.tide_m - 2.9) / 0.2) + 0.12
            out = _lerp(
                out * np.array([1.15] * 5 + [0.85] * 5 + [0.8, 0.85]), SPECTRA["mud"], (flooded + 0.25 * rank[:, 1])
            )
        return out, 0.4 + 0.6 * reed
    if cover is Cover.GRASSLAND:
        return _grass(units, rows, doy, weather, 0.55)
    if cover in (Cover.GARDEN, Cover.HEDGE):
        turf, green = _grass(units, rows, doy, weather, 0.3)
        tree = _lerp(SPECTRA["broadleaf winter"], SPECTRA["broadleaf"], leaf)
        trees = 0.2 + 0.6 * rank[:, 3] if cover is Cover.GARDEN else 0.55 + 0.4 * rank[:, 3]
        out = _lerp(turf, tree, trees)
        if cover is Cover.GARDEN:  # terraces, sheds and gravel
            out = _lerp(out, SPECTRA["asphalt"] * 1.15, 0.08 + 0.3 * rank[:, 4])
        return out, green
    if cover is Cover.BUILDING:
        kind = units.variant[rows] % 8
        out = np.where((kind < 5)[:, None], SPECTRA["tile roof"], SPECTRA["slate roof"])
        return np.where((kind == 7)[:, None], SPECTRA["industry"] * 0.65, out), 0 * one
    if cover is Cover.INDUSTRY:
        dark = (units.variant[rows] % 4) == 0
        return np.where(dark[:, None], SPECTRA["asphalt"] * 1.1, SPECTRA["industry"] * 0.85), 0 * one
    if cover in (Cover.SOLAR, Cover.RAILWAY):
        turf, green = _grass(units, rows, doy, weather, 0.2)
        share = 0.25 * one if cover is Cover.SOLAR else 0.35 * rank[:, 3]
        return _lerp(
            np.tile(SPECTRA["solar" if cover is Cover.SOLAR else "ballast"], (n, 1)), turf, share
        ), green * share
    if cover in plain:
        out = np.tile(SPECTRA[plain[cover]], (n, 1))
        if cover is Cover.BEACH:
            out = _lerp(
                out * 0.92, SPECTRA["wet sand"], np.clip(0.5 * rank[:, 1] + 0.3 * (weather.soil_moisture - 0.5), 0, 1)
            )
        if cover is Cover.ROCK:
            turf, _ = _grass(units, rows, doy, weather, 0.1)
            out = _lerp(out, turf, 0.35 * rank[:, 3])
        return out, 0.2 * one
    raise ValueError(f"No reflectance is known for cover {cover!r}.")


_SNOWED = {
    Cover.CONIFER: 0.25,
    Cover.BROADLEAF: 0.35,
    Cover.HEDGE: 0.3,
    Cover.BUILDING: 0.7,
    Cover.ASPHALT: 0.45,
    Cover.HEATH: 0.7,
}
_NEVER_WHITE = (Cover.SEA, Cover.LAKE, Cover.RIVER, Cover.TIDAL_FLAT)


def unit_spectra(units: Units, year: int, doy: float, weather: Weather) -> tuple[np.ndarray, np.ndarray]:
    """Reflectance x 10000 (units, 12 bands) and greenness (units,) on one day.

    >>> import datetime as dt
    >>> from .weather import weather_at
    >>> one = np.ones(1)
    >>> units = make_units(0, one, one, one, one, one)
    >>> table, green = unit_spectra(units, 2018, 150, weather_at(0, dt.datetime(2018, 5, 30)))
    >>> table.shape[1]
    12
    """
    table = np.zeros((len(units.cover), len(BANDS)))
    green = np.zeros(len(units.cover))
    rows = np.arange(1, units.parcels + 1)
    if len(rows):
        table[rows], green[rows] = _fields(units, rows, year, doy, weather)
    for cover in Cover:
        if cover is not Cover.CROP:
            rows = units.first_variant(cover) + np.arange(VARIANTS)
            table[rows], green[rows] = _other(units, rows, cover, doy, weather)
    spread = np.zeros((max(Cover) + 1, len(_QUALITIES)))
    for cover, values in _UNIT_SPREAD.items():
        spread[cover] = (*values, _TINT_SPREAD.get(cover, 0.08))
    change = np.zeros_like(table)
    for k, (name, column) in enumerate(_QUALITIES.items()):
        change += (spread[units.cover, k] * units.normals[:, column])[:, None] * BAND_EFFECTS[name]
    table *= np.exp(np.clip(change, -1.2, 1.0))
    if weather.snow > 0.02:
        cap = np.full(max(Cover) + 1, 0.9)
        for cover, share in _SNOWED.items():
            cap[cover] = share
        cap[list(_NEVER_WHITE)] = 0
        table = _lerp(table, 0.85 * SPECTRA["snow"], weather.snow * cap[units.cover])
    return table.astype(np.float32), green.astype(np.float32)
