"""Sentinel-2 as it would look, painted from Sentinel-1 by an encoder that was trained with "radar-to-optical"."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from deepsentinel.bands import REFLECTANCE_SCALE, SCL_CLOUDY
from deepsentinel.embedding.inputs import Scene
from deepsentinel.errors import InputError
from deepsentinel.grids import grid_coords, variable
from deepsentinel.learn.batches import Batch
from deepsentinel.learn.objectives import RadarToOptical
from deepsentinel.sources.assemble import band_attrs

from .layout import layout
from .running import Runner, Task, blocks

# Snow and bright cloud reflect more than all light that falls on a flat white ground; nothing reflects this much.
BRIGHTEST = 2 * REFLECTANCE_SCALE
# What a patch says of an image that is not in what was painted.
OF_S2 = ("s2_id", "gap_hours", "baseline", "offset_removed", "tile")


def optical(
    pretrained: Any,
    patch: xr.Dataset,
    *,
    fill: bool = False,
    overlap: float = 0.5,
    window_px: int | None = None,
    device: str | torch.device = "auto",
    batch_size: int | str = "auto",
    progress: bool = True,
) -> xr.Dataset:
    """Synthetic Sentinel-2 bands of a patch, from its Sentinel-1 alone: a guess at what clouds hide, not a measurement.

    pretrained: from `ds.pretrain(corpus, "radar-to-optical")`. fill: pixels of the patch's own bands stay where SCL
    calls them clear, and only the rest is painted.

    Gives bands by name as uint16 reflectance x 10000, 0 where the radar saw nothing, and `synthetic`, which is 1 where
    a pixel is painted; the attribute `synthetic` tells the encoder. Windows are blended as in `ds.predict`.

    ```python
    painter = ds.pretrain(corpus, "radar-to-optical", steps=2000)
    ds.show(optical(painter, patch, fill=True), panels="natural")
    ```
    """
    objective = getattr(pretrained, "objective", pretrained)
    if not isinstance(objective, RadarToOptical):
        raise InputError(
            f"A {type(pretrained).__name__} does not paint; ds.pretrain(corpus, 'radar-to-optical') gives what does."
        )
    spec, bands = objective.encoder.spec, objective.s2_bands
    if gone := [name for name in objective.s1_bands if name not in spec.s1_bands]:
        raise InputError(f"{spec.name} has no {', '.join(gone)}, from which this one learnt to paint.")
    scene = Scene(patch, spec, sensors="s1")
    if gone := [name for name in objective.s1_bands if name in scene.missing]:
        raise InputError(f"Painting needs {', '.join(objective.s1_bands)}; this patch lacks {', '.join(gone)}.")
    if fill and (lacking := [name for name in (*bands, "SCL") if name not in patch.data_vars]):
        raise InputError(f"fill=True keeps what is clear of {', '.join(bands)} by SCL; this patch lacks {lacking[0]}.")
    story = getattr(pretrained, "story", {})
    plan = layout(spec, trained_px=story.get("crop_px"), window_px=window_px, overlap=overlap)

    def answer(batch: Batch) -> Tensor:
        assert batch.s1 is not None
        order = [batch.s1_bands.index(name) for name in objective.s1_bands]
        return objective.optical(replace(batch, s1=batch.s1[:, order], s1_bands=objective.s1_bands))

    painted = np.zeros((len(bands), *scene.shape), "uint16")
    task = Task(objective, answer, len(bands), spec)
    with Runner(task, plan, device=device, batch_size=batch_size) as runner:
        for row, column, values in blocks(scene, runner, progress=progress):
            known = np.isfinite(values)
            # Valid reflectance begins at 1, as 0 stands for no data.
            whole = np.where(known, np.clip(np.round(np.where(known, values, 1)), 1, BRIGHTEST), 0).astype("uint16")
            painted[:, row : row + values.shape[0], column : column + values.shape[1]] = np.moveaxis(whole, -1, 0)
    synthetic = (painted > 0).any(axis=0)
    if fill:
        real = np.stack([patch[name].to_numpy() for name in bands])
        clear = (real != 0).all(axis=0) & ~np.isin(patch["SCL"].to_numpy(), SCL_CLOUDY)
        painted = np.where(clear, real, painted).astype("uint16")
        synthetic &= ~clear
    variables = {name: variable(("y", "x"), painted[at], band_attrs(name)) for at, name in enumerate(bands)}
    told = {"long_name": "painted from Sentinel-1", "flag_values": [0, 1], "flag_meanings": "measured_or_none painted"}
    variables["synthetic"] = variable(("y", "x"), synthetic.astype("uint8"), told)
    kept = ("s1_time", "s2_time") if fill else ("s1_time",)
    coords = {name: patch.coords[name].variable for name in kept if name in patch.coords}
    attrs = {key: value for key, value in patch.attrs.items() if fill or key not in OF_S2}
    attrs = {
        **attrs,
        "level": patch.attrs.get("level", "L2A"),
        "synthetic": f"painted by {spec.name.removesuffix('-random')} from Sentinel-1",
    }
    return xr.Dataset(variables, {**grid_coords(scene.geobox, patch), **coords}, attrs)
