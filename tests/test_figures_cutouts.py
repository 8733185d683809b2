"""Pieces of a picture: each is of the ground around its place, as large as asked for, and clear beyond the picture."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from factories import make_patch
from PIL import Image
from pyproj import Transformer

import deepsentinel as ds
from deepsentinel.errors import InputError
from deepsentinel.figures.overlays import Overlay
from deepsentinel.grids import grid_of


@pytest.fixture(scope="module")
def patch() -> xr.Dataset:
    made = make_patch((120, 120), epsg=32631)
    # A bright square of 100 m, by its corner in rows and columns.
    for name in ("B02", "B03", "B04"):
        made[name].to_numpy()[:] = 200
        made[name].to_numpy()[40:50, 70:80] = 4000
    return made


def places(patch: xr.Dataset, *cells: tuple[float, float]) -> pd.DataFrame:
    to = Transformer.from_crs(str(grid_of(patch).crs), 4326, always_xy=True)
    there = [to.transform(float(patch.x[0]) + 10 * col, float(patch.y[0]) - 10 * row) for row, col in cells]
    return pd.DataFrame({"lon": [lon for lon, _ in there], "lat": [lat for _, lat in there], "score": 0.5})


@pytest.fixture(scope="module")
def drawn(patch: xr.Dataset) -> Overlay:
    return ds.overlay(patch, "natural", limits=[(0.0, 0.3)] * 3)


def test_the_piece_is_of_the_ground_around_the_place(patch: xr.Dataset, drawn: Overlay) -> None:
    (piece,) = ds.cutouts(drawn, places(patch, (44.5, 74.5)), size_m=200)
    bright = piece.image[..., 0] > 120
    side = len(bright)
    rows, cols = np.nonzero(bright)
    # In the middle, and half as wide as the piece.
    assert abs(rows.mean() + 0.5 - side / 2) < 1
    assert abs(cols.mean() + 0.5 - side / 2) < 1
    assert abs(np.ptp(rows) + 1 - side / 2) <= 2
    assert bright.mean() == pytest.approx(0.25, abs=0.05)
    held = Image.open(io.BytesIO(base64.b64decode(piece.url.partition(",")[2])))
    assert (np.asarray(held) == piece.image).all()
    assert piece.text == "0.500"


def test_a_piece_at_the_edge_is_clear_beyond_it(patch: xr.Dataset, drawn: Overlay) -> None:
    (piece,) = ds.cutouts(drawn, places(patch, (0, 60)), size_m=400)
    alpha, side = piece.image[..., 3], len(piece.image)
    assert piece.image.shape == (side, side, 4)
    assert not alpha[: side // 2 - 2].any()
    assert alpha[side // 2 + 2 :].all()


def test_only_what_lies_on_the_picture_is_cut_and_no_more_than_asked(patch: xr.Dataset, drawn: Overlay) -> None:
    table = places(patch, (-50, 10), (10, 10), (20, 20), (30, 30))
    found = ds.cutouts(drawn, table, n=2)
    assert [each.lon for each in found] == table["lon"].tolist()[1:3]
    assert ds.cutouts(drawn, table.drop(columns="score"))[0].text == ""
    assert ds.cutouts(drawn, table.iloc[:0]) == []


def test_what_is_wrong_is_said(patch: xr.Dataset, drawn: Overlay) -> None:
    with pytest.raises(InputError, match=r"ds\.overlay"):
        ds.cutouts(patch, places(patch, (1, 1)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="lon and lat"):
        ds.cutouts(drawn, pd.DataFrame({"x": [1]}))
    with pytest.raises(InputError, match="size_m"):
        ds.cutouts(drawn, places(patch, (1, 1)), size_m=0)
