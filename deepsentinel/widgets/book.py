"""What a person has labelled so far: classes with their colours, labels, which class is at hand, and the way back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from deepsentinel.errors import InputError
from deepsentinel.labels.making import PALETTE
from deepsentinel.legend import Legend, distinct_colors

SEPARATOR = " / "
COLOR = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True)
class Page:
    """How things stood at one time."""

    colors: dict[str, str] = field(default_factory=dict)
    """Name of each class -> its colour, in their order."""
    labels: tuple[tuple[Any, str], ...] = ()
    """Places and names, as `ds.make_labels` takes them."""
    imported: dict[str, int] = field(default_factory=dict)
    """How many labels of each class a file brought."""
    active: str = ""
    """The class at hand."""


class Book:
    """Classes and labels, and every change of them.

    >>> book = Book()
    >>> book.add("wood")
    >>> book.label((2.1, 48.1))
    >>> book.lines(), book.counts()
    (['1 · wood · pin at 48.10000, 2.10000'], Counter({'wood': 1}))
    >>> book.undo()
    >>> book.labels
    ()
    """

    def __init__(self) -> None:
        self.page = Page()
        self.changes: list[Page] = []

    @property
    def colors(self) -> dict[str, str]:
        """Name -> colour."""
        return self.page.colors

    @property
    def labels(self) -> tuple[tuple[Any, str], ...]:
        """What was labelled by hand."""
        return self.page.labels

    @property
    def imported(self) -> dict[str, int]:
        """How many labels of each class a file brought."""
        return self.page.imported

    @property
    def active(self) -> str:
        """The class at hand."""
        return self.page.active

    def counts(self) -> Counter[str]:
        """How many labels each class has."""
        return Counter(name for _, name in self.labels) + Counter(self.imported)

    def used(self) -> list[str]:
        """Classes that have labels."""
        return [name for name, count in self.counts().items() if count]

    def lines(self) -> list[str]:
        """Every label made by hand, in a line."""
        return [f"{number} · {name} · {_place(place)}" for number, (place, name) in enumerate(self.labels, start=1)]

    def grant(self, message: Mapping[str, Any]) -> None:
        """Do what the list of classes asks for, see `Classes`."""
        kind, name = message.get("kind"), str(message.get("name", ""))
        if kind == "rename":
            self.rename(name, str(message.get("to", "")))
        elif kind == "color":
            self.paint(name, str(message.get("color", "")))
        elif kind in ("add", "take", "remove"):
            {"add": self.add, "take": self.take, "remove": self.remove}[kind](name)
        else:
            raise InputError(f"There is nothing to do about a class that is called {kind!r}.")

    def add(self, name: str) -> None:
        """One more class, which is at hand then."""
        name = self._new(name)
        self._turn(colors={**self.colors, name: self._free()}, active=name)

    def take(self, name: str) -> None:
        """Have a class at hand; nothing that one would take back."""
        self._known(name)
        self.page = replace(self.page, active=name)

    def remove(self, name: str) -> None:
        """A class goes, and its labels with it."""
        self._known(name)
        if self.imported.get(name):
            raise InputError(f"{name!r} has labels of a file; undo the reading of it first.")
        colors = {each: color for each, color in self.colors.items() if each != name}
        labels = tuple(label for label in self.labels if label[1] != name)
        active = self.active if self.active != name else next(iter(colors), "")
        self._turn(colors=colors, labels=labels, active=active)

    def rename(self, name: str, to: str) -> None:
        """Call a class something else."""
        self._known(name)
        if to.strip() == name:
            return
        if self.imported.get(name):
            raise InputError(f"{name!r} is what a file calls it, and stays.")
        to = self._new(to)
        colors = {to if each == name else each: color for each, color in self.colors.items()}
        labels = tuple((place, to if each == name else each) for place, each in self.labels)
        self._turn(colors=colors, labels=labels, active=to if self.active == name else self.active)

    def paint(self, name: str, color: str) -> None:
        """Give a class another colour."""
        self._known(name)
        if not COLOR.fullmatch(color.lower()):
            raise InputError(f"{color!r} is no colour; write #rrggbb.")
        self._turn(colors={**self.colors, name: color.lower()})

    def label(self, place: Any) -> None:
        """A label of the class at hand."""
        if not self.active:
            raise InputError("Add a class first, such as 'wood' or 'crop / wheat': labels are of the class at hand.")
        self._turn(labels=(*self.labels, (place, self.active)))

    def unlabel(self, number: int) -> None:
        """One label goes."""
        self._turn(labels=(*self.labels[:number], *self.labels[number + 1 :]))

    def take_in(self, legend: Legend, codes: Iterable[Any]) -> None:
        """Labels of a file: its classes stand first, as they are numbered there; of two files the later one stays."""
        counts = Counter(legend.names[int(code)] for code in codes)
        brought = {entry.name: entry.color for entry in legend if counts[entry.name]}
        colors = brought | {name: color for name, color in self.colors.items() if name not in brought}
        again = bool(self.imported)
        self._turn(colors=colors, imported=dict(counts), active=self.active or next(iter(colors), ""))
        if again:  # the former file is gone, and there is no way back to it
            self.changes.clear()

    def give_back(self) -> None:
        """The labels of a file are gone, and so is the way back to when they were there."""
        self.page = replace(self.page, imported={})
        self.changes.clear()

    def undo(self) -> None:
        """As it was before the last change."""
        if not self.changes:
            raise InputError("There is nothing to undo.")
        self.page = self.changes.pop()

    def _turn(self, **what: Any) -> None:
        self.changes.append(self.page)
        self.page = replace(self.page, **what)

    def _new(self, name: str) -> str:
        parts = [part.strip() for part in str(name).split("/")]
        if not all(parts):
            raise InputError(f"{name!r} is no name of a class; give one such as 'wood', or 'crop / wheat'.")
        tidy = SEPARATOR.join(parts)
        if tidy in self.colors:
            raise InputError(f"There is a class {tidy!r} already.")
        return tidy

    def _known(self, name: str) -> None:
        if name not in self.colors:
            raise InputError(f"There is no class {name!r}.")

    def _free(self) -> str:
        taken = set(self.colors.values())
        return next(color for color in (*PALETTE, *distinct_colors(len(taken) + 1)) if color not in taken)


def _place(place: Any) -> str:
    """Where a label is, in words."""
    if isinstance(place, tuple):
        return f"pin at {place[1]:.5f}, {place[0]:.5f}"
    ring = place["coordinates"][0]
    lon, lat = (sum(point[axis] for point in ring[:-1]) / max(len(ring) - 1, 1) for axis in (0, 1))
    return f"field around {lat:.5f}, {lon:.5f}"
