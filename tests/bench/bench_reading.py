"""Reading random patches: the engine against odc.stac.load called per patch, and against the decoding it cannot avoid.

48 random patches of 256 px, ten Sentinel-2 bands (20 m ones from 20 m files) and VV, VH, from COGs of 5490 px (deflate;
blocks of 1024 px for S2, 512 px for S1), two threads, pixels loaded. The floor decodes each touched block once,
block-aligned, with rasterio and the same two threads, and keeps nothing. The three run in turn, and what is printed are
ratios and their medians; of processor time too, which other work on the machine disturbs less.

`python tests/bench/bench_reading.py [repeats] [folder]`: the COGs (0.9 GB) are made once in a folder if one is given.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from deepsentinel.sources.engine import Want, read_wants

SIZE, PATCH, PATCHES, THREADS = 5490, 256, 48, 2
WEST, NORTH, CRS = 500_000.0, 5_500_020.0, "EPSG:32631"
RESOLUTION_M = {
    **dict.fromkeys(("B02", "B03", "B04", "B08", "VV", "VH"), 10.0),
    **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 20.0),
}


def smooth(rng: np.random.Generator, cell_px: int) -> np.ndarray:
    """Hills `cell_px` apart."""
    knots = rng.normal(size=(SIZE // cell_px + 2,) * 2)
    at = np.arange(SIZE) / cell_px
    low, share = at.astype(int), (at % 1)
    rows = knots[low] * (1 - share)[:, None] + knots[low + 1] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, low + 1] * share


def make_files(folder: Path) -> dict[str, str]:
    """A COG a band, about as compressible as real ones: 1.4 bytes a pixel for S2, 3.3 for S1."""
    rng = np.random.default_rng(0)
    ground = 1500 + 500 * smooth(rng, 300) + 300 * smooth(rng, 40) + rng.normal(0, 60, (SIZE, SIZE))
    power = np.exp(0.5 * smooth(rng, 100) - 2.5)
    paths = {}
    for band, resolution in RESOLUTION_M.items():
        paths[band] = str(folder / f"{band}.tif")
        if Path(paths[band]).exists():
            continue
        radar = band in ("VV", "VH")
        if radar:
            values = (power * rng.gamma(4.4, 1 / 4.4, (SIZE, SIZE))).astype("float32")
        else:
            values = np.clip(ground + rng.normal(0, 12, (SIZE, SIZE)), 1, 10_000).astype("uint16")
        profile = {"compress": "deflate", "predictor": "yes", "blocksize": 512 if radar else 1024, "num_threads": 2}
        transform = Affine(resolution, 0, WEST, 0, -resolution, NORTH)
        with rasterio.open(
            paths[band], "w", "COG", SIZE, SIZE, 1, CRS, transform, values.dtype, -32768 if radar else 0, **profile
        ) as file:
            file.write(values, 1)
    return paths


def stac_item(paths: dict[str, str]) -> object:
    """What odc.stac needs to know, with everything that spares it from opening files twice."""
    import pystac

    box = [2.9, 48.9, 4.6, 49.7]
    ring = [[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]], [box[0], box[1]]]
    item = pystac.Item("bench", {"type": "Polygon", "coordinates": [ring]}, box, datetime(2020, 6, 1, tzinfo=UTC), {})
    item.properties["proj:epsg"] = 32631
    item.stac_extensions = [
        "https://stac-extensions.github.io/projection/v1.0.0/schema.json",
        "https://stac-extensions.github.io/raster/v1.0.0/schema.json",
    ]
    for band, path in paths.items():
        radar = band in ("VV", "VH")
        fields = {
            "proj:shape": [SIZE, SIZE],
            "proj:transform": [RESOLUTION_M[band], 0, WEST, 0, -RESOLUTION_M[band], NORTH],
            "raster:bands": [{"data_type": "float32" if radar else "uint16", "nodata": -32768 if radar else 0}],
        }
        item.add_asset(band, pystac.Asset(path, media_type=pystac.MediaType.COG, roles=["data"], extra_fields=fields))
    return item


def touched_blocks(paths: dict[str, str], corners: np.ndarray) -> dict[str, list[Window]]:
    """The windows of all blocks under the patches, by file."""
    windows = {}
    for band, path in paths.items():
        scale = RESOLUTION_M[band] / 10
        with rasterio.open(path) as file:
            size = file.block_shapes[0][0]
        blocks = set()
        for row, col in corners / scale:
            rows, cols = (range(int(at // size), int((at + PATCH / scale - 1) // size) + 1) for at in (row, col))
            blocks |= {(y, x) for y in rows for x in cols}
        windows[path] = [
            Window(x * size, y * size, min(size, SIZE - x * size), min(size, SIZE - y * size))
            for y, x in sorted(blocks)
        ]
    return windows


def clock(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the wall and of processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    kept = work()
    spent = time.perf_counter() - wall, time.process_time() - processor
    del kept
    return spent


def main(repeats: int, folder: Path) -> None:
    import odc.stac

    paths = make_files(folder)
    # Even corners, so that 20 m pixels lie under 10 m ones as they do in a snapped grid.
    corners = np.random.default_rng(1).integers(0, (SIZE - PATCH) // 2, (PATCHES, 2)) * 2
    grids = [
        GeoBox((PATCH, PATCH), Affine(10, 0, WEST + 10.0 * col, 0, -10, NORTH - 10.0 * row), CRS)
        for row, col in corners
    ]
    wants = [Want(path, grid) for grid in grids for path in paths.values()]
    item, blocks = stac_item(paths), touched_blocks(paths, corners)

    def by_odc() -> object:
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(lambda grid: odc.stac.load([item], bands=list(paths), geobox=grid), grids))

    def decode(path: str) -> None:
        with rasterio.open(path) as file:
            for window in blocks[path]:
                file.read(1, window=window)

    def floor() -> object:
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(decode, blocks))

    def ours() -> object:
        return read_wants(wants, threads=THREADS)

    for got, (grid, band) in zip(ours(), [(g, b) for g in grids for b in paths], strict=True):  # and all are warm
        if isinstance(got, Exception):
            raise got
        if grid is grids[0]:
            np.testing.assert_array_equal(got, odc.stac.load([item], bands=[band], geobox=grid)[band].values[0])
    floor()
    ratios = []
    for repeat in range(repeats):
        odc_s, floor_s, ours_s = (np.array(clock(work)) for work in (by_odc, floor, ours))
        ratios.append([*(odc_s / ours_s), *(floor_s / ours_s)])
        print(
            f"run {repeat + 1}: {PATCHES / ours_s[0]:5.1f} patches/s   {ratios[-1][0]:.2f} x odc.stac.load "
            f"(processor {ratios[-1][1]:.2f})   {ratios[-1][2]:.0%} of the floor (processor {ratios[-1][3]:.0%})",
            flush=True,
        )
    middle = np.median(ratios, axis=0)
    print(
        f"median: {middle[0]:.2f} x odc.stac.load (asked: 3.5; processor {middle[1]:.2f})   {middle[2]:.0%} of the "
        f"floor (asked: 85 %; processor {middle[3]:.0%})   {sum(map(len, blocks.values()))} blocks"
    )


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    if len(sys.argv) > 2:
        main(count, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory(prefix="deepsentinel-bench-") as temporary:
            main(count, Path(temporary))
