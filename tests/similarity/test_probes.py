"""Probes: folds that lie apart, scores that others would compute, and controls that see nothing."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors_kit import dense, landscape, samples

from deepsentinel.errors import InputError
from deepsentinel.similarity import knn, linear_probe
from deepsentinel.similarity.folds import make_folds


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(30, 400),
    folds=st.integers(2, 6),
    block_m=st.sampled_from([None, 300.0, 1000.0]),
    buffer_m=st.sampled_from([0.0, 50.0, 400.0]),
)
def test_training_keeps_its_distance_from_the_test(
    seed: int, count: int, folds: int, block_m: float | None, buffer_m: float
) -> None:
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 10_000, (count, 2))
    classes = rng.integers(0, 3, count)
    laid = make_folds(places, classes, count=folds, block_m=block_m, buffer_m=buffer_m, seed=seed)
    tested = []
    for number in range(laid.count):
        train, test = laid.split(number)
        tested += test.tolist()
        assert len(test)
        assert not set(laid.block[train]) & set(laid.block[test])
        if len(train):
            distances = np.hypot(*(places[train][:, None] - places[test]).transpose(2, 0, 1))
            assert distances.min() >= buffer_m
        # nothing further away than the buffer was given up
        other = np.setdiff1d(np.arange(count), np.concatenate([train, test]))
        if len(other):
            distances = np.hypot(*(places[other][:, None] - places[test]).transpose(2, 0, 1))
            assert (distances.min(axis=1) < buffer_m).all()
    assert sorted(tested) == list(range(count))
    # samples of one block share its fold
    assert len(np.unique(np.column_stack([laid.block, laid.fold]), axis=0)) == len(np.unique(laid.block))
    mixed = rng.permutation(count)
    again = make_folds(places[mixed], classes[mixed], count=folds, block_m=block_m, buffer_m=buffer_m, seed=seed)
    assert np.array_equal(again.fold, laid.fold[mixed])


def test_folds_have_their_share_of_every_class() -> None:
    rng = np.random.default_rng(0)
    places, classes = rng.uniform(0, 10_000, (3000, 2)), rng.choice(3, 3000, p=[0.8, 0.15, 0.05])
    laid = make_folds(places, classes, count=5, block_m=500, buffer_m=0, seed=0)
    for code in range(3):
        shares = np.bincount(laid.fold[classes == code]) / (classes == code).sum()
        assert np.allclose(shares, 0.2, atol=0.02)


def test_folds_are_even_where_blocks_are_not() -> None:
    rng = np.random.default_rng(0)
    sizes = (300 * 0.85 ** np.arange(30)).astype(int) + 1
    block = np.repeat(rng.permutation(30), sizes)
    places = np.column_stack([block * 1000 + rng.uniform(0, 1000, len(block)), rng.uniform(0, 1000, len(block))])
    for seed in range(5):
        laid = make_folds(places, np.zeros(len(block), int), count=5, block_m=1000, buffer_m=0, seed=seed)
        assert np.bincount(laid.fold).max() <= 1.12 * max(sizes.max(), len(block) / 5)


def test_degrees_are_measured_in_metres_wherever_they_are() -> None:
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(20, 26, 400), rng.uniform(69, 71, 400)
    kind = rng.integers(0, 2, 400)
    report = knn(samples(rng.normal(size=(400, 5)), lon, lat), kind, block_m=20_000, buffer_m=30_000)
    import pyproj

    geod = pyproj.Geod(ellps="WGS84")
    one = report.predictions[report.predictions["fold"] == 0]
    kept = report.folds[(report.folds["embedding"] == "embedding") & (report.folds["fold"] == 0)]["n_train"].item()
    others = report.predictions[report.predictions["fold"] != 0]
    nearest = [
        geod.inv(np.full(len(one), x), np.full(len(one), y), one["x"].to_numpy(), one["y"].to_numpy())[2].min()
        for x, y in zip(others["x"], others["y"], strict=True)
    ]
    assert kept == (np.array(nearest) >= 30_000).sum()
    assert 0 < kept < len(others)


def test_knn_agrees_with_scikit_learn_on_the_same_folds() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    values, kind = landscape(30, 30, classes=3)
    values = values + np.random.default_rng(1).normal(size=values.shape) * 3
    report = knn(dense(values), xr.DataArray(kind, dense(values)[..., 0].coords, ("y", "x")), k=1, block_m=800)
    table = report.predictions
    flat = values.reshape(-1, 12).astype("float32")[table["row"]]
    found = np.zeros(len(table), int)
    for fold in table["fold"].unique():
        test = (table["fold"] == fold).to_numpy()
        model = KNeighborsClassifier(1, metric="cosine", algorithm="brute")
        found[test] = model.fit(flat[~test], table["truth"][~test]).predict(flat[test])
    assert (found == table["embedding"]).mean() > 0.999


@pytest.mark.parametrize("probe", [knn, linear_probe])
def test_scores_are_those_of_the_predictions(probe) -> None:
    from sklearn import metrics

    values, kind = landscape(30, 40)
    values = values + np.random.default_rng(1).normal(size=values.shape) * 4
    z = dense(values)
    report = probe(z, xr.DataArray(kind, z[..., 0].coords, ("y", "x")))
    truth, found = report.predictions["truth"], report.predictions["embedding"]
    row = report.table.iloc[0]
    assert row["accuracy"] == pytest.approx(metrics.accuracy_score(truth, found))
    assert row["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, found))
    assert row["macro_f1"] == pytest.approx(metrics.f1_score(truth, found, average="macro"))
    assert (report.confusion().to_numpy() == metrics.confusion_matrix(truth, found)).all()
    each = report.classes[report.classes["embedding"] == "embedding"]
    assert np.allclose(each["recall"], metrics.recall_score(truth, found, average=None))
    assert 0.5 < row["accuracy"] < 0.999


@pytest.mark.parametrize("probe", [knn, linear_probe])
def test_noise_is_no_better_than_guessing_and_signal_is(probe) -> None:
    values, kind = landscape(32, 32)
    noise = np.random.default_rng(5).normal(size=values.shape)
    z = {"signal": dense(values), "noise": dense(noise)}
    report = probe(z, xr.DataArray(kind, z["noise"][..., 0].coords, ("y", "x")), shares=(1, 0.1, 0.01))
    full = report.table[report.table["share"] == 1].set_index("embedding")
    assert full.loc["signal", "accuracy"] > 0.9
    assert abs(full.loc["noise", "balanced_accuracy"] - 0.25) < 0.06
    assert full.loc["majority", "balanced_accuracy"] == pytest.approx(0.25, abs=0.06)
    assert full.loc["chance", "balanced_accuracy"] == pytest.approx(0.25, abs=0.06)
    signal = report.table[report.table["embedding"] == "signal"]
    assert signal["n_train"].is_monotonic_decreasing
    assert signal["n_train"].iloc[2] < 0.02 * signal["n_train"].iloc[0]
    assert signal["accuracy"].iloc[0] >= signal["accuracy"].iloc[2] - 0.01
    assert signal["n_test"].nunique() == 1


def test_memory_of_the_place_does_not_count() -> None:
    """Vectors that only tell where they are score high among neighbours, and not on other ground."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :40]
    place = np.stack([x, y], axis=-1)
    kind = np.kron(rng.integers(1, 4, (4, 4)), np.ones((10, 10), int))
    features = np.concatenate(
        [np.cos(place / 40 * f) for f in (1, 2, 5)] + [np.sin(place / 40 * f) for f in (1, 2, 5)], -1
    )
    z = dense(features)
    masks = xr.DataArray(kind, z[..., 0].coords, ("y", "x"))
    among, apart = (knn(z, masks, block_m=side).table["accuracy"].iloc[0] for side in (81, 800))
    assert among > 0.9
    assert apart < 0.7


@pytest.mark.parametrize("probe", [knn, linear_probe])
def test_the_order_of_the_samples_does_not_matter(probe) -> None:
    rng = np.random.default_rng(2)
    kind = np.array(["a", "b", "c"])[rng.integers(0, 3, 300)]
    values = (kind[:, None] == np.array(["a", "b", "c"])) + rng.normal(size=(300, 3))
    z = samples(values, rng.uniform(2, 3, 300), rng.uniform(48, 49, 300))
    mixed = rng.permutation(300)
    one = probe(z, kind, max_samples=250, shares=(0.3,))
    other = probe(z.isel(sample=mixed), kind[mixed], max_samples=250, shares=(0.3,))
    assert one.table.equals(other.table)
    back = other.predictions.assign(row=mixed[other.predictions["row"]]).sort_values("row", ignore_index=True)
    assert back["embedding"].equals(one.predictions["embedding"])
    assert len(one.predictions) == 250
    assert "250 of 300" in repr(one)


def test_what_has_no_class_or_no_data_is_left_out() -> None:
    values, kind = landscape(24, 24)
    values[0], kind[1] = np.nan, 0
    z = dense(values)
    masks = xr.Dataset({"class_map": (("y", "x"), kind, {"background": 0, "flag_values": [1, 2, 3, 4],
                        "flag_meanings": "wheat oats rye wood"})}, z[..., 0].coords)  # fmt: skip
    report = linear_probe(z, masks)
    assert len(report.predictions) == 22 * 24
    assert not set(report.predictions["row"]) & set(range(48))
    assert report.classes["name"].tolist()[:4] == ["wheat", "oats", "rye", "wood"]
    assert report.classes["support"][:4].sum() == 22 * 24
    assert "linear probe" in repr(report)
    assert "majority" in report._repr_html_()
    named = z.stack(sample=("y", "x")).reset_index("sample").transpose("sample", "feature")
    named = named.assign_coords(crop=("sample", kind.ravel().astype(float)))
    named["crop"][:] = np.where(kind.ravel() == 0, np.nan, kind.ravel())
    assert len(linear_probe(named, "crop").predictions) == 22 * 24


def test_a_class_that_cannot_be_learnt_is_noted() -> None:
    values, kind = landscape(24, 24)
    kind[:3, :3] = 9
    z = dense(values)
    report = knn(z, xr.DataArray(kind, z[..., 0].coords, ("y", "x")), block_m=400)
    assert any("fewer than 20" in note and "9" in note for note in report.notes)
    assert any("one fold only" in note for note in report.notes)


def test_mistakes_are_told() -> None:
    values, kind = landscape(24, 24)
    z = dense(values)
    masks = xr.DataArray(kind, z[..., 0].coords, ("y", "x"))
    with pytest.raises(InputError, match=r"rasterize\(labels, like=z\)"):
        knn(z, masks.assign_coords(x=masks["x"] + 40))
    with pytest.raises(InputError, match="no coordinate 'crop'"):
        knn(z, "crop")
    with pytest.raises(InputError, match="10 labels for 576"):
        knn(z, np.ones(10))
    with pytest.raises(InputError, match="two classes"):
        knn(z, masks * 0 + 1)
    with pytest.raises(InputError, match="too few for 5 folds"):
        knn(z, masks, block_m=100_000)
    with pytest.raises(InputError, match="smaller buffer_m"):
        linear_probe(z, masks, buffer_m=5000)
    with pytest.raises(InputError, match="no place"):
        knn(np.ones((20, 3)), np.arange(20) % 2)
    with pytest.raises(InputError, match="shares="):
        knn(z, masks, shares=(0, 1))


def test_blocks_of_their_own_leave_something_to_learn_from() -> None:
    places = np.stack(np.meshgrid(np.arange(64) * 40.0, np.arange(64) * 40.0), axis=-1).reshape(-1, 2)
    kind = np.zeros(len(places), int)
    for buffer_m, enough in ((0, 0.79), (50, 0.6), (200, 0.3)):
        laid = make_folds(places, kind, count=5, block_m=None, buffer_m=buffer_m, seed=0)
        assert min(len(laid.split(number)[0]) for number in range(5)) > enough * len(places)


def test_embeddings_that_are_probed_together_are_of_the_same_places() -> None:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, 120)
    z = samples(np.eye(3)[kind] + 0.1 * rng.normal(size=(120, 3)), rng.uniform(2, 3, 120), rng.uniform(48, 49, 120))
    mixed = z.isel(sample=rng.permutation(120))
    for probe in (knn, linear_probe):
        with pytest.raises(InputError, match="one and other differ in lon"):
            probe({"one": z, "other": mixed}, kind)
    named, turned = (each.assign_coords(id=("sample", np.arange(120)[::step])) for each, step in ((z, 1), (z, -1)))
    with pytest.raises(InputError, match="differ in id"):
        knn({"one": named, "other": turned}, kind)
    values, cells = landscape(24, 20)
    france, italy = dense(values), dense(values.transpose(1, 0, 2))
    with pytest.raises(InputError, match="france is of 24 y, 20 x and italy of 20 y, 24 x"):
        knn({"france": france, "italy": italy}, cells)
    assert len(knn({"one": z, "other": z + 1}, kind).predictions) == 120


def test_cells_of_class_0_are_left_out_aloud() -> None:
    values, kind = landscape(24, 24, classes=3)
    z = dense(values)
    report = knn(z, kind - 1)
    assert any(f"{(kind == 1).sum():,} cells of class 0 were taken as background" in note for note in report.notes)
    said = xr.DataArray(kind - 1, z[..., 0].coords, ("y", "x"), attrs={"background": 0})
    assert not any("background" in note for note in knn(z, said).notes)


@pytest.mark.parametrize("probe", [knn, linear_probe])
def test_tables_and_fractions_are_no_labels_of_vectors(probe) -> None:
    import pandas as pd

    z = dense(landscape(24, 24)[0])
    for wrong in (pd.DataFrame(np.zeros((11, 11))), np.zeros((9, 24, 24)), xr.DataArray(np.zeros((9, 24, 24)))):
        with pytest.raises(InputError, match=r"of shape \(.*ds.rasterize\(labels, like=z\)"):
            probe(z, wrong)


def test_few_places_get_blocks_of_a_size() -> None:
    places = np.stack(np.meshgrid(np.arange(4) * 640.0, np.arange(4) * 640.0), axis=-1).reshape(-1, 2) + 100
    laid = make_folds(places, np.arange(16) % 2, count=5, block_m=None, buffer_m=0, seed=0)
    assert laid.block_m >= 200
    z = samples(np.random.default_rng(0).normal(size=(16, 3)), 2 + places[:, 0] / 73_000, 48 + places[:, 1] / 111_000)
    report = knn(z, np.arange(16) % 2)
    assert report.block_m >= 200
    assert any("each place is a block of its own" in note for note in report.notes)
    five = make_folds(places[:5], np.zeros(5, int), count=5, block_m=None, buffer_m=0, seed=0)
    assert five.block_m >= 200


def test_metres_of_a_web_map_are_measured_on_the_ground() -> None:
    from pyproj import CRS

    from deepsentinel.similarity.vectors import Samples, metres

    def between(epsg: int, y: float) -> float:
        places = Samples(np.arange(2), np.array([0.0, 1000.0]), np.array([y, y]), CRS.from_epsg(epsg).to_wkt())
        return float(np.linalg.norm(np.diff(metres(places), axis=0)))

    assert between(3857, 8_399_738.0) == pytest.approx(500, rel=0.01)
    assert between(3857, 0.0) == pytest.approx(1000, rel=0.01)
    assert between(32631, 5_400_000.0) == 1000
