"""What is looked at before a model is judged: whether the test has what the model takes and what it tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from deepsentinel.errors import InputError, warn
from deepsentinel.legend import Legend

from .labels import counted
from .model import Model

if TYPE_CHECKING:
    import xarray as xr


def asked_sensors(model: Model, corpora: Sequence[xr.Dataset], sensors: str | Sequence[str] | None) -> list[str]:
    """What a model is shown in turn: what was asked for, or all that it was trained for and the test has."""
    held = {str(name).partition("_")[0] for corpus in corpora[:1] for name in corpus.data_vars}
    there = {name for name in ("s1", "s2") if name in held}
    can = [name for name in ("both", "s1", "s2") if (there >= {"s1", "s2"} if name == "both" else name in there)]
    own = model.question.sensors
    if sensors is None:
        wanted = [name for name in ("both", "s1", "s2") if name in can] if own == "any" else [own]
    else:
        wanted = [sensors] if isinstance(sensors, str) else list(sensors)
    if not wanted or len(set(wanted)) < len(wanted) or not set(wanted) <= {"both", "s1", "s2"}:
        raise InputError(f"sensors={sensors!r}: some of both, s1, s2 are meant, each once.")
    for name in wanted:
        if name not in model.encoder.spec.modes:
            raise InputError(f"{model.encoder.spec.name} takes {' or '.join(model.encoder.spec.modes)}, not {name}.")
        if name not in can:
            some = f"; sensors={can[0]!r} can be asked for" if can else ""
            raise InputError(f"The model is to be shown {name}, and the test has {' '.join(sorted(there))} only{some}.")
    return list(wanted)


def checked_labels(model: Model, corpora: Sequence[xr.Dataset]) -> list[str]:
    """What should be known of the labels of a test; labels that mean something else by the same number are refused."""
    if model.question.classes is None:
        return []
    classes = model.classes
    array = classes.array
    if lost := [name for corpus in corpora for name in model.question.arrays if name not in corpus.data_vars]:
        raise InputError(f"The test has no {lost[0]}, which the model tells; build it with the labels of its training.")
    learnt = dict(zip(classes.codes, classes.names, strict=True))
    called: dict[int, str] = {}
    for corpus in corpora:
        legend = Legend.from_attrs(corpus[array].attrs)
        for code, name in ({} if legend is None else legend.names).items():
            if learnt.get(code, name) != name:
                raise InputError(
                    f"{array} of the test calls {code} {name!r}, and the model learnt it as {learnt[code]!r}: these "
                    "are not the same labels."
                )
            called.setdefault(code, name)
    counts = counted(corpora, array, classes.conflict)
    every = max(1, sum(count for code, count in counts.items() if code))
    strange = sorted((code for code in counts if code and code not in classes.codes), key=lambda code: -counts[code])
    if not strange:
        return []
    named = [called.get(code, str(code)) for code in strange]
    share = sum(counts[code] for code in strange) / every
    return [f"{100 * share:.1f} % of the labelled ground is of classes never learnt, and not scored: {few(named)}."]


def shared_samples(train: Sequence[xr.Dataset], test: Sequence[xr.Dataset]) -> list[str]:
    """A note, and a warning, where samples of a test were learnt from: the very same, or others of the same ground.

    What counts as the same ground is less than half a sample away, from centre to centre, on whatever date.
    """
    both = sum(int(np.any([_shared(one, other) for one in train], axis=0).sum()) for other in test) if train else 0
    if not both:
        return []
    told = f"{both:,} of the test's samples show ground that was learnt from, so that its scores are too good."
    warn(f"{told} ds.split keeps them apart.")
    return [told]


def _shared(train: xr.Dataset, test: xr.Dataset) -> np.ndarray:
    """Which samples of a test are among those that were learnt from, or lie on them."""
    from scipy.spatial import cKDTree

    from deepsentinel.corpus.ground import on_ellipsoid

    train = train.isel(sample=_built(train))
    found = np.zeros(test.sizes["sample"], bool)
    if train.attrs.get("plan") and train.attrs.get("plan") == test.attrs.get("plan"):
        found |= np.isin(test["sample"].to_numpy(), train["sample"].to_numpy())
    if {"lon", "lat"} <= set(train.coords) & set(test.coords) and train.sizes["sample"]:
        places = [on_ellipsoid(*(each[name].to_numpy() for name in ("lon", "lat"))) for each in (train, test)]
        of_train, of_test = (np.isfinite(each).all(axis=1) for each in places)
        if of_train.any() and of_test.any():
            away, _ = cKDTree(places[0][of_train]).query(places[1][of_test])
            found[of_test] |= away < max(_width_m(train), _width_m(test)) / 2
    return found & _built(test)


def _built(corpus: xr.Dataset) -> np.ndarray:
    """Which samples were built."""
    if "status" not in corpus.coords:
        return np.ones(corpus.sizes["sample"], bool)
    return np.asarray(corpus["status"].to_numpy() == "ok")


def _width_m(corpus: xr.Dataset) -> float:
    """How wide the samples of a corpus are."""
    side = float(corpus["width"].max()) if "width" in corpus.coords else float(corpus.sizes.get("x", 0))
    return side * float(corpus.attrs.get("resolution", 10))


def few(names: Sequence[str], most: int = 8) -> str:
    """The first of many names, and how many more there are.

    >>> few(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
