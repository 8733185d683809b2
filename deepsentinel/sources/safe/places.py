"""Where the pixels of a Sentinel-1 GRD product lie at sea: from the orbit, times and distances that its XML states.

A GRD product lies in the satellite's own geometry: time by ground range. Its annotation says for some twenty by twenty
points where on Earth they are, but each at the height of the ground there. A point on a hill of 600 m is more than a
kilometre away from where the sea would be in the same pixel, and a surface through such points would drag the sea
beside an island along. So the points are not interpolated. Each pixel is put where it meets the sea: on the ellipsoid,
square to the flight, at its distance from the satellite, which the annotation's polynomials tell for every second.

The points then are the check: computed at their own heights, they must come out where the annotation has them. How far
the farthest is off is the placement error that patches state. What it leaves out is how high the sea lies above the
ellipsoid, which the annotation does not tell: that moves pixels by its height over the tangent of the angle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from deepsentinel.errors import ReadError

from .files import numbers

Floats = NDArray[np.float64]

LIGHT_M_S = 299_792_458.0
WGS84_M = np.array([6_378_137.0, 6_378_137.0, 6_356_752.314245])
# Newton's method doubles its digits with each step; from a point on a hill three are enough.
STEPS = 15
CLOSE_M, CLOSE_PX = 1e-3, 1e-4
# Places are computed this often and interpolated between: often enough for the bends from one polynomial to the next.
LINE_STEP, PIXEL_STEP = 20, 200


@dataclass(frozen=True, eq=False)
class Geolocation:
    """What one annotation states of where its pixels lie. Times are seconds since the first state vector."""

    lines: Floats
    """Of each row of the grid of points, counted from 0 at the middle of the first image line."""
    pixels: Floats
    """Of each column."""
    lon: Floats
    lat: Floats
    height_m: Floats
    """Of the ground above the ellipsoid, at each point."""
    angle_deg: Floats
    """Incidence angle, against the ellipsoid's upright."""
    time_s: Floats
    """When the satellite was abreast of the point."""
    range_m: Floats
    """How far away it was."""
    orbit_s: Floats
    """When the state vectors hold."""
    position_m: Floats
    """Of the satellite, Earth-fixed, for each of them."""
    velocity_m_s: Floats
    distance_s: Floats
    """When the polynomials hold that turn ground range into distance."""
    distance_m: Floats
    """Their coefficients, by row."""
    spacing_m: float
    """Ground range from pixel to pixel."""

    @classmethod
    def of(cls, annotation: Element, where: str) -> Geolocation:
        """All of it, from an annotation."""
        points, states = list(annotation.iter("geolocationGridPoint")), list(annotation.iter("orbit"))
        ranges = [one for one in annotation.iter("coordinateConversion") if one.findtext("grsrCoefficients")]
        try:
            columns = {
                name: np.array([float(str(point.findtext(name))) for point in points])
                for name in ("line", "pixel", "longitude", "latitude", "height", "incidenceAngle", "slantRangeTime")
            }
            when, moments, turns = (
                np.array([str(one.findtext(name)) for one in found], "datetime64[ns]")
                for found, name in ((points, "azimuthTime"), (states, "time"), (ranges, "azimuthTime"))
            )
            vectors = {
                kind: np.array([[float(str(state.findtext(f"{kind}/{axis}"))) for axis in "xyz"] for state in states])
                for kind in ("position", "velocity")
            }
            distances = np.array([numbers(one.findtext("grsrCoefficients")) for one in ranges])
            starts = {float(str(one.findtext("gr0"))) for one in ranges}
            spacing = float(str(annotation.findtext(".//rangePixelSpacing")))
        except ValueError as error:
            raise ReadError(f"{where}: its annotation is not whole ({error}). Download it again.") from error
        lines, pixels = np.unique(columns["line"]), np.unique(columns["pixel"])
        whole = min(len(lines), len(pixels), len(states)) >= 4 and len(points) == len(lines) * len(pixels)
        if not whole or not len(ranges) or starts != {0.0}:
            raise ReadError(
                f"{where}: its annotation has {len(points)} geolocation points, {len(states)} state vectors and "
                f"{len(ranges)} range polynomials, which do not tell where its pixels lie. Download it again."
            )
        order = np.lexsort((columns["pixel"], columns["line"]))
        shaped = {name: column[order].reshape(len(lines), len(pixels)) for name, column in columns.items()}
        return cls(
            lines=lines,
            pixels=pixels,
            lon=shaped["longitude"],
            lat=shaped["latitude"],
            height_m=shaped["height"],
            angle_deg=shaped["incidenceAngle"],
            time_s=_seconds(when[order], moments[0]).reshape(len(lines), len(pixels)),
            range_m=shaped["slantRangeTime"] * LIGHT_M_S / 2,
            orbit_s=_seconds(moments, moments[0]),
            position_m=vectors["position"],
            velocity_m_s=vectors["velocity"],
            distance_s=_seconds(turns, moments[0]),
            distance_m=distances,
            spacing_m=spacing,
        )

    def time_at(self, line: Floats, pixel: Floats) -> Floats:
        """When the satellite was abreast of image positions."""
        return np.asarray(_fit(self.lines, self.pixels, self.time_s)(line, pixel))

    def range_at(self, time_s: Floats, pixel: Floats) -> Floats:
        """The distance of pixels at times: each polynomial's, and between two of them in proportion.

        The polynomials follow the mean height of the ground below, so beside land they jump from one to the next.
        """
        ground = pixel * self.spacing_m
        held = np.stack([np.polynomial.polynomial.polyval(ground, coefficients) for coefficients in self.distance_m])
        out = np.empty_like(time_s)
        for column in range(len(pixel)):
            out[:, column] = np.interp(time_s[:, column], self.distance_s, held[:, column])
        return out

    def places(self, line: Floats, pixel: Floats, height_m: float | Floats) -> Floats:
        """Earth-fixed x, y, z of image positions (lines by pixels) at a height above the ellipsoid."""
        from scipy.interpolate import CubicHermiteSpline

        time_s = self.time_at(line, pixel)
        path = CubicHermiteSpline(self.orbit_s, self.position_m, self.velocity_m_s)
        sides = np.moveaxis(self._stated, -1, 0)
        start = np.stack([_fit(self.lines, self.pixels, side)(line, pixel) for side in sides], axis=-1)
        height = np.broadcast_to(np.asarray(height_m, float), time_s.shape)
        return _meet(path(time_s), path(time_s, 1), self.range_at(time_s, pixel), start, height)

    @cached_property
    def _stated(self) -> Floats:
        return np.stack(_to_earth().transform(self.lon, self.lat, self.height_m), axis=-1)

    @cached_property
    def error_m(self) -> float:
        """How far the farthest of the stated points is from where the same way of computing puts it, in metres."""
        computed = self.places(self.lines, self.pixels, self.height_m)
        return float(np.linalg.norm(computed - self._stated, axis=-1).max())


def _to_earth() -> Any:
    from pyproj import Transformer

    return Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)


def _seconds(moments: NDArray[Any], since: np.datetime64) -> Floats:
    return np.asarray((moments - since) / np.timedelta64(1, "ns"), float) / 1e9


def _meet(satellite: Floats, flight: Floats, range_m: Floats, start: Floats, height_m: Floats) -> Floats:
    """Where a sphere around the satellite, the plane square to its flight and the ellipsoid meet, near a start."""
    ahead = flight / np.linalg.norm(flight, axis=-1, keepdims=True)
    axes = WGS84_M + height_m[..., None]
    point = start
    for _ in range(STEPS):
        away = point - satellite
        distance = np.linalg.norm(away, axis=-1)
        surface = WGS84_M[0] / 2 * ((point**2 / axes**2).sum(-1) - 1)
        wrong = np.stack([(away * ahead).sum(-1), distance - range_m, surface], axis=-1)
        slopes = np.stack([ahead, away / distance[..., None], WGS84_M[0] * point / axes**2], axis=-2)
        step = np.linalg.solve(slopes, wrong[..., None])[..., 0]
        point = point - step
        if float(np.abs(step).max()) < CLOSE_M:
            return np.asarray(point)
    raise ReadError("The orbit and the geolocation grid of the product do not fit together. Download it again.")


@dataclass(frozen=True, eq=False)
class Places:
    """The way from the pixels of a product to a map and back."""

    grid: Geolocation
    crs: str
    """The map: a metric one, such as EPSG:3413."""
    shape: tuple[int, int]
    """Lines and pixels of the image."""
    height_m: float = 0.0
    """Of the sea above the ellipsoid: up to 100 m, and it moves pixels by its height over the tangent of the angle."""

    @cached_property
    def nodes(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Lines and pixels of a close lattice, and where it lies on the map, at sea level."""
        from pyproj import Transformer

        line, pixel = (_spaced(size, step) for size, step in zip(self.shape, (LINE_STEP, PIXEL_STEP), strict=True))
        earth = np.moveaxis(self.grid.places(line, pixel, self.height_m), -1, 0)
        x, y = Transformer.from_crs("EPSG:4978", self._map, always_xy=True).transform(*earth)[:2]
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ReadError(f"The scene has no place on the map {self.crs}: choose another with s1_crs=.")
        return line, pixel, np.asarray(x), np.asarray(y)

    @property
    def _map(self) -> Any:
        """The map with a height of its own, so that coming from three dimensions shifts no datum."""
        from pyproj import CRS

        return CRS.from_user_input(self.crs).to_3d()

    @cached_property
    def _splines(self) -> tuple[Any, Any]:
        line, pixel, x, y = self.nodes
        return _fit(line, pixel, x), _fit(line, pixel, y)

    def forward(self, line: Floats, pixel: Floats) -> tuple[Floats, Floats, tuple[Floats, Floats, Floats, Floats]]:
        """Map coordinates of image positions, and how they change by line and by pixel.

        Beyond the image it goes on straight, so that what lies just outside has a place too.
        """
        lines, pixels = self.nodes[:2]
        inside_line, inside_pixel = np.clip(line, lines[0], lines[-1]), np.clip(pixel, pixels[0], pixels[-1])
        out, slopes = [], []
        for spline in self._splines:
            by_line = spline.ev(inside_line, inside_pixel, dx=1)
            by_pixel = spline.ev(inside_line, inside_pixel, dy=1)
            value = spline.ev(inside_line, inside_pixel)
            out.append(value + by_line * (line - inside_line) + by_pixel * (pixel - inside_pixel))
            slopes += [by_line, by_pixel]
        return out[0], out[1], (slopes[0], slopes[1], slopes[2], slopes[3])

    def backward(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Image positions (line and pixel, fractions included) of map coordinates."""
        known_line, known_pixel, known_x, known_y = self.nodes
        lines, pixels = (side.ravel() for side in np.meshgrid(known_line, known_pixel, indexing="ij"))
        middle, reach = (known_x.mean(), known_y.mean()), max(np.ptp(known_x), np.ptp(known_y))
        terms = _bent((known_x.ravel() - middle[0]) / reach, (known_y.ravel() - middle[1]) / reach)
        # A bent plane is right to some tens of pixels: a start from which Newton's method arrives in a few steps.
        start, *_ = np.linalg.lstsq(terms, np.column_stack([lines, pixels]), rcond=None)
        line, pixel = (_bent((x - middle[0]) / reach, (y - middle[1]) / reach) @ start).T
        for _ in range(STEPS):
            got_x, got_y, (xl, xp, yl, yp) = self.forward(line, pixel)
            scale = xl * yp - xp * yl
            by_line = ((got_x - x) * yp - (got_y - y) * xp) / scale
            by_pixel = ((got_y - y) * xl - (got_x - x) * yl) / scale
            line, pixel = line - by_line, pixel - by_pixel
            if float(max(np.abs(by_line).max(initial=0), np.abs(by_pixel).max(initial=0))) < CLOSE_PX:
                break
        return line, pixel

    def angle(self, line: Floats, pixel: Floats) -> Floats:
        """The incidence angle in degrees at image positions; beyond the image that of its edge."""
        lines, pixels = self.grid.lines, self.grid.pixels
        values = _fit(lines, pixels, self.grid.angle_deg).ev(
            np.clip(line, lines[0], lines[-1]), np.clip(pixel, pixels[0], pixels[-1])
        )
        return np.asarray(values, float)


def _spaced(size: int, step: int) -> Floats:
    """Positions from the first to the last of so many, about so far apart."""
    return np.linspace(0, size - 1, max(4, -(-(size - 1) // step) + 1))


def _bent(x: Floats, y: Floats) -> Floats:
    return np.column_stack([np.ones_like(x), x, y, x * x, x * y, y * y])


def _fit(lines: Floats, pixels: Floats, values: Floats) -> Any:
    from scipy.interpolate import RectBivariateSpline

    return RectBivariateSpline(lines, pixels, values, kx=3, ky=3, s=0)


def map_for(lon: float, lat: float) -> str:
    """The map for a scene around a place: polar stereographic where ice is mapped, else its UTM zone.

    >>> map_for(18, 78), map_for(0, -70), map_for(11, 54)
    ('EPSG:3413', 'EPSG:3031', 'EPSG:32632')
    """
    if lat >= 66:
        return "EPSG:3413"
    if lat <= -60:
        return "EPSG:3031"
    zone = int((lon + 180) // 6) % 60 + 1
    return f"EPSG:{32600 + zone if lat >= 0 else 32700 + zone}"
