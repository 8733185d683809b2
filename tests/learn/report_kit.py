"""A made-up report with all that a report can hold."""

from __future__ import annotations

import numpy as np
import pandas as pd

from deepsentinel.learn.report import CONTROLS, MODEL, Report

CLASSES = ("water", "broadleaved forest", "coniferous forest", "arable land", "pastures", "settlement", "NA")
LEVELS = dict(zip((MODEL, *CONTROLS), (0.62, 0.41, 0.44, 0.47, 0.55), strict=True))
DROPS = {"both": 0.0, "s1": 0.16, "s2": 0.05}


def made_rows(*, seeds: int = 2, controls=CONTROLS, metric: str = "mean_iou", by_class: str = "iou") -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for what in (MODEL, *controls):
        for sensors, drop in DROPS.items():
            for cloud, less in (("all", 0.0), ("0-10 %", -0.02), ("60-100 %", 0.12)):
                for seed in range(seeds):
                    value = LEVELS[what] - drop - less + rng.normal(0, 0.008)
                    head = {"what": what, "sensors": sensors, "cloud": cloud, "seed": seed, "n": 250_000}
                    ends = {"low": value - 0.03, "high": value + 0.035}
                    rows.append({**head, "metric": metric, "class": "", "value": value, **ends})
                    rows.append({**head, "metric": "accuracy", "class": "", "value": value + 0.2, **ends})
                    if cloud == "all":
                        for at, name in enumerate(CLASSES):
                            one = np.nan if at == 5 else value + 0.2 - 0.06 * at
                            ends = {"low": one - 0.05, "high": one + 0.04}
                            rows.append({**head, "metric": by_class, "class": name, "value": one, **ends})
    return pd.DataFrame(rows)


def made_report(**options) -> Report:
    rng = np.random.default_rng(1)
    count = len(CLASSES)
    table = rng.integers(0, 4_000, (count, count)) * (rng.random((count, count)) < 0.6) + 20_000 * np.eye(
        count, dtype=int
    )
    table[5] = 0
    confidence = np.linspace(0.35, 0.99, 15)
    curve = pd.DataFrame({"confidence": confidence, "accuracy": confidence**1.4, "share": 1 / 15})
    names = pd.Index(CLASSES, name="truth")
    about = {"encoder": "fusion-nano, pretrained", "test": "3 demo worlds of seeds never used, 212 blocks of 2 km"}
    return Report(
        "segmentation", CLASSES, made_rows(**options), pd.DataFrame(table, names, CLASSES), curve,
        ("1 class does not occur in the test and is in no mean: settlement",), about,
    )  # fmt: skip
