"""The two ends of a query: what people point at becomes vectors, and rows of an index become a table with places."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyproj
import xarray as xr

from deepsentinel.errors import InputError

from .vectors import Grid, Places, Samples, check_same_encoder

if TYPE_CHECKING:
    import geopandas as gpd

    from .index import Index

# The columns of a result and their types; `key` is text where a sample's id is.
COLUMNS = {
    "score": "float64", "part": "int64", "key": "int64", "row": "Int64", "col": "Int64",
    "x": "float64", "y": "float64", "lon": "float64", "lat": "float64",
}  # fmt: skip
_GEOD = pyproj.Geod(ellps="WGS84")


@dataclass(frozen=True)
class Example:
    """One vector that a query is made of."""

    vector: np.ndarray
    """The vector, as the index holds it or as it was given."""
    lonlat: tuple[float, float] | None = None
    """Where it lies, where it was pointed at."""


def resolve(index: Index, given: Any, what: str) -> list[Example]:
    """A vector, several vectors, a click, an id, or a list of these, as vectors."""
    if given is None:
        return []
    if isinstance(given, xr.DataArray):
        check_same_encoder(index.attrs, given.attrs, f"The index and {what}")
        if not {str(dim) for dim in given.dims} <= {"sample", "feature"} or "feature" not in given.dims:
            raise InputError(
                f"{what} has the dimensions ({', '.join(map(str, given.dims))}). A query takes vectors: (feature,) or"
                " (sample, feature). Of a dense embedding pick cells with .sel, or click: index.query((lon, lat))."
            )
        given = given.transpose(..., "feature").to_numpy()
    if isinstance(given, np.ndarray) and given.dtype.kind in "fiu" and given.ndim in (1, 2):
        return [Example(_checked(index, vector, what)) for vector in np.atleast_2d(given)]
    if getattr(given, "geom_type", "") == "Point":
        return [_by_click(index, float(given.x), float(given.y))]
    if isinstance(given, str | Integral):
        return [_by_id(index, given)]
    if isinstance(given, list | tuple) and given:
        # A list of whole numbers is one of ids.
        numbers = all(isinstance(part, Real) for part in given)
        if numbers and (isinstance(given, tuple) or not all(isinstance(part, Integral) for part in given)):
            # Two numbers are a place; only where vectors have two features does it take a tuple to tell.
            if len(given) == 2 and (isinstance(given, tuple) or index.width != 2):
                return [_by_click(index, float(given[0]), float(given[1]))]
            return [Example(_checked(index, np.array(given, "float64"), what))]
        return [example for part in given for example in resolve(index, part, what)]
    raise InputError(
        f"{what}={given!r:.80} is nothing to look for: give a vector, a click (lon, lat), the id of a sample, or a list"
        " of these."
    )


def _checked(index: Index, vector: np.ndarray, what: str) -> np.ndarray:
    if vector.shape != (index.width,):
        raise InputError(f"{what} has vectors of {len(vector)} features, and the index has {index.width}.")
    if not np.isfinite(vector).all():
        raise InputError(f"{what} holds a vector without data (NaN): it is from a place that nothing was seen of.")
    return vector


def _by_id(index: Index, name: Any) -> Example:
    kind = "U" if isinstance(name, str) else "i"
    found = [
        (part, row)
        for part in index.parts
        if isinstance(part.places, Samples) and part.places.ids.dtype.kind == kind
        for row in np.flatnonzero(part.places.ids == name)
    ]
    if not found:
        raise InputError(f"No sample of the index is called {name!r}. A click is two numbers: (lon, lat).")
    if len(found) > 1:
        raise InputError(
            f"{len(found)} samples of the index are called {name!r}: give the vector itself, or names of their own"
            " (coordinate `id`) to the embeddings before they are put in."
        )
    part, row = found[0]
    if not part.usable[row]:
        raise InputError(f"The sample {name!r} has no data: its vector is NaN.")
    place = part.places.table(np.array([row])).iloc[0]
    known = pd.notna(place["lon"]) and pd.notna(place["lat"])
    return Example(part.vectors[row], (float(place["lon"]), float(place["lat"])) if known else None)


def _by_click(index: Index, lon: float, lat: float) -> Example:
    if not (abs(lat) <= 90 and abs(lon) <= 360):
        raise InputError(f"(lon, lat) = ({lon:g}, {lat:g}) is no place on Earth; longitude comes first, then latitude.")
    found = _hits(index, lon, lat)
    # A cell holds the point; a sample is only near it.
    cells = [hit for hit in found if isinstance(index.parts[hit[0]].places, Grid)]
    usable = [hit for hit in cells or found if index.parts[hit[0]].usable[hit[1]]]
    if not found:
        where = "; ".join(_extent(part.places) for part in index.parts)
        turned = " Longitude comes first: exchanged, the click is on it." if _hits(index, lat, lon) else ""
        raise InputError(f"(lon, lat) = ({lon:g}, {lat:g}) is outside of the index: {where}.{turned}")
    if not usable:
        raise InputError(f"There is no data at (lon, lat) = ({lon:g}, {lat:g}); click elsewhere.")
    number, row, _ = min(usable, key=lambda hit: hit[2])
    return Example(index.parts[number].vectors[row], (lon, lat))


def _hits(index: Index, lon: float, lat: float) -> list[tuple[int, int, float]]:
    """Part, row and distance of what lies nearest, in each part that has anything there."""
    if abs(lat) > 90:
        return []
    hits = [(number, part.places.nearest(lon, lat)) for number, part in enumerate(index.parts)]
    return [(number, *hit) for number, hit in hits if hit is not None]


def _extent(places: Places) -> str:
    """What a part is, and where it lies in degrees."""
    ends = [0, places.count - 1]
    if isinstance(places, Grid):  # its four corners
        columns = int(places.geobox.shape.x)
        ends += [columns - 1, places.count - columns]
    around = places.table(np.array(ends))[["lon", "lat"]].to_numpy("float64")
    if not np.isfinite(around).all():
        return str(places)
    (west, south), (east, north) = around.min(axis=0), around.max(axis=0)
    return f"{places}, longitude {west:.3f} to {east:.3f}, latitude {south:.3f} to {north:.3f}"


def results(index: Index, part_of: np.ndarray, rows: np.ndarray, scores: np.ndarray, k: int) -> gpd.GeoDataFrame:
    """The table of a query, best first; equal scores are in the order of part, place and key, whatever the rows'."""
    import geopandas as gpd

    order = []
    for number in np.unique(part_of):
        chosen, places = np.flatnonzero(part_of == number), index.parts[number].places
        x, y = places.xy(rows[chosen])
        order.append(chosen[np.lexsort((places.keys(rows[chosen]), x, y))])
    best = np.concatenate([*order, np.empty(0, "int64")]).astype("int64")
    best = best[np.argsort(-scores[best], kind="stable")][:k]
    tables = [pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})]
    for number in np.unique(part_of[best]):
        chosen = best[part_of[best] == number]
        table = index.parts[number].places.table(rows[chosen])
        tables.append(table.assign(score=scores[chosen], part=number, rank=np.flatnonzero(part_of[best] == number)))
    found = pd.concat(tables[1:], ignore_index=True).sort_values("rank", ignore_index=True) if len(best) else tables[0]
    found = found[list(COLUMNS)].astype({"row": "Int64", "col": "Int64"})
    return gpd.GeoDataFrame(found, geometry=gpd.points_from_xy(found["lon"], found["lat"]), crs="EPSG:4326")


def spread(found: gpd.GeoDataFrame, clicks: np.ndarray, apart_m: float, k: int) -> gpd.GeoDataFrame:
    """The best results that are so far from each other, and from the clicks."""
    lon, lat = found["lon"].to_numpy("float64"), found["lat"].to_numpy("float64")
    if not (np.isfinite(lon) & np.isfinite(lat)).all():
        raise InputError("apart_m= needs places, and some vectors of the index have none in a known CRS.")
    free = np.ones(len(found), bool)
    for place in clicks:
        free &= _distances(place[0], place[1], lon, lat) >= apart_m
    chosen: list[int] = []
    for row in range(len(found)):
        if free[row] and len(chosen) < k:
            chosen.append(row)
            free &= _distances(lon[row], lat[row], lon, lat) >= apart_m
    return found.iloc[chosen].reset_index(drop=True)


def _distances(lon: float, lat: float, lons: np.ndarray, lats: np.ndarray) -> np.ndarray:
    here = np.full(len(lons), lon), np.full(len(lons), lat)
    return np.asarray(_GEOD.inv(*here, lons, lats)[2])
