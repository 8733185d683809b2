"""How hard the demo world is: one per-pixel forest, on one kind of split, for imaginary and for real ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scenes_kit import landscape, to_10m

from deepsentinel.world.classmaps import land_cover_map
from deepsentinel.world.ground import world_xy
from deepsentinel.world.optical import render_s2
from deepsentinel.world.radar import render_s1
from deepsentinel.world.scenes import Scene, scenes

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
TRAIN_PX, TEST_PX, BLOCK_M = 20_000, 60_000, 1000.0


@dataclass(frozen=True)
class Score:
    mean_iou: float
    by_class: dict[int, float]


def forest_score(features: np.ndarray, truth: np.ndarray, train: np.ndarray, seed: int = 0) -> Score:
    """Mean IoU of a forest (100 trees, leaves of 5, balanced subsamples) on the pixels that are not in `train`."""
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(seed)
    inside, outside = np.flatnonzero(train), np.flatnonzero(~train)
    inside = rng.choice(inside, min(TRAIN_PX, len(inside)), replace=False)
    outside = rng.choice(outside, min(TEST_PX, len(outside)), replace=False)
    forest = RandomForestClassifier(
        100, min_samples_leaf=5, class_weight="balanced_subsample", n_jobs=2, random_state=seed
    ).fit(features[inside], truth[inside])
    said, right = forest.predict(features[outside]), truth[outside]
    by_class = {}
    for code in np.unique(right):
        a, b = said == code, right == code
        by_class[int(code)] = round(float((a & b).sum() / (a | b).sum()), 3)
    return Score(float(np.mean(list(by_class.values()))), by_class)


def _of_date(everything: list[Scene], date: object) -> list[Scene]:
    return [s for s in everything if s.time.date() == date]


def world_scores(seed: int, size_px: int = 1024) -> tuple[Score, Score]:
    """Forests on the clearest summer S2 date of 2018 and on the calmest whole S1 date within nine days of it.

    Held out: every other square kilometre of a chessboard on the world plane, so that ground that both tiles see is on
    one side only.
    """
    land = landscape(seed, size_px)
    optical = [
        s for s in scenes(seed, size_px) if s.sensor == "S2" and s.time.year == 2018 and s.time.month in (6, 7, 8)
    ]
    radar = [s for s in scenes(seed, size_px) if s.sensor == "S1" and s.nodata_share == 0]
    clearest = min(
        {s.time.date() for s in optical}, key=lambda d: (sum(s.cloud_cover for s in _of_date(optical, d)), d)
    )
    near = {s.time.date() for s in radar if abs((s.time.date() - clearest).days) <= 9}
    calmest = min(near, key=lambda d: (_of_date(radar, d)[0].weather.wind_ms, d))
    parts: list[tuple[np.ndarray, ...]] = []
    for first in _of_date(optical, clearest):
        second = next(s for s in _of_date(radar, calmest) if s.tile == first.tile)
        images, power = render_s2(land, first), render_s1(land, second)
        shape = images["B02"].shape
        s2 = np.stack([to_10m(images[b], shape).astype(np.float32) - first.offset_dn for b in BANDS], -1)
        angle = to_10m(power["angle"], shape)
        s1 = np.stack([10 * np.log10(power["vv"]), 10 * np.log10(power["vh"]), angle], -1)
        x, y = world_xy(first.geobox, 1)
        train = (np.floor(x / BLOCK_M) + np.floor(y / BLOCK_M)) % 2 == 0
        clear = (images["B02"] > 0) & ~np.isin(to_10m(images["SCL"], shape), (0, 3, 8, 9, 10))
        truth = land_cover_map(land, first.geobox, 2018)
        parts.append((s2[clear], s1[clear], truth[clear], train[clear]))
    s2, s1, truth, train = (np.concatenate(part) for part in zip(*parts, strict=True))
    return forest_score(s2, truth, train), forest_score(s1, truth, train)
