"""Where a person should look next: the ground that examples say least about."""

from __future__ import annotations

import warnings

import geopandas as gpd
import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from deepsentinel.errors import InputError
from deepsentinel.grids import metres_per_unit
from deepsentinel.similarity.vectors import Grid
from deepsentinel.similarity.wanted import unit

from .classifying import Scaling, fitted, probabilities
from .labelled import GROUND_TRUTH, Labelled, labelled_cells

LONLAT = "EPSG:4326"
# Blocks of ground for each place that is asked for: enough to choose among, few enough to lie apart.
BLOCKS_PER_PLACE = 4
# A doubtful cell among sure ones is the edge of a field, and nobody can say what a mixture is.
NEIGHBOURS = 3
# What counts how much while kinds of doubtful ground are sought: the doubt to this power. On two maps of the demo
# world, 25 labels that were asked for in this way gave 60 and 78 % of the cells their class, 25 at random 57 and 71 %.
# The most doubtful cells as such, all of one kind, gave 59 and 72 %; kinds of ground, doubtful or not, 54 and 71 %.
POWER = 2
# A place is at least so doubtful, of the most doubtful one of its kind.
LEAST = 0.5
# Kinds of ground are told by so many cells as well as by all.
MOST_CELLS = 4000


def suggest(
    z: xr.DataArray,
    examples: gpd.GeoDataFrame,
    n: int = 5,
    *,
    value: str = GROUND_TRUTH,
    level: int | None = None,
    block_m: float | None = None,
    seed: int = 0,
) -> gpd.GeoDataFrame:
    """Where the next labels help most: up to `n` places, the most doubtful first, one a block of ground and apart.

    Doubtful ground is parted into `n` kinds, and of each kind the place is taken that is most like the rest of it: the
    answer tells most then. The doubt is how little the first class of `classify` leads before the second, averaged
    over a cell and its neighbours, so that it is not the edge of a field; while all examples are of one class, it is
    how unlike them a cell is. `block_m` is the side of the blocks; None: about four of them for each place. No place is
    nearer than half a block to another one, or to an example, while there are others.

    Columns: `doubt` (0 to 1), `class_name` (what `classify` would say; None where it cannot), `row` and `col` of the
    cell, `lon`, `lat` and the point `geometry` in EPSG:4326.

    >>> import deepsentinel as ds
    >>> from deepsentinel.grids import grid_coords
    >>> grid = ds.geobox((2.0, 48.0, 2.02, 48.02), resolution=40)
    >>> values = np.random.default_rng(0).normal(size=(*grid.shape, 4))
    >>> z = xr.DataArray(values.astype("float32"), grid_coords(grid), ("y", "x", "feature"))
    >>> labels = ds.make_labels([((2.002, 48.01), "wood"), ((2.018, 48.01), "town")])
    >>> places = suggest(z, labels, n=3)
    >>> len(places), bool(places["doubt"].is_monotonic_decreasing)
    (3, True)
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise InputError(f"n={n!r} is not a number of places; give one from 1 on.")
    if block_m is not None and not block_m > 0:
        raise InputError(f"block_m={block_m!r} is not a size in metres.")
    found = labelled_cells(z, examples, value=value, level=level)
    if not len(found.rows):
        raise InputError("None of the examples lies on ground of the embedding that was seen; label one place first.")
    scaling = Scaling(found.table, found.usable)
    doubt, classes = _doubt(found, scaling, seed)
    grid = found.table.places
    assert isinstance(grid, Grid)
    shape = int(grid.geobox.shape.y), int(grid.geobox.shape.x)
    smooth = _neighbourhood(doubt.reshape(shape)).reshape(-1)
    # What has a label needs no other.
    smooth[found.rows] = np.nan
    places = _metres(grid)
    side = _side(places, int(n)) if block_m is None else float(block_m)
    seen = np.flatnonzero(np.isfinite(smooth))
    if not len(seen):
        raise InputError("Every cell that was seen has a label already: there is nowhere left to look.")
    some = seen[np.linspace(0, len(seen) - 1, min(MOST_CELLS, len(seen))).round().astype("int64")]
    kinds = _kinds(scaling(found.table.matrix(some)), smooth[some], int(n), seed)
    chosen = _apart([some[kind] for kind in kinds], places, places[np.unique(found.rows)], side, int(n))
    chosen = chosen[np.argsort(-smooth[chosen], kind="stable")]
    table = grid.table(chosen)
    names = found.legend.names
    said = [None if classes is None else names[int(code)] for code in (chosen if classes is None else classes[chosen])]
    columns = {"doubt": smooth[chosen].astype("float64"), "class_name": np.array(said, object)}
    columns |= {name: table[name].to_numpy() for name in ("row", "col", "lon", "lat")}
    result = gpd.GeoDataFrame(columns, geometry=gpd.points_from_xy(table["lon"], table["lat"]), crs=LONLAT)
    result.attrs = {"block_m": side}
    return result


def _doubt(found: Labelled, scaling: Scaling, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """How little is known of each cell, NaN where nothing was seen, and its likeliest class."""
    vectors = found.table.matrix(found.rows)
    doubt = np.full(found.table.count, np.nan, "float32")
    if len(np.unique(found.code)) < 2:
        known = unit(scaling(vectors))[0]
        for rows, block in found.table.blocks():
            near = (unit(np.nan_to_num(scaling(block)))[0] @ known.T).max(axis=1)
            doubt[rows] = (1 - near) / 2
        doubt[~found.usable] = np.nan
        return doubt, None
    weights, bias, codes = fitted(scaling, vectors, found.code, found.weight, seed)
    classes = np.zeros(found.table.count, "int64")
    for rows, block in found.table.blocks():
        share = probabilities(block, weights, bias)
        seen = np.isfinite(share).all(axis=1)
        safe = np.where(seen[:, None], share, 1.0)
        best = np.partition(safe, -2, axis=1)
        doubt[rows] = np.where(seen, 1 - (best[:, -1] - best[:, -2]), np.nan)
        classes[rows] = codes[safe.argmax(axis=1)]
    return doubt, classes


def _neighbourhood(doubt: np.ndarray) -> np.ndarray:
    """The mean of each cell and its neighbours, as far as they were seen.

    >>> _neighbourhood(np.array([[0.0, 1.0, np.nan]])).tolist()
    [[0.5, 0.5, nan]]
    """
    seen = np.isfinite(doubt)
    around = np.pad(np.where(seen, doubt, 0.0).astype("float64"), NEIGHBOURS // 2)
    count = np.pad(seen.astype("float64"), NEIGHBOURS // 2)
    rows, columns = doubt.shape
    total, number = np.zeros(doubt.shape), np.zeros(doubt.shape)
    for down in range(NEIGHBOURS):
        for across in range(NEIGHBOURS):
            total += around[down : down + rows, across : across + columns]
            number += count[down : down + rows, across : across + columns]
    return np.where(seen, total / np.maximum(number, 1), np.nan)


def _metres(grid: Grid) -> np.ndarray:
    """The middle of each cell in metres along the grid."""
    across, down = metres_per_unit(grid.geobox)
    row, col = np.divmod(np.arange(grid.count), int(grid.geobox.shape.x))
    a = grid.geobox.affine
    return np.column_stack([(col + 0.5) * abs(a.a) * across, (row + 0.5) * abs(a.e) * down])


def _side(places: np.ndarray, n: int) -> float:
    """The side of blocks of which there are a few for each place."""
    step = places.min(axis=0) * 2
    width, height = places.max(axis=0) + step / 2
    return float(max(np.sqrt(width * height / (BLOCKS_PER_PLACE * n)), step.max()))


def _kinds(vectors: np.ndarray, doubt: np.ndarray, n: int, seed: int) -> list[np.ndarray]:
    """Kinds of doubtful ground, that of most doubt first, each in the order in which its cells stand for it."""
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise InputError("suggest needs scikit-learn: pip install 'deepsentinel[learn]'") from error
    # Where nothing is in doubt, every kind of ground is as good as another.
    weight = doubt.astype("float64") ** POWER + 1e-9
    with warnings.catch_warnings():
        # Fewer different vectors than kinds: fewer are found.
        warnings.filterwarnings("ignore", message="Number of distinct clusters")
        fitted = KMeans(min(n, len(vectors)), n_init=1, random_state=seed).fit(vectors, sample_weight=weight)
    away = np.linalg.norm(vectors - fitted.cluster_centers_[fitted.labels_], axis=1)
    kinds = []
    for number in np.unique(fitted.labels_):
        own = np.flatnonzero(fitted.labels_ == number)
        doubtful = doubt[own] >= LEAST * doubt[own].max()
        # What is not doubtful comes last, for when there is nothing else.
        kinds.append(own[np.lexsort((away[own], ~doubtful))])
    return sorted(kinds, key=lambda own: -weight[own].sum())


def _apart(kinds: list[np.ndarray], places: np.ndarray, known: np.ndarray, side: float, n: int) -> np.ndarray:
    """One cell of each kind, and more of them where some kinds have none, as far apart as may be."""
    blocks = np.floor(places / side).astype("int64")
    chosen: list[int] = []
    taken: set[tuple[int, int]] = set()
    # A kind that lies beside an example, or in one block with another, has its place there rather than none.
    for distance, alone in ((side / 2, True), (side / 2, False), (0.0, False)):
        for kind in kinds:
            if len(chosen) == n or any(cell in chosen for cell in kind):
                continue
            others = np.concatenate([known, places[chosen]])
            near, _ = cKDTree(others).query(places[kind])
            free = near >= distance
            if alone:
                free &= np.array([tuple(block) not in taken for block in blocks[kind]])
            if free.any():
                chosen.append(int(kind[np.argmax(free)]))
                taken.add(tuple(blocks[chosen[-1]]))
    return np.array(chosen, "int64")
