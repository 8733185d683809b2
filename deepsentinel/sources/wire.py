"""One request over HTTP and its whole answer: with a deadline, with redirections that stay on the web, and with two
kinds of failure. A `Trouble` may pass (a cut connection, an answer that crawls) and is worth another try; anything else
is final. `web.insist` tries again. A host that nothing could be got to by all those tries is left alone for a while.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from deepsentinel.errors import SourceError

from .addresses import DISCREET, check_web, shown

if TYPE_CHECKING:
    import requests

CONNECT_S = 10.0
QUIET_S = 30.0
"""So long may pass without a byte, and so much longer than at `SLOW_BYTES_PER_S` may a whole answer take."""
SLOW_BYTES_PER_S = 16_000
MOST_BYTES = 512 * 1024 * 1024
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 10
# What may be told to another host than the one it was meant for.
HARMLESS_HEADERS = frozenset({"range", "accept", "accept-encoding", "user-agent", "content-type"})


class TooLarge(SourceError):
    """More than was bargained for."""


class Trouble(Exception):
    """Something that may pass: worth another try. `unreachable` is the host and port that no connection came about to;
    `known` says that it was found out a moment ago, and not now."""

    def __init__(
        self, text: str, *, status: int = 0, wait_s: float | None = None, unreachable: str = "", garbled: int = 0
    ) -> None:
        super().__init__(text)
        self.status, self.wait_s, self.unreachable, self.garbled = status, wait_s, unreachable, garbled
        self.tries, self.waited_s, self.known = 1, 0.0, False


@dataclass(frozen=True)
class Answer:
    """What a server said in the end, after redirections."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    url: str

    @property
    def is_page(self) -> bool:
        """Whether it is a web page.

        >>> Answer(200, {}, b"<!DOCTYPE html><html>Sign in</html>", "").is_page
        True
        """
        head = self.data[:256].lstrip().lower()
        return head.startswith((b"<!doctype html", b"<html")) or "text/html" in self.headers.get("Content-Type", "")


_sessions: dict[int, requests.Session] = {}
_sessions_lock = threading.Lock()
ANSWERED: dict[str, float] = {}
"""Hosts and ports that have answered this process before, and when they last did: they are there, whatever happens to
one request."""
DEAD: dict[str, tuple[float, Trouble]] = {}
"""Hosts and ports that no try got to, when that was found out, and what is told of it."""
LEFT_ALONE_S = 20.0
"""So long that is taken as known: the next row of a table need not find it out again, with all tries and waits."""


def place_of(url: str) -> str:
    """Who is called at an address: the host and the port, by its number or its scheme.

    >>> place_of("https://A.org/b.tif"), place_of("http://me:secret@127.0.0.1:8080/b.tif")
    ('https://a.org', 'http://127.0.0.1:8080')
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()


def answered(url: str) -> None:
    """Note that somebody is there."""
    ANSWERED[place_of(url)] = time.monotonic()
    DEAD.pop(place_of(url), None)


def leave_alone(trouble: Trouble, since: float) -> None:
    """Note that no try since then has got to a host; unless it has answered somebody else meanwhile."""
    if ANSWERED.get(trouble.unreachable, -math.inf) < since:
        told = Trouble(f"{trouble}, and is asked again after {LEFT_ALONE_S:.0f} s", unreachable=trouble.unreachable)
        told.tries, told.waited_s, told.known = trouble.tries, trouble.waited_s, True
        DEAD[trouble.unreachable] = (time.monotonic(), told)


def check_reachable(url: str) -> None:
    """Raise what was found out about a host a moment ago: a `Trouble` with the tries that it took."""
    found_s, told = DEAD.get(place_of(url), (-math.inf, Trouble("")))
    if time.monotonic() - found_s < LEFT_ALONE_S:
        raise copy.copy(told)


def kept_session() -> requests.Session:
    """One pool of kept-alive connections for the process (a forked child starts its own)."""
    with _sessions_lock:
        if os.getpid() not in _sessions:
            import requests
            from requests.adapters import HTTPAdapter

            session = requests.Session()
            session.headers["Accept-Encoding"] = "identity"
            session.headers["User-Agent"] = "deepsentinel"
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(pool_connections=16, pool_maxsize=64))
            for name in ("urllib3.connectionpool", "urllib3.util.retry"):
                logging.getLogger(name).addFilter(DISCREET)
            _sessions.clear()
            _sessions[os.getpid()] = session
        return _sessions[os.getpid()]


def ask(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | None = None,
    json: Any = None,
    most_bytes: int = MOST_BYTES,
) -> Answer:
    """One request and its whole answer, whatever its status; `Trouble` where none came.

    Redirections are followed on the web only, never from https to http, and headers that may be keys stay behind at
    another host.

    >>> ask("ftp://a.org/b")
    Traceback (most recent call last):
    ...
    deepsentinel.errors.SourceError: ftp://a.org/b is not opened: ...
    """
    import requests
    import urllib3

    check_web(url)
    at, sent = url, dict(headers or {})
    for _ in range(MOST_REDIRECTS + 1):
        problem: Exception | None = None
        began = time.monotonic()
        try:
            with kept_session().request(
                method,
                at,
                headers=sent,
                params=params,
                json=json,
                timeout=(CONNECT_S, QUIET_S),
                stream=True,
                allow_redirects=False,
            ) as answer:
                answered(at)
                target = answer.headers.get("Location") if answer.status_code in REDIRECTS else None
                if target is None:
                    return Answer(answer.status_code, answer.headers, _body(answer, most_bytes, began), answer.url)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            problem = error if isinstance(error, SourceError) else trouble_of(error, at)
        # Outside of the `except`: what libraries raise carries whole addresses, and would be printed along.
        if problem is not None:
            raise problem
        assert target is not None
        onward = urljoin(at, target)
        check_redirect(at, onward)
        check_reachable(onward)
        if urlsplit(onward)[:2] != urlsplit(at)[:2]:
            sent = {name: value for name, value in sent.items() if name.lower() in HARMLESS_HEADERS}
        if answer.status_code == 303:
            method, json = "GET", None
        at, params = onward, None
    raise SourceError(f"{shown(url)} redirects more than {MOST_REDIRECTS} times. Check the address.")


def check_redirect(at: str, onward: str) -> None:
    """Refuse to be led from the web to files, or from https to where all can listen."""
    old, new = urlsplit(at).scheme.lower(), urlsplit(onward).scheme.lower()
    if new not in ("http", "https") or (old, new) == ("https", "http"):
        raise SourceError(
            f"{shown(at)} redirects to {shown(onward)}, which is not followed: only from one address on the web to "
            "another, and never from https to http. If you trust it, give that address itself."
        )


def _body(answer: requests.Response, most_bytes: int, began: float) -> bytes:
    """All that is sent, as long as it comes at a reasonable pace."""
    declared = answer.headers.get("Content-Length", "")
    plain = answer.headers.get("Content-Encoding", "identity") in ("", "identity")
    if answer.status_code >= 400:
        most_bytes = 65_536  # a reason, however long it rambles on
    elif declared.isdigit() and int(declared) > most_bytes:
        raise TooLarge(f"{shown(answer.url)} is larger than {most_bytes >> 20} MB.")
    parts, held = [], 0
    while piece := answer.raw.read1(65_536, decode_content=True):
        parts.append(piece)
        held += len(piece)
        if held > most_bytes:
            if answer.status_code >= 400:
                break
            raise TooLarge(f"{shown(answer.url)} is larger than {most_bytes >> 20} MB.")
        taken_s = time.monotonic() - began
        if taken_s > QUIET_S + held / SLOW_BYTES_PER_S:
            raise Trouble(f"the answer crawled: {held} bytes in {taken_s:.0f} s")
    if answer.status_code < 400 and plain and declared.isdigit() and held != int(declared):
        raise Trouble(f"the answer was cut short: {held} of {declared} bytes")
    return b"".join(parts)


def trouble_of(error: BaseException, url: str) -> Exception:
    """What a library's exception means, in words without the address that it was raised for."""
    names = {kind.__name__ for one in _causes(error) for kind in type(one).__mro__}
    host = urlsplit(url).hostname
    for known, text in (
        ({"NameResolutionError", "gaierror"}, f"the name {host} cannot be resolved"),
        ({"ProxyError"}, "the proxy does not let it through"),
        ({"SSLError"}, f"no secure connection to {host} (its certificate, or a proxy's, is not accepted)"),
        ({"ConnectionRefusedError"}, f"{host} refuses connections"),
        # In some versions of urllib3 the former is one of the latter.
        ({"NewConnectionError"}, f"{host} cannot be reached"),
        ({"ConnectTimeout", "ConnectTimeoutError"}, f"{host} did not take the call within {CONNECT_S:.0f} s"),
    ):
        if names & known:
            return Trouble(text, unreachable=place_of(url))
    for known, text in (
        ({"ReadTimeout", "ReadTimeoutError", "TimeoutError"}, f"nothing came for {QUIET_S:g} s"),
        ({"IncompleteRead"}, "the answer was cut short"),
        ({"ConnectionResetError", "ProtocolError", "ConnectionError", "OSError"}, "the connection was cut"),
    ):
        if names & known and not names & {"InvalidURL", "MissingSchema", "InvalidSchema", "InvalidHeader"}:
            return Trouble(text)
    return SourceError(f"{shown(url)} cannot be asked for ({type(error).__name__}). Check the address.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, those it was raised from, and those it holds: urllib3 and requests wrap each other's."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
