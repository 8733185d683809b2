"""A map tells what lies where, not where in its window a cell was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from factories import make_patch

from deepsentinel.embedding import embed, positions
from deepsentinel.encoders import load_encoder
from deepsentinel.encoders.base import Encoder

WINDOW_PX, PATCH_PX = 64, 8


def by_position(z: np.ndarray, cells: int) -> float:
    """Share of the variance that is explained by where in its window a cell lies."""
    rows, columns = (size // cells * cells for size in z.shape[:2])
    centred = z[:rows, :columns] - z[:rows, :columns].mean((0, 1))
    means = centred.reshape(rows // cells, cells, columns // cells, cells, -1).mean((0, 2))
    return float((means**2).mean() / (centred**2).mean())


@pytest.fixture
def trained(real: Path) -> Encoder:
    return load_encoder("galileo-nano", real / "weights/galileo-nano/encoder.pt")


@pytest.mark.filterwarnings("ignore::deepsentinel.errors.DeepSentinelWarning")
def test_cells_do_not_tell_where_in_the_window_they_were(trained: Encoder) -> None:
    patch = make_patch((256, 256))
    z = embed(patch, trained, dense=True, overlap=0.0).values
    # 16 windows: by chance alone a sixteenth of what differs between cells.
    striped = embed(patch, trained, dense=True, overlap=0.0, keep_positions=True).values
    here, there = (by_position(cells, WINDOW_PX // PATCH_PX) for cells in (z, striped))
    assert here < 0.1 < 0.2 < there


@pytest.mark.filterwarnings("ignore::deepsentinel.errors.DeepSentinelWarning")
def test_what_is_taken_off_is_nothing_on_average() -> None:
    patch, encoder = make_patch((64, 64)), load_encoder("galileo-nano", "random")
    off, bare = (embed(patch, encoder, dense=True, keep_positions=keep).values for keep in (False, True))
    np.testing.assert_allclose(off.mean((0, 1)), bare.mean((0, 1)), atol=1e-5)
    assert np.abs(off - bare).max() > 1e-3


@pytest.mark.filterwarnings("ignore::deepsentinel.errors.DeepSentinelWarning")
def test_nothing_is_taken_off_where_an_encoder_knows_no_places() -> None:
    patch, encoder = make_patch((64, 64)), load_encoder("image-statistics")
    off, bare = (embed(patch, encoder, dense=True, keep_positions=keep).values for keep in (False, True))
    np.testing.assert_allclose(off, bare, atol=1e-3 * np.abs(bare).max())


def test_the_reference_is_the_same_every_time_and_in_the_units_of_a_patch() -> None:
    spec = load_encoder("galileo-nano", "random").spec
    like = {"s1": torch.zeros(1, 2, 16, 16), "s2": torch.zeros(1, 10, 16, 16)}
    before = torch.get_rng_state()
    first, second = (positions.reference(spec, like, 8) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    for name in like:
        assert torch.equal(first[name], second[name])
    assert first["s2"].min() >= 1
    assert -30 < float(first["s1"].mean()) < -5
