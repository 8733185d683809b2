"""Backbones to be trained: what their first layer sees, where their cells lie, and that decoders take its levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from encoder_kit import apart, pixels, run

from deepsentinel.encoders import list_encoders, load_encoder
from deepsentinel.encoders.conv import ConvEncoder, build
from deepsentinel.encoders.registry import find
from deepsentinel.encoders.spec import EncoderSpec
from deepsentinel.encoders.specs_conv import SPECS
from deepsentinel.errors import DeepSentinelWarning, InputError

pytest.importorskip("timm")

SMALL = "pvt-v2-b0"
# Those in which a change shows where it is, not beside it, also with random weights.
LOCAL = ("densenet121", "convnext-atto")


def slow(spec: EncoderSpec) -> list[pytest.MarkDecorator]:
    return [pytest.mark.long] if spec.parameters > 20_000_000 else []


@pytest.fixture(scope="module", params=[pytest.param(spec, id=spec.name, marks=slow(spec)) for spec in SPECS])
def backbone(request: pytest.FixtureRequest) -> ConvEncoder:
    encoder = load_encoder(request.param.name, "random")
    assert isinstance(encoder, ConvEncoder)
    return encoder


@pytest.fixture(scope="module")
def small() -> ConvEncoder:
    encoder = load_encoder(SMALL, "random")
    assert isinstance(encoder, ConvEncoder)
    return encoder


def by_hand(spec: EncoderSpec, s1: np.ndarray, s2: np.ndarray) -> np.ndarray:
    """The scaled bands, from the numbers of the spec alone."""
    scaled = []
    for scaling, values in ((spec.s1_scaling, s1), (spec.s2_scaling, s2)):
        assert scaling is not None
        mean, std = (np.array(numbers).reshape(-1, 1, 1) for numbers in (scaling.offset, scaling.scale))
        scaled.append(np.clip((values - mean) / std, -5, 5))
    return np.concatenate(scaled, axis=1)


def enlarged(level: np.ndarray, factor: int) -> np.ndarray:
    """Each number between its neighbours along both axes; cells lie at their centres, and the outermost go on."""
    for axis in (2, 3):
        count = level.shape[axis]
        places = (np.arange(count * factor) + 0.5) / factor - 0.5
        level = np.apply_along_axis(lambda line, n, at: np.interp(at, np.arange(n), line), axis, level, count, places)
    return level


def off(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, in units of how large the numbers are."""
    assert one.shape == other.shape
    return float((one - other).abs().max() / other.abs().max())


def test_the_bands_are_those_of_level_2a_in_the_order_of_their_names() -> None:
    rank = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
    fusion = find("fusion-nano")
    assert fusion.s2_scaling is not None
    numbers = dict(
        zip(fusion.s2_bands, zip(fusion.s2_scaling.offset, fusion.s2_scaling.scale, strict=True), strict=True)
    )
    for spec in SPECS:
        assert list(spec.s2_bands) == rank
        assert spec.s2_scaling is not None
        for band, mean, std in zip(rank, spec.s2_scaling.offset, spec.s2_scaling.scale, strict=True):
            assert numbers.get(band, (mean, std)) == (mean, std)


def test_the_first_layer_sees_scaled_bands_and_what_was_seen(small: ConvEncoder) -> None:
    given = pixels(small.spec, "both", 2, (32, 40))
    mask = torch.rand(2, 32, 40, generator=torch.Generator().manual_seed(0)) > 0.3
    image = small.features(**given, s2_mask=mask, missing=("B01", "B09", "VH"))[0].detach().numpy()
    wanted = by_hand(small.spec, given["s1"].numpy(), given["s2"].numpy())
    wanted[:, [1, 2, 11]] = 0
    wanted[:, 2:] *= mask.numpy()[:, None]
    shares = np.stack([np.full(mask.shape, 1 / 2), mask.numpy() * 10 / 12], axis=1)
    np.testing.assert_allclose(image, np.concatenate([wanted, shares], axis=1), atol=1e-5)


def test_levels_are_those_of_the_backbone_and_dense_is_made_of_them(backbone: ConvEncoder) -> None:
    given = pixels(backbone.spec, "both", 2, (64, 96))
    with torch.no_grad():
        levels = backbone.features(**given)
        alone = backbone.backbone(levels[0])
    tokens = run(backbone, **given)
    assert backbone.strides == (1, 2, 4, 8, 16, 32)
    assert [tuple(level.shape) for level in levels] == [
        (2, count, 64 // stride, 96 // stride)
        for stride, count in zip(backbone.strides, backbone.channels, strict=True)
    ]
    for own, level in zip(alone, [level for level in levels[1:] if level.shape[1]], strict=True):
        assert off(own, level) < 1e-4
    wanted = np.concatenate([enlarged(level.numpy(), 2**step) for step, level in enumerate(levels[3:])], axis=1)
    assert off(tokens.dense.permute(0, 3, 1, 2), torch.from_numpy(wanted)) < 1e-4
    assert off(tokens.pooled, tokens.dense.mean(dim=(1, 2))) < 1e-5


def test_other_sizes_are_filled_up_with_what_was_not_seen(backbone: ConvEncoder) -> None:
    given = pixels(backbone.spec, "both", 2, (40, 72))
    whole = {name: F.pad(values, (0, 24, 0, 24), value=torch.nan) for name, values in given.items()}
    mask = F.pad(torch.ones(2, 40, 72, dtype=torch.bool), (0, 24, 0, 24))
    with torch.no_grad():
        levels, larger = (
            backbone.features(**given),
            backbone.features(**whole, s1_mask=mask, s2_mask=mask),
        )
    assert [tuple(level.shape[-2:]) for level in levels] == [(40, 72), (20, 36), (10, 18), (5, 9), (3, 5), (2, 3)]
    for level, more in zip(levels, larger, strict=True):
        assert level.numel() == 0 or off(level, more[..., : level.shape[-2], : level.shape[-1]]) < 1e-4
    here, there = run(backbone, **given), run(backbone, **whole, s1_mask=mask, s2_mask=mask)
    assert there.dense[:, 5:].isnan().all()
    assert there.dense[:, :, 9:].isnan().all()
    there.dense = there.dense[:, :5, :9]
    assert apart(here, there) < 1e-4


def test_a_sensor_that_was_not_given_was_not_seen(small: ConvEncoder) -> None:
    given = pixels(small.spec, "both", 2, (32, 32))
    dark = torch.zeros(2, 32, 32, dtype=torch.bool)
    bands = {"s1": small.spec.s1_bands, "s2": small.spec.s2_bands}
    for name, other in (("s1", "s2"), ("s2", "s1")):
        alone = run(small, **{name: given[name]})
        assert apart(alone, run(small, **given, **{f"{other}_mask": dark})) == 0
        assert apart(alone, run(small, **given, missing=bands[other])) == 0
        with pytest.raises(InputError, match="nothing is left"):
            run(small, **{name: given[name]}, missing=bands[name])


def test_what_was_not_seen_is_told_from_the_mean_and_its_values_never_matter(backbone: ConvEncoder) -> None:
    spec = backbone.spec
    given = pixels(spec, "both", 1, (32, 64))
    mask = torch.ones(1, 32, 64, dtype=torch.bool)
    mask[:, 8:24, 16:32] = False
    assert spec.s2_scaling is not None
    mean = torch.tensor(spec.s2_scaling.offset).view(1, -1, 1, 1)
    average = {**given, "s2": torch.where(mask, given["s2"], mean)}
    hidden = run(backbone, **average, s2_mask=mask)
    assert apart(hidden, run(backbone, **average)) > 1e-4
    for value in (torch.nan, torch.inf, -1e30, 1e30):
        assert apart(hidden, run(backbone, **{**given, "s2": torch.where(mask, given["s2"], value)}, s2_mask=mask)) == 0
    gone = given["s2"].clone()
    gone[:, 9] = torch.nan
    assert (
        apart(run(backbone, **given, missing=("B09",)), run(backbone, **{**given, "s2": gone}, missing=("B09",))) == 0
    )


def test_cells_and_samples_of_which_nothing_was_seen_have_no_vector(small: ConvEncoder) -> None:
    given = pixels(small.spec, "both", 3, (32, 32))
    radar, optical = torch.ones(2, 3, 32, 32, dtype=torch.bool)
    radar[0], optical[0] = False, False
    # One cell that neither sensor saw, one that radar saw, and one of which a single pixel was seen.
    optical[1, :8, :16] = False
    radar[1, :8, :8] = False
    optical[1, 24:, 24:] = radar[1, 24:, 24:] = False
    radar[1, -1, -1] = True
    tokens = run(small, **given, s1_mask=radar, s2_mask=optical)
    assert tokens.pooled.isnan().all(dim=1).tolist() == [True, False, False]
    assert tokens.pooled[1:].isfinite().all()
    empty = tokens.dense.isnan()
    assert torch.equal(empty.all(dim=-1), empty.any(dim=-1))
    assert empty[0].all()
    assert not empty[2].any()
    assert empty[1, ..., 0].nonzero().tolist() == [[0, 0]]
    # The mean counts pixels, not cells.
    seen = (radar | optical)[1].reshape(4, 8, 4, 8).sum(dim=(1, 3)).double().numpy()
    wanted = np.average(tokens.dense[1].nan_to_num().double().numpy().reshape(16, -1), axis=0, weights=seen.ravel())
    np.testing.assert_allclose(tokens.pooled[1].numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("name", LOCAL)
def test_cells_lie_where_their_pixels_do_in_large_windows(name: str) -> None:
    encoder = load_encoder(name, "random")
    given = pixels(encoder.spec, "s2", 1, (96, 128))
    for row, column in ((0, 15), (7, 3), (11, 9)):
        changed = given["s2"].clone()
        square = changed[..., 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        square += 2000
        moved = (run(encoder, s2=changed).dense - run(encoder, **given).dense)[0]
        change = (moved - moved.mean(dim=(0, 1))).norm(dim=-1)
        assert divmod(int(change.argmax()), 16) == (row, column)


def test_all_of_it_learns_and_what_was_not_seen_stops_nothing(backbone: ConvEncoder) -> None:
    encoder = build(backbone.spec).train()
    given = pixels(encoder.spec, "both", 3, (64, 64))
    given["s2"][1] = torch.nan
    mask = torch.ones(3, 64, 64, dtype=torch.bool)
    mask[1] = False
    mask[2, :32] = False
    tokens = encoder(**given, s1_mask=mask, s2_mask=mask)
    assert tokens.pooled[[0, 2]].isfinite().all()
    loss = tokens.pooled[[0, 2]].square().sum() + tokens.dense[2, 4:].square().sum()
    loss = loss + sum(level.square().sum() for level in encoder.features(**{k: v[[0, 2]] for k, v in given.items()}))
    loss.backward()
    gradients = {name: weight.grad for name, weight in encoder.named_parameters()}
    assert [name for name, grad in gradients.items() if grad is None] == []
    assert all(grad.isfinite().all() for grad in gradients.values() if grad is not None)
    first = next(weight for weight in encoder.parameters() if weight.ndim == 4)
    assert first.shape[1] == 16
    assert (first.grad.abs().amax(dim=(0, 2, 3)) > 0).all()


def test_a_decoder_of_a_u_net_takes_its_levels(backbone: ConvEncoder) -> None:
    unet = pytest.importorskip("segmentation_models_pytorch.decoders.unet.decoder")
    torch.manual_seed(0)
    decoder = unet.UnetDecoder(encoder_channels=backbone.channels, decoder_channels=(32, 24, 16, 8, 8), n_blocks=5)
    for size in ((64, 32), (40, 72)):
        given = pixels(backbone.spec, "s1", 2, size)
        made = decoder(backbone.features(**given))
        assert made.shape == (2, 8, *size)
        assert made.isfinite().all()


def test_mixed_precision(small: ConvEncoder) -> None:
    given = pixels(small.spec, "both", 2, (32, 32))
    exact = run(small, **given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = run(small, **given)
    assert rough.pooled.dtype == rough.dense.dtype
    assert 0 < apart(rough, exact) < 0.1
    double = build(small.spec).eval().double()
    assert run(double, **given).pooled.dtype == torch.float64


def test_its_weights_go_through_a_file(small: ConvEncoder, tmp_path) -> None:
    save = pytest.importorskip("safetensors.torch").save_file
    save(small.state_dict(), tmp_path / "small.safetensors")
    other = load_encoder(SMALL, "random", seed=1)
    given = pixels(small.spec, "both", 1, (32, 32))
    assert apart(run(other, **given), run(small, **given)) > 1e-3
    again = load_encoder(SMALL, weights=tmp_path / "small.safetensors")
    assert apart(run(again, **given), run(small, **given)) == 0


def test_nothing_is_fetched_and_the_table_says_so() -> None:
    table = list_encoders().set_index("name")
    for spec in SPECS:
        assert (spec.url, spec.license) == ("", "")
        row = table.loc[spec.name]
        assert row["license"] == ""
        assert row["can_mask"]
        assert row["any_bands"]


def test_a_spec_of_another_width_is_refused() -> None:
    fields = {name: getattr(find(SMALL), name) for name in EncoderSpec.__dataclass_fields__}
    with pytest.raises(InputError, match="480 numbers and not 481"):
        build(EncoderSpec(**{**fields, "width": 481}))


def test_what_nobody_trained_yet_says_so() -> None:
    with pytest.warns(DeepSentinelWarning, match=r"resnet18 has no pretrained weights.*ds\.pretrain trains it"):
        load_encoder("resnet18")
