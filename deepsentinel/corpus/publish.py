"""A corpus copied to where others can open it: a bucket of Amazon, Google or Azure, or another folder.

The file by which a corpus is known, its `zarr.json`, goes last: until then nobody can open half of it. Each object
carries the SHA-256 of its content, so that a copy that was cut goes on where it stopped, and a corpus that has changed
sends only what is new. A marker at the place says which corpus is on its way there; another one is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError, SourceError
from deepsentinel.files import TEMPORARY_PREFIX, atomic_path, write_bytes
from deepsentinel.progress import progress as bar

from .chunks import Chunks
from .layout import shard_path
from .remote import is_url, open_remote
from .table import arrow_table

if TYPE_CHECKING:
    import xarray as xr

COMMIT = "zarr.json"
TABLE = "samples.parquet"
PARTS = "parts"
MARKER = "publishing.json"
MANIFEST = "manifest.json"
WRITABLE = ("s3", "gs", "az", "memory")
CHUNK_BYTES = 1 << 20
# What each service says when nobody is let in, and how one gets in.
_REFUSED = (
    "169.254.169.254", "metadata", "token", "credential", "accessdenied", "invalidaccesskeyid", "signaturedoesnotmatch",
    "authenticationfailed", "authorizationfailure", "unauthenticated", "unauthorized", "forbidden", "401", "403",
)  # fmt: skip
_NO_BUCKET = ("nosuchbucket", "containernotfound", "bucket does not exist", "specified bucket", "specified container")
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or storage_options={'access_key_id': .., "
    "'secret_access_key': .., 'region': ..}",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account, or"
    " storage_options={'service_account_path': ..}",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or storage_options={'account_name': ..,"
    " 'account_key': ..}",
}


@dataclass(frozen=True)
class PublishReport:
    """What was sent, and what was there already."""

    url: str
    """Where the corpus is now; `open_corpus` opens it there."""
    files: int
    """How many files it has."""
    bytes: int
    """How large they are together."""
    sent: int
    """How many files were sent this time."""
    sent_bytes: int
    """How large those are together."""
    removed: int
    """Files of an earlier state of the corpus that were taken away."""

    def __str__(self) -> str:
        there = self.files - self.sent
        kept = f"; {there:,} were there already" if there else ""
        return f"{self.url}: sent {self.sent:,} of {self.files:,} files, {self.sent_bytes / 1e9:.3g} GB{kept}"


def publish(
    corpus: xr.Dataset | str | os.PathLike[str],
    url: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    resume: bool = True,
    overwrite: bool = False,
    threads: int = 8,
    progress: bool = True,
) -> PublishReport:
    """Copy a whole corpus to `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or another folder.

    Called again after a cut it sends what is missing; after `build_corpus(.., retry_failed=True)` what has changed.
    `resume=False` sends everything again. Where another corpus or anything else lies it stops, unless `overwrite=True`:
    then those files go whose folders the new corpus has too, and those that the other one's manifest lists.
    `storage_options` are those of `open_corpus`: credentials, region, endpoint; without them the environment tells.

    >>> import tempfile, geopandas as gpd, deepsentinel as ds
    >>> src = ds.open_source("demo", size_px=256)
    >>> points = gpd.GeoDataFrame(geometry=[src.area.geometry.centroid], crs="EPSG:4326")
    >>> plan = ds.plan_corpus(points, src, start="2018-06-01", end="2018-06-30", size_px=64)
    >>> path = tempfile.mkdtemp()
    >>> report = ds.build_corpus(plan, path + "/a.zarr", progress=False)
    >>> publish(path + "/a.zarr", path + "/b.zarr", progress=False).sent > 5  # or "s3://bucket/b.zarr"
    True
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads={threads!r} is not a number of threads; give 1 or more.")
    folder = _folder_of(corpus)
    files = _files(folder)
    target = _target(url, storage_options, folder)
    head = (folder / COMMIT).read_bytes()
    mine = hashlib.sha256(head).hexdigest()
    there = target.listing()
    theirs = _held(target, there)
    if theirs != mine:
        _check_free(target, there, theirs, overwrite)
        # First of all, so that nobody opens a mixture.
        target.remove(COMMIT)
    stale = _stale(target, there, {*files, MANIFEST}, other=theirs != mine)
    target.put(MARKER, json.dumps({"corpus": mine}).encode(), "")
    known = there if resume and theirs == mine else {}
    sums: dict[str, str] = {}
    sent: list[str] = []
    last = [name for name in (TABLE, COMMIT) if name in files]
    with ThreadPoolExecutor(threads) as pool:
        jobs: dict[Future[tuple[str, bool]], str] = {
            pool.submit(_send, target, path, name, known): name for name, path in files.items() if name not in last
        }
        try:
            done = as_completed(jobs)
            for job in bar(done, total=len(jobs), what="publishing", unit="file") if progress else done:
                sums[jobs[job]], was_sent = job.result()
                sent += [jobs[job]] if was_sent else []
        except BaseException as error:
            pool.shutdown(wait=True, cancel_futures=True)
            raise _stopped(error, target, len(sums), len(files)) from error
    try:
        for name in stale:
            target.remove(name)
        for name in last[:-1]:
            sums[name], was_sent = _send(target, files[name], name, known)
            sent += [name] if was_sent else []
        sums[COMMIT] = mine
        manifest = {name: {"bytes": files[name].stat().st_size, "sha256": sums[name]} for name in sorted(sums)}
        target.put(MANIFEST, json.dumps({"corpus": mine, "files": manifest}, indent=1).encode(), "")
        if known.get(COMMIT) != len(head) or target.sha256(COMMIT) != mine:
            target.put(COMMIT, head, mine)
            sent.append(COMMIT)
        target.remove(MARKER)
    except BaseException as error:
        raise _stopped(error, target, len(sums), len(files)) from error
    sizes = {name: path.stat().st_size for name, path in files.items()}
    return PublishReport(
        target.url, len(files), sum(sizes.values()), len(sent), sum(sizes[name] for name in sent), len(stale)
    )


def _folder_of(corpus: Any) -> Path:
    given = corpus
    if hasattr(corpus, "data_vars"):
        given = corpus.attrs.get("path")
        if given is None:
            raise InputError("This Dataset does not say which corpus it was opened from; give the path of its folder.")
    if is_url(given) or "://" in str(given):
        raise InputError(f"{given} lies elsewhere already; publish takes a corpus in a folder of this machine.")
    folder = Path(given).expanduser()
    if not (folder / COMMIT).is_file():
        raise InputError(f"{folder} is no corpus: it has no {COMMIT}. build_corpus makes one.")
    if not (folder / TABLE).is_file() or any((folder / PARTS).glob("*.parquet")):
        raise InputError(
            f"{folder} is not built to the end: its table of samples is not complete. Run build_corpus again with the"
            " same plan, which does what is missing, and then publish."
        )
    if hasattr(corpus, "data_vars"):
        _check_whole(corpus, folder)
    _check_shards(folder)
    return folder


def _check_shards(folder: Path) -> None:
    """What is not there reads as no data, so whoever gets the copy would not know."""
    store = Chunks(folder)
    built = np.asarray(arrow_table(store)["status"].to_pylist()) == "ok"
    for shard in range(store.layout.shards):
        members = store.layout.members(shard)
        for spec in store.layout.arrays:
            path = shard_path(folder, spec, shard)
            if built[members.start : members.stop].any() and not path.is_file():
                raise InputError(
                    f"{path} is missing, and samples {members[0]} to {members[-1]} were built. Run build_corpus again"
                    " with the same plan and labels and retry_failed=True, which does what is missing, then publish."
                )


def _check_whole(corpus: xr.Dataset, folder: Path) -> None:
    node = json.loads((folder / COMMIT).read_bytes())
    members = node.get("consolidated_metadata", {}).get("metadata", {})
    for name, variable in corpus.data_vars.items():
        held = members.get(name, {}).get("shape", [None])[0]
        if variable.dims[:1] == ("sample",) and held not in (None, variable.sizes["sample"]):
            raise InputError(
                f"This is a selection of {variable.sizes['sample']:,} of the {held:,} samples in {folder}, and publish"
                " copies whole corpora. Give the path to copy all of it, or plan and build a corpus of these samples."
            )


def _files(folder: Path) -> dict[str, Path]:
    """Every file of a corpus by its key, without what a builder left behind for itself."""
    found: dict[str, Path] = {}
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in sorted(names):
            path = Path(root, name)
            key = path.relative_to(folder).as_posix()
            if name[0] != "." and key not in (MARKER, MANIFEST):
                found[key] = path
    return found


def _held(target: _Target, there: Mapping[str, int]) -> str | None:
    """Which corpus is at a place, or on its way there; None where there is none."""
    if MARKER in there:
        with suppress(ValueError, KeyError, TypeError):
            return str(json.loads(target.get(MARKER))["corpus"])
        return "unknown"
    return hashlib.sha256(target.get(COMMIT)).hexdigest() if COMMIT in there else None


def _check_free(target: _Target, there: Mapping[str, int], theirs: str | None, overwrite: bool) -> None:
    if overwrite or not there:
        return
    if theirs is None:
        what = f"{target.url} is not empty: it holds {min(there)!r}"
    elif MARKER in there:
        what = f"Another corpus was on its way to {target.url} and has not arrived"
    else:
        what = f"{target.url} holds another corpus"
    raise InputError(f"{what}. Name a place of its own, or overwrite=True if what is there may go.")


def _stale(target: _Target, there: Mapping[str, int], new: set[str], *, other: bool) -> list[str]:
    """What would be taken for a part of the new corpus and is not, and what an older one left."""
    folders = {name.partition("/")[0] for name in new}
    listed: set[str] = set()
    if other and MANIFEST in there:
        with suppress(ValueError, KeyError, TypeError):
            listed = set(json.loads(target.get(MANIFEST))["files"])
    ours = {name for name in there if name in listed or name.partition("/")[0] in folders}
    return sorted(ours - new - {MARKER})


def _send(target: _Target, path: Path, name: str, known: Mapping[str, int]) -> tuple[str, bool]:
    """Send one file if it is not there as it is; its SHA-256, and whether it was sent."""
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            checksum.update(piece)
    wanted = checksum.hexdigest()
    if known.get(name) == path.stat().st_size and target.sha256(name) == wanted:
        return wanted, False
    target.put(name, path, wanted)
    return wanted, True


def _stopped(error: BaseException, target: _Target, done: int, total: int) -> BaseException:
    """What to say of a copy that did not come to its end."""
    if not isinstance(error, OSError) or isinstance(error, InputError):
        return error
    said = str(error) if isinstance(error, SourceError) else f"{target.url} cannot be written: {error}."
    return SourceError(
        f"{said} {done:,} of {total:,} files are there; call publish again with the same arguments, and it sends the"
        " rest."
    )


class _Target(ABC):
    """A place that files are sent to."""

    url: str

    @abstractmethod
    def listing(self) -> dict[str, int]:
        """The size of everything there."""

    @abstractmethod
    def get(self, name: str) -> bytes:
        """A whole file."""

    @abstractmethod
    def sha256(self, name: str) -> str | None:
        """The checksum of a file there; None where nobody knows."""

    @abstractmethod
    def put(self, name: str, content: bytes | Path, sha256: str) -> None:
        """Send a file, whole or not at all."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Take a file away, if it is there."""


class _Folder(_Target):
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.root = Path(path).expanduser().resolve()
        self.url = str(self.root)

    def listing(self) -> dict[str, int]:
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"{self.root} is a file; a corpus is a folder.")
        found = {
            Path(root, name).relative_to(self.root).as_posix(): Path(root, name).stat().st_size
            for root, _, names in os.walk(self.root)
            for name in names
        }
        return {name: size for name, size in found.items() if TEMPORARY_PREFIX not in name}

    def get(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def sha256(self, name: str) -> str | None:
        with (self.root / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def put(self, name: str, content: bytes | Path, sha256: str) -> None:
        if isinstance(content, bytes):
            write_bytes(self.root / name, content)
            return
        with atomic_path(self.root / name) as temporary, content.open("rb") as source, temporary.open("wb") as copy:
            while piece := source.read(CHUNK_BYTES):
                copy.write(piece)

    def remove(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)


class _Bucket(_Target):
    def __init__(self, url: str, storage_options: Mapping[str, Any] | None) -> None:
        self.url = url.rstrip("/")
        self.store = open_remote(self.url, storage_options)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise SourceError(self._explained(error)) from error

    def listing(self) -> dict[str, int]:
        with self._told():
            return {entry["path"]: entry["size"] for page in self.store.list() for entry in page}

    def get(self, name: str) -> bytes:
        with self._told():
            return bytes(self.store.get(name).bytes())

    def sha256(self, name: str) -> str | None:
        with self._told():
            found = self.store.get(name, options={"head": True}).attributes
        return {str(key).lower(): str(value) for key, value in found.items()}.get("sha256")

    def put(self, name: str, content: bytes | Path, sha256: str) -> None:
        with self._told():
            self.store.put(name, content, attributes={"sha256": sha256} if sha256 else None)

    def remove(self, name: str) -> None:
        with self._told(), suppress(FileNotFoundError):
            self.store.delete(name)

    def _explained(self, error: Exception) -> str:
        """The services' answers are pages of XML; what they come down to is one of three things."""
        scheme = self.url.partition("://")[0]
        text = str(error)
        low = text.lower()
        bucket = self.url.partition("://")[2].partition("/")[0]
        if any(word in low for word in _NO_BUCKET):
            return f"There is no bucket {bucket!r} for {self.url}; make it first, where you have an account."
        if scheme in _CREDENTIALS and any(word in low for word in _REFUSED):
            return f"{self.url} did not let us write: credentials are missing or not enough. {_CREDENTIALS[scheme]}."
        first = next((line.strip() for line in text.splitlines() if line.strip()), repr(error))
        return f"{self.url} cannot be written: {first[:300].rstrip('.')}."


def _target(url: Any, storage_options: Mapping[str, Any] | None, folder: Path) -> _Target:
    if is_url(url):
        scheme = str(url).partition("://")[0]
        if scheme not in WRITABLE:
            raise InputError(f"{url} cannot be written to; publish to s3://, gs://, az:// or a folder.")
        return _Bucket(str(url), storage_options)
    if "://" in str(url):
        raise InputError(f"{url} is no address that is known; publish to s3://, gs://, az:// or a folder.")
    if storage_options:
        raise InputError(f"storage_options= are for buckets, and {url} is a folder here.")
    place = _Folder(url)
    here = folder.resolve()
    if place.root == here or here in place.root.parents or place.root in here.parents:
        raise InputError(f"{url} is the corpus itself, or lies in it or around it; name a folder of its own.")
    return place
