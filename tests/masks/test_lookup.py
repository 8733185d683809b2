"""What a place holds, looked up one by one, is what the arrays hold there."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from factories import grid, make_patch
from pyproj import Transformer

import deepsentinel as ds
from deepsentinel.errors import InputError
from deepsentinel.grids import grid_of
from deepsentinel.masks.lookup import CONFLICT_WORDS

TO = Transformer.from_crs(32631, 4326, always_xy=True)


@pytest.fixture(scope="module")
def masks() -> xr.Dataset:
    """Two fields that share a column of pixels, and a third that lies on the first."""
    left, top = 575_000, 5_460_000
    fields = [shapely.box(left, top - 200, left + 105, top), shapely.box(left + 105, top - 200, left + 150, top)]
    fields.append(shapely.box(left, top - 200, left + 50, top - 150))
    labels = gpd.GeoDataFrame(
        {"ground_truth": ["rye", "oats", "lake"], "id": ["11", "12", "13"]}, geometry=fields, crs=32631
    )
    return ds.rasterize(labels, grid((32, 32)))


@pytest.mark.parametrize("finer", [1, 4])
def test_it_is_what_the_arrays_hold(finer: int, masks: xr.Dataset) -> None:
    patch = make_patch((40, 60), nodata=True, resolution_m=10 / finer)
    rng = np.random.default_rng(3)
    for row, col in zip(rng.integers(0, 40, 20), rng.integers(0, 60, 20), strict=True):
        inside = rng.uniform(0.02, 0.98, 2) - 0.5
        step = 10 / finer
        at = TO.transform(float(patch.x[col]) + step * inside[0], float(patch.y[row]) + step * inside[1])
        found = ds.value_at(patch, at)
        assert set(found) == set(patch.data_vars)
        for name, value in found.items():
            held = patch[name].to_numpy()[row, col]
            assert np.isnan(held) if value is None else value == held, name


def test_a_mask_tells_class_coverage_parcel_and_conflict(masks: xr.Dataset) -> None:
    def at(east_m: float, south_m: float) -> dict[str, object]:
        return ds.value_at(masks, TO.transform(575_000 + east_m, 5_460_000 - south_m))

    assert at(22, 22)["class_name"] == "rye"
    assert "conflict_words" not in at(22, 22)
    shared = at(106, 22)
    assert shared["coverage"] == pytest.approx(0.5)
    assert shared["conflict_words"] == CONFLICT_WORDS[1]
    assert at(22, 180)["conflict_words"] == CONFLICT_WORDS[2]
    nobody = at(250, 250)
    assert (nobody["class_name"], nobody["class_map"], nobody["parcel_id"]) == (None, 0, 0)
    parcels = {at(22, 22)["parcel_id"], at(130, 22)["parcel_id"]}
    assert len(parcels) == 2
    assert 0 not in parcels


def test_outside_is_nothing(masks: xr.Dataset) -> None:
    edge = grid_of(masks).boundingbox
    for x, y in ((edge.left - 1, edge.top - 5), (edge.right + 1, edge.top - 5), (edge.left + 5, edge.top + 1)):
        assert ds.value_at(masks, TO.transform(x, y)) == {}
    assert ds.value_at(masks, TO.transform(edge.right - 1, edge.bottom + 1)) != {}
    assert ds.value_at(masks, (0.0, 90.0)) == {}


def test_codes_without_a_legend_are_their_own_names(masks: xr.Dataset) -> None:
    bare = masks[["class_map"]].copy()
    bare["class_map"].attrs = {"flag_values": [1, 2], "flag_meanings": "a_lake oats"}
    at = TO.transform(575_010, 5_459_820)
    assert ds.value_at(bare, at)["class_name"] == "a lake"
    bare["class_map"].attrs = {}
    assert ds.value_at(bare, at)["class_name"] == "1"


def test_wrong_things_are_refused(masks: xr.Dataset) -> None:
    with pytest.raises(InputError, match="no place"):
        ds.value_at(masks, "Paris")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no layers"):
        ds.value_at(masks["class_map"], (3, 48))  # type: ignore[arg-type]
