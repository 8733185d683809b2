"""A sample of a corpus as pictures: its masks stand beside its bands, each on the grid it was burnt on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deepsentinel.bands import sensor_of

if TYPE_CHECKING:
    import xarray as xr

Panels = Sequence[str] | None
# What labels={...} of a corpus may have as layers.
LAYERS = ("class_map", "conflict", "parcel_id", "coverage", "overlap")


def taken_apart(obj: Any, panels: Panels = None) -> tuple[Any, Panels]:
    """What `show` draws of a patch with masks such as `corine_class_map`: a list of the patch and its masks.

    `panels` may name the masks as the patch does. Anything else is given back as it is, save that a mask with
    dimensions of its own (y_corine, x_corine) gets those that all others have.

    >>> import numpy as np, xarray as xr
    >>> made = {"VV": (("y", "x"), np.ones((2, 2))), "lc_class_map": (("y_lc", "x_lc"), np.ones((4, 4), "uint8"))}
    >>> [list(each.data_vars) for each in taken_apart(xr.Dataset(made))[0]]
    [['VV'], ['class_map']]
    """
    if isinstance(obj, list | tuple):
        return [_plain(each) for each in obj], panels
    masks = _masks_of(obj) if hasattr(obj, "data_vars") else {}
    # Dates of a series make a strip of their own, and all samples a page.
    if not masks or {"sample", "s1_time", "s2_time"} & set(obj.dims):
        return _plain(obj), panels
    bands = obj.drop_vars([*(name for names in masks.values() for name in names), *_own_dims(obj)])
    asked = [panels] if isinstance(panels, str) else list(panels) if panels is not None else None
    named = {name: layer for names in masks.values() for name, layer in names.items()}
    parts = []
    if bands.data_vars:
        parts.append(bands)
        if asked is None:  # side by side each gives one picture, and radar is worth one of its own
            sensors = {sensor: _of_sensor(bands, sensor) for sensor in ("S1", "S2")}
            parts += [bands[sensors["S1"]]] if all(sensors.values()) else []
    for prefix, names in masks.items():
        # Of masks that are asked for by name the others stay away.
        kept = {name: layer for name, layer in names.items() if asked is None or not set(asked) & set(named)}
        kept |= {name: layer for name, layer in names.items() if asked is not None and name in asked}
        if kept:
            layers = _on_grid(obj[list(kept)]).rename(kept)
            parts.append(layers.assign_attrs(labels=prefix, **_source(obj)))
    wanted = None if asked is None else list(dict.fromkeys(named.get(name, name) for name in asked))
    return parts, wanted


def _masks_of(obj: xr.Dataset) -> dict[str, dict[str, str]]:
    """The labels in a patch, and which variable is which layer of theirs."""
    found: dict[str, dict[str, str]] = {}
    for name in map(str, obj.data_vars):
        layer = _layer(name)
        if layer:
            found.setdefault(name.removesuffix(f"_{layer}"), {})[name] = layer
    return found


def _layer(name: str) -> str:
    """Which layer a variable of a corpus is; nothing where it is none.

    >>> _layer("corine_class_map"), _layer("class_map"), _layer("B04")
    ('class_map', '', '')
    """
    return next((one for one in LAYERS if name.endswith(f"_{one}")), "")


def _of_sensor(bands: xr.Dataset, sensor: str) -> list[str]:
    return [str(name) for name in bands.data_vars if sensor_of(str(name)) == sensor]


def _own_dims(obj: xr.Dataset) -> list[str]:
    return [str(dim) for dim in obj.dims if str(dim).startswith(("y_", "x_")) and dim in obj.coords]


def _plain(each: Any) -> Any:
    """One mask of a sample as `show` takes masks."""
    is_array = hasattr(each, "to_dataset") and not hasattr(each, "data_vars")
    if not is_array or not _layer(str(each.name)):
        return each
    return (_on_grid(each) if _is_own(each.dims) else each).rename(_layer(str(each.name)))


def _is_own(dims: Sequence[Any]) -> bool:
    names = [str(dim) for dim in dims]
    return len(names) == 2 and names[0].startswith("y_") and names[1] == f"x_{names[0][2:]}"


def _on_grid(each: Any) -> Any:
    """With the dimensions y and x, and no others."""
    dims = [str(dim) for dim in each.dims if dim not in ("y", "x")]
    if not dims:
        return each
    return each.drop_vars(["y", "x"], errors="ignore").rename({dim: dim[0] for dim in dims})


def _source(obj: Any) -> dict[str, Any]:
    return {key: obj.attrs[key] for key in ("source",) if key in obj.attrs}
