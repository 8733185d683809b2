"""What each piece of countryside is for, from relief, wetness, sun and chance."""

from __future__ import annotations

import numpy as np

from .lattice import ramp
from .noise import fractal, hash01, rng_for
from .parcels import Cells
from .routes import Routes
from .terrain import Terrain

__all__ = ["Plan", "zone"]


class Plan:
    """What each piece of countryside is for, by label (index 0 is no piece)."""

    wood: np.ndarray
    """Suitability for wood."""
    conifer: np.ndarray
    """Suitability for conifers rather than broadleaves."""
    heath: np.ndarray
    """Suitability for heath."""
    marsh: np.ndarray
    """Suitability for marsh."""
    pasture: np.ndarray
    """True where the piece is permanent pasture if farmed."""
    vineyard: np.ndarray
    """True where vines grow."""
    farmed: np.ndarray
    """False where nobody declares the piece: rough pasture, solar panels."""
    bocage_of: np.ndarray
    """0 open fields .. 1 hedged pastures."""
    wood_field: np.ndarray
    """The same suitability as `wood`, cell by cell at 20 m; above 0 on the wanted share of the land."""
    conifer_field: np.ndarray
    """See `conifer`."""
    heath_field: np.ndarray
    """See `heath`."""
    marsh_field: np.ndarray
    """See `marsh`."""
    centre: tuple[np.ndarray, np.ndarray]
    """x and y of each piece, metres."""
    area_m2: np.ndarray
    """Area of each piece."""
    usable: np.ndarray
    """True on dry land outside settlements."""
    mean: dict[str, np.ndarray]
    """Means of terrain over each piece, by name."""


def zone(seed: int, land: Terrain, routes: Routes, cells: Cells, urban: np.ndarray, size_px: int) -> Plan:
    """Suitability of the ground for each use, as fields and by piece of countryside."""
    rng = rng_for(seed, "zones")
    grid, s = land.grid, land.scale
    label20 = cells.label[2::4, 2::4]
    flat = label20.ravel()
    n = cells.count + 1
    count = np.maximum(np.bincount(flat, minlength=n), 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return (np.bincount(flat, weights=values.ravel(), minlength=n) / count).astype(np.float32)

    x, y = grid.centres()
    tile_m = size_px * 10.0
    dry_land = (land.coast_m > 0) & (land.lakes < 0)
    high = land.height / max(float(np.percentile(land.height[dry_land], 98)), 1.0)
    town_m = np.hypot(x[None, :] - routes.town.x, y[:, None] - routes.town.y)

    def ranked(values: np.ndarray, share: float) -> np.ndarray:
        """The field minus its quantile: above 0 on `share` of the dry land, in about units of spread."""
        inside = values[dry_land]
        return ((values - np.quantile(inside, 1 - share)) / inside.std()).astype(np.float32)

    wood = fractal(rng, grid.shape, 1900 * max(s, 0.4) / 20, 5, 0.72) + 7.0 * np.minimum(land.slope, 0.3) + 0.7 * high
    wood = wood - 1.5 * land.floor - 2.5 * ramp(urban, -0.8, 0.0) + 0.5 * cells.bocage * ramp(land.slope, 0.04, 0.12)
    wood = wood - 1.2 * (1 - ramp(land.coast_m, 100, 900 * s))
    # South slopes that are neither too steep nor too flat, around the best of them: vines.
    from scipy import ndimage

    sun = np.clip(land.southness, 0, 1) * ramp(land.slope, 0.035, 0.08) * (1 - ramp(land.slope, 0.28, 0.45))
    sun = sun * (land.coast_m > 900 * s) * (land.floor < 0.3) * (urban < -0.3)
    blurred = ndimage.gaussian_filter(sun.astype(np.float32), 280 * max(s, 0.4) / 20)
    blurred = blurred * (np.abs(x) < 0.72 * tile_m)[None, :] * (np.abs(y) < 0.45 * tile_m)[:, None]
    vines = np.zeros(grid.shape, dtype=np.float32)
    for side in (x < 0, x >= 0):  # one vineyard slope for each tile
        row, col = np.unravel_index(int(np.argmax(blurred * side[None, :])), grid.shape)
        near = np.hypot(x[None, :] - x[col], y[:, None] - y[row])
        vines = np.maximum(vines, np.exp(-((near / (560 * max(s, 0.45))) ** 2)))
    wood = wood - 2.5 * vines * (sun > 0.2)
    plan = Plan()
    plan.wood_field = ranked(wood, 0.235)
    plan.conifer_field = fractal(rng, grid.shape, 1500 * max(s, 0.4) / 20, 3) + 0.55 * high + 0.3
    poor = (
        fractal(rng, grid.shape, 1300 * max(s, 0.4) / 20, 3, 0.6)
        + 0.6 * plan.wood_field
        + 0.8 * high
        - 0.9 * land.wetness
    )
    plan.heath_field = ranked(poor - 2.0 * ramp(urban, -1, 0) - 1.5 * vines - 1.2 * land.floor, 0.075)
    wet = land.wetness * 2.2 + 0.5 * fractal(rng, grid.shape, 700 * max(s, 0.4) / 20, 3) + 0.7 * land.floor
    wet = wet + 0.9 * land.floor * np.exp(-np.maximum(land.coast_m, 0) / (1500 * s)) - 2.0 * ramp(urban, -1, 0)
    plan.marsh_field = ranked(wet + 0.6 * np.exp(-(((land.lakes + 30) / 90) ** 2)), 0.03)

    plan.area_m2 = np.bincount(cells.label.ravel(), minlength=n) * 25.0
    plan.centre = (mean(np.broadcast_to(x[None, :], grid.shape)), mean(np.broadcast_to(y[:, None], grid.shape)))
    plan.mean = {
        "wood": mean(plan.wood_field), "conifer": mean(plan.conifer_field), "heath": mean(plan.heath_field),
        "marsh": mean(plan.marsh_field), "slope": mean(land.slope), "floor": mean(land.floor),
        "sun": mean(sun), "vines": mean(vines), "urban": mean(urban), "coast": mean(land.coast_m),
        "south": mean(land.southness), "wet": mean(land.wetness), "bocage": mean(cells.bocage), "high": mean(high),
        "lake": mean(land.lakes > -30), "river": mean(land.river_m), "town": mean(town_m),
    }  # fmt: skip
    m = plan.mean
    number = np.arange(n)
    plan.bocage_of = m["bocage"]
    plan.usable = (m["coast"] > 150 * s) & (m["lake"] < 0.05) & (m["urban"] < -0.1)
    plan.wood = m["wood"] + 0.35 * (hash01(number, seed + 11) - 0.5)
    plan.conifer = m["conifer"] + 1.1 * (hash01(number, seed + 12) - 0.5)
    plan.heath = m["heath"]
    plan.marsh = m["marsh"]
    odds = 0.10 + 0.50 * m["bocage"] + 0.9 * np.maximum(m["wet"] - 0.42, 0) + 2.2 * np.maximum(m["slope"] - 0.09, 0)
    odds = odds + 0.45 * m["floor"] + 0.35 * (1 - ramp(m["coast"], 150, 900 * s))
    plan.pasture = hash01(number, seed + 13) < odds
    plan.vineyard = (m["vines"] > 0.3) & (m["sun"] > 0.25) & plan.usable & (m["wood"] < 0.2) & (plan.area_m2 < 16e4)
    for side in (plan.centre[0] < 0, plan.centre[0] >= 0):
        if not (plan.vineyard & side).any():
            best = np.where(plan.usable & side & (m["floor"] < 0.5), m["sun"] + m["vines"], -1)
            plan.vineyard[np.argsort(-best)[:3]] = True
    plan.pasture &= ~plan.vineyard
    # Not every pasture is declared: horses, commons and wet corners are in nobody's application.
    plan.farmed = (plan.area_m2 > 0) & ~(plan.pasture & (hash01(number, seed + 14) < 0.18 + 0.4 * m["floor"]))
    return plan
