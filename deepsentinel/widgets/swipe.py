"""A handle over the map: one picture left of it, another right of it.

Leaflet's own (`ipyleaflet.SplitMapControl`) puts both pictures on the map a second time, leaves them cut in half when
it goes, and has a slider without a name. This one cuts the panes that the pictures lie in, and puts them right again.
"""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

HERE = Path(__file__).parent


class Swipe(anywidget.AnyWidget):
    """The handle; the mouse, a finger or the arrow keys move it.

    >>> Swipe(left="deepsentinel-s2", right="deepsentinel-s1").share
    0.5
    """

    _esm = HERE / "js" / "swipe.js"
    _css = HERE / "css" / "swipe.css"
    left = traitlets.Unicode().tag(sync=True)
    """The pane that is seen left of the handle; nothing hides the handle."""
    right = traitlets.Unicode().tag(sync=True)
    share = traitlets.Float(0.5, min=0.0, max=1.0).tag(sync=True)
    """Where the handle stands, as a share of the map's width."""
    text = traitlets.Unicode("Left and right of the handle").tag(sync=True)
    """What a screen reader calls it."""
