"""Area -> grid: it covers the area, shares its pixels with its neighbours, and says so when it would be too large."""

from __future__ import annotations

import math
import pickle
import re
from typing import Any

import geopandas
import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from deepsentinel.aoi import TooLargeError, area, geobox, square, utm_crs
from deepsentinel.errors import AreaError, InputError

PARIS = (2.25, 48.81, 2.42, 48.91)
ALIGNED = GeoBox((200, 300), Affine(10, 0, 430000, 0, -10, 5340000), "EPSG:32631")


def epsg(grid: GeoBox) -> int:
    assert grid.crs is not None
    return grid.crs.epsg or 0


def inside_px(grid: GeoBox, lon: Any, lat: Any) -> float:
    """How far the points stay inside the grid, in pixels; negative when one is outside."""
    x, y = pyproj.Transformer.from_crs(4326, str(grid.crs), always_xy=True).transform(lon, lat)
    left, bottom, right, top = grid.boundingbox.bbox
    return float(min(np.min(x) - left, right - np.max(x), np.min(y) - bottom, top - np.max(y)) / grid.affine.a)


def on_lattice(grid: GeoBox, resolution: float) -> bool:
    a, b, c, d, e, f, *_ = grid.affine
    steps = (c / resolution, f / resolution)
    return (a, b, d, e) == (resolution, 0, 0, -resolution) and all(abs(s - round(s)) < 1e-6 for s in steps)


@pytest.mark.parametrize(
    ("lon", "lat", "code"),
    [
        (2.35, 48.85, 32631), (0, 0, 32631), (-0.001, 10, 32630), (5.999999, 60, 32631), (6, 60, 32632),
        (3, -0.001, 32731), (180, 10, 32601), (-180, 10, 32601), (179.999, -10, 32760), (190, 10, 32602),
        (15, 84, 32633), (15, 84.001, 32661), (15, -80, 32733), (15, -80.001, 32761), (0, 90, 32661),
        (5, 61, 32631), (20, 79, 32634), (-1e-15, 10, 32631),
    ],
)  # fmt: skip
def test_the_projection_of_a_point(lon: float, lat: float, code: int) -> None:
    assert utm_crs(lon, lat) == f"EPSG:{code}"


@pytest.mark.parametrize(("lon", "lat"), [(0, 91), (float("nan"), 0), (0, float("inf")), (1000, 0)])
def test_a_point_off_the_globe_has_no_projection(lon: float, lat: float) -> None:
    with pytest.raises(AreaError, match="no place on Earth; longitude comes first"):
        utm_crs(lon, lat)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-180, 180),
    st.floats(-89.5, 89),
    st.floats(1e-5, 0.4),
    st.floats(1e-5, 0.4),
    st.sampled_from([5, 10, 20, 60]),
)
def test_a_grid_covers_all_of_its_area_and_no_more_than_a_pixel_around(
    west: float, south: float, wide: float, high: float, resolution: float
) -> None:
    place = area((west, south, west + wide, south + high))
    grid = geobox(place, resolution, max_gb=100)
    assert on_lattice(grid, resolution)
    assert min(grid.shape) >= 1
    rim = np.linspace(0, 1, 401)
    lon = np.concatenate([west + wide * rim, west + wide * rim, np.full(401, west), np.full(401, west + wide)])
    lat = np.concatenate([np.full(401, south), np.full(401, south + high), south + high * rim, south + high * rim])
    spare_px = inside_px(grid, lon, lat)
    assert -0.02 <= spare_px < 1.0
    x, y = pyproj.Transformer.from_crs(4326, str(grid.crs), always_xy=True).transform(lon, lat)
    assert grid.shape.x <= np.ptp(x) / resolution + 2
    assert grid.shape.y <= np.ptp(y) / resolution + 2


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.3, 5.2),
    st.floats(-79, 83),
    st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
    st.sampled_from([10, 20, 2.5]),
)
def test_overlapping_areas_share_their_pixels(
    lon: float, lat: float, shift: tuple[float, float], resolution: float
) -> None:
    one = geobox((lon, lat, lon + 0.25, lat + 0.25), resolution, max_gb=100)
    two = geobox((lon + shift[0], lat + shift[1], lon + shift[0] + 0.25, lat + shift[1] + 0.25), resolution, max_gb=100)
    assume(one.crs == two.crs)
    columns = (two.affine.c - one.affine.c) / resolution
    rows = (two.affine.f - one.affine.f) / resolution
    assert columns == round(columns)
    assert rows == round(rows)


def test_an_outline_that_bulges_between_its_corners_is_covered() -> None:
    # Along a parallel the southernmost point in UTM lies between the corners, by 4 km here.
    wide = (0.0, 59.0, 6.0, 60.0)
    grid = geobox(wide, resolution=100)
    _, y = pyproj.Transformer.from_crs(4326, 32631, always_xy=True).transform([0, 3, 6], [59, 59, 59])
    assert y[0] - y[1] > 3800
    assert inside_px(grid, np.linspace(0, 6, 1000), np.full(1000, 59.0)) >= -0.01


def test_a_grid_passes_through_as_it_is() -> None:
    assert geobox(ALIGNED) is ALIGNED
    assert geobox(ALIGNED, crs="EPSG:32631") is ALIGNED


def test_a_grid_goes_through_degrees_and_comes_back_the_same() -> None:
    assert geobox(area(ALIGNED)) == ALIGNED
    assert geobox(geopandas.GeoSeries([ALIGNED.extent.geom], crs="EPSG:32631")) == ALIGNED


def test_a_grid_is_regridded_when_something_changes() -> None:
    finer = geobox(ALIGNED, resolution=5)
    assert (finer.shape.yx, finer.boundingbox) == ((400, 600), ALIGNED.boundingbox)
    assert geobox(ALIGNED, resolution=20).shape.yx == (100, 150)
    moved = GeoBox((200, 300), Affine(10, 0, 430003, 0, -10, 5340003), "EPSG:32631")
    assert on_lattice(geobox(moved), 10)
    assert geobox(moved).boundingbox.bbox == (430000, 5338000, 433010, 5340010)
    upside_down = GeoBox((200, 300), Affine(10, 0, 430000, 0, 10, 5338000), "EPSG:32631")
    assert geobox(upside_down) == ALIGNED
    turned = geobox(ALIGNED, crs="EPSG:32630")
    outline = area(ALIGNED).geometry.exterior
    assert epsg(turned) == 32630
    assert 0 <= inside_px(turned, *outline.xy) < 1
    assert epsg(geobox(GeoBox.from_bbox(PARIS, crs="EPSG:4326", resolution=0.01))) == 32631


def test_rounding_noise_does_not_add_a_pixel() -> None:
    for noise in (1e-9, -1e-9, 1e-4, -1e-4):
        left, bottom, right, top = ALIGNED.boundingbox.bbox
        outline = shapely.box(left - noise, bottom - noise, right + noise, top + noise)
        assert geobox(geopandas.GeoSeries([outline], crs="EPSG:32631")) == ALIGNED


def test_a_tiny_area_has_a_pixel() -> None:
    assert geobox((2.35, 48.85, 2.350001, 48.850001)).shape.yx in {(1, 1), (1, 2), (2, 1), (2, 2)}
    corner = shapely.box(430000 - 1e-4, 5340000 - 1e-4, 430000 + 1e-4, 5340000 + 1e-4)
    assert geobox(geopandas.GeoSeries([corner], crs="EPSG:32631")).shape.yx == (1, 1)


@pytest.mark.parametrize(("box", "code"), [((179.4, -17, -179.9, -16.5), 32760), ((179.9, 65, -179.4, 65.4), 32601)])
def test_one_zone_holds_an_area_across_the_antimeridian(box: tuple[float, ...], code: int) -> None:
    grid = geobox(box)
    assert epsg(grid) == code
    lon = np.linspace(box[0], box[2] + 360, 500)
    for lat in (box[1], box[3]):
        assert inside_px(grid, (lon + 180) % 360 - 180, np.full(500, lat)) >= -0.01
    assert grid.shape.x * 0.01 == pytest.approx(area(box).width_km, rel=0.1)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_a_map_that_ends_at_the_antimeridian_is_refused_there(crs: str) -> None:
    with pytest.raises(AreaError, match=f"crosses the antimeridian, where {crs} ends. Leave out crs="):
        geobox((179.4, -17, -179.9, -16.5), resolution=0.001 if crs == "EPSG:4326" else 10, crs=crs, max_gb=1e6)


@pytest.mark.parametrize(("south", "north", "code"), [(85, 90, 32661), (-90, -82, 32761)])
def test_a_polar_cap_is_a_square_around_the_pole(south: float, north: float, code: int) -> None:
    grid = geobox((-180, south, 180, north), resolution=1000)
    assert epsg(grid) == code
    left, bottom, right, top = grid.boundingbox.bbox
    assert ((left + right) / 2, (bottom + top) / 2) == (2e6, 2e6)
    assert grid.shape.x == grid.shape.y
    assert epsg(geobox((20, 85, 21, 85.2))) == 32661
    assert epsg(geobox((20, 85, 21, 85.2), crs="EPSG:3413")) == 3413


def test_a_square_is_exactly_so_many_pixels() -> None:
    assert geobox(square(2.35, 48.85)).shape.yx == (256, 256)
    assert geobox(square(2.35, 48.85, 1280, resolution=20), resolution=20).shape.yx == (64, 64)


@settings(max_examples=80, deadline=None)
@given(
    st.one_of(st.floats(-180, 180), st.integers(-30, 30).map(lambda i: 6.0 * i)),
    st.one_of(st.floats(-90, 90), st.sampled_from([0.0, 84.0, -80.0])),
)
def test_a_square_holds_its_point_in_the_middle_everywhere(lon: float, lat: float) -> None:
    grid = geobox(square(lon, lat, 640))
    assert grid.shape.yx == (64, 64)
    assert str(grid.crs) == utm_crs(lon, lat)
    assert inside_px(grid, lon, lat) >= 31


@pytest.mark.parametrize("side_km", [130, 240, 500, 900])
def test_too_large_an_area_says_what_it_takes_and_what_fits(side_km: int) -> None:
    place = square(3.0, 48.0, side_km * 1000)
    with pytest.raises(
        AreaError, match=r"too large.*GB for one patch \(12 Sentinel-2 bands.*32 bytes a pixel"
    ) as caught:
        geobox(place)
    message = str(caught.value)
    said = re.search(r"would take ([\d,.]+) GB", message)
    fits = re.search(r"fit: resolution=(\d+), or a square of ([\d.]+) km", message)
    assert said is not None
    assert fits is not None
    assert float(said[1].replace(",", "")) == pytest.approx((side_km * 100) ** 2 * 32 / 1e9, rel=0.02)
    assert math.prod(geobox(place, resolution=int(fits[1])).shape) * 32 <= 4e9
    assert geobox(square(3.0, 48.0, float(fits[2]) * 1000 // 10 * 10)).shape.x == pytest.approx(11180, abs=2)
    assert isinstance(caught.value, TooLargeError)
    assert pickle.loads(pickle.dumps(caught.value)).fits_km == pytest.approx(float(fits[2]), rel=1e-3)
    assert geobox(place, max_gb=1000).shape.x == side_km * 100


def test_a_sentinel_2_tile_fits_by_default() -> None:
    assert geobox(GeoBox((10980, 10980), Affine(10, 0, 399960, 0, -10, 5400000), "EPSG:32631")).shape.x == 10980


@pytest.mark.parametrize("box", [(-10, 40, 30, 60), (-180, -90, 180, 90), (-180, 0, 180, 90)])
def test_an_area_too_wide_for_its_projection_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(AreaError, match=r"too much for one grid in EPSG:.*Cut it into smaller areas") as caught:
        geobox(box, resolution=10_000)
    assert isinstance(caught.value, TooLargeError)
    for place in (square((box[0] + box[2]) / 2, lat, caught.value.fits_km * 1000) for lat in (0, 50, 89)):
        geobox(place, resolution=10_000)


def test_a_wide_area_works_in_a_projection_made_for_it() -> None:
    assert epsg(geobox((-10, 40, 30, 60), resolution=1000, crs="EPSG:3035")) == 3035


BAD_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "degrees": ({"crs": "EPSG:4326"}, r"in degrees, so resolution=10 means 10 degrees.*Leave out crs="),
    "unknown crs": ({"crs": "EPSG:99999999"}, "not a coordinate reference system"),
    "zero": ({"resolution": 0}, "not a pixel size"),
    "negative": ({"resolution": -10}, "not a pixel size"),
    "nan": ({"resolution": float("nan")}, "not a pixel size"),
    "text": ({"resolution": "10m"}, "not a pixel size"),
    "pair": ({"resolution": (10, 10)}, "not a pixel size"),
    "no memory": ({"max_gb": float("nan")}, "max_gb=nan is not an amount of memory"),
    "less than none": ({"max_gb": -1}, "max_gb=-1 is not an amount of memory"),
    "memory in words": ({"max_gb": "4"}, "max_gb='4' is not an amount of memory"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_are_named(name: str) -> None:
    arguments, message = BAD_ARGUMENTS[name]
    with pytest.raises(InputError, match=message):
        geobox(PARIS, **arguments)


def test_unknown_keywords_and_sizes_raise() -> None:
    with pytest.raises(TypeError, match="resolutoin"):
        geobox(PARIS, resolutoin=100)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="size_m=0 is not a length"):
        square(2, 48, 0)
    with pytest.raises(AreaError, match="cannot be drawn in EPSG:32631"):
        geobox((-100, 0, -80, 1), crs="EPSG:32631", resolution=1000)


def test_degrees_can_be_asked_for() -> None:
    grid = geobox(PARIS, resolution=0.01, crs="EPSG:4326")
    assert grid.boundingbox.bbox == pytest.approx((2.25, 48.81, 2.42, 48.91))
    assert grid.shape.yx == (10, 17)
