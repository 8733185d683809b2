"""What a model is to tell: the classes of a corpus's masks, as numbers from 0, and what teaches nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from deepsentinel.corpus.held import held_array
from deepsentinel.errors import InputError, NothingFoundError, warn
from deepsentinel.legend import Legend, LegendClass

from .batches import corpora_of
from .tasks import IGNORE

if TYPE_CHECKING:
    import xarray as xr

CLASS_MAP, CONFLICT, PARCEL = "class_map", "conflict", "parcel_id"
# In masks of conflicts: several claims that contradict each other.
CONTRADICTED = 2
# So many samples tell which classes there are and how common each is.
LOOKED_AT = 1_000
Background = Literal["ignore", "class"]
BACKGROUND = "background"


@dataclass(frozen=True)
class Classes:
    """The classes a model tells apart, and where in the corpus they stand."""

    array: str
    """The mask with the classes."""
    codes: tuple[int, ...]
    """The value of each class in the mask; outputs are in this order."""
    names: tuple[str, ...]
    """What each is called."""
    colors: tuple[str, ...]
    """ "#rrggbb" of each."""
    shares: tuple[float, ...]
    """How much of the labelled ground each has, in what was looked at."""
    conflict: str | None = None
    """The mask that says where claims contradict each other; those pixels teach nothing."""
    others: tuple[int, ...] = ()
    """Values of the legend that do not occur in what is learnt from: they teach nothing, and are never said."""

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def arrays(self) -> tuple[str, ...]:
        """The masks to be read."""
        return (self.array,) if self.conflict is None else (self.array, self.conflict)

    def targets(self, labels: Mapping[str, Tensor]) -> Tensor:
        """Masks of a batch -> (B, H, W) int64: the number of the class, or `IGNORE`."""
        values = labels[self.array].long()
        table = torch.full((max(self.codes) + 2,), IGNORE, dtype=torch.int64)
        table[list(self.codes)] = torch.arange(len(self.codes))
        found = table.to(values.device)[values.clamp(0, len(table) - 1)]
        if self.conflict is not None:
            found = torch.where(labels[self.conflict] >= CONTRADICTED, IGNORE, found)
        return found

    def weights(self, power: float = 0.5) -> Tensor:
        """(classes,) the rarer the heavier, by a power of the share; their mean over pixels is 1.

        >>> two = Classes("m", (1, 2), ("a", "b"), ("#000000", "#ffffff"), (0.9, 0.1))
        >>> [round(weight, 2) for weight in two.weights().tolist()]
        [0.83, 2.5]
        """
        shares = np.asarray(self.shares)
        raw = shares**-power
        return torch.tensor(raw / (raw * shares).sum(), dtype=torch.float32)

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Classes:
        """What `to_plain` gave."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        return cls(**values)


def classes_of(
    corpora: xr.Dataset | Sequence[xr.Dataset],
    labels: str,
    *,
    background: Background = "ignore",
    least_share: float = 0.0,
    least: int = 0,
) -> Classes:
    """The classes of one of a corpus's masks, as far as they occur in it.

    labels: the name that was given in build_corpus(labels={...}), or an array of the corpus. background: what no label
    claims (0) is a class of its own, or teaches nothing. least_share, least: classes that have a smaller share of the
    labelled ground, or that fewer samples hold, teach nothing, and a warning names them. Both are counted in up to a
    thousand samples.

    >>> import tempfile, deepsentinel as ds
    >>> from deepsentinel.corpus.recipes import labelled
    >>> recipe = labelled(ds.open_source("demo", size_px=256), n=4, size_px=32, start="2018-06-01", end="2018-06-20")
    >>> corpus = ds.open_corpus(recipe.build(tempfile.mkdtemp() + "/corpus.zarr", progress=False).path)
    >>> classes_of(corpus, "osm", least=5)
    Traceback (most recent call last):
    deepsentinel.errors.NothingFoundError: Of the ... classes of osm_class_map, none is in least=5 samples or more, ...
    """
    if isinstance(least, bool) or not isinstance(least, int | np.integer) or least < 0:
        raise InputError(f"least={least!r}: in how many samples a class has to be, a whole number, is meant.")
    every = corpora_of(corpora)
    array, conflict = agreed_arrays(every, labels)
    if background not in ("ignore", "class"):
        raise InputError(f'background={background!r}: "ignore" or "class" is meant.')
    legend = agreed_legend(every, array)
    counts = counted(every, array, conflict)
    if legend is not None:
        unknown = sorted(set(counts) - set(legend.codes) - {0})
        if unknown:
            raise InputError(
                f"{array} holds {', '.join(map(str, unknown[:8]))}, which its legend does not know: it has "
                f"{', '.join(map(str, legend.codes[:12]))}{' ...' if len(legend) > 12 else ''}. Build the corpus with "
                f"the legend that its labels belong to, or set corpus[{array!r}].attrs where they were changed since."
            )
    if background == "ignore":
        counts.pop(0, None)
    total = sum(counts.values())
    common = {code for code, count in counts.items() if count > least_share * total}
    inside = held_by(every, array, conflict) if least > 1 else {}
    kept = sorted(code for code in common if least <= 1 or inside.get(code, 0) >= least)
    if len(kept) < 2:
        held = ", ".join(_name(legend, code) for code in sorted(counts)) or "nothing"
        fewer = f" with least={least}, least_share={least_share:g}" if least > 1 or least_share else ""
        if least > 1 and len(common) > 1:
            # They are there, in fewer samples than were asked for.
            second = sorted((inside.get(code, 0) for code in common), reverse=True)[1]
            often = sorted(common, key=lambda code: -inside.get(code, 0))
            named = ", ".join(f"{_name(legend, code)} ({inside.get(code, 0)})" for code in often[:5])
            raise NothingFoundError(
                f"Of the {len(common)} classes of {array}, {len(kept) or 'none'} is in "
                f"least={least} samples or more, and two are needed to tell apart. The most frequent are in: {named}"
                f"{', ...' if len(common) > 5 else ''}. least={second} leaves two, least=0 all of them."
            )
        raise NothingFoundError(
            f"{array} holds {len(kept)} class{'' if len(kept) == 1 else 'es'} to learn ({held}) in "
            f"{sum(each.sizes['sample'] for each in every)} samples{fewer}, and two are needed to tell apart. "
            + ('background="class" makes what is not labelled one.' if background == "ignore" else "Take more ground.")
        )
    if len(kept) >= IGNORE:
        raise InputError(f"{array} holds {len(kept)} classes; at most {IGNORE - 1} can be told apart.")
    every_code = legend.codes if legend is not None else tuple(sorted(counts))
    others = tuple(code for code in every_code if code not in kept)
    for lost, why in (
        (set(counts) - common, f"their share of the labelled ground is at most {least_share:g}"),
        (common - set(kept), f"fewer than {least} samples hold them"),
    ):
        if lost:
            named = ", ".join(
                _name(legend, code) + (f" ({inside.get(code, 0)})" if code in common else "") for code in sorted(lost)
            )
            warn(f"Classes of {array} that teach nothing, for {why}: {named}.")
    return Classes(
        array=array,
        codes=tuple(kept),
        names=tuple(_name(legend, code) for code in kept),
        colors=_colors(legend, kept),
        shares=tuple(counts[code] / max(1, sum(counts[each] for each in kept)) for code in kept),
        conflict=conflict,
        others=others,
    )


def arrays_of(corpus: xr.Dataset, labels: str) -> tuple[str, str | None]:
    """The mask with the classes of some labels, and the one with their conflicts, if there is one."""
    if not isinstance(labels, str):
        raise InputError(f"labels= is a {type(labels).__name__}; the name of a corpus's labels is meant.")
    for array in (f"{labels}_{CLASS_MAP}", labels):
        if array in corpus.data_vars:
            conflict = f"{array.removesuffix(CLASS_MAP)}{CONFLICT}"
            return array, conflict if array.endswith(CLASS_MAP) and conflict in corpus.data_vars else None
    held = [str(name) for name in corpus.data_vars if str(name) not in ("s1", "s2", "scl", "angle")]
    raise InputError(
        f"This corpus has no labels {labels!r}; it has {', '.join(held) or 'none'}. build_corpus(..., labels={{...}}) "
        "burns them."
    )


def agreed_arrays(corpora: Sequence[xr.Dataset], labels: str) -> tuple[str, str | None]:
    """The same of several corpora, which have to have the same masks."""
    each = [arrays_of(corpus, labels) for corpus in corpora]
    arrays = list(dict.fromkeys(array for array, _ in each))
    if len(arrays) > 1:
        raise InputError(f"labels={labels!r} is {' in one of these corpora and '.join(arrays)} in another; name one.")
    masks = {conflict for _, conflict in each}
    if len(masks) > 1:
        named = next(mask for mask in masks if mask is not None)
        raise InputError(
            f"Some of these corpora have {named} and others do not, so that contested ground would be learnt in some "
            f"and not in others: build all with it, or leave it out of all, as in corpus.drop_vars({named!r})."
        )
    return each[0]


def agreed_legend(corpora: Sequence[xr.Dataset], array: str) -> Legend | None:
    """What the values of a mask mean in all of several corpora; None where none of them says so."""
    legends = [found for corpus in corpora if (found := Legend.from_attrs(corpus[array].attrs)) is not None]
    known: dict[int, LegendClass] = {}
    for entry in (entry for legend in legends for entry in legend):
        first = known.setdefault(entry.code, entry)
        if first.name != entry.name:
            raise InputError(
                f"{array} of one of these corpora calls {entry.code} {first.name!r}, and that of another "
                f"{entry.name!r}: these are not the same labels."
            )
    if not legends or len(known) == len(legends[0]):
        return legends[0] if legends else None
    return Legend(legends[0].name, tuple(known.values()))


def counted(corpora: Sequence[xr.Dataset], array: str, conflict: str | None = None) -> dict[int, int]:
    """How many pixels each value has, in up to a thousand samples spread over the corpora."""
    found: dict[int, int] = {}
    for values, known in _looked_at(corpora, array, conflict):
        for code, count in zip(*np.unique(values[known], return_counts=True), strict=True):
            found[int(code)] = found.get(int(code), 0) + int(count)
    return found


def held_by(corpora: Sequence[xr.Dataset], array: str, conflict: str | None = None) -> dict[int, int]:
    """How many samples hold each value, of up to a thousand spread over the corpora."""
    found: dict[int, int] = {}
    for values, known in _looked_at(corpora, array, conflict):
        for sample, kept in zip(values, known, strict=True):
            for code in np.unique(sample[kept]):
                found[int(code)] = found.get(int(code), 0) + 1
    return found


def _looked_at(
    corpora: Sequence[xr.Dataset], array: str, conflict: str | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Masks of each corpus, (samples, y, x), and where they are not contested."""
    each = max(1, LOOKED_AT // len(corpora))
    for corpus in corpora:
        if array not in corpus.data_vars:
            raise InputError(f"One of these corpora has no {array!r}; all must have the labels that are learnt.")
        chosen = _spread(corpus, each)
        if not len(chosen):
            continue
        values = held_array(corpus, array).read_many(chosen)
        if values.dtype.kind == "f":
            raise InputError(f"{array} holds numbers, not classes; task='regression' learns those.")
        known = np.ones(values.shape, bool)
        if conflict is not None:
            known = held_array(corpus, conflict).read_many(chosen) < CONTRADICTED
        yield values, known


def _spread(corpus: xr.Dataset, most: int) -> np.ndarray:
    """Positions of some of the samples that were built, spread over all of them."""
    built = np.arange(corpus.sizes["sample"])
    if "status" in corpus.coords:
        built = built[corpus["status"].values == "ok"]
    return built[np.unique(np.linspace(0, len(built) - 1, min(most, len(built))).round().astype(int))]


def _name(legend: Legend | None, code: int) -> str:
    if code == 0 and (legend is None or 0 not in legend):
        return BACKGROUND
    return str(code) if legend is None or code not in legend else legend[code].name


def _colors(legend: Legend | None, codes: Sequence[int]) -> tuple[str, ...]:
    from deepsentinel.legend_class import distinct_colors

    spare = dict(zip(codes, distinct_colors(len(codes)), strict=True))
    return tuple(
        legend[code].color if legend is not None and code in legend else "#d9d9d9" if code == 0 else spare[code]
        for code in codes
    )


def number_range(corpora: Sequence[xr.Dataset], labels: str) -> tuple[str, float, float]:
    """A mask of numbers, and their mean and spread."""
    array, _ = agreed_arrays(corpora, labels)
    if array.endswith(CLASS_MAP) or agreed_legend(corpora, array) is not None:
        raise InputError(
            f"{array} holds the numbers of classes, of which one is no more than another; task='segmentation' tells "
            "classes, and task='regression' learns a mask of numbers, such as a height or a distance."
        )
    parts: list[np.ndarray] = []
    for corpus in corpora:
        parts.append(held_array(corpus, array).read_many(_spread(corpus, 100)).astype("float64").ravel())
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    if not len(values) or not values.std():
        raise NothingFoundError(f"{array} holds {'one number only' if len(values) else 'no number'} to learn.")
    return array, float(values.mean()), float(values.std())
