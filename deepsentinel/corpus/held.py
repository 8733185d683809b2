"""What a Dataset of a corpus holds, array by array: the pixels of its store, or what was put in their place.

An array that is still the lazy one of a store is read from the store's files, as the integers that lie there, whichever
samples, bands and pixels of it were chosen. What was computed, loaded or added since is taken from the Dataset, packed
as the store packs it; what was dropped is not there.
"""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError

from .arrays import ANGLE_ATTRS, S1_ATTRS, S1_FILL, S2_ATTRS, SCL_ATTRS
from .chunks import Chunks
from .layout import DTYPES, ArraySpec
from .patches import is_label
from .store import Samples, chunks_of, pick

if TYPE_CHECKING:
    import xarray as xr

# Reflectance of no more than this, in a whole batch, is not times 10,000.
UNSCALED = 2.0


def held_array(corpus: xr.Dataset, name: str, chunks: Chunks | None = None) -> Held:
    """One array of a corpus, or of a part of one, as the Dataset has it now.

    >>> import tempfile, deepsentinel as ds
    >>> from deepsentinel.corpus.recipes import unlabelled
    >>> recipe = unlabelled(ds.open_source("demo", size_px=256), n=2, size_px=16, start="2018-06-01", end="2018-06-30")
    >>> corpus = ds.open_corpus(recipe.build(tempfile.mkdtemp() + "/corpus.zarr", progress=False).path)
    >>> corpus["s2"] = corpus.s2 // 2
    >>> held_array(corpus, "s2").stored, held_array(corpus, "s1").stored
    (False, True)
    >>> bool((held_array(corpus, "s2").read(1) == corpus.s2[1]).all())
    True
    """
    if name not in corpus.data_vars:
        names = ", ".join(map(str, corpus.data_vars)) or "none"
        raise InputError(f"This corpus has no array {name!r}; it has {names}.")
    return Held(corpus, name, chunks_of(corpus) if chunks is None else chunks)


class Held:
    """One array: what it is (`spec`), and its samples by position in the Dataset, packed as a store has them."""

    def __init__(self, corpus: xr.Dataset, name: str, chunks: Chunks) -> None:
        variable = corpus.variables[name]
        if "sample" not in variable.dims:
            raise InputError(f"{name!r} has the dims {', '.join(map(str, variable.dims))} and not 'sample'.")
        self.name = name
        self._store, self._key, self._values = chunks, (), None
        own = next((spec for spec in chunks.layout.arrays if spec.name == name), None)
        found = _stored(variable)
        if found is not None and (found[0].spec.name == name or (is_label(name) and is_label(found[0].spec.name))):
            array, key = found
            if array.store.place.path != chunks.place.path:
                self._store = array.store
            self._from = array.spec.name
            self._numbers = np.atleast_1d(np.arange(array.shape[0])[key[0]])
            if not all(_is_whole(part, size) for part, size in zip(key[1:], array.spec.shape, strict=True)):
                self._key = key[1:]
            own = array.spec
            self.spec = _spec(name, variable, own.dtype, own.fill, own.attrs)
            return
        self._values = variable.transpose(*_order(variable, own))
        self.spec = _spec(name, self._values, *_packing(name, self._values, own))

    @property
    def stored(self) -> bool:
        """Whether it is read from the files of a store."""
        return self._values is None

    def read(self, position: int) -> np.ndarray:
        """One sample, in memory of its own."""
        if self._values is not None:
            return self._packed([position])[0]
        values = self._store.read(self._from, int(self._numbers[position]))
        return np.ascontiguousarray(pick(values, self._key)) if self._key else values

    def read_many(self, positions: Any) -> np.ndarray:
        """Several samples, stacked."""
        if self._values is not None:
            return self._packed(positions)
        stack = self._store.read_many(self._from, self._numbers[positions].tolist())
        return np.ascontiguousarray(pick(stack, (slice(None), *self._key))) if self._key else stack

    def _packed(self, positions: Any) -> np.ndarray:
        assert self._values is not None
        part = self._values.isel(sample=np.asarray(positions, "int64"))
        # Threads of dask do not survive a fork, so that workers go without.
        lazy = part.chunks is not None and multiprocessing.parent_process() is not None
        values = part.data.compute(scheduler="synchronous") if lazy else part.values
        return packed(np.asarray(values), self.spec)


def packed(values: np.ndarray, spec: ArraySpec) -> np.ndarray:
    """Numbers as a store packs them, in memory of their own: NaN as what stands for nothing; others are refused.

    >>> spec = ArraySpec("s1", "int16", ("sample", "x"), (2,), -32768, {"scale_factor": 0.01})
    >>> packed(np.array([[-12.34, np.nan]], "float32"), spec).tolist()
    [[-1234, -32768]]
    """
    dtype, scale = np.dtype(spec.dtype), spec.attrs.get("scale_factor")
    if dtype.kind == "f" or (values.dtype == dtype and scale is None):
        return np.array(values, dtype)
    known = values
    if values.dtype.kind == "f":
        gone = np.isnan(values)
        known = values[~gone]
        _in_units(known, spec)
        scaled = np.rint(values if scale is None else values * (1 / scale))
        scaled[gone] = spec.fill
    else:
        scaled = values if scale is None else np.rint(values * (1 / scale))
    limits = np.iinfo(dtype)
    if scaled.size and not limits.min <= scaled.min() <= scaled.max() <= limits.max:
        raise InputError(
            f"{spec.name} holds {known.min():g} to {known.max():g}, which does not go into {_words(spec)}. Keep what "
            "is computed in those units, or give it a name of its own."
        )
    return scaled.astype(dtype)


def _in_units(known: np.ndarray, spec: ArraySpec) -> None:
    """Refuse numbers that would lose what they say when they are rounded as the store's are."""
    if "scale_factor" in spec.attrs:
        return
    broken = known[known != np.rint(known)]
    if len(broken) and (is_label(spec.name) or spec.name == "scl" or known.max() <= UNSCALED):
        raise InputError(
            f"{spec.name} holds numbers such as {broken[0]:g}, and {_words(spec)} are meant. Keep what is computed in "
            "those units, or give it a name of its own."
        )


def _words(spec: ArraySpec) -> str:
    units = spec.attrs.get("units")
    return f"{spec.dtype} of {units}" if units else f"codes of type {spec.dtype}"


def _stored(variable: xr.Variable) -> tuple[Samples, tuple[Any, ...]] | None:
    """The array of a store behind a variable, and which part of it; None where it is anything else by now."""
    from xarray.core import indexing

    lazy = variable._data
    if not isinstance(lazy, indexing.LazilyIndexedArray) or not isinstance(lazy.array, Samples):
        return None
    return (lazy.array, lazy.key.tuple) if variable.dims[0] == "sample" else None


def _order(variable: xr.Variable, own: ArraySpec | None) -> list[str]:
    """The dims as the store has them: samples, steps, bands, rows and columns."""
    dims = [str(dim) for dim in variable.dims]
    if own is not None and set(own.dims) == set(dims):
        return list(own.dims)
    rank = {"sample": 0, "step": 1, "band": 2}
    return sorted(dims, key=lambda dim: rank.get(dim.rsplit("_", 1)[-1], 3))


def _is_whole(part: Any, size: int) -> bool:
    return isinstance(part, slice) and part.indices(size) == (0, size, 1)


def _packing(name: str, values: xr.Variable, own: ArraySpec | None) -> tuple[str, int | float, dict[str, Any]]:
    """The type, the fill and the attributes that an array of this name has in a store."""
    if own is not None and np.dtype(own.dtype).kind != "f":
        if not is_label(name):
            return own.dtype, own.fill, dict(own.attrs)
        if values.dtype.kind == "f":  # a mask in which `where` put NaN
            return own.dtype, own.fill, dict(values.attrs)
    if not is_label(name):
        radar = name in ("s1", "angle")
        attrs = {"s1": S1_ATTRS, "angle": ANGLE_ATTRS, "scl": SCL_ATTRS}.get(name, S2_ATTRS)
        return ("int16" if radar else "uint8" if name == "scl" else "uint16"), S1_FILL if radar else 0, dict(attrs)
    kind = values.dtype.kind
    if kind not in "biuf":
        raise InputError(f"{name!r} is of type {values.dtype}; masks hold whole numbers, or numbers to learn.")
    # Devices know few unsigned types.
    dtype = "float32" if kind == "f" else "uint8" if kind == "b" else str(values.dtype)
    dtype = {"uint32": "int64", "uint64": "int64"}.get(dtype, dtype)
    return dtype if dtype in DTYPES else "float32", 0, dict(values.attrs)


def _spec(name: str, variable: xr.Variable, dtype: str, fill: int | float, attrs: Any) -> ArraySpec:
    return ArraySpec(name, dtype, tuple(map(str, variable.dims)), tuple(variable.shape[1:]), fill, attrs)
