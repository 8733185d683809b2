"""Corpora from a shell: `deepsentinel sample | plan | build | describe | split | publish`.

Each command is one verb of Python with the same words, and reads what the one before it wrote.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import InputError

DONE, SOME_FAILED = 0, 1


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the six commands to the parser of the command line."""
    sample = commands.add_parser("sample", parents=[common], help="points on land, spread evenly by area")
    sample.add_argument("n", type=int, help="how many")
    sample.add_argument("--out", type=Path, default=Path("points.gpkg"), help="a file of points (%(default)s)")
    where = sample.add_mutually_exclusive_group()
    where.add_argument("--region", help='ISO codes such as "EU27+GB", or a file of polygons; all land if left out')
    bbox_argument(where)
    sample.add_argument("--strata", type=Path, help="labels or a raster of classes: points by class")
    sample.add_argument("--shares", default="proportional", choices=("proportional", "balanced"), help="of the classes")
    sample.add_argument("--min-distance-m", type=float, default=0, help="no two points are nearer (0)")
    sample.add_argument("--seed", type=int, default=0)
    sample.set_defaults(run=_sample)

    plan = commands.add_parser("plan", parents=[common], help="which pairs a corpus would hold, and what it would cost")
    plan.add_argument("places", type=Path, help="a file of points or windows")
    plan.add_argument("--out", type=Path, default=Path("plan"), help="where the plan goes (%(default)s)")
    source_arguments(plan)
    plan.add_argument("--start", required=True, help="first day")
    plan.add_argument("--end", required=True, help="last day")
    plan.add_argument("--size-px", type=int, default=256, help="pixels a side (%(default)s)")
    plan.add_argument("--resolution", type=float, default=10, help="metres a pixel (%(default)s)")
    plan.add_argument("--max-days", type=float, default=3, help="longest gap between the sensors (%(default)s)")
    plan.add_argument("--max-cloud", type=float, help="cloud cover of a scene, percent")
    plan.add_argument("--per-place", type=int, default=1, help="samples a place (%(default)s)")
    plan.add_argument("--choose", default="best", choices=("best", "random"), help="which of the pairs (%(default)s)")
    plan.add_argument("--bands", nargs="+", metavar="BAND", help="B02 B03 ... VV VH; all usual ones if left out")
    plan.add_argument(
        "--sensors", nargs="+", choices=("S1", "S2"), help="scenes of one sensor; pairs of both if left out"
    )
    plan.add_argument("--mixed", action="store_true", help="take L1C beside L2A, or sigma0 beside gamma0")
    plan.add_argument("--native", action="store_true", help="bands of 10, 20 and 60 m each in its own pixels")
    plan.add_argument("--series", action="store_true", help="all dates of a place as one sample")
    plan.add_argument("--samples-per-shard", type=int, default=64, help="samples a file (%(default)s)")
    plan.add_argument("--measure", type=int, default=0, metavar="N", help="read N samples to tell how long it takes")
    plan.add_argument("--seed", type=int, default=0)
    plan.set_defaults(run=_plan)

    build = commands.add_parser(
        "build", parents=[common], help="read, mask and store a plan; again to go on after a stop"
    )
    build.add_argument("plan", type=Path, help="the folder of a plan")
    build.add_argument("corpus", type=Path, help="the corpus, such as corpus.zarr")
    build.add_argument("--labels", nargs="+", default=[], metavar="NAME=FILE", help="masks, such as corine=clc.gpkg")
    source_arguments(build, default=None)
    build.add_argument("--threads", type=int, help="how many read (one a core)")
    build.add_argument("--retry-failed", action="store_true", help="try failed samples again")
    build.set_defaults(run=_build)

    describe = commands.add_parser("describe", parents=[common], help="the card of a corpus: numbers, map, examples")
    describe.add_argument("corpus", help="a folder or a URL")
    describe.add_argument("--out", type=Path, help="a folder for the card; printed if left out")
    describe.set_defaults(run=_describe)

    split = commands.add_parser("split", parents=[common], help="train, validation and test, apart in space or time")
    split.add_argument("corpus", help="a folder or a URL")
    split.add_argument("--by", default="space", choices=("space", "tile", "time", "country"))
    split.add_argument("--buffer-m", type=float, default=5000, help="no two splits are nearer (%(default)s)")
    split.add_argument("--fractions", type=float, nargs="+", default=[0.7, 0.15, 0.15], metavar="SHARE")
    split.add_argument(
        "--new-classes", type=float, default=0, help="share of the data whose classes training never saw"
    )
    split.add_argument("--labels", help="the labels whose classes are meant, such as corine")
    split.add_argument("--seed", type=int, default=0)
    split.add_argument("--out", type=Path, default=Path("splits.parquet"), help="which sample is where (%(default)s)")
    split.set_defaults(run=_split)

    publish = commands.add_parser("publish", parents=[common], help="copy a corpus to a bucket; again to go on")
    publish.add_argument("corpus", type=Path, help="a folder")
    publish.add_argument("url", help="s3://, gs:// or az://bucket/prefix, or another folder")
    publish.add_argument(
        "--option", nargs="+", default=[], metavar="KEY=VALUE", help="of the store: region=, endpoint="
    )
    publish.add_argument("--overwrite", action="store_true", help="replace what lies there")
    publish.set_defaults(run=_publish)


def bbox_argument(parser: Any) -> None:
    """Add --bbox."""
    parser.add_argument(
        "--bbox", nargs=4, type=float, metavar=("WEST", "SOUTH", "EAST", "NORTH"), help="the area, in degrees"
    )


def source_arguments(parser: argparse.ArgumentParser, default: str | None = "demo") -> None:
    """Add --source and its --option."""
    words = " (%(default)s)" if default else "; that of the plan if left out"
    parser.add_argument("--source", default=default, help=f'"demo", a service, or a STAC catalog{words}')
    parser.add_argument(
        "--option", nargs="+", default=[], metavar="KEY=VALUE", help="of the source, such as size_px=512 of the demo"
    )


def opened_source(options: argparse.Namespace) -> Any:
    """The source that --source and --option name."""
    import deepsentinel as ds

    return ds.open_source(options.source, **key_values(options.option))


def key_values(given: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE words; what reads as JSON (numbers, true) is that, anything else text.

    >>> key_values(["seed=3", "region=eu-west-1"])
    {'seed': 3, 'region': 'eu-west-1'}
    """
    found: dict[str, Any] = {}
    for word in given:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise InputError(f"{word!r} is no option; write KEY=VALUE, such as seed=3.")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return found


def _sample(options: argparse.Namespace) -> int:
    import deepsentinel as ds

    from .files import atomic_path

    region: Any = options.region
    if options.bbox is not None:
        region = tuple(options.bbox)
    elif region is not None and Path(region).suffix:
        region = Path(region)
    strata: Any = options.strata
    if strata is not None and strata.suffix.lower() not in (".tif", ".tiff", ".vrt"):
        strata = ds.read_labels(strata)
    points = ds.sample_land(
        options.n,
        region,
        options.seed,
        min_distance_m=options.min_distance_m,
        strata=strata,
        shares=options.shares,
    )
    with atomic_path(options.out) as temporary:
        temporary.unlink()  # GDAL makes a file, and takes an empty one for a broken one
        points.to_file(temporary, layer="points")
    print(f"{len(points):,} points in {points.attrs['region']}: {options.out}")
    return DONE


def _plan(options: argparse.Namespace) -> int:
    import geopandas as gpd

    import deepsentinel as ds

    from .figures.corpus import save_plan

    if not options.places.exists():
        raise InputError(f"There is no file {options.places}; make one with `deepsentinel sample`.")
    plan = ds.plan_corpus(
        gpd.read_file(options.places),
        opened_source(options),
        start=options.start,
        end=options.end,
        size_px=options.size_px,
        resolution=options.resolution,
        max_days=options.max_days,
        max_cloud=options.max_cloud,
        per_place=options.per_place,
        choose=options.choose,
        bands=options.bands,
        sensors=options.sensors,
        native=options.native,
        mixed=options.mixed,
        series=options.series,
        samples_per_shard=options.samples_per_shard,
        measure=options.measure,
        seed=options.seed,
    )
    print(plan)
    folder = save_plan(plan, options.out)
    print(f"\nsaved in {folder}, with a picture; build it:  deepsentinel build {options.out} corpus.zarr")
    return DONE


def _build(options: argparse.Namespace) -> int:
    import deepsentinel as ds

    from .corpus.build import PLAN_FOLDER
    from .corpus.plan import load_plan
    from .figures.corpus import save_plan

    if options.option and options.source is None:
        raise InputError("--option belongs to a source; name it with --source.")
    labels = {}
    for word in options.labels:
        name, equals, path = word.partition("=")
        if not (name and equals and path):
            raise InputError(f"{word!r} does not name labels; write NAME=FILE, such as corine=clc2018.gpkg.")
        labels[name] = path
    plan = load_plan(options.plan, None if options.source is None else opened_source(options))
    report = ds.build_corpus(
        plan, options.corpus, labels or None, threads=options.threads, retry_failed=options.retry_failed
    )
    save_plan(plan, options.corpus / PLAN_FOLDER)
    print(report)
    return SOME_FAILED if report.failed else DONE


def _describe(options: argparse.Namespace) -> int:
    import deepsentinel as ds

    card = ds.describe(ds.open_corpus(options.corpus), out=options.out)
    print(card.to_markdown() if options.out is None else f"The card is in {options.out}")
    return DONE


def _split(options: argparse.Namespace) -> int:
    import deepsentinel as ds

    from .corpus.split_files import save_splits

    parts = ds.split(
        ds.open_corpus(options.corpus),
        options.by,
        buffer_m=options.buffer_m,
        fractions=options.fractions,
        new_classes=options.new_classes,
        labels=options.labels,
        seed=options.seed,
    )
    if options.by != "time":
        print(ds.audit_splits(parts, options.buffer_m))
    for part in parts:
        print(f"{part.attrs['split']['name']:8} {part.sizes['sample']:,} samples")
    print(f"{parts[0].attrs['split']['dropped']:,} left out; saved in {save_splits(options.out, parts)}")
    return DONE


def _publish(options: argparse.Namespace) -> int:
    import deepsentinel as ds

    report = ds.publish(
        options.corpus, options.url, storage_options=key_values(options.option) or None, overwrite=options.overwrite
    )
    print(report)
    return DONE
