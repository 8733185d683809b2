"""What the values of a label raster mean: told by the user, its tags, its name, its colours, or its values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepsentinel.errors import InputError
from deepsentinel.legend import BACKGROUND, Legend, by_name, named, source_codes

NAMES = {
    "corine": r"corine|clc\d\d|_clc|^clc",
    "worldcover": r"worldcover",
    "dynamic_world": r"dynamic.?world",
    "cdl": r"(?<![a-z])cdls?(?![a-z])|cropland.?data.?layer",
}
"""What the names of files tell."""
NOTHING = {"corine": {45, 46, 47, 48, 128, 255, 999, -128}, "cdl": {255}, "worldcover": {255}, "dynamic_world": {255}}
"""Values beside the declared nodata and 0 that mean: no class."""
MAX_GRID_CODE = 48
# Colours survive palettes of 5 or 6 bits a channel within this.
COLOR_TOLERANCE = 8
# Without overviews a larger file is known by the piece that is asked for only.
SMALL_FILE_PX = 4_000_000
SAMPLE_PX = 512
# With fewer, values tell nothing for sure.
ENOUGH_VALUES = 3
SHOWN = 12


@dataclass(frozen=True)
class Reading:
    """How the values of a file become classes."""

    legend: Legend
    """As it will stand in the mask."""
    classes: dict[int, int]
    """Value to class."""
    nothing: frozenset[int]
    """Values known to be no class."""
    told_by: str
    """What the legend was taken from."""
    shifted_by: int = 0
    """What was added to each code, as 0 is the background."""


def reading_of(source: Any, name: str, band: int, legend: Legend | None, values: set[int]) -> Reading:
    """How a file's values become classes. `values` are those under the grid, where they matter."""
    found, told_by = (legend, "given") if legend is not None else _recognised(source, name, band, values)
    nothing = {BACKGROUND} | NOTHING.get(found.name, set())
    classes = {code: code for code in found.codes}
    if found.name in named() and by_name(found.name).at(found.level).codes == found.codes:
        # The file may hold the finest classes where coarser ones are wanted.
        finest = by_name(found.name)
        classes |= dict(zip(finest.codes, finest.up(finest.codes, found.level).tolist(), strict=True))
    if found.name == "corine" and _are_grid_codes(source, band, found, values - nothing):
        classes = {int(grid): classes[code] for grid, code in source_codes("corine", "grid").items() if code in classes}
    shift = 1 if BACKGROUND in found else 0
    if shift:
        found = found.shifted(shift)
        classes = {value: code + shift for value, code in classes.items()}
    return Reading(found, classes, frozenset(nothing), told_by, shift)


def _are_grid_codes(source: Any, band: int, legend: Legend, values: set[int]) -> bool:
    """Whether values of a CORINE map are the numbers 1 to 44 by which it is published as a raster.

    The codes of the coarser levels are small numbers too. A file that carries a legend has the codes of one; of
    another file that a coarser level is wanted of, all values are looked at for one that only either of them has.
    """
    if _written(source, band) is not None or max(values, default=0) > MAX_GRID_CODE:
        return False
    if not values <= set(legend.codes):
        return True
    seen = values | _sample(source, band) - NOTHING["corine"] - {BACKGROUND}
    return not seen <= set(legend.codes) and max(seen) <= MAX_GRID_CODE


def _written(source: Any, band: int) -> str | None:
    """The legend that the file itself carries, as `to_geotiff` writes it."""
    text: str | None = {**source.tags(), **source.tags(band)}.get("legend")
    return text


def _recognised(source: Any, name: str, band: int, values: set[int]) -> tuple[Legend, str]:
    """The legend of a file that nobody named, and what told it."""
    if written := _written(source, band):
        return Legend.from_json(written), "the file's tags"
    stem = Path(name).stem.lower()
    by_its_name = [known for known, pattern in NAMES.items() if re.search(pattern, stem)]
    if len(by_its_name) == 1 and _holds(by_its_name[0], values):
        return by_name(by_its_name[0]), "the file's name"
    by_color = [known for known in NAMES if _colored(source, band, known, values)]
    if len(by_color) == 1:
        return by_name(by_color[0]), "the file's colour table"
    seen = values | _sample(source, band)
    # Small numbers are in every legend; only a set that one legend alone can explain tells which it is.
    by_value = [known for known in named() if _holds(known, seen)]
    if len(by_value) == 1 and by_value[0] in NAMES and len(seen - {BACKGROUND}) >= ENOUGH_VALUES:
        return by_name(by_value[0]), "the file's values"
    if not seen:  # nothing there that would need a name
        return Legend("unknown", ()), "nothing"
    fits = (
        f"which {' and '.join(by_value)} both know"
        if len(by_value) == 2
        else (f"which {', '.join(by_value)} would fit" if by_value else "which no legend we know fits")
    )
    raise InputError(
        f"{name} does not tell what its values mean: it holds {listed(seen)}, {fits}. Say"
        " legend='worldcover' or another of deepsentinel.legend.named(), or give a Legend of your own;"
        " Legend.of_codes([..]) takes the numbers as they are."
    )


def _holds(name: str, values: set[int]) -> bool:
    """Whether all values are codes of a legend, or no class at all."""
    codes = set(by_name(name).codes)
    grid = {int(code) for code in source_codes("corine", "grid")} if name == "corine" else set()
    values = values - {BACKGROUND} - NOTHING.get(name, set())
    return values <= codes or (bool(grid) and values <= grid)


def _colored(source: Any, band: int, name: str, values: set[int]) -> bool:
    """Whether the file paints the values it holds as a legend does."""
    try:
        colors = source.colormap(band)
    except ValueError:
        return False
    legend = by_name(name)
    table = {code: color[:3] for code, color in legend.color_table().items()}
    if name == "corine":
        table |= {int(value): table[code] for value, code in source_codes("corine", "grid").items()}
    values = values - {BACKGROUND} - NOTHING[name] if BACKGROUND not in legend else values - NOTHING[name]
    return bool(values) and all(
        value in table
        and value in colors
        and max(abs(a - b) for a, b in zip(table[value], colors[value][:3], strict=True)) <= COLOR_TOLERANCE
        for value in values
    )


def _sample(source: Any, band: int) -> set[int]:
    """Values from all over the file, where that does not mean to read all of it."""
    if not source.overviews(band) and source.width * source.height > SMALL_FILE_PX:
        return set()
    shape = (min(source.height, SAMPLE_PX), min(source.width, SAMPLE_PX))
    sample = integers(source.read(band, out_shape=shape, masked=True), name_of(source.name))
    return values_in(sample)


def integers(values: np.ma.MaskedArray, name: str) -> np.ma.MaskedArray:
    """Values of any type as whole numbers, NaN as nothing."""
    if values.dtype.kind != "f":
        return values
    values = np.ma.masked_invalid(values)
    whole = np.ma.round(values)
    broken = np.ma.compressed(values[values != whole])
    if broken.size:
        raise InputError(f"{name} holds fractions such as {broken[0]:g}; classes are integers.")
    return np.ma.array(whole.filled(0).astype("int64"), mask=np.ma.getmaskarray(whole))


def values_in(values: np.ma.MaskedArray) -> set[int]:
    """The different ones among integers."""
    held = values.compressed()
    if held.dtype.itemsize <= 2 and held.size:
        lowest = int(held.min())
        return {lowest + int(step) for step in np.flatnonzero(np.bincount(held.astype("int64") - lowest))}
    return {int(value) for value in np.unique(held)}


def listed(values: set[int]) -> str:
    """Values in a sentence."""
    found = sorted(values)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(map(str, found[:SHOWN])) + more


def name_of(path: Any) -> str:
    """What to call a file in a message."""
    return Path(str(path)).name
