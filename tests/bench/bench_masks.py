"""How fast labels become masks, beside exactextract and beside the loop over pixels that everybody writes first.

    python tests/bench/bench_masks.py [parcels on a side, 50]       ratios, run in turn on the same parcels
    python tests/bench/bench_masks.py tile                          a million parcels on a whole tile of Sentinel-2

exactextract only lists which parcel covers how much of which pixel; our four layers are made from such a list. The loop
gets a small part of the grid, as all of it would take hours, and is compared pixel by pixel. The peak of memory of the
tile includes the million polygons themselves.
"""

from __future__ import annotations

import resource
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import geopandas as gpd
import numpy as np
import shapely
from odc.geo.geobox import GeoBox

sys.path.insert(0, str(Path(__file__).parents[1] / "masks"))
from parcels_kit import LEFT, TOP, grid, lattice, pixel_boxes

from deepsentinel.masks import rasterize

ROUNDS = 9
PIXELS = 1000
# The loop gets 20 x 20 of the pixels, in the middle, where there is as much to do as anywhere.
LOOP_PX = 20

TILE_PX = 10_980
TILE_SIDE = 1000


def exactextract_only(labels: gpd.GeoDataFrame) -> int:
    from exactextract import exact_extract
    from exactextract.raster import NumPyRasterSource

    size_m = PIXELS * 10
    box = (LEFT, TOP - size_m, LEFT + size_m, TOP)
    raster = NumPyRasterSource(np.zeros((PIXELS, PIXELS), "uint8"), *box, srs_wkt=labels.crs.to_wkt())
    return len(exact_extract(raster, labels, ["cell_id", "coverage"], output="pandas"))


def loop(labels: gpd.GeoDataFrame, geobox: GeoBox) -> np.ndarray:
    """Class, parcel, coverage and conflict of each pixel, one after another; a search tree finds who is near."""
    shapes = labels.geometry.to_numpy()
    classes, ids = labels["ground_truth"].to_numpy(), labels["id"].to_numpy()
    tree = shapely.STRtree(shapes)
    result = np.zeros((4, *geobox.shape))
    for (y, x), pixel in np.ndenumerate(pixel_boxes(geobox)):
        near = tree.query(pixel, predicate="intersects")
        shares = [shapes[row].intersection(pixel).area / pixel.area for row in near]
        won = near[int(np.argmax(shares))]
        real = sorted((share for share in shares if share > 1e-9), reverse=True)
        contradiction = sum(real) > 1.001 or (len(real) > 1 and real[0] >= 1 - 1e-6 and real[1] > 1e-3)
        result[:, y, x] = classes[won], ids[won], real[0], 2 if contradiction else len(real) > 1
    return result


def in_turn(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float, float]:
    """The median of ours / theirs over rounds in which both run, and the best time of each in seconds."""
    times = []
    for turn in range(ROUNDS):
        pair = {}
        for name, run in (("ours", ours), ("theirs", theirs))[:: 1 if turn % 2 else -1]:
            start = perf_counter()
            run()
            pair[name] = perf_counter() - start
        times.append((pair["ours"], pair["theirs"]))
    return statistics.median(a / b for a, b in times), *(min(column) for column in zip(*times, strict=True))


def ratios(side: int) -> None:
    labels = lattice(side, size_m=PIXELS * 10, step_m=20)
    geobox = grid(PIXELS)
    print(
        f"{len(labels)} parcels, {shapely.get_num_coordinates(labels.geometry).sum()} corners, {PIXELS} x {PIXELS} px"
    )
    theirs = lambda: exactextract_only(labels)  # noqa: E731
    for what, options in {
        "four layers": {},
        "four layers, rule='centre'": {"rule": "centre"},
        "four layers, conflict='class'": {"conflict": "class"},
        "overlap": {"layers": ["overlap"]},
        "distance": {"layers": ["distance"]},
    }.items():
        ratio, own_s, their_s = in_turn(lambda options=options: rasterize(labels, geobox, **options), theirs)
        print(f"{what:30} / bare exact_extract: {ratio:5.2f}   ({own_s:.2f} s / {their_s:.2f} s)")

    middle = PIXELS // 2 * 10
    part = grid(LOOP_PX, left=LEFT + middle, top=TOP - middle)
    start = perf_counter()
    by_loop = loop(labels, part)
    per_pixel_loop = (perf_counter() - start) / LOOP_PX**2
    start = perf_counter()
    masks = rasterize(labels, geobox)
    per_pixel = (perf_counter() - start) / PIXELS**2
    rows = slice(PIXELS // 2, PIXELS // 2 + LOOP_PX)
    for name, theirs_of in zip(("class_map", "parcel_id", "coverage", "conflict"), by_loop, strict=True):
        assert np.allclose(masks[name].values[rows, rows], theirs_of, atol=1e-6), name
    print(f"loop over pixels / four layers, per pixel: {per_pixel_loop / per_pixel:.0f} times faster")


def tile() -> None:
    """A million parcels on a tile: seconds for the four layers, and the peak of memory in GB."""
    labels = lattice(TILE_SIDE, size_m=TILE_PX * 10, step_m=30)
    corners = int(shapely.get_num_coordinates(labels.geometry).sum())
    start = perf_counter()
    masks = rasterize(labels, grid(TILE_PX))
    seconds = perf_counter() - start
    assert len(np.unique(masks["parcel_id"][::7, ::7])) > 0.95 * len(labels)
    assert int(masks["conflict"].max()) == 1
    assert bool((masks["class_map"] > 0).all())
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"{len(labels)} parcels, {corners} corners, {TILE_PX} x {TILE_PX} px: {seconds:.0f} s, peak {peak_gb:.2f} GB")


if __name__ == "__main__":
    if sys.argv[1:] == ["tile"]:
        tile()
    else:
        ratios(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
