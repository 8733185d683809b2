"""A plan becomes a corpus, shard by shard, by threads, processes or a cluster; killed at any time, it can go on.

The shard is the unit of work and of commit. Who makes one writes its files, and last the part of the table that says it
is there; no shard is ever written by two. What a shard holds follows from the plan and the scenes alone, so that it is
the same to the byte whoever makes it, however often it took.
"""

from __future__ import annotations

import os
import pickle
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel import __version__
from deepsentinel.errors import DeepSentinelError, InputError, warn
from deepsentinel.files import atomic_path
from deepsentinel.progress import asked
from deepsentinel.progress import progress as bar

from .arrays import first_scene, specs_of
from .commits import alone, finish, so_far, todo_of
from .cost import longest
from .executors import run
from .layout import Layout, create_store
from .masking import Ready, dense, ready_masks
from .plan import Plan, load_fingerprint
from .reach import reach_note
from .stopping import stop as end
from .stopping import stopping_when
from .stories import check_stories, story_of, version_of
from .worker import PARTS, PROBES, WORK, Job, Task, forget, remember, table_path, unwritable

if TYPE_CHECKING:
    import geopandas as gpd

PLAN_FOLDER = "plan"
SHOWN_REASONS = 3


@dataclass(frozen=True)
class Progress:
    """How far a build is, as `on_progress` is told after each shard."""

    done: int
    """Samples that are finished, also by earlier calls."""
    total: int
    """All samples."""
    failed: int
    """How many of those made by this call failed."""
    seconds: float
    """Since this call began."""
    rate: float
    """Samples a second, of this call."""
    left_s: float
    """Seconds to go at this rate."""


@dataclass(frozen=True)
class BuildReport:
    """What became of a build."""

    path: str
    """The corpus."""
    ok: int
    """Samples that are there."""
    failed: int
    """Samples that are not; `reason` in the table says why, and `retry_failed=True` tries them again."""
    built: int
    """Samples that this call made."""
    seconds: float
    """What it took."""
    rate: float
    """Samples a second."""
    reasons: Mapping[str, int]
    """Why samples failed, and how many each."""
    notes: tuple[str, ...] = ()
    """What was warned of in the end: labels that touch no sample."""
    left: int = 0
    """Samples that nobody came to, as the build was stopped."""

    def __repr__(self) -> str:
        lines = [f"{self.ok:,} of {self.ok + self.failed + self.left:,} samples in {self.path}"]
        if self.left:
            lines.append(f"stopped with {self.left:,} to go: build_corpus goes on from there")
        if self.built:
            lines.append(f"{self.built:,} of them in {self.seconds:,.1f} s: {self.rate:,.1f} samples a second")
        for reason, count in list(self.reasons.items())[:SHOWN_REASONS]:
            lines.append(f"{count:,} failed: {reason}")
        lines.extend(self.notes)
        return "\n".join(lines)


def build_corpus(
    plan: Plan,
    path: str | os.PathLike[str],
    labels: Mapping[str, Any] | None = None,
    *,
    executor: Any = None,
    threads: int | None = None,
    retry_failed: bool = False,
    progress: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
    stop: Any = None,
) -> BuildReport:
    """Read, mask and store all samples of a plan; called again after a stop, it goes on.

    Ctrl-C ends it within seconds: shards that are finished stay, those under way are given up.

    Parameters
    ----------
    plan
        From `ds.plan_corpus`, or `corpus.load_plan("corpus.zarr/plan")`.
    path
        The folder of the corpus. One that holds another plan's corpus, or one with other labels, is refused.
    labels
        A name for each set of masks: `{"corine": "clc2018.gpkg"}`. What it names is a file that `ds.read_labels` or
        `ds.read_label_raster` reads, a GeoDataFrame, or a function of the patch that gives an array; or a dict with
        that as `labels` and options of theirs and of `ds.rasterize`: `{"labels": "osm.gpkg", "resolution": 2.5,
        "layers": ("class_map",)}`. `alone=True` burns the label of the sample's own place and no other
        (`corpus.parcel_windows`). The arrays are called `corine_class_map` and `corine_conflict`.
    executor
        None: threads of this process. Any executor of `concurrent.futures`, or a `dask.distributed.Client`, whose
        workers must see the folder, and may die: their shards are done by others.
    threads
        How many threads read. None: one a core.
    retry_failed
        Try samples again that failed earlier, and those whose files are damaged or gone (every file is read to find
        them); the others stay as they are.
    progress, on_progress
        A bar with the rate and the time left; a function that is given a `Progress` after each shard.
    stop
        A function, or a `threading.Event`, that ends it as Ctrl-C does; the report then says in `left` what is to do.

    Returns
    -------
    BuildReport
        How many samples are there and how many failed. A sample that fails (its scene is broken or gone) never stops
        the others; its row says why. A source that can no longer be read at all, a full disk or a folder that may not
        be written stop with an error, and leave a corpus that opens.

    >>> import tempfile, geopandas as gpd, deepsentinel as ds
    >>> src = ds.open_source("demo", size_px=256)
    >>> lon, lat = src.area.geometry.centroid.coords[0]
    >>> points = gpd.GeoDataFrame(geometry=gpd.points_from_xy([lon], [lat]), crs="EPSG:4326")
    >>> plan = ds.plan_corpus(points, src, start="2018-06-01", end="2018-06-30", size_px=64)
    >>> report = build_corpus(plan, tempfile.mkdtemp() + "/corpus.zarr", {"corine": src.labels["corine"]})
    >>> report.ok, report.failed
    (1, 0)
    """
    if not isinstance(plan, Plan):
        raise InputError(f"plan= is a {type(plan).__name__}; make one with ds.plan_corpus, or load it with load_plan.")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads={threads!r}: give 1 or more, or None for one a core.")
    store = Path(path).expanduser()
    wanted = asked(stop)
    _check_same(plan, store)
    began = time.perf_counter()
    try:
        masks = ready_masks(labels, plan.samples, plan.settings)
        if not store.exists():
            store.mkdir(parents=True)
        with alone(store):
            layout = layout_of(plan, masks, version_of(store))
            check_stories(store, layout)
            create_store(store, layout)
            plan.save(store / PLAN_FOLDER)
            todo = todo_of(store, layout, retry_failed)
            made = 0
            if todo:
                made = _build(plan, store, layout, masks, todo, executor, threads, progress, on_progress, began, wanted)
            # One that was stopped keeps its parts, of which it goes on.
            table = so_far(store, layout) if wanted() else None
            if table is None or len(table) == layout.samples:
                table = finish(store, layout)
    except (OSError, DeepSentinelError) as error:
        if isinstance(error, DeepSentinelError):
            raise
        raise unwritable(store, error) from error
    seconds = time.perf_counter() - began
    said = [reach_note(ready, len(plan.samples)) for ready in masks]
    report_notes = tuple(note for note in said if note is not None)
    for note in report_notes:
        warn(note)
    failed = table["status"] == "failed"
    reasons = table.loc[failed, "reason"].value_counts()
    return BuildReport(
        path=str(store),
        ok=int((~failed).sum()),
        failed=int(failed.sum()),
        built=made,
        seconds=seconds,
        rate=made / seconds if made else 0.0,
        reasons={str(reason): int(count) for reason, count in reasons.items()},
        notes=report_notes,
        left=layout.samples - len(table),
    )


def layout_of(plan: Plan, masks: list[Ready], version: str = __version__) -> Layout:
    """The arrays of a corpus and its story."""
    specs, coords = specs_of(plan.settings, longest(plan.samples))
    settings = plan.settings
    kind = "series" if settings["series"] else "pairs" if len(settings["sensors"]) == 2 else "scenes"
    credits = ["Contains modified Copernicus Sentinel data"] if set(settings["sources"]) - {"demo"} else []
    credits += ["Imaginary demo world, not a real place"] if "demo" in settings["sources"] else []
    attrs: dict[str, Any] = {
        "title": f"{len(plan.samples)} {kind} of {' and '.join(settings['sources'])}",
        "version": version,
        "plan": plan.fingerprint,
        "credits": "; ".join(credits),
        **{name: settings[name] for name in ("sources", "size_px", "resolution", "seed", "series", "native", "start")},
        "end": settings["end"],
        "bands": list(settings["held"]),
        "masks": {ready.mask.name: story_of(ready) for ready in masks},
    }
    return Layout(
        samples=len(plan.samples),
        samples_per_shard=int(settings["samples_per_shard"]),
        arrays=(*specs, *(spec for ready in masks for spec in ready.specs)),
        coords=coords,
        attrs=attrs,
    )


def _check_same(plan: Plan, store: Path) -> None:
    """Another plan on the same path would mix two corpora."""
    folder = store / PLAN_FOLDER
    if not folder.is_dir():
        return
    there = load_fingerprint(folder)
    if there != plan.fingerprint:
        raise InputError(
            f"{store} is being built from another plan ({there}, this one is {plan.fingerprint}). Name a new folder; or"
            f" go on with its own: load_plan({str(folder)!r})."
        )


def _build(
    plan: Plan,
    store: Path,
    layout: Layout,
    masks: list[Ready],
    todo: dict[int, bool],
    executor: Any,
    threads: int | None,
    show: bool,
    on_progress: Callable[[Progress], None] | None,
    began: float,
    wanted: Callable[[], bool],
) -> int:
    _check_travels(masks, executor)
    _check_writable(store)
    for ready in masks:
        if ready.table is not None:
            with atomic_path(table_path(store, ready.mask.name)) as temporary:
                ready.table.to_parquet(temporary)
    crowded = {ready.mask.name: _dense(ready, plan.samples) for ready in masks}
    named = {source.name: source for source in plan.sources}
    job = Job(
        token=uuid.uuid4().hex,
        store=str(store.absolute()),
        layout=layout,
        settings=dict(plan.settings),
        sources=_pickled(plan.sources, executor),
        masks=tuple(ready.mask for ready in masks),
        threads=None,
    )
    probes = _probes(plan.samples)

    def task(shard: int, reading: int | None) -> Task:
        members = layout.members(shard)
        rows = plan.samples.iloc[members.start : members.stop].reset_index(drop=True)
        part = {name: values[members.start : members.stop] for name, values in crowded.items()}
        own = Job(**{**vars(job), "threads": reading})
        return Task(own, shard, rows, part, probes, todo[shard])

    total = layout.samples
    finished = total - sum(len(layout.members(shard)) for shard in todo)
    passed, made, failed = 0, 0, 0
    notes: dict[str, None] = {}

    def steps() -> Generator[None, None, None]:
        """One for each sample, for the bar."""
        nonlocal passed, made, failed
        with closing(run(task, list(todo), executor, threads, partial(end, store / WORK, job.token))) as dones:
            for done in dones:
                count = done.ok + done.failed
                passed, made, failed = passed + count, made + done.made, failed + done.lost
                notes.update(dict.fromkeys(done.notes))
                if on_progress is not None:
                    seconds = time.perf_counter() - began
                    left = (total - finished - passed) * seconds / passed
                    on_progress(Progress(finished + passed, total, failed, seconds, made / seconds, left))
                yield from [None] * count

    remember(job.token, named)
    try:
        # Closed here, so that nobody is at work any more when another may build.
        with stopping_when(wanted, store / WORK, job.token), closing(steps()) as each:
            for _ in bar(each, total=total - finished, what="building", unit="sample") if show else each:
                pass
    finally:
        forget(job.token)
    _tell(notes)
    return made


def _tell(notes: Mapping[str, None]) -> None:
    """What masks and scenes said on the way: once for all samples."""
    if notes:
        first = next(iter(notes))
        more = f" (and {len(notes) - 1} more like it)" if len(notes) > 1 else ""
        warn(f"While the corpus was built: {first}{more}")


def _dense(ready: Ready, samples: gpd.GeoDataFrame) -> np.ndarray:
    if ready.mask.kind == "call" or ready.mask.alone:
        return np.zeros(len(samples), dtype=bool)
    return dense(samples, ready.mask.factor)


def _pickled(sources: Any, executor: Any) -> bytes:
    try:
        return pickle.dumps(tuple(sources))
    except Exception as error:
        if executor is None or isinstance(executor, ThreadPoolExecutor):
            return b""  # threads share the sources themselves
        raise InputError(
            f"A source cannot be sent to other processes ({error}); build with threads: leave out executor=."
        ) from error


def _check_travels(masks: list[Ready], executor: Any) -> None:
    """A function that was typed into a notebook cannot be sent to another process."""
    if executor is None or isinstance(executor, ThreadPoolExecutor) or hasattr(executor, "scheduler_info"):
        return  # dask has its own way of sending functions
    for ready in masks:
        try:
            pickle.dumps(ready.mask)
        except Exception as error:
            raise InputError(
                f"The function of labels {ready.mask.name!r} cannot be sent to other processes ({error}); define it in"
                " a module, or build with threads: leave out executor=."
            ) from error


def _probes(samples: gpd.GeoDataFrame) -> tuple[tuple[str, str, str], ...]:
    """A few scenes from all over the plan, of each source."""
    found = []
    for name, part in samples.groupby("source", sort=False):
        for at in np.unique(np.linspace(0, len(part) - 1, PROBES * 2).astype(int)):
            for sensor in ("S2", "S1"):
                scene = first_scene(part.iloc[at], sensor)
                if scene is not None:
                    found.append((str(name), sensor, scene))
    return tuple(dict.fromkeys(found))


def _check_writable(store: Path) -> None:
    (store / PARTS).mkdir(exist_ok=True)
    (store / WORK).mkdir(exist_ok=True)
