"""A Sentinel-2 product as delivered (SAFE, L1C or L2A) -> STAC items, from its own XML.

What has changed over the years: the names of files (long ones until 2016), the tags that Sen2Cor wrote before 2018
(`..._2A`), the pixel sizes that a band comes in, and since baseline 04.00 the offset. So tags go by any of their names,
files by the band at the end of theirs, and the offset by what the product itself states, band by band.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import shapely

from deepsentinel.bands import REFLECTANCE_SCALE, S2_BANDS
from deepsentinel.errors import SourceError
from deepsentinel.sources.assets import Item
from deepsentinel.sources.choices import ABSENT
from deepsentinel.sources.harmonise import OFFSET_SINCE

from .files import Product, number, numbers, text

PRODUCT_XML = r"(MTD_MSIL(1C|2A)|S2\w_(OPER|USER)_MTD_SAFL(1C|2A)_.*)\.xml"
TILE_XML = r"(MTD_TL|S2\w_(OPER|USER)_MTD_L(1C|2A)_TL_.*)\.xml"
IMAGE = re.compile(r"_(B\d[0-9A]|SCL)(?:_(\d\d)m)?(?:\.\w+)?$")
BAND_NAMES = tuple(S2_BANDS)  # in the order of `band_id`
OFFSETS_KEY = "deepsentinel:offsets_stated"
"""Item property: whether the product states offsets at all."""
ANGLES: Mapping[str, str] = {
    "sun_zenith_deg": "s2:mean_solar_zenith",
    "sun_azimuth_deg": "s2:mean_solar_azimuth",
    "view_zenith_deg": "s2:mean_view_zenith",
    "view_azimuth_deg": "s2:mean_view_azimuth",
}
"""Attributes of a patch -> where an item keeps them."""


def optical_items(product: Product) -> tuple[list[Item], list[str]]:
    """The items of a product (one for each tile in it), and what its reader should know."""
    main = product.matching(PRODUCT_XML)
    if not main:
        raise SourceError(
            f"{product.path.name} has no MTD_MSIL1C.xml or MTD_MSIL2A.xml, which say what is in it: it is not whole. "
            "Download it again."
        )
    root = product.xml(main[0])
    granules = sorted({name.split("/")[1] for name in product.matching(r"GRANULE/[^/]+/.+")})
    if not granules:
        raise SourceError(f"{product.path.name} has nothing in its GRANULE folder. Download it again.")
    items, remarks = [], []
    for granule in granules:
        described = product.matching(rf"GRANULE/{re.escape(granule)}/{TILE_XML}")
        if not described:
            raise SourceError(
                f"{product.path.name}: tile {granule} has no MTD_TL.xml, which says where it lies. Download it again."
            )
        tile = product.xml(described[0])
        item, missing = _item(product, root, tile, granule, alone=len(granules) == 1)
        items.append(item)
        if missing:
            named = ", ".join(f"{band} ({file})" for band, file in missing.items())
            where = "" if product.name in item["id"] else f" (in {product.path.name})"
            remarks.append(
                f"{item['id']}{where} lacks {named}, which its metadata lists: the download was partial. The other "
                "bands can be read; download it again for these."
            )
    return items, remarks


def _item(product: Product, root: Element, tile: Element, granule: str, *, alone: bool) -> tuple[Item, dict[str, str]]:
    level = _required(product, "PROCESSING_LEVEL", text(root, "PROCESSING_LEVEL", "PROCESSING_LEVEL_2A"))
    level = "L2A" if "2A" in level.upper() else "L1C"
    tile_id = _required(product, "TILE_ID", text(tile, "TILE_ID", "TILE_ID_2A"))
    named = re.search(r"_T(\d{2}[A-Z]{3})(_|$)", tile_id) or re.search(r"_T(\d{2}[A-Z]{3})(_|$)", granule)
    code = _required(product, "HORIZONTAL_CS_CODE", text(tile, "HORIZONTAL_CS_CODE")).upper()
    when = _required(product, "SENSING_TIME", text(tile, "SENSING_TIME") or text(root, "PRODUCT_START_TIME"))
    box = _boxes(product, tile)
    geometry = _footprint(root, box, code, alone=alone)
    baseline = _required(product, "PROCESSING_BASELINE", text(root, "PROCESSING_BASELINE"))
    datatake = root.find(".//Datatake")
    offsets = _offsets(root)
    nodata = number(tile, "NODATA_PIXEL_PERCENTAGE")
    if nodata is None and alone:
        nodata = number(root, "NODATA_PIXEL_PERCENTAGE")
        nodata = _uncovered_percent(geometry, box, code) if nodata is None else nodata
    cloud = number(tile, "CLOUDY_PIXEL_PERCENTAGE", "CLOUD_COVERAGE_PERCENTAGE")
    if cloud is None:
        cloud = number(root, "Cloud_Coverage_Assessment")
    # What Sen2Cor made of another product states the names of both.
    uri = text(root, "PRODUCT_URI", f"PRODUCT_URI_{level[1:]}")
    stated = _own_name(uri, "")
    name = stated or product.name
    # A folder may hold one tile of a product of many, whose name holds none.
    own = alone and (not stated or named is None or named[1] in stated)
    absolute = re.search(r"_A?(\d{6})_", f"{datatake.get('datatakeIdentifier') if datatake is not None else ''}_")
    properties: dict[str, Any] = {
        "datetime": when,
        "platform": text(root, "SPACECRAFT_NAME"),
        "constellation": "Sentinel-2",
        "instruments": ["msi"],
        "eo:cloud_cover": cloud,
        "proj:code": code,
        "sat:orbit_state": (text(root, "SENSING_ORBIT_DIRECTION") or "").lower() or None,
        "sat:relative_orbit": _whole(text(root, "SENSING_ORBIT_NUMBER")),
        "sat:absolute_orbit": _whole(absolute[1] if absolute else None),
        "s2:mgrs_tile": named[1] if named else None,
        "s2:processing_baseline": baseline,
        "s2:datatake_id": None if datatake is None else datatake.get("datatakeIdentifier"),
        "s2:product_type": f"S2MSI{level[1:]}",
        "s2:product_uri": uri,
        "s2:generation_time": text(root, "GENERATION_TIME"),
        "s2:nodata_pixel_percentage": nodata,
        OFFSETS_KEY: bool(offsets),
        **_angles(tile),
    }
    assets, missing = _assets(product, root, granule, box, offsets, _quantification(root))
    if not assets:
        raise SourceError(f"{product.path.name} holds no image of any band. Download it again.")
    if missing:
        properties[ABSENT] = missing
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name if own else f"{name}_T{named[1] if named else granule}",
        "collection": f"sentinel-2-{level.lower()}",
        "geometry": shapely.geometry.mapping(geometry),
        "properties": {name: value for name, value in properties.items() if value is not None},
        "assets": assets,
        "links": [],
    }, missing


def _own_name(uri: str | None, folder: str) -> str:
    """What a product calls itself: folders are renamed, and pairs and corpora must find the scene all the same.

    >>> _own_name("S2A_MSIL2A_20230625T234621.SAFE", "my download"), _own_name("../../etc/x", "S2A_MSIL2A_old")
    ('S2A_MSIL2A_20230625T234621', 'S2A_MSIL2A_old')
    """
    own = re.fullmatch(r"(S2\w_[\w.-]+?)(\.SAFE)?", uri or "", re.I | re.A)
    return own[1] if own else folder


def _required(product: Product, what: str, said: str | None) -> str:
    if said is None:
        raise SourceError(f"{product.path.name}: its metadata has no {what}. Download it again.")
    return said


def _whole(said: str | None) -> int | None:
    return int(said) if said is not None and said.isdigit() else None


Box = tuple[float, float, int, int, float]  # left, top, columns, rows, pixel size


def _boxes(product: Product, tile: Element) -> dict[int, Box]:
    """Pixel size in metres -> where the images of that size lie."""
    found: dict[int, Box] = {}
    sizes = {size.get("resolution"): size for size in tile.iter("Size")}
    for place in tile.iter("Geoposition"):
        key = place.get("resolution") or ""
        left, top, step = (number(place, name) for name in ("ULX", "ULY", "XDIM"))
        cols, rows = (number(sizes.get(key), name) for name in ("NCOLS", "NROWS"))
        if key.isdigit() and None not in (left, top, step, cols, rows):
            found[int(key)] = (left, top, int(cols), int(rows), step)  # type: ignore[arg-type,assignment]
    if not found:
        raise SourceError(f"{product.path.name}: its tile metadata does not say where it lies. Download it again.")
    return found


def _tile_shape(box: Mapping[int, Box]) -> shapely.Polygon:
    left, top, cols, rows, step = box[min(box)]
    return shapely.box(left, top - rows * step, left + cols * step, top)


def _footprint(root: Element, box: Mapping[int, Box], code: str, *, alone: bool) -> shapely.Geometry:
    """Where there are pixels, in degrees: as the product states it, or else the tile."""
    said = numbers(text(root, "EXT_POS_LIST")) if alone else []
    if len(said) >= 8 and len(said) % 2 == 0:
        ring = np.array(said).reshape(-1, 2)[:, ::-1]
        return shapely.Polygon(ring)
    from pyproj import Transformer

    # Sides that are straight on the tile's map are curves in degrees.
    corners = shapely.get_coordinates(shapely.segmentize(_tile_shape(box), 10_000))
    lon, lat = Transformer.from_crs(code, "EPSG:4326", always_xy=True).transform(*corners.T)
    return shapely.Polygon(np.column_stack([lon, lat]))


def _uncovered_percent(footprint: shapely.Geometry, box: Mapping[int, Box], code: str) -> float:
    """How much of the tile lies outside the footprint: for L1C, which does not state it."""
    from pyproj import Transformer

    shape = _tile_shape(box)
    x, y = Transformer.from_crs("EPSG:4326", code, always_xy=True).transform(*shapely.get_coordinates(footprint).T)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.nan
    seen = shapely.make_valid(shapely.Polygon(np.column_stack([x, y])))
    return round(100 * (1 - shapely.intersection(seen, shape).area / shape.area), 6)


def _offsets(root: Element) -> dict[str, float]:
    """Band -> what to add to stored values; empty where the product has no such tag, as before baseline 04.00."""
    found = {}
    for tag in ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET"):
        for element in root.iter(tag):
            at, add = _whole(element.get("band_id")), number(element, tag)
            if at is not None and at < len(BAND_NAMES) and add is not None:
                found[BAND_NAMES[at]] = add
    return found


def _quantification(root: Element) -> float:
    said = number(root, "BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE")
    return said if said else float(REFLECTANCE_SCALE)


def _angles(tile: Element) -> dict[str, float | None]:
    """The mean angles of the sun and of the view, in degrees; the view's over all bands."""
    sun = tile.find(".//Mean_Sun_Angle")
    zenith, azimuth = number(sun, "ZENITH_ANGLE"), number(sun, "AZIMUTH_ANGLE")
    seen = [
        (number(one, "ZENITH_ANGLE"), number(one, "AZIMUTH_ANGLE")) for one in tile.iter("Mean_Viewing_Incidence_Angle")
    ]
    views = np.array([view for view in seen if None not in view], dtype=float).reshape(-1, 2)
    views = views[np.isfinite(views).all(axis=1)]
    turned = np.deg2rad(views[:, 1])  # directions have no mean: 359 and 1 are not 180
    return {
        "s2:mean_solar_zenith": zenith,
        "s2:mean_solar_azimuth": azimuth,
        "view:sun_elevation": None if zenith is None else 90 - zenith,
        "view:sun_azimuth": azimuth,
        "s2:mean_view_zenith": float(views[:, 0].mean()) if len(views) else None,
        "s2:mean_view_azimuth": float(np.rad2deg(np.arctan2(np.sin(turned).mean(), np.cos(turned).mean())) % 360)
        if len(views)
        else None,
    }


def _assets(
    product: Product,
    root: Element,
    granule: str,
    box: Mapping[int, Box],
    offsets: Mapping[str, float],
    quantification: float,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The images that are there, and of bands whose own file is listed and is not there the name of that file.

    A band comes at several pixel sizes. Its copies at another than its own are no substitute that anybody would notice,
    so they are left out with it; where the product never had it at its own, they are what there is.
    """
    assets: dict[str, Any] = {}
    for name in product.matching(rf"GRANULE/{re.escape(granule)}/IMG_DATA/.+\.(jp2|tiff?)"):
        image = IMAGE.search(name)
        if image is None:
            continue
        band, metres = image[1], image[2]
        native = S2_BANDS[band].resolution_m if band in S2_BANDS else 20
        left, top, cols, rows, step = box.get(int(metres or native), box[min(box)])
        raster: dict[str, Any] = {"data_type": "uint8" if band == "SCL" else "uint16", "nodata": 0}
        if band != "SCL":
            raster |= {"scale": 1 / quantification, "offset": offsets.get(band, 0.0) / quantification}
        assets[f"{band}_{metres}m" if metres else band] = {
            "href": product.gdal(name),
            "type": "image/jp2" if name.endswith(".jp2") else "image/tiff; application=geotiff",
            "roles": ["data"],
            "gsd": int(metres or native),
            "proj:shape": [rows, cols],
            "proj:transform": [step, 0.0, left, 0.0, -step, top],
            "raster:bands": [raster],
        }
    listed: dict[str, dict[str | None, str]] = {}  # band -> pixel size -> file
    for tag in ("IMAGE_FILE", "IMAGE_FILE_2A", "IMAGE_ID", "IMAGE_ID_2A"):
        for element in root.iter(tag):
            name = (element.text or "").strip()
            image = IMAGE.search(name)
            if image and (granule in name or "/" not in name):
                listed.setdefault(image[1], {})[image[2]] = name.rpartition("/")[2]
    missing: dict[str, str] = {}
    for band, files in sorted(listed.items()):
        best = min(files, key=lambda metres: _rank(band, metres))
        copies = {key for key in assets if key.partition("_")[0] == band}
        if (best is None and copies) or copies & {band, f"{band}_{best}m"}:
            continue
        missing[band] = files[best]
        for key in copies:
            del assets[key]
    return assets, missing


def _rank(band: str, metres: str | None) -> tuple[bool, str]:
    """Which file of a band is read, the smallest first: the one at its own pixel size, else the finest."""
    native = S2_BANDS[band].resolution_m if band in S2_BANDS else 20
    return metres is not None and int(metres) != native, metres or ""


def lacks_offsets(item: Item) -> str | None:
    """Why the stated offsets of a product cannot be believed; None if they can.

    >>> lacks_offsets({"id": "a", "properties": {"s2:processing_baseline": "05.09", OFFSETS_KEY: False}})[:19]
    'its baseline 05.09 '
    """
    properties = item["properties"]
    baseline = str(properties.get("s2:processing_baseline"))
    if properties.get(OFFSETS_KEY) or baseline < OFFSET_SINCE:
        return None
    return f"its baseline {baseline} stores an offset, and its metadata states none"
