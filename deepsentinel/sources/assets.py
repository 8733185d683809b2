"""Which asset of a STAC item holds which band: by its key, its `eo:bands`, its common name or its wavelength.

Every catalog names them differently (B02, B02_10m, blue, blue-jp2), some keep several bands in one file, and some call
four bands "rededge"; this module turns all of that into one mapping from our band names to files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from deepsentinel.bands import S1_BANDS, S2_BANDS
from deepsentinel.errors import InputError

Item = dict[str, Any]

# Pictures and documents that lie beside the pixels. A picture may well carry eo:bands (red, green, blue of a preview),
# so these are told by name and role before anything else is looked at.
PICTURES = re.compile(
    r"^(visual|tci|overview|thumbnail|preview|rendered_preview|tilejson|info|product|.*metadata.*)", re.I
)
PICTURE_ROLES = frozenset({"thumbnail", "overview", "visual", "metadata", "tiles", "data-mask"})
PIXEL_TYPES = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff", "application/x-geotiff", "image/geotiff")
PIXEL_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt")

COMMON = {band.common_name: name for name, band in S2_BANDS.items()} | {
    "rededge1": "B05",
    "rededge2": "B06",
    "rededge3": "B07",
    "coastal_aerosol": "B01",
}
OTHERS = {"scl": "SCL", "angle": "angle", "incidence_angle": "angle"}
CHANNELS = {name.lower(): name for name in S1_BANDS}


@dataclass(frozen=True)
class AssetRef:
    """Where one band of one item lies, and what the catalog says about its numbers."""

    key: str
    """The asset's name in the item."""
    href: str
    """As the item gives it; `StacSource.resolve` turns it into what is opened."""
    band: int = 1
    """Which band of the file, counted from 1."""
    nodata: float | None = None
    """The stored value that means "nothing here"; None where the catalog does not say."""
    scale: float | None = None
    """Stored value times this, plus `offset`, is the quantity; None where the catalog does not say."""
    offset: float | None = None
    unit: str | None = None
    """The unit after scaling, as the catalog words it."""
    dtype: str | None = None
    """The stored type as the catalog words it."""

    @property
    def is_scaled(self) -> bool:
        """Whether stored numbers are not yet the quantity."""
        return self.scale not in (None, 1.0) or self.offset not in (None, 0.0)


def canonical_band(name: str) -> str | None:
    """Our name for what a catalog calls a band; None if it is none of ours.

    >>> canonical_band("B8"), canonical_band("B02_10m"), canonical_band("nir08-jp2"), canonical_band("vv")
    ('B08', 'B02', 'B8A', 'VV')
    >>> canonical_band("rededge") is None    # four bands go by that name
    True
    """
    word = name.strip().lower().removesuffix("-jp2")
    word = re.sub(r"_\d+m$", "", word)
    if word in OTHERS:
        return OTHERS[word]
    if word in CHANNELS:
        return CHANNELS[word]
    if word in COMMON:
        return COMMON[word]
    match = re.fullmatch(r"b(?:and)?[ _-]?0?(\d{1,2})(a?)", word)
    if match is None:
        return None
    number, letter = int(match[1]), match[2].upper()
    found = f"B{number}{letter}" if letter else f"B{number:02d}"
    return found if found in S2_BANDS else None


def band_of_wavelength(centre_um: float) -> str | None:
    """The Sentinel-2 band with this centre wavelength in micrometres.

    >>> band_of_wavelength(0.865)
    'B8A'
    """
    centre_nm = 1000 * centre_um
    best = min(S2_BANDS.values(), key=lambda band: abs((band.centre_nm or 0) - centre_nm))
    return best.name if abs((best.centre_nm or 0) - centre_nm) <= 0.01 * centre_nm else None


def has_href(asset: object) -> TypeGuard[dict[str, Any]]:
    """Whether this is an asset that lies anywhere.

    >>> has_href({"href": "a.tif"}), has_href({"href": None}), has_href(None)
    (True, False, False)
    """
    return isinstance(asset, dict) and isinstance(asset.get("href"), str)


def is_pixels(key: str, asset: Mapping[str, Any]) -> bool:
    """Whether an asset is a raster of measurements, and not a picture or a document.

    >>> is_pixels("visual", {"href": "a/TCI.tif"}), is_pixels("B04", {"href": "a/B04.tif"})
    (False, True)
    """
    if PICTURES.match(key) or PICTURE_ROLES & set(asset.get("roles") or ()):
        return False
    kind = str(asset.get("type") or "").lower()
    if kind:
        return kind.startswith(PIXEL_TYPES)
    path = str(asset.get("href", "")).split("?")[0].lower()
    return path.endswith(PIXEL_SUFFIXES)


def _number(value: object) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)  # type: ignore[arg-type]  # "nan" and "inf" arrive as text
    except (TypeError, ValueError):
        return None


def make_ref(key: str, asset: Mapping[str, Any], index: int = 0) -> AssetRef:
    """Band number `index` (from 0) of an asset, with what STAC 1.0 (`raster:bands`) or 1.1 (`bands`) say about it.

    >>> make_ref("red", {"href": "a.tif", "raster:bands": [{"nodata": 0, "scale": 1e-4, "offset": -0.1}]}).offset
    -0.1
    """
    said: dict[str, Any] = {}
    # From the most general to the most particular: what a band says outweighs what its asset says.
    for source in (asset, _at(asset.get("bands"), index), _at(asset.get("raster:bands"), index)):
        for field in ("nodata", "scale", "offset", "unit", "data_type"):
            for name in (field, f"raster:{field}"):
                if source.get(name) is not None:
                    said[field] = source[name]
    return AssetRef(
        key=key,
        href=str(asset["href"]),
        band=index + 1,
        nodata=_number(said.get("nodata")),
        scale=_number(said.get("scale")),
        offset=_number(said.get("offset")),
        unit=said.get("unit"),
        dtype=said.get("data_type"),
    )


def _at(values: object, index: int) -> Mapping[str, Any]:
    if isinstance(values, list) and index < len(values) and isinstance(values[index], dict):
        return values[index]
    return {}


def _described(asset: Mapping[str, Any]) -> list[str | None]:
    """Our name for each band that the asset describes, in file order."""
    described = asset.get("eo:bands") or asset.get("bands") or []
    names = []
    for band in described:
        words = (band.get("name"), band.get("eo:common_name"), band.get("common_name"), band.get("description"))
        found = next((hit for word in words if word and (hit := canonical_band(str(word)))), None)
        if found is None:
            centre_um = _number(band.get("eo:center_wavelength") or band.get("center_wavelength"))
            found = band_of_wavelength(centre_um) if centre_um else None
        names.append(found)
    return names


def _candidates(key: str, asset: Mapping[str, Any]) -> Iterator[tuple[str, AssetRef]]:
    described = _described(asset)
    if len(described) > 1:
        for index, name in enumerate(described):
            if name:
                yield name, make_ref(key, asset, index)
        return
    name = canonical_band(key) or (described[0] if described else None)
    if name:
        yield name, make_ref(key, asset, int(asset.get("deepsentinel:band", 1)) - 1)


def _rank(name: str, ref: AssetRef) -> tuple[int, int, str]:
    """Which of several files of one band is best: a COG before a JP2, the native pixel size before a resampled copy."""
    match = re.search(r"_(\d+)m$", ref.key)
    native_m = S2_BANDS[name].resolution_m if name in S2_BANDS else 20
    resampled = int(match is not None and int(match[1]) != native_m)
    packed = int(ref.key.endswith("-jp2") or ref.href.split("?")[0].lower().endswith(".jp2"))
    return resampled, packed, ref.key


def band_assets(item: Item, overrides: Mapping[str, str] | None = None) -> dict[str, AssetRef]:
    """Our band names -> where they lie in this item.

    `overrides` maps a band to the asset key (or "key:2" for the second band of a file) that it is to be read from.

    >>> item = {"id": "a", "assets": {"blue": {"href": "B02.tif"}, "blue-jp2": {"href": "B02.jp2"}}}
    >>> band_assets(item)["B02"].key
    'blue'
    """
    found: dict[str, AssetRef] = {}
    assets: Mapping[str, Any] = item.get("assets") or {}
    for key, asset in assets.items():
        if not has_href(asset) or not is_pixels(key, asset):
            continue
        for name, ref in _candidates(key, asset):
            if name not in found or _rank(name, ref) < _rank(name, found[name]):
                found[name] = ref
    for name, wanted in (overrides or {}).items():
        key, _, number = wanted.partition(":")
        if has_href(assets.get(key)):
            found[name] = make_ref(key, assets[key], int(number or 1) - 1)
        else:
            found.pop(name, None)
    return found


# What this module and `items` look at; `band_assets` of an item and of its slim form are the same.
READ_FIELDS = frozenset(
    ["href", "type", "roles", "eo:bands", "bands", "raster:bands", "proj:code", "proj:epsg", "deepsentinel:band"]
    + [prefix + name for prefix in ("", "raster:") for name in ("nodata", "scale", "offset", "unit", "data_type")]
)


def slim(item: Item) -> Item:
    """An item without what is never looked at: a service's are up to 300 kB each, and a source remembers them all.

    >>> item = {"id": "a", "links": [{}], "assets": {"vv": {"href": "vv.tif", "alternate": {}}, "logo": {"href": ""}}}
    >>> slim(item)
    {'id': 'a', 'assets': {'vv': {'href': 'vv.tif'}, 'logo': {'href': ''}}}
    """
    assets = {
        key: {name: value for name, value in asset.items() if name in READ_FIELDS} if isinstance(asset, dict) else asset
        for key, asset in (item.get("assets") or {}).items()
    }
    kept = {name: value for name, value in item.items() if name not in ("links", "assets")}
    return {**kept, "assets": assets}


def check_overrides(overrides: Mapping[str, str] | None) -> dict[str, str]:
    """The `assets=` option, checked: its keys are our band names, its values asset names.

    >>> check_overrides({"B02": "blue"})
    {'B02': 'blue'}
    """
    known = {*S2_BANDS, *S1_BANDS, "SCL", "angle"}
    for name, key in (overrides or {}).items():
        if name not in known:
            raise InputError(
                f"assets={{{name!r}: ...}}: {name!r} is not a band name; known: {', '.join(sorted(known))}."
            )
        if not isinstance(key, str) or not re.fullmatch(r"[^:]+(:[1-9]\d*)?", key):
            raise InputError(f"assets={{{name!r}: {key!r}}}: write the asset's name, or 'name:2' for its second band.")
    return dict(overrides or {})


def is_missing(nodata: float | None) -> bool:
    """Whether no "no data" value was stated, or it is NaN.

    >>> is_missing(float("nan")), is_missing(0)
    (True, False)
    """
    return nodata is None or math.isnan(nodata)
