"""Anything -> Area: all spellings of one rectangle agree, and what is no area says so and says what to do."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import numpy as np
import odc.geo
import pytest
import shapely
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from deepsentinel.aoi import Area, area
from deepsentinel.errors import AreaError, DeepSentinelWarning

BOX = (2.0, 48.0, 2.5, 48.25)
RECTANGLE = shapely.box(*BOX)
GEOMETRY = shapely.geometry.mapping(RECTANGLE)
FEATURE = {"type": "Feature", "properties": {"style": {"color": "#3388ff"}}, "geometry": GEOMETRY}
COLLECTION = {"type": "FeatureCollection", "features": [FEATURE]}
GRID = GeoBox.from_bbox((430000, 5320000, 460000, 5340000), crs="EPSG:32631", resolution=10)


def dataset() -> xr.Dataset:
    x, y = (np.asarray(GRID.coordinates[name].values) for name in ("x", "y"))
    place = xr.DataArray(0, attrs={"crs_wkt": GRID.crs.to_wkt() if GRID.crs else ""})
    return xr.Dataset(coords={"x": x, "y": y, "spatial_ref": place})


class Interface:
    __geo_interface__ = FEATURE


SPELLINGS: dict[str, Any] = {
    "tuple": BOX,
    "list": list(BOX),
    "array": np.array(BOX),
    "text box": "2, 48, 2.5, 48.25",
    "text box in brackets": "[2.0,48.0,2.5,48.25]",
    "shapely": RECTANGLE,
    "other direction": RECTANGLE.reverse(),
    "with heights": shapely.force_3d(RECTANGLE, 120.0),
    "repeated points": shapely.Polygon([p for p in RECTANGLE.exterior.coords for _ in range(2)]),
    "one multipolygon": shapely.MultiPolygon([RECTANGLE]),
    "the same twice": [RECTANGLE, RECTANGLE],
    "two halves": [shapely.box(2, 48, 2.25, 48.25), shapely.box(2.25, 48, 2.5, 48.25)],
    "geometry": GEOMETRY,
    "feature": FEATURE,
    "collection": COLLECTION,
    "nested": {"type": "GeometryCollection", "geometries": [GEOMETRY]},
    "geojson text": json.dumps(COLLECTION),
    "geojson with the old crs": {**COLLECTION, "crs": {"type": "name", "properties": {"name": "OGC:CRS84"}}},
    "wkt": RECTANGLE.wkt,
    "wkt in lower case": "polygon((2 48,2.5 48,2.5 48.25,2 48.25,2 48))",
    "ewkt": f"SRID=4326;{RECTANGLE.wkt}",
    "frame": geopandas.GeoDataFrame(geometry=[RECTANGLE], crs=4326),
    "frame with a gap": geopandas.GeoDataFrame(geometry=[None, RECTANGLE], crs=4326),
    "series": geopandas.GeoSeries([RECTANGLE], crs="OGC:CRS84"),
    "odc geometry": odc.geo.Geometry(GEOMETRY, crs="EPSG:4326"),
    "odc box": odc.geo.BoundingBox(*BOX, crs="EPSG:4326"),
    "odc geobox": GeoBox.from_bbox(BOX, crs="EPSG:4326", resolution=0.25),
    "draw message": {"event": "draw:created", "geo_json": FEATURE},
    "geoman message": [FEATURE],
    "draw control": SimpleNamespace(last_draw=FEATURE, data=[]),
    "draw control, cleared": SimpleNamespace(last_draw={"type": "Feature", "geometry": None}, data=[FEATURE]),
    "geo interface": Interface(),
    "area": Area(RECTANGLE),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_all_spellings_of_a_rectangle_are_the_same_area(name: str) -> None:
    found = area(SPELLINGS[name])
    assert found.geometry.equals(RECTANGLE)
    assert found.bounds == BOX
    assert found.notes == ()
    assert not found.geometry.has_z
    assert found.geometry.is_valid
    assert area(found) is found


@pytest.mark.parametrize("name", ["tuple", "other direction", "frame", "geoman message", "wkt"])
def test_the_outline_has_one_normal_form(name: str) -> None:
    found = area(SPELLINGS[name])
    assert found == area(BOX)
    assert shapely.Polygon(found.geometry).exterior.is_ccw


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp"])
@pytest.mark.parametrize("crs", [4326, 32631])
def test_a_file_is_read_in_its_own_crs(tmp_path: Path, suffix: str, crs: int) -> None:
    path = tmp_path / f"place{suffix}"
    geopandas.GeoDataFrame({"name": ["a"]}, geometry=[RECTANGLE.segmentize(0.01)], crs=4326).to_crs(crs).to_file(path)
    for spelling in (path, str(path)):
        assert area(spelling).geometry.symmetric_difference(RECTANGLE).area < 1e-3 * RECTANGLE.area


def test_projected_inputs_agree_and_keep_straight_edges_straight() -> None:
    outline = GRID.extent.geom
    series = geopandas.GeoSeries([outline], crs="EPSG:32631")
    expected = area(series)
    spellings = [
        GRID,
        dataset(),
        f"SRID=32631;{outline.wkt}",
        odc.geo.Geometry(outline, "EPSG:32631"),
        GRID.boundingbox,
    ]
    for spelling in spellings:
        assert area(spelling).geometry.equals_exact(expected.geometry, 1e-9)
    back = geopandas.GeoSeries([expected.geometry], crs=4326).to_crs(32631).iloc[0]
    assert back.hausdorff_distance(outline) < 0.01  # metres, over edges of 30 km
    assert expected.area_km2 == pytest.approx(600 / 0.9996**2, rel=1e-4)


def test_a_real_draw_control_can_be_given() -> None:
    ipyleaflet = pytest.importorskip("ipyleaflet")
    control = ipyleaflet.DrawControl()
    with pytest.raises(AreaError, match="Nothing has been drawn yet"):
        area(control)
    control._handle_custom_msg({"event": "draw:created", "geo_json": FEATURE}, [])
    assert area(control).bounds == BOX
    geoman = ipyleaflet.GeomanDrawControl(data=[FEATURE])
    assert area(geoman).bounds == BOX


def gdf(shape: Any, crs: Any = None) -> geopandas.GeoDataFrame:
    return geopandas.GeoDataFrame(geometry=[shape], crs=crs)


BAD: dict[str, tuple[Any, str]] = {
    "none": (None, r"No area was given.*GeoJSON"),
    "a number": (7, "A int is no area"),
    "two numbers": ((2.35, 48.85), r"2 items is no area.*square\(lon=2.35, lat=48.85, size_m=2560\)"),
    "three numbers": ((1, 2, 3), r"3 items is no area; a box is \(west, south, east, north\)"),
    "leaflet bounds": (((48, 2), (49, 3)), r"Leaflet's bounds are \(\(south, west\)"),
    "empty list": ([], "nothing was drawn"),
    "empty text": (" ", "empty text"),
    "no such file": ("nowhere.gpkg", "no such file exists"),
    "broken json": ('{"type": ', "not JSON"),
    "broken wkt": ("POLYGON((1 2, 3", "starts like WKT"),
    "no geojson": ({"a": 1}, "its 'type' is None"),
    "no coordinates": ({"type": "Polygon"}, "no usable 'coordinates'"),
    "nan": ((2, float("nan"), 3, 49), "NaN or infinite"),
    "inf": ((2, 48, float("inf"), 49), "NaN or infinite"),
    "inf in an outline": (shapely.Polygon([(0, 0), (np.inf, 0), (1, 1)]), "NaN or infinite"),
    "zero width": ((2, 48, 2, 49), "encloses no ground.*square"),
    "zero height": ((2, 48, 3, 48), "encloses no ground"),
    "collapsed": (shapely.Polygon([(2, 48), (3, 48), (2, 48)]), "falls together"),
    "upside down": ((2, 49, 3, 48), r"did you mean \(2, 48, 3, 49\)"),
    "west of west": ((3, 48, 2, 49), r"359 degrees wide; did you mean \(2, 48, 3, 49\)"),
    "swapped box": ((-33.9, 151, -33.8, 151.3), r"swapped: did you mean \(151, -33.9, 151.3, -33.8\)"),
    "swapped outline": (shapely.box(-33.9, 151, -33.8, 151.3), r"swapped.*\(151, -33.9, 151.3, -33.8\)"),
    "beyond the pole": ((100, 80, 110, 95), r"beyond a pole. Latitudes must lie between -90 and 90"),
    "metres": ((430000, 5320000, 460000, 5340000), "metres.*Say which"),
    "metres in an outline": (GRID.extent.geom, "metres.*Say which"),
    "once around and more": (shapely.box(-200, 0, 200, 1).segmentize(10), "spans 400 degrees"),
    "empty polygon": (shapely.Polygon(), "is empty"),
    "empty collection": ({"type": "FeatureCollection", "features": []}, "is empty"),
    "no rows": (geopandas.GeoDataFrame(geometry=[], crs=4326), "is empty"),
    "nothing drawn": ({"type": "Feature", "geometry": None}, "is empty"),
    "a point": (shapely.Point(2.35, 48.85), r"A Point has no extent.*square\(2.35, 48.85, size_m=2560\)"),
    "a marker": ({"type": "Point", "coordinates": [2.35, 48.85]}, r"square\(2.35, 48.85"),
    "a point as text": ("POINT(2.35 48.85)", "A Point has no extent"),
    "a line": (shapely.LineString([(0, 0), (1, 1)]), "A LineString has no extent.*buffered"),
    "frame without crs": (gdf(RECTANGLE), r"has no CRS.*set_crs"),
    "geobox without crs": (GeoBox((2, 2), GRID.affine, None), "GeoBox has no CRS"),
    "dataset without crs": (xr.Dataset(coords={"x": [1.0, 2.0], "y": [1.0, 2.0]}), "x, y and spatial_ref"),
    "unknown srid": (f"SRID=999999;{RECTANGLE.wkt}", "CRS 'EPSG:999999' is not known"),
    "outside the projection": (gdf(shapely.box(1e9, 1e9, 2e9, 2e9), 32631), "cannot be drawn|not degrees"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_area_says_what_to_do(name: str) -> None:
    given_, message = BAD[name]
    with pytest.raises(AreaError, match=message):
        area(given_)


def test_a_file_that_is_no_vector_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.gpkg"
    path.write_text("hello")
    with pytest.raises(AreaError, match=r"notes\.gpkg cannot be read as vectors"):
        area(path)


def test_a_self_crossing_outline_is_repaired_and_said_so() -> None:
    bow = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    with pytest.warns(DeepSentinelWarning, match="Self-intersection.*repaired") as caught:
        found = area(bow)
    assert caught[0].filename == __file__  # the warning points at the caller's line
    assert found.geometry.is_valid
    assert found.geometry.area == pytest.approx(2.0)
    assert len(found.notes) == 1
    assert "repaired" in found.notes[0]
    assert "repaired" in repr(found)


BOW = [(200, 200), (2200, 2200), (2200, 200), (200, 2200)]
SQUARE, FAR_HOLE = [(0, 0), (300, 0), (300, 300), (0, 300)], [(400, 400), (500, 400), (500, 500)]


@pytest.mark.parametrize("epsg", [32630, 3035])
@pytest.mark.parametrize(
    ("polygon", "km2", "why"),
    [
        (shapely.Polygon(BOW), 2.0, "Self-intersection"),
        (shapely.Polygon(SQUARE, [FAR_HOLE]), 0.095, "Hole lies outside shell"),
    ],
)
def test_a_crossing_outline_in_metres_keeps_all_of_its_ground(
    epsg: int, polygon: shapely.Polygon, km2: float, why: str
) -> None:
    corner = {32630: (716_520, 5_457_400), 3035: (3_900_000, 2_900_000)}[epsg]
    there = geopandas.GeoSeries([shapely.transform(polygon, lambda xy: xy + corner)], crs=epsg)
    with pytest.warns(DeepSentinelWarning, match=f"{why}.*repaired") as caught:
        found = area(there)
    assert len(caught) == 1
    assert found.area_km2 == pytest.approx(km2, rel=0.01)
    assert found.notes == (str(caught[0].message),)
    with pytest.warns(DeepSentinelWarning, match="repaired"):
        assert area(there.to_crs(4326)).area_km2 == pytest.approx(km2, rel=0.01)


def test_an_outline_in_metres_without_ground_or_without_numbers_is_refused() -> None:
    line = shapely.Polygon([(716_520, 5_457_400), (716_820, 5_457_700), (716_520, 5_457_400)])
    with pytest.raises(AreaError, match="encloses no ground"):
        area(geopandas.GeoSeries([line], crs=32630))
    with np.errstate(invalid="ignore"):
        broken = shapely.Polygon([(716_520, 5_457_400), (716_820, 5_457_700), (716_520, np.nan)])
        with pytest.raises(AreaError, match="no place"):
            area(geopandas.GeoSeries([broken], crs=32630))


def test_points_beside_polygons_are_left_out_and_said_so() -> None:
    with pytest.warns(DeepSentinelWarning, match=r"2 other shapes were left out \(LineString, Point\)"):
        found = area([RECTANGLE, shapely.Point(0, 0), shapely.LineString([(0, 0), (1, 1)])])
    assert found.bounds == BOX


def test_a_belt_around_the_earth_is_the_same_as_a_box_and_as_an_outline() -> None:
    belt = (-180.0, 60.0, 180.0, 80.0)
    assert area(shapely.box(*belt)).geometry.equals(area(belt).geometry)
    # A hemisphere has 255 million km2, and the share below a latitude is its sine.
    assert area(belt).area_km2 == pytest.approx(
        255e6 * (math.sin(math.radians(80)) - math.sin(math.radians(60))), rel=0.01
    )


FIJI = shapely.MultiPolygon([shapely.box(179, -17, 180, -16), shapely.box(-180, -17, -179, -16)])
CROSSINGS: dict[str, tuple[Any, bool]] = {
    "box": ((179, -17, -179, -16), False),
    "box in 0 to 360": ((179, -17, 181, -16), False),
    "box drawn a world to the left": ((-181, -17, -179, -16), False),
    "already split": (FIJI, False),
    "outline that jumps": (shapely.Polygon([(179, -17), (-179, -17), (-179, -16), (179, -16)]), True),
    "outline that runs on": (shapely.box(179, -17, 181, -16), False),
    "projected": (gdf(FIJI.segmentize(0.01), 4326).to_crs(32701), False),
}


@pytest.mark.parametrize("name", CROSSINGS)
def test_an_area_across_the_antimeridian_is_split_there(name: str) -> None:
    given_, warned = CROSSINGS[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = area(given_)
    assert ["across the antimeridian" in str(w.message) for w in caught] == [True] * warned
    assert found.geometry.symmetric_difference(FIJI).area < 1e-3
    assert found.geometry.geom_type == "MultiPolygon"
    assert found.geometry.is_valid
    assert any("split" in note for note in found.notes) or name in ("already split", "projected")
    assert np.allclose(found.bounds, (179, -17, -179, -16), atol=1e-3)
    assert found.width_km == pytest.approx(area((10, -17, 12, -16)).width_km, rel=1e-4)
    assert found.area_km2 == pytest.approx(area((10, -17, 12, -16)).area_km2, rel=1e-3)


def test_a_hole_across_the_antimeridian_stays_a_hole() -> None:
    ring = [(178, -10), (-178, -10), (-178, -6), (178, -6)]
    hole = [(-179, -9), (-179, -7), (179, -7), (179, -9)]
    with pytest.warns(DeepSentinelWarning):
        found = area(shapely.Polygon(ring, [hole]))
    assert found.geometry.area == pytest.approx(4 * 4 - 2 * 2)
    assert not found.geometry.contains(shapely.Point(179.9, -8))
    assert not found.geometry.contains(shapely.Point(-179.9, -8))


def test_longitudes_up_to_360_are_brought_back() -> None:
    found = area((200, 10, 201, 11))
    assert found.bounds == pytest.approx((-160, 10, -159, 11))
    assert "brought back" in found.notes[0]


@pytest.mark.parametrize("sign", [1, -1])
def test_outlines_around_a_pole_contain_it(sign: int) -> None:
    turn = np.linspace(-180, 180, 37)
    rings = [turn[:-1], turn, (turn[:-1] + 95 + 180) % 360 - 180, turn[:-1][::-1]]
    cap = shapely.box(-180, 80, 180, 90) if sign > 0 else shapely.box(-180, -90, 180, -80)
    for ring in rings:
        found = area(shapely.Polygon([(lon, sign * 80.0) for lon in ring]))
        assert found.geometry.symmetric_difference(cap).area < 1e-6
        assert "pole lies inside" in found.notes[0]


def test_a_projected_square_over_the_pole_contains_it() -> None:
    square = shapely.box(1_900_000, 1_900_000, 2_100_000, 2_100_000)
    found = area(gdf(square, 32661))
    assert found.bounds[3] == 90
    assert found.geometry.covers(shapely.Point(33.3, 89.9))
    assert found.area_km2 == pytest.approx(200 * 200 / 0.994**2, rel=1e-3)


def test_boxes_that_touch_the_poles_or_span_the_world_stay() -> None:
    assert area((-180, 80, 180, 90)).bounds == (-180, 80, 180, 90)
    assert area((-180, -90, 180, 90)).area_km2 == pytest.approx(510_065_622, rel=1e-6)
    assert area((-10, 35, 178, 70)).bounds == (-10, 35, 178, 70)  # a box means what it says, however wide


LON, LAT = st.floats(-180, 180), st.floats(-89, 89)


@given(LON, LAT, st.floats(0.001, 40), st.floats(0.001, 1))
def test_every_box_is_valid_on_the_globe_and_keeps_its_size(
    west: float, south: float, wide: float, high: float
) -> None:
    found = area((west, south, west + wide, south + high))
    left, bottom, right, top = found.geometry.bounds
    assert found.geometry.is_valid
    assert -180 <= left < right <= 180
    assert -90 <= bottom < top <= 90
    assert found.geometry.area == pytest.approx(wide * high, rel=1e-6)
    again = area(found.bounds)
    assert again.geometry.symmetric_difference(found.geometry).area < 1e-6 * wide * high + 1e-9


def test_sizes_are_those_of_the_ellipsoid() -> None:
    found = area((0, 0, 1, 1))
    assert found.width_km == pytest.approx(111.31, abs=0.02)
    assert found.height_km == pytest.approx(110.574, abs=0.01)
    assert found.area_km2 == pytest.approx(12308.8, rel=1e-4)


def test_the_repr_teaches() -> None:
    text = repr(area((-1.5, -0.5, 2.5, 48.25)))
    assert "1.5000 W to 2.5000 E" in text
    assert "0.5000 S to 48.2500 N" in text
    assert "km2" in text
    html = area(BOX)._repr_html_()
    assert "<svg" in html
    assert "EPSG:32631" in html
    assert shapely.geometry.shape(area(BOX).__geo_interface__).equals(RECTANGLE)


def test_importing_it_is_cheap() -> None:
    heavy = ("geopandas", "pandas", "xarray", "rasterio", "scipy", "torch", "ipyleaflet", "matplotlib")
    code = f"import sys, deepsentinel.aoi; print([m for m in {heavy!r} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
