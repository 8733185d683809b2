"""Pictures of masks: classes in the colours of their legend, how much of a pixel is covered, and where claims conflict.

A Dataset of masks makes a page of its own, masks merged into a patch are panels like any other, and several Datasets
of the same ground stand side by side (a patch, its masks at 10 m, and those at 2.5 m).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError
from deepsentinel.legend import Legend

from . import credits, slides
from .panels import Panel
from .sheets import ClassTable, Colour

if TYPE_CHECKING:
    import xarray as xr

_Class = tuple[int, str]
HEADINGS: Mapping[str, str] = {
    "class_map": "Classes",
    "value": "Values",
    "parcel_id": "Polygons",
    "coverage": "Coverage",
    "conflict": "Conflict",
    "distance": "Distance to the boundary",
    "overlap": "Overlap",
}
"""The layers of a mask that can be drawn, and what stands above each."""
DEFAULT_PANELS = ("class_map", "value", "coverage", "conflict", "distance", "overlap")
MIXED, ERROR = (0, 114, 178), (213, 94, 0)  # blue and vermilion of Okabe and Ito: apart for every colour vision
LISTED = 12
"""Classes with a line of their own in the legend; the rest share one."""
# How far the classes fade behind the conflicts.
FAINT_SHARE = 0.78
NEUTRAL = (236, 238, 240)
PANEL_MAX_PX = 1000
# Finer than this, a conflict in one pixel would be lost between the dots of a screen.
CONFLICT_MAX_PX = 500


def is_masks(obj: Any) -> bool:
    """Whether a Dataset holds at least one layer that `mask_panel` draws.

    >>> import xarray as xr
    >>> is_masks(xr.Dataset({"conflict": (("y", "x"), np.zeros((2, 2), "uint8"))}))
    True
    """
    return any(name in HEADINGS for name in obj.data_vars)


def default_layers(masks: xr.Dataset) -> list[str]:
    """The layers that tell most of a mask: those of `DEFAULT_PANELS`, or whatever it holds.

    >>> import xarray as xr
    >>> default_layers(xr.Dataset({"distance": (("y", "x"), np.zeros((2, 2), "float32"))}))
    ['distance']
    """
    held = [name for name in HEADINGS if name in masks.data_vars]
    return [name for name in DEFAULT_PANELS if name in held] or held


def opened(obj: Any) -> Any:
    """One layer of a mask as a Dataset of this layer; anything else as it is.

    >>> import xarray as xr
    >>> layer = xr.DataArray(np.zeros((2, 2), "uint8"), dims=("y", "x"), name="conflict")
    >>> list(opened(layer).data_vars), opened("a word")
    (['conflict'], 'a word')
    """
    if not hasattr(obj, "to_dataset") or hasattr(obj, "data_vars") or obj.dims != ("y", "x"):
        return obj
    if obj.name in HEADINGS:
        return obj.to_dataset()
    # A class map under another name is known by its legend.
    is_classes = obj.dtype.kind in "iub" and Legend.from_attrs(obj.attrs) is not None
    return obj.to_dataset(name="class_map") if is_classes else obj


def heading(masks: xr.Dataset, name: str) -> str:
    """What stands above a layer; values are called by their column, where the mask tells it.

    >>> import xarray as xr
    >>> layer = xr.DataArray(np.zeros((2, 2)), dims=("y", "x"), name="value", attrs={"column": "yield_t_ha"})
    >>> heading(opened(layer), "value"), heading(opened(layer), "overlap")
    ('Values of yield_t_ha', 'Overlap')
    """
    told = masks[name].attrs if name in masks else {}
    column = told.get("column", told.get("long_name", "value")) if name == "value" else "value"
    return HEADINGS[name] if column == "value" else f"Values of {column}"


def mask_panel(masks: xr.Dataset, name: str) -> Panel:
    """One layer of a mask with all that its legend needs.

    >>> import xarray as xr
    >>> cover = xr.Dataset({"coverage": (("y", "x"), np.array([[0, 0.5]], "float32"))})
    >>> mask_panel(cover, "coverage").known.tolist()
    [[False, True]]
    """
    if name == "conflict":
        return _conflict_panel(masks)
    small = _thinned(masks, PANEL_MAX_PX)
    values = np.asarray(small[name].values)
    if name == "class_map":
        return Panel(name, "", HEADINGS[name], _painted(small), labelled(small), notes=_rule(masks))
    if name == "parcel_id":
        count = slides.counted(_polygons(masks), "polygon")
        return Panel(name, "", HEADINGS[name], _scattered(values), values != 0, notes=(count,))
    known = labelled(small) & np.isfinite(values)
    low, high, unit, scale, note = _range(name, values[known])
    rgb = _scaled(np.where(known, values, low), low, high, scale)
    return Panel(name, "", heading(masks, name), rgb, known, bar=(low, high, unit), scale=scale, notes=(note,))


def class_table(several: Sequence[xr.Dataset], *, imaginary: bool = False) -> ClassTable:
    """The classes of one or several maps of the same ground, the largest first, with the share of each map they cover.

    `imaginary` ground owes nobody a credit.

    >>> import xarray as xr
    >>> one = xr.Dataset({"class_map": (("y", "x"), np.array([[1, 1], [2, 0]], "uint8"))})
    >>> [(number, name) for _, number, name in class_table([one]).rows]
    [('50.0 %', '1'), ('25.0 %', '2'), ('25.0 %', 'no label')]
    """
    legends = [legend_of(each) for each in several]
    # One code may mean two things in two legends, so a class is its code and its name.
    known = [set(legend.names.items()) for legend in legends]
    counts: list[dict[_Class, float]] = []
    colours: dict[_Class, Colour] = {}
    for each, legend in zip(several, legends, strict=True):
        codes, numbers = np.unique(each["class_map"].values[labelled(each)], return_counts=True)
        names, size = legend.names, each["class_map"].size
        counts.append({(int(code), names[int(code)]): n / size for code, n in zip(codes, numbers, strict=True)})
        colours = {(code, names[code]): entry[:3] for code, entry in legend.color_table().items()} | colours

    def shares(classes: Sequence[_Class]) -> str:
        """Of each map; nothing where its legend knows none of the classes."""
        return _percents(
            sum(count.get(c, 0.0) for c in classes) if own & set(classes) else None
            for count, own in zip(counts, known, strict=True)
        )

    order = sorted({c for count in counts for c in count}, key=lambda c: (-sum(n.get(c, 0) for n in counts), c))
    # A single class beyond the listed ones may as well have that line for itself.
    shown = order if len(order) <= LISTED + 1 else order[:LISTED]
    rest = order[len(shown) :]
    rows: list[tuple[tuple[Colour, ...], str, str]] = [((colours[c],), shares([c]), c[1]) for c in shown]
    if rest:
        rows.append((tuple(colours[c] for c in rest[:6]), shares(rest), f"{len(rest)} smaller classes"))
    if not all(labelled(each).all() for each in several):
        rows.append(((), _percents(1 - sum(count.values()) for count in counts), "no label"))
    credit = "" if imaginary else credits.credit_of_legends(legends)
    titles = ", ".join(dict.fromkeys(filter(None, map(credits.title_of, legends))))
    kind_words = f" ({titles})" if titles else ""
    at = f", {' / '.join(credits.told_apart(several, legends))}" if len(several) > 1 else ""
    return ClassTable(f"Classes{kind_words} and their share of the pixels{at}", tuple(rows), credit)


def masks_headline(masks: xr.Dataset) -> str:
    """What a mask holds, in one line.

    >>> import xarray as xr
    >>> masks_headline(xr.Dataset({"class_map": (("y", "x"), np.array([[1, 1], [2, 0]], "uint8"))}))
    '2 classes cover 75 % of the pixels'
    """
    known = labelled(masks)
    share = _percent(float(known.mean()))
    if "class_map" in masks:
        count = np.unique(masks["class_map"].values[known]).size
        return f"{slides.counted(count, 'class')} cover{'s' if count == 1 else ''} {share} of the pixels"
    if "value" in masks:
        return f"{heading(masks, 'value')} for {share} of the pixels"
    return f"Labels cover {share} of the pixels"


def masks_subtitle(several: Sequence[xr.Dataset]) -> str:
    """How many polygons there are, and how many pixels are in conflict; of the first where there are several.

    >>> import xarray as xr
    >>> masks_subtitle([xr.Dataset({"parcel_id": (("y", "x"), np.array([[7, 7], [9, 0]], "int32"))})])
    '2 polygons'
    """
    masks, parts = several[0], []
    if len(several) > 1:
        parts.append(f"at {slides.metres_per_px(masks)[1]:.3g} m")
    if "parcel_id" in masks:
        parts.append(slides.counted(_polygons(masks), "polygon"))
    if "conflict" in masks:
        mixed, error = (float((masks["conflict"].values == code).mean()) for code in (1, 2))
        parts.append(f"{_percent(mixed)} of the pixels are mixed, {_percent(error)} are claimed twice")
    return "   ·   ".join(parts)


def labelled(masks: xr.Dataset) -> np.ndarray:
    """Where a mask says anything: bool, shape (rows, cols).

    >>> import xarray as xr
    >>> labelled(xr.Dataset({"coverage": (("y", "x"), np.array([[0, 0.5]], "float32"))})).tolist()
    [[False, True]]
    """
    if "class_map" in masks:
        return np.asarray(masks["class_map"].values != int(masks["class_map"].attrs.get("background", 0)))
    if "value" in masks:
        return np.asarray(np.isfinite(masks["value"].values))
    for name in ("parcel_id", "coverage"):
        if name in masks:
            return np.asarray(masks[name].values > 0)
    name = next(name for name in HEADINGS if name in masks)
    return np.ones(masks[name].shape, dtype=bool)


def _conflict_panel(masks: xr.Dataset) -> Panel:
    values = np.asarray(masks["conflict"].values)
    mixed, error = values == 1, values == 2
    factor = _factor(masks, CONFLICT_MAX_PX)
    small = _thinned(masks, CONFLICT_MAX_PX)
    ground = _painted(small) if "class_map" in masks else np.full((*small["conflict"].shape, 3), NEUTRAL, "uint8")
    faint = 255 - (255 - ground.astype("float32")) * (1 - FAINT_SHARE)
    # A pixel of the screen is the bluer the more of it is mixed, but an error must not drown among its neighbours.
    mixed_share = np.sqrt(_cells(mixed, factor).mean(axis=(1, 3)))[..., None]
    picture = faint * (1 - mixed_share) + np.array(MIXED) * mixed_share
    picture[_cells(error, factor).any(axis=(1, 3))] = ERROR
    keys = (
        (MIXED, f"mixed pixel, {_percent(float(mixed.mean()))}"),
        (ERROR, f"claimed twice, {_percent(float(error.mean()))}"),
    )
    known = np.asarray(_cells(labelled(masks) | (values > 0), factor).any(axis=(1, 3)))
    who = "polygons of different classes" if masks.attrs.get("conflict_between") == "class" else "several polygons"
    note = f"pixels that {who} claim"
    return Panel("conflict", "", HEADINGS["conflict"], picture.astype("uint8"), known, keys=keys, notes=(note,))


def _factor(masks: xr.Dataset, max_px: int) -> int:
    rows, cols = masks.sizes["y"], masks.sizes["x"]
    return min(-(-max(rows, cols) // max_px), rows, cols)


def _thinned(masks: xr.Dataset, max_px: int) -> xr.Dataset:
    """The pixel in the middle of each cell of a screen: classes and numbers have no mean."""
    factor = _factor(masks, max_px)
    rows, cols = masks.sizes["y"] // factor, masks.sizes["x"] // factor
    middle = slice(factor // 2, None, factor)
    return masks.isel(y=middle, x=middle).isel(y=slice(rows), x=slice(cols))


def _cells(values: np.ndarray, factor: int) -> np.ndarray:
    rows, cols = (side // factor for side in values.shape)
    return np.asarray(values[: rows * factor, : cols * factor].reshape(rows, factor, cols, factor))


def _polygons(masks: xr.Dataset) -> int:
    numbers = np.unique(masks["parcel_id"].values)
    return int((numbers != 0).sum())


def legend_of(masks: xr.Dataset) -> Legend:
    """The mask's own legend, or numbers as names where it has none or not for all.

    >>> import xarray as xr
    >>> legend_of(xr.Dataset({"class_map": (("y", "x"), np.array([[0, 7]], "uint8"))})).names
    {7: '7'}
    """
    layer = masks["class_map"]
    present = np.unique(layer.values[labelled(masks)])
    legend = Legend.from_attrs(layer.attrs)
    if legend is None:
        return Legend.of_codes(present)
    unnamed = [int(code) for code in present if code not in legend]
    if not unnamed:
        return legend
    return Legend(legend.name, (*legend.classes, *Legend.of_codes(unnamed).classes))


def _painted(masks: xr.Dataset) -> np.ndarray:
    """The class map in the colours of its legend, the background in white."""
    codes, index = np.unique(masks["class_map"].values, return_inverse=True)
    table = {code: entry[:3] for code, entry in legend_of(masks).color_table().items()}
    lookup = np.array([table.get(int(code), (255, 255, 255)) for code in codes], "uint8")
    return np.asarray(lookup[index.reshape(masks["class_map"].shape)])


def _scattered(numbers: np.ndarray) -> np.ndarray:
    """A soft colour for each number, neighbours in number far apart in colour."""
    from matplotlib.colors import hsv_to_rgb

    found, index = np.unique(numbers, return_inverse=True)
    hue = (found * 0.618033988749895) % 1
    tone = (found * 0.754877666246693) % 1
    table = hsv_to_rgb(np.stack([hue, 0.3 + 0.3 * tone, 0.95 - 0.25 * tone], axis=-1))
    return (table * 255).astype("uint8")[index.reshape(numbers.shape)]


def _range(name: str, known: np.ndarray) -> tuple[float, float, str, Any, str]:
    """Both ends of the scale, the unit, the colours, and what the layer is, in words."""
    top = float(known.max()) if known.size else 1.0
    if name == "coverage":
        return 0.0, 1.0, "share", _part("GnBu", 0.1, 0.62), "how much of the pixel its polygon covers"
    if name == "overlap":
        return 0.0, 1.0, "share", "OrRd", "how much of the pixel is claimed more than once"
    if name == "distance":
        return 0.0, max(top, 1.0), "m", "cividis", "from the pixel's centre to the edge of its polygon"
    low = float(known.min()) if known.size else 0.0
    return low, max(top, low + 1e-6 * max(abs(low), 1.0)), "", "viridis", "the value of the winning polygon"


def _part(name: str, start: float, stop: float) -> Any:
    """Part of a colour map of matplotlib's."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps[name](np.linspace(start, stop, 256)))


def _scaled(values: np.ndarray, low: float, high: float, scale: Any) -> np.ndarray:
    from matplotlib import colormaps

    table = (colormaps[scale] if isinstance(scale, str) else scale)(np.linspace(0, 1, 256))[:, :3]
    index = (np.clip((values - low) / (high - low), 0, 1) * 255).astype(int)
    return np.asarray((table * 255).round().astype("uint8")[index])


def _percent(share: float) -> str:
    """A share with the digits that mean something, and never 0 % for what is there.

    >>> _percent(0.1234), _percent(0.00004), _percent(0.0), _percent(0.9999)
    ('12 %', 'under 0.01 %', '0 %', '99.99 %')
    """
    percent = 100 * share
    if percent in (0, 100) or 10 <= percent < 99.5:
        return f"{percent:.0f} %"
    return (
        "under 0.01 %"
        if percent < 0.01
        else f"{percent:.2f} %"
        if percent < 1 or percent > 99.5
        else f"{percent:.1f} %"
    )


def _percents(shares: Iterable[float | None]) -> str:
    numbers = (None if share is None else 100 * share for share in shares)
    return " / ".join("–" if n is None else "<0.1" if 0 < n < 0.05 else f"{n:.1f}" for n in numbers) + " %"


def _rule(masks: xr.Dataset) -> tuple[str, ...]:
    rule = masks.attrs.get("rule")
    words = {
        "coverage": "of the polygon that covers most of the pixel",
        "centre": "of the polygon that holds the pixel's centre",
    }
    return (words[rule],) if rule in words else ()


def check_masks(masks: xr.Dataset) -> None:
    """Refuse masks that nobody can place or that are not two-dimensional.

    >>> import xarray as xr
    >>> check_masks(xr.Dataset({"conflict": (("y", "x"), np.zeros((2, 2), "uint8"))}))
    Traceback (most recent call last):
    ...
    deepsentinel.errors.InputError: These masks have no x, y and spatial_ref, so nobody knows where they lie.
    """
    missing = [name for name in ("x", "y", "spatial_ref") if name not in masks.coords]
    if missing:
        what = f"{', '.join(missing[:-1])}{' and ' if missing[:-1] else ''}{missing[-1]}"
        raise InputError(f"These masks have no {what}, so nobody knows where they lie.")
    for name in HEADINGS:
        if name in masks and masks[name].dims != ("y", "x"):
            raise InputError(f"{name} has dims {masks[name].dims}, expected ('y', 'x'); pick one with .isel(...).")


def check_same_ground(several: Sequence[xr.Dataset]) -> None:
    """Refuse Datasets of which one reaches further than another by more than a pixel.

    >>> import xarray as xr
    >>> ground = xr.Dataset(coords={"y": [15.0, 5.0], "x": [5.0, 15.0], "spatial_ref": 0})
    >>> check_same_ground([ground, ground])
    """
    edges = []
    for each in several:
        x, y = each["x"].values, each["y"].values
        half = abs(x[-1] - x[0]) / max(x.size - 1, 1) / 2
        edges.append(
            [min(x[0], x[-1]) - half, max(x[0], x[-1]) + half, min(y[0], y[-1]) - half, max(y[0], y[-1]) + half]
        )
    pixel = max(abs(float(each["x"][-1] - each["x"][0])) / max(each.sizes["x"] - 1, 1) for each in several)
    if np.ptp(np.array(edges), axis=0).max() > pixel:
        raise InputError(
            "These Datasets do not cover the same ground, so they cannot stand side by side; show them one by one."
        )
