"""Widgets leave nothing behind: closing one closes all that it holds."""

from __future__ import annotations

from collections.abc import Iterable

from ipywidgets import Widget


def held_by(widget: Widget) -> Iterable[Widget]:
    """The widgets that are values of a widget's traits: children, layers, controls, its layout and style."""
    for name in widget.keys:
        # What nobody has asked for is not made now, only to be closed.
        value = widget._trait_values.get(name)
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
        yield from (each for each in values if isinstance(each, Widget))


def close_all(*widgets: Widget) -> None:
    """Close widgets and everything within them, so that neither side remembers them.

    >>> from ipywidgets import Button, VBox
    >>> from ipywidgets.widgets.widget import _instances
    >>> before = len(_instances)
    >>> box = VBox([Button(), Button()])
    >>> len(_instances) > before + 2
    True
    >>> close_all(box)
    >>> len(_instances) - before
    0
    """
    seen: set[int] = set()
    waiting = list(widgets)
    while waiting:
        widget = waiting.pop()
        if id(widget) in seen:
            continue
        seen.add(id(widget))
        waiting.extend(held_by(widget))
        widget.close()
