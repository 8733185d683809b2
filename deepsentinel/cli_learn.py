"""Learning from a shell: `deepsentinel pretrain | finetune | evaluate | compare | predict`.

Each command is one verb of Python with the same words. Ctrl-C ends a training after the step it is at; the same command
goes on from there.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .cli_corpus import bbox_argument, key_values, opened_source, source_arguments
from .errors import InputError, NothingFoundError

DONE, STOPPED = 0, 130


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the five commands to the parser of the command line."""
    pretrain = commands.add_parser(
        "pretrain", parents=[common], help="an encoder from a corpus without labels; again to go on after a stop"
    )
    pretrain.add_argument("corpus", nargs="+", help="folders or URLs")
    pretrain.add_argument("--objective", default="masked", help="masked, contrastive, triplet, ... (%(default)s)")
    pretrain.add_argument("--encoder", default="fusion-nano", help="a name of ds.list_encoders() (%(default)s)")
    pretrain.add_argument("--near-m", type=float, help="of triplets: what is near")
    pretrain.add_argument("--far-m", type=float, help="of triplets: what is far")
    _training(pretrain, steps=2_000, batch_size=64)
    pretrain.set_defaults(run=_pretrain)

    finetune = commands.add_parser(
        "finetune", parents=[common], help="a model from a corpus with labels; again to go on after a stop"
    )
    finetune.add_argument("corpus", nargs="+", help="folders or URLs")
    finetune.add_argument("--labels", required=True, help="their name in the corpus, such as corine")
    finetune.add_argument("--task", default="segmentation", help="segmentation, classification, ... (%(default)s)")
    finetune.add_argument("--encoder", default="fusion-nano", help="a name of ds.list_encoders() (%(default)s)")
    finetune.add_argument("--weights", help='a file, or "random" for from scratch; the pretrained ones if left out')
    finetune.add_argument("--sensors", default="both", choices=("both", "s1", "s2", "any"), help="(%(default)s)")
    finetune.add_argument("--frozen", action="store_true", help="train the head alone")
    finetune.add_argument("--background", default="ignore", choices=("ignore", "class"), help="what no label claims")
    _training(finetune, steps=600, batch_size=16)
    _part(finetune, "train")
    finetune.set_defaults(run=_finetune)

    evaluate = commands.add_parser("evaluate", parents=[common], help="how good a model is, beside its controls")
    evaluate.add_argument("model", type=Path, help="model.safetensors, or the folder of its run")
    evaluate.add_argument("corpus", nargs="+", help="what it did not learn from")
    evaluate.add_argument("--train", nargs="+", help="what it learnt from, for controls and the second seed")
    evaluate.add_argument("--no-controls", action="store_true", help="the model alone: a provisional number")
    evaluate.add_argument("--steps", type=int, help="of each control; as many as the model's if left out")
    evaluate.add_argument("--out", type=Path, help="a folder for the report and its figure")
    evaluate.add_argument("--replace", action="store_true", help="write over a report that is not provisional")
    _part(evaluate, "test")
    evaluate.set_defaults(run=_evaluate)

    compare = commands.add_parser(
        "compare", parents=[common], help="objectives x encoders, each pretrained, fine-tuned and scored"
    )
    compare.add_argument("corpus", nargs="+", help="to pretrain on")
    compare.add_argument("--train", nargs="+", required=True, help="corpora with labels to learn from")
    compare.add_argument("--test", nargs="+", required=True, help="corpora with labels to be scored on")
    compare.add_argument("--labels", required=True, help="their name in the corpora")
    compare.add_argument("--objectives", nargs="+", default=["masked", "contrastive", "latent"])
    compare.add_argument("--encoders", nargs="+", default=["fusion-nano"])
    compare.add_argument("--task", default="segmentation")
    compare.add_argument("--pretrain-steps", type=int, default=2_000)
    compare.add_argument("--finetune-steps", type=int, default=600)
    compare.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    compare.add_argument("--out", type=Path, default=Path("comparison"), help="a folder; again to go on (%(default)s)")
    compare.set_defaults(run=_compare)

    predict = commands.add_parser("predict", parents=[common], help="a map of what a model tells of an area")
    predict.add_argument("model", type=Path, help="model.safetensors, or the folder of its run")
    predict.add_argument("--out", type=Path, help="map.tif or map.zarr; of objects .gpkg or .geojson")
    predict.add_argument("--sensors", choices=("both", "s1", "s2"), help="what it is shown; as in training if left out")
    predict.add_argument("--least-score", type=float, default=0.5, help="of objects: how sure (%(default)s)")
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    source_arguments(predict)
    bbox_argument(predict)
    predict.add_argument("--start", default="2018-05-01", help="first day (%(default)s)")
    predict.add_argument("--end", default="2018-08-31", help="last day (%(default)s)")
    predict.set_defaults(run=_predict)


def _training(parser: argparse.ArgumentParser, *, steps: int, batch_size: int) -> None:
    parser.add_argument("--out", type=Path, required=True, help="a folder for checkpoints, losses and the result")
    parser.add_argument("--steps", type=int, default=steps, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=batch_size, help="samples a step (%(default)s)")
    parser.add_argument("--crop-px", type=int, help="side of random crops (64)")
    parser.add_argument("--lr", type=float, default=1e-3, help="highest learning rate (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes that read what does not fit on the device")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--logs", type=Path, help="a folder for TensorBoard, where that is installed")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other options, such as seen=0.3")


def _part(parser: argparse.ArgumentParser, part: str) -> None:
    parser.add_argument("--split", type=Path, help=f"a file of `deepsentinel split`: only its part {part!r} is taken")


def _corpora(paths: Sequence[str], split: Path | None = None, part: str = "") -> list[Any]:
    import deepsentinel as ds

    opened = [ds.open_corpus(path) for path in paths]
    if split is None:
        return opened
    from .corpus.split_files import load_splits

    if len(opened) != 1:
        raise InputError(f"--split divides one corpus, and {len(opened)} are named.")
    parts = load_splits(opened[0], split)
    for each in parts:
        if each.attrs["split"]["name"] == part:
            return [each]
    raise InputError(f"{split} has no part {part!r}; it has {', '.join(p.attrs['split']['name'] for p in parts)}.")


@contextmanager
def _stoppable() -> Iterator[Any]:
    """An Event that Ctrl-C sets; a second Ctrl-C is what it always is."""
    import threading

    asked = threading.Event()

    def ask(*_: Any) -> None:
        print("\nstopping after this step; once more to stop at once", flush=True)
        asked.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _said(step: Any) -> None:
    print(step, flush=True)


def _pretrain(options: argparse.Namespace) -> int:
    import deepsentinel as ds

    with _stoppable() as stop:
        model = ds.pretrain(
            _corpora(options.corpus),
            options.objective,
            options.encoder,
            near_m=options.near_m,
            far_m=options.far_m,
            **_how(options),
            on_step=_said,
            stop=stop,
        )
    if model.stopped:
        print(f"stopped; the same command goes on from {options.out}")
        return STOPPED
    print(f'{model}\nds.load_encoder("{options.encoder}", weights="{options.out / "encoder.safetensors"}")')
    return DONE


def _finetune(options: argparse.Namespace) -> int:
    import deepsentinel as ds

    with _stoppable() as stop:
        model = ds.finetune(
            _corpora(options.corpus, options.split, "train"),
            options.encoder,
            options.task,
            options.labels,
            weights=options.weights,
            sensors=options.sensors,
            frozen=options.frozen,
            background=options.background,
            **_how(options),
            on_step=_said,
            stop=stop,
        )
        stopped = stop.is_set()
    if stopped:
        print(f"stopped; the same command goes on from {options.out}")
        return STOPPED
    print(f"{model}\nsaved as {options.out / 'model.safetensors'}")
    return DONE


def _how(options: argparse.Namespace) -> dict[str, Any]:
    names = ("out", "steps", "batch_size", "crop_px", "lr", "device", "workers", "seed", "logs")
    return {**{name: getattr(options, name) for name in names}, **key_values(options.set)}


def _evaluate(options: argparse.Namespace) -> int:
    import deepsentinel as ds

    from .learn.report_files import keep_full

    train = None
    if options.train:
        train = _corpora(options.train, options.split, "train")
    elif options.split is not None:
        train = _corpora(options.corpus, options.split, "train")
    if options.out is not None and (options.no_controls or options.steps is not None) and not options.replace:
        keep_full(options.out)  # before the work
    report = ds.evaluate(
        _model(options.model),
        _corpora(options.corpus, options.split, "test"),
        train=train,
        controls=not options.no_controls,
        steps=options.steps,
    )
    print(report)
    if options.out is not None:
        report.save(options.out, replace=options.replace)
        print(f"\nsaved in {options.out}")
    return DONE


def _model(path: Path) -> Any:
    """A model from its file, or from the folder of the run that made it."""
    import deepsentinel as ds

    from .learn.finetuning import MODEL_FILE

    if not path.is_dir():
        return ds.load_model(path)
    if not (path / MODEL_FILE).is_file():
        raise InputError(f"{path} holds no {MODEL_FILE}: its run is not done, or no fine-tuning; name the file.")
    return ds.load_model(path / MODEL_FILE)


def _compare(options: argparse.Namespace) -> int:
    from .learn.comparing import compare

    table = compare(
        _corpora(options.corpus),
        objectives=options.objectives,
        encoders=options.encoders,
        train=_corpora(options.train),
        test=_corpora(options.test),
        task=options.task,
        labels=options.labels,
        pretrain_steps=options.pretrain_steps,
        finetune_steps=options.finetune_steps,
        seeds=options.seeds,
        out=options.out,
    )
    print(table.to_string())
    return DONE


def _predict(options: argparse.Namespace) -> int:
    import deepsentinel as ds

    from .learn.tasks import OBJECT_TASKS

    src = opened_source(options)
    aoi: Any = tuple(options.bbox) if options.bbox is not None else getattr(src, "area", None)
    if aoi is None:
        raise NothingFoundError("Which area? Give it with --bbox WEST SOUTH EAST NORTH, in degrees.")
    model = _model(options.model)
    objects = model.task in OBJECT_TASKS
    out = options.out or Path("objects.gpkg" if objects else "map.tif")
    result = ds.predict(
        model,
        src,
        aoi,
        start=options.start,
        end=options.end,
        out=out,
        sensors=options.sensors,
        least_score=options.least_score,
        device=options.device,
    )
    print(f"{f'{len(result):,} objects' if objects else dict(result.sizes)}: {out}")
    if objects and not len(result):
        print(f"the model was at least {options.least_score:g} sure of nothing; --least-score asks for less")
    return DONE
