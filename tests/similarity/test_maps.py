"""Colours that hold still, groups that are found again, and change where something changed."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from vectors_kit import dense, landscape

from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.legend_class import Legend
from deepsentinel.similarity import cluster, colour_basis, embedding_change, pca_rgb


def test_colours_of_a_half_are_those_of_the_whole() -> None:
    # Directions of clearly different strength: of equally strong ones there is no first.
    rng = np.random.default_rng(0)
    mixing = np.linalg.qr(rng.normal(size=(16, 16)))[0] * np.array([8, 5, 3, *[0.5] * 13])
    z = dense(rng.normal(size=(60, 80, 16)) @ mixing.T + 100)
    whole = pca_rgb(z)
    for half in (z[::2], z[:, 1::2], z[:30], z[:, :40]):
        part = pca_rgb(half)
        same = whole.sel(y=half["y"], x=half["x"])
        assert float(abs(part - same).mean()) < 0.04
        assert float(abs(part - same).max()) < 0.25


def test_colours_are_the_principal_components() -> None:
    values, _ = landscape(20, 30)
    flat = values.reshape(-1, 12).astype("float32").astype("float64")
    basis = colour_basis(dense(values))
    assert np.allclose(basis.mean, flat.mean(axis=0), atol=1e-6)
    left, strengths, right = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    assert np.allclose(abs((right[:3] * basis.directions.T).sum(axis=1)), 1, atol=1e-6)
    assert np.allclose(basis.shares, (strengths**2 / (strengths**2).sum())[:3])
    colours = pca_rgb(dense(values)).values.reshape(-1, 3)
    first = left[:, 0] * strengths[0]
    inside = (colours[:, 0] > 0) & (colours[:, 0] < 1)
    assert 0.94 < inside.mean() < 0.98
    assert abs(np.corrcoef(colours[inside, 0], first[inside])[0, 1]) > 0.9999


@pytest.mark.parametrize("seed", range(8))
def test_the_order_of_features_and_rows_changes_no_colour(seed: int) -> None:
    values, _ = landscape(20, 30, seed=seed)
    colours = pca_rgb(dense(values))
    mixed = np.random.default_rng(seed).permutation(12)
    assert np.allclose(pca_rgb(dense(values[..., mixed])), colours, atol=1e-4)
    assert np.allclose(pca_rgb(dense(values[::-1])).values[::-1], colours, atol=1e-4)


def test_one_basis_gives_two_embeddings_the_same_colours() -> None:
    values, _ = landscape(20, 30)
    one, other = dense(values), dense(np.concatenate([values[10:], values[10:] + 3]))
    basis = colour_basis([one, other])
    a, b = pca_rgb(one, basis=basis), pca_rgb(other, basis=basis)
    assert np.array_equal(a.values[10:], b.values[:10])
    assert not np.allclose(pca_rgb(one).values[10:], pca_rgb(other).values[:10], atol=0.05)


def test_no_data_has_no_colour_and_does_not_change_that_of_others() -> None:
    values, _ = landscape(20, 30)
    holed = values.copy()
    holed[:3] = np.nan
    colours = pca_rgb(dense(holed))
    assert np.isnan(colours[:3]).all()
    assert colours.dtype == "float32"
    assert np.allclose(colours[3:], pca_rgb(dense(values[3:])), atol=1e-6)
    assert list(colours["channel"].values) == ["red", "green", "blue"]
    assert "spatial_ref" in colours.coords


def test_what_does_not_vary_is_grey_and_not_noise() -> None:
    assert (pca_rgb(dense(np.full((6, 7, 5), 1.7))) == 0.5).all()
    with pytest.raises(InputError, match="all of them are NaN"):
        pca_rgb(dense(np.full((6, 7, 5), np.nan)))
    with pytest.raises(InputError, match="three features"):
        pca_rgb(dense(np.ones((6, 7, 2))))


def test_groups_are_the_true_ones_numbered_by_size() -> None:
    values, kind = landscape(60, 60, classes=4)
    values[0] = np.nan
    found = cluster(dense(values), 4, metric="euclidean")
    assert found.name == "class_map"
    assert (found[0] == 0).all()
    assert (found[1:] > 0).all()
    sizes = np.bincount(found.values.ravel())[1:]
    assert (np.diff(sizes) <= 0).all()
    # each group is one class, nearly
    table = np.zeros((5, 5), int)
    np.add.at(table, (found.values[1:].ravel(), kind[1:].ravel()), 1)
    assert table.max(axis=1).sum() / kind[1:].size > 0.97
    assert len(set(table[1:].argmax(axis=1))) == 4
    legend = Legend.from_attrs(found.attrs)
    assert legend is not None
    assert legend.codes == (1, 2, 3, 4)
    assert found.equals(cluster(dense(values), 4, metric="euclidean"))
    other = cluster(dense(values), 4, metric="euclidean", seed=7)
    assert float((other == found).mean()) > 0.97


def test_the_cosine_ignores_the_length_of_vectors() -> None:
    values, _ = landscape(20, 20)
    brighter = values * np.random.default_rng(0).uniform(0.5, 2, (20, 20, 1))
    assert float((cluster(dense(values), 3) == cluster(dense(brighter), 3)).mean()) > 0.99
    assert float(abs(embedding_change(dense(values), dense(brighter))).max()) < 1e-6
    assert float(embedding_change(dense(values), dense(brighter), metric="euclidean").max()) > 1


def test_fewer_vectors_than_groups_make_fewer_groups() -> None:
    z = dense(np.repeat(np.eye(2, 4), 10, axis=0).reshape(4, 5, 4))
    assert set(np.unique(cluster(z, 8))) == {1, 2}


def test_change_is_where_something_changed() -> None:
    values, _ = landscape(20, 30)
    after = values.copy()
    after[5:9, 5:9] = -values[5:9, 5:9]
    after[0] = np.nan
    found = embedding_change(dense(values), dense(after))
    assert np.isnan(found[0]).all()
    assert np.allclose(found[5:9, 5:9], 2, atol=1e-5)
    rest = found.values.copy()
    rest[5:9, 5:9] = 0
    assert np.nanmax(rest) == 0
    assert found.equals(embedding_change(dense(after), dense(values)))
    a, b = values[7, 20], values[8, 21]
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    pair = [xr.DataArray(v, dims="feature") for v in (a, b)]
    assert embedding_change(*pair).item() == pytest.approx(1 - cosine, abs=1e-6)


def test_change_between_different_places_is_refused() -> None:
    values, _ = landscape(20, 30)
    z = dense(values)
    with pytest.raises(InputError, match="differ in x"):
        embedding_change(z, z.assign_coords(x=z["x"] + 80))
    with pytest.raises(InputError, match="20 y, 30 x"):
        embedding_change(z, z[:, :-1])
    with pytest.raises(InputError, match="different encoders"):
        embedding_change(dense(values, weights="a"), dense(values, weights="b"))


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("sensors", "both", "s1"),
        ("bands", "VV VH", "VV"),
        ("patch_px", 8, 4),
        ("resolution_m", 80.0, 40.0),
        ("mask_clouds", 0, 1),
        ("keep_positions", 0, 1),
    ],
)
def test_change_between_embeddings_made_in_two_ways_is_refused(key: str, one: object, other: object) -> None:
    values, _ = landscape(6, 5)
    with pytest.raises(InputError, match=f"embedded with {key} {one} and {other}, which would count as change"):
        embedding_change(dense(values, **{key: one}), dense(values, **{key: other}))
    assert float(embedding_change(dense(values, **{key: one}), dense(values, **{key: one})).max()) == 0
    # One that saw nothing changes nothing.
    if key == "sensors":
        assert embedding_change(dense(values, sensors="none") * np.nan, dense(values, sensors="s1")).isnull().all()


def test_samples_that_lost_a_sensor_between_the_dates_are_counted() -> None:
    z = xr.DataArray(np.eye(4, 6), dims=("sample", "feature"), attrs={"sensors": "mixed"})
    before = z.assign_coords(sensors=("sample", ["both", "both", "s1", "none"]))
    after = z.assign_coords(sensors=("sample", ["both", "s1", "both", "s1"]))
    with pytest.warns(DeepSentinelWarning, match="2 of 4 samples saw other sensors"):
        embedding_change(before, after)
    embedding_change(before, before)
    whole = z.assign_coords(sensors=("sample", ["both"] * 4)).assign_attrs(sensors="both")
    with pytest.warns(DeepSentinelWarning, match="2 of 4 samples"):
        embedding_change(whole, after)


def test_samples_without_a_place_are_compared_in_their_order() -> None:
    z = xr.DataArray(np.eye(3, 4), {"lon": ("sample", [2.0, np.nan, 3.0])}, ("sample", "feature"))
    assert embedding_change(z, z).values.tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="different encoders"):
        embedding_change(z.assign_attrs(encoder="a", bands="VV"), z.assign_attrs(encoder="b", bands="VH"))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [2, 6, 12])
def test_groups_of_a_large_map_are_as_tight_as_those_of_a_full_search(k: int, metric: str) -> None:
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(k)
    # Ground of nine kinds that run into each other, more of it than centres are learnt on, and a corner without data.
    kinds, shares = rng.normal(size=(9, 32)), rng.dirichlet(np.full(9, 0.4), size=(130, 130))
    values = (shares @ kinds + 0.25 * rng.normal(size=(130, 130, 32)) + 0.5).astype("float32")
    values[:20, :30] = np.nan
    found = cluster(dense(values), k, metric=metric).values
    assert (found[:20, :30] == 0).all()
    assert found[20:].min() == 1
    flat, groups = values[found > 0].astype("float64"), found[found > 0]
    assert len(flat) > 2 * 3_000
    if metric == "cosine":
        flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    spread = sum(((part - part.mean(axis=0)) ** 2).sum() for part in (flat[groups == code] for code in range(1, k + 1)))
    whole = KMeans(k, n_init=10, random_state=1).fit(flat).inertia_
    assert spread < 1.02 * whole
    assert np.array_equal(found, cluster(dense(values), k, metric=metric).values)
