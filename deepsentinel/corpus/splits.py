"""Splits of a corpus whose parts have no ground in common: by space, by tile, by time or by country.

A sample near another one shows nearly the same, so a random split tests a model on what it was trained on. Here whole
blocks of ground go to one split, and between two splits lies a strip of `buffer_m` in which no sample is kept. Which
samples have to go for that is a question of its own: dropped are the fewest with which no two samples of different
splits are nearer than the buffer. `audit_splits` proves the outcome, by reckoning of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError

from .blocks import deal, fewest, numbered
from .buffers import TooNearError, what_works
from .classes import class_shares, new_to_training
from .ground import Ground, conflicts, ground_of
from .space import by_space
from .times import by_time

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

WAYS = ("space", "tile", "time", "country")
# More pairs than this of samples that are too near are not looked at one by one.
MOST_PAIRS = 20_000_000
NEW = "new"


def split(
    corpus: xr.Dataset,
    by: str = "space",
    *,
    buffer_m: float = 5000,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    new_classes: float = 0.0,
    labels: Any = None,
    cuts: Sequence[Any] | None = None,
    gap_days: float = 0,
) -> tuple[xr.Dataset, ...]:
    """Parts of a corpus in the order of `fractions` (training, validation, test) that have no ground in common.

    Parameters
    ----------
    corpus
        What `open_corpus` returns, or a selection of it. Samples that failed to build are left out.
    by
        "space": blocks of ground, as large as leaves each split several of them. "tile": whole MGRS tiles. "country":
        whole countries. "time": the first part of the period for training, the next for validation and so on; the same
        places are then in all of them.
    buffer_m
        No two samples of different splits are nearer than this, measured between their footprints; not for "time". 0
        only keeps them from sharing ground.
    fractions
        How much of the samples goes to each split; any number of them.
    seed
        Other blocks.
    new_classes
        A share of all samples that is held out because it holds classes that occur in no other split: how well does a
        model do on what it has never seen? It is returned as one more split, the last.
    labels
        What tells the classes: the name of masks in the corpus ("corine"), or a table with a row a sample (one column
        of codes, or a column of shares for each class); None for the strata for which samples were drawn. Where classes
        are known, every split gets its share of each as far as space allows.
    cuts
        For "time": the dates at which one split ends and the next begins, one fewer than splits; None puts them where
        the fractions are met.
    gap_days
        For "time": so long after each cut nothing is kept.

    What was dropped is told in `attrs["split"]` of each part, with how and what for.

    >>> import xarray as xr
    >>> lon = np.repeat(np.arange(10.0), 2)
    >>> same = {"crs": "EPSG:4326", "height": 1, "width": 1, "place": 0, "id": "a"}
    >>> coords = {"lon": lon, "lat": lon * 0, **{name: np.repeat(value, 20) for name, value in same.items()}}
    >>> coords |= {"place": np.arange(20) // 2, "id": np.arange(20).astype(str)}
    >>> corpus = xr.Dataset(coords={name: ("sample", values) for name, values in coords.items()})
    >>> corpus = corpus.assign_attrs(resolution=0.001)
    >>> train, test = split(corpus, fractions=(0.5, 0.5), buffer_m=1000)
    >>> train.sizes["sample"], set(train.place.values) & set(test.place.values)
    (10, set())
    """
    wanted = _checked(by, buffer_m, fractions, new_classes, gap_days)

    def parts(metres: float) -> tuple[xr.Dataset, ...]:
        return _split(
            corpus, by, wanted, buffer_m=metres, fractions=fractions, seed=seed, new_classes=new_classes,
            labels=labels, cuts=cuts, gap_days=gap_days,
        )  # fmt: skip

    try:
        return parts(float(buffer_m))
    except TooNearError as error:
        raise InputError(f"{error} {what_works(parts, float(buffer_m), corpus.sizes['sample'])}") from None


def _split(
    corpus: xr.Dataset, by: str, wanted: np.ndarray, *, buffer_m: float, fractions: Sequence[float], seed: int,
    new_classes: float, labels: Any, cuts: Sequence[Any] | None, gap_days: float,
) -> tuple[xr.Dataset, ...]:  # fmt: skip
    if by != "time" and (cuts is not None or gap_days):
        raise InputError(f"cuts= and gap_days= are for by='time'; a split by {by!r} has none.")
    all_of_them = np.arange(corpus.sizes["sample"])
    good = all_of_them
    if "status" in corpus.coords:
        good = all_of_them[corpus["status"].to_numpy().astype(str) == "ok"]
    if len(good) < len(wanted):
        raise InputError(f"{len(good)} samples that were built make no {len(wanted)} splits; build more of them.")
    whole = corpus if len(good) == len(all_of_them) else corpus.isel(sample=good)
    unit = _together(whole)
    shares = _shares(corpus, labels, good, needed=new_classes > 0)
    held_out = np.zeros(len(good), bool)
    new: list[Any] = []
    if new_classes:
        assert shares is not None
        chosen = new_to_training(shares.to_numpy() > 0, new_classes, seed=seed)
        new = shares.columns[chosen].tolist()
        # A place goes whole: another date of it shows the new class too.
        held_out = np.isin(unit, unit[(shares.to_numpy()[:, chosen] > 0).any(axis=1)])
    rest = ~held_out
    if not rest.any():
        raise InputError(
            f"Every place holds one of the classes that would be new ({new}), so nothing is left to learn from."
            " Give a smaller new_classes=, or labels= with finer classes."
        )
    number = np.full(len(good), len(wanted))
    weights = np.ones((len(good), 1))
    if shares is not None:
        weights = np.concatenate([weights, shares.to_numpy("float64")], axis=1)
    ground = ground_of(whole) if by != "time" else None
    if by == "time":
        number[rest] = by_time(whole.isel(sample=rest), unit[rest], wanted, cuts, gap_days)
    else:
        assert ground is not None
        number[rest] = _by_blocks(
            whole.isel(sample=rest), by, ground.take(rest), numbered(unit[rest]), weights[rest], wanted, buffer_m, seed
        )
    if ground is not None:
        gone = _too_near(ground, number, unit, wanted, buffer_m)
        if by == "space":
            number = _taken_up(ground, number, unit, gone, buffer_m, len(wanted))
        else:
            number = np.where(gone[unit], -1, number)
    kept = number >= 0
    return _parts(corpus, good, number, kept, len(wanted), new, by=by, seed=seed, buffer_m=buffer_m, asked=fractions)


def _checked(by: str, buffer_m: float, fractions: Sequence[float], new: float, gap_days: float) -> np.ndarray:
    if by not in WAYS:
        raise InputError(f"by={by!r} is no way to split a corpus; there are {', '.join(map(repr, WAYS))}.")
    wanted = np.asarray(fractions, "float64")
    if wanted.ndim != 1 or len(wanted) < 2 or not (wanted > 0).all() or abs(wanted.sum() - 1) > 1e-6:
        raise InputError(
            f"fractions={fractions!r} are no shares of a whole; give two or more from 0 to 1 with the sum 1."
        )
    if not (np.isfinite(buffer_m) and buffer_m >= 0):
        raise InputError(f"buffer_m={buffer_m!r} is not a distance in metres.")
    if not 0 <= new < 1:
        raise InputError(f"new_classes={new!r} is not a share of the samples; give 0 up to 1, such as 0.3.")
    if not (np.isfinite(gap_days) and gap_days >= 0):
        raise InputError(f"gap_days={gap_days!r} is not a number of days.")
    return wanted


def _shares(corpus: xr.Dataset, labels: Any, good: np.ndarray, *, needed: bool) -> pd.DataFrame | None:
    """The share of each class in each good sample; None where nobody knows any."""
    if labels is None and not needed:
        try:
            return class_shares(corpus).iloc[good]
        except InputError:
            return None
    return class_shares(corpus, labels).iloc[good]


def _together(corpus: xr.Dataset) -> np.ndarray:
    """The number of the unit each sample belongs to: all dates of one place, and twins, go the same way."""
    import pandas as pd
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    samples = corpus.sizes["sample"]
    groups = [pd.factorize(corpus[name].values)[0] for name in ("place", "id") if name in corpus.coords]
    if not groups:
        return np.arange(samples)
    nodes, offset, rows, columns = samples, samples, [], []
    for codes in groups:
        named = np.flatnonzero(codes >= 0)
        rows.append(named)
        columns.append(offset + codes[named])
        offset += int(codes.max(initial=-1)) + 1
    one, two = np.concatenate(rows), np.concatenate(columns)
    graph = csr_array((np.ones(len(one), bool), (one, two)), (offset, offset))
    return numbered(connected_components(graph, directed=False)[1][:nodes])


def _by_blocks(
    corpus: xr.Dataset, by: str, ground: Ground, unit: np.ndarray, weights: np.ndarray, wanted: np.ndarray,
    buffer_m: float, seed: int,
) -> np.ndarray:  # fmt: skip
    if by == "space":
        return by_space(ground, unit, weights, wanted, buffer_m, seed)
    import pandas as pd

    if by == "tile":
        names = corpus["tile"].to_numpy() if "tile" in corpus.coords else np.full(len(unit), None)
    else:
        names = _countries(corpus)
    codes, found = pd.factorize(names)
    if (codes < 0).any():
        some = int((codes < 0).sum())
        raise InputError(
            f"{some} of {len(codes)} samples {'have no tile' if by == 'tile' else 'lie in no country'}, so by={by!r}"
            " cannot place them; leave them out with isel(sample=...), or split by='space'."
        )
    # A place seen from two tiles goes with the first of them.
    first = np.full(int(unit.max()) + 1, len(codes))
    np.minimum.at(first, unit, np.arange(len(codes)))
    block = codes[first[unit]]
    block = numbered(block)
    if block.max() + 1 < len(wanted):
        raise InputError(
            f"The samples lie in {block.max() + 1} {'tile' if by == 'tile' else 'country'}(s) ({found[0]} ..), too few"
            f" for {len(wanted)} splits; split by='space'."
        )
    return deal(block, weights, wanted, seed)[block]


def _countries(corpus: xr.Dataset) -> np.ndarray:
    """The code of the country of each sample, of one off the coast that of the nearest."""
    import shapely

    from deepsentinel.land.countries import natural_earth

    table = natural_earth()
    names = np.where(table["code2"] != "", table["code2"], table["code3"])
    points = shapely.points(corpus["lon"].to_numpy(), corpus["lat"].to_numpy())
    tree = shapely.STRtree(table.geometry.to_numpy())
    point, country = tree.query_nearest(points, max_distance=1.0, all_matches=False)
    found = np.full(len(points), None, dtype=object)
    found[point] = names[country]
    return found


def _too_near(ground: Ground, number: np.ndarray, unit: np.ndarray, wanted: np.ndarray, buffer_m: float) -> np.ndarray:
    """Which units have to go so that no two splits are nearer than the buffer: the fewest."""
    gone = np.zeros(int(unit.max()) + 1, bool)
    for_good = gone.copy()
    found: dict[tuple[int, int], np.ndarray] = {}
    for one, two in combinations(range(len(wanted) + 1), 2):
        left, right = np.flatnonzero(number == one), np.flatnonzero(number == two)
        parts, count = [np.zeros((0, 2), "int64")], 0
        for pairs in conflicts(ground, left, right, buffer_m):
            if count > MOST_PAIRS:
                # Too many to weigh up one against the other: the side goes whole that is seen less of.
                for_good[unit[pairs[:, int(len(left) > len(right))]]] = True
                continue
            parts.append(np.unique(unit[pairs], axis=0))
            count += len(parts[-1])
        found[one, two] = np.unique(np.concatenate(parts), axis=0)
    gone |= for_good
    # The splits with most to settle first; what went there settles some of the rest.
    size = np.bincount(unit, minlength=len(gone))
    split_of = np.zeros(len(gone), "int64")
    split_of[unit] = number
    for pairs in sorted(found.values(), key=len, reverse=True):
        left_over = pairs[~gone[pairs].any(axis=1)]
        if len(left_over):
            gone[_fairest(left_over, split_of, np.where(gone, 0, size), wanted)] = True
    return _back(gone, list(found.values()), for_good)


def _fairest(pairs: np.ndarray, split_of: np.ndarray, size: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The fewest units without which no pair is left, and of several such choices one that keeps to the fractions."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    # Where two choices are as good, the matching prefers the left side: so it is asked from both sides.
    choices = [np.concatenate(fewest(pairs)), np.concatenate(fewest(pairs[:, ::-1]))]
    units, ends = np.unique(pairs, return_inverse=True)
    ends = ends.reshape(pairs.shape)
    graph = csr_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), (len(units), len(units)))
    count, part = connected_components(graph, directed=False)
    target = np.append(wanted, 0.0)
    held = np.bincount(split_of, weights=size, minlength=len(target)).astype("float64")
    costs = np.zeros((2, count, len(target)))
    parts = []
    for cost, choice in zip(costs, choices, strict=True):
        at = part[np.searchsorted(units, choice)]
        parts.append(at)
        np.add.at(cost, (at, split_of[choice]), size[choice])
    picked = np.zeros(count, "int64")
    for each in np.argsort(-costs[0].sum(axis=1), kind="stable"):
        after = held - costs[:, each]
        # New classes are a share of their own, which no fraction speaks of.
        shares = after[:, : len(wanted)] / np.maximum(after[:, : len(wanted)].sum(axis=1, keepdims=True), 1)
        picked[each] = int(np.argmin(np.abs(shares - wanted).sum(axis=1)))
        held = after[picked[each]]
    return np.concatenate(
        [choice[picked[at] == which] for which, (choice, at) in enumerate(zip(choices, parts, strict=True))]
    )


def _back(gone: np.ndarray, pairs: list[np.ndarray], for_good: np.ndarray) -> np.ndarray:
    """Without those that went for the sake of others that went too; whom `for_good` went is not in the pairs."""
    gone = gone.copy()
    both = np.concatenate(pairs + [pair[:, ::-1] for pair in pairs]) if pairs else np.zeros((0, 2), "int64")
    both = both[gone[both[:, 0]]]
    # Whoever is too near to someone who stays has to stay away; the others are looked at one by one.
    needed = for_good.copy()
    needed[both[~gone[both[:, 1]], 0]] = True
    both = both[np.argsort(both[:, 0], kind="stable")]
    for one in np.flatnonzero(gone & ~needed):
        others = both[np.searchsorted(both[:, 0], one) : np.searchsorted(both[:, 0], one, side="right"), 1]
        gone[one] = not gone[others].all()
    return gone


def _taken_up(
    ground: Ground, number: np.ndarray, unit: np.ndarray, gone: np.ndarray, buffer_m: float, new: int
) -> np.ndarray:
    """The split of each sample, -1 for none: who went, but is near to one split only, belongs to that one after all.

    What holds new classes may only be in the split of those, and nothing else may be.
    """
    split_of = np.zeros(len(gone), "int64")
    split_of[unit] = number
    lost = np.flatnonzero(gone[unit])
    parts, count = [np.zeros((0, 2), "int64")], 0
    for pairs in conflicts(ground, lost, np.arange(len(number)), buffer_m):
        parts.append(np.unique(unit[pairs], axis=0))
        count += len(parts[-1])
        if count > MOST_PAIRS:
            return np.where(gone[unit], -1, number)
    near = np.unique(np.concatenate(parts), axis=0)
    near = near[near[:, 0] != near[:, 1]]
    own = np.where(gone, -1, split_of)
    starts = np.searchsorted(near[:, 0], np.arange(len(gone) + 1))
    for each in np.flatnonzero(gone):
        around = own[near[starts[each] : starts[each + 1], 1]]
        around = around[around >= 0]
        if not len(around):
            own[each] = split_of[each]
        elif (around == around[0]).all() and (around[0] == new) == (split_of[each] == new):
            own[each] = around[0]
    return own[unit]


def _parts(
    corpus: xr.Dataset, good: np.ndarray, number: np.ndarray, kept: np.ndarray, splits: int, new: list[Any], *,
    by: str, seed: int, buffer_m: float, asked: Sequence[float],
) -> tuple[xr.Dataset, ...]:  # fmt: skip
    names = {2: ["train", "test"], 3: ["train", "val", "test"]}.get(splits, [f"part {n + 1}" for n in range(splits)])
    names += [NEW] if new else []
    counts = [int((kept & (number == each)).sum()) for each in range(len(names))]
    told: dict[str, Any] = {
        "by": by,
        "seed": int(seed),
        "buffer_m": None if by == "time" else float(buffer_m),
        "fractions": [float(share) for share in asked],
        "samples": counts,
        "not_built": int(corpus.sizes["sample"] - len(good)),
        "dropped": int((~kept).sum()),
        "dropped_samples": _numbers(corpus, good[~kept]),
        "new_classes": new,
    }
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    if empty:
        near = f"nearer than {buffer_m:g} m to another split"
        why = f"{told['dropped']} of {len(good)} samples lie {near}"
        if not told["dropped"]:
            why = f"what was meant for it lies {near} and went there"
        why += "."
        if by == "time":
            why = f"{told['dropped']} of {len(good)} samples lie across a cut or in the gap after it, and the others"
            raise InputError(
                f"Nothing is left for the split {empty[0]!r}: {why} elsewhere. Give other cuts= or a smaller gap_days=."
            )
        raise TooNearError(f"Nothing is left for the split {empty[0]!r}: {why}")
    parts = []
    for each, name in enumerate(names):
        part = corpus.isel(sample=good[kept & (number == each)])
        parts.append(part.assign_attrs(split={"name": name, **told}))
    return tuple(parts)


def _numbers(corpus: xr.Dataset, which: np.ndarray) -> np.ndarray:
    """The numbers that samples have in the whole corpus, also where this is a selection of it."""
    return np.asarray(corpus["sample"].to_numpy()[which] if "sample" in corpus.coords else which)
