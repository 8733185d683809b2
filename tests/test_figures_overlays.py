"""Pictures for a web map: they lie where the pixels lie, keep their colours, and hide nothing that was not measured."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from factories import grid, make_patch, with_grid
from PIL import Image
from pyproj import Transformer

import deepsentinel as ds
from deepsentinel.bands import SCL_CLOUDY
from deepsentinel.errors import InputError
from deepsentinel.figures.overlays import CLOUD_COLOURS, Overlay, pictures
from deepsentinel.figures.stretch import to_rgb
from deepsentinel.grids import grid_of
from deepsentinel.legend import worldcover


def pixel_at(drawn: Overlay, lon: float, lat: float) -> np.ndarray:
    """The pixel that Leaflet shows at a place: it stretches the picture between its corners in Web Mercator."""
    flat = Transformer.from_crs(4326, 3857, always_xy=True)
    (south, west), (north, east) = drawn.bounds
    (left, right), (bottom, top) = flat.transform([west, east], [south, north])
    x, y = flat.transform(lon, lat)
    rows, cols = drawn.image.shape[:2]
    return drawn.image[int((top - y) / (top - bottom) * rows), int((x - left) / (right - left) * cols)]


def place_of(patch: xr.Dataset, row: int, col: int) -> tuple[float, float]:
    to = Transformer.from_crs(str(grid_of(patch).crs), 4326, always_xy=True)
    lon, lat = to.transform(float(patch.x[col]), float(patch.y[row]))
    return float(lon), float(lat)


@pytest.fixture(scope="module")
def patch() -> xr.Dataset:
    made = make_patch((96, 128), nodata=True)
    made["SCL"].to_numpy()[40:60, 40:60] = np.array([3, 8, 9, 10]).repeat(5)[None]
    return made


@pytest.fixture(scope="module")
def masks() -> xr.Dataset:
    codes = np.zeros((64, 64), "uint8")
    codes[10:30, 10:50], codes[40:60, 5:20] = 10, 80
    return with_grid({"class_map": (("y", "x"), codes, worldcover().to_attrs())}, grid((64, 64)))


@pytest.mark.parametrize("epsg", [32631, 3035, 32661])
def test_every_pixel_lies_where_it_was_measured(epsg: int) -> None:
    """A checkerboard, in projections that the map turns and bends, is found again at its longitudes and latitudes."""
    board = grid((48, 48), epsg=32631)
    if epsg != 32631:
        corner = {3035: (4_000_000, 3_000_000), 32661: (2_300_000, 1_900_000)}[epsg]
        board = type(board)((48, 48), type(board.affine)(10, 0, corner[0], 0, -10, corner[1]), f"EPSG:{epsg}")
    u, v = np.meshgrid(np.arange(48) // 8, np.arange(48) // 8)
    codes = np.where((u + v) % 2, 10, 80).astype("uint8")
    made = with_grid({"class_map": (("y", "x"), codes, worldcover().to_attrs())}, board)
    drawn = ds.overlay(made, "class_map", max_px=400)
    table = worldcover().color_table()
    for row in range(4, 48, 8):
        for col in range(4, 48, 8):
            expected = table[int(codes[row, col])]
            assert tuple(pixel_at(drawn, *place_of(made, row, col))) == expected
    outside = place_of(made, 0, 0)
    assert drawn.bounds[0][0] < outside[1] < drawn.bounds[1][0]


def test_it_is_not_a_pixel_off() -> None:
    """Lone pixels are where they belong, to a small part of a pixel in their mean."""
    codes = np.zeros((96, 96), "uint8")
    spots = [(row, col) for row in range(5, 96, 9) for col in range(7, 96, 9)]
    codes[tuple(np.transpose(spots))] = 80
    made = with_grid({"class_map": (("y", "x"), codes, worldcover().to_attrs())}, grid((96, 96)))
    drawn = ds.overlay(made)
    flat = Transformer.from_crs(4326, 3857, always_xy=True)
    (south, west), (north, east) = drawn.bounds
    (left, right), (bottom, top) = flat.transform([west, east], [south, north])
    rows, cols = drawn.image.shape[:2]
    places = np.array([flat.transform(*place_of(made, *spot)) for spot in spots])
    expected = np.c_[(places[:, 0] - left) / (right - left) * cols, (top - places[:, 1]) / (top - bottom) * rows]
    seen = np.argwhere(drawn.image[..., 3])[:, ::-1] + 0.5
    nearest = seen[np.abs(seen[None] - expected[:, None]).sum(-1).argmin(1)] - expected
    found = np.abs(nearest).max(1) < 1.1
    assert found.mean() > 0.9  # the map's grid is turned, so a few lone pixels fall between its own
    assert np.abs(nearest[found].mean(0)).max() < 0.2


def test_what_is_seen_is_what_show_draws(patch: xr.Dataset) -> None:
    colours = to_rgb(patch, "natural")
    drawn = ds.overlay(patch, "natural")
    for row, col in ((50, 20), (70, 100), (30, 90)):
        seen = pixel_at(drawn, *place_of(patch, row, col)).astype(int)
        around = colours[row - 1 : row + 2, col - 1 : col + 2].reshape(-1, 3).astype(int)
        assert seen[3] == 255
        # Between neighbours, as the map's grid is turned against ours.
        assert (seen[:3] >= around.min(0) - 1).all()
        assert (seen[:3] <= around.max(0) + 1).all()


def test_where_nothing_was_measured_the_map_shows_through(patch: xr.Dataset) -> None:
    drawn = ds.overlay(patch, "natural")
    assert patch["B04"].to_numpy()[2, 2] == 0
    assert pixel_at(drawn, *place_of(patch, 2, 2))[3] == 0
    share = (drawn.image[..., 3] > 0).mean()
    assert share == pytest.approx((patch["B04"] != 0).mean().item(), abs=0.03)
    assert set(np.unique(drawn.image[..., 3])) == {0, 255}


def test_clouds_are_those_of_scl(patch: xr.Dataset) -> None:
    drawn = ds.overlay(patch, "clouds")
    for col, code in ((42, 3), (47, 8), (52, 9), (57, 10)):
        assert code in SCL_CLOUDY
        assert tuple(pixel_at(drawn, *place_of(patch, 50, col))) == (*CLOUD_COLOURS[code], 255)
    assert pixel_at(drawn, *place_of(patch, 80, 80))[3] == 0
    assert {name for _, name in drawn.panel.keys} == {"cloud shadow", "cloud, medium", "cloud, high", "thin cirrus"}
    assert "clouds" in pictures(patch)
    assert "clouds" not in pictures(patch.drop_vars("SCL"))


def test_cloud_colours_are_told_apart_in_every_colour_vision() -> None:
    """Machado's matrices for red- and green-blindness; a pair that differs by less than 40 of 255 is one colour."""
    views = {
        "usual": np.eye(3),
        "no red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        "no green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    }
    for matrix in views.values():
        seen = np.array(list(CLOUD_COLOURS.values())) @ np.asarray(matrix).T
        apart = np.abs(seen[:, None] - seen[None]).max(-1) + 999 * np.eye(len(seen))
        assert apart.min() > 40


def test_only_some_classes(masks: xr.Dataset) -> None:
    whole, water = ds.overlay(masks), ds.overlay(masks, "class_map", classes=[80])
    trees, lake = place_of(masks, 20, 30), place_of(masks, 50, 10)
    assert tuple(pixel_at(whole, *trees)) == worldcover().color_table()[10]
    assert pixel_at(water, *trees)[3] == 0
    assert tuple(pixel_at(water, *lake)) == worldcover().color_table()[80]
    assert masks["class_map"].to_numpy()[20, 30] == 10  # what was handed in stays as it was
    assert not ds.overlay(masks, "class_map", classes=[]).image[..., 3].any()


def test_what_is_left_out_becomes_the_background_whatever_its_number(masks: xr.Dataset) -> None:
    other = masks.copy(deep=True)
    other["class_map"].attrs["background"] = 255
    other["class_map"].to_numpy()[masks["class_map"].to_numpy() == 0] = 255
    for classes in ([80], [10, 80]):
        one, two = (ds.overlay(each, "class_map", classes=classes).image[..., 3] for each in (masks, other))
        assert (one == two).all()


@pytest.mark.parametrize("name", ["class_map", "natural"])
def test_classes_come_through_compression_unchanged(name: str, patch: xr.Dataset, masks: xr.Dataset) -> None:
    drawn = ds.overlay(masks if name == "class_map" else patch, name)
    head, data = drawn.url.split(",", 1)
    assert head == "data:image/webp;base64"
    read = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))
    seen = drawn.image[..., 3] > 0
    assert read.shape == drawn.image.shape
    assert (read[..., 3] == drawn.image[..., 3]).all()
    off = np.abs(read[seen].astype(int) - drawn.image[seen])
    assert off.max() == 0 if name == "class_map" else 0 < off.mean() < 8


def test_limits_brighten(patch: xr.Dataset) -> None:
    dark, bright = (ds.overlay(patch, "B08", limits=[(0, white)]).image[..., :3].mean() for white in (0.9, 0.3))
    assert bright > 1.5 * dark


def test_it_is_never_larger_than_asked(patch: xr.Dataset, masks: xr.Dataset) -> None:
    for max_px in (30, 64):
        for each in (patch, masks):
            assert max(ds.overlay(each, max_px=max_px).image.shape[:2]) <= max_px


def test_a_file_of_it(tmp_path: Path, masks: xr.Dataset) -> None:
    drawn = ds.overlay(masks)
    read = np.asarray(Image.open(drawn.save(tmp_path / "a.webp")).convert("RGBA"))
    seen = drawn.image[..., 3] > 0
    assert seen.any()
    assert (read[seen] == drawn.image[seen]).all()
    with pytest.raises(InputError, match=r"\.webp"):
        drawn.save(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("what", "options", "words"),
    [
        ("patch", {"name": "purple"}, "no picture 'purple'.*'natural'"),
        ("patch", {"max_px": 0}, "at least one pixel"),
        ("patch", {"name": "natural", "classes": [1]}, "classes of a class map"),
        ("table", {}, "nothing that lies on a map"),
    ],
)
def test_what_cannot_be_drawn_is_said(patch: xr.Dataset, what: str, options: dict[str, Any], words: str) -> None:
    obj = patch if what == "patch" else gpd.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=4326)
    with pytest.raises(InputError, match=words):
        ds.overlay(obj, **options)
