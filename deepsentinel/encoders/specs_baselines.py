"""What a pretrained encoder has to beat: image statistics and random convolutions. A third is "<name>-random"."""

from __future__ import annotations

from .spec import EncoderSpec, Scaling
from .specs_own import GALILEO_MEAN, GALILEO_S1, GALILEO_S2, GALILEO_STD

CHANNELS = len(GALILEO_S1) + len(GALILEO_S2)
# Mean, standard deviation, and the 10th, 50th and 90th percentile.
PERCENTILES = (0.1, 0.5, 0.9)
STATISTICS = 2 + len(PERCENTILES)
FILTERS = 256


def _baseline(name: str, width: int, source: str, builder: str) -> EncoderSpec:
    return EncoderSpec(
        name=name,
        family="baseline",
        modes=("s1", "s2", "both"),
        s1_bands=GALILEO_S1,
        s2_bands=GALILEO_S2,
        level="any",
        backscatter="any",
        s1_scaling=Scaling.z_score(GALILEO_MEAN[:2], GALILEO_STD[:2]),
        s2_scaling=Scaling.z_score(GALILEO_MEAN[2:], GALILEO_STD[2:]),
        size_px=None,
        any_size=True,
        patch_px=8,
        patch_sizes=(2, 4, 8, 16),
        width=width,
        parameters=0,
        license="",
        source=source,
        builder=f"baselines:{builder}",
        can_mask=True,
        any_bands=True,
    )


SPECS = (
    _baseline("image-statistics", STATISTICS * CHANNELS, "https://arxiv.org/abs/2306.03831", "build_statistics"),
    _baseline("random-convolutions", 2 * FILTERS, "https://doi.org/10.1038/s41467-021-24638-z", "build_convolutions"),
)
