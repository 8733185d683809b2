# ruff: noqa: E501 (addresses do not break)
"""Encoders whose weights torchgeo publishes, with the scaling that their authors trained with.

torchgeo ships transforms beside its weights; some of them are z-scores where the authors squeezed to 0..1, or nothing
at all. The scalings here are those of the authors' own code:

- SSL4EO-S12 and DeCUR: S2 divided by 10000 and clipped to 0..1; S1 dB from mean - 2 std to mean + 2 std becomes 0..1
  (`ssl4eo_dataset.py`; its author says so in issue 17 of zhu-xlab/SSL4EO-S12).
- SoftCon: mean -/+ 2 std becomes 0..1 for both sensors (its README, and `ClsDataAugmentationSoftCon` in Copernicus-FM).
- CROMA: mean -/+ 2 std becomes 0..1 (its README, there with the statistics of the batch at hand; with those of its
  training data here, so that no vector depends on its neighbours).
- DOFA: the 8-bit files of SatlasPretrain, then a z-score: true colour = DN / 3558 x 255, other bands = DN / 32, S1 =
  amplitude as delivered, before calibration, clipped at 255 (README of zhu-xlab/DOFA; Normalization.md and issue 49 of
  allenai/satlas). Uncalibrated amplitude is computed from dB with the calibration constant of IW GRD products at a
  middle incidence angle.
- Copernicus-FM: z-score (`main_pretrain.py`). Panopticon: z-score (its README; statistics of `fmow.py`,
  `eurosat_sar.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

from .spec import EncoderSpec, Scaling

VV_VH = ("VV", "VH")
L1C = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
L2A = tuple(band for band in L1C if band != "B10")

SSL4EO_S1 = ((-12.54847273, -20.19237134), (5.25697717, 5.91150917))
SSL4EO_L1C = (
    (
        1605.57504906, 1390.78157673, 1314.8729939, 1363.52445545, 1549.44374991, 2091.74883118, 2371.7172463,
        2299.90463006, 2560.29504086, 830.06605044, 22.10351321, 2177.07172323, 1524.06546312,
    ),
    (
        786.78685367, 850.34818441, 875.06484736, 1138.84957046, 1122.17775652, 1161.59187054, 1274.39184232,
        1248.42891965, 1345.52684884, 577.31607053, 51.15431158, 1336.09932639, 1136.53823676,
    ),
)  # fmt: skip
SSL4EO_L2A = (
    (
        752.40087073, 884.29673756, 1144.16202635, 1297.47289228, 1624.90992062, 2194.6423161, 2422.21248945,
        2517.76053101, 2581.64687018, 2645.51888987, 2368.51236873, 1805.06846033,
    ),
    (
        1108.02887453, 1155.15170768, 1183.6292542, 1368.11351514, 1370.265037, 1355.55390699, 1416.51487101,
        1474.78900051, 1439.3086061, 1582.28010962, 1455.52084939, 1343.48379601,
    ),
)  # fmt: skip
# Rounded in the later papers of the same group.
ROUNDED_S1 = ((-12.59, -20.26), (5.26, 5.91))
ROUNDED_L1C = (
    (1612.9, 1397.6, 1322.3, 1373.1, 1561.0, 2108.4, 2390.7, 2318.7, 2581.0, 837.7, 22.0, 2195.2, 1537.4),
    (791.0, 854.3, 878.7, 1144.9, 1127.5, 1164.2, 1276.0, 1249.5, 1345.9, 577.5, 47.5, 1340.0, 1142.9),
)
FMOW_L1C = (
    (
        1569.1970, 1383.9951, 1338.4231, 1408.1113, 1537.2856, 1926.5183, 2136.5127, 2033.4019, 2262.4558, 674.1297,
        16.7465, 2027.3674, 1501.4686,
    ),
    (
        517.7932, 595.0351, 690.2477, 994.7734, 994.4599, 1079.4558, 1192.3668, 1170.9979, 1278.2103, 474.7933, 15.1294,
        1362.3807, 1134.5983,
    ),
)  # fmt: skip

DOFA_S2 = ("B04", "B03", "B02", "B05", "B06", "B07", "B08", "B11", "B12")
DOFA_S1_BITS = ((166.36275909, 88.45542715), (64.83126309, 43.07350145))
DOFA_S2_BITS = (
    (114.1099739, 114.81779093, 126.63977424, 84.33539309, 97.84789168, 103.94461911, 101.435633, 72.32804172, 56.66528851),
    (77.84352553, 69.96844919, 67.42465279, 64.57022983, 61.72545487, 61.34187099, 60.29744676, 47.88519516, 42.55886798),
)  # fmt: skip
# DN of one step of 8 bits: ESA's true-colour image ends at 3558, the other bands of SatlasPretrain at 32 x 255.
DOFA_STEPS = (3558 / 255,) * 3 + (32.0,) * 6
# betaNought of IW GRD products is 474; sigmaNought = betaNought / sqrt(sin(incidence)), at 38 degrees.
GRD_AMPLITUDE = 604.0
DOFA_WAVES_UM: Mapping[str, float] = {
    # Not wavelengths but placeholders: those of its training table, which its later weights changed to 5.405.
    "VV": 3.75, "VH": 3.75,
    "B04": 0.665, "B03": 0.56, "B02": 0.49, "B05": 0.705, "B06": 0.74, "B07": 0.783, "B08": 0.842, "B11": 1.61,
    "B12": 2.19,
}  # fmt: skip
COPERNICUS_WAVES_NM: Mapping[str, tuple[float, float]] = {
    "VV": (5e7, 1e9), "VH": (5e7, 1e9),
    "B01": (440, 20), "B02": (490, 65), "B03": (560, 35), "B04": (665, 30), "B05": (705, 15), "B06": (740, 15),
    "B07": (783, 20), "B08": (842, 115), "B8A": (860, 20), "B09": (940, 20), "B10": (1370, 30), "B11": (1610, 90),
    "B12": (2190, 180),
}  # fmt: skip
# Whole nanometres, as its int16 makes of them; radar channels are numbered, -1 and -2 for orbits of either direction.
PANOPTICON_CHANNELS: Mapping[str, int] = {
    "VV": -1, "VH": -2,
    "B01": 442, "B02": 492, "B03": 559, "B04": 664, "B05": 704, "B06": 740, "B07": 782, "B08": 827, "B8A": 864,
    "B09": 945, "B10": 1373, "B11": 1613, "B12": 2203,
}  # fmt: skip

HUB = "https://huggingface.co"
TO_UNIT_S2 = Scaling.divide(10_000, len(L1C), clip=True)
TO_UNIT_S1 = Scaling.two_sigma(*SSL4EO_S1, clip=True)
WIDTHS = {"resnet18": 512, "resnet50": 2048, "vit_small": 384, "vit_base": 768}


def _hash_of(file: str) -> str:
    """The first digits of the SHA-256, which torchgeo writes at the end of its own file names."""
    tail = file.rpartition(".")[0].rpartition("-")[2]
    return tail if len(tail) == 8 and set(tail) <= set("0123456789abcdef") else ""


def _single(
    name: str,
    family: str,
    model: str,
    scaling: Scaling,
    parameters: int,
    license: str,
    source: str,
    path: str,
) -> EncoderSpec:
    """A timm backbone for one sensor, told by the number of bands that it scales."""
    radar = len(scaling.offset) == len(VV_VH)
    patch = 32 if model.startswith("resnet") else 14 if "patch14" in model else 16
    return EncoderSpec(
        name=name,
        family=family,
        modes=("s1",) if radar else ("s2",),
        s1_bands=VV_VH if radar else (),
        s2_bands=() if radar else L1C,
        level="any" if radar else "L1C",
        backscatter="sigma0" if radar else "any",
        s1_scaling=scaling if radar else None,
        s2_scaling=None if radar else scaling,
        size_px=224,
        any_size=True,
        patch_px=patch,
        patch_sizes=(patch,),
        width=next(width for key, width in WIDTHS.items() if model.startswith(key)),
        parameters=parameters,
        license=license,
        source=source,
        builder="torchgeo_models:build_timm",
        url=f"{HUB}/{path}",
        file=path.rpartition("/")[2],
        sha256=_hash_of(path),
        needs=("timm",),
        options={"model": model},
    )


def _ssl4eo(name: str, model: str, parameters: int, path: str) -> EncoderSpec:
    scaling = TO_UNIT_S1 if "-s1-" in name else TO_UNIT_S2
    source = "https://github.com/zhu-xlab/SSL4EO-S12"
    return _single(f"ssl4eo-{name}", "ssl4eo", model, scaling, parameters, "CC-BY-4.0", source, path)


def _softcon(name: str, model: str, parameters: int, path: str) -> EncoderSpec:
    statistics = SSL4EO_S1 if name.endswith("-s1") else SSL4EO_L1C
    scaling = Scaling.two_sigma(*statistics, clip=True)
    source = "https://github.com/zhu-xlab/softcon"
    return _single(f"softcon-{name}", "softcon", model, scaling, parameters, "Apache-2.0", source, path)


def _decur(sensor: str, scaling: Scaling, parameters: int, path: str) -> EncoderSpec:
    source = "https://github.com/zhu-xlab/DeCUR"
    return _single(f"decur-resnet50-{sensor}", "decur", "resnet50", scaling, parameters, "Apache-2.0", source, path)


def _croma(size: str, width: int, depth: int, parameters: int, path: str) -> EncoderSpec:
    return EncoderSpec(
        name=f"croma-{size}",
        family="croma",
        modes=("s1", "s2", "both"),
        s1_bands=VV_VH,
        s2_bands=L2A,
        level="L2A",
        backscatter="sigma0",
        s1_scaling=TO_UNIT_S1,
        s2_scaling=Scaling.two_sigma(*SSL4EO_L2A, clip=True),
        size_px=120,
        any_size=True,
        patch_px=8,
        patch_sizes=(8,),
        width=width,
        parameters=parameters,
        license="MIT",
        source="https://github.com/antofuller/CROMA",
        builder="torchgeo_models:build_croma",
        url=f"{HUB}/{path}",
        file=path.rpartition("/")[2],
        sha256=_hash_of(path),
        needs=("torchgeo",),
        options={"width": width, "depth": depth},
    )


def _eight_bit(statistics: tuple[tuple[float, ...], tuple[float, ...]], steps: tuple[float, ...], text: str) -> Scaling:
    """A z-score of 8-bit values, told in the units before: 255 is where they end."""
    mean, std = statistics
    return Scaling(
        offset=tuple(m * step for m, step in zip(mean, steps, strict=True)),
        scale=tuple(s * step for s, step in zip(std, steps, strict=True)),
        high=tuple((255 - m) / s for m, s in zip(mean, std, strict=True)),
        text=text,
        amplitude=None if len(steps) > len(VV_VH) else GRD_AMPLITUDE,
    )


def _dofa(size: str, width: int, parameters: int, path: str) -> EncoderSpec:
    return EncoderSpec(
        name=f"dofa-{size}",
        family="dofa",
        modes=("s1", "s2"),
        s1_bands=VV_VH,
        s2_bands=DOFA_S2,
        level="L1C",
        backscatter="sigma0",
        s1_scaling=_eight_bit(DOFA_S1_BITS, (1.0, 1.0), "604 x 10^(x / 20), clipped at 255, z-score"),
        s2_scaling=_eight_bit(DOFA_S2_BITS, DOFA_STEPS, "8 bits (x / 13.95 or x / 32), clipped at 255, z-score"),
        size_px=224,
        any_size=True,
        patch_px=16,
        patch_sizes=(16,),
        width=width,
        parameters=parameters,
        license="see its model card",
        source="https://github.com/zhu-xlab/DOFA",
        builder="torchgeo_models:build_dofa",
        url=f"{HUB}/{path}",
        file=path.rpartition("/")[2],
        sha256=_hash_of(path),
        any_bands=True,
        needs=("torchgeo",),
        options={"model": f"dofa_{size}_patch16_224", "channels": DOFA_WAVES_UM},
    )


SPECS = (
    _ssl4eo("resnet18-s2-moco", "resnet18", 11_207_872, "torchgeo/resnet18_sentinel2_all_moco/resolve/5b8cddc9a14f3844350b7f40b85bcd32aed75918/resnet18_sentinel2_all_moco-59bfdff9.pth"),
    _ssl4eo("resnet50-s2-moco", "resnet50", 23_539_392, "torchgeo/resnet50_sentinel2_all_moco/resolve/da4f3c9dbe09272eb902f3b37f46635fa4726879/resnet50_sentinel2_all_moco-df8b932e.pth"),
    _ssl4eo("resnet50-s2-dino", "resnet50", 23_539_392, "torchgeo/resnet50_sentinel2_all_dino/resolve/d7f14bf5530d70ac69d763e58e77e44dbecfec7c/resnet50_sentinel2_all_dino-d6c330e9.pth"),
    _ssl4eo("resnet50-s1-moco", "resnet50", 23_504_896, "torchgeo/resnet50_sentinel1_all_moco/resolve/e79862c667853c10a709bdd77ea8ffbad0e0f1cf/resnet50_sentinel1_all_moco-906e4356.pth"),
    _ssl4eo("vit-small-s2-dino", "vit_small_patch16_224", 22_648_704, "torchgeo/vit_small_patch16_224_sentinel2_all_dino/resolve/5b41dd418a79de47ac9f5be3e035405a83818a62/vit_small_patch16_224_sentinel2_all_dino-36bcc127.pth"),
    _ssl4eo("vit-small-s2-moco", "vit_small_patch16_224", 22_648_704, "torchgeo/vit_small_patch16_224_sentinel2_all_moco/resolve/1cb683f6c14739634cdfaaceb076529adf898c74/vit_small_patch16_224_sentinel2_all_moco-67c9032d.pth"),
    _ssl4eo("vit-small-s2-mae", "vit_small_patch16_224", 22_648_704, "wangyi111/SSL4EO-S12/resolve/75c72195d35201dc1fb210818993518c25da566b/B13_vits16_mae_ep99_enc.pth"),
    _ssl4eo("vit-small-s1-mae", "vit_small_patch16_224", 21_567_360, "wangyi111/SSL4EO-S12/resolve/75c72195d35201dc1fb210818993518c25da566b/B2_vits16_mae_ep99_enc.pth"),
    _ssl4eo("vit-base-s2-mae", "vit_base_patch16_224", 87_764_736, "wangyi111/SSL4EO-S12/resolve/75c72195d35201dc1fb210818993518c25da566b/B13_vitb16_mae_ep99_enc.pth"),
    _ssl4eo("vit-base-s1-mae", "vit_base_patch16_224", 85_602_048, "wangyi111/SSL4EO-S12/resolve/75c72195d35201dc1fb210818993518c25da566b/B2_vitb16_mae_ep99_enc.pth"),
    _softcon("resnet50-s2", "resnet50", 23_539_392, "wangyi111/softcon/resolve/62ff465b2e7467dbfc70758ec1e9d08ab87fc46b/B13_rn50_softcon.pth"),
    _softcon("resnet50-s1", "resnet50", 23_504_896, "wangyi111/softcon/resolve/62ff465b2e7467dbfc70758ec1e9d08ab87fc46b/B2_rn50_softcon.pth"),
    _softcon("vit-small-s2", "vit_small_patch14_dinov2", 22_381_440, "wangyi111/softcon/resolve/bae909781911f8ec034b4b959992fae17b973c0c/B13_vits14_softcon_enc.pth"),
    _softcon("vit-small-s1", "vit_small_patch14_dinov2", 21_553_536, "wangyi111/softcon/resolve/bae909781911f8ec034b4b959992fae17b973c0c/B2_vits14_softcon_enc.pth"),
    _softcon("vit-base-s2", "vit_base_patch14_dinov2", 87_230_208, "wangyi111/softcon/resolve/bae909781911f8ec034b4b959992fae17b973c0c/B13_vitb14_softcon_enc.pth"),
    _softcon("vit-base-s1", "vit_base_patch14_dinov2", 85_574_400, "wangyi111/softcon/resolve/bae909781911f8ec034b4b959992fae17b973c0c/B2_vitb14_softcon_enc.pth"),
    _decur("s2", TO_UNIT_S2, 23_539_392, "torchgeo/decur/resolve/eba7ae5945d482a4319be046d34b552db5dd9950/rn50_ssl4eo-s12_ms_decur_ep100-fc6b09ff.pth"),
    _decur("s1", Scaling.two_sigma(*ROUNDED_S1, clip=True), 23_504_896, "torchgeo/decur/resolve/9328eeb90c686a88b30f8526ed757b4bc0f12027/rn50_ssl4eo-s12_sar_decur_ep100-f0e69ba2.pth"),
    _croma("base", 768, 12, 194_365_440, "torchgeo/croma/resolve/387883f08af79d777167519c57cd826eda89a16f/CROMA_base-0238d814.pt"),
    _croma("large", 1024, 24, 672_557_056, "torchgeo/croma/resolve/92cb1a0f4e34c6c01558baf070197c01255382f6/CROMA_large-921e69ad.pt"),
    _dofa("base", 768, 111_312_128, "torchgeo/dofa/resolve/b8db318b64a90b9e085ec04ba8851233c5893666/dofa_base_patch16_224-a0275954.pth"),
    _dofa("large", 1024, 337_105_408, "torchgeo/dofa/resolve/b8db318b64a90b9e085ec04ba8851233c5893666/dofa_large_patch16_224-0ff904d3.pth"),
    EncoderSpec(
        name="copernicus-fm",
        family="copernicus-fm",
        modes=("s1", "s2"),
        s1_bands=VV_VH,
        s2_bands=L1C,
        level="L1C",
        backscatter="sigma0",
        s1_scaling=Scaling.z_score(*ROUNDED_S1),
        s2_scaling=Scaling.z_score(*ROUNDED_L1C),
        size_px=224,
        any_size=True,
        patch_px=16,
        patch_sizes=(4, 8, 16),
        width=768,
        parameters=139_452_544,
        license="CC-BY-4.0",
        source="https://github.com/zhu-xlab/Copernicus-FM",
        builder="torchgeo_models:build_copernicus_fm",
        url=f"{HUB}/torchgeo/copernicus-fm/resolve/f395812cc990ba25a451dbb9c9e6d95c8482947e/CopernicusFM_ViT_base_varlang-085350e4.pth",
        file="CopernicusFM_ViT_base_varlang-085350e4.pth",
        sha256="085350e4",
        any_bands=True,
        needs=("torchgeo",),
        options={"channels": COPERNICUS_WAVES_NM},
    ),
    EncoderSpec(
        name="panopticon",
        family="panopticon",
        modes=("s1", "s2", "both"),
        s1_bands=VV_VH,
        s2_bands=L1C,
        level="L1C",
        backscatter="sigma0",
        s1_scaling=Scaling.z_score(*ROUNDED_S1),
        s2_scaling=Scaling.z_score(*FMOW_L1C),
        size_px=224,
        any_size=True,
        patch_px=14,
        patch_sizes=(14,),
        width=768,
        parameters=98_120_448,
        license="Apache-2.0",
        source="https://github.com/Panopticon-FM/panopticon",
        builder="torchgeo_models:build_panopticon",
        url=f"{HUB}/lewaldm/panopticon/resolve/c8c2bb9555819e8b2bcedf5b3b00e3bf531554e7/panopticon_vitb14_teacher.pth",
        file="panopticon_vitb14_teacher.pth",
        any_bands=True,
        needs=("torchgeo",),
        options={"channels": PANOPTICON_CHANNELS},
    ),
)  # fmt: skip
