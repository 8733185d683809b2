"""Where pixels come from: `open_source` turns a name, an address or a path into something to search and read.

Every source speaks the protocol in `base`; the list below is all there is to register. Who is who:

- the sources: `stac` (any catalog: searching, and remembering what was found) on `reading` (rows to patches) on
  `plans` (what to read of a scene and what its numbers mean) and `choices` (which bands, and how they are resampled);
  `services` (Planetary Computer, CDSE) with `presets`; `samples`; `demo` with `demo_catalog` and `demo_files`;
  `earthengine/`; `safe/` (downloaded products)
- catalogs: `catalog` (files near and far), `api` (services)
- the network: `addresses` (what may be opened, and what of an address may be said), `wire` (one request), `web` (and
  again), `patience` (waiting that ends when nobody wants it any more), `cache` (bytes that were read, on disk)
- one item: `items` (what it says), `assets` (which file is which band), `harmonise` (offsets and units), `tables`
  (items to the scenes table)
- what users hand in, checked: `query` (to `search`, and what to say when nothing is found), `arguments` (to `read`)
- pixels: `engine/` (files to arrays), `assemble` (arrays to Patch and Series)
- `download/` brings whole products here
- `opened`: the line that opens a source again
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepsentinel.errors import InputError

from .base import Failure, Source
from .opened import remembered

if TYPE_CHECKING:
    from .earthengine import EarthEngineSource
    from .stac import StacSource

__all__ = ["SOURCES", "Failure", "Source", "open_source"]

SOURCES: Mapping[str, str] = {
    "demo": "an imaginary coast, offline and without an account",
    "samples": "two real matched pairs, fetched once (8 MB)",
    "planetary-computer": "Sentinel-2 L2A and Sentinel-1 RTC, worldwide, without an account",
    "earth-search": "Sentinel-2 L2A, worldwide, without an account",
    "cdse": "the original Sentinel-2 L2A products, with S3 keys of your own",
    "earth-engine": "Sentinel-2 L2A and L1C, Sentinel-1 GRD, worldwide, with a Google account of your own",
}


@remembered
def open_source(name: str | Path | Mapping[str, Any], /, **options: Any) -> StacSource | EarthEngineSource:
    """Open a place that pixels come from.

    `name` is one of `SOURCES`, the address of a STAC API or catalog, a catalog, collection, item collection or item
    file, a folder with a `catalog.json`, a folder of downloaded products (.SAFE, zipped or not; radar GeoTIFFs), or an
    item collection already in memory.

    Options depend on what it is; the most useful for catalogs: `assets={"B02": "blue"}` where band names cannot be told
    from the catalog, `collections={"S2": "sentinel-2-c1-l2a"}`, `s1_units="dB"`, `s1_backscatter="gamma0_rtc"`,
    `s2_offset=-1000`, `s2_level="L2A"`; `cache=True` or a folder keeps on disk what is read over http(s), up to
    `cache_gb=10`. Downloaded products: `s2_level="L1C"` of both, `s1_crs="EPSG:3995"` (see
    `safe.SafeSource`). Earth Engine: `project="my-project"`, `credentials="key.json"`, `s2_level="L1C"`,
    `clouds="cloud-score"` (see `earthengine.EarthEngineSource`).

    >>> source = open_source({"type": "FeatureCollection", "features": []}, name="nothing yet")
    >>> source.name
    'nothing yet'
    """
    if isinstance(name, Mapping):
        return _stac(name, options)
    if not isinstance(name, str | Path):
        raise InputError(
            f"A source cannot be opened from a {type(name).__name__}: give a name, an address, a path, or an item "
            "collection as a mapping (of a list of items: {'type': 'FeatureCollection', 'features': items}; of what "
            "pystac makes: .to_dict())."
        )
    text = str(name).strip()
    key = text.lower().replace("_", "-").replace(" ", "-")
    if key == "demo":
        from .demo import DemoSource

        return _make(DemoSource, key, options)
    if key == "samples":
        from .samples import SamplesSource

        return _make(SamplesSource, key, options)
    if key == "earth-engine":
        from .earthengine import EarthEngineSource

        _check_options(EarthEngineSource, key, options)
        return EarthEngineSource(**options)
    if key in SOURCES:
        from .presets import PRESETS
        from .services import open_preset
        from .stac import StacSource

        _check_options(StacSource, key, options)
        return open_preset(PRESETS[key], **options)
    for service in _presets_at(text):
        # By its address a service is the same service: it signs, and stores its pixels, the way it does.
        return open_source(service, **options)
    products = _products_at(text)
    if products is not None:
        from .safe import SafeSource

        _check_options(SafeSource, "downloaded products", options)
        return SafeSource(products, **options)
    if "://" not in text and not Path(text).expanduser().exists() and not _looks_like_path(text):
        near = difflib.get_close_matches(key, [*SOURCES], 1, 0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"Unknown source {text!r}.{hint} There are {_known()}; or give the address or file of a STAC catalog."
        )
    return _stac(name, options)


def _presets_at(address: str) -> list[str]:
    if "://" not in address:
        return []
    from .presets import PRESETS

    return [name for name, preset in PRESETS.items() if address.rstrip("/") == preset.url]


def _products_at(location: str) -> Path | None:
    """The path of downloaded products; None for catalogs, and for what is no path."""
    path = Path(location).expanduser()
    if "://" in location or not path.exists():
        return None
    if any((path / name).is_file() for name in ("catalog.json", "collection.json")):
        return None
    from .safe.finding import may_hold_products

    return path if may_hold_products(path) else None


def _known() -> str:
    return ", ".join(f"{name!r} ({what})" for name, what in SOURCES.items())


def _looks_like_path(text: str) -> bool:
    return "/" in text or "\\" in text or text.lower().endswith((".json", ".geojson", ".safe"))


def _stac(location: str | Path | Mapping[str, Any], options: dict[str, Any]) -> StacSource:
    from .stac import StacSource

    _check_options(StacSource, "a STAC catalog", options)
    return StacSource(location, **options)


def _make(kind: type[StacSource], name: str, options: dict[str, Any]) -> StacSource:
    _check_options(kind, name, options)
    return kind(**options)


def _check_options(kind: type, name: str, options: Mapping[str, Any]) -> None:
    """A misspelt option must not pass for one that was left out."""
    known = [key for key in inspect.signature(kind).parameters if key not in ("location", "preset", "signer")]
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"open_source({name!r}) has no option {key!r}.{hint} It has {', '.join(known) or 'none'}.")
