"""A corpus for programs that know neither Zarr nor us: a STAC catalog of COGs, or folders of GeoTIFFs for torchgeo.

Samples are read and written one after another, each whole or not at all; called again, an export goes on where it was
stopped. A corpus takes several times the room, and is several times slower to read, as files of its own for each
sample: this is for handing it on, not for training here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import __version__
from .bands import REFLECTANCE_SCALE, S1_BANDS, S2_BANDS, S2_NODATA, sensor_of
from .corpus.classes import label_names
from .corpus.patches import patch_of
from .errors import InputError
from .export import to_geotiff
from .files import TEMPORARY_PREFIX, atomic_folder, write_bytes, write_text
from .legend import Legend
from .progress import progress as bar

if TYPE_CHECKING:
    import xarray as xr

STAC_VERSION = "1.1.0"
COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
CLAIM, ITEMS, DONE = "corpus.json", "items", ".done"
_EXTENSION = "https://stac-extensions.github.io/"
EXTENSIONS: Mapping[str, tuple[str, ...]] = {
    "S2": ("eo/v2.0.0", "projection/v2.0.0", "raster/v2.0.0"),
    "S1": ("sar/v1.2.0", "sat/v1.1.0", "projection/v2.0.0", "raster/v2.0.0"),
    "label": ("label/v1.0.1", "projection/v2.0.0", "classification/v2.0.0"),
}
TITLES = {"S2": "sentinel-2", "S1": "sentinel-1"}
# What `eo` calls the bands that have a common name.
COMMON = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B8A": "nir08", "B11": "swir16", "B12": "swir22"}
_FILE = re.compile(r"(S2|S1|SCL)(?:_(\d{8}T\d{6}))?(_\d+)?\.tif")


def corpus_to_stac(
    corpus: xr.Dataset, folder: str | os.PathLike[str], *, threads: int = 2, progress: bool = True
) -> Path:
    """Write a corpus as a static STAC catalog with a COG for each sensor and sample; the path of its `catalog.json`.

    Each sample has an item for each date of each sensor, and one with the label extension for each of its masks.
    `open_source(folder)` searches and reads it like any other catalog. Samples that failed are left out.

    ```python
    ds.open_source(corpus_to_stac(corpus, "catalog").parent)
    ```
    """
    target = _claimed(corpus, folder, "stac")

    def write(patch: xr.Dataset, number: int, row: dict[str, Any]) -> None:
        with atomic_folder(target / ITEMS / f"{number:07d}", sync=False) as temporary:
            for item in _items(patch, number, row, temporary):
                text = json.dumps(item, indent=1, ensure_ascii=False)
                (temporary / f"{item['id']}.json").write_text(text, encoding="utf-8")

    done = lambda number: (target / ITEMS / f"{number:07d}").is_dir()  # noqa: E731
    _each(corpus, write, done, threads, progress)
    _write_catalog(target, corpus)
    return target / "catalog.json"


def corpus_to_geotiffs(
    corpus: xr.Dataset, folder: str | os.PathLike[str], *, threads: int = 2, progress: bool = True
) -> Path:
    """Write a corpus as folders of GeoTIFFs, one a sensor and one a label, as torchgeo's `RasterDataset` reads them.

    `s2/0000017_20180704.tif` holds all bands of sample 17, `s1/..`, `scl/..` and for instance `corine/..` lie beside
    under the same name. Samples that failed are left out.

    ```python
    class S2(torchgeo.datasets.RasterDataset):
        filename_glob = "*.tif"
        filename_regex = r"\\d+_(?P<date>\\d{8})"


    images = S2(corpus_to_geotiffs(corpus, "tiles") / "s2")
    ```
    """
    target = _claimed(corpus, folder, "geotiffs")

    def write(patch: xr.Dataset, number: int, row: dict[str, Any]) -> None:
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=target))
        try:
            dates = []
            for path in to_geotiff(_pixels(patch), temporary):
                kind, stamp, _ = _parsed(path.name)
                dates.append(stamp[:8])
                _move(path, target / kind.lower() / f"{number:07d}_{stamp[:8]}{path.name[len(kind) + 16 : -4]}.tif")
            for name in label_names(patch):
                for path in to_geotiff(_mask(patch, name), temporary / name):
                    _move(path, target / name / f"{number:07d}_{dates[0]}.tif")
            write_bytes(target / DONE / f"{number:07d}", b"")
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    done = lambda number: (target / DONE / f"{number:07d}").is_file()  # noqa: E731
    _each(corpus, write, done, threads, progress)
    return target


def _each(
    corpus: xr.Dataset, write: Callable[[Any, int, dict[str, Any]], None], done: Callable[[int], bool], threads: int,
    progress: bool,
) -> None:  # fmt: skip
    """Every built sample that is not there yet, a few at a time."""
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads={threads!r} is not a number of threads; give 1 or more.")
    status = corpus["status"].to_numpy().astype(str)
    numbers = corpus["sample"].to_numpy()
    left = [at for at in np.flatnonzero(status == "ok").tolist() if not done(int(numbers[at]))]

    def one(at: int) -> None:
        names = ("cloud_cover", "orbit", "relative_orbit", "tile", "id", "place", "gap_hours")
        row = {name: _plain(corpus[name].to_numpy()[at]) for name in names if name in corpus.coords}
        write(patch_of(corpus, at), int(numbers[at]), row)

    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(one, left)
        try:
            for _ in bar(results, total=len(left), what="exporting", unit="sample") if progress else results:
                pass
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _claimed(corpus: xr.Dataset, folder: str | os.PathLike[str], kind: str) -> Path:
    """The folder, if it is this corpus's own or empty."""
    if not hasattr(corpus, "data_vars") or not {"sample", "status"} <= set(corpus.coords):
        raise InputError("This is no corpus; give what open_corpus returns, or a selection of it.")
    target = Path(folder).expanduser()
    story: dict[str, Any] = {name: corpus.attrs.get(name) for name in ("title", "plan", "seed", "version", "bands")}
    split = corpus.attrs.get("split")
    if isinstance(split, dict):
        story["split"] = {name: split.get(name) for name in ("name", "by", "seed", "buffer_m", "fractions")}
    story["labels"] = label_names(corpus)
    numbers, times = np.unique(corpus["sample"].to_numpy(), return_counts=True)
    if (times > 1).any():
        raise InputError(
            f"Sample {numbers[times > 1][0]} is in this Dataset {times.max()} times, and one would replace the other;"
            " export each corpus into a folder of its own."
        )
    text = json.dumps({"export": kind, **story}, indent=1, default=str)
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; name a folder.")
    if (target / CLAIM).is_file():
        if (target / CLAIM).read_text(encoding="utf-8") != text:
            raise InputError(
                f"{target} holds the export of another corpus, split or set of labels, or another kind of export; name"
                " a new folder."
            )
    elif target.is_dir() and any(target.iterdir()):
        raise InputError(f"{target} is not empty; name a new folder.")
    else:
        write_text(target / CLAIM, text)
    return target


def _pixels(patch: xr.Dataset) -> xr.Dataset:
    return patch[[name for name in patch.data_vars if sensor_of(str(name))]]


def _mask(patch: xr.Dataset, name: str) -> xr.Dataset:
    """The masks of one label with the names they have by themselves, on a grid of their own."""
    start = f"{name}_"
    held = {str(key): str(key).removeprefix(start) for key in patch.data_vars if str(key).startswith(start)}
    mask = patch[list(held)].rename(held)
    axes = {axis: axis.removesuffix(f"_{name}") for axis in map(str, mask.dims) if axis.endswith(f"_{name}")}
    if axes:
        mask = mask.drop_vars([axis for axis in axes.values() if axis in mask.coords]).rename(axes)
    if "spatial_ref" not in mask.coords:
        mask = mask.assign_coords(spatial_ref=patch["spatial_ref"])
    mask = mask.drop_vars([str(key) for key in mask.coords if key not in ("x", "y", "spatial_ref")])
    # The transform that was noted is that of the pixels, which a finer mask does not have.
    mask["spatial_ref"].attrs = {
        key: value for key, value in mask["spatial_ref"].attrs.items() if key != "GeoTransform"
    }
    return mask[["class_map"]]


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for beside in (".tif.aux.xml", ".qml"):
        other = path.with_suffix(beside)
        if other.is_file():
            other.replace(target.with_suffix(beside))
    path.replace(target)


def _parsed(name: str) -> tuple[str, str, str]:
    match = _FILE.fullmatch(name)
    assert match is not None, name
    return match[1], match[2] or "00000000T000000", match[3] or ""


def _items(patch: xr.Dataset, number: int, row: Mapping[str, Any], folder: Path) -> Iterable[dict[str, Any]]:
    """The items of a sample, whose files are written as they come."""
    files: dict[tuple[str, str], dict[str, Path]] = {}
    for path in to_geotiff(_pixels(patch), folder):
        kind, stamp, again = _parsed(path.name)
        sensor = "S1" if kind == "S1" else "S2"
        files.setdefault((sensor, stamp + again), {})[kind] = path
    items = [_image(patch, number, row, sensor, stamp, held) for (sensor, stamp), held in files.items()]
    yield from items
    for name in label_names(patch):
        mask = _mask(patch, name)
        (path,) = to_geotiff(mask, folder / name)
        for beside in (".tif", ".tif.aux.xml", ".qml"):
            path.with_suffix(beside).replace(folder / f"{name}{beside}")
        path.parent.rmdir()
        yield _label(mask, number, name, [item["id"] for item in items], items[0]["properties"]["datetime"])


def _image(
    patch: xr.Dataset, number: int, row: Mapping[str, Any], sensor: str, stamp: str, files: Mapping[str, Path]
) -> dict[str, Any]:
    digits, _, again = stamp.partition("_")
    time = f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}T{digits[9:11]}:{digits[11:13]}:{digits[13:15]}Z"
    if patch.sizes.get(f"{sensor.lower()}_time"):
        product = f"{sensor}_{stamp}"
    else:
        # A file is called by it, and a corpus may come from anywhere.
        product = re.sub(r"[^\w.-]", "_", str(patch.attrs.get(f"{sensor.lower()}_id") or f"{sensor}_{stamp}"))
    known = {
        "deepsentinel:sample": number,
        "deepsentinel:place": row.get("place"),
        "created_by": f"deepsentinel {__version__}",
    }
    properties: dict[str, Any] = {"datetime": time, "constellation": f"sentinel-{sensor[1]}", **known}
    match = re.match(r"S[12]([A-D])_", product)
    if match:
        properties["platform"] = f"sentinel-{sensor[1]}{match[1].lower()}"
    if sensor == "S2":
        level = str(patch.attrs.get("level"))
        properties |= {
            "instruments": ["msi"], "eo:cloud_cover": row.get("cloud_cover"), "s2:mgrs_tile": row.get("tile"),
            "s2:product_type": f"S2MSI{level[1:]}", "s2:processing_baseline": patch.attrs.get("baseline"),
        }  # fmt: skip
    else:
        held = [name for name in S1_BANDS if name in patch.data_vars]
        product_type = "RTC" if "rtc" in str(patch.attrs.get("backscatter")) else "GRD"
        properties |= {
            "instruments": ["c-sar"], "sar:instrument_mode": "IW", "sar:frequency_band": "C",
            "sar:polarizations": held, "sar:product_type": product_type,
            "deepsentinel:backscatter": patch.attrs.get("backscatter"), "sat:orbit_state": row.get("orbit"),
            "sat:relative_orbit": row.get("relative_orbit"),
        }  # fmt: skip
    assets = {kind: _asset(patch, kind, path.name) for kind, path in files.items()}
    return _item(patch, f"{product}{again and '_' + again}_{number:07d}", TITLES[sensor], sensor, properties, assets)


def _asset(patch: xr.Dataset, kind: str, href: str) -> dict[str, Any]:
    held = [str(name) for name in patch.data_vars]
    asset = {"href": f"./{href}", "type": COG_TYPE, "roles": ["data"]}
    if kind == "SCL":
        return asset | {"title": "scene classification", "bands": [{"name": "SCL", "data_type": "uint8", "nodata": 0}]}
    if kind == "S2":
        bands = [
            {
                "name": name, "description": S2_BANDS[name].description, "data_type": "uint16", "nodata": S2_NODATA,
                "unit": "reflectance", "raster:scale": 1 / REFLECTANCE_SCALE, "raster:offset": 0.0,
                **({"eo:common_name": COMMON[name]} if name in COMMON else {}),
            }
            for name in held if name in S2_BANDS and name != "SCL"
        ]  # fmt: skip
        return asset | {"title": "reflectance", "bands": bands}
    bands = [
        {"name": name, "data_type": "float32", "nodata": "nan", "unit": "dB" if name in S1_BANDS else "degree"}
        for name in held
        if sensor_of(name) == "S1"
    ]
    return asset | {"title": "backscatter", "bands": bands}


def _label(mask: xr.Dataset, number: int, name: str, sources: list[str], time: str) -> dict[str, Any]:
    legend = Legend.from_attrs(mask["class_map"].attrs) or Legend.of_codes(
        [int(code) for code in np.unique(mask["class_map"].to_numpy()) if code]
    )
    properties = {
        "datetime": time, "deepsentinel:sample": number, "label:type": "raster", "label:properties": None,
        "label:tasks": ["segmentation"], "label:description": f"{name}: {len(legend)} classes, 0 is no label",
        "label:classes": [{"name": None, "classes": [entry.name for entry in legend]}],
    }  # fmt: skip
    classes = [
        {"value": entry.code, "name": f"class_{entry.code}", "title": entry.name, "color_hint": entry.color[1:].upper()}
        for entry in legend
    ]
    asset = {
        "href": f"./{name}.tif", "type": COG_TYPE, "title": name, "roles": ["labels", "labels-raster"],
        "classification:classes": classes,
    }  # fmt: skip
    item = _item(mask, f"{name}_{number:07d}", f"labels-{name}", "label", properties, {"labels": asset})
    item["links"] += [{"rel": "source", "href": f"./{one}.json", "type": "application/geo+json"} for one in sources]
    return item


def _item(
    grid: xr.Dataset, name: str, collection: str, kind: str, properties: dict[str, Any], assets: dict[str, Any]
) -> dict[str, Any]:
    import shapely
    from pyproj import CRS, Transformer

    crs = CRS.from_wkt(str(grid["spatial_ref"].attrs.get("crs_wkt") or grid["spatial_ref"].attrs["spatial_ref"]))
    x, y = (grid[axis].to_numpy().astype("float64") for axis in ("x", "y"))
    half_x, half_y = (abs(float(each[-1] - each[0])) / max(each.size - 1, 1) / 2 for each in (x, y))
    box = shapely.box(x.min() - half_x, y.min() - half_y, x.max() + half_x, y.max() + half_y)
    back = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    outline = shapely.orient_polygons(shapely.transform(box, back.transform, interleaved=False))
    code = crs.to_epsg()
    properties |= {
        "proj:code": f"EPSG:{code}" if code else None,
        "proj:shape": [y.size, x.size],
        "proj:bbox": list(box.bounds),
    }
    properties["proj:transform"] = [2 * half_x, 0.0, box.bounds[0], 0.0, -2 * half_y, box.bounds[3]]
    parent = f"../../{collection}.json"
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [f"{_EXTENSION}{each}/schema.json" for each in EXTENSIONS[kind]],
        "id": name,
        "collection": collection,
        "geometry": shapely.geometry.mapping(outline),
        "bbox": list(outline.bounds),
        "properties": {key: value for key, value in properties.items() if value is not None or key in KEPT},
        "links": [
            {"rel": "root", "href": "../../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": parent, "type": "application/json"},
            {"rel": "collection", "href": parent, "type": "application/json"},
        ],
        "assets": assets,
    }


# Of these, none is an answer too.
KEPT = ("datetime", "label:properties")


def _write_catalog(target: Path, corpus: xr.Dataset) -> None:
    """The catalog and its collections, of all items that are there; last of all, so that all it names is there."""
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for path in sorted((target / ITEMS).glob("*/*.json")):
        item = json.loads(path.read_text(encoding="utf-8"))
        groups.setdefault(item["collection"], []).append((path.relative_to(target).as_posix(), item))
    told = str(corpus.attrs.get("title") or "A corpus")
    credit = corpus.attrs.get("credits") or "Source not recorded"
    root = {"rel": "root", "href": "./catalog.json", "type": "application/json"}
    for name, members in groups.items():
        boxes = np.array([item["bbox"] for _, item in members])
        times = sorted(item["properties"]["datetime"] for _, item in members)
        extent = {
            "spatial": {"bbox": [[*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]]},
            "temporal": {"interval": [[times[0], times[-1]]]},
        }
        links = [root, {"rel": "parent", "href": "./catalog.json", "type": "application/json"}]
        links += [{"rel": "item", "href": f"./{href}", "type": "application/geo+json"} for href, _ in members]
        document = {
            "type": "Collection", "stac_version": STAC_VERSION, "id": name, "title": f"{told}: {name}",
            "description": f"{told}. {credit}.", "license": str(corpus.attrs.get("license") or "other"),
            "extent": extent, "links": links,
        }  # fmt: skip
        write_text(target / f"{name}.json", json.dumps(document, indent=1, ensure_ascii=False))
    children = [{"rel": "child", "href": f"./{name}.json", "type": "application/json"} for name in sorted(groups)]
    catalog = {
        "type": "Catalog", "stac_version": STAC_VERSION, "id": re.sub(r"[^\w-]+", "-", told).strip("-").lower(),
        "title": told, "description": f"{told}. {credit}. Written by deepsentinel {__version__}.",
        "links": [root, *children],
    }  # fmt: skip
    write_text(target / "catalog.json", json.dumps(catalog, indent=1, ensure_ascii=False))


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if value is None or value != value else value
