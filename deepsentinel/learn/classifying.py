"""A map from a handful of examples: a logistic regression on vectors, quick enough to answer after every label."""

from __future__ import annotations

import warnings
from typing import Any

import geopandas as gpd
import numpy as np
import xarray as xr

from deepsentinel.errors import InputError, warn
from deepsentinel.similarity.vectors import Vectors

from .labelled import GROUND_TRUTH, Labelled, labelled_cells

# Of so many vectors, evenly spread, mean and spread are those of all.
SAMPLE = 20_000
# How little the weights are held back, for vectors of a squared length of about 1, whatever their width. On two maps of
# the demo world with 1 to 10 examples a class, from 1 to 1000 the accuracy is within 2 % of the best; but at 1 every
# answer is a doubtful one and at 1000 a certain one, while around 10 doubt is largest where the answer is wrong.
STRENGTH = 10.0
UNCERTAINTY = "entropy of the classes' probabilities, 0 sure to 1 all alike"


def classify(
    z: xr.DataArray,
    examples: gpd.GeoDataFrame,
    *,
    value: str = GROUND_TRUTH,
    level: int | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """The class of every cell of a dense embedding, learnt from labels on some of its ground, and how sure that is.

    Parameters
    ----------
    z
        A map of vectors (y, x, feature), such as `ds.embed(patch, encoder, dense=True)` gives.
    examples
        A table of labels, such as `ds.make_labels` or `ds.read_labels` gives: points and polygons with a class each.
        A point names the cell that holds it, a polygon all cells whose middle lies within. Each example of a class
        counts the same, a pin as much as a field, and each class the same. Those elsewhere are left out.
    value
        The column of classes.
    level
        For classes that have groups: 1 is the coarsest. Groups are those of the legend (CORINE, crops), or come from
        the names: "crop / wheat" and "crop / oats" are both "crop" at level 1. None: as fine as they are.
    seed
        What all chance starts from.

    Returns
    -------
    Dataset
        `class_map` with the legend of the examples, 0 where there is no data, and `uncertainty`, the entropy of the
        probabilities from 0 (sure) to 1 (all classes alike). Attributes tell how it was made.

    The classifier is a logistic regression on standardised vectors. It is as good as its examples: `check_examples`
    says how good, and `suggest` where the next one helps most. Needs scikit-learn.

    >>> import deepsentinel as ds
    >>> from deepsentinel.grids import grid_coords
    >>> grid = ds.geobox((2.0, 48.0, 2.01, 48.01), resolution=40)
    >>> z = xr.DataArray(np.zeros((*grid.shape, 4), "float32"), grid_coords(grid), ("y", "x", "feature"))
    >>> z[:, 10:] = 1
    >>> made = classify(z, ds.make_labels([((2.001, 48.005), "wood"), ((2.009, 48.005), "town")]))
    >>> made["class_map"][5, [0, -1]].values.tolist(), float(made["uncertainty"].max()) < 1
    ([1, 2], True)
    """
    found = checked(labelled_cells(z, examples, value=value, level=level))
    scaling = Scaling(found.table, found.usable)
    weights, bias, codes = fitted(scaling, found.table.matrix(found.rows), found.code, found.weight, seed)
    classes, doubt = np.zeros(found.table.count, _dtype(codes)), np.full(found.table.count, np.nan, "float32")
    for rows, block in found.table.blocks():
        share = probabilities(block, weights, bias)
        known = np.isfinite(share).all(axis=1)
        safe = np.where(known[:, None], share, 1.0)
        classes[rows] = np.where(known, codes[safe.argmax(axis=1)], 0)
        doubt[rows] = np.where(known, entropy(safe), np.nan)
    told = _story(found)
    named = {"long_name": "most likely class", "background": 0, **found.legend.to_attrs()}
    layers = {
        "class_map": found.table.like(classes, "class_map", named),
        "uncertainty": found.table.like(doubt, "uncertainty", {"long_name": UNCERTAINTY, "units": "1"}),
    }
    return xr.Dataset(layers, attrs=told)


class Scaling:
    """Mean and spread of the features of an embedding, over all its ground: a few examples would not tell them."""

    def __init__(self, table: Vectors, usable: np.ndarray) -> None:
        seen = np.flatnonzero(usable)
        if not len(seen):
            raise InputError("The embedding holds no vector with data: all of them are NaN.")
        some = table.matrix(seen[np.linspace(0, len(seen) - 1, min(SAMPLE, len(seen))).round().astype("int64")])
        self.mean = some.mean(axis=0, dtype="float64").astype("float32")
        spread = some.std(axis=0, dtype="float64")
        flat = spread <= 1e-6 * np.abs(self.mean).max(initial=1e-30)
        self.scale = np.where(flat, np.inf, spread * np.sqrt(max(1, int((~flat).sum())))).astype("float32")

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors in units of the spread, of a squared length of about 1."""
        return np.asarray((vectors - self.mean) / self.scale)


def fitted(
    scaling: Scaling, vectors: np.ndarray, code: np.ndarray, weight: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (features, classes) and bias for bare vectors, and the code of each class.

    >>> from deepsentinel.similarity.vectors import vectors_of
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.normal(size=(40, 5)).astype("float32")
    >>> scaling = Scaling(vectors_of(vectors), np.ones(40, bool))
    >>> weights, bias, codes = fitted(scaling, vectors, (vectors[:, 0] > 0) + 1, np.ones(40))
    >>> codes[probabilities(vectors, weights, bias).argmax(axis=1)].tolist() == ((vectors[:, 0] > 0) + 1).tolist()
    True
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise InputError("classify needs scikit-learn: pip install 'deepsentinel[learn]'") from error
    model = LogisticRegression(C=STRENGTH, max_iter=200, tol=1e-3, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(scaling(vectors).astype("float64"), code, sample_weight=weight)
    weights, bias = np.asarray(model.coef_.T), np.asarray(model.intercept_)
    if weights.shape[1] == 1:  # of two classes scikit-learn keeps the difference
        weights, bias = np.hstack([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2])
    weights = weights / scaling.scale[:, None].astype("float64")
    return weights.astype("float32"), (bias - scaling.mean @ weights).astype("float32"), np.asarray(model.classes_)


def probabilities(vectors: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(n, classes) that sum to 1; NaN for a vector without data.

    >>> probabilities(np.zeros((1, 3), "float32"), np.ones((3, 2), "float32"), np.zeros(2, "float32")).tolist()
    [[0.5, 0.5]]
    """
    with np.errstate(invalid="ignore", over="ignore"):
        said = vectors @ weights + bias
        said = np.exp(said - said.max(axis=1, keepdims=True))
        return np.asarray(said / said.sum(axis=1, keepdims=True))


def entropy(shares: np.ndarray) -> np.ndarray:
    """How undecided probabilities are: 0 sure, 1 all alike.

    >>> entropy(np.array([[1.0, 0.0], [0.5, 0.5]])).tolist()
    [0.0, 1.0]
    """
    if shares.shape[1] < 2:
        return np.zeros(len(shares))
    safe = np.where(shares > 0, shares, 1.0)
    # Plus zero: what is sure is 0, and not -0.
    return np.asarray(np.clip(-(safe * np.log(safe)).sum(axis=1) / np.log(shares.shape[1]), 0, 1) + 0.0)


def checked(found: Labelled) -> Labelled:
    """Examples that a classifier can learn from."""
    if not len(found.rows):
        raise InputError("None of the examples lies on ground of the embedding that was seen.")
    if len(np.unique(found.code)) < 2:
        raise InputError(
            f"All examples on this ground are {found.legend.classes[0].name!r}; a map takes at least two classes."
        )
    if found.lost:
        warn(f"{found.lost} examples lie beyond the embedding, or where nothing was seen, and are left out.")
    return found


def _dtype(codes: np.ndarray) -> str:
    largest = int(codes.max())
    return "uint8" if largest < 2**8 else "uint16" if largest < 2**16 else "uint32"


def _story(found: Labelled) -> dict[str, Any]:
    """What a map tells of itself: the embedding's own story, and whom it learnt from."""
    told = dict(found.table.attrs)
    name = told.get("encoder", "vectors")
    count = len(np.unique(found.example))
    return {
        **told,
        "title": f"classes by examples, on {name}",
        "task": "segmentation",
        "labels": "examples",
        "classifier": "logistic regression on standardised vectors",
        "examples": count,
        "labelled_cells": len(np.unique(found.rows)),
        "left_out": found.lost,
        "uncertainty": "entropy",
    }
