"""The vectors of one embedding as an index holds them: made ready, passed over in blocks, written and mapped again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from deepsentinel.errors import InputError

from .storage import Stored
from .vectors import BLOCK_BYTES, Grid, Places, Samples, Vectors
from .wanted import unit

# float16 has no matrix product of its own; so many bytes of it as float32 stay in the cache of a core.
_CACHED_BYTES = 2**20


@dataclass(frozen=True)
class Part:
    """The vectors of one embedding."""

    vectors: np.ndarray
    """(n, features); of length one for the metric cosine; zeros where there is no data."""
    usable: np.ndarray
    """Which of them mean something."""
    places: Places
    """Where each of them lies."""

    @cached_property
    def all_usable(self) -> bool:
        """Whether there is nothing to leave out."""
        return bool(self.usable.all())

    @cached_property
    def squares(self) -> np.ndarray:
        """Squared lengths, float32."""
        found = [np.square(block).sum(axis=1) for _, block in self.blocks()]
        return np.concatenate(found) if found else np.empty(0, "float32")

    def blocks(self, columns: int = 0) -> Iterator[tuple[slice, np.ndarray]]:
        """All vectors in order as (rows, float32 array); larger blocks where only `columns` scores of each are made.

        A block is to be used before the next one is asked for.
        """
        budget = BLOCK_BYTES if self.vectors.dtype == "float32" else _CACHED_BYTES
        step = max(1, budget // (4 * self.vectors.shape[1]))
        if columns and self.vectors.dtype == "float32":
            # Nothing is copied here. Few large products are better than many: each waits for all of its threads.
            step = len(self.vectors) if columns == 1 else max(step, BLOCK_BYTES // (4 * columns))
        buffer = np.empty((0 if self.vectors.dtype == "float32" else step, self.vectors.shape[1]), "float32")
        for start in range(0, len(self.vectors), step):
            rows = slice(start, min(start + step, len(self.vectors)))
            yield rows, self.vectors[rows] if not len(buffer) else _widened(self.vectors[rows], buffer)


def _widened(values: np.ndarray, buffer: np.ndarray) -> np.ndarray:
    """float16 as float32, in a buffer; NumPy's own way takes five times as long.

    Both types have sign, exponent and fraction in this order: shifted by 13 bits a float16 is a float32 that is 2^112
    times too small, as their exponents count from 15 and 127. The shift drags the sign along, and a mask takes it off
    again. Infinities would not survive this; an index holds none.
    """
    wide = buffer[: len(values)]
    bits = wide.view("int32")
    np.copyto(bits, values.view("int16"))
    bits <<= 13
    bits &= -0x70000001  # all bits but the three between sign and exponent
    wide *= np.float32(2.0**112)
    return wide


def part_of(table: Vectors, metric: str, dtype: str) -> Part:
    """The vectors of a table, held in memory."""
    vectors, usable, at = np.empty((table.count, table.width), dtype), np.zeros(table.count, bool), 0
    for block in prepared(table, metric, dtype, usable):
        vectors[at : at + len(block)] = block
        at += len(block)
    return Part(vectors, usable, table.places)


def prepared(table: Vectors, metric: str, dtype: str, usable: np.ndarray) -> Iterator[np.ndarray]:
    """The vectors as an index holds them; which of them mean something is noted in `usable` on the way."""
    for rows, block in table.blocks():
        usable[rows] = np.isfinite(block).all(axis=1)
        values = np.where(usable[rows][:, None], block, np.float32(0))
        if metric == "cosine":
            values, directed = unit(values)
            usable[rows] &= directed
        with np.errstate(over="ignore"):
            held = values.astype(dtype)
        if not np.isfinite(held).all():
            raise InputError(f"The vectors hold numbers up to {np.abs(values).max():.3g}, too large for {dtype}.")
        yield held


def stored(
    number: int,
    places: Places,
    dtype: np.dtype,
    shape: tuple[int, ...],
    blocks: Iterator[np.ndarray],
    usable: np.ndarray,
) -> dict[str, Stored]:
    """What is written of a part, by the name it has in the file."""
    # `usable` is filled while the blocks are made, and is written after them, as its type is narrower.
    found = {"vectors": Stored(dtype, shape, blocks), "usable": Stored(usable.dtype, usable.shape, [usable])}
    if isinstance(places, Samples):
        numbers = places.ids.dtype.kind == "i"
        ids = places.ids if numbers else np.frombuffer(json.dumps(places.ids.tolist()).encode(), "uint8")
        for name, array in {"x": places.x, "y": places.y, "ids": ids}.items():
            found[name] = Stored(array.dtype, array.shape, [array])
    return {f"{number}.{name}": array for name, array in found.items()}


def mapped_part(arrays: Mapping[str, np.ndarray], prefix: str, told: Mapping[str, Any]) -> Part:
    """A part that was written, its vectors where they lie in the file."""
    vectors, usable = arrays[prefix + "vectors"], arrays[prefix + "usable"]
    places: Places
    if "affine" in told:
        places = Grid(GeoBox(tuple(told["shape"]), Affine(*told["affine"]), told["wkt"]))
    else:
        ids = arrays[prefix + "ids"]
        ids = np.array(json.loads(ids.tobytes()), dtype=str) if ids.dtype == "uint8" else ids
        places = Samples(ids, arrays[prefix + "x"], arrays[prefix + "y"], told["wkt"])
    if not len(vectors) == len(usable) == places.count:
        raise ValueError("its arrays are not of one length")
    return Part(vectors, usable, places)
