"""Farmers' declarations in the manner of the French RPG, with the faults such files have, planted and known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely

from deepsentinel.errors import InputError

from .classes import Cover, Crop
from .grid import WORLD_CRS
from .landscape import Landscape
from .noise import hash01, rng_for

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["RPG_CODES", "parcels", "planted_faults"]

RPG_CODES: dict[str, tuple[str, str]] = {
    "BTH": ("1", "soft winter wheat"),
    "MIS": ("2", "maize"),
    "MIE": ("2", "silage maize"),
    "ORH": ("3", "winter barley"),
    "ORP": ("3", "spring barley"),
    "CZH": ("5", "winter rapeseed"),
    "PPH": ("18", "permanent meadow"),
    "PTR": ("19", "temporary meadow"),
    "VRC": ("21", "vines"),
    "BTN": ("24", "sugar beet"),
    "PTC": ("25", "potatoes"),
}
"""Crop code, its group and its name."""

_CODE_OF = {
    Crop.WINTER_WHEAT: "BTH", Crop.WINTER_BARLEY: "ORH", Crop.SPRING_BARLEY: "ORP", Crop.MAIZE: "MIS",
    Crop.RAPESEED: "CZH", Crop.SUGAR_BEET: "BTN", Crop.POTATO: "PTC", Crop.GRASS: "PTR", Crop.VINEYARD: "VRC",
}  # fmt: skip
_CATCH_CROPS = ("DMO", "DPH", "DRA", "DVS")
_SPRING = (Crop.SPRING_BARLEY, Crop.MAIZE, Crop.SUGAR_BEET, Crop.POTATO)
_FAULTS = {"overlap": 12, "shifted": 16, "invalid": 3}


def _identity(number: np.ndarray, seed: int) -> list[str]:
    return [str(10_000_000 + seed % 1000 * 10_000 + int(k)) for k in number]


def permanent_parcels(landscape: Landscape) -> np.ndarray:
    """For each parcel whether it is permanent pasture, that is, not cropped in any year."""
    step = 2
    number = landscape.parcel[::step, ::step]
    cropped = np.bincount(number[landscape.cover[::step, ::step] == Cover.CROP], minlength=len(landscape.parcels) + 1)
    return cropped[1:] == 0


def _bow_tie(polygon: Any) -> Any:
    """The ring with two opposite corners swapped, so that it crosses itself as hurried digitising does."""
    box = polygon.minimum_rotated_rectangle
    ring = list(box.exterior.coords)[:-1]
    ring[1], ring[2] = ring[2], ring[1]
    return shapely.Polygon(ring)


def _declared(landscape: Landscape) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All parcels on the world plane with faults in them, and the list of the faults."""
    table = landscape.parcels
    n = len(table)
    rng = rng_for(landscape.seed, "declared")
    outline = table["geometry"].to_numpy(dtype=object).copy()
    area_m2 = shapely.area(outline)
    identity = np.array(_identity(table["parcel"].to_numpy(), landscape.seed), dtype=object)
    keep = rng.random(n) > 0.03  # some farmers declare nothing
    faults: list[dict[str, Any]] = []

    # Faults go to middling parcels, each at most one, and never two neighbours: the truth stays easy to state.
    tree = shapely.STRtree(outline)
    free = keep & (area_m2 > 8_000) & (area_m2 < 200_000)
    order = rng.permutation(np.flatnonzero(free))
    taken = np.zeros(n, dtype=bool)

    def take(count: int) -> list[int]:
        chosen: list[int] = []
        for k in order.tolist():
            if len(chosen) == count:
                break
            if not taken[k]:
                chosen.append(k)
                taken[tree.query(outline[k], predicate="dwithin", distance=40.0)] = True
        return chosen

    share = min(1.0, n / 400)
    for k in take(max(1, round(_FAULTS["overlap"] * share))):
        wide = float(rng.uniform(14, 25))
        outline[k] = shapely.buffer(outline[k], wide, join_style="mitre")
        faults.append({"at": k, "fault": "overlap", "dx_m": 0.0, "dy_m": 0.0, "grown_m": wide})
    for k in take(max(1, round(_FAULTS["shifted"] * share))):
        far, turn = float(rng.uniform(5, 15)), float(rng.uniform(0, 2 * math.pi))
        dx, dy = far * math.cos(turn), far * math.sin(turn)
        outline[k] = shapely.transform(outline[k], lambda xy, by=(dx, dy): xy + np.array(by))
        faults.append({"at": k, "fault": "shifted", "dx_m": dx, "dy_m": dy, "grown_m": 0.0})
    for k in take(max(1, round(_FAULTS["invalid"] * share))):
        outline[k] = _bow_tie(outline[k])
        faults.append({"at": k, "fault": "invalid", "dx_m": 0.0, "dy_m": 0.0, "grown_m": 0.0})
    # One declaration of two fields, a road apart.
    for k in take(1):
        near = [int(j) for j in tree.query_nearest(outline[k], exclusive=True, all_matches=True)]
        gaps = tree.query(outline[k], predicate="dwithin", distance=600.0)
        apart = [int(j) for j in gaps if j != k and keep[j] and j not in near and not taken[j]]
        if apart:
            other = min(apart, key=lambda j: outline[k].distance(outline[j]))
            outline[k] = shapely.MultiPolygon([outline[k], outline[other]])
            keep[other] = False
        else:
            half = shapely.buffer(outline[k].representative_point(), 20)
            outline[k] = shapely.MultiPolygon([half, shapely.affinity.translate(half, 60, 0)])
        faults.append({"at": k, "fault": "multipolygon", "dx_m": 0.0, "dy_m": 0.0, "grown_m": 0.0})
    # One smaller than a Sentinel pixel: a corner cut off by the digitiser.
    for k in take(1):
        spot = outline[k].representative_point()
        outline[k] = shapely.box(spot.x - 3, spot.y - 3, spot.x + 3, spot.y + 3)
        faults.append({"at": k, "fault": "tiny", "dx_m": 0.0, "dy_m": 0.0, "grown_m": 0.0})
    out = table.assign(identity=identity, outline=outline, declared_m2=area_m2, permanent=permanent_parcels(landscape))
    listed = pd.DataFrame(faults)
    listed.insert(0, "ID_PARCEL", identity[listed["at"]])
    return out[keep], listed.drop(columns="at")


def parcels(landscape: Landscape, year: int) -> gpd.GeoDataFrame:
    """Declared parcels of a year in EPSG:4326, columns as in the RPG; faults included, see `planted_faults`.

    >>> from deepsentinel.world.landscape import build_landscape
    >>> list(parcels(build_landscape(0, size_px=256), 2018).columns)[:3]
    ['ID_PARCEL', 'SURF_PARC', 'CODE_CULTU']
    """
    import geopandas as gpd

    if year not in (2018, 2019):
        raise InputError(f"The demo world has parcels for 2018 and 2019, not for {year}: ask for one of these years.")
    table, _ = _declared(landscape)
    crop = table[f"crop_{year}"].to_numpy()
    number = table["parcel"].to_numpy()
    code = np.array([_CODE_OF[Crop(int(c))] for c in crop], dtype=object)
    code[(crop == Crop.MAIZE) & (hash01(number, landscape.seed + 61) < 0.45)] = "MIE"
    code[table["permanent"].to_numpy()] = "PPH"
    luck = hash01(number, landscape.seed + year)
    catch = np.isin(crop, _SPRING) & (luck < 0.6)
    first = np.where(catch, np.array(_CATCH_CROPS, dtype=object)[(luck * 997).astype(int) % 4], "")
    second = np.where(catch & (luck < 0.2), np.array(_CATCH_CROPS, dtype=object)[(luck * 499).astype(int) % 4], "")
    return gpd.GeoDataFrame(
        {
            "ID_PARCEL": table["identity"].to_numpy(),
            "SURF_PARC": np.round(shapely.area(table["outline"].to_numpy()) / 1e4, 2),
            "CODE_CULTU": code,
            "CODE_GROUP": [RPG_CODES[c][0] for c in code],
            "CULTURE_D1": first,
            "CULTURE_D2": second,
        },
        geometry=table["outline"].to_list(),
        crs=WORLD_CRS,
    ).to_crs("EPSG:4326")


def planted_faults(landscape: Landscape) -> pd.DataFrame:
    """Which parcels were spoilt, and how: the same in both years.

    Columns: `ID_PARCEL`; `fault`: overlap (grown by `grown_m` over its neighbours), shifted (moved by `dx_m`, `dy_m` on
    the world plane), invalid (a bow-tie), multipolygon (two fields in one row), tiny (36 square metres).

    >>> from deepsentinel.world.landscape import build_landscape
    >>> sorted(set(planted_faults(build_landscape(0, size_px=256)).fault))
    ['invalid', 'multipolygon', 'overlap', 'shifted', 'tiny']
    """
    return _declared(landscape)[1]
