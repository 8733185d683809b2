"""Places in blocks, and footprints that can be asked for a whole block at once which of its places they hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from deepsentinel import lonlat
from deepsentinel.aoi import utm_crs
from deepsentinel.errors import InputError
from deepsentinel.footprints import check_number
from deepsentinel.grids import transformer

# Scenes are a hundred kilometres wide and more: in blocks of this size most places share most of their scenes. Where
# there are fewer places in them than it takes to be worth the trouble, blocks are larger.
BLOCKS_DEG, WORTH_A_BLOCK = (1.5, 3.0, 6.0), 16
BLOCK_PLACES = 2048
# On an edge counts as inside, also where the last digit says otherwise: 1e-11 degrees are a micrometre.
TOLERANCE_DEG = 1e-11
# Rings of more corners are tested one by one by shapely: few catalogs have them, and products do not.
MOST_EDGES = 8
MAX_SIZE_M = 100_000.0


@dataclass(frozen=True, eq=False)
class Block:
    """Places that lie near each other."""

    rows: np.ndarray
    """Their positions in the table."""
    lon: np.ndarray
    """Of what must be held of each: shape (places, corners), within [-180, 180]."""
    lat: np.ndarray
    boxes: np.ndarray
    """What they span: one box in degrees, or two where they lie on both sides of 180."""


@dataclass(frozen=True, eq=False)
class Places:
    """Points or windows: what of each must be held, and where it is."""

    lon: np.ndarray
    lat: np.ndarray
    corner_lon: np.ndarray
    corner_lat: np.ndarray

    def blocks(self) -> Iterator[Block]:
        """All of them, in blocks of neighbours."""
        if not len(self.lon):
            return
        key = self._cells(BLOCKS_DEG[0])
        for size_deg in BLOCKS_DEG[1:]:
            if len(np.unique(key)) * WORTH_A_BLOCK <= len(key):
                break
            key = self._cells(size_deg)
        order = np.lexsort((self.lon, self.lat, key))
        starts = np.flatnonzero(np.diff(key[order], prepend=-1))
        for start, end in zip(starts, np.append(starts[1:], len(order)), strict=True):
            for at in range(start, end, BLOCK_PLACES):
                rows = order[at : min(at + BLOCK_PLACES, end)]
                yield self._block(rows)

    def _cells(self, size_deg: float) -> np.ndarray:
        """Which cell each place lies in; all cells have about the same ground."""
        row = np.floor((self.lat + 90) / size_deg).astype("int64")
        around = np.maximum(np.round(360 / size_deg * np.cos(np.radians((row + 0.5) * size_deg - 90))), 1)
        column = np.floor((self.lon + 180) / 360 * around).astype("int64")
        return np.asarray(row * 1000 + column)

    def _block(self, rows: np.ndarray) -> Block:
        lon, lat = self.corner_lon[rows], self.corner_lat[rows]
        south, north = lat.min(), lat.max()
        west, east = lon.min(), lon.max()
        if east - west <= 180:
            return Block(rows, lon, lat, np.array([[west, south, east, north]]))
        # Corners on both sides of 180: neighbours are never half the world apart, but close to a pole.
        left, right = lon[lon > 0].min(), lon[lon <= 0].max()
        return Block(rows, lon, lat, np.array([[left, south, 180, north], [-180, south, right, north]]))

    def hashes(self, rows: np.ndarray) -> np.ndarray:
        """A number for each place that depends on nothing but where it is."""
        # Rounded to a tenth of a millimetre; plus zero, so that -0 and 0 are one place.
        places = np.stack([self.lon[rows], self.lat[rows]], axis=1).round(9) + 0.0
        frame = pd.DataFrame(places)
        return pd.util.hash_pandas_object(frame, index=False).to_numpy()


def places_of(points: Any, size_m: float) -> Places:
    """Points, each with the window of `size_m` around it, or windows."""
    if not isinstance(points, gpd.GeoDataFrame | gpd.GeoSeries):
        raise InputError(
            f"points is a {type(points).__name__}, not a GeoDataFrame; give what sample_land or cover returned"
        )
    check_number("size_m", size_m, highest=MAX_SIZE_M, example="size_m=2560")
    if points.crs is None:
        raise InputError("The points have no CRS; if they are longitude and latitude: points.set_crs('EPSG:4326')")
    shapes = np.asarray(points.geometry.to_crs("EPSG:4326").array, dtype=object)
    kinds = np.unique(shapely.get_type_id(shapes))
    bad = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    if bad.any():
        raise InputError(f"{bad.sum()} of the {len(points)} points have no geometry (the first: row {bad.argmax()}).")
    if set(kinds) <= {0}:
        lon, lat = _on_globe(*shapely.get_coordinates(shapes).T)
        corners = (lon[:, None], lat[:, None]) if not size_m else _corners(lon, lat, size_m)
        return Places(lon, lat, *corners)
    if not set(kinds) <= {3, 6}:
        raise InputError("points holds other shapes than points, or than windows (polygons); give one of the two.")
    if size_m:
        raise InputError("Windows have a size of their own: leave out size_m=, or give points.")
    return _windows(shapes)


def _on_globe(lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = np.isfinite(lon) & (np.abs(lon) <= lonlat.MAX_LON) & (np.abs(lat) <= 90)
    if not known.all():
        row = int(np.argmin(known))
        raise InputError(
            f"Point {row} lies at longitude {lon[row]:g}, latitude {lat[row]:g}: that is no place on Earth. Longitude"
            " comes first; metres need their CRS."
        )
    return np.where(np.abs(lon) > 180, (lon + 180) % 360 - 180, lon), lat


def _corners(lon: np.ndarray, lat: np.ndarray, size_m: float) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the square window around each point, in its UTM zone or on the grid of its pole."""
    corner_lon, corner_lat = np.empty((2, len(lon), 4))
    zone = np.minimum((lon + 180) % 360 // 6, 59) + np.where(lat >= 0, 0, 60)
    zone = np.where(lat > 84, 120, np.where(lat < -80, 121, zone))
    half = size_m / 2
    for one in np.unique(zone):
        rows = np.flatnonzero(zone == one)
        crs = utm_crs(lon[rows[0]], lat[rows[0]])
        x, y = transformer("EPSG:4326", crs).transform(lon[rows], lat[rows])
        across, up = x[:, None] + half * np.array([-1, 1, 1, -1]), y[:, None] + half * np.array([-1, -1, 1, 1])
        out = transformer(crs, "EPSG:4326").transform(across.ravel(), up.ravel())
        corner_lon[rows], corner_lat[rows] = (values.reshape(-1, 4) for values in _on_globe(*out))
    return corner_lon, corner_lat


def _windows(shapes: np.ndarray) -> Places:
    """What must be held of windows: the corners of each, the first repeated where others have more."""
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    lon, lat = _on_globe(*xy.T)
    number = np.bincount(owner, minlength=len(shapes))
    starts = np.cumsum(number) - number
    slot = np.minimum(np.arange(number.max(initial=1)), number[:, None] - 1) + starts[:, None]
    corner_lon, corner_lat = lon[slot], lat[slot]
    # On both sides of 180 the middle is found with one side moved over.
    turned = np.where(np.ptp(corner_lon, axis=1, keepdims=True) > 180, corner_lon % 360, corner_lon)
    middle = (turned.min(axis=1) + turned.max(axis=1)) / 2
    middle = np.where(middle > 180, middle - 360, middle)
    return Places(middle, (corner_lat.min(axis=1) + corner_lat.max(axis=1)) / 2, corner_lon, corner_lat)


class Footprints:
    """Outlines, each once, and which scenes have it."""

    def __init__(self, shapes: np.ndarray, group: np.ndarray) -> None:
        self._order = np.argsort(group, kind="stable")
        self._count = np.bincount(group, minlength=len(shapes))
        self._start = np.cumsum(self._count) - self._count
        self._parts, self._owner = shapely.get_parts(shapes, return_index=True)
        self._in_parts = len(self._parts) != len(shapes)
        self._tree = shapely.STRtree(self._parts)
        self._edges = _half_planes(self._parts)
        self._convex = self._edges[:, 0, 0] == self._edges[:, 0, 0]  # not NaN
        shapely.prepare(self._parts[~self._convex])
        # Most footprints have four edges, and these are half as much work as eight.
        self._four = ~(self._edges[:, 4:, :2].any(axis=(1, 2))) & self._convex

    @classmethod
    def of(cls, shapes: np.ndarray) -> Footprints:
        """The footprints of scenes."""
        group, first = pd.factorize(shapely.to_wkb(shapes))
        where = np.full(len(first), len(shapes))
        np.minimum.at(where, group, np.arange(len(shapes)))
        return cls(shapes[where] if len(where) else np.empty(0, dtype=object), group)

    def scenes_of(self, shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All scenes with one of these outlines, in their order: the column of the outline, and the scene."""
        number = self._count[shapes]
        column = np.repeat(np.arange(len(shapes)), number)
        within = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        scene = self._order[self._start[shapes][column] + within]
        order = np.argsort(scene)
        return column[order], scene[order]

    def holding(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """The outlines that hold some place of a block, and which holds which: bool, shape (places, outlines)."""
        found = self._tree.query(shapely.box(*block.boxes.T))[1]
        parts = np.sort(found) if len(block.boxes) == 1 else np.unique(found)
        shapes = self._owner[parts]
        # An outline cut at 180 degrees holds what any of its parts does, corner by corner.
        cut = np.asarray(np.diff(shapes) == 0)
        first = np.flatnonzero(np.r_[True, ~cut]) if self._in_parts and cut.any() else None
        if first is not None:
            shapes = shapes[first]
        whole = np.ones((len(block.rows), len(shapes)), dtype=bool)
        for corner in range(block.lon.shape[1]):
            held = self._inside(block.lon[:, corner], block.lat[:, corner], parts)
            whole &= held if first is None else np.logical_or.reduceat(held, first, axis=1)
            # What holds none of the places so far need not be asked for their other corners.
            some = np.flatnonzero(whole.any(axis=0))
            if first is None or corner == block.lon.shape[1] - 1:
                shapes, whole = shapes[some], whole[:, some]
                parts = parts[some] if first is None else parts
        return shapes, whole

    def _inside(self, lon: np.ndarray, lat: np.ndarray, parts: np.ndarray) -> np.ndarray:
        """Whether each place is in each part: bool, shape (places, parts)."""
        held = np.zeros((len(lon), len(parts)), dtype=bool)
        # Around a middle nearby, so that the products are small and their last digits right.
        middle = np.array([lon[0], lat[0]])
        at = np.stack([lon - middle[0], lat - middle[1], np.ones(len(lon))], axis=1)
        four, convex = self._four[parts], self._convex[parts]
        for chosen, count in ((four, 4), (convex & ~four, MOST_EDGES)):
            columns = np.flatnonzero(chosen)
            if not len(columns):
                continue
            edges = self._edges[parts[columns], :count].copy()
            edges[..., 2] += edges[..., :2] @ middle
            inside = np.ones((len(at), len(columns)), dtype=bool)
            for number in range(count):
                inside &= at @ edges[:, number].T >= -TOLERANCE_DEG
            held[:, columns] = inside
        for column in np.flatnonzero(~convex):
            held[:, column] = shapely.intersects_xy(self._parts[parts[column]], lon, lat)
        return held


def _half_planes(parts: np.ndarray) -> np.ndarray:
    """a, b, c of the edges of convex polygons, a x + b y + c >= 0 inside, in degrees from the edge.

    Rings of fewer edges than `MOST_EDGES` are filled up with edges that hold everything; those of polygons that are not
    convex, have holes or more edges are NaN.
    """
    planes = np.zeros((len(parts), MOST_EDGES, 3))
    edges = shapely.get_num_points(shapely.get_exterior_ring(parts)) - 1
    simple = (edges <= MOST_EDGES) & (shapely.get_num_interior_rings(parts) == 0)
    planes[~simple] = np.nan
    for count in np.unique(edges[simple]):
        rows = np.flatnonzero(simple & (edges == count))
        ring = shapely.get_coordinates(shapely.orient_polygons(parts[rows])).reshape(len(rows), count + 1, 2)
        step = np.diff(ring, axis=1)
        length = np.hypot(step[..., 0], step[..., 1])
        length = np.where(length > 0, length, 1.0)
        a, b = -step[..., 1] / length, step[..., 0] / length
        c = -(a * ring[:, :-1, 0] + b * ring[:, :-1, 1])
        following = np.roll(step, -1, axis=1)
        turn = (step[..., 0] * following[..., 1] - step[..., 1] * following[..., 0]) >= -1e-12
        planes[rows, :count] = np.stack([a, b, c], axis=-1)
        planes[rows[~turn.all(axis=1)]] = np.nan
    return planes
