"""A class map as polygons: burnt again they are the same map, with names and colours."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from factories import grid, with_grid

import deepsentinel as ds
from deepsentinel.errors import InputError
from deepsentinel.legend import worldcover


def class_map(codes: np.ndarray, **attrs: object) -> xr.Dataset:
    return with_grid({"class_map": (("y", "x"), codes, {**worldcover().to_attrs(), **attrs})}, grid(codes.shape))


@pytest.mark.parametrize("epsg", [32631, 3035])
def test_polygons_burnt_again_are_the_map(epsg: int) -> None:
    codes = np.random.default_rng(0).choice(np.array([0, 10, 80, 50], "uint8"), (30, 40))
    masks = with_grid({"class_map": (("y", "x"), codes, worldcover().to_attrs())}, grid((30, 40), epsg=epsg))
    found = ds.polygonize(masks)
    again = ds.rasterize(found, like=masks, layers=["class_map", "coverage"])
    np.testing.assert_array_equal(again["class_map"], codes)
    assert set(np.unique(again["coverage"].values.round(6))) == {0.0, 1.0}
    assert found.area.sum() == pytest.approx(100 * (codes != 0).sum())
    assert found.is_valid.all()


def test_names_and_colours_come_along() -> None:
    codes = np.full((6, 6), 10, "uint8")
    codes[2:4, 2:4] = 80
    found = ds.polygonize(class_map(codes)).sort_values("ground_truth")
    assert found["class_name"].tolist() == ["Tree cover", "Permanent water bodies"]
    assert found["color"].tolist() == ["#006400", "#0064c8"]
    # A lake in a wood is a hole of it.
    assert len(found.geometry.iloc[0].interiors) == 1
    assert found.crs.to_epsg() == 32631


def test_the_background_is_nowhere_and_corners_part() -> None:
    codes = np.zeros((6, 6), "uint32")
    codes[0, 0] = codes[1, 1] = 7
    masks = class_map(codes, background=0)
    masks["class_map"].attrs = {}
    found = ds.polygonize(masks["class_map"])
    assert found["ground_truth"].tolist() == [7, 7]
    assert "class_name" not in found
    assert len(ds.polygonize(class_map(np.zeros((6, 6), "uint8")))) == 0
    everything = ds.polygonize(class_map(np.full((6, 6), 10, "uint8"), background=255))
    assert len(everything) == 1


def test_what_is_no_map_of_classes_is_said() -> None:
    with pytest.raises(InputError, match="no map of classes"):
        ds.polygonize(with_grid({"VV": (("y", "x"), np.zeros((6, 6), "float32"))}, grid((6, 6))))
