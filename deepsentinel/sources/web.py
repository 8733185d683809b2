"""GET over HTTP with patience: a busy service is asked again, later each time; what it finally says is put in words.

`engine/remote.py` fetches pixels with connections and errors of its own, and shares the patience.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from deepsentinel.errors import SourceError

BUSY = frozenset({429, 500, 502, 503, 504})
MAX_WAIT_S = 60.0
# A host that is not there at all seldom comes up meanwhile, and somebody without a network is waiting to be told.
UNREACHABLE_TRIES = 2


class HttpError(SourceError):
    """A server answered, and the answer was no."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def get_bytes(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    tries: int = 5,
    timeout_s: float = 30.0,
    backoff_s: float = 0.8,
    sleep: Callable[[float], None] | None = None,
) -> bytes:
    """The body at `url`. 429 and 5xx are tried again after `Retry-After`, or after 0.8, 1.6, 3.2 .. seconds.

    >>> get_bytes("data:,hello")
    b'hello'
    """
    request = urllib.request.Request(url, headers={"User-Agent": "deepsentinel", **(headers or {})})
    problem: Exception
    for attempt in range(1, tries + 1):
        wait_s = backoff_s * 2 ** (attempt - 1)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(300).decode("utf-8", "replace").strip()
            if error.code not in BUSY:
                raise HttpError(
                    f"{shown(url)} answered {error.code} {error.reason}. {_hint(error.code)}", error.code
                ) from error
            wait_s = asked_wait_s(error.headers.get("Retry-After"), wait_s)
            problem = HttpError(
                f"{shown(url)} was busy {tries} times ({error.code} {error.reason}: {text[:120]}). Try again in some "
                "minutes.",
                error.code,
            )
        except (OSError, http.client.HTTPException) as error:  # the latter: an answer that breaks off
            problem = SourceError(
                f"{shown(url)} does not answer ({getattr(error, 'reason', error)}). Check the network, then try again."
            )
            if attempt >= UNREACHABLE_TRIES:
                raise problem from error
        if attempt < tries:
            (sleep or time.sleep)(min(wait_s, MAX_WAIT_S))
    raise problem


def shown(url: str) -> str:
    """An address fit for a message: without its query, which may hold keys and signatures.

    >>> shown("https://a.org/b.tif?sig=secret")
    'https://a.org/b.tif'
    """
    return url.partition("?")[0]


def _hint(status: int) -> str:
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
