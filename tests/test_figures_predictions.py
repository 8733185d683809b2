"""Pictures of predictions: the classes that occur, how sure the model is, and the image beside them."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from factories import make_patch
from matplotlib.figure import Figure

import deepsentinel as ds
from deepsentinel.errors import InputError
from deepsentinel.figures.predictions import doubt_panel, is_prediction
from deepsentinel.legend import worldcover


def predicted(patch: xr.Dataset, finer: int = 1) -> xr.Dataset:
    """Trees, crops and a corner that was not seen."""
    rows, columns = (patch.sizes[axis] for axis in ("y", "x"))
    codes = np.where(np.arange(columns) < columns // 2, 10, 40)[None].repeat(rows, 0).astype("uint8")
    codes[:10, :10] = 0
    doubt = np.where(codes == 0, np.nan, np.linspace(0, 0.8, columns)[None]).astype("float32")
    layers = {"class_map": (("y", "x"), codes, worldcover().to_attrs()), "uncertainty": (("y", "x"), doubt)}
    told = {"encoder": "fusion-nano", "sensors": "both", "task": "segmentation", "uncertainty": "entropy"}
    return xr.Dataset(layers, {name: patch[name] for name in ("y", "x", "spatial_ref", "s1_time", "s2_time")}, told)


def texts(fig: Figure) -> list[str]:
    return [text.get_text() for text in fig.texts]


@pytest.fixture(scope="module")
def patch() -> xr.Dataset:
    return make_patch((60, 80))


def test_the_page_names_what_occurs_and_nothing_else(patch: xr.Dataset) -> None:
    said = texts(ds.show(predicted(patch)))
    assert said[0] == "2 classes by fusion-nano, from Sentinel-1 and Sentinel-2"
    assert {"Classes", "Uncertainty", "Tree cover", "Cropland", "not seen"} <= set(said)
    assert "Snow and ice" not in said
    assert not any("natural colour" in text for text in said)


@pytest.mark.parametrize("merged", [False, True])
def test_the_image_stands_beside_it(patch: xr.Dataset, merged: bool) -> None:
    made = predicted(patch)
    said = texts(ds.show(patch.merge(made) if merged else [patch, made]))
    assert "Sentinel-2 natural colour" in said
    assert {"Classes", "Uncertainty", "Tree cover"} <= set(said)


def test_doubt_has_one_scale_for_all_maps(patch: xr.Dataset) -> None:
    panel = doubt_panel(predicted(patch))
    assert panel.bar == (0.0, 1.0, "")
    assert not panel.known[:10, :10].any()
    assert panel.known[10:].all()
    # The surer, the darker.
    assert panel.image[30, 5].sum() < panel.image[30, 75].sum()


def test_numbers_are_drawn_too(patch: xr.Dataset) -> None:
    made = predicted(patch)
    values = made["uncertainty"].rename("value").assign_attrs(column="biomass")
    said = texts(ds.show(xr.Dataset({"value": values}, attrs={"task": "regression", "encoder": "resnet18"})))
    assert said[0] == "Values of biomass by resnet18"


def test_maps_of_a_corpus_are_shown_one_by_one(patch: xr.Dataset) -> None:
    made = predicted(patch).drop_vars(["y", "x"]).expand_dims("sample")
    with pytest.raises(InputError, match="patch_of"):
        ds.show(made)


def test_masks_are_no_predictions(patch: xr.Dataset) -> None:
    assert not is_prediction(predicted(patch).drop_vars("uncertainty"))
    assert not is_prediction([predicted(patch), predicted(patch)])
    assert not is_prediction([patch, "a word"])
