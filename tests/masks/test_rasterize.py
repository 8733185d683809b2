"""Labels to masks: what every pixel of every layer means, whatever the rows, the grid and the CRS are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from parcels_kit import CRS, LEFT, TOP, grid, lattice, pixel_shares

from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.legend import Legend, corine
from deepsentinel.masks import parcel_numbers, rasterize
from deepsentinel.masks.fractions import label_vector

SMALL = Affine(10, 0, 0, 0, -10, 60)


def small_grid(affine: Affine = SMALL, shape: tuple[int, int] = (6, 6)) -> GeoBox:
    return GeoBox(shape, affine, CRS)


def table(shapes: list[Any], classes: list[Any] | None = None, **columns: Any) -> gpd.GeoDataFrame:
    ground_truth = list(range(1, len(shapes) + 1)) if classes is None else classes
    return gpd.GeoDataFrame({"ground_truth": ground_truth, **columns}, geometry=shapes, crs=CRS)


def crowd(seed: int, count: int = 25, *, snap: float = 5.0, classes: int = 4) -> gpd.GeoDataFrame:
    """Overlapping polygons whose corners lie on a coarse lattice, so that many shares are equal."""
    rng = np.random.default_rng(seed)
    shapes = []
    while len(shapes) < count:
        corners = np.round(rng.uniform(-10, 70, (rng.integers(3, 7), 2)) / snap) * snap
        hull = shapely.convex_hull(shapely.multipoints(corners))
        if hull.area > 0:
            shapes.append(hull)
    return table(shapes, rng.integers(1, classes + 1, count).tolist(), id=rng.permutation(count) + 1)


# ---- what is there -------------------------------------------------------------------------------------------------


def test_real_corine_polygons_give_their_raster(real: Path) -> None:
    with rasterio.open(real / "corine" / "lanjaron_25m.tif") as raster:
        wanted, geobox = raster.read(1), GeoBox(raster.shape, raster.transform, raster.crs)
    labels = gpd.read_file(real / "corine" / "lanjaron.gpkg", layer="clc")
    # The same zone, but the CRS of the raster names the northing first, and that of the polygons the easting.
    assert geobox.crs is not None
    assert (geobox.crs.epsg, labels.crs.to_epsg()) == (3042, 25830)
    masks = rasterize(labels.assign(ground_truth=labels["CODE_18"].astype(int)), geobox, rule="centre")
    assert np.array_equal(masks["class_map"], np.where(wanted == 2**32 - 1, 0, wanted))
    assert masks["class_map"].dtype == "uint16"


def test_real_eopatch_polygons_give_their_raster(real: Path) -> None:
    folder = real / "eopatch" / "TestEOPatch"
    wanted = np.load(folder / "mask_timeless" / "LULC.npy").squeeze()
    left, bottom, right, top = shapely.from_geojson((folder / "bbox.geojson").read_text()).bounds
    rows, columns = wanted.shape
    affine = Affine((right - left) / columns, 0, left, 0, (bottom - top) / rows, top)
    labels = gpd.read_file(folder / "vector_timeless" / "LULC.gpkg")
    geobox = GeoBox(wanted.shape, affine, labels.crs)
    masks = rasterize(labels, geobox, value="LULC_ID", rule="centre", background=255)
    assert np.array_equal(masks["class_map"], wanted)


def winner_by_hand(labels: gpd.GeoDataFrame, shares: np.ndarray, may_win: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class and share of the polygon that covers most, of equals the one of lower class, then lower id."""
    order = labels.assign(row=range(len(labels))).sort_values(["ground_truth", "id"])["row"].to_numpy()
    best = np.zeros(shares.shape[1:])
    code = np.zeros(shares.shape[1:], dtype=int)
    for row in order:
        better = may_win[row] & (shares[row] > best + 1e-9)
        best[better] = shares[row][better]
        code[better] = labels["ground_truth"].iloc[row]
    return code, best


@pytest.mark.parametrize("seed", range(4))
def test_a_pixel_belongs_to_the_polygon_that_covers_most_of_it(seed: int) -> None:
    labels, geobox = crowd(seed), small_grid()
    shares = pixel_shares(labels, geobox)
    masks = rasterize(labels, geobox)
    code, best = winner_by_hand(labels, shares, shares > 1e-9)
    assert np.array_equal(masks["class_map"], code)
    assert np.allclose(masks["coverage"], best, atol=1e-6)
    winners = labels.set_index("id")["ground_truth"].reindex(masks["parcel_id"].values.ravel(), fill_value=0)
    assert np.array_equal(winners.to_numpy().reshape(6, 6), code)


@pytest.mark.parametrize("seed", range(4))
def test_by_the_centre_rule_only_polygons_with_the_middle_may_win(seed: int) -> None:
    labels, geobox = crowd(seed, count=8, snap=1.7), small_grid()
    labels["geometry"] = labels.geometry.scale(0.5, 0.5)
    shares = pixel_shares(labels, geobox)
    inside = np.array(
        [rasterio.features.rasterize([shape], (6, 6), transform=SMALL, dtype="uint8") for shape in labels.geometry]
    ).astype(bool)
    code, best = winner_by_hand(labels, shares, inside)
    masks = rasterize(labels, geobox, rule="centre")
    assert np.array_equal(masks["class_map"], code)
    assert np.allclose(masks["coverage"], best, atol=1e-6)
    assert not np.array_equal(masks["class_map"], rasterize(labels, geobox)["class_map"])


def test_a_parcel_smaller_than_a_pixel_never_vanishes() -> None:
    shed = shapely.box(32, 32, 33, 33)
    masks = rasterize(table([shed], [7]), small_grid())
    assert int((masks["class_map"] == 7).sum()) == 1
    assert float(masks["coverage"].sum()) == pytest.approx(0.01)
    assert not rasterize(table([shed], [7]), small_grid(), rule="centre")["class_map"].any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["coverage", "centre"]), st.booleans())
def test_the_order_of_the_rows_never_changes_anything(seed: int, rule: Any, ids: bool) -> None:
    labels = crowd(seed, count=10)
    # Two of each: nothing but the shape itself is left to tell some of them apart.
    labels = gpd.GeoDataFrame(gpd.pd.concat([labels, labels], ignore_index=True), crs=CRS)
    if not ids:
        labels = labels.drop(columns="id")
    mixed = labels.sample(frac=1, random_state=seed)
    layers = ("class_map", "parcel_id", "coverage", "conflict", "distance", "overlap")
    a, b = (rasterize(rows, small_grid(), rule=rule, layers=layers) for rows in (labels, mixed))
    assert all(np.array_equal(a[name], b[name], equal_nan=True) for name in layers)


def test_shapes_alike_in_all_but_their_outline_are_told_apart_by_it() -> None:
    halves = [shapely.Polygon([(0, 0), (60, 0), (60, 60)]), shapely.Polygon([(0, 0), (0, 60), (60, 60)])]
    a, b = (rasterize(table(shapes, [1, 1]), small_grid())["parcel_id"] for shapes in (halves, halves[::-1]))
    assert np.array_equal(a, b)
    assert np.unique(a).tolist() == [1, 2]


def test_a_shifted_grid_shifts_the_masks() -> None:
    labels = lattice(12, size_m=1200, step_m=30)
    whole = rasterize(labels, grid(120))
    part = rasterize(labels, grid(50, left=LEFT + 170, top=TOP - 330))
    for name in ("class_map", "parcel_id", "conflict"):
        assert np.array_equal(part[name], whole[name][33:83, 17:67]), name
    assert np.allclose(part["coverage"], whole["coverage"][33:83, 17:67], atol=1e-7)


def test_blocks_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = lattice(9, size_m=900, step_m=30)
    layers = ("class_map", "parcel_id", "coverage", "conflict", "distance", "overlap")
    whole = rasterize(labels, grid(100), layers=layers)
    monkeypatch.setattr("deepsentinel.masks.claims.BLOCK_PX", 32)
    blocks = rasterize(labels, grid(100), layers=layers)
    for name in layers:
        assert np.allclose(whole[name], blocks[name], atol=1e-6, equal_nan=True), name
    assert not whole["class_map"][:, 91:].any(), "the lattice ends before the grid does"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_million_parcels_on_a_tile() -> None:
    bench = Path(__file__).parents[1] / "bench" / "bench_masks.py"
    done = subprocess.run([sys.executable, bench, "tile"], capture_output=True, text=True, check=True)
    print(done.stdout)
    found = re.search(r": (\d+) s, peak ([0-9.]+) GB", done.stdout)
    assert found
    assert float(found[1]) < 240
    assert float(found[2]) < 4


def test_a_finer_grid_aggregates_to_the_coarser() -> None:
    parcel = lattice(3, size_m=330, step_m=20).iloc[[4]]
    coarse = rasterize(parcel, grid(40), layers=["coverage"])["coverage"]
    fine = rasterize(parcel, grid(40), layers=["coverage"], resolution=2.5)["coverage"]
    assert fine.shape == (160, 160)
    assert abs(fine.coarsen(y=4, x=4).mean().values - coarse.values).max() < 1e-6
    assert np.array_equal(fine.x.values.reshape(-1, 4).mean(axis=1), coarse.x)


@pytest.mark.parametrize("rule", ["coverage", "centre"])
@pytest.mark.parametrize("share", [0.4, 0.6, 1.0])
def test_where_the_winner_covers_too_little_nobody_wins(share: float, rule: Any) -> None:
    labels, geobox = crowd(1, count=6, snap=1.7), small_grid()
    labels["geometry"] = labels.geometry.scale(0.5, 0.5)
    layers = ("class_map", "parcel_id", "coverage", "conflict", "distance", "overlap")
    every = rasterize(labels, geobox, rule=rule, layers=layers, background=255)
    some = rasterize(labels, geobox, rule=rule, layers=layers, background=255, min_coverage=share)
    kept = every["coverage"].values >= share
    assert 0 < kept.sum() < (every["coverage"] > 0).sum()
    for name, empty in {"class_map": 255, "parcel_id": 0, "coverage": 0, "distance": np.nan}.items():
        wanted = np.where(kept, every[name].values, empty)
        assert np.array_equal(some[name].values, wanted, equal_nan=True), name
    for name in ("conflict", "overlap"):
        assert np.array_equal(some[name], every[name]), name
    assert some.attrs["min_coverage"] == share
    assert "min_coverage" not in every.attrs


def test_exactly_that_share_is_enough() -> None:
    labels = table([shapely.box(0, 0, 25, 60)])
    assert rasterize(labels, small_grid(), min_coverage=0.5)["class_map"].values[0].tolist() == [1, 1, 1, 0, 0, 0]
    assert rasterize(labels, small_grid(), min_coverage=0.51)["class_map"].values[0].tolist() == [1, 1, 0, 0, 0, 0]
    for wrong in (-0.1, 1.1, True, "half", None):
        with pytest.raises(InputError, match="min_coverage"):
            rasterize(labels, small_grid(), min_coverage=wrong)  # type: ignore[arg-type]


def test_touched_pixels_count_too_much_and_half_covered_ones_do_not() -> None:
    fields = lattice(20, size_m=2000).iloc[::3]
    true_px = fields.area.sum() / 100
    count = {share: int((rasterize(fields, grid(200), min_coverage=share).class_map > 0).sum()) for share in (0, 0.5)}
    assert count[0] > 1.1 * true_px
    assert count[0.5] == pytest.approx(true_px, rel=0.01)


@pytest.mark.parametrize("crs", [CRS, "EPSG:4326"])
def test_masks_too_large_for_any_memory_are_refused_at_once(crs: str) -> None:
    labels = table([shapely.box(0, 0, 30, 60)]).to_crs(crs)
    with pytest.raises(InputError, match=r"class_map, parcel_id, .* on 60000 x 60000 pixels take 36\.0 GB.*layers="):
        rasterize(labels, small_grid(), resolution=0.001)


# ---- conflicts -----------------------------------------------------------------------------------------------------


def test_abutting_parcels_are_no_conflict() -> None:
    for labels in (lattice(25, size_m=2500), lattice(25, size_m=2500, step_m=13)):
        conflict = rasterize(labels, grid(250))["conflict"].values
        assert sorted(np.unique(conflict)) == [0, 1]


@pytest.mark.parametrize(("overlap", "wanted"), [(0.0, 1), (0.9e-3, 1), (1.1e-3, 2), (0.01, 2), (0.1, 2), (0.35, 2)])
def test_every_planted_overlap_above_a_thousandth_of_a_pixel_is_one(overlap: float, wanted: int) -> None:
    labels = table([shapely.box(0, 0, 34, 60), shapely.box(34 - 10 * overlap, 0, 60, 60)])
    for rows in (labels, labels[::-1]):
        conflict = rasterize(rows, small_grid())["conflict"].values
        assert (conflict[:, 3] == wanted).all()
        assert not np.delete(conflict, 3, axis=1).any()


def test_a_polygon_within_another_is_a_conflict_where_it_takes_more_than_a_thousandth() -> None:
    for side, wanted in ((0.2, 1), (0.5, 2)):
        labels = table([shapely.box(0, 0, 60, 60), shapely.box(32, 32, 32 + side, 32 + side)])
        assert int(rasterize(labels, small_grid())["conflict"].max()) == wanted


@pytest.mark.parametrize("between", ["polygon", "class"])
def test_a_pixel_but_for_a_millionth_counts_as_covered(between: Any) -> None:
    # Together they claim less than 1.001, and yet the second one has no room for a thousandth.
    for lack, wanted in ((8e-7, 2), (1.2e-6, 1)):
        labels = table([shapely.box(30, 30, 40, 40 - 10 * lack), shapely.box(32, 32, 33, 32.10005)])
        assert int(rasterize(labels, small_grid(), conflict=between)["conflict"].max()) == wanted


def conflict_by_hand(labels: gpd.GeoDataFrame, geobox: GeoBox, of_class: bool) -> np.ndarray:
    shapes = labels.dissolve("ground_truth").reset_index() if of_class else labels
    shares = pixel_shares(shapes, geobox)
    claimed = np.sort(np.where(shares > 1e-9, shares, 0), axis=0)[::-1]
    two = (claimed > 0).sum(axis=0) > 1
    contradiction = (claimed.sum(axis=0) > 1 + 1e-3) | ((claimed[0] >= 1 - 1e-6) & (claimed[1] > 1e-3))
    return np.where(two & contradiction, 2, two.astype(int))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("between", ["polygon", "class"])
def test_conflicts_are_what_the_shares_say(seed: int, between: Any) -> None:
    labels = crowd(seed, count=9, snap=1.0, classes=3)
    labels["geometry"] = labels.geometry.scale(0.6, 0.6)
    conflict = rasterize(labels, small_grid(), conflict=between)["conflict"].values
    assert np.array_equal(conflict, conflict_by_hand(labels, small_grid(), between == "class"))
    assert len(np.unique(conflict)) == 3


def test_parcels_of_one_class_never_contradict_each_other_by_class() -> None:
    labels = crowd(0, classes=1)
    assert not rasterize(labels, small_grid(), conflict="class")["conflict"].any()
    assert int(rasterize(labels, small_grid())["conflict"].max()) == 2


# ---- layers, numbers, legends --------------------------------------------------------------------------------------


def test_masks_merge_with_a_patch_of_the_same_grid() -> None:
    step = 1 / 3
    coords = {"y": 1000 - step * (np.arange(30) + 0.5), "x": 7 + step * (np.arange(30) + 0.5), "spatial_ref": 0}
    patch = xr.Dataset({"B02": (("y", "x"), np.ones((30, 30), "uint16"))}, coords=coords)
    patch["spatial_ref"].attrs["crs_wkt"] = gpd.GeoSeries(crs=CRS).crs.to_wkt()
    masks = rasterize(table([shapely.box(8, 995, 15, 999)]), patch)
    merged = xr.merge([patch, masks], join="exact")
    assert set(merged.data_vars) == {"B02", "class_map", "parcel_id", "coverage", "conflict"}
    assert merged["class_map"].dims == merged["B02"].dims
    assert float(masks["coverage"].sum()) * step**2 == pytest.approx(28)
    from_array = rasterize(table([shapely.box(8, 995, 15, 999)]), patch["B02"])
    assert from_array.equals(masks)


def test_layers_come_as_asked() -> None:
    labels = table([shapely.box(0, 0, 30, 60), shapely.box(25, 0, 60, 60)])
    assert list(rasterize(labels, small_grid(), layers="coverage").data_vars) == ["coverage"]
    masks = rasterize(labels, small_grid(), layers=["distance", "overlap", "parcel_id"])
    assert list(masks.data_vars) == ["distance", "overlap", "parcel_id"]
    assert np.allclose(masks["overlap"][0], [0, 0, 0.5, 0, 0, 0])
    # Pixel (2, 2) is all of the first parcel's, and only half of the second one's.
    assert np.allclose(masks["distance"][2], [5, 15, 5, 10, 15, 5])
    for bad, said in ((["cover"], "no layer 'cover'"), ([], "empty")):
        with pytest.raises(InputError, match=said):
            rasterize(labels, small_grid(), layers=bad)  # type: ignore[arg-type]
    for name in ("rule", "conflict"):
        with pytest.raises(InputError, match=f"{name}='most'"):
            rasterize(labels, small_grid(), **{name: "most"})  # type: ignore[arg-type]


def test_numbers_of_parcels_are_their_ids_or_the_place_of_their_ids() -> None:
    shapes = [shapely.box(20 * n, 0, 20 * n + 20, 60) for n in range(3)]
    row = lambda labels: rasterize(labels, small_grid())["parcel_id"].values[0, ::2].tolist()  # noqa: E731
    assert row(table(shapes, id=[12, 5, 70_000])) == [12, 5, 70_000]
    assert row(table(shapes, id=["c", "a", "b"])) == [3, 1, 2]
    assert row(table(shapes, id=[0, -1, 5])) == [2, 1, 3], "0 is no parcel"
    assert row(table(shapes, id=[2**40, 3, 2**33])) == [3, 1, 2]
    assert row(table(shapes, [9, 9, 2])) == [2, 3, 1], "by class, then by place"
    assert row(table(shapes, [9, 9, 2], id=[4, 4, 4])) == [2, 3, 1]
    labels = table(shapes, id=["c", "a", "b"])
    assert parcel_numbers(labels)["number"].tolist() == [3, 1, 2]
    # A grid that only one of them reaches gives it the same number.
    west = small_grid(shape=(6, 2))
    assert np.unique(rasterize(labels, west)["parcel_id"]).tolist() == [3]


def test_the_layer_tells_how_parcels_are_numbered() -> None:
    shapes = [shapely.box(20 * n, 0, 20 * n + 20, 60) for n in range(3)]
    for ids, wanted in (
        ([12, 5, 70_000], "id"),
        ([0, 1, 2], "sorted"),
        ([3, 4, 4], "sorted"),
        (["a", "b", "c"], "sorted"),
    ):
        labels = table(shapes, id=ids)
        masks = rasterize(labels, small_grid())
        assert masks["parcel_id"].attrs["numbered"] == parcel_numbers(labels).attrs["numbered"] == wanted
    assert rasterize(table(shapes), small_grid())["parcel_id"].attrs["numbered"] == "sorted"
    assert "numbered" not in rasterize(table(shapes), small_grid())["coverage"].attrs


def test_text_classes_are_numbered_and_the_legend_travels() -> None:
    labels = table([shapely.box(0, 0, 30, 60), shapely.box(30, 0, 60, 60)], ["wheat", "barley"])
    for column in (labels["ground_truth"], labels["ground_truth"].astype("category")):
        masks = rasterize(labels.assign(ground_truth=column), small_grid())
        assert np.unique(masks["class_map"]).tolist() == [1, 2]
        legend = Legend.from_attrs(masks["class_map"].attrs)
        assert legend is not None
        assert legend.names == {1: "barley", 2: "wheat"}
        assert int(masks["class_map"][0, 0]) == 2
    only_wheat = rasterize(labels, small_grid(shape=(6, 3)))
    assert np.unique(only_wheat["class_map"]).tolist() == [2], "a class has one number on all grids"


LEGENDS = [
    Legend.of_texts(["rye", "wheat", "barley"]),
    {1: "barley", 2: "rye", 3: "wheat"},
    {"barley": 1, "rye": 2, "wheat": 3},
    ["barley", "rye", "wheat"],
    Legend.of_texts(["rye", "wheat", "barley"]).to_json(),
]


@pytest.mark.parametrize("legend", LEGENDS)
def test_a_legend_may_be_what_people_have(legend: Any) -> None:
    halves = [shapely.box(0, 0, 30, 60), shapely.box(30, 0, 60, 60)]
    for classes in (["wheat", "rye"], [3, 2], ["3", "2"]):
        masks = rasterize(table(halves, classes), small_grid(), legend=legend)
        assert masks["class_map"][0].values.tolist() == [3, 3, 3, 2, 2, 2]
        own = Legend.from_attrs(masks["class_map"].attrs)
        assert own is not None
        assert own.names == {1: "barley", 2: "rye", 3: "wheat"}
        assert "notes" not in masks.attrs
    with pytest.raises(InputError, match="'oats', which the legend"):
        rasterize(table(halves, ["oats", "rye"]), small_grid(), legend=legend)
    numbers = parcel_numbers(table(halves, ["wheat", "rye"]), legend=["wheat", "rye"])["number"].tolist()
    by_hand = rasterize(table(halves, ["wheat", "rye"]), small_grid(), legend=["wheat", "rye"])["parcel_id"][0]
    assert by_hand.values[::3].tolist() == numbers == [1, 2]


def test_texts_that_are_numbered_for_one_table_say_so_in_the_attributes() -> None:
    halves = table([shapely.box(0, 0, 30, 60), shapely.box(30, 0, 60, 60)], ["wheat", "rye"])
    [note] = json.loads(rasterize(halves, small_grid()).attrs["notes"])
    assert "'ground_truth'" in note
    assert "legend=" in note
    halves.attrs["legend"] = Legend.of_texts(["oats", "rye", "wheat"]).to_json()
    masks = rasterize(halves, small_grid())
    assert masks["class_map"][0].values.tolist() == [3, 3, 3, 2, 2, 2], "by the legend that the table brings"
    assert "notes" not in masks.attrs


def test_tables_put_together_keep_their_legend_by_the_names_beside_the_codes() -> None:
    halves = table([shapely.box(0, 0, 30, 60), shapely.box(30, 0, 60, 60)], [312, 211])
    halves["class_name"] = ["Coniferous forest", "Non-irrigated arable land"]
    a, b = halves.iloc[[0]].copy(), halves.iloc[[1]].copy()
    a.attrs["source"], b.attrs["source"] = "a", "b"
    both = gpd.GeoDataFrame(gpd.pd.concat([a, b], ignore_index=True))
    assert not both.attrs
    assert Legend.from_attrs(rasterize(both, small_grid())["class_map"].attrs) == corine()
    assert label_vector(both, small_grid(), level=1)["share"].tolist() == [0, 0.5, 0.5, 0, 0]
    coarse = both.assign(ground_truth=[3, 2], class_name=["Forest and semi natural areas", "Agricultural areas"])
    assert Legend.from_attrs(rasterize(coarse, small_grid())["class_map"].attrs) == corine(1)
    own = both.assign(class_name=["pines", None])
    legend = Legend.from_attrs(rasterize(own, small_grid())["class_map"].attrs)
    assert legend is not None
    assert legend.names == {211: "211", 312: "pines"}
    # What stands beside another column says nothing about it.
    other = rasterize(both.assign(use=[1, 2]), small_grid(), value="use")["class_map"].attrs
    assert other["flag_meanings"] == "1 2"
    both.attrs["legend"] = Legend.of_codes([211, 312], name="mine").to_json()
    legend = Legend.from_attrs(rasterize(both, small_grid())["class_map"].attrs)
    assert legend is not None
    assert legend.name == "mine"


def test_one_code_of_two_names_is_told() -> None:
    both = table([shapely.box(0, 0, 30, 60), shapely.box(30, 0, 60, 60)], [1, 1], class_name=["wheat", "houses"])
    with pytest.warns(DeepSentinelWarning, match="Class 1 has 2 names, such as 'houses' and 'wheat'"):
        masks = rasterize(both, small_grid())
    assert masks["class_map"].attrs["flag_meanings"] == "houses_wheat"


def test_a_float_column_gives_values() -> None:
    labels = table([shapely.box(0, 0, 30, 60), shapely.box(30, 0, 50, 60)], [2.5, -1.0])
    masks = rasterize(labels, small_grid())
    assert list(masks.data_vars) == ["value", "parcel_id", "coverage", "conflict"]
    assert masks["value"].dtype == "float32"
    assert np.array_equal(masks["value"][0], [2.5, 2.5, 2.5, -1, -1, np.nan], equal_nan=True)


def test_thousands_of_codes_are_burnt_without_a_legend() -> None:
    labels = lattice(75, size_m=750)
    masks = rasterize(labels, grid(75), value="id")
    assert np.array_equal(masks["class_map"], masks["parcel_id"])
    assert "legend" not in masks["class_map"].attrs


@pytest.mark.parametrize(("code", "kind"), [(255, "uint8"), (256, "uint16"), (65_536, "int32")])
def test_the_class_map_is_as_small_as_it_can_be(code: int, kind: str) -> None:
    masks = rasterize(table([shapely.box(0, 0, 30, 60)], [code]), small_grid())
    assert masks["class_map"].dtype == kind
    assert int(masks["class_map"][0, 0]) == code


def test_lines_and_points_burn_as_wide_as_they_are() -> None:
    line = shapely.LineString([(0, 30), (60, 30)])
    labels = table([line, shapely.Point(10, 50), shapely.box(40, 40, 60, 60)], wide=[4.0, 6.0, 1.0])
    masks = rasterize(labels, small_grid(), width_m="wide", layers=["class_map", "coverage", "conflict"])
    area = {int(code): float(masks["coverage"].where(masks["class_map"] == code).sum()) * 100 for code in (1, 2, 3)}
    assert area[1] == pytest.approx(4 * 60)
    assert area[2] == pytest.approx(np.pi * 9, rel=2e-3)
    assert area[3] == pytest.approx(400), "a polygon keeps its own size"
    crossing = table([line, shapely.box(20, 0, 60, 60)])
    assert int(rasterize(crossing, small_grid(), width_m=4)["conflict"].max()) == 2
    far = table([shapely.Point(-20, 30)])
    assert rasterize(far, small_grid(), width_m=60)["class_map"].any(), "its rim reaches in"
    degrees = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[shapely.Point(3, 48)], crs=4326)
    geobox = GeoBox.from_bbox((2.99, 47.99, 3.01, 48.01), "EPSG:4326", resolution=1e-4)
    share = float(rasterize(degrees, geobox, width_m=500)["coverage"].sum())
    assert share * 11.1178 * 7.4576 == pytest.approx(np.pi * 250**2, rel=5e-3)
    for width, said in ((None, "1 lines and 1 points.*width_m=10"), ("broad", "no column"), (0, "above 0"), (-2, "-2")):
        with pytest.raises(InputError, match=said):
            rasterize(labels, small_grid(), width_m=width)
