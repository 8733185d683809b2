"""A map from a handful of examples: what it learns, from which cells, and how sure it says it is."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1] / "similarity"))
from vectors_kit import dense, landscape, lonlat_of

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.learn.classifying import Scaling, fitted
from deepsentinel.learn.labelled import MOST_CELLS, classes_of, labelled_cells
from deepsentinel.legend import Legend, corine
from deepsentinel.similarity.vectors import vectors_of


@pytest.fixture(scope="module")
def ground() -> tuple[xr.DataArray, np.ndarray]:
    values, kind = landscape(40, 40)
    return dense(values), kind


def pins(z: xr.DataArray, kind: np.ndarray, each: int = 3, seed: int = 0) -> gpd.GeoDataFrame:
    rng, items = np.random.default_rng(seed), []
    for code in np.unique(kind):
        rows, cols = np.nonzero(kind == code)
        for pick in rng.choice(len(rows), each, replace=False):
            items.append((lonlat_of(z, rows[pick], cols[pick]), f"kind {code}"))
    return ds.make_labels(items)


def box_of(z: xr.DataArray, rows: slice, cols: slice) -> Any:
    """The outline of some cells, in the CRS of the map."""
    half = abs(float(z.x[1] - z.x[0])) / 2
    x, y = z.x[cols].values, z.y[rows].values
    return shapely.box(x.min() - half, y.min() - half, x.max() + half, y.max() + half)


def test_a_few_pins_map_all_ground(ground: tuple[xr.DataArray, np.ndarray]) -> None:
    z, kind = ground
    made = ds.classify(z, pins(z, kind))
    names = Legend.from_attrs(made["class_map"].attrs).names
    said = np.vectorize(lambda code: int(names[code][-1]))(made["class_map"].values)
    assert (said == kind).mean() > 0.9
    assert float((kind == 1).mean()) < 0.5
    # Where it is wrong it is the less sure.
    doubt = made["uncertainty"].values
    assert doubt[said != kind].mean() > 1.5 * doubt[said == kind].mean()
    assert 0 <= doubt.min() <= doubt.max() <= 1
    assert made["class_map"].dims == ("y", "x")
    assert made.attrs["examples"] == 12
    xr.testing.assert_equal(made.x, z.x)


def test_it_is_scikit_learns_answer(ground: tuple[xr.DataArray, np.ndarray]) -> None:
    """The weights for bare vectors say what the regression says of scaled ones."""
    from sklearn.linear_model import LogisticRegression

    z, kind = ground
    examples = pins(z, kind)
    found = labelled_cells(z, examples)
    plain = z.values.reshape(-1, z.sizes["feature"]).astype("float64")
    scaled = (plain - plain.mean(0)) / plain.std(0) / np.sqrt(plain.shape[1])
    model = LogisticRegression(C=10.0, max_iter=200, tol=1e-3).fit(scaled[found.rows], found.code)
    share = model.predict_proba(scaled)
    made = ds.classify(z, examples)
    assert (made["class_map"].values.reshape(-1) == model.classes_[share.argmax(1)]).mean() > 0.999
    expected = -(share * np.log(share)).sum(1) / np.log(4)
    np.testing.assert_allclose(made["uncertainty"].values.reshape(-1), expected, atol=0.02)


def test_two_classes_are_a_case_of_many() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 6)).astype("float32")
    scaling = Scaling(vectors_of(vectors), np.ones(60, bool))
    code = np.where(vectors[:, 1] > 0, 7, 3)
    weights, bias, codes = fitted(scaling, vectors, code, np.ones(60))
    assert weights.shape == (6, 2)
    assert codes.tolist() == [3, 7]
    assert (codes[(vectors @ weights + bias).argmax(1)] == code).mean() > 0.95


def test_points_and_polygons_take_their_cells() -> None:
    z = dense(np.random.default_rng(0).normal(size=(20, 20, 4)))
    point = shapely.Point(float(z.x[7]) + 39, float(z.y[3]) - 39)
    whole = box_of(z, slice(10, 12), slice(4, 7))
    tiny = shapely.Point(float(z.x[1]) + 20, float(z.y[1]) + 20).buffer(5)
    away = shapely.Point(0, 0)
    table = gpd.GeoDataFrame({"ground_truth": [1, 2, 3, 1]}, geometry=[point, whole, tiny, away], crs=32631)
    found = labelled_cells(z, table)
    cells = {
        int(number): sorted((int(row) // 20, int(row) % 20) for row in found.rows[found.example == number])
        for number in np.unique(found.example)
    }
    assert cells == {0: [(3, 7)], 1: [(row, col) for row in (10, 11) for col in (4, 5, 6)], 2: [(1, 1)]}
    assert found.lost == 1
    np.testing.assert_allclose([found.weight[found.code == code].sum() for code in (1, 2, 3)], 3 / 3)


def test_classes_count_the_same_however_many_examples_they_have() -> None:
    z = dense(np.random.default_rng(0).normal(size=(20, 20, 4)))
    shapes = [
        box_of(z, slice(0, 4), slice(0, 4)),
        shapely.Point(float(z.x[9]), float(z.y[9])),
        box_of(z, slice(10, 12), slice(4, 7)),
    ]
    found = labelled_cells(z, gpd.GeoDataFrame({"ground_truth": [1, 1, 2]}, geometry=shapes, crs=32631))
    of_example = [found.weight[found.example == number].sum() for number in range(3)]
    np.testing.assert_allclose(of_example, [0.75, 0.75, 1.5])


def test_a_cell_is_in_a_polygon_if_its_middle_is() -> None:
    z = dense(np.ones((16, 16, 3)) + np.random.default_rng(0).normal(size=(16, 16, 3)))
    shape = shapely.Point(float(z.x[8]), float(z.y[7])).buffer(290)
    found = labelled_cells(z, gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[shape], crs=32631))
    inside = {
        row * 16 + col
        for row in range(16)
        for col in range(16)
        if np.hypot(float(z.x[col] - z.x[8]), float(z.y[row] - z.y[7])) < 289
    }
    assert set(found.rows.tolist()) == inside


def test_a_large_field_does_not_shout_down_a_pin() -> None:
    """A correction by one pin counts, though a field of its class has hundreds of cells."""
    values, kind = np.zeros((40, 40, 3)), np.ones((40, 40), int)
    values[:, 20:, 0], kind[:, 20:] = 4, 2
    values[30:, :10, 1], kind[30:, :10] = 4, 2  # other ground of the second class
    z = dense(values + np.random.default_rng(0).normal(size=values.shape) * 0.3)
    field = box_of(z, slice(0, 25), slice(25, 40))
    rows = [(box_of(z, slice(0, 25), slice(0, 15)), 1), (field, 2), (shapely.Point(float(z.x[5]), float(z.y[35])), 2)]
    table = gpd.GeoDataFrame(
        {"ground_truth": [code for _, code in rows]}, geometry=[shape for shape, _ in rows], crs=32631
    )
    assert (labelled_cells(z, table).example == 1).sum() == MOST_CELLS
    assert (ds.classify(z, table)["class_map"].values == kind).mean() > 0.98


def test_neither_order_nor_crs_of_the_examples_matters(ground: tuple[xr.DataArray, np.ndarray]) -> None:
    z, kind = ground
    examples = pins(z, kind)
    made = ds.classify(z, examples)
    mixed = examples.sample(frac=1, random_state=1).to_crs(3035)
    mixed.attrs = examples.attrs
    other = ds.classify(z, mixed)
    assert (other["class_map"].values == made["class_map"].values).mean() > 0.999
    np.testing.assert_allclose(other["uncertainty"].values, made["uncertainty"].values, atol=5e-3)


def test_what_was_not_seen_stays_empty(ground: tuple[xr.DataArray, np.ndarray]) -> None:
    z, kind = ground
    holed = z.copy()
    holed[5:8, :] = np.nan
    made = ds.classify(holed, pins(z, kind, 6))
    assert (made["class_map"].values[5:8] == 0).all()
    assert np.isnan(made["uncertainty"].values[5:8]).all()
    assert (made["class_map"].values[10:] > 0).all()


def test_levels_of_names_and_of_legends(ground: tuple[xr.DataArray, np.ndarray]) -> None:
    z, kind = ground
    names = {1: "crop / rye", 2: "crop / oats", 3: "wood", 4: "water / lake"}
    fine = pins(z, kind, 4)
    labels = ds.make_labels(
        [
            ((point.x, point.y), names[int(name[-1])])
            for point, name in zip(fine.geometry, fine["class_name"], strict=True)
        ]
    )
    made = ds.classify(z, labels, level=1)
    legend = Legend.from_attrs(made["class_map"].attrs)
    assert set(legend.names.values()) == {"crop", "wood", "water"}
    said = np.vectorize(lambda code: legend.names[code])(made["class_map"].values)
    assert (said == np.vectorize(lambda code: names[code].split(" / ")[0])(kind)).mean() > 0.85
    assert set(Legend.from_attrs(ds.classify(z, labels, level=2)["class_map"].attrs).names.values()) == set(
        names.values()
    )
    land = fine.assign(ground_truth=np.array([311, 312, 211, 512]).repeat(4)).drop(columns=["class_name", "color"])
    land.attrs = {"legend": corine().to_json()}
    codes, coarse, _ = classes_of(land, level=1)
    assert np.unique(codes).tolist() == [2, 3, 5]
    assert coarse[3].name == "Forest and semi natural areas"


def test_colours_are_those_of_the_examples(ground: tuple[xr.DataArray, np.ndarray]) -> None:
    z, kind = ground
    examples = pins(z, kind)
    legend = Legend.from_attrs(ds.classify(z, examples)["class_map"].attrs)
    assert legend.colors == dict(zip(examples["ground_truth"], examples["color"], strict=True))


def test_a_label_of_code_zero_is_a_class(ground: tuple[xr.DataArray, np.ndarray]) -> None:
    z, kind = ground
    examples = pins(z, kind)
    numbered = examples[["geometry", "ground_truth"]].assign(ground_truth=examples["ground_truth"] - 1)
    numbered.attrs = {}
    made = ds.classify(z, numbered)
    assert (made["class_map"].values > 0).all()
    assert set(Legend.from_attrs(made["class_map"].attrs).names.values()) == {"0", "1", "2", "3"}


def test_it_is_shown_and_laid_on_maps(ground: tuple[xr.DataArray, np.ndarray]) -> None:
    z, kind = ground
    made = ds.classify(z, pins(z, kind))
    assert ds.overlay(made).panel.name == "class_map"
    doubt = ds.overlay(made, "uncertainty")
    assert not doubt.exact
    assert doubt.panel.bar == (0.0, 1.0, "")
    assert "classes" in ds.show(made).texts[0].get_text()


def test_what_cannot_be_learnt_is_said(ground: tuple[xr.DataArray, np.ndarray]) -> None:
    z, kind = ground
    examples = pins(z, kind)
    with pytest.raises(InputError, match="at least two classes"):
        ds.classify(z, examples[examples["ground_truth"] == 1])
    far = ds.make_labels([((9, 9), "a"), ((9, 10), "b")])
    with pytest.raises(InputError, match="None of the examples"):
        ds.classify(z, far)
    with pytest.raises(InputError, match="no map of vectors"):
        ds.classify(np.ones((5, 3)), examples)
    with pytest.raises(InputError, match="without the column"):
        ds.classify(z, examples, value="crop")
    with pytest.raises(InputError, match="no CRS"):
        ds.classify(z, gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[shapely.Point(0, 0)]))
    with pytest.raises(InputError, match="level=0"):
        ds.classify(z, examples, level=0)
    lines = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[shapely.LineString([(0, 0), (1, 1)])], crs=4326)
    with pytest.raises(InputError, match="LineString"):
        ds.classify(z, lines)
    some = ds.make_labels([((9, 9), "kind 1")], add_to=examples)
    with pytest.warns(DeepSentinelWarning, match="1 examples lie beyond"):
        made = ds.classify(z, some)
    assert made.attrs["left_out"] == 1


def test_it_answers_at_once() -> None:
    """20 examples on the cells of a whole tile: 0.1 s where nobody shares the machine."""
    values, kind = landscape(128, 128, width=384)
    z = dense(values)
    examples = pins(z, kind, 5)
    ds.classify(z, examples)
    waits = []
    for _ in range(3):
        began = time.perf_counter()
        ds.classify(z, examples)
        waits.append(time.perf_counter() - began)
    print(f"classify: {1000 * min(waits):.0f} ms")
    assert min(waits) < 1.5
