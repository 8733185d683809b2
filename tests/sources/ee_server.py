"""Earth Engine on 127.0.0.1: what the real client (`ee`) needs to come up, tables, and pixels of the demo world."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ee
import numpy as np
import shapely
from ee_algebra import EvaluationError, Feature, evaluate, pixels_of
from ee_world import Image, collections
from source_kinds import World

MOST_BYTES, MOST_SIDE_PX = 50_331_648, 32_768
SHIPPED = Path(ee.__file__).parent / "tests"
PROJECT = "a-project"


@lru_cache
def discovery() -> bytes:
    """The description of the API that is shipped with the client's own tests, as version 1."""
    text = (SHIPPED / "cloud_api_discovery_document.json").read_text(encoding="utf-8")
    return text.replace("v1alpha", "v1").encode()


@lru_cache
def algorithms() -> bytes:
    return (SHIPPED / "algorithms.json").read_bytes()


class EarthEngine:
    """State and behaviour. `moods` holds what the next requests for tables or pixels are answered with instead:
    a status, a (status, message) pair, or bytes to be sent as if they were the answer."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.collections: dict[str, list[Image]] = collections(world)
        self.url = ""
        self.moods: list[Any] = []
        self.retry_after: str | None = "0"
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.counts: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.most_px: int | None = None
        """More pixels than these are too many for the memory of the service."""
        self.page_rows: int | None = None
        self.token: str | None = None
        """What a request must bear."""
        self.token_answer: tuple[int, dict[str, Any]] = (200, {})
        self.drops = 0
        """How many bytes somebody waited for whom they were sent to one by one."""
        self.latency_s = 0.0
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def wanted(self, kind: str) -> list[dict[str, Any]]:
        return [body for path, body in self.asked if path == kind]

    def table(self, body: dict[str, Any]) -> dict[str, Any]:
        found = evaluate(self.collections, body["expression"])
        start = int(body.get("pageToken") or 0)
        size = min(int(body.get("pageSize") or 1000), self.page_rows or 1000)
        page = found[start : start + size]
        assert all(isinstance(one, Feature) for one in page)
        answer: dict[str, Any] = {
            "type": "FeatureCollection",
            "features": [
                {
                    "type": "Feature",
                    "id": one.properties["system:index"],
                    "geometry": shapely.geometry.mapping(one.geometry),
                    "properties": {key: value for key, value in one.properties.items() if key != "system:index"},
                }
                for one in page
            ],
        }
        if start + size < len(found):
            answer["nextPageToken"] = str(start + size)
        return answer

    def pixels(self, body: dict[str, Any]) -> bytes:
        if body["fileFormat"] != "NPY":
            raise EvaluationError(f"this server has no format {body['fileFormat']}")
        size = body["grid"]["dimensions"]
        if max(size.values()) > MOST_SIDE_PX:
            raise EvaluationError(f"Pixel grid dimensions ({size}) must be less than or equal to {MOST_SIDE_PX}.")
        image = evaluate(self.collections, body["expression"])
        count = size["width"] * size["height"]
        bands = body.get("bandIds") or list(image.bands)
        if len(bands) > 1024:
            raise EvaluationError("Too many bands.")
        total = count * sum(np.dtype(image.bands[name].dtype).itemsize for name in bands if name in image.bands)
        if total > MOST_BYTES:
            raise EvaluationError(
                f"Total request size ({total} bytes) must be less than or equal to {MOST_BYTES} bytes."
            )
        if self.most_px is not None and count > self.most_px:
            raise EvaluationError("User memory limit exceeded.")
        buffer = io.BytesIO()
        np.save(buffer, pixels_of(image, bands, body["grid"]))
        return buffer.getvalue()


class _Handler(BaseHTTPRequestHandler):
    service: EarthEngine
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, body: bytes, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), "Content-Type": kind, **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, message: str) -> None:
        said = {"error": {"code": status, "message": message, "status": "FAILED"}}
        retry = self.service.retry_after
        more = {"Retry-After": retry} if status == 429 and retry is not None else {}
        self._send(json.dumps(said).encode(), status, **more)

    def _may(self) -> bool:
        bearer = self.headers.get("Authorization", "")
        if self.service.token is None or bearer == f"Bearer {self.service.token}":
            return True
        self._error(401, "Request had invalid authentication credentials.")
        return False

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.service.counts[path] += 1
        if path == "/$discovery/rest":
            self._send(discovery())
        elif not self._may():
            return
        elif path.endswith("/algorithms"):
            self._send(algorithms())
        else:
            self._error(404, f"There is no {path}.")

    def do_POST(self) -> None:
        service = self.service
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        path = urlsplit(self.path).path
        service.counts[path] += 1
        if path == "/token":
            status, more = service.token_answer
            said = {"access_token": service.token, "expires_in": 3600, "token_type": "Bearer", **more}
            self._send(json.dumps(said).encode(), status)
            return
        if not self._may():
            return
        kind, body = path.rpartition("/")[2], json.loads(raw)
        with service.lock:
            service.asked.append((kind, body))
            service.headers.append(dict(self.headers.items()))
            service.at_once += 1
            service.most_at_once = max(service.most_at_once, service.at_once)
            mood = service.moods.pop(0) if service.moods else None
        try:
            time.sleep(service.latency_s)
            self._answer(kind, body, mood)
        finally:
            with service.lock:
                service.at_once -= 1

    def _answer(self, kind: str, body: dict[str, Any], mood: Any) -> None:
        if isinstance(mood, int):
            self._error(mood, "Too many requests." if mood == 429 else "The service is currently unavailable.")
        elif isinstance(mood, tuple):
            self._error(*mood)
        elif isinstance(mood, bytes):
            self._send(mood, kind="application/octet-stream")
        elif mood == "reset":
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"\x93NUMPY")
            self.close_connection = True
        elif mood == "drops":
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            for _ in range(100):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    break
                self.service.drops += 1
                time.sleep(0.05)
            self.close_connection = True
        else:
            try:
                if kind == "table:computeFeatures":
                    self._send(json.dumps(self.service.table(body)).encode())
                elif kind == "image:computePixels":
                    self._send(self.service.pixels(body), kind="application/octet-stream")
                else:
                    self._error(404, f"There is no {kind}.")
            except EvaluationError as error:
                self._error(400, str(error))
            except Exception as error:  # a fault of this server: seen by the test, not waited out
                self._error(418, f"{type(error).__name__}: {error}")
                raise


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked may have left before the answer."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


@contextmanager
def served(service: EarthEngine) -> Iterator[EarthEngine]:
    handler = type("Handler", (_Handler,), {"service": service})
    server = _Server(("127.0.0.1", 0), handler)
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def initialise(url: str) -> None:
    """The client as a notebook has it: signed in already, with nobody's credentials, at another address."""
    ee.Reset()
    ee.Initialize(None, url=url, project=PROJECT)
    ee.data.setMaxRetries(0)
