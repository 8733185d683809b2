"""A corpus as one lazy Dataset: pixels read when they are asked for, the table of samples as coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from deepsentinel.errors import InputError, warn
from deepsentinel.grids import variable

from .chunks import Chunks
from .layout import ArraySpec
from .patches import patch_of, refuse_mixed
from .remote import is_url
from .table import coords_of, frame_of

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["chunks_of", "footprint", "open_corpus", "patch_of", "samples_of"]

# From here on two threads decompress faster than one does.
MANY = 8
# The stores at addresses that this process has opened.
_FAR: dict[str, Chunks] = {}


def open_corpus(
    path: str | PathLike[str], *, chunks: Any = None, storage_options: Mapping[str, Any] | None = None
) -> xr.Dataset:
    """A corpus, in a folder or at an address such as "s3://bucket/corpus.zarr", as one lazy Dataset.

    Backscatter is in dB and angles are in degrees, as float32 with NaN; reflectance stays uint16 with 0. The table of
    samples lies as coordinates on `sample`; of a corpus that is being built, what is not there yet has the status
    "planned" and reads as no data. `chunks=` puts it on dask. The attributes tell the corpus's story.

    >>> import tempfile, geopandas as gpd, deepsentinel as ds
    >>> src = ds.open_source("demo", size_px=256)
    >>> points = gpd.GeoDataFrame(geometry=[src.area.geometry.centroid], crs="EPSG:4326")
    >>> plan = ds.plan_corpus(points, src, start="2018-06-01", end="2018-06-30", size_px=64)
    >>> path = tempfile.mkdtemp() + "/corpus.zarr"
    >>> report = ds.build_corpus(plan, path, progress=False)
    >>> corpus = open_corpus(path)
    >>> dict(corpus.s1.sizes), corpus.sel(s2_band="B08").s2.dims
    ({'sample': 1, 's1_band': 2, 'y': 64, 'x': 64}, ('sample', 'y', 'x'))
    """
    store = Chunks(path, storage_options)
    if is_url(path):
        _FAR[store.place.path] = store
    layout = store.layout
    variables = {spec.name: _variable(store, spec) for spec in layout.arrays}
    coords: dict[str, Any] = {name: variable((name,), _coord(values)) for name, values in layout.coords.items()}
    coords |= {name: values for name, values in coords_of(store).items() if name not in variables}
    corpus = xr.Dataset(variables, coords, {**layout.attrs, "path": store.place.path})
    planned = int((corpus["status"].values == "planned").sum())
    if planned:
        warn(
            f"{store.place.path} is not built to the end: {layout.samples - planned:,} of {layout.samples:,} samples"
            " are made, and the others read as empty. build_corpus with the same plan goes on; what is there is"
            " corpus.isel(sample=corpus.status == 'ok')."
        )
    return corpus if chunks is None else corpus.chunk({"sample": 1} if chunks == {} else chunks)


def samples_of(corpus: xr.Dataset) -> gpd.GeoDataFrame:
    """The table of the samples in a corpus or a part of one, with their outlines, in the order of the Dataset."""
    store = chunks_of(corpus)
    refuse_mixed(corpus, store)
    return frame_of(store, np.atleast_1d(corpus["sample"].values))


def footprint(corpus: xr.Dataset) -> gpd.GeoSeries:
    """The outline of each sample in longitude and latitude, by the sample's number."""
    frame = samples_of(corpus)
    return frame.set_index("sample").geometry


def chunks_of(corpus: xr.Dataset) -> Chunks:
    """The files behind a corpus or a part of one."""
    path = corpus.attrs.get("path") if isinstance(corpus, xr.Dataset) else None
    if path is None or "sample" not in corpus.coords:
        raise InputError(
            "This is no corpus: it lacks the coordinate 'sample' or the attribute 'path' that ds.open_corpus gives."
            " Parts chosen with corpus.isel(sample=...) keep both."
        )
    # Far away what was read on opening is good until it is opened again; a folder is a file to look at.
    return (_FAR.get(path) or Chunks(path)) if is_url(path) else Chunks(path)


def _coord(values: Any) -> np.ndarray:
    texts = all(isinstance(value, str) for value in values)
    return np.array(values, "object" if texts else None)


def _variable(store: Chunks, spec: ArraySpec) -> xr.Variable:
    lazy = indexing.LazilyIndexedArray(Samples(store, spec))
    told = {key: value for key, value in spec.attrs.items() if key not in ("scale_factor", "add_offset", "_FillValue")}
    found = xr.Variable(spec.dims, lazy, told, fastpath=True)
    # As whoever writes this Dataset elsewhere should pack it.
    packing = {key: value for key, value in spec.attrs.items() if key not in told}
    found.encoding = {**packing, "dtype": np.dtype(spec.dtype), "preferred_chunks": {"sample": 1}} if packing else {}
    return found


class Samples(BackendArray):
    """One array of a corpus, read and decoded when somebody looks at a part of it."""

    def __init__(self, store: Chunks, spec: ArraySpec) -> None:
        self.store, self.spec = store, spec
        self.shape = (store.layout.samples, *spec.shape)
        self.dtype = decoded_dtype(spec)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._get)

    def _get(self, key: tuple[Any, ...]) -> np.ndarray:
        first, rest = key[0], key[1:]
        chosen = np.arange(self.shape[0])[first]
        numbers = np.atleast_1d(chosen)
        if all(_whole(part, size) for part, size in zip(rest, self.spec.shape, strict=True)):
            stack = self._read(numbers)
        else:
            # Samples are read whole; where little is wanted of many, only that little is kept.
            little = pick(self.spec.empty(), rest)
            stack = np.empty((len(numbers), *little.shape), little.dtype)
            for at, number in enumerate(numbers.tolist()):
                stack[at] = pick(self.store.read(self.spec.name, number), rest)
        return decoded(stack if np.ndim(chosen) else stack[0], self.spec)

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        stack = np.empty((len(numbers), *self.spec.shape), self.spec.dtype)
        if len(numbers) < MANY:
            return self.store.read_many(self.spec.name, numbers.tolist(), stack)
        pieces = np.array_split(np.arange(len(numbers)), 2)
        with ThreadPoolExecutor(2) as pool:
            jobs = [
                pool.submit(self.store.read_many, self.spec.name, numbers[part].tolist(), stack[part[0] : part[-1] + 1])
                for part in pieces
            ]
            for job in jobs:
                job.result()
        return stack


def decoded_dtype(spec: ArraySpec) -> np.dtype[Any]:
    """The type of an array once its packing is undone."""
    return np.dtype("float32" if "scale_factor" in spec.attrs else spec.dtype)


def decoded(values: np.ndarray, spec: ArraySpec) -> np.ndarray:
    """Packed numbers as what they stand for, after the CF convention: scale_factor, and _FillValue as NaN.

    >>> spec = ArraySpec("s1", "int16", ("sample", "x"), (2,), -32768, {"scale_factor": 0.01, "_FillValue": -32768})
    >>> decoded(np.array([-1234, -32768], "int16"), spec)
    array([-12.34,    nan], dtype=float32)
    """
    if "scale_factor" not in spec.attrs:
        return values
    found = values.astype("float32")
    found *= np.float32(spec.attrs["scale_factor"])
    if "add_offset" in spec.attrs:
        found += np.float32(spec.attrs["add_offset"])
    fill = spec.attrs.get("_FillValue")
    if fill is not None:
        found[values == fill] = np.nan
    return found


def _whole(part: Any, size: int) -> bool:
    return isinstance(part, slice) and part.indices(size) == (0, size, 1)


def pick(values: np.ndarray, key: tuple[Any, ...]) -> np.ndarray:
    """An outer index: each axis by itself, the last first so that the numbers of the axes stay."""
    for axis in range(len(key) - 1, -1, -1):
        values = values[(slice(None),) * axis + (key[axis],)]
    return values
