"""What Earth Engine's client sends its requests over: patience, a time limit, and credentials that go nowhere else."""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Mapping
from http.client import responses
from typing import Any

import requests
import urllib3

from deepsentinel.sources.patience import wait
from deepsentinel.sources.web import BUSY, MAX_WAIT_S, UNREACHABLE_TRIES, asked_wait_s
from deepsentinel.sources.wire import Trouble, answered, check_reachable, leave_alone, place_of

TRIES = 7
BACKOFF_S = 1.0
CONNECT_S = 15.0
# Earth Engine itself gives up on a computation after five minutes.
TIMEOUT_S = 330.0
# Two tries are soon over: if it has answered anybody so lately, it is not taken for dead by them.
LATELY_S = 10.0
CHUNK_BYTES = 1 << 18
# The bytes are as they were before they were packed for the way.
_UNPACKED = ("content-encoding", "content-length", "transfer-encoding")


class Head(dict[str, str]):
    """The head of an answer as httplib2 has it, which is what the client knows how to read."""

    def __init__(self, status: int, said: Mapping[str, str]) -> None:
        super().__init__({**said, "status": str(status)})
        self.status = status
        self.reason = responses.get(status, "")


class Transport:
    """What the client sends its requests over: connections for all threads, patience, and a time limit for an answer.

    A busy service (429, 500, 502, 503, 504) is asked again after the time it names, or after a random part of 1, 2,
    4 .. seconds, so that many threads do not come back at once. What is given up is an error of a kind that the client
    does not try again by itself. Redirects are not followed, as nobody should see the credentials but who was
    addressed.
    """

    def __init__(
        self,
        connections: int,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._connections, self._timeout_s = connections, timeout_s
        self._random = random.Random()
        self._process = 0
        self._session: requests.Session | None = None
        self._lock = threading.Lock()

    def request(
        self, uri: str, method: str = "GET", body: Any = None, headers: Any = None, **_ignored: Any
    ) -> tuple[Any, bytes]:
        """One request, as httplib2 would make it: the answer's head and its bytes."""
        try:
            check_reachable(uri)
        except Trouble as trouble:
            raise _given_up(str(trouble), None) from None
        began, nobody = time.monotonic(), True
        for attempt in range(1, TRIES + 1):
            wait_s = self._random.uniform(0.5, 1.0) * BACKOFF_S * 2 ** (attempt - 1)
            try:
                status, said, content = self._once(uri, method, body, headers)
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                nobody = nobody and _nobody_there(error)
                if attempt == TRIES or (_nobody_there(error) and attempt >= UNREACHABLE_TRIES):
                    told = f"{plain(error)}, {attempt} times"
                    if nobody:
                        leave_alone(Trouble(told, unreachable=place_of(uri)), since=began - LATELY_S)
                    raise _given_up(told, None) from None
            else:
                answered(uri)
                nobody = False
                if status not in BUSY:
                    return Head(status, said), content
                if attempt == TRIES:
                    raise _given_up(_said_in(content), status)
                wait_s = asked_wait_s(said.get("retry-after"), wait_s)
            wait(min(wait_s, MAX_WAIT_S))
        raise AssertionError("the last try returns or raises")

    def _once(self, uri: str, method: str, body: Any, headers: Any) -> tuple[int, dict[str, str], bytes]:
        until = time.monotonic() + self._timeout_s
        with self._connected().request(
            method,
            uri,
            data=body,
            headers=headers,
            timeout=(min(CONNECT_S, self._timeout_s), self._timeout_s),
            allow_redirects=False,
            stream=True,
        ) as answer:
            parts: list[bytes] = []
            # An answer may also come in drops, each in time: the whole of it has to be.
            while part := answer.raw.read1(CHUNK_BYTES, decode_content=True):
                parts.append(part)
                if time.monotonic() > until:
                    raise requests.Timeout(f"the answer took longer than {self._timeout_s:g} s")
            said = {key.lower(): value for key, value in answer.headers.items() if key.lower() not in _UNPACKED}
            return answer.status_code, said, b"".join(parts)

    def _connected(self) -> requests.Session:
        with self._lock:
            if self._session is None or self._process != os.getpid():  # a fork shares no sockets
                self._session, self._process = requests.Session(), os.getpid()
                adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=self._connections)
                self._session.mount("https://", adapter)
                self._session.mount("http://", adapter)
                # Else a line in ~/.netrc would take the place of the token.
                self._session.auth = lambda request: request
            return self._session

    def close(self) -> None:
        """The client closes what it sends over; connections are kept for the next request."""


def _given_up(text: str, status: int | None) -> Exception:
    """The client's own error, which says what its others do not: the status, None where nobody answered."""
    import ee

    error: Exception = ee.EEException(text)
    vars(error).update(status=status, offline=status is None)
    return error


def _said_in(content: bytes) -> str:
    """The message in an answer that is an error."""
    try:
        return str(json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "The service is busy."


def _nobody_there(error: Exception) -> bool:
    """Whether no connection came about, which seldom changes while one waits."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    kinds = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    return isinstance(error, requests.exceptions.ProxyError) or isinstance(reason, kinds)


def plain(error: object) -> str:
    """What an error says, without what stands behind a question mark in its addresses: keys may."""
    text = re.sub(r"\?[^\s'\")>]+", "", str(error))
    text = re.sub(r"(?i)bearer\s+\S+", "bearer ..", text)
    return " ".join(text.split())[:400]
