"""Two real places, matched by others: Sentinel-1 and Sentinel-2 with land cover and height, fetched once and kept.

They are example patches of the TerraMesh data set as the TerraMind project publishes them. Each file's checksum is
written here; a file is fetched into the cache under a temporary name and only becomes visible when its checksum is
right.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepsentinel.bands import S2_L1C_BANDS, S2_L2A_BANDS
from deepsentinel.errors import InputError, SourceError
from deepsentinel.files import atomic_path, cache_dir

from .stac import StacSource
from .web import get_bytes

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

COMMIT = "8090b5cf93fa3d292729f3ef3b28d3c2a2b36d58"
HOME = f"https://raw.githubusercontent.com/IBM/terramind/{COMMIT}/examples"
CREDIT = (
    "Example patches of TerraMind (github.com/IBM/terramind, Apache-2.0; Jakubik et al. 2025) from the validation "
    "split of TerraMesh (CC-BY-SA-4.0; Blumenstiel et al. 2025). Contains modified Copernicus Sentinel data 2017 and "
    "2021."
)
KINDS = ("S1RTC", "S2L2A", "S2L1C", "LULC", "DEM")
FETCHES_AT_ONCE = 4


@dataclass(frozen=True)
class Place:
    """One place of the samples."""

    name: str
    """What its files are called."""
    s1_time: str
    """When Sentinel-1 passed: the time in its file."""
    s2_time: str
    """When Sentinel-2 passed: the time in the land-cover and NDVI files, which were made from it."""
    l1c_offset: int
    """What to add to the stored L1C values: the one of 2021 is a reprocessing that carries the +1000 (its band B10,
    which sees no ground, sits near 1000)."""


PLACES = (
    Place("637U_59R_1_3", "2017-10-30T05:32:30Z", "2017-10-30T10:41:51Z", 0),
    Place("282D_485L_3_3", "2021-07-21T08:40:10Z", "2021-07-23T13:22:41Z", -1000),
)

SHA256: Mapping[str, str] = {
    "DEM/282D_485L_3_3.tif": "73a4b1b9f5bb0b74490c14e55ca2e3b36efbc142aad61b3bc86bf049095ee2ac",
    "DEM/637U_59R_1_3.tif": "02860931d29c68b42d3a5b0eae59def8d6359ef29ba0dffc3d85705c7e0e45ad",
    "LULC/282D_485L_3_3.tif": "70a0419f577f1985109672e62988a0731ac4849b8c0a95888e86947f34107484",
    "LULC/637U_59R_1_3.tif": "bcc7286222fea58784e6ca9ccf49f4e5a6cb9db1fd450d0e1d89624d539b2ead",
    "S1RTC/282D_485L_3_3.tif": "b37b47ae2b83871a7194fe5aa4314c750916d02872b06d7d5db38316d8486cb3",
    "S1RTC/637U_59R_1_3.tif": "8c61cc204b0562549c6631b24e6bd044ee5f0af6d4a7815fda1a236f598361ee",
    "S2L1C/282D_485L_3_3.tif": "a78b5da83fe807b0355bc24855fd06447167e3ec21d46eb858351ba51ddda170",
    "S2L1C/637U_59R_1_3.tif": "76f27c8227dadcd8434f49e94f1956390315db611798bb99005661e9af32c9ef",
    "S2L2A/282D_485L_3_3.tif": "40cf54f662894a42c205876162e796275bfdf614b61905517826ee1b6f7e0d65",
    "S2L2A/637U_59R_1_3.tif": "10f6b77cae3a9810266ebaf2233eecd8948670da2d8bc12de7a85fc1c229678d",
}


class SamplesSource(StacSource):
    """The samples as a source: `search`, `read` and the rest work as anywhere.

    `level` chooses between surface (L2A) and top-of-atmosphere (L1C) reflectance, so that a search does not return
    every date twice. `areas` holds the outline of each place, `area` that of the first, `files` the paths of all files.
    """

    def __init__(
        self,
        *,
        level: str = "L2A",
        base_url: str = HOME,
        checksums: Mapping[str, str] = SHA256,
        folder: str | Path | None = None,
    ) -> None:
        if level not in ("L2A", "L1C"):
            raise InputError(f"level={level!r}: the samples are there as 'L2A' and as 'L1C'.")
        self.folder = Path(folder) if folder is not None else cache_dir("samples", COMMIT[:12])
        self.files = fetch(self.folder, base_url, checksums)
        super().__init__(item_collection(self.files, level), name="samples")

    @property
    def areas(self) -> dict[str, BaseGeometry]:
        """The outline of each place in lon and lat."""
        from .tables import item_geometry

        return {
            place.name: item_geometry(self.items_of("S1", [f"S1_{place.name}"])[f"S1_{place.name}"]) for place in PLACES
        }

    @property
    def area(self) -> BaseGeometry:
        """The outline of the first place."""
        return self.areas[PLACES[0].name]

    def info(self) -> str:
        """What this source is, and whom to thank."""
        return f"samples: two real places, {self.folder}\n{CREDIT}"


def fetch(folder: Path, base_url: str, checksums: Mapping[str, str]) -> dict[str, Path]:
    """Make sure that every file is there and right; the paths by name ("S1RTC/<place>.tif")."""
    paths = {name: folder / name for name in checksums}
    # A file is only ever there whole, so its presence is enough; a hand-made copy is checked when it is first seen.
    stamps = {name: path.with_suffix(".sha256") for name, path in paths.items()}
    missing = [name for name in paths if not (paths[name].is_file() and _stamped(stamps[name], checksums[name]))]
    if not missing:
        return paths
    here = [name for name in missing if paths[name].is_file() and _sha256(paths[name].read_bytes()) == checksums[name]]
    away = [name for name in missing if name not in here]
    if away:
        sys.stderr.write(f"Fetching {len(away)} sample files (8 MB in all, once) from {base_url}\n{CREDIT}\n")
        with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
            for _ in pool.map(lambda name: _fetch_one(name, paths[name], base_url, checksums[name], folder), away):
                pass
    for name in missing:
        with atomic_path(stamps[name], sync=False) as temporary:
            temporary.write_text(checksums[name])
    with atomic_path(folder / "CREDITS.txt", sync=False) as temporary:
        temporary.write_text(f"{CREDIT}\nFetched from {base_url}\n")
    return paths


def _stamped(stamp: Path, checksum: str) -> bool:
    try:
        return stamp.read_text() == checksum
    except OSError:
        return False


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _fetch_one(name: str, path: Path, base_url: str, checksum: str, folder: Path) -> None:
    url = f"{base_url.rstrip('/')}/{name}"
    by_hand = (
        f"Without a network, fetch the files under {base_url} elsewhere and put them into {folder} as {name} and so on."
    )
    try:
        data = get_bytes(url, tries=3)
    except SourceError as error:
        raise SourceError(f"The samples could not be fetched: {error} {by_hand}") from error
    found = _sha256(data)
    if found != checksum:
        raise SourceError(
            f"{url} is not the file that was expected (SHA-256 {found[:12]}.. instead of {checksum[:12]}..): a proxy "
            f"may have answered in its place. Nothing was kept. {by_hand}"
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def item_collection(files: Mapping[str, Path], level: str) -> dict[str, Any]:
    """The samples as a STAC item collection: one file of many bands for each scene."""
    features = []
    for place in PLACES:
        db = {"unit": "dB"}
        radar = {
            "data": {
                "href": str(files[f"S1RTC/{place.name}.tif"]),
                "type": "image/tiff",
                "eo:bands": [{"name": "VV"}, {"name": "VH"}],
                "raster:bands": [db, db],
            }
        }
        # Both passes were in the early morning there, when Sentinel-1 flies southwards.
        orbit = {"sat:orbit_state": "descending", "constellation": "sentinel-1"}
        features.append(_item(f"S1_{place.name}", place.s1_time, "sentinel-1-rtc", radar, orbit))
        names = S2_L2A_BANDS if level == "L2A" else S2_L1C_BANDS
        # The L2A files have their offset removed; the L1C files are as the product has them.
        offset = 0.0 if level == "L2A" else place.l1c_offset / 10_000
        optical = {
            "data": {
                "href": str(files[f"S2{level}/{place.name}.tif"]),
                "type": "image/tiff",
                "eo:bands": [{"name": name} for name in names],
                "raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": offset}] * len(names),
            }
        }
        about = {"constellation": "sentinel-2", "eo:cloud_cover": None}
        features.append(_item(f"S2_{place.name}_{level}", place.s2_time, f"sentinel-2-{level.lower()}", optical, about))
    return {"type": "FeatureCollection", "features": features}


def _item(name: str, time: str, collection: str, assets: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    import rasterio
    import shapely
    from rasterio.warp import transform_geom

    path = next(iter(assets.values()))["href"]
    with rasterio.open(path) as file:
        outline = transform_geom(file.crs, "EPSG:4326", shapely.box(*file.bounds).__geo_interface__)
        code = f"EPSG:{file.crs.to_epsg()}"
    return {
        "type": "Feature",
        "id": name,
        "collection": collection,
        "geometry": outline,
        "bbox": list(shapely.geometry.shape(outline).bounds),
        "properties": {"datetime": time, "proj:code": code, **about},
        "assets": assets,
    }
