"""Products on the user's own disk as a source: .SAFE folders, zipped or not, and terrain-corrected radar GeoTIFFs.

`finding` finds what lies there and `files` opens it; `optical` (Sentinel-2), `rtc` (radar GeoTIFFs) and `radar`
(Sentinel-1 GRD over sea) turn products into items. Of GRD `calibration` knows the numbers, `places` where its pixels
lie, `render` puts both together, and `sea` says where that may be done.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import shapely

from deepsentinel.bands import REFLECTANCE_SCALE
from deepsentinel.errors import InputError, NothingFoundError, ReadError, SourceError, warn
from deepsentinel.progress import progress
from deepsentinel.sources.assets import AssetRef, Item
from deepsentinel.sources.base import When
from deepsentinel.sources.catalog import Prune, StaticCatalog
from deepsentinel.sources.choices import ABSENT
from deepsentinel.sources.harmonise import Offset
from deepsentinel.sources.plans import Methods, Plan
from deepsentinel.sources.query import Query
from deepsentinel.sources.stac import Row, StacSource

from .files import Product, has_jpeg2000, is_image, open_product, stamp_of
from .finding import RASTERS, look_through, may_hold_products, passed_over
from .optical import ANGLES, PRODUCT_XML, lacks_offsets, optical_items
from .radar import GRD_KEY
from .rtc import Raster, rtc_items
from .sea import SeaPlan, check_map, has_sea, land_share, refusal

if TYPE_CHECKING:
    import geopandas as gpd

    from .places import Places

__all__ = ["SafeSource"]


class Shelf(StaticCatalog):
    """The products at a location as a catalog: each read once, and again when it has changed."""

    def __init__(self, location: str | Path, s1_crs: str | None = None) -> None:
        self.path, self.s1_crs = Path(location).expanduser().absolute(), s1_crs
        self.location = self.path.as_posix()
        self.root = {"type": "FeatureCollection", "features": []}
        self._reading = Lock()
        self._known: dict[Path, tuple[Any, list[Item]]] = {}
        self._remarks: list[str] = []
        self._passed: set[Path] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.location, self.s1_crs)

    def items(self, worth: Prune | None = None) -> Iterator[Item]:
        """Every item of every product that is there now."""
        with self._reading:
            there = list(look_through(self.path))
            products = [path for path, kind in there if kind == "product"]
            paths = [path for path in products if path.suffix.lower() not in RASTERS]
            fresh = [path for path in paths if self._known.get(path, (None,))[0] != stamp_of(path)]
            for path in progress(fresh, total=len(fresh), what="looking at products", unit="product"):
                self._known[path] = (stamp_of(path), self._look(path))
            self._known = {path: known for path, known in self._known.items() if path in set(paths)}
            found = [item for path in paths for item in self._known[path][1]]
            found += self._rasters([path for path in products if path.suffix.lower() in RASTERS])
            others = [(path, kind) for path, kind in there if kind != "product" and path not in self._passed]
            self._passed.update(path for path, _ in others)
            self._remarks += passed_over(others)
        # A product and its archive beside it are one: the whole one is taken, and the folder, which needs no unpacking.
        seen: dict[tuple[Any, str], Item] = {}
        for item in sorted(found, key=lambda item: (len(item["properties"].get(ABSENT, ())), _is_zipped(item))):
            kept = seen.setdefault((item["collection"], item["id"]), item)
            if kept is not item and ABSENT not in kept["properties"]:  # nobody misses what the other one lacks
                lacks = (f"{item['id']} lacks ", f"{item['id']} (in ")
                self._remarks = [told for told in self._remarks if not told.startswith(lacks)]
        yield from seen.values()

    def remarks(self) -> list[str]:
        """What was noticed since this was last asked, for the user's ears."""
        with self._reading:
            told, self._remarks = self._remarks, []
            return told

    def _look(self, path: Path) -> list[Item]:
        try:
            product = open_product(path)
            items, remarks = _items(product)
        except SourceError as error:
            items, remarks = [], [f"{error} The other products are used."]
        except (
            Exception
        ) as error:  # metadata can be wrong in more ways than can be listed, and there are other products
            told = f"{path.name} states what cannot be understood ({type(error).__name__}: {error})."
            items, remarks = [], [f"{told} Download it again. The other products are used."]
        for item in items:
            if self.s1_crs is not None and GRD_KEY in item["properties"]:
                item["properties"]["proj:code"] = self.s1_crs
        self._remarks += remarks
        return items

    def _rasters(self, paths: list[Path]) -> list[Item]:
        """Loose GeoTIFFs: read together, because one scene is several of them."""
        stamp = tuple((path, stamp_of(path)) for path in paths)
        if self._known_rasters[0] != stamp:
            items, remarks = rtc_items(Raster(path.stem, path.parent.name, path.as_posix()) for path in paths)
            self._known_rasters = (stamp, items)
            self._remarks += remarks
        return self._known_rasters[1]

    _known_rasters: tuple[Any, list[Item]] = (None, [])


def _is_zipped(item: Item) -> bool:
    return any(asset["href"].startswith("/vsizip/") for asset in item["assets"].values())


def _items(product: Product) -> tuple[list[Item], list[str]]:
    """The items of one product of whatever kind."""
    if product.matching(PRODUCT_XML) or product.matching(r"GRANULE/.+"):
        return optical_items(product)
    tiffs = product.matching(r"(.*/)?[^/]+\.tiff?")
    if product.matching(r"manifest\.safe"):
        from .radar import radar_items

        return radar_items(product)
    if product.matching(r"(annotation|measurement)/.+"):
        raise SourceError(f"{product.path.name} has no manifest.safe, which says what is in it. Download it again.")
    if tiffs:
        return rtc_items(Raster(Path(name).stem, product.name, product.gdal(name)) for name in tiffs)
    raise SourceError(
        f"{product.path.name} is no Sentinel product: it has neither MTD_MSIL*.xml (Sentinel-2) nor manifest.safe "
        "(Sentinel-1). Was it downloaded whole?"
    )


class SafeSource(StacSource):
    """Scenes from a folder of downloaded products, or from one of them.

    Sentinel-2 L1C and L2A of any satellite and baseline, in .SAFE folders or zipped: offsets, cloud and angles come
    from the product's own XML. Terrain-corrected Sentinel-1 (RTC) as GeoTIFFs. Of products that were processed twice
    the newest is found; with `s2_level` only one level. Whatever cannot be used is told of by name, and the rest is
    used.

    Sentinel-1 GRD over sea: calibrated to sigma0, its thermal noise taken out, put where it meets the sea, on a polar
    or UTM map (`s1_crs` chooses another); done once for a scene, and kept in the cache folder. `s1_height_m` is the
    height of the sea above the ellipsoid there (the geoid's, within 110 m; 0 if not given). Patches state the height
    that was used (`sea_height_m`), how far a pixel may be off if the sea lies there (`placement_error_m`), and what
    each metre that it lies higher or lower adds to that (`placement_shift_per_m`). Over land it is refused, because
    pixels there are off by as much as the ground is high; `s1_over_land=True` reads it all the same.

    >>> import tempfile
    >>> SafeSource(tempfile.mkdtemp())
    Traceback (most recent call last):
    ...
    deepsentinel.errors.InputError: ... holds no downloaded product...
    """

    def __init__(
        self,
        location: str | Path,
        *,
        name: str | None = None,
        s1_units: str | None = None,
        s1_backscatter: str | None = None,
        s1_crs: str | None = None,
        s1_height_m: float = 0.0,
        s1_over_land: bool = False,
        s2_offset: int | None = None,
        s2_level: str | None = None,
    ) -> None:
        self._s1_crs = check_map(s1_crs)
        if isinstance(s1_height_m, bool) or not isinstance(s1_height_m, int | float) or not abs(s1_height_m) <= 200:
            raise InputError(
                f"s1_height_m={s1_height_m!r}: the sea lies within 200 m of the ellipsoid; give its height in metres."
            )
        self._s1_height_m = float(s1_height_m)
        self._s1_over_land = bool(s1_over_land)
        path = Path(location).expanduser()
        if not may_hold_products(path):
            raise InputError(
                f"{path} holds no downloaded product: no .SAFE folder, no zipped one, no Sentinel-1 GeoTIFF. Give a "
                "folder they lie below, or one of them."
            )
        super().__init__(
            location,
            name=name,
            s1_units=s1_units,
            s1_backscatter=s1_backscatter,
            s2_offset=s2_offset,
            s2_level=s2_level,
        )

    def _open(self, location: str | Path | Mapping[str, Any] | None) -> None:
        self._shelf = Shelf(str(location), self._s1_crs)
        self._static = self._shelf

    def _own_name(self, location: str | Path | Mapping[str, Any] | None) -> str:
        return Path(str(location)).expanduser().absolute().name

    def info(self) -> str:
        """What this source is, in a few lines."""
        return f"{self.name}: downloaded products in {self._shelf.location}"

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
        """As every source's search (see `StacSource.search`); of products processed twice only the newest is found."""
        from deepsentinel.footprints import drop_reprocessed

        found = super().search(aoi, start, end, sensors=sensors, max_cloud=max_cloud)
        kept = drop_reprocessed(found).reset_index(drop=True)
        kept.attrs = dict(found.attrs)
        return kept

    def _search_static(self, query: Query) -> list[Row]:
        try:
            rows = super()._search_static(query)
            return rows if self._s1_over_land else self._at_sea(rows, query)
        finally:
            for remark in self._shelf.remarks():
                warn(f"{self.name}: {remark}")

    def _at_sea(self, rows: list[Row], query: Query) -> list[Row]:
        """Without GRD scenes that show no sea in the area that was searched, or none that is wide enough for a window.

        An area by a coast holds windows at sea; each window is looked at when it is read (see `SeaPlan`).
        """
        on_land = []
        for row in rows:
            item = self._items[row["sensor"], row["id"]]
            if GRD_KEY in item["properties"]:
                shown = shapely.intersection(row["geometry"], query.geometry)
                if not has_sea(shown):
                    on_land.append((row, land_share(shown)))
        if not on_land:
            return rows
        row, share = on_land[0]
        told = f"{row['id']}: {refusal(share)}"
        if len(on_land) == len(rows):
            raise NothingFoundError(told)
        warn(f"{self.name}: {len(on_land)} radar scene(s) were left out, such as {told}")
        return [row for row in rows if row["id"] not in {gone["id"] for gone, _ in on_land}]

    def _wants_collection(self, sensor: str | None, name: str) -> bool:
        # Asking for a level leaves the other out: who has both of one scene wants one of them.
        level_fits = sensor != "S2" or self._s2_level is None or name.endswith(self._s2_level.lower())
        return level_fits and super()._wants_collection(sensor, name)

    # -- reading -------------------------------------------------------------------------------------------------------

    def resolve(self, href: str, item: Item, asset_key: str) -> str:
        """The path of an asset; radar that lies in no map is put on one when it is first asked for."""
        if GRD_KEY not in item["properties"]:
            if not is_image(href):
                name = href.rpartition("/")[2]
                raise ReadError(
                    f"Scene {item['id']}: {name} (asset {asset_key!r}) is neither JPEG 2000 nor TIFF. Was it "
                    "downloaded whole? Download the product again."
                )
            if href.endswith(".jp2") and not has_jpeg2000():
                raise ReadError(
                    f"Scene {item['id']} is stored as JPEG 2000, which this installation of GDAL cannot read. Install "
                    "that part of it (conda install -c conda-forge libgdal-jp2openjpeg), or rasterio from PyPI, which "
                    "has it."
                )
            return href
        from .radar import read_radar
        from .render import rendered

        return str(rendered(read_radar(item), self._places(item)) / f"{asset_key}.tif")

    def _places(self, item: Item) -> Places:
        from .places import Places
        from .radar import read_radar

        radar = read_radar(item)
        return Places(radar.grid, item["properties"]["proj:code"], radar.shape, self._s1_height_m)

    def _plan_s1(self, item: Item, refs: dict[str, AssetRef], methods: Methods) -> Plan:
        plan = super()._plan_s1(item, refs, methods)
        if GRD_KEY not in item["properties"]:
            return plan
        from .radar import read_radar

        radar = read_radar(item)
        said = {
            "noise_removed": radar.noise_removed,
            "placement": "where pixels meet the sea, by orbit, time and range",
            "placement_error_m": round(radar.grid.error_m, 1),
            "sea_height_m": self._s1_height_m,
            # What a sea that lies higher or lower than that moves pixels by, for each metre, where it is most.
            "placement_shift_per_m": round(1 / math.tan(math.radians(float(radar.grid.angle_deg.min()))), 2),
        }
        stated = {field.name: getattr(plan, field.name) for field in fields(plan)}
        return SeaPlan(**stated | {"attrs": plan.attrs | said}, over_land=self._s1_over_land)

    def _offset(self, item: Item, ref: AssetRef) -> Offset:
        if self._s2_offset is not None:
            return super()._offset(item, ref)
        doubt = lacks_offsets(item)
        if doubt is not None:
            raise ReadError(
                f"Scene {item['id']}: {doubt}. Download it again, or open the source with s2_offset=-1000 (the offset "
                "is in the pixels) or 0."
            )
        add = round((ref.offset or 0.0) * REFLECTANCE_SCALE)
        said = f"an offset of {add}" if add else "no offset"
        return Offset(add, f"the product's own metadata states {said} for {ref.key}")

    def _plan_s2(self, item: Item, refs: dict[str, AssetRef], methods: Methods) -> Plan:
        plan = super()._plan_s2(item, refs, methods)
        said = {name: item["properties"].get(key) for name, key in ANGLES.items()}
        return replace(plan, attrs=plan.attrs | {name: round(v, 4) for name, v in said.items() if v is not None})
