"""Splits that were made once and are kept, so that everybody trains and tests on the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError
from deepsentinel.files import atomic_path

if TYPE_CHECKING:
    import xarray as xr

COLUMNS = ("sample", "id", "split")


def save_splits(path: str | Path, parts: Sequence[xr.Dataset]) -> Path:
    """Write which sample is in which split as a Parquet table of `sample, id, split`, and how they were made.

    >>> import tempfile, xarray as xr
    >>> corpus = xr.Dataset(coords={"sample": [0, 1, 2], "id": ("sample", ["a", "b", "c"])}, attrs={"plan": "p"})
    >>> parts = [corpus.isel(sample=[n]).assign_attrs(split={"name": name}) for n, name in enumerate(("train", "test"))]
    >>> path = save_splits(tempfile.mkdtemp() + "/splits.parquet", parts)
    >>> [part["id"].item() for part in load_splits(corpus, path)]
    ['a', 'b']
    """
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    given: Any = path
    if not isinstance(given, str | Path):
        raise InputError("save_splits takes the path first: save_splits('splits.parquet', [train, val, test]).")
    notes = [_note(part) for part in parts]
    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for part, note in zip(parts, notes, strict=True):
        rows["sample"] += np.asarray(part["sample"]).tolist()
        rows["id"] += [str(one) for one in np.asarray(part["id"])]
        rows["split"] += [note["name"]] * part.sizes["sample"]
    schema = pa.schema([("sample", pa.int64()), ("id", pa.string()), ("split", pa.string())])
    story = {"plan": str(parts[0].attrs.get("plan", "")), "splits": notes}
    table = pa.table(rows, schema=schema).replace_schema_metadata({"deepsentinel": json.dumps(story, default=_plain)})
    target = Path(path).expanduser()
    with atomic_path(target) as temporary:
        pq.write_table(table, temporary)
    return target


def load_splits(corpus: xr.Dataset, path: str | Path) -> tuple[xr.Dataset, ...]:
    """The parts of a corpus as a file of `save_splits` says, in the order they were saved in."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    source = Path(path).expanduser()
    if not source.exists():
        raise InputError(f"There is no such file: {source}. save_splits, or `deepsentinel split`, makes one.")
    try:
        table = pq.read_table(source)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{source} cannot be read as a table of splits: {error}") from error
    told = (table.schema.metadata or {}).get(b"deepsentinel")
    if told is None or not set(COLUMNS) <= set(table.column_names):
        raise InputError(f"{source} is no table of splits; make one with save_splits, or `deepsentinel split`.")
    story = json.loads(told)
    mine = str(corpus.attrs.get("plan", ""))
    if story["plan"] != mine:
        raise InputError(
            f"{source} splits another corpus: its plan is {story['plan'] or 'unknown'}, this one's {mine or 'unknown'}."
        )
    position = {int(sample): at for at, sample in enumerate(np.asarray(corpus["sample"]))}
    named: dict[str, list[int]] = {note["name"]: [] for note in story["splits"]}
    if len(position) < corpus.sizes["sample"]:
        raise InputError("This Dataset has some samples more than once; give what open_corpus returns.")
    for sample, split in zip(table["sample"].to_pylist(), table["split"].to_pylist(), strict=True):
        if sample not in position:
            raise InputError(f"{source} names sample {sample}, which is not in this corpus; open the whole corpus.")
        named[split].append(position[sample])
    return tuple(corpus.isel(sample=named[note["name"]]).assign_attrs(split=note) for note in story["splits"])


def _note(part: Any) -> dict[str, Any]:
    note = part.attrs.get("split")
    if not isinstance(note, dict) or "name" not in note:
        raise InputError("These are no splits; give what ds.split(corpus) returned.")
    return note


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
