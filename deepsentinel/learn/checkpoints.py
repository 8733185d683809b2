"""The folder of a run: where it stands, and what its losses were, so that it can go on after whatever ended it."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from deepsentinel.errors import InputError, SourceError, TrainingError
from deepsentinel.files import atomic_path

from .samples import corpora_of

if TYPE_CHECKING:
    import xarray as xr

CHECKPOINT, HISTORY = "checkpoint.pt", "history.csv"
FORMAT = 3
# Of what differs between two runs so much is shown.
SHOWN = 80


@dataclass(frozen=True)
class Folder:
    """A folder with the checkpoint and the history of one run."""

    path: Path
    """Where it is; it is made when something is written."""
    story: str
    """What makes a run this one; the checkpoint of another is refused."""
    result: str = ""
    """The file that the run leaves here at its end, if any."""

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """The checkpoint, on a device; None where there is none yet."""
        path = self.path / CHECKPOINT
        if not path.is_file():
            return None
        try:
            held: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:  # torch raises many kinds, some of them with a page of advice
            reason = str(error).partition(". ")[0].splitlines()[0][:120]
            raise SourceError(
                f"{path} is no checkpoint, or a broken one ({reason}): move it away to begin anew."
            ) from error
        if held.get("story") != self.story:
            raise self.another(differing(str(held.get("story")), self.story))
        if held.get("format") != FORMAT:
            raise self.another("It was written by another version of deepsentinel")
        return held

    def another(self, why: str) -> InputError:
        """What is said where the folder belongs to another run."""
        return InputError(
            f"{self.path} holds another run. {why}. Name another folder in out=, or pass resume=False to write over it."
        )

    def clear(self) -> None:
        """Take away what an earlier run left at its end: it would lie beside the checkpoint of one that is not done."""
        if self.result:
            (self.path / self.result).unlink(missing_ok=True)

    def write(self, held: dict[str, Any], history: pd.DataFrame) -> None:
        """Write the checkpoint and the history, each whole or not at all."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.path / CHECKPOINT) as temporary:
                torch.save({"format": FORMAT, "story": self.story, **held}, temporary)
            with atomic_path(self.path / HISTORY) as temporary:
                history.to_csv(temporary)
        except (OSError, RuntimeError) as error:
            kept = self.kept() if (self.path / CHECKPOINT).is_file() else ""
            raise TrainingError(
                f"The checkpoint of step {held['done']} could not be written into {self.path}: {error}. {kept}Make "
                "room, or name another folder in out=."
            ) from error

    def kept(self) -> str:
        """What is said of the folder when a run ends before its time."""
        return f"The last checkpoint in {self.path} is whole: the run goes on from there. "


def told_of(corpora: xr.Dataset | Sequence[xr.Dataset]) -> list[list[Any]]:
    """What makes corpora these: of each its plan, how many of its samples, which, and what a few of them hold.

    >>> import xarray as xr
    >>> told_of(xr.Dataset(coords={"sample": [4, 7]}, attrs={"plan": "93ab"}))
    [['93ab', 2, 844041931, 0]]
    """
    found = []
    for each in corpora_of(corpora):
        numbers = each["sample"].to_numpy().astype("int64")
        which = zlib.crc32(numbers.tobytes())
        found.append([str(each.attrs.get("plan", "")), len(numbers), which, _glimpse(each)])
    return found


def _glimpse(corpus: xr.Dataset) -> int:
    """A sum over the samples at both ends and in the middle.

    The plan tells what is on disk. Whoever has changed it in memory (other labels, another scale) has another corpus of
    the same plan, and all of it is too much to look at.
    """
    last, total = corpus.sizes["sample"] - 1, 0
    few = corpus.isel(sample=sorted({0, last // 2, last}) if last >= 0 else [])
    for name in sorted(map(str, few.data_vars)):
        values = few[name].to_numpy()
        if values.dtype != object:
            total = zlib.crc32(values.tobytes(), zlib.crc32(name.encode(), total))
    return total


def differing(was: str, now: str) -> str:
    """In what the story of a run differs from another, in words; of longer ones also how they are begun.

    >>> differing('{"steps": 6, "seed": 0}', '{"steps": 6, "seed": 1}')
    'What differs (was -> now): seed 0 -> 1'
    >>> differing('{"steps": 5, "seed": 0}', '{"steps": 6, "seed": 0}')
    "What differs (was -> now): steps 5 -> 6. Rates fall to the last step, ..."
    """
    try:
        one, two = (dict(json.loads(each)) for each in (was, now))
    except (TypeError, ValueError):
        return f"What it was: {was}. What is asked for: {now}"
    names = [name for name in {**one, **two} if one.get(name) != two.get(name)]
    told = [f"{name} {_short(one.get(name))} -> {_short(two.get(name))}" for name in names]
    found = "What differs (was -> now): " + ", ".join(told)
    if names == ["steps"]:
        found += (
            ". Rates fall to the last step, so that a run that has reached it is not made longer: pass what it gave as "
            "encoder= (a model's is model.encoder) to go on from there in another folder"
        )
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."


def list_runs(folder: str | os.PathLike[str]) -> pd.DataFrame:
    """The runs below a folder, the latest first: `run`, `step`, `loss`, `finished` (a model was written), `changed`.

    >>> import tempfile
    >>> list_runs(tempfile.mkdtemp()).columns.tolist()
    ['run', 'step', 'loss', 'finished', 'changed']
    """
    rows = []
    for path in sorted(Path(folder).expanduser().glob(f"*/{CHECKPOINT}")):
        step, loss = 0, float("nan")
        try:
            # Text, not tensors: a list of runs reads no weights.
            told = pd.read_csv(path.with_name(HISTORY))
            if len(told):
                step, loss = int(told["step"].iloc[-1]), float(told["loss"].iloc[-1])
        except (OSError, KeyError, ValueError):
            pass  # a run that has only begun, or a history that somebody else wrote
        changed = pd.Timestamp(path.stat().st_mtime, unit="s")
        finished = path.with_name("model.safetensors").is_file()
        rows.append((path.parent.name, step, loss, finished, changed))
    table = pd.DataFrame(rows, columns=["run", "step", "loss", "finished", "changed"])
    return table.sort_values("changed", ascending=False, ignore_index=True)
