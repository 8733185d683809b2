"""One file over HTTP into a growing part of it: it goes on where it was cut, as long as it is still the same file.

A part is continued only if the server says that the file has not changed since (by its ETag or date), or if a checksum
will tell in the end. Where it cannot continue it begins again.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from deepsentinel.errors import SourceError
from deepsentinel.sources.addresses import check_web, shown
from deepsentinel.sources.web import BUSY, asked_wait_s, hint, insist
from deepsentinel.sources.wire import (
    CONNECT_S,
    HARMLESS_HEADERS,
    MOST_REDIRECTS,
    QUIET_S,
    REDIRECTS,
    SLOW_BYTES_PER_S,
    Trouble,
    answered,
    check_redirect,
    kept_session,
    trouble_of,
)

if TYPE_CHECKING:
    import requests

TRIES = 5
BACKOFF_S = 0.8
# A connection that brought so much was worth it, and what ends it is not counted against the next.
WORTHWHILE_BYTES = 8 << 20
PIECE = 256 << 10

HARMLESS = HARMLESS_HEADERS | {"if-range"}

Key = Callable[[str], tuple[str, dict[str, str]]]


class Gone(SourceError):
    """There is no such file."""


class Refused(SourceError):
    """The key was refused."""


class Fetching(SourceError):
    """The provider is fetching the file from its archive, and has nothing to send yet."""


class Stopped(Exception):
    """Nobody wants the file any more; what has come of it stays."""


class Transfer:
    """One download: where it goes, what it may be told, and whom it tells.

    `known` are the validators of what has come already; `on_known` is told those of a new beginning, before the first
    byte. `on_bytes` counts: below zero when a part is thrown away. `wait` sleeps, and raises `Stopped`.
    """

    def __init__(
        self,
        url: str,
        part: Path,
        *,
        key: Callable[[], Key],
        renew: Callable[[], None],
        known: Mapping[str, Any],
        on_known: Callable[[dict[str, Any]], None],
        on_bytes: Callable[[int], None],
        wait: Callable[[float], None],
        has_checksum: bool,
        verify: bool = True,
    ) -> None:
        check_web(url)
        self.url, self.part = url, part
        self._key, self._renew, self._wait = key, renew, wait
        self._known = {name: known[name] for name in ("etag", "modified", "total") if known.get(name) is not None}
        self._on_known, self._on_bytes = on_known, on_bytes
        self._has_checksum, self._verify = has_checksum, verify
        self._renewed = False
        self._raw: Any = None

    def hang_up(self) -> None:
        """End the connection from another thread, which may be waiting for a server that has fallen silent."""
        shut = getattr(self._raw, "shutdown", None)  # urllib3 has it from 2.3 on; before, the silence ends it
        if shut is not None:
            with suppress(OSError, ValueError, RuntimeError):
                shut()

    def run(self) -> int:
        """Bring all of it; how many bytes it has."""
        while True:
            before = self._size()
            try:
                # Without its address: who downloads has time, and each product is worth all tries.
                return insist(self._once, self._tell, tries=TRIES, backoff_s=BACKOFF_S, sleep=self._wait)
            except Cut:
                if self._size() - before < WORTHWHILE_BYTES:
                    raise

    def _tell(self, trouble: Trouble) -> Exception:
        told = f"{shown(self.url)} broke off {trouble.tries} times ({trouble}), after {self._size()} bytes"
        return Cut(f"{told}. What has come is kept: download again, later.")

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _once(self) -> int:
        """One connection: all that it brings is kept."""
        have = self._size()
        same = self._known.get("etag") or self._known.get("modified")
        if have and not same and not self._has_checksum:
            self._drop()
            have = 0
        if have and have == self._known.get("total"):
            return have  # cut after its last byte
        extra = {"Accept-Encoding": "identity"}
        if have:
            extra["Range"] = f"bytes={have}-"
            if same:
                extra["If-Range"] = str(same)
        with self._answer(extra) as answer:
            self._raw = answer.raw
            status = answer.status_code
            if status in (401, 403):
                if not self._renewed:
                    self._renewed = True
                    self._renew()
                    raise Trouble("the key had expired", status=status, wait_s=0.0)
                raise Refused(f"{shown(self.url)} answered {status}. {hint(status)}")
            if status in BUSY:
                wait_s = asked_wait_s(answer.headers.get("Retry-After"), -1.0)
                asked = f", and asks to wait {wait_s:.0f} s" if wait_s > 0 else ""
                raise Trouble(f"HTTP {status}{asked}", status=status, wait_s=wait_s if wait_s >= 0 else None)
            if status == 202:
                raise Fetching(f"{shown(self.url)} is being fetched from the archive.")
            if status == 416:
                if have and answer.headers.get("Content-Range") == f"bytes */{have}":
                    return have
                # What we have is not the beginning of what is there.
                self._drop()
                raise Trouble("the file has changed", wait_s=0.0)
            if status in (404, 410):
                raise Gone(f"{shown(self.url)} answered {status}: the provider lists it and does not have it.")
            if not 200 <= status < 300:
                raise SourceError(f"{shown(self.url)} answered {status}. {hint(status)}")
            if "text/html" in answer.headers.get("Content-Type", ""):
                raise Trouble("it sent a web page in place of the product", garbled=3)
            return self._take(answer, have)

    def _take(self, answer: requests.Response, have: int) -> int:
        """The body of an answer, behind what is there or in its place."""
        declared = answer.headers.get("Content-Length", "")
        length = int(declared) if declared.isdigit() else None
        total: int | None
        if answer.status_code == 206:
            said = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", ""))
            total = int(said[3]) if said and said[3] != "*" else self._known.get("total")
            if not said or int(said[1]) != have or total != self._known.get("total", total):
                self._drop()
                raise Trouble("it sent another piece than was asked for", wait_s=0.0)
        else:
            # The whole of it: the server knows no ranges, or has a newer file.
            self._drop()
            have, total = 0, length
        if have == 0:
            etag = answer.headers.get("ETag", "")
            self._known = {
                # A weak one promises the same meaning, not the same bytes.
                "etag": etag if etag and not etag.startswith("W/") else None,
                "modified": answer.headers.get("Last-Modified"),
                "total": total,
            }
            self._on_known(dict(self._known))
        came = self._write(answer, have)
        if total is not None and have + came != total:
            raise Trouble(f"the answer was cut short: {have + came} of {total} bytes")
        return have + came

    def _write(self, answer: requests.Response, have: int) -> int:
        import requests
        import urllib3

        came, began = 0, time.monotonic()
        with self.part.open("ab" if have else "wb") as file:
            while True:
                problem: Exception | None = None
                data = b""
                try:
                    data = answer.raw.read1(PIECE, decode_content=True)
                except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                    problem = trouble_of(error, self.url)
                if problem is not None:
                    raise problem
                if not data:
                    return came
                file.write(data)
                came += len(data)
                self._on_bytes(len(data))
                self._wait(0.0)
                taken_s = time.monotonic() - began
                if taken_s > QUIET_S + came / SLOW_BYTES_PER_S:
                    raise Trouble(f"the answer crawled: {came} bytes in {taken_s:.0f} s")

    def _answer(self, extra: Mapping[str, str]) -> requests.Response:
        """The answer after redirections; keys in headers stay behind at another host."""
        import requests
        import urllib3

        at, headers = self._key()(self.url)
        headers = {**headers, **extra}
        for _ in range(MOST_REDIRECTS + 1):
            self._wait(0.0)
            problem: Exception | None = None
            try:
                answer = kept_session().get(
                    at,
                    headers=headers,
                    timeout=(CONNECT_S, QUIET_S),
                    stream=True,
                    allow_redirects=False,
                    verify=self._verify,
                    # Else a line in ~/.netrc would take the place of the key.
                    auth=_as_it_is,
                )
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                problem = trouble_of(error, at)
            # Outside of the `except`: what libraries raise carries whole addresses, and would be printed along.
            if problem is not None:
                raise problem
            answered(at)
            target = answer.headers.get("Location") if answer.status_code in REDIRECTS else None
            if target is None:
                return answer
            answer.close()
            onward = urljoin(at, target)
            check_redirect(at, onward)
            if urlsplit(onward)[:2] != urlsplit(at)[:2]:
                headers = {
                    name: held for name, held in headers.items() if name.lower() in (*HARMLESS_HEADERS, "if-range")
                }
            at = onward
        raise SourceError(f"{shown(self.url)} redirects more than {MOST_REDIRECTS} times. Check the provider.")

    def _drop(self) -> None:
        self._on_bytes(-self._size())
        if self.part.is_file():
            os.truncate(self.part, 0)
        self._known = {}


class Cut(SourceError):
    """It broke off again and again."""


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
