"""Which pictures can be drawn of a patch, of masks or of maps of an embedding, and each as a panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from deepsentinel.bands import S1_BANDS, sensor_of

from . import embeddings, masks
from .panels import Panel, panel
from .slides import minute, time_of
from .stretch import VIEWS, coarsen

if TYPE_CHECKING:
    import xarray as xr

# More pixels than this on a side are not visible in a panel, and slow the drawing down.
PANEL_MAX_PX = 1000


def picture_of(each: xr.Dataset, name: str) -> Panel:
    """One panel of a patch, of masks, or of the maps of an embedding.

    >>> import numpy as np, xarray as xr
    >>> picture_of(xr.Dataset({"VV": (("y", "x"), np.full((2, 2), -9, "float32"))}), "VV").heading
    'VV'
    """
    if name in embeddings.HEADINGS:
        return embeddings.map_panel(each, name)
    if name == "class_map" and embeddings.is_embedded(each) and not has_bands(each):
        return embeddings.groups_panel(masks.mask_panel(each, name), each)
    return masks.mask_panel(each, name) if name in masks.HEADINGS else patch_pictures(each, [name])[0]


def patch_pictures(patch: xr.Dataset, names: Sequence[str]) -> list[Panel]:
    """The panels of a patch that bear these names, with when they were taken below their headings.

    >>> import numpy as np, xarray as xr
    >>> patch = xr.Dataset({"VV": (("y", "x"), np.full((2, 2), -9, "float32"))}, attrs={"orbit": "ascending"})
    >>> patch_pictures(patch, ["VV"])[0].notes
    ('date not recorded', 'ascending')
    """
    small = coarsen(patch[_needed(patch, names)], PANEL_MAX_PX)
    pictures = [panel(small, name) for name in names]
    return [replace(picture, notes=tuple(_when(patch, picture.sensor))) for picture in pictures]


def available(each: xr.Dataset) -> list[str]:
    """The panels that can be drawn of a patch or of masks: views that its bands make, bands, and layers of masks.

    >>> import numpy as np, xarray as xr
    >>> available(xr.Dataset({"VV": (("y", "x"), np.zeros((2, 2), "float32"))}))
    ['VV']
    """
    held = [str(name) for name in each.data_vars if sensor_of(str(name))]
    views = [view.name for view in VIEWS.values() if set(view.bands) <= set(held)]
    if {"HH", "HV"} <= set(held):  # the composite takes either pair
        views.append("s1")
    layers = (*masks.HEADINGS, *embeddings.HEADINGS)
    return [*views, *held, *(name for name in layers if name in each.data_vars)]


def has_bands(each: xr.Dataset) -> bool:
    """Whether a Dataset holds anything that a Sentinel measured.

    >>> import xarray as xr
    >>> has_bands(xr.Dataset({"class_map": ("x", [1])}))
    False
    """
    return any(sensor_of(str(name)) for name in each.data_vars)


def _needed(patch: xr.Dataset, names: Sequence[str]) -> list[str]:
    """The variables these panels are made of, and SCL, which tells the stretch where clouds are."""
    wanted = {"SCL", *(band for name in names for band in (VIEWS[name].bands if name in VIEWS else (name,)))}
    if "s1" in names:
        wanted |= {band for band in S1_BANDS if band in patch.data_vars}
    return [str(name) for name in patch.data_vars if name in wanted]


def _when(patch: xr.Dataset, sensor: str) -> list[str]:
    time = time_of(patch, sensor)
    parts = ["date not recorded" if time is None else minute(time)]
    attrs = patch.attrs
    if sensor == "S1":
        backscatter = {"gamma0_rtc": "gamma0 RTC"}.get(str(attrs.get("backscatter")), attrs.get("backscatter"))
        parts += [str(part) for part in (attrs.get("orbit"), backscatter) if part]
    else:
        baseline = f"baseline {attrs['baseline']}" if attrs.get("baseline") else None
        parts += [str(part) for part in (attrs.get("level"), baseline) if part]
    return parts
