"""Google Earth Engine as a source: its catalog searched on its side, its pixels computed on exactly our grid.

`session` signs in, over `wire`, which has the patience; `scenes` knows the collections and turns what they say into
items; `pixels` asks for pixels and `reading` makes patches of them, `embedding` maps of vectors. Here all of it becomes
a source like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from deepsentinel.errors import InputError, SourceError, warn
from deepsentinel.sources import items as facts
from deepsentinel.sources.assets import AssetRef, Item
from deepsentinel.sources.base import When
from deepsentinel.sources.query import Query, area_of, check_dates, check_max_cloud, check_sensors, nothing_at_service
from deepsentinel.sources.tables import scene_row, scenes_table

from .pixels import CLOUDS
from .reading import EarthEngineReader
from .scenes import BEGINS, S1_COLLECTION, S2_COLLECTIONS, bands_of, by_ids, collection_of
from .scenes import search as search_scenes
from .session import Session
from .wire import TIMEOUT_S

if TYPE_CHECKING:
    import geopandas as gpd

NAMES: Mapping[str, str] = {"L2A": "earth-engine", "L1C": "earth-engine-l1c"}


class EarthEngineSource(EarthEngineReader):
    """Sentinel-2 and Sentinel-1 from Google Earth Engine, worldwide, with an account of one's own.

    project: the Google Cloud project that asks; a service account's own one if left out.
    credentials: the path of a service account's JSON key, or an object of google.auth. Left out, a client that is
    initialised already (`ee.Initialize`, geemap) is used as it is, else what `ee.Authenticate()` has left behind.
    Nothing is asked before the first search, and nobody is ever prompted.
    s2_level: "L2A" (surface) or "L1C" (top of atmosphere); both with the offset of newer products removed by Earth
    Engine.
    clouds: what tells of clouds. "scl": the scene classification (SCL), which L2A has anyway. "cloud-score" adds
    `cloud_score`, Cloud Score+ (cs_cdf): 1 is clear, 0 is hidden. "s2cloudless" adds `cloud_probability` in percent.
    Both are float32, and NaN where there is none; they come along whenever a Sentinel-2 scene is read.
    threads: how many requests are under way at once, at most 20; a free project bears fewer than a paid one.
    timeout_s: how long one answer may take. url: another endpoint than the one for many requests.

    Sentinel-1 is the GRD collection in IW mode with VV and VH: sigma0 in dB, on an ellipsoid's slopes, with `angle`.
    Terrain-flattened gamma0, as other sources have it, is another quantity: attributes say which it is.

    Pixels are resampled by Earth Engine: the nearest one, and on grids coarser than a band's own pixels the nearest of
    a coarser level, which holds means (of power, for radar).

    >>> source = EarthEngineSource(project="my-project")
    >>> source.name
    'earth-engine'
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        credentials: Any = None,
        s2_level: str = "L2A",
        clouds: str = "scl",
        threads: int | None = None,
        timeout_s: float = TIMEOUT_S,
        url: str | None = None,
    ) -> None:
        if s2_level not in S2_COLLECTIONS:
            raise InputError(f"s2_level={s2_level!r}: it is 'L1C' or 'L2A'.")
        if clouds not in CLOUDS:
            raise InputError(f"clouds={clouds!r}: it is {', '.join(map(repr, CLOUDS))}.")
        self.s2_level, self.clouds = s2_level, clouds
        # Scenes of both levels go by the same names: whoever was told of one must not read the other.
        self.name = NAMES[s2_level]
        self._session = Session(project=project, credentials=credentials, url=url, threads=threads, timeout_s=timeout_s)
        self._start()

    def _start(self) -> None:
        self._items: dict[tuple[str, str], Item] = {}
        self._absent: set[tuple[str, str]] = set()

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes: what was found stays behind, and so do credentials; they sign in by themselves."""
        return {name: value for name, value in vars(self).items() if name not in ("_items", "_absent")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    # -- search --------------------------------------------------------------------------------------------------------

    def search(
        self,
        aoi: Any,
        start: When = None,
        end: When = None,
        *,
        sensors: Sequence[str] = ("S1", "S2"),
        max_cloud: float | None = None,
    ) -> gpd.GeoDataFrame:
        """Scenes that touch an area, between two dates (both included), at most so cloudy; sorted by time.

        Earth Engine does the choosing, and answers with a thousand scenes at a time. `aoi` is anything
        `deepsentinel.aoi.area` takes. Finding nothing raises `NothingFoundError`, which says what to widen.

        >>> EarthEngineSource().search((0, 49, 1, 50), "2018-07-01", "2018-07-31", sensors="S3")
        Traceback (most recent call last):
        ...
        deepsentinel.errors.InputError: Unknown sensor 'S3': there are 'S1' (radar) and 'S2' (optical), ...
        """
        wanted = check_sensors(sensors)
        first, last = check_dates(start, end)
        query = Query(area_of(aoi), first, last, wanted, check_max_cloud(max_cloud))
        rows: list[dict[str, Any]] = []
        for sensor in wanted:
            rows += self._remember(search_scenes(self._session, sensor, self.s2_level, query))
        if not rows:
            asked = [collection_of(sensor, self.s2_level) for sensor in wanted]
            begins = min(pd.Timestamp(BEGINS[name], tz="UTC") for name in asked)
            raise nothing_at_service(self.name, query, asked, begins)
        return scenes_table(rows, source=self.name, searched=query.said(self.name))

    def _remember(self, found: Sequence[Item]) -> list[dict[str, Any]]:
        """Keep items for `read`, and give their rows; what cannot be used is left out aloud."""
        rows, left_out = [], []
        for item in found:
            try:
                row = scene_row(item)
            except (ValueError, TypeError, SourceError):
                row = None
            if row is None:
                left_out.append(item["id"])
                continue
            if row["sensor"] == "S1":
                row["polarisations"] = facts.polarisations(item["properties"].get("sar:polarizations") or ())
            self._items[row["sensor"], item["id"]] = item
            rows.append(row)
        if left_out:
            warn(
                f"{self.name}: {len(left_out)} scene(s) such as {left_out[0]} were left out: what Earth Engine states "
                "of their dates or outlines cannot be read."
            )
        return rows

    def items_of(self, sensor: str, ids: Sequence[str]) -> dict[str, Item]:
        """What is known of scenes, looked up where they were not searched here (a table may come from disk)."""
        missing = [name for name in dict.fromkeys(ids) if (sensor, name) not in self._items]
        missing = [name for name in missing if (sensor, name) not in self._absent]
        if missing:
            found = by_ids(self._session, sensor, self.s2_level, missing)
            self._items.update(((sensor, name), item) for name, item in found.items())
            self._absent.update((sensor, name) for name in missing if name not in found)
        return {name: self._items[sensor, name] for name in ids if (sensor, name) in self._items}

    def reaches(self, sensor: str, scene: str) -> bool:
        """Whether Earth Engine answers, and still has a scene: there are no files that could be opened instead."""
        return scene in by_ids(self._session, sensor, self.s2_level, [scene])

    def assets_of(self, item: Item) -> dict[str, AssetRef]:
        """Our band names -> where they are in Earth Engine."""
        return bands_of(item, self.s2_level)

    # -- what it is ----------------------------------------------------------------------------------------------------

    @property
    def area(self) -> Any:
        """A good place to start, for sources that have one; the whole Earth has none."""
        raise AttributeError(f"{self.name!r} has no area of its own; give one: (west, south, east, north) in degrees.")

    def info(self) -> str:
        """What this source is, in a few lines; never whose credentials it has."""
        project = f", project {self._session.project}" if self._session.project else ""
        clouds = "" if CLOUDS[self.clouds] is None else f", clouds by {self.clouds}"
        return (
            f"Google Earth Engine{project}\n"
            f"S2 {self.s2_level} from {S2_COLLECTIONS[self.s2_level]}{clouds}; S1 sigma0 from {S1_COLLECTION} (IW, "
            "VV and VH)"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.info()}>"
