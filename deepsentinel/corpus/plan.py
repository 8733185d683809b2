"""What a corpus will hold and what it will cost, before anything is read.

Places and sources become samples: which scenes each is cut from, on which grid. They are put in an order in which
neighbours that share scenes stand together, because a shard of the store is a run of that order, is read in one go, and
opens each scene once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd

from deepsentinel.errors import InputError, NothingFoundError, warn
from deepsentinel.files import atomic_folder, write_text
from deepsentinel.footprints import check_number

from .asked import Choose, bands_asked, check_alike, checked, dates_asked, sources_asked, why_nothing
from .cost import Cost, cost_of, cost_table
from .matched import Matched, Wanted, match_sources
from .ordering import ordered_samples
from .places import places_of
from .samples import fingerprint, read_samples, write_samples
from .tiling import NATIVE_STEP_M

if TYPE_CHECKING:
    from deepsentinel.sources import Source

FORMAT = 1
PLAN_FILE, SAMPLES_FILE, UNMATCHED_FILE = "plan.json", "samples.parquet", "unmatched.json"


@dataclass(frozen=True, eq=False)
class Plan:
    """The samples of a corpus to be, from `plan_corpus`."""

    samples: gpd.GeoDataFrame
    """One row a sample, in the order in which they are stored; see `deepsentinel.corpus.samples`."""
    settings: Mapping[str, Any]
    """What was asked for, and the bands that every sample has."""
    cost: Cost
    """What building it will take."""
    unmatched: pd.DataFrame
    """`place, source, reason, lon, lat` of places that have no sample."""
    sources: tuple[Source, ...] = field(default=(), repr=False)
    """Where the pixels come from, in the order of `settings["sources"]`."""

    @property
    def fingerprint(self) -> str:
        """A short name that two plans share only if they are the same."""
        return fingerprint(self.samples, self.settings)

    @property
    def shards(self) -> int:
        """How many shards the corpus has."""
        return -(-len(self.samples) // int(self.settings["samples_per_shard"]))

    def save(self, folder: str | Path) -> Path:
        """Write the plan into a folder of its own, which `load_plan` reads."""
        target = Path(folder).expanduser()
        if target.exists():
            there = load_fingerprint(target)
            if there != self.fingerprint:
                raise InputError(f"{target} holds another plan ({there}); name a new folder.")
            return target
        with atomic_folder(target) as temporary:
            write_samples(temporary / SAMPLES_FILE, self.samples)
            told = {
                "format": FORMAT,
                "fingerprint": self.fingerprint,
                "settings": dict(self.settings),
                "cost": asdict(self.cost),
            }
            write_text(temporary / PLAN_FILE, json.dumps(told, indent=1))
            rows = json.loads(self.unmatched.to_json(orient="records"))
            write_text(temporary / UNMATCHED_FILE, json.dumps(rows))
        return target

    def __repr__(self) -> str:
        return "\n".join(f"{name:<14} {value}" for name, value in cost_table(self))

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td style='text-align:left'>{value}</td></tr>"
            for name, value in cost_table(self)
        )
        return f"<table>{rows}</table>"


def plan_corpus(
    places: gpd.GeoDataFrame,
    src: Source | Sequence[Source],
    *,
    start: Any,
    end: Any,
    size_px: int = 256,
    resolution: float = 10,
    max_days: float = 3,
    max_cloud: float | None = None,
    per_place: int = 1,
    choose: Choose = "best",
    seed: int = 0,
    bands: Sequence[str] | None = None,
    sensors: Sequence[str] | str | None = None,
    series: bool = False,
    native: bool = False,
    mixed: bool = False,
    samples_per_shard: int = 64,
    dates: Any = None,
    measure: int = 0,
    samples_per_hour: float | None = None,
    dollars_per_hour: float | None = None,
    dollars_per_gb_month: float | None = None,
) -> Plan:
    """Which samples a corpus will hold, and what it will cost.

    Parameters
    ----------
    places
        Points (from `ds.sample_land`, or any in a known CRS), or windows (from `ds.cover`, `corpus.windows`,
        `corpus.parcel_windows`). A window around a point lies on the pixels of its Sentinel-2 scene, so that nothing is
        resampled; windows stay as they are, and take scenes in their own projection alone.
    src
        A source, or several. Each sample of the first is looked up in the others, and twins (the same two passes of the
        satellites, from another platform) have one `id`.
    start, end
        The first and the last day.
    size_px, resolution
        Pixels a side, and their size in metres; windows bring their own.
    max_days, max_cloud
        The longest gap between the two sensors, and the cloud cover of a scene in percent; None: any.
    per_place, choose, seed
        How many samples each place gives: the best by cloud cover and gap, or random ones of all that there are, drawn
        with the seed.
    bands
        All usual ones if left out. Bands of one sensor alone need scenes of that sensor alone.
    sensors
        "S1" or "S2" for all usual bands of one sensor, without pairs; both if left out.
    series
        One sample a place, with all dates of the period, each sensor with its own.
    native
        Bands of 10, 20 and 60 m each in its own pixels, in place of all at `resolution`. Windows must then begin at
        multiples of 60 m: `snap_m=60` where they are made, in `ds.cover` too.
    mixed
        Whether one corpus may hold L1C beside L2A, or sigma0 beside terrain-flattened gamma0: the same ground has other
        numbers in each. Refused if left out.
    samples_per_shard
        How many samples one file holds: what is read at once, and lost when a build is stopped.
    dates
        One date a place, such as `deepsentinel.land.dates.spread_dates` gives, or a column `date` of the places: the
        pair nearest to it in time is taken.
    measure
        So many samples are read for the rate and the size in the cost. Or give `samples_per_hour`. With neither the
        hours are unknown, and the size follows from what is usual.
    dollars_per_hour, dollars_per_gb_month
        What a machine and storage cost.

    Returns
    -------
    Plan
        Its `samples`, `cost` and `unmatched` (places without a sample, with reasons). `plan.save(folder)` keeps it.

    >>> import deepsentinel as ds
    >>> src = ds.open_source("demo", size_px=256)
    >>> lon, lat = src.area.geometry.centroid.coords[0]
    >>> points = gpd.GeoDataFrame(geometry=gpd.points_from_xy([lon], [lat]), crs="EPSG:4326")
    >>> plan = plan_corpus(points, src, start="2018-06-01", end="2018-06-30", size_px=64)
    >>> len(plan.samples), plan.cost.scenes
    (1, 2)
    """
    settings = checked(
        size_px=size_px,
        resolution=resolution,
        max_days=max_days,
        max_cloud=max_cloud,
        per_place=per_place,
        choose=choose,
        seed=seed,
        series=series,
        native=native,
        samples_per_shard=samples_per_shard,
    )
    sources = sources_asked(src)
    asked, sensors = bands_asked(bands, sensors)
    for name, given in (("measure", measure), ("samples_per_hour", samples_per_hour)):
        if given is not None:
            check_number(name, given, example=f"{name}=8")
    found_places = places_of(places, size_px=size_px, resolution=resolution, native=native)
    when = dates_asked(places, dates, settings, sensors)
    settings |= {
        "start": None if start is None else str(start),
        "end": None if end is None else str(end),
        "size_px": found_places.size_px,
        "resolution": found_places.resolution,
        "bands": None if asked is None else list(asked),
        "sensors": list(sensors),
        "sources": [one.name for one in sources],
    }
    wanted = Wanted(
        start=start,
        end=end,
        sensors=sensors,
        **{name: settings[name] for name in ("max_days", "max_cloud", "per_place", "choose", "seed", "series")},
        step=NATIVE_STEP_M if native else float(found_places.resolution),
        dates=when,
    )
    matched = match_sources(found_places, sources, wanted)
    if not len(matched.rows):
        raise NothingFoundError(why_nothing(matched, wanted, sources))
    check_alike(matched.kinds, mixed=mixed)
    settings["opened"] = {one.name: _opened(one) for one in sources}
    samples = ordered_samples(matched, found_places, settings)
    from .arrays import bands_held

    settings["held"] = bands_held(samples, sources, asked, sensors)
    unmatched = matched.unmatched
    if len(unmatched):
        reason = unmatched["reason"].value_counts().index[0]
        warn(
            f"{len(unmatched)} of {len(found_places)} places lack a sample in a source, most of them because {reason}."
            " plan.unmatched lists them."
        )
    cost = cost_of(
        samples,
        sources,
        settings,
        searches=matched.searches,
        measure=int(measure),
        samples_per_hour=samples_per_hour,
        dollars_per_hour=dollars_per_hour,
        dollars_per_gb_month=dollars_per_gb_month,
    )
    return Plan(samples, settings, cost, unmatched, sources)


def load_plan(folder: str | Path, src: Source | Sequence[Source] | None = None) -> Plan:
    """A plan that was saved, also the one in the folder `plan` of a corpus.

    `src` is the source, or the sources, it was made from; left out, those that `ds.open_source` knows by name are
    opened.
    """
    told = _read_json(Path(folder).expanduser())
    path = Path(folder).expanduser()
    settings = told["settings"]
    names = settings["sources"]
    if src is None:
        sources = tuple(_reopened(name, settings["opened"].get(name)) for name in names)
    else:
        sources = sources_asked(src)
        if [one.name for one in sources] != names:
            raise InputError(
                f"The plan in {path} was made from {', '.join(names)}, and src= is"
                f" {', '.join(one.name for one in sources)}."
            )
    unmatched = pd.DataFrame(json.loads((path / UNMATCHED_FILE).read_text()), columns=Matched.UNMATCHED)
    plan = Plan(read_samples(path / SAMPLES_FILE), settings, Cost(**told["cost"]), unmatched, sources)
    if plan.fingerprint != told["fingerprint"]:
        raise InputError(f"The plan in {path} was changed after it was saved; make it again with plan_corpus.")
    return plan


def load_fingerprint(folder: Path) -> str:
    """Which plan lies in a folder."""
    return str(_read_json(folder)["fingerprint"])


def _read_json(folder: Path) -> dict[str, Any]:
    file = folder / PLAN_FILE
    if not file.is_file():
        raise InputError(f"There is no plan in {folder}: it has no {PLAN_FILE}.")
    told: dict[str, Any] = json.loads(file.read_text())
    if told.get("format") != FORMAT:
        raise InputError(f"The plan in {folder} is of format {told.get('format')}, and this version reads {FORMAT}.")
    return told


def _reopened(name: str, options: Mapping[str, Any] | None) -> Source:
    from deepsentinel.sources import open_source

    if options is None:
        raise InputError(f"The plan was made from {name!r}, which cannot be opened by its name: give src=.")
    return open_source(name, **options)


def _opened(source: Source) -> dict[str, Any] | None:
    """The options with which `open_source` finds it again by its name; None for catalogs of the user's own."""
    from deepsentinel.sources import SOURCES

    if source.name not in SOURCES:
        return None
    seed, size_px = getattr(source, "seed", None), getattr(source, "size_px", None)
    return {"seed": seed, "size_px": size_px} if source.name == "demo" else {}
