"""One picture of a patch: which ones suit it, and each with all that its legend needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepsentinel.bands import REFLECTANCE_SCALE, S1_BANDS, S2_BANDS, SCL_CLASSES, sensor_of

from .stretch import SCL_COLOURS, VIEWS, has_data, limits_of, polarisations, to_rgb

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.colors import Colormap


@dataclass(frozen=True)
class Panel:
    """One picture of a patch, ready to be drawn."""

    name: str
    """The view or band it shows."""
    sensor: str
    """ "S1" or "S2"; nothing for a mask."""
    heading: str
    """Its name in words."""
    image: np.ndarray
    """uint8, shape (rows, cols, 3)."""
    known: np.ndarray
    """Where there is data: bool, shape (rows, cols)."""
    channels: tuple[str, ...] = ()
    """What red, green and blue are, for a composite."""
    bar: tuple[float, float, str] | None = None
    """The values at both ends of the scale and the unit, for a picture of one quantity."""
    scale: str | Colormap = "gray"
    """The colours of that scale."""
    keys: tuple[tuple[tuple[int, int, int], str], ...] = ()
    """Colour and name of each class it holds, for a classification."""
    notes: tuple[str, ...] = ()
    """What stands under its heading, the most important first."""

    @property
    def legend_rows(self) -> int:
        """How many lines its legend takes."""
        return max(1, -(-len(self.keys) // 2))


def default_panels(patch: xr.Dataset) -> list[str]:
    """What a patch is best shown as, given the bands it holds: at most two pictures a sensor.

    >>> import numpy as np, xarray as xr
    >>> default_panels(xr.Dataset({"VV": (("y", "x"), np.zeros((2, 2), "float32"))}))
    ['VV']
    """
    held = [str(name) for name in patch.data_vars]
    s2 = [view.name for view in VIEWS.values() if view.sensor == "S2" and set(view.bands) <= set(held)][:2]
    s2 = s2 or [name for name in held if name in S2_BANDS][:2]
    s1: list[str] = []
    if any(name in S1_BANDS for name in held):
        co, cross = polarisations(patch)
        s1 = [co] if cross is None else [co, "s1"]
    return s2 + s1


def panel(patch: xr.Dataset, name: str, limits: Sequence[tuple[float, float]] | None = None) -> Panel:
    """One picture of a patch with all that its legend needs. `limits` as in `stretch.limits_of`.

    >>> import numpy as np, xarray as xr
    >>> panel(xr.Dataset({"VV": (("y", "x"), np.full((2, 2), -9, "float32"))}), "VV").bar
    (-14.0, -8.0, 'dB')
    """
    if name in VIEWS:
        view = VIEWS[name]
        image = to_rgb(patch, name, limits=limits)
        bands = [band for band in polarisations(patch) if band] if name == "s1" else list(view.bands)
        channels = (*bands, "/".join(bands)) if name == "s1" else view.channels
        return Panel(name, view.sensor, view.title, image, has_data(patch, bands), channels=channels)
    sensor = str(sensor_of(name))
    known = has_data(patch, [name])
    values = patch[name].values
    if name == "SCL":
        lookup = np.array([SCL_COLOURS[code] for code in sorted(SCL_COLOURS)], "uint8")
        present = [int(code) for code in np.unique(values) if code]
        keys = tuple((SCL_COLOURS[code], SCL_CLASSES[code].removesuffix(" probability")) for code in present)
        return Panel(name, sensor, "scene classification", lookup[values], known, keys=keys)
    if name == "angle":
        seen = values[known] if known.any() else np.zeros(1)
        low, high, units = float(seen.min()), max(float(seen.max()), float(seen.min()) + 0.1), "degrees"
    else:
        (low, high), units = (limits or limits_of(patch, name))[0], "dB" if name in S1_BANDS else "reflectance"
        values = values if name in S1_BANDS else values / REFLECTANCE_SCALE
    grey = (np.nan_to_num(np.clip((values - low) / (high - low), 0, 1)) * 255).astype("uint8")
    heading = {"angle": "incidence angle"}.get(name, name)
    return Panel(name, sensor, heading, np.stack([grey] * 3, axis=-1), known, bar=(low, high, units))
