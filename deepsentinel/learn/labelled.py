"""Labels laid on a dense embedding: which cells somebody named, and what each of them is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import shapely

from deepsentinel.errors import InputError
from deepsentinel.grids import crs_of
from deepsentinel.labels.making import legend_of_labels
from deepsentinel.legend import Legend, LegendClass, LegendLike
from deepsentinel.legend_class import mean_color
from deepsentinel.masks.classes import ClassColumn
from deepsentinel.similarity.vectors import Grid, Vectors, vectors_of

GROUND_TRUTH = "ground_truth"
SEPARATOR = " / "
# A field of a thousand cells says little more than so many of them, evenly spread over it.
MOST_CELLS = 64
# Nor do more cells than this altogether make a better map, only a slower one.
MOST_ROWS = 6000


@dataclass(frozen=True, eq=False)
class Labelled:
    """The cells of an embedding that lie under examples."""

    table: Vectors
    """The embedding."""
    usable: np.ndarray
    """Which of its cells have data."""
    rows: np.ndarray
    """The number of each labelled cell; one under two examples is there twice."""
    example: np.ndarray
    """Which row of the examples it lies under."""
    code: np.ndarray
    """Its class, as in the legend."""
    legend: Legend
    """The classes that occur on this ground."""
    lost: int
    """How many examples lie elsewhere, or where nothing was seen."""

    @property
    def weight(self) -> np.ndarray:
        """What each cell counts: every example the same within its class, and every class the same."""
        _, at, cells = np.unique(self.example, return_inverse=True, return_counts=True)
        each = 1.0 / cells[at]
        _, of = np.unique(self.code, return_inverse=True)
        each /= np.bincount(of, weights=each)[of]
        return np.asarray(each * len(cells) / each.sum())


def labelled_cells(
    z: Any, examples: gpd.GeoDataFrame, *, value: str = GROUND_TRUTH, level: int | None = None
) -> Labelled:
    """The cells under examples: of a point the one that holds it, of a polygon all whose middle lies within.

    A polygon that is too small to hold the middle of a cell takes the one in which it lies.

    >>> import deepsentinel as ds
    >>> import xarray as xr
    >>> from deepsentinel.grids import grid_coords
    >>> grid = ds.geobox((2.0, 48.0, 2.01, 48.01), resolution=40)
    >>> z = xr.DataArray(np.ones((*grid.shape, 4), "float32"), grid_coords(grid), ("y", "x", "feature"))
    >>> labelled_cells(z, ds.make_labels([((2.005, 48.005), "wood"), ((9, 48), "town")])).lost
    1
    """
    table = vectors_of(z, "z")
    if not isinstance(table.places, Grid):
        raise InputError("z is no map of vectors: ds.embed(patch, encoder, dense=True) makes one.")
    codes, legend, kept = classes_of(examples, value, level)
    grid = table.places.geobox
    shapes = np.asarray(examples.geometry.to_crs(crs_of(grid)).array, dtype=object)[kept]
    rows, example = _cells(shapes, grid)
    usable = table.usable()
    seen = usable[rows]
    rows, example = rows[seen], example[seen]
    here = np.unique(example)
    if len(here):
        legend = legend.only(np.unique(codes[here]).tolist())
    if len(rows) > MOST_ROWS:
        # Every so many, but each example keeps its first.
        stays = np.zeros(len(rows), bool)
        stays[np.linspace(0, len(rows) - 1, MOST_ROWS).round().astype(int)] = True
        stays[np.searchsorted(example, here)] = True
        rows, example = rows[stays], example[stays]
    return Labelled(
        table, usable, rows, np.flatnonzero(kept)[example], codes[example], legend, len(examples) - len(here)
    )


def classes_of(
    examples: gpd.GeoDataFrame, value: str = GROUND_TRUTH, level: int | None = None
) -> tuple[np.ndarray, Legend, np.ndarray]:
    """(code of each row that has one, legend, which rows these are), at a level of the names or of the legend.

    >>> import deepsentinel as ds
    >>> labels = ds.make_labels([((2, 48), "crop / rye"), ((2, 49), "crop / oats"), ((2, 50), "lake")])
    >>> codes, legend, _ = classes_of(labels, level=1)
    >>> [legend.names[code] for code in codes]
    ['crop', 'crop', 'lake']
    """
    if not hasattr(examples, "geometry") or value not in getattr(examples, "columns", ()):
        raise InputError(
            f"examples is a {type(examples).__name__} without the column {value!r}: labels are meant, such as"
            " ds.make_labels or ds.read_labels gives them."
        )
    if examples.crs is None:
        raise InputError("The examples have no CRS, so nobody knows where they lie: examples.set_crs(...) tells it.")
    given: LegendLike | None = legend_of_labels(examples) if value == GROUND_TRUTH and len(examples) else None
    column = ClassColumn.of(examples, value, given, 0)
    if column.kind != "class" or column.legend is None:
        raise InputError(f"The column {value!r} holds numbers to regress, not classes; a map of classes needs these.")
    kept = (examples[value].notna() & examples.geometry.notna() & ~examples.geometry.is_empty).to_numpy()
    codes, legend = column.codes[kept], column.legend
    if level is None:
        return codes, legend, kept
    if isinstance(level, bool) or not isinstance(level, int | np.integer) or level < 1:
        raise InputError(f"level={level!r} is no level; 1 is the coarsest.")
    if legend.coarser is not None:
        return legend.up(codes, int(level)), legend.at(int(level)), kept
    return (*_grouped(codes, legend, int(level)), kept)


def _grouped(codes: np.ndarray, legend: Legend, level: int) -> tuple[np.ndarray, Legend]:
    """Classes whose names begin with the same words become one, numbered in the order of the legend."""
    heads = {entry.code: SEPARATOR.join(entry.name.split(SEPARATOR)[:level]) for entry in legend}
    order = {head: number for number, head in enumerate(dict.fromkeys(heads.values()), start=1)}
    colors = {head: [entry.color for entry in legend if heads[entry.code] == head] for head in order}
    classes = [
        LegendClass(number, head, colors[head][0] if len(colors[head]) == 1 else mean_color(colors[head]))
        for head, number in order.items()
    ]
    table = {code: order[head] for code, head in heads.items()}
    return np.array([table[int(code)] for code in codes], "int64"), Legend(legend.name, tuple(classes))


def _cells(shapes: np.ndarray, grid: Any) -> tuple[np.ndarray, np.ndarray]:
    """Cell and shape, for all cells under shapes, in the order of the shapes."""
    rows: list[np.ndarray] = []
    owner: list[np.ndarray] = []
    for number, shape in enumerate(shapes):
        kind = shape.geom_type
        if kind in ("Point", "MultiPoint"):
            cells = _holding(shapely.get_coordinates(shape), grid)
        elif kind in ("Polygon", "MultiPolygon"):
            cells = _within(shape, grid)
            if not len(cells):
                cells = _holding(shapely.get_coordinates(shape.representative_point()), grid)
        else:
            raise InputError(f"Example {number} is a {kind}; points and polygons say which ground is meant.")
        if len(cells) > MOST_CELLS:
            cells = cells[np.linspace(0, len(cells) - 1, MOST_CELLS).round().astype(int)]
        rows.append(cells)
        owner.append(np.full(len(cells), number))
    if not rows:
        return np.empty(0, "int64"), np.empty(0, "int64")
    found = np.concatenate(rows)
    return found, np.concatenate(owner)


def _holding(xy: np.ndarray, grid: Any) -> np.ndarray:
    """The cells that hold points; those elsewhere have none."""
    a, width = grid.affine, int(grid.shape.x)
    with np.errstate(invalid="ignore"):
        col, row = np.floor((xy[:, 0] - a.c) / a.a), np.floor((xy[:, 1] - a.f) / a.e)
    inside = (row >= 0) & (row < int(grid.shape.y)) & (col >= 0) & (col < width)
    return np.asarray(np.unique(row[inside] * width + col[inside]), "int64")


def _within(shape: Any, grid: Any) -> np.ndarray:
    """The cells whose middle lies in a polygon."""
    a, width = grid.affine, int(grid.shape.x)
    west, south, east, north = shape.bounds
    cols, rows = np.sort([(west - a.c) / a.a, (east - a.c) / a.a]), np.sort([(south - a.f) / a.e, (north - a.f) / a.e])
    col = np.arange(max(0, int(cols[0])), min(width, int(np.ceil(cols[1]))))
    row = np.arange(max(0, int(rows[0])), min(int(grid.shape.y), int(np.ceil(rows[1]))))
    if not len(col) or not len(row):
        return np.empty(0, "int64")
    across, down = np.meshgrid(a.c + a.a * (col + 0.5), a.f + a.e * (row + 0.5))
    held = shapely.contains_xy(shape, across, down)
    return np.asarray((row[:, None] * width + col)[held], "int64")
