"""Which acquisitions the demo world has: every Sentinel-1 and Sentinel-2 item of two years, as facts without pixels."""

from __future__ import annotations

import datetime as dt
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from . import clouds
from .grid import WORLD_CRS, MasterGrid, master_grid, tile_geoboxes
from .ground import apply, transformer
from .weather import FIRST_DAY, LAST_DAY, Weather, stream, weather_at

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from pyproj import Transformer

__all__ = ["Scene", "cloud_field_of", "inside", "scene_by_id", "scenes", "sun_position"]

_LON, _LAT = 0.0, 49.25
_S2_ORBIT = 94
_S1_ORBITS = {"ascending": 30, "descending": 110}
_BASELINES = (
    (dt.date(2018, 1, 1), "02.06"),
    (dt.date(2018, 11, 6), "02.07"),
    (dt.date(2019, 5, 6), "02.11"),
    (dt.date(2019, 7, 8), "02.13"),
)
_SWATH_TILT_DEG = 13.5  # a descending Sentinel-2 track at 49 N runs this much west of south


@dataclass(frozen=True)
class Scene:
    """One item: what a catalog states about it, and what its rendering needs."""

    id: str
    """The STAC item id; with the seed it determines every pixel."""
    seed: int
    size_px: int
    sensor: Literal["S1", "S2"]
    tile: str
    """MGRS-like tile name."""
    time: dt.datetime
    """Sensing time, UTC."""
    platform: str
    """As Planetary Computer writes it: Sentinel-2A, SENTINEL-1B."""
    orbit: Literal["ascending", "descending"]
    relative_orbit: int
    absolute_orbit: int
    weather: Weather
    footprint: tuple[tuple[float, float], ...]
    """Outline of the valid pixels, lon lat."""
    nodata_share: float
    """Share of the tile without pixels, 0 to 1."""
    edge: tuple[float, float, float]
    """(a, b, c): pixels lie where a x + b y < c on the world plane, metres."""
    cloud_cover: float = math.nan
    """Percent, as the product states it; NaN for radar."""
    baseline: str | None = None
    """Processing baseline, Sentinel-2 only."""
    datatake: str | None = None
    generated: dt.datetime | None = None
    sun_azimuth_deg: float = math.nan
    sun_elevation_deg: float = math.nan

    @property
    def geobox(self) -> GeoBox:
        """The 10 m grid of the tile."""
        return _geoboxes(self.size_px)[self.tile]

    @property
    def offset_dn(self) -> int:
        """What was added to reflectance x 10000 when the pixels were stored."""
        return 1000 if self.baseline is not None and self.baseline >= "04.00" else 0


@lru_cache(maxsize=4)
def _master(size_px: int) -> MasterGrid:
    return master_grid(size_px)


@lru_cache(maxsize=4)
def _geoboxes(size_px: int) -> dict[str, GeoBox]:
    return tile_geoboxes(size_px)


def sun_position(when: dt.datetime, lon: float = _LON, lat: float = _LAT) -> tuple[float, float]:
    """Azimuth (clockwise from north) and elevation of the sun, degrees; good to half a degree.

    >>> azimuth, elevation = sun_position(dt.datetime(2018, 6, 21, 12, 2))
    >>> round(azimuth), round(elevation)
    (180, 64)
    """
    day = when.timetuple().tm_yday + (when.hour - 12) / 24
    g = 2 * math.pi * (day - 1) / 365.25
    declination = (
        0.006918
        - 0.399912 * math.cos(g)
        + 0.070257 * math.sin(g)
        - 0.006758 * math.cos(2 * g)
        + 0.000907 * math.sin(2 * g)
    )
    equation_min = 229.18 * (
        0.000075
        + 0.001868 * math.cos(g)
        - 0.032077 * math.sin(g)
        - 0.014615 * math.cos(2 * g)
        - 0.040849 * math.sin(2 * g)
    )
    minutes = when.hour * 60 + when.minute + when.second / 60 + equation_min + 4 * lon
    hour_angle = math.radians(minutes / 4 - 180)
    phi = math.radians(lat)
    sine = math.sin(phi) * math.sin(declination) + math.cos(phi) * math.cos(declination) * math.cos(hour_angle)
    elevation = math.asin(sine)
    azimuth = math.atan2(
        -math.sin(hour_angle) * math.cos(declination),
        math.cos(phi) * math.sin(declination) - math.sin(phi) * math.cos(declination) * math.cos(hour_angle),
    )
    return math.degrees(azimuth) % 360, math.degrees(elevation)


@dataclass(frozen=True)
class _Frame:
    """A tile seen from the world plane: coarse points for shares, corners for footprints."""

    x: np.ndarray
    y: np.ndarray
    ring: np.ndarray
    to_lonlat: Transformer


@lru_cache(maxsize=8)
def _frame(size_px: int, tile: str) -> _Frame:
    box = _geoboxes(size_px)[tile]
    to_world = transformer(str(box.crs), WORLD_CRS)
    at = (np.arange(64) + 0.5) * size_px / 64
    cols, rows = np.meshgrid(at, at)
    x, y = to_world.transform(*apply(box.affine, cols, rows))
    corners = np.array([[0, 0], [size_px, 0], [size_px, size_px], [0, size_px]], dtype=float)
    ring = np.column_stack(to_world.transform(*apply(box.affine, corners[:, 0], corners[:, 1])))
    return _Frame(x, y, ring, transformer(WORLD_CRS, "EPSG:4326"))


def inside(scene: Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether the satellite saw these points of the world plane.

    >>> bool(inside(scenes(0, 512)[0], np.array(0.0), np.array(0.0)))
    True
    """
    a, b, c = scene.edge
    return a * x + b * y < c


def _footprint(frame: _Frame, edge: tuple[float, float, float]) -> tuple[tuple[tuple[float, float], ...], float]:
    """Outline in lon lat of the tile's part inside the edge (Sutherland-Hodgman, one line), and the share outside."""
    a, b, c = edge
    kept: list[tuple[float, float]] = []
    depth = c - frame.ring @ np.array([a, b])
    for k in range(4):
        p, q, dp, dq = frame.ring[k], frame.ring[(k + 1) % 4], depth[k], depth[(k + 1) % 4]
        if dp > 0:
            kept.append((float(p[0]), float(p[1])))
        if (dp > 0) != (dq > 0):
            cut = p + (q - p) * dp / (dp - dq)
            kept.append((float(cut[0]), float(cut[1])))
    lon, lat = frame.to_lonlat.transform([p[0] for p in kept], [p[1] for p in kept])
    outline = tuple((round(float(u), 7), round(float(v), 7)) for u, v in zip(lon, lat, strict=True))
    share = float(np.mean(a * frame.x + b * frame.y >= c))
    return outline, share


def _clouds_on(seed: int, size_px: int, date: dt.date, weather: Weather) -> clouds.CloudField:
    master = _master(size_px)
    return clouds.cloud_field(
        seed, date.isoformat(), weather, abs(master.origin_x), master.shape[0] * master.resolution_m / 2
    )


def cloud_field_of(scene: Scene) -> clouds.CloudField:
    """The clouds that an optical scene was taken through: both tiles of a date see the same ones.

    >>> cloud_field_of(scenes(0, 512)[0]).height_m > 0
    True
    """
    return _clouds_on(scene.seed, scene.size_px, scene.time.date(), scene.weather)


def _optical(seed: int, size_px: int, only: dt.date | None = None) -> list[Scene]:
    found = []
    half = abs(_master(size_px).origin_x)
    tilt = math.radians(_SWATH_TILT_DEG)
    first = FIRST_DAY + dt.timedelta(days=1)
    for k in range((LAST_DAY - first).days // 5 + 1):
        date = first + dt.timedelta(days=5 * k)
        if only not in (None, date):
            continue
        rng = stream(seed, "s2", date.isoformat())
        when = dt.datetime(date.year, date.month, date.day, 10, 56, 31) + dt.timedelta(
            seconds=int(rng.integers(-20, 20))
        )
        unit = "AB"[k % 2]
        orbit = (13_200 if unit == "A" else 4_300) + 143 * (k // 2)
        baseline = [name for start, name in _BASELINES if start <= date][-1]
        generated = when + dt.timedelta(hours=int(rng.integers(3, 9)), minutes=int(rng.integers(60)), seconds=7)
        if rng.random() < 0.5:
            # Half of the archive has been processed again: only the baseline tells, the date does not.
            baseline = "05.00"
            generated = dt.datetime(2023, 1, 1) + dt.timedelta(minutes=int(rng.integers(300 * 24 * 60)), seconds=11)
        # The swath's eastern edge crosses the eastern tile, a little elsewhere on each pass.
        edge = (math.cos(tilt), -math.sin(tilt), half * 0.60 + float(rng.normal(0, 0.06)) * half)
        weather = weather_at(seed, when)
        field = _clouds_on(seed, size_px, date, weather)
        azimuth, elevation = sun_position(when)
        stamp = when.strftime("%Y%m%dT%H%M%S")
        for tile in _geoboxes(size_px):
            frame = _frame(size_px, tile)
            footprint, nodata = _footprint(frame, edge)
            hidden, _ = clouds.opacity(field, frame.x, frame.y, detail=False)
            seen = edge[0] * frame.x + edge[1] * frame.y < edge[2]
            thin = clouds.veil(field, frame.x, frame.y)
            cloudy = (hidden > clouds.DENSE) | (thin > clouds.THIN)
            cover = 100 * float(cloudy[seen].mean()) if seen.any() else 0.0
            found.append(
                Scene(
                    id=f"S2{unit}_MSIL2A_{stamp}_R{_S2_ORBIT:03d}_T{tile}_{generated:%Y%m%dT%H%M%S}",
                    seed=seed,
                    size_px=size_px,
                    sensor="S2",
                    tile=tile,
                    time=when.replace(tzinfo=dt.UTC),
                    platform=f"Sentinel-2{unit}",
                    orbit="descending",
                    relative_orbit=_S2_ORBIT,
                    absolute_orbit=orbit,
                    weather=weather,
                    footprint=footprint,
                    nodata_share=nodata,
                    edge=edge,
                    cloud_cover=round(cover, 6),
                    baseline=baseline,
                    datatake=f"GS2{unit}_{stamp}_{orbit:06d}_N{baseline}",
                    generated=generated.replace(tzinfo=dt.UTC),
                    sun_azimuth_deg=azimuth,
                    sun_elevation_deg=elevation,
                )
            )
    return found


def _radar(seed: int, size_px: int, only: dt.date | None = None) -> list[Scene]:
    found = []
    half = abs(_master(size_px).origin_x)
    passes: tuple[tuple[Literal["ascending", "descending"], int, dt.time], ...] = (
        ("ascending", 2, dt.time(17, 56, 12)),
        ("descending", 4, dt.time(6, 14, 38)),
    )
    for orbit, start_day, clock in passes:
        first = FIRST_DAY + dt.timedelta(days=start_day)
        for k in range((LAST_DAY - first).days // 6 + 1):
            date = first + dt.timedelta(days=6 * k)
            if only not in (None, date):
                continue
            rng = stream(seed, "s1", orbit, date.isoformat())
            when = dt.datetime.combine(date, clock) + dt.timedelta(seconds=int(rng.integers(-4, 5)))
            unit = "AB"[k % 2]
            relative = _S1_ORBITS[orbit]
            absolute = relative - 1 + (73 + 175 * 113 if unit == "A" else 27 + 175 * 50) + 175 * (k // 2)
            heading = math.radians(13.0)
            # One pass in twelve ends its slice over the world: the north or south is missing.
            cut = rng.random() < 1 / 12
            side = float(rng.choice([-1.0, 1.0]))
            along = side * math.sin(heading) * (1 if orbit == "ascending" else -1)
            edge = (along, side * math.cos(heading), float(rng.uniform(0.1, 0.45)) * half if cut else 1e9)
            stamp = when.strftime("%Y%m%dT%H%M%S")
            end = (when + dt.timedelta(seconds=25)).strftime("%Y%m%dT%H%M%S")
            datatake = f"{int(stream(seed, 'datatake', orbit, k).integers(0x010000, 0x02FFFF)):06X}"
            for tile in _geoboxes(size_px):
                footprint, nodata = _footprint(_frame(size_px, tile), edge)
                found.append(
                    Scene(
                        id=f"S1{unit}_IW_GRDH_1SDV_{stamp}_{end}_{absolute:06d}_{datatake}_{tile}_rtc",
                        seed=seed,
                        size_px=size_px,
                        sensor="S1",
                        tile=tile,
                        time=(when + dt.timedelta(seconds=12)).replace(tzinfo=dt.UTC),
                        platform=f"SENTINEL-1{unit}",
                        orbit=orbit,
                        relative_orbit=relative,
                        absolute_orbit=absolute,
                        weather=weather_at(seed, when),
                        footprint=footprint,
                        nodata_share=nodata,
                        edge=edge,
                        datatake=datatake,
                    )
                )
    return found


@lru_cache(maxsize=4)
def scenes(seed: int = 0, size_px: int = 1024) -> tuple[Scene, ...]:
    """Every item of the two years, in order of time.

    >>> len(scenes(0, 512)) > 700
    True
    """
    return tuple(sorted(_optical(seed, size_px) + _radar(seed, size_px), key=lambda s: (s.time, s.id)))


def scene_by_id(seed: int, size_px: int, item_id: str) -> Scene:
    """One item by its id, without making the others.

    >>> scene_by_id(0, 512, scenes(0, 512)[3].id) == scenes(0, 512)[3]
    True
    """
    stamp = re.search(r"_(\d{4})(\d{2})(\d{2})T\d{6}_", item_id)
    if stamp:
        date = dt.date(*(int(part) for part in stamp.groups()))
        for scene in (_optical if item_id.startswith("S2") else _radar)(seed, size_px, date):
            if scene.id == item_id:
                return scene
    raise KeyError(f"The demo world (seed {seed}, {size_px} px) has no item {item_id!r}.")
