"""Points on land: evenly by area, the same again, apart from each other, and only where they were asked for."""

from __future__ import annotations

import time

import geopandas as gpd
import numpy as np
import pytest
import shapely
from pyproj import Geod
from scipy.stats import chisquare, kstest

from deepsentinel.errors import AreaError, DeepSentinelWarning, InputError
from deepsentinel.footprints import spherical_area
from deepsentinel.land import sample_land, spread_dates
from deepsentinel.land.regions import land, region_of

GEOD = Geod(ellps="WGS84")
FIJI = (179.0, -18.0, -179.0, -16.0)


def xy(points: gpd.GeoDataFrame) -> np.ndarray:
    return shapely.get_coordinates(points.geometry.to_numpy())


def cells_of_equal_area(geometry: shapely.Geometry, across: int, up: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of one size on the sphere, and the ground of the geometry in each."""
    lon = np.linspace(-180, 180, across + 1)
    lat = np.degrees(np.arcsin(np.linspace(-1, 1, up + 1)))
    boxes = np.array([shapely.box(lon[i], lat[j], lon[i + 1], lat[j + 1]) for j in range(up) for i in range(across)])
    return boxes, spherical_area(shapely.intersection(boxes, geometry))


def counted_in(points: np.ndarray, across: int, up: int) -> np.ndarray:
    column = np.minimum(((points[:, 0] + 180) / 360 * across).astype(int), across - 1)
    row = np.minimum(((np.sin(np.radians(points[:, 1])) + 1) / 2 * up).astype(int), up - 1)
    return np.bincount(row * across + column, minlength=across * up)


@pytest.mark.parametrize("exclude", [True, False])
def test_points_on_all_land_are_even_by_area(exclude):
    points = xy(sample_land(300_000, seed=7, exclude_antarctica=exclude))
    _, ground = cells_of_equal_area(land(exclude_antarctica=exclude).geometry(), 36, 24)
    counts = counted_in(points, 36, 24)
    expected = ground / ground.sum() * len(points)
    assert counts[expected == 0].sum() == 0
    large = expected >= 5
    assert large.sum() > 300
    assert chisquare(counts[large], expected[large] * counts[large].sum() / expected[large].sum()).pvalue > 1e-3


def test_the_test_of_evenness_finds_points_that_are_even_by_degrees():
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 180, 600_000), rng.uniform(-60, 84, 600_000)
    on_land = shapely.contains_xy(land().geometry(), lon, lat)
    points = np.stack([lon[on_land], lat[on_land]], axis=1)
    _, ground = cells_of_equal_area(land().geometry(), 36, 24)
    counts, expected = counted_in(points, 36, 24), ground / ground.sum() * len(points)
    large = expected >= 5
    assert chisquare(counts[large], expected[large] * counts[large].sum() / expected[large].sum()).pvalue < 1e-30


def test_within_one_polygon_longitude_and_the_sine_of_latitude_are_even():
    points = xy(sample_land(20_000, (-30, 20, 50, 89), seed=3))
    low, high = np.sin(np.radians([20, 89]))
    assert kstest((points[:, 0] + 30) / 80, "uniform").pvalue > 1e-3
    assert kstest((np.sin(np.radians(points[:, 1])) - low) / (high - low), "uniform").pvalue > 1e-3


def test_no_point_lies_in_the_sea_of_the_outline():
    from odc.geo.data import ocean_geom

    points = xy(sample_land(50_000, seed=11, exclude_antarctica=False))
    sea = ocean_geom().geom
    shapely.prepare(sea)
    assert not shapely.contains_xy(sea, points[:, 0], points[:, 1]).any()


def test_antarctica_is_left_out_unless_asked_for():
    south = lambda **options: (xy(sample_land(5000, **options))[:, 1] < -60).mean()  # noqa: E731
    assert south() == 0
    assert 0.05 < south(exclude_antarctica=False) < 0.12
    assert 0.05 < south(region="land") < 0.12


@pytest.mark.parametrize("options", [{}, {"region": FIJI}, {"min_distance_m": 50_000}])
def test_the_same_seed_gives_the_same_points_and_fewer_are_the_first_of_more(options):
    many, again, few = (xy(sample_land(n, seed=5, **options)) for n in (150, 150, 40))
    assert (many == again).all()
    assert (many[:40] == few).all()
    assert not (xy(sample_land(40, seed=6, **options)) == few).any()


def test_a_million_points_take_seconds():
    sample_land(10)
    start = time.perf_counter()
    points = sample_land(1_000_000)
    seconds = time.perf_counter() - start
    print(f"1,000,000 points on land: {seconds:.2f} s")
    assert len(points) == 1_000_000
    assert seconds < 15


def test_regions_across_the_antimeridian_at_the_pole_and_with_holes():
    fiji = xy(sample_land(4000, FIJI, seed=1))
    assert (np.abs(fiji[:, 0]) >= 179).all()
    assert (np.abs(fiji[:, 0]) <= 180).all()
    assert 0.46 < (fiji[:, 0] > 0).mean() < 0.54
    cap = shapely.Polygon([(lon, 80) for lon in (-150, -60, 30, 120)])
    polar = xy(sample_land(2000, cap, seed=1))
    # Half of a cap lies nearer to the pole than its middle by area; a quarter of the turn is a quarter of it.
    assert polar[:, 1].max() > 89
    assert np.histogram(polar[:, 0], bins=4, range=(-180, 180))[0].min() > 400
    ring = shapely.box(10, 45, 12, 47) - shapely.box(10.2, 45.2, 11.8, 46.8)
    points = xy(sample_land(2000, ring, seed=1))
    assert shapely.contains_xy(ring, points[:, 0], points[:, 1]).all()
    several = shapely.union_all([shapely.box(0, 0, 1, 1), shapely.box(10, 60, 11, 61)])
    north = (xy(sample_land(4000, several, seed=1))[:, 1] > 30).mean()
    assert north == pytest.approx(0.33, abs=0.04)


def test_tiny_regions_and_thin_ones():
    tiny = shapely.box(2.35, 48.85, 2.350001, 48.850001)
    points = xy(sample_land(100, tiny))
    assert shapely.contains_xy(tiny, points[:, 0], points[:, 1]).all()
    assert len(np.unique(points, axis=0)) == 100
    sliver = shapely.Polygon([(0, 40), (10, 50), (10.001, 50), (0.001, 40)])
    points = xy(sample_land(500, sliver, seed=2))
    assert shapely.contains_xy(sliver, points[:, 0], points[:, 1]).all()
    assert kstest(points[:, 0] / 10, "uniform").pvalue > 1e-6
    with pytest.raises(AreaError):
        sample_land(1, shapely.Polygon([(0, 0), (1, 1), (2, 2)]))


def test_where_labels_exist_ground_that_two_of_them_claim_counts_once():
    labels = gpd.GeoDataFrame(
        {"ground_truth": [1, 2, 3]},
        geometry=[shapely.box(0, 0, 2, 1), shapely.box(1, 0, 3, 1), shapely.box(1, 0, 2, 1)],
        crs="EPSG:4326",
    )
    points = xy(sample_land(30_000, labels, seed=4))
    counts = np.histogram(points[:, 0], bins=3, range=(0, 3))[0]
    assert chisquare(counts).pvalue > 1e-3
    projected = xy(sample_land(300, labels.to_crs("EPSG:3857"), seed=4))
    assert ((projected >= -1e-6).all(axis=1) & (projected <= [3 + 1e-6, 1 + 1e-6]).all(axis=1)).all()


def test_labels_that_are_no_polygons_are_told_of():
    mixed = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1), shapely.Point(5, 5)], crs="EPSG:4326")
    with pytest.warns(DeepSentinelWarning, match="only polygon"):
        points = xy(sample_land(100, mixed))
    assert points.max() <= 1
    with pytest.raises(AreaError, match="None of the 1 shapes is a polygon"):
        sample_land(1, mixed.iloc[1:])


def test_a_list_of_regions_is_all_of_them():
    points = xy(sample_land(3000, [(0, 0, 1, 1), shapely.box(0.5, 0, 1.5, 1), "POLYGON ((5 0, 6 0, 6 1, 5 1, 5 0))"]))
    west = points[:, 0] < 2
    assert west.mean() == pytest.approx(0.6, abs=0.04)
    assert chisquare(np.histogram(points[west, 0], bins=3, range=(0, 1.5))[0]).pvalue > 1e-3
    with pytest.raises(InputError, match="empty list"):
        sample_land(1, [])


@pytest.mark.parametrize(("region", "distance_m", "n"), [
    ((2, 48, 3, 49), 5000, 150), (FIJI, 20_000, 80), ((-180, 88, 180, 90), 40_000, 60), (None, 300_000, 300),
])  # fmt: skip
def test_points_keep_their_distance_on_the_ground(region, distance_m, n):
    points = xy(sample_land(n, region, seed=2, min_distance_m=distance_m))
    assert len(points) == n
    i, j = np.triu_indices(n, 1)
    lengths_m = GEOD.inv(*points[i].T, *points[j].T)[2]
    assert lengths_m.min() >= distance_m
    assert lengths_m.min() < 1.3 * distance_m


def test_thinning_is_what_one_after_another_would_leave():
    candidates = xy(sample_land(3000, (2, 48, 3, 49), seed=9))
    kept: list[np.ndarray] = []
    for point in candidates:
        lengths = GEOD.inv(*np.tile(point, (len(kept), 1)).T, *np.array(kept).T)[2] if kept else np.array([np.inf])
        if lengths.min() >= 6000:
            kept.append(point)
        if len(kept) == 90:
            break
    assert (xy(sample_land(90, (2, 48, 3, 49), seed=9, min_distance_m=6000)) == np.array(kept)).all()


def test_where_no_more_points_fit_the_error_says_how_many_do():
    with pytest.raises(InputError, match=r"Only (\d+) of 1,000 points fit .* 20,000 m apart") as caught:
        sample_land(1000, (2, 48, 3, 49), min_distance_m=20_000)
    fit = int(str(caught.value).split()[1])
    assert 12 <= fit <= 25
    assert len(sample_land(fit, (2, 48, 3, 49), min_distance_m=20_000)) == fit
    nearer_m = float(str(caught.value).split("min_distance_m=")[1].split(",")[0])
    assert len(sample_land(1000, (2, 48, 3, 49), min_distance_m=nearer_m)) == 1000


def test_no_points_are_an_empty_table():
    for options in ({}, {"min_distance_m": 100}):
        empty = sample_land(0, **options)
        assert len(empty) == 0
        assert empty.crs.to_epsg() == 4326


@pytest.mark.parametrize(("options", "says"), [
    ({"n": -1}, "n=-1"), ({"n": 1.5}, "n=1.5"), ({"n": True}, "n=True"), ({"seed": -1}, "seed=-1"),
    ({"seed": None}, "seed=None"), ({"seed": 0.5}, "seed=0.5"), ({"min_distance_m": -1}, "min_distance_m=-1"),
    ({"min_distance_m": float("nan")}, "min_distance_m=nan"), ({"shares": "balanced"}, "give strata="),
])  # fmt: skip
def test_what_cannot_be_sampled_is_said(options, says):
    with pytest.raises(InputError, match=says):
        sample_land(**{"n": 5, **options})


def test_an_unknown_argument_is_refused():
    with pytest.raises(TypeError):
        sample_land(5, distance=100)


def test_the_table_says_where_it_is_from():
    points = sample_land(3, (2, 48, 3, 49), seed=4)
    assert points.attrs == {"region": "the area (2, 48, 3, 49)", "seed": 4, "min_distance_m": 0.0}
    assert list(points.columns) == ["geometry"]
    assert region_of(None).name == "all land but Antarctica"


def test_dates_are_spread_over_whole_cycles():
    dates = spread_dates(4803, "2018-01-01", "2018-12-31", seed=1)
    days = (dates - dates.min().normalize()).days
    assert str(dates.min().date()) == "2018-01-01"
    assert days.max() <= 359
    counts = np.bincount(days // 12)
    assert len(counts) == 30
    assert counts.max() - counts.min() <= 1
    assert chisquare(np.bincount(days % 12)).pvalue > 1e-3
    assert (dates == dates.normalize()).all()
    again, other = (spread_dates(4803, "2018-01-01", "2018-12-31", seed=seed) for seed in (1, 2))
    assert (dates == again).all()
    assert not (dates == other).all()


def test_a_fixed_number_of_cycles_is_spread_over_the_period():
    dates = spread_dates(1000, "2018-01-01", "2018-12-31", cycles=4)
    cycles = (dates.day_of_year - 1) // 12
    assert np.unique(cycles).tolist() == [0, 10, 19, 29]
    assert np.bincount(cycles).max() == 250
    assert len(spread_dates(0, "2018-01-01", "2018-12-31")) == 0
    for wrong, says in (
        ({"cycles": 31}, "1 to 30 whole cycles"), ({"cycles": 0}, "1 to 30"), ({"cycle_days": 0}, "cycle_days=0"),
        ({"end": "2018-01-11"}, "no whole cycle"), ({"start": "soon"}, "start='soon'"), ({"seed": -1}, "seed=-1"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            spread_dates(**{"n": 5, "start": "2018-01-01", "end": "2018-12-31", **wrong})
