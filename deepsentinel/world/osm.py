"""The demo world as volunteers would have mapped it: roads and houses in detail, land use in part, tags at times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from .classes import Cover
from .corine import mode_filter
from .grid import WORLD_CRS
from .landscape import Landscape
from .noise import hash01, rng_for
from .rpg import permanent_parcels

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["osm"]

Row = tuple[Any, dict[str, str]]

POINT_KEYS = ("name", "barrier", "highway", "ref", "address", "is_in", "place", "man_made")
LINE_KEYS = ("name", "highway", "waterway", "aerialway", "barrier", "man_made", "railway")
AREA_KEYS = (
    "name", "type", "aeroway", "amenity", "admin_level", "barrier", "boundary", "building", "craft", "geological",
    "historic", "land_area", "landuse", "leisure", "man_made", "military", "natural", "office", "place", "shop",
    "sport", "tourism",
)  # fmt: skip
"""Columns of GDAL's OSM driver; every other key goes into `other_tags`."""

_Z_ORDER = {"trunk": 8, "secondary": 6, "tertiary": 4, "residential": 3, "unclassified": 3, "rail": 5}
_FIRST = ("Ar", "Bel", "Cour", "Dan", "Es", "Fon", "Gra", "Haut", "Lan", "Mar", "Neu", "Or", "Pont", "Roc", "Val", "Vi")
_SECOND = ("vill", "be", "mont", "val", "fleur", "ti", "san", "ger", "court", "mar", "lon", "que")
_THIRD = ("e", "y", "ières", "-sur-Mer", "ois", "ec", "é", "ette", "in")
_SHOPS = (
    {"shop": "bakery"}, {"shop": "supermarket"}, {"shop": "butcher"}, {"amenity": "pharmacy"}, {"amenity": "cafe"},
    {"amenity": "restaurant"}, {"shop": "hairdresser"}, {"amenity": "school"}, {"amenity": "post_office"},
    {"amenity": "bank"},
)  # fmt: skip


def _name(rng: np.random.Generator) -> str:
    return str(rng.choice(_FIRST)) + str(rng.choice(_SECOND)) + str(rng.choice(_THIRD))


def _some(rng: np.random.Generator, share: float, **tags: str) -> dict[str, str]:
    """Tags that a mapper added or, more often, did not."""
    return {key.replace("__", ":"): value for key, value in tags.items() if rng.random() < share}


def _roads(landscape: Landscape, rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for number, (line, tags) in enumerate(landscape.features["roads"]):
        kind = tags["highway"]
        more = {
            "trunk": _some(rng, 0.9, lanes="4", maxspeed="110", ref="N 13", width="22"),
            "secondary": _some(
                rng, 0.6, lanes="2", maxspeed="80", width="9", surface="asphalt", ref=f"D {number + 20}"
            ),
            "tertiary": _some(rng, 0.45, lanes="2", width="7.5 m", surface="asphalt", ref=f"D {number + 120}"),
        }.get(kind, _some(rng, 0.3, surface="asphalt", width="5.5"))
        rows.append((line, {**tags, **more}))
    for line, tags in landscape.features["streets"]:
        rows.append((line, {**tags, **_some(rng, 0.25, lanes="2", maxspeed="30", surface="asphalt", lit="yes"),
                            **({"name": "Rue " + _name(rng)} if rng.random() < 0.7 else {})}))  # fmt: skip
    for line, tags in landscape.features["lanes"]:
        if rng.random() < 0.85:
            rows.append((line, {**tags, **_some(rng, 0.25, surface="gravel", tracktype="grade2")}))
    return rows


def _lines(landscape: Landscape, rng: np.random.Generator) -> list[Row]:
    rows = _roads(landscape, rng)
    for line, tags in landscape.features["railway"]:
        rows.append((line, {**tags, "electrified": "contact_line", "gauge": "1435"}))
    for kind in ("river", "streams"):
        for line, tags in landscape.features[kind]:
            name = {"name": "L'" + _name(rng)} if kind == "river" or rng.random() < 0.3 else {}
            rows.append((line, {**tags, **name}))
    for line, tags in landscape.features["power"]:
        rows.append((line, {**tags, **_some(rng, 0.7, voltage="90000", cables="3")}))
    for line in _coastline(landscape):
        rows.append((line, {"natural": "coastline"}))
    return rows  # hedges are hardly ever mapped


def _coastline(landscape: Landscape) -> list[Any]:
    """High-water line, drawn with land on its left as the rule wants."""
    from rasterio.features import shapes

    step = 2
    cover = landscape.cover[step // 2 :: step, step // 2 :: step]
    land = (cover != Cover.SEA) & (cover != Cover.TIDAL_FLAT)
    grid = landscape.grid.coarser(step)
    left, top = grid.origin_x, grid.origin_y
    right, bottom = left + grid.shape[1] * grid.resolution_m, top - grid.shape[0] * grid.resolution_m
    frame = shapely.box(left + 15, bottom + 15, right - 15, top - 15)
    lines = []
    for geometry, _ in shapes(land.astype(np.uint8), mask=land, transform=grid.transform):
        outline = shapely.Polygon(geometry["coordinates"][0])
        if outline.area < 20_000:
            continue
        ring = shapely.geometry.polygon.orient(outline, 1.0).exterior  # counter-clockwise: land on the left
        part = shapely.line_merge(ring.intersection(frame), directed=True)
        for piece in shapely.get_parts(part):
            if piece.geom_type == "LineString" and piece.length > 200:
                lines.append(shapely.simplify(piece, 12.0))
    return lines


def _points(landscape: Landscape, rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for point, tags in landscape.features["places"]:
        kind = tags["place"]
        people = int(float(tags["radius_m"]) ** 2 * (0.011 if kind == "town" else 0.006))
        rows.append((point, {"place": kind, "name": _name(rng), **_some(rng, 0.7, population=str(people))}))
    for point, tags in landscape.features["station"]:
        rows.append((point, {**tags, "name": "Gare de " + _name(rng)}))
    for line, _ in landscape.features["power"]:
        rows.extend((line.interpolate(d), {"power": "tower"}) for d in np.arange(0, line.length, 290.0))
    town = next(p for p, tags in landscape.features["places"] if tags["place"] == "town")
    centres = np.array([shapely.get_coordinates(g.centroid)[0] for g, _ in landscape.features["buildings"]])
    if len(centres):
        far = np.hypot(centres[:, 0] - town.x, centres[:, 1] - town.y)
        odds = np.exp(-far / 450) + 0.02
        count = min(len(centres), max(8, len(centres) // 60))
        for k in rng.choice(len(centres), count, replace=False, p=odds / odds.sum()):
            tags = dict(_SHOPS[int(rng.integers(len(_SHOPS)))])
            rows.append((shapely.Point(centres[k]), {**tags, **({"name": _name(rng)} if rng.random() < 0.6 else {})}))
    crossings = rng.random(len(landscape.features["streets"])) < 0.06
    for (line, _), here in zip(landscape.features["streets"], crossings, strict=True):
        if here:
            rows.append((shapely.Point(line.coords[0]), {"highway": "crossing"}))
    return rows


def _land(landscape: Landscape, rng: np.random.Generator) -> list[Row]:
    """Woods, water, wetland, heath, beach and part of the farmland, outlined at 20 m."""
    from rasterio.features import shapes

    step = 4
    cover = landscape.cover[step // 2 :: step, step // 2 :: step]
    plain = np.where(np.isin(cover, (Cover.HEDGE, Cover.ASPHALT, Cover.RAILWAY)), Cover.GRASSLAND, cover)
    plain = np.where(np.isin(cover, (Cover.BUILDING, Cover.GARDEN)), Cover.GARDEN, plain).astype(np.int16)
    plain = mode_filter(plain, 3)
    kinds: dict[int, dict[str, str]] = {
        Cover.BROADLEAF: {"natural": "wood", "leaf_type": "broadleaved"},
        Cover.CONIFER: {"landuse": "forest", "leaf_type": "needleleaved"},
        Cover.HEATH: {"natural": "heath"},
        Cover.MARSH: {"natural": "wetland", "wetland": "marsh"},
        Cover.SALT_MARSH: {"natural": "wetland", "wetland": "saltmarsh"},
        Cover.TIDAL_FLAT: {"natural": "wetland", "wetland": "tidalflat"},
        Cover.BEACH: {"natural": "beach", "surface": "sand"},
        Cover.ROCK: {"natural": "bare_rock"},
        Cover.LAKE: {"natural": "water", "water": "lake"},
        Cover.GARDEN: {"landuse": "residential"},
        Cover.CROP: {"landuse": "farmland"},
        Cover.GRASSLAND: {"landuse": "meadow"},
    }
    # Farmland is mapped by the field, so it is cut by parcel; elsewhere by what it is.
    number = landscape.parcel[step // 2 :: step, step // 2 :: step]
    farm = (plain == Cover.CROP) | (plain == Cover.GRASSLAND)
    # Volunteers map commune after commune: some squares are complete, some empty.
    rows_, cols_ = np.indices(plain.shape) // 110
    mapped = hash01(np.asarray(rows_ * 1000 + cols_), landscape.seed + 71) < 0.62
    label = np.where(farm, np.where(mapped & (number > 0), 100 + number, 0), plain).astype(np.int32)
    wanted = np.isin(label, list(kinds)) | (label >= 100)
    crop = np.concatenate([[0], landscape.crop_table(2018)])
    permanent = np.concatenate([[False], permanent_parcels(landscape)])
    out: list[Row] = []
    for geometry, value in shapes(label, mask=wanted, connectivity=4, transform=landscape.grid.coarser(step).transform):
        rings = geometry["coordinates"]
        polygon = shapely.Polygon(rings[0], rings[1:])
        if polygon.area < 3000:
            continue
        value = int(value)
        if value >= 100:
            kind = "vineyard" if crop[value - 100] == 9 else "meadow" if permanent[value - 100] else "farmland"
            tags = {"landuse": kind}
        else:
            tags = dict(kinds[value])
            if rng.random() < 0.07:
                continue  # nobody has been there yet
            if "leaf_type" in tags and rng.random() < 0.55:
                del tags["leaf_type"]
        out.append((shapely.simplify(polygon, 14.0), tags))
    return out


def _areas(landscape: Landscape, rng: np.random.Generator) -> list[Row]:
    rows = _land(landscape, rng)
    for kind in ("works", "retail", "parks", "farmyards", "quarry", "solar", "river_area"):
        for shape, tags in landscape.features[kind]:
            if rng.random() < 0.95 or kind == "river_area":
                rows.append((shape, {**tags, **({"name": _name(rng)} if rng.random() < 0.2 else {})}))
    for kind in ("buildings", "halls"):
        for shape, tags in landscape.features[kind]:
            luck = rng.random()
            if luck < 0.94:
                more = {"building": "house"} if kind == "buildings" and luck < 0.25 else {}
                rows.append((shape, {**tags, **more, **({"building:levels": "2"} if luck < 0.08 else {})}))
    return rows


def _frame(rows: list[Row], keys: tuple[str, ...], first_id: int, *, areas: bool = False) -> gpd.GeoDataFrame:
    import geopandas as gpd

    shapes = np.array([shape for shape, _ in rows], dtype=object)
    data: dict[str, list[Any]] = {"osm_id": [], **({"osm_way_id": []} if areas else {})}
    for number, shape in enumerate(shapes):
        # Areas with holes are relations, plain rings are ways: their ids live in different columns.
        relation = areas and (shape.geom_type == "MultiPolygon" or len(shape.interiors) > 0)
        identity = str(first_id + 7 * number)
        if areas:
            data["osm_id"].append(identity if relation else None)
            data["osm_way_id"].append(None if relation else identity)
        else:
            data["osm_id"].append(identity)
    for key in keys:
        data[key] = [tags.get(key) for _, tags in rows]
    if keys is LINE_KEYS:
        order = [_Z_ORDER.get(tags.get("highway") or tags.get("railway") or "", 0) for _, tags in rows]
        data["z_order"] = order
    known = set(keys)
    data["other_tags"] = [
        ",".join(f'"{key}"=>"{value}"' for key, value in tags.items() if key not in known) or None for _, tags in rows
    ]
    if areas:
        shapes = np.array([shapely.MultiPolygon([s]) if s.geom_type == "Polygon" else s for s in shapes], dtype=object)
    return gpd.GeoDataFrame(data, geometry=list(shapes), crs=WORLD_CRS).to_crs("EPSG:4326")


def osm(landscape: Landscape) -> dict[str, gpd.GeoDataFrame]:
    """Layers `points`, `lines` and `multipolygons` in EPSG:4326, with the columns of GDAL's OSM driver.

    As in OpenStreetMap much is missing: part of the farmland, some houses, most widths and leaf types.

    >>> from deepsentinel.world.landscape import build_landscape
    >>> sorted(osm(build_landscape(0, size_px=256)))
    ['lines', 'multipolygons', 'points']
    """
    rng = rng_for(landscape.seed, "osm")
    return {
        "points": _frame(_points(landscape, rng), POINT_KEYS, 100_000_007),
        "lines": _frame(_lines(landscape, rng), LINE_KEYS, 200_000_003),
        "multipolygons": _frame(_areas(landscape, rng), AREA_KEYS, 300_000_017, areas=True),
    }
