"""Patches as dicts of tensors, as they are stored or as reflectance and dB."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch.utils.data import Dataset

from deepsentinel.bands import REFLECTANCE_SCALE, S1_BANDS, S2_BANDS
from deepsentinel.corpus.chunks import Chunks
from deepsentinel.corpus.held import held_array
from deepsentinel.corpus.layout import ArraySpec
from deepsentinel.corpus.patches import is_label, refuse_mixed
from deepsentinel.corpus.store import chunks_of
from deepsentinel.errors import InputError, NothingFoundError, warn

VALUES = ("raw", "physical")
# Facts of a sample that come with its pixels, and their types as tensors.
FACTS = {"sample": "int64", "lon": "float32", "lat": "float32", "doy": "int64", "year": "int64"}


class PatchDataset(Dataset[dict[str, Any]]):
    """The samples of a corpus, or of a part of one such as `corpus.isel(sample=...)`, as dicts of tensors.

    A dict has `s2` (band, y, x) and `s1`, the masks in `labels` (`scl` and `angle` may be asked for too), and `sample`,
    `id`, `lon`, `lat`, `doy` and `year`. With a list of numbers in place of one it gives a whole batch, which is the
    faster way; `loader` asks so.

    With values="raw" pixels are the integers that are stored, half the size to move to a GPU, where `physical` turns
    them into reflectance and dB; with "physical" they are that already, float32, NaN or `fill` where there is no data.
    What the Dataset holds counts: arrays that were computed, loaded or added since it was opened are taken from it, in
    the units of the store, and those that were dropped are gone. All others are read from the files.

    ```python
    data = PatchDataset(train, bands=["B04", "B08", "VV"], labels=["corine_class_map"])
    data[17]["s2"].shape, data[[3, 17]]["corine_class_map"].shape
    ```
    """

    def __init__(
        self,
        corpus: xr.Dataset,
        *,
        bands: Iterable[str] | None = None,
        labels: Iterable[str] = (),
        values: str = "raw",
        fill: float | None = None,
    ) -> None:
        if values not in VALUES:
            raise InputError(f"values={values!r} is not known; raw (the integers that are stored) and physical are.")
        if fill is not None and values == "raw":
            raise InputError("fill= is for values='physical'; raw integers keep the number that stands for no data.")
        self.chunks = chunks_of(corpus)
        refuse_mixed(corpus, self.chunks)
        self.values, self.fill = values, fill
        self.labels = _named(labels, "labels")
        self._pixels = _chosen(corpus, self.chunks, bands)
        arrays = {spec.name: held_array(corpus, spec.name, self.chunks) for spec, _, _ in self._pixels}
        self._held = {**arrays, **{name: held_array(corpus, name, self.chunks) for name in self.labels}}
        self._masks = [self._held[name].spec for name in self.labels]
        kept = _ok(corpus)
        self.positions = kept
        """Where in the corpus that was given each item is."""
        self.facts = _facts(corpus, kept)
        self.ids = np.asarray(corpus["id"].values)[kept] if "id" in corpus.coords else None

    @property
    def samples(self) -> np.ndarray:
        """The numbers of the samples, in order."""
        return self.facts["sample"]

    @property
    def bands(self) -> dict[str, list[str]]:
        """The names of the bands in each tensor of pixels."""
        return {spec.name: names for spec, names, _ in self._pixels}

    def as_raw(self) -> PatchDataset:
        """The same with values="raw"."""
        found = copy(self)
        found.values, found.fill = "raw", None
        return found

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> dict[str, Any]:
        if isinstance(index, int | np.integer):
            return self._one(int(index))
        return self._batch(np.asarray(index, "int64").ravel())

    def _one(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no sample {index}; this dataset has {len(self)}.")
        position = int(self.positions[index])
        found: dict[str, Any] = {}
        for spec, _, axis in self._pixels:
            pixels = self._held[spec.name].read(position)
            found[spec.name] = self._tensor(pixels if axis is None else pixels[..., axis, :, :], spec)
        for spec in self._masks:
            found[spec.name] = self._tensor(self._held[spec.name].read(position), spec)
        found |= {name: values[index].item() for name, values in self.facts.items()}
        if self.ids is not None:
            found["id"] = self.ids[index]
        return found

    def _batch(self, indices: np.ndarray) -> dict[str, Any]:
        positions = self.positions[indices]
        found: dict[str, Any] = {}
        for spec, _, axis in self._pixels:
            stack = self._held[spec.name].read_many(positions)
            found[spec.name] = self._tensor(stack if axis is None else stack[..., axis, :, :], spec)
        for spec in self._masks:
            found[spec.name] = self._tensor(self._held[spec.name].read_many(positions), spec)
        found |= {name: torch.from_numpy(values[indices]) for name, values in self.facts.items()}
        if self.ids is not None:
            found["id"] = list(self.ids[indices])
        return found

    def _tensor(self, pixels: np.ndarray, spec: ArraySpec) -> torch.Tensor:
        if self.values == "physical":
            unit = _unit(spec.name)
            if unit is not None:
                pixels = _converted(pixels, *unit, self.fill)
            elif pixels.dtype.kind != "f":  # a mask, as losses take them
                pixels = pixels.astype("int64")
        return torch.from_numpy(pixels)


def physical(batch: Mapping[str, Any], fill: float | None = None) -> dict[str, Any]:
    """A sample or batch of raw integers with reflectance (0 to 1) and dB in their place, wherever its tensors are.

    Where there is no data stands NaN, or `fill`; masks become integers of 64 bits, as losses take them.

    >>> batch = physical({"s2": torch.tensor([2500, 0], dtype=torch.int32), "s1": torch.tensor([-1250, -32768])})
    >>> [values.tolist() for values in batch.values()]
    [[0.25, nan], [-12.5, nan]]
    """
    found = dict(batch)
    for name, values in batch.items():
        if isinstance(values, Mapping):
            found[name] = physical(values, fill)
        elif not isinstance(values, torch.Tensor) or values.is_floating_point() or name in FACTS:
            continue
        elif (unit := _unit(name)) is not None:
            found[name] = _physical(values, *unit, fill)
        elif values.dtype != torch.bool:
            found[name] = values.long()
    return found


def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Samples stacked into a batch; texts stay lists.

    >>> collate([{"s2": torch.ones(2), "id": "a", "year": 2018}, {"s2": torch.zeros(2), "id": "b", "year": 2019}])
    {'s2': tensor([[1., 1.],
            [0., 0.]]), 'id': ['a', 'b'], 'year': tensor([2018, 2019])}
    """
    found: dict[str, Any] = {}
    for name, first in items[0].items():
        values = [item[name] for item in items]
        if isinstance(first, torch.Tensor):
            found[name] = stacked(values)
        elif isinstance(first, Mapping):
            found[name] = collate(values)
        elif isinstance(first, int | float) and not isinstance(first, bool):
            kind = FACTS.get(name, "int64" if isinstance(first, int) else "float32")
            found[name] = torch.tensor(values, dtype=getattr(torch, kind))
        else:
            found[name] = values
    return found


def stacked(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors of one shape as one.

    >>> stacked([torch.zeros(2), torch.ones(2)]).tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    if all(map(_is_here, tensors)):
        # As with conversions: torch's threads are in each other's way on a busy machine.
        return torch.from_numpy(np.stack([tensor.numpy() for tensor in tensors]))
    return torch.stack(list(tensors))


def _unit(name: str) -> tuple[float, int] | None:
    """What one of the integers stands for, and the integer that stands for nothing."""
    if name in ("s1", "angle"):
        return 0.01, -32768
    # All the others are of Sentinel-2, at one resolution or at each band's own.
    return None if is_label(name) or name == "scl" else (1 / REFLECTANCE_SCALE, 0)


def _physical(values: torch.Tensor, scale: float, nodata: int, fill: float | None) -> torch.Tensor:
    if _is_here(values):
        return torch.from_numpy(_converted(values.numpy(), scale, nodata, fill))
    found = values.float()
    gone = found == nodata
    found *= scale
    return found.masked_fill_(gone, float("nan") if fill is None else fill)


def _is_here(values: torch.Tensor) -> bool:
    return values.device.type == "cpu"


def _converted(raw: np.ndarray, scale: float, nodata: int, fill: float | None) -> np.ndarray:
    # In numpy, as torch would put its threads to it, which on a busy machine wait for each other a hundred times longer
    # than the work takes.
    found = raw.astype("float32")
    found *= np.float32(scale)
    gone = raw == nodata
    if gone.any():
        found[gone] = np.nan if fill is None else fill
    return found


def _named(names: Iterable[str], what: str) -> tuple[str, ...]:
    if isinstance(names, str):
        raise InputError(f"{what}={names!r} is one text; give a list: {what}=[{names!r}].")
    return tuple(names)


def _chosen(corpus: xr.Dataset, chunks: Chunks, bands: Iterable[str] | None) -> list[tuple[ArraySpec, list[str], Any]]:
    """The arrays of pixels that hold the bands: each with the names of those and where they lie (None: all of it)."""
    wanted = None if bands is None else _named(bands, "bands")
    arrays = [held_array(corpus, str(name), chunks).spec for name in corpus.data_vars if not is_label(str(name))]
    held: dict[str, list[str]] = {}
    for spec in arrays:
        axis = next((dim for dim in spec.dims if "band" in dim), None)
        if axis is not None:
            held[spec.name] = [str(name) for name in np.atleast_1d(corpus[axis].values)]
    known = [name for names in held.values() for name in names]
    if wanted is not None:
        lacking = [name for name in wanted if name not in known]
        if lacking or not wanted:
            hint = "" if not lacking or lacking[0] in {**S2_BANDS, **S1_BANDS} else ", which is no band of a Sentinel"
            raise InputError(
                f"This corpus has no band {lacking[0]!r}{hint}; it has {', '.join(known)}."
                if lacking
                else "bands= names no band; leave it out for all."
            )
    found: list[tuple[ArraySpec, list[str], Any]] = []
    for spec in arrays:
        names = held.get(spec.name)
        if names is None:
            continue
        mine = names if wanted is None else [name for name in wanted if name in names]
        if mine:
            where = None if mine == names else np.array([names.index(name) for name in mine])
            found.append((spec, mine, where))
    if not found:
        raise InputError("This corpus holds no pixels of Sentinel-1 or Sentinel-2.")
    return sorted(found, key=lambda item: not item[0].name.startswith("s2"))


def _ok(corpus: xr.Dataset) -> np.ndarray:
    """Positions of the samples that were built; that others are left out is said."""
    count = corpus.sizes.get("sample", 0)
    if "status" not in corpus.coords:
        return np.arange(count)
    status = np.atleast_1d(corpus["status"].values)
    kept = np.flatnonzero(status == "ok")
    if len(kept) < count:
        failed = int((status == "failed").sum())
        others = count - len(kept) - failed
        why = [f"{failed} failed"] * (failed > 0) + [f"{others} not built yet"] * (others > 0)
        if not len(kept):
            raise NothingFoundError(f"None of the {count} samples can be used: {', '.join(why)}. Build it first.")
        warn(f"{count - len(kept)} of {count} samples are left out: {', '.join(why)}. corpus.reason says why.")
    if not len(kept):
        raise NothingFoundError("There is no sample in this part of the corpus.")
    return kept


def _facts(corpus: xr.Dataset, kept: np.ndarray) -> dict[str, np.ndarray]:
    found = {"sample": corpus["sample"].values[kept].astype("int64")}
    for name in ("lon", "lat"):
        if name in corpus.coords:
            found[name] = corpus[name].values[kept].astype("float32")
    times = [corpus[name] for name in ("s2_time", "s1_time") if name in corpus.coords and corpus[name].ndim == 1]
    if times:
        when = times[0].values[kept]
        for other in times[1:]:  # a sample of the other sensor only
            when = np.where(np.isnat(when), other.values[kept], when)
        found |= calendar(when)
    return found


def calendar(times: np.ndarray) -> dict[str, np.ndarray]:
    """Day of the year (1 to 366) and year of times; 0 for those that are missing.

    >>> {name: values.tolist() for name, values in calendar(np.array(["2020-12-31", "NaT"], "datetime64[ns]")).items()}
    {'doy': [366, 0], 'year': [2020, 0]}
    """
    gone = np.isnat(times)
    days, years = times.astype("datetime64[D]"), times.astype("datetime64[Y]")
    doy = np.where(gone, 0, (days - years).astype("int64") + 1)
    return {"doy": doy, "year": np.where(gone, 0, years.astype("int64") + 1970)}
