"""One sample of a model under training: what was seen, what is there, what the model says, as images of a page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from deepsentinel.learn.mistakes import Example
from deepsentinel.learn.tasks import IGNORE

from .worst import picture, ramp

if TYPE_CHECKING:
    from deepsentinel.learn.model import Model

SIDE_PX = 160
# Of boxes: what is there and what the model says, in colours that every eye tells apart.
TRUTH, SAID = (0, 114, 178), (213, 94, 0)


def glimpse(example: Example, model: Model) -> list[tuple[str, str]]:
    """(words, address of an image) of a sample: the picture, and, of what answers by pixel or box, truth and model.

    Classes have the colours of the model's legend.

    >>> from types import SimpleNamespace
    >>> pixels = {"VV": np.full((4, 4), -9, "float32")}
    >>> one = Example(7, 0.5, 3.0, 50.0, 40.0, pixels, np.zeros((4, 4), "uint8"), np.zeros((4, 4), "uint8"))
    >>> model = SimpleNamespace(task="segmentation", classes=SimpleNamespace(colors=("#ff0000",)))
    >>> [words for words, _ in glimpse(one, model)]
    ['picture', 'truth', 'model']
    """
    image, known = picture(example)
    found = [("picture", url_of(image, known))]
    if model.task == "segmentation":
        colours = np.zeros((256, 3), "uint8")
        for at, colour in enumerate(model.classes.colors):
            colours[at] = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
        found.append(("truth", url_of(colours[example.truth], example.truth != IGNORE)))
        found.append(("model", url_of(colours[example.said], np.ones(example.said.shape, bool))))
    elif model.task == "regression":
        values = example.truth[np.isfinite(example.truth)]
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        for words, part in (("truth", example.truth), ("model", example.said)):
            found.append((words, url_of(ramp(part, (low, max(high, low + 1e-6)), "viridis"), np.isfinite(part))))
    elif model.task in ("detection", "instances"):
        found.append(("truth", url_of(boxed(image, example.truth, TRUTH), known)))
        found.append(("model", url_of(boxed(image, example.said, SAID), known)))
    return found


def classes_in(example: Example, model: Model) -> list[tuple[str, str]]:
    """(name, colour) of each class that is there or that the model says, the most frequent first.

    >>> from types import SimpleNamespace
    >>> truth, said = np.array([[0, 0, 255]], "uint8"), np.array([[0, 1, 1]], "uint8")
    >>> one = Example(7, 0.5, 3.0, 50.0, 40.0, {}, truth, said)
    >>> classes = SimpleNamespace(names=("reed", "mud"), colors=("#009e73", "#d55e00"))
    >>> classes_in(one, SimpleNamespace(task="segmentation", classes=classes))
    [('reed', '#009e73'), ('mud', '#d55e00')]
    """
    if model.task != "segmentation":
        return []
    both = np.concatenate([example.truth.ravel(), example.said.ravel()])
    codes, counts = np.unique(both[both != IGNORE], return_counts=True)
    order = codes[np.argsort(-counts, kind="stable")]
    return [(model.classes.names[code], model.classes.colors[code]) for code in order.tolist()]


def boxed(image: np.ndarray, boxes: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """A picture in grey with boxes on it, which are in shares of its width.

    >>> boxed(np.zeros((10, 10, 3), "uint8"), np.array([[0.2, 0.2, 0.6, 0.6, 0, 1]]), (255, 0, 0))[2, 3].tolist()
    [255, 0, 0]
    """
    from PIL import Image, ImageDraw

    grey = Image.fromarray(np.repeat((110 + image.mean(axis=2, keepdims=True) * 0.5).astype("uint8"), 3, axis=2), "RGB")
    draw = ImageDraw.Draw(grey)
    for box in boxes[:, :4] * image.shape[1]:
        draw.rectangle([float(round(value)) for value in box], outline=colour)
    return np.asarray(grey)


def url_of(image: np.ndarray, known: np.ndarray) -> str:
    """Pixels as an address of their own, clear where nothing is known; never blurred, for colours may be classes."""
    from PIL import Image

    whole = Image.fromarray(np.dstack([image, np.where(known, 255, 0).astype("uint8")]), "RGBA")
    factor = max(1, SIDE_PX // max(whole.size))
    whole = whole.resize((whole.width * factor, whole.height * factor), Image.Resampling.NEAREST)
    held = io.BytesIO()
    whole.save(held, "WEBP", lossless=True, method=0)
    return "data:image/webp;base64," + base64.b64encode(held.getvalue()).decode()
