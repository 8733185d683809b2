"""What a map tells of itself: which model, which pixels, when and how."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from deepsentinel.embedding.inputs import Scene
from deepsentinel.embedding.story import dates
from deepsentinel.learn.batches import Batch

from .layout import Layout
from .results import Results
from .running import Task

# What a patch says of itself that holds for a map of it too; and what only where a sensor takes part.
PROVENANCE = ("source", "seed", "sample_id")
OF_SENSOR = {
    "s1": ("s1_id", "backscatter", "orbit", "relative_orbit"),
    "s2": ("s2_id", "level", "baseline", "tile"),
    "both": ("gap_hours",),
}


def task_of(results: Results, mode: str) -> Task:
    """What is asked of the model, seeing some sensors."""
    model = results.model

    def answer(batch: Batch) -> Tensor:
        said: Tensor = model.probabilities(batch, mode)
        return said

    return Task(model, answer, results.numbers, model.encoder.spec)


def shown_of(scene: Scene) -> tuple[str, ...]:
    """Which sensors the model is shown: s1, s2, or these two and both."""
    sensors = tuple(sensor.lower() for sensor in scene.bands)
    return (*sensors, "both") if len(sensors) > 1 else sensors


def times_of(scene: Scene) -> dict[str, Any]:
    """The times of what the model is shown."""
    return {name: time for name, time in dates(scene.data).items() if name.removesuffix("_time") in shown_of(scene)}


def told_of(scene: Scene, results: Results, plan: Layout, mode: str) -> dict[str, Any]:
    """The attributes of a map of a scene."""
    return {**provenance(scene), **results.told(), **how_made(scene, plan, mode)}


def provenance(scene: Scene) -> dict[str, Any]:
    """What a scene says of itself that holds for what is made of it too."""
    attrs = scene.data.attrs
    kept = [*PROVENANCE, *(key for sensor in shown_of(scene) for key in OF_SENSOR[sensor])]
    return {key: attrs[key] for key in kept if isinstance(attrs.get(key), str | int | float)}


def how_made(scene: Scene, plan: Layout, mode: str) -> dict[str, Any]:
    """What was shown to the model, and how the map was put together."""
    return {
        "sensors": mode,
        "seen": scene.seen_mode(),
        "mask_clouds": int(scene.mask_clouds),
        "window_px": plan.window_px,
        "overlap": plan.overlap,
    }
