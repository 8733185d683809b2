"""Classes to sample by: where each lies, how much ground it has, and how many points it gets."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from deepsentinel.errors import InputError, NothingFoundError, warn
from deepsentinel.footprints import polygonal, spherical_area
from deepsentinel.legend import Legend

from .cells import Cells
from .regions import Region, table_parts

Shares = Literal["proportional", "balanced"]
EARTH_RADIUS_M = 6_371_007.2
# The side of a Sentinel-2 pixel: more points in a class than it has of these, and some of them share one.
PIXEL_M = 10.0


class Strata(Protocol):
    """The classes of a map, and points in each."""

    classes: list[Any]
    """What stands in the column `class`, in order."""
    names: list[str]
    areas_m2: np.ndarray
    legend: Legend | None

    def draw(self, wanted: np.ndarray, seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Longitude, latitude and class number of points, at most as many of each class as wanted."""


def strata_of(strata: Any, region: Region | None) -> Strata:
    """The classes in a table of labels, in a class map or in a raster file, within a region."""
    if isinstance(strata, gpd.GeoDataFrame):
        return LabelStrata.of(strata, region)
    from .classmaps import MapStrata, raster_of

    if isinstance(strata, str | os.PathLike) or hasattr(strata, "dims"):
        with raster_of(strata) as raster:
            return MapStrata.of(raster, region)
    raise InputError(
        f"strata is a {type(strata).__name__}; give a table of labels (from read_labels), a class map (a Dataset with"
        " class_map, or a DataArray of classes) or the path of a raster of classes."
    )


@dataclass(eq=False)
class LabelStrata:
    """Classes as polygons."""

    classes: list[Any]
    names: list[str]
    areas_m2: np.ndarray
    legend: Legend | None
    cells: list[Cells]

    def __post_init__(self) -> None:
        self._streams: dict[int, Iterator[tuple[np.ndarray, np.ndarray]]] = {}

    @classmethod
    def of(cls, labels: gpd.GeoDataFrame, region: Region | None) -> LabelStrata:
        """The classes of a table of labels, by its column `ground_truth`, or else `class_name`."""
        column = next((name for name in ("ground_truth", "class_name") if name in labels.columns), None)
        if column is None:
            raise InputError(
                f"The labels in strata= have no column ground_truth or class_name; they have"
                f" {', '.join(map(str, labels.columns))}. Rename the one that holds the classes."
            )
        truth = labels[column]
        if pd.api.types.is_float_dtype(truth.dtype) and (truth.dropna() % 1 != 0).any():
            raise InputError(
                f"The column {column} of the labels in strata= holds measurements, not classes; cut them into classes"
                " first, such as with pandas.cut."
            )
        known = labels[truth.notna()]
        if known.empty:
            raise NothingFoundError(f"None of the {len(labels)} labels in strata= has a class in {column}.")
        parts, row = table_parts(known)
        if region is not None:
            parts, piece = _within(parts, region)
            row = row[piece]
        values = known[column].to_numpy()[row]
        if not len(values):
            raise NothingFoundError(
                f"No label of strata= lies in the region; widen region= or leave it out ({column})."
            )
        text = not pd.api.types.is_numeric_dtype(truth.dtype)
        classes: list[Any] = sorted({str(value) if text else int(value) for value in values})
        number = pd.Index(classes).get_indexer(values.astype(str) if text else values.astype("int64"))
        groups = [parts[number == k] for k in range(len(classes))]
        areas = np.array([spherical_area(group).sum() for group in groups]) * EARTH_RADIUS_M**2
        legend = _legend_of(labels, column, classes)
        names = [legend.names[c] if legend is not None and c in legend else str(c) for c in classes]
        cells = [Cells.of(Region(group, name, disjoint=False)) for group, name in zip(groups, names, strict=True)]
        return cls(classes, names, areas, legend, cells)

    def draw(self, wanted: np.ndarray, seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The next points of each class."""
        drawn = []
        for k in np.flatnonzero(wanted).tolist():
            # A class keeps its stream from call to call, so that no point comes twice.
            stream = self._streams.setdefault(k, self.cells[k].candidates((*seed[:1], 1, k)))
            have, held = 0, []
            while have < wanted[k]:
                held.append(next(stream))
                have += len(held[-1][0])
            lon, lat = (np.concatenate(column) for column in zip(*held, strict=True))
            self._streams[k] = _put_back(stream, lon[wanted[k] :], lat[wanted[k] :])
            drawn.append((lon[: wanted[k]], lat[: wanted[k]], np.full(wanted[k], k)))
        lon, lat, which = (np.concatenate(column) for column in zip(*drawn, strict=True))
        return lon, lat, which


def _put_back(
    stream: Iterator[tuple[np.ndarray, np.ndarray]], lon: np.ndarray, lat: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield lon, lat
    yield from stream


def _within(parts: np.ndarray, region: Region) -> tuple[np.ndarray, np.ndarray]:
    """What of each part lies in the region, and which part that is."""
    ground = region.parts if region.disjoint else shapely.get_parts(region.geometry())
    shapely.prepare(ground)
    row, other = shapely.STRtree(ground).query(parts, predicate="intersects")
    whole = shapely.covers(ground[other], parts[row])
    pieces = parts[row]
    pieces[~whole] = polygonal(shapely.intersection(parts[row[~whole]], ground[other[~whole]]))
    pieces, piece = shapely.get_parts(pieces, return_index=True)
    solid = (shapely.get_type_id(pieces) == 3) & (shapely.area(pieces) > 0)
    return pieces[solid], row[piece[solid]]


def _legend_of(labels: gpd.GeoDataFrame, column: str, classes: list[Any]) -> Legend | None:
    if column != "ground_truth" or not all(isinstance(code, int) for code in classes):
        return None
    if labels.attrs.get("legend"):
        legend = Legend.from_json(labels.attrs["legend"])
        return legend if set(classes) <= set(legend.codes) else None
    if "class_name" not in labels.columns:
        return None
    from deepsentinel.legend import of_names

    pairs = labels.dropna(subset=["class_name", column]).drop_duplicates(column)
    names = {int(code): str(name) for code, name in zip(pairs[column], pairs["class_name"], strict=True)}
    return of_names({code: names.get(code, str(code)) for code in classes})


def allotted(strata: Strata, n: int, shares: Shares | Mapping[Any, float]) -> np.ndarray:
    """How many of `n` points each class gets: exactly `n` in all, none further from its share than one."""
    if isinstance(shares, Mapping):
        weights = _given(strata, shares)
    elif shares == "proportional":
        weights = strata.areas_m2
    elif shares == "balanced":
        weights = np.ones(len(strata.classes))
    else:
        raise InputError(f"shares={shares!r} is none of 'proportional', 'balanced' and a dict of class to share.")
    counts = largest_remainder(weights, n)
    none = [name for name, count, weight in zip(strata.names, counts, weights, strict=True) if count == 0 and weight]
    if none and n:
        warn(
            f"{_listed(none)} {'has' if len(none) == 1 else 'have'} too little of the ground for one of {n:,} points;"
            " ask for more points, or for shares='balanced'."
        )
    places = strata.areas_m2 / PIXEL_M**2
    crowded = [
        f"{name} ({max(round(place), 1):,} for {count:,})"
        for name, place, count in zip(strata.names, places, counts, strict=True)
        if count > max(place, 1)
    ]
    if crowded:
        warn(
            f"More points than pixels of 10 m, so some points share one: {_listed(crowded)}. Give these classes a"
            " smaller share with shares={class: share}, or a larger map."
        )
    return counts


def _given(strata: Strata, shares: Mapping[Any, float]) -> np.ndarray:
    weights = np.zeros(len(strata.classes))
    for key, share in shares.items():
        at = [k for k, (code, name) in enumerate(zip(strata.classes, strata.names, strict=True)) if key in (code, name)]
        if len(at) != 1:
            near = difflib.get_close_matches(str(key), [*strata.names, *map(str, strata.classes)], n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            there = _listed([f"{c!r} ({name})" for c, name in zip(strata.classes, strata.names, strict=True)], 12)
            raise InputError(f"shares= has a class {key!r} that the map does not have here.{meant} There are {there}.")
        number = isinstance(share, int | float | np.number) and not isinstance(share, bool)
        if not (number and np.isfinite(share) and share >= 0):
            raise InputError(f"shares[{key!r}] is {share!r}; a share is a number of 0 or more, such as 0.25.")
        weights[at[0]] = share
    if not weights.sum() > 0:
        raise InputError("shares= gives no class any share; give at least one, such as {211: 0.5, 311: 0.5}.")
    return weights


def largest_remainder(weights: np.ndarray, n: int) -> np.ndarray:
    """Whole numbers in proportion to the weights that sum to exactly `n`; ties go to the first.

    >>> largest_remainder(np.array([1, 1, 1]), 100).tolist()
    [34, 33, 33]
    """
    exact = np.asarray(weights, dtype="float64") / np.sum(weights) * n
    counts = np.floor(exact).astype("int64")
    # Rounded, so that noise in the last digit does not decide between equal ones.
    left = np.argsort(-np.round(exact - counts, 9), kind="stable")[: n - counts.sum()]
    counts[left] += 1
    return counts


def _listed(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
