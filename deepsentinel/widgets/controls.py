"""Small controls of our own: sliders that a keyboard and a screen reader can use, and the cell that does the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets

HERE = Path(__file__).parent


class Slider(anywidget.AnyWidget):
    """One number, with its label, its value and its unit; told once it is let go.

    >>> Slider(description="Clouds", value=60, max=100, unit="%").value
    60.0
    """

    _esm = HERE / "js" / "slider.js"
    _css = HERE / "css" / "controls.css"
    description = traitlets.Unicode().tag(sync=True)
    value = traitlets.CFloat(0.0).tag(sync=True)
    min = traitlets.CFloat(0.0).tag(sync=True)
    max = traitlets.CFloat(1.0).tag(sync=True)
    step = traitlets.CFloat(1.0).tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)

    @traitlets.validate("value")
    def _within(self, proposal: traitlets.Bunch) -> float:
        return float(max(self.min, min(self.max, proposal["value"])))


class Upload(anywidget.AnyWidget):
    """A file from the reader's machine: `file` is its `name`, `size` and `data` (bytes; None if that is too much)."""

    _esm = HERE / "js" / "upload.js"
    _css = HERE / "css" / "controls.css"
    description = traitlets.Unicode().tag(sync=True)
    tooltip = traitlets.Unicode().tag(sync=True)
    accept = traitlets.Unicode().tag(sync=True)
    most = traitlets.Int(200_000_000).tag(sync=True)
    file = traitlets.Dict()
    """Set once a file is here as a whole; not to be sent back to the page."""

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        # Two views of this control may send at once.
        self._coming: dict[str, tuple[dict[str, Any], list[bytes]]] = {}
        self.on_msg(lambda _, message, pieces: self._heard(message, pieces))

    def _heard(self, message: Mapping[str, Any], pieces: Sequence[Any]) -> None:
        kind, size, sender = message.get("kind"), int(message.get("size", 0)), str(message.get("id"))
        told = {"name": str(message.get("name")), "size": size}
        if kind == "begin":
            if size > self.most:
                self.file = {**told, "data": None}
                return
            # A page that went away sends no end; what came of its file is told as it is, to make room.
            while sum(each["size"] for each, _ in self._coming.values()) + size > self.most:
                self._give(next(iter(self._coming)))
            self._coming[sender] = told, []
        elif sender not in self._coming:
            return  # too late
        elif kind == "piece":
            self._coming[sender][1].extend(bytes(piece) for piece in pieces)
        elif kind == "end":
            self._give(sender)

    def _give(self, sender: str) -> None:
        told, pieces = self._coming.pop(sender)
        # A new file all the same, if one of that name and content was taken before.
        self.file = {}
        self.file = {**told, "data": b"".join(pieces)}


class Cell(anywidget.AnyWidget):
    """Python that does what was done here with the mouse, folded away, to be copied."""

    _esm = HERE / "js" / "cell.js"
    _css = HERE / "css" / "controls.css"
    text = traitlets.Unicode().tag(sync=True)
    opened = traitlets.Bool(False).tag(sync=True)


class Ended(anywidget.AnyWidget):
    """Says that the kernel is gone, and with it all that a map could do; and brings the looks of the map."""

    TEXT: ClassVar[str] = "The kernel of this map has ended, so the map does nothing any more. Run its cell again."
    _esm = HERE / "js" / "ended.js"
    _css = HERE / "css" / "map.css"
    text = traitlets.Unicode(TEXT).tag(sync=True)
