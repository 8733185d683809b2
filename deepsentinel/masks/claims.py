"""Who wins each pixel, and where claims contradict each other: polygons -> layers, block by block."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import shapely
from affine import Affine

from deepsentinel.progress import progress

from .coverage import Claims, claims
from .distance import distance_m
from .overlap import overlap_share

__all__ = ["CONFLICT_MEANINGS", "Conflict", "Layer", "Rule", "burn"]

Rule = Literal["coverage", "centre"]
Conflict = Literal["polygon", "class"]
Layer = Literal["class_map", "parcel_id", "coverage", "conflict", "distance", "overlap"]

CONFLICT_MEANINGS = ("none", "mixed", "conflict")
MIXED, CONTRADICTION = 1, 2

# Two shares as close as this are equal, so that rounding never decides.
TIE = 1e-9
# Claims that sum to more than the whole pixel and this contradict each other.
EXCESS_SHARE = 1e-3
# A polygon that leaves less than this of a pixel uncovered covers it wholly.
WHOLE_SHARE = 1e-6
# Pixels on a side of the blocks in which large grids are burnt.
BLOCK_PX = 1024


@dataclass(frozen=True)
class Block:
    """A rectangle of the grid, and the polygons that reach it."""

    row: int
    column: int
    shape: tuple[int, int]
    members: np.ndarray


def burn(
    geometries: np.ndarray,
    classes: np.ndarray,
    affine: Affine,
    shape: tuple[int, int],
    *,
    rule: Rule = "coverage",
    conflict: Conflict = "polygon",
    min_coverage: float = 0.0,
    layers: Collection[str] = ("winner", "coverage", "conflict"),
    metres_per_unit: tuple[float, float] = (1.0, 1.0),
    outlines: np.ndarray | None = None,
) -> Iterator[tuple[tuple[slice, slice], dict[str, np.ndarray]]]:
    """The layers of each block of the grid: where it lies, and its arrays by name.

    `winner` is the position of the polygon that a pixel belongs to, -1 for none; the other layers are as in
    `deepsentinel.masks.rasterize`. Of polygons with equal shares the first one wins. `outlines` are what distances are
    measured to; None for the geometries themselves.

        >>> pair = np.array([shapely.box(0, 0, 5, 10), shapely.box(5, 0, 20, 10)])
        >>> [(where, found)] = burn(pair, np.array([1, 2]), Affine(10, 0, 0, 0, -10, 10), (1, 2))
        >>> found["winner"], found["coverage"], found["conflict"]
        (array([[0, 1]], dtype=int32), array([[0.5, 1. ]], dtype=float32), array([[1, 0]], dtype=uint8))
    """
    blocks = list(blocks_of(geometries, affine, shape))
    for block in progress(blocks, total=len(blocks), what="burning labels", unit="block"):
        part, codes = geometries[block.members], classes[block.members]
        x, y = affine.c + affine.a * block.column, affine.f + affine.e * block.row
        corner = Affine(affine.a, 0.0, x, 0.0, affine.e, y)
        found: dict[str, np.ndarray] = {}
        if {"winner", "coverage", "conflict", "distance"} & set(layers):
            # Counted from the corner of the whole grid: no pixel can tell which block it is in.
            origin = (block.row, block.column)
            held = claims(part, affine, block.shape, centre=rule == "centre", origin=origin)
            won = _won(held, block.shape, rule)
            if min_coverage > 0:
                won = won[held.share[won] >= min_coverage - TIE]
            found["coverage"] = np.zeros(block.shape, dtype="float32")
            found["coverage"].ravel()[held.cell[won]] = held.share[won]
            if "conflict" in layers:
                kinds = np.unique(codes, return_inverse=True)[1] if conflict == "class" else None
                found["conflict"] = _conflicts(held, block.shape, kinds, part, corner).reshape(block.shape)
            winner = np.full(block.shape, -1, dtype="int32")
            winner.ravel()[held.cell[won]] = held.polygon[won]
            if "distance" in layers:
                edges = part if outlines is None else outlines[block.members]
                found["distance"] = distance_m(edges, winner, corner, metres_per_unit=metres_per_unit)
            # From positions in this block to positions in all of it; the last one, for none, stays -1.
            found["winner"] = np.append(block.members, -1).astype("int32")[winner]
        if "overlap" in layers:
            found["overlap"] = overlap_share(part, corner, block.shape)
        rows = slice(block.row, block.row + block.shape[0])
        columns = slice(block.column, block.column + block.shape[1])
        yield (rows, columns), {name: found[name] for name in layers}


def blocks_of(geometries: np.ndarray, affine: Affine, shape: tuple[int, int]) -> Iterator[Block]:
    """The blocks that any polygon reaches, and which polygons those are.

    >>> [block.members.tolist() for block in blocks_of(np.array([shapely.box(0, 0, 9, 9)]), Affine.identity(), (9, 9))]
    [[0]]
    """
    bounds = shapely.bounds(geometries)
    x = np.sort((bounds[:, [0, 2]] - affine.c) / affine.a, axis=1)
    y = np.sort((bounds[:, [1, 3]] - affine.f) / affine.e, axis=1)
    for row in range(0, shape[0], BLOCK_PX):
        height = min(BLOCK_PX, shape[0] - row)
        in_rows = np.flatnonzero((y[:, 0] < row + height) & (y[:, 1] > row))
        for column in range(0, shape[1], BLOCK_PX):
            width = min(BLOCK_PX, shape[1] - column)
            edges = x[in_rows]
            members = in_rows[(edges[:, 0] < column + width) & (edges[:, 1] > column)]
            if len(members):
                yield Block(row, column, (height, width), members)


def _won(held: Claims, shape: tuple[int, int], rule: Rule) -> np.ndarray:
    """Positions of the winning claims, one for each pixel that anybody may win."""
    pixels = shape[0] * shape[1]
    may = np.flatnonzero(held.centre) if rule == "centre" and held.centre is not None else slice(None)
    cell, share, polygon = held.cell[may], held.share[may], held.polygon[may]
    best = np.zeros(pixels)
    np.maximum.at(best, cell, share)
    level = share >= best[cell] - TIE
    first = np.full(pixels, np.iinfo("int32").max, dtype="int32")
    np.minimum.at(first, cell[level], polygon[level])
    won = np.flatnonzero(level & (first[cell] == polygon))
    return won if isinstance(may, slice) else may[won]


def _conflicts(
    held: Claims, shape: tuple[int, int], kinds: np.ndarray | None, geometries: np.ndarray, affine: Affine
) -> np.ndarray:
    """0 where at most one polygon (or class) claims a pixel, 1 where several do, 2 where they contradict each other."""
    pixels = shape[0] * shape[1]
    result = np.zeros(pixels, dtype="uint8")
    shared = np.flatnonzero((np.bincount(held.cell, minlength=pixels) > 1)[held.cell])
    cell, share, polygon = held.cell[shared], held.share[shared], held.polygon[shared]
    if kinds is None:
        result[cell] = MIXED
        result[_contradicting(cell, share, pixels)] = CONTRADICTION
        return result
    # One claim for each class and pixel. What several polygons of a class cover together is known to lie between the
    # largest of their shares and the sum of them; only where this leaves a doubt are they laid over each other.
    key, group = np.unique(cell * (int(kinds.max(initial=0)) + 1) + kinds[polygon], return_inverse=True)
    of_cell = key // (int(kinds.max(initial=0)) + 1)
    least = np.zeros(len(key))
    np.maximum.at(least, group, share)
    most = np.minimum(np.bincount(group, share, minlength=len(key)), 1.0)
    result[of_cell[(np.bincount(of_cell, minlength=pixels) > 1)[of_cell]]] = MIXED
    sure = _contradicting(of_cell, least, pixels)
    doubt = _contradicting(of_cell, most, pixels)
    doubt &= ~sure & (result == MIXED)
    if doubt.any():
        members = np.flatnonzero(doubt[cell])
        used, together = np.unique(group[members], return_inverse=True)
        exact = _united_share(geometries[polygon[members]], cell[members], together, affine, shape)
        sure |= _contradicting(of_cell[used], exact, pixels)
    result[sure & (result == MIXED)] = CONTRADICTION
    return result


def _contradicting(cell: np.ndarray, share: np.ndarray, pixels: int) -> np.ndarray:
    """Where claims sum to more than a pixel, or one takes all of it and another some."""
    too_much = np.bincount(cell, share, minlength=pixels) > 1 + EXCESS_SHARE
    largest = np.zeros(pixels)
    np.maximum.at(largest, cell, share)
    real = np.bincount(cell[share > EXCESS_SHARE], minlength=pixels) > 1
    return too_much | ((largest >= 1 - WHOLE_SHARE) & real)


def _united_share(
    shapes: np.ndarray, cell: np.ndarray, group: np.ndarray, affine: Affine, shape: tuple[int, int]
) -> np.ndarray:
    """The share of its pixel that each group of polygons covers together."""
    row, column = np.divmod(cell, shape[1])
    x0, y0 = affine.c + affine.a * column, affine.f + affine.e * row
    inside = shapely.intersection(shapes, shapely.box(x0, y0, x0 + affine.a, y0 + affine.e))
    order = np.argsort(group, kind="stable")
    begin = np.flatnonzero(np.diff(group[order], prepend=-1))
    areas = [shapely.union_all(parts).area for parts in np.split(inside[order], begin[1:])]
    return np.minimum(np.array(areas) / abs(affine.a * affine.e), 1.0)
