"""What a model can learn from pixels alone: one small class an objective, each with one method, `loss(batch)`.

`loss` gives its parts by name, already weighted; training descends their sum. Every objective works with every encoder
that has the sensors it speaks of, because what it hides it hides by masks, and what it rebuilds it rebuilds from cells.

    from deepsentinel.learn import objectives

    objective = objectives.build("masked", encoder, feed)
    sum(objective.loss(feed(0)).values()).backward()
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepsentinel.encoders.base import Encoder, Tokens
from deepsentinel.errors import InputError

from .batches import Batch, Feed, encode
from .decoders import CellDecoder, Critic, PixelDecoder, Projector, adversaries, apart, cells_of
from .targets import Target, numbers, scaled, targets, unscaled
from .views import another, hidden_cells, jittered, kept_cells

Losses = dict[str, Tensor]


class Objective(nn.Module, ABC):
    """An encoder and what it is trained against."""

    name = ""
    """What `pretrain` knows it by."""
    needs: tuple[str, ...] = ()
    """What a batch must have beside pixels: "triplets"."""
    all_bands = False
    """Whether it wants bands that its encoder does not take."""
    shapes_vary = False
    """Whether what it hides differs so much from step to step that no two steps have tensors of the same shapes."""

    def __init__(self, encoder: Encoder, s1_bands: Sequence[str], s2_bands: Sequence[str]) -> None:
        super().__init__()
        self.encoder = encoder
        self.s1_bands, self.s2_bands = tuple(s1_bands), tuple(s2_bands)

    @abstractmethod
    def loss(self, batch: Batch) -> Losses:
        """The parts of the loss on a batch, by name, weighted."""

    def after_step(self, step: int, steps: int) -> None:
        """What is to be done once the weights have changed."""

    @property
    def modes(self) -> tuple[str, ...]:
        """Which sensors the encoder can be shown of these batches."""
        here = {"s1": bool(self.s1_bands), "s2": bool(self.s2_bands), "both": bool(self.s1_bands and self.s2_bands)}
        return tuple(mode for mode in ("both", "s1", "s2") if here[mode] and mode in self.encoder.spec.modes)

    @property
    def widest(self) -> str:
        """All that the encoder can be shown at once."""
        return self.modes[0]

    def _refuse(self, what: str) -> InputError:
        return InputError(
            f"objective={type(self).name!r} {what}; {self.encoder.spec.name} takes "
            f"{' or '.join(self.encoder.spec.modes)} and the corpus has {' '.join((*self.s1_bands, *self.s2_bands))}."
        )


class Contrastive(Objective):
    """What Sentinel-1 and Sentinel-2 see of a place belongs together, and so do two views of it (SimCLR, 2020)."""

    name = "contrastive"
    shapes_vary = True

    def __init__(
        self,
        encoder: Encoder,
        s1_bands: Sequence[str],
        s2_bands: Sequence[str],
        *,
        temperature: float = 0.1,
        seen: float = 0.6,
    ) -> None:
        super().__init__(encoder, s1_bands, s2_bands)
        self.temperature, self.seen = temperature, seen
        self.projector = Projector(encoder.spec.width)

    def loss(self, batch: Batch) -> Losses:
        """The sensors against each other, then two views of whatever the encoder takes."""
        parts: Losses = {}
        if {"s1", "s2"} <= set(self.modes):
            parts["sensors"] = self._between(self._view(batch, "s1"), self._view(batch, "s2"))
        parts["views"] = self._between(self._view(batch, self.widest), self._view(batch, self.widest))
        return parts

    def _view(self, batch: Batch, mode: str) -> Tensor:
        seen = kept_cells(another(jittered(batch)), self.encoder.spec, self.seen)
        return pooled(encode(self.encoder, seen, mode))

    def _between(self, one: Tensor, other: Tensor) -> Tensor:
        return contrast(self.projector(one), self.projector(other), self.temperature)


class Triplet(Objective):
    """A place is more like its neighbour than like one far away (Tile2Vec, Jean et al. 2019)."""

    name = "triplet"
    needs = ("triplets",)

    def __init__(
        self, encoder: Encoder, s1_bands: Sequence[str], s2_bands: Sequence[str], *, margin: float = 0.5
    ) -> None:
        super().__init__(encoder, s1_bands, s2_bands)
        self.margin = margin
        self.projector = Projector(encoder.spec.width)

    def loss(self, batch: Batch) -> Losses:
        """Anchor, neighbour and distant, by the cosine between them; and no two of a batch should be the same."""
        three = [batch, batch.others["neighbour"], batch.others["distant"]]
        anchor, near, far = (
            F.normalize(self.projector(pooled(encode(self.encoder, jittered(each), self.widest))), dim=1)
            for each in three
        )
        closer = F.relu((anchor * far).sum(1) - (anchor * near).sum(1) + self.margin).mean()
        return {"triplet": closer, "spread": 0.5 * contrast(anchor, near, 0.2)}


class Masked(Objective):
    """Most of the squares are hidden and told from the rest (MAE, He et al. 2021), across the sensors.

    Half of the samples keep a part of both sensors, a quarter only Sentinel-1, a quarter only Sentinel-2: the encoder
    has to tell one from the other. Beside it the vectors of both sensors are brought together.
    """

    name = "masked"
    shapes_vary = True

    def __init__(
        self,
        encoder: Encoder,
        s1_bands: Sequence[str],
        s2_bands: Sequence[str],
        *,
        seen: float = 0.25,
        contrast: float = 0.2,
        dateless: float = 0.2,
        patches: Sequence[int] | None = None,
    ) -> None:
        super().__init__(encoder, s1_bands, s2_bands)
        self.seen, self.contrast, self.dateless = seen, contrast, dateless
        spec = encoder.spec
        # A patch of 4 px shows more detail than one of 8; half of the steps have one, half the other.
        own = [size for size in (4, 8) if size in spec.patch_sizes] if spec.any_size else [spec.patch_px]
        self.patches = tuple(patches or own or [spec.patch_px])
        self.sizes = numbers(s1_bands, s2_bands)
        self.decoder = CellDecoder(spec.width, sum(self.sizes.values()))
        self.projector = Projector(spec.width)

    def loss(self, batch: Batch) -> Losses:
        """Rebuild what is hidden; compare what the sensors see."""
        patch = self.patches[int(torch.randint(len(self.patches), (), generator=batch.generator))]
        side = batch.pixels.shape[-1] * patch // max(self.patches)
        batch = batch.cropped(side)
        if float(torch.rand((), generator=batch.generator)) < self.dateless:
            batch = replace(batch, month=None)  # not everybody will know the month
        told = targets(batch, side // patch, side // patch)
        shown, hidden = hidden_cells(batch, patch, self.seen, self.modes)
        cells = cells_of(encode(self.encoder, shown, self.widest, patch_px=patch))
        parts = rebuilt(self.decoder(cells), told, self.sizes, hidden)
        if self.contrast and {"s1", "s2"} <= set(self.modes):
            views = []
            for mode in ("s1", "s2"):
                part = kept_cells(batch, self.encoder.spec, self.seen, patch_px=patch)
                views.append(self.projector(pooled(encode(self.encoder, part, mode, patch_px=patch))))
            parts["sensors"] = self.contrast * contrast(views[0], views[1], 0.1)
        return parts


class Variational(Objective):
    """Cells become a distribution near the normal one, from which they are rebuilt (VAE, Kingma and Welling 2013)."""

    name = "variational"

    def __init__(
        self, encoder: Encoder, s1_bands: Sequence[str], s2_bands: Sequence[str], *, beta: float = 0.01
    ) -> None:
        super().__init__(encoder, s1_bands, s2_bands)
        self.beta = beta
        width = encoder.spec.width
        self.sizes = numbers(s1_bands, s2_bands)
        self.latent = nn.Linear(width, 2 * width)
        self.decoder = CellDecoder(width, sum(self.sizes.values()))

    def loss(self, batch: Batch) -> Losses:
        """How well cells are rebuilt from a draw, and how far from normal what it was drawn from is."""
        cells = cells_of(encode(self.encoder, batch, self.widest))
        mean, log_variance = self.latent(cells.nan_to_num(0.0)).chunk(2, dim=-1)
        log_variance = log_variance.clamp(-10, 10)
        noise = torch.randn(mean.shape, generator=batch.generator).to(mean)
        parts = rebuilt(self.decoder(mean + noise * (0.5 * log_variance).exp()), told_by(batch, cells), self.sizes)
        divergence = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).mean()
        return {**parts, "divergence": self.beta * divergence}


class AdversarialLatent(Objective):
    """Cells are rebuilt from vectors that a critic cannot tell from noise (Makhzani et al., 2015)."""

    name = "adversarial"

    def __init__(
        self, encoder: Encoder, s1_bands: Sequence[str], s2_bands: Sequence[str], *, weight: float = 0.05
    ) -> None:
        super().__init__(encoder, s1_bands, s2_bands)
        self.weight = weight
        width = encoder.spec.width
        self.sizes = numbers(s1_bands, s2_bands)
        self.latent = nn.Linear(width, width)
        self.decoder = CellDecoder(width, sum(self.sizes.values()))
        self.critic = nn.Sequential(
            nn.Linear(width, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)
        )

    def loss(self, batch: Batch) -> Losses:
        """Rebuilding, what the critic learns, and what the encoder learns from the critic."""
        cells = cells_of(encode(self.encoder, batch, self.widest))
        latent = self.latent(cells.nan_to_num(0.0))
        parts = rebuilt(self.decoder(latent), told_by(batch, cells), self.sizes)
        noise = torch.randn(latent.shape, generator=batch.generator).to(latent)
        return {**parts, **adversaries(self.critic, noise, latent, self.weight)}


class RadarToOptical(Objective):
    """Sentinel-2 as it would look, told from Sentinel-1 (pix2pix, Isola et al. 2017); works under any cloud."""

    name = "radar-to-optical"
    all_bands = True

    def __init__(
        self,
        encoder: Encoder,
        s1_bands: Sequence[str],
        s2_bands: Sequence[str],
        *,
        weight: float = 0.02,
        spread: float = 0.1,
    ) -> None:
        super().__init__(encoder, s1_bands, s2_bands)
        if "s1" not in self.modes or not s2_bands:
            raise self._refuse("tells Sentinel-2 from Sentinel-1, so it needs both and an encoder of Sentinel-1")
        self.weight, self.spread = weight, spread
        self.painter = PixelDecoder(encoder.spec.width, len(self.s1_bands), len(self.s2_bands))
        self.critic = Critic(len(self.s1_bands) + len(self.s2_bands))

    def paint(self, batch: Batch) -> Tensor:
        """Sentinel-2 from Sentinel-1: (B, C, H, W) scaled; `unscaled` brings it to reflectance x 10000."""
        return self._painted(batch, self._cells(batch))

    def _cells(self, batch: Batch) -> Tensor:
        return cells_of(encode(self.encoder, batch, "s1"))

    def _painted(self, batch: Batch, cells: Tensor) -> Tensor:
        assert batch.s1 is not None
        return cast(Tensor, self.painter(cells, scaled(batch.s1, self.s1_bands)))

    @torch.no_grad()
    def optical(self, batch: Batch) -> Tensor:
        """The same as reflectance x 10000."""
        return unscaled(self.paint(batch), self.s2_bands).clamp(min=1)

    def loss(self, batch: Batch) -> Losses:
        """How far off each pixel is, what the critic learns, and what the painter learns from the critic.

        The painter sees the radar's pixels too, so that brightness alone would do for the vectors: a little keeps them
        from telling nothing else.
        """
        assert batch.s1 is not None
        assert batch.s2 is not None
        assert batch.s2_mask is not None
        cells = self._cells(batch)
        told = self._painted(batch, cells)
        radar, truth = scaled(batch.s1, self.s1_bands), scaled(batch.s2, self.s2_bands)
        known = batch.s2_mask.unsqueeze(1)
        off = torch.where(known, (told - truth).abs(), 0.0).sum() / (known.sum() * len(self.s2_bands)).clamp(min=1)
        # Under cloud there is no truth, so that both are shown the same there.
        real, fake = torch.where(known, truth, 0.0), torch.where(known, told, 0.0)
        vectors = cells.flatten(0, 2)
        vectors = vectors[vectors.isfinite().all(dim=1)]
        return {
            "pixels": off,
            **({"spread": self.spread * apart(vectors)} if len(vectors) > 1 else {}),
            **adversaries(self.critic, torch.cat([radar, real], 1), torch.cat([radar, fake], 1), self.weight),
        }


class LatentMasked(Objective):
    """What a slow copy of the encoder says of hidden cells is told from those that are seen (I-JEPA, data2vec)."""

    name = "latent"
    shapes_vary = True

    def __init__(
        self,
        encoder: Encoder,
        s1_bands: Sequence[str],
        s2_bands: Sequence[str],
        *,
        seen: float = 0.3,
        momentum: float = 0.99,
        spread: float = 0.1,
    ) -> None:
        super().__init__(encoder, s1_bands, s2_bands)
        self.seen, self.momentum, self.spread = seen, momentum, spread
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)
        self.decoder = CellDecoder(encoder.spec.width, encoder.spec.width)

    def loss(self, batch: Batch) -> Losses:
        """How far the told vectors are from the slow copy's; a little keeps vectors from becoming all alike."""
        patch = self.encoder.spec.patch_px
        shown, _ = hidden_cells(batch, patch, self.seen, self.modes)
        cells = cells_of(encode(self.encoder, shown, self.widest))
        with torch.no_grad():
            wanted = cells_of(encode(self.teacher, batch, self.widest))
        known = wanted[..., :1].isfinite()
        wanted = F.layer_norm(wanted.nan_to_num(0.0), wanted.shape[-1:])
        off = F.smooth_l1_loss(self.decoder(cells), wanted, reduction="none")
        parts = {"latent": torch.where(known, off, 0.0).sum() / (known.sum() * wanted.shape[-1]).clamp(min=1)}
        vectors = cells.flatten(0, 2)
        vectors = vectors[vectors.isfinite().all(dim=1)]
        if len(vectors) > 1:
            parts["spread"] = self.spread * F.relu(1 - (vectors.var(dim=0) + 1e-4).sqrt()).mean()
        return parts

    @torch.no_grad()
    def after_step(self, step: int, steps: int) -> None:
        """The slow copy follows, ever more slowly."""
        keep = 1 - (1 - self.momentum) * (1 - step / max(1, steps))
        for slow, quick in zip(self.teacher.parameters(), self.encoder.parameters(), strict=True):
            slow.lerp_(quick, 1 - keep)


OBJECTIVES: Mapping[str, type[Objective]] = {
    kind.name: kind
    for kind in (Contrastive, Triplet, Masked, Variational, AdversarialLatent, RadarToOptical, LatentMasked)
}


def find(name: str) -> type[Objective]:
    """An objective's class by its name.

    >>> find("masked").__name__
    'Masked'
    """
    if name not in OBJECTIVES:
        raise InputError(f"objective={name!r} is not known; {', '.join(OBJECTIVES)} are.")
    return OBJECTIVES[name]


def build(name: str, encoder: Encoder, feed: Feed, **options: Any) -> Objective:
    """An objective by name, for an encoder and the bands of a feed."""
    kind = find(name)
    if "triplets" in kind.needs and not feed.triplets:
        raise InputError(f"objective={name!r} needs triplets: say how near and how far, near_m=..., far_m=....")
    bands = [band for names in feed.bands.values() for band in names]
    s1 = [band for band in bands if band in ("VV", "VH", "HH", "HV")]
    return kind(encoder, s1, [band for band in bands if band not in s1], **options)


def pooled(tokens: Tokens) -> Tensor:
    """(B, D) with zeros for a sample of which nothing was seen, so that it teaches nothing."""
    return tokens.pooled.nan_to_num(0.0)


def contrast(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Each of the one should be nearest to its own of the other, and no other of either (NT-Xent)."""
    from lightly.loss import NTXentLoss

    return cast(Tensor, NTXentLoss(temperature=temperature)(one.float(), other.float()))


def told_by(batch: Batch, cells: Tensor) -> dict[str, Target]:
    """The targets of a batch in as many cells as its encoder has."""
    return targets(batch, cells.shape[1], cells.shape[2])


def rebuilt(
    said: Tensor, told: Mapping[str, Target], sizes: Mapping[str, int], hidden: Mapping[str, Tensor] | None = None
) -> Losses:
    """How far what is said of each cell is from what is to be told; what was hidden counts most."""
    parts: Losses = {}
    for name, part in zip(sizes, said.split(list(sizes.values()), dim=-1), strict=True):
        target = told[name]
        weight = target.known.to(part.dtype)
        if hidden is not None:
            weight = weight * torch.where(hidden[name], 1.0, SEEN_WEIGHT).unsqueeze(-1)
        off = F.smooth_l1_loss(part, target.values, reduction="none", beta=0.5)
        parts[name] = (off * weight).sum() / weight.sum().clamp(min=1)
    return parts


# Telling what was seen is easy, but what a vector does not tell of its own cell nobody can read from it later.
SEEN_WEIGHT = 0.2
