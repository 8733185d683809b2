"""Clouds: fractal fields over the world plane, with the shadows that the sun throws from their height."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .weather import Weather, stream

__all__ = ["CELL_M", "CloudField", "cloud_field", "opacity", "periodic_noise"]

CELL_M = 125.0
_DETAIL_CELL_M = 20.0
_DETAIL_PX = 512
_THICK = 1.3
"""Density above the threshold at which a cloud has two thirds of its brightness."""
DENSE = 0.35
"""Opacity from which a pixel counts as cloudy: what the stated cloud cover means."""
THIN = 0.16
"""Opacity from which a veil counts as thin cirrus."""


@lru_cache(maxsize=8)
def _fall(size: int, slope: float, stretch: float) -> np.ndarray:
    """How amplitude falls with frequency; kept, since a catalog needs hundreds of fields of few kinds."""
    fy = np.fft.fftfreq(size)[:, None] * size
    fx = np.fft.rfftfreq(size)[None, :] * size
    return np.asarray(np.maximum(np.hypot(fx * stretch, fy), 1.5) ** -slope)


def periodic_noise(rng: np.random.Generator, size: int, slope: float, stretch: float = 1.0) -> np.ndarray:
    """Fractal noise on a torus, zero mean and unit variance: amplitude falls as frequency to the `-slope`.

    On a torus, so that a shadow can look for its cloud anywhere beyond the edge of the map.

    >>> periodic_noise(np.random.default_rng(0), 64, 1.5).shape
    (64, 64)
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    spectrum *= _fall(size, slope, stretch)
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(size, size))
    return (field / field.std()).astype(np.float32)


@lru_cache(maxsize=2)
def _detail(seed: int) -> np.ndarray:
    """Fine cloud texture, shared by all dates: wherever a cloud is, it takes another piece of it."""
    return periodic_noise(stream(seed, "cloud detail"), _DETAIL_PX, 1.1)


@dataclass(frozen=True)
class CloudField:
    """The clouds of one date over the whole world plane."""

    kind: str
    """cumulus, stratus or none."""
    density: np.ndarray
    """Low cloud before thresholding, one value every `CELL_M`, periodic."""
    veil: np.ndarray
    """High thin cloud, the same grid."""
    threshold: float
    softness: float
    roughness: float
    height_m: float
    """Height of the low clouds above the ground: what displaces their shadow."""
    veil_threshold: float
    veil_strength: float
    offset_px: tuple[int, int]
    seed: int


def _sample(values: np.ndarray, x: np.ndarray, y: np.ndarray, cell_m: float) -> np.ndarray:
    """Bilinear values of a periodic grid at world coordinates."""
    n = values.shape[0]
    u = (x / np.float32(cell_m)).astype(np.float32)
    v = (y / np.float32(cell_m)).astype(np.float32)
    c0, r0 = np.floor(u), np.floor(v)
    tx, ty = u - c0, v - r0
    c = c0.astype(np.int32) % n
    r = (r0.astype(np.int32) % n) * n
    c1 = (c + 1) % n
    r1 = (r + n) % (n * n)
    flat = values.ravel()
    top = np.take(flat, r + c) * (1 - tx) + np.take(flat, r + c1) * tx
    bottom = np.take(flat, r1 + c) * (1 - tx) + np.take(flat, r1 + c1) * tx
    return top * (1 - ty) + bottom * ty


def cloud_field(seed: int, date: str, weather: Weather, half_width_m: float, half_height_m: float) -> CloudField:
    """The clouds of a date; their share over the given rectangle around the origin is the weather's.

    >>> import datetime as dt
    >>> from .weather import weather_at
    >>> when = dt.datetime(2018, 7, 1, 11)
    >>> cloud_field(0, "2018-07-01", weather_at(0, when), 8000.0, 5000.0).kind in ("cumulus", "stratus", "none")
    True
    """
    rng = stream(seed, "clouds", date)
    size = 256 * max(1, math.ceil(half_width_m / 10_000))
    cumulus = rng.random() < (0.75 if weather.cloud < 0.5 else 0.25)
    density = periodic_noise(rng, size, 1.35 if cumulus else 2.0, 1.0 if cumulus else float(rng.uniform(0.6, 1.6)))
    veil = periodic_noise(rng, size, 2.1, float(rng.choice([0.35, 2.8])))
    rows = int(half_height_m / CELL_M)
    cols = int(half_width_m / CELL_M)
    over = density[np.ix_(np.arange(-rows, rows) % size, np.arange(-cols, cols) % size)]
    softness = float(rng.uniform(0.18, 0.35) if cumulus else rng.uniform(0.4, 0.9))
    # Opacity passes `DENSE` a little above the threshold; the quantile is taken there, so that the share is met.
    if weather.cloud < 0.01:
        threshold = 99.0
    else:
        threshold = float(np.quantile(over, 1 - min(weather.cloud, 0.999))) - 0.42 * softness
        if weather.cloud > 0.99:
            threshold -= 2.0
    height_m = float(rng.uniform(700, 1900) if cumulus else rng.uniform(900, 3500))
    return CloudField(
        kind="none" if weather.cloud < 0.01 else ("cumulus" if cumulus else "stratus"),
        density=density,
        veil=veil,
        threshold=threshold,
        softness=softness,
        roughness=float(rng.uniform(0.25, 0.4) if cumulus else rng.uniform(0.08, 0.2)),
        height_m=height_m,
        veil_threshold=1.6 - 2.2 * weather.cirrus,
        veil_strength=0.45 * weather.cirrus,
        offset_px=(int(rng.integers(_DETAIL_PX)), int(rng.integers(_DETAIL_PX))),
        seed=seed,
    )


def _ramp(x: np.ndarray) -> np.ndarray:
    t = np.clip(x, 0, 1)
    return t * t * (3 - 2 * t)


def opacity(field: CloudField, x: np.ndarray, y: np.ndarray, *, detail: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """How much of the ground the low clouds hide (0 to 1) and how thick they are (0 to 1) at world coordinates.

    >>> import datetime as dt
    >>> from .weather import weather_at
    >>> clouds = cloud_field(0, "2018-07-01", weather_at(0, dt.datetime(2018, 7, 1, 11)), 8000.0, 5000.0)
    >>> hidden, thickness = opacity(clouds, np.zeros((2, 2)), np.zeros((2, 2)))
    >>> bool((hidden <= 1).all())
    True
    """
    if field.kind == "none":
        nothing = np.zeros(x.shape, np.float32)
        return nothing, nothing
    z = _sample(field.density, x, y, CELL_M) - np.float32(field.threshold)
    if detail:
        # Detail only near and inside clouds: a clear sky stays clear.
        r = (y / np.float32(_DETAIL_CELL_M)).astype(np.int32) + field.offset_px[0]
        c = (x / np.float32(_DETAIL_CELL_M)).astype(np.int32) + field.offset_px[1]
        fine = np.take(_detail(field.seed).ravel(), (r % _DETAIL_PX) * _DETAIL_PX + c % _DETAIL_PX)
        z = z + np.float32(field.roughness) * fine * _ramp(z / 0.6 + 0.8)
    hidden = _ramp(z / np.float32(field.softness)) * np.float32(0.97)
    # Thickness never ends: the midst of a cloud has hills too.
    return hidden, 1 - np.exp(-np.maximum(z, 0) / np.float32(_THICK))


def veil(field: CloudField, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much of the ground thin high cloud hides, 0 to about 0.45."""
    if field.veil_strength < 0.02:
        return np.zeros(x.shape, np.float32)
    z = _sample(field.veil, x, y, CELL_M)
    return np.float32(field.veil_strength) * _ramp((z - np.float32(field.veil_threshold)) / 2.0)


def shadow_shift_m(field: CloudField, sun_azimuth_deg: float, sun_elevation_deg: float) -> tuple[float, float]:
    """Where to look for the cloud that shades a point: the offset towards the sun, metres east and north.

    >>> round(math.hypot(*shadow_shift_m(CloudField("cumulus", np.zeros((2, 2)), np.zeros((2, 2)), 0, 1, 0, 1000.0,
    ...                                             9, 0, (0, 0), 0), 180.0, 45.0)))
    1000
    """
    reach = field.height_m / math.tan(math.radians(max(sun_elevation_deg, 5.0)))
    azimuth = math.radians(sun_azimuth_deg)
    return reach * math.sin(azimuth), reach * math.cos(azimuth)
