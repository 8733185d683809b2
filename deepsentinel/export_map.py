"""A map of classes as files that others open: rasters with names and colours, and the same map as polygons."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError
from .export import to_geotiff
from .export_embedding import embedding_to_geotiff
from .labels.making import save_labels
from .masks.polygons import polygonize

if TYPE_CHECKING:
    import xarray as xr

CLASSES, DOUBT = "class_map", "uncertainty"


def save_map(made: xr.Dataset, folder: str | os.PathLike[str]) -> list[Path]:
    """Write a map of classes, of `classify` or `predict`, into a folder; the paths of what was written.

    `class_map.tif` is a cloud-optimised GeoTIFF with the colours of the classes (and beside it their names, for GDAL
    and QGIS), `uncertainty.tif` the same for how unsure it is, where that is told, and `class_map.gpkg` the classes as
    polygons. Files of these names from an earlier call are replaced.

    >>> import tempfile
    >>> import deepsentinel as ds
    >>> from shapely import box
    >>> import geopandas as gpd
    >>> field = gpd.GeoDataFrame({"ground_truth": ["rye"]}, geometry=[box(3, 48, 3.01, 48.01)], crs=4326)
    >>> masks = ds.rasterize(field, like=ds.geobox((3, 48, 3.02, 48.02)), layers=["class_map"])
    >>> [path.name for path in save_map(masks, tempfile.mkdtemp())]
    ['class_map.tif', 'class_map.gpkg']
    """
    if not hasattr(made, "data_vars") or CLASSES not in made:
        raise InputError(
            f"A {type(made).__name__} without class_map is no map of classes: classify and predict make one."
        )
    target = Path(folder).expanduser()
    if target.is_file() or target.suffix.lower() in (".tif", ".tiff", ".gpkg"):
        raise InputError(f"{str(target)!r} is a file's name; give a folder, as a map becomes several files.")
    target.mkdir(parents=True, exist_ok=True)
    written = to_geotiff(made[[CLASSES]].assign_attrs(made.attrs), target)
    if DOUBT in made:
        layer = made[DOUBT].assign_attrs({**made.attrs, **made[DOUBT].attrs})
        written.append(embedding_to_geotiff(layer, target / f"{DOUBT}.tif"))
    return [*written, save_labels(polygonize(made), target / f"{CLASSES}.gpkg")]
