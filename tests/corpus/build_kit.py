"""A small plan on the demo world, what a build is compared by, and sources that break on purpose."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np

import deepsentinel as ds
from deepsentinel.corpus.build import build_corpus
from deepsentinel.corpus.plan import Plan, plan_corpus
from deepsentinel.corpus.store import open_corpus
from deepsentinel.errors import DeepSentinelWarning
from deepsentinel.sources.demo import DemoSource

SEASON = {"start": "2018-06-01", "end": "2018-06-30"}


def points_in(src: Any, count: int, seed: int = 0) -> gpd.GeoDataFrame:
    rng = np.random.default_rng(seed)
    west, south, east, north = src.area.bounds
    x, y = rng.uniform(west, east, count), rng.uniform(south, north, count)
    return gpd.GeoDataFrame(geometry=gpd.points_from_xy(x, y), crs="EPSG:4326")


def quiet_plan(places: gpd.GeoDataFrame, src: Any, **options: Any) -> Plan:
    """A plan of places of which a few may well lie at the edge of the scenes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepSentinelWarning)
        return plan_corpus(places, src, **{**SEASON, "size_px": 32, "samples_per_shard": 4, **options})


def digest(folder: Path) -> dict[str, str]:
    """Every file of a store with what is in it."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


class BreakingSource(DemoSource):
    """The demo world, some of whose files lead nowhere."""

    broken: tuple[str, ...] = ()
    """Parts of the ids of scenes that cannot be opened; "" is all of them."""
    opened: list[str]

    def resolve(self, href: str, item: dict[str, Any], asset_key: str) -> str:
        if any(part in str(item["id"]) for part in self.broken):
            return str(Path(href).with_name("gone.tif"))
        return super().resolve(href, item, asset_key)


def masks_of(src: Any) -> dict[str, Any]:
    return {
        "corine": src.labels["corine"],
        "parcels": {"labels": src.labels["parcels_2018"], "layers": ("class_map",)},
    }


def direct(path: Any, grid: Any, **options: Any) -> Any:
    """Masks as anybody would make them, window by window."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepSentinelWarning)
        return ds.rasterize(ds.read_labels(path), grid, **options)


def half_built(folder: Path) -> Any:
    """A corpus that may not be built to the end, which opening it tells of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* is not built to the end", DeepSentinelWarning)
        return open_corpus(folder)


def quiet_build(*args: Any, **options: Any) -> Any:
    """A build of labels that have the usual flaws, which reading them tells of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepSentinelWarning)
        return build_corpus(*args, **{"progress": False, **options})
