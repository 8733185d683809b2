"""Any STAC catalog as a source: a tree of JSON files, one item collection, or an API; near or far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import shapely

from deepsentinel.errors import InputError, SourceError, warn

from . import items as facts
from .addresses import check_href, shown
from .assets import AssetRef, Item, band_assets, check_overrides
from .base import When
from .cache import cache_of
from .catalog import FAR, Document, StaticCatalog, is_web
from .harmonise import OffsetRule, Quantity, check_stated, check_units, quantity_of
from .presets import Preset
from .query import (
    Query,
    area_of,
    by_sensor,
    check_dates,
    check_max_cloud,
    check_sensors,
    extent_of,
    nothing_at_service,
    nothing_in_files,
)
from .reading import PixelReader
from .tables import scene_row, scenes_table

if TYPE_CHECKING:
    import geopandas as gpd

    from .api import Api

Row = dict[str, Any]


class StacSource(PixelReader):
    """Scenes from a STAC catalog.

    `location` is a file, a folder with a `catalog.json`, an address, or an item collection already in memory.
    Subclasses may override `resolve` (called right before a file is opened: sign or render there) and `patch_attrs`
    (more attributes for every patch, such as a seed).

    >>> source = StacSource({"type": "FeatureCollection", "features": []}, name="mine")
    >>> source.name
    'mine'
    """

    def __init__(
        self,
        location: str | Path | Mapping[str, Any] | None,
        *,
        name: str | None = None,
        preset: Preset | None = None,
        assets: Mapping[str, str] | None = None,
        collections: Mapping[str, str | Sequence[str]] | Sequence[str] | str | None = None,
        s1_units: str | None = None,
        s1_backscatter: str | None = None,
        s2_offset: int | None = None,
        s2_level: str | None = None,
        cache: bool | str | Path | None = None,
        cache_gb: float = 10.0,
    ) -> None:
        if location is None and preset is None:
            raise InputError("A STAC source needs a location: a file, a folder with a catalog.json, or an address.")
        self.preset = preset
        self._assets = check_overrides(assets)
        self._collections = by_sensor(collections)
        self._s1_quantity = check_units(s1_units)
        check_stated(s1_backscatter, s2_offset, s2_level)
        self._s1_backscatter, self._s2_offset, self._s2_level = s1_backscatter, s2_offset, s2_level
        self._cache = cache_of(cache, cache_gb)
        self._static: StaticCatalog | None = None
        self._api: Api | None = None
        self._open(location)
        self.name = name or (preset.name if preset else self._own_name(location))
        self._start()

    def _start(self) -> None:
        """With nothing searched and nothing read yet."""
        super()._start()
        self._items: dict[tuple[str, str], Item] = {}
        self._rows: dict[tuple[str, str], Row] = {}
        self._absent: set[tuple[str, str]] = set()

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes: what was searched so far stays behind; they find scenes again by their ids."""
        found = ("_items", "_rows", "_absent", "_plans", "_probed")
        return {name: value for name, value in vars(self).items() if name not in found}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    # -- what subclasses may change ------------------------------------------------------------------------------------

    def resolve(self, href: str, item: Item, asset_key: str) -> str:
        """What is opened for an asset; called late and from other threads: thread-safe, and cheap when repeated."""
        return href

    def patch_attrs(self) -> dict[str, Any]:
        """Attributes that every patch of this source carries beside those of the contract."""
        return {}

    def renew(self) -> bool:
        """Called when the files refuse to open (403): get new credentials, and say whether trying again makes sense."""
        return False

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

        With `max_cloud` scenes whose cloud cover nobody states are left out.

        `aoi` is anything `deepsentinel.aoi.area` takes. Finding nothing raises `NothingFoundError`, which says what was
        searched, what the catalog holds and what to widen.

        >>> item = {"id": "S2A_31UDQ_20180704_0_L2A", "type": "Feature", "bbox": [0, 49, 1, 50], "assets": {}}
        >>> item["properties"] = {"datetime": "2018-07-04T10:57:00Z"}
        >>> source = StacSource({"type": "FeatureCollection", "features": [item]}, name="mine")
        >>> source.search((0.1, 49.1, 0.2, 49.2), "2018-07-01", "2018-07-31").id.tolist()
        ['S2A_31UDQ_20180704_0_L2A']
        """
        wanted = check_sensors(sensors)
        first, last = check_dates(start, end)
        query = Query(area_of(aoi), first, last, self._usable(wanted), check_max_cloud(max_cloud))
        found = self._search_api(query) if self._api else self._search_static(query)
        return scenes_table(found, source=self.name, searched=query.said(self.name))

    def _usable(self, sensors: tuple[str, ...]) -> tuple[str, ...]:
        """The sensors that this service can serve; those it cannot are refused aloud."""
        refusal = self.preset.s1_refusal if self.preset and not self._collections.get("S1") else None
        if refusal is None or "S1" not in sensors:
            return sensors
        if sensors == ("S1",):
            raise InputError(f"{self.name} has no Sentinel-1 that can be used: {refusal}")
        warn(f"{self.name}: Sentinel-1 was left out, because {refusal}")
        return tuple(sensor for sensor in sensors if sensor != "S1")

    def _remember(self, found: Iterable[Item]) -> list[Row]:
        """Keep items for `read`, and give their rows; what cannot be used is left out aloud."""
        rows: dict[tuple[str, str], Row] = {}
        left_out: dict[str, list[str]] = {}
        for item in found:
            sensor = facts.sensor_of(item)
            if sensor is None:
                continue
            key = (sensor, item["id"])
            row, held = self._rows.get(key), self._items.get(key)
            if row is not None and row["collection"] != str(item.get("collection") or ""):
                # A table of pairs names scenes by id alone: it could not tell the two apart.
                why = "they are in two collections under one id, and the first is used. Choose with collections="
                left_out.setdefault(why + "{'S2': '...'}", []).append(item["id"])
                continue
            if row is None or (held is not item and held != item):  # new, or changed: services renew links, and mend
                try:
                    row = scene_row(item, self._assets)
                except (ValueError, TypeError, SourceError) as error:
                    why = f"what the catalog states of them cannot be read ({str(error).splitlines()[0]})"
                    left_out.setdefault(why, []).append(item["id"])
                    continue
                if row is None:
                    continue
                if sensor == "S1":
                    row["backscatter"] = self.backscatter_of(item)
            elif held is not None:
                item = held
            if sensor == "S1" and row["backscatter"] is None:
                why = f"{facts.grd_reason(item)}. If you know better, open the source with s1_backscatter="
                left_out.setdefault(why + "'gamma0_rtc' or 'sigma0'", []).append(item["id"])
                continue
            self._items[key] = item  # before its row: who finds the row takes the item for granted
            self._rows[key] = rows[key] = row
        for why, ids in left_out.items():
            warn(f"{self.name}: {len(ids)} scene(s) such as {ids[0]} were left out: {why}.")
        return list(rows.values())

    def backscatter_of(self, item: Item) -> str | None:
        """What a radar item holds; None where it cannot be put on a map."""
        return facts.backscatter(item) or self._s1_backscatter

    def _wants_collection(self, sensor: str | None, name: str) -> bool:
        if sensor is None:
            return False
        chosen = self._collections.get(sensor)
        return chosen is None or name in chosen

    def _search_static(self, query: Query) -> list[Row]:
        met: set[str] = set()

        def worth(collection: Document) -> bool:
            met.add(str(collection.get("id")))
            return self._worth(collection, query)

        def wanted(item: Item) -> bool:
            sensor, name = facts.sensor_of(item), str(item.get("collection") or "")
            met.add(name)
            return sensor in query.sensors and self._wants_collection(sensor, name)

        rows = self._remember(item for item in self._files().items(worth) if wanted(item))
        for sensor in query.sensors:
            if sensor in self._collections and not met & set(self._collections[sensor]):
                raise InputError(
                    f"{self.name} has no collection {' or '.join(self._collections[sensor])} of {sensor}, which "
                    f"collections= asks for. It has {', '.join(sorted(met - {''})) or 'none with a name'}."
                )
        frame = scenes_table(rows)
        rows = [self._rows[row.sensor, row.id] for row in frame.itertuples()]
        where = shapely.intersects(frame.geometry.to_numpy(), query.geometry) if len(frame) else np.zeros(0, bool)
        when = np.ones(len(frame), bool)
        if query.first is not None:
            when &= (frame["time"] >= query.first).to_numpy()
        if query.last is not None:
            when &= (frame["time"] <= query.last).to_numpy()
        clear = np.ones(len(frame), bool)
        if query.max_cloud is not None:
            clear = ((frame["sensor"] == "S1") | (frame["cloud_cover"] <= query.max_cloud)).to_numpy()
        keep = where & when & clear
        if not keep.any():
            raise nothing_in_files(self.name, query, scenes_table(self._remember(self._files().items())))
        return [row for row, kept in zip(rows, keep, strict=True) if kept]

    def _files(self) -> StaticCatalog:
        assert self._static is not None
        return self._static

    def _worth(self, collection: Document, query: Query) -> bool:
        """Whether a collection can hold anything that is asked for: by name, chosen collections, box and period."""
        name = str(collection.get("id") or "")
        sensor = facts.sensor_of({"id": name, "collection": name})
        if sensor is not None and (sensor not in query.sensors or not self._wants_collection(sensor, name)):
            return False
        boxes, periods = extent_of(collection)
        if boxes and not any(shapely.box(*box).intersects(query.geometry) for box in boxes):
            return False
        return not periods or any(
            (begin is None or query.last is None or begin <= query.last)
            and (finish is None or query.first is None or finish >= query.first)
            for begin, finish in periods
        )

    def _search_api(self, query: Query) -> list[Row]:
        assert self._api is not None
        found: list[Item] = []
        asked: list[str] = []
        for sensor in query.sensors:
            names = self._api_collections(sensor)
            asked += names
            if not names:
                continue
            found += self._api.search(
                names,
                shapely.geometry.mapping(query.geometry),
                query.first,
                query.last,
                max_cloud=query.max_cloud if sensor == "S2" else None,
                cloud_filter=self.preset.cloud_filter if self.preset else None,
            )
        rows = self._remember(found)
        if query.max_cloud is not None:
            # Also here: not every API can filter, and some ignore what they cannot.
            rows = [row for row in rows if row["sensor"] == "S1" or row["cloud_cover"] <= query.max_cloud]
        if rows:
            return rows
        begins = [
            begin for extent in self._api.extents(asked) for begin, _ in extent_of({"extent": extent})[1] if begin
        ]
        raise nothing_at_service(self.name, query, asked, min(begins, default=None))

    def _api_collections(self, sensor: str) -> tuple[str, ...]:
        assert self._api is not None
        if self._collections.get(sensor) is not None:
            return self._collections[sensor]
        if self.preset is not None:
            return self.preset.collections.get(sensor, ())
        return self._api.collections_of(sensor)

    # -- items by id ---------------------------------------------------------------------------------------------------

    def items_of(self, sensor: str, ids: Sequence[str]) -> dict[str, Item]:
        """Items by id, fetched where they are not in memory (a table may have been read from disk)."""
        missing = [name for name in dict.fromkeys(ids) if (sensor, name) not in self._items]
        missing = [name for name in missing if (sensor, name) not in self._absent]
        if missing:
            # A walk through files costs the same for one scene as for all, so all that it meets are kept.
            found: Iterable[Item] = (
                self._api.search(self._api_collections(sensor), ids=missing) if self._api else self._files().items()
            )
            for item in found:
                # Radar that cannot be put on a map is kept here too: reading it says why it cannot.
                if self._wants_collection(facts.sensor_of(item), str(item.get("collection") or "")):
                    self._items.setdefault((str(facts.sensor_of(item)), item["id"]), item)
            # A table of a thousand rows that names a lost scene must not ask for it a thousand times. Noted only now:
            # a service that did not answer has not said that a scene is lost.
            self._absent.update((sensor, name) for name in missing if (sensor, name) not in self._items)
        return {name: self._items[sensor, name] for name in ids if (sensor, name) in self._items}

    # -- what reading must know ----------------------------------------------------------------------------------------

    def assets_of(self, item: Item) -> dict[str, AssetRef]:
        """Our band names -> where they lie in an item, all of them places that may be opened."""
        refs = band_assets(item, self._assets)
        for name, ref in refs.items():
            who = f"Scene {item['id']}: {name} (asset {ref.key!r})"
            check_href(ref.href, files=self._static is not None and not item.get(FAR), who=who)
        return refs

    @property
    def offset_rule(self) -> OffsetRule:
        """How to tell whether Sentinel-2 pixels still hold their offset."""
        return self.preset.offset_rule if self.preset else "stated"

    def s1_quantity(self, ref: AssetRef) -> Quantity | None:
        """What the stored Sentinel-1 values are; None if nobody says."""
        return self._s1_quantity or quantity_of(ref.unit) or (self.preset.s1_quantity if self.preset else None)

    def s1_nodata(self, ref: AssetRef) -> float | None:
        """The stored Sentinel-1 value without meaning; None: what the file says."""
        return self.preset.s1_nodata if ref.nodata is None and self.preset else ref.nodata

    # -- opening, and saying what it is --------------------------------------------------------------------------------

    def _open(self, location: str | Path | Mapping[str, Any] | None) -> None:
        if self.preset is not None:
            self._api = self._make_api(str(location or self.preset.url))
            return
        if isinstance(location, Mapping) or not is_web(str(location)):
            self._static = StaticCatalog(location)  # type: ignore[arg-type]
            return
        static = StaticCatalog(str(location))
        root = static.root
        if "conformsTo" in root or any(link.get("rel") == "search" for link in root.get("links") or ()):
            self._api = self._make_api(str(location))
            return
        if root["type"] == "Collection" and any(link.get("rel") == "items" for link in root.get("links") or ()):
            api = next((link["href"] for link in root["links"] if link.get("rel") == "root"), "the address of the API")
            raise InputError(
                f"{shown(str(location))} is one collection of a STAC API. Open the API, and choose it there: "
                f"open_source({shown(api)!r}, collections={{'S2': {root.get('id')!r}}})."
            )
        self._static = static

    def _own_name(self, location: str | Path | Mapping[str, Any] | None) -> str:
        """What a catalog calls itself; item collections have no name, so theirs is the file's."""
        if (
            self._static is not None
            and self._static.root["type"] != "FeatureCollection"
            and self._static.root.get("id")
        ):
            return str(self._static.root["id"])
        if isinstance(location, Mapping):
            return "items in memory"
        return urlsplit(shown(str(location))).netloc or Path(str(location)).name

    def _make_api(self, url: str) -> Api:
        from .api import Api

        pages = {"page_items": self.preset.page_items} if self.preset else {}
        return Api(url, name=self.preset.title if self.preset else shown(url), **pages)

    @property
    def area(self) -> Any:
        """A good place to start, for sources that have one; a catalog of the whole Earth has none."""
        raise AttributeError(f"{self.name!r} has no area of its own; give one: (west, south, east, north) in degrees.")

    def info(self) -> str:
        """What this source is, in a few lines."""
        kind = "STAC API" if self._api else "STAC catalog of files"
        where = shown(self._api.url if self._api else self._static.location if self._static else "") or "in memory"
        lines = [f"{self.preset.title if self.preset else self.name}: {kind}, {where}"]
        if self.preset:
            lines.append(self.preset.about)
        chosen = {sensor: names for sensor, names in self._collections.items() if names is not None}
        if chosen:
            lines.append(
                "collections: " + "; ".join(f"{sensor} from {', '.join(names)}" for sensor, names in chosen.items())
            )
        lines += [f"cache: {self._cache.folder}, up to {self._cache.max_bytes / 1e9:g} GB"] if self._cache else []
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.info()}>"
