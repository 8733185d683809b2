"""Models back to maps: `predict` draws a patch, a corpus or a whole area; `optical` paints what lies under cloud."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from deepsentinel.errors import InputError, warn

if TYPE_CHECKING:
    import torch
    import xarray as xr

    from deepsentinel.embedding.inputs import Scene
    from deepsentinel.learn.model import Model

    from .maps import Maps
    from .objects import Tables

__all__ = ["optical", "predict"]


def predict(
    model: Model,
    data: Any,
    aoi: Any = None,
    *,
    start: Any = None,
    end: Any = None,
    sensors: Literal["both", "s1", "s2"] | None = None,
    resolution: float = 10,
    overlap: float = 0.5,
    window_px: int | None = None,
    out: str | os.PathLike[str] | None = None,
    device: str | torch.device = "auto",
    batch_size: int | Literal["auto"] = "auto",
    mask_clouds: bool | None = None,
    uncertainty: Literal["entropy", "margin"] = "entropy",
    probabilities: bool = False,
    least_score: float = 0.5,
    row: Any = None,
    progress: bool = True,
) -> Any:
    """A map, or a table of objects, of what a model tells of a patch, of all samples of a corpus, or of a whole area.

    Parameters
    ----------
    model
        From `finetune`, or `deepsentinel.learn.model.load_model`.
    data
        A patch, also one that lies on disk; a corpus; or a source, of which the area is read.
    aoi, start, end, resolution
        Of a source: the area, the dates between which its best pair is looked for (of models of one sensor its best
        scene), and the size of a pixel. What lies outside of an area that is no rectangle is seen, but not told.
    row
        Of a source: the pair or scene to be read, a row of `ds.pair` or `ds.select`, instead of the best one.
    sensors
        What the model is shown; None: what it was trained with, and of sensors="any" all that is there.
    overlap, window_px
        Windows share this part of their side with the next one and are blended smoothly, so that none is seen in the
        map. They are as large as the crops in training if None.
    out
        "map.tif" takes a map of any size while memory stays what it is (the classes with their colours in this file,
        `map_uncertainty.tif` beside it), and so does "map.zarr"; what is returned is read from there. Objects go to a
        .gpkg, .geojson or .parquet.
    mask_clouds
        Whether clouds and their shadows, where the patch has SCL, count as not seen; None: as the model has learnt.
        Radar sees through them.
    uncertainty
        "entropy" of the probabilities over its largest value, or "margin": 1 minus the distance of the two best.
    probabilities
        Whether the probability of each class is kept too.
    least_score
        Of objects: how sure the model must be of one.

    Returns
    -------
    Dataset, or GeoDataFrame of objects
        Of segmentation `class_map` in the codes of the model's legend, 0 where nothing was seen, and `uncertainty`, 0
        (sure) to 1; of regression `value`. Classification and fractions speak of whole windows: their map has cells as
        large as the step between windows, with `probability` or `class_fraction` of each class. Where a model calls
        ground background, `class_map` is 0 and `uncertainty` a number; where nothing was seen it is NaN. A model with
        upscale= gives a grid that is finer by that. Of a corpus the layers have a dimension `sample`, and
        `ds.patch_of(result, i)` places one of them on its ground.

        Of detection and instances a table: `ground_truth` (the code), `name`, `score`, and the box of each object or
        the border of its pixels, in the CRS of the pixels. Of a corpus it has a column `sample`, and is in degrees
        where samples lie in several projections.

    ```python
    head = ds.finetune(train, "fusion-nano", "segmentation", labels="corine")
    ds.show(ds.predict(head, patch))
    ds.predict(head, src, src.area, start="2018-06-01", end="2018-06-30", out="map.tif")
    fields = ds.predict(finder, patch, out="fields.gpkg")
    ```

    >>> import numpy as np
    >>> import xarray as xr
    >>> import deepsentinel as ds
    >>> from deepsentinel.grids import grid_coords
    >>> from deepsentinel.learn.model import Classes, Model, Question
    >>> classes = Classes("cover_class_map", (10, 80), ("trees", "water"), ("#006400", "#0064c8"), (0.9, 0.1))
    >>> model = Model(ds.load_encoder("fusion-nano", "random"), Question("segmentation", classes, "s1"))
    >>> grid = ds.geobox((2.0, 48.0, 2.005, 48.005))
    >>> bands = {name: (("y", "x"), np.full(grid.shape, -12.0, "float32")) for name in ("VV", "VH")}
    >>> result = predict(model, xr.Dataset(bands, grid_coords(grid), {"backscatter": "sigma0"}))
    >>> {name: layer.shape for name, layer in result.data_vars.items()}
    {'class_map': (57, 39), 'uncertainty': (57, 39)}
    """
    import xarray as xr

    from deepsentinel.learn.controls import clouds_of

    _check_model(model)
    sensors = sensors.lower() if isinstance(sensors, str) else sensors  # type: ignore[assignment]
    _check_sensors(model, sensors)
    hidden = clouds_of(model, mask_clouds)
    how: dict[str, Any] = {"window_px": window_px, "overlap": overlap, "device": device, "batch_size": batch_size}
    making = _making(model, how, uncertainty, probabilities, least_score, progress)
    if hasattr(data, "search") and hasattr(data, "read"):
        from .areas import AreaScene, best_row, grid_for
        from .border import border_of

        grid = grid_for(aoi, resolution, streamed=making.streams or out is not None)
        chosen = best_row(data, aoi, start, end, _modes(model, sensors)) if row is None else row
        seen = _mode_of_row(chosen)
        mode = sensors or (seen if model.question.sensors == "any" else model.sensors_for(None))
        scene: Scene = AreaScene(data, chosen, grid, model.encoder.spec, sensors=mode, mask_clouds=hidden)
        _check_seen(scene, model, mode)
        return making.of_scene(scene, mode, out, border_of(aoi, grid))
    for name, value in (("aoi", aoi), ("start", start), ("end", end), ("row", row)):
        if value is not None:
            raise InputError(f"{name}= is for a source, from which pixels are read; these pixels are given already.")
    if not isinstance(data, xr.Dataset):
        raise InputError(
            f"data is a {type(data).__name__}; a patch, a corpus of ds.open_corpus, or a source with an area is meant."
        )
    if "sample" in data.dims:

        def of_sample(patch: xr.Dataset) -> tuple[Scene, str]:
            return _scene(patch, model, sensors, hidden)

        return making.of_corpus(data, of_sample, out)
    scene, mode = _scene(data, model, sensors, hidden)
    return making.of_scene(scene, mode, out)


def _making(
    model: Model, how: dict[str, Any], uncertainty: Any, probabilities: bool, least_score: float, progress: bool
) -> Maps | Tables:
    """What makes the answers of a model into maps, or into a table."""
    if model.task not in ("detection", "instances"):
        from .maps import Maps

        if least_score != 0.5:
            raise InputError(f"least_score= is for objects; this model was trained for {model.task}.")
        return Maps(model, how, uncertainty, probabilities, progress)
    from .objects import Tables

    if probabilities or uncertainty != "entropy":
        raise InputError("probabilities= and uncertainty= are for maps; of objects each has a score.")
    return Tables(model, how, least_score, progress)


def _scene(data: xr.Dataset, model: Model, sensors: str | None, mask_clouds: bool) -> tuple[Scene, str]:
    """A patch as the model's encoder wants it, and what is seen of it."""
    from deepsentinel.embedding.inputs import TIMES, Scene

    if dates := [name for name in TIMES.values() if name in data.dims]:
        raise InputError(
            f"This is a series, and models tell of one date: choose one of each sensor, as in series.isel("
            f"{', '.join(f'{name}=0' for name in dates)})."
        )
    spec = model.encoder.spec
    here = {
        key: any(name in data.data_vars for name in names)
        for key, names in (("s1", spec.s1_bands), ("s2", spec.s2_bands))
    }
    mode = model.sensors_for(sensors)
    if sensors is None and model.question.sensors == "any" and sum(here.values()) == 1:
        mode = next(key for key, there in here.items() if there)
    scene = Scene(data, spec, sensors=mode, mask_clouds=mask_clouds and "SCL" in data.data_vars)
    _check_seen(scene, model, mode)
    return scene, mode


def _check_seen(scene: Scene, model: Model, mode: str) -> None:
    """Refuse ground without a sensor that the model counts on, and warn of bands that are lost."""
    takes = [key.upper() for key in ("s1", "s2") if getattr(scene.spec, f"{key}_bands")]
    lacking = [sensor for sensor in takes if sensor not in scene.bands]
    if mode == "both" and lacking and "both" in scene.spec.modes:
        raise InputError(
            f"This model was trained with both sensors, and there is no band of {lacking[0]}: read both, or train one "
            "with sensors='any'."
        )
    if lost := [name for name in scene.missing if name in model.story.get("bands", ())]:
        warn(f"This model was trained with {', '.join(lost)} too, which are missing here: read all bands.")


def _check_model(model: Any) -> None:
    from deepsentinel.learn.model import Model as Kind

    if isinstance(model, Kind):
        return
    what = type(model).__name__
    if hasattr(model, "objective") or hasattr(model, "spec"):
        raise InputError(f"A {what} has learnt no labels yet: head = ds.finetune(corpus, it, labels=...) comes first.")
    raise InputError(f"model is a {what}; what ds.finetune or load_model returned is meant.")


def _check_sensors(model: Model, sensors: Any) -> None:
    own = model.question.sensors
    if sensors is None or sensors == own:
        return
    if sensors not in ("both", "s1", "s2"):
        raise InputError(f"sensors={sensors!r}: one of both, s1, s2 is meant.")
    if own in ("s1", "s2"):
        raise InputError(f"This model was trained with {own.upper()} alone, and knows nothing of sensors={sensors!r}.")
    if own == "both":
        warn(
            f"This model was trained with both sensors; with sensors={sensors!r} it sees what it has never seen alone. "
            "finetune(..., sensors='any') trains one for that."
        )


def _modes(model: Model, sensors: str | None) -> tuple[str, ...]:
    """What to look for in a source, the best first."""
    modes = model.encoder.spec.modes
    if sensors is None and model.question.sensors == "any":
        return tuple(mode for mode in ("both", "s2", "s1") if mode in modes)
    mode = model.sensors_for(sensors)
    return (mode,) if mode in modes else modes[-1:]


def _mode_of_row(row: Any) -> str:
    """Which sensors a row of pairs or of scenes has."""
    held = row.index if hasattr(row, "index") and not isinstance(row, dict) else row
    return "both" if "s1_id" in held and "s2_id" in held else str(row["sensor"]).lower()


def __getattr__(name: str) -> Any:
    if name == "optical":
        from .painting import optical

        return optical
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
