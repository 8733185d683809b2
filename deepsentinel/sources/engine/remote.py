"""Cloud-optimised GeoTIFFs over HTTP: the header in one request, then exactly the bytes that are wanted.

GDAL reads such files too, but asks for 16 kB pages as it goes, and how many requests a window costs depends on a dozen
settings that are global to the process. Here a file's header is fetched and parsed just far enough to know where its
blocks lie; the wanted blocks are fetched, neighbours in one range; and GDAL is handed a small file in memory, made of
the real header with the offsets of the fetched blocks put right and all others marked as absent. So every compression,
predictor and tag that GDAL knows works, and each byte is asked for once. A file that is laid out otherwise (its
directory at the end, JPEG 2000) says `NotLaidOut`, and the caller leaves it to GDAL.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deepsentinel.errors import ReadError
from deepsentinel.sources.web import BUSY, MAX_WAIT_S, asked_wait_s, shown

if TYPE_CHECKING:
    import requests

HEADER_BYTES = 32 * 1024  # holds the directory of a whole Sentinel scene; 2 % of one of its blocks
HEADER_LIMIT = 8 * 1024 * 1024  # a directory that reaches further is not laid out for the cloud
GAP_BYTES = 4 * 1024  # ranges this near are one: a request costs more than these bytes
WHOLE_LIMIT = 512 * 1024 * 1024  # a server that ignores ranges sends whole files; beyond this that is refused
TIMEOUT_S = (10.0, 60.0)  # to connect; between bytes
TRIES = 5
BACKOFF_S = 0.5  # doubles with each try

ADVICE = {
    401: "it needs credentials: check the account or key of this source",
    403: "access is refused: a signed link may have expired (search or resolve again), or it needs an account",
    404: "it is not there: the catalog lists a file its host no longer has; leave this scene out or search again",
    409: "public access is not permitted: the link must be signed",
    410: "it is gone: leave this scene out or search again",
}


class NotLaidOut(Exception):
    """Not a tiled TIFF whose directory comes first: for GDAL to read."""


_sessions: dict[int, requests.Session] = {}
_sessions_lock = threading.Lock()


def _session() -> requests.Session:
    """One pool of kept-alive connections for the process (a forked child starts its own)."""
    with _sessions_lock:
        if os.getpid() not in _sessions:
            import requests
            from requests.adapters import HTTPAdapter

            session = requests.Session()
            session.headers["Accept-Encoding"] = "identity"
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(pool_connections=16, pool_maxsize=64))
            _sessions.clear()
            _sessions[os.getpid()] = session
        return _sessions[os.getpid()]


@dataclass(frozen=True)
class Bytes:
    """What a server sent."""

    data: bytes
    whole: bool
    """The server ignored the range and sent the file from its first byte."""
    href: str
    """Where it was found in the end, after redirections."""


def fetch_range(href: str, first: int, count: int) -> Bytes:
    """`count` bytes from `first` on; fewer where the file ends."""
    import requests

    trouble, waited = "", 0.0
    secret = href.partition("?")[2] or "?"
    for attempt in range(TRIES):
        answer = None
        try:
            answer = _session().get(
                href, headers={"Range": f"bytes={first}-{first + count - 1}"}, timeout=TIMEOUT_S, stream=True
            )
            with answer:
                if answer.status_code == 206:
                    data = answer.content
                    if len(data) < min(count, int(answer.headers.get("Content-Length", count))):
                        raise requests.ConnectionError("the answer was cut short")
                    return Bytes(data, False, answer.url)
                if answer.status_code == 200:
                    if int(answer.headers.get("Content-Length", 0)) > WHOLE_LIMIT:
                        raise ReadError(
                            f"{shown(href)} cannot be read in parts: its server ignores range requests, and it is "
                            f"larger than {WHOLE_LIMIT >> 20} MB. Download it and give its path."
                        )
                    return Bytes(answer.content, True, answer.url)
                if answer.status_code == 416:  # nothing there: the file ends before
                    return Bytes(b"", False, answer.url)
                trouble = f"HTTP {answer.status_code}"
                if answer.status_code not in BUSY:
                    advice = ADVICE.get(answer.status_code, "check the link, or leave this scene out")
                    raise ReadError(f"{shown(href)} cannot be read (HTTP {answer.status_code}): {advice}.")
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as exc:
            trouble = str(exc).replace(secret, "")
        except requests.RequestException as exc:
            raise ReadError(f"{shown(href)} cannot be read: {type(exc).__name__}. Check the link.") from exc
        pause = asked_wait_s(
            answer.headers.get("Retry-After") if answer is not None else None, BACKOFF_S * 2.0**attempt
        )
        if attempt + 1 == TRIES or pause > MAX_WAIT_S:
            break
        time.sleep(pause)
        waited += pause
    asked = f"; it asks to wait {pause:.0f} s" if pause > MAX_WAIT_S else ""
    raise ReadError(
        f"{shown(href)} cannot be read: {attempt + 1} tries in {waited:.0f} s ended with {trouble}{asked}. "
        "Check the network, or try again later with fewer threads."
    )


@dataclass
class _Directory:
    """Where one image of the file (the full one or an overview) keeps its blocks."""

    at: int
    """Where in the header it starts."""
    next_at: int
    """Where in the header the position of the next directory stands."""
    next_ifd: int
    tags: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """tag: (type, number of values, position of the values)."""
    offsets: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()


# TIFF field types: their struct letter. The rest (bytes, text, ratios, floats) is only measured.
_LETTERS = {3: "H", 4: "I", 16: "Q"}
_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_SUBFILE, _WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES = 254, 256, 257, 322, 323, 324, 325


class RemoteTiff:
    """The header of one TIFF on a server, and its blocks on request.

    `read(first, count)` returns bytes of the file; the default asks a server. Safe to use from several threads after
    `__init__`.
    """

    def __init__(self, href: str, *, overviews: bool, read: Callable[[int, int], bytes] | None = None) -> None:
        self.href = self._found_at = href
        self._read = read or self._fetch
        self._whole: bytes | None = None
        self._head = b""
        self._need(0, HEADER_BYTES, at_least=16)
        order = {b"II": "<", b"MM": ">"}.get(self._head[:2])
        version = struct.unpack_from(f"{order}H", self._head, 2)[0] if order else 0
        if order is None or version not in (42, 43):
            raise NotLaidOut
        self._order, self._big = order, version == 43
        at = self._value(8 if self._big else 4, "Q" if self._big else "I")
        self.directories = [self._directory(at)]
        if overviews:
            while at := self.directories[-1].next_ifd:
                self.directories.append(self._directory(at))
        # Masks are directories too; an overview is a reduced image that is not one.
        kinds = [self._one(d, _SUBFILE, 0) for d in self.directories]
        self.levels = [self.directories[0], *(d for d, kind in zip(self.directories, kinds, strict=True) if kind == 1)]

    def _fetch(self, first: int, count: int) -> bytes:
        if self._whole is None:
            answer = fetch_range(self._found_at, first, count)
            self._found_at = answer.href
            if not answer.whole:
                return answer.data
            self._whole = answer.data
        return self._whole[first : first + count]

    def _need(self, first: int, count: int, at_least: int | None = None) -> None:
        """Make sure that the header is known up to first + count."""
        end = first + count
        if end <= len(self._head):
            return
        if end > HEADER_LIMIT:
            raise NotLaidOut
        more = max(HEADER_BYTES, end - len(self._head))
        self._head += self._read(len(self._head), more)
        if len(self._head) < (first + at_least if at_least else end):
            raise ReadError(
                f"{shown(self.href)} cannot be read: it ends after {len(self._head)} bytes, inside its header. It is "
                "truncated: fetch or publish it again, or leave this scene out."
            )

    def _value(self, at: int, letter: str) -> int:
        size = struct.calcsize(letter)
        self._need(at, size)
        return int(struct.unpack_from(self._order + letter, self._head, at)[0])

    def _directory(self, at: int) -> _Directory:
        count_letter, entry_bytes, inline = ("Q", 20, 8) if self._big else ("H", 12, 4)
        number = self._value(at, count_letter)
        start = at + struct.calcsize(count_letter)
        if number > 4096:
            raise NotLaidOut
        self._need(start, number * entry_bytes + inline)
        next_at = start + number * entry_bytes
        directory = _Directory(at, next_at, self._value(next_at, "Q" if self._big else "I"))
        for entry in range(start, next_at, entry_bytes):
            tag, kind = struct.unpack_from(self._order + "HH", self._head, entry)
            count = self._value(entry + 4, "Q" if self._big else "I")
            values_at = entry + entry_bytes - inline
            length = _WIDTHS.get(kind, 1) * count
            if length > inline:
                values_at = self._value(values_at, "Q" if self._big else "I")
                self._need(values_at, length)
            directory.tags[tag] = (kind, count, values_at)
        directory.offsets = self._values(directory, _TILE_OFFSETS)
        directory.sizes = self._values(directory, _TILE_SIZES)
        if not directory.offsets or len(directory.offsets) != len(directory.sizes):
            raise NotLaidOut
        return directory

    def _values(self, directory: _Directory, tag: int) -> tuple[int, ...]:
        kind, count, at = directory.tags.get(tag, (0, 0, 0))
        if kind not in _LETTERS:
            return ()
        return struct.unpack_from(f"{self._order}{count}{_LETTERS[kind]}", self._head, at)

    def _one(self, directory: _Directory, tag: int, default: int) -> int:
        values = self._values(directory, tag)
        return int(values[0]) if values else default

    def shape(self, level: int) -> tuple[int, int]:
        """Rows and columns of a level."""
        directory = self.levels[level]
        return self._one(directory, _HEIGHT, 0), self._one(directory, _WIDTH, 0)

    def block_shape(self, level: int) -> tuple[int, int]:
        """Rows and columns of a block."""
        directory = self.levels[level]
        return self._one(directory, _TILE_HEIGHT, 0), self._one(directory, _TILE_WIDTH, 0)

    def batches(self, level: int, blocks: Iterable[int], most_bytes: int) -> list[list[int]]:
        """Blocks in the order they lie in the file, cut where a batch exceeds `most_bytes`."""
        directory = self.levels[level]
        cut: list[list[int]] = []
        held = most_bytes
        for block in sorted(blocks, key=directory.offsets.__getitem__):
            if held >= most_bytes:
                cut.append([])
                held = 0
            cut[-1].append(block)
            held += directory.sizes[block]
        return cut

    def file_with(self, level: int, blocks: Iterable[int] = ()) -> tuple[bytes, set[int]]:
        """A TIFF with the given blocks of one level (numbered as in the file) and no others; an overview is its first.

        Also the blocks that are missing from it because the file ends before them: it is truncated.
        """
        directory = self.levels[level]
        head = bytearray(self._head)
        # GDAL's notes on the layout promise things (sizes before blocks, order) that no longer hold.
        head = head.replace(b"GDAL_STRUCTURAL_METADATA_SIZE=", b"-" * 30, 1)
        letter = "Q" if self._big else "I"
        if level:  # the full image stays in front, empty: it carries the georeferencing
            struct.pack_into(self._order + letter, head, self.levels[0].next_at, directory.at)
        struct.pack_into(self._order + letter, head, directory.next_at, 0)
        parts, end, lost = [], len(head), set()
        offsets, sizes = [0] * len(directory.offsets), [0] * len(directory.sizes)
        for first, count, members in self._ranges(directory, blocks):
            data = self._read(first, count)
            for block in members:
                if directory.offsets[block] + directory.sizes[block] > first + len(data):
                    lost.add(block)
                    continue
                offsets[block] = end + directory.offsets[block] - first
                sizes[block] = directory.sizes[block]
            parts.append(data)
            end += len(data)
        for tag, values in ((_TILE_OFFSETS, offsets), (_TILE_SIZES, sizes)):
            kind, count, at = directory.tags[tag]
            struct.pack_into(f"{self._order}{count}{_LETTERS[kind]}", head, at, *values)
        return b"".join((head, *parts)), lost

    def _ranges(self, directory: _Directory, blocks: Iterable[int]) -> list[tuple[int, int, list[int]]]:
        """(first byte, number of bytes, blocks inside) of the requests that fetch the blocks; absent ones need none."""
        ranges: list[tuple[int, int, list[int]]] = []
        for block in sorted(blocks, key=directory.offsets.__getitem__):
            offset, size = directory.offsets[block], directory.sizes[block]
            if not size:
                continue
            if ranges and offset - sum(ranges[-1][:2]) <= GAP_BYTES:
                first, count, members = ranges[-1]
                ranges[-1] = (first, max(count, offset + size - first), [*members, block])
            else:
                ranges.append((offset, size, [block]))
        return ranges
