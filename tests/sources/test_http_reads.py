"""What reading over HTTP costs, counted at the server, and what happens when the server misbehaves."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from range_server import RangeServer

from deepsentinel.errors import ReadError
from deepsentinel.sources.engine import Want, iter_wants, read_wants, remote
from deepsentinel.sources.engine.remote import NotLaidOut, RemoteTiff

UTM31 = "EPSG:32631"
WEST, NORTH = 600_000.0, 5_500_020.0
SIZE, BLOCK = 1500, 256


def grid_at(row: int, col: int, size: int = 256, resolution: float = 10.0) -> GeoBox:
    return GeoBox((size, size), Affine(resolution, 0, WEST + col * 10, 0, -resolution, NORTH - row * 10), UTM31)


def make_cog(path: Path, values: np.ndarray, *, driver: str = "COG", **options: Any) -> np.ndarray:
    values = values if values.ndim == 3 else values[None]
    options = {"compress": "deflate", **({"blocksize": BLOCK} if driver == "COG" else {}), **options}
    count, height, width = values.shape
    transform = Affine(10, 0, WEST, 0, -10, NORTH)
    with rasterio.open(
        path, "w", driver, width, height, count, crs=UTM31, transform=transform, dtype=values.dtype, **options
    ) as file:
        file.write(values)
    return values[0]


def noise(seed: int, size: int = SIZE, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 4000, (size, size)).astype(dtype)


def touched_bytes(path: Path, grid: GeoBox, band: int = 1) -> int:
    """The compressed size of the blocks under a grid, as GDAL tells it."""
    with rasterio.open(path) as file:
        left, top = (grid.affine.c - WEST) / 10, (NORTH - grid.affine.f) / 10
        rows, cols = file.block_shapes[0]
        total = 0
        for y in range(int(top) // rows, int(top + grid.shape[0] - 1) // rows + 1):
            for x in range(int(left) // cols, int(left + grid.shape[1] - 1) // cols + 1):
                total += int(file.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=band))
    return total


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with COGs of the usual kind, uint16 and float32."""
    folder = tmp_path_factory.mktemp("scenes")
    for n in range(6):
        make_cog(folder / f"s2_{n}.tif", noise(n), predictor=2, nodata=0)
    for n in range(2):
        make_cog(folder / f"s1_{n}.tif", noise(n, dtype="float32"), predictor=3, nodata=-32768, bigtiff="yes")
    return folder


@pytest.fixture
def server(scenes: Path) -> Iterator[RangeServer]:
    running = RangeServer(scenes).start()
    yield running
    running.stop()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BACKOFF_S", 0.01)


def local(want: Want, server: RangeServer) -> np.ndarray | Exception:
    """The same want, of the file on disk."""
    path = want.href.partition("?")[0].replace(server.url, str(server.folder))
    return read_wants([Want(path, want.grid, want.band, want.resampling)])[0]


def assert_like_local(results: list[np.ndarray | Exception], wants: list[Want], server: RangeServer) -> None:
    for result, want in zip(results, wants, strict=True):
        if isinstance(result, Exception):
            raise result
        np.testing.assert_array_equal(result, local(want, server))


def test_one_patch_a_scene_costs_two_requests_and_its_blocks(server: RangeServer) -> None:
    """The real workload. After one request for the header: a range for each row of blocks, and nothing beside them."""
    names = sorted(file.name for file in server.folder.iterdir())
    rng = np.random.default_rng(1)
    spent, needed = 0, 0
    for _ in range(6):
        wants = [Want(f"{server.url}/{name}", grid_at(*rng.integers(0, SIZE - 256, 2))) for name in names]
        server.log.clear()
        assert_like_local(read_wants(wants, threads=2), wants, server)
        for name, want in zip(names, wants, strict=True):
            requests = [r for r in server.log if r.path == name]
            assert requests[0].first == 0
            assert requests[0].sent <= remote.HEADER_BYTES
            assert 1 <= len(requests) - 1 <= 2
            sent, blocks = sum(r.sent for r in requests[1:]), touched_bytes(server.folder / name, want.grid)
            assert sent <= 1.1 * blocks
            spent, needed = spent + sent, needed + blocks
        # Threads keep their connections: no more of them than threads.
        assert len({r.connection for r in server.log}) <= 2
    assert spent <= 1.01 * needed


def test_each_byte_is_fetched_once(server: RangeServer) -> None:
    """Thirty overlapping patches of one file: no byte of a block twice, whatever the threads."""
    rng = np.random.default_rng(2)
    wants = [Want(f"{server.url}/s2_0.tif", grid_at(*rng.integers(0, SIZE - 256, 2))) for _ in range(30)]
    for threads in (1, 4):
        server.log.clear()
        assert_like_local(read_wants(wants, threads=threads), wants, server)
        spans = sorted((r.first, r.first + r.sent) for r in server.log[1:])
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))
        assert sum(r.first == 0 for r in server.log) == 1


def test_a_stream_over_http(server: RangeServer) -> None:
    wants = [Want(f"{server.url}/s2_{n // 5}.tif", grid_at(40 * n, 30 * n)) for n in range(30)]
    results = [pixels for group in iter_wants([[want] for want in wants]) for pixels in group]
    assert_like_local(results, wants, server)


TILED = {"driver": "GTiff", "tiled": True}


@pytest.mark.parametrize(
    ("options", "dtype", "bands"),
    [
        ({"compress": "lzw"}, "uint16", 1),
        ({"compress": "zstd", "bigtiff": "yes"}, "uint16", 1),
        ({"compress": "none"}, "uint16", 1),
        ({"compress": "lerc"}, "float32", 1),
        ({"sparse_ok": True}, "uint16", 1),
        ({**TILED, "interleave": "band", "blockxsize": 128, "blockysize": 64}, "uint16", 3),
        ({**TILED, "interleave": "pixel"}, "uint16", 3),
        ({**TILED, "endianness": "big"}, "int16", 1),
        ({**TILED, "blockxsize": 16, "blockysize": 16}, "uint8", 1),  # its directory exceeds the first request
        ({**TILED, "blockxsize": 2048, "blockysize": 2048}, "uint16", 1),  # its directory holds a single offset
        ({"driver": "GTiff", "tiled": False}, "uint16", 1),
        ({"driver": "JP2OpenJPEG", "quality": "100", "reversible": "yes", "compress": None}, "uint16", 1),
    ],
)
def test_any_layout_reads_the_same(tmp_path: Path, options: dict[str, Any], dtype: str, bands: int) -> None:
    values = np.stack([noise(n, 700, dtype) for n in range(bands)])
    values[:, 256:512] = 0  # blocks that a sparse file does not store
    name = "any.jp2" if "JP2" in options.get("driver", "") else "any.tif"
    make_cog(tmp_path / name, values, **options)
    server = RangeServer(tmp_path).start()
    corners = [(0, 0), (240, 130), (600, -50)]
    wants = [Want(f"{server.url}/{name}", grid_at(*corner), band=b + 1) for corner in corners for b in range(bands)]
    try:
        assert_like_local(read_wants(wants, threads=2), wants, server)
        assert all(r.status == 206 for r in server.log)  # never the whole file
    finally:
        server.stop()


def test_a_directory_at_the_end_is_left_to_gdal(tmp_path: Path) -> None:
    """A file written block by block and closed late keeps its directory behind the pixels."""
    path = tmp_path / "late.tif"
    make_cog(path, noise(1, 700), driver="GTiff", tiled=True)
    with rasterio.open(path, "r+") as file:
        file.update_tags(history="x" * 5000)  # no room where it was: rewritten at the end
    server = RangeServer(tmp_path).start()
    try:
        wants = [Want(f"{server.url}/late.tif", grid_at(100, 100))]
        assert_like_local(read_wants(wants), wants, server)
    finally:
        server.stop()


def test_overviews_are_fetched_instead_of_the_file(tmp_path: Path) -> None:
    values = noise(3, 2048)
    make_cog(tmp_path / "large.tif", values, overview_resampling="average")
    server = RangeServer(tmp_path).start()
    try:
        want = Want(f"{server.url}/large.tif", grid_at(0, 0, 32, 640.0), resampling="average")
        assert_like_local(read_wants([want]), [want], server)
        assert sum(r.sent for r in server.log) < 0.05 * (tmp_path / "large.tif").stat().st_size
    finally:
        server.stop()


def test_a_signature_travels_and_stays_secret(server: RangeServer) -> None:
    token = "st=2026&sig=a%2Bb%2F%3D&sp=rl"
    server.misbehave = lambda path, nth: None if path.endswith(token) else (403, {})
    grid = grid_at(700, 300)
    good, bad = read_wants([Want(f"{server.url}/s2_1.tif?{t}", grid) for t in (token, "sig=old-secret")])
    np.testing.assert_array_equal(good, local(Want(f"{server.url}/s2_1.tif", grid), server))
    assert isinstance(bad, ReadError)
    assert "s2_1.tif" in str(bad)
    assert "403" in str(bad)
    assert "expired" in str(bad)
    assert "secret" not in str(bad)
    assert sum(r.status == 403 for r in server.log) == 1  # asking again would not help


def test_a_redirection_is_followed_once(server: RangeServer) -> None:
    server.misbehave = lambda path, nth: (302, {"Location": f"{server.url}/s2_2.tif"}) if "alias" in path else None
    want = Want(f"{server.url}/alias.tif", grid_at(300, 300))
    (got,) = read_wants([want])
    np.testing.assert_array_equal(got, local(Want(f"{server.url}/s2_2.tif", want.grid), server))
    assert sum(r.status == 302 for r in server.log) == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: RangeServer, status: int) -> None:
    server.misbehave = lambda path, nth: (status, {}) if nth in (1, 3) else None
    wants = [Want(f"{server.url}/s2_{n}.tif", grid_at(100, 500)) for n in range(3)]
    assert_like_local(read_wants(wants, threads=2), wants, server)


def test_a_server_may_say_how_long_to_wait(server: RangeServer) -> None:
    server.misbehave = lambda path, nth: (429, {"Retry-After": "1"}) if nth == 1 else None
    want = Want(f"{server.url}/s2_3.tif", grid_at(0, 0))
    start = time.monotonic()
    assert_like_local(read_wants([want]), [want], server)
    assert 1.0 <= time.monotonic() - start < 3.0


@pytest.mark.usefixtures("quick")
def test_patience_ends_and_the_others_are_read(server: RangeServer) -> None:
    answers = {"s2_0": (503, {}), "s2_1": (429, {"Retry-After": "86400"}), "gone": (404, {}), "closed": (409, {})}
    server.misbehave = lambda path, nth: next((a for name, a in answers.items() if name in path), None)
    names = ["s2_0", "s2_2", "s2_1", "gone", "s2_3", "closed"]
    wants = [Want(f"{server.url}/{name}.tif", grid_at(50, 60)) for name in names]
    start = time.monotonic()
    results = read_wants(wants, threads=3)
    assert time.monotonic() - start < 5
    said = {name: str(result) for name, result in zip(names, results, strict=True) if isinstance(result, ReadError)}
    assert_like_local([results[1], results[4]], [wants[1], wants[4]], server)
    assert sorted(said) == ["closed", "gone", "s2_0", "s2_1"]
    assert all(f"{name}.tif" in text for name, text in said.items())
    assert "5 tries" in said["s2_0"]
    assert "503" in said["s2_0"]
    assert "86400 s" in said["s2_1"]
    assert "404" in said["gone"]
    assert "signed" in said["closed"]
    assert sum(r.path == "s2_0.tif" for r in server.log) == remote.TRIES


@pytest.mark.usefixtures("quick")
def test_a_server_that_is_not_there() -> None:
    (result,) = read_wants([Want("http://127.0.0.1:9/a.tif?sig=secret", grid_at(0, 0))])
    assert isinstance(result, ReadError)
    assert "127.0.0.1:9/a.tif" in str(result)
    assert "network" in str(result)
    assert "secret" not in str(result)


def test_a_truncated_upload_gives_what_it_has(tmp_path: Path) -> None:
    values = make_cog(tmp_path / "whole.tif", noise(5), overviews="none")
    data = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) // 2])
    (tmp_path / "stub.tif").write_bytes(data[:100])
    (tmp_path / "page.tif").write_text("<html>Please log in</html>" * 9)
    server = RangeServer(tmp_path).start()
    try:
        top, bottom, stub, page = read_wants(
            [
                Want(f"{server.url}/cut.tif", grid_at(0, 0)),
                Want(f"{server.url}/cut.tif", grid_at(1200, 0)),
                Want(f"{server.url}/stub.tif", grid_at(0, 0)),
                Want(f"{server.url}/page.tif", grid_at(0, 0)),
            ]
        )
        np.testing.assert_array_equal(top, values[:256, :256])
        for broken, name in [(bottom, "cut.tif"), (stub, "stub.tif")]:
            assert isinstance(broken, ReadError)
            assert name in str(broken)
            assert "truncated" in str(broken)
        assert isinstance(page, ReadError)
        assert "page.tif" in str(page)
    finally:
        server.stop()


def test_a_server_without_ranges_still_serves(server: RangeServer) -> None:
    server.ignores_ranges = True
    wants = [Want(f"{server.url}/s2_4.tif", grid_at(r, r)) for r in (0, 400, 1000)]
    assert_like_local(read_wants(wants), wants, server)
    assert len(server.log) == 1


def test_directories_that_point_back_at_each_other_end() -> None:
    entries = [(256, 512), (257, 512), (322, 512), (323, 512), (324, 4096), (325, 100)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = b"II" + struct.pack("<HIH", 42, 8, len(entries)) + body + struct.pack("<I", 8)
    data = head.ljust(64 * 1024, b"\0")
    tiff = RemoteTiff("https://a.org/b.tif", overviews=False, read=lambda first, count: data[first : first + count])
    assert tiff.shape(0) == (512, 512)
    with pytest.raises(NotLaidOut):
        RemoteTiff("https://a.org/b.tif", overviews=True, read=lambda first, count: data[first : first + count])
