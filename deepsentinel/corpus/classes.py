"""Which classes a sample holds, and how much of each: from its stratum, its masks, or a table of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

AT_A_TIME = 64
"""Samples whose masks are held at once."""
CLASS_MAP = "_class_map"


def label_names(corpus: xr.Dataset) -> list[str]:
    """The labels whose masks a corpus holds.

    >>> import xarray as xr
    >>> label_names(xr.Dataset({"corine_class_map": ("sample", [1])}))
    ['corine']
    """
    return [str(name).removesuffix(CLASS_MAP) for name in corpus.data_vars if str(name).endswith(CLASS_MAP)]


def class_shares(corpus: xr.Dataset, labels: Any = None) -> pd.DataFrame:
    """The share of each class in each sample: a row a sample, a column a class, 0 to 1.

    `labels` is the name of masks in the corpus ("corine"), a table of shares or classes of one's own with a row a
    sample, or None for the coordinate `class`, the stratum that each sample was drawn for. Pixels without a label count
    for no class.

    >>> import xarray as xr
    >>> maps = xr.Dataset({"lc_class_map": (("sample", "y", "x"), np.array([[[1, 1], [2, 0]]], "uint8"))})
    >>> class_shares(maps, "lc").to_dict("list")
    {1: [0.5], 2: [0.25]}
    """
    import pandas as pd

    samples = corpus.sizes["sample"]
    if labels is None:
        if "class" not in corpus.coords or pd.isna(corpus["class"].values).all():
            raise InputError(
                "Nothing tells the classes of these samples: they were drawn without strata. Name masks of the corpus,"
                f" labels={(label_names(corpus) or ['corine'])[0]!r}, or give a table with a row for each sample."
            )
        return _one_column_each(corpus["class"].values)
    if isinstance(labels, str):
        return _from_masks(corpus, labels)
    table = pd.DataFrame(getattr(labels, "values", labels), columns=getattr(labels, "columns", None))
    if len(table) != samples:
        raise InputError(f"labels= has {len(table)} rows and the corpus {samples} samples; give one row for each.")
    if table.shape[1] == 1 and table.iloc[:, 0].dtype.kind in "iuO":
        return _one_column_each(table.iloc[:, 0].to_numpy())
    values = table.to_numpy("float64")
    if not np.isfinite(values).all() or (values < 0).any():
        raise InputError("labels= holds something that is not a share; give numbers from 0 on, or one column of codes.")
    return table


def _one_column_each(classes: np.ndarray) -> pd.DataFrame:
    import pandas as pd

    codes, names = pd.factorize(classes, sort=True)  # what is missing gets -1, and so no class
    return pd.DataFrame({name: (codes == at).astype("float32") for at, name in enumerate(names)})


def _from_masks(corpus: xr.Dataset, name: str) -> pd.DataFrame:
    import pandas as pd

    if name + CLASS_MAP not in corpus.data_vars:
        held = ", ".join(map(repr, label_names(corpus))) or "no masks"
        raise InputError(f"This corpus has no labels {name!r}; it has {held}.")
    counted: dict[int, np.ndarray] = {}
    samples = corpus.sizes["sample"]
    for start, masks in batches(corpus, name + CLASS_MAP):
        flat = masks.reshape(len(masks), -1)
        if flat.dtype.itemsize > 2 or flat.dtype.kind == "i":  # codes of any size, which a table may not hold
            codes, flat = np.unique(flat, return_inverse=True)
            flat = flat.reshape(len(masks), -1)
        else:
            codes = np.arange(int(flat.max()) + 1)
        rows = np.arange(len(flat))[:, None] * len(codes)
        hist = np.bincount((rows + flat).ravel(), minlength=len(flat) * len(codes)).reshape(len(flat), -1)
        hist = hist / flat.shape[1]
        for at, code in enumerate(codes):
            if not hist[:, at].any():
                continue
            column = counted.setdefault(int(code), np.zeros(samples, "float32"))
            column[start : start + len(flat)] = hist[:, at]
    return pd.DataFrame({code: counted[code] for code in sorted(counted) if code != 0})


def batches(corpus: xr.Dataset, name: str, at_a_time: int = AT_A_TIME) -> Any:
    """One variable a few samples at a time: (number of the first, values)."""
    for start in range(0, corpus.sizes["sample"], at_a_time):
        yield start, np.asarray(corpus[name].isel(sample=slice(start, start + at_a_time)).values)


def new_to_training(present: np.ndarray, share: float, *, seed: int, tries: int = 64) -> np.ndarray:
    """Which classes to hold out, so that the samples in which any of them occurs are nearest to `share` of all.

    `present` says which classes occur in which sample, shape (samples, classes). Classes are tried out from many
    beginnings: each time the one is added, or taken away, that brings the share nearest.

    >>> new_to_training(np.eye(10, dtype=bool), 0.3, seed=0).tolist().count(True)
    3
    """
    patterns, counts = np.unique(present, axis=0, return_counts=True)
    target = share * len(present)
    rng = np.random.default_rng(seed)
    classes = present.shape[1]
    best, best_away = np.zeros(classes, bool), np.inf
    for _ in range(tries):
        chosen = np.zeros(classes, bool)
        chosen[rng.integers(classes)] = True
        away = np.inf
        while True:
            flipped = chosen[None] ^ np.eye(classes, dtype=bool)
            held = ((patterns.astype("float32") @ flipped.T.astype("float32")) > 0).T @ counts
            # One class at least is new, and one at least is left to learn.
            miss = np.where(flipped.any(axis=1) & ~flipped.all(axis=1), np.abs(held - target), np.inf)
            at = int(np.argmin(miss))
            if miss[at] >= away:
                break
            chosen, away = flipped[at], float(miss[at])
        if away < best_away:
            best, best_away = chosen, away
    return best
