"""Where to take samples: points spread evenly over the land, by class or apart from each other; lattices of windows.

`regions` and `countries` say where, `cells` draws points, `thinning` keeps them apart, `strata` and `classmaps` draw
them by class, `dates` gives them dates, `lattice` lays windows side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import geopandas as gpd
import numpy as np
import shapely

from deepsentinel.errors import InputError

from .cells import Cells, check_count, check_seed
from .dates import spread_dates
from .lattice import cover
from .regions import region_of
from .strata import Shares, Strata, allotted, strata_of
from .thinning import Fullness, Spaced, check_distance

__all__ = ["cover", "sample_land", "spread_dates"]


def sample_land(
    n: int,
    region: Any = None,
    seed: int = 0,
    *,
    min_distance_m: float = 0,
    strata: Any = None,
    shares: Shares | Mapping[Any, float] = "proportional",
    exclude_antarctica: bool = True,
) -> gpd.GeoDataFrame:
    """Points spread evenly over the ground: every square kilometre is as likely as any other, at all latitudes.

    Parameters
    ----------
    n
        How many.
    region
        None: all land, from an outline that needs no network (coasts right to about ten kilometres). ISO codes of
        countries, groups and sums of them: "PT", "DEU", "EU27+GB", "EEA39" (CORINE's countries); their outlines come
        from Natural Earth, fetched once. Or any area that `deepsentinel.aoi.area` takes, a table of polygons (such as
        labels: points only where labels are), or a list of these. Such polygons are taken as they are, sea and all.
    seed
        The same seed gives the same points; the first 100 of 1000 are those of `n=100` (not with `strata`).
    min_distance_m
        No two points are closer than this many metres on the ground.
    strata
        Points by class: a table of labels (by `ground_truth`, or else `class_name`), masks with a `class_map`, a
        DataArray of classes with its georeference, or the path of a raster of classes. The table then has a column
        `class`, and `class_name` where names are known. Class 0 of a map is its background. Without a `region` points
        lie wherever the map does.
    shares
        Of the classes: "proportional" to their true areas, "balanced", or a dict of class to share (the rest get none).
    exclude_antarctica
        For `region=None` only.

    Returns
    -------
    GeoDataFrame
        Points in longitude and latitude (EPSG:4326). `attrs` tell the region and the seed.

    Raises `InputError` where no `n` points fit that far apart; it says how many do.

        >>> points = sample_land(1000, seed=1)
        >>> len(points), points.crs.to_epsg()
        (1000, 4326)
        >>> apart = sample_land(50, (2, 48, 3, 49), min_distance_m=5000)
        >>> float(apart.to_crs("EPSG:32631").union_all().convex_hull.area) > 0
        True
    """
    n, seed, distance_m = check_count(n), check_seed(seed), check_distance(min_distance_m)
    if strata is None:
        if not (isinstance(shares, str) and shares == "proportional"):
            raise InputError("shares= divides points among the classes of strata=; give strata=, or leave it out.")
        where = region_of(region, exclude_antarctica=exclude_antarctica)
        lon, lat = _points(Cells.of(where), n, seed, distance_m, where.name)
        columns: dict[str, Any] = {}
        name = where.name
    else:
        ground = None if region is None else region_of(region, exclude_antarctica=exclude_antarctica)
        classes = strata_of(strata, ground)
        lon, lat, which = _by_class(classes, allotted(classes, n, shares), seed, distance_m)
        values = np.array(classes.classes, dtype=object)[which]
        text = isinstance(classes.classes[0], str)
        columns = {"class": values.astype(object if text else "int64")}
        if classes.legend is not None:
            columns["class_name"] = np.array(classes.names, dtype=object)[which]
        name = "the map of the classes" if ground is None else ground.name
    points = gpd.GeoDataFrame(columns, geometry=shapely.points(lon, lat), crs="EPSG:4326")
    points.attrs = {"region": name, "seed": seed, "min_distance_m": distance_m}
    if strata is not None and classes.legend is not None:
        points.attrs["legend"] = classes.legend.to_json()
    return points


def _points(cells: Cells, n: int, seed: int, distance_m: float, name: str) -> tuple[np.ndarray, np.ndarray]:
    lons, lats, count = [np.empty(0)], [np.empty(0)], 0
    spaced, fullness = Spaced(distance_m) if distance_m else None, Fullness()
    stream = cells.candidates((seed,))
    while count < n:
        lon, lat = next(stream)
        if spaced is None:
            lon, lat = lon[: n - count], lat[: n - count]
        else:
            tried = len(lon)
            taken = spaced.add(lon, lat, n - count)
            lon, lat = lon[taken], lat[taken]
            if fullness.full_after(tried, len(lon)) and count + len(lon) < n:
                raise _crowded(count + len(lon), n, distance_m, name)
        lons.append(lon)
        lats.append(lat)
        count += len(lon)
    return np.concatenate(lons), np.concatenate(lats)


def _by_class(
    classes: Strata, counts: np.ndarray, seed: int, distance_m: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    left = counts.copy()
    spaced = Spaced(distance_m) if distance_m else None
    fullness = [Fullness() for _ in counts]
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0), np.empty(0, dtype="int64"))]
    # Small classes first: they have nowhere else to go.
    order = np.argsort(classes.areas_m2, kind="stable")
    number = 0
    while left.any():
        more = left if spaced is None else np.where(left > 0, np.maximum(4 * left, 1000), 0)
        lon, lat, which = classes.draw(more, (seed, number))
        for k in order:
            rows = np.flatnonzero(which == k)
            tried = len(rows)
            if spaced is not None:
                rows = rows[spaced.add(lon[rows], lat[rows], int(left[k]))]
            found.append((lon[rows], lat[rows], which[rows]))
            left[k] -= len(rows)
            if spaced is not None and left[k] and fullness[k].full_after(tried, len(rows)):
                raise _crowded(int(counts[k] - left[k]), int(counts[k]), distance_m, f"class {classes.names[k]}")
        number += 1
    lon, lat, which = (np.concatenate(column) for column in zip(*found, strict=True))
    mixed = np.random.default_rng([seed, 3]).permutation(len(which))
    return lon[mixed], lat[mixed], which[mixed]


def _crowded(fit: int, n: int, distance_m: float, name: str) -> InputError:
    # The number that fits goes with the square of the distance. A few had more room than that, as space beyond the
    # border is free; so a little less, and less still where they are few.
    nearer_m = (0.95 - 0.8 / max(fit, 4) ** 0.5) * distance_m * (fit / n) ** 0.5
    return InputError(
        f"Only {fit:,} of {n:,} points fit into {name} at least {distance_m:,g} m apart. Ask for {fit:,}, for"
        f" min_distance_m={float(f'{nearer_m:.2g}'):g}, or for a larger region."
    )
