"""Stand-ins for the three clouds on this machine, each started for a test: moto, a GCS emulator and Azurite."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse
from xml.sax.saxutils import escape

import pytest

BUCKET = "corpora"
# Published by Microsoft for every emulator: no secret.
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
FAST = {"max_retries": 1}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def a_place(scheme: str) -> str:
    # moto keeps what it holds beyond the end of a server.
    return f"{scheme}://{BUCKET}/{uuid.uuid4().hex}/one.zarr"


class Cloud:
    """An address, what opens it, and a way to pull its plug."""

    def __init__(self, url: str, options: dict[str, Any], requests: list[tuple[str, str]] | None = None) -> None:
        self.url, self.options = url, options
        self.requests = requests if requests is not None else []


@contextmanager
def amazon() -> Iterator[Cloud]:
    pytest.importorskip("moto", reason="moto is not installed: pip install 'moto[server]'")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys).create_bucket(Bucket=BUCKET)
    options = {
        "endpoint": f"http://127.0.0.1:{port}", "access_key_id": "test", "secret_access_key": "test",
        "region": "us-east-1", "client_options": {"allow_http": True}, "retry_config": FAST,
    }  # fmt: skip
    try:
        yield Cloud(a_place("s3"), options)
    finally:
        server.stop()


@contextmanager
def google(fail_after: int | None = None) -> Iterator[Cloud]:
    """gcp-storage-emulator, with the calls of Google's XML interface that it lacks; broken after so many uploads."""
    pytest.importorskip("gcp_storage_emulator", reason="no GCS emulator: pip install gcp-storage-emulator")
    from http.server import ThreadingHTTPServer

    from gcp_storage_emulator.handlers import buckets
    from gcp_storage_emulator.server import RequestHandler
    from gcp_storage_emulator.storage import Storage

    storage = Storage(use_memory_fs=True)
    buckets.create_bucket(BUCKET, storage)
    requests: list[tuple[str, str]] = []
    left = [float("inf") if fail_after is None else fail_after]

    class Xml(RequestHandler):
        """Objects with their headers, and the list of a bucket."""

        protocol_version = "HTTP/1.1"

        def __init__(self, *args: Any) -> None:
            super().__init__(storage, *args)

        def _name(self) -> tuple[str, str]:
            bucket, _, name = unquote(urlparse(self.path).path).lstrip("/").partition("/")
            return bucket, name

        def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.send_header("Content-Length", headers.get("x_length", str(len(body))))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _read(self, *, body: bool) -> None:
            bucket, name = self._name()
            requests.append((self.command, name))
            if not name:
                return self._list(bucket)
            try:
                data, told = storage.get_file(bucket, name), storage.get_file_obj(bucket, name)
            except Exception:
                return self._answer(404)
            meta = {f"x-goog-meta-{key}": value for key, value in (told.get("metadata") or {}).items()}
            headers = {"ETag": f'"{told["md5Hash"]}"', "Last-Modified": formatdate(usegmt=True), **meta}
            asked = self.headers.get("Range")
            if asked and body:
                first, last = asked.removeprefix("bytes=").split("-")
                start = int(first) if first else len(data) - int(last)
                stop = int(last) + 1 if first and last else len(data)
                span = f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"
                return self._answer(206, data[start:stop], **headers, **{"Content-Range": span})
            self._answer(200, data if body else b"", **headers, **({} if body else {"x_length": str(len(data))}))

        def do_GET(self) -> None:
            self._read(body=True)

        def do_HEAD(self) -> None:
            self._read(body=False)

        def do_PUT(self) -> None:
            bucket, name = self._name()
            data = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append(("PUT", name))
            left[0] -= 1
            if left[0] < 0:
                self.close_connection = True
                return self._answer(500)
            start = "x-goog-meta-"
            meta = {key[len(start) :]: value for key, value in self.headers.items() if key.lower().startswith(start)}
            from gcp_storage_emulator.handlers.objects import _checksums, _make_object_resource

            told = _checksums(data, _make_object_resource("", bucket, name, "", str(len(data))))
            storage.create_file(bucket, name, data, told | {"metadata": meta})
            self._answer(200, ETag=f'"{told["md5Hash"]}"')

        def do_DELETE(self) -> None:
            bucket, name = self._name()
            requests.append(("DELETE", name))
            try:
                storage.delete_file(bucket, name)
            except Exception:
                return self._answer(404)
            self._answer(204)

        def _list(self, bucket: str) -> None:
            prefix = parse_qs(urlparse(self.path).query).get("prefix", [""])[0]
            rows = []
            for told in storage.get_file_list(bucket, prefix)[0]:
                rows.append(
                    f"<Contents><Key>{escape(told['name'])}</Key><Size>{told['size']}</Size><ETag>e</ETag>"
                    "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                )
            text = f"<ListBucketResult>{''.join(rows)}<IsTruncated>false</IsTruncated></ListBucketResult>"
            self._answer(200, text.encode(), Content_Type="application/xml")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Xml)
    server.daemon_threads = True
    import threading

    threading.Thread(target=server.serve_forever, daemon=True).start()
    key = {
        "gcs_base_url": f"http://127.0.0.1:{server.server_port}", "disable_oauth": True, "client_email": "",
        "private_key": "", "private_key_id": "",
    }  # fmt: skip
    options = {
        "service_account_key": json.dumps(key), "client_options": {"allow_http": True}, "retry_config": FAST,
    }  # fmt: skip
    cloud = Cloud(a_place("gs"), options, requests)
    cloud.mend = lambda: left.__setitem__(0, float("inf"))  # type: ignore[attr-defined]
    try:
        yield cloud
    finally:
        server.shutdown()
        server.server_close()


def azurite_program() -> str | None:
    beside = Path(sys.prefix, "azurite", "node_modules", ".bin", "azurite-blob")
    return str(beside) if beside.exists() else shutil.which("azurite-blob")


@contextmanager
def azure(folder: Path) -> Iterator[Cloud]:
    program = azurite_program()
    if program is None:
        pytest.skip("Azurite is not installed: sh tests/corpus/ensure_azurite.sh")
    port = free_port()
    words = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder), "--silent"]
    words += ["--skipApiVersionCheck", "--disableTelemetry"]
    process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(150):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        options = {
            "account_name": "devstoreaccount1", "account_key": AZURITE_KEY,
            "endpoint": f"http://127.0.0.1:{port}/devstoreaccount1", "client_options": {"allow_http": True},
            "retry_config": FAST,
        }  # fmt: skip
        _make_container(port)
        yield Cloud(a_place("az"), options)
    finally:
        process.terminate()
        process.wait(10)


def _make_container(port: int) -> None:
    """One signed request, so that no SDK of Azure's is needed for it."""
    import base64
    import hashlib
    import hmac

    import requests

    stamp = formatdate(usegmt=True)
    head = {"x-ms-date": stamp, "x-ms-version": "2021-08-06"}
    signed = "\n".join(f"{key}:{value}" for key, value in head.items())
    what = f"PUT{chr(10) * 12}{signed}\n/devstoreaccount1/devstoreaccount1/{BUCKET}\nrestype:container"
    digest = hmac.new(base64.b64decode(AZURITE_KEY), what.encode(), hashlib.sha256).digest()
    head["Authorization"] = f"SharedKey devstoreaccount1:{base64.b64encode(digest).decode()}"
    url = f"http://127.0.0.1:{port}/devstoreaccount1/{BUCKET}?restype=container"
    requests.put(url, headers=head, timeout=10).raise_for_status()
