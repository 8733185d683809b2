"""Cloud-optimised GeoTIFFs over HTTP: the header in one request, then exactly the bytes that are wanted.

GDAL reads such files too, but asks for 16 kB pages as it goes, and how many requests a window costs depends on a dozen
settings that are global to the process. Here a file's header is fetched and parsed just far enough to know where its
blocks lie; the wanted blocks are fetched, neighbours in one range; and GDAL is handed a small file in memory, made of
the real header with the offsets of the fetched blocks put right and all others marked as absent. So every compression,
predictor and tag that GDAL knows works, and each byte is asked for once. A file that is laid out otherwise (its
directory at the end, JPEG 2000) says `NotLaidOut`, and the caller leaves it to GDAL.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deepsentinel.errors import ReadError, SourceError
from deepsentinel.sources.addresses import shown
from deepsentinel.sources.web import BUSY, GARBLED_TRIES, busy, insist
from deepsentinel.sources.wire import Answer, TooLarge, Trouble, ask

if TYPE_CHECKING:
    from deepsentinel.sources.cache import SceneCache

HEADER_BYTES = 32 * 1024  # holds the directory of a whole Sentinel scene; 2 % of one of its blocks
HEADER_LIMIT = 8 * 1024 * 1024  # a directory that reaches further is not laid out for the cloud
MOST_DIRECTORIES = 64
GAP_BYTES = 4 * 1024  # ranges this near are one: a request costs more than these bytes
WHOLE_LIMIT = 512 * 1024 * 1024  # a server that ignores ranges sends whole files; beyond this that is refused
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


class FileChanged(ReadError):
    """The file at an address is another one than its header was read from; reading it again from the start helps."""


@dataclass(frozen=True)
class Version:
    """Which of the files that were ever at an address this is."""

    etag: str = ""
    """As the server states it; empty where it does not."""
    total: int | None = None
    """The length of the whole file, where it was said."""

    def is_other(self, than: Version, *, by_etag: bool) -> bool:
        """Whether two answers are known to be of different files.

        Mirrors of one host may state different ETags of one file, so these count only where an old answer is compared
        with a new one.

        >>> Version("a", 7).is_other(Version("b", 7), by_etag=False)
        False
        """
        if None not in (self.total, than.total) and self.total != than.total:
            return True
        return by_etag and bool(self.etag and than.etag) and self.etag != than.etag


@dataclass(frozen=True)
class Bytes:
    """What a server sent."""

    data: bytes
    whole: bool
    """The server ignored the range and sent the file from its first byte."""
    href: str
    """Where it was found in the end, after redirections."""
    version: Version


def fetch_range(href: str, first: int, count: int) -> Bytes:
    """`count` bytes from `first` on; fewer where the file ends."""
    wanted = f"bytes={first}-{first + count - 1}"

    def once() -> Bytes:
        return _understood(href, ask(href, headers={"Range": wanted}, most_bytes=max(WHOLE_LIMIT, count)), first, count)

    def tell(trouble: Trouble) -> Exception:
        return ReadError(
            f"{shown(href)} cannot be read: {trouble.tries} tries in {trouble.waited_s:.0f} s ended with {trouble}. "
            "Check the network, or try again later with fewer threads."
        )

    problem: Exception
    try:
        return insist(once, tell, at=href, tries=TRIES, backoff_s=BACKOFF_S)
    except TooLarge:
        problem = ReadError(
            f"{shown(href)} cannot be read in parts: its server ignores range requests, and it is larger than "
            f"{WHOLE_LIMIT >> 20} MB. Download it and give its path."
        )
    except ReadError:
        raise
    except SourceError as error:
        problem = ReadError(f"{shown(href)} cannot be read: {error}")
    raise problem


def _understood(href: str, answer: Answer, first: int, count: int) -> Bytes:
    """The bytes in an answer, if they are those that were asked for."""
    if answer.status == 206:
        said = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
        if said is None or int(said[1]) != first or answer.headers.get("Content-Encoding", "identity") != "identity":
            raise Trouble("another range than the one asked for", garbled=GARBLED_TRIES)
        total = None if said[3] == "*" else int(said[3])
        end = first + count if total is None else min(first + count, total)
        if len(answer.data) > count or int(said[2]) - first + 1 != len(answer.data):
            raise Trouble("another length than it announced")
        if total is not None and first + len(answer.data) < end:
            raise Trouble("a part of the range only")
        return Bytes(answer.data, False, answer.url, Version(_etag(answer), total))
    if answer.status == 200:
        if answer.is_page:
            raise Trouble("a web page instead of the file (a sign-in, or news of an outage)", garbled=GARBLED_TRIES)
        return Bytes(answer.data, True, answer.url, Version(_etag(answer), len(answer.data)))
    if answer.status == 416:  # nothing there: the file ends before
        said = re.fullmatch(r"bytes \*/(\d+)", answer.headers.get("Content-Range", "").strip())
        return Bytes(b"", False, answer.url, Version(_etag(answer), int(said[1]) if said else None))
    if answer.status in BUSY:
        raise busy(answer)
    advice = ADVICE.get(answer.status, "check the link, or leave this scene out")
    raise ReadError(f"{shown(href)} cannot be read (HTTP {answer.status}): {advice}.")


def _etag(answer: Answer) -> str:
    # A server that names no versions still tells when the file was written.
    return (answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "").strip().removeprefix("W/")


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

    `read(first, count)` returns bytes of the file; the default asks a server. With a `cache` what was fetched once is
    found there: the header, and each block by itself. Safe to use from several threads after `__init__`.
    """

    def __init__(
        self,
        href: str,
        *,
        overviews: bool,
        read: Callable[[int, int], bytes] | None = None,
        cache: SceneCache | None = None,
    ) -> None:
        self.href = self._found_at = href
        self._read = read or self._fetch
        self._cache = cache
        self._whole: bytes | None = None
        self._head = b""
        self._order, self._big = "<", False
        self.directories: list[_Directory] = []
        self.levels: list[_Directory] = []
        kept = cache.header(href) if cache else None
        if kept is not None:
            try:
                self._parse(*kept, overviews=overviews)
            except (NotLaidOut, ReadError, struct.error):  # of another file, or cut: as if there had been none
                kept = None
        if kept is None:
            self._parse(b"", Version(), overviews=overviews)
        if cache and self._head_is_new and self.version.total is not None:
            cache.keep_header(href, self._head, self.version)

    def _parse(self, head: bytes, version: Version, *, overviews: bool) -> None:
        self._head, self.version, self._head_is_new = head, version, False
        self._from_cache = bool(head)
        self._need(0, HEADER_BYTES, at_least=16)
        if self._head[:64].lstrip()[:1] == b"<":
            raise ReadError(
                f"{shown(self.href)} cannot be read: it is a web page or some other text, not an image. Check the "
                "link; the host may want a sign-in."
            )
        order = {b"II": "<", b"MM": ">"}.get(self._head[:2])
        format_number = struct.unpack_from(f"{order}H", self._head, 2)[0] if order else 0
        if order is None or format_number not in (42, 43):
            raise NotLaidOut
        self._order, self._big = order, format_number == 43
        at = self._value(8 if self._big else 4, "Q" if self._big else "I")
        self.directories = [self._directory(at)]
        if overviews:
            while at := self.directories[-1].next_ifd:
                if len(self.directories) == MOST_DIRECTORIES:  # one may point back at another, for ever
                    raise NotLaidOut
                self.directories.append(self._directory(at))
        # Masks are directories too; an overview is a reduced image that is not one.
        kinds = [self._one(d, _SUBFILE, 0) for d in self.directories]
        self.levels = [self.directories[0], *(d for d, kind in zip(self.directories, kinds, strict=True) if kind == 1)]

    def _fetch(self, first: int, count: int) -> bytes:
        if self._whole is None:
            try:
                answer = fetch_range(self._found_at, first, count)
            except ReadError:
                if self._found_at == self.href:
                    raise
                # Where it was redirected to may have been good for a while only.
                self._found_at = self.href
                answer = fetch_range(self.href, first, count)
            self._found_at = answer.href
            if answer.version.is_other(self.version, by_etag=self._from_cache):
                if self._cache:
                    self._cache.forget_header(self.href)
                raise FileChanged(
                    f"{shown(self.href)} cannot be read: the file was replaced by another since its header was read. "
                    "Read it again."
                )
            if self.version == Version():
                self.version = answer.version
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
        if self.version.total is None or len(self._head) < self.version.total:
            more = max(HEADER_BYTES, end - len(self._head))
            self._head += self._read(len(self._head), more)
            self._head_is_new = True
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

    def file_with(self, level: int, blocks: Iterable[int] = (), *, anew: bool = False) -> tuple[bytes, set[int]]:
        """A TIFF with the given blocks of one level (numbered as in the file) and no others; an overview is its first.

        Also the blocks that are missing from it because the file ends before them: it is truncated. `anew` fetches
        what the cache holds as well.
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
        for data, members in self._fetched(directory, blocks, anew=anew):
            for block, at in members:
                if at + directory.sizes[block] > len(data):
                    lost.add(block)
                    continue
                offsets[block] = end + at
                sizes[block] = directory.sizes[block]
            parts.append(data)
            end += len(data)
        for tag, values in ((_TILE_OFFSETS, offsets), (_TILE_SIZES, sizes)):
            kind, count, at = directory.tags[tag]
            struct.pack_into(f"{self._order}{count}{_LETTERS[kind]}", head, at, *values)
        return b"".join((head, *parts)), lost

    def _fetched(
        self, directory: _Directory, blocks: Iterable[int], *, anew: bool
    ) -> Iterator[tuple[bytes, list[tuple[int, int]]]]:
        """Stretches of the file, and which blocks begin where in them: those of the cache, then what it lacks."""
        missing = []
        for block in blocks:
            size = directory.sizes[block]
            data = None
            if self._cache and size and not anew:
                data = self._cache.block(self.href, self.version, directory.offsets[block], size)
            if data is None:
                missing.append(block)
            else:
                yield data, [(block, 0)]
        for first, count, members in self._ranges(directory, missing):
            data = self._read(first, count)
            placed = [(block, directory.offsets[block] - first) for block in members]
            if self._cache and self.version.total is not None:
                for block, at in placed:
                    if len(stored := data[at : at + directory.sizes[block]]) == directory.sizes[block]:
                        self._cache.keep_block(self.href, self.version, directory.offsets[block], stored)
            yield data, placed

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
