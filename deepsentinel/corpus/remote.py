"""Where the files of a corpus are: a folder here, or a bucket reached through obstore; read with the same verbs."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from deepsentinel.errors import InputError, ReadError, SourceError

SCHEMES = ("s3", "gs", "az", "https", "http", "memory")
# Without these an unreachable service is tried for three minutes before anybody hears of it.
RETRY = {"max_retries": 4}
# Options may hold passwords, so they are not written into a Dataset's attributes; a corpus that was opened with them
# is found again by its address for as long as this process lives.
_OPTIONS: dict[str, dict[str, Any]] = {}
# The process that obstore's threads run in; in a fork of it they are missing, and a call there would crash.
_RUNS_IN: list[int] = []


def is_url(path: Any) -> bool:
    """Whether this is the address of a store elsewhere.

    >>> is_url("s3://bucket/corpus.zarr"), is_url("corpus.zarr")
    (True, False)
    """
    return isinstance(path, str) and path.partition("://")[0] in SCHEMES and "://" in path


def open_remote(url: str, storage_options: Mapping[str, Any] | None = None) -> Any:
    """An obstore store whose keys begin below the address; `memory://name` is one for each name and process.

    >>> open_remote("memory://docs") is open_remote("memory://docs")
    True
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise InputError(f"To reach {url} obstore is needed: pip install 'deepsentinel[cloud]'") from error
    _check_process(url)
    options = dict(storage_options or {})
    if url.startswith("memory://"):
        if options:
            raise InputError(f"{url} lies in memory and takes no storage_options, but got {', '.join(options)}.")
        return _in_memory(url.rstrip("/"))
    # Who writes http:// means it.
    if any(str(value).startswith("http://") for value in (url, *options.values())):
        options["client_options"] = {"allow_http": True, **options.get("client_options", {})}
    try:
        return from_url(url.rstrip("/"), **{"retry_config": RETRY, **options})
    except (BaseError, ValueError, TypeError) as error:
        said = str(error).split("\n")[0]
        raise InputError(
            f"{url} cannot be opened: {said}. storage_options= takes what obstore takes, such as region, endpoint,"
            " account_name, skip_signature=True for public data."
        ) from error


def _check_process(url: str) -> None:
    if _RUNS_IN and _RUNS_IN[0] != os.getpid():
        raise InputError(
            f"{url} cannot be reached from a process that was forked from one that had already opened an address. Start"
            " it afresh: deepsentinel.tensors.loader does, a DataLoader does with multiprocessing_context='spawn'."
        )
    _RUNS_IN[:] = [os.getpid()]


@cache
def _troubles() -> tuple[type[Exception], ...]:
    from obstore.exceptions import BaseError

    return BaseError, OSError, ValueError


@cache
def _in_memory(url: str) -> Any:
    from obstore.store import MemoryStore

    return MemoryStore()


class Place(ABC):
    """The files below one address."""

    path: str
    """The folder or address, in full."""

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """A whole file; None where there is none."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """The keys of the files in a folder, sorted."""

    @abstractmethod
    def tail(self, key: str, size: int) -> tuple[bytes, int] | None:
        """The last bytes of a file and its length; None where there is no file."""

    @abstractmethod
    def ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[Any]:
        """Some pieces of a file."""


class Folder(Place):
    """A folder of this machine."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(Path(path).expanduser().resolve())

    def get(self, key: str) -> bytes | None:
        """A whole file; None where there is none."""
        try:
            return Path(self.path, key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ReadError(f"{self.path}/{key} cannot be read: {error}.") from error

    def names(self, folder: str) -> list[str]:
        """The keys of the files in a folder, sorted."""
        with suppress(FileNotFoundError):
            return sorted(f"{folder}/{file.name}" for file in Path(self.path, folder).iterdir() if file.name[0] != ".")
        return []

    def tail(self, key: str, size: int) -> tuple[bytes, int] | None:
        """The last bytes of a file and its length; None where there is no file."""
        try:
            with Path(self.path, key).open("rb", buffering=0) as file:
                length = os.fstat(file.fileno()).st_size
                file.seek(max(0, length - size))
                return file.read(size), length
        except (FileNotFoundError, NotADirectoryError):
            return None

    def ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[Any]:
        """Some pieces of a file."""
        found = []
        with Path(self.path, key).open("rb", buffering=0) as file:
            for start, length in zip(starts, lengths, strict=True):
                file.seek(start)
                found.append(file.read(length))
        return found


class Bucket(Place):
    """A store elsewhere."""

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.path = url.rstrip("/")
        if storage_options:
            _OPTIONS[self.path] = dict(storage_options)
        self.options = _OPTIONS.get(self.path, {})
        self._store: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "options": self.options, "_store": None}

    @property
    def store(self) -> Any:
        """The obstore store, opened on first use."""
        _check_process(self.path)
        if self._store is None:
            self._store = open_remote(self.path, self.options)
        return self._store

    @contextmanager
    def _asked(self, key: str) -> Iterator[Any]:
        """The store, for one question; what cannot be answered is an error of ours that names the file."""
        store = self.store
        try:
            yield store
        except FileNotFoundError:
            raise
        except _troubles() as error:
            said = (str(error) or repr(error)).splitlines()[0]
            raise SourceError(f"{self.path}/{key} cannot be reached: {said}.") from error

    def get(self, key: str) -> bytes | None:
        """A whole file; None where there is none."""
        with suppress(FileNotFoundError), self._asked(key) as store:
            return bytes(store.get(key).bytes())
        return None

    def names(self, folder: str) -> list[str]:
        """The keys of the files in a folder, sorted."""
        if self.path.startswith("http"):  # web servers list nothing; what lies there is finished
            return []
        with self._asked(folder) as store:
            return sorted(entry["path"] for page in store.list(f"{folder}/") for entry in page)

    def tail(self, key: str, size: int) -> tuple[bytes, int] | None:
        """The last bytes of a file and its length; None where there is no file."""
        with suppress(FileNotFoundError), self._asked(key) as store:
            if self.path.startswith("az:"):  # Azure knows no ranges from the end
                length = int(store.head(key)["size"])
                return bytes(store.get_range(key, start=max(0, length - size), end=length)), length
            found = store.get(key, options={"range": {"suffix": size}})
            return bytes(found.bytes()), int(found.meta["size"])
        return None

    def ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[Any]:
        """Some pieces of a file."""
        with self._asked(key) as store:
            return list(store.get_ranges(key, starts=list(starts), lengths=list(lengths)))


def place_of(path: Any, storage_options: Mapping[str, Any] | None = None) -> Place:
    """The folder or bucket that a path or an address names.

    >>> type(place_of("corpus.zarr")).__name__
    'Folder'
    """
    if is_url(path):
        return Bucket(path, storage_options)
    if storage_options:
        raise InputError(f"storage_options= are for stores elsewhere, and {path} is a folder here.")
    if not isinstance(path, str | os.PathLike) or "://" in str(path):
        raise InputError(
            f"{path!r} is neither a folder nor an address; addresses begin with"
            f" {', '.join(f'{scheme}://' for scheme in SCHEMES)}."
        )
    return Folder(path)
