"""Live drawings of one pixel, of a legend and of a stretch: small, in SVG and plain HTML, with keys and names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

if TYPE_CHECKING:
    from deepsentinel.figures.panels import Panel

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
    scale: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    """For a quantity: `colors` from `low` to `high`, these as they are written below the ends."""

    def tell(self, panel: Panel, title: str = "") -> None:
        """Show what the colours of a picture mean, or nothing if they mean nothing by themselves.

        >>> import numpy as np
        >>> from deepsentinel.figures.panels import Panel
        >>> image = np.zeros((2, 2, 3), "uint8")
        >>> made = Legend()
        >>> made.tell(Panel("coverage", "", "Coverage", image, image[..., 0] == 0, bar=(0.0, 1.0, "share")))
        >>> made.title, made.scale["low"], made.scale["high"]
        ('Coverage', '0 %', '100 %')
        """
        rows = [
            {"code": number, "name": text, "color": hexed(colour), "share": ""}
            for number, (colour, text) in enumerate(panel.keys)
        ]
        with self.hold_sync():
            self.rows, self.scale = rows, scale_of(panel)
            self.title = (title or panel.heading) if rows or self.scale else ""

    def clear(self) -> None:
        """Show nothing."""
        with self.hold_sync():
            self.rows, self.scale, self.title = [], {}, ""


def hexed(colour: Any) -> str:
    """A colour of three numbers as a page wants it.

    >>> hexed((0, 114, 178))
    '#0072b2'
    """
    return "#" + "".join(f"{int(part):02x}" for part in colour)


def scale_of(panel: Panel) -> dict[str, Any]:
    """The colours of a picture of one quantity, and what stands at both ends of them; {} for any other."""
    if panel.bar is None:
        return {}
    import numpy as np
    from matplotlib import colormaps

    low, high, unit = panel.bar
    scale = colormaps[panel.scale] if isinstance(panel.scale, str) else panel.scale
    colours = [hexed(each[:3]) for each in scale(np.linspace(0, 1, 12), bytes=True)]
    if unit == "share":
        return {"colors": colours, "low": f"{100 * low:.0f} %", "high": f"{100 * high:.0f} %"}
    ends = [f"{value:.3g}".replace("-", "\u2212") for value in (low, high)]
    return {"colors": colours, "low": ends[0], "high": f"{ends[1]} {unit}".strip()}


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
