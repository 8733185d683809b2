"""Galileo: the authors' own vectors, a second way of computing it, and what is masked is as if it were not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deepsentinel.encoders.galileo import GROUPS, Galileo, build, resized_kernel
from deepsentinel.encoders.registry import find
from deepsentinel.errors import InputError, SourceError

PLACES = {"282D_485L_3_3": 6, "637U_59R_1_3": 9}
# The stored order of Sentinel-2 is B01 .. B12 without B10.
STORED_S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


@pytest.fixture(scope="module")
def encoder() -> Galileo:
    """Untrained, but with every number at work: as drawn, the groups' codes would all be 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = build(find("galileo-nano"))
        made.channel.data.normal_()
    return made.eval().requires_grad_(False)


def draw(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """S1 in dB and S2 in reflectance x 10000 of (..., H, W)."""
    generator = torch.Generator().manual_seed(seed)
    *front, height, width = shape
    s1 = torch.randn(*front, 2, height, width, generator=generator) * 5 - 15
    return s1, torch.rand(*front, 10, height, width, generator=generator) * 4000


def draw_mask(*shape: int, patch: int = 8, share: float = 0.5, seed: int = 0) -> Tensor:
    """(..., H, W) in squares of a patch."""
    cells = torch.rand(
        *shape[:-2], shape[-2] // patch, shape[-1] // patch, generator=torch.Generator().manual_seed(seed)
    )
    return (cells < share).repeat_interleave(patch, -1).repeat_interleave(patch, -2)


def read(real: Path, place: str) -> tuple[Tensor, Tensor]:
    import rasterio

    with rasterio.open(real / "terramind" / "S1RTC" / f"{place}.tif") as file:
        s1 = file.read().astype("float32")[::, :64, :64]
    with rasterio.open(real / "terramind" / "S2L2A" / f"{place}.tif") as file:
        s2 = file.read().astype("float32")[:, :64, :64]
    wanted = [STORED_S2.index(band) for band in find("galileo-nano").s2_bands]
    return torch.from_numpy(s1)[None], torch.from_numpy(s2[wanted])[None]


def checkpoint(real: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(
        real / "weights" / "galileo-nano" / "encoder.pt", weights_only=True, map_location="cpu"
    )
    return state


@pytest.mark.parametrize("sensors", ["s1", "s2", "both"])
@pytest.mark.parametrize("place", PLACES)
def test_the_authors_own_vectors(real: Path, place: str, sensors: str) -> None:
    trained = build(find("galileo-nano")).eval().requires_grad_(False)
    trained.load_weights(checkpoint(real))
    s1, s2 = read(real, place)
    tokens = trained(
        s1 if sensors != "s2" else None, s2 if sensors != "s1" else None, month=torch.tensor([PLACES[place]])
    )
    golden = np.load(real / "golden" / f"galileo_nano_{place}.npz")
    np.testing.assert_allclose(tokens.pooled[0], golden[f"{sensors}_pooled"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(tokens.dense[0], golden[f"{sensors}_tokens"], atol=1e-4, rtol=0)


def test_every_weight_of_the_authors_is_used_or_told(real: Path) -> None:
    state = checkpoint(real)
    trained = build(find("galileo-nano"))
    trained.load_weights(state)
    unused = [name for name in trained.unused_weights if name in state]
    # Their q, k and v are one of ours; and of one table we leave a row.
    ours = sum(values.numel() for values in trained.state_dict().values()) + trained.channel.shape[1]
    assert ours + sum(state[name].numel() for name in unused) == sum(values.numel() for values in state.values())
    assert not any("S2" in name or "S1" in name or name.startswith("blocks") for name in unused)
    assert any("NDVI" in name for name in trained.unused_weights)


def by_hand(
    encoder: Galileo, s1: Tensor, s2: Tensor, seen: dict[str, Tensor], month: Tensor, patch: int, metres: float
):
    """One sample (T, C, H, W), token by token, only those seen, in float64 and with attention written out."""
    state = {name: values.double() for name, values in encoder.state_dict().items()}
    scalings = encoder.spec.s1_scaling, encoder.spec.s2_scaling
    scaled = []
    for pixels, scaling in zip((s1, s2), scalings, strict=True):
        offset, scale = (
            torch.tensor(numbers, dtype=torch.float64).view(-1, 1, 1) for numbers in (scaling.offset, scaling.scale)
        )
        scaled.append((pixels.double() - offset) / scale)
    width = encoder.spec.width
    rates = 10_000.0 ** -(torch.arange(width // 16, dtype=torch.float64) / (width // 8) / 2)
    tokens, cells = [], []
    for row, (name, bands) in enumerate(GROUPS.items()):
        sensor = "S1" if name == "S1" else "S2"
        values = scaled[sensor == "S2"]
        channels = [(encoder.spec.s1_bands if sensor == "S1" else encoder.spec.s2_bands).index(band) for band in bands]
        kernel = resized_kernel(state[f"kernels.{name}.weight"], patch)
        for date, y, x in seen[sensor].nonzero().tolist():
            square = values[date, channels, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch]
            token = (kernel * square).sum(dim=(1, 2, 3)) + state[f"kernels.{name}.bias"]
            where = [f(at * patch * metres / 10 * rates) for at in (x, y) for f in (torch.sin, torch.cos)]
            code = [state["channel"][row], state["date"][date], state["month"][month[date]], *where]
            tokens.append(token + torch.cat(code))
            cells.append((y, x))
    stack = torch.stack(tokens)
    heads = encoder.blocks[0].heads
    for index in range(len(encoder.blocks)):
        w = {
            name.removeprefix(f"blocks.{index}."): values
            for name, values in state.items()
            if name.startswith(f"blocks.{index}.")
        }
        normed = F.layer_norm(stack, (width,), w["norm1.weight"], w["norm1.bias"])
        q, k, v = (normed @ w["qkv.weight"].T + w["qkv.bias"]).split(width, dim=1)
        mixed = []
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            attention = torch.softmax(q[:, part] @ k[:, part].T / (width / heads) ** 0.5, dim=1)
            mixed.append(attention @ v[:, part])
        stack = stack + torch.cat(mixed, dim=1) @ w["proj.weight"].T + w["proj.bias"]
        normed = F.layer_norm(stack, (width,), w["norm2.weight"], w["norm2.bias"])
        stack = stack + F.gelu(normed @ w["fc1.weight"].T + w["fc1.bias"]) @ w["fc2.weight"].T + w["fc2.bias"]
    stack = F.layer_norm(stack, (width,), state["norm.weight"], state["norm.bias"])
    dense = {
        cell: stack[[place for place, other in enumerate(cells) if other == cell]].mean(dim=0) for cell in set(cells)
    }
    return stack.mean(dim=0), dense


def test_computed_a_second_way_with_dates_masks_and_unequal_sides(encoder: Galileo) -> None:
    patch, metres = 4, 20.0
    s1, s2 = draw(2, 2, 12, 20)
    masks = [draw_mask(2, 2, 12, 20, patch=patch, share=share, seed=seed) for seed, share in ((1, 0.7), (2, 0.4))]
    month = torch.tensor([[0, 3], [11, 5]])
    tokens = encoder(s1, s2, s1_mask=masks[0], s2_mask=masks[1], month=month, patch_px=patch, resolution_m=metres)
    for sample in range(2):
        seen = {name: mask[sample, :, ::patch, ::patch] for name, mask in zip(("S1", "S2"), masks, strict=True)}
        pooled, dense = by_hand(encoder, s1[sample], s2[sample], seen, month[sample], patch, metres)
        torch.testing.assert_close(tokens.pooled[sample].double(), pooled, atol=1e-5, rtol=0)
        for y in range(3):
            for x in range(5):
                vector = tokens.dense[sample, y, x].double()
                expected = dense.get((y, x), torch.full_like(vector, torch.nan))
                torch.testing.assert_close(vector, expected, atol=1e-5, rtol=0, equal_nan=True)


@pytest.mark.parametrize("patch", [1, 2, 3, 5, 6, 7])
def test_a_smaller_kernel_answers_to_shrunken_patches_as_the_large_one_to_the_patches(patch: int) -> None:
    small = torch.randn(3, 2, patch, patch, generator=torch.Generator().manual_seed(patch))
    # The kernel over 8 x 8 px that looks at what shrinking would leave: shrinking, transposed.
    patches = torch.zeros(3, 2, 8, 8, requires_grad=True)
    shrunken = F.interpolate(patches, (patch, patch), mode="bicubic", antialias=True)
    (large,) = torch.autograd.grad(shrunken, patches, small)
    torch.testing.assert_close(resized_kernel(large, patch), small, atol=1e-4, rtol=0)


@pytest.mark.parametrize("patch", range(1, 9))
def test_every_patch_size_and_unequal_sides(encoder: Galileo, patch: int) -> None:
    s1, s2 = draw(2, 2 * patch, 3 * patch)
    tokens = encoder(s1, s2, patch_px=patch)
    assert tokens.dense.shape == (2, 2, 3, 128)
    torch.testing.assert_close(tokens.pooled, tokens.dense.mean(dim=(1, 2)))
    # Looking at it turned round gives something else: rows are told from columns.
    turned = encoder(s1.transpose(-2, -1), s2.transpose(-2, -1), patch_px=patch)
    assert (turned.dense.transpose(1, 2) - tokens.dense).abs().max() > 1e-3


def test_a_batch_of_one_equals_a_batch_of_many(encoder: Galileo) -> None:
    s1, s2 = draw(6, 24, 32)
    masks = torch.stack([draw_mask(24, 32, share=sample / 5, seed=sample) for sample in range(6)])
    month = torch.arange(6)
    for mask in (None, masks):
        many = encoder(s1, s2, s1_mask=None if mask is None else mask.flip(0), s2_mask=mask, month=month)
        for sample in range(6):
            one = slice(sample, sample + 1)
            alone = encoder(
                s1[one],
                s2[one],
                s1_mask=None if mask is None else mask.flip(0)[one],
                s2_mask=None if mask is None else mask[one],
                month=month[one],
            )
            torch.testing.assert_close(many.pooled[one], alone.pooled, atol=1e-5, rtol=0)
            torch.testing.assert_close(many.dense[one], alone.dense, atol=1e-5, rtol=0, equal_nan=True)


def test_masked_pixels_are_never_looked_at(encoder: Galileo) -> None:
    s1, s2 = draw(4, 32, 32)
    # Pixel by pixel: some patches are seen in part, and fewer than half of one's pixels leave it out.
    mask = (
        torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(1))
        < torch.tensor([0.45, 0.5, 0.55, 0.9])[:, None, None]
    )
    masked = encoder(s1, s2, s2_mask=mask)
    for rubbish in (torch.nan, 1e9):
        other = encoder(s1, torch.where(mask[:, None], s2, rubbish), s2_mask=mask)
        torch.testing.assert_close(other.dense, masked.dense, atol=0, rtol=0)
    changed = encoder(s1, torch.where(mask[:, None], s2 + 500, s2), s2_mask=mask)
    assert (changed.pooled - masked.pooled).abs().amax(dim=1).min() > 1e-3


def test_a_masked_sensor_is_an_absent_sensor(encoder: Galileo) -> None:
    s1, s2 = draw(3, 24, 16)
    nothing = torch.zeros(3, 24, 16, dtype=torch.bool)
    for absent, masked in (
        (encoder(s1), encoder(s1, s2, s2_mask=nothing)),
        (encoder(None, s2), encoder(s1, s2, s1_mask=nothing)),
        (encoder(s1, s2), encoder(s1, s2, s1_mask=~nothing, s2_mask=~nothing)),
    ):
        torch.testing.assert_close(masked.dense, absent.dense, atol=1e-5, rtol=0)
        torch.testing.assert_close(masked.pooled, absent.pooled, atol=1e-5, rtol=0)


def test_a_missing_band_takes_its_group_along_and_nothing_else(encoder: Galileo) -> None:
    s1, s2 = draw(2, 16, 16)
    bands = encoder.spec.s2_bands
    without = s2.clone()
    without[:, bands.index("B12")] = torch.nan
    one = encoder(s1, without, missing=("B12",))
    both = encoder(s1, s2, missing=("B11", "B12"))
    torch.testing.assert_close(one.dense, both.dense, atol=0, rtol=0)
    assert (one.pooled - encoder(s1, s2).pooled).abs().max() > 1e-3
    torch.testing.assert_close(encoder(s1, s2, missing=bands).dense, encoder(s1).dense, atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="nothing is left"):
        encoder(None, s2, missing=bands)
    with pytest.raises(InputError, match="B10"):
        encoder(None, s2, missing=("B10",))


def test_a_patch_seen_in_part_is_filled_with_its_own_mean(encoder: Galileo) -> None:
    s1, _ = draw(1, 16, 16)
    mask = torch.ones(1, 16, 16, dtype=torch.bool)
    mask[:, :4, :8] = False
    filled = s1.clone()
    filled[:, :, :4, :8] = s1[:, :, 4:8, :8].mean(dim=(-2, -1), keepdim=True)
    torch.testing.assert_close(encoder(s1, s1_mask=mask).dense, encoder(filled).dense, atol=1e-5, rtol=0)
    # One pixel fewer and it is not seen any more.
    mask[:, 4, 0] = False
    dense = encoder(s1, s1_mask=mask).dense
    assert dense[0, 0, 0].isnan().all()
    assert not dense[0, 0, 1].isnan().any()


def test_nothing_seen_is_nan_and_the_neighbours_do_not_mind(encoder: Galileo) -> None:
    s1, s2 = draw(3, 16, 16)
    mask = torch.ones(3, 16, 16, dtype=torch.bool)
    mask[1] = False
    tokens = encoder(s1, s2, s1_mask=mask, s2_mask=mask)
    assert tokens.pooled[1].isnan().all()
    assert tokens.dense[1].isnan().all()
    torch.testing.assert_close(tokens.dense[[0, 2]], encoder(s1[[0, 2]], s2[[0, 2]]).dense, atol=1e-5, rtol=0)
    assert encoder(s1, s1_mask=torch.zeros_like(mask)).pooled.isnan().all()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_masked_tokens_are_not_computed(encoder: Galileo, share: float) -> None:
    s1, s2 = draw(16, 64, 64)
    mask = draw_mask(16, 64, 64, share=share)
    computed = 0

    def count(_: object, given: tuple[Tensor, ...]) -> None:
        nonlocal computed
        computed += given[0].shape[0] * given[0].shape[1]

    handle = encoder.blocks[0].register_forward_pre_hook(count)
    try:
        encoder(s1, s2, s2_mask=mask)
    finally:
        handle.remove()
    seen = 16 * 64 + 5 * int(mask[:, ::8, ::8].sum())
    assert seen <= computed <= seen / 0.8


def test_months_resolution_and_the_order_of_dates_tell(encoder: Galileo) -> None:
    s1, s2 = draw(1, 2, 16, 16)
    months = torch.tensor([[2, 8]])
    base = encoder(s1, s2, month=months).pooled
    for other in (
        encoder(s1, s2, month=torch.tensor([[2, 9]])),
        encoder(s1, s2, month=months, resolution_m=20),
        encoder(s1.flip(1), s2.flip(1), month=months.flip(1)),
    ):
        assert (other.pooled - base).abs().max() > 1e-3
    # Where none is known the authors put June.
    torch.testing.assert_close(encoder(s1, s2).pooled, encoder(s1, s2, month=torch.full((1, 2), 5)).pooled)


def test_it_can_be_trained(encoder: Galileo) -> None:
    trained = build(find("galileo-nano"))
    s1, s2 = draw(2, 16, 16)
    mask = draw_mask(2, 16, 16, seed=3)
    trained(s1, s2, s2_mask=mask).dense.square().sum().backward()
    for name, weight in trained.named_parameters():
        assert not weight.requires_grad or (weight.grad is not None and weight.grad.isfinite().all()), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"s1": torch.zeros(2, 2, 12, 16)}, "differ"),
        ({"s1": torch.zeros(2, 2, 2, 16, 16)}, "differ"),
        ({"s1": None, "s2": None}, "nothing"),
        ({"s2": torch.zeros(2, 9, 16, 16)}, "channels"),
        ({"s2_mask": torch.ones(2, 16, 16)}, "float32"),
        ({"s2_mask": torch.ones(1, 16, 16, dtype=torch.bool)}, "fits"),
        ({"month": torch.tensor([0, 12])}, "subtract 1"),
        ({"month": torch.tensor([0.0, 1.0])}, "whole number"),
        ({"month": torch.tensor([1])}, "month is"),
        ({"patch_px": 9}, "9"),
        ({"patch_px": 5}, "5 px"),
        ({"s1": torch.zeros(2, 25, 2, 16, 16), "s2": None}, "25 dates"),
        ({"s1": torch.zeros(2, 3, 2, 16, 16), "s2": None, "month": torch.tensor([1, 2])}, "3 dates"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    encoder: Galileo, change: dict[str, object], message: str
) -> None:
    s1, s2 = draw(2, 16, 16)
    with pytest.raises(InputError, match=message):
        encoder(**{"s1": s1, "s2": s2, **change})


def test_weights_of_ours_come_back_and_others_are_refused_whole(encoder: Galileo) -> None:
    state = encoder.state_dict()
    other = build(find("galileo-nano")).eval().requires_grad_(False)
    drawn = {name: values.clone() for name, values in other.state_dict().items()}
    deeper = {**state, **{name.replace("blocks.3", "blocks.4"): v for name, v in state.items() if "blocks.3" in name}}
    shorter = {name: values for name, values in state.items() if name != "norm.bias"}
    wider = {**state, "norm.bias": torch.zeros(192)}
    for wrong in (deeper, shorter, wider, {}):
        with pytest.raises(SourceError):
            other.load_weights(wrong)
        for name, values in other.state_dict().items():
            torch.testing.assert_close(values, drawn[name], atol=0, rtol=0)
    other.load_weights({name.replace("blocks.", "blocks.backbone."): values for name, values in state.items()})
    assert other.unused_weights == ()
    s1, s2 = draw(2, 16, 16)
    torch.testing.assert_close(other(s1, s2).dense, encoder(s1, s2).dense, atol=0, rtol=0)


@pytest.mark.parametrize(("name", "depth"), [("galileo-tiny", 12), ("galileo-base", 12)])
def test_the_larger_sizes_have_their_shape(name: str, depth: int) -> None:
    with torch.device("meta"):
        larger = build(find(name))
    assert len(larger.blocks) == depth
    assert larger.channel.shape == (6, find(name).width // 4)
    assert larger.blocks[0].qkv.weight.shape == (3 * find(name).width, find(name).width)
