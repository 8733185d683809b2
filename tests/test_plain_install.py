"""What a plain install promises, without the extras: it fetches, pairs, reads, labels and draws."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What a distribution is called where one imports it.
IMPORTED = {
    "earthengine-api": "ee", "google-auth": "google.auth", "scikit-learn": "sklearn",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
}  # fmt: skip
SCRIPT = """
import sys
for name in {absent!r}:
    sys.modules[name] = None  # importing it fails, as if it were not there

import deepsentinel as ds
from deepsentinel.export import to_geotiff

src = ds.open_source("demo", size_px=256)
scenes = src.search(src.area, "2018-06-01", "2018-07-31")
pairs = ds.pair(scenes, aoi=src.area)
rate = ds.match_rate(scenes, aoi=src.area)
grid = ds.geobox(src.area)
patch = src.read(pairs.iloc[0], grid)
series = src.read(ds.select(scenes, aoi=src.area, n=3), grid)
labels = ds.read_labels(src.labels["parcels_2018"], bbox=src.area)
masks = ds.rasterize(labels, like=patch)
points = ds.sample_land(5, src.extent)
plan = ds.plan_corpus(points, src, start="2018-06-01", end="2018-07-31", size_px=32)
ds.build_corpus(plan, {folder!r} + "/c.zarr", {{"parcels": labels}}, progress=False)
corpus = ds.open_corpus({folder!r} + "/c.zarr")
report = ds.label_report(labels, patch)
for what in (
    src.area, grid, scenes, pairs, rate, patch, series, labels, masks, [patch, masks], points, plan, corpus, report,
    ds.class_fractions(labels, patch), ds.boxes(labels, patch), ds.read_point(src, (points.geometry.x[0],
    points.geometry.y[0]), "2018-06-01", "2018-07-31"), ds.describe(corpus),
):
    ds.show(what)
to_geotiff(patch, {folder!r} + "/out")
print("done", len(corpus.sample), corpus.sizes)
"""


def extras() -> list[str]:
    """What the optional parts bring, as one imports it."""
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    plain = {
        name.partition(">")[0]
        for name in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    }
    names = {
        each.partition(">")[0].partition("[")[0]
        for part in ("map", "learn", "cloud", "gee", "download")
        for each in optional[part]
    }
    return sorted(IMPORTED.get(name, name.replace("-", "_")) for name in names - plain)


def test_all_of_it_runs_without_the_extras(tmp_path: Path) -> None:
    absent = extras()
    assert {"torch", "sklearn", "ipyleaflet", "anywidget"} <= set(absent)
    script = SCRIPT.format(absent=absent, folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("done")
