"""The samples of one corpus, or of several as if they were one, by position; on the device where they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deepsentinel.corpus.layout import ArraySpec
from deepsentinel.encoders.spec import EncoderSpec
from deepsentinel.errors import InputError
from deepsentinel.tensors import PatchDataset, Resident, TripletDataset, resident

if TYPE_CHECKING:
    import xarray as xr

# Of free memory, what a corpus may take to stay on the device; gradients and activations want the rest.
RESIDENT_SHARE = 0.5
Raw = dict[str, Any]
# The scene classification, and what stands in it for what nobody knows.
SCL, UNKNOWN = "scl", 0


class Samples:
    """Raw samples of corpora by position: those of the first corpus, then those of the next.

    bands, labels: those that are read; clouds: whether SCL comes along where there is one. on_device: whether all are
    brought to the device at once; None: if they fit. triplets: what is near and what is far, in metres; an index then
    counts anchors, and a neighbour and something distant go with each.
    """

    def __init__(
        self,
        corpora: Sequence[xr.Dataset],
        *,
        bands: Sequence[str] | None,
        labels: Sequence[str],
        clouds: bool,
        device: torch.device,
        on_device: bool | None = None,
        triplets: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        parts = []
        for corpus in corpora:
            scl = (SCL,) if clouds and SCL in corpus.data_vars else ()
            parts.append(PatchDataset(corpus, bands=bands, labels=(*labels, *scl)))
        if any(part.bands != parts[0].bands for part in parts):
            raise InputError("These corpora do not have the same bands; name those that they share in bands=.")
        self.bands = parts[0].bands
        for corpus, part in zip(corpora, parts, strict=True):
            _refuse_cut(corpus, part)
        sides = [_size_px(part) for part in parts]
        if len(set(sides)) > 1:
            raise InputError(
                f"Samples of these corpora are {' and '.join(map(str, sorted(set(sides))))} px wide, and a batch has "
                "one size; learn from those of one size, or build the others anew with size_px=."
            )
        self.size_px = sides[0]
        # What SCL is where only some of the corpora have it: elsewhere it is filled with what stands for not known.
        self._scl = _same_arrays(parts)
        self.triplets = (
            [TripletDataset(corpus, seed=seed, **triplets) for corpus in corpora] if triplets is not None else []
        )
        self._parts: list[PatchDataset | Resident] = list(parts)
        self._starts = _starts(parts)
        self._anchors = _starts(self.triplets or parts)
        if on_device or (on_device is None and _fit(parts, device)):
            self._parts = [resident(part, device, progress=False) for part in parts]

    def __len__(self) -> int:
        """How many there are; of triplets, how many anchors."""
        return int(self._anchors[-1])

    @property
    def resident(self) -> bool:
        """Whether they are on the device already."""
        return isinstance(self._parts[0], Resident)

    def triplet_rows(self, anchors: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        """Positions of anchors, and of what goes with them in an epoch."""
        drawn = []
        for anchor in anchors:
            part = int(np.searchsorted(self._anchors, anchor, side="right")) - 1
            self.triplets[part].set_epoch(epoch)
            found = self.triplets[part].drawn(int(anchor - self._anchors[part]))
            drawn.append([self._starts[part] + place for place in found])
        rows = np.array(drawn).T
        return dict(zip(("", "neighbour", "distant"), rows, strict=True))

    def __getitem__(self, positions: np.ndarray) -> Raw:
        """Samples by position, in the order asked for."""
        part_of = np.searchsorted(self._starts, positions, side="right") - 1
        found: list[tuple[np.ndarray, Raw]] = []
        for part in np.unique(part_of):
            rows = np.flatnonzero(part_of == part)
            found.append((rows, self._filled(self._parts[part][positions[rows] - self._starts[part]])))
        if len(found) == 1:
            return found[0][1]
        order = torch.from_numpy(np.argsort(np.concatenate([rows for rows, _ in found])))
        joined: Raw = {}
        for name, first in found[0][1].items():
            if isinstance(first, Tensor):
                values = [raw[name] for _, raw in found]
                # Devices pick rows of signed integers only.
                unsigned = first.dtype == torch.uint16
                every = torch.cat([value.view(torch.int16) if unsigned else value for value in values])
                every = every.index_select(0, order.to(every.device))
                joined[name] = every.view(torch.uint16) if unsigned else every
        return joined

    def _filled(self, raw: Raw) -> Raw:
        if self._scl is None or SCL in raw:
            return raw
        # Where the pixels are: a corpus that is on the device stays there.
        here = raw["sample"]
        shape = (len(here), *self._scl.shape)
        return {**raw, SCL: torch.full(shape, UNKNOWN, dtype=getattr(torch, self._scl.dtype), device=here.device)}


def corpora_of(corpora: xr.Dataset | Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """One corpus or several, as a list."""
    import xarray as xr

    found = [corpora] if isinstance(corpora, xr.Dataset) else list(corpora)
    if not found or not all(isinstance(each, xr.Dataset) for each in found):
        kinds = ", ".join(sorted({type(each).__name__ for each in found})) or "nothing"
        raise InputError(f"A corpus from ds.open_corpus, or a list of them, is meant; this is {kinds}.")
    return found


def bands_of(spec: EncoderSpec, corpus: xr.Dataset, *, all_of: bool = False) -> list[str]:
    """The bands of an encoder that a corpus has; all that have one of the usual encoder's, where more are wanted."""
    from deepsentinel.encoders.registry import find

    # Bands of arrays that were dropped still stand along their dimension.
    axes = dict.fromkeys(dim for values in corpus.data_vars.values() for dim in values.dims if "band" in str(dim))
    held = [str(name) for dim in axes for name in corpus[dim].values]
    usual = find("fusion-nano")
    wanted = [*spec.s2_bands, *spec.s1_bands]
    if all_of:
        wanted += [name for name in (*usual.s2_bands, *usual.s1_bands) if name not in wanted]
    found = [name for name in wanted if name in held]
    if not found:
        raise InputError(
            f"{spec.name} takes {' '.join((*spec.s1_bands, *spec.s2_bands))}; this corpus has none of them."
        )
    return found


def _starts(parts: Sequence[Any]) -> np.ndarray:
    return np.cumsum([0, *(len(part) for part in parts)])


def _fit(parts: Sequence[PatchDataset], device: torch.device) -> bool:
    from deepsentinel.tensors.on_device import free_bytes

    need = sum(sum(spec.nbytes for spec in (*_arrays(part), *part._masks)) * len(part) for part in parts)
    return need < RESIDENT_SHARE * free_bytes(device)


def _refuse_cut(corpus: xr.Dataset, data: PatchDataset) -> None:
    """Where a sample lies, and what its finer masks say, is known of whole samples."""
    whole = {spec.name: spec for spec in data.chunks.layout.arrays}
    for spec in (*_arrays(data), *data._masks):
        if spec.name not in whole:
            continue
        here = corpus[spec.name].sizes
        for dim, side in zip(whole[spec.name].dims, (0, *whole[spec.name].shape), strict=True):
            if dim[0] in "yx" and here.get(dim) != side:
                raise InputError(
                    f"This corpus is cut to {here.get(dim, 1)} of the {side} px that {spec.name} has along {dim}, and "
                    "where samples lie is known of whole ones. Pass it uncut: crop_px= trains on crops."
                )


def _same_arrays(parts: Sequence[PatchDataset]) -> ArraySpec | None:
    """The SCL that some corpora have and others lack; refuses what cannot be put into one batch."""
    masks = [{spec.name: spec for spec in part._masks} for part in parts]
    for name in dict.fromkeys(name for each in masks for name in each):
        shapes = {each[name].shape for each in masks if name in each}
        if len(shapes) > 1:
            told = " and ".join(str(shape[-1]) for shape in sorted(shapes))
            raise InputError(f"{name} is {told} px wide in these corpora; masks of one batch have one size.")
    facts = [set(part.facts) for part in parts]
    if lost := sorted({name for each in facts for name in each if not all(name in other for other in facts)}):
        where = "s1_time and s2_time" if {"doy", "year"} & set(lost) else lost[0]
        raise InputError(
            f"Some of these corpora know {lost[0]} of their samples and others do not; leave {where} out of those that "
            "do, or build the others with it."
        )
    known = [each[SCL] for each in masks if SCL in each]
    return known[0] if 0 < len(known) < len(parts) else None


def _size_px(data: PatchDataset) -> int:
    sides = {spec.shape[-2:] for spec in _arrays(data)}
    if len(sides) > 1 or any(len(spec.shape) != 3 for spec in _arrays(data)):
        raise InputError("Models learn from patches on one grid; this corpus has series, or bands of several sizes.")
    height, width = next(iter(sides))
    if height != width:
        raise InputError(f"Samples of {height} x {width} px cannot be turned; models learn from square ones.")
    return height


def _arrays(data: PatchDataset) -> list[ArraySpec]:
    return [spec for spec, _, _ in data._pixels]
