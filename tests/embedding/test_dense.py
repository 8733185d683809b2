"""Maps: right cells in the right places, no seams, and the same wherever the patch was cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from embedding_kit import TOY, Toy, apart, expected, galileo, means
from factories import make_patch, terramind

from deepsentinel.embedding import embed
from deepsentinel.embedding.windows import Tiling, blend
from deepsentinel.encoders import load_encoder
from deepsentinel.encoders.galileo import Galileo
from deepsentinel.errors import InputError
from deepsentinel.grids import grid_of


@pytest.fixture(scope="module")
def encoder() -> Galileo:
    return galileo()


@pytest.mark.parametrize("shape", [(64, 64), (96, 200), (5, 7), (64, 300), (130, 61)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.7])
def test_every_cell_holds_what_lies_in_it(shape: tuple[int, int], overlap: float) -> None:
    patch = make_patch(shape)
    z = embed(patch, Toy(), dense=True, overlap=overlap)
    assert z.shape == (-(-shape[0] // 8), -(-shape[1] // 8), 4)
    np.testing.assert_allclose(z[..., 0], means(patch["VV"].to_numpy(), 8), atol=1e-4)
    np.testing.assert_allclose(z[..., 1], means(patch["B02"].to_numpy(), 8), rtol=1e-5)


def test_the_map_knows_where_it_lies() -> None:
    patch = make_patch((96, 72))
    z = embed(patch, Toy(), dense=True)
    here, there = grid_of(patch), grid_of(z)
    assert there.crs == here.crs
    assert there.affine.c == here.affine.c
    assert there.affine.f == here.affine.f
    assert there.resolution.x == 80
    # A cell's coordinates are the mean of those of its pixels.
    np.testing.assert_allclose(z["y"], patch["y"].to_numpy().reshape(-1, 8).mean(axis=1))
    np.testing.assert_allclose(z["x"], patch["x"].to_numpy().reshape(-1, 8).mean(axis=1))
    assert z["s2_time"] == patch["s2_time"]


@pytest.mark.parametrize("cell", [1, 2, 4])
def test_shifted_windows_give_finer_cells(cell: int) -> None:
    patch = make_patch((70, 58))
    z = embed(patch, Toy(), dense=True, resolution_m=10 * cell)
    assert z.shape[:2] == (-(-70 // cell), -(-58 // cell))
    values = patch["VV"].to_numpy().astype("float64")
    for row, column in ((8, 9), (0, 0), (z.shape[0] - 1, 3), (11, z.shape[1] - 1)):
        # The encoder's cell of 8 px lies around the map's; outside the patch it sees nothing.
        top, left = row * cell + (cell - 8) // 2, column * cell + (cell - 8) // 2
        seen = values[max(top, 0) : top + 8, max(left, 0) : left + 8]
        assert z.to_numpy()[row, column, 0] == pytest.approx(seen.mean(), abs=1e-4)


def test_smaller_patches_are_preferred_to_shifted_windows(encoder: Galileo) -> None:
    patch = expected(make_patch((32, 48)))
    z = embed(patch, encoder, dense=True, resolution_m=40)
    assert z.attrs["patch_px"] == 4
    assert z.attrs["window_px"] == 32
    assert z.shape == (8, 12, 128)
    assert not z.isnull().any()


def test_a_resolution_that_is_no_part_of_a_patch_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"10, 20, 40, 80 m"):
        embed(make_patch(), Toy(), dense=True, resolution_m=30)


@pytest.mark.long
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_a_map_does_not_depend_on_where_the_patch_was_cut(encoder: Galileo, overlap: float) -> None:
    patch = expected(make_patch((280, 264)))
    whole = embed(patch, encoder, dense=True, overlap=overlap)
    # 24 and 40 px are no multiples of the step from window to window, of 32 or 64 px.
    part = embed(patch.isel(y=slice(24, None), x=slice(40, 256)), encoder, dense=True, overlap=overlap)
    # 8 cells are a window: beyond them nothing is seen of the edge.
    inner = part[8:-8, 8:-8]
    assert min(inner.shape) > 0
    assert apart(inner, whole.sel(y=inner["y"], x=inner["x"])) < 1e-5
    assert apart(part, whole.sel(y=part["y"], x=part["x"])) > 1e-3


def test_windows_leave_no_seams() -> None:
    z = embed(make_patch((320, 320)), Toy(offset=1.0), dense=True, overlap=0.5, keep_positions=True)
    for feature, axis in ((2, "y"), (3, "x")):
        inside = {"y": slice(8, -8), "x": slice(8, -8)}
        steps = np.abs(z[..., feature].isel(inside).diff(axis).to_numpy())
        # Each window counts its cells from 0 to 7; side by side they would fall by 7 where they meet.
        assert steps.max() < 1.6
    apart_ = embed(make_patch((320, 320)), Toy(offset=1.0), dense=True, overlap=0, keep_positions=True)
    assert np.abs(apart_[..., 2].diff("y")).max() == pytest.approx(7)


@pytest.mark.long
def test_real_maps_have_no_more_of_a_jump_at_borders_of_windows_than_elsewhere(real: Path) -> None:
    encoder = load_encoder("galileo-nano", real / "weights/galileo-nano/encoder.pt")
    patch = expected(terramind(real, "282D_485L_3_3"))
    jumps = {}
    for overlap in (0.0, 0.5):
        z = embed(patch, encoder, dense=True, overlap=overlap).to_numpy()
        steps = np.linalg.norm(np.diff(z, axis=1), axis=-1)[:-1].mean(axis=0)
        first = 8 - 1 - int(grid_of(patch).affine.c // 10 // 8) % 8
        at = np.arange(first, len(steps), 8)
        at = at[(at > 0) & (at < len(steps) - 1)]
        others = np.delete(steps, at)
        jumps[overlap] = steps[at].mean() / others.mean()
    assert jumps[0.5] < 1.15 < jumps[0.0]


@pytest.mark.long
@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_a_map_does_not_depend_on_the_batch(encoder: Galileo, batch_size: int) -> None:
    patch = expected(make_patch((120, 150), nodata=True))
    assert apart(embed(patch, encoder, dense=True, batch_size=batch_size), embed(patch, encoder, dense=True)) < 1e-5


def test_the_order_of_windows_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    tiling = Tiling(8, 4, 40, origin=3)
    weights = np.multiply.outer(tiling.weights(), tiling.weights())
    starts = tiling.starts()
    rows = [(row, starts, rng.normal(size=(len(starts), 8, 8, 5)).astype("float32")) for row in starts]
    straight = np.concatenate([block for _, block in blend(rows, weights, slice(0, 40), slice(0, 40))])
    mixed = []
    for row, columns, vectors in rows:
        order = rng.permutation(len(columns))
        mixed.append((row, [columns[at] for at in order], vectors[order]))
    shuffled = np.concatenate([block for _, block in blend(mixed, weights, slice(0, 40), slice(0, 40))])
    np.testing.assert_allclose(shuffled, straight, atol=1e-6)
    # And by brute force, without rows that come and go.
    total, share = np.zeros((40, 40, 5)), np.zeros((40, 40, 1))
    for row, columns, vectors in rows:
        for column, values in zip(columns, vectors, strict=True):
            total[row : row + 8, column : column + 8] += weights[..., None] * values
            share[row : row + 8, column : column + 8] += weights[..., None]
    np.testing.assert_allclose(straight, total / share, atol=1e-5)


def test_maps_wider_than_a_panel_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    patch = make_patch((90, 400))
    encoder = Toy(offset=1.0)
    whole = embed(patch, encoder, dense=True)
    monkeypatch.setattr("deepsentinel.embedding.dense.PANEL_PX", 128)
    count = len(encoder.seen)
    assert apart(embed(patch, encoder, dense=True), whole) < 1e-5
    assert len(encoder.seen) > count + 1
    fine = embed(patch, encoder, dense=True, resolution_m=40)
    monkeypatch.undo()
    assert apart(embed(patch, encoder, dense=True, resolution_m=40), fine) < 1e-5


@pytest.mark.parametrize("name", ["galileo-nano-random", "random-convolutions", "image-statistics"])
def test_cells_without_data_are_nan_and_no_others(name: str) -> None:
    patch = expected(make_patch((128, 128)))
    patch["VV"][:40] = patch["VH"][:40] = np.nan
    for band in (band for band in patch.data_vars if str(band).startswith("B")):
        patch[band][:48] = 0
    z = embed(patch, name, dense=True)
    lost = z.isnull().any("feature").to_numpy()
    assert lost[:5].all()
    assert not lost[5:].any()
    # Of the row of cells that only S1 saw, S2 is no part: whatever lies there in its stead changes nothing.
    alone = embed(patch, name, dense=True, sensors="s1", overlap=0, keep_positions=True)
    whole = embed(patch, name, dense=True, overlap=0, keep_positions=True)
    assert alone.isnull().equals(whole.isnull())
    assert apart(alone[6:], whole[6:]) > 1e-3
    if name == "image-statistics":  # its cells know nothing of each other
        assert apart(alone[5], whole[5]) < 1e-5


def test_encoders_of_one_size_get_windows_of_that_size() -> None:
    spec = replace(TOY, any_size=False)
    encoder = Toy(spec)
    z = embed(make_patch((40, 90)), encoder, dense=True)
    assert {shape[-2:] for shape in encoder.seen} == {(64, 64)}
    np.testing.assert_allclose(z[..., 0], means(make_patch((40, 90))["VV"].to_numpy(), 8), atol=1e-4)
    square = Toy(replace(TOY, square_only=True))
    embed(make_patch((20, 50)), square, dense=True)
    assert {shape[-2] == shape[-1] for shape in square.seen} == {True}


def test_float16_is_half_the_size() -> None:
    z = embed(make_patch((64, 64)), Toy(), dense=True, dtype="float16")
    assert z.dtype == "float16"


@pytest.mark.parametrize("epsg", [3035, 4326])
def test_other_grids(epsg: int, encoder: Galileo) -> None:
    patch = expected(make_patch((64, 96)))
    if epsg == 4326:
        patch = patch.assign_coords(y=48.0 - 0.0001 * np.arange(64), x=2.0 + 0.00013 * np.arange(96))
    from pyproj import CRS

    patch["spatial_ref"] = xr.DataArray(0, attrs={"crs_wkt": CRS.from_epsg(epsg).to_wkt()})
    z = embed(patch, encoder, dense=True)
    assert grid_of(z).crs.epsg == epsg
    np.testing.assert_allclose(z["x"], patch["x"].to_numpy().reshape(-1, 8).mean(axis=1))
    assert z.attrs["resolution_m"] == pytest.approx(80, rel=0.3)
