"""The same verbs from a shell: `deepsentinel demo`, `deepsentinel doctor`, and those of corpora in `cli_corpus`.

The demo hides nothing: each step prints the Python line that it runs, then what came of it, so that whoever watches it
once can write a script.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .cli_corpus import add_commands
from .errors import DeepSentinelError, DeepSentinelWarning, InputError, NothingFoundError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

EXIT_OK, EXIT_UNWELL, EXIT_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130
SHOWN_PAIRS = 5
Row = tuple[str, ...]
NOTEBOOK = "notebooks/01_quickstart.ipynb"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status (0 well, 1 the doctor found something, 2 an error, 130 interrupted).

    >>> main(["doctor", "--json", "--services", "none"])  # doctest: +ELLIPSIS
    {...}
    0
    """
    options = _parser().parse_args(arguments)
    try:
        with _plain_warnings():
            status: int = options.run(options)
        sys.stdout.flush()
        return status
    except DeepSentinelError as error:
        if options.debug:
            raise
        print(f"deepsentinel: {error}", file=sys.stderr)
        print("(--debug shows where this comes from)", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("deepsentinel: interrupted; nothing is left half written", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough (`| head`). Python would complain once more while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        if options.debug:
            raise
        print(f"deepsentinel: a file cannot be read or written: {error}", file=sys.stderr)
        print(
            "(is there room, and may you write there? --out and DEEPSENTINEL_CACHE name other places)", file=sys.stderr
        )
        return EXIT_ERROR


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Ours without the line of code that they come from, which in a shell is always the same."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, DeepSentinelWarning):
            print(f"note: {message}", file=sys.stderr)
        else:
            usual(message, category, *rest, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", DeepSentinelWarning)
        warnings.showwarning = show
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deepsentinel",
        description="From a rectangle on a map to matched Sentinel-1 and Sentinel-2 pixels.",
        epilog=f"The first ten minutes: jupyter lab {NOTEBOOK}",
    )
    parser.add_argument("--version", action="version", version=f"deepsentinel {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        parents=[common],
        help="area, scenes, pairs, pixels, a figure and GeoTIFFs, step by step; offline by default",
        description="Walk from an area to a matched patch, a figure and GeoTIFFs, on an imaginary coast and offline.",
    )
    demo.add_argument("--out", type=Path, default=Path("deepsentinel-demo"), help="where results go (%(default)s)")
    demo.add_argument("--seed", type=int, help="another seed is another Earth (0; demo only)")
    demo.add_argument(
        "--source", default="demo", help='what to read: "demo", a service, or a STAC catalog (%(default)s)'
    )
    demo.add_argument(
        "--bbox", nargs=4, type=float, metavar=("WEST", "SOUTH", "EAST", "NORTH"), help="the area, in degrees"
    )
    demo.add_argument("--start", default="2018-05-01", help="first day (%(default)s)")
    demo.add_argument("--end", default="2018-08-31", help="last day (%(default)s)")
    demo.set_defaults(run=_demo)

    doctor = commands.add_parser(
        "doctor",
        parents=[common],
        help="versions, GPU, credentials, cache, and whether the live services answer rightly",
        description="Look at everything that commonly goes wrong. Exit status 1 if something is.",
    )
    doctor.add_argument("--json", action="store_true", help="for machines")
    doctor.add_argument("--services", nargs="+", metavar="NAME", help="which to ask; 'none' asks nobody (all)")
    doctor.set_defaults(run=_doctor)
    add_commands(commands, common)
    return parser


class Steps:
    """The printed walk: a heading and the Python line before each step, its result and time after it."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.started = time.monotonic()

    @contextmanager
    def step(self, title: str, *code: str) -> Iterator[None]:
        """Announce a step, run it, and say how long it took."""
        self.done += 1
        say(f"\n[{self.done}/{self.total}] {title}")
        for line in code:
            say(f"    >>> {line}")
        began = time.monotonic()
        yield
        took_s = time.monotonic() - began
        if took_s >= 0.5:
            say(f"    ({took_s:.1f} s)")

    @property
    def seconds(self) -> float:
        """Since the first step began."""
        return time.monotonic() - self.started


def say(line: str = "") -> None:
    """Print at once, so that a slow step is seen to be under way, also through a pipe."""
    print(line, flush=True)


def _demo(options: argparse.Namespace) -> int:
    import deepsentinel as ds

    from .export import to_geotiff
    from .files import atomic_path, cache_dir

    imaginary = options.source == "demo"
    if options.seed is not None and not imaginary:
        raise InputError(f"--seed numbers imaginary Earths, and {options.source} shows the real one; leave it out.")
    seed = {"seed": options.seed or 0} if imaginary else {}
    options.out.mkdir(parents=True, exist_ok=True)  # what cannot be written had better fail before the work
    steps = Steps(8 if imaginary else 7)
    say(f"deepsentinel {__version__}: from an area to a matched Sentinel-1/Sentinel-2 patch")

    words = "".join(f", {key}={value}" for key, value in seed.items())
    with steps.step("Open a source", "import deepsentinel as ds", f'src = ds.open_source("{options.source}"{words})'):
        if imaginary and not any(cache_dir("demo").glob(f"seed{seed['seed']}-*/catalog.json")):
            say("    building this Earth, which takes some seconds the first time ...")
        src = ds.open_source(options.source, **seed)
        say("    an imaginary coast, made on this machine: no network, no account" if imaginary else f"    {src.name}")

    aoi, aoi_code = _area(src, options.bbox)
    with steps.step("Choose an area and its pixels", f"aoi = {aoi_code}", "grid = ds.geobox(aoi, resolution=10)"):
        grid = ds.geobox(aoi, resolution=10)
        if aoi_code == "src.area":
            say(f"    {aoi}: west, south, east, north")
        say(f"    {grid.shape[1]} x {grid.shape[0]} px of 10 m in {grid.crs}")

    search = f'scenes = src.search(aoi, "{options.start}", "{options.end}")'
    with steps.step("Search: which scenes are there?", search):
        scenes = src.search(aoi, options.start, options.end)
        say(table(_scene_rows(scenes)))

    with steps.step(
        "Match: how many Sentinel-2 dates have a Sentinel-1 partner?",
        "ds.match_rate(scenes, aoi=aoi, max_days=3)",
    ):
        rate = ds.match_rate(scenes, aoi=aoi, max_days=3)
        say(textwrap.indent(repr(rate), "    "))

    with steps.step("Pair: which goes with which? The best come first", "pairs = ds.pair(scenes, aoi=aoi, max_days=3)"):
        pairs = ds.pair(scenes, aoi=aoi, max_days=3)
        if len(pairs) == 0:
            raise NothingFoundError(pairs.attrs.get("hint", "There are no pairs; widen the dates or the area."))
        say(table(_pair_rows(pairs)))
        if len(pairs) > SHOWN_PAIRS:
            say(f"    and {len(pairs) - SHOWN_PAIRS} more")

    with steps.step("Read the pixels of the best pair", "patch = src.read(pairs.iloc[0], grid)"):
        patch = src.read(pairs.iloc[0], grid).load()
        say(table(_band_rows(patch)))

    masks = _label(steps, src, aoi, patch) if imaginary else None
    out = options.out.as_posix()
    drawn: dict[str, tuple[str, Any]] = {"patch.png": ("patch", patch)}
    export = [f'to_geotiff(patch, "{out}")']
    if masks is not None:
        drawn["masks.png"] = ("[patch, masks]", [patch, masks])
        export.append(f'to_geotiff(masks, "{out}")')
    with steps.step(
        "Look at it, and export it for a GIS",
        *(
            f'ds.show({code}).savefig("{(options.out / name).as_posix()}", dpi=150)'
            for name, (code, _) in drawn.items()
        ),
        "from deepsentinel.export import to_geotiff",
        *export,
    ):
        files = []
        for name, (_, what) in drawn.items():
            with atomic_path(options.out / name) as temporary:
                ds.show(what).savefig(temporary, dpi=150, format="png")
            files.append(options.out / name)
        files += to_geotiff(patch, options.out)
        files += [] if masks is None else to_geotiff(masks, options.out)
        say(table([(path.as_posix(), f"{path.stat().st_size / 1e3:,.0f} kB") for path in files]))

    say(f"\nDone in {steps.seconds:.1f} s")
    say(table(_summary(scenes, rate, pairs, patch, masks, options.out)))
    say(f"\nThe same in a notebook:  jupyter lab {NOTEBOOK}   (in a clone of the repository: make lab)")
    return EXIT_OK


def _label(steps: Steps, src: Any, aoi: Any, patch: xr.Dataset) -> xr.Dataset:
    """Ground truth of the patch: what the farmers of the demo world declared, with how sure it is."""
    import deepsentinel as ds

    code = 'labels = ds.read_labels(src.labels["parcels_2018"], bbox=aoi)'
    with steps.step(
        "Label: polygons become masks on the same pixels", code, "masks = ds.rasterize(labels, like=patch)"
    ):
        labels = ds.read_labels(src.labels["parcels_2018"], bbox=aoi)
        masks = ds.rasterize(labels, like=patch)
        shares = ds.label_vector(labels, patch, min_share=0.005)
        shares = shares[shares["present"]].sort_values("share", ascending=False)
        rows: list[Row] = [("class", "crop", "share")]
        rows += [(str(code), str(row["name"]), f"{row['share']:.1%}") for code, row in shares.iterrows()]
        say(table(rows))
        say(f"    {_mixed(masks)}; the rest of the patch has no parcel")
    return masks


def _mixed(masks: xr.Dataset) -> str:
    return (
        f"{float((masks['conflict'] == 1).mean()):.1%} of the pixels are shared by parcels, "
        f"{float((masks['conflict'] == 2).mean()):.1%} claimed twice"
    )


def _area(src: Any, bbox: Sequence[float] | None) -> tuple[Any, str]:
    """The area, and the Python that says it."""
    if bbox is not None:
        return tuple(bbox), f"({', '.join(f'{value:.15g}' for value in bbox)})  # west, south, east, north"
    if getattr(src, "area", None) is None:
        raise InputError("This source has no area of its own; give one with --bbox WEST SOUTH EAST NORTH, in degrees.")
    return src.area, "src.area"


def _scene_rows(scenes: pd.DataFrame) -> list[Row]:
    rows: list[Row] = [("sensor", "scenes", "first", "last", "median cloud")]
    for sensor, held in scenes.groupby("sensor"):
        days = held["time"].dt.strftime("%Y-%m-%d")
        cloud = held["cloud_cover"].dropna().median()  # of nothing but NaN pandas 2 warns
        words = "" if cloud != cloud else f"{cloud:.0f} %"
        rows.append((str(sensor), str(len(held)), days.min(), days.max(), words))
    return rows


def _pair_rows(pairs: pd.DataFrame) -> list[Row]:
    rows: list[Row] = [("Sentinel-2 (UTC)", "Sentinel-1 (UTC)", "gap", "cloud", "overlap", "orbit")]
    row: Any
    for row in pairs.head(SHOWN_PAIRS).itertuples():
        times = (f"{time:%Y-%m-%d %H:%M}" for time in (row.s2_time, row.s1_time))
        cloud = "" if row.cloud_cover != row.cloud_cover else f"{row.cloud_cover:.0f} %"
        rows.append((*times, f"{row.gap_hours:+.1f} h", cloud, f"{row.overlap * 100:.0f} %", row.orbit or ""))
    return rows


def _band_rows(patch: xr.Dataset) -> list[Row]:
    """Each sensor's share of the patch in one line."""
    from .bands import S1_BANDS, S2_BANDS
    from .figures.stretch import has_data

    rows: list[Row] = []
    for sensor, bands, what in (
        ("S2", S2_BANDS, "reflectance x 10000, 0 = no data"),
        ("S1", S1_BANDS, "dB, NaN = no data"),
    ):
        held = [name for name in bands if name in patch.data_vars]
        if held:
            seen = f"{has_data(patch, held).mean() * 100:.0f} % measured"
            rows.append((sensor, " ".join(held), what, seen))
    others = [str(name) for name in patch.data_vars if name not in S1_BANDS and name not in S2_BANDS]
    return [*rows, ("and", " ".join(others))] if others else rows


def _summary(
    scenes: pd.DataFrame, rate: Any, pairs: pd.DataFrame, patch: xr.Dataset, masks: xr.Dataset | None, out: Path
) -> list[Row]:
    best = pairs.iloc[0]
    counts = scenes["sensor"].value_counts()
    return [
        ("scenes", f"{counts.get('S2', 0)} Sentinel-2, {counts.get('S1', 0)} Sentinel-1"),
        (
            "matched",
            f"{rate.matched} of {rate.dates} Sentinel-2 dates ({rate.share:.0%}) within {rate.max_days:g} days",
        ),
        ("pairs", f"{len(pairs)}, median gap {pairs['gap_hours'].abs().median():.1f} h"),
        ("Sentinel-2", f"{best.s2_time:%Y-%m-%d %H:%M} UTC, {patch.attrs.get('level', '')}"),
        ("", str(best.s2_id)),
        ("Sentinel-1", f"{best.s1_time:%Y-%m-%d %H:%M} UTC, {patch.attrs.get('backscatter', '')}"),
        ("", str(best.s1_id)),
        ("gap", f"{best.gap_hours:+.1f} h (positive: Sentinel-1 came later)"),
        ("patch", f"{patch.sizes['x']} x {patch.sizes['y']} px, {len(patch.data_vars)} variables"),
        *([] if masks is None else [("masks", f"{', '.join(map(str, masks.data_vars))}; {_mixed(masks)}")]),
        ("files", str(out.resolve())),
    ]


def table(rows: Sequence[Row], indent: str = "    ") -> str:
    """Rows of text with their columns aligned; short rows are fine.

    >>> print(table([("a", "1"), ("bcd", "22")], indent=""))
    a    1
    bcd  22
    """
    columns = max(len(row) for row in rows)
    filled = [(*row, *[""] * (columns - len(row))) for row in rows]
    widths = [max(len(row[column]) for row in filled) for column in range(columns)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in filled)
    return "\n".join((indent + line).rstrip() for line in lines)


def _doctor(options: argparse.Namespace) -> int:
    from .checkups import SERVICES
    from .doctor import diagnose

    names = options.services
    if names is not None:
        names = [] if names == ["none"] else names
        unknown = [name for name in names if name not in SERVICES]
        if unknown:
            raise InputError(
                f"There is no service {', '.join(unknown)} to ask; there are {', '.join(SERVICES)}, or none."
            )
    if not options.json and sys.stderr.isatty():
        print("Asking the services, a minute at most ...", file=sys.stderr)
    report = diagnose(services=names)
    say(json.dumps(report.as_dict(), indent=2) if options.json else report.text())
    return EXIT_OK if report.ok else EXIT_UNWELL
