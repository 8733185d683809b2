"""Backbones without pretrained weights, to be trained on a corpus: 14 bands in, a level for each stride out."""

from __future__ import annotations

from .spec import EncoderSpec, Scaling
from .specs_own import FUSION_MEAN, FUSION_STD, GALILEO_S1, GALILEO_S2

S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
# Round numbers near those of surface reflectance over land, as Fusion's, which takes no bands of 60 m.
MEAN = dict(zip(GALILEO_S2, FUSION_MEAN, strict=True)) | {"B01": 500.0, "B09": 2750.0}
STD = dict(zip(GALILEO_S2, FUSION_STD, strict=True)) | {"B01": 550.0, "B09": 1150.0}


def _backbone(name: str, family: str, model: str, width: int, parameters: int) -> EncoderSpec:
    return EncoderSpec(
        name=name,
        family=family,
        modes=("s1", "s2", "both"),
        s1_bands=GALILEO_S1,
        s2_bands=S2,
        # What was never trained knows of no level.
        level="any",
        backscatter="any",
        s1_scaling=Scaling.z_score((-12.0, -19.0), (5.0, 5.5), limit=5.0),
        s2_scaling=Scaling.z_score(tuple(MEAN[band] for band in S2), tuple(STD[band] for band in S2), limit=5.0),
        size_px=None,
        any_size=True,
        patch_px=8,
        patch_sizes=(8,),
        # The levels of strides 8, 16 and 32 one after the other.
        width=width,
        parameters=parameters,
        license="",
        source="https://github.com/huggingface/pytorch-image-models",
        builder="conv:build",
        can_mask=True,
        any_bands=True,
        needs=("timm",),
        options={"backbone": model},
    )


SPECS = (
    _backbone("resnet18", "resnet", "resnet18", 128 + 256 + 512, 11_217_280),
    _backbone("resnet50", "resnet", "resnet50", 512 + 1024 + 2048, 23_548_800),
    _backbone("seresnet18", "resnet", "seresnet18", 128 + 256 + 512, 11_307_392),
    _backbone("densenet121", "densenet", "densenet121", 512 + 1024 + 1024, 6_994_624),
    _backbone("hrnet-w18-small", "hrnet", "hrnet_w18_small", 256 + 512 + 1024, 2_844_128),
    _backbone("convnext-atto", "convnext", "convnext_atto", 80 + 160 + 320, 3_382_200),
    # Attention at every level, as in SegFormer's encoder, whose published code may not be used commercially.
    _backbone("pvt-v2-b0", "pvt", "pvt_v2_b0", 64 + 160 + 256, 3_430_144),
)
