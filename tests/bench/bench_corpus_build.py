"""Building a corpus: `build_corpus` against a loop on odc.stac and rasterio that writes one GeoTIFF a patch.

Labelled patches of 256 px (12 + 2 bands and SCL, masks of CORINE, OpenStreetMap and crop parcels) from the demo world,
its scenes already rendered, two threads. The loop does what a careful script does: items at hand, labels in memory and
found by their index, each patch in one of two threads: odc.stac.load for each sensor, rasterio.features.rasterize for
each mask, one GeoTIFF with deflate. Both take their turns; printed are the ratios of their rates and of processor time.

`python tests/bench/bench_corpus_build.py [samples] [loop] [repeats]`: 2000 samples, of which the loop does 200.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import rasterio.features
import shapely

import deepsentinel as ds
from deepsentinel.corpus.build import build_corpus
from deepsentinel.corpus.plan import Plan, plan_corpus
from deepsentinel.corpus.reader import grids_of

THREADS = 2
LABELS = ("corine", "osm", "parcels_2018")
S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


def the_plan(src: Any, samples: int) -> Plan:
    """Random places in both tiles, random dates of one summer."""
    rng = np.random.default_rng(0)
    scenes = src.search((-1, 49, 1, 50), "2018-06-01", "2018-08-31", sensors=("S2",))
    west, south, east, north = scenes.total_bounds
    points = gpd.GeoDataFrame(
        geometry=gpd.points_from_xy(rng.uniform(west, east, 2 * samples), rng.uniform(south, north, 2 * samples)),
        crs="EPSG:4326",
    )
    plan = plan_corpus(
        points, src, start="2018-06-01", end="2018-08-31", max_cloud=60, choose="random", seed=0, samples_per_shard=64
    )
    kept = plan.samples.iloc[:samples].reset_index(drop=True)
    return Plan(kept, plan.settings, plan.cost, plan.unmatched, plan.sources)


def pystac_items(src: Any, plan: Plan) -> dict[str, Any]:
    """Items as odc.stac wants them."""
    import pystac

    found = {}
    for sensor, column in (("S1", "s1_id"), ("S2", "s2_id")):
        for name, item in src.items_of(sensor, plan.samples[column].unique().tolist()).items():
            found[name] = pystac.Item.from_dict(item)
    return found


def prepared(src: Any) -> dict[str, gpd.GeoDataFrame]:
    """Labels in both projections, lines as wide as they are."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in LABELS:
            labels = ds.read_labels(src.labels[name])
            for crs in ("EPSG:32630", "EPSG:32631"):
                there = labels.to_crs(crs)
                if "width_m" in there:
                    wide = there.geometry.buffer(there["width_m"].fillna(0) / 2)
                    there = there.set_geometry(wide.where(there.geometry.area == 0, there.geometry))
                found[f"{name} {crs}"] = there
                _ = there.sindex
    return found


def the_loop(plan: Plan, numbers: list[int], items: dict[str, Any], labels: dict[str, Any], folder: Path) -> None:
    """One patch after another in each of two threads."""
    import odc.stac

    rows = plan.samples

    def one(number: int) -> None:
        row = rows.iloc[number]
        grid = grids_of(rows.iloc[[number]])[0]
        optical = odc.stac.load([items[row["s2_id"]]], bands=[*S2, "SCL"], geobox=grid)
        radar = odc.stac.load([items[row["s1_id"]]], bands=["vv", "vh"], geobox=grid, resampling="bilinear")
        with np.errstate(divide="ignore", invalid="ignore"):
            decibels = [10 * np.log10(radar[name].values[0]) for name in ("vv", "vh")]
        layers = [optical[name].values[0].astype("float32") for name in (*S2, "SCL")] + decibels
        box = grid.boundingbox
        for name in LABELS:
            table = labels[f"{name} {row['crs']}"]
            near = table.iloc[table.sindex.query(shapely.box(box.left, box.bottom, box.right, box.top))]
            shapes = list(zip(near.geometry, near["ground_truth"].astype(int), strict=True))
            mask = (
                rasterio.features.rasterize(shapes, grid.shape, transform=grid.affine, dtype="int32")
                if shapes
                else np.zeros(grid.shape, "int32")
            )
            layers.append(mask.astype("float32"))
        profile = {"driver": "GTiff", "width": 256, "height": 256, "count": len(layers), "dtype": "float32"}
        profile |= {"crs": row["crs"], "transform": grid.affine, "compress": "deflate"}
        with rasterio.open(folder / f"{number}.tif", "w", **profile) as file:
            file.write(np.stack(layers))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, numbers))


def main(samples: int, looped: int, repeats: int) -> None:
    src = ds.open_source("demo")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = the_plan(src, samples)
    labels = {name: src.labels[name] for name in LABELS}
    masks = {name: {"labels": path, "layers": ("class_map",)} for name, path in labels.items()}
    items, tables = pystac_items(src, plan), prepared(src)
    scenes = plan.samples["s1_id"].nunique() + plan.samples["s2_id"].nunique()
    print(f"{len(plan.samples)} samples from {scenes} scenes")
    for item in items.values():  # all scenes are rendered
        there = item.to_dict()
        ref = next(iter(src.assets_of(there).values()))
        src.resolve(ref.href, there, ref.key)
    rates: dict[str, list[float]] = {"ours": [], "loop": []}
    cores: dict[str, list[float]] = {"ours": [], "loop": []}
    spread = np.linspace(0, len(plan.samples) - 1, looped).astype(int)
    for _ in range(repeats):
        for who in ("ours", "loop"):
            folder = Path(tempfile.mkdtemp())
            began, used = time.perf_counter(), time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if who == "ours":
                    report = build_corpus(plan, folder / "c.zarr", masks, threads=THREADS)
                    assert report.failed == 0, report
                    count = report.ok
                else:
                    the_loop(plan, spread.tolist(), items, tables, folder)
                    count = looped
            seconds = time.perf_counter() - began
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / count / 1e6
            rates[who].append(count / seconds)
            cores[who].append(1000 * (time.process_time() - used) / count)
            print(
                f"  {who}: {count} in {seconds:.1f} s, {count / seconds:.1f} a second, {size:.2f} MB each, "
                f"{cores[who][-1]:.0f} ms of a core",
                flush=True,
            )
            shutil.rmtree(folder)
    ratio = median(rates["ours"]) / median(rates["loop"])
    spent = median(cores["loop"]) / median(cores["ours"])
    print(f"build_corpus makes {ratio:.1f} times as many samples a second as the loop (>= 4)")
    print(f"and needs 1 / {spent:.1f} of the processor time for each, which other work disturbs less")


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    main(*[*given, *[2000, 200, 3][len(given) :]])
