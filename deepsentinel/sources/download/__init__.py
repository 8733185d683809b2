"""`ds.download`: the products behind chosen scenes, whole, on the user's own disk, where `ds.open_source` reads them.

A thin layer on EODAG, which knows the providers and who may enter (`provider`). Ours are: which product a scene is
(`names`), what is there already (`folder`, `placing`), files that go on where they were cut (`transfer`), and
everything at once (`work`).
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from deepsentinel.errors import InputError, NothingFoundError, SourceError, warn
from deepsentinel.progress import asked
from deepsentinel.progress import progress as bar
from deepsentinel.sources.safe.sea import land_share

from .folder import Folder
from .names import Wanted, remark, wanted_from
from .provider import TYPICAL_BYTES, Product, Provider
from .work import NOT_COME_TO, Crew, Job, Meter

if TYPE_CHECKING:
    import geopandas as gpd

STATUSES = {
    "downloaded": "came now, and is whole",
    "present": "was there already",
    "planned": "would be downloaded (dry_run=True)",
    "ordered": "is being fetched from the provider's archive; call again",
    "stopped": "was stopped; call again, and it goes on",
    "missing": "the provider has no such product",
    "failed": "could not be had; the note says why",
}
# Of all connections together, until some product has shown how fast it is here.
ASSUMED_BYTES_PER_S = 10e6
LAND = 0.1
SHOWN = 3


def download(
    scenes: Any,
    folder: str | os.PathLike[str],
    provider: str = "cop_dataspace",
    *,
    sensors: Sequence[str] = ("S1", "S2"),
    dry_run: bool = False,
    extract: bool = False,
    checksum: bool = True,
    wait_minutes: float = 10,
    threads: int | None = None,
    progress: bool = True,
    stop: Any = None,
) -> gpd.GeoDataFrame:
    """Bring the original products of scenes into a folder, which `ds.open_source(folder)` then reads.

    It can be killed at any time and called again: what is there is not downloaded twice, what was cut goes on where it
    was (if the provider's server can), and what was ordered from the archive is asked after, not ordered again. One
    product that cannot be had does not stop the others.

    Parameters
    ----------
    scenes
        A table of scenes (`src.search`, `ds.select`) or of pairs (`ds.pair`), or a row of one. It may come from any
        catalog of real Sentinel data: a scene is turned into its product by satellite, time and tile.
    folder
        Where products go, one zip each. What is under way is kept in `.downloads` below it.
    provider
        Whom to ask, as EODAG calls them: `cop_dataspace`, `cop_dataspace_s3`, `creodias`, `geodes`, `dedl`,
        `wekeo_main` .. Sign in by EODAG's own configuration: for `cop_dataspace` set
        `EODAG__COP_DATASPACE__AUTH__CREDENTIALS__USERNAME` and `__PASSWORD`, or write `~/.config/eodag/eodag.yml`.
    sensors
        Of pairs, or of a table of both sensors, which to bring.
    dry_run
        Bring nothing, but find the products and say how large they are and how long they would take:
        `table.attrs["estimate"]`. The same is looked at before every download; a disk too small is told of then.
    extract
        Unpack products into `.SAFE` folders. Zipped ones are read as well, a little more slowly.
    checksum
        Compare what came with the provider's checksum. Without one, or with False, the sums in the archive are
        compared, which find damage but no mix-up. Products that lie file by file in a bucket are compared with the
        checksums that their own manifest lists; with False, by how many bytes were announced.
    wait_minutes
        How long to wait for what must be fetched from the archive first. It may take hours: then call again.
    threads
        How many products at once; None for as many as the provider likes (four).
    progress, stop
        A bar of all bytes; a function or a `threading.Event` that ends it as Ctrl-C does.

    Returns
    -------
    GeoDataFrame
        A row a scene: `scene_id, sensor, product, status, path, bytes, note, time, geometry`; the statuses are
        explained in `deepsentinel.sources.download.STATUSES`. `attrs["estimate"]` says in a line what there was to do.

    Of Sentinel-1 there are GRD products to download, which can be read over sea. Over land read Sentinel-1 from
    "planetary-computer".

        best = ds.select(scenes, aoi=aoi, n=12)
        ds.download(best, "products", dry_run=True).attrs["estimate"]
        ds.download(best, "products")
        src = ds.open_source("products")

    >>> import deepsentinel as ds
    >>> src = ds.open_source("demo", size_px=256)
    >>> download(src.search(src.area, "2018-06-01", "2018-06-02"), "products")
    Traceback (most recent call last):
    ...
    deepsentinel.errors.InputError: These scenes are of the demo world, which is imaginary: ...
    """
    wanted = _wanted(scenes, sensors)
    shelf = Folder(folder)
    if isinstance(wait_minutes, bool) or not isinstance(wait_minutes, int | float) or not wait_minutes >= 0:
        raise InputError(f"wait_minutes={wait_minutes!r}: a number of minutes is meant, 0 or more.")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads={threads!r}: give 1 or more, or None for as many as the provider likes.")
    wants_stop = asked(stop)
    jobs = {one.scene_id: job for one in wanted if (job := _there(one, shelf, provider)) is not None}
    unknown = [one for one in wanted if one.scene_id not in jobs]
    service = Provider(str(provider)) if unknown else None
    if service is not None:
        jobs |= _look_up(unknown, service, shelf, progress, wants_stop)
    todo = [job for job in dict.fromkeys(jobs[one.scene_id] for one in wanted) if job.status == "planned"]
    estimate = _estimate(todo, jobs, shelf, str(provider), threads or (service.most_connections if service else 1))
    if todo and not dry_run and wants_stop():
        for job in todo:
            job.is_now("stopped", NOT_COME_TO)
    elif todo and not dry_run:
        assert service is not None
        shelf.make()
        _check_room(todo, shelf, extract, threads or service.most_connections)
        _warn_of_land(wanted, jobs)
        assert todo[0].product is not None
        service.key(todo[0].product)  # whoever is not signed in had better know before anything
        crew = Crew(
            shelf,
            service,
            threads=threads or service.most_connections,
            extract=bool(extract),
            checksum=bool(checksum),
            wait_s=60.0 * wait_minutes,
            stop=wants_stop,
        )
        meter = Meter(sum(map(_size, todo)), sum(_there_bytes(job, shelf) for job in todo), estimate, progress)
        try:
            crew.run(todo, meter)
        finally:
            meter.close()
    table = _table(wanted, jobs)
    table.attrs = {"estimate": estimate, "provider": str(provider), "folder": str(shelf.path)}
    _tell(table)
    return table


def _wanted(scenes: Any, sensors: Sequence[str]) -> list[Wanted]:
    if isinstance(sensors, str) or not sensors or not set(sensors) <= {"S1", "S2"}:
        raise InputError(f"sensors={sensors!r}: give ('S1', 'S2'), ('S1',) or ('S2',).")
    if getattr(scenes, "attrs", {}).get("source") == "demo":
        raise InputError(
            "These scenes are of the demo world, which is imaginary: nobody keeps products of them. Search "
            "'planetary-computer', 'earth-search' or 'cdse', which need no account to be searched."
        )
    wanted = wanted_from(scenes, tuple(sensors))
    if not wanted:
        raise NothingFoundError(
            f"There is nothing to download: the table has {len(scenes)} rows, and no scene of {' or '.join(sensors)}. "
            "Search a longer period or with a higher max_cloud."
        )
    return wanted


def _there(one: Wanted, shelf: Folder, provider: str) -> Job | None:
    """A job that is done, where an earlier call brought the product of the scene."""
    for name in (one.scene_id.removesuffix(".SAFE"), shelf.product_of(one.scene_id, provider)):
        if name is not None and one.fits(name) and (path := shelf.present(name)) is not None:
            size = shelf.note(name).get("bytes") or (path.stat().st_size if path.is_file() else None)
            return Job(name, scenes=(one.scene_id,), status="present", path=path, size=size)
    return None


def _look_up(
    wanted: Sequence[Wanted], service: Provider, shelf: Folder, shown: bool, stop: Callable[[], bool]
) -> dict[str, Job]:
    """The product of each scene, or why there is none."""
    jobs: dict[str, Job] = {}
    by_name: dict[str, Job] = {}
    found: Iterable[tuple[Wanted, Product | SourceError | None]] = service.find(wanted, stop)
    if shown:
        found = bar(found, total=len(wanted), what=f"asking {service.name}", unit="scene")
    for one, product in found:
        if product is None:
            note = f"{service.name} has no {one.level} of {one.time:%Y-%m-%d %H:%M} UTC that this could be"
            jobs[one.scene_id] = Job("", status="missing", note=note)
        elif isinstance(product, SourceError):
            jobs[one.scene_id] = Job("", status="failed", note=str(product))
        else:
            job = by_name.setdefault(product.name, Job(product.name, product, size=product.size))
            job.scenes = (*job.scenes, one.scene_id)
            job.remark = remark(one, product.name)
            if (path := shelf.present(product.name)) is not None:
                job.is_now("present", path=path)
            jobs[one.scene_id] = job
    # Those that nothing came for: it was stopped before they were asked about.
    return {one.scene_id: Job("", status="stopped", note=NOT_COME_TO) for one in wanted} | jobs


# -- what it will cost -------------------------------------------------------------------------------------------------


def _size(job: Job) -> int:
    """Bytes of a product, as the provider says or as such products usually have."""
    assert job.product is not None
    return job.size or next(size for level, size in TYPICAL_BYTES.items() if level in job.name)


def _there_bytes(job: Job, shelf: Folder) -> int:
    part = shelf.part(job.name)
    return part.stat().st_size if part.is_file() else 0


def _estimate(todo: Sequence[Job], jobs: dict[str, Job], shelf: Folder, provider: str, threads: int) -> str:
    """What there is to do, in a line."""
    there = len({job.name for job in jobs.values() if job.status == "present"})
    kept = f"; {there} there already" if there else ""
    lost = [job for job in jobs.values() if job.status in ("failed", "missing", "stopped")]
    if lost:
        kinds = Counter(job.status for job in lost)
        told = {"failed": "could not be looked up", "missing": f"not at {provider}", "stopped": "not looked up"}
        kept += "".join(f"; {count} scene{'s' if count > 1 else ''} {told[kind]}" for kind, count in kinds.items())
        kept += f" ({lost[0].note.rstrip('.')})"
    if not todo:
        return f"nothing {'was found ' if lost else ''}to download{kept}"
    left = sum(max(0, _size(job) - _there_bytes(job, shelf)) for job in todo)
    guessed = sum(job.size is None for job in todo)
    known = shelf.rate(provider)
    rate = known * min(threads, len(todo)) if known else ASSUMED_BYTES_PER_S
    offline = sum(job.product is not None and not job.product.is_online for job in todo)
    words = [
        f"{len(todo)} product{'s' if len(todo) != 1 else ''}, {_words_of_bytes(left)}",
        f"about {_words_of_time(left / rate)} at {rate / 1e6:.3g} MB/s ({'as before' if known else 'assumed'})",
    ]
    if guessed:
        words.append(f"{guessed} of unknown size, taken as usual")
    if offline:
        words.append(f"{offline} from the archive first, which may take hours")
    return ", ".join(words) + kept


def _words_of_bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _words_of_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _check_room(todo: Sequence[Job], shelf: Folder, extract: bool, threads: int) -> None:
    need = sum(max(0, _size(job) - _there_bytes(job, shelf)) for job in todo)
    # While one is unpacked, it is there twice; each thread may be at it.
    need += sum(sorted(map(_size, todo))[-threads:]) if extract else 0
    free = shutil.disk_usage(shelf.path).free
    if need > free:
        raise InputError(
            f"The products need {_words_of_bytes(need)}, and {shelf.path} has {_words_of_bytes(free)} left. Choose "
            "fewer (ds.select(..., n=4)), or a folder on another disk."
        )


def _warn_of_land(wanted: Sequence[Wanted], jobs: dict[str, Job]) -> None:
    radar = [one for one in wanted if one.sensor == "S1" and jobs[one.scene_id].status == "planned"]
    on_land = [one for one in radar if land_share(one.geometry) > LAND]
    if on_land:
        warn(
            f"{len(on_land)} of {len(radar)} Sentinel-1 products show land. They are GRD, which can be placed over sea "
            "only: over land ds.open_source refuses them. Read Sentinel-1 from 'planetary-computer' there, and leave "
            "it out here with sensors=('S2',)."
        )


# -- what came of it ---------------------------------------------------------------------------------------------------


def _table(wanted: Sequence[Wanted], jobs: dict[str, Job]) -> gpd.GeoDataFrame:
    import geopandas as gpd

    rows = [(one, jobs[one.scene_id]) for one in wanted]
    frame = pd.DataFrame(
        {
            "scene_id": pd.Series([one.scene_id for one, _ in rows], dtype="object"),
            "sensor": pd.Series([one.sensor for one, _ in rows], dtype="object"),
            "product": pd.Series([job.name or None for _, job in rows], dtype="object"),
            "status": pd.Series([job.status for _, job in rows], dtype="object"),
            "path": pd.Series([str(job.path) if job.path else None for _, job in rows], dtype="object"),
            "bytes": pd.Series([job.size for _, job in rows], dtype="Int64"),
            "note": pd.Series([_note(job) for _, job in rows], dtype="object"),
            "time": pd.to_datetime(pd.Series([one.time for one, _ in rows]), utc=True).dt.as_unit("ns"),
        }
    )
    shapes = [job.product.geometry if job.product and job.product.geometry else one.geometry for one, job in rows]
    return gpd.GeoDataFrame(frame, geometry=gpd.GeoSeries(shapes, crs="EPSG:4326"), crs="EPSG:4326")


def _note(job: Job) -> str:
    return "; ".join(part for part in (job.remark, job.note) if part)


def _tell(table: gpd.GeoDataFrame) -> None:
    """Nobody should have to look for what did not come."""
    short = table[table["status"].isin(["missing", "failed", "ordered"])]
    if len(short):
        rows = [f"{row['scene_id']} is {row['status']} ({row['note']})" for _, row in short.head(SHOWN).iterrows()]
        more = f"; and {len(short) - SHOWN} more" if len(short) > SHOWN else ""
        warn(f"{len(short)} of {len(table)} scenes did not come: {'; '.join(rows)}{more}.")
