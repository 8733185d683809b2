"""Figures worth a slide: `show` draws a patch, a series, a table of scenes or pairs, a match rate, an area or a grid.

`patches` draws patches and decides who draws the rest: `strips` series, `timelines` tables and areas. `slides` is the
page they share (headline, scale bar, north arrow, credit), `stretch` turns bands into colours, also for the widgets.
"""

from .patches import show

__all__ = ["show"]
