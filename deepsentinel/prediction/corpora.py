"""A corpus as maps, sample by sample, in the order of its samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import numpy as np
import xarray as xr

from deepsentinel.embedding.inputs import Scene
from deepsentinel.errors import InputError, NothingFoundError, warn
from deepsentinel.progress import progress as shown

from .layout import Layout
from .results import KEPT, Results
from .running import Runner, small_maps
from .sinks import check_target, dims_of, opened_store, store_arrays
from .stories import how_made, task_of

# More than this goes to a store.
MEMORY_BYTES = 10**9
OfSample = Callable[[xr.Dataset], tuple[Scene, str]]


def map_corpus(
    corpus: xr.Dataset,
    of_sample: OfSample,
    results: Results,
    plan: Layout,
    how: dict[str, Any],
    out: str | os.PathLike[str] | None,
    progress: bool,
) -> xr.Dataset:
    """The maps of all samples; those without pixels are 0 and NaN."""
    count = corpus.sizes["sample"]
    size = corpus.sizes.get("y"), corpus.sizes.get("x")
    if not count or None in size:
        raise InputError("This corpus has no sample with y and x, so there is nothing to draw maps of.")
    rows, columns = (-(-int(side or 0) // plan.cell_px) * plan.finer for side in size)
    coords = {**_coords(corpus, plan, (rows, columns)), **results.coords()}
    cell_bytes = sum(
        np.dtype(layer.dtype).itemsize * (results.numbers if layer.classes else 1) for layer in results.layers
    )
    total = cell_bytes * count * rows * columns
    if out is None and total > MEMORY_BYTES:
        raise InputError(
            f"These maps take {total / 1e9:.1f} GB: give out='maps.zarr', which takes them one after another."
        )
    said: dict[str, Any] = {}

    def told() -> dict[str, Any]:
        return {**results.told(), **said}

    with Runner(task_of(results, "both"), plan, **how) as runner:
        if out is not None:
            if os.fspath(out).lower().endswith((".tif", ".tiff")):
                raise InputError("The samples of a corpus lie apart; they go to a store: out='maps.zarr'.")
            target = check_target(out, results.layers, corpus)
            dims, chunks = ("sample", "y", "x"), (1, rows, columns)
            with store_arrays(target, results.layers, dims, (count, rows, columns), chunks, coords, told) as arrays:
                for at, layers in _maps(corpus, of_sample, results, plan, runner, said, progress):
                    for name, values in layers.items():
                        arrays[name][at] = values
            return opened_store(target, told())
        found = {
            layer.name: np.full(
                (count, results.numbers, rows, columns) if layer.classes else (count, rows, columns),
                layer.nodata,
                layer.dtype,
            )
            for layer in results.layers
        }
        for at, layers in _maps(corpus, of_sample, results, plan, runner, said, progress):
            for name, values in layers.items():
                found[name][at] = values
    variables = {layer.name: (("sample", *dims_of(layer)), found[layer.name], layer.attrs) for layer in results.layers}
    return xr.Dataset(variables, coords, told())


def _maps(
    corpus: xr.Dataset,
    of_sample: OfSample,
    results: Results,
    plan: Layout,
    runner: Runner,
    said: dict[str, Any],
    progress: bool,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Number and layers of each sample that has pixels."""
    count, gone = corpus.sizes["sample"], 0
    numbers: Any = range(count)
    modes: set[str] = set()

    def scenes() -> Iterator[tuple[tuple[int, str, Scene], Scene]]:
        nonlocal gone
        for at in shown(numbers, total=count, what="predicting", unit="sample") if progress else numbers:
            try:
                scene, mode = of_sample(patch_at(corpus, at))
            except NothingFoundError:
                gone += 1
                continue
            modes.add(mode)
            yield (at, mode, scene), scene

    # Samples of one mode after another share batches; what a model is shown seldom changes within a corpus.
    for mode, some in groupby(scenes(), key=lambda each: each[0][1]):
        runner.task = task_of(results, mode)
        for (at, _, scene), values in small_maps(some, runner):
            said.update(how_made(scene, plan, mode if len(modes) == 1 else "mixed"))
            said.pop("seen")
            layers = results.of(values)
            yield at, {name: np.moveaxis(layer, -1, 0) if layer.ndim > 2 else layer for name, layer in layers.items()}
    if gone:
        warn(
            f"{gone} of {count} samples hold no pixels, as building them failed or is still to come; their maps are 0."
        )


def patch_at(corpus: xr.Dataset, at: int) -> xr.Dataset:
    """The pixels of a sample, by its position."""
    if not any(str(dim).endswith("_band") for dim in corpus.dims):
        return corpus.isel(sample=at)
    from deepsentinel.corpus.patches import patch_of

    return patch_of(corpus, at, labels=False)


def _coords(corpus: xr.Dataset, plan: Layout, shape: tuple[int, int]) -> dict[str, Any]:
    """What tells the samples; where maps have other cells than pixels, their grids are those of the cells."""
    held: dict[str, Any] = {"sample": ("sample", np.arange(corpus.sizes["sample"]))}
    for name in KEPT:
        if name not in corpus.coords or "sample" not in corpus[name].dims:
            continue
        values = corpus[name].values
        if values.dtype.kind == "O":
            values = np.array(["" if value is None else str(value) for value in values.ravel()]).reshape(values.shape)
        held[name] = (corpus[name].dims, values)
    if "transform" in held:
        side = plan.cell_px / plan.finer
        dims, values = held["transform"]
        held["transform"] = (dims, values * np.array([side, 1, 1, 1, side, 1])[: values.shape[-1]])
    for name, cells in zip(("height", "width"), shape, strict=True):
        if name in held:
            held[name] = ("sample", np.full(corpus.sizes["sample"], cells))
    return held
