"""What a Dataset holds at one place: class, coverage and parcel of a mask, or the bands of a patch."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from deepsentinel.errors import InputError
from deepsentinel.grids import crs_of, grid_of, transformer
from deepsentinel.legend import Legend

if TYPE_CHECKING:
    import xarray as xr

CONFLICT_WORDS = {1: "several polygons share this pixel", 2: "claimed twice"}


def value_at(obj: xr.Dataset, at: tuple[float, float]) -> dict[str, Any]:
    """Every layer of a Dataset in the pixel that holds a place, by name; nothing where the place lies outside.

    `at` is longitude and latitude in degrees. What was not measured is None. A class map has its class's name beside
    it (`class_name`, None where nothing is labelled), and conflicts are told in words (`conflict_words`). Layers with
    further dimensions, such as the dates of a series, are left out.

    >>> import geopandas as gpd
    >>> import deepsentinel as ds
    >>> from shapely import box
    >>> field = gpd.GeoDataFrame({"ground_truth": ["rye"], "id": ["7"]}, geometry=[box(3, 48, 3.01, 48.01)], crs=4326)
    >>> masks = ds.rasterize(field, like=ds.geobox((3, 48, 3.02, 48.01)), layers=["class_map", "coverage"])
    >>> value_at(masks, (3.005, 48.005))
    {'class_map': 1, 'class_name': 'rye', 'coverage': 1.0}
    >>> value_at(masks, (3.015, 48.005))["class_name"], value_at(masks, (9, 48))
    (None, {})
    """
    try:
        lon, lat = (float(each) for each in at)
    except (TypeError, ValueError):
        raise InputError(f"at={at!r} is no place: give longitude and latitude, such as (2.35, 48.85).") from None
    if not hasattr(obj, "data_vars"):
        raise InputError(f"A {type(obj).__name__} has no layers: give a patch or masks, as a Dataset.")
    grid = grid_of(obj)
    x, y = transformer("EPSG:4326", crs_of(grid)).transform(lon, lat)
    if not (math.isfinite(x) and math.isfinite(y)):
        return {}
    column = math.floor((x - grid.affine.c) / grid.affine.a)
    row = math.floor((y - grid.affine.f) / grid.affine.e)
    if not (0 <= row < grid.shape.y and 0 <= column < grid.shape.x):
        return {}
    found: dict[str, Any] = {}
    for name, layer in obj.variables.items():
        if layer.dims != ("y", "x"):
            continue
        value = layer[row, column].to_numpy().item()
        found[str(name)] = None if isinstance(value, float) and math.isnan(value) else value
        if name == "class_map":
            found["class_name"] = _class_name(value, layer.attrs)
        elif name == "conflict" and value in CONFLICT_WORDS:
            found["conflict_words"] = CONFLICT_WORDS[value]
    return found


def _class_name(code: Any, attrs: dict[str, Any]) -> str | None:
    if code == int(attrs.get("background", 0)):
        return None
    return _names(*(str(attrs.get(key, "")) for key in ("legend", "flag_values", "flag_meanings"))).get(code, str(code))


@lru_cache(maxsize=32)
def _names(legend: str, values: str, meanings: str) -> dict[int, str]:
    """Hovering asks for them at every move, and a legend of two hundred crops takes a while to read."""
    if legend:
        return dict(Legend.from_json(legend).names)
    codes = [int(each) for each in values.strip("[]").replace(",", " ").split()]
    found = Legend.from_attrs({"flag_values": codes, "flag_meanings": meanings}) if meanings else None
    return {} if found is None else dict(found.names)
