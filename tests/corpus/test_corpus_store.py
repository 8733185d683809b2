"""A corpus as one lazy Dataset: equal to plain xarray, unfinished or far away too, and back to Patches."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import xarray as xr
from build_kit import half_built
from hypothesis import given, settings
from hypothesis import strategies as st
from store_kit import ARRAYS, COORDS, SIZE, layout, make_store, pixels, series_store, table, write_shards

import deepsentinel as ds
from deepsentinel.corpus.layout import ArraySpec, Layout, create_store, shard_path
from deepsentinel.corpus.remote import SCHEMES, is_url, open_remote
from deepsentinel.corpus.shards import encode, write_shard
from deepsentinel.corpus.store import footprint, open_corpus, patch_of, samples_of
from deepsentinel.errors import DeepSentinelWarning, InputError, NothingFoundError, ReadError
from deepsentinel.grids import grid_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "c.zarr"
    make_store(path)
    return path


@pytest.fixture(scope="module")
def corpus(folder: Path) -> xr.Dataset:
    return open_corpus(folder)


def test_it_is_what_plain_xarray_reads(folder: Path, corpus: xr.Dataset) -> None:
    plain = xr.open_zarr(folder, chunks=None)
    for spec in ARRAYS:
        np.testing.assert_allclose(corpus[spec.name].values, plain[spec.name].values, rtol=1e-6)
        assert corpus[spec.name].dims == plain[spec.name].dims
    data = pixels()
    np.testing.assert_array_equal(corpus.s2.values, data["s2"])
    assert corpus.s2.dtype == "uint16"
    assert corpus.s1.dtype == corpus.angle.dtype == "float32"
    missing = data["s1"] == -32768
    assert (np.isnan(corpus.s1.values) == missing).all()
    np.testing.assert_allclose(corpus.s1.values[~missing], data["s1"][~missing] / 100, atol=1e-5)
    assert corpus.s2.sel(s2_band="B8A").shape == (10, SIZE, SIZE)
    assert corpus.crops_class_map.attrs["flag_meanings"] == "wheat maize"
    assert corpus.attrs["title"] == "By hand"
    assert corpus.attrs["path"] == str(folder)


def slices(size: int) -> st.SearchStrategy[slice]:
    """Slices of an axis; xarray itself stumbles over those that run backwards over nothing."""
    return st.slices(size).filter(lambda part: (part.step or 1) > 0 or len(range(*part.indices(size))) > 0)


INDEX = st.one_of(st.integers(-10, 9), slices(10), st.lists(st.integers(0, 9), max_size=6))
INNER = st.one_of(
    st.integers(-SIZE, SIZE - 1),
    slices(SIZE),
    st.lists(st.integers(0, SIZE - 1), max_size=4),
    st.just(slice(None)),
)


@given(INDEX, INNER, INNER, st.booleans())
@settings(max_examples=100, deadline=None)
def test_any_part_of_it_is_that_part_of_the_whole(
    folder: Path, sample: object, y: object, x: object, far: bool
) -> None:
    corpus = open_corpus(folder)
    part = corpus.s1.isel(sample=sample, y=y, x=x)
    if far:  # what was chosen before is chosen from again
        part = part.isel(s1_band=[1, 0])
    whole = corpus.s1.load().isel(sample=sample, y=y, x=x)
    xr.testing.assert_identical(part.load(), whole.isel(s1_band=[1, 0]) if far else whole)


def test_nothing_is_read_before_somebody_looks(corpus: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = type(corpus.s2.variable._data.array.store).read

    def counted(self: object, name: str, sample: int, out: object = None) -> object:
        read.append(sample)
        return real(self, name, sample, out)

    monkeypatch.setattr("deepsentinel.corpus.chunks.Chunks.read", counted)
    part = corpus.isel(sample=[7, 2]).sel(s2_band="B03")
    repr(part)
    assert read == []
    assert part.s2.isel(x=3).values.shape == (2, SIZE)
    assert sorted(read) == [2, 7]


def test_the_table_lies_along_the_samples(corpus: xr.Dataset) -> None:
    rows = table()
    assert corpus.sample.values.tolist() == list(range(10))
    for name in ("s1_time", "s2_time"):
        assert corpus[name].dtype == "datetime64[ns]"
        assert (corpus[name].values == rows[name].dt.tz_convert(None).to_numpy("datetime64[ns]")).all()
    assert corpus.id.dtype == object
    assert corpus.id.values.tolist() == rows.id.tolist()
    assert corpus.reason.values.tolist() == [None] * 10
    assert corpus.transform.dims == ("sample", "affine")
    assert corpus.transform.values.tolist() == rows["transform"].tolist()
    assert corpus.isel(sample=corpus.lon.values > 3.1).sizes["sample"] == 7
    assert "geometry" not in corpus.coords


def test_rows_and_outlines_of_any_part(corpus: xr.Dataset) -> None:
    rows = samples_of(corpus.isel(sample=[8, 1]))
    assert isinstance(rows, gpd.GeoDataFrame)
    assert rows.crs == "EPSG:4326"
    assert rows["sample"].tolist() == [8, 1]
    assert rows.index.tolist() == [0, 1]
    wanted = table().iloc[[8, 1]].reset_index(drop=True)
    assert rows.geometry.geom_equals(wanted.geometry).all()
    assert [list(each) for each in rows["transform"]] == wanted["transform"].tolist()
    outlines = footprint(corpus.isel(sample=[8]))
    assert outlines.loc[8].equals(wanted.geometry[0])
    assert len(samples_of(corpus.isel(sample=3))) == 1
    with pytest.raises(InputError, match="no corpus"):
        samples_of(xr.Dataset())


def test_samples_of_another_corpus_are_refused(corpus: xr.Dataset) -> None:
    other = corpus.assign_coords(id=("sample", np.char.add("q", corpus["id"].values.astype(str)).astype(object)))
    mixed = xr.concat([corpus.isel(sample=[0, 1]), other.isel(sample=[2])], "sample")
    for verb in (samples_of, footprint):
        with pytest.raises(InputError, match=r"1 of these 3 samples, such as number 2, are not those of"):
            verb(mixed)


def test_a_sample_is_a_patch_again(corpus: xr.Dataset) -> None:
    data = pixels()
    patch = ds.check_patch(patch_of(corpus.isel(sample=slice(4, 8)), 2))
    for number, band in enumerate(COORDS["s2_band"]):
        np.testing.assert_array_equal(patch[band].values, data["s2"][6, number])
    np.testing.assert_allclose(patch.VH.values, corpus.s1.values[6, 1])
    np.testing.assert_array_equal(patch.SCL.values, data["scl"][6])
    assert patch.angle.dtype == "float32"
    grid = grid_of(patch)
    assert grid.crs.epsg == 32631
    assert list(grid.affine)[:6] == table()["transform"][6]
    assert patch.s2_time.values == np.datetime64("2018-05-07T10:30:00.125")
    assert patch.attrs["gap_hours"] == pytest.approx(-5, abs=1e-3)
    assert {key: patch.attrs[key] for key in ("s1_id", "s2_id", "source", "level", "offset_removed")} == {
        "s1_id": "S1_6",
        "s2_id": "S2_6",
        "source": "demo",
        "level": "L2A",
        "offset_removed": 1000,
    }
    np.testing.assert_array_equal(patch.cover_class_map.values, data["cover_class_map"][6])
    np.testing.assert_array_equal(patch.crops_class_map.values, data["crops_class_map"][6])
    # The finer mask covers the same ground, a quarter of the pixel size.
    assert patch.y_crops.values[:4].mean() == patch.y.values[0]
    assert patch.x_crops.values[-4:].mean() == pytest.approx(patch.x.values[-1])
    assert patch.B02.attrs["nodata"] == 0
    assert patch.VV.attrs["units"] == "dB"
    assert patch.crops_class_map.attrs["flag_meanings"] == "wheat maize"
    bare = patch_of(corpus, 6, labels=False)
    assert set(bare.data_vars) == {"B02", "B03", "B8A", "VV", "VH", "SCL", "angle"}
    assert patch_of(corpus, -1).attrs["sample_id"] == "p9"
    with pytest.raises(InputError, match="no sample 10"):
        patch_of(corpus, 10)


def test_a_sample_of_one_sensor_is_a_patch_of_that_sensor(tmp_path: Path) -> None:
    make_store(tmp_path / "c.zarr", s2_time=None, s2_id=None, gap_hours=None)
    patch = ds.check_patch(patch_of(open_corpus(tmp_path / "c.zarr"), 0, labels=False))
    assert set(patch.data_vars) == {"VV", "VH", "angle"}
    assert "s2_time" not in patch.coords


def test_an_unfinished_store_opens_and_says_what_is_there(tmp_path: Path) -> None:
    folder, found, data = tmp_path / "c.zarr", layout(), pixels()
    create_store(folder, found)
    with pytest.warns(DeepSentinelWarning, match=r"not built to the end: 0 of 10 samples are made"):
        corpus = open_corpus(folder)  # nothing but the metadata
    assert set(corpus.status.values) == {"planned"}
    assert (corpus.s2.values == 0).all()
    (folder / "plan").mkdir()
    table(status="planned", level=None, clear=None).to_parquet(folder / "plan" / "samples.parquet")
    (folder / "parts").mkdir()
    part = table().iloc[4:8].copy()
    part.loc[5, ["status", "reason"]] = "failed", "the scene is gone"
    part.to_parquet(folder / "parts" / "000001.parquet")
    write_shards(folder, found, data, shards=[1], bad=[5])
    with pytest.warns(DeepSentinelWarning, match=r"not built to the end: 4 of 10 samples are made"):
        corpus = open_corpus(folder)
    assert corpus.status.values.tolist() == ["planned"] * 4 + ["ok", "failed", "ok", "ok"] + ["planned"] * 2
    assert corpus.reason.values[5] == "the scene is gone"
    assert corpus.id.values.tolist() == [f"p{at}" for at in range(10)]
    np.testing.assert_array_equal(corpus.s2[6].values, data["s2"][6])
    assert (corpus.s2[[0, 5, 9]].values == 0).all()
    assert np.isnan(corpus.s1[5].values).all()
    with pytest.raises(NothingFoundError, match=r"Sample 5 failed .* the scene is gone"):
        patch_of(corpus, 5)
    with pytest.raises(NothingFoundError, match="planned but not built"):
        patch_of(corpus, 0)
    # It goes on, and the Dataset that is open sees the pixels.
    write_shards(folder, found, data, shards=[0])
    np.testing.assert_array_equal(corpus.s2[0].values, data["s2"][0])
    # A retry writes the shard again: what is open reads the new one.
    write_shards(folder, found, data, shards=[1])
    np.testing.assert_array_equal(corpus.s2[5].values, data["s2"][5])
    table().iloc[:4].to_parquet(folder / "parts" / "000000.parquet")
    table().iloc[4:8].to_parquet(folder / "parts" / "000001.parquet")
    assert half_built(folder).status.values.tolist() == ["ok"] * 8 + ["planned"] * 2
    assert samples_of(corpus).status.tolist() == ["ok"] * 8 + ["planned"] * 2


def test_parts_of_a_retry_count_over_the_finished_table(tmp_path: Path) -> None:
    make_store(tmp_path / "c.zarr", status=["ok"] * 9 + ["failed"], reason=[None] * 9 + ["cloud"])
    (tmp_path / "c.zarr" / "parts").mkdir()
    table().iloc[8:].to_parquet(tmp_path / "c.zarr" / "parts" / "000002.parquet")
    corpus = open_corpus(tmp_path / "c.zarr")
    assert corpus.status.values.tolist() == ["ok"] * 10
    assert corpus.reason.values[9] is None


def test_a_store_whose_shards_are_gone_says_so_and_reads_the_others(tmp_path: Path) -> None:
    make_store(tmp_path / "c.zarr")
    shard_path(tmp_path / "c.zarr", ARRAYS[0], 1).unlink()
    corpus = open_corpus(tmp_path / "c.zarr")
    with pytest.raises(ReadError, match=r"Sample 4 .* the file is missing"):
        corpus.s2[4:8].load()
    np.testing.assert_array_equal(corpus.s2[8].values, pixels()["s2"][8])


def test_what_is_no_corpus_is_said(tmp_path: Path) -> None:
    with pytest.raises(NothingFoundError, match=r"no corpus at .*nowhere.zarr"):
        open_corpus(tmp_path / "nowhere.zarr")
    xr.Dataset({"a": ("x", np.zeros(3))}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(InputError, match="is a Zarr store but no corpus"):
        open_corpus(tmp_path / "other.zarr")
    with pytest.raises(InputError, match="storage_options= are for stores elsewhere"):
        open_corpus(tmp_path, storage_options={"region": "eu"})
    with pytest.raises(InputError, match="neither a folder nor an address"):
        open_corpus("ftp://host/c.zarr")


def test_it_can_be_sent_to_another_process_and_put_on_dask(folder: Path, corpus: xr.Dataset) -> None:
    again = pickle.loads(pickle.dumps(corpus.isel(sample=[3, 5])))
    np.testing.assert_array_equal(again.s2.values, pixels()["s2"][[3, 5]])
    pytest.importorskip("dask")
    lazy = open_corpus(folder, chunks={})
    assert lazy.s2.chunks[0] == (1,) * 10
    assert int(lazy.s2.max().compute()) == int(pixels()["s2"].max())


def test_it_can_be_written_elsewhere_packed_as_it_was(corpus: xr.Dataset, tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    part = corpus[["s1"]].isel(sample=[1]).reset_coords(drop=True)
    part.to_netcdf(tmp_path / "a.nc", engine="scipy", format="NETCDF3_64BIT")
    raw = xr.open_dataset(tmp_path / "a.nc", mask_and_scale=False, engine="scipy")
    np.testing.assert_array_equal(raw.s1.values, pixels()["s1"][[1]])


LIGHT = """
import sys
sys.modules["dask"] = None
import deepsentinel.corpus.store as store
corpus = store.open_corpus(sys.argv[1])
corpus.s2.isel(sample=3).values
print([name for name in ("torch", "zarr", "geopandas", "obstore") if name in sys.modules])
"""


def test_opening_and_reading_needs_neither_dask_nor_zarr(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT, folder], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_series_come_back_without_what_pads_them(tmp_path: Path) -> None:
    lengths = [(3, 5), (1, 2), (4, 1), (2, 2), (3, 3)]
    data = series_store(tmp_path / "c.zarr", lengths)
    corpus = open_corpus(tmp_path / "c.zarr")
    assert corpus.s2_time.dims == ("sample", "s2_step")
    assert np.isnat(corpus.s2_time.values).sum(axis=1).tolist() == [1, 3, 0, 2, 1]
    assert corpus.s1_id.values[1].tolist() == ["s1-0", "s1-1", None, None, None]
    for number, (optical, radar) in enumerate(lengths):
        series = ds.check_patch(patch_of(corpus, number))
        assert (series.sizes["s2_time"], series.sizes["s1_time"]) == (optical, radar)
        np.testing.assert_array_equal(series.B03.values, data["s2"][number, :optical, 1])
        assert not np.isnan(series.VV.values).any()
        assert series.s2_id.values.tolist() == [f"s2-{step}" for step in range(optical)]
        assert series.s2_time.values[-1] == np.datetime64("2018-04-01T10:00") + np.timedelta64(5 * (optical - 1), "D")


@pytest.mark.parametrize("size", [24, 32])
def test_native_bands_are_repeated_to_10_m(tmp_path: Path, size: int) -> None:
    twenty, sixty = size // 2, -(-size // 6)
    arrays = (
        ArraySpec("s2_10m", "uint16", ("sample", "s2_band_10m", "y", "x"), (2, size, size), 0),
        ArraySpec("s2_20m", "uint16", ("sample", "s2_band_20m", "y_20m", "x_20m"), (1, twenty, twenty), 0),
        ArraySpec("s2_60m", "uint16", ("sample", "s2_band_60m", "y_60m", "x_60m"), (1, sixty, sixty), 0),
    )
    coords = {"s2_band_10m": ["B02", "B08"], "s2_band_20m": ["B11"], "s2_band_60m": ["B09"]}
    found = Layout(1, 1, arrays, coords, {"level": "L2A"})
    create_store(tmp_path / "c.zarr", found)
    rng = np.random.default_rng(1)
    data = {spec.name: rng.integers(1, 9000, spec.shape).astype("uint16") for spec in arrays}
    for spec in arrays:
        write_shard(shard_path(tmp_path / "c.zarr", spec, 0), [encode(data[spec.name], spec)])
    table(1, height=size, width=size).to_parquet(tmp_path / "c.zarr" / "samples.parquet")
    patch = ds.check_patch(patch_of(open_corpus(tmp_path / "c.zarr"), 0))
    np.testing.assert_array_equal(patch.B08.values, data["s2_10m"][1])
    for y, x in rng.integers(0, size, (50, 2)):
        assert patch.B11.values[y, x] == data["s2_20m"][0, y // 2, x // 2]
        assert patch.B09.values[y, x] == data["s2_60m"][0, y // 6, x // 6]


def test_far_away_it_is_the_same(folder: Path, corpus: xr.Dataset) -> None:
    pytest.importorskip("obstore")
    store = open_remote("memory://test-corpus-store")
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(str(path.relative_to(folder)), path.read_bytes())
    far = open_corpus("memory://test-corpus-store")
    xr.testing.assert_identical(far.drop_attrs().load(), corpus.drop_attrs().load())
    assert far.attrs["path"] == "memory://test-corpus-store"
    part = far.isel(sample=[9, 0, 3])
    np.testing.assert_array_equal(part.s2.values, pixels()["s2"][[9, 0, 3]])
    assert samples_of(part)["sample"].tolist() == [9, 0, 3]
    ds.check_patch(patch_of(part, 1))
    store.delete("s2/c/1/0/0/0")
    with pytest.raises(ReadError, match="the file is missing"):
        open_corpus("memory://test-corpus-store").s2[5].load()
    with pytest.raises(NothingFoundError, match="no corpus at memory://nothing"):
        open_corpus("memory://nothing")


def test_addresses_that_cannot_be_opened_say_why() -> None:
    pytest.importorskip("obstore")
    assert [is_url(f"{scheme}://a/b") for scheme in SCHEMES] == [True] * len(SCHEMES)
    assert not is_url("c:\\data")
    with pytest.raises(InputError, match="'bogus' is not valid"):
        open_corpus("s3://bucket/c.zarr", storage_options={"bogus": 1})
    with pytest.raises(InputError, match="Account must be specified"):
        open_corpus("az://container/c.zarr")
    with pytest.raises(InputError, match="takes no storage_options"):
        open_corpus("memory://a", storage_options={"region": "eu"})


def test_without_obstore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(InputError, match=r"pip install 'deepsentinel\[cloud\]'"):
        open_corpus("gs://bucket/c.zarr")


def test_a_table_that_is_torn_is_named(tmp_path: Path) -> None:
    make_store(tmp_path / "c.zarr")
    (tmp_path / "c.zarr" / "samples.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(ReadError, match=r"samples.parquet cannot be read"):
        open_corpus(tmp_path / "c.zarr")


def test_outlines_are_none_where_nobody_knows_them(tmp_path: Path) -> None:
    create_store(tmp_path / "c.zarr", layout())
    assert footprint(half_built(tmp_path / "c.zarr")).isna().all()
