"""Labels of many publishers, each read into the same table: geometry, class, id and when it was true.

`read_labels` recognises the format by its columns. A new one is a file beside these, with a `Format` in the list below.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np

from deepsentinel.aoi import area as area_of
from deepsentinel.errors import InputError

from .apart import set_aside
from .common import Format, Options, lookup
from .opening import LabelFile, Layer, open_labels

__all__ = ["formats", "read_labels", "set_aside"]


def formats() -> list[Format]:
    """All formats, in the order in which a file is held against them: the most particular first.

    >>> [format.name for format in formats()][:2]
    ['corine', 'sigrid3']
    """
    from . import canonical, corine, guessed, icechart, osm, parcels

    return [corine.CORINE, icechart.SIGRID3, *parcels.FORMATS, *osm.FORMATS, canonical.CANONICAL, guessed.GUESSED]


def read_labels(
    path: Any,
    kind: str | None = None,
    *,
    bbox: Any = None,
    layer: str | None = None,
    level: int | None = None,
    value: str | None = None,
    year: int | str | None = None,
    tags: Any = None,
    flatten: bool | None = None,
    crs: Any = None,
) -> gpd.GeoDataFrame:
    """Labels from a file, as a table with the same first columns whatever the publisher.

    Parameters
    ----------
    path
        GeoPackage, shapefile, GeoJSON, GeoParquet, FlatGeobuf, CSV with WKT or with lon and lat in degrees,
        OpenStreetMap's .osm.pbf, or a .zip that holds one of them. A country-sized file is fine with `bbox`: only what
        is needed is read.
    kind
        The format: corine, osm, rpg, invekos, brp, flanders, fiboa, sigrid3, canonical, .. (`formats()` lists them).
        None recognises it by its columns; `attrs["kind"]` says which it took.
    bbox
        Where labels are wanted: a box (west, south, east, north) in degrees, or anything `deepsentinel.aoi.area` takes.
        Rows that touch it are read whole.
    layer
        One layer of a file that has several. None takes those that fit the format.
    level
        How fine the classes are: CORINE 1 to 3, OpenStreetMap 1 to 3 (default 2), crops 1 to 3.
    value
        The column to take as `ground_truth`, in a file that no format fits, of all layers that have it; for ice charts
        the quantity. Without it a column that says by its name that it tells classes (class_name, class, landcover,
        label) is taken, and that is said.
    year
        The status year of a file that holds several (CORINE), or tells none: 2018 or "2018".
    tags
        For OpenStreetMap: a table of tags and classes in place of ours, see `deepsentinel.labels.tags.tag_table`.
    flatten
        For OpenStreetMap: whether what lies under something else (land use under a house, a road, a lake) is cut out of
        it, so that no ground has two classes. Done unless `flatten=False`.
    crs
        The CRS of a file that does not tell it. Nothing is guessed.

    Returns
    -------
    GeoDataFrame
        `geometry, ground_truth, id, valid_from, valid_to` (naive UTC, NaT where open), `class_name` (where there is a
        legend), then the source's own columns. `attrs`: `kind`, `source`, `legend` (`Legend.from_json` reads it),
        `repairs`, `set_aside` and `notes`. Rows that are no labels (a ditch, land on a chart of ice, no geometry) are
        in `set_aside` with the reason, and one `DeepSentinelWarning` says how many for which reasons;
        `deepsentinel.labels.set_aside(labels)` gives these rows whole. A label holds from `valid_from` on, and no
        longer at `valid_to`: that of the year 2018 ends at 2019-01-01.

    >>> import deepsentinel as ds
    >>> labels = read_labels(ds.open_source("demo", size_px=256).labels["corine"])
    >>> labels.attrs["kind"], 211 in set(labels.ground_truth)
    ('corine', True)
    """
    _check_arguments(path, kind, value)
    known = {entry.name: entry for entry in formats()}
    if kind is not None and kind not in known:
        raise InputError(f"kind={kind!r} is not known; there are {', '.join(known)}.")
    options = Options(level=level, value=value, year=_year(year), tags=tags, flatten=flatten)
    area = None if bbox is None else area_of(bbox)
    file = open_labels(path, area=area, layer=layer, crs=crs)
    chosen, layers = _recognised(file, list(known.values())) if kind is None else _asked_for(file, known[kind])
    if chosen is None:
        if value is None:
            raise InputError(_nothing_fits(file, list(known.values())))
        chosen, layers = known["canonical"], list(file.layers)
    if wrong := [name for name in options.given() if name not in chosen.takes]:
        takes = f"it takes {', '.join(sorted(chosen.takes))}" if chosen.takes else "it takes none"
        raise InputError(
            f"{Path(path).name} was read as {chosen.name!r}, which does not know {' and '.join(wrong)};"
            f" {takes}.{_own_column(layers, value)}"
        )
    return chosen.read(file, layers, options)


def _check_arguments(path: Any, kind: Any, value: Any) -> None:
    if hasattr(path, "columns") and hasattr(path, "crs"):
        raise InputError(
            "read_labels reads a file, and this is a table already: give it to rasterize, class_fractions or show as it"
            " is. They need a CRS and a column of classes (ground_truth, or the one named by value='...')."
        )
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"path is a {type(path).__name__}; give the path of one file of labels, as text or a Path.")
    for name, given in (("kind", kind), ("value", value)):
        if given is not None and not isinstance(given, str):
            raise InputError(f"{name}={given!r} is a {type(given).__name__}; give one name as text.")


def _year(year: Any) -> int | None:
    """A year as a number; text such as "2018" is one too, as it comes from the names of files."""
    if year is None:
        return None
    text = str(year).strip() if isinstance(year, (str, int, np.integer)) and not isinstance(year, bool) else ""
    if not re.fullmatch(r"\d{4}", text):
        raise InputError(f"year={year!r} is not a year; give a number of four digits, such as 2018.")
    return int(text)


def _own_column(layers: Sequence[Layer], value: str | None) -> str:
    """What to do who named a column of the file, which stays in the table beside ours."""
    spelled = None if value is None else lookup([column for layer in layers for column in layer.columns], value)
    if spelled is None:
        return ""
    return (
        f" The column {spelled!r} stays in the table: leave out value= here, and burn it by"
        f" rasterize(labels, grid, value={spelled!r}); or take it as the classes by read_labels(path,"
        f" kind='canonical', value={spelled!r})."
    )


def _recognised(file: LabelFile, known: list[Format]) -> tuple[Format | None, list[Layer]]:
    for entry in known:
        fitting = [layer for layer in file.layers if entry.recognises(layer, file)]
        if fitting:
            return entry, fitting
    return None, []


def _asked_for(file: LabelFile, wanted: Format) -> tuple[Format, list[Layer]]:
    """What is asked for by name is still held against the columns, for an error that says what is missing."""
    fitting = [layer for layer in file.layers if wanted.recognises(layer, file)]
    if not fitting and wanted.name != "canonical":
        raise InputError(f"{file.path.name} is not {wanted.name!r}: that has {wanted.looks_for}. {_found(file)}")
    return wanted, fitting or list(file.layers)


def _found(file: LabelFile) -> str:
    return " ".join(f"Layer {layer.name!r} has {', '.join(layer.columns) or 'no columns'}." for layer in file.layers)


def _nothing_fits(file: LabelFile, known: list[Format]) -> str:
    looked = "\n".join(f"  {entry.name}: {entry.looks_for}" for entry in known)
    return (
        f"{file.path.name} is of no known kind. {_found(file)} Looked for:\n{looked}\nName the column of the classes"
        " (value='...'), and they are taken as they are."
    )
