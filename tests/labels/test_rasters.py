"""Label rasters on a patch's grid, held against GDAL, numpy and shapely, and what is refused or told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.warp import Resampling, reproject

from deepsentinel.errors import DeepSentinelWarning, InputError, ReadError
from deepsentinel.export import to_geotiff
from deepsentinel.grids import grid_of
from deepsentinel.labels.rasters import read_label_raster
from deepsentinel.legend import Legend, cdl, corine, dynamic_world, worldcover
from deepsentinel.masks import rasterize

UTM = "EPSG:32631"


def write(path: Path, values: np.ndarray, affine: Affine, crs: Any = UTM, colors: Any = None, **profile: Any) -> Path:
    height, width = values.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": values.dtype} | profile
    with rasterio.open(path, "w", crs=crs, transform=affine, **profile) as file:
        file.write(values, 1)
        if colors:
            file.write_colormap(1, colors)
    return path


def patches(rng: np.random.Generator, shape: tuple[int, int], codes: Any, size: int = 3) -> np.ndarray:
    """Blobs of classes, as maps have them."""
    small = rng.choice(codes, (shape[0] // size + 1, shape[1] // size + 1))
    return np.kron(small, np.ones((size, size), int))[: shape[0], : shape[1]].astype("uint8")


def box(grid: GeoBox, row: int, column: int) -> shapely.Polygon:
    x, y = zip(*(grid.affine @ corner for corner in ((column, row), (column + 1, row + 1))), strict=True)
    return shapely.box(min(x), min(y), max(x), max(y))


# ---- nearest ----


def test_nearest_on_the_same_grid_changes_nothing(tmp_path: Path) -> None:
    values = patches(np.random.default_rng(0), (30, 40), worldcover().codes)
    grid = GeoBox((30, 40), Affine(10, 0, 500_000, 0, -10, 5_600_000), UTM)
    path = write(tmp_path / "worldcover.tif", values, grid.affine)
    mask = read_label_raster(path, grid)
    assert mask.attrs["rule"] == "nearest"
    assert list(mask) == ["class_map"]
    np.testing.assert_array_equal(mask.class_map, values)
    assert mask.class_map.dtype == np.uint8
    assert grid_of(mask) == grid


@pytest.mark.parametrize("crs", ["EPSG:3035", "EPSG:4326", "EPSG:32632"])
def test_nearest_agrees_with_gdal_across_projections(tmp_path: Path, crs: str) -> None:
    rng = np.random.default_rng(1)
    grid = GeoBox.from_bbox((600_000, 5_600_000, 602_000, 5_601_500), UTM, resolution=10)
    west, south, east, north = grid.extent.to_crs(crs).boundingbox
    step = (east - west) / 30
    affine = Affine(step, 0, west + step, 0, -step, north - step)  # a piece of the grid lies outside of the file
    values = rng.choice(np.array(corine().codes[:30], "uint16"), (round((north - south) / step), 30))
    path = write(tmp_path / "clc.tif", values, affine, crs)
    expected = np.zeros(grid.shape, "uint16")
    reproject(
        values, expected, src_transform=affine, src_crs=crs, dst_transform=grid.affine, dst_crs=UTM,
        resampling=Resampling.nearest, tolerance=0,
    )  # fmt: skip
    mask = read_label_raster(path, grid)
    assert mask.attrs["rule"] == "nearest"
    assert 0.5 < (expected != 0).mean() < 1
    # GDAL interpolates between transformed points, which may move a centre over a line it all but touches.
    other = np.argwhere(mask.class_map.values != expected)
    assert len(other) < 30
    x, y = grid.affine.c + 10 * (other[:, 1] + 0.5), grid.affine.f - 10 * (other[:, 0] + 0.5)
    x, y = Transformer.from_crs(UTM, crs, always_xy=True).transform(x, y)
    places = np.array([(x - affine.c) / affine.a, (y - affine.f) / affine.e])
    assert (np.abs(places - np.round(places)).min(axis=0) < 1e-3).all()


def test_rows_that_run_north_and_pieces_smaller_than_the_grid(tmp_path: Path) -> None:
    values = np.array([[1, 2], [4, 5]], dtype="uint8")
    grid = GeoBox((5, 4), Affine(10, 0, 0, 0, -10, 50), UTM)
    path = write(tmp_path / "cdl.tif", values, Affine(10, 0, 10, 0, 10, 10))  # its first row is the southern one
    expected = np.zeros((5, 4))
    expected[3, 1:3], expected[2, 1:3] = values
    np.testing.assert_array_equal(read_label_raster(path, grid).class_map, expected)


# ---- majority ----


def by_cells(values: np.ndarray, size: int, grid: GeoBox, offset: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Class and share by counting squares of one metre."""
    metres = np.kron(values, np.ones((size, size), int))
    metres = np.pad(metres, 200)
    step = int(grid.affine.a)
    classes, shares = np.zeros(grid.shape, int), np.zeros(grid.shape)
    for row, column in np.ndindex(*grid.shape):
        top, left = 200 + offset[0] + row * step, 200 + offset[1] + column * step
        counts = np.bincount(metres[top : top + step, left : left + step].ravel(), minlength=256)
        order = [*range(1, 256), 0]  # background loses ties, otherwise the smallest code wins
        best = max(order, key=lambda code: (counts[code], -order.index(code)))
        classes[row, column], shares[row, column] = best, counts[best] / step**2 * (best != 0)
    return classes, shares


@pytest.mark.parametrize("offset", [(0, 0), (-13, 7), (3, -41)])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_majority_counts_areas_exactly(tmp_path: Path, size: int, offset: tuple[int, int]) -> None:
    rng = np.random.default_rng(size)
    values = rng.choice(np.array([0, 10, 20, 30, 80], "uint8"), (60, 70))
    path = write(tmp_path / "worldcover.tif", values, Affine(size, 0, 1000, 0, -size, 2000))
    grid = GeoBox((14, 15), Affine(10, 0, 1000 + offset[1], 0, -10, 2000 - offset[0]), UTM)
    mask = read_label_raster(path, grid)
    assert mask.attrs["rule"] == "majority"
    classes, shares = by_cells(values, size, grid, offset)
    np.testing.assert_array_equal(mask.class_map, classes)
    np.testing.assert_allclose(mask.coverage, shares, atol=1e-6)
    assert len(np.unique(classes)) == 5
    assert mask.attrs["coverage_error"] == 0.0


def test_majority_of_pixels_that_never_meet_agrees_with_shapely(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    step = 10 / np.pi
    values = rng.choice(np.array([10, 20, 30, 80], "uint8"), (16, 18))
    label = GeoBox((16, 18), Affine(step, 0, 3.3, 0, -step, 71.7), UTM)
    grid = GeoBox((5, 4), Affine(10, 0, 5, 0, -10, 70), UTM)
    mask = read_label_raster(write(tmp_path / "worldcover.tif", values, label.affine), grid)
    cells = [box(label, *at) for at in np.ndindex(16, 18)]
    for at in np.ndindex(*grid.shape):
        areas = shapely.area(shapely.intersection(cells, box(grid, *at)))
        held = {code: areas[values.ravel() == code].sum() / 100 for code in (10, 20, 30, 80)}
        held[0] = 1 - sum(held.values())
        best = max(held, key=held.get)  # type: ignore[arg-type]
        assert mask.class_map.values[at] == best
        assert mask.coverage.values[at] == pytest.approx(held[best] if best else 0, abs=1e-6)


def test_ties_go_to_the_smallest_code_and_never_to_the_background(tmp_path: Path) -> None:
    values = np.array([[30, 10, 0, 20], [10, 30, 20, 0], [0, 0, 80, 30], [0, 90, 30, 80]], dtype="uint8")
    path = write(tmp_path / "worldcover.tif", values, Affine(5, 0, 0, 0, -5, 20))
    mask = read_label_raster(path, GeoBox((2, 2), Affine(10, 0, 0, 0, -10, 20), UTM))
    assert mask.class_map.values.tolist() == [[10, 20], [0, 30]]
    assert mask.coverage.values.tolist() == [[0.5, 0.5], [0.0, 0.5]]
    # The other way round neither rows nor columns run as before, and nothing else changes.
    flipped = write(tmp_path / "worldcover2.tif", values[::-1, ::-1].copy(), Affine(-5, 0, 20, 0, 5, 0))
    again = read_label_raster(flipped, GeoBox((2, 2), Affine(10, 0, 0, 0, -10, 20), UTM))
    np.testing.assert_array_equal(again.class_map, mask.class_map)
    north = read_label_raster(path, GeoBox((2, 2), Affine(10, 0, 0, 0, 10, 0), UTM))
    np.testing.assert_array_equal(north.class_map, mask.class_map[::-1])


def test_blocks_leave_no_seams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = patches(np.random.default_rng(4), (300, 290), worldcover().codes, size=4)
    path = write(tmp_path / "worldcover.tif", values, Affine(3, 0, 7, 0, -3, 1000))
    for crs, rule in ((UTM, "majority"), (UTM, "nearest"), ("EPSG:32632", "majority"), ("EPSG:32632", "nearest")):
        grid = GeoBox((80, 75), Affine(10, 0, 0, 0, -10, 990), UTM)
        if crs != UTM:
            grid = GeoBox.from_bbox(grid.extent.to_crs(crs).boundingbox, crs, resolution=10)
        whole = read_label_raster(path, grid, rule=rule)
        with monkeypatch.context() as patch:
            patch.setattr("deepsentinel.labels.regrid.BLOCK_PX", 13)
            pieces = read_label_raster(path, grid, rule=rule)
        assert whole.identical(pieces)
        part = read_label_raster(path, grid[20:50, 30:70], rule=rule)
        np.testing.assert_array_equal(part.class_map, whole.class_map[20:50, 30:70])


def test_majority_across_projections_is_near_the_areas(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    grid = GeoBox.from_bbox((600_000, 5_600_000, 600_400, 5_600_300), UTM, resolution=10)
    crs = "EPSG:4326"
    west, south, east, north = grid.extent.to_crs(crs).buffer(2e-4).boundingbox
    step = 4e-5  # 2.8 m x 4.4 m
    shape = (round((north - south) / step), round((east - west) / step))
    label = GeoBox(shape, Affine(step, 0, west, 0, -step, north), crs)
    values = patches(rng, shape, [10, 20, 30, 80], size=2)
    mask = read_label_raster(write(tmp_path / "worldcover.tif", values, label.affine, crs), grid)
    assert mask.attrs["rule"] == "majority"
    fine = np.array([box(label, *at) for at in np.ndindex(*shape)])
    tree = shapely.STRtree(fine)
    back = Transformer.from_crs(UTM, crs, always_xy=True)
    wrong = 0
    for at in [(row, column) for row in range(0, 30, 3) for column in range(0, 40, 4)]:
        pixel = shapely.transform(box(grid, *at), lambda x, y: back.transform(x, y), interleaved=False)
        near = tree.query(pixel)
        areas = shapely.area(shapely.intersection(fine[near], pixel)) / pixel.area
        held = {code: areas[values.ravel()[near] == code].sum() for code in (10, 20, 30, 80)}
        got = int(mask.class_map.values[at])
        assert max(held.values()) - held[got] < 0.015, "the class taken holds as much as any, within its points"
        assert mask.coverage.values[at] == pytest.approx(held[got], abs=0.015)
        wrong += got != max(held, key=held.get)  # type: ignore[arg-type]
    assert wrong <= 2


@pytest.mark.parametrize("size", [10.0, 5.0, 2.5])
@pytest.mark.parametrize("along", [0, 1])
def test_across_projections_a_straight_border_is_as_wrong_as_said_at_most(
    tmp_path: Path, size: float, along: int
) -> None:
    grid = GeoBox.from_bbox((860_000, 5_600_000, 860_500, 5_600_500), UTM, resolution=10)
    there = Transformer.from_crs(UTM, "EPSG:32632", always_xy=True)
    west, north = there.transform(859_800, 5_600_800)
    count = int(1200 / size)
    values = np.full((count, count), 10, dtype="uint8")
    half = values.T if along else values  # a border from west to east, or from north to south
    half[count // 2 :] = 20
    path = write(tmp_path / "worldcover.tif", values, Affine(size, 0, west, 0, -size, north), "EPSG:32632")
    mask = read_label_raster(path, grid, rule="majority")
    first = (
        shapely.box(west, north - 1200, west + 600, north)
        if along
        else shapely.box(west, north - 600, west + 1200, north)
    )
    worst = 0.0
    for at in np.ndindex(*grid.shape):
        pixel = shapely.transform(box(grid, *at), lambda x, y: there.transform(x, y), interleaved=False)
        share = shapely.area(shapely.intersection(pixel, first)) / pixel.area
        got = share if mask.class_map.values[at] == 10 else 1 - share
        worst = max(worst, abs(float(mask.coverage.values[at]) - got))
    assert 0 < worst <= mask.attrs["coverage_error"] < 0.21


# ---- what files mean ----


def test_corines_grid_codes_and_nodata(tmp_path: Path) -> None:
    values = np.array([[1, 12, 44], [0, 48, 23], [45, 46, 47]], dtype="uint8")
    grid = GeoBox((3, 3), Affine(100, 0, 0, 0, -100, 0), "EPSG:3035")
    for name, given in (("u2018_clc2018_v2020.tif", None), ("somewhere.tif", "corine"), ("other.tif", corine())):
        mask = read_label_raster(write(tmp_path / name, values, grid.affine, "EPSG:3035"), grid, legend=given)
        assert mask.class_map.values.tolist() == [[111, 211, 523], [0, 0, 311], [0, 0, 0]]
        assert mask.class_map.dtype == np.uint16
        assert Legend.from_attrs(mask.class_map.attrs) == corine()
    signed = np.array([[12, -128]], dtype="int8")
    path = write(tmp_path / "clc.tif", signed, grid.affine, "EPSG:3035", nodata=-128)
    assert read_label_raster(path, grid[:1, :2]).class_map.values.tolist() == [[211, 0]]


def test_a_coarser_level_may_be_asked_for(tmp_path: Path) -> None:
    grid = GeoBox((1, 3), Affine(100, 0, 0, 0, -100, 0), UTM)
    for number, values in enumerate(([12, 23, 44], [211, 311, 523])):
        path = write(tmp_path / f"{number}.tif", np.array([values], "uint16"), grid.affine)
        mask = read_label_raster(path, grid, legend=corine(1))
        assert mask.class_map.values.tolist() == [[2, 3, 5]]
        assert Legend.from_attrs(mask.class_map.attrs) == corine(1)


def test_dynamic_world_is_shifted_and_said_so(tmp_path: Path) -> None:
    grid = GeoBox((3, 3), Affine(10, 0, 0, 0, -10, 0), UTM)
    values = np.arange(9, dtype="uint8").reshape(3, 3)
    with pytest.warns(DeepSentinelWarning, match=r"class 0.*shifted by 1"):
        mask = read_label_raster(write(tmp_path / "DynamicWorld_2020.tif", values, grid.affine), grid)
    np.testing.assert_array_equal(mask.class_map, values + 1)
    assert mask.class_map.attrs["shifted_by"] == 1
    legend = Legend.from_attrs(mask.class_map.attrs)
    assert legend is not None
    assert legend[1].name == dynamic_world()[0].name
    gone = write(tmp_path / "dynamic_world.tif", values, grid.affine, nodata=0)
    with pytest.warns(DeepSentinelWarning, match="shifted"):
        assert read_label_raster(gone, grid).class_map.values[0].tolist() == [0, 2, 3]


def test_a_colour_table_tells_the_legend(tmp_path: Path) -> None:
    grid = GeoBox((1, 3), Affine(30, 0, 0, 0, -30, 0), "EPSG:5070")
    values = np.array([[1, 5, 36]], dtype="uint8")
    colors = {code: color for code, color in cdl().color_table().items() if code < 256}
    mask = read_label_raster(write(tmp_path / "a.tif", values, grid.affine, "EPSG:5070", colors), grid)
    assert Legend.from_attrs(mask.class_map.attrs) == cdl()
    assert mask.attrs["legend_from"] == "the file's colour table"
    # The same values in CORINE's colours are CORINE's.
    table, codes = corine().color_table(), corine().codes
    painted = {grid_code: table[code] for grid_code, code in enumerate(codes, 1)}
    mask = read_label_raster(write(tmp_path / "b.tif", values, grid.affine, "EPSG:5070", painted), grid)
    assert mask.class_map.values.tolist() == [[111, 123, 412]]


def test_values_tell_the_legend_only_where_they_leave_no_doubt(tmp_path: Path) -> None:
    grid = GeoBox((1, 3), Affine(10, 0, 0, 0, -10, 0), UTM)
    clear = write(tmp_path / "a.tif", np.array([[40, 80, 100]], "uint8"), grid.affine)
    assert read_label_raster(clear, grid).attrs["legend_from"] == "the file's values"
    doubtful = write(tmp_path / "b.tif", np.array([[1, 2, 5]], "uint8"), grid.affine)
    with pytest.raises(
        InputError, match=r"b.tif .* it holds 1, 2, 5, which bigearthnet19, cdl, corine, .* would fit. Say legend="
    ):
        read_label_raster(doubtful, grid)
    strange = write(tmp_path / "c.tif", np.array([[7, 5000, 9]], "uint16"), grid.affine)
    with pytest.raises(InputError, match="5000, which no legend we know fits"):
        read_label_raster(strange, grid)
    mask = read_label_raster(strange, grid, legend=Legend.of_codes([7, 9, 5000]))
    assert mask.class_map.values.tolist() == [[7, 5000, 9]]


def test_values_outside_the_legend_are_background_and_told(tmp_path: Path) -> None:
    grid = GeoBox((1, 4), Affine(10, 0, 0, 0, -10, 0), UTM)
    path = write(tmp_path / "worldcover.tif", np.array([[10, 11, 0, 7]], "uint8"), grid.affine)
    with pytest.warns(DeepSentinelWarning, match=r"holds 7, 11, which the legend 'worldcover' does not know"):
        mask = read_label_raster(path, grid, legend="worldcover")
    assert mask.class_map.values.tolist() == [[10, 0, 0, 0]]


def test_whole_numbers_stored_as_floats_are_classes_and_fractions_are_not(tmp_path: Path) -> None:
    grid = GeoBox((1, 3), Affine(10, 0, 0, 0, -10, 0), UTM)
    path = write(tmp_path / "worldcover.tif", np.array([[10, np.nan, 80]], "float32"), grid.affine)
    assert read_label_raster(path, grid).class_map.values.tolist() == [[10, 0, 80]]
    path = write(tmp_path / "worldcover2.tif", np.array([[10, 20, 0.5]], "float32"), grid.affine)
    with pytest.raises(InputError, match=r"fractions such as 0\.5"):
        read_label_raster(path, grid)


def test_the_mask_written_with_its_legend_reads_back(tmp_path: Path) -> None:
    grid = GeoBox((20, 20), Affine(10, 0, 0, 0, -10, 0), UTM)
    mine = Legend.of_texts(["fen", "reed", "water"])
    values = np.random.default_rng(0).integers(0, 4, (20, 20)).astype("uint8")
    path = write(tmp_path / "mine.tif", values, grid.affine)
    with rasterio.open(path, "r+") as file:
        file.update_tags(legend=mine.to_json())
    mask = read_label_raster(path, grid)
    np.testing.assert_array_equal(mask.class_map, values)
    assert Legend.from_attrs(mask.class_map.attrs) == mine


# ---- what cannot be used ----


def test_a_grid_far_away_is_background_and_told_how_far(tmp_path: Path) -> None:
    values = np.full((10, 10), 10, "uint8")
    path = write(tmp_path / "worldcover.tif", values, Affine(10, 0, 500_000, 0, -10, 5_000_000))
    grid = GeoBox((10, 10), Affine(10, 0, 510_100, 0, -10, 5_000_000), UTM)
    for rule in ("nearest", "majority"):
        with pytest.warns(DeepSentinelWarning, match=r"does not reach the grid: the file ends 10(\.0\d)? km away"):
            mask = read_label_raster(path, grid, rule=rule)
        assert not mask.class_map.any()


def test_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    grid = GeoBox((2, 2), Affine(10, 0, 0, 0, -10, 0), UTM)
    values = np.full((2, 2), 10, "uint8")
    with pytest.raises(InputError, match="There is no file"):
        read_label_raster(tmp_path / "nowhere.tif", grid)
    (tmp_path / "text.tif").write_text("not a raster")
    with pytest.raises(ReadError, match=r"text.tif cannot be opened as a raster"):
        read_label_raster(tmp_path / "text.tif", grid)
    (tmp_path / "parcels.geojson").write_text("{}")
    with pytest.raises(InputError, match=r"parcels.geojson is not a raster; read_labels"):
        read_label_raster(tmp_path / "parcels.geojson", grid)
    lost = write(tmp_path / "worldcover.tif", values, grid.affine, None)
    with pytest.raises(InputError, match=r"does not tell its CRS.*crs='EPSG"):
        read_label_raster(lost, grid)
    np.testing.assert_array_equal(read_label_raster(lost, grid, crs=UTM).class_map, values)
    good = write(tmp_path / "worldcover2.tif", values, grid.affine)
    with pytest.raises(InputError, match="says it is in EPSG:32631"):
        read_label_raster(good, grid, crs="EPSG:32632")
    with pytest.raises(InputError, match=r"bands 1 to 1, not band=2"):
        read_label_raster(good, grid, band=2)
    with pytest.raises(InputError, match="rule='mode'"):
        read_label_raster(good, grid, rule="mode")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no legend called 'wordcover'"):
        read_label_raster(good, grid, legend="wordcover")
    with pytest.raises(InputError, match="masks need a grid"):
        read_label_raster(good, values)
    content = good.read_bytes()
    noise = np.random.default_rng(0).integers(0, 255, (400, 400)).astype("uint8")
    cut = write(tmp_path / "cdl.tif", noise, grid.affine)
    cut.write_bytes(cut.read_bytes()[: len(content) + 4000])
    with pytest.raises(ReadError, match=r"cdl.tif"):
        read_label_raster(cut, GeoBox((400, 400), grid.affine, UTM), legend="cdl")


def test_only_the_window_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepsentinel.labels import rasters

    path = tmp_path / "clc_country.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=65_000, height=46_000, count=1, dtype="uint8", crs="EPSG:3035", tiled=True,
        compress="deflate", sparse_ok=True, transform=Affine(100, 0, 900_000, 0, -100, 5_500_000),
    ) as file:  # fmt: skip
        file.write(np.full((512, 512), 12, "uint8"), 1, window=rasterio.windows.Window(30_720, 20_480, 512, 512))
    read = []
    original = rasters._Raster.read

    def counted(self: Any, window: Any) -> Any:
        values = original(self, window)
        read.append(values.size)
        return values

    monkeypatch.setattr(rasters._Raster, "read", counted)
    grid = GeoBox((300, 300), Affine(10, 0, 3_990_000, 0, -10, 3_440_000), "EPSG:3035")
    mask = read_label_raster(path, grid)
    assert (mask.class_map == 211).all()
    assert sum(read) < 3 * 32**2


# ---- real files ----


def test_real_corine_in_a_crs_with_northing_first(real: Path) -> None:
    path = real / "corine" / "lanjaron_25m.tif"
    with rasterio.open(path) as file:
        values, affine = file.read(1, masked=True).filled(0), file.transform
    # EPSG:25830 is the same ground as the file's EPSG:3042, whose axes are the other way round.
    grid = GeoBox(values.shape, affine, "EPSG:25830")
    mask = read_label_raster(path, grid)
    np.testing.assert_array_equal(mask.class_map, values)
    assert Legend.from_attrs(mask.class_map.attrs) == corine()
    fine = GeoBox((400, 500), Affine(10, 0, affine.c + 1000, 0, -10, affine.f - 2000), "EPSG:25830")
    np.testing.assert_array_equal(
        read_label_raster(path, fine).class_map, np.kron(values, np.ones((5, 5), int))[401:1201:2, 201:1201:2]
    )
    coarse = GeoBox((149, 94), Affine(125, 0, affine.c, 0, -125, affine.f), "EPSG:25830")
    got = read_label_raster(path, coarse)
    for row, column in np.ndindex(149, 94):
        codes, counts = np.unique(values[row * 5 : row * 5 + 5, column * 5 : column * 5 + 5], return_counts=True)
        assert got.class_map.values[row, column] == codes[np.argmax(counts)]
        assert got.coverage.values[row, column] == pytest.approx(counts.max() / 25)


def test_real_corine_agrees_with_gdal_on_a_utm_grid(real: Path) -> None:
    path = real / "corine" / "lanjaron_25m.tif"
    grid = GeoBox.from_bbox((455_000, 4_083_000, 462_000, 4_097_000), "EPSG:32630", resolution=20)
    expected = np.zeros(grid.shape, "uint32")
    with rasterio.open(path) as file:
        reproject(
            file.read(1), expected, src_transform=file.transform, src_crs="EPSG:25830", dst_transform=grid.affine,
            dst_crs="EPSG:25830", resampling=Resampling.nearest,
        )  # fmt: skip
    got = read_label_raster(path, grid, rule="nearest").class_map.values
    assert (got == expected).mean() > 0.9999
    assert (got != 0).all()


@pytest.mark.parametrize("place", ["637U_59R_1_3", "282D_485L_3_3"])
def test_real_land_cover_without_a_legend_asks_for_one(real: Path, place: str) -> None:
    path = real / "terramind" / "LULC" / f"{place}.tif"
    with rasterio.open(path) as file:
        values, grid = file.read(1), GeoBox(file.shape, file.transform, file.crs)
    with pytest.raises(InputError, match="does not tell what its values mean"):
        read_label_raster(path, grid)
    legend = Legend.of_codes(range(1, 10), name="terramesh")
    np.testing.assert_array_equal(read_label_raster(path, grid, legend=legend).class_map, values)
    coarse = grid.zoom_out(7)
    with rasterio.open(path) as file:
        expected = file.read(1, out_shape=coarse.shape, resampling=Resampling.mode)
    mask = read_label_raster(path, coarse, legend=legend)
    counts = np.stack([(values == code).reshape(32, 7, 32, 7).sum(axis=(1, 3)) for code in range(1, 10)])
    clear = np.sort(counts, axis=0)[-1] > np.sort(counts, axis=0)[-2]  # GDAL has its own mind about ties
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(mask.class_map.values[clear], expected[clear])
    np.testing.assert_array_equal(mask.class_map, counts.argmax(axis=0) + 1)


def test_real_netcdf_labels_say_which_layers_and_that_they_are_nowhere(real: Path) -> None:
    (path,) = (real / "series").rglob("OUTPUT_POLY*.nc")
    grid = GeoBox((64, 64), Affine(10, 0, 574_680, 0, -10, 5_622_440), UTM)
    with pytest.raises(InputError, match=r"holds several rasters; open one of them: netcdf:.*:LC, .*:CT"):
        read_label_raster(path, grid)
    with pytest.raises(InputError, match="does not tell where its pixels lie"):
        read_label_raster(f"netcdf:{path}:LC", grid)


# ---- coarse CORINE, whose codes look like the numbers of its rasters ----

COARSE = GeoBox((20, 20), Affine(10, 0, 500_000, 0, -10, 5_400_200), UTM)


def coarse_mask(level: int) -> tuple[Any, np.ndarray]:
    """A mask of all classes of a level, each in a cell of its own."""
    legend = corine(level)
    codes = np.zeros(COARSE.shape, dtype="int64")
    codes.flat[: len(legend)] = legend.codes
    rows, columns = np.nonzero(codes)
    places = [box(COARSE, row, column) for row, column in zip(rows, columns, strict=True)]
    labels = gpd.GeoDataFrame({"ground_truth": codes[rows, columns]}, geometry=places, crs=UTM)
    return rasterize(labels, COARSE, legend=legend), codes


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("named", [True, False])
def test_a_mask_of_corine_reads_back_at_each_level(tmp_path: Path, level: int, named: bool) -> None:
    mask, codes = coarse_mask(level)
    (path,) = to_geotiff(mask, tmp_path, bands=["class_map"])
    again = read_label_raster(path, COARSE, legend=corine(level) if named else None)
    np.testing.assert_array_equal(again.class_map, codes)
    assert Legend.from_attrs(again.class_map.attrs) == Legend.from_attrs(mask.class_map.attrs) or named
    # A part of it that holds small codes only is of the same legend.
    corner = read_label_raster(path, COARSE[:1, :3], legend=corine(level) if named else None)
    np.testing.assert_array_equal(corner.class_map, codes[:1, :3])


@pytest.mark.parametrize("level", [1, 2, 3])
def test_without_a_legend_in_the_file_all_its_values_tell_what_they_are(tmp_path: Path, level: int) -> None:
    legend, columns = corine(level), np.arange(20)
    own = np.resize(legend.codes, COARSE.shape).astype("uint16")
    path = write(tmp_path / "own.tif", own, COARSE.affine)
    np.testing.assert_array_equal(read_label_raster(path, COARSE[:1, :3], legend=legend).class_map, own[:1, :3])
    # The numbers by which CORINE's rasters are published, the first of which are codes of level 1 too.
    numbers = np.resize(np.arange(1, 45), COARSE.shape).astype("uint8")
    path = write(tmp_path / "numbers.tif", numbers, COARSE.affine)
    found = read_label_raster(path, COARSE[:1, :20], legend=legend).class_map.values[0]
    expected = corine(3).up(np.array(corine(3).codes)[columns], level) if level < 3 else corine(3).codes[:20]
    np.testing.assert_array_equal(found, expected)
    # 1, 2 and 3 are all of level 1's class 1.
    assert level != 1 or found[:3].tolist() == [1, 1, 1]


def test_a_coarse_mask_is_not_read_as_if_it_were_fine(tmp_path: Path) -> None:
    (path,) = to_geotiff(coarse_mask(1)[0], tmp_path, bands=["class_map"])
    with pytest.warns(DeepSentinelWarning, match="does not know"):
        found = read_label_raster(path, COARSE, legend=corine(3))
    assert not found.class_map.values.any()
