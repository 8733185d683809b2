"""OpenStreetMap and Overture: points, lines and areas with tags -> classes of ground, by a table of tags.

Several tools write OpenStreetMap into files, each in its own layout: GDAL (`.osm.pbf`, and what ogr2ogr makes of it),
osm2pgsql, quackosm, pyrosm, OSMnx, and Geofabrik's shapefiles. What they have in common is a tag in a column of its own
or in one column of all tags; that is all that is asked of them here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from deepsentinel.geometries import SetAside, clean, kinds
from deepsentinel.legend import Legend

from .apart import whole_rows
from .common import Format, LabelFile, Layer, Options, check_level, finish, lookup, warn_of_repairs
from .ids import geometry_ids
from .opening import concat
from .planar import as_areas, flattened, metric_crs
from .sea import sea
from .tags import match, needed_keys, parse_tags, tag_legend, tag_table, widths_m

__all__ = ["FORMATS"]

TAG_COLUMNS = ("other_tags", "all_tags", "tags", "source_tags")
_TELLTALE = ("highway", "landuse", "building", "natural", "waterway", "fclass")
# The same ways again, put together to routes and for drawing from afar.
_REPEATING_LAYERS = {"multilinestrings", "other_relations", "planet_osm_roads"}
_ID_COLUMNS = ("osm_id", "osm_way_id", "feature_id", "osm_type", "osmid", "element", "element_type", "id")
_OTHER_COLUMNS = ("name", "z_order", "fclass", "subtype", "class", "level", "height", "num_floors")
# Which keys Geofabrik's `fclass` is the value of, by the name of the layer.
_FCLASS_KEYS = {
    "landuse": ("landuse", "leisure", "natural"), "natural": ("natural",), "buildings": ("building",),
    "roads": ("highway",), "railways": ("railway",), "waterways": ("waterway",),
    "water": ("natural", "water", "landuse"), "traffic": ("amenity",), "transport": ("aeroway", "railway"),
}  # fmt: skip
_SEA_CODE = 523


def _is_osm(layer: Layer, file: LabelFile) -> bool:
    if layer.name in _REPEATING_LAYERS:
        return False
    known = layer.has("osm_id") or layer.has("feature_id") or layer.has("osm_type", "id")
    known = known or layer.has("element", "id") or layer.has("element_type", "osmid")
    return known and any(layer.has(column) for column in (*TAG_COLUMNS, *_TELLTALE))


def _is_overture(layer: Layer, file: LabelFile) -> bool:
    return layer.has("id", "version", "sources") and (layer.has("subtype") or layer.has("source_tags"))


@dataclass
class _Found:
    """What the layers gave, and what was left out of them."""

    parts: list[gpd.GeoDataFrame] = field(default_factory=list)
    coasts: list[gpd.GeoSeries] = field(default_factory=list)
    hidden: int = 0
    unknown: int = 0


def _read_osm(file: LabelFile, layers: Sequence[Layer], options: Options) -> gpd.GeoDataFrame:
    return _read(file, layers, options, "osm")


def _read_overture(file: LabelFile, layers: Sequence[Layer], options: Options) -> gpd.GeoDataFrame:
    return _read(file, layers, options, "overture")


def _read(file: LabelFile, layers: Sequence[Layer], options: Options, kind: str) -> gpd.GeoDataFrame:
    """Level 2 unless asked otherwise: tags seldom tell what CORINE's third digit needs."""
    table = tag_table(options.tags)
    legend, finest = tag_legend(table)
    # The codes may be CORINE's, but the map is not: who drew it, and whom to credit, is in the legend's name.
    legend = _renamed(legend, kind)
    level = check_level(min(2, finest) if options.level is None else options.level, range(1, finest + 1), kind)
    found = _Found()
    for layer in layers:
        _classify(file, layer, table, found)
    labels = concat(found.parts)
    notes = []
    if found.unknown:
        notes.append(f"{found.unknown} features have no tag that the table gives a class")
    if found.hidden:
        notes.append(f"{found.hidden} features are underground, abandoned or only proposed")
    cleaned = clean(labels, value=None)
    warn_of_repairs(cleaned, file)
    at = np.array([entry["row"] for entry in cleaned.set_aside], dtype="int64")
    gone = whole_rows(labels, at, [entry["reason"] for entry in cleaned.set_aside], labels["_id"])
    aside = SetAside(cleaned.set_aside, [gone] if len(gone) else [])
    labels = cleaned.table
    if options.flatten is not False and len(labels):
        labels, told = _flatten(labels, found.coasts if _SEA_CODE in legend else [], file)
        notes += told
    labels = labels.drop(columns="_layer")
    labels.attrs = {"repairs": cleaned.repairs, "set_aside": aside}
    codes = legend.up(labels["_code"].to_numpy(), level) if level < finest else labels["_code"].to_numpy()
    identity = labels["_id"]
    return finish(
        labels.drop(columns=["_code", "_id"]),
        kind=kind,
        file=file,
        ground_truth=pd.array(codes, dtype="int64"),
        id=identity,
        legend=legend.at(level),
        notes=notes,
        repair=False,
    )


def _renamed(legend: Legend, name: str) -> Legend:
    """The same legend with its coarser levels under another name."""
    return replace(legend, name=name, coarser=legend.coarser and _renamed(legend.coarser, name))


def _classify(file: LabelFile, layer: Layer, table: pd.DataFrame, found: _Found) -> None:
    """Read one layer and append those of its features that have a class."""
    keys = needed_keys(table)
    wanted = {*keys, *_ID_COLUMNS, *_OTHER_COLUMNS, *TAG_COLUMNS}
    columns = [column for column in layer.columns if column.lower() in wanted]
    rows = file.read(layer, columns=columns, where=_where(layer, table) if layer.driver == "gdal" else None)
    rows.columns = [column if column == rows.geometry.name else column.lower() for column in rows.columns]
    tags = _tags(rows, layer, keys)
    shapes = kinds(rows.geometry.array)
    matches = match(tags, shapes, table)
    if "natural" in tags.columns:
        coast = (tags["natural"] == "coastline").to_numpy() & (shapes == "line")
        if coast.any():
            found.coasts.append(rows.geometry[coast])
    fits = matches.row >= 0
    found.hidden += matches.skipped
    found.unknown += int((~fits).sum()) - matches.skipped
    row = matches.row[fits]
    kept = rows[fits].rename_geometry("geometry") if rows.geometry.name != "geometry" else rows[fits].copy()
    for column in kept.columns.intersection(TAG_COLUMNS):
        # As text, so that the table can be written to any file.
        kept[column] = [text if isinstance(text, str) or text is None else _json(text) for text in kept[column]]
    taken = table.iloc[row]
    width = widths_m(tags[fits], taken["width_m"].to_numpy(dtype="float64"))
    extra = {
        "_code": taken["code"].to_numpy(),
        "_id": _ids(rows, layer, shapes)[fits],
        "tag": [f"{key}={tags[key].array[n]}" for key, n in zip(taken["key"], np.flatnonzero(fits), strict=True)],
        "width_m": np.where(shapes[fits] == "polygon", np.nan, width),
        "priority": taken["priority"].to_numpy(dtype="float64"),
        "_layer": pd.to_numeric(tags["layer"][fits], errors="coerce").fillna(0).to_numpy() if "layer" in tags else 0.0,
    }
    kept = kept.drop(columns=[column for column in kept.columns if column in extra])
    found.parts.append(kept.assign(**extra))


def _json(tags: Any) -> str | None:
    parsed = parse_tags(tags)
    return json.dumps(parsed, ensure_ascii=False) if parsed else None


def _where(layer: Layer, table: pd.DataFrame) -> str | None:
    """A condition that leaves out, while reading, what has none of the table's keys."""
    spelled = {column.lower(): column for column in layer.columns}
    packed = lookup(layer.columns, *TAG_COLUMNS)
    if "fclass" in spelled:
        return None
    terms = []
    for key in dict.fromkeys([*table["key"], "natural"]):
        if key in spelled:
            terms.append(f'"{spelled[key]}" IS NOT NULL')
        elif packed is not None:
            terms.append(f'"{packed}" LIKE \'%"{key}"%\'')
    return " OR ".join(terms) or None


def _tags(rows: gpd.GeoDataFrame, layer: Layer, keys: Sequence[str]) -> pd.DataFrame:
    """A column of text for each key that occurs."""
    tags = {}
    packed = lookup(rows.columns, *TAG_COLUMNS)
    wanted = frozenset(keys)
    unpacked: dict[str, list[str | None]] = {}
    if packed is not None:
        for number, value in enumerate(rows[packed]):
            for key, text in parse_tags(value).items():
                if key in wanted:
                    unpacked.setdefault(key, [None] * len(rows))[number] = text
    for key in (*keys, "natural"):
        own = rows[key].astype(object) if key in rows.columns and key not in TAG_COLUMNS else None
        other = pd.Series(unpacked[key], index=rows.index, dtype=object) if key in unpacked else None
        if own is not None and other is not None:
            own = own.where(own.notna(), other)
        column = own if own is not None else other
        if column is not None:
            tags[key] = column.where(column.notna(), None)
    if "fclass" in rows.columns:
        name = re.sub(r"^gis_osm_|_(a_)?free.*$|_a$", "", layer.name)
        for key in _FCLASS_KEYS.get(name, ()):
            tags[key] = rows["fclass"].astype(object)
        if name == "water":
            tags["natural"] = tags["natural"].where(tags["natural"].isin(["wetland", "glacier"]), "water")
    if "num_floors" in rows.columns and packed is None and "building" not in tags:  # Overture's buildings
        kind = rows["class"].astype(object) if "class" in rows.columns else pd.Series(None, index=rows.index)
        tags["building"] = kind.where(kind.notna(), "yes")
    if "level" in rows.columns and "layer" not in tags:
        tags["layer"] = rows["level"].astype(object)
    return pd.DataFrame(tags, index=rows.index)


def _ids(rows: gpd.GeoDataFrame, layer: Layer, shapes: np.ndarray) -> np.ndarray:
    """`node/1`, `way/2`, `relation/3`: unique over all layers, and what openstreetmap.org calls them."""
    columns = rows.columns
    if "feature_id" in columns:
        return rows["feature_id"].astype(str).to_numpy(dtype=object)
    number = lookup(columns, "osm_id", "osmid", "id")
    kind = lookup(columns, "osm_type", "element", "element_type")
    if number is None:
        return np.array([f"{layer.name}/{made}" for made in geometry_ids(rows)], dtype=object)
    numbers = rows[number].astype("string").str.removesuffix(".0")
    if kind is not None:
        return (rows[kind].astype(str) + "/" + numbers.astype(str)).to_numpy(dtype=object)
    if number == "id":
        return rows["id"].astype(str).to_numpy(dtype=object)
    # osm2pgsql writes relations as negative numbers, GDAL areas that are ways into a column of their own.
    areas = "osm_way_id" in columns
    prefix = np.where(shapes == "point", "node/", "relation/" if areas else "way/").astype(object)
    negative = numbers.str.startswith("-").fillna(False).to_numpy(dtype=bool)
    prefix[negative] = "relation/"
    ids = prefix + numbers.str.removeprefix("-").fillna("").to_numpy(dtype=object)
    if areas:
        way = rows["osm_way_id"].astype("string").str.removesuffix(".0")
        there = way.notna().to_numpy()
        ids[there] = "way/" + way[there].to_numpy(dtype=object)
    return ids


def _flatten(
    labels: gpd.GeoDataFrame, coasts: Sequence[gpd.GeoSeries], file: LabelFile
) -> tuple[gpd.GeoDataFrame, list[str]]:
    """Everything an area of metres, the sea with them, and nothing over anything else."""
    crs = metric_crs(labels)
    flat = labels.to_crs(crs)
    notes = []
    if coasts and file.area is not None:
        frame = gpd.GeoSeries([file.area.geometry], crs="EPSG:4326").to_crs(crs).iloc[0]
        coast = pd.concat([part.to_crs(crs) for part in coasts]).to_numpy()
        waters, unclear = sea(coast, frame)
        water = {
            "_code": _SEA_CODE, "_id": [f"sea/{n + 1}" for n in range(len(waters))], "tag": "natural=coastline",
            "priority": -1.0, "_layer": 0.0, "width_m": np.nan,
        }  # fmt: skip
        if len(waters):
            flat = concat([flat, gpd.GeoDataFrame(water, geometry=waters, crs=crs)])
        if unclear:
            notes.append(f"{unclear} parts of the area lie at a coastline that ends in it: sea or land is not known")
    elif coasts:
        notes.append("there is a coastline, but where the sea ends is only known with bbox=")
    areas = as_areas(np.asarray(flat.geometry.array, dtype=object), flat["width_m"].to_numpy(dtype="float64"))
    broken = ~shapely.is_valid(areas)  # by the rounding of a projection
    areas[broken] = shapely.make_valid(areas[broken], method="structure", keep_collapsed=False)
    # Over it lies what has the higher priority, then the higher layer (a bridge), then the smaller.
    order = np.lexsort([flat["_id"].to_numpy(dtype=str), -shapely.area(areas), flat["_layer"], flat["priority"]])
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    flat = flat.set_geometry(gpd.GeoSeries(flattened(areas, rank), index=flat.index, crs=crs))
    covered = flat.geometry.is_empty
    if covered.any():
        notes.append(f"{int(covered.sum())} features lie wholly under others")
    return flat[~covered], notes


_TAKES = frozenset({"level", "tags", "flatten"})
FORMATS = (
    Format(
        name="osm",
        looks_for="osm_id (or feature_id, or osm_type and id) with a column of tags, or such as landuse and highway",
        recognises=_is_osm,
        read=_read_osm,
        takes=_TAKES,
    ),
    Format(
        name="overture",
        looks_for="id, version, sources and subtype (or source_tags)",
        recognises=_is_overture,
        read=_read_overture,
        takes=_TAKES,
    ),
)
