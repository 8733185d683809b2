"""The parts of a card: a frame, small pictures within the page, dots over time, bars with intervals. Plain HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from .panels import Panel
from .shares import ClassShare

if TYPE_CHECKING:
    import pandas as pd

PICTURE_PX, SMALL_PX = 144, 88
LISTED = 6
# JupyterLab's own colours, with fallbacks for pages that have none, such as Voila's.
INK, FAINT, LINE = (
    "var(--jp-ui-font-color1,#212121)",
    "var(--jp-ui-font-color2,#5c6570)",
    "var(--jp-border-color2,#d9d9d9)",
)
STYLE = f"border:1px solid {LINE};border-radius:4px;color:{INK};font-size:13px;line-height:1.45;padding:8px 10px"
Facts = list[tuple[str, str]]
Picture = tuple[str, str]
"""HTML, and what it shows."""


def framed(
    title: str,
    pictures: Iterable[Picture],
    facts: Facts,
    rest: str | None,
    rest_title: str,
    key: str = "",
    *,
    warning: str = "",
    folded: bool = True,
) -> str:
    """A card: heading, pictures with what they show, facts, and below what the object says of itself."""
    warned = f"<div style='border-left:3px solid #b35c00;padding-left:8px'>{escape(warning)}</div>" if warning else ""
    # Words below a picture do not widen it.
    small = f"color:{FAINT};font-size:11px;line-height:1.3;min-width:100%;width:0"
    shown = "".join(
        f"<figure style='margin:0'>{drawn}<figcaption style='{small}'>{escape(words)}</figcaption></figure>"
        for drawn, words in pictures
    )
    listed = "".join(
        f"<dt style='color:{FAINT};grid-column:1'>{escape(name)}</dt>"
        f"<dd style='grid-column:2;margin:0;overflow-wrap:anywhere'>{escape(value)}</dd>"
        for name, value in facts
        if value
    )
    about = (
        "<dl style='column-gap:12px;display:grid;flex:1 1 240px;font-size:12px;"
        f"grid-template-columns:max-content 1fr;margin:0;min-width:0'>{listed}</dl>"
    )
    below = ""
    if rest:
        way = "" if folded else " open"
        below = (
            f"<details{way} style='margin-top:6px'><summary style='color:{FAINT};cursor:pointer;font-size:12px'>"
            f"{escape(rest_title)}</summary><div style='max-height:420px;overflow:auto'>{rest}</div></details>"
        )
    row = f"<div style='align-items:flex-start;display:flex;flex-flow:row wrap;gap:10px 14px'>{shown}{about}</div>"
    head = f"<div style='font-weight:600;margin-bottom:6px'>{escape(title)}</div>"
    return f"<div class='ds-card' style='{STYLE}'>{head}{warned}{row}{key}{below}</div>"


def picture(drawn: Panel, side_px: int) -> tuple[str, str]:
    """A panel as an image of the page, and what it shows."""
    image = np.dstack([drawn.image, np.where(drawn.known, 255, 0).astype("uint8")])
    return image_tag(image, drawn.heading, side_px), drawn.heading


def image_tag(image: np.ndarray, words: str, side_px: int) -> str:
    """Pixels within the page itself, at twice the size they have on it, for screens with fine dots."""
    from PIL import Image

    small = Image.fromarray(image, "RGBA")
    few = len(np.unique(image.reshape(-1, 4)[::7], axis=0)) < 64
    small.thumbnail((2 * side_px, 2 * side_px), Image.Resampling.NEAREST if few else Image.Resampling.BILINEAR)
    held = io.BytesIO()
    small.save(held, "WEBP", quality=80, lossless=few, method=2)
    data = base64.b64encode(held.getvalue()).decode()
    width = round(side_px * min(1, small.width / small.height))
    return (
        f"<img alt='{escape(words, quote=True)}' width='{width}' src='data:image/webp;base64,{data}' "
        "style='border-radius:2px;display:block'>"
    )


def legend(shares: Sequence[ClassShare]) -> str:
    """The largest classes in their colours."""
    rows = "".join(
        f"<span style='white-space:nowrap'><span style='background:{escape(each.color)};border:1px solid {FAINT};"
        f"display:inline-block;height:9px;margin-right:4px;width:14px'></span>{escape(each.name)}"
        f" {100 * each.share:.0f} %</span>"
        for each in shares[:LISTED]
    )
    more = f"<span>and {len(shares) - LISTED} more</span>" if len(shares) > LISTED else ""
    return f"<div style='display:flex;flex-flow:row wrap;font-size:12px;gap:2px 12px;margin-top:6px'>{rows}{more}</div>"


def scatter(marks: list[tuple[np.datetime64, float, str]], words: str) -> str:
    """Dots over time: the clearer the sky, the higher."""
    width, height, left, foot = 290, 92, 44, 16
    times = np.array([at.astype("datetime64[s]").astype("int64") for at, _, _ in marks], "float64")
    low, high = times.min(), max(times.max(), times.min() + 86_400)
    dots = "".join(
        f"<circle cx='{left + 6 + (at - low) / (high - low) * (width - left - 12):.1f}' "
        f"cy='{6 + min(100.0, 0.0 if np.isnan(cloud) else cloud) / 100 * (height - foot - 12):.1f}' r='3' "
        f"fill='{colour}' fill-opacity='0.8'/>"
        for at, (_, cloud, colour) in zip(times, marks, strict=True)
    )
    ends = [str(np.datetime64(int(value), "s").astype("datetime64[D]")) for value in (low, high)]
    style = f"fill:{FAINT};font-size:10px"
    return (
        f"<svg role='img' aria-label='{escape(words, quote=True)}' width='{width}' height='{height}'>"
        f"<path d='M{left},3V{height - foot}H{width}' fill='none' style='stroke:{LINE}'/>"
        f"<text x='{left - 4}' y='12' text-anchor='end' style='{style}'>clear</text>"
        f"<text x='{left - 4}' y='{height - foot}' text-anchor='end' style='{style}'>cloudy</text>"
        f"<text x='{left}' y='{height - 3}' style='{style}'>{ends[0]}</text>"
        f"<text x='{width}' y='{height - 3}' text-anchor='end' style='{style}'>{ends[1]}</text>{dots}</svg>"
    )


def bars(scores: pd.DataFrame) -> str:
    """A score of the model and of each control, with their intervals."""
    left, width, row = 162, 126, 17
    ends = scores[["mean", "low", "high"]].to_numpy("float64")
    top = float(np.nanmax(np.append(ends[np.isfinite(ends)], 1e-9)))
    parts = []
    for at, (name, each) in enumerate(scores.iterrows()):
        y, mean = 3 + at * row, float(each["mean"])
        colour = "#0072b2" if at == 0 else "#9e9e9e"
        long = max(0.0, mean) / top * width if np.isfinite(mean) else 0.0
        parts.append(f"<rect x='{left}' y='{y + 3}' width='{long:.1f}' height='{row - 7}' fill='{colour}'/>")
        if np.isfinite([each["low"], each["high"]]).all():
            x1, x2 = (left + max(0.0, float(each[end])) / top * width for end in ("low", "high"))
            parts.append(f"<path d='M{x1:.1f},{y + row / 2 - 1}H{x2:.1f}' style='stroke:{INK};stroke-width:1.5'/>")
        said = f"{mean:.3f}" if abs(mean) < 10 else f"{mean:.3g}"
        parts.append(
            f"<text x='{left - 5}' y='{y + 11}' text-anchor='end' style='fill:{INK};font-size:11px'>"
            f"{escape(str(name))} {said}</text>"
        )
    height = 6 + row * len(scores)
    words = "The score beside its controls"
    return f"<svg role='img' aria-label='{words}' width='290' height='{height}'>{''.join(parts)}</svg>"


def known_days(times: np.ndarray) -> np.ndarray:
    """Times that are known.

    >>> known_days(np.array(["2018-06-01", "NaT"], "datetime64[ns]")).size
    1
    """
    times = np.atleast_1d(times)
    return np.asarray(times[~np.isnat(times)])
