"""The encoders that this package writes itself: Galileo, Presto and our own Fusion."""

from __future__ import annotations

from .spec import EncoderSpec, Scaling

GALILEO_S1 = ("VV", "VH")
GALILEO_S2 = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
GALILEO_MEAN = (
    -11.728724389184965, -18.85558188024017, 1395.3408730676722, 1338.4026921784578, 1343.09883810357,
    1543.8607982512297, 2186.2022069512263, 2525.0932853316694, 2410.3377187373408, 2750.2854646886753,
    2234.911100061487, 1474.5311266077113,
)  # fmt: skip
GALILEO_STD = (
    4.887145774840316, 5.730270320384293, 917.7041440370853, 913.2988423581528, 1092.678723527555, 1047.2206083460424,
    1048.0101611156767, 1143.6903026819996, 1098.979177731649, 1204.472755085893, 1145.9774063078878, 980.2429840007796,
)  # fmt: skip
# Round numbers near those of surface reflectance over land, in the order of GALILEO_S2.
FUSION_MEAN = (600.0, 850.0, 900.0, 1300.0, 2200.0, 2500.0, 2600.0, 2750.0, 2200.0, 1450.0)
FUSION_STD = (600.0, 650.0, 800.0, 800.0, 950.0, 1100.0, 1150.0, 1150.0, 1050.0, 950.0)


def _galileo(size: str, width: int, depth: int, heads: int, parameters: int, sha256: str) -> EncoderSpec:
    return EncoderSpec(
        name=f"galileo-{size}",
        family="galileo",
        modes=("s1", "s2", "both"),
        s1_bands=GALILEO_S1,
        s2_bands=GALILEO_S2,
        # Trained on Earth Engine's S2_HARMONIZED and S1_GRD.
        level="L1C",
        backscatter="sigma0",
        s1_scaling=Scaling.two_sigma(GALILEO_MEAN[:2], GALILEO_STD[:2]),
        s2_scaling=Scaling.two_sigma(GALILEO_MEAN[2:], GALILEO_STD[2:]),
        size_px=64,
        any_size=True,
        patch_px=8,
        patch_sizes=(1, 2, 3, 4, 5, 6, 7, 8),
        width=width,
        parameters=parameters,
        license="MIT",
        source="https://github.com/nasaharvest/galileo",
        builder="galileo:build",
        url=f"https://huggingface.co/nasaharvest/galileo/resolve/main/models/{size}/encoder.pt",
        file=f"galileo-{size}.pt",
        sha256=sha256,
        can_mask=True,
        any_bands=True,
        series=True,
        options={"depth": depth, "heads": heads},
    )


def _fusion(size: str, width: int, depth: int, heads: int, parameters: int, shipped_sha256: str = "") -> EncoderSpec:
    return EncoderSpec(
        name=f"fusion-{size}",
        family="fusion",
        modes=("s1", "s2", "both"),
        s1_bands=GALILEO_S1,
        s2_bands=GALILEO_S2,
        level="L2A",
        backscatter="gamma0_rtc",
        s1_scaling=Scaling.z_score((-12.0, -19.0), (5.0, 5.5), limit=5.0),
        s2_scaling=Scaling.z_score(FUSION_MEAN, FUSION_STD, limit=5.0),
        size_px=64,
        any_size=True,
        patch_px=8,
        patch_sizes=(1, 2, 3, 4, 5, 6, 7, 8),
        width=width,
        parameters=parameters,
        license="Apache-2.0" if shipped_sha256 else "",
        source="https://github.com/deepsentinel/deepsentinel",
        builder="fusion:build",
        shipped=bool(shipped_sha256),
        file=f"fusion-{size}.safetensors" if shipped_sha256 else "",
        sha256=shipped_sha256,
        can_mask=True,
        any_bands=True,
        options={"depth": depth, "heads": heads},
    )


SPECS = (
    _fusion("nano", 384, 4, 4, 892_672, "ceee40e4609574634c2b13b9fbf7c19e115947da4a4547826379e9cf70205f74"),
    _fusion("tiny", 576, 12, 6, 5_487_744),
    _galileo("nano", 128, 4, 8, 893_760, "eab6acacf527886a508a555bc24efe4b4a2cf91b162e84cd1c4a1807e942180c"),
    _galileo("tiny", 192, 12, 3, 5_489_376, ""),
    _galileo("base", 768, 12, 12, 85_658_496, ""),
    EncoderSpec(
        name="presto",
        family="presto",
        modes=("s1", "s2", "both"),
        s1_bands=GALILEO_S1,
        s2_bands=GALILEO_S2,
        # Trained on series as CropHarvest exports them from Earth Engine.
        level="L1C",
        backscatter="sigma0",
        s1_scaling=Scaling(offset=(-25.0, -25.0), scale=(25.0, 25.0), text="(x + 25) / 25"),
        s2_scaling=Scaling.divide(10_000, len(GALILEO_S2)),
        size_px=1,
        any_size=True,
        patch_px=1,
        patch_sizes=(1,),
        width=128,
        parameters=402_016,
        license="MIT",
        source="https://github.com/nasaharvest/presto",
        builder="presto:build",
        url="https://raw.githubusercontent.com/nasaharvest/presto/13173d028f035abcbcc3b13829314323a5c15d02/data/default_model.pt",
        file="presto.pt",
        sha256="559c9d76f525bdf2dd3774da8b1e7f1510769b73baacac12e9e4d8d5c67fbe65",
        can_mask=True,
        any_bands=True,
        series=True,
    ),
)
