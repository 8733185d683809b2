"""Where a model is wrong: a map of its scores sample by sample, and the worst samples beside what is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError
from deepsentinel.learn.mistakes import ACCURACY, ERROR, F1, worst_places
from deepsentinel.learn.report import SENSORS
from deepsentinel.learn.report_words import number

from . import slides
from .corpus_map import sample_map
from .earth import forth
from .slides import FAINT, FOOT_IN, GREY, HEAD_IN, INK, MARGIN_IN, PAGE_WIDTH_IN
from .views import view_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from deepsentinel.learn.report import Report

# From right (light) to wrong (dark), without the ends that are hard to see on white and to tell from black.
SCALE, LIGHT, DARK = "inferno_r", 0.12, 0.88
MAP_IN, MAP_HEIGHT_IN = 8.4, 5.6
RIGHT_IN, ROW_IN, BINS = 9.35, 0.24, 10
LISTED = 6
# Numbers of samples nearer to each other than this would hide one another.
APART_IN = 0.28


def places_of_learning(report: Report, *, title: str | None = None) -> Figure:
    """All samples of the test where they lie, the darker the more is wrong; how many there are of which score.

    >>> import geopandas as gpd, pandas as pd
    >>> from deepsentinel.learn.report import Report
    >>> row = {"what": "model", "sensors": "both", "cloud": "all", "metric": "mean_iou", "class": "", "n": 900,
    ...        "low": 0.4, "high": 0.6, "seed": 0, "value": 0.5}
    >>> where = gpd.points_from_xy([3.0, 3.1, 3.2], [50.0, 50.1, 50.0], crs="EPSG:4326")
    >>> places = gpd.GeoDataFrame({"sample": [0, 1, 2], "score": [0.9, 0.5, 0.1], "n": [64] * 3}, geometry=where)
    >>> places.attrs = {"score": "accuracy", "words": "share that is right", "sensors": "both", "size_m": 640}
    >>> places_of_learning(Report("segmentation", (), pd.DataFrame([row]), places=places)).texts[0].get_text()
    'Half of the 3 samples are at least 50 % right; the worst is 10 %'
    """
    if report.places is None or not (known := report.places["score"].notna()).any():
        raise InputError("This report does not know its samples one by one; ds.evaluate makes one that does.")
    told, scores = report.places.attrs, report.places["score"].to_numpy("float64")
    larger = told["score"] == ERROR
    high = max(float(np.nanquantile(scores, 0.98)), 1e-9) if larger else 1.0
    colours = tones(scores / high if larger else 1 - scores)
    worst = worst_places(report.places, LISTED)
    shown = "both sensors" if told["sensors"] == "both" else SENSORS[told["sensors"]]
    fig = slides.page(
        HEAD_IN + MAP_HEIGHT_IN + 0.15 + FOOT_IN,
        title or _headline(scores[known], told["score"]),
        slides.fitting([f"each sample by the {told['words']}", f"seen with {shown}"], 12.3, 10),
        footer="numbers: the worst samples, each of other ground" if len(worst) else "",
        credit="deepsentinel",
    )
    # The worst are drawn last and lie on top; what is not known lies below.
    wrong = np.nan_to_num(scores if larger else -scores, nan=-np.inf)
    order = np.argsort(wrong, kind="stable")
    where = report.places.geometry
    lon, lat = where.x.to_numpy(), where.y.to_numpy()
    size_m = float(told["size_m"])
    axes = sample_map(
        fig, lon[order], lat[order], MARGIN_IN, HEAD_IN, MAP_IN, MAP_HEIGHT_IN, size_m=size_m, colours=colours[order]
    )  # fmt: skip
    _numbered(axes, worst, lon, lat, size_m)
    foot_in = _histogram(fig, scores[known], high, told["score"])
    if len(lost := scores[~known.to_numpy()]):
        _label(
            fig,
            RIGHT_IN,
            foot_in,
            f"grey: {slides.counted(len(lost), 'sample')} with nothing to judge",
            size=8.5,
            color=FAINT,
        )
    if len(worst):
        _listed(fig, worst, foot_in + 0.35, told["score"])
    return fig


def tones(wrong: np.ndarray) -> np.ndarray:
    """(n, 3) colours of what is right (0) to wrong (1); grey where nobody knows.

    >>> tones(np.array([0.0, 1.0])).sum(axis=1).round(1).tolist()
    [2.0, 0.4]
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    part = np.clip(np.nan_to_num(wrong), 0, 1)
    found = colormaps[SCALE](LIGHT + (DARK - LIGHT) * part)[:, :3]
    return np.where(np.isnan(wrong)[:, None], to_rgb(GREY), found)


def _headline(scores: np.ndarray, kind: str) -> str:
    count = slides.counted(len(scores), "sample")
    if kind == ERROR:
        middle, most = number(float(np.median(scores))), number(float(scores.max()))
        return f"Half of the {count} are off by at most {middle}; the worst by {most}"
    if kind == F1:
        return f"Half of the {count} have an F1 of {np.median(scores):.2f} or more; the worst {scores.min():.2f}"
    middle, least = (f"{100 * value:.0f} %" for value in (np.median(scores), scores.min()))
    return f"Half of the {count} are at least {middle} right; the worst is {least}"


def told_score(score: float, kind: str) -> str:
    """A score of a sample as one says it.

    >>> told_score(0.125, "accuracy"), told_score(3.25, "error"), told_score(0.5, "f1")
    ('12 % right', 'off by 3.250', 'F1 0.50')
    """
    if kind == F1:
        return f"F1 {score:.2f}"
    return f"off by {number(score)}" if kind == ERROR else f"{100 * score:.0f} % right"


def _numbered(axes: Axes, worst: Any, lon: np.ndarray, lat: np.ndarray, size_m: float) -> None:
    """1, 2, 3 at the worst samples, as far as there is room."""
    from matplotlib.patheffects import withStroke

    view = view_of(lon, lat, size_m)
    x, y = forth(view.crs, worst.geometry.x.to_numpy(), worst.geometry.y.to_numpy())
    box = axes.get_position()
    wide_in = box.width * axes.get_figure(root=True).get_size_inches()[0]  # type: ignore[union-attr]
    per_in = view.width_m / wide_in
    drawn: list[tuple[float, float]] = []
    for at, place in enumerate(zip(x.tolist(), y.tolist(), strict=True), start=1):
        if any(np.hypot(place[0] - a, place[1] - b) < APART_IN * per_in for a, b in drawn):
            continue
        drawn.append(place)
        axes.text(
            *place, str(at), size=9, weight="bold", color=INK, ha="center", va="center", zorder=6,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip


def _histogram(fig: Figure, scores: np.ndarray, high: float, kind: str) -> float:
    """How many samples have which score; its colours are those of the map. Returns where it ends."""
    larger = kind == ERROR
    edges = np.linspace(0, high, BINS + 1)
    counts, _ = np.histogram(np.clip(scores, 0, high), edges)
    middle = (edges[:-1] + edges[1:]) / 2
    heading = f"how many samples are how {'wrong' if larger else 'right'}"
    _label(fig, RIGHT_IN, HEAD_IN + 0.1, heading, size=10.5, weight="bold")
    left_in, top_in = RIGHT_IN + 1.15, HEAD_IN + 0.32
    wide_in = PAGE_WIDTH_IN - MARGIN_IN - left_in - 0.55
    axes = slides.axes_in(fig, left_in, top_in, wide_in, ROW_IN * BINS)
    axes.barh(np.arange(BINS), counts, 0.82, color=tones(middle / high if larger else 1 - middle))
    axes.set_xlim(0, counts.max() or 1)
    axes.set_ylim(-0.5, BINS - 0.5) if not larger else axes.set_ylim(BINS - 0.5, -0.5)
    axes.set_axis_off()
    for at in range(BINS):
        row = at if larger else BINS - 1 - at
        y_in = top_in + ROW_IN * (row + 0.5)
        digits = number if larger else "{:.1f}".format if kind == F1 else lambda edge: f"{100 * edge:.0f}"
        told = " to ".join(digits(edge) for edge in edges[at : at + 2]) + (" %" if kind == ACCURACY else "")
        if larger and at == BINS - 1:
            told = f"over {number(edges[at])}"
        _label(fig, left_in - 0.1, y_in, told, ha="right", size=9)
        if counts[at]:
            bar_in = wide_in * counts[at] / counts.max()
            _label(fig, left_in + bar_in + 0.08, y_in, f"{counts[at]:,}", size=9, color=FAINT)
    return top_in + ROW_IN * BINS + 0.15


def _listed(fig: Figure, worst: Any, top_in: float, kind: str) -> None:
    _label(fig, RIGHT_IN, top_in, "the worst", size=10.5, weight="bold")
    rows = zip(worst["sample"], worst["score"], worst.geometry.x, worst.geometry.y, strict=True)
    for at, (sample, score, lon, lat) in enumerate(rows, start=1):
        y_in = top_in + 0.05 + ROW_IN * at
        _label(fig, RIGHT_IN + 0.15, y_in, str(at), ha="right", weight="bold")
        _label(fig, RIGHT_IN + 0.3, y_in, f"sample {sample}")
        _label(fig, RIGHT_IN + 2.25, y_in, told_score(float(score), kind), ha="right")
        _label(fig, RIGHT_IN + 2.4, y_in, degrees(float(lon), float(lat)), color=FAINT, size=8)


def degrees(lon: float, lat: float) -> str:
    """A place as one says it.

    >>> degrees(-0.062, 49.215)
    '49.215° N 0.062° W'
    """
    return f"{abs(lat):.3f}° {'N' if lat >= 0 else 'S'} {abs(lon):.3f}° {'E' if lon >= 0 else 'W'}"


def _label(fig: Figure, x_in: float, y_in: float, text: str, **options: Any) -> None:
    width, height = fig.get_size_inches()
    fig.text(x_in / width, 1 - y_in / height, text, **{"color": INK, "va": "center", "size": 9, **options})
