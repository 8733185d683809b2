"""How a corpus lies on disk: which arrays, of what size, and the `zarr.json` files that say so.

A corpus is a Zarr v3 group. Each array has one chunk a sample and one file a shard, so that a random sample is one
small read and a shard is written whole. The metadata is made here and not by zarr, so that two builds of one plan are
identical to the byte whatever version of zarr is installed, and so that opening a corpus imports next to nothing.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from deepsentinel.errors import InputError
from deepsentinel.files import write_bytes

# Raised when a reader of the older format could no longer read what is written.
FORMAT = 1
FORMAT_KEY = "corpus_format"
SLOTS_KEY = "samples_per_shard"
DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64")
_ENDIAN = {"name": "bytes", "configuration": {"endian": "little"}}
_CHECKSUM = {"name": "crc32c"}
CLEVEL = 5


@dataclass(frozen=True)
class ArraySpec:
    """One array of a corpus.

    >>> spec = ArraySpec("s2", "uint16", ("sample", "s2_band", "y", "x"), (12, 256, 256), 0, {})
    >>> spec.nbytes
    1572864
    """

    name: str
    """What it is called in the store: s2, s1, scl, corine_class_map."""
    dtype: str
    """Its numpy type as text, such as uint16."""
    dims: tuple[str, ...]
    """Its dimensions, "sample" first."""
    shape: tuple[int, ...]
    """The shape of one sample, without the sample axis."""
    fill: int | float
    """What stands where nothing was measured, and for a sample that is missing."""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """Attributes as the CF convention has them: scale_factor, _FillValue, units, flag_values."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", tuple(self.dims))
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        _check_name(self.name)
        if self.dtype not in DTYPES:
            raise InputError(f"Array {self.name!r} is of type {self.dtype!r}; a corpus holds {', '.join(DTYPES)}.")
        if self.dims[:1] != ("sample",) or len(self.dims) != len(self.shape) + 1:
            raise InputError(
                f"Array {self.name!r} has dims {self.dims} for samples of shape {self.shape}; dims are 'sample' and one"
                " for each axis of a sample."
            )
        if min(self.shape, default=1) < 1:
            raise InputError(f"Array {self.name!r} has samples of shape {self.shape}, which hold nothing.")

    @property
    def nbytes(self) -> int:
        """Bytes of one sample before compression."""
        return int(np.prod(self.shape, dtype="int64")) * np.dtype(self.dtype).itemsize

    def empty(self) -> np.ndarray:
        """A sample in which nothing was measured."""
        return np.full(self.shape, self.fill, self.dtype)


@dataclass(frozen=True)
class Layout:
    """All arrays of a corpus, how many samples they have and what the corpus says of itself.

    >>> spec = ArraySpec("s2", "uint16", ("sample", "s2_band", "y", "x"), (2, 8, 8), 0, {})
    >>> layout = Layout(10, 4, (spec,), {"s2_band": ["B02", "B03"]}, {"title": "Ten samples"})
    >>> layout.shards, layout.members(2)
    (3, range(8, 10))
    >>> Layout.from_json(layout.to_json()) == layout
    True
    """

    samples: int
    """How many samples the corpus has when it is whole."""
    samples_per_shard: int
    """How many of them one file holds."""
    arrays: tuple[ArraySpec, ...]
    """The arrays."""
    coords: Mapping[str, Sequence[str | int | float]] = field(default_factory=dict)
    """Coordinates along other dimensions than the samples: the names of the bands."""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """The story of the corpus, as attributes of the group."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "arrays", tuple(self.arrays))
        object.__setattr__(self, "coords", {name: list(values) for name, values in self.coords.items()})
        if self.samples < 1 or self.samples_per_shard < 1:
            raise InputError(
                f"A corpus of {self.samples} samples in shards of {self.samples_per_shard} holds nothing; both are at"
                " least 1."
            )
        sizes: dict[str, int] = {}
        names = [spec.name for spec in self.arrays]
        for name in {name for name in names if names.count(name) > 1} | (set(names) & set(self.coords)):
            raise InputError(f"Two things in this corpus are called {name!r}; each needs a name of its own.")
        for spec in self.arrays:
            for dim, size in zip(spec.dims[1:], spec.shape, strict=True):
                if sizes.setdefault(dim, size) != size:
                    raise InputError(f"Dimension {dim!r} is {sizes[dim]} in one array and {size} in {spec.name!r}.")
        for dim, values in self.coords.items():
            _check_name(dim)
            if sizes.get(dim) != len(values):
                raise InputError(f"Coordinate {dim!r} has {len(values)} values for a dimension of {sizes.get(dim)}.")

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return ceil(self.samples / self.samples_per_shard)

    def members(self, shard: int) -> range:
        """The numbers of the samples in one shard."""
        if not 0 <= shard < self.shards:
            raise InputError(f"There is no shard {shard}; this corpus has {self.shards}, counted from 0.")
        start = shard * self.samples_per_shard
        return range(start, min(start + self.samples_per_shard, self.samples))

    def spec(self, name: str) -> ArraySpec:
        """One array by its name."""
        for spec in self.arrays:
            if spec.name == name:
                return spec
        raise InputError(f"This corpus has no array {name!r}; it has {', '.join(spec.name for spec in self.arrays)}.")

    def to_json(self) -> str:
        """All of it as text."""
        plain = {
            "samples": self.samples,
            "samples_per_shard": self.samples_per_shard,
            "arrays": [{**vars(spec), "attrs": dict(spec.attrs)} for spec in self.arrays],
            "coords": dict(self.coords),
            "attrs": dict(self.attrs),
        }
        return json.dumps(plain, ensure_ascii=False, default=_plain)

    @classmethod
    def from_json(cls, text: str) -> Layout:
        """The layout that `to_json` wrote."""
        plain = json.loads(text)
        return cls(**{**plain, "arrays": tuple(ArraySpec(**spec) for spec in plain["arrays"])})

    def files(self) -> dict[str, bytes]:
        """Every file of an empty store: its path in the store and what it holds."""
        nodes = {spec.name: _array_node(spec, self.samples, self.samples_per_shard) for spec in self.arrays}
        nodes |= {name: _coord_node(name, values) for name, values in self.coords.items()}
        group = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {**self.attrs, FORMAT_KEY: FORMAT, SLOTS_KEY: self.samples_per_shard},
            "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": nodes},
        }
        found = {f"{name}/zarr.json": _json(node) for name, node in nodes.items()}
        found |= {f"{name}/c/0": _coord_bytes(values) for name, values in self.coords.items()}
        # The group last: a folder that has it has all the rest.
        return found | {"zarr.json": _json(group)}

    @classmethod
    def from_zarr(cls, data: bytes, where: str) -> Layout:
        """The layout that a store's own `zarr.json` tells of; `where` is for the message if it cannot."""
        node = _parse(data, where)
        attrs = dict(node.get("attributes", {}))
        written = attrs.pop(FORMAT_KEY, None)
        if written is None:
            raise InputError(
                f"{where} is a Zarr store but no corpus: its attributes do not say {FORMAT_KEY}. xr.open_zarr opens it."
            )
        if written != FORMAT:
            raise InputError(
                f"{where} is a corpus of format {written}, written by deepsentinel {attrs.get('version', '?')}; this"
                f" version reads format {FORMAT}. Update with: pip install -U deepsentinel"
            )
        try:
            slots = int(attrs.pop(SLOTS_KEY))
            members: Mapping[str, Any] = node["consolidated_metadata"]["metadata"]
            arrays = [(name, item) for name, item in members.items() if item["dimension_names"][0] == "sample"]
            samples = int(arrays[0][1]["shape"][0])
            specs = tuple(_spec_of(name, item, slots) for name, item in arrays)
            coords = {name: item["attributes"]["values"] for name, item in members.items() if name not in dict(arrays)}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{where} says it is a corpus, but its metadata cannot be understood ({error!r}). If another program"
                " wrote to it, xr.open_zarr may still open it."
            ) from error
        return cls(samples, slots, specs, coords, attrs)


def _check_name(name: str) -> None:
    # Names become folders, and a store may come from anywhere.
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"An array is called {name!r}; names in a corpus are of letters, digits and _.")


def create_store(path: str | Path, layout: Layout) -> None:
    """Write the metadata of an empty store; a store of the same layout may be there already, another may not.

    >>> import tempfile
    >>> spec = ArraySpec("s2", "uint16", ("sample", "y", "x"), (8, 8), 0)
    >>> folder = Path(tempfile.mkdtemp()) / "corpus.zarr"
    >>> create_store(folder, Layout(10, 4, (spec,)))
    >>> sorted(file.name for file in folder.iterdir())
    ['s2', 'zarr.json']
    """
    folder = Path(path).expanduser()
    head = folder / "zarr.json"
    files = layout.files()
    if head.is_file() and (old := head.read_bytes()) != files["zarr.json"]:
        raise InputError(f"{folder} holds another corpus: {_difference(old, layout, folder)}. Name a new folder.")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a corpus is a folder. Name a new one.")
    if folder.is_dir() and not head.is_file():
        strangers = sorted(entry.name for entry in folder.iterdir() if not _ours(entry.name, layout))
        if strangers:
            raise InputError(f"{folder} is a folder with other things in it ({strangers[0]}); name a new one.")
    for name, data in files.items():
        target = folder / name
        if not (target.is_file() and target.read_bytes() == data):
            write_bytes(target, data)


def shard_key(array: ArraySpec, shard: int) -> str:
    """The key of one shard of one array in the store.

    >>> shard_key(ArraySpec("scl", "uint8", ("sample", "y", "x"), (8, 8), 0), 3)
    'scl/c/3/0/0'
    """
    return f"{array.name}/c/{shard}" + "/0" * len(array.shape)


def shard_path(store: str | Path, array: ArraySpec, shard: int) -> Path:
    """The file of one shard of one array.

    >>> shard_path("corpus.zarr", ArraySpec("scl", "uint8", ("sample", "y", "x"), (8, 8), 0), 3).parts
    ('corpus.zarr', 'scl', 'c', '3', '0', '0')
    """
    return Path(store).expanduser() / shard_key(array, shard)


def _ours(name: str, layout: Layout) -> bool:
    arrays = {spec.name for spec in layout.arrays} | set(layout.coords)
    return name.startswith(".") or name in arrays | {"plan", "parts", "samples.parquet"}


def _difference(old: bytes, layout: Layout, folder: Path) -> str:
    """The first thing in which a store differs from what was to be written."""
    try:
        there = Layout.from_zarr(old, str(folder))
    except InputError as error:
        return str(error).rstrip(".")
    for name in ("samples", "samples_per_shard", "coords"):
        if getattr(there, name) != getattr(layout, name):
            return f"its {name} is {getattr(there, name)}, not {getattr(layout, name)}"
    has, wants = ({spec.name: spec for spec in each.arrays} for each in (there, layout))
    if set(has) != set(wants):
        return f"its arrays are {', '.join(sorted(has))}, not {', '.join(sorted(wants))}"
    changed = [name for name in has if _json(vars(has[name])) != _json(vars(wants[name]))]
    if changed:
        return f"its array {changed[0]!r} differs in type, shape or attributes"
    keys = [key for key in {**there.attrs, **layout.attrs} if there.attrs.get(key) != layout.attrs.get(key)]
    return f"its attribute {keys[0]!r} differs" if keys else "it was written by another version"


def _array_node(spec: ArraySpec, samples: int, slots: int) -> dict[str, Any]:
    blosc = {"typesize": np.dtype(spec.dtype).itemsize, "cname": "lz4", "clevel": CLEVEL}
    inner = [_ENDIAN, {"name": "blosc", "configuration": {**blosc, "shuffle": "bitshuffle", "blocksize": 0}}, _CHECKSUM]
    sharding = {
        "chunk_shape": [1, *spec.shape],
        "codecs": inner,
        "index_codecs": [_ENDIAN, _CHECKSUM],
        "index_location": "end",
    }
    fill = int(spec.fill) if np.dtype(spec.dtype).kind in "iu" else _float_fill(float(spec.fill))
    return _node(
        (samples, *spec.shape),
        spec.dtype,
        (slots, *spec.shape),
        fill,
        [{"name": "sharding_indexed", "configuration": sharding}],
        spec.dims,
        dict(spec.attrs),
    )


def _coord_node(name: str, values: Sequence[Any]) -> dict[str, Any]:
    kind = _coord_kind(values)
    codecs = [{"name": "vlen-utf8", "configuration": {}}] if kind == "string" else [_ENDIAN]
    fill = "" if kind == "string" else 0 if kind == "int64" else 0.0
    shape = (len(values),)
    # The values are also told in the metadata: one request less for a corpus far away.
    return _node(shape, kind, shape, fill, codecs, (name,), {"values": list(values)})


def _node(
    shape: Sequence[int],
    dtype: str,
    chunks: Sequence[int],
    fill: Any,
    codecs: list[Any],
    dims: Sequence[str],
    attrs: dict[str, Any],
) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": attrs,
        "dimension_names": list(dims),
        "storage_transformers": [],
    }


def _spec_of(name: str, node: Mapping[str, Any], slots: int) -> ArraySpec:
    fill = node["fill_value"]
    spec = ArraySpec(
        name,
        node["data_type"],
        tuple(node["dimension_names"]),
        tuple(node["shape"][1:]),
        float(fill) if isinstance(fill, str) else fill,
        dict(node["attributes"]),
    )
    wanted = _array_node(spec, int(node["shape"][0]), slots)
    for key in ("chunk_grid", "codecs"):
        if json.dumps(node[key], sort_keys=True) != json.dumps(wanted[key], sort_keys=True):
            raise InputError(f"array {name!r} has other {key} than a corpus of format {FORMAT}")
    return spec


def _float_fill(value: float) -> float | str:
    return value if np.isfinite(value) else "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _coord_kind(values: Sequence[Any]) -> str:
    if all(isinstance(value, str) for value in values):
        return "string"
    return "int64" if all(isinstance(value, int) for value in values) else "float64"


def _coord_bytes(values: Sequence[Any]) -> bytes:
    """One chunk of a coordinate, texts as the codec vlen-utf8 has them: their number, then length and bytes of each."""
    kind = _coord_kind(values)
    if kind != "string":
        return np.asarray(values, np.dtype(kind).newbyteorder("<")).tobytes()
    texts = [value.encode("utf-8") for value in values]
    return struct.pack("<I", len(texts)) + b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1, default=_plain).encode("utf-8")


def _plain(value: Any) -> Any:
    """What json does not know: numpy's numbers and arrays."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise InputError(f"{value!r} in a corpus's attributes cannot be written; give numbers, texts, lists and dicts.")


def _parse(data: bytes, where: str) -> dict[str, Any]:
    try:
        node = json.loads(data)
        if not isinstance(node, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        raise InputError(f"The zarr.json of {where} cannot be read: {error}.") from error
    return node
