"""The published legends: CORINE, WorldCover, Dynamic World, sea ice, crops, BigEarthNet and the Cropland Data Layer.

Each is one CSV in `tables/`, with the codes that other publishers use for the same class in further columns; several
codes are separated by `|`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .legend_class import BACKGROUND as BACKGROUND
from .legend_class import Legend as Legend
from .legend_class import LegendClass as LegendClass
from .legend_class import distinct_colors as distinct_colors
from .legend_class import mean_color
from .legend_class import recode as recode

LegendLike = Legend | str | Mapping[int, str] | Mapping[str, int] | Sequence[str]
"""What `legend=` takes wherever there is one; see `as_legend`."""

TABLES = Path(__file__).parent / "tables"


def corine(level: int = 3) -> Legend:
    """CORINE Land Cover: 44 classes with the codes 111 to 523, 15 groups at level 2 and 5 at level 1.

    >>> corine()[244].name, corine(2)[24].name, corine(1)[2].name
    ('Agro-forestry areas', 'Heterogeneous agricultural areas', 'Agricultural areas')
    """
    return _read("corine").at(level)


def worldcover() -> Legend:
    """ESA WorldCover's eleven classes.

    >>> worldcover()[50].name
    'Built-up'
    """
    return _read("worldcover")


def dynamic_world() -> Legend:
    """Dynamic World's nine classes as published: 0 is water, so a mask of them holds each code plus one.

    >>> dynamic_world()[0].name
    'Water'
    """
    return _read("dynamic_world")


def esri_land_cover() -> Legend:
    """The yearly land cover by Esri and Impact Observatory.

    >>> esri_land_cover()[11].name
    'Rangeland'
    """
    return _read("esri_land_cover")


def ice_stage(level: int = 2) -> Legend:
    """Stages of development of sea ice with their SIGRID-3 codes; level 1 groups them as AI4Arctic does.

    There open water is 0, which here is the background, so it is group 7.

    >>> ice_stage()[91].name, ice_stage(1)[4].name
    ('Medium first-year ice (70-120 cm)', 'Thick first-year ice')
    """
    return _read("ice_stage").at(level)


def ice_concentration() -> Legend:
    """Total concentration of sea ice in the classes and colours of the WMO, numbered from 1.

    `source_codes("ice_concentration", "sigrid")` tells which class each of SIGRID-3's codes falls into.

    >>> ice_concentration()[6].name, source_codes("ice_concentration", "sigrid")["92"]
    ('Very close to compact ice, 9-10/10', 6)
    """
    return _read("ice_concentration")


def ice_form(level: int = 2) -> Legend:
    """Forms of sea ice with their SIGRID-3 codes; level 1 groups floes as AI4Arctic does.

    >>> ice_form()[8].name
    'Fast ice'
    """
    return _read("ice_form").at(level)


def crops(level: int = 3) -> Legend:
    """Crops of any country under one numbering: 7 kinds of use, groups of crops, crops.

    HCAT's ten-digit codes, on which it is built, do not fit 32 bits, so the codes are our own: 1101 is the first crop
    of group 11, which is of kind 1. `source_codes("crops", "fr")` maps France's codes, and likewise `hcat`, `fr_group`,
    `at`, `nl`, `vlg` (Flanders) and `de`.

    >>> crops()[source_codes("crops", "fr")["BTH"]].name
    'Winter wheat'
    >>> crops(2)[11].name, crops(1)[1].name
    ('Cereals', 'Arable land')
    """
    return _read("crops").at(level)


def bigearthnet19() -> Legend:
    """The 19 classes of BigEarthNet, numbered from 1 in their usual order.

    `source_codes("bigearthnet19", "corine")` maps CORINE's codes; those that BigEarthNet drops are not in it.

    >>> bigearthnet19()[source_codes("bigearthnet19", "corine")["312"]].name
    'Coniferous forest'
    """
    return _read("bigearthnet19")


def cdl() -> Legend:
    """The main classes of the USDA's Cropland Data Layer.

    >>> cdl()[5].name, cdl()[5].color
    ('Soybeans', '#267000')
    """
    return _read("cdl")


_NAMED: dict[str, Callable[[], Legend]] = {
    make.__name__: make
    for make in (
        bigearthnet19, cdl, corine, crops, dynamic_world, esri_land_cover, ice_concentration, ice_form, ice_stage,
        worldcover,
    )
}  # fmt: skip


def named() -> list[str]:
    """The names that `by_name` knows.

    >>> "worldcover" in named()
    True
    """
    return sorted(_NAMED)


def by_name(name: str) -> Legend:
    """A published legend by its name, at its finest level.

    >>> by_name("corine") == corine()
    True
    """
    if name not in _NAMED:
        raise InputError(f"There is no legend called {name!r}; there are {', '.join(named())}.")
    return _NAMED[name]()


def as_legend(given: LegendLike | None, *, name: str = "classes") -> Legend | None:
    """A legend from what people have: one already, the name of a published one, codes and names, or names in order.

    A dict may tell the name of each code or the code of each name; a list numbers its texts from 1 in the order in
    which they stand. None stays None.

    >>> as_legend(["wheat", "barley"]).names, as_legend({7: "wheat"}) == as_legend({"wheat": 7})
    ({1: 'wheat', 2: 'barley'}, True)
    >>> as_legend("worldcover")[50].name
    'Built-up'
    """
    if given is None or isinstance(given, Legend):
        return given
    if isinstance(given, str):
        return Legend.from_json(given) if given.lstrip().startswith("{") else by_name(given)
    if isinstance(given, Mapping):
        pairs: list[tuple[Any, Any]] = list(given.items())
        if pairs and all(_is_code(value) and isinstance(key, str) for key, value in pairs):
            pairs = [(code, text) for text, code in pairs]
    else:
        pairs = list(enumerate(given, start=1)) if isinstance(given, Sequence) else []
    wrong = [(code, text) for code, text in pairs if not (_is_code(code) and isinstance(text, str) and text.strip())]
    if not pairs or wrong:
        what = f"it holds {wrong[0]!r}" if wrong else f"it is {'empty' if given == type(given)() else type(given)}"
        raise InputError(
            f"legend= is no legend: {what}. Give a Legend, the name of a published one ({', '.join(named()[:4])} ..),"
            " {1: 'wheat', 2: 'barley'}, {'wheat': 1, 'barley': 2} or ['wheat', 'barley']."
        )
    codes = [int(code) for code, _ in pairs]
    texts = [text.strip() for _, text in pairs]
    if twice := [text for text in texts if texts.count(text) > 1]:
        raise InputError(f"legend= has {twice[0]!r} twice; each class needs a name of its own.")
    if twice_coded := [code for code in codes if codes.count(code) > 1]:
        raise InputError(f"legend= has code {twice_coded[0]} twice; each class needs its own.")
    return of_names(dict(zip(codes, texts, strict=True)), name=name)


def _is_code(given: Any) -> bool:
    return isinstance(given, (int, np.integer)) and not isinstance(given, bool)


def of_names(names: Mapping[int, str], *, name: str = "classes") -> Legend:
    """A legend of codes and their names, in the order given; colours are those of a published legend with all of them.

    >>> of_names({312: "Coniferous forest"}).colors, of_names({1: "reed"}).name
    ({312: '#00a600'}, 'classes')
    """
    known = published(names)
    colors = [known[code].color for code in names] if known is not None else distinct_colors(len(names))
    rows = zip(names, names.values(), colors, strict=True)
    return Legend(name, tuple(LegendClass(*row) for row in rows))


def published(names: Mapping[int, str]) -> Legend | None:
    """The published legend, at the level, that has all of these codes under these names; None where there is none.

    >>> published({2: "Agricultural areas"}).name, published({2: "agriculture"})
    ('corine', None)
    """
    for name in named() if names else ():
        legend: Legend | None = by_name(name)
        while legend is not None:
            if names.items() <= legend.names.items():
                return legend
            legend = legend.coarser
    return None


def source_codes(name: str, column: str) -> dict[str, int]:
    """How another list of codes maps onto a published legend: its codes, as text, to the legend's.

    >>> source_codes("corine", "grid")["1"]
    111
    """
    rows = _rows(name)
    columns = [key for key in rows[0] if key not in ("code", "name", "color", "parent", "level")]
    if column not in columns:
        raise InputError(f"The legend {name!r} does not know the codes of {column!r}; it knows {', '.join(columns)}.")
    finest = max((row["level"] for row in rows), default="")
    pairs = [(row["level"], code, int(row["code"])) for row in rows for code in row[column].split("|") if code]
    return {code: own for level, code, own in pairs if level == finest}


@cache
def _rows(name: str) -> list[dict[str, str]]:
    by_name(name) if name not in _NAMED else None
    with (TABLES / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [{"level": "1", "parent": ""} | row for row in csv.DictReader(file)]


@cache
def _read(name: str) -> Legend:
    """From the finest level up, as a group without a colour of its own takes the mean of its children's."""
    rows = _rows(name)
    levels: dict[int, list[LegendClass]] = {}
    colors: dict[tuple[int, int], list[str]] = {}
    for row in sorted(rows, key=lambda row: -int(row["level"])):
        level, code = int(row["level"]), int(row["code"])
        parent = int(row["parent"]) if row["parent"] else None
        color = row["color"] or mean_color(colors[level, code])
        if parent is not None:
            colors.setdefault((level - 1, parent), []).append(color)
        levels.setdefault(level, []).append(LegendClass(code, row["name"], color, parent))
    legend: Legend | None = None
    for level in sorted(levels):
        legend = Legend(name, tuple(levels[level]), legend)
    assert legend is not None
    return legend
