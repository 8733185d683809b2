"""Whether a source is gone is asked of the source, not of what GDAL remembers of its files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from deepsentinel.corpus.worker import _opens
from deepsentinel.sources.engine.rasters import looked_into


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def written(folder: Path) -> Path:
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 1, "dtype": "uint16", "crs": "EPSG:32631"}
    with rasterio.open(folder / "b.tif", "w", **profile, transform=from_origin(5e5, 5.4e6, 10, 10)) as file:
        file.write(np.ones((1, 64, 64), "uint16"))
    return folder / "b.tif"


def source_of(href: str, **options: str) -> Any:
    return SimpleNamespace(
        items_of=lambda sensor, names: {name: {} for name in names},
        assets_of=lambda item: {"B04": SimpleNamespace(href=href, key="B04")},
        resolve=lambda href, item, key: href,
        gdal_options=lambda: options,
    )


@contextmanager
def serving(handler: Any) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/b.tif"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_server_that_stopped_is_gone_though_its_files_were_opened_before(tmp_path: Path) -> None:
    written(tmp_path)
    with serving(partial(Quiet, directory=str(tmp_path))) as href:
        with looked_into(href, {}) as opened:
            assert opened.width == 64
        assert _opens(source_of(href), "S2", "one")
        with looked_into(href, {}) as opened:
            assert opened.width == 64
    with looked_into(href, {}) as opened:
        assert opened.width == 64, "GDAL remembers it, or this shows nothing"
    assert not _opens(source_of(href), "S2", "one")


def test_a_server_that_answers_everything_with_a_page_is_gone() -> None:
    class Down(Quiet):
        def do_GET(self) -> None:
            page = b"<!DOCTYPE html><html>Down for maintenance, back soon</html>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(page)

        do_HEAD = do_GET

    with serving(Down) as href:
        assert not _opens(source_of(href), "S2", "one")


def test_a_store_that_stopped_is_gone_though_its_files_were_opened_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto = pytest.importorskip("moto.server", reason="buckets on this machine need moto")
    import boto3

    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host = f"127.0.0.1:{server.get_host_and_port()[1]}"
        client = boto3.client("s3", endpoint_url=f"http://{host}")
        client.create_bucket(Bucket="gone")
        client.upload_file(str(written(tmp_path)), "gone", "b.tif")
        options = {"AWS_S3_ENDPOINT": host, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"}
        source = source_of("s3://gone/b.tif", **options)
        with looked_into("s3://gone/b.tif", options) as opened:
            assert opened.width == 64
        assert _opens(source, "S2", "one")
        with looked_into("s3://gone/b.tif", options) as opened:
            assert opened.width == 64
    finally:
        server.stop()
    with looked_into("s3://gone/b.tif", options) as opened:
        assert opened.width == 64, "GDAL remembers it, or this shows nothing"
    assert not _opens(source, "S2", "one")
