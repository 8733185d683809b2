"""How far a map from a handful of examples can be believed: each example is asked of what was learnt elsewhere."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr

from deepsentinel.errors import InputError
from deepsentinel.grids import crs_of
from deepsentinel.similarity.folds import make_folds
from deepsentinel.similarity.reports import Ledger, ProbeReport, scores
from deepsentinel.similarity.vectors import Grid, Samples, metres

from .classifying import Scaling, checked, fitted, probabilities
from .labelled import GROUND_TRUTH, Labelled, labelled_cells

FOLDS = 5
NAME = "examples"


def check_examples(
    z: xr.DataArray,
    examples: gpd.GeoDataFrame,
    *,
    value: str = GROUND_TRUTH,
    level: int | None = None,
    folds: int = FOLDS,
    block_m: float | None = None,
    buffer_m: float = 0,
    seed: int = 0,
) -> ProbeReport:
    """How often `classify` is right about an example that it learnt nothing of: spatial cross-validation.

    The ground is parted into blocks, and the blocks into `folds`; each fold is asked of what the other ones taught.
    A field is whole in one fold, and one answer: the class that its cells say together. `linear_probe` on the
    rasterised examples would test another classifier than that of the map, count a field as often as it has cells, and
    let one half of it teach the other. `buffer_m` keeps what is learnt from so far from what is asked. Of few examples
    there are fewer folds.

    The report has a row `examples`, and the controls `majority` and `chance`. A handful of examples tells little: the
    notes say so.

    >>> import deepsentinel as ds
    >>> from deepsentinel.grids import grid_coords
    >>> grid = ds.geobox((2.0, 48.0, 2.02, 48.02), resolution=40)
    >>> z = xr.DataArray(np.zeros((*grid.shape, 4), "float32"), grid_coords(grid), ("y", "x", "feature"))
    >>> z[:, 20:] = 1
    >>> places = [((2.002 + 0.016 * east, 48.002 + 0.004 * north), east) for east in (0, 1) for north in range(5)]
    >>> labels = ds.make_labels([(place, ["wood", "town"][east]) for place, east in places])
    >>> float(check_examples(z, labels).table.set_index("embedding").loc["examples", "accuracy"])
    1.0
    """
    found = checked(labelled_cells(z, examples, value=value, level=level))
    held, of = np.unique(found.example, return_inverse=True)
    first = np.searchsorted(found.example, held)
    codes = np.array(found.legend.codes)
    truth = np.searchsorted(np.sort(codes), found.code[first])
    codes = np.sort(codes)
    names = [found.legend.names[int(code)] for code in codes]
    ground, xy = _places(found, examples, held)
    laid, notes = _folds(ground, truth, min(int(folds), len(held)), block_m, buffer_m, seed, folds)
    vectors, scaling = found.table.matrix(found.rows), Scaling(found.table, found.usable)
    ledger = Ledger(names, [int(code) for code in codes])
    said, chance = np.full(len(held), -1), np.random.default_rng(seed)
    controls = {"majority": said.copy(), "chance": said.copy()}
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in (NAME, *controls)}
    for number in range(laid.count):
        train, test = laid.split(number)
        if not len(train):
            raise InputError(
                f"No example is {buffer_m:,.0f} m away from those of fold {number}; give a smaller buffer_m=."
            )
        said[test] = _answers(found, of, vectors, scaling, train, test, codes, seed)
        controls["majority"][test] = np.bincount(truth[train]).argmax()
        controls["chance"][test] = chance.choice(truth[train], len(test))
        for name, answers in {NAME: said, **controls}.items():
            scored = scores(truth[test], answers[test], len(codes))
            kept = {key: scored[key] for key in ("accuracy", "balanced_accuracy")}
            told[name].append({"fold": number, **kept, "n_train": len(train), "n_test": len(test)})
    for name, answers in {NAME: said, **controls}.items():
        ledger.add(name, 1.0, truth, answers, told[name])
    columns = {"row": held, "x": xy[:, 0], "y": xy[:, 1], "fold": laid.fold, "block": laid.block}
    predictions = pd.DataFrame({**columns, "truth": codes[truth], NAME: codes[said]})
    made = (pd.DataFrame(ledger.rows), pd.DataFrame(ledger.classes), pd.DataFrame(ledger.folds))
    return ProbeReport(
        "classify", *made, predictions, laid.block_m, laid.buffer_m, (*notes, *_notes(truth, names, laid))
    )


def _answers(
    found: Labelled,
    of: np.ndarray,
    vectors: np.ndarray,
    scaling: Scaling,
    train: np.ndarray,
    test: np.ndarray,
    codes: np.ndarray,
    seed: int,
) -> np.ndarray:
    """What the examples of a fold are taken for, each by all of its cells."""
    learn = np.isin(of, train)
    if len(np.unique(found.code[learn])) < 2:
        return np.full(len(test), np.searchsorted(codes, found.code[learn][0]))
    part = Labelled(
        found.table, found.usable, found.rows[learn], found.example[learn], found.code[learn], found.legend, 0
    )
    weights, bias, known = fitted(scaling, vectors[learn], part.code, part.weight, seed)
    answers = []
    for each in test:
        share = probabilities(vectors[of == each], weights, bias).mean(axis=0)
        answers.append(int(np.searchsorted(codes, known[share.argmax()])))
    return np.array(answers)


def _places(found: Labelled, examples: gpd.GeoDataFrame, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each example lies, in metres and on the grid."""
    grid = found.table.places
    assert isinstance(grid, Grid)
    crs = crs_of(grid.geobox)
    shapes = np.asarray(examples.geometry.to_crs(crs).array, dtype=object)[held]
    xy = shapely.get_coordinates([shape.representative_point() for shape in shapes])
    return metres(Samples(held, xy[:, 0], xy[:, 1], crs.to_wkt())), xy


def _folds(
    ground: np.ndarray, truth: np.ndarray, most: int, block_m: float | None, buffer_m: float, seed: int, wanted: int
) -> tuple[Any, list[str]]:
    """As many folds as there are blocks for, up to what is wanted."""
    for count in range(max(most, 2), 1, -1):
        try:
            laid = make_folds(ground, truth, count=count, block_m=block_m, buffer_m=buffer_m, seed=seed)
        except InputError:
            if count == 2:
                raise
            continue
        return laid, [f"{count} folds instead of {wanted}, as the examples are few"] if count < wanted else []
    raise AssertionError


def _notes(truth: np.ndarray, names: list[str], laid: Any) -> list[str]:
    counts = np.bincount(truth, minlength=len(names))
    notes = [f"{len(truth)} examples: one of them more or less moves the accuracy by {100 / len(truth):.0f} %"]
    lone = [name for at, name in enumerate(names) if counts[at] and len(np.unique(laid.fold[truth == at])) == 1]
    if lone:
        notes.append(f"in one fold only, and so never learnt when asked: {', '.join(lone)}")
    return notes
