"""Whether a source is gone is asked of the source, not of what GDAL remembers of its files."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

from deepsentinel.corpus.worker import _opens
from deepsentinel.sources.engine.rasters import looked_into


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def test_a_server_that_stopped_is_gone_though_its_files_were_opened_before(tmp_path: Path) -> None:
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 1, "dtype": "uint16", "crs": "EPSG:32631"}
    with rasterio.open(tmp_path / "b.tif", "w", **profile, transform=from_origin(5e5, 5.4e6, 10, 10)) as file:
        file.write(np.ones((1, 64, 64), "uint16"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    href = f"http://127.0.0.1:{server.server_port}/b.tif"
    source = SimpleNamespace(
        items_of=lambda sensor, names: {name: {} for name in names},
        assets_of=lambda item: {"B04": SimpleNamespace(href=href, key="B04")},
        resolve=lambda href, item, key: href,
        gdal_options=dict,
    )
    try:
        with looked_into(href, {}) as opened:
            assert opened.width == 64
        assert _opens(source, "S2", "one")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    with looked_into(href, {}) as opened:
        assert opened.width == 64, "GDAL remembers it, or this shows nothing"
    assert not _opens(source, "S2", "one")
