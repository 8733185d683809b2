"""Sentinel-2 L2A scenes of the demo world: ground, light, air, clouds, sensor, and a classification that errs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import clouds
from .grid import WORLD_CRS
from .ground import Ground, apply, blur, fill, ground, shifted, transformer
from .noise import resize
from .scenes import Scene, cloud_field_of, inside
from .ships import ships_at
from .spectra import BAND_EFFECTS, BANDS, unit_spectra
from .weather import stream

if TYPE_CHECKING:
    from .landscape import Landscape

__all__ = ["RESOLUTION_M", "render_s2"]

RESOLUTION_M = dict.fromkeys(("B02", "B03", "B04", "B08"), 10)
RESOLUTION_M |= dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12", "SCL"), 20)
RESOLUTION_M |= {"B01": 60, "B09": 60}


def _row(visible: float, edge: float, near: float, swir1: float, swir2: float) -> dict[str, float]:
    groups = {"B01": visible, "B02": visible, "B03": visible, "B04": visible, "B05": edge, "B11": swir1, "B12": swir2}
    return {band: groups.get(band, near) for band in BANDS}


_CLOUD_COLOUR = _row(1.0, 1.0, 1.02, 0.62, 0.46) | {"B09": 0.85}
_VEIL_COLOUR = _row(1.0, 0.98, 0.95, 0.45, 0.35) | {"B09": 1.0}
# What a cloud's shadow leaves: skylight, which is blue.
_SHADOW_LEFT = _row(0.50, 0.42, 0.34, 0.26, 0.24) | {"B01": 0.58, "B02": 0.54}
_CAST_LEFT = _row(0.62, 0.56, 0.48, 0.42, 0.40)
_HAZE_DN = {
    "B01": 300,
    "B02": 230,
    "B03": 150,
    "B04": 115,
    "B05": 90,
    "B06": 55,
    "B07": 40,
    "B08": 35,
    "B8A": 28,
    "B09": 28,
    "B11": 10,
    "B12": 5,
}
_MEAN_HAZE = 0.26  # the spectra were measured through the usual haze; only what differs from it is added
_NOISE_FLOOR_DN = 9.0
_NOISE_SHARE = 0.009
_PSF = {10: 0.20, 20: 0.14}
"""Share of a pixel's signal that each neighbour along an axis gets."""


@dataclass(frozen=True, eq=False)
class _Sky:
    """The clouds over a tile at 20 m."""

    hidden: np.ndarray
    bright: np.ndarray
    thin: np.ndarray
    shadow: np.ndarray
    guessed_shadow: np.ndarray
    """Where a classifier that misjudges the cloud height looks for shadows."""


def _halve(image: np.ndarray) -> np.ndarray:
    """Mean of 2 x 2 blocks."""
    out = image[::2, ::2] + image[1::2, ::2]
    out += image[::2, 1::2]
    out += image[1::2, 1::2]
    return out * np.float32(0.25)


def _double(image: np.ndarray) -> np.ndarray:
    """Linear enlargement by 2, pixel centres aligned."""
    for axis in (0, 1):
        a = np.moveaxis(image, axis, 0)
        before, after = np.concatenate([a[:1], a[:-1]]), np.concatenate([a[1:], a[-1:]])
        out = np.empty((2 * a.shape[0], *a.shape[1:]), np.float32)
        out[0::2] = np.float32(0.75) * a + np.float32(0.25) * before
        out[1::2] = np.float32(0.75) * a + np.float32(0.25) * after
        image = np.moveaxis(out, 0, axis)
    return np.ascontiguousarray(image)


def _thirds(image: np.ndarray) -> np.ndarray:
    """Mean of 3 x 3 blocks; the last block repeats the edge where the tile does not fill it, as real 60 m files do."""
    rows, cols = -image.shape[0] % 3, -image.shape[1] % 3
    full = np.pad(image, ((0, rows), (0, cols)), mode="edge")
    return full.reshape(full.shape[0] // 3, 3, full.shape[1] // 3, 3).mean(axis=(1, 3), dtype=np.float32)


def _light(ground: Ground, azimuth_deg: float, elevation_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """What relief does to the brightness, and where trees and houses throw shadows (0..1), at 10 m."""
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    east, north, up = (
        math.sin(azimuth) * math.cos(elevation),
        math.cos(azimuth) * math.cos(elevation),
        math.sin(elevation),
    )
    toward = ground.slope_x * np.float32(-east) + ground.slope_y * np.float32(-north)
    # The processor corrects for relief with a coarse height model, so about half of the effect stays.
    relief = 1 + np.float32(0.55 / (up + 0.25)) * toward
    np.clip(relief, 0.45, 1.7, out=relief)
    top, rise = ground.top_m, 10 * math.tan(max(elevation, 0.15))
    cast = np.zeros_like(top)
    rows, cols = top.shape
    for k in range(1, min(8, int(24 / rise) + 2)):
        dr, dc = round(-math.cos(azimuth) * k), round(math.sin(azimuth) * k)
        here_r, here_c = slice(max(0, -dr), rows - max(0, dr)), slice(max(0, -dc), cols - max(0, dc))
        there_r, there_c = slice(max(0, dr), rows - max(0, -dr)), slice(max(0, dc), cols - max(0, -dc))
        excess = top[there_r, there_c] - np.float32(k * rise) + np.float32(rise * 0.75) - top[here_r, here_c]
        part = cast[here_r, here_c]
        np.maximum(part, np.clip(excess / np.float32(rise), 0, 1), out=part)
    return relief, cast


def _sky(scene: Scene, ground: Ground, field: clouds.CloudField) -> _Sky | None:
    if field.kind == "none" and field.veil_strength < 0.02:
        return None
    x, y = ground.x20, ground.y20
    hidden, thick = clouds.opacity(field, x, y)
    thin = clouds.veil(field, x, y)
    dx, dy = clouds.shadow_shift_m(field, scene.sun_azimuth_deg, scene.sun_elevation_deg)
    shadow, _ = clouds.opacity(field, x + np.float32(dx), y + np.float32(dy))
    misjudged = 1 + 0.4 * float(stream(scene.seed, scene.id, "height").uniform(-1, 1))
    guessed, _ = clouds.opacity(field, x + np.float32(dx * misjudged), y + np.float32(dy * misjudged), detail=False)
    # The side towards the sun is lit: compare with the thickness 40 and 120 m nearer to the sun.
    step = np.hypot(dx, dy) or 1.0
    lit = np.ones_like(thick)
    for reach_px, weight in ((2, 0.8), (6, 0.6)):
        dr, dc = round(-reach_px * dy / step), round(reach_px * dx / step)
        lit += np.float32(weight) * np.clip(thick - shifted(thick, -dr, -dc), -0.3, 0.3)
    bright = (2500 + 5600 * thick) * lit
    return _Sky(hidden, bright.astype(np.float32), thin, shadow * (1 - hidden), guessed)


def _through(band: str, surface: np.ndarray, sky: _Sky) -> np.ndarray:
    """The ground as seen under and through the clouds."""
    dim = 1 - np.float32(1 - _SHADOW_LEFT[band]) * sky.shadow
    out = surface * dim * (1 - sky.hidden) * (1 - sky.thin)
    out += sky.hidden * sky.bright * np.float32(_CLOUD_COLOUR[band])
    out += sky.thin * np.float32(5200 * _VEIL_COLOUR[band]) * (1 - sky.hidden)
    return out


def _add_ships(land: Landscape, scene: Scene, images: dict[str, np.ndarray]) -> None:
    """White hulls on dark water, in the 10 m bands only: at 20 m they drown."""
    ships = ships_at(land, scene.time.isoformat())
    if not len(ships.x):
        return
    box = scene.geobox
    col, row = apply(~box.affine, *transformer(WORLD_CRS, str(box.crs)).transform(ships.x, ships.y))
    for k in range(len(ships.x)):
        angle = math.radians(float(ships.heading_deg[k]))
        for step in np.arange(-ships.length_m[k] / 2, ships.length_m[k] / 2, 5.0):
            c, r = int(col[k] + step / 10 * math.sin(angle)), int(row[k] - step / 10 * math.cos(angle))
            if 0 <= r < box.shape[0] and 0 <= c < box.shape[1]:
                for image in images.values():
                    image[r, c] = min(image[r, c] + 480.0, 3500.0)


def _classify(scene: Scene, ground: Ground, at20: dict[str, np.ndarray], sky: _Sky | None) -> np.ndarray:
    """The scene classification, as wrong as the real one: it sees reflectance, not truth.

    Bright roofs and beaches pass for clouds, thin edges of clouds are missed, shadows are looked for where a misjudged
    cloud height puts them and are confused with dark water and with conifers in winter.
    """
    blue, green, red, near, swir = (at20[b] for b in ("B02", "B03", "B04", "B8A", "B11"))
    ndvi = (near - red) / np.maximum(near + red, 1)
    scl = np.full(near.shape, 7, np.uint8)
    scl[(ndvi < 0.33) & (swir > 950)] = 5
    scl[ndvi > 0.40] = 4
    dark = (near < 1250) & (swir < 1000) & (ndvi < 0.72)
    scl[dark] = 2
    scl[(near < 1000) & ((green - near) > -60 - 0.05 * green) & (swir < 700)] = 6
    scl[((green - swir) / np.maximum(green + swir, 1) > 0.42) & (green > 2400)] = 11
    rng = stream(scene.seed, scene.id, "scl")
    coarse = rng.standard_normal((near.shape[0] // 4 + 1, near.shape[1] // 4 + 1), dtype=np.float32)
    # Smooth: a classifier is unsure over tens of metres, not in squares. Interpolating leaves two thirds of the spread.
    full = (4 * coarse.shape[0], 4 * coarse.shape[1])
    doubt = np.float32(1.5) * resize(coarse, full)[: near.shape[0], : near.shape[1]]
    white = np.clip((blue - 1900) / 1600, 0, 1) * np.clip(1.4 - (red - blue) / 900, 0.3, 1)
    evidence = 0.85 * white + np.float32(0.05) * doubt
    if sky is not None:
        # Unsure at the edges of clouds, sure in their midst.
        hidden = blur(sky.hidden, 0.25)
        evidence = np.maximum(evidence, hidden * 0.95 - 0.04 + np.float32(0.14) * doubt * (1.1 - hidden))
        scl[(sky.thin + np.float32(0.03) * doubt) > clouds.THIN + 0.01] = 10
        looked_for = (sky.guessed_shadow > 0.3) & (evidence < 0.4)
        scl[looked_for & (near < 1900) & (ndvi < 0.8) & (scl != 10)] = 3
        seen = (sky.shadow > 0.6) & (near < 1400) & (doubt > 0.4) & (scl != 10)
        scl[seen] = 3
    snow = scl == 11
    scl[(evidence > 0.40) & ~snow] = 8
    scl[(evidence > 0.72) & ~snow] = 9
    return scl


def render_s2(land: Landscape, scene: Scene) -> dict[str, np.ndarray]:
    """All files of one Sentinel-2 item as stored: twelve bands (uint16, 0 = no data) and SCL, each at its pixel size.

    A pure function of the landscape and the item: the same bytes in every thread and process.

    >>> # render_s2(build_landscape(0, 512), scenes(0, 512)[1])["B04"].shape -> (512, 512)
    """
    if scene.sensor != "S2":
        raise ValueError(f"{scene.id} is a radar item: render it with render_s1.")
    g = ground(land, scene.tile, scene.geobox)
    table, green = unit_spectra(g.units, scene.time.year, scene.time.timetuple().tm_yday, scene.weather)
    rng = stream(scene.seed, scene.id)
    canopy = g.canopy * np.take(green, g.unit)
    relief, cast = _light(g, scene.sun_azimuth_deg, scene.sun_elevation_deg)
    looks: dict[int, tuple[np.ndarray, ...]] = {10: (canopy, g.bright, g.wet, relief, cast)}
    looks[20] = tuple(_halve(image) for image in looks[10])
    sky20 = _sky(scene, g, cloud_field_of(scene))
    skies: dict[int, _Sky | None] = {20: sky20, 10: None}
    if sky20 is not None:
        hidden, bright, thin, shadow = (_double(i) for i in (sky20.hidden, sky20.bright, sky20.thin, sky20.shadow))
        skies[10] = _Sky(hidden, bright, thin, shadow, sky20.guessed_shadow)
    images: dict[str, np.ndarray] = {}
    for k, band in enumerate(BANDS):
        metres = 10 if RESOLUTION_M[band] == 10 else 20
        canopy_, bright, wet, relief_, cast_ = looks[metres]
        surface = fill(g, table[:, k])
        if metres == 20:
            surface = _halve(surface)
        change = np.float32(BAND_EFFECTS["canopy"][k]) * canopy_
        change += np.float32(BAND_EFFECTS["bright"][k]) * bright
        change += np.float32(BAND_EFFECTS["wet"][k]) * wet
        surface *= np.exp(change)
        surface *= relief_ * (1 - np.float32(1 - _CAST_LEFT[band]) * cast_)
        images[band] = blur(surface, _PSF[metres])
    _add_ships(land, scene, {band: images[band] for band in RESOLUTION_M if RESOLUTION_M[band] == 10})
    for band in BANDS:
        metres = 10 if RESOLUTION_M[band] == 10 else 20
        sky = skies[metres]
        images[band] += np.float32((scene.weather.haze - _MEAN_HAZE) * _HAZE_DN[band])
        if sky is not None:
            images[band] = _through(band, images[band], sky)
        if RESOLUTION_M[band] == 60:
            images[band] = _thirds(images[band])
        noise = rng.standard_normal(images[band].shape, dtype=np.float32)
        noise *= np.float32(_NOISE_FLOOR_DN) + np.float32(_NOISE_SHARE) * images[band]
        images[band] += noise
    at20 = {b: _halve(images[b]) if RESOLUTION_M[b] == 10 else images[b] for b in ("B02", "B03", "B04", "B8A", "B11")}
    scl = _classify(scene, g, at20, sky20)
    seen20 = inside(scene, g.x20, g.y20)
    seen = {20: seen20, 10: np.repeat(np.repeat(seen20, 2, 0), 2, 1), 60: _thirds(seen20.astype(np.float32)) == 1}
    out: dict[str, np.ndarray] = {}
    for band, image in images.items():
        stored = np.clip(np.rint(image) + scene.offset_dn, 1, 65535).astype(np.uint16)
        stored[~seen[RESOLUTION_M[band]]] = 0
        out[band] = stored
    scl[~seen20] = 0
    out["SCL"] = scl
    return out
