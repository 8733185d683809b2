"""Series of unequal length: as long as they are, or padded to a batch, with lengths and a mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from deepsentinel.errors import InputError

from .patches import PatchDataset, calendar, collate, stacked

SENSORS = ("s2", "s1")


class SeriesDataset(PatchDataset):
    """The series of a corpus that was planned with series=True, without the steps that pad them in the store.

    A dict has `s2` (step, band, y, x) with `s2_doy`, `s2_year` and `s2_length`, and the same of `s1`. A list of numbers
    gives a batch, padded to its longest series: `s2_mask` is True where there is a date.

    ```python
    data = SeriesDataset(corpus, values="physical", fill=0)
    batch = data[[0, 5, 9]]
    batch["s2"].shape, batch["s2_mask"].sum(dim=1), batch["s2_doy"]
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
        super().__init__(corpus, bands=bands, labels=labels, values=values, fill=fill)
        self._steps = [spec.name for spec, _, _ in self._pixels if any(dim.endswith("_step") for dim in spec.dims)]
        if not self._steps:
            raise InputError("The samples of this corpus are single dates; PatchDataset reads those.")
        self._times = {
            sensor: corpus[f"{sensor}_time"].values[self.positions]
            for sensor in SENSORS
            if any(name.startswith(sensor) for name in self._steps)
        }

    def _one(self, index: int) -> dict[str, Any]:
        found = super()._one(index)
        for sensor, times in self._times.items():
            there = np.flatnonzero(~np.isnat(times[index]))
            for name in [name for name in self._steps if name.startswith(sensor)]:
                # Dates stand first and padding behind, so this is no copy.
                found[name] = found[name][: len(there)]
            dates = calendar(times[index][there])
            found |= {f"{sensor}_{name}": torch.from_numpy(values) for name, values in dates.items()}
            found[f"{sensor}_length"] = len(there)
        return found

    def _batch(self, indices: np.ndarray) -> dict[str, Any]:
        return collate_series([self._one(int(index)) for index in indices])


def collate_series(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Series padded with zeros to the longest of the batch; `<sensor>_mask` is True where there is a date.

    >>> short, long = ({"s2": torch.ones(n, 1, 1, 1), "s2_doy": torch.arange(n), "s2_length": n} for n in (1, 2))
    >>> batch = collate_series([short, long])
    >>> batch["s2"].shape, batch["s2_mask"].tolist(), batch["s2_length"].tolist()
    (torch.Size([2, 2, 1, 1, 1]), [[True, False], [True, True]], [1, 2])
    """
    sensors = [sensor for sensor in SENSORS if f"{sensor}_length" in items[0]]
    rows: list[dict[str, Any]] = [dict(item) for item in items]
    padded: dict[str, Any] = {}
    for sensor in sensors:
        lengths = torch.tensor([int(row[f"{sensor}_length"]) for row in rows])
        longest = int(lengths.max())
        for name in [name for name in items[0] if name == sensor or name.startswith(f"{sensor}_")]:
            if isinstance(rows[0][name], torch.Tensor):
                padded[name] = stacked([_padded(row.pop(name), longest) for row in rows])
        padded[f"{sensor}_mask"] = torch.arange(longest) < lengths[:, None]
    return collate(rows) | padded


def _padded(values: torch.Tensor, length: int) -> torch.Tensor:
    if len(values) == length:
        return values
    out = torch.zeros((length, *values.shape[1:]), dtype=values.dtype)
    out[: len(values)] = values
    return out
