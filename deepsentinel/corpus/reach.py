"""How many samples labels reach, so that masks which are all background for want of labels are told of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely

from deepsentinel.grids import transformer

if TYPE_CHECKING:
    import geopandas as gpd

    from .masking import Ready

# Lines in degrees are as wide as this at most; whoever is nearer than that may be reached.
METRES_A_DEGREE = 111_000.0
EDGE_POINTS = 21


def samples_reached(shapes: Any, crs: Any, samples: gpd.GeoDataFrame, beyond_m: float = 0.0) -> np.ndarray:
    """Which samples one of some shapes touches, or comes as near as `beyond_m`.

    >>> import geopandas as gpd
    >>> samples = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1), shapely.box(5, 5, 6, 6)], crs=4326)
    >>> samples_reached([shapely.Point(0.5, 0.5)], "EPSG:4326", samples).tolist()
    [True, False]
    """
    outlines = np.asarray(samples.geometry.to_crs(crs).array, dtype=object)
    beyond = beyond_m if pyproj.CRS.from_user_input(crs).is_projected else 2 * beyond_m / METRES_A_DEGREE
    tree = shapely.STRtree(np.asarray(shapes, dtype=object))
    found = np.zeros(len(samples), dtype=bool)
    found[tree.query(outlines, predicate="dwithin", distance=beyond)[0]] = True
    return found


def raster_box(path: str, crs: Any) -> tuple[shapely.Geometry, str]:
    """The outline of a raster, and the CRS it is in; `crs` is for files that tell none."""
    import rasterio

    with rasterio.open(path) as file:
        edge = np.linspace(0, 1, EDGE_POINTS)
        zero, one = np.zeros_like(edge), np.ones_like(edge)
        columns = np.r_[edge, one, edge[::-1], zero] * file.width
        rows = np.r_[zero, edge, one, edge[::-1]] * file.height
        told = pyproj.CRS.from_user_input(file.crs.to_wkt() if file.crs else crs)
        return shapely.Polygon(np.column_stack(file.transform @ (columns, rows))), told.to_wkt()


def touches(outline: shapely.Geometry, crs: str, grid: Any) -> bool:
    """Whether a grid may share ground with an outline in another CRS."""
    box = grid.boundingbox
    edge = np.linspace(0, 1, EDGE_POINTS)
    low, high = np.zeros_like(edge), np.ones_like(edge)
    x = box.left + np.r_[edge, high, edge, low] * (box.right - box.left)
    y = box.bottom + np.r_[low, edge, high, edge] * (box.top - box.bottom)
    x, y = transformer(str(grid.crs), crs).transform(x, y)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return True  # whoever reads it finds out
    margin = max(np.ptp(x), np.ptp(y)) / 8
    around = shapely.box(np.min(x) - margin, np.min(y) - margin, np.max(x) + margin, np.max(y) + margin)
    return bool(shapely.intersects(outline, around))


def reach_note(ready: Ready, samples: int) -> str | None:
    """What to say of labels that leave samples without a mask; nothing where that is as it should be."""
    mask, count = ready.mask, ready.reached
    if count is None or mask.alone or count == samples:
        return None
    what = f"labels {mask.name!r}" if mask.kind == "table" else f"labels {mask.name!r} ({Path(str(mask.path)).name})"
    if not count:
        return (
            f"None of the {samples} samples is touched by the {what}: their masks are all background. Check the CRS of"
            " the labels, and whether they are of these places."
        )
    # Parcels are few and far between; a map that ends is another matter.
    if mask.kind == "raster":
        return f"The {what} reach {count} of {samples} samples: the masks of the others are all background."
    return None
