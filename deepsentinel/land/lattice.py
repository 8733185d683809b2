"""A regular lattice of windows over a region, in the UTM zones it lies in."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from odc.geo.geobox import GeoBox

from deepsentinel import lonlat
from deepsentinel.aoi import utm_crs
from deepsentinel.errors import InputError
from deepsentinel.grids import crs_of, transformer

from .regions import region_of

# Windows may touch a region by this share of a pixel without being of it: coordinates are rounded.
SLACK_PX = 0.01
# A region whose every meridian is this near to that of its middle is laid out in one zone, where UTM is right within
# a third of a percent.
ONE_ZONE_DEG = 4.5
MAX_WINDOWS = 5_000_000
# Edges longer than this bend in another projection.
STEP_DEG = 0.01
# Rows of the lattice are looked at in strips of about so many windows, which bounds the memory.
STRIP = 200_000

COLUMNS = ("crs", "x0", "y0", "size_px", "resolution", "lon", "lat", "geometry")


def cover(
    region: Any,
    size_px: int = 256,
    stride: int | None = None,
    resolution: float = 10,
    *,
    snap_m: float | None = None,
) -> gpd.GeoDataFrame:
    """Square windows at equal steps, all that share ground with a region; nothing of it is left out.

    The steps are counted from the origin of the projection: windows of two regions, or of two runs, therefore coincide
    where they meet. A region lies in one UTM zone if it fits there, otherwise in several, and along the border of two
    zones the windows of both overlap; beyond 84 N and 80 S the grids of the poles (UPS) take over.

    Parameters
    ----------
    region
        As in `sample_land`: country codes, an area, a table of polygons (windows where labels are), a GeoBox (whose
        projection is kept), None for all land but Antarctica.
    size_px
        The side of a window in pixels.
    stride
        The step from one to the next in pixels; None: `size_px`, side by side. Half of it makes them overlap by half.
    resolution
        The side of a pixel in metres.
    snap_m
        Windows begin at multiples of so many metres; 60 for `native=True`. The step is shortened to such a multiple
        where it is none, so that neighbours overlap a little: of 256 pixels of 10 m by 40 m.

    Returns
    -------
    GeoDataFrame
        One row a window, from north to south and west to east in each zone: `crs`, `x0, y0` (its upper left corner),
        `size_px`, `resolution`, `lon, lat` (its centre) and its outline in EPSG:4326, cut where it crosses 180 degrees.

    Example
    -------
        >>> windows = cover((2.0, 48.0, 2.2, 48.1), size_px=256)
        >>> len(windows), windows.crs.to_epsg(), windows["crs"].unique().tolist()
        (42, 4326, ['EPSG:32631'])
    """
    for name, value in (("size_px", size_px), ("stride", size_px if stride is None else stride)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise InputError(f"{name}={value!r} is not a number of pixels; give 1 or more, such as {name}=256.")
    for name, metres in (("resolution", resolution), ("snap_m", 60 if snap_m is None else snap_m)):
        number = isinstance(metres, int | float | np.number) and not isinstance(metres, bool)
        if not (number and np.isfinite(metres) and metres > 0):
            raise InputError(f"{name}={metres!r} is not a size in metres; give a number above 0, such as {name}=10.")
    size_m, step_m = size_px * resolution, (size_px if stride is None else stride) * resolution
    up_m = 0.0
    if snap_m is not None:
        # Shortened and never lengthened, or ground would be left out; a hair more, as 2.5 m do not add up exactly.
        steps = int(step_m / snap_m + 1e-9)
        if not steps:
            raise InputError(
                f"snap_m={snap_m:g} is more than the {step_m:g} m from one window to the next: no lattice."
            )
        step_m = steps * snap_m
        up_m = -size_m % snap_m  # it is the upper left corner that snaps
    zones = _zones(region)
    _check_number(zones, step_m)
    found = [(crs, _windows(_dense(shape), crs, size_m, step_m, SLACK_PX * resolution, up_m)) for crs, shape in zones]
    found = [(crs, corners) for crs, corners in found if len(corners)]
    names = np.repeat([crs for crs, _ in found], [len(corners) for _, corners in found])
    corners = np.concatenate([np.empty((0, 2)), *(corners for _, corners in found)])
    outlines = [_outlines(corners, crs, size_m) for crs, corners in found]
    table = gpd.GeoDataFrame(
        {
            "crs": names.astype(object),
            "x0": corners[:, 0],
            "y0": corners[:, 1],
            "size_px": int(size_px),
            "resolution": float(resolution),
            "lon": np.concatenate([np.empty(0), *(centre[:, 0] for _, centre in outlines)]),
            "lat": np.concatenate([np.empty(0), *(centre[:, 1] for _, centre in outlines)]),
        },
        geometry=np.concatenate([np.empty(0, dtype=object), *(shapes for shapes, _ in outlines)]),
        crs="EPSG:4326",
    )
    return table[list(COLUMNS)]


def _zones(region: Any) -> list[tuple[str, shapely.Geometry]]:
    """The projections to use, and what of the region (in degrees) each is for."""
    if isinstance(region, GeoBox) and region.crs is not None and region.crs.projected:
        crs = crs_of(region)
        code = crs.to_epsg()
        return [(f"EPSG:{code}" if code else crs.to_wkt(), region_of(region).geometry())]
    ground = region_of(region)
    whole = ground.geometry()
    shape = lonlat.unsplit(whole)
    west, south, east, north = shape.bounds
    middle = shape.centroid
    central = 6 * np.floor(middle.x / 6) + 3
    if south >= -80 and north <= 84 and max(east - central, central - west) <= ONE_ZONE_DEG:
        return [(utm_crs(middle.x, middle.y), shape)]
    zones = []
    parts = shapely.get_parts(whole)
    bands = [(shapely.box(-180, 84, 180, 90), 0.0, 87.0), (shapely.box(-180, -90, 180, -80), 0.0, -85.0)]
    for left in range(-180, 180, 6):
        bands += [(shapely.box(left, 0, left + 6, 84), left + 3.0, 40.0)]
        bands += [(shapely.box(left, -80, left + 6, 0), left + 3.0, -40.0)]
    tree = shapely.STRtree(parts)
    for band, lon, lat in bands:
        pieces = shapely.intersection(parts[np.sort(tree.query(band, predicate="intersects"))], band)
        pieces = pieces[shapely.area(pieces) > 0] if len(pieces) else pieces
        if len(pieces):
            zones.append((utm_crs(lon, lat), shapely.union_all(pieces)))
    return zones


def _check_number(zones: list[tuple[str, shapely.Geometry]], step_m: float) -> None:
    from deepsentinel.footprints import spherical_area

    ground_m2 = float(spherical_area(np.array([shape for _, shape in zones])).sum()) * 6_371_007.2**2
    expected = ground_m2 / step_m**2
    if expected > MAX_WINDOWS:
        wider = np.sqrt(ground_m2 / MAX_WINDOWS)
        raise InputError(
            f"The region would take about {expected:,.0f} windows, and a table holds {MAX_WINDOWS:,}. Give a smaller"
            f" region, or a stride of at least {wider / 1000:,.1f} km; for samples of it there is sample_land."
        )


def _dense(shape: shapely.Geometry) -> shapely.Geometry:
    west, south, east, north = shape.bounds
    return shapely.segmentize(shape, max(STEP_DEG, (east - west + north - south) / 4000))


def _windows(
    shape: shapely.Geometry, crs: str, size_m: float, step_m: float, slack_m: float, up_m: float
) -> np.ndarray:
    """The upper left corners of the windows that share ground with a shape in degrees.

    Lower edges lie `up_m` above the multiples of the step.
    """
    xy = shapely.get_coordinates(shape)
    flat = shapely.set_coordinates(shape, np.column_stack(transformer("EPSG:4326", crs).transform(*xy.T)))
    flat = flat if flat.is_valid else shapely.make_valid(flat)
    shapely.prepare(flat)
    left, bottom, right, top = flat.bounds
    # Windows that reach into the box around the shape, counted from the origin of the projection.
    first_x, first_y = (int(np.floor((low + slack_m - size_m) / step_m)) + 1 for low in (left, bottom - up_m))
    last_x, last_y = (int(np.ceil((high - slack_m) / step_m)) - 1 for high in (right, top - up_m))
    columns = np.arange(first_x, last_x + 1)
    rows = np.arange(last_y, first_y - 1, -1)
    kept = []
    deep = max(STRIP // max(len(columns), 1), 1)
    for start in range(0, len(rows), deep):
        y, x = (axis.ravel() for axis in np.meshgrid(rows[start : start + deep], columns, indexing="ij"))
        x0, y0 = x * step_m, y * step_m + up_m
        # A little smaller than they are, so that those which only touch the shape are not taken for part of it.
        inner = shapely.box(x0 + slack_m, y0 + slack_m, x0 + size_m - slack_m, y0 + size_m - slack_m)
        hit = shapely.intersects(flat, inner)
        kept.append(np.stack([x0[hit], y0[hit] + size_m], axis=1))
    return np.concatenate([np.empty((0, 2)), *kept])


def _outlines(corners: np.ndarray, crs: str, size_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Windows in degrees, and their centres."""
    steps = np.array([[0, 0], [0, -1], [1, -1], [1, 0], [0, 0], [0.5, -0.5]]) * size_m
    points = corners[:, None] + steps
    back = transformer(crs, "EPSG:4326")
    lon, lat = back.transform(points[..., 0].ravel(), points[..., 1].ravel())
    degrees = np.stack([lon, lat], axis=-1).reshape(points.shape)
    rings, centre = degrees[:, :5], degrees[:, 5]
    shapes = shapely.polygons(rings)
    for row in np.flatnonzero(np.ptp(rings[..., 0], axis=1) > 180):
        shapes[row] = lonlat.onto_globe(shapes[row], lonlat.Changes(), guess=False)
    return shapes, centre
