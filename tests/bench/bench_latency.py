"""What waiting for a server costs: 32 patches over HTTP with 50 ms of latency per request, against none.

32 scenes of ten bands, 512 px in blocks of 256, each patch 128 px of another scene: 640 requests. The server runs in a
process of its own. The two run in turn, and what is printed are their ratios and the median.

`python tests/bench/bench_latency.py [repeats] [threads]`
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from deepsentinel.sources.engine import Want, read_wants

PATCHES, BANDS, SIZE, PATCH, LATENCY_S = 32, 10, 512, 128, 0.05
WEST, NORTH, CRS = 500_000.0, 5_500_020.0, "EPSG:32631"

SERVER = """
import sys, time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
folder, latency_s = Path(sys.argv[1]), float(sys.argv[2])
files = {path.name: path.read_bytes() for path in folder.iterdir()}
class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    def log_message(self, *args):
        pass
    def do_GET(self):
        data = files[self.path.strip("/").split("/")[-1]]
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        first, end = int(first), min(int(last), len(data) - 1)
        time.sleep(latency_s)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{end}/{len(data)}")
        self.send_header("Content-Length", str(end + 1 - first))
        self.end_headers()
        self.wfile.write(data[first : end + 1])
class Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 256
server = Server(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever(0.05)
"""


def make_files(folder: Path) -> None:
    """A few scenes' worth of bands; the server gives them many names."""
    rng = np.random.default_rng(0)
    for band in range(BANDS):
        values = rng.integers(200, 4000, (SIZE, SIZE)).astype("uint16")
        with rasterio.open(
            folder / f"{band}.tif", "w", "COG", SIZE, SIZE, 1, CRS, Affine(10, 0, WEST, 0, -10, NORTH), "uint16", 0,
            compress="deflate", predictor=2, blocksize=256,
        ) as file:  # fmt: skip
            file.write(values, 1)


def main(repeats: int, threads: int | None) -> None:
    with tempfile.TemporaryDirectory(prefix="deepsentinel-bench-") as temporary:
        make_files(Path(temporary))
        servers = [
            subprocess.Popen(
                [sys.executable, "-c", SERVER, temporary, str(latency_s)], stdout=subprocess.PIPE, text=True
            )
            for latency_s in (0.0, LATENCY_S)
        ]
        try:
            urls = [f"http://127.0.0.1:{server.stdout.readline().strip()}" for server in servers if server.stdout]

            def read(url: str, run: int) -> float:
                wants = [
                    Want(f"{url}/{run}-{scene}/{band}.tif", grid)
                    for scene in range(PATCHES)
                    for grid in [GeoBox((PATCH, PATCH), Affine(10, 0, WEST + 10.0 * scene, 0, -10, NORTH), CRS)]
                    for band in range(BANDS)
                ]
                began = time.perf_counter()
                got = read_wants(wants, threads=threads)
                assert not any(isinstance(one, Exception) for one in got)
                return time.perf_counter() - began

            for url in urls:
                read(url, -1)
            ratios = []
            for run in range(repeats):
                without, slow = (read(url, run) for url in urls)
                ratios.append(slow / without)
                print(
                    f"run {run + 1}: {without:.2f} s without latency, {slow:.2f} s with: {ratios[-1]:.2f} x", flush=True
                )
            print(f"median: {statistics.median(ratios):.2f} x (asked: 3)")
        finally:
            for server in servers:
                server.terminate()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, int(sys.argv[2]) if len(sys.argv) > 2 else None)
