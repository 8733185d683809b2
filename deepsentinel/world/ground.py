"""What a tile's pixels are made of: everything about them that does not change with the date, computed once."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.files import atomic_path

from .classes import Cover
from .grid import WORLD_CRS, sample, transformer
from .lattice import is_any
from .noise import fractal, hash01, resize
from .spectra import VARIANTS, Units, make_units
from .weather import stream

if TYPE_CHECKING:
    from affine import Affine
    from odc.geo.geobox import GeoBox

    from .landscape import Landscape

__all__ = [
    "Ground",
    "apply",
    "blur",
    "fill",
    "ground",
    "ground_path",
    "save_ground",
    "shifted",
    "transformer",
    "world_xy",
]

# Size of a stand, a roof, a garden in 5 m cells: ground without a parcel number changes its look at this scale.
_PATCH_CELLS = {
    3: (Cover.HEDGE, Cover.RAILWAY, Cover.SOLAR),
    10: (Cover.INDUSTRY, Cover.QUARRY, Cover.ROCK, Cover.BEACH),
    # Roofs, gardens and pavings of one block were made at one time, of one stuff.
    17: (Cover.BUILDING, Cover.GARDEN, Cover.ASPHALT),
    26: (Cover.BROADLEAF, Cover.CONIFER, Cover.HEATH, Cover.GRASSLAND, Cover.MARSH, Cover.SALT_MARSH),
}
_UNFENCED = (Cover.HEATH, Cover.MARSH, Cover.SALT_MARSH)
# How much pixels of one unit differ: canopy, brightness, wetness.
_TEXTURE: dict[Cover, tuple[float, float, float]] = {
    Cover.SEA: (0.00, 0.04, 0.00),
    Cover.LAKE: (0.00, 0.06, 0.00),
    Cover.RIVER: (0.00, 0.10, 0.00),
    Cover.BEACH: (0.06, 0.16, 0.18),
    Cover.TIDAL_FLAT: (0.06, 0.16, 0.24),
    Cover.SALT_MARSH: (0.42, 0.17, 0.30),
    Cover.MARSH: (0.42, 0.17, 0.30),
    Cover.BROADLEAF: (0.12, 0.17, 0.10),
    Cover.CONIFER: (0.14, 0.20, 0.12),
    Cover.HEATH: (0.38, 0.17, 0.22),
    Cover.GRASSLAND: (0.24, 0.08, 0.12),
    Cover.CROP: (0.16, 0.07, 0.10),
    Cover.BUILDING: (0.00, 0.12, 0.10),
    Cover.ASPHALT: (0.06, 0.12, 0.08),
    Cover.GARDEN: (0.26, 0.10, 0.10),
    Cover.INDUSTRY: (0.00, 0.26, 0.12),
    Cover.RAILWAY: (0.12, 0.18, 0.12),
    Cover.QUARRY: (0.12, 0.24, 0.24),
    Cover.SOLAR: (0.12, 0.12, 0.06),
    Cover.ROCK: (0.24, 0.24, 0.18),
    Cover.HEDGE: (0.24, 0.18, 0.12),
}
_HEIGHT_M = {Cover.BROADLEAF: 17.0, Cover.CONIFER: 20.0, Cover.HEDGE: 6.0, Cover.BUILDING: 7.0, Cover.INDUSTRY: 9.0}


@dataclass(frozen=True, eq=False)
class Ground:
    """The unchanging side of one tile, on its 10 m grid unless said otherwise."""

    units: Units
    unit: np.ndarray
    """uint16, the unit that each pixel's first quarter belongs to."""
    mixed: np.ndarray
    """Flat indices of the pixels whose four quarters are not all of one unit."""
    quarters: np.ndarray
    """(4, mixed pixels) uint16: their units."""
    cover: np.ndarray
    """uint8, the cover of the pixel's first quarter."""
    canopy: np.ndarray
    """float32, texture of the vegetation's density."""
    bright: np.ndarray
    """float32, texture of brightness."""
    wet: np.ndarray
    """float32, texture of wetness."""
    slope_x: np.ndarray
    """float32, metres of height a metre eastward."""
    slope_y: np.ndarray
    """float32, metres of height a metre northward."""
    top_m: np.ndarray
    """float32, height of what stands on the ground."""
    depth_m: np.ndarray
    """float32, depth of the sea, 0 on land."""
    x20: np.ndarray
    """float32, world x of the 20 m pixels' centres."""
    y20: np.ndarray
    """float32, world y of the 20 m pixels' centres."""
    plane: tuple[int, int]
    """Rows and columns of the world plane in cells of 10 m."""
    place: np.ndarray
    """Flat index of each pixel's cell on that plane: what is drawn there is the same for both tiles."""


def apply(affine: Affine, cols: Any, rows: Any) -> tuple[Any, Any]:
    """Column and row to x and y, written out: the operator for it differs between versions of affine."""
    return affine.a * cols + affine.b * rows + affine.c, affine.d * cols + affine.e * rows + affine.f


def world_xy(box: GeoBox, step: int) -> tuple[np.ndarray, np.ndarray]:
    """World coordinates of the centres of blocks of `step` pixels, interpolated between a few exact ones."""
    to_world = transformer(str(box.crs), WORLD_CRS)
    n_rows, n_cols = -(-box.shape[0] // step), -(-box.shape[1] // step)
    knots = 33
    rows = (np.arange(knots) + 0.5) * n_rows * step / knots
    cols = (np.arange(knots) + 0.5) * n_cols * step / knots
    cc, rr = np.meshgrid(cols, rows)
    x, y = to_world.transform(*apply(box.affine, cc, rr))
    # The projection is a plane over 10 km but for centimetres; a least-squares plane avoids the resampler's edges.
    design = np.column_stack([np.ones(cc.size), cc.ravel(), rr.ravel(), (cc * rr).ravel()])
    kx, *_ = np.linalg.lstsq(design, x.ravel(), rcond=None)
    ky, *_ = np.linalg.lstsq(design, y.ravel(), rcond=None)
    c = ((np.arange(n_cols) + 0.5) * step)[None, :]
    r = ((np.arange(n_rows) + 0.5) * step)[:, None]
    x_out, y_out = ((k[0] + k[1] * c + k[2] * r + k[3] * c * r).astype(np.float32) for k in (kx, ky))
    return x_out, y_out


def fill(ground: Ground, values: np.ndarray) -> np.ndarray:
    """An image from one value a unit; pixels of several units get the mean of their quarters.

    >>> # fill(ground, table[:, 3]) is the red band before anything happens to it
    """
    values = np.ascontiguousarray(values, dtype=np.float32)
    image = np.take(values, ground.unit)
    part = np.take(values, ground.quarters[0])
    for quarter in ground.quarters[1:]:
        part += np.take(values, quarter)
    image.ravel()[ground.mixed] = part * np.float32(0.25)
    return image


def blur(image: np.ndarray, share: float) -> np.ndarray:
    """The point spread function: each neighbour along an axis gets `share`."""
    s = np.float32(share)
    out = image * (1 - 2 * s)
    out[1:] += s * image[:-1]
    out[:-1] += s * image[1:]
    out[0] += s * image[0]
    out[-1] += s * image[-1]
    second = out * (1 - 2 * s)
    second[:, 1:] += s * out[:, :-1]
    second[:, :-1] += s * out[:, 1:]
    second[:, 0] += s * out[:, 0]
    second[:, -1] += s * out[:, -1]
    return second


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """The image moved by whole pixels; its edges are repeated, so nothing comes in from the other side.

    >>> shifted(np.array([[1, 2, 3]]), 0, 1).tolist()
    [[1, 1, 2]]
    """
    rows = np.clip(np.arange(image.shape[0]) - down, 0, image.shape[0] - 1)
    cols = np.clip(np.arange(image.shape[1]) - right, 0, image.shape[1] - 1)
    return image[rows[:, None], cols]


def _patches(rows: np.ndarray, cols: np.ndarray, warp: tuple[np.ndarray, np.ndarray], cells: int) -> np.ndarray:
    """A number below `VARIANTS` for every patch of about `cells` cells, with ragged outlines."""
    r = ((rows + (warp[0] * cells * 0.6).astype(np.int32)) // cells).astype(np.uint32)
    c = ((cols + (warp[1] * cells * 0.6).astype(np.int32)) // cells).astype(np.uint32)
    mixed = (r * np.uint32(0x9E3779B1)) ^ (c * np.uint32(0x85EBCA77))
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x2C1B3C6D)
    return ((mixed >> np.uint32(13)) % np.uint32(VARIANTS)).astype(np.uint16)


def _by_cover(table: dict[Cover, float]) -> np.ndarray:
    out = np.zeros(max(Cover) + 1, np.float32)
    for cover, value in table.items():
        out[cover] = value
    return out


def _turbidity(land: Landscape, cover: np.ndarray, height: np.ndarray, swirl: np.ndarray) -> np.ndarray:
    """0 clear .. 1 muddy: shallow sea and the river's plume are muddy, the lake is not."""
    depth = np.maximum(-height, 0)
    sea = 0.55 * np.exp(-depth / 1.5) + 0.22 * np.exp(-depth / 9.0) + 0.05 * (1.3 + swirl) * np.exp(-depth / 15.0)
    lake = 0.18 + 0.06 * swirl
    river = 0.5 + 0.08 * swirl
    value = np.where(cover == Cover.SEA, sea, np.where(cover == Cover.LAKE, lake, river))
    return np.clip(value, 0, 1)


@lru_cache(maxsize=1)
def _noise(seed: int, plane: tuple[int, int]) -> dict[str, np.ndarray]:
    """The random fields of the world plane; kept, because the other tile is usually wanted next. Read-only."""
    return {
        name: fractal(stream(seed, "texture", name), plane, cell, octaves, gain)
        for name, cell, octaves, gain in (
            ("canopy", 40.0, 6, 0.62),
            ("bright", 70.0, 6, 0.58),
            ("wet", 50.0, 5, 0.55),
            ("warp", 12.0, 2, 0.5),
            ("warp across", 12.0, 2, 0.5),
            ("swirl", 120.0, 4, 0.5),
        )
    }


def _units(land: Landscape) -> Units:
    names = ("crop_2018", "crop_2019", "sow_shift_days", "vigour", "row_angle_deg")
    return make_units(land.seed, *(land.parcels[name].to_numpy() for name in names))


def _build(land: Landscape, box: GeoBox) -> Ground:
    rows, cols = sample(land, box, 2)
    at5 = rows * land.shape[1] + cols
    cover, parcel = np.take(land.cover, at5), np.take(land.parcel, at5)
    units = _units(land)
    # Everything random about the ground lives on the world plane, so that both tiles show the same where they overlap.
    plane = (land.shape[0] // 2, land.shape[1] // 2)
    noise = _noise(land.seed, plane)

    def on_plane(name: str, pick: np.ndarray) -> np.ndarray:
        """Values of a noise under some of the quarters."""
        r, c = np.minimum(rows[pick] // 2, plane[0] - 1), np.minimum(cols[pick] // 2, plane[1] - 1)
        return np.take(noise[name], r * plane[1] + c)

    variant = np.zeros(cover.shape, np.uint16)
    for cells, covers in _PATCH_CELLS.items():
        at = is_any(cover, list(covers))
        shift = on_plane("warp", at), on_plane("warp across", at)
        if cells > 20:
            # Wild ground has no fences: its patches run into each other.
            loose = np.where(is_any(cover[at], list(_UNFENCED)), np.float32(0.45), np.float32(0.05))
            loose *= np.float32(math.sqrt(12))  # of uniform numbers, which are drawn faster than normal ones
            jitter = stream(land.seed, "jitter").random(land.shape, dtype=np.float32) - np.float32(0.5)
            far = (at5[at] + jitter.size // 2) % jitter.size
            shift = shift[0] + loose * np.take(jitter, at5[at]), shift[1] + loose * np.take(jitter, far)
        variant[at] = _patches(rows[at], cols[at], shift, cells)
    wet_at = is_any(cover, [Cover.SEA, Cover.LAKE, Cover.RIVER])
    level = _turbidity(land, cover[wet_at], np.take(land.height, at5[wet_at]), on_plane("swirl", wet_at))
    # Dithered, or the levels would show as contours.
    dither = hash01(at5[wet_at], land.seed)
    variant[wet_at] = np.clip(level * (VARIANTS - 1) + dither, 0, VARIANTS - 1).astype(np.uint16)
    flat_at = cover == Cover.TIDAL_FLAT
    flat_m = np.take(land.height, at5[flat_at])
    variant[flat_at] = np.clip((flat_m + 3.0) / 7.0 * (VARIANTS - 1) + 0.5, 0, VARIANTS - 1).astype(np.uint16)
    kind = np.where((cover == Cover.CROP) & (parcel == 0), np.uint8(Cover.GRASSLAND), cover)
    unit = np.where(kind == Cover.CROP, parcel, units.parcels + 1 + kind.astype(np.int32) * VARIANTS + variant).astype(
        np.uint16
    )

    size = (box.shape[0], box.shape[1])
    quarters = np.stack([unit[i::2, j::2] for i in (0, 1) for j in (0, 1)]).reshape(4, -1)
    mixed = np.flatnonzero((quarters[1:] != quarters[0]).any(axis=0))
    first = quarters[0].reshape(size)
    cover10 = kind[::2, ::2]

    r, c = sample(land, box, 1)
    place = np.minimum(r // 2, plane[0] - 1) * plane[1] + np.minimum(c // 2, plane[1] - 1)
    texture = [np.take(noise[name], place) for name in ("canopy", "bright", "wet")]
    grain = [
        np.take(stream(land.seed, "grain", k).standard_normal(plane, dtype=np.float32), place)
        for k in ("canopy", "bright")
    ]
    texture[0] = 0.85 * texture[0] + 0.35 * grain[0] + _rows_of_crops(units, first, box)
    texture[0] += np.where(is_any(cover10, [Cover.BROADLEAF, Cover.CONIFER]), 3.0 * (land.tree[r, c] - 0.5), 0)
    texture[1] = 0.85 * texture[1] + 0.5 * grain[1]
    texture[2] = 0.6 * texture[2] + 2.0 * (land.moisture[r, c] - 0.5)
    amplitude = [_by_cover({cov: row[k] for cov, row in _TEXTURE.items()}) for k in range(3)]
    textured = [(amplitude[k][cover10] * np.clip(texture[k], -3, 3)).astype(np.float32) for k in range(3)]

    smooth_height = resize(_block_mean(land.height[r, c], 4), size, cubic=True)
    slope_r, slope_c = np.gradient(smooth_height, 10.0)
    x20, y20 = world_xy(box, 2)
    return Ground(
        units=units,
        unit=np.ascontiguousarray(first),
        mixed=mixed,
        quarters=np.ascontiguousarray(quarters[:, mixed]),
        cover=np.ascontiguousarray(cover10).astype(np.uint8),
        canopy=textured[0],
        bright=textured[1],
        wet=textured[2],
        slope_x=slope_c.astype(np.float32),
        slope_y=(-slope_r).astype(np.float32),
        top_m=(_by_cover(_HEIGHT_M)[cover10] * (0.7 + 0.5 * land.tree[r, c])).astype(np.float32),
        depth_m=np.where(cover10 == Cover.SEA, np.maximum(-land.height[r, c], 0), 0).astype(np.float32),
        x20=x20,
        y20=y20,
        plane=plane,
        place=place,
    )


def _block_mean(image: np.ndarray, factor: int) -> np.ndarray:
    rows, cols = image.shape[0] // factor * factor, image.shape[1] // factor * factor
    cut = image[:rows, :cols]
    return cut.reshape(rows // factor, factor, cols // factor, factor).mean(axis=(1, 3))


def _rows_of_crops(units: Units, unit: np.ndarray, box: GeoBox) -> np.ndarray:
    """Tramlines and the strips in which a field was worked, along each parcel's rows."""
    x, y = world_xy(box, 1)
    angle = np.radians(units.row_angle_deg)
    cos, sin = np.take(np.cos(angle).astype(np.float32), unit), np.take(np.sin(angle).astype(np.float32), unit)
    across = x * sin - y * cos
    period = (40 + 110 * units.ranks[:, 6]).astype(np.float32)
    strips = np.sin(
        across * (2 * np.pi / np.take(period, unit)) + np.take(units.ranks[:, 7] * 6.28, unit).astype(np.float32)
    )
    tramlines = np.cos(across * np.float32(2 * np.pi / 27.0))
    strength = (0.8 * units.ranks[:, 8] ** 2).astype(np.float32)
    strength[units.parcels + 1 :] = 0
    strength[0] = 0
    s = np.take(strength, unit)
    return s * (np.clip(3 * strips, -1, 1) + 0.35 * tramlines)


_CACHE: dict[tuple[int, str], tuple[Landscape, Ground]] = {}
_LOCK = Lock()
_KEEP = 4


def ground(land: Landscape, tile: str, box: GeoBox) -> Ground:
    """The ground of a tile, kept for the life of the process (a few of them).

    A landscape that was loaded may have it lying beside its file, which spares a second of computing.
    """
    key = (id(land), tile)
    with _LOCK:
        if key not in _CACHE:
            while len(_CACHE) >= _KEEP:
                _CACHE.pop(next(iter(_CACHE)))
            path = ground_path(land.home, tile) if land.home else None
            made = _load(path, land) if path and path.is_file() else _build(land, box)
            # The landscape is kept with it: as long as it is alive, no other one can get its id.
            _CACHE[key] = (land, made)
        return _CACHE[key][1]


def ground_path(folder: Path, tile: str) -> Path:
    """Where the ground of a tile lies in the folder of its landscape.

    >>> ground_path(Path("world"), "30UYV").as_posix()
    'world/ground-30UYV.npz'
    """
    return folder / f"ground-{tile}.npz"


def save_ground(land: Landscape, tile: str, box: GeoBox, folder: Path) -> None:
    """Make the ground of a tile and lay it in the folder where the landscape is saved."""
    made = _build(land, box)
    arrays = {f.name: getattr(made, f.name) for f in fields(Ground) if f.name != "units"}
    with atomic_path(ground_path(folder, tile)) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _load(path: Path, land: Landscape) -> Ground:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    rows, cols = (int(n) for n in arrays.pop("plane"))
    return Ground(units=_units(land), plane=(rows, cols), **arrays)
