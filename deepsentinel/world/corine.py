"""A land cover map as CORINE's makers would have drawn it: nothing under 25 ha, nothing narrower than 100 m."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

from .classes import Cover, Crop
from .grid import WORLD_CRS
from .landscape import Landscape
from .lattice import outlines

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["CORINE_NAMES", "corine"]

CORINE_NAMES: dict[str, str] = {
    "111": "Continuous urban fabric",
    "112": "Discontinuous urban fabric",
    "121": "Industrial or commercial units",
    "131": "Mineral extraction sites",
    "211": "Non-irrigated arable land",
    "221": "Vineyards",
    "231": "Pastures",
    "242": "Complex cultivation patterns",
    "243": "Land principally occupied by agriculture, with significant areas of natural vegetation",
    "311": "Broad-leaved forest",
    "312": "Coniferous forest",
    "313": "Mixed forest",
    "322": "Moors and heathland",
    "331": "Beaches, dunes, sands",
    "332": "Bare rocks",
    "411": "Inland marshes",
    "421": "Salt marshes",
    "423": "Intertidal flats",
    "511": "Water courses",
    "512": "Water bodies",
    "522": "Estuaries",
    "523": "Sea and ocean",
}
"""The level 3 classes that occur in the demo world."""

_MMU_M2 = 262_000.0
"""25 ha, and what the smoothing of outlines may take away."""
_FACTOR = 4  # 20 m cells: five of them are CORINE's narrowest feature
_CODES = [int(code) for code in CORINE_NAMES]


def _raw_codes(landscape: Landscape) -> np.ndarray:
    """Level 3 code of every 20 m cell before anything is generalised."""
    from rasterio.features import rasterize

    cover = landscape.cover[2::_FACTOR, 2::_FACTOR]
    table = np.zeros(256, dtype=np.int16)
    for kind, code in (
        (Cover.SEA, 523), (Cover.LAKE, 512), (Cover.RIVER, 511), (Cover.BEACH, 331), (Cover.TIDAL_FLAT, 423),
        (Cover.SALT_MARSH, 421), (Cover.MARSH, 411), (Cover.BROADLEAF, 311), (Cover.CONIFER, 312), (Cover.HEATH, 322),
        (Cover.GRASSLAND, 231), (Cover.CROP, 211), (Cover.BUILDING, 112), (Cover.ASPHALT, 112), (Cover.GARDEN, 112),
        (Cover.INDUSTRY, 121), (Cover.RAILWAY, 231), (Cover.QUARRY, 131), (Cover.SOLAR, 121), (Cover.ROCK, 332),
        (Cover.HEDGE, 231),
    ):  # fmt: skip
        table[kind] = code
    codes = table[cover]
    crop = landscape.crop_raster_at(2018, _FACTOR)
    codes[(cover == Cover.CROP) & (crop == Crop.VINEYARD)] = 221
    grid = landscape.grid.coarser(_FACTOR)
    sites = [shapely.buffer(g, 25) for kind in ("works", "solar") for g, _ in landscape.features[kind]]
    if sites:
        rasterize(((g, 121) for g in sites), out=codes, transform=grid.transform)
    return codes


def _share(mask: np.ndarray, width: int) -> np.ndarray:
    from scipy import ndimage

    return ndimage.uniform_filter(mask.astype(np.float32), width, mode="nearest")


def _mixed_classes(codes: np.ndarray) -> np.ndarray:
    """Dense towns, mixed woods, and the two mosaics of farmland: classes of a neighbourhood, not of a spot."""
    from scipy import ndimage

    out = codes.copy()
    built = codes == 112
    broad, needle = _share(codes == 311, 11), _share(codes == 312, 11)
    wood = broad + needle
    forest = (codes == 311) | (codes == 312)
    out[forest & (np.minimum(broad, needle) > 0.27 * wood) & (wood > 0.5)] = 313
    arable, pasture = _share((codes == 211) | (codes == 221), 17), _share(codes == 231, 17)
    nature = _share(forest | (codes == 322) | (codes == 332), 17)
    farm = arable + pasture
    farmland = (codes == 211) | (codes == 231)
    # Mosaics are common where parcels are small: how often does the cover change from one cell to the next?
    change = np.zeros(codes.shape, dtype=np.float32)
    change[1:] += codes[1:] != codes[:-1]
    change[:, 1:] += codes[:, 1:] != codes[:, :-1]
    restless = ndimage.uniform_filter(change, 21, mode="nearest")
    out[farmland & (np.minimum(arable, pasture) > 0.27 * farm) & (restless > 0.17)] = 242
    out[(farmland | forest) & (nature > 0.24) & (nature < 0.62) & (farm > 0.34) & (restless > 0.19)] = 243
    out[built & (_share(built, 15) < 0.28)] = 231
    return out


def mode_filter(codes: np.ndarray, width: int) -> np.ndarray:
    """Commonest code within a window about `width` cells wide, weighted to its middle."""
    from scipy import ndimage

    best = np.full(codes.shape, -1.0, dtype=np.float32)
    out = codes.copy()
    for code in np.unique(codes):
        share = ndimage.uniform_filter((codes == code).astype(np.float32), width, mode="nearest")
        share = ndimage.uniform_filter(share, max(3, width // 2), mode="nearest")
        better = share > best
        out[better] = code
        np.maximum(best, share, out=best)
    return out


def _pieces(codes: np.ndarray) -> np.ndarray:
    """Number of the connected piece of one code that each cell belongs to, from 1."""
    from scipy import ndimage

    number = np.zeros(codes.shape, dtype=np.int32)
    total = 0
    for code in np.unique(codes):
        labels, n = ndimage.label(codes == code)
        number = np.where(labels > 0, labels + total, number)
        total += n
    return number


def _drop_small(codes: np.ndarray, least_cells: float) -> np.ndarray:
    """Give pieces that are too small to whoever is nearest."""
    from scipy import ndimage

    for _ in range(4):
        number = _pieces(codes)
        sizes = np.bincount(number.ravel())
        small = (sizes < least_cells)[number]
        if not small.any() or small.all():
            break
        _, (rows, cols) = ndimage.distance_transform_edt(small, return_indices=True)
        codes = codes[rows, cols]
    return codes


def generalised_codes(landscape: Landscape) -> np.ndarray:
    """CORINE code of every 20 m cell of the map after generalisation."""
    codes = _raw_codes(landscape)
    dense = _share(landscape.cover[2::_FACTOR, 2::_FACTOR] == Cover.GARDEN, 15)
    codes = _mixed_classes(codes)
    codes[(codes == 112) & (dense < 0.26)] = 111
    river = codes == 511
    if river.any():
        # The wide last stretch, where the tide goes in and out, is an estuary.
        codes[river & (_share(river, 9) > 0.75)] = 522
    codes = mode_filter(codes, 5)
    cell_m2 = (landscape.resolution_m * _FACTOR) ** 2
    for least_m2 in (30_000, 110_000, _MMU_M2):
        codes = _drop_small(codes, least_m2 / cell_m2)
    return codes


def corine(landscape: Landscape) -> gpd.GeoDataFrame:
    """CORINE-like polygons of the whole map in EPSG:4326, with the columns of EEA's status layer for 2018.

    They cover land and sea without gaps or overlaps, are at least 25 ha, and so are a weak label: villages, copses and
    the solar farm drown in what surrounds them.

    >>> from deepsentinel.world.landscape import build_landscape
    >>> list(corine(build_landscape(0, size_px=256)).columns)[:4]
    ['ID', 'Remark', 'Area_Ha', 'Code_18']
    """
    import geopandas as gpd

    codes = generalised_codes(landscape)
    found, values = outlines(codes, landscape.grid.coarser(_FACTOR))
    # Interpreters draw with a few long strokes, and neighbours share every one of them.
    smooth = shapely.coverage_simplify(found, 38.0)
    order = np.lexsort((shapely.area(smooth), values))
    smooth, level3 = smooth[order], values[order]
    area_m2 = shapely.area(smooth)
    return gpd.GeoDataFrame(
        {
            "ID": [f"EU-{number}" for number in range(1, len(smooth) + 1)],
            "Remark": [None] * len(smooth),
            "Area_Ha": np.round(area_m2 / 1e4, 4),
            "Code_18": [str(code) for code in level3],
            "Shape_Area": area_m2,
            "Shape_Length": shapely.length(smooth),
        },
        geometry=list(smooth),
        crs=WORLD_CRS,
    ).to_crs("EPSG:4326")
