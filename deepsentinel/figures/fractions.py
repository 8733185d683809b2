"""Class fractions: a small map for each of the largest classes, the darker the more of a pixel it covers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError
from deepsentinel.legend import Legend

from . import credits, slides
from .panels import Panel
from .sheets import sheet

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

DRAWN = 8
PANEL_MAX_PX = 600
# A heading is as wide as the narrowest panel.
LONGEST_NAME = 23


def is_fractions(obj: Any) -> bool:
    """Whether this is what `class_fractions` gives: shares of each pixel, class by class.

    >>> import xarray as xr
    >>> is_fractions(xr.DataArray(np.zeros((1, 2, 2)), {"class": [7]}, ("class", "y", "x")))
    True
    """
    return not hasattr(obj, "data_vars") and getattr(obj, "dims", ()) == ("class", "y", "x") and "class" in obj.coords


def class_names(shares: xr.DataArray) -> list[str]:
    """What each class is called; its number where it has no name.

    >>> import xarray as xr
    >>> class_names(xr.DataArray(np.zeros((1, 2, 2)), {"class": [7]}, ("class", "y", "x")))
    ['7']
    """
    named = shares["class_name"] if "class_name" in shares.coords else shares["class"]
    return [str(name) for name in np.atleast_1d(named.values)]


def positions(shares: xr.DataArray, wanted: Sequence[Any]) -> list[int]:
    """Which channels are meant by names or codes of classes.

    >>> import xarray as xr
    >>> shares = xr.DataArray(np.zeros((2, 2, 2)), {"class": [7, 9]}, ("class", "y", "x"))
    >>> positions(shares, [9, "7"])
    [1, 0]
    """
    known: dict[Any, int] = {int(code): at for at, code in enumerate(shares["class"].values)}
    known |= {str(code): at for code, at in known.items()} | {name: at for at, name in enumerate(class_names(shares))}
    given = [wanted] if isinstance(wanted, (str, int)) else list(wanted)
    if lost := [name for name in given if name not in known]:
        listed = ", ".join(
            f"{code} {name!r}" for code, name in zip(shares["class"].values, class_names(shares), strict=True)
        )
        raise InputError(f"There is no class {lost[0]!r} among these fractions; there are {listed[:600]}.")
    if not given:
        raise InputError("No class was named; give codes or names of classes, or leave it out.")
    return [known[name] for name in given]


def fractions_figure(shares: xr.DataArray, *, panels: Sequence[Any] | None, title: str | None) -> Figure:
    """The largest classes side by side, or those that `panels` names.

    >>> import xarray as xr
    >>> from pyproj import CRS
    >>> shares = xr.DataArray(
    ...     np.stack([np.full((4, 4), 0.25), np.full((4, 4), 0.5)]),
    ...     {"class": [7, 9], "y": 35.0 - 10 * np.arange(4), "x": 5.0 + 10 * np.arange(4), "spatial_ref": 0},
    ...     ("class", "y", "x"),
    ... )
    >>> shares["spatial_ref"].attrs["crs_wkt"] = CRS.from_epsg(32631).to_wkt()
    >>> [text.get_text() for text in fractions_figure(shares, panels=None, title=None).texts if "%" in text.get_text()]
    ['50 % of the ground', '25 % of the ground']
    """
    missing = [name for name in ("x", "y", "spatial_ref") if name not in shares.coords]
    if missing:
        raise InputError(f"These fractions have no {' and '.join(missing)}, so nobody knows where they lie.")
    legend = Legend.from_attrs(shares["class"].attrs)
    names = class_names(shares)
    means = np.array([float(np.nanmean(layer)) if layer.size else 0.0 for layer in shares.values])
    held = np.flatnonzero(means > 0)
    chosen = positions(shares, panels) if panels is not None else held[np.argsort(-means[held], kind="stable")][:DRAWN]
    if not len(chosen):
        raise InputError("No class covers any of this ground, so there is nothing to show; see shares.max().")
    codes = [int(code) for code in shares["class"].values]
    rgb = legend.color_table() if legend is not None else {}
    pictures = [_panel(shares, at, names[at], rgb.get(codes[at], (0, 114, 178))[:3], means[at]) for at in chosen]
    rows, columns = shares.sizes["y"], shares.sizes["x"]
    ground = shares.isel({"class": 0}, drop=True).to_dataset(name="share").assign_attrs(shares.attrs)
    subtitle = f"the {len(chosen)} largest are drawn" if panels is None and len(held) > len(chosen) else ""
    drawn = slides.counted(len(held), "class")
    of_all = f" of {len(names)}" if len(names) > len(held) else ""
    return sheet(
        pictures,
        columns / rows,
        slides.metres_per_px(ground)[1] * columns,
        headline=title or f"How much of each pixel {drawn}{of_all} cover{'s' if len(held) == 1 else ''}",
        subtitle=subtitle,
        footer=slides.place(ground),
        credit=credits.made_credit(ground, legend),
    )


def _panel(shares: xr.DataArray, at: int, name: str, colour: Sequence[int], mean: float) -> Panel:
    from matplotlib.colors import LinearSegmentedColormap

    layer = np.asarray(shares[at].values, dtype="float64")
    factor = max(1, -(-max(layer.shape) // PANEL_MAX_PX))
    rows, columns = (side // factor * factor for side in layer.shape)
    small = layer[:rows, :columns].reshape(rows // factor, factor, columns // factor, factor).mean(axis=(1, 3))
    ink = np.asarray(colour, dtype="float64")
    # Pale colours would not stand out of the white of nothing.
    ink = ink * min(1.0, 150 / max(float(ink @ [0.299, 0.587, 0.114]), 1.0))
    image = 255 - (255 - ink) * np.clip(np.nan_to_num(small), 0, 1)[..., None]
    scale = LinearSegmentedColormap.from_list("share", ["white", tuple(ink / 255)])
    percent = "under 0.1 %" if mean < 0.001 else f"{100 * mean:.2g} %"
    short = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1].rstrip(" ,") + "…"
    notes = (f"{percent} of the ground", *([name] if name != short else []))
    return Panel(
        "class_fraction", "", short, image.astype("uint8"), np.isfinite(small), (), (0, 1, "share"), scale, (), notes
    )
