"""Where to look next: doubtful ground, apart from each other and from what is known, and not the edges of fields."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1] / "similarity"))
from vectors_kit import dense, landscape, lonlat_of

import deepsentinel as ds
from deepsentinel.errors import InputError


@pytest.fixture(scope="module")
def z() -> xr.DataArray:
    return dense(landscape(48, 48, seed=2)[0])


def pins(z: xr.DataArray, *cells: tuple[int, int, str]) -> object:
    return ds.make_labels([(lonlat_of(z, row, col), name) for row, col, name in cells])


def test_places_are_apart_and_the_most_doubtful_comes_first(z: xr.DataArray) -> None:
    labels = pins(z, (4, 4, "a"), (40, 40, "b"), (4, 40, "c"))
    found = ds.suggest(z, labels, n=6, block_m=800)
    assert len(found) == 6
    assert found["doubt"].is_monotonic_decreasing
    blocks = {(int(row) // 10, int(col) // 10) for row, col in found[["row", "col"]].to_numpy()}
    assert len(blocks) == 6
    places = found[["row", "col"]].to_numpy("float64") * 80
    gaps = np.hypot(*(places[:, None] - places[None]).T) + np.eye(6) * 1e9
    assert gaps.min() >= 400
    known = np.array([(4, 4), (40, 40), (4, 40)]) * 80
    assert np.hypot(*(places[:, None] - known[None]).T).min() >= 400
    for row, col, point in zip(found["row"], found["col"], found.geometry, strict=True):
        assert (point.x, point.y) == pytest.approx(lonlat_of(z, row, col), abs=1e-6)


def test_it_asks_about_ground_that_nothing_is_known_of() -> None:
    values = np.zeros((30, 30, 3))
    values[:, :10, 0], values[:, 10:20, 0], values[20:, 20:, 0] = -4, 4, 0  # the last is between the two
    values[:20, 20:, 0] = 4
    z = dense(values + 0.1 * np.random.default_rng(0).normal(size=values.shape))
    found = ds.suggest(z, pins(z, (3, 3, "a"), (3, 15, "b")), n=1)
    assert (found["row"].item() >= 20, found["col"].item() >= 20) == (True, True)
    assert found["class_name"].item() in ("a", "b")


def test_the_edge_of_a_field_is_not_asked_about() -> None:
    """One mixed column between two sure fields is more doubtful than a wide field of weak doubt, and tells less."""
    values = np.zeros((30, 40, 3))
    values[:, :15, 0], values[:, 15, 0], values[:, 16:30, 0], values[:, 30:, 0] = -4, 0, 4, 0.6
    z = dense(values + 0.02 * np.random.default_rng(0).normal(size=values.shape))
    found = ds.suggest(z, pins(z, (3, 3, "a"), (3, 20, "b")), n=3)
    assert (found["col"] > 30).all()


def test_with_one_class_it_asks_for_what_is_unlike_it() -> None:
    values = np.ones((30, 30, 6))
    values[20:, 20:] = -3
    z = dense(values + 0.5 * np.random.default_rng(0).normal(size=values.shape))
    found = ds.suggest(z, pins(z, (3, 3, "a")), n=1)
    assert min(found["row"].item(), found["col"].item()) >= 20
    assert found["class_name"].item() is None


def test_labelling_what_is_asked_for_helps_more_than_chance() -> None:
    """The same number of labels, where it asks for them and at random: on four landscapes the map is better."""
    better = []
    for seed in range(4):
        values, kind = landscape(48, 48, classes=6, seed=seed)
        values += np.random.default_rng(seed).normal(size=values.shape)
        z = dense(values)
        rng = np.random.default_rng(seed)
        first = [(row, col, f"{kind[row, col]}") for row, col in rng.integers(0, 48, (4, 2))]
        asked, drawn = list(first), list(first)
        for _ in range(2):
            places = ds.suggest(z, pins(z, *asked), n=5)[["row", "col"]].to_numpy()
            asked += [(int(row), int(col), f"{kind[row, col]}") for row, col in places]
            drawn += [(int(row), int(col), f"{kind[row, col]}") for row, col in rng.integers(0, 48, (5, 2))]
        scores = []
        for labels in (asked, drawn):
            made = ds.classify(z, pins(z, *labels))
            names = {code: int(name) for code, name in _names(made).items()}
            scores.append(float((np.vectorize(names.get)(made["class_map"].values) == kind).mean()))
        better.append(scores[0] - scores[1])
    assert np.mean(better) > 0.05, better


def _names(made: xr.Dataset) -> dict[int, str]:
    from deepsentinel.legend import Legend

    legend = Legend.from_attrs(made["class_map"].attrs)
    assert legend is not None
    return legend.names


def test_nothing_is_asked_where_nothing_was_seen(z: xr.DataArray) -> None:
    holed = z.copy()
    holed[:, 20:] = np.nan
    found = ds.suggest(holed, pins(z, (4, 4, "a"), (40, 10, "b")), n=20)
    assert len(found) > 10
    assert (found["col"] < 20).all()
    assert len(found) == len(found.drop_duplicates(["row", "col"]))


def test_what_is_wrong_is_said(z: xr.DataArray) -> None:
    labels = pins(z, (4, 4, "a"), (40, 40, "b"))
    with pytest.raises(InputError, match="n=0"):
        ds.suggest(z, labels, n=0)
    with pytest.raises(InputError, match="block_m=-1"):
        ds.suggest(z, labels, block_m=-1)
    with pytest.raises(InputError, match="label one place first"):
        ds.suggest(z, ds.make_labels([((9, 9), "a")]))
    tiny = dense(np.random.default_rng(0).normal(size=(2, 1, 3)))
    with pytest.raises(InputError, match="nowhere left"):
        ds.suggest(tiny, pins(tiny, (0, 0, "a"), (1, 0, "b")))
