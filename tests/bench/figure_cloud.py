"""The figure of the README: what S1 alone, S2 alone and both can still tell apart as cloud grows from none to total.

    python tests/bench/figure_cloud.py [--seeds 41 42 43 44 45 46] [--out notebooks/images/cloud.jpg] [--keep FILE]

Each seed is a demo world of its own, one clear pair of a tile. A cloud of fractal shape grows over Sentinel-2 alone,
the encoder stays as its authors left it, and a linear probe reads the land cover of each cell of 80 m from its vector,
on other blocks of ground than it learnt from. Unless a line says otherwise the probe learns under the same share of
cloud as it is tested under; cells of which nothing was seen have a vector of zeros, so that it can only guess there.
Controls: image statistics, and the same architecture with random weights, both on both sensors. About two minutes a
world; on a busy machine OMP_NUM_THREADS=1 is much quicker than threads that wait for each other.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

import deepsentinel as ds
from deepsentinel.bands import S2_BANDS
from deepsentinel.embedding import embed
from deepsentinel.errors import DeepSentinelWarning
from deepsentinel.figures import slides
from deepsentinel.figures.panels import panel
from deepsentinel.figures.stretch import limits_of
from deepsentinel.similarity.folds import make_folds
from deepsentinel.sources.demo import DemoSource
from deepsentinel.world.clouds import periodic_noise

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SIZE_PX = 512
TILE = "30UYV"
ENCODER = "galileo-nano"
FOLDS = 4
# Classes with fewer cells than this in a world cannot be learnt and tested there.
FEWEST = 40
# What a cloud reflects in each band beside the visible ones: ice and droplets absorb at 1.6 and 2.2 micrometres.
CLOUD_COLOUR = {"B11": 0.62, "B12": 0.46}
LINES = {
    "both": ("S1 and S2", slides.BLUE, "-", 2.6),
    "s1": ("S1 alone", slides.GREEN, "-", 2.6),
    "s2": ("S2 alone", slides.VERMILION, "-", 2.6),
    "both, learnt clear": ("S1 and S2, probe learnt\non clear sky only", slides.BLUE, ":", 1.6),
    "both, not masked": ("the same, and clouds not masked", slides.SKY, "--", 1.4),
    "statistics": ("control: image statistics of both", slides.GREY, "-", 1.3),
    "random": ("control: random weights, both", "#c2a36b", "-", 1.3),
    "chance": ("guessing", slides.GREY, ":", 1.3),
}


def clear_pair(seed: int) -> tuple[xr.Dataset, Path]:
    """The clearest pair that covers the tile, and the file of its land cover."""
    src = DemoSource(seed=seed, size_px=SIZE_PX)
    cover = src.labels[f"land_cover_2018_{TILE}"]
    with rasterio.open(cover) as file:
        grid = GeoBox(file.shape, file.transform, file.crs)
    bounds = tuple(grid.geographic_extent.boundingbox)
    pairs = ds.pair(src.search(bounds, "2018-05-01", "2018-09-15", max_cloud=5), aoi=bounds, max_days=3)
    own = pairs[pairs["s2_id"].str.contains(TILE) & pairs["s1_id"].str.contains(TILE)]
    best = own.sort_values(["cloud_cover", "gap_hours"], key=abs, kind="stable").iloc[0]
    return src.read(best, grid), cover


def under_cloud(patch: xr.Dataset, field: np.ndarray, share: float, *, masked: bool) -> xr.Dataset:
    """The patch with a part of S2 under cloud: missing, or painted over."""
    if not share:
        return patch
    edge = np.quantile(field, 1 - share)
    hidden = xr.DataArray(field >= edge, dims=("y", "x"))
    bright = 2500 + 5600 * (1 - np.exp(-np.maximum(field - edge, 0) / 1.3))
    clouded = patch.copy()
    for band in (name for name in patch.data_vars if name in S2_BANDS):
        cloud = 0.03 * patch[band] + 0.97 * bright * CLOUD_COLOUR.get(str(band), 1.0)
        clouded[band] = xr.where(hidden, 0 if masked else cloud, patch[band]).astype("uint16").assign_attrs({})
    return clouded


def probe(learn: np.ndarray, test: np.ndarray, truth: np.ndarray, fold: np.ndarray) -> float:
    """Balanced accuracy on every fold, of what was learnt on the others; `learn` and `test` are of the same cells."""
    found = np.zeros_like(truth)
    for number in range(FOLDS):
        train, tested = fold != number, fold == number
        mean, spread = learn[train].mean(axis=0), learn[train].std(axis=0) + 1e-6
        model = LogisticRegression(C=100 / train.sum(), tol=1e-3, max_iter=1000)
        model.fit((learn[train] - mean) / spread, truth[train])
        found[tested] = model.predict((test[tested] - mean) / spread)
    return float(balanced_accuracy_score(truth, found))


def world(seed: int) -> Iterator[tuple[str, float, float]]:
    """(line, share of cloud, balanced accuracy) in one world."""
    patch, cover = clear_pair(seed)
    field = periodic_noise(np.random.default_rng(seed), SIZE_PX, 1.7)
    encoders: dict[str, Any] = {name: ds.load_encoder(name) for name in (ENCODER, "image-statistics")}
    encoders["random"] = ds.load_encoder(ENCODER, "random")

    def cells(which: str, data: xr.Dataset, sensors: Literal["both", "s1", "s2"]) -> xr.DataArray:
        return embed(data, encoders[which], sensors=sensors, dense=True, overlap=0, resolution_m=80)

    s1 = cells(ENCODER, patch, "s1")
    labels = ds.read_label_raster(cover, s1, legend="worldcover")["class_map"].to_numpy().ravel()
    _, truth, counts = np.unique(labels, return_inverse=True, return_counts=True)
    keep = (labels != 0) & (counts[truth] >= FEWEST)
    y, x = np.meshgrid(s1["y"], s1["x"], indexing="ij")
    metres = np.column_stack([x.ravel(), y.ravel()])[keep]
    fold = make_folds(metres, truth[keep], count=FOLDS, block_m=640, buffer_m=0, seed=seed).fold

    def table(z: xr.DataArray) -> np.ndarray:
        values = z.to_numpy().reshape(-1, z.sizes["feature"])[keep]
        return np.where(np.isfinite(values).all(axis=1)[:, None], values, 0)

    radar = probe(table(s1), table(s1), truth[keep], fold)
    clear = table(cells(ENCODER, patch, "both"))
    for share in SHARES:
        hidden = under_cloud(patch, field, share, masked=True)
        both = table(cells(ENCODER, hidden, "both")) if share else clear
        painted = table(cells(ENCODER, under_cloud(patch, field, share, masked=False), "both")) if share else clear
        learnt = {
            "both": (both, both),
            "both, learnt clear": (clear, both),
            "both, not masked": (clear, painted),
            "s2": (table(cells(ENCODER, hidden, "s2")),) * 2,
            "statistics": (table(cells("image-statistics", hidden, "both")),) * 2,
            "random": (table(cells("random", hidden, "both")),) * 2,
        }
        yield "s1", share, radar
        yield "chance", share, 1 / len(np.unique(truth[keep]))
        for line, (learn, test) in learnt.items():
            yield line, share, probe(learn, test, truth[keep], fold)


def draw(found: list[dict[str, Any]], out: Path) -> None:
    """The figure: the ground under growing cloud, and below it what can be told apart."""
    seeds = sorted({row["seed"] for row in found})
    patch, _ = clear_pair(seeds[0])
    field = periodic_noise(np.random.default_rng(seeds[0]), SIZE_PX, 1.7)
    limits = limits_of(patch, "natural")
    fig = slides.page(
        7.5,
        "What an embedding can still tell apart as cloud grows over Sentinel-2",
        f"{ENCODER} as its authors trained it; land cover of 80 m cells by a linear probe, on other ground than it"
        f" learnt from; mean and spread (± 1 SD) of {slides.counted(len(seeds), 'world')}",
        footer="Clouds masked unless said otherwise. Balanced accuracy: the mean share found of each class.",
        credit="Imaginary demo world, not a real place · deepsentinel",
    )
    left_in, width_in, thumb_in, top_in = 1.35, 8.2, 1.5, 1.0
    for share in SHARES:
        picture = panel(under_cloud(patch, field, share, masked=False), "natural", limits)
        middle = left_in + width_in * share
        axes = slides.bare(slides.axes_in(fig, middle - thumb_in / 2, top_in, thumb_in, thumb_in))
        axes.imshow(picture.image, aspect="auto")
    radar = slides.bare(slides.axes_in(fig, 11.2, top_in, thumb_in, thumb_in))
    radar.imshow(panel(patch, "s1").image, aspect="auto")
    height_in = float(fig.get_size_inches()[1])
    for x_in, words in ((left_in - thumb_in / 2, "Sentinel-2"), (11.2, "Sentinel-1, unchanged")):
        fig.text(x_in / slides.PAGE_WIDTH_IN, 1 - (top_in + thumb_in + 0.14) / height_in, words, size=9, va="center")
    axes = slides.plain(slides.axes_in(fig, left_in, top_in + thumb_in + 0.35, width_in, 3.75))
    ends: list[tuple[float, str, str]] = []
    for line, (words, colour, style, weight) in LINES.items():
        scores = np.array(
            [[row["score"] for row in found if row["line"] == line and row["share"] == share] for share in SHARES]
        )
        mean, spread = 100 * scores.mean(axis=1), 100 * scores.std(axis=1)
        at = 100 * np.array(SHARES)
        axes.plot(at, mean, style, color=colour, lw=weight, zorder=3 if weight > 2 else 2)
        if weight > 2:
            axes.fill_between(at, mean - spread, mean + spread, color=colour, alpha=0.13, lw=0)
        ends.append((float(mean[-1]), words, colour))
    axes.set_xlim(-1, 101)
    axes.set_ylim(0, 100 * max(row["score"] for row in found) + 4)
    axes.set_xticks([0, 20, 40, 60, 80, 100])
    axes.set_xlabel("share of Sentinel-2 under cloud, %", size=10, color=slides.FAINT)
    axes.set_ylabel("balanced accuracy, %", size=10, color=slides.FAINT)
    label_ends(axes, ends)
    fig.savefig(out, dpi=110, pil_kwargs={"quality": 88})


def label_ends(axes: Any, ends: list[tuple[float, str, str]]) -> None:
    """Names at the ends of lines, as near as they can stand without running into each other."""
    line = 0.056 * (axes.get_ylim()[1] - axes.get_ylim()[0])
    ends = sorted(ends)
    tall = np.array([line * (1 + words.count("\n")) for _, words, _ in ends])
    at = np.array([end for end, _, _ in ends])
    for _ in range(500):  # neighbours that are too near push each other away, a little at a time
        lack = np.maximum((tall[1:] + tall[:-1]) / 2 - np.diff(at), 0)
        at[:-1] -= 0.3 * lack
        at[1:] += 0.3 * lack
    for middle, (end, words, colour) in zip(at, ends, strict=True):
        axes.annotate(
            words, (100.5, end), (108, middle), size=9.5, color=colour if colour != slides.GREY else slides.FAINT,
            va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7, "relpos": (0, 0.5)},
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[41, 42, 43, 44, 45, 46])
    parser.add_argument("--out", type=Path, default=Path("notebooks/images/cloud.jpg"))
    parser.add_argument("--keep", type=Path, help="a JSON file of the numbers; drawn from if it is there")
    given = parser.parse_args()
    if given.keep and given.keep.is_file():
        found = json.loads(given.keep.read_text())
    else:
        # The demo world is L2A and radiometrically flattened; this encoder was trained on L1C and sigma0.
        warnings.simplefilter("ignore", DeepSentinelWarning)
        found = []
        for seed in given.seeds:
            for line, share, score in world(seed):
                found.append({"seed": seed, "line": line, "share": share, "score": score})
                print(f"seed {seed}  {share:4.0%} cloud  {line:20} {score:.3f}", flush=True)
            if given.keep:
                given.keep.write_text(json.dumps(found))
    draw(found, given.out)
    for line in LINES:
        means = [np.mean([r["score"] for r in found if r["line"] == line and r["share"] == share]) for share in SHARES]
        print(f"{line:20}", *(f"{mean:6.3f}" for mean in means))


if __name__ == "__main__":
    main()
