"""Samples in twos and threes: near and far, two sensors, two dates of a place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch.utils.data import Dataset

from deepsentinel.errors import InputError, NothingFoundError

from .patches import PatchDataset, collate

EARTH_RADIUS_M = 6_371_008.8
VIEWS = ("sensors", "twins", "dates")
# So often a sample anywhere is drawn before all that are far enough are looked for.
DRAWS = 32


class _Drawn(Dataset[dict[str, Any]], ABC):
    """What is drawn anew in each epoch, by the seed, the epoch and the sample, whichever worker does it."""

    def __init__(self, data: PatchDataset, seed: int) -> None:
        self.data, self.seed = data, seed
        # In memory that workers share: they are told of a new epoch while they live.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def chunks(self) -> Any:
        """The files of the corpus."""
        return self.data.chunks

    def set_epoch(self, epoch: int) -> None:
        """From here on what is drawn is that of another epoch, in workers that live on too."""
        self._epoch.fill_(epoch)

    def _rng(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, int(self._epoch), int(number)])

    @abstractmethod
    def _one(self, index: int) -> dict[str, Any]:
        """What is drawn for one sample."""

    def __getitem__(self, index: Any) -> dict[str, Any]:
        if isinstance(index, int | np.integer):
            return self._one(int(index))
        return collate([self._one(int(each)) for each in np.asarray(index).ravel()])


class TripletDataset(_Drawn):
    """An anchor, a neighbour within `near_m` of it and a distant sample beyond `far_m`, as Tile2Vec has them.

    Each item is {"anchor": .., "neighbour": .., "distant": ..}, dicts as `PatchDataset` gives them, and every sample
    that has a neighbour and something far away is an anchor once an epoch. Distances are those between centres; another
    date of the same place is a neighbour too, its twin from another source (the same `id`) is none.

    ```python
    data = TripletDataset(corpus, near_m=3_000, far_m=50_000, seed=0)
    data[0]["neighbour"]["s2"]
    ```
    """

    def __init__(self, corpus: xr.Dataset, *, near_m: float, far_m: float, seed: int = 0, **options: Any) -> None:
        from scipy.spatial import cKDTree

        if not 0 <= near_m <= far_m:
            raise InputError(f"near_m={near_m:g} and far_m={far_m:g}: what is far lies beyond what is near.")
        super().__init__(PatchDataset(corpus, **options), seed)
        facts = self.data.facts
        if "lon" not in facts or "lat" not in facts:
            raise InputError("This corpus does not know lon and lat of its samples, which distances are taken from.")
        self._points = unit_vectors(facts["lon"].astype("float64"), facts["lat"].astype("float64"))
        self._near, self._far = chord(near_m), chord(far_m)
        self._tree = cKDTree(self._points)
        if len(self._points) < 3:
            raise NothingFoundError("Three samples at least make a triplet.")
        # Twins show the same place on the same date, and of what has no id each is by itself.
        ids = self.data.ids
        self._same = np.arange(len(self._points)) if ids is None else np.unique(ids.astype(str), return_inverse=True)[1]
        most = int(np.bincount(self._same).max()) + 1
        away, who = self._tree.query(self._points, k=min(most, len(self._points)))
        has_near = ((away <= self._near) & (self._same[who] != self._same[:, None])).any(axis=1)
        # What is furthest from a point is nearest to the point on the other side of the Earth.
        furthest = self._points[self._tree.query(-self._points)[1]]
        has_far = np.linalg.norm(self._points - furthest, axis=1) > self._far
        self.anchors = np.flatnonzero(has_near & has_far)
        if not len(self.anchors):
            raise NothingFoundError(
                f"No sample has another within near_m={near_m:g} and one beyond far_m={far_m:g}: {has_near.sum()} of"
                f" {len(self._points)} have a neighbour, {has_far.sum()} something that far away. Widen near_m or"
                " narrow far_m."
            )

    @property
    def samples(self) -> np.ndarray:
        """The numbers of the anchors."""
        return self.data.samples[self.anchors]

    def __len__(self) -> int:
        return len(self.anchors)

    def drawn(self, index: int) -> tuple[int, int, int]:
        """Which three positions of the patches item `index` has in this epoch."""
        anchor = int(self.anchors[index])
        rng = self._rng(int(self.data.samples[anchor]))
        point = self._points[anchor]
        near = np.array(sorted(self._tree.query_ball_point(point, self._near)))
        return anchor, int(rng.choice(near[self._same[near] != self._same[anchor]])), self._distant(point, rng)

    def _distant(self, point: np.ndarray, rng: np.random.Generator) -> int:
        for other in rng.integers(0, len(self._points), DRAWS):
            if np.linalg.norm(self._points[other] - point) > self._far:
                return int(other)
        return int(rng.choice(np.flatnonzero(np.linalg.norm(self._points - point, axis=1) > self._far)))

    def _one(self, index: int) -> dict[str, Any]:
        return dict(zip(("anchor", "neighbour", "distant"), map(self.data.__getitem__, self.drawn(index)), strict=True))


class ViewDataset(_Drawn):
    """Two views of one thing: {"one": .., "two": ..}, dicts as `PatchDataset` gives them.

    views="sensors": what Sentinel-2 sees and what Sentinel-1 sees of a sample. "twins": a place and date that two
    sources have under one `id`. "dates": two dates of one `place`. Of more than two, two are drawn.

    ```python
    data = ViewDataset(corpus, views="sensors")
    data[0]["one"]["s2"], data[0]["two"]["s1"]
    ```
    """

    def __init__(self, corpus: xr.Dataset, views: str = "sensors", *, seed: int = 0, **options: Any) -> None:
        if views not in VIEWS:
            raise InputError(f"views={views!r} is not known; {', '.join(VIEWS)} are.")
        super().__init__(PatchDataset(corpus, **options), seed)
        self.views = views
        if views == "sensors":
            lacking = {"s1", "s2"} - {name[:2] for name in self.data.bands}
            if lacking:
                raise InputError(f"Two sensors are two views, and here {', '.join(lacking)} is missing.")
            self._groups: list[np.ndarray] = []
            return
        kept = corpus.isel(sample=self.data.positions)
        column = "id" if views == "twins" else "place"
        if column not in kept.coords:
            raise InputError(f"This corpus has no column {column!r}, by which {views} are known.")
        self._groups = _alike(kept[column].values, kept["id"].values if views == "dates" else None)
        if not self._groups:
            raise NothingFoundError(
                f"No two samples of this corpus have the same {column!r}; build it from two sources for twins, with"
                " per_place=2 or more for dates."
            )

    @property
    def samples(self) -> np.ndarray:
        """The number of each item's first sample."""
        first = [group[0] for group in self._groups] if self._groups else slice(None)
        return self.data.samples[first]

    def __len__(self) -> int:
        return len(self._groups) or len(self.data)

    def drawn(self, index: int) -> tuple[int, int]:
        """Which two positions of the patches item `index` has in this epoch."""
        if not self._groups:
            return index, index
        group = self._groups[index]
        one, two = self._rng(int(self.data.samples[group[0]])).permutation(group)[:2]
        return int(one), int(two)

    def _one(self, index: int) -> dict[str, Any]:
        if self._groups:
            return dict(zip(("one", "two"), map(self.data.__getitem__, self.drawn(index)), strict=True))
        whole = self.data[index]
        return {view: _only(whole, sensor) for view, sensor in (("one", "s2"), ("two", "s1"))}


def _only(sample: dict[str, Any], sensor: str) -> dict[str, Any]:
    """A sample without the pixels of the other sensor."""
    other = "s1" if sensor == "s2" else "s2"
    return {name: values for name, values in sample.items() if name != other and not name.startswith(f"{other}_")}


def _alike(keys: Iterable[Any], ids: Any) -> list[np.ndarray]:
    """Positions with equal keys, where there are two or more; of those with one id only the first."""
    groups: dict[Any, list[int]] = {}
    seen: set[Any] = set()
    for position, key in enumerate(keys):
        if key is None or key != key or (ids is not None and ids[position] in seen):
            continue
        if ids is not None:
            seen.add(ids[position])
        groups.setdefault(key, []).append(position)
    return [np.array(group) for group in groups.values() if len(group) > 1]


def unit_vectors(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Places in degrees as points of the unit sphere, where distances are straight.

    >>> unit_vectors(np.array([0.0]), np.array([90.0])).round(6).tolist()
    [[0.0, 0.0, 1.0]]
    """
    east, north = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=-1)


def chord(distance_m: float) -> float:
    """The straight line through the unit sphere that a way along its surface spans.

    >>> round(chord(np.pi * EARTH_RADIUS_M), 6)
    2.0
    """
    return float(2 * np.sin(min(distance_m / EARTH_RADIUS_M, np.pi) / 2))
