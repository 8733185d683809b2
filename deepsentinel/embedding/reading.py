"""Pixels from memory or from disk, a few rows at a time: what was read last is kept, and no more than that."""

from __future__ import annotations

import numpy as np
import xarray as xr

# What one read brings; more reads of less would decompress the same blocks of a file again and again.
SLAB_BYTES = 48 * 2**20


def mirrored(positions: range, size: int) -> np.ndarray:
    """Positions beyond either end of an axis, as a mirror there shows them.

    >>> mirrored(range(-2, 6), 4).tolist()
    [1, 0, 0, 1, 2, 3, 3, 2]
    """
    turn = np.arange(positions.start, positions.stop) % (2 * size)
    return np.where(turn < size, turn, 2 * size - 1 - turn)


class Slabs:
    """Rows of a Dataset, read ahead; asked for from north to south, every row is read once."""

    def __init__(self, data: xr.Dataset) -> None:
        self.data = data
        # What is in memory needs no reading: a view of all of it will do.
        self.eager = all(values.variable._in_memory for values in data.data_vars.values())
        self.heights = {sizes[0] for name in data.data_vars if (sizes := _chunks(data[name]))}
        self._columns = range(0)
        self._rows = range(0)
        self._held: dict[str, np.ndarray] = {}

    def read(self, rows: range, columns: range) -> dict[str, np.ndarray]:
        """Every variable in some rows and columns, (..., rows, columns); outside the Dataset it is mirrored."""
        down, across = (mirrored(wanted, self.data.sizes[axis]) for axis, wanted in (("y", rows), ("x", columns)))
        self._hold(range(int(down.min()), int(down.max()) + 1), range(int(across.min()), int(across.max()) + 1))
        chosen = _index(down - self._rows.start), _index(across - self._columns.start)
        return {name: _take(values, *chosen) for name, values in self._held.items()}

    def hold(self, rows: range, columns: range) -> None:
        """Read these rows and columns, and keep them until others are asked for."""
        if self.eager:
            return
        self._held = {}
        self._held, self._rows, self._columns = self._load(rows, columns), rows, columns

    def _hold(self, rows: range, columns: range) -> None:
        same = columns.start >= self._columns.start and columns.stop <= self._columns.stop and bool(self._held)
        if same and rows.start >= self._rows.start and rows.stop <= self._rows.stop:
            return
        if self.eager:
            rows, columns = range(self.data.sizes["y"]), range(self.data.sizes["x"])
            self._held = self._load(rows, columns)
            self._rows, self._columns = rows, columns
            return
        stop = self._ahead(rows, columns)
        start = rows.start
        tail: dict[str, np.ndarray] = {}
        if columns == self._columns and self._rows.start <= rows.start < self._rows.stop < stop:
            start = self._rows.stop
            tail = {name: values[..., rows.start - self._rows.start :, :].copy() for name, values in self._held.items()}
        self._held = {}
        new = self._load(range(start, stop), columns)
        for name in list(tail):
            new[name] = np.concatenate([tail.pop(name), new[name]], axis=-2)
        self._held, self._rows, self._columns = new, range(rows.start, stop), columns

    def _ahead(self, rows: range, columns: range) -> int:
        """How far to read: as much as a slab holds, ending where blocks of the file end."""
        row_bytes = sum(
            values.nbytes // (values.sizes["y"] * values.sizes["x"]) * len(columns)
            for values in self.data.data_vars.values()
        )
        stop = max(rows.stop, min(rows.start + SLAB_BYTES // max(1, row_bytes), self.data.sizes["y"]))
        height = max(self.heights, default=1)
        whole = stop // height * height
        return whole if whole > rows.stop and stop < self.data.sizes["y"] else stop

    def _load(self, rows: range, columns: range) -> dict[str, np.ndarray]:
        part = self.data.isel(y=slice(rows.start, rows.stop), x=slice(columns.start, columns.stop))
        # Of a Dataset on dask all variables at once, in its threads.
        loaded = part if self.eager else part.compute()
        return {str(name): values.transpose(..., "y", "x").to_numpy() for name, values in loaded.data_vars.items()}


def _chunks(values: xr.DataArray) -> tuple[int, ...]:
    """How many rows a block of what it is stored in has, where that is known."""
    axis = values.dims.index("y")
    if values.chunks is not None:
        return (int(values.chunks[axis][0]),)
    preferred = values.encoding.get("preferred_chunks") or {}
    return (int(preferred["y"]),) if "y" in preferred else ()


def _index(positions: np.ndarray) -> slice | np.ndarray:
    steady = len(positions) == 1 or bool((np.diff(positions) == 1).all())
    return slice(int(positions[0]), int(positions[-1]) + 1) if steady else positions


def _take(values: np.ndarray, down: slice | np.ndarray, across: slice | np.ndarray) -> np.ndarray:
    return values[..., down, :][..., across]
