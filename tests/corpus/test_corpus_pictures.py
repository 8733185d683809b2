"""A sample of a corpus on a page: its masks beside its bands, finer ones too; and one map for points and samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from build_kit import points_in, quiet_plan
from store_kit import make_store

import deepsentinel as ds
from deepsentinel.corpus.plan import load_plan
from deepsentinel.corpus.store import open_corpus, patch_of
from deepsentinel.errors import InputError
from deepsentinel.figures import corpus_map, places
from deepsentinel.figures.corpus import save_plan
from deepsentinel.figures.views import view_of


@pytest.fixture(scope="module")
def patch(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    folder = tmp_path_factory.mktemp("pictures") / "c.zarr"
    make_store(folder)
    return patch_of(open_corpus(folder), 0)


def texts(fig: Any) -> list[str]:
    return [text.get_text() for text in fig.texts if text.get_text()]


def pictures(fig: Any) -> list[np.ndarray]:
    return [image.get_array() for axes in fig.axes for image in axes.images if image.get_array().ndim == 3]


def test_a_sample_is_shown_with_its_masks_each_on_its_own_grid(patch: xr.Dataset) -> None:
    fig = ds.show(patch)
    said = texts(fig)
    assert {"Sentinel-2 B02", "Sentinel-1 VV", "Classes, 2.5 m", "Classes, 10 m"} <= set(said)
    assert {"wheat", "maize"} <= set(said)
    assert {image.shape[0] for image in pictures(fig)} >= {16, 64}
    colours = patch["crops_class_map"].values
    (drawn,) = [image for image in pictures(fig) if image.shape[0] == 64]
    # One colour a class, wherever it lies.
    for code in np.unique(colours[colours > 0]):
        assert len(np.unique(drawn[colours == code].reshape(-1, drawn.shape[-1]), axis=0)) == 1


def test_masks_are_chosen_by_the_name_they_have_in_the_corpus(patch: xr.Dataset) -> None:
    said = texts(ds.show(patch, panels=["VV", "crops_class_map"]))
    assert "Sentinel-1 VV" in said
    assert {"Classes", "wheat", "maize"} <= set(said)
    assert "4" not in said  # a class of the other labels
    assert sum(text.startswith("Classes") for text in texts(ds.show(patch, panels="class_map"))) == 3
    with pytest.raises(InputError, match="There is no panel 'osm_class_map'"):
        ds.show(patch, panels=["osm_class_map"])


def test_a_mask_alone_and_masks_alone_are_shown(patch: xr.Dataset) -> None:
    assert "wheat" in texts(ds.show(patch["crops_class_map"]))
    assert "wheat" in texts(ds.show(patch[["crops_class_map"]]))
    assert "wheat" in texts(ds.show([patch, patch["crops_class_map"]]))
    plain = patch["cover_class_map"].drop_attrs(deep=False)
    for mask in (plain, plain.rename("cover_conflict")):
        ds.show(mask)
    with pytest.raises(InputError) as told:
        ds.show(patch["crops_class_map"].drop_vars(["y_crops", "x_crops"]))
    assert "embedding" not in str(told.value)


def test_points_and_samples_are_on_the_same_map() -> None:
    assert places.view_of is corpus_map.view_of is view_of
    # Around a pole no meridian is in the middle; a lone place is not a map of nothing.
    pole = view_of(np.array([100.0, 120.0]), np.array([85.0, 86.0]))
    assert pole.centre[0] == 0
    assert view_of(np.array([3.0]), np.array([50.0])).width_m == pytest.approx(10_000)
    assert view_of(np.linspace(0, 9, 5), np.full(5, 50.0)).outlined
    assert not view_of(np.array([3.0, 3.1]), np.array([50.0, 50.0])).outlined


def test_a_plan_is_saved_with_its_picture(tmp_path: Path) -> None:
    from PIL import Image

    src = ds.open_source("demo", size_px=256)
    plan = quiet_plan(points_in(src, 3), src)
    folder = save_plan(plan, tmp_path / "plan")
    assert load_plan(folder, src).fingerprint == plan.fingerprint
    assert Image.open(folder / "plan.png").size[0] > 1000
