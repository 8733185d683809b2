"""What one STAC item says: which sensor, when, where, which orbit, which processing. Pure functions of a dictionary.

Catalogs disagree on field names and spelling ("Sentinel-2B", "sentinel-2b", "SENTINEL-1A"); each function here knows
the places where a fact may stand and says None where it stands nowhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from deepsentinel.bands import S1_BANDS

from .assets import Item, band_assets

# Words in a collection or item name that mean: radar, already put on a map.
TERRAIN_CORRECTED = re.compile(r"(rtc|gamma0|nrb|card4l|(^|[_-])ard([_-]|$))", re.I)
PRODUCT_NAME = re.compile(r"S2[A-D]_MSIL[12][AC]_.*?_N(\d{2})(\d{2})_R(\d{3})_T(\d{2}[A-Z]{3})_(\d{8}T\d{6})")


def _properties(item: Item) -> dict[str, Any]:
    return item.get("properties") or {}


def _first(item: Item, *names: str) -> Any:
    properties = _properties(item)
    return next((properties[name] for name in names if properties.get(name) not in (None, "")), None)


def _names(item: Item) -> str:
    return " ".join(
        str(part) for part in (item.get("collection"), item["id"], _first(item, "platform", "constellation")) if part
    )


def product_name(item: Item) -> re.Match[str] | None:
    """The ESA product name (baseline, relative orbit, tile, creation time) wherever the item keeps it.

    >>> product_name({"id": "S2A_MSIL2A_20170617T113321_N0205_R080_T29UPU_20170617T113319", "properties": {}})[4]
    '29UPU'
    """
    places = (_first(item, "s2:product_uri"), _first(item, "sentinel:product_id"), _first(item, "title"), item["id"])
    return next((match for place in places if place and (match := PRODUCT_NAME.search(str(place)))), None)


def sensor_of(item: Item) -> str | None:
    """ "S1", "S2", or None for anything else that a catalog may hold.

    >>> sensor_of({"id": "x", "properties": {"constellation": "Sentinel 2"}})
    'S2'
    """
    properties = _properties(item)
    for text in (properties.get("platform"), properties.get("constellation"), item.get("collection"), item["id"]):
        match = re.search(
            r"(?:sentinel[ _-]?|(?:^|[^a-z0-9])s)([12])(?:[a-d]?(?:[^a-z0-9]|$)|[a-d][a-z]?)", str(text or "").lower()
        )
        if match:
            return f"S{match[1]}"
    if properties.get("sar:polarizations") or properties.get("sar:instrument_mode"):
        return "S1"
    return None


def platform(item: Item) -> str | None:
    """The satellite as "sentinel-2a".

    >>> platform({"id": "S2B_36MXE_20240131_0_L2A", "properties": {}})
    'sentinel-2b'
    """
    match = re.search(r"sentinel[ _-]?([12])[ _-]?([a-d])", str(_first(item, "platform") or "").lower())
    match = match or re.match(r"s([12])([a-d])_", item["id"].lower())
    if match:
        return f"sentinel-{match[1]}{match[2]}"
    said = _first(item, "platform")
    return str(said).lower() if said else None


def moment(item: Item) -> str | None:
    """When it was sensed, as the item writes it."""
    return _first(item, "datetime", "start_datetime")


def level(item: Item) -> str | None:
    """ "L1C" or "L2A" for Sentinel-2.

    >>> level({"id": "S2A_32TPS_20230602_0_L2A", "properties": {}})
    'L2A'
    """
    places = (
        _first(item, "s2:product_type", "product:type"),
        _first(item, "processing:level"),
        item.get("collection"),
        item["id"],
        _first(item, "s2:product_uri", "sentinel:product_id"),
    )
    for place in places:
        match = re.search(r"msi_?(?:l)?(1c|2a)|(?<![a-z0-9])l(?:evel-?)?(1c|2a)|msil(1c|2a)", str(place or "").lower())
        if match:
            return "L" + next(group for group in match.groups() if group).upper()
    return None


def baseline(item: Item) -> str | None:
    """The processing baseline, "05.09".

    >>> baseline({"id": "S2A_MSIL2A_20230602T100601_N0509_R022_T32TPS_20230602T162001"})
    '05.09'
    """
    said = _first(item, "s2:processing_baseline", "processing:version", "processing_baseline")
    match = re.fullmatch(r"N?0?(\d{1,2})\.?(\d{2})", str(said or "").strip())
    if match:
        return f"{int(match[1]):02d}.{match[2]}"
    name = product_name(item)
    if name:
        return f"{name[1]}.{name[2]}"
    match = re.search(
        r"_N(\d{2})\.(\d{2})", str(_first(item, "s2:datatake_id", "eopf:datatake_id", "s2:granule_id") or "")
    )
    return f"{match[1]}.{match[2]}" if match else None


def created(item: Item) -> str | None:
    """When the product was made (not sensed), as "20201006T080531": the end of its name or its generation time.

    >>> created({"id": "S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531", "properties": {}})
    '20201006T080531'
    """
    said = _first(item, "s2:generation_time")
    if said:
        return re.sub(r"[-:]", "", str(said))[:15]
    match = re.match(r"S2[A-D]_MSIL[12][AC]_.*_(\d{8}T\d{6})(?:\.SAFE)?$", item["id"])
    return match[1] if match else None


def tile(item: Item) -> str | None:
    """The MGRS tile, "32TPS".

    >>> tile({"id": "S2B_36MXE_20240131_0_L2A", "properties": {}})
    '36MXE'
    """
    said = _first(item, "s2:mgrs_tile") or str(_first(item, "grid:code") or "").removeprefix("MGRS-")
    if not said:
        match = re.search(r"_T?(\d{1,2}[C-X][A-Z]{2})(?:_|$)", item["id"])
        said = match[1] if match else None
    if not said:
        return None
    return str(said).removeprefix("T").zfill(5)


def crs(item: Item) -> str | None:
    """The grid the pixels lie on, as the catalog states it: "EPSG:32631".

    >>> crs({"properties": {"proj:epsg": 32631}})
    'EPSG:32631'
    """
    properties = _properties(item)
    code = properties.get("proj:code") or properties.get("proj:epsg")
    if not code:
        stated = {asset.get("proj:code") or asset.get("proj:epsg") for asset in (item.get("assets") or {}).values()}
        stated.discard(None)
        code = stated.pop() if len(stated) == 1 else None
    return None if not code else code if isinstance(code, str) else f"EPSG:{code}"


def datatake(item: Item) -> str | None:
    """What all granules of one pass share.

    >>> datatake({"id": "a", "properties": {"s2:datatake_id": "GS2A_20230602T100601_041489_N05.09"}})
    'GS2A_20230602T100601_041489_N05.09'
    """
    said = _first(item, "s2:datatake_id", "eopf:datatake_id", "s1:datatake_id", "s1:datatake")
    return None if said is None else str(said)


def orbit(item: Item) -> str | None:
    """ "ascending" or "descending".

    >>> orbit({"id": "a", "properties": {"sat:orbit_state": "ASCENDING"}})
    'ascending'
    """
    said = str(_first(item, "sat:orbit_state") or "").lower()
    return said if said in ("ascending", "descending") else None


def relative_orbit(item: Item) -> int | None:
    """The track number.

    >>> relative_orbit({"id": "S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531", "properties": {}})
    43
    """
    said = _first(item, "sat:relative_orbit")
    if said is None:
        match = re.search(r"_R(\d{3})_", str(_first(item, "s2:product_uri", "sentinel:product_id") or item["id"]))
        said = match[1] if match else None
    try:
        return None if said is None else int(said)
    except (TypeError, ValueError):
        return None


def nodata_share(item: Item) -> float:
    """Share of the tile without pixels, 0 to 1; NaN where unknown.

    >>> nodata_share({"id": "a", "properties": {"s2:nodata_pixel_percentage": 25}})
    0.25
    """
    said = _first(item, "s2:nodata_pixel_percentage")
    if said is None and isinstance(_properties(item).get("statistics"), dict):
        said = _properties(item)["statistics"].get("nodata")
    if said is None:
        covered = _first(item, "data_coverage", "sentinel:data_coverage")
        said = None if covered is None else 100 - float(covered)
    return math.nan if said is None else float(said) / 100


def polarisations(bands: Iterable[str]) -> str | None:
    """The channels that there are files for, in our order.

    >>> polarisations(["VH", "VV", "angle"])
    'VV+VH'
    """
    held = set(bands)
    return "+".join(name for name in S1_BANDS if name in held) or None


def backscatter(item: Item) -> str | None:
    """ "gamma0_rtc" or "sigma0" of a radar item that lies on a map grid; None if it does not, or does not say.

    >>> backscatter({"id": "S1A_IW_GRDH_1SDV_20210721T084010_rtc", "properties": {}})
    'gamma0_rtc'
    """
    said = _first(item, "deepsentinel:backscatter")
    if said in ("gamma0_rtc", "sigma0"):
        return str(said)
    product = str(_first(item, "sar:product_type", "product:type", "s1:product_type") or "")
    if any(TERRAIN_CORRECTED.search(text) for text in (str(item.get("collection") or ""), item["id"], product)):
        return "gamma0_rtc"
    return "sigma0" if "sigma0" in _names(item).lower() else None


def grd_reason(item: Item) -> str | None:
    """Why a radar item cannot be put on a map, or None if it can.

    A ground range detected (GRD) product lies in the satellite's own geometry: over land its pixels are off by as much
    as the ground is high. Some catalogs write a map projection into such items all the same, so the test is not whether
    there is one, but whether anything says that the terrain was corrected for.

    >>> grd_reason({"id": "S1A_EW_GRDM_1SSH_20220505T235314", "collection": "sentinel-1-grd", "properties": {}})[:30]
    'it is a GRD product, uncalibra'
    """
    if backscatter(item) is not None:
        return None
    product = str(_first(item, "sar:product_type", "product:type", "s1:product_type") or "")
    if "GRD" in f"{item.get('collection')} {item['id']} {product}".upper():
        return (
            "it is a GRD product, uncalibrated and not terrain corrected: its pixels have no place on a map but by "
            "ground control points, and over land they would land off by as much as the ground is high"
        )
    return (
        "nothing in it says that it is calibrated and terrain corrected (an RTC, NRB or gamma0 product, or the "
        "property 'deepsentinel:backscatter' set to 'gamma0_rtc' or 'sigma0')"
    )


def available_bands(item: Item) -> list[str]:
    """The bands an item has files for.

    >>> available_bands({"id": "a", "assets": {"vv": {"href": "vv.tif"}}})
    ['VV']
    """
    return list(band_assets(item))
