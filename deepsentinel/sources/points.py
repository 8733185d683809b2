"""One pixel through the year: `read_point` reads it, and as little else as can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.aoi import square, utm_crs
from deepsentinel.bands import DTYPES, S1_BANDS, S2_BANDS, SCL_CLOUDY, sensor_of
from deepsentinel.errors import InputError, NothingFoundError, StoppedError, warn
from deepsentinel.grids import crs_of, grid_of, transformer, variable
from deepsentinel.progress import progress

from .assemble import SAME_PASS, TIME, band_attrs
from .base import When

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr
    from odc.geo.geobox import GeoBox

    from .base import Source

RESOLUTION_M = 10.0
LEVEL_OF = {"S1": "backscatter", "S2": "level"}
Scene = dict[str, Any]


def read_point(
    src: Source,
    at: tuple[float, float],
    start: When = None,
    end: When = None,
    *,
    max_cloud: float | None = 60,
    max_dates: int | None = 24,
    sensors: Sequence[str] = ("S1", "S2"),
    radar_px: int = 3,
    like: Any = None,
    on_read: Callable[[xr.Dataset], object] | None = None,
    stop: Callable[[], bool] | None = None,
) -> xr.Dataset:
    """What the Sentinels measured at one place between two dates: reflectance by band, and backscatter by orbit.

    Parameters
    ----------
    at
        Longitude and latitude in degrees.
    max_cloud
        Scenes that are cloudier altogether, in percent, are not read; those whose cloud cover nobody states neither.
    max_dates
        At most so many dates of each sensor, spread evenly; of Sentinel-1 equally many of each of its orbits, which
        see the ground from other sides and cannot be compared. None: all there are.
    radar_px
        Backscatter is the mean power over so many by so many pixels: one alone is mostly speckle. 1 for the pixel.
    like
        The patch, or grid, whose pixel it is. None: 10 m pixels of the UTM zone.
    on_read
        Is called with what there is so far, after each date; dates come in an order that shows the whole year soon.
    stop
        A function that says whether to stop; what was read until then is returned; `StoppedError` if that is nothing.

    Returns
    -------
    Dataset
        Bands over `s2_time` and `s1_time`, in the units of a patch, `ds.show` draws it. `clear` is false where SCL
        calls the pixel cloud or shadow. Dates on which the pixel was not measured are not in it. Of a pass that lies
        in several tiles one alone is read, and another only where that has no data.

        >>> import deepsentinel as ds
        >>> src = ds.open_source("demo", size_px=256)
        >>> lon, lat = src.area.geometry.centroid.coords[0]
        >>> point = read_point(src, (lon, lat), "2018-06-01", "2018-07-31", max_dates=2)
        >>> point["VV"].dims, point["VV"].sizes["s1_time"], point["B08"].sizes["s2_time"]
        (('s1_time',), 2, 2)
    """
    lon, lat = _checked(at, max_dates, radar_px)
    box, radar_box, pixel = _pixel(lon, lat, like, radar_px)
    found = src.search(square(lon, lat, 2 * RESOLUTION_M), start, end, sensors=sensors, max_cloud=max_cloud)
    passes = _passes(found, lon, lat, str(crs_of(box).to_epsg()))
    chosen = _in_turns(_spread(passes, max_dates))
    if not chosen:
        raise NothingFoundError(
            f"{len(found)} scenes lie near {_words(lon, lat)}, and none of them on it. Choose a point further inside."
        )
    grids = {"S2": box, "S1": radar_box}
    read: list[tuple[Scene, xr.Dataset]] = []
    problems: list[Exception] = []

    def so_far() -> xr.Dataset:
        return _assembled(read, box, (lon, lat), pixel, radar_px, getattr(src, "name", ""))

    left = chosen
    while left and not (stop is not None and stop()):
        rows, others = [each[0] for each in left], []
        table = _table(found, rows)
        stream: Iterator[Any] = iter(src.read_many(table, [grids[row["sensor"]] for row in rows]))
        if on_read is None:
            stream = progress(stream, total=len(rows), what="reading", unit="date")
        for candidates, patch in zip(left, stream, strict=False):
            if not patch and hasattr(patch, "error"):
                problems.append(patch.error)
            elif _is_measured(patch):
                read.append((candidates[0], patch))
                if on_read is not None:
                    on_read(so_far())
            if candidates[1:] and not (read and read[-1][0] is candidates[0]):
                others.append(candidates[1:])
            if stop is not None and stop():
                others = []
                break
        left = others
    if not read:
        if stop is not None and stop():
            raise StoppedError(f"Reading was stopped before there was data at {_words(lon, lat)}.")
        if problems:
            raise problems[0]
        raise NothingFoundError(
            f"None of {len(chosen)} dates has data at {_words(lon, lat)}. Choose a point further from the edge, wider "
            "dates or a higher max_cloud."
        )
    for problem in problems:
        warn(f"A scene was left out of the point: {problem}")
    return so_far()


def _checked(at: Any, max_dates: int | None, radar_px: int) -> tuple[float, float]:
    try:
        lon, lat = (float(each) for each in at)
    except (TypeError, ValueError):
        raise InputError(f"at={at!r} is no place: give longitude and latitude, such as (2.35, 48.85).") from None
    utm_crs(lon, lat)  # refuses what is no place on Earth
    if max_dates is not None and (isinstance(max_dates, bool) or not isinstance(max_dates, int) or max_dates < 1):
        raise InputError(f"max_dates={max_dates!r}: give a number of dates from 1 up, or None for all.")
    if isinstance(radar_px, bool) or not isinstance(radar_px, int) or radar_px < 1 or radar_px % 2 == 0:
        raise InputError(f"radar_px={radar_px!r}: the pixel lies in the middle of 1, 3, 5 ... pixels.")
    return lon, lat


def _pixel(lon: float, lat: float, like: Any, radar_px: int) -> tuple[GeoBox, GeoBox, tuple[float, float]]:
    """The grid of the one pixel that holds a place, that of the pixels around it, and its middle."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    grid = None if like is None else grid_of(like)
    lattice = Affine(RESOLUTION_M, 0, 0, 0, -RESOLUTION_M, 0) if grid is None else grid.affine
    crs = utm_crs(lon, lat) if grid is None else crs_of(grid)
    x, y = transformer("EPSG:4326", crs).transform(lon, lat)
    column, row = math.floor((x - lattice.c) / lattice.a), math.floor((y - lattice.f) / lattice.e)
    if grid is not None and not (0 <= row < grid.shape.y and 0 <= column < grid.shape.x):
        raise InputError(f"{_words(lon, lat)} lies outside of the grid in like=. Choose a point on it.")
    name = crs if isinstance(crs, str) else str(grid.crs)  # type: ignore[union-attr]
    left, top = lattice.c + lattice.a * column, lattice.f + lattice.e * row
    middle = left + lattice.a / 2, top + lattice.e / 2

    def around(reach_px: int) -> GeoBox:
        corner = left - lattice.a * reach_px, top - lattice.e * reach_px
        side = 2 * reach_px + 1
        return GeoBox((side, side), Affine(lattice.a, 0, corner[0], 0, lattice.e, corner[1]), name)

    return around(0), around(radar_px // 2), middle


def _passes(found: gpd.GeoDataFrame, lon: float, lat: float, epsg: str) -> list[list[Scene]]:
    """For each pass its scenes over a place, the best one to read first."""
    import shapely

    here = shapely.Point(lon, lat)
    rows = [row for row in found.sort_values(["time", "id"]).to_dict("records") if row["geometry"].intersects(here)]
    groups: list[list[Scene]] = []
    for row in rows:
        # Ascending and descending passes over a place, and two satellites, are never minutes apart.
        for group in groups[-2:]:
            first = group[0]
            same = (row["sensor"], row["platform"]) == (first["sensor"], first["platform"])
            if same and row["time"] - first["time"] <= SAME_PASS:
                group.append(row)
                break
        else:
            groups.append([row])

    def preference(row: Scene) -> tuple[bool, str, float]:
        # Of the grid's own zone, that nothing is resampled; then the latest processing; then far from the edge.
        newest = "".join(chr(0x10FFFF - ord(letter)) for letter in row["baseline"] or "")
        return not str(row["crs"]).endswith(epsg), newest, -row["geometry"].boundary.distance(here)

    return [sorted(group, key=preference) for group in groups]


def _spread(passes: Sequence[list[Scene]], most: int | None) -> list[list[list[Scene]]]:
    """The passes of each sensor and orbit, no more than wanted of each sensor, evenly spread over the year."""
    kinds: dict[tuple[str, str], list[list[Scene]]] = {}
    for group in passes:
        orbit = f"{group[0]['orbit']} {group[0]['relative_orbit']}" if group[0]["sensor"] == "S1" else ""
        kinds.setdefault((group[0]["sensor"], orbit), []).append(group)
    spread = []
    for sensor in ("S2", "S1"):
        mine = sorted((held for (of, _), held in kinds.items() if of == sensor), key=len, reverse=True)
        room = math.inf if most is None else most
        for number, held in enumerate(mine):
            share = min(len(held), math.ceil(room / (len(mine) - number))) if room < math.inf else len(held)
            room -= share
            places = np.linspace(0, len(held) - 1, share).round().astype(int).tolist()
            spread.append([held[place] for place in dict.fromkeys(places)])
    return spread


def _in_turns(kinds: Sequence[Sequence[list[Scene]]]) -> list[list[Scene]]:
    """All passes, first one of each kind in the middle of the year, then between those, and so on.

    >>> _in_turns([[["a"], ["b"], ["c"], ["d"]], [["x"]]])
    [['c'], ['x'], ['b'], ['d'], ['a']]
    """
    ordered = [[held[place] for place in _halving(len(held))] for held in kinds]
    return [held[turn] for turn in range(max(map(len, ordered), default=0)) for held in ordered if turn < len(held)]


def _halving(count: int) -> list[int]:
    """The numbers below `count`: the middle first, then the middles of what is left.

    >>> _halving(7)
    [3, 1, 5, 0, 2, 4, 6]
    """
    order, spans = [], [(0, count)]
    while spans:
        low, high = spans.pop(0)
        if low < high:
            order.append(middle := (low + high) // 2)
            spans += [(low, middle), (middle + 1, high)]
    return order


def _table(found: gpd.GeoDataFrame, rows: Sequence[Scene]) -> gpd.GeoDataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(found.columns))


def _is_measured(patch: xr.Dataset) -> bool:
    return any(_known(name, patch[name].to_numpy()).any() for name in patch.data_vars if name in (*S1_BANDS, *S2_BANDS))


def _known(name: Any, values: np.ndarray) -> np.ndarray:
    return np.isfinite(values) if DTYPES[name] == "float32" else values != 0


def _value(name: str, values: np.ndarray) -> Any:
    """The pixel in the middle; of radar the mean of what was measured around it, as power."""
    if sensor_of(name) == "S2":
        return values[0, 0]
    known = values[np.isfinite(values)].astype("float64")
    if not known.size:
        return np.nan
    return known.mean() if name == "angle" else 10 * np.log10((10 ** (known / 10)).mean())


def _assembled(
    read: Sequence[tuple[Scene, xr.Dataset]],
    box: GeoBox,
    at: tuple[float, float],
    pixel: tuple[float, float],
    radar_px: int,
    source: str,
) -> xr.Dataset:
    import xarray as xr

    from deepsentinel.grids import grid_coords

    variables: dict[str, Any] = {}
    coords = {
        "spatial_ref": grid_coords(box)["spatial_ref"],
        **{
            name: variable((), np.asarray(value))
            for name, value in zip(("lon", "lat", "x", "y"), (*at, *pixel), strict=True)
        },
    }
    said: dict[str, Any] = {"source": source}
    for sensor in ("S2", "S1"):
        mine = sorted(
            ((row, patch) for row, patch in read if row["sensor"] == sensor), key=lambda each: each[0]["time"]
        )
        if not mine:
            continue
        key, short, time = LEVEL_OF[sensor], sensor.lower(), TIME[sensor]
        kinds = sorted({str(patch.attrs.get(key)) for _, patch in mine})
        if len(kinds) > 1:
            raise InputError(
                f"The scenes mix {key} {' and '.join(kinds)}: values of one cannot be compared with the other's. Open "
                "the source with collections= of one kind."
            )
        said |= {**{name: value for name, value in mine[0][1].attrs.items() if name == "seed"}, key: kinds[0]}
        names = dict.fromkeys(str(name) for _, patch in mine for name in patch.data_vars)
        for name in names:
            fill = np.nan if DTYPES[name] == "float32" else 0
            values = [_value(name, patch[name].to_numpy()) if name in patch else fill for _, patch in mine]
            variables[name] = variable((time,), np.array(values, DTYPES[name]), band_attrs(name))
        if "SCL" in names:
            codes = variables["SCL"].to_numpy()
            clear = ~np.isin(codes, (0, *SCL_CLOUDY))
            variables["clear"] = variable((time,), clear, {"long_name": "neither cloud nor shadow, by SCL"})
        coords[time] = variable((time,), np.array([patch[time].to_numpy() for _, patch in mine], "datetime64[ns]"))
        coords[f"{short}_id"] = variable((time,), np.array([row["id"] for row, _ in mine], "object"))
        if sensor == "S1":
            said["radar_px"] = radar_px
            ways = [" ".join(str(each) for each in _orbit(row)) for row, _ in mine]
            coords["orbit"] = variable((time,), np.array(ways, "object"))
    return xr.Dataset(variables, coords, said)


def _orbit(row: Scene) -> list[Any]:
    """What is known of it: its direction, and its number."""
    number = row["relative_orbit"]
    known = number is not None and number == number and str(number) != "<NA>"
    return [*([row["orbit"]] if row["orbit"] else []), *([int(number)] if known else [])]


def _words(lon: float, lat: float) -> str:
    return f"lon {lon:.4f}, lat {lat:.4f}"
