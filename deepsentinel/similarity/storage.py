"""Named arrays in one file that is mapped into memory, not read: the layout of safetensors, written a block at a time.

Eight bytes tell how long the header is; the header is JSON and says of each array its type, shape and bytes; then come
the arrays. Nothing in it can be executed, and any reader of safetensors opens it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepsentinel.errors import ReadError
from deepsentinel.files import atomic_path

TYPES: Mapping[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in TYPES.items()}
# Beyond this a header is not one, but some other file's first bytes read as a number.
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class Stored:
    """One array on its way into a file."""

    dtype: np.dtype
    """Its type."""
    shape: tuple[int, ...]
    """Its shape."""
    blocks: Iterable[np.ndarray]
    """Its rows, in order, a block at a time."""

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Stored], notes: Mapping[str, Any]) -> None:
    """Write arrays and notes into one file, whole or not at all.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
    >>> write_arrays(path, {"a": Stored(np.dtype("float32"), (2,), [np.ones(2)])}, {"made": "today"})
    >>> read_arrays(path)[0]["a"].tolist(), read_arrays(path)[1]
    ([1.0, 1.0], {'made': 'today'})
    """
    header: dict[str, Any] = {"__metadata__": {"deepsentinel": json.dumps(dict(notes))}}
    # The widest types first, so that each array begins where its type may begin.
    ordered = sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize)
    at = 0
    for name, array in ordered:
        offsets = [at, at := at + array.nbytes]
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, array in ordered:
            written = sum(file.write(np.ascontiguousarray(block, array.dtype).data) for block in array.blocks)
            if written != array.nbytes:
                raise ValueError(f"{name}: {written} bytes came for {array.nbytes}")


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a file, mapped into memory, and its notes."""
    path = Path(path)
    if path.is_dir() or path.suffix.lower() in (".tif", ".tiff"):
        opened = f'rioxarray.open_rasterio("{path}")' if path.is_file() else f'xarray.open_zarr("{path}", chunks=None)'
        raise ReadError(f"{path} is no index of vectors. An embedding that was written is opened first: {opened}.")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER_BYTES, path.stat().st_size - 8):
                raise ValueError("its first bytes are no header")
            header = json.loads(file.read(length))
        notes = json.loads(header.pop("__metadata__")["deepsentinel"])
        return {name: _mapped(path, 8 + length, said) for name, said in header.items()}, notes
    except FileNotFoundError as error:
        raise ReadError(f"There is no file {path}.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReadError(
            f"{path} is no index of vectors, or not all of it is there: {error}. Write it anew with index.save."
        ) from error


def _mapped(path: Path, start: int, said: Mapping[str, Any]) -> np.ndarray:
    dtype, shape = np.dtype(TYPES[said["dtype"]]), tuple(int(size) for size in said["shape"])
    begin, end = said["data_offsets"]
    if end - begin != math.prod(shape) * dtype.itemsize or start + end > path.stat().st_size:
        raise ValueError("the file ends before its arrays do")
    if begin == end:
        return np.empty(shape, dtype)
    # A plain view: a subclass would turn every number taken out of it into a memmap again.
    return np.memmap(path, dtype, "r", start + begin, shape).view(np.ndarray)
