"""An exact index over vectors: what looks like this, and where. It compares with every vector, and says so in no time.

Vectors are held as float32 or float16, in memory or mapped from a file. One pass over them in float32 finds all that
can be among the best; these few are scored again in float64, and ties are settled by place. The answer therefore is the
one of brute force, and does not depend on the order of the rows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from deepsentinel.errors import InputError, ReadError
from deepsentinel.grids import crs_of

from . import examples
from .parts import Part, mapped_part, part_of, prepared, stored
from .storage import Stored, read_arrays, write_arrays
from .vectors import Grid, Places, check_same_encoder, vectors_of
from .wanted import COMBINE, METRICS, Wanted, unit

if TYPE_CHECKING:
    import geopandas as gpd

VERSION = 1
DTYPES = ("float32", "float16")
# float16 has no matrix product of its own; so many bytes of it as float32 stay in the cache of a core.
_CACHED_BYTES = 2**20


@dataclass(repr=False)
class Index:
    """Vectors that can be searched. Made by `similarity_index`."""

    parts: list[Part]
    """One for each embedding that was put in."""
    metric: str
    """What near means: "cosine" or "euclidean"."""
    attrs: dict[str, str] = field(default_factory=dict)
    """What the embeddings noted of their encoder."""

    def __len__(self) -> int:
        return sum(len(part.vectors) for part in self.parts)

    @property
    def width(self) -> int:
        """How many features a vector has."""
        return int(self.parts[0].vectors.shape[1])

    @property
    def dtype(self) -> str:
        """How the vectors are held."""
        return str(self.parts[0].vectors.dtype)

    def __repr__(self) -> str:
        usable = sum(int(part.usable.sum()) for part in self.parts)
        mb = sum(part.vectors.nbytes for part in self.parts) / 1e6
        empty = f", {len(self) - usable:,} of them without data" if usable < len(self) else ""
        told = f" from {self.attrs['encoder']}" if "encoder" in self.attrs else ""
        lines = [f"Index of {len(self):,} vectors{told}{empty}: {self.width} features, {self.metric}, {self.dtype}, "]
        lines[0] += f"{mb:,.1f} MB"
        return "\n".join([*lines, *(f"  part {number}: {part.places}" for number, part in enumerate(self.parts))])

    def query(
        self,
        z: Any = None,
        k: int = 20,
        *,
        positives: Any = None,
        negatives: Any = None,
        combine: str = "mean",
        apart_m: float = 0,
    ) -> gpd.GeoDataFrame:
        """The `k` vectors nearest to what is asked for, best first.

        `z`, `positives` (the same, for more of them) and `negatives` are each a vector or several (an array or
        DataArray), a click `(lon, lat)` or Point, the id of a sample, or a list of these. A click means the cell that
        holds the point, or the sample nearest to it. The score is the nearness to the positives less the nearness to
        the negatives: see `deepsentinel.similarity.wanted` for `combine="mean"` and `"nearest"`. `apart_m` keeps
        results at least so many metres from each other and from the clicks, so that they are not all in the field next
        door.

        Columns: `score`, `part` (which embedding), `key` (the id of a sample, the number of a cell), `row` and `col` of
        a cell, `x` and `y` as they were given, `lon`, `lat` and the point `geometry` in EPSG:4326. What was asked for
        is among the results where it is in the index. Vectors without data never are.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise InputError(f"k={k!r} is not a number of results; give one from 1 on.")
        if not apart_m >= 0:
            raise InputError(f"apart_m={apart_m!r} is not a distance in metres.")
        wanted, clicks = self._wanted(z, positives, negatives, combine)
        scores = [self._scores(part, wanted) for part in self.parts]
        number = k if not apart_m else 8 * k
        while True:
            found = self._best(wanted, scores, int(number))
            if not apart_m:
                return found
            spread = examples.spread(found, clicks, apart_m, k)
            if len(spread) == k or len(found) < number:
                return spread
            number *= 8

    def score_map(
        self,
        z: Any = None,
        *,
        positives: Any = None,
        negatives: Any = None,
        combine: str = "mean",
        part: int | None = None,
    ) -> xr.DataArray:
        """The score of every cell as a map (y, x), NaN where there is no data; arguments as for `query`.

        `part` tells which embedding, where several dense ones are in the index.
        """
        dense = [number for number, part in enumerate(self.parts) if isinstance(part.places, Grid)]
        if part is None and len(dense) == 1:
            part = dense[0]
        if part not in dense:
            those = f"part= can be {', '.join(map(str, dense))}" if dense else "no embedding in this index is dense"
            raise InputError(f"A map of scores is made for one dense embedding, and part={part!r}: {those}.")
        chosen = self.parts[part]
        assert isinstance(chosen.places, Grid)
        wanted, _ = self._wanted(z, positives, negatives, combine)
        scores = self._scores(chosen, wanted)
        scores[~chosen.usable] = np.nan
        name = "cosine similarity" if self.metric == "cosine" else "minus the distance"
        attrs = {"long_name": name, "combine": combine, "metric": self.metric, **self.attrs}
        shape = tuple(chosen.places.geobox.shape)
        return xr.DataArray(scores.reshape(shape), chosen.places.coords(), ("y", "x"), "similarity", attrs)

    def add(self, vectors: Any) -> Index:
        """Put in the vectors of one more embedding, of the same encoder; returns this index."""
        table = vectors_of(vectors)
        if table.width != self.width:
            raise InputError(f"These vectors have {table.width} features, and the index {self.width}.")
        check_same_encoder(self.attrs, table.attrs, "The index and these vectors")
        self.parts.append(part_of(table, self.metric, self.dtype))
        self.attrs = _shared(self.attrs, table.attrs)
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index into one file, whole or not at all; an older one of that name is replaced.

        The layout is that of safetensors. `similarity_index(path)` opens it without reading it.
        """
        arrays: dict[str, Stored] = {}
        for number, part in enumerate(self.parts):
            # One view as the only block: it is written from where it lies, page by page where that is a file.
            whole = iter([part.vectors])
            arrays |= stored(number, part.places, part.vectors.dtype, part.vectors.shape, whole, part.usable)
        write_arrays(path, arrays, _notes(self.metric, self.attrs, [part.places for part in self.parts]))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Index:
        """Open an index that `save` wrote; its vectors stay on disk and are mapped into memory."""
        arrays, notes = read_arrays(path)
        try:
            if notes["version"] != VERSION:
                raise ReadError(f"{path} was written by another version of the package; build the index anew.")
            parts = [mapped_part(arrays, f"{number}.", told) for number, told in enumerate(notes["parts"])]
            return cls(parts, str(notes["metric"]), dict(notes["attrs"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ReadError(f"{path} is no index of vectors: {error!r}.") from error

    def _wanted(self, z: Any, positives: Any, negatives: Any, combine: str) -> tuple[Wanted, np.ndarray]:
        if combine not in COMBINE:
            raise InputError(f"combine={combine!r} is unknown; it is one of {', '.join(COMBINE)}.")
        wished = [*examples.resolve(self, z, "z"), *examples.resolve(self, positives, "positives")]
        avoided = examples.resolve(self, negatives, "negatives")
        if not wished and not avoided:
            raise InputError("The query is empty: give a vector, a click (lon, lat), or the id of a sample.")
        clicks = [example.lonlat for example in (*wished, *avoided) if example.lonlat is not None]
        return Wanted(self._matrix(wished), self._matrix(avoided), self.metric, combine), np.array(
            clicks, "float64"
        ).reshape(-1, 2)

    def _matrix(self, found: Sequence[examples.Example]) -> np.ndarray:
        matrix = np.array([example.vector for example in found], "float64").reshape(-1, self.width)
        if self.metric == "euclidean":
            return matrix
        scaled, usable = unit(matrix)
        if not usable.all():
            raise InputError("A vector of zeros has no direction, and the cosine to it no meaning.")
        return scaled

    def _scores(self, part: Part, wanted: Wanted) -> np.ndarray:
        scores = np.empty(len(part.vectors), "float32")
        squares = part.squares if self.metric == "euclidean" else None
        for rows, block in part.blocks(wanted.columns):
            scores[rows] = wanted.scores(block, None if squares is None else squares[rows])
        if not part.all_usable:
            scores[~part.usable] = -np.inf
        return scores

    def _best(self, wanted: Wanted, scores: list[np.ndarray], k: int) -> gpd.GeoDataFrame:
        kept = [_largest(each, k) for each in scores]
        ranked = np.sort(np.concatenate(kept))[::-1]
        threshold = ranked[k - 1] if len(ranked) >= k else -np.inf
        tables = []
        for number, (part, each) in enumerate(zip(self.parts, scores, strict=True)):
            longest = 1.0 if self.metric == "cosine" else float(np.sqrt(part.squares.max(initial=0)))
            margin = 2 * wanted.error(longest) if np.isfinite(threshold) else 0.0
            rows = np.flatnonzero((each >= threshold - margin) & (each > -np.inf))
            exact = [wanted.exact(part.vectors[some]) for some in np.array_split(rows, len(rows) // 65536 + 1)]
            tables.append((np.full(len(rows), number), rows, np.concatenate(exact)))
        part_of, rows, exact_scores = (np.concatenate(column) for column in zip(*tables, strict=True))
        # Only what can still be among the k needs to be looked up to settle its ties.
        if len(rows) > k:
            enough = exact_scores >= np.partition(exact_scores, len(rows) - k)[len(rows) - k]
            part_of, rows, exact_scores = part_of[enough], rows[enough], exact_scores[enough]
        return examples.results(self, part_of, rows, exact_scores, k)


def _largest(scores: np.ndarray, k: int) -> np.ndarray:
    """The k largest of many numbers; most of them are only compared with the smallest of the largest so far."""
    kept, floor = np.empty(0, scores.dtype), -np.inf
    for start in range(0, len(scores), 65536):
        block = scores[start : start + 65536]
        kept = np.concatenate([kept, block[block > floor]])
        if len(kept) > k:
            kept = np.partition(kept, len(kept) - k)[-k:]
            floor = float(kept.min())
    return kept


def similarity_index(
    vectors: Any, *, metric: str = "cosine", dtype: str = "float32", out: str | os.PathLike[str] | None = None
) -> Index:
    """An exact index over an embedding: pixels (y, x, feature), patches (sample, feature), or a plain array.

    `metric` is "cosine" or "euclidean". `dtype="float16"` halves the memory, and moves cosines by less than a
    thousandth.
    `out` writes the index to a file a block at a time, and maps it from there, for more vectors than fit in memory.
    `vectors` may also be the path of an index that was saved, or a list of embeddings of the same encoder.

    >>> rng = np.random.default_rng(0)
    >>> z = xr.DataArray(rng.normal(size=(500, 16)), dims=("sample", "feature"))
    >>> index = similarity_index(z)
    >>> index
    Index of 500 vectors: 16 features, cosine, float32, 0.0 MB
      part 0: 500 samples, without a place
    >>> found = index.query(z[7], k=3)
    >>> int(found["key"].iloc[0]), round(float(found["score"].iloc[0]), 3)
    (7, 1.0)
    """
    if isinstance(vectors, str | os.PathLike):
        if out is not None or metric != "cosine" or dtype != "float32":
            raise InputError("An index that was saved is opened as it is: leave out metric=, dtype= and out=.")
        return Index.load(vectors)
    for name, given, known in (("metric", metric, METRICS), ("dtype", dtype, DTYPES)):
        if given not in known:
            raise InputError(f"{name}={given!r} is unknown; it is one of {', '.join(known)}.")
    several = isinstance(vectors, list | tuple)
    tables = [vectors_of(z) for z in (vectors if several else [vectors])]
    if not tables:
        raise InputError("The list of embeddings is empty.")
    attrs = tables[0].attrs
    for table in tables[1:]:
        if table.width != tables[0].width:
            raise InputError(
                f"The embeddings have {tables[0].width} and {table.width} features; one encoder has one width."
            )
        check_same_encoder(attrs, table.attrs, "The embeddings")
        attrs = _shared(attrs, table.attrs)
    if out is None:
        return Index([part_of(table, metric, dtype) for table in tables], metric, attrs)
    arrays: dict[str, Stored] = {}
    for number, table in enumerate(tables):
        usable = np.zeros(table.count, bool)
        shape = (table.count, table.width)
        blocks = prepared(table, metric, dtype, usable)
        arrays |= stored(number, table.places, np.dtype(dtype), shape, blocks, usable)
    write_arrays(out, arrays, _notes(metric, attrs, [table.places for table in tables]))
    return Index.load(Path(out))


def _shared(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in one.items() if other.get(key) == value}


def _notes(metric: str, attrs: Mapping[str, str], places: Sequence[Places]) -> dict[str, Any]:
    told: list[dict[str, Any]] = []
    for place in places:
        if isinstance(place, Grid):
            affine = [float(number) for number in place.geobox.affine[:6]]
            told.append({"shape": [int(n) for n in place.geobox.shape], "affine": affine})
            told[-1]["wkt"] = crs_of(place.geobox).to_wkt()
        else:
            told.append({"wkt": place.wkt})
    return {"version": VERSION, "metric": metric, "attrs": dict(attrs), "parts": told}
