"""The wrappers of OlmoEarth and TerraMind against their authors' packages, where these are installed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from encoder_kit import pixels, run
from torch import Tensor, nn

from deepsentinel.encoders import load_encoder
from deepsentinel.encoders.extras import MISSING, SEEN, _pool
from deepsentinel.encoders.registry import find

CLOSE = 1e-5
ROOT = "olmoearth_pretrain_minimal.olmoearth_pretrain_v1"
MODES = ("s1", "s2", "both")


def saved(model: nn.Module, path: Path) -> Path:
    """A checkpoint as the authors would write it, of which every part was drawn anew."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    torch.save(model.state_dict(), path)
    return path


def off(ours: Tensor | None, theirs: Tensor) -> float:
    assert ours is not None
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.fixture(scope="module", params=["v1", "v1.2"])
def olmoearth(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    package: Any = pytest.importorskip("olmoearth_pretrain_minimal")
    whole = package.OlmoEarthPretrain_v1(model_size="nano", model_version=request.param).eval()
    path = saved(whole.model, tmp_path_factory.mktemp("olmoearth") / "weights.pth")
    return SimpleNamespace(
        encoder=load_encoder(f"olmoearth-{request.param}-nano", path),
        theirs=whole.model.encoder,
        normalizer=package.Normalizer(model_type=request.param),
        modalities=import_module(f"{ROOT}.utils.constants").Modality,
        sample=import_module(f"{ROOT}.utils.datatypes").MaskedOlmoEarthSample,
        mean=import_module(f"{ROOT}.nn.flexi_vit").PoolingType.MEAN,
    )


@pytest.mark.parametrize("mode", MODES)
def test_olmoearth_says_what_the_package_says(olmoearth: SimpleNamespace, mode: str) -> None:
    spec, inputs, month = olmoearth.encoder.spec, pixels(olmoearth.encoder.spec, mode, 2, (32, 32)), [3, 9]
    sample: dict[str, Tensor] = {"timestamps": torch.tensor([[[1, number, 2020]] for number in month])}
    named = dict(zip(("s1", "s2"), (spec.s1_bands, spec.s2_bands), strict=True))
    for sensor, modality in (("s1", olmoearth.modalities.SENTINEL1), ("s2", olmoearth.modalities.SENTINEL2_L2A)):
        if sensor not in inputs:
            continue
        # By name, so that the order is theirs.
        order = [named[sensor].index(band.upper()) for band in modality.band_order]
        values = olmoearth.normalizer.normalize(modality, inputs[sensor][:, order].permute(0, 2, 3, 1).numpy())
        sets = olmoearth.theirs.patch_embeddings.tokenization_config.get_num_bandsets(modality.name)
        sample[modality.name] = torch.from_numpy(values).float().unsqueeze(3)
        sample[f"{modality.name}_mask"] = torch.zeros(2, 32, 32, 1, sets, dtype=torch.long)
    with torch.no_grad():
        found = olmoearth.theirs(olmoearth.sample(**sample), patch_size=8, input_res=10)["tokens_and_masks"]
    tokens = run(olmoearth.encoder, **inputs, month=torch.tensor(month))
    assert off(tokens.pooled, found.pool_unmasked_tokens(olmoearth.mean)) < CLOSE
    assert off(tokens.dense, found.pool_unmasked_tokens(olmoearth.mean, spatial_pooling=True)) < CLOSE


def test_sensors_count_alike_in_a_cell_however_many_tokens_they_have() -> None:
    # One token of radar and three of optics in each of two cells of two windows; some of them are hidden.
    radar = torch.tensor([[2.0, 4.0], [6.0, 8.0]]).view(2, 1, 2, 1, 1, 1)
    optics = torch.tensor([[[1.0, 2.0, 6.0], [5.0, 70.0, 7.0]], [[0.0, 0.0, 3.0], [80.0, 90.0, 95.0]]])
    hidden = torch.tensor([[[SEEN] * 3, [SEEN, MISSING, SEEN]], [[SEEN] * 3, [MISSING] * 3]])
    output = SimpleNamespace(
        sentinel1=radar,
        sentinel1_mask=torch.tensor([[SEEN, SEEN], [SEEN, MISSING]]).view(2, 1, 2, 1, 1),
        sentinel2_l2a=optics.view(2, 1, 2, 1, 3, 1),
        sentinel2_l2a_mask=hidden.view(2, 1, 2, 1, 3),
    )
    tokens = _pool(output, ["sentinel1", "sentinel2_l2a"])
    # 2 and (1 + 2 + 6) / 3; 4 and (5 + 7) / 2; 6 and (0 + 0 + 3) / 3; nothing, so the window's.
    assert tokens.dense is not None
    assert tokens.dense.flatten().tolist() == pytest.approx([2.5, 5.0, 3.5, 9 / 4])
    assert tokens.pooled.flatten().tolist() == pytest.approx([(2 + 9 + 4 + 12) / 7, (6 + 3) / 4])


@pytest.fixture(scope="module")
def terramind(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    pytest.importorskip("terratorch")
    register: ModuleType = import_module("terratorch.models.backbones.terramind.model.terramind_register")
    backbones: Any = import_module("terratorch.registry").BACKBONE_REGISTRY
    options = {"merge_method": "dict", "pretrained": False}
    # Their checkpoint is of more inputs than ours.
    whole = backbones.build("terratorch_terramind_v1_tiny", modalities=["S1GRD", "S1RTC", "S2L2A", "DEM"], **options)
    path = saved(whole, tmp_path_factory.mktemp("terramind") / "weights.pt")
    return SimpleNamespace(encoder=load_encoder("terramind-tiny", path), theirs=whole.eval(), register=register)


@pytest.mark.parametrize("mode", MODES)
def test_terramind_says_what_the_package_says(terramind: SimpleNamespace, mode: str) -> None:
    inputs, register, given = pixels(terramind.encoder.spec, mode, 2, (224, 224)), terramind.register, {}
    for sensor, name, key in (("s1", "S1GRD", "untok_sen1grd@224"), ("s2", "S2L2A", "untok_sen2l2a@224")):
        if sensor in inputs:
            mean, spread = (
                torch.tensor(table[key]).view(-1, 1, 1)
                for table in (register.v1_pretraining_mean, register.v1_pretraining_std)
            )
            given[name] = (inputs[sensor] - mean) / spread
    with torch.no_grad():
        cells = torch.stack(list(terramind.theirs(given)[-1].values())).mean(dim=0)
    tokens = run(terramind.encoder, **inputs)
    assert off(tokens.dense, cells.unflatten(1, (14, 14))) < CLOSE
    assert off(tokens.pooled, cells.mean(dim=1)) < CLOSE


def test_terramind_takes_its_bands_in_the_order_of_the_package(terramind: SimpleNamespace) -> None:
    names = {
        "COASTAL_AEROSOL": "B01", "BLUE": "B02", "GREEN": "B03", "RED": "B04", "RED_EDGE_1": "B05", "RED_EDGE_2": "B06",
        "RED_EDGE_3": "B07", "NIR_BROAD": "B08", "NIR_NARROW": "B8A", "WATER_VAPOR": "B09", "SWIR_1": "B11",
        "SWIR_2": "B12",
    }  # fmt: skip
    bands = terramind.register.PRETRAINED_BANDS
    assert find("terramind-tiny").s2_bands == tuple(names[band] for band in bands["untok_sen2l2a@224"])
    assert find("terramind-tiny").s1_bands == tuple(bands["untok_sen1grd@224"])
