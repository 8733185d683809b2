"""Presto: the authors' own vectors, each pixel on its own, and what is masked is as if it were not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from deepsentinel.encoders import presto
from deepsentinel.encoders.presto import Presto, build
from deepsentinel.encoders.registry import find
from deepsentinel.errors import InputError, SourceError

PLACES = ("282D_485L_3_3", "637U_59R_1_3")
# The stored order of Sentinel-2 is B01 .. B12 without B10.
STORED_S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


@pytest.fixture(scope="module")
def encoder() -> Presto:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(find("presto")).eval().requires_grad_(False)


def draw(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """S1 in dB and S2 in reflectance x 10000 of (..., H, W)."""
    generator = torch.Generator().manual_seed(seed)
    *front, height, width = shape
    s1 = torch.randn(*front, 2, height, width, generator=generator) * 5 - 15
    return s1, torch.rand(*front, 10, height, width, generator=generator) * 4000


def draw_mask(*shape: int, share: float = 0.5, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share


def checkpoint(real: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(
        real / "weights" / "presto" / "default_model.pt", weights_only=True, map_location="cpu"
    )
    return state


@pytest.mark.parametrize("sensors", ["s1", "s2", "both"])
@pytest.mark.parametrize("place", PLACES)
def test_the_authors_own_vectors(real: Path, place: str, sensors: str) -> None:
    import rasterio

    trained = build(find("presto")).eval().requires_grad_(False)
    trained.load_weights(checkpoint(real))
    golden = np.load(real / "golden" / f"presto_{place}.npz")
    pixels = []
    for folder, bands in (("S1RTC", slice(None)), ("S2L2A", [STORED_S2.index(b) for b in trained.spec.s2_bands])):
        with rasterio.open(real / "terramind" / folder / f"{place}.tif") as file:
            values = file.read().astype("float32")[bands][:, golden["row"], golden["col"]]
        pixels.append(torch.from_numpy(values.T.copy()))
    s1, s2 = pixels
    month = int(golden["month"])
    latlon = torch.from_numpy(np.stack([golden["lat"], golden["lon"]]))
    # One pixel a sample, and all of them as one window: the same vectors.
    apart = trained(
        s1[:, :, None, None] if sensors != "s2" else None,
        s2[:, :, None, None] if sensors != "s1" else None,
        month=torch.full((64,), month),
        latlon=latlon.T,
    )
    np.testing.assert_allclose(apart.pooled, golden[sensors], atol=1e-4, rtol=0)
    window = trained(
        s1.T.reshape(1, 2, 4, 16) if sensors != "s2" else None,
        s2.T.reshape(1, 10, 4, 16) if sensors != "s1" else None,
        month=torch.tensor([month]),
        latlon=latlon.reshape(1, 2, 4, 16),
    )
    np.testing.assert_allclose(window.dense.reshape(64, 128), golden[sensors], atol=1e-4, rtol=0)


def test_every_weight_of_the_authors_is_used_or_told(real: Path) -> None:
    state = {name.removeprefix("encoder."): values for name, values in checkpoint(real).items()}
    trained = build(find("presto"))
    drawn = {name: values.clone() for name, values in trained.state_dict().items()}
    trained.load_weights(checkpoint(real))
    # The tables are known beforehand, and drawn as the authors' are.
    for table in ("month", "date"):
        torch.testing.assert_close(trained.state_dict()[table], drawn[table], atol=1e-5, rtol=0)
    unused = [name for name in trained.unused_weights if name in state]
    ours = sum(values.numel() for values in trained.state_dict().values()) + 3 * trained.channel.shape[1]
    assert ours + sum(state[name].numel() for name in unused) == sum(values.numel() for values in state.values())
    assert not any("S1" in name or "S2" in name for name in unused if not name.startswith("decoder."))


def test_each_pixel_and_each_sample_is_on_its_own(encoder: Presto) -> None:
    s1, s2 = draw(3, 3, 2, 2)
    month = torch.arange(9).view(3, 3)
    latlon = torch.stack([torch.linspace(-60, 60, 3), torch.linspace(0, 170, 3)], dim=1)
    for share in (1.1, 0.6, 0.2):
        masks = draw_mask(3, 3, 2, 2, share=share, seed=1), draw_mask(3, 3, 2, 2, share=share, seed=2)
        many = encoder(s1, s2, s1_mask=masks[0], s2_mask=masks[1], month=month, latlon=latlon)
        for sample in range(3):
            for y in range(2):
                for x in range(2):
                    at = np.s_[sample : sample + 1, ..., y : y + 1, x : x + 1]
                    row = slice(sample, sample + 1)
                    alone = encoder(
                        s1[at], s2[at], s1_mask=masks[0][at], s2_mask=masks[1][at], month=month[row], latlon=latlon[row]
                    )
                    vector = many.dense[sample, y, x]
                    torch.testing.assert_close(vector, alone.pooled[0], atol=1e-5, rtol=0, equal_nan=True)
        torch.testing.assert_close(many.pooled, many.dense.nanmean(dim=(1, 2)), equal_nan=True)


def test_few_pixels_at_a_time_give_the_same(encoder: Presto, monkeypatch: pytest.MonkeyPatch) -> None:
    s1, s2 = draw(2, 3, 5, 7)
    mask = draw_mask(2, 3, 5, 7)
    latlon = torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    whole = encoder(s1, s2, s2_mask=mask, latlon=latlon)
    monkeypatch.setattr(presto, "HELD_NUMBERS", 8 * 3 * 128 * 4)
    torch.testing.assert_close(encoder(s1, s2, s2_mask=mask, latlon=latlon).dense, whole.dense, atol=1e-5, rtol=0)


def test_masked_values_are_never_looked_at_and_others_are(encoder: Presto) -> None:
    # With so many dates pixels that differ in what is seen still go through together.
    s1, s2 = draw(2, 12, 3, 3)
    mask = draw_mask(2, 12, 3, 3, share=0.6)
    base = encoder(s1, s2, s2_mask=mask)
    for rubbish in (torch.nan, 1e9):
        other = encoder(s1, torch.where(mask[:, :, None], s2, rubbish), s2_mask=mask)
        torch.testing.assert_close(other.dense, base.dense, atol=0, rtol=0)
    changed = encoder(s1, torch.where(mask[:, :, None], s2 + 500, s2), s2_mask=mask)
    assert ((changed.dense - base.dense).abs().amax(dim=-1) > 1e-4).equal(mask.any(dim=1))


def test_masked_is_absent(encoder: Presto) -> None:
    s1, s2 = draw(3, 2, 2)
    nothing = torch.zeros(3, 2, 2, dtype=torch.bool)
    latlon = torch.rand(3, 2) * 50
    for absent, masked in (
        (encoder(s1, latlon=latlon), encoder(s1, s2, s2_mask=nothing, latlon=latlon)),
        (encoder(None, s2, latlon=latlon), encoder(s1, s2, s1_mask=nothing, latlon=latlon)),
        (encoder(s1, s2, latlon=latlon), encoder(s1, s2, s1_mask=~nothing, s2_mask=~nothing, latlon=latlon)),
        (encoder(s1), encoder(s1, s2, missing=encoder.spec.s2_bands)),
    ):
        torch.testing.assert_close(masked.dense, absent.dense, atol=1e-5, rtol=0)


def test_a_missing_band_takes_its_groups_along(encoder: Presto) -> None:
    s1, s2 = draw(2, 2, 2)
    bands = encoder.spec.s2_bands
    # The index needs B04 and B08, so that any of the two takes it along; without B11 it stays.
    without = s2.clone()
    without[:, bands.index("B04")] = torch.nan
    torch.testing.assert_close(
        encoder(s1, without, missing=("B04",)).dense,
        encoder(s1, s2, missing=("B02", "B03", "B04")).dense,
        atol=0,
        rtol=0,
    )
    redder = s2.clone()
    redder[:, bands.index("B04")] += 500
    rgb = ("B02", "B03")
    assert (encoder(s1, redder, missing=("B11",)).dense - encoder(s1, s2, missing=("B11",)).dense).abs().max() > 1e-4
    # With the colours gone B04 still tells through the index ...
    assert (encoder(s1, redder, missing=rgb).dense - encoder(s1, s2, missing=rgb).dense).abs().max() > 1e-4
    # ... and with B08 gone too it does not.
    torch.testing.assert_close(
        encoder(s1, redder, missing=(*rgb, "B08")).dense, encoder(s1, s2, missing=(*rgb, "B08")).dense, atol=0, rtol=0
    )
    with pytest.raises(InputError, match="nothing is left"):
        encoder(None, s2, missing=bands)


def test_dark_pixels_have_an_index_of_nothing(encoder: Presto) -> None:
    _, s2 = draw(1, 1, 1)
    assert encoder(None, torch.zeros_like(s2)).pooled.isfinite().all()


def test_nothing_seen_is_nan_wherever_it_is(encoder: Presto) -> None:
    s1, _ = draw(2, 3, 2, 2)
    mask = torch.ones(2, 3, 2, 2, dtype=torch.bool)
    mask[0, :, 1, 1] = False
    mask[1] = False
    tokens = encoder(s1, s1_mask=mask, latlon=torch.zeros(2, 2))
    assert tokens.dense.isnan().all(dim=-1).equal(~mask.any(dim=1))
    assert tokens.pooled[0].isfinite().all()
    assert tokens.pooled[1].isnan().all()


def test_month_place_and_the_order_of_dates_tell(encoder: Presto) -> None:
    s1, s2 = draw(1, 2, 1, 1)
    month, latlon = torch.tensor([[0, 1]]), torch.tensor([[45.0, 7.0]])
    base = encoder(s1, s2, month=month, latlon=latlon).pooled
    for other in (
        encoder(s1, s2, month=month + 3, latlon=latlon),
        encoder(s1, s2, month=month, latlon=-latlon),
        encoder(s1, s2, month=month),
        encoder(s1.flip(1), s2.flip(1), month=month.flip(1), latlon=latlon),
    ):
        assert (other.pooled - base).abs().max() > 1e-3
    # Longitudes go round.
    around = encoder(s1, s2, month=month, latlon=latlon + torch.tensor([[0.0, 360.0]]))
    torch.testing.assert_close(around.pooled, base, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"s1": torch.zeros(2, 2, 3, 4)}, "differ"),
        ({"s2_mask": torch.ones(2, 3, 4, dtype=torch.bool)}, "fits"),
        ({"month": torch.tensor([12, 0])}, "subtract 1"),
        ({"latlon": torch.zeros(2, 3)}, "latlon"),
        ({"latlon": torch.zeros(2, 2, 1, 1)}, "latlon"),
        ({"patch_px": 8}, "8"),
        ({"missing": ("B10",)}, "B10"),
        ({"s2": torch.zeros(2, 12, 3, 3)}, "channels"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(encoder: Presto, change: dict[str, object], message: str) -> None:
    s1, s2 = draw(2, 3, 3)
    with pytest.raises(InputError, match=message):
        encoder(**{"s1": s1, "s2": s2, **change})


def test_weights_of_ours_come_back_and_others_are_refused(encoder: Presto) -> None:
    other = build(find("presto")).eval().requires_grad_(False)
    state = encoder.state_dict()
    for wrong in ({}, {**state, "head.weight": torch.zeros(1)}, {**state, "norm.bias": torch.zeros(64)}):
        with pytest.raises(SourceError):
            other.load_weights(wrong)
    other.load_weights(state)
    s1, s2 = draw(2, 1, 1)
    torch.testing.assert_close(other(s1, s2).dense, encoder(s1, s2).dense, atol=0, rtol=0)
    assert other.unused_weights == ()
