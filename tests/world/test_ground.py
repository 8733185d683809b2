"""The ground that lies beside a saved landscape is the ground that would be made."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from scenes_kit import landscape, pick, rendered

from deepsentinel.world import ground as room
from deepsentinel.world.landscape import Landscape
from deepsentinel.world.optical import render_s2


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    scene = pick("S2")[0]
    land = landscape()
    land.save(tmp_path / "landscape.npz")
    room.save_ground(land, scene.tile, scene.geobox, tmp_path)
    return tmp_path / "landscape.npz"


def test_ground_is_read_back_as_it_was_made(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = pick("S2")[0]
    made = room.ground(landscape(), scene.tile, scene.geobox)
    monkeypatch.setattr(room, "_build", None)  # what is read needs no making
    read = room.ground(Landscape.load(saved), scene.tile, scene.geobox)
    for field in fields(room.Ground):
        if field.name != "units":
            np.testing.assert_array_equal(getattr(read, field.name), getattr(made, field.name), err_msg=field.name)
    np.testing.assert_array_equal(read.units.normals, made.units.normals)


def test_scenes_are_the_same_from_a_ground_on_disk(saved: Path) -> None:
    scene = pick("S2")[0]
    for band, image in render_s2(Landscape.load(saved), scene).items():
        np.testing.assert_array_equal(image, rendered(scene)[band], err_msg=band)


def test_a_landscape_saved_without_its_ground_still_renders(saved: Path) -> None:
    scene = pick("S2")[0]
    room.ground_path(saved.parent, scene.tile).unlink()
    assert room.ground(Landscape.load(saved), scene.tile, scene.geobox).cover.shape == scene.geobox.shape
