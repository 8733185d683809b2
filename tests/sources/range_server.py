"""A web server on this machine that serves a folder in byte ranges, keeps a log of them, and misbehaves on request."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


@dataclass
class Request:
    """One GET, as it was answered."""

    path: str
    first: int
    sent: int
    status: int
    connection: int


@dataclass
class RangeServer:
    """Serves `folder`; `misbehave(path, nth request for it)` may return (status, headers) to answer instead."""

    folder: Path
    misbehave: Callable[[str, int], tuple[int, dict[str, str]] | None] = lambda path, nth: None
    ignores_ranges: bool = False
    log: list[Request] = field(default_factory=list)
    url: str = ""

    def start(self) -> RangeServer:
        owner, lock, seen = self, threading.Lock(), Counter[str]()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # One packet for head and body: two of them meet delayed acknowledgement, 40 ms a request.
            wbufsize = -1

            def do_GET(self) -> None:
                path = urlsplit(self.path).path.lstrip("/")
                with lock:
                    seen[path] += 1
                    nth = seen[path]
                answer = owner.misbehave(self.path, nth)
                file = owner.folder / path
                if answer is None and not file.is_file():
                    answer = (404, {})
                body, first, headers = b"", 0, {}
                if answer is not None:
                    status, headers = answer
                    body = b"<Error>no</Error>" if "Location" not in headers else b""
                else:
                    data = file.read_bytes()
                    wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                    if wanted is None or owner.ignores_ranges:
                        status, body = 200, data
                    else:
                        first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
                        status, body = (206, data[first : last + 1]) if first < len(data) else (416, b"")
                        headers = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                with lock:
                    owner.log.append(Request(path, first, len(body), status, self.client_address[1]))

            def do_HEAD(self) -> None:
                file = owner.folder / urlsplit(self.path).path.lstrip("/")
                self.send_response(200 if file.is_file() else 404)
                self.send_header("Content-Length", str(file.stat().st_size if file.is_file() else 0))
                self.send_header("Accept-Ranges", "bytes")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
