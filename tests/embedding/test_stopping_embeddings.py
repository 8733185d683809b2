"""A map of vectors that is being made can be ended, and says how far it is."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from factories import make_patch

import deepsentinel as ds
from deepsentinel.errors import InputError, StoppedError


@pytest.mark.parametrize("resolution_m", [None, 40.0])
def test_it_tells_each_row_of_windows_and_changes_nothing(resolution_m: float | None) -> None:
    patch, told = make_patch((224, 224)), []
    options = {"dense": True, "resolution_m": resolution_m}
    made = ds.embed(patch, "image-statistics", on_progress=lambda *step: told.append(step), **options)
    total = told[0][1]
    assert total >= 3
    assert told == [(done, total) for done in range(1, total + 1)]
    assert np.array_equal(made, ds.embed(patch, "image-statistics", **options), equal_nan=True)


@pytest.mark.parametrize("out", [None, "z.zarr", "z.tif"])
def test_it_ends_after_the_row_and_leaves_nothing(tmp_path: Path, out: str | None) -> None:
    patch, event, told = make_patch((224, 224)), threading.Event(), []

    def on_progress(done: int, total: int) -> None:
        told.append(done)
        if done == 2:
            event.set()

    target = None if out is None else tmp_path / out
    with pytest.raises(StoppedError, match="stopped after 2 of"):
        ds.embed(patch, "image-statistics", dense=True, stop=event, on_progress=on_progress, out=target)
    assert told == [1, 2]
    assert list(tmp_path.iterdir()) == []


def test_one_that_nobody_wants_is_not_begun() -> None:
    with pytest.raises(StoppedError, match="after 0 of"):
        ds.embed(make_patch((224, 224)), "image-statistics", dense=True, stop=lambda: True)


def test_what_is_no_way_to_stop_is_refused() -> None:
    with pytest.raises(InputError, match="stop='now'"):
        ds.embed(make_patch((224, 224)), "image-statistics", dense=True, stop="now")
    with pytest.raises(InputError, match="stop="):
        ds.embed(make_patch((224, 224)), "image-statistics", stop=lambda: True)
