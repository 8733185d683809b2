"""Live drawings of one pixel, of a legend and of a stretch: small, in SVG and plain HTML, with keys and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

HERE = Path(__file__).parent
CSS = HERE / "css" / "inspect.css"


class PixelCharts(anywidget.AnyWidget):
    """The spectrum of one pixel, and below it its year; a click or the arrow keys pick a date.

    >>> charts = PixelCharts(text="49.24° N, 0.01° W")
    >>> charts.picked, charts.year
    ('', {'s2': [], 's1': []})
    """

    _esm = HERE / "js" / "charts.js"
    _css = CSS
    text = traitlets.Unicode().tag(sync=True)
    spectra = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Lines to draw, each with its `text` and `points` (band, nm, reflectance), as `spectrum_of` gives them."""
    year: traitlets.Dict[str, Any] = traitlets.Dict(default_value={"s2": [], "s1": []}).tag(sync=True)
    """What `year_of` gives."""
    picked = traitlets.Unicode().tag(sync=True)
    """The date of Sentinel-2 that was chosen last, as in `year`."""


class Legend(anywidget.AnyWidget):
    """Classes with their official colours, names and shares; those whose box is not ticked are hidden.

    >>> Legend(rows=[{"code": 2, "name": "rye", "color": "#ffff4c", "share": "12 %"}]).hidden
    []
    """

    _esm = HERE / "js" / "legend.js"
    _css = CSS
    title = traitlets.Unicode().tag(sync=True)
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    hidden = traitlets.List(traitlets.Int()).tag(sync=True)
    fixed = traitlets.Bool(False).tag(sync=True)
    """Nothing to tick."""


class Stretch(anywidget.AnyWidget):
    """Black and white of each channel of a picture; told once a slider is let go.

    >>> grey = {"name": "VV", "min": -35, "max": 10, "step": 0.5, "digits": 1, "unit": "dB"}
    >>> Stretch(channels=[grey], limits=[[-20.0, -5.0]]).limits
    [[-20.0, -5.0]]
    """

    _esm = HERE / "js" / "stretch.js"
    _css = CSS
    text = traitlets.Unicode("Stretch").tag(sync=True)
    channels = traitlets.List(traitlets.Dict()).tag(sync=True)
    limits = traitlets.List(traitlets.List(traitlets.Float())).tag(sync=True)
