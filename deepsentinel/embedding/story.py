"""What a result tells of itself: which encoder and weights, which pixels, when and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from deepsentinel.encoders.base import Encoder

from .dense import Layout
from .inputs import TIMES, Scene
from .model import fingerprint

UNKNOWN = {"s1_time": np.datetime64("NaT", "ns"), "s2_time": np.datetime64("NaT", "ns")}


@dataclass(frozen=True)
class Origin:
    """What remains of a patch when its pixels are gone."""

    mode: str
    """Which sensors were used."""
    attrs: Mapping[str, Any]
    """Its numbers and words."""
    coords: Mapping[str, Any]
    """When it was seen, and where its middle lies."""
    id: Any = None
    """What it is called; None where nobody named it."""

    @classmethod
    def of(cls, scene: Scene) -> Origin:
        """Of one patch or series."""
        data = scene.data
        attrs = {str(key): value for key, value in data.attrs.items() if isinstance(value, str | int | float)}
        lat, lon = scene.centre()
        name = next(
            (data.coords[key].item() for key in ("id", "sample") if key in data.coords and not data[key].ndim), None
        )
        return cls(scene.mode, attrs, {"lon": lon, "lat": lat, **dates(data)}, data.attrs.get("id", name))


def dates(data: xr.Dataset) -> dict[str, Any]:
    """The times of a patch; a series has too many."""
    return {name: data[name].values[()] for name in TIMES.values() if name in data.coords and not data[name].ndim}


def attributes(origins: Sequence[Origin], encoder: Encoder, plan: Layout, *, mask_clouds: bool) -> dict[str, Any]:
    """What is noted of the vectors of some patches: of the patches, what they have in common."""
    first = origins[0] if origins else Origin("", {}, {})
    shared = {
        key: value
        for key, value in first.attrs.items()
        if key != "id" and all(other.attrs.get(key) == value for other in origins)
    }
    modes = {origin.mode for origin in origins}
    return {
        **shared,
        "encoder": encoder.spec.name,
        "weights": fingerprint(encoder),
        "sensors": modes.pop() if len(modes) == 1 else "both",
        "mask_clouds": int(mask_clouds),
        "patch_px": plan.patch_px,
        "window_px": plan.window_px,
    }


def columns(origins: Sequence[Origin]) -> dict[str, Any]:
    """Coordinates along `sample`: id, middle and times of every patch."""
    names = [origin.id for origin in origins]
    known = all(name is not None for name in names)
    found: dict[str, Any] = {"id": ("sample", np.array(names) if known else np.arange(len(names)))}
    for key in dict.fromkeys(key for origin in origins for key in origin.coords):
        found[key] = ("sample", np.array([origin.coords.get(key, UNKNOWN.get(key, np.nan)) for origin in origins]))
    return found


def patches_of(data: Any) -> Iterator[Any]:
    """One patch after another, of one, of several, or of a Dataset with a dimension `sample`."""
    if not isinstance(data, xr.Dataset):
        yield from data
    elif "sample" in data.dims:
        yield from (data.isel(sample=at) for at in range(data.sizes["sample"]))
    else:
        yield data
