"""Samples on a map: of the world where they are all over it, otherwise of the ground around them, with a globe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import slides
from .earth import forth, globe, sphere
from .slides import FAINT, VERMILION
from .views import View, draw_ground, view_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# More than these are not seen, and slow the drawing down.
DRAWN = 100_000
GLOBE_IN, GLOBE_LEAST_IN = 1.7, 1.1


def sample_map(
    fig: Figure, lon: np.ndarray, lat: np.ndarray, left_in: float, top_in: float, width_in: float, height_in: float, *,
    size_m: float = 0.0, colours: np.ndarray | None = None,
) -> Axes:  # fmt: skip
    """Samples of `size_m` on a map as large as its room on the page lets it, with a globe where there is room left.

    >>> fig = slides.page(6, "")
    >>> axes = sample_map(fig, np.array([3.0, 3.1]), np.array([50.0, 50.0]), 1, 1, 8, 4)
    >>> [text.get_text() for text in axes.texts]
    ['2 km', 'N']
    """
    view = view_of(lon, lat, size_m)
    wide = min(width_in, height_in * view.aspect)
    tall = wide / view.aspect
    spare = width_in - wide
    at_in = left_in + (spare / 2 if view.world or spare < GLOBE_LEAST_IN + 0.2 else 0)
    axes = slides.axes_in(fig, at_in, top_in + (height_in - tall) / 2, wide, tall)
    axes.set_xlim(view.sides[0], view.sides[2])
    axes.set_ylim(view.sides[1], view.sides[3])
    if view.world:
        axes.set_axis_off()
        sphere(axes, view.crs)
        draw_ground(axes, view)
    else:
        _local(axes, view)
        if spare >= GLOBE_LEAST_IN + 0.2:
            side = min(GLOBE_IN, spare - 0.2)
            place = at_in + wide + 0.2, top_in + (height_in + tall) / 2 - side
            globe(slides.axes_in(fig, *place, side, side), view.centre, view.reach_deg)
    _squares(axes, view, lon, lat, size_m / view.width_m * wide, colours)
    return axes


def _local(axes: Axes, view: View) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor("#f6f7f8")
    for spine in axes.spines.values():
        spine.set_color(FAINT)
        spine.set_linewidth(0.6)
    draw_ground(axes, view)
    slides.scale_bar(axes, view.width_m, on_picture=False)
    slides.north_arrow(axes)


def _squares(
    axes: Axes, view: View, lon: np.ndarray, lat: np.ndarray, size_in: float, colours: np.ndarray | None
) -> None:
    """Each sample as large as it is, or as a dot where it would not be seen."""
    from matplotlib.colors import to_rgb

    x, y = forth(view.crs, lon, lat)
    shown = np.tile(to_rgb(VERMILION), (len(x), 1)) if colours is None else colours
    if len(x) > DRAWN:
        drawn = np.sort(np.random.default_rng(0).permutation(len(x))[:DRAWN])
        x, y, shown = x[drawn], y[drawn], shown[drawn]
    dot = float(np.clip(30_000 / len(x), 0.8, 20))
    real = (72 * size_in) ** 2
    if real > dot:
        axes.scatter(
            x,
            y,
            s=real,
            marker="s",
            c=[(*colour, 0.35) for colour in shown],
            edgecolors=[tuple(one) for one in shown],
            lw=0.9,
            zorder=3,
        )
    else:
        edge = 0.3 if dot > 6 else 0
        axes.scatter(x, y, s=dot, c=shown, zorder=3, edgecolors="white", lw=edge, rasterized=len(x) > 5000)
