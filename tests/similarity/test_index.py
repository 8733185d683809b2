"""The index answers as brute force does, whatever the order, the storage and the holes in the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors_kit import dense, landscape, lonlat_of, samples

from deepsentinel.errors import DeepSentinelWarning, InputError, ReadError
from deepsentinel.similarity import similarity_index


def brute(values: np.ndarray, positives: np.ndarray, negatives: np.ndarray, metric: str, combine: str) -> np.ndarray:
    """Scores in float64, as the documentation has them, one pair of vectors at a time."""
    fold = {"mean": np.mean, "nearest": np.max}[combine]

    def near(a: np.ndarray, b: np.ndarray) -> float:
        if metric == "cosine":
            return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        return -float(np.linalg.norm(a - b))

    parts = []
    for examples in (positives, negatives):
        found = [fold([near(v, e) for e in examples]) if len(examples) else 0.0 for v in values.astype("float64")]
        parts.append(np.array(found))
    return parts[0] - parts[1]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 300),
    width=st.integers(1, 40),
    k=st.integers(1, 40),
    metric=st.sampled_from(["cosine", "euclidean"]),
    combine=st.sampled_from(["mean", "nearest"]),
    negatives=st.integers(0, 3),
    copies=st.booleans(),
)
def test_a_query_gives_what_brute_force_gives_in_any_order_of_rows(
    seed: int, count: int, width: int, k: int, metric: str, combine: str, negatives: int, copies: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, width)).astype("float32") + 1
    if copies:  # ties
        values = values[rng.integers(0, max(1, count // 5), count)]
    missing = rng.random(count) < 0.2
    held = values.copy()
    held[missing, rng.integers(width)] = np.nan
    wished, avoided = rng.normal(size=(2, width)), rng.normal(size=(negatives, width))
    lon, lat = rng.uniform(0, 1, count), rng.uniform(0, 1, count)
    ids = np.array([f"s{number}" for number in range(count)])
    index = similarity_index(samples(held, lon, lat, ids), metric=metric)
    found = index.query(positives=wished, negatives=avoided, k=k, combine=combine)

    usable = np.flatnonzero(~missing)
    scores = brute(values, wished, avoided, metric, combine)
    best = np.sort(scores[usable])[::-1][:k]
    assert len(found) == len(best) == len(set(found["key"]))
    assert np.allclose(found["score"], best, atol=2e-6)
    assert np.allclose(found["score"], [scores[int(key[1:])] for key in found["key"]], atol=2e-6)
    assert (np.diff(found["score"]) <= 0).all()

    mixed = rng.permutation(count)
    other = similarity_index(samples(held[mixed], lon[mixed], lat[mixed], ids[mixed]), metric=metric)
    again = other.query(positives=wished, negatives=avoided, k=k, combine=combine)
    assert again["key"].tolist() == found["key"].tolist()
    assert again["score"].tolist() == found["score"].tolist()


def test_vectors_that_differ_less_than_float32_products_do_are_still_ranked_right() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=256)
    values = (base + 1e-4 * rng.normal(size=(5000, 256))).astype("float32")
    index = similarity_index(values)
    stored = index.parts[0].vectors.astype("float64")
    wanted = base / np.linalg.norm(base)
    assert index.query(base, k=50)["key"].tolist() == np.argsort(-(stored @ wanted), kind="stable")[:50].tolist()


def test_a_click_means_the_cell_under_it_and_the_map_agrees_with_the_table() -> None:
    values, _ = landscape(30, 41)
    values[3:6, 2:9] = np.nan
    z = dense(values)
    index = similarity_index(z)
    lon, lat = lonlat_of(z, 20, 33)
    # anywhere in the cell, not only in its middle
    found = index.query((lon + 39 / 73_000, lat - 39 / 111_300), k=10)
    assert (found["row"][0], found["col"][0]) == (20, 33)
    assert found["score"][0] == pytest.approx(1, abs=1e-6)
    for _, hit in found.iterrows():
        assert (hit["x"], hit["y"]) == (float(z["x"][hit["col"]]), float(z["y"][hit["row"]]))
        assert (hit["lon"], hit["lat"]) == pytest.approx(lonlat_of(z, hit["row"], hit["col"]))
        assert (hit.geometry.x, hit.geometry.y) == (hit["lon"], hit["lat"])
    scores = index.score_map((lon, lat))
    assert scores.dims == ("y", "x")
    xr.testing.assert_equal(scores["x"].drop_vars("spatial_ref"), z["x"].drop_vars("spatial_ref"))
    assert np.array_equal(np.isnan(scores), np.isnan(values).any(axis=-1))
    table = [float(scores[row, col]) for row, col in zip(found["row"], found["col"], strict=True)]
    assert np.allclose(table, found["score"], atol=1e-5)
    assert int((scores > found["score"].min() + 1e-5).sum()) < 10


def test_no_hole_is_ever_returned_and_all_else_is() -> None:
    values, _ = landscape(9, 7)
    values[2:7] = np.nan
    found = similarity_index(dense(values)).query(values[0, 0], k=1000)
    assert len(found) == np.isfinite(values).all(axis=-1).sum()
    assert not set(found["row"]) & set(range(2, 7))
    empty = similarity_index(dense(np.full((4, 5, 3), np.nan))).query(np.ones(3))
    assert len(empty) == 0
    assert list(empty.columns) == list(found.columns)


def test_results_can_be_kept_apart() -> None:
    values, _ = landscape(40, 40)
    z = dense(values)
    index = similarity_index(z)
    click = lonlat_of(z, 20, 20)
    found = index.query(click, k=12, apart_m=500)
    assert len(found) == 12
    x, y = found["x"].to_numpy(), found["y"].to_numpy()
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + 1e9 * np.eye(12)
    assert apart.min() >= 499
    assert np.hypot(x - float(z["x"][20]), y - float(z["y"][20])).min() >= 499
    # each is the best of those that are far enough from the better ones
    order = index.query(click, k=1600)
    far = np.hypot(order["x"] - float(z["x"][20]), order["y"] - float(z["y"][20])) >= 500
    assert found["key"][0] == order[far]["key"].iloc[0]
    assert len(index.query(click, k=500, apart_m=1500)) < 20


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_saved_and_opened_it_answers_the_same(tmp_path, dtype: str, metric: str) -> None:
    values, _ = landscape(12, 15)
    values[0, 0] = np.nan
    rng = np.random.default_rng(1)
    patches = samples(
        rng.normal(size=(20, 12)), rng.uniform(2, 3, 20), rng.uniform(48, 49, 20), [f"é{n}" for n in range(20)]
    )
    index = similarity_index(dense(values, encoder="presto"), metric=metric, dtype=dtype)
    assert index.add(patches) is index
    index.save(tmp_path / "a.safetensors")
    opened = similarity_index(tmp_path / "a.safetensors")
    assert repr(opened) == repr(index)
    assert not opened.parts[0].vectors.flags.writeable
    for query in (values[4, 4], (float(patches["lon"][3]), float(patches["lat"][3])), "é7", ["é7", values[2, 2]]):
        assert opened.query(query, k=300).equals(index.query(query, k=300))
    # onto the file that it is mapped from
    opened.add(patches + 1)
    opened.save(tmp_path / "a.safetensors")
    assert len(similarity_index(tmp_path / "a.safetensors")) == 12 * 15 + 40
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_file_is_one_that_others_read(tmp_path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    values, _ = landscape(6, 5)
    similarity_index(dense(values), metric="euclidean", out=tmp_path / "a.safetensors")
    read = numpy.load_file(tmp_path / "a.safetensors")
    assert np.array_equal(read["0.vectors"], values.reshape(-1, 12).astype("float32"))


def test_built_on_disk_it_is_the_one_built_in_memory(tmp_path) -> None:
    values, _ = landscape(12, 15)
    values[5] = np.nan
    z = dense(values).chunk({"y": 4})
    on_disk = similarity_index(z, out=tmp_path / "a.safetensors")
    assert on_disk.query(values[0, 0], k=50).equals(similarity_index(z).query(values[0, 0], k=50))


def test_half_precision_is_read_as_it_is_stored() -> None:
    every = np.arange(2**16, dtype="uint16").view("float16")
    values = every[np.isfinite(every)][: 2 * 31_000].reshape(-1, 4)
    index = similarity_index(values.astype("float32"), metric="euclidean", dtype="float16")
    assert np.array_equal(index.parts[0].vectors, values)
    blocks = np.concatenate([block.copy() for _, block in index.parts[0].blocks()])
    assert np.array_equal(blocks, values.astype("float32"))
    assert np.array_equal(np.signbit(blocks), np.signbit(values))


def test_half_precision_moves_scores_by_less_than_a_thousandth() -> None:
    values, _ = landscape(20, 20)
    full, half = (
        similarity_index(dense(values), dtype=dtype).score_map(values[3, 3]) for dtype in ("float32", "float16")
    )
    assert 0 < float(abs(full - half).max()) < 1e-3


@pytest.mark.parametrize("damage", ["short", "pickle", "empty", "header", "shape"])
def test_a_damaged_file_is_refused_with_its_name(tmp_path, damage: str) -> None:
    path = tmp_path / "a.safetensors"
    similarity_index(np.eye(50, 4, dtype="float32")).save(path)
    data = path.read_bytes()
    path.write_bytes(
        {
            "short": data[:-100],
            "pickle": b"\x80\x04\x95" + bytes(100),
            "shape": data.replace(b'"shape": [50, 4]', b'"shape": [50, 3]'),
            "empty": b"",
            "header": data.replace(b'"parts"', b'"pasts"').replace(b"parts", b"pasts"),
        }[damage]
    )
    with pytest.raises(ReadError, match=r"a\.safetensors"):
        similarity_index(path)
    with pytest.raises(ReadError, match="no file"):
        similarity_index(tmp_path / "none")


def test_a_write_that_fails_leaves_the_old_index(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.safetensors"
    similarity_index(np.eye(50, 4, dtype="float32")).save(path)
    before = path.read_bytes()

    def broken(*args: object) -> None:
        raise OSError("disk full")

    values, _ = landscape(6, 5)
    monkeypatch.setattr("deepsentinel.similarity.parts.unit", broken)
    with pytest.raises(OSError, match="disk full"):
        similarity_index(dense(values), out=path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_what_does_not_fit_together_is_refused() -> None:
    values, _ = landscape(6, 5)
    z = dense(values, encoder="presto")
    index = similarity_index(z)
    with pytest.raises(InputError, match=r"different encoders.*presto.*galileo"):
        index.add(dense(values, encoder="galileo-nano"))
    with pytest.raises(InputError, match="different encoders"):
        index.query(dense(values, encoder="galileo-nano")[0, 0])
    with pytest.raises(InputError, match="7 features, and the index 12"):
        index.add(np.ones((3, 7)))
    for wrong, words in {
        "nobody": "No sample of the index is called 'nobody'",
        (48.0, 95.0): "longitude comes first",
        (120.0, 20.0): "outside of the index.*6 x 5 cells of 80 m, EPSG:32631, longitude 3.001 to 3.005, latitude 48.7",
    }.items():
        with pytest.raises(InputError, match=words):
            index.query(wrong)
    with pytest.raises(InputError, match="without data"):
        index.query(np.full(12, np.nan))
    with pytest.raises(InputError, match="no direction"):
        index.query(np.zeros(12))
    with pytest.raises(InputError, match="empty"):
        index.query()
    with pytest.raises(InputError, match=r"pick cells|click"):
        index.query(z)
    with pytest.raises(InputError, match="k=0"):
        index.query(values[0, 0], k=0)
    with pytest.raises(InputError, match="no embedding in this index is dense"):
        similarity_index(np.eye(3)).score_map(np.ones(3))
    with pytest.raises(InputError, match="too large for float16"):
        similarity_index(np.full((2, 2), 1e6), metric="euclidean", dtype="float16")
    values[0, 0] = np.nan
    hollow = dense(values)
    with pytest.raises(InputError, match="no data at"):
        similarity_index(hollow).query(lonlat_of(hollow, 0, 0))


def test_samples_without_a_place_are_asked_by_number_and_by_name() -> None:
    z = xr.DataArray(np.eye(4, 5), dims=("sample", "feature"))
    assert similarity_index(z).query(2, k=1)["key"].tolist() == [2]
    named = z.assign_coords(id=("sample", ["a", "b", "c", "d"]))
    assert similarity_index(named).query("c", k=1)["key"].tolist() == ["c"]


def test_a_name_that_several_samples_have_is_refused() -> None:
    one, other = (samples(np.eye(3, 4)[::step], np.arange(3.0), np.arange(3.0)) for step in (1, -1))
    index = similarity_index([one, other])
    with pytest.raises(InputError, match="2 samples of the index are called 0"):
        index.query(0)
    apart = similarity_index([one, other.assign_coords(id=("sample", [3, 4, 5]))])
    assert apart.query(5, k=1)[["part", "key"]].to_numpy().tolist() == [[0, 0]]
    assert apart.query(0, k=1)[["part", "key"]].to_numpy().tolist() == [[0, 0]]


def test_a_click_may_be_a_point_and_one_turned_round_is_told_so() -> None:
    import shapely

    values, _ = landscape(6, 5)
    index = similarity_index(dense(values))
    lon, lat = lonlat_of(dense(values), 2, 3)
    assert index.query(shapely.Point(lon, lat), k=1)["key"].tolist() == [13]
    with pytest.raises(InputError, match="exchanged, the click is on it"):
        index.query((lat, lon))


def test_vectors_of_other_sensors_are_searched_with_a_warning() -> None:
    values, _ = landscape(6, 5)
    index = similarity_index(dense(values, encoder="presto", sensors="both"))
    with pytest.warns(DeepSentinelWarning, match=r"saw different sensors \(both and s1\)"):
        index.query(dense(values, encoder="presto", sensors="s1")[0, 0])
    index.query(dense(values, encoder="presto", sensors="both", resolution_m="40")[0, 0])
    with pytest.warns(DeepSentinelWarning, match="different sensors"):
        index.add(dense(values, encoder="presto", sensors="s1"))


@pytest.mark.parametrize("name", ["z.zarr", "z.tif"])
def test_what_embed_wrote_is_taken_up_again(tmp_path: Path, name: str) -> None:
    from deepsentinel.export_embedding import embedding_to_geotiff

    values, _ = landscape(6, 5)
    z = dense(values, encoder="presto", sensors="s1").rename("embedding")
    if name == "z.zarr":
        z.to_dataset().to_zarr(tmp_path / name, zarr_format=2)
        opened = xr.open_zarr(tmp_path / name, chunks=None)
    else:
        import rioxarray

        embedding_to_geotiff(z, tmp_path / name)
        opened = rioxarray.open_rasterio(tmp_path / name)
    index = similarity_index(opened)
    assert index.attrs["encoder"] == "presto"
    assert index.query(opened["embedding"][1, 1] if name == "z.zarr" else values[1, 1], k=3)["key"].tolist() == (
        similarity_index(z).query(z[1, 1], k=3)["key"].tolist()
    )
    with pytest.raises(ReadError, match=r"no index of vectors.*opened first: (xarray.open_zarr|rioxarray.open_raster)"):
        similarity_index(tmp_path / name)
