"""Which pretraining helps: one command tabulates objective x encoder -> the score after fine-tuning.

Each square of the table is an encoder pretrained with one objective, fine-tuned on labels and measured on other ground,
once a seed; beside them each encoder that began with random weights. What is done is written down at once, so that a
table that was broken off goes on where it was, and can be made larger later.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from deepsentinel.errors import InputError, SourceError, TrainingError, warn
from deepsentinel.files import write_text
from deepsentinel.progress import progress as shown

from . import objectives as known_objectives
from .batches import corpora_of
from .checkpoints import told_of
from .checks import shared_samples
from .controls import FULL_RATE, checked_seeds
from .evaluation import evaluate
from .finetuning import finetune
from .intervals import BLOCK_M
from .pretraining import pretrain
from .processes import alone
from .report import ALL, LOWER_IS_BETTER, MODEL

if TYPE_CHECKING:
    import torch
    import xarray as xr

SCRATCH = "from scratch"
SETTINGS, SQUARES, TABLE = "compare.json", "squares", "compare.csv"
FORMAT = 2
# What compare() says itself, and no options may. Weights are what is compared: those that an objective has left.
OWN = {"steps", "seed", "out", "resume", "device", "task", "labels", "sensors", "clouds", "weights", "encoder"}
COLUMNS = ["encoder", "objective", "mean", "gain", "spread", "low", "high", "seeds", "why"]
Corpora = Any


def compare(
    corpus: xr.Dataset | Sequence[xr.Dataset],
    *,
    objectives: Sequence[str] = ("masked", "contrastive", "latent"),
    encoders: Sequence[str] = ("fusion-nano",),
    train: xr.Dataset | Sequence[xr.Dataset],
    test: xr.Dataset | Sequence[xr.Dataset],
    task: str = "segmentation",
    labels: str = "corine",
    sensors: str = "both",
    pretrain_steps: int = 2_000,
    finetune_steps: int = 600,
    seeds: Sequence[int] = (0, 1),
    out: str | os.PathLike[str] | None = None,
    pretraining: Mapping[str, Any] | None = None,
    by_objective: Mapping[str, Mapping[str, Any]] | None = None,
    finetuning: Mapping[str, Any] | None = None,
    block_m: float = BLOCK_M,
    clouds: bool = True,
    device: str | torch.device = "auto",
    on_square: Callable[[Mapping[str, Any]], object] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Pretrain each encoder with each objective, fine-tune it, measure it; and from scratch beside it.

    Parameters
    ----------
    corpus
        What is pretrained on; it needs no labels.
    objectives, encoders, seeds
        What is compared: names of `ds.pretrain`'s objectives, and of encoders; and the seeds of every run.
    train, test
        With labels: what is fine-tuned on, and the other ground that it is measured on.
    task, labels, sensors
        As in `ds.finetune`.
    pretrain_steps, finetune_steps
        How long.
    out
        A folder. What is done is found there again, runs that were broken off go on, and more objectives, encoders or
        seeds may be asked for later.
    pretraining, by_objective, finetuning
        More options: of `ds.pretrain`; of single objectives, such as {"triplet": {"near_m": 2000, "far_m": 9000}}; and
        of `ds.finetune`; its `layer_rate` is for what was pretrained, from scratch all layers learn at the full rate.
    on_square
        Called with the result of each run.

    Returns a table with a row for each encoder and objective: the score's `mean` over seeds, its `gain` over the same
    encoder from scratch, the `spread` between seeds, the interval (`low`, `high`), and `why` there is none where a run
    failed. The best stands first, what not all seeds were measured of below. What the score is stands in
    `table.attrs["score"]`.

    ```python
    ds.compare(corpus, objectives=("masked", "triplet"), encoders=("fusion-nano", "resnet18"), train=train, test=test,
               by_objective={"triplet": {"near_m": 2000, "far_m": 9000}}, out="runs/compare")
    ```

    >>> import tempfile, deepsentinel as ds
    >>> from deepsentinel.corpus.recipes import labelled
    >>> recipe = labelled(ds.open_source("demo", size_px=256), n=6, size_px=32, start="2018-06-01", end="2018-06-20")
    >>> corpus = ds.open_corpus(recipe.build(tempfile.mkdtemp() + "/corpus.zarr", progress=False).path)
    >>> few = {"pretrain_steps": 1, "finetune_steps": 1, "seeds": (0,), "progress": False, "device": "cpu"}
    >>> few |= {"pretraining": {"batch_size": 2}, "finetuning": {"batch_size": 2}}
    >>> table = compare(corpus, objectives=("masked",), train=corpus[{"sample": [0, 1, 2]}], labels="osm",
    ...                 test=corpus[{"sample": [3, 4, 5]}], **few)
    >>> sorted(table["objective"])
    ['from scratch', 'masked']
    """
    alone("compare")
    names = _checked(objectives, "objectives")
    for name in names:
        known_objectives.find(name)
    from deepsentinel.encoders import find

    for name in _checked(encoders, "encoders"):
        find(name)
    every = checked_seeds(seeds)
    single = {name: dict(options) for name, options in (by_objective or {}).items()}
    if strange := sorted(set(single) - set(names)):
        raise InputError(f"by_objective has options of {strange[0]!r}, which is not among the objectives.")
    shared, learning = dict(pretraining or {}), dict(finetuning or {})
    for given, where in ((shared, "pretraining"), (learning, "finetuning"), *((each, "by_objective") for each in
                                                                              single.values())):  # fmt: skip
        if own := OWN & set(given):
            raise TypeError(f"{where} has an option {min(own)!r}, which compare() sets itself.")
    settings = {
        "format": FORMAT,
        "corpora": {name: told_of(each) for name, each in (("corpus", corpus), ("train", train), ("test", test))},
        "task": task, "labels": labels, "sensors": sensors, "clouds": clouds, "block_m": block_m,
        "pretrain_steps": pretrain_steps, "finetune_steps": finetune_steps,
        "pretraining": shared, "finetuning": learning,
    }  # fmt: skip
    shared_samples(corpora_of(train), corpora_of(test))
    folder = None if out is None else _folder(Path(out).expanduser(), settings)
    squares = [(name, objective, seed) for name in encoders for objective in (SCRATCH, *names) for seed in every]
    found = []
    todo = shown(squares, total=len(squares), what="comparing", unit="run") if progress else squares
    for encoder, objective, seed in todo:
        options = {**shared, **single.get(objective, {})}
        square: dict[str, Any] = {"encoder": encoder, "objective": objective, "seed": seed}
        path = None if folder is None else folder / SQUARES / f"{_slug(square)}.json"
        done = None if path is None else _read(path, options if objective != SCRATCH else {})
        if done is None:
            done = square | _run(
                square, corpus, train, test, options, learning, settings, None if folder is None else folder, device
            )
            if path is not None and not done["why"]:
                told = {**done, "options": options if objective != SCRATCH else {}}
                write_text(path, json.dumps(told, indent=1, default=str) + "\n")
        found.append(done)
        if on_square is not None:
            on_square(done)
    table = _table(found)
    if folder is not None:
        write_text(folder / TABLE, table.to_csv(index=False))
    return table


def _run(
    square: Mapping[str, Any],
    corpus: Corpora,
    train: Corpora,
    test: Corpora,
    options: Mapping[str, Any],
    learning: Mapping[str, Any],
    settings: Mapping[str, Any],
    folder: Path | None,
    device: Any,
) -> dict[str, Any]:
    """One run from pixels to a score; what goes wrong is told, and does not end the others."""
    seed, objective = square["seed"], square["objective"]
    place = None if folder is None else folder / "runs" / _slug(square)
    common = {"seed": seed, "clouds": settings["clouds"], "device": device}
    try:
        start: Any = square["encoder"]
        # As the control of that name: what knows nothing yet learns everywhere at the full rate.
        how: dict[str, Any] = {"weights": "random", "layer_rate": FULL_RATE}
        if objective != SCRATCH:
            start = pretrain(
                corpus,
                objective,
                square["encoder"],
                steps=settings["pretrain_steps"],
                out=None if place is None else place / "pretrained",
                **common,
                **options,
            )
            how = {}
        model = finetune(
            train,
            start,
            settings["task"],
            settings["labels"],
            sensors=settings["sensors"],
            steps=settings["finetune_steps"],
            out=None if place is None else place / "finetuned",
            **common,
            **{**learning, **how},
        )
        report = evaluate(
            model,
            test,
            controls=False,
            block_m=settings["block_m"],
            clouds=settings["clouds"],
            worst=0,
            device=device,
            progress=False,
        )
    except TypeError:
        # A misspelt option is the same in all runs.
        raise
    except (ValueError, LookupError, OSError, ArithmeticError, RuntimeError, MemoryError, ImportError) as error:
        kind = "" if isinstance(error, TrainingError | InputError | SourceError) else f"{type(error).__name__}: "
        why = f"{kind}{str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
        warn(f"{square['encoder']}, {objective}, seed {seed} failed: {why}")
        return {"score": None, "value": None, "low": None, "high": None, "why": why}
    rows = report.rows
    main = rows[
        (rows["what"] == MODEL) & (rows["metric"] == report.headline) & (rows["class"] == "") & (rows["cloud"] == ALL)
    ]
    first = main[main["sensors"] == report.measured[0]].iloc[0]
    numbers = {name: float(first[name]) if pd.notna(first[name]) else None for name in ("value", "low", "high")}
    return {"score": report.headline, **numbers, "why": ""}


def _table(squares: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of encoder and objective, over seeds, the best first and what began from scratch below.

    Where a seed failed, the mean is over others than that of the next row, so that such rows stand below whole ones.
    """
    frame = pd.DataFrame(squares).astype({"value": "float64", "low": "float64", "high": "float64"})
    score = next((name for name in frame["score"] if name), "")
    sign = -1 if score in LOWER_IS_BETTER else 1
    rows = []
    for (encoder, objective), each in frame.groupby(["encoder", "objective"], sort=False):
        known = each["value"].notna()
        base = frame[(frame["encoder"] == encoder) & (frame["objective"] == SCRATCH)].set_index("seed")["value"]
        # Seed by seed, as far as both are there.
        gains = sign * (each.set_index("seed")["value"] - base)
        rows.append(
            {
                "encoder": encoder,
                "objective": objective,
                "mean": each["value"].mean(),
                "gain": float("nan") if objective == SCRATCH else gains.mean(),
                "spread": each["value"].max() - each["value"].min() if known.sum() > 1 else float("nan"),
                "low": each["low"].mean(),
                "high": each["high"].mean(),
                "seeds": int(known.sum()),
                "why": "; ".join(dict.fromkeys(why for why in each["why"] if why)),
            }
        )
    table = pd.DataFrame(rows, columns=COLUMNS)
    short = table["seeds"] < frame["seed"].nunique()
    order = table.assign(last=table["objective"] == SCRATCH, short=short, best=-sign * table["mean"])
    order["at"] = order["encoder"].map({name: at for at, name in enumerate(dict.fromkeys(table["encoder"]))})
    table = table.loc[order.sort_values(["at", "last", "short", "best"], kind="stable").index].reset_index(drop=True)
    table.attrs = {"score": score, "lower is better": sign < 0}
    return table


def _checked(names: Sequence[str], what: str) -> list[str]:
    if isinstance(names, str) or not len(names) or len(set(names)) < len(names):
        raise InputError(f"{what}={names!r}: different names in a list are meant.")
    return list(names)


def _folder(folder: Path, settings: Mapping[str, Any]) -> Path:
    """The folder of a table; one of another table is refused."""
    path, text = folder / SETTINGS, json.dumps(settings, indent=1, default=str, sort_keys=True)
    if path.is_file():
        held = path.read_text(encoding="utf-8").strip()
        if held != text:
            was, now = (dict(json.loads(each)) for each in (held, text))
            other = [name for name in now if was.get(name) != now[name]]
            raise InputError(
                f"{folder} holds another table: {', '.join(f'{name} was {was.get(name)!r}' for name in other)}. Name "
                "another folder in out=."
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} holds other files; give the table a folder of its own.")
    else:
        write_text(path, text + "\n")
    return folder


def _read(path: Path, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """A run that was done before; None where there is none, or with other options."""
    if not path.is_file():
        return None
    try:
        held = dict(json.loads(path.read_text(encoding="utf-8")))
        told = held.pop("options")
    except (ValueError, KeyError) as error:
        raise SourceError(f"{path} is no result of ds.compare ({error}); move it away to have it made anew.") from error
    if told != json.loads(json.dumps(options, default=str)):
        raise InputError(f"{path} was made with the options {told}, not {dict(options)}; name another folder in out=.")
    return held


def _slug(square: Mapping[str, Any]) -> str:
    """What a run is called on disk.

    >>> _slug({"encoder": "fusion-nano", "objective": "from scratch", "seed": 1})
    'fusion-nano_from-scratch_1'
    """
    return "_".join(re.sub(r"[^A-Za-z0-9.-]+", "-", str(square[name])) for name in ("encoder", "objective", "seed"))
