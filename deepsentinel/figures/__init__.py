"""Figures worth a slide: `show` draws a patch, masks, an embedding, a series, a table, a report, an area or a grid.

`patches` draws patches and masks and decides who draws the rest: `strips` series, `timelines` tables and areas,
`reports` what is known of labels, `embeddings` maps of vectors and results of a query, `probes` what a probe found.
`slides` is the page they share (headline, scale bar, north arrow, credit), `sheets` pictures side by side on it.
`stretch` turns bands into colours, also for the widgets, and `masks` classes.
"""

from .patches import show

__all__ = ["show"]
