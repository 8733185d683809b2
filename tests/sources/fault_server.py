"""The fake service, with faults: whatever it answers may be spoilt on the way, by a plan that the test makes.

`plan(request)` is asked before each answer and returns the name of a fault, or None:

- "429" (asks to wait for no time), "500", "503", "403": that status instead
- "page": an HTML page with status 200
- "drop": the connection is closed without a word; "reset": it is reset in the middle of the body
- "stall": half of the body, then nothing; "trickle": a byte at a time
- "long": Content-Length promises more than comes; "short": less
- "shifted": another range than the one asked for, "untold": a range that is not named
- "corrupt": the right bytes, some of them wrong
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fake_services import FakeService, Handler

PASSING = ("429", "500", "503", "page", "drop", "reset", "long", "short")
FOR_RANGES = (*PASSING, "shifted", "untold")
FOR_BLOCKS = (*FOR_RANGES, "corrupt")
SLOW = ("stall", "trickle")


@dataclass(frozen=True)
class Request:
    """One request, as a plan sees it."""

    method: str
    path: str
    query: str
    range: str
    nth: int
    """Which it is among those for the same path and range, from 1."""
    headers: dict[str, str]
    body: bytes = b""

    @property
    def first(self) -> int:
        """The first byte that is asked for; -1 without a range."""
        return int(self.range.removeprefix("bytes=").split("-")[0]) if self.range else -1


Plan = Callable[[Request], str | None]


def never(request: Request) -> str | None:
    return None


def at_random(seed: int, share: float, most: int = 3) -> Plan:
    """A fault for so many of the requests, the same for the same request whenever it comes, `most` times in a row."""

    def plan(request: Request) -> str | None:
        if request.nth > most:
            return None
        rng = random.Random(f"{seed} {request.path} {request.range} {request.nth}")
        if rng.random() >= share:
            return None
        return rng.choice(FOR_BLOCKS if request.first > 0 else FOR_RANGES if request.range else PASSING)

    return plan


class FaultService(FakeService):
    """A fake service that keeps a log of (request, fault), may be slow, and counts how many ask at once."""

    def __init__(self, items: list[dict[str, Any]], files: Path | None = None, plan: Plan = never) -> None:
        super().__init__(items, files)
        self.plan = plan
        self.log: list[tuple[Request, str | None]] = []
        self.latency_s = 0.0
        self.hold: Callable[[], object] = lambda: None
        self.stopped = threading.Event()
        self.moved: dict[str, str] = {}
        self.others: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.lock = threading.Lock()
        self.asked: Counter[tuple[str, str]] = Counter()

    def faults(self) -> int:
        return sum(fault is not None for _, fault in self.log)

    def forget(self) -> None:
        self.log.clear()
        self.asked.clear()


class FaultHandler(Handler):
    protocol_version = "HTTP/1.1"
    # One packet for head and body: two of them meet delayed acknowledgement, 40 ms a request.
    wbufsize = -1
    service: FaultService

    def handle(self) -> None:
        with suppress(OSError):  # the client has left
            super().handle()

    def do_POST(self) -> None:
        self.posted = self.rfile.read(int(self.headers["Content-Length"]))
        if (moved := self.service.moved.get(urlsplit(self.path).path)) is not None:
            self._bytes(b"", 301, {"Location": moved})
            return
        super().do_POST()

    def read_posted(self) -> bytes:
        return self.posted

    def do_GET(self) -> None:
        self.posted = b""
        other = self.service.others.get(urlsplit(self.path).path)
        if other is not None:
            status, headers, body = other
            self._bytes(body, status, headers)
            return
        super().do_GET()

    def _bytes(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        service, parts = self.service, urlsplit(self.path)
        wanted = self.headers.get("Range", "")
        with service.lock:
            service.asked[parts.path, wanted] += 1
            nth = service.asked[parts.path, wanted]
            told = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, parts.path, parts.query, wanted, nth, told, self.posted)
            fault = service.plan(request)
            service.log.append((request, fault))
        service.hold()
        if service.latency_s:
            time.sleep(service.latency_s)
        self.spoil(fault, body, status, dict(headers or {}))

    def spoil(self, fault: str | None, body: bytes, status: int, headers: dict[str, str]) -> None:
        length = len(body)
        if fault is not None and fault.isdigit():
            status, body = int(fault), b"<Error>Rate limit is exceeded, or something is out of order.</Error>"
            headers = {"Retry-After": "0"} if fault == "429" else {}
            length = len(body)
        elif fault == "page":
            status, body, headers = (
                200,
                b"<!DOCTYPE html><html><body>Back soon</body></html>",
                {"Content-Type": "text/html"},
            )
            length = len(body)
        elif fault == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        elif fault == "long":
            length += 1000
            self.close_connection = True
        elif fault == "short":
            length //= 2
            self.close_connection = True
        elif fault == "untold":
            headers.pop("Content-Range", None)
        elif fault == "shifted":
            first, _, rest = headers["Content-Range"].removeprefix("bytes ").partition("-")
            headers["Content-Range"] = f"bytes {int(first) + 7}-{int(rest.split('/')[0]) + 7}/{rest.split('/')[1]}"
        elif fault == "corrupt":
            spoilt = bytearray(body)
            for at in range(min(40, len(body) // 2), len(body), 61):
                spoilt[at] ^= 0x5A
            body = bytes(spoilt)
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(body) // 2
        if fault == "reset":
            self.wfile.write(body[:half])
            self.wfile.flush()
            self.close_connection = True
            # With no time to linger, closing is a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif fault == "stall":
            self.close_connection = True
            self.wfile.write(body[:half])
            self.wfile.flush()
            self.service.stopped.wait(60)
        elif fault == "trickle":
            self.close_connection = True
            for at in range(len(body)):
                self.wfile.write(body[at : at + 1])
                self.wfile.flush()
                if self.service.stopped.wait(0.05):
                    break
        else:
            self.wfile.write(body)
            self.wfile.flush()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextmanager
def faulty(service: FaultService, port: int = 0) -> Iterator[FaultService]:
    service.stopped = threading.Event()
    server = _Server(("127.0.0.1", port), type("Faulty", (FaultHandler,), {"service": service}))
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
