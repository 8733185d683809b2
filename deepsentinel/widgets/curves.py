"""Curves of a run that is under way, redrawn a few times a second however fast its steps are."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import anywidget
import traitlets

HERE = Path(__file__).parent
# A page that is told more often than this only stutters.
EVERY_S = 0.12
# A screen has no more places for points.
MOST_POINTS = 400
Points = list[list[float]]


class Curves(anywidget.AnyWidget):
    """The loss and the score of a run, and one sample with truth and answer.

    >>> curves = Curves()
    >>> curves.begin(10)
    >>> drawn = curves.add_loss(1, 0.5, now=True)
    >>> curves.losses
    [[1.0, 0.5]]
    """

    _esm = HERE / "js" / "curves.js"
    _css = HERE / "css" / "curves.css"
    steps = traitlets.Int(1).tag(sync=True)
    losses = traitlets.List(traitlets.List(traitlets.Float())).tag(sync=True)
    """[step, loss] of each look."""
    scores = traitlets.List(traitlets.List(traitlets.Float())).tag(sync=True)
    """[step, score] of what was held back."""
    score_name = traitlets.Unicode().tag(sync=True)
    pictures = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Of one sample: `words` and `url` of each picture."""

    def begin(self, steps: int) -> None:
        """A new run of so many steps."""
        self._all: Points = []
        self._told = 0.0
        self._hand = threading.Lock()
        with self.hold_sync():
            self.steps, self.losses, self.scores, self.pictures, self.score_name = steps, [], [], [], ""

    def add_loss(self, step: int, loss: float, *, now: bool = False) -> bool:
        """Another point; the page is told at once, or with a later one. Whether it was told."""
        with self._hand:
            # A run that goes on from its checkpoint may repeat what was drawn.
            while self._all and self._all[-1][0] >= step:
                self._all.pop()
            self._all.append([float(step), float(loss)])
            due = now or time.monotonic() - self._told >= EVERY_S
            if due:
                self._told = time.monotonic()
                self.losses = thinned(self._all)
        return due

    def add_score(self, step: int, score: float, name: str, pictures: Sequence[tuple[str, str]]) -> None:
        """What was seen of the model at a step."""
        kept = [each for each in self.scores if each[0] < step]
        with self.hold_sync():
            if score == score:
                self.scores, self.score_name = [*kept, [float(step), float(score)]], name
            self.pictures = [{"words": words, "url": url} for words, url in pictures]


def thinned(points: Points, most: int = MOST_POINTS) -> Points:
    """No more points than a screen shows: of each run of neighbours the mean, and the last as it is.

    >>> thinned([[1.0, 4.0], [2.0, 2.0], [3.0, 1.0]], most=2)
    [[1.5, 3.0], [3.0, 1.0]]
    """
    if len(points) <= most:
        return [list(each) for each in points]
    size = -(-(len(points) - 1) // (most - 1))
    groups = [points[start : min(start + size, len(points) - 1)] for start in range(0, len(points) - 1, size)]
    return [*([sum(column) / len(group) for column in zip(*group, strict=True)] for group in groups), list(points[-1])]
