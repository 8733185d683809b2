"""Colours of our own that mean different things are told apart by everybody, also by those who see fewer colours.

Dichromacy after Machado, Oliveira and Fernandes (2009), severity 1, on linear light; distances in CIELAB (1976). The
official colours of classes are what they are: there the legend and the line under the pointer name each class.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from deepsentinel.figures import masks, overlays
from deepsentinel.labels.making import PALETTE
from deepsentinel.legend_class import distinct_colors
from deepsentinel.widgets import area, embeddings, labelling

WIDGETS = Path(area.__file__).parent
SIGHT = {
    "all colours": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
# Around 2 is what an eye can just tell side by side; parts of a map lie apart, and are small.
APART = 14.0


def linear(colors: Sequence[str]) -> np.ndarray:
    """sRGB as light."""
    share = np.array([[int(color[at : at + 2], 16) for at in (1, 3, 5)] for color in colors]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def cielab(light: np.ndarray) -> np.ndarray:
    """Light as CIELAB under D65."""
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    share = np.clip(light, 0, 1) @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    bent = np.where(share > (6 / 29) ** 3, np.cbrt(share), share / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * bent[:, 1] - 16, 500 * (bent[:, 0] - bent[:, 1]), 200 * (bent[:, 1] - bent[:, 2])], axis=-1)


def nearest(colors: Sequence[str], sight: str) -> tuple[float, str]:
    """The distance of the two colours that are most alike to somebody, and which these are."""
    seen = cielab(linear(colors) @ np.array(SIGHT[sight]).T)
    pairs = itertools.combinations(range(len(colors)), 2)
    return min((float(np.linalg.norm(seen[a] - seen[b])), f"{colors[a]} and {colors[b]}") for a, b in pairs)


def css(name: str, *selectors: str) -> list[str]:
    """The colours that a style sheet gives to these."""
    text = (WIDGETS / "css" / name).read_text()
    found = [re.search(rf"{re.escape(each)}(?:,[^{{]*)? {{[^}}]*?(#[0-9a-f]{{6}})", text) for each in selectors]
    assert all(found), f"{name} gives no colour to one of {selectors}"
    return [each.group(1) for each in found if each]


def hexed(*colors: tuple[int, int, int]) -> list[str]:
    return ["#{:02x}{:02x}{:02x}".format(*color) for color in colors]


def inks(name: str) -> list[tuple[str, str]]:
    """Blue and vermilion of a style sheet, on light and on dark ground."""
    text = (WIDGETS / "css" / name).read_text()
    return list(re.findall(r"--ds-blue: (#[0-9a-f]{6});\s*--ds-vermilion: (#[0-9a-f]{6});", text))


def ways(ink: tuple[str, str]) -> list[str]:
    """The colours of orbits in the chart of a pixel's year."""
    text = (WIDGETS / "js" / "charts.js").read_text()
    found = re.search(r"const WAYS = \[(.*?)\];", text)
    assert found
    names = {"var(--ds-blue)": ink[0], "var(--ds-vermilion)": ink[1]}
    return [names.get(each, each) for each in re.findall(r'"([^"]+)"', found.group(1))]


(LIGHT, DARK), RUN = inks("inspect.css"), inks("curves.css")
GROUPS: dict[str, Sequence[str]] = {
    "groups of an embedding, and classes that nobody gave a colour": distinct_colors(12),
    "classes of the labeller": PALETTE,
    "clouds": hexed(*overlays.CLOUD_COLOURS.values()),
    "conflicts": hexed(masks.MIXED, masks.ERROR, masks.NEUTRAL),
    "Sentinel-2 on the strip of dates": css("timeline.css", ".ds-clear", ".ds-cloud", ".ds-unknown"),
    "Sentinel-1 on the strip of dates": css("timeline.css", ".ds-up", ".ds-down"),
    "footprints": list(area.FOOTPRINTS.values()),
    "examples, matches, and the chosen match": [
        str(embeddings.PLUS["fillColor"]),
        str(embeddings.MINUS["fillColor"]),
        str(embeddings.SQUARES["color"]),
    ],
    "a place to label and what is around it": [str(labelling.RING["fillColor"]), str(labelling.RING["color"])],
    "curves of a run on light ground": RUN[0],
    "curves of a run on dark ground": RUN[1],
    "spectra and greenness on light ground": [*LIGHT, *css("inspect.css", ".ds-charts .ds-green")],
    "spectra and greenness on dark ground": [*DARK, *css("inspect.css", ".ds-charts .ds-green")],
    # As many orbits see one place at most; each has a mark of its own shape, too.
    "orbits on light ground": ways(LIGHT)[:4],
    "orbits on dark ground": ways(DARK)[:4],
}
RAMPS = ("viridis", "cividis", "magma")


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("group", GROUPS)
def test_what_means_different_things_looks_different(group: str, sight: str) -> None:
    distance, which = nearest(GROUPS[group], sight)
    assert distance >= APART, f"{which} are {distance:.1f} apart to eyes with {sight}"


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("name", RAMPS)
def test_scales_grow_lighter_all_the_way_for_everybody(name: str, sight: str) -> None:
    from matplotlib import colormaps

    steps = [tuple(int(part) for part in row[:3]) for row in colormaps[name](np.linspace(0, 1, 64), bytes=True)]
    lightness = cielab(linear(hexed(*steps)) @ np.array(SIGHT[sight]).T)[:, 0]
    assert (np.diff(lightness) > 0).all()
    assert lightness[-1] - lightness[0] > 60


def test_the_measure_knows_colours_that_many_confuse() -> None:
    """Red and green of equal lightness are one colour without red or green cones, and far apart otherwise."""
    traffic = ["#c83c3c", "#6e7a00"]
    assert nearest(traffic, "all colours")[0] > 60
    assert nearest(traffic, "no green")[0] < 0.4 * nearest(traffic, "all colours")[0]
    # Known values: pure sRGB red in CIELAB, and grey is grey to everybody.
    assert cielab(linear(["#ff0000"]))[0] == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    for sight in SIGHT:
        grey = cielab(linear(["#808080"]) @ np.array(SIGHT[sight]).T)[0]
        assert grey == pytest.approx([53.59, 0, 0], abs=0.05)
