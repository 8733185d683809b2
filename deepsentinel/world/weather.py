"""The weather of the demo world: one series drives cloud, rain, soil and snow, so both sensors tell one story."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

__all__ = ["FIRST_DAY", "LAST_DAY", "Weather", "stream", "weather_at"]

FIRST_DAY = dt.date(2018, 1, 1)
LAST_DAY = dt.date(2019, 12, 31)
_SPIN_UP_DAYS = 60  # the soil must forget its made-up start before the first scene


def stream(*keys: str | int) -> np.random.Generator:
    """A random stream for a named purpose: the same keys give the same numbers in every process.

    SFC64 because speckle and sensor noise draw millions of numbers a scene; sha256 because `hash()` differs by process.

    >>> bool(stream(0, "rain").random() == stream(0, "rain").random())
    True
    """
    digest = hashlib.sha256("\x1f".join(str(key) for key in keys).encode()).digest()
    return np.random.Generator(np.random.SFC64(int.from_bytes(digest[:16], "big")))


@dataclass(frozen=True)
class Weather:
    """What the air and the ground are like at one moment."""

    cloud: float
    """Share of the sky under clouds, 0 to 1."""
    cirrus: float
    """Strength of thin high cloud, 0 to 1."""
    haze: float
    """Aerosol left in the reflectance after correction, 0 to 1."""
    rain_mm: float
    """Rain of the day."""
    soil_moisture: float
    """Wetness of the top soil, 0 (dust) to 1 (standing water); its long-term mean is about 0.5."""
    wind_ms: float
    """Wind speed at 10 m height, m/s."""
    temperature_c: float
    """Air temperature."""
    snow: float
    """Share of open ground under snow, 0 to 1."""
    tide_m: float
    """Sea level above mean, metres."""


@lru_cache(maxsize=8)
def _daily(seed: int) -> dict[str, np.ndarray]:
    days = (LAST_DAY - FIRST_DAY).days + 1 + _SPIN_UP_DAYS
    rng = stream(seed, "weather")
    doy = (np.arange(days) - _SPIN_UP_DAYS) % 365.25 + 1
    winter = np.cos(2 * np.pi * (doy - 15) / 365.25)
    shocks = rng.standard_normal((4, days))
    synoptic, gust, warmth = np.zeros(days), np.zeros(days), np.zeros(days)
    for k in range(1, days):
        # Weather lasts: a front passes in two to four days.
        synoptic[k] = 0.72 * synoptic[k - 1] + math.sqrt(1 - 0.72**2) * shocks[0, k]
        gust[k] = 0.6 * gust[k - 1] + 0.8 * shocks[1, k]
        warmth[k] = 0.8 * warmth[k - 1] + 0.6 * shocks[2, k]
    unsettled = synoptic + 0.18 * winter
    rain = 5.0 * np.maximum(unsettled - 0.45, 0.0) ** 1.2 * rng.gamma(1.6, 0.8, days)
    temperature = 10.8 - 7.0 * winter + 3.2 * warmth + 0.8 * synoptic * winter
    soil, snow = np.zeros(days), np.zeros(days)
    level, depth = 0.6, 0.0
    for k in range(days):
        drying = 0.030 - 0.022 * winter[k]
        level += 0.032 * rain[k] * (1 - level) - drying * (level - 0.08)
        frozen = temperature[k] < 0.8
        depth = max(0.0, depth + (rain[k] if frozen else 0.0) - 1.6 * max(temperature[k], 0.0))
        soil[k], snow[k] = level, min(1.0, depth / 4.0)
    sky = (unsettled + 0.35 * shocks[3]) / math.sqrt(1 + 0.35**2 + 0.18**2 / 2)
    rank = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in sky])
    # A third of the days nearly clear, a third overcast: the U shape of north-west Europe.
    cloud = np.interp(rank, [0.0, 0.12, 0.30, 0.60, 0.72, 1.0], [0.0, 0.03, 0.20, 0.80, 0.97, 1.0])
    wind = np.exp(1.62 + 0.42 * (0.85 * gust + 0.45 * synoptic) + 0.12 * winter)
    out = {
        "cloud": cloud,
        "cirrus": np.clip(rng.beta(0.5, 1.6, days) * (0.4 + 0.6 * rank), 0, 1),
        "haze": np.clip(rng.gamma(2.0, 0.13, days), 0, 1),
        "rain_mm": rain,
        "soil_moisture": np.clip(soil, 0, 1),
        "wind_ms": np.clip(wind, 0.5, 22.0),
        "temperature_c": temperature,
        "snow": snow,
    }
    return {name: values[_SPIN_UP_DAYS:] for name, values in out.items()}


def weather_at(seed: int, when: dt.datetime) -> Weather:
    """The weather of one moment of the two years.

    >>> import datetime as dt
    >>> 0 <= weather_at(0, dt.datetime(2018, 7, 1, 11)).soil_moisture <= 1
    True
    """
    day = (when.date() - FIRST_DAY).days
    if not 0 <= day <= (LAST_DAY - FIRST_DAY).days:
        raise ValueError(f"The demo world has weather from {FIRST_DAY} to {LAST_DAY}, not on {when.date()}.")
    hours = day * 24 + when.hour + when.minute / 60
    tide = 2.6 * math.cos(2 * math.pi * hours / 12.4206) + 0.9 * math.cos(2 * math.pi * hours / 12.0)
    return Weather(**{name: float(values[day]) for name, values in _daily(seed).items()}, tide_m=tide)
