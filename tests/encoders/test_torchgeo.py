"""The wrappers against torchgeo's and timm's own forward, and the scalings against the authors' own formulas."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from encoder_kit import pixels, run
from torch import Tensor, nn

from deepsentinel.encoders.base import Encoder, Scaler
from deepsentinel.encoders.registry import find, registry
from deepsentinel.encoders.spec import EncoderSpec
from deepsentinel.encoders.torchgeo_models import CopernicusFm, Croma, Dofa, Panopticon, positions_for
from deepsentinel.errors import SourceError

pytest.importorskip("timm")
TORCHGEO = [name for name, spec in registry().items() if spec.builder.startswith("torchgeo_models:")]
ENUMS = {
    "resnet18": "ResNet18_Weights",
    "resnet50": "ResNet50_Weights",
    "vit_small_patch16_224": "ViTSmall16_Weights",
    "vit_base_patch16_224": "ViTBase16_Weights",
    "vit_small_patch14_dinov2": "ViTSmall14_DINOv2_Weights",
    "vit_base_patch14_dinov2": "ViTBase14_DINOv2_Weights",
    "croma-base": "CROMABase_Weights",
    "croma-large": "CROMALarge_Weights",
    "dofa_base_patch16_224": "DOFABase16_Weights",
    "dofa_large_patch16_224": "DOFALarge16_Weights",
    "copernicus-fm": "CopernicusFM_Base_Weights",
    "panopticon": "Panopticon_Weights",
}


@pytest.fixture(scope="module")
def torchgeo_models() -> ModuleType:
    pytest.importorskip("torchgeo")
    return import_module("torchgeo.models")


def small(name: str, **options: object) -> EncoderSpec:
    spec = find(name)
    return dataclasses.replace(spec, width=64, options={**spec.options, **options})


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter drawn anew, also those that begin as zeros or ones: a part left out then shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05 + (parameter == 1).float())
    return model.eval()


@pytest.mark.parametrize("name", TORCHGEO)
def test_addresses_and_bands_are_those_of_torchgeo(torchgeo_models: ModuleType, name: str) -> None:
    spec = find(name)
    enum = getattr(torchgeo_models, ENUMS[str(spec.options.get("model", name))])
    urls = {weight.url.replace("//hf.co/", "//huggingface.co/"): weight for weight in enum}
    assert spec.url in urls
    bands = urls[spec.url].meta.get("bands")
    if bands:
        plain = [band.upper().replace("B0", "B") for band in spec.s1_bands or spec.s2_bands]
        assert plain == [band.upper() for band in bands]
    # Their hash is in their names, where they give one.
    assert spec.sha256 in spec.url


def test_vision_transformers_match_timm_at_the_trained_size() -> None:
    import timm

    from deepsentinel.encoders.torchgeo_models import build_timm

    # A smaller one of the same make: the real ones take long only to be drawn.
    model = "vit_tiny_patch16_224"
    spec = dataclasses.replace(find("ssl4eo-vit-small-s1-mae"), width=192, options={"model": model})
    encoder = build_timm(spec)
    shaken(encoder)
    plain = timm.create_model(model, in_chans=2, num_classes=0).eval()
    plain.load_state_dict(encoder.model.state_dict())  # type: ignore[union-attr,operator]
    inputs = pixels(spec, "s1", 1, (224, 224))
    tokens = run(encoder, **inputs)
    assert spec.s1_scaling is not None
    with torch.no_grad():
        features = plain.forward_features(Scaler(spec.s1_scaling)(inputs["s1"]))
    assert torch.allclose(tokens.pooled, features[:, 0], atol=1e-5)
    assert tokens.dense is not None
    # Row by row, from the top left, behind the class token.
    assert torch.allclose(tokens.dense[0, 2, 3], features[0, 1 + 2 * 14 + 3], atol=1e-5)


def test_croma_matches_torchgeo(torchgeo_models: ModuleType) -> None:
    spec = small("croma-base", width=64, depth=2)
    encoder = shaken(Croma(spec))
    theirs = torchgeo_models.CROMA(encoder_dim=64, encoder_depth=2, num_heads=16, image_size=40).eval()
    state = encoder.model.state_dict()
    state.pop("attn_bias")
    theirs.load_state_dict(state, strict=False)
    inputs = pixels(spec, "both", 2, (40, 40))
    assert spec.s1_scaling is not None
    assert spec.s2_scaling is not None
    with torch.no_grad():
        wanted = theirs(Scaler(spec.s1_scaling)(inputs["s1"]), Scaler(spec.s2_scaling)(inputs["s2"]))
    both = run(encoder, **inputs)
    assert torch.allclose(both.pooled, wanted["joint_GAP"], atol=1e-5)
    assert torch.allclose(both.dense.flatten(1, 2), wanted["joint_encodings"], atol=1e-5)
    for key, ours in (("sar", run(encoder, s1=inputs["s1"])), ("optical", run(encoder, s2=inputs["s2"]))):
        assert torch.allclose(ours.pooled, wanted[f"{key}_GAP"], atol=1e-5)
        assert torch.allclose(ours.dense.flatten(1, 2), wanted[f"{key}_encodings"], atol=1e-5)


def test_croma_takes_the_grouped_checkpoint(torchgeo_models: ModuleType, tmp_path: Path) -> None:
    from deepsentinel.encoders.weights import read_state

    spec = small("croma-base", width=64, depth=2)
    theirs = shaken(torchgeo_models.CROMA(encoder_dim=64, encoder_depth=2, num_heads=16, image_size=16), seed=4)
    groups = ("s1_encoder", "s1_GAP_FFN", "s2_encoder", "s2_GAP_FFN", "joint_encoder")
    torch.save({group: getattr(theirs, group).state_dict() for group in groups}, tmp_path / "a.pt")
    encoder = Croma(spec).eval()
    encoder.load_weights(read_state(tmp_path / "a.pt"))
    ours = encoder.model.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in theirs.state_dict().items() if key != "attn_bias")


def test_dofa_matches_torchgeo(torchgeo_models: ModuleType) -> None:
    spec = small("dofa-base")
    encoder = shaken(Dofa(spec, torchgeo_models.DOFA(embed_dim=64, depth=2, num_heads=4, patch_size=16, num_classes=0)))
    inputs = pixels(spec, "s2", 2, (224, 224))
    waves = [0.665, 0.56, 0.49, 0.705, 0.74, 0.783, 0.842, 1.61, 2.19]
    assert spec.s2_scaling is not None
    with torch.no_grad():
        wanted = encoder.model(Scaler(spec.s2_scaling)(inputs["s2"]), waves)
        some = encoder.model(Scaler(spec.s2_scaling)(inputs["s2"])[:, :7], waves[:7])
    assert torch.allclose(run(encoder, **inputs).pooled, wanted, atol=1e-5)
    assert torch.allclose(run(encoder, **inputs, missing=("B11", "B12")).pooled, some, atol=1e-5)


@pytest.mark.parametrize("known", [True, False])
def test_copernicus_fm_matches_torchgeo(torchgeo_models: ModuleType, known: bool) -> None:
    spec = small("copernicus-fm")
    model = torchgeo_models.CopernicusFM(embed_dim=64, depth=2, num_heads=4, hyper_dim=32)
    encoder = shaken(CopernicusFm(spec, model))
    inputs = pixels(spec, "s1", 2, (224, 224))
    place = torch.tensor([[46.0, 8.0], [-33.0, 151.0]])
    metadata = torch.full((2, 4), torch.nan)
    metadata[:, 3] = 0.16**2
    if known:
        metadata[:, 0], metadata[:, 1] = place[:, 1], place[:, 0]
    assert spec.s1_scaling is not None
    with torch.no_grad():
        wanted = model(Scaler(spec.s1_scaling)(inputs["s1"]), metadata, [5e7, 5e7], [1e9, 1e9], kernel_size=16)
    ours = run(encoder, **inputs, **({"latlon": place} if known else {}))
    assert torch.allclose(ours.pooled, wanted, atol=1e-5)


def test_a_place_that_is_unknown_for_some_is_no_harm_to_the_others(torchgeo_models: ModuleType) -> None:
    spec = small("copernicus-fm")
    encoder = shaken(CopernicusFm(spec, torchgeo_models.CopernicusFM(embed_dim=64, depth=1, num_heads=4, hyper_dim=32)))
    inputs = pixels(spec, "s1", 2, (32, 32))
    place = torch.tensor([[46.0, 8.0], [torch.nan, torch.nan]])
    tokens = run(encoder, **inputs, latlon=place)
    assert torch.allclose(tokens.pooled[:1], run(encoder, s1=inputs["s1"][:1], latlon=place[:1]).pooled, atol=1e-5)
    assert torch.allclose(tokens.pooled[1:], run(encoder, s1=inputs["s1"][1:]).pooled, atol=1e-5)


@pytest.mark.long
def test_panopticon_matches_torchgeo(torchgeo_models: ModuleType) -> None:
    spec = find("panopticon")
    encoder = Panopticon(spec).eval()
    theirs = torchgeo_models.panopticon_vitb14().eval()
    theirs.model.load_state_dict(encoder.model.state_dict())
    inputs = pixels(spec, "both", 1, (224, 224))
    channels = [-1, -2, 442, 492, 559, 664, 704, 740, 782, 827, 864, 945, 1373, 1613, 2203]
    assert spec.s1_scaling is not None
    assert spec.s2_scaling is not None
    stacked = torch.cat([Scaler(spec.s1_scaling)(inputs["s1"]), Scaler(spec.s2_scaling)(inputs["s2"])], dim=1)
    with torch.no_grad():
        wanted = theirs({"imgs": stacked, "chn_ids": torch.tensor([channels]).float()})
    assert torch.allclose(run(encoder, **inputs).pooled, wanted, atol=1e-4)


def test_a_checkpoint_with_a_head_loads_and_one_with_a_part_missing_does_not() -> None:
    from deepsentinel.encoders.torchgeo_models import build_timm

    encoder: Encoder = build_timm(find("ssl4eo-resnet18-s2-moco"))
    state = dict(encoder.model.state_dict())  # type: ignore[union-attr,operator]
    encoder.load_weights({**state, "fc.weight": torch.zeros(3, 512), "fc.bias": torch.zeros(3)})
    state.pop("layer1.0.conv1.weight")
    with pytest.raises(SourceError, match=r"missing layer1\.0\.conv1\.weight"):
        encoder.load_weights(state)


# The authors' formulas, written out as their code has them, on numbers in our units.


def squeezed(values: np.ndarray, mean: list[float], std: list[float]) -> np.ndarray:
    """`normalize` of SSL4EO-S12, SoftCon and CROMA: to 8 bits between mean - 2 std and mean + 2 std, then to 0..1."""
    out = np.empty(values.shape)
    for band, (m, s) in enumerate(zip(mean, std, strict=True)):
        low, high = m - 2 * s, m + 2 * s
        image = (values[:, band] - low) / (high - low) * 255.0
        out[:, band] = np.clip(image, 0, 255).astype(np.uint8) / 255
    return out


S1_MEAN, S1_STD = [-12.54847273, -20.19237134], [5.25697717, 5.91150917]
B04 = {"mean": 1363.52445545, "std": 1138.84957046}


@pytest.mark.parametrize(
    ("name", "formula", "tolerance"),
    [
        ("ssl4eo-vit-small-s1-mae", lambda db: squeezed(db, S1_MEAN, S1_STD), 1 / 255),
        ("softcon-vit-small-s1", lambda db: squeezed(db, S1_MEAN, S1_STD), 1 / 255),
        ("decur-resnet50-s1", lambda db: squeezed(db, [-12.59, -20.26], [5.26, 5.91]), 1 / 255),
        ("croma-base", lambda db: squeezed(db, S1_MEAN, S1_STD), 1 / 255),
        ("copernicus-fm", lambda db: (db - [[[-12.59]], [[-20.26]]]) / [[[5.26]], [[5.91]]], 1e-5),
    ],
)
def test_radar_scaling(name: str, formula: Callable[[np.ndarray], np.ndarray], tolerance: float) -> None:
    db = np.random.default_rng(1).uniform(-45, 8, (2, 2, 20, 20))
    scaling = find(name).s1_scaling
    assert scaling is not None
    ours = Scaler(scaling)(torch.from_numpy(db.astype(np.float32))).numpy()
    assert np.abs(ours - formula(db)).max() <= tolerance + 1e-5


@pytest.mark.parametrize(
    ("name", "band", "formula", "tolerance"),
    [
        ("ssl4eo-resnet50-s2-moco", "B04", lambda dn: np.clip(dn / 10_000, 0, 1), 1e-6),
        ("decur-resnet50-s2", "B12", lambda dn: np.clip(dn / 10_000, 0, 1), 1e-6),
        ("softcon-vit-small-s2", "B04", lambda dn: squeezed(dn[:, None], [B04["mean"]], [B04["std"]])[:, 0], 1 / 255),
        ("copernicus-fm", "B8A", lambda dn: (dn - 2581.0) / 1345.9, 1e-5),
        ("panopticon", "B09", lambda dn: (dn - 674.1297) / 474.7933, 1e-5),
        # Files of 8 bits: ESA's true colour for the visible bands, a 32nd for the others.
        ("dofa-base", "B04", lambda dn: (np.minimum(dn / 3558 * 255, 255) - 114.1099739) / 77.84352553, 1e-4),
        ("dofa-base", "B12", lambda dn: (np.clip(dn // 32, 0, 255) - 56.66528851) / 42.55886798, 1 / 42),
    ],
)
def test_optical_scaling(name: str, band: str, formula: Callable[[np.ndarray], np.ndarray], tolerance: float) -> None:
    spec = find(name)
    assert spec.s2_scaling is not None
    dn = np.random.default_rng(1).integers(1, 16_000, (2, len(spec.s2_bands), 20, 20)).astype(np.float32)
    position = spec.s2_bands.index(band)
    ours = Scaler(spec.s2_scaling)(torch.from_numpy(dn)).numpy()[:, position]
    assert np.abs(ours - formula(dn[:, position].astype(np.float64))).max() <= tolerance + 1e-5


def test_amplitude_before_calibration_is_near_what_dofa_was_trained_on(real: Path) -> None:
    """On real scenes its z-scores must be near zero mean and unit spread, where dB itself would be far off."""
    import rasterio

    files = sorted(real.glob("bigearthnet/**/*_VV.tif")) + sorted(real.glob("ssl4eo/**/VV.tif"))
    assert len(files) >= 5
    scaling = find("dofa-base").s1_scaling
    assert scaling is not None
    for file in files:
        bands = []
        for name in (file, file.with_name(file.name.replace("VV", "VH"))):
            with rasterio.open(name) as image:
                bands.append(torch.from_numpy(image.read(1).astype(np.float32)))
        scores: Tensor = Scaler(scaling)(torch.stack(bands)[None])
        assert scores.isfinite().all()
        assert (scores.mean(dim=(0, 2, 3)).abs() < 0.75).all(), (file, scores.mean(dim=(0, 2, 3)))
        assert ((scores.std(dim=(0, 2, 3)) > 0.4) & (scores.std(dim=(0, 2, 3)) < 1.3)).all()


def test_a_pixel_that_is_masked_gets_the_mean_of_its_window() -> None:
    scaling = find("copernicus-fm").s1_scaling
    assert scaling is not None
    db = torch.full((1, 2, 4, 4), torch.nan)
    db[:, 0, 0], db[:, 1, 0] = torch.tensor([-10.0, -12.0, -14.0, -16.0]), -20.26
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[:, 0] = True
    scaled = Scaler(scaling)(db, mask)
    assert torch.allclose(scaled[0, 0, 1:], torch.tensor((-13 + 12.59) / 5.26))
    assert torch.allclose(scaled[0, 1], torch.tensor(0.0))
    assert torch.equal(Scaler(scaling)(db, torch.zeros_like(mask)), torch.zeros_like(db))


def test_positions_of_a_smooth_table_stay_where_they_are() -> None:
    """A table that rises from left to right does so on another grid as well, and the class token is kept."""
    ramp = torch.linspace(0, 1, 14).repeat(14, 1).reshape(1, 196, 1)
    table = torch.cat([torch.full((1, 1, 1), 9.0), ramp], dim=1)
    other = positions_for(table, (5, 20))
    assert other[0, 0] == 9
    grid = other[0, 1:, 0].reshape(5, 20)
    assert (grid.diff(dim=1) > -1e-3).all()
    assert torch.allclose(grid, grid[:1].expand(5, 20), atol=1e-5)
    assert torch.equal(positions_for(table, (14, 14)), table)
