"""What an embedding looks like: its main directions as colours, its groups as classes, and what changed between two."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from deepsentinel.errors import InputError, warn
from deepsentinel.legend_class import Legend, LegendClass

from .vectors import Vectors, check_same_encoder, check_same_places, vectors_of
from .wanted import METRICS, unit

CHANNELS = ("red", "green", "blue")
# The colours span this part of the values; the rest, on either side, is as dark or as bright as can be.
STRETCH = (2.0, 98.0)
# So many vectors, evenly spread, tell percentiles as well as all of them.
SAMPLE = 100_000
# Centres of clusters: so many vectors for each group, and the spread around the centres is within 2 % of that of all.
SAMPLE_A_GROUP, FEWEST_SAMPLED = 400, 3_000
MAX_CLUSTERS = 255


@dataclass(frozen=True, eq=False)
class ColourBasis:
    """Which directions of an embedding are red, green and blue. With one basis, equal colours mean equal things."""

    mean: np.ndarray
    """The mean vector (features,)."""
    directions: np.ndarray
    """The main directions (features, 3), of length one."""
    low: np.ndarray
    """What is black in each channel (3,)."""
    high: np.ndarray
    """What is full colour in each channel (3,)."""
    shares: np.ndarray
    """The share of the variance that each direction explains (3,)."""
    attrs: dict[str, str]
    """What the embedding noted of its encoder."""

    def __repr__(self) -> str:
        shares = ", ".join(
            f"{channel} {100 * share:.0f} %" for channel, share in zip(CHANNELS, self.shares, strict=True)
        )
        return f"ColourBasis of {len(self.mean)} features: {shares} of the variance"


def colour_basis(z: Any) -> ColourBasis:
    """The directions along which an embedding, or a list of them, varies most, for `pca_rgb`.

    A direction and its opposite are equally good; the one is taken whose large features are positive (the sum of their
    cubes is), which a few vectors more or less do not change.

    >>> z = xr.DataArray(np.random.default_rng(0).normal(size=(50, 8)) * np.arange(8), dims=("sample", "feature"))
    >>> int(np.argmax(colour_basis(z).directions[:, 0]))
    7
    """
    tables = _tables(z)
    count, total, width = 0, np.zeros(tables[0].width), tables[0].width
    # Moments around a vector of the data: around zero they would lose digits where the mean is large.
    pivot = next((rows[0] for table in tables for rows in _usable_blocks(table) if len(rows)), None)
    if pivot is None:
        raise InputError("The embedding holds no vector with data: all of them are NaN.")
    moments = np.zeros((width, width))
    for table in tables:
        for rows in _usable_blocks(table):
            centred = rows.astype("float64") - pivot
            count, total = count + len(rows), total + centred.sum(axis=0)
            moments += centred.T @ centred
    shift = total / count
    variances, vectors = np.linalg.eigh(moments / count - np.outer(shift, shift))
    variances, directions = np.maximum(variances[::-1], 0), vectors[:, ::-1][:, :3]
    directions = directions * np.where((directions**3).sum(axis=0) < 0, -1.0, 1.0)
    mean = pivot + shift
    projected = (_sample(tables, SAMPLE).astype("float64") - mean) @ directions
    low, high = np.percentile(projected, STRETCH, axis=0)
    shares = variances[:3] / max(float(variances.sum()), np.finfo("float64").tiny)
    # Directions of pure rounding would come out as colourful noise.
    flat = variances[:3] <= 1e-12 * max(float(variances[0]), np.finfo("float64").tiny)
    flat |= (variances[:3] <= (1e-6 * np.abs(mean).max()) ** 2) | (high <= low)
    low, high = np.where(flat, -np.inf, low), np.where(flat, np.inf, high)
    return ColourBasis(mean, directions, low, high, shares, tables[0].attrs)


def pca_rgb(z: xr.DataArray, *, basis: ColourBasis | None = None) -> xr.DataArray:
    """A dense embedding as a colour image: its first three principal components as red, green and blue, from 0 to 1.

    The result is (y, x, channel), float32, NaN where there is no data. `basis` (from `colour_basis`) gives several
    embeddings the same colours: two dates, or two tiles. Samples give one colour each, (sample, channel).

    >>> z = xr.DataArray(np.random.default_rng(0).normal(size=(50, 8)), dims=("sample", "feature"))
    >>> pca_rgb(z).shape
    (50, 3)
    """
    table = vectors_of(z, "z")
    found = colour_basis(z) if basis is None else basis
    if len(found.mean) != table.width:
        raise InputError(f"The basis is one of {len(found.mean)} features, and the embedding has {table.width}.")
    check_same_encoder(found.attrs, table.attrs, "The basis and the embedding")
    flat = np.isinf(found.high)
    low, high = np.where(flat, -1.0, found.low), np.where(flat, 1.0, found.high)
    colours = np.empty((table.count, 3), "float32")
    for rows, block in table.blocks():
        with np.errstate(invalid="ignore"):
            projected = (block - found.mean) @ found.directions
        scaled = np.clip((np.where(flat & np.isfinite(projected), 0.0, projected) - low) / (high - low), 0, 1)
        colours[rows] = np.where(np.isfinite(block).all(axis=1)[:, None], scaled, np.nan)
    like = table.like(np.zeros(table.count), "pca_rgb", {})
    attrs = {**table.attrs, "long_name": "principal components", "explained": [float(share) for share in found.shares]}
    shaped = colours.reshape(*like.shape, 3)
    return xr.DataArray(shaped, {**like.coords, "channel": list(CHANNELS)}, (*like.dims, "channel"), "pca_rgb", attrs)


def cluster(z: xr.DataArray, k: int = 8, *, metric: str = "cosine", seed: int = 0) -> xr.DataArray:
    """Groups of vectors that are alike (k-means): a map (y, x), or one number for each sample, named `class_map`.

    Numbers are 1 for the largest group to `k`, and 0 where there is no data; a legend with names and colours is in the
    attributes, so that it shows and exports as a mask does. The centres are found on some thousand vectors, drawn by
    `seed`; all vectors go to the nearest. metric="cosine" compares directions, "euclidean" vectors as they are.
    Needs scikit-learn.

    >>> z = xr.DataArray(np.repeat(np.eye(3), [5, 3, 2], axis=0), dims=("sample", "feature"))
    >>> cluster(z, 3).values.tolist()
    [1, 1, 1, 1, 1, 2, 2, 2, 3, 3]
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= MAX_CLUSTERS:
        raise InputError(f"k={k!r} is not a number of groups; give one from 1 to {MAX_CLUSTERS}.")
    if metric not in METRICS:
        raise InputError(f"metric={metric!r} is unknown; it is one of {', '.join(METRICS)}.")
    table = vectors_of(z, "z")
    centres = _centres(_scaled(_drawn(table, max(FEWEST_SAMPLED, SAMPLE_A_GROUP * int(k)), seed), metric), int(k), seed)
    found = np.zeros(table.count, "uint8")
    lengths = (centres**2).sum(axis=1) / 2
    for rows, block in table.blocks():
        usable = np.isfinite(block).all(axis=1)
        nearest = np.argmax(_scaled(block[usable], metric) @ centres.T - lengths, axis=1)
        numbers = np.zeros(len(block), "uint8")
        numbers[usable] = nearest + 1
        found[rows] = numbers
    sizes = np.bincount(found, minlength=len(centres) + 1)[1:]
    # The largest first; two of one size in the order of their centres, so that names do not depend on the start.
    order = np.lexsort((*centres.T[::-1], -sizes))
    names = np.zeros(len(centres) + 1, "uint8")
    names[order + 1] = np.arange(1, len(centres) + 1)
    numbered = Legend.of_codes(range(1, len(centres) + 1), name="clusters")
    classes = tuple(LegendClass(one.code, f"cluster {one.code}", one.color) for one in numbered)
    attrs = {**Legend("clusters", classes).to_attrs(), "background": 0, "long_name": "clusters of vectors"}
    return table.like(names[found], "class_map", {**table.attrs, **attrs})


def embedding_change(before: xr.DataArray, after: xr.DataArray, *, metric: str = "cosine") -> xr.DataArray:
    """How different two embeddings are, cell by cell or sample by sample: 0 where they are the same.

    metric="cosine" gives one minus the cosine, from 0 to 2; "euclidean" the distance. Both embeddings lie on one grid,
    or hold the same samples in the same order, and come from one encoder asked in one way. NaN where one of them has no
    data. Some difference is always there (the season, the angle of view): what matters is where it stands out.

    >>> z = xr.DataArray([[1.0, 0.0], [1.0, 0.0]], dims=("sample", "feature"))
    >>> embedding_change(z, xr.DataArray([[2.0, 0.0], [0.0, 1.0]], dims=("sample", "feature"))).values.tolist()
    [0.0, 1.0]
    """
    if metric not in METRICS:
        raise InputError(f"metric={metric!r} is unknown; it is one of {', '.join(METRICS)}.")
    one, other = vectors_of(before, "before"), vectors_of(after, "after")
    check_same_encoder(one.attrs, other.attrs, "before and after", alike=True)
    if one.width != other.width:
        raise InputError(f"before has {one.width} features and after {other.width}; they are not of one encoder.")
    check_same_places(one, other)
    _warn_of_sensors(one, other)
    result = np.full(one.count, np.nan, "float32")
    for (rows, a), (_, b) in zip(one.blocks(), other.blocks(), strict=True):
        usable = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        if metric == "cosine":
            (a, with_a), (b, with_b) = unit(np.where(usable[:, None], a, 0)), unit(np.where(usable[:, None], b, 0))
            usable &= with_a & with_b
            # Half the squared distance of unit vectors: one minus their cosine, without losing the small ones.
            difference = np.square(a - b, dtype="float64").sum(axis=1) / 2
        else:
            difference = np.sqrt(np.square(np.where(usable[:, None], a - b, 0), dtype="float64").sum(axis=1))
        result[rows] = np.where(usable, difference, np.nan)
    return one.like(result, "change", {**one.attrs, "long_name": f"{metric} distance", "metric": metric})


def _warn_of_sensors(one: Vectors, other: Vectors) -> None:
    """Of many samples some may lack a sensor on one date only."""
    if all("sample" in table.array.dims and "sensors" in table.array.coords for table in (one, other)):
        a, b = (table.array["sensors"].to_numpy() for table in (one, other))
        differ = int(((a != b) & (a != "none") & (b != "none")).sum())
        if differ:
            warn(
                f"{differ} of {one.count} samples saw other sensors before than after (coordinate `sensors`), which"
                " counts as change: look at the rest, or embed both with sensors= what all of them have."
            )


def _tables(z: Any) -> list[Vectors]:
    tables = [vectors_of(each, "z") for each in (z if isinstance(z, Sequence) else [z])]
    if not tables or tables[0].width < 3:
        raise InputError("Colours need vectors of three features or more.")
    for table in tables[1:]:
        if table.width != tables[0].width:
            raise InputError(f"The embeddings have {tables[0].width} and {table.width} features.")
        check_same_encoder(tables[0].attrs, table.attrs, "The embeddings")
    return tables


def _usable_blocks(table: Vectors) -> Any:
    for _, block in table.blocks():
        yield block[np.isfinite(block).all(axis=1)]


def _sample(tables: Sequence[Vectors], size: int) -> np.ndarray:
    """Up to `size` vectors with data, evenly spread over all."""
    usable = [table.usable() for table in tables]
    rows = np.flatnonzero(np.concatenate(usable))
    if not len(rows):
        raise InputError("The embedding holds no vector with data: all of them are NaN.")
    chosen = rows[np.linspace(0, len(rows) - 1, min(size, len(rows))).round().astype("int64")]
    starts = np.cumsum([0, *(table.count for table in tables)])
    found = []
    for table, low, high in zip(tables, starts[:-1], starts[1:], strict=True):
        found.append(table.matrix(chosen[(chosen >= low) & (chosen < high)] - low))
    return np.concatenate(found)


def _drawn(table: Vectors, size: int, seed: int) -> np.ndarray:
    """Up to `size` vectors with data, drawn at random: evenly spread ones may fall into step with rows of fields."""
    rows = np.flatnonzero(table.usable())
    if not len(rows):
        raise InputError("The embedding holds no vector with data: all of them are NaN.")
    if len(rows) > size:
        rows = np.sort(np.random.default_rng(seed).choice(rows, size, replace=False))
    return table.matrix(rows)


def _scaled(vectors: np.ndarray, metric: str) -> np.ndarray:
    return unit(vectors)[0] if metric == "cosine" else vectors


def _centres(vectors: np.ndarray, k: int, seed: int) -> np.ndarray:
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise InputError("cluster needs scikit-learn: pip install 'deepsentinel[learn]'") from error
    with warnings.catch_warnings():
        # Fewer different vectors than groups: fewer groups are found, which the result tells by itself.
        warnings.filterwarnings("ignore", message="Number of distinct clusters")
        fitted = KMeans(min(k, len(vectors)), n_init=4, random_state=seed).fit(vectors)
    return np.unique(np.asarray(fitted.cluster_centers_, "float32"), axis=0)
