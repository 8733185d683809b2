"""Labels in one CRS, a grid in another: straight edges, continents, the antimeridian, and degrees."""

from __future__ import annotations

import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from parcels_kit import CRS, LEFT, TOP, grid, pixel_shares

from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.grids import grid_of
from deepsentinel.masks import rasterize


def test_a_grid_in_degrees_and_one_whose_rows_run_north_work_too() -> None:
    labels = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[shapely.box(LEFT, TOP - 400, LEFT + 300, TOP)], crs=CRS)
    ups = GeoBox((60, 60), Affine(10, 0, LEFT - 50, 0, 10, TOP - 500), CRS)
    flipped = rasterize(labels, ups)["coverage"].values[::-1]
    assert np.array_equal(flipped, rasterize(labels, grid(60, left=LEFT - 50, top=TOP + 100))["coverage"])
    degrees = labels.to_crs(4326)
    west, south, east, north = degrees.total_bounds
    geobox = GeoBox.from_bbox((west - 1e-3, south - 1e-3, east + 1e-3, north + 1e-3), "EPSG:4326", resolution=1e-4)
    masks = rasterize(labels, geobox, layers=["coverage", "distance"])
    assert masks["coverage"].dims == ("y", "x")
    assert float(masks["coverage"].sum()) * 1e-8 == pytest.approx(shapely.area(degrees.geometry[0]), rel=1e-6)
    assert 120 < float(masks["distance"].max()) < 160


def test_parcels_in_degrees_that_abut_are_no_conflict_either() -> None:
    lon, lat = np.meshgrid(np.linspace(3.0, 3.1, 8), np.linspace(48.0, 48.1, 8))
    shapes = shapely.box(lon[:-1, :-1], lat[:-1, :-1], lon[1:, 1:], lat[1:, 1:]).ravel()
    labels = gpd.GeoDataFrame({"ground_truth": range(1, 50)}, geometry=shapes, crs="EPSG:4326")
    geobox = GeoBox.from_bbox((501_000, 5_317_000, 506_000, 5_326_000), CRS, resolution=10)
    masks = rasterize(labels, geobox, layers=["conflict", "coverage", "overlap"])
    assert int(masks["conflict"].max()) == 1
    assert float(masks["overlap"].max()) < 1e-3


def test_a_grid_is_read_back_from_its_masks_to_the_last_digit() -> None:
    geobox = GeoBox((400, 310), Affine(0.1 / 3, 0, 500_000 / 7, 0, -0.1 / 7, 50_000_000 / 9), CRS)
    labels = gpd.GeoDataFrame(
        {"ground_truth": [1]}, geometry=[shapely.box(71_428, 5_555_550, 71_432, 5_555_560)], crs=CRS
    )
    masks = rasterize(labels, geobox)
    again = grid_of(masks)
    assert (again.affine, tuple(again.shape), again.crs) == (geobox.affine, tuple(geobox.shape), geobox.crs)
    assert rasterize(labels, masks).identical(masks)
    one_pixel = grid_of(masks.isel(y=slice(0, 1), x=slice(3, 4)))
    assert one_pixel.affine.c == pytest.approx(500_000 / 7 + 0.1)


def test_straight_edges_in_degrees_stay_where_they_are() -> None:
    # Forty kilometres along a parallel bulge by 30 m against the chord between their ends.
    belt = shapely.box(2.7, 48.0, 3.3, 48.001)
    labels = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[belt], crs=4326)
    geobox = GeoBox.from_bbox((499_000, 5_315_000, 501_000, 5_318_000), CRS, resolution=10)
    dense = gpd.GeoSeries([shapely.segmentize(belt, 1e-4)], crs=4326).to_crs(CRS)
    exact = rasterize(gpd.GeoDataFrame({"ground_truth": [1]}, geometry=dense), geobox)["coverage"]
    ours = rasterize(labels, geobox)["coverage"]
    chord = rasterize(labels.to_crs(CRS), geobox)["coverage"]
    assert abs(ours - exact).max() < 2e-5
    assert abs(chord - exact).max() > 0.5


def test_labels_on_both_sides_of_the_antimeridian_come_onto_one_grid() -> None:
    sides = [
        shapely.box(179.98, 10, 180, 10.02),
        shapely.box(-180, 10, -179.98, 10.02),
        shapely.box(0, 10, 0.02, 10.02),
    ]
    labels = gpd.GeoDataFrame({"ground_truth": [1, 2, 3]}, geometry=sides, crs=4326)
    x, y = gpd.GeoSeries([shapely.Point(180, 10.01)], crs=4326).to_crs(32601).get_coordinates().to_numpy()[0]
    masks = rasterize(labels, GeoBox((50, 50), Affine(20, 0, x - 500, 0, -20, y + 500), "EPSG:32601"))
    assert np.unique(masks["class_map"][:, :24]).tolist() == [1]
    assert np.unique(masks["class_map"][:, 26:]).tolist() == [2]


def test_continents_come_onto_a_small_grid(real: Path) -> None:
    land = gpd.read_file(real / "naturalearth" / "ne_50m_land.json").assign(ground_truth=1)
    brittany = GeoBox.from_bbox((370_000, 5_360_000, 420_000, 5_400_000), "EPSG:32630", resolution=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepSentinelWarning)
        ours = rasterize(land, brittany)["coverage"].values
    near = shapely.box(-6, 46, -3, 50)
    shore = gpd.GeoSeries([shapely.segmentize(land.make_valid().union_all() & near, 0.001)], crs=4326).to_crs(32630)
    theirs = pixel_shares(gpd.GeoDataFrame({"g": [1]}, geometry=shore), brittany)[0]
    assert 0.2 < theirs.mean() < 0.99
    assert abs(ours - theirs).max() < 1e-3


@pytest.mark.parametrize("crs", ["EPSG:4326", CRS])
def test_labels_with_x_and_y_exchanged_are_told_so_with_what_mends_them(crs: str) -> None:
    field = gpd.GeoSeries([shapely.box(LEFT + 100, TOP - 300, LEFT + 300, TOP - 100)], crs=CRS).to_crs(crs)
    turned = [shapely.transform(field[0], lambda xy: xy[:, ::-1])]
    labels = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=turned, crs=crs)
    with pytest.warns(DeepSentinelWarning, match=r"None of the 1 labels lies on the grid.*x and y exchanged") as said:
        assert not rasterize(labels, grid(60))["class_map"].any()
    advice = str(said[0].message).rpartition("exchanged: ")[2].removesuffix(".")
    mended = eval(advice, {"labels": labels, "shapely": shapely})
    right = rasterize(gpd.GeoDataFrame({"ground_truth": [1]}, geometry=field, crs=crs), grid(60))
    assert np.array_equal(rasterize(mended, grid(60))["coverage"], right["coverage"])
    assert right["class_map"].any()


def test_labels_that_are_merely_elsewhere_get_no_such_hint() -> None:
    for crs in ("EPSG:4326", CRS):
        field = gpd.GeoSeries([shapely.box(LEFT + 9e4, TOP - 300, LEFT + 9.1e4, TOP - 100)], crs=CRS).to_crs(crs)
        with pytest.warns(DeepSentinelWarning, match="None of the 1 labels") as said:
            rasterize(gpd.GeoDataFrame({"ground_truth": [1]}, geometry=field, crs=crs), grid(60))
        assert "exchanged" not in str(said[0].message)
        assert "Check their CRS" in str(said[0].message)


DATE_LINE = GeoBox((20, 20), Affine(0.05, 0, 179.5, 0, -0.05, -17), "EPSG:4326")


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:4258"])
@pytest.mark.parametrize("turn", [-360, 0])
def test_a_grid_in_degrees_across_the_antimeridian_gets_the_labels_of_both_sides(crs: str, turn: float) -> None:
    sides = [shapely.box(179, -18, 180, -17), shapely.box(-180, -18, -179, -17)]
    labels = gpd.GeoDataFrame({"ground_truth": [1, 2]}, geometry=sides, crs=crs)
    geobox = GeoBox((20, 20), Affine(0.05, 0, 179.5 + turn, 0, -0.05, -17), "EPSG:4326")
    masks = rasterize(labels, geobox, layers=["class_map", "coverage", "conflict"])
    assert masks["class_map"].values.tolist() == [[1] * 10 + [2] * 10] * 20
    np.testing.assert_allclose(masks["coverage"], 1, atol=1e-4)
    assert int(masks["conflict"].max()) < 2


def test_a_label_drawn_beyond_180_is_whole_on_any_grid() -> None:
    wanted = shapely.box(179, -18, 181, -17)
    x, y = gpd.GeoSeries([shapely.Point(180, -17.5)], crs=4326).to_crs(32701).get_coordinates().to_numpy()[0]
    utm = GeoBox((50, 110), Affine(1000, 0, x - 55_000, 0, -1000, y + 25_000), "EPSG:32701")
    for shape in (wanted, shapely.transform(wanted, lambda xy: xy - [360, 0])):
        labels = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[shape], crs=4326)
        for geobox in (utm, DATE_LINE):
            assert float(rasterize(labels, geobox)["coverage"].min()) == 1


def test_labels_from_a_utm_zone_come_onto_a_grid_in_degrees_across_the_antimeridian() -> None:
    x, y = gpd.GeoSeries([shapely.Point(180, -17.5)], crs=4326).to_crs(32701).get_coordinates().to_numpy()[0]
    field = shapely.box(x - 20_000, y - 10_000, x + 20_000, y + 10_000)
    labels = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[field], crs=32701)
    masks = rasterize(labels, DATE_LINE, layers=["coverage", "distance"])
    lat = np.deg2rad(17.5)
    pixel_km2 = (0.05 * 111.32) ** 2 * np.cos(lat)
    assert float(masks["coverage"].sum()) * pixel_km2 == pytest.approx(800, rel=0.02)
    assert np.flatnonzero(masks["coverage"].any("y")).tolist() == list(range(6, 14))
    assert 5_000 < float(masks["distance"].max()) < 10_500


def test_the_seam_of_a_continent_at_180_is_no_boundary() -> None:
    land = shapely.box(-180, -85, 180, -60)
    labels = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[land], crs=4326)
    geobox = GeoBox((20, 20), Affine(0.05, 0, 179.5, 0, -0.05, -69), "EPSG:4326")
    distance = rasterize(labels, geobox, layers=["distance"])["distance"]
    assert float(distance.min()) > 900_000


def test_a_line_on_a_web_map_is_as_wide_as_it_is() -> None:
    x, y = gpd.GeoSeries([shapely.Point(10, 60)], crs=4326).to_crs(3857).get_coordinates().to_numpy()[0]
    lane = shapely.LineString([(x - 2_000, y), (x + 2_000, y)])
    labels = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[lane], crs=3857)
    geobox = GeoBox((50, 50), Affine(10, 0, x - 250, 0, -10, y + 250), "EPSG:3857")
    coverage = rasterize(labels, geobox, width_m=100)["coverage"]
    # Half as long as its unit says: 100 m are 200 units.
    np.testing.assert_allclose(coverage.sum("y"), 20, rtol=5e-3)


def test_a_line_just_outside_of_a_web_map_still_reaches_in() -> None:
    x, y = gpd.GeoSeries([shapely.Point(10, 60)], crs=4326).to_crs(3857).get_coordinates().to_numpy()[0]
    lane = shapely.LineString([(x - 2_000, y + 400), (x + 2_000, y + 400)])
    geobox = GeoBox((50, 50), Affine(10, 0, x - 250, 0, -10, y + 250), "EPSG:3857")
    for crs in (3857, 4326):
        labels = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[lane], crs=3857).to_crs(crs)
        # 100 m to each side are 200 units, and it lies 150 outside.
        assert float(rasterize(labels, geobox, width_m=200)["coverage"][:4].min()) == 1


@pytest.mark.parametrize("rows", [[0, 1, 2, 50], [0, 2, 3], [0, 1, 3, 4, 5, 6]])
def test_pixels_that_are_not_evenly_spaced_are_no_grid(rows: list[int]) -> None:
    labels = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[shapely.box(LEFT, TOP - 400, LEFT + 300, TOP)], crs=CRS)
    masks = rasterize(labels, grid(60))
    with pytest.raises(InputError, match=r"coordinate y .*not evenly spaced"):
        grid_of(masks.isel(y=rows))
    with pytest.raises(InputError, match=r"coordinate x .*not evenly spaced"):
        rasterize(labels, masks.isel(x=rows))
    assert grid_of(masks.isel(y=slice(0, 60, 3))).affine.e == -30
    small = masks.assign_coords(y=masks["y"].astype("float32"), x=masks["x"].astype("float32"))
    assert tuple(grid_of(small).shape) == (60, 60)
