"""Sentinel-1 scenes of the demo world: terrain-corrected gamma0 with incidence, rain, wind, ships and speckle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .backscatter import FLOOR_DB, MEDIAN_SPECKLE_DB, REFERENCE_ANGLE_DEG, unit_backscatter
from .classes import Cover
from .clouds import periodic_noise
from .grid import WORLD_CRS
from .ground import Ground, apply, blur, fill, ground, shifted, transformer, world_xy
from .scenes import Scene, inside
from .ships import ships_at
from .weather import stream

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from .landscape import Landscape

__all__ = ["LOOKS", "NODATA", "incidence_deg", "mean_power", "render_s1", "speckle"]

LOOKS = 4.4
"""Equivalent number of looks of IW GRDH."""
NODATA = -32768.0
ANGLE_SPACING_M = 100
_SPECKLE_KERNEL = (0.29, 0.42)
"""Neighbour and centre weights that give correlations of 0.7 and 0.25 at one and two pixels."""
_PSF = 0.2
# At the world's middle; the swath spans 29 to 46 degrees over 250 km, so a tile sees less than one degree of it.
_MIDDLE_DEG = {"ascending": 37.0, "descending": 40.5}
_DEG_PER_M = 17.0 / 250_000
_PIXEL_SD_DB = {
    Cover.CROP: 0.6,
    Cover.GRASSLAND: 0.8,
    Cover.BROADLEAF: 0.8,
    Cover.CONIFER: 0.8,
    Cover.HEATH: 0.9,
    Cover.MARSH: 0.7,
    Cover.SALT_MARSH: 1.2,
    Cover.BEACH: 1.0,
    Cover.TIDAL_FLAT: 0.9,
    Cover.BUILDING: 2.7,
    Cover.INDUSTRY: 3.0,
    Cover.GARDEN: 1.5,
    Cover.ASPHALT: 1.7,
    Cover.RAILWAY: 1.5,
    Cover.QUARRY: 1.7,
    Cover.SOLAR: 1.4,
    Cover.ROCK: 1.5,
    Cover.HEDGE: 0.9,
}


def incidence_deg(scene: Scene, x: np.ndarray) -> np.ndarray:
    """Ellipsoidal incidence angle: an ascending pass looks east, so it grows eastward; a descending one looks west.

    >>> # incidence_deg(scene, np.array([-5000.0, 5000.0]))
    """
    side = 1.0 if scene.orbit == "ascending" else -1.0
    return np.asarray(_MIDDLE_DEG[scene.orbit] + side * _DEG_PER_M * x, dtype=np.float32)


def _texture_db(scene: Scene, g: Ground) -> np.ndarray:
    """Lasting differences between pixels of one unit: reflectors stay where they are, but each orbit has its own."""
    sd = np.zeros(max(Cover) + 1, np.float32)
    for cover, value in _PIXEL_SD_DB.items():
        sd[cover] = value
    grain = stream(scene.seed, "scatterers", scene.orbit).standard_normal(g.plane, dtype=np.float32)
    out = np.float32(0.6) * np.take(grain, g.place)
    for name, weight in (("canopy", 0.9), ("wet", 0.8)):
        values = getattr(g, name)
        out += np.float32(weight / max(float(values.std()), 1e-6) * 0.45) * values
    return out * np.take(sd, g.cover)


def _relief_db(scene: Scene, g: Ground) -> np.ndarray:
    """What terrain flattening leaves on slopes, and the bright and dark edges of woods and houses."""
    # Right-looking: ascending (heading 347 degrees) looks to 77, descending (193) to 283.
    toward = math.radians(77.0 if scene.orbit == "ascending" else 283.0)
    up_slope = g.slope_x * np.float32(math.sin(toward)) + g.slope_y * np.float32(math.cos(toward))
    out = np.clip(5.0 * up_slope, -2.0, 2.0)
    side = 1 if scene.orbit == "ascending" else -1
    nearer = shifted(g.top_m, 0, side)
    out += np.clip((g.top_m - nearer) / 12, -1.6, 1.3)
    return out.astype(np.float32)


def _sea_texture_db(scene: Scene, g: Ground) -> np.ndarray:
    """Gusts and slicks on open water."""
    field = periodic_noise(stream(scene.seed, "gusts", scene.time.isoformat()), 256, 1.5, 2.0)
    r = (g.y20 / 40.0).astype(np.int32) % 256
    c = (g.x20 / 40.0).astype(np.int32) % 256
    rough = np.repeat(np.repeat(field[r, c], 2, 0), 2, 1)[: g.cover.shape[0], : g.cover.shape[1]]
    return np.float32(0.8) * rough


def _add_ships(land: Landscape, scene: Scene, box: GeoBox, powers: tuple[np.ndarray, np.ndarray]) -> None:
    ships = ships_at(land, scene.time.isoformat())
    if not len(ships.x):
        return
    col, row = apply(~box.affine, *transformer(WORLD_CRS, str(box.crs)).transform(ships.x, ships.y))
    rng = stream(scene.seed, scene.time.isoformat(), "hulls")
    strength = 10 ** (rng.uniform(0.9, 2.1, len(ships.x)) + ships.length_m / 400)
    for k in range(len(ships.x)):
        angle = math.radians(float(ships.heading_deg[k]))
        for step in np.arange(-ships.length_m[k] / 2, ships.length_m[k] / 2, 8.0):
            c, r = int(col[k] + step / 10 * math.sin(angle)), int(row[k] - step / 10 * math.cos(angle))
            # The main lobe and the nearest side lobes of a strong point.
            for dr, dc, part in (
                (0, 0, 0.3),
                (0, 1, 0.1),
                (0, -1, 0.1),
                (1, 0, 0.1),
                (-1, 0, 0.1),
                (0, 2, 0.02),
                (2, 0, 0.02),
            ):
                if 0 <= r + dr < box.shape[0] and 0 <= c + dc < box.shape[1]:
                    powers[0][r + dr, c + dc] += part * strength[k]
                    powers[1][r + dr, c + dc] += part * strength[k] * 0.12


def mean_power(land: Landscape, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """VV and VH without speckle, linear gamma0 with the instrument's noise: what many looks would converge to.

    >>> # mean_power(build_landscape(0, 512), scene)[0].shape -> (512, 512)
    """
    g = ground(land, scene.tile, scene.geobox)
    db, slope = unit_backscatter(g.units, scene.time.year, scene.time.timetuple().tm_yday, scene.weather)
    x10, _ = world_xy(scene.geobox, 1)
    from_reference = incidence_deg(scene, x10) - np.float32(REFERENCE_ANGLE_DEG)
    water = np.isin(g.cover, (Cover.SEA, Cover.LAKE))
    shared = np.take(slope.astype(np.float32), g.unit) * from_reference
    shared += _relief_db(scene, g)
    shared += np.where(water, _sea_texture_db(scene, g), 0)
    texture = _texture_db(scene, g)
    to_nepers = np.float32(math.log(10) / 10)
    out = []
    for k, factor in enumerate((1.0, 1.1)):
        # Mixed pixels add power, not decibels.
        power = fill(g, 10 ** ((db[k] + MEDIAN_SPECKLE_DB) / 10))
        power *= np.exp((shared + np.float32(factor) * texture) * to_nepers)
        out.append(blur(power, _PSF))
    _add_ships(land, scene, scene.geobox, (out[0], out[1]))
    for k in range(2):
        out[k] += np.float32(10 ** (FLOOR_DB[k] / 10))
    return out[0], out[1]


def speckle(rng: np.random.Generator, shape: tuple[int, int], looks: float = LOOKS) -> np.ndarray:
    """Multiplicative speckle of mean 1 and so many looks, as much alike from pixel to pixel as in real scenes.

    Pixels of 10 m sample a resolution of 20 m, so neighbours share most of their speckle (a correlation of 0.7 in the
    real patches). Smoothing would raise the number of looks; the raw draw has just so many fewer.

    >>> values = speckle(np.random.default_rng(0), (300, 300), 4.4)
    >>> bool(abs(values.mean() ** 2 / values.var() - 4.4) < 0.3)
    True
    """
    edge, middle = np.float32(_SPECKLE_KERNEL[0]), np.float32(_SPECKLE_KERNEL[1])
    raw_looks = looks * (2 * _SPECKLE_KERNEL[0] ** 2 + _SPECKLE_KERNEL[1] ** 2) ** 2
    raw = rng.standard_gamma(raw_looks, (shape[0] + 2, shape[1] + 2), dtype=np.float32)
    rows = edge * (raw[:-2] + raw[2:]) + middle * raw[1:-1]
    both = edge * (rows[:, :-2] + rows[:, 2:]) + middle * rows[:, 1:-1]
    return np.asarray(both * np.float32(1 / raw_looks))


def render_s1(land: Landscape, scene: Scene, looks: float = LOOKS) -> dict[str, np.ndarray]:
    """All files of one Sentinel-1 item: `vv` and `vh` (linear gamma0, float32, -32768 = no data) and `angle` at 100 m.

    A pure function of the landscape and the item: the same bytes in every thread and process.

    >>> # render_s1(build_landscape(0, 512), scene)["vv"].dtype -> float32
    """
    if scene.sensor != "S1":
        raise ValueError(f"{scene.id} is an optical item: render it with render_s2.")
    g = ground(land, scene.tile, scene.geobox)
    rng = stream(scene.seed, scene.id)
    seen20 = inside(scene, g.x20, g.y20)
    seen = np.repeat(np.repeat(seen20, 2, 0), 2, 1)[: g.cover.shape[0], : g.cover.shape[1]]
    out: dict[str, np.ndarray] = {}
    for name, power in zip(("vv", "vh"), mean_power(land, scene), strict=True):
        power *= speckle(rng, power.shape, looks)
        np.maximum(power, np.float32(1e-6), out=power)
        power[~seen] = NODATA
        out[name] = power
    x100, y100 = world_xy(scene.geobox, ANGLE_SPACING_M // 10)
    angle = incidence_deg(scene, x100)
    angle[~inside(scene, x100, y100)] = NODATA
    out["angle"] = angle
    return out
