"""What may be handed to `read`: rows and tables of pairs or scenes, grids, bands, resampling; each checked."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from deepsentinel.bands import DTYPES
from deepsentinel.errors import InputError, ReadError

from .assets import Item
from .tables import item_geometry

if TYPE_CHECKING:
    import pandas as pd
    from odc.geo.geobox import GeoBox

Row = Mapping[str, Any]
Resampling = str | Mapping[str, str] | None
# What is a code or a label has no values in between.
CODES = ("SCL",)


def is_table(what: Any) -> TypeGuard[pd.DataFrame]:
    """Whether this is a table rather than a row."""
    return hasattr(what, "columns") and hasattr(what, "iloc")


def rows_of(table: pd.DataFrame) -> list[Row]:
    """The rows of a table of pairs or scenes, as far as reading needs them."""
    names = [name for name in ("s1_id", "s2_id", "sensor", "id") if name in table.columns]
    if not _means_scenes(names):
        raise InputError(
            f"This table has columns {', '.join(map(str, table.columns))}: a table of pairs (s1_id, s2_id) or of "
            "scenes (sensor, id) is needed, as ds.pair and src.search make them."
        )
    values = zip(*(table[name] for name in names), strict=True)
    return [
        _checked(dict(zip(names, value, strict=True)), f"Row {position} of the table")
        for position, value in enumerate(values)
    ]


def _checked(row: Row, where: str) -> Row:
    if "s1_id" in row and ids_of(row) == (None, None):
        raise InputError(f"{where} names no scene: its s1_id and s2_id are both empty. Leave it out.")
    if "s1_id" not in row and row["sensor"] not in ("S1", "S2"):
        raise InputError(f"{where} is of sensor {row['sensor']!r}: there are 'S1' and 'S2'.")
    return row


def _means_scenes(names: Any) -> bool:
    return ("s1_id" in names and "s2_id" in names) or ("sensor" in names and "id" in names)


def row_of(what: Any) -> Row:
    """One row of pairs or scenes, however it is given."""
    row = what._asdict() if hasattr(what, "_asdict") else what
    if hasattr(row, "to_dict"):
        row = row.to_dict()
    if not isinstance(row, Mapping) or not _means_scenes(row):
        raise InputError(
            f"{type(what).__name__} is not a row of pairs or scenes. Pass pairs.iloc[0] (it has s1_id and s2_id), "
            "scenes.iloc[0] (it has sensor and id), or a table of them."
        )
    return _checked(row, "The row")


def ids_of(row: Row) -> tuple[str | None, str | None]:
    """The S1 and the S2 scene of a row; None for the one that it has not."""
    if "s1_id" in row:
        return _text(row["s1_id"]), _text(row["s2_id"])
    name = str(row["id"])
    return (name, None) if row["sensor"] == "S1" else (None, name)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


@lru_cache(maxsize=32)
def _to_lonlat(crs: str) -> Any:
    from pyproj import Transformer

    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def check_touch(item: Item, grid: GeoBox) -> None:
    """Refuse a grid that lies outside a scene altogether: a wrong row or a wrong grid, not a scene at its edge."""
    footprint = item_geometry(item)
    if footprint is None:
        return
    west, south, east, north = footprint.bounds
    if east - west > 180:  # over the antimeridian, where boxes say nothing
        return
    box = grid.boundingbox
    xs = np.linspace(box.left, box.right, 3)
    ys = np.linspace(box.bottom, box.top, 3)
    lon, lat = _to_lonlat(str(grid.crs)).transform(*(axis.ravel() for axis in np.meshgrid(xs, ys)))
    slack = 0.02  # the edges of a grid are not straight in lon and lat
    if lon.max() < west - slack or lon.min() > east + slack or lat.max() < south - slack or lat.min() > north + slack:
        raise ReadError(
            f"Scene {item['id']} lies at lon {west:.2f}..{east:.2f}, lat {south:.2f}..{north:.2f}; the grid at lon "
            f"{lon.min():.2f}..{lon.max():.2f}, lat {lat.min():.2f}..{lat.max():.2f}. They do not touch: check row "
            "and grid."
        )


def check_bands(bands: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """The `bands=` argument, checked; None stands for all that is usual.

    >>> check_bands(["B04", "VV"])
    ('B04', 'VV')
    """
    if bands is None:
        return None
    names = (bands,) if isinstance(bands, str) else tuple(bands)
    if not names:
        raise InputError("bands= is empty: name some, such as ['B04', 'B08', 'VV'], or leave it out for all.")
    for name in names:
        if name not in DTYPES:
            near = difflib.get_close_matches(str(name).upper(), DTYPES, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"Unknown band {name!r}.{hint} There are {', '.join(DTYPES)}.")
    return tuple(dict.fromkeys(names))


def check_resampling(resampling: Resampling) -> dict[str, str] | str | None:
    """The `resampling=` argument, checked: a method, a method for each band, or None for what suits each.

    >>> check_resampling({"B05": "cubic"})
    {'B05': 'cubic'}
    """
    from .engine.warp import REACH_PX

    known = list(REACH_PX)
    for method in [] if resampling is None else [resampling] if isinstance(resampling, str) else resampling.values():
        if method not in known:
            raise InputError(f"Unknown resampling {method!r}: there are {', '.join(known)}.")
    if resampling is None or isinstance(resampling, str):
        return resampling
    for name, method in resampling.items():
        if name not in DTYPES:
            raise InputError(f"resampling={{{name!r}: ...}}: {name!r} is no band. There are {', '.join(DTYPES)}.")
        if name in CODES and method != "nearest":
            raise InputError(f"resampling={{{name!r}: {method!r}}}: {name} holds codes, which only 'nearest' keeps.")
    return dict(resampling)


def check_grid(grid: Any) -> GeoBox:
    """The grid to read on, checked: north up, with a CRS."""
    from odc.geo.geobox import GeoBox

    if not isinstance(grid, GeoBox):
        raise InputError(
            f"The grid is a {type(grid).__name__}, not a GeoBox. Make one: grid = ds.geobox(aoi, resolution=10)."
        )
    if grid.crs is None:
        raise InputError(
            "The grid has no CRS, so nobody knows where it lies. Make one with ds.geobox(aoi, resolution=10)."
        )
    a = grid.affine
    if a.b or a.d or a.a <= 0 or a.e >= 0:
        raise InputError("The grid is rotated or not north up. Make one with ds.geobox(aoi, resolution=10).")
    return grid


def check_grids(grids: Any, rows: int) -> list[GeoBox]:
    """One grid for each row; one row with many grids, or many rows with one grid, stand for the whole."""
    from odc.geo.geobox import GeoBox

    several = list(grids) if isinstance(grids, Iterable) and not isinstance(grids, GeoBox) else [grids]
    several = [check_grid(grid) for grid in several]
    if rows == 1 or len(several) == rows:
        return several
    if len(several) == 1:
        return several * rows
    raise InputError(f"{rows} rows and {len(several)} grids: give one grid for each row, or one row, or one grid.")


def rows_and_grids(table: pd.DataFrame | pd.Series | Row, grids: Any, on_error: str) -> tuple[list[Row], list[GeoBox]]:
    """What `read_many` reads: as many rows as grids, whichever of the two was given once for all."""
    if on_error not in ("record", "skip", "raise"):
        raise InputError(f"on_error={on_error!r}: it is 'record', 'skip' or 'raise'.")
    rows = rows_of(table) if is_table(table) else [row_of(table)]
    boxes = check_grids(grids, len(rows))
    return (rows * len(boxes) if len(rows) == 1 else rows), boxes
