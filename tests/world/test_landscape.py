"""The ground of the demo world: complete, consistent with itself, the same wherever and whenever it is asked for."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from landscapes import land
from pyproj import Transformer
from rasterio.features import rasterize

from deepsentinel.errors import InputError
from deepsentinel.world.classes import LAND_COVER, Cover, Crop, cover_to_land_cover, fine_class_names
from deepsentinel.world.classmaps import class_map, land_cover_map
from deepsentinel.world.grid import WORLD_CRS, master_grid, sample, tile_geoboxes
from deepsentinel.world.landscape import Landscape, build_landscape
from deepsentinel.world.lattice import plain
from deepsentinel.world.noise import hash01, resize, rng_for, smooth
from deepsentinel.world.splitting import area_and_centre, split

SEEDS = (0, 1, 2)


def at(affine: Affine, col: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where pixel coordinates lie, written out: the operator for it differs between versions of affine."""
    return affine.a * col + affine.b * row + affine.c, affine.d * col + affine.e * row + affine.f


# Grids


def test_tiles_lie_in_two_zones_on_the_sixty_metre_lattice_and_overlap_by_two_fifths() -> None:
    for size_px in (256, 1024):
        west, east = tile_geoboxes(size_px).values()
        assert (west.crs.epsg, east.crs.epsg) == (32630, 32631)
        for box in (west, east):
            assert box.shape == (size_px, size_px)
            assert box.affine.c % 60 == 0
            assert box.affine.f % 60 == 0
            assert (box.affine.a, box.affine.e) == (10, -10)
        a, b = (box.extent.to_crs("EPSG:3035").geom for box in (west, east))
        assert 0.34 < a.intersection(b).area / a.area < 0.43
        assert a.centroid.x < b.centroid.x


@pytest.mark.parametrize("oversample", [1, 2])
def test_sample_finds_the_cell_under_each_pixel(oversample: int) -> None:
    grid = master_grid(512)
    rng = np.random.default_rng(0)
    for box in tile_geoboxes(512).values():
        rows, cols = sample(grid, box, oversample)
        assert rows.shape == (512 * oversample, 512 * oversample)
        i, j = rng.integers(0, 512 * oversample, (2, 4000))
        x, y = at(box.affine, (j + 0.5) / oversample, (i + 0.5) / oversample)
        wx, wy = Transformer.from_crs(str(box.crs), WORLD_CRS, always_xy=True).transform(x, y)
        row, col = (grid.origin_y - wy) / 5, (wx - grid.origin_x) / 5
        # Inside its cell to a centimetre, which is 0.002 cells.
        assert np.all((rows[i, j] <= row + 0.002) & (row - 0.002 <= rows[i, j] + 1))
        assert np.all((cols[i, j] <= col + 0.002) & (col - 0.002 <= cols[i, j] + 1))
        assert rows.min() > 0
        assert rows.max() < grid.shape[0] - 1
        assert cols.min() > 0
        assert cols.max() < grid.shape[1] - 1


def test_plain_polygons_are_burnt_as_shapely_ones() -> None:
    """The quick way into the rasteriser keeps holes, order and those shapes that are no simple polygons."""
    grid = master_grid(256)
    rng = np.random.default_rng(1)
    x = grid.origin_x + rng.random(40) * grid.shape[1] * 5
    y = grid.origin_y - rng.random(40) * grid.shape[0] * 5
    rings = shapely.difference(shapely.buffer(shapely.points(x, y), 90), shapely.buffer(shapely.points(x, y), 40))
    mixed = [*rings[:3], shapely.MultiPolygon([shapely.box(0, 0, 50, 50), shapely.box(90, 90, 130, 130)])]
    for shapes in (list(rings), mixed):
        quick, slow = (
            rasterize(((s, k) for k, s in enumerate(given, 1)), out_shape=grid.shape, transform=grid.transform)
            for given in (plain(shapes), shapes)
        )
        assert len(np.unique(slow)) > 3
        np.testing.assert_array_equal(quick, slow)
    assert plain([]) == []
    assert all(isinstance(shape, dict) for shape in plain(rings))


# Randomness


def test_streams_of_randomness_are_named_and_independent() -> None:
    first = rng_for(3, "towns").random(5)
    assert np.array_equal(first, rng_for(3, "towns").random(5))
    assert not np.array_equal(first, rng_for(3, "roads").random(5))
    assert not np.array_equal(first, rng_for(4, "towns").random(5))


@pytest.mark.parametrize("shape", [(36, 60), (31, 47)], ids=["whole factor", "any factor"])
@pytest.mark.parametrize("cubic", [False, True])
def test_resize_keeps_planes_and_never_overshoots(shape: tuple[int, int], cubic: bool) -> None:
    rows, cols = np.mgrid[0:12, 0:20].astype(np.float32)
    plane = resize(2 * rows - cols, shape, cubic=cubic)
    at_rows = (np.arange(shape[0]) + 0.5) * 12 / shape[0] - 0.5
    at_cols = (np.arange(shape[1]) + 0.5) * 20 / shape[1] - 0.5
    expected = 2 * at_rows[:, None] - at_cols[None, :]
    margin = 8  # at the rim there is nothing to lean on
    inner = (slice(margin, -margin), slice(margin, -margin))
    assert np.allclose(plane[inner], expected[inner], atol=1e-4)
    rough = np.random.default_rng(1).random((12, 20))
    big = resize(rough, shape, cubic=cubic)
    assert rough.min() <= big.min()
    assert big.max() <= rough.max()


def test_noise_has_unit_variance_and_the_width_asked_for() -> None:
    field = smooth(rng_for(0, "a test"), (600, 600), 12)
    assert 0.85 < field.std() < 1.15
    assert np.corrcoef(field[:, :-3].ravel(), field[:, 3:].ravel())[0, 1] > 0.75
    assert abs(np.corrcoef(field[:, :-40].ravel(), field[:, 40:].ravel())[0, 1]) < 0.1
    luck = hash01(np.arange(20_000), 5)
    assert abs(luck.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(luck[:-1], luck[1:])[0, 1]) < 0.03


def test_splitting_is_a_partition_into_convex_plots_of_about_the_size_asked_for() -> None:
    ring = [(0.0, 0.0), (4000.0, 0.0), (5000.0, 2500.0), (1000.0, 3000.0)]
    plots, cuts = split(
        ring, np.random.default_rng(0), target_m2=lambda x, y: 40_000.0, angle_deg=lambda x, y: 20.0, elongation=2.0
    )
    shapes = np.array([shapely.Polygon(p.points) for p in plots])
    assert sum(p.area_m2 for p in plots) == pytest.approx(abs(area_and_centre(ring)[0]))
    assert shapely.union_all(shapes).area == pytest.approx(shapely.area(shapes).sum())
    assert np.allclose(shapely.area(shapely.convex_hull(shapes)), shapely.area(shapes))
    assert 15_000 < np.median(shapely.area(shapes)) < 55_000
    assert len(cuts) == len(plots) - 1


# The landscape


def test_the_same_seed_is_the_same_bytes_and_another_is_another_earth(tmp_path: Path) -> None:
    for name, here in (("a", land(3, 256)), ("b", build_landscape(3, 256))):
        here.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (land(3, 256).cover != land(4, 256).cover).mean() > 0.3


def test_what_is_loaded_is_what_was_built(tmp_path: Path) -> None:
    built = land(0)
    built.save(tmp_path / "land.npz")
    loaded = Landscape.load(tmp_path / "land.npz")
    for name in ("cover", "parcel", "height", "tree", "moisture"):
        assert np.array_equal(getattr(built, name), getattr(loaded, name)), name
        assert getattr(built, name).dtype == getattr(loaded, name).dtype, name
    assert built.parcels.drop(columns="geometry").equals(loaded.parcels.drop(columns="geometry"))
    assert all(a.equals_exact(b, 0) for a, b in zip(built.parcels.geometry, loaded.parcels.geometry, strict=True))
    assert {k: [t for _, t in v] for k, v in built.features.items()} == {
        k: [t for _, t in v] for k, v in loaded.features.items()
    }
    assert (loaded.seed, loaded.size_px, loaded.grid) == (0, 512, built.grid)


@pytest.mark.parametrize(("seed", "size_px"), [*((seed, 512) for seed in SEEDS), (3, 256), (4, 256)])
def test_every_class_is_somewhere_in_the_tiles(seed: int, size_px: int) -> None:
    seen = {
        int(code)
        for year in (2018, 2019)
        for box in tile_geoboxes(size_px).values()
        for code in np.unique(class_map(land(seed, size_px), box, year))
    }
    assert seen == set(fine_class_names())


@pytest.mark.parametrize("seed", SEEDS)
def test_each_tile_has_a_fair_mixture(seed: int) -> None:
    for box in tile_geoboxes(512).values():
        broad = land_cover_map(land(seed), box, 2018)
        share = {code: float((broad == code).mean()) for code in LAND_COVER}
        assert sum(share.values()) == pytest.approx(1)
        assert 0.04 < share[10] < 0.35
        assert 0.10 < share[30] < 0.45
        assert 0.15 < share[40] < 0.55
        assert 0.02 < share[50] < 0.12
        assert 0.004 < share[60] < 0.06
        assert 0.05 < share[80] < 0.30
        assert 0.005 < share[90] < 0.08


@pytest.mark.parametrize("seed", SEEDS)
def test_heights_and_water_agree(seed: int) -> None:
    from scipy import ndimage

    here = land(seed)
    sea = here.cover == Cover.SEA
    assert here.height[sea].max() < 0
    inland = ~sea & (here.cover != Cover.TIDAL_FLAT)
    assert here.height[inland].min() > 0
    assert 40 < here.height.max() < 400
    # The sea lies in the north and is one body (creeks in the flats may be cut off at this resolution).
    assert sea[0].all()
    assert not sea[-1].any()
    labels, _ = ndimage.label(sea)
    assert (labels == labels[0, 0]).sum() > 0.97 * sea.sum()
    # Lakes are level.
    labels, count = ndimage.label(here.cover == Cover.LAKE)
    for number in range(1, count + 1):
        body = ndimage.binary_erosion(labels == number, iterations=5)
        if body.sum() > 2000:
            assert np.ptp(here.height[body]) < 1.5


@pytest.mark.parametrize("seed", SEEDS)
def test_the_river_runs_downhill_from_the_hills_to_the_sea(seed: int) -> None:
    here = land(seed)
    line = here.features["river"][0][0]
    xy = np.array(line.coords)
    row, col = here.grid.index(xy[:, 0], xy[:, 1])
    wet = here.cover[row, col] == Cover.RIVER
    level = here.height[row, col][wet]
    assert level[0] > 5
    assert level[-1] < 1
    # A bend may touch the next one on the raster: hence the tolerance.
    assert np.max(level - np.minimum.accumulate(level)) < 0.6
    length = line.length
    assert length / np.hypot(*(xy[-1] - xy[0])) > 1.1, "it does not meander"
    bank = shapely.get_coordinates(line.buffer(90).exterior)
    row, col = here.grid.index(bank[:, 0], bank[:, 1])
    away = np.abs(bank[:, 1]) < 2000
    assert np.median(here.height[row, col][away]) > np.median(level) - 1


@pytest.mark.parametrize("seed", SEEDS)
def test_parcels_and_cover_tell_the_same_story(seed: int) -> None:
    here = land(seed)
    assert list(here.parcels["parcel"]) == list(range(1, len(here.parcels) + 1))
    assert here.parcel.max() == len(here.parcels)
    assert np.array_equal(np.unique(here.parcel)[1:], here.parcels["parcel"])
    assert ((here.cover == Cover.CROP) <= (here.parcel > 0)).all()
    assert set(np.unique(here.cover[here.parcel > 0])) == {Cover.CROP, Cover.GRASSLAND}
    # Outlines are the raster's, smoothed by less than a cell or two.
    raster_m2 = np.bincount(here.parcel.ravel())[1:] * 25.0
    outline_m2 = shapely.area(here.parcels["geometry"].to_numpy())
    assert np.median(np.abs(outline_m2 / raster_m2 - 1)) < 0.02
    rng = np.random.default_rng(0)
    for k in rng.choice(len(here.parcels), 40, replace=False):
        inner = here.parcels["geometry"].iloc[k].buffer(-12)
        if inner.is_empty:
            continue
        spot = inner.representative_point()
        row, col = here.grid.index(np.array(spot.x), np.array(spot.y))
        assert here.parcel[row, col] == k + 1


@pytest.mark.parametrize("seed", SEEDS)
def test_parcels_are_sized_and_shaped_as_in_western_europe(seed: int) -> None:
    shapes = land(seed).parcels["geometry"].to_numpy()
    hectares = shapely.area(shapes) / 1e4
    assert 250 < len(shapes) < 700  # a quarter of the ground of the full size
    assert 2.5 < np.median(hectares) < 6
    assert hectares.min() > 0.4
    assert np.quantile(hectares, 0.95) < 40
    box = shapely.minimum_rotated_rectangle(shapes)
    sides = np.array([np.sort(np.hypot(*np.diff(np.array(b.exterior.coords)[:3], axis=0).T)) for b in box])
    assert 1.3 < np.median(sides[:, 1] / sides[:, 0]) < 3
    # Neighbours share their borders: nothing overlaps.
    assert shapely.union_all(shapes).area == pytest.approx(shapely.area(shapes).sum(), rel=1e-9)
    assert shapely.is_valid(shapes).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_crops_rotate(seed: int) -> None:
    table = land(seed).parcels
    pairs = Counter(zip(table["crop_2018"], table["crop_2019"], strict=True))
    for crop in (Crop.RAPESEED, Crop.SUGAR_BEET, Crop.POTATO):
        assert pairs[crop, crop] == 0, crop.name
    vines = {c for pair in pairs for c in pair if Crop.VINEYARD in pair}
    assert vines == {Crop.VINEYARD}
    arable = table[~table["crop_2018"].isin([Crop.GRASS, Crop.VINEYARD])]
    assert (arable["crop_2018"] == arable["crop_2019"]).mean() < 0.25
    for year in (2018, 2019):
        share = (arable[f"crop_{year}"] == Crop.WINTER_WHEAT).mean()
        assert 0.2 < share < 0.55
    assert abs(table["vigour"].mean() - 1) < 0.03
    assert 0.06 < table["vigour"].std() < 0.14


def test_a_year_without_crops_is_refused() -> None:
    with pytest.raises(InputError, match="2018 and 2019, not for 2020"):
        land(0).crop_raster(2020)


# Class maps


def test_a_pixel_is_the_commonest_class_within_it() -> None:
    here = land(0)
    box = tile_geoboxes(512)["31UCQ"]
    fine = class_map(here, box, 2019)
    rows, cols = sample(here, box, 2)
    crop = here.crop_raster(2019)
    small = np.where(here.cover == Cover.CROP, 100 + crop, here.cover)[rows, cols]
    rng = np.random.default_rng(0)
    for i, j in rng.integers(0, 512, (3000, 2)):
        counts = Counter(small[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel().tolist())
        assert counts[int(fine[i, j])] == max(counts.values())
    as_tuple = class_map(here, (box.crs, box.affine, tuple(box.shape)), 2019)
    assert np.array_equal(fine, as_tuple)
    assert Cover.CROP not in np.unique(fine)


def test_both_tiles_see_the_same_ground_where_they_overlap() -> None:
    here = land(1)
    west, east = tile_geoboxes(512).values()
    maps = [class_map(here, box, 2018) for box in (west, east)]
    i, j = np.mgrid[0:512:3, 0:512:3]
    x, y = at(west.affine, j.ravel() + 0.5, i.ravel() + 0.5)
    ex, ey = Transformer.from_crs(str(west.crs), str(east.crs), always_xy=True).transform(x, y)
    col, row = at(~east.affine, np.asarray(ex), np.asarray(ey))
    inside = (row >= 0) & (row < 512) & (col >= 0) & (col < 512)
    assert 0.3 < inside.mean() < 0.45
    mine = maps[0][i.ravel(), j.ravel()][inside]
    other = maps[1][row[inside].astype(int), col[inside].astype(int)]
    same = mine == other
    # Only pixels on a border may differ, since the grids are turned and shifted against each other; in the town there
    # is nothing but borders.
    town = np.isin(mine, [Cover.BUILDING, Cover.ASPHALT, Cover.GARDEN, Cover.BROADLEAF, Cover.HEDGE])
    assert same.mean() > 0.85
    assert same[~town].mean() > 0.94


def test_broad_classes_follow_from_fine_ones() -> None:
    codes = np.array([*fine_class_names()], dtype=np.uint8)
    assert set(cover_to_land_cover(codes)) == set(LAND_COVER)
    assert cover_to_land_cover(np.array([Cover.CROP]))[0] == 40
    assert cover_to_land_cover(np.array([0]))[0] == 0


def test_rendering_needs_no_scipy() -> None:
    code = (
        "import sys\n"
        "from deepsentinel.world import classes, classmaps, grid, landscape, noise\n"
        "grid.sample(grid.master_grid(256), grid.tile_geoboxes(256)['31UCQ'])\n"
        "noise.fractal(noise.rng_for(0, 'x'), (50, 50), 10)\n"
        "print([m for m in ('scipy', 'torch', 'matplotlib', 'geopandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize("seed", SEEDS)
def test_hedged_country_has_small_fields_and_more_grass_and_maize(seed: int) -> None:
    """The bocage and the open plain differ in more than one way at once, as they do on the ground."""
    here = land(seed)
    shapes = here.parcels["geometry"].to_numpy()
    hedge = here.cover == Cover.HEDGE
    block = 160  # 800 m
    rows, cols = here.shape[0] // block, here.shape[1] // block
    near = hedge[: rows * block, : cols * block].reshape(rows, block, cols, block).mean(axis=(1, 3))
    spot = shapely.point_on_surface(shapes)
    row, col = here.grid.index(shapely.get_x(spot), shapely.get_y(spot))
    hedged = near[np.minimum(row // block, rows - 1), np.minimum(col // block, cols - 1)]
    bocage, plain = hedged > np.quantile(hedged, 0.75), hedged <= np.quantile(hedged, 0.3)
    hectares = shapely.area(shapes) / 1e4
    # The large ones tell: on the plain, too, corners and slivers are small.
    assert np.quantile(hectares[bocage], 0.9) < 0.9 * np.quantile(hectares[plain], 0.9)
    leafy = here.parcels["crop_2018"].isin([Crop.GRASS, Crop.MAIZE]).to_numpy()
    assert leafy[bocage].mean() > leafy[plain].mean() + 0.3
