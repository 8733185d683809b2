"""Pictures of predictions: what a model says is where, how sure it is, and the image that it looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.bands import sensor_of
from deepsentinel.contract import check_patch
from deepsentinel.errors import InputError

from . import credits, masks, slides
from .panels import Panel, default_panels
from .sheets import ClassTable, sheet

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

UNCERTAINTY = "uncertainty"
SENSORS = {"s1": "Sentinel-1", "s2": "Sentinel-2", "both": "Sentinel-1 and Sentinel-2"}
DOUBT = {"entropy": "entropy, share of its largest", "margin": "1 - lead of the first class"}
SCALE = "magma"
PANEL_MAX_PX = 1000
WHERE_NOT = "not seen"


def is_prediction(obj: Any) -> bool:
    """Whether this is what `predict` gives of a piece of ground, by itself or merged into a patch; or a list with one.

    >>> import xarray as xr
    >>> layers = {"class_map": (("y", "x"), np.ones((2, 2), "uint8")), "uncertainty": (("y", "x"), np.zeros((2, 2)))}
    >>> is_prediction(xr.Dataset(layers)), is_prediction([xr.Dataset(layers)]), is_prediction(xr.Dataset())
    (True, True, False)
    """
    if isinstance(obj, (tuple, list)):
        maps = [each for each in obj if _is_map(each)]
        return len(maps) == 1 and all(_has_bands(each) for each in obj if each is not maps[0])
    return _is_map(obj)


def _is_map(obj: Any) -> bool:
    held = {str(name) for name in getattr(obj, "data_vars", ())}
    return {"class_map", UNCERTAINTY} <= held or ("value" in held and "task" in getattr(obj, "attrs", ()))


def _has_bands(obj: Any) -> bool:
    return any(sensor_of(str(name)) for name in getattr(obj, "data_vars", ()))


def prediction_figure(obj: xr.Dataset | Sequence[xr.Dataset], *, title: str | None = None) -> Figure:
    """The image, if it is there, the classes with the legend of those that occur, and how sure the model is.

    >>> import xarray as xr
    >>> from deepsentinel.grids import grid_coords
    >>> import deepsentinel as ds
    >>> place = grid_coords(ds.geobox((2.0, 48.0, 2.001, 48.001)))
    >>> shape = place["y"].size, place["x"].size
    >>> layers = {
    ...     "class_map": (("y", "x"), np.ones(shape, "uint8"), {"flag_values": [1], "flag_meanings": "reed"}),
    ...     "uncertainty": (("y", "x"), np.zeros(shape, "float32")),
    ... }
    >>> prediction_figure(xr.Dataset(layers, place, {"encoder": "fusion-nano", "sensors": "s1"})).texts[0].get_text()
    '1 class by fusion-nano, from Sentinel-1'
    """
    several: list[Any] = list(obj) if isinstance(obj, (tuple, list)) else [obj]
    made: xr.Dataset = next(each for each in several if _is_map(each))
    if "sample" in made.dims:
        raise InputError(
            "These are the maps of a corpus, which lie apart; show one of them: ds.show(ds.patch_of(result, 0))."
        )
    patch = next((each for each in several if _has_bands(each)), None)
    masks.check_masks(made)
    if patch is not None and patch is not made:
        check_patch(patch)
        masks.check_same_ground([patch, made])
    name = "class_map" if "class_map" in made.data_vars else "value"
    pictures = [] if patch is None else _images(patch)
    pictures.append(replace(masks.mask_panel(made, name), notes=_notes(made)))
    if UNCERTAINTY in made.data_vars:
        pictures.append(doubt_panel(made))
    told = {**(patch.attrs if patch is not None else {}), **made.attrs}
    return sheet(
        pictures,
        made.sizes["x"] / made.sizes["y"],
        slides.metres_per_px(made)[1] * made.sizes["x"],
        headline=title or headline(made),
        subtitle=_ids(told),
        footer=slides.place(made),
        credit=slides.credit_of(told, slides.years_of(made)) if told.get("source") else "deepsentinel",
        classes=_table(made, imaginary=credits.imaginary(made) or told.get("source") == "demo")
        if name == "class_map"
        else None,
    )


def headline(made: xr.Dataset) -> str:
    """What a map is, in one line.

    >>> import xarray as xr
    >>> headline(xr.Dataset({"class_map": (("y", "x"), np.array([[1, 2, 0]], "uint8"))}))
    '2 classes by a model'
    """
    who = str(made.attrs.get("encoder", "a model"))
    seen = SENSORS.get(str(made.attrs.get("seen", "")), SENSORS.get(str(made.attrs.get("sensors", "")), ""))
    words = f"{who}, from {seen}" if seen else who
    if "class_map" not in made.data_vars:
        return f"{masks.heading(made, 'value')} by {words}"
    return f"{slides.counted(_count(made), 'class')} by {words}"


def doubt_panel(made: xr.Dataset) -> Panel:
    """How unsure the model is, on one scale for all maps: 0 to 1.

    >>> import xarray as xr
    >>> made = xr.Dataset({"uncertainty": (("y", "x"), np.array([[0.5, np.nan]], "float32"))})
    >>> doubt_panel(made).bar, doubt_panel(made).known.tolist()
    ((0.0, 1.0, ''), [[True, False]])
    """
    from matplotlib import colormaps

    layer = made[UNCERTAINTY]
    step = max(1, -(-max(layer.shape) // PANEL_MAX_PX))
    values = np.asarray(layer.isel(y=slice(step // 2, None, step), x=slice(step // 2, None, step)).values, "float32")
    known = np.isfinite(values)
    table = (colormaps[SCALE](np.linspace(0, 1, 256))[:, :3] * 255).round().astype("uint8")
    image = table[(np.clip(np.where(known, values, 0), 0, 1) * 255).astype(int)]
    mean = f"{float(values[known].mean()):.2f} on the average" if known.any() else "nothing was seen"
    kind = DOUBT.get(str(made.attrs.get("uncertainty", "")), "the brighter, the less sure")
    return Panel(UNCERTAINTY, "", "Uncertainty", image, known, bar=(0.0, 1.0, ""), scale=SCALE, notes=(mean, kind))


def _images(patch: xr.Dataset) -> list[Panel]:
    """One picture, of what a person knows to read best."""
    from .pictures import patch_pictures

    return patch_pictures(patch, default_panels(patch)[:1])


def _count(made: xr.Dataset) -> int:
    found = np.unique(made["class_map"].values)
    return int((found != 0).sum())


def _notes(made: xr.Dataset) -> tuple[str, ...]:
    seen = [(sensor, slides.time_of(made, sensor)) for sensor in ("S2", "S1")]
    times = [f"{sensor} {slides.day_words(time)}" for sensor, time in seen if time is not None]
    size = f"{slides.metres_per_px(made)[1]:.3g} m"
    return (", ".join(times), size) if times else (size,)


def _table(made: xr.Dataset, *, imaginary: bool) -> ClassTable:
    """The classes that occur; what has none was not seen, or is of no class."""
    table = masks.class_table([made], imaginary=imaginary)
    unseen = ~np.isfinite(made[UNCERTAINTY].values) if UNCERTAINTY in made.data_vars else masks.labelled(made)
    empty = made["class_map"].values == 0
    words = WHERE_NOT if bool((unseen == empty).all()) else f"background or {WHERE_NOT}"
    if not unseen.any():
        words = "background"
    return replace(
        table, rows=tuple((colours, number, words if not colours else name) for colours, number, name in table.rows)
    )


def _ids(told: Any) -> str:
    return "   ·   ".join(str(told[key]) for key in ("s2_id", "s1_id") if told.get(key))
