"""Objects that a model finds in a patch, back on the ground: window by window, each object told once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import torch
from affine import Affine
from odc.geo.geobox import GeoBox

from deepsentinel.errors import InputError
from deepsentinel.grids import crs_of
from deepsentinel.progress import progress as shown

from .detection import HALF, check_objects, detect_boxes
from .matching_objects import overlaps
from .pretraining import CROP_PX
from .windows import batch_of

if TYPE_CHECKING:
    from deepsentinel.embedding.inputs import Scene

    from .model import Model

# So near to the side of a window a box may go on beyond it.
NEAR_PX = 1.0
# What is cut is the same as a whole object if so much of it lies within.
SAME = 0.5
# Windows at once where nobody says.
BATCH = 16


class Locator:
    """A model that looks for objects window by window; on leaving it is back where it was.

    least_score: how sure it must be of an object. overlap, window_px: which share of its side a window has in common
    with the next, and the side of windows (None: as in training); an object wider than what windows share may be found
    in pieces. `ds.predict` calls it, with a patch as the encoder wants it.
    """

    def __init__(
        self,
        model: Model,
        *,
        least_score: float = 0.5,
        overlap: float = 0.5,
        window_px: int | None = None,
        batch_size: int | str = "auto",
        device: str | torch.device = "auto",
    ) -> None:
        from deepsentinel.embedding.model import pick_device

        check_objects(model)
        if isinstance(least_score, bool) or not 0 <= least_score <= 1:
            raise InputError(f"least_score={least_score!r}: a number from 0 to 1 is meant.")
        if isinstance(overlap, bool) or not 0 <= overlap <= 0.9:
            raise InputError(f"overlap={overlap!r}: the share of a window, from 0 to 0.9.")
        whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
        if batch_size != "auto" and not (whole and int(batch_size) > 0):
            raise InputError(f'batch_size={batch_size!r}: a whole number of windows from 1, or "auto".')
        self.model, self.least_score, self.overlap = model, float(least_score), float(overlap)
        self.window_px = _side(model, window_px)
        self.device = pick_device(device)
        self.batch_size = int(batch_size) if batch_size != "auto" else BATCH
        self._home = next(model.parameters()).device

    def __enter__(self) -> Self:
        self.model.to(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        self.model.to(self._home)

    def __call__(self, scene: Scene, mode: str, *, progress: bool = False) -> gpd.GeoDataFrame:
        """The objects of a scene, seen by some sensors."""
        found = self._found(scene, mode, progress)
        kept = once(found["boxes"], found["labels"], found["scores"], found["cut"])
        if "masks" in found:
            kept = kept[apart([found["masks"][place] for place in kept], scene.shape)]
        some = {name: [values[place] for place in kept] for name, values in found.items()}
        return table_of(self.model, scene.geobox, some)

    def _found(self, scene: Scene, mode: str, progress: bool) -> dict[str, Any]:
        """All that is found in any window, in pixels of the patch: boxes, labels, scores, what windows cut, masks."""
        from deepsentinel.embedding.windows import Tiling

        spec = self.model.encoder.spec
        height, width = (-(-size // spec.patch_px) * spec.patch_px for size in scene.shape)
        free = spec.any_size or spec.size_px is None
        sides = (min(self.window_px, height), min(self.window_px, width)) if free else (self.window_px,) * 2
        downs, acrosses = (
            Tiling(side, max(1, round(side * (1 - self.overlap))), size).starts()
            for side, size in zip(sides, scene.shape, strict=True)
        )
        columns = range(acrosses[0], acrosses[-1] + sides[1])
        parts: dict[str, list[np.ndarray]] = {"boxes": [], "labels": [], "scores": [], "cut": []}
        masks: list[tuple[int, int, np.ndarray]] = []
        for down in shown(downs, total=len(downs), what="finding", unit="row") if progress else downs:
            strip = scene.strip(range(down, down + sides[0]), columns, (height, width))
            for start in range(0, len(acrosses), self.batch_size):
                corners = [(down, across) for across in acrosses[start : start + self.batch_size]]
                windows = scene.cut(strip, (down, columns.start), corners, sides)
                usable = windows.usable()
                if not usable.any():
                    continue
                batch = batch_of(windows, spec).to(self.device)
                for corner, each, seen in zip(corners, detect_boxes(self.model, batch, mode), usable, strict=True):
                    told = {name: value.numpy() for name, value in each.items()}
                    sure = told["scores"] >= self.least_score
                    sure[sure] = _seen(told["boxes"][sure], seen)
                    told = {name: values[sure] for name, values in told.items()}
                    some = _of_window(told, corner, sides, scene.shape)
                    for name, values in parts.items():
                        values.append(some[name])
                    if "masks" in some:
                        masks += [(*corner, mask > HALF) for mask in some["masks"]]
        empty = {
            "boxes": np.empty((0, 4)),
            "labels": np.empty(0, "int64"),
            "scores": np.empty(0),
            "cut": np.empty(0, bool),
        }
        joined: dict[str, Any] = {name: np.concatenate([empty[name], *values]) for name, values in parts.items()}
        return {**joined, "masks": masks} if self.model.task == "instances" else joined


def _side(model: Model, window_px: int | None) -> int:
    """The side of a window."""
    spec = model.encoder.spec
    if not spec.any_size and spec.size_px is not None:
        return spec.size_px
    side = int(model.story.get("crop_px", CROP_PX)) if window_px is None else window_px
    if side < 1 or side % spec.patch_px:
        raise InputError(f"window_px={side}: a multiple of the {spec.patch_px} px of the encoder's patch is meant.")
    return side


def _seen(boxes: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Of which boxes at least half the pixels were seen: what is told of others is made up.

    >>> usable = np.zeros((8, 8), bool)
    >>> usable[:, :4] = True
    >>> _seen(np.array([[0, 0, 6, 3], [3.2, 0, 8, 3]]), usable).tolist()
    [True, False]
    """
    corners = np.c_[np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])].clip(0).astype(int)
    parts = (usable[top:bottom, left:right] for left, top, right, bottom in corners)
    return np.array([bool(part.size) and part.mean() >= HALF for part in parts], bool)


def _of_window(
    found: dict[str, np.ndarray], corner: tuple[int, int], sides: tuple[int, int], size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """What is found in a window, in pixels of the patch, without what lies beyond it, where it was mirrored."""
    row, column = corner
    ends = np.array([size[1] - column, size[0] - row] * 2, "float64")
    boxes = np.clip(found["boxes"].astype("float64"), 0, ends)
    keep = (boxes[:, 2:] - boxes[:, :2] > HALF).all(axis=1)
    inner = np.array([column > 0, row > 0, column + sides[1] < size[1], row + sides[0] < size[0]])
    near = np.abs(boxes - np.array([0, 0, sides[1], sides[0]])) < NEAR_PX
    some = {name: values[keep] for name, values in found.items()}
    some["boxes"] = boxes[keep] + np.array([column, row] * 2)
    some["cut"] = (near & inner).any(axis=1)[keep]
    if "masks" in some:
        some["masks"] = some["masks"][:, : size[0] - row, : size[1] - column]
    return some


def once(boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """Which of what several windows have found to keep, the surest first.

    Of boxes of one class that are mostly the same the surest is kept, and one that no window cuts before any that is.
    A cut one that lies mostly within another is a piece of it.

    >>> boxes = np.array([[0, 0, 4, 4], [0, 0, 8, 4], [20, 0, 24, 4]], float)
    >>> once(boxes, np.zeros(3), np.array([0.9, 0.8, 0.7]), np.array([True, False, False])).tolist()
    [1, 2]
    """
    from torchvision.ops import batched_nms

    if not len(boxes):
        return np.empty(0, "int64")
    first = torch.from_numpy(scores.astype("float64") + ~cut)
    keep = batched_nms(
        torch.from_numpy(boxes.astype("float64")), first, torch.from_numpy(labels.astype("int64")), SAME
    ).numpy()
    piece = np.zeros(len(keep), bool)
    tree = shapely.STRtree(shapely.box(*boxes[keep].T))
    for place in np.flatnonzero(cut[keep]):
        mine = keep[place]
        near = tree.query(tree.geometries[place])
        other = keep[near[(labels[keep[near]] == labels[mine]) & (near != place) & ~piece[near]]]
        within = overlaps(boxes[[mine]], boxes[other], of="found")[0]
        area = np.prod(boxes[other, 2:] - boxes[other, :2], axis=1)
        larger = area >= np.prod(boxes[mine, 2:] - boxes[mine, :2])
        piece[place] = bool((within[larger] > SAME).any())
    keep = keep[~piece]
    return np.asarray(keep[np.argsort(-scores[keep], kind="stable")])


def apart(masks: Sequence[tuple[int, int, np.ndarray]], shape: tuple[int, int]) -> np.ndarray:
    """Which masks to keep, the surest first: not those of which others have most already, as no ground is two fields.

    >>> whole, piece = (0, 0, np.ones((2, 4), bool)), (0, 1, np.ones((2, 2), bool))
    >>> apart([whole, piece, (1, 3, np.ones((2, 3), bool))], (3, 6)).tolist()
    [0, 2]
    """
    taken = np.zeros(shape, bool)
    kept = []
    for place, (row, column, mask) in enumerate(masks):
        under = taken[row : row + mask.shape[0], column : column + mask.shape[1]]
        if (under & mask).sum() > SAME * mask.sum():
            continue
        under |= mask
        kept.append(place)
    return np.array(kept, "int64")


def table_of(model: Model, geobox: GeoBox, found: Mapping[str, Any]) -> gpd.GeoDataFrame:
    """What was found in the pixels of a grid, on the ground."""
    a = geobox.affine
    boxes = np.asarray(found["boxes"]).reshape(-1, 4)
    corners = a.c + a.a * boxes[:, [0, 2]], a.f + a.e * boxes[:, [3, 1]]
    outlines = shapely.box(corners[0][:, 0], corners[1][:, 0], corners[0][:, 1], corners[1][:, 1])
    if "masks" in found:
        outlines = np.array(
            [_border(mask, a) or outline for mask, outline in zip(found["masks"], outlines, strict=True)], dtype=object
        )
    classes = model.classes
    numbers = np.asarray(found["labels"], "int64")
    columns = {
        "ground_truth": np.asarray(classes.codes, "int64")[numbers],
        "name": pd.Series([classes.names[number] for number in numbers], dtype=object),
        "score": np.asarray(found["scores"], "float64"),
    }
    return gpd.GeoDataFrame(columns, geometry=outlines, crs=crs_of(geobox))


def _border(found: tuple[int, int, np.ndarray], affine: Affine) -> Any:
    """The outline of a mask that starts at some row and column; None of one without a pixel."""
    from rasterio.features import shapes

    row, column, mask = found
    if not mask.any():
        return None
    a = affine
    there = Affine(a.a, 0, a.c + a.a * column, 0, a.e, a.f + a.e * row)
    parts = shapes(mask.astype("uint8"), mask=mask, transform=there)
    return shapely.union_all([shapely.geometry.shape(outline) for outline, _ in parts])
