"""Windows of one parcel each: where they lie, what they hold, and whether the sizes keep their promise."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
from parcels_kit import CRS, LEFT, TOP, grid, lattice
from shapes_kit import blobs, moved

from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.grids import bounds_of, grid_of
from deepsentinel.legend import Legend
from deepsentinel.masks import rasterize
from deepsentinel.masks.windows import parcel_sizes, parcel_window


def parcels(seed: int = 0) -> gpd.GeoDataFrame:
    shapes = moved(blobs(seed, 20, 400.0), LEFT, TOP)
    return gpd.GeoDataFrame({"ground_truth": np.arange(len(shapes)) % 5 + 1}, geometry=shapes, crs=CRS)


@pytest.mark.parametrize("resolution", [10.0, 2.5, 7.0])
def test_a_window_of_the_told_size_holds_the_parcel_and_one_less_does_not(resolution: float) -> None:
    labels = parcels()
    sizes = parcel_sizes(labels, resolution=resolution)
    for row, side in enumerate(sizes.table.side_px):
        parcel = labels.iloc[[row]]
        window = parcel_window(parcel, side, resolution=resolution, layers=("coverage",))
        assert window.coverage.shape == (side, side)
        covered_m2 = float(window.coverage.sum(dtype="float64")) * resolution**2
        assert covered_m2 == pytest.approx(parcel.area.iloc[0], rel=1e-6)
        if side > 1:
            with pytest.warns(DeepSentinelWarning, match=f"size_px={side} would hold it"):
                parcel_window(parcel, int(side) - 1, resolution=resolution, layers=("coverage",))


@pytest.mark.parametrize("size_px", [24, 33])
def test_the_parcel_is_in_the_middle_on_the_pixels_of_sentinel_2(size_px: int) -> None:
    labels = parcels(1)
    small = np.flatnonzero(parcel_sizes(labels).table.side_px <= size_px)
    assert len(small) > 8
    for row in small:
        parcel = labels.iloc[[row]]
        geobox = grid_of(parcel_window(parcel, size_px))
        left, bottom, right, top = bounds_of(geobox)
        low_x, low_y, high_x, high_y = parcel.total_bounds
        assert abs((left + right) / 2 - (low_x + high_x) / 2) <= 5 + 1e-6
        assert abs((bottom + top) / 2 - (low_y + high_y) / 2) <= 5 + 1e-6
        assert left % 10 == 0
        assert top % 10 == 0
        assert (geobox.affine.a, geobox.affine.e) == (10, -10)


def test_all_else_is_background() -> None:
    labels = lattice(5, size_m=200)
    window = parcel_window(labels.iloc[[12]], 16)
    assert np.unique(window.class_map).tolist() == [0, int(labels.ground_truth[12])]
    assert np.unique(window.parcel_id).tolist() == [0, int(labels.id[12])]
    assert not window.conflict.any()
    assert (window.class_map.values[[0, -1]] == 0).all()
    # Among its neighbours it wins fewer pixels than alone, as alone it keeps those it only touches.
    among = rasterize(labels, window)
    assert (window.parcel_id == 13).sum() > (among.parcel_id == 13).sum() > 0
    with_more = rasterize(labels, window, background=255)
    assert (with_more.class_map != 255).sum() > (window.class_map != 0).sum()


@pytest.mark.parametrize(
    ("lon", "lat", "zone"), [(2.35, 48.85, 32631), (5.9999, 10, 32631), (-70, -33, 32719), (20, 86, 32661)]
)
def test_it_lies_in_the_utm_zone_of_the_parcel(lon: float, lat: float, zone: int) -> None:
    parcel = gpd.GeoDataFrame({"ground_truth": [3]}, geometry=[shapely.box(lon, lat, lon + 1e-4, lat + 1e-3)], crs=4326)
    window = parcel_window(parcel, 32)
    assert pyproj.CRS(window.spatial_ref.attrs["crs_wkt"]).to_epsg() == zone
    area_m2 = float(window.coverage.sum()) * 100
    true_m2 = abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(parcel.geometry[0])[0])
    # UTM and UPS stretch areas by up to 1.3 %.
    assert area_m2 == pytest.approx(true_m2, rel=0.013)


@pytest.mark.parametrize("resolution", [None, 5.0])
def test_a_window_may_continue_the_pixels_of_a_patch(resolution: float | None) -> None:
    labels = lattice(4, size_m=400)
    patch = rasterize(labels, grid(40, left=LEFT + 3, top=TOP - 4))
    window = parcel_window(labels.iloc[[6]], 30 if resolution else 20, like=patch, resolution=resolution)
    geobox = grid_of(window)
    step = resolution or 10.0
    assert geobox.affine.a == step
    assert (bounds_of(geobox)[0] - LEFT - 3) % step == pytest.approx(0, abs=1e-9)
    assert (bounds_of(geobox)[3] - TOP + 4) % step == pytest.approx(0, abs=1e-9)
    if resolution is None:
        there = patch.parcel_id.sel(x=window.x, y=window.y)
        assert (there == 7).sum() > 50
        np.testing.assert_array_equal(window.parcel_id.values[there == 7], 7)


def test_a_window_may_reach_beyond_the_patch() -> None:
    labels = lattice(4, size_m=400)
    window = parcel_window(labels.iloc[[0]], 40, like=grid(10))
    assert window.sizes["x"] == 40
    assert float(window.coverage.sum(dtype="float64")) * 100 == pytest.approx(labels.area[0], rel=1e-6)


def test_other_layers_and_values_go_through() -> None:
    parcel = lattice(3, size_m=300).assign(yield_t=6.5).iloc[[4]]
    window = parcel_window(parcel, 32, value="yield_t", layers=("class_map", "distance"))
    assert set(window.data_vars) == {"value", "distance"}
    assert np.nanmax(window.value) == 6.5


def test_classes_that_would_mean_something_else_in_each_window_are_refused() -> None:
    crops = lattice(2, size_m=100).assign(ground_truth=["rye", "oats", "rye", "flax"])
    with pytest.raises(InputError, match=r"legend=Legend\.of_texts"):
        parcel_window(crops.iloc[[0]], 16)
    legend = Legend.of_texts(crops.ground_truth)
    codes = [int(parcel_window(crops.iloc[[row]], 16, legend=legend).class_map.max()) for row in range(4)]
    assert codes == [3, 2, 3, 1]
    zero = lattice(2, size_m=100).assign(ground_truth=0)
    with pytest.raises(InputError, match="also the background"):
        parcel_window(zero.iloc[[0]], 16)
    assert int(parcel_window(zero.iloc[[0]], 16, background=255).class_map.min()) == 0


def test_what_cannot_be_done_is_said() -> None:
    labels = lattice(2, size_m=100)
    with pytest.raises(InputError, match="a table of 4 rows"):
        parcel_window(labels, 16)
    with pytest.raises(InputError, match=r"Series.*two pairs of brackets"):
        parcel_window(labels.iloc[0], 16)
    for size_px in (0, 2.5, True):
        with pytest.raises(InputError, match="number of pixels"):
            parcel_window(labels.iloc[[0]], size_px)
    with pytest.raises(InputError, match="resolution"):
        parcel_window(labels.iloc[[0]], 16, resolution=-1)
    with pytest.raises(InputError, match="cannot be burnt: no geometry"):
        parcel_window(gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[None], crs=CRS), 16)


def test_a_parcel_without_a_class_is_refused_with_a_way_out() -> None:
    labels = lattice(2, size_m=100).assign(crop=["rye", "", None, "flax"], code=[1, None, 2, 3])
    labels["code"] = labels["code"].astype("Int64")
    for value, without in (("crop", 1), ("crop", 2), ("code", 1)):
        with pytest.raises(InputError, match=rf"cannot be burnt: no {value}; labels\[labels\['{value}'\]\.notna"):
            parcel_window(labels.iloc[[without]], 16, value=value)
    assert int(parcel_window(labels.iloc[[3]], 16, value="code").class_map.max()) == 3
    with pytest.raises(InputError, match=r"value=\['crop'\] is not the name of a column.*value='crop'"):
        parcel_window(labels.iloc[[0]], 16, value=["crop"])


def test_a_window_of_half_covered_pixels_counts_the_area() -> None:
    labels = lattice(12, size_m=1200)
    touched = half = true = 0.0
    for row in range(0, 144, 6):
        parcel = labels.iloc[[row]]
        touched += float((parcel_window(parcel, 24).class_map > 0).sum()) * 100
        half += float((parcel_window(parcel, 24, min_coverage=0.5).class_map > 0).sum()) * 100
        true += parcel.area.iloc[0]
    assert touched > 1.1 * true
    assert half == pytest.approx(true, rel=0.01)


def test_the_legend_of_a_window_may_be_a_list_of_all_texts() -> None:
    crops = lattice(2, size_m=100).assign(ground_truth=["rye", "oats ", "rye", "flax"])
    legend = ["flax", "oats", "rye"]
    codes = [int(parcel_window(crops.iloc[[row]], 16, legend=legend).class_map.max()) for row in range(4)]
    assert codes == [3, 2, 3, 1]
    named = crops.assign(ground_truth=["rye", "oats", "rye", "flax"])
    named.attrs["legend"] = Legend.of_texts(legend).to_json()
    assert int(parcel_window(named.iloc[[0]], 16).class_map.max()) == 3, "the table brings its own"


def test_coordinate_systems_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = lattice(3, size_m=300).to_crs("EPSG:2154")
    parcel_window(labels.iloc[[0]], 24)

    def anew(*args: object, **kwargs: object) -> None:
        raise AssertionError("a search of 20 ms for every window")

    monkeypatch.setattr(pyproj.Transformer, "from_crs", anew)
    for row in range(1, 9):
        assert parcel_window(labels.iloc[[row]], 24).class_map.any()


def test_sizes_are_those_of_the_boxes_around_parcels() -> None:
    labels = lattice(5, size_m=1000).set_index("id")
    sizes = parcel_sizes(labels, resolution=20)
    edges = labels.bounds
    assert sizes.table.index.equals(labels.index)
    np.testing.assert_allclose(sizes.table.width_px, (edges.maxx - edges.minx) / 20)
    np.testing.assert_allclose(sizes.table.height_px, (edges.maxy - edges.miny) / 20)
    np.testing.assert_allclose(sizes.table.area_m2, labels.area)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.97, 1.0])
def test_the_window_is_the_smallest_that_holds_its_share(share: float) -> None:
    sizes = parcel_sizes(parcels(3))
    side = sizes.window(share)
    assert sizes.share_held(side) >= share
    assert sizes.share_held(side - 1) < share


def test_nine_of_ten_are_90_percent() -> None:
    squares = [shapely.box(LEFT, TOP, LEFT + side, TOP + side) for side in range(10, 110, 10)]
    sizes = parcel_sizes(gpd.GeoDataFrame(geometry=squares, crs=CRS))
    assert sizes.table.side_px.tolist()[0::2] == [1, 3, 5, 7, 9]
    # An even number of pixels, from an edge between pixels on: an even window fits without room to spare.
    assert sizes.table.side_px.tolist()[1::2] == [2, 4, 6, 8, 10]
    assert sizes.window() == 9
    assert sizes.share_held(4) == 0.4


def test_rounding_makes_no_window_larger() -> None:
    # A tenth is no binary fraction, nor is seven hundredths.
    squares = [shapely.box(LEFT, TOP, LEFT + side / 10, TOP + side / 10) for side in range(1, 101)]
    sizes = parcel_sizes(gpd.GeoDataFrame(geometry=squares, crs=CRS), resolution=0.1)
    assert sizes.table.side_px.tolist() == list(range(1, 101))
    assert [sizes.window(percent / 100) for percent in range(1, 101)] == list(range(1, 101))
    # A micrometre more than three pixels, as it comes of bringing a parcel from one CRS into another.
    longer = gpd.GeoDataFrame(geometry=[shapely.box(LEFT, TOP, LEFT + 30.000001, TOP + 30)], crs=CRS)
    assert parcel_sizes(longer).table.side_px.tolist() == [3]


def test_every_parcel_is_measured_in_its_own_zone() -> None:
    places = [(2.0, 48.0), (8.0, 48.0), (14.0, -10.0), (100.0, 70.0)]
    fields = [gpd.GeoSeries([shapely.Point(place)], crs=4326) for place in places]
    squares = [f.to_crs(f.estimate_utm_crs()).buffer(100, cap_style="square").to_crs(4326)[0] for f in fields]
    table = parcel_sizes(gpd.GeoDataFrame(geometry=squares, crs=4326)).table
    np.testing.assert_allclose(table.width_px, 20, atol=0.01)
    np.testing.assert_allclose(table.height_px, 20, atol=0.01)
    np.testing.assert_allclose(table.area_m2, 40_000, rtol=1e-4)


def test_rows_that_are_no_parcels_are_set_aside() -> None:
    shapes = [shapely.box(LEFT, TOP, LEFT + 10, TOP + 10), None, shapely.Point(LEFT, TOP)]
    sizes = parcel_sizes(gpd.GeoDataFrame(geometry=shapes, crs=CRS, index=["a", "b", "c"]))
    assert sizes.table.index.tolist() == ["a"]
    assert [entry["row"] for entry in sizes.set_aside] == [1, 2]
    with pytest.raises(InputError, match="None of the 1 labels is a usable polygon"):
        parcel_sizes(gpd.GeoDataFrame(geometry=[None], crs=CRS))
    with pytest.raises(InputError, match="CRS"):
        parcel_sizes(gpd.GeoDataFrame(geometry=shapes[:1]))
    with pytest.raises(InputError, match="resolution"):
        parcel_sizes(gpd.GeoDataFrame(geometry=shapes[:1], crs=CRS), resolution=0)
    for share in (0, 1.1, True):
        with pytest.raises(InputError, match="share"):
            sizes.window(share)


def test_real_parcels_fit_their_windows(real: Path) -> None:
    labels = gpd.read_file(real / "parcels" / "fr_rpg_2022.gpkg")
    labels["ground_truth"] = 1
    sizes = parcel_sizes(labels)
    side = sizes.window(0.9)
    held = 0
    for row in range(0, len(labels), 5):
        needed = sizes.table.side_px.iloc[row]
        if needed > side:
            continue
        window = parcel_window(labels.iloc[[row]], side, layers=("coverage",))
        assert float(window.coverage.sum(dtype="float64")) * 100 == pytest.approx(
            sizes.table.area_m2.iloc[row], rel=1e-3
        )
        held += 1
    assert held > 8
