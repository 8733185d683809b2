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
    legend = Legend.from_attrs(corpora[0][array].attrs)
    for code, name in zip(classes.codes, classes.names, strict=True):
        if legend is not None and code in legend and legend[code].name != name:
            raise InputError(
                f"{array} of the test calls {code} {legend[code].name!r}, and the model learnt it as {name!r}: these "
                "are not the same labels."
            )
    counts = counted(corpora, array, classes.conflict)
    every = max(1, sum(count for code, count in counts.items() if code))
    strange = sorted((code for code in counts if code and code not in classes.codes), key=lambda code: -counts[code])
    if not strange:
        return []
    named = [legend[code].name if legend is not None and code in legend else str(code) for code in strange]
    share = sum(counts[code] for code in strange) / every
    return [f"{100 * share:.1f} % of the labelled ground is of classes never learnt, and not scored: {few(named)}."]


def shared_samples(train: Sequence[xr.Dataset], test: Sequence[xr.Dataset]) -> list[str]:
    """A note, and a warning, where samples of a test were learnt from."""
    both = 0
    for one in train:
        for other in test:
            if one.attrs.get("plan") and one.attrs.get("plan") == other.attrs.get("plan"):
                both += len(np.intersect1d(one["sample"].values, other["sample"].values))
    if not both:
        return []
    told = f"{both:,} of the test's samples were learnt from, so that its scores are too good."
    warn(f"{told} ds.split keeps them apart.")
    return [told]


def few(names: Sequence[str], most: int = 8) -> str:
    """The first of many names, and how many more there are.

    >>> few(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
