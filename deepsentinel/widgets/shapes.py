"""What of labels and of vectors lies on the map as shapes: pins, fields, cells, and what is chosen of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_DRAWN = 3000
RING: Mapping[str, Any] = {"color": "#000000", "weight": 3, "fillColor": "#f0e442", "fillOpacity": 0.9}
"""Around a place where somebody might label next."""
CHOSEN: Mapping[str, Any] = {"color": "#d55e00", "weight": 4, "opacity": 1, "fillOpacity": 0}
"""Of what is chosen in a list: a label, or a match."""


def label_shapes(examples: Any) -> Any:
    """A table of the last labels with the style of each, for `Canvas.outline`.

    >>> import deepsentinel as ds
    >>> label_shapes(ds.make_labels([((2.1, 48.1), "wood")], colors={"wood": "#009e73"}))["style"][0]["fillColor"]
    '#009e73'
    """
    table = examples.iloc[-MOST_DRAWN:][["geometry", "color"]].copy()
    points = table.geometry.geom_type.isin(["Point", "MultiPoint"])
    table["style"] = [
        {"color": "#ffffff", "weight": 2, "fillColor": color, "fillOpacity": 1}
        if point
        else {"color": color, "weight": 3, "fillColor": color, "fillOpacity": 0.1}
        for color, point in zip(table["color"], points, strict=True)
    ]
    return table[["geometry", "style"]]


def cell_m(z: Any) -> float:
    """The side of a cell in metres."""
    from deepsentinel.grids import grid_of, metres_per_unit

    grid = grid_of(z)
    return float(abs(grid.affine.a) * metres_per_unit(grid)[0])


def middle_of(z: Any) -> tuple[float, float]:
    """Longitude and latitude of the middle of a map of vectors."""
    from deepsentinel.grids import crs_of, grid_of, transformer

    grid = grid_of(z)
    x, y = grid.affine @ (grid.shape.x / 2, grid.shape.y / 2)
    lon, lat = transformer(crs_of(grid), "EPSG:4326").transform(x, y)
    return float(lon), float(lat)


def squares(found: Any, z: Any) -> Any:
    """The cells of matches as squares."""
    import geopandas as gpd
    import shapely

    from deepsentinel.grids import crs_of, grid_of

    grid = grid_of(z)
    across, down = abs(grid.affine.a) / 2, abs(grid.affine.e) / 2
    x, y = found["x"].to_numpy("float64"), found["y"].to_numpy("float64")
    return gpd.GeoDataFrame(geometry=shapely.box(x - across, y - down, x + across, y + down), crs=crs_of(grid))
