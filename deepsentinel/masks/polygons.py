"""A map of classes as polygons: each connected patch of one class as one label."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import shapely

from deepsentinel.errors import InputError
from deepsentinel.grids import crs_of, grid_of
from deepsentinel.legend import Legend


def polygonize(masks: Any) -> gpd.GeoDataFrame:
    """Labels whose edges are those of the pixels of a class map, in its CRS; what has no class is nowhere.

    Columns as those of all labels, with `class_name` and `color` where there is a legend. Pixels that touch at a corner
    only are apart.

    >>> import deepsentinel as ds
    >>> from shapely import box
    >>> field = gpd.GeoDataFrame({"ground_truth": ["rye"]}, geometry=[box(3, 48, 3.01, 48.01)], crs=4326)
    >>> masks = ds.rasterize(field, like=ds.geobox((3, 48, 3.02, 48.02)))
    >>> polygonize(masks)[["ground_truth", "class_name"]].values.tolist()
    [[1, 'rye']]
    """
    layer = masks["class_map"] if hasattr(masks, "data_vars") and "class_map" in masks else masks
    if getattr(layer, "dims", ()) != ("y", "x") or layer.dtype.kind not in "iu":
        raise InputError(
            f"A {type(masks).__name__} is no map of classes: masks or a prediction with class_map are meant."
        )
    from rasterio.features import shapes

    grid = grid_of(layer)
    codes = layer.to_numpy()
    background = int(layer.attrs.get("background", 0))
    # Rasterio knows no unsigned type of 32 bits; numbers of classes fit a signed one.
    found = list(shapes(codes.astype("int32"), mask=codes != background, transform=grid.affine))
    outlines = [shapely.geometry.shape(shape) for shape, _ in found]
    truth = np.array([int(code) for _, code in found], "int64")
    table = gpd.GeoDataFrame(
        {"ground_truth": truth, "id": np.arange(1, len(found) + 1)}, geometry=gpd.GeoSeries(outlines, crs=crs_of(grid))
    )
    table = table[["geometry", "ground_truth", "id"]]
    table.attrs = {"kind": "canonical", "source": str(masks.attrs.get("title", "class_map"))}
    legend = Legend.from_attrs(layer.attrs)
    if legend is not None:
        table["class_name"] = table["ground_truth"].map(legend.names).astype(object)
        table["color"] = table["ground_truth"].map(legend.colors).astype(object)
        table.attrs["legend"] = legend.to_json()
    return table
