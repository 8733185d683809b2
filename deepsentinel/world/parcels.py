"""Fields: how the countryside is cut up, what becomes a parcel, and what grows there in which year."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import shapely

from .classes import Cover, Crop
from .grid import MasterGrid
from .lattice import outlines, plain, ramp
from .noise import fractal, hash01, resize, rng_for
from .splitting import Cut, split
from .terrain import Terrain

__all__ = ["Cells", "crop_table", "cut_fields", "number_parcels"]

_MIN_PARCEL_M2 = 5000.0


@dataclass(eq=False)
class Cells:
    """The countryside cut into pieces, before anyone decided what they are for."""

    label: np.ndarray
    """int32 on the 5 m lattice, 1..n."""
    count: int
    """Number of pieces."""
    angle_deg: np.ndarray
    """(n + 1,) direction of ploughing of each piece, by label."""
    bocage: np.ndarray
    """0 open fields .. 1 small hedged pastures, on the 20 m lattice."""
    cuts: list[Cut]
    """Lines between pieces, on the ground."""
    shift: tuple[np.ndarray, np.ndarray]
    """Metres by which straight cuts were bent, x and y, on the 20 m lattice."""


def cut_fields(seed: int, master: MasterGrid, land: Terrain) -> Cells:
    """Cut everything into field-sized pieces: long and large on the plains, small and crooked in the bocage."""
    from rasterio.features import rasterize

    rng = rng_for(seed, "fields")
    grid = land.grid
    tile = max(land.scale, 0.4)
    bocage = fractal(rng, grid.shape, 5200 * tile / 20, 2) + 5.0 * (land.slope - 0.05) + 0.35 * land.wetness
    low, high = np.quantile(bocage[land.coast_m > 0], [0.50, 0.74])
    bocage = ramp(bocage, low, high)
    lean = rng.uniform(0, 180) + 75 * fractal(rng, grid.shape, 2600 * tile / 20, 2)
    rows_n, cols_n = grid.shape
    bocage_rows, lean_rows = bocage.tolist(), lean.tolist()

    def look(table: list[list[float]], x: float, y: float) -> float:
        row = min(max(int((grid.origin_y - y) / 20), 0), rows_n - 1)
        return table[row][min(max(int((x - grid.origin_x) / 20), 0), cols_n - 1)]

    def target_m2(x: float, y: float) -> float:
        median = 142000 * (64000 / 142000) ** look(bocage_rows, x, y)
        return median * math.exp(0.58 * rng.standard_normal())

    west, north = grid.origin_x - 120, grid.origin_y + 120
    east, south = grid.origin_x + cols_n * 20 + 120, grid.origin_y - rows_n * 20 - 120
    turn = math.radians(rng.uniform(-20, 20))
    cx, cy, far = (west + east) / 2, (north + south) / 2, 0.75 * math.hypot(east - west, north - south)
    ring = [
        (cx + far * math.cos(turn + k * math.pi / 2), cy + far * math.sin(turn + k * math.pi / 2)) for k in range(4)
    ]
    shore, edge = land.coast_m.tolist(), 200.0

    def keep(x: float, y: float, radius: float) -> bool:
        if x + radius < west or x - radius > east or y + radius < south or y - radius > north:
            return False
        return radius > 600 or look(shore, x, y) > -radius - edge

    plots, cuts = split(
        ring,
        rng,
        target_m2=target_m2,
        angle_deg=lambda x, y: look(lean_rows, x, y),
        elongation=2.0,
        jitter_deg=3.5,
        estate_m2=2.2e6,
        keep=keep,
    )
    straight = rasterize(
        (({"type": "Polygon", "coordinates": [[*p.points, p.points[0]]]}, k) for k, p in enumerate(plots, 1)),
        out_shape=master.shape,
        transform=master.transform,
        dtype="int32",
    )
    # Bend the straight cuts: by little on the plains, more where farms are old and land is hilly.
    strength = 9 + 20 * bocage
    shift = tuple(strength * fractal(rng, grid.shape, 420 / 20, 3) for _ in range(2))
    label = _bend(straight, shift)
    angles = np.zeros(len(plots) + 1, dtype=np.float32)
    for k, plot in enumerate(plots, 1):
        angles[k] = _side_deg(plot.points) % 180
    return Cells(label, len(plots), angles, bocage.astype(np.float32), cuts, (shift[0], shift[1]))


def _bend(label: np.ndarray, shift: tuple[np.ndarray, ...]) -> np.ndarray:
    rows, cols = label.shape
    col = np.arange(cols, dtype=np.float32)[None, :] + resize(shift[0], label.shape) / 5.0
    np.clip(col, 0, cols - 1, out=col)
    row = np.arange(rows, dtype=np.float32)[:, None] + resize(shift[1], label.shape) / 5.0
    np.clip(row, 0, rows - 1, out=row)
    index = row.astype(np.int32)
    index *= cols
    index += col.astype(np.int32)
    return label.ravel()[index]


def _side_deg(points: list[tuple[float, float]]) -> float:
    x, y = max(
        ((b[0] - a[0], b[1] - a[1]) for a, b in zip(points, points[1:] + points[:1], strict=True)),
        key=lambda d: d[0] ** 2 + d[1] ** 2,
    )
    return math.degrees(math.atan2(y, x))


def number_parcels(
    cover: np.ndarray, label: np.ndarray, field: np.ndarray, master: MasterGrid
) -> tuple[np.ndarray, list, np.ndarray]:
    """Connected farmland of one piece is one parcel: raster of numbers, outlines, and the piece each belongs to.

    Roads, hedges and streams have split some pieces by now. Leftovers under 0.5 ha are rough grass, in nobody's file.
    `cover` is changed there.
    """
    from rasterio.features import rasterize

    found, values = outlines(label, master, field)
    area = shapely.area(found)
    # Slivers between a road and a hedge are as good as nothing, however long.
    small = (area < _MIN_PARCEL_M2) | (area < 7.0 * shapely.length(found))
    kept, pieces = found[~small], values[~small]
    number = np.where(small, -1, np.cumsum(~small))
    # Most pieces are one parcel, so a look-up does; only pieces that were cut apart have to be drawn.
    whole = np.bincount(values, minlength=int(label.max()) + 1)[values] == 1
    table = np.zeros(int(label.max()) + 1, dtype=np.int32)
    table[values[whole]] = number[whole]
    parcel = table[label]
    if not whole.all():
        rasterize(
            zip(plain(found[~whole]), number[~whole].tolist(), strict=True), out=parcel, transform=master.transform
        )
    parcel[~field] = 0
    cover[parcel < 0] = Cover.GRASSLAND
    np.maximum(parcel, 0, out=parcel)
    # Shared borders are simplified together, so that neighbours neither overlap nor come apart.
    smooth = shapely.coverage_simplify(kept, 5.5)
    return parcel, list(smooth), pieces


_ROTATION: dict[int, tuple[tuple[int, float], ...]] = {
    Crop.WINTER_WHEAT: (
        (Crop.WINTER_BARLEY, 0.24), (Crop.RAPESEED, 0.24), (Crop.SUGAR_BEET, 0.14), (Crop.MAIZE, 0.14),
        (Crop.SPRING_BARLEY, 0.08), (Crop.POTATO, 0.07), (Crop.WINTER_WHEAT, 0.09),
    ),
    Crop.WINTER_BARLEY: ((Crop.RAPESEED, 0.5), (Crop.MAIZE, 0.25), (Crop.WINTER_WHEAT, 0.1), (Crop.SUGAR_BEET, 0.15)),
    Crop.SPRING_BARLEY: ((Crop.RAPESEED, 0.35), (Crop.WINTER_WHEAT, 0.3), (Crop.GRASS, 0.15), (Crop.MAIZE, 0.2)),
    Crop.MAIZE: ((Crop.WINTER_WHEAT, 0.6), (Crop.MAIZE, 0.25), (Crop.SPRING_BARLEY, 0.08), (Crop.GRASS, 0.07)),
    Crop.RAPESEED: ((Crop.WINTER_WHEAT, 0.93), (Crop.WINTER_BARLEY, 0.07)),
    Crop.SUGAR_BEET: ((Crop.WINTER_WHEAT, 0.75), (Crop.SPRING_BARLEY, 0.25)),
    Crop.POTATO: ((Crop.WINTER_WHEAT, 0.9), (Crop.SPRING_BARLEY, 0.1)),
    Crop.GRASS: ((Crop.GRASS, 0.7), (Crop.MAIZE, 0.2), (Crop.WINTER_WHEAT, 0.1)),
}  # fmt: skip
"""What follows what: rapeseed breaks the cereals, beet and potatoes come back after years, never at once."""

_SHARES_OPEN = {
    Crop.WINTER_WHEAT: 0.36, Crop.RAPESEED: 0.15, Crop.SUGAR_BEET: 0.12, Crop.WINTER_BARLEY: 0.12,
    Crop.POTATO: 0.06, Crop.SPRING_BARLEY: 0.07, Crop.MAIZE: 0.07, Crop.GRASS: 0.05,
}  # fmt: skip
_SHARES_BOCAGE = {
    Crop.WINTER_WHEAT: 0.26, Crop.MAIZE: 0.31, Crop.GRASS: 0.22, Crop.WINTER_BARLEY: 0.08,
    Crop.RAPESEED: 0.05, Crop.SPRING_BARLEY: 0.05, Crop.POTATO: 0.02, Crop.SUGAR_BEET: 0.01,
}  # fmt: skip


def _draw(shares: dict[Crop, float], chance: np.ndarray) -> np.ndarray:
    codes = np.array(list(shares), dtype=np.uint8)
    edges = np.cumsum(list(shares.values()))
    return codes[np.minimum(np.searchsorted(edges / edges[-1], chance, side="right"), len(codes) - 1)]


def crop_table(
    seed: int,
    shapes: list,
    pieces: np.ndarray,
    permanent: np.ndarray,
    vineyard: np.ndarray,
    bocage: np.ndarray,
    cells: Cells,
) -> pd.DataFrame:
    """One row a parcel. `permanent` (pasture), `vineyard` and `bocage` are per parcel."""
    n = len(shapes)
    rng = rng_for(seed, "crops")
    # The luck of a piece, not of a parcel: two halves of a field that a road cut are often farmed as one.
    luck = np.where(rng.random(n) < 0.7, hash01(pieces, seed * 7 + 1), rng.random(n))
    first = np.where(rng.random(n) < bocage, _draw(_SHARES_BOCAGE, luck), _draw(_SHARES_OPEN, luck))
    luck = hash01(pieces, seed * 7 + 2)
    second = first.copy()
    for before, after in _ROTATION.items():
        rows = first == before
        second[rows] = _draw({Crop(code): share for code, share in after}, luck[rows])
    middle = shapely.centroid(np.array(shapes, dtype=object))
    inward = np.argsort(np.hypot(shapely.get_x(middle), shapely.get_y(middle)), kind="stable")
    for column in (first, second):
        column[permanent] = Crop.GRASS
        column[vineyard] = Crop.VINEYARD
        # A small world has few fields: a crop that luck left out takes a wheat field near the middle.
        for crop in sorted(_SHARES_OPEN):
            wheat = inward[column[inward] == Crop.WINTER_WHEAT]
            if len(wheat) > 8 and not (column == crop).any():
                column[wheat[3]] = crop
    angle = cells.angle_deg[pieces] + rng.normal(0, 2, n)
    return pd.DataFrame(
        {
            "parcel": np.arange(1, n + 1, dtype=np.int32),
            "crop_2018": first.astype(np.uint8),
            "crop_2019": second.astype(np.uint8),
            "sow_shift_days": np.round(rng.normal(0, 6, n), 1).astype(np.float32),
            "vigour": np.clip(rng.normal(1, 0.1, n), 0.6, 1.35).astype(np.float32),
            "row_angle_deg": (angle % 180).astype(np.float32),
            "geometry": pd.Series(shapes, dtype=object),
        }
    )
