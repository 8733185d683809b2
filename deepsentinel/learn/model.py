"""An encoder with a head: what `ds.finetune` trains, `ds.evaluate` measures and `ds.predict` draws maps with."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepsentinel.encoders.base import Encoder
from deepsentinel.errors import InputError, SourceError, warn
from deepsentinel.files import write_bytes

from .batches import Batch, Feed
from .detection import ObjectHead, targets_of
from .heads import LinearHead, pixel_head
from .labels import BACKGROUND, Classes
from .losses import segmentation_loss
from .remembering import remember
from .tasks import IGNORE, OBJECT_TASKS, TASKS

SENSORS = ("both", "s1", "s2", "any")
FORMAT = 1
# Of "any": how often a step sees both sensors; else one of them alone.
BOTH_SHARE = 0.5


@dataclass(frozen=True)
class Question:
    """What a model answers, and how it was asked to learn it."""

    task: str
    """segmentation, classification, fractions, regression, detection or instances."""
    classes: Classes | None
    """The classes; None where the answer is a number."""
    sensors: str = "both"
    """What it sees: both, s1, s2; "any": learnt with both and with each alone, so that it can do with what there is."""
    loss: str = "log"
    """Of segmentation: log, focal, dice, or several joined by +."""
    balance: float = 0.5
    """The power of its share by which a rare class counts more; 0: not at all."""
    upscale: int = 1
    """How many of its pixels lie side by side in one of the image's."""
    decoder: str = "auto"
    """auto, unet, pixels or linear."""
    least_share: float = 0.05
    """Of classification: how much of a sample a class must have to be in it."""
    array: str = ""
    """Of regression: the mask with the numbers. Of objects: the mask with the number of each."""
    scale: tuple[float, float] = (0.0, 1.0)
    """Of regression: the mean and the spread of the numbers, which the model itself does not see."""
    least_px: float = 8
    """Of objects: those of fewer pixels are left out, and those of fewer than twice as many at the edge of a crop."""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InputError(f"task={self.task!r} is not known; {', '.join(TASKS)} are.")
        if self.sensors not in SENSORS:
            raise InputError(f"sensors={self.sensors!r}: one of {', '.join(SENSORS)} is meant.")
        if self.upscale not in (1, 2, 4, 8):
            raise InputError(f"upscale={self.upscale!r}: 1, 2, 4 or 8 is meant.")
        if self.upscale > 1 and self.task not in ("segmentation", "regression"):
            raise InputError(f"upscale={self.upscale} is for answers by pixel, not for task={self.task!r}.")

    @property
    def arrays(self) -> tuple[str, ...]:
        """The masks it learns from."""
        own = (self.array,) if self.array else ()
        return own if self.classes is None else (*self.classes.arrays, *own)

    @property
    def outputs(self) -> int:
        """How many numbers an answer has."""
        return 1 if self.classes is None else len(self.classes)


class Model(nn.Module):
    """An encoder, a head and the question they answer.

    `model(batch)` gives logits (segmentation: (B, classes, H, W); classification, fractions: (B, classes)), or numbers
    (regression: (B, 1, H, W)). `probabilities` gives what a person would ask for. Of objects
    `model(batch)` is a list with one dict an image, see `deepsentinel.learn.detection.ObjectHead`.
    """

    def __init__(
        self,
        encoder: Encoder,
        question: Question,
        *,
        frozen: bool = False,
        size: int = 32,
        cache_features: bool | str = "auto",
    ) -> None:
        super().__init__()
        if cache_features not in (True, False, "auto"):
            raise InputError(f'cache_features={cache_features!r}: True, False or "auto" is meant.')
        self.encoder, self.question, self.frozen, self.size = encoder, question, frozen, size
        self.cache_features = cache_features
        self.head: nn.Module
        if question.task in ("segmentation", "regression"):
            how: dict[str, Any] = {"decoder": question.decoder, "size": size, "upscale": question.upscale}
            self.head = pixel_head(encoder, question.outputs, **how)
        elif question.task in OBJECT_TASKS:
            self.head = ObjectHead(encoder, question.outputs, size=size, masks=question.task == "instances")
        else:
            self.head = LinearHead(encoder, question.outputs)
        self.encoder.requires_grad_(not frozen)
        self.history = pd.DataFrame({"loss": []})
        self.story: dict[str, Any] = {}
        # The corpora it learnt from and the encoder it began with, unless that has a name; a file does not keep them.
        self.learnt: tuple[Any, Any] | None = None
        weights = None if question.classes is None else question.classes.weights(question.balance)
        self._loss = segmentation_loss(question.loss, weights) if question.task == "segmentation" else None

    @property
    def task(self) -> str:
        """What it answers."""
        return self.question.task

    @property
    def classes(self) -> Classes:
        """The classes it tells apart."""
        if self.question.classes is None:
            raise InputError("This model tells numbers, not classes.")
        return self.question.classes

    def train(self, mode: bool = True) -> Self:
        """As any module; a frozen encoder stays as it is."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def sensors_for(self, sensors: str | None) -> str:
        """What is seen: what was asked for, or what it was trained with."""
        own = "both" if self.question.sensors == "any" else self.question.sensors
        return own if sensors is None else sensors

    def forward(self, batch: Batch, sensors: str | None = None) -> Tensor:
        """Logits or numbers."""
        return cast(Tensor, self.head(self.encoder, batch, self.sensors_for(sensors)))

    @torch.no_grad()
    def probabilities(self, batch: Batch, sensors: str | None = None) -> Tensor:
        """How likely each class is, the share of each, or the numbers in their own units."""
        self._check_numbers()
        said = self(batch, sensors).float()
        if self.task == "classification":
            return said.sigmoid()
        if self.task == "regression":
            mean, spread = self.question.scale
            return said * spread + mean
        return said.softmax(dim=1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """How far off the answers to a batch are."""
        if isinstance(self.head, ObjectHead):
            shown = self.sensors_for(self._shown(batch))
            return self.head.loss(self.encoder, batch, shown, targets_of(self, batch))
        said = self(batch, self._shown(batch)).float()
        if self.task == "segmentation":
            assert self._loss is not None
            return {"segmentation": self._loss(said, self.truth(batch))}
        truth = self.truth(batch)
        if self.task == "classification":
            known = truth.isfinite()
            off = F.binary_cross_entropy_with_logits(said, truth.nan_to_num(0.0), reduction="none")
            return {"classification": (off * known).sum() / known.sum().clamp(min=1)}
        if self.task == "fractions":
            known = truth.isfinite().all(dim=1)
            off = -(truth.nan_to_num(0.0) * said.log_softmax(dim=1)).sum(dim=1)
            return {"fractions": (off * known).sum() / known.sum().clamp(min=1)}
        mean, spread = self.question.scale
        wanted = (truth - mean) / spread
        known = wanted.isfinite()
        off = F.smooth_l1_loss(said[:, 0], wanted.nan_to_num(0.0), reduction="none")
        return {"regression": (off * known).sum() / known.sum().clamp(min=1)}

    def before_steps(self, batches: Any, steps: int) -> None:
        """A frozen encoder may look at all samples once, before the first step, see `cache_features` of `finetune`."""
        if isinstance(batches, Feed):
            remember(self, batches, steps)
        elif self.cache_features is True:
            raise InputError("cache_features=True is for batches of a corpus.")

    def after_step(self, step: int, steps: int) -> None:
        """Nothing is to be done."""

    def truth(self, batch: Batch) -> Tensor:
        """What is right: numbers of classes (B, H, W), whether a class is there or its share (B, K), or numbers."""
        self._check_numbers()
        if self.question.classes is None:
            self._check_size(batch.labels[self.question.array], batch)
            return batch.labels[self.question.array].float()
        targets = self.question.classes.targets(batch.labels)
        if self.task == "segmentation":
            self._check_size(targets, batch)
            return targets
        shares = shares_of(targets, len(self.question.classes))
        if self.task == "fractions":
            return shares
        return torch.where(shares.isfinite(), (shares >= self.question.least_share).float(), torch.nan)

    def _check_numbers(self) -> None:
        if self.task in OBJECT_TASKS:
            raise InputError(
                "This model finds objects, one by one: ds.predict(model, patch) gives them on the ground, "
                "detect_boxes(model, batch) of deepsentinel.learn.detection in pixels."
            )

    def _check_size(self, targets: Tensor, batch: Batch) -> None:
        finer = targets.shape[-1] // batch.pixels.shape[-1]
        if finer != self.question.upscale:
            raise InputError(
                f"These labels are {finer} times finer than the pixels: pass upscale={finer} to learn them as they are."
            )

    def _shown(self, batch: Batch) -> str | None:
        if self.question.sensors != "any":
            return None
        draw = float(torch.rand((), generator=batch.generator))
        return "both" if draw < BOTH_SHARE else "s1" if draw < (1 + BOTH_SHARE) / 2 else "s2"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write encoder, head and classes into one file of safetensors, which `load_model` reads."""
        from safetensors.torch import save

        from deepsentinel.encoders.registry import registry

        target, name = Path(path).expanduser(), self.encoder.spec.name.removesuffix("-random")
        if name not in registry():
            warn(f"{name} is an encoder of your own: load_model({str(target)!r}, encoder=...) needs one like it.")
        told = {
            "format": FORMAT,
            "encoder": name,
            "question": {**vars(self.question), "classes": None},
            "classes": None if self.question.classes is None else self.question.classes.to_plain(),
            "frozen": self.frozen,
            "size": self.size,
            "story": self.story,
            "history": json.loads(self.history.reset_index().to_json(orient="records")),
        }
        state = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        write_bytes(target, save(state, metadata={"deepsentinel": json.dumps(told)}))
        return target

    def __repr__(self) -> str:
        what = f"{len(self.classes)} classes of {self.classes.array}" if self.question.classes else self.question.array
        seen = {"both": "S1 and S2", "s1": "S1", "s2": "S2", "any": "S1, S2 or both"}[self.question.sensors]
        return f"{self.task} of {what} from {seen}, on {self.encoder.spec.name}"


def load_model(
    path: str | os.PathLike[str], *, encoder: Encoder | None = None, device: str | torch.device = "cpu"
) -> Model:
    """A model that `Model.save` wrote, ready for use.

    encoder: where the model's encoder has no name in `ds.list_encoders()`, one of the same build; a copy of it takes
    the weights of the file.

    >>> load_model("nothing.safetensors")
    Traceback (most recent call last):
    deepsentinel.errors.InputError: There is no file nothing.safetensors with a model; model.save(...) writes one.
    """
    from safetensors import SafetensorError, safe_open

    from deepsentinel.encoders import find, load_encoder
    from deepsentinel.encoders.registry import registry

    source = Path(path).expanduser()
    if not source.is_file():
        raise InputError(f"There is no file {source} with a model; model.save(...) writes one.")
    try:
        with safe_open(source, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            told = json.loads(metadata["deepsentinel"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise SourceError(f"{source} holds no model of deepsentinel ({error}); model.save(...) writes one.") from error
    classes = None if told["classes"] is None else Classes.from_plain(told["classes"])
    asked: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in told["question"].items()
    }
    question = Question(**{**asked, "classes": classes})
    name = told["encoder"]
    if encoder is None and name not in registry():
        raise InputError(f"{source} has an encoder of somebody's own, {name}: pass encoder=..., one of the same build.")
    model = Model(
        load_encoder(name, "random") if encoder is None else copy.deepcopy(encoder),
        question,
        frozen=told["frozen"],
        size=told["size"],
    )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        wrong = f"encoder= is a {model.encoder.spec.name}" if encoder is not None else "its weights are others"
        raise InputError(f"{source} holds no model on such an encoder as {name}: {wrong}.") from error
    if encoder is None:
        model.encoder.spec = find(name)  # it is no random one any more
    model.story = told["story"]
    rows = told["history"]
    model.history = pd.DataFrame(rows).set_index("step") if rows and "step" in rows[0] else model.history
    return model.eval().to(device)


def shares_of(targets: Tensor, count: int) -> Tensor:
    """(B, H, W) numbers of classes -> (B, count) the share of each in what is labelled; NaN where nothing is.

    >>> shares_of(torch.tensor([[[0, 1, 1, 255]]]), 2).tolist()
    [[0.3333333432674408, 0.6666666865348816]]
    """
    flat = targets.flatten(1)
    keep = flat != IGNORE
    counts = F.one_hot(torch.where(keep, flat, count), count + 1)[..., :count].sum(dim=1).float()
    total = keep.sum(dim=1, keepdim=True)
    return torch.where(total > 0, counts / total.clamp(min=1), torch.nan)


__all__ = ["BACKGROUND", "IGNORE", "Model", "Question", "load_model", "shares_of"]
