"""Pixels to vectors: `embed` a patch, pooled or as a map, with any encoder of `list_encoders`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from deepsentinel.encoders import load_encoder
from deepsentinel.errors import InputError

if TYPE_CHECKING:
    import torch

    from deepsentinel.encoders.base import Encoder

__all__ = ["embed"]

DTYPES = ("float32", "float16")


def embed(
    data: xr.Dataset | Iterable[xr.Dataset],
    encoder: str | Encoder,
    *,
    sensors: Literal["both", "s1", "s2"] = "both",
    dense: bool = False,
    resolution_m: float | None = None,
    mask_clouds: bool = False,
    overlap: float = 0.5,
    window_px: int | None = None,
    device: str | torch.device = "auto",
    batch_size: int | Literal["auto"] = "auto",
    out: str | os.PathLike[str] | None = None,
    dtype: str = "float32",
    keep_positions: bool = False,
    weights: str | os.PathLike[str] | None = None,
    stop: Any = None,
    on_progress: Callable[[int, int], object] | None = None,
) -> xr.DataArray:
    """Vectors of a patch, a series or several of them, as the authors of the encoder meant it.

    A patch gives one vector, dims (feature,); several patches, a corpus (samples without pixels are left out), or a
    Dataset with a dimension `sample`, give (sample, feature); dense=True gives a map (y, x, feature) with its own
    georeferencing. Bands are picked by name and brought to the encoder's order and units; where it can do without some,
    their names are warned of. The dates of a series are averaged month by month, at most 24 months.

    encoder: a name from `list_encoders()` (then `weights` as in `load_encoder`), or what `load_encoder`, `pretrain` or
    `finetune` returned.
    sensors: "both" takes what the patch has, where the encoder can do without the other one; the result's attribute
    `sensors` says what was seen (both, s1, s2 or none; "mixed" where patches differ, each told by the coordinate
    `sensors`) and `bands` what was given. mask_clouds: clouds, cirrus and shadows of SCL count as missing. Where
    nothing is left to see, the vector is NaN. Galileo sees a cell only where half of its pixels are left; encoders that
    cannot mask (`can_mask` in `list_encoders()`) need some of every sensor in a window, or its vectors are NaN.

    A dense map has cells of the encoder's patch, or of `resolution_m`: by smaller patches where the encoder has them,
    else by shifted windows, which costs (patch / cell)² as much. Windows overlap by the share `overlap` and are
    blended smoothly; they lie on a lattice that all patches on a grid share, so that away from its edges a map does
    not depend on where the patch was cut. `window_px` is the side of a window; as its authors had it if None.

    The cells of most encoders also tell where in their window they were, which would stripe the map; what all windows
    have in common by position is taken off, unless `keep_positions=True` asks for the bare output.

    out: "z.zarr" or "z.tif" takes a map of any size while memory stays what it is, and what is returned is read from
    there; `data` may then lie on disk too. An older map of that name is replaced, anything else is not. Later
    `xarray.open_zarr("z.zarr", chunks=None)` and `rioxarray.open_rasterio("z.tif")` go where an embedding does. On a
    GPU numbers are bfloat16 within the encoder.

    stop: a function, or a `threading.Event`, that ends a dense map between two rows of windows, with `StoppedError`.
    on_progress: called with (rows done, rows in all) after each of them.

    >>> import deepsentinel as ds
    >>> grid = ds.geobox((2.0, 48.0, 2.005, 48.005))
    >>> from deepsentinel.grids import grid_coords
    >>> bands = {name: (("y", "x"), np.full(grid.shape, -12.0, "float32")) for name in ("VV", "VH")}
    >>> patch = xr.Dataset(bands, grid_coords(grid), {"backscatter": "sigma0"})
    >>> embed(patch, "galileo-nano-random").sizes["feature"]
    128
    >>> {axis: size for axis, size in embed(patch, "galileo-nano-random", dense=True, resolution_m=40).sizes.items()}
    {'y': 15, 'x': 10, 'feature': 128}
    """
    loaded = _loaded(encoder, weights)
    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r}: one of {', '.join(DTYPES)} is meant.")
    how: dict[str, Any] = {"sensors": _lower(sensors), "mask_clouds": mask_clouds}
    running: dict[str, Any] = {"device": device, "batch_size": batch_size}
    if dense:
        if not isinstance(data, xr.Dataset) or "sample" in data.dims:
            raise InputError("dense=True makes the map of one patch; call embed for each of several.")
        running["keep_positions"] = keep_positions
        watch = {"stop": stop, "on_progress": on_progress}
        return _dense(data, loaded, how, running, resolution_m, overlap, window_px, out, dtype, watch)
    if any(each is not None for each in (out, resolution_m, stop, on_progress)) or keep_positions:
        raise InputError(
            "out=, resolution_m=, keep_positions=, stop= and on_progress= are for maps: pass dense=True. One vector is"
            " small enough to give."
        )
    return _pooled(data, loaded, how, running, window_px, dtype)


def _lower(sensors: Any) -> Any:
    return sensors.lower() if isinstance(sensors, str) else sensors


def _loaded(encoder: str | Encoder, weights: str | os.PathLike[str] | None) -> Encoder:
    if isinstance(encoder, str):
        return load_encoder(encoder, weights)
    from deepsentinel.encoders.base import Encoder as Kind

    # What pretrain and finetune return holds its encoder.
    encoder = getattr(encoder, "encoder", encoder)
    if not isinstance(encoder, Kind):
        raise InputError(f"encoder is a {type(encoder).__name__}; a name or what load_encoder returned is meant.")
    if weights is not None:
        raise InputError("weights= goes with an encoder's name; this one is loaded already.")
    return encoder


def _dense(
    data: xr.Dataset,
    encoder: Encoder,
    how: dict[str, Any],
    running: dict[str, Any],
    resolution_m: float | None,
    overlap: float,
    window_px: int | None,
    out: str | os.PathLike[str] | None,
    dtype: str,
    watch: dict[str, Any],
) -> xr.DataArray:
    from deepsentinel.encoders.base import warn_mismatch, warn_missing
    from deepsentinel.grids import grid_coords

    from .dense import layout, map_dense
    from .inputs import Scene
    from .model import Runner
    from .sinks import DIMS, NAME, Memory, check_target, file_sink, open_map, small_cache
    from .story import Origin, attributes, dates

    spec = encoder.spec
    if not spec.dense:
        raise InputError(f"{spec.name} has no vectors of cells; dense=False gives one for the patch.")
    scene = Scene(data, spec, **how)
    target = None if out is None else check_target(out, dtype, data)
    warn_mismatch(spec, data.attrs, sensors=tuple(scene.bands))
    plan = layout(spec, scene.resolution_m, resolution_m, window_px, overlap)
    geobox = plan.geobox(scene)
    warn_missing(spec, scene.missing)
    with Runner(encoder, window_px=plan.window_px, patch_px=plan.patch_px, **running) as runner:

        def told() -> dict[str, Any]:
            noted = attributes([Origin.of(scene)], encoder, plan, mask_clouds=scene.mask_clouds)
            noted |= {"resolution_m": scene.resolution_m * plan.cell_px, "overlap": plan.overlap}
            return noted | {"keep_positions": int(runner.keep_positions)}

        if target is not None:
            with small_cache(), file_sink(target, geobox, spec.width, dtype, told, dates(data)) as sink:
                map_dense(scene, runner, plan, sink, **watch)
            return open_map(target, told(), dates(data))
        memory = Memory((int(geobox.shape.y), int(geobox.shape.x), spec.width), dtype)
        map_dense(scene, runner, plan, memory, **watch)
    places = {**grid_coords(geobox, data), "feature": np.arange(spec.width), **dates(data)}
    return xr.DataArray(memory.values, places, DIMS, name=NAME, attrs=told())


def _pooled(
    data: Any, encoder: Encoder, how: dict[str, Any], running: dict[str, Any], window_px: int | None, dtype: str
) -> xr.DataArray:
    from deepsentinel.encoders.base import warn_mismatch, warn_missing

    from .dense import layout
    from .inputs import Scene
    from .model import Runner
    from .pooled import pool
    from .sinks import NAME
    from .story import Origin, attributes, columns, patches_of

    spec = encoder.spec
    origins: list[Origin] = []
    warned: set[object] = set()

    def scenes() -> Iterator[Scene]:
        for patch in patches_of(data):
            scene = Scene(patch, spec, **how)
            kind = (patch.attrs.get("level"), patch.attrs.get("backscatter"), *scene.bands)
            if kind not in warned:
                warned.add(kind)
                warn_mismatch(spec, patch.attrs, sensors=tuple(scene.bands))
            if scene.missing not in warned:
                warned.add(scene.missing)
                warn_missing(spec, scene.missing)
            yield scene
            origins.append(Origin.of(scene))  # once its pixels were read

    plan = layout(spec, 10.0, None, window_px, 0.0)
    with Runner(encoder, window_px=plan.window_px, patch_px=plan.patch_px, **running) as runner:
        vectors = pool(scenes(), runner, plan.window_px).astype(dtype)
    told = attributes(origins, encoder, plan, mask_clouds=how["mask_clouds"])
    features = {"feature": np.arange(spec.width)}
    if isinstance(data, xr.Dataset) and "sample" not in data.dims:
        return xr.DataArray(vectors[0], {**origins[0].coords, **features}, ("feature",), name=NAME, attrs=told)
    return xr.DataArray(vectors, {**columns(origins), **features}, ("sample", "feature"), name=NAME, attrs=told)
