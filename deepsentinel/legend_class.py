"""What the numbers in a class map mean: codes, names, colours, and the coarser classes they belong to.

A legend travels as text: in the attributes of a mask (`Legend.to_attrs`), of a table of labels, and in files. 0 is the
background of every mask, so a legend that has a class 0 needs `Legend.shifted` first. The published ones are in
`legend.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .errors import InputError

BACKGROUND = 0

_HEX = re.compile(r"#[0-9a-f]{6}")
# Those of Okabe and Ito, and six that were searched for to be far from them and from each other in every colour vision.
_SPACED = (
    *("#e69f00", "#0072b2", "#009e73", "#d55e00", "#56b4e9", "#cc79a7"),
    *("#8800ff", "#eeee99", "#660055", "#880000", "#330099", "#bbeecc"),
)
# The golden ratio steps round the circle of hues without ever coming close to an earlier stop too soon.
_GOLDEN = 0.618033988749895


@dataclass(frozen=True)
class LegendClass:
    """One class of a legend."""

    code: int
    """The number that stands in the mask."""
    name: str
    """What a person calls it."""
    color: str
    """`#rrggbb`."""
    parent: int | None = None
    """The code of the coarser class it belongs to, in the legend one level up."""


@dataclass(frozen=True)
class Legend:
    """The classes of one map at one level of detail, in the order in which they are listed.

    >>> from deepsentinel.legend import corine
    >>> clc = corine()
    >>> len(clc), clc[312].name, clc[312].color
    (44, 'Coniferous forest', '#00a600')
    >>> clc.at(1).names[3]
    'Forest and semi natural areas'
    >>> clc.up([312, 523, 0], level=1)
    array([3, 5, 0])
    """

    name: str
    """Which legend it is, such as `corine`."""
    classes: tuple[LegendClass, ...]
    """Its classes."""
    coarser: Legend | None = None
    """The legend one level up, where there is one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        seen: set[int] = set()
        for entry in self.classes:
            if isinstance(entry.code, bool) or not isinstance(entry.code, (int, np.integer)) or entry.code < 0:
                raise InputError(f"Legend {self.name!r}: code {entry.code!r} is not an integer from 0 on.")
            if entry.code in seen:
                raise InputError(f"Legend {self.name!r} has code {entry.code} twice; each class needs its own.")
            seen.add(entry.code)
            if not _HEX.fullmatch(entry.color):
                raise InputError(
                    f"Legend {self.name!r}, class {entry.code}: {entry.color!r} is not a colour; write #rrggbb."
                )
            if self.coarser is not None and entry.parent not in self.coarser:
                raise InputError(
                    f"Legend {self.name!r}, class {entry.code}: its parent {entry.parent} is not among the coarser"
                    f" classes {_listed(self.coarser.codes)}."
                )

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[LegendClass]:
        return iter(self.classes)

    def __contains__(self, code: object) -> bool:
        return any(entry.code == code for entry in self.classes)

    def __getitem__(self, code: int) -> LegendClass:
        for entry in self.classes:
            if entry.code == code:
                return entry
        raise InputError(f"Legend {self.name!r} has no class {code}; its codes are {_listed(self.codes)}.")

    @property
    def level(self) -> int:
        """1 is the coarsest; a legend without groups is of level 1."""
        return 1 if self.coarser is None else self.coarser.level + 1

    @property
    def codes(self) -> tuple[int, ...]:
        """The codes in the order of the classes."""
        return tuple(entry.code for entry in self.classes)

    @property
    def names(self) -> dict[int, str]:
        """Code to name."""
        return {entry.code: entry.name for entry in self.classes}

    @property
    def numbers(self) -> dict[str, int]:
        """Name to code."""
        return {entry.name: entry.code for entry in self.classes}

    @property
    def colors(self) -> dict[int, str]:
        """Code to `#rrggbb`."""
        return {entry.code: entry.color for entry in self.classes}

    def color_table(self) -> dict[int, tuple[int, int, int, int]]:
        """Code to (red, green, blue, alpha), as rasterio's `write_colormap` takes it.

        >>> from deepsentinel.legend import worldcover
        >>> worldcover().color_table()[80]
        (0, 100, 200, 255)
        """
        return {entry.code: (*_rgb(entry.color), 255) for entry in self.classes}

    def at(self, level: int) -> Legend:
        """The legend at a coarser level, 1 being the coarsest.

        >>> from deepsentinel.legend import corine
        >>> corine().at(2).names[31]
        'Forests'
        """
        found: Legend | None = self
        while found is not None and found.level != level:
            found = found.coarser
        if found is None:
            raise InputError(
                f"Legend {self.name!r} has no level {level!r}; it has level{_listed(range(1, self.level + 1), s='s')}."
            )
        return found

    def up(self, values: Any, level: int) -> np.ndarray:
        """Codes of this legend turned into those of a coarser level; 0, the background, stays 0.

        >>> from deepsentinel.legend import corine
        >>> corine().up([[111, 112], [0, 411]], level=2)
        array([[11, 11],
               [ 0, 41]])
        """
        target = self.at(level)
        own = {code: code for code in self.codes}
        finer = self
        while finer.level > target.level:
            parents = {entry.code: entry.parent for entry in finer.classes}
            own = {code: parents[now] for code, now in own.items()}  # type: ignore[misc]
            finer = finer.coarser  # type: ignore[assignment]
        return recode(values, {BACKGROUND: BACKGROUND} | own, what=f"legend {self.name!r}")

    def only(self, codes: Iterable[int]) -> Legend:
        """The classes whose codes are given, and the groups they belong to; others of the codes must be 0.

        >>> from deepsentinel.legend import corine
        >>> corine().only([312, 112]).codes
        (112, 312)
        """
        wanted = {int(code) for code in codes}
        unknown = wanted - set(self.codes) - {BACKGROUND}
        if unknown:
            raise InputError(f"Legend {self.name!r} has no class {_listed(sorted(unknown))}.")
        kept = tuple(entry for entry in self.classes if entry.code in wanted)
        groups = {entry.parent for entry in kept if entry.parent is not None}
        return replace(self, classes=kept, coarser=None if self.coarser is None else self.coarser.only(groups))

    def shifted(self, by: int) -> Legend:
        """The same classes with `by` added to each code; the coarser levels keep theirs.

        >>> from deepsentinel.legend import dynamic_world
        >>> dynamic_world().shifted(1).names[1]
        'Water'
        """
        return replace(self, classes=tuple(replace(entry, code=entry.code + by) for entry in self.classes))

    def to_json(self) -> str:
        """The whole legend with its coarser levels as one line of text.

        >>> from deepsentinel.legend import corine
        >>> Legend.from_json(corine().to_json()) == corine()
        True
        """
        return json.dumps(self._plain(), ensure_ascii=False, separators=(",", ":"))

    def _plain(self) -> dict[str, Any]:
        rows = [[int(entry.code), entry.name, entry.color, entry.parent] for entry in self.classes]
        above = {} if self.coarser is None else {"coarser": self.coarser._plain()}
        return {"name": self.name, "classes": rows} | above

    @classmethod
    def from_json(cls, text: str) -> Legend:
        """The legend that `to_json` wrote.

        >>> Legend.from_json('{"name":"mine","classes":[[1,"reed","#00aa00",null]]}').names
        {1: 'reed'}
        """
        try:
            return cls._from_plain(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"This is not a legend as text: {str(text)[:60]!r}. Legend.to_json() writes one:"
                ' {"name": .., "classes": [[code, name, "#rrggbb", parent], ..]}.'
            ) from error

    @classmethod
    def _from_plain(cls, plain: Mapping[str, Any]) -> Legend:
        above = cls._from_plain(plain["coarser"]) if plain.get("coarser") else None
        return cls(plain["name"], tuple(LegendClass(*row) for row in plain["classes"]), above)

    def to_attrs(self) -> dict[str, Any]:
        """The attributes that make a mask carry its legend: the CF convention's for others, `legend` for us.

        >>> from deepsentinel.legend import worldcover
        >>> attrs = worldcover().only([10, 80]).to_attrs()
        >>> attrs["flag_values"], attrs["flag_meanings"], attrs["flag_colors"]
        ([10, 80], 'Tree_cover Permanent_water_bodies', '#006400 #0064c8')
        """
        return {
            "flag_values": [int(code) for code in self.codes],
            "flag_meanings": " ".join(_word(entry.name) for entry in self.classes),
            "flag_colors": " ".join(entry.color for entry in self.classes),
            "legend": self.to_json(),
        }

    @classmethod
    def from_attrs(cls, attrs: Mapping[str, Any]) -> Legend | None:
        """The legend in a mask's attributes, ours or those of the CF convention; None where there is none.

        >>> Legend.from_attrs({"flag_values": [1, 2], "flag_meanings": "land open_sea"}).names
        {1: 'land', 2: 'open sea'}
        """
        if "legend" in attrs:
            return cls.from_json(attrs["legend"])
        if "flag_values" not in attrs or "flag_meanings" not in attrs:
            return None
        codes = [int(code) for code in np.atleast_1d(attrs["flag_values"])]
        names = str(attrs["flag_meanings"]).split()
        colors = str(attrs.get("flag_colors", "")).lower().split()
        if len(names) != len(codes):
            raise InputError(
                f"The attributes name {len(names)} flag_meanings for {len(codes)} flag_values; each value needs one"
                " word, with _ for a blank."
            )
        if len(colors) != len(codes):
            colors = distinct_colors(len(codes))
        rows = zip(codes, names, colors, strict=True)
        return cls("flags", tuple(LegendClass(code, name.replace("_", " "), color) for code, name, color in rows))

    @classmethod
    def of_texts(cls, texts: Iterable[Any], *, name: str = "classes") -> Legend:
        """A legend for classes that are texts, numbered from 1 in their sorted order; missing ones are left out.

        Blanks around a text do not count, and a text of nothing else is missing.

        >>> Legend.of_texts(["reed", "alder", "reed ", None]).names
        {1: 'alder', 2: 'reed'}
        """
        found = sorted({str(text).strip() for text in texts if not _missing(text)} - {""})
        rows = zip(range(1, len(found) + 1), found, distinct_colors(len(found)), strict=True)
        return cls(name, tuple(LegendClass(*row) for row in rows))

    @classmethod
    def of_codes(cls, codes: Iterable[int], *, name: str = "classes") -> Legend:
        """A legend for codes nobody has named: each is called by its number.

        >>> Legend.of_codes([7, 3, 7]).names
        {3: '3', 7: '7'}
        """
        found = sorted({int(code) for code in codes})
        rows = zip(found, map(str, found), distinct_colors(len(found)), strict=True)
        return cls(name, tuple(LegendClass(*row) for row in rows))


def recode(values: Any, mapping: Mapping[int, int], *, unknown: int | None = None, what: str = "mapping") -> np.ndarray:
    """Integers looked up one by one; those the mapping lacks become `unknown`, or raise where that is None.

    The type of the input is kept where it holds the results.

    >>> recode([[3, 4], [4, 9]], {3: 1, 4: 2}, unknown=0)
    array([[1, 2],
           [2, 0]])
    """
    array = np.asarray(values)
    if array.dtype.kind not in "iub" and not (array.dtype.kind == "f" and np.array_equal(array, np.trunc(array))):
        raise InputError(f"Codes are integers, and these are {array.dtype}; round them or fill the missing ones first.")
    present, where = np.unique(array, return_inverse=True)
    lost = [int(code) for code in present if int(code) not in mapping]
    if lost and unknown is None:
        raise InputError(f"The {what} has no code {_listed(lost)}; it has {_listed(sorted(mapping))}.")
    new = np.array([mapping.get(int(code), unknown) for code in present], dtype="int64")
    kind = array.dtype if array.dtype.kind in "iu" else np.dtype("int64")
    if new.size and not (np.iinfo(kind).min <= new.min() and new.max() <= np.iinfo(kind).max):
        kind = np.dtype("int64")
    return new.astype(kind)[where].reshape(array.shape)


def distinct_colors(n: int) -> list[str]:
    """`n` different colours, always the same; the first twelve are far apart for every kind of colour vision.

    >>> len(set(distinct_colors(500)))
    500
    """
    from colorsys import hsv_to_rgb

    colors = list(_SPACED[:n])
    seen = set(_SPACED)
    step = 0
    while len(colors) < n:
        hue = (0.08 + step * _GOLDEN) % 1.0
        saturation, brightness = ((0.75, 0.9), (0.95, 0.6), (0.45, 0.95), (0.6, 0.72))[step % 4]
        color = _hexed(tuple(round(255 * part) for part in hsv_to_rgb(hue, saturation, brightness)))
        step += 1
        if color not in seen:
            seen.add(color)
            colors.append(color)
    return colors


def mean_color(colors: Iterable[str]) -> str:
    """The mean of colours, for a group that has none of its own.

    >>> mean_color(["#000000", "#ff8000"])
    '#804000'
    """
    rgb = np.array([_rgb(color) for color in colors])
    return _hexed(int(part) for part in np.floor(rgb.mean(axis=0) + 0.5))


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _hexed(rgb: Iterable[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in rgb)


def _word(name: str) -> str:
    """A name as the CF convention allows it: one word of letters, digits and a few signs."""
    return re.sub(r"[^\w.+@-]+", "_", name).strip("_") or "_"


def _missing(text: Any) -> bool:
    # pandas' NA is equal to nothing and unequal to nothing, so it is known by its text.
    return text is None or str(text) == "<NA>" or text != text


def _listed(codes: Iterable[Any], s: str = "") -> str:
    """Codes in a sentence, cut where they would fill the screen; `s` starts it with a blank and a plural where due."""
    found = [str(code) for code in codes]
    text = ", ".join(found[:12]) + (f" and {len(found) - 12} more" if len(found) > 12 else "")
    return f"{s if len(found) != 1 else ''} {text}" if s else text
