"""A map of classes as files: read back it is the same, in colours, with names, and where it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from factories import grid, with_grid

import deepsentinel as ds
from deepsentinel.errors import InputError
from deepsentinel.labels.making import legend_of_labels
from deepsentinel.legend import Legend, worldcover


@pytest.fixture
def made() -> xr.Dataset:
    codes = np.full((40, 50), 10, "uint8")
    codes[10:20], codes[:, 40:], codes[:3] = 80, 50, 0
    doubt = np.random.default_rng(0).uniform(size=codes.shape).astype("float32")
    doubt[codes == 0] = np.nan
    layers = {
        "class_map": (("y", "x"), codes, {**worldcover().to_attrs(), "background": 0}),
        "uncertainty": (("y", "x"), doubt, {"long_name": "entropy"}),
    }
    return with_grid(layers, grid(codes.shape)).assign_attrs(title="classes by examples", encoder="presto")


def test_everything_is_written_and_reads_back(made: xr.Dataset, tmp_path: Path) -> None:
    written = ds.save_map(made, tmp_path / "map")
    assert [path.name for path in written] == ["class_map.tif", "uncertainty.tif", "class_map.gpkg"]
    with rasterio.open(written[0]) as file:
        assert (file.read(1) == made["class_map"].values).all()
        assert (file.crs.to_epsg(), file.nodata) == (32631, 0)
        assert file.colormap(1)[80] == (0, 100, 200, 255)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    with rasterio.open(written[1]) as file:
        np.testing.assert_array_equal(file.read(1), made["uncertainty"].values)
        assert file.tags()["ENCODER"] == "presto"
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    labels = ds.read_labels(written[2])
    again = ds.rasterize(labels, like=made, layers=["class_map"])
    np.testing.assert_array_equal(again["class_map"], made["class_map"])
    own = Legend.from_attrs(made["class_map"].attrs)
    assert own is not None
    assert legend_of_labels(labels).colors == {code: own.colors[code] for code in (10, 50, 80)}


def test_an_older_map_is_replaced_and_nothing_else(made: xr.Dataset, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ds.save_map(made, tmp_path)
    ds.save_map(
        made[["class_map"]].where(made["class_map"] != 50, 10).astype("uint8").assign_coords(made.coords), tmp_path
    )
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with rasterio.open(tmp_path / "class_map.tif") as file:
        assert 50 not in file.read(1)


def test_what_is_no_map_or_no_folder_is_said(made: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no map of classes"):
        ds.save_map(made[["uncertainty"]], tmp_path)
    with pytest.raises(InputError, match="give a folder"):
        ds.save_map(made, tmp_path / "map.tif")
