"""Objects to be found one by one: fields, buildings, anything that has a number of its own in a mask `parcel_id`.

A two-stage detector (Faster R-CNN, Ren et al. 2015; Mask R-CNN, He et al. 2017) as torchvision has it, on a pyramid
that begins at a stride of 2 and with boxes from 3 pixels on, since what Sentinel sees of a house is a pixel or two. The
pixels go in as they are: nothing is rescaled on the way, so that a box is in the pixels of the image.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepsentinel.encoders.base import Encoder
from deepsentinel.errors import InputError, NothingFoundError

from .batches import Batch, corpora_of
from .labels import CLASS_MAP, PARCEL, Classes, arrays_of, classes_of
from .pyramids import STRIDES, Pyramid, covered
from .tasks import IGNORE

if TYPE_CHECKING:
    import xarray as xr

    from .model import Model

# The sides of boxes that are looked for in each level, in pixels; each as a square and twice as long as wide.
ANCHORS_PX = ((3, 5), (8, 12), (18, 27), (40, 60))
RATIOS = (0.5, 1.0, 2.0)
# Boxes narrower than this are looked at in the finest level, twice as wide ones in the next.
FINE_PX = 32
# How many boxes are looked at, and how many are told at most, in an image.
PROPOSALS = {"training": 500, "testing": 1000}
FOUND = 500
# Of what the edge of a crop cuts so much more must be left.
CUT_TIMES = 2
HALF = 0.5


def object_arrays(corpora: Sequence[xr.Dataset], labels: str) -> tuple[Classes, str]:
    """The classes of the objects of some labels, of which one will do, and the mask with their numbers."""
    array, _ = arrays_of(corpora[0], labels)
    numbers = f"{array.removesuffix(CLASS_MAP)}{PARCEL}"
    if not array.endswith(CLASS_MAP) or any(numbers not in corpus.data_vars for corpus in corpora):
        raise InputError(
            f"To find objects, labels={labels!r} need a number for each: build the corpus with labels={{{labels!r}: "
            '{"labels": path, "layers": ("class_map", "parcel_id", "conflict")}}.'
        )
    # With the ground beside them one class is enough; it is not told apart, but what is left over.
    every = classes_of(corpora_of(corpora), labels, background="class")
    kept = [place for place, code in enumerate(every.codes) if code]
    if not kept:
        raise NothingFoundError(f"{array} holds no object to learn. Take more ground.")
    total = sum(every.shares[place] for place in kept)
    chosen = replace(
        every,
        codes=tuple(every.codes[place] for place in kept),
        names=tuple(every.names[place] for place in kept),
        colors=tuple(every.colors[place] for place in kept),
        shares=tuple(every.shares[place] / total for place in kept),
    )
    return chosen, numbers


def objects_in(
    numbers: Tensor, classes: Tensor, count: int, *, least_px: float = 8, finer: int = 1, masks: bool = False
) -> dict[str, Tensor]:
    """The objects of one image: (H, W) numbers, 0 for none, and (H, W) classes from 0, `IGNORE` where not known.

    Gives `boxes` (n, 4: left, top, right, bottom in pixels of the image, from its corner, so that the first pixel runs
    from 0 to 1), `labels` from 1 (0: nobody knows), `numbers`, `area_px`, `kept` and, where asked for, `masks` (n, y,
    x) uint8. An object is all pixels of one number, also where they lie apart, and of the class that most of them have.
    `kept` are those of a known class with at least `least_px` pixels, and at least twice as many where they touch the
    edge of the image, which may have cut them. finer: how many pixels of the masks lie side by side in one of the
    image's.

    >>> numbers = torch.tensor([[7, 7, 0], [7, 7, 0], [0, 0, 3]])
    >>> found = objects_in(numbers, torch.zeros(3, 3, dtype=torch.int64), 1, least_px=2)
    >>> found["boxes"].tolist(), found["kept"].tolist()
    ([[2.0, 2.0, 3.0, 3.0], [0.0, 0.0, 2.0, 2.0]], [False, True])
    """
    height, width = numbers.shape
    rows, columns = torch.nonzero(numbers > 0, as_tuple=True)
    every, which = torch.unique(numbers[rows, columns].long(), return_inverse=True)
    total = len(every)
    corners = []
    for at, reduce in ((columns, "amin"), (rows, "amin"), (columns + 1, "amax"), (rows + 1, "amax")):
        empty = at.new_zeros(total)
        corners.append(empty.scatter_reduce(0, which, at, reduce, include_self=False))
    edges = torch.stack(corners, dim=1)
    told = classes[rows, columns]
    table = torch.bincount(which * (count + 1) + torch.where(told < count, told, count), minlength=total * (count + 1))
    votes = table.view(total, count + 1)
    labels = (votes.argmax(dim=1) + 1) % (count + 1)
    area = votes.sum(dim=1) / finer**2
    cut = (edges[:, :2] == 0).any(dim=1) | (edges[:, 2] == width) | (edges[:, 3] == height)
    found = {
        "boxes": edges.float() / finer,
        "labels": labels,
        "numbers": every,
        "area_px": area,
        "kept": (labels > 0) & (area >= torch.where(cut, CUT_TIMES * least_px, least_px)),
    }
    return {**found, "masks": _masks(numbers, every, finer)} if masks else found


def _masks(numbers: Tensor, every: Tensor, finer: int) -> Tensor:
    """(n, y, x) uint8 at the size of the image: what an object covers by half, or, where there is none, most."""
    fine = numbers[None] == every[:, None, None]
    if finer == 1:
        return fine.byte()
    if not len(every):
        return fine[:, ::finer, ::finer].byte()
    share = F.avg_pool2d(fine[None].float(), finer)[0]
    return (share >= share.amax(dim=(1, 2), keepdim=True).clamp(max=HALF)).byte()


def targets_of(model: Model, batch: Batch, *, masks: bool | None = None) -> list[dict[str, Tensor]]:
    """The objects of each image of a batch, see `objects_in`; with masks if the model tells them."""
    question = model.question
    numbers = batch.labels[question.array]
    finer = numbers.shape[-1] // batch.pixels.shape[-1]
    how: dict[str, Any] = {
        "least_px": question.least_px,
        "finer": finer,
        "masks": question.task == "instances" if masks is None else masks,
    }
    classes = model.classes.targets(batch.labels)
    return [objects_in(*each, len(model.classes), **how) for each in zip(numbers, classes, strict=True)]


class ObjectHead(nn.Module):
    """Boxes, classes and scores, and masks where asked for, from an encoder's pyramid."""

    def __init__(self, encoder: Encoder, out: int, *, size: int = 32, masks: bool = False) -> None:
        super().__init__()
        from torchvision.models.detection import FasterRCNN
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
        from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

        width, wide, pooled = 2 * size, 8 * size, 7
        self.pyramid = Pyramid(encoder, width)
        # Taken apart again: what torchvision puts in front would bring the pixels to another size and scale.
        whole = FasterRCNN(
            self.pyramid,
            rpn_anchor_generator=AnchorGenerator(ANCHORS_PX, (RATIOS,) * len(ANCHORS_PX)),
            rpn_pre_nms_top_n_train=2 * PROPOSALS["training"],
            rpn_pre_nms_top_n_test=2 * PROPOSALS["testing"],
            rpn_post_nms_top_n_train=PROPOSALS["training"],
            rpn_post_nms_top_n_test=PROPOSALS["testing"],
            rpn_batch_size_per_image=128,
            box_roi_pool=_pool(pooled),
            box_head=TwoMLPHead(width * pooled**2, wide),
            box_predictor=FastRCNNPredictor(wide, out + 1),
            box_batch_size_per_image=128,
            box_detections_per_img=FOUND,
        )
        self.rpn, self.roi_heads = whole.rpn, whole.roi_heads
        if masks:
            self.roi_heads.mask_roi_pool = _pool(2 * pooled)
            self.roi_heads.mask_head = MaskRCNNHeads(width, (width,) * 3, 1)
            self.roi_heads.mask_predictor = MaskRCNNPredictor(width, width, out + 1)

    def forward(self, encoder: Encoder, batch: Batch, sensors: str) -> list[dict[str, Tensor]]:
        """Of each image `boxes` (n, 4), `labels` from 1, `scores`, and `masks` (n, H, W) from 0 to 1; surest first."""
        found, _ = self._run(encoder, batch, sensors, None)
        sides = batch.pixels.shape[-2:]
        for each in found:
            if "masks" in each:
                each["masks"] = pasted(each["masks"], each["boxes"], sides)
        return found

    def loss(
        self, encoder: Encoder, batch: Batch, sensors: str, targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """torchvision's losses, by name; images may be without any object."""
        wanted = [
            {name: each[name][each["kept"]] for name in ("boxes", "labels", "masks") if name in each}
            for each in targets
        ]
        _, losses = self._run(encoder, batch, sensors, wanted)
        return {name.removeprefix("loss_"): value for name, value in losses.items()}

    def _run(
        self, encoder: Encoder, batch: Batch, sensors: str, targets: list[dict[str, Tensor]] | None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        from torchvision.models.detection.image_list import ImageList

        levels = self.pyramid(encoder, batch, sensors)
        pixels = batch.pixels
        height, width = pixels.shape[-2:]
        images = ImageList(pixels.new_empty(len(pixels), 0, *covered(batch)), [(height, width)] * len(pixels))
        before = self.training
        # Which of the two they do follows from what is asked, so that a loss can be looked at after training too.
        for part in (self.rpn, self.roi_heads):
            part.train(targets is not None)
        try:
            # Half the digits of a coordinate are not enough: from here on numbers are whole.
            with torch.autocast(pixels.device.type, enabled=False):
                features = OrderedDict((name, level.float()) for name, level in levels.items())
                proposals, first = self.rpn(images, features, targets)
                found, second = self.roi_heads(features, proposals, images.image_sizes, targets)
        finally:
            for part in (self.rpn, self.roi_heads):
                part.train(before)
        return found, {**second, **first}


def _pool(side: int) -> nn.Module:
    """The part of the pyramid under each box, at the level that fits its size."""
    from torchvision.ops import MultiScaleRoIAlign

    class Pool(MultiScaleRoIAlign):
        def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
            # It tells strides from sides, and levels reach as far as `covered`, not only to the edge of the image.
            finest = next(iter(x.values())).shape[-2:]
            return cast(Tensor, super().forward(x, boxes, [(STRIDES[0] * finest[0], STRIDES[0] * finest[1])]))

    names = [str(stride) for stride in STRIDES]
    return Pool(names, side, 2, canonical_scale=FINE_PX, canonical_level=STRIDES.index(4) + 1)


def pasted(masks: Tensor, boxes: Tensor, sides: Sequence[int]) -> Tensor:
    """Masks (n, 1, m, m) in the pixels of the image (n, H, W), each within its box and 0 outside.

    torchvision's own way adds a pixel to each box, which makes a third more of an object of four.

    >>> pasted(torch.ones(1, 1, 28, 28), torch.tensor([[1.0, 0.0, 3.0, 1.0]]), (2, 4))[0].tolist()
    [[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    places = []
    within = []
    for axis, side in ((0, sides[1]), (1, sides[0])):
        low, high = boxes[:, axis, None], boxes[:, axis + 2, None]
        at = torch.arange(side, device=boxes.device, dtype=boxes.dtype)
        # In training the value of a pixel lay on its corner (roi_align), and there it is looked up.
        places.append(2 * (at - low) / (high - low) - 1)
        within.append((at + HALF >= low) & (at + HALF <= high))
    shape = (len(boxes), *sides)
    grid = torch.stack([places[0][:, None].expand(shape), places[1][:, :, None].expand(shape)], dim=-1)
    found = F.grid_sample(masks.float(), grid, padding_mode="border", align_corners=False)[:, 0]
    return found * (within[0][:, None] & within[1][:, :, None])


@torch.no_grad()
def detect_boxes(model: Model, batch: Batch, sensors: str | None = None) -> list[dict[str, Tensor]]:
    """What a model finds in each image of a batch, as `Detections` takes it: boxes, labels from 0, scores, masks.

    ```python
    for found, there in zip(detect_boxes(model, batch), true_boxes(model, batch)):
        detections.update(found, there)
    ```
    """
    check_objects(model)
    before = model.training
    found = cast(list[dict[str, Tensor]], model.eval()(batch, sensors))
    model.train(before)
    for each in found:
        each["labels"] = each["labels"] - 1
    return [{name: value.detach().cpu() for name, value in each.items()} for each in found]


def within(found: Mapping[str, Tensor], sides: Sequence[int]) -> dict[str, Tensor]:
    """What lies in the first rows and columns of an image, which was widened to fit the encoder.

    >>> found = {"boxes": torch.tensor([[0.0, 0.0, 9.0, 4.0], [8.0, 0.0, 9.0, 4.0]]), "scores": torch.ones(2)}
    >>> within(found, (6, 8))["boxes"].tolist()
    [[0.0, 0.0, 8.0, 4.0]]
    """
    height, width = sides
    boxes = found["boxes"].clamp(min=0)
    boxes = torch.minimum(boxes, boxes.new_tensor([width, height, width, height]))
    keep = (boxes[:, 2:] - boxes[:, :2] > HALF).all(dim=1)
    some = {name: values[keep] for name, values in {**found, "boxes": boxes}.items()}
    return {name: values[:, :height, :width] if name == "masks" else values for name, values in some.items()}


def true_boxes(model: Model, batch: Batch) -> list[dict[str, Tensor]]:
    """What there is to find, as `Detections` takes it.

    What was left out of training, being too small, cut by the edge or of no known class, need not be found (`ignore`);
    where the class is not known, this holds for all of them.
    """
    check_objects(model)
    found = []
    for each in targets_of(model, batch):
        known = torch.nonzero(each["labels"] > 0)[:, 0]
        other = torch.nonzero(each["labels"] == 0)[:, 0].repeat_interleave(len(model.classes))
        rows = torch.cat([known, other])
        every = torch.arange(len(model.classes), device=rows.device).repeat(len(other) // len(model.classes))
        told: dict[str, Tensor] = {name: each[name][rows] for name in ("boxes", "masks") if name in each}
        told |= {"labels": torch.cat([each["labels"][known] - 1, every]), "ignore": ~each["kept"][rows]}
        found.append({name: value.cpu() for name, value in told.items()})
    return found


def check_objects(model: Model) -> None:
    """Refuse models that tell no objects."""
    if not isinstance(model.head, ObjectHead):
        raise InputError(f"This model was trained for {model.task}; task='detection' or 'instances' finds objects.")


__all__ = ["IGNORE", "ObjectHead", "detect_boxes", "object_arrays", "objects_in", "pasted", "true_boxes", "within"]
