"""The pixel engine against plain rasterio, WarpedVRT and arithmetic, on local files."""

from __future__ import annotations

import itertools
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from deepsentinel.errors import InputError, ReadError
from deepsentinel.sources.engine import Want, iter_wants, read_wants

UTM31, UTM30 = "EPSG:32631", "EPSG:32630"
WEST, NORTH = 600_000.0, 5_500_020.0  # multiples of 60 m, as Sentinel-2 tiles are


def make_tif(path: Path, values: np.ndarray, *, resolution: float = 10.0, block: int = 64, **profile: Any) -> str:
    """A tiled, compressed GeoTIFF of (bands,) rows, columns."""
    values = values if values.ndim == 3 else values[None]
    settings = {
        "crs": UTM31,
        "transform": Affine(resolution, 0, WEST, 0, -resolution, NORTH),
        "tiled": True,
        "blockxsize": block,
        "blockysize": block,
        "compress": "deflate",
        **profile,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    count, height, width = values.shape
    with rasterio.open(path, "w", "GTiff", width, height, count, dtype=values.dtype, **settings) as file:
        file.write(values)
    return str(path)


def grid_at(row: float, col: float, shape: tuple[int, int], resolution: float = 10.0, crs: str = UTM31) -> GeoBox:
    """A grid whose corner lies `row` and `col` pixels of its own from the corner of the files here."""
    return GeoBox(shape, Affine(resolution, 0, WEST + col * resolution, 0, -resolution, NORTH - row * resolution), crs)


def cut(values: np.ndarray, row: int, col: int, shape: tuple[int, int], fill: float) -> np.ndarray:
    """What a grid must hold, by numpy alone."""
    out = np.full(shape, fill, values.dtype)
    for y, x in itertools.product(range(shape[0]), range(shape[1])):
        if 0 <= row + y < values.shape[0] and 0 <= col + x < values.shape[1]:
            out[y, x] = values[row + y, col + x]
    return out


def arrays(results: list[np.ndarray | Exception]) -> list[np.ndarray]:
    """The results, none of which may have failed."""
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results  # type: ignore[return-value]


@pytest.fixture
def field(tmp_path: Path) -> tuple[str, np.ndarray]:
    """A file of 300 x 260 pixels, and its values, none of them 0."""
    values = np.random.default_rng(1).integers(1, 9000, (300, 260)).astype("uint16")
    return make_tif(tmp_path / "field.tif", values, nodata=0), values


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "shape": (draw(st.integers(1, 3)), draw(st.integers(20, 150)), draw(st.integers(20, 150))),
        "dtype": draw(st.sampled_from(["uint8", "uint16", "int16", "float32", "float64"])),
        "profile": {
            "block": draw(st.sampled_from([16, 32, 64, 128])),
            "tiled": draw(st.booleans()),
            "interleave": draw(st.sampled_from(["pixel", "band"])),
            "compress": draw(st.sampled_from(["deflate", "lzw", "zstd", None])),
            "nodata": draw(st.sampled_from([None, 0, 7])),
        },
        "seed": draw(st.integers(0, 9)),
    }


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, int, tuple[int, int]]:
    return (
        draw(st.integers(-90, 170)),
        draw(st.integers(-90, 170)),
        (draw(st.integers(1, 90)), draw(st.integers(1, 90))),
    )


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout=layouts(), places=st.lists(windows(), min_size=1, max_size=6), threads=st.sampled_from([1, 2, 5]))
def test_windows_on_the_lattice_are_exact(
    tmp_path: Path, layout: dict[str, Any], places: list[tuple[int, int, tuple[int, int]]], threads: int
) -> None:
    """Any layout, any window: inside, over an edge, outside."""
    values = np.random.default_rng(layout["seed"]).integers(0, 200, layout["shape"]).astype(layout["dtype"])
    profile = layout["profile"]
    strips = {} if profile["tiled"] else {"blockxsize": None, "blockysize": 8}
    path = make_tif(tmp_path / "any.tif", values, **{**profile, **strips})
    fill = profile["nodata"]
    if fill is None:
        fill = np.nan if values.dtype.kind == "f" else 0
    wants = [
        (Want(path, grid_at(row, col, shape), band=band + 1), cut(values[band], row, col, shape, fill))
        for (row, col, shape), band in itertools.product(places, range(len(values)))
    ]
    for got, (_, expected) in zip(arrays(read_wants([w for w, _ in wants], threads=threads)), wants, strict=True):
        assert got.dtype == values.dtype
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("factor", [2, 6])
@pytest.mark.parametrize("corner", [(0, 0), (1, 5), (37, 90), (-7, -3), (555, 420)])
def test_coarser_files_are_repeated(tmp_path: Path, factor: int, corner: tuple[int, int]) -> None:
    """20 m and 60 m pixels under a 10 m grid: each 10 m pixel takes the one it lies in, also from odd corners."""
    values = np.random.default_rng(2).integers(1, 9000, (100, 90)).astype("uint16")
    path = make_tif(tmp_path / "coarse.tif", values, resolution=10.0 * factor, block=32, nodata=0)
    (got,) = arrays(read_wants([Want(path, grid_at(*corner, (64, 50)))]))
    fine = values.repeat(factor, axis=0).repeat(factor, axis=1)
    np.testing.assert_array_equal(got, cut(fine, *corner, (64, 50), 0))


def test_a_mirrored_file_is_turned_round(tmp_path: Path) -> None:
    """South-up files exist; their rows run the other way, on the same pixels."""
    values = np.arange(1, 80 * 70 + 1, dtype="uint16").reshape(80, 70)
    south_up = Affine(10, 0, WEST, 0, 10, NORTH - 800)
    path = make_tif(tmp_path / "south_up.tif", values, block=16, transform=south_up)
    for resampling in ("nearest", "cubic"):
        (got,) = arrays(read_wants([Want(path, grid_at(13, -4, (50, 40)), resampling=resampling)]))
        np.testing.assert_array_equal(got, cut(values[::-1], 13, -4, (50, 40), 0))


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
def test_same_pixels_need_no_resampling(field: tuple[str, np.ndarray], resampling: str) -> None:
    path, values = field
    # A geotransform from somebody's float32 is off by a hair; that is no shift.
    grid = GeoBox((60, 60), Affine(10, 0, WEST + 500 + 4e-4, 0, -10, NORTH - 700 - 4e-4), UTM31)
    (got,) = arrays(read_wants([Want(path, grid, resampling=resampling)]))
    np.testing.assert_array_equal(got, values[70:130, 50:110])


@pytest.mark.parametrize("step", [3.0, 7.3, 10.0, 25.0, 95.0])
def test_nearest_takes_the_pixel_under_the_centre(field: tuple[str, np.ndarray], step: float) -> None:
    """Off the lattice, finer or coarser, but in the same CRS: by arithmetic, pixel by pixel."""
    path, values = field
    grid = GeoBox((31, 29), Affine(step, 0, WEST + 123.4, 0, -step, NORTH - 321.6), UTM31)
    (got,) = arrays(read_wants([Want(path, grid)]))
    rows = np.floor((321.6 + step * (np.arange(31) + 0.5)) / 10).astype(int)
    cols = np.floor((123.4 + step * (np.arange(29) + 0.5)) / 10).astype(int)
    expected = np.zeros((31, 29), "uint16")
    inside = np.ix_(rows < 300, cols < 260)
    expected[inside] = values[np.ix_(rows[rows < 300], cols[cols < 260])]
    np.testing.assert_array_equal(got, expected)


def smooth_field(shape: tuple[int, int]) -> np.ndarray:
    y, x = np.indices(shape)
    return (2000 + 900 * np.sin(x / 9) * np.cos(y / 7) + 3 * x).astype("float32")


@pytest.mark.parametrize("resampling", ["nearest", "average"])
@pytest.mark.parametrize(("crs", "resolution"), [(UTM30, 10.0), (UTM30, 35.0), ("EPSG:4326", 1e-4), (UTM31, 14.0)])
def test_warps_like_a_warped_vrt(tmp_path: Path, resampling: str, crs: str, resolution: float) -> None:
    """From the smallest window the same comes out as from the whole file."""
    values = smooth_field((400, 380))
    path = make_tif(tmp_path / "smooth.tif", values, nodata=-1)
    with rasterio.open(path) as file:
        left, bottom, right, top = rasterio.warp.transform_bounds(file.crs, crs, *file.bounds)
        for share_x, share_y in [(0.3, 0.4), (-0.02, 0.5), (0.8, -0.02)]:
            corner = (left + (right - left) * share_x, top - (top - bottom) * share_y)
            grid = GeoBox((70, 60), Affine(resolution, 0, corner[0], 0, -resolution, corner[1]), crs)
            with WarpedVRT(
                file,
                crs=crs,
                transform=grid.affine,
                width=60,
                height=70,
                resampling=Resampling[resampling],
                tolerance=0.01,
            ) as vrt:
                expected = vrt.read(1)
            (got,) = arrays(read_wants([Want(path, grid, resampling=resampling)]))
            differs = ~np.isclose(got, expected, atol=1.0 if resampling != "nearest" else 0)
            assert (expected != -1).mean() > 0.05
            assert differs.mean() < 0.003, (differs.mean(), share_x)


@pytest.mark.parametrize("resampling", ["bilinear", "cubic"])
@pytest.mark.parametrize(("crs", "resolution"), [(UTM30, 10.0), (UTM30, 4.0), ("EPSG:4326", 1e-4), (UTM31, 9.7)])
def test_interpolation_hits_the_true_surface(tmp_path: Path, resampling: str, crs: str, resolution: float) -> None:
    """What is interpolated of a known smooth surface is the surface at the pixel's centre, to hundredths of a pixel."""
    y, x = np.indices((400, 380)) + 0.5

    def surface(col: np.ndarray, row: np.ndarray) -> np.ndarray:
        return 1000 + 3 * col - 2 * row + (col - 190) * (row - 200) / 50

    path = make_tif(tmp_path / "surface.tif", surface(x, y))
    centre = rasterio.warp.transform(UTM31, crs, [WEST + 1900], [NORTH - 2000])
    grid = GeoBox((70, 60), Affine(resolution, 0, centre[0][0], 0, -resolution, centre[1][0]), crs)
    row, col = np.indices((70, 60)) + 0.5
    there = centre[0][0] + resolution * col.ravel(), centre[1][0] - resolution * row.ravel()
    east, north = (np.array(v) for v in rasterio.warp.transform(crs, UTM31, *there))
    expected = surface((east - WEST) / 10, (NORTH - north) / 10).reshape(70, 60)
    (got,) = arrays(read_wants([Want(path, grid, resampling=resampling)]))
    np.testing.assert_allclose(got, expected, atol=0.2)  # the surface rises by 3 to 7 a pixel


def test_overlapping_grids_agree_across_zones(tmp_path: Path) -> None:
    """Two patches that share ground show the same there: the warp must not depend on the window."""
    path = make_tif(tmp_path / "noise.tif", np.random.default_rng(3).integers(1, 9999, (400, 380)).astype("uint16"))
    x, y = rasterio.warp.transform(UTM31, UTM30, [WEST + 900], [NORTH - 900])
    grids = [
        GeoBox((120, 120), Affine(10, 0, round(x[0], -1) + 10 * shift, 0, -10, round(y[0], -1) - 10 * shift), UTM30)
        for shift in (0, 50)
    ]
    for resampling in ("nearest", "bilinear"):
        one, other = arrays(read_wants([Want(path, grid, resampling=resampling) for grid in grids]))
        assert (abs(one[50:, 50:].astype(int) - other[:70, :70]) > 3).mean() < 0.002, resampling


@pytest.mark.parametrize("resampling", ["bilinear", "cubic", "average"])
@pytest.mark.parametrize(
    ("dtype", "hole", "own"), [("uint16", 0, None), ("float32", np.nan, None), ("float32", -32768, 5.0)]
)
def test_missing_pixels_do_not_bleed(
    tmp_path: Path, resampling: str, dtype: str, hole: float, own: float | None
) -> None:
    """Level ground with holes stays level: no mixture of ground and hole, whoever says what a hole looks like."""
    values = np.full((200, 200), 1000, dtype)
    values[np.random.default_rng(4).random((200, 200)) < 0.2] = hole
    path = make_tif(tmp_path / "holes.tif", values, nodata=hole if own is None else own)
    grid = GeoBox((80, 80), Affine(13, 0, WEST + 304, 0, -13, NORTH - 306), UTM31)
    (got,) = arrays(read_wants([Want(path, grid, resampling=resampling, nodata=None if own is None else hole)]))
    ground = np.isclose(got, 1000, rtol=1e-5)
    assert (ground | (np.isnan(got) if np.isnan(hole) else got == hole)).all()
    assert ground.mean() > 0.6


def test_decibels_are_averaged_as_power(tmp_path: Path) -> None:
    """Half 0 dB, half -20 dB is 0.505 in power: -2.97 dB, not the -10 dB of a mean of decibels."""
    values = np.zeros((200, 200), "float32")
    values[::2] = -20
    path = make_tif(tmp_path / "db.tif", values, nodata=-99)
    grid = GeoBox((30, 30), Affine(20, 0, WEST + 200, 0, -20, NORTH - 200), UTM31)
    db, plain = arrays(read_wants([Want(path, grid, resampling="average", domain=d) for d in ("db", None)]))
    np.testing.assert_allclose(db, 10 * np.log10(0.505), atol=1e-4)
    np.testing.assert_allclose(plain, -10, atol=1e-4)


def test_power_stays_positive_beside_a_ship(tmp_path: Path) -> None:
    values = np.full((200, 200), 0.01, "float32")
    values[60:64, 60:64] = 50
    path = make_tif(tmp_path / "ship.tif", values, nodata=-32768)
    grid = GeoBox((80, 80), Affine(7, 0, WEST + 351, 0, -7, NORTH - 351), UTM31)
    power, plain = arrays(read_wants([Want(path, grid, resampling="cubic", domain=d) for d in ("linear", None)]))
    assert plain.min() < 0  # the kernel does swing
    assert power.min() >= np.float32(0.01)
    assert power.max() > 40


def test_overviews_serve_a_much_coarser_average(tmp_path: Path, decodes: Decodes) -> None:
    values = smooth_field((1024, 1024))
    path = make_tif(tmp_path / "large.tif", values)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8], Resampling.average)
    grid = GeoBox((32, 32), Affine(320, 0, WEST, 0, -320, NORTH), UTM31)
    (got,) = arrays(read_wants([Want(path, grid, resampling="average")]))
    assert len(decodes.blocks) <= 4  # 128 x 128 pixels of the third overview, not 256 blocks of the file
    np.testing.assert_allclose(got, values.reshape(32, 32, 32, 32).mean((1, 3)), rtol=1e-3)
    decodes.blocks.clear()
    (exact,) = arrays(read_wants([Want(path, grid)]))
    np.testing.assert_array_equal(exact, values[16::32, 16::32])


class Decodes:
    """Which blocks of which file were read, seen from below the engine: at rasterio's own read and open."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.blocks: Counter[tuple[str, int, int, int]] = Counter()
        self.opened: Counter[str] = Counter()
        self.threads: set[int] = set()
        lock = threading.Lock()
        read, open_file = rasterio.io.DatasetReader.read, rasterio.open

        def counted_read(dataset: Any, bands: Any, window: Any = None, **kw: Any) -> Any:
            if window is None:
                return read(dataset, bands, **kw)
            rows, cols = dataset.block_shapes[0]
            with lock:
                self.threads.add(threading.get_ident())
                for row in range(window.row_off // rows, -(-(window.row_off + window.height) // rows)):
                    for col in range(window.col_off // cols, -(-(window.col_off + window.width) // cols)):
                        plane = 0 if dataset.interleaving.name == "pixel" else tuple(bands)
                        self.blocks[dataset.name, row, col, plane] += 1
            return read(dataset, bands, window=window, **kw)

        def counted_open(path: str, *args: Any, **kw: Any) -> Any:
            with lock:
                self.opened[path] += 1
            return open_file(path, *args, **kw)

        patch.setattr(rasterio.io.DatasetReader, "read", counted_read)
        patch.setattr(rasterio, "open", counted_open)


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Decodes:
    return Decodes(monkeypatch)


def many_wants(tmp_path: Path, files: int) -> tuple[list[Want], list[np.ndarray], int]:
    """Random wants over some files, what they must give, and how many blocks they touch."""
    rng = np.random.default_rng(5)
    values = {
        make_tif(tmp_path / f"f{n}.tif", rng.integers(1, 9000, (300, 260)).astype("uint16")): n for n in range(files)
    }
    pixels = {path: rasterio.open(path).read(1) for path in values}
    wants, expected, touched = [], [], set()
    for _ in range(60):
        path = str(rng.choice(list(values)))
        row, col = (int(n) for n in rng.integers(0, 200, 2))
        wants.append(Want(path, grid_at(row, col, (50, 40))))
        expected.append(pixels[path][row : row + 50, col : col + 40])
        touched |= {
            (path, y, x) for y in range(row // 64, (row + 49) // 64 + 1) for x in range(col // 64, (col + 39) // 64 + 1)
        }
    return wants, expected, len(touched)


@pytest.mark.parametrize(("files", "threads"), [(1, 1), (5, 1), (5, 2), (5, 3)])
def test_each_block_is_decoded_once(tmp_path: Path, decodes: Decodes, files: int, threads: int) -> None:
    wants, expected, touched = many_wants(tmp_path, files)
    decodes.opened.clear()
    decodes.blocks.clear()
    for got, right in zip(arrays(read_wants(wants, threads=threads)), expected, strict=True):
        np.testing.assert_array_equal(got, right)
    assert set(decodes.blocks.values()) == {1}
    assert len(decodes.blocks) == touched
    # Once; and once more for each thread that came to help with the last files.
    assert max(decodes.opened.values()) <= threads
    assert sum(decodes.opened.values()) <= files + threads - 1 + (threads > 1) * 2


def test_threads_share_one_large_want(tmp_path: Path, decodes: Decodes) -> None:
    values = np.random.default_rng(8).integers(0, 60_000, (2600, 2600)).astype("uint16")
    path = make_tif(tmp_path / "tile.tif", values, block=512)
    (got,) = arrays(read_wants([Want(path, grid_at(0, 0, (2600, 2600)))], threads=3))
    np.testing.assert_array_equal(got, values)
    assert len(decodes.threads) > 1
    assert set(decodes.blocks.values()) == {1}


def test_interleaved_bands_are_decoded_together(tmp_path: Path, decodes: Decodes) -> None:
    values = np.random.default_rng(6).integers(0, 200, (3, 100, 100)).astype("uint8")
    path = make_tif(tmp_path / "rgb.tif", values, interleave="pixel")
    got = arrays(read_wants([Want(path, grid_at(0, 0, (100, 100)), band=b) for b in (3, 1, 2)]))
    np.testing.assert_array_equal(got, values[[2, 0, 1]])
    assert set(decodes.blocks.values()) == {1}


def test_neither_order_nor_threads_matter(tmp_path: Path) -> None:
    wants, expected, _ = many_wants(tmp_path, 3)
    for threads in (1, 2, 7):
        order = np.random.default_rng(threads).permutation(len(wants))
        got = arrays(read_wants([wants[n] for n in order], threads=threads))
        for place, n in enumerate(order):
            np.testing.assert_array_equal(got[place], expected[n])


def test_several_callers_at_once(tmp_path: Path) -> None:
    wants, expected, _ = many_wants(tmp_path, 3)
    results: list[list[np.ndarray | Exception]] = [[] for _ in range(4)]

    def call(number: int) -> None:
        results[number] = read_wants(wants, threads=2)

    before = threading.active_count()
    callers = [threading.Thread(target=call, args=(n,)) for n in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for result in results:
        for got, right in zip(arrays(result), expected, strict=True):
            np.testing.assert_array_equal(got, right)
    assert threading.active_count() == before


def broken_files(tmp_path: Path, values: np.ndarray) -> dict[str, tuple[Want, str]]:
    """One want for each way to fail, with words its message must hold."""
    here = grid_at(0, 0, (50, 50))
    whole = Path(make_tif(tmp_path / "whole.tif", values)).read_bytes()
    (tmp_path / "text.tif").write_text("<Error>AuthenticationFailed</Error>")
    (tmp_path / "stub.tif").write_bytes(whole[:40])
    no_crs = make_tif(tmp_path / "no_crs.tif", values, crs=None)
    corners = [GroundControlPoint(r, c, WEST + 10 * c, NORTH - 10 * r) for r, c in [(0, 0), (0, 260), (300, 0)]]
    gcps = make_tif(tmp_path / "grd.tif", values, crs=None, transform=None)
    with rasterio.open(gcps, "r+") as file:
        file.gcps = (corners, rasterio.CRS.from_epsg(32631))
    return {
        "missing": (Want(str(tmp_path / "missing.tif"), here), "missing.tif"),
        "text": (Want(str(tmp_path / "text.tif"), here), "text.tif"),
        "stub": (Want(str(tmp_path / "stub.tif"), here), "stub.tif"),
        "no crs": (Want(no_crs, here), "no georeferencing"),
        "gcps": (Want(gcps, here), "3 ground control points"),
        "band": (Want(str(tmp_path / "whole.tif"), here, band=2), "band 2 was asked for"),
        "nodata": (Want(str(tmp_path / "whole.tif"), here, nodata=-1), "nodata=-1"),
    }


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_failures_stay_where_they_happen(tmp_path: Path, field: tuple[str, np.ndarray]) -> None:
    path, values = field
    good = Want(path, grid_at(10, 10, (80, 80)))
    for threads in (1, 3):
        broken = broken_files(tmp_path, values)
        wants = [want for bad, _ in broken.values() for want in (bad, good)]
        results = read_wants(wants, threads=threads)
        for name, result in zip(broken, results[::2], strict=True):
            assert isinstance(result, ReadError | InputError), (name, result)
            assert broken[name][1] in str(result), (name, str(result))
        for result in arrays(results[1::2]):
            np.testing.assert_array_equal(result, values[10:90, 10:90])


def test_a_truncated_file_gives_what_it_has(tmp_path: Path) -> None:
    values = np.random.default_rng(7).integers(1, 60_000, (512, 512)).astype("uint16")
    path = Path(make_tif(tmp_path / "cut.tif", values, block=128))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    wants = [Want(str(path), grid_at(row, 0, (100, 100))) for row in (0, 400)]
    first, last = read_wants(wants)
    np.testing.assert_array_equal(first, values[:100, :100])
    assert isinstance(last, ReadError)
    assert "cut.tif" in str(last)
    assert "truncated" in str(last)


@pytest.mark.parametrize("bad", [{"resampling": "lanczoz"}, {"domain": "dB"}, {"band": 0}])
def test_a_want_that_means_nothing_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=str(next(iter(bad.values())))):
        Want("a.tif", grid_at(0, 0, (9, 9)), **bad)


def test_a_grid_without_crs_is_refused(field: tuple[str, np.ndarray]) -> None:
    (result,) = read_wants([Want(field[0], GeoBox((9, 9), Affine.identity(), None))])
    assert isinstance(result, InputError)
    assert "has no CRS" in str(result)


def test_nothing_wanted() -> None:
    assert read_wants([]) == []
    assert list(iter_wants([])) == []
    assert list(iter_wants([[], []])) == [[], []]


def test_a_stream_keeps_the_order(tmp_path: Path) -> None:
    wants, expected, _ = many_wants(tmp_path, 3)
    groups = [wants[n : n + 1 + n % 4] for n in range(0, 56, 4)]
    rights = [expected[n : n + 1 + n % 4] for n in range(0, 56, 4)]
    for memory_mb in (0.001, 0.1, 512):
        streamed = list(iter_wants(iter(groups), threads=2, memory_mb=memory_mb))
        assert [len(group) for group in streamed] == [len(group) for group in groups]
        for group, right in zip(streamed, rights, strict=True):
            for got, want in zip(arrays(group), right, strict=True):
                np.testing.assert_array_equal(got, want)


def test_a_stream_has_bounds(field: tuple[str, np.ndarray]) -> None:
    """However many groups there are, memory and reading ahead stay the same."""
    taken = itertools.count()
    ahead = 0

    def groups() -> Any:
        for n in range(600):
            next(taken)
            yield [Want(field[0], grid_at(n % 50, 0, (200, 200)))]

    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for done, _ in enumerate(iter_wants(groups(), threads=2, memory_mb=8)):
        ahead = max(ahead, int(repr(taken)[6:-1]) - done)
    peak_mb = (tracemalloc.get_traced_memory()[1] - before) / 2**20
    tracemalloc.stop()
    assert 2 < ahead < 60
    assert peak_mb < 8  # 600 groups take 46 MB


def test_neighbours_in_a_stream_share_blocks(tmp_path: Path, decodes: Decodes) -> None:
    wants, _, touched = many_wants(tmp_path, 4)
    decodes.blocks.clear()
    arrays([pixels for group in iter_wants([[want] for want in wants], memory_mb=512) for pixels in group])
    assert set(decodes.blocks.values()) == {1}
    assert len(decodes.blocks) == touched


def test_a_stream_that_breaks_gives_what_came_before(field: tuple[str, np.ndarray]) -> None:
    def groups() -> Any:
        for _ in range(5):
            yield [Want(field[0], grid_at(0, 0, (9, 9)))]
        raise LookupError("no sixth")

    before = threading.active_count()
    stream = iter_wants(groups())
    for _ in range(5):
        arrays(next(stream))
    with pytest.raises(LookupError, match="no sixth"):
        next(stream)
    assert threading.active_count() == before


def test_a_stream_may_be_left_early(field: tuple[str, np.ndarray]) -> None:
    before = threading.active_count()
    stream = iter_wants(([Want(field[0], grid_at(n, 0, (9, 9)))] for n in itertools.count()), memory_mb=1)
    for _ in range(10):
        arrays(next(stream))
    stream.close()
    assert threading.active_count() == before


def test_the_callers_gdal_settings_reach_the_threads(
    field: tuple[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the caller when it asks, and those that a stream's groups set on their way."""
    seen: list[Any] = []
    open_file: Callable[..., Any] = rasterio.open

    def noted(*args: Any, **kw: Any) -> Any:
        seen.append(rasterio.env.getenv().get("AWS_S3_ENDPOINT"))
        return open_file(*args, **kw)

    def groups() -> Any:
        with rasterio.Env(AWS_S3_ENDPOINT="groups.example"):
            yield [want]
            yield [want]

    monkeypatch.setattr(rasterio, "open", noted)
    want = Want(field[0], grid_at(0, 0, (9, 9)))
    with rasterio.Env(AWS_S3_ENDPOINT="eodata.example"):
        arrays(read_wants([want] * 2, threads=2))
        stream = iter_wants([[want]])
    arrays(next(stream))
    assert seen == ["eodata.example"] * 2
    list(iter_wants(groups(), memory_mb=1e-5))
    assert seen[2:] == ["groups.example"] * 2


def test_keys_of_the_callers_settings_hold_in_the_threads_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where boto3 is installed: rasterio then puts keys among its settings, and refuses to be given them."""
    seen: list[dict[str, Any]] = []

    def opened(href: str, **_: Any) -> Any:
        seen.append(rasterio.env.getenv())
        raise ReadError("seen")

    monkeypatch.setattr("deepsentinel.sources.engine.crew.open_raster", opened)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    wants = [Want(str(tmp_path / f"{n}.tif"), grid_at(0, 0, (8, 8))) for n in range(3)]
    with rasterio.Env():
        rasterio.env.setenv(AWS_ACCESS_KEY_ID="somebody", AWS_SECRET_ACCESS_KEY="secret")
        read_wants(wants, threads=2)
    assert [one["AWS_ACCESS_KEY_ID"] + one["AWS_SECRET_ACCESS_KEY"] for one in seen] == ["somebodysecret"] * 3


@pytest.mark.timeout(30)
def test_settings_that_gdal_refuses_are_an_error_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(options: dict[str, Any]) -> Any:
        raise rasterio.errors.EnvError("not these")

    monkeypatch.setattr("deepsentinel.sources.engine.crew.gdal_env", refused)
    path = make_tif(tmp_path / "a.tif", np.ones((64, 64), "uint16"))
    got = read_wants([Want(path, grid_at(0, 0, (8, 8))) for _ in range(2)], threads=4)
    assert all(isinstance(one, ReadError) and "not these" in str(one) for one in got)
