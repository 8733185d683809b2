"""An optional cache on disk of the bytes that were read of far files: the second look at a patch needs no network.

What is kept is what was fetched: the header of a file, and each of its compressed blocks, by themselves, so that
patches that overlap share them. They are found by the file's address without its signature (a token that has changed
is no reason to fetch again), and blocks also by the version of the file (its ETag and length), so that those of two
versions never meet.

Several processes may use one folder: entries are written aside and renamed into place, read in one go, and carry a
checksum; what is damaged is thrown away. The folder is bounded, the least recently used goes first.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from deepsentinel.errors import InputError, SourceError, warn
from deepsentinel.files import atomic_path, cache_dir, trim_cache

if TYPE_CHECKING:
    from .engine.remote import Version

MAX_AGE_S = 30 * 24 * 3600.0
"""Services replace files under the same address; after so long a header is fetched again, and tells."""
TOUCH_S = 60.0
"""How precisely "least recently used" is meant: an entry's time is renewed at most so often."""
LEAST_GB = 0.1
_MAGIC = b"DSC1"
_HEAD = struct.Struct("<4sII")
# Shares of the bound: what is left after trimming, what is written between two looks, and the largest entry. They leave
# room for several processes that each write on their own account.
_TRIM_TO = 0.75
_TRIM_EVERY = 1 / 64
_LARGEST = 1 / 8
# How Azure, Amazon, Google and CloudFront name the parts of a signature. All else in a query may say which file is
# meant, and stays: two files must never pass for one.
_SIGNATURE = re.compile(
    r"(?i)(sv|st|se|sr|sp|si|ss|sip|spr|srt|sdd|ses|sig|skoid|sktid|skt|ske|sks|skv|saoid|suoid|scid|x-amz-.*|x-goog-.*|"
    r"awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id|access_token|token)"
)

# Without one of these there is no signature, and short names such as "sr" may well say which file is meant.
_SIGNED = re.compile(r"(?i)sig|signature|x-amz-signature|x-goog-signature|access_token|token")


def unsigned(href: str) -> str:
    """An address without what only signs it.

    >>> unsigned("https://a.org/B02.tif?sv=2021&sig=secret&versionId=7")
    'https://a.org/B02.tif?versionId=7'
    """
    parts = urlsplit(href)
    query = parse_qsl(parts.query, True)
    signed = any(_SIGNED.fullmatch(name) for name, _ in query)
    kept = sorted((name, value) for name, value in query if not (signed and _SIGNATURE.fullmatch(name)))
    host = parts.netloc.rpartition("@")[2].lower()
    return urlunsplit((parts.scheme.lower(), host, parts.path, urlencode(kept), ""))


class SceneCache:
    """A bounded folder of headers and blocks.

    >>> import tempfile
    >>> from deepsentinel.sources.engine.remote import Version
    >>> cache = SceneCache(tempfile.mkdtemp(), max_gb=1)
    >>> cache.keep_block("https://a.org/B02.tif?sig=one", Version("e", 9), 4, b"1234")
    >>> cache.block("https://a.org/B02.tif?sig=two", Version("e", 9), 4, 4)
    b'1234'
    """

    def __init__(self, folder: str | Path, max_gb: float = 10.0) -> None:
        self.folder = Path(folder).expanduser().absolute()
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"cache={str(folder)!r} is a file; give a folder, or True for the usual one.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SourceError(f"The cache folder {self.folder} cannot be made: {error}. Give another.") from error
        self.max_bytes = int(max_gb * 1e9)
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        # The first to write looks how full it is: who was there before may have left it full.
        self._written = self.max_bytes
        self._complained = False

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __repr__(self) -> str:
        return f"<SceneCache {self.folder}, up to {self.max_bytes / 1e9:g} GB>"

    # -- what the engine asks for --------------------------------------------------------------------------------------

    def header(self, href: str) -> tuple[bytes, Version] | None:
        """The beginning of a file, and which version of it; None if it was not kept, or long ago."""
        from .engine.remote import Version

        found = self._read(self._path(href, "header"))
        if found is None or not 0 <= time.time() - float(found[0].get("fetched_s", 0)) < MAX_AGE_S:
            return None
        return found[1], Version(str(found[0]["etag"]), int(found[0]["total"]))

    def keep_header(self, href: str, data: bytes, version: Version) -> None:
        """Keep the beginning of a file."""
        about = {"etag": version.etag, "total": version.total, "fetched_s": time.time()}
        self._write(self._path(href, "header"), about, data)

    def forget_header(self, href: str) -> None:
        """The file at this address is another one now."""
        with suppress(OSError):
            self._path(href, "header").unlink()

    def block(self, href: str, version: Version, first: int, count: int) -> bytes | None:
        """`count` bytes from `first` on, if they were kept as one."""
        found = self._read(self._path(href, f"{version.etag}\n{version.total}\n{first}"))
        return found[1] if found is not None and len(found[1]) == count else None

    def keep_block(self, href: str, version: Version, first: int, data: bytes) -> None:
        """Keep a block."""
        self._write(self._path(href, f"{version.etag}\n{version.total}\n{first}"), {}, data)

    # -- on disk -------------------------------------------------------------------------------------------------------

    def _path(self, href: str, what: str) -> Path:
        name = hashlib.sha256(f"{unsigned(href)}\n{what}".encode()).hexdigest()
        return self.folder / name[:2] / name[2:34]

    def _read(self, path: Path) -> tuple[dict[str, Any], bytes] | None:
        try:
            stored = path.read_bytes()
            if time.time() - path.stat().st_mtime > TOUCH_S:
                os.utime(path)
        except OSError:
            return None
        with suppress(struct.error, ValueError, TypeError):
            magic, length, checksum = _HEAD.unpack_from(stored)
            body = memoryview(stored)[_HEAD.size :]
            if magic == _MAGIC and zlib.crc32(body) == checksum:
                return json.loads(bytes(body[:length])), bytes(body[length:])
        with suppress(OSError):
            path.unlink()
        return None

    def _write(self, path: Path, about: dict[str, Any], data: bytes) -> None:
        told = json.dumps(about).encode()
        body = told + data
        stored = _HEAD.pack(_MAGIC, len(told), zlib.crc32(body)) + body
        if len(stored) > self.max_bytes * _LARGEST:
            return  # one that would push out many
        with self._lock:
            self._written += len(stored)
            trim = self._written > self.max_bytes * _TRIM_EVERY
            if trim:
                self._written = len(stored)
        try:
            if trim:
                trim_cache(list(self.folder.glob("[0-9a-f][0-9a-f]")), int(self.max_bytes * _TRIM_TO))
            with atomic_path(path, sync=False) as temporary:
                temporary.write_bytes(stored)
        except OSError as error:
            # Reading goes on without: a full disk is no reason to lose pixels that are here already.
            with self._lock:
                first, self._complained = not self._complained, True
            if first:
                warn(f"The cache {self.folder} cannot be written ({error}), so nothing more is kept. Make room there.")


def cache_of(cache: bool | str | Path | None, cache_gb: float) -> SceneCache | None:
    """The options `cache=` and `cache_gb=` of `open_source`, checked; `True` is the usual folder.

    >>> cache_of(None, 10) is None
    True
    """
    if isinstance(cache_gb, bool) or not isinstance(cache_gb, int | float) or not cache_gb >= LEAST_GB:
        raise InputError(
            f"cache_gb={cache_gb!r}: give how many GB the cache may take, such as 10 (at least {LEAST_GB})."
        )
    if cache is None or cache is False:
        return None
    if cache is True:
        return SceneCache(cache_dir("pixels"), cache_gb)
    if not isinstance(cache, str | Path) or not str(cache).strip():
        raise InputError(f"cache={cache!r}: give a folder, True for the usual one, or False for none.")
    return SceneCache(cache, cache_gb)
