"""The two demonstration sets of the DeepSentinel paper, on any source: one call each from nothing to a plan.

Both are pairs of 256 x 256 pixels at most three days apart, at random places on land and at dates spread over the
12-day cycles of Sentinel-1. `unlabelled` is of the whole Earth, 10,000 samples; `labelled` is of Europe, 1,000 samples
with masks of CORINE and OpenStreetMap. On the demo world, which is 16 by 10 km, places are drawn from all of it;
windows then overlap, so that a few hundred show everything there is to see.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import shapely

from deepsentinel.aoi import utm_crs
from deepsentinel.errors import InputError
from deepsentinel.land import sample_land
from deepsentinel.land.dates import spread_dates

from .build import BuildReport, build_corpus
from .plan import Plan, plan_corpus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deepsentinel.sources import Source

YEAR = ("2018-01-01", "2018-12-31")
SIZE_PX, RESOLUTION_M, MAX_DAYS, MAX_CLOUD = 256, 10, 3, 60


@dataclass(frozen=True, eq=False)
class Recipe:
    """A plan and the labels that go with it."""

    plan: Plan
    """The samples and what they cost."""
    labels: Mapping[str, Any] = field(default_factory=dict)
    """As `build_corpus` takes them."""

    def build(self, path: str | Path, **options: Any) -> BuildReport:
        """Build the corpus, with the options of `build_corpus`."""
        return build_corpus(self.plan, path, dict(self.labels) or None, **options)


def unlabelled(
    src: Source,
    n: int = 10_000,
    *,
    region: Any = None,
    start: str = YEAR[0],
    end: str = YEAR[1],
    seed: int = 0,
    **options: Any,
) -> Recipe:
    """Pairs from anywhere on land, for models that learn without labels.

    `n` places are drawn evenly by area (`region=None`: all land but Antarctica; on the demo world all of it), each with
    a date; places where no pair lies within three days give no sample, which `plan.unmatched` tells. Further options
    are those of `plan_corpus`.

    >>> import deepsentinel as ds
    >>> recipe = unlabelled(ds.open_source("demo", size_px=256), n=3, size_px=64, start="2018-05-01", end="2018-08-31")
    >>> len(recipe.plan.samples)
    3
    """
    return Recipe(_plan(src, n, region, None, start, end, seed, options))


def labelled(
    src: Source,
    n: int = 1_000,
    *,
    corine: Any = None,
    osm: Any = None,
    region: Any = None,
    start: str = YEAR[0],
    end: str = YEAR[1],
    seed: int = 0,
    **options: Any,
) -> Recipe:
    """Pairs from Europe with masks of CORINE (44 classes) and OpenStreetMap.

    `corine` and `osm` are files that `ds.read_labels` or `ds.read_label_raster` reads, such as CORINE's 100 m raster
    and an extract of OpenStreetMap; the demo world brings its own. `region=None` is "EU27+GB".

    >>> import warnings, deepsentinel as ds
    >>> src = ds.open_source("demo", size_px=256)
    >>> recipe = labelled(src, n=3, size_px=64, start="2018-05-01", end="2018-08-31")
    >>> sorted(recipe.labels), len(recipe.plan.samples)
    (['corine', 'osm'], 3)
    """
    own = getattr(src, "labels", {})
    labels = {"corine": corine or own.get("corine"), "osm": osm or own.get("osm")}
    for name, what in (
        ("corine", "CORINE Land Cover 2018 from land.copernicus.eu, as raster or vector"),
        ("osm", "an extract of OpenStreetMap from download.geofabrik.de (.osm.pbf)"),
    ):
        if labels[name] is None:
            raise InputError(f"The labelled set needs {what}: give its path as {name}=.")
    return Recipe(_plan(src, n, region, "EU27+GB", start, end, seed, options), labels)


def _plan(
    src: Source, n: int, region: Any, usual: Any, start: str, end: str, seed: int, options: Mapping[str, Any]
) -> Plan:
    settings = {
        "size_px": SIZE_PX,
        "resolution": RESOLUTION_M,
        "max_days": MAX_DAYS,
        "max_cloud": MAX_CLOUD,
        **options,
    }
    if region is None:
        region = demo_ground(src, settings["size_px"] * settings["resolution"]) if src.name == "demo" else usual
    points = sample_land(n, region, seed)
    if settings.get("choose", "best") == "best" and not settings.get("series"):
        points = points.assign(date=spread_dates(len(points), start, end, seed))
    return plan_corpus(points, src, start=start, end=end, seed=seed, **settings)


def demo_ground(src: Any, size_m: float) -> gpd.GeoDataFrame:
    """Where a window lies wholly in one of the tiles of the imaginary coast."""
    scenes = src.search(src.area, sensors=("S2",))
    tiles = scenes.drop_duplicates("tile").geometry
    shapes = []
    for shape in tiles:
        crs = utm_crs(shape.centroid.x, shape.centroid.y)
        # A pixel or two less than the corners of a window reach, which lies askew in the next zone.
        inner = (
            gpd.GeoSeries([shape], crs="EPSG:4326").to_crs(crs).buffer(-0.5 * size_m * 1.03 - 30).to_crs("EPSG:4326")
        )
        shapes += [part for part in inner if not part.is_empty]
    if not shapes:
        raise InputError(
            f"No window of {size_m:g} m fits into a tile of this demo world: open a larger one, or size_px=."
        )
    return gpd.GeoDataFrame(geometry=[shapely.union_all(shapes)], crs="EPSG:4326")
