"""Labels that somebody points at or draws: made into the table that all labels are, and written as files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from deepsentinel.errors import InputError
from deepsentinel.files import atomic_path
from deepsentinel.legend import Legend, LegendClass, distinct_colors, published

from .common import CLASS_NAME, FIRST_COLUMNS

__all__ = ["legend_of_labels", "make_labels", "save_labels"]

LONLAT = "EPSG:4326"
COLOR = "color"
DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".parquet": "GeoParquet"}
LAYER = "labels"
# Okabe and Ito's palette without black and yellow, told apart by every kind of colour vision and on any picture.
PALETTE = ("#e69f00", "#0072b2", "#009e73", "#d55e00", "#56b4e9", "#cc79a7")


def make_labels(
    items: Iterable[tuple[Any, str]], *, colors: Mapping[str, str] | None = None, add_to: gpd.GeoDataFrame | None = None
) -> gpd.GeoDataFrame:
    """Places and what is there, as a table of labels in EPSG:4326: what a person pins and draws by hand.

    items: pairs of a place and the name of its class. A place is (lon, lat) in degrees, a GeoJSON geometry or a
    shapely one; points and polygons. A name may tell groups, from the coarse to the fine: "crop / wheat".
    colors: `{name: "#rrggbb"}`, which also sets the order in which classes are numbered from 1; those that it lacks
    follow, and get colours that are told apart. add_to: labels to which these are added; a class of the same name is
    the same class.

    Columns: `geometry`, `ground_truth` (a number), `id`, `valid_from`, `valid_to`, `class_name`, `color`; the legend is
    in `attrs["legend"]`.

    >>> labels = make_labels([((2.1, 48.1), "wood"), ((2.2, 48.1), "crop / wheat")], colors={"wood": "#009e73"})
    >>> labels[["ground_truth", "class_name", "color"]].values.tolist()
    [[1, 'wood', '#009e73'], [2, 'crop / wheat', '#e69f00']]
    """
    places, names = [], []
    for number, item in enumerate(items):
        try:
            place, name = item
        except (TypeError, ValueError):
            raise InputError(f"Item {number} is {item!r:.80}; each is a place and the name of its class.") from None
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"Item {number} has the class {name!r}; give a name, such as 'wheat'.")
        places.append(_shape(place, number))
        names.append(name.strip())
    before = None if add_to is None else _checked(add_to)
    legend = _legend([*(colors or {}), *names], colors or {}, None if before is None else legend_of_labels(before))
    code = legend.numbers
    table = gpd.GeoDataFrame(
        {"ground_truth": np.array([code[name] for name in names], "int64"), "id": np.arange(1, len(names) + 1)},
        geometry=gpd.GeoSeries(places, crs=LONLAT),
    )
    if before is not None:
        first = before.to_crs(LONLAT)
        truth = first["ground_truth"]
        if not pd.api.types.is_numeric_dtype(truth.dtype):
            truth = truth.astype(str).str.strip().map(code)
        first = gpd.GeoDataFrame({"ground_truth": truth.to_numpy()}, geometry=first.geometry.array, crs=LONLAT)
        table = gpd.GeoDataFrame(pd.concat([first, table], ignore_index=True), geometry="geometry", crs=LONLAT)
        table["id"] = np.arange(1, len(table) + 1)
    for column in ("valid_from", "valid_to"):
        table[column] = pd.Series(pd.NaT, index=table.index, dtype="datetime64[ns]")
    table[CLASS_NAME] = table["ground_truth"].map(legend.names).astype(object)
    table[COLOR] = table["ground_truth"].map(legend.colors).astype(object)
    table = table[[*FIRST_COLUMNS, CLASS_NAME, COLOR]]
    table.attrs = {"kind": "canonical", "source": "by hand", "legend": legend.to_json()}
    return table


def legend_of_labels(labels: gpd.GeoDataFrame) -> Legend:
    """The classes of labels: the legend that came with them, or what their names, colours and codes make.

    >>> labels = make_labels([((2.1, 48.1), "wood")], colors={"wood": "#123456"})
    >>> labels.attrs.clear()
    >>> legend_of_labels(labels).colors
    {1: '#123456'}
    """
    codes = labels["ground_truth"]
    if labels.attrs.get("legend"):
        stored = Legend.from_json(labels.attrs["legend"])
        if not pd.api.types.is_integer_dtype(codes.dtype) or set(codes.dropna().astype(int)) <= set(stored.codes):
            return stored
    if not pd.api.types.is_numeric_dtype(codes.dtype):
        return Legend.of_texts(codes, name="classes")
    if CLASS_NAME not in labels.columns:
        return Legend.of_codes(codes.dropna().astype(int).unique())
    named = labels[["ground_truth", CLASS_NAME]].dropna().drop_duplicates("ground_truth").sort_values("ground_truth")
    names = {int(code): str(name) for code, name in named.itertuples(index=False)}
    names |= {int(code): str(code) for code in codes.dropna().unique() if int(code) not in names}
    found = dict(zip(names, _colors(names), strict=True))
    if COLOR in labels.columns:
        told = labels[["ground_truth", COLOR]].dropna().drop_duplicates("ground_truth")
        found |= {int(code): str(color).lower() for code, color in told.itertuples(index=False)}
    return Legend("classes", tuple(LegendClass(code, name, found[code]) for code, name in sorted(names.items())))


def save_labels(labels: gpd.GeoDataFrame, path: str | os.PathLike[str]) -> Path:
    """Write labels as GeoPackage, GeoJSON (in degrees, as it must be) or GeoParquet; returns the path.

    The file appears whole or not at all, with the names and colours of the classes beside their numbers, so that
    `read_labels(path)` gives the same labels again. An older file of labels is replaced, anything else is not.

    >>> import tempfile
    >>> import deepsentinel as ds
    >>> path = save_labels(make_labels([((2.1, 48.1), "wood")]), Path(tempfile.mkdtemp()) / "mine.geojson")
    >>> ds.read_labels(path)[["ground_truth", "class_name"]].values.tolist()
    [[1, 'wood']]
    """
    table = _checked(labels)
    target = Path(path).expanduser()
    if target.suffix.lower() not in DRIVERS:
        raise InputError(f"Labels are written as {', '.join(DRIVERS)}, and {target.name} ends in none of these.")
    if target.is_dir() or (target.exists() and not _is_labels(target)):
        raise InputError(f"{target} is no file of labels; choose another name, or move it away.")
    legend = legend_of_labels(table)
    written = table.copy()
    if not pd.api.types.is_numeric_dtype(written["ground_truth"].dtype):
        written["ground_truth"] = written["ground_truth"].astype(str).str.strip().map(legend.numbers)
    written[CLASS_NAME] = written["ground_truth"].map(legend.names).astype(object)
    written[COLOR] = written["ground_truth"].map(legend.colors).astype(object)
    # A column of nothing has no type that a file could give it.
    written = written.drop(columns=[name for name in ("valid_from", "valid_to") if _empty(written, name)])
    write_table(written, target, layer=LAYER)
    return target


def write_table(table: gpd.GeoDataFrame, target: Path, *, layer: str, **options: Any) -> None:
    """A table with geometries as GeoPackage, GeoJSON (in degrees, as it must be) or GeoParquet, whole or not at all.

    The options are those of a GeoPackage.
    """
    driver = DRIVERS[target.suffix.lower()]
    with atomic_path(target) as temporary:
        temporary.unlink()  # GDAL makes a file, and takes an empty one for a broken one
        if driver == "GeoParquet":
            table.to_parquet(temporary)
        elif driver == "GeoJSON":
            # Its name would be that of the temporary file, another one each time.
            table.to_crs(LONLAT).to_file(temporary, driver=driver, layer=layer, RFC7946="YES")
        else:
            table.to_file(temporary, driver=driver, layer=layer, **options)


def _shape(place: Any, number: int) -> Any:
    pair = isinstance(place, Sequence) and not isinstance(place, str) and len(place) == 2
    try:
        shape = shapely.Point(*map(float, place)) if pair else shapely.geometry.shape(place)
    except (AttributeError, TypeError, ValueError, KeyError, shapely.errors.ShapelyError):
        raise InputError(f"Item {number} is at {place!r:.80}; give (lon, lat), or a point or polygon.") from None
    if shape.is_empty or shape.geom_type not in ("Point", "MultiPoint", "Polygon", "MultiPolygon"):
        raise InputError(
            f"Item {number} is a {shape.geom_type}{' of nothing' * shape.is_empty}; points and polygons are labels."
        )
    west, south, east, north = shape.bounds
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise InputError(f"Item {number} is at {west:g}, {south:g}, which is no longitude and latitude in degrees.")
    return shape


def _legend(names: Iterable[str], colors: Mapping[str, str], before: Legend | None) -> Legend:
    held = () if before is None else before.classes
    known = {entry.name for entry in held}
    new = list(dict.fromkeys(name for name in names if name not in known))
    taken = {entry.color for entry in held} | set(colors.values())
    # Both lists begin alike; each colour is there once.
    every = dict.fromkeys((*PALETTE, *distinct_colors(len(PALETTE) + len(new) + len(taken))))
    free = [color for color in every if color not in taken]
    start = max((entry.code for entry in held), default=0) + 1
    chosen = [colors.get(name) or free.pop(0) for name in new]
    added = [
        LegendClass(start + at, name, color.lower()) for at, (name, color) in enumerate(zip(new, chosen, strict=True))
    ]
    kept = [replace(entry, color=colors.get(entry.name, entry.color).lower(), parent=None) for entry in held]
    return Legend("classes" if before is None else before.name, (*kept, *added))


def _colors(names: Mapping[int, str]) -> list[str]:
    known = published(names)
    return distinct_colors(len(names)) if known is None else [known[code].color for code in names]


def _checked(labels: Any) -> gpd.GeoDataFrame:
    if not hasattr(labels, "to_crs") or "ground_truth" not in getattr(labels, "columns", ()):
        raise InputError(
            f"A {type(labels).__name__} is no table of labels: a GeoDataFrame with `ground_truth` is meant."
        )
    if labels.crs is None:
        raise InputError("The labels have no CRS, so nobody knows where they lie: labels.set_crs(...) tells it.")
    return labels


def _empty(table: gpd.GeoDataFrame, name: str) -> bool:
    return name in table.columns and bool(table[name].isna().all())


def _is_labels(file: Path) -> bool:
    try:
        if file.suffix.lower() == ".parquet":
            import pyarrow.parquet

            names = set(pyarrow.parquet.read_schema(file).names)
        else:
            import pyogrio

            layers = pyogrio.list_layers(file)
            names = set(pyogrio.read_info(file)["fields"]) if len(layers) == 1 else set()
    except Exception:  # whatever it is, it is not ours
        return False
    return "ground_truth" in names
