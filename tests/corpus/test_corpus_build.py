from __future__ import annotations

import errno
import json
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import zarr
from affine import Affine
from build_kit import BreakingSource, digest, direct, half_built, masks_of, points_in, quiet_build, quiet_plan

import deepsentinel as ds
from deepsentinel.contract import check_patch
from deepsentinel.corpus import worker
from deepsentinel.corpus.build import Progress, build_corpus
from deepsentinel.corpus.masking import cells_under, dense
from deepsentinel.corpus.patches import patch_of
from deepsentinel.corpus.plan import Plan, load_plan
from deepsentinel.corpus.reader import grids_of
from deepsentinel.corpus.samples import read_samples
from deepsentinel.corpus.store import open_corpus
from deepsentinel.corpus.tiling import parcel_windows
from deepsentinel.errors import DeepSentinelWarning, InputError, SourceError
from deepsentinel.legend import Legend


@pytest.fixture(scope="module")
def src() -> Any:
    return BreakingSource(size_px=256)


@pytest.fixture(autouse=True)
def _whole_again(src: Any) -> Any:
    yield
    src.broken = ()


@pytest.fixture(scope="module")
def plan(src: Any) -> Plan:
    return quiet_plan(points_in(src, 14), src, choose="random")


@pytest.fixture(scope="module")
def built(src: Any, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "c.zarr"
    report = quiet_build(plan, folder, masks_of(src))
    assert (report.ok, report.failed) == (len(plan.samples), 0)
    return folder


def test_each_sample_is_what_reading_its_row_gives(src: Any, plan: Plan, built: Path) -> None:
    corpus = open_corpus(built)
    assert corpus["status"].values.tolist() == ["ok"] * len(plan.samples)
    for number in range(0, len(plan.samples), 3):
        there = src.read(plan.samples.iloc[number], grids_of(plan.samples.iloc[[number]])[0])
        here = check_patch(patch_of(corpus, number))
        for name, band in there.data_vars.items():
            if band.dtype == np.float32:
                np.testing.assert_allclose(here[name].values, band.values, atol=0.0051)
            else:
                np.testing.assert_array_equal(here[name].values, band.values)
        assert here["x"].equals(there["x"])
        for name in ("s1_id", "s2_id", "level", "backscatter", "baseline"):
            assert here.attrs[name] == there.attrs[name]
        assert here["s1_time"].values == there["s1_time"].values


def test_plain_zarr_reads_it(built: Path) -> None:
    group = zarr.open_group(built, mode="r")
    corpus = open_corpus(built)
    np.testing.assert_array_equal(group["s2"][3], corpus["s2"].values[3])
    assert group["corine_class_map"].dtype == np.uint16


def test_masks_are_those_of_rasterize(src: Any, plan: Plan, built: Path) -> None:
    corpus = open_corpus(built)
    for number, grid in enumerate(grids_of(plan.samples)):
        masks = direct(src.labels["corine"], grid)
        here = patch_of(corpus, number)
        np.testing.assert_array_equal(here["corine_class_map"], masks["class_map"])
        np.testing.assert_array_equal(here["corine_conflict"], masks["conflict"])
    assert here["corine_class_map"].attrs["flag_meanings"] == masks["class_map"].attrs["flag_meanings"]


def test_masks_from_cells_are_those_of_each_window(src: Any, tmp_path: Path) -> None:
    grid = ds.geobox(src.area, resolution=10)
    rng = np.random.default_rng(0)
    shifts = rng.integers(0, min(grid.shape) - 24, (40, 2))
    from deepsentinel.corpus.tiling import window_table

    places = window_table(
        f"EPSG:{grid.crs.epsg}",
        grid.affine.c + 10.0 * shifts[:, 0],
        grid.affine.f - 10.0 * shifts[:, 1],
        size_px=24,
        resolution=10.0,
    )
    plan = quiet_plan(places, src, bands=["B04"], samples_per_shard=16)
    labels = {"parcels": {"labels": src.labels["parcels_2018"], "resolution": 5, "layers": ("class_map", "parcel_id")}}
    # Cells small enough for these few windows to fill them.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("deepsentinel.corpus.masking.CELL_PX", 32)
        patched.setattr("deepsentinel.corpus.worker.CELL_PX", 32)
        crowded = dense(plan.samples, 2)
        assert crowded.sum() > 20
        quiet_build(plan, tmp_path / "c.zarr", labels)
    corpus = open_corpus(tmp_path / "c.zarr")
    for number, grid in enumerate(grids_of(plan.samples)):
        masks = direct(src.labels["parcels_2018"], grid, resolution=5, layers=("class_map", "parcel_id"))
        here = patch_of(corpus, number)
        np.testing.assert_array_equal(here["parcels_class_map"].values, masks["class_map"].values)
        np.testing.assert_array_equal(here["parcels_parcel_id"].values, masks["parcel_id"].values)


def test_cells_hold_each_pixel_of_each_window_once(plan: Plan) -> None:
    window, _, shared = cells_under(plan.samples, 24)
    assert np.bincount(window, weights=shared).tolist() == [32.0 * 32] * len(plan.samples)


def test_a_function_a_raster_and_a_table_are_labels_too(src: Any, plan: Plan, tmp_path: Path) -> None:
    cover = src.labels[f"land_cover_2018_{plan.samples['tile'].iloc[0]}"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepSentinelWarning)
        table = ds.read_labels(src.labels["corine"])
        labels = {
            "dark": lambda patch: patch["B08"].values < 1500,
            "cover": cover,
            "corine": {"labels": table, "min_coverage": 0.5, "layers": ("class_map",)},
        }
        quiet_build(plan, tmp_path / "c.zarr", labels)
        corpus = open_corpus(tmp_path / "c.zarr")
        for number in (0, 5):
            here, grid = patch_of(corpus, number), grids_of(plan.samples.iloc[[number]])[0]
            np.testing.assert_array_equal(here["dark_class_map"], here["B08"] < 1500)
            np.testing.assert_array_equal(here["cover_class_map"], ds.read_label_raster(cover, grid)["class_map"])
            masks = ds.rasterize(table, grid, min_coverage=0.5)
            np.testing.assert_array_equal(here["corine_class_map"], masks["class_map"])
    assert "land_cover" in corpus.attrs["masks"]["cover"]["file"]
    assert str(tmp_path) not in (tmp_path / "c.zarr" / "zarr.json").read_text()


def test_a_parcel_alone_in_its_window(src: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepSentinelWarning)
        labels = ds.read_labels(src.labels["parcels_2018"]).iloc[5:25]
        plan = quiet_plan(parcel_windows(labels, 16), src, bands=["B04"])
        quiet_build(plan, tmp_path / "c.zarr", {"parcel": {"labels": labels, "alone": True}})
        corpus = open_corpus(tmp_path / "c.zarr")
        for number in range(len(plan.samples)):
            own = labels.loc[[plan.samples["place"].iloc[number]]]
            lone = ds.parcel_window(own, 16)["class_map"].values
            np.testing.assert_array_equal(corpus["parcel_class_map"].values[number], lone)


def test_a_parcel_alone_where_the_index_repeats(src: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepSentinelWarning)
        labels = ds.read_labels(src.labels["parcels_2018"])
        # As pd.concat leaves it.
        labels = labels.iloc[[5, 6, 7, 8, 60, 61, 62, 63]].set_axis([0, 1, 2, 3, 0, 1, 2, 3])
        plan = quiet_plan(parcel_windows(labels, 16), src, bands=["B04"])
        quiet_build(plan, tmp_path / "c.zarr", {"parcel": {"labels": labels, "alone": True, "layers": "class_map"}})
        corpus = open_corpus(tmp_path / "c.zarr")
        assert "parcel_conflict" not in corpus
        assert (plan.samples["place"] > 3).any()
        for number, place in enumerate(plan.samples["place"]):
            lone = ds.parcel_window(labels.iloc[[place]], 16)["class_map"].values
            np.testing.assert_array_equal(corpus["parcel_class_map"].values[number], lone)
    with pytest.warns(DeepSentinelWarning, match="places have no label of their own"):
        build_corpus(plan, tmp_path / "d.zarr", {"parcel": {"labels": labels.iloc[:2], "alone": True}}, progress=False)


def test_a_function_that_raises_spoils_its_own_sample(plan: Plan, tmp_path: Path) -> None:
    bad = plan.samples["s2_id"].value_counts().index[-1]

    def dark(patch: Any) -> Any:
        if patch.attrs["s2_id"] == bad:
            raise ValueError("no such field")
        return patch["B08"].values < 1500

    report = quiet_build(plan, tmp_path / "c.zarr", {"dark": dark})
    assert report.failed == (plan.samples["s2_id"] == bad).sum() > 0
    assert list(report.reasons) == ["The function of labels 'dark' failed: ValueError: no such field"]


@pytest.mark.parametrize("threads", [1, 2])
def test_two_builds_are_identical_to_the_byte(src: Any, plan: Plan, built: Path, tmp_path: Path, threads: int) -> None:
    quiet_build(plan, tmp_path / "c.zarr", masks_of(src), threads=threads)
    assert digest(tmp_path / "c.zarr") == digest(built)


def test_called_again_it_changes_nothing(src: Any, plan: Plan, built: Path) -> None:
    before = digest(built)
    report = quiet_build(load_plan(built / "plan", src), built, masks_of(src))
    assert (report.built, report.ok) == (0, len(plan.samples))
    assert quiet_build(plan, built, masks_of(src), retry_failed=True).built == 0
    assert digest(built) == before


def test_stopped_it_opens_and_goes_on(src: Any, plan: Plan, built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c.zarr"

    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quiet_build(plan, folder, masks_of(src), on_progress=stop)
    (folder / "s2" / ".partial-abandoned").write_bytes(b"half")
    with pytest.warns(DeepSentinelWarning, match=r"is not built to the end: \d+ of \d+ samples are made") as caught:
        corpus = open_corpus(folder)
    assert len(caught) == 1
    ready = corpus["status"].values == "ok"
    assert 0 < ready.sum() < len(plan.samples)
    assert set(corpus["status"].values[~ready]) == {"planned"}
    assert corpus["s2"].values[ready].max() > 0
    seen: list[Progress] = []
    report = quiet_build(plan, folder, masks_of(src), on_progress=seen.append)
    assert report.built == len(plan.samples) - ready.sum()
    assert (seen[-1].done, seen[-1].total, seen[-1].left_s) == (len(plan.samples), len(plan.samples), 0)
    assert digest(folder) == digest(built)


def test_another_plan_or_other_labels_are_refused(src: Any, built: Path, plan: Plan) -> None:
    with pytest.raises(InputError, match="another plan"):
        quiet_build(quiet_plan(points_in(src, 3), src), built)
    with pytest.raises(InputError, match="holds another corpus"):
        quiet_build(plan, built, {"corine": src.labels["corine"]})


def test_a_bad_scene_spoils_its_own_samples_and_is_made_good_later(
    src: Any, plan: Plan, built: Path, tmp_path: Path
) -> None:
    bad = plan.samples["s2_id"].value_counts().index[-1]
    hit = plan.samples["s2_id"] == bad
    src.broken = (bad,)
    folder = tmp_path / "c.zarr"
    report = quiet_build(plan, folder, masks_of(src))
    assert (report.ok, report.failed) == ((~hit).sum(), hit.sum())
    table = read_samples(folder / "samples.parquet")
    assert table.loc[hit, "status"].eq("failed").all()
    assert table.loc[hit, "reason"].str.contains(bad).all()
    assert not table["reason"].str.contains(str(src.folder), na=False).any()
    corpus = open_corpus(folder)
    assert corpus["s2"].values[hit].max() == 0
    raw = {shard: (folder / "s1" / "c" / str(shard)).exists() for shard in range(plan.shards)}
    assert all(raw.values())
    # Retried while the scene is still gone, and then with the scene.
    assert quiet_build(plan, folder, masks_of(src), retry_failed=True).failed == hit.sum()
    src.broken = ()
    assert quiet_build(plan, folder, masks_of(src)).failed == hit.sum()
    asked: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        plain = BreakingSource.resolve
        patched.setattr(BreakingSource, "resolve", lambda self, *a: asked.append(a[1]["id"]) or plain(self, *a))
        report = quiet_build(plan, folder, masks_of(src), retry_failed=True)
    assert (report.built, report.failed) == (hit.sum(), 0)
    assert bad in asked
    assert set(asked) <= set(plan.samples.loc[hit, ["s1_id", "s2_id"]].to_numpy().ravel())
    assert digest(folder) == digest(built)


def test_a_source_that_is_gone_stops_the_build(src: Any, plan: Plan, built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c.zarr"

    def vanish(progress: Progress) -> None:
        src.broken = ("",)

    with pytest.raises(SourceError, match=r"demo can no longer be read.*Call build_corpus again"):
        quiet_build(plan, folder, masks_of(src), threads=1, on_progress=vanish)
    corpus = half_built(folder)
    assert "failed" not in corpus["status"].values
    assert "ok" in corpus["status"].values
    src.broken = ()
    quiet_build(plan, folder, masks_of(src))
    assert digest(folder) == digest(built)


def test_a_source_without_its_first_band_is_not_gone(src: Any, tmp_path: Path) -> None:
    scene = src.search(src.area, "2018-06-01", "2018-06-30", sensors="S2").id.iloc[0]
    plain, asked = src.resolve, []

    def resolve(href: str, item: Any, key: str) -> str:
        asked.append(key)
        return str(tmp_path / "nothing.tif") if len(asked) == 1 else plain(href, item, key)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(src, "resolve", resolve)
        assert worker._opens(src, "S2", scene)
        assert len(asked) == 2
        patched.setattr(src, "resolve", lambda *_: str(tmp_path / "nothing.tif"))
        assert not worker._opens(src, "S2", scene)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_disk_or_a_read_only_folder_stops_the_build(
    src: Any, plan: Plan, built: Path, tmp_path: Path, number: int
) -> None:
    folder, calls = tmp_path / "c.zarr", []

    def full(path: Any, *args: Any, **kwargs: Any) -> None:
        calls.append(path)
        if len(calls) > 8:
            raise OSError(number, {errno.ENOSPC: "No space left on device"}.get(number, "Permission denied"), str(path))
        plain(path, *args, **kwargs)

    plain = worker.write_shard
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(worker, "write_shard", full)
        with pytest.raises(
            SourceError, match=r"cannot be written to .*(No space|Permission).*goes on where it stopped"
        ):
            quiet_build(plan, folder, masks_of(src), threads=1)
    assert "ok" in half_built(folder)["status"].values
    quiet_build(plan, folder, masks_of(src))
    assert digest(folder) == digest(built)


def test_a_folder_that_cannot_be_made_is_told(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises((SourceError, InputError)):
        quiet_build(plan, tmp_path / "file" / "c.zarr")


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ({"corine": {"labels": "a.gpkg", "resolutoin": 5}}, TypeError, "no option 'resolutoin'"),
        ({"corine": {"resolution": 5}}, InputError, "lacks 'labels'"),
        ({"corine": {"labels": "a.gpkg", "layers": ("distance",)}}, InputError, "no layer 'distance'"),
        ({"co rine": "a.gpkg"}, InputError, "letters, digits"),
        ({"corine": "nowhere.gpkg"}, InputError, "no file"),
        ("corine.gpkg", InputError, "give each a name"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(
    plan: Plan, tmp_path: Path, labels: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        quiet_build(plan, tmp_path / "c.zarr", labels)


def test_labels_that_reach_no_sample_are_background(src: Any, plan: Plan, tmp_path: Path) -> None:
    far = gpd.GeoDataFrame({"ground_truth": [7]}, geometry=gpd.points_from_xy([10], [10]).buffer(0.01), crs=4326)
    with pytest.warns(DeepSentinelWarning) as caught:
        report = build_corpus(plan, tmp_path / "c.zarr", {"far": far}, progress=False)
    (note,) = [str(one.message) for one in caught]
    assert note.startswith(f"None of the {len(plan.samples)} samples is touched by the labels 'far'")
    assert report.notes == (note,)
    assert note in repr(report)
    corpus = open_corpus(tmp_path / "c.zarr")
    assert int(corpus["far_class_map"].max()) == 0
    # One that is touched is enough, were it by a line that is as wide.
    row = plan.samples.iloc[-1]
    near = gpd.GeoDataFrame({"ground_truth": [7]}, geometry=[row.geometry.centroid.buffer(1e-4)], crs=4326)
    assert build_corpus(plan, tmp_path / "d.zarr", {"near": near}, progress=False).notes == ()
    east = shapely.transform(row.geometry.exterior, lambda xy: xy + np.array([0.001, 0]))
    line = gpd.GeoDataFrame({"ground_truth": [7], "width_m": [300.0]}, geometry=[east], crs=4326)
    assert build_corpus(plan, tmp_path / "e.zarr", {"line": line}, progress=False).notes == ()


def test_a_raster_that_covers_some_of_the_samples_says_how_many(plan: Plan, tmp_path: Path) -> None:
    crs = plan.samples["crs"].value_counts().index[0]
    mine = (plan.samples["crs"] == crs).to_numpy()
    corner = np.array(plan.samples["transform"].tolist())[:, [2, 5]]
    # East of the westernmost sample.
    west, top = corner[mine, 0].min() + 400, corner[mine, 1].max() + 100
    with rasterio.open(
        tmp_path / "half.tif", "w", driver="GTiff", width=3000, height=3000, count=1, dtype="uint8", crs=crs,
        transform=Affine(10, 0, west, 0, -10, top),
    ) as file:  # fmt: skip
        file.write(np.ones((1, 3000, 3000), "uint8"))
    legend = Legend.of_codes([1])
    with pytest.warns(DeepSentinelWarning) as caught:
        report = build_corpus(
            plan, tmp_path / "c.zarr", {"half": {"labels": tmp_path / "half.tif", "legend": legend}}, progress=False
        )
    (note,) = [str(one.message) for one in caught]
    corpus = open_corpus(tmp_path / "c.zarr")
    held = (corpus["half_class_map"] == 1).any(("y", "x")).values
    assert 0 < held.sum() < len(held)
    assert note == (
        f"The labels 'half' (half.tif) reach {held.sum()} of {len(held)} samples: the masks of the others are all"
        " background."
    )
    assert report.notes == (note,)


def test_what_is_said_of_many_samples_is_said_once(src: Any, plan: Plan, tmp_path: Path) -> None:
    cover = src.labels["land_cover_2018_30UYV"]  # of one tile of two, in another folder than some of the samples
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build_corpus(plan, tmp_path / "c.zarr", {"cover": cover})
    assert len([one for one in caught if issubclass(one.category, DeepSentinelWarning)]) <= 2


def test_twins_are_built_from_both_sources(src: Any, tmp_path: Path) -> None:
    other = ds.open_source(src.folder / "catalog.json", name="mine")
    plan = quiet_plan(points_in(src, 5), [src, other], samples_per_shard=4)
    for row in plan.samples.itertuples():  # rendered, as the other source cannot do it
        for sensor in ("S1", "S2"):
            name = getattr(row, f"{sensor.lower()}_id")
            item = src.items_of(sensor, [name])[name]
            for asset in item["assets"].values():
                src.resolve(asset["href"], item, "B04")
    quiet_build(plan, tmp_path / "c.zarr")
    corpus = open_corpus(tmp_path / "c.zarr")
    assert corpus["status"].values.tolist() == ["ok"] * len(plan.samples)
    for name in np.unique(corpus["id"].values.astype(str)):
        first, second = np.flatnonzero(corpus["id"].values == name)
        np.testing.assert_array_equal(corpus["s2"].values[first], corpus["s2"].values[second])


def test_the_story_is_in_the_attributes(plan: Plan, built: Path) -> None:
    attrs = json.loads((built / "zarr.json").read_text())["attributes"]
    assert attrs["plan"] == plan.fingerprint
    assert attrs["sources"] == ["demo"]
    assert attrs["masks"]["corine"]["layers"] == ["class_map", "conflict"]
    assert sorted(entry.name for entry in built.iterdir() if entry.is_dir() and entry.name.startswith(".")) == []
    assert not (built / "parts").exists()
