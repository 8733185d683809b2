"""The small views of embeddings and labels: a strip of matches, and the classes that somebody makes up."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

HERE = Path(__file__).parent
CSS = HERE / "css" / "labelling.css"


class Strip(anywidget.AnyWidget):
    """Small pictures, best first; `picked` is the number of the one that was chosen last, or -1.

    >>> Strip(title="Most alike").picked
    -1
    """

    _esm = HERE / "js" / "strip.js"
    _css = CSS
    title = traitlets.Unicode().tag(sync=True)
    pieces = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Each with its `url` and its `text`."""
    picked = traitlets.Int(-1).tag(sync=True)


class Classes(anywidget.AnyWidget):
    """Classes with colours, names and counts. What a person wants of them comes as a message, and is granted or not.

    Messages are `{"kind": "add", "name": ..}`, and likewise `take`, `remove`, `rename` (with `to`) and `color` (with
    `color`).

    >>> Classes(classes=[{"name": "wood", "color": "#009e73", "text": "2"}], active="wood").active
    'wood'
    """

    _esm = HERE / "js" / "classes.js"
    _css = CSS
    classes = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Each with its `name`, its `color` and a `text`."""
    active = traitlets.Unicode().tag(sync=True)
    """The one that new labels get."""


def warm() -> None:
    """Load what a first map takes, which is a second or several of them."""
    import numpy as np

    from deepsentinel.learn.classifying import Scaling, fitted
    from deepsentinel.similarity.vectors import vectors_of

    vectors = np.eye(4, dtype="float32")
    scaling = Scaling(vectors_of(vectors), np.ones(4, bool))
    fitted(scaling, vectors, np.arange(4) // 2, np.ones(4))
