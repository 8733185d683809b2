"""What a result tells of itself: which encoder and weights, which pixels, when and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from deepsentinel.encoders.base import Encoder
from deepsentinel.errors import NothingFoundError, warn

from .dense import Layout
from .inputs import TIMES, Scene
from .model import fingerprint

UNKNOWN = {"s1_time": np.datetime64("NaT", "ns"), "s2_time": np.datetime64("NaT", "ns")}


@dataclass(frozen=True)
class Origin:
    """What remains of a patch when its pixels are gone."""

    mode: str
    """Which sensors were seen: both, s1, s2 or none."""
    bands: str
    """Which bands the encoder was given."""
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
        # What stacks patches keeps the attributes of the first; a coordinate is the patch's own.
        named = (data.coords[key].item() for key in ("id", "sample") if key in data.coords and not data[key].ndim)
        name = next(named, data.attrs.get("id"))
        bands = " ".join(band for held in scene.bands.values() for band in held if band not in scene.missing)
        return cls(scene.seen_mode(), bands, attrs, {"lon": lon, "lat": lat, **dates(data)}, name)


def dates(data: xr.Dataset) -> dict[str, Any]:
    """The times of a patch; a series has too many."""
    return {name: data[name].values[()] for name in TIMES.values() if name in data.coords and not data[name].ndim}


def attributes(origins: Sequence[Origin], encoder: Encoder, plan: Layout, *, mask_clouds: bool) -> dict[str, Any]:
    """What is noted of the vectors of some patches: of the patches, what they have in common."""
    first = origins[0]
    shared = {
        key: value
        for key, value in first.attrs.items()
        if key != "id" and all(other.attrs.get(key) == value for other in origins)
    }
    modes, bands = {origin.mode for origin in origins}, {origin.bands for origin in origins}
    return {
        **shared,
        "encoder": encoder.spec.name,
        "weights": fingerprint(encoder),
        "sensors": modes.pop() if len(modes) == 1 else "mixed",
        "bands": bands.pop() if len(bands) == 1 else "mixed",
        "mask_clouds": int(mask_clouds),
        "patch_px": plan.patch_px,
        "window_px": plan.window_px,
    }


def columns(origins: Sequence[Origin]) -> dict[str, Any]:
    """Coordinates along `sample`: id, middle and times of every patch."""
    names = [origin.id for origin in origins]
    known = all(name is not None for name in names)
    found: dict[str, Any] = {"id": ("sample", np.array(names) if known else np.arange(len(names)))}
    found["sensors"] = ("sample", np.array([origin.mode for origin in origins]))
    for key in dict.fromkeys(key for origin in origins for key in origin.coords):
        found[key] = ("sample", np.array([origin.coords.get(key, UNKNOWN.get(key, np.nan)) for origin in origins]))
    return found


def patches_of(data: Any) -> Iterator[Any]:
    """One patch after another, of one, of several, of a corpus, or of a Dataset with a dimension `sample`."""
    if not isinstance(data, xr.Dataset):
        yield from data
    elif "sample" not in data.dims:
        yield data
    elif any(str(dim).endswith("_band") for dim in data.dims):
        yield from _of_corpus(data)
    else:
        for at in range(data.sizes["sample"]):
            one = data.isel(sample=at)
            # What stacked them kept the name of the first.
            one.attrs = {key: value for key, value in one.attrs.items() if key != "id"}
            yield one


def _of_corpus(corpus: xr.Dataset) -> Iterator[xr.Dataset]:
    from deepsentinel.corpus.patches import patch_of

    count, gone = corpus.sizes["sample"], 0
    for at in range(count):
        try:
            patch = patch_of(corpus, at, labels=False)
        except NothingFoundError:
            gone += 1
            continue
        name = next((corpus[key][at].values for key in ("id", "sample") if key in corpus.coords), np.asarray(at))
        yield patch.assign_coords(id=name)
    if gone:
        warn(
            f"{gone} of {count} samples of the corpus hold no pixels, as building them failed or is still to come, and"
            " were left out; the coordinate `id` tells which ones are here."
        )
