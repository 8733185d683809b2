"""Encoders whose authors ship a package of their own, which is not among what this one installs."""

from __future__ import annotations

from .spec import EncoderSpec, Scaling
from .specs_torchgeo import HUB, L2A, VV_VH

OLMO_S2 = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09")
OLMO_S1 = ((-11.648990747328444, -17.745436133270044), (10.840350299936597, 10.216274681392647))
# As in its computed.json, which holds each twelve digits longer than its data are known.
OLMO_S2_STATISTICS = (
    (
        1188.9412572078477, 1407.7739105458452, 1513.0573882432757, 2755.481305028308, 1890.9893042634167,
        2483.7812315422448, 2722.728248756412, 2885.570263047681, 2562.852607796968, 1914.1383249044113,
        1115.8494388252218, 3269.812554170875,
    ),
    (
        1859.1923971769581, 1727.7387413631088, 1740.7757298757895, 1612.2565699990187, 1754.7320388511766,
        1622.1172720635755, 1621.8226170190276, 1611.3587521042082, 1441.5471830655151, 1328.8914382756407,
        1955.6991794280914, 2651.088425085525,
    ),
)  # fmt: skip
TERRAMIND_S1 = ((-12.599, -20.293), (5.195, 5.890))
TERRAMIND_S2 = (
    (
        1390.458, 1503.317, 1718.197, 1853.91, 2199.1, 2779.975, 2987.011, 3083.234, 3132.22, 3162.988, 2424.884,
        1857.648,
    ),
    (
        2106.761, 2141.107, 2038.973, 2134.138, 2085.321, 1889.926, 1820.257, 1871.918, 1753.829, 1797.379, 1434.261,
        1334.311,
    ),
)  # fmt: skip


def _olmoearth(version: str, size: str, width: int, parameters: int) -> EncoderSpec:
    repository = f"allenai/OlmoEarth-{version.replace('.', '_')}-{size.capitalize()}"
    return EncoderSpec(
        name=f"olmoearth-{version}-{size}",
        family="olmoearth",
        modes=("s1", "s2", "both"),
        s1_bands=VV_VH,
        s2_bands=OLMO_S2,
        level="L2A",
        backscatter="gamma0_rtc",
        s1_scaling=Scaling.two_sigma(*OLMO_S1),
        s2_scaling=Scaling.two_sigma(*OLMO_S2_STATISTICS),
        size_px=128,
        any_size=True,
        patch_px=8,
        patch_sizes=(1, 2, 3, 4, 5, 6, 7, 8),
        width=width,
        parameters=parameters,
        license="OlmoEarth Artifact License (bars some uses; passes downstream)",
        source="https://github.com/allenai/olmoearth_pretrain",
        builder="extras:build_olmoearth",
        url=f"{HUB}/{repository}/resolve/main/weights.pth",
        file=f"olmoearth-{version}-{size}.pth",
        can_mask=True,
        square_only=version == "v1",
        needs=("olmoearth-pretrain-minimal",),
        options={"size": size, "version": version},
    )


def _terramind(size: str, width: int, parameters: int) -> EncoderSpec:
    return EncoderSpec(
        name=f"terramind-{size}",
        family="terramind",
        modes=("s1", "s2", "both"),
        s1_bands=VV_VH,
        s2_bands=L2A,
        level="L2A",
        backscatter="sigma0",
        s1_scaling=Scaling.z_score(*TERRAMIND_S1),
        s2_scaling=Scaling.z_score(*TERRAMIND_S2),
        size_px=224,
        any_size=True,
        patch_px=16,
        patch_sizes=(16,),
        width=width,
        parameters=parameters,
        license="Apache-2.0",
        source="https://github.com/IBM/terramind",
        builder="extras:build_terramind",
        url=f"{HUB}/ibm-esa-geospatial/TerraMind-1.0-{size}/resolve/main/TerraMind_v1_{size}.pt",
        file=f"TerraMind_v1_{size}.pt",
        needs=("terratorch",),
        options={"model": f"terramind_v1_{size}"},
    )


SPECS = (
    _olmoearth("v1", "nano", 128, 1_361_024),
    _olmoearth("v1", "tiny", 192, 6_202_560),
    _olmoearth("v1", "base", 768, 88_953_600),
    _olmoearth("v1.2", "nano", 128, 1_698_096),
    _olmoearth("v1.2", "tiny", 192, 12_464_752),
    _olmoearth("v1.2", "small", 384, 35_615_200),
    _olmoearth("v1.2", "base", 768, 113_987_776),
    _terramind("tiny", 192, 6_022_464),
    _terramind("small", 384, 22_661_760),
    _terramind("base", 768, 87_707_904),
    _terramind("large", 1024, 305_662_976),
)
