"""Asking the web with patience: what may pass is tried again, later each time; what does not is put in words."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from deepsentinel.errors import SourceError

from .addresses import redacted, shown
from .patience import wait
from .wire import ANSWERED, Answer, Trouble, ask, check_reachable, leave_alone

__all__ = [
    "BUSY",
    "GARBLED_TRIES",
    "MAX_WAIT_S",
    "UNREACHABLE_TRIES",
    "HttpError",
    "Trouble",
    "asked_wait_s",
    "busy",
    "get_bytes",
    "hint",
    "insist",
    "is_json",
    "shown",
]

T = TypeVar("T")

BUSY = frozenset({429, 500, 502, 503, 504})
MAX_WAIT_S = 60.0
# A host that is not there at all seldom comes up meanwhile, and somebody without a network is waiting to be told. One
# that has answered before is given the usual patience.
UNREACHABLE_TRIES = 2
# Something else than what was asked for, such as a page that says "back soon".
GARBLED_TRIES = 3


class HttpError(SourceError):
    """A server answered, and the answer was no."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def insist(
    once: Callable[[], T],
    tell: Callable[[Trouble], Exception],
    *,
    at: str = "",
    tries: int = 5,
    backoff_s: float = 0.8,
    sleep: Callable[[float], None] | None = None,
) -> T:
    """What `once` returns, tried again after each `Trouble`; after the last raises what `tell` makes of it.

    Waits as long as a server asks for, or 0.8, 1.6, 3.2 .. seconds and up to a quarter more, so that many who were
    turned away together do not come back together. A host that none of the tries got to is left alone for
    `wire.LEFT_ALONE_S`: whoever comes with an address of it `at` hand in the meantime is told at once.

    >>> answers = iter([None, "here"])
    >>> def once():
    ...     if (answer := next(answers)) is None:
    ...         raise Trouble("busy")
    ...     return answer
    >>> insist(once, lambda trouble: OSError(str(trouble)), backoff_s=0)
    'here'
    """
    last, waited, began = Trouble(""), 0.0, time.monotonic()
    met: set[str] = set()
    for attempt in range(1, tries + 1):
        try:
            # Not before each try: who was at it already goes on, and may find that the host is back.
            if attempt == 1 and at:
                check_reachable(at)
            return once()
        except Trouble as trouble:
            last = trouble
        if last.known:
            raise tell(last)
        last.tries, last.waited_s = attempt, waited
        met.add(last.unreachable)
        if last.unreachable and last.unreachable not in ANSWERED and attempt >= UNREACHABLE_TRIES:
            break
        if last.garbled and attempt >= last.garbled:
            break
        if last.wait_s is None:
            last_wait = min(backoff_s * 2.0 ** (attempt - 1), MAX_WAIT_S) * random.uniform(1.0, 1.25)
        else:
            last_wait = last.wait_s
        if attempt == tries or (last.wait_s or 0.0) > MAX_WAIT_S:
            break
        (sleep or wait)(last_wait)
        waited += last_wait
    if last.unreachable and met == {last.unreachable} and last.tries >= UNREACHABLE_TRIES:
        leave_alone(last, since=began)
    raise tell(last)


def get_bytes(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    tries: int = 5,
    backoff_s: float = 0.8,
    sleep: Callable[[float], None] | None = None,
    likely: Callable[[bytes], bool] | None = None,
) -> bytes:
    """The body at `url`. 429 and 5xx are tried again, and so is what breaks off, crawls, or is not `likely` right.

    What stays unlikely is returned in the end: whoever knows what it should have been says what is wrong with it.

    >>> get_bytes("data:,hello")
    Traceback (most recent call last):
    ...
    deepsentinel.errors.SourceError: data:,hello is not opened: only http and https addresses are fetched. ...
    """
    seen = 0

    def once() -> bytes:
        nonlocal seen
        answer = ask(url, headers=headers)
        if answer.status in BUSY:
            raise busy(answer)
        if not 200 <= answer.status < 300:
            raise HttpError(f"{shown(url)} answered {answer.status}. {hint(answer.status)}", answer.status)
        seen += 1
        if likely is not None and seen < GARBLED_TRIES and not likely(answer.data):
            raise Trouble("it sent something else than what was asked for")
        return answer.data

    def tell(trouble: Trouble) -> Exception:
        if trouble.status:
            return HttpError(
                f"{shown(url)} was busy {trouble.tries} times ({trouble}). Try again in some minutes.", trouble.status
            )
        return SourceError(f"{shown(url)} does not answer ({trouble}). Check the network, then try again.")

    return insist(once, tell, at=url, tries=tries, backoff_s=backoff_s, sleep=sleep)


def busy(answer: Answer) -> Trouble:
    """The trouble with a busy server, and how long it asks to wait.

    >>> busy(Answer(429, {"Retry-After": "7"}, b"slow down", "")).wait_s
    7.0
    """
    wait_s = asked_wait_s(answer.headers.get("Retry-After"), -1.0)
    said = " ".join(redacted(answer.data[:300].decode("utf-8", "replace")).split())[:120]
    asked = f"; it asks to wait {wait_s:.0f} s" if wait_s > MAX_WAIT_S else ""
    return Trouble(
        f"HTTP {answer.status}{f': {said}' if said else ''}{asked}",
        status=answer.status,
        wait_s=wait_s if wait_s >= 0 else None,
    )


def is_json(data: bytes) -> bool:
    """Whether a body is JSON.

    >>> is_json(b'{"type": "Catalog"}'), is_json(b'{"type": "Cat')
    (True, False)
    """
    import json

    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def hint(status: int) -> str:
    """What to do about a status.

    >>> hint(401)
    'It wants credentials.'
    """
    return {
        401: "It wants credentials.",
        403: "It refuses this user: credentials are missing, wrong or expired.",
        404: "There is nothing at this address: check its spelling.",
    }.get(status, "Check the address.")


def asked_wait_s(retry_after: str | None, otherwise: float) -> float:
    """How long a server asks to wait (in seconds or until a date), or `otherwise` where it does not say.

    >>> asked_wait_s("23", 0.8), asked_wait_s(None, 0.8), asked_wait_s("Thu, 01 Jan 2015 00:00:00 GMT", 0.8)
    (23.0, 0.8, 0.0)
    """
    try:
        return max(0.0, float(retry_after or ""))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after or "") - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return otherwise
