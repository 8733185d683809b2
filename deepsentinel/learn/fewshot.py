"""Classes that a model never saw: how well a few examples of each are enough to know more of them elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from deepsentinel.encoders.base import Encoder
from deepsentinel.errors import InputError, NothingFoundError

from .batches import Batch, Feed, bands_of, corpora_of, encode
from .controls import FROZEN, RANDOM, RANDOM_SUFFIX, STATISTICS, clouds_of
from .ground import Ground, each_once, padded
from .intervals import BLOCK_M
from .labels import Classes, arrays_of, classes_of
from .model import Model, shares_of
from .report import MODEL
from .tasks import IGNORE

if TYPE_CHECKING:
    import xarray as xr

UNITS = ("cells", "samples")
CHANCE = "chance"
# A cell or a sample counts as of a class that covers more than this of it.
LEAST_SHARE = 0.5
# Divisions of the ground that are tried until every class is on both sides.
TRIES = 100
# More examples of a class than this are not asked for, in one draw.
MOST_ASKED = 1_000


def few_shot(
    model: Model | Encoder | Any,
    corpus: xr.Dataset | Sequence[xr.Dataset],
    held_out: Sequence[str | int] | None = None,
    *,
    labels: str | None = None,
    shots: Sequence[int] = (1, 5, 10),
    seeds: Sequence[int] = range(20),
    of: str = "cells",
    sensors: str = "both",
    block_m: float = BLOCK_M,
    batch_size: int = 16,
    clouds: bool | None = None,
    device: str | torch.device = "auto",
) -> pd.DataFrame:
    """How well classes that were never seen are known elsewhere, from a few examples of each.

    The ground is divided by blocks, anew for each seed: examples come from one half, and what is asked from the other.
    Two ways to answer, both on frozen vectors: the nearest mean of the examples, and a logistic regression. Beside the
    encoder stand image statistics, the same encoder with random weights, and chance.

    Parameters
    ----------
    model
        A model, of which the encoder is judged; or an encoder, or what `pretrain` returned.
    corpus
        With labels, on ground that nothing was learnt from.
    held_out
        Names or numbers of the classes; None: all in the corpus that the model did not learn.
    labels
        The name of the labels; None: those of the model.
    shots, seeds
        How many examples of each class; and the seeds, each a division of the ground and a draw of examples.
    of
        "cells" of the encoder, or whole "samples", each of the class that covers most of it.
    sensors, block_m, batch_size, clouds, device
        What is seen; the side of the blocks; samples at once; whether what SCL calls cloud is hidden (None: as the
        model learnt); where.

    Returns a table with a row for each encoder, probe and number of shots: `mean` of the balanced accuracy over seeds,
    `low` and `high` between which 95 % of the seeds lie, `classes`, and `n`, how many were asked at a time.

    ```python
    train, val, test, new = ds.split(corpus, new_classes=0.2, labels="corine")  # new holds what no other part has
    report = ds.evaluate(model, test).with_few_shot(ds.few_shot(model, new))
    ```

    >>> import tempfile, deepsentinel as ds
    >>> from deepsentinel.corpus.recipes import labelled
    >>> recipe = labelled(ds.open_source("demo", size_px=256), n=6, size_px=32, start="2018-06-01", end="2018-06-20")
    >>> corpus = ds.open_corpus(recipe.build(tempfile.mkdtemp() + "/corpus.zarr", progress=False).path)
    >>> encoder = ds.load_encoder("image-statistics")
    >>> table = few_shot(encoder, corpus, labels="corine", shots=(1,), seeds=range(2), block_m=200, device="cpu")
    >>> table["what"].unique().tolist()
    ['model', 'chance']
    """
    from deepsentinel.embedding.model import pick_device

    encoder = getattr(model, "encoder", model)
    if not isinstance(encoder, Encoder):
        raise InputError(f"A model or an encoder is meant; this is a {type(model).__name__}.")
    if of not in UNITS:
        raise InputError(f"of={of!r}: cells or samples are meant.")
    wanted = [shots] if isinstance(shots, int) else list(shots)
    if not wanted or any(isinstance(k, bool) or k < 1 for k in wanted) or not len(seeds):
        raise InputError(f"shots={shots!r}, seeds={seeds!r}: whole numbers from 1, and at least one seed, are meant.")
    corpora = corpora_of(corpus)
    classes = _held_out(model, corpora, held_out, labels)
    chosen = pick_device(device)
    ground = Ground(corpora, block_m=block_m, batch_size=batch_size, clouds=clouds_of(model, clouds), device=chosen)
    beside = _beside(encoder)
    units = _units(beside, ground, classes, of=of, sensors=sensors)
    names = [*beside]
    rows: list[dict[str, Any]] = []
    for k in wanted:
        for seed in seeds:
            drawn = units.drawn(k, int(seed))
            if drawn is None:
                continue
            count = len(np.unique(units.truth[drawn.asked]))
            head = {"shots": k, "classes": count, "n": len(drawn.asked)}
            for name, probe, value in _answered(units, drawn, names):
                rows.append({"what": name, "probe": probe, **head, "value": value})
            rows.append({"what": CHANCE, "probe": "", **head, "value": 1 / count})
    if not rows:
        raise NothingFoundError(
            f"The {of} of {', '.join(classes.names)} lie in {len(np.unique(units.block))} block(s) of ground, and two "
            f"classes with {min(wanted)} example(s) on one side and more on the other are needed. Take more ground, or "
            "a smaller block_m=."
        )
    grouped = pd.DataFrame(rows).groupby(["what", "probe", "shots"], sort=False)
    table = (
        grouped.agg(
            mean=("value", "mean"),
            low=("value", lambda values: values.quantile(0.025)),
            high=("value", lambda values: values.quantile(0.975)),
            seeds=("value", "size"),
            classes=("classes", "max"),
            n=("n", "mean"),
        )
        .reset_index()
        .astype({"n": "int64"})
    )
    table.attrs = {"held_out": list(classes.names), "of": of, "sensors": sensors}
    return table


@dataclass(frozen=True)
class Drawn:
    """Examples and questions of one draw."""

    shown: np.ndarray
    """Numbers of the examples."""
    asked: np.ndarray
    """Numbers of what is asked."""
    near: np.ndarray
    """Numbers of all on the side of the examples, whose classes nobody tells."""


@dataclass(frozen=True)
class Units:
    """Cells or samples of the held-out classes, and what each encoder makes of them."""

    vectors: Mapping[str, np.ndarray]
    truth: np.ndarray
    block: np.ndarray
    sample: np.ndarray

    def drawn(self, k: int, seed: int) -> Drawn | None:
        """`k` examples of each class on one half of the ground, and all of these classes on the other half."""
        rng = np.random.default_rng(seed)
        blocks = np.unique(self.block)
        best: tuple[int, np.ndarray, np.ndarray] = (1, np.empty(0), np.empty(0))
        every = len(np.unique(self.truth))
        for _ in range(TRIES):
            here = np.isin(self.block, rng.permutation(blocks)[: len(blocks) // 2])
            near, far = (np.bincount(self.truth[side], minlength=int(self.truth.max()) + 1) for side in (here, ~here))
            both = np.flatnonzero((near >= k) & (far > 0))
            if len(both) > best[0]:
                best = len(both), both, here
            if len(both) == every:
                break
        _, both, here = best
        if len(both) < 2:
            return None
        shown, asked = [], []
        for number in both:
            mine = rng.permutation(np.flatnonzero(here & (self.truth == number)))
            # Cells of one field are one example told many times: as many samples as there are come first.
            turn = pd.Series(self.sample[mine]).groupby(self.sample[mine]).cumcount().to_numpy()
            shown.append(mine[np.argsort(turn, kind="stable")][:k])
            asked.append(rng.permutation(np.flatnonzero(~here & (self.truth == number)))[:MOST_ASKED])
        return Drawn(np.concatenate(shown), np.concatenate(asked), np.flatnonzero(here))


def _answered(units: Units, drawn: Drawn, names: Sequence[str]) -> list[tuple[str, str, float]]:
    from deepsentinel.similarity.probes import DEFAULT_STRENGTH, _fitted
    from deepsentinel.similarity.reports import scores

    found = []
    kinds, truth = np.unique(units.truth[drawn.shown], return_inverse=True)
    right = np.searchsorted(kinds, units.truth[drawn.asked])
    for name in names:
        vectors = units.vectors[name]
        mean, spread = vectors[drawn.near].mean(axis=0), vectors[drawn.near].std(axis=0)
        moved = (vectors - mean) / np.where(spread > 1e-6, spread, np.inf)
        probes: dict[str, Callable[[], np.ndarray]] = {
            "nearest mean": lambda moved=moved: _nearest(moved, truth, drawn),  # type: ignore[misc]
            "logistic": lambda moved=moved: _fitted(  # type: ignore[misc]
                np.concatenate([moved[drawn.shown], moved[drawn.asked]]),
                np.concatenate([truth, right]),
                np.arange(len(truth)),
                np.arange(len(truth), len(truth) + len(right)),
                [DEFAULT_STRENGTH],
            )[0],
        }
        for probe, answer in probes.items():
            found.append((name, probe, scores(right, answer(), len(kinds))["balanced_accuracy"]))
    return found


def _nearest(vectors: np.ndarray, truth: np.ndarray, drawn: Drawn) -> np.ndarray:
    """The class whose examples point the same way, on average."""
    from deepsentinel.similarity.wanted import unit

    shown, asked = unit(vectors[drawn.shown])[0], unit(vectors[drawn.asked])[0]
    means = np.stack([shown[truth == number].mean(axis=0) for number in range(truth.max() + 1)])
    return np.asarray((asked @ unit(means)[0].T).argmax(axis=1))


def _held_out(
    model: Any, corpora: Sequence[xr.Dataset], held_out: Sequence[str | int] | None, labels: str | None
) -> Classes:
    """The classes that are asked about, refused where the model has learnt them."""
    learnt = model.question.classes if isinstance(model, Model) else None
    if labels is None:
        if learnt is None:
            raise InputError("Which labels are meant? Pass labels=, the name of those in the corpus.")
        labels = learnt.array
    array, _ = arrays_of(corpora[0], labels)
    known = set(learnt.codes) if learnt is not None and learnt.array == array else set()
    every = classes_of(corpora, labels)
    named = dict(zip(every.names, every.codes, strict=True))
    if held_out is None:
        codes = [code for code in every.codes if code not in known]
    else:
        given = [held_out] if isinstance(held_out, str | int) else list(held_out)
        if lost := [each for each in given if each not in named and each not in every.codes]:
            raise InputError(f"The corpus has no class {lost[0]!r}; it has {', '.join(every.names)}.")
        codes = sorted({named[each] if isinstance(each, str) else int(each) for each in given})
        if seen := [code for code in codes if code in known]:
            told = every.names[every.codes.index(seen[0])]
            raise InputError(f"The model has learnt {told!r}; classes that it never saw are meant.")
    if len(codes) < 2:
        raise InputError(
            f"Two classes to tell apart are needed, and {len(codes)} is held out. The corpus has "
            f"{', '.join(every.names)}; leave some of them out of the training."
        )
    at = [every.codes.index(code) for code in codes]
    return replace(
        every,
        codes=tuple(codes),
        names=tuple(every.names[i] for i in at),
        colors=tuple(every.colors[i] for i in at),
        shares=tuple(every.shares[i] for i in at),
    )


def _beside(encoder: Encoder) -> dict[str, Encoder]:
    """The encoder and its controls, by what they are called in reports."""
    from deepsentinel.encoders import load_encoder

    found = {MODEL: encoder}
    name = encoder.spec.name.removesuffix(RANDOM_SUFFIX)
    if name != "image-statistics":
        found[STATISTICS] = load_encoder("image-statistics")
    if encoder.spec.parameters:
        found[FROZEN] = load_encoder(name, RANDOM)
    return found


@torch.no_grad()
def _units(beside: Mapping[str, Encoder], ground: Ground, classes: Classes, *, of: str, sensors: str) -> Units:
    """Vectors of all encoders, of cells of the first one's size, with one class each."""
    model = beside[MODEL]
    side = model.spec.patch_px
    bands = list(dict.fromkeys(band for each in beside.values() for band in bands_of(each.spec, ground.corpora[0])))
    feed = Feed(
        ground.corpora,
        batch_size=ground.batch_size,
        bands=bands,
        labels=classes.arrays,
        turn=False,
        clouds=ground.clouds,
        device=ground.device,
    )
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*beside, "truth", "block", "sample")}
    homes = {name: next((value.device for value in each.parameters()), None) for name, each in beside.items()}
    for each in beside.values():
        each.to(ground.device).eval()
    for positions, batch in each_once(feed):
        wide = padded(batch, side)
        rows, columns = (length // side for length in wide.pixels.shape[-2:])
        targets = classes.targets(batch.labels)
        finer = targets.shape[-1] // batch.pixels.shape[-1]
        cells = of == "cells"
        truth = _covering(_squares(targets, side * finer) if cells else targets.unsqueeze(1), len(classes))
        vectors = {name: _vectors(each, wide, sensors, (rows, columns), cells) for name, each in beside.items()}
        keep = truth != IGNORE
        for values in vectors.values():
            keep &= torch.isfinite(values).all(dim=-1)
        each_of = np.repeat(positions, truth.shape[1])[keep.flatten().cpu().numpy()]
        parts["truth"].append(truth[keep].cpu().numpy())
        parts["block"].append(ground.block[each_of])
        parts["sample"].append(each_of)
        for name, values in vectors.items():
            parts[name].append(values[keep].float().cpu().numpy())
    for name, home in homes.items():
        beside[name].to(home or "cpu")
    joined = {name: np.concatenate(each) for name, each in parts.items()}
    if not len(joined["truth"]):
        raise NothingFoundError(f"No {of.removesuffix('s')} is mostly of one of {', '.join(classes.names)}.")
    return Units({name: joined[name] for name in beside}, joined["truth"], joined["block"], joined["sample"])


def _vectors(encoder: Encoder, batch: Batch, sensors: str, grid: tuple[int, int], cells: bool) -> Tensor:
    """(B, cells, D), cells of a given grid whatever the encoder's own; (B, 1, D) of whole samples."""
    side = batch.pixels.shape[-1] // grid[1]
    tokens = encode(encoder, batch, sensors, patch_px=side if side in encoder.spec.patch_sizes else None)
    if not cells:
        return tokens.pooled.unsqueeze(1)
    if tokens.dense is None:
        raise InputError(f"{encoder.spec.name} has no cells; of='samples' judges its vectors of whole samples.")
    dense = tokens.dense.permute(0, 3, 1, 2)
    if dense.shape[-2:] != grid:
        dense = F.interpolate(dense, grid, mode="area")
    return dense.flatten(2).transpose(1, 2)


def _squares(targets: Tensor, side: int) -> Tensor:
    """(B, H, W) -> (B, squares, pixels), the last ones filled up with what teaches nothing.

    >>> _squares(torch.tensor([[[1, 2, 3]]]), 2).tolist()
    [[[1, 2, 255, 255], [3, 255, 255, 255]]]
    """
    height, width = targets.shape[-2:]
    wide = F.pad(targets, (0, -width % side, 0, -height % side), value=IGNORE)
    return wide.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3).flatten(3).flatten(1, 2)


def _covering(squares: Tensor, count: int) -> Tensor:
    """(B, squares, ...) -> (B, squares): the class that covers more than half of each, or what teaches nothing."""
    flat = squares.flatten(2)
    labelled = (flat != IGNORE).float().mean(dim=2)
    shares = shares_of(flat.flatten(0, 1).unsqueeze(1), count).view(*flat.shape[:2], count).nan_to_num(0.0)
    most, number = (shares * labelled.unsqueeze(-1)).max(dim=-1)
    return torch.where(most > LEAST_SHARE, number, IGNORE)
