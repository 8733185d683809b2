"""The public services that are known by name: where they are, which collections are usable, and how their pixels are
stored.

Each preset writes down what its catalog's items do not say, or say wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

from .harmonise import OffsetRule, Quantity

GRD_REASON = (
    "its Sentinel-1 products are GRD: amplitudes in the satellite's own geometry, uncalibrated and not terrain "
    "corrected. On a map they would land off by as much as the ground is high (the projection that some items state "
    "is invented). Take Sentinel-1 from 'planetary-computer', whose sentinel-1-rtc is terrain corrected, or ask for "
    "sensors=('S2',)."
)


@dataclass(frozen=True)
class Preset:
    """One service."""

    name: str
    """What `open_source` calls it."""
    title: str
    """What people call it."""
    url: str
    """The root of its STAC API."""
    collections: Mapping[str, tuple[str, ...]]
    """Which collections hold what is usable of each sensor; none where nothing is."""
    offset_rule: OffsetRule
    """How to tell whether Sentinel-2 pixels still hold the +1000 (see `harmonise`)."""
    s1_quantity: Quantity | None = None
    """What its Sentinel-1 pixels are."""
    s1_nodata: float | None = None
    """The stored Sentinel-1 value without meaning, where the items do not say."""
    s1_refusal: str | None = None
    """Why its Sentinel-1 is not read."""
    cloud_filter: Literal["query", "filter"] | None = None
    """How its API filters by cloud cover: the Query extension, CQL2, or not at all."""
    page_items: int = 250
    """How many items a page of results holds."""
    signing_url: str | None = None
    """Where tokens for its files are handed out."""
    gdal: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """GDAL settings for its files."""
    needs_s3_keys: bool = False
    """Whether its files want S3 keys of the user's own."""
    about: str = ""
    """What to know, in a line or two."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only mappings do not pickle.
        values = (getattr(self, one.name) for one in fields(self))
        return type(self), tuple(dict(value) if isinstance(value, Mapping) else value for value in values)


PLANETARY_COMPUTER = Preset(
    name="planetary-computer",
    title="Microsoft Planetary Computer",
    url="https://planetarycomputer.microsoft.com/api/stac/v1",
    collections=MappingProxyType({"S1": ("sentinel-1-rtc",), "S2": ("sentinel-2-l2a",)}),
    # Its COGs are conversions of the original products; the items state no offset.
    offset_rule="baseline",
    s1_quantity="power",
    s1_nodata=-32768.0,
    cloud_filter="query",
    page_items=500,
    signing_url="https://planetarycomputer.microsoft.com/api/sas/v1/token",
    about="S2 L2A and S1 gamma0 RTC (linear power, 10 m). No account; hrefs are signed just before they are opened.",
)

EARTH_SEARCH = Preset(
    name="earth-search",
    title="Earth Search (Element 84)",
    url="https://earth-search.aws.element84.com/v1",
    collections=MappingProxyType({"S1": (), "S2": ("sentinel-2-l2a",)}),
    offset_rule="earth-search",
    s1_refusal=GRD_REASON,
    cloud_filter="query",
    page_items=250,
    about=(
        "S2 L2A as public COGs, no account. collections={'S2': 'sentinel-2-c1-l2a'} for the reprocessed Collection 1. "
        "No usable S1 (GRD only)."
    ),
)

CDSE = Preset(
    name="cdse",
    title="Copernicus Data Space Ecosystem",
    url="https://stac.dataspace.copernicus.eu/v1",
    collections=MappingProxyType({"S1": (), "S2": ("sentinel-2-l2a",)}),
    # raster:offset is stated too, but for some assets wrongly (AOT); the products are the originals, so the baseline
    # rules.
    offset_rule="baseline",
    s1_refusal=GRD_REASON,
    cloud_filter="filter",
    page_items=200,
    gdal=MappingProxyType(
        {
            "AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu",
            "AWS_HTTPS": "YES",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_REGION": "default",
        }
    ),
    needs_s3_keys=True,
    about=(
        "The original S2 L2A products as JP2 on S3; needs S3 keys "
        "(eodata-s3keysmanager.dataspace.copernicus.eu) in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. No usable S1 "
        "(GRD only)."
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {preset.name: preset for preset in (PLANETARY_COMPUTER, EARTH_SEARCH, CDSE)}
)
