"""How much an embedding knows: simple classifiers on frozen vectors, tested on other ground than they learnt from.

Each fold of blocks is tested once by what was learnt on the others. Two controls are always beside the scores: the most
frequent class, and guessing by frequency. Better ones are embeddings themselves: give several at once, such as image
statistics or random convolutions, and all are tested on the same samples and folds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from deepsentinel.errors import InputError
from deepsentinel.legend_class import Legend
from deepsentinel.progress import progress

from .folds import Folds, make_folds
from .reports import Ledger, ProbeReport, scores
from .vectors import Grid, Vectors, check_same_places, metres, vectors_of
from .wanted import unit

# Strengths of the linear probe, as the weight of all samples' loss against the squared weights.
STRENGTHS = tuple(10.0**power for power in range(-1, 6))
DEFAULT_STRENGTH = 100.0
MAX_SAMPLES = 20_000
# A probe that cannot see this many samples of a class tells little of it.
FEW = 20

Fitted = tuple[np.ndarray, dict[str, Any]]
Classifier = Callable[[np.ndarray, "Task"], Fitted]


@dataclass(frozen=True)
class Layout:
    """How samples are laid out for cross-validation."""

    folds: int
    """How many folds."""
    block_m: float | None
    """The side of the blocks of ground that they are made of; None: chosen by itself."""
    buffer_m: float
    """How far training stays away from the test."""
    max_samples: int
    """Of more samples than this, so many are drawn."""
    seed: int
    """What all drawing starts from."""


@dataclass(frozen=True, eq=False)
class Task:
    """One fold of a probe: rows to learn from, to choose the regularisation on, and to test."""

    train: np.ndarray
    """Rows to learn from, those of `validation` included."""
    fit: np.ndarray
    """Rows to learn from while the regularisation is chosen."""
    validation: np.ndarray
    """Rows to choose it on."""
    test: np.ndarray
    """Rows to test."""
    truth: np.ndarray
    """The class of every row."""


def knn(
    z: xr.DataArray | Mapping[str, xr.DataArray],
    labels: Any,
    *,
    k: int = 5,
    folds: int = 5,
    block_m: float | None = None,
    buffer_m: float = 0,
    shares: Sequence[float] = (1.0,),
    max_samples: int = MAX_SAMPLES,
    seed: int = 0,
) -> ProbeReport:
    """How often the `k` vectors of the most similar direction elsewhere have the same class: spatial cross-validation.

    `z` is an embedding, or several by name, tested on the same samples. `labels` is the name of a coordinate, one class
    for each sample (numbers or text), or for a dense embedding masks on its grid (`ds.rasterize(labels, like=z)`); what
    has no class, is background (0 where a map tells no other) or has no data is left out. `block_m` is the side of the
    blocks that the folds are made of, chosen by itself where it is None; `buffer_m` keeps training so far from the
    test. `shares` also tries less of the labels to learn from, such as (1, 0.1, 0.01). Of more than `max_samples`, so
    many are drawn.

    >>> rng = np.random.default_rng(0)
    >>> kind = rng.integers(0, 2, 200)
    >>> place = {"lon": ("sample", rng.uniform(2, 3, 200)), "lat": ("sample", rng.uniform(48, 49, 200))}
    >>> z = xr.DataArray(kind[:, None] + rng.normal(size=(200, 8)), place, ("sample", "feature"))
    >>> knn(z, kind).table["embedding"].tolist()
    ['embedding', 'majority', 'chance']
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"k={k!r} is not a number of neighbours; give one from 1 on.")

    def classify(vectors: np.ndarray, task: Task) -> Fitted:
        return _neighbours(vectors, task, int(k)), {}

    return _probe(f"kNN-{k}", classify, z, labels, shares, Layout(folds, block_m, buffer_m, max_samples, seed))


def linear_probe(
    z: xr.DataArray | Mapping[str, xr.DataArray],
    labels: Any,
    *,
    folds: int = 5,
    block_m: float | None = None,
    buffer_m: float = 0,
    shares: Sequence[float] = (1.0,),
    max_samples: int = MAX_SAMPLES,
    seed: int = 0,
) -> ProbeReport:
    """How well a logistic regression on the vectors tells the classes apart elsewhere: spatial cross-validation.

    Arguments are those of `knn`. Vectors are standardised by what was learnt from; the regularisation is chosen on one
    fold of the training, which is kept apart from the rest as the test is. Needs scikit-learn.

    >>> rng = np.random.default_rng(0)
    >>> kind = np.array(["field", "wood"])[rng.integers(0, 2, 200)]
    >>> place = {"lon": ("sample", rng.uniform(2, 3, 200)), "lat": ("sample", rng.uniform(48, 49, 200))}
    >>> z = xr.DataArray((kind == "wood")[:, None] + rng.normal(size=(200, 8)), place, ("sample", "feature"))
    >>> bool(linear_probe(z, kind).table["accuracy"].iloc[0] > 0.8)
    True
    """
    return _probe("linear", _logistic, z, labels, shares, Layout(folds, block_m, buffer_m, max_samples, seed))


def _probe(
    probe: str, classify: Classifier, z: Any, labels: Any, shares: Sequence[float], layout: Layout
) -> ProbeReport:
    several = dict(z) if isinstance(z, Mapping) else {"embedding": z}
    tables = {str(name): vectors_of(each, str(name)) for name, each in several.items()}
    _check(tables, shares, layout.max_samples)
    first = next(iter(tables.values()))
    codes, names, classes, background = _classes(first, labels)
    usable = (classes >= 0) & np.logical_and.reduce([table.usable() for table in tables.values()])
    rows = np.flatnonzero(usable)
    if len(np.unique(classes[rows])) < 2:
        told = f"{len(rows)} samples have data and a class, of {len(np.unique(classes[rows]))} different ones"
        raise InputError(f"{told}; at least two classes are needed to tell them apart.")
    ground = metres(first.places)
    # In an order of the places themselves: whatever is drawn below is the same for any order of the rows.
    rows = rows[np.lexsort((classes[rows], *ground[rows].T))]
    seed, total = layout.seed, len(rows)
    if total > layout.max_samples:
        drawn = np.random.default_rng(seed).permutation(total)[: layout.max_samples]
        rows = rows[np.sort(drawn)]
    truth = classes[rows]
    laid = make_folds(
        ground[rows], truth, count=layout.folds, block_m=layout.block_m, buffer_m=layout.buffer_m, seed=seed
    )
    ledger = Ledger(names, codes)
    predicted: dict[str, np.ndarray] = {}
    work = [(name, share) for name in tables for share in shares]
    matrices: dict[str, np.ndarray] = {}
    for name, share in progress(work, total=len(work), what=f"{probe} probe", unit="embedding"):
        if name not in matrices:
            matrices = {name: tables[name].matrix(rows)}
        found, by_fold = _cross_validated(matrices[name], truth, laid, share, seed, classify, len(codes))
        ledger.add(name, float(share), truth, found, by_fold)
        if share == max(shares):
            predicted[name] = found
    for name, guess in {"majority": _majority, "chance": _chance(seed)}.items():
        found, by_fold = _cross_validated(np.empty((len(truth), 0)), truth, laid, 1.0, seed, guess, len(codes))
        ledger.add(name, 1.0, truth, found, by_fold)
    x, y = first.places.xy(rows)
    columns = {"row": rows, "x": x, "y": y, "fold": laid.fold, "block": laid.block, "truth": np.asarray(codes)[truth]}
    columns |= {name: np.asarray(codes)[found] for name, found in predicted.items()}
    predictions = pd.DataFrame(columns).sort_values("row", ignore_index=True)
    notes = _notes(names, truth, laid, total) + background
    made = (pd.DataFrame(ledger.rows), pd.DataFrame(ledger.classes), pd.DataFrame(ledger.folds))
    return ProbeReport(probe, *made, predictions, laid.block_m, laid.buffer_m, notes)


def _check(tables: Mapping[str, Vectors], shares: Sequence[float], max_samples: int) -> None:
    if not tables:
        raise InputError("There is no embedding to probe.")
    if {"majority", "chance"} & set(tables):
        raise InputError('"majority" and "chance" are the names of the controls; call the embedding something else.')
    if not len(shares) or not all(0 < share <= 1 for share in shares):
        raise InputError(f"shares={shares!r}: each is a part of the labels, more than 0 and at most 1.")
    if max_samples < 2:
        raise InputError(f"max_samples={max_samples!r} is too few to learn from.")
    counts = {name: table.count for name, table in tables.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InputError(f"The embeddings have different numbers of vectors ({told}); all are tested on the same ones.")
    (name, first), *others = tables.items()
    for other, table in others:
        check_same_places(first, table, (name, other))


def _classes(table: Vectors, labels: Any) -> tuple[list[Any], list[str], np.ndarray, tuple[str, ...]]:
    """Codes and names of the classes, the number of the class of each vector (-1 where it has none), and a note."""
    if isinstance(labels, str):
        if labels not in table.array.coords:
            known = ", ".join(map(str, table.array.coords))
            raise InputError(f"The embedding has no coordinate {labels!r}; it has {known}.")
        labels = table.array[labels]
    if isinstance(labels, xr.Dataset):
        if "class_map" not in labels:
            raise InputError(f"The masks have no class_map; they have {', '.join(map(str, labels.data_vars))}.")
        labels = labels["class_map"]
    if isinstance(labels, pd.DataFrame) or np.ndim(labels) > 2:
        raise InputError(
            f"The labels are a {type(labels).__name__} of shape {np.shape(labels)}, and one class for each vector is"
            " needed. Of polygons make them on the grid of the embedding: ds.rasterize(labels, like=z)."
        )
    attrs = labels.attrs if isinstance(labels, xr.DataArray) else {}
    if isinstance(labels, xr.DataArray) and isinstance(table.places, Grid) and labels.ndim == 2:
        labels = labels.transpose("y", "x")
        for axis in ("y", "x"):
            own = table.array[axis].to_numpy()
            theirs = labels[axis].to_numpy() if axis in labels.coords else np.empty(0)
            near = 1e-6 * abs(own[0] - own[-1] or 1)
            if own.shape != theirs.shape or not np.allclose(own, theirs, rtol=0, atol=near):
                raise InputError(
                    "The labels are not on the grid of the embedding; make them there: ds.rasterize(labels, like=z)."
                )
    given = pd.Series(np.asarray(labels).reshape(-1))
    if len(given) != table.count:
        raise InputError(f"There are {len(given)} labels for {table.count} vectors; each needs one.")
    missing = given.isna().to_numpy(copy=True)
    notes: tuple[str, ...] = ()
    if isinstance(table.places, Grid):
        empty = (given == attrs.get("background", 0)).to_numpy()
        missing |= empty
        if "background" not in attrs and empty.any():
            notes = (f"{empty.sum():,} cells of class 0 were taken as background and left out",)
    elif "background" in attrs:
        missing |= (given == attrs["background"]).to_numpy()
    numbers, codes = pd.factorize(given.mask(missing), sort=True)
    legend = Legend.from_attrs(attrs) if attrs else None
    plain = [code.item() if isinstance(code, np.generic) else code for code in codes]
    plain = [int(code) if isinstance(code, float) and code.is_integer() else code for code in plain]
    named = [legend[code].name if legend is not None and code in legend else str(code) for code in plain]
    return plain, named, np.asarray(numbers), notes


def _cross_validated(
    vectors: np.ndarray, truth: np.ndarray, laid: Folds, share: float, seed: int, classify: Classifier, count: int
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    found, told = np.full(len(truth), -1), []
    for number in range(laid.count):
        train, test = laid.split(number)
        train = _share_of(train, truth, share, seed + number)
        if not len(train):
            raise InputError(
                f"Nothing is left to learn from {laid.buffer_m:,.0f} m away from fold {number}; give a smaller"
                " buffer_m= or a smaller block_m=."
            )
        validating = np.zeros(len(truth), bool)
        validating[train[laid.fold[train] == (number + 1) % laid.count]] = True
        apart = laid.away_from(validating) & ~validating
        task = Task(train, train[apart[train]], np.flatnonzero(validating), test, truth)
        found[test], more = classify(vectors, task)
        scored = scores(truth[test], found[test], count)
        kept = {key: scored[key] for key in ("accuracy", "balanced_accuracy")}
        told.append({"fold": number, **kept, "n_train": len(train), "n_test": len(test), **more})
    return found, told


def _share_of(rows: np.ndarray, truth: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A part of the rows, class by class and at least one of each; a smaller part lies within a larger one."""
    if share == 1:
        return rows
    mixed = np.random.default_rng(seed).permutation(rows)
    chosen = []
    for code in np.unique(truth[rows]):
        own = mixed[truth[mixed] == code]
        chosen.append(own[: max(1, round(share * len(own)))])
    return np.sort(np.concatenate(chosen))


def _neighbours(vectors: np.ndarray, task: Task, k: int) -> np.ndarray:
    train, k = unit(vectors[task.train])[0], min(k, len(task.train))
    classes, count = task.truth[task.train], int(task.truth.max()) + 1
    found = np.empty(len(task.test), "int64")
    step = max(1, 2**24 // len(train))
    for start in range(0, len(task.test), step):
        near = unit(vectors[task.test[start : start + step]])[0] @ train.T
        best = np.argpartition(-near, k - 1, axis=1)[:, :k]
        votes = np.zeros((len(near), count))
        who = np.arange(len(near))[:, None]
        # A vote each; of classes with equal votes the nearer one wins.
        np.add.at(votes, (who, classes[best]), 1 + 1e-3 * np.take_along_axis(near, best, axis=1) / k)
        found[start : start + step] = votes.argmax(axis=1)
    return found


def _logistic(vectors: np.ndarray, task: Task) -> Fitted:
    chosen = DEFAULT_STRENGTH
    if len(task.validation) and len(np.unique(task.truth[task.fit])) > 1:
        truth, count = task.truth[task.validation], int(task.truth.max()) + 1
        found = _fitted(vectors, task.truth, task.fit, task.validation, STRENGTHS)
        reached = [scores(truth, each, count)["balanced_accuracy"] for each in found]
        chosen = STRENGTHS[int(np.argmax(reached))]
    return _fitted(vectors, task.truth, task.train, task.test, [chosen])[0], {"regularisation": 1 / chosen}


def _fitted(
    vectors: np.ndarray, truth: np.ndarray, train: np.ndarray, test: np.ndarray, strengths: Sequence[float]
) -> list[np.ndarray]:
    """Predictions for the test by logistic regressions of rising strength, each begun where the last one ended."""
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise InputError("linear_probe needs scikit-learn: pip install 'deepsentinel[learn]'") from error
    if len(np.unique(truth[train])) < 2:
        return [np.full(len(test), truth[train][0]) for _ in strengths]
    mean, spread = vectors[train].mean(axis=0), vectors[train].std(axis=0)
    scale = np.where(spread > 1e-6 * np.abs(mean).max(initial=1e-30), spread, np.inf)
    learn, ask = (vectors[train] - mean) / scale, (vectors[test] - mean) / scale
    model = LogisticRegression(max_iter=200, tol=1e-3, warm_start=True)
    found = []
    with warnings.catch_warnings():
        # The weakest regularisation may not settle on separable classes, and is no worse for it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in strengths:
            # scikit-learn adds up the losses of the samples: by their number, so that a share of them changes nothing.
            model.set_params(C=strength / len(train))
            found.append(model.fit(learn, truth[train]).predict(ask))
    return found


def _majority(vectors: np.ndarray, task: Task) -> Fitted:
    return np.full(len(task.test), np.bincount(task.truth[task.train]).argmax()), {}


def _chance(seed: int) -> Classifier:
    def guess(vectors: np.ndarray, task: Task) -> Fitted:
        return np.random.default_rng(seed).choice(task.truth[task.train], len(task.test)), {}

    return guess


def _notes(names: Sequence[str], truth: np.ndarray, laid: Folds, usable: int) -> tuple[str, ...]:
    notes = []
    if usable > len(truth):
        notes.append(f"{len(truth):,} of {usable:,} samples were drawn")
    if len(np.unique(laid.block)) == len(np.unique(laid.metres, axis=0)):
        notes.append(
            "each place is a block of its own: neighbours may lie on both sides, which a larger block_m= avoids"
        )
    counts = np.bincount(truth, minlength=len(names))
    rare = [name for name, number in zip(names, counts, strict=True) if 0 < number < FEW]
    if rare:
        notes.append(f"fewer than {FEW} samples: {', '.join(rare)}")
    lone = [names[code] for code in np.unique(truth) if len(np.unique(laid.fold[truth == code])) == 1]
    if lone:
        notes.append(f"in one fold only, and so never learnt when tested: {', '.join(lone)}")
    return tuple(notes)
